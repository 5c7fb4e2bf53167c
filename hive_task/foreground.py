"""`run_in_foreground`: a program that is nothing but one background application, from its start to a signal.

Promises
--------
- The first SIGTERM or SIGINT drains the application: it takes no more tasks, lets those that run end, and gives back
  what it has not begun. The second one ends the process at once: running tasks are flagged as cancelled, nobody waits
  for them, and what they were at is taken over by others when its lease ends.
- No signal is missed, and none strikes amid anything: the handlers do nothing. That a signal came is a byte in a pipe,
  which the main thread reads, and does nothing else; so this holds in whatever thread the system delivers the signal,
  with and without a GIL.
- An application that is stopped by somebody else, such as one of its own tasks, ends the program as well.
- A copy of the process (`os.fork`) is none of this: there, the signals do again what they did before.

The second signal must be obeyed however stuck the process is; so whatever might then have to wait, such as for a pipe
that nobody reads, gets `FAREWELL` seconds at most.

Cost: one thread, which waits for the end.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hive_task.background import Application

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)

#: The byte that says that the application has ended; all others are numbers of signals.
ENDED = 0

#: Seconds for what might have to wait although the process is to do something else.
FAREWELL = 1.0

DONE, FAILED = 0, 1


def run_in_foreground(app: Application, say: Callable[[str], object], begun: str = "", server: Any = None) -> int:
    """Run an application that is not started until it is stopped; the exit code. Only in the main thread.

    `say` prints a line for the user; `begun` is the first. `server`: closed at the end (see `Scheduler.serve_monitor`).
    """
    with _signals_as_bytes() as (ear, mouth):
        _briefly(say, begun)
        app.start()
        ending = _Ending(app, mouth)
        try:
            _wait(app, say, ear, server)
        except BaseException:
            app.stop(wait=False)  # else the interpreter would wait for its workers
            raise
        finally:
            ending.join()
    if ending.error is not None:
        log.critical("%s could not be stopped in order", app.name, exc_info=ending.error)
        return FAILED
    say(f"{app.name}: stopped")
    return DONE


def _wait(app: Application, say: Callable[[str], object], ear: int, server: Any) -> None:
    """Until the application has ended. Does not return if there is a second signal."""
    draining = False
    while True:
        for number in os.read(ear, 64):
            if number == ENDED:
                return
            if number not in SIGNALS:
                continue  # the program has a handler of its own for it, which has run
            if draining:
                _leave(app, say, number, server)
            draining = True
            try:
                app.stop(wait=False)
            except Exception:  # of its data source; `_Ending` will see it, too, and tell
                log.debug("stopping %s", app.name, exc_info=True)
            _briefly(say, f"{app.name}: {signal.Signals(number).name}: {_draining(len(app.runs))}")


def _draining(running: int) -> str:
    if not running:
        return "no task is running"
    return f"waiting for {running} running {'task' if running == 1 else 'tasks'}; a second signal ends this at once"


def _leave(app: Application, say: Callable[[str], object], number: int, server: Any) -> None:
    """End the process now."""
    for current in list(app.runs.values()):
        current.cancel()
    name, left = signal.Signals(number).name, len(app.runs)
    _briefly(say, f"{app.name}: {name} again: ended with {left} running {'task' if left == 1 else 'tasks'}")
    _briefly(sys.stderr.flush)
    if server is not None:
        _briefly(server.close)
    os._exit(128 + number)


def _briefly(fn: Callable[..., object], *args: Any) -> None:
    """Call it, but do not wait for it for long."""
    thread = threading.Thread(target=fn, args=args, name="hive-task farewell", daemon=True)
    thread.start()
    thread.join(FAREWELL)


class _Ending:
    """Waits, in a thread of its own, until the application is to stop, then until it has, and says so in the pipe."""

    def __init__(self, app: Application, mouth: int) -> None:
        self.error: BaseException | None = None
        self._app = app
        self._mouth = mouth
        self._thread = threading.Thread(target=self._run, name="hive-task end", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._app.await_stop()
            self._app.stop()
        except BaseException as error:
            self.error = error
        os.write(self._mouth, bytes([ENDED]))

    def join(self) -> None:
        self._thread.join()


@contextmanager
def _signals_as_bytes() -> Iterator[tuple[int, int]]:
    """As long as this is entered, each signal is a byte, its number, that comes out of the first descriptor."""
    ear, mouth = os.pipe()
    os.set_blocking(mouth, False)
    former_fd = signal.set_wakeup_fd(mouth, warn_on_full_buffer=False)
    former = {number: signal.signal(number, _nothing) for number in SIGNALS}

    def restore() -> None:
        for number, handler in former.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(former_fd)

    _restore_in_copies(restore, here := [True])
    try:
        yield ear, mouth
    finally:
        here.clear()
        restore()
        os.close(ear)
        os.close(mouth)


def _restore_in_copies(restore: Callable[[], None], here: list[bool]) -> None:
    """A child made by `os.fork` would write into this process's pipe, and not end when it is told to. That must not
    happen even at its first moment: so signals are held back until all is as it was."""
    masks = threading.local()

    def before() -> None:
        masks.former = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS) if here else None

    def after() -> None:
        if (former := getattr(masks, "former", None)) is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, former)

    def after_in_child() -> None:
        if here:
            here.clear()
            restore()
        after()

    os.register_at_fork(before=before, after_in_parent=after, after_in_child=after_in_child)


def _nothing(number: int, frame: FrameType | None) -> None:
    """A handler must be there for the byte to be written."""
