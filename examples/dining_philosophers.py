"""The dining philosophers: take two forks at once or none, and let whoever has waited longer go first.

    python -m examples.dining_philosophers                     five philosophers, 400 meals each
    python -m examples.dining_philosophers --rude              the same without courtesy: see who is passed over
    python -m examples.dining_philosophers --philosophers 20 --meals 50 --thinking 0.001

The problem
-----------
Philosophers sit around a table with a fork between each two of them, and each needs both forks beside him to eat. If
everybody takes the left fork and then waits for the right one, all starve. With locks one has to number the forks, or
to admit a waiter, and then nobody starves *together*; but a philosopher whose neighbours eat in turns may still starve
alone.

What it shows
-------------
- *All or nothing.* `Table.begin` takes two `TMVar`s in one transaction. If the second is not there, the first was never
  taken: no order of forks, no waiter, no deadlock.
- *A rule more is a line more.* The forks remember who used them last. Nobody takes a fork that he used last himself
  while the neighbour who shares it is hungry: one `check`. Who has just eaten gives way on both sides, so
  precedence never runs in a circle (at first, the lower seat has it), someone can always go on, and *while a
  philosopher is hungry, each of his neighbours begins at most one meal*. This is the dirty fork of Chandy and Misra,
  "The Drinking Philosophers Problem", 1984, without its messages.
- *Pictures.* The main thread sleeps until something changes at the table, and sees all of it at one moment, while the
  philosophers go on.

What is checked: inside each transaction that begins a meal, and in every picture, that no two neighbours eat; that each
fork is either on the table or in use by one; without `--rude`, that nobody is overtaken twice by the same neighbour.
The program ends with code 1 if any of it is broken.

Source: E. W. Dijkstra, "Hierarchical Ordering of Sequential Processes", 1971; the forks are Hoare's.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final, NoReturn

from stm import TEvent, TMVar, TVar, atomically, check

THINKING: Final = "thinking"
HUNGRY: Final = "hungry"
EATING: Final = "eating"
GONE: Final = "gone"


class Broken(Exception):
    """What must never happen has happened."""


class DinnerOver(Exception):
    """The table was closed."""


@dataclass(frozen=True, slots=True)
class Diner:
    """One philosopher. `overtaken`: the meals that his left and right neighbours began while he was hungry this time;
    `worst`: the most that either began in any of his waits.
    """

    name: str
    doing: str = HUNGRY
    meals: int = 0
    overtaken: tuple[int, int] = (0, 0)
    worst: int = 0


class Table:
    """A seat for each name. Seat `i` has fork `i` to its left, and the next one to its right."""

    def __init__(self, names: Sequence[str], *, courteous: bool = True) -> None:
        if len(names) < 2:
            raise ValueError(f"it takes two philosophers at least, not {len(names)}")
        self.courteous = courteous
        self.diners = [TVar(Diner(name), name=name) for name in names]
        #: On the table, a fork holds the seat that used it last: at first, the higher of the two beside it.
        self.forks = [TMVar(max(i, (i - 1) % len(names)), name=f"fork {i}") for i in range(len(names))]
        self.closed = TEvent(name="closed")

    @atomically
    def begin(self, seat: int) -> None:
        """Take both forks and begin to eat, once that is possible. `DinnerOver` if the table is closed."""
        if self.closed.is_set():
            raise DinnerOver
        me = self.diners[seat].value
        if me.doing != HUNGRY:
            raise ValueError(f"{me.name} is {me.doing}, not hungry")
        for fork, other, side in self._sides(seat):
            last_used_by = fork.take()
            neighbour = self.diners[other].value
            if neighbour.doing == EATING:
                raise Broken(f"{me.name} would eat beside {neighbour.name}, who eats")
            if neighbour.doing == HUNGRY:
                check(last_used_by != seat or not self.courteous)
                self.diners[other].value = self._overtaken(neighbour, side)
        self.diners[seat].value = replace(me, doing=EATING, overtaken=(0, 0), worst=max(me.worst, *me.overtaken))

    def _sides(self, seat: int) -> list[tuple[TMVar[int], int, int]]:
        """To the left and to the right: the fork, the neighbour's seat, and on which side of him that fork is."""
        size = len(self.diners)
        after = (seat + 1) % size
        return [(self.forks[seat], (seat - 1) % size, 1), (self.forks[after], after, 0)]

    def _overtaken(self, diner: Diner, side: int) -> Diner:
        left, right = diner.overtaken
        overtaken = (left + (side == 0), right + (side == 1))
        if self.courteous and max(overtaken) > 1:
            raise Broken(f"{diner.name} was overtaken twice by the same neighbour")
        return replace(diner, overtaken=overtaken)

    @atomically
    def end(self, seat: int, then: str = HUNGRY) -> None:
        """Finish the meal, put the forks back, and begin to do something else."""
        me = self.diners[seat].value
        if me.doing != EATING:
            raise ValueError(f"{me.name} is {me.doing}, not eating")
        for fork, _, _ in self._sides(seat):
            if not fork.try_put(seat):
                raise Broken(f"{fork!r} lies on the table while {me.name} eats with it")
        self.diners[seat].value = replace(me, doing=then, meals=me.meals + 1)

    @atomically
    def grow_hungry(self, seat: int) -> None:
        self.diners[seat].value = replace(self.diners[seat].value, doing=HUNGRY)

    @atomically(read_only=True)
    def next_picture(self, last: tuple[Diner, ...] = ()) -> tuple[Diner, ...]:
        """Wait until the table looks different from `last`, or is closed; then all of it at one moment."""
        picture = tuple(diner.value for diner in self.diners)
        check(picture != last or self.closed.is_set())
        for seat, diner in enumerate(picture):
            if diner.doing == EATING and picture[seat - 1].doing == EATING:
                raise Broken(f"{picture[seat - 1].name} and {diner.name} eat side by side")
        in_use = sum(fork.is_empty() for fork in self.forks)
        eating = sum(diner.doing == EATING for diner in picture)
        if in_use != 2 * eating:
            raise Broken(f"{in_use} forks are in use by {eating} who eat")
        return picture


