"""The version clock, and the lock under which it moves.

The clock has two hands. `clock.now` counts the commits that wrote to variables; a word in memory, which machine code
can read, counts those that wrote to array elements (`stm.compiled`; until that is used there is no second hand). A
commit moves the hand of what it writes, or both in one step. One word for both would do too, but then each commit of
Python code, about a microsecond, would stop all machine code, which commits fifty times in that time, and would itself
have to compare and swap.

The hand of variables
---------------------
`clock.now` is the version of the newest commit: an even integer, two more after each commit. A *cell* is what a
`TVar` holds: a tuple `(value, version, link)` that never changes once it is published, `version` being the clock's
value after the commit that wrote it. (`link` leads to the cell before, see `snapshot.py`.)

Invariants
----------
I1. Only the thread that holds `clock.lock` publishes. It stores its cells first and the clock last.
I2. Each commit publishes cells that nobody has seen before. So a cell that is still in its place has been there all
    the time since it was read: "the same cell" is the test for "unchanged", never "an equal value" or "the same
    version" (the ABA problem, NaN, and 1 == True cannot arise).
I3. Whoever loads `clock.now == c` and then a cell sees every commit up to `c`. So a cell with `version <= c` was the
    variable's value at the moment `c`, and a cell with `version > c` gives itself away as newer.
I4. Between the last check of a commit and its last store the interpreter has no opportunity to run anything else in
    this thread: no signal handler, no finalizer, no garbage collection (see `transaction.commit`).

Why they hold
-------------
With the GIL, I3 is program order. Without it, CPython 3.13 and later store slots with release and load them with
acquire order, which is what I3 needs on x86 and on ARM alike: the load of the clock acquires all cells stored before
it. I1 makes versions unique and increasing. Readers take no lock and write nothing shared.

The lock is an `RLock` because of what may interrupt its holder: a signal handler, or the finalizer of a dead object,
runs in the same thread between two bytecodes and may itself commit. It gets the lock again, commits whole, and moves
the clock; the interrupted commit checks the clock after everything else (I4) and starts over. An `RLock` also knows
its owner, so that an exception handler may release it as its very first step, whether or not the interrupted
`acquire` came to its end: `RuntimeError` then says that it did not.

Being interrupted with the lock in hand has a price on a GIL build: waiters that queue up inside `acquire` are handed
the lock before they are handed the GIL, and from then on every commit costs a switch of threads (a lock convoy).
`acquire_politely` therefore lets the holder run on and tries again, and sleeps inside `acquire` only after that.

The hand of elements
--------------------
The word's upper bits are the version of the newest commit to elements, a multiple of 16; its low bits are flags:
`PUBLISHING`, a commit is under way; `HELD`, an exclusive transaction runs that uses arrays; `FORKING`, a thread is
about to fork; `AWAITED`, somebody sleeps until an element changes. An element is two words, its value and its version.

A1. The word changes by compare-and-swap only, except that who has set `PUBLISHING` may store it. So there is one
    committer at a time, who knows all flags as they were when he began, and for whom no flag changes meanwhile.
A2. A committer stores an element's version before its value, and the word last, each with release order. A reader loads
    the value before the version, with acquire order. So whoever loads a value sees its version or a newer one; and
    whoever loads the word sees all values of that commit and of those before.
A3. Hence: a reader whose moment `m` is the word (without flags) at some time, and who then loads a value and finds its
    version `<= m`, has the element's value at that time; and the element has not changed since, until that load.
    Elements have no history, so this needs no more than the one comparison. It is made at every read: in machine code a
    stale index is a memory error, not a wrong answer.
A4. A committer may validate before it takes the word: if the compare-and-swap from the value that was loaded before the
    validation succeeds, nothing was published between.
A5. Who wants to sleep counts himself in the table of slots and sets `AWAITED` while holding `PUBLISHING`, and validates
    after. So a commit either came before, and the validation sees it, or it takes a word with `AWAITED` in it, and
    looks at the table. No fence is needed beside those of the compare-and-swap.

On x86 the acquire loads and release stores are plain moves, and a compare-and-swap is a full barrier; on ARM they are
`ldapr` or `ldar`, `stlr` and `casal` or their like. Nothing above needs more: A2 orders stores of one thread before a
store with release, and loads of one thread after a load with acquire; there is no store that must be seen before a
*later load* of the same thread (the pattern that would need a full fence), since A5 goes through the word.

Both hands
----------
B1. A commit to both tiers holds the commit lock *and* `PUBLISHING`. Having validated all that it read in either, it
    stores elements, then cells, then `clock.now`, then the word. So whoever sees a cell of it finds its elements too
    new, and waits for the word; and whoever sees its elements' commit complete finds `clock.now` moved.
B2. An attempt that reads both has two times, and takes a new one only if everything that it has read, in both tiers, is
    found unchanged after. All of it then belongs to the later of the two times: see `stm/compiled/joining.py`.
B3. `HELD` is set by who holds `clock.exclusive`, and cleared before that lock is free.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from operator import methodcaller
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from stm.snapshot import Snapshot
    from stm.tally import Book
    from stm.waiting import Waiter

Cell = tuple[Any, int, "list[Any] | None"]


class Variable(Protocol):
    """What the protocol needs of a transactional variable."""

    @property
    def _cell(self) -> Cell: ...

    @property
    def _waiters(self) -> dict[Waiter, None] | None: ...

    def __hash__(self) -> int: ...

    def _places(self) -> Iterable[dict[Waiter, None]]:
        """Where those who wait for a change of it are listed. Called under the commit lock."""
        ...


class ArrayClock(Protocol):
    """What the object tier needs of the clock word of `stm.compiled`. Each is one C call that no signal can split."""

    #: Keep all array commits off, and let them go on: around `os.fork`.
    freeze: Callable[[], object]
    thaw: Callable[[], object]
    thaw_in_child: Callable[[], object]
    #: The moment of arrays now, to begin a read-only attempt with.
    sample: Callable[[], int]
    #: The class of transactional arrays, which have `to_numpy()`.
    array_type: type
    #: Make anew in a forked child what belonged to threads that are gone.
    after_fork: Callable[[], object]


class Clock:
    """One version clock with its commit lock and with the three reasons why a commit can't be quick."""

    __slots__ = (
        "arrays",
        "book",
        "exclusive",
        "forker",
        "history",
        "lock",
        "now",
        "owner",
        "quiet",
        "sleepers",
        "snapshots",
        "trimming",
        "unhold",
    )

    def __init__(self) -> None:
        self.now = 0
        self.lock = threading.RLock()
        #: Held for the whole body by a transaction that must not be disturbed. `owner` is its thread, written while
        #: holding both locks: committers look at it when not `quiet`.
        self.exclusive = threading.RLock()
        self.owner: int | None = None
        #: Waiters asleep or on their way: a committer must look whether it wakes one of them.
        self.sleepers: dict[Waiter, None] = {}
        #: Read versions of running snapshots, oldest first: a committer must keep what they may still read.
        self.snapshots: dict[Snapshot, int] = {}
        #: `(first version, end version, link)` of every old cell kept for a snapshot, in the order of commits.
        self.history: deque[tuple[int, int, list[Any]]] = deque()
        self.trimming = False
        #: True while no snapshot runs and nobody is exclusive. Written under `lock` only.
        self.quiet = True
        #: Where transactions are counted, if they are (`tally.py`).
        self.book: Book | None = None
        #: The thread that is about to fork.
        self.forker: int | None = None
        #: The other hand, once `stm.compiled` has been used.
        self.arrays: ArrayClock | None = None
        #: Let array commits go on that an exclusive transaction has kept off; nothing to do before.
        self.unhold: Callable[[], object] = bool


