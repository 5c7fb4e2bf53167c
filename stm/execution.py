"""The loop that runs attempts: one outermost call of a transaction, from its first attempt to its result.

After each attempt there is one verdict:

- the body returned and its writes were committed: the result;
- the body raised, and what it had read still stands: discard, and let the exception out;
- the body raised, but from reads that are stale by now: discard, run again (the exception may owe itself to them);
- the body, or the commit, met a conflict: discard, back off (`contention.py`), run again;
- the body called `retry()`: discard, sleep until something it read changes (`waiting.py`), run again.

Exceptions that don't come from the body's own logic are never taken for an answer to stale reads, hence never lost:
whatever is not an `Exception` (`KeyboardInterrupt`, `SystemExit`), whatever a signal handler raised, and whatever
strikes outside the body, in the middle of a commit for instance.

What an attempt holds (the exclusive lock, a snapshot, a place among the waiters) is let go by single C calls that are
the first thing an exception handler does, so that a second exception finds nothing left to leak.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from operator import call
from time import perf_counter
from types import CodeType, MethodType
from typing import Any, NoReturn

from stm.clock import (
    Cell,
    acquire,
    acquire_politely,
    clock,
    enter_exclusive,
    release,
    release_exclusive,
    seconds_until,
    unchanged,
    unhold,
)
from stm.contention import INSIST_AFTER, pause
from stm.errors import TransactionTimeout
from stm.hooks import run_all
from stm.snapshot import Snapshot, begin, end, forget
from stm.tally import Tally, tally_of
from stm.transaction import (
    READ_ONLY,
    UNTOUCHABLE,
    CommitTimeout,
    Extras,
    Restart,
    Retry,
    Signal,
    Transaction,
    commit_any,
    descriptor,
    here,
    in_one_call,
    refuse_elements,
)
from stm.waiting import sleep

Args = tuple[Any, ...]

FOREVER = 1e9  # seconds; no clock of this process will see the end of it
DISTURBANCE = "another transaction to end that must not be disturbed"


class Options:
    """How a transaction is to be run. Checked once, when it is declared."""

    __slots__ = ("irrevocable", "name", "read_only", "timeout")

    def __init__(self, timeout: float | None, read_only: bool, irrevocable: bool, name: str | None) -> None:
        if timeout is not None:
            if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
                raise TypeError(f"timeout must be a number of seconds or None, not {timeout!r}")
            if timeout != timeout or timeout < 0:
                raise ValueError(f"timeout must not be negative or NaN, got {timeout!r}; None waits without limit")
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name must be a string or None, not {name!r}")
        if read_only and irrevocable:
            raise ValueError(
                "read_only=True and irrevocable=True exclude each other: a read-only transaction never needs to be "
                "irrevocable, since it never aborts"
            )
        self.timeout = None if timeout is None else float(min(timeout, FOREVER))
        self.read_only = read_only
        self.irrevocable = irrevocable
        self.name = name

    def named_after(self, fn: Callable[..., Any]) -> Options:
        """The same, with the function's name if there was none."""
        if self.name is not None:
            return self
        name: str = getattr(fn, "__qualname__", None) or type(fn).__qualname__
        return Options(self.timeout, self.read_only, self.irrevocable, name.rpartition("<locals>.")[2])

    @property
    def plain(self) -> bool:
        """Can the first attempt take the quick way?"""
        return self.timeout is None and not self.read_only and not self.irrevocable


def _no_wait() -> None:
    pass


class Ended:
    """What is left of an attempt after its body: taken off the descriptor, which is free for others again."""

    __slots__ = ("extras", "fate", "reads", "rv")

    def __init__(self, reads: dict[Any, Cell], rv: int, extras: Extras | None, fate: type[Signal] | None) -> None:
        self.reads = reads
        self.rv = rv
        self.extras = extras
        self.fate = fate


