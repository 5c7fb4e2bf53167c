"""`examples/index_by_scheduler.py`: the index is that of the threads, no file is lost, every error is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from examples import index_by_scheduler as program
from examples import index_source_tree as by_threads
from hive_task.picture import Totals
from hive_task.watching import watch
from stm import TVar, check, run
from tests.support import elsewhere, until
from tests.test_example_index import BAD_FILES, SHAPES, Tree, tree

assert tree  # the fixture

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def build(root: Path, workers: int | None = 3) -> program.Result:
    files, _ = by_threads.list_files(root)
    return program.build_index(root, files, workers)


def call(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> tuple[int, str, str]:
    code = program.main(list(map(str, argv)))
    return code, *capsys.readouterr()


@pytest.mark.parametrize("workers", [1, 3, None])
def test_it_finds_what_one_thread_finds(tree: Tree, workers: int | None) -> None:
    good = {f"folder{n % 3}/shapes{n}.py": SHAPES for n in range(20)}
    root = tree({**good, **{name: content for name, content, _ in BAD_FILES}})
    result = build(root, workers)
    plain = by_threads.PlainIndex()
    plain.build(root, by_threads.list_files(root)[0], TVar(False))
    assert plain.difference(result.last.index) is None
    assert result.wrong == result.failed == []
    assert len(result.last.index.skipped) == len(BAD_FILES)
    assert result.last.scheduler.totals == Totals(submitted=len(good) + len(BAD_FILES), finished=20 + len(BAD_FILES))


def test_a_file_that_cannot_be_parsed_is_reported_and_skipped(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    root = tree({"bad.py": "def f(:\n", "good.py": "good = 1\n"})
    code, out, _ = call(capsys, root, "--find", "good")
    assert code == 0
    assert "indexed 1 file with 1 line below" in out
    assert "skipped 1 that can't be read or parsed:\n  bad.py: SyntaxError: line 1" in out
    assert out.endswith("good: defined in 1 place\ngood.py:1 variable\n")


@pytest.mark.parametrize("error", [RuntimeError("planted"), SystemExit("planted")])
def test_a_work_that_fails_is_reported_and_the_others_go_on(
    tree: Tree, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    honest = program.parse

    def parse(root: Path, path: str) -> object:
        if path == "3.py":
            raise error
        return honest(root, path)

    monkeypatch.setattr(program, "parse", parse)
    code, out, _ = call(capsys, tree({f"{n}.py": "x = 1\n" for n in range(8)}))
    assert code == 1
    assert f"FAILED 3.py: {type(error).__name__}: planted\n" in out
    assert "indexed 7 files" in out
    assert "8 works submitted = 0 queued + 0 running + 7 finished + 1 failed + 0 cancelled" in out
    assert "none disagreed, and every file is accounted for" in out


def test_a_file_that_the_index_misses_is_noticed(
    tree: Tree, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lossy(program.Index):
        def add(self, worker: int, parsed: by_threads.Parsed) -> None:
            if parsed.path != "2.py":
                super().add(worker, parsed)

    monkeypatch.setattr(program, "Index", Lossy)
    code, out, _ = call(capsys, tree({f"{n}.py": "x = 1\n" for n in range(5)}))
    assert code == 1
    assert "DISAGREEMENT: final index: 5 files, but 4 indexed, 0 skipped, 0 failed\n" in out
    assert "accounted for" not in out


def test_a_picture_is_of_index_and_scheduler_at_one_moment(tree: Tree) -> None:
    """Between looking at the one and at the other, a file is indexed."""
    root = tree({"a.py": "x = 1\n", "b.py": "x = 1\n"})

    class Index(program.Index):
        def picture(self) -> by_threads.Picture:
            picture = super().picture()
            if between:
                elsewhere(lambda: scheduler.submit(program.index_file, self, root, between.pop()).result())
            return picture

    index, between = Index(["a.py", "b.py"], program.COUNTERS), [0, 1]
    with program.Scheduler(workers=1) as scheduler:
        looks = [program.look(index, scheduler) for _ in range(3)]
    assert [look.disagreements() for look in looks] == [[], [], []]
    assert [look.index.counters.files for look in looks] == [0, 1, 2]


def test_pictures_agree_while_files_are_entered_as_fast_as_can_be(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    files = 600
    monkeypatch.setattr(program, "EVERY", 0.0)
    monkeypatch.setattr(program, "parse", lambda root, path: by_threads.Parsed(path, 1, ()))
    result = program.build_index(tree({}), [f"{n}.py" for n in range(files)], 2)
    assert result.wrong == []
    last = result.last
    assert (last.index.counters.files, last.scheduler.totals.finished) == (files, files)


def test_a_picture_tells_if_the_index_is_ahead_of_the_works_or_behind(tree: Tree) -> None:
    last = build(tree({f"{n}.py": "x = 1\n" for n in range(5)})).last
    assert last.disagreements() == []
    for totals, words in [
        (Totals(5, queued=1, finished=4), "0 workers with -1 files in hand"),
        (Totals(6, running=0, finished=6), "0 workers with 1 file in hand"),
        (Totals(6, finished=5), "the scheduler's totals don't add up"),
    ]:
        (wrong,) = replace(last, scheduler=replace(last.scheduler, totals=totals)).disagreements()
        assert wrong.startswith(words)


def test_limit_find_and_workers(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    root = tree({f"{n}.py": "x = 1\n" for n in range(5)})
    code, out, err = call(capsys, root, "--limit", "2", "--workers", "1", "--find", "x")
    assert code == 0
    assert "indexed 2 files with 2 lines" in out
    assert "  0 workers, then 1: at the start\n" in out
    assert out.endswith("x: defined in 2 places\n0.py:1 variable\n1.py:1 variable\n")
    assert err.startswith("indexing by a scheduler: 2 files\n")


def test_it_can_be_watched(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """The works wait for the watcher, and he for a work that waits."""
    seen = TVar(False)
    monkeypatch.setattr(program, "parse", lambda root, path: run(check_seen, path, timeout=30))

    def check_seen(path: str) -> by_threads.Parsed:
        check(seen.get())
        return by_threads.Parsed(path, 1, ())

    with tempfile.TemporaryDirectory(prefix="h") as folder:
        path = os.path.join(folder, "s")
        results: list[program.Result] = []
        program_thread = threading.Thread(
            target=lambda: results.append(program.build_index(tree({}), ["a.py", "b.py"], 1, path))
        )
        program_thread.start()
        try:
            until(lambda: os.path.exists(path))
            for report in watch(path, 0.02):
                if report.picture.totals.running == 1:
                    assert report.picture.totals.submitted == 2
                    break
        finally:
            seen.set(True)
            program_thread.join(30)
        assert os.listdir(folder) == []
    (result,) = results
    assert (result.wrong, result.failed) == ([], [])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["{}/nowhere"], "no such folder: {}/nowhere"),
        (["{}/empty"], "no Python file in {}/empty"),
        (["{}", "--workers", "0"], "argument --workers: a whole number from 1 on, not '0'"),
        (["{}", "--serve", "{}/no/such/folder"], "can't serve pictures at {}/no/such/folder: "),
    ],
)
def test_a_wrong_argument_is_one_clear_line_and_code_2(
    tree: Tree, capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    root = tree({"a.py": "", "empty/readme.txt": ""})
    code: object
    try:
        code = program.main([each.format(root) for each in argv])
    except SystemExit as end:
        code = end.code
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.startswith(f"index_by_scheduler: {message.format(root)}")
    assert err.count("\n") == 1


def test_ctrl_c_cancels_what_is_queued_and_ends_with_code_130() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # or a child might inherit "ignore"
    try:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "examples.index_by_scheduler", "--limit", "400"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        )
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        assert process.stderr is not None
        assert process.stderr.readline() == "indexing by a scheduler: 400 files\n"
        assert process.stderr.readline().startswith("indexing by a scheduler: ")  # a quarter is done
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert err.splitlines()[-1] == "index_by_scheduler: interrupted"
    assert "Traceback" not in err
