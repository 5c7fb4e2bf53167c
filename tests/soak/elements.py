"""What compiled transactions do in a soak: rows that move units between elements, and rows that tell what they saw.

`Floor.units` are conserved by every row. `Floor.tags` are written to by rows that write what no other row writes, and
return what they read: so their history can be checked row by row (`History.record_rows`). `Floor.shared` are moved to
and fro between elements and variables, by transactions of both tiers at once.
"""

import threading
import time

import numpy as np

import stm
from stm import TVar, compiled
from stm.compiled import TArray
from stm.testing import History

ELEMENTS = 2_000
UNITS = 100
ROWS = 200_000
TAGS = 40
TOLD = 4_000
SHARED = 8
#: Seconds between two calls, in which others may have the processor.
PAUSE = 0.02


@compiled.transaction
def move(units, source, target, amount):
    units[source] -= amount
    units[target] += amount


@compiled.transaction
def watch(units, first, second, seen):
    """Elements that are always changed together. What is wrong is noted where it stays, if the attempt is lost."""
    if units[first] != units[second]:
        seen[0] += 1


@compiled.transaction
def change_both(units, first, second):
    units[first] += 1
    units[second] += 1


@compiled.transaction
def tag(tags, first, second, value):
    """Read two, and replace one."""
    before, other = tags[first], tags[second]
    tags[first] = value
    return before, other


class Floor:
    def __init__(self) -> None:
        self.units = TArray(np.full(ELEMENTS, UNITS, np.int64))
        self.pair = TArray(np.zeros(2, np.int64))
        self.tags = TArray(np.zeros(TAGS, np.int64))
        self.shared = TArray(np.full(SHARED, UNITS, np.int64))
        self.purse = TVar(0, name="purse")
        self.torn = np.zeros(1, np.int64)
        self.wrong: list[str] = []
        self._last_tag = 0
        #: What the rows of a call are given: made once, for what is as large leaves gaps in memory when it is freed.
        self.columns = [np.arange(ROWS) % ELEMENTS, np.zeros(ROWS, np.int64), np.arange(ROWS) % 5]

    def draw(self, chance: np.random.Generator) -> list[np.ndarray]:
        """Sources, targets and amounts, all anew."""
        source, target, amount = self.columns
        chance.shuffle(source)
        chance.shuffle(amount)
        np.add(source, chance.integers(1, ELEMENTS), out=target)
        np.remainder(target, ELEMENTS, out=target)
        return self.columns

    def close(self) -> None:
        """Nobody is at work: the books."""
        total = int(self.units.to_numpy().sum())
        if total != ELEMENTS * UNITS:
            self.wrong.append(f"{total} units in elements instead of {ELEMENTS * UNITS}")
        first, second = self.pair.to_numpy()
        if first != second or self.torn[0]:
            self.wrong.append(f"a pair of elements was seen apart {self.torn[0]} times: {first}, {second}")
        self.look()

    def look(self) -> None:
        """In both tiers at once."""
        purse, shared = stm.snapshot(self.purse, self.shared)
        if purse + int(shared.sum()) != SHARED * UNITS:
            self.wrong.append(f"{purse} in the purse and {shared.tolist()}: not {SHARED * UNITS} in all")

    def carry(self, number: int) -> None:
        """A unit, from an element to a variable or back."""
        amount = 1 if number % 2 else -1

        def body() -> None:
            self.shared[number % SHARED] -= amount
            self.purse.value += amount
            if self.purse.value + sum(self.shared[at] for at in range(SHARED)) != SHARED * UNITS:
                self.wrong.append("a transaction in both tiers saw a unit in neither, or twice")

        stm.run(body)

    def tag(self, history: History, chance: np.random.Generator, threads: int) -> None:
        """Rows whose history is checked."""
        first = chance.integers(0, TAGS, TOLD)
        second = (first + chance.integers(1, TAGS, TOLD)) % TAGS
        values = np.arange(self._last_tag + 1, self._last_tag + TOLD + 1)
        self._last_tag += TOLD
        began = time.perf_counter_ns()
        seen = tag.map(self.tags, first, second, values, threads=threads)
        history.record_rows(
            reads=(np.column_stack((first, second)), seen),
            writes=(first, values),
            name="tag",
            began=began,
            ended=time.perf_counter_ns(),
        )


class Mill:
    """Runs compiled rows until it is told to stop. `rows`: how many."""

    def __init__(self, floor: Floor, seed: int, stop: threading.Event, history: History | None) -> None:
        self.name = f"mill {seed}"
        self.floor = floor
        self.chance = np.random.default_rng(seed)
        self.stop = stop
        self.history = history
        self.rows = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            floor, chance = self.floor, self.chance
            source, target, amount = floor.draw(chance)
            zeros, ones = np.zeros(2_000, np.int64), np.ones(2_000, np.int64)
            number = 0
            while not self.stop.wait(PAUSE):
                number += 1
                threads = 1 + number % 2
                move.map(floor.units, source, target, amount, threads=threads)
                change_both.map(floor.pair, zeros, ones, threads=threads)
                watch.map(floor.pair, zeros, ones, compiled.Constant(floor.torn), threads=threads)
                self.rows += ROWS + 4_000
                if self.history is not None and number % 4 == 0:
                    floor.tag(self.history, chance, threads)
                    self.rows += TOLD
        except BaseException as error:
            self.error = error
