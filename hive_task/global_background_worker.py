"""One background application for the whole process, kept inside: for programs that need no more than one.

>>> from hive_task import global_background_worker as background
>>> from hive_task.background import MemoryQueue, task, tasks
>>> @task("example.add")
... def add(data, *, time):
...     return sum(data)
>>> app = background.start_application(data_source=MemoryQueue())
>>> background.execute_task("example.add", [1, 2]).result()
3
>>> background.stop_application()
>>> tasks.forget("example.add")
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from hive_task import background
from hive_task.background import Application, DataSource, Handle
from hive_task.errors import ApplicationStopped
from stm import TVar

_application: TVar[Application | None] = TVar(None, name="the global background application")


def start_application(*, number_of_workers: int = 1, data_source: DataSource) -> Application:
    """Start the application, and return it. `RuntimeError` if it runs already."""
    made = Application(data_source, number_of_workers, name="global background")
    if not _application.compare_and_set(None, made):
        raise RuntimeError("the global background application runs already; stop it first")
    try:
        made.start()
    except BaseException:
        _application.compare_and_set(made, None)
        raise
    return made


def stop_application() -> None:
    """Stop the application, and wait for the tasks that run. Nothing happens if none runs. Its data source stays
    open."""
    running = _application.get()
    if running is not None:
        running.stop()
        _application.compare_and_set(running, None)


def application() -> Application:
    """The application. `ApplicationStopped` if there is none."""
    running = _application.get()
    if running is None:
        raise ApplicationStopped(
            "no global background application runs; call global_background_worker.start_application(data_source=...)"
        )
    return running


def execute_task(name: str, data: Any = None, **options: Any) -> Handle:
    """Have the task of that name run with `data`, as soon as may be. `options`: fields of `Task`."""
    return background.execute_task(application(), name, data, **options)


def execute_task_at(time: float | datetime, name: str, data: Any = None, **options: Any) -> Handle:
    """The same, not before that time: an aware `datetime`, or Unix seconds."""
    return background.execute_task_at(application(), time, name, data, **options)
