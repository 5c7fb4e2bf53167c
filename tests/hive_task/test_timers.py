"""What timers promise, by the numbers of `hive_task.timers`; first what decides it, without threads."""

import copy
import gc
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import warnings
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hive_task import timekeeper
from hive_task.timekeeper import Keeper
from hive_task.timers import Timer, make_timer, start_timer, stop_timer
from hive_task.timetable import FEW, RECHECK, Entry, Timeline, Timetable, next_beat
from stm import TVar, atomically, check, run
from stm.clock import clock as version_clock
from tests.support import Background, Once, asleep, elsewhere, together, until

# ---------------------------------------------------------------------------------------------- the timetable

NUMBERS = st.floats(-1e3, 1e3)
STEPS = st.lists(st.one_of(st.tuples(st.just("in"), NUMBERS), st.tuples(st.just("out"), st.integers(0, 200))))


@settings(max_examples=100, deadline=None)
@given(STEPS)
def test_a_timeline_finds_the_earliest_of_those_that_are_left(steps):
    line, model = Timeline(), {}
    for number, (what, value) in enumerate(steps):
        if what == "in":
            model[number] = Entry(number, value, None)
            line = line.including(model[number])
        else:
            model.pop(value, None)
            line = line.excluding(value)
        assert line.first == min(model.values(), key=lambda entry: (entry.time, entry.number), default=None)
        assert dict(line.entries) == model
    while line.first is not None:
        assert line.first == min(model.values(), key=lambda entry: (entry.time, entry.number))
        model.pop(line.first.number)
        line = line.excluding(line.first.number)
    assert not model


def test_removing_from_a_timeline_leaves_little_behind():
    line = Timeline().including(Entry(0, 0.0, None))
    for number in range(1, 2_000):
        line = line.including(Entry(number, float(number), None)).excluding(number)
        assert line.nodes <= 2 * len(line.entries) + FEW + 2
    assert line.first.number == 0


@pytest.mark.parametrize("order", [1, -1])
def test_a_long_timeline_is_built_and_freed_without_recursion(order):
    line = Timeline()
    for number in range(20_000):
        line = line.including(Entry(number, float(order * number), None))
    assert line.first.time == min(0, order * 19_999)
    del line


def test_versions_of_a_timetable_do_not_change():
    empty = Timetable()
    one, number = empty.including(5.0, "x", absolute=False)
    two, other = one.including(3.0, "y", absolute=True)
    none = two.excluding(number).excluding(other)
    assert (len(empty), len(one), len(two), len(none)) == (0, 1, 2, 0)
    assert one.due(5.0, 0.0).what == "x"
    assert number != other


def test_each_clock_decides_about_its_own():
    table, _ = Timetable().including(10.0, "relative", absolute=False)
    table, _ = table.including(1000.0, "absolute", absolute=True)
    assert table.due(9.9, 999.9) is None
    assert table.due(10.0, 0.0).what == "relative"
    assert table.due(0.0, 1000.0).what == "absolute"
    assert table.due(11.0, 1000.5).what == "relative"  # longer overdue
    assert table.due(10.5, 1001.0).what == "absolute"


def test_how_long_to_rest():
    table, _ = Timetable().including(10.0, "relative", absolute=False)
    assert table.rest(4.0, 0.0) == 6.0
    assert table.rest(11.0, 0.0) == 0.0
    table, _ = table.including(1000.0, "absolute", absolute=True)
    assert table.rest(4.0, 0.0) == RECHECK  # the wall clock may be set meanwhile
    assert table.rest(9.75, 0.0) == 0.25
    assert table.rest(4.0, 999.5) == 0.5


@settings(max_examples=100, deadline=None)
@given(st.floats(-1e10, 1e10), st.floats(1e-3, 1e6), st.floats(-1e10, 1e10))
def test_the_next_beat_is_on_the_grid_and_the_first_one_after_now(first, interval, now):
    beat = next_beat(first, interval, now)
    rounding = 1e-5
    assert beat > now
    assert beat >= first
    assert beat == first or beat - interval <= now + rounding
    assert abs(beat - first - round((beat - first) / interval) * interval) <= rounding


