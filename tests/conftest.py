"""What every test must leave behind: nothing. No thread, no child process, no waiter, no lock, no transaction."""

import gc
import multiprocessing
import signal
import sys
import threading
from collections.abc import Iterator

import pytest

from stm.clock import clock
from stm.transaction import descriptor
from tests.injector import disarm

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as shells start what runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "soak" not in config.getoption("markexpr"):
        for item in items:
            if item.get_closest_marker("soak") is not None:
                item.add_marker(pytest.mark.skip(reason="runs for minutes: make soak-tasks"))


def pytest_report_header() -> str:
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    return f"GIL: {'on' if gil else 'off'}"


@pytest.fixture(autouse=True)
def _leaves_nothing_behind() -> Iterator[None]:
    threads_before = set(threading.enumerate())
    yield
    disarm()
    left = [thread for thread in threading.enumerate() if thread not in threads_before]
    for thread in left:
        thread.join(10)
    assert not [thread for thread in left if thread.is_alive()], "the test left a thread running"
    assert not multiprocessing.active_children(), "the test left a process running"
    assert descriptor().writes is None, "the test left its thread inside a transaction"
    assert clock.lock.acquire(timeout=10), "the commit lock was left held"
    clock.lock.release()
    assert clock.exclusive.acquire(timeout=10), "a transaction was left exclusive"
    clock.exclusive.release()
    assert not clock.sleepers, "a waiter was left behind"
    assert not clock.snapshots, "a snapshot was left running"
    if clock.history:
        gc.collect()
    assert not clock.history, "old values were kept although no snapshot runs"
