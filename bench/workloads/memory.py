"""`memory`: what a variable takes, next to the plain objects it would replace."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from typing import ClassVar, Final

from bench.harness import InvariantError, Measurement, Plan, Point, Samples, Summary, Workload
from bench.results import Chart, Quantity
from bench.workloads.bank import Account, LockedAccount
from stm import TVar

OBJECTS: Final = 100_000
SETTING: Final = "each holding a small integer"

BYTES: Final = Quantity("memory of one object", "bytes", "lower")

MAKERS: Final[dict[str, Callable[[], object]]] = {
    "TVar": lambda: TVar(1),
    "slotted object": Account,
    "slotted object with a lock": lambda: LockedAccount(1),
}


class Memory(Workload):
    name: ClassVar[str] = "memory"
    shows: ClassVar[str] = "How many bytes a TVar takes, next to a slotted object with and without a lock of its own."
    variants: ClassVar[tuple[str, ...]] = tuple(MAKERS)

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.count = plan.operations(OBJECTS, least=1_000)
        self.made: list[object] = []

    def points(self) -> Iterator[Point]:
        for variant in self.variants:
            yield Point(SETTING, variant, 1)

    def run(self, point: Point) -> Measurement:
        make = MAKERS[point.variant]
        kept: list[object] = [None] * self.count  # allocated before, so that the list isn't counted
        gc.collect()
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            for index in range(self.count):
                kept[index] = make()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        self.made = kept
        return {BYTES: (after - before) / self.count}

    def check(self) -> None:
        alive, self.made = len(set(map(id, self.made))), []
        if alive != self.count:
            raise InvariantError(f"{self.count} objects were made, but {alive} are different")

    def summarise(self, samples: Samples) -> Summary:
        series = samples.series("", [Point(SETTING, variant, 1) for variant in self.variants], BYTES)
        return Summary(charts=[Chart("Memory of one object", "", BYTES.unit, self.variants, (series,), kind="bar")])
