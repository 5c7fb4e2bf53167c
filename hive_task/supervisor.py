"""The supervisor: one thread of a scheduler that looks after time limits and the number of workers.

It sleeps in one transaction until `Dispatch.alarm` says that it is time, or somebody sets the alarm earlier: a work
with a time limit that begins, a work that found nobody idle. Nothing of what it does lies on the way of a work. With
nothing to do it doesn't wake up at all; two rounds are at least `run_interval` seconds apart.

What it decides is in `Staff` (whom to give up) and in the policy's `scale` (how many workers); here it is measured.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Any

from hive_task.errors import HiveTaskError
from hive_task.hardware import Hardware, Usage, detect, usage
from hive_task.queues import now
from hive_task.registry import on_stack
from hive_task.scaling import Decision, Load, next_look
from stm import TransactionTimeout, atomically, retry, run

if TYPE_CHECKING:
    from hive_task.staff import Staff

log = logging.getLogger(__name__)


class Supervisor:
    """Looks after the workers of `staff`, in a thread of its own once it is started."""

    def __init__(self, staff: Staff, run_interval: float) -> None:
        self.staff = staff
        self.dispatch = staff.dispatch
        self.run_interval = run_interval
        self.thread: threading.Thread | None = None
        self._gauge = Gauge(staff)
        self._look_at = 0.0

    def start(self) -> None:
        self.thread = threading.Thread(target=self._run, name=f"{self.dispatch.name}-supervisor", daemon=True)
        self.thread.start()
        self.staff.threads.add(self.thread)

    def _run(self) -> None:
        last = -inf
        while True:
            phase, alarm = run(self._orders)
            if phase == "stopped":
                return
            due = max(alarm, last + self.run_interval) if alarm < inf else inf
            span = due - time.monotonic()
            if span > 0:
                try:
                    run(self._await_change, phase, alarm, timeout=None if due == inf else span, name="hive_task.alarm")
                except TransactionTimeout:
                    pass
                continue
            last = time.monotonic()
            try:
                self.round(last)
            except BaseException:  # a callback's `SystemExit`, say: the works of others still have time limits
                log.exception("the supervisor of %s failed in a round; it goes on", self.dispatch.name)

    def _orders(self) -> tuple[str, float]:
        return self.dispatch.phase.get(), self.dispatch.alarm.get()

    def _await_change(self, phase: str, alarm: float) -> None:
        if self._orders() == (phase, alarm):
            retry()

    def round(self, at: float) -> None:
        """One look at everything, at a time of `time.monotonic`."""
        self._set_alarm(inf)  # first: whoever sets it from here on is heard in the next round
        try:
            self.staff.drop_overdue(at)
            self.staff.fill_gaps()
            limits = self.staff.limits.get()
            asked = self.dispatch.scale_now.swap(False) or at >= self._look_at
            if asked and limits.minimum < limits.maximum and self.dispatch.phase.get() == "running":
                self._look_at = at + 1.0  # should the policy fail
                self._scale()
        finally:
            self._set_next_alarm()

    def _set_alarm(self, at: float) -> None:
        self.dispatch.alarm.set(at)

    @atomically(name="hive_task.alarm")
    def _set_next_alarm(self) -> None:
        """Look again when the next work's time will be over, or the number of workers is to be looked at."""
        at = self._look_at if self._look_at > 0 else inf
        for worker in self.dispatch.registry.crew.get():
            for future, began, dropped, _ in on_stack(worker.desk.get()[0]):
                work = future._work
                if work is not None and not dropped and work.options.time_limit is not None:
                    at = min(at, began + work.options.time_limit)
        self.dispatch.wake_supervisor(at)

    def _scale(self) -> None:
        load = self._gauge.read()
        decision = self.dispatch.policy.scale(load)
        if not isinstance(decision, Decision):
            raise HiveTaskError(
                f"{type(self.dispatch.policy).__name__}.scale() must return a Decision, not {decision!r}"
            )
        if decision.workers != load.workers:
            number = min(max(decision.workers, load.limits.minimum), load.limits.maximum)
            run(self.staff.resize, number, decision.reason, True, name="hive_task.scale")
            self._gauge.changed()
        log.debug("%s: %s", self.dispatch.name, decision.reason)
        span = next_look(load)
        self._look_at = inf if span is None else time.monotonic() + span
        run(self._watch, load.short, name="hive_task.watch")

    def _watch(self, short: bool) -> None:
        """Have the next work that finds nobody idle wake the supervisor, unless he looks soon in any case."""
        gate = self.dispatch.gate
        run = gate.back.get()
        base = now(run)
        if not base.open:
            return
        if not short and not base.idle and self.dispatch.queued() > 0:  # it has come since he looked
            self.dispatch.wake_supervisor(time.monotonic(), scale=True)
        elif base.watched == short:
            gate.store(run, base._replace(watched=not short))


