"""The scheduler's core without a lock of its own: each step that threads share is one call that CPython makes atomic.

Those calls are `append`, `pop` and `popleft` of a deque, `put` and `get` of a `queue.SimpleQueue`, and `next` of an
`itertools.count`. Every other counter has one thread that writes it.

Promises. Each work is run exactly once, or cancelled, also if it is submitted while `stop` runs. No wake-up is lost: a
worker that finds nothing leaves a token in a deque, looks around once more, and only then sleeps; who puts work where a
sleeper wouldn't see it takes a token, and wakes somebody if it got one.

What one call can't do, these structures can't do either, and no care in writing changes that:
- `totals` is not a picture of one moment. The counters are read one after another while works go on. They are read in
  an order that keeps each number from becoming negative, and the sum right by its making; but works that ended
  meanwhile pass for running, so more of them may "run" than there are workers. At rest the numbers are exact, as long
  as one thread at a time asks.
- A batch is not put at once: works of others come in between, and its first may be done before the last is queued.
- What was taken in advance could not be given back at once, so workers take singly from the common queue.
- A cancelled work can't leave the queue: it counts as queued until a worker comes across it.
- Closing the door and looking whether somebody is in it are two steps. A work that slips in while the scheduler stops
  is run by whoever notices, the caller of `stop` or the one who submitted it, in its own thread.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any

from bench.twins import Item, Work
from hive_task.picture import Totals


class _Share:
    """A worker's queue, and counters that only its owner writes."""

    __slots__ = ("cancelled", "failed", "finished", "taken", "works")

    def __init__(self) -> None:
        self.works: deque[Item] = deque()
        self.taken = self.finished = self.failed = self.cancelled = 0


class LockFreeScheduler:
    """So many workers, running from the start until `stop`."""

    def __init__(self, workers: int) -> None:
        self._common: queue.SimpleQueue[Item | None] = queue.SimpleQueue()  # None: wake up and look around
        self._sleepers: deque[None] = deque()
        self._submitted = itertools.count()  # counts questions too, for there is no other way to read it
        self._asked = itertools.count()
        self._stopping = self._stopped = False
        self._current = threading.local()
        self._shares = [_Share() for _ in range(workers)]
        # Daemons: a work that never ends must not keep a benchmark from ending.
        self._threads = [threading.Thread(target=self._live, args=(own,), daemon=True) for own in self._shares]
        for thread in self._threads:
            thread.start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Queue a call. `RuntimeError` once it is stopping, except for works, whose worker is still there."""
        future: Future[Any] = Future()
        self._put([(future, Work(fn, args, kwargs))])
        return future

    def put_works(self, works: Iterable[Work]) -> list[Future[Any]]:
        """Queue many, one after another."""
        items: list[Item] = [(Future(), work) for work in works]
        self._put(items)
        return [future for future, _ in items]

    def totals(self) -> Totals:
        """How many works there are and were; not at one moment."""
        shares = list(self._shares)
        # What a work reaches last is read first.
        finished = sum(share.finished for share in shares)
        failed = sum(share.failed for share in shares)
        cancelled = sum(share.cancelled for share in shares)
        taken = sum(share.taken for share in shares)
        submitted = next(self._submitted) - next(self._asked)
        running = taken - finished - failed - cancelled
        return Totals(submitted, submitted - taken, running, finished, failed, cancelled)

    def stop(self, *, cancel_queued: bool = False) -> None:
        """Finish what is queued, or cancel it, and end the workers. Once is enough, more often is allowed."""
        self._stopping = True
        if cancel_queued:
            own = self._another_share()
            while (item := self._look(own)) is not None:
                item[0].cancel()
                self._run(own, *item)
        self._common.put(None)
        for thread in self._threads:
            thread.join()
        self._stopped = True
        self._sweep()

    # Queues

    def _put(self, items: Sequence[Item]) -> None:
        own: _Share | None = getattr(self._current, "share", None)
        if own is None and self._stopping:
            raise RuntimeError("this scheduler is stopping or stopped, and takes no more work")
        for item in items:
            next(self._submitted)
            if own is None:
                self._common.put(item)
            else:
                own.works.append(item)
                self._wake()
        if self._stopped:  # since the question above: nobody but us may be left to run them
            self._sweep()

    def _wake(self) -> None:
        """Wake a sleeper, if there is one."""
        if self._sleepers:
            try:
                self._sleepers.pop()
            except IndexError:  # somebody else does it
                return
            self._common.put(None)

    def _look(self, own: _Share) -> Item | None:
        """A work from one's own queue, the common one, or another worker's; each as old as can be."""
        if own.works:
            try:
                return own.works.popleft()
            except IndexError:  # stolen
                pass
        calls = 0
        try:
            while (item := self._common.get_nowait()) is None:
                calls += 1
        except queue.Empty:
            item = self._steal()
        for _ in range(calls):  # meant for sleepers, and we are none: call again, or let them be callable again
            if item is None:
                self._sleepers.append(None)
            else:
                self._common.put(None)
        return item

    def _steal(self) -> Item | None:
        for share in list(self._shares):
            try:
                return share.works.popleft()
            except IndexError:
                pass
        return None

    def _next(self, own: _Share) -> Item | None:
        """Wait for a work. `None` if there will be none."""
        while True:
            item = self._look(own)
            if item is None:
                self._sleepers.append(None)
                item = self._look(own)
                if item is None and self._stopping:
                    self._common.put(None)  # for the next one
                    return None
                if item is None:
                    item = self._common.get()
                    if item is None:
                        continue  # woken: that took our token, or one as good
                try:
                    self._sleepers.pop()
                except IndexError:  # taken by somebody who has sent a None, which will make another one look around
                    pass
            return item

    def _sweep(self) -> None:
        """Run what is left, in this thread."""
        own = self._another_share()
        while (item := self._look(own)) is not None:
            self._run(own, *item)

    def _another_share(self) -> _Share:
        """Counters that this thread may write."""
        own = _Share()
        self._shares.append(own)
        return own

    # Workers

    def _live(self, own: _Share) -> None:
        self._current.share = own
        while (item := self._next(own)) is not None:
            self._run(own, *item)
            del item  # an idle worker keeps nothing alive

    def _run(self, own: _Share, future: Future[Any], work: Work) -> None:
        own.taken += 1
        if not future.set_running_or_notify_cancel():
            own.cancelled += 1
            return
        try:
            result = work.fn(*work.args, **work.kwargs)
        except BaseException as error:
            own.failed += 1
            future.set_exception(error)
        else:
            own.finished += 1
            future.set_result(result)
