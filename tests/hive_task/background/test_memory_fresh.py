"""Tasks of a `MemoryQueue` that have no job yet: nobody notices. (The suite for all sources is run on them, too.)"""

import gc
import os
import threading

import pytest

from hive_task.background import Application, Registry, execute_task, task
from hive_task.background.clocks import ManualClock
from hive_task.background.sources import _memory_line
from hive_task.background.sources.memory import MemoryQueue
from hive_task.background.tasks import (
    BLOCK,
    CANCELLED,
    DEFAULT_QUEUE,
    DONE,
    QUEUED,
    RUNNING,
    SAME,
    SCHEDULED,
    End,
    Task,
    _ends,
    new_id,
)
from stm import BlockedForever, TVar, atomically, run
from stm.testing import explore
from tests.support import elsewhere


@pytest.fixture
def source():
    return MemoryQueue(clock=ManualClock())


def call(source, name="work", data=None, queue=DEFAULT_QUEUE):
    return source.enqueue_call(name, data, queue)


def names_of(source):
    return [task.name for task in source.dequeue_tasks(100)]


def jobless(source):
    return len(source._life.line.unlisted())


# ------------------------------------------------------------------------------------------------- what can be asked


def test_they_are_counted_and_listed_and_stay_as_they_are(source):
    first, second = call(source, "first", 1), call(source, "second", 2, "other")
    assert source.count_tasks() == {DEFAULT_QUEUE: {QUEUED: 1}, "other": {QUEUED: 1}}
    assert [one.task.id for one in source.list_tasks()] == [second, first]
    assert [one.task.data for one in source.list_tasks(queue="other", state=QUEUED, name="second")] == [2]
    assert source.list_tasks(state=DONE) == []
    assert repr(source) == "<MemoryQueue of 2 tasks>"
    assert jobless(source) == 2


def test_they_are_found_by_their_ids(source):
    ids = [call(source, f"task {number}") for number in range(5)]
    record = source.find_task(ids[2])
    assert (record.task.name, record.task.id, record.state, record.attempts) == ("task 2", ids[2], QUEUED, 0)
    assert record.task == Task("task 2", id=ids[2])
    assert source.find_task("unknown") is None
    assert source.await_end(ids[4], 0).state == QUEUED


def test_who_asks_for_what_is_unknown_gives_nobody_a_job(source):
    call(source)
    assert source.find_task("unknown") is None
    assert source.cancel_task("unknown") is False
    assert source.enqueue_task(Task("other", id="new", priority=1)) == "new"
    assert jobless(source) == 1


def test_a_transaction_that_only_reads_finds_them_too(source):
    id = call(source)
    record = run(source.find_task, id, read_only=True)
    assert (record.task.id, record.state) == (id, QUEUED)
    assert run(source.find_task, "unknown", read_only=True) is None
    assert run(source.count_tasks, read_only=True) == {DEFAULT_QUEUE: {QUEUED: 1}}
    with pytest.raises(BlockedForever):
        run(source.await_end, id, read_only=True)
    assert run(source.await_end, "unknown", read_only=True) is None
    assert jobless(source) == 1


def test_a_reader_sees_them_as_they_were_at_his_moment(source):
    id, moment = call(source), TVar(0)

    @atomically(read_only=True)
    def look():
        moment.get()
        if source.find_task(id).state != QUEUED:
            return "too late"
        elsewhere(source.dequeue_task)
        assert not source._life.line.fresh
        return source.find_task(id).state, source.count_tasks()

    assert look() == (QUEUED, {DEFAULT_QUEUE: {QUEUED: 1}})
    assert source.find_task(id).state == RUNNING


def test_a_transaction_that_writes_finds_them_as_it_will_be_true_at_its_commit(source):
    id, other, seen = call(source), TVar(0), []

    @atomically
    def look():
        other.value += 1
        seen.append(source.find_task(id).state)
        if len(seen) == 1:
            elsewhere(source.dequeue_task)
        return source.find_task(id).state

    assert look() == RUNNING
    assert seen[-1] == RUNNING


# ------------------------------------------------------------------------------------------------------- what is done


