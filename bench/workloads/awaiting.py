"""`asyncio`: how long it takes until ten thousand tasks have noticed a commit, and what is left of cancelled waits.

Waking is measured from the commit, on the loop's thread, to the moment when the loop has seen the last task end; next
to it `asyncio.Event`, which does the same without a transaction, and for one loop only.

Memory is what `tracemalloc` counts, before and after so many waits that were cancelled, a thousand at a time, each time
after a collection and with one round before it: exceptions and the frames that they name are garbage in cycles, which
is collected but not at once. Resident memory is shown as well. It is what the operating system sees, includes the
records of `tracemalloc`, and goes up and down with whatever else the process has freed.
"""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import psutil

from bench.harness import InvariantError, Measurement, Plan, Point, Samples, Summary, Workload, ratios
from bench.results import Chart, Figure, Quantity, spread
from bench.tables import number
from stm import TVar, aio, check, stats

TASKS: Final = 10_000
WAITS: Final = 100_000
#: Waits that are cancelled together.
BATCH: Final = 1_000
#: Seconds after which a wake-up counts as lost.
WAKING: Final = 60.0

WOKEN: Final = Quantity("time from the commit to the end of the last task", "s", "lower")
KEPT: Final = Quantity("memory kept after cancelled waits", "MB", "lower")
RESIDENT: Final = Quantity("resident memory gained by cancelled waits", "MB", "lower")
RATIO: Final = Quantity("time ratio", "", "lower")

STM: Final = "stm.aio"
EVENT: Final = "asyncio.Event"


@dataclass(frozen=True)
class Gate:
    """Something to wait for until it is opened."""

    wait: Callable[[], Awaitable[object]]
    open: Callable[[], object]


def variable_gate() -> Gate:
    opened = TVar(False)

    @aio.atomically
    def wait() -> None:
        check(opened.get())

    return Gate(wait, lambda: opened.set(True))


def event_gate() -> Gate:
    event = asyncio.Event()
    return Gate(event.wait, event.set)


GATES: Final[dict[str, Callable[[], Gate]]] = {STM: variable_gate, EVENT: event_gate}


class Asyncio(Workload):
    name: ClassVar[str] = "asyncio"
    shows: ClassVar[str] = (
        "How fast one commit wakes thousands of tasks, and that cancelled waits leave nothing behind."
    )
    variants: ClassVar[tuple[str, ...]] = tuple(GATES)

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.tasks = min(TASKS, plan.operations(5 * TASKS))
        self.rounds = plan.operations(WAITS // BATCH)
        self.waking = f"{self.tasks:,} tasks wait for one variable"
        self.cancelling = f"{self.rounds * BATCH:,} cancelled waits"
        self.complaint = ""

    def points(self) -> Iterator[Point]:
        for variant in self.variants:
            yield Point(self.waking, variant, 1)
        yield Point(self.cancelling, STM, 1)

    def run(self, point: Point) -> Measurement:
        self.complaint = ""
        return asyncio.run((self._wake if point.setting == self.waking else self._cancel)(point.variant))

    async def _wake(self, variant: str) -> Measurement:
        gate = GATES[variant]()
        tasks = await _begin(gate, self.tasks)
        early = sum(task.done() for task in tasks)
        gc.collect()
        began = time.perf_counter()
        gate.open()
        done, late = await asyncio.wait(tasks, timeout=WAKING)
        seconds = time.perf_counter() - began
        for task in done:
            task.result()
        if early:
            self.complaint = f"{early} tasks went on before what they wait for came true"
        elif late:
            self.complaint = f"{len(late)} of {len(tasks)} tasks did not wake up within {WAKING:g} s"
        return {WOKEN: seconds}

    async def _cancel(self, variant: str) -> Measurement:
        gate = GATES[variant]()
        tracemalloc.start()
        try:
            cancelled = await _give_up(gate)  # what is made once is there from here on
            before, resident_before = _memory()
            for _ in range(self.rounds):
                cancelled += await _give_up(gate)
            after, resident_after = _memory()
        finally:
            tracemalloc.stop()
        expected, blocked = (self.rounds + 1) * BATCH, len(stats.blocked())
        if cancelled != expected:
            self.complaint = f"{cancelled} of {expected} waits ended by being cancelled"
        elif blocked:
            self.complaint = f"after all waits were cancelled, {blocked} transactions are blocked"
        return {KEPT: (after - before) / 1e6, RESIDENT: (resident_after - resident_before) / 1e6}

    def check(self) -> None:
        if self.complaint:
            raise InvariantError(self.complaint)

    def summarise(self, samples: Samples) -> Summary:
        points = {variant: Point(self.waking, variant, 1) for variant in self.variants}
        stm, event = (samples.values(point, WOKEN) for point in points.values())
        kept = samples.values(Point(self.cancelling, STM, 1), KEPT)
        figures, findings = [], []
        values = ratios(stm, event)
        if values:
            figures.append(Figure(self.waking, f"{STM} / {EVENT}", 1, RATIO, values))
            findings.append(
                f"One commit wakes {self.tasks:,} tasks in {number(spread(stm).median)} s, "
                f"{number(spread(values).median)} times what an {EVENT} takes."
            )
        if kept:
            findings.append(f"{self.cancelling} leave {number(spread(kept).median)} MB behind.")
        series = samples.series("", list(points.values()), WOKEN)
        chart = Chart("Time until the last task has noticed", "", WOKEN.unit, self.variants, (series,), kind="bar")
        return Summary(figures, [chart], findings)


async def _begin(gate: Gate, number: int) -> Sequence[asyncio.Future[object]]:
    tasks = [asyncio.ensure_future(gate.wait()) for _ in range(number)]
    await asyncio.sleep(0)  # each runs until it is asleep
    return tasks


async def _give_up(gate: Gate) -> int:
    """Begin some waits and cancel them. How many ended by that."""
    tasks = await _begin(gate, BATCH)
    for task in tasks:
        task.cancel()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    return sum(isinstance(end, asyncio.CancelledError) for end in ends)


def _memory() -> tuple[int, int]:
    """Bytes in use and bytes resident, garbage not included."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0], psutil.Process().memory_info().rss