def test_beats_go_on_where_the_interval_is_lost_in_the_numbers_precision():
    beat = 1e12
    for _ in range(10):
        assert next_beat(-1e12, 1e-6, beat) > beat
        beat = next_beat(-1e12, 1e-6, beat)


def test_beats_do_not_drift():
    beat, count = 0.1, 0
    while count < 10_000:
        beat = next_beat(0.1, 0.1, beat)
        count += 1
    assert beat == 0.1 + 10_000 * 0.1


# ---------------------------------------------------------------------------------------------- a made clock


class MadeClock:
    """A keeper that goes by clocks of ours. They are transactional, so its thread sees them move."""

    def __init__(self):
        self.now = TVar(1000.0)
        self.wall = TVar(1_000_000.0)
        self.keeper = Keeper(self.now.get, self.wall.get)

    def timer(self, function, time, name="timer", **options):
        return Timer(name, function, time, _keeper=self.keeper, **options)

    @atomically
    def _pass(self, seconds):
        self.now.value += seconds
        self.wall.value += seconds

    def advance(self, seconds):
        """Let time pass, and wait until everything that is due by then has been done."""
        self._pass(seconds)
        self.settle()

    def set_wall(self, wall):
        self.wall.set(wall)
        self.settle()

    def settle(self):
        """Whoever is asleep has seen everything that was committed before: a commit takes it off the sleepers' list."""
        until(lambda: self._thread_is_gone() or self._sleeps(), "a keeper at rest")

    def _thread_is_gone(self):
        return self.keeper._board.get().here.keeper is None

    def _sleeps(self):
        return any(self.keeper._board in waiter.variables for waiter in list(version_clock.sleepers))


@pytest.fixture
def clock():
    made = MadeClock()
    yield made
    made.keeper.clear()
    until(made._thread_is_gone)


class Calls(list):
    """A function that notes its calls."""

    def __call__(self):
        self.append("call")


# ---------------------------------------------------------------------------------------------- 1: never early


def test_a_timer_fires_when_its_time_has_come_and_once(clock):
    calls = Calls()
    timer = clock.timer(calls, 5)
    assert timer.state == "new"
    timer.start()
    clock.advance(4.999)
    assert (timer.state, calls) == ("started", [])
    clock.advance(0.001)
    assert (timer.state, calls) == ("fired", ["call"])
    clock.advance(100)
    assert len(calls) == 1


def test_time_counts_from_the_start(clock):
    calls = Calls()
    timer = clock.timer(calls, 5)
    clock._pass(100)
    timer.start()
    clock.advance(4)
    assert not calls
    clock.advance(1)
    assert calls


def test_timers_fire_in_the_order_of_their_times(clock):
    log = []
    keep = clock.timer(print, 1000)
    keep.start()
    for time_, name in ((3, "c"), (1, "a"), (2, "b"), (2, "b2"), (0, "now")):
        clock.timer(lambda name=name: log.append(name), time_).start()
    clock.advance(0)
    assert log == ["now"]
    clock.advance(10)
    assert log == ["now", "a", "b", "b2", "c"]
    keep.stop()


def test_a_relative_timer_does_not_mind_the_wall_clock(clock):
    calls = Calls()
    clock.timer(calls, 5).start()
    clock.set_wall(9e9)
    clock.set_wall(0.0)
    assert not calls
    clock.advance(5)
    assert calls


def test_an_absolute_timer_follows_the_wall_clock_forward_and_back(clock):
    calls = Calls()
    clock.timer(calls, 1_000_100.0, absolute=True).start()
    clock.set_wall(1_000_000.0 - 500)
    clock.advance(400)
    assert not calls
    clock.set_wall(1_000_100.0)
    assert calls


