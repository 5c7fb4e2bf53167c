"""`hive-task queue ...`: look into the file of a `SQLiteQueue`, and do by hand what its tasks need.

The programs that use the file may go on meanwhile. None of these commands makes a file: one that is not there, or no
queue, is a wrong use.

Exit codes: 0 when it is done; 1 when nothing was changed, or not all of what was named, or nothing was found; 2 for a
wrong use or a file that is no queue, each told in one line. With `--json` there is exactly one JSON document on stdout.
"""

from __future__ import annotations

import enum
import io
import json
import os
import re
import sqlite3
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer
from rich.console import Console, RenderableType

from hive_task.errors import HiveTaskError
from hive_task.queue_format import count_table, plain_counts, plain_id, plain_record, record_table, sheet
from hive_task.top_format import text

if TYPE_CHECKING:
    from hive_task.background import Record, SQLiteQueue

UNCHANGED, WRONG_USE = 1, 2

#: A part of an id must be so long.
SHORTEST = 4

#: Columns of a table that nothing bounds.
UNBOUNDED = 10_000

#: Tasks that are read at once, where all are meant.
BATCH = 1000

State = Literal["scheduled", "waiting", "queued", "running", "done", "dead", "cancelled"]


class Ended(enum.StrEnum):
    """(A list of literals is more than typer knows.)"""

    DONE = "done"
    DEAD = "dead"
    CANCELLED = "cancelled"


