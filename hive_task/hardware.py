"""What the machine lets this process use: processors, memory; and what it uses of them.

Promises:

1. *Never raises.* A part that can't be read (another operating system, no /proc, a file that holds something else) is
   left out, and counts as no limit; the least that is reported is one processor. `found` says where each figure is
   from, as strings for a log line.
2. *The smallest limit counts.* `cpus` is the smaller of the processors that the process may run on (its affinity, which
   a cpuset sets too) and of the processor time that its control groups grant; a control group is subject to all its
   ancestors, up to the root of its hierarchy or of what is mounted here. `memory` is found alike. Version 1 and version
   2 of control groups are read, also both at once. Weights (`cpu.shares`, `cpu.weight`) are no limits: they decide only
   who goes first when there is not enough for all.
3. *The user has the last word* on the affinity: from Python 3.13 on, `PYTHON_CPU_COUNT` and `-X cpu_count` replace it.
   A smaller quota still counts.

The formats: cgroups(7), proc_pid_mountinfo(5), and the kernel's cgroup-v2.rst and cgroup-v1/memory.rst.

Costs: `detect` under a millisecond (the first call imports psutil: 20 ms and more), `usage` about 30 µs. Both read
files; neither starts a thread, nor belongs in a transaction.

>>> hardware = detect()
>>> hardware.cpus > 0 and hardware.cpus <= (hardware.affinity or hardware.cpus)
True
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Hardware:
    """What this process may use. `None`: not known, or no such limit.

    `cpus`: how many processors' worth of time, at most; may be a fraction. `logical`: processors of the machine.
    `affinity`: those that the process may run on. `quota`: the control groups' limit. `memory`: bytes, the smaller of
    the machine's and the control groups' limit. `available`: bytes of it that are not in use now. `load`: the machine's
    load average of the last minute. `gil`: whether threads of this process run Python code one at a time.
    """

    cpus: float = 1.0
    logical: int | None = None
    affinity: int | None = None
    quota: float | None = None
    memory: int | None = None
    available: int | None = None
    load: float | None = None
    gil: bool = True
    found: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.cpus:g} processors ({'; '.join(self.found) or 'nothing could be read'})"


def detect(root: str | os.PathLike[str] = "/") -> Hardware:
    """Look now. `root`: where to find proc, sys and so on, for tests."""
    logical = _attempt(lambda: int(_psutil().cpu_count(logical=True)))
    affinity, how = _affinity(logical)
    groups = _attempt(lambda: control_groups(root)) or ControlGroups()
    memory = _attempt(lambda: _psutil().virtual_memory())
    found = [f"{affinity} of the machine's {logical or '?'}: {how}", *groups.found]
    if memory:
        found.append(f"{_mib(memory.available)} of {_mib(memory.total)} are available")
    # On Windows psutil makes one up, for which it starts a thread; a load of the machine is an extra, so: none.
    load = _attempt(lambda: os.getloadavg()[0])
    if load is not None:
        found.append(f"load {load:.1f}")
    return Hardware(
        cpus=min(float(affinity), groups.quota or float(affinity)),
        logical=logical,
        affinity=affinity,
        quota=groups.quota,
        memory=_least(memory and memory.total, groups.memory),
        available=_least(memory and memory.available, groups.available),
        load=load,
        gil=getattr(sys, "_is_gil_enabled", lambda: True)(),
        found=tuple(found),
    )


def _affinity(logical: int | None) -> tuple[int, str]:
    may_use = _attempt(lambda: len(os.sched_getaffinity(0)))
    counted = _attempt(lambda: getattr(os, "process_cpu_count", lambda: None)())
    if counted and counted != (may_use or logical):
        return counted, "PYTHON_CPU_COUNT or -X cpu_count"
    may_use = may_use or _attempt(lambda: len(_psutil().Process().cpu_affinity()))  # Windows and FreeBSD
    if may_use:
        return may_use, "affinity"
    return logical or os.cpu_count() or 1, "all, for want of an affinity"


@dataclass(frozen=True, slots=True)
class ControlGroups:
    """The smallest limits along the process's control groups. `None`: no limit, or none that can be seen from here."""

    quota: float | None = None
    memory: int | None = None
    available: int | None = None
    found: tuple[str, ...] = ()


def control_groups(root: str | os.PathLike[str] = "/") -> ControlGroups:
    """Read them, on Linux. `root`: where to find proc and sys."""
    top = Path(root)
    quotas: list[tuple[float, str]] = []
    limits: list[tuple[int, str]] = []
    available: list[int] = []
    for version, controllers, folder in _places(top):
        where = "/" + folder.relative_to(top).as_posix()
        if "cpu" in controllers and (quota := _quota(version, folder)):
            quotas.append((quota, where))
        if "memory" in controllers and (limit := _number(_read(folder / _LIMIT[version]), below=_NO_LIMIT)):
            limits.append((limit, where))
            available.append(max(0, limit - _in_use(version, folder)))
    found = [f"{quota:g} processors' time: quota of {where}" for quota, where in sorted(quotas)[:1]]
    found += [f"{_mib(limit)}: memory limit of {where}" for limit, where in sorted(limits)[:1]]
    quota, limit = _least(*(one for one, _ in quotas)), _least(*(one for one, _ in limits))
    return ControlGroups(quota, limit, _least(*available), tuple(found))


