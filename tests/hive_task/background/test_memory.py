"""What `MemoryQueue` alone promises: it is a part of the caller's transaction; and what it forgets."""

import dataclasses
import gc
import random
import weakref
from itertools import pairwise

import pytest

import hive_task.background.sources._memory_way
from hive_task.background.clocks import ManualClock
from hive_task.background.sources._memory_keys import Rates
from hive_task.background.sources.memory import MemoryQueue
from hive_task.background.tasks import (
    CANCELLED,
    DEAD,
    DONE,
    QUEUED,
    RUNNING,
    WAITING,
    Claim,
    End,
    Failure,
    Rate,
    Task,
    simple_task,
)
from stm import BlockedForever, TVar, atomically, check, retry, run
from tests.support import Background, Once, asleep, elsewhere, together

BROKEN = Failure("ValueError", "it is broken")


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def source(clock):
    return MemoryQueue(clock=clock)


def put(source, name="work", **options):
    return source.enqueue_task(Task(name, **options))


# ------------------------------------------------------------------------------------- in the caller's transaction


def test_a_task_is_put_in_if_and_when_the_transaction_commits(source):
    stock = TVar(3)

    @atomically
    def order():
        stock.value -= 1
        id = put(source, "ship")
        assert source.find_task(id).state == QUEUED  # to the transaction itself, it is there
        assert elsewhere(source.find_task, id) is None
        assert elsewhere(source.dequeue_task) is None
        return id

    id = order()
    assert source.dequeue_task().id == id
    assert stock.value == 2


def test_a_transaction_that_raises_puts_in_nothing(source):
    def body():
        put(source)
        put(source, priority=4, unique="key", limit=("key", 1), rate=("key", 1, 60.0), due=1e12)
        source.enqueue_tasks([Task("one", id="one"), Task("two", after=("one",))])
        source.pause_queue("default")
        raise KeyError("changed my mind")

    with pytest.raises(KeyError, match="changed my mind"):
        run(body)
    assert source.count_tasks() == {}
    assert source.paused_queues() == frozenset()
    id = put(source, unique="key", limit=("key", 1), rate=("key", 1, 60.0))
    assert source.find_task(id).state == QUEUED  # nothing of the keys was taken
    assert source.dequeue_task().id == id


def test_a_transaction_that_runs_again_puts_in_once(source):
    x, first, bodies = TVar(0), Once(), []

    @atomically
    def body():
        seen = x.get()
        put(source, f"work {seen}")
        source.schedule_task(1e12, Task("later"))
        if first:
            elsewhere(x.set, 1)
        bodies.append(seen)
        x.set(seen + 1)

    body()
    assert bodies == [0, 1]
    assert sorted(record.task.name for record in source.list_tasks()) == ["later", "work 1"]


def test_a_transaction_that_waits_puts_in_nothing_before(source):
    ready = TVar(False)

    def body():
        id = put(source)
        check(ready.value)
        return id

    waiting = Background(run, body)
    asleep()
    assert source.count_tasks() == {}
    ready.set(True)
    id = waiting.result()
    assert source.dequeue_task().id == id
    assert source.dequeue_task() is None


def test_an_alternative_that_is_given_up_puts_in_nothing(source):
    from stm import or_else

    def first():
        put(source, "first")
        retry()

    run(lambda: or_else(first, lambda: put(source, "second")))
    assert source.dequeue_task().name == "second"
    assert source.dequeue_task() is None


def test_a_refused_task_undoes_its_own_scope_alone(source):
    def body():
        good = put(source, "good")
        with pytest.raises(ValueError, match="no such task is known"):
            put(source, "bad", after=("nobody",), unique="key")
        return good

    good = run(body)
    assert [record.task.id for record in source.list_tasks()] == [good]
    assert put(source, unique="key") != good


def test_taking_settling_and_cancelling_are_undone_too(source):
    ids = [put(source) for _ in range(3)]
    task = source.dequeue_task()

    def body():
        source.complete_task(task, "well")
        source.dequeue_tasks(5)
        source.cancel_task(ids[2])
        raise KeyError("undone")

    with pytest.raises(KeyError, match="undone"):
        run(body)
    assert [source.find_task(id).state for id in ids] == [RUNNING, QUEUED, QUEUED]
    assert source.complete_task(task) is True
    assert [one.id for one in source.dequeue_tasks(5)] == ids[1:]


