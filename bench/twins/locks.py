"""The scheduler's core on locks and one condition.

Promises. Each work is run exactly once, or cancelled. `totals` is exact: the numbers are of one moment. Works submitted
from outside start in their order; what a work submits goes to the queue of its own worker, where idle ones find it.

How. Each worker's share (its queue and its counters) has a lock, which its owner takes alone, twice for each work. The
common queue has another, and a condition on it for sleepers. Works change from one share to another only by a thread
that holds the common lock: an owner who takes some in advance, or a thief. So no order among the shares' locks is
needed, and whoever looks through all the queues with the common lock in hand misses nothing. The price of the exact
totals is that asking for them takes every lock there is; the price of keeping them correct is that every new way to
move a work must be checked against these rules by hand.

What isn't exact: a work cancelled by its future counts as queued until a worker comes across it, since the future's
state is behind a lock of the future's own. A work is counted as done just before its future is.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Any, Final

from bench.twins import Item, Work
from hive_task.picture import Totals

#: So many works an owner takes in advance at most. Others may steal them.
AHEAD: Final = 32


class _Share:
    """A queue and the counters that belong to it; for the common queue, only `submitted` and `cancelled` move."""

    __slots__ = ("cancelled", "failed", "finished", "lock", "running", "submitted", "works")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.works: deque[Item] = deque()
        self.submitted = self.running = self.finished = self.failed = self.cancelled = 0


class LockScheduler:
    """So many workers, running from the start until `stop`."""

    def __init__(self, workers: int) -> None:
        self._common = _Share()
        self._wake = threading.Condition(self._common.lock)
        self._looking = 0  # workers without work, asleep or about to be; changes under the common lock
        self._stopping = False
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
        """Queue many at once: all of them or none, and nothing between them."""
        items: list[Item] = [(Future(), work) for work in works]
        self._put(items)
        return [future for future, _ in items]

    def totals(self) -> Totals:
        """How many works there are and were, at one moment."""
        shares = [self._common, *self._shares]
        with ExitStack() as locked:
            for share in shares:
                locked.enter_context(share.lock)
            return Totals(
                submitted=sum(share.submitted for share in shares),
                queued=sum(len(share.works) for share in shares),
                running=sum(share.running for share in shares),
                finished=sum(share.finished for share in shares),
                failed=sum(share.failed for share in shares),
                cancelled=sum(share.cancelled for share in shares),
            )

    def stop(self, *, cancel_queued: bool = False) -> None:
        """Finish what is queued, or cancel it, and end the workers. Once is enough, more often is allowed."""
        dropped: list[Item] = []
        with self._wake:
            self._stopping = True
            if cancel_queued:
                dropped += self._drop(self._common)
                for share in self._shares:
                    with share.lock:
                        dropped += self._drop(share)
            self._wake.notify_all()
        for future, _ in dropped:  # without locks, for this calls what others have attached
            future.cancel()
            future.set_running_or_notify_cancel()
        for thread in self._threads:
            thread.join()

    # Queues

    def _put(self, items: Sequence[Item]) -> None:
        own: _Share | None = getattr(self._current, "share", None)
        if own is None:
            with self._wake:
                if self._stopping:
                    raise RuntimeError("this scheduler is stopping or stopped, and takes no more work")
                self._common.works.extend(items)
                self._common.submitted += len(items)
                if self._looking:
                    self._wake.notify(len(items))
            return
        with own.lock:
            own.works.extend(items)
            own.submitted += len(items)
        # Who began to look before these works were there is counted already; who begins now will find them.
        if self._looking:
            with self._wake:
                self._wake.notify(len(items))

    def _provide(self, own: _Share) -> bool:
        """Wait until the worker has works in its queue. False if there will be none."""
        with self._wake:
            self._looking += 1
            while not self._fetch(own):
                if self._stopping:
                    return False
                self._wake.wait()
            self._looking -= 1
            return True

    def _fetch(self, own: _Share) -> bool:
        """Take works from the common queue, or else half of another worker's. The common lock is held."""
        waiting = self._common.works
        if waiting:
            _move(waiting, own.works, max(1, min(AHEAD, len(waiting) // (2 * len(self._shares)))))
            return True
        for victim in self._shares:
            with victim.lock:
                _move(victim.works, own.works, (len(victim.works) + 1) // 2)
            if own.works:
                return True
        return False

    def _drop(self, share: _Share) -> list[Item]:
        items = list(share.works)
        share.works.clear()
        share.cancelled += len(items)
        return items

    # Workers

    def _live(self, own: _Share) -> None:
        self._current.share = own
        while (item := self._next(own)) is not None:
            self._run(own, *item)
            del item  # an idle worker keeps nothing alive

    def _next(self, own: _Share) -> Item | None:
        while True:
            with own.lock:
                if own.works:
                    own.running = 1
                    return own.works.popleft()
            if not self._provide(own):
                return None

    def _run(self, own: _Share, future: Future[Any], work: Work) -> None:
        if not future.set_running_or_notify_cancel():
            with own.lock:
                own.running = 0
                own.cancelled += 1
            return
        try:
            result = work.fn(*work.args, **work.kwargs)
        except BaseException as error:
            with own.lock:
                own.running = 0
                own.failed += 1
            future.set_exception(error)
        else:
            with own.lock:
                own.running = 0
                own.finished += 1
            future.set_result(result)


def _move(source: deque[Item], target: deque[Item], count: int) -> None:
    """The oldest first."""
    for _ in range(count):
        target.append(source.popleft())
