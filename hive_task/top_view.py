"""What `hive-task top` shows of a report, as a function of it and of the one before, on a screen of any size.

A head (whose picture it is, totals, throughput, latencies), then tables: workers, functions, transactions, queues,
changes of the number of workers. Where there is no room, columns and rows are left out, the less important first.
Rates and busy shares are of the time between the two reports; without an earlier one, of the whole time so far.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from itertools import groupby

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hive_task.picture import Percentiles, Picture, Totals, WorkerPicture
from hive_task.top_format import Block, Cell, Column, duration, flow, rate, shares, text
from hive_task.watching import Counted, Report

STYLES = {
    "new": "cyan",
    "starting": "cyan",
    "running": "green",
    "idle": "blue",
    "leaving": "yellow",
    "stopping": "yellow",
    "overdue": "bold red",
    "stopped": "red",
}

#: Who is shown if there is no room for all.
URGENCY = {"overdue": 0, "leaving": 1, "starting": 2, "running": 3}

#: From this width on, two small tables stand side by side.
WIDE = 110

#: On a screen that is lower, tables are worth more than latencies.
LOW = 16

#: Rows of each table where there is no end of the page.
MOST_ROWS = 40


def view(report: Report, before: Report | None, width: int, height: int | None) -> RenderableType:
    """A view of `report` for so many columns, and lines (None: any number)."""
    if before is not None and before.picture.taken >= report.picture.taken:
        before = None
    lines = [*_head(report, width), *_summary(report, before, width)]
    if height is None or height >= LOW:
        lines += _latencies(report.picture, width)
    main = [_workers(report, before, width), _functions(report), _transactions(report, before)]
    small = [_queues(report), _changes(report)]
    paired = width >= WIDE and all(block.rows for block in small)
    wanted = [len(block.rows) for block in main]
    wanted += [max(len(block.rows) for block in small)] if paired else [len(block.rows) for block in small]
    wanted = [min(rows, MOST_ROWS) for rows in wanted]
    rows = wanted if height is None else shares(wanted, height - len(lines))
    shown: list[RenderableType] = [*lines]
    for block, number in zip(main if paired else main + small, rows, strict=False):
        if number:
            shown += ["", block.shown(width, number)]
    if paired and rows[-1]:
        shown += ["", _beside(small, width, rows[-1])]
    return Group(*shown)


def _beside(blocks: list[Block], width: int, lines: int) -> Table:
    grid = Table.grid(expand=True, padding=(0, 4, 0, 0))
    for _ in blocks:
        grid.add_column(ratio=1)
    grid.add_row(*(block.shown(width // len(blocks), lines) for block in blocks))
    return grid


def _head(report: Report, width: int) -> list[Text]:
    picture, program = report.picture, report.program
    return flow(
        [
            text(picture.name, "bold"),
            text(picture.state, STYLES.get(picture.state, "")),
            Text(f"up {duration(picture.uptime)}"),
            Text(f"pid {program.pid}"),
            text(os.path.basename(program.argv0) or program.argv0),
            text(f"{program.implementation} {program.python}, GIL {'on' if program.gil else 'off'}"),
        ],
        width,
    )


def _summary(report: Report, before: Report | None, width: int) -> Iterator[Text]:
    picture, totals = report.picture, report.picture.totals
    failed = "bold red" if totals.failed else ""
    yield from flow(
        [
            _item("", f"{rate(_throughput(picture, before))} works/s" + ("" if before else " on average"), "bold"),
            _item("queued", f"{totals.queued:,}"),
            _item("running", f"{totals.running:,}"),
            _item("finished", f"{totals.finished:,}"),
            _item("failed", f"{totals.failed:,}", failed),
            _item("cancelled", f"{totals.cancelled:,}"),
            _item("submitted", f"{totals.submitted:,}"),
        ],
        width,
    )
    lost = [_item("lost workers", f"{picture.lost_workers:,}", "bold red")] if picture.lost_workers else []
    size = f"{picture.minimum}" if picture.minimum == picture.maximum else f"{picture.minimum} to {picture.maximum}"
    yield from flow(
        [
            _item("workers", f"{len(picture.workers)} of {size}"),
            *lost,
        ],
        width,
    )


def _latencies(picture: Picture, width: int) -> list[Text]:
    return flow([*_percentiles("waits", picture.waits), *_percentiles("durations", picture.durations)], width)


def _item(name: str, value: str, style: str = "") -> Text:
    return Text.assemble((f"{name} ", "dim"), (value, style)) if name else Text(value, style)


def _percentiles(name: str, of: Percentiles) -> list[Text]:
    if not of.count:
        return []
    points = ((point, getattr(of, point)) for point in ("p50", "p90", "p99"))
    return [_item(name, "  ".join(f"{point} {duration(seconds)}" for point, seconds in points))]


def _throughput(picture: Picture, before: Report | None) -> float:
    if before is None:
        return picture.totals.done / picture.uptime if picture.uptime > 0 else 0.0
    earlier: Totals = before.picture.totals
    return max(0, picture.totals.done - earlier.done) / (picture.taken - before.picture.taken)


def _workers(report: Report, before: Report | None, width: int) -> Block:
    columns = (
        Column("WORKER", left=True),
        Column("STATE", left=True),
        Column("WORK", wide=True),
        Column("SINCE"),
        Column("BUSY"),
        Column("QUEUED", 80),
        Column("FINISHED", 70),
        Column("FAILED", 80),
        Column("PID", 100),
        Column("AGE", 100),
    )
    earlier = {one.uuid: one for one in before.picture.workers} if before else {}
    span = report.picture.taken - before.picture.taken if before else 0.0
    workers = sorted(report.picture.workers, key=lambda worker: URGENCY.get(worker.state, 9))
    rows = [_worker(worker, earlier.get(worker.uuid), span, width >= 100) for worker in workers]
    states = Counter(worker.state for worker in workers)
    return Block(columns, rows, "more; all: " + ", ".join(f"{count} {state}" for state, count in states.items()))


def _worker(worker: WorkerPicture, earlier: WorkerPicture | None, span: float, whole_names: bool) -> tuple[Cell, ...]:
    busy, age = (worker.busy - earlier.busy, span) if earlier else (worker.busy, worker.age)
    share = min(1.0, max(0.0, busy / age)) if age > 0 else 0.0
    last = worker.works[-1] if worker.works else None
    late = last is not None and last.time_limit is not None and last.seconds > last.time_limit
    since = Text(duration(last.seconds), "bold red" if late else "") if last else None
    return (
        text(worker.name),
        text(worker.state, STYLES.get(worker.state, "")),
        _work(worker, whole_names),
        since,
        Text(f"{share:.0%}", "" if share >= 0.005 else "dim"),
        worker.queued,
        worker.finished,
        Text(f"{worker.failed:,}", "bold red" if worker.failed else "dim"),
        None if worker.process is None else str(worker.process),
        worker.age,
    )


def _work(worker: WorkerPicture, whole_names: bool) -> Text:
    """The innermost is the one that runs; the others wait for it, or for another. Many of one function are counted."""
    names = (work.function if whole_names else work.function.rpartition(".")[2] for work in worker.works)
    runs = [(name, len(list(same))) for name, same in groupby(names)]
    shown = text(" > ".join(name if count == 1 else f"{name} x{count}" for name, count in runs))
    if worker.works:
        last = worker.works[-1]
        notes = [last.category] if last.category is not None else []
        notes += [f"priority {last.priority}"] if last.priority else []
        notes += ["waits"] if last.waiting else []
        if notes:
            shown.append_text(text(f" ({', '.join(notes)})", "dim"))
    return shown


def _functions(report: Report) -> Block:
    columns = (
        Column("FUNCTION", wide=True),
        Column("CALLS"),
        Column("FAILED", 70),
        Column("MEAN"),
        Column("SHORTEST", 100),
        Column("LONGEST", 80),
        Column("TOTAL"),
        Column("SHARE", 70),
    )
    functions = sorted(report.picture.functions.values(), key=lambda one: -one.seconds)
    total = sum(one.seconds for one in functions) or 1.0
    rows = [
        (
            text(one.function),
            one.count,
            Text(f"{one.failed:,}", "bold red" if one.failed else "dim"),
            one.mean,
            one.shortest,
            one.longest,
            one.seconds,
            f"{one.seconds / total:.0%}",
        )
        for one in functions
    ]
    return Block(columns, rows, "more functions")


def _transactions(report: Report, before: Report | None) -> Block:
    columns = (
        Column("TRANSACTION", wide=True),
        Column("COMMITS"),
        Column("PER S", 70),
        Column("ABORTS"),
        Column("PER COMMIT", 70),
        Column("RETRIES", 80),
        Column("WAITED", 100),
        Column("FAILED", 100),
        Column("MEAN", 80),
        Column("CONFLICTS AT", 110, left=True),
    )
    counted = sorted((report.transactions or {}).values(), key=lambda one: (-one.aborts, -one.seconds))
    earlier = (before.transactions if before else None) or {}
    span = report.counted_for - (before.counted_for if before else 0.0)
    rows = [_transaction(one, earlier.get(one.name), span) for one in counted]
    return Block(columns, rows, "more transactions")


def _transaction(one: Counted, earlier: Counted | None, span: float) -> tuple[Cell, ...]:
    recent = one.commits - (earlier.commits if earlier else 0)
    per_commit = one.aborts / one.commits if one.commits else 0.0
    calls = one.commits + one.failures
    worst = next(iter(one.conflicts.items()), None)
    return (
        text(one.name),
        one.commits,
        rate(max(0, recent) / span) if span > 0 else None,
        one.aborts,
        Text(f"{per_commit:.2f}", "bold red" if per_commit > 1 else "yellow" if per_commit > 0.05 else "dim"),
        one.retries,
        one.waited,
        one.failures,
        one.seconds / calls if calls else None,
        None if worst is None else f"{worst[0]} ({worst[1]:,})",
    )


def _queues(report: Report) -> Block:
    columns = (Column("QUEUE", wide=True), Column("LENGTH"), Column("PRIORITY"))
    queues = sorted(report.picture.queues, key=lambda queue: -queue.length)
    return Block(columns, [(text(one.name), one.length, str(one.priority)) for one in queues], "more queues")


def _changes(report: Report) -> Block:
    columns = (Column("SCALED", left=True), Column("WORKERS", left=True), Column("REASON", wide=True))
    changes = sorted(report.picture.changes, key=lambda change: -change.at)
    rows = [
        (f"{duration(max(0.0, report.picture.taken - one.at))} ago", f"{one.before} to {one.after}", text(one.reason))
        for one in changes
    ]
    return Block(columns, rows, "earlier changes")