def test_the_end_of_a_task_and_what_comes_of_it_are_one_step(source):
    """A worker that books its result, settles, and puts in what follows."""
    put(source, "count", data=5)
    total = TVar(0)

    @atomically
    def work():
        task = source.dequeue_task()
        total.value += task.data
        source.complete_task(task)
        put(source, "report", data=total.value)

    work()
    assert (total.value, source.dequeue_task().data) == (5, 5)
    assert source.count_tasks() == {"default": {DONE: 1, RUNNING: 1}}


def test_tasks_that_transactions_hand_on_are_neither_lost_nor_doubled():
    first, second = MemoryQueue(), MemoryQueue()
    for number in range(200):
        put(first, data=number)

    def move():
        @atomically
        def step():
            task = first.dequeue_task()
            if task is None:
                return False
            first.complete_task(task)
            second.enqueue_task(Task("work", task.data))
            return True

        while step():
            pass

    together(move, move, move)
    assert sorted(task.data for task in second.dequeue_tasks(999)) == list(range(200))


def test_waiting_in_a_transaction_is_refused(source):
    id = put(source)
    for wait in (source.wait_for_work, source.wait_for_change, lambda timeout: source.await_end(id, timeout)):
        with pytest.raises(BlockedForever, match="in a transaction"):
            run(wait, 5.0)


def test_asking_for_all_does_not_disturb_those_that_write(source):
    put(source)
    bodies = []

    def body():
        bodies.append(1)
        put(source)
        elsewhere(source.count_tasks)
        elsewhere(source.list_tasks)

    run(body)
    assert len(bodies) == 1
    assert source.count_tasks() == {"default": {QUEUED: 2}}


def test_putting_in_and_taking_do_not_conflict(source):
    for _ in range(5):
        put(source)
    assert source.dequeue_task() is not None
    bodies = []

    def body():
        bodies.append(1)
        assert source.dequeue_task() is not None
        elsewhere(source.enqueue_tasks, [Task("work", id=f"task {number}") for number in range(5)])

    run(body)
    assert len(bodies) == 1


class MeddlingClock(ManualClock):
    """Lets another thread do something, once, when it is asked for the time: in the midst of a method."""

    meddle = None

    def time(self):
        meddle, self.meddle = self.meddle, None
        if meddle is not None:
            elsewhere(meddle)
        return super().time()


def test_taking_is_one_step():
    clock = MeddlingClock()
    source = MemoryQueue(clock=clock)
    id, next_one = put(source), put(source)
    answers = []
    clock.meddle = lambda: answers.append(source.cancel_task(id))
    tasks = source.dequeue_tasks(5)
    assert answers == [True]
    assert [task.id for task in tasks] == [next_one]
    assert source.find_task(id).state == CANCELLED


def test_settling_is_one_step():
    clock = MeddlingClock()
    source = MemoryQueue(clock=clock)
    put(source)
    task = source.dequeue_task()
    answers = []
    clock.meddle = lambda: answers.append(source.complete_task(task, "other"))
    answers.append(source.complete_task(task, "this"))
    assert answers == [True, False]
    assert source.find_task(task.id).result == "other"


def test_data_is_not_copied(source):
    data = object()
    put(source, data=data)
    task = source.dequeue_task()
    assert task.data is data
    source.complete_task(task, data)
    assert source.find_task(task.id).result is data


# ------------------------------------------------------------------------------------------------------ forgetting


def test_the_oldest_that_ended_are_forgotten(clock):
    source = MemoryQueue(keep=3, clock=clock)
    live = put(source, due=clock.time() + 999)
    ids = [put(source) for _ in range(8)]
    for task in source.dequeue_tasks(3):
        source.complete_task(task)
    assert [source.find_task(id) is not None for id in ids] == [True] * 8
    source.settle_tasks([End(task, DONE) for task in source.dequeue_tasks(4)])
    source.cancel_task(ids[7])
    assert [id for id in ids if source.find_task(id) is not None] == ids[5:]
    assert source.find_task(live) is not None


