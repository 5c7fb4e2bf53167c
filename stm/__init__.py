"""Software transactional memory for Python, with and without the GIL. See `stm.atomically` for what it promises."""

from typing import TYPE_CHECKING

from stm.atomically import atomically, check, in_transaction, or_else, retry, run
from stm.errors import (
    BlockedForever,
    IrrevocableRetry,
    ReadOnlyViolation,
    StmError,
    TransactionRequired,
    TransactionTimeout,
)
from stm.hooks import on_commit, on_rollback
from stm.tvar import TVar, after, snapshot

__all__ = [
    "BlockedForever",
    "IrrevocableRetry",
    "ReadOnlyViolation",
    "StmError",
    "TVar",
    "TransactionRequired",
    "TransactionTimeout",
    "after",
    "atomically",
    "check",
    "in_transaction",
    "on_commit",
    "on_rollback",
    "or_else",
    "retry",
    "run",
    "snapshot",
]


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name == "compiled":  # on first use: it brings in NumPy
            import importlib

            return importlib.import_module("stm.compiled")
        raise AttributeError(f"module 'stm' has no attribute {name!r}")
