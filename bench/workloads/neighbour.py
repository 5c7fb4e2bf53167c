"""Processes that run some transactions when they are told to, so that two of them can be measured in turns.

While one runs, the other sleeps. So what slows the machine down for a while slows both down, though one of them is in a
state that can't be undone, such as having loaded something.
"""

from __future__ import annotations

import json
import subprocess
import sys
from types import TracebackType
from typing import Any

from bench.environment import ROOT, importable_here
from bench.harness import InvariantError
from bench.programs.clock_neighbour import ACCOUNTS


class Neighbour:
    """A process of one of `bench.programs`, as a context. `run` gives the seconds a transaction took."""

    def __init__(self, program: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"bench.programs.{program}", *arguments],
            cwd=ROOT,
            env=importable_here(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        try:
            self._answer()  # it is ready
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def __enter__(self) -> Neighbour:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def run(self, operation: str, count: int) -> float:
        """Seconds per transaction. `count` is rounded down to whole rounds."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{operation} {count}\n")
        self._process.stdin.flush()
        return float(self._answer()) / (count // ACCOUNTS * ACCOUNTS)

    def end(self) -> Any:
        """What the process holds at its end."""
        out, _ = self._process.communicate()
        return json.loads(out)

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise InvariantError(f"a process ended before its time, with status {self._process.wait()}")
        return line
