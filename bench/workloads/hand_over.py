"""`hand-over`: how long a blocked thread takes to notice that it is its turn, and what being blocked costs.

Two threads pass a token to and fro. Each waits for it, counts it up and passes it on, so both are asleep or about to be
most of the time: this is the price of sleeping and waking, nothing else.
"""

from __future__ import annotations

import queue
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import ClassVar, Final, Protocol

from bench.harness import (
    Body,
    InvariantError,
    Measurement,
    Plan,
    Point,
    Samples,
    Start,
    Summary,
    Workload,
    ratios,
    run_together,
)
from bench.results import Chart, Figure, Quantity, spread
from bench.tables import number
from stm import TVar, atomically, check

PING_PONG: Final = "two threads, to and fro"
BLOCKED: Final = "one thread, blocked"
BLOCKED_SECONDS: Final = 0.5
#: Seconds that a thread surely needs no more than, to get from its start to its sleep.
SETTLING: Final = 0.05
#: Seconds after which a wake-up counts as lost.
WAKING: Final = 10.0

LATENCY: Final = Quantity("latency of a hand-over, median", "µs", "lower")
TAIL: Final = Quantity("latency of a hand-over, 99th percentile", "µs", "lower")
CPU: Final = Quantity("CPU time used while blocked", "ms per s", "lower")
RATIO: Final = Quantity("latency ratio", "", "lower")


class Token(Protocol):
    """One way to pass a token between players 0 and 1."""

    def pass_on(self, player: int) -> None:
        """Wait until it is this player's, and give it to the other."""

    def count(self) -> int:
        """How often it was passed on. For when nobody plays any more."""


class RetryToken:
    def __init__(self) -> None:
        self.passed = TVar(0)

    @atomically
    def pass_on(self, player: int) -> None:
        so_far = self.passed.get()
        check(so_far % 2 == player)
        self.passed.set(so_far + 1)

    def count(self) -> int:
        return self.passed.peek()


class QueueToken:
    def __init__(self) -> None:
        self.queues: tuple[queue.SimpleQueue[int], ...] = (queue.SimpleQueue(), queue.SimpleQueue())
        self.queues[0].put(0)

    def pass_on(self, player: int) -> None:
        self.queues[1 - player].put(self.queues[player].get() + 1)

    def count(self) -> int:
        return self.queues[0].get(timeout=1)


class ConditionToken:
    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.passed = 0

    def pass_on(self, player: int) -> None:
        with self.condition:
            while self.passed % 2 != player:
                self.condition.wait()
            self.passed += 1
            self.condition.notify()

    def count(self) -> int:
        return self.passed


TOKENS: Final[dict[str, Callable[[], Token]]] = {
    "retry": RetryToken,
    "SimpleQueue": QueueToken,
    "Condition": ConditionToken,
}


class HandOver(Workload):
    name: ClassVar[str] = "hand-over"
    shows: ClassVar[str] = "How fast a transaction blocked by retry wakes up, next to a queue and a condition variable."
    variants: ClassVar[tuple[str, ...]] = tuple(TOKENS)

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.trips = plan.operations(10_000, least=3)
        self.blocked_seconds = min(BLOCKED_SECONDS, plan.scale * 5 * BLOCKED_SECONDS)
        self.complaint = ""

    def points(self) -> Iterator[Point]:
        for variant in self.variants:
            yield Point(PING_PONG, variant, 2)
        yield Point(BLOCKED, "retry", 1)

    def run(self, point: Point) -> Measurement:
        return self._blocked() if point.setting == BLOCKED else self._ping_pong(point)

    def _ping_pong(self, point: Point) -> Measurement:
        token = TOKENS[point.variant]()
        moments: list[float] = []

        def player(number: int) -> Body:
            def play(start: Start) -> None:
                pass_on, now = token.pass_on, time.perf_counter
                own = []
                start()
                for _ in range(self.trips):
                    pass_on(number)
                    own.append(now())
                if number == 0:
                    moments.extend(own)

            return play

        run_together([player(0), player(1)])
        counted, expected = token.count(), 2 * self.trips
        self.complaint = "" if counted == expected else f"the token counts {counted} hand-overs instead of {expected}"
        # From one pass to this player's next, the token changes hands twice.
        latencies = [(later - earlier) / 2 * 1e6 for earlier, later in pairwise(moments)]
        return {LATENCY: statistics.median(latencies), TAIL: statistics.quantiles(latencies, n=100)[-1]}

    def _blocked(self) -> Measurement:
        gate = TVar(False)

        @atomically
        def wait() -> None:
            check(gate.get())

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        time.sleep(SETTLING)
        began, cpu = time.perf_counter(), time.process_time()
        time.sleep(self.blocked_seconds)
        cpu, seconds = time.process_time() - cpu, time.perf_counter() - began
        still_blocked = thread.is_alive()
        gate.set(True)
        thread.join(timeout=WAKING)
        if not still_blocked:
            self.complaint = "a transaction went on before what it waits for came true"
        elif thread.is_alive():
            self.complaint = f"a blocked transaction did not wake up within {WAKING:g} s"
        else:
            self.complaint = ""
        return {CPU: cpu / seconds * 1e3}

    def check(self) -> None:
        if self.complaint:
            raise InvariantError(self.complaint)

    def summarise(self, samples: Samples) -> Summary:
        figures, findings = [], []
        retry = samples.values(Point(PING_PONG, "retry", 2), LATENCY)
        for other in self.variants[1:]:
            values = ratios(retry, samples.values(Point(PING_PONG, other, 2), LATENCY))
            if values:
                figures.append(Figure(PING_PONG, f"retry / {other}", 2, RATIO, values))
                findings.append(f"Waking by retry takes {number(spread(values).median)} times as long as by {other}.")
        points = [Point(PING_PONG, variant, 2) for variant in self.variants]
        series = (samples.series("median", points, LATENCY), samples.series("99th percentile", points, TAIL))
        chart = Chart("Latency of one hand-over", "", LATENCY.unit, self.variants, series, kind="bar", y_log=True)
        return Summary(figures, [chart], findings)
