"""`TMap`: a transactional dictionary.

Promises: the names, arguments and errors of `dict`; each operation is a transaction, `update()` and `clear()` too.
`snapshot()` returns all of it at one moment, as an immutable `pyrsistent.PMap`, and copies nothing. Iterators go
through the map as it was when they were made, never mind who writes meanwhile; views are live, and each question to
them sees one moment.

Different from `dict`: there is no order of insertion. `dict(m)` asks for the keys first and for each value after, so
outside a transaction it may meet a change in between: `dict(m.items())` doesn't. Like a `TVar`, a map can't be pickled
(`m.snapshot()` can); copies are new, independent maps.

How it is split. A key lives in one of 64 *stripes*, which its hash decides, and transactions conflict only if they use
keys of the same stripe and one of them writes. What reads all stripes, `len()`, `snapshot()`, `==` and iteration,
conflicts with every writer if done inside a transaction (outside, it conflicts with nobody); so does what writes all,
`clear()`, and `update()` for many keys. Setting a key to the object that is its value already writes nothing.

Why 64. Two threads without a GIL, each updating keys of its own in a map of 1,000, had so many of their attempts
aborted, if they do nothing else:

    stripes   1 key a transaction   2 keys   4 keys   snapshot()   an empty map
         32                  3.0 %    7.6 %     17 %         5 µs    5 µs,  5 KB
         64                  1.2 %    3.5 %     11 %         9 µs   10 µs, 10 KB
        128                  0.5 %    1.7 %      6 %        16 µs   19 µs, 20 KB
        256                  0.2 %    0.8 %      3 %        31 µs   36 µs, 39 KB

With a GIL it is 0.1 % or less whatever the number. A number that grows with the map would not help those whose map is
small and busy, and would make every operation read one variable more.

Cost: O(log n) for one key. With 1,000 keys 0.3 µs to get a value and 1 µs to set or delete one; with 1,000,000, picked
at random so that hardly any is in the processor's cache, 0.8 to 1.4 and 3 to 4 (`dict`: 0.04 µs and 0.6 to get one).
`snapshot()` and `len()` take 9 µs whatever the size. A key of a million takes 70 bytes beside itself and its value
(`dict`: 42).

>>> from stm import TMap, atomically
>>> stock = TMap(apples=3, pears=1)
>>> @atomically
... def sell(fruit):
...     stock[fruit] -= 1
...     if not stock[fruit]:
...         del stock[fruit]
>>> before = stock.snapshot()
>>> sell("pears"); stock, "pears" in before
(TMap({'apples': 3}), True)
>>> stock["plums"]
Traceback (most recent call last):
    ...
KeyError: 'plums'
"""

from __future__ import annotations

from _thread import get_ident
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from copy import deepcopy
from itertools import chain
from reprlib import recursive_repr
from typing import Any, NoReturn, Self, TypeVar, overload

from pyrsistent import PMap

from stm import TVar, atomically, run, snapshot
from stm.collections._hash_tree import EMPTY, LAST, MISSING, Tree, divide, leaf_for, leaves, merge, plant, put, without
from stm.collections._views import TMapItems, TMapKeys, TMapValues
from stm.collections._whole import Whole

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")


#: Attempts within a transaction: one fails only if a signal handler or a finalizer has changed the map meanwhile, or a
#: comparison, which does so each time.
PATIENCE = 100


