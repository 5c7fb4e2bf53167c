"""`examples/index_source_tree.py`: the index is right, bad files are survived, errors are clear, nothing hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from examples import index_source_tree as program
from stm import TVar, atomically, check

ROOT = Path(__file__).resolve().parent.parent

SHAPES = '''\
"""Definitions of every kind, and what isn't one."""
import os
from sys import path as p
LIMIT = 10
LIMIT = 11
width: int = 3
height: int
(left, [top, *rest]) = box = make()
LIMIT += 1
os.name = "no name of ours"
table["key"] = 1
if (walrus := LIMIT):
    chosen = 1
    def conditional(): ...
else:
    other = 2
try:
    tried = 1
except* ValueError as error:
    caught = 1
else:
    fine = 1
finally:
    last = 1
for loop in ():
    looped = 1
while False:
    never = 1
with open("x") as handle:
    opened = 1
match LIMIT:
    case 1:
        matched = 1

class Shape(Base):
    attribute = 1
    @property
    def area(self):
        local = 1
        def helper(): ...
        class Local:
            def method(self): ...
    if True:
        async def wait(self): ...

@decorator
async def fetch(argument=lambda: 0):
    def fetch(): ...
'''

#: Told by hand, not by the program.
EXPECTED = {
    "LIMIT": [(4, "variable"), (5, "variable")],
    "width": [(6, "variable")],
    "left": [(8, "variable")],
    "top": [(8, "variable")],
    "rest": [(8, "variable")],
    "box": [(8, "variable")],
    "chosen": [(13, "variable")],
    "conditional": [(14, "function")],
    "other": [(16, "variable")],
    "tried": [(18, "variable")],
    "caught": [(20, "variable")],
    "fine": [(22, "variable")],
    "last": [(24, "variable")],
    "looped": [(26, "variable")],
    "never": [(28, "variable")],
    "opened": [(30, "variable")],
    "matched": [(33, "variable")],
    "Shape": [(35, "class")],
    "area": [(38, "method")],
    "helper": [(40, "function")],
    "Local": [(41, "class")],
    "method": [(42, "method")],
    "wait": [(44, "method")],
    "fetch": [(47, "function"), (48, "function")],
}

#: File name, content, and what the report must say about it.
BAD_FILES: list[tuple[str, bytes, str]] = [
    ("syntax.py", b"def f(:\n", "SyntaxError: line 1"),
    ("python2.py", b"x = 1\nprint 'hello'\n", "SyntaxError: line 2"),
    ("latin.py", b"name = '\xe9'\n", "SyntaxError: invalid or missing encoding declaration"),
    ("late_latin.py", b"# 1\n# 2\n# 3\nname = '\xe9'\n", "UnicodeDecodeError"),
    ("unknown_coding.py", b"# coding: no-such-coding\n", "SyntaxError: unknown encoding"),
    ("not_text_coding.py", b"# coding: hex\n", "LookupError"),
    ("null_byte.py", b"x = 1\0\n", "null byte"),
    ("deep.py", b"x = " + b"-" * 200_000 + b"1\n", "Error: "),
    ("nested.py", b"x = " + b"(" * 5_000 + b")" * 5_000 + b"\n", "too many nested parentheses"),
]

Tree = Callable[[dict[str, str | bytes]], Path]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Makes a folder with these files."""

    def make(files: dict[str, str | bytes]) -> Path:
        for name, content in files.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content.encode() if isinstance(content, str) else content)
        return tmp_path

    return make


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def index(root: Path, threads: int = 3) -> program.Picture:
    files, _ = program.list_files(root)
    result = program.build_index(root, files, threads)
    assert result.disagreements == []
    return result.picture


def call(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> tuple[int, str, str]:
    code = program.main([str(each) for each in argv])
    out, err = capsys.readouterr()
    return code, out, err


def test_indexes_every_kind_of_definition_and_nothing_else(tree: Tree) -> None:
    picture = index(tree({"shapes.py": SHAPES}))
    found = {name: [(place.line, place.kind) for place in picture.find(name)] for name in picture.names()}
    assert found == EXPECTED
    assert picture.counters == program.Counters(
        files=1, names=len(EXPECTED), places=sum(map(len, EXPECTED.values())), lines=SHAPES.count("\n")
    )


def test_many_threads_and_many_files_give_the_sum_of_all_files(tree: Tree) -> None:
    count = 60
    picture = index(
        tree({f"package/part{n}.py": f"common = {n}\nonly_in_{n} = {n}\n" for n in range(count)}), threads=8
    )
    places = sorted(program.Place(f"package/part{n}.py", 1, "variable") for n in range(count))
    assert picture.find("common") == places
    assert sorted(picture.names()) == sorted(["common", *(f"only_in_{n}" for n in range(count))])
    assert picture.counters == program.Counters(files=count, names=count + 1, places=2 * count, lines=2 * count)
    assert picture.in_hand == 0


@pytest.mark.parametrize(
    ("text", "lines"), [("", 0), ("x = 1", 1), ("x = 1\n", 1), ("x = 1\r\n\r\ny = 2", 3), ("x = '\x0c\u2028'\n", 1)]
)
def test_counts_lines(tree: Tree, text: str, lines: int) -> None:
    assert index(tree({"a.py": text})).counters.lines == lines


def test_honours_coding_cookies_and_byte_order_marks(tree: Tree) -> None:
    root = tree(
        {
            "latin.py": "# -*- coding: latin-1 -*-\ncafé = 1\n".encode("latin-1"),
            "second_line.py": "#!/usr/bin/python\n# vim: set fileencoding=cp1252 :\nprix_€ = 1\nété = 2\n".replace(
                "_€", ""
            ).encode("cp1252"),
            "marked.py": b"\xef\xbb\xbfmarked = 1\n",
        }
    )
    assert {*index(root).names()} == {"café", "prix", "été", "marked"}


def test_leaves_out_installed_packages_caches_and_other_files(tree: Tree) -> None:
    root = tree(
        {
            "a.py": "",
            "deep/er/b.py": "",
            "lib/site-packages/c.py": "",
            "dist-packages/d.py": "",
            "__pycache__/e.py": "",
            "f.pyi": "",
            "g.txt": "",
        }
    )
    assert program.list_files(root) == (["a.py", "deep/er/b.py"], [])


def test_a_folder_called_site_packages_can_be_indexed_itself(tree: Tree) -> None:
    root = tree({"site-packages/a.py": ""}) / "site-packages"
    assert program.list_files(root)[0] == ["a.py"]


@pytest.mark.parametrize(("name", "content", "reason"), BAD_FILES, ids=[name for name, _, _ in BAD_FILES])
def test_reports_and_skips_a_bad_file(
    tree: Tree, capsys: pytest.CaptureFixture[str], name: str, content: bytes, reason: str
) -> None:
    code, out, _ = call(capsys, tree({name: content, "good.py": "good = 1\n"}), "--find", "good")
    assert code == 0
    assert "indexed 1 file with 1 line below" in out
    assert "skipped 1 that can't be read or parsed:\n" in out
    (report,) = [line for line in out.splitlines() if line.startswith(f"  {name}: ")]
    assert reason in report
    assert "\ngood.py:1 variable\n" in out


def test_reports_and_skips_what_is_not_a_regular_file(tree: Tree) -> None:
    root = tree({"good.py": "good = 1\n"})
    (root / "broken_link.py").symlink_to(root / "nowhere")
    (root / "folder.py").mkdir()
    (root / "link_to_folder.py").symlink_to(root / "folder.py")
    os.mkfifo(root / "pipe.py")  # to open it would wait for ever
    picture = index(root)
    assert sorted(picture.skipped) == [
        ("broken_link.py", "FileNotFoundError: No such file or directory"),
        ("pipe.py", "OSError: not a regular file"),
    ]
    assert picture.counters.files == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_reports_files_and_folders_without_permission(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    root = tree({"a.py": "", "b.py": "", "folder/c.py": ""})
    (root / "b.py").chmod(0)
    (root / "folder").chmod(0)
    try:
        code, out, _ = call(capsys, root)
    finally:
        (root / "folder").chmod(0o700)
    assert code == 0
    assert "  b.py: PermissionError: Permission denied\n  folder: PermissionError: Permission denied\n" in out


def test_shows_the_first_few_skipped_files_and_all_with_verbose(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    root = tree({"good.py": "", **{f"bad{n}.py": "(" for n in range(9)}})
    _, out, _ = call(capsys, root, "--no-compare")
    assert out.count("  bad") == 5
    assert "  and 4 more (--verbose shows all)\n" in out
    _, out, _ = call(capsys, root, "--no-compare", "--verbose")
    assert out.count("  bad") == 9
    assert "more" not in out


def test_warnings_about_the_files_are_not_shown(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    root = tree({"a.py": "x = '\\d'\ny = 1 is 1\nz = 1or 2\n"})
    code, out, err = call(capsys, root)  # in this suite a warning is an error, and would be a skipped file
    assert (code, "skipped" in out, "Warning" in err) == (0, False, False)


def test_find_prints_places_and_close_matches(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    root = tree({"a.py": "class Reader: ...\n", "sub/b.py": "\ndef Reader(): ...\nReader = Reader\n"})
    argv = (root, "--find", "Reader", "--find", "Raeder", "--find", "qqqq")
    code, out, _ = call(capsys, *argv)
    assert code == 0
    assert out.endswith(
        "Reader: defined in 3 places\n"
        "a.py:1 class\n"
        "sub/b.py:2 function\n"
        "sub/b.py:3 variable\n"
        "Raeder: not defined here; close: Reader\n"
        "qqqq: not defined here; nothing close to it either\n"
    )


def test_limit_takes_the_first_files_and_no_compare_leaves_out_the_second_pass(
    tree: Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tree({f"{n}.py": "x = 1\n" for n in range(5)})
    _, out, err = call(capsys, root, "--limit", "2", "--no-compare", "--find", "x", "--threads", "64")
    assert "indexed 2 files with 2 lines" in out
    assert out.endswith("x: defined in 2 places\n0.py:1 variable\n1.py:1 variable\n")
    assert "times as fast" not in out
    assert "2 threads" in err  # no more than there are files


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["{}/nowhere"], "no such folder: {}/nowhere"),
        (["{}/a.py"], "not a folder: {}/a.py"),
        (["{}/a.py/b"], "can't read {}/a.py/b: Not a directory"),
        (["{}/empty"], "no Python file in {}/empty"),
        (["{}", "--threads", "0"], "argument --threads: a whole number from 1 on, not '0'"),
        (["{}", "--threads", "two"], "argument --threads: a whole number from 1 on, not 'two'"),
        (["{}", "--limit", "-1"], "argument --limit: a whole number from 1 on, not '-1'"),
        (["{}", "--find"], "argument --find: expected one argument"),
        (["{}", "another"], "unrecognized arguments: another"),
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
    assert (code, out, err) == (2, "", f"index_source_tree: {message.format(root)}\n")


def parsed(path: str, *names: str) -> program.Parsed:
    return program.Parsed(path, 1, tuple((name, program.Place(path, 1, "class")) for name in names))


def half_done(shared: program.Index) -> None:
    """Take both files and add one."""
    shared.take(0)
    shared.take(1)
    shared.add(0, parsed("a.py", "A", "B"))


def test_a_picture_is_of_one_moment_and_stays_as_it_is() -> None:
    shared = program.Index(["a.py", "b.py"], workers=2)
    half_done(shared)
    early = shared.picture()
    shared.add(1, parsed("b.py", "B", "C"))
    late = shared.picture()
    assert (early.counters.places, early.in_hand, sorted(early.names())) == (2, 1, ["A", "B"])
    assert (late.counters.names, late.in_hand, sorted(late.names())) == (3, 0, ["A", "B", "C"])
    assert early.recount() == late.recount() == []


def plant_in_counters(shared: program.Index) -> None:
    shared.counters[1].update(lambda counters: replace(counters, names=7))


def plant_in_index(shared: program.Index) -> None:
    place = program.Place("x.py", 1, "class")
    shared.shards[program.shard_of("X")].update(program.Shard.with_places, {"X": [place]})


def plant_skipped(shared: program.Index) -> None:
    shared.skipped.update(lambda skipped: skipped.append(program.Skipped("x.py", "planted")))


def plant_taken(shared: program.Index) -> None:
    shared.next.value = 0


@pytest.mark.parametrize(
    ("plant", "words"),
    [
        (plant_in_counters, ["9 names counted, 2 in the index"]),
        (plant_in_index, ["2 names counted, 3 in the index", "2 places counted, 3 in the index"]),
        (plant_skipped, ["0 skipped files counted, 1 in the index"]),
        (plant_taken, ["2 workers with -1 files in hand"]),
    ],
)
def test_every_picture_tells_a_disagreement(plant: Callable[[program.Index], None], words: list[str]) -> None:
    shared = program.Index(["a.py", "b.py"], workers=2)
    half_done(shared)
    assert shared.picture().disagreements() == []
    plant(shared)
    assert shared.picture().disagreements() == words


def test_the_recount_finds_what_the_cheap_check_cannot() -> None:
    shared = program.Index(["a.py", "b.py"], workers=2)
    half_done(shared)
    shard = shared.shards[program.shard_of("A")]
    shard.value = replace(shard.value, names=shard.value.names.set("A", shard.value.names["A"] * 2))
    picture = shared.picture()
    assert picture.disagreements() == []
    assert any("places of shard" in wrong for wrong in picture.recount())


def test_the_photographer_catches_a_counter_that_lags_behind(
    tree: Tree, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = program.Index

    class Careless(program.Index):
        def add(self, worker: int, parsed: program.Parsed) -> None:
            forgetful = honest(self.files, len(self.counters))
            forgetful.shards = self.shards
            forgetful.add(worker, parsed)  # the places in one transaction,
            self.counters[worker].update(lambda c: c + program.Counters(files=1))  # and too little counted in another

    monkeypatch.setattr(program, "Index", Careless)
    code, out, _ = call(capsys, tree({"a.py": "x = 1\n", "b.py": "y = 1\n"}), "--threads", "1")
    assert code == 1
    assert "DISAGREEMENT: picture 1: 0 names counted, " in out
    assert " taken on the way: " in out
    assert " DISAGREEMENTS\n" in out


def test_a_place_that_the_shared_index_misses_is_named(
    tree: Tree, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lossy(program.Index):
        def add(self, worker: int, parsed: program.Parsed) -> None:
            super().add(worker, replace(parsed, definitions=parsed.definitions[1:]))

    monkeypatch.setattr(program, "Index", Lossy)
    code, out, _ = call(capsys, tree({"a.py": "lost = 1\nkept = 1\n"}))
    assert code == 1
    assert "DIFFERENT from the pass with one thread: the places of 'lost': a.py:1 variable\n" in out


def test_no_picture_taken_while_workers_add_disagrees() -> None:
    """Each of many files defines the same names, so that every transaction meets every other."""
    workers, files = 4, 400
    shared = program.Index([f"{n}.py" for n in range(files)], workers)
    photographer = program.Photographer(shared)
    crew = program.Crew()

    def add_all(worker: int) -> None:
        while (path := shared.take(worker)) is not None:
            shared.add(worker, parsed(path, "A", "B", "C", path))

    crew.run([*(partial(add_all, n) for n in range(workers)), partial(photographer.watch, crew.stop)], lambda: None)
    picture = shared.picture()
    assert photographer.pictures > 0
    assert photographer.disagreements == picture.recount() == []
    assert picture.counters == program.Counters(files=files, names=files + 3, places=4 * files, lines=files)


@pytest.mark.parametrize("error", [RuntimeError("planted"), SystemExit(3), KeyError("planted")])
@pytest.mark.parametrize("threads", ["1", "4"])
def test_an_unexpected_error_of_a_worker_stops_the_run_and_is_raised(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, error: BaseException, threads: str
) -> None:
    def fail(tree: object, path: str) -> Iterator[tuple[str, program.Place]]:
        raise error

    monkeypatch.setattr(program, "definitions", fail)
    root = tree({f"{n}.py": "" for n in range(20)})
    with pytest.raises(type(error)) as raised:
        program.main([str(root), "--threads", threads, "--no-compare"])
    assert raised.value is error


def test_an_error_of_the_photographer_stops_the_run(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object) -> list[str]:
        raise RuntimeError("planted")

    monkeypatch.setattr(program.Picture, "disagreements", fail)
    with pytest.raises(RuntimeError, match="planted"):
        program.main([str(tree({"a.py": ""}))])


def test_a_crew_stops_when_the_main_thread_fails() -> None:
    crew = program.Crew()
    stopped: list[int] = []

    @atomically
    def wait_for_stop() -> None:
        check(crew.stop.value)

    def job(number: int) -> None:
        wait_for_stop()
        stopped.append(number)

    def show() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        crew.run([partial(job, n) for n in range(3)], show, every=0.001)
    assert sorted(stopped) == [0, 1, 2]


def test_waiting_for_progress_ends_with_the_last_file_and_with_stop() -> None:
    stop = TVar(False)
    shared = program.Index(["a.py"], workers=1)
    stop.value = True
    assert not shared.await_progress(0, stop)
    stop.value = False
    shared.take(0)
    shared.add(0, parsed("a.py", "A"))
    assert shared.await_progress(0, stop)
    assert not shared.await_progress(1, stop)


def test_the_bar_without_rich_fits_one_line_and_goes_away(capsys: pytest.CaptureFixture[str]) -> None:
    with program.one_line_bar("indexing", 200) as show:
        show(0, "")
        show(100, "x" * 200)
    _, first, half, gone, rest = capsys.readouterr().err.split("\r")
    assert first.startswith("indexing [..............................] 0/200")
    assert half.startswith("indexing [###############...............] 100/200 xxx")
    assert {len(first), len(half), len(gone)} == {79}
    assert gone.strip() == rest == ""


def test_plain_progress_is_a_line_for_each_quarter(capsys: pytest.CaptureFixture[str]) -> None:
    with program.plain_lines("indexing", 8) as show:
        for done in range(9):
            show(done, "")
    assert capsys.readouterr().err.splitlines() == [
        "indexing: 8 files",
        *(f"indexing: {done} of 8" for done in (2, 4, 6, 8)),
    ]


def start(*argv: str | Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    script = ROOT / "examples" / "index_source_tree.py"
    return subprocess.Popen(
        [sys.executable, "-W", "error", str(script), *map(str, argv)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def test_runs_from_the_command_line(tree: Tree) -> None:
    root = tree({"shapes.py": SHAPES, "bad.py": "(", "sub/more.py": "class Shape: ...\n"})
    with start(root, "--threads", "2", "--find", "Shape") as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    lines = out.splitlines()
    assert lines[0].startswith(f"indexed 2 files with {SHAPES.count(chr(10)) + 1} lines below {root}: ")
    assert lines[1:3] == [
        "skipped 1 that can't be read or parsed:",
        "  bad.py: SyntaxError: line 1: '(' was never closed",
    ]
    assert "taken on the way: none disagreed with its counters" in lines[3]
    assert "had to run again because of another" in lines[4]
    assert f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}" in lines[5]
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    assert ("no GIL" in lines[5]) is not gil
    assert ("The GIL lets one thread parse at a time" in out) is gil
    assert "times as fast" in out
    assert lines[-4:] == [
        "Both passes found the same.",
        "Shape: defined in 2 places",
        "shapes.py:35 class",
        "sub/more.py:1 class",
    ]
    assert err.splitlines()[0] == "indexing, 2 threads: 3 files"


def test_ctrl_c_ends_it_at_once_with_one_line_and_code_130() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # or a child might inherit "ignore"
    try:
        process = start("--threads", "2")  # the standard library: seconds of work
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("indexing, 2 threads: ")
        sent = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert err.splitlines()[-1] == "index_source_tree: interrupted"
    assert "Traceback" not in err
    assert time.monotonic() - sent < 10
