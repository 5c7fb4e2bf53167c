"""What `stm.sync.barrier` promises, and what the standard library's tests don't ask for."""

import copy
import signal
import threading
import time
from itertools import count

import pytest

from stm import BlockedForever, TBarrier, TVar, check, in_transaction, run
from tests.injector import Bolt, injected
from tests.support import Background, asleep, together, until

Broken = threading.BrokenBarrierError


class OutOfTheBlue(BaseException):
    pass


def interrupted_wait(barrier, when):
    """Call `wait` in this, the main, thread, and interrupt it with an exception as soon as `when()` is true."""

    def strike(*_):
        raise OutOfTheBlue

    def watch():
        until(when)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, strike)
    watcher = Background(watch)
    try:
        with pytest.raises(OutOfTheBlue):
            barrier.wait(30)
    finally:
        watcher.result()
        signal.signal(signal.SIGUSR1, before)


def test_nobody_passes_before_the_last_has_come():
    barrier, passed = TBarrier(3), []
    early = [Background(lambda: passed.append(barrier.wait())) for _ in range(2)]
    asleep(2)
    assert (passed, barrier.n_waiting) == ([], 2)
    assert barrier.wait() == 2
    for one in early:
        one.result()
    assert sorted(passed) == [0, 1]
    assert (barrier.n_waiting, barrier.broken, barrier.parties) == (0, False, 3)


def test_arrivals_wake_nobody():
    from stm.clock import clock

    barrier = TBarrier(4)
    first = Background(barrier.wait)
    asleep()
    (waiter,) = clock.sleepers
    others = [Background(barrier.wait) for _ in range(2)]
    asleep(3)
    assert not waiter.woken
    barrier.wait()
    assert {one.result() for one in (first, *others)} == {0, 1, 2}


def test_many_rounds_stay_in_step():
    parties, rounds = 4, 100
    barrier, counts = TBarrier(parties), [0] * 4
    spread = []

    def work(me):
        indexes = []
        for _ in range(rounds):
            counts[me] += 1
            indexes.append(barrier.wait())
            spread.append(max(counts) - min(counts))
        return indexes

    indexes = together(*[lambda me=me: work(me) for me in range(parties)])
    assert all(sorted(round_) == list(range(parties)) for round_ in zip(*indexes, strict=True))
    assert max(spread) <= 1


def test_the_action_runs_once_a_round_outside_any_transaction_before_anyone_passes():
    log = []
    barrier = TBarrier(3, lambda: log.append(in_transaction()))

    def work():
        barrier.wait()
        log.append("passed")
        barrier.wait()

    together(work, work, work)
    assert log == [False, "passed", "passed", "passed", False]


def test_who_comes_during_the_action_belongs_to_the_next_round():
    running, go_on = threading.Event(), threading.Event()

    def action():
        running.set()
        go_on.wait(60)

    barrier = TBarrier(2, action)
    pair = [Background(barrier.wait) for _ in range(2)]
    assert running.wait(60)
    third = Background(barrier.wait)
    asleep(2)
    assert barrier.n_waiting == 2
    go_on.set()
    assert {one.result() for one in pair} == {0, 1}
    until(lambda: barrier.n_waiting == 1)
    assert barrier.wait() == 1
    assert third.result() == 0


def test_an_action_that_raises_breaks_the_barrier():
    def action():
        raise OutOfTheBlue

    barrier = TBarrier(2, action)
    early = Background(barrier.wait)
    asleep()
    with pytest.raises(OutOfTheBlue):
        barrier.wait()
    with pytest.raises(Broken):
        early.result()
    assert barrier.broken
    with pytest.raises(Broken):
        barrier.wait()


def test_an_action_may_abort_or_reset():
    for name in ("abort", "reset"):
        barrier = TBarrier(2, lambda: getattr(barrier, name)())
        early = Background(barrier.wait)
        asleep()
        with pytest.raises(Broken):
            barrier.wait()
        with pytest.raises(Broken):
            early.result()
        assert barrier.broken == (name == "abort")
        assert barrier.n_waiting == 0


def test_who_gives_up_breaks_the_barrier_for_the_others():
    barrier = TBarrier(3, name="start")
    other = Background(barrier.wait)
    asleep()
    with pytest.raises(Broken, match="'start' broken.* was broken or reset before all of 3 had passed"):
        barrier.wait(0.01)
    with pytest.raises(Broken):
        other.result()
    assert barrier.broken
    barrier.reset()
    assert not barrier.broken


def test_the_time_limit_of_the_constructor_is_for_waits_that_name_none():
    barrier = TBarrier(2, None, 0.01)
    with pytest.raises(Broken):
        barrier.wait()
    barrier.reset()
    early = Background(barrier.wait, 60)
    asleep()
    assert barrier.wait() == 1
    assert early.result() == 0
    with pytest.raises(Broken):
        TBarrier(2).wait(-1)


