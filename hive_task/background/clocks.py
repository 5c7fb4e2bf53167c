"""Clocks: what a data source asks for the time, and one that a test sets by hand.

A source takes a `clock`: anything with `time()`, Unix seconds as a wall clock tells them, which may jump, and
`monotonic()`, seconds that only ever go forwards. The module `time` is one, and the default. Due times are compared
with `time()`; leases, which are durations, run by `monotonic()` where the source lives in one process.

`ManualClock` stands still until it is told otherwise, so a test of what happens tomorrow takes no time, and passes or
fails the same way each time. All its methods may be called by any thread.

>>> clock = ManualClock()
>>> started = clock.time()
>>> clock.advance(60)
>>> clock.time() - started
60.0
>>> clock.jump_wall(-3600)
>>> clock.time() - started, clock.monotonic()
(-3540.0, 60.0)
>>> clock.advance(-1)
Traceback (most recent call last):
    ...
ValueError: time does not go back by -1 seconds; jump_wall() sets the wall clock alone
"""

from __future__ import annotations

import threading
from typing import Protocol


class Clock(Protocol):
    """What a data source asks for the time. The module `time` is one."""

    def time(self) -> float:
        """Unix seconds. May jump, in either direction."""
        ...

    def monotonic(self) -> float:
        """Seconds from some moment; never less than before."""
        ...


class ManualClock:
    """A clock that stands still until it is moved. `start`: what it says at first, in Unix seconds."""

    def __init__(self, start: float = 1_900_000_000.0) -> None:
        self._lock = threading.Lock()
        self._wall = float(start)
        self._running = 0.0

    def time(self) -> float:
        with self._lock:
            return self._wall

    def monotonic(self) -> float:
        with self._lock:
            return self._running

    def advance(self, seconds: float) -> None:
        """Let so much time pass."""
        if not seconds >= 0:
            raise ValueError(f"time does not go back by {seconds!r} seconds; jump_wall() sets the wall clock alone")
        with self._lock:
            self._wall += seconds
            self._running += seconds

    def jump_wall(self, seconds: float) -> None:
        """Set the wall clock forwards, or backwards, without any time having passed: as an administrator would."""
        with self._lock:
            self._wall += seconds
