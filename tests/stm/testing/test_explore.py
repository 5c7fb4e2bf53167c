"""`explore` itself: what it counts, what it refuses, that it does the same again, and that it leaves nothing behind."""

import gc
import os
import queue
import threading
import time
from collections import Counter
from dataclasses import FrozenInstanceError
from itertools import count

import pytest

import stm
from stm import TVar, after, atomically, check, execution, run, tvar, waiting
from stm.clock import clock
from stm.testing import Exploration, ScheduleFailure, _driver, explore, replay, step
from stm.testing._threads import Gate
from tests.support import elsewhere

REAL_LOCK = threading.Lock()


def append_all(log, *names):
    def body():
        for name in names:
            step(name)
            log.append(name)

    return body


class TestEverySchedule:
    def orders(self, preemptions, lengths, **options):
        """The orders in which threads of so many steps each were run, with how often."""
        seen = Counter()

        def program():
            log = []
            names = iter("abcdefghijklmnop")
            bodies = [append_all(log, *[next(names) for _ in range(length)]) for length in lengths]
            return bodies, lambda: seen.update(["".join(log)])

        result = explore(program, preemptions=preemptions, **options)
        assert result.complete
        assert sum(seen.values()) == result.schedules
        return seen

    def test_without_preemptions_the_threads_run_one_after_the_other(self):
        assert self.orders(0, (2, 2)) == {"abcd": 1, "cdab": 1}

    def test_with_enough_of_them_in_every_order(self):
        orders = self.orders(4, (2, 2))
        assert set(orders) == {"abcd", "acbd", "acdb", "cabd", "cadb", "cdab"}

    def test_three_threads(self):
        assert len(self.orders(0, (1, 1, 1))) == 6
        assert len(self.orders(2, (2, 1, 1))) == 12

    def test_one_preemption(self):
        assert set(self.orders(1, (2, 2))) == {"abcd", "acdb", "cdab", "cabd"}

    def test_of_one_thread_there_is_one(self):
        assert explore(lambda: [lambda: None]).schedules == 1

    def test_lines_that_touch_nothing_shared_make_no_difference(self):
        def program():
            def body():
                x = 1
                y = x
                x = y

            return [body, body]

        assert explore(program).schedules == 2


class TestResult:
    def test_it_is_frozen(self):
        result = explore(lambda: [step])
        assert (result.schedules, result.complete, result.preemptions) == (1, True, 2)
        assert result.steps == result.longest == 2
        with pytest.raises(FrozenInstanceError):
            result.schedules = 2

    def test_as_text(self):
        text = str(Exploration(7, True, 2, 40, 12, 0.5))
        assert text == "7 schedules, all schedules up to 2 preemptions; 40 steps, 12 at most; 0.50 s"
        assert "not all schedules" in str(Exploration(7, False, 2, 40, 12, 0.5))

    def test_max_schedules(self):
        result = explore(two_increments, preemptions=3, max_schedules=5)
        assert (result.schedules, result.complete) == (5, False)

    def test_timeout(self):
        assert not explore(two_increments, timeout=0).complete

    def test_random_schedules_come_on_top(self):
        systematic = explore(two_increments)
        assert explore(two_increments, random=10).schedules == systematic.schedules + 10


def two_increments():
    x = TVar(0)
    return [lambda: x.update(lambda number: number + 1)] * 2


def racy():
    hits = TVar(0, name="hits")

    def hit():
        hits.set(hits.get() + 1)

    def outcome():
        assert hits.get() == 2

    return [hit, hit], outcome