def test_no_time_limit_breaks_a_round_whose_action_runs():
    running, go_on = threading.Event(), threading.Event()

    def action():
        running.set()
        go_on.wait(60)

    barrier = TBarrier(2, action)
    early = Background(barrier.wait, 0.05)
    asleep()
    last = Background(barrier.wait)
    assert running.wait(60)
    time.sleep(0.1)  # not to wait for something: the limit is to pass
    assert not barrier.broken
    go_on.set()
    assert (early.result(), last.result()) == (0, 1)


def test_an_interrupted_wait_breaks_the_barrier():
    barrier = TBarrier(3)
    other = Background(barrier.wait)
    asleep()
    interrupted_wait(barrier, when=lambda: barrier.n_waiting == 2)
    with pytest.raises(Broken):
        other.result()
    assert barrier.broken


def test_an_exception_at_any_point_of_an_arrival_breaks_the_barrier_or_did_not_arrive():
    for at in count():
        barrier = TBarrier(2)
        with pytest.raises((Bolt, Broken)) as caught, injected(at) as injector:
            barrier.wait(0)
        assert barrier.n_waiting == 0
        if caught.type is Broken:
            assert barrier.broken
        if not injector.struck:
            break
    assert at > 20


def test_an_exception_at_any_point_after_a_failed_action_breaks_the_barrier():
    def action():
        raise OutOfTheBlue

    for at in count():
        barrier = TBarrier(1, action)
        with pytest.raises((Bolt, OutOfTheBlue)), injected(at) as injector:
            barrier.wait()
        assert barrier.n_waiting == 0
        if not injector.struck:
            break
    assert at > 20


def test_an_interrupted_action_breaks_the_barrier():
    running = threading.Event()

    def action():
        running.set()
        threading.Event().wait(60)

    barrier = TBarrier(2, action)
    other = Background(barrier.wait)
    asleep()
    interrupted_wait(barrier, when=running.is_set)
    with pytest.raises(Broken):
        other.result()


def test_an_exception_while_the_action_runs_elsewhere_leaves_the_round_alone():
    running, go_on = threading.Event(), threading.Event()

    def action():
        running.set()
        go_on.wait(60)

    barrier = TBarrier(2, action)

    def come_last():
        until(lambda: barrier.n_waiting == 1)
        return barrier.wait()

    last = Background(come_last)
    interrupted_wait(barrier, when=running.is_set)
    assert not barrier.broken
    go_on.set()
    assert last.result() == 1


def test_abort_and_reset():
    barrier = TBarrier(2)
    for method, broken in ((barrier.abort, True), (barrier.reset, False), (barrier.reset, False)):
        early = Background(barrier.wait) if not barrier.broken else None
        if early is not None:
            asleep()
        method()
        if early is not None:
            with pytest.raises(Broken):
                early.result()
        assert (barrier.broken, barrier.n_waiting) == (broken, 0)
    together(barrier.wait, barrier.wait)


def test_wait_inside_a_transaction_is_an_error_at_once():
    barrier = TBarrier(1, name="start")
    with pytest.raises(BlockedForever, match="'start'.*inside a transaction could never end"):
        run(barrier.wait)
    assert barrier.n_waiting == 0


def test_the_rest_composes():
    barrier, x = TBarrier(2), TVar(0)
    early = Background(barrier.wait)
    asleep()

    def abort_if_somebody_waits():
        check(barrier.n_waiting)
        barrier.abort()
        assert barrier.broken
        x.set(1)

    run(abort_if_somebody_waits)
    with pytest.raises(Broken):
        early.result()
    assert x.value == 1

    def fail():
        barrier.reset()
        raise KeyError

    with pytest.raises(KeyError):
        run(fail)
    assert barrier.broken


def test_nonsense_is_refused():
    for parties, error in ((0, ValueError), (-1, ValueError), ("2", TypeError)):
        with pytest.raises(error, match="parties must be"):
            TBarrier(parties)
    with pytest.raises(TypeError, match="action must be a function"):
        TBarrier(1, "action")
    with pytest.raises(TypeError, match="timeout"):
        TBarrier(1, timeout="long")
    with pytest.raises(TypeError, match="timeout"):
        TBarrier(1).wait("long")


def test_repr_and_copy():
    barrier = TBarrier(3, name="start")
    assert repr(barrier) == "<TBarrier 'start' waiters=0/3>"
    barrier.abort()
    assert repr(barrier) == "<TBarrier 'start' broken>"
    with pytest.raises(TypeError, match="can't be pickled or copied"):
        copy.copy(barrier)
