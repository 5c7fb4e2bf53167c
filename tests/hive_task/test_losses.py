"""hive_task.staff: workers who die, works that run too long. Nothing is lost silently, and nothing runs too often."""

import concurrent.futures
import contextlib
import ctypes
import logging
import os
import signal
import sys
import threading
import time
from math import inf

import psutil
import pytest

from hive_task import Policy, Scheduler, WorkerLost, WorkTimeout, as_completed, blocking, current_work, wait, worker
from hive_task.dispatch import Dispatch
from hive_task.work import Work, make_work
from tests.hive_task.live import Held, at_rest, occupied, totals
from tests.support import PATIENCE, Once, until


class Death(BaseException):
    pass


class Batches(Policy):
    """Workers take many works in advance."""

    def batch(self, queued, workers, seconds):
        return 50


def thread_named(name):
    return next(thread for thread in threading.enumerate() if thread.name == name)


def strike(name):
    """Raise `Death` in a thread, wherever it is."""
    struck = ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread_named(name).ident), ctypes.py_object(Death)
    )
    assert struck == 1


@pytest.fixture
def deaths(monkeypatch):
    """Put a future here, with "before" or "after", and how often: its worker dies when it has run, before that is
    recorded, or afterwards."""
    planned = {}
    advance = Dispatch.advance

    def dying(dispatch, me, future, *rest):
        when, times = planned.get(future, (None, 0))
        if times:
            planned[future] = when, times - 1
            if when == "after":
                advance(dispatch, me, future, *rest)
            raise Death(when)
        return advance(dispatch, me, future, *rest)

    monkeypatch.setattr(Dispatch, "advance", dying)
    return planned


def names(scheduler):
    return [one.name for one in scheduler.monitor().workers]


# ------------------------------------------------------------------------------------------ threads that die


def test_a_worker_who_dies_between_works_is_replaced_and_its_work_done(caplog):
    with Scheduler(workers=1, name="shop") as scheduler:
        at_rest(scheduler)
        strike("shop-1")  # it dies as it wakes up
        assert scheduler.submit(pow, 2, 5).result(PATIENCE) == 32
        assert names(scheduler) == ["shop-2"]
        assert scheduler.monitor().lost_workers == 1
        assert at_rest(scheduler).totals.finished == 1
    (record,) = [one for one in caplog.records if one.levelno == logging.CRITICAL]
    assert record.name == "hive_task.worker"
    assert "shop-1" in record.message
    assert "died" in record.message


def test_all_workers_may_die_at_once():
    with Scheduler(workers=3, name="shop") as scheduler:
        at_rest(scheduler)
        for number in (1, 2, 3):
            strike(f"shop-{number}")
        futures = [scheduler.submit(pow, 2, number) for number in range(20)]
        assert [future.result(PATIENCE) for future in futures] == [2**number for number in range(20)]
        with occupied(scheduler, 3):
            assert len(names(scheduler)) == 3
            assert scheduler.monitor().lost_workers == 3
        at_rest(scheduler)


def test_what_strikes_in_a_work_is_the_works_and_the_worker_goes_on():
    with Scheduler(workers=1, name="shop") as scheduler:
        begun = threading.Event()

        def work():
            begun.set()
            while True:
                pass

        future = scheduler.submit(work)
        assert begun.wait(PATIENCE)
        strike("shop-1")
        assert isinstance(future.exception(PATIENCE), Death)
        assert scheduler.submit(lambda: current_work().worker).result(PATIENCE) == "shop-1"
        assert scheduler.monitor().lost_workers == 0


def test_the_work_of_a_worker_who_dies_fails_and_those_who_wait_are_told(deaths):
    told = []
    with Scheduler(workers=1, name="shop") as scheduler:
        held = Held()
        future = scheduler.put_work(make_work(held, 7))
        deaths[future] = "before", 1
        future.add_done_callback(told.append)
        following = [scheduler.submit(pow, 2, number) for number in range(10)]
        held.go.set()
        error = future.exception(PATIENCE)
        assert isinstance(error, WorkerLost)
        assert "shop-1 died while it ran" in str(error)
        assert "Held" in str(error)
        assert isinstance(error.__cause__, Death)
        assert concurrent.futures.wait([future], PATIENCE).done == {future}
        assert [one.result(PATIENCE) for one in following] == [2**number for number in range(10)]
        until(lambda: told == [future])
        assert names(scheduler) == ["shop-2"]
        at_rest(scheduler)
        assert totals(scheduler) == {"submitted": 11, "finished": 10, "failed": 1}


