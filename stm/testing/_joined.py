"""Elements of arrays that transactions of the object tier read and wrote (`stm.compiled.joining`), by their versions.

An element is two words, its value and the version of its last commit. Who reads one inside a transaction looks at the
version before and after: if it is the same, that is the version of the value between, since a committer stores the
version first. What was written stands in the attempt's log, and the version under which, there too, once it has
committed. What compiled code and slices have read also stands in the log, but without versions; it counts if at the end
of the body it is not newer than the attempt's moment.

Elements have no cells. So here the order of versions is that of their numbers; and of rows of compiled transactions,
which also write elements, nothing is known but that.
"""

from __future__ import annotations

import ctypes
import sys
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from stm.testing._opacity import RW, WR, WW, Graph, label
from stm.testing._records import Keeper, Record, Recorded
from stm.transaction import here

#: The number of bytes of an element.
WIDTH = 16


class Element(NamedTuple):
    """One element of a `TArray`, counted row by row."""

    array: Any
    position: int

    def __repr__(self) -> str:
        return f"{label(self.array)}[{self.position}]"


def replacements(keeper: Keeper) -> list[tuple[Any, str, Any]]:
    """What stands in the place of how elements are read. Nothing if no arrays are in use."""
    module: Any = sys.modules.get("stm.compiled.array")
    return [] if module is None else [(module.TArray, "__getitem__", _get_item(keeper, module.TArray.__getitem__))]


def _get_item(keeper: Keeper, real: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def get_item(array: Any, index: Any) -> Any:
        extras = getattr(getattr(here, "tx", None), "extras", None)
        if not isinstance(extras, Recorded) or here.tx.writes is None:
            return real(array, index)
        position = array._position(index)
        if position is None or not -array.size <= position < array.size:
            return real(array, index)
        position %= array.size
        versions = array._memory[:, 1]
        before = int(versions[position])
        value = real(array, index)
        version = int(versions[position])
        record = extras.record
        if version == before and not _has_written(extras.arrays, array._memory.ctypes.data + WIDTH * position):
            if record.elements is None:
                record.elements = {}
            element = Element(array, position)
            first = record.elements.setdefault(element, (value, version))
            if first[1] != version:
                text = f"it read {element!r} as {first[0]!r}, and then as {value!r}"
                keeper.suspect("unrepeatable read", text, record)
        return value

    return get_item


def _has_written(part: Any, address: int) -> bool:
    return part is not None and part.wrote() and address in _written(part)


def _words(part: Any, start: int, end: int) -> list[int]:
    """A part's buffer, of which the log says at these places where it starts and ends."""
    at, count = int(part.words[start // 8]), int(part.words[end // 8] - part.words[start // 8]) // 8
    return list((ctypes.c_int64 * count).from_address(at)) if count else []


def _written(part: Any) -> dict[int, int]:
    from stm.compiled.log import WRITES, WRITES_END

    words = _words(part, WRITES, WRITES_END)
    return dict(zip(words[::2], words[1::2], strict=True))


def note_body(record: Record, part: Any) -> None:
    """The body has returned: note what it has written, and what it has read elsewhere than by `get_item`."""
    import numpy as np

    from stm.compiled.array import _from_words
    from stm.compiled.log import MOMENT, READS, READS_END

    places = [(array._memory.ctypes.data, array) for array in part.arrays]

    def element(address: int) -> Element | None:
        for start, array in places:
            if 0 <= address - start < WIDTH * array.size:
                return Element(array, (address - start) // WIDTH)
        return None  # of an array that other compiled code refers to

    elements = record.elements = {} if record.elements is None else record.elements
    moment = int(part.words[MOMENT // 8])
    for address in _words(part, READS, READS_END):
        one = element(address)
        if one is not None and one not in elements:
            value, version = one.array._memory[one.position].tolist()
            if version <= moment:
                elements[one] = (_from_words(np.array([value]), one.array.dtype).tolist()[0], version)
    for address, word in _written(part).items():
        one = element(address)
        if one is not None:
            if record.puts is None:
                record.puts = {}
            record.puts[one] = _from_words(np.array([word]), one.array.dtype).tolist()[0]


def note_commit(record: Record, part: Any) -> None:
    """It has committed: note the version of what it wrote."""
    from stm.compiled.log import FLAGS, STEP, WORD

    if record.puts:
        record.stamp = (int(part.words[WORD // 8]) & ~FLAGS) + STEP


def add_to(graph: Graph, records: Sequence[Record]) -> None:
    """Add the edges. The records are the graph's first nodes."""
    writers: dict[Element, dict[int, int]] = {}
    stamps: dict[int, int] = {}
    for node, record in enumerate(records):
        if record.stamp is not None:
            if stamps.setdefault(record.stamp, node) != node:
                text = f"two commits to arrays have version {record.stamp}"
                graph.fault("version", text, stamps[record.stamp], node)
            for element in record.puts or ():
                writers.setdefault(element, {})[record.stamp] = node
    order = {element: sorted(found) for element, found in writers.items()}
    for element, versions in order.items():
        found = writers[element]
        for earlier, later in pairwise(versions):
            graph.add(found[earlier], found[later], WW, element)
    for node, record in enumerate(records):
        for element, (_, version) in (record.elements or {}).items():
            if element not in writers:
                continue
            found, versions = writers[element], order[element]
            if version in found:
                graph.add(found[version], node, WR, element)
            place = bisect_right(versions, version)
            if place < len(versions):
                graph.add(node, found[versions[place]], RW, element)
                if found[versions[place]] == node and place + 1 < len(versions):
                    graph.add(node, found[versions[place + 1]], RW, element)
