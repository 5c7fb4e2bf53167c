"""The example programs for threads, as programs: each runs from the command line, and wrong arguments get one line."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

RUNS = [
    ("dining_philosophers", ["--meals", "30"], ["150 meals in ", "never two neighbours", "Nobody was overtaken twice"]),
    ("dining_philosophers", ["--meals", "30", "--rude"], ["150 meals in ", "never two neighbours"]),
    ("santa_claus", ["--christmases", "2"], ["2 Christmases and 1", "No group was mixed or incomplete"]),
    ("bounded_pipeline", ["--blocks", "100"], ["100 blocks of ", ": all through", "exactly one place"]),
    ("bank", ["--payments", "30"], ["transfers in ", "no account overdrawn", "which explain every balance"]),
    ("shared_map_server", ["--commands", "30"], ["360 commands by 4 clients", "no increment was lost"]),
]


@pytest.mark.parametrize(("name", "argv", "told"), RUNS)
def test_runs_from_the_command_line(name: str, argv: list[str], told: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", f"examples.{name}", *argv],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    for part in told:
        assert part in done.stdout


@pytest.mark.parametrize(
    ("name", "argv", "message"),
    [
        ("dining_philosophers", ["--philosophers", "1"], "--philosophers: a whole number from 2 to 200, not '1'"),
        ("dining_philosophers", ["--meals", "many"], "--meals: a whole number from 1 to 1,000,000, not 'many'"),
        ("dining_philosophers", ["--thinking", "-1"], "--thinking: a number of seconds from 0 to 60, not '-1'"),
        ("dining_philosophers", ["--eating", "nan"], "--eating: a number of seconds from 0 to 60, not 'nan'"),
        ("santa_claus", ["--elves", "2"], "--elves: a whole number from 3 to 300, not '2'"),
        ("santa_claus", ["--christmases", "0"], "--christmases: a whole number from 1 to 100,000, not '0'"),
        ("bounded_pipeline", ["--maxsize", "0"], "--maxsize: a whole number from 1 to 1,000,000, not '0'"),
        ("bounded_pipeline", ["--threads", "101"], "--threads: a whole number from 1 to 100, not '101'"),
        ("bank", ["--customers", "1"], "--customers: a whole number from 2 to 200, not '1'"),
        ("bank", ["--timeout", "soon"], "--timeout: a number of seconds from 0 to 60, not 'soon'"),
        ("shared_map_server", ["--port", "70000"], "--port: a whole number from 0 to 65,535, not '70000'"),
        ("shared_map_server", ["--clients", "0"], "--clients: a whole number from 1 to 500, not '0'"),
    ],
)
def test_a_wrong_option_is_one_clear_line_and_code_2(
    capsys: pytest.CaptureFixture[str], name: str, argv: list[str], message: str
) -> None:
    program = importlib.import_module(f"examples.{name}")
    with pytest.raises(SystemExit) as end:
        program.main(argv)
    out, err = capsys.readouterr()
    assert (end.value.code, out, err) == (2, "", f"{name}: argument {message}\n")


@pytest.mark.parametrize("name", sorted({name for name, _, _ in RUNS}))
def test_the_options_that_its_docstring_shows_exist(capsys: pytest.CaptureFixture[str], name: str) -> None:
    program = importlib.import_module(f"examples.{name}")
    with pytest.raises(SystemExit) as end:
        program.main(["--help"])
    assert end.value.code == 0
    assert program.__doc__ is not None
    shown = set(re.findall(r"--[a-z][a-z-]*", program.__doc__))
    known = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out))
    assert shown
    assert shown <= known
