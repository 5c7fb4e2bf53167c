"""What `TCounter` promises."""

import copy
import os
import pickle
import threading
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stm import TCounter, TVar, atomically, check, on_rollback, run
from stm.collections import counter as counter_module
from stm.collections.counter import STRIPES
from tests.support import Background, Once, asleep, elsewhere, together, until


class Undo(Exception):
    pass


def test_adds_up():
    counter = TCounter(5)
    counter.add()
    counter.add(10)
    counter.add(-3)
    elsewhere(counter.add, 100)
    assert (counter.value, counter.get(), int(counter), float(counter)) == (113, 113, 113, 113.0)


def test_no_addition_is_lost():
    counter = TCounter()

    def add():
        for _ in range(2_000):
            counter.add()

    together(*[add] * 8)
    assert counter.value == 16_000


def test_four_threads_add_without_a_single_conflict():
    counter, rollbacks = TCounter(), []
    barrier = threading.Barrier(4)

    @atomically
    def add_and_wait(wait):
        on_rollback(rollbacks.append, 1)
        counter.add()
        counter.add(2)
        if wait:
            barrier.wait(30)  # all four are in the middle of it now

    def work():
        for number in range(500):
            add_and_wait(number % 50 == 0)

    together(*[work] * 4)
    assert counter.value == 6_000
    assert not rollbacks


def test_living_threads_have_stripes_of_their_own():
    counter, here, go = TCounter(), threading.Barrier(STRIPES), threading.Event()

    def work():
        counter.add()
        here.wait(60)
        go.wait(60)
        return counter_module._stripe()

    for _ in range(3):  # the numbers of dead threads are given out again
        working = [Background(work) for _ in range(STRIPES - 1)]
        counter.add()
        here.wait(60)
        go.set()
        stripes = [one.result() for one in working]
        for one in working:
            one.thread.join()
        assert sorted([*stripes, counter_module._stripe()]) == list(range(STRIPES))
        go.clear()
    assert counter.value == 3 * STRIPES


def test_there_are_stripes_enough():
    assert max(16, 2 * (os.cpu_count() or 1)) <= STRIPES
    assert STRIPES.bit_count() == 1


def test_more_threads_than_stripes_share_them():
    counter, here = TCounter(), threading.Barrier(STRIPES + 9)

    def work():
        counter.add()
        here.wait(60)
        for _ in range(20):
            counter.add()

    working = [Background(work) for _ in range(STRIPES + 9)]
    for one in working:
        one.result()
    assert counter.value == 21 * (STRIPES + 9)
    free = counter_module._free
    until(lambda: len(free) > STRIPES)
    assert [number < STRIPES for number in free] == sorted([number < STRIPES for number in free], reverse=True)


def test_in_a_transaction_it_counts_when_that_commits():
    counter = TCounter()

    @atomically
    def body(fail):
        counter.add()
        counter.add(5)
        assert counter.value == 6
        assert elsewhere(counter.get) == 0
        if fail:
            raise Undo

    with pytest.raises(Undo):
        body(True)
    assert counter.value == 0
    body(False)
    assert counter.value == 6


def test_reading_the_sum_in_a_transaction_conflicts_with_adding():
    counter, seen, result = TCounter(), [], TVar(None)
    first = Once()

    @atomically
    def body():
        seen.append(counter.value)
        if first:
            elsewhere(counter.add)
        result.set(seen[-1])

    body()
    assert seen == [0, 1]
    assert result.value == 1


def test_the_sum_can_be_waited_for():
    counter = TCounter()
    waiting = Background(run, lambda: check(counter.value >= 3))
    for _ in range(3):
        asleep()
        counter.add()
    waiting.result()


def test_the_sum_is_of_one_moment():
    one, other, stop = TCounter(), TCounter(), threading.Event()

    @atomically
    def move():
        one.add(1)
        other.add(-1)

    def keep_moving():
        while not stop.is_set():
            move()

    moving = [Background(keep_moving) for _ in range(2)]
    try:
        sums = {run(lambda: one.value + other.value, read_only=True) for _ in range(300)}
    finally:
        stop.set()
        for background in moving:
            background.result()
    assert sums == {0}


def test_reset_returns_the_sum_and_begins_anew():
    counter = TCounter(7)
    elsewhere(counter.add, 3)
    assert (counter.reset(), counter.value, counter.reset()) == (10, 0, 0)

    @atomically
    def body():
        counter.add(5)
        counter.reset()
        raise Undo

    counter.add(1)
    with pytest.raises(Undo):
        body()
    assert counter.value == 1


def test_nothing_is_lost_between_resets():
    counter, stop = TCounter(), threading.Event()

    def add():
        for _ in range(1_000):
            counter.add()

    def collect():
        total = 0
        while not stop.is_set():
            total += counter.reset()
        return total + counter.reset()

    collecting = Background(collect)
    together(add, add)
    stop.set()
    assert collecting.result() == 2_000


@pytest.mark.parametrize("number", [1.5, Fraction(1, 3), Decimal("0.1"), 10**30, True])
def test_whatever_adds_up(number):
    counter = TCounter(number)
    counter.add(number)
    assert counter.value == number + number
    assert type(counter.value) is type(number + number)


@pytest.mark.parametrize("nonsense", ["1", None, [1]])
def test_what_does_not_add_up_is_refused(nonsense):
    counter = TCounter(1)
    with pytest.raises(TypeError):
        counter.add(nonsense)
    with pytest.raises(TypeError):
        run(counter.add, nonsense)
    with pytest.raises(TypeError):
        TCounter(nonsense)
    assert counter.value == 1


def test_an_ordinal_interrupted_before_it_had_a_number_gives_none_back():
    free = list(counter_module._free)
    counter_module._Ordinal.__new__(counter_module._Ordinal)
    assert list(counter_module._free) == free


def test_numbers_of_dead_threads_come_back():
    counter = TCounter()
    elsewhere(counter.add)
    until(lambda: counter_module._free)
    highest = max(counter_module._free)
    for _ in range(50):
        elsewhere(counter.add)
    assert max(counter_module._free) == highest


def test_object():
    counter = TCounter(3, name="visits")
    assert repr(counter) == "<TCounter 'visits' 3>"
    assert repr(TCounter()) == "<TCounter 0>"
    assert counter != TCounter(3)
    for call in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="can't be pickled or copied"):
            call(counter)
    with pytest.raises(AttributeError):
        counter.value = 5


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["apart", "elsewhere", "together", "undone"]),
            st.lists(st.one_of(st.integers(-5, 5), st.none()), max_size=5),
        ),
        max_size=6,
    )
)
def test_does_what_an_int_does(program):
    counter, model = TCounter(), 0

    def do(numbers, start):
        total, seen = start, []
        for number in numbers:  # None: reset
            if number is None:
                assert counter.reset() == total
                total = 0
            else:
                counter.add(number)
                total += number
            seen.append(counter.value == total)
        assert all(seen)
        return total

    for how, numbers in program:
        if how == "apart":
            model = do(numbers, model)
        elif how == "elsewhere":
            model = elsewhere(do, numbers, model)
        elif how == "together":
            model = run(do, numbers, model)
        else:

            def body():
                do(numbers, model)
                raise Undo

            with pytest.raises(Undo):
                run(body)
        assert counter.value == model
