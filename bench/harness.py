"""How workloads are measured: interleaving, threads that start together, and the arithmetic on what they took.

Promises: all repeats of all points are interleaved; a workload's invariant is checked after every single run; the
functions on numbers are pure, and say "nothing" (an empty tuple) rather than something misleading when the difference
they'd have to divide by vanishes in the noise.

Garbage collection stays on while we measure. Transactions allocate, locks don't, so collections are part of what a
transaction costs its user, and switching them off would flatter one side. But what the run before left behind, or the
preparation of this one made, is not its cost: a full collection comes last before the clock starts. (Without it, a
short run may pay for the collection that a thousand operands had all but triggered.)
"""

from __future__ import annotations

import gc
import math
import queue
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final

from bench.results import Chart, Figure, Quantity, Result, Series, Spread, spread

#: Seconds until threads that don't come to an end are taken for stuck. Far above what any run takes.
PATIENCE: Final = 120.0

Measurement = Mapping[Quantity, float]
Start = Callable[[], None]
Body = Callable[[Start], None]


class InvariantError(AssertionError):
    """A run left something behind that no correct synchronisation could have left."""


class StuckError(RuntimeError):
    """Threads of a run did not come to an end."""


@dataclass(frozen=True)
class Plan:
    """How much to measure. `scale` multiplies every number of operations; 1.0 is the full run."""

    threads: tuple[int, ...] = (1, 2)
    repeats: int = 5
    scale: float = 1.0

    def operations(self, full: int, least: int = 1) -> int:
        return max(least, round(full * self.scale))


@dataclass(frozen=True)
class Point:
    """One thing to run: a variant in a setting, on so many threads."""

    setting: str
    variant: str
    threads: int


@dataclass(frozen=True)
class Summary:
    """What a workload makes of its samples, besides the samples themselves."""

    figures: Sequence[Figure] = ()
    charts: Sequence[Chart] = ()
    findings: Sequence[str] = ()
    unmeasured: Mapping[str, str] = field(default_factory=dict)


class Samples:
    """All measurements of a workload: for each point one per repeat, in order, so that indices pair them up."""

    def __init__(self) -> None:
        self.by_point: dict[Point, list[Measurement]] = {}

    def add(self, point: Point, measurement: Measurement) -> None:
        self.by_point.setdefault(point, []).append(measurement)

    def values(self, point: Point, quantity: Quantity) -> tuple[float, ...]:
        """One value per repeat; nothing if this was not measured."""
        return tuple(sample[quantity] for sample in self.by_point.get(point, ()) if quantity in sample)

    def figures(self) -> list[Figure]:
        """Everything that was measured, as figures."""
        return [
            Figure(point.setting, point.variant, point.threads, quantity, self.values(point, quantity))
            for point, samples in self.by_point.items()
            for quantity in samples[0]
        ]

    def series(self, label: str, points: Sequence[Point], quantity: Quantity) -> Series:
        """A chart's series over these points."""
        values = [self.values(point, quantity) for point in points]
        return Series(label, tuple(spread(some) if some else None for some in values))


class Workload(ABC):
    """One question to the machine. Constructing and preparing it may take time; that is not measured."""

    name: ClassVar[str]
    shows: ClassVar[str]
    variants: ClassVar[tuple[str, ...]]

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def lacking(self) -> str:
        """Why it can't be run here at all; empty if it can."""
        return ""

    def prepare(self) -> None:  # noqa: B027 - most need nothing
        """Make what the runs need, if that needs more than every interpreter has."""

    @abstractmethod
    def points(self) -> Iterable[Point]:
        """What one repeat runs, in order. Points to be compared with each other should be neighbours."""

    @abstractmethod
    def run(self, point: Point) -> Measurement:
        """Run one point once, a fixed number of operations."""

    @abstractmethod
    def check(self) -> None:
        """Raise `InvariantError` unless the run just ended left everything as it must be."""

    def summarise(self, samples: Samples) -> Summary:
        """Ratios, charts, and what they say in words."""
        return Summary()


# Arithmetic


def interleave(points: Sequence[Point], repeats: int) -> Iterator[Point]:
    """A, B, C, then A, B, C again: whatever slows the machine down for a while slows all of them down."""
    for _ in range(repeats):
        yield from points


def per_repeat(function: Callable[..., float], *columns: Sequence[float]) -> tuple[float, ...]:
    """Apply a function to the values of each repeat. Nothing if a column is missing, or a result isn't a number."""
    if not all(columns):
        return ()
    results = tuple(function(*values) for values in zip(*columns, strict=True))
    return results if all(map(math.isfinite, results)) else ()


