"""Cases of kyo, `kyo-stm/.../kyo/`: STMTest. What others see, what is nested, and what fails.

There a nested `retry` fails, after the attempts that its schedule allows; here it waits, unless `timeout=` bounds that.
"""

import contextvars

import pytest

from stm import (
    TransactionTimeout,
    TVar,
    atomically,
    check,
    in_transaction,
    on_commit,
    on_rollback,
    retry,
    run,
    snapshot,
)
from tests.support import Once, elsewhere, together


class Oops(Exception):
    """What a body fails with."""


# ------------------------------------------------------------------------------ isolation


def test_no_dirty_reads():
    """kyo, STMTest: no dirty reads. What is set is seen by nobody else before the commit, and by everybody after."""
    ref, seen = TVar(0), []

    @atomically
    def body():
        ref.set(42)
        seen.append(elsewhere(ref.get))
        seen.append(elsewhere(run, ref.get))
        seen.append(ref.peek())
        return ref.get()

    assert body() == 42
    assert seen == [0, 0, 0]
    assert elsewhere(ref.get) == 42


def test_independent_transactions_do_not_interfere():
    """kyo, STMTest: independent transactions don't interfere. A commit to another one costs nothing."""
    one, other, attempts = TVar(10), TVar(20), []

    @atomically
    def body():
        attempts.append(1)
        value = other.get()
        elsewhere(one.set, 30)
        other.set(value + 5)
        return value

    assert body() == 20
    assert snapshot(one, other) == (30, 25)
    assert attempts == [1]


def test_what_a_body_starts_is_no_part_of_it():
    """kyo, STMTest: transaction ID should not leak across async boundaries; a child does not see it."""
    ref = TVar(0)

    def child():
        return in_transaction(), ref.get()

    def body():
        ref.set(1000)
        return in_transaction(), elsewhere(child), elsewhere(contextvars.copy_context().run, child)

    assert run(body) == (True, (False, 0), (False, 0))
    assert ref.get() == 1000


def test_a_body_that_has_its_own_write_overtaken_writes_last():
    """kyo, STMTest: nested transactions with async boundary. The thread that the body awaits commits first."""
    ref = TVar(0)

    @atomically
    def body():
        ref.set(1)
        assert elsewhere(run, lambda: (ref.set(2), ref.get())[1]) == 2

    body()
    assert ref.get() == 1


def test_a_body_that_always_undoes_itself_ends_if_the_other_has_a_time_limit():
    """kyo, STMTest: nested transactions with async boundary should fail gracefully.

    Each attempt lets another thread change what it has read, and waits for it. There, the attempts run out. Here the
    body comes to insist, and then nobody else commits: the other's time limit ends that, and the body commits.
    """
    ref, ends = TVar(0), []

    def bump():
        try:
            return run(ref.update, lambda n: n + 1, timeout=0.02)
        except TransactionTimeout:
            return "too late"

    @atomically
    def body():
        before = ref.get()
        ends.append(elsewhere(bump))
        ref.set(before + 100)

    body()
    assert ends[-1] == "too late"
    assert ends[:-1] == list(range(1, len(ends)))
    assert len(ends) < 50
    assert ref.get() == len(ends) - 1 + 100


# ------------------------------------------------------------------------------ retry


def test_retry_gives_up_when_its_time_is_over():
    """kyo, STMTest: explicit retry; STMPropertyTest: a transaction that retries never returns a value."""
    ref, attempts = TVar(0), []

    def body():
        attempts.append(1)
        ref.set(ref.get() + 1)
        retry()

    for limit in (0, 0.01):
        with pytest.raises(TransactionTimeout):
            run(body, timeout=limit)
    assert ref.get() == 0
    assert len(attempts) == 2, "nothing changed, so there is nothing to try again"


@pytest.mark.parametrize("condition", [True, False])
def test_check_returns_or_retries(condition):
    """kyo, STMPropertyTest: retryIf: one branch returns nothing, the other one gives up."""
    ref = TVar(condition)
    if condition:
        assert run(lambda: check(ref.get()), timeout=0) is None
    else:
        with pytest.raises(TransactionTimeout):
            run(lambda: check(ref.get()), timeout=0)


# ------------------------------------------------------------------------------ effects beside the variables


def test_effects_wait_for_the_commit():
    """kyo, STMTest: with Emit effect; with Var effect. It happens in order, once, if it commits."""
    ref, emitted, first = TVar(0), [], Once()

    @atomically
    def body():
        ref.set(1)
        on_commit(emitted.append, 42)
        value = ref.get()
        on_commit(emitted.append, value)
        if first:
            ref.swap(5)
            elsewhere(ref.set, 7)
            assert emitted == []
        return value

    assert body() == 1
    assert emitted == [42, 1]


def test_effects_of_a_failure_are_forgotten():
    """kyo, STMTest: rollback on failure preserves effect isolation, of all effects."""
    ref, emitted, undone = TVar(0), [], []

    @atomically
    def body():
        ref.set(42)
        on_commit(emitted.append, 1)
        on_rollback(undone.append, 1)
        raise Oops

    with pytest.raises(Oops):
        body()
    assert (ref.get(), emitted, undone) == (0, [], [1])


