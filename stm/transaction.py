"""One attempt of a transaction: its reads, its writes, its scopes; how it extends, validates and commits.

Promises
--------
*Opacity.* Every value that an attempt reads belongs to one moment, its *read version* `rv`, also in an attempt that
will be thrown away. A variable newer than `rv` is returned only after `extend` has moved `rv` to a later moment at
which everything read so far still stands; where that can't be done the attempt ends on the spot (`Restart`).

*Atomicity.* `commit` makes all of an attempt's writes visible or none of them, whatever exception strikes in between.

How a commit stays whole
------------------------
CPython runs signal handlers (and lets other threads have the GIL, and collects garbage from 3.12 on) only when a
function is entered, when a call returns, and on a jump backwards. A statement that only moves references from local
variables into slots holds none of these, so

    first._cell, second._cell, clock.now = cell1, cell2, version

can't be interrupted: two and three targets compile to loads, swaps and stores, without building a tuple. That is how
one or two variables are published. More are published by one C call, `deque(maxlen=0).extend(starmap(setattr, ...))`,
which allocates nothing that the collector counts. (A loop in Python would tear under a signal: measured, in more than
half of the commits under a storm of them.) Two more precautions: everything is allocated before the last look at the
clock, and the cells that are replaced are kept until the lock is free, since they may be the last reference to an
object whose finalizer transacts.

The same reasoning makes `acquire` safe: in each `try` below nothing can be interrupted before the lock is asked for,
and each handler begins with `release()`, which says `RuntimeError` if the lock had not been had. And no `try` that
holds a lock contains a loop: CPython 3.13 and 3.14 leave some of the jumps backward that they make out of conditions
outside the range of the handler, so that an exception delivered there would pass it by.

Method: a lazy (write-back) STM with a global version clock and timestamp extension, after TL2 (Dice, Shalev, Shavit,
"Transactional Locking II", 2006), LSA (Riegel, Felber, Fetzer, 2006) and, for the single commit lock, NOrec
(Dalessandro, Spear, Scott, 2010).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, repeat, starmap, takewhile
from operator import call, is_, is_not
from typing import Any, Final, NoReturn, Protocol

from stm.clock import (
    Cell,
    Variable,
    acquire,
    acquire_politely,
    clock,
    give_way,
    release,
    seconds_until,
    settle,
    settled,
    unchanged,
    wait_for_exclusive,
)
from stm.errors import ReadOnlyViolation, TransactionRequired
from stm.snapshot import Snapshot, cell_at, link, newest, trim
from stm.tally import Book, Tally
from stm.waiting import Waiter, rouse, wakes, waking

in_one_call: Callable[[Any], None] = deque[Any](maxlen=0).extend


class Signal(BaseException):
    """Ends an attempt from within. Not an `Exception`, so that `except Exception` in a body lets it through."""


class Restart(Signal):
    """The attempt read something that has changed since: run the body again."""


class Retry(Signal):
    """`retry()` was called: run the body again when something that it read has changed."""


class CommitTimeout(Exception):
    """The deadline came before the commit could begin."""


#: Stands in an undo record for "this scope's first write to the variable was the attempt's first".
MISSING: Final = object()


class _Untouchable(dict[Any, Any]):
    def __contains__(self, tvar: object) -> bool:
        raise Restart

    def __setitem__(self, tvar: object, value: object) -> None:
        raise Restart


#: Stands for the writes of an attempt that is dead because the undoing of a scope was interrupted.
UNTOUCHABLE: Final = _Untouchable()


class Scope:
    """A part of an attempt that can be undone alone: a nested transaction, or an alternative of `or_else`.

    `outer` is the scope around it. `undo` holds what the attempt had written to each variable before this scope first
    wrote to it; `hooks`, how many hooks there were.
    """

    __slots__ = ("elements", "hooks", "outer", "read_only", "undo")

    def __init__(self, outer: Scope | None, read_only: bool, hooks: tuple[int, int], elements: int = 0) -> None:
        self.elements = elements  # where it began among the writes to arrays
        self.outer = outer
        self.read_only = read_only
        self.undo: dict[Any, Any] = {}
        self.hooks = hooks

    def note(self, writes: dict[Any, Any], tvar: Variable) -> None:
        """Called before each write inside the scope."""
        if writes is UNTOUCHABLE:
            raise Restart
        if self.read_only:
            raise ReadOnlyViolation(
                f"a write to {tvar!r} inside a read_only=True transaction; "
                "drop read_only=True, or move the write out of it"
            )
        if tvar not in self.undo:
            self.undo[tvar] = writes.get(tvar, MISSING)


def refuse_elements(extras: Extras, start: int = 0) -> None:
    """`ReadOnlyViolation` if elements were written since a scope began: machine code does not know that it may not."""
    if extras.arrays is not None and extras.arrays.written_since(start):
        raise ReadOnlyViolation(
            f"a write to {extras.arrays!r} inside a read_only=True transaction; "
            "drop read_only=True, or move the write out of it"
        )


READ_ONLY: Final = Scope(None, True, (0, 0))


class ArrayPart(Variable, Protocol):
    """The part of an attempt that reads and writes arrays (`stm.compiled.joining` makes it).

    It stands in the attempt's read set as a variable of its own, whose cell is still in its place as long as everything
    that was read of arrays still stands. So extension, validation and waiting treat both tiers alike.
    """

    def wrote(self) -> bool:
        """Is there anything to publish?"""
        ...

    def written_since(self, start: int) -> bool:
        """Is there more than when the scope began that `start` belongs to?"""
        ...

    def written(self) -> Iterable[Variable]:
        """What to look at for waiters."""
        ...

    def lock(self) -> int:
        """Take the array clock, validate and store the elements: 0, and nothing done, if a read is stale."""
        ...

    def unlock(self) -> object:
        """Complete the commit."""
        ...

    def enter(self) -> int:
        """A scope begins: where it does."""
        ...

    def leave(self, outer: int) -> None:
        """A scope has ended well, and the one that began at `outer` goes on."""
        ...

    def cut(self, start: int, outer: int) -> None:
        """The scope that began at `start` is undone."""
        ...

    def forget_unread(self, reads: dict[Any, Any]) -> None:
        """Leave the read set if nothing was read."""
        ...

    def slept(self) -> None:
        """A wait for it is over."""
        ...


class Extras:
    """What only some attempts have: hooks, exclusiveness, time limits of nested scopes, arrays.

    `deadlines` outlives the attempt: a nested time limit runs from the first time that its scope was entered.
    """

    __slots__ = (
        "arrays",
        "committed",
        "deadlines",
        "due",
        "entered",
        "exclusive",
        "insists",
        "irrevocable",
        "on_commit",
        "on_rollback",
        "wake_at",
    )

    def __init__(self, deadlines: dict[tuple[object, int], float] | None = None) -> None:
        self.on_commit: list[Callable[[], object]] = []
        self.on_rollback: list[Callable[[], object]] = []
        self.due: Iterator[Callable[[], object]] | None = None  # the hooks still to run
        #: Nobody else commits meanwhile. `insists`: the next attempt must be so. `irrevocable`: this one can't retry.
        self.exclusive = False
        self.insists = False
        self.irrevocable = False
        self.committed = False
        self.deadlines = {} if deadlines is None else deadlines
        self.entered: dict[object, int] = {}
        self.wake_at: float | None = None
        self.arrays: ArrayPart | None = None


class Transaction:
    """A thread's transaction descriptor, used again for each attempt. `writes is None` means: not in a transaction.

    An attempt is *dead* while `rv` is -1: its body may still run, but whatever it reads ends it, and it can't commit.
    It dies of its `fate`, a `Signal` that it may have swallowed; or for as long as a scope is being undone.
    """

    __slots__ = (
        "book",
        "extensions",
        "extras",
        "fate",
        "held",
        "reads",
        "resume_at",
        "rv",
        "scope",
        "snapshot",
        "spare",
        "tallies",
        "writes",
    )

    def __init__(self) -> None:
        self.writes: dict[Any, Any] | None = None
        self.held: dict[Any, Any] | None = None  # what `writes` was before it became UNTOUCHABLE
        self.reads: Any = None  # a dict from variable to cell while `writes` is one
        self.rv = 0
        self.resume_at = 0  # what `rv` was before the attempt died
        self.fate: type[Signal] | None = None
        self.scope: Scope | None = None
        self.extras: Extras | None = None
        self.snapshot: Snapshot | None = None
        self.spare: Transaction | None = None
        self.book: Book | None = None
        self.tallies: dict[str | None, Tally] = {}  # in that book
        self.extensions = 0  # not yet counted there

    def extend(self, tvar: Variable) -> Cell:
        """The cell to read of a variable that is newer than the attempt. Records it, moves `rv`; or raises `Restart`.

        A signal handler may strike here and read on the attempt's account. Hence the copy; and what it reads before
        the last lines is no older than `now`, unless it moved `rv` itself, which is looked for.
        """
        while True:
            rv = self.rv
            if rv < 0:
                raise self.fate or Restart
            if self.snapshot is not None:
                return cell_at(tvar._cell, rv)
            now = clock.now
            if not unchanged(self.reads.copy()):
                self.doom(Restart)
            cell = tvar._cell
            if self.rv == rv and cell[1] <= now:
                self.reads[tvar] = cell
                self.rv = now
                if clock.book is not None:
                    self.extensions += 1
                return cell
            if cell[1] > now:
                give_way()  # another thread is between its cells and the clock, or has just passed it

    def doom(self, fate: type[Signal]) -> NoReturn:
        """End the attempt: raises `fate` now, and again at every read should the body swallow it."""
        if self.rv >= 0:
            self.resume_at, self.rv = self.rv, -1
        self.fate = fate
        raise fate

    def more(self) -> Extras:
        """The attempt's extras, made on first use."""
        if self.extras is None:
            extras = Extras()
            if self.extras is None:  # a signal handler may have been here meanwhile
                self.extras = extras
        return self.extras

    def new_scope(self, read_only: bool) -> Scope:
        """A scope inside the present one, to be entered by assigning `self.scope`."""
        if self.spare is None:
            self.spare = Transaction()  # for `undo`
        extras, outer = self.extras, self.scope
        hooks = (0, 0) if extras is None else (len(extras.on_commit), len(extras.on_rollback))
        elements = 0 if extras is None or extras.arrays is None else extras.arrays.enter()
        return Scope(outer, read_only or (outer is not None and outer.read_only), hooks, elements)

    def leave_scope(self, scope: Scope) -> None:
        """The scope ended well: what it would have undone is now the outer scope's to undo."""
        outer, undo = scope.outer, scope.undo
        if scope.read_only and self.extras is not None:
            refuse_elements(self.extras, scope.elements)
        self.scope = outer  # first, so that a signal handler's writes are no longer noted in `undo`
        if outer is not None and not outer.read_only:
            in_one_call(map(outer.undo.setdefault, undo, undo.values()))
        if self.extras is not None and self.extras.arrays is not None:
            self.extras.arrays.leave(0 if outer is None else outer.elements)

    def undo_scope(self, scope: Scope) -> None:
        """Discard the writes and hooks of a scope, and of scopes in it whose undoing was interrupted.

        The caller has put `rv` by in `resume_at`, so that the attempt is dead meanwhile. It stays so if something
        strikes here, until perhaps an outer scope completes the work.
        """
        pending = [scope]
        inner = self.scope
        while inner is not None and inner is not scope and inner is not scope.outer:
            pending.insert(-1, inner)
            inner = inner.outer
        for one in pending:
            self._restore(one)
        self.scope = scope.outer
        if self.fate is None:
            self.rv = self.resume_at

    def _restore(self, scope: Scope) -> None:
        writes = self.writes
        assert writes is not None
        before = scope.undo
        first_written = [tvar for tvar, value in before.items() if value is MISSING]
        in_one_call(map(writes.pop, first_written, repeat(None)))
        writes.update((tvar, value) for tvar, value in before.items() if value is not MISSING)
        extras = self.extras
        if extras is not None:
            commits, rollbacks = scope.hooks
            del extras.on_commit[commits:]
            del extras.on_rollback[rollbacks:]
            if extras.arrays is not None:
                extras.arrays.cut(scope.elements, 0 if scope.outer is None else scope.outer.elements)


