"""Is a history opaque? The graph of what attempts saw of each other, and the search for a cycle in it.

An attempt is a node. An edge says that one comes before another in whatever order explains the history:

- `ww`: it wrote a version that the other replaced;
- `wr`: it wrote what the other read;
- `rw`: it read a version that the other replaced (an *anti-dependency*);
- `rt`: it had ended before the other began (*real time*).

An attempt that did not commit has no writes, but what it read counts all the same. An order that explains everything
exists if and only if there is no cycle: then the history is opaque, which for its committed part means strictly
serialisable. Cycles have the names that Adya gave them: `G0` (`ww` alone), `G1c` (with `wr`), `G-single` (with one
`rw`: read skew, lost update) and `G2` (with more: write skew); `-realtime` is added if there is none without `rt`.

Cost: linear in reads, writes and attempts, but for sorting the moments at which attempts began and ended. Real time
takes one node more for each moment, not one edge for each pair. The search for a short cycle comes only if there is
one, and then tries so many of its nodes, `STARTS`, as beginnings.

Sources: Adya, "Weak Consistency", 1999, chapter 4; Guerraoui and Kapalka, "On the Correctness of Transactional Memory",
2008, section 5 (the opacity graph); Kingsbury and Alvaro, "Elle", 2020, from which the names `G-single` and
`-realtime` are.

>>> graph = Graph(2)
>>> graph.add(0, 1, WR, "x")
>>> graph.cycle() is None
True
>>> graph.add(1, 0, RW, "y")
>>> graph.cycle()
Cycle(name='G-single', nodes=(0, 1), edges=((1, 'x'), (2, 'y')))
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

WW: Final = 0
WR: Final = 1
RW: Final = 2
RT: Final = 3

#: From so many nodes of a graph with cycles the shortest cycle is sought.
STARTS: Final = 200

#: When an attempt began or ended of which that is not known.
LONG_AGO: Final = -(1 << 63)
NEVER: Final = (1 << 63) - 1

MEANINGS: Final = {
    "G0": "attempts overwrote each other in a circle",
    "G1c": "information flowed in a circle",
    "G-single": "one attempt missed a write of a history that it otherwise saw: read skew, or a lost update",
    "G2": "each read what another was about to replace: write skew, or a lost update",
    "realtime": "an attempt took no notice of one that had ended before it began",
    "G1a": "a value was read that no commit wrote",
    "dirty write": "a commit replaced what no commit wrote",
    "lost version": "two commits replaced the same version",
    "two beginnings": "a variable had two different values before anybody wrote to it",
    "version": "the versions do not fit the order in which they were written",
    "unrepeatable read": "an attempt read a variable twice, and two versions of it",
    "foreign value": "a read returned what the variable did not hold",
}

Outcome = Literal["committed", "aborted", "retried", "raised", "unknown"]


@dataclass(frozen=True, slots=True)
class Access:
    """One variable that an attempt read or wrote. `version` is None where versions are not known."""

    key: Any
    value: Any
    version: int | None = None

    def __str__(self) -> str:
        version = "" if self.version is None else f" (version {self.version})"
        return f"{label(self.key)} = {_short(self.value)}{version}"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of a transaction, as it was recorded.

    `began` and `ended` are moments on `time.perf_counter_ns`, or None if not known. `outcome` is `"committed"`;
    `"aborted"`, a conflict; `"retried"`, it called `retry()`; `"raised"`; or `"unknown"`, an exception came in the
    midst of its commit. `writes` of one that did not commit were never to be seen.
    """

    thread: str
    name: str | None
    outcome: Outcome
    began: int | None
    ended: int | None
    reads: tuple[Access, ...]
    writes: tuple[Access, ...]

    def __str__(self) -> str:
        name = "a transaction without a name" if self.name is None else repr(self.name)
        return f"{name} in {self.thread}, {self.outcome}"


class NotOpaque(AssertionError):
    """What was recorded can't be explained by attempts that ran one after the other. The message says why.

    `anomaly` is its name (see `stm/testing/_opacity.py`); `cycle` holds the attempts that each come before the next,
    the last one before the first, and `edges` says why: `"ww"`, `"wr"`, `"rw"` or `"rt"`, and the variable. An anomaly
    that is no cycle has its attempts in `cycle` too, and no edges.
    """

    __module__ = "stm.testing.history"  # where users find it

    def __init__(
        self,
        message: str,
        anomaly: str = "",
        cycle: tuple[Attempt, ...] = (),
        edges: tuple[tuple[str, Any], ...] = (),
    ) -> None:
        super().__init__(message)
        self.anomaly = anomaly
        self.cycle = cycle
        self.edges = edges


