"""Help for tests of programs that use background tasks: without threads, without waiting.

- `drain(app)` runs everything that may run now, in the calling thread, until nothing is left. The application need not
  be started.
- `eager(app)`: within it, each task is run by the very call that puts it in.
- `ManualClock`: times that the test decides. Give it to the data source.

>>> from hive_task.background import Application, ManualClock, MemoryQueue, execute_task, execute_task_at, task, tasks
>>> @task("example.note")
... def note(data, *, time):
...     return f"{data} at {time:.0f}"
>>> clock = ManualClock(1000.0)
>>> app = Application(MemoryQueue(clock=clock))
>>> soon, later = execute_task(app, "example.note", "soon"), execute_task_at(app, 2000.0, "example.note", "later")
>>> drain(app), soon.result(), later.state
(1, 'soon at 1000', 'scheduled')
>>> clock.advance(1000.0)
>>> drain(app), later.result()
(1, 'later at 2000')
>>> with eager(app):
...     execute_task(app, "example.note", "at once").result()
'at once at 2000'
>>> tasks.forget("example.note")
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

from hive_task.background.application import Application
from hive_task.background.clocks import ManualClock
from hive_task.background.definition import Definition
from hive_task.background.handle import Handle
from hive_task.background.running import run_task
from hive_task.background.tasks import Task

__all__ = ["ManualClock", "drain", "eager"]


def drain(app: Application, *, most: int = 10_000) -> int:
    """Run what may run now, and what becomes so by that, one after the other; how many runs that were.

    Retries and scheduled tasks come when the source's clock says so. `RuntimeError` after `most` runs: tasks that put
    in others for ever are a mistake. Tasks with a time limit or of kind "process" need the application to be started.
    """
    source = app.data_source
    for number in range(most):
        source.tend(app=app)
        tasks = source.dequeue_tasks(1, app=app)
        if not tasks:
            return number
        source.settle_tasks([run_task(app, tasks[0], source.clock.time)], app=app)
    raise RuntimeError(f"{most} tasks have run, and there are still more; do they put in each other?")


@contextmanager
def eager(app: Application) -> Iterator[None]:
    """Run tasks at once, in the thread and by the call that puts them in (after the commit, in a transaction)."""
    put = app._put

    def put_and_drain(tasks: Sequence[Task]) -> list[Handle]:
        handles = put(tasks)
        drain(app)
        return handles

    def put_as_others(definition: Definition, data: Any) -> Handle:
        return app.put_one(definition.make(data))

    with mock.patch.object(app, "_put", put_and_drain), mock.patch.object(app, "put_call", put_as_others):
        yield
