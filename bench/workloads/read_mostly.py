"""`read-mostly`: ten reads an operation and a write now and then, as in a cache, a registry or a configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Final

from bench.harness import Measurement, Plan, Point, Samples, Start, Summary, Workload, run_together
from bench.results import Chart, Figure, Quantity, spread
from bench.tables import count_of, number
from bench.workloads.bank import BANKS, after_moves, audit, draw
from bench.workloads.transfer import RATE_RATIO, comparisons, drive

VARIABLES: Final = 1_000
READS: Final = 10
ONE_WRITES_IN: Final = 20
SETTING: Final = f"{VARIABLES:,} variables, {READS} reads, 1 in {ONE_WRITES_IN} writes two"

RATE: Final = Quantity("throughput", "operations/s", "higher")


class ReadMostly(Workload):
    name: ClassVar[str] = "read-mostly"
    shows: ClassVar[str] = (
        "What reading costs when writes are rare: ten reads an operation, one operation in twenty writes."
    )
    variants: ClassVar[tuple[str, ...]] = ("stm", "lock", "fine")

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        count = plan.operations(40_000)
        self.visits = [
            [
                (tuple(sorted(chosen)), index % ONE_WRITES_IN == 0)
                for index, chosen in enumerate(draw(VARIABLES, count, READS, seed=thread))
            ]
            for thread in range(max(plan.threads))
        ]
        self.found: Sequence[int] = ()
        self.expected: Sequence[int] = ()

    def points(self) -> Iterator[Point]:
        for threads in self.plan.threads:
            for variant in self.variants:
                yield Point(SETTING, variant, threads)

    def run(self, point: Point) -> Measurement:
        bank = BANKS[point.variant](VARIABLES)
        visits = self.visits[: point.threads]

        def body(visits: Sequence[tuple[tuple[int, ...], bool]]) -> Callable[[Start], None]:
            def work(start: Start) -> None:
                operands = [(tuple(bank.accounts[index] for index in chosen), moves) for chosen, moves in visits]
                start()
                drive(bank.visit, operands)

            return work

        seconds = run_together([body(of_thread) for of_thread in visits])
        self.found = bank.balances()
        self.expected = after_moves(VARIABLES, (chosen for part in visits for chosen, moves in part if moves))
        return {RATE: sum(map(len, visits)) / seconds}

    def check(self) -> None:
        audit(self.found, self.expected)

    def summarise(self, samples: Samples) -> Summary:
        figures: list[Figure] = list(comparisons(SETTING, self.plan.threads, self.variants, samples, RATE))
        findings = [
            f"On {count_of(figure.threads, 'thread')} STM runs {number(spread(figure.values).median)} times as many "
            "operations as the lock."
            for figure in figures
            if figure.quantity is RATE_RATIO
        ]
        series = [
            samples.series(variant, [Point(SETTING, variant, threads) for threads in self.plan.threads], RATE)
            for variant in self.variants
        ]
        categories = tuple(count_of(threads, "thread") for threads in self.plan.threads)
        chart = Chart("Operations a second", "", RATE.unit, categories, tuple(series), kind="bar")
        return Summary(figures, [chart], findings)