def test_none_may_be_kept(clock):
    source = MemoryQueue(keep=0, clock=clock)
    child = Task("child")
    parent = put(source)
    child = put(source, after=(parent,))
    assert source.complete_task(source.dequeue_task()) is True
    assert source.find_task(parent) is None
    assert source.dequeue_task().id == child


def test_who_awaits_the_end_learns_it_although_it_is_forgotten_at_once():
    source = MemoryQueue(keep=0)
    id = put(source)
    waiting = Background(source.await_end, id)
    asleep()
    source.complete_task(source.dequeue_task(), "well")
    assert waiting.result().result == "well"


def test_what_was_queued_again_or_put_in_again_is_not_forgotten_for_what_it_was(clock):
    source = MemoryQueue(keep=2, clock=clock)
    dead, purged = put(source, id="dead"), put(source, id="purged")
    source.fail_task(source.dequeue_task(), BROKEN)
    source.complete_task(source.dequeue_task())
    source.retry_task(dead)
    clock.advance(1)
    assert source.purge(clock.time()) == 1
    put(source, id=purged)
    others = [put(source) for _ in range(2)]
    for id in others:
        source.cancel_task(id)
    assert [source.find_task(id).state for id in (dead, purged, *others)] == [QUEUED, QUEUED, CANCELLED, CANCELLED]


def test_a_task_that_ended_twice_is_remembered_for_the_last_time():
    source = MemoryQueue(keep=2)
    twice = put(source)
    source.cancel_task(twice)
    source.retry_task(twice)
    source.cancel_task(twice)
    other = put(source)
    source.cancel_task(other)
    assert [source.find_task(id) is not None for id in (twice, other)] == [True, True]


def test_a_task_that_two_failures_cancel_has_ended_once():
    source = MemoryQueue(keep=4)
    top = Task("top")
    left, right = Task("left", after=(top.id,)), Task("right", after=(top.id,))
    source.enqueue_tasks([top, left, right, Task("bottom", after=(left.id, right.id))])
    source.cancel_task(top.id)
    assert source.count_tasks() == {"default": {CANCELLED: 4}}


def test_what_is_forgotten_is_not_kept_alive():
    class Data:
        pass

    source = MemoryQueue(keep=1)
    data = Data()
    alive = weakref.ref(data)
    for one in (data, None, None):
        put(source, data=one, limit=("key", 1), unique=None if one is None else "key")
    del one, data
    for _ in range(3):
        source.complete_task(source.dequeue_task())
    gc.collect()
    assert alive() is None


def test_keys_that_nobody_uses_take_no_memory(clock):
    source = MemoryQueue(clock=clock)
    life = source._life
    for number in range(5):
        key = f"key {number}"
        put(source, limit=(key, 1), rate=(key, 2, 10.0), unique=key)
        put(source, limit=(key, 1), rate=(key, 2, 10.0), unique=f"other {key}", unique_for=20.0)
    while tasks := source.dequeue_tasks(99):
        source.settle_tasks([End(task, DONE) for task in tasks])
    assert not life._limits._held
    assert not life._limits._waiting
    assert sorted(life._uniques._holders) == [f"other key {number}" for number in range(5)]
    clock.advance(30)
    put(source, unique="last", unique_for=1.0, rate=("last", 1, 1.0))
    assert list(life._uniques._holders) == ["last"]
    assert list(life._rates._keys) == ["last"]


# ------------------------------------------------------------------------------------------------------ decisions


def test_who_waits_is_woken_by_nothing_of_a_paused_queue(source):
    source.pause_queue("paused")
    waiting = Background(source.wait_for_work, 60.0)
    asleep()
    put(source, queue="paused")
    source.enqueue_tasks([Task("work", queue="paused"), Task("work", queue="paused", priority=3)])
    asleep()
    source.resume_queue("paused")
    waiting.result()


