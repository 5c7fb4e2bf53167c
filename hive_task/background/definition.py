"""`@task`: which function a task's name stands for, and how its tasks want to be treated.

Promises: a name stands for one function; a second function under it is refused, as is one that can't be called as
`fn(data, time=...)`, and every option that makes no sense, all at the decoration. The function itself is returned
unchanged: it may be called directly, and a process finds it by its name.

A task's name is all that is written to a data source. So the program that runs tasks must have imported the modules
that define them (`hive-task worker module:app` does).

>>> @task("example.greet", retries=3)
... def greet(data, *, time):
...     return f"hello {data}"
>>> greet("world", time=0.0), tasks["example.greet"].retries
('hello world', 3)
>>> task("example.greet")(lambda data, *, time: None)
Traceback (most recent call last):
    ...
ValueError: the task 'example.greet' is hive_task.background.definition.greet already; give this one another name
>>> tasks.forget("example.greet")
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import Any, TypeVar

from hive_task.background.periodic import Cron, Every, schedule
from hive_task.background.retry import Backoff
from hive_task.background.tasks import (
    DEFAULT_QUEUE,
    Limit,
    Rate,
    Task,
    check_count,
    check_seconds,
    checked_limit,
    checked_rate,
    simple_task,
)
from hive_task.errors import UnknownTask
from hive_task.work import KINDS

F = TypeVar("F", bound=Callable[..., Any])

#: A key that is the same for all tasks of a name, or computed from the data of each.
Key = str | bool | Callable[[Any], str | None] | None


@dataclass(frozen=True)
class Definition:
    """What `@task` was told; see there."""

    name: str
    fn: Callable[..., Any]
    queue: str = DEFAULT_QUEUE
    priority: int = 0
    retries: int = 0
    backoff: Backoff = field(default_factory=Backoff)
    time_limit: float | None = None
    kind: str = "thread"
    unique: Key = None
    unique_for: float | None = None
    limit: int | tuple[Any, int] | None = None
    rate: tuple[Any, ...] | None = None
    schedule: Every | Cron | None = None
    data: Any = None

    def make(self, data: Any = None, **options: Any) -> Task:
        """A task of this name. `options`: fields of `Task` that are to differ from what the registration says."""
        if not options and self.unique is None and self.limit is None and self.rate is None:
            return simple_task(self.name, data, self.queue, self.priority)
        given: dict[str, Any] = {"queue": self.queue, "priority": self.priority}
        if (unique := self._key(self.unique, data)) is not None:
            given |= {"unique": unique, "unique_for": self.unique_for}
        if self.limit is not None:
            key, most = self.limit if isinstance(self.limit, tuple) else (True, self.limit)
            if (key := self._key(key, data)) is not None:
                given["limit"] = Limit(key, most)
        if self.rate is not None:
            *keys, most, seconds = self.rate
            if (key := self._key(keys[0] if keys else True, data)) is not None:
                given["rate"] = Rate(key, most, seconds)
        if "unique" in options:
            given.pop("unique_for", None)
        return Task(self.name, data, **(given | options))

    @cached_property
    def is_bare(self) -> bool:
        """Have its tasks nothing but a name, data and a queue?"""
        return self.unique is None and self.limit is None and self.rate is None and self.priority == 0

    def _key(self, key: Key, data: Any) -> str | None:
        if key is None or key is False:
            return None
        if key is True:
            return self.name
        found = key(data) if callable(key) else key
        if found is not None and not isinstance(found, str):
            raise TypeError(f"a key of the task {self.name!r} must be a string, not {found!r}")
        return None if found is None else f"{self.name}:{found}" if callable(key) else found


class Registry(Mapping[str, Definition]):
    """The tasks that a program knows, by name."""

    def __init__(self) -> None:
        self._known: dict[str, Definition] = {}

    def __getitem__(self, name: str) -> Definition:
        try:
            return self._known[name]
        except KeyError:
            known = ", ".join(sorted(map(repr, self._known))) or "none"
            raise UnknownTask(
                f"no task is registered as {name!r} (known: {known}); is the module that defines it imported?"
            ) from None

    def __contains__(self, name: object) -> bool:
        return name in self._known

    def get(self, name: str, default: Any = None) -> Any:
        return self._known.get(name, default)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._known))

    def __len__(self) -> int:
        return len(self._known)

    def add(self, definition: Definition) -> None:
        known = self._known.setdefault(definition.name, definition)
        if known is definition:
            return
        if _place(known.fn) != _place(definition.fn):  # (a module that is loaded anew defines its tasks anew)
            raise ValueError(f"the task {definition.name!r} is {_place(known.fn)} already; give this one another name")
        self._known[definition.name] = definition

    def forget(self, name: str) -> None:
        """The name stands for nothing any more. Nothing happens if it did not."""
        self._known.pop(name, None)


#: Where `@task` registers.
tasks = Registry()


def task(
    name: str,
    *,
    queue: str = DEFAULT_QUEUE,
    priority: int = 0,
    retries: int = 0,
    backoff: Backoff | float | None = None,
    time_limit: float | None = None,
    kind: str = "thread",
    unique: Key = None,
    unique_for: float | None = None,
    limit: int | tuple[Any, int] | None = None,
    rate: tuple[Any, ...] | None = None,
    every: float | timedelta | Every | None = None,
    cron: str | Cron | None = None,
    timezone: str | None = None,
    data: Any = None,
    registry: Registry = tasks,
) -> Callable[[F], F]:
    """Register a function, `fn(data, *, time)`, or an `async def` one, as the task of that name. `time` is when it was
    due, in Unix seconds.

    `queue`, `priority`, `retries`, `time_limit`: see `Task`, each task may say otherwise. `backoff`: when to try again;
    a number: that many seconds, then twice that, and so on. `kind`: "thread", or "process" for what computes much in
    Python or may crash: data and result must be picklable then. A process that runs longer than `time_limit` is killed;
    a thread can't be, and is flagged (`current_task().cancelled`), given up and replaced.

    `unique`, and the keys of `limit` and `rate`: a string; a function that makes one of the data (None: no key); or
    True, all tasks of this name have the same one. `limit`: how many run at once, or `(key, how many)`. `rate`:
    `(how many, seconds)` or `(key, how many, seconds)`.

    `every` (seconds) or `cron` (an expression, in `timezone`) puts in a task with `data` by itself, each time, once,
    how ever many processes run the application.
    """
    if not isinstance(name, str):
        raise TypeError(f"a task has a name, a string: @task({name!r}) has none; write @task('name')")
    if backoff is None:
        backoff = Backoff()
    elif not isinstance(backoff, Backoff):
        backoff = Backoff(base=backoff)
    check_count("retries", retries)
    if time_limit is not None:
        check_seconds("time_limit", time_limit)
    if unique_for is not None:
        check_seconds("unique_for", unique_for)
        if unique is None:
            raise ValueError("unique_for says how long the key is taken; it needs unique=, the key")
    if kind not in KINDS:
        raise ValueError(f"kind is one of {', '.join(map(repr, KINDS))}, not {kind!r}")
    if limit is not None:
        pair = limit if isinstance(limit, tuple) else (True, limit)
        checked_limit(("", *pair[1:]) if len(pair) == 2 else pair)
    if rate is not None:
        if not isinstance(rate, tuple) or len(rate) not in (2, 3):
            raise TypeError(f"rate is (how many, seconds) or (key, how many, seconds), not {rate!r}")
        checked_rate(("", *rate[-2:]))
    Task(name, queue=queue, priority=priority)
    times = schedule(every, cron, timezone)

    def register(fn: F) -> F:
        _check_function(name, fn)
        registry.add(
            Definition(
                name,
                fn,
                queue,
                priority,
                retries,
                backoff,
                time_limit,
                kind,
                unique,
                unique_for,
                limit,
                rate,
                times,
                data,
            )
        )
        return fn

    return register


def _check_function(name: str, fn: Any) -> None:
    if not callable(fn):
        raise TypeError(f"the task {name!r} is a function, not {fn!r}")
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):
        return  # (some functions in C don't tell)
    try:
        signature.bind(None, time=0.0)
    except TypeError as error:
        raise TypeError(
            f"the task {name!r} is called as fn(data, time=...), which {_place(fn)}{signature} does not allow: {error}"
        ) from None


def _place(fn: Any) -> str:
    return f"{getattr(fn, '__module__', '?')}.{getattr(fn, '__qualname__', type(fn).__qualname__)}"
