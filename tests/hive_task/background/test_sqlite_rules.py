"""What follows from what in a `SQLiteQueue`: limits, rates, tasks after tasks, unique keys; and what it costs."""

import random
import sqlite3
from collections import Counter

import pytest

from hive_task.background.sources import _sqlite_schema as sql
from hive_task.background.sources._sqlite_codec import pack
from hive_task.background.sources._sqlite_rates import reserve
from hive_task.background.sources.sqlite import SQLiteQueue
from hive_task.background.tasks import (
    CANCELLED,
    DEAD,
    DONE,
    QUEUED,
    RUNNING,
    SCHEDULED,
    WAITING,
    End,
    Failure,
    Rate,
    Task,
)
from hive_task.errors import UnserializableData
from tests.hive_task.background.test_sqlite_crashes import Clock


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def queue(tmp_path, clock):
    queue = SQLiteQueue(tmp_path / "tasks.db", synchronous="OFF", clock=clock)
    yield queue
    queue.close()


def state(queue, id):
    return queue.find_task(id).state


def put(source, *ids, **how):
    source.enqueue_tasks([Task("t", id=id, **how) for id in ids])


# Order.


def test_a_batch_from_several_queues_comes_in_the_order_of_all(queue):
    queue.enqueue_tasks([Task("t", i, queue="abc"[i % 3], priority=i % 2) for i in range(12)])
    expected = [1, 3, 5, 7, 9, 11, 0, 2, 4, 6, 8, 10]
    assert [task.data for task in queue.dequeue_tasks(5)] + [task.data for task in queue.dequeue_tasks(50)] == expected


def test_a_paused_queue_is_passed_over_also_by_those_that_come_later(queue, tmp_path):
    put(queue, "a", queue="slow")
    queue.pause_queue("slow")
    put(queue, "b", queue="slow")
    put(queue, "c")
    assert [task.id for task in queue.dequeue_tasks(10)] == ["c"]
    other = SQLiteQueue(tmp_path / "tasks.db")
    assert other.paused_queues() == {"slow"}
    assert other.dequeue_tasks(10) == []
    other.resume_queue("slow")
    other.close()
    assert [task.id for task in queue.dequeue_tasks(10)] == ["a", "b"]


# Limits.


def test_the_place_of_a_task_that_ends_goes_to_the_next_in_the_same_step(queue):
    put(queue, "a", "b", "c", limit=("key", 2))
    assert [state(queue, id) for id in "abc"] == [QUEUED, QUEUED, WAITING]
    first = queue.dequeue_tasks(10)
    assert [task.id for task in first] == ["a", "b"]
    accepted, tasks = queue.settle_and_dequeue([End(first[0], DONE)], 10)
    assert accepted == [True]
    assert [task.id for task in tasks] == ["c"]


def test_the_first_of_a_key_has_the_place_also_if_it_comes_last(queue):
    put(queue, "low", limit=("key", 1))
    put(queue, "high", limit=("key", 1), priority=5)
    assert (state(queue, "low"), state(queue, "high")) == (WAITING, QUEUED)
    high = queue.dequeue_task()
    assert high.id == "high"
    put(queue, "higher", limit=("key", 1), priority=9)
    assert queue.dequeue_task() is None, "who runs keeps his place"
    queue.complete_task(high)
    assert [state(queue, id) for id in ("low", "higher")] == [WAITING, QUEUED]


def test_a_task_that_is_to_be_tried_again_gives_up_its_place(queue, clock):
    put(queue, "a", "b", limit=("key", 1))
    task = queue.dequeue_task()
    queue.fail_task(task, Failure("E", "x"), retry_at=clock.wall + 5)
    assert (state(queue, "a"), state(queue, "b")) == (SCHEDULED, QUEUED)
    b = queue.dequeue_task()
    clock.wall += 5
    queue.tend()
    assert state(queue, "a") == WAITING
    queue.complete_task(b)
    assert state(queue, "a") == QUEUED


