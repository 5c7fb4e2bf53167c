"""Promises of `monitor.py`, `private_socket.py` and `watching.py`: what a running program shows."""

import contextlib
import errno
import fcntl
import json
import logging
import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from itertools import count, islice

import pytest

from hive_task import monitor, private_socket, watching
from hive_task.monitor import serve
from hive_task.monitor_protocol import line, message
from hive_task.watching import MonitorError, Program, messages, picture_from, report_from, watch
from stm import TVar, atomically, stats
from stm.clock import clock
from tests.hive_task.pictures import busy, empty
from tests.support import PATIENCE, Background, elsewhere, together, until


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory(prefix="h") as short:  # pytest's own path may be too long for a socket
        yield short


@pytest.fixture
def path(folder):
    yield os.path.join(folder, "monitor.sock")
    assert os.listdir(folder) == [], "the test left files behind"


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


def numbered():
    numbers = count(1)
    return lambda: empty(next(numbers))


@contextlib.contextmanager
def caller(path):
    """A connection that can say anything, and what it hears."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(os.fspath(path))
        with connection.makefile("rwb") as lines:
            yield lines, connection


def ask(lines, request):
    lines.write((request if isinstance(request, bytes) else json.dumps(request).encode()) + b"\n")
    lines.flush()
    return json.loads(lines.readline())


# ---------------------------------------------------------------------------------------------- requests


def test_one_request_gets_one_picture(path):
    with serve(busy, path), caller(path) as (lines, connection):
        message = ask(lines, {"want": "picture"})
        assert picture_from(message["picture"]) == busy()
        assert (message["monitor"], message["protocol"]) == ("hive-task", 1)
        assert ask(lines, {"want": "picture"})["picture"]["name"] == "a shop"
        connection.shutdown(socket.SHUT_WR)
        assert lines.readline() == b""


def test_a_request_is_answered_though_nothing_more_is_said(path):
    with serve(busy, path), caller(path) as (lines, connection):
        lines.write(b'{"want": "picture"}\n')
        lines.flush()
        connection.shutdown(socket.SHUT_WR)
        assert json.loads(lines.readline())["picture"]["name"] == "a shop"
        assert lines.readline() == b""


def test_the_program_is_told(path):
    with serve(empty, path), caller(path) as (lines, _):
        assert ask(lines, {"want": "picture"})["program"] == {
            "pid": os.getpid(),
            "argv0": sys.argv[0],
            "implementation": "cpython",
            "python": sys.version.split()[0],
            "gil": getattr(sys, "_is_gil_enabled", lambda: True)(),
        }


def test_pictures_come_every_interval_until_the_next_request(path):
    with serve(numbered(), path), caller(path) as (lines, _):
        begun = time.monotonic()
        assert ask(lines, {"want": "picture", "interval": 0.02})["picture"]["taken"] == 1
        assert [json.loads(lines.readline())["picture"]["taken"] for _ in range(5)] == [2, 3, 4, 5, 6]
        assert time.monotonic() - begun >= 5 * 0.02 * 0.9
        last = ask(lines, {"want": "picture"})
        while last["picture"]["taken"] < 7:
            last = json.loads(lines.readline())
        time.sleep(0.1)  # not to wait for something: to give the server a chance to go on
        assert ask(lines, {"want": "nothing"}).keys() == {"error"}


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (b"picture, please", "a request is a line of JSON"),
        (b"\xff\xfe", "a request is a line of JSON"),
        (b"", "a request is a line of JSON"),
        ({"want": "a holiday"}, "unknown request"),
        (["want", "picture"], "unknown request"),
        ({"want": "picture", "interval": "often"}, "the interval must be a number"),
        ({"want": "picture", "interval": True}, "the interval must be a number"),
        ({"want": "picture", "interval": 0.0}, "the interval must be a number"),
        ({"want": "picture", "interval": -1}, "the interval must be a number"),
        (b'{"want": "picture", "interval": NaN}', "the interval must be a number"),
        ({"want": "picture", "interval": 1e300}, "the interval must be a number"),
    ],
)
def test_what_is_no_request_is_answered_with_an_error(path, request_, error):
    with serve(empty, path), caller(path) as (lines, _):
        assert ask(lines, request_)["error"].startswith(error)
        assert "picture" in ask(lines, {"want": "picture"})


def test_a_request_that_never_ends_is_refused(path):
    with serve(empty, path), caller(path) as (lines, _):
        assert "too long" in ask(lines, b"x" * 10000)["error"]
        with contextlib.suppress(ConnectionError):
            assert lines.readline() == b""


def test_a_picture_is_taken_once_for_all_who_want_it_at_the_moment(path):
    taken = []

    def source():
        taken.append(threading.current_thread())
        return empty(len(taken))

    with serve(source, path), caller(path) as (lines, _):
        lines.write(b'{"want": "picture"}\n' * 3)
        lines.flush()
        assert [json.loads(lines.readline())["picture"]["taken"] for _ in range(3)] == [1, 1, 1]


def test_what_the_source_raises_is_told_and_does_no_harm(path, caplog):
    pictures = iter([ZeroDivisionError("no scheduler"), ZeroDivisionError("again"), empty(3)])

    def source():
        one = next(pictures)
        if isinstance(one, Exception):
            raise one
        return one

    with caplog.at_level(logging.ERROR, "hive_task"), serve(source, path), caller(path) as (lines, _):
        assert "no scheduler" in ask(lines, {"want": "picture"})["error"]
        assert "again" in ask(lines, {"want": "picture"})["error"]
        assert ask(lines, {"want": "picture"})["picture"]["taken"] == 3
    assert len(caplog.records) == 1


def test_a_source_that_cannot_be_called_is_refused_at_once(path):
    with pytest.raises(TypeError, match="callable"):
        serve(empty(), path)


# ---------------------------------------------------------------------------------------------- who waits for whom


def test_a_slow_client_delays_nobody_and_only_misses_pictures(path):
    numbers = count(1)
    padding = "x" * 2_000_000
    with serve(lambda: empty(next(numbers), padding), path), caller(path) as (slow, _), caller(path) as (quick, _):
        slow.write(b'{"want": "picture", "interval": 0.01}\n' * 50)
        slow.flush()
        ask(quick, {"want": "picture", "interval": 0.01})
        for _ in range(20):
            reached = json.loads(quick.readline())["picture"]["taken"]
        kept = 0
        while json.loads(slow.readline())["picture"]["taken"] < reached:
            kept += 1
        assert kept <= 2


def test_who_vanishes_disturbs_nobody(path):
    padding = "x" * 2_000_000
    with serve(lambda: empty(1, padding), path) as server, caller(path) as (lines, _):
        ask(lines, {"want": "picture", "interval": 0.01})
        for _ in range(5):
            with caller(path) as (others, _):
                others.write(b'{"want": "picture", "interval": 0.01}\n')
                others.flush()
                others.read(10)
        for _ in range(5):
            assert json.loads(lines.readline())["picture"]["taken"] == 1
        until(lambda: len(server._clients) == 1, "the others' end")


def test_while_nobody_wants_anything_the_thread_sleeps(path, monkeypatch):
    with serve(empty, path) as server, caller(path) as (lines, _):
        list(islice(watch(path, 0.01), 3))
        ask(lines, {"want": "picture", "interval": 0.01})
        ask(lines, {"want": "picture"})
        until(lambda: len(server._clients) == 1, "the end of the other connection")
        turns = []
        turn = server._turn
        monkeypatch.setattr(server, "_turn", lambda: (turns.append(1), turn()))
        time.sleep(0.2)  # not to wait for something: to give polling a chance to show
        assert len(turns) <= 1


def test_no_file_descriptors_for_a_connection_is_no_reason_to_spin(path, monkeypatch):
    monkeypatch.setattr(monitor, "PAUSE", 0.05)
    tries = []
    accept = socket.socket.accept

    def failing(listener):
        tries.append(time.monotonic())
        if len(tries) <= 3:
            raise OSError(errno.EMFILE, "Too many open files")
        return accept(listener)

    monkeypatch.setattr(socket.socket, "accept", failing)
    with serve(empty, path), caller(path) as (lines, _):
        assert ask(lines, {"want": "picture"})["picture"]["taken"] == 0
    assert len(tries) == 4
    assert tries[3] - tries[0] >= 0.14


# ---------------------------------------------------------------------------------------------- statistics


def test_transactions_are_counted_while_somebody_is_connected(path):
    x = TVar(0, name="the bone")

    @atomically(name="chew")
    def chew():
        if x.value == 1:
            elsewhere(x.set, 2)
        x.value += 1

    with serve(empty, path):
        chew()
        assert clock.book is None
        with caller(path) as (lines, _):
            assert ask(lines, {"want": "picture"})["transactions"]["records"] == {}
            chew()
            counted = ask(lines, {"want": "picture"})["transactions"]
            assert counted["records"]["chew"]["commits"] == 1
            assert counted["records"]["chew"]["aborts"] == 1
            assert counted["records"]["chew"]["conflicts"] == {"the bone": 1}
            assert counted["omitted"] == 0
            assert counted["seconds"] > 0
        until(lambda: clock.book is None, "the end of counting")
        with caller(path) as (lines, _):
            assert ask(lines, {"want": "picture"})["transactions"]["records"] == {}


def test_closing_stops_counting_too(path):
    with serve(empty, path) as server, caller(path) as (lines, _):
        ask(lines, {"want": "picture"})
        assert clock.book is not None
        server.close()
        assert clock.book is None


def test_who_counts_already_goes_on(path):
    x = TVar(0)
    with stats.enabled():
        atomically(name="before")(lambda: x.set(1))()
        with serve(empty, path), caller(path) as (lines, _):
            assert "before" in ask(lines, {"want": "picture"})["transactions"]["records"]
        assert stats.snapshot()["before"].commits == 1


def test_without_statistics_nothing_is_counted(path):
    with serve(empty, path, statistics=False), caller(path) as (lines, _):
        assert ask(lines, {"want": "picture"})["transactions"] is None
        assert clock.book is None


def test_only_the_worst_transactions_are_told(path):
    x = TVar(0)
    with serve(empty, path), caller(path) as (lines, _):
        ask(lines, {"want": "picture"})
        for number in range(105):
            atomically(name=f"number {number}")(lambda: x.set(1))()
        counted = ask(lines, {"want": "picture"})["transactions"]
        assert (len(counted["records"]), counted["omitted"]) == (100, 5)


# ---------------------------------------------------------------------------------------------- who may, and where


def test_the_socket_is_its_owners_from_its_first_moment(path, monkeypatch):
    seen = []
    bind, link = socket.socket.bind, os.link

    def spied_bind(listener, where):
        seen.append(stat.S_IMODE(os.stat(os.path.dirname(where)).st_mode))
        bind(listener, where)

    def spied_link(fresh, where):
        seen.append(stat.S_IMODE(os.stat(fresh).st_mode))
        with socket.socket(socket.AF_UNIX) as early:
            early.connect(fresh)  # somebody listens already: nobody can take it for dead
        link(fresh, where)

    monkeypatch.setattr(socket.socket, "bind", spied_bind)
    monkeypatch.setattr(os, "link", spied_link)
    before = os.umask(0)
    try:
        with serve(empty, path):
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
            assert os.umask(0) == 0, "the umask belongs to all threads"
    finally:
        os.umask(before)
    assert seen == [0o700, 0o600]


def test_others_are_not_served_even_if_they_get_there(path, monkeypatch):
    monkeypatch.setattr(monitor, "_caller", lambda connection: os.geteuid() + 1)
    with serve(empty, path):
        with pytest.raises(MonitorError, match="not permitted"):
            next(watch(path))
        assert clock.book is None


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not tell")
def test_the_caller_is_known():
    one, other = socket.socketpair()
    with one, other:
        assert monitor._caller(one) == os.geteuid()


def test_the_file_of_a_dead_program_is_replaced(path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    with serve(empty, path):
        assert next(watch(path)).picture.name == "empty"


def test_where_somebody_listens_there_is_no_place(path):
    with serve(empty, path):
        with pytest.raises(OSError, match="listens there already") as caught:
            serve(busy, path)
        assert caught.value.errno == errno.EADDRINUSE
        assert next(watch(path)).picture.name == "empty"


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_what_is_no_socket_is_left_alone(path, kind, folder):
    if kind == "file":
        write(path, "a letter")
    elif kind == "directory":
        os.mkdir(path)
    else:
        os.symlink("nowhere", path)
    before = os.lstat(path)
    with pytest.raises(FileExistsError, match="no socket"):
        serve(empty, path)
    after = os.lstat(path)
    assert (before.st_ino, before.st_mode, before.st_size) == (after.st_ino, after.st_mode, after.st_size)
    assert os.listdir(folder) == ["monitor.sock"]
    os.rmdir(path) if kind == "directory" else os.unlink(path)


def test_of_two_that_replace_a_dead_one_neither_displaces_the_other(path, monkeypatch):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    rename = os.rename
    first = []

    def late_rename(source, target):
        if not first:
            monkeypatch.setattr(os, "rename", rename)
            first.append(serve(empty, path))
        rename(source, target)

    monkeypatch.setattr(os, "rename", late_rename)
    with pytest.raises(OSError, match="listens there already"):
        serve(busy, path)
    with first[0]:
        assert next(watch(path)).picture.name == "empty"


def test_a_file_system_without_links_will_do(path, monkeypatch, folder):
    def unable(*_):
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", unable)
    with serve(empty, path):
        assert next(watch(path)).picture.name == "empty"
        assert os.listdir(folder) == ["monitor.sock"]
        with pytest.raises(OSError, match="listens there already"):
            serve(busy, path)


def test_many_want_the_place_of_a_dead_one_and_one_gets_it(path):
    def attempt():
        try:
            return serve(empty, path)
        except OSError as error:
            return error.errno

    for _ in range(5):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(path)
        outcomes = together(*[attempt] * 6)
        servers = [one for one in outcomes if not isinstance(one, int)]
        try:
            assert (len(servers), outcomes.count(errno.EADDRINUSE)) == (1, 5)
            assert next(watch(path)).picture.name == "empty"
        finally:
            for server in servers:
                server.close()


def test_replacing_a_dead_one_waits_for_another_who_does_and_not_for_ever(path, folder, monkeypatch):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    lock = os.open(folder, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    waiting = Background(serve, empty, path)
    time.sleep(0.05)  # not to wait for something: to give it a chance to go on
    assert waiting.thread.is_alive()
    fcntl.flock(lock, fcntl.LOCK_UN)
    waiting.result().close()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    monkeypatch.setattr(private_socket, "PATIENCE", 0.02)
    fcntl.flock(lock, fcntl.LOCK_EX)
    serve(empty, path).close()
    os.close(lock)


def test_a_path_that_is_too_long_is_refused(folder):
    room = private_socket.LONGEST - len(os.fsencode(folder)) - 1
    with pytest.raises(OSError, match="has room for") as caught:
        serve(empty, os.path.join(folder, "x" * (room + 1)))
    assert caught.value.errno == errno.ENAMETOOLONG
    assert os.listdir(folder) == []


def test_a_path_in_no_directory_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such directory"):
        serve(empty, tmp_path / "no" / "where")


# ---------------------------------------------------------------------------------------------- the end


def test_closing_removes_the_file_and_hangs_up_and_can_be_done_twice(path):
    server = serve(empty, path)
    thread = server._thread
    with caller(path) as (lines, _):
        ask(lines, {"want": "picture", "interval": 60})
        together(server.close, server.close)
        assert lines.readline() == b""
    assert server.closed
    assert not thread.is_alive()
    assert not os.path.exists(path)
    server.close()


def test_a_file_that_has_taken_the_place_is_not_removed(path):
    with serve(empty, path):
        os.unlink(path)
        write(path, "a letter")
    os.unlink(path)


def test_the_place_is_found_again_after_a_change_of_directory(folder, monkeypatch):
    monkeypatch.chdir(folder)
    with serve(empty, "monitor.sock"):
        monkeypatch.chdir("/")
    assert os.listdir(folder) == []


def test_the_source_itself_may_close(path, caplog):
    servers = []

    def source():
        servers[0].close()
        return empty()

    servers.append(serve(source, path))
    with contextlib.suppress(MonitorError):
        list(watch(path, 0.01))
    servers[0].close()
    assert not os.path.exists(path)
    assert not caplog.records


PROGRAM = """
import sys
from hive_task.monitor import serve
from hive_task.picture import Picture, Totals
server = serve(lambda: Picture("a program", "running", 1.0, 1.0, Totals()), sys.argv[1])
print("serving", flush=True)
sys.stdin.read(1)
"""


def start_program(path):
    program = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROGRAM, os.path.abspath(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(monitor.__file__))},
    )
    assert program.stdout.readline() == b"serving\n"
    return program


def test_a_program_that_ends_without_closing_leaves_nothing(path):
    with start_program(path) as program:
        reports = watch(path, 0.01)
        first = next(reports)
        assert first.program.pid == program.pid
        assert first.program.argv0 == "-c"
        program.stdin.close()
        assert all(report.picture.name == "a program" for report in reports)
        assert program.wait(PATIENCE) == 0
    assert not os.path.exists(path)


def test_a_program_that_is_killed_leaves_a_file_that_can_be_replaced(path):
    with start_program(path) as program:
        reports = watch(path, 0.01)
        next(reports)
        program.kill()
        assert all(report.picture.name == "a program" for report in reports)
    with pytest.raises(ConnectionRefusedError, match="the program has ended"):
        next(watch(path))
    with serve(empty, path):
        assert next(watch(path)).picture.name == "empty"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_serves_nothing_and_keeps_no_connection_open(path):
    with serve(empty, path) as server, caller(path) as (lines, _), told() as (ear, mouth), told() as (end, ending):
        ask(lines, {"want": "picture"})
        with elsewhere_held(server._lock):
            child = os.fork()
        if not child:
            try:
                os.close(ending)
                server.close()
                os.write(mouth, b"yes" if server.closed and clock.book is None and os.path.exists(path) else b"no")
                os.read(end, 1)
            finally:
                os._exit(0)
        assert os.read(ear, 3) == b"yes"
        assert ask(lines, {"want": "picture"})["picture"]["name"] == "empty"
        server.close()
        assert lines.readline() == b"", "the child holds the connection open"
        with pytest.raises(FileNotFoundError):
            next(watch(path))
        os.write(ending, b"!")
        assert os.waitpid(child, 0)[1] == 0


@contextlib.contextmanager
def elsewhere_held(lock):
    """Another thread, which there will not be in a child, has the lock."""
    held, enough = threading.Event(), threading.Event()

    def hold():
        with lock:
            held.set()
            enough.wait(PATIENCE)

    holding = Background(hold)
    held.wait(PATIENCE)
    parent = os.getpid()
    yield
    if os.getpid() == parent:
        enough.set()
        holding.result()


@contextlib.contextmanager
def told():
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


# ---------------------------------------------------------------------------------------------- the other end


def test_watching_yields_reports_until_the_program_ends(path):
    server = serve(numbered(), path)
    reports = watch(path, 0.01)
    assert [next(reports).picture.taken for _ in range(3)] == [1, 2, 3]
    server.close()
    assert all(report.picture.taken > 3 for report in reports)


def test_without_an_interval_there_is_one_report(path):
    with serve(numbered(), path):
        assert [report.picture.taken for report in watch(path, None)] == [1]


def test_ending_the_watch_ends_the_connection(path):
    with serve(empty, path) as server:
        reports = watch(path, 60)
        next(reports)
        reports.close()
        until(lambda: not server._clients, "the end of the connection")


def test_pictures_survive_the_way():
    picture = busy(1.0)
    assert picture_from(json.loads(json.dumps(picture.as_dict()))) == picture


def test_what_a_later_version_tells_more_is_left_out():
    plain = {**busy().as_dict(), "news": 1}
    plain["totals"] = {**plain["totals"], "forgotten": 3}
    plain["workers"] = [{**one, "mood": "fine"} for one in plain["workers"]]
    report = report_from({"picture": plain, "program": {"pid": 7, "host": "here"}, "transactions": None})
    assert (report.picture, report.program, report.transactions) == (busy(), Program(pid=7), None)


def test_where_there_is_no_socket_that_is_said(path):
    with pytest.raises(FileNotFoundError, match="no such socket"):
        next(watch(path))


def test_where_one_may_not_that_is_said(path, monkeypatch):
    def refused(connection, where):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", refused)
    with pytest.raises(PermissionError, match="belongs to somebody else"):
        next(watch(path))


def test_a_file_is_no_monitor(path):
    write(path, "a letter")
    with pytest.raises(MonitorError, match="no monitor"):
        next(watch(path))
    os.unlink(path)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "no monitor of hive-task"),
        (b"42\n", "no monitor of hive-task"),
        (b'{"hello": 1}\n', "no monitor of hive-task"),
        (b"", "has hung up without an answer"),
        (b'{"monitor": "hive-task", "protocol": 99}\n', "speaks protocol 99"),
        (b'{"monitor": "hive-task", "protocol": 1, "picture": {}, "program": {}}\n', "not understood"),
        (b'{"error": "no picture"}\n', "no picture"),
    ],
)
def test_who_is_no_monitor_is_found_out(path, answer, error):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)

        def reply():
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(answer)

        replying = Background(reply)
        with pytest.raises(MonitorError, match=error):
            next(watch(path))
        replying.result()
    os.unlink(path)


def test_why_it_was_hung_up_is_heard_although_nothing_could_be_said(path, monkeypatch):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        sendall = socket.socket.sendall

        def late(connection, line):
            other, _ = listener.accept()
            with other:
                sendall(other, b'{"error": "not you"}\n')
            sendall(connection, line)

        monkeypatch.setattr(socket.socket, "sendall", late)
        with pytest.raises(MonitorError, match="not you"):
            next(watch(path))
    os.unlink(path)


def test_a_program_that_is_killed_with_something_unheard_has_just_ended(path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)

        def reply():
            connection, _ = listener.accept()
            with connection:
                connection.recv(1)  # and no more of the request, so that the end is a reset
                connection.sendall(line(message(empty(), None)))

        replying = Background(reply)
        assert [report.picture for report in watch(path)] == [empty()]
        replying.result()
    os.unlink(path)


def test_who_never_answers_is_given_up(path, monkeypatch):
    monkeypatch.setattr(watching, "PATIENCE", 0.05)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        with pytest.raises(MonitorError, match="does not answer"):
            next(watch(path))
    os.unlink(path)


@pytest.mark.parametrize("interval", [0.0, -1.0, float("nan"), float("inf")])
def test_an_interval_must_be_one(path, interval):
    with pytest.raises(ValueError, match="interval"):
        next(messages(path, interval))


def test_the_longest_path_that_the_system_allows_will_do(folder):
    room = private_socket.LONGEST - len(os.fsencode(folder)) - 1
    with serve(empty, os.path.join(folder, "x" * room)) as server:
        assert next(watch(server.path)).picture.name == "empty"
