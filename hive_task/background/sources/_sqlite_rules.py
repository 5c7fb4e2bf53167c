"""`Step`: what follows from what, within one transaction: who may run when another has ended, was put in, or came due.

Places of a limit. A task that is in the queue or runs holds one; those in the queue are the first of its key, by
priority and order. `fill` sees to that once for each key that was touched, at the end of the transaction: it lets in
the first that waits, while there is room, or while one that is behind it sits in the queue: that one must get up again.
So each change costs O(log n), whatever waits. A task in a paused queue holds no place.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any

from hive_task.background.sources._sqlite_codec import pack_failure, row_of
from hive_task.background.sources._sqlite_ids import SEQ, lookup, where
from hive_task.background.sources._sqlite_rates import reserve
from hive_task.background.sources._sqlite_schema import (
    CHILD,
    DESPITE,
    INSERT,
    PARENT,
    RATED,
    UNIQUE,
    WAITING_KEYS,
    WAITING_QUEUES,
)
from hive_task.background.tasks import (
    CANCELLED,
    DONE,
    ENDED,
    QUEUED,
    SCHEDULED,
    WAITING,
    Failure,
    Rate,
    Task,
)


class Step:
    """One transaction. `told`: there is something to take. `scheduled`: something has its time. `over`: something has
    ended."""

    def __init__(self, connection: sqlite3.Connection, now: float) -> None:
        self.connection = connection
        self.execute = connection.execute
        self.now = now
        self.told = False
        self.scheduled = False
        self.over = False
        self._keys: set[str] = set()

    def finish(self) -> None:
        """The last thing in each transaction."""
        while self._keys:
            self.fill(self._keys.pop())

    # Putting in.

    def put(self, tasks: Sequence[Task], rows: Sequence[tuple[Any, ...]]) -> list[str]:
        """Tasks that may be in one another's way. Their ids, or those of the tasks that are there instead (P6)."""
        ids: list[str] = []
        stead: dict[str, str] = {}
        new: list[tuple[int, Task]] = []
        for task, row in zip(tasks, rows, strict=True):
            known = self._known(task)
            if known is not None:
                stead[task.id] = known
                ids.append(known)
                continue
            self.execute(INSERT, row)
            ((seq,),) = self.execute("SELECT last_insert_rowid()").fetchall()
            if task.unique is not None:
                self._take_key(task.unique, task.id, task.unique_for)
            ids.append(task.id)
            new.append((seq, task))
        for seq, task in new:
            self._begin(seq, task, stead)
        return ids

    def _known(self, task: Task) -> str | None:
        if lookup(self.connection, task.id) is not None:
            return task.id
        return None if task.unique is None else self.holder(task.unique)

    def _begin(self, seq: int, task: Task, stead: Mapping[str, str]) -> None:
        if not task.after:
            self.start(seq)
            return
        after = tuple(dict.fromkeys(stead.get(id, id) for id in task.after))
        if after != task.after:  # what was meant is there under another id
            options = row_of(Task(**{**_fields(task), "after": after}), self.now)[8]
            self.execute("UPDATE tasks SET options = ? WHERE seq = ?", (options, seq))
        self.link(seq, task.name, after, task.despite_failure)

    def link(self, seq: int, name: str, after: Sequence[str], despite: bool, *, again: bool = False) -> None:
        """Let the task wait for those that have not ended. `again`: it was put in before, and is wanted in spite of all
        that has ended since, or was forgotten."""
        pending = 0
        fallen: Failure | None = None
        for id in after:
            row = lookup(self.connection, id)
            if row is None:
                if not again:
                    raise ValueError(f"task {name!r} is to run after {id!r}, but no task has that id")
            elif row[1] not in ENDED:
                self.execute("INSERT INTO links VALUES (?, ?)", (row[0], seq))
                self.execute("UPDATE tasks SET special = special | ? WHERE seq = ?", (PARENT, row[0]))
                pending += 1
            elif row[1] != DONE and not despite and not again:
                fallen = _parent_failed(id, row[1])
        self.execute("UPDATE tasks SET pending = ? WHERE seq = ?", (pending or 1, seq))
        if fallen is not None:
            self.cancel(seq, fallen)
        elif not pending:
            self.start(seq)

    # On the way to a worker.

    def start(self, seq: int, due: float | None = None) -> None:
        """Nothing is waited for any more: let it run, at its time, or that of a retry, if its rate has room then."""
        ((at, key, special, options),) = self.execute(
            "SELECT due, limit_key, special, options FROM tasks WHERE seq = ?", (seq,)
        ).fetchall()
        at = at if due is None else due
        if special & RATED:
            at = reserve(self.connection, Rate(*json.loads(options)["rate"]), at, self.now)
        self.place(seq, at, key)

    def place(self, seq: int, due: float, key: str | None, *, keep_due: bool = False) -> None:
        """Let a task run at that time. `keep_due`: its record goes on to say what it said."""
        state = SCHEDULED if due > self.now else QUEUED if key is None else WAITING
        self.execute(
            "UPDATE tasks SET state = ?, due = CASE WHEN ? THEN due ELSE ? END, pending = 0, worker = NULL,"
            " expires = NULL WHERE seq = ?",
            (state, keep_due, due, seq),
        )
        if state == QUEUED:
            self.told = True
        elif state == SCHEDULED:
            self.scheduled = True
        else:
            assert key is not None
            self._keys.add(key)

    def fill(self, key: str) -> None:
        row = self.execute("SELECT held FROM limits WHERE key = ?", (key,)).fetchone()
        held = before = row[0] if row else 0
        while (first := self._first_waiting(key)) is not None:
            order, seq, most = first
            if held >= most:
                last = self._last_placed(key)
                if held > most or last is None or last[0] <= order:
                    break
                self.execute("UPDATE tasks SET state = 'waiting' WHERE seq = ?", (last[1],))
                held -= 1
            self.execute("UPDATE tasks SET state = 'queued' WHERE seq = ?", (seq,))
            held += 1
            self.told = True
        if held != before:
            self._hold(key, held)

    def _first_waiting(self, key: str) -> tuple[tuple[int, int], int, int] | None:
        found: list[tuple[tuple[int, int], int, int]] = []
        for (queue,) in self.execute(WAITING_QUEUES, {"key": key}).fetchall():
            rows = self.execute(
                "SELECT priority, seq, limit_most FROM tasks WHERE state = 'waiting' AND pending = 0 AND limit_key = ?"
                " AND queue = ? ORDER BY priority DESC, seq LIMIT 1",
                (key, queue),
            ).fetchall()
            found += [((-priority, seq), seq, most) for priority, seq, most in rows]
        return min(found, default=None)

    def _last_placed(self, key: str) -> tuple[tuple[int, int], int] | None:
        row = self.execute(
            "SELECT priority, seq FROM tasks WHERE state = 'queued' AND limit_key = ?"
            " ORDER BY priority, seq DESC LIMIT 1",
            (key,),
        ).fetchone()
        return None if row is None else ((-row[0], row[1]), row[1])

    def _hold(self, key: str, held: int) -> None:
        if held > 0:
            self.execute("INSERT OR REPLACE INTO limits VALUES (?, ?)", (key, held))
        else:
            self.execute("DELETE FROM limits WHERE key = ?", (key,))

    def leave_place(self, key: str | None) -> None:
        """A task of that key was in the queue or ran, and is not and does not any more."""
        if key is not None:
            self.execute("UPDATE limits SET held = held - 1 WHERE key = ?", (key,))
            self.execute("DELETE FROM limits WHERE key = ? AND held <= 0", (key,))
            self._keys.add(key)

    # Ends.

    def cancel(self, seq: int, failure: Failure | None = None) -> None:
        """Cancel a task that does not run."""
        ((id, state, special, key, options),) = self.execute(
            "SELECT id, state, special, limit_key, options FROM tasks WHERE seq = ?", (seq,)
        ).fetchall()
        self.execute(
            "UPDATE tasks SET state = 'cancelled', ended = ?, failure = coalesce(?, failure), pending = 0"
            " WHERE seq = ?",
            (self.now, pack_failure(failure), seq),
        )
        if state == QUEUED:
            self.leave_place(key)
        self.ended(seq, id, CANCELLED, special, options)

    def ended(self, seq: int, id: str, state: str, special: int, options: str | None) -> None:
        """A task has got into that state. Its key is free, and its children are done with waiting for it."""
        self.over = True
        if not special:
            return
        said = json.loads(options) if options else {}
        if special & UNIQUE:
            self.execute("DELETE FROM keys WHERE key = ? AND id = ? AND until IS NULL", (said["unique"], id))
        if special & CHILD:
            for parent in said["after"]:
                self.execute(f"DELETE FROM links WHERE child = ? AND parent = {SEQ}", (seq, *where(parent)))
        if special & PARENT:
            self._tell_children(seq, id, state)

    def _tell_children(self, seq: int, id: str, state: str) -> None:
        """Of its children, and of theirs, if they fall with it. (No recursion: a chain may be long.)"""
        told = [(seq, id, state)]
        while told:
            seq, id, state = told.pop()
            children = self.execute(
                "SELECT child, special FROM links JOIN tasks ON seq = child WHERE parent = ?", (seq,)
            ).fetchall()
            self.execute("DELETE FROM links WHERE parent = ?", (seq,))
            for child, special in children:
                if state == DONE or special & DESPITE:
                    ((left,),) = self.execute(
                        "UPDATE tasks SET pending = pending - 1 WHERE seq = ? RETURNING pending", (child,)
                    ).fetchall()
                    if not left:
                        self.start(child)
                    continue
                # A child that is a parent is told of on this list, and not from within `cancel`.
                self.execute("UPDATE tasks SET special = special & ~? WHERE seq = ?", (PARENT, child))
                self.cancel(child, _parent_failed(id, state))
                if special & PARENT:
                    ((name,),) = self.execute("SELECT id FROM tasks WHERE seq = ?", (child,)).fetchall()
                    told.append((child, name, CANCELLED))

    # Unique keys.

    def holder(self, key: str) -> str | None:
        row = self.execute("SELECT id, until FROM keys WHERE key = ?", (key,)).fetchone()
        return None if row is None or (row[1] is not None and row[1] <= self.now) else row[0]

    def _take_key(self, key: str, id: str, seconds: float | None) -> None:
        until = None if seconds is None else self.now + seconds
        self.execute("DELETE FROM keys WHERE until <= ?", (self.now,))
        self.execute("INSERT OR REPLACE INTO keys VALUES (?, ?, ?)", (key, id, until))

    # By hand.

    def pause(self, queue: str) -> None:
        """What of that queue holds places gives them back."""
        self.execute("INSERT OR IGNORE INTO paused VALUES (?)", (queue,))
        rows = self.execute(
            "SELECT seq, limit_key FROM tasks INDEXED BY places"
            " WHERE state = 'queued' AND limit_key IS NOT NULL AND queue = ?",
            (queue,),
        ).fetchall()
        for seq, key in rows:
            self.execute("UPDATE tasks SET state = 'waiting' WHERE seq = ?", (seq,))
            self.leave_place(key)

    def resume(self, queue: str) -> None:
        self.execute("DELETE FROM paused WHERE queue = ?", (queue,))
        self._keys.update(key for (key,) in self.execute(WAITING_KEYS).fetchall())
        self.told = True

    def again(self, seq: int, task: Task) -> bool:
        """Put in an ended task once more, as if it were new. False if another one has its unique key by now."""
        if task.unique is not None:
            if self.holder(task.unique) not in (None, task.id):
                return False
            self._take_key(task.unique, task.id, task.unique_for)
        self.execute(
            "UPDATE tasks SET state = 'waiting', pending = 1, due = max(coalesce(asked, ?), ?), attempts = 0,"
            " crashes = 0, cancel_requested = 0, worker = NULL, expires = NULL, started = NULL, ended = NULL,"
            " result = NULL, failure = NULL, progress = NULL WHERE seq = ?",
            (self.now, self.now, seq),
        )
        self.link(seq, task.name, task.after, task.despite_failure, again=True)
        return True


def _fields(task: Task) -> dict[str, Any]:
    return {name: getattr(task, name) for name in Task.__dataclass_fields__ if name != "_"}


def _parent_failed(id: str, state: str) -> Failure:
    return Failure("ParentFailed", f"task {id}, which was to be done before, is {state}")


def check_order(tasks: Sequence[Task]) -> None:
    """Tasks that are put in together must not wait for one another in a circle."""
    try:
        TopologicalSorter({task.id: task.after for task in tasks}).prepare()
    except CycleError as error:
        raise ValueError(f"these tasks wait for one another in a circle: {', '.join(error.args[1])}") from None
