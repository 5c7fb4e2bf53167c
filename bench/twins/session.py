"""A contender at work, and the books on it: each work runs once, and what the contender says of itself agrees."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from itertools import chain
from typing import Any

from bench.tables import count_of
from bench.twins.contenders import CONTENDERS


class _Own(threading.local):
    def __init__(self, everyone: list[list[int]]) -> None:
        self.ran: list[int] = []
        everyone.append(self.ran)


class Session:
    """A contender that runs, and the books on its works."""

    def __init__(self, variant: str, workers: int) -> None:
        self.variant = variant
        self.workers = workers
        self.running = CONTENDERS[variant](workers)
        self.ran: list[list[int]] = []
        self.futures: list[Future[Any]] = []
        self.gated = 0
        own = _Own(self.ran)

        def work(number: int) -> int:
            own.ran.append(number)
            return number

        self.work = work
        self.occupy()()  # now all workers are there

    def occupy(self) -> Callable[[], object]:
        """Keep all workers waiting, so that what is submitted stays queued. The function that lets them go on."""
        gate, begun = threading.Event(), threading.Semaphore(0)

        def wait() -> None:
            begun.release()
            gate.wait()

        for _ in range(self.workers):
            self.running.submit(wait)
        for _ in range(self.workers):
            begun.acquire()
        self.gated += self.workers
        return gate.set

    def numbers(self, count: int) -> range:
        """The next numbers for works; future `n` is to be that of work `n`."""
        return range(len(self.futures), len(self.futures) + count)

    def keep(self, futures: list[Future[Any]]) -> None:
        self.futures += futures

    def fetch(self, futures: Iterable[Future[Any]]) -> None:
        for future in futures:
            future.result()

    def close(self) -> str:
        """Cancel what is queued, and end it. What is wrong with what was done; empty if nothing is."""
        self.running.end()
        expected = [n for n, future in enumerate(self.futures) if not future.cancelled()]
        wrong = audit(self.ran, expected) or misled(self.futures, expected)
        if not wrong and self.running.totals is not None:
            totals = self.running.totals()
            submitted, finished = len(self.futures) + self.gated, len(expected) + self.gated
            if (totals.submitted, totals.finished, totals.cancelled) != (submitted, finished, submitted - finished):
                wrong = f"{submitted} works were submitted and {finished} have finished, but it says {totals}"
            elif not totals.balanced:
                wrong = f"the totals don't add up: {totals}"
        return wrong and f"{self.variant} with {count_of(self.workers, 'worker')}: {wrong}"


def audit(ran: Iterable[Sequence[int]], expected: Sequence[int]) -> str:
    """What is wrong with the works that ran, if each of the expected ones was to run once."""
    everything = sorted(chain(*ran))
    if everything == expected:
        return ""
    wanted, different = set(expected), set(everything)
    return (
        f"of {len(expected)} works {len(wanted - different)} did not run, {len(different - wanted)} ran though "
        f"they were cancelled, and {len(everything) - len(different)} ran again"
    )


def misled(futures: Sequence[Future[Any]], expected: Iterable[int]) -> str:
    for n in expected:
        if (result := futures[n].result()) != n:
            return f"the future of work {n} has the result of work {result}"
    return ""
