"""`task_runner` and `task_scheduler`: the two loops of an application's workers, either of which can be replaced.

A loop is a function of the application, which returns when `app.is_running()` is false. What these two do can be called
by others: `app.desk.next_task`, `run_task`, `app.desk.ended`, `app.desk.leave`; `app.data_source.tend`,
`app.desk.renew`, `Periodic`. A runner that knows nothing of desks works as well:

    def task_runner(app):
        while app.is_running():
            task = dequeue_task(app)
            if task is None:
                app.data_source.wait_for_work(1.0, app=app)
            else:
                app.data_source.settle_tasks([run_task(app, task, time.time)], app=app)
"""

from __future__ import annotations

import logging
from math import inf
from typing import TYPE_CHECKING

from hive_task.background.periodic import slot_id
from hive_task.background.running import run_task

if TYPE_CHECKING:
    from hive_task.background.application import Application

log = logging.getLogger(__name__)

#: Seconds between two rounds of housekeeping, at most: the clock may jump, and whoever runs a task must hear soon that
#: it is to be cancelled.
ROUND = 1.0
#: Rounds within a lease.
ROUNDS = 3


def task_runner(app: Application) -> None:
    """Run one task after the other. As many workers run this as the application was told to have."""
    desk, clock = app.desk, app.data_source.clock
    try:
        while (task := desk.next_task()) is not None:
            began = clock.monotonic()
            end = run_task(app, task, clock.time)
            desk.ended(end, clock.monotonic() - began)
    finally:
        desk.leave()


def task_scheduler(app: Application) -> None:
    """See to what has its time: scheduled tasks, leases, periodic tasks. One worker runs this."""
    source, periodic = app.data_source, Periodic(app)
    longest = ROUND if source.lease is None else min(ROUND, source.lease / ROUNDS)
    while app.is_running():
        try:
            app.desk.renew()  # first: if this process was stopped for long, its leases are over, but its tasks run
            seconds = source.tend(app=app)
            wait = min(longest, periodic.plan(), inf if seconds is None else seconds)
            source.wait_for_change(max(0.0, wait), app=app)
        except Exception:
            log.exception("%s: housekeeping failed, tried again in %.3g s", app.name, ROUND)
            app.await_stop(ROUND)


class Periodic:
    """The periodic tasks that an application knows. The next firing of each lies in the data source, as a scheduled
    task whose id names the firing: so it comes once, however many applications plan it, and also if nobody ran at its
    time; then it comes late, and those after it that were missed do not come.
    """

    def __init__(self, app: Application) -> None:
        self._app = app
        self._planned: dict[str, float] = {}

    def plan(self) -> float:
        """Put in what comes next. In how many seconds to look again."""
        app = self._app
        wait = inf
        for name, definition in app.registry.items():
            if definition.schedule is None:
                continue
            now = app.data_source.clock.time()
            slot = definition.schedule.after(now)
            if slot is None:
                continue
            if self._planned.get(name) != slot:
                task = definition.make(definition.data, id=slot_id(name, slot), due=slot)
                if app.data_source.schedule_task(slot, task, app=app) in (None, task.id):
                    self._planned[name] = slot  # else its unique key is somebody's still: tried again
            wait = min(wait, slot - now)
        return wait
