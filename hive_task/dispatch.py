"""`Dispatch`: the decisions of a scheduler. Each is one transaction.

What is to be done, and by whom: submit, hand out, cancel (`submission`); wait, stand in, leave (`stand_in`); take,
steal, begin, finish, fail, rest (here). Who works here, and how long, is decided in `staff`. Threads carry out what is
decided, and decide nothing themselves.

Promises, each kept by every transaction, so that every picture shows it:

- Every work is in one state, and the totals add up.
- A worker is idle only if no work is queued that nobody has been given, but for one that a worker who seeks is about to
  find. Whoever becomes idle has read all queues and trays in the same transaction; whoever queues a work looks at the
  same variable in which the idle are listed, and hands it to one.
- A work is begun once. Whether it still may be, is read in the transaction that begins it, and written by the one that
  cancels it, or claims it for somebody who waits for it.

To end a work and to begin the next is one transaction, and mostly it touches the worker's own desk and the two futures
alone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from math import inf
from typing import Any

from hive_task.errors import WorkerLost
from hive_task.futures import FAILED, QUEUED, Future, State
from hive_task.policy import Policy
from hive_task.profiles import NOTES
from hive_task.queues import LONGEST, on_tray, tray_of
from hive_task.registry import Stack, Worker
from hive_task.stand_in import StandIn
from hive_task.submission import Callbacks
from stm import atomically, on_commit

log = logging.getLogger(__name__)

#: What a worker is told instead of a work: to go; or to ask again.
LEAVE = object()
AGAIN = object()


class Dispatch(StandIn):
    """All decisions of one scheduler: here, those of a worker about the works that he runs."""

    # A worker's work.

    @atomically(name="hive_task.work")
    def advance(
        self, me: Worker, future: Future[Any], state: State, name: str, ended: float, pace: float
    ) -> tuple[Any, Callbacks | None]:
        """End a work, and begin the next one if there is any. That one, None or `LEAVE`; and callbacks to be called, or
        None if the work has been given up meanwhile, and this comes too late. `AGAIN` if there are callbacks, which are
        to be called before the worker begins another work; or if there is nothing on his tray, so that whoever waits
        for the result need not wait until the worker has looked elsewhere."""
        stack, tray, count, finished, failed, leaving, notes = me.desk.get()
        var = future._var
        callbacks = var.get()[1]
        top, began, dropped, below = stack  # type: ignore[misc]
        usual = top is future and below is None and not dropped and not callbacks
        if usual and tray is not None and (finished + failed + 1) % NOTES:
            following, rest = tray
            fit = following._var.get()[0] == QUEUED and following._work.special is None
            if fit and not self._pressing.get()[0]:
                if state[0] == FAILED:
                    failed += 1
                else:
                    finished += 1
                var.set(state)
                notes = (name, began - future._put_at, ended - began, state[0] == FAILED, notes)
                me.desk.set(((following, ended, False, None), rest, count - 1, finished, failed, leaving, notes))
                return following, callbacks
        if usual and tray is None and (finished + failed + 1) % NOTES and not me.waits.get():
            if state[0] == FAILED:
                failed += 1
            else:
                finished += 1
            var.set(state)
            notes = (name, began - future._put_at, ended - began, state[0] == FAILED, notes)
            me.desk.set((None, None, 0, finished, failed, leaving, notes))
            return AGAIN, callbacks
        callbacks = self._end(me, future, state, name, ended)
        if callbacks or tray is None:
            return AGAIN, callbacks
        return self._next(me, pace), callbacks

    @atomically(name="hive_task.end")
    def end(self, me: Worker, future: Future[Any], state: State, name: str, ended: float) -> Callbacks | None:
        """End a work that its worker has run while another one of his waited for it."""
        return self._end(me, future, state, name, ended)

    def _end(self, me: Worker, future: Future[Any], state: State, name: str, ended: float) -> Callbacks | None:
        stack, tray, count, finished, failed, leaving, notes = me.desk.get()
        while stack is not None and stack[0] is not future:
            failed += self._end_left_over(me, stack)
            stack = stack[3]
        _, began, dropped, below = stack  # type: ignore[misc]
        if below is None and me.waits.get():
            self._stop_waiting(me)
            _, tray, count, *_ = me.desk.get()
        callbacks: Callbacks | None = None
        if not dropped:
            callbacks = future._end(state)
            if state[0] == FAILED:
                failed += 1
            else:
                finished += 1
            notes = (name, began - future._put_at, ended - began, state[0] == FAILED, notes)
            if not (finished + failed) % NOTES:
                me.profile.set(me.profile.get().noting(notes))
                notes = None
        me.desk.set((below, tray, count, finished, failed, leaving, notes))
        return callbacks

    def _end_left_over(self, me: Worker, entry: Stack) -> int:
        """A work that the worker ran for another's sake was cut off by an exception that struck between works."""
        future, _, dropped, _ = entry
        if dropped:
            return 0
        lost = WorkerLost(f"worker {me.name} was interrupted as it began or ended this work")
        on_commit(future._tell_safely, future._end((FAILED, lost)))
        return 1

    @atomically(name="hive_task.work")
    def first(self, me: Worker) -> Any:
        """What a new worker begins with: what he was hired for, or as `begin`."""
        stack = me.desk.get()[0]
        return stack[0] if stack is not None else self._next(me, inf)

    @atomically(name="hive_task.work")
    def begin(self, me: Worker, pace: float) -> Any:
        """Begin a work: that, None if there is none (the worker is idle then), or `LEAVE`."""
        stack, tray, count, finished, failed, leaving, notes = me.desk.get()
        if stack is None and not leaving:  # the usual cases, spelt out
            if tray is None:
                return self._only_one(me, finished, failed, notes) or self._next(me, pace)
            future, tray = tray
            fit = future._var.get()[0] == QUEUED and future._work.special is None
            if fit and not self._pressing.get()[0]:
                me.desk.set(((future, time.monotonic(), False, None), tray, count - 1, finished, failed, False, notes))
                return future
        return self._next(me, pace)

    def await_work(self, me: Worker, pace: float) -> Any:
        """Sleep until somebody hands the worker, who is idle, a work, or sends him away; then as `begin`."""
        while (desk := me.desk.get())[1] is None and not desk[5]:
            me.desk.await_change(desk)
        return self.begin(me, pace)

    def seek_work(self, me: Worker, pace: float) -> Any:
        """Before a worker rests: look for a moment, awake, whether something comes; then as `begin`. One at a time."""
        run = self._back.peek()
        nothing = run[1] is None and not sum(self._pressing.peek()) and self.gate.nearly_empty()
        if nothing and run[3][5] and self._may_seek and not self.seekers:  # (and the gate is open)
            self.seekers.add(me)
            try:
                self._back.await_change(run, park=False)
            finally:
                self.seekers.discard(me)
        return self.begin(me, pace)

    def _next(self, me: Worker, pace: float) -> Any:
        stack, tray, count, finished, failed, leaving, notes = me.desk.get()
        if leaving:
            return self._leave(me)
        gate = self.gate
        while True:
            above, below = gate.pressing.get()
            if above and (tray is None or tray[0]._priority() < gate.highest()):
                future = gate.take_urgent()
            else:
                if tray is None:
                    works = gate.take(self._share(pace)) or self._steal(me)
                    tray, count = tray_of(works), len(works)
                if tray is not None:
                    future, tray = tray
                    count -= 1
                elif below:
                    future = gate.take_urgent()
                else:
                    return self._rest(me)
            if future._var.get()[0] == QUEUED:
                break
            gate.lay_ghost()
            me.desk.set((stack, tray, count, finished, failed, leaving, notes))
        began = time.monotonic()
        me.desk.set(((future, began, False, stack), tray, count, finished, failed, leaving, notes))
        self._limit(future, began)
        return future

    def _only_one(self, me: Worker, finished: int, failed: int, notes: Any) -> Future[Any] | None:
        """Begin the work that came last, if it is the only one and an ordinary one: the quick way for a worker who
        keeps up with those who submit."""
        newest, before, credit, base = self._back.get()
        if before is None or before[1] is not None or self._pressing.get()[0]:
            return None
        if not self.gate.nearly_empty() or newest._var.get()[0] != QUEUED or newest._work.special is not None:
            return None
        submitted, elsewhere, length, given, idle, is_open, watched = base
        came = given - credit
        credit = LONGEST if is_open and not idle and not watched else 0
        base = (submitted + came, elsewhere + 1, length + came - 1, credit, idle, is_open, watched)
        self._back.set((None, None, credit, base))
        me.desk.set(((newest, time.monotonic(), False, None), None, 0, finished, failed, False, notes))
        return newest  # type: ignore[no-any-return]

    def _share(self, pace: float) -> int:
        """How many works a worker may take at once."""
        if pace == inf or (self.gate.nearly_empty() and self.gate.back.get()[1] is None):
            return 1
        queued = self.gate.length()
        if queued < 2:
            return 1
        workers = len(self.registry.crew.get())
        return int(self._ask("batch", lambda one: isinstance(one, int) and one > 0, queued, workers, pace))

    def _steal(self, me: Worker) -> tuple[Future[Any], ...]:
        """Take half of what another worker has taken in advance."""
        workers = self.registry.crew.get()
        counts = [worker.desk.get()[2] for worker in workers]  # (his own is empty)
        if not any(counts):
            return ()
        chosen = self._ask("victim", lambda one: one is None or (one in range(len(counts)) and counts[one] > 0), counts)
        if chosen is None:
            return ()
        victim = workers[chosen]
        stack, tray, count, *others = victim.desk.get()
        works = tuple(on_tray(tray))
        half = (len(works) + 1) // 2
        victim.desk.set((stack, tray_of(works[half:]), count - half, *others))
        if stack is None and half == len(works):
            # He was given it, and has not woken up yet.
            if self.gate.pressing.get()[1]:
                victim.desk.set((stack, (self.gate.take_urgent(), None), 1, *others))
            else:
                self._rest(victim, asleep=True)
        return works[:half]

    def _ask(self, what: str, makes_sense: Callable[[Any], bool], *args: Any) -> Any:
        """An answer of the policy. If it makes none that makes sense, the usual one: nobody's call can raise an error,
        and workers have to go on."""
        if type(self.policy) is Policy:
            return getattr(self.policy, what)(*args)
        try:
            answer = getattr(self.policy, what)(*args)
            if makes_sense(answer):
                return answer
            problem = f"returned {answer!r}"
        except Exception as error:
            problem = f"raised {error!r}"
        on_commit(log.error, "%s.%s%r %s; done as usual instead", type(self.policy).__name__, what, args, problem)
        return getattr(Policy(), what)(*args)

    def _rest(self, me: Worker, asleep: bool = False) -> Any:
        """There is nothing to do: be idle, or go, if the scheduler is closed."""
        newest, before, credit, (submitted, elsewhere, length, given, idle, is_open, watched) = self.gate.back.get()
        if not is_open:
            if asleep:
                return self.send_away(me)
            return self._leave(me)
        if me not in idle:
            came = given - credit
            base = (submitted + came, elsewhere, length + came, 0, (*idle, me), is_open, watched)
            self.gate.back.set((newest, before, 0, base))
        return None

    def _leave(self, me: Worker) -> Any:
        self.put_down(me)
        self.strike_off(me)
        waiting = me.stands_in_for
        if waiting is not None and not me.errand and waiting.waits.get() and waiting in self.registry.crew.get():
            self.relieve(waiting)
        return LEAVE
