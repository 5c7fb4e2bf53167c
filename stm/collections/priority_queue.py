"""`TPriorityQueue`: lowest first; the interface of `queue.PriorityQueue`, in transactions.

Promises: all that `TQueue` promises, but that `get` returns the least item. Items are compared as `queue.PriorityQueue`
compares them, by `<` alone; in what order equal ones come is not defined, as there. If a comparison raises, the error
comes out of the operation that made it, and the queue is as it was before. `snapshot` returns the items in order.

Any two operations conflict if one of them puts or takes.

Cost: `put` and `get` make a number of comparisons that grows with the logarithm of the length: some 3 µs each at 1,000
items, 6 µs at 100,000. `put_many` builds a heap of its items first, in linear time; `get_many()` of all sorts. Some
80 bytes for each item.

>>> from stm import TPriorityQueue
>>> tasks = TPriorityQueue()
>>> tasks.put_many([(2, "sweep"), (1, "cook"), (3, "sleep")])
>>> tasks.get(), tasks.peek(), tasks.snapshot()
((1, 'cook'), (2, 'sweep'), ((2, 'sweep'), (3, 'sleep')))
>>> tasks.put("read")
Traceback (most recent call last):
    ...
TypeError: '<' not supported between instances of 'str' and 'tuple'
"""

from __future__ import annotations

from typing import Any, TypeVar

from stm import TVar, atomically
from stm.collections._blocking import BlockingQueue, Empty, Full, ShutDown, within

__all__ = ["TPriorityQueue"]

T = TypeVar("T")

#: `(size, item, left, right)`, or None: empty.
Heap = tuple[int, Any, Any, Any] | None

#: Attempts at a change before it is made a transaction, which can't starve.
ROUNDS = 2


#: Attempts within a transaction: one fails only if a signal handler or a finalizer has used the queue meanwhile, or a
#: comparison, which does so each time.
PATIENCE = 100
_CHANGED = "a comparison of items changes the very queue that they are compared for"


class TPriorityQueue(BlockingQueue[T]):
    """A queue that holds `maxsize` items at most (0 or less: any number). `name` is for error messages and reports."""

    __slots__ = ("_contents",)

    def __init__(self, maxsize: int = 0, *, name: str | None = None) -> None:
        super().__init__(maxsize, name=name)
        #: The items, how many were ever put, how many there may be (0 or less: any number), shut down?
        self._contents: TVar[tuple[Heap, int, int, bool]] = TVar(
            (None, 0, self.maxsize, False), name=self._part("contents")
        )

    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None:
        self.put_many((item,), block, timeout)

    def _put_batch(self, batch: tuple[T, ...], block: bool, timeout: float | None) -> None:
        for _ in range(ROUNDS):
            state = self._contents.get()
            heap, puts, maxsize, closed = state
            if closed or 0 < maxsize < _size(heap) + len(batch):
                break
            if self._contents.compare_and_set(state, (_with(heap, batch), puts + len(batch), maxsize, closed)):
                return
        within(timeout if block else None, Full, self._put, batch, block)

    @atomically
    def _put(self, batch: tuple[T, ...], block: bool) -> None:
        for _ in range(PATIENCE):
            state = self._contents.get()
            heap, puts, maxsize, closed = state
            if closed:
                raise ShutDown
            if 0 < maxsize < _size(heap) + len(batch):
                self._no_room(len(batch), maxsize, block)
            if self._contents.compare_and_set(state, (_with(heap, batch), puts + len(batch), maxsize, closed)):
                return
        raise ValueError(_CHANGED)

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        (item,) = self.get_many(1, block, timeout)
        return item

    def _get_batch(self, limit: int, block: bool, timeout: float | None) -> list[T]:
        for _ in range(ROUNDS):
            state = self._contents.get()
            heap, puts, maxsize, closed = state
            if heap is None:
                break
            items, heap = _least(heap, limit)
            if self._contents.compare_and_set(state, (heap, puts, maxsize, closed)):
                return items
        return within(timeout if block else None, Empty, self._get_many, limit, block)

    @atomically
    def _get_many(self, limit: int, block: bool) -> list[T]:
        for _ in range(PATIENCE):
            state = self._contents.get()
            heap, puts, maxsize, closed = state
            if heap is None:
                self._nothing(block)
            items, heap = _least(heap, limit)
            if self._contents.compare_and_set(state, (heap, puts, maxsize, closed)):
                return items
        raise ValueError(_CHANGED)

    @atomically
    def _peek(self, block: bool) -> T:
        heap = self._contents.get()[0]
        if heap is None:
            self._nothing(block)
        return heap[1]  # type: ignore[no-any-return]

    def snapshot(self) -> tuple[T, ...]:
        return tuple(sorted(_items(self._contents.get()[0])))

    def _counts(self) -> tuple[int, int]:
        heap, puts, _, _ = self._contents.get()
        return puts, _size(heap)

    def _is_closed(self) -> bool:
        return self._contents.get()[3]

    def _close(self) -> None:
        heap, puts, maxsize, _ = self._contents.get()
        self._contents.set((heap, puts, maxsize, True))

    def _clear(self) -> None:
        self._contents.set((None, *self._contents.get()[1:]))

    def _resized(self) -> None:
        heap, puts, _, closed = self._contents.get()
        self._contents.set((heap, puts, self._maxsize.get(), closed))


# A leftist heap: no item is less than the one above it, and no right branch is bigger than the left one beside it, so
# that a way that always turns right has no more than log2(n + 1) steps. Merging two heaps merges two such ways. (Crane,
# "Linear lists and priority queues as balanced binary trees", 1972; Okasaki, "Purely Functional Data Structures", 1998,
# sections 3.1 and 5.2; by size instead of rank: Cho and Sahni, "Weight-biased leftist trees and modified skip lists",
# 1998.) A way that turns left may be as long as the heap is big, so there is no recursion here.


def _size(heap: Heap) -> int:
    return 0 if heap is None else heap[0]


def _merged(one: Heap, other: Heap) -> Heap:
    way = []
    while one is not None and other is not None:
        if other[1] < one[1]:
            one, other = other, one
        way.append(one)
        one = one[3]
    rest = other if one is None else one
    while way:
        size, item, left, right = way.pop()
        size += _size(rest) - _size(right)
        rest = (size, item, left, rest) if _size(left) >= _size(rest) else (size, item, rest, left)
    return rest


def _with(heap: Heap, items: tuple[Any, ...]) -> Heap:
    """The heap with these items, which are merged with one another first: two and two, four and four..."""
    heaps: list[Heap] = [(1, item, None, None) for item in items]
    while len(heaps) > 1:
        odd = heaps[-1:] if len(heaps) % 2 else []
        heaps = [*map(_merged, heaps[::2], heaps[1::2]), *odd]
    return _merged(heap, heaps[0])


def _least(heap: Heap, limit: int) -> tuple[list[Any], Heap]:
    """The least items, in order, and the heap without them."""
    if limit >= _size(heap) > 1:
        return sorted(_items(heap)), None
    found: list[Any] = []
    while heap is not None and len(found) < limit:
        _, item, left, right = heap
        found.append(item)
        heap = _merged(left, right)
    return found, heap


def _items(heap: Heap) -> list[Any]:
    """All items, in no order."""
    found: list[Any] = []
    ahead = [heap]
    while ahead:
        heap = ahead.pop()
        if heap is not None:
            _, item, left, right = heap
            found.append(item)
            ahead += (left, right)
    return found