def quotient(dividend: float, divisor: float) -> float:
    """Infinite where the divisor isn't positive: such a ratio says nothing."""
    return dividend / divisor if divisor > 0 else math.inf


def ratios(dividends: Sequence[float], divisors: Sequence[float]) -> tuple[float, ...]:
    """The ratio within each repeat."""
    return per_repeat(quotient, dividends, divisors)


def net_of_loop(totals: Sequence[float], loops: Sequence[float]) -> tuple[float, ...]:
    """What an operation takes beyond the empty loop around it, in each repeat."""
    return per_repeat(lambda total, loop: total - loop, totals, loops)


def nanoseconds(rates: Sequence[float]) -> tuple[float, ...]:
    """Nanoseconds per operation, from operations per second."""
    return per_repeat(lambda rate: quotient(1e9, rate), rates)


#: A median ratio beyond which a win is one, and not two equals in the noise.
CLEARLY: Final = 1.05


def wins_from(lengths: Sequence[int], ratios: Sequence[Spread | None]) -> int | None:
    """The shortest length from which on every ratio is above 1, clearly and in each repeat; `None` if none is."""
    winner = None
    for length, ratio in zip(reversed(lengths), reversed(ratios), strict=True):
        if ratio is None or ratio.low <= 1 or ratio.median < CLEARLY:
            break
        winner = length
    return winner


# Threads


def run_together(bodies: Sequence[Body], *, apart: bool = False, patience: float = PATIENCE) -> float:
    """Run the bodies, each in a thread of its own, and return the seconds from the first start to the last end.

    Each body prepares what it needs, calls the function that it is given, and works; they go on from that call
    together. What a body raises is raised here. One body alone runs in the calling thread, as a program without
    threads would (on free-threaded builds, objects of one's own thread are cheaper to touch), unless `apart`.
    """
    if len(bodies) == 1 and not apart:
        return _run_here(bodies[0])
    barrier = threading.Barrier(len(bodies), action=_collect)
    ended: queue.SimpleQueue[tuple[float, float, BaseException | None]] = queue.SimpleQueue()

    def live(body: Body) -> None:
        started = 0.0

        def start() -> None:
            nonlocal started
            barrier.wait(patience)
            started = time.perf_counter()

        error: BaseException | None = None
        try:
            body(start)
        except BaseException as caught:
            error = caught
        ended.put((started, time.perf_counter(), error))
        if error is not None:
            barrier.abort()  # the others may still be waiting for this thread to start

    # Daemons, because a thread that a bug in the library under test leaves asleep mustn't keep the program alive.
    threads = [threading.Thread(target=live, args=(body,), daemon=True) for body in bodies]
    for thread in threads:
        thread.start()
    starts, ends = [], []
    for _ in threads:
        try:
            started, end, error = ended.get(timeout=patience)
        except queue.Empty:
            raise StuckError(f"threads did not end within {patience:g} s") from None
        if error is not None:
            raise error
        starts.append(started)
        ends.append(end)
    for thread in threads:
        thread.join()
    return max(ends) - min(starts)


def _collect() -> None:
    gc.collect()


def _run_here(body: Body) -> float:
    started = 0.0

    def start() -> None:
        nonlocal started
        _collect()
        started = time.perf_counter()

    body(start)
    return time.perf_counter() - started


# The whole


def measure(workload: Workload, on_step: Callable[[Point], object] = lambda point: None) -> Result:
    """All repeats of a workload. Whatever goes wrong in it ends this workload, and is in the result's `broken`."""
    began = time.perf_counter()
    skipped = workload.lacking()
    if skipped:
        return Result(workload.name, workload.shows, (), findings=(f"Skipped: {skipped}.",), skipped=skipped)
    samples = Samples()
    broken = ""
    point = None
    try:
        workload.prepare()
        for point in interleave(list(workload.points()), workload.plan.repeats):
            on_step(point)
            measurement = workload.run(point)
            workload.check()
            samples.add(point, measurement)
        point = None
        summary = workload.summarise(samples)
    except InvariantError as error:
        broken, summary = str(error), Summary()
    except Exception as error:
        traceback.print_exc()
        broken, summary = f"{type(error).__name__}: {error}", Summary()
    if broken and point is not None:
        broken = f"{point.variant} on {point.threads} threads, {point.setting}: {broken}"
    return Result(
        workload.name,
        workload.shows,
        (*samples.figures(), *summary.figures),
        tuple(summary.charts),
        tuple(summary.findings),
        broken,
        time.perf_counter() - began,
        unmeasured=summary.unmeasured,
    )
