"""`Scheduler`: runs works on threads and processes, and keeps all it knows in transactional variables.

Promises
--------
- It is a `concurrent.futures.Executor`: `submit`, `map`, `shutdown`, `with`, and everything that takes an executor.
- *Every decision is a transaction*, so nothing is ever half decided, and what a caller does in a transaction of his own
  belongs to it: a work submitted in it is submitted if and when that commits.
- *Nothing is lost silently.* Each work runs once, and ends finished, failed or cancelled; if its worker dies, it fails
  with `WorkerLost`, or is run again as often as it allows. In every picture (`monitor`) the totals add up.
- *No idle worker while work is queued.* A worker who waits for a work lets others work meanwhile (see `futures`), so
  works may submit works and wait for them, with one worker also.
- Higher priorities first; within one priority, in the order of submission. What a worker has taken in advance is seen
  in the monitor, gives way to what is more urgent, and is taken over by whoever becomes idle.
- *Nothing to do costs nothing*: idle workers and the supervisor sleep, without polling.
- At the interpreter's exit, schedulers finish their work first. One that nobody refers to any more stops by itself when
  its work is done. A process made by `os.fork` has no part in it.

Errors: `SchedulerClosed` (a `RuntimeError`) for work that comes before the start or after the stop; `TypeError` and
`ValueError` for bad arguments, `UnpicklableWork` for a process's; all by the call that was wrong.

Cost: some 5 µs for an empty work on one thread, 40 to 80 µs there and back (`python -m bench --workload scheduler`).

>>> from stm import TVar, atomically
>>> scheduler = make_scheduler(workers=2, name="example")
>>> start_scheduler(scheduler)
>>> put_work(scheduler, make_work(pow, 2, 10)).result()
1024
>>> balance = TVar(10)
>>> @atomically
... def withdraw(amount):
...     balance.value -= amount
...     return scheduler.submit(print, "withdrawn:", amount)  # if and when this commits
>>> withdraw(3).result()
withdrawn: 3
>>> scheduler.monitor().totals
Totals(submitted=2, queued=0, running=0, finished=2, failed=0, cancelled=0)
>>> stop_scheduler(scheduler)
>>> scheduler.submit(print)
Traceback (most recent call last):
    ...
hive_task.errors.SchedulerClosed: scheduler 'example' takes no work: it is stopped
"""

from __future__ import annotations

import atexit
import itertools
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from contextvars import copy_context
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from pyrsistent import PMap, pmap

from hive_task.dispatch import Dispatch
from hive_task.futures import Future, here
from hive_task.messages import Channel, LocalChannel, LocalPort, Port, SystemEvent
from hive_task.picture import Picture
from hive_task.policy import Policy
from hive_task.registry import on_stack
from hive_task.scaling import Limits, limits
from hive_task.staff import Staff
from hive_task.supervisor import Supervisor
from hive_task.survey import survey
from hive_task.uninvited import is_uninvited
from hive_task.work import Work, make_work
from stm import detached, in_transaction, on_commit, run

__all__ = ["Scheduler", "make_scheduler", "make_work", "put_work", "put_works", "start_scheduler", "stop_scheduler"]

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)

_numbers = itertools.count(1)
_staffs: weakref.WeakSet[Staff] = weakref.WeakSet()


