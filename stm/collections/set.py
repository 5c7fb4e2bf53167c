"""`TSet`: a transactional set.

Promises: the names, arguments and errors of `set`; each operation is a transaction. `snapshot()` returns all of it at
one moment, as an immutable `pyrsistent.PSet`, and copies nothing; iterators go through the set as it was when they were
made.

Operators take any `collections.abc.Set`, methods any iterables, and both return a new, independent `TSet`. Arguments
are gone through once, before the transaction, except that each `TSet` or `TMap` among them is read in it, so that
everything belongs to one moment. A `TSet` can't be pickled, its `snapshot()` can.

A `TSet` is split as a `TMap` is, and what is said there of conflicts, costs and memory holds here: elements in
different stripes don't conflict; `len()`, iteration and comparison read all stripes. Adding an element that is in the
set already, or discarding one that isn't, only reads.

>>> from stm import TSet
>>> seen = TSet("ab")
>>> seen.add("c"); seen.discard("x"); seen > {"a", "b"}
True
>>> seen & {"a", "z"}, sorted(seen.snapshot())
(TSet({'a'}), ['a', 'b', 'c'])
>>> seen.remove("x")
Traceback (most recent call last):
    ...
KeyError: 'x'
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Iterable, Iterator, MutableSet, Set
from copy import deepcopy
from itertools import chain
from reprlib import recursive_repr
from typing import Any, NoReturn, TypeVar

from pyrsistent import PSet

from stm import atomically, run
from stm.collections.map import TMap

T = TypeVar("T")


class TSet(MutableSet[T]):
    """A transactional set of the elements of an iterable. `name` is for error messages and statistics alone."""

    __slots__ = ("__weakref__", "_map")

    _map: TMap[Any, bool]

    def __init__(self, iterable: Iterable[T] = (), /, *, name: str | None = None) -> None:
        if hasattr(self, "_map"):
            self._become(dict.fromkeys(iterable, True))  # as a set's second __init__
            return
        elements: Any = iterable._map if isinstance(iterable, TSet) else dict.fromkeys(iterable, True)
        self._map = TMap(elements) if name is None else TMap.named(name, elements)

    @atomically
    def _become(self, elements: dict[T, bool]) -> None:
        self._map.clear()
        self._map.update(elements)

    # One element. As in `set`, where an element is looked for, a set stands for the frozenset that equals it.

    def __contains__(self, element: object) -> bool:
        return _hashable(element) in self._map

    def add(self, element: T, /) -> None:
        self._map[element] = True

    def discard(self, element: Any, /) -> None:
        self._map.pop(_hashable(element), None)

    def remove(self, element: Any, /) -> None:
        if self._map.pop(_hashable(element), None) is None:
            raise KeyError(element)

    def pop(self) -> T:
        """Remove and return some element. `KeyError` if the set is empty."""
        try:
            element: T = self._map.popitem()[0]
        except KeyError:
            raise KeyError("pop from an empty set") from None
        return element

    # All of them.

    def snapshot(self) -> PSet[T]:
        """All elements at one moment, without copying. Inside a transaction, those that the transaction sees."""
        elements: PSet[T] = PSet(self._map.snapshot())  # type: ignore[call-arg]
        return elements

    def __iter__(self) -> Iterator[T]:
        return iter(self._map)

    def __len__(self) -> int:
        return len(self._map)

    def __bool__(self) -> bool:
        return bool(self._map)

    def clear(self) -> None:
        self._map.clear()

    def copy(self) -> TSet[T]:
        """A new, independent set with the same elements. Takes as long as an empty one, whatever the size."""
        new: TSet[T] = TSet.__new__(TSet)
        new._map = self._map.copy()
        return new

    __copy__ = copy

    def __deepcopy__(self, memo: dict[int, Any]) -> TSet[T]:
        new: TSet[T] = TSet()
        memo[id(self)] = new
        new.update(deepcopy(list(self), memo))
        return new

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(
            "a TSet can't be pickled: threads of this process share it, and what is unpickled would be another set. "
            "Pickle tset.snapshot() instead"
        )

    @recursive_repr("TSet(...)")
    def __repr__(self) -> str:
        elements = set(self)
        return f"{type(self).__name__}({elements or ''})"

    # With others, changing this one.

    def update(self, *others: Iterable[T]) -> None:
        self._take(_add_all, others)

    def difference_update(self, *others: Iterable[object]) -> None:
        self._take(_remove_all, others)

    def intersection_update(self, *others: Iterable[object]) -> None:
        self._take(_keep_all, others)

    def symmetric_difference_update(self, other: Iterable[T], /) -> None:
        self._take(_toggle_all, (other,))

    def _take(self, change: Callable[[TMap[Any, bool], list[set[Any]]], None], others: tuple[Any, ...]) -> None:
        gathered = [_gathered(other) for other in others]
        run(lambda: change(self._map, [set(one) for one in gathered]))

    def __ior__(self, other: Any) -> Any:
        return self._operated(_add_all, other)

    def __isub__(self, other: Any) -> Any:
        return self._operated(_remove_all, other)

    def __iand__(self, other: Any) -> Any:
        return self._operated(_keep_all, other)

    def __ixor__(self, other: Any) -> Any:
        return self._operated(_toggle_all, other)

    def _operated(self, change: Callable[[TMap[Any, bool], list[set[Any]]], None], other: Any) -> Any:
        if not isinstance(other, Set):
            return NotImplemented
        self._take(change, (other,))
        return self

    # With others, making a new one.

    def union(self, *others: Iterable[Any]) -> TSet[Any]:
        return self._made(_add_all, others)

    def difference(self, *others: Iterable[object]) -> TSet[T]:
        return self._made(_remove_all, others)

    def intersection(self, *others: Iterable[object]) -> TSet[T]:
        return self._made(_keep_all, others)

    def symmetric_difference(self, other: Iterable[Any], /) -> TSet[Any]:
        return self._made(_toggle_all, (other,))

    def _made(self, change: Callable[[TMap[Any, bool], list[set[Any]]], None], others: tuple[Any, ...]) -> TSet[Any]:
        gathered = [_gathered(other) for other in others]

        def make() -> TSet[Any]:
            new = self.copy()
            new._take(change, tuple(gathered))
            return new

        return run(make)

    def __or__(self, other: Any) -> TSet[Any]:
        return self._made(_add_all, (other,)) if isinstance(other, Set) else NotImplemented

    def __and__(self, other: Any) -> TSet[T]:
        return self._made(_keep_all, (other,)) if isinstance(other, Set) else NotImplemented

    def __xor__(self, other: Any) -> TSet[Any]:
        return self._made(_toggle_all, (other,)) if isinstance(other, Set) else NotImplemented

    def __sub__(self, other: Any) -> TSet[T]:
        return self._made(_remove_all, (other,)) if isinstance(other, Set) else NotImplemented

    def __rsub__(self, other: Any) -> TSet[Any]:
        return TSet(other)._made(_remove_all, (self,)) if isinstance(other, Set) else NotImplemented

    __ror__, __rand__, __rxor__ = __or__, __and__, __xor__

    # With another, asking.

    def issubset(self, other: Iterable[object], /) -> bool:
        return self._asked(operator.le, other)

    def issuperset(self, other: Iterable[object], /) -> bool:
        return self._asked(operator.ge, other)

    def isdisjoint(self, other: Iterable[Any], /) -> bool:
        return self._asked(set.isdisjoint, other)

    def _asked(self, question: Callable[[set[Any], set[Any]], bool], other: Any) -> bool:
        gathered = _gathered(other)
        return run(lambda: question(set(self), set(gathered)))

    def __eq__(self, other: object) -> bool:
        return self._asked(operator.eq, other) if isinstance(other, Set) else NotImplemented

    def __le__(self, other: Any) -> bool:
        return self._asked(operator.le, other) if isinstance(other, Set) else NotImplemented

    def __lt__(self, other: Any) -> bool:
        return self._asked(operator.lt, other) if isinstance(other, Set) else NotImplemented

    def __ge__(self, other: Any) -> bool:
        return self._asked(operator.ge, other) if isinstance(other, Set) else NotImplemented

    def __gt__(self, other: Any) -> bool:
        return self._asked(operator.gt, other) if isinstance(other, Set) else NotImplemented


def _hashable(element: Any) -> Any:
    if isinstance(element, Set) and not isinstance(element, Hashable):
        return frozenset(element)
    return element


def _gathered(other: Any) -> Any:
    """What to read in the transaction, as often as it takes."""
    return other if isinstance(other, (TSet, TMap)) else set(other)


def _add_all(elements: TMap[Any, bool], others: list[set[Any]]) -> None:
    elements.update(dict.fromkeys(chain(*others), True))


def _remove_all(elements: TMap[Any, bool], others: list[set[Any]]) -> None:
    for element in set().union(*others):
        elements.pop(element, None)


def _keep_all(elements: TMap[Any, bool], others: list[set[Any]]) -> None:
    before = set(elements)
    for element in before - before.intersection(*others):
        elements.pop(element, None)


def _toggle_all(elements: TMap[Any, bool], others: list[set[Any]]) -> None:
    (other,) = others
    for element in other:
        if elements.pop(element, None) is None:
            elements[element] = True