def test_what_is_cancelled_or_paused_holds_no_place(queue):
    put(queue, "a", limit=("key", 1), queue="slow")
    put(queue, "b", "c", limit=("key", 1))
    assert [state(queue, id) for id in "abc"] == [QUEUED, WAITING, WAITING]
    queue.pause_queue("slow")
    assert [state(queue, id) for id in "abc"] == [WAITING, QUEUED, WAITING]
    queue.cancel_task("b")
    assert [state(queue, id) for id in "abc"] == [WAITING, CANCELLED, QUEUED]
    queue.resume_queue("slow")
    assert [state(queue, id) for id in "abc"] == [QUEUED, CANCELLED, WAITING]


@pytest.mark.parametrize("seed", range(5))
def test_places_are_counted_right_whatever_happens(queue, clock, seed):
    chance = random.Random(seed)
    running = []
    for i in range(300):
        what = chance.randrange(9)
        if what <= 3:
            due = None if chance.random() < 0.7 else clock.wall + chance.randrange(10)
            key = chance.choice("xy")
            put(queue, f"{i}", limit=(key, 2), priority=chance.randrange(3), queue=chance.choice("pq"), due=due)
        elif what == 4:
            running += queue.dequeue_tasks(chance.randrange(3))
        elif what == 5 and running:
            task = running.pop(chance.randrange(len(running)))
            outcome = chance.choice([DONE, DEAD, QUEUED, SCHEDULED, CANCELLED])
            queue.settle_tasks([End(task, outcome, retry_at=clock.wall + 3)])
        elif what == 6:
            clock.wall += 2
            queue.tend()
        elif what == 7:
            queue.cancel_task(str(chance.randrange(i)))
            queue.retry_task(str(chance.randrange(i)))
        else:
            chance.choice([queue.pause_queue, queue.resume_queue])(chance.choice("pq"))
        records = queue.list_tasks(limit=1000)
        paused = queue.paused_queues()
        with queue._file.reading() as connection:
            held = dict(connection.execute("SELECT key, held FROM limits").fetchall())
        count = Counter(one.task.limit.key for one in records if one.state in (QUEUED, RUNNING))
        assert held == dict(count)
        assert all(places <= 2 for places in count.values())
        told = {(q, s): n for q, states in queue.count_tasks().items() for s, n in states.items()}
        assert told == Counter((one.task.queue, one.state) for one in records)
        for key in "xy":
            mine = [one for one in records if one.task.limit.key == key and one.task.queue not in paused]
            mine.reverse()
            mine.sort(key=lambda one: -one.task.priority)
            line = [one.state for one in mine if one.state in (QUEUED, WAITING)]
            assert line == sorted(line), "those in the queue are the first of the key"
            if WAITING in line:
                assert count[key] == 2, "nobody waits while there is a place"


# Rates.


def test_each_task_gets_its_time_as_it_is_put_in(queue, clock):
    put(queue, *"abcde", rate=("key", 2, 10))
    assert [queue.find_task(id).due - clock.wall for id in "abcde"] == [0, 0, 10, 10, 20]
    assert [state(queue, id) for id in "abc"] == [QUEUED, QUEUED, SCHEDULED]
    clock.wall += 10
    queue.tend()
    assert len(queue.dequeue_tasks(10)) == 4


@pytest.mark.parametrize("seed", range(20))
def test_no_window_has_more_starts_than_it_may_and_nobody_waits_without_need(seed):
    chance = random.Random(seed)
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for statement in sql.SCHEMA:
        connection.execute(statement)
    most, seconds, now, given = chance.randrange(1, 5), 10.0, 1000.0, []
    rate = Rate("key", most, seconds)

    def fits(time):
        line = sorted([*given, time])
        return all(line[i + most] >= line[i] + seconds for i in range(len(line) - most))

    for _ in range(60):
        now += chance.choice([0, 0, 0.25, 3, 11])
        wanted = now + chance.choice([0, 0, 0, 2.5, 40])
        time = reserve(connection, rate, wanted, now)
        assert time >= wanted
        assert fits(time)
        earlier = [one for one in [wanted, *(other + seconds for other in given)] if wanted <= one < time]
        assert not any(fits(one) for one in earlier), "there was room earlier"
        given.append(time)
    connection.close()


# After others.


