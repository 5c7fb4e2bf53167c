"""Promise 1, atomic and opaque: nobody sees half a commit, and no attempt sees two moments at once."""

import math
import random
import threading

import pytest

import stm.clock
from stm import TVar, atomically, or_else, retry, run, snapshot
from stm.clock import clock
from tests.support import Background, Once, elsewhere, together, until


def test_zombie_reads_a_doomed_attempt_never_sees_two_moments():
    a, b = TVar(0), TVar(0)
    first = Once()
    seen = []

    def bump():
        a.value += 1
        b.value += 1

    @atomically
    def look():
        x = a.value
        if first:
            elsewhere(run, bump)
        y = b.value
        seen.append((x, y))
        return x, y

    assert look() == (1, 1)
    assert seen == [(1, 1)]  # the first attempt ended at the read of b, before it could see (0, 1)


def test_zombie_reads_under_load():
    a, b = TVar(0), TVar(0)
    stop = threading.Event()
    torn = []

    @atomically
    def bump():
        a.value += 1
        b.value += 1

    @atomically
    def look():
        x, y = a.value, b.value
        if x != y:
            torn.append((x, y))
        return 1 / (1 if x == y else 0)

    def writer():
        while not stop.is_set():
            bump()

    writers = [Background(writer) for _ in range(2)]
    for _ in range(20_000):
        look()
    stop.set()
    for one in writers:
        one.result()
    assert not torn
    assert a.value == b.value


def test_a_reading_attempt_moves_on_to_a_later_moment_where_it_can():
    """Timestamp extension: a newer variable is no reason to restart if all that was read still stands."""
    a, b = TVar(0), TVar(0)
    runs = []

    @atomically
    def look():
        runs.append(a.value)
        elsewhere(b.set, 1)
        return b.value

    assert look() == 1
    assert len(runs) == 1


def test_no_extension_beyond_a_changed_read():
    a, b = TVar(0), TVar(0)
    first = Once()
    runs = []

    @atomically
    def look():
        runs.append(a.value)
        if first:
            elsewhere(b.set, 1)
            assert b.value == 1  # extends
            elsewhere(run, lambda: (a.set(2), b.set(2)))
        return a.value, b.value

    assert look() == (2, 2)
    assert runs == [0, 2]


def test_rereading_a_variable_gives_the_same_value_or_restarts():
    x = TVar("old")
    first = Once()
    pairs = []

    @atomically
    def body():
        one = x.value
        if first:
            elsewhere(x.set, "new")
        two = x.value
        pairs.append((one, two))

    body()
    assert pairs == [("new", "new")]


@pytest.mark.parametrize("read_only", [False, True])
def test_the_sum_of_counters_bumped_together_is_never_odd(read_only):
    one, two = TVar(0), TVar(0)
    stop = threading.Event()

    @atomically
    def bump():
        one.value += 1
        two.value += 1

    @atomically(read_only=read_only)
    def total():
        return one.value + two.value

    def writer():
        while not stop.is_set():
            bump()

    background = Background(writer)
    sums = [total() for _ in range(5_000)] + [sum(snapshot(one, two)) for _ in range(5_000)]
    stop.set()
    background.result()
    assert all(value % 2 == 0 for value in sums)


def test_a_commit_fails_when_what_it_read_has_changed():
    source, target = TVar(1), TVar(0)
    first = Once()

    @atomically
    def copy():
        value = source.value
        if first:
            elsewhere(source.set, 5)
        target.set(value)

    copy()
    assert target.value == 5


def test_write_skew_is_impossible():
    x, y = TVar(1), TVar(1)
    first = Once()
    refused = []

    @atomically
    def withdraw(account):
        if x.value + y.value >= 2:
            if first:
                elsewhere(withdraw, y)
            account.value -= 2
        else:
            refused.append(account)

    withdraw(x)
    assert x.value + y.value == 0
    assert refused == [x]


def test_write_skew_under_load():
    for _ in range(300):
        x, y = TVar(1), TVar(1)

        @atomically
        def withdraw(account, other):
            if account.value + other.value >= 2:
                account.value -= 2

        together(lambda: withdraw(x, y), lambda: withdraw(y, x))
        assert x.value + y.value == 0


def test_aba_a_value_that_went_and_came_back_has_changed():
    x, log = TVar(10), TVar(())
    first = Once()
    runs = []

    @atomically
    def body():
        value = x.value
        runs.append(value)
        if first:
            elsewhere(x.update, lambda v: v + 1)
            elsewhere(x.update, lambda v: v - 1)
        log.update(lambda entries: (*entries, value))

    body()
    assert runs == [10, 10]
    assert log.value == (10,)


@pytest.mark.parametrize(("before", "after"), [(1, True), (1, 1.0), (0, False), ((), ()), ("a", "a")])
def test_equal_but_different_values_conflict(before, after):
    x, y = TVar(before), TVar(None)
    first = Once()

    @atomically
    def body():
        value = x.value
        if first:
            elsewhere(x.set, after)
        y.set((type(value),))

    body()
    assert y.value == (type(after),)


def test_nan_and_objects_with_hostile_equality_do_not_conflict_with_themselves():
    class Hostile:
        def __eq__(self, other):
            raise AssertionError("values must not be compared")

        __hash__ = None

    for value in (math.nan, Hostile()):
        x, y = TVar(value), TVar(0)
        runs = []

        @atomically
        def body():
            runs.append(x.value)
            elsewhere(TVar(0).set, 1)  # moves the clock, so that the commit must validate
            y.value += 1

        body()
        assert len(runs) == 1