#: `here.tx` is the calling thread's descriptor; the hot paths read it so, and take `AttributeError` for "none yet".
#: (Looking up a plain `threading.local` takes 27 ns on CPython 3.14, in a subclass with `__init__` 43 ns.)
here: Final = threading.local()


def descriptor() -> Transaction:
    """The calling thread's descriptor, made on first use."""
    try:
        tx: Transaction = here.tx
    except AttributeError:
        tx = here.tx = Transaction()
    return tx


def active(what: str) -> Transaction:
    """The calling thread's running transaction, which `what` needs."""
    tx = descriptor()
    if tx.writes is None:
        raise TransactionRequired(
            f"{what} was called outside a transaction; call it in a function decorated with @atomically, "
            "or one passed to stm.run()"
        )
    return tx


def commit(reads: dict[Any, Cell], writes: dict[Any, Any], rv: int) -> bool:
    """Publish `writes`, provided that `reads` still stand. False, and nothing published, if they don't.

    This is the quick way for one or two variables, while no snapshot runs and nobody is exclusive. (Who waits enlists
    under the lock, so waking before publishing is early enough, and not too early: see `waiting`.)
    """
    size = len(writes)
    if size > 2 or not clock.quiet:
        return commit_any(reads, writes, rv)
    answer: bool | None = None
    if size == 1:
        (first,) = writes
        value1 = writes[first]
        try:
            if not acquire(False):
                acquire_politely()
            now = clock.now
            if now == rv or unchanged(reads):
                if first._waiters and clock.quiet:
                    rouse(first._waiters)
                version = now + 2
                cell1 = (value1, version, None)
                old1 = first._cell  # kept until the lock is free
                if clock.now == now and clock.quiet and not first._waiters:
                    first._cell, clock.now = cell1, version
                    answer = True
            else:
                answer = False
        except BaseException:
            try:
                release()
            except RuntimeError:
                pass
            raise
        release()
    else:
        first, second = writes
        value1, value2 = writes[first], writes[second]
        try:
            if not acquire(False):
                acquire_politely()
            now = clock.now
            if now == rv or unchanged(reads):
                if first._waiters and clock.quiet:
                    rouse(first._waiters)
                if second._waiters and clock.quiet:
                    rouse(second._waiters)
                version = now + 2
                cell1, cell2 = (value1, version, None), (value2, version, None)
                old1, old2 = first._cell, second._cell  # noqa: F841 - kept until the lock is free
                if clock.now == now and clock.quiet and not first._waiters and not second._waiters:
                    first._cell, second._cell, clock.now = cell1, cell2, version
                    answer = True
            else:
                answer = False
        except BaseException:
            try:
                release()
            except RuntimeError:
                pass
            raise
        release()
    if answer is None:
        return commit_any(reads, writes, rv)
    return answer


