"""How a claimed task is run, and what becomes of what it returns or raises.

Promises: whatever a task raises, a `SystemExit` included, ends that run and nothing else; what follows is decided by
`after_failure`, a pure function of the registration and the attempt. A task can ask about itself, and say how far it
is:

>>> from hive_task.background import current_task, task
>>> @task("example.count")
... def count(data, *, time):
...     for number in range(data):
...         current_task().raise_if_cancelled()
...         current_task().set_progress(number / data)
>>> from hive_task.background import tasks
>>> tasks.forget("example.count")
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from hive_task.background.definition import Definition
from hive_task.background.tasks import CANCELLED, CRASHES, DEAD, DONE, SCHEDULED, End, Failure, Task
from hive_task.errors import TaskCancelled, UnknownTask, WorkerLost
from hive_task.work import Work

if TYPE_CHECKING:
    from hive_task.background.application import Application

log = logging.getLogger(__name__)

#: Seconds after which a task that is not registered here is tried again; and how often before it is a dead letter.
UNKNOWN_AGAIN = 30.0
UNKNOWN_TIMES = 10

_current: ContextVar[CurrentTask | None] = ContextVar("current task", default=None)


class RetryLater(Exception):
    """Raised by a task: this run came to nothing; try again in so many seconds (None: as its back-off says). Counts as
    an attempt, so `retries` bounds it."""

    def __init__(self, seconds: float | None = None) -> None:
        super().__init__("to be tried again" if seconds is None else f"to be tried again in {seconds} s")
        self.seconds = seconds


class CurrentTask:
    """What a task can know of itself while it runs. See `current_task`."""

    __slots__ = ("_app", "_cancelled", "task")

    def __init__(self, app: Application, task: Task) -> None:
        self._app = app
        self.task = task
        self._cancelled = False

    @property
    def id(self) -> str:
        return self.task.id

    @property
    def name(self) -> str:
        return self.task.name

    @property
    def attempt(self) -> int:
        """Which run this is, counted from 1."""
        return 1 if self.task.claim is None else self.task.claim.attempt

    @property
    def cancelled(self) -> bool:
        """Should it end? Somebody cancelled it, its time is over, or it is not this worker's any more."""
        return self._cancelled

    def raise_if_cancelled(self) -> None:
        """Raise `TaskCancelled` if it should end."""
        if self._cancelled:
            raise TaskCancelled(f"{self.name} {self.id} was cancelled while it ran")

    def cancel(self) -> None:
        self._cancelled = True

    def set_progress(self, progress: Any) -> None:
        """Keep this with the task's record, for whoever asks how far it is. A write to the data source each time."""
        if not self._app.data_source.set_progress(self.task, progress):
            self._cancelled = True

    def result_of(self, id: str) -> Any:
        """What a task that this one came after has returned; None if it did not end well. `UnknownTask` if
        forgotten."""
        record = self._app.data_source.find_task(id)
        if record is None:
            raise UnknownTask(f"no task {id!r} is known (any more)")
        return record.result


def current_task() -> CurrentTask | None:
    """The task that the calling code is part of; None outside, and in a process of its own (`kind="process"`)."""
    return _current.get()


def run_task(app: Application, task: Task, now: Callable[[], float]) -> End:
    """Run a claimed task, and say how it ended. Raises nothing but what strikes this thread from outside."""
    try:
        definition = app.registry[task.name]
    except UnknownTask as error:
        # (Another program, or the next version of this one, may know it.)
        log.error("%s %s: %s", task.name, task.id, error)
        failure = Failure(_kind(error), str(error))
        if task.claim is not None and task.claim.attempt >= UNKNOWN_TIMES:
            return End(task, DEAD, failure=failure)
        return End(task, SCHEDULED, failure=failure, retry_at=now() + UNKNOWN_AGAIN)
    current = CurrentTask(app, task)
    app.runs[task.id] = current
    try:
        result = _call(app, definition, task, current)
    except TaskCancelled as error:
        if current.cancelled:
            return End(task, CANCELLED, failure=_failure(error))
        return after_failure(definition, task, error, now())
    except BaseException as error:
        return after_failure(definition, task, error, now())
    finally:
        app.runs.pop(task.id, None)
    return tuple.__new__(End, (task, DONE, result, None, None))  # (`End(...)` takes twice as long)


def after_failure(definition: Definition, task: Task, error: BaseException, now: float) -> End:
    """What is to become of a task, a run of which has raised this: tried again, or a dead letter."""
    failure = _failure(error)
    attempt = 1 if task.claim is None else task.claim.attempt
    retries = definition.retries if task.retries is None else task.retries
    if attempt > retries or isinstance(error, WorkerLost):  # (that was tried again already, as often as it may)
        log.warning("%s %s failed for good, at attempt %d: %s", task.name, task.id, attempt, failure)
        return End(task, DEAD, failure=failure)
    seconds = error.seconds if isinstance(error, RetryLater) else None
    delay = definition.backoff.delay(attempt) if seconds is None else max(0.0, seconds)
    log.info("%s %s failed at attempt %d, next in %.3g s: %s", task.name, task.id, attempt, delay, failure)
    return End(task, SCHEDULED, failure=failure, retry_at=now + delay)


def _call(app: Application, definition: Definition, task: Task, current: CurrentTask) -> Any:
    time_limit = definition.time_limit if task.time_limit is None else task.time_limit
    due = task.due if task.claim is None else task.claim.due
    if due is None:  # (by a source that makes no claims)
        due = app.data_source.clock.time()
    if definition.kind == "process":
        # (A process that dies is a crash of this one task's worker: so it is run again as often as another crash
        # allows.)
        call = (definition.fn, task.data, due)
        options: dict[str, Any] = {"kind": "process", "reruns": CRASHES - 1}
        return app.scheduler.put_work(Work(call_function, call, time_limit=time_limit, **options)).result()
    if time_limit is None:
        return _within(current, definition.fn, task.data, due)
    future = app.scheduler.put_work(Work(_within, (current, definition.fn, task.data, due), time_limit=time_limit))
    try:
        return future.result()
    finally:
        current.cancel()  # if it runs still, its time is over


def _within(current: CurrentTask, fn: Callable[..., Any], data: Any, due: float) -> Any:
    token = _current.set(current)
    try:
        return call_function(fn, data, due)
    finally:
        _current.reset(token)


def call_function(fn: Callable[..., Any], data: Any, due: float) -> Any:
    """Call a task's function; of an `async def` one, run what it returns, in an event loop of its own."""
    result = fn(data, time=due)
    if hasattr(result, "send") and asyncio.iscoroutine(result):  # (the first is quickly asked)
        return asyncio.run(_awaited(result))
    return result


async def _awaited(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return await coroutine


def _failure(error: BaseException) -> Failure:
    return Failure(_kind(error), str(error), "".join(traceback.format_exception(error)))


def _kind(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
