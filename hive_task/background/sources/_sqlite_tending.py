"""`tend` of a `SQLiteQueue`: what has come due, and what dead workers have left behind; as parts of a transaction.

A worker is dead if its process is gone, or was before the last boot; then all that it ran is taken back at once. If
its process lives, or nobody can tell, only those of its tasks are taken back whose lease has expired. Leases are
compared by `monotonic()`, which all processes of one machine share, so nobody is robbed because somebody has set the
clock.
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from hive_task.background.sources._sqlite_claimants import Process, is_gone
from hive_task.background.sources._sqlite_codec import pack_failure
from hive_task.background.sources._sqlite_rules import Step
from hive_task.background.sources._sqlite_schema import IDLE_CLAIMANTS, NEXT_DUE, OWNERS, RATED
from hive_task.background.tasks import CANCELLED, CRASHES, DEAD, Failure

#: Tasks that one transaction moves, at most: others want to write as well.
MOVED = 500
#: A process may die at any time: in so many seconds somebody should look, if it has tasks in hand.
LOOK_AFTER = 1.0


class Survey(NamedTuple):
    """What is to be done: `due` tasks, those of dead workers (`lost`), and those whose lease has `expired`, by worker.
    `ghosts`: claimants that are gone and have nothing. `next_due`, `next_expiry`: what comes next. `others`: processes
    that are not this one have tasks in hand."""

    due: bool
    lost: list[str]
    expired: list[str]
    ghosts: list[str]
    next_due: float | None
    next_expiry: float | None
    others: bool

    def is_quiet(self) -> bool:
        return not (self.due or self.lost or self.expired or self.ghosts)


def survey(connection: sqlite3.Connection, now: float, running: float, pid: int) -> Survey:
    """Look around. Costs O(log n) for each worker."""
    ((next_due,),) = connection.execute(NEXT_DUE).fetchall()
    lost, expired, others, next_expiry = [], [], False, None
    for worker, expires, *who in connection.execute(OWNERS).fetchall():
        if who[0] is None or is_gone(Process(*who)):
            lost.append(worker)
            continue
        others = others or who[0] != pid
        if expires <= running:
            expired.append(worker)
        else:
            next_expiry = expires if next_expiry is None else min(next_expiry, expires)
    ghosts = [name for name, *who in connection.execute(IDLE_CLAIMANTS).fetchall() if is_gone(Process(*who))]
    return Survey(next_due is not None and next_due <= now, lost, expired, ghosts, next_due, next_expiry, others)


def do(step: Step, found: Survey, running: float) -> None:
    """What the survey found, `MOVED` tasks of each kind at most."""
    execute = step.execute
    for seq, due, key in execute(
        "SELECT seq, due, limit_key FROM tasks WHERE state = 'scheduled' AND due <= ? ORDER BY due LIMIT ?",
        (step.now, MOVED),
    ).fetchall():
        step.place(seq, due, key)
    for worker in found.lost:
        take_back(step, worker, None, "its process is gone")
    for worker in found.expired:
        take_back(step, worker, running, "its lease has expired")
    execute_many = step.connection.executemany
    execute_many("DELETE FROM claimants WHERE identity = ?", [(name,) for name in found.ghosts])


def take_back(step: Step, worker: str, running: float | None, why: str) -> None:
    """What the worker had in hand; `running`: only what has expired by then."""
    rows = step.execute(
        "SELECT seq, id, special, limit_key, options, crashes, cancel_requested FROM tasks"
        " WHERE state = 'running' AND worker = ? AND expires <= ? LIMIT ?",
        (worker, float("inf") if running is None else running, MOVED),
    ).fetchall()
    for seq, id, special, key, options, crashes, cancel_requested in rows:
        crashes += 1
        failure = pack_failure(Failure("WorkerLost", f"worker {worker}: {why}; so died {crashes} of its runs"))
        step.execute("UPDATE tasks SET crashes = ?, failure = ?, started = NULL WHERE seq = ?", (crashes, failure, seq))
        step.leave_place(key)
        if cancel_requested or crashes >= CRASHES:
            state = CANCELLED if cancel_requested else DEAD
            step.execute("UPDATE tasks SET state = ?, ended = ?, expires = NULL WHERE seq = ?", (state, step.now, seq))
            step.ended(seq, id, state, special, options)
        elif special & RATED:
            step.start(seq, step.now)
        else:  # its time had come, whatever the clock says now
            step.place(seq, step.now, key, keep_due=True)
