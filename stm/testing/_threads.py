"""The threads of an exploration, and how they hand over to each other."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stm.testing._run import Run


class Gate:
    """Where one thread waits until another opens it, once for each time that it is opened.

    A pipe, since a switch of threads through one takes 4 to 8 microseconds there and back; through a lock, 7 with the
    GIL, and 100 without, where whoever waits spins first and keeps the processor from the other.
    """

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()

    def open(self) -> None:
        os.write(self._writer, b"!")

    def wait(self) -> None:
        os.read(self._reader, 1)

    def wait_for(self, seconds: float) -> bool:
        """True if it was opened in that time."""
        if not select.select([self._reader], [], [], seconds)[0]:
            return False
        os.read(self._reader, 1)
        return True

    def close(self) -> None:
        os.close(self._reader)
        os.close(self._writer)


class Abandoned(BaseException):
    """Thrown into the threads of a schedule that is not to go on."""


def never() -> bool:
    return False


class Worker(threading.Thread):
    """A thread that runs one body after the other, each in its turn. Kept for all the runs of an exploration."""

    def __init__(self, number: int, prepare: Callable[[], None], tidy: Callable[[], None]) -> None:
        super().__init__(name=f"explore-T{number}", daemon=True)
        self.number = number
        self.bit = 1 << number
        self.gate = Gate()
        self.prepare = prepare
        self.tidy = tidy
        self.run_now: Run | None = None
        self.body: Callable[[], object] = never
        self.ready: Callable[[], bool] | None = None
        self.deadline: float | None = None
        self.pending = 0
        self.done = True
        self.leaving = False
        self.note = ""
        self.quits = False

    def enlist(self, run: Run, body: Callable[[], object]) -> None:
        """Take part in a run."""
        self.run_now = run
        self.body = body
        self.ready = self.deadline = None
        self.pending = 0
        self.done = self.leaving = False
        self.note = ""

    def stop(self) -> None:
        """End: now, or when the present body comes to its end, if it ever does."""
        if self.done:
            self.gate.open()
            self.join()
        else:
            self.quits = True

    def run(self) -> None:
        while True:
            self.gate.wait()
            run = self.run_now
            if run is None:
                break
            try:
                if not run.abandoned:
                    self.prepare()
                    self.body()
            except Abandoned:
                pass
            except BaseException as error:
                run.fail("exception", self, error)
            self.tidy()
            self.run_now = None  # before the driver goes on, who may have the next run ready
            run.end(self)
            del run
            if self.quits:
                break
        self.gate.close()