def test_tasks_may_be_put_in_together_in_any_order(queue):
    tasks = [Task("t", id="c", after=("a", "b")), Task("t", id="b", after=("a",)), Task("t", id="a")]
    assert queue.enqueue_tasks(tasks) == ["c", "b", "a"]
    for id in "abc":
        task = queue.dequeue_task()
        assert task.id == id
        assert queue.dequeue_task() is None
        queue.complete_task(task)


def test_circles_and_unknown_parents_are_refused_with_the_whole_batch(queue):
    with pytest.raises(ValueError, match="in a circle"):
        queue.enqueue_tasks([Task("t", id="a", after=("b",)), Task("t", id="b", after=("a",)), Task("t")])
    with pytest.raises(ValueError, match="task 't' is to run after 'nobody'"):
        queue.enqueue_tasks([Task("t"), Task("t", after=("nobody",))])
    assert queue.count_tasks() == {}


def test_a_chain_of_any_length_falls_with_its_first(queue):
    count = 3000
    queue.enqueue_tasks([Task("t", id=f"{i}", after=(f"{i - 1}",) if i else ()) for i in range(count)])
    put(queue, "despite", after=("0", "7"), despite_failure=True)
    queue.fail_task(queue.dequeue_task(), Failure("E", "broken"))
    assert queue.count_tasks() == {"default": {DEAD: 1, CANCELLED: count - 1, QUEUED: 1}}
    assert queue.find_task("2999").failure.kind == "ParentFailed"
    assert queue.dequeue_task().id == "despite"
    put(queue, "late", after=("0",))
    assert state(queue, "late") == CANCELLED


def test_a_child_is_done_with_all_its_parents_when_it_is_cancelled(queue):
    put(queue, "a", "b")
    put(queue, "child", after=("a", "b"))
    queue.cancel_task("child")
    assert queue.retry_task("child"), "it waits anew for both"
    assert state(queue, "child") == WAITING
    queue.cancel_task("child")
    a, b = queue.dequeue_tasks(2)
    assert queue.complete_task(a)
    assert queue.fail_task(b, Failure("E", "x"))
    assert (state(queue, "child"), queue.find_task("child").failure) == (CANCELLED, None)
    with queue._file.reading() as connection:
        assert connection.execute("SELECT * FROM links").fetchall() == []


def test_a_child_with_a_limit_and_a_time_waits_for_all_three(queue, clock):
    put(queue, "parent")
    put(queue, "first", limit=("key", 1))
    put(queue, "child", after=("parent",), due=clock.wall + 5, limit=("key", 1))
    parent, first = queue.dequeue_tasks(5)
    queue.complete_task(parent)
    assert state(queue, "child") == SCHEDULED
    clock.wall += 5
    queue.tend()
    assert state(queue, "child") == WAITING
    queue.complete_task(first)
    assert queue.dequeue_task().id == "child"


# Unique keys.


def test_a_key_is_taken_until_its_task_has_ended(queue):
    a = queue.enqueue_task(Task("t", unique="key"))
    assert queue.enqueue_tasks([Task("t"), Task("t", unique="key")])[1] == a
    assert queue.count_tasks() == {"default": {QUEUED: 2}}
    queue.cancel_task(a)
    b = queue.enqueue_task(Task("t", unique="key"))
    assert b != a
    assert not queue.retry_task(a), "its key is another's now"
    queue.cancel_task(b)
    assert queue.retry_task(a)
    assert queue.enqueue_task(Task("t", unique="key")) == a


def test_a_key_for_a_time_is_free_after_it_and_not_before(queue, clock):
    a = queue.enqueue_task(Task("t", unique="key", unique_for=60))
    queue.complete_task(queue.dequeue_task())
    clock.wall += 59
    assert queue.enqueue_task(Task("t", unique="key", unique_for=60)) == a
    clock.wall += 1
    assert queue.enqueue_task(Task("t", unique="key", unique_for=60)) != a
    with queue._file.reading() as connection:
        assert connection.execute("SELECT count(*) FROM keys").fetchall() == [(1,)]


