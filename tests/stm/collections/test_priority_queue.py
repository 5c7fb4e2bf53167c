"""What `TPriorityQueue` promises beyond the contract of all queues."""

import heapq
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stm import atomically, run
from stm.collections import TPriorityQueue
from stm.collections.priority_queue import _items, _least, _with
from tests.stm.collections.test_queue import Model, QueueContract, check_model, program
from tests.support import elsewhere


class TestPriorityQueue(QueueContract):
    make = TPriorityQueue

    @settings(deadline=None, max_examples=80)
    @given(program, st.sampled_from([None, False, True]))
    def test_does_what_a_heap_does(self, program, ending):
        check_model(TPriorityQueue(), Model(min), program, ending)


def test_the_least_comes_first():
    q = TPriorityQueue()
    numbers = list(range(500))
    random.Random(5).shuffle(numbers)
    for number in numbers[:250]:
        q.put(number)
    q.put_many(numbers[250:])
    assert q.peek() == 0
    assert q.snapshot() == tuple(range(500))
    assert q.get_many(100) == list(range(100))
    assert [q.get() for _ in range(400)] == list(range(100, 500))


@settings(deadline=None, max_examples=80)
@given(st.lists(st.lists(st.integers(0, 50), max_size=12), max_size=8), st.integers(1, 20))
def test_the_heap_is_a_leftist_heap(batches, limit):
    heap, model = None, []
    for batch in batches:
        if batch:
            heap = _with(heap, tuple(batch))
            model += batch
        assert_leftist(heap)
        assert sorted(_items(heap)) == sorted(model)
    least, rest = _least(heap, limit)
    assert_leftist(rest)
    assert least == heapq.nsmallest(limit, model)


def assert_leftist(heap):
    if heap is not None:
        size, item, left, right = heap
        sizes = [0 if part is None else part[0] for part in (left, right)]
        assert size == 1 + sum(sizes)
        assert sizes[0] >= sizes[1]
        for part in (left, right):
            if part is not None:
                assert not part[1] < item
                assert_leftist(part)


def test_only_less_than_is_asked():
    class Task:
        def __init__(self, rank):
            self.rank = rank

        def __lt__(self, other):
            return self.rank < other.rank

        __hash__ = None

        def __eq__(self, other):
            raise AssertionError("not asked")

        __gt__ = __le__ = __ge__ = __eq__

    q = TPriorityQueue()
    for rank in (3, 1, 2):
        q.put(Task(rank))
    q.put_many(map(Task, (0, 5, 4)))
    assert [task.rank for task in q.snapshot()] == [0, 1, 2, 3, 4, 5]
    assert [q.get().rank for _ in range(3)] + [task.rank for task in q.get_many()] == [0, 1, 2, 3, 4, 5]


def test_a_comparison_that_raises_leaves_the_queue_as_it_was():
    q = TPriorityQueue()
    q.put_many([2, 1])
    for put in (lambda: q.put("x"), lambda: q.put_many([3, "x"]), lambda: q.put_many(["x", "y"])):
        with pytest.raises(TypeError, match="'<' not supported"):
            put()
        with pytest.raises(TypeError, match="'<' not supported"):
            run(put)
    assert (q.snapshot(), q.unfinished_tasks) == ((1, 2), 2)

    class Moody(int):
        calm = True

        def __lt__(self, other):
            if not Moody.calm:
                raise KeyError("not now")
            return int.__lt__(self, other)

    q = TPriorityQueue()
    q.put_many(map(Moody, [1, 2, 3]))
    Moody.calm = False
    for take in (q.get, q.get_many, lambda: q.get_many(2), q.snapshot):
        with pytest.raises(KeyError):
            take()
    Moody.calm = True
    assert q.get_many() == [1, 2, 3]


def test_a_comparison_of_stale_items_is_not_heard_of():
    q = TPriorityQueue()
    q.put("word")
    runs = []

    @atomically
    def body():
        runs.append(1)
        q.qsize()
        if len(runs) == 1:
            elsewhere(lambda: run(lambda: (q.get(), q.put(5))))
        q.put(4)

    body()
    assert len(runs) == 2
    assert q.snapshot() == (4, 5)


@pytest.mark.parametrize("order", ["ascending", "descending"])
def test_a_deep_heap_needs_no_recursion(order):
    q = TPriorityQueue()
    numbers = range(100_000) if order == "ascending" else range(100_000, 0, -1)

    @atomically
    def fill(q):
        for number in numbers:
            q.put(number)

    fill(q)
    repr(q)
    assert q.get_many(1000) == sorted(numbers)[:1000]
    assert len(q.snapshot()) == 99_000
    del q
