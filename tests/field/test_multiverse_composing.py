"""Multiverse's integration tests of composability, failure atomicity and traditional synchronisation, answered: parts
make a whole, a whole is undone as one, and locks can be made of variables.
"""

import pytest

from stm import TransactionTimeout, TVar, atomically, check, in_transaction, on_commit, on_rollback, retry, run
from tests.field.test_multiverse_classic import NumberLock, Watch
from tests.support import Background, asleep, elsewhere, together, until


class Failed(Exception):
    pass


@atomically
def increment(variable):
    variable.value += 1
    return variable.value


@atomically
def fail():
    raise Failed


# ---- composability


def test_inner_and_outer_are_one_transaction():
    """Multiverse, composability, ComposabilityTest.whenMultipleSiblings_thenSameTransaction and
    .whenComposingTransaction_...: whatever the inner ones leave for the commit is done after the outer one's.
    """
    x, log = TVar(0), []

    @atomically
    def inner(name):
        assert in_transaction()
        on_commit(lambda: log.append((name, x.value)))

    @atomically
    def outer():
        inner("one")
        inner("other")
        x.value = 1
        assert log == []

    outer()
    assert log == [("one", 1), ("other", 1)]
    assert not in_transaction()


def test_a_change_is_seen_by_the_next_sibling():
    """Multiverse, composability, ComposabilityTest.whenChangeMadeInOneSibling_...: and by the outer one after both."""
    x = TVar(10)
    assert run(lambda: (increment(x), increment(x), x.value)) == (11, 12, 12)
    assert x.value == 12


def test_changes_are_seen_outwards_and_inwards_and_commit_as_one():
    """Multiverse, composability, ComposabilityTest.whenOuterTransactionMakesChange_...,
    .whenInnerTransactionMakesChange_... and .whenInnerAndOuterChanges_...: others see none of it before.
    """
    x, seen = TVar(10), []

    @atomically
    def outer():
        x.value += 1
        seen.append(increment(x))
        seen.append(x.value)
        x.value += 1
        seen.append(elsewhere(lambda: x.value))

    outer()
    assert seen == [12, 12, 10]
    assert x.value == 13


@pytest.mark.parametrize("failing", ["outer", "inner", "sibling"])
def test_if_one_fails_all_is_undone(failing):
    """Multiverse, composability, ComposabilityTest.whenSurroundingTransactionFails_..., .whenInnerTransactionFails_...
    and .whenSiblingFails_thenAllRollback: as long as nobody catches what was raised.
    """
    x, undone = TVar(10), []

    @atomically
    def outer():
        on_rollback(undone.append, failing)
        x.value += 1
        if failing != "inner":
            increment(x)
        if failing == "outer":
            raise Failed
        fail()

    with pytest.raises(Failed):
        outer()
    assert x.value == 10
    assert undone == [failing]


# ---- failure atomicity


def test_only_what_did_not_fail_is_there():
    """Multiverse, failureatomicity, FailureAtomicityStressTest: one in ten of many increments fails after it has
    written. The others are counted, those are not.
    """
    x = TVar(0)

    @atomically
    def step(fails):
        x.value += 1
        if fails:
            raise Failed

    def worker():
        made = 0
        for number in range(200):
            try:
                step(number % 10 == 3)
            except Failed:
                continue
            made += 1
        return made

    assert sum(together(*[worker] * 4)) == x.value == 720


def test_a_timeout_undoes_what_was_written():
    """Multiverse, failureatomicity, TimeoutRollbackTest: what it wrote before it waited in vain."""
    written, awaited = TVar(0), TVar(0)

    @atomically(timeout=0.01)
    def body():
        written.value = 1
        check(awaited.value == 1000)

    with pytest.raises(TransactionTimeout):
        body()
    assert written.value == 0


def test_who_is_woken_in_vain_again_and_again_gives_up_and_is_undone():
    """Multiverse, failureatomicity, TooManyRetriesRollbackTest: there, after so many attempts; here the number does not
    matter, the time does. (A bound on attempts can be kept by the body itself.)
    """
    written, awaited, attempts = TVar(0), TVar(0), []

    @atomically(timeout=60)
    def body():
        attempts.append(1)
        written.value = 1
        if len(attempts) == 10:
            raise Failed
        check(awaited.value % 2)

    waiting = Background(body)
    for number in range(1, 10):
        until(lambda: len(attempts) == number)
        asleep()
        awaited.update(lambda value: value + 2)
    with pytest.raises(Failed):
        waiting.result()
    assert len(attempts) == 10
    assert written.value == 0