def test_an_absolute_timer_whose_time_has_passed_fires_at_once(clock):
    calls = Calls()
    clock.timer(calls, 5.0, absolute=True).start()
    clock.settle()
    assert calls


def test_absolute_times_are_datetimes_too(clock):
    calls = Calls()
    when = datetime.fromtimestamp(1_000_010.0, UTC)
    clock.timer(calls, when, absolute=True).start()
    clock.advance(9)
    assert not calls
    clock.advance(1)
    assert calls


def test_by_the_real_clocks():
    begun, fired = time.monotonic(), TVar({})

    def note(name):
        fired.update(lambda noted: {**noted, name: time.monotonic() - begun})

    for name, when, absolute in (
        ("relative", 0.05, False),
        ("absolute", datetime.now(UTC) + timedelta(seconds=0.03), True),
        ("unix", time.time() - 1, True),
    ):
        start_timer(make_timer(name, lambda name=name: note(name), when, absolute=absolute))
    run(lambda: check(len(fired.value) == 3), timeout=60)
    assert fired.value["relative"] >= 0.05


# ---------------------------------------------------------------------------------------------- 2: no drift, no pile-up


def test_a_timer_with_an_interval_fires_again_and_again(clock):
    calls = Calls()
    timer = clock.timer(calls, 5, interval=2)
    timer.start()
    counts = []
    for seconds in (4.5, 0.5, 1.9, 0.1, 2, 1):
        clock.advance(seconds)
        counts.append(len(calls))
    assert counts == [0, 1, 1, 2, 3, 3]
    assert timer.state == "started"


def test_missed_times_are_made_up_for_by_one_call_and_the_grid_stays(clock):
    calls = Calls()
    clock.timer(calls, 1, interval=1).start()
    clock.advance(7.25)
    assert len(calls) == 1
    clock.advance(0.5)
    assert len(calls) == 1
    clock.advance(0.25)
    assert len(calls) == 2


def test_a_function_that_takes_longer_than_the_interval_does_not_pile_up(clock):
    calls = Calls()

    def slow():
        calls()
        if len(calls) <= 3:
            clock._pass(3.5)

    clock.timer(slow, 1, interval=1).start()
    clock.advance(1)
    # At 1001; late at 1004.5, for three times; at 1008, for four; late at 1011.5, for three.
    assert len(calls) == 4
    assert clock.now.value == 1011.5
    clock.advance(0.5)
    assert len(calls) == 5


def test_an_absolute_timer_with_an_interval_starts_with_the_next_of_its_times(clock):
    calls = Calls()
    clock.timer(calls, 999_995.0, absolute=True, interval=10).start()
    clock.settle()
    assert not calls
    clock.advance(5)
    assert len(calls) == 1
    clock.set_wall(1_000_100.0)
    assert len(calls) == 2
    clock.set_wall(1_000_000.0)  # set back: no time is repeated
    clock.advance(104)
    assert len(calls) == 2
    clock.advance(1)
    assert len(calls) == 3


def test_a_schedulers_timer_leaves_out_times_while_its_work_is_not_done(clock):
    scheduler = Manual()
    clock.timer(print, 1, interval=1, scheduler=scheduler).start()
    clock.advance(1)
    clock.advance(1)
    clock.advance(1)
    assert len(scheduler.futures) == 1
    scheduler.futures[0].set_result(None)
    clock.advance(0.5)
    assert len(scheduler.futures) == 1
    clock.advance(0.5)
    assert len(scheduler.futures) == 2


def test_a_timer_started_anew_does_not_wait_for_its_earlier_work(clock):
    scheduler = Manual()
    timer = clock.timer(print, 1, scheduler=scheduler)
    for count in (1, 2):
        timer.start()
        clock.advance(1)
        assert len(scheduler.futures) == count


