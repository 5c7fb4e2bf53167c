"""What would block or spin for real, made to hand the baton on instead, while a program is explored.

`patched` replaces, and puts back whatever happens:
- in `stm`: the commit lock and the exclusive lock, waiting for them, giving way, glancing, backing off; in the finer
  grains also the calls that publish in one step, so that each store is a step of its own, as a processor sees them that
  runs without the GIL beside this one;
- in the standard library: `threading.Lock` and `RLock`, of which `Condition`, `Event`, `Semaphore`, `Barrier` and
  `queue.Queue` are made, `time.sleep` and `time.monotonic`. Only explored threads, and the thread that makes the
  program, see a difference; other threads of the process get what they always get.

Nothing of this exists while nothing is explored: `stm` pays nothing.
"""

from __future__ import annotations

import sys
import threading
import time
from _thread import get_ident
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from stm import clock as _clock
from stm import contention, transaction, waiting
from stm.clock import clock
from stm.testing._places import Places
from stm.testing._run import EPOCH, Run, driving, running
from stm.testing._threads import never

_new_lock = threading.Lock
_new_rlock = threading.RLock
_monotonic = time.monotonic
_sleep = time.sleep
_start = threading.Thread.start


def _deadline(run: Run, timeout: float) -> float | None:
    return None if timeout < 0 else run.now + timeout


class Lock:
    """A `threading.Lock` at which explored threads wait for each other without blocking the process."""

    def __init__(self, place: int, first: int | None = None) -> None:
        self._real = _new_lock()
        self._place = place
        self._first = first  # the place before it is asked for, if that is one

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        run = running()
        if run is None:
            return self._real.acquire(blocking, timeout)
        if not blocking and timeout != -1:
            raise ValueError("can't specify a timeout for a non-blocking call")
        if self._first is not None:
            run.point(self._first)
        if self._real.acquire(False):
            return True
        return blocking and run.block(self._free, _deadline(run, timeout), self._place) and self._real.acquire(False)

    def _free(self) -> bool:
        return not self._real.locked()

    def release(self) -> None:
        self._real.release()

    def locked(self) -> bool:
        return self._real.locked()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self._real.release()

    def _at_fork_reinit(self) -> None:
        self._real._at_fork_reinit()  # type: ignore[attr-defined]


class RLock:
    """The same of a `threading.RLock`, around a given one."""

    def __init__(self, place: int, first: int | None = None, real: Any = None) -> None:
        self._real: Any = _new_rlock() if real is None else real
        self._place = place
        self._first = first
        self._depth = 0  # of the explored thread that holds it

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        run = running()
        if run is None:
            return bool(self._real.acquire(blocking, timeout))
        if not blocking and timeout != -1:
            raise ValueError("can't specify a timeout for a non-blocking call")
        if self._first is not None:
            run.point(self._first)
        while not self._real.acquire(False):
            if not blocking:
                return False
            if not self._depth:  # a thread that is not explored has it
                return bool(self._real.acquire(True, timeout))
            if not run.block(self._free, _deadline(run, timeout), self._place):
                return False
        self._depth += 1
        return True

    def _free(self) -> bool:
        return not self._depth

    def release(self) -> None:
        self._real.release()
        if running() is not None:
            self._depth -= 1

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def locked(self) -> bool:
        return self._depth > 0 or self._is_owned()

    def _is_owned(self) -> bool:
        return bool(self._real._is_owned())

    def _release_save(self) -> Any:
        depth, self._depth = self._depth, 0
        return self._real._release_save(), depth

    def _acquire_restore(self, state: Any) -> None:
        self.acquire()
        self._real.release()
        self._real._acquire_restore(state[0])
        self._depth = state[1]

    def _at_fork_reinit(self) -> None:
        self._real._at_fork_reinit()
        self._depth = 0

    def let_go(self) -> None:
        """Release it as often as the calling thread holds it."""
        while self._real._is_owned():
            self._real.release()
        self._depth = 0


class Patches:
    """Replacements of attributes, to be undone in reverse."""

    def __init__(self) -> None:
        self._undo: list[tuple[Any, str, Any]] = []

    def set(self, owner: Any, name: str, value: Any) -> None:
        self._undo.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)

    def everywhere(self, old: object, new: object) -> None:
        """In each module of `stm` that has imported `old`."""
        for module in _modules():
            for name, value in list(vars(module).items()):
                if value is old:
                    self.set(module, name, new)

    def undo(self) -> None:
        while self._undo:
            owner, name, value = self._undo.pop()
            setattr(owner, name, value)


