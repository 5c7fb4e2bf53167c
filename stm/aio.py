"""Transactions awaited from an event loop.

Promises
--------
The body is a plain function and runs on the loop's thread, without awaiting. When it calls `retry()`, the task waits
and the loop runs on; the task wakes when a variable that the body read has changed, whoever changed it: a task of this
loop, a task of another loop, or a thread. No polling, no lost wake-up, no thread. However the wait ends, also by
`asyncio.timeout` or a cancelled task, nothing of it is left behind. All other promises of `stm.atomically` hold as they
stand, `timeout=` included. Works with any event loop that has `add_reader`: asyncio's on POSIX systems, and uvloop.

Cost: some microseconds more than the transaction, and for a wait some twenty more on the loop's side. Thousands of
tasks may wait at once; one commit wakes them all, and pays about a microsecond for each.

A body, its commit included, holds up the loop while it runs, so keep it short. That includes waiting for a transaction
of another thread that must not be disturbed (`irrevocable=True`), as any commit has to.

>>> import asyncio, stm
>>> from stm import TVar, aio, check
>>> stock = TVar(0)
>>> @aio.atomically
... def take():
...     check(stock.value > 0)
...     stock.value -= 1
...     return "taken"
>>> async def main():
...     async with asyncio.TaskGroup() as tasks:
...         waiting = tasks.create_task(take())
...         await aio.run(stock.set, 1)
...     return waiting.result()
>>> asyncio.run(main())
'taken'

Rejected: waiting in a thread of an executor (a thread for each task that waits), and `loop.call_soon_threadsafe` as
what a committer calls (it is a Python function, in which a signal could strike between publishing and waking).
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial, update_wrapper
from operator import call, methodcaller
from typing import Any, ParamSpec, TypeVar, overload

from stm.atomically import check_function
from stm.clock import Cell, acquire, release, seconds_until, unchanged
from stm.contention import PATIENT_AFTER, pause_before
from stm.execution import Args, Ended, Execution, Options
from stm.tally import tally_of
from stm.transaction import descriptor, in_one_call
from stm.waiting import Waiter, refuse_endless

__all__ = ["atomically", "run"]

P = ParamSpec("P")
R = TypeVar("R")


@overload
def atomically(fn: Callable[P, R], /) -> Callable[P, Awaitable[R]]: ...


@overload
def atomically(
    *, timeout: float | None = None, read_only: bool = False, irrevocable: bool = False, name: str | None = None
) -> Callable[[Callable[P, R]], Callable[P, Awaitable[R]]]: ...


def atomically(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    timeout: float | None = None,
    read_only: bool = False,
    irrevocable: bool = False,
    name: str | None = None,
) -> Any:
    """Make each call of a plain function one transaction that is awaited. The options are those of `stm.atomically`."""
    options = Options(timeout, read_only, irrevocable, name)
    if fn is None:
        return partial(_decorate, options=options)
    return _decorate(fn, options)


def _decorate(fn: Callable[..., Any], options: Options) -> Callable[..., Awaitable[Any]]:
    check_function("aio.atomically", fn)
    options = options.named_after(fn)

    async def transaction(*args: Any, **kwargs: Any) -> Any:
        return await _transact(options, fn, args, kwargs)

    return update_wrapper(transaction, fn)


async def run(
    fn: Callable[..., R],
    *args: Any,
    timeout: float | None = None,
    read_only: bool = False,
    irrevocable: bool = False,
    name: str | None = None,
) -> R:
    """Call the plain function `fn(*args)` once as a transaction, and await it. The options are `stm.atomically`'s.

    Anything that waits by `retry` may be awaited so: `await aio.run(queue.get)`.
    """
    check_function("aio.run", fn)
    if name is None:
        name = getattr(fn, "__qualname__", None)
    result: R = await _transact(Options(timeout, read_only, irrevocable, name), fn, args, {})
    return result


async def _transact(options: Options, fn: Callable[..., Any], args: Args, kwargs: Mapping[str, Any]) -> Any:
    tx = descriptor()
    if tx.writes is not None:
        raise RuntimeError(
            "a transaction can't be awaited inside the body of another one: a body runs from its start to its end "
            "without awaiting. Call the plain function there, and it joins the transaction"
        )
    return await _Awaited(options, tally_of(tx, options.name)).finish(fn, args, kwargs)


class _Awaited(Execution):
    """An execution that awaits where others sleep."""

    __slots__ = ()

    async def finish(self, fn: Callable[..., Any], args: Args, kwargs: Mapping[str, Any]) -> Any:
        try:
            while True:
                result, failure = self.attempt(fn, args, kwargs)
                if failure is None:
                    return result
                await self._recover(failure)
        finally:
            self.count()

    async def _recover(self, ended: Ended) -> None:
        if not self.blocks(ended):
            # Others may only be given the chance to get on if they are in other threads.
            await asyncio.sleep(pause_before(self.aborts) if self.aborts > PATIENT_AFTER else 0)
            return
        extras = ended.extras
        end_wait = self.begin_wait()
        try:
            changed = await _wait(ended.reads, self.wake_by(ended), self.options.name)
        finally:
            end_wait()
            if extras is not None and extras.arrays is not None:
                extras.arrays.slept()
        if not changed:
            self.check_deadline(ended)


class TaskWaiter(Waiter):
    """A task that waits."""

    __slots__ = ("task",)

    def __init__(self, wake: Callable[[], object], reads: Mapping[Any, Cell], name: str | None) -> None:
        super().__init__(wake, reads, name)
        self.task = asyncio.current_task()


async def _wait(reads: dict[Any, Cell], deadline: float | None, name: str | None) -> bool:
    """Await a change of one of `reads`; False if `deadline` (on `time.monotonic`) came first."""
    refuse_endless(reads, name)
    loop = asyncio.get_running_loop()
    woken = loop.create_future()
    bell = Bell.of(loop)
    waiter = timer = None
    withdrawal: Iterator[None] = iter(())
    try:
        waiter = TaskWaiter(bell.wake(woken), reads, name)
        waiter.places.append(bell.waiters)  # so that it leaves them all by one C call
        withdrawal = waiter.withdrawal()
        bell.waiters[waiter] = None
        if not waiter.register(reads):
            return True
        if deadline is not None:
            timer = loop.call_later(seconds_until(deadline), _resolve, woken)
        await woken
        return not unchanged(reads)
    finally:
        in_one_call(withdrawal)
        try:
            if timer is not None:
                timer.cancel()
            if waiter is not None:
                waiter.tidy()
        finally:
            bell.leave()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Bell:
    """How committers in any thread wake the tasks of one event loop.

    A committer appends the task's future to `woken`, and writes a byte to a pipe that the loop reads. Both are done by
    one C call, as `stm.waiting` asks of wakers, and must not block: so the byte is written only by the first since the
    loop last looked. `ring` is what the committer calls; once used it does nothing, until the loop makes a new one. It
    does so before it empties `woken`: whoever appends later rings again.

    A bell lives as long as tasks of the loop wait. `_bells` holds them by loop.
    """

    __slots__ = ("__weakref__", "_reader", "_writer", "loop", "ring", "waiters", "woken")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.waiters: dict[Waiter, None] = {}
        self.woken: deque[asyncio.Future[None]] = deque()
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        self._arm()

    @staticmethod
    def of(loop: asyncio.AbstractEventLoop) -> Bell:
        """The bell of the running loop, hung up if need be."""
        bell = _bells.get(loop)
        if bell is None:
            for other in list(_bells.values()):
                if other.loop.is_closed():
                    other.abandon()
            bell = Bell(loop)
            try:
                loop.add_reader(bell._reader, bell._answer)
                _bells[loop] = bell
            except BaseException:
                _bells.pop(loop, None)
                loop.remove_reader(bell._reader)
                bell._close()
                raise
        return bell

    def wake(self, future: asyncio.Future[None]) -> Callable[[], object]:
        """What a committer is to call to wake the task that awaits this future. For one use."""
        steps: tuple[Callable[[], object], ...] = (partial(self.woken.append, future), partial(_ring, self))
        return partial(in_one_call, map(call, steps))

    def _arm(self) -> None:
        self.ring: Callable[[], object] = partial(next, map(os.write, [self._writer], [b"\0"]), None)

    def _answer(self) -> None:
        """Called by the loop when the bell has rung."""
        # The byte is taken last: should an exception strike before, the loop finds it, and calls again. And one byte
        # only: whoever rings from here on has written another.
        self._arm()
        woken = self.woken
        for _ in range(len(woken)):
            _resolve(woken[0])
            woken.popleft()
        os.read(self._reader, 1)

    def leave(self) -> None:
        """One who waited does so no longer. The last one takes the bell down."""
        if self.waiters:
            return
        if asyncio._get_running_loop() is self.loop or self.loop.is_closed():
            self._take_down()
        else:
            # A coroutine that was never finished died elsewhere: the loop itself must decide.
            self.loop.call_soon_threadsafe(self._take_down)

    def _take_down(self) -> None:
        if not self.waiters and _bells.get(self.loop) is self and _bells.pop(self.loop, None) is self:
            if not self.loop.is_closed():
                self.loop.remove_reader(self._reader)
            self._close()

    def abandon(self) -> None:
        """The loop was closed while tasks of it were waiting: nobody will ever run them again."""
        for waiter in list(self.waiters):
            waiter.withdraw()
        if _bells.pop(self.loop, None) is self:
            self._close()

    def _close(self) -> None:
        # A committer that has found a waiter just before it withdrew may still be about to ring, under the commit lock.
        self.ring = bool
        steps: tuple[Callable[[], object], ...] = (acquire, release)
        in_one_call(map(call, steps))
        in_one_call(map(os.close, (self._reader, self._writer)))


_bells: dict[asyncio.AbstractEventLoop, Bell] = {}
_ring: Callable[[Bell], object] = methodcaller("ring")


def _forget_bells() -> None:
    """In a forked child: the pipes lead to the parent's loops too, and no loop runs here."""
    for bell in list(_bells.values()):
        bell.abandon()


os.register_at_fork(after_in_child=_forget_bells)