@pytest.mark.parametrize(("deaths_", "runs"), [(1, 2), (2, 3), (3, 3), (9, 3)])
def test_a_work_is_run_again_as_often_as_it_allows(deaths, deaths_, runs):
    ran = []
    with Scheduler(workers=1) as scheduler:
        with occupied(scheduler):
            future = scheduler.put_work(Work(ran.append, (1,), reruns=2))
            deaths[future] = "before", deaths_
        error = future.exception(PATIENCE)
        assert len(ran) == runs
        assert isinstance(error, WorkerLost) == (deaths_ > 2)
        assert scheduler.monitor().lost_workers == min(deaths_, 3)
        at_rest(scheduler)
        outcome = "failed" if deaths_ > 2 else "finished"
        assert totals(scheduler) == {"submitted": 2} | (
            {"finished": 1, "failed": 1} if outcome == "failed" else {"finished": 2}
        )


def test_who_dies_after_a_work_has_ended_does_not_undo_that(deaths):
    with Scheduler(workers=1, policy=Batches()) as scheduler:
        with occupied(scheduler) as (first,):
            deaths[first] = "after", 1
            others = [scheduler.put_work(Work(pow, (2, number), reruns=1)) for number in range(10)]
        assert first.result(PATIENCE) is None
        assert [one.result(PATIENCE) for one in others] == [2**number for number in range(10)]
        at_rest(scheduler)
        assert totals(scheduler) == {"submitted": 11, "finished": 11}
        assert scheduler.monitor().lost_workers == 1


def test_what_the_dead_had_taken_in_advance_is_done_by_others(deaths):
    with Scheduler(workers=1, policy=Batches()) as scheduler:
        held = Held()
        with occupied(scheduler):
            future = scheduler.submit(held)
            deaths[future] = "before", 1
            others = [scheduler.submit(pow, 2, number) for number in range(10)]
        held.has_begun()
        assert [one.queued for one in scheduler.monitor().workers] == [10]
        held.go.set()
        assert [one.result(PATIENCE) for one in others] == [2**number for number in range(10)]
        assert isinstance(future.exception(), WorkerLost)
        at_rest(scheduler)
        assert totals(scheduler) == {"submitted": 12, "finished": 11, "failed": 1}


def test_the_last_worker_may_die_while_the_scheduler_stops(deaths):
    with Scheduler(workers=1) as scheduler, occupied(scheduler) as (future,):
        deaths[future] = "before", 1
        others = [scheduler.submit(pow, 2, number) for number in range(5)]
        scheduler.shutdown(wait=False)
    assert isinstance(future.exception(), WorkerLost)
    assert [one.result(PATIENCE) for one in others] == [1, 2, 4, 8, 16]
    assert totals(scheduler) == {"submitted": 6, "finished": 5, "failed": 1}


def test_who_stands_in_is_replaced_as_long_as_it_is_needed(deaths):
    with Scheduler(workers=1) as scheduler:
        held = Held()

        def outer():
            doomed = scheduler.submit(held)
            deaths[doomed] = "before", 1
            others = [scheduler.submit(pow, 2, number) for number in range(3)]
            done = wait([doomed, *others], PATIENCE / 10).done
            return doomed in done, [one.result(0) for one in others]

        outcome = scheduler.submit(outer)
        held.has_begun()
        held.go.set()
        assert outcome.result(PATIENCE) == (True, [1, 2, 4])
        until(lambda: len(names(scheduler)) == 1)
        at_rest(scheduler)
        assert totals(scheduler) == {"submitted": 5, "finished": 4, "failed": 1}


