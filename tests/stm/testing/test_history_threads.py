"""Histories of real threads: the real `stm` is found opaque; one that has lost a protection is not."""

import random
import sys
import threading

import pytest

import stm.execution
import stm.quick
import stm.testing._recording
import stm.transaction
from stm import TQueue, TVar, atomically, check, exchange, or_else, run, snapshot
from stm.clock import clock
from stm.execution import in_scope
from stm.testing import inject
from stm.testing.history import History, NotOpaque
from stm.transaction import Retry, Transaction, store
from tests.support import Background, Once, asleep, elsewhere, together


@pytest.fixture
def _restless():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


class Odd(Exception):
    pass


class Bank:
    """Transactions of many kinds over a few variables."""

    def __init__(self):
        self.accounts = [TVar(10, name=f"account {number}") for number in range(6)]
        self.hint = TVar(None, name="hint")

    @atomically
    def transfer(self, a, b, amount):
        self.accounts[a].value -= amount
        self.accounts[b].value += amount

    @atomically
    def total(self):
        return sum(account.value for account in self.accounts)

    @atomically(read_only=True)
    def audit(self):
        return sum(account.value for account in self.accounts)

    @atomically
    def either(self, a, b):
        def of(account):
            check(account.value > 0)
            account.value -= 1

        or_else(lambda: of(self.accounts[a]), lambda: of(self.accounts[b]), lambda: self.hint.set(a))

    @atomically(irrevocable=True)
    def shuffle(self):
        values = [account.value for account in self.accounts]
        for account, value in zip(self.accounts, reversed(values), strict=True):
            account.value = value

    @atomically
    def odd(self, a, b):
        self.accounts[a].value += 1
        try:
            self.refuse(b)
        except Odd:
            raise KeyError from None

    @atomically
    def refuse(self, b):
        self.accounts[b].value += 1
        raise Odd


def customer(bank, seed, steps):
    chance = random.Random(seed)
    for _ in range(steps):
        a, b = chance.sample(range(6), 2)
        kind = chance.randrange(20)
        if kind < 8:
            bank.transfer(a, b, 1)
        elif kind < 11:
            bank.total()
        elif kind < 12:
            bank.audit()
        elif kind < 13:
            snapshot(*bank.accounts)
        elif kind < 14:
            bank.either(a, b)
            bank.accounts[a].update(lambda value: value + 1)
        elif kind < 15:
            bank.shuffle()
        elif kind < 16:
            with pytest.raises(KeyError):
                bank.odd(a, b)
        elif kind < 17:
            value = bank.accounts[a].value
            bank.accounts[a].compare_and_set(value, value)
        elif kind < 18:
            exchange(*((account, account.value, account.value) for account in bank.accounts[:3]))
        elif kind < 19:
            bank.hint.set(seed)
        else:
            bank.hint.swap(None)


@pytest.mark.usefixtures("_restless")
def test_real_threads_are_opaque():
    bank = Bank()
    with History() as history:
        together(*(lambda seed=seed: customer(bank, seed, 300) for seed in range(4)))
    found = history.statistics()
    assert found.committed > 1000
    assert found.raised > 10
    assert found.unknown == 0
    history.check()


@pytest.mark.usefixtures("_restless")
def test_a_long_run_is_checked_piece_by_piece_while_it_goes_on():
    bank = Bank()
    pieces = []
    with History() as history:
        customers = [Background(customer, bank, seed, 300) for seed in range(3)]
        while any(one.thread.is_alive() for one in customers):
            history.check_and_forget()
            pieces.append(history.statistics().forgotten)
        for one in customers:
            one.result()
    history.check_and_forget()
    assert len(history) == 0
    assert history.statistics().forgotten > 900


@pytest.mark.usefixtures("_restless")
def test_queues_under_threads_are_opaque():
    queue, done = TQueue(maxsize=3), TVar(0)

    def produce():
        for number in range(100):
            queue.put(number)

    def consume():
        for _ in range(100):
            run(lambda: (queue.get(), done.update(lambda value: value + 1)))

    with History() as history:
        together(produce, produce, consume, consume)
    assert done.value == 200
    history.check()


