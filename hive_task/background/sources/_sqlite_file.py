"""`File`: the connections to the file of a `SQLiteQueue`, its transactions, and what its errors mean.

One connection writes, by one thread at a time: `BEGIN IMMEDIATE` takes the file's lock before anything is read, so no
transaction fails half-way for another's sake. Threads that wait for each other share a transaction (`_sqlite_joint`).
Those that only read have connections of their own, as many as read at the same time, and wait for nobody.

Forks. SQLite keeps in the memory of a process which locks it has, a forked child has a copy of that memory, and none of
the locks: with a file that was open it would believe what is not so. So `os.fork` first waits for the transactions
under way, and closes all connections; parent and child open their own when they next need one.

`_at` is called at the points at which a crash would be most unwelcome: before and after each commit.
"""

from __future__ import annotations

import ctypes
import os
import random
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from hive_task.background.sources._sqlite_joint import LOOKING, MOST, Joint, Turns
from hive_task.background.sources._sqlite_log import Room
from hive_task.background.sources._sqlite_schema import APPLICATION_ID, SCHEMA, UPGRADES, VERSION
from hive_task.errors import SourceError, UnserializableData

#: Connections for reading that are kept, once opened.
SPARE: Final = 4
#: Pages in the log before they are copied into the file. What is changed again until then is copied once; but a disk
#: takes longer for what it has not been written to before: of 1,000 tasks put in one by one into a new file, each took
#: 260 µs with 4,000 pages, 180 with 800, and no less with 250, which cost batches a tenth.
CHECKPOINT: Final = 800
#: Kilobytes of pages that a connection keeps.
CACHE: Final = 16_000
LEVELS: Final = ("FULL", "NORMAL", "OFF")

ADVICE: Final = {
    "SQLITE_FULL": "the disk is full; make room and try again",
    "SQLITE_READONLY": "it, or the directory it is in, can't be written; make both writable for this user",
    "SQLITE_CANTOPEN": "it can't be opened; is its directory there, and are both readable and writable for this user?",
    "SQLITE_BUSY": "another process kept it locked longer than the busy_timeout; find that process, or wait longer",
    "SQLITE_LOCKED": "another process kept it locked longer than the busy_timeout; find that process, or wait longer",
    "SQLITE_NOTADB": "it is not a SQLite database; name another file",
    "SQLITE_CORRUPT": "it is damaged; restore it from a copy, or save what can be read with SQLite's .recover",
    "SQLITE_IOERR": "the disk failed to read or write; is it full or broken?",
    "SQLITE_PERM": "the system does not permit access to it; make it readable and writable for this user",
}

_files: weakref.WeakSet[File] = weakref.WeakSet()


def _at(point: str) -> None:
    """Nothing. Tests put in its place what kills the process at a point: `enqueue:before`, `enqueue:after`, ..."""


def failed(path: str, error: sqlite3.Error) -> SourceError:
    """What a SQLite error means for the caller."""
    name = getattr(error, "sqlite_errorname", "")
    for code, advice in ADVICE.items():
        if name.startswith(code):
            return SourceError(f"{path}: {advice} ({error})")
    return SourceError(f"{path}: {error} ({name or type(error).__name__}); nothing has been changed")


