"""The protocol in machine code: begin, read, write, extend, validate, commit, and the log that they work on.

Everything here is compiled by numba into the functions that use it. `stm/clock.py` states the invariants; this file
says how machine code keeps them.

Elements
--------
An array element is two words side by side: its *value*, and the *version* of the commit that wrote it. One cache line
brings both. An element is named by its address.

The clock word
--------------
All versions are multiples of `STEP`. The low bits of the word are `PUBLISHING` (a commit is between its first and its
last store, and only its owner changes the word), `HELD` (an exclusive transaction runs: commit only with `PASS`), and
`AWAITED` (somebody sleeps until an element changes: look whom to wake). All of them change by compare-and-swap, so a
committer that got `PUBLISHING` knows that the other two stand as it saw them, and no fence is needed to learn of a
sleeper: he registered either before, and is seen, or after, and has validated against this very commit.

One thread's log
----------------
A block of words, and three buffers that grow: the read set (addresses), the write set (address and value, in the order
of writing) and an index of the write set (a hash table from address to newest position, open addressing). An index
entry carries a stamp; `begin` empties the index by counting the stamp up. A write in a nested scope never overwrites
an entry made outside it, so undoing a scope means cutting the write set back.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from stm.compiled.atomics import (
    compare_and_swap,
    cycles,
    exchange,
    load,
    load_acquire,
    offer_processor,
    pause,
    store,
    store_release,
    write_byte,
)
from stm.compiled.log import (
    ABORTS,
    AGAIN,
    AWAITED,
    BELL,
    CLOCK,
    CONFLICT,
    COUNTS,
    DONE,
    FATE,
    FLAGS,
    HASH,
    INSIST,
    INSIST_AFTER,
    INTERRUPT,
    KEPT_OFF,
    MARKS,
    MOMENT,
    OFFSET,
    PASS,
    PENDING,
    PUBLISHING,
    RAISE,
    READS,
    READS_END,
    READS_ROOM,
    RELENT,
    ROW_AT,
    RUNG,
    RUNNING,
    SCOPE,
    SLOTS,
    SPINS,
    STAMP,
    STATE,
    STEP,
    STOP,
    STOPPED,
    UPCALL,
    WAIT,
    WAITED,
    WRITES,
    WRITES_END,
    WRITES_ROOM,
    YIELD,
    cut,
    free_log,
    grow_reads,
    grow_writes,
    inlined,
    new_stamp,
    place_of,
    set_up,
    stack_log,
)
from stm.compiled.signals import (
    RESTART,
    RETRY,
    apart,
    breathe,
    leave_with_pending,
    leave_with_python_error,
    leave_with_restart,
    signals_are_quiet,
)


@inlined
def begin(log: Any) -> None:
    """Start an attempt at the present moment."""
    store_release(log + MOMENT, load_acquire(load(log + CLOCK)) & ~FLAGS)
    writes = load(log + WRITES)
    store(log + READS_END, load(log + READS))
    store(log + WRITES_END, writes)
    store(log + SCOPE, writes)
    store(log + ROW_AT, 0)
    store(log + FATE, 0)
    new_stamp(log)


@inlined
def read(log: Any, at: Any) -> Any:
    """The word of the element at `at`, as of the attempt's moment."""
    if load(log + WRITES_END) != load(log + WRITES):
        entry = load(place_of(log, at))
        if not (entry ^ load(log + STAMP)) & ~OFFSET:
            return load(load(log + WRITES) + (entry & OFFSET) + 8)
    word = load_acquire(at)
    if load_acquire(at + 8) > load_acquire(log + MOMENT):
        word = apart(_read_newer, (log, at))
    if load(log + READS_END) == load(log + READS_ROOM):
        apart(grow_reads, (log,))
    end = load(log + READS_END)
    store(end, at)
    store(log + READS_END, end + 8)
    return word


@inlined
def write(log: Any, at: Any, word: Any) -> None:
    """Note the word to publish at `at`."""
    place = place_of(log, at)
    entry = load(place)
    mine = load(log + WRITES) + (entry & OFFSET)
    if not (entry ^ load(log + STAMP)) & ~OFFSET and mine >= load(log + SCOPE):
        store(mine + 8, word)
    else:
        if load(log + WRITES_END) == load(log + WRITES_ROOM):
            apart(grow_writes, (log,))
            place = place_of(log, at)
        end = load(log + WRITES_END)
        store(place, load(log + STAMP) | (end - load(log + WRITES)))
        store(end, at)
        store(end + 8, word)
        store(log + WRITES_END, end + 16)


@njit
def stands(log: Any) -> Any:
    """Does everything that was read still stand?"""
    entry, end, moment = load(log + READS), load(log + READS_END), load_acquire(log + MOMENT)
    while entry < end:
        if load_acquire(load(entry) + 8) > moment:
            return False
        entry += 8
    return True


