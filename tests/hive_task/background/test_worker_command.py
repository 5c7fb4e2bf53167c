"""Promises of `worker_command.py` and `foreground.py`: a worker in the foreground, and how it ends."""

import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap

import pytest

from hive_task import cli, watching
from hive_task.background import SQLiteQueue
from hive_task.worker_command import set_up_logging
from tests.support import PATIENCE, Background, until

HOME = os.path.dirname(os.path.dirname(cli.__file__))

#: What all modules here begin with. A task "hold" runs until there is a file "go"; "begun" says that it does.
BEGINNING = """
import os, pathlib, signal, sys, threading, time, warnings
from hive_task.background import *

def touch(name):
    pathlib.Path(name).touch()

@task("hold")
def hold(data, *, time):
    touch("begun")
    while not os.path.exists("go"):
        threading.Event().wait(0.001)
    return data

@task("quick")
def quick(data, *, time):
    touch("quick")

class Told(MemoryQueue):
    def close(self):
        for record in self.list_tasks():
            print("record", record.task.name, record.state, record.result, flush=True)
        super().close()
"""

SOURCES = {"memory": "Told()", "sqlite": "SQLiteQueue('queue.db')"}


class Running:
    """A worker in a process of its own, in a directory of its own, and the lines that it has printed."""

    def __init__(self, directory, module, *options, target="shop:app", read=True):
        (directory / "shop.py").write_text(BEGINNING + textwrap.dedent(module))
        begun = [sys.executable, "-W", "error", "-m", "hive_task.cli", "worker", target, *options]
        environment = os.environ | {"PYTHONPATH": HOME, "PYTHONUNBUFFERED": "1"}
        self.directory = directory
        self.lines = []
        self.errors = directory / "errors"
        with open(self.errors, "wb") as errors:
            self.process = subprocess.Popen(
                begun, cwd=directory, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        self.reading = Background(self._read) if read else None

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        if self.reading is not None:
            self.reading.result()
        self.process.stdout.close()

    def touch(self, name):
        (self.directory / name).touch()

    def await_file(self, name):
        until(lambda: (self.directory / name).exists() or self.process.poll() is not None, name)
        assert (self.directory / name).exists(), self.errors.read_text()

    def await_line(self, part):
        until(lambda: part in self.said() or self.process.poll() is not None, part)
        assert part in self.said(), self.errors.read_text()

    def said(self):
        return "".join(self.lines)

    def signal(self, number):
        self.process.send_signal(number)

    def end(self):
        """The exit code."""
        code = self.process.wait(PATIENCE)
        if self.reading is not None:
            self.reading.result()
        return code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("source", ["memory", "sqlite"])
def test_the_first_signal_lets_what_runs_end_and_gives_back_the_rest(tmp_path, source, number):
    module = f"""
        app = Application({SOURCES[source]}, 1, name="a shop")
        execute_task(app, "hold", "held")
        execute_task(app, "quick")
    """
    with Running(tmp_path, module) as worker:
        worker.await_file("begun")
        assert re.match(
            r"hive-task worker: a shop: 1 worker, <(Memory|SQLite)Queue .*>, 2 registered tasks, pid \d+\n",
            worker.said(),
        )
        worker.signal(number)
        worker.await_line("a second signal ends this at once")
        assert f"a shop: {number.name}: waiting for 1 running task;" in worker.said()
        assert worker.process.poll() is None, "it waits for what runs"
        worker.touch("go")
        assert worker.end() == 0
        assert worker.lines[2] == "hive-task worker: a shop: stopped\n"
        assert not (tmp_path / "quick").exists(), "nothing was begun any more"
        assert "Traceback" not in worker.errors.read_text()
        if source == "memory":
            assert sorted(worker.lines[-2:]) == ["record hold done held\n", "record quick queued None\n"]
    if source == "sqlite":
        assert records(tmp_path) == {"hold": ("done", "held"), "quick": ("queued", None)}


def records(directory):
    with contextlib.closing(SQLiteQueue(directory / "queue.db")) as queue:
        return {record.task.name: (record.state, record.result) for record in queue.list_tasks()}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("source", ["memory", "sqlite"])
def test_the_second_signal_ends_it_at_once(tmp_path, source, number, code):
    module = f"""
        app = Application({SOURCES[source]}, 1)
        execute_task(app, "hold")
    """
    with tempfile.TemporaryDirectory(prefix="h") as short:
        path = os.path.join(short, "monitor.sock")
        with Running(tmp_path, module, "--monitor", path) as worker:
            worker.await_file("begun")
            assert os.path.exists(path)
            worker.signal(signal.SIGTERM)
            worker.await_line("a second signal")
            worker.signal(number)
            assert worker.end() == code
            assert worker.lines[-1].endswith(f"{number.name} again: ended with 1 running task\n")
        assert not os.path.exists(path), "the socket is left behind"
    if source == "sqlite":
        assert records(tmp_path) == {"hold": ("running", None)}, "the next to tend the queue takes it over"


def test_the_second_signal_ends_it_although_nobody_reads_what_it_prints(tmp_path):
    module = """
        app = Application(MemoryQueue(), 1)
        def stuck():
            app.await_stop()
            touch("draining")
        threading.Thread(target=stuck, daemon=True).start()
        @task("chatter")
        def chatter(data, *, time):
            touch("begun")
            while True:
                print("x" * 100_000)
        execute_task(app, "chatter")
    """
    with Running(tmp_path, module, read=False) as worker:
        worker.await_file("begun")
        worker.signal(signal.SIGTERM)
        worker.await_file("draining")
        until(lambda: stopped_by_a_second_signal(worker), "the end")
        assert worker.process.returncode == 143


def stopped_by_a_second_signal(worker):
    """(When the first one has been noticed can't be seen from outside: there is nobody to read of it.)"""
    worker.signal(signal.SIGTERM)
    return worker.process.poll() is not None


def test_that_nobody_is_there_to_read_is_no_failure(tmp_path):
    module = """
        app = Application(MemoryQueue(), 1)
        execute_task(app, "hold")
    """
    with Running(tmp_path, module, read=False) as worker:
        worker.await_file("begun")
        worker.process.stdout.close()
        worker.touch("go")
        worker.signal(signal.SIGTERM)
        assert worker.end() == 0
        assert "BrokenPipe" not in worker.errors.read_text()


def test_what_was_running_at_a_second_signal_is_run_by_the_next_worker(tmp_path):
    module = """
        app = Application(SQLiteQueue("queue.db", lease=0.2), 1)
        execute_task(app, "hold", "held", unique="once", retries=0)
    """
    with Running(tmp_path, module) as worker:
        worker.await_file("begun")
        worker.signal(signal.SIGINT)
        worker.await_line("a second signal")
        worker.signal(signal.SIGINT)
        assert worker.end() == 130
    (tmp_path / "begun").unlink()
    with Running(tmp_path, module) as worker:
        worker.touch("go")
        worker.await_file("begun")
        until(lambda: records(tmp_path) == {"hold": ("done", "held")}, "the task taken over")
        worker.signal(signal.SIGTERM)
        assert worker.end() == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="copies are made by os.fork")
