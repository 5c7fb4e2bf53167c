"""`Policy`: the choices that a scheduler makes, as pure functions of what a transaction has read.

A policy changes nothing and remembers nothing: the transaction that asks it applies its answer, and may ask again if it
has to start over. To choose otherwise, derive from `Policy`, override what is to be different, and give an object of
the class to `make_scheduler(policy=...)`. An answer that makes no sense (a worker that is not among those named) raises
`HiveTaskError` where that is a call of somebody's; where a worker needed it, it is logged, and the usual choice made.

>>> policy = Policy()
>>> policy.batch(queued=1000, workers=4, seconds=5e-6), policy.batch(queued=1000, workers=4, seconds=0.01)
(32, 1)
>>> policy.victim((0, 3, 7)), policy.victim((0, 0))
(2, None)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from hive_task.scaling import Decision, Load, decide

if TYPE_CHECKING:
    from hive_task.picture import FunctionProfile
    from hive_task.work import Work

#: Works that a worker takes in advance, at most.
MOST = 32

#: Seconds that the works on a worker's tray should take in all, about: what he takes others find later.
AHEAD = 5e-4


class Policy:
    """The choices of the scheduler, as it makes them when nobody says otherwise."""

    __slots__ = ()

    def place(self, work: Work, idle: Sequence[str], functions: Mapping[str, FunctionProfile]) -> int:
        """Which of the idle workers gets this work: an index of `idle`, their uuids, the one who became idle last at
        the end. `functions` says how long works took so far, by the names of their functions.

        The last one: its stack and its data are in the caches still, and those who are not needed stay asleep.
        """
        return len(idle) - 1

    def batch(self, queued: int, workers: int, seconds: float) -> int:
        """How many works a worker takes at once, if so many are queued, and his last ones took so many seconds each.

        Cheap ones, several; but no more than half of what would be his share.
        """
        if seconds * 2 > AHEAD:
            return 1
        return max(1, min(MOST, queued // (2 * workers), int(AHEAD / (seconds + 1e-6))))

    def victim(self, trays: Sequence[int]) -> int | None:
        """From which worker to steal, if they have taken so many works in advance: an index of `trays`, or None.

        The one with most: so that one theft lasts longest.
        """
        most = max(trays, default=0)
        return trays.index(most) if most else None

    def scale(self, load: Load) -> Decision:
        """How many workers there are to be; see `scaling.decide`."""
        return decide(load)
