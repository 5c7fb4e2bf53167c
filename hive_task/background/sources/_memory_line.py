"""`Line`: the tasks of a `MemoryQueue` that may run, in the order in which they are to be handed out.

Promises: each method is a part of the caller's transaction. `take` gives the task with the highest priority first, and
among equals the one that was put in first; never one whose queue is paused, or that is not queued any more.

Nearly all tasks have priority 0 and become queued in the order in which they were put in. These are in a `TQueue`,
`fifo`, whose two ends do not conflict. The others, and those that come late (retried, released, due, resumed), are in a
`TPriorityQueue`, `heap`, by priority and order. A job that is cancelled stays where it is, and is passed over when its
turn comes: a state says QUEUED exactly if the task may be handed out, whichever entries there are of it.

The tasks of paused queues are kept aside: who takes does not look through them each time, and who waits is not woken.

A task that has nothing but a name, data and a queue, and that no transaction of the caller's puts in, is put into
`fifo` as it is, *fresh*, in one step, and gets its job when it is taken. Should somebody ask for it by its id before,
all in `fifo` is *listed*: it gets jobs, and goes into another queue, which comes before `fifo`. So that not all who
ask for what is unknown have that done, `fresh` has the ids. It is a plain dictionary, no part of any transaction: an id
is there before the task is put in, and until it is among the jobs. (It stays there for nothing, if who puts the task in
is struck by an exception just then.)

Cost: to put in a fresh task is one step, and takes half of what another takes. Who first asks for one of them by its id
pays the other half, for all that wait, in transactions of `LISTED` tasks.
"""

from __future__ import annotations

from itertools import count
from queue import Empty
from typing import cast

from hive_task.background.sources._memory_jobs import Jobs
from hive_task.background.sources._memory_state import Fresh, Job, State, look, waiting
from hive_task.background.tasks import QUEUED
from stm import TMap, TPriorityQueue, TQueue, TVar, on_commit

#: Priority (lowest first), order, what tells entries of one task apart, job.
Entry = tuple[int, int, int, Job]

tickets = count()

#: Tasks that one step lists.
LISTED = 1_000


def entry(job: Job, state: State) -> Entry:
    return -state.task.priority, state.order, next(tickets), job