def test_a_signal_for_a_copy_of_the_process_is_not_for_the_worker(tmp_path):
    module = """
        warnings.simplefilter("ignore", DeprecationWarning)  # of fork in a program with threads
        app = Application(SQLiteQueue("queue.db"), 1)
        @task("copy")
        def copy(data, *, time):
            import time
            pid = os.fork()
            if not pid:
                time.sleep(5)
                os._exit(7)
            os.kill(pid, signal.SIGTERM)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        execute_task(app, "copy")
    """
    with Running(tmp_path, module) as worker:
        until(lambda: (tmp_path / "queue.db").exists() and "copy" in records(tmp_path), "the task")
        until(lambda: records(tmp_path)["copy"][0] not in ("queued", "running"), "its end")
        assert records(tmp_path) == {"copy": ("done", -signal.SIGTERM)}
        assert worker.process.poll() is None
        worker.signal(signal.SIGTERM)
        assert worker.end() == 0


def test_a_function_may_make_the_application_and_a_task_may_stop_it(tmp_path):
    module = """
        def make():
            app = Application(MemoryQueue(), 2, name="brief")
            @task("stop")
            def stop(data, *, time):
                stop_application(app, wait=False)
            execute_task(app, "stop")
            return app
    """
    with Running(tmp_path, module, target="shop:make") as worker:
        assert worker.end() == 0
        assert worker.lines[0].startswith("hive-task worker: brief: 2 workers, ")
        assert worker.lines[1:] == ["hive-task worker: brief: stopped\n"]


