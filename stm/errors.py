"""What can go wrong, by name. Every error of the library is a `StmError`.

>>> issubclass(TransactionTimeout, TimeoutError)
True
"""


class StmError(Exception):
    """The base of every error that `stm` raises on its own account."""


class TransactionTimeout(StmError, TimeoutError):
    """A transaction waited longer than its `timeout=` (seconds). None of its writes took place."""


class BlockedForever(StmError):
    """`retry()` could never be answered: the transaction had read nothing that another one could change."""


class ReadOnlyViolation(StmError):
    """A write inside a `read_only=True` transaction."""


class IrrevocableRetry(StmError):
    """`retry()` inside an `irrevocable=True` transaction, which may have done I/O and can't be taken back."""


class TransactionRequired(StmError):
    """`retry`, `or_else`, `check`, `on_commit` or `on_rollback` outside a transaction."""
