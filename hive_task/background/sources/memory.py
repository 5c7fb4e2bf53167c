"""`MemoryQueue`: background tasks kept in this process, in transactional variables.

Promises: P1 to P6 of `base`; and besides that every method is one transaction, so that inside one of the caller's it is
a part of it. A task that is put in there is put in if and when that commits, once, however often its body runs; and if
it ends with an exception, nothing has been put in. What is asked there, is answered as of the transaction's moment.
`wait_for_work`, `wait_for_change` and `await_end` raise `BlockedForever` inside a transaction, which would have to end
first.

What is in it ends with the process. Data and results may be any objects; they are not copied, so they must not be
changed any more once they have been given.

`lease=None`, the default: a task is claimed until it is settled, for in one process whoever has taken it does not
vanish alone. With seconds, `tend` takes back what was not renewed for so long, by the clock's `monotonic`. `keep`: so
many tasks that have ended are remembered, and the oldest are forgotten first, so that memory does not grow for ever. A
task may come `after` those alone that are remembered. `clock`: what has `time()` and `monotonic()`.

How it decides where `base` leaves it open. A task that is to be tried again although its end was asked for, is
cancelled. A task with `unique_for` keeps its key for that time and no longer, also if it has not ended by then.
`retry_task` waits again for those of the task's `after` that have not ended, and gives no second chance to one whose
unique key is somebody else's now (False). A place of a `limit` is held from when the task is queued.

Which conflict: two that put in, two that take, two that settle; these with one another seldom.

Cost: to put in a task that has nothing but a name, data and a queue (`execute_task`), to take and to settle it takes
7 µs in all if 64 are taken and settled at once, 36 if each is by itself; a lease adds 5, and 2 to 10 that one is
forgotten for each that ends. `count_tasks` and `list_tasks` look at all tasks, half a µs each, and disturb nobody
meanwhile. The first question about one that waits, by its id, takes 4 µs for each that waits; see `Line`.

>>> from hive_task.background.tasks import Task
>>> source = MemoryQueue()
>>> id = source.enqueue_task(Task("greet", "world"))
>>> task = source.dequeue_task()
>>> task.data, source.find_task(id).state, source.complete_task(task, "hello world"), source.complete_task(task)
('world', 'running', True, False)
>>> source.await_end(id).result, source.count_tasks()
('hello world', {'default': {'done': 1}})
>>> source.enqueue_task(Task("greet", after=("nobody",)))
Traceback (most recent call last):
    ...
ValueError: task 'greet' is to come after 'nobody', and no such task is known
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from heapq import nlargest
from typing import TYPE_CHECKING, Any

from hive_task.background.sources._memory_life import Life, is_bare, is_plain
from hive_task.background.sources._memory_state import (
    Fresh,
    Packed,
    State,
    essence,
    look,
    owned,
    record_of,
    state_of,
)
from hive_task.background.sources.base import DataSource
from hive_task.background.tasks import (
    CANCELLED,
    DEAD,
    DONE,
    ENDED,
    QUEUED,
    RUNNING,
    SCHEDULED,
    End,
    Failure,
    Record,
    Task,
    check_count,
    check_seconds,
    new_id,
)
from stm import BlockedForever, TransactionTimeout, TVar, atomically, check, in_transaction, run

if TYPE_CHECKING:
    from hive_task.background.application import Application
    from hive_task.background.clocks import Clock

#: The worker, of whom no application is known.
NOBODY = "-"


class MemoryQueue(DataSource):
    """Tasks in this process. See the module."""

    keeps_records = True
    transactional = True

    def __init__(self, *, keep: int = 10_000, lease: float | None = None, clock: Clock = time) -> None:
        check_count("how many ended tasks are kept", keep)
        if lease is not None:
            check_seconds("a lease", lease)
        self.lease = lease
        self.clock: Clock = clock
        self._life = Life(keep, lease, clock)
        #: Replaced by `wake`.
        self._bell: TVar[object] = TVar(object(), name="bell of a MemoryQueue")

    # Putting in.

    def enqueue_task(self, task: Task, *, app: Application | None = None) -> str:
        return self._put(task)

    def schedule_task(self, time: float, task: Task, *, app: Application | None = None) -> str:
        return self._put(task.at(time))

    @atomically
    def _put(self, task: Task) -> str:
        return self._life.put_plain(task) if is_plain(task) else self._life.put(task)

    def enqueue_tasks(self, tasks: Sequence[Task], *, app: Application | None = None) -> list[str]:
        """Put in several tasks, all or none. They may come `after` one another, in any order."""
        fresh = not in_transaction() and not self._life.line.paused.peek() and all(map(is_bare, tasks))
        return self._put_fresh(tasks) if fresh else self._put_all(tasks)

    @atomically
    def _put_fresh(self, tasks: Sequence[Task]) -> list[str]:
        return self._life.put_fresh(tasks)

    @atomically
    def _put_all(self, tasks: Sequence[Task]) -> list[str]:
        in_order = not any(task.after for task in tasks)
        return self._life.put_many(tasks) if in_order else self._life.put_graph(tasks)

    def enqueue_call(self, name: str, data: Any, queue: str, *, app: Application | None = None) -> str:
        line = self._life.line
        if in_transaction() or line.paused.peek():
            return super().enqueue_call(name, data, queue, app=app)
        id = new_id()
        line.append_fresh((name, data, id, queue, next(self._life.orders), self.clock.time()))
        return id

    # Taking and settling.

    def dequeue_task(self, *, app: Application | None = None) -> Task | None:
        tasks = self._take(1, NOBODY if app is None else app.identity)
        return tasks[0] if tasks else None

    def dequeue_tasks(self, limit: int, *, app: Application | None = None) -> list[Task]:
        return self._take(limit, NOBODY if app is None else app.identity)

    @atomically
    def _take(self, limit: int, worker: str) -> list[Task]:
        return self._life.take(limit, worker)

    def complete_task(self, task: Task, result: Any = None, *, app: Application | None = None) -> bool:
        return self._settle_all((End(task, DONE, result),))[0]

    def fail_task(
        self, task: Task, failure: Failure, *, retry_at: float | None = None, app: Application | None = None
    ) -> bool:
        outcome = DEAD if retry_at is None else SCHEDULED
        return self._settle_all((End(task, outcome, None, failure, retry_at),))[0]

    def release_task(self, task: Task, *, app: Application | None = None) -> bool:
        return self._settle_all((End(task, QUEUED),))[0]

    def settle_tasks(self, ends: Sequence[End], *, app: Application | None = None) -> list[bool]:
        return self._settle_all(ends)

    @atomically
    def _settle_all(self, ends: Sequence[End]) -> list[bool]:
        return self._life.settle(ends)

    def settle_and_dequeue(
        self, ends: Sequence[End], limit: int, *, app: Application | None = None
    ) -> tuple[list[bool], list[Task]]:
        """Settle these, and take at most so many, in one transaction."""
        return self._exchange(ends, limit, NOBODY if app is None else app.identity)

    @atomically
    def _exchange(self, ends: Sequence[End], limit: int, worker: str) -> tuple[list[bool], list[Task]]:
        accepted = self._life.settle(ends) if ends else []
        return accepted, self._life.take(limit, worker)

    @atomically
    def renew_leases(self, tasks: Iterable[Task], *, app: Application | None = None) -> set[str]:
        return {task.id for task in tasks if not self._life.renew(task)}

    @atomically
    def set_progress(self, task: Task, progress: Any) -> bool:
        job = self._life.jobs.get(task.id)
        if job is None or not owned(state := look(job), task):
            return False
        job.set(state.but(progress=progress))
        return True

    # Waiting and housekeeping.

    def wait_for_work(self, timeout: float | None, *, app: Application | None = None) -> None:
        bell = self._bell.get()
        _wait(
            "wait_for_work()",
            lambda: check(self._bell.get() is not bell or not self._life.line.is_empty() or _stopping(app)),
            timeout,
        )

    def wait_for_change(self, timeout: float, *, app: Application | None = None) -> None:
        bell = self._bell.get()
        _wait(
            "wait_for_change()",
            lambda: check(self._bell.get() is not bell or self._life.is_sooner() or _stopping(app)),
            timeout,
        )

    @atomically
    def tend(self, *, app: Application | None = None) -> float | None:
        return self._life.tend()

    def wake(self) -> None:
        self._bell.set(object())

    def close(self) -> None:
        """Let everybody return who waits. There is nothing to give back; the tasks are there as long as the object."""
        self.wake()

    # What can be asked, and done by hand.

    def find_task(self, id: str) -> Record | None:
        if in_transaction():  # which may only read
            return self._find(id)
        job = self._life.job(id)
        return None if job is None else record_of(look(job))

    @atomically
    def _find(self, id: str) -> Record | None:
        job = self._life.jobs.get(id)
        if job is not None:
            return record_of(look(job))
        fresh = next((one for one in self._life.line.unlisted() if one[2] == id), None)
        return None if fresh is None else record_of(state_of(fresh))

    def list_tasks(
        self, *, state: str | None = None, queue: str | None = None, name: str | None = None, limit: int = 100
    ) -> list[Record]:
        def wanted(value: State | Packed | Fresh) -> bool:
            its_state, its_queue, its_name, _ = essence(value)
            return (
                (state is None or its_state == state)
                and (queue is None or its_queue == queue)
                and (name is None or its_name == name)
            )

        found = nlargest(limit, filter(wanted, self._all()), key=lambda value: essence(value)[3])
        return [record_of(state_of(value)) for value in found]

    def count_tasks(self) -> Mapping[str, Mapping[str, int]]:
        counts: dict[str, dict[str, int]] = {}
        kinds: list[Any] = [value[:2] if len(value) == 14 else essence(value)[:2] for value in self._all()]
        for (state, queue), many in Counter(kinds).items():
            counts.setdefault(queue, {})[state] = many
        return counts

    def _all(self) -> list[State | Packed | Fresh]:
        """All tasks at one moment."""
        life = self._life

        def read() -> list[State | Packed | Fresh]:
            return [*map(TVar.get, life.jobs.all()), *life.line.unlisted()]

        return run(read, read_only=True, name="all tasks")

    def await_end(self, id: str, timeout: float | None = None) -> Record | None:
        if in_transaction():
            record = self._find(id)
            if record is not None and record.state not in ENDED:
                raise BlockedForever("await_end() in a transaction, which would have to end first: use retry()")
            return record
        job = self._life.job(id)
        if job is None:
            return None
        state = look(job)
        if state.state not in ENDED:
            _wait("await_end()", lambda: check(look(job).state in ENDED), timeout)
            state = look(job)
        return record_of(state)

    def cancel_task(self, id: str) -> bool:
        return self.cancel_tasks((id,))[0]

    @atomically
    def cancel_tasks(self, ids: Iterable[str]) -> list[bool]:
        """Cancel several, in one transaction."""
        return [self._cancel(id) for id in ids]

    def _cancel(self, id: str) -> bool:
        job = self._life.job(id)
        if job is None or (state := look(job)).state in ENDED:
            return False
        if state.state == RUNNING:
            job.set(state.but(cancel_requested=True))
        else:
            self._life.end(job, CANCELLED)
        return True

    def retry_task(self, id: str) -> bool:
        return self.retry_tasks((id,))[0]

    @atomically
    def retry_tasks(self, ids: Iterable[str]) -> list[bool]:
        """Queue several again, in one transaction."""
        return [self._retry(id) for id in ids]

    def _retry(self, id: str) -> bool:
        job = self._life.job(id)
        return job is not None and look(job).state in (DEAD, CANCELLED) and self._life.revive(job)

    @atomically
    def pause_queue(self, queue: str) -> None:
        self._life.line.pause(queue)

    @atomically
    def resume_queue(self, queue: str) -> None:
        self._life.line.resume(queue)

    def paused_queues(self) -> frozenset[str]:
        return self._life.line.paused.get()

    def purge(self, before: float, *, states: Iterable[str] = (DONE, CANCELLED)) -> int:
        wanted = ENDED.intersection(states)

        def old(state: State) -> bool:
            return state.state in wanted and state.ended is not None and state.ended < before

        ids = [state.task.id for value in self._all() if essence(value)[0] in wanted and old(state := state_of(value))]
        return run(self._life.forget, ids, old)

    @atomically
    def __repr__(self) -> str:
        return f"<MemoryQueue of {len(self._all())} tasks>"


def _wait(what: str, condition: Any, timeout: float | None) -> None:
    """Wait until the condition does not `retry`, at most so many seconds."""
    if in_transaction():
        raise BlockedForever(f"{what} in a transaction, which would have to end first: use retry()")
    try:
        run(condition, timeout=None if timeout is None else max(0.0, timeout), name=what)
    except TransactionTimeout:
        pass


def _stopping(app: Application | None) -> bool:
    return app is not None and not app.is_running()