class Execution:
    """One outermost call: its time limit, the aborts so far, and the deadlines of scopes inside it."""

    __slots__ = ("aborts", "began", "deadline", "deadlines", "insists", "options", "slow", "succeeded", "tally")

    def __init__(self, options: Options, tally: Tally | None = None) -> None:
        self.options = options
        self.tally = tally
        self.began = 0.0 if tally is None else perf_counter()
        self.slow = False  # has an attempt come to nothing?
        self.succeeded = False  # has one committed?
        self.aborts = 0
        self.insists = False
        self.deadline = None if options.timeout is None else time.monotonic() + options.timeout
        self.deadlines: dict[tuple[object, int], float] = {}

    def run(self, fn: Callable[..., Any], args: Args, kwargs: Mapping[str, Any]) -> Any:
        """Attempt until one attempt commits. Returns what it returned, or raises what ended the call."""
        try:
            while True:
                result, failure = self.attempt(fn, args, kwargs)
                if failure is None:
                    return result
                self.recover(failure)
        finally:
            self.count()

    def count(self) -> None:
        """The call is over: count it, if it is to be counted."""
        tally = self.tally
        if tally is None:
            return
        if self.succeeded:
            tally.commits += 1
        else:
            tally.failures += 1
        if self.slow:
            tally.time_slow(self.began)
        else:
            tally.time(self.began, 1)

    def attempt(self, fn: Callable[..., Any], args: Args, kwargs: Mapping[str, Any]) -> tuple[Any, Ended | None]:
        """One attempt: its result and None, or None and what to recover from. Raises what is not to be recovered."""
        options = self.options
        tx = descriptor()
        exclusive = options.irrevocable or self.insists or self.aborts >= INSIST_AFTER
        token = Snapshot() if options.read_only and not exclusive else None
        ending = map(call, (unhold, release_exclusive))
        extras = Extras(self.deadlines)
        extras.exclusive = exclusive
        extras.irrevocable = options.irrevocable
        patience = seconds_until(self.deadline)
        me = threading.get_ident()
        outermost = clock.owner != me
        reads: dict[Any, Cell] = {}
        writes: dict[Any, Any] = {}
        try:
            if exclusive:
                if not enter_exclusive(patience):
                    self.time_out(DISTURBANCE)
                become_exclusive(me)
            elif token is not None:
                begin(token)
            try:
                tx.reads = reads
                tx.extras = extras
                tx.scope = READ_ONLY if options.read_only else None
                tx.snapshot = token
                tx.rv = clock.now if token is None else token.version
                tx.writes = writes
                result = fn(*args, **kwargs)
                if options.read_only:
                    refuse_elements(extras)
            except BaseException as error:
                tx.writes = tx.reads = None
                rv, fate = tx.rv, tx.fate
                tx.extras = tx.scope = tx.snapshot = tx.fate = tx.held = None
                ended = Ended(reads, rv, extras, fate)
                if ends_call(error, ended, consistent=token is not None):
                    raise
                return None, ended
            tx.writes = tx.reads = None
            rv, fate = tx.rv, tx.fate
            tx.extras = tx.scope = tx.snapshot = tx.fate = tx.held = None
            ended = Ended(reads, rv, extras, fate)
            # (What a read-only attempt has "written" are timers whose time had come.)
            if conclude(ended, {} if options.read_only else writes, self.deadline):
                self.succeeded = True
                return result, None
            return None, ended
        except CommitTimeout:
            self.time_out(DISTURBANCE)
        finally:
            # First of all, and by one C call: what others would miss. An attempt holds one of these at most.
            if exclusive:
                try:
                    if outermost and clock.owner == me:
                        clock.owner = None
                        in_one_call(ending)
                    else:
                        release_exclusive()
                except RuntimeError:
                    pass  # an exception came before it was acquired
            elif token is not None:
                forget(token, None)
            try:
                if token is not None:
                    end(token)
                if self.tally is not None:
                    self.tally.collect(tx)
                run_hooks(extras)
            except BaseException:
                run_hooks(extras)  # those that an exception from outside has left
                raise

    def recover(self, ended: Ended) -> None:
        """Between an attempt that came to nothing and the next: sleep, or back off."""
        if not self.blocks(ended):
            if self.aborts:
                pause(self.aborts)
            return
        extras = ended.extras
        end_wait = self.begin_wait()
        try:
            if sleep(ended.reads, self.wake_by(ended), self.options.name):
                return
        finally:
            end_wait()
            if extras is not None and extras.arrays is not None:
                extras.arrays.slept()
        self.check_deadline(ended)

    def blocks(self, ended: Ended) -> bool:
        """Did the attempt call `retry()`, so that the next has to wait for a change of what it read? Counts it."""
        extras, tally = ended.extras, self.tally
        self.slow = True
        if extras is not None:
            self.deadlines = extras.deadlines
            if extras.insists:
                self.insists = True
                return False
        if ended.fate is not Retry:
            self.aborts += 1
            if tally is not None:
                tally.blame(ended.reads)
            return False
        self.aborts = 0
        if tally is not None:
            tally.retries += 1
        if extras is not None and extras.arrays is not None:
            extras.arrays.forget_unread(ended.reads)
        if self.deadline is not None and time.monotonic() >= self.deadline and ended.reads:
            self.time_out(describe(ended.reads))
        return True

    def wake_by(self, ended: Ended) -> float | None:
        """Until when to wait for a change of what the attempt read (on `time.monotonic`)."""
        scopes = None if ended.extras is None else ended.extras.wake_at
        limits = [self.deadline, scopes, *(tvar._due for tvar in ended.reads)]
        return min((limit for limit in limits if limit is not None), default=None)

    def begin_wait(self) -> Callable[[], None]:
        """Called before a wait; returns what to call after it."""
        tally = self.tally
        if tally is None:
            return _no_wait
        tally.waits += 1
        return partial(tally.end_wait, perf_counter())

    def check_deadline(self, ended: Ended) -> None:
        """Raise `TransactionTimeout` if the wait ended because the time was up."""
        if self.deadline is not None and time.monotonic() >= self.deadline and unchanged(ended.reads):
            self.time_out(describe(ended.reads))

    @property
    def is_special(self) -> bool:
        """Must the next attempt be made by `attempt`, or would a plain one do?"""
        return self.insists or self.aborts >= INSIST_AFTER or bool(self.deadlines) or not self.options.plain

    def time_out(self, what: str) -> NoReturn:
        raise timed_out(self.options, what) from None


