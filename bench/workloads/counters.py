"""`counter`: threads that add to one sum: a `TCounter`, an integer under a lock, and a `TVar` that all of them update.

And how often adding to a `TCounter` conflicts. An `add` on its own is an operation of the counter's, whose aborts are
those that `stm.stats` counts; in a transaction of the program each run of the body is counted as an attempt.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Final

from bench.harness import (
    Body,
    InvariantError,
    Measurement,
    Plan,
    Point,
    Samples,
    Start,
    Summary,
    Workload,
    ratios,
    run_together,
)
from bench.results import Chart, Figure, Quantity, spread
from bench.tables import count_of, number
from stm import TCounter, TVar, atomically, stats

ADDITIONS: Final = 200_000
CROWD: Final = 4

FREELY: Final = "1 added at a time"
COUNTED: Final = "1 added at a time, with statistics"
IN_BODIES: Final = "1 added in a transaction"

RATE: Final = Quantity("throughput", "additions/s", "higher")
RATIO: Final = Quantity("throughput ratio", "", "higher")
ABORTS: Final = Quantity("aborted attempts", "", "lower")

STM: Final = "TCounter"
LOCK: Final = "int, one lock"
VARIABLE: Final = "TVar"


@dataclass(frozen=True)
class Sum:
    """`add` adds 1; `value` is for checks, when nobody else is at work."""

    add: Callable[[], object]
    value: Callable[[], int]


def counter_sum() -> Sum:
    counter = TCounter()
    return Sum(lambda: counter.add(1), counter.get)


def locked_sum() -> Sum:
    total, lock = 0, threading.Lock()

    def add() -> None:
        nonlocal total
        with lock:
            total += 1

    return Sum(add, lambda: total)


def variable_sum() -> Sum:
    variable = TVar(0)

    @atomically
    def add() -> None:
        variable.set(variable.get() + 1)

    return Sum(add, variable.peek)


SUMS: Final[dict[str, Callable[[], Sum]]] = {STM: counter_sum, LOCK: locked_sum, VARIABLE: variable_sum}


class Counter(Workload):
    name: ClassVar[str] = "counter"
    shows: ClassVar[str] = (
        "How fast threads add to one TCounter, next to an integer under a lock, and that they never conflict."
    )
    variants: ClassVar[tuple[str, ...]] = tuple(SUMS)

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.count = plan.operations(ADDITIONS)
        self.threads = tuple(sorted({*plan.threads, CROWD}))
        self.found = self.expected = 0

    def points(self) -> Iterator[Point]:
        for threads in self.threads:
            for variant in self.variants:
                yield Point(FREELY, variant, threads)
        for setting in (COUNTED, IN_BODIES):
            yield Point(setting, STM, CROWD)

    def run(self, point: Point) -> Measurement:
        total = SUMS[point.variant]()
        aborts: list[int] = []

        def freely(start: Start) -> None:
            add = total.add
            start()
            for _ in range(self.count):
                add()

        def in_bodies(start: Start) -> None:
            attempts = 0

            @atomically
            def add() -> None:
                nonlocal attempts
                attempts += 1
                total.add()

            start()
            for _ in range(self.count):
                add()
            aborts.append(attempts - self.count)

        bodies: list[Body] = [in_bodies if point.setting == IN_BODIES else freely] * point.threads
        if point.setting == COUNTED:
            with stats.enabled():
                seconds = run_together(bodies)
            aborts.append(sum(record.aborts for record in stats.snapshot().values()))
        else:
            seconds = run_together(bodies)
        self.found, self.expected = total.value(), point.threads * self.count
        measurement = {RATE: self.expected / seconds}
        if aborts:
            measurement[ABORTS] = sum(aborts)
        return measurement

    def check(self) -> None:
        if self.found != self.expected:
            raise InvariantError(f"{self.expected} additions of 1 have come to {self.found}")

    def summarise(self, samples: Samples) -> Summary:
        figures, findings = [], []
        for threads in self.threads:
            rates = {variant: samples.values(Point(FREELY, variant, threads), RATE) for variant in self.variants}
            for other in (LOCK, VARIABLE):
                values = ratios(rates[STM], rates[other])
                if values:
                    figures.append(Figure(FREELY, f"{STM} / {other}", threads, RATIO, values))
                    findings.append(
                        f"{count_of(threads, 'thread')}: a {STM} is added to {number(spread(values).median)} times as "
                        f"often as {'an' if other == LOCK else 'a'} {other}."
                    )
        categories = tuple(count_of(threads, "thread") for threads in self.threads)
        series = [
            samples.series(variant, [Point(FREELY, variant, threads) for threads in self.threads], RATE)
            for variant in self.variants
        ]
        return Summary(
            figures, [Chart("Additions a second", "", RATE.unit, categories, tuple(series), "bar")], findings
        )
