"""Index every definition of a Python source tree through a scheduler: each file is a work, the index is transactional.

    python -m examples.index_by_scheduler                        index the standard library of this interpreter
    python -m examples.index_by_scheduler ~/src/project          ... or any folder
    python -m examples.index_by_scheduler --find OrderedDict     where is that defined?
    python -m examples.index_by_scheduler --workers 8 --limit 500 --serve /tmp/index.sock
    hive-task top /tmp/index.sock                                watch it, from another terminal

What it shows
-------------
It builds the index of `examples.index_source_tree`, which has threads, a list of work and a crew of its own. Here they
are a scheduler's, and what is left is this:

- `index_file` is the work: parse one file, and enter what it defines in one transaction. It knows nothing of others.
- `hand_over` submits all files in one step. How many workers there are is the scheduler's choice, without `--workers`.
- `look` takes a picture of the index *and* of the scheduler, of the same moment: the scheduler keeps what it knows in
  transactional variables, too, so its monitor can be read in anybody's transaction.

What it promises
----------------
Nothing is lost: each file is indexed, skipped with a reason (it can't be read or parsed), or reported as failed (its
work raised something else; the others go on). In every picture the scheduler's totals add up; and the files in the
index are at least those whose works have finished, and at most those and the ones whose works are running. The program
checks every picture, recounts the index at the end, and ends with code 1 if anything is wrong or a work has failed.
Ctrl-C cancels what is queued, and ends it with code 130.

What it costs
-------------
Nearly all the time goes to the parser. A file takes milliseconds, to submit, hand out and end its work some
microseconds. With the GIL the works take turns, which the scheduler notices: it then hires no more workers.
"""

from __future__ import annotations

import argparse
import os
import sys
import sysconfig
import warnings
from collections.abc import Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from examples.index_source_tree import (
    Counters,
    Index,
    Parser,
    Picture,
    Skipped,
    UsageError,
    collector_off,
    describe,
    list_files,
    parse,
    positive,
    progress,
    report_found,
    report_skipped,
    several,
)
from hive_task import Future, Scheduler, Work
from hive_task.picture import Picture as SchedulerPicture
from stm import atomically

#: A counter for all files would make any two transactions conflict. File n counts in number n modulo this.
COUNTERS = 8

#: Seconds between two pictures.
EVERY = 0.1


def index_file(index: Index, root: Path, number: int) -> None:
    """The work: what one file defines, into the index; or why it can't be told."""
    found = parse(root, index.files[number])
    if isinstance(found, Skipped):
        index.skip(number % COUNTERS, found)
    else:
        index.add(number % COUNTERS, found)


def hand_over(scheduler: Scheduler, index: Index, root: Path) -> list[Future[Any]]:
    """Submit a work for each file: all of them in one step."""
    return scheduler.put_works(Work(index_file, (index, root, number)) for number in range(len(index.files)))


@dataclass(frozen=True, slots=True)
class Look:
    """Index and scheduler at one moment."""

    index: Picture
    scheduler: SchedulerPicture

    def disagreements(self) -> list[str]:
        """Where the index differs from its counters or from what the scheduler says, in words."""
        totals = self.scheduler.totals
        # What index_source_tree calls "in hand" are the files whose works have begun, and that are not entered yet.
        # There may be none, and there may be as many as there are works running.
        begun = totals.finished + totals.running
        wrong = replace(self.index, in_hand=begun - self.index.counters.done, workers=totals.running).disagreements()
        if not totals.balanced:
            wrong.append(f"the scheduler's totals don't add up: {totals}")
        return wrong


@atomically(read_only=True)
def look(index: Index, scheduler: Scheduler) -> Look:
    """A picture of both. `read_only`: no worker waits for it, and it never has to run again."""
    return Look(index.picture(), scheduler.monitor())


@dataclass
class Result:
    """What came of a run. `failed`: files whose works raised what they should not, and what that was."""

    last: Look
    looks: int = 0
    wrong: list[str] = field(default_factory=list)
    failed: list[Skipped] = field(default_factory=list)


def build_index(root: Path, files: Sequence[str], workers: int | None, serve: str | None = None) -> Result:
    """Index these files with a scheduler of its own."""
    index = Index(files, COUNTERS)
    scheduler = Scheduler(workers, name="index")
    result = Result(look(index, scheduler))
    with ExitStack() as stack:
        if serve is not None:
            try:
                stack.enter_context(scheduler.serve_monitor(serve))
            except (OSError, ValueError) as error:
                raise UsageError(f"can't serve pictures at {serve}: {describe(error)}") from None
        show = stack.enter_context(progress("indexing by a scheduler", len(files)))
        stack.enter_context(scheduler)
        try:
            futures = hand_over(scheduler, index, root)
            over = False
            while not over:
                over = await_all(futures, EVERY)
                now = look(index, scheduler)
                result.looks += 1
                result.wrong += [f"picture {result.looks:,}: {wrong}" for wrong in now.disagreements()]
                show(now.scheduler.totals.done, several(now.index.counters.places, "place"))
        except BaseException:
            scheduler.shutdown(wait=False, cancel_futures=True)
            raise
    result.last = look(index, scheduler)
    result.failed = [*failures(files, futures)]
    result.wrong += [f"final index: {wrong}" for wrong in (*recount(result.last), *missing(result, len(files)))]
    return result


