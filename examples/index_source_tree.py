"""Index every definition of a Python source tree with many threads, and watch the index while it grows.

    python -m examples.index_source_tree                        index the standard library of this interpreter
    python -m examples.index_source_tree ~/src/project          ... or any folder
    python -m examples.index_source_tree --find TextIOWrapper   where is that defined?
    python -m examples.index_source_tree --threads 8 --limit 500 --no-compare

What it shows
-------------
Threads parse the files with `ast` and build one shared index: name -> the places where it is defined. There is no lock
in this program, and no queue, condition or event either. All that the threads share is a handful of `TVar`s that hold
immutable values, and each step from one good state to the next is a function under `@atomically`:

- `Index.take` hands each file to exactly one worker;
- `Index.add` enters everything found in one file, and counts it, in one transaction: no observer ever sees half of a
  file, or a counter that disagrees with the index;
- `Index.picture` sees the whole index of one moment while the workers go on. The maps are persistent, so a picture is
  one reference per shard, however large the index is, and stays true for ever;
- `Crew.wait` sleeps until the work is over or somebody failed: `check`, with `after` as the alarm clock.

So read `Index`, `work` and `Crew` first; the rest is about files, arguments and printing.

What it promises
----------------
Every picture taken during the run agrees with its own counters; the program checks all of them. The final index is
recounted from the ground up, and equals what one thread finds with a plain dictionary; the program compares them, and
ends with code 1 if not. Files that can't be read or parsed are reported and skipped. Ctrl-C ends it at once (code
130). An unexpected error in any thread stops all of them and is raised in the main one.

What is indexed: each `class`; each `def` and `async def`, as a *method* if it stands in a class and as a *function*
otherwise, both at any depth; and as a *variable* each name that a statement of the module itself (not of a function
or class, but also inside its `if`, `try`, `with`, `for`, `while` and `match`) assigns: `x = 1`, `x: int = 1`,
`(a, *b) = c`. A name assigned twice has two places. Not indexed: imports, `x += 1`, `x := 1`, loop variables,
attributes, and names that exist only when the code runs.

What it costs
-------------
Nearly all the time goes to the parser. Adding a file takes well below a tenth of that, so the transactions of a few
workers meet now and then, and one that does meet another runs again (the program says how many did). Without the GIL
the threads parse in parallel; with it they take turns: threads gain nothing then, and the program says so.

`rich`, if it is installed, draws the progress bar.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import gc
import io
import os
import platform
import stat
import sys
import sysconfig
import threading
import time
import tokenize
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

from pyrsistent import PMap, PVector, pmap, pvector

from stm import TVar, after, atomically, check, on_rollback

# ------------------------------------------------------------------------------------------------- what is in one file


class Place(NamedTuple):
    """Where a name is defined. `path` is relative to the root of the tree, with forward slashes."""

    path: str
    line: int
    kind: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line} {self.kind}"


class Skipped(NamedTuple):
    """A file, or a folder, that could not be read, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Parsed:
    """What one file defines."""

    path: str
    lines: int
    definitions: tuple[tuple[str, Place], ...]


#: Statements that contain statements, and open no scope of their own.
BLOCKS: Final = (
    ast.If,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.With,
    ast.AsyncWith,
    ast.Try,
    ast.TryStar,
    ast.ExceptHandler,
    ast.Match,
    ast.match_case,
)

#: All that source text is known to do to those who open, decode and parse it. A null byte is a `ValueError` or a
#: `SyntaxError`, a decoder that isn't for text a `LookupError`, too deep a nesting `RecursionError` or `MemoryError`.
UNREADABLE: Final = (OSError, SyntaxError, ValueError, LookupError, RecursionError, MemoryError)


