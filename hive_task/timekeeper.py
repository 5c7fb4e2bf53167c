"""The thread of all timers: how one that is started comes to fire, in transactions.

Promises: a timer fires at most once for each of its times, and only if no `stop` has committed before. While a timer is
started there is a thread to let it fire; while none is, there is none. The thread sleeps in one transaction, which ends
when something is due or when a timer is started or stopped.

How: one variable, the board, holds the timetable (`timetable.py`) and the token of the thread that keeps it. Starting a
timer, stopping one, firing, and the thread's decision to end because there is nothing left are transactions on the
board, so they come one after the other. Who starts a timer and finds no thread writes a new token, and starts the
thread of that token after the commit. A thread whose token is not on the board ends. If there are no threads to be had,
the commit stands, and the next start of a timer tries again.

A process that was forked finds another process's token on the board, and takes it for empty.
"""

from __future__ import annotations

import _thread
import atexit
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from hive_task.timetable import Timetable, next_beat
from stm import TVar, after, atomically, check, exchange, on_commit

if TYPE_CHECKING:
    from concurrent.futures import Future
    from logging import Logger

    from hive_task.timers import Timer

State = Literal["new", "started", "fired", "stopped"]


class _Process:
    """Which process this is: what was written under another token comes from before a fork."""

    def __init__(self) -> None:
        self.token = object()

    def renew(self) -> None:
        self.token = object()


_process = _Process()
os.register_at_fork(after_in_child=_process.renew)


class Standing(NamedTuple):
    """How a timer stands. `number`: of its entry in the timetable, if it is started."""

    state: State
    number: int = 0
    process: object = None

    @property
    def here(self) -> Standing:
        """The same; a timer that was started before this process was forked is stopped."""
        return STOPPED if self.state == "started" and self.process is not _process.token else self


NEW, FIRED, STOPPED = Standing("new"), Standing("fired"), Standing("stopped")


class Course:
    """What begins with a timer's start and ends when it is stopped, started anew or, without an interval, fires."""

    __slots__ = ("first", "future", "timer")

    def __init__(self, timer: Timer, first: float) -> None:
        self.timer = timer
        self.first = first
        self.future: Future[Any] | None = None  # the thread's alone

    def call(self) -> None:
        timer = self.timer
        try:
            if timer._scheduler is None:
                timer._function()
            elif self.future is None or self.future.done():
                self.future = timer._scheduler.submit(timer._function)
                self.future.add_done_callback(partial(_report, timer))
        except BaseException as error:
            _log(timer, error)


def _report(timer: Timer, future: Future[Any]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        _log(timer, error)


def _log(timer: Timer, error: BaseException) -> None:
    _logger().error("%r failed", timer, exc_info=error)


def _logger() -> Logger:
    import logging  # (takes longer to load than all of this package)

    return logging.getLogger("hive_task.timers")


class Board(NamedTuple):
    """The timetable, and who keeps it: the thread's token, or `None` if there is no thread."""

    table: Timetable
    keeper: object
    process: object

    @property
    def here(self) -> Board:
        """The same; in a process forked meanwhile, an empty one."""
        if self.process is _process.token:
            return self
        return Board(Timetable(numbers=self.table.numbers), None, _process.token)


class Keeper:
    """The timers that go by two clocks, and their thread.

    Which thread keeps the timetable, and that there is none, is written on the same board: so whoever starts a timer
    knows for sure whether a thread is there to see it, and starts one after the commit if not.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time):
        self._monotonic = monotonic
        self._wall = wall
        self._board = TVar(Board(Timetable(), None, _process.token), name="timers")

    @atomically
    def start(self, timer: Timer) -> None:
        while True:
            board, standing = self._board.get(), timer._standing.get()
            before = board.here
            first, moment = timer._times(self._wall() if timer._absolute else self._monotonic())
            table = before.table.excluding(standing.number)
            table, number = table.including(moment, Course(timer, first), timer._absolute)
            keeper = object() if before.keeper is None else before.keeper
            changed = Board(table, keeper, before.process)
            started = Standing("started", number, before.process)
            if exchange((self._board, board, changed), (timer._standing, standing, started)):
                break
        if before.keeper is None:
            on_commit(self._launch, keeper)

    @atomically
    def stop(self, timer: Timer) -> bool:
        while True:
            board, standing = self._board.get(), timer._standing.get()
            if standing.here.state != "started":
                return False
            changed = board._replace(table=board.table.excluding(standing.number))
            if exchange((self._board, board, changed), (timer._standing, standing, STOPPED)):
                return True

    @atomically
    def clear(self) -> None:
        """Let nothing fire any more that is started now."""
        self._board.update(lambda board: board.here._replace(table=Timetable(numbers=board.table.numbers)))

    def _launch(self, keeper: object) -> None:
        # Not by `Thread.start`: that waits for the new thread to register, for ever if this is a finalizer that has
        # interrupted `threading` in this thread while it holds the lock of the register.
        try:
            _thread.start_new_thread(self._begin, (keeper,))
        except Exception:
            self._leave(keeper, False)
            raise
        except BaseException:
            self._leave(keeper, True)  # Ctrl-C, before or after
            raise

    def _begin(self, keeper: object) -> None:
        try:
            threading.Thread(target=self._keep, args=(keeper,), name="hive_task timers", daemon=True).start()
        except BaseException:
            if self._leave(keeper, False):  # else the interpreter is about to exit
                _logger().exception("no thread for timers")

    def _keep(self, keeper: object) -> None:
        """The thread."""
        try:
            while (course := self._next(keeper)) is not None:
                course.call()
                del course  # while this sleeps, it keeps nothing alive
        except BaseException:
            self._leave(keeper, True)
            raise

    @atomically
    def _next(self, keeper: object) -> Course | None:
        """Wait for the next timer that is due, and let it fire. `None` if this thread is not needed any more."""
        while True:
            board = self._board.get()
            table = board.table
            if board.here is not board or board.keeper is not keeper:
                return None
            if not table:
                if self._board.compare_and_set(board, board._replace(keeper=None)):
                    return None
                continue
            now, wall = self._monotonic(), self._wall()
            entry = table.due(now, wall)
            if entry is None:
                check(after(table.rest(now, wall)).value)
                continue
            course: Course = entry.what
            timer = course.timer
            standing = timer._standing.get()
            table, changed = table.excluding(entry.number), FIRED
            if timer._interval is not None:
                moment = next_beat(course.first, timer._interval, wall if timer._absolute else now)
                table, number = table.including(moment, course, timer._absolute)
                changed = Standing("started", number, board.process)
            if exchange((self._board, board, board._replace(table=table)), (timer._standing, standing, changed)):
                return course

    @atomically
    def _leave(self, keeper: object, replaced: bool) -> bool:
        """This thread was lost; start another if there is something to do and it is to be `replaced`. Is there?"""
        while True:
            board = self._board.get()
            if board.keeper is not keeper or board.here is not board:
                return False
            needed = bool(board.table)
            successor = object() if needed and replaced else None
            if self._board.compare_and_set(board, board._replace(keeper=successor)):
                break
        if successor is not None:
            on_commit(self._launch, successor)
        return needed


#: That of all timers.
keeper = Keeper()
atexit.register(keeper.clear)