@pytest.mark.parametrize("reruns", [0, 1])
def test_what_strikes_as_an_awaited_work_begins_loses_nothing(monkeypatch, reruns):
    """Between the decision that whoever waits runs it, and the work itself."""
    call, once, ran = worker.call, Once(), []

    def dying(context, work):
        if work.category == "inner" and once:
            raise Death
        return call(context, work)

    monkeypatch.setattr(worker, "call", dying)
    box = []
    with Scheduler(workers=1) as scheduler:

        def outer():
            box.append(scheduler.put_work(Work(ran.append, (1,), category="inner", reruns=reruns)))
            with contextlib.suppress(Death, WorkerLost):
                box[0].result()
            return "goes on"

        assert scheduler.submit(outer).result(PATIENCE) == "goes on"
        error = box[0].exception(PATIENCE / 10)
        assert ran == [1] if reruns else isinstance(error, WorkerLost)
        assert scheduler.submit(pow, 2, 3).result(PATIENCE) == 8
        until(lambda: len(names(scheduler)) == 1)
        at_rest(scheduler)


# ------------------------------------------------------------------------------------------ processes that die


def dies(code):
    """A work for a process that runs this; `os` and `sys` are there."""
    return {"fn": exec, "args": ("import os, sys\n" + code, {}), "kind": "process"}


def test_a_work_whose_process_is_killed_fails_and_the_next_one_gets_another(caplog):
    with Scheduler(workers=1, name="shop") as scheduler:
        first = scheduler.put_work(Work(os.getpid, kind="process")).result(PATIENCE)
        assert at_rest(scheduler).workers[0].process == first
        future = scheduler.put_work(Work(signal.pause, kind="process"))
        until(future.running)
        os.kill(first, signal.SIGKILL)
        error = future.exception(PATIENCE)
        assert isinstance(error, WorkerLost)
        assert "SIGKILL" in str(error)
        second = scheduler.put_work(Work(os.getpid, kind="process")).result(PATIENCE)
        assert second != first
        picture = at_rest(scheduler)
        assert picture.lost_workers == 1
        assert [one.name for one in picture.workers] == ["shop-1"]
        assert totals(scheduler) == {"submitted": 3, "finished": 2, "failed": 1}
    assert not psutil.pid_exists(first)
    assert not psutil.pid_exists(second)
    (record,) = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert "the process of shop-1 died while it ran" in record.message


def test_a_process_that_is_killed_while_idle_is_replaced_unnoticed():
    with Scheduler(workers=1) as scheduler:
        first = scheduler.put_work(Work(os.getpid, kind="process")).result(PATIENCE)
        os.kill(first, signal.SIGKILL)
        until(lambda: at_rest(scheduler).workers[0].process is None)
        assert scheduler.put_work(Work(os.getpid, kind="process")).result(PATIENCE) != first
        assert scheduler.monitor().lost_workers == 0


def test_a_work_that_ends_its_process_is_lost_and_says_how():
    with Scheduler(workers=1) as scheduler:
        error = scheduler.put_work(Work(os._exit, (3,), kind="process")).exception(PATIENCE)
        assert isinstance(error, WorkerLost)
        assert error.exitcode == 3
        assert isinstance(scheduler.put_work(Work(sys.exit, (4,), kind="process")).exception(PATIENCE), SystemExit)
        assert scheduler.submit(pow, 2, 3).result(PATIENCE) == 8
        assert totals(scheduler) == {"submitted": 3, "finished": 1, "failed": 2}


def test_a_poisonous_work_is_not_run_for_ever(tmp_path):
    path = tmp_path / "ran"
    with Scheduler(workers=1) as scheduler:
        work = Work(**dies(f"open({str(path)!r}, 'a').write('x'); os._exit(9)"), reruns=2)
        assert isinstance(scheduler.put_work(work).exception(PATIENCE), WorkerLost)
        assert path.read_text() == "xxx"
        assert scheduler.monitor().lost_workers == 3
        at_rest(scheduler)
        assert totals(scheduler) == {"submitted": 1, "failed": 1}