class File:
    """The file, created and checked by the first connection."""

    _writer: sqlite3.Connection | None

    def __init__(self, path: str, synchronous: str, busy_timeout: float) -> None:
        if synchronous not in LEVELS:
            raise ValueError(f"synchronous is one of {', '.join(LEVELS)}, not {synchronous!r}")
        if sqlite3.sqlite_version_info < (3, 35):
            raise SourceError(f"{path}: SQLite {sqlite3.sqlite_version} is too old; at least 3.35 is needed")
        self.path = path
        self.busy_timeout = busy_timeout
        self._synchronous = synchronous
        self.closed = False
        self._reset()
        _files.add(self)
        self._writer = self._connect(create=True)

    def _reset(self) -> None:
        self._turns = Turns()
        #: The transaction that is open for the next thread to go on with.
        self._joint: Joint | None = None
        #: Guards what follows: is somebody about to fork, and how many connections are lent to readers?
        self._gate = threading.Condition(threading.Lock())
        self.forking = False
        self._lent = 0
        self._writer = None
        self._readers: list[sqlite3.Connection] = []
        self._room = Room(self.path)

    def before_fork(self) -> None:
        with self._gate:
            self.forking = True
        self._locked = self._turns.acquire(max(self.busy_timeout, 1.0))
        if self._locked:
            self._commit_joint()
        with self._gate:
            self._gate.wait_for(lambda: self._lent == 0, self.busy_timeout)
            if self._locked:
                self._close_connections()

    def after_fork_in_parent(self) -> None:
        if self._locked:
            self._turns.release()
        with self._gate:
            self.forking = False
            self._gate.notify_all()

    def after_fork_in_child(self) -> None:
        """What could not be closed is never freed: that would close it."""
        for connection in (self._writer, *self._readers):
            if connection is not None:
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
        self._reset()

    def close(self) -> None:
        if not self._turns.acquire(max(self.busy_timeout, 1.0)):
            raise SourceError(f"{self.path}: a transaction is still going on; close it when that has ended")
        try:
            self._commit_joint()
            with self._gate:
                self.closed = True
                self._close_connections()
        finally:
            self._turns.release()

    def _close_connections(self) -> None:
        """Readers first: the last connection to be closed cleans up, and needs to be one that may write."""
        while self._readers:
            self._readers.pop().close()
        writer, self._writer = self._writer, None
        self._room.close()
        if writer is not None:
            writer.close()

    @contextmanager
    def writing(self, what: str) -> Iterator[sqlite3.Connection]:
        """One step, all or nothing: undone if anything is raised, committed when this returns; maybe together with
        steps of other threads. `what` names the points of `_at`."""
        if not self._turns.acquire(self.busy_timeout):
            raise SourceError(f"{self.path}: {ADVICE['SQLITE_BUSY']}")
        joint = None
        try:
            self._check_open()
            if self._writer is None:
                self._writer = self._connect()
            connection = self._writer
            before = self._joint
            try:
                if before is None:
                    self._begin(connection)
                    self._room.look()
                else:
                    connection.execute("SAVEPOINT step")
                yield connection
                _at(f"{what}:before")
                if self._turns.awaited() and (before is None or before.steps < MOST):
                    joint = self._leave_open(connection)
                else:
                    self._commit(connection)
            except BaseException as error:
                self._undo(connection, before, error)
                if isinstance(error, sqlite3.Error):
                    raise failed(self.path, error) from error
                if isinstance(error, (OverflowError, UnicodeEncodeError)):
                    raise UnserializableData(f"SQLite has no room for such a number, or text: {error}") from error
                raise
        finally:
            self._turns.release()
        if joint is not None:
            self._await(joint)
        _at(f"{what}:after")

    def _leave_open(self, connection: sqlite3.Connection) -> Joint:
        """Leave the transaction to who comes next."""
        joint = self._joint
        if joint is None:
            joint = Joint()
        else:
            connection.execute("RELEASE step")
        joint.steps += 1
        self._joint = joint
        return joint

    def _commit(self, connection: sqlite3.Connection) -> None:
        connection.execute("COMMIT")
        joint, self._joint = self._joint, None
        if joint is not None:
            joint.end(None)

    def _commit_joint(self) -> None:
        """Commit what was left open, if anything was. For who has the turn."""
        joint, connection = self._joint, self._writer
        if joint is not None and connection is not None:
            try:
                self._commit(connection)
            except sqlite3.Error as error:
                self._undo(connection, None, error)

    def _await(self, joint: Joint) -> None:
        """Wait until who came next has committed."""
        while not joint.wait():
            if self._turns.acquire(LOOKING):  # did he give up?
                try:
                    if self._joint is joint:
                        self._commit_joint()
                finally:
                    self._turns.release()
        if isinstance(joint.error, sqlite3.Error):
            raise failed(self.path, joint.error) from joint.error
        if joint.error is not None:
            raise SourceError(f"{self.path}: another thread's step failed, and this one with it") from joint.error

    def _begin(self, connection: sqlite3.Connection) -> None:
        """Wait for the file's lock in short steps. (SQLite's own grow to 100 ms: who waits long is then passed by.)"""
        deadline = time.monotonic() + self.busy_timeout
        pause = 0.0002
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if not error.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() >= deadline:
                    raise
            time.sleep(pause * (0.5 + random.random()))
            pause = min(0.004, pause * 1.5)

    def _undo(self, connection: sqlite3.Connection, joint: Joint | None, error: BaseException) -> None:
        """Undo the step that failed; if others have left theirs in the transaction, keep these."""
        try:
            if joint is not None and connection.in_transaction:
                connection.execute("ROLLBACK TO step")
                connection.execute("RELEASE step")
                if not self._turns.awaited():
                    self._commit(connection)
                return
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            elif not isinstance(error, sqlite3.Error):
                error = None  # type: ignore[assignment] # it struck when all had been committed
        except sqlite3.Error as worse:
            self._writer = None  # closing it undoes what is open
            connection.close()
            error = worse
        left, self._joint = self._joint, None
        if left is not None:
            left.end(error)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection that sees all that was committed before; each statement sees one moment."""
        gate = self._gate
        with gate:
            while self.forking:
                gate.wait()
            self._check_open()
            connection = self._readers.pop() if self._readers else None
            self._lent += 1
        try:
            if connection is None:
                connection = self._connect(reads=True)
            yield connection
        except sqlite3.Error as error:
            raise failed(self.path, error) from error
        except (OverflowError, UnicodeEncodeError) as error:
            raise UnserializableData(f"SQLite has no room for such a number, or text: {error}") from error
        finally:
            with gate:
                self._lent -= 1
                if connection is not None:
                    if self.closed or len(self._readers) >= SPARE:
                        connection.close()
                    else:
                        self._readers.append(connection)
                if self.forking:
                    gate.notify_all()

    def _check_open(self) -> None:
        if self.closed:
            raise SourceError(f"{self.path}: this queue has been closed; open the file anew with SQLiteQueue(path)")

    def _connect(self, *, create: bool = False, reads: bool = False) -> sqlite3.Connection:
        path = self.path
        directory = os.path.dirname(os.path.abspath(path))
        if not os.path.isdir(directory):
            raise SourceError(f"{path}: there is no directory {directory}; make it first")
        if os.path.isdir(path):
            raise SourceError(f"{path} is a directory; name a file in it")
        try:
            connection = sqlite3.connect(
                path, timeout=self.busy_timeout if reads else 0, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise failed(path, error) from error
        try:
            self._set_up(connection, create, reads)
        except BaseException as error:
            connection.close()
            if isinstance(error, sqlite3.Error):
                raise failed(path, error) from error
            raise
        return connection

    def _set_up(self, connection: sqlite3.Connection, create: bool, reads: bool) -> None:
        if create:
            self._patiently(self._check, connection)
            self._patiently(self._create, connection)
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT}")
        connection.execute(f"PRAGMA cache_size = -{2_000 if reads else CACHE}")
        if reads:
            connection.execute("PRAGMA query_only = ON")

    def _patiently(self, step: Any, connection: sqlite3.Connection) -> None:
        deadline = time.monotonic() + self.busy_timeout
        while True:
            try:
                step(connection)
                return
            except sqlite3.OperationalError as error:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                if not error.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() >= deadline:
                    raise
            time.sleep(0.001 + 0.004 * random.random())

    def _check(self, connection: sqlite3.Connection) -> int:
        """Which shape has it; 0 if it is yet to be made? It must be ours, and of a shape that we know, before anything
        in it is touched."""
        alone = not connection.in_transaction
        if alone:  # the three are to be of one moment: another one may be about to make it
            connection.execute("BEGIN")
        ((owner,),) = connection.execute("PRAGMA application_id").fetchall()
        ((version,),) = connection.execute("PRAGMA user_version").fetchall()
        ((tables,),) = connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
        if alone:
            connection.execute("COMMIT")
        if owner == 0 and version == 0 and tables == 0:
            return 0
        if owner != APPLICATION_ID:
            raise SourceError(f"{self.path} is a database of some other program; name another file")
        if version != VERSION and version not in UPGRADES:
            raise SourceError(
                f"{self.path} was made by a newer version of hive-task (its shape is {version}, this one knows"
                f" {VERSION}); install that version here, or name another file"
            )
        shape: int = version
        return shape

    def _create(self, connection: sqlite3.Connection) -> None:
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise SourceError(f"{self.path}: no write-ahead log can be kept there (a file system of the network?)")
        if self._check(connection) == VERSION:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("UPDATE epochs SET last = last")  # may we write at all?
            connection.execute("ROLLBACK")
            return
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        connection.execute("BEGIN IMMEDIATE")
        shape = self._check(connection)  # (another one may have been here meanwhile)
        while shape < VERSION:
            for statement in UPGRADES[shape] if shape else SCHEMA:
                connection.execute(statement)
            shape = shape + 1 if shape else VERSION
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")


_forking: list[File] = []


def _before_fork() -> None:
    while True:
        try:
            _forking[:] = list(_files)
            break
        except RuntimeError:  # another thread has made one meanwhile
            pass
    for file in _forking:
        file.before_fork()


def _after_fork_in_parent() -> None:
    while _forking:
        _forking.pop().after_fork_in_parent()


def _after_fork_in_child() -> None:
    while _forking:
        _forking.pop().after_fork_in_child()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
