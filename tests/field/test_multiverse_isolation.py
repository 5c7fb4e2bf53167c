"""Multiverse's integration tests of isolation, answered: what transactions may see of one another, and what makes them
conflict.

There, isolation comes in levels, with and without locks, with and without a comparison of values before a write
("dirty check"). Here it is always serialisable, and a write always counts. Where a case expects the weaker level's
anomaly, our answer is that it can't be had.
"""

import random

import pytest

from stm import TMap, TSet, TVar, atomically, run, snapshot
from tests.support import Background, Once, elsewhere, together


def add(variable, number=1):
    return variable.update(lambda value: value + number)


WAYS = {"ordinary": atomically, "read only": atomically(read_only=True)}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


# ---- what makes a conflict


def test_aba():
    """Multiverse, isolation, AbaTest: a value that went up and came down again has changed. Who read it before must not
    commit what it made of that.
    """
    x, first, attempts = TVar(0), Once(), []

    @atomically
    def body():
        attempts.append(x.value)
        if first:
            elsewhere(add, x, 1)
            elsewhere(add, x, -1)
        x.value += 1

    body()
    assert attempts == [0, 0]
    assert x.value == 1


@pytest.mark.parametrize(("own", "expected"), [(1, 2), (0, 1)])
def test_who_writes_what_it_read_conflicts_with_a_change(own, expected):
    """Multiverse, isolation, WriteConflictTest.whenNoDirtyCheckAndChange and .whenNoDirtyCheckAndNoChange: whether or
    not the value that it writes is another one.
    """
    x, first, attempts = TVar(0), Once(), []

    @atomically
    def body():
        attempts.append(1)
        value = x.value
        if first:
            elsewhere(add, x)
        x.value = value + own

    body()
    assert len(attempts) == 2
    assert x.value == expected


@pytest.mark.parametrize("value", ["foo", "bar"])
def test_a_write_counts_whatever_it_writes(value):
    """Multiverse, isolation, DirtyCheckTest.whenNoDirtyCheckAndNonDirtyWrite and .whenNoDirtyCheckAndDirtyWrite: each
    makes a new version, which whoever has read the old one notices.
    """
    x, y, first, attempts = TVar("foo"), TVar(0), Once(), []

    @atomically
    def body():
        attempts.append(x.value)
        if first:
            elsewhere(run, x.set, value)
        y.value += 1

    body()
    assert attempts == ["foo", value]
    assert y.value == 1


@pytest.mark.parametrize(("way", "again", "expected"), [("ordinary", False, [5]), ("read only", True, [5])])
def test_who_only_reads_commits_although_it_has_changed(way, again, expected):
    """Multiverse, isolation, ReadConflictTest.whenAlreadyReadThenNoConflict: what it read was the value at one moment,
    and that is enough. (A read-only transaction may even read it again. An ordinary one, which might yet write, starts
    over at that: see the next case.)
    """
    x, attempts = TVar(5), []

    @WAYS[way]
    def body():
        attempts.append(x.value)
        elsewhere(add, x)
        return x.value if again else attempts[-1]

    assert body() == 5
    assert attempts == expected
    assert x.value == 6


# ---- what can be seen


def test_causal_consistency():
    """Multiverse, isolation, ReadConflictTest.testCausalConsistency, IsolationLevelSerializableTest likewise: who has
    seen the first variable before a change of both does not see the second after it.
    """
    x, y, first, seen = TVar(0), TVar(0), Once(), []

    def both():
        add(x)
        add(y)

    @atomically
    def body():
        seen.append(x.value)
        if first:
            elsewhere(run, both)
        seen.append(y.value)

    body()
    assert seen == [0, 1, 1]  # the first attempt ended where it would have seen y


