"""`Life`: what becomes of the tasks of a `MemoryQueue`, from one state to the next.

Each method is a part of the caller's transaction. Invariants:

1. A task is known exactly if `jobs` has its job; a job's state is replaced here and in `Way`, and nowhere else but for
   `progress` and `cancel_requested`.
2. What was RUNNING under an epoch is never RUNNING under it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING

from hive_task.background.sources._memory_keys import Rates, Uniques
from hive_task.background.sources._memory_state import (
    BARE,
    NOTHING_MORE,
    Fresh,
    Job,
    State,
    begun,
    essence,
    look,
    owned,
    packed,
)
from hive_task.background.sources._memory_way import NEVER, Way
from hive_task.background.tasks import (
    CANCELLED,
    CRASHES,
    DEAD,
    DONE,
    ENDED,
    QUEUED,
    RUNNING,
    SCHEDULED,
    WAITING,
    Claim,
    End,
    Failure,
    Task,
)
from stm import TMap, TQueue, TVar

if TYPE_CHECKING:
    from hive_task.background.clocks import Clock

#: The id and the order of a task.
Ended = tuple[str, int]


class Life(Way):
    def __init__(self, keep: int, lease: float | None, clock: Clock) -> None:
        super().__init__(clock)
        self._lease = lease
        self.orders = count()
        #: Ids of those that run, if they have leases.
        self._running: TMap[str, None] = TMap.named("running tasks")
        self._uniques, self._rates = Uniques(), Rates()
        #: Ids and orders of ended tasks, the oldest first; and how many more there may be.
        self._ended: TQueue[Ended] = TQueue(name="ended tasks")
        self._room: TVar[int] = TVar(keep, name="room for ended tasks")

    # Putting in.

    def put_plain(self, task: Task) -> str:
        """Put in a task that may run at once."""
        id = task.id
        if self.known(id) is None:
            job = self._queued(task, self._clock.time())
            self.jobs.put({id: job})
            self.line.append(job, task.queue, task.priority)
        return id

    def put_fresh(self, tasks: Sequence[Task]) -> list[str]:
        """Put in several tasks that are bare. Not in a transaction of the caller's."""
        now, orders = self._clock.time(), self.orders
        batch: dict[str, Fresh] = {}
        self.line.batches.get()  # (see `known`)
        for task in tasks:
            id = task.id
            if id not in batch and self.job(id) is None:
                batch[id] = task.name, task.data, id, task.queue, next(orders), now
        self.line.append_batch(batch)
        return [task.id for task in tasks]

    def put_many(self, tasks: Sequence[Task]) -> list[str]:
        """Put in several tasks, in this order."""
        now = self._clock.time()
        ids: list[str] = []
        batch: dict[str, Job] = {}  # of the most common kind, which are put in together
        for task in tasks:
            if not is_plain(task) or task.priority:
                self._put_batch(batch)
                batch = {}
                ids.append(self.put(task))
                continue
            id = task.id
            if id not in batch and self.known(id) is None:
                batch[id] = self._queued(task, now)
            ids.append(id)
        self._put_batch(batch)
        return ids

    def _queued(self, task: Task, now: float) -> Job:
        more = BARE if is_bare(task) else NOTHING_MORE
        return TVar(State(task, QUEUED, next(self.orders), now, now, more=more))

    def _put_batch(self, batch: dict[str, Job]) -> None:
        if batch:
            self.jobs.put(batch)
            self.line.append_many(list(batch.values()))

    def put(self, task: Task, order: int | None = None) -> str:
        """Put in a task, whatever it is. The id of the one that is there then."""
        if self.known(task.id) is not None:
            return task.id
        if task.unique is not None:
            running = self._clock.monotonic()
            holder = self._uniques.holder(task.unique, running)
            if holder is not None:
                return holder
            self._uniques.take(task.unique, task.id, task.unique_for, running)
        if task.claim is not None:
            task = task.claimed(None)
        now = self._clock.time()
        due = now if task.due is None else task.due
        if task.rate is not None:
            due = self._rates.reserve(task.rate, max(due, now), now)
        job: Job = TVar(State(task, WAITING, next(self.orders) if order is None else order, now, due))
        self.jobs.put({task.id: job})
        if task.after:
            self._await_parents(job, task)
        elif due > now:
            self.schedule(job, due)
        elif self.placed(job):
            job.set(look(job)._replace(state=QUEUED))
            self.line.append(job, task.queue, task.priority)
        return task.id

    def put_graph(self, tasks: Sequence[Task]) -> list[str]:
        """Put in tasks that come after one another: each when those are there that it comes after."""
        orders = [(task, next(self.orders)) for task in tasks]
        batch = {task.id: (task, order) for task, order in reversed(orders)}
        # Those that come after none may be queued at once, and are first for that, in their order.
        there = {id: self.put(task, order) for id, (task, order) in reversed(batch.items()) if not task.after}
        for id in _parents_first(tasks, batch):
            task, order = batch[id]
            if id in there:
                continue
            # If the unique key of a parent was taken, then who has it stands for the parent.
            after = tuple(dict.fromkeys([there.get(one, one) for one in task.after]))
            there[id] = self.put(task if after == task.after else replace(task, after=after), order)
        return [there[task.id] for task in tasks]

    def _await_parents(self, job: Job, task: Task) -> None:
        parents = []
        for id in task.after:
            parent = self.job(id)
            if parent is None:
                raise ValueError(f"task {task.name!r} is to come after {id!r}, and no such task is known")
            parents.append((id, parent))
        waits = False
        for id, parent in parents:
            state = look(parent)
            if state.state not in ENDED:
                self._follow(job, id, parent)
                waits = True
            elif state.state != DONE and not task.despite_failure:
                self.end(job, CANCELLED, failure=_parent_failed(state))
                return
        if not waits:
            self.ready(job)

    def _follow(self, job: Job, id: str, parent: Job) -> None:
        """Let a job wait for another one."""
        state = look(parent)
        parent.set(state.but(children=state.more.children.append(job)))
        state = look(job)
        job.set(state.but(parents=state.more.parents | {id}))

    # Running.

    def take(self, limit: int, worker: str) -> list[Task]:
        found = self.line.take(limit)
        if not found:
            return []
        now = self._clock.time()
        expires = None if self._lease is None else self._clock.monotonic() + self._lease
        tasks = []
        jobs: dict[str, Job] = {}  # of those that were fresh
        for one in found:
            if len(one) == 2:
                job, (task, _, order, created, due, epoch, attempts, _, _, _, _, result, more) = one
                epoch += 1
                attempts += 1
                task = task.claimed(Claim(worker, epoch, attempts, due))
                job.set(
                    State(task, RUNNING, order, created, due, epoch, attempts, worker, now, expires, None, result, more)
                )
            else:
                state = begun(one, worker, now, expires)
                task = state.task
                jobs[task.id] = TVar(state)
            if expires is not None:
                self._running[task.id] = None
            tasks.append(task)
        if jobs:
            self.jobs.put(jobs)
        return tasks

    def renew(self, task: Task) -> bool:
        """False if it is the caller's no more, or somebody wants it to be cancelled."""
        job = self.jobs.get(task.id)
        if job is None or not owned(state := look(job), task):
            return False
        if self._lease is not None:
            job.set(state._replace(expires=self._clock.monotonic() + self._lease))
        return not state.more.cancel_requested

    def settle(self, ends: Sequence[End]) -> list[bool]:
        over: list[Ended] = []
        now = self._clock.time()
        jobs = self.jobs.get_all([end[0].id for end in ends])
        accepted = [self._settle(end, job, now, over) for end, job in zip(ends, jobs, strict=True)]
        if over:
            self._remember(over)
        return accepted

    def _settle(self, end: End, job: Job | None, now: float, over: list[Ended]) -> bool:
        if job is None:
            return False
        task, outcome, result, failure, retry_at = end
        id, state = task.id, job.get()
        if not isinstance(state, State) or not owned(state, task):  # (what is packed has ended)
            return False
        if self._lease is not None:
            del self._running[id]
        if outcome in ENDED:
            if state.more is BARE and failure is None:  # nobody waits for it, or for its place or key
                job.set(packed(state, outcome, now, result))
                over.append((id, state.order))
            else:
                self._end(over, job, outcome, result, failure)
        elif state.more.cancel_requested:
            self._end(over, job, CANCELLED, None, failure)
        elif outcome == QUEUED:
            self._requeue(job, state._replace(attempts=state.attempts - 1))
        else:
            assert outcome == SCHEDULED, outcome
            due = now if retry_at is None else retry_at
            failure = failure or state.more.failure
            job.set(state._replace(state=WAITING, due=due, worker=None, expires=None).but(failure=failure))
            self.give_place_back(job)
            self.ready(job)
        return True

    def _requeue(self, job: Job, state: State) -> None:
        """Queue again what was taken; it keeps its place."""
        state = state._replace(state=QUEUED, worker=None, started=None, expires=None)
        job.set(state)
        self.line.insert(job, state)

    def _lost(self, job: Job, state: State) -> None:
        """The lease has expired."""
        crashes = state.more.crashes + 1
        job.set(state.but(crashes=crashes))
        del self._running[state.task.id]
        if state.more.cancel_requested:
            self.end(job, CANCELLED)
        elif crashes >= CRASHES:
            text = f"its worker vanished while it was running, {crashes} times"
            self.end(job, DEAD, failure=Failure("WorkerLost", text))
        else:
            self._requeue(job, look(job))

    # Ending.

    def end(self, job: Job, outcome: str, failure: Failure | None = None) -> None:
        """A task has ended; and so have those that wait for it in vain, and those that wait for these."""
        over: list[Ended] = []
        self._end(over, job, outcome, None, failure)
        self._remember(over)

    def _end(self, over: list[Ended], job: Job, outcome: str, result: object, failure: Failure | None) -> None:
        ending = [(job, outcome, result, failure)]
        now = self._clock.time()
        while ending:
            job, outcome, result, failure = ending.pop()
            before = look(job)
            if before.state in ENDED:
                continue  # two of its parents have failed
            task, more = before.task, before.more
            children = more.children
            if children or more.parents or failure is not None:
                failure = failure or more.failure
                more = more._replace(failure=failure, parents=NOTHING_MORE.parents, children=NOTHING_MORE.children)
            state = before._replace(state=outcome, ended=now, result=result, expires=None, more=more)
            job.set(state)
            over.append((task.id, state.order))
            if more.placed:
                self.give_place_back(job)
            if task.unique is not None:
                self._uniques.release(task.unique, task.id)
            in_vain = [child for child in children if not self._released(child, state)]
            if in_vain:
                failure = _parent_failed(state)
                ending += [(child, CANCELLED, None, failure) for child in in_vain]

    def _released(self, child: Job, parent: State) -> bool:
        """One that this job waited for has ended. False if it waited in vain."""
        state = look(child)
        parents = state.more.parents
        if state.state != WAITING or parent.task.id not in parents:
            return True
        if parent.state != DONE and not state.task.despite_failure:
            return False
        child.set(state.but(parents=parents - {parent.task.id}))
        if len(parents) == 1:
            self.ready(child)
        return True

    def revive(self, job: Job) -> bool:
        """A dead or cancelled task is put in again, in the same job."""
        before = look(job)
        task = before.task
        if task.unique is not None:
            running = self._clock.monotonic()
            if self._uniques.holder(task.unique, running) not in (None, task.id):
                return False
            self._uniques.take(task.unique, task.id, task.unique_for, running)
        order, now = next(self.orders), self._clock.time()
        job.set(State(task, WAITING, order, before.created, now, before.epoch))
        for id in task.after:
            parent = self.job(id)
            if parent is not None and look(parent).state not in ENDED:
                self._follow(job, id, parent)
        if not look(job).more.parents:
            self.ready(job)
        return True

    # Forgetting.

    def _remember(self, over: list[Ended]) -> None:
        """Keep the records of what has ended, and forget the oldest if there are too many."""
        self._ended.put_many(over)
        room = self._room.get()
        many = len(over) - room
        if room:
            self._room.set(max(0, -many))
        if many <= 0:
            return
        oldest = self._ended.get_many(many)
        jobs = self.jobs.get_all([id for id, _ in oldest])
        self.jobs.remove([id for (id, order), job in zip(oldest, jobs, strict=True) if _is_over(job, order)])

    def forget(self, ids: Iterable[str], condition: Callable[[State], bool]) -> int:
        """Forget those for which the condition is true still."""
        gone = [id for id in ids if (job := self.jobs.get(id)) is not None and condition(look(job))]
        self.jobs.remove(gone)
        return len(gone)

    # Housekeeping.

    def tend(self) -> float | None:
        if not self.queue_due():
            return 0.0
        wait = self.next_due()
        if self._lease is None:
            return None if wait == NEVER else wait
        return min(wait, self._take_back(self._lease))

    def _take_back(self, lease: float) -> float:
        """Take back the tasks whose leases have expired; seconds until the next one may."""
        now = self._clock.monotonic()
        wait = lease
        for id in self._running.snapshot():
            job = self.jobs.get(id)
            assert job is not None
            state = look(job)
            assert state.expires is not None
            if state.expires <= now:
                self._lost(job, state)
            else:
                wait = min(wait, state.expires - now)
        return wait


