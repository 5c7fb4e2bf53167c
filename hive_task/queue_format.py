"""How `hive-task queue` shows tasks: as rows of a table, as a sheet for one of them, and as JSON for machines.

Promises: the keys of the JSON are always the same, whatever a task is; its times are Unix seconds. For people, times
have their zone. What a task says of itself commands neither the terminal nor the markup.

>>> age(90.0), age(-3.0), plain_id("9f86d081884c7d659a2feaa0c55ad015"), plain_id("report of 2030-01-01")
('1 min 30 s ago', 'in 3 s', '9f86d081884c7d65', 'report of 2030-01-01')
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hive_task.top_format import Block, Cell, Column, duration, text

if TYPE_CHECKING:
    from hive_task.background import Record

#: In this order they are shown.
STATES = ("scheduled", "waiting", "queued", "running", "done", "dead", "cancelled")

STYLES = {"running": "green", "done": "dim", "dead": "bold red", "cancelled": "dim", "waiting": "yellow"}

#: Of an id that was made by `new_id`, so many characters are shown in tables: they do as well (see `queue show`).
SHOWN = 16

Counts = Mapping[str, Mapping[str, int]]


# For machines.


def plain_record(record: Record) -> dict[str, Any]:
    """A record as JSON has it."""
    task, failure = record.task, record.failure
    return {
        "id": task.id,
        "name": task.name,
        "queue": task.queue,
        "state": record.state,
        "priority": task.priority,
        "data": task.data,
        "created": record.created,
        "due": record.due,
        "started": record.started,
        "ended": record.ended,
        "attempts": record.attempts,
        "crashes": record.crashes,
        "retries": task.retries,
        "time_limit": task.time_limit,
        "unique": task.unique,
        "unique_for": task.unique_for,
        "limit": None if task.limit is None else task.limit._asdict(),
        "rate": None if task.rate is None else task.rate._asdict(),
        "after": list(task.after),
        "despite_failure": task.despite_failure,
        "worker": record.worker,
        "cancel_requested": record.cancel_requested,
        "progress": record.progress,
        "result": record.result,
        "failure": None if failure is None else failure._asdict(),
    }


def plain_counts(counts: Counts, paused: Iterable[str]) -> dict[str, Any]:
    paused = set(paused)
    queues = {
        name: {"paused": name in paused, **{state: counts.get(name, {}).get(state, 0) for state in STATES}}
        for name in sorted(paused.union(counts))
    }
    return {"queues": queues, "total": {state: sum(one[state] for one in queues.values()) for state in STATES}}


# For people.


def count_table(counts: Counts, paused: Iterable[str]) -> RenderableType:
    """A row for each queue, and one for all if there are several."""
    told = plain_counts(counts, paused)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold cyan")
    table.add_column("QUEUE", overflow="ellipsis")
    for state in STATES:
        table.add_column(state.upper(), justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for name, one in told["queues"].items():
        row = [_number(one[state], STYLES.get(state, "")) for state in STATES]
        table.add_row(text(name), *row, Text("paused", "yellow") if one["paused"] else Text())
    if len(told["queues"]) > 1:
        table.add_section()
        table.add_row(Text("(all)", "bold"), *(_number(number, "bold") for number in told["total"].values()), Text())
    return table


def record_table(records: Sequence[Record], now: float, width: int) -> RenderableType:
    """A row for each; on a narrow screen without what matters least."""
    columns = [
        Column("ID", left=True),
        Column("NAME", left=True),
        Column("QUEUE", least=70, left=True),
        Column("STATE", left=True),
        Column("WHEN", least=50, left=True),
        Column("PRIORITY", least=110),
        Column("ATTEMPTS", least=90),
        Column("FAILURE", wide=True),
    ]
    rows: list[list[Cell]] = [
        [
            plain_id(record.task.id),
            record.task.name,
            record.task.queue,
            Text(record.state, STYLES.get(record.state, "")),
            _when(record, now),
            record.task.priority,
            record.attempts,
            "" if record.failure is None else _one_line(str(record.failure)),
        ]
        for record in records
    ]
    return Block(columns, rows).shown(width, len(rows))


def sheet(record: Record, now: float) -> RenderableType:
    """All that is known of one task."""
    told = plain_record(record)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    table.add_column(style="bold cyan")
    table.add_column(overflow="fold")
    for key in ("id", "name", "queue", "state", "priority"):
        table.add_row(key, text(told[key], STYLES.get(record.state, "") if key == "state" else ""))
    for key in ("created", "due", "started", "ended"):
        if told[key] is not None:
            table.add_row(key, text(f"{readable(told[key])} ({age(now - told[key])})"))
    table.add_row("attempts", text(_attempts(record)))
    for key in ("time_limit", "unique", "unique_for", "limit", "rate", "worker", "progress"):
        if (value := told[key]) is not None:
            told_so = value if isinstance(value, str) and key != "progress" else _json(value)
            table.add_row(key.replace("_", " "), text(told_so))
    if record.task.after:
        ids = ", ".join(record.task.after)
        table.add_row("after", text(f"{ids}{' (however they end)' if record.task.despite_failure else ''}"))
    if record.cancel_requested:
        table.add_row("cancelled", text("asked for while it ran"))
    table.add_row("data", _lines(_json(told["data"])))
    if record.result is not None or record.state == "done":
        table.add_row("result", _lines(_json(told["result"])))
    if record.failure is None:
        return table
    table.add_row("failure", _lines(str(record.failure), "red"))
    return Group(table, Text(), _lines(record.failure.traceback)) if record.failure.traceback else table


def readable(time: float) -> str:
    """A moment, in the zone of this machine, which it names."""
    try:
        return datetime.fromtimestamp(time).astimezone().isoformat(" ", "seconds")
    except (OverflowError, ValueError, OSError):  # beyond what a calendar knows
        return f"{time:.0f} s after 1970"


def age(seconds: float) -> str:
    return f"in {duration(-seconds)}" if seconds < 0 else f"{duration(seconds)} ago"


def plain_id(id: str) -> str:
    """The id as tables have it."""
    return id[:SHOWN] if re.fullmatch("[0-9a-f]{32}", id) else id


def _when(record: Record, now: float) -> str:
    """The time that matters in its state."""
    if record.ended is not None:
        return age(now - record.ended)
    if record.state == "running" and record.started is not None:
        return f"for {duration(now - record.started)}"
    return age(now - (record.due if record.state == "scheduled" else record.created))


def _attempts(record: Record) -> str:
    crashes = f", {record.crashes} of them crashed" if record.crashes else ""
    retries = "" if record.task.retries is None else f" (may be tried again {record.task.retries} times)"
    return f"{record.attempts}{crashes}{retries}"


def _number(number: int, style: str = "") -> Text:
    return Text(f"{number:,}", style if number else "dim")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=repr)


def _one_line(value: str) -> str:
    return " ".join(value.split())


def _lines(value: str, style: str = "") -> Text:
    return Text("\n").join(text(line, style) for line in value.splitlines())
