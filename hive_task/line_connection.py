"""A connection over which lines go to and fro, which never blocks and keeps little: for servers with one thread.

Promise: at most one line waits to be sent, and one to be received (of `LONGEST_LINE` bytes, and what came with it).
While something is unsent, nothing more is received: whoever asks without listening waits for himself.
"""

from __future__ import annotations

import socket
from selectors import EVENT_READ, EVENT_WRITE

#: Bytes of a line that is received.
LONGEST_LINE = 4096

#: A connection that the other side has closed raises, and is no signal, whatever the program does with signals.
_NO_SIGNAL = getattr(socket, "MSG_NOSIGNAL", 0)


class LineTooLong(ValueError):
    """A line that does not end."""


class LineConnection:
    """`ended`: nothing more will come. Every method may raise `OSError` once the other side is gone."""

    __slots__ = ("_received", "_unsent", "ended", "socket")

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.socket = connection
        self.ended = False
        self._received = b""
        self._unsent = memoryview(b"")

    @property
    def events(self) -> int:
        """What a selector is to wait for."""
        return EVENT_WRITE if self._unsent else EVENT_READ

    @property
    def free(self) -> bool:
        """Whether everything is sent, so that `put` is allowed."""
        return not self._unsent

    def receive(self) -> None:
        if self._unsent:
            return
        try:
            received = self.socket.recv(LONGEST_LINE)
        except BlockingIOError:
            return
        self._received += received
        self.ended = self.ended or not received

    def next_line(self) -> bytes | None:
        """A line that was received, None if there is no whole one."""
        first, end, rest = self._received.partition(b"\n")
        if end:
            self._received = rest
            return first
        if len(first) >= LONGEST_LINE:
            raise LineTooLong
        return None

    def put(self, line: bytes) -> None:
        assert self.free
        self._unsent = memoryview(line)

    def end_with(self, line: bytes) -> None:
        """Say this, and listen no more."""
        self._received, self.ended = b"", True
        self.put(line)

    def flush(self) -> bool:
        """Send what can be sent now; whether that was all."""
        while self._unsent:
            try:
                sent = self.socket.send(self._unsent, _NO_SIGNAL)
            except BlockingIOError:
                return False
            self._unsent = self._unsent[sent:]
        self._unsent = memoryview(b"")  # lets go of the line
        return True
