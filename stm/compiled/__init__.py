"""Transactions in machine code over typed arrays. See `TArray` (array.py) and `transaction` (transaction.py)."""

from stm.compiled.array import TArray
from stm.compiled.marks import Constant, Scratch
from stm.compiled.transaction import CompiledTransaction, transaction

__all__ = ["CompiledTransaction", "Constant", "Scratch", "TArray", "transaction"]