def test_writes_that_change_nothing_still_count():
    """{a: 0 -> 0, b: 0 -> 1} against {a: 0 -> 1, b: 0 -> 0}: not both from the same beginning."""
    a, b = TVar(0), TVar(0)
    first = Once()
    outcomes = []

    def compare_and_set(new_a, new_b, meanwhile=lambda: None):
        if (a.value, b.value) != (0, 0):
            return False
        meanwhile()
        a.set(new_a)
        b.set(new_b)
        return True

    @atomically
    def one():
        return compare_and_set(0, 1, lambda: first and outcomes.append(elsewhere(other)))

    @atomically
    def other():
        return compare_and_set(1, 0)

    outcomes.append(one())
    assert sorted(outcomes) == [False, True]
    assert (a.value, b.value) == (1, 0)


def test_blind_writes_do_not_conflict():
    x = TVar(0)
    runs = []

    @atomically
    def blind():
        runs.append(1)
        x.set(1)
        elsewhere(x.set, 2)

    blind()
    assert (x.value, len(runs)) == (1, 1)


def test_privatization_an_unlinked_node_is_not_touched_by_a_late_writer():
    node = TVar(0)
    link = TVar(node)
    first = Once()

    @atomically
    def late_writer():
        target = link.value
        if first:
            elsewhere(link.set, None)  # from now on the node is private ...
            elsewhere(node.set, 42)  # ... and changed without looking at the link
        if target is not None:
            target.set(-1)

    late_writer()
    assert node.value == 42


@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_nobody_sees_a_part_of_a_commit(count):
    variables = [TVar(0) for _ in range(count)]
    stop = threading.Event()
    seen = []

    @atomically
    def bump():
        for variable in variables:
            variable.value += 1

    @atomically
    def look():
        seen.append(len({variable.value for variable in variables}))

    def reader():
        while not stop.is_set():
            look()

    background = Background(reader)
    for _ in range(3_000):
        bump()
    until(lambda: seen)
    stop.set()
    background.result()
    assert set(seen) == {1}


@pytest.mark.parametrize("count", [1, 2, 5])
def test_no_update_is_lost(count):
    variables = [TVar(0) for _ in range(count)]

    @atomically
    def bump():
        for variable in variables:
            variable.value += 1

    def work():
        for _ in range(2_000):
            bump()

    together(*[work] * 4)
    assert {variable.value for variable in variables} == {8_000}


def test_random_transfers_keep_the_money():
    accounts = [TVar(100) for _ in range(10)]

    @atomically
    def transfer(source, target, amount):
        source.value -= amount
        target.value += amount

    @atomically(read_only=True)
    def total():
        return sum(account.value for account in accounts)

    def work(seed):
        choose = random.Random(seed)
        for step in range(2_000):
            transfer(*choose.sample(accounts, 2), choose.randrange(10))
            if step % 100 == 0:
                assert total() == 1_000

    together(*[lambda seed=seed: work(seed) for seed in range(4)])
    assert total() == 1_000


def test_a_variable_made_in_a_branch_that_was_rolled_back_can_be_used():
    made = []

    def branch():
        made.append(TVar("first"))
        made[0].set("lost")
        retry()

    run(lambda: or_else(branch, lambda: None))
    assert made[0].value == "first"
    assert run(lambda: made[0].update(str.upper)) == "FIRST"


def test_a_swallowed_restart_can_not_commit():
    """A body that catches everything must not get its stale reads committed."""
    a, b, target = TVar(0), TVar(0), TVar(None)
    first = Once()

    @atomically
    def body():
        x = a.value
        if first:
            elsewhere(run, lambda: (a.set(1), b.set(1)))
        try:
            y = b.value
        except BaseException:
            y = "swallowed"
        target.set((x, y))
        return x, y

    assert body() == (1, 1)
    assert target.value == (1, 1)


def test_a_swallowed_restart_can_not_return():
    a, b = TVar(0), TVar(0)
    first = Once()

    @atomically
    def body():
        x = a.value
        if first:
            elsewhere(run, lambda: (a.set(1), b.set(1)))
        try:
            y = b.value
        except BaseException:
            y = "swallowed"
        return x, y

    assert body() == (1, 1)


def test_versions_may_pass_any_machine_word(monkeypatch):
    start = 2**63 - 4
    monkeypatch.setattr(clock, "now", start)
    x, y = TVar(0), TVar(0)
    for _ in range(10):
        run(lambda: (x.set(x.value + 1), y.set(y.value + 1)))
        elsewhere(x.update, lambda value: value)
        assert snapshot(x, y) == (y.value, y.value)
    assert clock.now == start + 40


def test_validation_looks_at_every_read(monkeypatch):
    variables = [TVar(0) for _ in range(100)]
    for changed in (0, 50, 99):
        first = Once()
        runs = []

        @atomically
        def body():
            runs.append(1)
            total = sum(variable.value for variable in variables)
            if first:
                elsewhere(variables[changed].set, total)
            variables[-1].value += 1

        body()
        assert len(runs) == 2
    assert stm.clock.unchanged({})
