"""A listening Unix socket that nobody but its owner can reach, at no moment.

Promise: the file has mode 0600, and is listened at, before it appears under its name: it is made in a directory of
mode 0700 beside it and linked to its name from there. (Setting the umask would change it for all threads; changing the
mode after `bind` would come too late for whoever is quick.) A link, unlike a renaming, replaces nothing, so of two
programs that want the same name one gets it. The file that a dead program has left there is replaced, by one program
after the other: whoever finds out that it is dead could otherwise take away what another has put there meanwhile. One
that somebody listens at, or that is no socket, is never touched.

Errors are `OSError`s that name the path: EADDRINUSE (somebody listens there), `FileExistsError` (it is no socket),
ENAMETOOLONG (about 100 bytes are all that the system has room for), `FileNotFoundError` (no such directory),
`PermissionError`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

#: So many bytes fit into a `sockaddr_un`, besides the zero at the end.
LONGEST = 107 if sys.platform == "linux" else 103

#: Connections that the system accepts before the program does.
BACKLOG = 64

#: Seconds for which the replacement of a dead program's file waits for another one.
PATIENCE = 2.0

#: What tells one file from any other that exists at the same time.
Identity = tuple[int, int]


def listen_privately(path: str) -> tuple[socket.socket, Identity]:
    """Listen at `path`; the socket, which does not block, and the file's identity for `remove`."""
    parent = os.path.dirname(path) or os.curdir
    if not os.path.isdir(parent):
        raise FileNotFoundError(errno.ENOENT, "no such directory for the socket", parent)
    longest = max(len(os.fsencode(path)), len(os.fsencode(parent)) + len("/.12345678/s"))
    if longest > LONGEST:
        reason = f"the path of a Unix socket has room for {LONGEST} bytes, this one needs {longest}; choose a shorter"
        raise OSError(errno.ENAMETOOLONG, reason, path)
    private = tempfile.mkdtemp(prefix=".", dir=parent)
    fresh, old = os.path.join(private, "s"), os.path.join(private, "o")
    try:
        return _listen(path, fresh, old)
    finally:
        _unlink(fresh)
        try:
            os.rmdir(private)
        except OSError:
            pass  # somebody else's file is in it, which could not be put back


def _listen(path: str, fresh: str, old: str) -> tuple[socket.socket, Identity]:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(fresh)
        os.chmod(fresh, 0o600)
        listener.listen(BACKLOG)
        listener.setblocking(False)
        identity = _identity(fresh)
        try:
            _link(fresh, path)
        except FileExistsError:
            with _one_at_a_time(os.path.dirname(path)):
                _displace(path, old)
                _link_again(fresh, path)
        return listener, identity
    except BaseException:
        listener.close()
        raise


def _link(fresh: str, path: str) -> None:
    try:
        os.link(fresh, path)
    except FileExistsError:
        raise
    except OSError:  # there are file systems without links
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, "there is something already", path) from None
        os.rename(fresh, path)


def _link_again(fresh: str, path: str) -> None:
    try:
        _link(fresh, path)
    except FileExistsError:
        raise OSError(errno.EADDRINUSE, "another program was quicker to listen there", path) from None


@contextmanager
def _one_at_a_time(directory: str) -> Iterator[None]:
    """Lock a directory; who holds its lock longer than `PATIENCE`, for reasons of his own, is not waited for."""
    try:
        opened = os.open(directory or os.curdir, os.O_RDONLY)
    except PermissionError:  # it may be written to, but not be read
        yield
        return
    try:
        _lock(opened)
        yield
    finally:
        _unlock(opened)


def _lock(opened: int) -> None:
    limit = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > limit:
                return
            time.sleep(0.01)
        except OSError:
            return  # there are file systems without locks
        else:
            return


def _unlock(opened: int) -> None:
    try:
        fcntl.flock(opened, fcntl.LOCK_UN)  # a child that was forked meanwhile may never close it
    except OSError:
        pass
    os.close(opened)


def _displace(path: str, old: str) -> None:
    """Take the file of a dead program away; raise if it is anything else."""
    try:
        _refuse_unless_dead(path, path)
        os.rename(path, old)
    except FileNotFoundError:
        return  # its owner has removed it just now
    try:
        _refuse_unless_dead(old, path)  # in case that it was replaced between the two calls
    except OSError:
        _link(old, path)
        _unlink(old)
        raise
    os.unlink(old)


def _refuse_unless_dead(where: str, path: str) -> None:
    if not stat.S_ISSOCK(os.lstat(where).st_mode):
        raise FileExistsError(errno.EEXIST, "there is a file that is no socket; it is left alone", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.setblocking(False)
        try:
            caller.connect(where)
        except ConnectionRefusedError:
            return
        except FileNotFoundError:
            raise
        except PermissionError:
            raise PermissionError(errno.EACCES, "there is a socket of somebody else", path) from None
        except OSError:
            pass  # busy, or a socket of another type: somebody is there
    raise OSError(errno.EADDRINUSE, "a program listens there already", path)


def remove(path: str, identity: Identity) -> None:
    """Remove the file unless another one has taken its name."""
    try:
        if _identity(path) == identity:
            os.unlink(path)
    except OSError:
        pass  # it is gone, or its directory is


def _identity(path: str) -> Identity:
    status = os.lstat(path)
    return status.st_dev, status.st_ino


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass
