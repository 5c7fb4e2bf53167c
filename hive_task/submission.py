"""`Submission`: the part of `Dispatch` that takes works in: submit, hand out, give back, cancel; and what there is.

See `dispatch` for what it promises. A work that comes from outside to a busy scheduler changes one variable.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from math import inf
from typing import Any

from hive_task.errors import HiveTaskError, SchedulerClosed
from hive_task.futures import CANCELLED, CLAIMED, GONE, QUEUED, Future
from hive_task.policy import Policy
from hive_task.queues import Base, Gate, now, on_tray
from hive_task.registry import Registry, Worker, is_on
from hive_task.uninvited import is_uninvited
from stm import TVar, atomically, detached, in_transaction

Callbacks = tuple[Callable[[Any], object], ...]


class Submission:
    """The queues and the workers of one scheduler, and how works come in."""

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
        if special is None or not special.priority:
            if credit:
                if back.compare_and_set(run, (future, run, credit - 1, run[3])):
                    return
            elif self.seekers and run[1] is None and run[3][4] and run[3][5]:
                # Nobody need be woken up: before he who seeks rests, he looks once more, after he has left `seekers`.
                # (As long as somebody is idle, there is nothing else that he could begin instead.)
                submitted, elsewhere, length, given, idle, is_open, watched = run[3]
                base = (submitted + given + 1, elsewhere, length + given + 1, 0, idle, is_open, watched)
                if back.compare_and_set(run, (future, run, 0, base)):
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
        special = [future for future in futures if future._work.special is not None]  # type: ignore[union-attr]
        if special:
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
        if special:
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

    def _limit(self, future: Future[Any], began: float) -> None:
        limit = future._work.options.time_limit  # type: ignore[union-attr]
        if limit is not None:
            self.wake_supervisor(began + limit)


def _nobody(stands_in_for: Worker | None) -> Worker:
    raise HiveTaskError("nobody hires workers here")
