"""`TArray`: a typed array whose elements are transactional.

Promises: inside a transaction, compiled or not, `array[i]` reads the element as of the transaction's moment, and
`array[i] = x` is seen by nobody else before the commit. Outside, each of these is a small transaction of its own.
Indexing is NumPy's: negative indices count from the end, others out of range raise `IndexError`; slices and index
arrays work too, from Python: reading them gives a read-only copy as of one moment, assigning to them is one write.

Elements are `int64`, `float64` or `bool`, in one or two dimensions, 16 bytes each (the value, and the version of its
last commit). Access from Python costs about a quarter of a microsecond outside a transaction and half of one inside,
where the first access and the commit cost some five more; from compiled code, a few nanoseconds.

Elements keep no history. So a `read_only=True` transaction that reads arrays may, unlike one over `TVar`s alone, have
to start again, and after ten times keeps writers off while it runs; `to_numpy()` of a large array under many writers
keeps them off while it copies, about a nanosecond an element.

>>> import stm
>>> from stm.compiled import TArray
>>> accounts, log = TArray([100, 20]), stm.TVar("")
>>> @stm.atomically
... def transfer(a, b, amount):
...     accounts[a] -= amount
...     accounts[b] += amount
...     log.value += f"{amount} from {a} to {b}. "
>>> transfer(0, -1, 30); accounts, log.value
(<TArray int64 [70 50]>, '30 from 0 to -1. ')
>>> accounts[2]
Traceback (most recent call last):
    ...
IndexError: index out of range of a TArray
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import index as as_index
from typing import Any, ClassVar, NoReturn, SupportsIndex

import numpy as np
import numpy.typing as npt

from stm.atomically import run
from stm.transaction import Transaction, descriptor
from stm.transaction import here as thread

KINDS: dict[tuple[str, int], type[TArray]] = {}


class TArray:
    """A transactional array of `data`: anything that `numpy.array` makes a one- or two-dimensional array of.

    `dtype` is taken from the data, or as given: integers become `int64` (`OverflowError` if they don't fit), floats
    `float64`, truth values `bool`; others are a `TypeError`. `name` is for messages.
    """

    __slots__ = ("__weakref__", "_address", "_header", "_memory", "_name", "_places", "shape")

    dtype: ClassVar[np.dtype[Any]]
    ndim: ClassVar[int]
    _get: ClassVar[Any]
    _set: ClassVar[Any]
    _joining: ClassVar[Any]  # the module of that name, which brings in numba

    shape: tuple[int, ...]
    _name: str | None

    def __new__(cls, data: npt.ArrayLike, dtype: npt.DTypeLike | None = None, *, name: str | None = None) -> TArray:
        values = _values(data, dtype)
        self: TArray = object.__new__(_kind(values.dtype, values.ndim))
        self._name = name
        self.shape = values.shape
        self._lay_out(values)
        return self

    def _lay_out(self, values: Any) -> None:
        from stm.compiled.runtime import CLOCK_WORD

        self._memory = np.zeros((values.size, 2), np.int64)
        self._memory[:, 0] = _as_words(values)
        rows, columns = self.shape if self.ndim == 2 else (values.size, 1)
        self._header = np.array([self._memory.ctypes.data, rows, columns, CLOCK_WORD, values.size], np.int64)
        self._address: int = self._header.ctypes.data
        self._places: Any = None

    @property
    def size(self) -> int:
        """The number of elements."""
        return len(self._memory)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        try:
            tx = thread.tx
        except AttributeError:
            tx = descriptor()
        if index.__class__ is not int or self.ndim == 2:
            position = self._position(index)
            if position is None:
                return self._read_many(index)
            index = position
        try:
            if tx.writes is None:
                return self._get(0, self._address, index)
            return self._get_joined(tx, index)
        except OverflowError:
            raise self._out_of_range(index) from None

    def __setitem__(self, index: Any, value: Any) -> None:
        try:
            tx = thread.tx
        except AttributeError:
            tx = descriptor()
        if index.__class__ is not int or self.ndim == 2:
            position = self._position(index)
            if position is None:
                self._write_many(index, value)
                return
            index = position
        if value.__class__ not in _PLAIN:
            value = self.dtype.type(value).item()
        try:
            if tx.writes is None:
                self._set(0, self._address, index, value)
            else:
                part = self._part(tx, writes=True)
                self._set(part.address, self._address, index, value)
        except (OverflowError, ValueError) as error:
            if not -self.size <= index < self.size:
                raise self._out_of_range(index) from None
            raise type(error)(f"{value!r} is not an {self.dtype} that {self!r} could hold") from None

    def peek(self, index: Any) -> Any:
        """The last committed value of one element, even inside a transaction, and not recorded as a read: it may be out
        of date by the time of the commit, and next to others it may be inconsistent.
        """
        position = self._position(index)
        if position is None:
            raise TypeError(f"peek() looks at one element, not at {index!r}")
        return self._get(0, self._address, position)

    def to_numpy(self) -> npt.NDArray[Any]:
        """A copy of all elements, as of one moment. Inside a transaction, what the transaction sees; that counts as a
        read of every element.
        """
        if descriptor().writes is not None:
            return self._copy(slice(None)).copy()
        from stm.compiled.runtime import copy_all

        words = np.empty(self.size, np.int64)
        copy_all(self._address, words)
        values: npt.NDArray[Any] = _from_words(words, self.dtype).reshape(self.shape)
        return values

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError(f"{self!r} can only be copied: its elements change")
        values = self.to_numpy()
        return values if dtype is None else values.astype(dtype)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.to_numpy().tolist() if self.ndim == 1 else self.to_numpy())

    def __repr__(self) -> str:
        name = "" if self._name is None else f" {self._name!r}"
        values = _from_words(self._memory[:, 0].copy(), self.dtype).reshape(self.shape)
        with np.printoptions(threshold=10, edgeitems=3, linewidth=1000):
            shown = " ".join(str(values).split())
        return f"<TArray{name} {self.dtype} {shown}>"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(
            f"{self!r} can't be pickled or copied: it is a place that threads of this process share, and a copy would "
            "be another place. Pickle its values (array.to_numpy()) instead"
        )

    # Inside transactions of the object tier

    def _part(self, tx: Transaction, writes: bool = False) -> Any:
        if writes:
            self._joining.refuse_writes(tx, self)
        part = self._joining.join(tx)
        part.arrays[self] = None
        return part

    def _get_joined(self, tx: Transaction, index: int) -> Any:
        extras = tx.extras
        part: Any = None if extras is None or tx.rv < 0 else extras.arrays
        if part is None or self not in part.arrays:
            part = self._part(tx)
        while True:
            try:
                return self._get(part.address, self._address, index)
            except self._joining.Extended:
                pass

    # More than one element

    def _position(self, index: Any) -> int | None:
        """Which element, counted row by row, an index means; None if it means several."""
        parts = index if isinstance(index, tuple) else (index,)
        if len(parts) == self.ndim and all(isinstance(part, SupportsIndex) and _is_integer(part) for part in parts):
            if self.ndim == 1:
                return as_index(parts[0])
            row, column = map(as_index, parts)
            rows, columns = self.shape
            if not (-rows <= row < rows and -columns <= column < columns):
                raise IndexError(f"index {row}, {column} out of range of a TArray of shape {rows} x {columns}")
            return (row % rows) * columns + column % columns
        return None

    def _out_of_range(self, index: int) -> IndexError:
        return IndexError(f"index {index} out of range of a TArray of {self.size}")

    def _positions(self, index: Any) -> Any:
        if self._places is None:
            self._places = np.arange(self.size).reshape(self.shape)
        return self._places[index]

    def _read_many(self, index: Any) -> npt.NDArray[Any]:
        if descriptor().writes is None:
            return run(self._copy, index, read_only=True)
        return self._copy(index)

    def _copy(self, index: Any) -> npt.NDArray[Any]:
        from stm.compiled.runtime import read_many

        found = self._positions(index)
        positions = np.ascontiguousarray(found)
        words = np.empty(positions.size, np.int64)
        part = self._part(descriptor())
        while True:
            try:
                read_many(part.address, self._address, positions.ravel(), words)
                break
            except self._joining.Extended:
                pass
        values: npt.NDArray[Any] = _from_words(words, self.dtype).reshape(np.shape(found))
        values.flags.writeable = False  # so that an assignment to a part of it, which would be lost, is an error
        return values

    def _write_many(self, index: Any, value: Any) -> None:
        if descriptor().writes is None:
            run(self._write_many, index, value)
            return
        from stm.compiled.runtime import write_many

        found = self._positions(index)
        positions = np.ascontiguousarray(found)
        values = np.empty(np.shape(found), self.dtype)
        values[...] = value
        part = self._part(descriptor(), writes=True)
        write_many(part.address, self._address, positions.ravel(), np.ascontiguousarray(_as_words(values)))

    # As numba sees it

    @property
    def _numba_type_(self) -> Any:
        from stm.compiled.extension import array_type

        return array_type(self.dtype, self.ndim)

    @property
    def _log_address(self) -> int:
        tx = descriptor()
        return 0 if tx.writes is None else self._part(tx, writes=False).address


_PLAIN = frozenset((int, float, bool))


def _is_integer(part: object) -> bool:
    return not isinstance(part, (bool, np.bool_, np.ndarray))


def _values(data: Any, dtype: Any) -> Any:
    values = np.array(data, dtype)
    kind = values.dtype.kind
    if kind not in "iufb":
        raise TypeError(f"a TArray holds int64, float64 or bool, not {values.dtype}")
    if values.ndim not in (1, 2):
        raise ValueError(f"a TArray has one or two dimensions, not {values.ndim}")
    if kind == "u" and values.size and values.max() > np.iinfo(np.int64).max:
        raise OverflowError(f"a TArray holds int64, and {values.max()} is larger")
    return values.astype({"i": np.int64, "u": np.int64, "f": np.float64, "b": np.bool_}[kind])


def _as_words(values: Any) -> Any:
    return (
        values.astype(np.int64).ravel()
        if values.dtype.kind == "b"
        else np.ascontiguousarray(values).view(np.int64).ravel()
    )


def _from_words(words: Any, dtype: Any) -> Any:
    return words != 0 if dtype.kind == "b" else words.view(dtype)


def _kind(dtype: Any, ndim: int) -> type[TArray]:
    """The subclass for a type of element and a number of dimensions, made on first use."""
    try:
        return KINDS[dtype.name, ndim]
    except KeyError:
        from numba import from_dtype

        from stm.compiled import joining, upcalls  # noqa: F401 - the latter joins the clock's two hands
        from stm.compiled.runtime import element_access

        get, put = element_access(from_dtype(dtype))
        members = {"__slots__": (), "__doc__": TArray.__doc__, "dtype": dtype, "ndim": ndim, "_get": get, "_set": put}
        members["_joining"] = joining
        return KINDS.setdefault((dtype.name, ndim), type("TArray", (TArray,), members))
