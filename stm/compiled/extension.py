"""`TArray` as numba sees it: a type, its memory, and indexing that is transactional.

In machine code a `TArray` is a handful of words by value: the address of its elements, its shape, and the log of the
transaction in which it is used, 0 outside of any. So `accounts[i]` finds its transaction without asking the thread,
also in the user's own functions that a body calls, and passing an array on costs no reference count. (The Python object
outlives the call that it was passed to.)
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from llvmlite import ir
from numba import from_dtype, types
from numba.core import cgutils
from numba.core.errors import NumbaTypeError
from numba.extending import (
    NativeValue,
    intrinsic,
    make_attribute_wrapper,
    models,
    overload,
    overload_attribute,
    overload_method,
    register_model,
    unbox,
)

from stm.atomically import check, retry
from stm.compiled.atomics import as_bits, from_bits, load
from stm.compiled.control import bounded
from stm.compiled.inplace import peek_in_place, read_in_place, write_in_place
from stm.compiled.kernels import peek_logged, read, read_outside, write, write_outside
from stm.compiled.log import ROW_AT, inlined
from stm.compiled.signals import apart, leave_with_retry

ANYWHERE = ""
LOGGED = "logged"
IN_PLACE = "in place"


class TArrayType(types.Type):
    """The numba type of a `TArray` of so many dimensions.

    `mode` says where it is used: `LOGGED`, in a transaction that keeps a log; `IN_PLACE`, in one that holds the clock;
    or anywhere, which is found out at each access.
    """

    def __init__(self, dtype: types.Type, ndim: int, mode: str = ANYWHERE) -> None:
        self.dtype = dtype
        self.ndim = ndim
        self.mode = mode
        super().__init__(name=f"TArray({dtype}, {ndim}d{mode and ', '}{mode})")

    def used(self, mode: str) -> TArrayType:
        """The same type in another mode."""
        return TArrayType(self.dtype, self.ndim, mode)


@functools.cache
def array_type(dtype: np.dtype[Any], ndim: int) -> TArrayType:
    """The numba type of a TArray of a NumPy type."""
    return TArrayType(from_dtype(dtype), ndim)


_FIELDS = ("base", "rows", "columns", "clock")  # the words of a TArray's header, in their order


@register_model(TArrayType)
class _Model(models.StructModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, [(field, types.int64) for field in (*_FIELDS, "log")])


for _field in (*_FIELDS, "log"):
    make_attribute_wrapper(TArrayType, _field, f"_{_field}")


def _fill(context: Any, builder: Any, kind: Any, header: Any, log: Any) -> Any:
    word = ir.IntType(64)
    words = builder.inttoptr(header, ir.PointerType(word))
    array = cgutils.create_struct_proxy(kind)(context, builder)
    for k, field in enumerate(_FIELDS):
        setattr(array, field, builder.load(builder.gep(words, [ir.Constant(word, k)])))
    array.log = log
    return array._getvalue()


@intrinsic
def bind(typingctx: Any, kind: Any, header: Any, log: Any) -> Any:
    """The array of the literal type `kind` whose header stands at an address, as used in the transaction of `log`."""
    result = kind.instance_type

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _fill(context, builder, result, args[1], args[2])

    return result(kind, types.int64, types.int64), codegen


def rebound(kinds: Sequence[types.Type], mode: str) -> tuple[types.Type, ...]:
    """Argument types as `rebind` makes them."""
    return tuple(kind.used(mode) if isinstance(kind, TArrayType) else kind for kind in kinds)


def _rebinder(mode: str) -> Any:
    @intrinsic
    def rebind(typingctx: Any, args: Any, log: Any) -> Any:
        """The same arguments, the arrays among them as used in the transaction of `log`."""
        kinds = types.Tuple(rebound(args.types, mode))

        def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            made = []
            for kind, value in zip(args.types, cgutils.unpack_tuple(builder, values[0]), strict=True):
                if isinstance(kind, TArrayType):
                    array = cgutils.create_struct_proxy(kind)(context, builder, value=value)
                    array.log = values[1]
                    made.append(array._getvalue())
                else:
                    context.nrt.incref(builder, kind, value)
                    made.append(value)
            return context.make_tuple(builder, sig.return_type, made)

        return kinds(args, types.int64), codegen

    return rebind


rebind_logged = _rebinder(LOGGED)


def _among(field: str) -> Any:
    @intrinsic
    def among(typingctx: Any, args: Any) -> Any:
        """A word of the first array among the arguments."""
        position = next(k for k, kind in enumerate(args.types) if isinstance(kind, TArrayType))

        def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
            value = builder.extract_value(values[0], position)
            array = cgutils.create_struct_proxy(args.types[position])(context, builder, value=value)
            return getattr(array, field)

        return types.int64(args), codegen

    return among


#: The log of the transaction that the arguments' first array is used in, 0 outside of any; and its clock's address.
log_among = _among("log")
clock_among = _among("clock")


@unbox(TArrayType)
def _unbox(kind: Any, instance: Any, c: Any) -> NativeValue:
    place = cgutils.alloca_once(c.builder, c.context.get_value_type(kind))
    failed = cgutils.alloca_once_value(c.builder, cgutils.false_bit)
    with ExitStack() as stack:
        words = []
        for name in ("_address", "_log_address"):
            attribute = c.pyapi.object_getattr_string(instance, name)
            with cgutils.early_exit_if_null(c.builder, stack, attribute):
                c.builder.store(cgutils.true_bit, failed)
            words.append(c.pyapi.long_as_longlong(attribute))
            c.pyapi.decref(attribute)
        c.builder.store(_fill(c.context, c.builder, kind, *words), place)
    return NativeValue(c.builder.load(place), is_error=c.builder.load(failed))


@inlined
def place_of_one(array: Any, index: Any) -> Any:
    return array._base + 16 * bounded(index, array._rows)


@inlined
def place_of_two(array: Any, row: Any, column: Any) -> Any:
    return array._base + 16 * (bounded(row, array._rows) * array._columns + bounded(column, array._columns))


def _place(array: TArrayType, index: Any) -> Any:
    """The function from array and index to the element's address, for an index of this type."""
    index = types.unliteral(index)
    parts = tuple(types.unliteral(part) for part in index) if isinstance(index, types.BaseTuple) else (index,)
    if not all(isinstance(part, types.Integer) for part in parts) or len(parts) != array.ndim:
        wanted = "an integer" if array.ndim == 1 else "two integers, as in grid[row, column],"
        raise NumbaTypeError(
            f"a {array.ndim}-dimensional TArray in compiled code is indexed by {wanted} not by {index}; "
            "loop over what a slice would give"
        )
    to_word = types.int64
    if array.ndim == 2:
        return lambda array, index: place_of_two(array, to_word(index[0]), to_word(index[1]))
    if isinstance(index, types.BaseTuple):
        return lambda array, index: place_of_one(array, to_word(index[0]))
    return lambda array, index: place_of_one(array, to_word(index))


