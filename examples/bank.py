"""A bank: transfers that wait for cover, standing orders, and an audit that is right at every moment.

    python -m examples.bank                                 four customers, 300 payments each
    python -m examples.bank --customers 10 --payments 1000
    python -m examples.bank --statistics                    which transactions waited, and which met at what

The problem
-----------
Money moves between accounts by many threads. No balance may fall below zero, and no sum over the accounts may ever be
wrong, not even for an instant. It is the textbook's example for locks, and for why they don't compose: out of two
correct transfers one can't make a correct payment from one account *or* another, and nobody can wait for cover.

What it shows
-------------
- *Overdraft waits.* `Bank.transfer` does `check(balance >= amount)`: it sleeps until there is cover. With `timeout=` it
  raises `TransactionTimeout` instead, and nothing has happened.
- *Alternatives.* `Bank.pay` takes the money from the current account, or else from the savings; if neither has it, it
  waits for whichever is in funds first.
- *Conditions over several accounts.* `Bank.top_up` transfers once the one account has cover *and* the other is low.
  A standing order is a thread that does nothing but that; it sleeps for most of its life.
- *Pictures.* `Bank.audit` reads one past moment (`read_only=True`), while transfers go on: it delays none, and the sum
  is right to the penny, also while accounts are being opened and paid into.
- *Messages that are true.* Each booking is published on a `TChannel` by the transaction that makes it, so the clerk who
  reads them sees those that happened, all of them, in order, and can follow each balance. (It is also what transfers
  conflict about, for an order of all bookings is one thing that all of them share: see --statistics.)

What is checked: by each transaction, that no balance is negative; by each audit, that too, and that the sum is what was
paid in; by the clerk, that no account was ever overdrawn in the order of the bookings, and that they explain the final
balances. The program ends with code 1 if any of it is broken. Amounts are whole pence.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

import stm.stats as stats
from stm import TChannel, TCounter, TEvent, TMap, TransactionTimeout, TVar, atomically, check, or_else, run


class Broken(Exception):
    """What must never happen has happened."""


class UnknownAccount(LookupError):
    """There is no account of that name."""


class BankClosed(Exception):
    """The bank is closed, or was before there was cover."""


@dataclass(frozen=True, slots=True)
class Booking:
    """So many pence from one account to another; `None` stands for money from outside."""

    source: str | None
    target: str
    amount: int


class Bank:
    """Accounts by name. All operations may be parts of larger transactions."""

    def __init__(self) -> None:
        self.accounts: TMap[str, TVar[int]] = TMap()
        self.paid_in = TVar(0, name="paid in")
        self.bookings: TChannel[Booking] = TChannel(name="bookings")
        self.transfers = TCounter(name="transfers")
        self.closed = TEvent(name="closed")

    @atomically
    def open(self, name: str, deposit: int = 0) -> None:
        """Open an account, with money from outside. `ValueError` if there is one, or for a negative deposit."""
        self._come_in()
        if name in self.accounts:
            raise ValueError(f"there is an account {name!r} already")
        if deposit < 0:
            raise ValueError(f"a deposit is zero or more, not {deposit}")
        self.accounts[name] = TVar(deposit, name=name)
        self.paid_in.value += deposit
        self.bookings.publish(Booking(None, name, deposit))

    def balance(self, name: str) -> int:
        return self._account(name).value

    def _account(self, name: str) -> TVar[int]:
        try:
            return self.accounts[name]
        except KeyError:
            raise UnknownAccount(f"there is no account {name!r}") from None

    def transfer(self, source: str, target: str, amount: int, timeout: float | None = None) -> None:
        """Transfer that much, as soon as there is cover.

        `TransactionTimeout` if there is none for `timeout` seconds, `BankClosed` if the bank closes before there is;
        `UnknownAccount`, and `ValueError` for an amount less than 1 or a transfer to the same account, at once.
        """
        run(self._transfer, source, target, amount, timeout=timeout)

    def _transfer(self, source: str, target: str, amount: int) -> None:
        self._come_in()
        if amount < 1 or source == target:
            raise ValueError(f"can't transfer {amount} from {source!r} to {target!r}")
        debit, credit = self._account(source), self._account(target)
        check(debit.value >= amount)
        debit.value -= amount
        credit.value += amount
        if debit.value < 0:
            raise Broken(f"{source} is overdrawn: {debit.value}")
        self.bookings.publish(Booking(source, target, amount))
        self.transfers.add()

    def _come_in(self) -> None:
        if self.closed.is_set():  # which wakes those who wait, too
            raise BankClosed

    def pay(self, sources: Iterable[str], target: str, amount: int, timeout: float | None = None) -> None:
        """Transfer from the first of these accounts that has cover. Waits and raises as `transfer` does."""
        run(self._pay, tuple(sources), target, amount, timeout=timeout)

    def _pay(self, sources: Sequence[str], target: str, amount: int) -> None:
        if not sources:
            raise ValueError("no account to pay from")
        or_else(*[partial(self._transfer, source, target, amount) for source in sources])

    @atomically
    def top_up(self, source: str, target: str, amount: int, below: int) -> None:
        """Transfer that much once the one has cover, and the other less than `below`."""
        self._come_in()
        check(self.balance(target) < below)
        self._transfer(source, target, amount)

    @atomically(read_only=True)
    def audit(self) -> Mapping[str, int]:
        """All balances at one moment. `Broken` if one is negative, or if they don't add up."""
        balances = {name: account.value for name, account in self.accounts.items()}
        overdrawn = {name: balance for name, balance in balances.items() if balance < 0}
        if overdrawn or sum(balances.values()) != self.paid_in.value:
            raise Broken(f"{sum(balances.values())} in accounts, {self.paid_in.value} paid in, overdrawn: {overdrawn}")
        return balances

    @atomically
    def close(self) -> None:
        """The last booking has been made: whoever waits for cover, or comes later, gets `BankClosed`."""
        self.closed.set()
        self.bookings.shutdown()


