"""How schedulers end: asked to, forgotten, at the interpreter's exit, and in a process that was forked off."""

import concurrent.futures
import gc
import os
import subprocess
import sys
import textwrap
import threading
import weakref
from pathlib import Path

import psutil
import pytest

from hive_task import Scheduler, SchedulerClosed, Work, WorkTimeout, blocking
from stm import atomically
from tests.hive_task.live import Held, at_rest, occupied, totals
from tests.support import PATIENCE, Background, until

ROOT = Path(__file__).resolve().parents[2]


# ------------------------------------------------------------------------------------------ shutdown


def test_shutdown_waits_until_all_work_is_done():
    done = []
    scheduler = Scheduler(workers=1).start()
    with occupied(scheduler):
        for number in range(5):
            scheduler.submit(done.append, number)
        background = Background(scheduler.shutdown)
        until(lambda: scheduler.monitor().state == "stopping")
        assert background.thread.is_alive()
        assert done == []
    background.result()
    assert done == [0, 1, 2, 3, 4]
    assert scheduler.monitor().state == "stopped"
    assert not scheduler.monitor().workers
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(scheduler.name)]


def test_shutdown_need_not_wait():
    scheduler = Scheduler(workers=1).start()
    with occupied(scheduler) as (running,):
        queued = scheduler.submit(pow, 2, 3)
        scheduler.shutdown(wait=False)
        assert not running.done()
        assert scheduler.monitor().state == "stopping"
    assert queued.result(PATIENCE) == 8
    until(lambda: scheduler.monitor().state == "stopped")


@pytest.mark.parametrize("wait", [True, False])
def test_shutdown_may_cancel_what_has_not_begun(wait):
    told = []
    scheduler = Scheduler(workers=1).start()
    held = Held()
    running = scheduler.submit(held, "finished")
    held.has_begun()
    queued = [scheduler.submit(print), *scheduler.put_works([Work(print, priority=number) for number in (-1, 0, 1)])]
    for future in queued:
        future.add_done_callback(told.append)
    background = Background(lambda: scheduler.shutdown(wait=wait, cancel_futures=True))
    done = concurrent.futures.wait(queued, PATIENCE).done
    assert done == set(queued)
    assert all(future.cancelled() for future in queued)
    assert not running.done()
    held.go.set()
    background.result()
    assert running.result(PATIENCE) == "finished"
    scheduler.shutdown()
    assert set(told) == set(queued)
    assert totals(scheduler) == {"submitted": 5, "finished": 1, "cancelled": 4}


def test_a_second_shutdown_may_cancel_what_the_first_one_left():
    scheduler = Scheduler(workers=1).start()
    with occupied(scheduler):
        queued = scheduler.submit(print)
        scheduler.shutdown(wait=False)
        assert not queued.done()
        scheduler.shutdown(wait=False, cancel_futures=True)
        assert queued.cancelled()
    scheduler.shutdown()


def test_a_work_cannot_wait_for_the_end_of_its_own_scheduler_but_may_ask_for_it():
    with Scheduler(workers=1, name="shop") as scheduler:

        def work(wait):
            scheduler.shutdown(wait=wait)
            return scheduler.monitor().state

        with pytest.raises(RuntimeError, match=r"'shop' can't wait for its end; use shutdown\(wait=False\)"):
            scheduler.submit(work, True).result(PATIENCE)
        assert scheduler.monitor().state == "running"
        assert scheduler.submit(work, False).result(PATIENCE) == "stopping"
        until(lambda: scheduler.monitor().state == "stopped")


def test_a_work_may_have_a_scheduler_of_its_own():
    def work():
        with Scheduler(workers=1) as inner:
            return inner.submit(pow, 2, 3).result()

    with Scheduler(workers=1) as scheduler:
        assert scheduler.submit(work).result(PATIENCE) == 8


def test_a_transaction_cannot_wait_for_an_end_but_may_ask_for_it():
    scheduler = Scheduler(workers=1).start()

    @atomically
    def ask(then, wait=False):
        scheduler.shutdown(wait=wait)
        then()

    with pytest.raises(RuntimeError, match="a transaction can't wait for a scheduler's end"):
        ask(int, wait=True)
    with pytest.raises(ZeroDivisionError):
        ask(lambda: 1 / 0)
    assert scheduler.submit(pow, 2, 3).result(PATIENCE) == 8
    ask(int)
    with pytest.raises(SchedulerClosed):
        scheduler.submit(print)
    scheduler.shutdown()


def test_works_may_wait_for_works_while_the_scheduler_stops():
    scheduler = Scheduler(workers=1).start()
    begun, go = threading.Event(), threading.Event()

    def outer():
        futures = [scheduler.submit(pow, 2, number) for number in range(4)]
        begun.set()
        assert go.wait(PATIENCE)
        done = concurrent.futures.wait(futures[:1], 0).done
        with blocking():
            concurrent.futures.wait(futures[:2], PATIENCE)
        return done, [future.result() for future in futures]

    future = scheduler.submit(outer)
    assert begun.wait(PATIENCE)
    scheduler.shutdown(wait=False)
    go.set()
    assert future.result(PATIENCE) == (set(), [1, 2, 4, 8])
    scheduler.shutdown()
    assert totals(scheduler) == {"submitted": 5, "finished": 5}


