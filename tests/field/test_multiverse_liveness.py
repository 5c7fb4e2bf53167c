"""Multiverse's integration tests of liveness, locking and commuting, answered: who crosses whom, and still all end.

Their deadlocks are between locks that a transaction takes on variables one after the other. Here a transaction holds no
lock while its body runs, except that `irrevocable=True` keeps all others from committing; so what is left to show is
that transactions which cross each other's path end.
"""

import random

import pytest

from stm import TCounter, TVar, atomically, run, snapshot
from tests.support import Once, elsewhere, together


def add(variable, number=1):
    return variable.update(lambda value: value + number)


# ---- liveness


def test_two_that_cross_do_not_deadlock():
    """Multiverse, liveness, DeadLockTest: each changes two variables, in opposite order. One goes through, the other
    has to start over, and nobody waits for the other.
    """
    x, y, first, attempts = TVar(0), TVar(0), Once(), []

    @atomically
    def step(one, other):
        attempts.append(one is x)
        one.value += 1
        if one is x and first:
            elsewhere(step, y, x)
        other.value += 1

    step(x, y)
    assert attempts == [True, False, True]
    assert snapshot(x, y) == (2, 2)


@pytest.mark.parametrize("mode", ["ordinary", "irrevocable", "mixed"])
def test_many_that_cross_do_not_deadlock(mode):
    """Multiverse, liveness, DeadLockStressTest.when*: each changes some of many variables in an order of its own. All
    end, and no change is lost.
    """
    refs, kinds = [TVar(0) for _ in range(20)], {"ordinary": [False], "irrevocable": [True], "mixed": [False, True]}

    def worker(seed):
        choice, made = random.Random(seed), 0
        for number in range(60):
            chosen = choice.sample(refs, choice.randrange(1, 8))
            irrevocable = kinds[mode][number % len(kinds[mode])]
            run(lambda: [add(ref) for ref in chosen], irrevocable=irrevocable)
            made += len(chosen)
        return made

    assert sum(together(*(lambda seed=seed: worker(seed) for seed in range(4)))) == sum(snapshot(*refs))


@pytest.mark.parametrize("irrevocable", [False, True])
def test_left_to_right_and_right_to_left(irrevocable):
    """Multiverse, liveness, EnsureDeadLockStressTest and PrivatizationDeadLockStressTest: some go through the variables
    from the left, some from the right, and want none of them to change meanwhile. All get through.
    """
    refs, log = [TVar(0) for _ in range(5)], TVar(())

    def worker(number):
        @atomically(irrevocable=irrevocable)
        def body():
            seen = [ref.value for ref in (refs if number % 2 else reversed(refs))]
            add(refs[number % len(refs)])
            log.value += (sum(seen),)

        for _ in range(50):
            body()

    together(*(lambda number=number: worker(number) for number in range(4)))
    assert log.value == tuple(range(200))  # each saw exactly what those before had made


# ---- locking


@pytest.mark.parametrize(
    ("writes", "changed", "expected"), [(False, True, 1), (True, False, 1), (True, True, 2)], ids=str
)
def test_what_was_read_still_stands_when_something_else_is_written(writes, changed, expected):
    """Multiverse, locking, EnsureTest.whenOnlyReadsThenIgnored, .whenUpdateTransactionButNoConflictOnRead_thenSuccess
    and .whenUpdateTransactionAndConflictOnRead_...: they have to ask for it; here each read is of that kind.
    """
    x, y, first, attempts = TVar(10), TVar(10), Once(), []

    @atomically
    def body():
        attempts.append(x.value)
        if writes:
            y.value += 1
        if changed and first:
            elsewhere(add, x)

    body()
    assert attempts == [10, 11][:expected]
    assert snapshot(x, y) == (10 + changed, 10 + writes)


@pytest.mark.parametrize("outer", [False, True])
@pytest.mark.parametrize("inner", [False, True])
def test_exclusiveness_nests(outer, inner):
    """Multiverse, composability, ComposabilityAndLockingTest.whenEnsuredInOuter... and .whenPrivatizedInOuter...: who
    has it already may ask for it again, inside or outside; and afterwards it is free.
    """
    x, ran = TVar(10), []

    @atomically(irrevocable=inner)
    def within():
        ran.append(x.value)

    @atomically(irrevocable=outer)
    def around():
        x.value += 1
        within()

    around()
    assert ran == [11]
    assert elsewhere(add, x) == 12


# ---- commuting


def test_additions_commute():
    """Multiverse, commute, Commute: additions of two threads to the same ten sums; none is lost, nor counted twice."""
    sums = [TCounter() for _ in range(10)]

    @atomically
    def step(commuting):
        for one in sums:
            if commuting:
                one.add()
            else:
                total = one.reset()
                one.add(total + 1)
        return len(sums)

    def worker():
        return sum(step(number % 10 != 0) for number in range(100))

    assert sum(together(worker, worker)) == sum(one.value for one in sums)


def test_two_additions_do_not_conflict():
    """Multiverse, commute, Commute.commuting: what another thread adds meanwhile is no reason to start over."""
    total, attempts = TCounter(), []

    @atomically
    def body():
        attempts.append(1)
        total.add()
        elsewhere(total.add)

    body()
    assert (total.value, len(attempts)) == (2, 1)
