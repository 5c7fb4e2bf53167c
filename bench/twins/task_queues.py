"""What `hive_task.background` is compared with, and itself, each behind the same few methods: in memory, or in SQLite.

`huey` is the peer: of the established task queues it alone has both stores built in, and it was among the fastest of
those that others have compared. It is optional; where it isn't installed, `missing` says so.

How they are made equal:
- Both run the tasks in threads of one process, and keep the result of each task until the end. (A huey task that
  returns None leaves none, so the tasks return something.) huey's consumer plans no periodic tasks, and installs no
  signal handlers.
- A consumer of huey finds tasks by looking: after 1 ms at first, and at most every 10 ms when it finds nothing. That is
  short for huey, whose defaults are 100 ms and 10 s; it costs it some CPU time when idle.
- In SQLite both use a write-ahead log (`journal_mode=wal`) and `synchronous=FULL`: for huey that is `fsync=True`. So
  each commit of either is on the disk when it returns.

What stays different, because it is how they are built. huey removes a task from its table when it is taken, so one
whose worker dies is lost; hive_task keeps it, under a lease, and its record afterwards. huey serialises with pickle,
also in memory; hive_task as JSON, in SQLite alone. Of each task, huey makes the putting in, the taking and the result
durable by themselves; hive_task settles some short tasks, and takes the next, in one transaction. huey copies the log
back into the file every 1,000 pages, SQLite's default, and keeps 8 MB of pages; hive_task every 800 pages, and 16 MB.
"""

from __future__ import annotations

import importlib.util
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from hive_task.background import (
    Application,
    Handle,
    MemoryQueue,
    Registry,
    SQLiteQueue,
    enqueue_tasks,
    execute_task,
    task,
)

HIVE: Final = "hive_task"
HUEY: Final = "huey"

NAME: Final = "bench.note"
#: Seconds between two looks whether the results are stored.
LOOKING: Final = 0.001
#: So many ended tasks are remembered in memory: all of any run.
KEPT: Final = 10_000_000

#: Seconds for which a worker of huey that finds nothing sleeps; and at most, after many times nothing.
FIRST_DELAY: Final = 0.001
LONGEST_DELAY: Final = 0.01

#: What a task does with its number: it returns when it began.
Note = Callable[[int], float]


class TaskQueue(ABC):
    """One of the contenders, with so many workers; with none, tasks can be put in only. In memory without a path.

    `ticket`: what `put` returns. It tells `moment_of` which task is meant.
    """

    variant: ClassVar[str]

    @abstractmethod
    def __init__(self, note: Note, workers: int, path: Path | None = None) -> None: ...

    @abstractmethod
    def put(self, number: int) -> Any:
        """Put in the task with that number."""

    @abstractmethod
    def moment_of(self, ticket: Any, patience: float) -> float:
        """Wait for the result of a task: when it began. `Exception` if none comes."""

    @abstractmethod
    def waiting(self) -> int:
        """How many tasks wait for a worker."""

    @abstractmethod
    def stored(self) -> int:
        """Of how many tasks the result is stored."""

    @abstractmethod
    def end(self) -> None:
        """Let the workers end, and close the files."""


class Hive(TaskQueue):
    variant: ClassVar[str] = HIVE

    def __init__(self, note: Note, workers: int, path: Path | None = None) -> None:
        registry = Registry()

        @task(NAME, registry=registry)
        def run(number: int, *, time: float) -> float:
            return note(number)

        self.source = MemoryQueue(keep=KEPT) if path is None else SQLiteQueue(path, synchronous="FULL")
        self.app = Application(self.source, max(1, workers), name="bench", registry=registry)
        if workers:
            self.app.start()

    def put(self, number: int) -> Handle:
        return execute_task(self.app, NAME, number)

    def put_many(self, numbers: Sequence[int]) -> list[Handle]:
        """Put in several tasks at once, of which huey has no notion."""
        make = self.app.registry[NAME].make
        return enqueue_tasks(self.app, [make(number) for number in numbers])

    def moment_of(self, ticket: Handle, patience: float) -> float:
        return float(ticket.result(patience))

    def waiting(self) -> int:
        return self.count("queued")

    def stored(self) -> int:
        return self.count("done")

    def count(self, state: str) -> int:
        return sum(states.get(state, 0) for states in self.source.count_tasks().values())

    def end(self) -> None:
        self.app.stop()
        self.source.close()


class Huey(TaskQueue):
    variant: ClassVar[str] = HUEY

    def __init__(self, note: Note, workers: int, path: Path | None = None) -> None:
        import huey
        from huey.consumer import Consumer

        self.huey = huey.MemoryHuey() if path is None else huey.SqliteHuey(filename=str(path), fsync=True)

        @self.huey.task(name=NAME)
        def run(number: int) -> float:
            return note(number)

        self.run: Callable[[int], Any] = run
        self.consumer: Any = None
        if workers:
            self.consumer = Consumer(
                self.huey, workers, periodic=False, initial_delay=FIRST_DELAY, max_delay=LONGEST_DELAY
            )
            # They would take Ctrl-C away from the benchmark, and can be set by the main thread alone.
            self.consumer._set_signal_handlers = bool
            self.consumer.start()

    def put(self, number: int) -> Any:
        return self.run(number)

    def moment_of(self, ticket: Any, patience: float) -> float:
        return float(ticket.get(blocking=True, timeout=patience, max_delay=LONGEST_DELAY, preserve=True))

    def waiting(self) -> int:
        return int(self.huey.pending_count())

    def stored(self) -> int:
        return int(self.huey.result_count())

    def end(self) -> None:
        if self.consumer is not None:
            self.consumer.stop(graceful=True)
        self.huey.storage.close()


CONTENDERS: Final[dict[str, type[TaskQueue]]] = {HIVE: Hive, HUEY: Huey}


def missing(variant: str) -> str:
    """Why a contender can't be run here; empty if it can."""
    if variant == HUEY and importlib.util.find_spec("huey") is None:
        return "huey is not installed: pip install huey"
    return ""


class Books:
    """Which tasks ran. `note` is what a task does; `expect` comes before so many are put in."""

    def __init__(self) -> None:
        self.ran: list[int] = []
        self.expected = 0
        self._all_ran = threading.Event()

    def note(self, number: int) -> float:
        moment = time.monotonic()
        ran = self.ran
        ran.append(number)
        if len(ran) >= self.expected:
            self._all_ran.set()
        return moment

    def expect(self, count: int) -> range:
        """The numbers of the next so many tasks."""
        self._all_ran.clear()
        self.expected += count
        return range(self.expected - count, self.expected)

    def await_results(self, queue: TaskQueue, patience: float) -> None:
        """Wait until all that were expected have run, and their results are stored. `TimeoutError` if not."""
        deadline = time.monotonic() + patience
        if not self._all_ran.wait(patience):
            raise TimeoutError(f"after {patience:g} s {len(self.ran)} of {self.expected} tasks have run")
        while (stored := queue.stored()) < self.expected:
            if time.monotonic() > deadline:
                raise TimeoutError(f"after {patience:g} s {stored} of {self.expected} results are stored")
            time.sleep(LOOKING)

    def complaint(self, count: int) -> str:
        """What is wrong if the first so many tasks, and no others, were to run, each once; empty if nothing is."""
        if sorted(self.ran) == list(range(count)):
            return ""
        different = set(self.ran)
        strange = len(different.difference(range(count)))
        missing, again = count - (len(different) - strange), len(self.ran) - len(different)
        return f"of {count} tasks {missing} did not run, {again} ran again, and {strange} others ran"
