"""Histories told by values: who wrote a value is known if nobody else writes the same one to the same key.

That says less than cells do: which of two values came first is known only if the writer of the one had read the other,
or if nobody wrote the other. What is not known gives no edge; so an anomaly that is found is one, but some may be
missed. Programs that read what they replace hide nothing.

Source: Kingsbury and Alvaro, "Elle: Inferring Isolation Anomalies from Experimental Observations", 2020, section 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stm.testing._opacity import LONG_AGO, NEVER, RW, WR, WW, Access, Attempt, Graph, Outcome


class Told:
    """One attempt, as somebody told it."""

    __slots__ = ("began", "ended", "name", "outcome", "reads", "thread", "writes")

    def __init__(
        self,
        reads: Mapping[Any, Any],
        writes: Mapping[Any, Any],
        name: str | None,
        thread: str,
        began: int,
        ended: int,
        outcome: Outcome,
    ) -> None:
        self.reads = dict(reads)
        self.writes = dict(writes)
        self.name = name
        self.thread = thread
        self.began = began
        self.ended = ended
        self.outcome = outcome

    def without_own(self) -> Told:
        """The same without reads of what it wrote itself."""
        reads, writes = self.reads, self.writes
        own = [key for key, value in reads.items() if key in writes and writes[key] == value]
        if not own:
            return self
        rest = {key: value for key, value in reads.items() if key not in own}
        return Told(rest, writes, self.name, self.thread, self.began, self.ended, self.outcome)

    def attempt(self) -> Attempt:
        return Attempt(
            self.thread,
            self.name,
            self.outcome,
            None if self.began == LONG_AGO else self.began,
            None if self.ended == NEVER else self.ended,
            tuple(Access(key, value) for key, value in self.reads.items()),
            tuple(Access(key, value) for key, value in self.writes.items()),
        )


def add_to(graph: Graph, told: Sequence[Told], first: int) -> None:
    """Add edges and faults. The attempts are the graph's nodes from `first` on."""
    writer: dict[tuple[Any, Any], int] = {}
    discarded: dict[tuple[Any, Any], int] = {}
    heirs: dict[tuple[Any, Any], list[int]] = {}
    blind: dict[Any, list[int]] = {}
    # (What an attempt read after it had written there itself says nothing.)
    told = [one.without_own() for one in told]
    seen = {(key, value) for one in told for key, value in one.reads.items()}
    for node, one in enumerate(told, first):
        takes_effect = one.outcome == "committed" or (
            one.outcome == "unknown" and any(item in seen for item in one.writes.items())
        )
        for key, value in one.writes.items():
            if not takes_effect:
                discarded[key, value] = node
                continue
            writer[key, value] = node
            if key in one.reads:
                heirs.setdefault((key, one.reads[key]), []).append(node)
            else:
                blind.setdefault(key, []).append(node)
    oldest: dict[Any, Any] = {}
    groups: dict[Any, int] = {}
    for node, one in enumerate(told, first):
        for key, value in one.reads.items():
            known = writer.get((key, value))
            if known is not None:
                graph.add(known, node, WR, key)
                if key in one.writes:
                    graph.add(known, node, WW, key)
            elif (key, value) in discarded:
                text = f"1 read {key!r} = {value!r}, which 2 wrote, and did not commit"
                graph.fault("G1a", text, node, discarded[key, value])
            elif oldest.setdefault(key, value) != value:
                graph.fault("G1a", f"{key!r} was both {oldest[key]!r} and {value!r}, and nobody wrote either", node)
            elif key in blind:
                if key not in groups:
                    group = groups[key] = graph.group()
                    for other in blind[key]:
                        graph.add(group, other, RW, key)
                graph.add(node, groups[key], RW, key)
            for other in heirs.get((key, value), ()):
                graph.add(node, other, RW, key)
