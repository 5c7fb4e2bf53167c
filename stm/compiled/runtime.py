"""What the compiled tier keeps once per process: the clock word, the threads' logs, and the entrances to machine code.

Importing this module brings in numba, and compiles a few functions or finds them on disk (`cache.py`). It also tells
the object tier's clock of the word, which that needs around `os.fork`, at the end of an exclusive transaction and to
begin a read-only one.
"""

from __future__ import annotations

import ctypes
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import starmap
from typing import Any, Final

import numpy as np
from numba import types

from stm.clock import clock
from stm.compiled import control as machine
from stm.compiled.array import TArray
from stm.compiled.cache import entry
from stm.compiled.log import (
    ABORTS,
    BELL,
    COST,
    COST_IN_PLACE,
    COUNTS,
    FATE,
    GROUP,
    GROUPS,
    IDLE,
    INTERRUPT,
    LOG_WORDS,
    MARKS,
    PASS,
    QUICK,
    READS,
    READS_ROOM,
    SLOTS,
    SPENT,
    STATE,
    STOP,
    STREAK,
    UNTIL,
    UPCALL,
    WAITED,
    WRITES,
    WRITES_ROOM,
)

_int = types.int64

#: `control(what, address, more)`, see control.py.
control: Final = entry(machine.control, _int(_int, _int, _int))

# The clock word with what belongs to it has its cache lines to itself. It is never freed.
_memory: Final = np.zeros(64, np.int64)
CLOCK_WORD: Final = (_memory.ctypes.data + 127) & -128
_words: Final = (ctypes.c_int64 * 32).from_address(CLOCK_WORD)

#: How many sleep at each slot (0, or 1 for "perhaps somebody"), and which slots have been written to since.
counts: Final = np.zeros(SLOTS, np.int64)
marks: Final = np.zeros(SLOTS, np.int64)
_words[COUNTS // 8] = counts.ctypes.data
_words[MARKS // 8] = marks.ctypes.data
_words[BELL // 8] = -1


def set_word(offset: int, value: int) -> None:
    """Set one of the words that belong to the clock."""
    _words[offset // 8] = value


def get_word(offset: int) -> int:
    return int(_words[offset // 8])


Callback: Final = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)


class Log:
    """One log (see log.py). `words[OFFSET // 8]` are its words, as Python sees them."""

    __slots__ = ("_array", "address", "words")

    def __init__(self) -> None:
        self._array = np.empty(LOG_WORDS, np.int64)
        self.address: int = self._array.ctypes.data
        control(machine.SET_UP, self.address, CLOCK_WORD)
        self.words = memoryview(self._array)  # type: ignore[arg-type]  # (NumPy's types know of buffers from 3.12 on)


class Lease:
    """The use of a log, as long as this object lives.

    Logs are kept for the next user. They come back when a lease dies, by a weak reference whose callback is a C
    function: a `__del__` would be Python code, and what a signal handler raises in such is lost.
    """

    __slots__ = ("__weakref__", "log")

    def __init__(self, log: Log) -> None:
        self.log = log


class _Return(weakref.ref[Lease]):
    __slots__ = ("log",)
    log: Log


_returned: Final[deque[_Return]] = deque()
_out: Final[set[_Return]] = set()

#: What the next user of a log must not find.
_REUSED: Final = (STOP, PASS, INTERRUPT, ABORTS, FATE, QUICK, COST, COST_IN_PLACE, STREAK, SPENT, WAITED, GROUPS, UNTIL)

#: Bytes of a buffer that is not kept.
LARGE: Final = 1 << 20


def take_log() -> Lease:
    """A log that nobody uses. Whatever strikes meanwhile, the log is not lost."""
    taken: list[_Return] = []
    back = None
    try:
        try:
            taken.extend(starmap(_returned.pop, ((),)))  # one call of C: it is never in neither place
        except IndexError:
            if taken:
                raise
            log = Log()
        else:
            log = taken[0].log
            _out.discard(taken[0])
            _renew(log)
        lease = Lease(log)
        back = _Return(lease, _returned.append)
        back.log = log
        _out.add(back)
    except BaseException:
        if back is None:
            _returned.extend(taken)
        else:
            _out.add(back)  # by which it returns when the lease dies
        raise
    return lease


def _renew(log: Log) -> None:
    """Let the next user not find what the last one has left."""
    words = log.words
    words[STATE // 8] = IDLE
    words[GROUP // 8] = 1
    for offset in _REUSED:
        words[offset // 8] = 0
    if words[READS_ROOM // 8] - words[READS // 8] > LARGE or words[WRITES_ROOM // 8] - words[WRITES // 8] > LARGE:
        control(machine.FREE, log.address, 0)


class Own:
    """What a thread has for its calls of compiled transactions."""

    def __init__(self) -> None:
        self.lease = take_log()
        self.retired: list[Lease] = []
        self.pending: BaseException | None = None

    @property
    def log(self) -> Log:
        return self.lease.log


#: `here.log` is the address of the calling thread's log, `here.own` the rest; `AttributeError` means "none yet".
here: Final = threading.local()


def own() -> Own:
    """What the calling thread has, made on first use."""
    try:
        found: Own = here.own
    except AttributeError:
        found = here.own = Own()
        here.log = found.log.address
    return found


def first_log() -> int:
    """The address of the calling thread's log, on first use."""
    return own().log.address


def another_log() -> int:
    """The address of the thread's log from now on: the one before is in use by what the caller has interrupted."""
    mine = own()
    mine.retired.append(mine.lease)
    mine.lease = take_log()
    here.log = mine.log.address
    return mine.log.address


def _after_fork() -> None:
    from stm.compiled import sleeping

    sleeping.after_fork()


class _Word:
    """The array clock, as the object tier's clock knows it."""

    def __init__(self) -> None:
        self.freeze: Callable[[], object] = partial(control, machine.FREEZE, CLOCK_WORD, 0)
        self.thaw: Callable[[], object] = partial(control, machine.THAW, CLOCK_WORD, 0)
        self.thaw_in_child: Callable[[], object] = partial(control, machine.THAW_IN_CHILD, CLOCK_WORD, 0)
        self.sample: Callable[[], int] = partial(control, machine.SAMPLE, CLOCK_WORD, 0)
        self.hold: Callable[[], object] = partial(control, machine.HOLD, CLOCK_WORD, 0)
        self.unhold: Callable[[], object] = partial(control, machine.UNHOLD, CLOCK_WORD, 0)
        self.after_fork: Callable[[], object] = _after_fork
        self.array_type: type = TArray


word: Final = _Word()


def take_up(upcall: int) -> None:
    """Join the two hands of the clock. `upcall` is the address of what machine code calls."""
    set_word(UPCALL, upcall)
    clock.unhold = word.unhold
    clock.arrays = word


def element_access(dtype: Any) -> tuple[Any, Any]:
    """C functions `get(log, header, index)` and `set(log, header, index, value)` for arrays of a numba type."""
    get, put = machine.accessors(dtype)
    return (
        entry(get, dtype(_int, _int, _int), f"get-{dtype}"),
        entry(put, types.void(_int, _int, _int, dtype), f"set-{dtype}"),
    )


def _ticks_per_second() -> float:
    """How fast the machine's counter (`atomics.cycles`) goes."""
    begun, ticks = time.perf_counter(), control(machine.TICKS, CLOCK_WORD, 0)
    while (seconds := time.perf_counter() - begun) < 2e-3:
        pass
    return float(control(machine.TICKS, CLOCK_WORD, 0) - ticks) / seconds


TICKS_PER_SECOND: Final = _ticks_per_second()

_vector = types.Array(_int, 1, "C")
read_many: Final = entry(machine.read_many, types.void(_int, _int, _vector, _vector))
write_many: Final = entry(machine.write_many, types.void(_int, _int, _vector, _vector))
copy_all: Final = entry(machine.copy_all, types.void(_int, _vector))
