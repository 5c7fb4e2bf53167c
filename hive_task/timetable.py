"""What timers wait for, and in which order: immutable records, and pure functions that decide what is due.

A `Timetable` has two `Timeline`s, one for each clock that timers follow: the monotonic one, and the wall clock, which
may jump. Each finds its earliest entry at once, adds or removes one in O(log n), and shares everything else with the
version before. Nothing here knows of threads, transactions or the time: whoever asks says what time it is.

How: a leftist heap of numbers and times, and a `PMap` from the numbers to the entries. An entry that is removed from
the middle leaves its node in the heap, as a number that leads nowhere; the heap is built anew when there are more of
these than of others, so that removing costs O(log n) on average.

Source: Clark A. Crane, "Linear Lists and Priority Queues as Balanced Binary Trees", 1972, as in Chris Okasaki, "Purely
Functional Data Structures", 1998, section 3.1.

>>> line = Timeline().including(Entry(1, 30.0, "tea")).including(Entry(2, 10.0, "milk"))
>>> table = Timetable(monotonic=line)
>>> table.due(now=9.0, wall=0.0), table.due(now=12.0, wall=0.0), table.rest(now=9.0, wall=0.0)
(None, Entry(number=2, time=10.0, what='milk'), 1.0)
>>> line.excluding(2).first
Entry(number=1, time=30.0, what='tea')
>>> next_beat(100.0, 5.0, 112.5), next_beat(100.0, 5.0, 115.0)
(115.0, 120.0)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from pyrsistent import PMap, pmap

#: Seconds after which to look at the wall clock again, in case that it was set.
RECHECK = 1.0

#: Nodes that lead nowhere which are not worth a new heap.
FEW = 32


@dataclass(frozen=True, slots=True)
class Entry:
    """`what` is due at `time`, seconds on some clock. `number` is its identity."""

    number: int
    time: float
    what: Any


NO_ENTRIES: PMap[int, Entry] = pmap()


class Node(NamedTuple):
    """A node of a leftist heap: no earlier node is below it, and on its right are no more levels than on its left."""

    rank: int
    time: float
    number: int
    left: Node | None
    right: Node | None


def merged(a: Node | None, b: Node | None) -> Node | None:
    """One heap of two. It goes down the right sides alone, which are logarithmic."""
    if a is None:
        return b
    if b is None:
        return a
    if (b.time, b.number) < (a.time, a.number):
        a, b = b, a
    left, right = a.left, merged(a.right, b)
    if left is None or (right is not None and left.rank < right.rank):
        left, right = right, left
    return Node(1 if right is None else right.rank + 1, a.time, a.number, left, right)


@dataclass(frozen=True, slots=True)
class Timeline:
    """Entries by time; those of the same time in the order of their numbers."""

    entries: PMap[int, Entry] = NO_ENTRIES
    heap: Node | None = None  # its top leads to an entry, if there is one
    nodes: int = 0

    @property
    def first(self) -> Entry | None:
        """The earliest."""
        return None if self.heap is None else self.entries[self.heap.number]

    def including(self, entry: Entry) -> Timeline:
        """With this entry, whose number is new."""
        heap = merged(self.heap, Node(1, entry.time, entry.number, None, None))
        return Timeline(self.entries.set(entry.number, entry), heap, self.nodes + 1)

    def excluding(self, number: int) -> Timeline:
        """Without the entry of that number, if there is one."""
        entries = self.entries.discard(number)
        if entries is self.entries:
            return self
        if self.nodes > 2 * len(entries) + FEW:
            heap = None
            for entry in entries.values():
                heap = merged(heap, Node(1, entry.time, entry.number, None, None))
            return Timeline(entries, heap, len(entries))
        heap, nodes = self.heap, self.nodes
        while heap is not None and heap.number not in entries:
            heap, nodes = merged(heap.left, heap.right), nodes - 1
        return Timeline(entries, heap, nodes)


@dataclass(frozen=True, slots=True)
class Timetable:
    """Everything that timers wait for. `numbers`: how many entries there ever were."""

    monotonic: Timeline = Timeline()
    wall: Timeline = Timeline()
    numbers: int = 0

    def __len__(self) -> int:
        return len(self.monotonic.entries) + len(self.wall.entries)

    def including(self, time: float, what: Any, absolute: bool) -> tuple[Timetable, int]:
        """With a new entry, whose number is the second result. `absolute`: `time` is on the wall clock."""
        number = self.numbers + 1
        entry = Entry(number, time, what)
        if absolute:
            return Timetable(self.monotonic, self.wall.including(entry), number), number
        return Timetable(self.monotonic.including(entry), self.wall, number), number

    def excluding(self, number: int) -> Timetable:
        """Without that entry, if it is there."""
        return replace(self, monotonic=self.monotonic.excluding(number), wall=self.wall.excluding(number))

    def due(self, now: float, wall: float) -> Entry | None:
        """What is due at these times of the two clocks: the longest overdue, if there are several."""
        found = None
        for entry, time in ((self.monotonic.first, now), (self.wall.first, wall)):
            if entry is not None and entry.time <= time:
                lateness = time - entry.time
                if found is None or lateness > found[0]:
                    found = lateness, entry
        return None if found is None else found[1]

    def rest(self, now: float, wall: float) -> float:
        """Seconds after which to look again while nothing is due; `RECHECK` at most if one is on the wall clock."""
        waits = [math.inf]
        if self.monotonic.first is not None:
            waits.append(self.monotonic.first.time - now)
        if self.wall.first is not None:
            waits += (self.wall.first.time - wall, RECHECK)
        return max(0.0, min(waits))


def next_beat(first: float, interval: float, now: float) -> float:
    """The earliest of the times `first`, `first + interval`, `first + 2 * interval`, ... that is after `now`."""
    n = max(0, math.floor((now - first) / interval))
    for candidate in (n, n + 1, n + 2):
        if (time := first + candidate * interval) > now:
            return time
    return math.nextafter(now, math.inf)  # the interval is lost in the precision of so great numbers