# ---------------------------------------------------------------------------------------------- 3: stopped is stopped


def test_a_stopped_timer_never_fires(clock):
    calls = Calls()
    timer = clock.timer(calls, 5)
    timer.start()
    clock.advance(4)
    assert timer.stop() is True
    assert timer.state == "stopped"
    clock.advance(10)
    assert not calls


def test_stop_says_whether_there_was_something_to_prevent(clock):
    timer = clock.timer(Calls(), 0)
    assert timer.stop() is False
    assert timer.state == "new"
    timer.start()
    clock.settle()
    assert timer.stop() is False
    assert timer.state == "fired"
    again = clock.timer(Calls(), 1, interval=1)
    again.start()
    clock.advance(1)
    assert again.stop() is True
    assert again.stop() is False


def test_of_two_that_are_due_the_first_may_stop_the_second(clock):
    calls = Calls()
    second = clock.timer(calls, 2)
    first = clock.timer(second.stop, 1)
    run(lambda: (first.start(), second.start()))
    clock.advance(10)
    assert (first.state, second.state, calls) == ("fired", "stopped", [])


def test_a_function_may_stop_and_start_its_own_timer(clock):
    log = []

    def function():
        log.append(timer.stop())
        if len(log) < 3:
            timer.start()

    timer = clock.timer(function, 1, interval=1)
    timer.start()
    for _ in range(5):
        clock.advance(1)
    assert log == [True, True, True]
    assert timer.state == "stopped"


def test_stop_does_not_wait_for_a_function_that_runs(clock):
    entered, leave = threading.Event(), threading.Event()

    def function():
        entered.set()
        assert leave.wait(60)

    timer = clock.timer(function, 0)
    timer.start()
    assert entered.wait(60)
    assert timer.state == "fired"
    assert timer.stop() is False
    leave.set()
    clock.settle()


def test_a_stop_in_the_midst_of_firing_wins_if_it_commits_first(clock):
    """The keeper has decided to fire, and the timer is stopped before that commits."""
    calls, first = Calls(), Once()

    def wall():
        if clock.now.get() >= 1005 and first:
            elsewhere(timer.stop)
        return 0.0

    clock.keeper._wall = wall
    timer = clock.timer(calls, 5)
    timer.start()
    clock.advance(5)
    assert (timer.state, calls) == ("stopped", [])


def test_starting_a_started_timer_sets_it_anew(clock):
    calls = Calls()
    timer = clock.timer(calls, 5)
    timer.start()
    clock.advance(4)
    timer.start()
    clock.advance(4)
    assert not calls
    clock.advance(1)
    assert len(calls) == 1
    timer.start()
    assert timer.state == "started"
    clock.advance(5)
    assert len(calls) == 2


def test_start_and_stop_count_when_their_transaction_commits(clock):
    calls = Calls()
    timer, other = clock.timer(calls, 1), clock.timer(calls, 1)
    other.start()

    class Undo(Exception):
        pass

    @atomically
    def body(fail):
        timer.start()
        other.stop()
        assert (timer.state, other.state) == ("started", "stopped")
        assert elsewhere(lambda: (timer.state, other.state)) == ("new", "started")
        if fail:
            raise Undo

    with pytest.raises(Undo):
        body(True)
    assert (timer.state, other.state) == ("new", "started")
    body(False)
    clock.advance(1)
    assert (timer.state, other.state, len(calls)) == ("fired", "stopped", 1)


def test_waiting_for_a_timer_in_a_transaction(clock):
    timer = clock.timer(Calls(), 5)
    timer.start()
    waiting = Background(run, lambda: check(timer.state == "fired"))
    asleep(2)
    clock._pass(5)
    waiting.result()


# ---------------------------------------------------------------------------------------------- 4: no disturbance


