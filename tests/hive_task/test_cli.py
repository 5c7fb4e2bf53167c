"""Promises of `cli.py`, `top.py` and `top_view.py`: what is shown of a running program, and how the command ends."""

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import tempfile
import termios
from dataclasses import replace

import pytest
from rich.console import Console

from hive_task import cli, top, top_view, watching
from hive_task.errors import HiveTaskError
from hive_task.monitor import serve
from hive_task.picture import Picture, Totals
from hive_task.top_format import duration, rate, shares
from hive_task.watching import Counted, Program, Report
from tests.hive_task.pictures import busy, empty
from tests.support import PATIENCE, Background, until

PROGRAM = Program(4711, "/srv/shop.py", "cpython", "3.14.0", gil=False)
COUNTED = {
    "order": Counted("order", commits=200, aborts=300, seconds=0.4, conflicts={"the stock": 280, "the till": 20}),
    "look": Counted("look", commits=1000, seconds=0.1),
}


def report(seconds=0.0, commits=0, **changes):
    transactions = {**COUNTED, "order": replace(COUNTED["order"], commits=200 + commits)}
    return Report(busy(seconds, **changes), PROGRAM, transactions, counted_for=10 + seconds)


def lines_of(shown, width, height=None):
    console = Console(width=width, height=height or 100, force_terminal=False, color_system=None)
    with console.capture() as captured:
        console.print(shown)
    return captured.get().splitlines()


def text_of(one, before=None, width=140, height=None):
    return "\n".join(lines_of(top_view.view(one, before, width, height), width))


def row(shown, first):
    (line,) = [line for line in shown.splitlines() if line.startswith(first)]
    return re.split(r" {2,}", line.strip())


# ---------------------------------------------------------------------------------------------- the view


def test_the_head_tells_whose_picture_it_is():
    shown = text_of(report())
    for part in ("a shop", "running", "up 1 min 40 s", "pid 4711", "shop.py", "cpython 3.14.0, GIL off"):
        assert part in shown.splitlines()[0]
    for part in ("queued 12", "running 4", "finished 500", "failed 7", "cancelled 1", "submitted 524"):
        assert part in shown
    for part in (
        "workers 6 of 2 to 8",
        "lost workers 1",
        "waits p50 12 µs  p90 1.2 ms  p99 8 ms",
        "durations p50 2 ms",
    ):
        assert part in shown


def test_throughput_is_of_the_time_between_two_pictures():
    assert "1,000 works/s   " in text_of(report(2.0), report(1.5))
    assert "5.1 works/s on average" in text_of(report())
    assert "works/s on average" in text_of(report(1.0), report(1.0)), "two pictures of the same moment"


def test_busy_shares_are_of_the_time_between_two_pictures():
    shown = text_of(report(2.0), report(1.0))
    assert [row(shown, f"shop-{number} ")[-5 if number % 2 == 0 else -6] for number in (0, 2)] == ["0%", "20%"]
    assert "50%" in row(shown, "shop-5 ")


def test_workers_show_what_they_run():
    shown = text_of(report())
    assert row(shown, "shop-1 ")[:4] == ["shop-1", "running", "shop.order (books, priority 2)", "250 ms"]
    assert row(shown, "shop-2 ")[:4] == ["shop-2", "running", "shop.order x2 > shop.deliver (waits)", "2 s"]
    assert row(shown, "shop-3 ")[:4] == ["shop-3", "overdue", "shop.late", "7.5 s"]
    assert row(shown, "shop-3 ")[-2:] == ["4003", "1 min 40 s"]


def test_functions_are_sorted_by_total_time():
    one = report()
    functions = one.picture.functions
    quick = replace(functions["shop.order"], function="shop.quick", seconds=150.0)
    shown = text_of(replace(one, picture=replace(one.picture, functions=functions.set("shop.quick", quick))))
    assert shown.index("shop.quick") < shown.index("shop.order  ")
    assert row(shown, "shop.quick") == ["shop.quick", "100", "1", "1.5 s", "100 ms", "3 s", "2 min 30 s", "60%"]


def test_transactions_show_their_conflicts_worst_first():
    shown = text_of(report(1.0, commits=50), report())
    order = row(shown, "order ")
    assert order[:5] == ["order", "250", "50", "300", "1.20"]
    assert order[-1] == "the stock (280)"
    assert row(shown, "look ")[:5] == ["look", "1,000", "0", "0", "0.00"]
    assert shown.index("order  ") < shown.index("look  ")


