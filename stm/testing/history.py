"""`History`: what transactions read and wrote, under real threads, and whether it was opaque.

Promise: while a history records, each attempt of a transaction over `TVar`s is noted, also one that is thrown away:
which version of each variable it read, which versions it wrote, when it began and ended, and what became of it. So are
`set`, `get`, `compare_and_set`, `exchange` and `snapshot` outside transactions. `check()` then decides whether there is
an order that explains everything (opacity: Guerraoui and Kapalka, 2008): committed attempts are strictly serialisable,
and the others saw a consistent state too. If there is none, it raises `NotOpaque`, and says which attempts go in a
circle and why. It trusts no version number for it: see `_cells.py`.

>>> from stm import TVar, atomically
>>> from stm.testing.history import History
>>> x, y = TVar(1, name="x"), TVar(2, name="y")
>>> @atomically
... def swap():
...     x.value, y.value = y.value, x.value
>>> with History() as history:
...     swap()
>>> history.check()
>>> print(history.attempts[0], *history.attempts[0].reads, sep="; ")
'swap' in MainThread, committed; <TVar 'y'> = 2 (version 0); <TVar 'x'> = 1 (version 0)

What was seen elsewhere, of compiled transactions or of another program, can be told by values, provided that nobody
writes the same value to the same key twice:

>>> told = History()
>>> told.record(reads={"x": 0, "y": 0}, writes={"x": "a"}, name="one")
>>> told.record(reads={"x": 0, "y": 0}, writes={"y": "b"}, name="other")
>>> told.check()
Traceback (most recent call last):
    ...
stm.testing.history.NotOpaque: not opaque: G2, each read what another was about to replace: write skew, or a lost update
  1. 'one' in MainThread, committed
      read  'x' = 0
      read  'y' = 0
      wrote 'x' = 'a'
      -rw-> 2: it read 'y' = 0, which 2 replaced
  2. 'other' in MainThread, committed
      read  'x' = 0
      read  'y' = 0
      wrote 'y' = 'b'
      -rw-> 1: it read 'x' = 0, which 1 replaced

Elements of `TArray`s in transactions over both tiers are noted as well, by the versions that they have, if
`stm.compiled` is in use when the recording begins.

Not noted: `peek`, which promises nothing; a read outside of a variable that changes to and fro meanwhile
(`statistics().unseen` counts them); an array that is accessed outside transactions, or by compiled transactions alone
(see `record_rows`); an attempt that neither read nor wrote. Values are not looked at, so a body's own mistakes are not
found. A commit is recorded with the lock in hand that it takes itself: one that forgot to lock would not be caught.

Cost: none while nothing records. While something does, a transfer between two variables takes about four times as long,
a transaction that reads two variables seven times, and each keeps about 1,100 bytes until it is forgotten. To check
takes some 15 microseconds an attempt.

Errors: `RuntimeError` if another history records, or this one; `TypeError` and `ValueError` for arguments.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from stm.testing._cells import Cells, attempt
from stm.testing._opacity import LONG_AGO, NEVER, Access, Attempt, Graph, NotOpaque, explain, explain_fault
from stm.testing._recording import Recorder
from stm.testing._records import NOTHING, Record, Strange
from stm.testing._values import Told, add_to

if TYPE_CHECKING:
    from stm.testing._elements import Batch

__all__ = ["Access", "Attempt", "History", "NotOpaque", "Statistics"]


@dataclass(frozen=True, slots=True)
class Statistics:
    """How many attempts a history holds, by what became of them; `rows` of compiled transactions among the committed.

    `forgotten` were checked by `check_and_forget`. `unseen` are reads outside transactions that were not noted, because
    their variable changed meanwhile. `full`: `limit` was reached, and nothing is recorded until `check_and_forget`.
    """

    committed: int
    aborted: int
    retried: int
    raised: int
    unknown: int
    rows: int
    forgotten: int
    unseen: int
    full: bool


class History:
    """What transactions read and wrote while `with history:` was active, and what was told it by `record`.

    Begin and end when no transaction runs. One history records at a time. `limit` bounds the memory: when one thread
    has so many attempts in it, recording stops, as at the end of the `with` block, until `check_and_forget`.
    """

    def __init__(self, *, limit: int | None = None) -> None:
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int)):
            raise TypeError(f"limit must be a number of attempts or None, not {limit!r}")
        if limit is not None and limit < 1:
            raise ValueError(f"limit must be at least 1, not {limit}")
        self._recorder = Recorder(limit)
        self._lock = threading.Lock()
        self._told: list[Told] = []
        self._written: set[tuple[Any, Any]] = set()
        self._batches: list[Batch] = []
        self._forgotten = 0

    def __enter__(self) -> Self:
        if len(self._kept()):
            raise RuntimeError("this History holds the records of an earlier block: clear() it, or make another one")
        self._recorder.install()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        self._recorder.uninstall()
        return False

    def record(
        self,
        *,
        reads: Mapping[Any, Any] | None = None,
        writes: Mapping[Any, Any] | None = None,
        name: str | None = None,
        began: int | None = None,
        ended: int | None = None,
        outcome: Literal["committed", "aborted", "unknown"] = "committed",
    ) -> None:
        """Add an attempt that was seen elsewhere: the values that it read (before it wrote to the same key) and wrote.

        Keys and values are hashable. `began` and `ended` are moments on `time.perf_counter_ns`, or on any other clock
        that all agree on; without them, the attempt may have taken place at any time. One that is `"unknown"` took
        effect if somebody has read what it wrote.

        `ValueError` if another one wrote the same value to the same key; `TypeError` for what can't be hashed.
        """
        for what, accesses in (("reads", reads), ("writes", writes)):
            if accesses is not None and not isinstance(accesses, Mapping):
                raise TypeError(f"{what} must be a mapping from keys to values, not {accesses!r}")
        if outcome not in ("committed", "aborted", "unknown"):
            raise ValueError(f"outcome is 'committed', 'aborted' or 'unknown', not {outcome!r}")
        first, last = _interval(began, ended)
        told = Told(reads or {}, writes or {}, name, threading.current_thread().name, first, last, outcome)
        hash((tuple(told.reads.items()), tuple(told.writes.items())))
        with self._lock:
            for item in told.writes.items():
                if item in self._written:
                    raise ValueError(f"another attempt has written {item[1]!r} to {item[0]!r}: values must be unique")
            self._written.update(told.writes.items())
            self._told.append(told)

    def record_rows(
        self, *, reads: Any, writes: Any, name: str | None = None, began: int | None = None, ended: int | None = None
    ) -> None:
        """Add the rows of one `.map` of a compiled transaction, each of which has committed.

        `reads` and `writes` are pairs of arrays `(elements, values)`, all with a line for each row: which elements it
        read, and what; which it wrote, and what. Elements are numbered by integers (number those of different arrays
        differently); values are integers or floats, and no two rows write the same one to the same element. What a row
        read after it had written there itself doesn't count. `began` and `ended` are as in `record`.

        `TypeError` and `ValueError` for arrays of other types and shapes. That values are not unique is a `ValueError`
        of `check`.
        """
        from stm.testing._elements import Batch

        batch = Batch(reads, writes, name, *_interval(began, ended))
        with self._lock:
            self._batches.append(batch)

    def check(self) -> None:
        """Raise `NotOpaque` if what the history holds can't be explained by attempts that ran one after the other."""
        recorder = self._recorder
        found = recorder.cut(forget=False)
        self._check(found, recorder.since, recorder.base, recorder.strange[:], self._everything())

    def check_and_forget(self) -> None:
        """`check()`, and drop what was checked, so that a long run can be checked piece by piece in little memory.

        May be called at any time, by any thread outside transactions, while others go on. Attempts that read only, and
        run across the cut, are in neither piece. After `limit` was reached, call it when no transaction runs. What was
        told by `record` and `record_rows` is best forgotten when nothing is under way, too.
        """
        since, base = self._recorder.since, self._recorder.base
        found = self._recorder.cut(forget=True)
        told = self._everything(forget=True)
        self._forgotten += sum(len(records) for _, records in found) + len(told[0])
        self._forgotten += sum(batch.rows for batch in told[1])
        strange = self._recorder.strange[:]
        del self._recorder.strange[: len(strange)]
        self._check(found, since, base, strange, told)

    def clear(self) -> None:
        """Drop everything, unchecked."""
        self._recorder.cut(forget=True)
        self._recorder.strange.clear()
        self._everything(forget=True)

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """What the history holds, but for rows of compiled transactions, in the order in which attempts began."""
        cells = self._cells(self._recorder.cut(forget=False), LONG_AGO, self._recorder.base)
        found = [cells.attempt(node) for node in range(len(cells))]
        found += [told.attempt() for told in self._everything()[0]]
        return tuple(sorted(found, key=lambda attempt: LONG_AGO if attempt.began is None else attempt.began))

    def statistics(self) -> Statistics:
        """Counts of what the history holds and has forgotten."""
        counts = dict.fromkeys(("committed", "aborted", "retried", "raised", "unknown"), 0)
        for record in self._kept():
            counts["committed" if record.after is not None else record.outcome] += 1
        told, batches = self._everything()
        for one in told:
            counts[one.outcome] += 1
        rows = sum(batch.rows for batch in batches)
        counts["committed"] += rows
        return Statistics(
            **counts,
            rows=rows,
            forgotten=self._forgotten,
            unseen=self._recorder.unseen,
            full=self._recorder.full,
        )

    def __len__(self) -> int:
        told, batches = self._everything()
        return len(self._kept()) + len(told) + sum(batch.rows for batch in batches)

    def __repr__(self) -> str:
        state = "recording" if self._recorder.open else "full" if self._recorder.full else "not recording"
        return f"<History of {len(self)} attempts, {state}>"

    def _kept(self) -> list[Record]:
        return [
            record
            for log in list(self._recorder.logs)
            for record in log.records[:]
            if record.outcome != NOTHING or record.after is not None
        ]

    def _everything(self, forget: bool = False) -> tuple[list[Told], list[Batch]]:
        with self._lock:
            told, batches = self._told, self._batches
            if forget:
                self._told, self._batches, self._written = [], [], set()
            return told[:], batches[:]

    @staticmethod
    def _cells(found: Any, since: int, base: int) -> Cells:
        records = [record for _, records in found for record in records]
        names = [log.thread.name for log, records in found for _ in records]
        return Cells(records, names, since, base)

    def _check(
        self, found: Any, since: int, base: int, strange: list[Strange], others: tuple[list[Told], list[Batch]]
    ) -> None:
        told, batches = others
        cells = self._cells(found, since, base)
        size = len(cells)
        graph = Graph(size + len(told))
        cells.add_to(graph)
        add_to(graph, told, size)
        graph.add_real_time(cells.moments() + [(node, one.began, one.ended) for node, one in enumerate(told, size)])

        def attempts(nodes: tuple[int, ...]) -> list[Attempt]:
            return [cells.attempt(node) if node < size else told[node - size].attempt() for node in nodes]

        cycle = graph.cycle()
        if cycle is not None:
            raise explain(cycle, attempts(cycle.nodes), graph.faults)
        for fault in graph.faults:
            raise explain_fault(fault, attempts(fault.nodes))
        for fault, record, thread in strange:
            raise explain_fault(fault, [attempt(record, thread)])
        if batches:
            from stm.testing._elements import check

            check(batches)


def _interval(began: int | None, ended: int | None) -> tuple[int, int]:
    for what, moment in (("began", began), ("ended", ended)):
        if moment is not None and (isinstance(moment, bool) or not isinstance(moment, int)):
            raise TypeError(f"{what} must be an integer or None, not {moment!r}")
    if began is not None and ended is not None and ended < began:
        raise ValueError(f"ended, {ended}, comes before began, {began}")
    return LONG_AGO if began is None else began, NEVER if ended is None else ended
