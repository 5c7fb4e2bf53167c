"""The functions of the protocol that Python calls. Each is one call into machine code, which no signal can split."""

from __future__ import annotations

from typing import Any, Final

from stm.compiled.atomics import (
    as_bits,
    compare_and_swap,
    cycles,
    exchange,
    from_bits,
    load,
    load_acquire,
    store,
    store_release,
)
from stm.compiled.kernels import begin, linger, publish, read, read_outside, slot_of, stands, write, write_outside
from stm.compiled.log import (
    AWAITED,
    CLOCK,
    COUNTS,
    FATE,
    FLAGS,
    FORKING,
    HELD,
    PUBLISHING,
    READS,
    READS_END,
    RUNG,
    STEP,
    WORD,
    WRITES,
    WRITES_END,
    cut,
    free_log,
    inlined,
    set_up,
)

# A TArray's header: byte offsets of its words (the first four are the fields of its numba type).
BASE: Final = 0
CLOCK_AT: Final = 24
SIZE: Final = 32

# What `control` can do. The first ones take the clock's address, the others a log's.
HOLD: Final = 0
UNHOLD: Final = 1
FREEZE: Final = 2
THAW: Final = 3
SAMPLE: Final = 4
QUIET: Final = 5
TICKS: Final = 6
THAW_IN_CHILD: Final = 7
ANSWER: Final = 8
AWAIT: Final = 9
SET_UP: Final = 10
FREE: Final = 11
BEGIN: Final = 12
STANDS: Final = 13
CUT: Final = 14
LOCK: Final = 15
PUBLISH: Final = 16
ARM: Final = 17
MARK_WRITES: Final = 18


@inlined
def _change(clock: Any, clear: Any, put: Any) -> None:
    """Change flags of the clock word while nobody publishes."""
    spins = 0
    while True:
        now = load_acquire(clock)
        if now & PUBLISHING:
            spins = linger(spins)
        elif compare_and_swap(clock, now, now & ~clear | put):
            break


def control(what: Any, at: Any, more: Any) -> Any:
    """One of the above."""
    if what == HOLD:
        _change(at, 0, HELD)
    elif what == UNHOLD:
        _change(at, HELD, 0)
    elif what == FREEZE:
        _change(at, 0, FORKING)
    elif what == THAW:
        _change(at, FORKING, 0)
    elif what == THAW_IN_CHILD:
        # Nobody was storing elements when this process was made, and whoever had the word is not here.
        store_release(at, load_acquire(at) & ~(FORKING | PUBLISHING | AWAITED))
    elif what == ANSWER:
        exchange(at + RUNG, 0)
    elif what == SAMPLE:
        return load_acquire(at) & ~FLAGS
    elif what == QUIET:
        _change(at, AWAITED, 0)
    elif what == AWAIT:
        _change(at, 0, AWAITED)
    elif what == TICKS:
        return cycles()
    elif what == SET_UP:
        set_up(at, more)
    elif what == FREE:
        free_log(at)
    elif what == BEGIN:
        begin(at)
    elif what == STANDS:
        return 1 if stands(at) else 0
    elif what == CUT:
        cut(at, load(at + WRITES) + more)
    elif what == LOCK:
        return _lock(at)
    elif what == PUBLISH:
        _publish(at)
    elif what == ARM:
        _arm(at, more)
    elif what == MARK_WRITES:
        entry = load(at + WRITES)
        while entry < load(at + WRITES_END):
            store(more + 8 * slot_of(load(entry)), 1)
            entry += 16
    return 1


@inlined
def _lock(log: Any) -> Any:
    """Take the clock for a commit together with variables. 0, and nothing taken, if a read is stale."""
    clock = load(log + CLOCK)
    spins = 0
    while True:
        now = load_acquire(clock)
        if now & PUBLISHING:
            spins = linger(spins)
        elif compare_and_swap(clock, now, now | PUBLISHING):
            break
    if load(log + FATE) or not stands(log):
        store_release(clock, now)
        return 0
    store(log + WORD, now)
    publish(log, (now & ~FLAGS) + STEP)  # before the variables' cells: see stm/clock.py
    return 1


@inlined
def _publish(log: Any) -> None:
    """Complete what `_lock` began."""
    store_release(load(log + CLOCK), load(log + WORD) + STEP)


@inlined
def _arm(log: Any, found: Any) -> None:
    """Count a sleeper at the slots of everything that was read, and list them in the table at `found`."""
    clock = load(log + CLOCK)
    _change(clock, 0, AWAITED | PUBLISHING)  # so that a commit comes before this, or sees it
    counts, entry = load(clock + COUNTS), load(log + READS)
    while entry < load(log + READS_END):
        slot = slot_of(load(entry))
        store_release(counts + 8 * slot, 1)
        store(found + 8 * slot, 1)
        entry += 8
    store_release(clock, load_acquire(clock) & ~PUBLISHING)


@inlined
def bounded(index: Any, size: Any) -> Any:
    """An index as counted from the beginning; `IndexError` if there is no such element."""
    if index < 0:
        index += size
    if index < 0 or index >= size:
        raise IndexError("index out of range of a TArray")
    return index


@inlined
def _place(header: Any, index: Any) -> Any:
    return load(header + BASE) + 16 * bounded(index, load(header + SIZE))


def accessors(dtype: Any) -> tuple[Any, Any]:
    """Functions to get and to set an element of arrays of a numba type: in the transaction of a log, or outside (0)."""

    def get(log: Any, header: Any, index: Any) -> Any:
        at = _place(header, index)
        if log:
            return from_bits(read(log, at), dtype)
        return from_bits(read_outside(load(header + CLOCK_AT), at), dtype)

    def put(log: Any, header: Any, index: Any, value: Any) -> None:
        at = _place(header, index)
        if log:
            write(log, at, as_bits(dtype(value)))
        else:
            write_outside(load(header + CLOCK_AT), at, as_bits(dtype(value)))

    return get, put


def read_many(log: Any, header: Any, positions: Any, words: Any) -> None:
    """Read the elements at `positions`, counted row by row, in the transaction of a log."""
    for k in range(len(positions)):
        words[k] = read(log, _place(header, positions[k]))


def write_many(log: Any, header: Any, positions: Any, words: Any) -> None:
    """Write the elements at `positions` in the transaction of a log."""
    for k in range(len(positions)):
        write(log, _place(header, positions[k]), words[k])


def copy_all(header: Any, words: Any) -> None:
    """Copy all elements as of one moment: watching for commits at first, and then keeping them off for a while."""
    clock, base, size = load(header + CLOCK_AT), load(header + BASE), load(header + SIZE)
    for _ in range(3):
        moment = load_acquire(clock) & ~FLAGS
        newest = moment
        for k in range(size):
            words[k] = load_acquire(base + 16 * k)
            newest = max(newest, load_acquire(base + 16 * k + 8))
        if newest == moment:
            return
    _change(clock, 0, PUBLISHING)
    for k in range(size):
        words[k] = load_acquire(base + 16 * k)
    store_release(clock, load_acquire(clock) & ~PUBLISHING)