def test_queues_and_changes_are_shown():
    shown = text_of(report(3.0))
    assert "common" in shown
    assert "priority 5" in shown
    assert re.search(r"3 s ago +2 to 4 +1,234 works wait", shown)


@pytest.mark.parametrize("width", [20, 40, 60, 80, 110, 140, 250])
@pytest.mark.parametrize("height", [3, 8, 12, 24, 50])
def test_a_view_fits_its_screen(width, height):
    names = [f"a.module.with.a.long.name.and_function_{number}" for number in range(30)]
    one = report(1.0, workers=50, functions=names)
    lines = lines_of(top_view.view(one, report(workers=50), width, height), width)
    assert max(map(len, lines)) <= width
    if width >= 40 and height >= 12:
        assert len(lines) <= height
        assert "WORKER" in "\n".join(lines)


def test_on_a_small_screen_what_matters_remains():
    shown = text_of(report(1.0, workers=8), report(), width=60, height=16)
    assert row(shown, "shop-3 ")[:3] == ["shop-3", "overdue", "late"]
    assert "... 2 more; all: 2 overdue, 4 running, 2 idle" in shown
    assert "PRIORITY" not in shown


def test_when_there_is_no_room_for_all_workers_the_urgent_ones_are_shown():
    one = report(workers=50)
    shown = text_of(one, width=80, height=24)
    assert shown.count("overdue ") >= 5
    assert "12 overdue, 25 running, 13 idle" in shown


def test_names_cannot_command_the_terminal_or_the_markup():
    shown = text_of(report(functions=["evil\x1b[2J\x07[red]\nname"]))
    assert "evil?[2J?[red]?name" in shown
    assert "\x1b" not in shown


def test_a_scheduler_about_which_there_is_nothing_to_say():
    shown = text_of(Report(Picture("new", "new", 0.0, 0.0, Totals())))
    assert "0 works/s on average" in shown
    assert "WORKER" not in shown


def test_numbers_take_little_room():
    assert [duration(seconds) for seconds in (-1.0, 1e-12, 4e-7, 0.9996, 59.4, 60, 3600, 90061)] == [
        *("0", "0", "0.4 µs", "1 s", "59.4 s", "1 min 0 s", "1 h 0 min", "1 d 1 h"),
    ]
    assert [rate(number) for number in (0, 0.123, 9.94, 12.3, 12345.6)] == ["0", "0.12", "9.9", "12", "12,346"]


def test_rows_are_shared_out_by_importance():
    assert shares([100, 100, 100], lines=100) == [34, 30, 30]
    assert shares([2, 0, 100], lines=20) == [2, 0, 14]
    assert shares([100, 100], lines=6) == [4, 0]
    assert shares([6, 2, 1], lines=11) == [6, 0, 0], "what matters less is not shown instead"
    assert shares([100], lines=2) == [0]
    assert shares([], lines=2) == []


# ---------------------------------------------------------------------------------------------- the command


@pytest.fixture
def path():
    with tempfile.TemporaryDirectory(prefix="h") as short:  # pytest's own path may be too long for a socket
        yield os.path.join(short, "monitor.sock")


def command(*arguments):
    """The exit code of a command that runs in this thread."""
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    return ended.value.code or 0


def test_once_shows_one_view_with_rates(path, capsys):
    with serve(sequence(), path):
        assert command("top", path, "--once", "--interval", "0.01") == 0
    shown, errors = capsys.readouterr()
    assert shown.count("a shop") == 1
    assert "1,000 works/s" in shown
    assert "average" not in shown
    assert errors == ""


def sequence():
    seconds = iter(range(1000))
    return lambda: busy(float(next(seconds)))


def test_once_shows_what_there_was_if_the_program_ends_meanwhile(path, capsys):
    with closing_after(path, 1):
        assert command("top", path, "--once", "--interval", "0.01") == 0
    assert "works/s on average" in capsys.readouterr().out


@contextlib.contextmanager
def closing_after(path, number):
    """A program that ends after it has shown so many pictures."""
    taken = []

    def source():
        taken.append(1)
        if len(taken) == number:
            Background(server.close)
        return busy(float(len(taken)))

    server = serve(source, path)
    with server:
        yield


def test_json_is_for_machines(path, capsys):
    with serve(busy, path):
        assert command("top", path, "--once", "--json") == 0
    shown = capsys.readouterr().out
    assert shown.count("\n") == 1
    assert watching.report_from(json.loads(shown)).picture == busy()


