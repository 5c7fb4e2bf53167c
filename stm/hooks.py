"""Functions to run after a transaction, where side effects belong.

`on_commit` functions run once, after the outermost transaction has committed, outside any transaction, in the order of
registration. `on_rollback` functions run after each attempt that is discarded: by a conflict, a `retry`, or an
exception. A nested scope that is rolled back takes the hooks registered in it along. If hooks raise, all of them run
nevertheless, and the first error, or an `ExceptionGroup` of several, leaves the call; a commit stands all the same.

>>> import stm
>>> outbox, balance = [], stm.TVar(10)
>>> @stm.atomically
... def withdraw(amount):
...     balance.value -= amount
...     stm.on_commit(outbox.append, f"withdrew {amount}")
>>> withdraw(3); outbox
['withdrew 3']
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from operator import call, length_hint
from typing import ParamSpec

from stm.transaction import active

P = ParamSpec("P")


def on_commit(fn: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
    """Call `fn(*args)` once the running transaction has committed. `TransactionRequired` outside a transaction."""
    active("on_commit()").more().on_commit.append(_callable("on_commit", fn, *args, **kwargs))


def on_rollback(fn: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
    """Call `fn(*args)` if this attempt is discarded. `TransactionRequired` outside a transaction."""
    active("on_rollback()").more().on_rollback.append(_callable("on_rollback", fn, *args, **kwargs))


def _callable(where: str, fn: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> Callable[[], object]:
    if not callable(fn):
        raise TypeError(f"{where}() takes a function and its arguments, not {fn!r}")
    return partial(fn, *args, **kwargs)


def run_all(hooks: Iterator[Callable[[], object]]) -> None:
    """Run them all, in order; then raise what was raised.

    `hooks` is a list's iterator. It is advanced in the very C call that calls the hook, so that a caller who is
    interrupted from outside may call again with the same iterator: no hook is left out, and none runs twice.
    """
    errors: list[BaseException] = []
    calls = map(call, hooks)
    while length_hint(hooks):
        try:
            next(calls)
        except BaseException as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise BaseExceptionGroup("several hooks of one transaction failed", errors)
