"""Promises 6 and 7: no starvation, read-only transactions that never abort, irrevocable ones that run once."""

import gc
import sys
import threading
import time
import weakref

import pytest

from stm import (
    IrrevocableRetry,
    ReadOnlyViolation,
    TransactionTimeout,
    TVar,
    after,
    atomically,
    check,
    on_commit,
    or_else,
    retry,
    run,
    snapshot,
)
from stm.clock import clock
from stm.contention import INSIST_AFTER
from tests.support import Background, Once, asleep, elsewhere, together

# ---------------------------------------------------------------------------------------------- no starvation


def test_a_transaction_that_is_always_disturbed_commits_after_a_bounded_number_of_aborts():
    x, y = TVar(0), TVar(0)
    runs = []
    intruders = []

    @atomically
    def elder():
        runs.append(1)
        value = x.value
        intruder = Background(x.update, lambda v: v + 1)
        intruders.append(intruder)
        if len(runs) <= INSIST_AFTER:
            intruder.result()
        y.set(value)

    elder()
    for intruder in intruders:
        intruder.result()
    assert len(runs) == INSIST_AFTER + 1
    assert y.value == INSIST_AFTER
    assert x.value == INSIST_AFTER + 1


def test_a_long_transaction_is_not_starved_by_small_ones():
    variables = [TVar(0) for _ in range(500)]
    stop = threading.Event()

    def young(seed):
        position = seed
        while not stop.is_set():
            position = (position * 7 + 11) % len(variables)
            variables[position].update(lambda value: value + 1)

    youngsters = [Background(young, seed) for seed in range(2)]
    runs = []

    @atomically
    def elder():
        runs.append(1)
        total = sum(variable.value for variable in variables)
        variables[0].value += 1
        return total

    for _ in range(20):
        runs.clear()
        elder()
        assert len(runs) <= INSIST_AFTER + 1
    stop.set()
    for one in youngsters:
        one.result()


def test_an_insisting_attempt_may_still_retry_and_lets_others_commit_meanwhile():
    x, y = TVar(0), TVar(0)
    runs = []

    @atomically
    def elder():
        runs.append(1)
        value = x.value
        if len(runs) <= INSIST_AFTER:
            elsewhere(x.update, lambda v: v + 1)
            y.set(value)
        else:
            check(value < 0)

    background = Background(elder)
    asleep()
    assert x.value == INSIST_AFTER
    x.set(-1)
    background.result()


# ---------------------------------------------------------------------------------------------- read-only


def test_a_read_only_transaction_reads_one_past_moment_and_never_aborts():
    a, b = TVar("old"), TVar("old")
    runs = []

    @atomically(read_only=True)
    def look():
        runs.append(1)
        one = a.value
        for number in range(3):
            elsewhere(run, lambda: (a.set(number), b.set(number)))
        return one, a.value, b.value

    assert look() == ("old", "old", "old")
    assert len(runs) == 1
    assert look() != ("old", "old", "old")


def test_read_only_scans_under_writers():
    variables = [TVar(100) for _ in range(500)]
    stop = threading.Event()

    @atomically
    def transfer(source, target):
        source.value -= 1
        target.value += 1

    def writer(seed):
        while not stop.is_set():
            seed = (seed * 31 + 7) % 499
            transfer(variables[seed], variables[499])

    runs = []

    @atomically(read_only=True)
    def total():
        runs.append(1)
        return sum(variable.value for variable in variables)

    writers = [Background(writer, seed) for seed in range(2)]
    totals = [total() for _ in range(200)]
    stop.set()
    for one in writers:
        one.result()
    assert set(totals) == {50_000}
    assert len(runs) == 200


def test_several_snapshots_of_different_moments_at_once():
    x = TVar(0)

    def nested_looks(depth):
        @atomically(read_only=True)
        def look():
            before = x.value
            if depth:
                x_next = elsewhere(lambda: (x.set(before + 1), nested_looks(depth - 1))[1])
                assert x_next == before + 1
            elsewhere(x.set, 1000 + depth)
            assert x.value == before
            return before

        return look()

    assert nested_looks(5) == 0


def test_history_goes_when_the_snapshot_ends_even_if_nobody_writes_again():
    class Value:
        pass

    old = Value()
    ref = weakref.ref(old)
    x = TVar(old)

    @atomically(read_only=True)
    def look():
        seen = x.value
        elsewhere(x.set, None)
        assert x.value is seen

    del old
    look()
    gc.collect()
    assert ref() is None
    assert not clock.history


