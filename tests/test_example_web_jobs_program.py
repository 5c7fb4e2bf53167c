"""`examples/web_jobs` as a program: stopped and killed in the middle, started wrongly or without its libraries."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from examples.web_jobs.picture import TILES
from hive_task.background import SQLiteQueue
from hive_task.background.tasks import DONE, RUNNING
from tests.support import PATIENCE
from tests.web_jobs import MIDDLE, ROOT, Program, View, tiles_of, unpack_png


def some_done(view: View) -> bool:
    assert not view["ended"]
    return len([tile for tile in view["tiles"] if tile["state"] == DONE]) >= 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_after_an_orderly_stop_in_the_middle_the_job_goes_on(tmp_path: Path, number: int) -> None:
    database = tmp_path / "jobs.sqlite"
    with Program(database) as program:
        id = program.start(MIDDLE)
        with program.watch(id) as views:
            next(view for view in views if some_done(view))
            code, out, err = program.end(number)
            assert list(views) is not None  # the stream has an end
    assert (code, err) == (0, "")
    assert out.startswith("stopping: what is being rendered will end\nstopped; ")
    assert "tasks wait in" in out
    source = SQLiteQueue(database)
    before = tiles_of(source, id)
    source.close()
    done = [number for number in before if before[number].state == DONE]
    assert len(done) >= 3
    assert not [record for record in before.values() if record.state == RUNNING or record.crashes]

    with Program(database) as program:
        assert program.await_end(id)["state"] == "done"
        code, out, err = program.end()
    assert (code, out, err) == (0, "stopping: what is being rendered will end\nstopped; all is done\n", "")
    source = SQLiteQueue(database)
    after = tiles_of(source, id)
    source.close()
    assert [after[number] for number in done] == [before[number] for number in done]
    assert {record.attempts for record in after.values()} == {1}
    assert [path.name for path in tmp_path.iterdir()] == ["jobs.sqlite"]


def test_after_a_kill_in_the_middle_the_job_goes_on(tmp_path: Path) -> None:
    database = tmp_path / "jobs.sqlite"
    with Program(database) as program:
        id = program.start(MIDDLE)
        program.await_view(id, some_done)
        program.end(signal.SIGKILL)
    with Program(database) as program:
        assert program.await_end(id)["state"] == "done"
        status, content = program.send("GET", f"/api/jobs/{id}/picture.png")
        assert (status, len(unpack_png(content))) == (200, 200)
        assert program.end()[0] == 0
    source = SQLiteQueue(database)
    records = tiles_of(source, id).values()
    assert source.count_tasks()[id] == {DONE: TILES + 1}
    source.close()
    assert all(record.attempts == 1 + record.crashes for record in records)


def test_without_starlette_or_uvicorn_it_says_what_to_install() -> None:
    for missing in ("starlette", "uvicorn"):
        run = "runpy.run_module('examples.web_jobs', run_name='__main__')"
        code = f"import runpy, sys; sys.modules[{missing!r}] = None; {run}"
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT
        )
        assert (done.returncode, done.stdout, done.stderr) == (
            1,
            "",
            'web_jobs needs starlette and uvicorn: pip install "hive-task[web]"\n',
        )


def test_a_wrong_option_is_one_clear_line_and_code_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from examples.web_jobs.__main__ import main

    def ends(*argv: str) -> tuple[Any, str]:
        try:
            code: Any = main(argv)
        except SystemExit as end:
            code = end.code
        out, err = capsys.readouterr()
        assert not out
        return code, err

    assert ends("--port", "70000") == (2, "web_jobs: argument --port: a whole number from 0 to 65,535, not '70000'\n")
    assert ends("--workers", "0") == (2, "web_jobs: argument --workers: a whole number from 1 to 100, not '0'\n")
    with socket.create_server(("127.0.0.1", 0)) as other:
        code, err = ends("--port", str(other.getsockname()[1]), "--database", str(tmp_path / "a"))
    assert (code, err.startswith("web_jobs: "), err.count("\n")) == (2, True, 1)
    (tmp_path / "text").write_text("This is no database. " * 100)
    code, err = ends("--port", "0", "--database", str(tmp_path / "text"))
    assert (code, err.startswith("web_jobs: "), err.count("\n")) == (2, True, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text"]


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this interpreter has a GIL")
def test_its_libraries_leave_the_gil_off() -> None:
    assert os.environ.get("PYTHON_GIL") == "1" or not getattr(sys, "_is_gil_enabled", bool)()