@pytest.mark.parametrize("as_json", [False, True])
def test_without_a_terminal_it_prints_until_the_program_ends(path, capsys, as_json):
    with closing_after(path, 3):
        assert command("top", path, "--interval", "0.01", *["--json"] * as_json) == 0
    shown, errors = capsys.readouterr()
    assert errors == ""
    assert "\x1b" not in shown
    assert ("has ended" in shown) is not as_json
    assert shown.count('"protocol":1' if as_json else "works/s") >= 3


def test_a_wrong_path_is_told_on_stderr_with_code_1(path, capsys):
    assert command("top", path) == 1
    shown, errors = capsys.readouterr()
    assert (shown, errors) == ("", f"hive-task top: {path}: there is no such socket\n")
    with open(path, "w"):
        assert command("top", path, "--json") == 1
    assert "no monitor of hive-task" in capsys.readouterr().err


def test_what_a_program_says_is_not_obeyed_by_the_terminal(path, capsys):
    def source():
        raise ZeroDivisionError("evil")

    with serve(source, path), pytest.MonkeyPatch.context() as patch:
        patch.setattr(watching, "MonitorError", lambda message: HiveTaskError(message + "\x1b[2J"))
        assert command("top", path) == 1
    assert capsys.readouterr().err == (
        f"hive-task top: {path}: no picture could be taken: ZeroDivisionError('evil')?[2J\n"
    )


def test_a_wrong_use_is_told_with_code_2(path, capsys):
    for arguments in (["top"], ["top", path, "--interval", "0"], ["top", path, "--interval", "soon"], ["dance"]):
        assert command(*arguments) == 2
        assert capsys.readouterr().err


def test_interrupting_is_a_failure_only_of_what_would_have_ended(path, capsys, monkeypatch):
    def interrupted(*_):
        yield Report(empty())
        raise KeyboardInterrupt

    monkeypatch.setattr(top, "watch", interrupted)
    assert command("top", path) == 0
    assert command("top", path, "--once") == 130
    assert capsys.readouterr().err == ""


def test_version(capsys):
    assert command("--version") == 0
    assert re.match(r"hive-task \S+.*, CPython 3\.\d+\.\S+, GIL (on|off)\n", capsys.readouterr().out)


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_it_says_which_to_install(missing, capsys, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == missing or name.startswith("hive_task.top")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    assert command("--version") == 1
    assert 'pip install "hive-task[cli]"' in capsys.readouterr().err


def run_in_terminal(path, number=None, width=80, height=24):
    """The exit code of a live view, which may get a signal after its first picture, and all that it wrote."""
    us, them = pty.openpty()
    fcntl.ioctl(them, termios.TIOCSWINSZ, struct.pack("4H", height, width, 0, 0))
    begun = [sys.executable, "-W", "error", "-m", "hive_task.cli", "top", path, "--interval", "0.05"]
    home = os.path.dirname(os.path.dirname(cli.__file__))
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES", "NO_COLOR")}
    environment |= {"TERM": "xterm-256color", "PYTHONPATH": home, "LANG": "C.UTF-8"}
    with subprocess.Popen(begun, stdin=them, stdout=them, stderr=them, env=environment) as viewer:
        os.close(them)
        written = bytearray()

        def read():
            with contextlib.suppress(OSError):  # that is how a terminal ends
                while piece := os.read(us, 65536):
                    written.extend(piece)

        reading = Background(read)
        until(lambda: b"WORKER" in written, "the first picture")
        if number is not None:
            viewer.send_signal(number)
        code = viewer.wait(PATIENCE)
        reading.result()
    os.close(us)
    return code, written.decode()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 128 + signal.SIGTERM)])
def test_a_signal_ends_the_live_view_quietly_and_gives_the_screen_back(path, number, code):
    with serve(sequence(), path):
        ended, written = run_in_terminal(path, number)
    assert ended == code
    assert "\x1b[?1049h" in written, "it takes the whole screen"
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l"), "the cursor is seen again"
    after = written.rpartition("\x1b[?1049l")[2]
    assert re.sub(r"\x1b\[\S*?[a-z]|\s|\^C", "", after) == "", "and nothing is said"


def test_when_the_program_ends_the_last_picture_stays(path):
    with closing_after(path, 3):
        ended, written = run_in_terminal(path)
    assert ended == 0
    after = written.rpartition("\x1b[?1049l")[2]
    assert "a shop" in after
    assert f"The program at {path} has ended." in after
