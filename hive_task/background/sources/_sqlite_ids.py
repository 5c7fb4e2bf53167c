"""Ids that say where a task lies, so that the most common tasks need no index of ids.

A task that is put in one by one has to be made durable one by one, and what that costs, it costs for each page that
has changed. An id that somebody brings along must be in an index, a page of its own. So the queue makes the id itself
where it may (`enqueue_call`): 8 digits of time and 12 of chance, as `new_id` has them, and the `seq` of its row as the
last 12. Such a row is not `given`, and not in the index; it is looked for where its id says. (Putting in tasks one by
one, with `synchronous=FULL`: 15 % less time each.)

An id is only found if the row has that very id: so one that merely looks as if it told where is looked for in the
index, and who comes with the id of a task that was forgotten does not get another one that lies there by now.

>>> seq_in("6a1b2c3d0123456789ab000000000007"), seq_in("a name"), seq_in("")
(7, 0, 0)
"""

from __future__ import annotations

import sqlite3
from typing import Any, Final

from hive_task.background.tasks import ID_LENGTH, SAME, new_id

#: The row with an id, as a part of a statement; `where` has its parameters.
SEQ: Final = (
    "coalesce((SELECT seq FROM tasks WHERE seq = ? AND id = ?), (SELECT seq FROM tasks WHERE id = ? AND given))"
)


def seq_in(id: str) -> int:
    """Where the id says that its task lies; 0 if it doesn't."""
    if len(id) != ID_LENGTH:
        return 0
    try:
        return int(id[SAME:], 16)
    except ValueError:
        return 0


def id_at(seq: int) -> str:
    """A new id for the row `seq`."""
    return f"{new_id()[:SAME]}{seq:012x}"


def where(id: str) -> tuple[Any, ...]:
    """The parameters of `SEQ`."""
    return seq_in(id), id, id


def lookup(connection: sqlite3.Connection, id: str) -> tuple[int, str] | None:
    """The row with that id, and the task's state; None if there is none."""
    found: tuple[int, str] | None
    found = connection.execute(f"SELECT seq, state FROM tasks WHERE seq = {SEQ}", where(id)).fetchone()
    return found
