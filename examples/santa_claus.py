"""The Santa Claus problem: groups that form, go in and come out together, and some that go first.

    python -m examples.santa_claus                     ten Christmases, with five consultations before each
    python -m examples.santa_claus --christmases 50 --elves 30 --consultations 0

The problem
-----------
Santa sleeps until either all nine reindeer are back from their holidays, or three of his elves want to consult him. If
it is the reindeer, he harnesses them, delivers toys and unharnesses them; if it is elves, he shows three of them into
his study and out again. If both wait when he wakes up, the reindeer go first. An elf that comes while three others are
inside must not slip in among them. With semaphores this is so hard that the first published solution was wrong (see
Ben-Ari, "How to Solve the Santa Claus Problem", 1998).

What it shows
-------------
- *Choice.* Santa waits for `or_else(reindeer.take, elves.take)`: the first group that is complete, and the reindeer if
  both are. Neither group knows of the other, nor of him.
- *A group is one value.* Its last member, the gates that it will go through, and the fresh group that takes its place
  are one transaction each; so a group has nine or three members, never a tenth that goes with the next.
- *Gates.* A gate is a `TSemaphore` without permits. Santa gives as many as the group has members, and waits until all
  are used: by then everybody is through, and nobody else had permits to pass. To pass and to appear in the study are
  one transaction, and so are to pass, to leave it and to be counted.
- *Anything may be interrupted.* Whoever waits, for whatever, waits for `or_else(closing_time, that)`.

The reindeer's holidays last until a number of consultations have taken place since the last Christmas. (With none,
they are nearly always back before Santa is, and then elves wait for a long time, as is asked for.)

What is checked: in each transaction that passes a gate, that only one group is in the study, and whole or part of it as
it should be; when Santa chooses elves, that the reindeer are not all there; in the end, that all the counts agree. The
program ends with code 1 if any of it is broken.

Sources: J. A. Trono, "A New Exercise in Concurrency", SIGCSE Bulletin 26, 1994; the structure of this solution,
S. Peyton Jones, "Beautiful Concurrency", in "Beautiful Code", 2007.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final, NoReturn, TypeVar

from stm import TEvent, TMap, TSemaphore, TVar, atomically, check, or_else, run

R = TypeVar("R")

REINDEER: Final = ("Dasher", "Dancer", "Prancer", "Vixen", "Comet", "Cupid", "Donner", "Blitzen", "Rudolph")


class Broken(Exception):
    """What must never happen has happened."""


class WorkshopClosed(Exception):
    """Everybody goes home."""


@dataclass(frozen=True, slots=True)
class Group:
    """Those who will see Santa together, and the gates that they go through."""

    kind: str
    size: int
    entry: TSemaphore
    exit: TSemaphore
    members: tuple[str, ...] = ()

    @staticmethod
    def empty(kind: str, size: int) -> Group:
        return Group(kind, size, TSemaphore(0, name=f"{kind}: in"), TSemaphore(0, name=f"{kind}: out"))

    @property
    def complete(self) -> bool:
        return len(self.members) == self.size


class Queue:
    """Where one kind of visitors gathers, a group at a time."""

    def __init__(self, kind: str, size: int) -> None:
        self._group = TVar(Group.empty(kind, size), name=kind)

    @atomically
    def join(self, name: str) -> Group:
        """Become a member of the group that gathers, as soon as there is room. The group as it then is."""
        group = self._group.value
        check(not group.complete)
        self._group.value = replace(group, members=(*group.members, name))
        return self._group.value

    @atomically
    def take(self) -> Group:
        """Wait for a complete group, and let the next one gather."""
        group = self._group.value
        check(group.complete)
        self._group.value = Group.empty(group.kind, group.size)
        return group

    @property
    def complete(self) -> bool:
        return self._group.value.complete


class Workshop:
    """Santa's house: two queues, his study, and what has been done so far."""

    def __init__(self, reindeer: int = len(REINDEER), elves: int = 3) -> None:
        self.reindeer = Queue("reindeer", reindeer)
        self.elves = Queue("elves", elves)
        self.closed = TEvent(name="closed")
        self.study: TVar[tuple[str, ...]] = TVar((), name="study")
        #: How often each has seen Santa.
        self.visits: TMap[str, int] = TMap()
        self.christmases = TVar(0, name="Christmases")
        self.consultations = TVar(0, name="consultations")

    def unless_closed(self, action: Callable[[], R]) -> R:
        """Do it, however long one has to wait for it; `WorkshopClosed` if the workshop closes first."""
        return run(lambda: or_else(self._closing_time, action))

    def _closing_time(self) -> NoReturn:
        self.closed.wait()
        raise WorkshopClosed

    # The visitors'.

    def visit(self, queue: Queue, name: str) -> None:
        """Come to see Santa, and leave again."""
        group = self.unless_closed(lambda: queue.join(name))
        self.unless_closed(lambda: self._enter(group, name))
        self.unless_closed(lambda: self._leave(group, name))

    def _enter(self, group: Group, name: str) -> None:
        group.entry.acquire()
        self.study.value = (*self.study.value, name)
        if len(self.study.value) > group.size:
            raise Broken(f"{name} enters the study as one of {group.size}, and finds {self.study.value}")

    def _leave(self, group: Group, name: str) -> None:
        group.exit.acquire()
        inside = self.study.value
        if inside.count(name) != 1:
            raise Broken(f"{name} leaves the study, in which are {inside}")
        self.study.value = tuple(one for one in inside if one != name)
        self.visits[name] = self.visits.get(name, 0) + 1

    # Santa's.

    @atomically
    def next_group(self) -> Group:
        """Wait for a complete group; if both are complete, the reindeer."""
        group = or_else(self.reindeer.take, self.elves.take)
        if group.kind == "elves" and self.reindeer.complete:
            raise Broken("Santa turned to the elves although all reindeer were back")
        return group

    def receive(self, group: Group) -> None:
        """Let a group in, see to it, and let it out."""
        self._operate(group, group.entry)
        inside = self.study.value
        if sorted(inside) != sorted(group.members):
            raise Broken(f"{group.members} were to come in, {inside} did")
        done = self.christmases if group.kind == "reindeer" else self.consultations
        done.update(lambda number: number + 1)
        self._operate(group, group.exit)
        if self.study.value:
            raise Broken(f"{self.study.value} stay in the study after the others have left")

    def _operate(self, group: Group, gate: TSemaphore) -> None:
        """Open a gate, and wait until all the group has passed."""
        gate.release(group.size)
        self.unless_closed(lambda: check(gate.value == 0))

    def holidays(self, christmas: int, consultations: int) -> None:
        """Wait until there have been so many consultations before each Christmas, the next one too."""
        self.unless_closed(lambda: check(self.consultations.value >= (christmas + 1) * consultations))