@pytest.mark.parametrize("error", [ValueError("oops"), SystemExit(3)])
def test_an_error_is_logged_and_ends_nothing(clock, caplog, error):
    calls, after_it = Calls(), Calls()

    def function():
        calls()
        raise error

    bad = clock.timer(function, 1, name="bad one", interval=1)
    good = clock.timer(after_it, 1)
    run(lambda: (bad.start(), good.start()))
    with caplog.at_level(logging.ERROR, "hive_task.timers"):
        clock.advance(1)
        clock.advance(1)
    assert len(calls) == 2
    assert after_it
    assert [record.name for record in caplog.records] == ["hive_task.timers"] * 2
    assert "bad one" in caplog.text
    assert caplog.records[0].exc_info[1] is error


class Manual:
    """An executor whose tasks we end ourselves."""

    def __init__(self, error=None):
        self.futures = []
        self.error = error

    def submit(self, fn):
        if self.error is not None:
            raise self.error
        self.futures.append(Future())
        return self.futures[-1]


def test_with_a_scheduler_the_function_is_its_work():
    where = TVar(None)
    with ThreadPoolExecutor(1, "pool") as pool:
        timer = make_timer("x", lambda: where.set(threading.current_thread().name), 0, scheduler=pool)
        start_timer(timer)
        run(lambda: check(where.value), timeout=60)
    assert where.value.startswith("pool")


def test_a_works_error_and_a_schedulers_refusal_are_logged(clock, caplog):
    broken, shut = Manual(), Manual(RuntimeError("closed"))
    one = clock.timer(print, 1, scheduler=broken)
    two = clock.timer(print, 1, scheduler=shut, interval=1)
    three = clock.timer(print, 1, scheduler=broken)
    run(lambda: (one.start(), two.start(), three.start()))
    clock.advance(1)
    broken.futures[0].set_exception(ValueError("work failed"))
    broken.futures[1].cancel()
    clock.advance(1)
    assert caplog.text.count("RuntimeError: closed") == 2
    assert caplog.text.count("ValueError: work failed") == 1
    assert len(caplog.records) == 3


# ---------------------------------------------------------------------------------------------- 5: the thread


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "hive_task timers"]


def test_one_daemon_thread_while_any_timer_is_started_and_none_else(clock):
    timers = [clock.timer(print, 100 + number) for number in range(50)]
    assert not threads()
    together(*[timer.start for timer in timers[:4]])
    for timer in timers[4:]:
        timer.start()
    clock.settle()
    (thread,) = threads()
    assert thread.daemon
    for timer in timers[1:]:
        timer.stop()
    clock.settle()
    assert threads() == [thread]
    timers[0].stop()
    thread.join(60)
    assert not threads()
    timers[0].start()
    clock.settle()
    assert len(threads()) == 1
    timers[0].stop()


@pytest.mark.parametrize("strike", [elsewhere, lambda fn: fn()], ids=["another thread", "a finalizer"])
def test_a_timer_started_just_when_the_thread_decides_to_end_is_not_forgotten(clock, monkeypatch, strike):
    """The keeper has found nothing to do, and a timer is started before it has said so."""
    calls, first = Calls(), Once()
    timer, other = clock.timer(calls, 0), clock.timer(print, 100)
    empty = Timetable.__len__

    def interrupted(table):
        length = empty(table)
        if length == 0 and threading.current_thread().name == "hive_task timers" and first:
            strike(timer.start)
        return length

    monkeypatch.setattr(Timetable, "__len__", interrupted)
    other.start()
    other.stop()
    until(lambda: calls)
    assert timer.state == "fired"


def test_starting_and_stopping_all_the_time_loses_none(clock):
    count = TVar(0)

    def rounds():
        for _ in range(100):
            fired = TVar(False)
            timer, late = clock.timer(lambda: fired.set(True), 0), clock.timer(print, 50)
            timer.start()
            late.start()
            run(lambda: check(fired.value), timeout=60)
            late.stop()
            count.update(lambda n: n + 1)

    together(rounds, rounds)
    assert count.value == 200