def test_a_work_whose_process_died_is_run_again_if_it_allows(tmp_path):
    path = tmp_path / "ran"
    with Scheduler(workers=1) as scheduler:
        code = f"if not os.path.exists({str(path)!r}): open({str(path)!r}, 'w').close(); os._exit(9)"
        with occupied(scheduler):
            future = scheduler.put_work(Work(**dies(code), reruns=1))
            other = scheduler.submit(pow, 2, 3)
        assert future.result(PATIENCE) is None
        assert other.result(PATIENCE) == 8
        at_rest(scheduler)
        assert totals(scheduler) == {"submitted": 3, "finished": 3}


# ------------------------------------------------------------------------------------------ time limits


def test_a_work_that_exceeds_its_limit_fails_at_that_moment_and_its_worker_is_replaced(caplog):
    told, seen = [], []
    with Scheduler(workers=1, name="shop") as scheduler:
        begun, go = threading.Event(), threading.Event()

        def work():
            mine = current_work()
            seen.append(mine.overdue)
            begun.set()
            seen.append(mine.port.receive(timeout=PATIENCE))
            seen.append(mine.overdue)
            go.wait(PATIENCE)
            return "too late"

        future = scheduler.put_work(Work(work, time_limit=0.02))
        future.add_done_callback(told.append)
        error = future.exception(PATIENCE)
        assert isinstance(error, WorkTimeout)
        assert isinstance(error, TimeoutError)
        assert "exceeded its time limit of 0.02 s on shop-1" in str(error)
        assert scheduler.submit(lambda: current_work().worker).result(PATIENCE) == "shop-2"
        until(lambda: len(seen) == 3)
        assert seen[0] is False
        assert seen[1].kind == "overdue"
        assert seen[1].subject is error
        assert seen[2] is True
        until(lambda: [one.state for one in scheduler.monitor().workers] == ["overdue", "idle"])
        assert totals(scheduler) == {"submitted": 2, "finished": 1, "failed": 1}
        go.set()
        until(lambda: names(scheduler) == ["shop-2"])
        assert future.exception() is error
        until(lambda: told == [future])
        assert totals(scheduler) == {"submitted": 2, "finished": 1, "failed": 1}
        assert scheduler.monitor().lost_workers == 0
    (record,) = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert "exceeded its time limit" in record.message


def test_an_overdue_work_is_not_run_again():
    ran = []
    with Scheduler(workers=1) as scheduler:
        held = Held()

        def work():
            ran.append(1)
            held()

        future = scheduler.put_work(Work(work, time_limit=0.01, reruns=5))
        assert isinstance(future.exception(PATIENCE), WorkTimeout)
        assert scheduler.submit(pow, 2, 3).result(PATIENCE) == 8
        held.go.set()
        until(lambda: len(names(scheduler)) == 1)
        assert ran == [1]


def test_the_limit_counts_from_the_beginning_of_the_work():
    with Scheduler(workers=1) as scheduler:
        with occupied(scheduler):
            future = scheduler.put_work(Work(pow, (2, 3), time_limit=0.05))
            with pytest.raises(TimeoutError):
                future.result(0.06)
        assert future.result(PATIENCE) == 8


def test_many_works_may_be_overdue_at_once():
    with Scheduler(workers=8) as scheduler:
        held = [Held() for _ in range(8)]
        futures = scheduler.put_works([Work(one, time_limit=0.05) for one in held])
        assert {type(future.exception(PATIENCE)) for future in futures} == {WorkTimeout}
        results = [scheduler.submit(pow, 2, number) for number in range(20)]
        assert [one.result(PATIENCE) for one in results] == [2**number for number in range(20)]
        states = [one.state for one in scheduler.monitor().workers]
        assert len(states) == 16
        assert states.count("overdue") == 8
        for one in held:
            one.go.set()
        until(lambda: len(names(scheduler)) == 8)
        at_rest(scheduler)
        assert totals(scheduler) == {"submitted": 28, "finished": 20, "failed": 8}