def test_causal_consistency_in_a_snapshot():
    """Multiverse, isolation, IsolationLevelSnapshotTest.causalConsistencyViolationNotPossible: there, the second read
    is an error. In a read-only transaction it gives the old value, and nothing runs twice.
    """
    x, y, attempts = TVar(0), TVar(0), []

    @atomically(read_only=True)
    def body():
        attempts.append(1)
        before = x.value
        elsewhere(run, lambda: (add(x), add(y)))
        return before, y.value

    assert body() == (0, 0)
    assert len(attempts) == 1


@ways
def test_a_read_can_be_repeated(way):
    """Multiverse, isolation, ReadonlyRepeatableReadTest, IsolationLevelSerializableTest.repeatableRead: however many
    writes come in between, also those of the very same value, no attempt sees two. An ordinary one starts over.
    """
    x, first, seen = TVar(0), Once(), []

    @way
    def body():
        seen.append({x.value})
        if first:
            for value in (1, 2, 2, 0, 3):
                elsewhere(x.set, value)
        for _ in range(3):
            seen[-1].add(x.value)

    body()
    assert seen == ([{0}] if way is WAYS["read only"] else [{0}, {3}])


@ways
def test_no_dirty_read(way):
    """Multiverse, isolation, ReadCommittedStressTest: what a transaction writes that will fail is seen by no other,
    neither while it runs nor after.
    """
    x, seen = TVar(0), []

    @way
    def look():
        return x.value, x.peek()

    @atomically
    def fail():
        x.value += 1
        seen.append(elsewhere(look))
        raise KeyError(x.value)

    with pytest.raises(KeyError, match="1"):
        fail()
    assert [*seen, look()] == [(0, 0), (0, 0)]


@pytest.mark.parametrize("collection", [TMap, TSet])
@pytest.mark.parametrize("way", [atomically, atomically(read_only=True)])
def test_no_phantoms(collection, way):
    """Multiverse, isolation, PhantomReadTest: a title without a body, there. Who goes through all the elements twice
    finds the same ones, though one was added and one taken away meanwhile.
    """
    elements, first = collection(dict.fromkeys(range(50))), Once()

    def change():
        elements.pop(7) if collection is TMap else elements.remove(7)
        elements.update({99: None} if collection is TMap else {99})

    @way
    def body():
        once = sorted(elements)
        if first:
            elsewhere(run, change)
        return once == sorted(elements), len(once) == len(elements)

    assert body() == (True, True)
    assert 99 in elements


@ways
@pytest.mark.parametrize("count", [2, 64])
def test_all_reads_are_of_one_moment(way, count):
    """Multiverse, isolation, RefReadConsistency, LongRefReadConsistency and Orec_...ReadConsistency: writers give all
    variables one value at a time. No reader finds two, in as few attempts as may be.
    """
    refs, mixed = [TVar("nobody") for _ in range(count)], []

    @atomically
    def write(name):
        for ref in refs:
            ref.value = name

    @way
    def read():
        values = {ref.value for ref in refs}
        if len(values) > 1:
            mixed.append(values)

    def reader():
        for _ in range(150):
            read()
            assert len(set(snapshot(*refs))) == 1

    together(reader, reader, *(lambda name=name: [write(name) for _ in range(150)] for name in ("one", "other")))
    assert mixed == []


# ---- no write is lost


def increment(variable):
    variable.value += 1


INCREMENTS = {
    "ordinary": atomically(increment),
    "irrevocable": atomically(irrevocable=True)(increment),
    "outside": add,
    "nested": lambda variable: run(atomically(increment), variable),
}


@pytest.mark.parametrize("kind", ["ordinary", "irrevocable", "outside", "mixed"])
def test_increments_are_never_lost(kind):
    """Multiverse, isolation, Isolation.with* and AtomicIncrementIsolation: two threads and one variable; with locks,
    without, by single operations; and eight threads, each in its own way.
    """
    x, each = TVar(0), 60 if kind == "mixed" else 300
    steps = list(INCREMENTS.values()) * 2 if kind == "mixed" else [INCREMENTS[kind]] * 2
    together(*(lambda step=step: [step(x) for _ in range(each)] for step in steps))
    assert x.value == each * len(steps)


