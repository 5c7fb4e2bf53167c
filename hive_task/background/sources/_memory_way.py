"""`Way`: how the tasks of a `MemoryQueue` come to be queued: when it is their time, and there is a place for them.

Each method is a part of the caller's transaction. Invariant: of a task that is QUEUED, there is an entry in `line`, and
it holds a place if it has a limit; of one that is SCHEDULED, there is one in the timetable; one that is WAITING has
`parents`, or waits in the limits. There may be more entries, left behind by what was cancelled: who comes upon one
looks at the state, and passes it over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hive_task.background.sources._memory_jobs import Jobs
from hive_task.background.sources._memory_keys import Limits
from hive_task.background.sources._memory_line import Line
from hive_task.background.sources._memory_state import Job, look
from hive_task.background.tasks import QUEUED, SCHEDULED, WAITING
from stm import TPriorityQueue, TVar, run

if TYPE_CHECKING:
    from hive_task.background.clocks import Clock

#: Tasks that one transaction of `tend` moves, at most.
MOVED = 500
NEVER = float("inf")


class Way:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.jobs = Jobs()
        self.line = Line(self.jobs)
        self._limits = Limits()
        #: Due times, orders and ids of scheduled tasks; and which due time `tend` has told of last.
        self._timetable: TPriorityQueue[tuple[float, int, str]] = TPriorityQueue(name="scheduled tasks")
        self._told: TVar[float] = TVar(NEVER, name="next due time")

    def job(self, id: str) -> Job | None:
        """The job of the task with that id, if it is known."""
        fresh = id in self.line.fresh  # (asked first: who takes it from there puts it among the jobs before)
        job = self.jobs.get(id)
        while job is None and fresh:
            fresh = run(self.line.list_some)
            job = self.jobs.get(id)  # (though nothing was listed, somebody else may have taken it)
        return job

    def known(self, id: str) -> Job | None:
        """The same, for who would put in the task himself."""
        self.line.batches.get()  # first: by which he conflicts with who puts it in fresh
        return self.job(id)

    def ready(self, job: Job) -> None:
        """The job waits for nothing but its time and its place."""
        state = look(job)
        if state.due > self._clock.time():
            self.schedule(job, state.due)
        elif self.placed(job):
            state = look(job)._replace(state=QUEUED)
            job.set(state)
            self.line.insert(job, state)

    def schedule(self, job: Job, due: float) -> None:
        state = look(job)._replace(state=SCHEDULED, due=due)
        job.set(state)
        self._timetable.put((due, state.order, state.task.id))

    def placed(self, job: Job) -> bool:
        """Has the job what places it needs? If not, it waits for one from now on."""
        state = look(job)
        limit = state.task.limit
        if limit is None:
            return True
        placed = state.more.placed or self._limits.take(limit)
        if placed:
            job.set(state.but(placed=True))
        else:
            job.set(state._replace(state=WAITING))
            self._limits.wait(job, state, limit)
        return placed

    def give_place_back(self, job: Job) -> None:
        state = look(job)
        if state.more.placed:
            assert state.task.limit is not None
            job.set(state.but(placed=False))
            for other in self._limits.give_back(state.task.limit):
                state = look(other)._replace(state=QUEUED).but(placed=True)
                other.set(state)
                self.line.insert(other, state)

    def queue_due(self) -> bool:
        """Queue tasks whose time has come; False if there are more of them."""
        if self._timetable.empty():
            return True
        now = self._clock.time()
        for _ in range(MOVED):
            if self._timetable.empty() or self._timetable.peek()[0] > now:
                return True
            due, order, id = self._timetable.get()
            job = self.jobs.get(id)
            if job is not None:
                state = look(job)
                if (state.state, state.order, state.due) == (SCHEDULED, order, due):
                    self.ready(job)
        return False

    def next_due(self) -> float:
        """Seconds until there is a task to queue."""
        due = NEVER if self._timetable.empty() else self._timetable.peek()[0]
        if self._told.get() != due:
            self._told.set(due)
        return max(0.0, due - self._clock.time())

    def is_sooner(self) -> bool:
        """Is there a task to queue, sooner than `tend` has said?"""
        return not self._timetable.empty() and self._timetable.peek()[0] < self._told.get()
