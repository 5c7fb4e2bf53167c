"""`stm.guard`: what is reported, where, and what is not."""

import _thread
import asyncio
import importlib
import linecache
import os
import pathlib
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
import zipfile
from array import array
from collections import Counter, OrderedDict, defaultdict, deque
from contextlib import contextmanager
from functools import partial

import pyrsistent
import pytest

import stm
from stm import StmError, TVar, after, aio, atomically, guard, on_commit, on_rollback, run
from stm.guard import GuardError, GuardWarning
from tests.support import Background, Once, elsewhere, together


@contextmanager
def reports(action="warn"):
    """The warnings that are given while the guard is on."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        with guard.enable(action):
            yield found


def line_of(fn, offset=0):
    return (__file__, fn.__code__.co_firstlineno + offset)


def places(found):
    return [(one.filename, one.lineno) for one in found]


@pytest.fixture(autouse=True)
def _ends_switched_off():
    plain = [TVar.__dict__[name] for name in ("__init__", "set", "compare_and_set", "value", "get", "update", "swap")]
    yield
    assert guard._guard.action is None
    now = [TVar.__dict__[name] for name in ("__init__", "set", "compare_and_set", "value", "get", "update", "swap")]
    assert [one is other for one, other in zip(plain, now, strict=True)] == [True] * len(plain)


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "file"
    file.write_text("text")
    return file


# ---------------------------------------------------------------------------------------------- I/O in a body


def connect(_):
    with socket.socket() as one:
        one.connect_ex(("127.0.0.1", 9))


DEEDS = {
    "open": ("opens a file, open('", lambda path: open(path).close()),
    "os.open": ("opens a file", lambda path: os.close(os.open(path, os.O_RDONLY))),
    "pathlib": ("opens a file", lambda path: path.read_text()),
    "write": ("opens a file", lambda path: path.write_text("new")),
    "tempfile": ("changes the file system", lambda path: os.close(tempfile.mkstemp(dir=path.parent)[0])),
    "remove": ("changes the file system, os.remove('", lambda path: os.remove(path)),
    "unlink": ("changes the file system", lambda path: path.unlink()),
    "rename": ("changes the file system", lambda path: os.rename(path, f"{path}2")),
    "replace": ("changes the file system", lambda path: path.replace(f"{path}2")),
    "mkdir": ("changes the file system", lambda path: os.mkdir(f"{path}2")),
    "makedirs": ("changes the file system", lambda path: os.makedirs(f"{path}2/a/b")),
    "chmod": ("changes the file system", lambda path: path.chmod(0o600)),
    "utime": ("changes the file system", lambda path: os.utime(path)),
    "symlink": ("changes the file system", lambda path: os.symlink(path, f"{path}2")),
    "truncate": ("changes the file system", lambda path: os.truncate(path, 0)),
    "copy": ("changes the file system, shutil.copyfile('", lambda path: shutil.copyfile(str(path), f"{path}2")),
    "rmtree": ("changes the file system", lambda path: shutil.rmtree(path.parent)),
    "listdir": ("reads a directory", lambda path: os.listdir(path.parent)),
    "walk": ("reads a directory", lambda path: list(os.walk(path.parent))),
    "glob": ("reads a directory", lambda path: list(path.parent.glob("*"))),
    "socket": ("uses a socket, socket.__new__(2)", lambda path: socket.socket().close()),
    "lookup": ("looks up an address", lambda path: socket.getaddrinfo("127.0.0.1", 80)),
    "run": ("starts a process, subprocess.Popen('true')", lambda path: subprocess.run(["true"], check=True)),
    "pipes": ("starts a process, subprocess.Popen(", lambda path: subprocess.run(["true"], capture_output=True)),
    "system": ("starts a process, os.system(b'true')", lambda path: os.system("true")),
    "popen": ("starts a process", lambda path: os.popen("true").close()),
    "kill": ("signals a process", lambda path: os.kill(os.getpid(), 0)),
    "sqlite": ("opens a database", lambda path: sqlite3.connect(":memory:").close()),
}


@pytest.mark.parametrize("kind", DEEDS)
def test_what_touches_the_world_is_reported_at_the_users_line(kind, path):
    what, deed = DEEDS[kind]
    body = atomically(lambda: deed(path))
    with reports() as found:
        body()
    assert found
    assert {*places(found)} == {line_of(deed)}
    assert {one.category for one in found} == {GuardWarning}
    assert str(found[0].message).startswith(f"transaction body {what}")
    assert "stm.on_commit(...), or irrevocable=True, or do it outside" in str(found[0].message)


@pytest.mark.parametrize("kind", DEEDS)
def test_in_raise_mode_it_does_not_happen_and_the_transaction_is_undone(kind, path):
    what, deed = DEEDS[kind]
    x = TVar(0)

    @atomically
    def body():
        x.set(1)
        deed(path)

    with guard.enable("raise"), pytest.raises(GuardError, match=re.escape(f"transaction body {what}")) as caught:
        body()
    assert isinstance(caught.value, StmError)
    assert x.value == 0
    assert path.read_text() == "text"
    assert os.listdir(path.parent) == ["file"]
    assert deed.__code__ in [frame.f_code for frame, _ in traceback.walk_tb(caught.value.__traceback__)]


def test_a_connection_names_the_address():
    with reports() as found:
        run(connect, None)
    assert places(found) == [line_of(connect, 1), line_of(connect, 2)]
    assert "socket.connect(('127.0.0.1', 9))" in str(found[1].message)


def test_a_process_with_pipes_is_one_report(path):
    with reports() as found:
        run(DEEDS["pipes"][1], path)
    assert len(found) == 1


@pytest.mark.parametrize("options", [{"timeout": 9.0}, {"read_only": True}, {"name": "named"}])
def test_all_kinds_of_transactions_are_guarded(options, path):
    @atomically(**options)
    def body():
        path.read_text()

    with reports() as found:
        body()
    assert places(found) == [line_of(body.__wrapped__, 2)]


def test_nested_transactions_and_functions_that_they_call_are_guarded(path):
    def helper():
        path.read_text()

    inner = atomically(helper)
    outer = atomically(lambda: stm.or_else(stm.retry, inner))
    with reports() as found:
        outer()
    assert places(found) == [line_of(helper, 1)]


def test_a_body_of_the_standard_librarys_is_reported_where_the_user_calls_it(path):
    def direct():
        return run(path.read_text)

    def builtin():
        run(open, path).close()

    with reports() as found:
        direct()
        builtin()
    assert places(found) == [line_of(direct, 1), line_of(builtin, 1)]


def test_a_body_of_the_standard_librarys_that_nobody_calls_is_named_itself(path):
    with reports() as found:
        elsewhere(lambda: None)
        thread = threading.Thread(target=run, args=(path.read_text,))
        thread.start()
        thread.join()
    ((filename, _),) = places(found)
    assert "pathlib" in filename


def test_asynchronous_bodies_are_guarded_and_what_surrounds_them_is_not(path):
    def body():
        path.read_text()

    async def main():
        path.read_text()
        await aio.run(body)
        await asyncio.create_task(aio.atomically(body)())
        path.read_text()

    with reports() as found:
        asyncio.run(main())
    assert places(found) == [line_of(body, 1)] * 2


# ---------------------------------------------------------------------------------------------- what is allowed


def test_irrevocable_transactions_may_do_io(path):
    inner = atomically(irrevocable=True)(path.read_text)

    @atomically
    def outer():
        return inner()

    with guard.enable("raise"):
        assert inner() == "text"
        assert run(path.read_text, irrevocable=True) == "text"
        assert outer() == "text"


def test_hooks_may_do_io(path):
    x, first = TVar(0), Once()

    @atomically
    def body():
        on_commit(path.write_text, "committed")
        on_rollback(os.listdir, path.parent)
        x.value += 1
        if first:
            elsewhere(x.set, 1)

    with guard.enable("raise"):
        body()
    assert path.read_text() == "committed"


def test_outside_transactions_and_in_other_threads_nothing_is_said(path):
    @atomically
    def body():
        assert elsewhere(path.read_text) == "text"

    with guard.enable("raise"):
        path.read_text()
        body()
        path.read_text()


def test_while_off_nothing_is_said(path):
    body = atomically(lambda: (TVar([]), path.read_text()))
    with guard.enable():
        pass
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        body()


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """Makes a module that was never imported, and returns its name."""
    names = []

    def make(archived=False):
        name = f"guarded_{len(names)}_{tmp_path.name}"
        names.append(name)
        text = "value = 1\n"
        if archived:
            with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
                archive.writestr(f"{name}.py", text)
            monkeypatch.syspath_prepend(tmp_path / f"{name}.zip")
        else:
            (tmp_path / f"{name}.py").write_text(text)
            monkeypatch.syspath_prepend(tmp_path)
        return name

    yield make
    for name in names:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize("load", [__import__, importlib.import_module])
def test_an_import_within_a_body_is_no_io(fresh, archived, load):
    name = fresh(archived)
    with guard.enable("raise"):
        assert run(load, name).value == 1


def test_warnings_and_tracebacks_may_read_source_lines():
    @atomically
    def body():
        linecache.clearcache()
        warnings.warn("from a body", UserWarning, stacklevel=1)
        return "".join(traceback.format_stack(limit=2))

    with reports() as found:
        assert "format_stack" in body()
    assert [str(one.message) for one in found] == ["from a body"]


# ---------------------------------------------------------------------------------------------- values


class Names(list):
    pass


MUTABLE = [
    ([1], "a list can", "a tuple, or pyrsistent.pvector"),
    ({1: 2}, "a dict can", "pyrsistent.pmap"),
    ({1}, "a set can", "a frozenset"),
    (bytearray(b"1"), "a bytearray can", "bytes"),
    (deque([1]), "a deque can", "a tuple, or pyrsistent.pdeque"),
    (array("i", [1]), "a array can", "a tuple, or an stm.compiled.TArray"),
    (Names(), "a Names can", "a tuple"),
    (OrderedDict(), "a OrderedDict can", "pyrsistent.pmap"),
    (defaultdict(int), "a defaultdict can", "pyrsistent.pmap"),
    (Counter(), "a Counter can", "pyrsistent.pmap"),
]

WAYS = {
    "constructor": lambda x, value: TVar(value),
    "named": lambda x, value: TVar(value, name="named"),
    "generic": lambda x, value: TVar[list](value),
    "set": lambda x, value: x.set(value),
    "value": lambda x, value: setattr(x, "value", value),
    "update": lambda x, value: x.update(lambda old: value),
    "swap": lambda x, value: x.swap(value),
    "compare_and_set": lambda x, value: x.compare_and_set(None, value),
}


@pytest.mark.parametrize("value", MUTABLE, ids=lambda value: type(value[0]).__name__)
def test_mutable_values_are_reported_with_what_to_use_instead(value):
    value, what, instead = value
    with reports() as found:
        TVar(value)
    assert what in str(found[0].message)
    assert f"use an immutable value instead: {instead}" in str(found[0].message)
    assert len(found) == 1


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_whichever_way_they_come_in_it_is_reported_once_at_the_users_line(way, inside):
    put, x = WAYS[way], TVar(None)
    with reports() as found:
        if inside:
            run(put, x, [1])
        else:
            put(x, [1])
    assert places(found) == [line_of(put)]
    assert str(found[0].message).startswith("TVar([1]): a list can be changed in place")


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_in_raise_mode_they_do_not_come_in(way, inside):
    put, x = WAYS[way], TVar(None)
    with guard.enable("raise"), pytest.raises(GuardError, match="a list can be changed"):
        if inside:
            run(put, x, [1])
        else:
            put(x, [1])
    assert x.value is None


@pytest.mark.parametrize(
    "value",
    [None, 1, "text", (1, [2]), frozenset({1}), b"1", pyrsistent.pmap({1: 2}), pyrsistent.v(1), pyrsistent.s(1), print],
    ids=repr,
)
def test_other_values_pass_whichever_way(value):
    x = TVar(value)
    with guard.enable("raise"):
        for put in WAYS.values():
            put(x, value)
            run(put, x, value)
        assert x.get() is x.value is x.peek() is value
        assert after(0).value is True
        assert TVar(value, name="named")._name == "named"


def test_variables_work_as_ever_while_the_guard_is_on():
    x = TVar(1)
    with guard.enable("raise"):
        assert x.update(lambda value, more: value + more, 2) == 3
        assert x.swap(4) == 3
        assert x.compare_and_set(4, 5)
        assert not x.compare_and_set(4, 6)
        x.value += 1
        assert x.value == 6
        assert TVar.value.__doc__ == "The value, read as by `get()` and assigned as by `set()`."
        with pytest.raises(TypeError):
            TVar()
        with pytest.raises(stm.ReadOnlyViolation):
            run(x.set, 1, read_only=True)


def test_a_write_without_any_line_of_python_is_let_through():
    x, value = TVar(None), []
    with reports():
        _thread.start_new_thread(x.set, (value,))
        while x.value is not value:
            pass


def test_a_value_whose_repr_does_io_is_reported_once(path):
    class Odd(list):
        def __repr__(self):
            return path.read_text()

    with reports() as found:
        run(TVar, Odd())
    assert len(found) == 1


# ---------------------------------------------------------------------------------------------- warnings


def test_warnings_are_shown_once_for_each_line_as_usual(path):
    def first(number):
        TVar([])

    def second(number):
        TVar([])

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("default")
        with guard.enable():
            for number in range(3):
                first(number)
                second(number)
    assert places(found) == [line_of(first, 1), line_of(second, 1)]


def test_filters_may_silence_it_or_make_it_an_error(path):
    x = TVar(0)
    body = atomically(lambda: (x.set(1), path.read_text()))
    with guard.enable(), warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(GuardWarning):
            body()
        assert x.value == 0
        warnings.filterwarnings("ignore", category=GuardWarning, module=re.escape(__name__))
        body()
        assert x.value == 1


def script(path, *lines):
    """Run a program of its own; what it writes to standard error."""
    program = path.with_suffix(".py")
    program.write_text("\n".join(lines))
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(stm.__file__).parents[1]), "PYTHONWARNINGS": "always"}
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, check=True, env=environment)
    return done.stderr


def test_showing_a_warning_does_not_call_for_another(path):
    shown = script(
        path,
        "import os",
        "from stm import guard, run",
        "with guard.enable():",
        "    run(lambda: open(os.devnull).close())  # here",
    )
    assert shown.count("GuardWarning") == 1
    assert f"{path}.py:4: GuardWarning: transaction body opens a file, open('/dev/null')" in shown
    assert shown.rstrip().endswith("run(lambda: open(os.devnull).close())  # here")


# ---------------------------------------------------------------------------------------------- on and off


def test_the_guard_may_be_a_plain_call():
    guard.enable("raise")
    try:
        with pytest.raises(GuardError):
            TVar([])
    finally:
        guard.disable()
    TVar([])


def test_the_last_action_holds():
    with guard.enable("raise"):
        with reports("warn") as found:
            TVar([])
        assert len(found) == 1
        with pytest.raises(GuardError):
            TVar([])
    TVar([])


def test_each_block_takes_back_its_own_action():
    raising, warning = guard.enable("raise"), guard.enable("warn")
    with raising:
        pass
    with warnings.catch_warnings(record=True) as found, warning:
        warnings.simplefilter("always")
        TVar([])
    assert len(found) == 1
    TVar([])


@pytest.mark.parametrize("action", ["error", None, "WARN", 1])
def test_other_actions_are_refused(action):
    with pytest.raises(ValueError, match="action must be"):
        guard.enable(action)


def test_disabling_what_was_not_enabled_is_an_error():
    with pytest.raises(RuntimeError, match="without guard.enable"):
        guard.disable()
    used = guard.enable()
    with used:
        pass
    with guard.enable(), pytest.raises(RuntimeError, match="without guard.enable"), used:
        pass


def test_toggling_while_threads_transact_loses_no_commit_and_raises_nothing():
    x, stop = TVar(0), []

    @atomically
    def add():
        x.value += 1
        os.stat(".")

    def toggle():
        while not stop:
            with guard.enable("raise"), guard.enable():
                pass

    toggling = [Background(toggle) for _ in range(2)]
    try:
        together(*[lambda: [(add(), x.update(lambda value: value + 1), TVar(0).set(1)) for _ in range(300)]] * 3)
    finally:
        stop.append(1)
        for one in toggling:
            one.result()
    assert x.value == 3 * 600


def test_it_may_stay_on_until_the_interpreter_exits(path):
    shown = script(
        path,
        "import atexit, os",
        "from stm import guard, run",
        "guard.enable('raise')",
        "class Late:",
        "    def __del__(self, open=os.open, close=os.close, null=os.devnull): close(open(null, 0))",
        "late = Late()",
        "late.itself = late",
        "atexit.register(lambda: open(os.devnull).close())",
        "run(int)",
    )
    assert shown == ""


def test_partial_bodies_are_named_where_they_are_called(path):
    def caller():
        run(partial(path.read_text))

    with reports() as found:
        caller()
    assert places(found) == [line_of(caller, 1)]
