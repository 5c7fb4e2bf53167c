"""What an application promises, over each data source that comes with the library."""

import asyncio
import datetime
import itertools
import logging
import os
import subprocess
import sys
import threading
import time

import pytest

from hive_task import global_background_worker
from hive_task.background import (
    Application,
    ApplicationStopped,
    Backoff,
    MemoryQueue,
    Registry,
    RetryLater,
    SQLiteQueue,
    Task,
    TaskCancelled,
    TaskFailed,
    UnknownTask,
    UnserializableData,
    chain,
    current_task,
    dequeue_task,
    enqueue_task,
    enqueue_tasks,
    execute_task,
    execute_task_at,
    gather,
    schedule_task,
    start_application,
    stop_application,
    task,
)
from hive_task.background.loops import Periodic
from hive_task.background.testing import drain, eager
from stm import TVar, atomically
from tests.support import PATIENCE, Once, until


@pytest.fixture(params=["memory", "sqlite"])
def source(request, tmp_path):
    made = MemoryQueue() if request.param == "memory" else SQLiteQueue(tmp_path / "tasks.sqlite")
    yield made
    made.close()


@pytest.fixture
def registry():
    return Registry()


@pytest.fixture
def define(registry):
    """`task`, into the registry of this test."""
    return lambda name, **options: task(name, registry=registry, **options)


@pytest.fixture
def app(source, registry):
    app = start_application(number_of_workers=2, data_source=source, registry=registry)
    yield app
    stop_application(app)


def double(data, *, time):
    return 2 * data


def pid(data, *, time):
    return os.getpid()


def die_once(data, *, time):
    try:
        os.mkdir(data)
    except FileExistsError:
        return "survived"
    os.kill(os.getpid(), 9)


def die(data, *, time):
    os.kill(os.getpid(), 9)


def sleep_on(data, *, time):
    threading.Event().wait()


# ------------------------------------------------------------------------------------------------ running


def test_a_task_runs_and_its_result_can_be_asked_for(app, define):
    define("double")(double)
    handle = execute_task(app, "double", 21)
    assert handle.result(PATIENCE) == 42
    record = handle.record()
    assert (record.state, record.attempts, record.crashes, record.result) == ("done", 1, 0, 42)
    assert record.created <= record.started <= record.ended
    assert record.worker == app.identity


def test_many_tasks_run_once_each(app, define):
    ran, lock = [], threading.Lock()

    @define("note")
    def note(data, *, time):
        with lock:
            ran.append(data)

    handles = enqueue_tasks(app, [Task("note", number) for number in range(500)])
    for handle in handles:
        handle.result(PATIENCE)
    assert sorted(ran) == list(range(500))


def test_the_time_is_that_at_which_it_was_due(app, define):
    define("when")(lambda data, *, time: time)
    at = time.time() + 0.05
    assert execute_task_at(app, at, "when").result(PATIENCE) == pytest.approx(at, abs=1e-6)
    aware = datetime.datetime.fromtimestamp(at, datetime.UTC)
    assert execute_task_at(app, aware, "when").result(PATIENCE) == pytest.approx(at, abs=1e-5)
    before = time.time()
    assert before - 1 <= execute_task(app, "when").result(PATIENCE) <= time.time() + 1


def test_coroutine_functions_run_in_a_loop(app, define):
    @define("later")
    async def later(data, *, time):
        await asyncio.sleep(0)
        return current_task().name

    assert execute_task(app, "later").result(PATIENCE) == "later"


def test_a_process_task_runs_in_another_process(app, define):
    define("pid", kind="process")(pid)
    assert execute_task(app, "pid").result(PATIENCE) != os.getpid()


def test_a_process_that_dies_is_tried_again(app, define, tmp_path):
    define("die", kind="process")(die_once)
    assert execute_task(app, "die", str(tmp_path / "died")).result(PATIENCE) == "survived"


