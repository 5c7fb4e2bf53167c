"""The named points of the protocol: where faults are injected, and by which schedules and mutants are told.

A point has a name, `commit.publish`, and *sites*: lines of `stm`'s own source, one in each function that takes that
step. A line is found by what it says, never by its number, when the point is first asked for. So the core knows
nothing of points and pays nothing for them; and a change of the core after which a site is not exactly one line is a
`LookupError` (a test asks for all of them).

A strike is an exception or a call that comes from outside. CPython can deliver one where a function begins, where a
call has returned, and at a jump back; the core relies on that (see `stm/transaction.py`). The sites are lines before
which that is so, or where it makes no difference. Points that are *indivisible* are the others: nothing can strike
there, and so nothing but a delay, or the end of the process, can be injected there.

Machine code has no points, nor has what the interpreter does in one C call, such as the publication of many variables
or of arrays.

>>> from stm.testing.protocol import find, points
>>> points()["commit.validated"]
'the lock is held, and all that was read still stands'
>>> find("hook.run")
Traceback (most recent call last):
    ...
ValueError: there is no point 'hook.run'; do you mean 'hooks.run'?
"""

from __future__ import annotations

import importlib
import linecache
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

#: Stands for the function that `stm/quick.py` makes of its source, one for each list of parameters.
GENERATED: Final = "transaction"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a site is: a line of a file, and the code objects known to have it."""

    filename: str
    line: int
    codes: tuple[CodeType, ...]


@dataclass(frozen=True, slots=True)
class Site:
    """A line of a function: the one that begins with `line`; or, given `after`, the first such line behind the one that
    begins with `after`.
    """

    module: str
    function: str
    line: str
    after: str = ""

    @property
    def generated(self) -> bool:
        """Is it in the source from which functions are made as they are needed?"""
        return self.module == "stm.quick" and self.function == GENERATED

    def locate(self) -> Place:
        """Find it in the source. `LookupError` if that has not exactly one such line."""
        module = importlib.import_module(self.module)
        codes = generated_codes() if self.generated else (self._code(module),)
        filename = codes[0].co_filename
        text = linecache.getlines(filename, vars(module))
        if not text:
            raise LookupError(f"points are found in the source of {self.module}, and {filename} can't be read")
        numbers = {number for _, _, number in codes[0].co_lines() if number}
        lines = {number: text[number - 1].strip() for number in range(min(numbers), max(numbers) + 1)}
        number = 0
        if self.after:
            number = self._first(lines, self.after, unique=True)
        lines = {other: line for other, line in lines.items() if other > number}
        number = self._first(lines, self.line, unique=not self.after)
        if number not in numbers:
            raise LookupError(f"line {number} of {filename}, {self.line!r}, is not one that CPython tells of")
        return Place(filename, number, codes)

    def _code(self, module: ModuleType) -> CodeType:
        function: Any = module
        for name in self.function.split("."):
            function = vars(function).get(name)
        if not isinstance(function, FunctionType):
            raise LookupError(f"{self.module} has no function {self.function}; stm/testing/protocol.py has to follow")
        return function.__code__

    def _first(self, lines: Mapping[int, str], beginning: str, unique: bool) -> int:
        found = [number for number, line in lines.items() if line.startswith(beginning)]
        if not found or (unique and len(found) > 1):
            raise LookupError(
                f"{len(found)} lines of {self.module}.{self.function} begin with {beginning!r} where one should; the "
                "code has changed, and stm/testing/protocol.py has to follow"
            )
        return found[0]


@dataclass(frozen=True)
class Point:
    """A step of the protocol. `indivisible`: CPython can deliver no exception and run no handler there."""

    name: str
    meaning: str
    sites: tuple[Site, ...]
    indivisible: bool = False

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """The sites, found. (Of a generated function, `codes` are those that there were when this was first asked.)"""
        return tuple(site.locate() for site in self.sites)

    @property
    def pairs(self) -> list[tuple[Site, Place]]:
        """Each site with its place."""
        return list(zip(self.sites, self.places, strict=True))


def generated_codes() -> tuple[CodeType, ...]:
    """The code of each function that `stm/quick.py` has made so far: all transactions without options run one."""
    from stm import quick

    return tuple(made_by(make) for make in (quick._general, *list(quick._made.values())))


def made_by(make: Any) -> CodeType:
    """The code of the functions that one of the makers of `stm/quick.py` makes."""
    (code,) = (one for one in make.__code__.co_consts if isinstance(one, CodeType))
    return code


def _transaction(function: str, line: str, after: str = "") -> Site:
    return Site("stm.transaction", function, line, after)


def _execution(function: str, line: str, after: str = "") -> Site:
    return Site("stm.execution", function, line, after)


def _tvar(function: str, line: str, after: str = "") -> Site:
    return Site("stm.tvar", f"TVar.{function}", line, after)


def _waiting(function: str, line: str, after: str = "") -> Site:
    return Site("stm.waiting", function, line, after)


def _aio(line: str, after: str = "") -> Site:
    return Site("stm.aio", "_wait", line, after)


#: The two branches of `commit`, for one variable and for two.
_ONE, _TWO = "(first,) = writes", "first, second = writes"

_TABLE = (
    Point(
        "begin",
        "an attempt is about to sample its moment",
        (Site("stm.quick", GENERATED, "tx.reads = reads"), _execution("Execution.attempt", "tx.reads = reads")),
    ),
    Point(
        "read",
        "a read inside a transaction is about to load the variable's cell",
        (_tvar("get", "cell = self._cell", "return writes[self]"),),
    ),
    Point(
        "read.check",
        "a read inside a transaction has loaded the cell, and is about to compare its version",
        (_tvar("get", "if cell[1] > tx.rv:"),),
        indivisible=True,
    ),
    Point(
        "write",
        "a write inside a transaction is about to be noted",
        (_tvar("set", "if tx.scope is not None:"), _transaction("exchange_within", "writes = tx.writes")),
    ),
    Point(
        "extend",
        "a read met a variable newer than its attempt, which looks whether it may move to a later moment",
        (_transaction("Transaction.extend", "rv = self.rv"),),
    ),
    Point(
        "extend.validate",
        "the later moment is chosen, and all that was read is about to be validated",
        (_transaction("Transaction.extend", "if not unchanged("),),
    ),
    Point(
        "extend.move",
        "all that was read stands, and the attempt is about to move, provided that nobody did it meanwhile",
        (_transaction("Transaction.extend", "if self.rv == rv"),),
    ),
    Point("scope.enter", "a nested scope begins", (_execution("in_scope", "scope = tx.new_scope("),)),
    Point("scope.leave", "a nested scope has ended well", (_execution("in_scope", "tx.leave_scope("),)),
    Point("scope.undo", "a nested scope is about to be undone", (_execution("in_scope", "tx.undo_scope("),)),
    Point(
        "commit",
        "a commit is about to take the lock",
        (_transaction("commit", "answer: bool"), _transaction("commit_any", "freed: list")),
    ),
    Point(
        "commit.locked",
        "the lock is held, and nothing is validated yet",
        (
            _transaction("commit", "now = clock.now", _ONE),
            _transaction("commit", "now = clock.now", _TWO),
            _transaction("commit_any", "answer = publish("),
        ),
    ),
    Point(
        "commit.validated",
        "the lock is held, and all that was read still stands",
        (
            _transaction("commit", "if first._waiters", _ONE),
            _transaction("commit", "if first._waiters", _TWO),
            _transaction("publish", "rv, version = now"),
        ),
    ),
    Point(
        "commit.publish",
        "before the last look at the clock, which is one step with the publication",
        (
            _transaction("commit", "if clock.now == now", _ONE),
            _transaction("commit", "if clock.now == now", _TWO),
            _transaction("publish", "if clock.now == now"),
        ),
    ),
    Point(
        "commit.published",
        "all is visible, and the lock still held",
        (
            _transaction("commit", "answer = True", _ONE),
            _transaction("commit", "answer = True", _TWO),
            _transaction("publish", "if extras is not None and not extras.committed"),
        ),
    ),
    Point(
        "commit.released",
        "the lock has been let go",
        (_transaction("commit", "if answer is None:"), _transaction("commit_any", "if answer is not None:")),
    ),
    Point(
        "store",
        "set or compare_and_set outside a transaction is about to take the lock",
        (_transaction("store", "done = False"), _tvar("compare_and_set", "answer = None")),
    ),
    Point(
        "store.locked",
        "the same with the lock held",
        (_transaction("store", "now = clock.now"), _tvar("compare_and_set", "old = self._cell")),
    ),
    Point(
        "store.publish",
        "the same before the last look at the clock, which is one step with the publication",
        (_transaction("store", "if clock.now == now"), _tvar("compare_and_set", "if clock.now == now")),
    ),
    Point(
        "store.published",
        "the same when the value is visible, and the lock still held",
        (_transaction("store", "done = True"), _tvar("compare_and_set", "answer = True")),
    ),
    Point(
        "store.released",
        "the same when the lock has been let go",
        (_transaction("store", "if not done:"), _tvar("compare_and_set", "if answer is None:")),
    ),
    Point(
        "wait",
        "a transaction that retries is about to wait",
        (_waiting("sleep", "if reads and _glance("), _aio("refuse_endless(")),
    ),
    Point(
        "wait.register",
        "its waiter is about to take the lock and to be listed",
        (_waiting("sleep", "if not waiter.register("), _aio("if not waiter.register(")),
    ),
    Point(
        "wait.registered",
        "its waiter is listed, the lock held, and what was read not yet validated",
        (_waiting("Waiter.register", "waits = unchanged("),),
    ),
    Point(
        "wait.asleep",
        "it is about to block",
        (_waiting("sleep", "left = seconds_until(", "if not waiter.register("), _aio("if deadline is not None:")),
    ),
    Point(
        "wait.woken",
        "the wait is over: something changed, or the time is up",
        (
            _execution("Execution.recover", "return", "if sleep("),
            _execution("Execution.recover", "self.check_deadline("),
            _aio("return not unchanged("),
        ),
    ),
    Point(
        "wake",
        "a committer that holds the lock is about to wake who waits",
        (_waiting("rouse", "found = list("), _waiting("waking", "marks = [")),
    ),
    Point(
        "snapshot.begin",
        "a read-only attempt is about to choose its moment",
        (_execution("Execution.attempt", "begin(token)"),),
    ),
    Point(
        "snapshot.end",
        "a read-only attempt is over, and what was kept for it about to be freed",
        (_execution("Execution.attempt", "end(token)"),),
    ),
    Point(
        "exclusive.enter",
        "an attempt that must not be disturbed is about to keep all others from committing",
        (_execution("Execution.attempt", "if not enter_exclusive("),),
    ),
    Point(
        "exclusive.entered",
        "it has the exclusive lock, and committers do not know yet",
        (_execution("Execution.attempt", "become_exclusive("),),
    ),
    Point(
        "exclusive.leave",
        "it is over, and about to let others commit",
        (_execution("Execution.attempt", "if outermost and clock.owner == me:"),),
        indivisible=True,
    ),
    Point(
        "hooks.run",
        "the hooks that the end of an attempt calls for are about to run",
        (Site("stm.hooks", "run_all", "errors: list"),),
    ),
    Point(
        "backoff",
        "an attempt met a conflict, and the next is about to be made",
        (Site("stm.contention", "pause", "if aborts > PATIENT_AFTER"),),
    ),
    Point(
        "arrays.join",
        "a transaction is about to use its first array (not a compiled one)",
        (Site("stm.compiled.joining", "join", "part = ArrayPart("),),
    ),
    Point(
        "arrays.extend",
        "it met an element newer than its attempt, and all that was read is about to be validated",
        (Site("stm.compiled.joining", "extend", "if not unchanged("),),
    ),
)

POINTS: Final[Mapping[str, Point]] = {point.name: point for point in _TABLE}


def points() -> dict[str, str]:
    """The names of all points, in the order in which a transaction comes to them, each with what it means."""
    return {point.name: point.meaning for point in _TABLE}


def find_all() -> None:
    """Find all points in the source now: before functions of `stm` are replaced by others."""
    for point in _TABLE:
        _ = point.places


def find(name: str) -> Point:
    """The point of that name. `ValueError`, with names like it, if there is none."""
    if not isinstance(name, str):
        raise TypeError(f"a point is named by a string, not {name!r}; stm.testing.points() lists them")
    point = POINTS.get(name)
    if point is None:
        from difflib import get_close_matches

        near = " or ".join(map(repr, get_close_matches(name, POINTS, cutoff=0.5)))
        hint = f"do you mean {near}?" if near else "stm.testing.points() lists them"
        raise ValueError(f"there is no point {name!r}; {hint}")
    return point
