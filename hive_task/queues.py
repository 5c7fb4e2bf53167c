"""The queues of a scheduler: the gate, where works come in, and the trays of its workers.

Promises: to submit a work is to change one variable, `Gate.back`, as long as no worker is idle, and the gate open. The
order is that of submission. Works are handed to idle workers directly, so a gate that has works has no idle workers:
whoever becomes idle says so in the transaction that finds all queues empty, and whoever submits looks at the same
variable. Those who submit and those who take don't conflict, until one has used up what he had.

The gate. `back` holds the newest works, a *run*: `(newest, before, credit, base)`, each linked to the one before. The
*credit* is how many more works may come in without a look at anything else: none if the scheduler is closed, if a
worker is idle, if somebody wants to be told of the next work, or if the run is long enough. So one comparison answers
for all of these. The `Base` says what the run began with. A full run goes as a tuple into `chunks`, from which it comes
to `front`, `(works, position, left)`, where workers take it; `left` is how many have left that way in all.

A tray is what a worker has taken in advance, `(future, rest)`: works that cost little are taken several at a time, so
that workers seldom meet at `front`. An idle worker takes over half of the fullest tray.

Works of another priority are in `urgent`, a `TPriorityQueue`; `pressing` says how many of these come before all
others, for workers who otherwise would have to look at it before each work.

Cancelled works stay in their place, and are passed over; `ghosts` counts them, so that the number of works queued is
known all the same: the lengths of the queues, less the ghosts.

Cost: about 0.4 µs to submit; 100 bytes for each work that waits, besides the work and its future. No transaction does
more than `LONGEST` works' worth for the queue's own sake.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

from pyrsistent import PDeque, pdeque

from stm import TPriorityQueue, TVar

if TYPE_CHECKING:
    from hive_task.futures import Future
    from hive_task.registry import Worker

#: Works in a run at most. Not more than 256: CPython keeps such numbers ready made.
LONGEST = 250


class Base(NamedTuple):
    """What a run began with: how many works had been submitted to the scheduler; how many of these never came to this
    queue (handed out, or urgent), less those that came back; how long the run was, and what credit it got. Then what
    makes the next submission stop and look: the workers who are idle, the latest last; a gate that is closed; somebody
    who watches for work. (Where each nanosecond counts, it is made as a plain tuple.)"""

    submitted: int = 0
    elsewhere: int = 0
    length: int = 0
    credit: int = 0
    idle: tuple[Worker, ...] = ()
    open: bool = False
    watched: bool = False


Run = tuple[Any, Any, int, Any]
Front = tuple[tuple[Any, ...], int, int]
Tray = tuple[Any, Any]

EMPTY: Run = (None, None, 0, None)


def now(run: Run) -> Base:
    """The base, brought up to date."""
    credit, (submitted, elsewhere, length, given, idle, is_open, watched) = run[2:]
    came = given - credit
    return Base(submitted + came, elsewhere, length + came, credit, idle, is_open, watched)


def works_of(run: Run) -> tuple[Future[Any], ...]:
    """The works of a run, oldest first."""
    works: list[Any] = []
    node: Any = run
    while node[1] is not None:
        works.append(node[0])
        node = node[1]
    works.reverse()
    return tuple(works)


def tray_of(works: tuple[Future[Any], ...] | list[Future[Any]], tray: Tray | None = None) -> Tray | None:
    """A tray of these works, with those of another tray behind them."""
    for future in reversed(works):
        tray = (future, tray)
    return tray


def on_tray(tray: Tray | None) -> Iterator[Future[Any]]:
    while tray is not None:
        future, tray = tray
        yield future


class Gate:
    """The queues that all workers share. What it does is a part of the caller's transaction."""

    __slots__ = ("back", "chunks", "front", "ghosts", "pressing", "ticket", "urgent")

    def __init__(self) -> None:
        self.back: TVar[Run] = TVar((None, None, 0, Base()), name="back of the queue")
        self.chunks: TVar[PDeque[tuple[Any, ...]]] = TVar(pdeque(), name="middle of the queue")
        self.front: TVar[Front] = TVar(((), 0, 0), name="front of the queue")
        self.urgent: TPriorityQueue[tuple[int, int, Any]] = TPriorityQueue(name="urgent works")
        #: How many urgent works come before the ordinary ones, and how many after them.
        self.pressing: TVar[tuple[int, int]] = TVar((0, 0), name="works that press")
        self.ghosts: TVar[int] = TVar(0, name="works cancelled in the queue")
        self.ticket = count()

    def store(self, run: Run, base: Base, works: tuple[Future[Any], ...] = ()) -> None:
        """Set the back to this run, with these works behind it, and to a base that is up to date with the run."""
        length = base.length
        if length + len(works) > LONGEST:
            chunks = self.chunks.get()
            if length:
                chunks = chunks.append(works_of(run))
                run, length = EMPTY, 0
            whole = len(works) - len(works) % LONGEST
            for start in range(0, whole, LONGEST):
                chunks = chunks.append(works[start : start + LONGEST])
            self.chunks.set(chunks)
            works = works[whole:]
        for future in works:
            run = (future, run, 0, None)
            length += 1
        if length == LONGEST:
            self.chunks.set(self.chunks.get().append(works_of(run)))
            run, length = EMPTY, 0
        submitted, elsewhere, _, _, idle, is_open, watched = base
        credit = LONGEST - length if is_open and not idle and not watched else 0
        self.back.set((run[0], run[1], credit, (submitted, elsewhere, length, credit, idle, is_open, watched)))

    def take(self, limit: int) -> tuple[Future[Any], ...]:
        """The next works, `limit` at most."""
        works, position, left = self.front.get()
        if position == len(works):
            chunks = self.chunks.get()
            if chunks:
                works = chunks.left
                self.chunks.set(chunks.popleft())
            else:
                run = self.back.get()
                if run[1] is None:
                    return ()
                works = works_of(run)
                self.store(EMPTY, now(run)._replace(length=0))
            position = 0
        taken = works[position : position + limit]
        position += len(taken)
        if position == len(works):
            works, position = (), 0  # what was taken is not kept alive
        self.front.set((works, position, left + len(taken)))
        return taken

    def put_back(self, works: tuple[Future[Any], ...]) -> None:
        """Put works in front of all others."""
        waiting, position, left = self.front.get()
        self.front.set(((*works, *waiting[position:]), 0, left - len(works)))

    def length(self) -> int:
        """How many works there are in the common queue."""
        _, _, credit, (submitted, elsewhere, _, given, *_) = self.back.get()
        return submitted + given - credit - elsewhere - self.front.get()[2]  # type: ignore[no-any-return]

    def nearly_empty(self) -> bool:
        """Is there nothing in the common queue but what came last?"""
        works, position, _ = self.front.get()
        return position == len(works) and not self.chunks.get()

    def press(self, future: Future[Any], priority: int) -> None:
        """Queue a work of another priority than the ordinary one."""
        self.urgent.put_nowait((-priority, next(self.ticket), future))
        above, below = self.pressing.get()
        self.pressing.set((above + 1, below) if priority > 0 else (above, below + 1))

    def highest(self) -> int:
        """The highest priority among the urgent works."""
        return -self.urgent.peek()[0]

    def take_urgent(self) -> Future[Any]:
        negative, _, future = self.urgent.get_nowait()
        above, below = self.pressing.get()
        self.pressing.set((above - 1, below) if negative < 0 else (above, below - 1))
        return future  # type: ignore[no-any-return]

    def lay_ghost(self) -> None:
        """A cancelled work has been passed over."""
        self.ghosts.set(self.ghosts.get() - 1)

    def clear(self) -> None:
        """Drop all works, and close."""
        while sum(self.pressing.get()):
            self.take_urgent()
        base = now(self.back.get())
        self.chunks.set(pdeque())
        self.front.set(((), 0, base.submitted - base.elsewhere))
        self.ghosts.set(0)
        self.store(EMPTY, base._replace(length=0, idle=(), open=False, watched=False))

    def works(self) -> Iterator[Future[Any]]:
        """All works in these queues, those that were cancelled too."""
        works, position, _ = self.front.get()
        yield from works[position:]
        for chunk in self.chunks.get():
            yield from chunk
        yield from works_of(self.back.get())
        for _, _, future in self.urgent.snapshot():
            yield future
