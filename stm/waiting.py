"""How a blocked transaction sleeps, and who wakes it.

Promises
--------
No polling: after a glance (with the GIL), or after some that end within 100 microseconds and are given up where they
don't pay (without it), a waiting thread is in one blocking call. No lost wake-up: registering, and then checking that
nothing has changed yet, is one step under the commit lock, and so is publishing and looking who waits. No waiter left
behind: `withdraw` is one C call that no signal can split, and runs however the wait ends. Ctrl-C interrupts the wait:
at once, or, if it strikes as the thread is about to sleep, within `WARY` seconds.

A committer wakes the oldest waiter first, and so that an exception thrown into it can't come between publishing and
waking: either in the very C call that publishes (`transaction.publish`), or, which is quicker for one or two variables,
before it publishes (`rouse`). Whoever is woken too early finds nothing changed and goes back to sleep; but for that he
needs the commit lock, which the committer holds until he has published. The call that wakes also marks the waiter, so
that nobody wakes it twice; and a waiter that has just given up is woken for nothing, which does no harm.

Cost: a wait is linear in the read set. A commit while nobody waits pays nothing; otherwise it looks at each variable
it writes, not at each waiter. A woken transaction runs again from its start and may well go back to sleep.

Rejected: one condition variable for all (every commit would wake everybody), and a `threading.Condition` each (its
Python code is open to signals, and a lock alone is faster).
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, filterfalse, repeat, starmap
from operator import attrgetter, call
from typing import Any

from stm.clock import Cell, Variable, acquire, acquire_politely, clock, give_way, release, seconds_until, unchanged
from stm.errors import BlockedForever

#: Without the GIL: seconds for which to look before going to sleep. Putting a thread to sleep and waking it up again
#: takes ten to thirty microseconds, and a partner's whole turn a few more: so it pays to look for about as long (Karlin
#: and others, "Empirical Studies of Competitive Spinning for a Shared-Memory Multiprocessor", 1991).
GLANCING = 7.5e-5
GLANCES = 400
GLANCES_AT_VARIABLES = 500

#: A thread that glances in vain, or for longer than sleeping would have taken, some times more often than with success,
#: stops it: its partner may be slow, or in want of this very processor, which glancing keeps from it. Once in so many
#: waits it tries again.
WORTH = 2.5e-5
TRUST = 8
PROBING = 32

#: Seconds after which the main thread, having slept in vain, looks whether a signal came, and goes on sleeping.
#: `Lock.acquire` may take 30 to 100 microseconds from its last look for signals to its sleep (without the GIL it spins
#: first; with it, it may have to see another thread take that), and would not hear of a signal that strikes in between.
#: The one look comes when that is likely: programs send signals as something begins.
WARY = 0.05

#: Bytes of an empty dictionary that are worth freeing.
VAST = 10_000

_in_one_call = deque[Any](maxlen=0).extend


class Waiter:
    """Somebody waiting for one of several variables to change.

    `wake` is called once at most, possibly late, by a committer, who holds the commit lock: it must be quick, must not
    raise, and should be implemented in C. `since` is `time.monotonic()`.
    """

    __slots__ = ("__weakref__", "name", "places", "since", "thread", "variables", "wake", "woken")

    def __init__(self, wake: Callable[[], object], variables: Iterable[Variable], name: str | None) -> None:
        #: (Once, in C: what runs uninvited while a committer is about to wake somebody may do it first.)
        self.wake: Callable[[], object] = partial(next, map(call, [wake]), None)
        self.variables = tuple(variables)
        self.name = name
        self.since = time.monotonic()
        self.thread = threading.get_ident()
        self.woken = False
        self.places: list[dict[Waiter, None]] = [clock.sleepers]

    def register(self, reads: dict[Any, Cell]) -> bool:
        """Wait for a change of any cell in `reads`; False, and nothing registered, if one has changed already."""
        try:
            if not acquire(False):
                acquire_politely()
            self._enlist()
            # Only now: a signal handler that commits in between must find the waiter.
            waits = unchanged(reads)
        except BaseException:
            try:
                release()
            except RuntimeError:
                pass
            raise
        release()
        if not waits:
            self.withdraw()
        return waits

    def _enlist(self) -> None:
        for variable in self.variables:
            for waiters in variable._places():
                self.places.append(waiters)  # first, so that `withdraw` misses none
                waiters[self] = None
        clock.sleepers[self] = None

    def withdraw(self) -> None:
        """Stop waiting. Safe at any time, any number of times, without the lock."""
        _in_one_call(self.withdrawal())

    def tidy(self) -> None:
        """After a withdrawal: free the tables that dictionaries keep when all of very many waiters have left."""
        vast = list(filter(_is_vast, self.places))
        if not vast:
            return
        try:
            if not acquire(False):
                acquire_politely()
            _in_one_call(map(dict.clear, filterfalse(None, vast)))  # nobody enlists now
        except BaseException:
            try:
                release()
            except RuntimeError:
                pass
            raise
        release()

    def withdrawal(self) -> Iterator[None]:
        """What `withdraw` consumes in one C call. It may be made before the waiter is registered."""
        return map(dict.pop, self.places, repeat(self), repeat(None))


def _is_vast(waiters: dict[Waiter, None]) -> bool:
    return not waiters and sys.getsizeof(waiters) > VAST


def wakes(variables: Iterable[Variable]) -> list[Waiter]:
    """Who must be told that these variables change, oldest first. Called under the commit lock, before publishing."""
    found: dict[Waiter, None] = {}
    for variable in variables:
        if variable._waiters:
            found.update(variable._waiters)
    return _asleep(found)


def _asleep(found: Iterable[Waiter]) -> list[Waiter]:
    # Whoever was woken already is on its way to look again, and will see this commit too.
    asleep = [waiter for waiter in found if not waiter.woken]
    if len(asleep) > 1:
        asleep.sort(key=attrgetter("since"))
    return asleep


def waking(woken: Sequence[Waiter]) -> Iterator[object]:
    """What is to be consumed in one call to wake them. They are sleepers no more, so that commits may be quick again
    before the threads they wake get to run.
    """
    marks = [(waiter, "woken", True) for waiter in woken]
    leave = map(clock.sleepers.pop, woken, repeat(None))
    return chain(starmap(setattr, marks), leave, map(call, [waiter.wake for waiter in woken]))


def rouse(waiters: dict[Waiter, None]) -> None:
    """Wake those who wait for one variable, under the commit lock, just before the variable is to change."""
    found = list(waiters)
    # They leave the list, too, so that the committer can see that nobody is left to be woken.
    _in_one_call(chain(waking(_asleep(found)), map(waiters.pop, found, repeat(None))))


def wake_all(variables: Iterable[Variable]) -> None:
    """Wake whoever waits for a change of these, after it has been made."""
    try:
        if not acquire(False):
            acquire_politely()
        _in_one_call(waking(wakes(variables)))
    except BaseException:
        try:
            release()
        except RuntimeError:
            pass
        raise
    release()


def sleep(reads: dict[Any, Cell], deadline: float | None, name: str | None) -> bool:
    """Sleep until one of `reads` changes; False if `deadline` (on `time.monotonic`) came first.

    Raises `BlockedForever` where nothing could ever end the wait.
    """
    if reads and _glance(reads, deadline):
        return True
    refuse_endless(reads, name)
    bell = threading.Lock()  # (`SimpleQueue.get` would do too, but forgets its time limit under signals before 3.13)
    bell.acquire()
    waiter = Waiter(bell.release, reads, name)
    withdrawal = waiter.withdrawal()  # prepared, so that one call remains
    try:
        if not waiter.register(reads):
            return True
        left = seconds_until(deadline)
        if not 0 <= left <= WARY and waiter.thread == threading.main_thread().ident:
            if bell.acquire(True, WARY):
                return True
            left = seconds_until(deadline)
        return bell.acquire(True, left) or not unchanged(reads)
    finally:
        _in_one_call(withdrawal)


def spin(reads: dict[Any, Cell]) -> bool:
    """Wait for a very short while, awake, as at the beginning of a sleep. True if something changed."""
    return _glance(reads, None, _spinning, GLANCING)


def refuse_endless(reads: dict[Any, Cell], name: str | None) -> None:
    """Raise `BlockedForever` where nothing could ever end the wait for a change of `reads`."""
    if not reads:
        what = f"transaction {name!r}" if name else "a transaction"
        raise BlockedForever(
            f"{what} called retry() before it had read anything: no other transaction could ever wake it. "
            "Read the variables it waits for, inside the transaction, before retry() or check()."
        )
    if clock.lock._is_owned() or clock.exclusive._is_owned():  # type: ignore[attr-defined]
        raise BlockedForever(
            "retry() in a signal handler or finalizer that interrupted a commit of its own thread: "
            "nobody could commit while it sleeps"
        )


class _Luck(threading.local):
    """Whether glancing has been worth while in this thread lately."""

    score = TRUST
    waits = 0

    def allows(self) -> bool:
        if self.score:
            return True
        self.waits += 1
        return not self.waits % PROBING

    def was(self, good: bool) -> None:
        self.score = min(TRUST, self.score + 2) if good else max(0, self.score - 1)


_luck = _Luck()
#: The same for who only spins: for him, whatever comes in that time was worth it.
_spinning = _Luck()


def _glance_for_a_while(
    reads: dict[Any, Cell], deadline: float | None, luck: _Luck = _luck, worth: float = WORTH
) -> bool:
    """Wait for a very short while, awake. True if something changed."""
    if not luck.allows():
        return False
    begun = time.monotonic()
    until = begun + GLANCING
    if deadline is not None and deadline < until:
        return False
    for _ in range(min(GLANCES, GLANCES_AT_VARIABLES // len(reads))):
        give_way()
        if not unchanged(reads):
            luck.was(good=time.monotonic() < begun + worth)
            return True
        if time.monotonic() > until:
            break
    luck.was(good=False)
    return False


#: Let go of the GIL, for whoever is ready to run.
_stand_aside: Callable[[], object] = getattr(os, "sched_yield", None) or partial(time.sleep, 0)


def _glance_once(reads: dict[Any, Cell], deadline: float | None, luck: object = None, worth: float = 0.0) -> bool:
    """The same with the GIL, which the partner needs as well: let him have it once, if he is ready to run.

    To look for longer would keep a second processor awake, and each passing of the GIL between two processors is a
    wake-up from one to the other. (A work there and back through `hive_task`, whose both ends wait so: 15 microseconds;
    105 with glances of 75 microseconds, 120 with none. Two threads that pass a token by `retry`: all the same.)
    """
    _stand_aside()
    return not unchanged(reads)


_glance = _glance_once if getattr(sys, "_is_gil_enabled", lambda: True)() else _glance_for_a_while
