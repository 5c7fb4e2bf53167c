"""`SQLiteQueue`: background tasks kept in a file, by the standard library's `sqlite3`, for the processes of a machine.

Promises: P1 to P6 of `base`. With `synchronous="FULL"`, the default, what was acknowledged survives a failure of the
power; with "NORMAL" what came last may be lost with the power, and with "OFF" perhaps the file. The death of any
process loses nothing, with each of them. Every
method that changes something is one transaction: it has happened, or it has not. `settle_and_dequeue` is one as well.

Many processes and threads may share a file; a child that was forked opens its own connections. Data, results and
progress are kept as JSON: what would not come back as it was, but for tuples, which come back as lists, is refused with
`UnserializableData`, when it is put in.

Claims are leases of `lease` seconds, by the monotonic clock, so setting the wall clock expires none. A worker whose
process is gone loses its tasks at the next `tend`, however long its leases are.

How it decides where `base` leaves it open. A task that is to be tried again, or given back, although its end was asked
for, is cancelled. A task with `unique_for` keeps its key for that time and no longer, also if it has not ended by then.
`retry_task` waits again for those of the task's `after` that have not ended, and gives no second chance to one whose
unique key is somebody else's now (False); it keeps its place in the order. Places of a `limit` are held by those tasks
that run, and the first in order of those that may run.

Cost: about 20 µs for a look at an empty queue, 30 µs and more for a transaction, and what the disk takes to make it
durable, 0.2 ms and more; so put in, take and settle many at once. A task that has nothing but a name, data and a queue,
put in by `enqueue_call`, takes the disk less than others, for its id is in no index (`_sqlite_ids`). Threads that write
at the same time share a transaction, and wait for the disk together. Claiming does not depend on how many tasks there
are. Waiting costs nothing: see `_sqlite_bell`. `count_tasks` looks at an index of all tasks, `list_tasks` at the newest
until it has found enough.

Errors: `SourceError` names the file and what can be done; its cause is SQLite's own error. Nothing has changed then.

>>> import tempfile, os
>>> from hive_task.background.tasks import Task
>>> directory = tempfile.TemporaryDirectory()
>>> source = SQLiteQueue(os.path.join(directory.name, "tasks.db"))
>>> id = source.enqueue_task(Task("greet", "world"))
>>> task = source.dequeue_task()
>>> task.data, source.find_task(id).state, source.complete_task(task, "hello world"), source.complete_task(task)
('world', 'running', True, False)
>>> source.await_end(id).result, source.count_tasks()
('hello world', {'default': {'done': 1}})
>>> source.close()
>>> directory.cleanup()
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from heapq import merge
from itertools import islice
from typing import TYPE_CHECKING, Any

from hive_task.background.sources import _sqlite_schema as sql
from hive_task.background.sources import _sqlite_tending as tending
from hive_task.background.sources._sqlite_bell import Bell
from hive_task.background.sources._sqlite_claimants import this_process
from hive_task.background.sources._sqlite_codec import is_plain, pack, record_of, row_of, task_of
from hive_task.background.sources._sqlite_ends import prepared, settle
from hive_task.background.sources._sqlite_file import File
from hive_task.background.sources._sqlite_ids import SEQ, id_at, lookup, seq_in, where
from hive_task.background.sources._sqlite_rules import Step, check_order
from hive_task.background.sources.base import DataSource
from hive_task.background.tasks import (
    CANCELLED,
    DEAD,
    DONE,
    ENDED,
    QUEUED,
    RUNNING,
    SCHEDULED,
    STATES,
    Claim,
    End,
    Failure,
    Record,
    Task,
    check_count,
    check_seconds,
)

if TYPE_CHECKING:
    from hive_task.background.application import Application
    from hive_task.background.clocks import Clock

#: Seconds between two looks of a waiter whom nobody has woken.
LOOK_AGAIN = 1.0
#: Rows that one transaction of `purge` forgets.
FORGOTTEN = 2000


class SQLiteQueue(DataSource):
    """Tasks in a file. See the module."""

    keeps_records = True
    lease: float

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        lease: float = 30.0,
        synchronous: str = "FULL",
        busy_timeout: float = 10.0,
        clock: Clock = time,
    ) -> None:
        check_seconds("a lease", lease)
        check_seconds("busy_timeout", busy_timeout)
        self.path = os.fspath(path)
        self.lease = lease
        self.clock: Clock = clock
        self._file = File(self.path, synchronous, busy_timeout)
        directory = f"{self.path}-waiters"
        self._work, self._change, self._over = (Bell(directory, kind) for kind in ("work", "change", "over"))
        #: What `tend` has last told of: when the next task comes due.
        self._told_due: float | None = None
        #: How often `wake` was called, and how often each thread has noticed.
        self._wakes = 0
        self._noticed = threading.local()
        self._identity = (0, "")

    @contextmanager
    def _step(self, what: str) -> Iterator[Step]:
        """One transaction; afterwards those are woken who wait for what it brought."""
        with self._file.writing(what) as connection:
            step = Step(connection, self.clock.time())
            yield step
            step.finish()
        if step.told:
            self._work.ring()
        if step.scheduled:
            self._change.ring()
        if step.over:
            self._over.ring()

    def _worker(self, app: Application | None) -> str:
        if app is not None:
            return app.identity
        pid, identity = self._identity
        if pid != os.getpid():
            identity = uuid.uuid4().hex
            self._identity = (os.getpid(), identity)
        return identity

    # Putting in.

    def enqueue_task(self, task: Task, *, app: Application | None = None) -> str:
        return self.enqueue_tasks((task,), app=app)[0]

    def schedule_task(self, time: float, task: Task, *, app: Application | None = None) -> str:
        return self.enqueue_tasks((task.at(time),), app=app)[0]

    def enqueue_tasks(self, tasks: Sequence[Task], *, app: Application | None = None) -> list[str]:
        """Put in several tasks, all or none. They may come `after` one another, in any order."""
        if not tasks:
            return []
        now = self.clock.time()
        rows = [row_of(task, now) for task in tasks]
        plain = all(map(is_plain, tasks))
        if not plain:
            check_order(tasks)
        with self._step("enqueue") as step:
            if not plain:
                return step.put(tasks, rows)
            ((last,),) = step.execute(sql.LAST).fetchall()
            # (Of ids that are in no index, only these can be there; the statement passes over those that are in it.)
            rows = [row for row in rows if not (0 < seq_in(row[0]) <= last and lookup(step.connection, row[0]))]
            step.connection.executemany(sql.INSERT_NEW, rows)
            step.told = any(row[1] == QUEUED for row in rows)
            step.scheduled = any(row[1] == SCHEDULED for row in rows)
        return [task.id for task in tasks]

    def enqueue_call(self, name: str, data: Any, queue: str, *, app: Application | None = None) -> str:
        text = pack(data, "data", name)
        now = self.clock.time()
        with self._step("enqueue") as step:
            ((last,),) = step.execute(sql.LAST).fetchall()
            id = id_at(last + 1)
            step.execute(sql.INSERT_CALL, (last + 1, id, queue, name, text, now, now))
            step.told = True
        return id

    # Taking and settling.

    def dequeue_task(self, *, app: Application | None = None) -> Task | None:
        tasks = self.dequeue_tasks(1, app=app)
        return tasks[0] if tasks else None

    def dequeue_tasks(self, limit: int, *, app: Application | None = None) -> list[Task]:
        if limit < 1 or not self._has_work():
            return []
        with self._step("claim") as step:
            return self._claim(step, limit, self._worker(app))

    def _has_work(self) -> bool:
        with self._file.reading() as connection:
            return bool(connection.execute(f"{sql.READY_QUEUES} LIMIT 1").fetchall())

    def _claim(self, step: Step, limit: int, worker: str) -> list[Task]:
        execute = step.execute
        queues = execute(sql.READY_QUEUES).fetchall()
        if not queues or limit < 1:
            return []
        heads = [execute(sql.READY, (queue, limit)).fetchall() for (queue,) in queues]
        first = heads[0] if len(heads) == 1 else islice(merge(*heads, key=lambda row: (-row[1], row[0])), limit)
        seqs = [row[0] for row in first]
        execute(sql.REGISTER, (worker, *this_process()))
        ((epoch,),) = execute("UPDATE epochs SET last = last + 1 RETURNING last").fetchall()
        expires = self.clock.monotonic() + self.lease
        rows = execute(sql.CLAIM, (worker, epoch, expires, step.now, json.dumps(seqs))).fetchall()
        rows.sort(key=lambda row: (-row[4], row[0]))
        return [task_of(row[1:], Claim(worker, epoch, row[9], row[6])) for row in rows]

    def complete_task(self, task: Task, result: Any = None, *, app: Application | None = None) -> bool:
        return self.settle_tasks((End(task, DONE, result),), app=app)[0]

    def fail_task(
        self, task: Task, failure: Failure, *, retry_at: float | None = None, app: Application | None = None
    ) -> bool:
        outcome = DEAD if retry_at is None else SCHEDULED
        return self.settle_tasks((End(task, outcome, None, failure, retry_at),), app=app)[0]

    def release_task(self, task: Task, *, app: Application | None = None) -> bool:
        return self.settle_tasks((End(task, QUEUED),), app=app)[0]

    def settle_tasks(self, ends: Sequence[End], *, app: Application | None = None) -> list[bool]:
        return self.settle_and_dequeue(ends, 0, app=app)[0]

    def settle_and_dequeue(
        self, ends: Sequence[End], limit: int, *, app: Application | None = None
    ) -> tuple[list[bool], list[Task]]:
        """Settle these, and take at most so many, in one transaction."""
        if not ends:
            return [], self.dequeue_tasks(limit, app=app)
        told = prepared(ends)
        with self._step("settle") as step:
            accepted = settle(step, told)
            step.finish()  # so that what may run now can be taken
            return accepted, self._claim(step, limit, self._worker(app))

    def renew_leases(self, tasks: Iterable[Task], *, app: Application | None = None) -> set[str]:
        tasks = list(tasks)
        if not tasks:
            return set()
        expires = self.clock.monotonic() + self.lease
        stop = set()
        with self._step("renew") as step:
            for task in tasks:
                claim = task.claim
                rows = (
                    claim
                    and step.execute(
                        f"UPDATE tasks SET expires = ? WHERE seq = {SEQ} AND state = 'running' AND worker = ?"
                        " AND epoch = ? RETURNING cancel_requested",
                        (expires, *where(task.id), claim.worker, claim.epoch),
                    ).fetchall()
                )
                if not rows or rows[0][0]:
                    stop.add(task.id)
        return stop

    def set_progress(self, task: Task, progress: Any) -> bool:
        text = pack(progress, "progress", task.name)
        claim = task.claim
        if claim is None:
            return False
        with self._step("progress") as step:
            changed = step.execute(
                f"UPDATE tasks SET progress = ? WHERE seq = {SEQ} AND state = 'running' AND worker = ? AND epoch = ?",
                (text, *where(task.id), claim.worker, claim.epoch),
            ).rowcount
        return changed == 1

    # Waiting and housekeeping.

    def wait_for_work(self, timeout: float | None, *, app: Application | None = None) -> None:
        def look() -> float:
            return 0 if self._is_over(app) or self._has_work() else LOOK_AGAIN

        self._wait(self._work, look, timeout)

    def wait_for_change(self, timeout: float, *, app: Application | None = None) -> None:
        def look() -> float:
            return 0 if self._is_over(app) or self._is_sooner() else LOOK_AGAIN

        self._wait(self._change, look, timeout)

    def _wait(self, bell: Bell, look: Any, timeout: float | None) -> None:
        wakes = self._wakes  # who is woken just before he lies down does not lie down
        if getattr(self._noticed, "wakes", 0) == wakes:
            bell.wait(look, timeout)
        self._noticed.wakes = wakes

    def _is_over(self, app: Application | None) -> bool:
        return self._file.closed or (app is not None and not app.is_running())

    def _is_sooner(self) -> bool:
        with self._file.reading() as connection:
            ((due,),) = connection.execute(sql.NEXT_DUE).fetchall()
        return due is not None and (self._told_due is None or due < self._told_due)

    def tend(self, *, app: Application | None = None) -> float | None:
        running = self.clock.monotonic()
        while True:
            with self._file.reading() as connection:
                found = self._survey(connection, running)
            if found.is_quiet():
                break
            with self._step("tend") as step:
                # What was true before the transaction need not be so any more.
                tending.do(step, self._survey(step.connection, running), running)
        self._told_due = found.next_due
        waits = [] if found.next_due is None else [max(0.0, found.next_due - self.clock.time())]
        if found.next_expiry is not None:
            waits.append(max(0.0, found.next_expiry - running))
        if found.others:
            waits.append(tending.LOOK_AFTER)
        return min(waits, default=None)

    def _survey(self, connection: sqlite3.Connection, running: float) -> tending.Survey:
        return tending.survey(connection, self.clock.time(), running, os.getpid())

    def wake(self) -> None:
        """Let everybody in this process return from `wait_for_work` and `wait_for_change`."""
        self._wakes += 1
        self._work.ring_here()
        self._change.ring_here()

    def close(self) -> None:
        """Let everybody in this process return who waits, and give back the file."""
        self._file.close()
        for bell in (self._work, self._change, self._over):
            bell.close()

    # What can be asked, and done by hand.

    def find_task(self, id: str) -> Record | None:
        with self._file.reading() as connection:
            row = connection.execute(f"{sql.RECORD} WHERE seq = {SEQ}", where(id)).fetchone()
        return None if row is None else record_of(row)

    def list_tasks(
        self, *, state: str | None = None, queue: str | None = None, name: str | None = None, limit: int = 100
    ) -> list[Record]:
        check_count("how many are listed", limit)
        if state is not None and state not in STATES:
            raise ValueError(f"a state is one of {', '.join(STATES)}, not {state!r}")
        wanted = {"queue": queue, "name": name, "limit": limit}
        with self._file.reading() as connection:
            rows = connection.execute(sql.listing(state, queue, name), wanted).fetchall()
        return [record_of(row) for row in rows]

    def count_tasks(self) -> Mapping[str, Mapping[str, int]]:
        counts: dict[str, dict[str, int]] = {}
        with self._file.reading() as connection:
            for queue, state, count in connection.execute(sql.COUNT).fetchall():
                counts.setdefault(queue, {})[state] = count
        return counts

    def await_end(self, id: str, timeout: float | None = None) -> Record | None:
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            record = self.find_task(id)
            left = None if deadline is None else deadline - time.monotonic()
            if record is None or record.state in ENDED or (left is not None and left <= 0):
                return record
            self._over.wait(lambda: 0 if self._has_ended(id) else LOOK_AGAIN, left)

    def _has_ended(self, id: str) -> bool:
        with self._file.reading() as connection:
            row = connection.execute(f"SELECT ended IS NOT NULL FROM tasks WHERE seq = {SEQ}", where(id)).fetchone()
        return row is None or bool(row[0])

    def cancel_task(self, id: str) -> bool:
        return self.cancel_tasks((id,))[0]

    def cancel_tasks(self, ids: Iterable[str]) -> list[bool]:
        """Cancel several, in one transaction."""
        with self._step("cancel") as step:
            return [self._cancel(step, id) for id in ids]

    def _cancel(self, step: Step, id: str) -> bool:
        row = lookup(step.connection, id)
        if row is None or row[1] in ENDED:
            return False
        if row[1] == RUNNING:
            step.execute("UPDATE tasks SET cancel_requested = 1 WHERE seq = ?", (row[0],))
        else:
            step.cancel(row[0])
        return True

    def retry_task(self, id: str) -> bool:
        return self.retry_tasks((id,))[0]

    def retry_tasks(self, ids: Iterable[str]) -> list[bool]:
        """Queue several again, in one transaction."""
        with self._step("retry") as step:
            return [self._again(step, id) for id in ids]

    def _again(self, step: Step, id: str) -> bool:
        row = lookup(step.connection, id)
        if row is None or row[1] not in (DEAD, CANCELLED):
            return False
        return step.again(row[0], task_of(step.execute(f"{sql.RECORD} WHERE seq = ?", (row[0],)).fetchone()))

    def pause_queue(self, queue: str) -> None:
        with self._step("pause") as step:
            step.pause(queue)

    def resume_queue(self, queue: str) -> None:
        with self._step("resume") as step:
            step.resume(queue)

    def paused_queues(self) -> frozenset[str]:
        with self._file.reading() as connection:
            return frozenset(row[0] for row in connection.execute("SELECT queue FROM paused").fetchall())

    def purge(self, before: float, *, states: Iterable[str] = (DONE, CANCELLED)) -> int:
        """Forget tasks that ended in one of these states before that time; how many. Many of them: in several steps."""
        forgotten = 0
        for state in ENDED.intersection(states):
            with self._file.reading() as connection:
                queues = connection.execute(sql.ENDED_QUEUES, {"state": state}).fetchall()
            for (queue,) in queues:
                count = FORGOTTEN
                while count == FORGOTTEN:
                    with self._step("purge") as step:
                        count = step.execute(sql.FORGET, (state, queue, before, FORGOTTEN)).rowcount
                    forgotten += count
        return forgotten

    def __repr__(self) -> str:
        return f"<SQLiteQueue {self.path}{' (closed)' if self._file.closed else ''}>"
