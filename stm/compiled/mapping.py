"""`.map`: one compiled transaction for each of many rows, without the GIL, on several threads.

Rows are handed out in chunks; each worker runs the kernel (`building.MAP`) over its chunk, and comes back to Python at
the chunk's end, for a row that raised, or when another transaction must not be disturbed. A row that retries is put
aside; when there are no more chunks, a worker runs those that it has put aside as alternatives of one ordinary
transaction, the first that can go on first, and sleeps while none can.

To stop a worker (Ctrl-C, the interpreter's exit), its log's `STOP` is set, which is looked at before each commit, and
its read version is made older than everything, so that its next read ends the attempt. What has not been committed by
then never is.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from stm.atomically import check, in_transaction, or_else, run
from stm.compiled import control as machine
from stm.compiled.array import TArray
from stm.compiled.log import (
    DONE,
    EVENT,
    IDLE,
    INSIST,
    LIMIT,
    MOMENT,
    PASS,
    PENDING,
    RAISE,
    ROW,
    RUNNING,
    STATE,
    STOP,
    UNTIL,
    WORKERS,
    YIELD,
)
from stm.compiled.marks import Constant, Scratch
from stm.compiled.runtime import CLOCK_WORD, TICKS_PER_SECOND, Log, control, take_log
from stm.compiled.tuning import LONGEST_GROUP
from stm.compiled.upcalls import insist, relent, wait_until_free
from stm.errors import BlockedForever
from stm.tvar import TVar

if TYPE_CHECKING:
    from stm.compiled.transaction import CompiledTransaction

OnError = Literal["raise", "return"]
Progress = Callable[[int, int], object]

#: Seconds: what a piece of work may take that runs in the calling thread itself, where Ctrl-C has to wait for it.
SHORT: Final = 0.02
#: Seconds between two calls of `progress`, and the most that a stopped worker is waited for.
PROGRESS_EVERY: Final = 0.1
STOP_WITHIN: Final = 0.05


def map_rows(
    transaction: CompiledTransaction[Any, Any],
    columns: Sequence[Any],
    threads: int | None,
    on_error: OnError,
    progress: Progress | None,
) -> Any:
    """See `CompiledTransaction.map`."""
    if on_error not in ("raise", "return"):
        raise ValueError(f"on_error is 'raise' or 'return', not {on_error!r}")
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int)):
        raise TypeError(f"threads is a number or None, not {threads!r}")
    if threads is not None and threads < 1:
        raise ValueError(f"map() needs at least one thread, not {threads}")
    if in_transaction():
        raise RuntimeError(
            f"{transaction!r}.map() runs many transactions, and was called inside one: call it outside, or call the "
            "transaction itself for each row"
        )
    rows = Rows(transaction, columns)
    if rows.count == 0:
        return rows.results(on_error)
    workers = min(threads or processors(), rows.count)
    work = Work(rows, workers)
    in_caller = workers == 1 and (
        threading.current_thread() is not threading.main_thread() or transaction.seconds_a_row * rows.count < SHORT
    )
    if in_caller and progress is None:
        for log in work.logs:
            log.words[UNTIL // 8] = control(machine.TICKS, CLOCK_WORD, 0) + int(SHORT * TICKS_PER_SECOND)
        with running(work):
            work.go(0)
        for log in work.logs:
            log.words[UNTIL // 8] = 0
        if work.chunks:  # it takes longer than it did the last time
            in_threads(work, progress)
    else:
        in_threads(work, progress)
    if workers == 1:
        transaction.seconds_a_row = work.seconds / rows.count
    return rows.results(on_error)


def processors() -> int:
    """How many this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


class Rows:
    """The rows of one call, and what comes of them."""

    def __init__(self, transaction: CompiledTransaction[Any, Any], columns: Sequence[Any]) -> None:
        self.transaction = transaction
        self.args = transaction.bind(columns)
        self.values = [_values(arg) for arg in self.args]
        lengths = {name: len(v) for name, v in zip(transaction.names, self.values, strict=True) if _is_column(v)}
        if not lengths:
            raise ValueError(
                f"{transaction!r}.map() was given no column: pass an array or list with a value for each row"
            )
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{name} has {length}" for name, length in lengths.items())
            raise ValueError(f"the columns of {transaction!r}.map() differ in length: {listed}")
        self.count = next(iter(lengths.values()))
        self.kernel, self.result, self.needs_gil = transaction.map_kernel_for(self.values)
        self.out = _room(self.result, self.count)
        self.errors: dict[int, BaseException] = {}

    def arguments(self) -> tuple[Any, ...]:
        """What one worker passes to the kernel."""
        return tuple(
            value._address if isinstance(value, TArray) else value.for_thread() if _is_marked(value) else value
            for value in self.values
        )

    def row(self, number: int, given: Sequence[Any]) -> list[Any]:
        """The arguments of one row. `given` are the worker's."""
        return [
            _element(value, number) if _is_column(value) else one if _is_marked(value) else value
            for value, one in zip(self.values, given, strict=True)
        ]

    def keep(self, number: int, value: Any) -> None:
        """Note the result of one row."""
        if value is not None:
            self.out[number] = value

    def fail(self, number: int, error: BaseException) -> None:
        """Note that a row raised."""
        try:
            error.row = number  # type: ignore[attr-defined]
        except AttributeError:
            pass
        error.add_note(f"in row {number} of {self.transaction!r}.map()")
        self.errors[number] = error

    def results(self, on_error: OnError) -> Any:
        """What `map` returns, or raises."""
        if self.errors and on_error == "raise":
            first = self.errors[min(self.errors)]
            if len(self.errors) > 1:
                first.add_note(f"{len(self.errors) - 1} more of its {self.count} rows raised")
            raise first
        if on_error == "return":
            found: list[Any] = [None] * self.count if self.out is None else self.out.tolist()
            for number, error in self.errors.items():
                found[number] = error
            return found
        return self.out


