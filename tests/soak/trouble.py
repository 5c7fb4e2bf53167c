"""What disturbs a soak: signals that raise in the main thread, and exceptions that are injected into others.

Both end a call with an exception that is theirs (`Struck`), wherever it was: before the body, in it, in the middle of a
commit, asleep, among the hooks. What it has done then counts, or doesn't; but all of it.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from stm.testing import inject
from stm.testing.protocol import POINTS
from tests.soak.variables import Hand


class Struck(BaseException):
    """The exception that disturbs. (Not an `Exception`: the library never takes it for the body's answer.)"""


class Alarm:
    """A timer whose handler raises, while `armed`."""

    def __init__(self) -> None:
        self.armed = False
        self.struck = 0

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.armed:
            self.armed = False
            self.struck += 1
            raise Struck

    @contextlib.contextmanager
    def ringing(self, seconds: float) -> Iterator[None]:
        before = signal.signal(signal.SIGALRM, self._handle)
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def disturb(self, call: Callable[[], object]) -> bool:
        """Call, and be struck perhaps. Did it come to its end?"""
        try:
            try:
                self.armed = True
                call()
            finally:
                self.armed = False
        except Struck:
            return False
        return True


#: Where an exception can strike.
PLACES = sorted(name for name, point in POINTS.items() if not point.indivisible)


class Victim(Hand):
    """A hand into whose transactions faults are injected. `struck`: how many."""

    struck = 0

    def work(self, calls: int) -> None:
        for task in self.chance.choices(self.tasks, k=max(1, calls // 10)):
            place, after = self.chance.choice(PLACES), self.chance.randrange(3)
            with inject(place, Struck, after=after, thread=threading.current_thread()) as injection:
                try:
                    task()
                    self.done += 1
                except Struck:
                    pass
            self.struck += injection.struck
