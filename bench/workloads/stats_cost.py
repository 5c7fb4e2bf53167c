"""`statistics`: what a transaction pays while statistics are on, and what is left of that once they are off again.

Measured: the transfer of the workload `transfer` (two reads, two writes), in a process in which statistics were never
on, and in one in which they were, both while they are off and while they are on. How: as in the workload
`shared-clock`, each repeat starts a fresh pair of processes and lets them run in turns. The bar is held against on and
off in the same process, whose turns are neighbours.

What to distrust: that the off of the one process takes another time than that of the other. Where the memory of a
process lies is chance, and worth some percent.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, ClassVar, Final

from bench.harness import InvariantError, Measurement, Plan, Point, Samples, Summary, Workload, ratios
from bench.programs.clock_neighbour import ACCOUNTS, OPENING_BALANCE
from bench.results import Chart, Figure, Quantity, Series, spread
from bench.tables import number
from bench.workloads.neighbour import Neighbour

SETTING: Final = "fresh processes, in turns"
PAIR: Final = "transfer over TVars"

BEFORE: Final = Quantity("time per transfer, statistics never on", "ns", "lower")
AFTER: Final = Quantity("time per transfer, statistics off again", "ns", "lower")
ON: Final = Quantity("time per transfer, statistics on", "ns", "lower")
RATIO: Final = Quantity("time ratio", "", "lower")
ON_OFF: Final = "on / off"
AFTER_BEFORE: Final = "off again / never on"

PROGRAM: Final = "stats_neighbour"
TURNS: Final = 40
TRANSFERS: Final = 20_000


class Statistics(Workload):
    name: ClassVar[str] = "statistics"
    shows: ClassVar[str] = "What a transaction pays while stm.stats counts, and that it pays nothing afterwards."
    variants: ClassVar[tuple[str, ...]] = (PAIR,)

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.count = plan.operations(TRANSFERS, least=ACCOUNTS) // ACCOUNTS * ACCOUNTS
        self.found: list[Any] = []

    def points(self) -> Iterator[Point]:
        yield Point(SETTING, PAIR, 1)

    def run(self, point: Point) -> Measurement:
        with ExitStack() as stack:
            never, since = pair = [stack.enter_context(Neighbour(PROGRAM, *which)) for which in ((), ("counted",))]
            steps = ((never, "transfer", BEFORE), (since, "transfer", AFTER), (since, "counted", ON))
            for one, operation, _ in steps:  # the interpreter has warmed up to the code
                one.run(operation, self.count)
            times: dict[Quantity, list[float]] = {quantity: [] for _, _, quantity in steps}
            for turn in range(TURNS):
                for one, operation, quantity in steps if turn % 2 else reversed(steps):
                    times[quantity].append(one.run(operation, self.count))
            self.found = [one.end() for one in pair]
        return {quantity: statistics.median(some) * 1e9 for quantity, some in times.items()}

    def check(self) -> None:
        never, since = self.found
        if never["loaded"] or not since["loaded"]:
            raise InvariantError("statistics were loaded where they should not be, or not where they should")
        for held in (never["held"], since["held"]):
            if set(held) != {OPENING_BALANCE}:
                raise InvariantError(f"after whole rounds of transfers the balances are {held}")
        expected = ACCOUNTS + (1 + TURNS) * self.count
        if since["counted"] != expected:
            raise InvariantError(f"statistics have counted {since['counted']} transfers instead of {expected}")

    def summarise(self, samples: Samples) -> Summary:
        before, after, on = (samples.values(Point(SETTING, PAIR, 1), quantity) for quantity in (BEFORE, AFTER, ON))
        shares = {ON_OFF: ratios(on, after), AFTER_BEFORE: ratios(after, before)}
        if not all(shares.values()):
            return Summary()
        figures = [Figure(SETTING, subject, 1, RATIO, values) for subject, values in shares.items()]
        price, left = (number(spread(values).median) for values in shares.values())
        findings = [
            f"While statistics are on, a transfer takes {price} times what it takes while they are off.",
            f"Off again, it takes {left} times what it takes in a process in which they never were on.",
        ]
        series = Series("", tuple(map(spread, (before, after, on))))
        chart = Chart("Time per transfer", "", "ns", ("never on", "off again", "on"), (series,), kind="bar")
        return Summary(figures, [chart], findings)
