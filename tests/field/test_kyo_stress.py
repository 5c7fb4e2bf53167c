"""Cases of kyo, `kyo-stm/.../kyo/STMStressTest.scala`. Most of them race there; here most interleavings are certain.

Where the race itself is the case (nobody starves, nothing is lost), it is a short one.
"""

import pytest

from stm import TMap, TransactionTimeout, TVar, TVector, atomically, check, run, snapshot
from tests.support import Background, Once, asleep, elsewhere, together


class Oops(Exception):
    """What a body fails with."""


def bump(variable):
    variable.value += 1


# ------------------------------------------------------------------------------ what a body may see


def test_an_order_between_two_is_never_seen_reversed():
    """kyo, STMStressTest: opacity: the invariant r1 < r2 holds inside a transaction across a writer's interleaving."""
    r1, r2, first, violations = TVar(0), TVar(1), Once(), []

    @atomically
    def write(i):
        r1.set(2 * i)
        r2.set(2 * i + 1)

    @atomically
    def look():
        b = r2.get()
        if first:
            elsewhere(write, 5)
        a = r1.get()
        violations.extend([(a, b)] * (a >= b))

    look()
    assert not violations


@pytest.mark.parametrize("after", range(1, 10))
def test_an_observer_between_any_two_reads(after):
    """kyo, STMStressTest: observer between the first and the last publish sees no half-state."""
    refs, first, torn = [TVar(0) for _ in range(10)], Once(), []

    @atomically
    def write():
        for ref in refs:
            ref.set(1)

    @atomically
    def look():
        seen = set()
        for i, ref in enumerate(refs):
            if i == after and first:
                elsewhere(write)
            seen.add(ref.get())
            if len(seen) > 1:
                torn.append(i)

    look()
    assert not torn


def test_one_variable_read_twice():
    """kyo, STMStressTest: TRef.use log entry; read lock release produces no stale-read observers. Twice the same."""
    ref, first, seen = TVar(0), Once(), []

    @atomically
    def look():
        before = ref.get()
        if first:
            elsewhere(ref.set, 1)
        seen.append((before, ref.get()))

    look()
    assert seen == [(1, 1)]


def test_a_division_that_is_never_by_zero():
    """kyo, STMStressTest: a doomed transaction aborts before user code observes division by zero from stale reads."""
    a, b, first, differences = TVar(10), TVar(9), Once(), []

    @atomically
    def write():
        a.set(12)
        b.set(10)

    @atomically
    def divide():
        minuend = a.get()
        if first:
            elsewhere(write)
        differences.append(minuend - b.get())
        return 10 // differences[-1]

    assert divide() == 5
    assert differences == [2]


def test_a_chain_of_variables_is_followed_within_one_moment():
    """kyo, STMStressTest: nested TRef pointer-chase under concurrent rotation never observes an orphan node."""
    root, first = TVar(TVar(TVar("old"))), Once()
    forgotten = root.get().get()

    @atomically
    def rotate():
        forgotten.set("orphan")
        root.set(TVar(TVar("new")))

    @atomically
    def chase():
        middle = root.get()
        if first:
            elsewhere(rotate)
        return middle.get().get()

    assert chase() == "new"


@pytest.mark.parametrize("raises", [True, False])
def test_an_error_that_came_of_stale_reads_is_forgotten(raises):
    """kyo, STMStressTest: typed Abort inside STM is retried when the log is stale; a panic likewise."""
    outer, first = TVar(TVar("X")), Once()

    @atomically
    def look():
        inner = outer.get()
        value = inner.get()
        if first:
            elsewhere(outer.set, TVar("fine" if raises else "X"))
        if value == "X":
            raise Oops
        return value

    if raises:
        assert look() == "fine"
    else:
        with pytest.raises(Oops):
            look()


def test_two_lists_have_both_their_heads_or_neither():
    """kyo, STMStressTest: two-queue atomicity; a cross-type invariant over a map, a variable and a vector."""
    table, ref, log, first, found = TMap(), TVar(0), TVector(), Once(), []

    @atomically
    def write(i):
        table[i % 10] = i
        ref.set(i)
        log.append(i)

    @atomically
    def look():
        last = log[-1] if log else 0
        if first:
            elsewhere(write, 7)
        found.append((last, ref.get(), max(table.values(), default=0)))

    look()
    write(8)
    look()
    assert found == [(7, 7, 7), (8, 8, 8)]


