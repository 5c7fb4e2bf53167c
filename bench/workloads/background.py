"""`background`: what a background task costs in hive_task, next to huey, in memory and in a SQLite file.

How the two are made equal, and what is different because they are built so, stands in `bench.twins.task_queues`. In
short: workers are threads, results are kept, and in SQLite both use a write-ahead log and `synchronous=FULL`, which is
huey's `fsync=True`. A task notes that it ran, so in each run it is checked that each ran once, and how many are said to
be done. Settings:

- Empty tasks, from the first putting in to the last result: the caller puts them in one by one while workers take them.
  With hive_task also 100 at a time, which huey has no way to do; it is compared with huey's one by one.
- Putting into SQLite, one by one, and with hive_task 100 at a time, while nobody takes them. What the disk takes for
  one `fsync` is shown beside, for it decides what can be had.
- To an idle worker: from just before the putting in to the task's first step. In SQLite the worker is in another
  process. huey's workers look for tasks every so often, and what is measured is how often; see there.
- Idle: the CPU time of the whole process while there is nothing to do; of huey a quarter as long.
- Many queued: how fast tasks are taken and settled at the head of a long queue, with a tenth as many others that are
  to run later, relative to a queue of a thousand. This is the data source alone; some tasks at once, as workers do.
- Worked through: the memory of a process that works through a long queue in SQLite, beyond what it had after the first
  thousand tasks.

Files are made where `tempfile` makes them (`TMPDIR`). What to distrust: with a disk that others use, all that concerns
SQLite; the 99th percentile, which is that of each run, and in a quick run of few tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Final

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
    ratios,
    run_together,
)
from bench.results import Chart, Figure, Quantity, spread
from bench.tables import count_of, number
from bench.twins.task_queues import CONTENDERS, HIVE, HUEY, missing
from bench.workloads import background_runs as runs
from bench.workloads.background_runs import BATCH, FEW, FEW_RATE, MANY_RATE, MEDIAN, P99, PUT_RATE, RATE, SYNC

TASKS: Final = 50_000
STORED_TASKS: Final = 5_000
PUT: Final = 1_000
PUT_IN_BATCHES: Final = 50_000
TRIPS: Final = 150
#: Seconds of idleness, over all repeats; in a quick run.
IDLENESS: Final = 60.0
IDLENESS_QUICK: Final = 3.0
MANY: Final = 1_000_000
STRETCHES: Final = 10
WORKED: Final = 100_000
#: Seconds after which a run that does not end is given up.
PATIENCE: Final = 600.0

WORKERS: Final = (1, 4)
GROWTH_WORKERS: Final = 2

MEMORY: Final = "empty tasks in memory"
SQLITE: Final = "empty tasks in SQLite"
MEMORY_BATCHES: Final = f"{MEMORY}, {BATCH} at a time"
SQLITE_BATCHES: Final = f"{SQLITE}, {BATCH} at a time"
SINGLY: Final = "putting into SQLite, one by one"
BATCHES: Final = f"putting into SQLite, {BATCH} at a time"
TO_IDLE_MEMORY: Final = "to an idle worker, in memory"
TO_IDLE_SQLITE: Final = "to an idle worker of another process, in SQLite"
IDLE_MEMORY: Final = "idle, in memory"
IDLE_SQLITE: Final = "idle, in SQLite"
LONG_MEMORY: Final = "many queued, in memory"
LONG_SQLITE: Final = "many queued, in SQLite"
WORKED_THROUGH: Final = "worked through, in SQLite"

TO_HUEY: Final = f"{HIVE} / {HUEY}"
RATIO: Final = Quantity("ratio of tasks run a second", "", "higher")
PUT_RATIO: Final = Quantity("ratio of tasks put in a second", "", "higher")
LENGTH_RATIO: Final = Quantity("tasks taken and settled with many queued / few", "", "higher")

BOTH: Final = (HIVE, HUEY)
#: A setting, and what of huey it is compared with.
COMPARED: Final = (
    (MEMORY, MEMORY, RATE, RATIO),
    (SQLITE, SQLITE, RATE, RATIO),
    (MEMORY_BATCHES, MEMORY, RATE, RATIO),
    (SQLITE_BATCHES, SQLITE, RATE, RATIO),
    (SINGLY, SINGLY, PUT_RATE, PUT_RATIO),
)


@dataclass(frozen=True)
class Trial:
    """What is measured in one setting: by `run(variant, workers, folder)`, with a folder if it is `on_disk`."""

    run: Callable[..., Measurement]
    on_disk: bool = False
    variants: tuple[str, ...] = BOTH
    workers: tuple[int, ...] = (1,)


class Background(Workload):
    name: ClassVar[str] = "background"
    shows: ClassVar[str] = "What a background task costs in hive_task, in memory and in SQLite, next to huey."
    variants: ClassVar[tuple[str, ...]] = tuple(CONTENDERS)

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        count = plan.operations
        whole = plan.scale >= 1
        idleness = (IDLENESS if whole else min(1.0, 5 * plan.scale) * IDLENESS_QUICK) / plan.repeats
        stretches = min(STRETCHES, count(5 * STRETCHES // 2))
        queued = MANY if whole else count(MANY // 2, least=2 * stretches * FEW)
        long = partial(runs.many_queued, queued, queued // 10, stretches)
        trips = partial(runs.to_idle_workers, count(TRIPS, least=3))
        idly = partial(runs.idly, idleness)
        self.trials = {
            MEMORY: Trial(partial(runs.to_the_end, count(TASKS, least=10)), workers=WORKERS),
            SQLITE: Trial(partial(runs.to_the_end, count(STORED_TASKS, least=10)), True, workers=WORKERS),
            MEMORY_BATCHES: Trial(
                partial(runs.to_the_end_in_batches, count(TASKS, least=10)), variants=(HIVE,), workers=WORKERS
            ),
            SQLITE_BATCHES: Trial(
                partial(runs.to_the_end_in_batches, count(TASKS, least=10)), True, (HIVE,), workers=WORKERS
            ),
            SINGLY: Trial(partial(runs.put_one_by_one, count(PUT, least=10)), True),
            BATCHES: Trial(partial(runs.put_in_batches, count(PUT_IN_BATCHES, least=10)), True, (HIVE,)),
            TO_IDLE_MEMORY: Trial(trips),
            TO_IDLE_SQLITE: Trial(trips, True),
            IDLE_MEMORY: Trial(idly),
            IDLE_SQLITE: Trial(idly, True),
            LONG_MEMORY: Trial(long, False, (HIVE,)),
            LONG_SQLITE: Trial(long, True, (HIVE,)),
            WORKED_THROUGH: Trial(
                partial(runs.worked_through, count(WORKED, least=FEW)), True, (HIVE,), (GROWTH_WORKERS,)
            ),
        }
        self.missing = {variant: reason for variant in self.variants if (reason := missing(variant))}

    def points(self) -> Iterator[Point]:
        for setting, trial in self.trials.items():
            for workers in trial.workers:
                for variant in trial.variants:
                    if variant not in self.missing:
                        yield Point(setting, variant, workers)

    def run(self, point: Point) -> Measurement:
        trial = self.trials[point.setting]
        arguments: tuple[Any, ...] = (point.variant, point.threads)
        measured: list[Measurement] = []

        def body(start: Start) -> None:
            start()
            if trial.on_disk:
                measured.append(runs.in_a_folder(trial.run, *arguments))
            else:
                measured.append(trial.run(*arguments, None))

        try:  # in a thread that can be given up, if what it waits for doesn't come
            run_together([body], apart=True, patience=PATIENCE)
        except StuckError:
            raise InvariantError(f"{point.variant} did not come to an end within {PATIENCE:g} s") from None
        return measured[0]

    def check(self) -> None:
        """Each run has looked at its books before it ended."""

    def summarise(self, samples: Samples) -> Summary:
        figures = [*self._to_huey(samples), *self._growing(samples)]
        unmeasured = dict(self.missing)
        if HUEY in self.missing:
            unmeasured[TO_HUEY] = self.missing[HUEY]
        findings = [*self._findings(samples), *findings_of(figures), *map("{}.".format, self.missing.values())]
        return Summary(figures, [self._chart(samples)], findings, unmeasured)

    def _to_huey(self, samples: Samples) -> Iterator[Figure]:
        for setting, beside, rate, ratio in COMPARED:
            for workers in self.trials[setting].workers:
                hive = samples.values(Point(setting, HIVE, workers), rate)
                huey = samples.values(Point(beside, HUEY, workers), rate)
                if values := ratios(hive, huey):
                    yield Figure(setting, TO_HUEY, workers, ratio, values)

    def _growing(self, samples: Samples) -> Iterator[Figure]:
        for setting in (LONG_MEMORY, LONG_SQLITE):
            many, few = (samples.values(Point(setting, HIVE, 1), rate) for rate in (MANY_RATE, FEW_RATE))
            if values := ratios(many, few):
                yield Figure(setting, HIVE, 1, LENGTH_RATIO, values)

    def _findings(self, samples: Samples) -> Iterator[str]:
        for setting in (TO_IDLE_MEMORY, TO_IDLE_SQLITE):
            median, p99 = (samples.values(Point(setting, HIVE, 1), quantity) for quantity in (MEDIAN, P99))
            if median and p99:
                times = " ms, 99th percentile ".join(number(spread(some).median) for some in (median, p99))
                yield f"{setting}: {HIVE} begins a task after {times} ms."
        if syncs := samples.values(Point(SINGLY, HIVE, 1), SYNC):
            sync = number(spread(syncs).median)
            yield f"The disk took {sync} µs for an fsync; a task that is put in by itself waits for one."

    def _chart(self, samples: Samples) -> Chart:
        settings = [(setting, workers) for setting in (MEMORY, SQLITE) for workers in WORKERS]
        series = tuple(
            samples.series(variant, [Point(setting, variant, workers) for setting, workers in settings], RATE)
            for variant in BOTH
            if variant not in self.missing
        )
        categories = tuple(f"{setting.split()[-1]}, {count_of(workers, 'worker')}" for setting, workers in settings)
        return Chart("Empty tasks a second", "", RATE.unit, categories, series, kind="bar", y_log=True)


SAYINGS: Final = {
    RATIO: f"{HIVE} runs {{}} times as many tasks a second as {HUEY}",
    PUT_RATIO: f"{{}} times as many tasks a second are put into {HIVE} as into {HUEY}",
    LENGTH_RATIO: "tasks are taken and settled at {} times the rate with few",
}


def findings_of(figures: Iterable[Figure]) -> Iterator[str]:
    for figure in figures:
        said = SAYINGS[figure.quantity].format(number(spread(figure.values).median))
        yield f"{figure.setting}, {count_of(figure.threads, 'worker')}: {said}."
