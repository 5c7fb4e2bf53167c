"""The other end of `monitor.py`: what a running program shows of itself, as it comes.

`watch(path, interval)` yields a `Report` every `interval` seconds until the program ends; `messages(path, interval)`
yields the same as plain dictionaries, as they were sent. Closing the generator, or any exception in it, closes the
connection.

Errors: `FileNotFoundError` (no such socket), `PermissionError` (a program of somebody else), `ConnectionRefusedError`
(its program has ended), `MonitorError` (something else is there; or it could not take a picture, and why).

>>> picture_from({"name": "s", "state": "new", "taken": 0, "uptime": 0, "totals": {"queued": 2}, "colour": 1}).totals
Totals(submitted=0, queued=2, running=0, finished=0, failed=0, cancelled=0)
"""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, fields
from typing import Any, BinaryIO, TypeVar

from pyrsistent import pmap

from hive_task.errors import HiveTaskError
from hive_task.monitor_protocol import LONGEST, PROTOCOL, SHORTEST
from hive_task.picture import (
    Change,
    FunctionProfile,
    Percentiles,
    Picture,
    QueuePicture,
    RunningWork,
    Totals,
    WorkerPicture,
)

R = TypeVar("R")

#: Seconds for the first answer. After that, a program may be stopped for as long as it likes.
PATIENCE = 10.0

#: Bytes of a message.
LONGEST_MESSAGE = 1 << 28


class MonitorError(HiveTaskError):
    """What answers is no monitor of hive-task, or one of another protocol, or it has no picture to show."""


@dataclass(frozen=True, slots=True)
class Program:
    """The process that is watched. `gil`: whether it runs with the global interpreter lock."""

    pid: int = 0
    argv0: str = ""
    implementation: str = ""
    python: str = ""
    gil: bool = True


@dataclass(frozen=True, slots=True)
class Counted:
    """What was counted of one transaction: the fields of `stm.stats.Record`. `conflicts`: the worst variables."""

    name: str
    commits: int = 0
    aborts: int = 0
    retries: int = 0
    extensions: int = 0
    waits: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    failures: int = 0
    conflicts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Report:
    """A picture, whose it is, and the transactions counted in the last `counted_for` seconds (None: not counted)."""

    picture: Picture
    program: Program = Program()
    transactions: Mapping[str, Counted] | None = None
    counted_for: float = 0.0


def watch(path: str | os.PathLike[str], interval: float | None = 0.5) -> Iterator[Report]:
    """Reports every `interval` seconds (None: one only) until the program ends."""
    for message in messages(path, interval):
        yield report_from(message)


def messages(path: str | os.PathLike[str], interval: float | None = 0.5) -> Iterator[dict[str, Any]]:
    """What `watch` is made from: the messages that `monitor.py` describes."""
    request: dict[str, Any] = {"want": "picture"}
    if interval is not None:
        if not SHORTEST <= interval <= LONGEST:
            raise ValueError(f"the interval must be from {SHORTEST} to {LONGEST:.0f} seconds, not {interval!r}")
        request["interval"] = interval
    with closing(_connect(os.fsdecode(path))) as connection, connection.makefile("rb") as lines:
        try:
            try:
                connection.sendall(json.dumps(request).encode() + b"\n")
            except ConnectionError:
                pass  # it may have said why before it hung up
            message = _read(lines, path)
        except TimeoutError:
            raise MonitorError(f"{path} does not answer; it is no monitor of hive-task, or its program hangs") from None
        except ConnectionError:
            message = None
        if message is None:
            raise MonitorError(
                f"{path} has hung up without an answer; it is no monitor of hive-task, or has just ended"
            )
        connection.settimeout(None)
        while message is not None:
            yield message
            if interval is None:
                return
            try:
                message = _read(lines, path)
            except ConnectionError:
                return


def _connect(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(PATIENCE)
    try:
        connection.connect(path)
    except BaseException as error:
        connection.close()
        if isinstance(error, OSError):
            raise _explained(error, path) from None
        raise
    return connection


def _explained(error: OSError, path: str) -> Exception:
    match error:
        case FileNotFoundError():
            return FileNotFoundError(errno.ENOENT, "there is no such socket", path)
        case PermissionError():
            return PermissionError(errno.EACCES, "not permitted: the program belongs to somebody else", path)
        case ConnectionRefusedError() if _is_socket(path):
            return ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens there: the program has ended", path)
        case TimeoutError() | BlockingIOError():
            return MonitorError(f"{path} does not answer")
    return MonitorError(f"{path} is no monitor of hive-task ({error.strerror or error})")


def _is_socket(path: str) -> bool:
    return stat.S_ISSOCK(os.stat(path).st_mode)


def _read(lines: BinaryIO, path: Any) -> dict[str, Any] | None:
    """The next message; None if the program has ended, be it in the middle of one."""
    line = lines.readline(LONGEST_MESSAGE)
    if not line.endswith(b"\n") and len(line) < LONGEST_MESSAGE:
        return None
    try:
        message = json.loads(line)
    except ValueError:
        message = None
    if not isinstance(message, dict) or not ("error" in message or message.get("monitor") == "hive-task"):
        raise MonitorError(f"{path} is no monitor of hive-task")
    if "error" in message:
        raise MonitorError(f"{path}: {message['error']}")
    if message.get("protocol") != PROTOCOL:
        raise MonitorError(
            f"{path} speaks protocol {message.get('protocol')!r}, this is {PROTOCOL}: use the hive-task of its program"
        )
    return message


def report_from(message: Mapping[str, Any]) -> Report:
    """The report that a message holds; what it has more than this version knows is left out."""
    try:
        counted = message.get("transactions")
        return Report(
            picture_from(message["picture"]),
            _make(Program, message["program"]),
            None if counted is None else {name: _make(Counted, one) for name, one in counted["records"].items()},
            0.0 if counted is None else counted["seconds"],
        )
    except (TypeError, LookupError, AttributeError) as error:
        raise MonitorError(f"a message that is not understood: {error!r}") from error


def picture_from(plain: Mapping[str, Any]) -> Picture:
    """The picture of which `plain` is the `as_dict()`, perhaps by way of JSON."""
    made = dict(plain, totals=_make(Totals, plain["totals"]))
    made["workers"] = tuple(map(_worker, plain.get("workers", ())))
    made["queues"] = tuple(_make(QueuePicture, one) for one in plain.get("queues", ()))
    made["changes"] = tuple(_make(Change, one) for one in plain.get("changes", ()))
    made["functions"] = pmap({name: _make(FunctionProfile, one) for name, one in plain.get("functions", {}).items()})
    for name in ("waits", "durations"):
        made[name] = _make(Percentiles, plain.get(name, {}))
    return _make(Picture, made)


def _worker(plain: Mapping[str, Any]) -> WorkerPicture:
    return _make(WorkerPicture, dict(plain, works=tuple(_make(RunningWork, one) for one in plain.get("works", ()))))


def _make(kind: type[R], plain: Mapping[str, Any]) -> R:
    known = {item.name for item in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in plain.items() if name in known})