def timed_out(options: Options, what: str) -> TransactionTimeout:
    name = f"transaction {options.name!r}" if options.name else "a transaction"
    return TransactionTimeout(f"{name} waited {options.timeout:g} s in vain for {what}")


def describe(reads: Mapping[Any, Cell]) -> str:
    """The variables that a transaction waited for, in a few words."""
    shown = [repr(tvar) for tvar in list(reads)[:3]]
    if len(reads) > len(shown):
        shown.append(f"{len(reads) - len(shown)} more")
    return "a change of " + ", ".join(shown)


def become_exclusive(me: int) -> None:
    """Tell committers that the calling thread, `me`, holds `clock.exclusive`, and that they have to wait for it."""
    try:
        if not acquire(False):
            acquire_politely()
        clock.owner = me
        clock.quiet = False
    except BaseException:
        try:
            release()
        except RuntimeError:
            pass
        raise
    release()


def conclude(ended: Ended, writes: dict[Any, Any], deadline: float | None = None) -> bool:
    """Commit an attempt whose body returned. False if it has to run again."""
    extras = ended.extras
    if ended.fate is not None or ended.rv < 0:
        return False  # the body swallowed a Signal, or an undo was cut short
    if not writes and (extras is None or extras.arrays is None or not extras.arrays.wrote()):
        if extras is not None:
            extras.committed = True
        return True
    return commit_any(ended.reads, writes, ended.rv, extras, deadline)


def run_hooks(extras: Extras) -> None:
    """Run the hooks that the end of an attempt calls for, each once, however often this is called."""
    if extras.due is None:
        extras.due = iter(extras.on_commit if extras.committed else extras.on_rollback)
    run_all(extras.due)


def ends_call(error: BaseException, ended: Ended, consistent: bool) -> bool:
    """Does this exception, which left the outermost body, end the call? If not, the body is to run again.

    `consistent`: the attempt read a snapshot, which can't be stale. Raises what came from outside, if `error` has
    merely taken its place.
    """
    if not isinstance(error, Signal):
        if not isinstance(error, Exception):
            return True
        if ended.fate is None and (consistent or unchanged(ended.reads)):
            return True
        if from_signal_handler(error):
            return True
        if ended.extras is not None and ended.extras.irrevocable:
            return True
    elif ended.fate is None:
        ended.fate = Restart  # raised by hand
    if error.__context__ is not None or error.__cause__ is not None:
        intruder = from_outside(error)
        if intruder is not None:
            raise intruder
    return False


def from_outside(error: BaseException) -> BaseException | None:
    """The exception from outside (Ctrl-C, a signal handler's) in whose stead `error` left the body, if there is one.

    It is in the context of `error`, and was on its way through the body's own frames, unlike one that was being handled
    already when the transaction began.
    """
    frames = set()
    step = error.__traceback__.tb_next if error.__traceback__ is not None else None
    while step is not None:
        frames.add(step.tb_frame)
        step = step.tb_next
    seen = {id(error)}
    earlier = error.__cause__ or error.__context__
    while earlier is not None and id(earlier) not in seen:
        seen.add(id(earlier))
        passed = earlier.__traceback__
        was_here = passed is not None and passed.tb_frame in frames and not isinstance(earlier, Signal)
        if was_here and (not isinstance(earlier, Exception) or from_signal_handler(earlier)):
            return earlier
        earlier = earlier.__cause__ or earlier.__context__
    return None


