"""Accounts with money in them, kept consistent in each of the ways that are compared; and the operands drawn for them.

Promise: the variants do the same arithmetic on the same operands through a call of one Python function, and differ in
synchronisation alone. Every balance that a list of transfers must lead to is known beforehand, since transfers commute,
so a check of the balances also finds a transfer that was lost whole, which the total alone would not show.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.harness import InvariantError
from stm import TVar, atomically

OPENING_BALANCE: Final = 1_000

Pair = tuple[int, int]


class Account:
    """The plain slotted object that one uses with a lock."""

    __slots__ = ("balance",)

    def __init__(self) -> None:
        self.balance = OPENING_BALANCE


class LockedAccount(Account):
    """An account with a lock of its own, and a rank in the order in which locks are taken."""

    __slots__ = ("lock", "rank")

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank = rank
        self.lock = threading.Lock()


@dataclass(frozen=True)
class Bank:
    """Accounts of one variant, and the functions for them.

    `transfer(source, target)` moves 1. `visit(accounts, moves)` sums them up, and moves 1 from the first to the second
    if `moves`. `balances()` is for checks, when nobody else is at work.
    """

    accounts: Sequence[Any]
    transfer: Callable[[Any, Any], object]
    visit: Callable[[Sequence[Any], bool], int]
    balances: Callable[[], list[int]]


@atomically
def _transfer(source: TVar[int], target: TVar[int]) -> None:
    source.set(source.get() - 1)
    target.set(target.get() + 1)


@atomically
def _visit(accounts: Sequence[TVar[int]], moves: bool) -> int:
    total = 0
    for account in accounts:
        total += account.get()
    if moves:
        first, second = accounts[0], accounts[1]
        first.set(first.get() - 1)
        second.set(second.get() + 1)
    return total


def stm_bank(size: int) -> Bank:
    """Accounts are `TVar`s, operations are transactions."""
    accounts = [TVar(OPENING_BALANCE) for _ in range(size)]
    return Bank(accounts, _transfer, _visit, lambda: [account.peek() for account in accounts])


def _bare_transfer(source: Account, target: Account) -> None:
    source.balance -= 1
    target.balance += 1


def _bare_visit(accounts: Sequence[Account], moves: bool) -> int:
    total = 0
    for account in accounts:
        total += account.balance
    if moves:
        first, second = accounts[0], accounts[1]
        first.balance -= 1
        second.balance += 1
    return total


def bare_bank(size: int) -> Bank:
    """No synchronisation: what the work itself costs. For one thread."""
    accounts = [Account() for _ in range(size)]
    return Bank(accounts, _bare_transfer, _bare_visit, lambda: [account.balance for account in accounts])


def lock_bank(size: int) -> Bank:
    """One lock around every operation."""
    accounts = [Account() for _ in range(size)]
    lock = threading.Lock()

    def transfer(source: Account, target: Account) -> None:
        with lock:
            source.balance -= 1
            target.balance += 1

    def visit(accounts: Sequence[Account], moves: bool) -> int:
        total = 0
        with lock:
            for account in accounts:
                total += account.balance
            if moves:
                first, second = accounts[0], accounts[1]
                first.balance -= 1
                second.balance += 1
        return total

    return Bank(accounts, transfer, visit, lambda: [account.balance for account in accounts])


def _fine_transfer(source: LockedAccount, target: LockedAccount) -> None:
    first, second = (source, target) if source.rank < target.rank else (target, source)
    with first.lock, second.lock:
        source.balance -= 1
        target.balance += 1


def _fine_visit(accounts: Sequence[LockedAccount], moves: bool) -> int:
    # The accounts come in order of rank already: the least that fine locking can cost.
    total = 0
    held = []
    try:
        for account in accounts:
            account.lock.acquire()
            held.append(account)
            total += account.balance
        if moves:
            first, second = accounts[0], accounts[1]
            first.balance -= 1
            second.balance += 1
    finally:
        for account in held:
            account.lock.release()
    return total


def fine_bank(size: int) -> Bank:
    """One lock per account, taken in order of rank, so that no two threads can wait for each other."""
    accounts = [LockedAccount(rank) for rank in range(size)]
    return Bank(accounts, _fine_transfer, _fine_visit, lambda: [account.balance for account in accounts])


BANKS: Final[dict[str, Callable[[int], Bank]]] = {
    "stm": stm_bank,
    "lock": lock_bank,
    "fine": fine_bank,
    "nothing": bare_bank,
}


def draw(size: int, count: int, how_many: int, *, skewed: bool = False, seed: int = 0) -> list[tuple[int, ...]]:
    """`count` choices of `how_many` different indices below `size`; skewed: index i with weight 1 / (i + 1), like Zipf.

    The same for the same arguments, so that every variant and every run has the same work.
    """
    chance = random.Random(f"{size} {count} {how_many} {skewed} {seed}")
    if not skewed:
        everything = range(size)
        return [tuple(chance.sample(everything, how_many)) for _ in range(count)]
    weights = list(itertools.accumulate(1 / (rank + 1) for rank in range(size)))
    indices = range(size)
    choices = []
    for _ in range(count):
        choice: dict[int, None] = {}
        while len(choice) < how_many:
            choice[chance.choices(indices, cum_weights=weights)[0]] = None
        choices.append(tuple(choice))
    return choices


def after_moves(size: int, moves: Iterable[Sequence[int]]) -> list[int]:
    """The balances that these moves, of 1 from the first account named to the second, lead to in whatever order."""
    balances = [OPENING_BALANCE] * size
    for source, target, *_ in moves:
        balances[source] -= 1
        balances[target] += 1
    return balances


def audit(found: Sequence[int], expected: Sequence[int]) -> None:
    """Raise `InvariantError` unless the balances are what they must be."""
    if sum(found) != sum(expected):
        raise InvariantError(f"the accounts together hold {sum(found)} instead of {sum(expected)}")
    for index, (is_now, should_be) in enumerate(zip(found, expected, strict=True)):
        if is_now != should_be:
            raise InvariantError(
                f"no money was made or lost, but account {index} holds {is_now} instead of {should_be}: "
                "some transfer took place not exactly once"
            )