class TestFailure:
    def test_a_trace_tells_what_happened(self):
        with pytest.raises(ScheduleFailure) as found:
            explore(racy)
        failure = found.value
        assert isinstance(failure, AssertionError)
        assert isinstance(failure.cause, AssertionError)
        assert failure.__cause__ is failure.cause
        number = racy.__code__.co_firstlineno + 4
        line = f"test_explore.py:{number}  hits.set(hits.get() + 1)"
        assert failure.trace.splitlines() == [
            ">     0  T0 hit  start",
            f"      1  T0 hit  {line}",
            "      2  T0 hit  read  <TVar hits 0>",
            ">     3  T1 hit  start",
            f"      4  T1 hit  {line}",
            "      5  T1 hit  read  <TVar hits 0>",
            "      6  T1 hit  store  <TVar hits 0>",
            ">     7  T0 hit  store  <TVar hits 0>",
        ]
        assert failure.schedule == "0*3,1"
        assert "replay(program, '0*3,1')" in str(failure)
        assert failure.tried == 5

    def test_it_is_the_same_each_time(self):
        texts = set()
        for _ in range(3):
            with pytest.raises(ScheduleFailure) as found:
                explore(racy, points="lines")
            texts.add(str(found.value))
        assert len(texts) == 1
        assert "points='lines'" in texts.pop()

    def test_an_exception_that_leaves_a_body(self):
        x = []

        def program():
            x.clear()

            def first():
                x.append(1)

            def second():
                if x:
                    raise LookupError("the first was here")

            return [second, first]

        with pytest.raises(ScheduleFailure) as found:
            explore(program)
        assert found.value.kind == "exception"
        assert isinstance(found.value.cause, LookupError)
        assert "T0 second raised LookupError: the first was here" in str(found.value)

    def test_a_body_may_catch_what_it_expects(self):
        def program():
            def body():
                with pytest.raises(TimeoutError):
                    run(lambda: check(TVar(0).value), timeout=1)

            return [body, body]

        assert explore(program).complete

    def test_without_enough_preemptions_it_is_not_found(self):
        assert explore(racy, preemptions=0).complete

    def test_random_schedules_go_beyond_the_bound(self):
        with pytest.raises(ScheduleFailure) as found:
            explore(racy, preemptions=0, random=200, seed=1)
        with pytest.raises(ScheduleFailure) as again:
            explore(racy, preemptions=0, random=200, seed=1)
        assert again.value.schedule == found.value.schedule
        with pytest.raises(ScheduleFailure) as replayed:
            replay(racy, found.value.schedule)
        assert replayed.value.trace == found.value.trace

    def test_a_spinning_thread_lets_others_run(self):
        def program():
            flag = []

            def spin():
                while not flag:
                    pass

            return [spin, lambda: flag.append(1)]

        assert explore(program, preemptions=1, max_schedules=20).schedules

    def test_who_gives_way_does_not_go_on_before_others(self):
        def program():
            flag = []

            def wait():
                while not flag:
                    time.sleep(0)

            return [wait, lambda: flag.append(1)]

        assert explore(program).complete
        with pytest.raises(ValueError, match="is not a schedule of this program"):
            replay(program, "0*5")

    def test_one_that_spins_for_ever_is_a_livelock(self):
        def program():
            def spin():
                while True:
                    step()

            return [spin, spin]

        with pytest.raises(ScheduleFailure) as found:
            explore(program, max_steps=3000)
        assert found.value.kind == "livelock"
        assert len(found.value.trace.splitlines()) < 50

    def test_a_value_that_has_no_repr(self):
        class Odd:
            def __repr__(self):
                raise ValueError("no")

        def program():
            x = TVar(Odd(), name="x")

            def body():
                x.get()
                raise LookupError

            return [body]

        with pytest.raises(ScheduleFailure, match="<Odd, whose repr\\(\\) raised ValueError>"):
            explore(program)