def test_effects_of_nested_transactions_join_in_order():
    """kyo, STMTest: with nested Var isolations. The inner one's come where it was called; a failed one's not at all."""
    emitted = []

    @atomically
    def inner(mark, failing):
        on_commit(emitted.append, mark)
        if failing:
            raise Oops

    @atomically
    def outer():
        on_commit(emitted.append, "begin")
        inner("kept", False)
        with pytest.raises(Oops):
            inner("lost", True)
        on_commit(emitted.append, "end")

    outer()
    assert emitted == ["begin", "kept", "end"]


# ------------------------------------------------------------------------------ nested


def test_a_nested_transaction_shares_the_variables():
    """kyo, STMTest: nested transactions share the context, see the parent's changes, and theirs are seen by it."""
    one, other = TVar(0), TVar(0)

    @atomically
    def inner():
        assert one.get() == 1
        one.set(2)
        other.set(2)
        return one.get()

    @atomically
    def outer():
        one.set(1)
        inside = inner()
        found = one.get(), other.get()
        one.set(3)
        return inside, found

    assert outer() == (2, (2, 2))
    assert snapshot(one, other) == (3, 2)


def test_levels_upon_levels():
    """kyo, STMTest: multiple levels of nesting maintain consistency; sequential ones see the last."""
    ref = TVar(0)

    @atomically
    def level(depth):
        found = [ref.get()]
        ref.value += 1
        if depth:
            found += level(depth - 1)
            found += level(depth - 1)
        assert ref.get() == found[0] + len(found)
        return found

    assert level(3) == list(range(15))
    assert ref.get() == 15


@pytest.mark.parametrize("why", ["retries", "fails"])
def test_a_nested_transaction_that_ends_badly_leaves_the_outer_one_as_it_was(why):
    """kyo, STMTest: nested transaction rollback preserves parent changes; nested STM.run's log does not leak."""
    ref, other = TVar(0), TVar(0)

    @atomically
    def innermost():
        ref.set(2)
        other.set(2)

    @atomically(timeout=0)
    def inner():
        value = ref.get()
        innermost()
        if why == "fails":
            raise Oops
        check(value != 1)

    @atomically
    def outer():
        ref.set(1)
        before = ref.get()
        with pytest.raises((Oops, TransactionTimeout)):
            inner()
        after = ref.get(), other.get()
        ref.set(3)
        return before, after

    assert outer() == (1, (1, 0))
    assert snapshot(ref, other) == (3, 0)


def test_a_nested_failure_that_nobody_catches_fails_the_whole():
    """kyo, STMTest: nested transaction rollback on inner failure; multiple refs rollback on failure."""
    one, other = TVar(1), TVar(10)

    @atomically
    def inner():
        one.set(3)
        other.set(30)
        raise Oops

    @atomically
    def outer():
        one.set(2)
        inner()

    with pytest.raises(Oops):
        outer()
    assert snapshot(one, other) == (1, 10)


def test_a_failure_between_two_writes():
    """kyo, STMTest: partial updates within transaction are atomic; exception in update function rolls back."""
    one, other = TVar("initial1"), TVar("initial2")

    def body():
        one.set("updated1")
        other.update(lambda value: 1 // 0)

    with pytest.raises(ZeroDivisionError):
        run(body)
    with pytest.raises(ZeroDivisionError):
        other.update(lambda value: 1 // 0)
    assert snapshot(one, other) == ("initial1", "initial2")


@pytest.mark.parametrize("threads", [1, 4, 16])
def test_nested_transactions_in_many_threads(threads):
    """kyo, STMTest: concurrent nested transactions; concurrent updates. Each counts twice, in two scopes."""
    ref = TVar(0)
    bump = atomically(lambda: ref.set(ref.get() + 1))

    @atomically
    def twice():
        ref.update(lambda value: value + 1)
        bump()

    together(*(lambda: [twice() for _ in range(20)] for _ in range(threads)))
    assert ref.get() == 2 * 20 * threads


def test_a_failure_in_a_transaction_of_another_thread_arrives_there():
    """kyo, STMTest: bug #925. A variable is made and the body raises: that reaches who waits for the other thread."""
    error = Oops()

    def body():
        TVar(42)
        raise error

    with pytest.raises(Oops) as caught:
        elsewhere(run, body)
    assert caught.value is error


def test_two_that_are_written_equal_are_read_equal():
    """kyo, STMTest: bug #1172. Not even a body that will be thrown away sees them differ."""
    one, other, first, differences = TVar("a"), TVar("a"), Once(), []

    @atomically
    def grow():
        one.value += "1"
        other.value += "1"

    @atomically
    def compare():
        left = one.get()
        if first:
            elsewhere(grow)
        right = other.get()
        if left != right:
            differences.append((left, right))
            raise AssertionError
        return left

    assert compare() == "a1"
    assert not differences
