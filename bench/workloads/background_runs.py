"""How the workload `background` measures: a function for each setting, which drives a contender and reads the clock.

Each run has a contender of its own, in a folder of its own if it keeps a file. At its end the books must be right: each
task ran once, or waits if there was nobody to run it; and as many results are stored as tasks ran.
"""

from __future__ import annotations

import gc
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from bench.harness import InvariantError, Measurement
from bench.results import Quantity
from bench.twins.task_queues import CONTENDERS, HIVE, NAME, Books, Hive, TaskQueue
from bench.workloads.neighbour import Neighbour
from hive_task.background import End, Task

#: Seconds after which a task that hasn't run is taken for lost.
PATIENCE: Final = 120.0
#: Tasks that run before the clock starts, so that all workers are there and know how short the tasks are.
WARMING: Final = 50
#: Tasks to one call of `enqueue_tasks`.
BATCH: Final = 100
#: Tasks to one claim: as many as an application takes at once of the shortest.
CLAIM: Final = 64
FEW: Final = 1_000
#: Tasks put in at once to make a queue long.
FILLING: Final = 1_000
#: Seconds between two tasks, in which the worker becomes idle. It settles the last one within 20 ms.
PAUSE: Final = 0.01
#: Seconds from now until tasks that are not to run meanwhile.
LATER: Final = 1e6
#: Calls of `fsync` that tell what the disk takes for one.
SYNCS: Final = 20

RATE: Final = Quantity("tasks run, from the first putting in to the last result", "tasks/s", "higher")
PUT_RATE: Final = Quantity("tasks put in", "tasks/s", "higher")
SYNC: Final = Quantity("what the disk takes for one fsync", "µs", "")
MEDIAN: Final = Quantity("from putting in to the start, median", "ms", "lower")
P99: Final = Quantity("from putting in to the start, 99th percentile", "ms", "lower")
CORES: Final = Quantity("CPU used by idle workers", "cores", "lower")
FEW_RATE: Final = Quantity(f"tasks taken and settled with {FEW:,} queued", "tasks/s", "higher")
MANY_RATE: Final = Quantity("tasks taken and settled with many queued", "tasks/s", "higher")
GROWTH: Final = Quantity(f"memory of the worker, beyond what it had after {FEW:,} tasks", "MB", "lower")


@contextmanager
def at_work(
    variant: str, workers: int, folder: str | None, *, elsewhere: bool = False
) -> Iterator[tuple[TaskQueue, Books]]:
    """A contender, warmed up, whose books are looked at in the end. `folder`: where its file is to be. `elsewhere`:
    another process runs the tasks, whose numbers the caller enters into the books."""
    books = Books()
    queue = CONTENDERS[variant](books.note, workers, file_in(folder))
    try:
        if workers:
            put_in(queue, books.expect(WARMING))
            await_results(books, queue)
        yield queue, books
        check_books(queue, books, books.expected if workers or elsewhere else 0)
    finally:
        queue.end()


def file_in(folder: str | None) -> Path | None:
    return None if folder is None else Path(folder) / "tasks.db"


def put_in(queue: TaskQueue, numbers: Sequence[int]) -> None:
    put = queue.put
    for number in numbers:
        put(number)


def await_results(books: Books, queue: TaskQueue) -> None:
    try:
        books.await_results(queue, PATIENCE)
    except TimeoutError as error:
        raise InvariantError(f"{queue.variant}: {error}") from None


def check_books(queue: TaskQueue, books: Books, ran: int) -> None:
    """The first so many were to run, each once."""
    complaint = books.complaint(ran)
    found, right = (queue.waiting(), queue.stored()), (books.expected - ran, ran)
    if not complaint and found != right:
        complaint = f"{found[0]} tasks wait and {found[1]} results are stored, instead of {right[0]} and {right[1]}"
    if complaint:
        raise InvariantError(f"{queue.variant}: {complaint}")


# In memory, or in a file if there is a folder