def test_signals_that_the_module_handles_itself_end_nothing(tmp_path):
    module = """
        app = Application(MemoryQueue(), 1)
        signal.signal(signal.SIGUSR1, lambda *_: touch("heard"))
        execute_task(app, "quick")
    """
    with Running(tmp_path, module) as worker:
        worker.await_file("quick")
        worker.signal(signal.SIGUSR1)
        worker.await_file("heard")
        worker.signal(signal.SIGTERM)
        worker.await_line("stopped")
        assert "SIGUSR1" not in worker.said()
        assert worker.end() == 0


def test_a_stop_that_fails_is_told_with_code_1(tmp_path):
    module = """
        class Failing(SQLiteQueue):
            def wake(self):
                super().wake()
                raise SourceError("the disk is full")
        app = Application(Failing("queue.db"), 1)
        execute_task(app, "hold", "held")
    """
    with Running(tmp_path, module) as worker:
        worker.await_file("begun")
        worker.signal(signal.SIGTERM)
        worker.await_line("waiting for 1 running task")
        worker.touch("go")
        assert worker.end() == 1
        assert "could not be stopped in order" in worker.errors.read_text()
        assert "SourceError: the disk is full" in worker.errors.read_text()
        assert "stopped\n" not in worker.said()


def test_a_source_that_can_not_be_closed_is_told_with_code_1(tmp_path):
    module = """
        class Failing(MemoryQueue):
            def close(self):
                raise SourceError("the disk is full")
        app = Application(Failing(), 1)
    """
    with Running(tmp_path, module) as worker:
        worker.await_line("1 worker")
        worker.signal(signal.SIGTERM)
        assert worker.end() == 1
        assert "could not be closed" in worker.errors.read_text()


def test_monitor_and_log_level(tmp_path):
    module = """
        app = Application(MemoryQueue(), 1, name="a shop")
        @task("bad")
        def bad(data, *, time):
            raise ValueError("not good")
        execute_task(app, "bad")
        execute_task(app, "hold")
    """
    with tempfile.TemporaryDirectory(prefix="h") as short:
        path = os.path.join(short, "monitor.sock")
        with Running(tmp_path, module, "--monitor", path, "--log-level", "ERROR") as worker:
            worker.await_file("begun")
            report = next(iter(watching.watch(path, 0.05)))
            assert report.picture.name == "a shop"
            worker.touch("go")
            worker.signal(signal.SIGTERM)
            assert worker.end() == 0
            assert worker.errors.read_text() == "", "a task that fails is a warning"
        assert not os.path.exists(path)


def test_logging_is_left_as_the_module_has_set_it_up(monkeypatch):
    root, own = logging.getLogger(), [logging.NullHandler()]
    monkeypatch.setattr(root, "level", logging.WARNING)
    monkeypatch.setattr(root, "handlers", own)
    set_up_logging(None)
    assert (root.handlers, root.level) == (own, logging.WARNING)
    set_up_logging("debug")
    assert (root.handlers, root.level) == (own, logging.DEBUG)
    monkeypatch.setattr(root, "handlers", [])
    set_up_logging(None)
    assert (len(root.handlers), root.level) == (1, logging.INFO)


