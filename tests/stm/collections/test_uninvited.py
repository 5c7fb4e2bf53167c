"""Signal handlers and finalizers that use a collection in the midst of an operation on the same collection.

What runs uninvited joins the attempt that it interrupts, and must find and leave the collection whole. Here it strikes
at every point, in turn, at which CPython could run it.
"""

import pytest

from stm import TChannel, TCounter, TMap, TPriorityQueue, TQueue, TSet, TVar, TVector, exchange, run
from stm.collections import Empty
from tests import injector as injector_module


def strike_everywhere(make, operation, uninvited, check):
    """`make()` a collection; run `operation` on it, struck by `uninvited` at each point; then `check` what is left."""

    def trial(at):
        subject = make()
        with injector_module.injected(at, act=lambda: uninvited(subject)) as injector:
            operation(subject)
        check(subject, injector.struck)
        return injector.count

    count = trial(None)
    assert count > 3
    for at in range(count):
        trial(at)


def drained(queue):
    items = []
    while True:
        try:
            items.append(queue.get_nowait())
        except Empty:
            return items


def full_run(kind):
    """Where the next `put` ends one list of items and begins another."""
    queue = kind()
    queue.put_many(range(250))
    return queue


@pytest.mark.parametrize("kind", [TQueue, TPriorityQueue], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("filled", [True, False], ids=["full run", "empty"])
def test_put_amid_put(kind, filled):
    def check(queue, struck):
        assert sorted(drained(queue)) == [*range(250 * filled), 250, *[251] * struck]
        queue.put(1)
        assert queue.get() == 1

    strike_everywhere(
        lambda: full_run(kind) if filled else kind(), lambda queue: queue.put(250), lambda queue: queue.put(251), check
    )


def test_put_amid_put_of_a_bounded_queue():
    def make():
        queue = TQueue(5)
        queue.put_many([0, 1])
        return queue

    def check(queue, struck):
        assert sorted(drained(queue)) == [0, 1, 2, *[3] * struck]
        queue.put_many(range(5))
        assert queue.full()

    strike_everywhere(make, lambda queue: queue.put(2), lambda queue: queue.put(3), check)


@pytest.mark.parametrize("operation", ["get", "get_many"])
@pytest.mark.parametrize("uninvited", ["put", "get"])
def test_amid_taking(operation, uninvited):
    taken = []

    def make():
        taken.clear()
        queue = TQueue()
        queue.put_many([0, 1, 2, 3])
        return queue

    def take(queue):
        taken.extend(queue.get_many(3) if operation == "get_many" else [queue.get()])

    def act(queue):
        if uninvited == "put":
            queue.put(4)
        else:
            taken.append(queue.get())

    def check(queue, struck):
        put = [4] if struck and uninvited == "put" else []
        assert sorted([*taken, *drained(queue)]) == [0, 1, 2, 3, *put]
        queue.put(1)
        assert queue.get() == 1

    strike_everywhere(make, take, act, check)


def test_publish_amid_publish():
    def make():
        channel = TChannel()
        return channel, channel.subscribe()

    def check(subject, struck):
        items = subject[1].get_many()
        assert sorted(items) == [1, 2, *[3] * struck]

    strike_everywhere(
        make, lambda subject: subject[0].publish_many([1, 2]), lambda subject: subject[0].publish(3), check
    )


def test_amid_changes_of_a_map():
    def check(mapping, struck):
        assert mapping["b"] == 2
        assert mapping["n"] == (struck or 0)

    def count(mapping):
        mapping["n"] += 1

    strike_everywhere(lambda: TMap(a=1, n=0), lambda mapping: mapping.update(a=2, b=2), count, check)


def test_amid_popitem():
    popped = []

    def make():
        popped.clear()
        return TMap({"a": 1, "b": 2, "c": 3})

    def check(mapping, struck):
        assert sorted([*popped, *mapping.items()]) == [("a", 1), ("b", 2), ("c", 3)]

    strike_everywhere(
        make, lambda mapping: popped.append(mapping.popitem()), lambda mapping: popped.append(mapping.popitem()), check
    )


@pytest.mark.parametrize(
    ("make", "operation", "uninvited", "value"),
    [
        (
            TSet,
            lambda s: s.update([1, 2]),
            lambda s: s.add(3),
            lambda s, struck: set(s) == ({1, 2, 3} if struck else {1, 2}),
        ),
        (TVector, lambda v: v.append(1), lambda v: v.append(2), lambda v, struck: len(v) == 1 + struck),
        (TVector, lambda v: v.extend([1, 1]), lambda v: v.append(2), lambda v, struck: len(v) == 2 + struck),
        (TCounter, lambda c: c.add(1), lambda c: c.add(2), lambda c, struck: c.value == 1 + 2 * struck),
    ],
)
def test_amid_others(make, operation, uninvited, value):
    def check(subject, struck):
        assert value(subject, struck)

    strike_everywhere(make, operation, uninvited, check)


def test_amid_update_of_a_variable():
    def check(x, struck):
        assert x.value == 1 + 10 * struck

    strike_everywhere(
        lambda: TVar(0),
        lambda x: x.update(lambda value: value + 1),
        lambda x: x.update(lambda value: value + 10),
        check,
    )


# ---- exchange


def test_exchange_changes_all_or_nothing():
    one, two, three = object(), object(), object()
    x, y = TVar(one), TVar(two)
    assert not exchange((x, one, three), (y, one, three))
    assert (x.value, y.value) == (one, two)
    assert exchange((x, one, three), (y, two, one))
    assert (x.value, y.value) == (three, one)
    assert exchange()


def test_exchange_in_a_transaction_sees_its_writes_and_is_undone_with_it():
    one, two, three = object(), object(), object()
    x, y = TVar(one), TVar(two)

    def body():
        x.value = two
        assert not exchange((x, one, three), (y, two, three))
        assert exchange((x, two, three), (y, two, one))
        assert (x.value, y.value) == (three, one)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(body)
    assert (x.value, y.value) == (one, two)


def test_exchange_amid_exchange_in_a_transaction():
    def make():
        return TVar(0), TVar(0)

    def add(variables, number):
        x, y = variables
        while True:
            a, b = x.get(), y.get()
            if exchange((x, a, a + number), (y, b, b + number)):
                return

    def check(variables, struck):
        x, y = variables
        assert x.value == y.value == 1000 + 10_000 * struck

    strike_everywhere(
        make,
        lambda variables: run(add, variables, 1000),
        lambda variables: add(variables, 10_000),
        check,
    )
