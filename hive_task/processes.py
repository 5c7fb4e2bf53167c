"""A child process that runs one function at a time: what a worker has for work of kind "process".

Promises:

1. `pack` refuses at submission what can't travel, and says which part of it: `UnpicklableWork`.
2. `Child.run` returns what the work returned, or raises what it raised, `SystemExit` included; its `__cause__` shows
   the traceback from over there. A result or an exception that can't travel is `UnpicklableResult`; the child lives on.
3. If the process ends before it has answered, for whatever reason, `run` raises `ChildDied`, which says how it ended,
   and whether the work may have begun. If it could not start at all, `run` raises `ChildNotStarted`.
4. `kill`, from any thread at any moment, makes that happen at once. It never strikes another process.
5. A child does not outlive its parent, however the parent ended, nor a `Child` that is dropped without `close`.
6. A copy of the program made by `os.fork` has no part in the children: it can't use them, and does not keep them alive.
7. Payloads and results of any size, both ways.

A child is a fresh interpreter (`sys.executable`, same flags, environment, directory, `sys.path` and `sys.argv`) that
talks over two pipes, so starting one is safe in a program with threads, and nothing else is started: no server, no
tracker. The functions of a script work as they do with `multiprocessing`: the child imports the main module anew under
the name `__mp_main__`, so a script needs `if __name__ == "__main__":` around what it does; without, `run` raises
`ChildNotStarted`, which says so. Functions of an interactive session, of `python -c` or of a `__main__.py` can't be
found by a child; `pack` refuses them.

Its standard input is empty, its output and errors go where the parent's go, and it takes no notice of Ctrl-C.

Costs: a start takes what the interpreter takes, 20 to 40 ms, and then what importing the main module and that of the
function takes (a script that imports `hive_task`: 50 to 80 ms more); the caller of `Child` waits for half a millisecond
of it. A call takes 15 to 60 µs there and back, and 2 ms a megabyte each way; other threads run meanwhile. Three
descriptors a child.

>>> with Child("example") as child:
...     child.run(pack(divmod, (7, 2), {}))
(3, 1)
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import sys
import time
import weakref
from typing import Any

from hive_task import _child
from hive_task._packing import main_module, pack, refuse_while_importing_main
from hive_task._process import DIES_WITHIN, TERMINATES_WITHIN, ChildNotStarted, Process
from hive_task.errors import HiveTaskError, SchedulerClosed, UnpicklableWork, WorkerLost

__all__ = ["Child", "ChildDied", "ChildNotStarted", "RemoteTraceback", "UnpicklableResult", "pack"]


class ChildDied(WorkerLost):
    """The process ended before it answered. `exitcode`: as in `subprocess`, negative for a signal, `None` if unknown.
    `begun`: whether the work may have begun; if false it certainly has not."""

    def __init__(self, message: str, exitcode: int | None = None, begun: bool = True) -> None:
        super().__init__(message)
        self.exitcode = exitcode
        self.begun = begun


class UnpicklableResult(HiveTaskError, TypeError):
    """The work has ended, but what it returned or raised can't be pickled, or not be loaded here."""


