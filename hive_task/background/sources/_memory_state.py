"""What `MemoryQueue` knows of one task: a `State`, in a transactional variable of the task's own, its *job*.

Invariant: a state is never changed, only replaced. So whoever reads a job has all of one moment, and `record_of` makes
the `Record` that users see of it at leisure.

It is a tuple, and not a `Record` itself, because each run replaces it twice: `dataclasses.replace` of a `Record` takes
some 3 µs on CPython 3.11, more than all the rest of taking a task does. What most tasks never need is in `More`, and
all that don't need it share one.

Most tasks have nothing but a name, data and a queue, and end well. What is known of them before they begin and after
they have ended is laid down in plain tuples, for these the garbage collector leaves alone if there is nothing in them
that it has to look at. (With tasks by the ten thousands, it took two fifths of the time.) A `Fresh` one waits, and has
no job yet (see `Line`); a `Packed` one has ended. `look` makes a `State` of whatever there is.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from pyrsistent import PVector, pvector

from hive_task.background.tasks import QUEUED, RUNNING, Claim, Failure, Record, Task, bare_task
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


NOTHING_MORE: Final = More()
#: The same, known by its identity, of a task that has nothing but a name, data, an id and a queue.
BARE: Final = More()


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


#: Outcome, queue, name, order, data, id, created, due, epoch, attempts, worker, started, ended, result.
Packed = tuple[
    str, str, str, int, Any, str, float, float, int, int, str | None, float | None, float | None, Any
]  # fmt: skip
#: Name, data, id, queue, order, created.
Fresh = tuple[str, Any, str, str, int, float]

Job = TVar[State | Packed]


def look(job: Job) -> State:
    value = job.get()
    return value if type(value) is State else unpacked(value)  # type: ignore[arg-type]


def packed(state: State, outcome: str, ended: float, result: Any) -> Packed:
    """A `BARE` state, ended."""
    task, _, order, created, due, epoch, attempts, worker, started, _, _, _, _ = state
    data, id = task.data, task.id
    return (
        outcome,
        task.queue,
        task.name,
        order,
        data,
        id,
        created,
        due,
        epoch,
        attempts,
        worker,
        started,
        ended,
        result,
    )


def unpacked(value: Packed) -> State:
    outcome, queue, name, order, data, id, created, due, epoch, attempts, worker, started, ended, result = value
    task = bare_task(name, data, id, queue)
    return State(task, outcome, order, created, due, epoch, attempts, worker, started, None, ended, result, BARE)


def waiting(fresh: Fresh) -> State:
    name, data, id, queue, order, created = fresh
    return State(bare_task(name, data, id, queue), QUEUED, order, created, created, more=BARE)


def state_of(value: State | Packed | Fresh) -> State:
    if isinstance(value, State):
        return value
    return waiting(value) if len(value) == 6 else unpacked(value)


def essence(value: State | Packed | Fresh) -> tuple[str, str, str, int]:
    """State, queue, name, order."""
    if isinstance(value, State):
        return value.state, value.task.queue, value.task.name, value.order
    return (QUEUED, value[3], value[0], value[4]) if len(value) == 6 else value[:4]


def begun(fresh: Fresh, worker: str, now: float, expires: float | None) -> State:
    """The state of one that is taken."""
    name, data, id, queue, order, created = fresh
    # (By the constructors of named tuples it would take half as long again.)
    task = bare_task(name, data, id, queue, tuple.__new__(Claim, (worker, 1, 1, created)))
    state = (task, RUNNING, order, created, created, 1, 1, worker, now, expires, None, None, BARE)
    return tuple.__new__(State, state)


def record_of(state: State) -> Record:
    more = state.more
    return Record(
        task=state.task if state.task.claim is None else state.task.claimed(None),
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