# ---- traditional synchronisation


def test_condition_variables():
    """Multiverse, traditionalsynchronization, ConditionVariable: flags for "not full" and "not empty" in variables of
    their own, on which pushing and popping wait. Nobody sleeps through a change.
    """
    capacity, items, not_full, not_empty = 3, TVar(()), TVar(True), TVar(False)

    @atomically
    def push(item):
        check(not_full.value)
        items.value += (item,)
        not_full.value = len(items.value) < capacity
        not_empty.value = True
        return len(items.value)

    @atomically
    def pop():
        check(not_empty.value)
        *rest, last = items.value
        items.value = tuple(rest)
        not_empty.value = bool(rest)
        not_full.value = True
        return last

    popped, sizes = together(lambda: [pop() for _ in range(600)], lambda: [push(item) for item in range(600)])
    assert sorted(popped) == list(range(600))
    assert max(sizes) <= capacity
    assert (items.value, not_full.value, not_empty.value) == ((), True, False)


class Mutex:
    """A lock with an owner; reentrant or not."""

    def __init__(self, reentrant=False):
        self.reentrant, self.owner, self.count = reentrant, TVar(None), TVar(0)

    @atomically
    def lock(self, who):
        if self.owner.value is not None and not (self.reentrant and self.owner.value is who):
            retry()
        self.owner.value = who
        self.count.value += 1

    @atomically
    def unlock(self, who):
        if self.owner.value is not who:
            raise RuntimeError("not the owner")
        self.count.value -= 1
        if not self.count.value:
            self.owner.value = None


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_mutex_lets_in_one_at_a_time(reentrant):
    """Multiverse, traditionalsynchronization, NonReentrantMutex and ReentrantMutex: never two inside; nested locking
    where that is allowed.
    """
    mutex, watch = Mutex(reentrant), Watch()

    def user(who):
        for number in range(80):
            depth = 1 + (reentrant and number % 3 == 0)
            for _ in range(depth):
                mutex.lock(who)
            with watch("inside"):
                pass
            for _ in range(depth):
                mutex.unlock(who)

    together(*(lambda who=who: user(who) for who in "abcde"))
    assert watch.seen == {("inside",)}
    assert (mutex.owner.value, mutex.count.value) == (None, 0)


def test_the_two_kinds_of_mutex_differ_for_their_owner_alone():
    """Multiverse, traditionalsynchronization, ReentrantMutex.unlock: only the owner unlocks, and the lock is free after
    as many unlocks as locks. Whoever locks one twice that is not reentrant waits for itself.
    """
    me, plain, nested = object(), Mutex(), Mutex(reentrant=True)
    for mutex in (plain, nested):
        mutex.lock(me)
        with pytest.raises(RuntimeError):
            mutex.unlock(object())
    nested.lock(me)
    nested.unlock(me)
    assert nested.owner.value is me
    with pytest.raises(TransactionTimeout):
        atomically(timeout=0.01)(plain.lock)(me)
    nested.unlock(me)
    elsewhere(nested.lock, object())  # which would hang if it were not free


def test_a_read_write_lock_refuses_a_release_of_what_is_not_held():
    """Multiverse, traditionalsynchronization, NonReentrantReadWriteLock: a release without a hold of that kind is an
    error and changes nothing; readers share, a writer waits for the last of them.
    """
    lock = NumberLock()
    for writes in (False, True):
        with pytest.raises(RuntimeError):
            lock.release(writes)
    lock.acquire(False)
    lock.acquire(False)
    with pytest.raises(RuntimeError):
        lock.release(True)
    writer = Background(lock.acquire, True)
    asleep()
    lock.release(False)
    assert writer.thread.is_alive()
    lock.release(False)
    writer.result()
    assert lock.holders.value == -1


def test_a_semaphore_lets_in_so_many():
    """Multiverse, traditionalsynchronization, Semaphore: a number of permits in a variable. Never more inside than
    there are permits, and all are back.
    """
    permits, watch = TVar(3), Watch()

    @atomically
    def down():
        check(permits.value > 0)
        permits.value -= 1

    def user():
        for _ in range(80):
            down()
            with watch("inside"):
                pass
            permits.update(lambda left: left + 1)

    together(*[user] * 6)
    assert max(map(len, watch.seen)) <= 3
    assert permits.value == 3
