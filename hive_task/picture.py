"""What a scheduler looks like at one moment: frozen records, made of what one transaction read.

Promise: a `Picture` is of one moment, so in every one ever taken
`totals.submitted == queued + running + finished + failed + cancelled`. Nothing in it changes afterwards, and taking it
neither waits for the work nor disturbs it. Durations are in seconds. `taken` and `Change.at` are Unix time; every
other time is a span. Counts and durations of functions are those of the same moment (see `profiles`).

>>> totals = Totals(submitted=3, queued=1, running=1, finished=1)
>>> totals.balanced, totals.done
(True, 1)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pyrsistent import PMap, pmap


@dataclass(frozen=True, slots=True)
class Totals:
    """How many works there are and were: each is in exactly one of the last five at any moment."""

    submitted: int = 0
    queued: int = 0
    running: int = 0
    finished: int = 0
    failed: int = 0
    cancelled: int = 0

    @property
    def done(self) -> int:
        return self.finished + self.failed + self.cancelled

    @property
    def balanced(self) -> bool:
        return self.submitted == self.queued + self.running + self.done


@dataclass(frozen=True, slots=True)
class RunningWork:
    """A work that a worker has begun. `seconds`: since when. `waiting`: it waits for a future, and lets others run."""

    function: str
    seconds: float
    category: str | None = None
    priority: int = 0
    kind: str = "thread"
    time_limit: float | None = None
    waiting: bool = False


@dataclass(frozen=True, slots=True)
class WorkerPicture:
    """One worker.

    `state`: "starting", "idle", "running", "leaving" (it ends after what it has begun), or "overdue" (what it runs
    was given up, and another worker has taken its place). `works`: what it has begun, the outermost first; more than
    one if a work waits for a future meanwhile. `queued`: works that it has taken from the common queue in advance, or
    that its works have submitted; idle workers take them over. `busy`: seconds spent in works. `age`: since its start.
    """

    uuid: str
    name: str
    state: str
    works: tuple[RunningWork, ...] = ()
    queued: int = 0
    finished: int = 0
    failed: int = 0
    busy: float = 0.0
    age: float = 0.0
    process: int | None = None


@dataclass(frozen=True, slots=True)
class QueuePicture:
    """A queue: "common" for what was submitted from outside, one for each other priority, one for each worker.

    `length` includes works that have been cancelled, or run by who waited for them, and not been passed over yet;
    `Totals.queued` does not.
    """

    name: str
    length: int
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of how many, and in seconds: half of them took at most `p50`, and so on (within a factor of the square root of
    two, or less: they are counted in classes, see `profiles`)."""

    count: int = 0
    p50: float = 0.0
    p90: float = 0.0
    p99: float = 0.0


@dataclass(frozen=True, slots=True)
class FunctionProfile:
    """How long the calls of one function took."""

    function: str
    count: int = 0
    failed: int = 0
    seconds: float = 0.0
    shortest: float = 0.0
    longest: float = 0.0

    @property
    def mean(self) -> float:
        return self.seconds / self.count if self.count else 0.0


@dataclass(frozen=True, slots=True)
class Change:
    """The number of workers changed: when (Unix time), from what to what, and why."""

    at: float
    before: int
    after: int
    reason: str


@dataclass(frozen=True, slots=True)
class Picture:
    """A scheduler at one moment. `state`: "new", "running", "stopping" or "stopped"."""

    name: str
    state: str
    taken: float
    uptime: float
    totals: Totals
    workers: tuple[WorkerPicture, ...] = ()
    queues: tuple[QueuePicture, ...] = ()
    minimum: int = 1
    maximum: int = 1
    lost_workers: int = 0
    waits: Percentiles = Percentiles()
    durations: Percentiles = Percentiles()
    functions: PMap[str, FunctionProfile] = field(default_factory=pmap)
    changes: tuple[Change, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists, strings and numbers, for JSON."""
        return {item.name: _plain(getattr(self, item.name)) for item in dataclasses.fields(self)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return value