def _modules() -> Iterator[Any]:
    for name, module in list(sys.modules.items()):
        if name.startswith("stm.") and not name.startswith("stm.testing") and module is not None:
            yield module


@contextmanager
def patched(places: Places) -> Iterator[list[RLock]]:
    """Make waiting cooperative. Yields the two locks of the protocol."""
    patches = Patches()
    try:
        locks = list(_patch_protocol(patches, places))
        _patch_library(patches, places)
        yield locks
    finally:
        patches.undo()


def _patch_protocol(patches: Patches, places: Places) -> Iterator[RLock]:
    for lock, takes, lets_go in (
        ("lock", "acquire", "release"),
        ("exclusive", "acquire_exclusive", "release_exclusive"),
    ):
        cooperative = RLock(places.number("step", f"{lock} awaited"), real=getattr(clock, lock))
        patches.everywhere(getattr(_clock, takes), cooperative.acquire)
        patches.everywhere(getattr(_clock, lets_go), cooperative.release)
        if lock == "lock":
            patches.everywhere(_clock.acquire_politely, cooperative.acquire)
        patches.set(clock, lock, cooperative)
        yield cooperative
    gives_way = places.number("step", "gives way")
    backs_off = places.number("step", "backoff")

    def give_way() -> None:
        run = running()
        if run is not None:
            run.give_way(gives_way)

    def pause(aborts: int) -> None:
        run = running()
        if run is not None:
            run.give_way(backs_off)

    def glance(reads: object, deadline: object, *_: object) -> bool:
        return False

    patches.everywhere(_clock.give_way, give_way)
    patches.everywhere(contention.pause, pause)
    patches.everywhere(waiting._glance, glance)
    if places.grain != "steps":
        for old in (transaction.in_one_call, waiting._in_one_call):
            patches.everywhere(old, _one_by_one(places))


def _one_by_one(places: Places) -> Callable[[Iterable[object]], None]:
    def in_one_call(steps: Iterable[object]) -> None:
        run = running()
        for done, _ in enumerate(steps, 1):
            if run is not None and not run.abandoned:
                frame = sys._getframe(1)
                run.point(places.number("step", f"{frame.f_code.co_name}: step {done} done"))

    return in_one_call


def _patch_library(patches: Patches, places: Places) -> None:
    awaited = places.number("step", "a lock awaited")
    wanted = places.number("step", "a lock wanted")
    asleep = places.number("step", "wait.asleep")
    sleeps = places.number("step", "sleep")

    def is_ours() -> bool:
        return running() is not None or get_ident() in driving

    def monotonic() -> float:
        run = running()
        if run is None:
            if get_ident() not in driving:
                return _monotonic()
            run = driving[get_ident()]
        return EPOCH if run is None else run.now

    def sleep(seconds: float) -> None:
        run = running()
        if run is None:
            _sleep(seconds)
        elif seconds > 0:
            run.block(never, run.now + seconds, sleeps)
        else:
            _sleep(seconds)  # raises what it raises for a bad number
            run.give_way(sleeps)

    def lock() -> Any:
        if not is_ours():
            return _new_lock()
        if sys._getframe(1).f_code is waiting.sleep.__code__:
            return Lock(asleep)
        return Lock(awaited, wanted)

    def rlock() -> Any:
        return RLock(awaited, wanted) if is_ours() else _new_rlock()

    def start(thread: threading.Thread) -> None:
        if is_ours():
            _refuse_thread(thread)
        _start(thread)

    patches.set(time, "monotonic", monotonic)
    patches.set(time, "sleep", sleep)
    patches.set(threading, "_time", monotonic)
    patches.set(threading, "Lock", lock)
    patches.set(threading, "_allocate_lock", lock)
    patches.set(threading, "RLock", rlock)
    patches.set(threading.Thread, "start", start)
    if "queue" in sys.modules:
        patches.set(sys.modules["queue"], "time", monotonic)


def _refuse_thread(thread: threading.Thread) -> NoReturn:
    raise RuntimeError(
        f"{thread!r} was to be started in a program that is explored: explore() runs the threads itself; "
        "return one callable for each"
    )


def start_afresh() -> None:
    """Before a run: nothing of an earlier one is to make a difference, not even that the next commit looks around."""
    with clock.lock:
        _clock.settle()


def clear() -> None:
    """Put the shared state of the protocol right after a run that was abandoned. No explored thread runs any more."""
    for waiter in list(clock.sleepers):
        waiter.withdraw()
    clock.sleepers.clear()
    clock.snapshots.clear()
    clock.history.clear()
    clock.trimming = False
    clock.owner = None
    clock.quiet = True