class Line:
    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._fifo: TQueue[Job | Fresh] = TQueue(name="queued tasks")
        self._listed: TQueue[Job] = TQueue(name="queued tasks that were listed")
        #: Is there perhaps something in `_listed`?
        self._are_listed: TVar[bool] = TVar(False, name="are queued tasks listed?")
        self._heap: TPriorityQueue[Entry] = TPriorityQueue(name="queued tasks by priority")
        self.paused: TVar[frozenset[str]] = TVar(frozenset(), name="paused queues")
        self._aside: TMap[str, TQueue[Job]] = TMap.named("tasks of paused queues")
        self.fresh: dict[str, None] = {}
        #: Replaced by who puts in fresh tasks whose ids somebody else may put in.
        self.batches: TVar[object] = TVar(None, name="batches of fresh tasks")

    def append_fresh(self, task: Fresh) -> None:
        """Queue a task that comes after all others of priority 0, with a new id. Not in a transaction."""
        self.fresh[task[2]] = None
        self._fifo.put(task)

    def append_batch(self, batch: dict[str, Fresh]) -> None:
        """Queue such tasks, in a transaction that has nothing else in it; they are not known."""
        self.fresh.update(dict.fromkeys(batch))
        self.batches.set(object())
        self._fifo.put_many(batch.values())

    def append(self, job: Job, queue: str, priority: int) -> None:
        """Queue a job that comes after all others of its priority."""
        if queue in self.paused.get():
            self._aside[queue].put(job)
        elif priority == 0:
            self._fifo.put(job)
        else:
            self._heap.put(entry(job, look(job)))

    def append_many(self, jobs: list[Job]) -> None:
        """Queue jobs of priority 0 that come after all others of it."""
        if self.paused.get():
            for job in jobs:
                self.append(job, look(job).task.queue, 0)
        else:
            self._fifo.put_many(jobs)

    def insert(self, job: Job, state: State) -> None:
        """Queue a job, in the place that its order gives it."""
        if state.task.queue in self.paused.get():
            self._aside[state.task.queue].put(job)
        else:
            self._heap.put(entry(job, state))

    def is_empty(self) -> bool:
        """Is there certainly nothing to take?"""
        return self._fifo.empty() and not self._are_listed.get() and self._heap.empty()

    # Taking.

    def take(self, limit: int) -> list[tuple[Job, State] | Fresh]:
        """The next tasks, `limit` at most: jobs with their states, and fresh ones. (What is to be done with them is up
        to the caller, who has to give jobs to the fresh ones.)"""
        paused = self.paused.get()
        taken: list[tuple[Job, State] | Fresh] = []
        fresh: list[str] = []
        while len(taken) < limit and (found := self._next(limit - len(taken))):
            if not paused and set(map(type, found)) == {tuple}:  # the common case
                taken += cast(list[Fresh], found)
                fresh += [one[2] for one in cast(list[Fresh], found)]
                continue
            for one in found:
                if type(one) is tuple:
                    fresh.append(one[2])
                    if paused and one[3] in paused:
                        self._aside[one[3]].put(self._with_jobs([one])[0])
                    else:
                        taken.append(one)
                    continue
                assert isinstance(one, TVar)
                state = look(one)
                if state.state != QUEUED:
                    continue
                if paused and state.task.queue in paused:
                    self._aside[state.task.queue].put(one)
                else:
                    taken.append((one, state))
        if fresh:
            on_commit(self._no_more_fresh, fresh)
        return taken

    def _no_more_fresh(self, ids: list[str]) -> None:
        for id in ids:
            self.fresh.pop(id, None)

    def _next(self, limit: int) -> list[Job | Fresh]:
        """The next tasks, whatever their state; none: there are none at all."""
        try:
            # (Not `empty()`, which would conflict with everybody who puts something in.)
            if not self._heap.empty():
                priority, order, _, job = self._heap.peek()
                if priority < 0 or (priority == 0 and order < self._first_order()):
                    self._heap.get()
                    return [job]
                limit = limit if priority > 0 else 1
            if self._are_listed.get():
                try:
                    return [*self._listed.get_many(limit, block=False)]
                except Empty:
                    self._are_listed.set(False)
            return self._fifo.get_many(limit, block=False)
        except Empty:
            return [] if self._heap.empty() else [self._heap.get()[-1]]

    def _first_order(self) -> int:
        first: Job | Fresh
        try:
            first = self._listed.peek(block=False)
        except Empty:
            first = self._fifo.peek(block=False)
        return look(first).order if isinstance(first, TVar) else first[4]

    # Listing.

    def list_some(self) -> bool:
        """List the first tasks of `fifo`. False if there are none."""
        try:
            found = self._fifo.get_many(LISTED, block=False)
        except Empty:
            return False
        fresh = [one for one in found if not isinstance(one, TVar)]
        jobs = iter(self._with_jobs(fresh))
        self._listed.put_many([one if isinstance(one, TVar) else next(jobs) for one in found])
        self._are_listed.set(True)
        on_commit(self._no_more_fresh, [one[2] for one in fresh])
        return True

    def _with_jobs(self, fresh: list[Fresh]) -> list[Job]:
        jobs: dict[str, Job] = {one[2]: TVar(waiting(one)) for one in fresh}
        self._jobs.put(jobs)
        return list(jobs.values())

    def unlisted(self) -> list[Fresh]:
        """Those that have no jobs. Nothing is changed."""
        return [one for one in self._fifo.snapshot() if not isinstance(one, TVar)]

    # Pausing.

    def pause(self, queue: str) -> None:
        self.paused.set(self.paused.get() | {queue})
        if queue not in self._aside:
            self._aside[queue] = TQueue(name=f"tasks of the paused queue {queue}")

    def resume(self, queue: str) -> None:
        self.paused.set(self.paused.get() - {queue})
        aside = self._aside.pop(queue, None)
        if aside is not None and not aside.empty():
            self._heap.put_many([entry(job, state) for job in aside.get_many() if (state := look(job)).state == QUEUED])