# ---------------------------------------------------------------------------------------------------------- the threads


@dataclass(frozen=True, slots=True)
class Payments:
    """What became of a customer's payments."""

    name: str
    made: int
    bounced: int


def customer(bank: Bank, name: str, payments: int, timeout: float, seed: int) -> Payments:
    """Save something now and then, and spend the rest; give up what finds no cover in time."""
    choose = random.Random(seed)
    savings = f"{name}'s savings"
    bounced = 0
    for _ in range(payments):
        try:
            if choose.random() < 0.2:
                bank.transfer(name, savings, choose.randint(1, 2000), timeout)
            else:
                bank.pay((name, savings), "shop", choose.randint(1, 6000), timeout)
        except TransactionTimeout:
            bounced += 1
    return Payments(name, payments - bounced, bounced)


def standing_order(bank: Bank, source: str, target: str, amount: int, below: int) -> int:
    """Top up until the bank closes. How often that was done."""
    times = 0
    while True:
        try:
            bank.top_up(source, target, amount, below)
        except BankClosed:
            return times
        times += 1


def auditor(bank: Bank) -> int:
    """Audit whenever there were transfers, until the bank closes. How many audits that were."""
    audits = seen = 0
    while not bank.closed.is_set():
        seen = more_transfers_than(bank, seen)
        bank.audit()
        audits += 1
    return audits


@atomically(read_only=True)
def more_transfers_than(bank: Bank, seen: int) -> int:
    number: int = bank.transfers.value
    check(number > seen or bank.closed.is_set())
    return number


def clerk(bookings: Iterable[Booking]) -> Mapping[str, int]:
    """Follow the bookings to their end. The balances that they lead to; `Broken` if an account is ever overdrawn."""
    balances: Counter[str] = Counter()
    for booking in bookings:
        balances[booking.target] += booking.amount
        if booking.source is not None:
            balances[booking.source] -= booking.amount
            if balances[booking.source] < 0:
                raise Broken(f"in the order of the bookings, {booking} overdraws the account")
    return balances


@dataclass(frozen=True, slots=True)
class Day:
    """How a day at the bank went."""

    payments: list[Payments]
    orders: dict[str, int]
    audits: int
    balances: Mapping[str, int]
    seconds: float


