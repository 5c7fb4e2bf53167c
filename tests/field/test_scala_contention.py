"""Cases of ScalaSTM about threads that meet (nbronson/scala-stm): `ContentionSuite`, `WriteSkewSuite`, interrupts.

Each docstring names the suite and the case; docs/field/scala-stm.md lists them all, and those that have no counterpart.
"""

import os
import random
import signal
import threading
from contextlib import contextmanager
from operator import add

import pytest

from stm import (
    TMap,
    TQueue,
    TVar,
    TVector,
    atomically,
    check,
    or_else,
    run,
    snapshot,
)
from stm.compiled import TArray
from tests.support import Background, Once, asleep, elsewhere, together, until


class Interrupted(BaseException):
    pass


# ------------------------------------------------------------------------------------------- contention


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(("count", "size"), [(20, 8), (20, 32), (1000, 16)])
def test_random_reads_and_writes_of_which_each_can_be_accounted_for(count, size, nested):
    """scala-stm, ContentionSuite: many refs, 80 % read, threads, ops/txn, nested or not. What is in the variables is
    the sum of what the transactions say they have added."""
    variables = [TVar(0) for _ in range(count)]

    def body(seed):
        rng, added = random.Random(seed), 0
        for _ in range(size):
            variable = rng.choice(variables)
            if rng.random() < 0.8:
                variable.get()
            else:
                variable.value += 1
                added += 1
        return added

    def work(thread):
        total = 0
        for number in range(40):
            seed = thread * 1000 + number
            if nested:
                total += run(lambda: or_else(lambda: run(body, seed), lambda: pytest.fail("nobody retries")))
            else:
                total += run(body, seed)
        return total

    added = together(*(lambda thread=thread: work(thread) for thread in range(4)))
    assert sum(snapshot(*variables)) == sum(added)


def test_an_elder_that_reads_everything_is_not_starved():
    """scala-stm, ContentionSuite: starving elder small. All writers run when it begins."""
    variables = [TVar(number) for number in range(300)]
    started, elders_left = TVar(0), TVar(4)

    def writer(seed):
        rng = random.Random(seed)
        started.update(add, 1)

        @atomically
        def step(i, j):
            if elders_left.value == 0:
                return False
            a, b = variables[i], variables[j]
            a.set(b.swap(a.value))
            return True

        while step(rng.randrange(300), rng.randrange(300)):
            pass

    def elder():
        check(started.value == 3)
        return sum(variable.value for variable in variables)

    def elders():
        for _ in range(4):
            assert run(elder) == sum(range(300))
            elders_left.update(add, -1)

    together(elders, *(lambda seed=seed: writer(seed) for seed in range(3)))


def test_an_elder_that_writes_what_it_has_read_last_commits_in_the_end():
    """scala-stm, ContentionSuite: starving elder large, decided: every attempt is disturbed, as far as that is allowed.
    After ten disturbances it is allowed no more: who would disturb waits until the elder is done."""
    ledger, runs, late = TMap.fromkeys(range(100), 0), [], []

    def body():
        runs.append(1)
        total = sum(ledger.values())
        if len(runs) <= 10:
            elsewhere(ledger.__setitem__, len(runs), 1)
        else:
            late.append(Background(ledger.__setitem__, 0, 1))
            late[-1].thread.join(0.02)  # to no avail: it waits
        ledger["sum"] = total

    atomically(body)()
    assert [one.result() for one in late] == [None]
    assert (ledger["sum"], ledger[0], len(runs)) == (10, 1, 11)


@pytest.mark.parametrize("nested", [False, True])
def test_an_elder_that_only_reads_is_never_disturbed(nested):
    """scala-stm, ContentionSuite: starving elder, decided: between any two of its reads somebody writes. It reads the
    moment at which it began, once, and the old values are forgotten after it."""
    variables, runs = [TVar(number) for number in range(20)], []

    def elder():
        runs.append(1)
        total = 0
        for variable in variables:
            elsewhere(run, lambda: [other.update(add, 1) for other in variables])
            total += run(variable.get) if nested else variable.value
        return total

    assert run(elder, read_only=True) == sum(range(20))
    assert len(runs) == 1
    assert [variable.value for variable in variables] == [number + 20 for number in range(20)]