# ---------------------------------------------------------------------------------------------------------- the threads


def santa(workshop: Workshop, christmases: int) -> list[Group]:
    """Work until so many Christmases are over. The groups that came, in order."""
    groups: list[Group] = []
    while workshop.christmases.value < christmases:
        groups.append(workshop.unless_closed(workshop.next_group))
        workshop.receive(groups[-1])
    return groups


def reindeer(workshop: Workshop, name: str, consultations: int) -> None:
    while True:
        workshop.holidays(workshop.christmases.value, consultations)
        workshop.visit(workshop.reindeer, name)


def elf(workshop: Workshop, name: str) -> None:
    while True:
        workshop.visit(workshop.elves, name)


def play(workshop: Workshop, christmases: int, elves: Sequence[str], consultations: int) -> list[Group]:
    """All of it. Returns the groups that Santa saw; `Broken` if what must not happen happens."""

    def until_closed(part: Callable[..., None], *args: object) -> None:
        try:
            part(workshop, *args)
        except WorkshopClosed:
            return
        finally:
            workshop.closed.set()  # if one fails, all go home

    with ThreadPoolExecutor(len(REINDEER) + len(elves)) as pool:
        try:
            visitors = [pool.submit(until_closed, reindeer, name, consultations) for name in REINDEER]
            visitors += [pool.submit(until_closed, elf, name) for name in elves]
            try:
                groups = santa(workshop, christmases)
            except WorkshopClosed:
                groups = []  # somebody failed, as the next lines will tell
        finally:
            workshop.closed.set()
        for visitor in visitors:
            visitor.result()
    return groups


def faults(workshop: Workshop, groups: Sequence[Group]) -> list[str]:
    """What doesn't add up once all is over, in words."""
    wrong = []
    for group in groups:
        alike = all((name in REINDEER) is (group.kind == "reindeer") for name in group.members)
        if not alike or len(set(group.members)) != group.size:
            wrong.append(f"a group of {group.size} {group.kind} had the members {group.members}")
    met = Counter(name for group in groups for name in group.members)
    if met != Counter(dict(workshop.visits)):
        wrong.append(f"Santa saw {dict(met)}, but they count {dict(workshop.visits)}")
    kinds = Counter(group.kind for group in groups)
    if (kinds["reindeer"], kinds["elves"]) != (workshop.christmases.value, workshop.consultations.value):
        wrong.append(f"{workshop.christmases}, {workshop.consultations}, but the groups were {dict(kinds)}")
    return wrong


# ---------------------------------------------------------------------------------------------------------- the program


def report(workshop: Workshop, groups: Sequence[Group], seconds: float) -> None:
    kinds = [group.kind for group in groups]
    print(f"{kinds.count('reindeer'):,} Christmases and {kinds.count('elves'):,} consultations in {seconds:.2f} s")
    print("  the first groups:")
    for group in (*groups[:3], groups[kinds.index("reindeer")]):
        print(f"    {group.kind:<10}{', '.join(group.members)}")
    elves = sorted(count for name, count in workshop.visits.items() if name not in REINDEER)
    if elves:
        print(f"  the elves were in the study from {elves[0]:,} to {elves[-1]:,} times each")
    print("No group was mixed or incomplete, and no elf went before reindeer that were all there.")


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")  # one line; argparse would put the usage before it


def whole(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"a whole number from {least} to {most:,}, not {text!r}")
        return int(text)

    return number


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="santa_claus", description="Nine reindeer or three elves, and the reindeer first.")
    add = parser.add_argument
    add("--christmases", type=whole(1, 100_000), default=10, metavar="N", help="default: %(default)s")
    add("--elves", type=whole(3, 300), default=10, metavar="N", help="default: %(default)s")
    add(
        "--consultations",
        type=whole(0, 10_000),
        default=5,
        metavar="N",
        help="before the reindeer come back (default: %(default)s)",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with these arguments (default: the command line's). Returns the exit code."""
    options = arguments(argv)
    workshop = Workshop()
    begun = time.perf_counter()
    try:
        elves = [f"elf {number + 1}" for number in range(options.elves)]
        groups = play(workshop, options.christmases, elves, options.consultations)
    except Broken as broken:
        print(f"BROKEN: {broken}")
        return 1
    except KeyboardInterrupt:
        print("santa_claus: interrupted", file=sys.stderr)
        return 130
    wrong = faults(workshop, groups)
    for each in wrong:
        print(f"BROKEN: {each}")
    if not wrong:
        report(workshop, groups, time.perf_counter() - begun)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