def test_the_thread_is_asleep_while_nothing_is_due():
    timer = make_timer("late", print, 1000)
    start_timer(timer)
    asleep()
    (thread,) = threads()
    cpu = time.process_time()
    time.sleep(0.2)  # not to wait for something: to give polling a chance to show
    assert time.process_time() - cpu < 0.1
    assert stop_timer(timer)
    thread.join(60)


def test_a_thread_that_is_lost_is_replaced(clock, monkeypatch):
    calls, noted = Calls(), []
    monkeypatch.setattr(threading, "excepthook", noted.append)
    clock.timer(calls, 5).start()
    clock.settle()
    real, first = clock.keeper._monotonic, Once()

    def failing():
        if first:
            raise SystemError("this thread is done for")
        return real()

    clock.keeper._monotonic = failing
    clock.advance(5)
    until(lambda: calls)
    assert isinstance(noted[0].exc_value, SystemError)


def test_where_no_thread_can_be_had_the_next_start_tries_again(clock, monkeypatch):
    calls = Calls()
    first, second = clock.timer(calls, 0), clock.timer(calls, 0)

    def refuse(*args):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(timekeeper._thread, "start_new_thread", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            first.start()
    assert (first.state, calls) == ("started", [])
    second.start()
    clock.settle()
    assert len(calls) == 2


def test_an_interrupt_while_the_thread_is_started_is_survived(clock, monkeypatch):
    calls, first, real = Calls(), Once(), timekeeper._thread.start_new_thread

    def interrupted(*args):
        if first:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(timekeeper._thread, "start_new_thread", interrupted)
    with pytest.raises(KeyboardInterrupt):
        clock.timer(calls, 0).start()
    until(lambda: calls)


def test_a_timer_may_be_started_while_threading_is_locked(clock):
    """As a finalizer does that strikes inside `threading`: to wait there for the new thread would be for ever."""
    calls = Calls()

    def start():
        with threading._active_limbo_lock:
            clock.timer(calls, 0).start()

    Background(start).result()
    until(lambda: calls)


def test_a_finalizer_may_start_and_stop_timers(clock):
    calls = Calls()
    kept, stopped = clock.timer(calls, 1), clock.timer(calls, 1)
    stopped.start()

    class Dying:
        def __del__(self):
            kept.start()
            stopped.stop()

    dying = Dying()
    dying.itself = dying
    del dying
    gc.collect()
    assert (kept.state, stopped.state) == ("started", "stopped")
    clock.advance(1)
    assert len(calls) == 1


def test_a_started_timer_is_kept_and_others_are_garbage(clock):
    calls = Calls()
    other = clock.timer(print, 1000)
    other.start()
    clock.timer(calls, 1).start()
    gc.collect()
    clock.advance(1)
    assert calls
    stopped, fired, never = (clock.timer(print, 1) for _ in range(3))
    stopped.start()
    stopped.stop()
    fired._function = int
    fired.start()
    clock.advance(1)
    watches = [weakref.ref(timer) for timer in (stopped, fired, never)]
    del stopped, fired, never
    gc.collect()
    assert [watch() for watch in watches] == [None] * 3
    other.stop()


def in_child(fn):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads about is the point here
        pid = os.fork()
    if pid == 0:
        status = 1
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)
        try:
            fn()
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_in_a_forked_child_timers_are_stopped_and_can_be_started(clock):
    calls = Calls()
    timer, early = clock.timer(calls, 5), clock.timer(calls, 1)
    timer.start()
    early.start()
    clock.advance(1)
    assert len(calls) == 1

    def child():
        assert (timer.state, early.state) == ("stopped", "fired")
        assert timer.stop() is False
        clock._pass(100)
        clock.settle()
        fresh = clock.timer(calls, 1)
        fresh.start()
        clock.advance(1)
        assert (fresh.state, len(calls)) == ("fired", 2)
        timer.start()
        clock.advance(5)
        assert (timer.state, len(calls)) == ("fired", 3)

    in_child(child)
    assert timer.state == "started"
    clock.advance(4)
    assert (timer.state, len(calls)) == ("fired", 2)


