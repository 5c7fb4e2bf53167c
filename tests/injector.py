"""An exception, or anything else, at the n-th point at which CPython could deliver a signal inside `stm`.

From 3.12 on the points are found by `sys.monitoring`, which tells of every instruction of the functions that it is set
on. Setting it takes milliseconds, and more the more threads have run them on a free-threaded build, so it stays set
from a test's first injection to its end, when `tests/conftest.py` calls `disarm()`.
"""

import dis
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import stm
from stm import quick

STM = str(Path(stm.__file__).parent)


class Bolt(KeyboardInterrupt):
    """Out of the blue."""


_points: dict[CodeType, set[int]] = {}


def points(code: CodeType) -> set[int]:
    """Offsets of the instructions before which an exception may strike."""
    if code not in _points:
        found = set()
        previous = ""
        for instruction in dis.get_instructions(code):
            name = instruction.opname
            if previous.startswith("CALL") or previous == "RESUME":
                found.add(instruction.offset)
            if name.startswith("JUMP_BACKWARD") and "NO_INTERRUPT" not in name:
                found.add(instruction.offset)
            previous = name
        _points[code] = found
    return _points[code]


class Injector:
    """At the `at`-th point inside `stm` that this thread comes to, raises `Bolt`, or calls `act` instead.

    Counts the points and does nothing if `at` is None.
    """

    def __init__(self, at: int | None, act: Callable[[], object] | None = None) -> None:
        self.at = at
        self.act = act
        self.count = 0
        self.struck = False
        self.paused = False
        self.thread = threading.get_ident()

    def arrive(self, code: CodeType, offset: int) -> None:
        if self.paused or self.struck or offset not in points(code) or threading.get_ident() != self.thread:
            return
        if self.count == self.at:
            self.struck = True
            if self.act is not None:
                self.act()
                return
            raise Bolt(f"{code.co_qualname}, offset {offset}")
        self.count += 1

    def trace(self, frame: FrameType, event: str, arg: Any) -> Any:
        if not frame.f_code.co_filename.startswith(STM):
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        if event == "opcode":
            self.arrive(frame.f_code, frame.f_lasti)
        return self.trace


def codes_of_stm() -> set[CodeType]:
    found: set[CodeType] = set()

    def add(thing: Any) -> None:
        if isinstance(thing, CodeType):
            if thing.co_filename.startswith(STM) and thing not in found:
                found.add(thing)
                for constant in thing.co_consts:
                    add(constant)
        elif isinstance(thing, type):
            for member in vars(thing).values():
                if not isinstance(member, type):
                    add(member)
        elif isinstance(thing, property):
            add(thing.fget)
            add(thing.fset)
        elif isinstance(thing, dict) and thing is quick._made:
            for make in thing.values():
                add(make)
        elif hasattr(thing, "__code__"):
            add(thing.__code__)

    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "stm":
            for thing in list(vars(module).values()):
                add(thing)
    return found


_current: list[Injector] = []
_armed: set[CodeType] = set()
_looked_at: tuple[int, int] | None = None


def _arrive(code: CodeType, offset: int) -> None:
    for injector in _current:
        injector.arrive(code, offset)


def _arm() -> None:
    """Have `sys.monitoring` tell of all functions of `stm`, those too that were made since the last call."""
    global _looked_at
    monitoring = sys.monitoring
    if _looked_at is None:
        monitoring.use_tool_id(monitoring.DEBUGGER_ID, "interruption")
        monitoring.register_callback(monitoring.DEBUGGER_ID, monitoring.events.INSTRUCTION, _arrive)
    now = len(sys.modules), len(quick._made)
    if now != _looked_at:
        for code in codes_of_stm() - _armed:
            monitoring.set_local_events(monitoring.DEBUGGER_ID, code, monitoring.events.INSTRUCTION)
            _armed.add(code)
        _looked_at = now


def disarm() -> None:
    """Let `stm` run undisturbed again."""
    global _looked_at
    if _looked_at is not None:
        monitoring = sys.monitoring
        for code in _armed:
            monitoring.set_local_events(monitoring.DEBUGGER_ID, code, 0)
        monitoring.register_callback(monitoring.DEBUGGER_ID, monitoring.events.INSTRUCTION, None)
        monitoring.free_tool_id(monitoring.DEBUGGER_ID)
        _armed.clear()
        _looked_at = None


@contextmanager
def injected(at: int | None, act: Callable[[], object] | None = None) -> Iterator[Injector]:
    injector = Injector(at, act)
    if sys.version_info >= (3, 12):
        _arm()
        _current.append(injector)
        try:
            yield injector
        finally:
            injector.paused = True
            _current.remove(injector)
    else:
        sys.settrace(injector.trace)
        try:
            yield injector
        finally:
            sys.settrace(None)
