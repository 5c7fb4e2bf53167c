"""`picture`: a consistent sum over ten thousand variables while two others write to them.

A lock makes the writers wait for the whole scan. An ordinary transaction runs again when a writer was faster. A
read-only transaction and `snapshot` read one past moment: nobody waits, nothing runs twice.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Final

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
from bench.tables import number
from bench.workloads.bank import BANKS, OPENING_BALANCE, draw
from stm import atomically, snapshot

VARIABLES: Final = 10_000
WRITERS: Final = 2
#: Transfers that a writer does between two looks at whether to stop.
CHUNK: Final = 32

QUIET: Final = "no writers"
BUSY: Final = "two writers"
SETTINGS: Final = {QUIET: 0, BUSY: WRITERS}

CPU: Final = Quantity("CPU time per picture", "ms", "lower")
WALL: Final = Quantity("wall time per picture", "ms", "lower")
ABORTS: Final = Quantity("aborted attempts per picture", "", "lower")
WRITES: Final = Quantity("throughput of the writers meanwhile", "transfers/s", "higher")
CPU_RATIO: Final = Quantity("CPU time per picture, relative to no writers", "", "lower")


class Scanner:
    """One way to take the picture. `attempts` counts runs of the body, where it can run more than once."""

    def __init__(self, variant: str) -> None:
        self.attempts = 0
        self.counts_attempts = variant in ("read-only", "ordinary")
        self.bank = bank = BANKS["lock" if variant == "lock" else "stm"](VARIABLES)
        variables = bank.accounts

        def body() -> int:
            self.attempts += 1
            total = 0
            for variable in variables:
                total += variable.get()
            return total

        self.scan: Callable[[], int]
        if variant == "lock":
            self.scan = lambda: bank.visit(variables, False)
        elif variant == "snapshot":
            self.scan = lambda: sum(snapshot(*variables))
        else:
            self.scan = atomically(read_only=variant == "read-only", name="picture")(body)


class Picture(Workload):
    name: ClassVar[str] = "picture"
    shows: ClassVar[str] = (
        f"What a consistent picture of {VARIABLES:,} variables costs, alone and while two writers change them, "
        "and what it leaves the writers."
    )
    variants: ClassVar[tuple[str, ...]] = ("read-only", "snapshot", "ordinary", "lock")

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.scans = plan.operations(100)
        self.routes = [draw(VARIABLES, CHUNK * 64, 2, seed=writer) for writer in range(WRITERS)]
        self.wrong: list[int] = []

    def points(self) -> Iterator[Point]:
        for setting, writers in SETTINGS.items():
            for variant in self.variants:
                yield Point(setting, variant, 1 + writers)

    def run(self, point: Point) -> Measurement:
        scanner = Scanner(point.variant)
        written: list[int] = []
        cpu: list[float] = []
        totals: list[int] = []
        done = threading.Event()

        def scan(start: Start) -> None:
            try:
                start()
                began = time.thread_time()
                totals.extend(scanner.scan() for _ in range(self.scans))
                cpu.append(time.thread_time() - began)
            finally:
                done.set()

        def writer(route: Sequence[tuple[int, ...]]) -> Body:
            def write(start: Start) -> None:
                transfer = scanner.bank.transfer
                chunks = in_chunks([tuple(scanner.bank.accounts[index] for index in pair) for pair in route])
                count = 0
                start()
                while not done.is_set():
                    for source, target in chunks[count // CHUNK % len(chunks)]:
                        transfer(source, target)
                    count += CHUNK
                written.append(count)

            return write

        bodies = [scan, *(writer(route) for route in self.routes[: SETTINGS[point.setting]])]
        # Apart even if alone, so that the figures with and without writers differ in the writers only.
        seconds = run_together(bodies, apart=True)
        self.wrong = [
            total for total in (*totals, sum(scanner.bank.balances())) if total != VARIABLES * OPENING_BALANCE
        ]
        measurement = {CPU: cpu[0] / self.scans * 1e3, WALL: seconds / self.scans * 1e3}
        if scanner.counts_attempts:
            measurement[ABORTS] = (scanner.attempts - self.scans) / self.scans
        if written:
            measurement[WRITES] = sum(written) / seconds
        return measurement

    def check(self) -> None:
        if self.wrong:
            raise InvariantError(
                f"{len(self.wrong)} pictures were inconsistent: one sums to {self.wrong[0]} "
                f"instead of {VARIABLES * OPENING_BALANCE}"
            )

    def summarise(self, samples: Samples) -> Summary:
        quiet, busy = ({v: Point(s, v, 1 + SETTINGS[s]) for v in self.variants} for s in (QUIET, BUSY))
        figures: list[Figure] = []
        findings = []
        for variant in self.variants:
            values = ratios(samples.values(busy[variant], CPU), samples.values(quiet[variant], CPU))
            if values:
                figures.append(Figure(BUSY, variant, 1 + WRITERS, CPU_RATIO, values))
            meanwhile, aborts = (samples.values(busy[variant], quantity) for quantity in (WRITES, ABORTS))
            if values and meanwhile:
                findings.append(
                    f"{variant}: under two writers a picture takes {number(spread(values).median)} times the CPU time "
                    "that it takes alone"
                    + (f", with {number(spread(aborts).median)} aborted attempts a picture" if aborts else "")
                    + f"; meanwhile the writers do {number(spread(meanwhile).median)} transfers a second."
                )
        charts = [
            Chart(title, "", quantity.unit, self.variants, tuple(series), kind="bar")
            for title, quantity, series in (
                ("CPU time of one picture", CPU, self._series(samples, CPU, {QUIET: quiet, BUSY: busy})),
                ("Writers' transfers a second meanwhile", WRITES, self._series(samples, WRITES, {BUSY: busy})),
            )
        ]
        return Summary(figures, charts, findings)

    def _series(self, samples: Samples, quantity: Quantity, settings: dict[str, dict[str, Point]]) -> list[Any]:
        return [samples.series(setting, list(points.values()), quantity) for setting, points in settings.items()]


def in_chunks(pairs: list[tuple[Any, ...]]) -> list[list[tuple[Any, ...]]]:
    return [pairs[first : first + CHUNK] for first in range(0, len(pairs), CHUNK)]