class TMap(MutableMapping[K, V]):
    """A transactional dictionary; made from what `dict()` takes."""

    __slots__ = ("__weakref__", "_stripes")

    _stripes: tuple[TVar[Tree], ...]

    def __init__(self, other: Any = (), /, **kwargs: Any) -> None:
        if hasattr(self, "_stripes"):
            self.update(other, **kwargs)  # as a dictionary's second __init__
        else:
            self._stripes = tuple(map(TVar, _trees(other, kwargs)))

    @classmethod
    def named(cls, name: str, other: Any = (), /, **kwargs: Any) -> Self:
        """A map whose stripes bear a name in error messages and statistics: "orders[stripe 7]"."""
        self = cls(other, **kwargs)
        trees = snapshot(*self._stripes)
        self._stripes = tuple([TVar(tree, name=f"{name}[stripe {number}]") for number, tree in enumerate(trees)])
        return self

    @classmethod
    def fromkeys(cls, iterable: Iterable[K], value: Any = None, /) -> TMap[K, Any]:
        """A map from each of these keys to the same value."""
        new = cls()
        for key in iterable:
            new[key] = value
        return new

    # One key. Each operation is one look at a stripe and one replacement of what was seen, if it is still there; else
    # it is done over in a transaction, which ends however many others write.

    def __getitem__(self, key: K) -> V:
        code = hash((key,))
        return leaf_for(self._stripes[code & LAST].get(), code)[key]  # type: ignore[no-any-return]

    def get(self, key: Any, default: Any = None) -> Any:
        code = hash((key,))
        return leaf_for(self._stripes[code & LAST].get(), code).get(key, default)

    def __contains__(self, key: object) -> bool:
        code = hash((key,))
        return key in leaf_for(self._stripes[code & LAST].get(), code)

    def __setitem__(self, key: K, value: V) -> None:
        code = hash((key,))
        stripe = self._stripes[code & LAST]
        before = stripe.get()
        after = put(before, code, key, value)
        if after is not before and not stripe.compare_and_set(before, after):
            run(TMap.__setitem__, self, key, value)

    def __delitem__(self, key: K) -> None:
        self.pop(key)

    @overload
    def pop(self, key: K, /) -> V: ...
    @overload
    def pop(self, key: K, default: V | D, /) -> V | D: ...

    def pop(self, key: Any, default: Any = MISSING, /) -> Any:
        code = hash((key,))
        stripe = self._stripes[code & LAST]
        before = stripe.get()
        value = leaf_for(before, code).get(key, MISSING)
        if value is MISSING:
            if default is MISSING:
                raise KeyError(key)
            return default
        if stripe.compare_and_set(before, without(before, code, key)):
            return value
        return run(TMap.pop, self, key, default)

    def setdefault(self, key: K, default: Any = None, /) -> Any:
        code = hash((key,))
        stripe = self._stripes[code & LAST]
        before = stripe.get()
        value = leaf_for(before, code).get(key, MISSING)
        if value is not MISSING:
            return value
        if stripe.compare_and_set(before, put(before, code, key, default)):
            return default
        return run(TMap.setdefault, self, key, default)

    # Several keys.

    @atomically
    def popitem(self) -> tuple[K, V]:
        """Remove and return some `(key, value)`. `KeyError` if the map is empty.

        Threads begin in different stripes, so that they seldom conflict.
        """
        first = hash((get_ident(),))
        for number in range(first, first + LAST + 1):
            stripe = self._stripes[number & LAST]
            tree = stripe.get()
            for leaf in leaves(tree[1]):
                item: tuple[K, V] = next(reversed(leaf.items()))
                if stripe.compare_and_set(tree, without(tree, hash((item[0],)), item[0])):
                    return item
                return self.popitem()  # what runs uninvited was here
        raise KeyError("popitem(): map is empty")

    def update(self, other: Any = (), /, **kwargs: Any) -> None:
        """Set all these keys, in one transaction: another map's, of an iterable of pairs, and those given by name.

        The argument is gone through once, before the transaction; a `TMap` is read in it.
        """
        if isinstance(other, TMap):
            run(lambda: self._merge(divide(_plain(other, kwargs))))
        else:
            self._merge(divide(_plain(other, kwargs)))

    @atomically
    def _merge(self, parts: dict[int, dict[Any, Any]]) -> None:
        for number, part in parts.items():
            stripe = self._stripes[number]
            for _ in range(PATIENCE):
                tree = stripe.get()
                if stripe.compare_and_set(tree, merge(tree, part)):
                    break
            else:
                raise RuntimeError("a comparison of keys changes the very map that they are put in")

    @atomically
    def clear(self) -> None:
        for stripe in self._stripes:
            if stripe.get()[0]:
                stripe.set(EMPTY)

    def snapshot(self) -> PMap[K, V]:
        """All of it at one moment, without copying. Inside a transaction, what the transaction sees."""
        return Whole(snapshot(*self._stripes))

    def __len__(self) -> int:
        return sum([tree[0] for tree in snapshot(*self._stripes)])

    def __bool__(self) -> bool:
        # The first key found answers for all: a transaction that asks this reads no more stripes than it must.
        return any(stripe.get()[0] for stripe in self._stripes) or len(self) > 0

    def __iter__(self) -> Iterator[K]:
        return iter(self.snapshot())

    def keys(self) -> TMapKeys[K]:
        return TMapKeys(self)

    def items(self) -> TMapItems[K, V]:
        return TMapItems(self)

    def values(self) -> TMapValues[V]:
        return TMapValues(self)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, TMap):
            mine, others = pictures(self, other)
            return mine == others
        return self.snapshot() == other if isinstance(other, Mapping) else NotImplemented

    def __or__(self, other: Any) -> TMap[Any, Any]:
        return run(_union, self, other) if isinstance(other, Mapping) else NotImplemented

    def __ror__(self, other: Any) -> TMap[Any, Any]:
        return run(_union, TMap(other), self) if isinstance(other, Mapping) else NotImplemented

    def __ior__(self, other: Any) -> Self:
        self.update(other)
        return self

    def copy(self) -> TMap[K, V]:
        """A new, independent map with the same keys and values. Takes as long as an empty one, whatever the size."""
        new: TMap[K, V] = TMap.__new__(TMap)
        new._stripes = tuple(map(TVar, snapshot(*self._stripes)))
        return new

    __copy__ = copy

    def __deepcopy__(self, memo: dict[int, Any]) -> TMap[K, V]:
        new: TMap[K, V] = TMap()
        memo[id(self)] = new
        new.update(deepcopy(dict(self.snapshot().items()), memo))
        return new

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(
            "a TMap can't be pickled: threads of this process share it, and what is unpickled would be "
            "another map. Pickle tmap.snapshot() instead"
        )

    @recursive_repr("TMap({...})")
    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict(self.snapshot().items())})"


def pictures(*maps: TMap[Any, Any]) -> list[Whole[Any, Any]]:
    """Snapshots of several maps at one moment."""
    trees = snapshot(*chain.from_iterable([one._stripes for one in maps]))
    return [Whole(trees[first : first + LAST + 1]) for first in range(0, len(trees), LAST + 1)]


def _plain(other: Any, kwargs: dict[str, Any]) -> dict[Any, Any]:
    if isinstance(other, (TMap, Whole)):
        other = other.items()  # of one moment, and quicker than key by key
    return dict(other, **kwargs)


def _trees(other: Any, kwargs: dict[str, Any]) -> tuple[Tree, ...]:
    if isinstance(other, TMap):
        other = other.snapshot()
    if isinstance(other, Whole) and not kwargs:
        return other._trees
    return plant(_plain(other, kwargs))


def _union(first: TMap[Any, Any], second: Any) -> TMap[Any, Any]:
    new = first.copy()
    new.update(second)
    return new
