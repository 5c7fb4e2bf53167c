"""`read-set`: does the cost of a read stay the same in transactions that read a lot?

Nobody else commits, and then a commit has nothing to compare: the clock stands where the transaction began. The variant
`validated` therefore moves the clock in the middle of each transaction (by looking at a `stm.after` whose time has
come, which commits on its own account), so that its commit does compare all that it has read; what those other commits
take is measured by itself and subtracted. `nothing` is the same loop over plain objects: what of the growth is the
memory's, not the transaction's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Final

from bench.harness import (
    InvariantError,
    Measurement,
    Plan,
    Point,
    Samples,
    Start,
    Summary,
    Workload,
    per_repeat,
    ratios,
    run_together,
)
from bench.results import Chart, Figure, Quantity
from bench.tables import number
from stm import TVar, after, atomically

SIZES: Final = (1, 10, 100, 1_000, 10_000, 100_000)
#: What the others are compared with: large enough for the fixed cost of a transaction not to dominate.
REFERENCE: Final = 10
#: Reads of all transactions of a run together.
READS: Final = 1_000_000
MOST_TRANSACTIONS: Final = 100_000

COST: Final = Quantity("cost per read", "ns", "lower")
RELATIVE: Final = Quantity(f"cost per read, relative to {REFERENCE} reads", "", "lower")
FLATNESS: Final = Quantity(f"cost per read, dearest / cheapest from {REFERENCE} reads on", "", "lower")

Transaction = Callable[[Sequence[Any], "TVar[int]", "TVar[bool]"], int]


class Plain:
    """What a variable is without transactions."""

    __slots__ = ("value",)

    def __init__(self, value: int) -> None:
        self.value = value

    def get(self) -> int:
        return self.value


def read_all(variables: Sequence[Any], target: TVar[int], due: TVar[bool]) -> int:
    total = 0
    for variable in variables:
        total += variable.get()
    return total


def read_and_write(variables: Sequence[Any], target: TVar[int], due: TVar[bool]) -> int:
    total = 0
    for variable in variables:
        total += variable.get()
    target.set(total)
    return total


def read_and_write_validated(variables: Sequence[Any], target: TVar[int], due: TVar[bool]) -> int:
    total = 0
    for variable in variables:
        total += variable.get()
    due.peek()
    target.set(total)
    return total


def fire(start: Start, count: int) -> None:
    """The commits that move the clock, alone."""
    due = [after(0) for _ in range(count)]
    start()
    for moment in due:
        moment.peek()


VALIDATED: Final = "one write, validated"
VARIANTS: Final[dict[str, Transaction]] = {
    "one write": atomically(read_and_write),
    VALIDATED: atomically(read_and_write_validated),
    "reads only": atomically(read_all),
    "nothing": read_all,
}
TRANSACTIONS: Final = tuple(VARIANTS)[:-1]


def setting_of(size: int) -> str:
    return f"{size:,} reads"


class ReadSet(Workload):
    name: ClassVar[str] = "read-set"
    shows: ClassVar[str] = (
        "Whether a read costs the same in a transaction that reads one variable and in one that reads 100,000."
    )
    variants: ClassVar[tuple[str, ...]] = tuple(VARIANTS)

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.sizes = {setting_of(size): size for size in SIZES}
        self.variables = [TVar(1) for _ in range(SIZES[-1])]
        self.plain = [Plain(1) for _ in range(SIZES[-1])]
        self.wrong: list[int] = []

    def points(self) -> Iterator[Point]:
        for setting in self.sizes:
            for variant in self.variants:
                yield Point(setting, variant, 1)

    def run(self, point: Point) -> Measurement:
        size = self.sizes[point.setting]
        transactions = self.plan.operations(min(READS // size, MOST_TRANSACTIONS))
        variables: Sequence[Any] = self.plain[:size] if point.variant == "nothing" else self.variables[:size]
        transaction = VARIANTS[point.variant]
        target = TVar(size)
        # Commits beside the transaction, one for each: they move the clock, and are made before the time is taken.
        due = [after(0) for _ in range(transactions)]
        totals: list[int] = []

        def work(start: Start) -> None:
            keep = totals.append
            start()
            for moment in due:
                keep(transaction(variables, target, moment))

        seconds = run_together([work])
        if point.variant == VALIDATED:
            seconds -= run_together([lambda start: fire(start, transactions)])
        self.wrong = [total for total in (*totals, target.peek()) if total != size]
        return {COST: seconds / (transactions * size) * 1e9}

    def check(self) -> None:
        if self.wrong:
            raise InvariantError(f"a transaction read a sum of {self.wrong[0]} from variables that nobody changed")

    def summarise(self, samples: Samples) -> Summary:
        figures: list[Figure] = []
        findings = []
        for variant in self.variants:
            costs = {size: samples.values(Point(setting, variant, 1), COST) for setting, size in self.sizes.items()}
            for setting, size in self.sizes.items():
                relative = ratios(costs[size], costs[REFERENCE])
                if relative:
                    figures.append(Figure(setting, variant, 1, RELATIVE, relative))
            compared = [values for size, values in costs.items() if size >= REFERENCE]
            flatness = per_repeat(lambda *of_sizes: max(of_sizes) / min(of_sizes), *compared)
            if flatness:
                figure = Figure(f"{REFERENCE} to {SIZES[-1]:,} reads", variant, 1, FLATNESS, flatness)
                figures.append(figure)
                findings.append(
                    f"{variant}: from {REFERENCE} to {SIZES[-1]:,} reads, the dearest read costs "
                    f"{number(figure.spread.median)} times the cheapest."
                )
        series = [
            samples.series(variant, [Point(setting, variant, 1) for setting in self.sizes], COST)
            for variant in self.variants
        ]
        categories = tuple(f"{size:,}" for size in SIZES)
        chart = Chart("Cost of one read", "reads in the transaction", COST.unit, categories, tuple(series), y_log=True)
        return Summary(figures, [chart], findings)
