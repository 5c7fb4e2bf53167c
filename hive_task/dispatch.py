"""`Dispatch`: the decisions of a scheduler. Each is one transaction.

What is to be done, and by whom: submit, hand out, take, steal, begin, finish, fail, cancel, rest. (Who works here, and
how long, is decided in `staff`.) Threads carry out what is decided here, and decide nothing themselves.

Promises, each kept by every transaction, so that every picture shows it:

- Every work is in one state, and the totals add up.
- A worker is idle only if no work is queued that nobody has been given, but for one that a worker who seeks is about to
  find. Whoever becomes idle has read all queues and trays in the same transaction; whoever queues a work looks at the
  same variable in which the idle are listed, and hands it to one.
- A work is begun once. Whether it still may be, is read in the transaction that begins it, and written by the one that
  cancels it, or claims it for somebody who waits for it.

To end a work and to begin the next is one transaction, and mostly it touches the worker's own desk and the two futures
alone. A work that came from outside to a busy scheduler changed one variable.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path
from typing import Any

from hive_task.errors import HiveTaskError, SchedulerClosed, WorkerLost
from hive_task.futures import CANCELLED, CLAIMED, FAILED, GONE, QUEUED, Future, State
from hive_task.policy import Policy
from hive_task.profiles import NOTES
from hive_task.queues import LONGEST, Base, Gate, now, on_tray, tray_of
from hive_task.registry import Registry, Stack, Worker, is_on, on_stack
from hive_task.work import PLAIN
from stm import TVar, atomically, detached, in_transaction, on_commit

log = logging.getLogger(__name__)

Callbacks = tuple[Callable[[Any], object], ...]

#: Where decisions are made.
_FILES = ("dispatch", "queues", "registry", "staff", "supervisor", "survey")

#: What a worker is told instead of a work: to go; or to ask again.
LEAVE = object()
AGAIN = object()


class Dispatch:
    """The queues and the workers of one scheduler, and what may be done with them."""

    def __init__(self, name: str, policy: Policy) -> None:
        self.name = name
        self.policy = policy
        self.gate = Gate()
        self.registry = Registry()
        self._back = self.gate.back  # (what threads share should not be reached through more that they share)
        self._pressing = self.gate.pressing
        #: Workers who look for work just now, and will look once more before they rest (`seek_work`).
        self.seekers: set[Worker] = set()
        self._may_seek = type(policy).place is Policy.place  # else the policy says which idle worker it is to be
        self.cancelled: TVar[int] = TVar(0, name="works cancelled")
        #: When the supervisor is to look next (on `time.monotonic`).
        self.alarm: TVar[float] = TVar(inf, name="alarm")
        #: Has something happened since he looked at the number of workers that he waits for?
        self.scale_now: TVar[bool] = TVar(False, name="scale now")
        #: "new", "running", "stopping" (it takes no more work), or "stopped" (and all is done).
        self.phase: TVar[str] = TVar("new", name="phase")
        #: Part of a transaction: a new worker in the registry, who starts after the commit.
        self.hire: Callable[[Worker | None], Worker] = _nobody

    # Submitting.

    def put(self, future: Future[Any]) -> None:
        """Submit a work. `SchedulerClosed` if nobody will run it."""
        if in_transaction():
            if is_uninvited():
                detached(self.put, future)
                return
            future._belong()
        back = self._back
        run = back.peek()  # should that not be what the transaction would see, then it is not replaced
        credit = run[2]
        special = future._work.special  # type: ignore[union-attr]
        if (
            credit
            and (special is None or not special.priority)
            and back.compare_and_set(run, (future, run, credit - 1, run[3]))
        ):
            return
        self.place((future,))

    @atomically(name="hive_task.submit")
    def place(self, futures: tuple[Future[Any], ...]) -> None:
        run = self.gate.back.get()
        base = now(run)
        if not base.open:
            phase = self.phase.get()
            raise SchedulerClosed(
                f"scheduler {self.name!r} takes no work: it is {phase}" + ("; start it first" if phase == "new" else "")
            )
        if len(futures) == 1 and base.idle:
            submitted, elsewhere, length, credit, idle, is_open, watched = base
            if self.seekers and run[1] is None and self._will_be_found(futures[0]):
                self.gate.store(run, Base(submitted + 1, elsewhere, length, credit, idle, is_open, watched), futures)
                return
            idle = self._hand_to_idle(idle, futures[0])
            if idle:  # (so the credit remains 0)
                elsewhere += 1
                base = (submitted + 1, elsewhere, length, 0, idle, is_open, watched)  # type: ignore[assignment]
                self.gate.back.set((run[0], run[1], 0, base))
                return
            base = Base(submitted + 1, elsewhere + 1, length, credit, idle, is_open, watched)
            self.gate.store(run, base)
            return
        base = base._replace(submitted=base.submitted + len(futures))
        self._queue(run, base, futures)

    def _will_be_found(self, future: Future[Any]) -> bool:
        """Would a worker who seeks begin this work, if it were put into the queue? Then nobody need be woken up: before
        he rests, he looks once more, after he has left `seekers`."""
        return not future._priority() and not sum(self._pressing.get()) and self.gate.nearly_empty()

    def share_out(self) -> None:
        """Part of a transaction: if there are works in the queue, and idle workers, wake these: a work that was left to
        a worker who sought is not found by him."""
        idle = now(self._back.get()).idle
        while idle and (works := self.gate.take(1)):
            idle = self._hand_to_idle(idle, works[0])
        run = self._back.get()
        self.gate.store(run, now(run)._replace(idle=idle))

    def _queue(self, run: Any, base: Base, futures: tuple[Future[Any], ...]) -> None:
        """Hand works to those who are idle, and queue what is left."""
        ordinary = futures
        if any(future._priority() for future in futures):
            futures = tuple(sorted(futures, key=lambda future: -future._priority()))
        if base.idle:
            handed = 0
            for future in futures:
                if not base.idle:
                    break
                base = base._replace(idle=self._hand_to_idle(base.idle, future), elsewhere=base.elsewhere + 1)
                handed += 1
            futures = ordinary = futures[handed:]
        if futures and base.watched:
            base = base._replace(watched=False)
            self.wake_supervisor(time.monotonic(), scale=True)
        if any(future._priority() for future in futures):
            ordinary = tuple(one for one in futures if not one._priority())
            for future in futures:
                priority = future._priority()
                if priority:
                    self.gate.press(future, priority)
            base = base._replace(elsewhere=base.elsewhere + len(futures) - len(ordinary))
        self.gate.store(run, base, ordinary)

    def _hand_to_idle(self, idle: tuple[Worker, ...], future: Future[Any]) -> tuple[Worker, ...]:
        """Give the work to one of the idle, or to somebody who stands in for him; those who still are idle then."""
        chosen: Any = len(idle) - 1
        if type(self.policy) is not Policy:
            chosen = self.policy.place(
                future._work,  # type: ignore[arg-type]
                tuple(worker.uuid for worker in idle),
                self.registry.past.peek()[2].functions,
            )
            if not isinstance(chosen, int) or not 0 <= chosen < len(idle):
                raise HiveTaskError(
                    f"{type(self.policy).__name__}.place() must return an index of the {len(idle)} idle workers, "
                    f"not {chosen!r}"
                )
        worker = idle[chosen]
        if worker.waits.get():
            worker = self.hire(worker)
        stack, tray, count, *others = worker.desk.get()
        worker.desk.set((stack, (future, tray), count + 1, *others))
        return idle[:chosen] + idle[chosen + 1 :]

    def give_back(self, futures: tuple[Future[Any], ...]) -> None:
        """Queue works again that were on somebody's tray, or whose worker was lost, before all others."""
        many = len(futures)
        futures = tuple(future for future in futures if future._var.get()[0] == QUEUED)
        self.gate.ghosts.set(self.gate.ghosts.get() - (many - len(futures)))
        run = self.gate.back.get()
        base = now(run)
        if base.idle:
            self._queue(run, base._replace(elsewhere=base.elsewhere - len(futures)), futures)
        else:
            self.gate.put_back(futures)

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
        on_commit(future._tell, future._end((FAILED, lost)))
        return 1

    @atomically(name="hive_task.work")
    def first(self, me: Worker) -> Any:
        """What a new worker begins with: what he was hired for, or as `begin`."""
        stack = me.desk.get()[0]
        return stack[0] if stack is not None else self._next(me, inf)

    @atomically(name="hive_task.work")
    def begin(self, me: Worker, pace: float) -> Any:
        """Begin a work: that, None if there is none (the worker is idle then), or `LEAVE`."""
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
        if tray is None and stack is None:
            future = self._only_one(me, finished, failed, notes)
            if future is not None:
                return future
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
        gate = self.gate
        newest, before, credit, base = gate.back.get()
        if before is None or before[1] is not None or gate.pressing.get()[0]:
            return None
        if not gate.nearly_empty() or newest._var.get()[0] != QUEUED or newest._work.special is not None:
            return None
        submitted, elsewhere, length, given, idle, is_open, watched = base
        came = given - credit
        credit = LONGEST if is_open and not idle and not watched else 0
        base = (submitted + came, elsewhere + 1, length + came - 1, credit, idle, is_open, watched)
        gate.back.set((None, None, credit, base))
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

    def _limit(self, future: Future[Any], began: float) -> None:
        limit = future._work.options.time_limit  # type: ignore[union-attr]
        if limit is not None:
            self.wake_supervisor(began + limit)

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

    def strike_off(self, me: Worker, replace: bool = True) -> None:
        """Part of a transaction: the worker, who has nothing before him any more, is gone."""
        self.registry.leave(me)
        if replace and not me.errand and self.queued() > 0:
            crew = self.registry.crew.get()
            waiting = [worker for worker in crew if worker.waits.get()]
            if now(self._back.get()).idle:
                self.share_out()
            elif not any(map(self._takes_works, crew)):
                if waiting:
                    self.relieve(waiting[0])
                else:
                    self.hire(None)
        if not self.registry.crew.get() and not now(self.gate.back.get()).open:
            self.phase.set("stopped")

    def _takes_works(self, worker: Worker) -> bool:
        return not worker.desk.get()[5] and not worker.waits.get()

    def put_down(self, me: Worker) -> None:
        """Part of a transaction: the worker is not idle any more, and what is on his tray goes back to the queue."""
        run = self.gate.back.get()
        base = now(run)
        if me in base.idle:
            self.gate.store(run, base._replace(idle=tuple(one for one in base.idle if one is not me)))
        stack, tray, _, *others = me.desk.get()
        if tray is not None:
            me.desk.set((stack, None, 0, *others))  # type: ignore[arg-type]
            self.give_back(tuple(on_tray(tray)))

    # Waiting for a work, in a work.

    @atomically(name="hive_task.claim")
    def claim(self, me: Worker, future: Future[Any]) -> bool:
        """Begin this very work, out of turn, if it is queued still and nothing but ordinary."""
        work = future._work
        if work is None or work.options != PLAIN._replace(priority=work.priority, category=work.category):
            return False
        return self._claim(me, future)

    def _claim(self, me: Worker, future: Future[Any]) -> bool:
        status, callbacks = future._var.get()
        if status != QUEUED or self._is_begun(future):
            return False
        future._var.set((CLAIMED, callbacks))
        self.gate.ghosts.set(self.gate.ghosts.get() + 1)
        stack, *others = me.desk.get()
        began = time.monotonic()
        me.desk.set(((future, began, False, stack), *others))
        self._limit(future, began)
        return True

    @atomically(name="hive_task.wait")
    def begin_wait(self, me: Worker, wanted: Future[Any] | None = None) -> None:
        """The worker is going to wait, for a work if one is named: others may stand in for him, and begin with that."""
        waits = me.waits.get()
        me.waits.set(waits + 1)
        if waits:
            return
        self.put_down(me)
        self.relieve(me, wanted)

    def relieve(self, me: Worker, wanted: Future[Any] | None = None) -> None:
        """Part of a transaction: see that somebody works instead of a worker who waits, if there is or comes work."""
        run = self.gate.back.get()
        base = now(run)
        if me in base.idle:
            return
        for one in self.registry.crew.get():
            if one.stands_in_for is me:
                stack, tray, count, finished, failed, leaving, notes = one.desk.get()
                if leaving and stack is not None and not any(entry[2] for entry in on_stack(stack)):
                    # He is at work still: he may stay.
                    one.errand = False
                    one.desk.set((stack, tray, count, finished, failed, False, notes))
                    return
                if not leaving:
                    return
        if self.queued() > 0:
            stand_in = self.hire(me)
            # (One that may be run again can't be claimed: its place in the queue would be found twice.)
            claimable = wanted is not None and wanted._work is not None and not wanted._work.reruns
            if claimable and self._claim(stand_in, wanted):  # type: ignore[arg-type]
                stand_in.errand = True
                stack, tray, count, finished, failed, _, notes = stand_in.desk.get()
                stand_in.desk.set((stack, tray, count, finished, failed, True, notes))
        else:
            self.be_vacant(me)

    def be_vacant(self, me: Worker) -> None:
        """Part of a transaction: the next work brings somebody who stands in for this worker, who waits."""
        run = self.gate.back.get()
        base = now(run)
        if me not in base.idle:
            self.gate.store(run, base._replace(idle=(*base.idle, me)))

    @atomically(name="hive_task.wait")
    def end_wait(self, me: Worker) -> None:
        """He goes on himself, and whoever stands in for him leaves when he has done what he has begun."""
        waits = me.waits.get() - 1
        me.waits.set(waits)
        if not waits:
            self._stop_waiting(me)

    def _stop_waiting(self, me: Worker) -> None:
        me.waits.set(0)
        self.put_down(me)
        for worker in self.registry.crew.get():
            if worker.stands_in_for is me:
                self.send_away(worker)

    def send_away(self, worker: Worker) -> None:
        """Part of a transaction: the worker is to leave as soon as he has no work in hand."""
        self.put_down(worker)
        stack, tray, count, finished, failed, _, notes = worker.desk.get()
        worker.desk.set((stack, tray, count, finished, failed, True, notes))

    # Asking and cancelling.

    def cancel(self, future: Future[Any]) -> tuple[bool, Callbacks]:
        """Cancel a work that has not begun. Is it cancelled, now or before? And callbacks to be called."""
        if in_transaction() and is_uninvited():
            return detached(self._cancel, future)
        return self._cancel(future)

    @atomically(name="hive_task.cancel")
    def _cancel(self, future: Future[Any]) -> tuple[bool, Callbacks]:
        status = future._var.get()[0]
        if status >= CANCELLED:
            return status == CANCELLED, ()
        if status == CLAIMED or self._is_begun(future):
            return False, ()
        self.cancelled.set(self.cancelled.get() + 1)
        self.gate.ghosts.set(self.gate.ghosts.get() + 1)
        return True, future._end(GONE)

    @atomically(name="hive_task.ask")
    def is_running(self, future: Future[Any]) -> bool:
        return future._var.get()[0] < CANCELLED and self._is_begun(future)

    def _is_begun(self, future: Future[Any]) -> bool:
        return any(is_on(worker.desk.get()[0], future) for worker in self.registry.crew.get())

    def queued(self) -> int:
        """Part of a transaction: how many works are queued, wherever that is."""
        trays = sum(worker.desk.get()[2] for worker in self.registry.crew.get())
        return self.gate.length() + sum(self.gate.pressing.get()) + trays - self.gate.ghosts.get()

    def queued_works(self) -> Iterator[Future[Any]]:
        """Part of a transaction: the works that are queued."""
        for future in self.gate.works():
            if future._var.get()[0] == QUEUED:
                yield future
        for worker in self.registry.crew.get():
            for future in on_tray(worker.desk.get()[1]):
                if future._var.get()[0] == QUEUED:
                    yield future

    def wake_supervisor(self, at: float, scale: bool = False) -> None:
        """Part of a transaction: the supervisor is to look then, or earlier; also at the number of workers."""
        if scale:
            self.scale_now.set(True)
        if at < self.alarm.get():
            self.alarm.set(at)


def is_uninvited() -> bool:
    """Is this a signal handler or a finalizer that has interrupted a decision of a scheduler in this thread?

    What it does must not become a part of that: a decision reads variables and sets them later. (Asked only in a
    transaction, so it is nothing that a work would pay for.)
    """
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename in _DECIDING:
            return True
        if frame.f_code in OUTSIDE:
            return False
        frame = frame.f_back  # type: ignore[assignment]
    return False


#: Functions that call works and callbacks, outside decisions.
OUTSIDE = {Future._tell.__code__}

_DECIDING = {str(Path(__file__).with_name(f"{name}.py")) for name in _FILES}


def _nobody(stands_in_for: Worker | None) -> Worker:
    raise HiveTaskError("nobody hires workers here")