# ---------------------------------------------------------------------------------------------- wrong use


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A current directory for modules, which are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def command(*arguments):
    """The exit code of a command that runs in this thread."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["worker", *arguments])
    return ended.value.code or 0


WRONG = {
    "shop": "'shop' is not MODULE:APP, such as shop.tasks:app",
    "shop:": "'shop:' is not MODULE:APP, such as shop.tasks:app",
    ":app": "':app' is not MODULE:APP, such as shop.tasks:app",
    "shop.py:app": "there is no module 'shop.py' here or where Python looks for modules",
    "nowhere.to.be:found": "there is no module 'nowhere' here or where Python looks for modules",
    "shop:nothing": "'shop' has no attribute 'nothing'",
    "shop:app.nothing": "'shop.app' has no attribute 'nothing'",
    "shop:number": "shop:number is an object of type 'int', not an Application or a function that returns one",
    "shop:nobody": "shop:nobody is None, not an Application or a function that returns one",
    "shop:asks": "shop:asks can't be called without arguments: missing a required argument: 'number'",
    "shop:Kind": "shop:Kind can't be called without arguments: missing a required argument: 'data_source'",
    "shop:gives": "shop:gives() returned an object of type 'int', not an Application",
    "shop:later": "shop:later() returned an object of type 'coroutine', not an Application",
    "shop:started": "shop:started was started already: it is running",
    "shop:stopped": "shop:stopped was started already: it is stopped",
}


@pytest.mark.parametrize("target", WRONG)
def test_a_wrong_target_is_told_in_one_line_with_code_2(here, capsys, target):
    (here / "shop.py").write_text(
        textwrap.dedent(
            """
            from hive_task.background import Application, MemoryQueue, Registry, start_application
            app = Application(MemoryQueue(), registry=Registry())
            number = 5
            nobody = None
            Kind = Application
            def asks(number): ...
            def gives(): return number
            async def later(): return app
            def started(): return start_application(data_source=MemoryQueue(), registry=Registry())
            stopped = Application(MemoryQueue(), registry=Registry())
            stopped.stop()
            """
        )
    )
    assert command(target) == 2
    assert capsys.readouterr() == ("", f"hive-task worker: {WRONG[target]}\n")


@pytest.mark.parametrize(
    ("module", "error"),
    [
        ("import nowhere_to_be_found", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("app = (", "SyntaxError: '(' was never closed"),
        ("def app(): raise KeyError('mine')", "KeyError: 'mine'"),
    ],
)
def test_an_exception_of_the_module_shows_its_own_traceback(here, capsys, module, error):
    (here / "broken.py").write_text(module)
    assert command("broken:app") == 1
    shown, told = capsys.readouterr()
    assert shown == ""
    assert error in told
    assert "broken.py" in told
    assert "worker_command.py" not in told
    assert "importlib" not in told


def test_the_current_directory_comes_first(here, capsys, monkeypatch):
    other = here / "other"
    other.mkdir()
    (other / "shop.py").write_text("1 / 0")
    (here / "shop.py").write_text("app = 5")
    monkeypatch.setattr(sys, "path", [str(other), *sys.path])
    assert command("shop:app") == 2
    assert "'int'" in capsys.readouterr().err


def test_a_monitor_that_can_not_be_is_told_with_code_2(here, capsys):
    (here / "shop.py").write_text("from hive_task.background import *\napp = Application(MemoryQueue())")
    assert command("shop:app", "--monitor", str(here / "nowhere" / "sock")) == 2
    shown, told = capsys.readouterr()
    assert (shown, told.count("\n")) == ("", 1)
    assert "no such directory" in told


def test_a_wrong_option_is_told_with_code_2(here, capsys):
    for arguments in ([], ["shop:app", "--log-level", "loud"], ["shop:app", "--reload"]):
        assert command(*arguments) == 2
        assert capsys.readouterr().err
