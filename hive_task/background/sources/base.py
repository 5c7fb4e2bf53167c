"""`DataSource`: where background tasks are kept. To make one, override three methods; a durable one overrides more.

The three are `enqueue_task`, `dequeue_task` and `schedule_task`. Everything else has a default that makes do with them:
an application over such a source runs tasks, in order, at their time, with retries; it does not survive a crash, and
can tell little. `MemoryQueue` and `SQLiteQueue` override all of it, and promise:

P1. *Acknowledged is kept.* When `enqueue_task` or another method that changes something returns, the change has been
    made, as durably as the source is; when it raises, nothing has been changed.
P2. *One owner.* A task is handed to one claimant at a time, under a claim with a fresh epoch. `settle_tasks` and the
    others take no word from who holds an older claim: they say False, and change nothing.
P3. *Nobody's task is lost.* A claim is a lease: it is renewed while the task runs. Of one that has expired, or whose
    worker is known to be dead, the task is queued again by `tend`, its crashes counted; after `CRASHES` of them it is a
    dead letter.
P4. *Order.* Of the tasks that may run, the one with the highest priority first; among equals, the one that was put in
    first. Not before its time, not while its queue is paused, not before what it comes `after`, and never more at once
    than its limit allows.
P5. *What waits, waits here.* Scheduled tasks are kept by the source, never in a worker's memory.
P6. *Known ids change nothing.* Putting in a task whose id is known, or whose unique key is taken, has no effect; the
    answer is the id of the one that is there.

All methods may be called by any thread at any time. `app` is the application that calls, or None; sources may use its
`identity`. Errors: `UnserializableData` for what can't be kept, `SourceError` for what goes wrong with the store.

A source of one's own:

>>> from collections import deque
>>> from hive_task.background import Task, start_application, stop_application, task, execute_task
>>> class Shelf(DataSource):
...     def __init__(self):
...         self.tasks = deque()
...     def enqueue_task(self, task, *, app=None):
...         self.tasks.append(task)
...     def dequeue_task(self, *, app=None):
...         return self.tasks.popleft() if self.tasks else None
...     def schedule_task(self, time, task, *, app=None):
...         self.tasks.append(task.at(time))
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hive_task.background.tasks import (
    CANCELLED,
    DEAD,
    DONE,
    QUEUED,
    SCHEDULED,
    Claim,
    End,
    Failure,
    Record,
    Task,
    simple_task,
)

if TYPE_CHECKING:
    from hive_task.background.application import Application

#: Seconds between two looks into a source that can't tell when there is something new.
LOOKING = 0.02

#: What is known of a task that a source without claims has handed out.
FIRST = Claim("", 1, 1, 0.0)


class DataSource:
    """Where tasks are kept. The first three methods are to be overridden; for the others see the module."""

    #: Does it keep records: `find_task` and what follows it here?
    keeps_records = False
    #: Is what it does in a transaction (`stm`) a part of that? If not, applications put tasks in after the commit.
    transactional = False
    #: Seconds for which a task is claimed before it must be renewed; None: until it is settled.
    lease: float | None = None
    #: What times are taken from: `time()` and `monotonic()`.
    clock: Any = time

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """A source that is derived from another one, and puts tasks in in its own way, does so with calls, too."""
        super().__init_subclass__(**kwargs)
        if {"enqueue_task", "enqueue_tasks"} & vars(cls).keys() and "enqueue_call" not in vars(cls):
            cls.enqueue_call = DataSource.enqueue_call  # type: ignore[method-assign] # by way of `enqueue_task`

    # What every source must do.

    def enqueue_task(self, task: Task, *, app: Application | None = None) -> str | None:
        """Put in a task, to run as soon as may be. Returns the id of the task that is there (P6); None: this one's."""
        raise NotImplementedError(f"{type(self).__name__} must override enqueue_task(task, *, app=None)")

    def dequeue_task(self, *, app: Application | None = None) -> Task | None:
        """Take the next task that may run now; None if there is none."""
        raise NotImplementedError(f"{type(self).__name__} must override dequeue_task(*, app=None)")

    def schedule_task(self, time: float, task: Task, *, app: Application | None = None) -> str | None:
        """Put in a task, to run not before `time`, in Unix seconds."""
        raise NotImplementedError(f"{type(self).__name__} must override schedule_task(time, task, *, app=None)")

    def enqueue_call(self, name: str, data: Any, queue: str, *, app: Application | None = None) -> str:
        """Put in a task that has nothing but a name, data and a queue, all of which have been checked. Its new id.

        What `execute_task` does with most tasks; sources may have a quicker way for it."""
        task = simple_task(name, data, queue, 0)
        return self.enqueue_task(task, app=app) or task.id

    # Many at once.

    def enqueue_tasks(self, tasks: Sequence[Task], *, app: Application | None = None) -> list[str]:
        """Put in several tasks, all or none where the source can. Those with a time (`due`) are scheduled."""
        ids = []
        for task in tasks:
            if task.due is None:
                known = self.enqueue_task(task, app=app)
            else:
                known = self.schedule_task(task.due, task, app=app)
            ids.append(known or task.id)
        return ids

    def dequeue_tasks(self, limit: int, *, app: Application | None = None) -> list[Task]:
        """Take at most so many tasks that may run now."""
        tasks: list[Task] = []
        while len(tasks) < limit and (task := self.dequeue_task(app=app)) is not None:
            tasks.append(task)
        return tasks

    # What has become of those that were taken.

    def complete_task(self, task: Task, result: Any = None, *, app: Application | None = None) -> bool:
        """The claimed task is done. False, and nothing changed, if it is the caller's no more (P2)."""
        return True

    def fail_task(
        self, task: Task, failure: Failure, *, retry_at: float | None = None, app: Application | None = None
    ) -> bool:
        """A run of the claimed task has failed: try it again at that time; None: for good, it is a dead letter."""
        if retry_at is not None:
            worker, epoch, attempt, _ = task.claim or FIRST
            self.schedule_task(retry_at, task.claimed(Claim(worker, epoch + 1, attempt + 1, retry_at)), app=app)
        return True

    def release_task(self, task: Task, *, app: Application | None = None) -> bool:
        """The claimed task was not run after all: as if it had not been taken."""
        self.enqueue_task(task, app=app)
        return True

    def settle_tasks(self, ends: Sequence[End], *, app: Application | None = None) -> list[bool]:
        """Several of these at once; for each, whether it was accepted."""
        return [self._settle(end, app) for end in ends]

    def settle_and_dequeue(
        self, ends: Sequence[End], limit: int, *, app: Application | None = None
    ) -> tuple[list[bool], list[Task]]:
        """Settle these, and take at most so many; in one step where the source can, for that is what workers do."""
        return self.settle_tasks(ends, app=app) if ends else [], self.dequeue_tasks(limit, app=app)

    def _settle(self, end: End, app: Application | None) -> bool:
        if end.outcome == DONE:
            return self.complete_task(end.task, end.result, app=app)
        if end.outcome == QUEUED:
            return self.release_task(end.task, app=app)
        failure = end.failure or Failure(end.outcome, "")
        if end.outcome == SCHEDULED:
            return self.fail_task(end.task, failure, retry_at=end.retry_at, app=app)
        assert end.outcome in (DEAD, CANCELLED), end.outcome
        return self.fail_task(end.task, failure, app=app)

    def renew_leases(self, tasks: Iterable[Task], *, app: Application | None = None) -> set[str]:
        """The claimed tasks are being worked at still. The ids of those that are the caller's no more, or that somebody
        wants to be cancelled: their runs should end."""
        return set()

    # Waiting and housekeeping.

    def wait_for_work(self, timeout: float | None, *, app: Application | None = None) -> None:
        """Sleep until there may be something to take, at most so many seconds; less is no error."""
        time.sleep(LOOKING if timeout is None else min(LOOKING, timeout))

    def tend(self, *, app: Application | None = None) -> float | None:
        """Do what is due: queue tasks whose time has come, and those whose worker is dead. In how many seconds to call
        again at the latest; None: when something has been put in."""
        return None

    def wait_for_change(self, timeout: float, *, app: Application | None = None) -> None:
        """Sleep until `tend` may have something to do sooner than it said, at most so many seconds; less is no
        error."""
        if app is not None:
            app.await_stop(timeout)
        else:
            time.sleep(min(LOOKING, timeout))

    def wake(self) -> None:
        """Let everybody return from `wait_for_work` and `wait_for_change`."""

    def close(self) -> None:
        """Give back files and threads. The source can't be used after that. Nothing happens if that has been done."""

    # What can be asked, and done by hand.

    def find_task(self, id: str) -> Record | None:
        """What has become of a task; None if it is not known (any more)."""
        raise self._tells_nothing("find_task")

    def list_tasks(
        self, *, state: str | None = None, queue: str | None = None, name: str | None = None, limit: int = 100
    ) -> list[Record]:
        """Records, the newest first."""
        raise self._tells_nothing("list_tasks")

    def count_tasks(self) -> Mapping[str, Mapping[str, int]]:
        """How many tasks there are, by queue and state; states and queues without tasks may be left out."""
        raise self._tells_nothing("count_tasks")

    def await_end(self, id: str, timeout: float | None = None) -> Record | None:
        """Wait until the task has ended, at most so many seconds; its record then, whatever its state."""
        raise self._tells_nothing("await_end")

    def set_progress(self, task: Task, progress: Any) -> bool:
        """What a running task has to say of itself. False if it is the caller's no more."""
        raise self._tells_nothing("set_progress")

    def cancel_task(self, id: str) -> bool:
        """Cancel a task that has not begun: True, at once. Of one that runs, its end is asked for (`renew_leases` tells
        its owner): True as well. False if it has ended, or is not known."""
        raise self._tells_nothing("cancel_task")

    def retry_task(self, id: str) -> bool:
        """Queue a dead or cancelled task again, as if it were new. False if it is neither."""
        raise self._tells_nothing("retry_task")

    def cancel_tasks(self, ids: Iterable[str]) -> list[bool]:
        """Cancel several; for each, what `cancel_task` says."""
        return [self.cancel_task(id) for id in ids]

    def retry_tasks(self, ids: Iterable[str]) -> list[bool]:
        """Queue several again; for each, what `retry_task` says."""
        return [self.retry_task(id) for id in ids]

    def pause_queue(self, queue: str) -> None:
        """Hand out nothing of this queue any more. What runs goes on."""
        raise self._tells_nothing("pause_queue")

    def resume_queue(self, queue: str) -> None:
        raise self._tells_nothing("resume_queue")

    def paused_queues(self) -> frozenset[str]:
        raise self._tells_nothing("paused_queues")

    def purge(self, before: float, *, states: Iterable[str] = (DONE, CANCELLED)) -> int:
        """Forget tasks that ended in one of these states before that time; how many."""
        raise self._tells_nothing("purge")

    def _tells_nothing(self, name: str) -> NotImplementedError:
        return NotImplementedError(f"{type(self).__name__} keeps no records: it does not offer {name}()")