def test_a_task_that_kills_its_process_three_times_is_a_dead_letter(app, define):
    define("die", kind="process", retries=5)(die)
    handle = execute_task(app, "die")
    with pytest.raises(TaskFailed, match="ChildDied"):
        handle.result(PATIENCE)
    assert handle.state == "dead"


def test_a_process_that_runs_for_too_long_is_stopped(app, define):
    define("sleep", kind="process", time_limit=0.3)(sleep_on)
    with pytest.raises(TaskFailed, match="WorkTimeout"):
        execute_task(app, "sleep").result(PATIENCE)


def test_a_thread_that_runs_for_too_long_is_flagged_and_given_up(app, define):
    flagged = threading.Event()

    @define("sleep", time_limit=0.05)
    def sleep(data, *, time):
        current = current_task()
        until(lambda: current.cancelled, "the flag")
        flagged.set()

    with pytest.raises(TaskFailed, match="WorkTimeout"):
        execute_task(app, "sleep").result(PATIENCE)
    assert flagged.wait(PATIENCE)
    define("double")(double)
    assert execute_task(app, "double", 1).result(PATIENCE) == 2


def test_priorities_go_first(source, registry, define):
    ran = []
    define("note")(lambda data, *, time: ran.append(data))
    app = Application(source, registry=registry)
    for data, priority in (("low", -1), ("usual", 0), ("usual too", 0), ("high", 5)):
        execute_task(app, "note", data, priority=priority)
    assert drain(app) == 4
    assert ran == ["high", "usual", "usual too", "low"]


# ------------------------------------------------------------------------------------------------ failing


def test_a_failure_is_a_dead_letter_with_its_traceback_and_can_be_requeued(app, define):
    first = Once()

    @define("fail")
    def fail(data, *, time):
        if first:
            raise ValueError(data)
        return "well"

    handle = execute_task(app, "fail", "no good")
    with pytest.raises(TaskFailed, match="failed for good: ValueError: no good") as raised:
        handle.result(PATIENCE)
    assert raised.value.failure.kind == "ValueError"
    assert "in fail" in handle.record().failure.traceback
    assert app.data_source.retry_task(handle.id)
    assert handle.result(PATIENCE) == "well"


def test_a_failure_is_tried_again_as_often_as_it_may(app, define):
    attempts = []

    @define("fail", retries=2, backoff=Backoff(base=0.01))
    def fail(data, *, time):
        attempts.append(current_task().attempt)
        raise ValueError

    with pytest.raises(TaskFailed):
        execute_task(app, "fail").result(PATIENCE)
    with pytest.raises(TaskFailed):
        execute_task(app, "fail", retries=0).result(PATIENCE)
    assert attempts == [1, 2, 3, 1]


def test_a_task_may_say_when_to_try_again(app, define):
    @define("later", retries=1, backoff=1000.0)
    def later(data, *, time):
        if current_task().attempt == 1:
            raise RetryLater(0.01)
        return "done"

    assert execute_task(app, "later").result(PATIENCE) == "done"


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_whatever_a_task_raises_its_worker_goes_on(app, define, error):
    @define("exit")
    def leave(data, *, time):
        raise error

    define("double")(double)
    with pytest.raises(TaskFailed, match=type(error).__name__):
        execute_task(app, "exit").result(PATIENCE)
    assert execute_task(app, "double", 4).result(PATIENCE) == 8
    assert app.scheduler.monitor().lost_workers == 0


def test_a_result_that_can_not_be_stored_fails_that_task_alone(tmp_path, registry, define):
    source = SQLiteQueue(tmp_path / "tasks.sqlite")
    define("bad")(lambda data, *, time: object())
    define("double")(double)
    app = Application(source, 1, registry=registry)
    good = [execute_task(app, "double", 1), execute_task(app, "bad"), execute_task(app, "double", 2)]
    app.start()
    assert good[0].result(PATIENCE) == 2
    with pytest.raises(TaskFailed, match="its result can't be stored"):
        good[1].result(PATIENCE)
    assert good[2].result(PATIENCE) == 4
    app.stop()
    source.close()


