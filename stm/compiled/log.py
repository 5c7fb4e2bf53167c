"""One thread's log of a compiled transaction: a block of words, and three buffers that grow.

The read set holds addresses of elements; the write set, address and value, in the order of writing; the index of the
write set is a hash table with open addressing, from address to the newest entry's offset. An entry of the index carries
a stamp, so that counting the stamp up empties the index.

The first buffers lie behind the words themselves, so that a log can stand on the stack of a function; larger ones are
allocated when they are needed, and kept. Sets may have any size: `MemoryError` says when there is no memory for more.
"""

from __future__ import annotations

from typing import Any, Final

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from stm.compiled.atomics import allocate, clear_words, copy_words, free, load, store
from stm.compiled.signals import apart

# The control block: byte offsets from the clock word.
COUNTS: Final = 128  # address of the table of how many sleep at each slot
UPCALL: Final = 136  # address of the function that does what needs Python
MARKS: Final = 144  # address of the table of slots that were written to while somebody slept there
RUNG: Final = 152  # the waker has been told, and has not looked yet
BELL: Final = 160  # the file descriptor that tells it

PUBLISHING: Final = 1
HELD: Final = 2
AWAITED: Final = 4
FORKING: Final = 8
KEPT_OFF: Final = HELD | FORKING
FLAGS: Final = 15
STEP: Final = 16

SLOTS: Final = 4096  # elements are hashed to so many slots to wait at

# A log: byte offsets from its address.
CLOCK: Final = 0  # address of the clock word
MOMENT: Final = 8  # the read version
READS: Final = 16  # addresses: of the read set, its end, and the end of its buffer
READS_END: Final = 24
READS_ROOM: Final = 32
WRITES: Final = 40  # likewise
WRITES_END: Final = 48
WRITES_ROOM: Final = 56
SCOPE: Final = 64  # what the end of the write set was when the innermost scope began
FATE: Final = 72  # why the attempt is dead, 0 if it is alive
INDEX: Final = 80
INDEX_MASK: Final = 88
STAMP: Final = 96
STATE: Final = 104
STOP: Final = 112  # set by another thread: commit no more
FAILURE: Final = 120  # what numba knows of the body's exception
ABORTS: Final = 128  # conflicts in a row
PASS: Final = 136  # this thread is the exclusive one
GROUP: Final = 144  # rows to a commit; this one, STREAK, and what follows ROW belong to tuning.py
STREAK: Final = 152
LIMIT: Final = 160  # ticks that a group may take
GROWN: Final = 168  # which buffers (bits 1, 2) are no longer those that the log came with
INTERRUPT: Final = 176  # an exception from outside waits in Python to be raised
WORD: Final = 184  # see inplace.py: the clock word that was taken, and the reads that a row may still do
FUEL: Final = 192
EVENT: Final = 200  # what the kernel returned to Python for
ROW: Final = 208  # see mapping.py
QUICK: Final = 216
COST: Final = 224
COST_IN_PLACE: Final = 232
GROUPS: Final = 240
PENDING: Final = 248
WORKERS: Final = 256
SPENT: Final = 264
WAITED: Final = 272
TARGET: Final = 280  # the version that a group in place writes
ROW_AT: Final = 288  # where the present row of a group began in the write set, as an offset
UNTIL: Final = 296  # when to come back to Python (see mapping.py), 0 for never
HEADER: Final = 304

READS_AT_FIRST: Final = 64
WRITES_AT_FIRST: Final = 32
LOG_WORDS: Final = HEADER // 8 + READS_AT_FIRST + 4 * WRITES_AT_FIRST

IDLE: Final = 0
RUNNING: Final = 1  # an attempt that is machine code alone
JOINED: Final = 2  # a part of an object transaction

# What `commit` and `settle` answer, and what an upcall is for.
DONE: Final = 0
CONFLICT: Final = 1
WAIT: Final = 2  # the body retried
YIELD: Final = 3  # another thread is exclusive
RAISE: Final = 4
AGAIN: Final = 5
STOPPED: Final = 6
INSIST: Final = 7
RELENT: Final = 8

INSIST_AFTER: Final = 10
SPINS: Final = 200

HASH: Final = -7046029254386353131  # 2**64 / golden ratio, odd (Knuth, TAOCP 3, 6.4)
NEW_STAMP: Final = 1 << 32
OFFSET: Final = NEW_STAMP - 1


inlined = njit(forceinline=True)


