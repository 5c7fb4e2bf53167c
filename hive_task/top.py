"""`hive-task top`: a live view of a running program, by `watching.py`; what it looks like is told in `top_view.py`.

In a terminal it takes the whole screen, and gives it back at the end. Where the output is no terminal, one view is
printed after the other. Ctrl-C is the way to end it, and no failure (exit code 0); with `--once` it is one (130).
"""

from __future__ import annotations

import io
import json
import signal
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from hive_task.errors import HiveTaskError
from hive_task.monitor_protocol import LONGEST, SHORTEST
from hive_task.top_format import text
from hive_task.top_view import view
from hive_task.watching import Report, messages, watch

INTERRUPTED = 130


def top(
    path: Annotated[str, typer.Argument(help="The socket of the program: what it gave to serve_monitor().")],
    interval: Annotated[
        float, typer.Option(min=SHORTEST, max=LONGEST, help="Seconds between two pictures, over which rates are taken.")
    ] = 0.5,
    once: Annotated[bool, typer.Option("--once", help="Print one view (rates over one interval) and exit.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print pictures as lines of JSON; with --once, one.")] = False,
) -> None:
    """Watch a running program: its workers, queues, functions and transactions."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # rather a question mark than no view in a terminal without Unicode
    try:
        if as_json:
            _print_json(path, interval, once)
        else:
            _show(path, interval, once)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED if once else 0) from None
    except BrokenPipeError:
        raise  # from printing: nobody reads any more, which typer knows how to end quietly
    except (HiveTaskError, OSError) as error:
        print(f"hive-task top: {text(_reason(error))}", file=sys.stderr)
        raise typer.Exit(1) from None
    if not once and not as_json:
        print(f"The program at {path} has ended.")


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _print_json(path: str, interval: float, once: bool) -> None:
    for message in messages(path, None if once else interval):
        print(json.dumps(message, separators=(",", ":")), flush=True)


def _show(path: str, interval: float, once: bool) -> None:
    console = Console(highlight=False)
    if once:
        _print_once(path, interval, console)
    elif console.is_terminal and not console.is_dumb_terminal:
        _show_live(path, interval, console)
    else:
        _print_views(path, interval, console)


def _print_views(path: str, interval: float, console: Console) -> None:
    before: Report | None = None
    for report in watch(path, interval):
        if before is not None:
            console.print()
        console.print(view(report, before, console.width, None))
        before = report


def _print_once(path: str, interval: float, console: Console) -> None:
    reports: list[Report] = []
    for report in watch(path, interval):
        reports.append(report)
        if len(reports) == 2:
            break
    console.print(view(reports[-1], reports[-2] if reports[1:] else None, console.width, None))


def _show_live(path: str, interval: float, console: Console) -> None:
    before: Report | None = None
    signal.signal(signal.SIGTERM, _terminated)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        for report in watch(path, interval):
            live.update(view(report, before, console.width, console.height), refresh=True)
            before = report
    if before is not None:
        console.print(view(before, None, console.width, None))  # the last one stays


def _terminated(number: int, _: object) -> None:
    """End by way of what gives the screen back."""
    sys.exit(128 + number)
