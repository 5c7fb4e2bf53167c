"""The common kind of transaction, spelt out: no options, mostly one attempt, mostly no conflict.

A call of such a transaction is one Python function, which begins, runs the body and commits; what it can't finish, it
leaves to `Execution`. It is made to measure: the source below is compiled once for each list of parameters, as
`dataclasses` and `namedtuple` do for theirs. A wrapper that takes `*args, **kwargs` packs and unpacks them each time,
which takes 60 nanoseconds more on CPython 3.14 and 100 on 3.11, of some 1,000 for a transfer between two variables.
Functions whose parameters are not plain, or bear names that the source uses itself, get that wrapper all the same.
Line numbers are kept, so that tracebacks and debuggers show the lines of this file.

Invariant: the thread is inside a transaction exactly while `tx.writes` is a dictionary, and each way out of the body
begins by taking it off, with nothing in between that could be interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import perf_counter
from types import FunctionType
from typing import Any

from stm.clock import clock
from stm.execution import Ended, Execution, Options, conclude, ends_call, nest, run_hooks
from stm.tally import new_tally, open_account
from stm.transaction import commit, descriptor, here

__all__ = ["quick"]

#: The names that the source below needs from this module.
_NEEDS = (
    Ended,
    Execution,
    clock,
    commit,
    conclude,
    descriptor,
    ends_call,
    here,
    nest,
    new_tally,
    open_account,
    perf_counter,
    run_hooks,
)

_FIRST_LINE = sys._getframe().f_lineno + 2
_SOURCE = """\
def make(fn, options):
    def transaction({parameters}):
        try:
            tx = here.tx
        except AttributeError:
            tx = descriptor()
        if tx.writes is not None:
            return nest(tx, options, fn, {args}, {kwargs})
        execution = tally = None
        book = clock.book
        if book is not None:
            if tx.book is not book:
                open_account(tx, book)
            try:
                tally = tx.tallies[options.name]
            except KeyError:
                tally = new_tally(tx, options.name)
            began = 0.0 if tally.commits & tally.mask else perf_counter()
        try:
            while True:
                reads = {{}}
                writes = {{}}
                extras = None
                try:
                    try:
                        # Nothing can run between these lines; from the last one on the thread is in a transaction.
                        tx.reads = reads
                        tx.rv = clock.now
                        tx.writes = writes
                        result = fn({arguments})
                    except BaseException as error:
                        tx.writes = tx.reads = None
                        rv, extras, fate = tx.rv, tx.extras, tx.fate
                        tx.extras = tx.scope = tx.fate = tx.held = None
                        failure = Ended(reads, rv, extras, fate)
                        if ends_call(error, failure, consistent=False):
                            raise
                    else:
                        tx.writes = tx.reads = None
                        rv, extras = tx.rv, tx.extras
                        if extras is None and rv >= 0:
                            if not writes or commit(reads, writes, rv):
                                if tally is not None:
                                    tally.commits += 1
                                    if began or tx.extensions:
                                        tally.end(tx, began, execution)
                                    tally = None
                                return result
                            failure = Ended(reads, rv, None, None)
                        else:
                            fate = tx.fate
                            tx.extras = tx.scope = tx.fate = tx.held = None
                            failure = Ended(reads, rv, extras, fate)
                            if conclude(failure, writes):
                                if tally is not None:
                                    tally.commits += 1
                                    tally.end(tx, began, execution)
                                    tally = None
                                return result
                finally:
                    if extras is not None:
                        try:
                            if tally is not None:
                                tally.collect(tx)
                            run_hooks(extras)
                        except BaseException:
                            run_hooks(extras)  # those that an exception from outside has left
                            raise
                if execution is None:
                    execution = Execution(options, tally)
                    if tally is not None:
                        execution.began = began = began or execution.began
                result = None  # of an attempt that came to nothing: it may be large, and the wait long
                execution.recover(failure)
                if execution.is_special:
                    tally = None  # it counts itself
                    return execution.run(fn, {args}, {kwargs})
        except BaseException:
            if tally is not None:
                tally.failures += 1
                tally.end(tx, began, execution)
            raise

    return transaction
"""

Make = Callable[[Callable[..., Any], Options], Any]


def _compile(parameters: str, arguments: str, args: str, kwargs: str) -> Make:
    source = _SOURCE.format(parameters=parameters, arguments=arguments, args=args, kwargs=kwargs)
    found: dict[str, Make] = {}
    exec(compile("\n" * (_FIRST_LINE - 1) + source, __file__, "exec"), globals(), found)
    return found["make"]


_general = _compile("*args, **kwargs", "*args, **kwargs", "args", "kwargs")
_made: dict[tuple[str, ...], Make] = {}

_inner = _general(len, Options(None, False, False, None)).__code__
_TAKEN = {*_inner.co_names, *_inner.co_varnames, *_inner.co_freevars}

_VARIABLE = 0x04 | 0x08  # `co_flags` of functions with *args or **kwargs


def quick(fn: Callable[..., Any], options: Options) -> Callable[..., Any]:
    """A function that runs `fn` as a plain transaction."""
    return _specialised(fn, options) or _general(fn, options)  # type: ignore[no-any-return]


def _specialised(fn: Callable[..., Any], options: Options) -> Any:
    if not isinstance(fn, FunctionType):
        return None
    code = fn.__code__
    names = code.co_varnames[: code.co_argcount]
    if code.co_flags & _VARIABLE or code.co_posonlyargcount or code.co_kwonlyargcount or not _TAKEN.isdisjoint(names):
        return None
    make = _made.get(names)
    if make is None:
        listed = ", ".join(names)
        make = _made[names] = _compile(listed, listed, f"({listed}{',' if names else ''})", "{}")
    transaction = make(fn, options)
    if fn.__defaults__ is not None:  # (without a GIL, to assign them stops all threads for a moment)
        transaction.__defaults__ = fn.__defaults__
    return transaction
