"""The live views of a `TMap`: what `keys()`, `items()` and `values()` return.

A view shows the map as it is whenever it is asked. Each question, an iteration or a set operation too, sees one moment;
a set operation on two such views sees both maps at one moment.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, Set, ValuesView
from typing import TYPE_CHECKING, Any, TypeVar, cast

from stm import run

if TYPE_CHECKING:
    from stm.collections.map import TMap

K = TypeVar("K")
V = TypeVar("V")


def _map_of(view: Any) -> TMap[Any, Any]:
    return cast("TMap[Any, Any]", view._mapping)


class TMapKeys(KeysView[K]):
    """The keys of a `TMap`. Set operations return a `set`."""

    __slots__ = ()

    def __iter__(self) -> Iterator[K]:
        return iter(_map_of(self))

    def _still(self) -> KeysView[K]:
        return KeysView(_map_of(self).snapshot())


class TMapItems(ItemsView[K, V]):
    """The `(key, value)` pairs of a `TMap`. Set operations return a `set`."""

    __slots__ = ()

    def __iter__(self) -> Iterator[tuple[K, V]]:
        return iter(_map_of(self).snapshot().items())

    def __contains__(self, item: object) -> bool:
        return isinstance(item, tuple) and len(item) == 2 and super().__contains__(item)

    def _still(self) -> ItemsView[K, V]:
        return ItemsView(_map_of(self).snapshot())


class TMapValues(ValuesView[V]):
    """The values of a `TMap`."""

    __slots__ = ()

    def __iter__(self) -> Iterator[V]:
        return iter(_map_of(self).snapshot().values())

    def __contains__(self, value: object) -> bool:
        return any(one is value or one == value for one in self)


def _still(*views: Any) -> list[Any]:
    return [view._still() if isinstance(view, (TMapKeys, TMapItems)) else view for view in views]


def _at_one_moment(name: str) -> Any:
    operation = getattr(Set, name)

    def method(self: Any, other: Any) -> Any:
        mine, others = run(_still, self, other)
        return operation(mine, others)

    method.__name__ = name
    return method


for _view in (TMapKeys, TMapItems):
    for _name in ("le", "lt", "ge", "gt", "eq", "and", "rand", "or", "ror", "sub", "rsub", "xor", "rxor"):
        setattr(_view, f"__{_name}__", _at_one_moment(f"__{_name}__"))
    setattr(_view, "isdisjoint", _at_one_moment("isdisjoint"))
