"""What transactions over variables do in a soak, and what must be true of it at any moment.

Everything is moved, nothing is made: units between accounts, between the keys of a map, between an account and a queue.
So the sum is the same in every state that anybody may see, in an attempt that is lost too; who sees another one says so
(`Bank.wrong`), and not by an exception, which would be discarded with such an attempt.
"""

import random
import threading
from collections.abc import Callable

import stm
from stm import (
    TCounter,
    TMap,
    TPriorityQueue,
    TQueue,
    TransactionTimeout,
    TVar,
    atomically,
    check,
    exchange,
    on_commit,
    or_else,
    retry,
)

ACCOUNTS = 24
KEYS = 40
UNITS = 100
TOTAL = ACCOUNTS * UNITS
WAIT = 0.002


class Undone(Exception):
    """Ends a scope, or a transaction, whose writes must not be seen."""


class Bank:
    """The variables, and what must be true of them."""

    def __init__(self) -> None:
        self.accounts = [TVar(UNITS, name=f"account {number}") for number in range(ACCOUNTS)]
        self.shelf: TMap[int, int] = TMap(dict.fromkeys(range(KEYS), UNITS))
        self.belt: TQueue[int] = TQueue()
        self.heap: TPriorityQueue[int] = TPriorityQueue()
        self.on_belt, self.on_heap = TVar(0), TVar(0)
        self.moves = TCounter()
        self.told: list[None] = []  # by hooks, one for each move; `append` is one step
        self.token = TVar(0)
        self.pair = TVar(0), TVar(0)
        self.wrong: list[str] = []

    def audit(self, where: str) -> None:
        """In a transaction: is everything there?"""
        if (total := sum(account.get() for account in self.accounts)) != TOTAL:
            self.wrong.append(f"{where} saw {total} units instead of {TOTAL}")

    def close(self) -> None:
        """Nobody is at work: the books."""
        stm.run(self.audit, "the end of a round")
        for what, got, right in (
            ("units on the shelf", sum(self.shelf.values()), KEYS * UNITS),
            ("items on the belt", self.belt.qsize(), self.on_belt.get()),
            ("items on the heap", self.heap.qsize(), self.on_heap.get()),
            ("moves that were told of", len(self.told), self.moves.get()),
            ("the second of a pair", self.pair[1].get(), self.pair[0].get()),
        ):
            if got != right:
                self.wrong.append(f"{what}: {got}, and should be {right}")
        self.told.clear()
        self.moves.reset()
        stm.run(self.clear)

    def clear(self) -> None:
        """In a transaction: take what is left. (As many are put in as taken out, on the average; so there would be ever
        more of them, as in any random walk that can't go below zero, and memory would grow with it.)"""
        if self.on_belt.value:
            self.belt.get_many(self.on_belt.value)
        rest = self.heap.get_many(self.on_heap.value) if self.on_heap.value else []
        if rest != sorted(rest):
            self.wrong.append("a priority queue gave out its items in the wrong order")
        self.on_belt.value = self.on_heap.value = 0
        for queue in (self.belt, self.heap):
            if not queue.empty():
                self.wrong.append(f"there is more in {queue!r} than was put in")


