"""Tools for tests that decide their own interleavings."""

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from stm.clock import clock

R = TypeVar("R")

PATIENCE = 60.0


class Background:
    """A function running in another thread; `result()` waits for it, and raises what it raised."""

    def __init__(self, fn: Callable[..., Any], *args: Any) -> None:
        self._outcome: list[Any] = []
        self._error: list[BaseException] = []

        def body() -> None:
            try:
                self._outcome.append(fn(*args))
            except BaseException as error:
                self._error.append(error)

        self.thread = threading.Thread(target=body, daemon=True)
        self.thread.start()

    def result(self, patience: float = PATIENCE) -> Any:
        self.thread.join(patience)
        assert not self.thread.is_alive(), "the other thread hangs"
        if self._error:
            raise self._error[0]
        return self._outcome[0]


def elsewhere(fn: Callable[..., R], *args: Any) -> R:
    """Run a function in another thread, to its end. Inside a transaction's body this makes an interleaving certain."""
    result: R = Background(fn, *args).result()
    return result


def together(*fns: Callable[[], Any]) -> list[Any]:
    """Run functions in threads that start at the same moment; their results in order."""
    barrier = threading.Barrier(len(fns))

    def start(fn: Callable[[], Any]) -> Any:
        barrier.wait(PATIENCE)
        return fn()

    running = [Background(start, fn) for fn in fns]
    return [one.result() for one in running]


def until(condition: Callable[[], Any], what: str = "the awaited state") -> None:
    """Wait for a state that another thread must reach."""
    limit = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < limit, f"{what} never came"
        time.sleep(0.0005)


def asleep(count: int = 1) -> None:
    """Wait until so many transactions sleep in `retry`."""
    until(lambda: len(clock.sleepers) == count, f"{count} sleeping transaction(s)")


class Once:
    """True the first time, False ever after: for what only the first attempt is to do."""

    def __init__(self) -> None:
        self._left = [True]

    def __bool__(self) -> bool:
        return bool(self._left and self._left.pop())
