"""`TMVar`: a place that is empty or holds one value. Like Haskell's `TMVar`: a queue of one, or a lock with a value.

Promises: `put` waits until the place is empty, `take` and `read` until it is full; what one puts, one other takes. In a
transaction several of them are one step, and what was taken is back if it is discarded. Any value will do, `None` too.

Conflicts: all that changes the place, with everything else on it.

Cost: half a microsecond to a microsecond where there is nothing to wait for.

Source: `Control.Concurrent.STM.TMVar`, after the M-structures of Id (Barth, Nikhil, Arvind, 1991).

>>> from stm import TMVar, atomically
>>> inbox, outbox = TMVar("letter"), TMVar(name="outbox")
>>> @atomically
... def forward():
...     outbox.put(inbox.take())
>>> forward(); inbox.is_empty(), outbox
(True, <TMVar 'outbox' 'letter'>)
>>> inbox.try_take("nothing"), inbox.try_put("reply"), inbox.try_put("another")
('nothing', True, False)
>>> outbox.put("more", timeout=0.01)
Traceback (most recent call last):
    ...
stm.errors.TransactionTimeout: transaction 'outbox.put' waited 0.01 s in vain for a change of <TVar 'outbox' 'letter'>
"""

from __future__ import annotations

import reprlib
from enum import Enum
from typing import Final, Generic, Literal, TypeVar, cast, overload

from stm import TVar
from stm.sync._synchronizer import WAIT, Synchronizer, Waits, seconds

T = TypeVar("T")
D = TypeVar("D")


class Empty(Enum):
    """The type of `EMPTY`, which stands for no value."""

    EMPTY = "empty"

    def __repr__(self) -> str:
        return "(empty)"


EMPTY: Final = Empty.EMPTY
Nothing = Literal[Empty.EMPTY]


class TMVar(Synchronizer, Generic[T]):
    """A place for one value: `TMVar()` is empty, `TMVar(value)` full. `name`: for messages and statistics alone.

    Where an operation takes a `timeout` (seconds) and waits longer, it raises `TransactionTimeout`.
    """

    __slots__ = ("_place",)

    def __init__(self, value: T | Nothing = EMPTY, *, name: str | None = None) -> None:
        super().__init__(name)
        self._place: TVar[T | Nothing] = TVar(value, name=name)

    def put(self, value: T, timeout: float | None = None) -> None:
        """Put a value in, once the place is empty."""
        self._revise(self._place, "put", None if timeout is None else seconds(timeout), _put, value)

    def take(self, timeout: float | None = None) -> T:
        """Take the value out, once there is one."""
        return cast(T, self._revise(self._place, "take", None if timeout is None else seconds(timeout), _take))

    def read(self, timeout: float | None = None) -> T:
        """The value, once there is one, which stays."""
        return cast(T, self._revise(self._place, "read", None if timeout is None else seconds(timeout), _read))

    def swap(self, value: T, timeout: float | None = None) -> T:
        """Replace the value, once there is one, and return the old one."""
        return cast(T, self._revise(self._place, "swap", None if timeout is None else seconds(timeout), _swap, value))

    def try_put(self, value: T) -> bool:
        """Put a value in if the place is empty. True if it was."""
        return self._revise(self._place, "try_put", None, _put_if_empty, value) is EMPTY

    @overload
    def try_take(self) -> T | None: ...
    @overload
    def try_take(self, default: D) -> T | D: ...
    def try_take(self, default: object = None) -> object:
        """Take the value out; `default` if there is none."""
        value = self._revise(self._place, "try_take", None, _emptied)
        return default if value is EMPTY else value

    @overload
    def try_read(self) -> T | None: ...
    @overload
    def try_read(self, default: D) -> T | D: ...
    def try_read(self, default: object = None) -> object:
        """The value, which stays; `default` if there is none."""
        value = self._place.get()
        return default if value is EMPTY else value

    def is_empty(self) -> bool:
        """Is there no value?"""
        return self._place.get() is EMPTY

    def __repr__(self) -> str:
        return self._describe(reprlib.repr(self._place.peek()))


def _put(place: T | Nothing, value: T) -> T | Waits:
    return value if place is EMPTY else WAIT


def _take(place: T | Nothing) -> Nothing | Waits:
    return WAIT if place is EMPTY else EMPTY


def _read(place: T | Nothing) -> T | Waits:
    return WAIT if place is EMPTY else place


def _swap(place: T | Nothing, value: T) -> T | Waits:
    return WAIT if place is EMPTY else value


def _put_if_empty(place: T | Nothing, value: T) -> T:
    return value if place is EMPTY else place


def _emptied(place: T | Nothing) -> Nothing:
    return EMPTY
