"""Timers: call a function later, once or again and again.

A timer is made, started and stopped; `start_timer` and `stop_timer` are transactions, so inside a user's transaction
they count if and when that commits. All timers share one daemon thread, which lives while any is started.

Promises:

1. *Never early.* A relative timer fires `time` seconds after its start, on the monotonic clock. An absolute one fires
   when the wall clock shows `time`, also if the clock is set meanwhile: it is looked at once a second
   (`timetable.RECHECK`) while an absolute timer is started, so a jump is noticed at most so much later. A one-off time
   that has passed already means at once.
2. *No drift, no pile-up.* With an `interval`, the times are `first + n * interval`, on the same clock. Times that went
   by while the function ran, or while nothing could run, are made up for by one call, not by one each. A scheduler's
   timer leaves out the times at which the work of the time before is not done yet. An absolute timer with an interval
   that is started after its first time begins with the next. A wall clock that was set back repeats no times.
3. *Stopped is stopped.* To fire is a transaction too, which takes the timer off the timetable just before the function
   is called. A `stop` that commits before that prevents the call for good, and returns true. One that comes later
   returns false if there was nothing left to prevent; the function may then be running still, or be just about to, for
   `stop` doesn't wait (and so may be called by the function itself). With an interval this goes for the last call.
4. *One does not disturb the others.* What the function raises is logged (logger `hive_task.timers`), and a timer with
   an interval goes on; so is a scheduler's refusal to take it. But in the timers' own thread functions run one after
   the other: for a long one, name a `scheduler`, or any other `concurrent.futures.Executor`.
5. *A started timer is kept alive* by the timetable, one that isn't by nobody. In a process made by `os.fork` no timer
   is started, as no other thread runs, and all can be. When the interpreter exits, no timer fires any more.

States: "new", "started" (until a one-off timer has fired, or stop), "fired", "stopped". To start a timer that is
started sets it anew.

Which conflict: starting, stopping and firing, of any timers, with each other; the state of a timer, with its own.

Cost: 20 to 60 µs each to start, to stop and to fire, O(log n) with n timers started. The thread sleeps until the next
time, or until a timer is started or stopped.

>>> from stm import TVar, atomically, check
>>> rings = TVar(0)
>>> timer = make_timer("bell", lambda: rings.update(lambda n: n + 1), 0.01, interval=0.01)
>>> timer.state, start_timer(timer).state
('new', 'started')
>>> @atomically
... def three_times():
...     check(rings.value >= 3)
...     stop_timer(timer)
...     return timer.state
>>> three_times()
'stopped'
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from math import isfinite
from typing import TYPE_CHECKING, Any, NoReturn

from hive_task.timekeeper import NEW, Keeper, Standing, State, keeper
from hive_task.timetable import next_beat
from stm import TVar

if TYPE_CHECKING:
    from concurrent.futures import Executor

__all__ = ["Timer", "make_timer", "start_timer", "stop_timer"]

#: Seconds. Shorter ones are lost in the precision of the wall clock.
SHORTEST_INTERVAL = 1e-6

#: `co_flags` of coroutine functions, asynchronous generators and generators, as the module `inspect` documents them.
UNFIT = 0x80 | 0x200 | 0x20


class Timer:
    """A function to be called later: see the module, and `make_timer`."""

    __slots__ = (
        "__weakref__",
        "_absolute",
        "_function",
        "_interval",
        "_keeper",
        "_name",
        "_scheduler",
        "_standing",
        "_time",
    )

    def __init__(
        self,
        name: str,
        function: Callable[[], object],
        time: float | datetime,
        *,
        absolute: bool = False,
        interval: float | None = None,
        scheduler: Executor | None = None,
        _keeper: Keeper = keeper,
    ) -> None:
        if not isinstance(name, str):
            raise TypeError(f"a timer's name must be a string, not {name!r}")
        if not callable(function):
            raise TypeError(f"a timer takes a function without arguments, not {function!r}")
        if getattr(getattr(function, "__code__", None), "co_flags", 0) & UNFIT:
            raise TypeError(f"a timer takes a plain function, not a coroutine or generator function: {function!r}")
        if scheduler is not None and not callable(getattr(scheduler, "submit", None)):
            raise TypeError(f"scheduler must be a Scheduler, or another Executor, not {scheduler!r}")
        self._name = name
        self._function = function
        self._time = _point(time) if absolute else _seconds("time", time, 0)
        self._absolute = bool(absolute)
        self._interval = None if interval is None else _seconds("interval", interval, SHORTEST_INTERVAL)
        self._scheduler = scheduler
        self._keeper = _keeper
        self._standing: TVar[Standing] = TVar(NEW, name=name)

    def start(self) -> None:
        """Start the timer; if it is started, set it anew."""
        self._keeper.start(self)

    def stop(self) -> bool:
        """Let the timer not fire any more. True if it was started (promise 3 says what else that tells)."""
        return self._keeper.stop(self)

    @property
    def name(self) -> str:
        return self._name

    @property
    def state(self) -> State:
        """ "new", "started", "fired" or "stopped"."""
        return self._standing.get().here.state

    def _times(self, now: float) -> tuple[float, float]:
        """The first of the times at which the timer fires, and the next one, if it is started now."""
        first = self._time if self._absolute else now + self._time
        if first < now and self._interval is not None:
            return first, next_beat(first, self._interval, now)
        return first, first

    def __repr__(self) -> str:
        return f"<Timer {self._name!r} {self.state}>"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(f"{self!r} can't be pickled or copied: make_timer() makes another one")


def make_timer(
    name: str,
    function: Callable[[], object],
    time: float | datetime,
    *,
    absolute: bool = False,
    interval: float | None = None,
    scheduler: Executor | None = None,
) -> Timer:
    """A timer that calls `function()` at a time to come, once it is started.

    `name`: for messages. `time`: seconds from the start; with `absolute` an aware `datetime`, or seconds of Unix time.
    `interval`: call it again every so many seconds after that. `scheduler`: the function runs as a work of this
    scheduler (or task of another `Executor`), instead of in the timers' own thread.

    `TypeError` or `ValueError` for what can't be meant.
    """
    return Timer(name, function, time, absolute=absolute, interval=interval, scheduler=scheduler)


def start_timer(timer: Timer) -> Timer:
    """Start the timer, and return it; if it is started, set it anew."""
    _check("start_timer", timer).start()
    return timer


def stop_timer(timer: Timer) -> bool:
    """Let the timer not fire any more. True if it was started (promise 3 says what else that tells)."""
    return _check("stop_timer", timer).stop()


def _check(where: str, timer: object) -> Timer:
    if not isinstance(timer, Timer):
        raise TypeError(f"{where}() takes a Timer, which make_timer() makes, not {timer!r}")
    return timer


def _seconds(what: str, value: object, least: float) -> float:
    if isinstance(value, datetime):
        raise TypeError(f"{what} is a number of seconds, not {value!r}; for a point in time say absolute=True")
    seconds = _number(what, value)
    if seconds < least:
        raise ValueError(f"{what} must be {least:g} seconds at least, not {value!r}")
    return seconds


def _point(time: object) -> float:
    if not isinstance(time, datetime):
        return _number("an absolute time", time)
    if time.utcoffset() is None:
        raise ValueError(f"{time!r} is no point in time without a time zone: take time.astimezone(), for example")
    return time.timestamp()


def _number(what: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{what} must be a number of seconds, not {value!r}")
    try:
        number = float(value)
    except OverflowError:
        number = float("inf")
    if not isfinite(number):
        raise ValueError(f"{what} must be a finite number of seconds, not {value!r}")
    return number
