"""What a `History` keeps of each attempt, thread by thread, and how it is cut into pieces.

Each thread appends to a list of its own. A *cut* is made under the commit lock, so that no commit lies on both sides of
it: what is before it has not seen anything that is after it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from time import perf_counter_ns
from typing import Any, Final

from stm.clock import Cell, acquire, acquire_politely, clock, release
from stm.testing._opacity import LONG_AGO, NEVER, Fault
from stm.transaction import Extras

#: The commit is under way, or an exception came in its midst.
UNKNOWN: Final = "unknown"

#: The outcome of what turned out to be nothing to record.
NOTHING: Final = "nothing"


class Record:
    """What is known of one attempt. `before` and `after` are the cells of `writes`, in that order, None if not known.

    `outer` is the record whose commit this one interrupted. `elements` and `puts` are what was read and written of
    arrays, `stamp` the version of the latter (`_joined.py`).
    """

    __slots__ = (
        "after",
        "aim",
        "before",
        "began",
        "elements",
        "ended",
        "name",
        "outcome",
        "outer",
        "puts",
        "reads",
        "stamp",
        "writes",
    )

    def __init__(self, began: int, name: str | None, reads: Any = None, writes: Any = None) -> None:
        self.began = began
        self.name = name
        self.reads: dict[Any, Cell] = {} if reads is None else reads
        self.writes: dict[Any, Any] | None = writes
        self.before: Sequence[Cell] | None = None
        self.after: Sequence[Cell] | None = None
        self.ended = NEVER
        self.outcome: str = UNKNOWN
        self.outer: Record | None = None
        self.aim: object = None
        self.elements: dict[Any, tuple[Any, int]] | None = None
        self.puts: dict[Any, Any] | None = None
        self.stamp: int | None = None


class Recorded(Extras):
    """The extras of an attempt that is recorded. `plain`: it would have none otherwise."""

    __slots__ = ("plain", "record")

    def __init__(self, record: Record, plain: bool, deadlines: dict[tuple[object, int], float] | None = None) -> None:
        Extras.__init__(self, deadlines)
        self.record = record
        self.plain = plain

    def is_quick(self) -> bool:
        """May `commit` do, as for an attempt without extras?"""
        return self.plain and not self.on_commit and not self.on_rollback and self.arrays is None


class Log:
    """The records of one thread. `pending` is the one whose commit is under way; `commits`, how many there were;
    `glimpse`, what a `snapshot` has seen so far: its variables, when it began, and cells.
    """

    __slots__ = ("commits", "glimpse", "pending", "records", "thread")

    def __init__(self) -> None:
        self.thread = threading.current_thread()
        self.records: list[Record] = []
        self.pending: Record | None = None
        self.commits = 0
        self.glimpse: tuple[Any, int, list[Cell]] | None = None


#: Something that is wrong by itself, and the record and the thread that it was seen in.
Strange = tuple[Fault, Record, str]


class Keeper:
    """Keeps records while `open`. `limit`: it closes when a thread has so many records.

    Closing is a cut that leaves nothing half known: who is to publish asks whether it is open before he does, and who
    has read asks after. So what is recorded never read anything that isn't.
    """

    def __init__(self, limit: int | None) -> None:
        self.limit = sys.maxsize if limit is None else limit
        self.open = False
        self.full = False
        self.logs: list[Log] = []
        self.strange: list[Strange] = []
        self.unseen = 0
        #: The present window: records of attempts that began at `since`; cells up to version `base` are older.
        self.since = LONG_AGO
        self.base = 0
        self.is_installed = False
        self._local = threading.local()

    def log(self) -> Log:
        try:
            log: Log = self._local.log
        except AttributeError:
            log = self._local.log = Log()
            self.logs.append(log)
        return log

    def keep(self, log: Log, record: Record) -> None:
        records = log.records
        records.append(record)
        if len(records) >= self.limit:
            self.open = False
            self.full = True

    def note(self, began: int, name: str | None, reads: dict[Any, Cell]) -> None:
        """Record reads that are a transaction of their own and have just taken place."""
        if self.open:
            record = Record(began, name, reads)
            record.outcome = "committed"
            record.ended = perf_counter_ns()
            self.keep(self.log(), record)

    def cut(self, forget: bool) -> list[tuple[Log, list[Record]]]:
        """What was recorded so far, of each thread. If it is to be forgotten, a new window begins here.

        Nobody publishes meanwhile. Whose commit is pending and has not published yet belongs to what follows.
        """
        try:
            if not acquire(False):
                acquire_politely()
            found = self._cut(forget)
        except BaseException:
            try:
                release()
            except RuntimeError:
                pass
            raise
        release()
        return found

    def _cut(self, forget: bool) -> list[tuple[Log, list[Record]]]:
        found = []
        for log in list(self.logs):
            records = log.records[:]
            count = len(records)
            waiting = []
            one = log.pending
            while one is not None:
                if one.after is None and one in records:  # else it is about to be added, to the new ones
                    waiting.append(one)
                one = one.outer
            if waiting:
                records = [record for record in records if record not in waiting]
            found.append((log, records))
            if forget:
                log.records[:count] = waiting
                if not log.records and not log.thread.is_alive():
                    self.logs.remove(log)
        if forget:
            self.since, self.base, self.full = perf_counter_ns(), clock.now, False
            self.open = self.is_installed
        return found

    def suspect(self, name: str, text: str, record: Record) -> None:
        self.strange.append((Fault(name, text, ()), record, threading.current_thread().name))
