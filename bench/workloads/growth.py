"""`growth`: what an operation on a collection costs when it is large, relative to one of a thousand items.

Each operation leaves the size as it was. On a map: set a new key, get it, delete it; and, for maps with "others" behind
their name, get one key, replace the value of another and delete a third (which comes back while nobody looks at the
clock). On a queue: put an item and get one.

Both sizes are measured in turns, and the ratio is that of the medians over the turns: what slows the machine down for
a while slows both down.

What to distrust: keys are drawn at random, and of a large collection nearly nothing is in the processor's cache. So
there is an ordinary dictionary beside, whose operations take the same number of steps whatever its size: what it loses
is the memory's part. Where one key is set, got and deleted, only the first of the three steps has to wait for memory;
"others" wait each time.
"""

from __future__ import annotations

import gc
import heapq
import operator
import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from typing import ClassVar, Final, Protocol

from bench.harness import InvariantError, Measurement, Plan, Point, Samples, Summary, Workload, ratios
from bench.results import Chart, Figure, Quantity, spread
from bench.tables import number
from stm import TMap, TPriorityQueue, TQueue

SMALL: Final = 1_000
TURNS: Final = 10
#: In each turn.
OPERATIONS: Final = 10_000
#: So many keys are missing at a time, at most: few beside `SMALL`.
ABSENT: Final = 50

SMALL_TIME: Final = Quantity(f"time per operation, {SMALL:,} items", "µs", "lower")
LARGE_TIME: Final = Quantity("time per operation, large", "µs", "lower")
RATIO: Final = Quantity("time ratio", "", "lower")

MAP: Final = "TMap"
MAP_OTHERS: Final = "TMap, others"
DICT: Final = "dict"
DICT_OTHERS: Final = "dict, others"
QUEUE: Final = "TQueue"
PRIORITY_QUEUE: Final = "TPriorityQueue"

LARGE: Final = {
    MAP: 1_000_000,
    MAP_OTHERS: 1_000_000,
    DICT: 1_000_000,
    DICT_OTHERS: 1_000_000,
    QUEUE: 1_000_000,
    PRIORITY_QUEUE: 100_000,
}

MAPS: Final[dict[tuple[str, str], Callable[[Iterable[tuple[int, int]]], MutableMapping[int, int]]]] = {
    (MAP, MAP_OTHERS): TMap,
    (DICT, DICT_OTHERS): dict,
}


class Grown(Protocol):
    """A collection of some size."""

    def work(self, count: int) -> float:
        """So many operations. The seconds they took."""

    def complaint(self) -> str:
        """What is wrong with what they returned, or with what is there now; empty if nothing."""


class GrownMap:
    """Keys are the numbers below `size`, each with itself as its value; new ones are above."""

    def __init__(self, a_map: MutableMapping[int, int], size: int) -> None:
        self.map = a_map
        self.size = size
        self.chance = random.Random(size)
        self.wrong = 0

    def work(self, count: int) -> float:
        a_map, keys = self.map, self.chance.choices(range(self.size, 2 * self.size), k=count)
        got = []
        began = time.perf_counter()
        for key in keys:
            a_map[key] = key
            got.append(a_map[key])
            del a_map[key]
        seconds = time.perf_counter() - began
        self.wrong = sum(map(operator.ne, got, keys))
        return seconds

    def complaint(self) -> str:
        if self.wrong:
            return f"{self.wrong} keys did not have the value that they were set to"
        if len(self.map) != self.size:
            return f"a map of {self.size} keys has {len(self.map)} after each new one was deleted"
        return ""


class GrownMapOthers(GrownMap):
    """The same with a key for each step. `changed` holds the values that are no longer the key itself."""

    def __init__(self, a_map: MutableMapping[int, int], size: int) -> None:
        super().__init__(a_map, size)
        self.changed: dict[int, int] = {}
        self.value = 2 * size  # not a value so far

    def work(self, count: int) -> float:
        self.wrong = 0
        return sum(self._round(min(ABSENT, count - done)) for done in range(0, count, ABSENT))

    def _round(self, count: int) -> float:
        a_map, value = self.map, self.value
        chosen = self.chance.sample(range(self.size), 3 * count)
        asked, replaced, deleted = chosen[:count], chosen[count : 2 * count], chosen[2 * count :]
        got = []
        began = time.perf_counter()
        for one, another, third in zip(asked, replaced, deleted, strict=True):
            got.append(a_map[one])
            a_map[another] = value
            del a_map[third]
        seconds = time.perf_counter() - began
        self.wrong += sum(found != self.changed.get(key, key) for found, key in zip(got, asked, strict=True))
        self.changed |= dict.fromkeys(replaced, value)
        self.wrong += sum(key in a_map for key in deleted)
        a_map.update({key: self.changed.get(key, key) for key in deleted})
        self.value += 1
        return seconds


