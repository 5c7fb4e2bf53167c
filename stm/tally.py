"""What is counted while statistics are on: a `Tally` for each transaction's name, in each thread.

A thread counts in tallies of its own, so that counting is no conflict. They are in an account of the `Book` that
`clock.book` refers to; it is None while statistics are off, and that is the one question that a transaction asks then.
`stats.py` opens books and adds the accounts up.

Counts are exact, except for a call that Ctrl-C or the like strikes in the instant of its commit. Seconds are measured
for every call that had to wait or to run again. Of calls that end at once one in `SAMPLE` is timed, and stands for as
many; each is, while they take long enough for that not to matter. (The clock would otherwise be a tenth of a short
transaction's cost.)

An account belongs to a thread's identifier, which the operating system gives to another thread after this one has
ended: that one goes on with the same account. So nothing is lost when threads end, and no more is kept than the most
threads that ever were alive together need.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any

from stm.clock import Cell, clock

if TYPE_CHECKING:
    from stm.execution import Execution
    from stm.transaction import Transaction

#: Calls that take no longer than this on average are timed one in `SAMPLE`.
SHORT = 5e-5
SAMPLE = 64

#: For transactions without a name, such as `tvar.update()` outside others.
UNNAMED = "(unnamed)"

#: So many variables are told apart in one tally, and so many names in one thread, lest short-lived ones pile up.
MOST_CAUSES = 1000
MOST_NAMES = 10_000
OTHERS = "(others)"


class Tally:
    """Counts of one transaction in one thread. `mask` is 0 where every call is to be timed."""

    __slots__ = (
        "aborts",
        "causes",
        "commits",
        "extensions",
        "failures",
        "mask",
        "retries",
        "slow",
        "slow_seconds",
        "timed",
        "timed_seconds",
        "waited",
        "waits",
    )

    def __init__(self) -> None:
        self.commits = 0
        self.aborts = 0
        self.retries = 0
        self.extensions = 0
        self.failures = 0
        self.waits = 0
        self.waited = 0.0
        self.mask = 0
        self.timed = 0  # calls that ended at once, and were timed or stood for by one that was
        self.timed_seconds = 0.0
        self.slow = 0  # calls that had to wait or to run again
        self.slow_seconds = 0.0
        self.causes: dict[str, int] = {}

    @property
    def seconds(self) -> float:
        """How long all calls took together."""
        if not self.timed:
            return self.slow_seconds
        at_once = max(0, self.commits + self.failures - self.slow)
        return self.slow_seconds + self.timed_seconds / self.timed * at_once

    def time(self, began: float, calls: int | None = None) -> None:
        """A call that began then (on `perf_counter`) has just ended at its first attempt.

        It stands for so many `calls`: by default, for those among which it was chosen by `mask`.
        """
        calls = calls or self.mask + 1
        self.timed += calls
        self.timed_seconds += (perf_counter() - began) * calls
        self.mask = SAMPLE - 1 if self.timed_seconds < self.timed * SHORT else 0

    def time_slow(self, began: float) -> None:
        """A call that began then has just ended, after more attempts than one."""
        self.slow += 1
        self.slow_seconds += perf_counter() - began

    def end(self, tx: Transaction, began: float, execution: Execution | None) -> None:
        """A call that `stm.quick` has made, and that was counted, is over. `began` is 0 if it was not chosen."""
        self.collect(tx)
        if execution is not None:
            self.time_slow(execution.began)
        elif began:
            self.time(began)

    def collect(self, tx: Transaction) -> None:
        """Count the extensions of an attempt that has just ended, before others use its descriptor."""
        self.extensions += tx.extensions
        tx.extensions = 0

    def end_wait(self, began: float) -> None:
        """A wait that began then is over."""
        self.waited += perf_counter() - began

    def blame(self, reads: Mapping[Any, Cell]) -> None:
        """An attempt that had read this was aborted: note whose change was to blame."""
        self.aborts += 1
        for variable, cell in reads.items():
            if variable._cell is not cell:
                self.accuse(variable)

    def accuse(self, variable: object) -> None:
        """This variable was the cause, or one of the causes, of an abort."""
        causes, label = self.causes, label_of(variable)
        if label not in causes and len(causes) >= MOST_CAUSES:
            label = OTHERS
        causes[label] = causes.get(label, 0) + 1


def label_of(variable: Any) -> str:
    """A variable in statistics: by its name if it has one. What an attempt has read of arrays: by those arrays."""
    if not hasattr(variable, "_name"):
        arrays = getattr(variable, "arrays", None)
        if arrays is not None:
            return ", ".join(map(label_of, arrays)) or "elements of arrays"
    name = getattr(variable, "_name", None)
    return str(name) if name is not None else f"{type(variable).__name__} at {id(variable):#x}"


class Book:
    """All tallies since statistics were switched on: by thread, and by the transaction's name."""

    __slots__ = ("accounts", "opened", "seconds")

    def __init__(self) -> None:
        self.accounts: dict[int, dict[str | None, Tally]] = {}
        self.opened = perf_counter()
        self.seconds: float | None = None  # for which it was open, once it is closed


def open_account(tx: Transaction, book: Book) -> None:
    """From here on the calling thread, whose descriptor is `tx`, counts in this book."""
    tx.tallies = book.accounts.setdefault(threading.get_ident(), {})
    tx.extensions = 0
    tx.book = book


def tally_of(tx: Transaction, name: str | None) -> Tally | None:
    """The calling thread's tally for transactions of that name; `tx` is its descriptor. None if statistics are off."""
    book = clock.book
    if book is None:
        return None
    if tx.book is not book:
        open_account(tx, book)
    tally = tx.tallies.get(name)
    return new_tally(tx, name) if tally is None else tally


def new_tally(tx: Transaction, name: str | None) -> Tally:
    """The tally for a name that the thread has not counted before; that of all others once there are very many."""
    if len(tx.tallies) >= MOST_NAMES:
        name = OTHERS
    return tx.tallies.setdefault(name, Tally())


def missed(tx: Transaction, variable: object) -> None:
    """A `compare_and_set()` of its own, outside transactions, came too late."""
    tally = tally_of(tx, "compare_and_set")
    if tally is not None:
        tally.aborts += 1
        tally.accuse(variable)