def parse(root: Path, path: str) -> Parsed | Skipped:
    """Read one file. Touches nothing shared, so it may take its time."""
    try:
        text = read_source(root / path)
        tree = ast.parse(text)
    except UNREADABLE as error:
        return Skipped(path, describe(error))
    lines = text.count("\n") + (not text.endswith("\n") and text != "")
    return Parsed(path, lines, tuple(definitions(tree, path)))


def read_source(file: Path) -> str:
    """The text of a source file, in the encoding that its first two lines declare (PEP 263)."""
    if not stat.S_ISREG(file.stat().st_mode):
        raise OSError("not a regular file")  # opening a named pipe would wait for ever
    with tokenize.open(file) as source:
        return source.read()


def describe(error: BaseException) -> str:
    """One line about why a file is skipped."""
    if isinstance(error, SyntaxError):
        where = "" if error.lineno is None else f"line {error.lineno}: "
        text = f"{where}{error.msg}"
    elif isinstance(error, OSError):
        text = error.strerror or str(error)
    else:
        text = str(error) or "no further explanation"
    return f"{type(error).__name__}: {' '.join(text.split())}"


def definitions(tree: ast.Module, path: str) -> Iterator[tuple[str, Place]]:
    """Every definition in a module, in no particular order.

    It keeps its own stack and looks at statements alone: expressions define nothing that we index, and they are most
    of the tree.
    """
    pending: list[tuple[ast.AST, str]] = [(tree, "module")]
    while pending:
        parent, scope = pending.pop()
        for node in statements(parent):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield node.name, Place(path, node.lineno, "method" if scope == "class" else "function")
                pending.append((node, "function"))
            elif isinstance(node, ast.ClassDef):
                yield node.name, Place(path, node.lineno, "class")
                pending.append((node, "class"))
            elif isinstance(node, BLOCKS):
                pending.append((node, scope))
            elif scope == "module":
                for name in assigned_names(node):
                    yield name.id, Place(path, name.lineno, "variable")


def statements(parent: ast.AST) -> Iterator[ast.AST]:
    """The statements directly below a node, and the `except` and `case` clauses, which hold statements in turn."""
    for part in ("body", "handlers", "orelse", "finalbody", "cases"):
        yield from getattr(parent, part, ())


def assigned_names(statement: ast.AST) -> Iterator[ast.Name]:
    """The names to which a statement assigns."""
    pending: list[ast.expr] = []
    if isinstance(statement, ast.Assign):
        pending += statement.targets
    elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
        pending.append(statement.target)
    while pending:
        target = pending.pop()
        if isinstance(target, ast.Name):
            yield target
        elif isinstance(target, (ast.Tuple, ast.List)):
            pending += target.elts
        elif isinstance(target, ast.Starred):
            pending.append(target.value)


# --------------------------------------------------------------------------------------------------- the shared index

# Why shards. With the whole index in one TVar any two workers that add at the same time conflict, and one of them does
# its work again. With one TVar for each name there would be tens of thousands, and a picture would have to read them
# all. In between the number matters little: a file touches many shards, names that every other file defines
# (`__init__`, `main`) would make transactions meet with any number of them, and a transaction is short beside the
# parsing before it. A few dozen cost a picture next to nothing.
#
# Why a prime. A PMap finds its bucket by the hash modulo a power of two. If all names of a shard had their lowest bits
# in common, as with 32 shards, they would crowd into one bucket of 32.
SHARDS: Final = 31


def shard_of(name: str) -> int:
    return hash(name) % SHARDS


@dataclass(frozen=True, slots=True)
class Shard:
    """One part of the index, and how many places are in it, counted as they come."""

    names: PMap[str, PVector[Place]] = field(default_factory=pmap)
    places: int = 0

    def with_places(self, found: Mapping[str, Sequence[Place]]) -> Shard:
        """This shard and the places in `found`. It shares all else with this one, which stays as it is."""
        names = self.names.evolver()
        places = self.places
        for name, new in found.items():
            known = self.names.get(name)
            names[name] = pvector(new) if known is None else known.extend(new)
            places += len(new)
        return Shard(names.persistent(), places)


