"""Tasks that depend on each other: chains, and batches with something after them.

These only fill in `Task.after`; `enqueue_tasks(app, ...)` puts the result in, all or nothing.

>>> from hive_task.background import Task
>>> load, parse, store = chain(Task("load"), Task("parse"), Task("store"))
>>> parse.after == (load.id,), store.after == (parse.id,)
(True, True)
>>> *pages, index = gather([Task("page", n) for n in range(3)], then=Task("index"))
>>> index.after == tuple(page.id for page in pages)
True
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

from hive_task.background.tasks import Task


def chain(*tasks: Task) -> list[Task]:
    """The same tasks, each to run when the one before it is done."""
    linked = list(tasks[:1])
    for _, task in pairwise(tasks):
        linked.append(following(task, linked[-1:]))
    return linked


def gather(tasks: Iterable[Task], then: Task) -> list[Task]:
    """A batch, and at the end of the list the task that is to run when all of the batch are done."""
    tasks = list(tasks)
    return [*tasks, following(then, tasks)]


def following(task: Task, tasks: Iterable[Task]) -> Task:
    """The same task, to run when all of these are done, too."""
    return replace(task, after=(*task.after, *(one.id for one in tasks)))
