"""`Future`: the result of a work that was submitted, whose state is a transactional variable.

Promises: a `Future` is a `concurrent.futures.Future`, and may be used wherever one is expected: `as_completed`, `wait`,
`asyncio.wrap_future`, callbacks. Beyond that, `result`, `done` and the others may be called in a transaction: they are
a part of it, and `result` waits by `retry`, so that `or_else(a.result, b.result)` waits for either. (In the transaction
that submits the work its result can't be waited for: the work isn't there before the commit. And nobody stands in for a
worker who waits so: see below.) `cancel` is one
transaction with the queue's: the work is cancelled, or was begun, and every picture says so.

A worker who waits for a future lets others run: if the work that it waits for is still queued, it runs it there and
then; otherwise another worker stands in for it as long as it waits, if there is anything to do. So works may submit
works and wait for them, however few workers there are. (The functions of `concurrent.futures` put the thread to sleep,
and its worker with it: see `blocking`.)

Whoever waits for a work runs its callbacks not: the thread that ends the work does, after the commit. An exception in
one is logged.

Cost: 0.6 µs and some 500 bytes, of which the standard library's would take 1,600.

>>> from hive_task import Scheduler
>>> with Scheduler(workers=1) as scheduler:
...     future = scheduler.submit(pow, 2, 10)
...     future.result(), future.done(), future.cancel()
(1024, True, False)
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, InvalidStateError
from concurrent.futures import Future as StandardFuture
from typing import TYPE_CHECKING, Any, TypeVar

from hive_task.uninvited import OUTSIDE
from stm import TransactionTimeout, TVar, in_transaction, on_commit, on_rollback, retry, run

if TYPE_CHECKING:
    from hive_task.dispatch import Dispatch
    from hive_task.work import Work

T = TypeVar("T")

log = logging.getLogger(__name__)

#: The states of a future, `(status, value)`. The value of one that is not done: its callbacks.
QUEUED, CLAIMED, CANCELLED, FAILED, FINISHED = range(5)

State = tuple[int, Any]

#: As it begins. (Futures are made with a constant of the code instead, of which threads need not count the references.)
NEW: State = (QUEUED, ())
GONE: State = (CANCELLED, None)

#: `here.worker` is the worker whose thread this is.
here = threading.local()

_NAMES = {CANCELLED: "CANCELLED_AND_NOTIFIED", FAILED: "FINISHED", FINISHED: "FINISHED"}


class Future(StandardFuture[T]):
    """What will come of a work. Schedulers make these; `set_result` and its like are not for others."""

    __slots__ = ("_context", "_dispatch", "_put_at", "_runs", "_var", "_work")

    #: Somebody would like the work to end, though it has begun. Works look at it by `current_work`.
    cancel_requested = False

    # (The parent's `__init__` makes a lock and a condition, which would be most of the cost of a work.)
    def __init__(self, work: Work | None, context: Any, dispatch: Dispatch | None) -> None:
        self._work = work
        self._context = context
        self._dispatch = dispatch
        self._put_at = time.monotonic()
        self._runs = 0
        self._var: TVar[State] = TVar((0, ()))  # NEW

    # What has become of it.

    def done(self) -> bool:
        return self._var.get()[0] >= CANCELLED

    def cancelled(self) -> bool:
        return self._var.get()[0] == CANCELLED

    def running(self) -> bool:
        return self._dispatch is not None and self._dispatch.is_running(self)

    def result(self, timeout: float | None = None) -> T:
        """What the work returned. Raises what it raised; `CancelledError`; `TimeoutError` after so many seconds."""
        status, value = self._var.get()
        if status < CANCELLED:
            status, value = self._wait(timeout)
        if status == FINISHED:
            return value  # type: ignore[no-any-return]
        try:
            if status == CANCELLED:
                raise CancelledError
            raise value
        finally:
            self = value = None  # type: ignore[assignment] # the traceback refers to this frame

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the work raised, or None. Waits, and raises, as `result` does."""
        status, value = self._var.get()
        if status < CANCELLED:
            status, value = self._wait(timeout)
        if status == CANCELLED:
            raise CancelledError
        return value if status == FAILED else None

    def _wait(self, timeout: float | None) -> State:
        if timeout is None and not in_transaction() and getattr(here, "worker", None) is None:
            return await_outcome(self, None)
        if timeout is not None:
            if timeout <= 0:
                raise TimeoutError
            timeout = float(timeout)
        try:
            if in_transaction():
                return run(_outcome, self._var, timeout=timeout) if timeout is not None else _outcome(self._var)
            worker = getattr(here, "worker", None)
            if worker is not None:
                return worker.wait_for(self, timeout)  # type: ignore[no-any-return]
            return await_outcome(self, timeout)
        except TransactionTimeout:
            raise TimeoutError from None

    # What is to be done with it.

    def cancel(self) -> bool:
        """Cancel the work if it has not begun. True if it is cancelled, now or before."""
        if self._dispatch is None:
            return self.cancelled()
        cancelled, callbacks = self._dispatch.cancel(self)
        if cancelled:
            if in_transaction():
                on_commit(self._cancelled, callbacks)
            else:
                self._cancelled(callbacks)
        return cancelled

    def _cancelled(self, callbacks: tuple[Callable[[Any], object], ...]) -> None:
        self._forget()
        self._tell(callbacks)

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        """Call `fn(future)` once it is done; at once if it is. Callbacks are called in the order of their addition."""
        if not callable(fn):
            raise TypeError(f"a callback is called with the future; {fn!r} can't be")
        while True:
            state = self._var.get()
            if state[0] >= CANCELLED:
                break
            if self._var.compare_and_set(state, (state[0], (*state[1], fn))):
                return
        if in_transaction():
            on_commit(self._tell, (fn,))
        else:
            self._tell((fn,))

    def _tell(self, callbacks: tuple[Callable[[Any], object], ...]) -> None:
        for position, callback in enumerate(callbacks):
            try:
                callback(self)
            except Exception:
                log.exception("a callback of %r raised an exception: %r", self, callback)
            except BaseException:
                self._tell(callbacks[position + 1 :])
                raise

    def _tell_safely(self, callbacks: tuple[Callable[[Any], object], ...]) -> None:
        """The same for a thread that has more to do: what callbacks raise, `SystemExit` too, is nothing to it."""
        try:
            self._tell(callbacks)
        except BaseException:
            log.exception("a callback of %r raised more than an exception", self)

    def _belong(self) -> None:
        """It is made in a transaction: nobody will run the work if that doesn't commit."""
        self._var = TVar(GONE)
        self._var.set(NEW)

    def _end(self, state: State) -> tuple[Callable[[Any], object], ...]:
        """Part of a transaction: this is what came of the work. Returns the callbacks, to be called after it."""
        callbacks: tuple[Callable[[Any], object], ...] = self._var.get()[1]
        self._var.set(state)
        return callbacks

    def _priority(self) -> int:
        work = self._work
        return 0 if work is None else work.options.priority

    def _forget(self) -> None:
        """Let go of what was needed to run the work."""
        self._work = self._context = None

    def __repr__(self) -> str:
        status, value = self._var.peek()
        work = self._work
        what = "" if work is None else f" of {work!r}"
        name = ("queued", "claimed", "cancelled", "failed", "finished")[status]
        if status < CANCELLED:
            name = "running" if self._dispatch is not None and not in_transaction() and self.running() else "pending"
        if status == FAILED:
            what += f" raised {type(value).__name__}"
        elif status == FINISHED:
            what += f" returned {type(value).__name__}"
        return f"<{type(self).__name__} at {id(self):#x} state={name}{what}>"

    # For the functions of `concurrent.futures` and `asyncio`, which look inside.

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]
        return self._standard().condition

    @property
    def _waiters(self) -> list[Any]:  # type: ignore[override]
        return self._standard().waiters

    @property
    def _state(self) -> str:  # type: ignore[override]
        standard = self.__dict__.get("standard")
        if standard is not None:
            return standard.state  # type: ignore[no-any-return]
        return _NAMES.get(self._var.get()[0]) or ("RUNNING" if self.running() else "PENDING")

    def _standard(self) -> _Standard:
        found = self.__dict__.get("standard")
        if found is None:
            made = _Standard()
            found = self.__dict__.setdefault("standard", made)
            if found is made:
                if in_transaction():
                    on_rollback(self.__dict__.pop, "standard", None)
                self.add_done_callback(made.announce)
        return found

    def _get_snapshot(self) -> tuple[bool, bool, Any, BaseException | None]:
        status, value = self._var.get()
        return (
            status >= CANCELLED,
            status == CANCELLED,
            value if status == FINISHED else None,
            value if status == FAILED else None,
        )

    def set_running_or_notify_cancel(self) -> bool:
        raise self._not_yours("set_running_or_notify_cancel")

    def set_result(self, result: T) -> None:
        raise self._not_yours("set_result")

    def set_exception(self, exception: BaseException | None) -> None:
        raise self._not_yours("set_exception")

    def _not_yours(self, name: str) -> InvalidStateError:
        return InvalidStateError(
            f"{name}() is not for this future: what becomes of its work is its scheduler's to say. "
            "To set a result by hand, use stm.TPromise or concurrent.futures.Future"
        )


