"""Pictures of a running program for whoever may see them: JSON lines over a Unix socket. `watching.py` reads them.

`serve(picture_source, path)` listens at `path`, and answers in one daemon thread until `close()`:

    -> {"want": "picture"}                   one picture, now
    -> {"want": "picture", "interval": 0.5}  one now and every half second, until the next request or the end
    <- {"monitor": "hive-task", "protocol": 1, "program": {...}, "picture": {...}, "transactions": {...}}
    <- {"error": "..."}                      to what is no such request, or if no picture could be taken

`program` tells the process: `pid`, `argv0`, `implementation`, `python`, `gil`. `picture` is `Picture.as_dict()`.
`transactions` is what `stm.stats` has counted since somebody is watching: `seconds` (so long ago), `records` by name
(the `MOST_RECORDS` with most aborts, then most seconds), and how many more were `omitted`; null with
`statistics=False`.

Promises:
1. Nobody but the owner of the process, and root, is served: the file's rights say so from its first moment
   (`private_socket.py`), and where the system tells who calls, he is asked.
2. While nobody is connected the thread sleeps and nothing is counted. `stm.stats` counts while somebody is connected.
3. Who reads slowly, or vanishes, delays nobody: he misses pictures. At most one line is kept for each.
4. What the source raises is told to the watchers and logged, and does no harm.
5. `close()` ends the thread and every connection, and removes the file if it is still this server's; again, it does
   nothing. If it is not called, that is done at exit. A forked child serves nothing, and keeps no connection open.

Cost: a picture is taken and encoded once, however many are to have it at that moment.

A program that itself uses `stm.stats` while nobody watches should know that counting starts from zero when somebody
begins to watch, unless it counts at that moment.
"""

from __future__ import annotations

import atexit
import logging
import os
import selectors
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType

from hive_task.line_connection import LineConnection, LineTooLong
from hive_task.monitor_protocol import Refused, interval_wanted, line, message
from hive_task.picture import Picture
from hive_task.private_socket import Identity, listen_privately, remove
from stm import stats

#: He may do everything anyway.
ROOT = 0

#: Seconds before more connections are accepted, after there was no file descriptor for one.
PAUSE = 1.0

_logger = logging.getLogger(__name__)


def serve(picture_source: Callable[[], Picture], path: str | os.PathLike[str], *, statistics: bool = True) -> Server:
    """Serve the pictures that `picture_source()` returns, at a new Unix socket. Errors: see `private_socket.py`.

    The source is called in the server's thread. With `statistics=False` transactions are not counted.
    """
    if not callable(picture_source):
        raise TypeError(f"picture_source must be callable and return a Picture, not {type(picture_source).__name__}")
    return Server(picture_source, os.path.abspath(os.fsdecode(path)), statistics)


class _Client(LineConnection):
    """`interval`: how often it wants pictures, and when the next is `due`."""

    __slots__ = ("due", "interval")

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection)
        self.interval: float | None = None
        self.due = 0.0