@njit
def linger(spins: Any) -> Any:
    """Wait for a moment, the longer the more often; returns how often.

    Whom one waits for may need the GIL: a row that runs in place and prints something.
    """
    if spins < SPINS:
        pause()
    else:
        offer_processor()
        if spins % SPINS == 0:
            breathe()
    return spins + 1


@njit
def _read_newer(log: Any, at: Any) -> Any:
    """The word of an element that is newer than the attempt: move to a later moment, or end the attempt."""
    spins = 0
    while True:
        now = load_acquire(load(log + CLOCK)) & ~FLAGS
        if load(log + STATE) != RUNNING or load_acquire(log + STOP) or not stands(log):
            store(log + FATE, RESTART)
            leave_with_restart()
        store_release(log + MOMENT, now)  # (if STOP was set meanwhile, the stopper sets MOMENT to -1 once more)
        word = load_acquire(at)
        if load_acquire(at + 8) <= now:
            return word
        spins = linger(spins)  # its commit is not complete


@inlined
def commit(log: Any) -> Any:
    """Publish the writes. `DONE`, or `CONFLICT`, `YIELD`, `STOPPED` and nothing published."""
    if load(log + WRITES_END) == load(log + WRITES):
        return DONE  # what was read belongs to one moment
    clock = load(log + CLOCK)
    now = load_acquire(clock)
    if now & FLAGS or now != load_acquire(log + MOMENT) or load_acquire(log + STOP):
        return apart(_commit, (log,))
    if not compare_and_swap(clock, now, now | PUBLISHING):
        return apart(_commit, (log,))
    publish(log, now + STEP)
    store_release(clock, now + STEP)
    return DONE


@njit
def _commit(log: Any) -> Any:
    """`commit` when others are at work."""
    clock = load(log + CLOCK)
    spins = 0
    lost = 0
    while True:
        now = load_acquire(clock)
        if now & KEPT_OFF and not load(log + PASS):
            return YIELD
        if now & PUBLISHING:
            begun = cycles()
            while load_acquire(clock) & PUBLISHING:
                spins = linger(spins)
            store(log + WAITED, load(log + WAITED) + cycles() - begun)
            continue
        if load_acquire(log + STOP):
            return STOPPED
        # Validated before the word is taken, so that it is taken for a short time only; since nothing was published
        # between the two, that is good enough. Who loses this race again and again validates after.
        if lost < 3 and now & ~FLAGS != load_acquire(log + MOMENT) and not stands(log):
            return CONFLICT
        if compare_and_swap(clock, now, now | PUBLISHING):
            break
        lost += 1
    if lost >= 3 and not stands(log):
        store_release(clock, now)
        return CONFLICT
    publish(log, (now & ~FLAGS) + STEP)
    store_release(clock, now + STEP)
    if now & AWAITED:
        ring(log)
    return DONE


@inlined
def publish(log: Any, version: Any) -> None:
    """Store the writes. The caller has set `PUBLISHING`."""
    entry, end = load(log + WRITES), load(log + WRITES_END)
    while entry < end:
        at = load(entry)
        store_release(at + 8, version)  # before the value, so that who sees the value sees the version
        store_release(at, load(entry + 8))
        entry += 16


@inlined
def slot_of(at: Any) -> Any:
    """Where those who wait for the element at `at` are counted."""
    return (at * HASH >> 40) & (SLOTS - 1)


@njit
def ring(log: Any) -> None:
    """Tell the waker (see sleeping.py) which slots the attempt wrote to, if somebody is counted there."""
    clock = load(log + CLOCK)
    counts, marks = load(clock + COUNTS), load(clock + MARKS)
    entry = load(log + WRITES)
    found = False
    while entry < load(log + WRITES_END):
        slot = slot_of(load(entry))
        if load_acquire(counts + 8 * slot):
            store_release(marks + 8 * slot, 1)
            found = True
        entry += 16
    if found and load_acquire(clock + BELL) >= 0 and exchange(clock + RUNG, 1) == 0:
        write_byte(load(clock + BELL), clock)


@inlined
def settle(log: Any, code: Any) -> Any:
    """What becomes of an attempt whose body ended with `code`.

    `DONE` and `RAISE` end it; `AGAIN` asks for another attempt; after `WAIT`, `YIELD`, `INSIST` and `STOPPED` it is for
    Python to act.
    """
    outcome = commit(log) if code == 0 and load(log + FATE) == 0 else apart(_judge, (log, code))
    if outcome == DONE or outcome == RAISE:  # noqa: SIM109 - numba would build a tuple
        store(log + ABORTS, 0)
        return outcome
    return apart(_recover, (log, outcome))


