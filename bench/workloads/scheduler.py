"""`scheduler`: what a work costs in hive_task, next to `ThreadPoolExecutor` and to the same core without transactions.

The twins (`bench.twins`) are that core on locks and on lock-free structures. Works are empty, but for noting in a list
of the thread's own that they ran: so in each run it is checked that each ran once, and that the totals say so. Every
contender has all its workers running before the clock starts. Settings:

- In bulk: works are submitted as fast as can be, and then their results fetched.
- One at a time: submit, wait for the result, again. The 99th percentile is that of each run.
- Behind a gate: all workers wait until everything is submitted. So the part of a work that its submitter pays for, and
  the part that its worker pays for, come apart; the latter includes fetching the results. In a batch it is one call of
  `put_works` with works made before; their making is shown beside. `ThreadPoolExecutor` submits them one by one.
- Many queued: how fast the first works of a long queue are run, relative to a queue of a thousand; and what a queued
  work takes, with its future, as `tracemalloc` counts it. (A full run queues a million, and needs 3 GB for those of
  `ThreadPoolExecutor`.)
- A millisecond of CPU each, without shared objects; only without the GIL, for with it there is nothing to gain.
- Idle: the CPU time of the whole process while the scheduler has nothing to do; also that of a scheduler which chooses
  the number of its workers by itself.

All contenders, and all numbers of workers, take turns within a run, every other time backwards, and each turn is a
fresh scheduler: with the GIL, how threads fall into step is chance, and persists. The medians over the turns count.

What to distrust: the 99th percentile is decided by the operating system more than by any of the contenders.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import ClassVar, Final

from bench.environment import gil_enabled
from bench.harness import (
    InvariantError,
    Measurement,
    Plan,
    Point,
    Samples,
    Start,
    StuckError,
    Summary,
    Workload,
    per_repeat,
    ratios,
    run_together,
)
from bench.results import Chart, Figure, Quantity, spread
from bench.tables import count_of, number
from bench.twins.contenders import COMPARED, CONTENDERS, HIVE, HIVE_OPEN, POOL
from bench.twins.session import Session
from bench.workloads import scheduler_runs as runs
from bench.workloads.scheduler_runs import (
    FEW,
    FEW_RATE,
    MANY_RATE,
    MEDIAN,
    P99,
    RATE,
    RUNNING,
    SUBMITTING,
)

WORKS: Final = 20_000
ROUND_TRIPS: Final = 5_000
MANY: Final = 1_000_000
#: So many stretches of `FEW` works are run; of a long queue one after another, and the rest is cancelled.
STRETCHES: Final = 10
#: So many queued works are counted by `tracemalloc`.
WEIGHED: Final = 50_000
BUSY_WORKS: Final = 500
BUSY: Final = 0.001
#: Seconds of idleness, over all repeats.
IDLENESS: Final = 60.0
TURNS: Final = 3
#: Seconds after which a work that hasn't been run is taken for lost.
PATIENCE: Final = 120.0

BULK_WORKERS: Final = (1, 2, 4)
SINGLY_WORKERS: Final = (1, 4)
IDLE_WORKERS: Final = 4

BULK: Final = "empty works, in bulk"
SINGLY: Final = "empty works, one at a time"
GATED: Final = "behind a gate, one by one"
BATCH: Final = "behind a gate, in a batch"
WEIGHT: Final = "queued works"
CPU: Final = "1 ms of CPU each"
IDLE: Final = "idle"
IDLE_OPEN: Final = "idle, workers as needed"

RATIO: Final = Quantity("throughput ratio", "", "higher")
MEDIAN_RATIO: Final = Quantity("round trip ratio, median", "", "lower")
P99_RATIO: Final = Quantity("round trip ratio, 99th percentile", "", "lower")
SUBMISSION_RATIO: Final = Quantity("submission rate ratio", "", "higher")
COMPLETION_RATIO: Final = Quantity("rate ratio from submission to the last result", "", "higher")
DISPATCH_RATIO: Final = Quantity("rate with many queued / few", "", "higher")
SCALING: Final = Quantity("throughput on two workers / on one", "", "higher")


def to_pool(variant: str) -> str:
    return f"{variant} / {POOL}"


@dataclass(frozen=True)
class Trial:
    """What is measured in one setting: with how many workers, of whom, and how many times in one run."""

    measure: Callable[[Session], Measurement]
    workers: tuple[int, ...] = (1,)
    variants: tuple[str, ...] = COMPARED
    turns: int = 1

    def sessions(self) -> list[tuple[int, str]]:
        return list(product(self.workers, self.variants))


class SchedulerCost(Workload):
    name: ClassVar[str] = "scheduler"
    shows: ClassVar[str] = (
        "What a work costs in hive_task, next to ThreadPoolExecutor and to twins of the scheduler's core without STM."
    )
    variants: ClassVar[tuple[str, ...]] = tuple(CONTENDERS)

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        whole = plan.scale >= 1
        trips = plan.operations(ROUND_TRIPS, least=10)
        works = min(WORKS, plan.operations(WORKS + WORKS // 4, least=10))
        turns = min(TURNS, plan.operations(5 * TURNS))
        stretches = min(STRETCHES, plan.operations(5 * STRETCHES))
        queued = MANY if whole else plan.operations(MANY // 2, least=2 * FEW)
        idleness = (IDLENESS if whole else 15 * plan.scale) / plan.repeats
        self.queued = f"{queued:,} queued"
        self.trials = {
            BULK: Trial(partial(runs.in_bulk, works), BULK_WORKERS, turns=turns),
            SINGLY: Trial(partial(runs.one_at_a_time, trips), SINGLY_WORKERS, turns=turns),
            GATED: Trial(partial(runs.behind_a_gate, works), turns=turns),
            BATCH: Trial(partial(runs.in_a_batch, works), turns=turns),
            self.queued: Trial(partial(runs.many_queued, queued, stretches), variants=(HIVE, POOL)),
            WEIGHT: Trial(partial(runs.weigh, plan.operations(WEIGHED, least=100))),
            IDLE: Trial(partial(runs.idly, idleness), (IDLE_WORKERS,), (HIVE,)),
            IDLE_OPEN: Trial(partial(runs.idly, idleness), (1,), (HIVE_OPEN,)),
        }
        if not gil_enabled():
            busy = partial(runs.busily, plan.operations(BUSY_WORKS, least=2), runs.steps_for(BUSY))
            self.trials[CPU] = Trial(busy, (1, 2), turns=turns)
        self.ready: dict[Point, Measurement] = {}
        self.complaint = ""

    def points(self) -> Iterator[Point]:
        for setting, trial in self.trials.items():
            for workers, variant in trial.sessions():
                yield Point(setting, variant, workers)

    def run(self, point: Point) -> Measurement:
        """The first point of a setting measures all of its points, in turns. The others find theirs done."""
        if point not in self.ready:
            self._take_turns(point.setting)
        return self.ready.pop(point)

    def _take_turns(self, setting: str) -> None:
        trial = self.trials[setting]
        sessions = trial.sessions()
        taken: dict[tuple[int, str], list[Measurement]] = {one: [] for one in sessions}
        self.complaint = ""
        for turn in range(trial.turns):
            for one in reversed(sessions) if turn % 2 else sessions:
                workers, variant = one
                taken[one].append(self._one(trial, variant, workers))
        for (workers, variant), turns in taken.items():
            self.ready[Point(setting, variant, workers)] = {
                quantity: statistics.median(turn[quantity] for turn in turns) for quantity in turns[0]
            }

    def _one(self, trial: Trial, variant: str, workers: int) -> Measurement:
        measured: list[Measurement] = []

        def body(start: Start) -> None:
            start()
            session = Session(variant, workers)
            measured.append(trial.measure(session))
            complaint = session.close()
            self.complaint = self.complaint or complaint

        try:  # in a thread that can be given up, if what it waits for doesn't come
            run_together([body], apart=True, patience=PATIENCE)
        except StuckError:
            raise InvariantError(f"{variant}: after {PATIENCE:g} s a work has not run") from None
        return measured[0]

    def check(self) -> None:
        if self.complaint:
            raise InvariantError(self.complaint)

    def summarise(self, samples: Samples) -> Summary:
        figures = [*self._to_pool(samples), *self._batches(samples), *self._growing(samples)]
        return Summary(figures, self._charts(samples), list(findings_of(figures)))

    def _to_pool(self, samples: Samples) -> Iterator[Figure]:
        """The round trips and the throughput, relative to `POOL`."""
        compared = ((BULK, RATE, RATIO), (CPU, RATE, RATIO), (SINGLY, MEDIAN, MEDIAN_RATIO), (SINGLY, P99, P99_RATIO))
        for setting, quantity, ratio in compared:
            for workers, variant in product(self.trials[setting].workers if setting in self.trials else (), COMPARED):
                to, of = (samples.values(Point(setting, one, workers), quantity) for one in (variant, POOL))
                if variant != POOL and (values := ratios(to, of)):
                    yield Figure(setting, to_pool(variant), workers, ratio, values)

    def _batches(self, samples: Samples) -> Iterator[Figure]:
        """One call of `put_works`, relative to as many of `POOL`'s `submit`."""
        pool = [samples.values(Point(GATED, POOL, 1), quantity) for quantity in (SUBMITTING, RUNNING)]
        for variant in COMPARED:
            batch = [samples.values(Point(BATCH, variant, 1), quantity) for quantity in (SUBMITTING, RUNNING)]
            if variant != POOL and (values := ratios(pool[0], batch[0])):
                yield Figure(BATCH, to_pool(variant), 1, SUBMISSION_RATIO, values)
                whole = [per_repeat(lambda first, second: first + second, *costs) for costs in (pool, batch)]
                yield Figure(BATCH, to_pool(variant), 1, COMPLETION_RATIO, ratios(*whole))

    def _growing(self, samples: Samples) -> Iterator[Figure]:
        """Each relative to itself, with more works in the queue or more workers."""
        for variant in COMPARED:
            many, few = (samples.values(Point(self.queued, variant, 1), rate) for rate in (MANY_RATE, FEW_RATE))
            if values := ratios(many, few):
                yield Figure(self.queued, variant, 1, DISPATCH_RATIO, values)
            two, one = (samples.values(Point(CPU, variant, workers), RATE) for workers in (2, 1))
            if values := ratios(two, one):
                yield Figure(CPU, variant, 2, SCALING, values)

    def _charts(self, samples: Samples) -> list[Chart]:
        rates = [
            samples.series(variant, [Point(BULK, variant, workers) for workers in BULK_WORKERS], RATE)
            for variant in COMPARED
        ]
        points = [Point(GATED, variant, 1) for variant in COMPARED]
        parts = {"submitter": SUBMITTING, "worker, and fetching the result": RUNNING}
        costs = [samples.series(label, points, quantity) for label, quantity in parts.items()]
        workers = tuple(map(str, BULK_WORKERS))
        return [
            Chart("Empty works a second, in bulk", "workers", RATE.unit, workers, tuple(rates), kind="bar"),
            Chart("Who pays for a work", "", SUBMITTING.unit, COMPARED, tuple(costs), kind="bar"),
        ]


SAYINGS: Final = {
    RATIO: "throughput is {} times",
    MEDIAN_RATIO: "the median round trip takes {} times",
    P99_RATIO: "the 99th percentile of round trips is {} times",
    SUBMISSION_RATIO: "works are submitted {} times as fast as one by one to",
    COMPLETION_RATIO: "they are done {} times as fast as one by one by",
}


def findings_of(figures: Iterable[Figure]) -> Iterator[str]:
    """What the ratios of hive_task say, in words."""
    for figure in figures:
        if figure.subject == to_pool(HIVE):
            ratio = number(spread(figure.values).median)
            said = SAYINGS[figure.quantity].format(ratio)
            whose = POOL if figure.setting == BATCH else f"that of {POOL}"
            yield f"{figure.setting}, {count_of(figure.threads, 'worker')}: {said} {whose}."