clock = Clock()

acquire = clock.lock.acquire
release = clock.lock.release
acquire_exclusive = clock.exclusive.acquire
release_exclusive = clock.exclusive.release
#: `clock.unhold()`, whatever that is when this is called.
unhold: Callable[[], object] = partial(methodcaller("unhold"), clock)


def _way_to_wait() -> Callable[[], object]:
    """Something to do for a moment while others get on.

    Without the GIL: offer the processor, half a microsecond. With the GIL, what others need is the GIL, and the time it
    takes the kernel to wake one of them, ten or twenty microseconds: whoever lets go of it for less merely makes them
    wake in vain and go back to sleep. `zlib.crc32` of a large buffer is the simplest thing in the standard library that
    works about so long without the GIL. (Hand-over between two threads by `retry`, relative to `SimpleQueue`: 1.4 with
    `os.sched_yield`, 0.4 to 0.7 so; `time.sleep` takes 60 microseconds at the least, and lets the processor doze off.)
    """
    if getattr(sys, "_is_gil_enabled", lambda: True)():
        try:
            from zlib import crc32
        except ImportError:  # an unusual build of CPython
            return partial(time.sleep, 0)
        return partial(crc32, bytes(50_000))
    return getattr(os, "sched_yield", None) or partial(time.sleep, 0)


#: Let other threads have the GIL, or the processor, for a moment.
give_way = _way_to_wait()

