"""Atomicity and opacity across both tiers: nobody ever sees half of a commit, not even in an attempt that is lost."""

import sys
import threading
import time

import numpy as np
import pytest
from numba import njit

import stm
from stm import TVar, atomically, compiled
from stm.compiled import TArray
from stm.compiled.kernels import publish
from stm.compiled.log import WRITES, WRITES_END
from tests.stm.compiled.shared import (
    add_late,
    both,
    differ_late,
    difference,
    many_moves,
    move,
    put,
    raises_if_torn,
    refuse_late,
    total,
)
from tests.support import Background, elsewhere, together, until

SECONDS = 1.0

calls_keep_others_out = pytest.mark.skipif(
    getattr(sys, "_is_gil_enabled", lambda: True)(), reason="a first call keeps the GIL, so nothing changes meanwhile"
)


def while_running(work, *watchers):
    """Run `work` again and again for a while, and the watchers beside it; the counts of each."""
    over = threading.Event()

    def repeat(fn):
        count = 0
        while not over.is_set():
            fn()
            count += 1
        return count

    running = [Background(repeat, fn) for fn in (work, *watchers)]
    time.sleep(SECONDS)
    over.set()
    return [one.result() for one in running]


def test_torn_pairs_watched_from_both_tiers():
    pair, seen = TArray([0, 0]), []
    columns = np.ones(20_000, int)

    def watch_variables():
        a, b = stm.run(lambda: (pair[0], pair[1]))
        if a != b:
            seen.append(("object tier", a, b))

    def watch_read_only():
        a, b = stm.run(lambda: (pair[0], pair[1]), read_only=True)
        if a != b:
            seen.append(("read only", a, b))

    def watch_compiled():
        for _ in range(100):
            if difference(pair) != 0:
                seen.append(("compiled",))  # noqa: PERF401

    def watch_copies():
        a, b = pair.to_numpy()
        if a != b:
            seen.append(("copy", a, b))

    def work():
        both.map(pair, columns, threads=2)

    counts = while_running(work, watch_variables, watch_read_only, watch_compiled, watch_copies)
    assert not seen
    assert all(counts)
    assert pair[0] == pair[1] == counts[0] * len(columns)


def test_writers_of_both_tiers_on_the_same_elements_lose_nothing():
    pair, count = TArray([0, 0]), TVar(0)

    @atomically
    def python_side():
        pair[0] += 1
        pair[1] += 1
        count.value += 1

    def compiled_side():
        for _ in range(50):
            both(pair, 1)

    seen = []

    def watch():
        a, b, n = stm.run(lambda: (pair[0], pair[1], count.value))
        if a != b or n > a:
            seen.append((a, b, n))

    python, calls, maps, _ = while_running(
        python_side, compiled_side, lambda: both.map(pair, np.ones(500, int), threads=1), watch
    )
    assert not seen
    assert count.value == python
    assert list(pair) == [python + 50 * calls + 500 * maps] * 2


def test_variables_and_elements_change_together():
    array, x = TArray([0]), TVar(0)
    seen = []

    @atomically
    def bump():
        x.value += 1
        array[0] += 1

    def variable_first():
        a = stm.run(lambda: (x.value, array[0]))
        if a[0] != a[1]:
            seen.append(("x first", a))

    def element_first():
        a = stm.run(lambda: (array[0], x.value))
        if a[0] != a[1]:
            seen.append(("array first", a))

    def read_only():
        a = stm.run(lambda: (x.value, array[0]), read_only=True)
        if a[0] != a[1]:
            seen.append(("read only", a))

    def snapshots():
        a = stm.snapshot(x, array)
        if a[0] != a[1][0]:
            seen.append(("snapshot", a))

    counts = while_running(bump, variable_first, element_first, read_only, snapshots)
    assert not seen
    assert all(counts)
    assert x.value == array[0] == counts[0]


def test_a_row_whose_read_has_become_stale_is_run_anew():
    array, words = TArray([0]), np.zeros(2, np.int64)
    late = Background(add_late.map, array, words.ctypes.data, True, np.array([5]))
    until(lambda: words[0], "the first read")
    array[0] = 100
    words[1] = 1
    assert list(late.result()) == [100]
    assert array[0] == 105


@pytest.mark.parametrize("read_only", [False, True])
def test_an_element_too_new_for_a_variable_read_before_restarts_the_attempt(read_only):
    array, x, attempts = TArray([0]), TVar(0), []

    @atomically
    def change():
        x.value += 1
        array[0] += 1

    def body():
        attempts.append(1)
        first = x.value
        if len(attempts) == 1:
            elsewhere(change)
        return first, array[0]

    assert stm.run(body, read_only=read_only) == (1, 1)
    assert len(attempts) == 2


def test_a_variable_too_new_for_an_element_read_before_restarts_the_attempt():
    array, x, attempts = TArray([0]), TVar(0), []

    @atomically
    def change():
        x.value += 1
        put(array, 0, 1)

    def body():
        attempts.append(1)
        first = array[0]
        if len(attempts) == 1:
            elsewhere(change)
        return first, x.value

    assert stm.run(body) == (1, 1)
    assert len(attempts) == 2