@dataclass(frozen=True, slots=True)
class Counters:
    """What has been done so far, by one worker or by all."""

    files: int = 0
    skipped: int = 0
    names: int = 0
    places: int = 0
    lines: int = 0

    @property
    def done(self) -> int:
        return self.files + self.skipped

    def __add__(self, other: Counters) -> Counters:
        return Counters(
            self.files + other.files,
            self.skipped + other.skipped,
            self.names + other.names,
            self.places + other.places,
            self.lines + other.lines,
        )


@dataclass(frozen=True, slots=True)
class Picture:
    """The index at one moment. Nobody can change it any more.

    `in_hand`: files that were taken and not added yet, at most one for each of the `workers`.
    """

    shards: tuple[Shard, ...]
    skipped: PVector[Skipped]
    counters: Counters
    in_hand: int
    workers: int

    def disagreements(self) -> list[str]:
        """Where the counters differ from the index, in words: none, if transactions do what they promise.

        Cheap enough for every picture: each shard knows its size.
        """
        wrong = [
            *differ("names", self.counters.names, sum(len(shard.names) for shard in self.shards)),
            *differ("places", self.counters.places, sum(shard.places for shard in self.shards)),
            *differ("skipped files", self.counters.skipped, len(self.skipped)),
        ]
        if not 0 <= self.in_hand <= self.workers:
            wrong.append(f"{several(self.workers, 'worker')} with {several(self.in_hand, 'file')} in hand")
        return wrong

    def recount(self) -> list[str]:
        """The same from the ground up: looks at every name and place."""
        wrong = self.disagreements()
        files: set[str] = set()
        for number, shard in enumerate(self.shards):
            wrong += differ(f"places of shard {number}", shard.places, sum(map(len, shard.names.values())))
            wrong += [f"{name!r} is in shard {number}" for name in shard.names if shard_of(name) != number]
            files.update(place.path for places in shard.names.values() for place in places)
        if len(files) > self.counters.files:  # a file may define nothing, so there may be fewer
            wrong.append(f"places in {len(files):,} files, but {self.counters.files:,} files counted")
        return wrong

    def find(self, name: str) -> Sequence[Place]:
        return sorted(self.shards[shard_of(name)].names.get(name, ()))

    def names(self) -> Iterator[str]:
        for shard in self.shards:
            yield from shard.names