@njit
def _judge(log: Any, code: Any) -> Any:
    """What an attempt came to that can't be committed: `RAISE`, `CONFLICT`, `WAIT`."""
    fate = load(log + FATE)
    if fate == RESTART or code == RESTART or not stands(log):
        return CONFLICT
    if fate == RETRY or code == RETRY:
        return WAIT
    return RAISE


@njit
def _recover(log: Any, outcome: Any) -> Any:
    """Between an attempt that came to nothing and the next."""
    if load_acquire(log + STOP):
        return STOPPED
    if outcome != CONFLICT:
        return outcome
    aborts = load(log + ABORTS) + 1
    store(log + ABORTS, aborts)
    if aborts >= INSIST_AFTER and not load(log + PASS):
        return INSIST
    for _ in range((1 << min(aborts, INSIST_AFTER)) - 2):
        pause()
    if aborts >= INSIST_AFTER:
        breathe()  # whoever is in the way may need the GIL to get out of it
    return AGAIN


@njit
def read_outside(clock: Any, at: Any) -> Any:
    """The last committed word of one element, by somebody who is in no transaction."""
    spins = 0
    while True:
        word = load_acquire(at)
        if load_acquire(at + 8) <= load_acquire(clock) & ~FLAGS:
            return word
        spins = linger(spins)  # its commit is not complete: whoever looked at another element now might see it half


@intrinsic
def upcall(typingctx: Any, log: Any, event: Any) -> Any:
    """Have Python do what `event` asks for, amid machine code. `INTERRUPT` is set if an exception is due."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        word = ir.IntType(64)
        clock = builder.load(builder.inttoptr(args[0], ir.PointerType(word)))
        place = builder.inttoptr(builder.add(clock, ir.Constant(word, UPCALL)), ir.PointerType(word))
        kind = ir.PointerType(ir.FunctionType(ir.VoidType(), [word, word]))
        function = builder.inttoptr(builder.load(place), kind)
        builder.call(function, list(args))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@njit
def act(log: Any, outcome: Any) -> None:
    """After `settle`, for those who can't return to Python and come back: do what it asks for. May leave by raising."""
    if outcome != AGAIN:
        if not signals_are_quiet():
            if load(log + PASS):
                upcall(log, RELENT)
            free_log(log)
            leave_with_python_error()
        upcall(log, outcome)
        if load(log + INTERRUPT):
            finish(log)


@njit
def finish(log: Any) -> None:
    """The end of a transaction whose log stands on the stack. Leaves by raising if an exception is due."""
    if load(log + PASS):
        upcall(log, RELENT)  # (which tells borrowed from owned)
    interrupted = load(log + INTERRUPT)
    free_log(log)
    if interrupted:
        leave_with_pending()


@njit
def peek_logged(log: Any, at: Any) -> Any:
    """The last committed word of the element at `at`, where the group's rows before the present one count as such."""
    if load(log + ROW_AT):
        writes = load(log + WRITES)
        entry = writes + load(log + ROW_AT)
        while entry > writes:
            entry -= 16
            if load(entry) == at:
                return load(entry + 8)
    return read_outside(load(log + CLOCK), at)


@njit
def write_outside(clock: Any, at: Any, word: Any) -> None:
    """One write that is a transaction of its own."""
    log = stack_log()
    set_up(log, clock)
    store(log + STATE, RUNNING)
    while True:
        begin(log)
        write(log, at, word)
        outcome = settle(log, 0)
        if outcome == DONE:
            break
        act(log, outcome)
    finish(log)


@inlined
def enter_scope(log: Any) -> Any:
    """A nested transaction begins. Returns what `leave_scope` and `undo_scope` need."""
    outer = load(log + SCOPE) - load(log + WRITES)
    store(log + SCOPE, load(log + WRITES_END))
    return outer << 32 | (load(log + WRITES_END) - load(log + WRITES))


@inlined
def leave_scope(log: Any, mark: Any) -> None:
    """It ended well."""
    store(log + SCOPE, load(log + WRITES) + (mark >> 32))


@njit
def undo_scope(log: Any, mark: Any) -> None:
    """It did not: forget what it wrote."""
    cut(log, load(log + WRITES) + (mark & OFFSET))
    store(log + SCOPE, load(log + WRITES) + (mark >> 32))


@inlined
def note_cost(profile: Any, begun: Any) -> None:
    """Keep an average of what calls of a transaction take, in ticks."""
    known = load(profile)
    store(profile, known + ((cycles() - begun - known) >> 2))


@njit
def note_pending(log: Any, row: Any) -> None:
    """List a row that retried; as its complement if it had read nothing that could ever change."""
    place = load(log + PENDING)
    store(place, row if load(log + READS_END) != load(log + READS) else ~row)
    store(log + PENDING, place + 8)
