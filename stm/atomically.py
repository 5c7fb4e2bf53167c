"""`@atomically`, and what may be said inside it: `retry`, `check`, `or_else`.

The promises (tests name them by these numbers):

1. *Atomic and opaque.* A body never sees an inconsistent state, not even in an attempt that will be thrown away.
2. *Exceptions.* One that leaves the outermost body discards every write and propagates; if the reads that led to it
   were stale, the body runs again instead. One that leaves a nested scope discards that scope's writes and hooks; its
   reads stay recorded.
3. *retry* discards the attempt and sleeps until something it read changes: no polling, no lost wake-up, no waiter left
   behind, interruptible by Ctrl-C.
4. *or_else* tries alternatives in order; if all retry, the whole waits on everything that any of them read.
5. *timeout=* (seconds) bounds the whole wait, then raises `TransactionTimeout`. On a nested transaction it bounds that
   scope's wait alone, counted from the first time the scope was entered, and the enclosing body may catch it. (Scopes
   of one attempt are found again in the next by their function, a method's also by its object, and their order.)
6. *No starvation.* Every transaction commits after a bounded number of aborts (`contention.py`).
7. *read_only=True* reads one past moment, never aborts and never delays writers (`snapshot.py`).
   *irrevocable=True* runs exactly once, so it may do I/O; meanwhile no other thread commits.
8. *Asynchronous exceptions* leave all of a commit visible or none of it, no lock held, and are never swallowed.

A body may run many times: keep side effects out of it (`hooks.py` has a place for them). It must not wait for another
thread that commits, by a lock or a join: in an attempt that can't abort any more (6), nobody else can commit. A
function called inside a transaction, decorated or not, joins it; a decorated one is a nested scope.

What runs in a body uninvited, a signal handler or a finalizer that uses transactional variables, joins it too: its
writes count if and when that attempt commits, and are discarded with it, for instance if the body goes on to `retry`.
So a handler that must be heard calls `detached`, sets a plain flag or writes to a pipe. What it
does to a variable that the body reads before and sets after, the body overwrites; `update`, `compare_and_set`,
`exchange`, and the collections, which are made of these, notice it and start over. While the library itself is at work
(beginning, committing, waiting), such code is a transaction of its own. One thing it can't do then: if it changes what
an `irrevocable=True` transaction has read, in the instant in which that one commits, the body has to run again.

Cost of two reads and two writes: about a microsecond, five to eight times that of the same under one `threading.Lock`;
`python -m bench` prints the figure of your machine.

>>> from stm import TVar, atomically, check
>>> stock = TVar(1)
>>> @atomically
... def take():
...     check(stock.value > 0)
...     stock.value -= 1
...     return "taken"
>>> take()
'taken'
>>> atomically(timeout=0.01)(take)()
Traceback (most recent call last):
    ...
stm.errors.TransactionTimeout: transaction 'take' waited 0.01 s in vain for a change of <TVar 0>
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, update_wrapper
from types import FunctionType
from typing import Any, NoReturn, ParamSpec, TypeVar, overload

from stm.errors import IrrevocableRetry
from stm.execution import Options, in_scope, transact
from stm.quick import quick
from stm.transaction import Retry, Transaction, active, descriptor, here

P = ParamSpec("P")
R = TypeVar("R")


@overload
def atomically(fn: Callable[P, R], /) -> Callable[P, R]: ...


@overload
def atomically(
    *, timeout: float | None = None, read_only: bool = False, irrevocable: bool = False, name: str | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


def atomically(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    timeout: float | None = None,
    read_only: bool = False,
    irrevocable: bool = False,
    name: str | None = None,
) -> Any:
    """Make each call of a function one transaction. See the module for what that promises.

    `timeout`: seconds that a call may wait, by `retry` or for others that must not be disturbed; `None`: no limit.
    `read_only`: read one past moment; a write raises `ReadOnlyViolation`.
    `irrevocable`: run exactly once; `retry` raises `IrrevocableRetry`.
    `name`: for error messages and statistics, instead of the function's own.

    `TypeError` for what is not a plain function, `ValueError` for a negative timeout, both at once.
    """
    options = Options(timeout, read_only, irrevocable, name)  # errors belong to this line, not to the first call
    if fn is None:
        return partial(_decorate, options=options)
    return _decorate(fn, options)


def _decorate(fn: Callable[..., Any], options: Options) -> Callable[..., Any]:
    check_function("atomically", fn)
    options = options.named_after(fn)
    return update_wrapper(quick(fn, options) if options.plain else _general(fn, options), fn)


def _general(fn: Callable[..., Any], options: Options) -> Callable[..., Any]:
    def transaction(*args: Any, **kwargs: Any) -> Any:
        return transact(options, fn, args, kwargs)

    return transaction


def check_function(where: str, fn: object) -> None:
    if isinstance(fn, (classmethod, staticmethod)):
        kind = type(fn).__name__
        raise TypeError(f"put @{kind} above @{where}, not below it: {where} takes the plain function")
    if not callable(fn):
        raise TypeError(f"{where} takes a function, not {fn!r}; options are given by name: @{where}(timeout=1.0)")
    inner: Any = fn
    while isinstance(inner, partial):
        inner = inner.func
    inner = getattr(inner, "__func__", inner)  # of a bound method
    if not isinstance(inner, (FunctionType, type)):
        inner = type(inner).__call__
    flags = inner.__code__.co_flags if isinstance(inner, FunctionType) else 0
    for flag, kind in _UNFIT:
        if flags & flag:
            raise TypeError(
                f"{where} can't run the {kind} {getattr(fn, '__qualname__', fn)!r}: its body would go on after the "
                "commit. Make it a plain function; to await a transaction from an event loop use stm.aio "
                "(await stm.aio.run(fn), or @stm.aio.atomically on a plain function)"
            )


#: `co_flags`, as the module `inspect` documents them (importing it would take longer than all of this library).
_UNFIT = ((0x80, "coroutine function"), (0x200, "asynchronous generator function"), (0x20, "generator function"))


def run(
    fn: Callable[..., R],
    *args: Any,
    timeout: float | None = None,
    read_only: bool = False,
    irrevocable: bool = False,
    name: str | None = None,
) -> R:
    """Call `fn(*args)` once as a transaction, with the options of `atomically`.

    >>> from stm import TVar, run
    >>> x = TVar(1)
    >>> run(x.update, lambda value: value + 1)
    2
    """
    check_function("run", fn)
    if name is None:
        name = getattr(fn, "__qualname__", None)
    result: R = transact(Options(timeout, read_only, irrevocable, name), fn, args, {})
    return result


def in_transaction() -> bool:
    """Is the calling thread inside a transaction?"""
    return descriptor().writes is not None


def detached(fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Call `fn(*args)` apart from the transaction that the calling thread is in, if it is in one.

    For code that runs uninvited, a signal handler or a finalizer: what it does is its own, takes effect at once, and
    stays if the transaction that it interrupted is discarded. That transaction notices, as it would a change by another
    thread. `fn` must not wait for what only that transaction would do; and in an irrevocable transaction it must not
    change what that has read (the body would have to run again).

    >>> from stm import TVar, run
    >>> heard, x = TVar(0), TVar(0)
    >>> def body():
    ...     x.set(1)
    ...     detached(heard.set, 1)  # as a signal handler would, here
    ...     raise ValueError
    >>> try:
    ...     run(body)
    ... except ValueError:
    ...     x.value, heard.value
    (0, 1)
    """
    tx = descriptor()
    if tx.writes is None:
        return fn(*args, **kwargs)
    apart = Transaction()
    try:
        here.tx = apart
        return fn(*args, **kwargs)
    finally:
        here.tx = tx


