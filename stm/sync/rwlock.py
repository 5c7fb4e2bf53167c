"""`TRWLock`: many readers or one writer, for what is not transactional: files, sockets, other libraries' objects.

Promises: while somebody writes, nobody else reads or writes. Writers go first: once one waits, new readers wait behind
it, so it needs only those to leave who read already; among writers the first to come is the first to go. (Writers that
never cease keep readers out.) That it waits, a writer announces by a transaction of its own, and withdraws it however
the wait ends.

Not reentrant: a thread that holds the lock and asks to write, or that writes and asks again, would wait for itself, and
gets a `RuntimeError`. While it reads it may read again, even past a writer that waits, since that one waits for it.

`read()` and `write()` return a `Hold`: a context manager, and two calls, `acquire` and `release`, of which any thread
may make the second.

Inside a transaction acquiring and releasing are writes like others, seen by nobody before the commit. So
- a hold acquired in a transaction is held from its commit on, and not at all if that is discarded; several locks are
  acquired in one step, and so without deadlock;
- `with lock.write():` around a part of a transaction, or all of it, means that the transaction commits at a moment at
  which nobody else holds the lock (with `read()`: nobody writes). Its writes are not seen until then anyway;
- a writer that waits in a transaction announces nothing, so readers that never cease can keep it waiting. And because
  a thread may serve many tasks there (`stm.aio`), only what was acquired in the same transaction counts as its own: one
  that waits for what its thread acquired before waits for ever.

Conflicts: all acquiring and releasing of one lock. Cost: about 2 µs to acquire or to release where there is nothing to
wait for, O(holders); each change wakes whoever waits.

>>> from stm import TRWLock, run
>>> left, right = TRWLock(name="left"), TRWLock()
>>> with left.read(), left.read():
...     left
<TRWLock 'left' readers=2>
>>> holds = left.write(), right.write()
>>> run(lambda: [hold.acquire() for hold in holds])
[None, None]
>>> left
<TRWLock 'left' writing>
>>> with left.read(timeout=0.01):
...     pass
Traceback (most recent call last):
    ...
RuntimeError: <TRWLock 'left' writing> is held by this very thread: to acquire it now would be to wait for itself
>>> for hold in holds: hold.release()
"""

from __future__ import annotations

import time
from threading import local
from types import TracebackType
from typing import NamedTuple

from stm import TransactionTimeout, TVar, in_transaction
from stm.sync._synchronizer import WAIT, Synchronizer, Waits, seconds

_here = local()


def _this_thread() -> object:
    try:
        token: object = _here.token
    except AttributeError:
        token = _here.token = object()
    return token


class Holder(NamedTuple):
    """One acquisition: the hold, and the thread that asks for it. Told apart by identity."""

    hold: Hold
    thread: object  # stands for it; its identifier could be another's by the time it is looked at


class State(NamedTuple):
    """Who holds a lock, and which writers have announced themselves, in the order in which they came."""

    readers: tuple[Holder, ...] = ()
    writer: Holder | None = None
    waiting: tuple[Holder, ...] = ()

    def holders(self) -> tuple[Holder, ...]:
        return self.readers if self.writer is None else (self.writer,)

    def __repr__(self) -> str:
        holders = "writing" if self.writer is not None else f"readers={len(self.readers)}"
        return holders + (f" writers_waiting={len(self.waiting)}" if self.waiting else "")


class TRWLock(Synchronizer):
    """A lock for many readers or one writer. `name` is for messages and statistics alone."""

    __slots__ = ("_state",)

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__(name)
        self._state = TVar(State(), name=name)

    def read(self, timeout: float | None = None) -> Hold:
        """For `with`: hold the lock for reading. `TransactionTimeout` there if it takes more than `timeout` seconds."""
        return Hold(self, False, timeout)

    def write(self, timeout: float | None = None) -> Hold:
        """For `with`: hold the lock for writing. `TransactionTimeout` there if it takes more than `timeout` seconds."""
        return Hold(self, True, timeout)

    @property
    def readers(self) -> int:
        """How many holds there are for reading."""
        return len(self._state.get().readers)

    @property
    def writing(self) -> bool:
        """Is the lock held for writing?"""
        return self._state.get().writer is not None

    def __repr__(self) -> str:
        return self._describe(self._state.peek())