def test_who_was_meant_stands_for_the_one_that_was_not_put_in(queue):
    a = queue.enqueue_task(Task("t", unique="key"))
    queue.enqueue_tasks([Task("t", id="b", unique="key"), Task("t", id="c", after=("b",))])
    assert queue.find_task("b") is None
    assert queue.find_task("c").task.after == (a,)
    queue.complete_task(queue.dequeue_task())
    assert queue.dequeue_task().id == "c"


def test_a_known_id_changes_nothing(queue):
    put(queue, "a")
    queue.enqueue_tasks([Task("other", id="a"), Task("other", id="b"), Task("other", id="b", after=("nobody",))])
    assert (queue.find_task("a").task.name, queue.count_tasks()) == ("t", {"default": {QUEUED: 2}})


# Values.


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ({"a": [1, {2: 3}]}, r"data\['a'\]\[1\] has the key 2"),
        (b"x", "data is of type bytes"),
        ([{1, 2}], r"data\[0\] is of type set"),
        ([float("nan")], r"data\[0\] is nan"),
        (float("inf"), "data is inf"),
        (object(), "data is of type object"),
        ([1, "x", 10**5000], "data"),
    ],
)
def test_what_would_not_come_back_is_refused_and_the_part_is_named(queue, value, part):
    with pytest.raises(UnserializableData, match=rf"the data of task 'greet' can't be kept: .*{part}"):
        queue.enqueue_task(Task("greet", value))
    assert queue.count_tasks() == {}


def test_what_contains_itself_is_refused():
    loop = []
    loop.append(loop)
    with pytest.raises(UnserializableData, match="the result of task 't' can't be kept"):
        pack(loop, "result", "t")


def test_a_result_that_cannot_be_kept_leaves_the_task_running(queue):
    put(queue, "a", "b")
    a, b = queue.dequeue_tasks(2)
    with pytest.raises(UnserializableData, match="the result of task 't'"):
        queue.settle_tasks([End(a, DONE, 1), End(b, DONE, {1, 2})])
    assert queue.count_tasks() == {"default": {RUNNING: 2}}


# Costs.


def test_no_step_looks_at_the_whole_table(queue, clock, monkeypatch):
    """Every statement of ordinary work finds what it needs by an index."""
    queue.dequeue_tasks(1)
    writer, plans = queue._file._writer, []
    explain = sqlite3.connect(queue.path, isolation_level=None)
    writer.set_trace_callback(lambda statement: plans.append(statement))
    put(queue, "a", "b", limit=("key", 1), rate=("key", 5, 1), unique=None)
    put(queue, "c", after=("a",), unique="key", unique_for=10)
    put(queue, "d", due=clock.wall + 10)
    queue.enqueue_call("e", None, "default")
    task = queue.dequeue_task()
    queue.renew_leases([task])
    queue.settle_and_dequeue([End(task, DONE)], 5)
    queue.cancel_task("d")
    queue.retry_task("d")
    queue.pause_queue("x")
    queue.resume_queue("x")
    clock.wall, clock.running = clock.wall + 100, clock.running + 100
    queue.tend()
    queue.purge(clock.wall + 1)
    writer.set_trace_callback(None)
    looked = 0
    for statement in {one for one in plans if one.lstrip().startswith(("SELECT", "UPDATE", "DELETE", "WITH"))}:
        for *_, detail in explain.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall():
            whole = detail.startswith("SCAN") and not any(
                fine in detail for fine in ("found", "CONSTANT", "json_each", "epochs", "paused", "claimants", "places")
            )
            assert not whole, (statement, detail)
            assert "TEMP B-TREE FOR ORDER BY" not in detail, (statement, detail)
            looked += 1
    explain.close()
    assert looked > 20


def test_purging_forgets_what_ended_before(queue, clock):
    put(queue, "a", "b", "c", "d")
    a, b, c = queue.dequeue_tasks(3)
    queue.settle_tasks([End(a, DONE), End(b, DEAD, failure=Failure("E", "x"))])
    clock.wall += 10
    queue.complete_task(c)
    assert queue.purge(clock.wall) == 1
    assert queue.purge(clock.wall, states=(DEAD, QUEUED)) == 1
    assert sorted(record.task.id for record in queue.list_tasks()) == ["c", "d"]
