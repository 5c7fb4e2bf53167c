"""`Staff`: who works for a scheduler. To open and close, to hire, to replace those who died or ran out of time.

Promises, each one transaction's:

- A worker who died is replaced. What he had begun fails with `WorkerLost`, or is queued again if it may be run again;
  what was on his tray goes back to the queue.
- A work that exceeds its time limit fails with `WorkTimeout` at that moment. A process that ran it is killed. A thread
  can't be; it is flagged (`current_work().overdue`, and a message at its port), another worker takes its place, and
  what it still may return is refused.
- Whoever closes the scheduler lets it finish what is queued, unless he cancels that. Threads that were given up are not
  waited for.

The number of workers, with the reason of each change, is kept in `changes`.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from hive_task.dispatch import Dispatch
from hive_task.errors import SchedulerClosed, WorkerLost, WorkTimeout
from hive_task.futures import FAILED, Future
from hive_task.messages import Channel, Port, SystemEvent, connect_port, send_message
from hive_task.picture import Change
from hive_task.queues import now
from hive_task.registry import Desk, Stack, Worker, on_stack
from hive_task.scaling import Limits
from hive_task.submission import Callbacks
from hive_task.worker import Post
from stm import TransactionTimeout, TVar, atomically, check, on_commit, run

log = logging.getLogger(__name__)

#: Changes of the number of workers that are remembered.
REMEMBERED = 20

#: Seconds after which to try again to start a thread, if there could be no more.
TRY_AGAIN = 1.0

#: Futures that have ended, each with the callbacks that are to be told.
Told = list[tuple[Future[Any], Callbacks]]


class Staff:
    """The workers of one scheduler, their threads, and how many they are to be."""

    def __init__(
        self, dispatch: Dispatch, limits: Limits, port_class: Callable[[], Port], channel_class: Callable[[], Channel]
    ) -> None:
        self.dispatch = dispatch
        self.limits: TVar[Limits] = TVar(limits, name="limits")
        self.changes: TVar[tuple[Change, ...]] = TVar((), name="changes of the number of workers")
        self.opened: TVar[float] = TVar(0.0, name="time of opening")
        self.threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
        self._number: TVar[int] = TVar(0, name="workers hired")
        self._port_class = port_class
        self._channel_class = channel_class
        dispatch.hire = self._hire

    # Opening and closing.

    @atomically(name="hive_task.open")
    def open(self) -> bool:
        """Take work from now on, and hire the workers to do it. False if that has been done. `SchedulerClosed` if it
        was closed since."""
        phase = self.dispatch.phase.get()
        if phase == "running":
            return False
        if phase != "new":
            raise SchedulerClosed(f"scheduler {self.dispatch.name!r} is {phase}, for good; make a new one")
        self.dispatch.phase.set("running")
        self.opened.set(time.monotonic())
        gate = self.dispatch.gate
        run = gate.back.get()
        gate.store(run, now(run)._replace(open=True))
        limits = self.limits.get()
        self.resize(limits.start, "at the start")
        if limits.minimum < limits.maximum:
            self.dispatch.wake_supervisor(time.monotonic())
        return True

    @atomically(name="hive_task.close")
    def close(self) -> bool:
        """Take no more work. Workers leave when there is nothing left to do. False if that was so already."""
        dispatch = self.dispatch
        phase = dispatch.phase.get()
        if phase in ("stopping", "stopped"):
            return False
        run = dispatch.gate.back.get()
        base = now(run)
        dispatch.gate.store(run, base._replace(open=False, watched=False))
        if not dispatch.registry.crew.get() and dispatch.queued() > 0:
            self._hire()  # they could not be started
        dispatch.phase.set("stopping" if dispatch.registry.crew.get() else "stopped")
        for worker in base.idle:
            if not worker.waits.get():
                dispatch.send_away(worker)
        return True

    def cancel_queued(self, chosen: Callable[[Future[Any]], bool] = lambda future: True) -> int:
        """Cancel what is queued at this moment, or those of it that are chosen; how many these were."""
        works = run(lambda: tuple(self.dispatch.queued_works()), read_only=True, name="hive_task.queued")
        return sum(1 for future in works if chosen(future) and not future.done() and future.cancel())

    def await_end(self, timeout: float | None = None) -> bool:
        """Wait until all work is done, and all workers have left but those who were given up. False after `timeout`."""
        try:
            run(self._ended, timeout=timeout, name="hive_task.end")
        except TransactionTimeout:
            return False
        if self.dispatch.phase.get() == "stopped":  # else there are some that were given up, and the supervisor stays
            for thread in set(self.threads) - {threading.current_thread()}:
                thread.join()
        return True

    def _ended(self) -> None:
        check(self.dispatch.phase.get() in ("stopping", "stopped"))
        check(all(is_given_up(worker.desk.get()) for worker in self.dispatch.registry.crew.get()))

    # Hiring.

    def _hire(self, stands_in_for: Worker | None = None) -> Worker:
        number = self._number.get() + 1
        self._number.set(number)
        worker = Worker(f"{self.dispatch.name}-{number}", stands_in_for)
        worker.port, worker.post = self._port_class(), self._port_class()
        channel = self._channel_class()
        connect_port(worker.port, channel)
        connect_port(worker.post, channel)
        self.dispatch.registry.enter(worker)
        on_commit(self._start, worker)
        return worker

    def _start(self, worker: Worker) -> None:
        worker.thread = threading.Thread(target=Post(worker, self).run, name=worker.name, daemon=True)
        try:
            worker.thread.start()
            self.threads.add(worker.thread)
        except RuntimeError as error:  # no more threads
            log.error("worker %s can't start: %s", worker.name, error)
            self.bury(worker, error, replace=False)
        except BaseException as error:  # Ctrl-C
            if worker.thread.ident is None:
                self.bury(worker, error, replace=False)
            raise

    def resize(self, number: int, reason: str, only_idle: bool = False) -> None:
        """Part of a transaction: have so many workers, not counting those who stand in for others. Idle ones leave
        first; others after the work they have in hand, or not at all."""
        dispatch = self.dispatch
        crew = self.regular()
        before = len(crew)
        if only_idle:
            number = max(number, before - sum(worker in now(dispatch.gate.back.get()).idle for worker in crew))
        if number > before:
            for _ in range(number - before):
                self._hire()
        elif number < before:
            idle = now(dispatch.gate.back.get()).idle
            crew.sort(key=lambda worker: (worker not in idle, worker.desk.get()[2]))
            for worker in crew[: before - number]:
                dispatch.send_away(worker)
                self.notify(worker, SystemEvent("stop"))
        if number != before:
            dispatch.scale_now.set(True)
            change = Change(time.time(), before, number, reason)
            self.changes.set((*self.changes.get(), change)[-REMEMBERED:])
            on_commit(log.info, "%s: %d workers, after %d: %s", dispatch.name, number, before, reason)

    def regular(self) -> list[Worker]:
        """Part of a transaction: the workers who are to stay, without those who stand in for others."""
        return [one for one in self.dispatch.registry.crew.get() if one.stands_in_for is None and not one.desk.get()[5]]

    # Losses.

    def bury(self, worker: Worker, error: BaseException, replace: bool = True) -> None:
        """A worker has died: see to his work, and replace him."""
        for future, callbacks in self._bury(worker, error, replace):
            future._forget()
            future._tell_safely(callbacks)

    @atomically(name="hive_task.bury")
    def _bury(self, worker: Worker, error: BaseException, replace: bool) -> Told:
        dispatch = self.dispatch
        if worker not in dispatch.registry.crew.get():
            return []
        dispatch.put_down(worker)
        stack, tray, count, finished, failed, leaving, notes = worker.desk.get()
        told: Told = []
        again: list[Future[Any]] = []
        for future, _, dropped, _ in on_stack(stack):
            work = future._work
            if dropped or work is None:
                continue
            if future._runs < work.options.reruns:
                on_commit(setattr, future, "_runs", future._runs + 1)
                again.append(future)
                continue
            lost = WorkerLost(f"worker {worker.name} died while it ran {work!r}: {error!r}")
            lost.__cause__ = error
            told.append((future, future._end((FAILED, lost))))
            failed += 1
        worker.desk.set((None, tray, count, finished, failed, True, notes))
        if again:
            dispatch.give_back(tuple(again))
        dispatch.registry.lost.set(dispatch.registry.lost.get() + 1)
        for other in dispatch.registry.crew.get():
            if other.stands_in_for is worker:
                dispatch.send_away(other)
        if replace:
            self._replace(worker, leaving)
        dispatch.strike_off(worker, replace)
        waiting = worker.stands_in_for
        if not replace:
            if waiting is not None and waiting.waits.get():
                dispatch.be_vacant(waiting)
            dispatch.wake_supervisor(time.monotonic() + TRY_AGAIN)
        dispatch.wake_supervisor(time.monotonic() + TRY_AGAIN, scale=True)
        if dispatch.phase.get() == "stopped":  # nobody can be hired, and nobody is left
            for future in tuple(dispatch.queued_works()):
                lost = WorkerLost(f"there is no worker left who could run this work: {error!r}")
                dispatch.gate.ghosts.set(dispatch.gate.ghosts.get() + 1)
                told.append((future, future._end((FAILED, lost))))
                finished_, failed_, profile = dispatch.registry.past.get()
                dispatch.registry.past.set((finished_, failed_ + 1, profile))
        return told

    def _replace(self, worker: Worker, leaving: bool) -> None:
        """Part of a transaction: somebody must do the work of one who died, or was given up."""
        waiting = worker.stands_in_for
        if waiting is not None:
            if waiting in self.dispatch.registry.crew.get() and waiting.waits.get():
                self.dispatch.relieve(waiting)
        elif not leaving and self.must_replace():
            self._hire()

    @atomically(name="hive_task.fill")
    def fill_gaps(self) -> None:
        """Hire those who could not be started, for want of threads."""
        dispatch = self.dispatch
        if dispatch.phase.get() == "running" and len(self.regular()) < (least := self.limits.get().minimum):
            self.resize(least, "instead of workers that could not start")
        if dispatch.queued() > 0:
            for worker in dispatch.registry.crew.get():
                if worker.waits.get():
                    dispatch.put_down(worker)
                    dispatch.relieve(worker)

    def must_replace(self) -> bool:
        """Part of a transaction: is there, or may there come, work for another worker?"""
        return self.dispatch.phase.get() == "running" or self.dispatch.queued() > 0

    @atomically(name="hive_task.loss")
    def note_loss(self) -> None:
        """A process has died."""
        self.dispatch.registry.lost.set(self.dispatch.registry.lost.get() + 1)

    @atomically(name="hive_task.rerun")
    def rerun(self, me: Worker, future: Future[Any], pace: float) -> Any:
        """Queue a work again whose process has died, and begin another: that, None, or `LEAVE`."""
        (_, _, dropped, below), *others = me.desk.get()  # type: ignore[misc]
        me.desk.set((below, *others))
        if not dropped:
            self.dispatch.give_back((future,))
        return self.dispatch.begin(me, pace)

    # Works that run too long.

    def drop_overdue(self, at: float) -> None:
        """Give up the works whose time is over."""
        for future, callbacks in self._drop_overdue(at):
            log.warning("%r exceeded its time limit", future)
            future._tell_safely(callbacks)

    @atomically(name="hive_task.overdue")
    def _drop_overdue(self, at: float) -> Told:
        told: Told = []
        for worker in self.dispatch.registry.crew.get():
            for future, began, dropped, _ in on_stack(worker.desk.get()[0]):
                work = future._work
                limit = None if work is None or dropped else work.options.time_limit
                if limit is not None and began + limit <= at:
                    told.append((future, self._drop(worker, future)))
        return told

    def _drop(self, worker: Worker, future: Future[Any]) -> Callbacks:
        work = future._work
        assert work is not None
        stack, tray, count, finished, failed, leaving, notes = worker.desk.get()
        worker.desk.set((_without(stack, future), tray, count, finished, failed + 1, leaving, notes))
        error = WorkTimeout(f"{work!r} exceeded its time limit of {work.options.time_limit:g} s on {worker.name}")
        callbacks = future._end((FAILED, error))
        if work.options.kind == "process":
            on_commit(_stop_child, worker, future)
            return callbacks
        self.notify(worker, SystemEvent("overdue", error))
        self.dispatch.send_away(worker)
        self._replace(worker, leaving)
        return callbacks

    def notify(self, worker: Worker, event: SystemEvent) -> None:
        """Send a message to a worker's port, after the commit; whether that works is not the scheduler's concern."""
        on_commit(_post, worker, event)

    # A fork.

    @atomically(name="hive_task.fork")
    def leave_behind(self) -> None:
        """In a process that was forked off, which has none of the threads: whoever waits is told."""
        dispatch = self.dispatch
        if dispatch.phase.get() in ("new", "stopped"):
            return
        error = WorkerLost(f"scheduler {dispatch.name!r} did not come along into the process that os.fork made")
        crew = dispatch.registry.crew.get()
        begun = [entry[0] for worker in crew for entry in on_stack(worker.desk.get()[0]) if not entry[2]]
        lost = (*dispatch.queued_works(), *begun)
        for future in lost:
            future._var.set((FAILED, error))
            future.__dict__.pop("standard", None)  # its lock may be held by a thread that is not here
        for worker in crew:
            dispatch.registry.leave(worker)
        finished, failed, profile = dispatch.registry.past.get()
        dispatch.registry.past.set((finished, failed + len(lost), profile))
        dispatch.gate.clear()
        dispatch.phase.set("stopped")


def is_given_up(desk: Desk) -> bool:
    """Has the worker nothing in hand but what was given up, and nobody knows how long that will run?"""
    return desk[0] is not None and all(entry[2] for entry in on_stack(desk[0]))


def _without(stack: Stack | None, future: Future[Any]) -> Stack | None:
    """The stack, with this work marked as given up."""
    assert stack is not None
    one, began, dropped, below = stack
    if one is future:
        return (one, began, True, below)
    return (one, began, dropped, _without(below, future))


def _stop_child(worker: Worker, future: Future[Any]) -> None:
    """Kill the process that runs a work that was given up. The process first, then the desk: a worker who ends such a
    work dismisses its process, so what is read here is that one, if the desk still shows the work. If there is none
    yet, the worker will see, when he has it, that the work was given up."""
    child, stack = worker.child, worker.desk.peek()[0]
    if child is not None and stack is not None and stack[0] is future:
        child.kill()


def _post(worker: Worker, event: SystemEvent) -> None:
    if worker.post is not None:
        try:
            send_message(worker.post, event, block=False)
        except Exception as error:
            log.warning("%s could not be told %r: %r", worker.name, event.kind, error)
