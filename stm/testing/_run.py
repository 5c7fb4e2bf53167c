"""One schedule: who runs, who is blocked, what time it is.

Exactly one thread runs at a time, the one that holds the *baton*. At each of its steps it decides itself who goes on,
by the rules of `_schedule.py`, and hands the baton over if that is another. So a step without a switch costs about a
microsecond, and a switch costs what two threads take to pass a lock.

A thread that would block says what it waits for (`block`), and is left out until that has come. Time stands still while
anybody can run. If all wait, it moves to the first deadline among them; if there is none, that is a deadlock.

A run that has failed is *abandoned*: every thread that is not at its end gets the baton once more and is thrown
`Abandoned`. That may hit it at any line, also where CPython would never deliver an exception; so whoever drives the run
puts the locks and lists of `stm` right afterwards (`_cooperative.clear`).
"""

from __future__ import annotations

import linecache
import os
from _thread import get_ident
from array import array
from collections.abc import Callable
from types import FrameType
from typing import Final

from stm.testing._schedule import PREEMPTS, Priorities
from stm.testing._threads import Abandoned, Gate, Worker, never

#: Steps in a row after which a thread that could go on has to let others run: it may be spinning, and wait for them.
SPIN: Final = 1000
#: Virtual time at the start of a run, in seconds.
EPOCH: Final = 1000.0


