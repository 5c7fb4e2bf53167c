"""Taking the picture of a scheduler: what one transaction reads, made into a `Picture`."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from hive_task.picture import Picture, QueuePicture, RunningWork, Totals, WorkerPicture
from hive_task.queues import now
from hive_task.registry import Worker, on_stack
from hive_task.work import function_name
from stm import run

if TYPE_CHECKING:
    from hive_task.staff import Staff


def survey(staff: Staff) -> Picture:
    """The picture of this moment. Inside a transaction, what the transaction sees."""
    at = time.monotonic()
    raw = run(_read, staff, read_only=True, name="hive_task.monitor")
    return _drawn(staff, raw, max(at, raw["at"]))


def _read(staff: Staff) -> dict[str, Any]:
    """Part of a transaction: everything that a picture shows, as it is."""
    dispatch = staff.dispatch
    gate, registry = dispatch.gate, dispatch.registry
    crew = registry.crew.get()
    return {
        "phase": dispatch.phase.get(),
        "base": now(gate.back.get()),
        "common": gate.length(),
        "urgent": tuple(-negative for negative, _, _ in gate.urgent.snapshot()),
        "ghosts": gate.ghosts.get(),
        "cancelled": dispatch.cancelled.get(),
        "crew": [(worker, worker.desk.get(), worker.profile.get(), worker.waits.get()) for worker in crew],
        "past": registry.past.get(),
        "lost": registry.lost.get(),
        "limits": staff.limits.get(),
        "changes": staff.changes.get(),
        "opened": staff.opened.get(),
        "at": time.monotonic(),
    }


def _drawn(staff: Staff, raw: dict[str, Any], at: float) -> Picture:
    base, limits = raw["base"], raw["limits"]
    finished, failed, profile = raw["past"]
    running = on_trays = 0
    workers = []
    queues = [QueuePicture("common", raw["common"])]
    for priority, many in sorted(Counter(raw["urgent"]).items(), reverse=True):
        queues.append(QueuePicture(f"priority {priority}", many, priority))
    for worker, desk, own, waits in raw["crew"]:
        stack, _, count, ended_well, ended_badly, _, notes = desk
        own = own.noting(notes)
        finished += ended_well
        failed += ended_badly
        running += sum(1 for entry in on_stack(stack) if not entry[2])
        on_trays += count
        profile = profile.joined(own)
        workers.append(_worker(worker, desk, own.seconds, waits, at, worker in base.idle))
        queues.append(QueuePicture(worker.name, count))
    queued = raw["common"] + len(raw["urgent"]) + on_trays - raw["ghosts"]
    totals = Totals(base.submitted, queued, running, finished, failed, raw["cancelled"])
    return Picture(
        name=staff.dispatch.name,
        state=raw["phase"],
        taken=time.time(),
        uptime=at - raw["opened"] if raw["opened"] else 0.0,
        totals=totals,
        workers=tuple(workers),
        queues=tuple(queues),
        minimum=limits.minimum,
        maximum=limits.maximum,
        lost_workers=raw["lost"],
        waits=profile.waits.percentiles(),
        durations=profile.durations.percentiles(),
        functions=profile.functions,
        changes=raw["changes"],
    )


def _worker(worker: Worker, desk: Any, seconds: float, waits: int, at: float, idle: bool) -> WorkerPicture:
    stack, _, count, finished, failed, leaving, _ = desk
    works = []
    for place, (future, began, _, below) in enumerate(on_stack(stack)):
        work = future._work
        if below is None:
            seconds += max(0.0, at - began)
        if work is not None:
            category, priority, kind, limit = work.category, work.priority, work.kind, work.time_limit
            waiting = place > 0 or waits > 0
            name = function_name(work.fn)
            works.append(RunningWork(name, max(0.0, at - began), category, priority, kind, limit, waiting))
        else:  # it has ended since
            works.append(RunningWork("(ended)", max(0.0, at - began)))
    works.reverse()
    if any(entry[2] for entry in on_stack(stack)):
        state = "overdue"
    elif leaving:
        state = "leaving"
    elif stack is not None:
        state = "running"
    else:
        state = "idle" if idle else "starting"
    child = worker.child
    return WorkerPicture(
        uuid=worker.uuid,
        name=worker.name,
        state=state,
        works=tuple(works),
        queued=count,
        finished=finished,
        failed=failed,
        busy=seconds,
        age=at - worker.started,
        process=child.pid if child is not None and child.alive else None,
    )
