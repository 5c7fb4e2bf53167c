"""`examples/bank.py`: no balance below zero, no wrong sum at any moment, and waits that end as they should."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from examples import bank as program
from examples.bank import Bank, BankClosed, Booking, Broken, UnknownAccount
from stm import TransactionTimeout, atomically
from tests.support import Background, asleep, together


@pytest.fixture
def bank() -> Bank:
    bank = Bank()
    for name, deposit in (("current", 100), ("savings", 500), ("shop", 0)):
        bank.open(name, deposit)
    return bank


def test_a_transfer_waits_for_cover(bank: Bank) -> None:
    waiting = Background(bank.transfer, "current", "shop", 150)
    asleep()
    bank.transfer("savings", "current", 49)
    asleep()
    bank.transfer("savings", "current", 1)
    waiting.result()
    assert bank.audit() == {"current": 0, "savings": 450, "shop": 150}


def test_a_transfer_gives_up_when_its_time_is_over(bank: Bank) -> None:
    before = bank.audit()
    with pytest.raises(TransactionTimeout, match=r"waited 0\.01 s in vain"):
        bank.transfer("current", "shop", 150, timeout=0.01)
    with pytest.raises(TransactionTimeout):
        bank.pay(("current", "savings"), "shop", 501, timeout=0.01)
    assert bank.audit() == before
    assert bank.transfers.value == 0


def test_a_payment_comes_from_the_first_account_with_cover(bank: Bank) -> None:
    bank.pay(("current", "savings"), "shop", 60)
    assert bank.audit() == {"current": 40, "savings": 500, "shop": 60}
    bank.pay(("current", "savings"), "shop", 60)
    assert bank.audit() == {"current": 40, "savings": 440, "shop": 120}


@pytest.mark.parametrize("funded", ["current", "savings"])
def test_a_payment_waits_for_either(bank: Bank, funded: str) -> None:
    bank.open("employer", 1000)
    waiting = Background(bank.pay, ("current", "savings"), "shop", 700)
    asleep()
    bank.transfer("employer", funded, 650)
    waiting.result()
    assert bank.balance("shop") == 700


def test_a_top_up_waits_for_cover_and_for_need(bank: Bank) -> None:
    waiting = Background(bank.top_up, "shop", "current", 30, 50)
    asleep()
    bank.transfer("savings", "shop", 30)  # cover, but no need
    asleep()
    bank.transfer("current", "savings", 60)
    waiting.result()
    assert bank.balance("current") == 70
    waiting = Background(bank.top_up, "shop", "current", 30, 100)
    asleep()  # need, but no cover
    bank.transfer("savings", "shop", 30)
    waiting.result()
    assert bank.balance("current") == 100


def test_when_the_bank_closes_who_waits_goes_home(bank: Bank) -> None:
    waiting = [
        Background(bank.transfer, "current", "shop", 150),
        Background(bank.pay, ("current", "savings"), "shop", 1000),
        Background(bank.top_up, "current", "shop", 10, 0),
        Background(program.more_transfers_than, bank, 0),
    ]
    asleep(4)
    bank.close()
    for each in waiting[:3]:
        with pytest.raises(BankClosed):
            each.result()
    waiting[3].result()
    for late in (lambda: bank.transfer("current", "shop", 1), lambda: bank.open("new")):
        with pytest.raises(BankClosed):
            late()
    assert bank.audit() == {"current": 100, "savings": 500, "shop": 0}


def test_transfers_compose_all_or_nothing(bank: Bank) -> None:
    @atomically
    def both() -> None:
        bank.transfer("current", "shop", 10)
        bank.transfer("current", "nobody", 10)

    with pytest.raises(UnknownAccount, match="there is no account 'nobody'"):
        both()
    assert bank.audit() == {"current": 100, "savings": 500, "shop": 0}
    assert bank.transfers.value == 0


def test_every_audit_is_right_while_others_transfer_and_open_accounts(bank: Bank) -> None:
    names = ["current", "savings", "shop"]
    done: list[int] = []

    def transfers(seed: int) -> None:
        choose = random.Random(seed)
        for _ in range(300):
            source, target = choose.sample(names, 2)
            try:
                bank.transfer(source, target, choose.randint(1, 300), timeout=0)
            except TransactionTimeout:
                pass
        done.append(seed)

    def openings() -> None:
        for number in range(30):
            bank.open(f"new {number}", 7)
        done.append(3)

    def audits() -> int:
        number = 0
        while len(done) < 3:
            balances = bank.audit()
            assert min(balances.values()) >= 0
            assert sum(balances.values()) == 600 + 7 * (len(balances) - 3)
            number += 1
        return number

    history = bank.bookings.subscribe()
    opened = bank.audit()
    number = together(lambda: transfers(1), lambda: transfers(2), openings, audits)[3]
    assert number > 0
    bank.close()
    explained = program.clerk([*(Booking(None, name, amount) for name, amount in opened.items()), *history])
    assert explained == bank.audit()


def test_a_day_at_the_bank() -> None:
    bank = Bank()
    day = program.open_for_a_day(bank, ["Ada", "Grace", "Tony"], 60, 0.02, seed=3)
    assert [each.made + each.bounced for each in day.payments] == [60, 60, 20]
    assert sum(day.balances.values()) == bank.paid_in.value == 3 * 30_000
    assert day.audits > 0
    assert day.orders["the shop's takings"] > 0


def overdraw(bank: Bank) -> None:
    bank.accounts["shop"].value -= 200
    bank.accounts["savings"].value += 200


def lose(bank: Bank) -> None:
    bank.accounts["savings"].value -= 1


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (overdraw, "600 in accounts, 600 paid in, overdrawn: {'shop': -200}"),
        (lose, "599 in accounts, 600 paid in, overdrawn: {}"),
    ],
)
def test_an_audit_notices_what_is_wrong(bank: Bank, spoil: Callable[[Bank], None], told: str) -> None:
    atomically(spoil)(bank)
    with pytest.raises(Broken) as caught:
        bank.audit()
    assert str(caught.value) == told


def test_a_transfer_without_cover_is_noticed(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "check", bool)
    with pytest.raises(Broken, match="current is overdrawn: -50"):
        bank.transfer("current", "shop", 150)
    assert bank.balance("current") == 100


def test_the_clerk_notices_an_account_that_was_overdrawn_meanwhile() -> None:
    bookings = [Booking(None, "a", 5), Booking(None, "b", 5), Booking("a", "b", 6), Booking("b", "a", 6)]
    with pytest.raises(Broken, match="overdraws the account"):
        program.clerk(bookings)


def test_what_is_broken_is_printed_and_ends_with_code_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = program.clerk

    def careless(bookings: Any) -> Any:
        balances = honest(bookings)
        balances["shop"] += 1
        return balances

    monkeypatch.setattr(program, "clerk", careless)
    assert program.main(["--customers", "2", "--payments", "3", "--timeout", "0"]) == 1
    assert capsys.readouterr().out.startswith("BROKEN: the bookings lead to {")


def test_statistics_name_the_transactions(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--customers", "2", "--payments", "20", "--timeout", "0.01", "--statistics"]) == 0
    out = capsys.readouterr().out
    assert "\nBank._pay " in out
    assert "\nBank.audit " in out


def test_wrong_use_is_refused_at_once(bank: Bank) -> None:
    with pytest.raises(ValueError, match="there is an account 'shop' already"):
        bank.open("shop")
    with pytest.raises(ValueError, match="a deposit is zero or more, not -1"):
        bank.open("new", -1)
    with pytest.raises(UnknownAccount, match="there is no account 'new'"):
        bank.balance("new")
    for amount, target in ((0, "shop"), (-5, "shop"), (5, "current")):
        with pytest.raises(ValueError, match=f"can't transfer {amount} from 'current' to '{target}'"):
            bank.transfer("current", target, amount)
    with pytest.raises(UnknownAccount):
        bank.pay(("nobody", "savings"), "shop", 10)
    with pytest.raises(ValueError, match="no account to pay from"):
        bank.pay((), "shop", 10)
