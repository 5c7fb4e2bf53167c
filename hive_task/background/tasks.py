"""`Task`: what is to be done, as a data source keeps it; `Record`: what has become of it.

Promises: both are immutable. A `Task` is a plain description (a registered name, data, and how it wants to be treated),
so it can be written to a file and carried out by another process; a bad one is refused here, before any data source has
seen it. Times are Unix seconds everywhere; `moment` makes them of aware datetimes, and refuses naive ones.

The states of a task, and what leads from one to the next:

    scheduled --its time comes--> queued --claimed--> running --> done
        ^                            ^                   |
        |                            +---- released -----+---> dead       it failed for good (a *dead letter*)
        +------------ to be tried again -----------------+---> cancelled
    waiting: for other tasks (`after`), or for a place among those with its key (`limit`); then queued or scheduled

>>> Task("greet", {"who": "world"}, priority=3).name
'greet'
>>> Task("greet", retries=-1)
Traceback (most recent call last):
    ...
ValueError: retries can't be negative: -1
>>> import datetime
>>> moment(datetime.datetime(2030, 1, 1))
Traceback (most recent call last):
    ...
ValueError: 2030-01-01 00:00:00 has no time zone, so it could be any of several moments; use an aware datetime
"""

from __future__ import annotations

import math
import os
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from datetime import datetime
from time import time_ns
from typing import Any, Final, NamedTuple

SCHEDULED: Final = "scheduled"
WAITING: Final = "waiting"
QUEUED: Final = "queued"
RUNNING: Final = "running"
DONE: Final = "done"
DEAD: Final = "dead"
CANCELLED: Final = "cancelled"

STATES: Final = (SCHEDULED, WAITING, QUEUED, RUNNING, DONE, DEAD, CANCELLED)
#: What does not change any more by itself. (Dead letters and cancelled tasks can be requeued by hand.)
ENDED: Final = frozenset({DONE, DEAD, CANCELLED})

DEFAULT_QUEUE: Final = "default"

#: A task that was running each time that its worker died, so many times, becomes a dead letter: it may be the reason.
CRASHES: Final = 3


#: Characters of an id that `new_id` makes; how many ids in a row end alike; from which character on.
ID_LENGTH: Final = 32
BLOCK: Final = 64
SAME: Final = 20


def new_id() -> str:
    """A new id: 32 hexadecimal digits. The first 8 are the time, in units of about a second, so that a store need not
    look all over its index for where to put it (as with UUIDs of version 7, RFC 9562); 2 are a number; 22 are random,
    of which the last 12 are the same for `BLOCK` ids that are made one after the other."""
    global _time
    now = time_ns() >> 30
    then, text = _time
    if now != then:
        text = f"{now:08x}"
        _time = now, text
    while True:
        try:
            return text + _ends.popleft()
        except IndexError:
            same, others = f"{_chance.getrandbits(48):012x}", _chance.randbytes(5 * BLOCK).hex()
            _ends.extend([number + others[start:end] + same for number, start, end in _NUMBERS])


_NUMBERS: Final = [(f"{number:02x}", 10 * number, 10 * number + 10) for number in range(BLOCK)]
#: The time that the last id begins with, and how.
_time = 0, ""
#: What comes after the time, made in advance.
_ends: deque[str] = deque()
#: (Not `os.urandom`: that lets go of the GIL each time.)
_chance = random.Random()


def _others_ids() -> None:
    _chance.seed()
    _ends.clear()


os.register_at_fork(after_in_child=_others_ids)


class Limit(NamedTuple):
    """At most `most` tasks with this key run at the same time."""

    key: str
    most: int


class Rate(NamedTuple):
    """At most `most` tasks with this key start within any `seconds`. Each gets its earliest time as it is put in."""

    key: str
    most: int
    seconds: float


class Claim(NamedTuple):
    """Who has taken a task, and which taking of it this is. What comes from the holder of an older epoch is refused.

    `attempt`: counts the runs, from 1; `due`: the time at which the task was to run, in Unix seconds.
    """

    worker: str
    epoch: int
    attempt: int
    due: float


