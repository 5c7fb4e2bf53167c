"""How many rows go to one commit of `.map`, and whether they run in place: both are learnt while it runs.

*Group size.* A commit costs about as much as a short transaction, most of it for the clock's cache line. So rows commit
in groups: a group doubles after some successes in a row, halves at a conflict, and stays below what takes
`LONGEST_GROUP`, so that not much is lost or kept waiting.

*In place.* Holding the clock while a group runs (`inplace.py`) saves reading and writing a log, but lets nobody else
commit. With `n` workers it pays if a row costs, in place, less than an `n`-th of what it costs with a log, conflicts
included; and a quick row that meets conflict after conflict gets its turn that way. Each worker measures both on its
own rows, the one that it does not use now and then again. Rows that take longer than `LONGEST_ROW` never run in place.

All times are in ticks of the machine's counter, sixteenths of them where they are averaged.
"""

from __future__ import annotations

from typing import Any, Final

from numba import njit

from stm.compiled.atomics import load, store
from stm.compiled.log import ABORTS, COST, COST_IN_PLACE, GROUP, GROUPS, LIMIT, QUICK, SPENT, STREAK, WAITED, WORKERS

LONGEST_GROUP: Final = 2e-6  # seconds
LONGEST_ROW: Final = 1e-6
MOST_ROWS: Final = 64

_GROW_AFTER: Final = 4  # successes
_KNOWN_AFTER: Final = 8  # groups
_GIVE_WAY_AFTER: Final = 4  # conflicts in a row
_AGAIN_AFTER: Final = 2048  # groups


@njit
def _average(place: Any, sample: Any) -> None:
    """Move the average at an address by an eighth towards a sample; one in which the thread was put to sleep counts as
    no more than twice the average.
    """
    known = load(place)
    store(place, sample if known == 0 else known + ((min(sample, 2 * known) - known + 4) >> 3))


@njit
def tune(log: Any, done: Any, full: Any, ticks: Any) -> None:
    """Learn from a group that ran with a log: how many rows it committed, 0 after a conflict; whether that was all."""
    # Time spent waiting for the clock does not count: those who hold it would look better than they are.
    spent = load(log + SPENT) + ticks - load(log + WAITED)
    store(log + WAITED, 0)
    group = load(log + GROUP)
    if done == 0:
        store(log + SPENT, spent)
        store(log + STREAK, 0)
        store(log + GROUP, max(1, group >> 1))
        if load(log + ABORTS) >= _GIVE_WAY_AFTER and ticks <= load(log + LIMIT):
            store(log + ABORTS, 0)
            store(log + QUICK, 1)
            store(log + GROUPS, 0)
        return
    store(log + SPENT, 0)
    _average(log + COST, (spent << 4) // done)
    cost = load(log + COST)
    limit = load(log + LIMIT) << 4
    if full:
        streak = load(log + STREAK) + 1
        if streak >= _GROW_AFTER:
            streak = 0
            if 2 * group * cost <= limit and group < MOST_ROWS:
                store(log + GROUP, 2 * group)
        store(log + STREAK, streak)
    groups = load(log + GROUPS) + 1
    if groups >= _KNOWN_AFTER:
        groups = 0
        in_place = load(log + COST_IN_PLACE)
        if 2 * cost <= limit and (in_place == 0 or in_place * load(log + WORKERS) < cost):
            store(log + QUICK, 1)
            store(log + STREAK, 0)
        else:
            groups = -_AGAIN_AFTER
            store(log + COST_IN_PLACE, 0)  # to be measured then
    store(log + GROUPS, groups)


@njit
def tune_in_place(log: Any, done: Any, ticks: Any) -> None:
    """Learn from a group that ran in place."""
    if done == 0:
        return
    _average(log + COST_IN_PLACE, (ticks << 4) // done)
    cost = max(1, load(log + COST_IN_PLACE))
    limit = load(log + LIMIT) << 4
    store(log + GROUP, max(1, min(MOST_ROWS, limit // cost)))
    groups = load(log + GROUPS) + 1
    store(log + GROUPS, groups)
    too_dear = 2 * cost > limit or cost * load(log + WORKERS) >= load(log + COST)
    if groups >= _AGAIN_AFTER or (groups >= _KNOWN_AFTER and too_dear):
        store(log + QUICK, 0)
        store(log + GROUP, max(1, load(log + GROUP) >> 2))
        store(log + GROUPS, 0)