@dataclass(frozen=True, slots=True)
class Cycle:
    """Nodes that each come before the next, the last one before the first; `edges`: each one's kind and key."""

    name: str
    nodes: tuple[int, ...]
    edges: tuple[tuple[int, Any], ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is wrong without any cycle."""

    name: str
    text: str
    nodes: tuple[int, ...]


class Graph:
    """What comes before what. The nodes are `0 .. size - 1`; those that real time adds come after."""

    __slots__ = ("after", "faults", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.after: list[list[tuple[int, int, Any]]] = [[] for _ in range(size)]
        self.faults: list[Fault] = []

    def add(self, before: int, after: int, kind: int, key: Any) -> None:
        """One node comes before another one, which is nothing new if they are the same."""
        if before != after:
            self.after[before].append((after, kind, key))

    def fault(self, name: str, text: str, *nodes: int) -> None:
        self.faults.append(Fault(name, text, nodes))

    def group(self) -> int:
        """A node that is no attempt."""
        self.after.append([])
        return len(self.after) - 1

    def add_real_time(self, moments: Iterable[tuple[int, int, int]]) -> None:
        """Add `rt` edges for `(node, began, ended)`: from each one to all that began later than it ended.

        They lead through a chain of nodes, one for each run of ends without a beginning between.
        """
        events = []
        for node, began, ended in moments:
            if began != LONG_AGO:
                events.append((began, 0, node))  # at the same moment beginnings come first: that is no order
            if ended != NEVER:
                events.append((ended, 1, node))
        events.sort()
        after = self.after
        present = None
        open_ = False
        for _, ends, node in events:
            if ends:
                if not open_:
                    earlier, present = present, self.group()
                    if earlier is not None:
                        after[earlier].append((present, RT, None))
                    open_ = True
                assert present is not None
                after[node].append((present, RT, None))
            else:
                open_ = False
                if present is not None:
                    after[present].append((node, RT, None))

    def cycle(self) -> Cycle | None:
        """A shortest cycle, as simple in kind as there is one; None if there is no cycle."""
        rest = self._cyclic(range(len(self.after)), RT)
        if not rest:
            return None
        for most in (WW, WR, RW):
            core = self._cyclic(rest, most)
            if core:
                return self._shortest(core, most)
        return self._shortest(rest, RT)

    def _cyclic(self, nodes: Iterable[int], most: int) -> list[int]:
        """The nodes that lie on cycles of edges of kinds up to `most`, or between such cycles (Kahn, 1962)."""
        inside = dict.fromkeys(nodes, 0)
        edges = {node: [to for to, kind, _ in self.after[node] if kind <= most and to in inside] for node in inside}
        left = _peel(inside, edges)
        backwards: dict[int, list[int]] = {node: [] for node in left}
        for node in left:
            for to in edges[node]:
                if to in backwards:
                    backwards[to].append(node)
        return sorted(_peel(dict.fromkeys(left, 0), backwards))

    def _shortest(self, nodes: Sequence[int], most: int) -> Cycle:
        inside = set(nodes)
        attempts = [node for node in nodes if node < self.size]
        step = max(1, len(attempts) // STARTS)
        best: list[tuple[int, int, Any]] | None = None
        for start in attempts[::step]:
            found = self._around(start, inside, most)
            if found is not None and (best is None or _length(found, self.size) < _length(best, self.size)):
                best = found
                if _length(best, self.size) == 2:
                    break
        if best is None:  # none of those begins one
            for start in attempts:
                best = self._around(start, inside, most)
                if best is not None:
                    break
        assert best is not None
        return self._named(best)

    def _around(self, start: int, inside: set[int], most: int) -> list[tuple[int, int, Any]] | None:
        """A shortest way from `start` back to it, as `(node, kind, key)` of each edge's beginning and of the edge.

        Steps out of nodes that are no attempts cost nothing.
        """
        came: dict[int, tuple[int, int, Any]] = {}
        queue = deque([start])
        while queue:
            node = queue.popleft()
            for to, kind, key in self.after[node]:
                if kind > most or to not in inside or to in came:
                    continue
                came[to] = (node, kind, key)
                if to == start:
                    way = []
                    at = start
                    while True:
                        at, kind, key = came[at]
                        way.append((at, kind, key))
                        if at == start:
                            return way[::-1]
                if to < self.size:
                    queue.append(to)
                else:
                    queue.appendleft(to)
        return None

    def _named(self, way: list[tuple[int, int, Any]]) -> Cycle:
        """Without the nodes that are no attempts: an edge into one has the kind of the whole way through."""
        steps = [step for step in way if step[0] < self.size]
        kinds = [kind for _, kind, _ in steps]
        against = kinds.count(RW)
        name = "G0"
        if WR in kinds:
            name = "G1c"
        if against:
            name = "G-single" if against == 1 else "G2"
        if RT in kinds:
            name += "-realtime"
        return Cycle(name, tuple(node for node, _, _ in steps), tuple((kind, key) for _, kind, key in steps))


def _length(way: list[tuple[int, int, Any]], size: int) -> int:
    return sum(node < size for node, _, _ in way)


def _peel(degrees: dict[int, int], edges: dict[int, list[int]]) -> set[int]:
    """Take away, again and again, nodes that no edge leads to; what is left. `degrees` are zeros, and used up."""
    for node in degrees:
        for to in edges[node]:
            if to in degrees:
                degrees[to] += 1
    free = [node for node, degree in degrees.items() if not degree]
    left = set(degrees)
    left.difference_update(free)
    while free:
        for to in edges[free.pop()]:
            if to in left:
                degrees[to] -= 1
                if not degrees[to]:
                    left.discard(to)
                    free.append(to)
    return left


KINDS: Final = ("ww", "wr", "rw", "rt")


def explain(cycle: Cycle, attempts: Sequence[Attempt], faults: Sequence[Fault] = ()) -> NotOpaque:
    """The error that describes a cycle; `attempts` are those at its nodes, `faults` what else is wrong."""
    count = len(attempts)
    lines = [f"not opaque: {cycle.name}, {_meaning(cycle.name)}"]
    for place, (attempt, (kind, key)) in enumerate(zip(attempts, cycle.edges, strict=True), 1):
        following = place % count + 1
        lines += _described(place, attempt)
        lines.append(f"      {_reason(kind, key, attempt, following)}")
    if any(attempt.outcome not in ("committed", "unknown") for attempt in attempts):
        lines.append("  An attempt that did not commit must not see this either.")
    if faults:
        lines.append(f"  And {len(faults)} more: " + ", ".join(sorted({fault.name for fault in faults})))
    return NotOpaque(
        "\n".join(lines), cycle.name, tuple(attempts), tuple((KINDS[kind], key) for kind, key in cycle.edges)
    )


def explain_fault(fault: Fault, attempts: Sequence[Attempt]) -> NotOpaque:
    """The error that describes what is wrong without a cycle."""
    lines = [f"not opaque: {fault.name}, {_meaning(fault.name)}", f"  {fault.text}"]
    for place, attempt in enumerate(attempts, 1):
        lines += _described(place, attempt)
    return NotOpaque("\n".join(lines), fault.name, tuple(attempts))


def _meaning(name: str) -> str:
    return MEANINGS["realtime" if name.endswith("-realtime") else name]


def _described(place: int, attempt: Attempt) -> list[str]:
    lines = [f"  {place}. {attempt}"]
    for what, accesses in (("read ", attempt.reads), ("wrote", attempt.writes)):
        lines += [f"      {what} {access}" for access in accesses[:SHOWN]]
        if len(accesses) > SHOWN:
            lines.append(f"      {what} {len(accesses) - SHOWN} more")
    return lines


#: So many reads and writes of an attempt are listed in a message.
SHOWN: Final = 8


def _reason(kind: int, key: Any, attempt: Attempt, following: int) -> str:
    if kind == RT:
        return f"-rt-> {following}: it had ended before {following} began"
    accesses = attempt.reads if kind == RW else attempt.writes
    value = next((f" = {_short(access.value)}" for access in accesses if access.key == key), "")
    did = "read" if kind == RW else "wrote"
    then = "read" if kind == WR else "replaced"
    return f"-{KINDS[kind]}-> {following}: it {did} {label(key)}{value}, which {following} {then}"


def label(key: Any) -> str:
    """A variable in few words, without its present value."""
    if hasattr(key, "_cell") or hasattr(key, "_header"):
        name = getattr(key, "_name", None)
        kind = type(key).__name__
        return f"<{kind} at {id(key):#x}>" if name is None else f"<{kind} {name!r}>"
    return _short(key)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
