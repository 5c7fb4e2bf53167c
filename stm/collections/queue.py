"""`TQueue`: first in, first out; the interface of `queue.Queue`, in transactions.

Promises: `put`, `get` and the others mean what they mean for `queue.Queue`, take the same arguments and raise the same
errors (`Empty`, `Full`, `ShutDown`; the last before Python 3.13 too). Inside a transaction they are a part of it: an
item is gone if and when that commits, and in its old place if it doesn't. Waiting is by `retry`, so it composes:
`or_else(urgent.get, other.get)` takes from whichever has something. `put_many` and `get_many` do several in one step,
and `snapshot` shows them all. What was taken is not kept alive, and what is left is freed without recursion.

Which conflict: two that put, and two that take. One that puts and one that takes do not, except when the queue seems
empty or full to one of them: the taker has used up what there was when he last looked at the other end, or the putter
the room. Inside a transaction, `qsize`, `empty`, `full`, `peek` and `snapshot` conflict with what changes them.

Cost: `put` and `get` about 0.5 µs, 0.9 to 1.25 times that of `queue.Queue`; in batches of eight a third of it, an item.
It doesn't depend on the length: no transaction does more than 250 items' work for the queue's own sake, about 15 µs.
`qsize` takes 1 to 10 µs, `snapshot` time in proportion to the length. An item that waits takes some 10 bytes, and makes
next to no work for the garbage collector.

>>> from stm import TQueue, atomically
>>> inbox, outbox = TQueue(), TQueue(maxsize=10)
>>> inbox.put_many(["a", "b", "c"])
>>> @atomically
... def forward():
...     item = inbox.get()
...     outbox.put(item.upper())
...     return item
>>> forward(), forward(), inbox.snapshot(), outbox.get_many()
('a', 'b', ('c',), ['A', 'B'])
>>> outbox.get(timeout=0.01)
Traceback (most recent call last):
    ...
_queue.Empty
"""

from __future__ import annotations

from typing import Any, TypeVar

from stm import TVar, atomically, exchange, snapshot
from stm.collections._blocking import BlockingQueue, Empty, Full, ShutDown, scoped, within
from stm.collections._runs import EMPTY, LONGEST, Line, Run, items_of, line_of, now, take

__all__ = ["Empty", "Full", "ShutDown", "TQueue"]

T = TypeVar("T")

#: Attempts at a change of one variable before it is made a transaction, which can't starve.
ROUNDS = 4


