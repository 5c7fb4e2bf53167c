"""Tasks and records as rows, values as JSON. What would not come back as it was is refused, with the part that is wrong.

>>> pack({"to": ["ann", ("bob", 2)]}, "data", "greet")
'{"to": ["ann", ["bob", 2]]}'
>>> pack({"to": {1: b"x"}}, "data", "greet")
Traceback (most recent call last):
    ...
hive_task.errors.UnserializableData: the data of task 'greet' can't be kept: data['to'] has the key 1, and only strings come back from JSON as they were
"""  # noqa: E501

from __future__ import annotations

import enum
import json
import math
from collections.abc import Sequence
from typing import Any

from hive_task.background.sources._sqlite_schema import CHILD, DESPITE, RATED, UNIQUE
from hive_task.background.tasks import QUEUED, SCHEDULED, WAITING, Claim, Failure, Record, Task, bare_task
from hive_task.errors import UnserializableData

_encode = json.JSONEncoder(allow_nan=False).encode
_SCALARS = frozenset({str, int, float, bool, type(None)})


def pack(value: Any, what: str, name: str) -> str | None:
    """The value as JSON; None for None. `what` and `name` say in the error what it is of which task."""
    if value is None:
        return None
    if type(value) is int:
        return repr(value)  # as JSON has it, in a tenth of the time
    try:
        text = _encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        why = _wrong_deep_down(value, what) or f"{what}: {error}"
        raise UnserializableData(f"the {what} of task {name!r} can't be kept: {why}") from error
    if type(value) not in _SCALARS and (reason := _wrong_deep_down(value, what)):
        raise UnserializableData(f"the {what} of task {name!r} can't be kept: {reason}")
    return text


def unpack(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def _wrong_deep_down(value: Any, where: str) -> str | None:
    try:
        return _wrong(value, where)
    except RecursionError:
        return f"{where} contains itself, or is nested too deep"


def _wrong(value: Any, where: str) -> str | None:
    """Which part does not come back from JSON as it was; None: every one does."""
    kind = type(value)
    if kind in (str, bool, type(None), int):
        return None
    if isinstance(value, enum.Enum):
        return f"{where} is {value!r}, which would come back as a plain value"
    if isinstance(value, dict):
        for key, one in value.items():
            if type(key) is not str:
                return f"{where} has the key {key!r}, and only strings come back from JSON as they were"
            if (reason := _wrong(one, f"{where}[{key!r}]")) is not None:
                return reason
        return None
    if isinstance(value, (list, tuple)):
        for i, one in enumerate(value):
            if (reason := _wrong(one, f"{where}[{i}]")) is not None:
                return reason
        return None
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{where} is {value!r}, for which JSON has no word"
    if isinstance(value, (str, int)):
        return None
    return f"{where} is of type {kind.__qualname__}, which JSON does not have"


def options_of(task: Task) -> dict[str, Any]:
    """What few tasks say, without what this one doesn't."""
    options: dict[str, Any] = {}
    for what in ("retries", "time_limit", "unique", "unique_for", "limit", "rate"):
        if (value := getattr(task, what)) is not None:
            options[what] = value
    if task.after:
        options["after"] = task.after
    if task.despite_failure:
        options["despite_failure"] = True
    return options


def is_plain(task: Task) -> bool:
    """It is in nobody's way: its state follows from its time alone."""
    return task.unique is None and task.limit is None and task.rate is None and not task.after


def row_of(task: Task, now: float) -> tuple[Any, ...]:
    """For INSERT. What is not plain is put in waiting, `pending` 1, until the rules have looked at it."""
    due = now if task.due is None else task.due
    plain = is_plain(task)
    if plain and task.retries is None and task.time_limit is None and not task.despite_failure:
        data = pack(task.data, "data", task.name)
        state = SCHEDULED if due > now else QUEUED
        name, queue, priority = task.name, task.queue, task.priority
        return task.id, state, queue, name, priority, data, due, task.due, None, now, 0, None, None, 0
    options = options_of(task)
    special = (
        (UNIQUE if task.unique is not None else 0)
        | (RATED if task.rate is not None else 0)
        | (CHILD if task.after else 0)
        | (DESPITE if task.despite_failure else 0)
    )
    return (
        task.id,
        (SCHEDULED if due > now else QUEUED) if plain else WAITING,
        task.queue,
        task.name,
        task.priority,
        pack(task.data, "data", task.name),
        due,
        task.due,
        _encode(options) if options else None,
        now,
        special,
        task.limit.key if task.limit else None,
        task.limit.most if task.limit else None,
        0 if plain else 1,
    )


def task_of(row: Sequence[Any], claim: Claim | None = None) -> Task:
    """Of (id, queue, name, priority, data, due, asked, options, ...)."""
    if row[7] is None and row[6] is None and not row[3]:
        return bare_task(row[2], unpack(row[4]), row[0], row[1], claim)
    options = json.loads(row[7]) if row[7] else {}
    return Task(row[2], unpack(row[4]), id=row[0], queue=row[1], priority=row[3], due=row[6], claim=claim, **options)


def record_of(row: Sequence[Any]) -> Record:
    (attempts, state, created, started, ended, crashes, result, failure, progress, worker, cancel_requested) = row[8:]
    return Record(
        task_of(row),
        state,
        created,
        row[5],
        started,
        ended,
        attempts,
        crashes,
        unpack(result),
        failure_of(failure),
        unpack(progress),
        worker,
        bool(cancel_requested),
    )


def pack_failure(failure: Failure | None) -> str | None:
    return None if failure is None else _encode([str(part) for part in failure])


def failure_of(text: str | None) -> Failure | None:
    return None if text is None else Failure(*json.loads(text))