class Scheduler(Executor):
    """A scheduler, not started yet.

    `workers`: how many; None: as the machine allows, and then as the load demands, between `minimum` and `maximum`
    (see `scaling`). `run_interval`: seconds between two rounds of the supervisor, at least: how exactly time limits are
    kept. `port_class`, `channel_class`: what the ports of workers are made of (see `messages`). `name`: for logs,
    threads and the monitor. `policy`: makes the choices (see `policy`).
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        run_interval: float = 0.001,
        port_class: Callable[[], Port] = LocalPort,
        channel_class: Callable[[], Channel] = LocalChannel,
        name: str | None = None,
        minimum: int | None = None,
        maximum: int | None = None,
        policy: Policy | None = None,
    ) -> None:
        bounds = limits(workers, minimum, maximum)
        if isinstance(run_interval, bool) or not isinstance(run_interval, (int, float)):
            raise TypeError(f"run_interval is a number of seconds, not {run_interval!r}")
        if not run_interval >= 0:
            raise ValueError(f"run_interval can't be negative: {run_interval!r}")
        for what, one in (("port_class", port_class), ("channel_class", channel_class)):
            if not callable(one):
                raise TypeError(f"{what} makes a {what.partition('_')[0]} when it is called; {one!r} can't be")
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name is a string, not {name!r}")
        if policy is not None and not isinstance(policy, Policy):
            raise TypeError(f"policy is an object of a class derived from Policy, not {policy!r}")
        self.name = name or f"scheduler-{next(_numbers)}"
        self._dispatch = Dispatch(self.name, policy or Policy())
        self._staff = Staff(self._dispatch, bounds, port_class, channel_class)
        self._supervisor = Supervisor(self._staff, float(run_interval))
        self._monitors: list[Any] = []
        self._end = weakref.finalize(self, _abandon, self._staff, self._monitors)
        self._end.atexit = False  # `_finish_all` sees to that
        _staffs.add(self._staff)

    # Starting and stopping.

    def start(self) -> Scheduler:
        """Hire workers, and take work. Nothing happens if that has been done; `SchedulerClosed` if it was stopped."""
        if self._staff.open():
            if in_transaction():
                on_commit(self._supervisor.start)
            else:
                self._supervisor.start()
        return self

    def stop(self) -> None:
        """Take no more work, finish what there is, and wait for that. Nothing happens if that has been done."""
        self.shutdown()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work. Workers finish what is queued, or only what they have begun if `cancel_futures`.

        `wait`: until all of that is done, and the threads have ended (not those whose works were given up as overdue).
        `RuntimeError` if a work of this scheduler would wait for itself so, or a transaction for others.
        """
        if wait:
            worker = getattr(here, "worker", None)
            if worker is not None and worker.staff is self._staff:
                raise RuntimeError(f"a work of {self.name!r} can't wait for its end; use shutdown(wait=False)")
            if in_transaction():
                raise RuntimeError(
                    "a transaction can't wait for a scheduler's end: it would have to see it; stop it after"
                )
        if in_transaction() and is_uninvited():
            detached(self._staff.close)
        self._staff.close()
        if cancel_futures:
            self._staff.cancel_queued()
        if wait:
            self._staff.await_end()
            self._stop_serving()

    def __enter__(self) -> Scheduler:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown(wait=True)

    # Submitting.

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Submit `fn(*args, **kwargs)`, to be run by a thread, in a copy of the present context (`contextvars`)."""
        if not callable(fn):
            raise TypeError(f"submit() takes something that can be called, not {fn!r}")
        work = Work.__new__(Work)
        work.fn = fn
        work.args = args
        work.kwargs = kwargs
        work.special = None
        future: Future[T] = Future(work, copy_context(), self._dispatch)
        self._dispatch.put(future)
        return future

    def put_work(self, work: Work) -> Future[Any]:
        """Submit a work, which may ask for a priority, a time limit, a process, and so on."""
        future = self._future(work)
        self._dispatch.put(future)
        return future

    def put_works(self, works: Iterable[Work]) -> list[Future[Any]]:
        """Submit several works in one step: all of them or, if one of them is bad, none. Their futures, in order."""
        futures = [self._future(work) for work in works]
        if futures:
            if in_transaction() and is_uninvited():
                detached(self._dispatch.place, tuple(futures))
                return futures
            if in_transaction():
                for future in futures:
                    future._belong()
            self._dispatch.place(tuple(futures))
        return futures

    def _future(self, work: Work) -> Future[Any]:
        if not isinstance(work, Work):
            raise TypeError(f"a scheduler takes works (see make_work and Work), not {work!r}; for a function: submit()")
        if work.special is not None and work.special.kind == "process":
            from hive_task.processes import pack

            return Future(work, pack(work.fn, work.args, work.kwargs), self._dispatch)
        return Future(work, copy_context(), self._dispatch)

    # Looking, and changing one's mind.

    def monitor(self) -> Picture:
        """A picture of this moment; see `picture`."""
        return survey(self._staff)

    def serve_monitor(self, path: str | os.PathLike[str], *, statistics: bool = True) -> Any:
        """Show pictures to who asks at a Unix socket, such as `hive-task top PATH`, until the scheduler stops. Returns
        the server, whose `close()` ends that earlier. See `hive_task.monitor`."""
        from hive_task.monitor import serve

        staff = self._staff
        server = serve(lambda: survey(staff), path, statistics=statistics)
        self._monitors.append(server)
        return server

    def _stop_serving(self) -> None:
        while self._monitors:
            self._monitors.pop().close()

    def resize(self, workers: int) -> None:
        """Have so many workers from now on; where the number is automatic, as long as it stays so, and its bounds are
        moved if need be. Workers that are too many end after the work they have in hand."""
        number = limits(workers).start

        def change() -> None:
            now = self._staff.limits.get()
            fixed = now.minimum == now.maximum
            smallest, largest = (number, number) if fixed else (min(now.minimum, number), max(now.maximum, number))
            self._staff.limits.set(Limits(smallest, number, largest))
            if self._dispatch.phase.get() == "running":
                self._staff.resize(number, "as told by resize()")

        run(change, name="hive_task.resize")

    def categories(self) -> PMap[str, tuple[int, int]]:
        """The categories of the works that are queued or running, each with how many are: `(queued, running)`."""

        def count() -> dict[str, tuple[int, int]]:
            found: dict[str, tuple[int, int]] = {}
            for future in self._dispatch.queued_works():
                if (category := _category(future)) is not None:
                    queued, running = found.get(category, (0, 0))
                    found[category] = queued + 1, running
            for future in self._running():
                if (category := _category(future)) is not None:
                    queued, running = found.get(category, (0, 0))
                    found[category] = queued, running + 1
            return found

        return pmap(run(count, read_only=True, name="hive_task.categories"))

    def works(self, category: str | None = None) -> tuple[Future[Any], ...]:
        """The futures of the works that are queued, and then of those that are running; of one category if given."""

        def find() -> tuple[Future[Any], ...]:
            both = (*self._dispatch.queued_works(), *self._running())
            return both if category is None else tuple(one for one in both if _category(one) == category)

        return run(find, read_only=True, name="hive_task.works")

    def _running(self) -> Iterable[Future[Any]]:
        for worker in self._dispatch.registry.crew.get():
            for future, _, dropped, _ in on_stack(worker.desk.get()[0]):
                if not dropped:
                    yield future

    def cancel_category(self, category: str) -> int:
        """Cancel the works of a category that are queued now; how many these were. Those that are running are asked to
        end: `current_work().cancel_requested`, and a message at their worker's port."""
        if not isinstance(category, str):
            raise TypeError(f"a category is a name, not {category!r}")
        cancelled = sum(1 for future in self.works(category) if not future.done() and future.cancel())
        run(self._ask_to_end, category, name="hive_task.cancel")
        return cancelled

    def _ask_to_end(self, category: str) -> None:
        for worker in self._dispatch.registry.crew.get():
            for future, _, dropped, _ in on_stack(worker.desk.get()[0]):
                work = future._work
                if work is not None and not dropped and work.category == category:
                    on_commit(setattr, future, "cancel_requested", True)
                    self._staff.notify(worker, SystemEvent("cancel", category))

    def ports(self) -> PMap[str, Port]:
        """The scheduler's ends of the channels to its workers, by their uuids. What is sent there is received by the
        works that the worker runs, at `current_work().port`; what these send there is received here."""
        crew = self._dispatch.registry.crew.get()
        return pmap({worker.uuid: worker.post for worker in crew if worker.post is not None})

    def __repr__(self) -> str:
        workers = len(self._dispatch.registry.crew.peek())
        return f"<Scheduler {self.name!r} {self._dispatch.phase.peek()}, {workers} workers>"