def test_history_of_a_hot_variable_does_not_grow():
    x = TVar(0)
    sizes = []

    @atomically(read_only=True)
    def look():
        elsewhere(lambda: [x.set(number) for number in range(1000)])
        sizes.append(len(clock.history))
        return x.value

    assert look() == 0
    assert sizes[0] <= 2


def test_a_long_snapshot_does_not_pile_up_what_short_ones_needed():
    x = TVar(0)
    sizes = []
    short = atomically(read_only=True)(lambda: (x.value, elsewhere(x.update, lambda v: v + 1), x.value))

    @atomically(read_only=True)
    def long():
        before = x.value
        for _ in range(200):
            seen, _, again = elsewhere(short)
            assert seen == again
        sizes.append(len(clock.history))
        return before, x.value

    assert long() == (0, 0)
    assert sizes[0] < 150
    assert x.value == 200


def test_what_was_needed_once_does_not_put_off_the_next_sweep(monkeypatch):
    """How long the history may become, follows from what the last sweep had to leave; until nothing is needed."""
    snapshot = sys.modules["stm.snapshot"]  # (`stm.snapshot` is the function)
    monkeypatch.setattr(snapshot, "_sweep_at", 10_000)
    x = TVar(0)
    assert atomically(read_only=True)(lambda: (x.value, elsewhere(x.update, lambda v: v + 1), x.value))() == (0, 1, 0)
    assert not clock.history
    assert snapshot._sweep_at == snapshot.SWEEP_AT_LEAST


def test_a_snapshot_does_not_delay_writers():
    x = TVar(0)

    @atomically(read_only=True)
    def look():
        elsewhere(x.set, 1)
        elsewhere(run, lambda: x.update(lambda value: value + 1))
        return x.value

    assert look() == 0
    assert x.value == 2


@pytest.mark.parametrize(
    "write", [lambda x: x.set(1), lambda x: x.swap(1), lambda x: x.update(abs), atomically(lambda x: x.set(1))]
)
def test_a_write_in_a_read_only_transaction_is_an_error(write):
    x = TVar(0, name="register")
    with pytest.raises(ReadOnlyViolation, match="'register'.*read_only=True"):
        run(lambda: write(x), read_only=True)
    assert x.value == 0


def test_a_nested_read_only_scope_sees_the_outer_writes_and_may_not_write():
    x = TVar(0)

    @atomically(read_only=True)
    def inner(write=False):
        if write:
            x.set(9)
        return x.value

    @atomically
    def outer():
        x.set(1)
        assert inner() == 1
        with pytest.raises(ReadOnlyViolation):
            inner(write=True)
        x.set(2)

    outer()
    assert x.value == 2


def test_a_read_only_transaction_may_wait():
    x = TVar(0)

    @atomically(read_only=True)
    def wait():
        check(x.value)
        return x.value

    background = Background(wait)
    asleep()
    x.set(4)
    assert background.result() == 4


def test_a_read_only_transactions_exception_comes_from_a_true_moment_and_propagates():
    x = TVar(0)

    @atomically(read_only=True)
    def body():
        value = x.value
        elsewhere(x.set, 1)
        raise KeyError(value)

    with pytest.raises(KeyError, match="0"):
        body()


def test_snapshot_returns_values_of_one_moment():
    a, b = TVar(1), TVar("two")
    assert snapshot(a, b) == (1, "two")
    assert snapshot() == ()
    assert run(lambda: (a.set(5), snapshot(a, b))[1]) == (5, "two")
    with pytest.raises(TypeError, match="TVars"):
        snapshot(a, 5)
    assert snapshot(after(0)) == (True,)


def test_snapshot_under_a_writer_is_consistent():
    variables = [TVar(0) for _ in range(50)]
    stop = threading.Event()

    def writer():
        while not stop.is_set():
            run(lambda: [variable.update(lambda v: v + 1) for variable in variables])

    background = Background(writer)
    pictures = [set(snapshot(*variables)) for _ in range(1000)]
    stop.set()
    background.result()
    assert all(len(picture) == 1 for picture in pictures)


# ---------------------------------------------------------------------------------------------- irrevocable


def test_irrevocable_runs_exactly_once_while_others_try_to_disturb_it():
    x, y = TVar(0), TVar(0)
    runs = []
    intruders = []

    @atomically(irrevocable=True)
    def body():
        runs.append(1)
        value = x.value
        intruders.append(Background(x.set, 5))
        intruders.append(Background(run, lambda: y.set(x.value)))
        assert elsewhere(lambda: x.value) == 0  # others may read
        assert elsewhere(snapshot, x, y) == (0, 0)
        x.set(value + 1)
        return value

    assert body() == 0
    for intruder in intruders:
        intruder.result()
    assert len(runs) == 1
    assert x.value == 5


