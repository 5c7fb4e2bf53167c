"""`retry` in either tier is woken by commits of the other, nothing is lost, and nobody is left waiting."""

import threading
import time

import numpy as np
import pytest
from numba import njit

import stm
from stm import BlockedForever, TransactionTimeout, TVar, atomically, check, compiled
from stm.compiled import TArray
from stm.compiled.log import QUICK
from tests.stm.compiled.shared import move, nothing_read, put, take
from tests.support import Background, asleep, elsewhere, until


@njit(nogil=True)
def take_in_a_loop(stock, i, times):
    for _ in range(times):
        take(stock, i)
    return times


def wake_by_element(stock):
    stock[0] = 1


def wake_by_transaction(stock):
    put(stock, 0, 1)


def wake_by_map(stock):
    put.map(stock, np.zeros(1, int), 1, threads=1)


def wake_by_object_transaction(stock):
    @atomically
    def body():
        stock[0] += 1

    body()


@njit
def _plain(stock):
    stock[0] += 1


def wake_by_compiled_element(stock):
    _plain(stock)


WAKERS = [wake_by_element, wake_by_transaction, wake_by_map, wake_by_object_transaction, wake_by_compiled_element]


@pytest.mark.parametrize("wake", WAKERS)
@pytest.mark.parametrize("kind", ["call", "joined", "object", "own loop", "map"])
def test_a_sleeper_of_either_tier_is_woken_by_any_commit(wake, kind):
    stock, x = TArray([0, 0]), TVar(0)

    def object_tier():
        check(stock[0] > 0)
        stock[0] -= 1
        return 0

    waits = {
        "call": lambda: take(stock, 0),
        "joined": lambda: stm.run(lambda: (x.value, take(stock, 0))[1]),
        "object": lambda: stm.run(object_tier),
        "own loop": lambda: take_in_a_loop(stock, 0, 1) - 1,
        "map": lambda: int(take.map(stock, [0], threads=1)[0]),
    }
    sleeper = Background(waits[kind])
    asleep()
    elsewhere(put, stock, 1, 1)  # which does not concern it
    elsewhere(wake, stock)
    assert sleeper.result() == 0
    assert list(stock) == [0, 1]


def test_a_joined_sleeper_is_woken_by_a_variable_too():
    stock, x = TArray([0]), TVar(False)

    def body():
        if x.value:
            return "x"
        return take(stock, 0)

    sleeper = Background(stm.run, body)
    asleep()
    x.set(True)
    assert sleeper.result() == "x"


def test_or_else_over_compiled_alternatives():
    stock = TArray([0, 0])

    def first_of():
        return stm.or_else(lambda: (0, take(stock, 0)), lambda: (1, take(stock, 1)))

    sleeper = Background(stm.run, first_of)
    asleep()
    put(stock, 1, 5)
    assert sleeper.result() == (1, 4)
    put(stock, 0, 1)
    assert stm.run(first_of) == (0, 0)
    assert list(stock) == [0, 4]


def test_what_an_alternative_wrote_before_it_retried_is_gone():
    stock = TArray([0, 0])

    @compiled.transaction
    def writes_and_retries(stock):
        stock[1] = 99
        check(stock[0] > 0)

    @atomically
    def body():
        stm.or_else(lambda: writes_and_retries(stock), lambda: None)
        return stock[1]

    assert body() == 0


def test_ping_pong_between_the_tiers_loses_no_wake_up():
    ball, rounds = TArray([0]), 500

    def compiled_player():
        for _ in range(rounds):
            pong(ball)

    @compiled.transaction
    def pong(ball):
        check(ball[0] % 2 == 1)
        ball[0] += 1

    @atomically
    def ping():
        check(ball[0] % 2 == 0)
        ball[0] += 1

    other = Background(compiled_player)
    for _ in range(rounds):
        ping()
    other.result()
    assert ball[0] == 2 * rounds


def test_many_sleepers_each_get_one():
    stock, sleepers = TArray(np.zeros(40, int)), 40
    waiting = [Background(take, stock, k) for k in range(sleepers)]
    asleep(sleepers)
    put.map(stock, np.arange(sleepers), 1, threads=2)
    assert [one.result() for one in waiting] == [0] * sleepers
    assert sum(stock) == 0


