"""From a user's function to kernels: the machine code that runs it as a transaction.

A kernel is a Python function, written out below for the argument types at hand, that numba compiles together with the
user's function and the protocol. There are three: one that Python calls (`CALL`), one that runs a transaction for each
of many rows (`MAP`), and one that other compiled code calls (`Nested`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit, types
from numba.core.errors import NumbaTypeError
from numba.extending import overload

from stm.compiled import atomics, inplace, kernels, log, signals
from stm.compiled.atomics import load, store
from stm.compiled.cache import kept, kernel_cache
from stm.compiled.extension import (
    IN_PLACE,
    LOGGED,
    TArrayType,
    bind,
    clock_among,
    log_among,
    rebind_logged,
    rebound,
)
from stm.compiled.inplace import restore
from stm.compiled.kernels import act, begin, enter_scope, finish, leave_scope, settle, undo_scope
from stm.compiled.log import DONE, FAILURE, FATE, RAISE, RUNNING, STATE, WRITES, WRITES_END, set_up, stack_log
from stm.compiled.signals import RETRY, attempt, fail, leave_with_restart
from stm.compiled.tuning import tune, tune_in_place


class Busy(RuntimeError):
    """The log is in use by what the caller has interrupted."""


CALL = """\
def kernel(log, profile, {names}):
    joined = load(log + STATE) == JOINED
    if not joined and load(log + STATE) != IDLE:
        raise Busy
    begun = cycles()
    mark = int64(0)
    if joined:
        mark = enter_scope(log)
    else:
        store(log + STATE, RUNNING)
    gil = let_go_of_gil(load(profile) > load(profile + 8))
    while True:
        if not joined:
            begin(log)
        code, value = attempt(body, ({logged}), log + FAILURE)
        if joined:
            take_gil(gil)
            note_cost(profile, begun)
            if code == 0 and load(log + FATE) == 0:
                leave_scope(log, mark)
                return value
            undo_scope(log, mark)
            if code == 0:  # the body has swallowed what it died of
                if load(log + FATE) == RETRY:
                    leave_with_retry()
                leave_with_restart()
            fail(code, log + FAILURE)
        outcome = settle(log, code)
        if outcome == AGAIN:
            continue
        take_gil(gil)
        note_cost(profile, begun)
        if outcome == DONE:
            store(log + STATE, IDLE)
            return value
        if outcome == RAISE:
            store(log + STATE, IDLE)
            fail(code, log + FAILURE)
        store(log + EVENT, outcome)
        leave_with_event()
"""

MAP = """\
def kernel(log, row, stop, out, {names}):
    code = types.int32(0)
    event = DONE
    while row < stop and event == DONE:
        if load_acquire(log + STOP):
            event = STOPPED
            continue
        if load(log + UNTIL) and cycles() > load(log + UNTIL):
            break
        count = min(load(log + GROUP), stop - row)
        begun = cycles()
        done = int64(0)
        code = types.int32(0)
        if load(log + QUICK):
            if not take_clock(log):
                event = STOPPED if load_acquire(log + STOP) else YIELD
                continue
            taken = cycles()
            while done < count:
                next_row(log)
                at = uint64(row + done)
                code, value = attempt(body, ({in_place}), log + FAILURE)
                if code != 0 or load(log + FATE) or load_acquire(log + STOP):
                    restore(log, load(log + SCOPE))
                    break
{keep}
                done += 1
            give_clock(log)
            tune_in_place(log, done, cycles() - taken)
            row += done
            store_release(log + ROW, row)
            if done < count:
                if code == 0 or code == RESTART or code == RETRY:
                    store(log + QUICK, 0)  # once more, the ordinary way
                    store(log + GROUP, 1)
                else:
                    event = RAISE
        else:
            begin(log)
            while done < count:
                store(log + SCOPE, load(log + WRITES_END))
                store(log + ROW_AT, load(log + WRITES_END) - load(log + WRITES))
                at = uint64(row + done)
                code, value = attempt(body, ({logged}), log + FAILURE)
                if code != 0 or load(log + FATE):
                    break
{keep}
                done += 1
            if done > 0 and done < count and code != RESTART and load(log + FATE) == 0:
                cut(log, load(log + SCOPE))  # the rows before are whole, and this one will begin the next group
                code = types.int32(0)
            outcome = settle(log, code)
            if outcome == DONE:
                row += done
                store_release(log + ROW, row)
                tune(log, done, done == count, cycles() - begun)
            elif outcome == AGAIN:
                tune(log, int64(0), False, cycles() - begun)
            elif outcome == WAIT:
                note_pending(log, row)
                row += 1
                store_release(log + ROW, row)
            else:
                event = outcome
    store_release(log + ROW, row)
    store(log + EVENT, event)
    if event == RAISE:
        fail(code, log + FAILURE)
    return row