def to_the_end(count: int, variant: str, workers: int, folder: str | None) -> Measurement:
    """Put in one after the other, while the workers are at it, and wait for all results."""
    with at_work(variant, workers, folder) as (queue, books):
        numbers = books.expect(count)
        gc.collect()
        began = time.perf_counter()
        put_in(queue, numbers)
        await_results(books, queue)
        return {RATE: count / (time.perf_counter() - began)}


def to_the_end_in_batches(count: int, variant: str, workers: int, folder: str | None) -> Measurement:
    """The same, so many at a time."""
    with at_work(variant, workers, folder) as (queue, books):
        assert isinstance(queue, Hive)
        numbers = books.expect(count)
        gc.collect()
        began = time.perf_counter()
        for first in range(0, count, BATCH):
            queue.put_many(numbers[first : first + BATCH])
        await_results(books, queue)
        return {RATE: count / (time.perf_counter() - began)}


def idly(seconds: float, variant: str, workers: int, folder: str | None) -> Measurement:
    with at_work(variant, workers, folder):
        if variant != HIVE:
            seconds /= 4  # it looks for tasks again and again, so a short while shows it
        time.sleep(min(0.1, seconds))  # what it does when it becomes idle is done
        used, began = time.process_time(), time.perf_counter()
        time.sleep(seconds)
        return {CORES: (time.process_time() - used) / (time.perf_counter() - began)}


def to_idle_workers(count: int, variant: str, workers: int, folder: str | None) -> Measurement:
    """One task after the other. In a file: for the workers of another process."""
    if folder is not None:
        return to_another_process(count, variant, workers, folder)
    with at_work(variant, workers, None) as (queue, books):
        return latencies(queue, books.expect(count))


