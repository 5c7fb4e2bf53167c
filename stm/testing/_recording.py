"""How a `History` gets to know what attempts of the object tier read and wrote.

Nothing in `stm` asks whether somebody records. While a recorder is installed, module globals that an attempt looks up
at its beginning and at its end are others, which call the real ones and note what went in and out:

- `stm.quick.clock`: its `book`, which each call asks for first, gives the attempt a `Recorded` in the place of the
  extras that a plain attempt has none of. So each attempt carries its own record, whatever interrupts it.
- `stm.execution.Extras`, `Execution.recover`: the same for all other attempts.
- `TVar.get` and `TVar.value`: what was read, and by which cell. Inside a transaction this is kept apart from the read
  set, which might have lost it; outside, it is a transaction of its own.
- `conclude`, `ends_call`, `commit` (in `stm.quick` and `stm.execution`): how an attempt ended.
- `stm.transaction.publish`, `stm.tvar.store`, `stm.tvar.exchange_any`, `TVar.compare_and_set`: what was published.
- `stm.tvar._cell_of`: what `snapshot` sees outside transactions.

Cells are unique objects. So a cell that was read names the commit that wrote it, and the cell that a commit replaced
names the commit before it: the order of a variable's versions needs no trust in their numbers.

What is real and what is not. A plain attempt with writes commits by the real `commit`, but with the commit lock in hand
already, an `RLock`: the cells before and after can be had only so. A commit that forgets to lock is thus not caught by
recording; one that publishes in two steps is, since readers take no lock. A record is on its list before its attempt
publishes, so an exception from outside loses none: what is then unknown is told by who read the value.

Python code runs here where otherwise none does, but not between the lines of which `stm` says that nothing may run
there: the property `now` of the clock's stand-in is implemented in C.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from operator import attrgetter
from time import perf_counter_ns
from typing import Any

from stm import transaction
from stm.clock import Cell, acquire, acquire_politely, clock, release
from stm.execution import Ended, Execution
from stm.testing import _joined
from stm.testing._opacity import LONG_AGO, label
from stm.testing._records import NOTHING, Keeper, Log, Record, Recorded
from stm.testing.protocol import find_all
from stm.transaction import Extras, Retry, here
from stm.tvar import TVar

_cell_of = attrgetter("_cell")

#: The modules whose globals are replaced; what they have from each other, they do not export.
_quick: Any = importlib.import_module("stm.quick")
_execution: Any = importlib.import_module("stm.execution")
_tvar: Any = importlib.import_module("stm.tvar")


class _StandIn:
    """Stands for the clock in `stm.quick`."""

    __slots__ = ("_real", "_recorder")

    def __init__(self, recorder: Recorder) -> None:
        self._real = clock
        self._recorder = recorder

    now = property(attrgetter("_real.now"))

    @property
    def book(self) -> Any:
        if self._recorder.open:
            caller = sys._getframe(1).f_locals
            here.tx.extras = Recorded(Record(perf_counter_ns(), caller["options"].name), True)
        return self._real.book


class Recorder(Keeper):
    """Records while installed, one at a time."""

    installed: Recorder | None = None

    def __init__(self, limit: int | None) -> None:
        super().__init__(limit)
        self._undo: list[tuple[Any, str, Any]] = []

    def install(self) -> None:
        if Recorder.installed is not None:
            raise RuntimeError("another History is recording: one at a time")
        find_all()  # that faults can be injected meanwhile
        Recorder.installed = self
        self.is_installed = True
        self._quick_commit = _quick.commit
        get, value, compare_and_set = self._accesses()
        replacements: list[tuple[Any, str, Any]] = [
            (_quick, "clock", _StandIn(self)),
            (_quick, "commit", self._commit(_quick.commit)),
            (_quick, "conclude", self._conclude(_quick.conclude)),
            (_quick, "ends_call", self._ends_call(_quick.ends_call)),
            (_execution, "Extras", self._extras),
            (_execution, "conclude", self._conclude(_execution.conclude)),
            (_execution, "ends_call", self._ends_call(_execution.ends_call)),
            (Execution, "recover", self._recover(Execution.recover)),
            (transaction, "publish", self._publish(transaction.publish)),
            (_tvar, "store", self._store(_tvar.store)),
            (_tvar, "exchange_any", self._exchange(_tvar.exchange_any)),
            (_tvar, "_cell_of", self._glimpse),
            *_joined.replacements(self),
            (TVar, "compare_and_set", compare_and_set),
            (TVar, "get", get),
            (TVar, "value", value),
        ]
        try:
            self.base = clock.now
            self.open = True
            for owner, name, new in replacements:
                self._undo.append((owner, name, vars(owner)[name]))
                setattr(owner, name, new)
        except BaseException:
            self.uninstall()
            raise

    def uninstall(self) -> None:
        self.open = False
        while self._undo:
            setattr(*self._undo[-1])
            self._undo.pop()
        Recorder.installed = None
        self.is_installed = False

    # What stands in the place of stm's own functions

    def _extras(self, deadlines: dict[tuple[object, int], float] | None = None) -> Extras:
        if not self.open:
            return Extras(deadlines)
        options = sys._getframe(1).f_locals["self"].options
        return Recorded(Record(perf_counter_ns(), options.name), False, deadlines)

    def _recover(self, real: Callable[[Execution, Ended], None]) -> Callable[[Execution, Ended], None]:
        def recover(execution: Execution, ended: Ended) -> None:
            real(execution, ended)
            if self.open:
                here.tx.extras = Recorded(Record(perf_counter_ns(), execution.options.name), True)

        return recover

    def _record_of(self, ended: Ended) -> Record:
        extras = ended.extras
        record = extras.record if isinstance(extras, Recorded) else Record(LONG_AGO, None)
        reads = record.reads
        if len(reads) < len(ended.reads):  # some were read in a way that goes past `TVar.get`
            for variable, cell in ended.reads.items():
                if cell.__class__ is tuple:  # else it is the part that reads arrays, and not to be kept
                    reads.setdefault(variable, cell)
        return record

    def _ends_call(self, real: Callable[..., bool]) -> Callable[..., bool]:
        def ends_call(error: BaseException, ended: Ended, consistent: bool) -> bool:
            answer = True
            try:
                answer = real(error, ended, consistent)
            finally:
                if self.open:
                    record = self._record_of(ended)
                    record.ended = perf_counter_ns()
                    record.outcome = "raised" if answer else "retried" if ended.fate is Retry else "aborted"
                    if record.reads or record.elements:
                        self.keep(self.log(), record)
            return answer

        return ends_call

    def _conclude(self, real: Callable[..., bool]) -> Callable[..., bool]:
        quick_commit = self._quick_commit

        def conclude(ended: Ended, writes: dict[Any, Any], deadline: float | None = None) -> bool:
            if not self.open:
                return real(ended, writes, deadline)
            record = self._record_of(ended)
            log = self.log()
            part = None if ended.extras is None else ended.extras.arrays
            if part is not None and ended.rv >= 0:
                return self._joined(log, record, part, real, ended, writes, deadline)
            if not writes or ended.fate is not None or ended.rv < 0:
                answer = real(ended, writes, deadline)
                record.ended = perf_counter_ns()
                record.outcome = "committed" if answer else "retried" if ended.fate is Retry else "aborted"
                if record.reads:
                    self.keep(log, record)
                return answer
            record.writes = writes
            extras = ended.extras
            if isinstance(extras, Recorded) and extras.is_quick():
                locked = len(writes) <= 2  # (whether it takes the quick way after all, `commit` alone can tell)
                return self._publishing(log, record, locked, quick_commit, ended.reads, writes, ended.rv)
            return self._publishing(log, record, False, real, ended, writes, deadline)

        return conclude

    def _joined(self, log: Log, record: Record, part: Any, real: Callable[..., bool], *args: Any) -> bool:
        """Call `conclude` for an attempt that has used arrays. What it has written of variables, `publish` notes."""
        _joined.note_body(record, part)
        record.writes = args[1] or None
        answer = self._publishing(log, record, False, real, *args)
        if answer:
            _joined.note_commit(record, part)
        return answer

    def _commit(self, real: Callable[..., bool]) -> Callable[..., bool]:
        def commit(reads: dict[Any, Cell], writes: dict[Any, Any], rv: int) -> bool:
            # An attempt that has lost its extras to what a signal handler ran before it began.
            if not self.open:
                return real(reads, writes, rv)
            record = Record(LONG_AGO, None, reads, writes)
            locked = len(writes) <= 2
            return self._publishing(self.log(), record, locked, real, reads, writes, rv)

        return commit

    def _publishing(self, log: Log, record: Record, locked: bool, real: Callable[..., Any], *args: Any) -> bool:
        """Call something that publishes `record.writes`. `locked`: hold the lock; else `publish` notes the cells.

        The record is pending before it is on the list, and on the list before anything is published.
        """
        record.outer = log.pending
        log.pending = record
        try:
            self.keep(log, record)
            answer: bool = self._locked(log, record, real, args) if locked else real(*args)
            record.outcome = "committed" if answer else "aborted"
            record.ended = perf_counter_ns()
            return answer
        finally:
            log.pending = record.outer

    def _locked(self, log: Log, record: Record, real: Callable[..., Any], args: tuple[Any, ...]) -> bool:
        writes = record.writes
        assert writes is not None
        try:
            if not acquire(False):
                acquire_politely()
            commits = log.commits
            before = list(map(_cell_of, writes))
            answer: bool = real(*args)
            if answer and record.after is None:  # else `publish` has noted it
                record.after = list(map(_cell_of, writes))
                record.before = before if log.commits == commits else None
                log.commits += 1
        except BaseException:
            try:
                release()
            except RuntimeError:
                pass
            raise
        release()
        return answer

    def _publish(self, real: Callable[..., bool | None]) -> Callable[..., bool | None]:
        def publish(
            reads: dict[Any, Cell], writes: dict[Any, Any], rv: int, extras: Extras | None, freed: list[Any]
        ) -> bool | None:
            if not writes:
                return real(reads, writes, rv, extras, freed)
            log = self.log()
            record = log.pending
            if record is None or (record.writes is not None and record.writes.keys() != writes.keys()):
                if not self.open:
                    return real(reads, writes, rv, extras, freed)
                record = Record(LONG_AGO, None)  # somebody commits whom nobody has announced
                record.outcome = NOTHING
                self.keep(log, record)
            commits = log.commits
            before = list(map(_cell_of, writes))
            said = record.reads, record.writes
            if extras is None and not record.reads:
                record.reads = reads
            record.writes = writes  # first, for an exception may come when all is published
            answer = real(reads, writes, rv, extras, freed)
            if not answer:
                record.reads, record.writes = said  # whoever publishes tries again, from other reads perhaps
            else:
                record.after = list(map(_cell_of, writes))
                record.before = before if log.commits == commits else None
                record.outcome = "committed"
                log.commits += 1
            return answer

        return publish

    def _store(self, real: Callable[[Any, object], None]) -> Callable[[Any, object], None]:
        def call(variable: Any, value: object) -> bool:
            real(variable, value)
            return True

        def store(variable: Any, value: object) -> None:
            if not self.open:
                real(variable, value)
                return
            record = Record(perf_counter_ns(), "set()", {}, {variable: value})
            self._publishing(self.log(), record, True, call, variable, value)

        return store

    def _exchange(self, real: Callable[[Any], bool]) -> Callable[[Any], bool]:
        def exchange_any(changes: Any) -> bool:
            log = self.log()
            outer = log.pending
            if not self.open or (outer is not None and outer.aim is changes[0][0]):
                return real(changes)  # (the latter: `compare_and_set` goes on here)
            record = Record(perf_counter_ns(), "exchange()")
            if not self._publishing(log, record, False, real, changes):
                record.outcome = NOTHING
            return record.outcome != NOTHING

        return exchange_any

    def _accesses(self) -> tuple[Callable[[Any], Any], property, Callable[[Any, Any, Any], bool]]:
        """What `TVar.get`, `TVar.value` and `TVar.compare_and_set` are meanwhile."""
        real_get = TVar.get
        real_set = TVar.set
        real_compare_and_set = TVar.compare_and_set

        def get(variable: Any) -> Any:
            try:
                tx = here.tx
            except AttributeError:
                tx = transaction.descriptor()
            if tx.writes is None:
                return self._outside(real_get, variable)
            reads = tx.reads
            extras = tx.extras
            value = real_get(variable)
            cell = reads.get(variable)
            if cell is not None and isinstance(extras, Recorded):
                record = extras.record
                first = record.reads.setdefault(variable, cell)
                if first is not cell:
                    text = f"it read {label(variable)} as {first[0]!r}, and then as {value!r}"
                    self.suspect("unrepeatable read", text, record)
                elif cell[0] is not value and variable not in tx.writes:
                    text = f"it read {label(variable)} as {value!r}, and holds on to {cell[0]!r}"
                    self.suspect("foreign value", text, record)
            return value

        def compare_and_set(variable: Any, before: Any, after: Any) -> bool:
            if transaction.descriptor().writes is not None or not self.open:
                return real_compare_and_set(variable, before, after)
            record = Record(perf_counter_ns(), "compare_and_set()", writes={variable: after})
            record.aim = variable
            seen: list[Cell] = []

            def call() -> bool:
                seen.append(variable._cell)
                return real_compare_and_set(variable, before, after)

            if self._publishing(self.log(), record, True, call):
                if not record.reads and record.before is not None:
                    record.reads = {variable: record.before[0]}
                return True
            record.outcome = NOTHING
            if seen[0][0] is not before:  # it looked at one cell, which was there while the lock was held, and went
                self.note(record.began, record.name, {variable: seen[0]})
            return False

        return get, property(get, real_set, doc=TVar.value.__doc__), compare_and_set

    def _outside(self, real_get: Callable[[Any], Any], variable: Any) -> Any:
        began = perf_counter_ns()
        first = variable._cell
        value = real_get(variable)
        last = variable._cell
        if first is last or last[0] is not value:
            cell = first
        elif first[0] is not value:
            cell = last
        else:
            cell = None
        if cell is None or cell[0] is not value:  # it changed meanwhile, and it can't be said which one this was
            self.unseen += 1
            if first is last and self.open:
                text = f"a read of {label(variable)} returned {value!r}, when it held {first[0]!r}"
                self.suspect("foreign value", text, Record(began, "get()", {variable: first}))
        else:
            self.note(began, "get()", {variable: cell})
        return value

    def _glimpse(self, variable: Any) -> Cell:
        """What `snapshot` outside a transaction looks at each variable by, one after the other.

        If none is newer than its beginning, that is the result; else it runs a transaction. The cells that it has found
        were in their places when it looked at the first of them.
        """
        now = perf_counter_ns()
        cell: Cell = _cell_of(variable)
        if self.open:
            caller = sys._getframe(1).f_locals
            log, variables = self.log(), caller["tvars"]
            if log.glimpse is None or log.glimpse[0] is not variables:
                log.glimpse = (variables, now, [])
            _, began, cells = log.glimpse
            cells.append(cell)
            if len(cells) == len(variables):
                log.glimpse = None
                if all(cell[1] <= caller["version"] for cell in cells):
                    self.note(began, "snapshot()", dict(zip(variables, cells, strict=True)))
        return cell
