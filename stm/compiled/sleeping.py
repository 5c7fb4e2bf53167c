"""How those who sleep until an array element changes are found and woken.

Elements are hashed to `SLOTS` slots. A slot is a variable of the object tier's waiting list, without a value. Who wants
to sleep registers with the slots of what he read, and *arms* them in the clock's tables, all before he looks a last
time whether anything has changed; both under the commit lock, the arming while nobody publishes. False wake-ups are
possible (two elements in one slot), lost ones are not: a commit either came before the arming, and is seen by that last
look, or takes the clock word with `AWAITED` in it, and looks at the slots.

A commit from the object tier wakes in the call that publishes. A compiled committer, who may be without the GIL and
must not be held up, marks the slots and writes a byte to a pipe: no lock, no Python. A thread that exists only while
somebody sleeps, the *waker*, reads the pipe and does the rest.
"""

from __future__ import annotations

import _thread
import os
import threading
from typing import Final

import numpy as np

from stm.clock import Cell, acquire, acquire_politely, clock, release
from stm.compiled import control as machine
from stm.compiled.log import BELL
from stm.compiled.runtime import CLOCK_WORD, control, counts, marks, set_word
from stm.waiting import Waiter, wake_all


class Slot:
    """Where those sleep who have read one of the elements that are hashed to it."""

    __slots__ = ("_cell", "_waiters")

    def __init__(self) -> None:
        self._cell: Cell = (None, 0, None)
        self._waiters: dict[Waiter, None] | None = {}

    def _places(self) -> tuple[dict[Waiter, None]]:
        assert self._waiters is not None
        return (self._waiters,)


_slots: Final[dict[int, Slot]] = {}


def slot(number: int) -> Slot:
    """The slot of that number. Called under the commit lock."""
    found = _slots.get(number)
    if found is None:
        found = _slots[number] = Slot()
    return found


class _Waker:
    """The thread that wakes, and its pipe. All of it is changed under the commit lock only."""

    def __init__(self) -> None:
        self.running = False
        self.generation = 0
        self.pipe: tuple[int, int] | None = None

    def start(self) -> None:
        """See to it that the waker runs."""
        if self.pipe is None:
            pipe = os.pipe()
            os.set_blocking(pipe[1], False)  # a full pipe tells enough
            set_word(BELL, pipe[1])
            control(machine.ANSWER, CLOCK_WORD, 0)
            self.pipe = pipe
        if not self.running:
            # Should an exception come between the two lines, the thread is not the newest one when it looks.
            self.generation += 1
            _thread.start_new_thread(self._run, (self.pipe[0], self.generation))
            self.running = True

    def nudge(self) -> None:
        """Have the waker look whether it is still needed."""
        if self.pipe is not None:
            try:
                os.write(self.pipe[1], b"n")
            except OSError:
                pass

    def _run(self, end: int, generation: int) -> None:
        try:
            self._serve(end, generation)
        except BaseException:
            self.running = False  # so that the next sleeper starts another
            raise

    def _serve(self, end: int, generation: int) -> None:
        while True:
            os.read(end, 4096)
            control(machine.ANSWER, CLOCK_WORD, 0)  # a full fence before the marks are read: later ones ring again
            found = np.flatnonzero(marks.copy())  # (NumPy minds if they change while it counts)
            marks[found] = 0
            slots = [_slots.get(number) for number in found.tolist()]
            if slots:
                wake_all([one for one in slots if one is not None])
            if generation != self.generation:
                self.nudge()  # the newer one may have missed what this one has read
                return
            if self._retire():
                return

    def _retire(self) -> bool:
        """Forget who sleeps no more; True if nobody does."""
        if not acquire(False):
            acquire_politely()
        try:
            return self._is_needless()
        finally:
            release()

    def _is_needless(self) -> bool:
        for number in [number for number, one in _slots.items() if not one._waiters]:
            del _slots[number]
            counts[number] = 0
        if _slots:
            return False
        self.running = False
        control(machine.QUIET, CLOCK_WORD, 0)
        return True


waker: Final = _Waker()


def after_fork() -> None:
    """In the child there is no waker, and the pipe is the parent's. Called under the commit lock."""
    if waker.pipe is not None:
        for end in waker.pipe:
            os.close(end)
    waker.pipe = None
    waker.running = False
    set_word(BELL, -1)
    marks[:] = 0
    counts[:] = 0
    sleepers = [waiter for waiter in clock.sleepers if waiter.thread == threading.get_ident()]
    kept = {number: one for number, one in _slots.items() if any(waiter in one._places()[0] for waiter in sleepers)}
    _slots.clear()
    _slots.update(kept)
    if kept:  # a signal handler forked while its own thread was asleep
        counts[list(kept)] = 1
        waker.start()
        control(machine.AWAIT, CLOCK_WORD, 0)