POLITE_SECONDS = 0.02
#: Without the GIL, the holder is at work on another processor, and a commit takes a fraction of a microsecond.
POLITE_TRIES = 0 if getattr(sys, "_is_gil_enabled", lambda: True)() else 20


def acquire_politely() -> None:
    """Take the commit lock after a first try failed. Returns with the lock held, or raises without it."""
    for _ in range(POLITE_TRIES):
        if acquire(False):
            return
    patience = time.monotonic() + POLITE_SECONDS
    while time.monotonic() < patience:
        give_way()  # on a GIL build this lets the holder finish; see the module's words on convoys
        if acquire(False):
            return
    if sys.is_finalizing():
        # A daemon thread may have been frozen by the interpreter's exit with the lock in hand.
        if not acquire(True, 1.0):
            raise RuntimeError("the interpreter is exiting, and a daemon thread was stopped in the middle of a commit")
        return
    acquire()


def unchanged(reads: dict[Any, Cell]) -> bool:
    """Is every cell that was read still in its place? (Invariant I2; linear in the read set, and takes no lock.)"""
    for tvar, cell in reads.items():  # noqa: SIM110 - a generator expression would cost twice as much
        if tvar._cell is not cell:
            return False
    return True


def seconds_until(deadline: float | None) -> float:
    """What is left until a moment on `time.monotonic`, as lock methods take it: -1 for no limit."""
    if deadline is None:
        return -1
    return min(max(0.0, deadline - time.monotonic()), threading.TIMEOUT_MAX)


def settled(variable: Variable) -> Cell:
    """The variable's cell, once the commit that published it is complete."""
    while (cell := variable._cell)[1] > clock.now:
        give_way()
    return cell


def enter_exclusive(timeout: float = -1) -> bool:
    """Acquire `clock.exclusive`, waiting at most `timeout` seconds (-1: no limit). True if that came to pass.

    In a signal handler or finalizer that interrupted its own thread's commit, the commit lock is let go meanwhile: its
    holder might be waiting for whom the exclusive transaction waits. The interrupted commit looks at everything anew.
    """
    lock: Any = clock.lock
    if not lock._is_owned():
        return _enter(timeout)
    state = lock._release_save()
    try:
        return _enter(timeout)
    finally:
        lock._acquire_restore(state)


def _enter(timeout: float) -> bool:
    if acquire_exclusive(True, timeout):
        return True
    while clock.owner is None:  # whoever holds it merely passes through, or is about to become the owner
        give_way()
        if acquire_exclusive(False):
            return True
    return False


def wait_for_exclusive(timeout: float = -1) -> bool:
    """Wait until no other thread is exclusive; at most `timeout` seconds (-1: no limit). True if that came to pass."""
    try:
        if not enter_exclusive(timeout):
            return False
    except BaseException:
        try:
            release_exclusive()
        except RuntimeError:
            pass
        raise
    release_exclusive()
    return True


def settle() -> None:
    """Recompute `clock.quiet`. The caller holds the commit lock."""
    clock.quiet = not (clock.snapshots or clock.history or clock.owner)


def _before_fork() -> None:
    acquire()  # so that no commit is half-way in the child's copy
    clock.forker = threading.get_ident()
    if clock.arrays is not None:
        clock.arrays.freeze()


def _after_fork_in_parent() -> None:
    if clock.forker == threading.get_ident():  # else Ctrl-C kept `_before_fork` from its work
        clock.forker = None
        if clock.arrays is not None:
            clock.arrays.thaw()
    try:
        release()
    except RuntimeError:
        pass  # Ctrl-C kept `_before_fork` from acquiring it


def _after_fork_in_child() -> None:
    # Only the forking thread lives on, and it owns the commit lock. What other threads held or awaited is void.
    me = threading.get_ident()
    clock.forker = None
    if clock.arrays is not None:
        clock.arrays.thaw_in_child()
    if not clock.exclusive._is_owned():  # type: ignore[attr-defined]
        clock.exclusive._at_fork_reinit()  # type: ignore[attr-defined]
        clock.owner = None
        unhold()
    if not clock.lock._is_owned():  # type: ignore[attr-defined]
        # Ctrl-C kept `_before_fork` from waiting for it, and `os.fork` went on regardless.
        clock.lock._at_fork_reinit()  # type: ignore[attr-defined]
        acquire()
    _forget_other_threads(me)
    if clock.arrays is not None:
        clock.arrays.after_fork()
    clock.quiet = False  # the next commit looks for itself
    release()


def _forget_other_threads(me: int) -> None:
    for waiter in list(clock.sleepers):
        if waiter.thread != me:
            waiter.withdraw()
    for token in list(clock.snapshots):
        if token.thread != me:
            del clock.snapshots[token]


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
