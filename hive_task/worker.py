"""A worker's thread: it runs the works that `Dispatch` says, and decides nothing.

Promises: what a work raises becomes its future's exception, whatever it is; the thread goes on. Neither the thread nor
an exception's traceback keeps arguments or results alive. A work runs in the context (`contextvars`) of the call that
submitted it. A thread that ends for another reason is reported, and replaced (`Staff.bury`).

A work can ask about itself, and help the scheduler to help others:

>>> from hive_task import Scheduler, current_work
>>> with Scheduler(workers=1, name="example") as scheduler:
...     scheduler.submit(lambda: current_work().worker).result()
'example-1'
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from concurrent import futures as standard
from contextlib import contextmanager
from itertools import islice
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar

from hive_task.dispatch import AGAIN, LEAVE
from hive_task.futures import CANCELLED, FAILED, FINISHED, Future, State, await_outcome, here
from hive_task.registry import Worker
from hive_task.uninvited import OUTSIDE
from hive_task.work import Work, function_name
from stm import TQueue, TransactionTimeout, check, run
from stm.collections import Empty

if TYPE_CHECKING:
    from hive_task.messages import Port
    from hive_task.staff import Staff

T = TypeVar("T")
DoneAndNotDone = standard._base.DoneAndNotDoneFutures

log = logging.getLogger(__name__)

#: Works that wait for each other and are run on one stack, at most. Beyond that, somebody stands in.
NESTED = 16


class Post:
    """A worker at his post: what his thread knows."""

    def __init__(self, worker: Worker, staff: Staff) -> None:
        self.worker = worker
        self.staff = staff
        self.dispatch = staff.dispatch
        #: Seconds that the last works took, smoothed; infinite at first, for nothing is known.
        self.pace = inf
        self.nested = 0

    def run(self) -> None:
        here.worker = self
        try:
            self._work()
        except BaseException as error:
            log.critical("%r died: %r", self.worker, error, exc_info=True)
            self.staff.bury(self.worker, error)
        finally:
            here.worker = None
            if self.worker.child is not None:
                self.worker.child.close()

    def _work(self) -> None:
        me, dispatch = self.worker, self.dispatch
        advance, monotonic = dispatch.advance, time.monotonic
        future = dispatch.first(me)
        while True:
            while future is None:
                future = dispatch.await_work(me, self.pace)
            if future is LEAVE:
                return
            began = monotonic()
            name = function_name(future._work.fn)
            state: State | None
            if future._work.special is None or future._work.special.kind == "thread":
                state = call(future._context, future._work)
            else:
                state = self.delegate(future, future._work)
            ended = monotonic()
            span = ended - began
            self.pace = pace = span if span > self.pace or self.pace == inf else self.pace * 0.75 + span * 0.25
            if state is None:
                future = self.staff.rerun(me, future, pace)
                continue
            following, callbacks = advance(me, future, state, name, ended, pace)
            future._forget()
            state = None
            if callbacks is None:
                self.dismiss_child()
            elif callbacks:
                future._tell_safely(callbacks)
            future, following = following, None
            if future is AGAIN:
                future = dispatch.seek_work(me, pace)
            callbacks = None

    # A work that waits.

    def wait_for(self, future: Future[Any], timeout: float | None) -> State:
        """What has become of a future that the current work waits for: by running it, or by letting others run."""
        mine = timeout is None and future._dispatch is self.dispatch and self.nested < NESTED
        if mine and self.dispatch.claim(self.worker, future):
            self.nested += 1
            try:
                name = function_name(future._work.fn)  # type: ignore[union-attr]
                state = call(future._context, future._work)
                callbacks = self.dispatch.end(self.worker, future, state, name, time.monotonic())
            finally:
                self.nested -= 1  # (what is cut off here by an exception, the end of the outer work sees to)
            future._forget()
            future._tell_safely(callbacks or ())
            return future._var.get()
        with self.blocking(future if future._dispatch is self.dispatch else None):
            return await_outcome(future, timeout)

    @contextmanager
    def blocking(self, wanted: Future[Any] | None = None) -> Iterator[None]:
        self.dispatch.begin_wait(self.worker, wanted)
        try:
            yield
        finally:
            self.dispatch.end_wait(self.worker)

    def in_hand(self) -> Future[Any] | None:
        """The work that this thread runs, the innermost one."""
        stack = self.worker.desk.peek()[0]
        return None if stack is None else stack[0]

    # Works for a process.

    def delegate(self, future: Future[Any], work: Work) -> State | None:
        """Have a work run by this worker's process; None if that died, and the work is to be run again."""
        from hive_task.processes import Child, ChildDied

        me = self.worker
        try:
            child = me.child
            if child is None or not child.alive:
                self.dismiss_child()
                child = me.child = Child(me.name)
            if self._is_dropped():  # its time was over before there was anything to be killed
                child.kill()
            return FINISHED, child.run(future._context)
        except ChildDied as died:
            self.dismiss_child()
            if not self._is_dropped():
                self.staff.note_loss()
                log.warning("the process of %s died while it ran %r: %s", me.name, work, died)
                if future._runs < work.options.reruns:
                    future._runs += 1
                    return None
            return FAILED, died
        except BaseException as error:
            return FAILED, error
        finally:
            del future, work

    def _is_dropped(self) -> bool:
        """Has the work in hand been given up meanwhile? Then its process is being killed, and no good for another."""
        stack = self.worker.desk.get()[0]
        return stack is not None and stack[2]

    def dismiss_child(self) -> None:
        child, self.worker.child = self.worker.child, None
        if child is not None:
            child.kill()
            child.close()


