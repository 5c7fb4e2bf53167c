"""`Application`: background workers over a data source.

A program says that something is to be done, and goes on; the application's workers do it, at its time, again if it
fails, and, if the data source is durable, also after a crash.

Promises
--------
- `execute_task` and its like return when the data source has acknowledged the task, and raise if it has not: an
  unregistered name, data that can't be stored, a time without zone, a failing data source are errors at the call.
- In a transaction (`stm.atomically`) they are a part of it: the task is put in if and when that commits.
- The workers are workers of a scheduler (`Application.scheduler`), which shows them in its monitor. A worker takes
  tasks that last for microseconds several at a time, into a tray that all workers of the application share; the source
  shows these as running, and those that lie there for long are given back.
- A data source that fails does not stop anything: it is tried again, less and less often, and the log says so.
- `stop_application` takes nothing more, lets what runs end, and gives back what it has not begun. So does the end of
  the program.

What "at least once" means here, and how a run that is over is told from one that may be repeated, is a promise of the
data source (`sources.base`).

Cost: a task on `MemoryQueue` some 20 µs, from its putting in to its start 0.1 ms.

>>> from hive_task.background import MemoryQueue, task, tasks
>>> @task("example.add")
... def add(data, *, time):
...     return sum(data)
>>> app = start_application(number_of_workers=2, data_source=MemoryQueue())
>>> execute_task(app, "example.add", [1, 2, 3]).result()
6
>>> stop_application(app)
>>> execute_task(app, "example.add", [])
Traceback (most recent call last):
    ...
hive_task.errors.ApplicationStopped: the background application 'background' is stopped: it takes no tasks
>>> tasks.forget("example.add")
"""

from __future__ import annotations

import atexit
import logging
import uuid
import weakref
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from hive_task.background.definition import Definition, Registry
from hive_task.background.definition import tasks as all_tasks
from hive_task.background.desk import Desk
from hive_task.background.handle import Handle
from hive_task.background.loops import task_runner as run_tasks
from hive_task.background.loops import task_scheduler as schedule_tasks
from hive_task.background.running import CurrentTask
from hive_task.background.sources.base import DataSource
from hive_task.background.tasks import Task, moment
from hive_task.errors import ApplicationStopped
from hive_task.scheduler import Scheduler
from stm import TransactionTimeout, TVar, check, in_transaction, on_commit, run

log = logging.getLogger(__name__)

NEW, RUNNING, STOPPING, STOPPED = "new", "running", "stopping", "stopped"

#: Workers beside those that run tasks: one for `task_scheduler`, one that settles what others have left (`Desk`).
OTHERS = 2

#: Seconds until a loop that has failed is begun again.
ANEW = 1.0

Loop = Callable[["Application"], object]

_running: weakref.WeakSet[Application] = weakref.WeakSet()