def test_irrevocable_ones_take_turns():
    x = TVar(0)
    runs = []

    @atomically(irrevocable=True)
    def body():
        runs.append(1)
        x.value += 1

    together(*[lambda: [body() for _ in range(100)]] * 3)
    assert (x.value, len(runs)) == (300, 300)


def test_irrevocable_beside_ordinary_transactions_under_load():
    x = TVar(0)
    runs = []

    @atomically(irrevocable=True)
    def careful():
        runs.append(1)
        x.value += 1

    together(
        lambda: [careful() for _ in range(300)],
        lambda: [x.update(lambda v: v + 1) for _ in range(2000)],
        lambda: [run(lambda: x.set(x.value + 1)) for _ in range(2000)],
    )
    assert (x.value, len(runs)) == (4300, 300)


def test_retry_in_an_irrevocable_transaction_is_an_error():
    x = TVar(0)
    for body in (lambda: check(x.value), lambda: or_else(retry, lambda: 1), atomically(lambda: check(x.value))):
        with pytest.raises(IrrevocableRetry, match="wait in an ordinary transaction first"):
            run(body, irrevocable=True)
    elsewhere(x.set, 1)  # nobody is kept out


def test_an_exception_in_an_irrevocable_transaction_discards_its_writes():
    x = TVar(0)

    def body():
        x.set(1)
        raise KeyError

    with pytest.raises(KeyError):
        run(body, irrevocable=True)
    assert elsewhere(lambda: (x.value, x.swap(2))) == (0, 0)


def test_a_nested_irrevocable_scope_makes_the_rest_irrevocable():
    x, y = TVar(0), TVar(0)
    first = Once()
    runs, effects = [], []
    intruders = []

    @atomically(irrevocable=True)
    def effect():
        effects.append(x.value)
        intruders.append(Background(x.set, 7))

    @atomically
    def body():
        runs.append(1)
        value = x.value
        if first:
            elsewhere(x.set, 1)  # stale before the scope: restart first
        effect()
        assert x.value == value
        with pytest.raises(IrrevocableRetry):
            retry()
        y.set(value)

    body()
    for intruder in intruders:
        intruder.result()
    assert (len(runs), effects, y.value, x.value) == (2, [1], 1, 7)


def test_waiting_for_an_irrevocable_one_respects_the_timeout():
    entered, leave = threading.Event(), threading.Event()

    def hold():
        run(lambda: (entered.set(), leave.wait(60)), irrevocable=True)

    holder = Background(hold)
    entered.wait(60)
    with pytest.raises(TransactionTimeout, match="must not be disturbed"):
        run(lambda: 1, timeout=0.02, irrevocable=True)
    x = TVar(0)
    with pytest.raises(TransactionTimeout, match="must not be disturbed"):
        run(lambda: x.set(1), timeout=0.02)
    assert x.value == 0
    assert run(lambda: x.value, timeout=0) == 0
    leave.set()
    holder.result()


def test_read_only_and_irrevocable_exclude_each_other():
    with pytest.raises(ValueError, match="exclude each other"):
        atomically(read_only=True, irrevocable=True)


def test_after_is_no_danger_to_an_irrevocable_transaction():
    late = after(0.01)
    runs = []

    def body():
        runs.append(late.value)
        limit = time.monotonic() + 0.02
        while time.monotonic() < limit:
            pass
        runs.append(late.value)

    run(body, irrevocable=True)
    assert len(runs) == 2
    assert runs[0] is runs[1]


def test_hooks_of_an_irrevocable_transaction_run_when_others_may_commit_again():
    x = TVar(0)
    run(lambda: on_commit(elsewhere, x.set, 1), irrevocable=True)
    assert x.value == 1


# ---------------------------------------------------------------------------------------------- cost


def test_without_sleepers_and_snapshots_the_clock_is_quiet_again():
    x = TVar(0)
    run(lambda: x.value, read_only=True)
    with pytest.raises(TransactionTimeout):
        run(lambda: check(x.value), timeout=0)
    run(lambda: x.set(1), irrevocable=True)
    x.set(2)
    assert clock.quiet


@pytest.mark.skipif(not hasattr(sys, "_is_gil_enabled"), reason="needs CPython 3.13")
def test_importing_leaves_the_gil_as_it_was():
    import sysconfig

    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        assert not sys._is_gil_enabled()