@njit
def set_up(log: Any, clock: Any) -> None:
    """Make a log of `LOG_WORDS` words, whatever they hold."""
    clear_words(log, HEADER // 8)
    reads = log + HEADER
    writes = reads + 8 * READS_AT_FIRST
    index = writes + 16 * WRITES_AT_FIRST
    store(log + CLOCK, clock)
    store(log + READS, reads)
    store(log + READS_END, reads)
    store(log + READS_ROOM, writes)
    store(log + WRITES, writes)
    store(log + WRITES_END, writes)
    store(log + WRITES_ROOM, index)
    store(log + INDEX, index)
    store(log + INDEX_MASK, 2 * WRITES_AT_FIRST - 1)
    store(log + STAMP, NEW_STAMP)
    clear_words(index, 2 * WRITES_AT_FIRST)
    store(log + GROUP, 1)


@njit
def free_log(log: Any) -> None:
    """Give back what the log has allocated. It is as new."""
    grown = load(log + GROWN)
    if grown & 1:
        free(load(log + READS))
    if grown & 2:
        free(load(log + WRITES))
        free(load(log + INDEX))
    if grown:
        failure = load(log + FAILURE)
        set_up(log, load(log + CLOCK))
        store(log + FAILURE, failure)


@njit
def grow_reads(log: Any) -> None:
    old, end = load(log + READS), load(log + READS_END)
    size = end - old
    new = allocate(2 * size)
    if new == 0:
        raise MemoryError("no memory for the read set of a compiled transaction")
    copy_words(new, old, size >> 3)
    if load(log + GROWN) & 1:
        free(old)
    store(log + READS, new)
    store(log + READS_END, new + size)
    store(log + READS_ROOM, new + 2 * size)
    store(log + GROWN, load(log + GROWN) | 1)


@njit
def grow_writes(log: Any) -> None:
    grow_undo(log)
    index_anew(log)


@njit
def grow_undo(log: Any) -> None:
    """Make room in the write set; the index is empty after."""
    old, end = load(log + WRITES), load(log + WRITES_END)
    size = end - old
    new = allocate(2 * size)
    index = allocate(2 * size)  # 16 bytes to a write, and two entries of 8 bytes in the index
    if new == 0 or index == 0 or size >= 1 << 30:  # offsets have 32 bits
        if index:
            free(index)
        if new:
            free(new)
        raise MemoryError("no memory for the write set of a compiled transaction")
    copy_words(new, old, size >> 3)
    if load(log + GROWN) & 2:
        free(old)
        free(load(log + INDEX))
    store(log + WRITES, new)
    store(log + WRITES_END, new + size)
    store(log + WRITES_ROOM, new + 2 * size)
    store(log + SCOPE, load(log + SCOPE) - old + new)
    store(log + INDEX, index)
    store(log + INDEX_MASK, (2 * size >> 3) - 1)
    store(log + GROWN, load(log + GROWN) | 2)
    clear_words(index, 2 * size >> 3)


@njit
def index_anew(log: Any) -> None:
    """Make the index say what the write set holds."""
    new_stamp(log)
    writes, entry, stamp = load(log + WRITES), load(log + WRITES), load(log + STAMP)
    while entry < load(log + WRITES_END):
        store(_probe(log, load(entry)), stamp | (entry - writes))
        entry += 16


@inlined
def new_stamp(log: Any) -> None:
    """Empty the index."""
    stamp = load(log + STAMP) + NEW_STAMP
    if stamp == 0:  # so many that the count began anew: old entries might look fresh
        clear_words(load(log + INDEX), load(log + INDEX_MASK) + 1)
        stamp = NEW_STAMP
    store(log + STAMP, stamp)


@njit
def cut(log: Any, end: Any) -> None:
    """Forget the writes made since the write set ended at `end`."""
    if load(log + WRITES_END) != end:
        store(log + WRITES_END, end)
        index_anew(log)


@njit
def _probe(log: Any, at: Any) -> Any:
    """Address of the index entry for the element at `at`: its own, or the free one where it belongs."""
    index, mask, stamp, writes = load(log + INDEX), load(log + INDEX_MASK), load(log + STAMP), load(log + WRITES)
    slot = (at * HASH >> 32) & mask
    while True:
        place = index + 8 * slot
        entry = load(place)
        if (entry ^ stamp) & ~OFFSET or load(writes + (entry & OFFSET)) == at:
            return place
        slot = (slot + 1) & mask


@inlined
def place_of(log: Any, at: Any) -> Any:
    """`_probe`, whose first probe is mostly enough."""
    place = load(log + INDEX) + 8 * ((at * HASH >> 32) & load(log + INDEX_MASK))
    entry = load(place)
    if (entry ^ load(log + STAMP)) & ~OFFSET or load(load(log + WRITES) + (entry & OFFSET)) == at:
        return place
    return apart(_probe, (log, at))


@intrinsic
def stack_log(typingctx: Any) -> Any:
    """The address of `LOG_WORDS` words that live as long as the function that this is called in."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        place = cgutils.alloca_once(builder, ir.ArrayType(ir.IntType(64), LOG_WORDS))
        return builder.ptrtoint(place, ir.IntType(64))

    return types.int64(), codegen