class TestReplay:
    def test_a_schedule_that_does_not_fail(self):
        assert replay(racy, "0").schedules == 1
        assert replay(racy, "").schedules == 1
        assert replay(racy, "1*4,0*2").longest == 8

    @pytest.mark.parametrize("schedule", ["0*5;1", "x", "0*", "-1", "0,,1"])
    def test_what_is_no_schedule(self, schedule):
        with pytest.raises(ValueError, match="must look like"):
            replay(racy, schedule)

    def test_what_is_not_a_string(self):
        with pytest.raises(TypeError, match="must be a string"):
            replay(racy, 5)

    @pytest.mark.parametrize("schedule", ["2", "0*zz", "0*6,1"])
    def test_a_schedule_of_another_program(self, schedule):
        with pytest.raises(ValueError, match="is not a schedule of this program"):
            replay(racy, schedule)


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "error", "words"),
        [
            ({"preemptions": -1}, ValueError, "preemptions must be at least 0"),
            ({"preemptions": 1.5}, TypeError, "preemptions must be an integer"),
            ({"preemptions": True}, TypeError, "preemptions must be an integer"),
            ({"random": -1}, ValueError, "random must be at least 0"),
            ({"seed": "x"}, TypeError, "seed must be an integer"),
            ({"points": "words"}, ValueError, "points must be one of 'steps', 'lines', 'opcodes'"),
            ({"max_schedules": 0}, ValueError, "max_schedules must be at least 1"),
            ({"max_steps": 0}, ValueError, "max_steps must be at least 1"),
            ({"timeout": "1"}, TypeError, "timeout must be a number"),
            ({"timeout": float("nan")}, ValueError, "timeout must not be negative or NaN"),
        ],
    )
    def test_options(self, options, error, words):
        with pytest.raises(error, match=words):
            explore(racy, **options)

    @pytest.mark.parametrize(
        ("program", "error", "words"),
        [
            (5, TypeError, "takes a function"),
            (lambda: 5, TypeError, "must return the bodies"),
            (lambda: [5], TypeError, "must return callables"),
            (list, ValueError, "returned no bodies"),
            (lambda: [print] * 17, ValueError, "16 is the limit"),
        ],
    )
    def test_programs(self, program, error, words):
        with pytest.raises(error, match=words):
            explore(program)

    def test_two_bodies_are_no_body_and_a_check(self):
        assert explore(lambda: (lambda: None, lambda: None)).longest == 2

    def test_step_takes_a_name(self):
        step()
        step("name")
        with pytest.raises(TypeError, match="takes a name"):
            step(5)

    def test_explore_within_itself(self):
        with pytest.raises(RuntimeError, match="within a program"):
            explore(lambda: explore(racy))
        with pytest.raises(ScheduleFailure, match="within a program"):
            explore(lambda: [lambda: explore(racy)])

    def test_in_two_threads_at_once(self):
        def program():
            with pytest.raises(RuntimeError, match="two threads at once"):
                raise failures.pop()
            return [lambda: None]

        failures = []
        with ThreadOutside() as outside:

            def make():
                if not failures:
                    failures.append(outside.error_of(lambda: explore(racy)))
                return program()

            explore(make, max_schedules=1)

    def test_in_a_transaction(self):
        with pytest.raises(RuntimeError, match="inside a transaction"):
            run(lambda: explore(racy))

    def test_while_others_transact(self):
        entered, left = threading.Event(), threading.Event()

        @atomically(read_only=True)
        def long():
            entered.set()
            left.wait(60)

        thread = threading.Thread(target=long)
        thread.start()
        try:
            assert entered.wait(60)
            with pytest.raises(RuntimeError, match="other threads"):
                explore(racy)
        finally:
            left.set()
            thread.join()

    def test_a_program_that_does_not_do_the_same_again(self):
        runs = count()

        def program():
            number = next(runs)

            def body():
                step("odd" if number % 2 else "even")
                step()

            return [body, body]

        with pytest.raises(RuntimeError, match="does not do the same again: at step [12] it was at"):
            explore(program)

    def test_a_body_that_starts_a_thread(self):
        with pytest.raises(ScheduleFailure, match="explore\\(\\) runs the threads itself"):
            explore(lambda: [lambda: elsewhere(print)])


class ThreadOutside:
    """A thread that is there before the exploration, and is asked to do something during it."""

    def __enter__(self):
        self._wanted, self._done = queue.SimpleQueue(), queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()
        return self

    def _work(self):
        while (fn := self._wanted.get()) is not None:
            try:
                fn()
            except BaseException as error:
                self._done.put(error)
            else:
                self._done.put(None)

    def error_of(self, fn):
        self._wanted.put(fn)
        return self._done.get(timeout=60)

    def __exit__(self, *_):
        self._wanted.put(None)
        self._thread.join()