def test_a_parent_whose_unique_key_is_taken_is_stood_for_by_who_has_it(source):
    holder = put(source, unique="key")
    parent = Task("parent", unique="key")
    child = Task("child", after=(parent.id,))
    assert source.enqueue_tasks([child, parent]) == [child.id, holder]
    assert source.find_task(child.id).state == WAITING
    source.complete_task(source.dequeue_task())
    assert source.dequeue_task().id == child.id


def test_no_second_chance_for_whose_unique_key_is_somebody_elses(source):
    first = put(source, unique="key")
    source.fail_task(source.dequeue_task(), BROKEN)
    second = put(source, unique="key")
    assert source.retry_task(first) is False
    assert source.find_task(first).state == DEAD
    source.cancel_task(second)
    assert source.retry_task(first) is True
    assert put(source, unique="key") == first


def test_a_task_with_a_second_chance_waits_for_parents_that_have_one_too(source):
    parent = put(source)
    child = put(source, after=(parent,))
    source.fail_task(source.dequeue_task(), BROKEN)
    assert source.retry_task(parent) is True
    assert source.retry_task(child) is True
    assert [source.find_task(id).state for id in (parent, child)] == [QUEUED, WAITING]
    source.complete_task(source.dequeue_task())
    assert source.dequeue_task().id == child


def test_tend_moves_many_in_several_steps(clock, monkeypatch):
    monkeypatch.setattr(hive_task.background.sources._memory_way, "MOVED", 10)
    source = MemoryQueue(clock=clock)
    for _ in range(25):
        put(source, due=clock.time() + 1)
    assert source.tend() == 1.0
    clock.advance(1)
    assert [source.tend(), source.tend(), source.tend()] == [0.0, 0.0, None]
    assert len(source.dequeue_tasks(99)) == 25


def test_who_tends_sleeps_until_there_is_something_sooner_than_he_knows_of(source, clock):
    put(source, due=clock.time() + 500)
    source.tend()
    waiting = Background(source.wait_for_change, 60.0)
    asleep()
    put(source, due=clock.time() + 600)
    put(source)
    asleep()
    put(source, due=clock.time() + 400)
    waiting.result()


def test_what_it_is_made_with_is_checked():
    with pytest.raises(ValueError, match="kept can't be negative"):
        MemoryQueue(keep=-1)
    with pytest.raises(ValueError, match="a lease is more than nothing"):
        MemoryQueue(lease=0)
    assert repr(MemoryQueue()) == "<MemoryQueue of 0 tasks>"


# ------------------------------------------------------------------------------------------------------------ parts


def test_a_claimed_copy_is_what_the_task_would_make_of_itself():
    claim = Claim("ann", 1, 1, 0.0)
    task = Task("work", 1, priority=3, limit=("key", 1), rate=("key", 1, 1.0), after=("x",), despite_failure=True)
    assert task.claimed(claim) == dataclasses.replace(task, claim=claim)

    @dataclasses.dataclass(frozen=True)
    class Fancy(Task):
        colour: str = "red"

    assert Fancy("work", colour="blue").claimed(claim).colour == "blue"


def test_a_simple_task_is_what_its_class_would_make():
    task = simple_task("work", 1, "urgent", 3)
    assert task == Task("work", 1, id=task.id, queue="urgent", priority=3)


@pytest.mark.parametrize("seed", range(30))
def test_a_reservation_is_the_earliest_that_the_rate_allows(seed):
    chance = random.Random(seed)
    rates, rate = Rates(), Rate("key", chance.choice([1, 2, 3]), 8.0)
    times, now = [], 1000.0

    def fits(start):
        together = sorted([*times, start])
        return all(last - first >= 8.0 for first, last in zip(together, together[rate.most :], strict=False))

    for _ in range(40):
        wanted = now + chance.choice([0, 0, 0, 3, 20])
        start = rates.reserve(rate, wanted, now)
        candidates = sorted({wanted, *[time + 8.0 for time in times if time + 8.0 >= wanted]})
        assert start == next(filter(fits, candidates))
        times.append(start)
        now += chance.choice([0, 0, 1, 2.5])
    assert all(first <= second for first, second in pairwise(rates._keys["key"].times))
