"""What the workloads of the compiled tier have in common: the transfer as machine code, and whether that can run here.

Nothing of `stm.compiled` is imported with this module: interpreters without numba run the other workloads, and those
are measured without it.
"""

from __future__ import annotations

import functools
from typing import Any


def lacking() -> str:
    """Why this interpreter can't compile transactions; empty if it can."""
    try:
        import numba  # noqa: F401
    except ModuleNotFoundError as error:
        return f"{error.name} is not installed for this interpreter, and compiled transactions need it"
    except ImportError:
        return "numba is there but can't be imported by this interpreter, and compiled transactions need it"
    return ""


def move(accounts: Any, source: int, target: int) -> None:
    """The transfer: two reads and two writes."""
    accounts[source] -= 1
    accounts[target] += 1


@functools.cache
def transfer() -> Any:
    """The same as a compiled transaction of `(accounts, source, target)`."""
    from stm import compiled

    return compiled.transaction(move, name="transfer")