class TestStandardLibrary:
    """Locks of the program are waited for by its threads alone."""

    def test_a_lock(self):
        def program():
            lock, log = threading.Lock(), []

            def body():
                with lock:
                    log.append(threading.get_ident())
                    step()
                    log.append(threading.get_ident())

            def outcome():
                assert log[0] == log[1]
                assert not lock.locked()

            return [body, body], outcome

        assert explore(program).complete

    def test_a_deadlock_of_two_locks(self):
        def program():
            first, second = threading.Lock(), threading.RLock()

            def body(one, other):
                with one, other:
                    pass

            return [lambda: body(first, second), lambda: body(second, first)]

        with pytest.raises(ScheduleFailure) as found:
            explore(program)
        assert found.value.kind == "deadlock"
        assert found.value.trace.count("stays in  test_explore.py") == 2

    def test_a_condition(self):
        def program():
            condition, items = threading.Condition(), []

            def take():
                with condition:
                    while not items:
                        condition.wait()
                    items.pop()

            def put():
                with condition:
                    items.append(1)
                    condition.notify()

            return [take, put], lambda: None

        assert explore(program).complete

    def test_a_notification_that_is_missed(self):
        def program():
            condition, items = threading.Condition(), []

            def take():
                if not items:
                    with condition:
                        condition.wait()

            def put():
                items.append(1)
                with condition:
                    condition.notify()

            return [take, put]

        with pytest.raises(ScheduleFailure) as found:
            explore(program)
        assert found.value.kind == "deadlock"

    def test_queue_event_barrier_and_semaphore(self):
        def program():
            items, event = queue.Queue(1), threading.Event()
            barrier, semaphore = threading.Barrier(2), threading.Semaphore(0)
            got = []

            def first():
                items.put(1)
                items.put(2)
                barrier.wait()
                semaphore.release()
                assert event.wait()

            def second():
                got.extend([items.get(), items.get()])
                barrier.wait()
                assert semaphore.acquire(timeout=5)
                event.set()

            def outcome():
                assert got == [1, 2]

            return [first, second], outcome

        assert explore(program, preemptions=1).complete

    def test_time_passes_when_nobody_can_run(self):
        def program():
            late, log = after(3600), []
            began = time.monotonic()

            def wait():
                run(lambda: check(late.value))
                log.append(("late", time.monotonic() - began))

            def sleep():
                time.sleep(60)
                log.append(("slept", time.monotonic() - began))
                with pytest.raises(queue.Empty):
                    queue.Queue().get(timeout=100)
                log.append(("empty", time.monotonic() - began))

            def outcome():
                assert log == [("slept", 60), ("empty", 160), ("late", 3600)]

            return [wait, sleep], outcome

        began = time.monotonic()
        assert explore(program, preemptions=1).complete
        assert time.monotonic() < began + 60

    def test_a_lock_of_the_program_is_a_lock(self):
        def program():
            lock, again = threading.Lock(), threading.RLock()

            def body():
                assert lock.acquire()
                assert not lock.acquire(False)
                assert not lock.acquire(timeout=1)
                with pytest.raises(ValueError, match="non-blocking"):
                    lock.acquire(False, 1)
                lock.release()
                with again, again:
                    assert again._is_owned()
                assert not again._is_owned()
                with pytest.raises(RuntimeError):
                    again.release()
                with pytest.raises(RuntimeError):
                    lock.release()

            return [body]

        explore(program)

    def test_a_body_that_blocks_on_what_is_not_explored(self, monkeypatch):
        monkeypatch.setattr(_driver, "STUCK", 0.2)
        words = r"T0 take has taken no step for 0.2 s at test_explore.py:\d+  REAL"
        with REAL_LOCK, pytest.raises(RuntimeError, match=words):
            explore(lambda: [take_the_real_lock])


def take_the_real_lock():
    REAL_LOCK.acquire()
    REAL_LOCK.release()


take_the_real_lock.__qualname__ = "take"