_LIMIT = {1: "memory.limit_in_bytes", 2: "memory.max"}
_USAGE = {1: "memory.usage_in_bytes", 2: "memory.current"}
_CACHED = {1: "total_inactive_file", 2: "inactive_file"}

#: Version 1 says "no limit" with the largest multiple of the page size that a signed 64-bit number holds.
_NO_LIMIT = 1 << 60


class _Mount(NamedTuple):
    version: int
    controllers: frozenset[str]
    root: tuple[str, ...]
    point: Path


def _places(top: Path) -> Iterator[tuple[int, frozenset[str], Path]]:
    """Each directory that may hold a limit of this process: version, controllers, directory."""
    mounts = list(_mounts(top))
    for line in _read(top / "proc/self/cgroup").splitlines():
        hierarchy, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        version, controllers = (2, _BOTH) if hierarchy == "0" and not names else (1, _BOTH & set(names.split(",")))
        fitting = [one for one in mounts if one.version == version and one.controllers & controllers]
        parts = _parts(path)
        # A container may see a path from the host's point of view, or a mount of its own group alone. If the two don't
        # fit together, or the path leads out of what is visible, the mount itself is all that there is to see.
        below = [one for one in fitting if parts[: len(one.root)] == one.root and ".." not in parts]
        for mount in below or fitting:
            inner = parts[len(mount.root) :] if below else ()
            for depth in range(len(inner), -1, -1):
                yield version, controllers, mount.point.joinpath(*inner[:depth])


_BOTH = frozenset({"cpu", "memory"})


def _mounts(top: Path) -> Iterator[_Mount]:
    for line in _read(top / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        version = 2 if kind[0] == "cgroup2" else 1
        controllers = _BOTH if version == 2 else _BOTH & set(kind[2].split(","))
        yield _Mount(version, controllers, _parts(_plain(fields[3])), top.joinpath(*_parts(_plain(fields[4]))))


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.split("/") if part and part != ".")


def _plain(field: str) -> str:
    """Without the octal escapes of blanks and backslashes."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def _quota(version: int, folder: Path) -> float | None:
    if version == 2:
        words = _read(folder / "cpu.max").split()
    else:
        words = [*_read(folder / "cpu.cfs_quota_us").split()[:1], *_read(folder / "cpu.cfs_period_us").split()[:1]]
    quota = _number(words[0]) if words else None
    period = _number(words[1]) if len(words) > 1 else 100_000
    return quota / period if quota and period else None


def _in_use(version: int, folder: Path) -> int:
    """Without the part of the page cache that the kernel gives back first."""
    usage = _number(_read(folder / _USAGE[version])) or 0
    cached = re.search(rf"^{_CACHED[version]} (\d+)$", _read(folder / "memory.stat"), re.MULTILINE)
    return max(0, usage - (int(cached[1]) if cached else 0))


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="surrogateescape")
    except (OSError, ValueError):
        return ""


def _number(text: str, below: int = 1 << 63) -> int | None:
    """A positive number; `None` for "max", -1, and what is no number."""
    word = text.strip()
    value = int(word) if word.isascii() and word.isdigit() and len(word) < 20 else 0
    return value if 0 < value < below else None


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used up to a moment, in seconds: of processor time by the process (and its worker processes), and by
    all that runs on the machine, of so much that the machine had to give. Two of them say how much in between."""

    at: float
    process: float
    machine: float = 0.0
    capacity: float = 0.0

    def since(self, earlier: Usage) -> tuple[float, float | None]:
        """How many processors the process used on average, and the fraction of all the machine's that were in use.

        >>> Usage(12.0, 4.5, machine=40.0, capacity=68.0).since(Usage(10.0, 1.5, machine=37.0, capacity=64.0))
        (1.5, 0.75)
        """
        span, capacity = self.at - earlier.at, self.capacity - earlier.capacity
        process = max(0.0, self.process - earlier.process) / span if span > 0 else 0.0
        machine = min(1.0, max(0.0, self.machine - earlier.machine) / capacity) if capacity > 0 else None
        return process, machine


def usage(processes: Iterable[int] = ()) -> Usage:
    """Look now. `processes`: identifiers of the worker processes, whose time counts as this process's; the time of one
    that has ended is missing."""
    times = _attempt(lambda: _psutil().cpu_times()._asdict()) or {}
    guests = times.get("guest", 0.0) + times.get("guest_nice", 0.0)  # these are part of user and nice also
    capacity = sum(times.values()) - guests
    waiting = times.get("idle", 0.0) + times.get("iowait", 0.0)
    own = time.process_time() + sum(_attempt(partial(_process_time, pid)) or 0.0 for pid in processes)
    return Usage(time.monotonic(), own, capacity - waiting, capacity)


def _process_time(pid: int) -> float:
    times = _psutil().Process(pid).cpu_times()
    return float(times.user + times.system)


def _psutil() -> Any:
    return importlib.import_module("psutil")  # when it is needed: it takes longer to import than all of this package


def _attempt(look: Callable[[], T]) -> T | None:
    try:
        return look()
    except Exception:  # an extra that this system does not tell; psutil has errors of its own for that
        return None


def _least(*known: Any) -> Any:
    return min((one for one in known if one is not None), default=None)


def _mib(size: int) -> str:
    return f"{size / (1 << 20):,.0f} MiB"
