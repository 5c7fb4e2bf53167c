"""`examples/cluster_points.py`: the result is that of the program without transactions, and errors are clear."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples import cluster_points as program

ROOT = Path(__file__).resolve().parent.parent
SMALL = ("--points", "3000", "--clusters", "6", "--threads", "2")


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("batch", [1, 7, 256])
@pytest.mark.parametrize(("dimensions", "seed"), [(2, 1), (2, 2), (5, 3)])
def test_the_result_is_the_same_to_the_last_bit(threads: int, batch: int, dimensions: int, seed: int) -> None:
    points, start = program.make_points(4000, dimensions, 7, seed)
    found = program.cluster(points, start, 0.001, program.in_transactions(threads, batch))
    expected = program.cluster(points, start, 0.001, program.alone)
    assert program.differences(found, expected) == []
    assert np.array_equal(found.of, expected.of)
    assert np.array_equal(np.stack(found.centres), np.stack(expected.centres))
    assert found.changed == expected.changed


def test_agrees_with_numpy() -> None:
    points, start = program.make_points(500, 3, 4, 1)
    found = program.cluster(points, start, 0.0, program.in_transactions(2, 16))
    before, last = found.centres[-2:]
    nearest = ((points[:, None] - before) ** 2).sum(axis=2).argmin(axis=1)
    assert np.array_equal(found.of, nearest)
    for k in range(4):
        np.testing.assert_array_equal(last[k], points[nearest == k].sum(axis=0) / (nearest == k).sum())
    assert found.changed[-1] == 0
    assert found.inertia == sorted(found.inertia, reverse=True)


def test_a_centre_without_points_stays_where_it_is() -> None:
    points = np.zeros((10, 2))
    start = np.array([[0.0, 0.0], [9.0, 9.0]])
    found = program.cluster(points, start, 0.0, program.in_transactions(2, 3))
    assert np.array_equal(found.centres[-1], start)


def test_sums_are_exact_in_any_order() -> None:
    points, _ = program.make_points(20_000, 2, 5, 1)
    shuffled = np.random.default_rng(1).permutation(points)
    assert np.array_equal(np.cumsum(points, axis=0)[-1], np.cumsum(shuffled, axis=0)[-1])
    assert np.abs(points).max() * program.MOST / program.GRAIN <= 2**53


def test_a_lost_update_is_told_and_ends_with_code_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = program.in_transactions

    def careless(threads: int, batch: int) -> program.Round:
        one_round = honest(threads, batch)

        def lossy(points: Any, centres: Any, before: Any, after: Any) -> Any:
            sums, counts, changed, squares = one_round(points, centres, before, after)
            return sums - points[0] / 2, counts, changed, squares

        return lossy

    monkeypatch.setattr(program, "in_transactions", careless)
    assert program.main([*SMALL, "--out", "none"]) == 1
    out = capsys.readouterr().out
    assert "DIFFERENT from the program without transactions: " in out
    assert " centres elsewhere\n" in out


@pytest.mark.parametrize("dimensions", ["2", "5"])
def test_draws_the_clusters_and_compares(tmp_path: Path, capsys: pytest.CaptureFixture[str], dimensions: str) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "clusters.png"
    argv = (*SMALL, "--dimensions", dimensions, "--out", str(file), "--compare", "--repeats", "1")
    assert program.main(argv) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"3,000 points in {dimensions} dimensions, 6 clusters: ")
    assert "the same centres to the last bit" in out
    assert f"drawn into {file}\n" in out
    assert "times as fast  2 threads\n" in out
    assert file.read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_error_names_the_extra(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert program.main(["--out", str(tmp_path / "clusters.png")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "cluster_points: the picture needs matplotlib, which is not installed: pip install 'hive-task[bench]'"
        " (or leave it out: --out none)\n"
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--threads", "0"], "argument --threads: a whole number from 1 on, not '0'"),
        (["--batch", "-3"], "argument --batch: a whole number from 1 on, not '-3'"),
        (["--points", "9000000"], "argument --points: a whole number from 1 to 8,388,608, not '9000000'"),
        (["--threshold", "2"], "argument --threshold: a share from 0 to 1, not '2'"),
        (["--out", "a.txt"], "argument --out: a file that ends in .png, .pdf or .svg, or none; not 'a.txt'"),
        (["--out", "/no/such/x.png"], "argument --out: no such folder: /no/such"),
        (["--points", "5", "--clusters", "6", "--out", "none"], "6 clusters need as many points, not 5"),
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
    assert (code, out, err) == (2, "", f"cluster_points: {message}\n")


def test_runs_from_the_command_line() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "examples.cluster_points", *SMALL, "--out", "none"],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("3,000 points in 2 dimensions, 6 clusters: ")
