"""What `MemoryQueue` knows of one task: a `State`, in a transactional variable of the task's own, its *job*.

Invariant: a state is never changed, only replaced. So whoever reads a job has all of one moment, and `record_of` makes
the `Record` that users see of it at leisure.

It is a tuple, and not a `Record` itself, because each run replaces it twice: `dataclasses.replace` of a `Record` takes
some 3 µs on CPython 3.11, more than all the rest of taking a task does. What most tasks never need is in `More`, and
all that don't need it share one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from pyrsistent import PVector, pvector

from hive_task.background.tasks import RUNNING, Failure, Record, Task
from stm import TVar


class More(NamedTuple):
    """`parents`: ids of those that are waited for still. `children`: jobs that wait for this one. `placed`: does it
    hold one of the places of its limit? For the others see `Record`."""

    crashes: int = 0
    failure: Failure | None = None
    progress: Any = None
    cancel_requested: bool = False
    parents: frozenset[str] = frozenset()
    children: PVector[Any] = pvector()
    placed: bool = False


NOTHING_MORE = More()


class State(NamedTuple):
    """`order`: who was put in first has the least. `epoch`: how often the task was taken. `expires`: when its lease
    does, by the clock's `monotonic`. For the others see `Record`."""

    task: Task
    state: str
    order: int
    created: float
    due: float
    epoch: int = 0
    attempts: int = 0
    worker: str | None = None
    started: float | None = None
    expires: float | None = None
    ended: float | None = None
    result: Any = None
    more: More = NOTHING_MORE

    def but(self, **changes: Any) -> State:
        """The same with changes in `more`."""
        return self._replace(more=self.more._replace(**changes))


Job = TVar[State]


def record_of(state: State) -> Record:
    more = state.more
    return Record(
        task=state.task,
        state=state.state,
        created=state.created,
        due=state.due,
        started=state.started,
        ended=state.ended,
        attempts=state.attempts,
        crashes=more.crashes,
        result=state.result,
        failure=more.failure,
        progress=more.progress,
        worker=state.worker,
        cancel_requested=more.cancel_requested,
    )


def owned(state: State, task: Task) -> bool:
    """Does who holds this claimed task hold it still?"""
    claim = task.claim
    return claim is not None and state.state == RUNNING and claim.epoch == state.epoch and claim.worker == state.worker
