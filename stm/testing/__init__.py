"""Tools for testing code under transactions, and `stm` itself.

`explore` runs a program of several threads under every schedule up to a bound, and shows the first that fails;
`replay` runs it again; `step` is a step of one's own. `History` records what transactions read and wrote, and decides
whether that was opaque. `inject` raises at a named point of the protocol (`points()` lists them). All are loaded on
first use.
"""

from typing import TYPE_CHECKING

from stm._lazy import lazily

if TYPE_CHECKING:
    from stm.testing.explorer import Deadlock, Exploration, Livelock, ScheduleFailure, explore, replay, step
    from stm.testing.history import History, NotOpaque
    from stm.testing.injection import inject
    from stm.testing.protocol import points

__all__ = [
    "Deadlock",
    "Exploration",
    "History",
    "Livelock",
    "NotOpaque",
    "ScheduleFailure",
    "explore",
    "inject",
    "points",
    "replay",
    "step",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "Deadlock": "stm.testing.explorer",
            "Exploration": "stm.testing.explorer",
            "Livelock": "stm.testing.explorer",
            "ScheduleFailure": "stm.testing.explorer",
            "explore": "stm.testing.explorer",
            "replay": "stm.testing.explorer",
            "step": "stm.testing.explorer",
            "History": "stm.testing.history",
            "NotOpaque": "stm.testing.history",
            "points": "stm.testing.protocol",
            "inject": "stm.testing.injection",
        },
    )
