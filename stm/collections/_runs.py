"""What a `TQueue` is made of: runs and lines.

Items are put on a *run*, a list that begins with the newest, in `_back`. They are taken from a *line*, a list that
begins with the oldest, in `_front`. A run must be turned into a line at some time. With one long run that would take
long, and as a transaction, while others go on putting, might never succeed. So a run that has `LONGEST` items becomes a
tuple, and is put into a *hole*, a variable that the run before it left empty; the next one has a new hole. The last
item of a line is followed by the hole where the next items will be. Who finds that empty turns to the back, and brings
the run there to the front. (If it has one item, he just takes it.)

A line is `(item, later)`, and at its end `(hole, None)`. A hole holds `(items, hole, start)`, `start` being the number
of items put before these. A run is `(item, earlier, credit, base)`, at its end `(None, None, credit, base)`; its
*credit* is how many more items it takes without a look at anything else: no more than there was room, no more than a
run may have, none once the queue is shut down. So one comparison answers for all three, and to put an item is to change
one variable. The base is `(hole, start, puts, credit, closed)`: where the run goes; how many items had been put before
it; how many had been put when the credit was `credit`; was the queue shut down.

Sources: the pair of lists, Hood and Melville, "Real-time queue operations in pure Lisp", 1981; the chain of holes,
`TChan` of Harris and others, "Composable Memory Transactions", 2005.

To keep items that wait in tuples of many pays twice. The garbage collector has fewer objects to look through (a list of
100,000 links made it take 50 ms each time); and links that are freed soon are at hand for the next items.
"""

from __future__ import annotations

from typing import Any

from stm import TVar

#: Items in a run at most. Not more than 256: CPython keeps such numbers ready made.
LONGEST = 250

Line = tuple[Any, Any]
Run = tuple[Any, Any, int, Any]

EMPTY: Run = (None, None, 0, None)


def now(run: Run) -> tuple[TVar[Any], int, int, bool]:
    """`hole, start, puts, closed` as they are now."""
    _, _, left, (hole, start, puts, credit, closed) = run
    return hole, start, puts + credit - left, closed


def line_of(items: tuple[Any, ...], hole: TVar[Any]) -> Line:
    line: Line = (hole, None)
    for item in reversed(items):
        line = (item, line)
    return line


def take(line: Line, limit: int = LONGEST) -> tuple[list[Any], Line]:
    """The first items of a line, and the rest."""
    items: list[Any] = []
    for _ in range(limit):
        item, later = line
        if later is None:
            break
        items.append(item)
        line = later
    return items, line


def items_of(run: Run) -> tuple[Any, ...]:
    """The items of a run, oldest first."""
    items: list[Any] = []
    while True:
        item, run, _, _ = run
        if run is None:
            items.reverse()
            return tuple(items)
        items.append(item)
