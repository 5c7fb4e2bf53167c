"""What the tests of `conformance` are written with."""

from __future__ import annotations

import threading
import unittest
from collections.abc import Callable, Sequence
from typing import Any

from hive_task.background.clocks import ManualClock
from hive_task.background.sources.base import DataSource
from hive_task.background.tasks import Record, Task

#: Seconds after which what another thread must do counts as hanging.
PATIENCE = 30.0

#: Seconds of a lease, in all these tests.
LEASE = 30.0


class Claimant:
    """As much of an application as a data source looks at."""

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self.name = identity

    def is_running(self) -> bool:
        return True

    def await_stop(self, timeout: float | None = None) -> bool:
        return False

    def __repr__(self) -> str:
        return f"<{self.identity}>"


class Thread:
    """A function in another thread; `result()` waits for it, and raises what it raised."""

    def __init__(self, fn: Callable[[], Any]) -> None:
        self._fn = fn
        self._value: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value = self._fn()
        except BaseException as error:
            self._error = error

    def ended(self, within: float) -> bool:
        self._thread.join(within)
        return not self._thread.is_alive()

    def result(self) -> Any:
        assert self.ended(PATIENCE), "another thread hangs"
        if self._error is not None:
            raise self._error
        return self._value


def together(*fns: Callable[[], Any]) -> list[Any]:
    """Call these at the same moment, each in a thread of its own."""
    barrier = threading.Barrier(len(fns))

    def call(fn: Callable[[], Any]) -> Any:
        barrier.wait(PATIENCE)
        return fn()

    threads = [Thread(lambda fn=fn: call(fn)) for fn in fns]  # type: ignore[misc]
    return [thread.result() for thread in threads]


class Toolkit:
    """`lacks`: what the source does not offer, of the words that `needs` is called with."""

    lacks: frozenset[str] = frozenset()

    clock: ManualClock
    source: Any  # a `DataSource`, which tests may ask with claimants instead of applications
    other: Any

    def make_source(self, clock: ManualClock) -> DataSource:
        """A new, empty source that takes its times from this clock, and whose leases, if any, last for 30 seconds."""
        raise NotImplementedError(f"{type(self).__name__} must override make_source(clock)")

    def make_other(self, source: Any, clock: ManualClock) -> DataSource:
        """Another object for the same tasks, as another process would have it; the same one, if there is none."""
        found: DataSource = source
        return found

    def setup_method(self, method: object = None) -> None:
        self.clock = ManualClock()
        self.source = self.make_source(self.clock)
        self.other = self.make_other(self.source, self.clock)
        self.ann, self.bob = Claimant("ann"), Claimant("bob")

    def teardown_method(self, method: object = None) -> None:
        for source in {id(one): one for one in (self.other, self.source)}.values():
            source.close()

    def needs(self, *features: str) -> None:
        for feature in features:
            if feature in self.lacks:
                raise unittest.SkipTest(f"the source does not offer {feature}")

    # Doing.

    def put(self, name: str = "work", /, **options: Any) -> str:
        """Put in a task; the answer's id."""
        task = Task(name, **options)
        if task.due is None:
            return self.source.enqueue_task(task) or task.id
        return self.source.schedule_task(task.due, task) or task.id

    def take(self, app: Claimant | None = None) -> Task:
        task: Task | None = self.source.dequeue_task(app=app or self.ann)
        assert task is not None, "there is a task that may run, and none is handed out"
        return task

    def take_all(self) -> list[Task]:
        """Whatever may run, one by one, in order."""
        return list(iter(lambda: self.source.dequeue_task(app=self.ann), None))

    def names(self) -> list[str]:
        return [task.name for task in self.take_all()]

    def nothing(self) -> bool:
        return self.source.dequeue_task(app=self.bob) is None

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.tend()

    def tend(self) -> float | None:
        """Tend until there is nothing more to do at once."""
        while (seconds := self.source.tend(app=self.ann)) is not None and seconds <= 0:
            pass
        return seconds  # type: ignore[no-any-return]

    # Asking.

    def record(self, id: str) -> Record:
        record: Record | None = self.source.find_task(id)
        assert record is not None, "a task that was put in is not known"
        return record

    def state(self, id: str) -> str:
        return self.record(id).state

    def states(self, *ids: str) -> list[str]:
        return [self.state(id) for id in ids]

    def counts(self) -> dict[str, int]:
        """How many there are in each state, in all queues."""
        sums: dict[str, int] = {}
        for queue in self.source.count_tasks().values():
            for state, number in queue.items():
                sums[state] = sums.get(state, 0) + number
        return {state: number for state, number in sums.items() if number}


def raises(error: type[BaseException], fn: Callable[..., Any], *args: Any, **kwargs: Any) -> BaseException:
    try:
        answer = fn(*args, **kwargs)
    except error as raised:
        return raised
    raise AssertionError(f"{fn} was to raise {error.__name__}, and returned {answer!r}")


def ids_of(tasks: Sequence[Task]) -> list[str]:
    return [task.id for task in tasks]
