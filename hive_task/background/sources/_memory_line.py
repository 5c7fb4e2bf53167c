"""`Line`: the tasks of a `MemoryQueue` that may run, in the order in which they are to be handed out.

Promises: each method is a part of the caller's transaction. `take` gives the job with the highest priority first, and
among equals the one that was put in first; never one whose queue is paused, or that is not queued any more.

Nearly all tasks have priority 0 and become queued in the order in which they were put in. These are in a `TQueue`,
`fifo`, whose two ends do not conflict. The others, and those that come late (retried, released, due, resumed), are in a
`TPriorityQueue`, `heap`, by priority and order. A job that is cancelled stays where it is, and is passed over when its
turn comes: a state says QUEUED exactly if the task may be handed out, whichever entries there are of it.

The tasks of paused queues are kept aside: who takes does not look through them each time, and who waits is not woken.
"""

from __future__ import annotations

from itertools import count
from queue import Empty

from hive_task.background.sources._memory_state import Job, State
from hive_task.background.tasks import QUEUED
from stm import TMap, TPriorityQueue, TQueue, TVar

#: Priority (lowest first), order, what tells entries of one task apart, job.
Entry = tuple[int, int, int, Job]

tickets = count()


def entry(job: Job, state: State) -> Entry:
    return -state.task.priority, state.order, next(tickets), job


class Line:
    def __init__(self) -> None:
        self._fifo: TQueue[Job] = TQueue(name="queued tasks")
        self._heap: TPriorityQueue[Entry] = TPriorityQueue(name="queued tasks by priority")
        self.paused: TVar[frozenset[str]] = TVar(frozenset(), name="paused queues")
        self._aside: TMap[str, TQueue[Job]] = TMap.named("tasks of paused queues")

    def append(self, job: Job, queue: str, priority: int) -> None:
        """Queue a job that comes after all others of its priority."""
        if queue in self.paused.get():
            self._aside[queue].put(job)
        elif priority == 0:
            self._fifo.put(job)
        else:
            self._heap.put(entry(job, job.get()))

    def append_many(self, jobs: list[Job]) -> None:
        """Queue jobs of priority 0 that come after all others of it."""
        if self.paused.get():
            for job in jobs:
                self.append(job, job.get().task.queue, 0)
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
        return self._fifo.empty() and self._heap.empty()

    def take(self, limit: int) -> list[tuple[Job, State]]:
        """The next jobs, `limit` at most, with their states. (What is to be done with them is up to the caller.)"""
        paused = self.paused.get()
        taken: list[tuple[Job, State]] = []
        while len(taken) < limit and (jobs := self._next(limit - len(taken))):
            for job in jobs:
                state = job.get()
                if state.state != QUEUED:
                    continue
                if paused and state.task.queue in paused:
                    self._aside[state.task.queue].put(job)
                else:
                    taken.append((job, state))
        return taken

    def _next(self, limit: int) -> list[Job]:
        """The next jobs, whatever their state; none: there are none at all."""
        try:
            # (Not `empty()`, which would conflict with everybody who puts something in.)
            if not self._heap.empty():
                priority, order, _, job = self._heap.peek()
                if priority < 0 or (priority == 0 and order < self._first_order()):
                    self._heap.get()
                    return [job]
                limit = limit if priority > 0 else 1
            return self._fifo.get_many(limit, block=False)
        except Empty:
            return [] if self._heap.empty() else [self._heap.get()[-1]]

    def _first_order(self) -> int:
        return self._fifo.peek(block=False).get().order

    def pause(self, queue: str) -> None:
        self.paused.set(self.paused.get() | {queue})
        if queue not in self._aside:
            self._aside[queue] = TQueue(name=f"tasks of the paused queue {queue}")

    def resume(self, queue: str) -> None:
        self.paused.set(self.paused.get() - {queue})
        aside = self._aside.pop(queue, None)
        if aside is not None and not aside.empty():
            self._heap.put_many([entry(job, state) for job in aside.get_many() if (state := job.get()).state == QUEUED])
