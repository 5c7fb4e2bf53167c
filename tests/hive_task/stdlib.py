"""`Scheduler` in the place of `ThreadPoolExecutor`, for the standard library's own tests of executors."""

import contextlib
import importlib
import os
import queue
import threading
import time
import types
import weakref
from collections.abc import Callable
from concurrent import futures as standard
from unittest import mock

import hive_task
from hive_task import Scheduler

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

#: Sleeps of so many seconds and more stand for "it isn't done yet": they last until the scheduler is shut down.
LONG = 0.5


class Naps:
    """`time.sleep` for the tests' works: whoever sleeps long is woken when nobody wants him to sleep any more."""

    def __init__(self):
        self.over = threading.Event()
        self.haste = 1

    def sleep(self, seconds):
        if seconds <= 2:
            seconds /= self.haste
        if seconds < LONG:
            time.sleep(seconds)
        else:
            self.over.wait(seconds)


naps = Naps()


def shorter(timeout):
    """A time limit that is to pass: there is no need for seconds."""
    return timeout / 10 if timeout and timeout >= 1 else timeout


#: Those that were made and not collected yet: a test that fails may leave one running.
pools: weakref.WeakSet["Pool"] = weakref.WeakSet()

#: What those that are made by hand still wait for.
open_ends: list[Callable[[], object]] = []


class Pool(Scheduler):
    """A scheduler that takes the arguments of `ThreadPoolExecutor`, and is started."""

    def __init__(self, max_workers=None, thread_name_prefix=""):
        super().__init__(max_workers, name=thread_name_prefix or None)
        self._max_workers = max_workers
        pools.add(self)
        self.start()

    @property
    def _threads(self):
        return {worker.thread for worker in self._staff.dispatch.registry.crew.peek()}

    def map(self, fn, *iterables, timeout=None, **others):
        return super().map(fn, *iterables, timeout=shorter(timeout), **others)

    def shutdown(self, wait=True, *, cancel_futures=False):
        naps.over.set()
        if cancel_futures:  # the test wants some of the works to have been begun
            while (totals := self.monitor().totals).queued and not (totals.running or totals.finished):
                time.sleep(0.001)
        super().shutdown(wait, cancel_futures=cancel_futures)


def by_hand(state="PENDING", exception=None, result=None):
    """A future of a scheduler in this state, whose `set_result` and `set_exception` decide what its work does.

    They return when the callbacks have been called: the work's only worker has gone on to the next one.
    """
    pool, begin, ending = Pool(1), threading.Event(), queue.SimpleQueue()
    pool.submit(begin.wait)
    future = pool.submit(lambda: ending.get()())

    def end(what):
        begin.set()
        ending.put(what)
        pool.submit(int).result()
        del future.set_result, future.set_exception

    def fail(error):
        raise error

    future.set_result = lambda result: end(lambda: result)
    future.set_exception = lambda error: end(lambda: fail(error))
    open_ends.append(lambda: (begin.set(), ending.put(int)))
    if state.startswith("CANCELLED"):
        future.cancel()
    elif state == "FINISHED":
        future.set_exception(exception) if exception else future.set_result(result)
    elif state == "RUNNING":
        begin.set()
        while not future.running():
            time.sleep(0.0001)
    return future


def futures_by_hand():
    """The names by which the tests of `Future` know such futures."""
    return {
        "Future": by_hand,
        "create_future": by_hand,
        "PENDING_FUTURE": by_hand(),
        "RUNNING_FUTURE": by_hand("RUNNING"),
        "CANCELLED_FUTURE": by_hand("CANCELLED"),
        "CANCELLED_AND_NOTIFIED_FUTURE": by_hand("CANCELLED_AND_NOTIFIED"),
        "EXCEPTION_FUTURE": by_hand("FINISHED", exception=OSError()),
        "SUCCESSFUL_FUTURE": by_hand("FINISHED", result=42),
    }


def finish_all():
    """Stop all schedulers that a test has left running."""
    while open_ends:
        open_ends.pop()()
    for pool in list(pools):
        pool.shutdown()


#: The name by which scripts of tests import it.
ThreadPoolExecutor = Pool


class Namespace(types.SimpleNamespace):
    """A module, but for some of its names."""

    def __init__(self, module, **others):
        super().__init__(**others)
        self.__dict__["_module"] = module

    def __getattr__(self, name):
        return getattr(self._module, name)


def futures_with(wait, as_completed):
    """`concurrent.futures`, as the tests are to see it, with these functions."""

    def wait_less(fs, timeout=None, return_when=standard.ALL_COMPLETED):
        return wait(fs, shorter(timeout), return_when)

    def as_completed_sooner(fs, timeout=None):
        return as_completed(fs, shorter(timeout))

    return Namespace(standard, ThreadPoolExecutor=Pool, wait=wait_less, as_completed=as_completed_sooner)


FUTURES = futures_with(standard.wait, standard.as_completed)
OWN_FUTURES = futures_with(hive_task.wait, hive_task.as_completed)


def run_script(*args, **variables):
    """`assert_python_ok` of `test.support`, for a script that is to use a scheduler."""
    from test.support.script_helper import assert_python_ok

    option, script = args
    script = script.replace("concurrent.futures", "tests.hive_task.stdlib").replace("1.0", "0.1")
    return assert_python_ok(option, f"import sys; sys.path[:0] = {[ROOT, *_test_paths()]!r}\n{script}", **variables)


def _test_paths():
    """Where the package `test` is, should it be at an unusual place."""
    return [os.path.dirname(path) for path in importlib.import_module("test").__path__]


@contextlib.contextmanager
def adapted(case, futures=FUTURES, haste=1, rounds=None):
    """The modules that a test class comes from, as its tests are to see them. `haste`: by how much sleeps up to two
    seconds, and limits of `map`, are shortened. `rounds`: the most rounds of a loop."""
    naps.over.clear()
    naps.haste = haste
    names = {
        "futures": futures,
        "time": Namespace(time, sleep=naps.sleep),
        "concurrent": Namespace(importlib.import_module("concurrent"), futures=futures),
        "assert_python_ok": run_script,
    }
    if rounds:
        names["range"] = lambda *bounds: range(*bounds)[:rounds]
    with contextlib.ExitStack() as stack:
        stack.callback(finish_all)
        # (`conftest` looks for threads left running; this would wait for the objects of others that have ended too.)
        stack.enter_context(mock.patch("test.support.threading_helper.threading_cleanup"))
        for name in {one.__module__ for one in case.__mro__ if one.__module__.startswith("test.")}:
            module = importlib.import_module(name)
            for one, substitute in names.items():
                if hasattr(module, one) or one == "range":
                    stack.enter_context(mock.patch.object(module, one, substitute, create=one == "range"))
        yield