# An stm that has lost a protection


def found(history):
    with pytest.raises(NotOpaque) as caught:
        history.check()
    return caught.value


@pytest.mark.parametrize("count", [1, 2, 3])
def test_without_validation_at_the_commit_an_update_is_lost(monkeypatch, count):
    monkeypatch.setattr(stm.transaction, "unchanged", lambda reads: True)
    variables = [TVar(0, name=f"x{number}") for number in range(count)]
    first = Once()

    @atomically
    def bump():
        seen = [variable.value for variable in variables]
        if first:
            elsewhere(variables[-1].set, 10)
        for variable, value in zip(variables, seen, strict=True):
            variable.value = value + 1

    with History() as history:
        bump()
    error = found(history)
    assert error.anomaly == "G-single"
    assert {attempt.name for attempt in error.cycle} == {"bump", "set()"}
    assert f"<TVar 'x{count - 1}'>" in str(error)


def test_without_validation_at_the_commit_writes_are_skewed(monkeypatch):
    monkeypatch.setattr(stm.transaction, "unchanged", lambda reads: True)
    x, y = TVar(1), TVar(1)
    first = Once()

    @atomically
    def leave(mine, other):
        if other.value:
            if first:
                elsewhere(leave, other, mine)
            mine.value = 0

    with History() as history:
        leave(x, y)
    assert found(history).anomaly == "G2"


@pytest.mark.parametrize("outcome", ["committed", "raised"])
def test_an_extension_without_validation(monkeypatch, outcome):
    def extend(self, variable):
        self.rv = clock.now
        cell = self.reads[variable] = variable._cell
        return cell

    monkeypatch.setattr(Transaction, "extend", extend)
    # Who raises from stale reads runs again; unless nobody looks whether they are.
    monkeypatch.setattr(stm.execution, "unchanged", lambda reads: True)
    x, y = TVar(0), TVar(0)
    first = Once()

    @atomically
    def look():
        seen = x.value
        if first:
            elsewhere(run, lambda: (x.set(1), y.set(1)))
        if y.value != seen and outcome == "raised":
            raise Odd

    with History() as history:
        try:
            look()
        except Odd:
            pass
    error = found(history)
    assert error.anomaly == "G-single"
    assert [attempt.outcome for attempt in error.cycle if attempt.name == "look"] == [outcome]


def test_an_attempt_that_is_thrown_away_must_not_see_two_moments_either(monkeypatch):
    """The version is not looked at when a variable is read; the commit's validation still saves the result."""

    def extend(self, variable):
        return variable._cell

    monkeypatch.setattr(Transaction, "extend", extend)
    x, y, z = TVar(0), TVar(0), TVar(0)
    first = Once()

    @atomically
    def copy():
        seen = x.value
        if first:
            elsewhere(run, lambda: (x.set(1), y.set(1)))
            z.value = seen + y.value
        else:
            z.value = 5

    with History() as history:
        copy()
    assert z.value == 5
    error = found(history)
    assert error.anomaly == "G-single"
    assert [attempt.outcome for attempt in error.cycle if attempt.name == "copy"] == ["aborted"]


def test_a_second_read_of_the_same_variable_that_sees_another_version(monkeypatch):
    def extend(self, variable):
        self.rv = clock.now
        return variable._cell

    monkeypatch.setattr(Transaction, "extend", extend)
    x = TVar(0, name="x")

    @atomically
    def twice():
        one = x.value
        elsewhere(x.set, 1)
        return one, x.value

    with History() as history:
        assert twice() == (0, 1)
    error = found(history)
    assert error.anomaly == "unrepeatable read"
    assert [attempt.name for attempt in error.cycle] == ["twice"]
    with pytest.raises(NotOpaque):
        history.check_and_forget()
    history.check()


@pytest.mark.parametrize("inside", [True, False])
def test_a_read_that_returns_what_is_not_there(monkeypatch, inside):
    real = TVar.get
    monkeypatch.setattr(TVar, "get", lambda variable: real(variable) + 1)
    x = TVar(0)
    with History() as history:
        assert (run(x.get) if inside else x.get()) == 1
    assert found(history).anomaly == "foreign value"


