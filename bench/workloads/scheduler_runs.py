"""How the workload `scheduler` measures: a function for each setting, which drives a `Session` and reads the clock.

A full collection has come just before the session was made. The functions order another where they have made much that
isn't measured.
"""

from __future__ import annotations

import gc
import itertools
import statistics
import time
import tracemalloc
from typing import Any, Final

from bench.harness import Measurement
from bench.results import Quantity
from bench.twins.session import Session

FEW: Final = 1_000

RATE: Final = Quantity("throughput", "works/s", "higher")
MEDIAN: Final = Quantity("round trip, median", "µs", "lower")
P99: Final = Quantity("round trip, 99th percentile", "µs", "lower")
MAKING: Final = Quantity("cost of a work, making it", "µs", "lower")
SUBMITTING: Final = Quantity("cost of a work, submitting it", "µs", "lower")
RUNNING: Final = Quantity("cost of a work, running it and fetching the result", "µs", "lower")
FEW_RATE: Final = Quantity(f"works run with {FEW:,} queued", "works/s", "higher")
MANY_RATE: Final = Quantity("works run with many queued", "works/s", "higher")
BYTES: Final = Quantity("memory of a queued work", "bytes", "lower")
CORES: Final = Quantity("CPU used when idle", "cores", "lower")


def in_bulk(count: int, session: Session) -> Measurement:
    submit, work, numbers = session.running.submit, session.work, session.numbers(count)
    began = time.perf_counter()
    futures = [submit(work, n) for n in numbers]
    session.fetch(futures)
    seconds = time.perf_counter() - began
    session.keep(futures)
    return {RATE: count / seconds}


def one_at_a_time(count: int, session: Session) -> Measurement:
    submit, work, clock = session.running.submit, session.work, time.perf_counter
    futures, times = [], []
    for n in session.numbers(count):
        began = clock()
        future = submit(work, n)
        future.result()
        times.append(clock() - began)
        futures.append(future)
    session.keep(futures)
    return {MEDIAN: statistics.median(times) * 1e6, P99: sorted(times)[len(times) * 99 // 100] * 1e6}


def behind_a_gate(count: int, session: Session) -> Measurement:
    submit, work, numbers = session.running.submit, session.work, session.numbers(count)
    go_on = session.occupy()
    began = time.perf_counter()
    futures = [submit(work, n) for n in numbers]
    submitted = time.perf_counter()
    go_on()
    session.fetch(futures)
    ended = time.perf_counter()
    session.keep(futures)
    return {SUBMITTING: (submitted - began) / count * 1e6, RUNNING: (ended - submitted) / count * 1e6}


def in_a_batch(count: int, session: Session) -> Measurement:
    call, work, numbers = session.running.call, session.work, session.numbers(count)
    go_on = session.occupy()
    began = time.perf_counter()
    works = [call(work, n) for n in numbers]
    made = time.perf_counter()
    futures = session.running.put_works(works)
    submitted = time.perf_counter()
    go_on()
    session.fetch(futures)
    ended = time.perf_counter()
    session.keep(futures)
    return {
        MAKING: (made - began) / count * 1e6,
        SUBMITTING: (submitted - made) / count * 1e6,
        RUNNING: (ended - submitted) / count * 1e6,
    }


def many_queued(count: int, stretches: int, session: Session) -> Measurement:
    few = [rate for _ in range(stretches) for rate in _stretches(FEW, 1, session)]
    return {
        FEW_RATE: statistics.median(few),
        MANY_RATE: statistics.median(_stretches(count, stretches, session)),
    }


def _stretches(count: int, stretches: int, session: Session) -> list[float]:
    """Queue so many works, and run some: at which rate each stretch of them was run, by one worker, in their order.

    Some of the works look at the clock. A thread that waits for them would, with the GIL, see thousands end at once.
    """
    call, work = session.running.call, session.work
    times: list[float] = []

    def with_time(n: int) -> int:
        times.append(time.perf_counter())
        return work(n)

    go_on = session.occupy()
    numbers = session.numbers(count)
    works = [call(work, n) for n in numbers]
    for timed in range(0, stretches * FEW + 1, FEW - 1)[: stretches + 1]:
        works[timed] = call(with_time, numbers[timed])
    futures = session.running.put_works(works)
    session.keep(futures)
    last = futures[stretches * (FEW - 1)]
    del works, futures
    gc.collect()
    go_on()
    last.result()
    return [(FEW - 1) / (end - start) for start, end in itertools.pairwise(times)]


def weigh(count: int, session: Session) -> Measurement:
    submit, work, numbers = session.running.submit, session.work, list(session.numbers(count))
    go_on = session.occupy()
    futures: list[Any] = [None] * count
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for index, n in enumerate(numbers):
            futures[index] = submit(work, n)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    session.keep(futures)
    go_on()
    return {BYTES: (after - before) / count}


def busily(count: int, steps: int, session: Session) -> Measurement:
    submit, work, numbers = session.running.submit, session.work, session.numbers(count)

    def busy_work(n: int) -> int:
        spin(steps)
        return work(n)

    began = time.perf_counter()
    futures = [submit(busy_work, n) for n in numbers]
    session.fetch(futures)
    seconds = time.perf_counter() - began
    session.keep(futures)
    return {RATE: count / seconds}


def spin(steps: int) -> int:
    value = 0
    for step in range(steps):
        value = (value ^ step) + 1
    return value


def steps_for(seconds: float) -> int:
    """How many steps `spin` makes in that time, when nothing disturbs it."""
    steps, shortest = 10_000, float("inf")
    for _ in range(20):
        began = time.perf_counter()
        spin(steps)
        shortest = min(shortest, time.perf_counter() - began)
    return max(1, round(steps * seconds / shortest))


def idly(seconds: float, session: Session) -> Measurement:
    session.fetch([session.running.submit(int) for _ in range(100)])
    session.gated += 100
    time.sleep(min(0.1, seconds))  # what it does when it becomes idle is done
    used, began = time.process_time(), time.perf_counter()
    time.sleep(seconds)
    return {CORES: (time.process_time() - used) / (time.perf_counter() - began)}