def store(variable: Any, value: object) -> None:
    """Publish `value` as the variable's value, whatever that was."""
    done = False
    try:
        if not acquire(False):
            acquire_politely()
        now = clock.now
        if variable._waiters and clock.quiet:
            rouse(variable._waiters)
        version = now + 2
        cell = (value, version, None)
        old = variable._cell  # noqa: F841 - kept until the lock is free
        if clock.now == now and clock.quiet and not variable._waiters:
            variable._cell, clock.now = cell, version
            done = True
    except BaseException:
        try:
            release()
        except RuntimeError:
            pass
        raise
    release()
    if not done:
        commit_any({}, {variable: value}, clock.now)


Changes = Sequence[tuple[Any, Any, Any]]
TWICE: Final = "exchange() takes each variable once: of two new values only one could be had"


def exchange_any(changes: Changes) -> bool:
    """Outside a transaction: set variables to new values, provided that each has the old one that is named with it."""
    while True:
        cells = {}
        for variable, before, _ in changes:
            cell = cells[variable] = settled(variable)
            if cell[0] is not before:
                return False
        if len(cells) != len(changes):
            raise ValueError(TWICE)
        if commit_any(cells, {variable: after for variable, _, after in changes}, -1):
            return True


def exchange_within(tx: Transaction, changes: Changes) -> bool:
    """The same inside a transaction, in one C call: what runs uninvited can't come between the look and the writing."""
    writes = tx.writes
    assert writes is not None
    for variable, before, _ in changes:
        if variable.get() is not before:
            return False
        if tx.scope is not None:
            tx.scope.note(writes, variable)
    if len(changes) == 1:
        (variable, _, after) = changes[0]
        if variable not in writes:
            return writes.setdefault(variable, after) is after
    befores = [before for _, before, _ in changes]
    now = map(writes.get, [variable for variable, _, _ in changes], befores)
    new = {variable: after for variable, _, after in changes}
    if len(new) != len(changes):
        raise ValueError(TWICE)
    done: list[bool] = []
    writing: Iterator[object] = chain(map(writes.update, (new,)), map(done.append, (True,)))
    in_one_call(takewhile(partial(is_not, False), chain(map(is_, now, befores), writing)))
    return bool(done)


