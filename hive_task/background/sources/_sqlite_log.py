"""`Room`: the write-ahead log of a `SQLiteQueue` is made longer before it has to be.

To make bytes durable that lie within a file takes the disk less than to make the file longer: for that the file system
has to make its own books durable as well. SQLite's log grows with each commit until it has been copied into the file
for the first time, and is written over from then on. So a file that is written to often gets its log's space at once, a
`CHUNK` of zeros at a time. (Putting in tasks one by one, with `synchronous=FULL`: 40 % less time each,
until the log has been copied.) Databases with a log of their own kind do the same.

The log's length is looked at seldom: who asks for it makes the next write more expensive. Linux then takes down the
time of that write exactly, and where the file system has no journal, `fdatasync` writes the inode as well.

Why it is safe. Who makes it longer has the file's lock for writing, so nobody else writes to the log meanwhile, and
what is written lies behind all that SQLite has written. A reader of the log, a recovering one too, stops at the first
frame that does not bear the salt of this log, and zeros don't. A disk that is nearly full is left alone; one that
becomes full in the act gets back what was taken. Nothing of this is needed: if it fails, nothing has happened.
"""

from __future__ import annotations

import os
from typing import Final

#: Steps of this process after which it is one that writes often, and between two looks.
OFTEN: Final = 16
#: Bytes that are added at once; and how long the log may become by that, which is what it has when it is copied.
CHUNK: Final = 1 << 20
LONGEST: Final = 4 << 20
#: So many times as much must be free on the disk.
SPACIOUS: Final = 64


class Room:
    def __init__(self, path: str) -> None:
        self._path = f"{path}-wal"
        self._file = -1
        self._steps = 0
        #: Bytes that it has, as far as it was made longer here.
        self._made = 0

    def look(self) -> None:
        """Called in a transaction that has the lock for writing: make the log longer if it is time."""
        self._steps += 1
        if self._steps % OFTEN or self._made >= LONGEST:
            return
        try:
            if self._file < 0:
                self._file = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
            size = os.fstat(self._file).st_size
            if size > self._made:
                self._lengthen(size)
        except OSError:
            self._made = LONGEST  # it does as well as it is

    def _lengthen(self, size: int) -> None:
        if size + CHUNK > LONGEST:
            self._made = LONGEST
            return
        disk = os.fstatvfs(self._file)
        if disk.f_bavail * disk.f_frsize < SPACIOUS * CHUNK:
            self._made = LONGEST
            return
        try:
            written = os.pwrite(self._file, bytes(CHUNK), size)
        except OSError:
            os.ftruncate(self._file, size)
            raise
        self._made = size + written

    def close(self) -> None:
        """Forget the file: the log may be another one when this is used next."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1
        self._made = 0
