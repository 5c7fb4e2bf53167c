"""Cases of kcas (OCaml), `test/kcas_data/*.ml`, told one by one: structures, copies, and what is made of them."""

import pytest

from stm import TMap, TMVar, TQueue, TransactionTimeout, TVar, TVector, atomically, check, run
from stm.collections import Empty, Full
from tests.support import Background, asleep


class Undo(Exception):
    """What a body raises to be discarded."""


def test_queue_with_a_capacity():
    """kcas, queue_test.ml: capacity. What does not fit is refused or waits; a take within a transaction makes room."""
    queue = TQueue(2)
    queue.put_nowait(101)
    queue.put_nowait(42)
    with pytest.raises(Full):
        queue.put_nowait(15)
    putting = Background(queue.put, 5)
    asleep()
    assert queue.get() == 101
    putting.result()
    run(lambda: check(queue.get() == 42))
    assert queue.get() == 5


def test_queue_in_a_transaction_and_copies_of_it():
    """kcas, queue_test.ml: basics. Calls of one transaction see each other; what was copied goes its own way."""
    queue = TQueue()
    queue.put(101)

    @atomically
    def use():
        queue.put(42)
        assert queue.get_nowait() == 101
        assert queue.qsize() == 1
        assert queue.get_nowait() == 42
        with pytest.raises(Empty):
            queue.get_nowait()

    use()
    assert queue.empty()
    queue.put(101)
    copy = queue.snapshot()
    queue.put(42)
    assert (copy, queue.snapshot(), queue.peek()) == ((101,), (101, 42), 101)


def test_swapping_the_contents_of_two():
    """kcas, queue_test.ml, stack_test.ml, hashtbl_test.ml: swap. There a call of its own, here a transaction."""
    one, other = TQueue(), TQueue()
    one.put_many([101, 42])
    other.put(7)
    left, right = TMap(key=1), TMap(key=3, more=4)

    @atomically
    def swap():
        items, others = one.get_many(), other.get_many()
        one.put_many(others)
        other.put_many(items)
        mine, theirs = left.snapshot(), right.snapshot()
        for table, entries in ((left, theirs), (right, mine)):
            table.clear()
            table.update(entries)

    swap()
    assert (one.snapshot(), other.snapshot()) == ((7,), (101, 42))
    assert (dict(left.snapshot()), dict(right.snapshot())) == ({"key": 3, "more": 4}, {"key": 1})


def test_stack_copies():
    """kcas, stack_test.ml: a copy is emptied, and the stack keeps what it had."""
    stack = TVector([101])
    copy = stack.copy()
    assert copy.pop() == 101
    stack.append(42)
    assert (list(reversed(stack)), list(copy)) == ([42, 101], [])


def test_place_for_one_value():
    """kcas, mvar_test.ml. Full, empty, put by another thread in a transaction of its own while this one takes."""
    place, running = TMVar(101), TMVar()
    assert not place.is_empty()
    assert place.take() == 101
    assert place.is_empty()
    assert place.try_take() is None
    place.put(42)
    putting = Background(lambda: (running.put(()), run(place.put, 76)))
    assert running.take() == ()
    assert run(place.take) == 42
    putting.result()
    assert place.take() == 76


def test_many_keys_in_and_out():
    """kcas, hashtbl_test.ml: thousands of keys, found and removed again; and a thousand in one transaction."""
    table = TMap()
    for i in range(3_000):
        table[i] = i
    assert len(table) == len(list(table.items())) == 3_000
    assert all(table[i] == i for i in range(3_000))
    for i in range(3_000):
        del table[i]
    assert len(table) == 0

    run(lambda: [table.__setitem__(i, i) for i in range(1_000)])
    assert len(list(table)) == 1_000
    run(lambda: [check(table.get(i) == i) for i in range(1_000)], timeout=0)


def test_a_map_rewritten_in_place_or_not_at_all():
    """kcas, hashtbl_test.ml: filter-map in place. A function that raises halfway leaves the table as it was."""
    table = TMap({"a": 1, "b": 2, "c": 3})

    @atomically
    def rewrite(f):
        for key, value in table.items():
            new = f(value)
            if new is None:
                del table[key]
            else:
                table[key] = new

    rewrite(lambda value: None if value == 1 else -value)
    assert table == {"b": -2, "c": -3}

    seen = []

    def fail_at_the_second(value):
        seen.append(value)
        if len(seen) == 2:
            raise Undo

    with pytest.raises(Undo):
        rewrite(fail_at_the_second)
    assert table == {"b": -2, "c": -3}


def test_an_item_moves_between_structures():
    """kcas, xt_test.ml: from a queue to another, and from a queue to a stack, in one step each."""
    source, target, stack = TQueue(), TQueue(), TVector()
    run(lambda: (source.put(4), source.put(1)))
    run(source.put, 3)
    run(lambda: target.put(source.get()))
    assert (target.snapshot(), source.snapshot()) == ((4,), (1, 3))
    run(lambda: stack.append(source.get()))
    assert (list(stack), source.snapshot()) == ([1], (3,))


# ------------------------------------------------------------------------------ a structure made of others


class Cache:
    """A cache that forgets what was used least recently: a map, an order of use and a capacity."""

    def __init__(self, capacity):
        self.capacity, self.order, self.entries = TVar(capacity), TVar(()), TMap()

    @atomically
    def get(self, key):
        check(key in self.entries)
        self._use(key)
        return self.entries[key]

    @atomically
    def set(self, key, value):
        self._use(key)
        self.entries[key] = value
        self._trim()

    def _use(self, key):
        self.order.update(lambda order: (*(one for one in order if one != key), key))

    def _trim(self):
        while len(self.order.get()) > self.capacity.get():
            oldest, *rest = self.order.get()
            del self.entries[oldest]
            self.order.set(tuple(rest))

    @atomically
    def resize(self, capacity):
        self.capacity.set(capacity)
        self._trim()


def test_a_cache_whose_readers_wait():
    """kcas, lru_cache_example.ml. Two blocking lookups in one transaction wait until both keys are there."""
    cache = Cache(10)
    reading = Background(run, lambda: cache.get("a") + cache.get("b"))
    asleep()
    cache.set("b", 30)
    asleep()
    cache.set("a", 12)
    assert reading.result() == 42


def test_a_cache_that_shrinks():
    """kcas, lru_cache_example.ml. What was used least recently goes first, also when the capacity is lowered."""
    cache = Cache(10)
    cache.set("a", 1)
    cache.set("c", 2)
    assert cache.get("a") == 1
    cache.resize(3)
    assert cache.get("c") == 2
    cache.resize(1)
    assert dict(cache.entries.snapshot()) == {"c": 2}
    with pytest.raises(TransactionTimeout):
        run(cache.get, "a", timeout=0)
    assert cache.order.get() == ("c",)
