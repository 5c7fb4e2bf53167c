"""`map`: a `TMap` against a dictionary under one lock, and how often threads with keys of their own conflict in it.

A read is one look-up. A write adds 1 to the value of a key, as one step: in a transaction, or holding the lock. Keys
are drawn uniformly from all.

Then two threads that do nothing but write, each to its own half of the keys: no two of their writes have to do with
each other, but a map whose parts are larger than a key can't always tell. Two ways of writing: a value added to in a
transaction of the program, where each run of the body is counted as an attempt; and a value set, which is an operation
of the map's own, where aborts are those that `stm.stats` has counted.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
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
from bench.tables import count_of, number
from stm import TMap, atomically, stats

KEYS: Final = 1_000
OPERATIONS: Final = 300_000
ZEROS: Final = dict.fromkeys(range(KEYS), 0)

#: Which part of the operations are reads.
MIXES: Final = {f"{share:.0%} reads": share for share in (0.9, 0.5)}
ADDING: Final = "keys of one's own, added to in a transaction"
SETTING: Final = "keys of one's own, set"
APART: Final = (ADDING, SETTING)

RATE: Final = Quantity("throughput", "operations/s", "higher")
RATIO: Final = Quantity("throughput ratio", "", "higher")
ABORTED: Final = Quantity("attempts that were aborted", "%", "lower")

STM: Final = "TMap"
LOCK: Final = "dict, one lock"


@dataclass(frozen=True)
class Table:
    """A map of one kind, and the operations on it. `content()` is for checks, when nobody else is at work."""

    read: Callable[[int], object]
    add: Callable[[int], object]
    content: Callable[[], Mapping[int, int]]


def tmap_table() -> Table:
    table: Any = TMap(ZEROS)

    @atomically
    def add(key: int) -> None:
        table[key] += 1

    return Table(lambda key: table[key], add, table.snapshot)


def locked_table() -> Table:
    table, lock = dict(ZEROS), threading.Lock()

    def read(key: int) -> int:
        with lock:
            return table[key]

    def add(key: int) -> None:
        with lock:
            table[key] += 1

    return Table(read, add, lambda: table)


TABLES: Final[dict[str, Callable[[], Table]]] = {STM: tmap_table, LOCK: locked_table}


def drive(table: Table, operations: Sequence[tuple[int, bool]]) -> None:
    """The loop that is measured."""
    read, add = table.read, table.add
    for key, writes in operations:
        if writes:
            add(key)
        else:
            read(key)


class Map(Workload):
    name: ClassVar[str] = "map"
    shows: ClassVar[str] = (
        f"How many operations a second a TMap of {KEYS:,} keys does next to a dictionary under one lock, and how often "
        "writers of different keys conflict in it."
    )
    variants: ClassVar[tuple[str, ...]] = tuple(TABLES)

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.count = plan.operations(OPERATIONS)
        # Drawn beforehand, so that the random generator isn't measured.
        self.operations = {
            mix: [draw(self.count, share, rank) for rank in range(max(plan.threads))] for mix, share in MIXES.items()
        }
        self.found: Mapping[int, int] = {}
        self.expected: Mapping[int, int] = {}

    def points(self) -> Iterator[Point]:
        for mix in MIXES:
            for threads in self.plan.threads:
                for variant in self.variants:
                    yield Point(mix, variant, threads)
        for setting in APART:
            yield Point(setting, STM, 2)

    def run(self, point: Point) -> Measurement:
        return self._apart(point) if point.setting in APART else self._mixed(point)

    def _mixed(self, point: Point) -> Measurement:
        table = TABLES[point.variant]()
        parts = self.operations[point.setting][: point.threads]

        def body(operations: Sequence[tuple[int, bool]]) -> Body:
            def work(start: Start) -> None:
                start()
                drive(table, operations)

            return work

        seconds = run_together([body(part) for part in parts])
        self.found = table.content()
        self.expected = {**ZEROS, **Counter(key for key, writes in chain(*parts) if writes)}
        return {RATE: sum(map(len, parts)) / seconds}

    def _apart(self, point: Point) -> Measurement:
        table: Any = TMap(ZEROS)
        halves = [random.Random(rank).choices(range(rank, KEYS, 2), k=self.count) for rank in range(2)]
        aborts: list[int] = []

        def adder(keys: Sequence[int]) -> Body:
            def work(start: Start) -> None:
                attempts = 0

                @atomically
                def add(key: int) -> None:
                    nonlocal attempts
                    attempts += 1
                    table[key] += 1

                start()
                for key in keys:
                    add(key)
                aborts.append(attempts - len(keys))

            return work

        def setter(keys: Sequence[int]) -> Body:
            def work(start: Start) -> None:
                start()
                for value, key in enumerate(keys):
                    table[key] = value

            return work

        if point.setting == ADDING:
            seconds = run_together([adder(keys) for keys in halves])
            last: Mapping[int, int] = Counter(chain(*halves))
        else:
            with stats.enabled():
                seconds = run_together([setter(keys) for keys in halves])
            aborts.append(sum(record.aborts for record in stats.snapshot().values()))
            last = {key: value for keys in halves for value, key in enumerate(keys)}
        self.found = table.snapshot()
        self.expected = {**ZEROS, **last}
        aborted, operations = sum(aborts), 2 * self.count
        return {RATE: operations / seconds, ABORTED: aborted / (operations + aborted) * 100}

    def check(self) -> None:
        audit(self.found, self.expected)

    def summarise(self, samples: Samples) -> Summary:
        figures, findings = [], []
        for mix in MIXES:
            for threads in self.plan.threads:
                stm, lock = (samples.values(Point(mix, variant, threads), RATE) for variant in self.variants)
                values = ratios(stm, lock)
                if values:
                    figures.append(Figure(mix, f"{STM} / lock", threads, RATIO, values))
                    findings.append(
                        f"{mix}, {count_of(threads, 'thread')}: a {STM} does {number(spread(values).median)} times as "
                        "many operations as a dictionary under one lock."
                    )
        for setting in APART:
            shares = samples.values(Point(setting, STM, 2), ABORTED)
            if shares:
                findings.append(f"{setting}, 2 threads: {number(spread(shares).median)} % of all attempts are aborted.")
        series = [
            samples.series(
                f"{variant}, {count_of(threads, 'thread')}", [Point(m, variant, threads) for m in MIXES], RATE
            )
            for variant in self.variants
            for threads in self.plan.threads
        ]
        chart = Chart("Operations a second", "", RATE.unit, tuple(MIXES), tuple(series), kind="bar")
        return Summary(figures, [chart], findings)


def draw(count: int, reads: float, seed: int) -> list[tuple[int, bool]]:
    """So many operations: a key, and whether it is written to. The same for the same arguments."""
    chance = random.Random(f"{count} {reads} {seed}")
    return [(chance.randrange(KEYS), chance.random() >= reads) for _ in range(count)]


def audit(found: Mapping[int, int], expected: Mapping[int, int]) -> None:
    """Raise `InvariantError` unless the values are what they must be, in whatever order they were written."""
    if set(found) != set(expected):
        raise InvariantError(f"the map has {len(found)} keys instead of {len(expected)}, or others")
    for key, value in expected.items():
        if found[key] != value:
            raise InvariantError(
                f"key {key} has the value {found[key]} instead of {value}: a write was lost or doubled"
            )
