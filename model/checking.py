"""Have spin go through a configuration: generate the checker, compile it, run it, read its answer.

All of it happens in a temporary folder. `missing()` says what this machine lacks; without spin and a C compiler nothing
can be checked. A run that could not go through every state (memory, depth) is an error, never a success.

>>> read_answer("State-vector 80 byte, depth reached 252, errors: 0\\n   828372 states, stored\\n").states
828372
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from model.configurations import Configuration

HERE: Final = Path(__file__).parent
MEGABYTES: Final = 6000
DEPTH: Final = 100_000

_FLAGS: Final = {"safety": ["-DSAFETY", "-DNOFAIR"], "termination": ["-DNP", "-DNFAIR=3"]}
_OPTIONS: Final = {"safety": [], "termination": ["-l", "-f"]}


class CheckFailed(Exception):
    """The check could not be made: the model is not accepted, or the search was cut short."""


@dataclass(frozen=True)
class Answer:
    """What spin found. `error` is its first complaint, None if all is well; `trail` leads to it, if asked for."""

    states: int
    depth: int
    error: str | None
    seconds: float = 0.0
    trail: str = ""


def compiler() -> str | None:
    """A C compiler, None if there is none."""
    return next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)


def missing() -> str | None:
    """What is missing for a check, None if nothing is."""
    if shutil.which("spin") is None:
        return "spin is not installed (https://spinroot.com; the package is called spin)"
    if compiler() is None:
        return "there is no C compiler, which spin needs"
    return None


def check(
    configuration: Configuration, *more: str, trail: bool = False, seconds: float | None = None, brief: bool = False
) -> Answer:
    """Check one configuration, with `more` names defined, for at most so many seconds.

    `brief`: it will not take long, so the checker is not worth optimising.
    `CheckFailed` if spin refuses the model or could not finish; `subprocess.TimeoutExpired` if the time is up.
    """
    cc = compiler()
    if cc is None:
        raise CheckFailed(missing())
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="model-") as folder:
        for file in HERE.glob("*.pml"):
            shutil.copy(file, folder)
        defines = [f"-D{name}" for name in (*configuration.defines, *more)]
        _run(folder, ["spin", f"-P{cc} -E -x c", *defines, "-a", configuration.scenario])
        flags = [*_FLAGS[configuration.kind], "-DCOLLAPSE", f"-DMEMLIM={MEGABYTES}"]
        _run(folder, [cc, "-O0" if brief else "-O2", "-w", *flags, "-o", "pan", "pan.c"])
        command = ["./pan", f"-m{DEPTH}", "-w20" if brief else "-w24", *_OPTIONS[configuration.kind]]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=seconds, check=False)
        answer = read_answer(done.stdout + done.stderr)
        steps = ""
        if trail and answer.error is not None:
            steps = _run(folder, ["./pan", "-r", *_OPTIONS[configuration.kind]], accept_failure=True)
    return Answer(answer.states, answer.depth, answer.error, time.monotonic() - begun, steps)


def _run(folder: str, command: list[str], accept_failure: bool = False) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    output = done.stdout + done.stderr
    if not accept_failure and (done.returncode or re.search(r"^spin: .*error", output, re.IGNORECASE | re.MULTILINE)):
        raise CheckFailed(f"{' '.join(command)} says:\n{output}")
    return output


def read_answer(output: str) -> Answer:
    """What a run of the checker says. `CheckFailed` if it did not go through all states."""
    depth = re.search(r"depth reached (\d+), errors: (\d+)", output)
    states = re.search(r"([\d.e+]+) states, stored", output)
    if depth is None or states is None:
        raise CheckFailed(f"the checker did not finish:\n{output}")
    complaint = re.search(r"^pan:\d+: (.*)$", output, re.MULTILINE)
    error = complaint[1] if complaint is not None else None
    if error is None and (int(depth[2]) or re.search("search depth too small|MEMLIM|out of memory", output)):
        raise CheckFailed(f"the search was cut short:\n{output}")
    if error is not None and "invalid array index" in error:
        raise CheckFailed(f"the model is at fault, not the protocol:\n{output}")
    return Answer(int(float(states[1])), int(depth[1]), error)
