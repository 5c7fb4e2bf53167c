"""What `stm.sync.semaphore` promises, and what the standard library's tests don't ask for: how it composes."""

import copy
import pickle
import signal
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stm import ReadOnlyViolation, TSemaphore, TVar, atomically, check, on_commit, or_else, run
from tests.support import Background, Once, asleep, elsewhere, together


def test_is_what_threading_has():
    """The same calls with the same answers, in the same order."""
    for kind in (threading.Semaphore, TSemaphore):
        semaphore = kind(2)
        answers = [semaphore.acquire(), semaphore.acquire(True, 0.001), semaphore.acquire(False)]
        answers += [semaphore.acquire(timeout=0.001), semaphore.acquire(True, -1), semaphore.acquire(timeout=0)]
        assert answers == [True, True, False, False, False, False]
        assert semaphore.release(2) is None
        with semaphore as entered:
            assert entered is True
        for wrong in ({"n": 0}, {"n": -3}):
            with pytest.raises(ValueError, match="n must be"):
                semaphore.release(**wrong)
        with pytest.raises(ValueError, match="can't specify timeout for non-blocking acquire"):
            semaphore.acquire(False, 1)
        with pytest.raises(ValueError, match="semaphore initial value must be"):
            kind(-1)


@pytest.mark.parametrize("value", ["3", 1.5, None])
def test_a_value_that_is_no_whole_number_is_refused(value):
    with pytest.raises(TypeError, match="must be a whole number"):
        TSemaphore(value)
    with pytest.raises(TypeError, match="n must be a whole number"):
        TSemaphore().release(value)


@pytest.mark.parametrize(("timeout", "error"), [("1", TypeError), (float("nan"), ValueError)])
def test_a_bad_timeout_is_refused_even_if_there_is_nothing_to_wait_for(timeout, error):
    semaphore = TSemaphore(1)
    with pytest.raises(error, match="timeout must be"):
        semaphore.acquire(timeout=timeout)
    assert semaphore.value == 1


@given(st.integers(0, 3), st.booleans(), st.lists(st.integers(-1, 3)))
@settings(max_examples=50, deadline=None)
def test_behaves_like_the_model(value, bounded, steps):
    """Each step releases so many permits, or tries to acquire one if it is not positive; all of it also in one go."""

    def play(semaphore):
        answers = []
        for n in steps:
            try:
                answers.append(semaphore.release(n) if n > 0 else semaphore.acquire(blocking=False))
            except ValueError as error:
                answers.append(str(error))
        return answers

    expected = play(threading.BoundedSemaphore(value) if bounded else threading.Semaphore(value))
    ours = TSemaphore(value, bounded=bounded)
    assert play(ours) == expected
    assert run(play, TSemaphore(value, bounded=bounded)) == expected
    permits = value
    for n, answer in zip(steps, expected, strict=True):
        permits += n if answer is None else -1 if answer is True else 0
    assert ours.value == permits


def test_never_more_permits_than_there_are():
    semaphore = TSemaphore(2)
    inside, most = TVar(0), []

    def work():
        for _ in range(100):
            with semaphore:
                most.append(run(inside.update, lambda n: n + 1))
                inside.update(lambda n: n - 1)

    together(work, work, work, work)
    assert max(most) <= 2
    assert semaphore.value == 2


def test_no_release_is_lost_on_those_who_wait():
    semaphore = TSemaphore(0)
    waiting = [Background(semaphore.acquire) for _ in range(20)]
    asleep(20)
    for _ in range(4):
        semaphore.release(5)
    assert [one.result() for one in waiting] == [True] * 20
    assert semaphore.value == 0


def test_an_acquire_in_a_transaction_that_fails_is_given_back():
    semaphore = TSemaphore(1)

    @atomically
    def body():
        semaphore.acquire()
        assert semaphore.value == 0
        raise KeyError

    with pytest.raises(KeyError):
        body()
    assert semaphore.value == 1


def test_acquire_one_or_else_another():
    first, second = TSemaphore(0), TSemaphore(0)
    for semaphore, name in ((first, "first"), (second, "second")):
        waiting = Background(
            run, lambda: or_else(lambda: first.acquire() and "first", lambda: second.acquire() and "second")
        )
        asleep()
        semaphore.release()
        assert waiting.result() == name
    assert (first.value, second.value) == (0, 0)


