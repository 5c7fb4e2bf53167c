"""Code that runs uninvited: signal handlers and finalizers that use a scheduler.

They may strike amid a decision of a scheduler in their own thread. What they do must not become a part of that: a
decision reads variables and sets them later, and would overwrite it. So whoever submits or cancels in a transaction
asks first whether that is one of the scheduler's own, and if so does it apart (`stm.detached`); the decision then
notices, as it would a change by another thread.

Cost: a walk up the frames, a few microseconds, in transactions alone.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import CodeType

#: Where decisions are made.
_FILES = ("dispatch", "queues", "registry", "staff", "stand_in", "submission", "supervisor", "survey")

_DECIDING = {str(Path(__file__).with_name(f"{name}.py")) for name in _FILES}

#: Functions that call works and callbacks, outside decisions: what is open then was begun by these.
OUTSIDE: set[CodeType] = set()


def is_uninvited() -> bool:
    """Is this, the caller's caller, a signal handler or a finalizer that interrupted a decision in this thread?"""
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename in _DECIDING:
            return True
        if frame.f_code in OUTSIDE:
            return False
        frame = frame.f_back  # type: ignore[assignment]
    return False
