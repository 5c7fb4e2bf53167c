"""`long-body`: from which length of work on do transactions that don't touch each other's data beat one lock?

Each thread transfers between accounts of its own and computes for a while in the middle. Under the lock the computing
is serial too; transactions compute in parallel where the interpreter lets them, and commit one after another.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Final

from bench.harness import (
    Body,
    Measurement,
    Plan,
    Point,
    Samples,
    Start,
    Summary,
    Workload,
    ratios,
    run_together,
    wins_from,
)
from bench.results import Chart, Figure, Quantity, Series, Spread, spread
from bench.tables import count_of
from bench.workloads.bank import OPENING_BALANCE, Account, audit
from stm import TVar, atomically

LENGTHS: Final = (0, 1, 2, 5, 10, 20, 50, 100, 200)
OWN_ACCOUNTS: Final = 16
#: How much computing one thread does per run, so that short bodies run often and long ones don't take long.
BUDGET_US: Final = 200_000
#: Rough cost of an operation around its body, for the same purpose.
OVERHEAD_US: Final = 2

RATE: Final = Quantity("throughput", "operations/s", "higher")
RATIO: Final = Quantity("throughput ratio", "", "higher")


def spin(steps: int) -> int:
    """Pure Python work on small integers of its own: it shares nothing that threads could contend for."""
    x = 1
    for _ in range(steps):
        x = (x * 5 + 1) & 255
    return x


def calibrate(steps: int = 5_000, tries: int = 300) -> float:
    """Steps of `spin` in a microsecond, when nothing disturbs: the best of many short tries."""
    times = []
    for _ in range(tries):
        began = time.perf_counter()
        spin(steps)
        times.append(time.perf_counter() - began)
    return steps / (min(times) * 1e6)


@atomically
def stm_operation(source: TVar[int], target: TVar[int], steps: int) -> None:
    balance = source.get()
    spin(steps)
    source.set(balance - 1)
    target.set(target.get() + 1)


def lock_operation(lock: threading.Lock) -> Callable[[Account, Account, int], None]:
    def operation(source: Account, target: Account, steps: int) -> None:
        with lock:
            balance = source.balance
            spin(steps)
            source.balance = balance - 1
            target.balance += 1

    return operation


def setting_of(length: int) -> str:
    return f"{length} µs"


class LongBody(Workload):
    name: ClassVar[str] = "long-body"
    shows: ClassVar[str] = "From which length of body on transactions on disjoint data beat one lock around everything."
    variants: ClassVar[tuple[str, ...]] = ("stm", "lock")

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.steps_per_us = calibrate()
        self.lengths = {setting_of(length): length for length in LENGTHS}
        self.found: list[int] = []
        self.expected: list[int] = []

    def points(self) -> Iterator[Point]:
        for setting in self.lengths:
            for threads in self.plan.threads:
                for variant in self.variants:
                    yield Point(setting, variant, threads)

    def run(self, point: Point) -> Measurement:
        length = self.lengths[point.setting]
        count = self.plan.operations(BUDGET_US // (length + OVERHEAD_US))
        steps = round(length * self.steps_per_us)
        in_locks = lock_operation(threading.Lock())
        balances: list[list[int]] = []

        def body() -> Body:
            def work(start: Start) -> None:
                # Made by the thread that uses them: disjoint data, as far as an interpreter can have that.
                accounts: list[Any]
                operation: Callable[[Any, Any, int], None]
                if point.variant == "stm":
                    accounts, operation = [TVar(OPENING_BALANCE) for _ in range(OWN_ACCOUNTS)], stm_operation
                else:
                    accounts, operation = [Account() for _ in range(OWN_ACCOUNTS)], in_locks
                operands = [(accounts[n % OWN_ACCOUNTS], accounts[(n + 1) % OWN_ACCOUNTS]) for n in range(count)]
                start()
                for source, target in operands:
                    operation(source, target, steps)
                balances.append([one.peek() if isinstance(one, TVar) else one.balance for one in accounts])

            return work

        seconds = run_together([body() for _ in range(point.threads)])
        self.found = [balance for own in balances for balance in own]
        self.expected = expected_balances(count) * point.threads
        return {RATE: count * point.threads / seconds}

    def check(self) -> None:
        audit(self.found, self.expected)

    def summarise(self, samples: Samples) -> Summary:
        figures, findings, series = [], [], []
        for threads in self.plan.threads:
            points: list[Spread | None] = []
            for setting in self.lengths:
                stm, lock = (samples.values(Point(setting, variant, threads), RATE) for variant in self.variants)
                values = ratios(stm, lock)
                points.append(spread(values) if values else None)
                figures.append(Figure(setting, "stm / lock", threads, RATIO, values))
            series.append(Series(count_of(threads, "thread"), tuple(points)))
            findings.append(verdict(threads, LENGTHS, points))
        chart = Chart(
            "Throughput of STM, relative to one lock",
            "length of the body",
            "stm / lock",
            tuple(self.lengths),
            tuple(series),
            mark=1.0,
        )
        return Summary([figure for figure in figures if figure.values], [chart], findings)


def expected_balances(count: int) -> list[int]:
    """What `count` transfers round the ring of accounts leave of one thread's balances."""
    balances = [OPENING_BALANCE] * OWN_ACCOUNTS
    for n in range(count):
        balances[n % OWN_ACCOUNTS] -= 1
        balances[(n + 1) % OWN_ACCOUNTS] += 1
    return balances


def verdict(threads: int, lengths: Sequence[int], ratios: Sequence[Spread | None]) -> str:
    """Where the ratio crosses 1, in words."""
    on = f"On {count_of(threads, 'thread')}"
    winner = wins_from(lengths, ratios)
    if winner is None:
        return f"{on} STM never wins clearly here, up to bodies of {lengths[-1]} µs."
    return f"{on} STM wins from {winner} µs on." if winner else f"{on} STM wins at every length."