def test_limits_are_kept_in_the_order_in_which_they_end():
    with Scheduler(workers=3) as scheduler:
        held, ended = Held(), []
        futures = [scheduler.put_work(Work(held, time_limit=limit)) for limit in (0.09, 0.03, 0.06)]
        for number, future in enumerate(futures):
            future.add_done_callback(lambda _, number=number: ended.append(number))
        concurrent.futures.wait(futures, PATIENCE)
        held.go.set()
        until(lambda: len(ended) == 3)
        assert ended == [1, 2, 0]
        until(lambda: len(names(scheduler)) == 3)


@pytest.mark.parametrize("first", ["the supervisor", "the worker"])
def test_a_work_that_ends_just_as_its_time_is_over_is_counted_once(monkeypatch, first):
    advance, raced = Dispatch.advance, []

    def racing(dispatch, me, future, *rest):
        if future._work.time_limit is None:
            return advance(dispatch, me, future, *rest)
        raced.append(future)
        if first == "the supervisor":
            scheduler._staff.drop_overdue(inf)
            return advance(dispatch, me, future, *rest)
        result = advance(dispatch, me, future, *rest)
        scheduler._staff.drop_overdue(inf)
        return result

    scheduler = Scheduler(workers=1)
    monkeypatch.setattr(Dispatch, "advance", racing)
    with scheduler:
        told = []
        with occupied(scheduler):
            future = scheduler.put_work(Work(pow, (2, 3), time_limit=1000))
            future.add_done_callback(told.append)
            following = scheduler.submit(pow, 2, 4)
        assert following.result(PATIENCE) == 16
        if first == "the supervisor":
            assert isinstance(future.exception(), WorkTimeout)
            counts = {"finished": 2, "failed": 1}
        else:
            assert future.result() == 8
            counts = {"finished": 3}
        until(lambda: len(names(scheduler)) == 1)
        at_rest(scheduler)
        assert totals(scheduler) == {"submitted": 3, **counts}
        assert told == [future]
        assert future in raced


def test_works_that_end_about_when_their_time_is_over_are_finished_or_failed():
    with Scheduler(workers=3) as scheduler:
        futures = scheduler.put_works([Work(time.sleep, (0.003,), time_limit=0.0031) for _ in range(60)])
        failed = sum(isinstance(future.exception(PATIENCE), WorkTimeout) for future in futures)
        until(lambda: len(names(scheduler)) == 3)
        at_rest(scheduler)
        counts = scheduler.monitor().totals
        assert (counts.finished, counts.failed) == (60 - failed, failed)


def test_an_overdue_work_may_still_wait_for_others():
    with Scheduler(workers=1) as scheduler:
        begun, box = threading.Event(), []

        def work():
            begun.set()
            until(lambda: current_work().overdue)
            box.append(scheduler.submit(pow, 2, 3).result())
            nested = [scheduler.submit(pow, 2, number) for number in range(3)]
            box.append(sorted(one.result() for one in as_completed(nested)))

        future = scheduler.put_work(Work(work, time_limit=0.01))
        assert isinstance(future.exception(PATIENCE), WorkTimeout)
        until(lambda: len(box) == 2)
        assert box == [8, [1, 2, 4]]
        until(lambda: len(names(scheduler)) == 1)
        at_rest(scheduler)
        assert totals(scheduler) == {"submitted": 5, "finished": 4, "failed": 1}


def test_a_work_that_waits_may_be_overdue():
    with Scheduler(workers=1) as scheduler:
        held = Held()

        def work():
            with blocking():
                held()

        future = scheduler.put_work(Work(work, time_limit=0.02))
        held.has_begun()
        stood_in = Held()
        other = scheduler.submit(stood_in, 5)
        stood_in.has_begun()
        assert isinstance(future.exception(PATIENCE), WorkTimeout)
        assert scheduler.submit(pow, 2, 3).result(PATIENCE) == 8  # by who takes its place
        stood_in.go.set()
        assert other.result(PATIENCE) == 5
        held.go.set()
        until(lambda: len(names(scheduler)) == 1)
        at_rest(scheduler)


