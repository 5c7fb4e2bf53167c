"""Data sources that override three methods: what an application makes of them."""

import threading
import time
from collections import deque

import pytest

from hive_task.background import (
    Application,
    DataSource,
    Registry,
    Task,
    dequeue_task,
    enqueue_task,
    execute_task,
    execute_task_at,
    run_task,
    schedule_task,
    start_application,
    stop_application,
    task,
)
from tests.support import PATIENCE, until


class Shelf(DataSource):
    """The least that a source can be."""

    def __init__(self):
        self.queued = deque()
        self.scheduled = []
        self.lock = threading.Lock()

    def enqueue_task(self, task, *, app=None):
        self.queued.append(task)

    def dequeue_task(self, *, app=None):
        with self.lock:
            now = time.time()
            for entry in self.scheduled:
                if entry[0] <= now:
                    self.scheduled.remove(entry)
                    return entry[1]
            return self.queued.popleft() if self.queued else None

    def schedule_task(self, time, task, *, app=None):
        with self.lock:
            self.scheduled.append((time, task))


@pytest.fixture
def registry():
    return Registry()


def test_tasks_run_with_their_data_and_time(registry):
    seen = []

    @task("note", registry=registry)
    def note(data, *, time):
        seen.append(data)

    app = start_application(number_of_workers=1, data_source=Shelf(), registry=registry)
    for number in range(20):
        execute_task(app, "note", number)
    until(lambda: len(seen) == 20, "the tasks")
    stop_application(app)
    assert seen == list(range(20))


def test_a_task_runs_at_its_time_and_not_before(registry):
    seen = []
    task("note", registry=registry)(lambda data, *, time: seen.append((data, now())))
    now = time.time
    app = start_application(data_source=Shelf(), registry=registry)
    at = now() + 0.2
    execute_task_at(app, at, "note", "later")
    execute_task(app, "note", "soon")
    until(lambda: len(seen) == 2, "both tasks")
    stop_application(app)
    assert [data for data, _ in seen] == ["soon", "later"]
    assert seen[1][1] >= at


def test_a_failed_task_is_tried_again_as_often_as_it_may(registry):
    runs = []

    @task("fail", retries=2, backoff=0.01, registry=registry)
    def fail(data, *, time):
        runs.append(data)
        raise ValueError("no")

    task("after", registry=registry)(lambda data, *, time: runs.append("after"))
    app = start_application(data_source=Shelf(), registry=registry)
    enqueue_task(app, Task("fail", "x"))
    until(lambda: len(runs) == 3, "three runs")
    execute_task(app, "after")
    until(lambda: runs[-1] == "after", "the next task")
    stop_application(app)
    assert runs == ["x", "x", "x", "after"]


def test_any_loop_may_be_replaced(registry):
    done = threading.Event()
    task("note", registry=registry)(lambda data, *, time: done.set())

    def my_runner(app):
        while app.is_running():
            taken = dequeue_task(app)
            if taken is None:
                app.data_source.wait_for_work(1.0, app=app)
            else:
                app.data_source.settle_tasks([run_task(app, taken, time.time)], app=app)

    scheduled = threading.Event()

    def my_scheduler(app):
        scheduled.set()

    app = start_application(data_source=Shelf(), registry=registry, task_runner=my_runner, task_scheduler=my_scheduler)
    schedule_task(app, time.time(), Task("note"))
    assert done.wait(PATIENCE)
    assert scheduled.wait(PATIENCE)
    stop_application(app)


def test_a_source_without_records_says_so(registry):
    task("note", registry=registry)(lambda data, *, time: None)
    app = Application(Shelf(), registry=registry)
    handle = execute_task(app, "note")
    with pytest.raises(NotImplementedError, match="Shelf keeps no records"):
        handle.record()


@pytest.mark.parametrize("name", ["enqueue_task", "dequeue_task", "schedule_task"])
def test_what_must_be_overridden_says_so(name):
    arguments = {"enqueue_task": (Task("x"),), "dequeue_task": (), "schedule_task": (1.0, Task("x"))}[name]
    with pytest.raises(NotImplementedError, match=f"must override {name}"):
        getattr(DataSource(), name)(*arguments)


