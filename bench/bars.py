"""The bars: what the library is expected to reach, each a figure and a limit.

A bar is held against the median, in the worst of the settings it applies to. A missed bar is a fact about a machine and
a version, not a failure of the program. A bar whose figure this machine or this interpreter can't give (a compiler or a
library is not there) is reported as not measured, with the reason; one whose figure wasn't asked for is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from bench.results import BarOutcome, Figure, Result
from bench.tables import count_of
from bench.workloads import (
    awaiting,
    background,
    background_runs,
    compiled_call,
    compiled_transfer,
    counters,
    growth,
    hand_over,
    importing,
    long_body,
    maps,
    memory,
    picture,
    queues,
    read_set,
    routing,
    scheduler,
    scheduler_runs,
    shared_clock,
    stats_cost,
    transfer,
)


@dataclass(frozen=True)
class Bar:
    """A limit for one figure.

    `setting` may be left open. `build` names the only kind of interpreter it is meant for. `always`: the limit is a
    promise that a single repeat can break, so the worst repeat counts and not the median.
    """

    name: str
    workload: str
    quantity: str
    subject: str
    limit: float
    at: Literal["most", "least"]
    threads: int = 1
    setting: str | None = None
    build: Literal["GIL", "free-threaded", ""] = ""
    always: bool = False

    def applies_to(self, figure: Figure) -> bool:
        return (
            figure.quantity.name == self.quantity
            and figure.subject == self.subject
            and figure.threads == self.threads
            and self.setting in (None, figure.setting)
        )

    def met_by(self, value: float) -> bool:
        return value <= self.limit if self.at == "most" else value >= self.limit

    def outcome(self, figures: Iterable[Figure]) -> BarOutcome | None:
        """Held against the figures of its workload; `None` if none of them is what it is about."""
        worst = max if self.at == "most" else min
        values = [
            (worst(figure.values) if self.always else figure.spread.median, figure)
            for figure in figures
            if self.applies_to(figure)
        ]
        if not values:
            return None
        value, figure = worst(values, key=lambda pair: pair[0])
        limit = f"{self._limit()}{' ' + figure.quantity.unit if figure.quantity.unit else ''}"
        where = f"{figure.setting}; {count_of(figure.threads, 'thread')}"
        return BarOutcome(self.name, value, limit, self.met_by(value), where)

    def not_measured(self, reason: str) -> BarOutcome:
        return BarOutcome(self.name, None, self._limit(), False, reason)

    def _limit(self) -> str:
        return f"at {self.at} {self.limit:g}"


BARS: Final = (
    Bar("transfer, STM / lock, net of the loop", "transfer", transfer.NET_RATIO.name, "stm / lock", 10, "most"),
    Bar(
        "transfer, STM on 2 threads / on 1",
        "transfer",
        transfer.SCALING.name,
        "stm",
        0.7,
        "least",
        threads=2,
        build="GIL",
    ),
    Bar(
        "body of 20 µs, STM / lock",
        "long-body",
        long_body.RATIO.name,
        "stm / lock",
        1.8,
        "least",
        threads=2,
        setting=long_body.setting_of(20),
        build="free-threaded",
    ),
    Bar(
        "read-only picture, aborted attempts",
        "picture",
        picture.ABORTS.name,
        "read-only",
        0,
        "most",
        threads=1 + picture.WRITERS,
        always=True,
    ),
    Bar(
        "read-only picture, CPU time under writers / alone",
        "picture",
        picture.CPU_RATIO.name,
        "read-only",
        3,
        "most",
        threads=1 + picture.WRITERS,
    ),
    Bar(
        "hand-over, retry / SimpleQueue",
        "hand-over",
        hand_over.RATIO.name,
        "retry / SimpleQueue",
        1.5,
        "most",
        threads=2,
    ),
    *(
        Bar(f"cost per read, dearest / cheapest, {variant}", "read-set", read_set.FLATNESS.name, variant, 2, "most")
        for variant in read_set.TRANSACTIONS
    ),
    Bar("memory of a TVar", "memory", memory.BYTES.name, "TVar", 200, "most"),
    Bar("import stm", "import", importing.NET.name, "import stm", 0.15, "most"),
    *(
        Bar(
            f"queue, {queues.setting_of(pairs)}, TQueue / queue.Queue",
            "queue",
            queues.RATIO.name,
            queues.to_other(queues.STM),
            limit,
            "least",
            threads=2 * pairs,
        )
        for pairs, limit in ((1, 0.5), (4, 0.8))
    ),
    *(
        Bar(
            f"queue, {queues.in_batches(size)} / queue.Queue one by one",
            "queue",
            queues.RATIO.name,
            queues.to_other(queues.in_batches(size)),
            1,
            "least",
            threads=2,
        )
        for size in queues.BATCHES
    ),
    Bar("TMap, attempts aborted for keys of one's own", "map", maps.ABORTED.name, maps.STM, 5, "most", threads=2),
    Bar(
        "TCounter, aborted attempts",
        "counter",
        counters.ABORTS.name,
        counters.STM,
        0,
        "most",
        threads=counters.CROWD,
        always=True,
    ),
    *(
        Bar(f"time per operation on a {variant}, large / small", "growth", growth.RATIO.name, variant, 3, "most")
        for variant in (growth.MAP, growth.QUEUE, growth.PRIORITY_QUEUE)
    ),
    Bar("asyncio, from a commit to the last of the tasks", "asyncio", awaiting.WOKEN.name, awaiting.STM, 2, "most"),
    Bar("asyncio, memory kept after cancelled waits", "asyncio", awaiting.KEPT.name, awaiting.STM, 1, "most"),
    Bar("transfer, statistics on / off", "statistics", stats_cost.RATIO.name, stats_cost.ON_OFF, 1.15, "most"),
    *(
        Bar(
            f"scheduler, empty works in bulk, {count_of(workers, 'worker')} / {scheduler.POOL}",
            "scheduler",
            scheduler.RATIO.name,
            scheduler.to_pool(scheduler.HIVE),
            1,
            "least",
            threads=workers,
            setting=scheduler.BULK,
        )
        for workers in scheduler.BULK_WORKERS
    ),
    *(
        Bar(
            f"scheduler, {ratio.name}, {count_of(workers, 'worker')} / {scheduler.POOL}",
            "scheduler",
            ratio.name,
            scheduler.to_pool(scheduler.HIVE),
            limit,
            "most",
            threads=workers,
        )
        for ratio, limit in ((scheduler.MEDIAN_RATIO, 1.1), (scheduler.P99_RATIO, 1))
        for workers in scheduler.SINGLY_WORKERS
    ),
    Bar(
        f"scheduler, works submitted in a batch / one by one to {scheduler.POOL}",
        "scheduler",
        scheduler.SUBMISSION_RATIO.name,
        scheduler.to_pool(scheduler.HIVE),
        3,
        "least",
    ),
    Bar("scheduler, memory of a queued work", "scheduler", scheduler_runs.BYTES.name, scheduler.HIVE, 1_000, "most"),
    Bar(
        "scheduler, works run with many queued / few",
        "scheduler",
        scheduler.DISPATCH_RATIO.name,
        scheduler.HIVE,
        0.5,
        "least",
    ),
    Bar(
        "scheduler, works of 1 ms on two workers / on one",
        "scheduler",
        scheduler.SCALING.name,
        scheduler.HIVE,
        1.9,
        "least",
        threads=2,
        build="free-threaded",
    ),
    *(
        Bar(
            f"scheduler, CPU used when {setting}",
            "scheduler",
            scheduler_runs.CORES.name,
            subject,
            0.001,
            "most",
            workers,
        )
        for setting, subject, workers in (
            (scheduler.IDLE, scheduler.HIVE, scheduler.IDLE_WORKERS),
            (scheduler.IDLE_OPEN, scheduler.HIVE_OPEN, 1),
        )
    ),
    *(
        Bar(
            f"{setting}, {count_of(workers, 'worker')}, {background.TO_HUEY}",
            "background",
            background.RATIO.name,
            background.TO_HUEY,
            limit,
            "least",
            threads=workers,
            setting=setting,
        )
        for setting, limit in ((background.MEMORY, 2), (background.SQLITE, 3))
        for workers in background.WORKERS
    ),
    Bar(
        f"tasks put into SQLite, {background_runs.BATCH} at a time",
        "background",
        background_runs.PUT_RATE.name,
        background.HIVE,
        50_000,
        "least",
        setting=background.BATCHES,
    ),
    *(
        Bar(
            f"task {setting}, median",
            "background",
            background_runs.MEDIAN.name,
            background.HIVE,
            limit,
            "most",
            setting=setting,
        )
        for setting, limit in ((background.TO_IDLE_MEMORY, 2), (background.TO_IDLE_SQLITE, 10))
    ),
    *(
        Bar(
            f"background application, CPU used when {setting}",
            "background",
            background_runs.CORES.name,
            background.HIVE,
            0.002,
            "most",
            setting=setting,
        )
        for setting in (background.IDLE_MEMORY, background.IDLE_SQLITE)
    ),
    *(
        Bar(
            f"tasks taken and settled, {setting} / few",
            "background",
            background.LENGTH_RATIO.name,
            background.HIVE,
            0.5,
            "least",
            setting=setting,
        )
        for setting in (background.LONG_MEMORY, background.LONG_SQLITE)
    ),
    Bar(
        "memory of a worker, over a long queue",
        "background",
        background_runs.GROWTH.name,
        background.HIVE,
        20,
        "most",
        threads=background.GROWTH_WORKERS,
    ),
    Bar(
        "transfer over TVars, beside the compiled tier / without it",
        "shared-clock",
        shared_clock.RATIO.name,
        shared_clock.SUBJECT,
        1.10,
        "most",
    ),
    Bar(
        "compiled call, net of the loop",
        "compiled-call",
        compiled_call.NET_TIME.name,
        compiled_call.CALL,
        1_000,
        "most",
        setting=compiled_call.ALONE,
    ),
    *(
        Bar(
            f"compiled transfer, {compiled_transfer.setting_of(accounts)}, {count_of(threads, 'thread')} / better peer",
            "compiled-transfer",
            compiled_transfer.RATIO.name,
            compiled_transfer.TO_PEERS,
            limit,
            "least",
            threads=threads,
            setting=compiled_transfer.setting_of(accounts),
        )
        for accounts, limits in ((16, (2, 2)), (1_000, (3, 2)), (1_000_000, (1.5, 3)))
        for threads, limit in zip((1, 2), limits, strict=True)
    ),
    Bar(
        "compiled transfer / Python under one lock",
        "compiled-transfer",
        compiled_transfer.RATIO.name,
        compiled_transfer.TO_LOCK,
        10,
        "least",
    ),
    *(
        Bar(
            f"routing {setting}, 2 threads / without transactions",
            "routing",
            routing.RATIO.name,
            routing.THREADS,
            limit,
            "least",
            threads=2,
            setting=setting,
        )
        for setting, limit in ((routing.ROOMY, 1.5), (routing.CROWDED, 0.8))
    ),
)


def hold(results: Iterable[Result], *, gil: bool, bars: Iterable[Bar] = BARS) -> Iterator[BarOutcome]:
    """Every bar that these results tell something about. Figures of a broken workload count for nothing."""
    by_workload = {result.workload: result for result in results if not result.broken}
    for bar in bars:
        result = by_workload.get(bar.workload)
        if result is None or bar.build not in ("", "GIL" if gil else "free-threaded"):
            continue
        outcome = bar.outcome(result.figures)
        reason = result.skipped or result.unmeasured.get(bar.subject)
        if outcome is not None:
            yield outcome
        elif reason:
            yield bar.not_measured(reason)
