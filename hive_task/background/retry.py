"""When to try again: pure functions of what has happened.

>>> Backoff(base=1.0, factor=2.0, longest=60.0, jitter=0.0).delay(1), Backoff(jitter=0.0).delay(50)
(1.0, 3600.0)
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from hive_task.background.tasks import check_seconds


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential back-off with jitter.

    The n-th retry comes after `base * factor ** (n - 1)` seconds, `longest` at most, less a random share of up to
    `jitter` of that, so that tasks that failed together do not come back together (Brooker, "Exponential Backoff And
    Jitter", AWS Architecture Blog, 2015).
    """

    base: float = 1.0
    factor: float = 2.0
    longest: float = 3600.0
    jitter: float = 0.25

    def __post_init__(self) -> None:
        check_seconds("base", self.base)
        check_seconds("longest", self.longest)
        if not self.factor >= 1:
            raise ValueError(f"factor is at least 1, not {self.factor!r}")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter is a share, from 0 to 1, not {self.jitter!r}")

    def delay(self, attempt: int, chance: float | None = None) -> float:
        """Seconds to wait after so many attempts have failed. `chance`: a number from 0 to 1 instead of a random
        one."""
        if attempt < 1:
            raise ValueError(f"attempts are counted from 1, not {attempt!r}")
        try:
            whole = min(self.longest, self.base * self.factor ** (attempt - 1))
        except OverflowError:
            whole = self.longest
        share = random.random() if chance is None else chance
        return whole * (1 - self.jitter * share)