def several(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def differ(what: str, counted: int, found: int) -> list[str]:
    return [] if counted == found else [f"{counted:,} {what} counted, {found:,} in the index"]


class Index:
    """The index that all workers build together, and the list of what is still to do."""

    def __init__(self, files: Sequence[str], workers: int) -> None:
        self.files = tuple(files)
        self.shards = tuple(TVar(Shard(), name=f"shard {number}") for number in range(SHARDS))
        self.skipped: TVar[PVector[Skipped]] = TVar(pvector(), name="skipped")
        #: The work list: the files from this one on are nobody's yet.
        self.next = TVar(0, name="next file")
        # One for each worker, or counting alone would make any two transactions conflict. A picture adds them up.
        self.counters = tuple(TVar(Counters(), name=f"counters of worker {number}") for number in range(workers))
        #: How often each worker had to run a transaction again. Each writes its own alone, and none reads them.
        self.reruns = [0] * workers

    @atomically
    def take(self, worker: int) -> str | None:
        """The next file, which is this worker's from now on; None if there is none left."""
        on_rollback(self._count_rerun, worker)
        number: int = self.next.value
        if number == len(self.files):
            return None
        self.next.value = number + 1
        return self.files[number]

    def add(self, worker: int, parsed: Parsed) -> None:
        """Enter a file: all of it and the counters, or nothing."""
        # What doesn't depend on the index is done before the transaction, so that this is short and rerun at little
        # cost. Each shard is read and written once.
        by_shard: dict[int, dict[str, list[Place]]] = defaultdict(lambda: defaultdict(list))
        for name, place in parsed.definitions:
            by_shard[shard_of(name)][name].append(place)
        self._enter(worker, by_shard, Counters(files=1, places=len(parsed.definitions), lines=parsed.lines))

    @atomically
    def _enter(self, worker: int, by_shard: Mapping[int, Mapping[str, Sequence[Place]]], counted: Counters) -> None:
        on_rollback(self._count_rerun, worker)
        new_names = 0
        for number, found in by_shard.items():
            shard = self.shards[number]
            before, now = shard.value, shard.update(Shard.with_places, found)
            new_names += len(now.names) - len(before.names)
        self.counters[worker].value += replace(counted, names=new_names)

    @atomically
    def skip(self, worker: int, skipped: Skipped) -> None:
        """Record a file that could not be read."""
        on_rollback(self._count_rerun, worker)
        self.skipped.value = self.skipped.value.append(skipped)
        self.counters[worker].value += Counters(skipped=1)

    @atomically(read_only=True)
    def picture(self) -> Picture:
        """The whole index at one moment. `read_only`: it never has to run again, and no worker waits for it."""
        counters = self.total()
        return Picture(
            tuple(shard.value for shard in self.shards),
            self.skipped.value,
            counters,
            self.next.value - counters.done,
            len(self.counters),
        )

    @atomically(read_only=True)
    def total(self) -> Counters:
        return sum((counters.value for counters in self.counters), Counters())

    @atomically
    def await_progress(self, done: int, stop: TVar[bool]) -> bool:
        """Sleep until more than `done` files are done. False if no more will be."""
        on_the_way = done < len(self.files) and not stop.value
        check(self.total().done > done or not on_the_way)
        return on_the_way

    def _count_rerun(self, worker: int) -> None:
        self.reruns[worker] += 1


# --------------------------------------------------------------------------------------------------------- the threads


class Crew:
    """Threads that work together and end together.

    When one fails, all are told to stop; jobs look at `stop` between two files. `run` leaves no thread behind, however
    it ends.
    """

    def __init__(self) -> None:
        self.stop = TVar(False, name="stop")
        self.error: TVar[BaseException | None] = TVar(None, name="error")
        self.running = TVar(0, name="running")

    def run(self, jobs: Sequence[Callable[[], None]], show: Callable[[], None], every: float = 0.1) -> float:
        """Run all the jobs, calling `show` now and then, and return the seconds it took. Raises what a job raised."""
        threads = [threading.Thread(target=self._do, args=(job,)) for job in jobs]
        self.running.value = len(jobs)
        start = time.perf_counter()
        try:
            for thread in threads:
                thread.start()
            while not self.wait(every):
                show()
            seconds = time.perf_counter() - start
            show()
        finally:
            self.stop.value = True
            for thread in threads:
                if thread.ident is not None:  # it was started
                    thread.join()
        if self.error.value is not None:
            raise self.error.value
        return seconds

    def wait(self, seconds: float) -> bool:
        """Sleep until the crew has ended, but no longer than that. Has it?"""
        late = after(seconds)

        @atomically
        def ended() -> bool:
            over: bool = self.running.value == 0 or self.stop.value
            check(over or late.value)
            return over

        return ended()

    def _do(self, job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:  # it is raised again, in the main thread
            self._fail(error)
        finally:
            self.running.update(lambda running: running - 1)

    @atomically
    def _fail(self, error: BaseException) -> None:
        if self.error.value is None:  # others may well be consequences of the first
            self.error.value = error
        self.stop.value = True


def work(worker: int, root: Path, index: Index, stop: TVar[bool]) -> None:
    """A worker's life: take a file, parse it outside any transaction, add what it defines."""
    while not stop.value and (path := index.take(worker)) is not None:
        found = parse(root, path)
        if isinstance(found, Skipped):
            index.skip(worker, found)
        else:
            index.add(worker, found)


class Photographer:
    """Takes a picture whenever something was added, and checks each."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self.pictures = 0
        self.disagreements: list[str] = []

    def watch(self, stop: TVar[bool]) -> None:
        done = 0
        while self.index.await_progress(done, stop):
            picture = self.index.picture()
            self.pictures += 1
            self.disagreements += [f"picture {self.pictures:,}: {wrong}" for wrong in picture.disagreements()]
            done = picture.counters.done


class PlainIndex:
    """The same index, built by one thread in a plain dictionary: what the shared one is measured against."""

    def __init__(self) -> None:
        self.places: dict[str, list[Place]] = defaultdict(list)
        self.skipped: list[Skipped] = []
        self.files = 0
        self.lines = 0

    def build(self, root: Path, files: Iterable[str], stop: TVar[bool]) -> None:
        for path in files:
            if stop.value:
                return
            found = parse(root, path)
            if isinstance(found, Skipped):
                self.skipped.append(found)
            else:
                for name, place in found.definitions:
                    self.places[name].append(place)
                self.files += 1
                self.lines += found.lines

    def difference(self, picture: Picture) -> str | None:
        """The first difference to the shared index, in words."""
        for name in sorted(self.places.keys() | set(picture.names())):
            expected, found = sorted(self.places.get(name, ())), picture.find(name)
            if found != expected:
                odd = min(set(expected) ^ set(found), default=f"{len(expected)} places, {len(found)} in the index")
                return f"the places of {name!r}: {odd}"
        if sorted(self.skipped) != sorted(picture.skipped):
            return f"the skipped files: {min(set(self.skipped) ^ set(picture.skipped))}"
        if (self.files, self.lines) != (picture.counters.files, picture.counters.lines):
            return (
                f"{self.files:,} files with {self.lines:,} lines, "
                f"{picture.counters.files:,} with {picture.counters.lines:,} in the index"
            )
        return None


# -------------------------------------------------------------------------------------------------------- the file tree

NOT_SOURCE: Final = {"site-packages", "dist-packages", "__pycache__"}


class UsageError(Exception):
    """The user asked for something that can't be done."""


def list_files(root: Path) -> tuple[list[str], list[Skipped]]:
    """The Python files below a folder, sorted, and the folders that can't be read. `UsageError` if there is no file."""
    try:
        is_folder = stat.S_ISDIR(root.stat().st_mode)
    except FileNotFoundError:
        raise UsageError(f"no such folder: {root}") from None
    except OSError as error:
        raise UsageError(f"can't read {root}: {error.strerror}") from None
    if not is_folder:
        raise UsageError(f"not a folder: {root}")
    files: list[str] = []
    unreadable: list[Skipped] = []

    def report(error: OSError) -> None:
        unreadable.append(Skipped(relative(root, error.filename), describe(error)))

    for folder, subfolders, names in os.walk(root, onerror=report):
        subfolders[:] = [name for name in subfolders if name not in NOT_SOURCE]
        files += [relative(root, os.path.join(folder, name)) for name in names if name.endswith(".py")]
    if not files:
        because = f" ({unreadable[0].reason})" if unreadable else ""
        raise UsageError(f"no Python file in {root}{because}")
    return sorted(files), unreadable


def relative(root: Path, path: str) -> str:
    return Path(path).relative_to(root).as_posix()


def warm_up(root: Path, files: Iterable[str]) -> None:
    """Read all files once, so that the pass that comes first isn't the only one to wait for the disk."""
    for path in files:
        try:
            read_source(root / path)
        except UNREADABLE:
            pass  # whoever parses it will say so


# ------------------------------------------------------------------------------------------------------- the progress

Show = Callable[[int, str], None]


def progress(what: str, total: int) -> AbstractContextManager[Show]:
    """Tell the user on stderr how far we are: call what this gives with the number of files done, and a remark."""
    if not sys.stderr.isatty():
        return plain_lines(what, total)
    try:
        return rich_bar(what, total)
    except ImportError:
        return one_line_bar(what, total)


def rich_bar(what: str, total: int) -> AbstractContextManager[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[remark]}"),
    )
    # We refresh it ourselves: a thread of rich's own would only take time from those that we measure.
    bar = Progress(*columns, console=Console(stderr=True), auto_refresh=False, transient=True)

    @contextmanager
    def shown() -> Iterator[Show]:
        with bar:
            task = bar.add_task(what, total=total, remark="")
            yield lambda done, remark: bar.update(task, completed=done, remark=remark, refresh=True)

    return shown()


@contextmanager
def one_line_bar(what: str, total: int, width: int = 30) -> Iterator[Show]:
    def show(done: int, remark: str) -> None:
        full = width * done // total
        line = f"{what} [{'#' * full}{'.' * (width - full)}] {done:,}/{total:,} {remark}"
        print(f"\r{line:<79.79}", end="", file=sys.stderr, flush=True)

    try:
        yield show
    finally:
        print(f"\r{'':79}\r", end="", file=sys.stderr, flush=True)


@contextmanager
def plain_lines(what: str, total: int) -> Iterator[Show]:
    """For a log file or a pipe: a line at the beginning and at each quarter."""
    print(f"{what}: {several(total, 'file')}", file=sys.stderr, flush=True)
    quarters = 0

    def show(done: int, remark: str) -> None:
        nonlocal quarters
        if 4 * done // total > quarters:
            quarters = 4 * done // total
            print(f"{what}: {done:,} of {total:,} {remark}".rstrip(), file=sys.stderr, flush=True)

    yield show


# --------------------------------------------------------------------------------------------------------- the report


def report_skipped(skipped: Sequence[Skipped], verbose: bool, few: int = 5) -> None:
    if not skipped:
        return
    shown = skipped if verbose else skipped[:few]
    print(f"skipped {len(skipped):,} that can't be read or parsed:")
    for path, reason in shown:
        print(f"  {path}: {reason}")
    if len(shown) < len(skipped):
        print(f"  and {len(skipped) - len(shown):,} more (--verbose shows all)")


def report_times(threads: int, shared: float, alone: float | None) -> None:
    gil = sys._is_gil_enabled() if hasattr(sys, "_is_gil_enabled") else True
    free_threaded = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
    state = ("a free-threaded build with the GIL switched on" if free_threaded else "with the GIL") if gil else "no GIL"
    print(f"{platform.python_implementation()} {platform.python_version()}, {state}")
    print(f"  {shared:8.2f} s  {several(threads, 'thread')}, transactional index")
    if alone is not None:
        print(f"  {alone:8.2f} s  1 thread, plain dictionary")
        print(f"  {alone / shared:8.2f}    times as fast")
    if gil:
        print("The GIL lets one thread parse at a time, so threads gain nothing; on a free-threaded Python they do.")


def report_found(picture: Picture, name: str) -> None:
    places = picture.find(name)
    if places:
        print(f"{name}: defined in {several(len(places), 'place')}")
        for place in places:
            print(place)
        return
    close = difflib.get_close_matches(name, picture.names(), n=5)
    print(f"{name}: not defined here; " + (f"close: {', '.join(close)}" if close else "nothing close to it either"))


# -------------------------------------------------------------------------------------------------------- the program


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a run over a tree."""

    picture: Picture
    pictures: int
    disagreements: list[str]
    reruns: int
    seconds: float


@contextmanager
def collector_off() -> Iterator[None]:
    """Without the cyclic garbage collector, which might take half of the time to find that syntax trees hold no cycles.

    And the second of two passes would pay more than the first, since both indexes would be searched again and again.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def build_index(root: Path, files: Sequence[str], threads: int) -> Result:
    """Index these files with so many threads, and with one more that checks the pictures it takes."""
    crew = Crew()
    index = Index(files, threads)
    photographer = Photographer(index)
    jobs = [partial(work, worker, root, index, crew.stop) for worker in range(threads)]
    with progress(f"indexing, {several(threads, 'thread')}", len(files)) as show:

        def show_counters() -> None:
            counters = index.total()
            show(counters.done, several(counters.places, "place"))

        seconds = crew.run([*jobs, partial(photographer.watch, crew.stop)], show_counters)
    picture = index.picture()
    wrong = photographer.disagreements + [f"final index: {each}" for each in picture.recount()]
    return Result(picture, photographer.pictures, wrong, sum(index.reruns), seconds)


def build_plain_index(root: Path, files: Sequence[str]) -> tuple[PlainIndex, float]:
    """The same with one thread, and the seconds it took."""
    crew = Crew()
    plain = PlainIndex()
    # Not in the main thread, although one thread is all it takes: how deeply a file may be nested depends on the
    # stack, and this way both passes have the same.
    with progress("once more, 1 thread", len(files)) as show:
        seconds = crew.run(
            [partial(plain.build, root, files, crew.stop)], lambda: show(plain.files + len(plain.skipped), "")
        )
    return plain, seconds


def index_tree(options: argparse.Namespace) -> int:
    """The whole program, once its arguments are known. Returns the exit code."""
    root: Path = options.path
    files, unreadable = list_files(root)
    files = files[: options.limit]
    threads = min(options.threads, len(files))
    plain, alone, difference = None, None, None
    with collector_off():
        if options.compare:
            warm_up(root, files)
        result = build_index(root, files, threads)
        if options.compare:
            plain, alone = build_plain_index(root, files)
            difference = plain.difference(result.picture)

    counters = result.picture.counters
    print(
        f"indexed {several(counters.files, 'file')} with {several(counters.lines, 'line')} below {root}: "
        f"{several(counters.names, 'name')}, {several(counters.places, 'place')}"
    )
    report_skipped(sorted([*unreadable, *result.picture.skipped]), options.verbose)
    wrong = result.disagreements
    verdict = (
        several(len(wrong), "disagreement").upper()
        if wrong
        else "none disagreed with its counters, nor did the final recount"
    )
    print(f"{several(result.pictures, 'picture')} taken on the way: {verdict}")
    print(f"{several(result.reruns, 'transaction')} had to run again because of another")
    report_times(threads, result.seconds, alone)
    for each in wrong[:5]:
        print(f"DISAGREEMENT: {each}")
    if plain is not None:
        print(f"DIFFERENT from the pass with one thread: {difference}" if difference else "Both passes found the same.")
    for name in options.find:
        report_found(result.picture, name)
    return 1 if wrong or difference else 0


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")  # one line; argparse would put the usage before it


def positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 on, not {text!r}")
    return number


def usable_cpus() -> int:
    """How many processors this process may use."""
    if sys.version_info >= (3, 13):
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="index_source_tree",
        description="Index the definitions in a Python source tree with many threads and no locks.",
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
        "--threads", type=positive, default=usable_cpus(), metavar="N", help="workers (default: %(default)s)"
    )
    parser.add_argument("--limit", type=positive, default=None, metavar="N", help="only the first N files")
    parser.add_argument(
        "--no-compare", dest="compare", action="store_false", help="leave out the second pass, with one thread"
    )
    parser.add_argument("--verbose", action="store_true", help="list all skipped files")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with these arguments (default: the command line's). Returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names may not fit the terminal's encoding
    # What the parser warns of in other people's files is no concern of ours. Here, once, while there is one thread:
    # warnings.catch_warnings changes the whole process on most versions.
    warnings.filterwarnings("ignore", module="<unknown>")
    try:
        return index_tree(arguments(argv))
    except UsageError as error:
        print(f"index_source_tree: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("index_source_tree: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read our output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return 1


if __name__ == "__main__":
    sys.exit(main())
