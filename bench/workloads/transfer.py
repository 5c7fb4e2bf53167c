"""`transfer`: the smallest transaction that needs to be one, against the same under locks.

Measured beside the variants: the empty loop over the same operands, which is subtracted where a figure says "net of the
loop", and `nothing`, the same function without synchronisation, which shows how much of a lock's or a transaction's
time is the call itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, ClassVar, Final, NamedTuple

from bench.harness import (
    Measurement,
    Plan,
    Point,
    Samples,
    Start,
    Summary,
    Workload,
    nanoseconds,
    net_of_loop,
    ratios,
    run_together,
)
from bench.results import Chart, Figure, Quantity, spread
from bench.tables import count_of, number
from bench.workloads.bank import BANKS, after_moves, audit, draw

RATE: Final = Quantity("throughput", "transfers/s", "higher")
NET_TIME: Final = Quantity("time per transfer, net of the loop", "ns", "lower")
NET_RATIO: Final = Quantity("time ratio, net of the loop", "", "lower")
RATE_RATIO: Final = Quantity("throughput ratio", "", "higher")
SCALING: Final = Quantity("throughput, relative to one thread", "", "higher")

EMPTY: Final = "empty loop"
SYNCHRONISED: Final = ("stm", "lock", "fine")
ALONE: Final = (EMPTY, "nothing")


class Setting(NamedTuple):
    accounts: int
    skewed: bool

    def __str__(self) -> str:
        return f"{self.accounts:,} accounts, {'skewed' if self.skewed else 'uniform'}"


SETTINGS: Final = {str(setting): setting for setting in (Setting(n, s) for n in (16, 1_000) for s in (False, True))}


def drive(operation: Callable[[Any, Any], object], operands: Iterable[tuple[Any, Any]]) -> None:
    """The loop that is measured."""
    for first, second in operands:
        operation(first, second)


def drive_nothing(operands: Iterable[tuple[Any, Any]]) -> None:
    """The same loop around no operation."""
    for _first, _second in operands:
        pass


class Transfer(Workload):
    name: ClassVar[str] = "transfer"
    shows: ClassVar[str] = (
        "What a small transaction (two reads, two writes) costs next to a lock around the same updates."
    )
    variants: ClassVar[tuple[str, ...]] = (*ALONE, *SYNCHRONISED)

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        count = plan.operations(100_000)
        # Drawn beforehand, so that the random generator isn't measured.
        self.routes = {
            name: [draw(setting.accounts, count, 2, skewed=setting.skewed, seed=n) for n in range(max(plan.threads))]
            for name, setting in SETTINGS.items()
        }
        self.found: Sequence[int] = ()
        self.expected: Sequence[int] = ()

    def points(self) -> Iterator[Point]:
        for setting in SETTINGS:
            for threads in self.plan.threads:
                for variant in self.variants if threads == 1 else SYNCHRONISED:
                    yield Point(setting, variant, threads)

    def run(self, point: Point) -> Measurement:
        size = SETTINGS[point.setting].accounts
        routes = self.routes[point.setting][: point.threads]
        bank = BANKS["nothing" if point.variant == EMPTY else point.variant](size)

        def body(route: Sequence[tuple[int, ...]]) -> Callable[[Start], None]:
            def work(start: Start) -> None:
                # Tuples made by the thread that uses them, as a thread's own arguments would be.
                operands = [(bank.accounts[source], bank.accounts[target]) for source, target in route]
                start()
                if point.variant == EMPTY:
                    drive_nothing(operands)
                else:
                    drive(bank.transfer, operands)

            return work

        seconds = run_together([body(route) for route in routes])
        self.found = bank.balances()
        self.expected = after_moves(size, () if point.variant == EMPTY else chain(*routes))
        return {RATE: sum(map(len, routes)) / seconds}

    def check(self) -> None:
        audit(self.found, self.expected)

    def summarise(self, samples: Samples) -> Summary:
        figures: list[Figure] = []
        findings = []
        for setting in SETTINGS:
            net = self._net_times(setting, samples)
            figures += [Figure(setting, variant, 1, NET_TIME, values) for variant, values in net.items() if values]
            price = ratios(net["stm"], net["lock"])
            if price:
                figures.append(Figure(setting, "stm / lock", 1, NET_RATIO, price))
                findings.append(
                    f"{setting}, one thread: a transaction takes {number(spread(net['stm']).median)} ns net of the "
                    f"loop, {number(spread(price).median)} times as long as with the lock."
                )
            figures += comparisons(setting, self.plan.threads, SYNCHRONISED, samples, RATE)
        return Summary(figures, [self._chart(samples)], findings)

    def _net_times(self, setting: str, samples: Samples) -> dict[str, tuple[float, ...]]:
        times = {variant: nanoseconds(samples.values(Point(setting, variant, 1), RATE)) for variant in self.variants}
        loop = times.pop(EMPTY)
        return {variant: net_of_loop(values, loop) for variant, values in times.items()}

    def _chart(self, samples: Samples) -> Chart:
        series = [
            samples.series(f"{variant}, {count_of(threads, 'thread')}", points, RATE)
            for variant in SYNCHRONISED
            for threads in self.plan.threads
            for points in [[Point(setting, variant, threads) for setting in SETTINGS]]
        ]
        return Chart("Transfers a second", "", RATE.unit, tuple(SETTINGS), tuple(series), kind="bar")


def comparisons(
    setting: str, thread_counts: Sequence[int], variants: Sequence[str], samples: Samples, rate: Quantity
) -> Iterator[Figure]:
    """STM against the lock at each number of threads, and each variant against itself on one thread."""
    for threads in thread_counts:
        stm, lock = (samples.values(Point(setting, variant, threads), rate) for variant in ("stm", "lock"))
        values = ratios(stm, lock)
        if values:
            yield Figure(setting, "stm / lock", threads, RATE_RATIO, values)
        for variant in variants if threads > 1 else ():
            together, alone = (samples.values(Point(setting, variant, n), rate) for n in (threads, 1))
            values = ratios(together, alone)
            if values:
                yield Figure(setting, variant, threads, SCALING, values)