OUTSIDE.add(Future._tell.__code__)


class _Standard:
    """What the standard library's functions expect to find in a future: made when one of them looks.

    They take the condition's lock, look at the state, and add a waiter: so the state as they see it changes under that
    lock, in the same step that tells the waiters.
    """

    __slots__ = ("condition", "state", "waiters")

    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.waiters: list[Any] = []
        self.state = "PENDING"

    def announce(self, future: Future[Any]) -> None:
        status = future._var.peek()[0]
        with self.condition:
            self.state = _NAMES[status]
            for waiter in self.waiters:
                if status == CANCELLED:
                    waiter.add_cancelled(future)
                elif status == FAILED:
                    waiter.add_exception(future)
                else:
                    waiter.add_result(future)
            self.condition.notify_all()


def _outcome(var: TVar[State]) -> State:
    state = var.get()
    if state[0] < CANCELLED:
        retry()
    return state


def await_outcome(future: Future[Any], timeout: float | None) -> State:
    """Sleep until it is done. `TimeoutError` after so many seconds."""
    var = future._var
    if timeout is None:
        while (state := var.get())[0] < CANCELLED:
            var.await_change(state)
        return state
    deadline = time.monotonic() + timeout
    while (state := var.get())[0] < CANCELLED:
        if not var.await_change(state, timeout=max(0.0, deadline - time.monotonic())):
            raise TimeoutError
    return state