def open_for_a_day(bank: Bank, customers: Sequence[str], payments: int, timeout: float, seed: int) -> Day:
    """Let them all spend their money. `Broken` if what must not happen happens."""
    history = bank.bookings.subscribe()
    bank.open("shop")
    bank.open("employer", 20_000 * len(customers))
    for name in customers:
        bank.open(f"{name}'s savings")
        bank.open(name, 10_000)
    orders = {f"wages of {name}": ("employer", name, 10_000, 8_000) for name in customers[:-1]}  # the last has no work
    orders["the shop's takings"] = ("shop", "employer", 10_000, 10_000 * len(customers))
    begun = time.perf_counter()
    with ThreadPoolExecutor(len(customers) + len(orders) + 2) as pool:
        try:
            following, auditing = pool.submit(clerk, history), pool.submit(auditor, bank)
            standing = {name: pool.submit(standing_order, bank, *order) for name, order in orders.items()}
            # Who has no income won't get far, and each payment that bounces takes its time.
            many = [payments] * (len(customers) - 1) + [min(payments, 20)]
            spending = [
                pool.submit(customer, bank, name, many[n], timeout, seed + n) for n, name in enumerate(customers)
            ]
            spent = [each.result() for each in spending]
        finally:
            bank.close()
        times = {name: order.result() for name, order in standing.items()}
        audits, explained = auditing.result(), following.result()
    seconds = time.perf_counter() - begun
    balances = bank.audit()
    if explained != balances:
        raise Broken(f"the bookings lead to {dict(explained)}, the accounts hold {dict(balances)}")
    return Day(spent, times, audits, balances, seconds)


# ---------------------------------------------------------------------------------------------------------- the program

NAMES = ("Ada", "Barbara", "Edsger", "Grace", "John", "Leslie", "Niklaus", "Tony")


def pounds(pence: int) -> str:
    return f"{pence / 100:,.2f}"


def report(bank: Bank, day: Day, waits: int) -> None:
    transfers = bank.transfers.value
    print(f"{transfers:,} transfers in {day.seconds:.2f} s; {waits:,} times somebody slept until there was cover")
    print(f"  {'customer':<12}{'payments':>10}{'bounced':>10}{'balance':>12}{'savings':>12}{'wages':>8}")
    for each in day.payments:
        money = pounds(day.balances[each.name]), pounds(day.balances[f"{each.name}'s savings"])
        wages = day.orders.get(f"wages of {each.name}", 0)
        print(f"  {each.name:<12}{each.made:>10,}{each.bounced:>10,}{money[0]:>12}{money[1]:>12}{wages:>8,}")
    print(f"{day.audits:,} audits on the way: always {pounds(bank.paid_in.value)} in all, and no account overdrawn.")
    print(f"The clerk read {transfers + len(day.balances):,} bookings, which explain every balance.")


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")  # one line; argparse would put the usage before it


def whole(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"a whole number from {least} to {most:,}, not {text!r}")
        return int(text)

    return number


def seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1
    if not 0 <= number <= 60:
        raise argparse.ArgumentTypeError(f"a number of seconds from 0 to 60, not {text!r}")
    return number


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="bank", description="Transfers that wait for cover, and audits that are always right.")
    add = parser.add_argument
    add("--customers", type=whole(2, 200), default=4, metavar="N", help="the last has no income (default: %(default)s)")
    add("--payments", type=whole(1, 10**6), default=300, metavar="N", help="for each (default: %(default)s)")
    add("--timeout", type=seconds, default=0.05, metavar="SECONDS", help="to wait for cover (default: %(default)s)")
    add(
        "--seed", type=whole(0, 2**31), default=1, metavar="N", help="other payments of the kind (default: %(default)s)"
    )
    add("--statistics", action="store_true", help="print what the transactions did")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with these arguments (default: the command line's). Returns the exit code."""
    options = arguments(argv)
    bank = Bank()
    names = [NAMES[i % len(NAMES)] + (f" {i // len(NAMES) + 1}" if i >= len(NAMES) else "") for i in range(200)]
    try:
        with stats.enabled():
            day = open_for_a_day(bank, names[: options.customers], options.payments, options.timeout, options.seed)
    except Broken as broken:
        print(f"BROKEN: {broken}")
        return 1
    except KeyboardInterrupt:
        print("bank: interrupted", file=sys.stderr)
        return 130
    counted = stats.snapshot()
    waiting = [name for name in ("Bank._transfer", "Bank._pay", "Bank.top_up") if name in counted]
    report(bank, day, sum(counted[name].waits for name in waiting))
    if options.statistics:
        stats.report()
    return 0


if __name__ == "__main__":
    sys.exit(main())