def philosopher(table: Table, seat: int, meals: int, thinking: float = 0, eating: float = 0) -> None:
    """Eat so many meals, taking those seconds for each, and for thinking between them; then go."""
    try:
        for left in reversed(range(meals)):
            table.begin(seat)
            pause(eating)
            table.end(seat, GONE if not left else THINKING if thinking else HUNGRY)
            if left and thinking:
                pause(thinking)
                table.grow_hungry(seat)
    except DinnerOver:
        return
    except BaseException:
        table.closed.set()  # or the neighbours would wait for one who is no more
        raise


def pause(seconds: float) -> None:
    if seconds:
        time.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Dinner:
    """How it went: everybody at last, how many pictures were taken, the most who ate in one, and the seconds."""

    diners: tuple[Diner, ...]
    pictures: int
    most: int
    seconds: float


def dine(table: Table, meals: int, thinking: float = 0, eating: float = 0) -> Dinner:
    """Let all of them eat. `Broken` if what must not happen happens."""
    begun = time.perf_counter()
    picture, pictures, most = table.next_picture(), 1, 0
    seats = range(len(table.diners))
    with ThreadPoolExecutor(len(seats)) as pool:
        try:
            ends = [pool.submit(philosopher, table, seat, meals, thinking, eating) for seat in seats]
            while any(diner.doing != GONE for diner in picture) and not table.closed.is_set():
                picture = table.next_picture(picture)
                pictures += 1
                most = max(most, sum(diner.doing == EATING for diner in picture))
            for end in ends:
                end.result()
        finally:
            table.closed.set()
    return Dinner(picture, pictures, most, time.perf_counter() - begun)


# ---------------------------------------------------------------------------------------------------------- the program

NAMES: Final = ("Aristotle", "Kant", "Spinoza", "Marx", "Russell", "Hypatia", "Hume", "Arendt", "Plato", "Weil")


def report(dinner: Dinner, courteous: bool) -> None:
    total = sum(diner.meals for diner in dinner.diners)
    print(f"{total:,} meals in {dinner.seconds:.2f} s")
    print(f"  {'philosopher':<16}{'meals':>7}   most meals that a neighbour began while he was hungry")
    for diner in dinner.diners:
        print(f"  {diner.name:<16}{diner.meals:>7,}   {diner.worst:,}")
    print(f"{dinner.pictures:,} pictures, with up to {dinner.most} eating: never two neighbours, and no fork missing.")
    if courteous:
        print("Nobody was overtaken twice by the same neighbour.")


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")  # one line; argparse would put the usage before it


def whole(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"a whole number from {least} to {most:,}, not {text!r}")
        return int(text)

    return number


def seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1
    if not 0 <= number <= 60:
        raise argparse.ArgumentTypeError(f"a number of seconds from 0 to 60, not {text!r}")
    return number


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="dining_philosophers", description="Forks taken two at a time, and nobody starves.")
    add = parser.add_argument
    add("--philosophers", type=whole(2, 200), default=5, metavar="N", help="default: %(default)s")
    add("--meals", type=whole(1, 1_000_000), default=400, metavar="N", help="for each (default: %(default)s)")
    add("--thinking", type=seconds, default=0.0, metavar="SECONDS", help="between two meals (default: %(default)s)")
    add("--eating", type=seconds, default=0.0, metavar="SECONDS", help="for a meal (default: %(default)s)")
    add("--rude", action="store_true", help="don't give way to a hungry neighbour")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with these arguments (default: the command line's). Returns the exit code."""
    options = arguments(argv)
    names = [NAMES[i % len(NAMES)] + (f" {i // len(NAMES) + 1}" if i >= len(NAMES) else "") for i in range(200)]
    table = Table(names[: options.philosophers], courteous=not options.rude)
    try:
        report(dine(table, options.meals, options.thinking, options.eating), table.courteous)
    except Broken as broken:
        print(f"BROKEN: {broken}")
        return 1
    except KeyboardInterrupt:
        print("dining_philosophers: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