def test_a_fork_by_a_timers_function(clock):
    result = []

    def child():
        again = clock.timer(print, 1000)
        again.start()
        assert again.state == "started"
        assert again.stop()

    timer = clock.timer(lambda: result.append(in_child(child)), 0, interval=1)
    timer.start()
    until(lambda: result)
    clock.advance(1)
    assert len(result) == 2
    timer.stop()


def test_in_the_child_of_a_fork_by_a_timers_function_the_thread_ends(clock):
    statuses = []

    def function():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(20)  # for this thread is all that the child has
        else:
            statuses.append(os.waitpid(pid, 0)[1])

    clock.timer(print, 1000).start()
    clock.timer(function, 0).start()
    until(lambda: statuses)
    assert statuses == [0]


def test_an_interpreter_exits_without_noise_and_without_firing():
    program = """
import atexit, time

def late():
    before = count.peek()
    time.sleep(0.05)  # not to wait for something: to give timers a chance to fire
    assert count.peek() - before <= 1, "more than the call that had begun"

atexit.register(late)  # before that of the timers, so it runs after it

from hive_task.timers import make_timer, start_timer
from stm import TVar, check, run
count = TVar(0)
for number in range(5):
    start_timer(make_timer("tick", lambda: count.update(lambda n: n + 1), 0, interval=1e-4))
start_timer(make_timer("late", print, 3600))
start_timer(make_timer("late too", print, time.time() + 3600, absolute=True))
run(lambda: check(count.value > 50))
"""
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# ---------------------------------------------------------------------------------------------- input


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((1, print, 1), {}, TypeError, "name must be a string"),
        (("x", None, 1), {}, TypeError, "function without arguments"),
        (("x", print, "soon"), {}, TypeError, "number of seconds"),
        (("x", print, True), {}, TypeError, "number of seconds"),
        (("x", print, -1), {}, ValueError, "0 seconds at least"),
        (("x", print, float("nan")), {}, ValueError, "finite"),
        (("x", print, 10**400), {}, ValueError, "finite"),
        (("x", print, datetime.now(UTC)), {}, TypeError, "absolute=True"),
        (("x", print, timedelta(1)), {}, TypeError, "number of seconds"),
        (("x", print, datetime(2030, 1, 1)), {"absolute": True}, ValueError, "time zone"),
        (("x", print, "noon"), {"absolute": True}, TypeError, "number of seconds"),
        (("x", print, 1), {"interval": 0}, ValueError, "interval must be"),
        (("x", print, 1), {"interval": -1}, ValueError, "interval must be"),
        (("x", print, 1), {"interval": "1"}, TypeError, "interval must be"),
        (("x", print, 1), {"scheduler": 5}, TypeError, "Scheduler"),
    ],
)
def test_what_can_not_be_meant_is_refused(arguments, options, error, message):
    with pytest.raises(error, match=message):
        make_timer(*arguments, **options)


def test_functions_that_would_do_nothing_are_refused():
    async def coroutine():
        pass

    def generator():
        yield

    for function in (coroutine, generator):
        with pytest.raises(TypeError, match="plain function"):
            make_timer("x", function, 1)


@pytest.mark.parametrize("operation", [start_timer, stop_timer])
def test_what_is_no_timer_is_refused(operation):
    with pytest.raises(TypeError, match="takes a Timer"):
        operation("timer")


@pytest.mark.parametrize("attempt", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_timer_can_not_be_copied(attempt):
    timer = make_timer("bell", print, 1)
    assert repr(timer) == "<Timer 'bell' new>"
    with pytest.raises(TypeError, match="can't be pickled or copied"):
        attempt(timer)
