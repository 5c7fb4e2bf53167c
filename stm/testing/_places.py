"""Where threads may be switched: the places, and the trace functions that stop at them.

There are three grains. `steps`: each line of the program's own code, and the steps of the protocol, each whole: a read,
a commit, a store, a registration. `lines`: each line of the core too. `opcodes`: each instruction of both.

Places that touch nothing shared are left out: see `_code.py`.
"""

from __future__ import annotations

import dis
import re
import sys
from collections.abc import Callable
from functools import cached_property
from operator import length_hint
from types import CodeType, FrameType
from typing import Any, Final

from stm import execution, hooks, transaction, tvar, waiting
from stm.clock import clock, enter_exclusive
from stm.snapshot import begin, end
from stm.testing._code import core_file, is_shared_in_program, is_users, is_users_file, opens_with, shared_in_core
from stm.testing._run import Run, line_of
from stm.testing._threads import Worker
from stm.transaction import here
from stm.tvar import TVar

GRAINS: Final = ("steps", "lines", "opcodes")

Local = Callable[[FrameType, str, Any], Any]

#: Steps of the protocol, in the grain of steps: the function at whose call it is taken, its name, and whether another
#: thread may make a difference by coming first.
ALWAYS, NEVER, OUTSIDE, FIRST, MAYBE = "always", "never", "outside a transaction", "in no other step", "if it is one"
STEPS: Final[dict[CodeType, tuple[str, str]]] = {
    TVar.get.__code__: ("read", ALWAYS),
    TVar.set.__code__: ("write", OUTSIDE),
    TVar.compare_and_set.__code__: ("write", OUTSIDE),
    TVar.peek.__code__: ("peek", ALWAYS),
    tvar.Timer.get.__code__: ("read", ALWAYS),
    tvar.snapshot.__code__: ("snapshot", ALWAYS),
    transaction.Transaction.extend.__code__: ("extend", NEVER),
    transaction.commit.__code__: ("commit", ALWAYS),
    transaction.commit_any.__code__: ("commit", FIRST),
    waiting.sleep.__code__: ("wait", NEVER),
    waiting.Waiter.register.__code__: ("wait.register", ALWAYS),
    waiting.rouse.__code__: ("wake", NEVER),
    waiting.wake_all.__code__: ("wake", ALWAYS),
    begin.__code__: ("snapshot.begin", ALWAYS),
    end.__code__: ("snapshot.end", NEVER),
    execution.Execution.attempt.__code__: ("begin", MAYBE),
    enter_exclusive.__code__: ("exclusive.enter", ALWAYS),
    execution.become_exclusive.__code__: ("exclusive.entered", ALWAYS),
    execution.in_scope.__code__: ("scope.enter", NEVER),
    transaction.Transaction.undo_scope.__code__: ("scope.undo", NEVER),
    hooks.run_all.__code__: ("hooks.run", MAYBE),
}
_INSIDE_OTHERS: Final = (transaction.commit.__code__, transaction.store.__code__)

_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")
#: Characters of a value that a report shows.
BRIEF: Final = 48


def _names() -> dict[tuple[str, int], str]:
    """The named points of the protocol, by their lines; but for those whose function is replaced at present."""
    from stm.testing.protocol import POINTS

    names = {}
    for point in POINTS.values():
        for site in point.sites:
            try:
                place = site.locate()
            except (LookupError, AttributeError):
                continue
            names[place.filename, place.line] = point.name
    return names


def _is_worth_telling(frame: FrameType) -> bool:
    """Does a call that may begin an attempt, or run hooks, do so?"""
    if frame.f_code is hooks.run_all.__code__:
        return bool(length_hint(frame.f_locals["hooks"]))
    tx = getattr(here, "tx", None)
    return tx is None or tx.writes is None  # else it enters a scope


