"""`TPromise`: a result that somebody will supply, once. The two ends of `concurrent.futures.Future` in one object.

Promises: it is completed once, by `set_result` or `set_exception`; the second gets `InvalidStateError`, and of two at
the same moment exactly one does. In a transaction it is completed if and when that commits, and to no one else before.
Whoever asks for the result waits for it, and gets the exception raised if one was set: the very object, with the
traceback that it had when it was set and the frames of this call, not of those before.

Callbacks run once, after the commit that completed the promise, outside any transaction, in the thread that did it, in
the order in which they were added. An `Exception` in one is logged (logger `stm`), as futures do; others are raised.

Conflicts: completion, with everything that waits or looks; adding a callback, with the same.

Cost: less than a microsecond to complete or to ask where nothing is to wait for; some microseconds with callbacks.

>>> from stm import TPromise, TVar, atomically
>>> answer, log = TPromise(name="answer"), []
>>> answer.add_done_callback(lambda promise: log.append(promise.result()))
>>> @atomically
... def decide():
...     answer.set_result(42)
...     return answer.done(), log.copy()
>>> decide(), log, answer
((True, []), [42], <TPromise 'answer' result=42>)
>>> answer.set_exception(KeyError("late"))
Traceback (most recent call last):
    ...
concurrent.futures._base.InvalidStateError: <TPromise 'answer' result=42> is done already
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, TypeVar

from stm import TVar, on_commit
from stm.sync._synchronizer import WAIT, Synchronizer, Waits, seconds

T = TypeVar("T")

Callbacks = tuple[Callable[[Any], object], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Done:
    """How a promise ended: with `value`, unless there is an `error`."""

    value: Any = None
    error: BaseException | None = None
    traceback: TracebackType | None = None

    def __repr__(self) -> str:
        return f"result={reprlib.repr(self.value)}" if self.error is None else f"exception={self.error!r}"


State = Callbacks | Done

NOBODY: Callbacks = ()


class TPromise(Synchronizer, Generic[T]):
    """A promise of one result. `name` is for messages and statistics alone.

    Where an operation takes a `timeout` (seconds) and waits longer, it raises `TransactionTimeout`.
    """

    __slots__ = ("_state",)

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__(name)
        self._state: TVar[State] = TVar(NOBODY, name=name)

    def set_result(self, result: T) -> None:
        """Complete the promise. `concurrent.futures.InvalidStateError` if it is done already."""
        self._complete("set_result", Done(result))

    def set_exception(self, exception: BaseException) -> None:
        """Complete the promise with an exception, for `result` to raise. `InvalidStateError` if it is done already."""
        if not isinstance(exception, BaseException):
            raise TypeError(f"set_exception() takes an exception (an instance, not a class), not {exception!r}")
        self._complete("set_exception", Done(None, exception, exception.__traceback__))

    def result(self, timeout: float | None = None) -> T:
        """The result, once there is one; raises what was set as exception."""
        done = self._wait("result", timeout)
        if done.error is None:
            return done.value  # type: ignore[no-any-return]
        try:
            raise done.error.with_traceback(done.traceback)
        finally:
            del self, done  # the exception's traceback leads here: without these there is no cycle

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The exception that was set, or `None` if it was a result."""
        return self._wait("exception", timeout).error

    def done(self) -> bool:
        """Is there a result or an exception?"""
        return isinstance(self._state.get(), Done)

    def add_done_callback(self, fn: Callable[[TPromise[T]], object]) -> None:
        """Call `fn(promise)` when the promise is done, or now if it is; in a transaction, if and when that commits."""
        if not callable(fn):
            raise TypeError(f"add_done_callback() takes a function of the promise, not {fn!r}")
        self._transact("add_done_callback", None, self._add, fn)

    def _add(self, fn: Callable[[TPromise[T]], object]) -> None:
        state = self._state.get()
        if isinstance(state, Done):
            on_commit(self._call, fn)
        else:
            self._state.set((*state, fn))

    def _wait(self, operation: str, timeout: float | None) -> Done:
        done = self._revise(self._state, operation, None if timeout is None else seconds(timeout), _done)
        assert isinstance(done, Done)
        return done

    def _complete(self, operation: str, done: Done) -> None:
        if self._state.get() is NOBODY and self._state.compare_and_set(NOBODY, done):
            return
        self._transact(operation, None, self._completed, done)

    def _completed(self, done: Done) -> None:
        state = self._state.get()
        if isinstance(state, Done):
            from concurrent.futures import InvalidStateError  # (takes longer to load than all of this library)

            raise InvalidStateError(f"{self._describe(state)} is done already")
        self._state.set(done)
        for fn in state:
            on_commit(self._call, fn)

    def _call(self, fn: Callable[[TPromise[T]], object]) -> None:
        try:
            fn(self)
        except Exception:
            import logging

            logging.getLogger("stm").exception("a callback of %r failed", self)

    def __repr__(self) -> str:
        state = self._state.peek()
        return self._describe(state if isinstance(state, Done) else "pending")


def _done(state: State) -> State | Waits:
    return state if isinstance(state, Done) else WAIT
