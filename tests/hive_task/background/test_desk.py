"""The leader of an application's workers: when he takes a nap, so that many tasks can be taken in one step, and when he
calls the others."""

import sys
import threading
from math import inf
from types import SimpleNamespace

import pytest

from hive_task.background import MemoryQueue, task
from hive_task.background import desk as module
from hive_task.background.application import RUNNING, Application
from hive_task.background.definition import Registry
from hive_task.background.desk import FEW, LONGEST_NAP, MOST, NAP, RUNNING_ON, SHORT, TINY
from hive_task.background.sources.base import DataSource
from hive_task.background.tasks import DONE, End, Task

STEP = 0.0005


class Script(DataSource):
    """A source that gives out as many tasks as it was told, step by step; each takes `STEP` seconds of its own clock,
    and each wait for work `wait` seconds."""

    def __init__(self, *counts, wait=0.0):
        self.counts = list(counts)
        self.wait = wait
        self.now = 0.0
        self.naps = []
        self.clock = SimpleNamespace(time=lambda: self.now, monotonic=lambda: self.now)

    def settle_and_dequeue(self, ends, limit, *, app=None):
        self.now += STEP
        count = min(self.counts.pop(0), limit) if limit else 0
        return [True] * len(ends), [Task("work") for _ in range(count)]

    def wait_for_work(self, timeout, *, app=None):
        self.now += self.wait

    def sleep(self, seconds):
        self.naps.append(seconds)
        self.now += seconds


def running(source):
    """An application that believes it was started, and has no workers."""
    app = Application(source)
    app.phase.set(RUNNING)
    return app


def naps(monkeypatch, source, *, seconds=0.000_005):
    """Run all its tasks, each of which takes so long; how often a nap came before how many steps."""
    time = SimpleNamespace(perf_counter=lambda: source.now, sleep=source.sleep)
    monkeypatch.setattr(module, "time", time)
    desk = running(source).desk
    desk._pace = seconds
    while source.counts or desk._tray:
        desk.ended(End(desk.next_task(), DONE), seconds)
    return source.naps


def test_a_trickle_makes_him_take_a_nap_before_each_step(monkeypatch):
    found = naps(monkeypatch, Script(*[1] * 10))
    assert found == [pytest.approx(10 * STEP)] * (10 - 1 - RUNNING_ON)


def test_steps_that_find_none_in_between_make_no_difference(monkeypatch):
    """None was there so soon after the last one, though they come in without a pause."""
    assert len(naps(monkeypatch, Script(*[1, 0] * RUNNING_ON, *[1] * 6))) == 5


def test_a_nap_that_finds_none_is_the_last(monkeypatch):
    assert len(naps(monkeypatch, Script(1, 1, 1, 1, 0, *[1] * (RUNNING_ON + 1)))) == 1


def test_tasks_with_pauses_between_them_are_taken_at_once(monkeypatch):
    assert naps(monkeypatch, Script(*[1, 0] * 20, 1, wait=2 * STEP)) == []


def test_a_queue_that_has_many_is_not_left_alone(monkeypatch):
    assert naps(monkeypatch, Script(*[FEW] * 10)) == []
    assert len(naps(monkeypatch, Script(1, 1, 1, 1, FEW, *[1] * (RUNNING_ON + 1)))) == 1


def test_as_many_as_he_asks_for_are_not_few(monkeypatch):
    """Of longer tasks he asks for fewer; if he gets them, there are more."""
    source = Script(*[1000] * 10)
    assert naps(monkeypatch, source, seconds=0.000_15) == []


def test_nobody_takes_a_nap_over_tasks_that_are_not_short(monkeypatch):
    assert naps(monkeypatch, Script(*[1] * 10), seconds=2 * SHORT) == []


@pytest.mark.parametrize(("step", "nap"), [(NAP / 100, NAP), (LONGEST_NAP, LONGEST_NAP)])
def test_a_nap_is_neither_too_short_nor_too_long(monkeypatch, step, nap):
    monkeypatch.setattr("tests.hive_task.background.test_desk.STEP", step)
    assert set(naps(monkeypatch, Script(*[1] * 10))) == {nap}


def test_what_has_ended_is_left_to_a_leader_who_is_about_to_settle(monkeypatch):
    """The worker who settles late does not in a nap; he looks again, and does when it is over."""
    app = running(Script())
    desk, settled = app.desk, []
    desk.ended(End(Task("work"), DONE), 0.0)
    desk._naps = True
    rounds = iter([(True, False), (True, False), (False, False), (False, True)])

    def await_stop(seconds):
        desk._naps, stops = next(rounds)
        return stops

    def settle():
        settled.append(desk._naps)
        desk._look_later()

    monkeypatch.setattr(app, "await_stop", await_stop)
    monkeypatch.setattr(desk, "settle", settle)
    desk.settle_late()
    assert settled == [False]


def test_a_leader_says_that_he_takes_a_nap_while_he_does(monkeypatch):
    source = Script(*[1] * (RUNNING_ON + 2))
    said = []
    time = SimpleNamespace(perf_counter=lambda: 0.0, sleep=lambda _: said.append(desk._naps))
    monkeypatch.setattr(module, "time", time)
    desk = running(source).desk
    desk._pace = 0.0
    while source.counts:
        assert not desk._naps
        desk.ended(End(desk.next_task(), DONE), 0.0)
    assert said == [True]
    assert not desk._naps


# Calling the others.


@pytest.mark.parametrize(
    ("count", "seconds", "calls"),
    [(MOST, 0.000_005, True), (MOST, 0.000_001, False), (50, 0.000_005, False), (1000, 2 * TINY, False)],
)
def test_he_calls_when_there_is_enough_for_two(monkeypatch, count, seconds, calls):
    """But not if the tasks are so long that he resigns anyway."""
    monkeypatch.setattr(module, "WORTH", 0.0005)
    source = Script(1, count)
    desk = running(source).desk
    desk.ended(End(desk.next_task(), DONE), seconds)
    before = desk._calls.get()
    desk.next_task()
    assert (desk._calls.get() > before) is calls


def test_with_the_gil_nobody_is_called():
    assert (inf == module.WORTH) is getattr(sys, "_is_gil_enabled", lambda: True)()


def test_who_is_called_runs_what_lies_on_the_tray(monkeypatch):
    """Tiny tasks, until the first of many waits for the last: somebody else has to run that."""
    monkeypatch.setattr(module, "WORTH", 0.0)
    monkeypatch.setattr(module, "LATE", 1000.0)  # (after which the leader would be deposed)
    last, registry, ran = threading.Event(), Registry(), []

    @task("step", registry=registry)
    def step(data, *, time):
        if data == "first":
            assert last.wait(30.0)
        elif data == "last":
            last.set()
        ran.append(threading.get_ident())

    source = MemoryQueue()
    with Application(source, 2, registry=registry):
        for _ in range(20):
            source.await_end(source.enqueue_task(Task("step")))
        ids = source.enqueue_tasks([Task("step", data) for data in ("first", *[None] * 50, "last")])
        assert source.await_end(ids[0], 60.0).state == DONE
    assert len(set(ran[-50:])) == 2
