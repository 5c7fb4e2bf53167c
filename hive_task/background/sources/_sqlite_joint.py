"""`Joint`: how the steps of several threads share a transaction, for to commit one takes longer than all they do in it.

Group commit: a thread whose step is done, while another one waits for its turn, does not commit, but leaves that to the
other one, whose step then is a part of the same transaction; and so on, up to `MOST` steps. The last one commits for
all of them, and each of them returns, or raises, as it says.

A step that fails is undone alone (a savepoint). Should SQLite undo the whole transaction on that occasion, as it may
when the disk is full, then all the steps before it have failed, and raise as well: nobody has been told that they are
done.
"""

from __future__ import annotations

import threading

#: Steps in a transaction.
MOST = 64
#: Seconds after which who waits for the others looks whether there still are any.
LOOKING = 0.05


class Joint:
    """A transaction that was left open by those whose steps are done, for the next one to commit."""

    __slots__ = ("_over", "error", "steps")

    def __init__(self) -> None:
        self.steps = 0
        self.error: BaseException | None = None
        self._over = threading.Event()

    def end(self, error: BaseException | None) -> None:
        """It was committed, or has failed."""
        self.error = error
        self._over.set()

    def wait(self) -> bool:
        """Wait for that; False after `LOOKING` seconds."""
        return self._over.wait(LOOKING)


class Turns:
    """Whose turn it is to write: a lock that knows whether somebody waits for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = threading.Lock()
        self._waiting = 0

    def acquire(self, timeout: float) -> bool:
        if self._lock.acquire(False):
            return True
        with self._count:
            self._waiting += 1
        try:
            return self._lock.acquire(timeout=timeout)
        finally:
            with self._count:
                self._waiting -= 1

    def release(self) -> None:
        self._lock.release()

    def awaited(self) -> bool:
        """Does somebody wait for his turn? (He may give up.)"""
        return self._waiting > 0