def commit_any(
    reads: dict[Any, Cell],
    writes: dict[Any, Any],
    rv: int,
    extras: Extras | None = None,
    deadline: float | None = None,
) -> bool:
    """Like `commit`, for any number of variables and in any circumstances. Sets `extras.committed` as it publishes.

    Raises `CommitTimeout` if another thread is exclusive until the deadline (on `time.monotonic`).
    """
    while True:
        freed: list[Any] = []  # what publication lets go of dies after the lock is free
        try:
            if not acquire(False):
                acquire_politely()
            answer = publish(reads, writes, rv, extras, freed)
        except BaseException:
            try:
                release()
            except RuntimeError:
                pass
            raise
        release()
        if answer is not None:
            return answer
        if not wait_for_exclusive(seconds_until(deadline)):
            raise CommitTimeout


def publish(
    reads: dict[Any, Cell], writes: dict[Any, Any], rv: int, extras: Extras | None, freed: list[Any]
) -> bool | None:
    """`commit_any` under the lock: True if published, False if `reads` are stale, None if another is exclusive.

    A signal handler may strike anywhere before the last line and commit itself, or let go of the lock for a while:
    if it did, that line sees it, and all is done anew.
    """
    arrays = None if extras is None else extras.arrays
    while True:
        owner = clock.owner
        if owner is not None and owner != threading.get_ident():
            return None
        now = clock.now
        if now != rv and not unchanged(reads):
            return False
        rv, version = now, now + 2
        freed += [tvar._cell for tvar in writes]
        stores: list[tuple[Any, str, Any]]
        if clock.snapshots:
            latest = newest()
            stores = [
                (tvar, "_cell", (value, version, link(tvar._cell, version, latest))) for tvar, value in writes.items()
            ]
        else:
            stores = [(tvar, "_cell", (value, version, None)) for tvar, value in writes.items()]
            if clock.history:
                trim(freed)
        stores.append((clock, "now", version))
        if extras is not None:
            stores.append((extras, "committed", True))
        steps: Iterator[Any] = starmap(setattr, stores)
        if arrays is not None:
            # Elements first, then cells, then the clock's two hands; and nothing of it if an element read is stale.
            steps = takewhile(partial(is_not, 0), chain(map(call, [arrays.lock]), steps, map(call, [arrays.unlock])))
        woken: Sequence[Waiter] = ()
        if clock.sleepers:
            woken = wakes(writes if arrays is None else chain(writes, arrays.written()))
        if woken:
            steps = chain(steps, waking(woken))
        if clock.now == now and clock.owner == owner:
            in_one_call(steps)
            if extras is not None and not extras.committed:
                return False
            settle()
            return True
