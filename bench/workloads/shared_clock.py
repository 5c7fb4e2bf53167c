"""`shared-clock`: what transactions over `TVar`s pay for the compiled tier, once a program has loaded it.

Measured: the transfer of the workload `transfer` (two reads, two writes), in a process that has imported `stm` alone,
and in one that has also made an array and run a compiled transaction. How: each repeat starts a fresh pair of
processes, and lets first the one and then the other run some thousands of transfers, twenty times over; while one runs,
the other sleeps. The order within a turn changes with each turn. The ratio is that of the medians over the turns. So
what slows the machine down for a while slows both down, and what a process is born with (where its memory lies) differs
between repeats. In one process, before and after the loading, all of "after" would come later than all of "before".

And in the second process, the mixed transaction: `@atomically` over one `TVar` and two elements of an array.

What to distrust:

- The first import of `stm.compiled` brings in numba, whose objects the garbage collector has to look at from then on.
  That is part of "loaded"; a program that uses numba anyway has paid it already.
- Ratios below 1 are chance: nothing gets faster by the loading.
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
from bench.workloads import compiled
from bench.workloads.neighbour import Neighbour

SETTING: Final = "fresh processes, in turns"
PAIR: Final = "transfer over TVars"

BEFORE: Final = Quantity("time per transfer, stm alone", "ns", "lower")
AFTER: Final = Quantity("time per transfer, beside the compiled tier", "ns", "lower")
MIXED: Final = Quantity("time of a mixed transaction, one TVar and two elements", "µs", "lower")
RATIO: Final = Quantity("time ratio", "", "lower")
SUBJECT: Final = "with the compiled tier / without"

PROGRAM: Final = "clock_neighbour"
TURNS: Final = 20
TRANSFERS: Final = 20_000
MIXED_SHARE: Final = 4  # a mixed transaction takes some times as long


class SharedClock(Workload):
    name: ClassVar[str] = "shared-clock"
    shows: ClassVar[str] = (
        "What a transaction over TVars pays once the compiled tier is loaded, and what one costs that uses both tiers."
    )
    variants: ClassVar[tuple[str, ...]] = (PAIR,)

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.count = plan.operations(TRANSFERS, least=ACCOUNTS)
        self.mixed = max(ACCOUNTS, self.count // MIXED_SHARE)
        self.found: list[Any] = []

    def lacking(self) -> str:
        return compiled.lacking()

    def points(self) -> Iterator[Point]:
        yield Point(SETTING, PAIR, 1)

    def run(self, point: Point) -> Measurement:
        with ExitStack() as stack:
            alone, beside = pair = [stack.enter_context(Neighbour(PROGRAM, *which)) for which in ((), ("loaded",))]
            for one in pair:  # the interpreter has warmed up to the code
                one.run("transfer", self.count)
            times: dict[Neighbour, list[float]] = {one: [] for one in pair}
            mixed = []
            for turn in range(TURNS):
                for one in pair if turn % 2 else reversed(pair):
                    times[one].append(one.run("transfer", self.count))
                mixed.append(beside.run("mixed", self.mixed))
            self.found = [one.end() for one in pair]
        return {
            BEFORE: statistics.median(times[alone]) * 1e9,
            AFTER: statistics.median(times[beside]) * 1e9,
            MIXED: statistics.median(mixed) * 1e6,
        }

    def check(self) -> None:
        alone, beside = self.found
        if alone["modules"] or not beside["modules"]:
            raise InvariantError("the compiled tier was loaded where it should not be, or not where it should")
        for held in (alone["held"], beside["held"]):
            if set(held) != {OPENING_BALANCE}:
                raise InvariantError(f"after whole rounds of transfers the balances are {held}")
        expected = TURNS * (self.mixed // ACCOUNTS * ACCOUNTS)
        if beside["mixed"] != expected:
            raise InvariantError(f"{beside['mixed']} mixed transactions took place instead of {expected}")

    def summarise(self, samples: Samples) -> Summary:
        point = Point(SETTING, PAIR, 1)
        before, after, mixed = (samples.values(point, quantity) for quantity in (BEFORE, AFTER, MIXED))
        values = ratios(after, before)
        if not values:
            return Summary()
        alone, ratio = (number(spread(some).median) for some in (before, values))
        findings = [
            f"A transfer over TVars takes {alone} ns without the compiled tier, and {ratio} times that with it.",
            f"A transaction over one TVar and two elements of an array takes {number(spread(mixed).median)} µs.",
        ]
        chart = Chart(
            "Time per transfer over TVars",
            "",
            "ns",
            ("stm alone", "beside the compiled tier"),
            (Series("", tuple(map(spread, (before, after)))),),
            kind="bar",
        )
        return Summary([Figure(SETTING, SUBJECT, 1, RATIO, values)], [chart], findings)
