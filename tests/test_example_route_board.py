"""`examples/route_board.py`: tracks join their pads and touch nothing else, faults are told, errors are clear."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples import route_board as program

ROOT = Path(__file__).resolve().parent.parent
SMALL = ("--size", "70", "--routes", "20", "--out", "none")


@pytest.fixture(scope="module")
def board() -> program.Board:
    return program.make_board(90, 40, 2.0, seed=1)


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("size", "routes", "reach"), [(90, 40, 1.5), (100, 76, 6.0)])
def test_every_track_joins_its_pads(threads: int, seed: int, size: int, routes: int, reach: float) -> None:
    board = program.make_board(size, routes, reach, seed)
    cells, laid, _ = program.route_all(board, threads)
    plain, lengths, _ = program.route_all_alone(board)
    assert program.faults(board, cells, laid[:, 0]) == program.faults(board, plain, lengths) == []
    assert (laid[:, 0] > 0).sum() > routes / 2
    if threads == 1:
        assert np.array_equal(cells, plain)
        assert np.array_equal(laid[:, 0], lengths)


def test_a_board_where_everybody_wants_the_same_gap() -> None:
    """Routes side by side: whoever comes second finds its way taken, and must look again."""
    rows = np.arange(0, 120, 2)
    pads = np.stack((np.full(60, 2), rows, np.full(60, 110), rows[::-1]), axis=1)
    board = program.Board(120, pads, np.zeros((0, 2), np.int64), [])
    for _ in range(5):
        cells, laid, _ = program.route_all(board, 4)
        assert program.faults(board, cells, laid[:, 0]) == []


def test_a_route_without_a_way_lays_nothing() -> None:
    pads = np.array([[5, 5, 20, 20], [1, 1, 3, 1]])
    fence = [(x, y) for x in range(3, 8) for y in range(3, 8) if x in (3, 7) or y in (3, 7)]
    board = program.Board(30, pads, np.array(fence), [])
    cells, laid, _ = program.route_all(board, 2)
    assert laid[:, 0].tolist() == [0, 3]
    assert program.faults(board, cells, laid[:, 0]) == []
    assert (cells == 1).sum() == 4  # its pads


def cell_of_track(board: program.Board, cells: Any, number: int) -> int:
    return int(np.flatnonzero((cells == number) & (board.cells() == 0))[0])


def cut(board: program.Board, cells: Any, lengths: Any) -> str:
    cells[cell_of_track(board, cells, 30)] = 0
    return "route 30 has"


def move(board: program.Board, cells: Any, lengths: Any) -> str:
    cells[cell_of_track(board, cells, 30)] = 0
    cells[np.flatnonzero(cells == 0)[-1]] = 30
    return "route 30 is not connected from pad to pad"


def cross(board: program.Board, cells: Any, lengths: Any) -> str:
    cells[cell_of_track(board, cells, 30)] = 31
    return "route 31 has"


def run_over_a_pad(board: program.Board, cells: Any, lengths: Any) -> str:
    pad = int(np.flatnonzero(board.cells() == 3)[0])
    cells[pad] = 4
    return f"cell {pad} held 3 and holds 4"


def leave_a_rest(board: program.Board, cells: Any, lengths: Any) -> str:
    lengths[29] = 0
    return "route 30 has"


def invent(board: program.Board, cells: Any, lengths: Any) -> str:
    cells[np.flatnonzero(cells == 0)[0]] = 99
    return "there is no route 99, which 1 cells hold"


@pytest.mark.parametrize("spoil", [cut, move, cross, run_over_a_pad, leave_a_rest, invent])
def test_the_check_finds_what_is_wrong(board: program.Board, spoil: Callable[[Any, Any, Any], str]) -> None:
    cells, laid, _ = program.route_all(board, 2)
    lengths = laid[:, 0].copy()
    assert lengths.all()
    told = spoil(board, cells, lengths)
    assert any(told in each for each in program.faults(board, cells, lengths))


def test_a_fault_is_printed_and_ends_with_code_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = program.route_all

    def careless(board: program.Board, threads: int) -> tuple[Any, Any, float]:
        cells, laid, seconds = honest(board, threads)
        cells[cell_of_track(board, cells, 1)] = 0
        return cells, laid, seconds

    monkeypatch.setattr(program, "route_all", careless)
    assert program.main([*SMALL, "--threads", "2"]) == 1
    assert "WRONG: route 1 has" in capsys.readouterr().out


def test_a_board_depends_on_its_seed_alone() -> None:
    one, same, other = (program.make_board(90, 40, 1.5, seed) for seed in (3, 3, 4))
    assert np.array_equal(one.cells(), same.cells())
    assert not np.array_equal(one.cells(), other.cells())
    pins = np.concatenate((one.pads.reshape(-1, 2), one.spare))
    assert len(np.unique(pins, axis=0)) == len(pins)
    assert pins.min() >= 0
    assert pins.max() < 90


def test_draws_the_board_and_compares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "board.png"
    argv = ("--size", "70", "--routes", "20", "--threads", "2", "--compare", "--repeats", "1", "--out", str(file))
    assert program.main(argv) == 0
    out = capsys.readouterr().out
    assert "20 of 20 routes laid on 70 x 70 x 2 cells" in out
    assert "Every track was walked" in out
    assert f"drawn into {file}\n" in out
    assert "  2 threads: " in out
    assert file.read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_error_names_the_extra(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert program.main(["--out", str(tmp_path / "board.png")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "route_board: the picture needs matplotlib, which is not installed: pip install 'hive-task[bench]'"
        " (or leave it out: --out none)\n"
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--threads", "0"], "argument --threads: a whole number from 1 on, not '0'"),
        (["--size", "20"], "argument --size: a whole number from 30 on, not '20'"),
        (["--routes", "many"], "argument --routes: a whole number from 1 on, not 'many'"),
        (["--out", "board.txt"], "argument --out: a file that ends in .png, .pdf or .svg, or none; not 'board.txt'"),
        (["--out", "/no/such/x.png"], "argument --out: no such folder: /no/such"),
        (["another"], "unrecognized arguments: another"),
        (
            ["--size", "60", "--routes", "500", "--out", "none"],
            "500 routes need more room than a board of 60 x 60 cells has",
        ),
    ],
)
def test_a_wrong_option_is_one_clear_line_and_code_2(
    capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    code: object
    try:
        code = program.main(argv)
    except SystemExit as end:
        code = end.code
    out, err = capsys.readouterr()
    assert (code, out, err) == (2, "", f"route_board: {message}\n")


def test_runs_from_the_command_line() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "examples.route_board", *SMALL, "--threads", "2"],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("20 of 20 routes laid on 70 x 70 x 2 cells, in ")