class Places:
    """The places of one exploration, numbered as they are met, and the trace function that stops at them."""

    def __init__(self, grain: str) -> None:
        self.grain = grain
        #: How often code was met for the first time. (CPython 3.12 and later tell of the instructions of a function
        #: only from its next call on.)
        self.met = 0
        self.run: Run
        self._numbers: dict[tuple[Any, ...], int] = {("start",): 0}
        self._keys: list[tuple[Any, ...]] = [("start",)]
        self._entries: dict[CodeType, tuple[Local | None, tuple[int, str] | None]] = {}
        self._openers: set[tuple[CodeType, int]] = set()
        self._shown: dict[Any, str] = {}

    def number(self, *key: Any) -> int:
        """The place of that key."""
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._keys)
            self._keys.append(key)
        return number

    def key(self, number: int) -> tuple[Any, ...]:
        return self._keys[number]

    def trace(self, frame: FrameType, event: str, arg: object) -> Local | None:
        """To be given to `sys.settrace` in each thread that is explored."""
        try:
            local, step = self._entries[frame.f_code]
        except KeyError:
            local, step = self._entries[frame.f_code] = self._classify(frame.f_code)
            self.met += 1
        if step is not None:
            self._step(frame, step)
        if local is not None and self.grain == "opcodes":
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
        return local

    def arm(self) -> None:
        """Switch tracing on in the calling thread, unless it is."""
        if sys.gettrace() is None:
            sys.settrace(self.trace)

    def _step(self, frame: FrameType, step: tuple[int, str]) -> None:
        place, when = step
        branch = when == ALWAYS
        caller = frame.f_back
        if when == OUTSIDE:
            branch = getattr(here, "tx", None) is None or here.tx.writes is None
            if branch:
                place = self.number("step", "store")
        elif when == FIRST:
            branch = caller is not None and caller.f_code not in _INSIDE_OTHERS
        elif when == MAYBE and not _is_worth_telling(frame):
            return
        self.run.point(place, frame, branch and not (caller is not None and self._opens(caller)))

    def _opens(self, caller: FrameType) -> bool:
        """Is this call the first thing that the caller's line does, so that it was switched before it already?"""
        if (caller.f_code, caller.f_lasti) not in self._openers:
            return False
        last = self._keys[self.run.current.pending]
        return last == ("line", caller.f_code.co_filename, caller.f_lineno)

    def own_step(self, name: str, caller: FrameType) -> None:
        """A step that the program names itself."""
        self.run.point(self.number("step", name), None, not self._opens(caller))

    def _classify(self, code: CodeType) -> tuple[Local | None, tuple[int, str] | None]:
        if is_users(code):
            return self._local(code, users=True), None
        name = core_file(code)
        if name is None:
            return None, None
        if self.grain != "steps":
            return self._local(code, users=False), None
        step = STEPS.get(code)
        if name == "quick.py" and code.co_name == "transaction":
            step = ("begin", MAYBE)
        return None, None if step is None else (self.number("step", step[0]), step[1])

    def _local(self, code: CodeType, users: bool) -> Local | None:
        table: dict[int, int] = {}
        visible = is_shared_in_program if users else shared_in_core(code)
        fine = self.grain == "opcodes"
        opening: dict[int, list[dis.Instruction]] = {}
        for instruction in dis.get_instructions(code):
            line = None if instruction.positions is None else instruction.positions.lineno
            if line is None:
                continue
            opening.setdefault(line, []).append(instruction)
            if visible(instruction):
                key = ("line", code.co_filename, line)
                if fine:
                    table[instruction.offset] = self.number(*key, instruction.offset, instruction.opname)
                else:
                    table[line] = self.number(*key)
        if users and not fine:
            for instructions in opening.values():
                self._openers.update((code, offset) for offset in opens_with(instructions))
        if not table:
            return None
        get = table.get
        event_wanted = "opcode" if fine else "line"

        def local(frame: FrameType, event: str, arg: object) -> Local:
            if event == event_wanted:
                place = get(frame.f_lasti if fine else frame.f_lineno)
                if place is not None:
                    self.run.point(place, frame)
            return local

        return local

    def describe(self, place: int, frame: FrameType | None) -> str:
        """What a step is about: the variable it reads or writes."""
        key = self._keys[place]
        if frame is None or key[0] != "step":
            return ""
        subject = frame.f_locals.get("self", frame.f_locals.get("tvar"))
        if isinstance(subject, TVar):
            return self.show(subject)
        writes = frame.f_locals.get("writes")
        if isinstance(writes, dict):
            return ", ".join(f"{self.show(one)} := {_brief(value)}" for one, value in writes.items())
        return ""

    def show(self, variable: Any) -> str:
        """A variable, by its name, or numbered as it is met."""
        name = variable._name
        if name is None:
            name = self._shown.setdefault(variable, f"#{len(self._shown) + 1}")
        return f"<TVar {name} {_brief(variable._cell[0])}>"

    def where(self, worker: Worker) -> str:
        """Where a thread is, in the code that its body is made of, and what it waits for."""
        frame = None if worker.ident is None else sys._current_frames().get(worker.ident)
        while frame is not None and not is_users(frame.f_code):
            frame = frame.f_back
        place = self.label(worker.pending) if frame is None else line_of(frame.f_code.co_filename, frame.f_lineno)
        awaited = [
            self.show(variable)
            for waiter in clock.sleepers
            if waiter.thread == worker.ident
            for variable in waiter.variables
            if isinstance(variable, TVar)
        ]
        return f"{place}, and waits for a change of {', '.join(awaited)}" if awaited else place

    def forget_variables(self) -> None:
        self._shown.clear()

    @cached_property
    def _names(self) -> dict[tuple[str, int], str]:
        return _names()

    def label(self, place: int) -> str:
        """A place in words."""
        key = self._keys[place]
        if key[0] != "line":
            return str(key[-1])
        text = line_of(key[1], key[2])
        if not is_users_file(key[1]):
            name = self._names.get((key[1], key[2]))
            text = text if name is None else f"{text}  ({name})"
        return text if len(key) == 3 else f"{text}  [{key[3]} {key[4]}]"


def _brief(value: object) -> str:
    """A value as text, the same in each run: short, and without addresses."""
    try:
        text = _ADDRESS.sub("", repr(value))
    except Exception as error:
        return f"<{type(value).__name__}, whose repr() raised {type(error).__name__}>"
    return text if len(text) <= BRIEF else f"{text[: BRIEF // 2]}...{text[-BRIEF // 4 :]}"