class TestNothingIsLeft:
    def test_the_patches_are_undone(self):
        watched = [
            (threading, "Lock RLock _allocate_lock _time"),
            (threading.Thread, "start"),
            (time, "sleep monotonic"),
            (queue, "time"),
            (clock, "lock exclusive"),
            (stm.clock, "acquire release acquire_politely acquire_exclusive release_exclusive give_way"),
            (execution, "acquire release acquire_politely release_exclusive pause in_one_call"),
            (waiting, "acquire release give_way _glance _in_one_call"),
            (tvar, "acquire release acquire_politely"),
            (stm.transaction, "acquire release give_way in_one_call"),
        ]

        def picture():
            return [getattr(owner, name) for owner, names in watched for name in names.split()]

        before = picture()
        differences = []

        def program():
            differences.append(sum(new is not old for new, old in zip(picture(), before, strict=True)))
            return racy()

        explore(program, preemptions=0, points="lines")
        assert min(differences) > 25
        with pytest.raises(ScheduleFailure):
            explore(racy)
        with pytest.raises(ValueError, match="no bodies"):
            explore(list)
        assert all(new is old for new, old in zip(picture(), before, strict=True))
        assert gc.isenabled()

    def test_no_file_is_left_open(self):
        explore(racy, preemptions=0)
        before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        for _ in range(3):
            explore(racy, preemptions=0)
            with pytest.raises(ScheduleFailure):
                explore(racy)
            with pytest.raises(ValueError, match="points"):
                explore(racy, points="none")
        if before:
            assert len(os.listdir("/proc/self/fd")) == before

    @pytest.mark.parametrize("points", ["steps", "lines"])
    def test_after_a_deadlock_amid_everything(self, points):
        """Threads that are thrown out of a read-only, an irrevocable, a waiting and a locked section leave nothing."""

        def program():
            x = TVar(0, name="x")
            lock = threading.Lock()

            def wait():
                run(lambda: check(x.value))

            @atomically(irrevocable=True)
            def undisturbed():
                with lock:
                    x.value = 0

            @atomically(read_only=True)
            def reader():
                x.get()
                lock.acquire()
                x.get()

            return [reader, wait, undisturbed, lambda: lock.acquire()]

        with pytest.raises(ScheduleFailure) as found:
            explore(program, points=points)
        assert found.value.kind == "deadlock"
        assert clock.quiet
        assert TVar(1).update(lambda number: number + 1) == 2

    def test_what_a_thread_held_that_does_not_clean_up(self):
        """A body may do to the protocol what it likes: if it fails, all is put right."""
        variables = []

        def program():
            x = TVar(0)
            variables.append(x)

            def careless():
                waiting.Waiter(bool, [x], None).register({x: x._cell})
                stm.clock.acquire()
                step()
                stm.clock.release()

            def fail():
                raise LookupError

            return [careless, fail]

        with pytest.raises(ScheduleFailure, match="LookupError"):
            replay(program, "0*4,1")  # which stops `careless` with the lock in hand
        assert len(variables) == 2
        assert not any(x._waiters for x in variables)
        assert clock.lock.acquire(False)
        clock.lock.release()

    def test_what_the_program_raises_comes_out(self):
        def program():
            raise LookupError("no program today")

        with pytest.raises(LookupError, match="no program today"):
            explore(program)

    def test_interrupted(self):
        """An exception thrown into the driver ends the threads, and comes out."""

        def program():
            def body():
                while True:
                    step()

            return [body, body]

        class Interruption(BaseException):
            pass

        def wait_for(self, seconds):
            raise Interruption

        with pytest.MonkeyPatch.context() as patch:
            real = Gate.wait_for
            calls = iter([wait_for])
            patch.setattr(Gate, "wait_for", lambda self, seconds: next(calls, real)(self, seconds))
            with pytest.raises(Interruption):
                explore(program)

    def test_threads_start_afresh_in_each_schedule(self):
        descriptors = []

        def program():
            return [lambda: descriptors.append(stm.transaction.descriptor())]

        explore(program)
        explore(program)
        assert descriptors[0] is not descriptors[1]
