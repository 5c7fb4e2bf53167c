"""The soak's command line; see the package."""

import argparse
import contextlib
import platform
import random
import statistics
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from stm.testing import History, NotOpaque
from tests.soak import memory
from tests.soak.elements import Floor, Mill
from tests.soak.trouble import Alarm, Victim
from tests.soak.variables import Bank, Hand

ROUND = 1.5  # seconds
#: Of so many rounds, one is recorded; so many have faults injected.
RECORDED_EVERY = 3
FAULTY_EVERY = 4
#: Attempts of one thread in a history: what comes then is not recorded.
LIMIT = 4_000
HANDS = 2
#: Seconds between two signals; and what amounts to none.
ALARM = 0.003
NEVER = 1e6
#: Seconds that whoever is at work may take to come to his end.
PATIENCE = 60.0


@dataclass
class Figures:
    transactions: int = 0
    rows: int = 0
    recorded: int = 0
    told: int = 0
    signals: int = 0
    faults: int = 0
    rounds: int = 0
    wrong: list[str] = field(default_factory=list)
    #: Seconds since the beginning, bytes of memory, and what is in use of it (see `memory.measure`).
    sizes: list[tuple[float, int, int]] = field(default_factory=list)


class Soak:
    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.bank, self.floor = Bank(), Floor()
        self.figures = Figures()
        self.alarm = Alarm()
        # (The same threads in all rounds: what a thread leaves behind of its heap is used again by nobody for long.)
        self.pool = ThreadPoolExecutor(HANDS + 2)

    def round(self, seconds: float) -> None:
        """Some threads at work, and the main thread among them; then the books."""
        figures, bank = self.figures, self.bank
        number = figures.rounds
        history = History(limit=LIMIT) if number % RECORDED_EVERY == 1 else None
        faulty = number % FAULTY_EVERY == 2
        stop = threading.Event()
        hands: list[Hand] = [Hand(bank, self.seed(), stop) for _ in range(HANDS)]
        if faulty:
            hands.append(Victim(bank, self.seed(), stop))
        mill = Mill(self.floor, self.seed(), stop, history)
        me = Hand(bank, self.seed(), stop)
        alarm = NEVER if faulty else ALARM  # (while faults are injected, no handler may raise: see `inject`)
        with contextlib.nullcontext() if history is None else history:
            self.work(me, [*hands, mill], seconds, alarm)
        if history is not None:
            self.check(history)
        figures.rounds += 1
        figures.rows += mill.rows
        figures.transactions += me.done + sum(hand.done for hand in hands)
        figures.faults += sum(hand.struck for hand in hands if isinstance(hand, Victim))
        for one in (*hands, mill):
            if one.error is not None:
                figures.wrong.append(f"{one.name}: {type(one.error).__name__}: {one.error}")
        bank.close()
        self.floor.close()
        figures.wrong += bank.wrong + self.floor.wrong
        bank.wrong.clear()
        self.floor.wrong.clear()

    def work(self, me: Hand, others: list[Hand | Mill], seconds: float, alarm: float) -> None:
        until = time.monotonic() + seconds
        running = [self.pool.submit(one.run) for one in others]
        number = self.figures.rounds
        try:
            with self.alarm.ringing(alarm):
                while time.monotonic() < until:
                    number += 1
                    for task in me.chance.choices(me.tasks, k=20):
                        me.done += self.alarm.disturb(task)
                    self.alarm.disturb(lambda: self.floor.carry(number))
        finally:
            me.stop.set()
            wait(running, PATIENCE)
            for one, future in zip(others, running, strict=True):
                if not future.done():
                    self.figures.wrong.append(f"{one.name} did not come to its end")

    def check(self, history: History) -> None:
        counts = history.statistics()
        self.figures.told += counts.rows
        self.figures.recorded += len(history) - counts.rows
        try:
            history.check_and_forget()
        except NotOpaque as error:
            self.figures.wrong.append(str(error))

    def seed(self) -> int:
        return self.chance.randrange(1 << 30)

    def measure(self, since: float) -> None:
        self.figures.sizes.append((time.monotonic() - since, *memory.measure()))


def warming(minutes: float) -> int:
    """How often all kinds of rounds come before it counts: once, so that all is compiled; and before a long soak for
    some two minutes, until the allocators have as many gaps as they will have. (Until then memory grows by 2 or 3 %,
    though there are no more objects than at first.)"""
    return 1 + int(min(minutes / 2.5, 4))


def growth(figures: Figures, seconds: float, column: int) -> tuple[float, float]:
    """Bytes (column 1) or what is in use of them (2), on the median, in the first minute and in the last (or first and
    last third)."""
    span = min(60.0, seconds / 3)
    first = [size[column] for size in figures.sizes if size[0] <= span] or [0]
    last = [size[column] for size in figures.sizes if size[0] >= seconds - span] or [0]
    return statistics.median(first), statistics.median(last)


def line(figures: Figures, seconds: float, seed: int) -> str:
    gil = "with" if memory.has_gil() else "without"
    first, last = growth(figures, seconds, 1)
    before, after = growth(figures, seconds, 2)
    if memory.is_counted():
        in_use = f"{before:,.0f} blocks of it objects', then {after:,.0f}"
    else:
        in_use = f"{before / 1e6:.1f} MB of it in use, then {after / 1e6:.1f}"
    return (
        f"{seconds / 60:.1f} min on {platform.python_implementation()} {platform.python_version()} {gil} the GIL, "
        f"seed {seed}: {figures.transactions:,} transactions over variables and {figures.rows:,} rows over elements, "
        f"conserved after each of {figures.rounds:,} rounds; {figures.recorded:,} attempts and {figures.told:,} rows "
        f"in histories; {figures.signals:,} signals and {figures.faults:,} faults; memory {first / 1e6:.0f} MB, then "
        f"{last / 1e6:.0f} ({last / max(first, 1) - 1:+.1%}), {in_use} "
        f"({after / max(before, 1) - 1:+.1%}); {len(figures.wrong)} violations"
    )


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Random transactions, and their books.")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (10)")
    parser.add_argument("--seed", type=int, default=None, help="of the random choices (one that is printed)")
    given = parser.parse_args(arguments)
    if not given.minutes > 0:
        parser.error(f"--minutes must be more than nothing, not {given.minutes:g}")
    seed = random.randrange(1 << 30) if given.seed is None else given.seed
    soak = Soak(seed)
    figures = soak.figures
    length = min(ROUND, given.minutes * 5)
    for _ in range(FAULTY_EVERY * RECORDED_EVERY * warming(given.minutes)):
        soak.round(length)
    soak.figures = figures = Figures(wrong=figures.wrong)
    soak.alarm.struck = 0
    began = time.monotonic()
    seconds = 0.0
    while seconds < given.minutes * 60 and not figures.wrong:
        soak.round(length)
        soak.measure(began)
        seconds = time.monotonic() - began
    soak.pool.shutdown(wait=not figures.wrong)
    figures.signals = soak.alarm.struck
    for wrong in figures.wrong:
        print(wrong, file=sys.stderr)
    print(line(figures, seconds, seed))
    return 1 if figures.wrong else 0


if __name__ == "__main__":
    memory.plainly(sys.argv[1:])
    sys.exit(main(sys.argv[1:]))
