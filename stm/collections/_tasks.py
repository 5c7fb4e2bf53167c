"""`task_done` and `join`: how a queue knows when all its items have been worked on.

Unfinished tasks are the items put so far less those done. The number done is kept beside the number put as it was when
last looked at: `task_done` looks again when the two meet, and so seldom gets in the way of those who put. Who waits in
`join` waits for the moment when the last task is done, and is not woken by others.
"""

from __future__ import annotations

from abc import abstractmethod

from stm import TVar, atomically, check, in_transaction


class Tasks:
    """A queue's tasks."""

    __slots__ = ("_done", "_finished")

    #: Tasks done, and the items put when last looked at.
    _done: TVar[tuple[int, int]]
    #: Another object each time that the last task is done.
    _finished: TVar[object]

    @abstractmethod
    def _counts(self) -> tuple[int, int]:
        """How many items were ever put, and how many are there now. May be called outside a transaction."""

    @property
    def unfinished_tasks(self) -> int:
        """The number of items put whose `task_done` is still to come."""
        return self._unfinished()

    @atomically
    def _unfinished(self) -> int:
        return self._counts()[0] - self._done.get()[0]

    def task_done(self) -> None:
        """The work on an item that was taken is complete. `ValueError` if called more often than there were items."""
        state = self._done.peek()
        done, known = state
        if done + 1 >= known or not self._done.compare_and_set(state, (done + 1, known)):
            self._add_done(1, "task_done() called too many times")

    @atomically
    def _add_done(self, number: int, complaint: str | None) -> None:
        while True:
            state = self._done.get()
            done, known = state
            done += number
            if done >= known:
                known = self._counts()[0]
                if done > known:
                    if complaint is not None:
                        raise ValueError(complaint)
                    done = known
                if done == known:
                    self._finished.set(object())
            if self._done.compare_and_set(state, (done, known)):
                return

    def join(self) -> None:
        """Wait until there are no unfinished tasks."""
        if in_transaction():
            check(not self._unfinished())
            return
        moment = self._begin_to_join()
        if moment is not None:
            self._wait_for_another(moment)

    @atomically
    def _begin_to_join(self) -> object | None:
        return self._finished.get() if self._unfinished() else None

    @atomically
    def _wait_for_another(self, moment: object) -> None:
        check(self._finished.get() is not moment)
