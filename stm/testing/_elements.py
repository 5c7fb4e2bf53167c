"""Histories of compiled transactions, in columns: a million rows in seconds.

Rows run in machine code, where nobody can look on. So they tell what they did by values, as in `_values.py`: each row
writes values that no other row writes to the same element, and returns what it read. Edges are found by sorting whole
columns at once, and the search for a cycle is compiled. Only a cycle that was found is looked at one by one.

A call of `.map` has one beginning and one end for all its rows.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from stm.testing._opacity import (
    LONG_AGO,
    NEVER,
    RT,
    RW,
    WR,
    Access,
    Attempt,
    Fault,
    Graph,
    explain,
    explain_fault,
)

Ints = npt.NDArray[np.int64]


class Batch:
    """The rows of one call. Columns have one line for each row, and a column for each element it read or wrote."""

    __slots__ = ("began", "dtype", "ended", "name", "read_keys", "read_values", "rows", "write_keys", "write_values")

    def __init__(self, reads: Any, writes: Any, name: str | None, began: int, ended: int) -> None:
        self.read_keys, self.read_values, kind = _columns("reads", reads)
        self.write_keys, self.write_values, other = _columns("writes", writes)
        if kind != other:
            raise TypeError(f"values that were read are {kind}, and those that were written {other}")
        if len(self.read_keys) != len(self.write_keys):
            raise ValueError(f"reads has {len(self.read_keys)} rows, and writes has {len(self.write_keys)}")
        self.rows = len(self.read_keys)
        self.dtype = kind
        self.name = name
        self.began = began
        self.ended = ended

    def attempt(self, row: int) -> Attempt:
        return Attempt(
            f"row {row}",
            self.name,
            "committed",
            None if self.began == LONG_AGO else self.began,
            None if self.ended == NEVER else self.ended,
            self._accesses(self.read_keys[row], self.read_values[row]),
            self._accesses(self.write_keys[row], self.write_values[row]),
        )

    def _accesses(self, keys: Ints, values: Ints) -> tuple[Access, ...]:
        shown = values.view(self.dtype)
        return tuple(Access(key, value) for key, value in zip(keys.tolist(), shown.tolist(), strict=True))


def _columns(what: str, pair: Any) -> tuple[Ints, Ints, Any]:
    """Keys and values as words, each with a line for each row."""
    try:
        keys, values = pair
    except (TypeError, ValueError):
        raise TypeError(f"{what} is a pair of arrays, the elements' numbers and their values") from None
    keys, values = np.asarray(keys), np.asarray(values)
    if keys.dtype.kind not in "iu":
        raise TypeError(f"{what}: elements are numbered by integers, not by {keys.dtype}")
    if values.dtype.kind not in "if":
        raise TypeError(f"{what}: values are integers or floats, not {values.dtype}")
    if keys.shape != values.shape or keys.ndim not in (1, 2):
        raise ValueError(
            f"{what}: keys and values have the same shape, (rows,) or (rows, elements), not {keys.shape} and "
            f"{values.shape}"
        )
    values = values.astype(np.int64 if values.dtype.kind == "i" else np.float64)
    lines = (len(keys), -1) if keys.size else (len(keys), 0)
    words = np.ascontiguousarray(values.reshape(lines)).view(np.int64)
    return keys.astype(np.int64).reshape(lines), words, values.dtype


def check(batches: list[Batch]) -> None:
    """`NotOpaque` if the rows of these calls can't be explained; `ValueError` if two of them wrote the same value."""
    if batches:
        _Check(batches).run()