def test_a_change_between_the_last_read_and_the_sleep_is_not_slept_through():
    """The change comes while the sleeper registers: after it has armed its slots, and before it looks a last time."""
    from stm.compiled import joining

    stock, once = TArray([0]), []
    original = joining.ArrayPart._places

    def places(self):
        found = original(self)
        if not once:
            once.append(1)
            put(stock, 0, 1)  # by a compiled commit, which needs no lock of the object tier
        return found

    joining.ArrayPart._places = places
    try:
        assert take(stock, 0) == 0
    finally:
        joining.ArrayPart._places = original
    assert once


def test_time_limits_bound_the_wait():
    stock = TArray([0], name="stock")
    with pytest.raises(TransactionTimeout, match="<TArray 'stock'"):
        atomically(timeout=0.02)(take)(stock, 0)
    put(stock, 0, 1)
    assert atomically(timeout=5.0)(take)(stock, 0) == 0


def test_retry_with_nothing_read_is_an_error():
    array = TArray([0])
    with pytest.raises(BlockedForever, match="nothing_read"):
        nothing_read(array)
    with pytest.raises(BlockedForever):
        stm.run(nothing_read, array)

    @compiled.transaction
    def only_writes(array):
        array[0] = 1
        stm.retry()

    with pytest.raises(BlockedForever):
        only_writes(array)
    with pytest.raises(BlockedForever):
        stm.run(lambda: (array.__setitem__(0, 2), stm.retry()))
    assert array[0] == 0


def test_an_irrevocable_transaction_can_not_retry_in_machine_code_either():
    with pytest.raises(stm.IrrevocableRetry):
        stm.run(take, TArray([0]), 0, irrevocable=True)


def test_nothing_is_left_of_sleepers_that_gave_up():
    from stm.compiled import sleeping

    stock = TArray(np.zeros(8, int))
    for k in range(300):
        with pytest.raises(TransactionTimeout):
            atomically(timeout=0)(take)(stock, k % 8)
    sleeper = Background(take, stock, 3)
    asleep()
    put(stock, 3, 1)
    sleeper.result()
    until(lambda: not sleeping.waker.running, "the waker's end")
    assert not sleeping._slots
    assert not sleeping.counts.any()


def test_rows_that_retry_wait_without_stalling_the_others():
    stock = TArray([0])
    # Rows 0 to 2 take, the others put: only later rows let the earlier ones go on.
    amounts = np.array([-1, -1, -1, 1, 1, 1])

    @compiled.transaction
    def change(stock, amount):
        if amount < 0:
            check(stock[0] > 0)
        stock[0] += amount
        return stock[0]

    for threads in (1, 2):
        results = change.map(stock, amounts, threads=threads)
        assert len(results) == 6
        assert stock[0] == 0


def test_a_row_that_waits_is_woken_from_outside_and_others_are_done_by_then():
    stock, done = TArray([0, 0]), TArray([0])

    @compiled.transaction
    def row(stock, done, i):
        if i == 1:
            check(stock[0] > 0)
        done[0] += 1
        return i

    mapping = Background(row.map, stock, done, np.arange(4))
    until(lambda: done[0] == 3, "the other rows")
    asleep()
    put(stock, 0, 1)
    assert mapping.result().tolist() == [0, 1, 2, 3]


def test_a_row_that_retries_with_nothing_read_is_an_error_of_that_row():
    @compiled.transaction
    def row(array, i):
        if i == 1:
            stm.retry()
        array[0] += 1

    array = TArray([0])
    results = row.map(array, [0, 1, 2], on_error="return")
    assert results[0] is None
    assert results[2] is None
    assert isinstance(results[1], BlockedForever)
    assert array[0] == 2


def test_sleepers_cost_committers_nothing_that_lasts():
    """While somebody waits for one element, commits to others go on, and the waker is called for nothing at most once
    per wait.
    """
    stock = TArray(np.zeros(1000, int))
    sleeper = Background(take, stock, 0)
    asleep()
    begun = time.perf_counter()
    move.map(stock, np.arange(1, 500).repeat(200), np.arange(500, 999).repeat(200), 1)
    assert time.perf_counter() - begun < 30
    assert threading.active_count() < 10
    put(stock, 0, 1)
    sleeper.result()


def test_a_group_in_place_wakes(monkeypatch):
    from stm.compiled import mapping

    original = mapping.Work.__init__

    def begin(self, *args):
        original(self, *args)
        self.logs[0].words[QUICK // 8] = 1

    monkeypatch.setattr(mapping.Work, "__init__", begin)
    stock = TArray([0, 0])
    sleeper = Background(take, stock, 1)
    asleep()
    put.map(stock, [0, 1, 0], 1, threads=1)
    assert sleeper.result() == 0
