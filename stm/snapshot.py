"""Multi-version reads: a snapshot reads one past moment, never aborts, and never makes a writer wait.

Promise: between `begin` and `end` the value that any variable had at the moment `token.version` can be found
(`cell_at`), however often it is written meanwhile. After `end` nothing is kept on the snapshot's account, even if
nobody ever writes again.

How. While snapshots run, a committer puts the old cell behind the new one: the new cell's third element is a *link*, a
one-element list holding the cell before. A link is a list so that it can be emptied later: the cell itself never
changes, and whoever has read it may still validate it by identity. An old cell with version `first`, replaced by a
commit `end`, is what a snapshot reads if its version lies in `first <= version < end`; when no running snapshot does,
the committer passes on the old cell's own link instead. So a variable keeps at most one cell more than there are
snapshots, however hot it is.

Cost: beginning and ending take the commit lock for a moment. Reading an unchanged variable costs what an ordinary
read costs; a changed one, a step per link. With no snapshot running nothing is kept and nothing is paid.

Method: multi-version concurrency control with reclamation by active versions (as in LSA-MV: Riegel, Felber, Fetzer,
"A Lazy Snapshot Algorithm with Eager Validation", 2006).

>>> from stm import TVar, atomically
>>> x = TVar("old")
>>> @atomically(read_only=True)
... def look(seen):
...     seen.append(x.value)
...     if len(seen) == 1:
...         write = threading.Thread(target=x.set, args=("new",))
...         write.start(), write.join()
...     return x.value
>>> look([]), x.value
('old', 'new')
"""

from __future__ import annotations

import threading
from typing import Any

from stm.clock import Cell, acquire, acquire_politely, clock, release

#: `forget(token, None)`: take a snapshot off the list in one C call, which no signal can split.
forget = clock.snapshots.pop

SWEEP_AT_LEAST = 32
_sweep_at = SWEEP_AT_LEAST


class Snapshot:
    """A running snapshot. `version` is its moment, `thread` the identifier of the thread that reads it."""

    __slots__ = ("array_moment", "thread", "version")

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.version = -1
        self.array_moment: int | None = None  # the same moment for arrays (see stm/compiled/joining.py)


def begin(token: Snapshot) -> None:
    """Start reading at the present moment. Whatever happens here, the caller ends `token` afterwards."""
    try:
        if not acquire(False):
            acquire_politely()
        token.version = version = clock.now
        clock.snapshots[token] = version
        if clock.arrays is not None:
            token.array_moment = clock.arrays.sample()
        clock.quiet = False
    except BaseException:
        try:
            release()
        except RuntimeError:
            pass
        raise
    release()


def end(token: Snapshot) -> None:
    """Stop reading, and let go of what was kept for this snapshot alone."""
    forget(token, None)
    freed: list[Any] = []  # the values themselves die after the lock is free: their finalizers may transact
    try:
        if not acquire(False):
            acquire_politely()
        if clock.history:
            trim(freed)
    except BaseException:
        try:
            release()
        except RuntimeError:
            pass
        raise
    release()


def cell_at(cell: Cell, version: int) -> Cell:
    """The cell that stood at the moment `version`, starting from a newer one of the same variable."""
    while cell[1] > version:
        cell = cell[2][0]  # type: ignore[index]  # kept for as long as the snapshot runs
    return cell


def newest() -> int:
    """The moment of the latest snapshot, -1 if there is none. A committer asks under the lock."""
    # `list` of a dictionary's view is one step, whoever removes a snapshot meanwhile; `max` of the view is not.
    return max(list(clock.snapshots.values()), default=-1)


def link(cell: Cell, commit_version: int, newest: int) -> list[Any] | None:
    """What to put behind the cell that replaces `cell`. Called under the commit lock while snapshots run."""
    _, first, older = cell
    if newest < first:
        return older or None
    box = [cell]
    clock.history.append((first, commit_version, box))
    return box


def trim(freed: list[Any]) -> None:
    """Empty the links that no running snapshot can follow. Called under the commit lock; `freed` takes the cells.

    Should a signal handler commit meanwhile, it adds to the history's end, and leaves the trimming to us.
    """
    global _sweep_at
    if clock.trimming:
        return
    clock.trimming = True
    try:
        history = clock.history
        active = sorted(list(clock.snapshots.values()))  # noqa: C414 - see newest()
        _trim_ended(active[0] if active else None, freed)
        if not history:
            _sweep_at = SWEEP_AT_LEAST
        elif len(history) > _sweep_at:
            _sweep(active, freed)
            _sweep_at = max(SWEEP_AT_LEAST, 2 * len(history))
    finally:
        clock.trimming = False


def _trim_ended(oldest: int | None, freed: list[Any]) -> None:
    history = clock.history
    while history and (oldest is None or history[0][1] <= oldest):
        box = history[0][2]
        freed += box
        box.clear()
        history.popleft()


def _sweep(active: list[int], freed: list[Any]) -> None:
    """Also free what only snapshots between running ones had needed: a long one must not pile up its juniors' cells.

    From new to old, a link to a cell that nobody needs takes over what that cell links to. The link taken over from
    hung on that cell alone (and on a reader that is just passing through, to whom it stays good).
    """
    entries = list(clock.history)
    kept = []
    absorbed: set[int] = set()
    for first, end_version, box in reversed(entries):
        if id(box) in absorbed:
            continue
        while box and not any(first <= version < end_version for version in active):
            cell = box[0]
            freed.append(cell)
            older = cell[2]
            if not older:
                box.clear()
                break
            absorbed.add(id(older))
            first, end_version, box[0] = older[0][1], first, older[0]
        if box:
            kept.append((first, end_version, box))
    kept.sort(key=lambda entry: entry[1], reverse=True)
    for _ in entries:
        clock.history.popleft()
    clock.history.extendleft(kept)
