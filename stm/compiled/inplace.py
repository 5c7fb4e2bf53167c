"""The quick way for quick rows: hold the clock, and write in place.

A transaction of ten nanoseconds gains nothing from running beside another: the clock's cache line takes longer to
change hands than the transaction takes to run. So `.map` may take the clock (`PUBLISHING`) for a group of rows and run
them one after the other on the elements themselves, under one version. Nobody else can publish meanwhile, hence reads
need no log and no check. For everybody else the group is one commit that takes a little longer: they see elements that
are newer than the clock, and wait. The write set becomes an undo log (address, old value), so that a row that raises or
retries is taken back. (GCC's `libitm` calls its like *serial mode*.)

Whether that pays is measured (see `tuning.py`). A group holds the clock for some microseconds only. A body that reads
on and on, in a loop that waits for others, is stopped when its *fuel* is spent, and runs again the ordinary way.
"""

from __future__ import annotations

from typing import Any, Final

from numba import njit

from stm.compiled.atomics import compare_and_swap, load, load_acquire, store, store_release
from stm.compiled.kernels import linger, ring
from stm.compiled.log import (
    AWAITED,
    CLOCK,
    FATE,
    FLAGS,
    FUEL,
    KEPT_OFF,
    PASS,
    PUBLISHING,
    SCOPE,
    STEP,
    STOP,
    TARGET,
    WORD,
    WRITES,
    WRITES_END,
    WRITES_ROOM,
    grow_undo,
    inlined,
)
from stm.compiled.signals import RESTART, apart, leave_with_restart

FUEL_PER_ROW: Final = 4096


@njit
def take_clock(log: Any) -> Any:
    """Begin a group: get the clock. False if another thread is exclusive, or asks this one to stop."""
    clock = load(log + CLOCK)
    spins = 0
    while True:
        now = load_acquire(clock)
        if (now & KEPT_OFF and not load(log + PASS)) or load_acquire(log + STOP):
            return False
        if now & PUBLISHING:
            spins = linger(spins)
        elif compare_and_swap(clock, now, now | PUBLISHING):
            break
    store(log + WORD, now)
    store(log + TARGET, (now & ~FLAGS) + STEP)  # not in MOMENT: who stops a map writes there
    store(log + WRITES_END, load(log + WRITES))
    store(log + FATE, 0)
    return True


@njit
def give_clock(log: Any) -> None:
    """End a group: its rows become visible at once."""
    now = load(log + WORD)
    store_release(load(log + CLOCK), now + STEP)
    if now & AWAITED:
        ring(log)


@inlined
def next_row(log: Any) -> None:
    """The row that begins here can be taken back alone."""
    store(log + SCOPE, load(log + WRITES_END))
    store(log + FUEL, FUEL_PER_ROW)


@inlined
def _burn(log: Any) -> None:
    fuel = load(log + FUEL) - 1
    store(log + FUEL, fuel)
    if fuel < 0:
        apart(_give_up, (log,))


@inlined
def read_in_place(log: Any, at: Any) -> Any:
    """The word of the element at `at`."""
    _burn(log)
    return load_acquire(at)


@njit
def _give_up(log: Any) -> None:
    store(log + FATE, RESTART)
    leave_with_restart()


@inlined
def write_in_place(log: Any, at: Any, word: Any) -> None:
    """Set the element at `at`."""
    if load(log + WRITES_END) == load(log + WRITES_ROOM):
        apart(grow_undo, (log,))
    end = load(log + WRITES_END)
    store(end, at)
    store(end + 8, load_acquire(at))
    store(log + WRITES_END, end + 16)
    store_release(at + 8, load(log + TARGET))  # before the value, as in `publish`
    store_release(at, word)


@njit
def restore(log: Any, end: Any) -> None:
    """Take back what was written since the undo log ended at `end`. (The newer versions stay: nobody is misled.)"""
    entry = load(log + WRITES_END)
    while entry > end:
        entry -= 16
        store_release(load(entry), load(entry + 8))
    store(log + WRITES_END, end)


@njit
def peek_in_place(log: Any, at: Any) -> Any:
    """The word of the element at `at` before the present row wrote to it."""
    _burn(log)
    entry = load(log + SCOPE)
    while entry < load(log + WRITES_END):
        if load(entry) == at:
            return load(entry + 8)
        entry += 16
    return load_acquire(at)
