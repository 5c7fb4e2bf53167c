"""What the classes of `stm.sync` share: a state that pure functions revise, waiting, names, time limits.

An operation is a function from the state to the next one, or to `WAIT` where there is none yet. It is applied first by
`compare_and_set`, which is all there is to do mostly; and if it has to wait, or if others were quicker `ROUNDS` times,
as a transaction, which can sleep and can't starve.

Time limits are seconds; a negative one counts as zero, as in `threading`. Inside a transaction an operation with a
limit is always a nested scope, also where there is nothing to wait for: the scopes of one attempt would otherwise be
taken for those of another, and inherit their time.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from enum import Enum
from typing import Any, Final, Literal, NoReturn, SupportsIndex, TypeVar

from stm import TVar, check, in_transaction, run

S = TypeVar("S")
R = TypeVar("R")

#: Attempts without a transaction before one is made.
ROUNDS = 4


class Wait(Enum):
    """The type of `WAIT`, an operation's answer to a state that it can't be applied to yet."""

    WAIT = "wait"


WAIT: Final = Wait.WAIT
Waits = Literal[Wait.WAIT]


class Synchronizer:
    """An object with a name, whose operations are transactions. Comparison and hash go by identity."""

    __slots__ = ("__weakref__", "_name")

    def __init__(self, name: str | None) -> None:
        self._name = name

    def _revise(
        self,
        state: TVar[S],
        operation: str,
        timeout: float | None,
        f: Callable[..., S | Waits],
        *args: object,
    ) -> S:
        """Replace the state by `f(state, *args)`, as soon as that is not `WAIT`; returns the state before.

        Nothing is written if `f` returns the state itself. `TransactionTimeout` after so many seconds.
        """
        if timeout is None or not in_transaction():
            for _ in range(ROUNDS):
                before = state.get()
                after = f(before, *args)
                if after is WAIT:
                    break
                if after is before or state.compare_and_set(before, after):
                    return before
        return self._transact(operation, timeout, _Step(state, f), *args)  # type: ignore[no-any-return]

    def _transact(self, operation: str, timeout: float | None, body: Callable[..., R], *args: object) -> R:
        """Run `body(*args)` as a transaction that bears the name of this object and of its operation."""
        return run(body, *args, timeout=timeout, name=f"{self._name or type(self).__name__}.{operation}")

    def _describe(self, state: object) -> str:
        name = "" if self._name is None else f" {self._name!r}"
        return f"<{type(self).__name__}{name} {state}>"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(
            f"{self!r} can't be pickled or copied: threads of this process meet at it, and nobody would meet them at "
            "a copy. Pass the object itself to threads; other processes need something of their own"
        )


class _Step:
    """One attempt to revise a state, as a transaction's body.

    Two for the same state and function are equal: in the next attempt of an enclosing transaction, a nested time limit
    is found again by that.
    """

    __slots__ = ("_f", "_state")

    def __init__(self, state: TVar[Any], f: Callable[..., Any]) -> None:
        self._state = state
        self._f = f

    def __call__(self, *args: Any) -> Any:
        before = self._state.get()
        after = self._f(before, *args)
        check(after is not WAIT)
        if after is not before:
            self._state.set(after)
        return before

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Step) and self._state is other._state and self._f is other._f

    def __hash__(self) -> int:
        return hash((self._state, self._f))


def seconds(timeout: float) -> float:
    """The time limit, or zero for a negative one. `TypeError` or `ValueError` for what is not a number of seconds."""
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout must be a number of seconds or None, not {timeout!r}")
    if timeout != timeout:
        raise ValueError("timeout must be a number of seconds or None, not NaN")
    return max(timeout, 0)


def whole(what: str, number: SupportsIndex, least: int) -> int:
    """`number` as an `int`. `TypeError` if it is not a whole number, `ValueError` if it is less than `least`."""
    try:
        n = operator.index(number)
    except TypeError:
        raise TypeError(f"{what} must be a whole number, not {number!r}") from None
    if n < least:
        raise ValueError(f"{what} must be {least} or more, not {n}")
    return n
