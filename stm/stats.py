"""Statistics by transaction and by variable, and who is blocked: why is it slow, and why does it hang?

`with stats.enabled():` counts; `stats.snapshot()` returns what was counted, by transaction name; `stats.variables()`
the same conflicts by variable; `stats.report()` prints both, and what to do about it. Give names to what you want to
find again: `TVar(0, name="stock")`, `@atomically(name="order")`; a function's own name will do for the latter.

`stats.blocked()` lists the transactions that sleep in `retry()` now: what they wait for, since when, and the line that
called them. It needs nothing to be enabled, and costs nothing before it is called.

What is counted: every outermost call of a transaction, in any thread or task, from the moment of enabling. A nested
transaction belongs to the one around it. `get`, `set` and `compare_and_set` of a variable outside transactions are not
counted (but a `compare_and_set` that comes too late is an abort, under that name), nor are compiled transactions that
run alone.

Cost: nothing measurable while off, some 0.1 microseconds a transaction while on (`python -m bench --workload
statistics`). Counts are exact; `seconds` is estimated from a sample where calls are short, as told in `tally.py`, which
also says when the variables of one transaction are too many to be told apart.

>>> from stm import TVar, atomically, stats
>>> stock = TVar(10, name="stock")
>>> @atomically
... def take(number):
...     stock.value -= number
>>> with stats.enabled():
...     take(3)
...     take(4)
>>> stats.snapshot()["take"].commits
2
>>> stats.blocked()
()
"""

from __future__ import annotations

import linecache
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FrameType, MappingProxyType
from typing import Any, TextIO

from stm.clock import clock
from stm.tally import UNNAMED, Book, Tally

__all__ = [
    "Blocked",
    "Record",
    "VariableRecord",
    "blocked",
    "disable",
    "enable",
    "enabled",
    "report",
    "reset",
    "snapshot",
    "variables",
]


@dataclass(frozen=True, slots=True)
class Record:
    """What was counted of one transaction.

    `commits`: calls that committed, once each. `failures`: calls that ended with an exception instead (one that a hook
    raises after the commit is none). `aborts`: attempts thrown away because of a conflict. `retries`: attempts that
    called `retry()`. `waits`: how often it went to wait for a change, and `waited`: how long, in seconds. `extensions`:
    how often an attempt met a newer value and could go on, since nothing that it had read before was stale. `seconds`:
    from calls to their ends, in all, waits included. `conflicts`: how many aborts each variable has caused, by its
    name, most first. An abort may have several causes.
    """

    name: str
    commits: int
    aborts: int
    retries: int
    extensions: int
    waits: int
    seconds: float
    waited: float
    failures: int
    conflicts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class VariableRecord:
    """What was counted of one variable: the `aborts` that it caused, in all and by transaction, most first."""

    name: str
    aborts: int
    by_transaction: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Blocked:
    """A transaction that sleeps until one of `variables` changes.

    `seconds`: how long it has slept since it last looked. `where`: the innermost line outside `stm` that called it;
    `stack`: the lines that led there, innermost first. `task` is the name of the task, if it is awaited. If the task
    was made of the transaction itself, no line awaits it: then they say where the body begins.
    """

    name: str
    variables: tuple[str, ...]
    seconds: float
    thread: str
    task: str | None
    where: str
    stack: tuple[str, ...]

    def __str__(self) -> str:
        shown = ", ".join(self.variables[:4]) + (f" and {len(self.variables) - 4} more" if self.variables[4:] else "")
        who = f"task {self.task!r} of thread {self.thread!r}" if self.task is not None else f"thread {self.thread!r}"
        return (
            f"{self.name}, in {who}, for {_duration(self.seconds)}\n  waits for a change of {shown}\n  at {self.where}"
        )


