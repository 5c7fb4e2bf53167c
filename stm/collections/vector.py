"""`TVector`: a transactional list.

Promises: the names, arguments and errors of `list`; each operation is a transaction. `snapshot()` returns all of it at
one moment, as an immutable `pyrsistent.PVector`; iterators go through the vector as it was when they were made.
Iterables are gone through once, before the transaction; another `TVector` is read in it. A `TVector` can't be pickled,
its `snapshot()` can.

It is one variable: any two operations of which one writes conflict. Splitting it would not help, since `insert`, `del`
and `pop(0)` move all elements behind. For cells that threads change independently of each other, use a list of `TVar`s;
for a queue, `TQueue`.

Cost: O(log n), some microseconds, for an element that is read or set, for `append` and for `pop()`; O(n) for what moves
elements (`insert`, `del`, `pop(0)`, slices) and for what looks at all of them. `snapshot()` is O(1), except that the
first one after a `pop()` copies: a `PVector` can't be shortened otherwise, so popped places stay until then, emptied.

>>> from stm import TVector
>>> line = TVector(["ann", "bob"])
>>> line.append("eve"); line[0] = "zoe"; line
TVector(['zoe', 'bob', 'eve'])
>>> line.pop(), line[-1], line.snapshot()
('eve', 'bob', pvector(['zoe', 'bob']))
>>> line[7]
Traceback (most recent call last):
    ...
IndexError: list index out of range
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Iterable, Iterator, MutableSequence
from copy import deepcopy
from reprlib import recursive_repr
from typing import Any, NoReturn, Self, SupportsIndex, TypeVar, cast, overload

from pyrsistent import PVector, pvector

from stm import TVar, in_transaction, run, snapshot

T = TypeVar("T")
R = TypeVar("R")

#: The elements, and how many of them count: the places behind were popped, and hold None.
State = tuple[PVector[Any], int]


class TVector(MutableSequence[T]):
    """A transactional list of the elements of an iterable. `name` is for error messages and statistics alone."""

    __slots__ = ("__weakref__", "_state")

    _state: TVar[State]

    def __init__(self, iterable: Iterable[T] = (), /, *, name: str | None = None) -> None:
        state = _state_of(list(iterable))
        if hasattr(self, "_state"):
            self._state.set(state)  # as a list's second __init__
        else:
            self._state = TVar(state, name=name)

    # All elements.

    def snapshot(self) -> PVector[T]:
        """All elements at one moment. Inside a transaction, those that the transaction sees."""
        before = self._state.get()
        elements = _whole(before)
        if elements is not before[0] and not in_transaction():
            self._state.compare_and_set(before, (elements, len(elements)))  # so that the copy is made once
        return elements

    def __iter__(self) -> Iterator[T]:
        return iter(self.snapshot())

    def __reversed__(self) -> Iterator[T]:
        items: list[T] = _list(self._state.get())
        return reversed(items)

    def __len__(self) -> int:
        return self._state.get()[1]

    def __contains__(self, value: object) -> bool:
        return value in _list(self._state.get())

    def index(self, value: Any, start: SupportsIndex = 0, stop: SupportsIndex = sys.maxsize, /) -> int:
        return _list(self._state.get()).index(value, start, stop)

    def count(self, value: Any, /) -> int:
        return _list(self._state.get()).count(value)

    # One element. Each change is one look at the variable and one replacement of what was seen, if it is still there;
    # else it is done over in a transaction, which ends however many others write.

    @overload
    def __getitem__(self, index: SupportsIndex) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> TVector[T]: ...

    def __getitem__(self, index: Any) -> Any:
        elements, size = state = self._state.get()
        if isinstance(index, slice):
            return TVector(_list(state)[index])
        return elements[_position(index, size, "list index out of range")]

    @overload
    def __setitem__(self, index: SupportsIndex, value: T) -> None: ...
    @overload
    def __setitem__(self, index: slice, value: Iterable[T]) -> None: ...

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(index, slice):
            self._edit_with(value, lambda items, values: items.__setitem__(index, values))
            return
        elements, size = before = self._state.get()
        position = _position(index, size, "list assignment index out of range")
        if not self._state.compare_and_set(before, (elements.set(position, value), size)):
            run(TVector.__setitem__, self, index, value)

    def append(self, value: T, /) -> None:
        elements, size = before = self._state.get()
        elements = elements.append(value) if size == len(elements) else elements.set(size, value)
        if not self._state.compare_and_set(before, (elements, size + 1)):
            run(TVector.append, self, value)

    def pop(self, index: SupportsIndex = -1, /) -> T:
        elements, size = before = self._state.get()
        last = size - 1
        if operator.index(index) not in (-1, last) or last < 0:
            return self._edit(lambda items: items.pop(index))
        value: T = elements[last]
        after = (elements.set(last, None), last) if 2 * last > len(elements) else _state_of(_list(before)[:last])
        if self._state.compare_and_set(before, after):
            return value
        return run(TVector.pop, self, index)  # type: ignore[no-any-return]

    # Several elements, or their places: by way of a list of them.

    def _edit(self, edit: Callable[[list[T]], R]) -> R:
        """Put in place of the elements what `edit` makes of a list of them. It may be called more than once."""
        before = self._state.get()
        items = _list(before)
        result = edit(items)
        if self._state.compare_and_set(before, _state_of(items)):
            return result
        if in_transaction():
            raise ValueError("the vector was modified by what it called: a comparison, or a key function")
        return cast(R, run(self._edit, edit))

    def _edit_with(self, other: Any, edit: Callable[[list[T], list[Any]], object]) -> None:
        if isinstance(other, TVector):
            run(lambda: self._edit(lambda items: edit(items, list(other))))
        else:
            others = list(other)
            self._edit(lambda items: edit(items, others))

    def __delitem__(self, index: SupportsIndex | slice) -> None:
        self._edit(lambda items: items.__delitem__(index))

    def insert(self, index: SupportsIndex, value: T, /) -> None:
        self._edit(lambda items: items.insert(index, value))

    def remove(self, value: Any, /) -> None:
        self._edit(lambda items: items.remove(value))

    def reverse(self) -> None:
        self._edit(list.reverse)

    def sort(self, *, key: Callable[[T], Any] | None = None, reverse: bool = False) -> None:
        """Sort, stably. `key` may be called more often than there are elements."""
        self._edit(lambda items: items.sort(key=cast(Any, key), reverse=reverse))

    def clear(self) -> None:
        self._state.set(_EMPTY)

    def extend(self, values: Iterable[T], /) -> None:
        if isinstance(values, TVector):
            run(lambda: self._extend(_list(values._state.get())))
        else:
            self._extend(list(values))

    def _extend(self, values: list[T]) -> None:
        before = self._state.get()
        elements = _whole(before).extend(values)
        if not self._state.compare_and_set(before, (elements, len(elements))):
            run(self._extend, values)

    def __iadd__(self, values: Iterable[T]) -> Self:  # type: ignore[misc]
        self.extend(values)
        return self

    def __imul__(self, times: SupportsIndex) -> Self:
        if not isinstance(times, SupportsIndex):
            return NotImplemented
        self._edit(lambda items: items.__imul__(times))
        return self

    # New ones.

    def copy(self) -> TVector[T]:
        """A new, independent vector with the same elements. O(1)."""
        new: TVector[T] = TVector.__new__(TVector)
        new._state = TVar(self._state.get())
        return new

    __copy__ = copy

    def __deepcopy__(self, memo: dict[int, Any]) -> TVector[T]:
        new: TVector[T] = TVector()
        memo[id(self)] = new
        new.extend(deepcopy(list(self), memo))
        return new

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(
            "a TVector can't be pickled: threads of this process share it, and what is unpickled would be another "
            "vector. Pickle tvector.snapshot() instead"
        )

    def __add__(self, other: Any) -> TVector[Any]:
        return TVector(operator.add(*self._beside(other))) if isinstance(other, _KIN) else NotImplemented

    def __radd__(self, other: Any) -> TVector[Any]:
        return TVector(list(other) + _list(self._state.get())) if isinstance(other, _KIN) else NotImplemented

    def __mul__(self, times: SupportsIndex) -> TVector[T]:
        if not isinstance(times, SupportsIndex):
            return NotImplemented
        return TVector(_list(self._state.get()) * times)

    __rmul__ = __mul__

    # Comparison, as between lists: with a list, a PVector or another TVector.

    def _beside(self, other: Any) -> tuple[list[T], list[Any]]:
        if not isinstance(other, TVector):
            return _list(self._state.get()), list(other)
        mine, others = snapshot(self._state, other._state)
        return _list(mine), _list(others)

    def __eq__(self, other: object) -> bool:
        return operator.eq(*self._beside(other)) if isinstance(other, _KIN) else NotImplemented

    def __lt__(self, other: Any) -> bool:
        return operator.lt(*self._beside(other)) if isinstance(other, _KIN) else NotImplemented

    def __le__(self, other: Any) -> bool:
        return operator.le(*self._beside(other)) if isinstance(other, _KIN) else NotImplemented

    def __gt__(self, other: Any) -> bool:
        return operator.gt(*self._beside(other)) if isinstance(other, _KIN) else NotImplemented

    def __ge__(self, other: Any) -> bool:
        return operator.ge(*self._beside(other)) if isinstance(other, _KIN) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    @recursive_repr("TVector([...])")
    def __repr__(self) -> str:
        return f"{type(self).__name__}({_list(self._state.get())})"


#: What a vector may be compared with and added to.
_KIN = (TVector, list, PVector)
_EMPTY: State = (pvector(), 0)


def _state_of(items: list[Any]) -> State:
    return pvector(items), len(items)


def _whole(state: State) -> PVector[Any]:
    elements, size = state
    return elements if len(elements) == size else pvector(elements.tolist()[:size])


def _list(state: State) -> list[Any]:
    items = state[0].tolist()
    if len(items) > state[1]:
        del items[state[1] :]
    return items


def _position(index: SupportsIndex, size: int, message: str) -> int:
    try:
        position = operator.index(index)
    except TypeError:
        raise TypeError(f"list indices must be integers or slices, not {type(index).__name__}") from None
    if position < 0:
        position += size
    if not 0 <= position < size:
        raise IndexError(message)
    return position