class _Check:
    def __init__(self, batches: list[Batch]) -> None:
        self.batches = batches
        self.firsts = np.cumsum([0] + [batch.rows for batch in batches])
        self.rows = int(self.firsts[-1])
        self.nodes = self.rows
        self.sources: list[Ints] = []
        self.targets: list[Ints] = []
        self.kinds: list[int] = []
        self.keys: list[Ints | int] = []

    def run(self) -> None:
        if not self.rows:
            return
        self._add_edges()
        self._add_real_time()
        sources, targets = np.concatenate(self.sources), np.concatenate(self.targets)
        left = _cyclic(sources, targets, self.nodes)
        if left.any():
            self._explain(sources, targets, left)

    def attempt(self, row: int) -> Attempt:
        number = int(np.searchsorted(self.firsts, row, side="right")) - 1
        attempt = self.batches[number].attempt(row - int(self.firsts[number]))
        where = "" if len(self.batches) == 1 else f" of call {number}"
        return Attempt(
            attempt.thread + where,
            attempt.name,
            "committed",
            attempt.began,
            attempt.ended,
            attempt.reads,
            attempt.writes,
        )

    def _add(self, sources: Ints, targets: Ints, kind: int, keys: Ints | int) -> None:
        apart = sources != targets
        self.sources.append(sources[apart])
        self.targets.append(targets[apart])
        self.kinds.append(kind)
        self.keys.append(keys if isinstance(keys, int) else keys[apart])

    def _column(self, of: str) -> tuple[Ints, Ints, Ints]:
        """Rows, keys and values of all reads or writes."""
        rows = [
            np.repeat(np.arange(first, first + batch.rows), getattr(batch, of + "_keys").shape[1])
            for first, batch in zip(self.firsts.tolist(), self.batches, strict=False)
        ]
        keys = [getattr(batch, of + "_keys").ravel() for batch in self.batches]
        values = [getattr(batch, of + "_values").ravel() for batch in self.batches]
        return np.concatenate(rows), np.concatenate(keys), np.concatenate(values)

    def _add_edges(self) -> None:
        reader, read_key, read_value = self._column("read")
        writer, write_key, write_value = self._column("write")
        # A *version* is a pair of a key and a value, and each gets a number.
        numbers = _numbers(np.concatenate((read_key, write_key)), np.concatenate((read_value, write_value)))
        seen, made = numbers[: len(reader)], numbers[len(reader) :]
        versions = int(numbers.max(initial=-1)) + 1
        author = np.full(versions, -1, np.int64)
        author[made] = writer
        clash = np.flatnonzero(author[made] != writer)
        if len(clash):
            self._refuse(int(writer[clash[0]]), int(author[made[clash[0]]]), int(write_key[clash[0]]))
        by = author[seen]
        others = by != reader  # what a row read after it had written there itself says nothing
        seen, reader, read_key, by = seen[others], reader[others], read_key[others], by[others]
        written = by >= 0
        self._add(by[written], reader[written], WR, read_key[written])
        self._look_at_oldest(seen, reader, read_key, ~written)
        # The heirs of a version: rows that read it, and wrote to the same key.
        replaces = self._both("read", "write")[others]
        self._add_heirs(seen, reader, read_key, *_distinct(seen[replaces], reader[replaces], self.rows), versions)
        # Who writes without having read comes after all that read what was there at first.
        blind = ~self._both("write", "read")
        if blind.any() and not written.all():
            keys = np.unique(write_key[blind])
            groups = self.nodes + np.arange(len(keys))
            self.nodes += len(keys)
            self._add(groups[np.searchsorted(keys, write_key[blind])], writer[blind], RW, write_key[blind])
            at = np.searchsorted(keys, read_key).clip(max=len(keys) - 1)
            first = ~written & (keys[at] == read_key)
            self._add(reader[first], groups[at[first]], RW, read_key[first])

    def _both(self, of: str, other: str) -> Any:
        """Which of all reads (or writes) are of a key that the same row also writes (or reads)."""
        masks = []
        for batch in self.batches:
            keys, others = getattr(batch, of + "_keys"), getattr(batch, other + "_keys")
            mask = np.zeros(keys.shape, np.bool_)
            for column in range(others.shape[1]):
                mask |= keys == others[:, column : column + 1]
            masks.append(mask.ravel())
        return np.concatenate(masks)

    def _add_heirs(self, seen: Ints, reader: Ints, read_key: Ints, version: Ints, heir: Ints, versions: int) -> None:
        found = np.bincount(version, minlength=versions)
        start = (np.cumsum(found) - found)[seen]
        # (Two heirs of one version are a cycle by themselves. So more of them need not be looked at.)
        count = np.minimum(found[seen], 2)
        nth = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
        self._add(np.repeat(reader, count), heir[np.repeat(start, count) + nth], RW, np.repeat(read_key, count))

    def _look_at_oldest(self, seen: Ints, reader: Ints, read_key: Ints, unwritten: Any) -> None:
        """A key may have had one value before anybody wrote to it."""
        _, index = np.unique(seen[unwritten], return_index=True)
        keys = read_key[unwritten][index]
        found, times = np.unique(keys, return_counts=True)
        if (times > 1).any():
            key = int(found[times > 1][0])
            rows = reader[unwritten][index][keys == key][:2].tolist()
            text = f"element {key} had two values that nobody wrote"
            raise explain_fault(Fault("G1a", text, tuple(rows)), [self.attempt(row) for row in rows])

    def _refuse(self, one: int, other: int, key: int) -> None:
        raise ValueError(
            f"{self.attempt(one).thread} and {self.attempt(other).thread} wrote the same value to element {key}: "
            "who was read can only be told if no two rows do"
        )

    def _add_real_time(self) -> None:
        events = []
        for number, batch in enumerate(self.batches):
            if batch.began != LONG_AGO:
                events.append((batch.began, 0, number))
            if batch.ended != NEVER:
                events.append((batch.ended, 1, number))
        present = -1
        for _, ends, number in sorted(events):
            rows = np.arange(self.firsts[number], self.firsts[number + 1])
            if ends:
                group = np.full(len(rows), self.nodes)
                if present >= 0:
                    self._add(np.array([present]), np.array([self.nodes]), RT, -1)
                self._add(rows, group, RT, -1)
                present = self.nodes
                self.nodes += 1
            elif present >= 0:
                self._add(np.full(len(rows), present), rows, RT, -1)

    def _explain(self, sources: Ints, targets: Ints, left: Any) -> None:
        kinds = np.concatenate([np.full(len(s), kind) for s, kind in zip(self.sources, self.kinds, strict=True)])
        keys = np.concatenate(
            [np.full(len(s), k) if isinstance(k, int) else k for s, k in zip(self.sources, self.keys, strict=True)]
        )
        nodes = np.flatnonzero(left)
        inside = left[sources] & left[targets]
        graph = Graph(int((nodes < self.rows).sum()))
        for _ in range(len(nodes) - graph.size):
            graph.group()
        columns = (np.searchsorted(nodes, sources), np.searchsorted(nodes, targets), kinds, keys)
        for before, after, kind, key in zip(*(column[inside].tolist() for column in columns), strict=True):
            graph.add(before, after, kind, key)
        cycle = graph.cycle()
        assert cycle is not None
        raise explain(cycle, [self.attempt(int(nodes[node])) for node in cycle.nodes])


