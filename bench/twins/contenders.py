"""What the scheduler is compared with, and the scheduler itself, each behind the same few functions.

The functions are the contender's own wherever it has them, so that nothing of ours is measured along with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from bench.twins import Work, call_of
from bench.twins.lockfree import LockFreeScheduler
from bench.twins.locks import LockScheduler
from hive_task import Scheduler, make_work
from hive_task.picture import Totals

HIVE: Final = "hive_task"
HIVE_OPEN: Final = "hive_task, workers=None"
LOCKS: Final = "twin on locks"
LOCK_FREE: Final = "lock-free twin"
POOL: Final = "ThreadPoolExecutor"


@dataclass(frozen=True)
class Running:
    """A scheduler that runs. `call` makes what `put_works` takes; `end` cancels what is queued, and ends it."""

    submit: Callable[..., Future[Any]]
    call: Callable[..., Any]
    put_works: Callable[[Iterable[Any]], list[Future[Any]]]
    totals: Callable[[], Totals] | None
    end: Callable[[], object]


def _hive(workers: int | None) -> Running:
    scheduler = Scheduler(workers=workers)
    scheduler.start()
    return Running(
        submit=scheduler.submit,
        call=make_work,
        put_works=scheduler.put_works,
        totals=lambda: scheduler.monitor().totals,
        end=lambda: scheduler.shutdown(cancel_futures=True),
    )


def _twin(make: Callable[[int], LockScheduler | LockFreeScheduler], workers: int) -> Running:
    twin = make(workers)
    return Running(twin.submit, call_of, twin.put_works, twin.totals, lambda: twin.stop(cancel_queued=True))


def _pool(workers: int) -> Running:
    pool = ThreadPoolExecutor(workers)
    submit = pool.submit

    def put_works(works: Iterable[Work]) -> list[Future[Any]]:
        return [submit(fn, *args) for fn, args, _ in works]

    return Running(submit, call_of, put_works, None, lambda: pool.shutdown(cancel_futures=True))


CONTENDERS: Final[dict[str, Callable[[int], Running]]] = {
    HIVE: _hive,
    HIVE_OPEN: lambda workers: _hive(None),
    LOCKS: lambda workers: _twin(LockScheduler, workers),
    LOCK_FREE: lambda workers: _twin(LockFreeScheduler, workers),
    POOL: _pool,
}
#: Those with a number of workers to be compared at.
COMPARED: Final = tuple(variant for variant in CONTENDERS if variant != HIVE_OPEN)