def test_a_work_that_submits_too_late_is_told_so():
    scheduler = Scheduler(workers=1).start()
    held = Held()

    def work():
        held()
        scheduler.submit(print)

    future = scheduler.submit(work)
    held.has_begun()
    scheduler.shutdown(wait=False)
    held.go.set()
    assert isinstance(future.exception(PATIENCE), SchedulerClosed)
    scheduler.shutdown()


def test_the_end_does_not_wait_for_what_was_given_up():
    scheduler = Scheduler(workers=2).start()
    held = Held()
    future = scheduler.put_work(Work(held, time_limit=0.01))
    assert isinstance(future.exception(PATIENCE), WorkTimeout)
    other = scheduler.submit(pow, 2, 3)
    Background(scheduler.shutdown).result(PATIENCE / 10)
    assert other.result() == 8
    assert [worker.state for worker in scheduler.monitor().workers] == ["overdue"]
    held.go.set()
    until(lambda: scheduler.monitor().state == "stopped")
    assert totals(scheduler) == {"submitted": 2, "finished": 1, "failed": 1}


def test_a_work_may_become_overdue_while_the_scheduler_stops():
    scheduler = Scheduler(workers=1).start()
    held = Held()
    future = scheduler.put_work(Work(held, time_limit=0.02))
    queued = scheduler.submit(pow, 2, 3)
    Background(scheduler.shutdown).result(PATIENCE / 10)
    assert isinstance(future.exception(0), WorkTimeout)
    assert queued.result(0) == 8
    held.go.set()
    until(lambda: scheduler.monitor().state == "stopped")


def test_nothing_is_left_of_a_scheduler_that_has_stopped():
    before = set(threading.enumerate())
    children = set(psutil.Process().children(recursive=True))
    with Scheduler(workers=3) as scheduler:
        pids = {scheduler.put_work(Work(os.getpid, kind="process")).result(PATIENCE) for _ in range(2)}
        scheduler.put_work(Work(int, time_limit=1)).result(PATIENCE)
        with occupied(scheduler, 3):
            scheduler.resize(4)
    assert set(threading.enumerate()) == before
    assert set(psutil.Process().children(recursive=True)) == children
    assert not any(psutil.pid_exists(pid) for pid in pids)
    gone = weakref.ref(scheduler._staff)
    del scheduler
    gc.collect()
    assert gone() is None


# ------------------------------------------------------------------------------------------ forgotten


def test_a_scheduler_that_nobody_refers_to_finishes_its_work_and_ends():
    held = Held()
    scheduler = Scheduler(workers=1, name="forgotten").start()
    running = scheduler.submit(held, 1)
    queued = scheduler.submit(pow, 2, 3)
    held.has_begun()
    gone = weakref.ref(scheduler)
    del scheduler
    gc.collect()
    assert gone() is None
    assert not running.done()
    held.go.set()
    assert (running.result(PATIENCE), queued.result(PATIENCE)) == (1, 8)
    until(lambda: not [one for one in threading.enumerate() if one.name.startswith("forgotten")])


def test_one_that_is_idle_or_was_never_started_is_forgotten_too():
    scheduler = Scheduler(workers=2, name="forgotten").start()
    at_rest(scheduler)
    never_started = Scheduler(workers=1)
    del scheduler, never_started
    gc.collect()
    until(lambda: not [one for one in threading.enumerate() if one.name.startswith("forgotten")])


def test_its_end_is_no_part_of_the_transaction_in_which_it_is_noticed():
    schedulers = [Scheduler(workers=1, name="forgotten").start()]
    at_rest(schedulers[0])

    @atomically
    def body():
        schedulers.clear()
        gc.collect()
        raise KeyError

    with pytest.raises(KeyError):
        body()
    until(lambda: not [one for one in threading.enumerate() if one.name.startswith("forgotten")])


# ------------------------------------------------------------------------------------------ exit and fork


def run_script(code, tmp_path, patience=PATIENCE):
    """Run a program to its end; what it printed. It must succeed, and have nothing to complain about."""
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(code))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore::DeprecationWarning", str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=patience, env=environment, check=False)
    assert (ended.returncode, ended.stderr) == (0, ""), ended
    return ended.stdout.split()