def call(context: Any, work: Any) -> State:
    """Run a work in its context. (In a frame of its own, which the traceback of what it raises may keep.)"""
    try:
        return FINISHED, context.run(work.fn, *work.args, **work.kwargs)
    except BaseException as error:
        work = context = None
        return FAILED, error


OUTSIDE.add(call.__code__)


class CurrentWork:
    """What a work can know of itself, while it runs. See `current_work`."""

    __slots__ = ("_post", "future")

    def __init__(self, post: Post, future: Future[Any]) -> None:
        self._post = post
        self.future = future

    @property
    def worker(self) -> str:
        """The name of the worker that runs it."""
        return self._post.worker.name

    @property
    def port(self) -> Port | None:
        """The worker's port, connected to the scheduler's (`Scheduler.ports`). `SystemEvent`s arrive there, and what
        the program sends."""
        return self._post.worker.port

    @property
    def overdue(self) -> bool:
        """Has it exceeded its time limit? What it returns is refused then; it should end."""
        return self.future.done()

    @property
    def cancel_requested(self) -> bool:
        """Has somebody asked for its end, though it had begun? It may end as it sees fit."""
        return self.future.cancel_requested


def current_work() -> CurrentWork | None:
    """The work that the calling thread runs; None if it runs none."""
    post: Post | None = getattr(here, "worker", None)
    future = None if post is None else post.in_hand()
    return None if post is None or future is None else CurrentWork(post, future)


@contextmanager
def blocking() -> Iterator[None]:
    """In a work, around a call that blocks for long: another worker stands in meanwhile, if there is work to do.

    Elsewhere it does nothing, so a library may use it wherever it blocks.

    >>> import time
    >>> from hive_task import Scheduler
    >>> def download():
    ...     with blocking():
    ...         time.sleep(0.01)
    >>> with Scheduler(workers=1) as scheduler:
    ...     futures = [scheduler.submit(download) for _ in range(3)]
    ...     wait(futures).not_done
    set()
    """
    post: Post | None = getattr(here, "worker", None)
    if post is None:
        yield
        return
    with post.blocking():
        yield


def wait(
    fs: Iterable[standard.Future[Any]], timeout: float | None = None, return_when: str = standard.ALL_COMPLETED
) -> DoneAndNotDone:
    """`concurrent.futures.wait`; in a work, others are run meanwhile.

    (For futures of schedulers it makes no use of that: interrupted by Ctrl-C, it may leave their locks behind.)
    """
    futures = set(fs)
    if return_when not in (standard.FIRST_COMPLETED, standard.FIRST_EXCEPTION, standard.ALL_COMPLETED):
        raise ValueError(f"return_when is FIRST_COMPLETED, FIRST_EXCEPTION or ALL_COMPLETED, not {return_when!r}")
    with blocking():
        if not all(isinstance(future, Future) for future in futures):
            return standard.wait(futures, timeout, return_when)
        try:
            run(_enough, futures, return_when, timeout=None if timeout is None else max(0.0, timeout))
        except TransactionTimeout:
            pass
    done = {future for future in futures if future.done()}
    return DoneAndNotDone(done, futures - done)


def _enough(futures: set[Future[Any]], return_when: str) -> None:
    """Part of a transaction: wait for as many as are wanted, and read no more of them than that needs."""
    for future in futures:
        status = future._var.get()[0]
        if return_when == standard.ALL_COMPLETED:
            check(status >= CANCELLED)
        elif status == FAILED or (status >= CANCELLED and return_when == standard.FIRST_COMPLETED):
            return
    if return_when == standard.FIRST_EXCEPTION:
        check(all(future.done() for future in futures))
    elif return_when == standard.FIRST_COMPLETED:
        check(not futures)


def as_completed(fs: Iterable[standard.Future[T]], timeout: float | None = None) -> Iterator[standard.Future[T]]:
    """`concurrent.futures.as_completed`; in a work, others are run meanwhile."""
    futures = set(fs)
    if not all(isinstance(future, Future) for future in futures):
        completed = standard.as_completed(futures, timeout)
    else:
        completed = _as_completed(futures, None if timeout is None else time.monotonic() + timeout)
    return _letting_others_run(completed)


def _as_completed(futures: set[Any], deadline: float | None) -> Iterator[Any]:
    total = len(futures)
    arrived: TQueue[Any] = TQueue()
    for future in futures:
        future.add_done_callback(arrived.put)
    futures.clear()  # (variables would keep the futures alive while the caller has them)
    future = None
    for number in range(total):
        try:
            yield arrived.get(timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
        except Empty:
            raise TimeoutError(f"{total - number} (of {total}) futures unfinished") from None


def _letting_others_run(completed: Iterator[standard.Future[T]]) -> Iterator[standard.Future[T]]:
    found: list[standard.Future[T]] = []
    while True:
        with blocking():
            found.extend(islice(completed, 1))
        if not found:
            return
        yield found.pop()
