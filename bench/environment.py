"""Where a run took place: enough to judge its figures, and nothing that identifies the machine, its user or its paths.

That others were using the machine meanwhile is part of it: figures from a busy machine deserve less trust, above all
those of several threads.

What belongs in here is a short fixed list. A host name, or a path to the interpreter, would end up in reports that
people publish.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import sys
import sysconfig
import time
import tomllib
from pathlib import Path
from typing import Any, Final

import psutil

#: Cores used by others, from which on figures of several threads are in doubt.
BUSY: Final = 0.1

DISTRIBUTION: Final = "hive-task"

#: Where `bench` and `stm` lie side by side in a checkout.
ROOT: Final = Path(__file__).resolve().parent.parent


def disturbance(others: float) -> str:
    """What the reader must know about other programs that were running."""
    doubt = "; don't trust the figures of several threads" if others > BUSY else ""
    return f"Meanwhile other programs kept {others:g} cores busy{doubt}."


def importable_here() -> dict[str, str]:
    """Environment variables for a process that is to import `bench` and `stm` from this checkout."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def gil_enabled() -> bool:
    """Does this process run with the GIL?"""
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())


def cores() -> int:
    """The cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


def library_version() -> str:
    """The version of the library under measurement: that of this checkout, else of the installed distribution."""
    try:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        if project["name"] == DISTRIBUTION:
            return str(project["version"])
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        pass
    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def interpreter_label() -> str:
    """Names the interpreter in reports, and tells the builds of one version apart."""
    label = f"{platform.python_implementation()} {platform.python_version()}"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        label += " free-threaded" + (" with the GIL on" if gil_enabled() else "")
    return label


def environment() -> dict[str, Any]:
    """What a report says about the place of the measurement."""
    return {
        "label": interpreter_label(),
        "python": platform.python_version(),
        "gil": gil_enabled(),
        "cores": cores(),
        "platform": platform.platform(),
        "library": library_version(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


class Others:
    """How much of the machine other programs use, from the making of this object on."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._all = _busy_everywhere()
        self._own = _busy_here()

    def cores(self) -> float:
        """The cores that others kept busy so far, on average."""
        elapsed = time.monotonic() - self._began
        busy = (_busy_everywhere() - self._all) - (_busy_here() - self._own)
        return max(0.0, busy / elapsed) if elapsed > 0 else 0.0


def _busy_everywhere() -> float:
    times = psutil.cpu_times()
    return float(sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq", "steal")))


def _busy_here() -> float:
    """Seconds of CPU time that this process and the ones it has started and awaited have used."""
    own = os.times()
    return own.user + own.system + own.children_user + own.children_system
