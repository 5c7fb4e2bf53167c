"""Synchronisation by transactions, with the names, arguments and errors of `threading` and `concurrent.futures`.

Every operation is a transaction; inside `@atomically`, several of them are one, and any of them can be an alternative
of `or_else`: acquire this or that, wait for the first of several events, take both or neither.
"""

from typing import TYPE_CHECKING

from stm._lazy import lazily

if TYPE_CHECKING:
    from stm.sync.barrier import TBarrier
    from stm.sync.event import TEvent
    from stm.sync.latch import TLatch
    from stm.sync.mvar import TMVar
    from stm.sync.promise import TPromise
    from stm.sync.rwlock import TRWLock
    from stm.sync.semaphore import TSemaphore

__all__ = ["TBarrier", "TEvent", "TLatch", "TMVar", "TPromise", "TRWLock", "TSemaphore"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "TBarrier": "stm.sync.barrier",
            "TEvent": "stm.sync.event",
            "TLatch": "stm.sync.latch",
            "TMVar": "stm.sync.mvar",
            "TPromise": "stm.sync.promise",
            "TRWLock": "stm.sync.rwlock",
            "TSemaphore": "stm.sync.semaphore",
        },
    )