# ------------------------------------------------------------------------------------------------ the call


def test_bad_input_fails_at_the_call(app, define, tmp_path):
    define("double")(double)
    with pytest.raises(UnknownTask, match="no task is registered as 'triple'"):
        execute_task(app, "triple")
    with pytest.raises(UnknownTask):
        enqueue_task(app, Task("triple"))
    with pytest.raises(ValueError, match="has no time zone"):
        execute_task_at(app, datetime.datetime(2030, 1, 1), "double")
    with pytest.raises(TypeError, match="a time is an aware datetime or Unix seconds"):
        schedule_task(app, "tomorrow", Task("double"))
    with pytest.raises(TypeError, match="takes tasks"):
        enqueue_task(app, "double")
    if isinstance(app.data_source, SQLiteQueue):
        with pytest.raises(UnserializableData):
            execute_task(app, "double", object())
    assert not app.data_source.list_tasks()


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"number_of_workers": 0}, ValueError, "at least 1"),
        ({"number_of_workers": 1.5}, TypeError, "a whole number"),
        ({"data_source": "tasks.sqlite"}, TypeError, "derived from DataSource, not 'tasks.sqlite'"),
        ({"task_runner": None}, TypeError, "task_runner is a function"),
    ],
)
def test_an_application_with_bad_arguments_is_refused(arguments, error, text):
    with pytest.raises(error, match=text):
        start_application(**({"data_source": MemoryQueue()} | arguments))


def test_a_stopped_application_takes_nothing_and_starts_no_more(source, registry, define):
    define("double")(double)
    app = start_application(data_source=source, registry=registry)
    app.start()
    stop_application(app)
    stop_application(app)
    with pytest.raises(ApplicationStopped, match="is stopped: it takes no tasks"):
        execute_task(app, "double")
    with pytest.raises(ApplicationStopped, match="make a new one"):
        app.start()


def test_stopping_lets_what_runs_end_and_keeps_the_rest(source, registry, define):
    begun, go = threading.Event(), threading.Event()

    @define("hold")
    def hold(data, *, time):
        begun.set()
        assert go.wait(PATIENCE)
        return data

    define("double")(double)
    app = start_application(number_of_workers=1, data_source=source, registry=registry)
    held = execute_task(app, "hold", "held")
    assert begun.wait(PATIENCE)
    left = [execute_task(app, "double", number) for number in range(5)]
    stopping = threading.Thread(target=stop_application, args=(app,))
    stopping.start()
    until(lambda: not app.is_running(), "the stopping")
    go.set()
    stopping.join(PATIENCE)
    assert held.record().state == "done"
    assert {handle.state for handle in left} == {"queued"}
    with start_application(data_source=source, registry=registry):
        assert [handle.result(PATIENCE) for handle in left] == [0, 2, 4, 6, 8]


def test_in_a_transaction_it_is_put_in_if_that_commits(app, define):
    ran = []
    define("note")(lambda data, *, time: ran.append(data))
    x, again = TVar(0), Once()

    @atomically
    def body(fail):
        x.value += 1
        handle = execute_task(app, "note", x.value)
        if again:
            other = threading.Thread(target=x.set, args=(10,))
            other.start()
            other.join()
        if fail:
            raise LookupError
        return handle

    body(False).result(PATIENCE)
    with pytest.raises(LookupError):
        body(True)
    assert ran == [11]
    assert len(app.data_source.list_tasks()) == 1


# ------------------------------------------------------------------------------------------------ asking, cancelling


def test_a_waiting_task_is_cancelled_at_once_and_a_running_one_is_asked(app, define):
    begun = threading.Event()

    @define("run")
    def run(data, *, time):
        begun.set()
        current = current_task()
        until(lambda: current.cancelled, "the flag")
        current.raise_if_cancelled()

    handle = execute_task(app, "run")
    later = execute_task_at(app, time.time() + 3600, "run")
    assert begun.wait(PATIENCE)
    assert later.cancel()
    assert later.state == "cancelled"
    assert handle.cancel()
    with pytest.raises(TaskCancelled):
        handle.result(PATIENCE)
    assert handle.state == "cancelled"
    assert not handle.cancel()