def _values(arg: Any) -> Any:
    if isinstance(arg, (TArray, Constant, Scratch, int, float, np.generic)):
        return arg.item() if isinstance(arg, np.generic) else arg
    if isinstance(arg, (np.ndarray, Sequence)) and not isinstance(arg, (str, bytes)):
        column = np.ascontiguousarray(arg)
        if column.dtype != object and column.ndim:
            return column
    raise TypeError(f"map() takes columns of numbers, TArrays, numbers, Constant and Scratch, not {arg!r}")


def _element(column: Any, number: int) -> Any:
    return column[number] if column.ndim > 1 else column[number].item()


def _is_column(value: Any) -> bool:
    return isinstance(value, np.ndarray)


def _is_marked(value: Any) -> bool:
    return isinstance(value, (Constant, Scratch))


def _room(result: Any, count: int) -> Any:
    from numba import types
    from numba.np.numpy_support import as_dtype

    if result == types.none:
        return None
    if isinstance(result, types.UniTuple) and isinstance(result.dtype, (types.Number, types.Boolean)):
        return np.zeros((count, len(result)), as_dtype(result.dtype))
    if isinstance(result, (types.Number, types.Boolean)):
        return np.zeros(count, as_dtype(result))
    raise TypeError(
        f"map() can keep numbers, truth values, and tuples of one type of them as results, not {result}: return those, "
        "or nothing"
    )