class Application:
    """Background workers over a data source; not started yet, it only takes tasks. See the functions of the module.

    `task_runner`, `task_scheduler`: the loops that the workers run, each a function of the application that returns
    when `is_running()` is false (see `loops`).
    """

    def __init__(
        self,
        data_source: DataSource,
        number_of_workers: int = 1,
        *,
        name: str = "background",
        registry: Registry = all_tasks,
        task_runner: Loop = run_tasks,
        task_scheduler: Loop = schedule_tasks,
    ) -> None:
        if not isinstance(data_source, DataSource):
            raise TypeError(f"data_source is an object of a class derived from DataSource, not {data_source!r}")
        if isinstance(number_of_workers, bool) or not isinstance(number_of_workers, int):
            raise TypeError(f"number_of_workers is a whole number, not {number_of_workers!r}")
        if number_of_workers < 1:
            raise ValueError(f"number_of_workers is at least 1, not {number_of_workers}")
        for what, loop in (("task_runner", task_runner), ("task_scheduler", task_scheduler)):
            if not callable(loop):
                raise TypeError(f"{what} is a function of the application, not {loop!r}")
        self.data_source = data_source
        self.number_of_workers = number_of_workers
        self.name = name
        self.registry = registry
        self.task_runner = task_runner
        self.task_scheduler = task_scheduler
        #: Whose claims these are. It is made anew for each application, so nobody is taken for a former one.
        self.identity = uuid.uuid4().hex
        self.phase: TVar[str] = TVar(NEW, name=f"phase of {name}")
        #: Is it stopping, or stopped? (For the desk, which asks before each task.)
        self.ends = False
        self.scheduler = Scheduler(number_of_workers + OTHERS, name=name)
        #: The tasks that run now, by id.
        self.runs: dict[str, CurrentTask] = {}
        self.desk = Desk(self)

    # Starting and stopping.

    def start(self) -> Application:
        """Begin to run tasks. Nothing happens if that has been done; `ApplicationStopped` if it was stopped."""
        if not run(self._begin, name="hive_task.background.start"):
            return self
        _running.add(self)
        self.scheduler.start()
        for _ in range(self.number_of_workers):
            self.scheduler.submit(self._loop, self.task_runner)
        self.scheduler.submit(self._loop, self.task_scheduler)
        self.scheduler.submit(self._loop, Application._settle_late)
        return self

    def _begin(self) -> bool:
        if self.phase.value in (STOPPING, STOPPED):
            raise ApplicationStopped(f"the background application {self.name!r} is {self.phase.value}; make a new one")
        if self.phase.value == RUNNING:
            return False
        self.phase.value = RUNNING
        return True

    def _loop(self, loop: Loop) -> None:
        """Run a loop until it returns; anew if it ends with an exception."""
        while True:
            try:
                loop(self)
                break
            except BaseException:  # (what was thrown into the thread as well: tasks must go on)
                log.critical(
                    "%s: %r ended with an exception, begun again in %g s", self.name, loop, ANEW, exc_info=True
                )
            if self.await_stop(ANEW):
                break
        if not self.is_running():
            try:
                self.desk.clear()
            except Exception:
                log.exception("%s: tasks could not be given back; others get them when their lease is over", self.name)

    def _settle_late(self) -> None:
        self.desk.settle_late()

    def stop(self, *, cancel: bool = False, wait: bool = True) -> None:
        """Take no more tasks, let those that run end, give back what has not begun. Nothing happens if that has been
        done. `cancel`: ask those that run to end (`current_task().cancelled`). `wait`: until all of that is done."""
        self._end()
        if cancel:
            for current in list(self.runs.values()):
                current.cancel()
        self.data_source.wake()
        self.scheduler.shutdown(wait=wait)
        if wait:
            self.phase.set(STOPPED)

    def _end(self) -> None:
        while (phase := self.phase.get()) in (NEW, RUNNING):
            if self.phase.compare_and_set(phase, STOPPING):
                self.ends = True
                return

    def is_running(self) -> bool:
        """Are loops to go on? A part of the caller's transaction, if there is one."""
        return self.phase.get() == RUNNING

    def await_stop(self, timeout: float | None = None) -> bool:
        """Wait until the application is to stop, at most so many seconds. Is it?"""
        try:
            run(lambda: check(not self.is_running()), timeout=timeout, name="hive_task.background.wait")
        except TransactionTimeout:
            return False
        return True

    def __enter__(self) -> Application:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # Putting in.

    def put(self, tasks: Iterable[Task]) -> list[Handle]:
        """Put in tasks, all or none where the source can; those with a time are scheduled. Handles, in order."""
        self._check_open()
        tasks = list(tasks)
        for task in tasks:
            self._check(task)
        if in_transaction() and not self.data_source.transactional:
            on_commit(self._put, tasks)
            return [Handle(self.data_source, task.id) for task in tasks]
        return self._put(tasks)

    def put_one(self, task: Task) -> Handle:
        """Put in a task."""
        self._check_open()
        self._check(task)
        if in_transaction() and not self.data_source.transactional:
            on_commit(self._put, (task,))
            return Handle(self.data_source, task.id)
        return self._put((task,))[0]

    def put_call(self, definition: Definition, data: Any) -> Handle:
        """Put in a task of that kind, of which nothing but the data is special."""
        source = self.data_source
        if not definition.is_bare or (not source.transactional and in_transaction()):
            return self.put_one(definition.make(data))
        self._check_open()
        return Handle(source, source.enqueue_call(definition.name, data, definition.queue, app=self))

    def _check_open(self) -> None:
        if (phase := self.phase.get()) in (STOPPING, STOPPED):
            raise ApplicationStopped(f"the background application {self.name!r} is {phase}: it takes no tasks")

    def _check(self, task: Task) -> None:
        if not isinstance(task, Task):
            raise TypeError(f"a data source takes tasks (see Task), not {task!r}")
        self.registry[task.name]  # must be known

    def _put(self, tasks: Sequence[Task]) -> list[Handle]:
        source = self.data_source
        if len(tasks) != 1:
            return [Handle(source, id) for id in (source.enqueue_tasks(tasks, app=self) if tasks else ())]
        (task,) = tasks
        due = task.due
        id = source.enqueue_task(task, app=self) if due is None else source.schedule_task(due, task, app=self)
        return [Handle(source, id or task.id)]

    def __repr__(self) -> str:
        return (
            f"<Application {self.name!r} {self.phase.peek()}, {self.number_of_workers} workers, {self.data_source!r}>"
        )