class RemoteTraceback(Exception):
    """The cause of an exception that was raised in a child: the traceback there, as text."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


class _Gone(Exception):
    """The process has ended, or has closed its pipe."""


class Child:
    """One child process. Returns as soon as it is on its way; the first `run` waits for the rest.

    `run` is for one thread at a time (a second one waits), everything else for any thread. Raises `ChildNotStarted`.
    """

    def __init__(self, name: str) -> None:
        refuse_while_importing_main()
        self.name = name
        self._process = process = Process()
        self._finalizer = weakref.finalize(self, process.finish)
        process.start()
        sys.modules.setdefault("__mp_main__", sys.modules["__main__"])  # classes of the main module come back so named
        self._until_readable = process.waiting_for(process.responses, select.POLLIN)
        self._until_writable = process.waiting_for(process.requests, select.POLLOUT)
        self._buffer = memoryview(bytearray(1 << 16))
        self._unsent: list[memoryview] = []
        prepare = pickle.dumps({"name": name, "argv": sys.argv, "main": main_module()})
        self._send(_child.PREPARE, prepare, wait=False)

    def __repr__(self) -> str:
        return f"<Child {self.name!r} pid={self.pid} {'alive' if self.alive else 'dead'}>"

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        popen = self._process.popen
        assert popen is not None
        return popen.pid

    @property
    def alive(self) -> bool:
        """Whether it can be used: it has not ended, and has been neither killed nor closed."""
        process = self._process
        return not (process.abandoned or process.closed or process.killed) and process.exitcode() is None

    def run(self, payload: bytes) -> Any:
        """Run what `pack` has made, and return its result or raise its exception.

        Raises `ChildDied`, `ChildNotStarted`, `UnpicklableResult`, and `UnpicklableWork` if the child can't load the
        work. If anything else interrupts the waiting (Ctrl-C), the child is killed: its answer would come too late.
        """
        process = self._process
        if process.abandoned:
            raise SchedulerClosed(f"child process {self.name!r} belongs to the program that this one was forked from")
        with process.busy:
            sent = False
            try:
                if process.closed or process.killed or process.exitcode() is not None:
                    raise _Gone
                sent = self._send(_child.WORK, payload)
                kind, body = self._receive()
            except _Gone:
                raise self._died(begun=sent) from None
            except BaseException:
                self.kill()
                raise
            return self._opened(kind, body)

    def kill(self) -> None:
        """End the process now (SIGKILL). It makes no difference if it has ended already."""
        process = self._process
        if not process.abandoned:
            process.signal(signal.SIGKILL)

    def close(self, timeout: float = 5.0) -> None:
        """End the process: ask it to, wait `timeout` seconds, terminate it, wait `TERMINATES_WITHIN`, kill it. A work
        that is running has the same time left. Returns when the process is no more; again, at once."""
        process = self._process
        if process.abandoned:
            return
        limit = time.monotonic() + timeout
        if not process.busy.acquire(timeout=max(timeout, 0)):
            self.kill()
            process.busy.acquire()
        try:
            if process.closed:
                return
            with contextlib.suppress(_Gone):
                self._send(_child.END, b"", wait=False)
            if not process.ends_within(limit - time.monotonic()):
                process.signal(signal.SIGTERM)
                if not process.ends_within(TERMINATES_WITHIN):
                    self.kill()
                    process.ends_within(DIES_WITHIN)
            process.close_descriptors()
            self._finalizer.detach()
        finally:
            process.busy.release()

    def _send(self, kind: int, body: bytes, wait: bool = True) -> bool:
        """Whether it was all written. What was not stays in `_unsent`, to go before whatever comes next."""
        self._unsent += [memoryview(_child.HEADER.pack(kind, len(body))), memoryview(body)]
        while self._unsent:
            try:
                written = os.writev(self._process.requests, self._unsent)
            except BrokenPipeError:
                return False
            except BlockingIOError:
                if not wait or self._until_writable():
                    return False
                continue
            while self._unsent and written >= len(self._unsent[0]):
                written -= len(self._unsent.pop(0))
            if written:
                self._unsent[0] = self._unsent[0][written:]
        return True

    def _receive(self) -> tuple[int, memoryview]:
        """One answer. The body is valid until the next call."""
        header, buffer, have = _child.HEADER, self._buffer, 0
        while have < header.size:
            have += self._read_into(buffer[have:])
        kind, size = header.unpack_from(buffer)
        end = header.size + size
        if have >= end:
            return kind, buffer[header.size : end]
        body = memoryview(bytearray(size))
        got = have - header.size
        body[:got] = buffer[header.size : have]
        while got < size:
            got += self._read_into(body[got:])
        return kind, body

    def _read_into(self, view: memoryview) -> int:
        """What the process wrote before it ended is still read to the end. That it has ended is seen apart from the
        pipe: programs that the work has started may hold that open."""
        ended = self._until_readable()
        try:
            count = os.readv(self._process.responses, [view])
        except BlockingIOError:
            if ended:
                raise _Gone from None
            return 0
        if not count:
            raise _Gone
        return count

    def _opened(self, kind: int, body: memoryview) -> Any:
        if kind == _child.RESULT:
            try:
                return pickle.loads(body)
            except Exception as error:
                raise UnpicklableResult(f"the result of the work can't be loaded here: {error}") from error
        if kind == _child.RAISED:
            raise _loaded_error(body)
        text = str(body, "utf-8", "replace")
        if kind == _child.NOT_SENT:
            raise UnpicklableResult(text)
        last = text.rstrip().rpartition("\n")[2]
        if kind == _child.NOT_LOADED:
            raise UnpicklableWork(f"the child process can't load the work: {last}") from RemoteTraceback(text)
        self._process.ends_within(DIES_WITHIN)
        raise ChildNotStarted(f"the child process could not import the main module: {last}") from RemoteTraceback(text)

    def _died(self, begun: bool) -> ChildDied:
        process = self._process
        if not process.ends_within(TERMINATES_WITHIN):  # it has closed its pipe, and will never answer
            self.kill()
            process.ends_within(DIES_WITHIN)
        code = process.exitcode()
        if process.closed:
            how = "is closed"
        elif code is None:
            how = "does not answer, and does not die"
        elif code < 0:
            how = f"was killed by {_signal_name(-code)}"
        else:
            how = f"ended with exit code {code}"
        when = "; the work was not complete" if begun else "; the work had not begun"
        return ChildDied(f"child process {self.name!r} (pid {self.pid}) {how}{when}", code, begun)


def _loaded_error(body: memoryview) -> BaseException:
    kind, text, packed, why = pickle.loads(body)
    error: object = None
    if packed:
        try:
            error = pickle.loads(packed)
        except Exception as reason:
            why = f"{type(reason).__name__}: {reason}"
    if not isinstance(error, BaseException):
        last = text.rstrip().rpartition("\n")[2]
        error = UnpicklableResult(f"the work raised {kind}, which can't be pickled and loaded here ({why}): {last}")
    error.__cause__ = RemoteTraceback(text)
    return error


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