def test_acquire_two_or_none():
    one, other = TSemaphore(1), TSemaphore(0)
    waiting = Background(run, lambda: (one.acquire(), other.acquire()))
    asleep()
    assert one.value == 1
    other.release()
    assert waiting.result() == (True, True)
    assert (one.value, other.value) == (0, 0)


def test_a_timeout_inside_a_transaction_bounds_that_part_alone():
    semaphore, x = TSemaphore(0), TVar(0)

    @atomically
    def body():
        x.set(1)
        return semaphore.acquire(timeout=0.02), semaphore.acquire(timeout=0), semaphore.acquire(False)

    assert body() == (False, False, False)
    assert x.value == 1


@pytest.mark.parametrize("same", [True, False], ids=["the same semaphore", "two semaphores"])
def test_a_timeout_inside_a_transaction_is_no_other_ones(same):
    """A wait that is over does not bequeath the time it took to the next wait of the same length."""
    first, limit = TSemaphore(0), 0.5
    second = first if same else TSemaphore(0)

    @atomically
    def body():
        return first.acquire(timeout=limit), second.acquire(timeout=limit), time.monotonic()

    waiting = Background(body)
    asleep()
    time.sleep(0.1)  # not to wait for something: some of the first limit is to pass
    released = time.monotonic()
    first.release()
    got_first, got_second, ended = waiting.result()
    assert (got_first, got_second) == (True, False)
    assert ended - released >= limit


def test_with_inside_a_transaction_wants_a_permit_at_its_moment():
    semaphore, x = TSemaphore(0), TVar(0)

    @atomically
    def body():
        with semaphore:
            x.value += 1

    waiting = Background(body)
    asleep()
    assert x.value == 0
    semaphore.release()
    waiting.result()
    assert (semaphore.value, x.value) == (1, 1)


def test_with_inside_a_transaction_lets_retry_through():
    semaphore, x = TSemaphore(1), TVar(0)

    @atomically
    def body():
        with semaphore:
            check(x.value)

    waiting = Background(body)
    asleep()
    assert semaphore.value == 1
    x.set(1)
    waiting.result()
    assert semaphore.value == 1


def test_with_releases_however_its_body_ends():
    semaphore = TSemaphore(1)
    with pytest.raises(KeyboardInterrupt), semaphore:
        assert semaphore.value == 0
        raise KeyboardInterrupt
    assert semaphore.value == 1


def test_an_interrupted_acquire_takes_nothing():
    semaphore = TSemaphore(0)

    def ring(*_):
        raise InterruptedError

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with pytest.raises(InterruptedError), semaphore:
            pass
    finally:
        signal.signal(signal.SIGALRM, before)
    semaphore.release()
    assert semaphore.value == 1


def test_a_conflict_in_the_middle_is_noticed():
    semaphore, seen = TSemaphore(1), []
    first = Once()

    @atomically
    def body():
        got = semaphore.acquire(blocking=False)
        if first:
            elsewhere(semaphore.acquire)
        on_commit(seen.append, got)
        return got

    assert body() is False
    assert seen == [False]


def test_who_is_always_forestalled_gets_through_all_the_same(monkeypatch):
    monkeypatch.setattr(TVar, "compare_and_set", lambda self, before, after: False)
    semaphore = TSemaphore(1)
    assert semaphore.acquire()
    semaphore.release(2)
    assert semaphore.value == 2


def test_bounded_refuses_a_release_too_many_and_stays_as_it_is():
    semaphore = TSemaphore(2, bounded=True)
    semaphore.acquire()
    with pytest.raises(ValueError, match="released too many times"):
        semaphore.release(2)
    assert semaphore.value == 1
    assert repr(semaphore) == "<TSemaphore value=1/2>"


def test_a_write_in_a_read_only_transaction_is_refused():
    with pytest.raises(ReadOnlyViolation):
        run(TSemaphore(1).acquire, read_only=True)


def test_repr_and_name():
    semaphore = TSemaphore(3, name="slots")
    semaphore.acquire()
    assert repr(semaphore) == "<TSemaphore 'slots' value=2>"


@pytest.mark.parametrize("make", [pickle.dumps, copy.copy, copy.deepcopy])
def test_can_not_be_copied(make):
    with pytest.raises(TypeError, match="<TSemaphore value=1> can't be pickled or copied"):
        make(TSemaphore())
