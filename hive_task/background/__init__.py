"""Background workers over a data source: tasks that run soon, at their time, again, and after a crash.

Everything is described where it lives: `application` (what is promised), `tasks`, `definition` (`@task`), `running`,
`sources.base` (what data sources promise), `sources.memory`, `sources.sqlite`, `periodic`, `retry`, `graphs`,
`testing`.

>>> from hive_task.background import MemoryQueue, execute_task, start_application, stop_application, task, tasks
>>> @task("example.shout")
... def shout(data, *, time):
...     return data.upper()
>>> app = start_application(number_of_workers=1, data_source=MemoryQueue())
>>> execute_task(app, "example.shout", "hello").result()
'HELLO'
>>> stop_application(app)
>>> tasks.forget("example.shout")
"""

from hive_task.background.application import (
    Application,
    dequeue_task,
    enqueue_task,
    enqueue_tasks,
    execute_task,
    execute_task_at,
    schedule_task,
    start_application,
    stop_application,
)
from hive_task.background.clocks import ManualClock
from hive_task.background.definition import Definition, Registry, task, tasks
from hive_task.background.graphs import chain, gather
from hive_task.background.handle import Handle
from hive_task.background.loops import task_runner, task_scheduler
from hive_task.background.periodic import Cron, Every
from hive_task.background.retry import Backoff
from hive_task.background.running import CurrentTask, RetryLater, current_task, run_task
from hive_task.background.sources.base import DataSource
from hive_task.background.sources.memory import MemoryQueue
from hive_task.background.sources.sqlite import SQLiteQueue
from hive_task.background.tasks import Claim, End, Failure, Limit, Rate, Record, Task
from hive_task.errors import (
    ApplicationStopped,
    BackgroundError,
    SourceError,
    TaskCancelled,
    TaskFailed,
    UnknownTask,
    UnserializableData,
)

__all__ = [
    "Application",
    "ApplicationStopped",
    "BackgroundError",
    "Backoff",
    "Claim",
    "Cron",
    "CurrentTask",
    "DataSource",
    "Definition",
    "End",
    "Every",
    "Failure",
    "Handle",
    "Limit",
    "ManualClock",
    "MemoryQueue",
    "Rate",
    "Record",
    "Registry",
    "RetryLater",
    "SQLiteQueue",
    "SourceError",
    "Task",
    "TaskCancelled",
    "TaskFailed",
    "UnknownTask",
    "UnserializableData",
    "chain",
    "current_task",
    "dequeue_task",
    "enqueue_task",
    "enqueue_tasks",
    "execute_task",
    "execute_task_at",
    "gather",
    "run_task",
    "schedule_task",
    "start_application",
    "stop_application",
    "task",
    "task_runner",
    "task_scheduler",
    "tasks",
]