def _numbers(first: Ints, second: Ints) -> Ints:
    """A number for each pair, the same for equal pairs."""
    if not len(first):
        return np.zeros(0, np.int64)
    low, bottom = int(first.min()), int(second.min())
    wide, high = int(first.max()) - low + 1, int(second.max()) - bottom + 1
    if wide * high < 1 << 62:
        _, numbers = np.unique((first - low) * high + (second - bottom), return_inverse=True)
        return np.asarray(numbers, np.int64)
    order = np.lexsort((second, first))
    first, second = first[order], second[order]
    fresh = np.ones(len(order), np.int64)
    fresh[1:] = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
    numbers = np.empty(len(order), np.int64)
    numbers[order] = np.cumsum(fresh) - 1
    return numbers


def _distinct(versions: Ints, rows: Ints, count: int) -> tuple[Ints, Ints]:
    """Each pair once, in the order of versions. There are `count` rows."""
    pairs = np.unique(versions * count + rows)
    return pairs // count, pairs % count


def _cyclic(sources: Ints, targets: Ints, nodes: int) -> Any:
    """Which nodes lie on cycles, or between them."""
    peel = _compiled()
    left = np.ones(nodes, np.bool_)
    peel(sources, targets, left)
    if left.any():
        inside = left[sources] & left[targets]
        peel(targets[inside], sources[inside], left)
    return left


_found: Final[list[Any]] = []


def _compiled() -> Any:
    """`_peel` in machine code, made on first use: numba is no small thing to import."""
    if not _found:
        from numba import njit

        _found.append(njit(_peel))
    return _found[0]


def _peel(sources: Any, targets: Any, left: Any) -> None:
    """Take away, again and again, nodes that no edge leads to (Kahn, "Topological sorting", 1962)."""
    count = len(left)
    degree = np.zeros(count, np.int64)
    start = np.zeros(count + 2, np.int64)
    for k in range(len(sources)):
        degree[targets[k]] += 1
        start[sources[k] + 2] += 1
    for node in range(count):
        start[node + 2] += start[node + 1]
    following = np.empty(len(sources), np.int64)
    for k in range(len(sources)):
        following[start[sources[k] + 1]] = targets[k]
        start[sources[k] + 1] += 1
    free = np.empty(count, np.int64)
    top = 0
    for node in range(count):
        if left[node] and degree[node] == 0:
            free[top] = node
            top += 1
    while top > 0:
        top -= 1
        node = free[top]
        left[node] = False
        for k in range(start[node], start[node + 1]):
            degree[following[k]] -= 1
            if degree[following[k]] == 0:
                free[top] = following[k]
                top += 1