def _is_over(job: Job | None, order: int) -> bool:
    """Is it there still, and has not been tried again?"""
    if job is None:
        return False
    state, _, _, its_order = essence(job.get())
    return its_order == order and state in ENDED


def is_plain(task: Task) -> bool:
    """Has it only to be queued?"""
    return (
        task.due is None
        and task.unique is None
        and task.limit is None
        and task.rate is None
        and not task.after
        and task.claim is None
    )


def is_bare(task: Task) -> bool:
    """Has it nothing but a name, data, an id and a queue?"""
    return (
        type(task) is Task
        and is_plain(task)
        and task.priority == 0
        and task.retries is None
        and task.time_limit is None
        and not task.despite_failure
    )


def _parent_failed(parent: State) -> Failure:
    return Failure(
        "ParentFailed", f"{parent.task.name} {parent.task.id}, which it was to come after, is {parent.state}"
    )


def _parents_first(tasks: Sequence[Task], batch: dict[str, tuple[Task, int]]) -> list[str]:
    """The ids of a batch, each after those of its parents that are in it, else in order. `ValueError`: a cycle."""
    done: dict[str, None] = {}
    for task in tasks:
        path = [(task.id, iter(task.after))]
        on_path = {task.id}
        while path and task.id not in done:
            id, after = path[-1]
            for parent in after:
                if parent in on_path:
                    raise ValueError(f"task {batch[parent][0].name!r} is to come after itself, by way of others")
                if parent in batch and parent not in done:
                    path.append((parent, iter(batch[parent][0].after)))
                    on_path.add(parent)
                    break
            else:
                done[id] = None
                on_path.discard(id)
                path.pop()
    return list(done)