def test_at_the_interpreters_exit_the_work_is_finished(tmp_path):
    program = """
        import os, threading
        from hive_task import Scheduler, Work, wait

        started = threading.Event()

        def say(*words):
            os.write(1, " ".join((*map(str, words), "")).encode())

        def inner(n):
            return n

        def outer(scheduler):
            futures = [scheduler.submit(inner, n) for n in range(3)]
            started.set()
            threading.main_thread().join()
            say("outer", *(one.result() for one in futures if one in wait(futures).done))

        if __name__ == "__main__":
            for one in (Scheduler(workers=1), Scheduler(workers=2)):
                one.start()
                one.submit(outer, one)
                started.wait()
                started.clear()
                one.submit(say, "queued")
                one.put_work(Work(say, ("limited",), time_limit=60))
    """
    printed = run_script(program, tmp_path)
    assert sorted(printed) == sorted(["outer", "0", "1", "2", "queued", "limited"] * 2)


def test_at_the_interpreters_exit_the_work_of_processes_is_finished_too(tmp_path):
    program = """
        import threading, time
        from hive_task import Scheduler, Work

        def work(what):
            time.sleep(0.05)
            print(what, flush=True)

        if __name__ == "__main__":
            scheduler = Scheduler(workers=1).start()
            first = scheduler.put_work(Work(work, ("begun",), kind="process"))
            while not first.running():
                pass
            scheduler.put_work(Work(work, ("queued",), kind="process"))
    """
    assert run_script(program, tmp_path) == ["begun", "queued"]


def test_the_exit_does_not_wait_for_what_was_given_up(tmp_path):
    program = """
        import logging, threading
        from hive_task import Scheduler, Work

        logging.disable()
        scheduler = Scheduler(workers=1).start()
        future = scheduler.put_work(Work(threading.Event().wait, time_limit=0.02))
        print(type(future.exception()).__name__)
        scheduler.submit(print, "done", flush=True)
    """
    assert run_script(program, tmp_path, PATIENCE / 3) == ["WorkTimeout", "done"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_process_that_was_forked_off_has_no_part_in_the_scheduler(tmp_path):
    program = """
        import os, sys, threading, warnings
        from concurrent import futures
        from hive_task import Scheduler, SchedulerClosed, WorkerLost, wait
        from stm import TVar

        warnings.simplefilter("ignore")
        scheduler = Scheduler(workers=1).start()
        never_started = Scheduler(workers=1)
        begun, go = threading.Event(), threading.Event()

        def work():
            begun.set()
            go.wait()
            return "the parent's"

        finished = scheduler.submit(pow, 2, 3)
        finished.result()
        running = scheduler.submit(work)
        begun.wait()
        queued = scheduler.submit(pow, 2, 4)
        looked_at = scheduler.submit(pow, 2, 5)
        assert not futures.wait([looked_at], 0).done
        told = []
        pid = os.fork()
        if not pid:
            try:
                try:
                    scheduler.submit(print)
                except SchedulerClosed:
                    print("refused")
                for future in (running, queued):
                    assert isinstance(future.exception(10), WorkerLost), future
                assert finished.result() == 8
                assert futures.wait([looked_at, running], 10).not_done == set()
                assert not queued.cancel()
                assert scheduler.monitor().state == "stopped"
                assert scheduler.monitor().totals.balanced, scheduler.monitor().totals
                scheduler.shutdown()
                with never_started:
                    assert never_started.submit(pow, 2, 3).result(10) == 8
                with Scheduler(workers=2) as another:
                    assert list(another.map(abs, [-1, -2])) == [1, 2]
                print("child", flush=True)
            except BaseException:
                import traceback
                traceback.print_exc()
                sys.stderr.flush()
                os._exit(1)
            sys.exit()
        status = os.waitpid(pid, 0)[1]
        go.set()
        assert os.waitstatus_to_exitcode(status) == 0
        assert running.result(10) == "the parent's"
        assert (queued.result(10), looked_at.result(10)) == (16, 32)
        assert scheduler.submit(pow, 2, 6).result(10) == 64
        print(scheduler.monitor().totals.finished)
    """
    assert run_script(program, tmp_path) == ["refused", "child", "5"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_fork_may_come_at_any_moment_and_from_within_a_work(tmp_path):
    program = """
        import os, threading, warnings
        from hive_task import Scheduler, SchedulerClosed, current_work

        warnings.simplefilter("ignore")
        stop = threading.Event()

        def fork():
            pid = os.fork()
            if not pid:
                code = 1
                try:
                    assert current_work() is None
                    assert scheduler.monitor().state == "stopped"
                    try:
                        scheduler.submit(print)
                    except SchedulerClosed:
                        code = 0
                finally:
                    os._exit(code)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

        def keep_busy():
            done = 0
            while not stop.is_set():
                done += scheduler.submit(lambda: scheduler.submit(int, 1).result()).result()
            return done

        with Scheduler(workers=2) as scheduler:
            threads = [threading.Thread(target=keep_busy) for _ in range(2)]
            for thread in threads:
                thread.start()
            codes = [fork() for _ in range(8)] + [scheduler.submit(fork).result() for _ in range(4)]
            stop.set()
            for thread in threads:
                thread.join()
            totals = scheduler.monitor().totals
            assert totals.balanced and totals.failed == 0
        print(*codes)
    """
    assert run_script(program, tmp_path) == ["0"] * 12
