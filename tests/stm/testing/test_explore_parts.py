"""What `stm` is made of besides its core, under the explorer: small programs of each part, right in all schedules."""

import pytest

from stm import (
    TBarrier,
    TChannel,
    TCounter,
    TEvent,
    TLatch,
    TMap,
    TMVar,
    TPriorityQueue,
    TPromise,
    TQueue,
    TRWLock,
    TSemaphore,
    TSet,
    TVar,
    TVector,
    after,
    atomically,
    check,
    exchange,
    on_commit,
    or_else,
    run,
)
from stm.testing import explore


def queue():
    items, got = TQueue(1), []

    def put():
        items.put(1)
        items.put(2)

    def get():
        got.append(items.get())
        got.append(items.get())

    def outcome():
        assert got == [1, 2]

    return [put, get], outcome


def priority_queue():
    items, got = TPriorityQueue(), []

    def outcome():
        assert sorted(got) == [1, 2]

    return [lambda: items.put(2), lambda: items.put(1), lambda: got.extend([items.get(), items.get()])], outcome


def channel():
    news, got = TChannel(), []
    reader = news.subscribe()

    def outcome():
        assert got == ["news"]

    return [lambda: news.publish("news"), lambda: got.append(reader.get())], outcome


def mapping():
    numbers = TMap()

    def put(key):
        numbers[key] = numbers.get(key, 0) + key

    def outcome():
        assert dict(numbers) == {1: 1, 2: 2}

    return [lambda: put(1), lambda: put(2)], outcome


def members():
    names = TSet()

    def outcome():
        assert set(names) == {"ann", "bob"}

    return [lambda: names.add("ann"), lambda: names.add("bob")], outcome


def vector():
    row = TVector()

    def outcome():
        assert sorted(row) == [1, 2]

    return [lambda: row.append(1), lambda: row.append(2)], outcome


def counter():
    total = TCounter()

    def outcome():
        assert total.value == 3

    return [lambda: total.add(1), lambda: total.add(2)], outcome


def barrier():
    together, here = TBarrier(2), []

    def arrive():
        here.append(1)
        together.wait()
        assert len(here) == 2

    return [arrive, arrive]


def semaphore():
    free, inside = TSemaphore(1), []

    def enter():
        with free:
            inside.append(1)
            assert len(inside) == 1
            inside.pop()

    return [enter, enter]


def readers_and_writers():
    lock, value = TRWLock(), [0]

    def write():
        with lock.write():
            value[0] += 1
            value[0] += 1

    def read():
        with lock.read():
            assert value[0] % 2 == 0

    return [write, read]


def box():
    place, got = TMVar(), []

    def outcome():
        assert got == [5]

    return [lambda: place.put(5), lambda: got.append(place.take())], outcome


def promise():
    answer, got = TPromise(), []

    def outcome():
        assert got == [5]

    return [lambda: answer.set_result(5), lambda: got.append(answer.result())], outcome


def event_and_latch():
    event, latch = TEvent(), TLatch(1)

    def first():
        event.set()
        latch.wait()

    def second():
        assert event.wait()
        latch.count_down()

    return [first, second]


def hooks():
    x, told = TVar(0), []

    @atomically
    def count():
        x.value += 1
        on_commit(told.append, x.value)

    def outcome():
        assert sorted(told) == [1, 2]

    return [count, count], outcome


def exchanges():
    a, b = TVar("a"), TVar("b")

    def rotate():
        while True:
            one, other = a.get(), b.get()
            if exchange((a, one, other), (b, other, one)):
                return

    def outcome():
        assert (a.get(), b.get()) == ("a", "b")

    return [rotate, rotate], outcome


def a_timer():
    late, answer, got = after(5), TVar(None, name="answer"), []

    def wait():
        def given():
            check(answer.value)
            return answer.value

        def too_late():
            check(late.value)
            return "too late"

        got.append(run(lambda: or_else(given, too_late)))

    def outcome():
        assert got == ["yes"]  # time does not pass while somebody can run

    return [wait, lambda: answer.set("yes")], outcome


PARTS = [
    queue,
    priority_queue,
    channel,
    mapping,
    members,
    vector,
    counter,
    barrier,
    semaphore,
    readers_and_writers,
    box,
    promise,
    event_and_latch,
    hooks,
    exchanges,
    a_timer,
]
#: More than a thousand schedules with two preemptions.
LONG = (queue, priority_queue)

each_part = pytest.mark.parametrize("program", PARTS, ids=lambda program: program.__name__)


@each_part
def test_right_in_all_schedules_of_steps(program):
    assert explore(program, preemptions=1 if program in LONG else 2).complete


@each_part
def test_right_in_all_schedules_of_lines(program):
    result = explore(program, preemptions=1, points="lines", max_schedules=250)
    assert result.complete or program in LONG
