"""Software transactional memory for Python, with and without the GIL. See `stm.atomically` for what it promises."""

from typing import TYPE_CHECKING

from stm._lazy import lazily
from stm.atomically import atomically, check, detached, in_transaction, or_else, retry, run
from stm.errors import (
    BlockedForever,
    IrrevocableRetry,
    ReadOnlyViolation,
    StmError,
    TransactionRequired,
    TransactionTimeout,
)
from stm.hooks import on_commit, on_rollback
from stm.tvar import TVar, after, exchange, snapshot

if TYPE_CHECKING:
    from stm.collections import TChannel, TCounter, TMap, TPriorityQueue, TQueue, TSet, TVector
    from stm.sync import TBarrier, TEvent, TLatch, TMVar, TPromise, TRWLock, TSemaphore

__all__ = [
    "BlockedForever",
    "IrrevocableRetry",
    "ReadOnlyViolation",
    "StmError",
    "TBarrier",
    "TChannel",
    "TCounter",
    "TEvent",
    "TLatch",
    "TMVar",
    "TMap",
    "TPriorityQueue",
    "TPromise",
    "TQueue",
    "TRWLock",
    "TSemaphore",
    "TSet",
    "TVar",
    "TVector",
    "TransactionRequired",
    "TransactionTimeout",
    "after",
    "atomically",
    "check",
    "detached",
    "exchange",
    "in_transaction",
    "on_commit",
    "on_rollback",
    "or_else",
    "retry",
    "run",
    "snapshot",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "aio": "stm.aio",
            "collections": "stm.collections",
            "compiled": "stm.compiled",
            "guard": "stm.guard",
            "stats": "stm.stats",
            "sync": "stm.sync",
            "TChannel": "stm.collections",
            "TCounter": "stm.collections",
            "TMap": "stm.collections",
            "TPriorityQueue": "stm.collections",
            "TQueue": "stm.collections",
            "TSet": "stm.collections",
            "TVector": "stm.collections",
            "TBarrier": "stm.sync",
            "TEvent": "stm.sync",
            "TLatch": "stm.sync",
            "TMVar": "stm.sync",
            "TPromise": "stm.sync",
            "TRWLock": "stm.sync",
            "TSemaphore": "stm.sync",
        },
    )