def test_mostly_reads():
    """Multiverse, isolation, ReadBiasedIsolation: of many transactions that look at a variable one in fifty changes it.
    All those changes are there in the end.
    """
    x = TVar(0)

    def worker(seed):
        choice = random.Random(seed)

        @atomically
        def body(changes):
            return add(x) if changes else x.value

        changes = [choice.random() < 0.02 for _ in range(1_000)]
        seen = [body(one) for one in changes]
        assert seen == sorted(seen)
        return sum(changes)

    assert sum(together(*(lambda seed=seed: worker(seed) for seed in range(4)))) == x.value


def test_money_transfer():
    """Multiverse, isolation, MoneyTransfer: between accounts chosen at random, which may be one and the same; the
    amount is added first, and a transfer that has no cover raises. The money stays the same.
    """

    class NoCover(Exception):
        pass

    accounts = [TVar(number * 10) for number in range(10)]
    total, refused = sum(snapshot(*accounts)), []

    @atomically
    def transfer(source, target, amount):
        target.value += amount
        source.value -= amount
        if source.value < 0:
            raise NoCover

    def clerk(seed):
        choice = random.Random(seed)
        for _ in range(300):
            try:
                transfer(choice.choice(accounts), choice.choice(accounts), choice.randrange(60))
            except NoCover:
                refused.append(seed)

    together(*(lambda seed=seed: clerk(seed) for seed in range(3)))
    assert sum(snapshot(*accounts)) == total
    assert min(snapshot(*accounts)) >= 0
    assert refused


# ---- write skew


@pytest.mark.parametrize("count", [1, 2, 5])
def test_no_write_skew(count):
    """Multiverse, isolation, IsolationLevelSerializableTest.writeSkewNotPossible and WriteSkew.whenSerialized...: the
    variable that was only read has changed, so what was made of it is not committed, to however many variables.
    """
    x, others, first = TVar(0), [TVar(0) for _ in range(count)], Once()

    @atomically
    def body():
        before = x.value
        for other in others:
            other.value += 1 + before
        if first:
            elsewhere(add, x)
        return before

    assert body() == 1
    assert snapshot(x, *others) == (1, *[2] * count)


def test_a_read_that_nobody_may_disturb_makes_the_other_wait():
    """Multiverse, isolation, WriteSkew.whenReadsLocked, .whenLocked and .whenEnsured: who has locked what it read is
    not disturbed; the other one is. Here the lock is `irrevocable=True`, and the other one waits.
    """
    x, y, attempts, others = TVar(0), TVar(0), [], []

    @atomically(irrevocable=True)
    def body():
        attempts.append(x.value)
        others.append(Background(add, x))
        y.value += 1
        assert x.value == x.peek() == 0

    body()
    assert others[0].result() == 1
    assert attempts == [0]
    assert snapshot(x, y) == (1, 1)


def test_customers_of_two_accounts_never_owe():
    """Multiverse, isolation, WriteSkewStressTest.whenSerialized...: a customer may take from either account what both
    together cover. The sum is never seen below zero, by anyone.
    """
    customers, owing = [(TVar(50), TVar(0)), (TVar(0), TVar(50))], []

    @atomically
    def transfer(choice):
        (giver, taker), amount = choice.choices(customers, k=2), choice.randrange(60)
        balance = sum(account.value for account in giver)
        if balance < 0:
            owing.append(balance)
        if balance >= amount:
            choice.choice(giver).value -= amount
            choice.choice(taker).value += amount

    def clerk(seed):
        choice = random.Random(seed)
        for _ in range(300):
            transfer(choice)

    together(*(lambda seed=seed: clerk(seed) for seed in range(4)))
    assert owing == []
    assert sum(snapshot(*customers[0], *customers[1])) == 100