def from_signal_handler(error: BaseException) -> bool:
    """Was this exception raised by a signal handler that interrupted the body? Its traceback shows the handler."""
    if threading.current_thread() is not threading.main_thread():
        return False
    import signal

    handlers: set[CodeType] = set()
    for number in signal.valid_signals():
        handler: Any = signal.getsignal(number)
        while isinstance(handler, MethodType) or hasattr(handler, "func"):
            handler = handler.__func__ if isinstance(handler, MethodType) else handler.func
        code = getattr(handler, "__code__", None)
        if code is None and callable(handler):
            code = getattr(type(handler).__call__, "__code__", None)
        if code is not None:
            handlers.add(code)
    step = error.__traceback__
    while step is not None:
        if step.tb_frame.f_code in handlers:
            return True
        step = step.tb_next
    return False


def transact(options: Options, fn: Callable[..., Any], args: Args, kwargs: Mapping[str, Any]) -> Any:
    """Run `fn` once as a transaction, or as a scope of the one that is running already."""
    tx = descriptor()
    if tx.writes is not None:
        return nest(tx, options, fn, args, kwargs)
    return Execution(options, None if clock.book is None else tally_of(tx, options.name)).run(fn, args, kwargs)


def nest(tx: Transaction, options: Options, fn: Callable[..., Any], args: Args, kwargs: Mapping[str, Any]) -> Any:
    """Run `fn` as a scope of the running transaction `tx`."""
    if options.irrevocable:
        make_irrevocable(tx)
    deadline = None if options.timeout is None else deadline_of_scope(tx, options, fn)
    try:
        return in_scope(tx, options.read_only, fn, args, kwargs)
    except Retry:
        if deadline is None:
            raise
        if time.monotonic() < deadline:
            extras = tx.more()
            extras.wake_at = deadline if extras.wake_at is None else min(extras.wake_at, deadline)
            raise
        tx.rv, tx.fate = tx.resume_at, None
    raise timed_out(options, describe(tx.reads))


def in_scope(tx: Transaction, read_only: bool, fn: Callable[..., Any], args: Args, kwargs: Mapping[str, Any]) -> Any:
    """Run `fn` as a part of the running transaction `tx` whose writes and hooks are discarded if it raises."""
    scope = tx.new_scope(read_only)
    tx.scope = scope
    try:
        result = fn(*args, **kwargs)
        if tx.fate is not None:
            tx.doom(tx.fate)  # the body has swallowed it; to an `or_else` around it, that is a retry all the same
        tx.leave_scope(scope)
        return result
    except BaseException as error:
        # The attempt is dead until the scope is undone, and what strikes meanwhile doesn't join it.
        if tx.fate is Retry and error.__class__ is not Retry:
            tx.fate = None  # something else took the place of a retry in this scope, which ends with it
        if tx.rv >= 0:
            tx.resume_at = tx.rv
            tx.rv = -1
        if tx.held is not None:
            tx.writes, tx.held = tx.held, None
        here.tx = tx.spare
        try:
            tx.undo_scope(scope)
        except BaseException:
            here.tx = tx
            if tx.rv >= 0:
                tx.resume_at = tx.rv
                tx.rv = -1
            tx.held, tx.writes = tx.writes, UNTOUCHABLE  # nobody is to see them half undone
            if tx.fate is Retry:
                tx.fate = None  # it was on its way when this came in between, and will not arrive
            raise
        here.tx = tx
        raise


def deadline_of_scope(tx: Transaction, options: Options, fn: Callable[..., Any]) -> float:
    """When a nested scope's time is up: counted from its first entry, in whichever attempt that was.

    Scopes are told apart by their code (a method's also by its object), their limit, and their order of entry: the
    function itself, and its options, may well be made anew in each attempt.
    """
    assert options.timeout is not None
    extras = tx.more()
    what = fn if isinstance(fn, MethodType) else getattr(fn, "__code__", fn)
    kind = (what, options.timeout)
    ordinal = extras.entered[kind] = extras.entered.get(kind, 0) + 1
    return extras.deadlines.setdefault((kind, ordinal), time.monotonic() + options.timeout)


def make_irrevocable(tx: Transaction) -> None:
    """From here on the running transaction can't abort.

    An attempt that others may disturb ends here, and the next one is exclusive from its start: so the scope still runs
    exactly once, and there is one place only where exclusiveness is taken and given back.
    """
    extras = tx.more()
    if tx.snapshot is None and not extras.exclusive:
        extras.insists = True
        tx.doom(Restart)
    if tx.fate is not None:
        raise tx.fate
    extras.irrevocable = True
