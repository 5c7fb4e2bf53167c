"""What a transaction does between an aborted attempt and the next: back off, and in the end insist.

Promise: every transaction commits after a bounded number of aborts. A conflict means that somebody else committed, so
the system as a whole moves on; for the single transaction that guarantees nothing, and a long one among many short ones
could starve. So an attempt that follows `INSIST_AFTER` aborts is *exclusive*: it runs while no other thread may commit,
and what it has read can't become stale. Others go on reading and computing meanwhile, and queue asleep to commit.

Before that, the pause before attempt n grows exponentially and is random, so that two transactions that keep aborting
each other fall out of step (randomised exponential back-off, as in Ethernet). The first two reruns come at once: most
conflicts are with a commit that is already over.
"""

from __future__ import annotations

import time

#: Aborts after which the next attempt is exclusive.
INSIST_AFTER = 10

PATIENT_AFTER = 2
FIRST_PAUSE = 2e-6
LONGEST_PAUSE = 1e-3


def pause(aborts: int) -> None:
    """Back off after the `aborts`-th abort in a row of one transaction."""
    if aborts > PATIENT_AFTER:
        time.sleep(pause_before(aborts))


def pause_before(aborts: int) -> float:
    """Seconds to back off for after so many aborts."""
    import random  # only the unlucky need it

    return random.random() * min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**aborts)