class TQueue(BlockingQueue[T]):
    """A queue that holds `maxsize` items at most (0 or less: any number). `name` is for error messages and reports."""

    # `_front` is a line, `_back` a run: see `_runs`.
    __slots__ = ("_back", "_front")

    def __init__(self, maxsize: int = 0, *, name: str | None = None) -> None:
        super().__init__(maxsize, name=name)
        hole: TVar[Any] = TVar(None, name=self._part("hole"))
        credit = min(LONGEST, self.maxsize) if self.maxsize > 0 else LONGEST
        self._front: TVar[Line] = TVar((hole, None), name=self._part("front"))
        self._back: TVar[Run] = TVar((None, None, credit, (hole, 0, 0, credit, False)), name=self._part("back"))

    # Putting.

    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None:
        if timeout is not None and block and scoped(timeout):
            within(timeout, Full, self._put, (item,), block)
            return
        back = self._back
        run = back.peek()  # should that not be what the transaction would see, then it is not replaced
        _, _, credit, base = run
        if credit and back.compare_and_set(run, (item, run, credit - 1, base)):
            return
        self._put_batch((item,), block, timeout)

    def _put_batch(self, batch: tuple[T, ...], block: bool, timeout: float | None) -> None:
        back = self._back
        for _ in range(ROUNDS):
            old = run = back.get()
            _, _, credit, base = run
            if credit < len(batch):
                break
            for item in batch:
                credit -= 1
                run = (item, run, credit, base)
            if back.compare_and_set(old, run):
                return
        within(timeout if block else None, Full, self._put, batch, block)

    @atomically
    def _put(self, batch: tuple[T, ...], block: bool) -> None:
        while True:
            old = run = self._back.get()
            hole, start, puts, closed = now(run)
            if closed:
                raise ShutDown
            maxsize = self._maxsize.get()
            size = len(batch) + (self._counts()[1] if maxsize > 0 else 0)
            if 0 < maxsize < size:
                self._no_room(len(batch), maxsize, block)
            changes: list[tuple[TVar[Any], Any, Any]] = []
            for item in batch:
                if puts - start >= LONGEST:
                    after: TVar[Any] = TVar(None, name=self._part("hole"))
                    changes.append((hole, None, (items_of(run), after, start)))
                    hole, run, start = after, EMPTY, puts
                run = (item, run, 0, None)
                puts += 1
            run = self._with_credit(run, hole, start, puts, False, size)
            if exchange((self._back, old, run), *changes):
                return

    # Taking.

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        if timeout is not None and block and scoped(timeout):
            return within(timeout, Empty, self._get_many, 1, block)[0]
        front = self._front
        line = front.peek()  # as above
        item, later = line
        if later is not None:
            if front.compare_and_set(line, later):
                return item  # type: ignore[no-any-return]
        else:
            # A single item at the back, and nothing before it? `front` is looked at after `back`: if that is still the
            # same in the end, then nothing has come between them, and the item is the first of the queue.
            back = self._back
            run = back.peek()
            first, earlier, credit, (hole, _, puts, then, closed) = run
            if earlier is not None and earlier[1] is None and front.get()[0] is hole:
                puts += then - credit
                if not closed:
                    credit += 1
                if back.compare_and_set(run, (None, None, credit, (hole, puts, puts, credit, closed))):
                    return first  # type: ignore[no-any-return]
        return self._get_next(block, timeout)

    def _get_next(self, block: bool, timeout: float | None) -> T:
        front = self._front
        for _ in range(ROUNDS):
            line = front.get()
            item, later = line
            if later is None:
                content = item.get()
                if content is None:
                    if self._take_over():
                        continue
                    break
                item, later = line_of(content[0], content[1])
            if front.compare_and_set(line, later):
                return item  # type: ignore[no-any-return]
        (item,) = within(timeout if block else None, Empty, self._get_many, 1, block)
        return item

    @atomically
    def _take_over(self) -> bool:
        """Move what is at the back to the front, where its order can be reversed in peace. False if there is none."""
        while True:
            line = self._front.get()
            item, later = line
            if later is not None:
                return True
            run = self._back.get()
            hole, start, puts, closed = now(run)
            if item is not hole:
                return True
            if run[1] is None:
                if self._front.get() is line:
                    return False
                continue  # what runs uninvited was here, and has moved it
            moved = (TVar((items_of(run), hole, start), name=self._part("hole")), None)
            emptied = self._with_credit(EMPTY, hole, puts, puts, closed, puts - start)
            if exchange((self._front, line, moved), (self._back, run, emptied)):
                return True

    def _get_batch(self, limit: int, block: bool, timeout: float | None) -> list[T]:
        front, back = self._front, self._back
        run = back.peek()
        old = front.get()
        items, line = take(old, limit)
        if len(items) == limit:
            if front.compare_and_set(old, line):
                return items
        elif not items:
            _, _, credit, (hole, start, puts, then, closed) = run
            puts += then - credit
            if line[0] is hole and 0 < puts - start <= limit:
                credit += puts - start if not closed else 0
                if back.compare_and_set(run, (None, None, credit, (hole, puts, puts, credit, closed))):
                    return list(items_of(run))
        return within(timeout if block else None, Empty, self._get_many, limit, block)

    @atomically
    def _get_many(self, limit: int, block: bool) -> list[T]:
        items: list[T] = []
        while len(items) < limit:
            line = self._front.get()
            found, rest = take(line, limit - len(items))
            if not found:
                content = rest[0].get()
                if content is None:
                    if self._take_over():
                        continue
                    break
                waiting, hole, _ = content
                found = list(waiting[: limit - len(items)])
                rest = line_of(waiting[len(found) :], hole)
            if self._front.compare_and_set(line, rest):
                items += found
        if not items:
            self._nothing(block)
        return items

    @atomically
    def _peek(self, block: bool) -> T:
        item, later = self._front.get()
        if later is None:
            content = item.get()
            items = items_of(self._back.get()) if content is None else content[0]
            if not items:
                self._nothing(block)
            return items[0]  # type: ignore[no-any-return]
        return item  # type: ignore[no-any-return]

    # The whole.

    def _counts(self) -> tuple[int, int]:
        line, run = snapshot(self._front, self._back)
        hole, start, puts, _ = now(run)
        taken, (between, _) = take(line)
        size = len(taken) + puts - start
        if between is not hole:
            size += start - between.get()[2]
        return puts, size

    def snapshot(self) -> tuple[T, ...]:
        line, run = snapshot(self._front, self._back)
        hole = run[3][0]
        items, (between, _) = take(line)
        while between is not hole:
            more, between, _ = between.get()
            items += more
        return (*items, *items_of(run))

    def _is_closed(self) -> bool:
        return now(self._back.get())[3]

    def _close(self) -> None:
        while True:
            run = self._back.get()
            hole, start, puts, _ = now(run)
            if self._back.compare_and_set(run, self._with_credit(run, hole, start, puts, True, 0)):
                return

    def _clear(self) -> None:
        while True:
            line, run = self._front.get(), self._back.get()
            hole, _, puts, closed = now(run)
            emptied = self._with_credit(EMPTY, hole, puts, puts, closed, 0)
            if exchange((self._front, line, (hole, None)), (self._back, run, emptied)):
                return

    def _resized(self) -> None:
        while True:
            run = self._back.get()
            hole, start, puts, closed = now(run)
            size = self._counts()[1]
            if run[1] is None:
                changed = self._with_credit(EMPTY, hole, puts, puts, closed, size)
                if self._back.compare_and_set(run, changed):
                    return
                continue
            # Who takes a run right from the back gives it its room back as credit, and there may be less of that now.
            after: TVar[Any] = TVar(None, name=self._part("hole"))
            changed = self._with_credit(EMPTY, after, puts, puts, closed, size)
            if exchange((self._back, run, changed), (hole, None, (items_of(run), after, start))):
                return

    def _with_credit(self, run: Run, hole: TVar[Any], start: int, puts: int, closed: bool, size: int) -> Run:
        """The run with the credit that it may have, in a queue of that size."""
        credit = 0
        if not closed:
            maxsize = self._maxsize.get()
            credit = LONGEST - (puts - start)
            if maxsize > 0:
                credit = max(0, min(credit, maxsize - size))
        return run[0], run[1], credit, (hole, start, puts, credit, closed)
