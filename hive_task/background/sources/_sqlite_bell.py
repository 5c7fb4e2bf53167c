"""`Bell`: sleep until something happens in a file that several processes write. No polling, no thread of its own.

A process in which threads wait has a FIFO in a directory beside the file, for as long as they wait. Who has changed
something writes a byte into each FIFO of its kind. Of the waiting threads of a process one, the leader, listens to the
FIFO, and the others sleep on a condition; when the leader goes, the next one takes its place. A FIFO whose process was
killed has no reader: the next one to ring removes it.

No ring is lost: a waiter looks after its FIFO is there; who rings does so after the change can be seen. For what may go
wrong all the same (a file system without FIFOs), the leader looks again now and then: `look` says when.
"""

from __future__ import annotations

import errno
import os
import select
import threading
import time
import uuid
import weakref
from collections.abc import Callable

#: Seconds between two looks where no FIFO can be made.
LOOKING = 0.02

_bells: weakref.WeakSet[Bell] = weakref.WeakSet()


class Bell:
    """One kind of event; `directory` is made when somebody waits."""

    def __init__(self, directory: str, kind: str) -> None:
        self._directory = directory
        self._kind = kind
        self.reset()
        _bells.add(self)

    def reset(self) -> None:
        """As new: what a forked child does, in which nobody waits."""
        self._changed = threading.Condition(threading.Lock())
        self._rings = 0
        self._leader: int | None = None
        self._fifo: int | None = None
        self._own = f"{self._kind}-{uuid.uuid4().hex}"

    def orphan(self) -> None:
        """In a forked child: let go of the parent's FIFO, without removing it."""
        if self._fifo is not None:
            os.close(self._fifo)
        self.reset()

    def ring(self) -> None:
        """Wake the waiters of this and all other processes."""
        self.ring_here()
        try:
            names = os.listdir(self._directory)
        except OSError:
            return  # nobody has waited yet
        for name in names:
            if name.startswith(self._kind) and name != self._own:
                _poke(os.path.join(self._directory, name))

    def ring_here(self) -> None:
        with self._changed:
            self._rings += 1
            self._changed.notify_all()
            if self._fifo is not None:
                _write(self._fifo)

    def wait(self, look: Callable[[], float], timeout: float | None) -> None:
        """Sleep until rung, or so many seconds. `look` returns in how many seconds to look again; 0: don't sleep."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            seen = self._rings
        try:
            while self._rings == seen:
                if self._leads():
                    self._listen(look, deadline, seen)
                    return
                if look() <= 0:
                    return
                with self._changed:
                    self._changed.wait_for(lambda: self._rings != seen or self._leader is None, _left(deadline))
                if deadline is not None and time.monotonic() >= deadline:
                    return
        finally:
            with self._changed:
                if self._leader == threading.get_ident():
                    self._leader = None
                    self._changed.notify_all()  # somebody else leads now

    def _leads(self) -> bool:
        with self._changed:
            if self._leader is None:
                self._leader = threading.get_ident()
            return self._leader == threading.get_ident()

    def _listen(self, look: Callable[[], float], deadline: float | None, seen: int) -> None:
        fifo = None
        try:
            fifo = self._open()
            with self._changed:
                self._fifo = fifo
                if self._rings != seen:
                    return
            poll = select.poll()
            if fifo is not None:
                poll.register(fifo, select.POLLIN)
            while (pause := look()) > 0:
                left = _left(deadline)
                pause = min(pause if fifo is not None else LOOKING, pause if left is None else left)
                if poll.poll(max(0.0, pause) * 1000):
                    with self._changed:
                        self._rings += 1
                        self._changed.notify_all()
                    return
                if (left is not None and time.monotonic() >= (deadline or 0.0)) or self._rings != seen:
                    return
        finally:
            with self._changed:
                self._fifo = None
            if fifo is not None:
                os.close(fifo)
                _remove(os.path.join(self._directory, self._own))

    def _open(self) -> int | None:
        """Make the FIFO. It gets its name when it has its reader, so that nobody takes it for one left behind."""
        self._own = f"{self._kind}-{uuid.uuid4().hex}"
        path = os.path.join(self._directory, self._own)
        hidden = os.path.join(self._directory, f".{self._own}")
        fifo = None
        try:
            os.makedirs(self._directory, exist_ok=True)
            os.mkfifo(hidden)
            fifo = os.open(hidden, os.O_RDWR | os.O_NONBLOCK)  # a writer too: so there is never an end of file
            os.rename(hidden, path)
        except OSError:
            if fifo is not None:
                os.close(fifo)
            _remove(hidden)
            return None
        return fifo

    def close(self) -> None:
        """Wake the waiters of this process; remove the directory if it is nobody else's."""
        self.ring_here()
        try:
            os.rmdir(self._directory)
        except OSError:
            pass


def _after_fork() -> None:
    for bell in list(_bells):
        bell.orphan()


os.register_at_fork(after_in_child=_after_fork)


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else deadline - time.monotonic()


def _poke(path: str) -> None:
    try:
        fifo = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ENXIO:  # no reader: its process was killed
            _remove(path)
        return
    _write(fifo)
    os.close(fifo)


def _write(fifo: int) -> None:
    try:
        os.write(fifo, b"!")
    except OSError:
        pass  # full, so its reader will wake; or it has just gone


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass
