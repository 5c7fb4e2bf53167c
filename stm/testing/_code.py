"""What can be told of code without running it: whose it is, and which lines or instructions touch what is shared.

A place that touches nothing shared is left out, since it makes no difference when it is done:
- in a program's own code, lines (or instructions) that merely move references between local variables;
- in the core, those that name none of `SHARED` and are in none of the functions that work on shared tables by
  subscript (`WHOLE`). What a descriptor, an attempt or a scope holds belongs to one thread.

A line of a program that begins with a call, or with a read of a variable, is one place with the step that this is.

The program's own code is whatever lies neither in the standard library, nor in `site-packages`, nor in `stm`.
"""

from __future__ import annotations

import dis
import os
import re
import sysconfig
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Final

import stm

_STM: Final = os.path.dirname(os.path.abspath(stm.__file__)) + os.sep
_LIBRARIES: Final = tuple(
    {
        os.path.abspath(path) + os.sep
        for name, path in sysconfig.get_paths().items()
        if name in ("stdlib", "platstdlib", "purelib", "platlib")
    }
    | {os.path.dirname(os.path.abspath(os.__file__)) + os.sep}
)

#: Attributes and functions through which the core touches what threads share.
SHARED: Final = frozenset(
    {"_cell", "_waiters", "woken", "places", "acquire", "acquire_exclusive", "release_exclusive", "in_one_call"}
    | {"now", "quiet", "owner", "sleepers", "snapshots", "history", "trimming", "lock", "_in_one_call", "forget"}
)
#: Functions that work on shared dictionaries and lists without naming them each time.
WHOLE: Final = frozenset(
    {"register", "_enlist", "rouse", "wakes", "_asleep", "waking", "wake_all", "withdraw", "withdrawal", "tidy"}
    | {"_is_vast", "newest", "link", "trim", "_trim_ended", "_sweep", "cell_at", "<listcomp>", "<genexpr>", "<lambda>"}
)
#: The core: everything else of `stm` is written in its words, or is not explored.
CORE: Final = frozenset(
    {"atomically.py", "clock.py", "contention.py", "execution.py", "hooks.py", "quick.py", "snapshot.py"}
    | {"transaction.py", "tvar.py", "waiting.py"}
)

_LOCAL_OP: Final = re.compile(
    "LOAD_FAST|STORE_FAST|LOAD_CONST|LOAD_SMALL_INT|LOAD_COMMON_CONSTANT|COPY|SWAP|POP_TOP|NOP|NOT_TAKEN|RESUME|CACHE|"
    "JUMP|POP_JUMP|RETURN|BUILD_TUPLE|UNPACK_SEQUENCE|IS_OP|PUSH_NULL|PRECALL|MAKE_FUNCTION|MAKE_CELL|LOAD_CLOSURE|"
    "COPY_FREE_VARS|EXTENDED_ARG|SET_FUNCTION_ATTRIBUTE"
)
_NAME_LOADS: Final = ("LOAD_FAST", "LOAD_DEREF", "LOAD_GLOBAL", "LOAD_NAME", "LOAD_CLASSDEREF")
_OWN_LOADS: Final = ("LOAD_FAST", "LOAD_CONST", "LOAD_SMALL_INT")
_SILENT: Final = ("NOP", "RESUME", "NOT_TAKEN", "CACHE", "PUSH_NULL", "PRECALL", "COPY_FREE_VARS", "MAKE_CELL")

_users: dict[str, bool] = {}


def is_users(code: CodeType) -> bool:
    """Does this code belong to the program that is explored?"""
    return is_users_file(code.co_filename)


def is_users_file(filename: str) -> bool:
    answer = _users.get(filename)
    if answer is None:
        path = os.path.abspath(filename)
        answer = not (path.startswith((_STM, *_LIBRARIES)) or filename.startswith("<frozen"))
        _users[filename] = answer
    return answer


def core_file(code: CodeType) -> str | None:
    path = os.path.abspath(code.co_filename)
    name = path.removeprefix(_STM)
    return name if path.startswith(_STM) and name in CORE else None


def is_shared_in_program(instruction: dis.Instruction) -> bool:
    return _LOCAL_OP.match(instruction.opname) is None


def shared_in_core(code: CodeType) -> Callable[[dis.Instruction], bool]:
    if os.path.basename(code.co_filename) in ("waiting.py", "snapshot.py") and code.co_name in WHOLE:
        return is_shared_in_program
    return lambda instruction: instruction.argval in SHARED if isinstance(instruction.argval, str) else False


def opens_with(instructions: list[dis.Instruction]) -> Iterator[int]:
    """Where a line calls the first function, or looks up the first attribute of the one thing that it has loaded; given
    that it has done nothing before but load constants and its own local variables.

    As `frame.f_lasti` tells it, which for calls in CPython 3.11 is the last word of the instruction and not its first.
    """
    useful = [one for one in instructions if not one.opname.startswith(_SILENT)]
    if not useful or not useful[0].opname.startswith(_NAME_LOADS):
        return
    for index, one in enumerate(useful[1:], 1):
        ends = one.opname == "CALL"
        if ends or (index == 1 and one.opname.startswith(("LOAD_ATTR", "LOAD_METHOD"))):
            end = useful[index + 1].offset if index + 1 < len(useful) else one.offset + 2
            yield from range(one.offset, end, 2)
        elif not one.opname.startswith(_OWN_LOADS):
            return
        if ends:
            return
