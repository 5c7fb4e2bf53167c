"""From records of the object tier to the graph of who saw what.

A cell that was read leads to the commit that wrote it, and a cell that a commit replaced, to the commit before: by
identity. Versions are used for little: cells not newer than the window's base are older than all that was recorded; the
numbers must fit the order that identity tells; and where an exception or a signal handler came into the midst of a
commit, so that it is not known what it replaced, the numbers say that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from stm.clock import Cell
from stm.testing import _joined
from stm.testing._opacity import LONG_AGO, NEVER, RW, WR, WW, Access, Attempt, Graph, label
from stm.testing._records import NOTHING, Record


class Cells:
    """What the records of one window say. `names` are the threads of the records."""

    def __init__(self, records: Sequence[Record], names: Sequence[str], since: int, base: int) -> None:
        self.records: list[Record] = []
        self.names: list[str] = []
        self.base = base
        for record, name in zip(records, names, strict=True):
            # (An attempt that began before the window may have seen what the window knows nothing of. If it has
            # committed writes, it saw what was still there at its commit.)
            if record.outcome != NOTHING and (record.began >= since or record.after is not None):
                self.records.append(record)
                self.names.append(name)
        self.writer: dict[int, int] = {}
        self.heir: dict[int, int] = {}
        self.oldest: dict[Any, Cell] = {}
        #: Cells of which it is not known what they replaced.
        self.unplaced: list[tuple[Any, Cell, int]] = []
        self._by_value: dict[Any, list[int]] | None = None

    def __len__(self) -> int:
        return len(self.records)

    def attempt(self, node: int) -> Attempt:
        return attempt(self.records[node], self.names[node])

    def moments(self) -> list[tuple[int, int, int]]:
        return [(node, record.began, record.ended) for node, record in enumerate(self.records)]

    def add_to(self, graph: Graph) -> None:
        """Add the edges and the faults. The records are the graph's first nodes."""
        self._note_writers(graph)
        writer, heir, add = self.writer, self.heir, graph.add
        for node, record in enumerate(self.records):
            for variable, cell in record.reads.items():
                if cell.__class__ is not tuple:  # the part of an attempt that reads arrays
                    continue
                known = writer.get(id(cell))
                if known is None:
                    known = self._origin(graph, node, variable, cell, "G1a")
                if known == node:
                    graph.fault("G1c", f"it read {label(variable)} = {cell[0]!r}, which it wrote itself later", node)
                elif known is not None:
                    add(known, node, WR, variable)
                following = heir.get(id(cell))
                if following is not None:
                    add(node, following, RW, variable)
        for node, record in enumerate(self.records):
            if record.after is None or record.before is None:
                continue
            for variable, cell in zip(record.writes or (), record.before, strict=True):
                known = writer.get(id(cell))
                if known is None:
                    known = self._origin(graph, node, variable, cell, "dirty write")
                if known is not None:
                    add(known, node, WW, variable)
        if self.unplaced:
            self._place(graph)
        _joined.add_to(graph, self.records)

    def _note_writers(self, graph: Graph) -> None:
        versions: dict[int, int] = {}
        interrupted = []
        for node, record in enumerate(self.records):
            if record.after is None:
                continue
            if record.before is None:
                interrupted.append(node)
                continue
            version = self._note_cells(graph, node, versions)
            if version is None:
                continue
            for variable, cell in zip(record.writes or (), record.before, strict=True):
                if cell[1] >= version:
                    text = f"{label(variable)} had version {cell[1]} before version {version} was written"
                    graph.fault("version", text, node)
                if self.heir.setdefault(id(cell), node) != node:
                    text = f"both replaced version {cell[1]} of {label(variable)}"
                    graph.fault("lost version", text, self.heir[id(cell)], node)
        for node in interrupted:  # last, when it is known which cells are those of who interrupted
            self._note_cells(graph, node, versions)

    def _note_cells(self, graph: Graph, node: int, versions: dict[int, int]) -> int | None:
        """Note which cells a commit wrote; its version. Other cells are of who interrupted it."""
        record = self.records[node]
        version = None
        for (variable, value), cell in zip((record.writes or {}).items(), record.after or (), strict=True):
            if cell[0] is not value or (record.before is None and id(cell) in self.writer):
                continue
            self.writer[id(cell)] = node
            if record.before is None:
                self.unplaced.append((variable, cell, node))
            if version is None:
                version = cell[1]
                if versions.setdefault(version, node) != node:
                    graph.fault("version", f"two commits have version {version}", versions[version], node)
            elif version != cell[1]:
                graph.fault("version", f"one commit has the versions {version} and {cell[1]}", node)
        return version

    def _place(self, graph: Graph) -> None:
        """Put cells of which it is not known what they replaced after the newest that are older by their numbers."""
        seen: dict[Any, dict[int, Cell]] = {variable: {} for variable, _, _ in self.unplaced}
        readers: dict[int, list[int]] = {}
        for node, record in enumerate(self.records):
            for variable, cell in record.reads.items():
                if variable in seen:
                    seen[variable][cell[1]] = cell
                    readers.setdefault(id(cell), []).append(node)
            for cells in (record.before, record.after):
                for variable, cell in zip(record.writes or (), cells or ()):  # noqa: B905 - one may not be known
                    if variable in seen:
                        seen[variable][cell[1]] = cell
        for variable, cell, node in self.unplaced:
            older = [version for version in seen[variable] if version < cell[1]]
            if older:
                before = id(seen[variable][max(older)])
                if before in self.writer:
                    graph.add(self.writer[before], node, WW, variable)
                for reader in readers.get(before, ()):
                    graph.add(reader, node, RW, variable)

    def _origin(self, graph: Graph, node: int, variable: Any, cell: Cell, fault: str) -> int | None:
        """Who wrote a cell that no commit is known to have written; None if it was there before."""
        if cell[1] <= self.base:
            first = self.oldest.setdefault(variable, cell)
            if first is not cell:
                text = f"{label(variable)} was {first[0]!r} (version {first[1]}) and {cell[0]!r} (version {cell[1]})"
                graph.fault("two beginnings", text, node)
            return None
        if self._by_value is None:
            self._by_value = {}
            for other, record in enumerate(self.records):
                for written in record.writes or ():
                    self._by_value.setdefault(written, []).append(other)
        others = [
            other
            for other in self._by_value.get(variable, ())
            if self.records[other].writes[variable] is cell[0]  # type: ignore[index]
        ]
        lost = [other for other in others if self._is_lost(other, variable)]
        if len(lost) == 1:
            self.writer[id(cell)] = lost[0]
            self.unplaced.append((variable, cell, lost[0]))
        if lost:  # if there are several, it can't be said whose it is
            return self.writer.get(id(cell))
        others = [other for other in others if self.records[other].after is None]
        did = "replaced" if fault == "dirty write" else "read"
        text = f"1 {did} {label(variable)} = {cell[0]!r} (version {cell[1]}), which "
        if others:
            graph.fault(fault, text + "2 wrote, and did not commit", node, others[0])
        else:
            graph.fault(fault, text + "nobody recorded wrote", node)
        return None

    def _is_lost(self, node: int, variable: Any) -> bool:
        """Is it not known which cell this commit put into the variable, nor perhaps whether it came to that?"""
        record = self.records[node]
        if record.after is None:
            return record.outcome == "unknown"
        return self.writer.get(id(record.after[list(record.writes or ()).index(variable)])) != node


_OUTCOMES: Final = ("committed", "aborted", "retried", "raised", "unknown")


def attempt(record: Record, thread: str) -> Attempt:
    """A record as users see it."""
    reads = [Access(variable, cell[0], cell[1]) for variable, cell in record.reads.items() if cell.__class__ is tuple]
    reads += [Access(element, value, version) for element, (value, version) in (record.elements or {}).items()]
    after: Sequence[Cell | None] = record.after or [None] * len(record.writes or ())
    writes = [
        Access(variable, value, cell[1] if cell is not None and cell[0] is value else None)
        for (variable, value), cell in zip((record.writes or {}).items(), after, strict=True)
    ]
    writes += [Access(element, value, record.stamp) for element, value in (record.puts or {}).items()]
    outcome: Any = "committed" if record.after is not None else record.outcome
    assert outcome in _OUTCOMES
    return Attempt(
        thread,
        record.name,
        outcome,
        None if record.began == LONG_AGO else record.began,
        None if record.ended == NEVER else record.ended,
        tuple(reads),
        tuple(writes),
    )