def test_a_source_that_fails_is_tried_again_and_the_caller_is_told(registry, caplog):
    class Broken(Shelf):
        broken = True

        def enqueue_task(self, task, *, app=None):
            if self.broken:
                raise OSError("no disk")
            super().enqueue_task(task, app=app)

        def dequeue_task(self, *, app=None):
            if self.broken:
                raise OSError("no disk either")
            return super().dequeue_task(app=app)

    done = threading.Event()
    task("note", registry=registry)(lambda data, *, time: done.set())
    source = Broken()
    app = start_application(data_source=source, registry=registry)
    with pytest.raises(OSError, match="no disk"):
        execute_task(app, "note")
    until(lambda: "no disk either" in caplog.text, "the complaint")
    source.broken = False
    execute_task(app, "note")
    assert done.wait(PATIENCE)
    stop_application(app)


def test_a_loop_that_fails_is_begun_again(registry, caplog, monkeypatch):
    monkeypatch.setattr("hive_task.background.application.ANEW", 0.001)
    tries = []

    def my_runner(app):
        tries.append(app)
        if len(tries) < 3:
            raise ValueError("a bad loop")

    app = start_application(data_source=Shelf(), registry=registry, task_runner=my_runner)
    until(lambda: len(tries) == 3, "the third try")
    stop_application(app)
    assert len(tries) == 3
    assert caplog.text.count("ended with an exception") == 2


class Reliable(Shelf):
    """Claims several at once, as `MemoryQueue` does; its tasks are counted."""

    def __init__(self):
        super().__init__()
        self.settled = []

    def settle_tasks(self, ends, *, app=None):
        self.settled += ends
        return [True] * len(ends)


def test_tasks_that_lie_behind_a_long_one_are_given_back(registry, monkeypatch):
    monkeypatch.setattr("hive_task.background.desk.LYING", 0.0)
    begun, go = threading.Event(), threading.Event()

    @task("hold", registry=registry)
    def hold(data, *, time):
        begun.set()
        assert go.wait(PATIENCE)

    task("quick", registry=registry)(lambda data, *, time: None)
    source = Reliable()
    app = Application(source, registry=registry)
    app.desk._pace = 1e-6  # as after many short ones
    execute_task(app, "hold")
    for _ in range(3):
        execute_task(app, "quick")
    app.start()
    assert begun.wait(PATIENCE)
    until(lambda: len(source.settled) == 3, "what lay on the tray")
    assert {end.outcome for end in source.settled} == {"queued"}
    assert not app.desk.in_hand.keys() & {end.task.id for end in source.settled}
    go.set()
    stop_application(app)
    assert source.settled[-1].outcome == "done"


@pytest.mark.parametrize("workers", [2, 3])
def test_a_long_task_among_tiny_ones_holds_up_nobody(registry, workers):
    """The leader keeps his office while tasks are tiny; one that is not costs him it."""
    begun, go, ran = threading.Event(), threading.Event(), []

    @task("hold", registry=registry)
    def hold(data, *, time):
        begun.set()
        assert go.wait(PATIENCE)

    task("quick", registry=registry)(lambda data, *, time: ran.append(data))
    app = Application(Reliable(), workers, registry=registry)
    app.desk._pace = 1e-6  # as after many short ones
    execute_task(app, "hold")
    app.start()
    assert begun.wait(PATIENCE)
    for number in range(10):  # some lie on his tray, or come later; each must be led to by somebody else
        execute_task(app, "quick", number)
        until(lambda number=number: len(ran) == number + 1, "the quick one")
    go.set()
    stop_application(app)
    assert ran == list(range(10))


def test_a_leader_who_is_struck_down_is_replaced(registry):
    done, strikes = threading.Event(), []

    class Struck(Reliable):
        def wait_for_work(self, timeout, *, app=None):
            if len(strikes) < 2:
                strikes.append(threading.get_ident())
                raise SystemExit("struck")
            super().wait_for_work(timeout, app=app)

    task("quick", registry=registry)(lambda data, *, time: done.set())
    app = start_application(number_of_workers=2, data_source=Struck(), registry=registry)
    until(lambda: len(strikes) == 2, "the strikes")
    execute_task(app, "quick")
    assert done.wait(PATIENCE)
    stop_application(app)