class Gauge:
    """Measures the load: what happened since it was read last."""

    def __init__(self, staff: Staff) -> None:
        self.staff = staff
        self.hardware: Hardware | None = None
        self._usage: Usage | None = None
        self._busy = 0.0
        self._done: tuple[int, int] = (0, 0)
        now_ = time.monotonic()
        self._progress = self._change = self._shortage = now_

    def changed(self) -> None:
        self._change = time.monotonic()

    def read(self) -> Load:
        hardware = self.hardware = self.hardware or detect()
        at = time.monotonic()
        raw: dict[str, Any] = run(self._count, at, read_only=True, name="hive_task.load")
        used = usage(raw.pop("processes"))
        busy, done = raw.pop("seconds"), raw.pop("done")
        if self._usage is None:
            cpu, machine, interval, share = 0.0, None, 0.0, 0.0
        else:
            cpu, machine = used.since(self._usage)
            interval = used.at - self._usage.at
            share = (
                min(1.0, max(0.0, (busy - self._busy) / (interval * max(1, raw["workers"])))) if interval > 0 else 0.0
            )
        if done != self._done:
            self._progress = at
        load = Load(
            **raw,
            busy=share,
            cpu=cpu,
            cpus=hardware.cpus,
            machine=machine,
            gil=hardware.gil,
            interval=interval,
            since_change=at - self._change,
            since_progress=at - self._progress,
        )
        if load.short:
            self._shortage = at
        self._usage, self._busy, self._done = used, busy, done
        return replace(load, idle_for=at - self._shortage)

    def _count(self, at: float) -> dict[str, Any]:
        """Part of a transaction: what can be counted."""
        dispatch = self.staff.dispatch
        base = now(dispatch.gate.back.get())
        running = waiting = 0
        past = dispatch.registry.past.get()
        ended, seconds, profile = past[0] + past[1], past[2].seconds, past[2]
        processes = []
        for worker in dispatch.registry.crew.get():
            stack, _, _, finished, failed, _, notes = worker.desk.get()
            ended += finished + failed
            own = worker.profile.get().noting(notes)
            profile = profile.joined(own)
            seconds += own.seconds
            for _, began, dropped, below in on_stack(stack):
                if not dropped:
                    running += 1
                    if below is None:
                        seconds += at - began
            waiting += worker.waits.get() > 0
            if worker.child is not None:
                processes.append(worker.child.pid)
        queued = max(0, dispatch.queued())
        oldest = next(iter(dispatch.queued_works()), None) if queued else None
        ended_works = sum(profile.durations.counts)
        return {
            "limits": self.staff.limits.get(),
            "workers": len(self.staff.regular()),
            "idle": sum(1 for one in base.idle if not one.waits.get()),
            "queued": queued,
            "running": running,
            "waiting": waiting,
            "oldest_wait": 0.0 if oldest is None else at - oldest._put_at,
            "guess": queued * profile.seconds / ended_works if ended_works else None,
            "processes": processes,
            "seconds": seconds,
            "done": (ended, base.submitted - queued),
        }