class Run:
    """One run of the bodies, along `picks` as far as they go, and then by the rule or by `chance`."""

    def __init__(
        self,
        workers: list[Worker],
        gate: Gate,
        picks: bytes,
        chance: Priorities | None,
        max_steps: int,
        where: Callable[[Worker], str],
        describe: Callable[[int, FrameType | None], str] | None = None,
    ) -> None:
        self.workers = workers
        self.given = picks
        self.chance = chance
        self.max_steps = max_steps
        self.where = where
        self.describe = describe
        self.gate = gate  # of whoever drives the run
        self.picks = bytearray()
        self.places = array("I")
        self.offers = array("I")
        self.notes: list[str] = []
        self.last_deviation = 0
        self.now = EPOCH
        self.abandoned = False
        self.misfit = False
        self.failed: tuple[str, Worker | None, BaseException | None] | None = None
        self.stuck: list[tuple[int, str]] = []
        self.current = workers[0]
        self._able = (1 << len(workers)) - 1  # those that are neither blocked nor at their end
        self._left = len(workers)
        self._streak = 0
        self._everybody = len(workers)

    # What the driver calls.

    def start(self) -> None:
        """Pick the first thread, and let it go. The gate opens when all is over."""
        first = self._next(self.workers[-1], gives_way=False)
        assert first is not None
        self.current = first
        first.gate.open()

    # What the running thread calls.

    def point(self, place: int, frame: FrameType | None = None, branch: bool = True) -> None:
        """The running thread is about to take a step: at this place, which another thread may come before."""
        me = self.current
        if self.abandoned:
            self._leave(me)
            return
        me.pending = place
        if self.describe is not None:
            me.note = self.describe(place, frame)
        step = len(self.picks)
        if step >= self.max_steps:
            self.fail("livelock", None, None)
            self._leave(me)
            return
        pick = me
        offer = 0
        if branch or step < len(self.given):
            others = (self._able if self._able.bit_count() == self._left else self._enabled()) & ~me.bit
            if others and (branch or self.given[step] != me.number):
                self._streak += 1
                if self._streak > SPIN:
                    self.give_way(place)
                    return
                if step < len(self.given):
                    pick = self._given(step, others | me.bit)
                elif self.chance is not None:
                    pick = self.workers[self.chance.pick(step, others | me.bit, me.number, False)]
                offer = (others | me.bit) & ~pick.bit | PREEMPTS
                if pick is not me:
                    self.last_deviation = step
        self.picks.append(pick.number)
        self.places.append(pick.pending)
        self.offers.append(offer)
        if self.describe is not None:
            self.notes.append(pick.note)
        if pick is not me:
            self._hand_over(me, pick)

    def give_way(self, place: int) -> None:
        """The running thread spins or backs off: let others go first, if there are any."""
        me = self.current
        if self.abandoned:
            self._leave(me)
            return
        me.pending = place
        if self.describe is not None:
            me.note = self.describe(place, None)
        if len(self.picks) >= self.max_steps:
            self.fail("livelock", None, None)
            self._leave(me)
            return
        pick = self._next(me, gives_way=True)
        assert pick is not None
        if pick is not me:
            self._hand_over(me, pick)

    def block(self, ready: Callable[[], bool], deadline: float | None, place: int) -> bool:
        """The running thread waits until `ready()`, or until the deadline. True if it is ready."""
        me = self.current
        while not ready():
            if deadline is not None and deadline <= self.now:
                return False
            if self.abandoned:
                if self._let_others_leave(me):
                    continue
                raise Abandoned
            if len(self.picks) >= self.max_steps:
                self.fail("livelock", None, None)
                self._leave(me)
                continue
            me.pending = place
            if self.describe is not None:
                me.note = self.describe(place, None)
            me.ready, me.deadline = ready, deadline
            self._able &= ~me.bit
            pick = self._next(me, gives_way=False)
            if pick is None:
                self._deadlock()
                self._leave(me)
            elif pick is not me:
                self._hand_over(me, pick)
            me.ready = me.deadline = None
            self._able |= me.bit
        return True

    def fail(self, kind: str, worker: Worker | None, error: BaseException | None) -> None:
        """The run has failed, and is not to go on."""
        if self.failed is None and not self.abandoned:
            self.failed = (kind, worker, error)
            if kind in ("deadlock", "livelock"):
                self.stuck = [(one.number, self.where(one)) for one in self.workers if not one.done]
        self.abandoned = True

    def end(self, me: Worker) -> None:
        """A body is at its end: the baton goes to the next, or back to the driver."""
        me.done = True
        me.body = never
        self._able &= ~me.bit
        self._left -= 1
        if not self._left:
            self.gate.open()
            return
        pick = None if self.abandoned else self._next(me, gives_way=False)
        if pick is None:
            if not self.abandoned:
                self._deadlock()
            pick = self._to_leave(me)
        self.current = pick
        pick.gate.open()

    # How.

    def _enabled(self) -> int:
        mask = self._able
        for one in self.workers:
            if one.ready is not None and not one.done and not mask & one.bit:
                due = one.deadline is not None and one.deadline <= self.now
                if due or one.ready():
                    mask |= one.bit
        return mask

    def _next(self, me: Worker, gives_way: bool) -> Worker | None:
        """Who goes on when `me` does not; None if nobody can."""
        able = self._enabled()
        while not able:
            deadlines = [one.deadline for one in self.workers if one.deadline is not None and not one.done]
            if not deadlines:
                return None
            self.now = min(deadlines)
            able = self._enabled()
        if gives_way and able & ~me.bit:
            able &= ~me.bit
        step = len(self.picks)
        number = me.number
        while True:
            number = (number + 1) % self._everybody
            if able >> number & 1:
                break
        usual = pick = self.workers[number]
        if step < len(self.given):
            pick = self._given(step, able)
        elif self.chance is not None:
            pick = self.workers[self.chance.pick(step, able, me.number, gives_way)]
        if pick is not usual:
            self.last_deviation = step
        self.picks.append(pick.number)
        self.places.append(pick.pending)
        self.offers.append(able & ~pick.bit | (PREEMPTS if gives_way and able & ~pick.bit else 0))
        if self.describe is not None:
            self.notes.append(pick.note)
        self._streak = 0
        return pick

    def _given(self, step: int, able: int) -> Worker:
        number = self.given[step]
        if not able >> number & 1:
            self.misfit = True
            return next(one for one in self.workers if able & one.bit)
        return self.workers[number]

    def _hand_over(self, me: Worker, pick: Worker) -> None:
        self._streak = 0
        self.current = pick
        pick.gate.open()
        me.gate.wait()
        if self.abandoned:
            self._leave(me)

    def _deadlock(self) -> None:
        self.fail("deadlock", None, None)

    def _leave(self, me: Worker) -> None:
        """Throw the exception that ends a thread of an abandoned run, once."""
        if not me.leaving:
            me.leaving = True
            raise Abandoned

    def _to_leave(self, me: Worker) -> Worker:
        left = [one for one in self.workers if not one.done and one is not me]
        return next((one for one in left if not one.leaving), left[0])

    def _let_others_leave(self, me: Worker) -> bool:
        """While `me` leaves, and waits for what another still holds. False if there is nobody who might let it go."""
        others = [one for one in self.workers if not one.done and one is not me and not one.leaving]
        if not others:
            return False
        self.current = others[0]
        others[0].gate.open()
        me.gate.wait()
        return True


#: The run that is going on, by the threads that take part in it; and the one that drives it.
taking_part: dict[int, Run] = {}
driving: dict[int, Run | None] = {}


def running() -> Run | None:
    """The run in which the calling thread takes part, if it does."""
    return taking_part.get(get_ident())


def line_of(filename: str, number: int) -> str:
    text = linecache.getline(filename, number).strip()
    return f"{os.path.basename(filename)}:{number}  {text}".rstrip()