def retry() -> NoReturn:
    """Discard this attempt, sleep until a variable that it read has changed, and run the transaction again.

    In an alternative of `or_else`, try the next alternative instead. In a nested transaction whose `timeout=` is over,
    raise `TransactionTimeout` there. A transaction that had read nothing raises `BlockedForever`.

    `TransactionRequired` outside a transaction; `IrrevocableRetry` in one that can't be discarded.

    Source: Harris, Marlow, Peyton Jones, Herlihy, "Composable Memory Transactions", 2005.
    """
    _retry(active("retry()"))


def _retry(tx: Transaction) -> NoReturn:
    if tx.extras is not None and tx.extras.irrevocable:
        raise IrrevocableRetry(
            "retry() in an irrevocable transaction: it may have done I/O, so it can't run again; "
            "wait in an ordinary transaction first"
        )
    if tx.fate is not None:
        raise tx.fate
    tx.doom(Retry)


def check(condition: object) -> None:
    """`retry()` unless the condition is true."""
    tx = active("check()")
    if not condition:
        _retry(tx)


def or_else(first: Callable[[], R], *rest: Callable[[], R]) -> R:
    """Run the alternatives in order and return the result of the first that does not `retry`.

    Each is a nested scope; one that retries is rolled back. If all do, the transaction waits for a change of anything
    that any of them read. `TypeError` for what can't be called; `TransactionRequired` outside a transaction.

    >>> from stm import TVar, check, or_else, run
    >>> empty, full = TVar(()), TVar(("job",))
    >>> def first_of(queue):
    ...     check(queue.value)
    ...     return queue.value[0]
    >>> run(lambda: or_else(lambda: first_of(empty), lambda: first_of(full)))
    'job'
    """
    alternatives = (first, *rest)
    for alternative in alternatives:
        if not callable(alternative):
            raise TypeError(f"or_else() takes functions without arguments, not {alternative!r}")
    tx = active("or_else()")
    for alternative in alternatives:
        try:
            result: R = in_scope(tx, False, alternative, (), {})
        except Retry:
            tx.rv, tx.fate = tx.resume_at, None  # undone and answered (in no call that could be interrupted)
        else:
            return result
    tx.doom(Retry)