@overload(operator.getitem, jit_options={"forceinline": True})
def _getitem(array: Any, index: Any) -> Any:
    if not isinstance(array, TArrayType):
        return None
    place, dtype, mode = inlined(_place(array, index)), array.dtype, array.mode

    def getitem(array: Any, index: Any) -> Any:
        at, log = place(array, index), array._log
        if mode == LOGGED:
            return from_bits(read(log, at), dtype)
        if mode == IN_PLACE:
            return from_bits(read_in_place(log, at), dtype)
        if log:
            return from_bits(apart(read, (log, at)), dtype)
        return from_bits(apart(read_outside, (array._clock, at)), dtype)

    return getitem


@overload(operator.setitem, jit_options={"forceinline": True})
def _setitem(array: Any, index: Any, value: Any) -> Any:
    if not isinstance(array, TArrayType):
        return None
    if not isinstance(types.unliteral(value), (types.Number, types.Boolean)):
        raise NumbaTypeError(f"an element of a TArray of {array.dtype} is a number, not a {value}")
    if isinstance(value, types.Complex):
        raise NumbaTypeError(f"an element of a TArray of {array.dtype} can't hold a {value}")
    place, dtype, mode = inlined(_place(array, index)), array.dtype, array.mode

    def setitem(array: Any, index: Any, value: Any) -> Any:
        at, log, word = place(array, index), array._log, as_bits(dtype(value))
        if mode == LOGGED:
            write(log, at, word)
        elif mode == IN_PLACE:
            write_in_place(log, at, word)
        elif log:
            apart(write, (log, at, word))
        else:
            apart(write_outside, (array._clock, at, word))

    return setitem


@overload_method(TArrayType, "peek")
def _peek(array: Any, index: Any) -> Any:
    place, dtype, mode = inlined(_place(array, index)), array.dtype, array.mode

    def peek(array: Any, index: Any) -> Any:
        at, log = place(array, index), array._log
        if mode == IN_PLACE:
            return from_bits(peek_in_place(log, at), dtype)
        if mode == LOGGED and load(log + ROW_AT):
            return from_bits(apart(peek_logged, (log, at)), dtype)
        return from_bits(read_outside(array._clock, at), dtype)

    return peek


def _rows(array: Any) -> Any:
    return array._rows


def _elements(array: Any) -> Any:
    return array._rows * array._columns  # (there is one column where there is one dimension)


def _shape_of_one(array: Any) -> Any:
    return (array._rows,)


def _shape_of_two(array: Any) -> Any:
    return array._rows, array._columns


@overload(len)
def _len(array: Any) -> Any:
    return _rows if isinstance(array, TArrayType) else None


@overload_attribute(TArrayType, "shape")
def _shape(array: Any) -> Any:
    return _shape_of_one if array.ndim == 1 else _shape_of_two


@overload_attribute(TArrayType, "size")
def _size(array: Any) -> Any:
    return _elements


@overload_attribute(TArrayType, "ndim")
def _ndim(array: Any) -> Any:
    ndim = array.ndim

    def dimensions(array: Any) -> Any:
        return ndim

    return dimensions


@overload(retry)
def _retry() -> Any:
    return lambda: leave_with_retry()


@overload(check)
def _check(condition: Any) -> Any:
    def compiled_check(condition: Any) -> Any:
        if not condition:
            leave_with_retry()

    return compiled_check