def start_application(
    *,
    number_of_workers: int = 1,
    data_source: DataSource,
    name: str = "background",
    registry: Registry = all_tasks,
    task_runner: Loop = run_tasks,
    task_scheduler: Loop = schedule_tasks,
) -> Application:
    """Start so many background workers over a data source, and return the application they make up."""
    return Application(
        data_source,
        number_of_workers,
        name=name,
        registry=registry,
        task_runner=task_runner,
        task_scheduler=task_scheduler,
    ).start()


def stop_application(app: Application, *, cancel: bool = False, wait: bool = True) -> None:
    """Stop an application; see `Application.stop`. Its data source stays open: close it, if need be."""
    app.stop(cancel=cancel, wait=wait)


def execute_task(app: Application, name: str, data: Any = None, **options: Any) -> Handle:
    """Have the task of that name run with `data`, as soon as may be. `options`: fields of `Task`."""
    definition = app.registry[name]
    return app.put_one(definition.make(data, **options)) if options else app.put_call(definition, data)


def execute_task_at(app: Application, time: float | datetime, name: str, data: Any = None, **options: Any) -> Handle:
    """The same, not before that time: an aware `datetime`, or Unix seconds."""
    return app.put_one(app.registry[name].make(data, **options, due=moment(time)))


def enqueue_task(app: Application, task: Task) -> Handle:
    """Put in a task, to run as soon as may be, or at its time if it has one."""
    return app.put_one(task)


def enqueue_tasks(app: Application, tasks: Iterable[Task]) -> list[Handle]:
    """Put in several tasks, all or none: a batch, or what `chain` and `gather` make of some."""
    return app.put(tasks)


def schedule_task(app: Application, time: float | datetime, task: Task) -> Handle:
    """Put in a task, to run not before that time."""
    return app.put_one(task.at(time))


def dequeue_task(app: Application) -> Task | None:
    """Take the next task that may run now from the application's data source; None if there is none. Whoever does so
    has to run it, and to say what became of it (`app.data_source.settle_tasks`)."""
    return app.data_source.dequeue_task(app=app)


def _stop_all() -> None:
    for app in list(_running):
        app.stop()


# (What is registered later runs earlier: this comes before the schedulers wait for their works, which loops would not
# end.)
atexit.register(_stop_all)
