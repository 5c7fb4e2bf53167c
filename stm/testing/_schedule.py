"""Which schedules there are, in which order they are tried, and how one is written down.

A *schedule* is the list of the threads that were picked, one for each step. Where nothing is said, the running thread
goes on; if it can't, or gives way, the next one in turn does. Every other pick is a *deviation*, and one that takes the
processor from a thread that could have gone on is a *preemption*.

The search is stateless: a program is run from its start for every schedule, and each run tells where it might have gone
another way. All schedules with no preemption come first, then those with one, and so on: most defects need one or two
(iterative context bounding: Musuvathi and Qadeer, PLDI 2007). Each schedule is tried once, because what is derived
from a run deviates from it only after the last deviation that it was itself derived by.

Cost: linear in the runs, and a few hundred bytes for each run whose offers have not been used up.

>>> encode(b"\\0\\0\\0\\1\\0"), decode("0*3,1,0")
('0*3,1,0', b'\\x00\\x00\\x00\\x01\\x00')
"""

from __future__ import annotations

import random
import re
from array import array
from collections import deque
from collections.abc import Iterator
from itertools import groupby
from typing import Final, NamedTuple

MOST_THREADS: Final = 16
#: In an offer: the bits of the threads that could have been picked instead, and whether that would have been a
#: preemption.
PREEMPTS: Final = 1 << MOST_THREADS

#: For a schedule of which nothing is known.
NOWHERE: Final = array("I")

_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_PART = re.compile(r"([0-9a-f])(?:\*([0-9a-z]{1,6}))?")


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits


def encode(picks: bytes) -> str:
    """A schedule as a short string: a thread's number, and how many steps in a row it took, in base 36."""
    parts = []
    for thread, steps in groupby(picks):
        count = sum(1 for _ in steps)
        parts.append(f"{thread:x}" if count == 1 else f"{thread:x}*{_base36(count)}")
    return ",".join(parts)


def decode(schedule: str) -> bytes:
    """The picks that a string stands for. `ValueError` if it is not a schedule."""
    if not isinstance(schedule, str):
        raise TypeError(f"schedule must be a string, as in ScheduleFailure.schedule, not {schedule!r}")
    picks = bytearray()
    for part in schedule.split(",") if schedule else ():
        match = _PART.fullmatch(part)
        if match is None:
            raise ValueError(f"schedule must look like '0*3,1,0', and {part!r} in {schedule!r} is no part of that")
        picks += bytes([int(match[1], 16)]) * int(match[2] or "1", 36)
    return bytes(picks)


class Node(NamedTuple):
    """A schedule to try: picks to follow, and where the run that they come from was at each of these steps."""

    picks: bytes
    places: array[int]


class _Offers:
    """What a run leaves to be tried: at each step after `start`, other threads."""

    __slots__ = ("offers", "picks", "places", "start")

    def __init__(self, picks: bytes, places: array[int], offers: array[int], start: int) -> None:
        self.picks = picks
        self.places = places
        self.offers = offers
        self.start = start

    def nodes(self, preempting: bool) -> Iterator[Node]:
        wanted = PREEMPTS if preempting else 0
        for index in range(self.start, len(self.offers)):
            offer = self.offers[index]
            if offer and offer & PREEMPTS == wanted:
                others = offer & (PREEMPTS - 1)
                while others:
                    lowest = others & -others
                    others ^= lowest
                    yield Node(self.picks[:index] + bytes([lowest.bit_length() - 1]), self.places)


class Search:
    """The schedules up to a number of preemptions. Take one from `next`, run it, and tell `ran` about it."""

    def __init__(self, preemptions: int) -> None:
        self._bound = preemptions
        self._level = 0
        self._stack: list[Iterator[Node]] = [iter([Node(b"", NOWHERE)])]
        self._later: deque[_Offers] = deque()
        self._now: deque[_Offers] = deque()

    def next(self) -> Node | None:
        """The next schedule, or None if there is none left."""
        while True:
            while self._stack:
                node = next(self._stack[-1], None)
                if node is not None:
                    return node
                self._stack.pop()
            if self._now:
                self._stack.append(self._now.popleft().nodes(preempting=True))
            elif self._later:
                self._level += 1
                self._now, self._later = self._later, deque()
            else:
                return None

    def ran(self, node: Node, picks: bytes, places: array[int], offers: array[int]) -> None:
        """What a run along `node` did, and could have done."""
        left = _Offers(picks, places, offers, len(node.picks))
        self._stack.append(left.nodes(preempting=False))
        if self._level < self._bound and any(offer & PREEMPTS for offer in offers[left.start :]):
            self._later.append(left)


class Priorities:
    """Picks at random: the thread of the highest priority runs, and at a few steps drawn at random it becomes the last.

    That finds a defect that needs `depth` orderings with probability 1 / (threads * steps ** (depth - 1)) at least,
    which a random walk does not (probabilistic concurrency testing: Burckhardt and others, ASPLOS 2010). Who gives way
    becomes the last, too.
    """

    def __init__(self, seed: str, threads: int, steps: int, depth: int) -> None:
        chance = random.Random(seed)
        self._order = list(range(threads))
        chance.shuffle(self._order)
        self._changes = {chance.randrange(max(1, steps)) for _ in range(depth - 1)}

    def pick(self, step: int, allowed: int, running: int, gives_way: bool) -> int:
        """One of the threads whose bits are set in `allowed`."""
        if gives_way or step in self._changes:
            self._order.remove(running)
            self._order.append(running)
        return next(one for one in self._order if allowed >> one & 1)