class _Books:
    """The book that is open, or was last, and how many asked for it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # a signal handler may ask too
        self.users = 0
        self.last = Book()
        self.last.seconds = 0.0


_books = _Books()
os.register_at_fork(after_in_child=_books.lock._at_fork_reinit)  # type: ignore[attr-defined]


def enable() -> None:
    """Start counting from zero; if that was done already, go on. To be undone by `disable()`, as often."""
    with _books.lock:
        _books.users += 1
        if _books.users == 1:
            clock.book = _books.last = Book()


def disable() -> None:
    """Stop counting, once this was called as often as `enable()`. What was counted remains to be read."""
    with _books.lock:
        if _books.users == 0:
            raise RuntimeError("stats.disable() without stats.enable()")
        _books.users -= 1
        if _books.users == 0:
            clock.book = None
            _books.last.seconds = time.perf_counter() - _books.last.opened


@contextmanager
def enabled() -> Iterator[None]:
    """Count inside a `with` block, from zero unless somebody is counting already."""
    enable()
    try:
        yield
    finally:
        disable()


def reset() -> None:
    """Forget what was counted. Calls that are running now are not counted at all."""
    with _books.lock:
        fresh = Book()
        if _books.users:
            clock.book = fresh
        else:
            fresh.seconds = 0.0
        _books.last = fresh


def snapshot() -> Mapping[str, Record]:
    """What was counted so far, or in the last block that counted: a record for each name, in alphabetical order.

    Threads that are at work go on counting meanwhile, so the numbers of different records may be a moment apart.
    """
    found: dict[str, list[Tally]] = {}
    for account in list(_books.last.accounts.copy().values()):
        for name, tally in account.copy().items():
            found.setdefault(name or UNNAMED, []).append(tally)
    return MappingProxyType({name: _record(name, found[name]) for name in sorted(found)})


def _record(name: str, tallies: list[Tally]) -> Record:
    def total(field: str) -> Any:
        return sum(getattr(tally, field) for tally in tallies)

    causes: dict[str, int] = {}
    for tally in tallies:
        for label, count in tally.causes.copy().items():
            causes[label] = causes.get(label, 0) + count
    return Record(
        name,
        commits=total("commits"),
        aborts=total("aborts"),
        retries=total("retries"),
        extensions=total("extensions"),
        waits=total("waits"),
        seconds=float(total("seconds")),
        waited=float(total("waited")),
        failures=total("failures"),
        conflicts=_most_first(causes),
    )


def _most_first(counts: Mapping[str, int]) -> Mapping[str, int]:
    return MappingProxyType(dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))))


def variables() -> Mapping[str, VariableRecord]:
    """The variables that have caused aborts, most first."""
    found: dict[str, dict[str, int]] = {}
    for record in snapshot().values():
        for label, count in record.conflicts.items():
            found.setdefault(label, {})[record.name] = count
    totals = _most_first({label: sum(counts.values()) for label, counts in found.items()})
    return MappingProxyType(
        {label: VariableRecord(label, total, _most_first(found[label])) for label, total in totals.items()}
    )


def blocked() -> tuple[Blocked, ...]:
    """The transactions that sleep in `retry()` at this moment, longest first."""
    waiters = list(clock.sleepers.copy())
    frames = sys._current_frames()  # after that, so that they show who sleeps where it sleeps
    threads = {thread.ident: thread.name for thread in threading.enumerate()}
    now = time.monotonic()
    found = []
    for waiter in waiters:
        if waiter not in clock.sleepers:
            continue  # it has just gone
        task = getattr(waiter, "task", None)
        lines = list(_lines_of_task(task) if task is not None else _lines_of_thread(frames.get(waiter.thread)))
        found.append(
            Blocked(
                name=waiter.name or UNNAMED,
                variables=tuple(repr(variable) for variable in waiter.variables),
                seconds=max(0.0, now - waiter.since),
                thread=threads.get(waiter.thread, f"thread {waiter.thread}"),
                task=None if task is None else task.get_name(),
                where=lines[0] if lines else "an unknown place",
                stack=tuple(lines),
            )
        )
    return tuple(sorted(found, key=lambda one: -one.seconds))


#: What is on a stack below this directory is not the caller's.
_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep


def _lines_of_thread(frame: FrameType | None) -> Iterator[str]:
    while frame is not None:
        if not frame.f_code.co_filename.startswith(_OURS):
            yield _line(frame)
        frame = frame.f_back


#: Where what can be awaited has its frame, and what it awaits itself: coroutines, generators, asynchronous generators.
_LINKS = (("cr_frame", "cr_await"), ("gi_frame", "gi_yieldfrom"), ("ag_frame", "ag_await"))


def _lines_of_task(task: Any) -> Iterator[str]:
    """The lines at which the coroutines of a suspended task await each other, innermost first."""
    frames: list[FrameType] = []
    frame, awaited = _step(task.get_coro())
    while frame is not None:
        frames.insert(0, frame)
        frame, awaited = _step(awaited)
    theirs = [frame for frame in frames if not frame.f_code.co_filename.startswith(_OURS)]
    if theirs:
        yield from map(_line, theirs)
        return
    for frame in frames:
        body: Any = frame.f_locals.get("fn")
        body = getattr(body, "__wrapped__", body)
        code = getattr(body, "__code__", None)
        if code is not None:
            yield _place(code, code.co_firstlineno, body.__globals__)
            return


def _step(awaited: Any) -> tuple[FrameType | None, Any]:
    for frame_of, next_of in _LINKS:
        frame = getattr(awaited, frame_of, None)
        if frame is not None:
            return frame, getattr(awaited, next_of)
    return None, None


def _line(frame: FrameType) -> str:
    code = frame.f_code
    return _place(code, frame.f_lineno, frame.f_globals)


def _place(code: CodeType, number: int, names: dict[str, Any]) -> str:
    text = linecache.getline(code.co_filename, number, names).strip()
    return f"{code.co_filename}:{number} in {code.co_name}" + (f": {text}" if text else "")


def report(file: TextIO | None = None) -> None:
    """Print (to `file`, else to standard output) what was counted, where conflicts come from, and who is blocked."""
    print("\n".join(_report()), file=file)


_HEAD = (
    "transaction",
    "commits",
    "aborts",
    "per commit",
    "retries",
    "waits",
    "waited",
    "failures",
    "seconds",
    "per call",
)


def _report() -> Iterator[str]:
    records = sorted(snapshot().values(), key=lambda record: -record.seconds)
    book = _books.last
    seconds = book.seconds if book.seconds is not None else time.perf_counter() - book.opened
    if not records:
        yield "No transactions were counted (with stm.stats.enabled(): ... counts them)."
    else:
        yield f"Transactions in {_duration(seconds)}, the dearest first"
        yield from _table([_HEAD, *map(_row, records)])
    culprits = list(variables().values())
    if culprits:
        yield ""
        yield "Where conflicts come from"
        aborts = sum(record.aborts for record in records)
        rows = [("variable", "aborts", "share", "of"), *(_culprit(one, aborts) for one in culprits[:10])]
        yield from _table(rows, text=(0, 3))
        yield from _advice(records, culprits)
    sleeping = blocked()
    if sleeping:
        yield ""
        yield f"Blocked at this moment: {len(sleeping)}"
        yield from map(str, sleeping[:10])
        if sleeping[10:]:
            yield f"... and {len(sleeping) - 10} more (stm.stats.blocked() lists all)"


def _row(record: Record) -> tuple[str, ...]:
    calls = record.commits + record.failures
    return (
        record.name,
        str(record.commits),
        str(record.aborts),
        f"{record.aborts / record.commits:.2f}" if record.commits else "-",
        str(record.retries),
        str(record.waits),
        _duration(record.waited),
        str(record.failures),
        _duration(record.seconds),
        _duration(record.seconds / calls) if calls else "-",
    )


def _duration(seconds: float) -> str:
    unit, number = "µs", seconds * 1e6
    for larger, size in (("ms", 1e-3), ("s", 1.0)):
        if seconds >= 0.9995 * size:
            unit, number = larger, seconds / size
    return f"{number:.3g} {unit}" if number < 999.5 else f"{number:.0f} {unit}"


def _culprit(one: VariableRecord, aborts: int) -> tuple[str, ...]:
    by = ", ".join(f"{name} ({count})" for name, count in list(one.by_transaction.items())[:3])
    return (one.name, str(one.aborts), f"{one.aborts / max(1, aborts):.0%}", by)


def _advice(records: list[Record], culprits: list[VariableRecord]) -> Iterator[str]:
    """What to do, where more than one attempt in twenty is in vain."""
    aborts = sum(record.aborts for record in records)
    if aborts < 0.05 * sum(one.aborts + one.commits + one.retries + one.failures for one in records):
        yield "Fewer than one attempt in twenty is in vain: nothing needs to be split."
        return
    if aborts < 20:
        yield "Too few to say what should be split."
        return
    worst = culprits[0]
    yield (
        f"{worst.name!r} is behind {worst.aborts / max(1, aborts):.0%} of the aborts. If transactions use different "
        "parts of it, split it:\na TMap instead of a map in one TVar, one TVar for each part, a TCounter for a sum. If "
        "some of them only look at it,\nread it with peek(), or run them with read_only=True. If all change it, keep "
        "what comes before and after out of the body."
    )


def _table(rows: list[tuple[str, ...]], text: tuple[int, ...] = (0,)) -> Iterator[str]:
    """Rows under a head. Columns that are listed in `text` are flush left, others, which hold numbers, flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for number, row in enumerate(rows):
        cells = (
            cell.ljust(width) if index in text else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(cells).rstrip()
        if number == 0:
            yield "  ".join("-" * width for width in widths)