def test_a_lease_is_renewed_as_long_as_the_task_runs(tmp_path, registry, define):
    """Also of one that comes when nobody has had anything to do for long."""
    source = SQLiteQueue(tmp_path / "tasks.sqlite", lease=0.3)
    others = SQLiteQueue(tmp_path / "tasks.sqlite", lease=0.3)
    go, expiries = threading.Event(), set()

    @define("hold")
    def hold(data, *, time):
        assert go.wait(PATIENCE)

    def expiry():
        with source._file.reading() as connection:
            return connection.execute("SELECT expires FROM tasks").fetchone()[0]

    with start_application(data_source=source, registry=registry) as app:
        handle = execute_task(app, "hold")
        until(lambda: handle.state == "running", "the run")
        until(lambda: expiries.add(expiry()) or len(expiries) == 4, "three renewals")
        others.tend()
        assert others.dequeue_task() is None
        go.set()
        handle.result(PATIENCE)
        assert handle.record().crashes == 0
    source.close()
    others.close()


def test_progress_can_be_asked_for(app, define):
    said, go = threading.Event(), threading.Event()

    @define("count")
    def count(data, *, time):
        current_task().set_progress({"pages": 3})
        said.set()
        assert go.wait(PATIENCE)

    handle = execute_task(app, "count")
    assert said.wait(PATIENCE)
    assert handle.progress == {"pages": 3}
    with pytest.raises(TimeoutError, match="it is running"):
        handle.result(0.01)
    go.set()
    handle.result(PATIENCE)


def test_a_paused_queue_hands_out_nothing(app, define):
    define("double")(double)
    app.data_source.pause_queue("slow")
    paused = execute_task(app, "double", 1, queue="slow")
    assert execute_task(app, "double", 2).result(PATIENCE) == 4
    assert paused.state == "queued"
    app.data_source.resume_queue("slow")
    assert paused.result(PATIENCE) == 2


def test_a_chain_and_a_batch_run_in_order(app, define):
    ran = []

    @define("note")
    def note(data, *, time):
        ran.append(data)
        return data

    @define("sum")
    def add(data, *, time):
        current = current_task()
        return sum(current.result_of(id) for id in current.task.after)

    first = enqueue_tasks(app, chain(Task("note", 1), Task("note", 2), Task("note", 3)))
    assert first[-1].result(PATIENCE) == 3
    assert ran == [1, 2, 3]
    assert enqueue_tasks(app, gather([Task("note", n) for n in (4, 5, 6)], Task("sum")))[-1].result(PATIENCE) == 15


def test_a_limit_is_kept(app, define):
    lock, running, most = threading.Lock(), [], []

    @define("one", limit=1)
    def one(data, *, time):
        with lock:
            running.append(data)
            most.append(len(running))
        with lock:
            running.remove(data)

    for handle in [execute_task(app, "one", number) for number in range(50)]:
        handle.result(PATIENCE)
    assert max(most) == 1


def test_a_unique_task_is_put_in_once(source, registry, define):
    define("double", unique=True)(double)
    app = Application(source, registry=registry)
    first, second = execute_task(app, "double", 1), execute_task(app, "double", 2)
    assert first == second
    assert drain(app) == 1
    assert execute_task(app, "double", 3) != first


# ------------------------------------------------------------------------------------------------ periodic


def test_a_periodic_task_comes_again_and_again_once_each(source, registry, define):
    times, lock = [], threading.Lock()

    @define("tick", every=0.05, data="tick")
    def tick(data, *, time):
        with lock:
            times.append(time)

    apps = [start_application(data_source=source, registry=registry) for _ in range(2)]
    until(lambda: len(times) >= 4, "four ticks")
    for app in apps:
        stop_application(app)
    assert len(set(times)) == len(times)
    gaps = [round((later - sooner) / 0.05) for sooner, later in zip(sorted(times), sorted(times)[1:], strict=False)]
    assert set(gaps) <= {1, 2, 3}