def tasks(bank: Bank, chance: random.Random) -> list[Callable[[], object]]:
    """The kinds of transactions. The more common ones are in it several times. Each may be called again and again."""
    accounts, pick = bank.accounts, chance.randrange

    def two() -> tuple[TVar[int], TVar[int]]:
        first = pick(ACCOUNTS)
        return accounts[first], accounts[(first + 1 + pick(ACCOUNTS - 1)) % ACCOUNTS]

    @atomically
    def move(source: TVar[int], target: TVar[int], amount: int) -> None:
        source.value -= amount
        target.value += amount

    def transfer() -> None:
        move(*two(), pick(5))

    @atomically
    def spread() -> None:
        """One that reads and writes many, and tells of it when it is certain."""
        source = accounts[pick(ACCOUNTS)]
        for target in chance.sample(accounts, 4):
            if target is not source:
                move(source, target, 1)
        bank.moves.add(1)
        on_commit(bank.told.append, None)

    @atomically(read_only=True)
    def look() -> None:
        bank.audit("a read-only transaction")

    @atomically
    def count() -> None:
        bank.audit("a transaction")

    def picture() -> None:
        if (total := sum(stm.snapshot(*accounts))) != TOTAL:
            bank.wrong.append(f"a snapshot saw {total} units instead of {TOTAL}")

    @atomically
    def undo() -> None:
        """A scope that comes to nothing, in a transaction that goes on."""
        source, target = two()
        try:
            atomically(half)(source)
        except Undone:
            pass
        move(source, target, 1)
        bank.audit("a transaction with an undone scope")

    def half(source: TVar[int]) -> None:
        source.value -= 1
        raise Undone

    def fail() -> None:
        try:
            stm.run(half, accounts[pick(ACCOUNTS)])
        except Undone:
            pass

    @atomically
    def choose() -> None:
        """The left alternative takes something away, and then finds that it can't be."""
        source, target = two()

        def left() -> None:
            source.value -= 1000
            check(source.value >= 0)
            target.value += 1000

        or_else(left, lambda: move(source, target, 1))

    @atomically(irrevocable=True)
    def insist() -> None:
        move(*two(), 1)
        bank.audit("an irrevocable transaction")

    @atomically
    def put() -> None:
        bank.belt.put(pick(100))
        bank.on_belt.value += 1
        bank.heap.put(pick(100))
        bank.on_heap.value += 1

    @atomically
    def get() -> None:
        if bank.belt.qsize() > 0:
            bank.belt.get()
            bank.on_belt.value -= 1
        if bank.heap.qsize() > 0:
            first = bank.heap.get()
            bank.on_heap.value -= 1
            if bank.heap.qsize() > 0 and bank.heap.peek() < first:
                bank.wrong.append("a priority queue gave out the second before the first")

    @atomically
    def rearrange() -> None:
        source, target = chance.sample(range(KEYS), 2)
        amount = bank.shelf.pop(source)
        bank.shelf[target] = bank.shelf.get(target, 0) + amount // 2
        bank.shelf[source] = amount - amount // 2

    def trade() -> None:
        """Two variables by compare-and-set, without a transaction around it."""
        source, target = two()
        before, after = source.get(), target.get()
        exchange((source, before, before - 1), (target, after, after + 1))

    def pass_on() -> None:
        bank.token.update(lambda value: value + 1)

    def wait() -> None:
        """Sleep until the token is passed on, or for a while."""
        seen = bank.token.get()

        def passed() -> None:
            if bank.token.get() == seen:
                retry()

        try:
            stm.run(passed, timeout=WAIT * chance.random())
        except TransactionTimeout:
            pass

    @atomically
    def both() -> None:
        """One value in two variables, which nobody may see apart."""
        first, second = bank.pair
        number = first.get() + 1
        first.set(number)
        second.set(number)

    @atomically
    def compare() -> None:
        first, second = bank.pair
        if first.get() != second.get():
            bank.wrong.append("a pair was seen apart")

    return [
        *[transfer] * 12,
        *[both, compare, pass_on, trade, choose] * 3,
        *[spread, look, count, picture, undo, fail, put, get, rearrange] * 2,
        wait,
        insist,
    ]


class Hand:
    """Runs transactions until it is told to stop. `done`: how many calls came to an end."""

    def __init__(self, bank: Bank, seed: int, stop: threading.Event) -> None:
        self.name = f"hand {seed}"
        self.chance = random.Random(seed)
        self.tasks = tasks(bank, self.chance)
        self.stop = stop
        self.done = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.stop.is_set():
                self.work(50)
        except BaseException as error:
            self.error = error

    def work(self, calls: int) -> None:
        for task in self.chance.choices(self.tasks, k=calls):
            task()
            self.done += 1
