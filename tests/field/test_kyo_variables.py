"""Cases of kyo, `kyo-stm/.../kyo/`: TRefTest, and the problems of the textbooks in STMTest."""

import threading

import pytest

from stm import (
    TransactionTimeout,
    TVar,
    atomically,
    check,
    run,
    snapshot,
)
from tests.support import Background, elsewhere, together, until


class Oops(Exception):
    """What a body fails with."""


# ------------------------------------------------------------------------------ problems of the textbooks


def test_philosophers():
    """kyo, STMTest: dining philosophers. Five forks, each taken and laid back in one step, ten meals each."""
    forks = [TVar(True) for _ in range(5)]
    meals, lock = [], threading.Lock()

    @atomically
    def take(left, right):
        for fork in (left, right):
            check(fork.get())
            fork.set(False)

    @atomically
    def lay_back(left, right):
        left.set(True)
        right.set(True)

    def dine(i):
        for _ in range(10):
            take(forks[i], forks[(i + 1) % 5])
            with lock:
                meals.append(i)
            lay_back(forks[i], forks[(i + 1) % 5])

    together(*(lambda i=i: dine(i) for i in range(5)))
    assert sorted(meals) == sorted(list(range(5)) * 10)
    assert snapshot(*forks) == (True,) * 5


@pytest.mark.parametrize(("balances", "amounts"), [((500, 300, 200), (250, 200, 150)), ((300, 200, 100), (80, 60, 40))])
def test_money_goes_round(balances, amounts):
    """kyo, STMTest: bank account transfers, circular account transfers. Nobody is overdrawn, and nothing is lost."""
    accounts = [TVar(balance) for balance in balances]

    @atomically
    def transfer(source, target, amount):
        check(source.get() >= amount)
        source.value -= amount
        target.value += amount
        assert min(one.get() for one in accounts) >= 0

    works = [lambda i=i: [transfer(accounts[i], accounts[(i + 1) % 3], amounts[i]) for _ in range(3)] for i in range(3)]
    together(*works)
    final = snapshot(*accounts)
    assert sum(final) == sum(balances)
    assert final == tuple(b - 3 * amounts[i] + 3 * amounts[i - 1] for i, b in enumerate(balances))


# ------------------------------------------------------------------------------ one variable


@pytest.mark.parametrize("value", [42, "", None, (), float("nan"), print])
def test_a_variable_holds_anything(value):
    """kyo, TRefTest: init and get, set and get, null; a stored computation is opaque, and is not run."""
    assert TVar(value).get() is value
    ref = TVar("initial")
    assert run(lambda: (ref.set(value), ref.get())[1]) is value
    assert ref.get() is value


def test_a_variable_is_itself_alone():
    """kyo, TRefTest: equals and hashCode are reference-identity."""
    one, other = TVar(7), TVar(7)
    alias = one
    assert one == alias
    assert hash(one) == hash(alias)
    assert one != other
    assert len({one, other, alias}) == 2


def test_what_is_printed_shows_the_value():
    """kyo, TRefTest: toString: sequential observations during sequential commits. The last value is shown."""
    ref = TVar(0)
    for value in (0, 1, 777):
        ref.set(value)
        assert str(value) in repr(ref)
    run(lambda: (ref.set(5), repr(ref)))
    assert "5" in repr(ref)


def test_updates_build_on_one_another():
    """kyo, TRefTest: update: the lambda sees the current in-log value; identity update; once per attempt."""
    ref, calls = TVar(0), []

    def add(value, n):
        calls.append(value)
        return value + n

    assert run(lambda: (ref.update(add, 1), ref.update(add, 10))) == (1, 11)
    assert calls == [0, 1]
    assert ref.update(lambda value: value) == 11
    assert ref.get() == 11


def test_an_update_runs_again_with_the_attempt():
    """kyo, TRefTest: update: lambda invocation count equals retry count + 1."""
    ref, go, calls = TVar(0), TVar(0), []

    @atomically
    def body():
        ref.update(lambda value: calls.append(value) or value + 1)
        check(go.get() == 3)

    waiting = Background(body)
    for value in (1, 2, 3):
        until(lambda value=value: len(calls) >= value)
        go.set(value)
    waiting.result()
    assert set(calls) == {0}
    assert 2 <= len(calls) <= 4
    assert ref.get() == 1


def test_a_write_of_the_same_value_is_a_write():
    """kyo, TRefTest: sequential same-value writes advance the entry tick. Who read before does not commit."""
    ref, result, attempts = TVar(0), TVar(None), []

    @atomically
    def body():
        attempts.append(ref.get())
        if len(attempts) < 3:
            elsewhere(ref.set, 0)
        result.set(len(attempts))

    body()
    assert (attempts, result.get()) == ([0, 0, 0], 3)


@pytest.mark.parametrize("end", ["fails", "retries"])
def test_a_variable_of_a_discarded_transaction_has_its_first_value(end):
    """kyo, TRefTest: a TRef created inside a doomed transaction is observable post-rollback, at its initial value."""
    kept = []

    @atomically(timeout=0)
    def body():
        ref = TVar(100)
        kept.append(ref)
        ref.set(999)
        assert ref.get() == 999
        if end == "fails":
            raise Oops
        check(TVar(0).get())

    with pytest.raises((Oops, TransactionTimeout)):
        body()
    (ref,) = kept
    assert run(ref.get) == 100
    assert ref.update(lambda value: value + 1) == 101
    assert elsewhere(ref.get) == 101


def test_a_variable_made_in_a_nested_transaction():
    """kyo, TRefTest: init uses the current transaction; nests properly in nested transactions; initWith."""
    outer = TVar(1)

    @atomically
    def inner():
        fresh = TVar(2)
        outer.set(3)
        fresh.set(4)
        return fresh

    @atomically
    def body():
        fresh = inner()
        return outer.get(), fresh.get(), fresh

    *values, fresh = body()
    assert values == [3, 4]
    assert fresh.get() == 4