def test_they_come_in_order_with_others_whoever_asked_for_some(source):
    expected = []
    for number in range(3):
        for _ in range(5):
            call(source, f"fresh {number}")
        source.enqueue_task(Task(f"full {number}", retries=1))
        expected += [f"fresh {number}"] * 5 + [f"full {number}"]
        if number == 1:
            source.find_task(call(source, "asked for"))
            expected.append("asked for")
    assert names_of(source) == expected


def test_what_was_listed_comes_before_what_came_after_and_after_what_is_more_urgent(source):
    asked = call(source, "first")
    source.find_task(asked)
    call(source, "second")
    source.enqueue_task(Task("urgent", priority=1))
    source.enqueue_task(Task("not urgent", priority=-1))
    taken = source.dequeue_tasks(2)
    assert [one.name for one in taken] == ["urgent", "first"]
    source.release_task(taken[1])  # it has its old place again: by its order, before the second
    assert names_of(source) == ["first", "second", "not urgent"]


@pytest.mark.parametrize("asked", [False, True])
def test_one_that_is_given_back_comes_before_those_after_it(source, asked):
    ids = [call(source, f"task {number}") for number in range(3)]
    if asked:
        source.find_task(ids[2])
    source.release_task(source.dequeue_task())
    assert names_of(source) == ["task 0", "task 1", "task 2"]


def test_one_whose_time_comes_has_its_place_among_those_that_were_listed(source):
    call(source, "first")
    source.schedule_task(source.clock.time() + 5, Task("second"))
    source.find_task(call(source, "third"))
    call(source, "fourth")
    source.clock.advance(5)
    source.tend()
    assert names_of(source) == ["first", "second", "third", "fourth"]


def test_many_are_listed_in_several_steps(source, monkeypatch):
    monkeypatch.setattr(_memory_line, "LISTED", 3)
    ids = [call(source, f"task {number}") for number in range(10)]
    assert source.find_task(ids[4]).state == QUEUED
    assert jobless(source) == 4, "no more were listed than had to be"
    assert source.find_task(ids[9]).state == QUEUED
    assert names_of(source) == [f"task {number}" for number in range(10)]


def test_they_are_cancelled_and_revived(source):
    first, second = call(source, "first"), call(source, "second")
    assert source.cancel_task(first) is True
    assert source.find_task(first).state == CANCELLED
    assert [one.id for one in source.dequeue_tasks(9)] == [second]
    assert source.retry_task(first) is True
    assert [one.id for one in source.dequeue_tasks(9)] == [first]


def test_others_may_come_after_them(source):
    parent = call(source)
    child = source.enqueue_task(Task("child", after=(parent,)))
    source.complete_task(source.dequeue_task())
    assert source.dequeue_task().id == child


def test_those_of_a_queue_that_is_paused_later_stay(source):
    ids = [call(source, queue="paused"), call(source), call(source, queue="paused")]
    source.pause_queue("paused")
    ids.append(call(source, queue="paused"))
    assert [one.id for one in source.dequeue_tasks(9)] == [ids[1]]
    assert [source.find_task(id).state for id in ids] == [QUEUED, RUNNING, QUEUED, QUEUED]
    source.resume_queue("paused")
    assert [one.id for one in source.dequeue_tasks(9)] == [ids[0], ids[2], ids[3]]


@pytest.mark.parametrize("options", [{}, {"due": 1e9}, {"unique": "key"}, {"priority": 3}, {"retries": 2}])
def test_putting_one_in_again_changes_nothing(source, options):
    id = call(source)
    again = Task("again", id=id, **options)
    assert source.enqueue_task(again) == id
    assert source.enqueue_tasks([again, Task("new")])[0] == id
    assert names_of(source) == ["work", "new"]
    assert source.enqueue_tasks([again]) == [id]
    assert source.count_tasks() == {DEFAULT_QUEUE: {RUNNING: 2}}


def test_one_of_a_batch_is_put_in_once_however_often_it_comes(source):
    id = new_id()
    assert source.enqueue_tasks([Task("first", id=id), Task("second", id=id)]) == [id, id]
    assert source.enqueue_tasks([Task("third", id=id)]) == [id]
    assert names_of(source) == ["first"]


def test_a_batch_in_a_transaction_is_a_part_of_it(source):
    def body():
        source.enqueue_tasks([Task("work")])
        call(source)
        assert elsewhere(source.dequeue_task) is None
        assert len(source.list_tasks()) == 2
        raise KeyError

    with pytest.raises(KeyError):
        run(body)
    assert source.dequeue_task() is None
    assert not source._life.line.fresh


