"""The standard library's own tests of executors and futures, of `wait` and `as_completed`, and of what `asyncio` does
with executors, on `Scheduler`. (Its tests of processes and of `initializer` are of what a `Scheduler` doesn't have.)
"""

import asyncio
import importlib
import logging
import sys
import unittest
from unittest import mock

import pytest

from tests.hive_task.stdlib import FUTURES, OWN_FUTURES, Pool, adapted, finish_all, futures_by_hand

OWN_NAME = ("threads are named after the scheduler, and numbered from 1", "Regex didn't match")
OWN_MESSAGE = "the message is our own"
OWN_REPR = "the repr shows the work"
OWN_STATE = ("a work that was cancelled is cancelled, without another state", "'CANCELLED_AND_NOTIFIED' != 'CANCELLED'")

#: What does not apply to ours: why not, and how it shows.
EXCLUDED = {
    "test_max_workers_negative": (OWN_MESSAGE, 'does not match "workers must be 1 or more'),
    "test_submit_after_interpreter_shutdown": (OWN_MESSAGE, "takes no work: it is stopped"),
    "test_thread_names_assigned": OWN_NAME,
    "test_thread_names_default": OWN_NAME,
    "test_repr": (OWN_REPR, "Regex didn't match"),
    "test_cancel": OWN_STATE,
    "test_multiple_set_result": (OWN_MESSAGE, "set_result() is not for this future"),
    "test_multiple_set_exception": (OWN_MESSAGE, "set_exception() is not for this future"),
}

#: What a test here can't decide.
LEFT_OUT = {
    "test_default_workers": "how many workers there are without a number depends on the machine",
    "test_exception_with_success": "sets the fields of a future, and waits half a minute for what doesn't come of that",
    "test_idle_thread_reuse": "how many workers there are without a number depends on the machine",
    "test_done_callback_raises": "looks for the log in stderr, where pytest lets none go",
    "test_done_callback_raises_already_succeeded": "looks for the log in stderr, where pytest lets none go",
}
if not getattr(sys, "_is_gil_enabled", lambda: True)():
    LEFT_OUT["test_free_reference"] = "the worker lets go a moment after it has told of the result"

#: Tests that wait for seconds, and are as good if they wait for less.
HASTE = {
    "test_20369",
    "test_context_threads_1",
    "test_duplicate_futures",
    "test_first_exception",
    "test_hang_issue12364",
    "test_result_with_cancel",
    "test_result_with_success",
    "test_run_in_executor_cancel",
}
ROUNDS = {"test_hang_global_shutdown_lock": 3}

#: Workers are hired at the start, so there have to be as many as the test submits works.
WORKERS = {"test_threads_terminate": 3}


class OnScheduler:
    """What a test class needs, so that its tests are of a scheduler. (`outcome` runs them, not pytest.)"""

    __test__ = False
    executor_type = Pool

    def tearDown(self):
        finish_all()
        super().tearDown()


class ByHand(OnScheduler):
    """For tests of single futures: they make futures of a scheduler."""

    def setUp(self):
        super().setUp()
        module = next(one.__module__ for one in type(self).__mro__ if one.__module__.startswith("test."))
        patch = mock.patch.multiple(module, **futures_by_hand())
        patch.start()
        self.addCleanup(patch.stop)


class LoopOnScheduler(OnScheduler):
    """For event loops: what runs in the default executor is run by a scheduler."""

    def setUp(self):
        super().setUp()
        self.loop._default_executor = Pool(2)  # (`set_default_executor` takes a `ThreadPoolExecutor` only)

    def create_event_loop(self):
        return asyncio.SelectorEventLoop()


class AsyncOnScheduler(OnScheduler):
    async def asyncSetUp(self):
        asyncio.get_running_loop()._default_executor = Pool(2)


def cases(label, module, name, adapter=OnScheduler, futures=FUTURES, prefix="test"):
    """The tests of a class whose names start so, as far as this interpreter has them."""
    base = None
    for path in (f"test.{module}", f"test.{module.partition('.')[0]}"):  # it was one file once
        try:
            base = base or getattr(importlib.import_module(path), name, None)
        except (ImportError, unittest.SkipTest):
            pass
    if base is None:
        return
    case = type(name, (adapter, base), {})
    for one in unittest.defaultTestLoader.getTestCaseNames(case):
        if one.startswith(prefix) and one not in LEFT_OUT:
            yield pytest.param(case, futures, one, id=f"{label}-{one}")


TESTS = [
    *cases("executor", "test_concurrent_futures.test_thread_pool", "ThreadPoolExecutorTest"),
    *cases("shutdown", "test_concurrent_futures.test_shutdown", "ThreadPoolShutdownTest"),
    *cases("wait", "test_concurrent_futures.test_wait", "ThreadPoolWaitTests"),
    *cases("own_wait", "test_concurrent_futures.test_wait", "ThreadPoolWaitTests", futures=OWN_FUTURES),
    *cases("completed", "test_concurrent_futures.test_as_completed", "ThreadPoolAsCompletedTest"),
    *cases(
        "own_completed", "test_concurrent_futures.test_as_completed", "ThreadPoolAsCompletedTest", futures=OWN_FUTURES
    ),
    *cases("future", "test_concurrent_futures.test_future", "FutureTests", ByHand),
    *cases("context", "test_context", "ContextTest", prefix="test_context_threads"),
    *cases("loop", "test_asyncio.test_events", "SelectEventLoopTests", LoopOnScheduler, prefix="test_run_in_executor"),
    *cases("threadsafe", "test_asyncio.test_tasks", "RunCoroutineThreadsafeTests", LoopOnScheduler),
    *cases("wrap", "test_asyncio.test_futures", "CFutureTests", prefix="test_wrap_future"),
    *cases("to_thread", "test_asyncio.test_threads", "ToThreadTests", AsyncOnScheduler),
]

if not TESTS:
    pytest.skip("this interpreter comes without its `test` package", allow_module_level=True)


def outcome(case, name):
    result = unittest.TestResult()
    case(name).run(result)
    assert result.testsRun == 1
    return result


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.parametrize(("case", "futures", "name"), TESTS)
def test_stdlib(case, futures, name, caplog):
    case = type(case.__name__, (case,), {"worker_count": WORKERS.get(name, 5)})
    with adapted(case, futures, 10 if name in HASTE else 1, ROUNDS.get(name)):
        result = outcome(case, name)
    for _, reason in result.skipped:
        pytest.skip(reason)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR and "hive" in record.name]
    problems = "\n".join(text for _, text in result.failures + result.errors)
    if name in EXCLUDED:
        reason, shows = EXCLUDED[name]
        assert shows in problems, f"{reason}: no longer so, take it off the list of what is excluded\n{problems}"
    else:
        assert not problems, problems
