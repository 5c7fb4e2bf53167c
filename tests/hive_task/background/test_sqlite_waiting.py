"""Waiting for a `SQLiteQueue`: woken in milliseconds by threads and processes, and costing nothing meanwhile."""

import os
import statistics
import threading
import time

import pytest

from hive_task.background.sources import _sqlite_bell
from hive_task.background.sources import sqlite as module
from hive_task.background.sources.sqlite import SQLiteQueue
from hive_task.background.tasks import CANCELLED, DONE, QUEUED, Task
from tests.hive_task.background.sqlite_tools import heard, process, tell
from tests.support import Background, until

PATIENCE = 30.0


@pytest.fixture
def no_looking(monkeypatch):
    """Nobody looks for himself, so that only a ring can have woken him."""
    monkeypatch.setattr(module, "LOOK_AGAIN", 1000.0)


def fifos(path, kind=""):
    try:
        return [name for name in os.listdir(f"{path}-waiters") if name.startswith(kind)]
    except FileNotFoundError:
        return []


def test_waiting_for_work_that_is_there_does_not_wait(queue):
    queue.enqueue_task(Task("t"))
    queue.wait_for_work(1000.0)


def test_a_wait_ends_with_its_time(queue):
    began = time.monotonic()
    queue.wait_for_work(0.05)
    queue.wait_for_change(0.05)
    assert 0.08 < time.monotonic() - began < PATIENCE


@pytest.mark.usefixtures("no_looking")
@pytest.mark.parametrize("called", [False, True])
def test_every_waiting_thread_is_woken_by_another_one(queue, path, monkeypatch, called):
    looks, look = [], queue._has_work
    monkeypatch.setattr(queue, "_has_work", lambda: looks.append(found := look()) or found)
    waiting = [Background(queue.wait_for_work, 1000.0) for _ in range(3)]
    until(lambda: len(looks) >= 3)  # so that each of them has looked in vain
    assert not any(looks)
    if called:
        queue.enqueue_call("t", None, "default")
    else:
        queue.enqueue_task(Task("t"))
    for one in waiting:
        one.result(PATIENCE)
    assert fifos(path) == []


@pytest.mark.usefixtures("no_looking")
def test_when_the_one_who_listens_goes_another_takes_his_place(queue, path):
    first = Background(queue.wait_for_work, 0.2)
    until(lambda: fifos(path, "work"))
    (led,) = fifos(path, "work")
    second = Background(queue.wait_for_work, 1000.0)
    first.result(PATIENCE)
    until(lambda: fifos(path, "work") not in ([], [led]))
    with process(path, "queue = SQLiteQueue(path); queue.enqueue_task(Task('t')); queue.close(); say('put')") as child:
        heard(child)
        second.result(PATIENCE)


@pytest.mark.usefixtures("no_looking")
def test_another_process_wakes_within_milliseconds(queue, path):
    program = """
    queue = SQLiteQueue(path, synchronous="OFF")
    while hear() == "go":
        queue.enqueue_task(Task("t", time.monotonic()))
    queue.close()
    """
    latencies = []
    with process(path, program) as child:
        for _ in range(30):
            waiting = Background(lambda: (queue.wait_for_work(1000.0), time.monotonic())[1])
            until(lambda: fifos(path, "work"))
            tell(child)
            woken = waiting.result(PATIENCE)
            task = queue.dequeue_task()
            latencies.append(woken - task.data)
            queue.complete_task(task)
        tell(child, "stop")
        child.wait()
    assert statistics.median(latencies) < 0.01, latencies


@pytest.mark.usefixtures("no_looking")
def test_an_idle_queue_costs_nothing(queue, path):
    """No look but the first one, whatever time passes: so there is nothing that could cost anything."""
    looks = []
    has_work = queue._has_work

    def looking():
        looks.append(1)
        return has_work()

    queue._has_work = looking
    waiting = Background(queue.wait_for_work, 1000.0)
    until(lambda: looks)
    until(lambda: fifos(path, "work"))
    used = time.process_time()
    time.sleep(0.5)  # not to wait for anything: what is measured is that nothing happens meanwhile
    assert time.process_time() - used < 0.05
    assert looks == [1]
    queue.wake()
    waiting.result(PATIENCE)


@pytest.mark.usefixtures("no_looking")
def test_wake_lets_all_return_also_who_is_about_to_wait(queue, path):
    waiting = [Background(queue.wait_for_work, 1000.0), Background(queue.wait_for_change, 1000.0)]
    until(lambda: fifos(path, "work") and fifos(path, "change"))
    queue.wake()
    for one in waiting:
        one.result(PATIENCE)
    queue.wait_for_work(0.001)
    queue.wake()
    queue.wait_for_work(1000.0)