def _category(future: Future[Any]) -> str | None:
    work = future._work  # (looked at once: whoever ends or cancels the work lets go of it at any moment)
    return None if work is None else work.category


def make_scheduler(
    *,
    workers: int | None = None,
    run_interval: float = 0.001,
    port_class: Callable[[], Port] = LocalPort,
    channel_class: Callable[[], Channel] = LocalChannel,
    name: str | None = None,
    minimum: int | None = None,
    maximum: int | None = None,
    policy: Policy | None = None,
) -> Scheduler:
    """A scheduler, not started yet. The arguments are those of `Scheduler`."""
    return Scheduler(
        workers,
        run_interval=run_interval,
        port_class=port_class,
        channel_class=channel_class,
        name=name,
        minimum=minimum,
        maximum=maximum,
        policy=policy,
    )


def start_scheduler(scheduler: Scheduler) -> None:
    """Start it, if that has not been done. `SchedulerClosed` if it was stopped."""
    _checked("start_scheduler", scheduler).start()


def stop_scheduler(scheduler: Scheduler) -> None:
    """Stop it when its work is done, and wait for that; nothing happens if it was stopped, or never started."""
    _checked("stop_scheduler", scheduler).stop()


def put_work(scheduler: Scheduler, work: Work) -> Future[Any]:
    """Submit a work."""
    return _checked("put_work", scheduler).put_work(work)


def put_works(scheduler: Scheduler, works: Iterable[Work]) -> list[Future[Any]]:
    """Submit several works in one step."""
    return _checked("put_works", scheduler).put_works(works)


def _checked(where: str, scheduler: Scheduler) -> Scheduler:
    if not isinstance(scheduler, Scheduler):
        raise TypeError(f"{where}() takes a scheduler (see make_scheduler), not {scheduler!r}")
    return scheduler


# The ends that come by themselves.


def _abandon(staff: Staff, monitors: list[Any]) -> None:
    """Nobody refers to the scheduler any more: take no more work, and finish what there is.

    This may run in anybody's transaction, wherever the collector of garbage happens to be called; it must not become a
    part of that.
    """
    if staff.dispatch.phase.peek() in ("new", "stopped") and not monitors:
        return
    threading.Thread(target=_close, args=(staff, monitors), name="hive_task: end of a scheduler", daemon=True).start()


def _close(staff: Staff, monitors: list[Any]) -> None:
    staff.close()
    while monitors:
        monitors.pop().close()


def _finish_all() -> None:
    """At the interpreter's exit: daemon threads would be stopped amid their works."""
    for staff in list(_staffs):
        staff.close()
    for staff in list(_staffs):
        staff.await_end()


def _leave_all_behind() -> None:
    here.worker = None
    for staff in list(_staffs):
        staff.leave_behind()


# What is registered later runs earlier. With the first finalizer, `weakref` registers what ends all that exist at the
# exit, children of workers among them; that must not come before the works are done.
_first = weakref.finalize(Scheduler, int)
_first.atexit = False
atexit.register(_finish_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all_behind)
