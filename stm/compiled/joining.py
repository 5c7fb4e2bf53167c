"""Arrays inside transactions of the object tier: one attempt, one commit, over variables and elements.

The first access to an array makes the attempt's *part*: a log, as compiled transactions have it, in state `JOINED`.
The part stands in the attempt's read set as a variable whose cell is in its place as long as every element that was
read still stands. So whatever validates the read set validates both tiers.

Why both tiers see one moment
-----------------------------
The clock has two hands, `clock.now` for variables and the word for elements. An attempt keeps a time of each, `rv` and
`MOMENT`, and takes a new one only to validate *everything* it has read after taking it. Consider the later of the two
times. What was read before was found unchanged after it; what is read later is no newer than its own hand's time, hence
has not changed since; in both cases it is what stood at that time. So all of it belongs to that one moment. A commit
that writes to both tiers stores the elements before the cells, the cells before `clock.now`, and the word last: whoever
sees its cells finds its elements too new, and waits.

A read-only attempt reads old cells, so its elements must belong to the same past moment. `begin` takes both hands under
the commit lock, which keeps commits to both tiers out. Elements have no history: if one has changed since, the attempt
begins again; and after `INSIST_AFTER` times runs while nobody commits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np

from stm.atomically import retry
from stm.clock import unchanged
from stm.compiled import control as machine
from stm.compiled.log import FATE, JOINED, MOMENT, READS, READS_END, SCOPE, SLOTS, STATE, WRITES, WRITES_END
from stm.compiled.runtime import control, own, take_log, word
from stm.compiled.signals import EVENT_CODE, PENDING, RETRY
from stm.compiled.sleeping import Slot, slot, waker
from stm.errors import ReadOnlyViolation
from stm.transaction import Restart, Transaction, descriptor
from stm.waiting import Waiter


class Extended(Restart):
    """The attempt has moved to a later moment: do again what found an element too new."""


class Event(Exception):
    """A kernel came back for something that Python has to do."""


class ArrayPart:
    """What one attempt of the object tier has read and written of arrays. See `stm.transaction.ArrayPart`."""

    __slots__ = ("_lease", "_waiters", "address", "arrays", "lock", "unlock", "words")

    _due = None

    def __init__(self) -> None:
        self._lease = take_log()
        self.address = self._lease.log.address
        self.words: Any = self._lease.log.words
        self.arrays: dict[Any, None] = {}  # for messages, and to keep their memory
        self._waiters: dict[Waiter, None] | None = None
        # A commit calls these in the midst of publishing: no Python may run there.
        self.lock: Callable[[], int] = partial(control, machine.LOCK, self.address, 0)
        self.unlock: Callable[[], object] = partial(control, machine.PUBLISH, self.address, 0)

    def __repr__(self) -> str:
        return ", ".join(map(repr, self.arrays)) or "<elements of arrays>"

    @property
    def _cell(self) -> Any:
        return self if control(machine.STANDS, self.address, 0) else None

    def _places(self) -> Iterable[dict[Waiter, None]]:
        waker.start()  # before committers may ring for it
        found = np.zeros(SLOTS, np.int64)
        return [place for number in self._slots(machine.ARM, found) for place in slot(number)._places()]

    def _slots(self, what: int, found: Any) -> list[int]:
        control(what, self.address, found.ctypes.data)
        numbers: list[int] = np.flatnonzero(found).tolist()
        return numbers

    def wrote(self) -> bool:
        return bool(self.words[WRITES_END // 8] != self.words[WRITES // 8])

    def written_since(self, start: int) -> bool:
        return bool(self.words[WRITES_END // 8] - self.words[WRITES // 8] > start)

    def written(self) -> list[Slot]:
        if not self.wrote():
            return []
        return [slot(number) for number in self._slots(machine.MARK_WRITES, np.zeros(SLOTS, np.int64))]

    def enter(self) -> int:
        start: int = self.words[WRITES_END // 8] - self.words[WRITES // 8]
        self.words[SCOPE // 8] = self.words[WRITES_END // 8]
        return start

    def leave(self, outer: int) -> None:
        self.words[SCOPE // 8] = self.words[WRITES // 8] + outer

    def cut(self, start: int, outer: int) -> None:
        control(machine.CUT, self.address, start)
        self.words[FATE // 8] = 0
        self.leave(outer)

    def as_reads(self) -> dict[Any, Any]:
        """A read set of this part alone; empty if nothing was read."""
        reads: dict[Any, Any] = {self: self}
        self.forget_unread(reads)
        return reads

    def forget_unread(self, reads: dict[Any, Any]) -> None:
        if self.words[READS_END // 8] == self.words[READS // 8]:
            reads.pop(self, None)

    def slept(self) -> None:
        waker.nudge()


def join(tx: Transaction) -> ArrayPart:
    """The part of the running attempt, made on first use."""
    if tx.rv < 0:
        raise tx.fate or Restart
    extras = tx.more()
    if extras.arrays is not None:
        return extras.arrays  # type: ignore[return-value]
    part = ArrayPart()
    if extras.exclusive:
        word.hold()  # whoever ends the attempt calls `clock.unhold`
    control(machine.BEGIN, part.address, 0)
    part.words[STATE // 8] = JOINED
    if tx.snapshot is not None:
        if tx.snapshot.array_moment is None:
            tx.doom(Restart)
        part.words[MOMENT // 8] = tx.snapshot.array_moment
    elif not unchanged(tx.reads.copy()):
        tx.doom(Restart)
    if extras.arrays is None:  # unless a signal handler was here meanwhile
        extras.arrays = part
        tx.reads[part] = part
    return extras.arrays


def extend(tx: Transaction) -> None:
    """Move the attempt's elements to the present moment; `Restart` if something that it read has changed."""
    if tx.rv < 0:
        raise tx.fate or Restart
    part = tx.more().arrays
    if tx.snapshot is not None or not isinstance(part, ArrayPart):
        tx.doom(Restart)
    before = part.words[MOMENT // 8]
    moment = word.sample()
    if not unchanged(tx.reads.copy()):
        tx.doom(Restart)
    part.words[FATE // 8] = 0
    if part.words[MOMENT // 8] == before:  # else a signal handler has moved it, to a later one
        part.words[MOMENT // 8] = moment


def arriving(code: int) -> BaseException:
    """What a status code of compiled code means where it has reached Python (see signals.py)."""
    if code == EVENT_CODE:
        return Event()
    if code == PENDING:
        mine = own()
        error, mine.pending = mine.pending, None
        if error is not None:
            raise error  # (numba asks twice if this returns)
        return Restart()
    tx = descriptor()
    if code == RETRY:
        retry()
    if tx.writes is None:
        return Restart()
    extend(tx)
    return Extended()


def refuse_writes(tx: Transaction, what: object) -> None:
    """Raise `ReadOnlyViolation` in a read-only scope."""
    if tx.scope is not None and tx.scope.read_only:
        raise ReadOnlyViolation(
            f"a write to {what!r} inside a read_only=True transaction; drop read_only=True, or move the write out of it"
        )
