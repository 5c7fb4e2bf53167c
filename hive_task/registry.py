"""Who works here: workers, what is on their desks, and what those who left had done.

Everything is in transactional variables, and what is in these never changes: the registry is a persistent map from
names to workers, a worker's desk is a tuple. So one read shows all of it, and a picture disturbs nobody.

A desk is what a worker has before him, `(stack, tray, count, finished, failed, leaving, notes)`:

- `stack`: what he has begun, `(future, began, dropped, below)`, innermost first. More than one while a work waits for
  another one that he runs himself. `dropped`: the work ran out of time, and was given up; its thread goes on.
- `tray`, `count`: what he has taken in advance (see `queues`), and how many.
- `finished`, `failed`: how many he has run.
- `leaving`: he is to end as soon as he has no work in hand.
- `notes`: how long the last works took (see `profiles`).

>>> from hive_task.registry import Worker
>>> worker = Worker("example-1")
>>> worker.desk.get() == IDLE_DESK, worker.name
(True, 'example-1')
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pyrsistent import PMap, pmap

from hive_task.profiles import NOTHING, Notes, Profile
from stm import TVar

if TYPE_CHECKING:
    from hive_task.futures import Future
    from hive_task.messages import Port
    from hive_task.processes import Child

Stack = tuple[Any, float, bool, Any]
Desk = tuple[Stack | None, Any, int, int, int, bool, Notes]

IDLE_DESK: Desk = (None, None, 0, 0, 0, False, None)


class Worker:
    """One worker: a thread that runs one work after another, and its place in the registry."""

    __slots__ = (
        "__weakref__",
        "child",
        "desk",
        "errand",
        "name",
        "port",
        "post",
        "profile",
        "replaces",
        "stands_in_for",
        "started",
        "thread",
        "uuid",
        "waits",
    )

    def __init__(self, name: str, stands_in_for: Worker | None = None) -> None:
        self.uuid = str(uuid.uuid4())
        self.name = name
        self.desk: TVar[Desk] = TVar(IDLE_DESK, name=f"desk of {name}")
        self.profile: TVar[Profile] = TVar(NOTHING, name=f"profile of {name}")
        #: How many blocking calls deep he is, in which others may stand in for him.
        self.waits: TVar[int] = TVar(0, name=f"waits of {name}")
        self.stands_in_for = stands_in_for
        #: He stands in to do the one work that the other waits for, and leaves after it.
        self.errand = False
        self.started = time.monotonic()
        self.thread: threading.Thread | None = None
        self.child: Child | None = None
        self.port: Port | None = None
        self.post: Port | None = None

    def __repr__(self) -> str:
        return f"<Worker {self.name}>"


def on_stack(stack: Stack | None) -> Iterator[Stack]:
    """What a worker has begun, the innermost first."""
    while stack is not None:
        yield stack
        stack = stack[3]


def is_on(stack: Stack | None, future: Future[Any]) -> bool:
    return any(one[0] is future for one in on_stack(stack))


class Registry:
    """All workers of a scheduler. What it does is a part of the caller's transaction."""

    __slots__ = ("crew", "lost", "past", "workers")

    def __init__(self) -> None:
        self.workers: TVar[PMap[str, Worker]] = TVar(pmap(), name="workers")
        #: The same, for those who look at all of them.
        self.crew: TVar[tuple[Worker, ...]] = TVar((), name="crew")
        #: What those who left had finished, failed, and the profile of it all.
        self.past: TVar[tuple[int, int, Profile]] = TVar((0, 0, NOTHING), name="work of former workers")
        self.lost: TVar[int] = TVar(0, name="workers lost")

    def enter(self, worker: Worker) -> None:
        self.workers.set(self.workers.get().set(worker.uuid, worker))
        self.crew.set((*self.crew.get(), worker))

    def leave(self, worker: Worker) -> None:
        """Strike a worker whose desk is empty off the list; what he has done still counts."""
        workers = self.workers.get()
        if worker.uuid not in workers:
            return
        self.workers.set(workers.remove(worker.uuid))
        self.crew.set(tuple(one for one in self.crew.get() if one is not worker))
        _, _, _, finished, failed, _, notes = worker.desk.get()
        all_finished, all_failed, profile = self.past.get()
        profile = profile.joined(worker.profile.get().noting(notes))
        self.past.set((all_finished + finished, all_failed + failed, profile))