class Server:
    """Serves pictures until `close()`. Made by `serve()`; also a context manager. `path` is absolute."""

    def __init__(self, picture_source: Callable[[], Picture], path: str, statistics: bool) -> None:
        self.path = path
        self._source = picture_source
        self._statistics = statistics
        self._counting_since: float | None = None
        self._clients: set[_Client] = set()
        self._accepts_from: float | None = None  # while no more connections are accepted
        self._message: bytes | None = None  # of this turn
        self._failed = False
        self._lock = threading.RLock()  # a signal handler may close, too
        self._closing = False
        self._identity: Identity | None = None
        self._selector = selectors.DefaultSelector()
        self._ear, self._bell = socket.socketpair()
        self._sockets = [self._ear, self._bell]
        self._thread = threading.Thread(target=self._run, name="hive-task monitor", daemon=True)
        try:
            self._listener, self._identity = listen_privately(path)
            self._sockets.append(self._listener)
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
            self._selector.register(self._ear, selectors.EVENT_READ, self._hear)
            _servers[id(self)] = self
            self._thread.start()
        except BaseException:
            self._release()
            raise
        atexit.register(self.close)

    @property
    def closed(self) -> bool:
        return self._closing

    def close(self) -> None:
        """End all connections, remove the file, end the thread. From the picture source: once that has returned."""
        with self._lock:
            if not self._closing:
                self._closing = True
                self._bell.send(b"\0")
        if threading.current_thread() is not self._thread:
            self._thread.join()
        atexit.unregister(self.close)

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<hive_task.monitor.Server at {self.path!r}{', closed' if self._closing else ''}>"

    def _run(self) -> None:
        try:
            while not self._closing:
                self._turn()
        finally:
            self._release()

    def _turn(self) -> None:
        """Sleep until something happens or is due, and do that."""
        for key, _ in self._selector.select(self._seconds_to_sleep()):
            key.data()
        now = time.monotonic()
        for client in [client for client in self._clients if client.interval is not None and client.due <= now]:
            self._send_due(client, now)
        if self._accepts_from is not None and self._accepts_from <= now:
            self._accepts_from = None
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._message = None

    def _seconds_to_sleep(self) -> float | None:
        moments = [client.due for client in self._clients if client.interval is not None]
        if self._accepts_from is not None:
            moments.append(self._accepts_from)
        return max(0.0, min(moments) - time.monotonic()) if moments else None

    def _hear(self) -> None:
        self._ear.recv(1)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return  # it has gone again
        except OSError:  # too many files are open: it would be tried again at once, for ever
            _logger.warning("%r can't accept a connection now", self, exc_info=True)
            self._selector.unregister(self._listener)
            self._accepts_from = time.monotonic() + PAUSE
            return
        client = _Client(connection)
        self._clients.add(client)
        self._selector.register(connection, client.events, lambda: self._advance(client))
        if _caller(connection) not in (None, ROOT, os.geteuid()):
            client.end_with(line({"error": "not permitted: this program belongs to somebody else"}))
            self._advance(client)
        elif self._statistics and self._counting_since is None:
            stats.enable()
            self._counting_since = time.monotonic()

    def _advance(self, client: _Client) -> None:
        """Receive requests and send answers, as far as that goes at this moment."""
        try:
            client.receive()
            while client.flush() and (request := client.next_line()) is not None:
                client.put(self._answer(client, request))
        except LineTooLong:
            client.interval = None
            client.end_with(line({"error": "the request is too long"}))
            self._advance(client)
            return
        except OSError:
            self._drop(client)
            return
        if client.ended and client.free:
            self._drop(client)
        elif (key := self._selector.get_key(client.socket)).events != client.events:
            self._selector.modify(client.socket, client.events, key.data)

    def _drop(self, client: _Client) -> None:
        self._selector.unregister(client.socket)
        client.socket.close()
        self._clients.discard(client)
        if not self._clients:
            self._stop_counting()

    def _stop_counting(self) -> None:
        if self._counting_since is not None:
            self._counting_since = None
            stats.disable()

    def _send_due(self, client: _Client, now: float) -> None:
        assert client.interval is not None
        client.due = now + client.interval
        if client.free:
            client.put(self._picture())
            self._advance(client)

    def _answer(self, client: _Client, request: bytes) -> bytes:
        try:
            client.interval = interval_wanted(request)
        except Refused as refused:
            return line({"error": str(refused)})
        if client.interval is not None:
            client.due = time.monotonic() + client.interval
        return self._picture()

    def _picture(self) -> bytes:
        if self._message is None:
            try:
                self._message = line(message(self._source(), self._counting_since))
                self._failed = False
            except Exception as error:
                self._message = line({"error": f"no picture could be taken: {error!r}"})
                if not self._failed:  # once is enough, until it works again
                    _logger.exception("no picture could be taken")
                self._failed = True
        return self._message

    def _release(self) -> None:
        """Leave nothing behind, wherever this is called from."""
        with self._lock:
            self._closing = True
            if self._identity is not None:
                remove(self.path, self._identity)
            self._close_files()
            self._stop_counting()

    def _close_files(self) -> None:
        _servers.pop(id(self), None)
        for one in (*self._sockets, *(client.socket for client in self._clients)):
            one.close()
        self._selector.close()
        self._clients.clear()

    def _abandon(self) -> None:
        """In a forked child: the file and the connections are the parent's; a thread that is gone may have the lock."""
        self._lock = threading.RLock()
        self._closing = True
        self._close_files()
        self._stop_counting()


_servers: dict[int, Server] = {}


def _abandon_servers() -> None:
    for server in list(_servers.values()):
        server._abandon()


os.register_at_fork(after_in_child=_abandon_servers)


def _caller(connection: socket.socket) -> int | None:
    """The user who calls; None where the system does not tell."""
    if sys.platform != "linux":
        return None
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    user: int = struct.unpack("3i", credentials)[1]  # between the process and the group
    return user
