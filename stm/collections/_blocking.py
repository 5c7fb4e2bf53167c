"""What `TQueue` and `TPriorityQueue` have in common: the interface of `queue.Queue` and the count of tasks.

A queue says how to put, take and look inside a transaction, waiting by `retry` (the methods that begin with `_`). Here
is the rest. `block=False` and a closed queue are answered inside the transaction; a time limit is a transaction's own,
so that it may be part of a longer one, and runs from when that first came to it.
"""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Callable, Iterable
from operator import index
from queue import Empty, Full
from typing import Any, Generic, NoReturn, TypeVar

from stm import TransactionTimeout, TVar, atomically, in_transaction, retry, run
from stm.collections._tasks import Tasks

if sys.version_info >= (3, 13):
    from queue import ShutDown
else:

    class ShutDown(Exception):
        """Raised by put and get of a queue that was shut down. (From Python 3.13 on this is `queue.ShutDown`.)"""


__all__ = ["BlockingQueue", "Empty", "Full", "ShutDown", "scoped"]

T = TypeVar("T")
R = TypeVar("R")


class BlockingQueue(Tasks, Generic[T]):
    """The base of the transactional queues."""

    __slots__ = ("__weakref__", "_maxsize", "_name")

    def __init__(self, maxsize: int = 0, *, name: str | None = None) -> None:
        self._name = name
        self._maxsize = TVar(_size(maxsize), name=self._part("maxsize"))
        self._done = TVar((0, 0), name=self._part("done"))
        self._finished = TVar(object(), name=self._part("finished"))

    def _part(self, part: str) -> str:
        return f"{self._name or type(self).__name__}.{part}"

    # What a queue adds. Each is called in a transaction.

    @abstractmethod
    def _put(self, items: tuple[T, ...], block: bool) -> None:
        """Put them all. If there is no room: `Full`, or `retry` if `block`. `ShutDown` if it is."""

    @abstractmethod
    def _get_many(self, limit: int, block: bool) -> list[T]:
        """Take as many as there are, up to `limit`. If there are none: `Empty` or `retry`; `ShutDown` if it is."""

    @abstractmethod
    def _peek(self, block: bool) -> T:
        """The next item. If there is none: as above."""

    @abstractmethod
    def _is_closed(self) -> bool: ...

    def _no_room(self, wanted: int, maxsize: int, block: bool) -> NoReturn:
        """What there is to say when so many items can't be put."""
        if wanted > maxsize:
            raise ValueError(f"{wanted} items at once: a queue with maxsize={maxsize} never has the room")
        if not block:
            raise Full
        retry()

    def _nothing(self, block: bool) -> NoReturn:
        """What there is to say when the queue is empty."""
        if self._is_closed():
            raise ShutDown
        if not block:
            raise Empty
        retry()

    @abstractmethod
    def _close(self) -> None: ...

    @abstractmethod
    def _clear(self) -> None: ...

    @abstractmethod
    def _resized(self) -> None:
        """`maxsize` has changed."""

    # The interface.

    @abstractmethod
    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None:
        """Add an item.

        If the queue is full: wait, at most `timeout` seconds if that isn't None, then raise `Full`; raise it at once if
        not `block`. `ShutDown` if the queue was shut down. `ValueError` for a negative timeout.
        """

    @abstractmethod
    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """Remove and return the next item.

        If the queue is empty: wait, at most `timeout` seconds if that isn't None, then raise `Empty`; raise it at once
        if not `block`. `ShutDown` if the queue was shut down and is empty. `ValueError` for a negative timeout.
        """

    def put_nowait(self, item: T) -> None:
        """`put(item, block=False)`"""
        self.put(item, False)

    def get_nowait(self) -> T:
        """`get(block=False)`"""
        return self.get(False)

    def put_many(self, items: Iterable[T], block: bool = True, timeout: float | None = None) -> None:
        """Add all these items, one after the other and with no other in between, or none of them.

        Waits and raises as `put` does; `ValueError` at once if there are more than `maxsize`.
        """
        alone = timeout is None or not block or not scoped(timeout)
        batch = tuple(items)
        if batch and alone:
            self._put_batch(batch, block, timeout)
        elif batch:
            within(timeout, Full, self._put, batch, block)

    def _put_batch(self, batch: tuple[T, ...], block: bool, timeout: float | None) -> None:
        within(timeout if block else None, Full, self._put, batch, block)

    def get_many(self, limit: int | None = None, block: bool = True, timeout: float | None = None) -> list[T]:
        """Remove and return as many items as there are, up to `limit` (None: all), in one step and at least one.

        Waits and raises as `get` does. `ValueError` if `limit` is less than 1.
        """
        alone = timeout is None or not block or not scoped(timeout)
        if limit is None:
            limit = sys.maxsize
        elif (limit := index(limit)) < 1:
            raise ValueError(f"get_many() takes a limit of at least 1, not {limit!r}; None takes all there are")
        if alone:
            return self._get_batch(limit, block, timeout)
        return within(timeout, Empty, self._get_many, limit, block)

    def _get_batch(self, limit: int, block: bool, timeout: float | None) -> list[T]:
        return within(timeout if block else None, Empty, self._get_many, limit, block)

    def peek(self, block: bool = True, timeout: float | None = None) -> T:
        """The item that `get` would return, which stays where it is. Waits and raises as `get` does."""
        if timeout is not None and block:
            scoped(timeout)
        return within(timeout if block else None, Empty, self._peek, block)

    def qsize(self) -> int:
        """The number of items. Inside a transaction it stays true until the commit."""
        return self._counts()[1]

    def empty(self) -> bool:
        """Is `qsize()` zero?"""
        return not self.qsize()

    @atomically
    def full(self) -> bool:
        """Would `put` have to wait?"""
        return 0 < self._maxsize.get() <= self._counts()[1]

    @abstractmethod
    def snapshot(self) -> tuple[T, ...]:
        """The items at this moment, in the order in which they would be taken. Linear in their number."""

    def _get_maxsize(self) -> int:
        """How many items there may be; unlimited if not positive. May be changed, even to less than there are."""
        return self._maxsize.get()

    @atomically
    def _set_maxsize(self, maxsize: int) -> None:
        self._maxsize.set(_size(maxsize))
        self._resized()

    maxsize = property(_get_maxsize, _set_maxsize)

    # Shutting down.

    @property
    def is_shutdown(self) -> bool:
        """Was `shutdown` called?"""
        return self._is_closed()

    @atomically
    def shutdown(self, immediate: bool = False) -> None:
        """From now on `put` raises `ShutDown`, and so does `get` when the queue is empty; who waits is woken.

        `immediate`: the items that are left are discarded, and count as done.
        """
        self._close()
        if immediate:
            left = self._counts()[1]
            if left:
                self._add_done(left, None)
                self._clear()

    def __repr__(self) -> str:
        name = "" if self._name is None else f" {self._name!r}"
        size, maxsize, shut = self._state()
        return (
            f"<{type(self).__name__}{name} of {size} item{'' if size == 1 else 's'}"
            f"{f', maxsize={maxsize}' if maxsize > 0 else ''}{', shut down' if shut else ''}>"
        )

    @atomically
    def _state(self) -> tuple[int, int, bool]:
        return self._counts()[1], self._maxsize.get(), self._is_closed()

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(
            f"{self!r} can't be pickled or copied: it is a place that threads of this process share. "
            "Pickle its items (snapshot()) instead"
        )


def scoped(timeout: float) -> bool:
    """Check a time limit. True inside a transaction, where an operation with a limit is always a scope of its own, also
    if there is nothing to wait for: the scopes of one attempt would otherwise be taken for those of another, and
    inherit the time they have left.
    """
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout must be a number of seconds or None, not {timeout!r}")
    if not timeout >= 0:
        raise ValueError("'timeout' must be a non-negative number")
    return in_transaction()


def within(timeout: float | None, error: type[Exception], body: Callable[..., R], *args: object) -> R:
    """Run a transaction; raise `error` if it had to wait for longer than `timeout`."""
    if timeout is None:
        return body(*args)
    try:
        return run(body, *args, timeout=timeout)
    except TransactionTimeout:
        raise error from None


def _size(maxsize: int) -> int:
    try:
        return index(maxsize)
    except TypeError:
        raise TypeError(f"maxsize must be an integer (0 or less: no limit), not {maxsize!r}") from None