def to_another_process(count: int, variant: str, workers: int, folder: str) -> Measurement:
    with (
        at_work(variant, 0, folder, elsewhere=True) as (queue, books),
        Neighbour("background_worker", variant, str(file_in(folder)), str(workers)) as neighbour,
    ):
        latencies(queue, books.expect(WARMING // 10))
        measured = latencies(queue, books.expect(count))
        books.ran += neighbour.end()
        return measured


def latencies(queue: TaskQueue, numbers: Sequence[int]) -> Measurement:
    """The clock is the same for all processes of a machine."""
    times = []
    for number in numbers:
        time.sleep(PAUSE)
        began = time.monotonic()
        ticket = queue.put(number)
        times.append(moment_of(queue, ticket) - began)
    if min(times) < 0:
        raise InvariantError(f"{queue.variant}: a task began before it was put in")
    return {MEDIAN: statistics.median(times) * 1e3, P99: sorted(times)[len(times) * 99 // 100] * 1e3}


def moment_of(queue: TaskQueue, ticket: Any) -> float:
    try:
        return queue.moment_of(ticket, PATIENCE)
    except Exception as error:
        raise InvariantError(f"{queue.variant}: a task has no result: {type(error).__name__}: {error}") from error


# Putting in


def put_one_by_one(count: int, variant: str, workers: int, folder: str) -> Measurement:
    """Nobody takes them meanwhile."""
    with at_work(variant, 0, folder) as (queue, books):
        numbers = books.expect(count)
        gc.collect()
        began = time.perf_counter()
        put_in(queue, numbers)
        seconds = time.perf_counter() - began
        return {PUT_RATE: count / seconds, SYNC: time_of_sync(Path(folder)) * 1e6}


def put_in_batches(count: int, variant: str, workers: int, folder: str) -> Measurement:
    with at_work(variant, 0, folder) as (queue, books):
        assert isinstance(queue, Hive)
        numbers = books.expect(count)
        gc.collect()
        began = time.perf_counter()
        for first in range(0, count, BATCH):
            queue.put_many(numbers[first : first + BATCH])
        return {PUT_RATE: count / (time.perf_counter() - began)}


def time_of_sync(folder: Path) -> float:
    """Seconds that it takes to have a page that was written to a file's end on the disk."""
    times = []
    with (folder / "synced").open("wb", buffering=0) as file:
        for _ in range(SYNCS):
            file.write(bytes(4096))
            began = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - began)
    return statistics.median(times)


# Long queues


def many_queued(count: int, later: int, stretches: int, variant: str, workers: int, folder: str | None) -> Measurement:
    """How fast tasks are taken and settled, some at once, by one that does nothing else: with few queued; and at the
    head of a long queue, with many others that are to run later."""
    hive = Hive(no_task, 0, file_in(folder))
    try:
        rates = []
        for stretch in range(stretches):
            fill(hive, range(stretch * FEW, (stretch + 1) * FEW))
            rates.append(rate_of_claims(hive, stretch * FEW))
        few, taken = statistics.median(rates), stretches * FEW
        fill(hive, range(taken, taken + count))
        fill(hive, range(later), due=time.time() + LATER)
        gc.collect()
        many = statistics.median(rate_of_claims(hive, taken + stretch * FEW) for stretch in range(stretches))
        found = [hive.count(state) for state in ("queued", "scheduled", "running", "done")]
        if found != (right := [count - taken, later, 0, 2 * taken]):
            raise InvariantError(f"(queued, scheduled, running, done) are {found} instead of {right}")
        return {FEW_RATE: few, MANY_RATE: many}
    finally:
        hive.end()


def no_task(number: int) -> float:
    raise InvariantError("a task ran that nobody was to run")


def fill(hive: Hive, numbers: range, due: float | None = None) -> None:
    for first in range(0, len(numbers), FILLING):
        some = [Task(NAME, number, due=due) for number in numbers[first : first + FILLING]]
        hive.source.enqueue_tasks(some, app=hive.app)


def rate_of_claims(hive: Hive, first: int) -> float:
    """Take and settle the next `FEW` tasks, as a worker does: one step for settling some and taking the next."""
    source, app = hive.source, hive.app
    ends: list[End] = []
    numbers: list[int] = []
    refused = 0
    began = time.perf_counter()
    while ends or len(numbers) < FEW:
        accepted, tasks = source.settle_and_dequeue(ends, min(CLAIM, FEW - len(numbers)), app=app)
        refused += accepted.count(False)
        if not tasks and len(numbers) < FEW:
            break
        numbers += [task.data for task in tasks]
        ends = [End(task, "done", task.data) for task in tasks]
    seconds = time.perf_counter() - began
    if refused or numbers != list(range(first, first + FEW)):
        wrong = sum(got != expected for got, expected in zip(numbers, range(first, first + FEW), strict=False))
        raise InvariantError(
            f"of {FEW} tasks {len(numbers)} were handed out, {wrong} of them not in their order, and the ends of"
            f" {refused} were refused"
        )
    return FEW / seconds


def worked_through(count: int, variant: str, workers: int, folder: str) -> Measurement:
    """How the memory of a process grows whose workers work through a long queue."""
    hive = Hive(no_task, 0, file_in(folder))
    try:
        fill(hive, range(count - 1))
        last = hive.put(count - 1)
        with Neighbour("background_growth", str(file_in(folder)), str(workers), str(count)) as neighbour:
            moment_of(hive, last)
            deadline = time.monotonic() + PATIENCE
            while hive.stored() < count and time.monotonic() < deadline:
                time.sleep(0.01)
            found = neighbour.end()
        if found["wrong"] or hive.stored() != count:
            raise InvariantError(
                f"of {count} tasks {found['wrong']} did not run exactly once, and {hive.stored()} are said to be done"
            )
        return {GROWTH: (found["most"] - found["first"][0]) / 1e6}
    finally:
        hive.end()


def in_a_folder(run: Any, *arguments: Any) -> Measurement:
    """Run it with a folder as its last argument, which is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        measured: Measurement = run(*arguments, folder)
        return measured
