"""Twins of the scheduler: the same small core twice more, on locks (`locks`) and on lock-free structures (`lockfree`).

What the core is: `submit` and `put_works` (a batch) give futures; each worker has a queue of its own, there is a common
one besides, and who has nothing to do steals; `totals` says how many works are queued, running and done; queued works
can be cancelled; `stop` finishes what is queued. Each is written as well as its tools allow, and says in its docstring
what they don't allow. Neither has priorities, categories, time limits, processes, works that wait for other works, a
monitor or a changing number of workers: they measure what transactions cost, not what the product does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple


class Work(NamedTuple):
    """A call to be made."""

    fn: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = {}


#: A work and who waits for it.
Item = tuple[Future[Any], Work]


def call_of(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Work:
    """A work, written as a call."""
    return Work(fn, args, kwargs)