def test_reads_of_an_alternative_that_are_dropped_when_it_retries(monkeypatch):
    def forgetful(tx, *args):
        before = tx.reads.copy()
        try:
            return in_scope(tx, *args)
        except Retry:
            tx.reads.clear()
            tx.reads.update(before)
            raise

    monkeypatch.setattr(sys.modules["stm.atomically"], "in_scope", forgetful)
    urgent, chosen = TVar(False, name="urgent"), TVar(None, name="chosen")
    first = Once()

    def other():
        if first:
            elsewhere(run, lambda: urgent.set(chosen.value is None))
        chosen.value = "other"

    @atomically
    def choose():
        or_else(lambda: check(urgent.value), other)

    with History() as history:
        choose()
    assert found(history).anomaly == "G2"


def test_two_writes_that_are_published_one_after_the_other(monkeypatch):
    x, y = TVar(0, name="x"), TVar(0, name="y")
    look = atomically(lambda: (x.value, y.value))

    def torn(reads, writes, rv):
        for variable, value in writes.items():
            store(variable, value)
            elsewhere(look)
        return True

    monkeypatch.setattr(stm.quick, "commit", torn)

    @atomically
    def both():
        x.value, y.value = 1, 1

    with History() as history:
        both()
    error = found(history)
    assert error.anomaly == "G-single"
    assert [kind for kind, _ in error.edges] == ["wr", "rw"]
    assert "1 more: version" in str(error)


def test_a_stale_snapshot(monkeypatch):
    """A read-only transaction that reads a moment before it began."""
    x = TVar(0)

    def begin(token):
        token.version = 0

    monkeypatch.setattr(stm.execution, "begin", begin)
    monkeypatch.setattr(stm.transaction, "cell_at", lambda cell, version: old)
    old = x._cell
    with History() as history:
        x.set(1)
        run(lambda: x.value, read_only=True)
    assert found(history).anomaly == "G-single-realtime"


def test_a_snapshot_of_an_old_version(monkeypatch):
    """`snapshot` outside a transaction, which does not see what had been committed before."""
    x = TVar(0)
    old = x._cell
    with History() as history:
        x.set(1)
        monkeypatch.setattr(stm.testing._recording, "_cell_of", lambda variable: old)
        assert snapshot(x) == (0,)
    assert found(history).anomaly == "G-single-realtime"


def test_under_load_a_missing_validation_is_found(monkeypatch):
    monkeypatch.setattr(stm.transaction, "unchanged", lambda reads: True)
    accounts = [TVar(0) for _ in range(2)]
    meet = threading.Barrier(2)

    @atomically
    def bump():
        seen = [account.value for account in accounts]
        meet.wait(10)  # both have read before either commits
        for account, value in zip(accounts, seen, strict=True):
            account.value = value + 1

    with History() as history:
        together(*(lambda: [bump() for _ in range(20)] for _ in range(2)))
    assert found(history).anomaly in ("G-single", "G2")


def test_a_waiting_transaction_and_its_waker_in_a_history():
    x = TVar(0)
    with History() as history:
        waiting = [Background(run, lambda: check(x.value == 3)) for _ in range(3)]
        asleep(3)
        for value in (1, 2, 3):
            x.set(value)
        for one in waiting:
            one.result()
    assert history.statistics().retried >= 3
    history.check()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_an_exchange_that_is_interrupted_when_it_is_published_is_known_to_whom_reads_it(count):
    variables = [TVar(0) for _ in range(count)]
    with History() as history:
        with inject("commit.published", KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
            exchange(*((variable, 0, 1) for variable in variables))
        assert [variable.get() for variable in variables] == [1] * count
    history.check()


def test_an_exchange_that_begins_anew_has_read_what_it_read_last():
    x, y = TVar(zero := (0,)), TVar(0)
    with History() as history:
        with inject("commit", call=lambda: elsewhere(x.set, zero)) as injection:
            assert exchange((x, zero, (1,)), (y, 0, 1))
        y.set(2)
    assert injection.struck == 1
    history.check()
