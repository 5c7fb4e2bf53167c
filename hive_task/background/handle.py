"""`Handle`: a task that was put in, to ask what has become of it.

A handle is an id and a data source, so one can be made for any task at any time: `Handle(app.data_source, id)`. Sources
that keep no records (those that override only three methods) can tell nothing, and say so.

>>> from hive_task.background import MemoryQueue, Task
>>> source = MemoryQueue()
>>> handle = Handle(source, source.enqueue_task(Task("greet")))
>>> handle.state, handle.cancel(), handle.state
('queued', True, 'cancelled')
"""

from __future__ import annotations

from typing import Any

from hive_task.background.sources.base import DataSource
from hive_task.background.tasks import CANCELLED, DEAD, DONE, Record
from hive_task.errors import TaskCancelled, TaskFailed, UnknownTask


class Handle:
    """A task in a data source."""

    __slots__ = ("id", "source")

    def __init__(self, source: DataSource, id: str) -> None:
        self.source = source
        self.id = id

    def record(self) -> Record:
        """All that is known of it now. `UnknownTask` if it is not known (any more)."""
        record = self.source.find_task(self.id)
        if record is None:
            raise UnknownTask(f"no task {self.id!r} is known (any more)")
        return record

    @property
    def state(self) -> str:
        """One of "scheduled", "waiting", "queued", "running", "done", "dead", "cancelled"."""
        return self.record().state

    @property
    def progress(self) -> Any:
        """What it last said of how far it is."""
        return self.record().progress

    def cancel(self) -> bool:
        """Cancel it if it has not begun; ask for its end if it runs. False if it has ended."""
        return self.source.cancel_task(self.id)

    def result(self, timeout: float | None = None) -> Any:
        """Wait until it has ended, and return what it returned. `TaskFailed` if it failed for good, `TaskCancelled`,
        `TimeoutError` after so many seconds, `UnknownTask` if it is not known (any more)."""
        record = self.source.await_end(self.id, timeout)
        if record is None:
            raise UnknownTask(f"no task {self.id!r} is known (any more)")
        if record.state == DONE:
            return record.result
        what = f"{record.task.name} {self.id}"
        if record.state == DEAD:
            raise TaskFailed(f"{what} failed for good: {record.failure}", record.failure)
        if record.state == CANCELLED:
            raise TaskCancelled(f"{what} was cancelled" + (f": {record.failure}" if record.failure else ""))
        raise TimeoutError(f"{what} has not ended within {timeout} s: it is {record.state}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Handle) and other.id == self.id and other.source is self.source

    def __hash__(self) -> int:
        return hash((self.id, id(self.source)))

    def __repr__(self) -> str:
        return f"Handle({self.source!r}, {self.id!r})"