class GrownQueue:
    """The items are numbers, in the order in which they were put."""

    def __init__(self, size: int) -> None:
        self.queue: TQueue[int] = TQueue()
        self.queue.put_many(range(size))
        self.size = size
        self.due = 0
        self.got: list[int] = []

    def work(self, count: int) -> float:
        put, get = self.queue.put, self.queue.get
        first = self.due + self.size
        got = []
        began = time.perf_counter()
        for item in range(first, first + count):
            put(item)
            got.append(get())
        seconds = time.perf_counter() - began
        self.got = got
        return seconds

    def complaint(self) -> str:
        expected = range(self.due, self.due + len(self.got))
        self.due = expected.stop
        if self.got != list(expected):
            return f"the items from {expected.start} on did not come once each and in order"
        if self.queue.qsize() != self.size:
            return f"a queue of {self.size} items has {self.queue.qsize()} after as many were taken as put"
        return ""


class GrownPriorityQueue:
    """Each item that is put is greater than the last one taken by a random number, so that where it belongs may be
    anywhere in the queue (the "hold model" of Jones, "An empirical comparison of priority-queue and event-set
    implementations", 1986). `heap` is what the queue should hold. It is measured after all items were replaced once: a
    heap made of all its items at a time is better balanced than one that has been at work.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.chance = random.Random(size)
        self.heap = sorted(self.chance.random() for _ in range(size))
        self.queue: TPriorityQueue[float] = TPriorityQueue()
        self.queue.put_many(self.heap)
        self.steps: list[float] = []
        self.got: list[float] = []
        self.work(size)
        if complaint := self.complaint():
            raise InvariantError(complaint)

    def work(self, count: int) -> float:
        put, get, last = self.queue.put, self.queue.get, self.queue.peek()
        steps = [self.chance.random() for _ in range(count)]
        got = []
        began = time.perf_counter()
        for step in steps:
            put(last + step)
            last = get()
            got.append(last)
        seconds = time.perf_counter() - began
        self.steps, self.got = steps, got
        return seconds

    def complaint(self) -> str:
        last = self.heap[0]
        for step, got in zip(self.steps, self.got, strict=True):
            last = heapq.heappushpop(self.heap, last + step)
            if got != last:
                return f"a queue of {self.size} items gave {got} instead of the least, {last}"
        if self.queue.qsize() != self.size:
            return f"a queue of {self.size} items has {self.queue.qsize()} after as many were taken as put"
        return ""


class Growth(Workload):
    name: ClassVar[str] = "growth"
    shows: ClassVar[str] = f"What an operation costs on large collections, relative to those of {SMALL:,} items."
    variants: ClassVar[tuple[str, ...]] = (MAP, MAP_OTHERS, DICT, DICT_OTHERS, QUEUE, PRIORITY_QUEUE)

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.count = plan.operations(OPERATIONS, least=2)
        sizes = {variant: min(size, plan.operations(5 * size, least=2 * SMALL)) for variant, size in LARGE.items()}
        self.sizes = {variant: (SMALL, size) for variant, size in sizes.items()}
        self.grown: dict[tuple[str, int], Grown] = {}
        self.complaint = ""

    def prepare(self) -> None:
        for (single, others), make in MAPS.items():
            for size in self.sizes[single]:
                a_map = make(zip(range(size), range(size), strict=True))
                self.grown[single, size] = GrownMap(a_map, size)
                self.grown[others, size] = GrownMapOthers(a_map, size)
        for size in self.sizes[QUEUE]:
            self.grown[QUEUE, size] = GrownQueue(size)
        for size in self.sizes[PRIORITY_QUEUE]:
            self.grown[PRIORITY_QUEUE, size] = GrownPriorityQueue(size)

    def points(self) -> Iterator[Point]:
        for variant in self.variants:
            yield Point(self._setting(variant), variant, 1)

    def _setting(self, variant: str) -> str:
        return "{:,} and {:,} items".format(*self.sizes[variant])

    def run(self, point: Point) -> Measurement:
        pair = [self.grown[point.variant, size] for size in self.sizes[point.variant]]
        small, large = pair
        times: dict[Grown, list[float]] = {one: [] for one in pair}
        self.complaint = ""
        gc.collect()
        for turn in range(TURNS):
            for one in pair if turn % 2 else reversed(pair):
                times[one].append(one.work(self.count) / self.count)
                self.complaint = self.complaint or one.complaint()
        return {
            SMALL_TIME: statistics.median(times[small]) * 1e6,
            LARGE_TIME: statistics.median(times[large]) * 1e6,
        }

    def check(self) -> None:
        if self.complaint:
            raise InvariantError(self.complaint)

    def summarise(self, samples: Samples) -> Summary:
        figures, findings = [], []
        points = [Point(self._setting(variant), variant, 1) for variant in self.variants]
        for point in points:
            small, large = (samples.values(point, quantity) for quantity in (SMALL_TIME, LARGE_TIME))
            values = ratios(large, small)
            if values:
                figures.append(Figure(point.setting, point.variant, 1, RATIO, values))
                findings.append(
                    f"{point.variant}, {point.setting}: an operation takes {number(spread(small).median)} µs and "
                    f"{number(spread(large).median)} µs, {number(spread(values).median)} times as long."
                )
        labels = {f"{SMALL:,} items": SMALL_TIME, "large": LARGE_TIME}
        series = tuple(samples.series(label, points, quantity) for label, quantity in labels.items())
        chart = Chart("Time per operation", "", "µs", self.variants, series, kind="bar", y_log=True)
        return Summary(figures, [chart], findings)
