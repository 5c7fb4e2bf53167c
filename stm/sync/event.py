"""`TEvent`: a flag to wait for. Like `threading.Event`, and one may wait for the first of several.

Promises: `wait` returns once the flag is set, and, outside a transaction, also if it was set and cleared again before
the waiting thread came to look. A transaction has one moment only, and commits at one at which the flag is set.

Conflicts: with each change of the flag; setting what is set already, and clearing what is clear, change nothing.

Cost: about 0.2 µs to look, 0.7 to 0.9 µs to set or clear (two or three times what `threading` takes), and a wake-up
for each that waits.

>>> from stm import TEvent, atomically, or_else
>>> stopped, ready = TEvent(), TEvent(name="ready")
>>> ready.set()
>>> @atomically
... def first():
...     return or_else(lambda: stopped.wait() and "stopped", lambda: ready.wait() and "ready")
>>> first(), stopped.wait(timeout=0.01), ready
('ready', False, <TEvent 'ready' set>)
"""

from __future__ import annotations

from stm import TransactionTimeout, TVar
from stm.sync._synchronizer import WAIT, Synchronizer, Waits, seconds


class TEvent(Synchronizer):
    """A flag, clear at first. `name` is for messages and statistics alone."""

    __slots__ = ("_changes",)

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__(name)
        #: How often the flag has been set and cleared. So it is set if this is odd, and no change goes unnoticed.
        self._changes = TVar(0, name=name)

    def is_set(self) -> bool:
        """Is the flag set?"""
        return _is_set(self._changes.get())

    def set(self) -> None:
        """Set the flag, and wake whoever waits for it."""
        self._revise(self._changes, "set", None, _set)

    def clear(self) -> None:
        """Clear the flag: from now on `wait` waits."""
        self._revise(self._changes, "clear", None, _clear)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the flag is set: True; or False if that took longer than `timeout` seconds."""
        if timeout is not None:
            timeout = seconds(timeout)
            if timeout == 0:
                return self.is_set()
        try:
            self._revise(self._changes, "wait", timeout, _set_since, self._changes.get())
        except TransactionTimeout:
            return False
        return True

    def __repr__(self) -> str:
        return self._describe("set" if _is_set(self._changes.peek()) else "unset")


def _is_set(changes: int) -> bool:
    return changes % 2 == 1


def _set(changes: int) -> int:
    return changes if _is_set(changes) else changes + 1


def _clear(changes: int) -> int:
    return changes + 1 if _is_set(changes) else changes


def _set_since(changes: int, before: int) -> int | Waits:
    return changes if _is_set(changes) or changes != before else WAIT