def test_a_batch_may_hold_what_another_transaction_would_not_see(source):
    """Whoever puts in the same id at the same time, one way or the other, it is there once."""
    id = "the same for both"

    def program():
        queue = MemoryQueue(clock=ManualClock())

        def check():
            assert sum(sum(states.values()) for states in queue.count_tasks().values()) == 1
            assert queue.find_task(id) is not None

        batch = lambda: queue.enqueue_tasks([Task("batch", id=id)])  # noqa: E731
        return [batch, lambda: queue.schedule_task(1e9, Task("later", id=id))], check

    assert explore(program, preemptions=1).complete


def test_two_batches_with_the_same_task(source):
    def program():
        queue = MemoryQueue(clock=ManualClock())

        def check():
            assert len(queue.dequeue_tasks(9)) == 1

        return [lambda: queue.enqueue_tasks([Task("work", id="one")])] * 2, check

    assert explore(program, preemptions=1).complete


def test_who_asks_while_another_takes_finds_it(source):
    def program():
        queue = MemoryQueue(clock=ManualClock())
        id = call(queue)
        found = []

        def check():
            assert found in ([QUEUED], [RUNNING])
            assert queue.find_task(id).state == RUNNING

        return [queue.dequeue_task, lambda: found.append(queue.find_task(id).state)], check

    assert explore(program, preemptions=1).complete


# ------------------------------------------------------------------------------------------------- what is left behind


def test_nothing_is_kept_of_them_by_their_ids(source):
    ids = [call(source) for _ in range(20)]
    source.enqueue_tasks([Task("work") for _ in range(20)])
    source.find_task(ids[3])
    call(source)
    assert len(source.dequeue_tasks(100)) == 41
    assert not source._life.line.fresh


@pytest.mark.parametrize("way", ["call", "batch", "singly"])
def test_an_ended_one_is_one_object_to_the_garbage_collector(source, way):
    if way == "call":
        ids = [call(source, data=number) for number in range(50)]
    elif way == "batch":
        ids = source.enqueue_tasks([Task("work", number) for number in range(50)])
    else:
        ids = [source.enqueue_task(Task("work", number)) for number in range(50)]
    source.settle_tasks([End(one, DONE, one.data) for one in source.dequeue_tasks(50)])
    gc.collect()
    gc.collect()
    kept = [source._life.jobs.get(id)._cell for id in ids]
    assert not any(map(gc.is_tracked, kept))
    record = source.find_task(ids[7])
    assert record.task == Task("work", 7, id=ids[7])
    assert (record.state, record.result, record.attempts, record.worker) == (DONE, 7, 1, "-")
    assert None not in (record.created, record.due, record.started, record.ended)


def test_one_that_has_ended_can_be_revived_and_ends_again(source):
    id = call(source, data=1)
    first = source.dequeue_task()
    assert source.settle_tasks([End(first, CANCELLED), End(first, DONE)]) == [True, False]
    assert source.retry_task(id)
    assert source.find_task(id).state == QUEUED
    assert not source.retry_task(id)
    second = source.dequeue_task()
    assert (second.id, second.data, second.claim.epoch) == (id, 1, 2)
    assert source.set_progress(second, "half")
    assert not source.set_progress(first, "none")
    assert source.settle_tasks([End(first, DONE, 1), End(second, DONE, 2)]) == [False, True]
    assert (source.find_task(id).result, source.find_task(id).progress) == (2, "half")
    assert not source.cancel_task(id)
    assert source.purge(4e9) == 1
    assert source.find_task(id) is None


def test_a_queue_of_ones_own_puts_in_its_own_way():
    class Logged(MemoryQueue):
        def __init__(self):
            super().__init__()
            self.names = []

        def enqueue_task(self, task, *, app=None):
            self.names.append(task.name)
            return super().enqueue_task(task, app=app)

    class More(Logged):
        pass

    for queue in (Logged(), More()):
        call(queue, "called")
        assert queue.names == ["called"]
        assert queue.dequeue_task().name == "called"


