"""Classic mistakes in small programs, each found, and each corrected version cleared up to the bound."""

import time

import pytest

from stm import TSemaphore, TVar, atomically, check, run, snapshot
from stm.testing import Deadlock, Livelock, ScheduleFailure, explore, replay


def lost_update():
    account = TVar(100, name="account")

    def deposit():
        balance = run(lambda: account.value)  # one transaction reads,
        run(lambda: account.set(balance + 10))  # and another writes

    def outcome():
        assert account.get() == 120

    return [deposit, deposit], outcome


def no_lost_update():
    account = TVar(100, name="account")

    @atomically
    def deposit():
        balance = account.value
        account.value = balance + 10

    def outcome():
        assert account.get() == 120

    return [deposit, deposit], outcome


def write_skew():
    on_call = [TVar(True, name="ann"), TVar(True, name="bob")]

    def leave(who):
        if all(snapshot(*on_call)):  # of one moment, which is over when it is written
            on_call[who].set(False)

    def outcome():
        assert any(snapshot(*on_call)), "nobody is on call"

    return [lambda: leave(0), lambda: leave(1)], outcome


def write_skew_in_a_read_only_transaction():
    on_call = [TVar(True, name="ann"), TVar(True, name="bob")]

    @atomically(read_only=True)
    def both():
        return all(one.value for one in on_call)

    def leave(who):
        if both():
            on_call[who].set(False)

    def outcome():
        assert any(snapshot(*on_call)), "nobody is on call"

    return [lambda: leave(0), lambda: leave(1)], outcome


def no_write_skew():
    on_call = [TVar(True, name="ann"), TVar(True, name="bob")]

    @atomically
    def leave(who):
        if all(one.value for one in on_call):
            on_call[who].value = False

    def outcome():
        assert any(snapshot(*on_call)), "nobody is on call"

    return [lambda: leave(0), lambda: leave(1)], outcome


def crossed_waits():
    left, right = TSemaphore(1), TSemaphore(1)

    def eat(first, second):
        first.acquire()
        second.acquire()
        second.release()
        first.release()

    return [lambda: eat(left, right), lambda: eat(right, left)]


def no_crossed_waits():
    left, right = TSemaphore(1), TSemaphore(1)

    @atomically
    def take_both():
        left.acquire()
        right.acquire()

    def eat():
        take_both()
        left.release()
        right.release()

    return [eat, eat]


def missed_notification():
    done, changes = TVar(False, name="done"), TVar(0, name="changes")

    def wait():
        if not done.get():  # outside the transaction that waits
            before = changes.get()
            run(lambda: check(changes.value != before))

    def finish():
        done.set(True)
        changes.update(lambda number: number + 1)

    return [wait, finish]


def no_missed_notification():
    done = TVar(False, name="done")

    def wait():
        run(lambda: check(done.value))

    return [wait, lambda: done.set(True)]


def mutual_theft():
    owner = TVar(None, name="owner")

    def work(me):
        while True:
            owner.set(me)  # whoever it belonged to: mine is the higher priority
            time.sleep(1)
            if run(lambda: owner.value == me):
                return

    return [lambda: work("ann"), lambda: work("bob")]


def no_theft():
    owner = TVar(None, name="owner")

    @atomically
    def take(me):
        check(owner.value is None)
        owner.value = me

    def work(me):
        take(me)
        time.sleep(1)
        assert owner.swap(None) == me

    return [lambda: work("ann"), lambda: work("bob")]


def mutual_waking():
    """Each answers the other's change with a change, for as long as the other does."""
    ann, bob = TVar(0, name="ann"), TVar(0, name="bob")

    def follow(mine, other):
        seen = 0
        while mine.value < 10**9:
            seen = run(lambda: check(other.value != seen) or other.value)
            mine.update(lambda number: number + 1)

    return [lambda: follow(ann, bob), lambda: follow(bob, ann), lambda: ann.set(1)]


@pytest.mark.parametrize(
    ("program", "kind"),
    [
        (lost_update, "check"),
        (write_skew, "check"),
        (write_skew_in_a_read_only_transaction, "check"),
        (crossed_waits, "deadlock"),
        (missed_notification, "deadlock"),
        (mutual_theft, "livelock"),
        (mutual_waking, "livelock"),
    ],
)
def test_a_mistake_is_found_and_replayed(program, kind):
    began = time.monotonic()
    with pytest.raises(ScheduleFailure) as found:
        explore(program)
    failure = found.value
    assert failure.kind == kind
    assert isinstance(failure, {"deadlock": Deadlock, "livelock": Livelock}.get(kind, ScheduleFailure))
    with pytest.raises(ScheduleFailure) as again:
        replay(program, failure.schedule)
    assert (again.value.kind, again.value.trace) == (kind, failure.trace)
    assert len(failure.schedule) < 60
    assert len(failure.trace.splitlines()) < 50  # also of a livelock
    assert time.monotonic() < began + 10


@pytest.mark.parametrize(
    ("program", "preemptions"),
    [(no_lost_update, 4), (no_write_skew, 3), (no_crossed_waits, 2), (no_missed_notification, 4), (no_theft, 3)],
)
def test_the_corrected_program_is_cleared(program, preemptions):
    began = time.monotonic()
    result = explore(program, preemptions=preemptions)
    assert result.complete
    assert result.schedules > 1
    assert time.monotonic() < began + 10
