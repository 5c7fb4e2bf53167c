"""What `stm.sync.event` promises, and what the standard library's tests don't ask for: how it composes."""

import copy
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stm import TEvent, TVar, atomically, or_else, run
from tests.support import Background, asleep, elsewhere, until


def test_is_what_threading_has():
    for kind in (threading.Event, TEvent):
        event = kind()
        assert (event.is_set(), event.wait(0.001), event.wait(0), event.wait(-1)) == (False,) * 4
        assert (event.set(), event.wait(), event.wait(timeout=0), event.is_set()) == (None, True, True, True)
        assert (event.clear(), event.is_set()) == (None, False)


@given(st.lists(st.sampled_from(["set", "clear", "is_set", "wait"])))
@settings(max_examples=50, deadline=None)
def test_behaves_like_the_model(steps):
    def play(event):
        return [event.wait(0) if step == "wait" else getattr(event, step)() for step in steps]

    expected = play(threading.Event())
    assert play(TEvent()) == expected
    assert run(play, TEvent()) == expected


def test_all_who_wait_are_woken():
    event = TEvent()
    waiting = [Background(event.wait) for _ in range(10)]
    asleep(10)
    event.set()
    assert all(one.result() for one in waiting)


def test_a_pulse_wakes_who_waits_outside_a_transaction():
    event = TEvent()
    waiting = Background(event.wait)
    asleep()
    run(lambda: (event.set(), event.clear()))
    assert waiting.result() is True
    assert not event.is_set()


def test_a_transaction_commits_only_while_the_event_is_set():
    event, x = TEvent(), TVar(0)

    @atomically
    def body():
        event.wait()
        x.value += 1
        return event.is_set()

    waiting = Background(body)
    asleep()
    for _ in range(3):
        run(lambda: (event.set(), event.clear()))
    assert x.value == 0
    event.set()
    assert waiting.result() is True
    assert x.value == 1


def test_wait_for_the_first_of_several():
    events = [TEvent() for _ in range(5)]

    def waiter(number):
        return lambda: (events[number].wait(), number)[1]

    for number in (3, 0):
        waiting = Background(run, lambda: or_else(*map(waiter, range(5))))
        asleep()
        events[number].set()
        assert waiting.result() == number
        events[number].clear()


def test_what_a_transaction_sets_is_unset_if_it_fails():
    event = TEvent()

    @atomically
    def body():
        event.set()
        assert event.is_set()
        assert not elsewhere(event.is_set)
        raise KeyError

    with pytest.raises(KeyError):
        body()
    assert not event.is_set()


def test_a_timeout_inside_a_transaction_bounds_that_part_alone():
    event, x = TEvent(), TVar(0)

    @atomically
    def body():
        x.set(1)
        return event.wait(0.02), event.wait(0)

    assert body() == (False, False)
    assert x.value == 1


def test_setting_what_is_set_disturbs_nobody():
    event, x, runs = TEvent(), TVar(0), []
    event.set()

    @atomically
    def body():
        runs.append(event.is_set())
        elsewhere(event.set)
        x.value += 1

    body()
    assert runs == [True]


def test_bad_timeouts_are_refused():
    event = TEvent()
    event.set()
    with pytest.raises(TypeError, match="timeout must be a number of seconds"):
        event.wait("long")
    with pytest.raises(ValueError, match="NaN"):
        event.wait(float("nan"))


def test_two_threads_in_ping_pong_lose_nothing():
    there, back = TEvent(), TEvent()
    rounds = 300

    def answer():
        for _ in range(rounds):
            there.wait()
            there.clear()
            back.set()

    other = Background(answer)
    for _ in range(rounds):
        there.set()
        back.wait()
        back.clear()
    other.result()


def test_repr_and_name_and_copy():
    event = TEvent(name="ready")
    assert repr(event) == "<TEvent 'ready' unset>"
    event.set()
    assert repr(event) == "<TEvent 'ready' set>"
    with pytest.raises(TypeError, match="can't be pickled or copied"):
        copy.copy(event)


def test_waits_that_time_out_leave_nothing_behind():
    event = TEvent()
    for _ in range(50):
        assert event.wait(0.0005) is False
    until(lambda: not event._changes._waiters)