@dataclass(frozen=True, slots=True)
class Task:
    """Something to be done: the function registered under `name`, called with `data`.

    `id`: putting in a task whose id is there already changes nothing.
    `queue`: a name; queues can be paused, and are served alike. `priority`: higher is sooner.
    `due`: not before this time, in Unix seconds.
    `retries`: how often it may be tried again after a failure; `time_limit`: seconds that one run may take. None: as
    the function's registration says.
    `unique`: as long as a task with this key has not ended, or for `unique_for` seconds from the putting in of one, no
    other one is put in.
    `limit`, `rate`: how many with the same key may run at once, or start within a time.
    `after`: ids of tasks that must be done before. If one of them dies or is cancelled, so is this one; unless
    `despite_failure`: then it runs as soon as all have ended, however.
    `claim`: of one that `dequeue_task` returned.
    """

    name: str
    data: Any = None
    _: KW_ONLY
    id: str = field(default_factory=new_id)
    queue: str = DEFAULT_QUEUE
    priority: int = 0
    due: float | None = None
    retries: int | None = None
    time_limit: float | None = None
    unique: str | None = None
    unique_for: float | None = None
    limit: Limit | None = None
    rate: Rate | None = None
    after: tuple[str, ...] = ()
    despite_failure: bool = False
    claim: Claim | None = None

    def __post_init__(self) -> None:
        strings = type(self.name) is str and type(self.id) is str and type(self.queue) is str
        if not (strings and self.name and self.id and self.queue and type(self.priority) is int):
            self._check_names()
        unkeyed = self.unique is None and self.unique_for is None and self.limit is None and self.rate is None
        if not (unkeyed and self.due is None and self.time_limit is None and self.retries is None and self.after == ()):
            self._check_options()

    def _check_names(self) -> None:
        for what in ("name", "id", "queue"):
            value = getattr(self, what)
            if not isinstance(value, str):
                raise TypeError(f"{what} is a string, not {value!r}")
            if not value:
                raise ValueError(f"{what} can't be empty")
        check_count("priority", self.priority, least=None)

    def _check_options(self) -> None:
        if self.due is not None:
            object.__setattr__(self, "due", moment(self.due))
        if self.retries is not None:
            check_count("retries", self.retries)
        for what in ("time_limit", "unique_for"):
            if getattr(self, what) is not None:
                check_seconds(what, getattr(self, what))
        if self.unique is not None and not isinstance(self.unique, str):
            raise TypeError(f"unique is a key, a string, not {self.unique!r}")
        if self.unique_for is not None and self.unique is None:
            raise ValueError("unique_for says how long the key is taken; it needs unique=, the key")
        if self.limit is not None:
            object.__setattr__(self, "limit", checked_limit(self.limit))
        if self.rate is not None:
            object.__setattr__(self, "rate", checked_rate(self.rate))
        if isinstance(self.after, str) or not all(isinstance(one, str) for one in self.after):
            raise TypeError(f"after is a tuple of the ids of tasks, not {self.after!r}")
        object.__setattr__(self, "after", tuple(dict.fromkeys(self.after)))
        if self.id in self.after:
            raise ValueError("a task can't wait for itself")

    def at(self, time: float | datetime) -> Task:
        """The same, not before that time."""
        return replace(self, due=moment(time))

    def claimed(self, claim: Claim | None) -> Task:
        """The same under that claim."""
        if type(self) is not _PLAIN:
            return replace(self, claim=claim)
        copy = object.__new__(Task)
        _name(copy, self.name)
        _data(copy, self.data)
        _id(copy, self.id)
        _queue(copy, self.queue)
        _priority(copy, self.priority)
        _due(copy, self.due)
        _retries(copy, self.retries)
        _time_limit(copy, self.time_limit)
        _unique(copy, self.unique)
        _unique_for(copy, self.unique_for)
        _limit(copy, self.limit)
        _rate(copy, self.rate)
        _after(copy, self.after)
        _despite_failure(copy, self.despite_failure)
        _claim(copy, claim)
        return copy


# Tasks are made and copied by the setters of their slots, where what they are made of was checked before: in a third of
# the time that `Task(...)` takes, and a sixth of that of `dataclasses.replace`.
_NAMES = [
    "name",
    "data",
    "id",
    "queue",
    "priority",
    "due",
    "retries",
    "time_limit",
    "unique",
    "unique_for",
    "limit",
    "rate",
    "after",
    "despite_failure",
    "claim",
]
(
    _name,
    _data,
    _id,
    _queue,
    _priority,
    _due,
    _retries,
    _time_limit,
    _unique,
    _unique_for,
    _limit,
    _rate,
    _after,
    _despite_failure,
    _claim,
) = [vars(Task)[name].__set__ for name in _NAMES]
#: A task of a class derived from `Task`, or of one that has got another field, is copied the ordinary way.
_PLAIN = Task if sorted(_NAMES) == sorted(one.name for one in fields(Task)) else None


