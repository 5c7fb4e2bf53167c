"""`queue`: items handed from producers to consumers, one in an operation or many, by a `TQueue` and by `queue.Queue`.

Each producer has a thread and puts its share of the items as fast as it can; each consumer has a thread and takes as
many. Neither does anything else, so this is the most that threads can get in each other's way. The clock runs from the
common start until the last consumer has its last item. The queues have no limit: with the GIL a producer may put
thousands of items before a consumer gets its turn.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
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
    StuckError,
    Summary,
    Workload,
    ratios,
    run_together,
)
from bench.results import Chart, Figure, Quantity, spread
from bench.tables import count_of, number
from stm import TQueue

PAIRS: Final = (1, 2, 4)
BATCHES: Final = (8, 64, 512)
#: Over all producers.
ITEMS: Final = 1_000_000
#: Seconds after which a consumer that still waits is taken to wait in vain.
PATIENCE: Final = 60.0

RATE: Final = Quantity("throughput", "items/s", "higher")
RATIO: Final = Quantity("throughput ratio", "", "higher")

STM: Final = "TQueue"
OTHER: Final = "queue.Queue"


def in_batches(size: int) -> str:
    return f"{STM}, {size} at a time"


def to_other(variant: str) -> str:
    return f"{variant} / {OTHER}"


def setting_of(pairs: int) -> str:
    return f"{count_of(pairs, 'producer')}, {count_of(pairs, 'consumer')}"


SETTINGS: Final = {setting_of(pairs): pairs for pairs in PAIRS}


@dataclass(frozen=True)
class Way:
    """One way to hand items on. `put` takes a queue and items; `get` takes a queue and returns so many items."""

    make: Callable[[], Any]
    put: Callable[[Any, Sequence[int]], object]
    get: Callable[[Any, int], list[int]]


def put_singly(to: Any, items: Sequence[int]) -> None:
    put = to.put
    for item in items:
        put(item)


def get_singly(of: Any, count: int) -> list[int]:
    get = of.get
    return [get() for _ in range(count)]


def put_in_batches(size: int, to: Any, items: Sequence[int]) -> None:
    put_many = to.put_many
    for first in range(0, len(items), size):
        put_many(items[first : first + size])


def get_in_batches(size: int, of: Any, count: int) -> list[int]:
    """Each time what there is, but no more than `size`."""
    get_many = of.get_many
    items: list[int] = []
    while len(items) < count:
        items += get_many(min(size, count - len(items)))
    return items


WAYS: Final[dict[str, Way]] = {
    OTHER: Way(queue.Queue, put_singly, get_singly),
    STM: Way(TQueue, put_singly, get_singly),
    **{in_batches(n): Way(TQueue, partial(put_in_batches, n), partial(get_in_batches, n)) for n in BATCHES},
}


class Queue(Workload):
    name: ClassVar[str] = "queue"
    shows: ClassVar[str] = "How many items a second a TQueue hands on between threads, next to queue.Queue."
    variants: ClassVar[tuple[str, ...]] = tuple(WAYS)

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        most = max(PAIRS)
        self.items = plan.operations(ITEMS // most) * most  # so that it can be shared out equally
        self.taken: list[list[int]] = []
        self.share = 0

    def points(self) -> Iterator[Point]:
        for setting, pairs in SETTINGS.items():
            for variant in self.variants if pairs == 1 else (OTHER, STM):
                yield Point(setting, variant, 2 * pairs)

    def run(self, point: Point) -> Measurement:
        pairs, way = SETTINGS[point.setting], WAYS[point.variant]
        line = way.make()
        self.share = share = self.items // pairs
        self.taken = taken = []

        def producer(rank: int) -> Body:
            def produce(start: Start) -> None:
                items = list(range(rank * share, (rank + 1) * share))
                start()
                way.put(line, items)

            return produce

        def consume(start: Start) -> None:
            start()
            taken.append(way.get(line, share))

        try:
            seconds = run_together([*map(producer, range(pairs)), *[consume] * pairs], patience=PATIENCE)
        except StuckError:
            raise InvariantError(f"after {PATIENCE:g} s a consumer still waits: an item was lost") from None
        return {RATE: self.items / seconds}

    def check(self) -> None:
        audit(self.taken, self.items, self.share)

    def summarise(self, samples: Samples) -> Summary:
        figures: list[Figure] = []
        findings = []
        for setting, pairs in SETTINGS.items():
            rates = {v: samples.values(Point(setting, v, 2 * pairs), RATE) for v in self.variants}
            other = rates.pop(OTHER)
            for variant, of_variant in rates.items():
                values = ratios(of_variant, other)
                if values:
                    figures.append(Figure(setting, to_other(variant), 2 * pairs, RATIO, values))
                    findings.append(
                        f"{setting}: {variant}, hands on {number(spread(values).median)} times as many items a second "
                        f"as {OTHER}."
                    )
        series = [
            samples.series(variant, [Point(setting, variant, 2 * pairs) for setting, pairs in SETTINGS.items()], RATE)
            for variant in self.variants
        ]
        chart = Chart("Items a second", "", RATE.unit, tuple(SETTINGS), tuple(series), kind="bar")
        return Summary(figures, [chart], findings)


def audit(taken: Sequence[Sequence[int]], number: int, share: int) -> None:
    """Raise `InvariantError` unless the consumers have each of the items below `number` once, and in order.

    The producers put a `share` each, the first one those from 0 on. In what order a consumer gets items of different
    producers is left to chance.
    """
    everything = sorted(chain(*taken))
    if everything != list(range(number)):
        lost = number - len(set(everything))
        raise InvariantError(f"of {number} items {lost} were lost, and {len(everything) - number + lost} came twice")
    for items in taken:
        latest: dict[int, int] = {}
        for item in items:
            producer = item // share
            if item < latest.get(producer, 0):
                raise InvariantError(f"a consumer got item {item} after item {latest[producer]} of the same producer")
            latest[producer] = item
