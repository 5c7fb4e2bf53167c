"""`Whole`: the picture of a striped map, a `pyrsistent.PMap` made without copying.

It holds the trees of all stripes as they were at one moment (`_hash_tree.py`), reads them where they are, and makes
changed versions that share all but one path with it: `set`, `remove`, `update`, `transform` and so on are `PMap`'s own,
over an evolver of ours, and what they return is a `Whole` again. It is equal to, hashes like, prints like and is
pickled as the plain `PMap` of the same keys and values.

Whatever reaches past the methods for the buckets of a `PMap` finds them: they are made on first use, once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

from pyrsistent import PMap, pmap

from stm.collections._hash_tree import LAST, Leaf, Tree, leaf_for, leaves, put, without

K = TypeVar("K")
V = TypeVar("V")

if TYPE_CHECKING:

    class _PMapEvolver:
        _original_pmap: Any
else:
    _PMapEvolver = PMap._Evolver


class Whole(PMap[K, V]):
    """A `PMap` of the keys and values in these trees, one for each stripe."""

    __slots__ = ("_plain", "_trees")

    _trees: tuple[Tree, ...]

    def __new__(cls, trees: tuple[Tree, ...]) -> Whole[K, V]:
        self: Whole[K, V] = object.__new__(cls)
        self._trees = trees
        return self

    def __getitem__(self, key: K) -> V:
        code = hash((key,))
        return leaf_for(self._trees[code & LAST], code)[key]  # type: ignore[no-any-return]

    def get(self, key: Any, default: Any = None) -> Any:
        code = hash((key,))
        return leaf_for(self._trees[code & LAST], code).get(key, default)

    def __contains__(self, key: object) -> bool:
        code = hash((key,))
        return key in leaf_for(self._trees[code & LAST], code)

    def __len__(self) -> int:
        return sum([tree[0] for tree in self._trees])

    def _leaves(self) -> Iterator[Leaf]:
        return leaves(*[tree[1] for tree in self._trees])

    def iterkeys(self) -> Iterator[K]:
        return chain.from_iterable(self._leaves())

    def itervalues(self) -> Iterator[V]:
        return chain.from_iterable(map(dict.values, self._leaves()))

    def iteritems(self) -> Iterator[tuple[K, V]]:
        return chain.from_iterable(map(dict.items, self._leaves()))

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Mapping):
            return NotImplemented
        return len(self) == len(other) and dict(self.iteritems()) == dict(other.items())

    __hash__ = PMap.__hash__

    def __repr__(self) -> str:
        return f"pmap({dict(self.iteritems())})"

    def __reduce__(self) -> tuple[Any, ...]:
        return pmap, (dict(self.iteritems()),)

    def evolver(self) -> Any:
        return _Evolver(self)

    @property
    def _buckets(self) -> Any:
        try:
            plain = object.__getattribute__(self, "_plain")  # `self._plain` would go on to look for a key of that name
        except AttributeError:
            plain = self._plain = pmap(dict(self.iteritems()))
        return plain._buckets

    @property
    def _size(self) -> int:
        return len(self)


class _Evolver(_PMapEvolver):
    """Collects changes as `PMap`'s does, and makes a `Whole` of them."""

    __slots__ = ("_trees",)

    def __init__(self, original: Whole[Any, Any]) -> None:
        self._original_pmap = original
        self._trees = list(original._trees)

    def __getitem__(self, key: Any) -> Any:
        code = hash((key,))
        return leaf_for(self._trees[code & LAST], code)[key]

    def __contains__(self, key: Any) -> bool:
        code = hash((key,))
        return key in leaf_for(self._trees[code & LAST], code)

    def __len__(self) -> int:
        return sum([tree[0] for tree in self._trees])

    def set(self, key: Any, val: Any) -> _Evolver:
        code = hash((key,))
        self._trees[code & LAST] = put(self._trees[code & LAST], code, key, val)
        return self

    def remove(self, key: Any) -> _Evolver:
        code = hash((key,))
        before = self._trees[code & LAST]
        after = without(before, code, key)
        if after is before:
            raise KeyError(f"{key}")  # PMap's has the text of the key, too
        self._trees[code & LAST] = after
        return self

    def is_dirty(self) -> bool:
        return any(ours is not old for ours, old in zip(self._trees, self._original_pmap._trees, strict=True))

    def persistent(self) -> Whole[Any, Any]:
        if self.is_dirty():
            self._original_pmap = Whole(tuple(self._trees))
        original: Whole[Any, Any] = self._original_pmap
        return original
