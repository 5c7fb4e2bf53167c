"""Tools for the tests of `SQLiteQueue`: other processes that use the same file."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]

PRELUDE = """
import os, signal, sys, time
from hive_task.background.sources import _sqlite_file
from hive_task.background.sources.sqlite import SQLiteQueue
from hive_task.background.tasks import *
path = sys.argv[1]
def say(*words):
    print(*words, flush=True)
def hear():
    return sys.stdin.readline().strip()
"""


@contextmanager
def process(path: Any, program: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that runs this program; it `say`s and `hear`s lines."""
    code = PRELUDE + textwrap.dedent(program)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        env=environment,
        cwd=ROOT,
    )
    try:
        yield child
    finally:
        child.kill()
        child.wait()
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.close()
        except BrokenPipeError:
            pass
        child.stdout.close()


def tell(child: "subprocess.Popen[str]", line: str = "go") -> None:
    assert child.stdin is not None
    child.stdin.write(line + "\n")
    child.stdin.flush()


def heard(child: "subprocess.Popen[str]") -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()
