"""What `stm.sync.latch` promises."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stm import TLatch, TVar, atomically, or_else, run
from stm.clock import clock
from tests.support import Background, asleep, elsewhere, together


@given(st.integers(0, 6), st.lists(st.integers(-1, 4)))
@settings(max_examples=50, deadline=None)
def test_behaves_like_the_model(count, steps):
    def play(latch):
        left, states = count, []
        for n in steps:
            if n < 0:
                with pytest.raises(ValueError, match="n must be 0 or more"):
                    latch.count_down(n)
            else:
                assert latch.count_down(n) is None
                left = max(0, left - n)
            states.append((latch.count, latch.wait(0)) == (left, left == 0))
        return all(states)

    assert play(TLatch(count))
    assert run(play, TLatch(count))


def test_opens_at_zero_and_stays_open():
    latch = TLatch(2)
    waiting = [Background(latch.wait) for _ in range(5)]
    asleep(5)
    together(latch.count_down, latch.count_down)
    assert [one.result() for one in waiting] == [True] * 5
    latch.count_down(5)
    assert (latch.count, latch.wait(), latch.wait(timeout=0)) == (0, True, True)


def test_counting_down_wakes_nobody_before_the_last():
    latch = TLatch(3)
    waiting = Background(latch.wait)
    asleep()
    (waiter,) = clock.sleepers
    latch.count_down(2)
    run(latch.count_down, 0)
    assert not waiter.woken
    latch.count_down()
    assert waiting.result() is True


def test_no_count_is_lost_among_threads():
    latch = TLatch(1000)

    def work():
        for _ in range(250):
            latch.count_down()

    together(work, work, work)
    assert latch.count == 250
    work()
    assert latch.wait(timeout=5) is True


def test_a_count_down_in_a_transaction_that_fails_has_not_taken_place():
    latch = TLatch(1)

    @atomically
    def body():
        latch.count_down()
        assert latch.wait()
        assert elsewhere(latch.wait, 0) is False
        raise KeyError

    with pytest.raises(KeyError):
        body()
    assert (latch.count, latch.wait(0)) == (1, False)


def test_wait_for_the_first_of_several():
    first, second = TLatch(1), TLatch(1)
    waiting = Background(run, lambda: or_else(lambda: first.wait() and 1, lambda: second.wait() and 2))
    asleep()
    second.count_down()
    assert waiting.result() == 2


def test_a_timeout_is_false_and_bounds_its_part_alone():
    latch, x = TLatch(1), TVar(0)
    assert latch.wait(0.01) is False
    assert latch.wait(-1) is False
    assert run(lambda: (x.set(1), latch.wait(0.02))) == (None, False)
    assert x.value == 1


def test_nonsense_is_refused():
    for wrong, error in ((-1, ValueError), ("3", TypeError), (2.0, TypeError)):
        with pytest.raises(error, match="latch count must be"):
            TLatch(wrong)
    with pytest.raises(TypeError, match="timeout"):
        TLatch(0).wait("long")
    with pytest.raises(TypeError, match="n must be a whole number"):
        TLatch(1).count_down(0.5)


def test_repr_and_copy():
    assert repr(TLatch(2, name="start")) == "<TLatch 'start' count=2>"
    with pytest.raises(TypeError, match="can't be pickled or copied"):
        copy.deepcopy(TLatch(1))