@pytest.mark.usefixtures("no_looking")
def test_closing_lets_all_return(path):
    queue = SQLiteQueue(path)
    waiting = [Background(queue.wait_for_work, 1000.0), Background(queue.wait_for_change, 1000.0)]
    until(lambda: fifos(path, "work") and fifos(path, "change"))
    queue.close()
    for one in waiting:
        one.result(PATIENCE)
    until(lambda: not fifos(path))


@pytest.mark.usefixtures("no_looking")
def test_who_tends_is_told_of_what_comes_sooner_than_he_thinks(queue, path):
    now = time.time()
    queue.schedule_task(now + 1000, Task("late"))
    assert queue.tend() == pytest.approx(1000, abs=PATIENCE)
    waiting = Background(queue.wait_for_change, 1000.0)
    until(lambda: fifos(path, "change"))
    program = f"queue = SQLiteQueue(path); queue.schedule_task({now} + 500, Task('sooner')); queue.close(); say('put')"
    with process(path, program) as child:
        heard(child)
        waiting.result(PATIENCE)
    # It also comes to his notice if it was put in just before he waits.
    queue.wait_for_change(1000.0)
    assert queue.tend() == pytest.approx(500, abs=PATIENCE)
    queue.wait_for_change(0.001)


@pytest.mark.usefixtures("no_looking")
def test_the_end_of_a_task_is_waited_for_across_processes(queue, path):
    id = queue.enqueue_task(Task("t"))
    waiting = Background(queue.await_end, id, 1000.0)
    until(lambda: fifos(path, "over"))
    program = "queue = SQLiteQueue(path); queue.complete_task(queue.dequeue_task(), [1, 2]); queue.close(); say('done')"
    with process(path, program) as child:
        heard(child)
        record = waiting.result(PATIENCE)
    assert (record.state, record.result) == (DONE, [1, 2])


def test_waiting_for_an_end_that_does_not_come(queue):
    assert queue.await_end("nobody") is None
    id = queue.enqueue_task(Task("t"))
    assert queue.await_end(id, 0.01).state == QUEUED
    queue.cancel_task(id)
    assert queue.await_end(id).state == CANCELLED


def test_the_fifo_of_a_killed_process_is_removed_by_who_rings(queue, path):
    with process(path, "queue = SQLiteQueue(path); say('here'); queue.wait_for_work(1000)") as child:
        heard(child)
        until(lambda: fifos(path, "work"))
        child.kill()
        child.wait()
    assert len(fifos(path, "work")) == 1
    queue.enqueue_task(Task("t"))
    assert fifos(path, "work") == []


def test_where_no_fifo_can_be_made_the_waiter_looks_often(queue, path, monkeypatch):
    def refuse(path):
        raise OSError("no FIFOs here")

    monkeypatch.setattr(os, "mkfifo", refuse)
    looked = threading.Event()
    has_work = queue._has_work
    queue._has_work = lambda: (looked.set(), has_work())[1]
    waiting = Background(queue.wait_for_work, 1000.0)
    assert looked.wait(PATIENCE)
    with process(path, "queue = SQLiteQueue(path); queue.enqueue_task(Task('t')); queue.close(); say('put')") as child:
        heard(child)
        waiting.result(PATIENCE)
    assert fifos(path) == []


def test_a_ring_between_looking_and_listening_is_not_lost(queue, path, monkeypatch):
    monkeypatch.setattr(module, "LOOK_AGAIN", 1000.0)
    has_work = queue._has_work

    def late():
        found = has_work()
        queue._has_work = has_work
        with process(path, "queue = SQLiteQueue(path); queue.enqueue_task(Task('t')); queue.close(); say(1)") as child:
            heard(child)
        return found

    queue._has_work = late
    Background(queue.wait_for_work, 1000.0).result(PATIENCE)


def test_rings_are_for_their_kind_alone(tmp_path):
    work, over = (_sqlite_bell.Bell(str(tmp_path / "waiters"), kind) for kind in ("work", "over"))
    looked = threading.Event()

    def look():
        looked.set()
        return 1000.0

    waiting = Background(work.wait, look, 1000.0)
    assert looked.wait(PATIENCE)
    over.ring()
    assert waiting.thread.is_alive()
    work.ring()
    waiting.result(PATIENCE)
    work.close()
    assert list(tmp_path.iterdir()) == []