def test_a_periodic_task_with_a_key_of_its_own_comes_each_time(source, registry, define):
    """When the next firing is planned, the key is the last one's still."""
    times = []
    define("tick", every=0.05, unique=True)(lambda data, *, time: times.append(time))
    app = Application(source, registry=registry)
    periodic = Periodic(app)
    until(lambda: periodic.plan() and drain(app) + 1 and len(times) >= 4, "four ticks")
    gaps = [round((later - sooner) / 0.05) for sooner, later in itertools.pairwise(times)]
    assert 1 in gaps, gaps


# ------------------------------------------------------------------------------------------------ testing help


def test_eager_tasks_run_by_the_call(source, registry, define):
    define("double")(double)
    app = Application(source, registry=registry)
    with eager(app):
        assert execute_task(app, "double", 3).result(0) == 6
    assert execute_task(app, "double", 3).state == "queued"


def test_drain_ends_what_never_ends(source, registry, define):
    app = Application(source, registry=registry)
    define("again")(lambda data, *, time: execute_task(app, "again") and None)
    execute_task(app, "again")
    with pytest.raises(RuntimeError, match="20 tasks have run"):
        drain(app, most=20)


def test_dequeue_task_takes_one(source, registry, define):
    define("double")(double)
    app = Application(source, registry=registry)
    assert dequeue_task(app) is None
    handle = execute_task(app, "double", 1)
    taken = dequeue_task(app)
    assert taken.id == handle.id
    assert taken.claim.worker == app.identity
    assert dequeue_task(app) is None


# ------------------------------------------------------------------------------------------------ the one inside


def test_the_global_application(source):
    task("test.double")(double)
    try:
        with pytest.raises(ApplicationStopped, match="call global_background_worker.start_application"):
            global_background_worker.execute_task("test.double", 1)
        app = global_background_worker.start_application(number_of_workers=1, data_source=source)
        assert global_background_worker.application() is app
        with pytest.raises(RuntimeError, match="runs already"):
            global_background_worker.start_application(data_source=source)
        assert global_background_worker.execute_task("test.double", 2).result(PATIENCE) == 4
        assert global_background_worker.execute_task_at(time.time(), "test.double", 3).result(PATIENCE) == 6
        global_background_worker.stop_application()
        global_background_worker.stop_application()
    finally:
        from hive_task.background import tasks

        tasks.forget("test.double")


def test_the_log_tells_of_what_failed_for_good(app, define, caplog):
    caplog.set_level(logging.INFO)
    define("fail")(lambda data, *, time: 1 / 0)
    with pytest.raises(TaskFailed):
        execute_task(app, "fail").result(PATIENCE)
    assert "ZeroDivisionError" in caplog.text


def test_a_program_that_ends_stops_its_application(tmp_path):
    program = f"""
import sys
from hive_task.background import SQLiteQueue, execute_task, start_application, task

@task("double")
def double(data, *, time):
    return 2 * data

app = start_application(number_of_workers=2, data_source=SQLiteQueue({str(tmp_path / "tasks.sqlite")!r}))
print(execute_task(app, "double", 21).result(30))
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert (ran.stdout, ran.stderr) == ("42\n", "")


def test_a_task_that_is_not_registered_here_is_left_for_others(source, registry, monkeypatch):
    app = Application(source, registry=registry)
    source.enqueue_task(Task("triple", id="later"))
    assert drain(app) == 1
    record = source.find_task("later")
    assert (record.state, record.failure.kind) == ("scheduled", "hive_task.errors.UnknownTask")
    monkeypatch.setattr("hive_task.background.running.UNKNOWN_AGAIN", 0.0)
    source.enqueue_task(Task("triple", id="never"))
    assert drain(app) == 10
    assert source.find_task("never").state == "dead"
