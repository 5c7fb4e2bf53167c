"""Progress while workloads run: a bar where rich is importable and somebody is looking, plain lines otherwise.

Progress goes to standard error, so that standard output holds the results alone.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from bench.harness import Point
from bench.results import Result
from bench.tables import count_of


class Progress(Protocol):
    """What the run tells whoever watches."""

    def begin(self, workload: str, steps: int) -> None: ...

    def step(self, point: Point) -> None: ...

    def end(self, result: Result) -> None: ...


def closing_line(result: Result) -> str:
    if result.skipped:
        return f"{result.workload}: skipped: {result.skipped}"
    return f"{result.workload}: {'BROKEN: ' + result.broken if result.broken else f'{result.seconds:.1f} s'}"


class Lines:
    """A line when a workload has ended, nothing in between: the machine is measuring."""

    def begin(self, workload: str, steps: int) -> None:
        pass

    def step(self, point: Point) -> None:
        pass

    def end(self, result: Result) -> None:
        print(closing_line(result), file=sys.stderr, flush=True)


@contextmanager
def progress(label: str, workloads: Sequence[str]) -> Iterator[Progress]:
    """Watch a run of these workloads."""
    heading = f"{label}: {count_of(len(workloads), 'workload')}"
    try:
        import rich.console
        import rich.progress
    except ImportError:
        print(heading, file=sys.stderr, flush=True)
        yield Lines()
        return
    console = rich.console.Console(stderr=True)
    if not console.is_terminal:
        print(heading, file=sys.stderr, flush=True)
        yield Lines()
        return

    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeElapsedColumn(),
    )
    # No thread of its own: one that redraws ten times a second would be measured along with the workload.
    with rich.progress.Progress(*columns, console=console, auto_refresh=False, transient=True) as bar:

        class Bar:
            task = rich.progress.TaskID(0)
            drawn = 0.0

            def begin(self, workload: str, steps: int) -> None:
                self.task = bar.add_task(workload, total=steps)

            def step(self, point: Point) -> None:
                bar.advance(self.task)
                if time.monotonic() - self.drawn > 0.2:
                    bar.refresh()
                    self.drawn = time.monotonic()

            def end(self, result: Result) -> None:
                bar.remove_task(self.task)
                bar.console.print(closing_line(result), markup=False, highlight=False)

        console.print(heading, markup=False, highlight=False)
        yield Bar()