def simple_task(name: str, data: Any, queue: str, priority: int) -> Task:
    """`Task(name, data, queue=queue, priority=priority)`, for a name, queue and priority that have been checked."""
    task = bare_task(name, data, new_id(), queue)
    if priority:
        _priority(task, priority)
    return task


def bare_task(name: str, data: Any, id: str, queue: str, claim: Claim | None = None) -> Task:
    """`Task(name, data, id=id, queue=queue, claim=claim)`, of what has been checked."""
    task = object.__new__(Task)
    _name(task, name)
    _data(task, data)
    _id(task, id)
    _queue(task, queue)
    _priority(task, 0)
    _due(task, None)
    _retries(task, None)
    _time_limit(task, None)
    _unique(task, None)
    _unique_for(task, None)
    _limit(task, None)
    _rate(task, None)
    _after(task, ())
    _despite_failure(task, False)
    _claim(task, claim)
    return task


class Failure(NamedTuple):
    """How a run of a task failed: the exception's qualified name, its text, and the traceback."""

    kind: str
    message: str
    traceback: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}" if self.message else self.kind


@dataclass(frozen=True, slots=True)
class Record:
    """A task, and what has become of it. Times are Unix seconds, None for what has not come to pass.

    `attempts`: runs that were begun; `crashes`: those of them whose worker died. `progress`: what the task last said.
    `failure`: of the last run that failed, also if the task is to be tried again, or was done in the end.
    `cancel_requested`: it was running when somebody cancelled it.
    """

    task: Task
    state: str
    created: float
    due: float
    started: float | None = None
    ended: float | None = None
    attempts: int = 0
    crashes: int = 0
    result: Any = None
    failure: Failure | None = None
    progress: Any = None
    worker: str | None = None
    cancel_requested: bool = False


class End(NamedTuple):
    """How a run of a claimed task ended. `outcome`: `DONE`, with `result`; `DEAD`, with `failure`; `CANCELLED`;
    `SCHEDULED`, to be tried again at `retry_at`, with `failure`; `QUEUED`, given back as if it had not been taken."""

    task: Task
    outcome: str
    result: Any = None
    failure: Failure | None = None
    retry_at: float | None = None


def moment(time: float | datetime) -> float:
    """Unix seconds, of those or of an aware datetime. `TypeError` or `ValueError` for what says no moment."""
    if isinstance(time, datetime):
        if time.utcoffset() is None:
            raise ValueError(f"{time} has no time zone, so it could be any of several moments; use an aware datetime")
        return time.timestamp()
    if isinstance(time, bool) or not isinstance(time, (int, float)):
        raise TypeError(f"a time is an aware datetime or Unix seconds, not {time!r}")
    if not math.isfinite(time):
        raise ValueError(f"{time!r} is no time")
    return float(time)


def check_count(what: str, value: Any, least: int | None = 0) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} is a whole number, not {value!r}")
    if least is not None and value < least:
        raise ValueError(f"{what} can't be negative: {value!r}" if least == 0 else f"{what} is at least {least}")


def check_seconds(what: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{what} is a number of seconds, not {value!r}")
    if not 0 < value < math.inf:
        raise ValueError(f"{what} is more than nothing, and finite; not {value!r} seconds")


def checked_limit(limit: Sequence[Any]) -> Limit:
    try:
        key, most = limit
    except (TypeError, ValueError):
        raise TypeError(f"limit is (key, how many at once), not {limit!r}") from None
    if not isinstance(key, str):
        raise TypeError(f"the key of a limit is a string, not {key!r}")
    check_count("how many run at once", most, least=1)
    return Limit(key, most)


def checked_rate(rate: Sequence[Any]) -> Rate:
    try:
        key, most, seconds = rate
    except (TypeError, ValueError):
        raise TypeError(f"rate is (key, how many, within how many seconds), not {rate!r}") from None
    if not isinstance(key, str):
        raise TypeError(f"the key of a rate is a string, not {key!r}")
    check_count("how many start within a time", most, least=1)
    check_seconds("the time of a rate", seconds)
    return Rate(key, most, float(seconds))
