"""Tools for the tests of `examples/web_jobs`: clients, and the program in a process of its own."""

from __future__ import annotations

import http.client
import json
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the example needs starlette")
pytest.importorskip("uvicorn", reason="the example needs uvicorn")

from examples.web_jobs.jobs import TILE
from hive_task.background import Record, SQLiteQueue
from tests.support import PATIENCE

ROOT = Path(__file__).resolve().parent.parent

SMALL = {"title": "Small", "place": "whole", "width": 80, "detail": 50}
MIDDLE = {"title": "Middle", "place": "seahorses", "width": 320, "detail": 2000}
#: Minutes of work; the first tiles take seconds each.
LARGE = {"title": "Large", "place": "spirals", "width": 1280, "detail": 5000}

View = dict[str, Any]


class Caller:
    """A client of the service, which knows nothing of the program's code."""

    def __init__(self, port: int) -> None:
        self.port = port

    def open(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)

    def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        connection = self.open()
        try:
            connection.request(method, path, body, {name.replace("_", "-"): text for name, text in headers.items()})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def get(self, path: str) -> tuple[int, Any]:
        status, content = self.send("GET", path)
        return status, json.loads(content)

    def post(self, path: str, said: object = None) -> tuple[int, Any]:
        status, content = self.send("POST", path, json.dumps(said or {}).encode(), content_type="application/json")
        return status, json.loads(content)

    def start(self, order: dict[str, Any]) -> str:
        status, told = self.post("/api/jobs", order)
        assert status == 201
        id: str = told["id"]
        return id

    @contextmanager
    def watch(self, id: str) -> Iterator[Iterator[View]]:
        """What the server tells of a job."""
        connection = self.open()
        try:
            connection.request("GET", f"/api/jobs/{id}/events")
            answer = connection.getresponse()
            assert (answer.status, answer.headers["content-type"].partition(";")[0]) == (200, "text/event-stream")
            with answer:
                yield (json.loads(line[6:]) for line in answer if line.startswith(b"data: "))
        finally:
            connection.close()

    def await_view(self, id: str, condition: Callable[[View], bool]) -> View:
        with self.watch(id) as views:
            return next(view for view in views if condition(view))

    def await_end(self, id: str) -> View:
        return self.await_view(id, lambda view: bool(view["ended"]))


class Program(Caller):
    """`python -m examples.web_jobs` in a process of its own."""

    def __init__(self, database: Path, port: int = 0) -> None:
        command = [sys.executable, "-W", "error", "-m", "examples.web_jobs"]
        command += ["--port", str(port), "--database", str(database)]
        self.process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("serving at http://127.0.0.1:"), line + "".join(self.process.communicate())
        super().__init__(int(line.split(":")[2].split()[0]))

    def end(self, number: int = signal.SIGINT) -> tuple[int, str, str]:
        """Its exit code, and what it has written."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out, err

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
            self.process.communicate()


def tiles_of(source: SQLiteQueue, id: str) -> dict[int, Record]:
    records = source.list_tasks(queue=id, name=TILE)
    return {record.task.data["number"]: record for record in records}


def unpack_png(content: bytes) -> list[bytes]:
    """The rows of a PNG file as the example makes them; every checksum is looked at."""
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    parts, at = {}, 8
    while at < len(content):
        (length,) = struct.unpack_from(">I", content, at)
        kind, data = content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", content, at + 8 + length) == (zlib.crc32(kind + data),)
        parts[kind] = data
        at += 12 + length
    assert list(parts) == [b"IHDR", b"PLTE", b"IDAT", b"IEND"]
    assert len(parts[b"PLTE"]) == 3 * 256
    width, height, *rest = struct.unpack(">IIBBBBB", parts[b"IHDR"])
    assert rest == [8, 3, 0, 0, 0]
    lines = zlib.decompress(parts[b"IDAT"])
    assert len(lines) == height * (width + 1)
    rows = [lines[first : first + width + 1] for first in range(0, len(lines), width + 1)]
    assert {row[0] for row in rows} == {0}
    return [row[1:] for row in rows]