# ------------------------------------------------------------------------------------------- write skew


def test_write_skew_of_two_that_take_turns():
    """scala-stm, WriteSkewSuite: write skew test 1K. Each adds to its own variable while the other one is even."""
    places = (TVar(0), TVar(0))

    def work(mine, other):
        def body():
            if other.value % 2:
                assert mine.value % 2 == 0, "both are odd"
                check(False)
            mine.value += 1

        for _ in range(400):
            run(body)

    together(lambda: work(*places), lambda: work(*reversed(places)))
    assert snapshot(*places) == (400, 400)


@pytest.mark.parametrize("make", [TMap, lambda pairs: TVector(dict(pairs).values()), lambda pairs: TArray([5, 5])])
def test_write_skew_on_two_places_of_one_collection(make):
    """scala-stm, WriteSkewSuite: write skew test, decided: both look before either writes."""
    place, first = make({0: 5, 1: 5}.items()), Once()

    def withdraw(which, before_writing=None):
        if place[0] + place[1] >= 10:
            if before_writing is not None and first:
                elsewhere(run, withdraw, 1)
            place[which] = place[which] - 10
            return True
        return False

    assert run(withdraw, 0, "look") is False
    assert (place[0], place[1]) == (5, -5)


# --------------------------------------------------------------------------------------------- interrupts


@contextmanager
def interrupts(armed=None):
    """Let a signal raise `Interrupted` in the main thread, once each time that something is in `armed`, or always."""

    def handler(*_):
        if armed is None:
            raise Interrupted
        if armed:
            armed.clear()
            raise Interrupted

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        yield lambda: os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


WAITS = {
    "transaction": lambda x: run(lambda: check(x.value)),
    "nested": lambda x: run(lambda: run(lambda: or_else(lambda: check(x.value), lambda: check(x.value > 1)))),
    "with a time limit": lambda x: run(lambda: check(x.value), timeout=60),
    "single": lambda x: x.await_change(x.value),
    "queue": lambda _: TQueue().get(),
}


@pytest.mark.parametrize("kind", WAITS)
def test_an_interrupt_that_arrives_ends_a_wait(kind):
    """scala-stm, InterruptSuite: txn retry arriving interrupt, single await arriving interrupt."""
    with interrupts() as interrupt, pytest.raises(Interrupted):
        background = Background(lambda: (asleep(), interrupt()))
        WAITS[kind](TVar(0))
    background.result()


@pytest.mark.parametrize("kind", WAITS)
def test_an_interrupt_that_is_pending_ends_a_wait(kind):
    """scala-stm, InterruptSuite: txn retry pending interrupt, single await pending interrupt. It struck before, was
    blocked, and is let through as the transaction looks at its variable."""
    x = TVar(0)

    def look():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
        check(x.value)

    with interrupts():
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        signal.raise_signal(signal.SIGUSR1)
        with pytest.raises(Interrupted):
            run(look)
        with pytest.raises(Interrupted):  # and by the operation itself
            background = Background(lambda: (asleep(), signal.raise_signal(signal.SIGUSR1)))
            WAITS[kind](x)
    background.result()


def test_interrupts_at_random_during_contention():
    """scala-stm, InterruptSuite: random interrupts during contention. Every transaction happened wholly or not at all,
    and all variables are equal at every moment."""
    variables, stop, rounds = [TVar(0) for _ in range(10)], threading.Event(), []
    armed: list[int] = []
    committed = interrupted = 0

    def bump():
        for variable in variables:
            variable.value += 1

    def compete():
        count = 0
        while not stop.is_set():
            run(bump)
            count += 1
            assert len(set(snapshot(*variables))) == 1
        return count

    def strike():
        while not stop.is_set():
            seen = len(rounds)
            interrupt()
            until(lambda: len(rounds) > seen or stop.is_set())

    with interrupts(armed) as interrupt:
        others = [Background(compete), Background(strike)]
        for number in range(300):
            rounds.append(number)
            try:
                armed.append(number)
                run(bump)
                committed += 1
                armed.clear()
            except Interrupted:
                interrupted += 1
        stop.set()
        competed, _ = [other.result() for other in others]
    values = set(snapshot(*variables))
    assert len(values) == 1
    assert committed + competed <= values.pop() <= committed + competed + interrupted
