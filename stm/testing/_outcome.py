"""What comes out of an exploration: how much was tried, or the schedule that fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Exploration:
    """What was tried without a failure. `complete`: every schedule with at most `preemptions` preemptions."""

    schedules: int
    complete: bool
    preemptions: int
    steps: int
    longest: int
    seconds: float

    def __str__(self) -> str:
        extent = f"all schedules up to {self.preemptions} preemptions" if self.complete else "not all schedules"
        return f"{self.schedules} schedules, {extent}; {self.steps} steps, {self.longest} at most; {self.seconds:.2f} s"


class ScheduleFailure(AssertionError):
    """A schedule under which the program fails.

    `kind`: "exception", "check", "deadlock" or "livelock". `schedule`: what to give to `replay`. `trace`: what the
    threads did, a line for each step. `cause`: the exception, or None. `tried`: which schedule it was, counted from 1.
    """

    def __init__(
        self, kind: str, schedule: str, trace: str, cause: BaseException | None, who: str, tried: int, points: str
    ) -> None:
        self.kind = kind
        self.schedule = schedule
        self.trace = trace
        self.cause = cause
        self.tried = tried
        self.points = points
        what = {
            "deadlock": "all threads are blocked, and nothing can wake them",
            "livelock": "the threads go on and on, and not all come to their end",
            "check": f"the check failed: {_named(cause)}",
            "exception": f"{who} raised {_named(cause)}",
        }[kind]
        grain = "" if points == "steps" else f", points={points!r}"
        super().__init__(f"{what}\n{trace}\nschedule {tried}; to run it again: replay(program, {schedule!r}{grain})")


class Deadlock(ScheduleFailure):
    """All threads are blocked, and nothing can wake them."""


class Livelock(ScheduleFailure):
    """The threads go on and on, and none comes to its end."""


KINDS: Final = {"deadlock": Deadlock, "livelock": Livelock}


def _named(error: BaseException | None) -> str:
    if error is None:
        return ""
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