class Hold:
    """One holding of a lock. It may be acquired again once it has been released."""

    __slots__ = ("_lock", "_timeout", "_writes")

    def __init__(self, lock: TRWLock, writes: bool, timeout: float | None) -> None:
        self._lock = lock
        self._writes = writes
        self._timeout = None if timeout is None else seconds(timeout)

    def acquire(self) -> None:
        """Hold the lock, once that is possible.

        `TransactionTimeout` if it takes longer than the time limit; `RuntimeError` if the thread waited for itself.
        """
        me = Holder(self, _this_thread())
        self._refuse_to_wait_for_itself(me)
        try:
            if in_transaction():
                self._step(self._timeout, me)
                return
            try:
                self._announce_and_step(me)
            except BaseException:
                try:
                    self._lock._state.update(_without, me)
                except BaseException:
                    self._lock._state.update(_without, me)  # another exception interrupted this
                    raise
                raise
        except TransactionTimeout:
            kind = "writing" if self._writes else "reading"
            raise TransactionTimeout(
                f"{self._lock!r} could not be acquired for {kind} within {self._timeout:g} s"
            ) from None

    def _announce_and_step(self, me: Holder) -> None:
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        if self._writes:
            before = self._lock._revise(self._lock._state, "announce", self._timeout, _write_or_announce, me)
            if _write(before, me) is not WAIT:
                return
        self._step(None if deadline is None else max(deadline - time.monotonic(), 0.0), me)

    def _step(self, timeout: float | None, me: Holder) -> None:
        if self._writes:
            self._lock._revise(self._lock._state, "write", timeout, _write, me)
        else:
            self._lock._revise(self._lock._state, "read", timeout, _read, me)

    def _refuse_to_wait_for_itself(self, me: Holder) -> None:
        state = self._lock._state.get()
        if not self._writes and state.writer is None:
            if any(one.hold is self for one in state.readers):
                raise RuntimeError(f"this hold on {self._lock!r} is acquired already; lock.read() makes another")
            return
        mine = [one for one in state.holders() if one.thread == me.thread]
        if mine and in_transaction():
            committed = self._lock._state.peek().holders()
            mine = [one for one in mine if one not in committed]
        if mine:
            raise RuntimeError(
                f"{self._lock!r} is held by this very thread: to acquire it now would be to wait for itself"
            )

    def release(self) -> None:
        """Let go of the lock, in whichever thread. `RuntimeError` if this hold is not acquired."""
        self._lock._revise(self._lock._state, "release", None, _released, self)

    __enter__ = acquire

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<{'write' if self._writes else 'read'} hold on {self._lock!r}>"


def _read(state: State, me: Holder) -> State | Waits:
    if state.writer is not None:
        return WAIT
    if state.waiting and all(one.thread != me.thread for one in state.readers):
        return WAIT
    return State((*state.readers, me), None, state.waiting)


def _write(state: State, me: Holder) -> State | Waits:
    if state.readers or state.writer is not None or (state.waiting and state.waiting[0] is not me):
        return WAIT
    return State((), me, state.waiting[1:])


def _write_or_announce(state: State, me: Holder) -> State:
    after = _write(state, me)
    return State(state.readers, state.writer, (*state.waiting, me)) if after is WAIT else after


def _released(state: State, hold: Hold) -> State:
    for holder in state.holders():
        if holder.hold is hold:
            return _without(state, holder)
    raise RuntimeError(f"{hold!r} is not acquired, so it can't be released")


def _without(state: State, holder: Holder) -> State:
    """The state without this holder, who may read, write or wait to write; the state itself if he does neither."""
    if state.writer is holder:
        return State((), None, state.waiting)
    readers = tuple(one for one in state.readers if one is not holder)
    waiting = tuple(one for one in state.waiting if one is not holder)
    if len(readers) + len(waiting) == len(state.readers) + len(state.waiting):
        return state
    return State(readers, state.writer, waiting)