def await_all(futures: Sequence[Future[Any]], seconds: float) -> bool:
    """Sleep until all are done, but for no longer than this if one is not. Are they?"""
    for future in reversed(futures):  # the one that is begun last is done last, nearly
        try:
            future.exception(timeout=seconds)
        except TimeoutError:
            return False
        except CancelledError:
            continue
    return True


def failures(files: Sequence[str], futures: Sequence[Future[Any]]) -> list[Skipped]:
    """The files whose works failed, or were cancelled."""
    failed = []
    for path, future in zip(files, futures, strict=True):
        try:
            error: BaseException | None = future.exception()
        except CancelledError as cancelled:
            error = cancelled
        if error is not None:
            failed.append(Skipped(path, describe(error)))
    return failed


def recount(last: Look) -> list[str]:
    """The final index from the ground up, when all works are done: looks at every name and place."""
    return replace(last.index, in_hand=0).recount()


def missing(result: Result, files: int) -> list[str]:
    """Is each file indexed, skipped or failed, and does the scheduler say the same?"""
    counters, totals = result.last.index.counters, result.last.scheduler.totals
    wrong = []
    if counters.done + len(result.failed) != files:
        wrong.append(f"{files:,} files, but {told(counters, result)}")
    if (totals.submitted, totals.done, totals.finished) != (files, files, counters.done):
        wrong.append(f"{told(counters, result)}, but the scheduler says {totals}")
    return wrong


def told(counters: Counters, result: Result) -> str:
    return f"{counters.files:,} indexed, {counters.skipped:,} skipped, {len(result.failed):,} failed"


# --------------------------------------------------------------------------------------------------------- the report


def report_scheduler(picture: SchedulerPicture) -> None:
    """What the scheduler's monitor says at the end."""
    totals = picture.totals
    print(
        f"{several(totals.submitted, 'work')} submitted = {totals.queued:,} queued + {totals.running:,} running "
        f"+ {totals.finished:,} finished + {totals.failed:,} failed + {totals.cancelled:,} cancelled, "
        f"in {picture.uptime:.2f} s"
    )
    for profile in sorted(picture.functions.values(), key=lambda one: -one.seconds):
        print(f"  {profile.function}: {several(profile.count, 'call')}, {profile.mean * 1e3:.2f} ms each on average")
    spans = picture.durations
    print(f"  half of them took at most {spans.p50 * 1e3:.2f} ms, 99 of 100 at most {spans.p99 * 1e3:.2f} ms")
    for change in picture.changes:
        print(f"  {several(change.before, 'worker')}, then {change.after:,}: {change.reason}")


def report(root: Path, result: Result, options: argparse.Namespace, unreadable: Sequence[Skipped]) -> None:
    picture, counters = result.last.index, result.last.index.counters
    print(
        f"indexed {several(counters.files, 'file')} with {several(counters.lines, 'line')} below {root}: "
        f"{several(counters.names, 'name')}, {several(counters.places, 'place')}"
    )
    report_skipped(sorted([*unreadable, *picture.skipped]), options.verbose)
    for path, reason in result.failed:
        print(f"FAILED {path}: {reason}")
    report_scheduler(result.last.scheduler)
    verdict = (
        several(len(result.wrong), "disagreement").upper()
        if result.wrong
        else "none disagreed, and every file is accounted for"
    )
    print(f"{several(result.looks, 'picture')} of index and scheduler together: {verdict}")
    for each in result.wrong[:5]:
        print(f"DISAGREEMENT: {each}")
    for name in options.find:
        report_found(picture, name)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="index_by_scheduler", description="Index a Python source tree: each file is a scheduler's work."
    )
    parser.add_argument(
        "path",
        nargs="?",
        type=Path,
        default=Path(sysconfig.get_path("stdlib")),
        help="the folder (default: this interpreter's standard library, %(default)s)",
    )
    parser.add_argument("--find", action="append", default=[], metavar="NAME", help="print where NAME is defined")
    parser.add_argument(
        "--workers", type=positive, default=None, metavar="N", help="workers (default: as the scheduler sees fit)"
    )
    parser.add_argument("--limit", type=positive, default=None, metavar="N", help="only the first N files")
    parser.add_argument("--serve", default=None, metavar="PATH", help="a Unix socket for `hive-task top PATH`")
    parser.add_argument("--verbose", action="store_true", help="list all skipped files")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with these arguments (default: the command line's). Returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # names may not fit the encoding
    warnings.filterwarnings("ignore", module="<unknown>")  # what the parser warns of in other people's files
    options = arguments(argv)
    try:
        files, unreadable = list_files(options.path)
        files = files[: options.limit]
        with collector_off():
            result = build_index(options.path, files, options.workers, options.serve)
        report(options.path, result, options, unreadable)
        return 1 if result.wrong or result.failed else 0
    except UsageError as error:
        print(f"index_by_scheduler: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("index_by_scheduler: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read our output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return 1


if __name__ == "__main__":
    sys.exit(main())