def test_who_stands_in_may_be_overdue():
    with Scheduler(workers=1) as scheduler:
        held = Held()

        def outer():
            endless = scheduler.put_work(Work(held, time_limit=0.02))
            others = [scheduler.submit(pow, 2, number) for number in range(3)]
            done = wait([endless, *others], PATIENCE / 10).done
            return endless in done, [one.result(0) for one in others]

        assert scheduler.submit(outer).result(PATIENCE) == (True, [1, 2, 4])
        held.go.set()
        until(lambda: len(names(scheduler)) == 1)
        at_rest(scheduler)
        assert totals(scheduler) == {"submitted": 5, "finished": 4, "failed": 1}


def test_a_policy_that_fails_does_not_stop_the_time_limits(caplog):
    class Broken(Policy):
        def scale(self, load):
            raise LookupError("no idea")

    with Scheduler(2, minimum=1, maximum=3, policy=Broken()) as scheduler:
        held = Held()
        futures = [scheduler.put_work(Work(held, time_limit=limit)) for limit in (0.03, 0.06)]
        for future in futures:
            assert isinstance(future.exception(PATIENCE / 10), WorkTimeout)
        held.go.set()
        until(lambda: len(names(scheduler)) == 2)
    assert any("it goes on" in message for message in caplog.messages)


@pytest.mark.parametrize("error", [KeyError, SystemExit])
def test_what_a_callback_raises_does_not_stop_the_time_limits(caplog, error):
    def raises(future):
        raise error("in a callback")

    told = []
    with Scheduler(workers=2) as scheduler:
        held = Held()
        futures = [scheduler.put_work(Work(held, time_limit=limit)) for limit in (0.02, 0.04)]
        for future in futures:
            future.add_done_callback(raises)
            future.add_done_callback(told.append)
        for future in futures:
            assert isinstance(future.exception(PATIENCE / 10), WorkTimeout)
        until(lambda: len(told) == 2)
        held.go.set()
        until(lambda: len(names(scheduler)) == 2)
    assert told == futures


def test_a_callback_that_exits_takes_nothing_with_it():
    def leaves(future):
        raise SystemExit

    with Scheduler(workers=1) as scheduler:
        told = []
        with occupied(scheduler) as (first,):
            first.add_done_callback(leaves)
            first.add_done_callback(told.append)
            second = scheduler.submit(pow, 2, 3)
        assert second.result(PATIENCE) == 8
        at_rest(scheduler)
        assert told == [first]


def test_a_process_that_exceeds_its_limit_is_stopped():
    with Scheduler(workers=1, name="shop") as scheduler:
        pid = scheduler.put_work(Work(os.getpid, kind="process")).result(PATIENCE)
        future = scheduler.put_work(Work(signal.pause, kind="process", time_limit=0.02))
        assert isinstance(future.exception(PATIENCE), WorkTimeout)
        until(lambda: not psutil.pid_exists(pid))
        assert scheduler.put_work(Work(os.getpid, kind="process")).result(PATIENCE) != pid
        at_rest(scheduler)
        assert names(scheduler) == ["shop-1"]
        assert scheduler.monitor().lost_workers == 0
        assert totals(scheduler) == {"submitted": 3, "finished": 2, "failed": 1}


@pytest.mark.parametrize("limit", [1e-9, 1e-4, 0.001])
def test_a_process_whose_limit_is_over_before_it_has_started_is_stopped_too(limit):
    with Scheduler(workers=1) as scheduler:
        future = scheduler.put_work(Work(signal.pause, kind="process", time_limit=limit))
        assert isinstance(future.exception(PATIENCE), WorkTimeout)
        assert scheduler.submit(pow, 2, 3).result(PATIENCE / 10) == 8
        at_rest(scheduler)


def test_the_process_of_an_overdue_work_that_has_just_ended_does_no_harm():
    with Scheduler(workers=2) as scheduler:
        works = [Work(time.sleep, (0.004,), kind="process", time_limit=0.005) for _ in range(12)]
        futures = scheduler.put_works(works)
        outcomes = {type(future.exception(PATIENCE)) for future in futures}
        assert outcomes <= {WorkTimeout, type(None)}
        at_rest(scheduler)
        assert scheduler.monitor().lost_workers == 0
