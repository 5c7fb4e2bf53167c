"""`TBarrier`: so many threads wait until all of them have come. Like `threading.Barrier`.

Promises: nobody passes before the last has arrived and the action, if there is one, has returned. The action runs once
a round, outside any transaction, in one of the threads; if it raises, the barrier breaks. The barrier can be used again
at once: who comes early for the next round is not counted in this one. A thread that gives up, because its time is up
or because an exception interrupts its wait, breaks the barrier, and the others get `BrokenBarrierError`.

That last is a difference from `threading.Barrier`, where only a timeout breaks it, and the others wait for ever for a
thread that was interrupted. (`java.util.concurrent.CyclicBarrier` breaks.) Another: `reset` and `abort` don't wait for
an action that is running, they break its round. Once all have arrived, a round is
decided by its action alone, and nobody's time limit breaks it any more; in this the two agree.

`wait` is two transactions by nature, to arrive and to leave. Inside a transaction its arrival could never be seen, so
that is a `BlockedForever` at once. What there is besides (`abort`, `reset`, `n_waiting`, `broken`) composes.

Conflicts: arrivals with each other. They wake nobody: the threads of a round wait for its outcome, a variable of its
own. Cost: a few microseconds to arrive, O(parties), and a wake-up each.

>>> from stm import TBarrier
>>> from threading import Thread
>>> order = []
>>> barrier = TBarrier(3, lambda: order.append("all here"), name="start")
>>> def work(number):
...     barrier.wait()
...     order.append("go")
>>> threads = [Thread(target=work, args=(number,)) for number in range(3)]
>>> for thread in threads: thread.start()
>>> for thread in threads: thread.join()
>>> order, barrier
(['all here', 'go', 'go', 'go'], <TBarrier 'start' waiters=0/3>)
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from threading import BrokenBarrierError
from typing import NamedTuple, SupportsIndex

from stm import BlockedForever, TransactionTimeout, TVar, in_transaction
from stm.sync._synchronizer import WAIT, Synchronizer, Waits, seconds, whole


class Outcome(Enum):
    """What becomes of a round."""

    OPEN = "open"
    PASSED = "passed"
    BROKEN = "broken"


class Round(NamedTuple):
    """The present round: what becomes of it, and who has arrived, in order; `broken` until the next `reset`."""

    outcome: TVar[Outcome]
    arrived: tuple[object, ...] = ()
    broken: bool = False


class TBarrier(Synchronizer):
    """A barrier for `parties` threads.

    `action`: called once per round by one of them, before they pass. `timeout`: seconds, for each `wait` that names
    none. `name`: for messages and statistics alone. `ValueError` for less than one party.
    """

    __slots__ = ("_action", "_parties", "_round", "_timeout")

    def __init__(
        self,
        parties: SupportsIndex,
        action: Callable[[], object] | None = None,
        timeout: float | None = None,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        if action is not None and not callable(action):
            raise TypeError(f"action must be a function without arguments or None, not {action!r}")
        self._parties = whole("parties", parties, 1)
        self._action = action
        self._timeout = None if timeout is None else seconds(timeout)
        self._round = TVar(self._fresh(), name=name)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the others; returns the order of arrival, from 0 to `parties - 1`.

        `threading.BrokenBarrierError` if the barrier is or gets broken or reset, or if they don't all come within
        `timeout` seconds. `BlockedForever` inside a transaction.
        """
        timeout = self._timeout if timeout is None else seconds(timeout)
        if in_transaction():
            raise BlockedForever(
                f"{self!r}: wait() inside a transaction could never end, for the others can't see who arrives before "
                "the transaction commits. Call it outside"
            )
        party = object()
        try:
            before = self._revise(self._round, "arrive", None, _arrive, party, self._parties)
            index = len(before.arrived)
            if index + 1 == self._parties:
                if self._action is not None:
                    self._action()
                outcome = self._transact("pass", None, self._pass, before.outcome)
            else:
                outcome = self._outcome(before.outcome, party, timeout)
        except BaseException:
            try:
                self._transact("give_up", None, self._give_up, party)
            except BaseException:
                self._transact("give_up", None, self._give_up, party)  # another exception interrupted this
                raise
            raise
        if outcome is Outcome.BROKEN:
            raise BrokenBarrierError(f"{self!r} was broken or reset before all of {self._parties} had passed")
        return index

    def _outcome(self, outcome: TVar[Outcome], party: object, timeout: float | None) -> Outcome:
        try:
            return self._revise(outcome, "wait", timeout, _decided)
        except TransactionTimeout:
            self._transact("give_up", None, self._give_up, party)
            return self._revise(outcome, "wait", None, _decided)  # unless all are here, that is now

    def _pass(self, outcome: TVar[Outcome]) -> Outcome:
        if outcome.get() is Outcome.OPEN:
            outcome.set(Outcome.PASSED)
            self._round.set(self._fresh())
        return outcome.get()

    def _give_up(self, party: object) -> None:
        """Break the round that `party` arrived in, unless it is decided, or only the action's to decide."""
        arrived = self._round.get().arrived
        if party in arrived and (len(arrived) < self._parties or party is arrived[-1]):
            self._break()

    def abort(self) -> None:
        """Break the barrier: who waits, and whoever comes before the next `reset`, gets `BrokenBarrierError`."""
        self._transact("abort", None, self._break)

    def _break(self) -> None:
        outcome = self._round.get().outcome
        outcome.set(Outcome.BROKEN)
        self._round.set(Round(outcome, (), True))

    def reset(self) -> None:
        """Begin a new round. Who waits in the present one gets `BrokenBarrierError`."""
        self._transact("reset", None, self._reset)

    def _reset(self) -> None:
        present = self._round.get()
        if present.arrived or present.broken:
            present.outcome.set(Outcome.BROKEN)
            self._round.set(self._fresh())

    def _fresh(self) -> Round:
        return Round(TVar(Outcome.OPEN, name=self._name))

    @property
    def parties(self) -> int:
        """How many threads it takes."""
        return self._parties

    @property
    def n_waiting(self) -> int:
        """How many threads wait in the present round."""
        return len(self._round.get().arrived)

    @property
    def broken(self) -> bool:
        """Is the barrier broken?"""
        return self._round.get().broken

    def __repr__(self) -> str:
        present = self._round.peek()
        return self._describe("broken" if present.broken else f"waiters={len(present.arrived)}/{self._parties}")


def _arrive(present: Round, party: object, parties: int) -> Round | Waits:
    if present.broken:
        raise BrokenBarrierError("the barrier is broken; reset() makes it usable again")
    if len(present.arrived) == parties:
        return WAIT  # the action of this round is still running
    return Round(present.outcome, (*present.arrived, party))


def _decided(outcome: Outcome) -> Outcome | Waits:
    return WAIT if outcome is Outcome.OPEN else outcome