def test_writes_of_one_thread_are_seen_in_their_order():
    """kyo, STMStressTest: sequential STM.run on the same fiber preserves write order in observers."""
    ref, seen = TVar(0), [0]
    writing = Background(lambda: [run(ref.set, i) for i in range(1, 400)])
    while seen[-1] < 399:
        seen.append(run(ref.get))
    writing.result()
    assert seen == sorted(seen)


# ------------------------------------------------------------------------------ what a commit may miss


def test_two_doctors():
    """kyo, STMStressTest: two-doctor invariant. Of two who see both on call and go, only one goes."""
    a, b, first = TVar(True), TVar(True), Once()

    def leave(mine, other):
        if mine.get() and other.get():
            mine.set(False)
            return True
        return False

    @atomically
    def leave_first():
        gone = leave(a, b)
        if first:
            assert elsewhere(run, leave, b, a)
        return gone

    assert not leave_first()
    assert snapshot(a, b) == (True, False)


@pytest.mark.parametrize("changed", range(4))
def test_a_change_of_any_one_of_what_was_read_is_noticed(changed):
    """kyo, STMStressTest: reading A then B aborts if A was written; conflict on the last of many refs."""
    refs, total, first = [TVar(1) for _ in range(4)], TVar(0), Once()

    @atomically
    def add_up():
        total.set(sum(ref.get() for ref in refs))
        if first:
            elsewhere(refs[changed].set, 10)

    add_up()
    assert total.get() == 13


def test_own_writes_do_not_wake_or_disturb():
    """kyo, STMStressTest: a transaction's own writes do not trigger self-wakeup. One attempt, if nobody intervenes."""
    ref, attempts = TVar(0), []

    @atomically
    def body():
        attempts.append(1)
        ref.set(ref.get() + 1)
        check(ref.get() == 1)

    body()
    assert attempts == [1]


# ------------------------------------------------------------------------------ nested


def test_a_nested_failure_under_contention_leaks_nothing():
    """kyo, STMStressTest: nested transaction rollback under contention leaks no inner write, loses no outer one."""
    outer_ref, inner_ref = TVar(0), TVar(0)
    leaks, blind = [], []

    @atomically(timeout=0)
    def inner(mine):
        blind.extend([1] * (outer_ref.get() != mine))
        inner_ref.set(999)
        check(inner_ref.get() == 0)

    @atomically
    def outer():
        outer_ref.value += 1
        try:
            inner(outer_ref.get())
        except TransactionTimeout:
            pass
        leaks.extend([1] * (inner_ref.get() != 0))

    together(*(lambda: [outer() for _ in range(20)] for _ in range(6)))
    assert snapshot(outer_ref, inner_ref) == (120, 0)
    assert not leaks
    assert not blind


def test_what_only_a_nested_scope_has_read_wakes_the_whole():
    """kyo, STMStressTest: nested retry observes an external write to a ref that is read in the nested scope only."""
    r1, r2, attempts = TVar(0), TVar(0), []

    @atomically
    def inner():
        a = r1.get()
        check(a)
        r2.set(a)

    @atomically
    def outer():
        attempts.append(r2.get())
        inner()

    waiting = Background(outer)
    asleep()
    r1.set(42)
    waiting.result()
    assert r2.get() == 42
    assert attempts == [0, 0]


def test_each_handler_gets_its_own_error():
    """kyo, STMStressTest: concurrent nested handleErrorWith chains do not desync."""
    ref, wrong = TVar(0), []

    @atomically
    def inner(number):
        bump(ref)
        raise Oops(number)

    @atomically
    def outer(number):
        bump(ref)
        try:
            inner(number)
        except Oops as error:
            wrong.extend([error] * (error.args != (number,)))

    together(*(lambda n=n: [outer((n, i)) for i in range(20)] for n in range(6)))
    assert not wrong
    assert ref.get() == 120