def test_a_task_of_a_class_of_ones_own_stays_one(source):
    class Mine(Task):
        __slots__ = ()

    id = source.enqueue_tasks([Mine("work")])[0]
    taken = source.dequeue_task()
    assert type(taken) is Mine
    source.complete_task(taken)
    assert type(source.find_task(id).task) is Mine


def test_an_option_is_remembered_after_the_end(source):
    ids = [source.enqueue_task(Task("work", **one)) for one in ({"retries": 3}, {"time_limit": 2.0}, {"priority": 1})]
    source.settle_tasks([End(one, DONE) for one in source.dequeue_tasks(9)])
    assert [source.find_task(id).task.retries for id in ids] == [3, None, None]
    assert [source.find_task(id).task.time_limit for id in ids] == [None, 2.0, None]
    assert [source.find_task(id).task.priority for id in ids] == [0, 0, 1]


# -------------------------------------------------------------------------------------------------------- many with ids


@pytest.mark.parametrize("make", [lambda number: f"{number:032x}"[::-1], lambda number: f"{number:020x}" + "f" * 12])
def test_ids_of_ones_own_may_end_alike(make):
    source = MemoryQueue(clock=ManualClock(), keep=0)
    ids = [make(number) for number in range(10 * BLOCK)]
    assert len(ids[0]) == 32
    for id in ids[: 5 * BLOCK]:
        source.enqueue_task(Task("work", id=id, priority=1))
    source.enqueue_tasks([Task("work", id=id, priority=1) for id in ids[5 * BLOCK :]])
    assert all(source.find_task(id).state == QUEUED for id in ids)
    assert max(map(len, source._life.jobs._blocks.values())) == BLOCK
    taken = source.dequeue_tasks(len(ids))
    source.settle_tasks([End(one, DONE) for one in taken[::2]])
    assert {source.find_task(one.id) for one in taken[::2]} == {None}
    assert all(source.find_task(one.id).state == RUNNING for one in taken[1::2])
    source.settle_tasks([End(one, DONE) for one in taken[1::2]])
    assert len(source._life.jobs._blocks) == 0


def test_ids_come_in_blocks_and_are_hard_to_guess():
    _ends.clear()  # (threads that made ids at the same time have left parts of blocks)
    ids = [new_id() for _ in range(100 * BLOCK)]
    assert len(set(ids)) == len(ids)
    assert len({id[SAME:] for id in ids}) == 100
    assert len({id[10:SAME] for id in ids}) > 0.99 * len(ids)
    assert len({id[:16] for id in ids}) == len(ids), "what tables show tells them apart"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_makes_other_ids():
    new_id()  # the next ones are made in advance
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(into, "".join([new_id() for _ in range(10)]).encode())
        os._exit(0)
    os.close(into)
    os.waitpid(child, 0)
    with os.fdopen(out) as there:
        theirs = there.read()
    assert len(theirs) == 320
    mine = {new_id()[8:] for _ in range(2 * BLOCK)}
    assert not mine & {theirs[start + 8 : start + 32] for start in range(0, 320, 32)}


def test_ids_of_many_threads_differ():
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.extend([new_id() for _ in range(20 * BLOCK)])) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(set(found)) == len(found) == 80 * BLOCK


# ------------------------------------------------------------------------------------------------------ in applications


def test_execute_task_makes_such_tasks_and_others_where_it_must():
    registry = Registry()
    task("bare", retries=2, registry=registry)(lambda data, *, time: data)
    task("urgent", priority=1, registry=registry)(lambda data, *, time: data)
    task("unique", unique=True, registry=registry)(lambda data, *, time: data)
    source = MemoryQueue()
    app = Application(source, registry=registry)
    handle = execute_task(app, "bare", 1)
    assert (handle.state, handle.record().task.data) == (QUEUED, 1)
    execute_task(app, "bare", 2)
    assert jobless(source) == 1
    execute_task(app, "bare", 3, priority=2)
    assert execute_task(app, "unique") == execute_task(app, "unique")
    execute_task(app, "urgent")
    atomically(execute_task)(app, "bare", 4)
    assert jobless(source) == 1
    later = execute_task(app, "bare", due=source.clock.time() + 1000)
    assert later.state == SCHEDULED
    assert [one.data for one in source.dequeue_tasks(9)] == [3, None, 1, 2, None, 4]
    app.stop()