PathArgument = Annotated[str, typer.Argument(help="The file of the queue: what SQLiteQueue() was given.")]
Ids = Annotated[
    list[str] | None, typer.Argument(metavar="ID...", help=f"Ids, or their first characters ({SHORTEST} at least).")
]
Queues = Annotated[list[str], typer.Argument(metavar="QUEUE...", help="Names of queues.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
OfState = Annotated[State | None, typer.Option("--state", help="Only tasks in this state.")]
OfQueue = Annotated[str | None, typer.Option("--queue", help="Only tasks of this queue.")]
OfName = Annotated[str | None, typer.Option("--name", help="Only tasks of this name.")]
All = Annotated[bool, typer.Option("--all", help="All tasks that --state, --queue and --name choose.")]

queue = typer.Typer(no_args_is_help=True, help="Look into the file of a SQLiteQueue, and mend what is in it.")


@queue.command()
def stats(path: PathArgument, as_json: AsJson = False) -> None:
    """How many tasks there are, by queue and state."""
    with opened(path) as source:
        counts, paused = source.count_tasks(), source.paused_queues()
    if as_json:
        _print_json(plain_counts(counts, paused))
    elif counts or paused:
        _print(lambda _: count_table(counts, paused))
    else:
        print("There are no tasks.")


@queue.command(name="list")
def list_tasks(
    path: PathArgument,
    state: OfState = None,
    queue: OfQueue = None,
    name: OfName = None,
    limit: Annotated[int, typer.Option(min=1, help="So many at most.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List tasks, the newest first."""
    with opened(path) as source:
        records = source.list_tasks(state=state, queue=queue, name=name, limit=limit)
    if as_json:
        _print_json({"tasks": [plain_record(record) for record in records]})
    elif records:
        _print(lambda width: record_table(records, time.time(), width))
    else:
        print("There are no such tasks.")


@queue.command()
def show(
    path: PathArgument,
    id: Annotated[str, typer.Argument(help=f"Its id, or the first characters ({SHORTEST} at least).")],
    as_json: AsJson = False,
) -> None:
    """Show one task: its data, what it returned, how it failed."""
    with opened(path) as source:
        found = _find(source, path, id)
    if isinstance(found, str):
        _fail(found, UNCHANGED)
    elif as_json:
        _print_json(plain_record(found))
    else:
        _print(lambda _: sheet(found, time.time()))


@queue.command()
def retry(
    path: PathArgument,
    ids: Ids = None,
    state: Annotated[Literal["dead", "cancelled"] | None, typer.Option(help="Only tasks in this state.")] = None,
    queue: OfQueue = None,
    name: OfName = None,
    every: All = False,
    as_json: AsJson = False,
) -> None:
    """Queue dead or cancelled tasks again, as if they were new."""
    with opened(path) as source:
        chosen = _chosen(source, path, ids, every, state=state, queue=queue, name=name)
        why = "it is {state}; only dead and cancelled tasks can be tried again"
        _change(source, chosen, source.retry_tasks, "queued again", why, every, as_json)


@queue.command()
def cancel(
    path: PathArgument,
    ids: Ids = None,
    state: Annotated[
        Literal["scheduled", "waiting", "queued", "running"] | None, typer.Option(help="Only tasks in this state.")
    ] = None,
    queue: OfQueue = None,
    name: OfName = None,
    every: All = False,
    as_json: AsJson = False,
) -> None:
    """Cancel tasks that have not begun; ask those that run to end."""
    with opened(path) as source:
        chosen = _chosen(source, path, ids, every, state=state, queue=queue, name=name)
        why = "it is {state}; what has ended can't be cancelled"
        _change(source, chosen, source.cancel_tasks, "cancelled, or asked to end", why, every, as_json)


@queue.command()
def pause(path: PathArgument, queues: Queues, as_json: AsJson = False) -> None:
    """Hand out no more tasks of these queues. What runs goes on."""
    with opened(path) as source:
        _switch(source, queues, source.pause_queue, True, as_json)


@queue.command()
def resume(path: PathArgument, queues: Queues, as_json: AsJson = False) -> None:
    """Hand out tasks of these queues again."""
    with opened(path) as source:
        _switch(source, queues, source.resume_queue, False, as_json)


@queue.command()
def purge(
    path: PathArgument,
    older_than: Annotated[
        str, typer.Option(metavar="TIME", help="Only what ended so long ago: seconds, or 30m, 12h, 7d.")
    ] = "0",
    state: Annotated[
        list[Ended] | None, typer.Option(help="Only this state; may be given several times. [default: done, cancelled]")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Forget tasks that have ended."""
    before = time.time() - seconds(older_than)
    with opened(path) as source:
        number = source.purge(before, states=state or (Ended.DONE, Ended.CANCELLED))
    if as_json:
        _print_json({"purged": number})
    else:
        print(f"{_tasks(number)} forgotten.")
    _end(number > 0)


# The file.


@contextmanager
def opened(path: str) -> Iterator[SQLiteQueue]:
    """The queue in a file that exists. What is wrong with the file ends the command."""
    from hive_task.background import SQLiteQueue

    if not os.path.exists(path):
        _fail(f"{path}: there is no such file", WRONG_USE)
    if not os.path.isfile(path):
        _fail(f"{path}: this is no file", WRONG_USE)
    if not os.path.getsize(path):
        _fail(f"{path}: this file is empty, it is no queue", WRONG_USE)
    try:
        with closing(SQLiteQueue(path)) as source:
            yield source
    except BrokenPipeError:
        raise  # from printing: nobody reads any more, which typer knows how to end quietly
    except (HiveTaskError, OSError, sqlite3.Error) as error:
        _fail(str(error), WRONG_USE)


# Choosing tasks.


def _find(source: SQLiteQueue, path: str, wanted: str) -> Record | str:
    """The task with that id, or the only one whose id begins so; else what is wrong with it."""
    wanted = wanted.rstrip("…")  # (as tables have what is too long for them)
    if (record := source.find_task(wanted)) is not None:
        return record
    if len(wanted) < SHORTEST:
        return f"there is no task {wanted!r}; the beginning of an id needs {SHORTEST} characters"
    ids = ids_beginning_with(path, wanted)
    if len(ids) > 1:
        some = ", ".join(ids[:3]) + (", ..." if ids[3:] else "")
        return f"there are several tasks whose ids begin with {wanted!r}: {some}"
    record = source.find_task(ids[0]) if ids else None
    return f"there is no task {wanted!r}" if record is None else record


def ids_beginning_with(path: str, beginning: str) -> list[str]:
    """Some of them. (Not all ids are in an index, so this looks through all tasks: 0.1 s for a million.)"""
    with closing(sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True)) as connection:
        query = "SELECT id FROM tasks WHERE id >= ? AND id < ? ORDER BY id LIMIT 4"
        return [id for (id,) in connection.execute(query, (beginning, beginning + "\U0010ffff"))]


#: What was given, and the task that this names; or why it names none.
Chosen = tuple[str, "Record | str"]


def _chosen(source: SQLiteQueue, path: str, ids: list[str] | None, every: bool, **options: Any) -> Iterator[Chosen]:
    """The tasks that are named, or all of them."""
    if every == bool(ids):
        _fail("give ids, or --all with --state, one of both", WRONG_USE)
    if every and options["state"] is None:
        _fail("--all needs --state, to say which", WRONG_USE)
    if not every and any(option is not None for option in options.values()):
        _fail("--state, --queue and --name go with --all", WRONG_USE)
    return _all(source, options) if every else ((id, _find(source, path, id)) for id in dict.fromkeys(ids or ()))


def _all(source: SQLiteQueue, options: dict[str, Any]) -> Iterator[Chosen]:
    """Each once, although they may stay in that state, come back to it, or be joined by others."""
    seen: set[str] = set()
    limit = BATCH
    while True:
        records = source.list_tasks(**options, limit=limit)
        fresh = [record for record in records if record.task.id not in seen]
        seen.update(record.task.id for record in fresh)
        yield from ((record.task.id, record) for record in fresh)
        if len(records) < limit and not fresh:
            return
        if not fresh:
            limit *= 2  # what was changed is still there, before what was not


# Changing them.


def _change(
    source: SQLiteQueue,
    chosen: Iterable[Chosen],
    change: Callable[[list[str]], list[bool]],
    done: str,
    why_not: str,
    every: bool,
    as_json: bool,
) -> NoReturn:
    """Change each, and tell. What was named must be changed; of all there are, at least one."""
    changed: list[str] = []
    unchanged: list[dict[str, str]] = []
    chosen = iter(chosen)
    while some := list(islice(chosen, BATCH)):
        ids = list(dict.fromkeys(record.task.id for _, record in some if not isinstance(record, str)))
        good = dict(zip(ids, change(ids), strict=True))
        for given, record in some:
            if isinstance(record, str):
                unchanged.append({"id": given, "reason": record})
            elif good[record.task.id]:
                changed.append(record.task.id)
            else:
                now = source.find_task(record.task.id)
                reason = "it was forgotten meanwhile" if now is None else why_not.format(state=now.state)
                unchanged.append({"id": record.task.id, "reason": f"{plain_id(record.task.id)}: {reason}"})
    if not every:
        for one in unchanged:
            _tell(one["reason"])
    if as_json:
        _print_json({"changed": changed, "unchanged": unchanged})
    else:
        print(f"{_tasks(len(changed))} {done}.")
    _end(bool(changed) and (every or not unchanged))


def _switch(
    source: SQLiteQueue, queues: Iterable[str], switch: Callable[[str], None], paused: bool, as_json: bool
) -> None:
    """Pause or resume."""
    before = source.paused_queues()
    changed = [name for name in dict.fromkeys(queues) if (name in before) is not paused]
    for name in changed:
        switch(name)
    if as_json:
        _print_json({"changed": changed, "paused": sorted(source.paused_queues())})
    else:
        for name in dict.fromkeys(queues):
            already = "" if name in changed else " already"
            print(f"{text(name)} is {'paused' if paused else 'not paused'}{already}.")
    _end(bool(changed))


def seconds(value: str) -> float:
    """Of what `--older-than` is given."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", value.strip())
    if match is None:
        _fail(f"--older-than is a number of seconds, or such as 30m, 12h, 7d, not {value!r}", WRONG_USE)
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


# Telling.


def _tasks(number: int) -> str:
    return "1 task" if number == 1 else f"{number:,} tasks"


def _print(shown: Callable[[int], RenderableType]) -> None:
    """What is to be shown, on so many columns: in a terminal as it has; elsewhere, such as in a pipe, as need be."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    console = Console(highlight=False)
    if console.is_terminal or "COLUMNS" in os.environ:
        console.print(shown(console.width))
        return
    console = Console(highlight=False, width=UNBOUNDED)
    with console.capture() as captured:
        console.print(shown(UNBOUNDED))
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def _print_json(document: Any) -> None:
    print(json.dumps(document, allow_nan=False, default=repr))


def _tell(message: str) -> None:
    print(f"hive-task queue: {text(' '.join(message.split()))}", file=sys.stderr)


def _fail(message: str, code: int) -> NoReturn:
    _tell(message)
    raise typer.Exit(code)


def _end(good: bool) -> NoReturn:
    raise typer.Exit(0 if good else UNCHANGED)
