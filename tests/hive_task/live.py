"""Tools for tests of schedulers that really run."""

import contextlib
import threading

from tests.support import PATIENCE, until


class Held:
    """A work that says that it has begun, and ends when it is let go."""

    def __init__(self):
        self.begun = threading.Event()
        self.go = threading.Event()

    def __call__(self, result=None):
        self.begun.set()
        assert self.go.wait(PATIENCE), "was never let go"
        return result

    def has_begun(self):
        assert self.begun.wait(PATIENCE), "has never begun"


@contextlib.contextmanager
def occupied(scheduler, workers=1):
    """So many workers are busy meanwhile; the works that keep them so end afterwards."""
    works = [Held() for _ in range(workers)]
    futures = [scheduler.submit(work) for work in works]
    try:
        for work in works:
            work.has_begun()
        yield futures
    finally:
        for work in works:
            work.go.set()


def at_rest(scheduler):
    """Wait until nothing is queued or runs, and everybody is idle; the picture of that."""
    pictures = []

    def resting():
        picture = scheduler.monitor()
        pictures[:] = [picture]
        totals = picture.totals
        return not totals.queued and not totals.running and all(one.state == "idle" for one in picture.workers)

    until(resting, "rest")
    assert pictures[0].totals.balanced
    return pictures[0]


def totals(scheduler):
    """What has come of the works so far, by name, without what is nought."""
    counts = scheduler.monitor().totals
    assert counts.balanced, counts
    names = ("submitted", "queued", "running", "finished", "failed", "cancelled")
    return {name: number for name in names if (number := getattr(counts, name))}
