"""The process of a `Child`, and the descriptors to talk to it: how it is started, signalled, reaped and let go.

Why not `multiprocessing`: its "spawn" and "forkserver" leave a helper process behind for as long as the program runs,
load three times the modules, and have no way to wait for an answer and for the process's end at once. Why not fork: a
copy of a program with threads may hold any of their locks for ever.

The descriptors of one child are never open in another, or it would not see the end of its pipe: they are made
non-inheritable, `subprocess` passes only the two that it is told to, and copies made by `os.fork` close them.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable

from hive_task import _child
from hive_task.errors import HiveTaskError

#: Seconds that a child has to end after SIGTERM, before SIGKILL.
TERMINATES_WITHIN = 1.0
#: Seconds that the system has to end a process that was killed or has closed its pipes; more would be a stuck kernel.
DIES_WITHIN = 5.0


class ChildNotStarted(HiveTaskError, RuntimeError):
    """The process could not be started, or could not import the main module. The work has not begun."""


def _flags() -> list[str]:
    """The options that this interpreter was started with, for another one."""
    letters = {
        "debug": "d", "optimize": "O", "dont_write_bytecode": "B", "no_user_site": "s", "no_site": "S", "verbose": "v",
        "ignore_environment": "E", "bytes_warning": "b", "isolated": "I", "safe_path": "P",
    }  # fmt: skip
    counts = ((letter, int(getattr(sys.flags, name))) for name, letter in letters.items())
    flags = ["-" + letter * count for letter, count in counts if count]
    flags += [f"-X{name}" if value is True else f"-X{name}={value}" for name, value in sys._xoptions.items()]
    return flags + [f"-W{warning}" for warning in sys.warnoptions]


#: Loads `hive_task._child`, but not the package around it, which a child has no use for as long as no work has: a
#: package that is only a path stands in while it is found.
_BOOTSTRAP = """\
import sys
sys.path[:] = sys.argv[4:]
sys.modules["hive_task"] = type(sys)("hive_task")
sys.modules["hive_task"].__path__ = [sys.argv[3]]
from hive_task._child import main
del sys.modules["hive_task"]
main(int(sys.argv[1]), int(sys.argv[2]))
"""


class Process:
    """The process and the descriptors to talk to it: what must still be there to end it when its `Child` is gone.

    `lock` is held for moments only, by whoever signals or reaps: so a signal never goes to a process that was reaped,
    whose number may be another's. `busy` is held as long as the pipes are in use.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.busy = threading.Lock()
        self.popen: subprocess.Popen[bytes] | None = None
        self.requests = self.responses = self.pidfd = -1
        self.abandoned = self.closed = self.killed = False

    def start(self) -> None:
        if getattr(sys, "frozen", False) or not sys.executable:
            raise ChildNotStarted("work for processes needs a Python interpreter, and sys.executable names none")
        with _starting:
            theirs: list[int] = []
            try:
                request, self.requests = os.pipe()
                theirs.append(request)
                self.responses, response = os.pipe()
                theirs.append(response)
                self.popen = self._launch(request, response)
            except (OSError, RuntimeError) as error:
                raise ChildNotStarted(f"a child process could not be started: {error}") from error
            finally:
                for fd in theirs:
                    os.close(fd)
            os.set_blocking(self.requests, False)
            os.set_blocking(self.responses, False)
            with contextlib.suppress(AttributeError, OSError):  # not every system has it, or lets us
                self.pidfd = os.pidfd_open(self.popen.pid)
            _processes.add(self)

    def _launch(self, request: int, response: int) -> subprocess.Popen[bytes]:
        path = [entry for entry in sys.path if isinstance(entry, str)]
        package = os.path.dirname(_child.__file__)
        command = [sys.executable, *_flags(), "-c", _BOOTSTRAP, str(request), str(response), package, *path]
        # The mask is this thread's, and a child inherits it.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _child.BLOCKED_AT_START)
        try:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=(request, response))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def exitcode(self) -> int | None:
        with self.lock:
            return 0 if self.popen is None else self.popen.poll()

    def signal(self, number: int) -> None:
        with self.lock:
            if self.abandoned or self.popen is None or self.popen.poll() is not None:
                return
            self.killed |= number == signal.SIGKILL
            with contextlib.suppress(ProcessLookupError):
                if self.pidfd >= 0:
                    signal.pidfd_send_signal(self.pidfd, number)
                else:
                    self.popen.send_signal(number)

    def waiting_for(self, fd: int = -1, events: int = 0) -> Callable[[], bool]:
        """A function that sleeps until the descriptor is ready, or the process ends, and returns whether it has ended.
        Where the system has no descriptors for processes, it looks every 20 ms."""
        poll = select.poll()
        if fd >= 0:
            poll.register(fd, events)
        if self.pidfd < 0:
            return lambda: not poll.poll(20) and self.exitcode() is not None
        pidfd = self.pidfd
        poll.register(pidfd, select.POLLIN)
        return lambda: any(ready == pidfd for ready, _ in poll.poll())

    def ends_within(self, seconds: float) -> bool:
        limit = time.monotonic() + seconds
        poll = select.poll()
        if self.pidfd >= 0:
            poll.register(self.pidfd, select.POLLIN)
        while self.exitcode() is None:
            left = limit - time.monotonic()
            if left <= 0:
                return False
            poll.poll(left * 1000 if self.pidfd >= 0 else min(left * 1000, 5))
        return True

    def close_descriptors(self) -> None:
        with self.lock:
            self.closed = True
            fds = {self.requests, self.responses, self.pidfd}
            self.requests = self.responses = self.pidfd = -1
            for fd in fds - {-1}:
                os.close(fd)

    def finish(self) -> None:
        """Kill, reap, close. A daemon thread may still be in `run` when the program ends: it is let out first."""
        if self.abandoned or self.closed:
            return
        self.signal(signal.SIGKILL)
        if self.busy.acquire(timeout=DIES_WITHIN):
            self.ends_within(DIES_WITHIN)
            self.close_descriptors()
            self.busy.release()

    def abandon(self) -> None:
        """In a copy made by `os.fork`, where locks may be held by threads that are no more."""
        self.abandoned = True
        if self.popen is not None and self.popen.returncode is None:
            self.popen.returncode = 0  # it is not our child: nothing to reap, and no reason to warn
        for fd in {self.requests, self.responses, self.pidfd} - {-1}:
            os.close(fd)
        self.requests = self.responses = self.pidfd = -1


#: Held while pipes exist that are not yet known to `_processes`: os.fork waits for it, lest a copy keeps them open.
_starting = threading.RLock()
_processes: weakref.WeakSet[Process] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    try:
        for process in list(_processes):
            process.abandon()
        _processes.clear()
    finally:
        _starting.release()


os.register_at_fork(before=_starting.acquire, after_in_parent=_starting.release, after_in_child=_after_fork_in_child)
