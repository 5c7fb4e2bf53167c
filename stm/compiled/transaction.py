"""`@compiled.transaction`: transactions in machine code.

The function is compiled by numba, on its first call, for the types that it is called with; it takes numbers, truth
values, NumPy arrays and `TArray`s, and what it reads and writes of `TArray`s is one transaction. It runs without an
interpreter, so it costs tens of nanoseconds instead of microseconds, and `.map` runs one for each of many rows, without
the GIL, on as many processors as there are.

Promises: those of `stm.atomically`. Opaque, also in an attempt that is thrown away: a read of something too new ends
the attempt at once, as does an index that is out of range, with the exception that NumPy has for it. An exception that
leaves the body discards its writes, and if what it had read was stale, the body runs again instead. `stm.retry()` and
`stm.check()` work in the body: they sleep until an element that was read changes, whoever changes it. Inside
`@atomically`, a call joins the transaction that is running. Called by other compiled code (a body, or the user's own
`@njit(nogil=True)` functions), it is a nested scope or a transaction of its own.

A body may run many times, and must have no effects but on `TArray`s and on what it returns. (Plain arrays that it
changes stay changed.) It can't keep `retry` or conflicts from leaving it: don't wrap array accesses in `try`. An
attempt that is thrown away does not free the arrays that it had made: pass in scratch space (`compiled.Scratch`)
instead.

A row of `.map` that is quick may run while it holds the clock (`inplace.py`): a body that computes for long in one row
and not in the others keeps others waiting for as long.

Cost: compiling takes a second or a few, once; after that the machine code comes from a cache on disk (`cache.py`), in
some hundredths of a second. A call from Python takes half a microsecond.

>>> import stm
>>> from stm import compiled
>>> accounts = compiled.TArray([100, 20, 0])
>>> @compiled.transaction
... def transfer(accounts, a, b, amount):
...     if accounts[a] < amount:
...         raise ValueError("overdrawn")
...     accounts[a] -= amount
...     accounts[b] += amount
...     return accounts[a]
>>> transfer(accounts, 0, 1, 30)
70
>>> transfer(accounts, 2, 0, 1)
Traceback (most recent call last):
    ...
ValueError: overdrawn
>>> transfer.map(accounts, [0, 1, 0], [1, 2, 2], 10, threads=1)
array([60, 50, 50])
>>> accounts
<TArray int64 [50 50 20]>
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Sequence
from functools import update_wrapper
from types import FunctionType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, ParamSpec, TypeVar

import numpy as np

from stm.compiled.array import TArray
from stm.compiled.marks import Constant, Scratch
from stm.transaction import Transaction, descriptor
from stm.transaction import here as thread

if TYPE_CHECKING:
    from stm.compiled.mapping import OnError, Progress

P = ParamSpec("P")
R = TypeVar("R")

#: Types of arguments by which alone the machine code to call can be told.
_SIMPLE = (int, float, bool)
_SIMPLE_KINDS = ("int64", "float64", "bool")  # (2**63 and more are of another type)

#: Seconds that a call may take while it keeps the GIL. Longer ones release it from the second call on.
LONG_CALL = 5e-5

#: Parameters may have any name but those that begin like these.
_PREFIX = "stm_"

_SOURCE = """\
def make(stm_kernels, stm_find, stm_join, stm_resume, stm_Event, stm_Busy, stm_here, stm_first, stm_thread, stm_tx):
    def transaction({parameters}):
        try:
            stm_now = stm_thread.tx
        except AttributeError:
            stm_now = stm_tx()
        stm_kernel = stm_kernels.get(({classes}))
        if stm_kernel is None:
            stm_kernel = stm_find(({arguments}))
        if stm_now.writes is not None:
            return stm_join(stm_now, stm_kernel, ({arguments}))
        try:
            stm_log = stm_here.log
        except AttributeError:
            stm_log = stm_first()
        try:
            return stm_kernel(stm_log, {arguments})
        except stm_Event:
            pass
        except stm_Busy:
            stm_log = 0
        return stm_resume(stm_kernel, stm_log, ({arguments}))

    return transaction
"""


class CompiledTransaction(Generic[P, R]):
    """A function that runs as a transaction in machine code. See the module."""

    def __init__(self, function: Callable[P, R], name: str) -> None:
        update_wrapper(self, function)
        self.py_func = function
        self._name = name
        self._signature = inspect.signature(function)
        self._names = tuple(self._signature.parameters)
        self._kernels: dict[tuple[type, ...], Callable[..., Any]] = {}
        self._dispatchers: dict[Any, Any] = {}
        self._profile = np.zeros(2, np.int64)
        self.seconds_a_row = 1.0  # in the last `map` on one thread; at first, too many to be quick
        self._lock = threading.RLock()
        self._body: Any = None
        self._run: Callable[..., Any] = self._first_call

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._run(*args, **kwargs)  # type: ignore[no-any-return]

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        if instance is None:
            return self
        raise TypeError(
            f"compiled transaction {self._name!r} can't be a method: machine code knows no objects. Call it from one"
        )

    def __repr__(self) -> str:
        return f"<compiled transaction {self._name!r}>"

    def map(
        self,
        *columns: Any,
        threads: int | None = None,
        on_error: OnError = "raise",
        progress: Progress | None = None,
    ) -> Any:
        """Run one transaction for each row of the columns, and return the results in the order of rows.

        A column is a one-dimensional array, list or range with a value for each row, or a two-dimensional array with
        a row for each; `TArray`s, single numbers, `compiled.Constant(array)` and `compiled.Scratch(shape)` are the same
        for all. Rows run in any order, on `threads` threads (as many as there are processors, if None), without the
        GIL; each is atomic. Results are a NumPy array; one with a line for each row if the body returns a tuple; `None`
        if it returns nothing.

        A row that raises takes back its own writes only. All others are run; then, if `on_error` is `"raise"`, the
        exception of the first such row leaves, with the row's number in `error.row` and in a note. If it is
        `"return"`, the result is a list, with exceptions in their rows' places. A row that retries waits while
        others go on.

        `progress(done, total)` is called by the calling thread, some ten times a second and at the end.

        Ctrl-C is honoured within a tenth of a second: rows are whole, done or not begun, and no thread goes on.

        `ValueError` for columns of different lengths or none; `TypeError` for what compiled code can't take;
        `RuntimeError` inside a transaction.
        """
        from stm.compiled.mapping import map_rows

        return map_rows(self, columns, threads, on_error, progress)

    # Finding the machine code

    @property
    def _numba_type_(self) -> Any:
        from numba import types

        return types.Dispatcher(self._nested)

    def _prepare(self) -> None:
        """Bring in numba, and make what needs no types. Once."""
        from stm.compiled import building, joining, runtime, upcalls  # noqa: F401 - the last joins the clock's two hands

        with self._lock:
            if self._body is not None:
                return
            from numba import njit

            body = njit(self.py_func)
            self._nested = building.nested(body, self._names)
            self._profile[1] = int(LONG_CALL * runtime.TICKS_PER_SECOND)
            listed = ", ".join(self._names)
            source = _SOURCE.format(
                parameters=listed,
                classes="".join(f"{name}.__class__, " for name in self._names),
                arguments="".join(f"{name}, " for name in self._names),
            )
            found: dict[str, Any] = {}
            exec(compile(source, f"<call of {self._name}>", "exec"), found)
            run = found["make"](
                self._kernels, self._find, self._join, self._resume, joining.Event, building.Busy, runtime.here,
                runtime.first_log, thread, descriptor,
            )  # fmt: skip
            run.__defaults__ = self.py_func.__defaults__
            self._body = body
            self._run = run

    def __getattr__(self, name: str) -> Any:
        if name == "_nested":
            self._prepare()
            return self.__dict__["_nested"]
        raise AttributeError(f"{self!r} has no attribute {name!r}")

    def _first_call(self, *args: Any, **kwargs: Any) -> Any:
        self._prepare()
        return self._run(*args, **kwargs)

    def _find(self, args: Sequence[Any]) -> Callable[..., Any]:
        """A function that takes a log's address and arguments like these, made if need be."""
        from stm.compiled import building

        kinds = self.kinds_of(args)
        classes = tuple(arg.__class__ for arg in args)
        simple = all(
            issubclass(one, TArray) or (one in _SIMPLE and str(kind) in _SIMPLE_KINDS)
            for one, kind in zip(classes, kinds, strict=True)
        )
        with self._lock:
            if classes in self._kernels:
                return self._kernels[classes]
            arrays = [issubclass(one, TArray) for one in classes]
            key = tuple(str(kind) if is_array else None for kind, is_array in zip(kinds, arrays, strict=True))
            kernel = self._dispatchers.get(key)
            if kernel is None:
                kernel = self._dispatchers[key] = building.call_kernel(self._body, kinds)
            signature = self.signature_of(kinds, args)
            with self.explained(kinds):
                kernel.compile(signature)
            target = kernel.overloads[signature].entry_point if simple else kernel
            listed = ", ".join(f"x{k}" for k in range(len(classes)))
            passed = ", ".join(f"x{k}._address" if is_array else f"x{k}" for k, is_array in enumerate(arrays))
            source = f"lambda log, {listed}: target(log, {self._profile.ctypes.data}, {passed})"
            found: Callable[..., Any] = eval(source, {"target": target})
            if simple:
                self._kernels[classes] = found
            return found

    def kinds_of(self, args: Sequence[Any]) -> list[Any]:
        """The numba types of arguments. `TypeError` names the one that has none."""
        from numba import typeof
        from numba.core.errors import NumbaError

        kinds = []
        for name, arg in zip(self._names, args, strict=True):
            try:
                kinds.append(_bare(typeof(arg)))
            except (ValueError, NumbaError):
                raise TypeError(
                    f"argument {name!r} of compiled transaction {self._name!r} is a {type(arg).__name__}, which "
                    "machine code can't take: pass numbers, truth values, NumPy arrays and TArrays, each by itself"
                ) from None
        return kinds

    @staticmethod
    def signature_of(kinds: Sequence[Any], args: Sequence[Any]) -> tuple[Any, ...]:
        """The types of the call kernel's own arguments."""
        from numba import types

        int64 = types.int64
        given = [int64 if isinstance(arg, TArray) else kind for kind, arg in zip(kinds, args, strict=True)]
        return (int64, int64, *given)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parameters."""
        return self._names

    def bind(self, columns: Sequence[Any]) -> tuple[Any, ...]:
        """Arguments for all parameters, defaults included. `TypeError` as for a call."""
        bound = self._signature.bind(*columns)
        bound.apply_defaults()
        return bound.args

    def map_kernel_for(self, values: Sequence[Any]) -> tuple[Any, Any, bool]:
        """The kernel of `.map` for such arguments, the numba type of its results, and whether it needs the GIL."""
        from stm.compiled import building

        self._prepare()
        plain = [value.for_thread() if isinstance(value, (Constant, Scratch)) else value for value in values]
        kinds = [
            building.Column(kind) if isinstance(value, np.ndarray) else kind
            for kind, value in zip(self.kinds_of(plain), values, strict=True)
        ]
        key = ("map", *(str(getattr(kind, "kind", kind)) + kind.__class__.__name__ for kind in kinds))
        with self._lock:
            if key not in self._dispatchers:
                with self.explained(kinds):
                    result, needs_gil = building.result_type(self._body, kinds)
                self._dispatchers[key] = building.map_kernel(self._body, kinds, result), result, needs_gil
            kernel, result, needs_gil = self._dispatchers[key]
        return kernel, result, needs_gil

    def explained(self, kinds: Sequence[Any]) -> Any:
        """A context that turns numba's errors into a `TypeError` that names the arguments and their types."""
        from stm.compiled.explaining import explained

        return explained(self._name, self._names, kinds)

    # Calls that the quick way does not finish

    def _join(self, tx: Transaction, kernel: Callable[..., Any], args: Sequence[Any]) -> Any:
        """Run as a scope of the running transaction."""
        from stm.compiled.joining import Extended, join, refuse_writes

        part = join(tx)
        part.arrays.update((arg, None) for arg in args if isinstance(arg, TArray))
        while True:
            start = part.enter()
            try:
                result = kernel(part.address, *args)
            except Extended:
                continue
            if part.written_since(start):
                refuse_writes(tx, self)
            part.leave(0 if tx.scope is None else tx.scope.elements)
            return result

    def _resume(self, kernel: Callable[..., Any], log: int, args: Sequence[Any]) -> Any:
        """Go on with a call that came back for something; with log 0, begin it with another log."""
        from stm.compiled.resuming import resume

        return resume(self._name, kernel, log, args)


def _bare(kind: Any) -> Any:
    """The type itself, unless it holds TArrays, which would then be used outside of the transaction."""
    if getattr(kind, "ndim", None) is None and "TArray(" in str(kind):
        raise ValueError("a container of TArrays")
    return kind


def transaction(function: Callable[P, R] | None = None, /, *, name: str | None = None) -> Any:
    """Make a function a transaction in machine code. See the module.

    `name` is for messages. `TypeError` at once for what is no plain function of positional parameters.
    """
    if function is None:
        return lambda function: transaction(function, name=name)
    plain = getattr(function, "py_func", function)  # an @njit function will do
    if not isinstance(plain, FunctionType):
        _refuse(plain)
    if plain.__code__.co_flags & 0x2A0:
        raise TypeError(f"compiled.transaction can't run {plain.__qualname__!r}: make it a plain function")
    if plain.__code__.co_flags & 0x0C or plain.__code__.co_kwonlyargcount:
        raise TypeError(f"the parameters of a compiled transaction are plain ones: {plain.__qualname__!r} has others")
    names = plain.__code__.co_varnames[: plain.__code__.co_argcount]
    if any(name.startswith(_PREFIX) for name in names):
        raise TypeError(f"rename the parameters of {plain.__qualname__!r} that begin with {_PREFIX!r}")
    if not names:
        raise TypeError(f"{plain.__qualname__!r} takes no arguments: pass the TArrays that it works on")
    return CompiledTransaction(plain, name or plain.__qualname__.rpartition("<locals>.")[2])


def _refuse(thing: object) -> NoReturn:
    raise TypeError(f"compiled.transaction takes a function, not {thing!r}; options are given by name")