"""


def _namespace() -> dict[str, Any]:
    found: dict[str, Any] = {"types": types, "int64": types.int64, "uint64": types.uint64, "Busy": Busy, "np": np}
    for module in (atomics, log, kernels, inplace, signals):
        found.update({name: thing for name, thing in vars(module).items() if not name.startswith("__")})
    found |= {"bind": bind, "attempt": attempt, "fail": fail, "tune": tune, "tune_in_place": tune_in_place}
    return found


_NAMESPACE = _namespace()


def _function(source: str, name: str, body: Any, more: dict[str, Any]) -> Any:
    """The function `name` of a source, with the library's names and the user's function as `body`."""
    scope = _NAMESPACE | {"__name__": __name__, "body": body} | more
    exec(compile(source, f"<{name} of {body.py_func.__qualname__}>", "exec"), scope)
    return scope[name]


class Column:
    """A parameter of `.map` that has a value for each row; `row_shape` is the shape of one, `()` for a number."""

    def __init__(self, kind: types.Array) -> None:
        self.kind = kind


def _bound(kinds: Sequence[Any], mode: str) -> tuple[str, dict[str, Any]]:
    """The arguments to pass to the body, and what their text refers to."""
    parts, more = [], {}
    for k, kind in enumerate(kinds):
        if isinstance(kind, TArrayType):
            name = f"kind{k}_{mode.replace(' ', '_')}"
            more[name] = kind.used(mode)
            parts.append(f"bind({name}, x{k}, log)")
        elif isinstance(kind, Column):
            parts.append(f"x{k}[at]")
        else:
            parts.append(f"x{k}")
    return "".join(f"{part}, " for part in parts), more


def call_kernel(body: Any, kinds: Sequence[Any]) -> Any:
    """The dispatcher of the kernel for calls with arguments of these types (arrays by their header's address)."""
    logged, more = _bound(kinds, LOGGED)
    names = ", ".join(f"x{k}" for k in range(len(kinds)))
    source = CALL.format(names=names, logged=logged)
    return _dispatcher(source, body, more, f"call-{_label(kinds)}", nogil=False)


def map_kernel(body: Any, kinds: Sequence[Any], result: types.Type) -> Any:
    """The dispatcher of the kernel that runs one transaction a row."""
    logged, more = _bound(kinds, LOGGED)
    in_place, others = _bound(kinds, IN_PLACE)
    names = ", ".join(f"x{k}" for k in range(len(kinds)))
    indent = " " * 16
    if result == types.none:
        keep = f"{indent}pass"
    elif isinstance(result, types.BaseTuple):
        keep = "\n".join(f"{indent}out[at, {k}] = value[{k}]" for k in range(len(result)))
    else:
        keep = f"{indent}out[at] = value"
    source = MAP.format(names=names, logged=logged, in_place=in_place, keep=keep)
    return _dispatcher(source, body, more | others, f"map-{_label(kinds)}", nogil=True)


def _label(kinds: Sequence[Any]) -> str:
    text = " ".join(str(kind.kind) + " column" if isinstance(kind, Column) else str(kind) for kind in kinds)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _dispatcher(source: str, body: Any, more: dict[str, Any], label: str, nogil: bool) -> Any:
    kernel = njit(_function(source, "kernel", body, more), nogil=nogil)
    return kept(kernel, kernel_cache(body.py_func, label))


def result_type(body: Any, kinds: Sequence[Any]) -> tuple[types.Type, bool]:
    """What the body returns for arguments of these types, and whether it ever asks for the GIL (to print something)."""
    given = tuple(_row(kind) for kind in rebound([_row(kind) for kind in kinds], LOGGED))
    cache = kernel_cache(body.py_func, f"type-{_label(kinds)}")
    known = None if cache is None else cache.load_value("result")
    if known is None:
        body.compile(given)
        compiled = body.overloads[given]
        known = compiled.signature.return_type, _needs_gil(compiled.library.get_llvm_str())
        if cache is not None:
            cache.save_value("result", known)
    return known


def _needs_gil(llvm: str) -> bool:
    """Does machine code ask for the GIL, apart from the wrappers by which Python calls it?"""
    functions = re.split(r"^define ", llvm, flags=re.MULTILINE)[1:]
    own = [one for one in functions if not re.match(r"[^\n]*@\"?(_ZN7cpython|cfunc\.)", one)]
    return any("gil_ensure" in one for one in own)


def _row(kind: Any) -> Any:
    if not isinstance(kind, Column):
        return kind
    array = kind.kind
    return array.dtype if array.ndim == 1 else types.Array(array.dtype, array.ndim - 1, array.layout)


def nested(body: Any, names: Sequence[str]) -> Any:
    """The dispatcher that other compiled code calls."""
    listed = ", ".join(names)
    source = f"def nested({listed}):\n    return stm_run_nested(stm_body, ({listed},))\n"
    return njit(_function(source, "nested", body, {"stm_run_nested": run_nested, "stm_body": body}))


def run_nested(body: Any, args: Any) -> Any:
    """Run the body as a transaction of its own, or as a scope of the one that its arrays are used in."""
    raise NotImplementedError("only compiled code calls this")


@overload(run_nested)
def _run_nested(body: Any, args: Any) -> Any:
    modes = {kind.mode for kind in args.types if isinstance(kind, TArrayType)}
    if not modes:
        raise NumbaTypeError(
            "a compiled transaction that is called from compiled code needs a TArray among its arguments"
        )
    if IN_PLACE in modes:
        return _nested_in_place
    if LOGGED in modes:
        return _nested_in_scope
    return _nested_anywhere


def _nested_in_place(body: Any, args: Any) -> Any:
    log = log_among(args)
    mark = load(log + WRITES_END) - load(log + WRITES)
    code, value = attempt(body, args, log + FAILURE)
    if code == 0:
        return value
    restore(log, load(log + WRITES) + mark)
    fail(code, log + FAILURE)
    raise AssertionError  # never reached; without it numba would think that nothing may be returned


def _nested_in_scope(body: Any, args: Any) -> Any:
    log = log_among(args)
    mark = enter_scope(log)
    code, value = attempt(body, args, log + FAILURE)
    if code == 0:
        leave_scope(log, mark)
        return value
    undo_scope(log, mark)
    if code == RETRY:
        store(log + FATE, RETRY)  # so that it is not forgotten if somebody swallows it
    fail(code, log + FAILURE)
    raise AssertionError  # as above


def _nested_anywhere(body: Any, args: Any) -> Any:
    outer = log_among(args)
    mark = types.int64(0)
    if outer:
        log = outer
        mark = enter_scope(log)
    else:
        log = stack_log()
        set_up(log, clock_among(args))
        store(log + STATE, RUNNING)
    bound = rebind_logged(args, log)
    while True:
        if not outer:
            begin(log)
        code, value = attempt(body, bound, log + FAILURE)
        if outer:
            if code == 0 and load(log + FATE) == 0:
                leave_scope(log, mark)
                return value
            undo_scope(log, mark)
            if code == 0:
                leave_with_restart()
            fail(code, log + FAILURE)
        outcome = settle(log, code)
        if outcome == DONE:
            finish(log)
            return value
        if outcome == RAISE:
            failure = load(log + FAILURE)
            finish(log)
            store(log + FAILURE, failure)
            fail(code, log + FAILURE)
        act(log, outcome)