def _chunks(count: int, workers: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows: large ones at first, so that there are few, and small ones at last, so that all end together.

    Source: Polychronopoulos and Kuck, "Guided Self-Scheduling", 1987.
    """
    start = 0
    while start < count:
        size = count if workers == 1 else max(1, (count - start) // (2 * workers))
        yield start, min(start + size, count)
        start += size


class Work:
    """One call's chunks, and its workers' logs."""

    def __init__(self, rows: Rows, workers: int) -> None:
        self.rows = rows
        self.leases = [take_log() for _ in range(workers)]
        self.logs = [lease.log for lease in self.leases]
        self.chunks = deque(_chunks(rows.count, workers))
        self.finished = [0] * workers  # rows of chunks that are done
        self.begun = [0] * workers  # the first rows of those that are under way
        self.stopped = TVar(False, name="map() was stopped")
        self.failure: BaseException | None = None
        self.seconds = 0.0  # that one of the workers took
        for log in self.logs:
            log.words[WORKERS // 8] = workers
            # A row that waits for the GIL must not hold the clock, for which others wait who have the GIL.
            log.words[LIMIT // 8] = 0 if rows.needs_gil else int(LONGEST_GROUP * TICKS_PER_SECOND)
            log.words[ROW // 8] = 0

    def stop(self) -> None:
        """Let no worker commit any more. Called again until they are gone: see the module."""
        for log in self.logs:
            log.words[STOP // 8] = 1
            log.words[MOMENT // 8] = -1

    def wake(self) -> None:
        """Wake stopped workers that wait for a row."""
        self.stopped.set(True)

    @property
    def is_stopped(self) -> bool:
        return bool(self.logs[0].words[STOP // 8])

    def done(self) -> int:
        """How many rows have been run."""
        under_way = sum(max(0, log.words[ROW // 8] - row) for log, row in zip(self.logs, self.begun, strict=True))
        return min(self.rows.count, sum(self.finished) + under_way)

    def go(self, worker: int) -> None:
        """Work until nothing is left to do."""
        begun = time.perf_counter()
        self._go(worker)
        self.seconds = time.perf_counter() - begun

    def _go(self, worker: int) -> None:
        log = self.logs[worker]
        given = self.rows.arguments()
        aside: list[int] = []
        while not self.is_stopped:
            try:
                start, stop = self.chunks.popleft()
            except IndexError:
                break
            log.words[ROW // 8] = start
            self.begun[worker] = start
            end = self._chunk(log, start, stop, given, aside)
            self.begun[worker] = end
            log.words[ROW // 8] = end
            self.finished[worker] += end - start
            if end < stop and not self.is_stopped:
                self.chunks.appendleft((end, stop))
                break
        while aside and not self.is_stopped:
            self._one_of(aside, given)

    def _chunk(self, log: Log, start: int, stop: int, given: tuple[Any, ...], aside: list[int]) -> int:
        rows, words = self.rows, log.words
        kernel = rows.kernel
        out = np.zeros(0) if rows.out is None else rows.out
        places = np.zeros(stop - start + 1, np.int64)
        words[PENDING // 8] = places.ctypes.data
        words[STATE // 8] = RUNNING
        at = start
        exclusive = False
        while at < stop and not self.is_stopped:
            try:
                if exclusive:
                    insist()
                    words[PASS // 8] = 1
                at = kernel(log.address, at, min(at + 1, stop) if exclusive else stop, out, *given)
                event = words[EVENT // 8]
            except Exception as error:
                if words[EVENT // 8] != RAISE:
                    raise
                at = words[ROW // 8]
                rows.fail(at, error)
                at += 1
                event = RAISE
            finally:
                if exclusive:
                    words[PASS // 8] = 0
                    relent()
            exclusive = event == INSIST
            if event == YIELD:
                wait_until_free(words)
            elif event == DONE and at < stop and words[UNTIL // 8]:
                break
        words[STATE // 8] = IDLE
        count = (words[PENDING // 8] - places.ctypes.data) // 8
        for number in places[:count].tolist():
            if number >= 0:
                aside.append(number)
            else:
                rows.fail(~number, BlockedForever("retry() before anything was read: nothing could ever end the wait"))
        return at

    def _one_of(self, aside: list[int], given: tuple[Any, ...]) -> None:
        """Wait until one of the rows that were put aside can go on, and run it."""
        rows = self.rows

        def stop() -> tuple[int, Any]:
            check(self.stopped.get())
            return -1, None

        def alternative(number: int) -> Callable[[], tuple[int, Any]]:
            def row() -> tuple[int, Any]:
                try:
                    return number, rows.transaction(*rows.row(number, given))
                except Exception as error:
                    error.row = number  # type: ignore[attr-defined]
                    raise

            return row

        try:
            number, value = run(or_else, stop, *map(alternative, aside))
        except Exception as error:
            number = getattr(error, "row", -1)
            if number not in aside:
                raise
            rows.fail(number, error)
        else:
            rows.keep(number, value) if number >= 0 else None
        if number >= 0:
            aside.remove(number)


_running: weakref.WeakSet[Work] = weakref.WeakSet()


@contextmanager
def running(work: Work) -> Iterator[None]:
    """While the work is under way, the interpreter's exit stops it."""
    _running.add(work)
    try:
        yield
    finally:
        _running.discard(work)


def in_threads(work: Work, progress: Progress | None) -> None:
    """Run the work on threads of its own, and wait for them; stop them if an exception comes from outside."""
    bell = threading.Semaphore(0)
    threads = [
        threading.Thread(target=_worker, args=(work, k, bell), name=f"stm-map-{k}", daemon=True)
        for k in range(len(work.logs))
    ]
    with running(work):
        try:
            _run_all(work, threads, bell, progress)  # (no loop here: see stm/transaction.py on jumps and handlers)
        except BaseException:
            _halt(work, threads)
            raise
    if work.failure is not None:
        raise work.failure
    if progress is not None:
        progress(work.rows.count, work.rows.count)


def _run_all(
    work: Work, threads: Sequence[threading.Thread], bell: threading.Semaphore, progress: Progress | None
) -> None:
    for thread in threads:
        thread.start()
    for _ in threads:
        while not bell.acquire(timeout=None if progress is None else PROGRESS_EVERY):
            if progress is not None:
                progress(work.done(), work.rows.count)
    for thread in threads:
        thread.join()


def _worker(work: Work, number: int, bell: threading.Semaphore) -> None:
    try:
        work.go(number)
    except BaseException as error:
        work.failure = error
        work.stop()
        work.wake()
    finally:
        bell.release()


def _halt(work: Work, threads: Sequence[threading.Thread]) -> None:
    """Stop the workers. One that is in a long computation is not waited for: it can't commit any more."""
    work.stop()
    until = time.monotonic() + STOP_WITHIN
    waker = threading.Thread(target=work.wake, name="stm-map-wake", daemon=True)
    waker.start()
    for thread in (waker, *threads):
        while thread.ident is not None and thread.is_alive() and time.monotonic() < until:
            work.stop()
            thread.join(0.002)


def _at_exit() -> None:
    for work in list(_running):
        work.stop()
    until = time.monotonic() + 1.0
    while _running and time.monotonic() < until:
        for work in list(_running):
            work.stop()
        time.sleep(0.001)


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_running.clear)