def test_unrelated_changes_extend_the_attempt_instead():
    array, x, y, attempts = TArray([0, 0, 0]), TVar(0), TVar(0), []

    def body():
        attempts.append(1)
        seen = [array[0], x.value]
        elsewhere(put, array, 1, 1)
        elsewhere(y.set, 1)
        seen += [array[1], y.value]
        elsewhere(put, array, 2, 1)
        seen.append(total(array))
        return seen

    assert stm.run(body) == [0, 0, 1, 1, 2]
    assert len(attempts) == 1


def test_a_read_element_that_changes_before_the_commit_is_a_conflict():
    array, x, attempts = TArray([0]), TVar(0), []

    @atomically
    def body():
        attempts.append(1)
        seen = array[0]
        if len(attempts) == 1:
            elsewhere(put, array, 0, 5)
        x.value = seen

    body()
    assert x.value == 5
    assert len(attempts) == 2


def test_a_read_variable_that_changes_before_the_commit_is_a_conflict_for_elements():
    array, x, attempts = TArray([0]), TVar(0), []

    @atomically
    def body():
        attempts.append(1)
        seen = x.value
        array[0] = seen
        if len(attempts) == 1:
            elsewhere(x.set, 5)

    body()
    assert array[0] == 5
    assert len(attempts) == 2


def test_changed_there_and_back_is_a_conflict_all_the_same():
    array, attempts = TArray([0, 0]), []

    @atomically
    def body():
        attempts.append(1)
        seen = array[0]
        if len(attempts) == 1:
            elsewhere(put, array, 0, 1)
            elsewhere(put, array, 0, -1)
        array[1] = seen

    body()
    assert len(attempts) == 2


def test_an_exception_from_stale_elements_is_never_seen():
    array, x, attempts = TArray([0, 0]), TVar(0), []

    @atomically
    def body():
        attempts.append(1)
        a = array[0]
        if len(attempts) == 1:
            elsewhere(both, array, 1)
        x.value = a
        raise KeyError(a)

    with pytest.raises(KeyError) as caught:
        body()
    assert caught.value.args == (1,)
    assert len(attempts) == 2


def test_write_skew():
    array = TArray([50, 50])

    @compiled.transaction
    def withdraw(array, i, amount):
        if array[0] + array[1] >= amount:
            array[i] -= amount
            return True
        return False

    def use_up(i):
        return sum(withdraw(array, i, 1) for _ in range(2000))

    results = together(lambda: use_up(0), lambda: use_up(1))
    assert sum(results) == 100
    assert sum(array) == 0
    assert withdraw.map(TArray([5000, 5000]), np.arange(20_000) % 2, 1, threads=2).sum() == 10_000


def test_exceptions_in_machine_code_from_stale_reads_are_never_seen():
    pair = TArray([0, 0])
    counts = while_running(
        lambda: both.map(pair, np.ones(5000, int), threads=1), lambda: [raises_if_torn(pair) for _ in range(100)]
    )
    assert all(counts)


@pytest.mark.parametrize("how", ["a row", pytest.param("a call", marks=calls_keep_others_out)])
def test_an_exception_from_what_has_become_stale_is_never_seen(how):
    array, words = TArray([0]), np.zeros(2, np.int64)
    here = words.ctypes.data
    late = Background(lambda: refuse_late(array, here, 0) if how == "a call" else refuse_late.map(array, here, [0])[0])
    until(lambda: words[0], "the first read")
    array[0] = 100
    words[1] = 1
    assert late.result() == 100


def test_an_element_newer_than_a_stale_read_is_never_seen_beside_it():
    pair, words = TArray([0, 0]), np.zeros(2, np.int64)
    late = Background(differ_late.map, pair, words.ctypes.data, [0])
    until(lambda: words[0], "the first read")
    both(pair, 5)
    words[1] = 1
    assert list(late.result()) == [0]


def test_a_version_is_stored_before_its_value():
    """Who comes between the two must not take a new value for an old one. No thread can be made to come there; so the
    element is laid over its own entry in the log, and what is stored second tells what was there by then.
    """
    entry = np.array([0, 77])
    entry[0] = entry.ctypes.data  # the element's address
    log = np.zeros(16, np.int64)
    log[WRITES // 8] = entry.ctypes.data
    log[WRITES_END // 8] = entry.ctypes.data + 16
    njit(lambda log: publish(log, 42))(log.ctypes.data)
    assert list(entry) == [42, 42]


def test_money_is_kept_whatever_moves_it():
    accounts = TArray(np.full(64, 100))
    rng = np.random.default_rng(3)
    a, b = rng.integers(0, 64, (2, 50_000))

    @atomically
    def by_hand():
        accounts[3] -= 1
        accounts[60] += 1

    counts = while_running(
        lambda: move.map(accounts, a, b, 1, threads=2),
        lambda: many_moves(accounts, 2000),
        by_hand,
        lambda: [move(accounts, 5, 6, 1) for _ in range(100)],
    )
    assert sum(accounts) == 6400
    assert all(counts)


def test_no_stale_value_drives_a_loop_off_the_array():
    """`difference` runs off its table, or for ever, if it ever sees a torn pair: in `.map`, in calls and joined."""
    pair = TArray([0, 0])
    rows = np.ones(3000, int)

    @compiled.transaction
    def watch(pair, _row):
        return difference(pair)

    counts = while_running(
        lambda: both.map(pair, rows, threads=1),
        lambda: watch.map(pair, rows, threads=1),
        lambda: [difference(pair) for _ in range(100)],
        lambda: [stm.run(difference, pair) for _ in range(20)],
    )
    assert all(counts)
