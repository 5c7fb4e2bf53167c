"""`compiled-call`: what a single call of a compiled transaction costs, from Python, and what the very first one does.

Measured: a transfer between two of 1,000 accounts, called in a loop: compiled, as `@atomically` over `TVar`s, and in a
function that holds a `threading.Lock`; the empty loop over the same operands is subtracted where a figure says "net of
the loop". Then loops of so many calls against one `.map` over as many rows, on one thread. Then, in fresh processes,
how long a program waits for `stm.compiled` with its first array, and for its first call: with an empty cache of
machine code (a directory of our own; a reduced run does this once, whatever its repeats), and with one that holds it.

What to distrust:

- A call is short enough to be told from the loop's noise, and not by much: see the range.
- The operands lie in the processor's caches. Over a million accounts, they wouldn't.
- Compiling takes as long as this small body takes. It grows with the body, and is paid again for each combination of
  types of arguments; a first `.map` compiles once more.
- "Warm" means that the files were read a moment ago. After a restart of the machine they come from its disk.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, Final

from bench.environment import ROOT, importable_here
from bench.harness import (
    InvariantError,
    Measurement,
    Plan,
    Point,
    Samples,
    Start,
    Summary,
    Workload,
    nanoseconds,
    net_of_loop,
    ratios,
    run_together,
    wins_from,
)
from bench.results import Chart, Figure, Quantity, spread
from bench.tables import number
from bench.workloads import compiled
from bench.workloads.bank import BANKS, OPENING_BALANCE, after_moves, audit, draw

RATE: Final = Quantity("throughput", "transfers/s", "higher")
NET_TIME: Final = Quantity("time per call, net of the loop", "ns", "lower")
NET_RATIO: Final = Quantity("time ratio, net of the loop", "", "lower")
ROWS_RATIO: Final = Quantity("throughput of .map, relative to a loop of calls", "", "higher")
COLD_LOAD: Final = Quantity("import and first array, empty cache", "s", "lower")
COLD_CALL: Final = Quantity("first call, empty cache", "s", "lower")
WARM_LOAD: Final = Quantity("import and first array, warm cache", "s", "lower")
WARM_CALL: Final = Quantity("first call, warm cache", "s", "lower")

EMPTY: Final = "empty loop"
CALL: Final = "compiled call"
MAP: Final = "one .map"
TVARS: Final = "@atomically over TVars"
LOCK: Final = "lock"
FIRST: Final = "first call"

ACCOUNTS: Final = 1_000
ALONE: Final = "single calls"
FRESH: Final = "a fresh process"
LENGTHS: Final = (1, 5, 20, 50, 100, 200, 500, 1_000)

WARM_STARTS: Final = 5
#: Seconds until a process is taken for stuck.
PATIENCE: Final = 300.0


def rows_of(length: int) -> str:
    return f"{length:,} {'row' if length == 1 else 'rows'}"


class CompiledCall(Workload):
    name: ClassVar[str] = "compiled-call"
    shows: ClassVar[str] = (
        "What one call of a compiled transaction costs from Python, from how many rows on .map is the better way, and "
        "how long a program waits for its first call."
    )
    variants: ClassVar[tuple[str, ...]] = (EMPTY, CALL, TVARS, LOCK, MAP, FIRST)

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.count = plan.operations(200_000)
        self.rows = plan.operations(100_000)
        self.maps = plan.operations(1_000)  # at most: calls of .map that one run makes
        self.route = draw(ACCOUNTS, self.count, 2)
        self.warm_starts = plan.operations(WARM_STARTS)
        self.left = plan.repeats if plan.scale >= 1 else 1  # starts with an empty cache, which take seconds
        self.lengths = {rows_of(length): length for length in LENGTHS}
        self.found: Sequence[int] = ()
        self.expected: Sequence[int] = ()

    def lacking(self) -> str:
        return compiled.lacking()

    def prepare(self) -> None:
        from stm.compiled import TArray

        first_call()  # fills the cache that the warm starts use

        accounts = TArray([OPENING_BALANCE] * ACCOUNTS)
        for _ in range(2):
            compiled.transfer()(accounts, 0, 1)
            compiled.transfer().map(accounts, [0], [1], threads=1)

    def points(self) -> Iterator[Point]:
        for variant in (EMPTY, CALL, TVARS, LOCK):
            yield Point(ALONE, variant, 1)
        for setting in self.lengths:
            for variant in (CALL, MAP):
                yield Point(setting, variant, 1)
        yield Point(FRESH, FIRST, 1)

    def run(self, point: Point) -> Measurement:
        if point.setting == FRESH:
            return self._first()
        if point.setting == ALONE:
            return self._calls(point.variant, self.route, 1)
        length = self.lengths[point.setting]
        route = draw(ACCOUNTS, length, 2)
        rounds = max(1, self.rows // length)
        return self._calls(point.variant, route, rounds if point.variant == CALL else min(rounds, self.maps))

    def _calls(self, variant: str, route: Sequence[tuple[int, ...]], rounds: int) -> Measurement:
        """Go through the route so many times."""
        if variant in (EMPTY, CALL, MAP):
            from stm.compiled import TArray

            array = TArray([OPENING_BALANCE] * ACCOUNTS)
            pairs: Sequence[tuple[Any, ...]] = route
            balances: Callable[[], list[int]] = lambda: array.to_numpy().tolist()  # noqa: E731
        else:
            bank = BANKS["stm" if variant == TVARS else "lock"](ACCOUNTS)
            pairs = [(bank.accounts[source], bank.accounts[target]) for source, target in route]
            balances = bank.balances

        def work(start: Start) -> None:
            transfer = compiled.transfer()
            if variant == MAP:
                import numpy as np

                sources, targets = (np.array(side) for side in zip(*route, strict=True))
                start()
                for _ in range(rounds):
                    transfer.map(array, sources, targets, threads=1)
            else:
                start()
                for _ in range(rounds):
                    if variant == CALL:
                        drive_in(array, transfer, pairs)
                    elif variant == EMPTY:
                        drive_nothing(pairs)
                    else:
                        drive(bank.transfer, pairs)

        seconds = run_together([work])
        self.found = balances()
        self.expected = after_moves(ACCOUNTS, () if variant == EMPTY else list(route) * rounds)
        return {RATE: len(route) * rounds / seconds}

    def _first(self) -> Measurement:
        self.found = self.expected = ()
        measured = {}
        if self.left:
            self.left -= 1
            with tempfile.TemporaryDirectory() as cache:
                cold = first_call(cache)
            measured = {COLD_LOAD: cold["load"], COLD_CALL: cold["call"]}
        warm = [first_call() for _ in range(self.warm_starts)]
        measured[WARM_LOAD] = statistics.median(one["load"] for one in warm)
        measured[WARM_CALL] = statistics.median(one["call"] for one in warm)
        return measured

    def check(self) -> None:
        audit(self.found, self.expected)

    def summarise(self, samples: Samples) -> Summary:
        times = {
            variant: nanoseconds(samples.values(Point(ALONE, variant, 1), RATE))
            for variant in (EMPTY, CALL, TVARS, LOCK)
        }
        loop = times.pop(EMPTY)
        net = {variant: net_of_loop(values, loop) for variant, values in times.items()}
        figures = [Figure(ALONE, variant, 1, NET_TIME, values) for variant, values in net.items() if values]
        findings = []
        if all(net.values()):
            told = ", ".join(f"{variant} {number(spread(values).median)} ns" for variant, values in net.items())
            findings.append(f"One transfer, net of the loop: {told}.")
        for subject, other in ((f"compiled / {TVARS}", TVARS), ("compiled / lock", LOCK)):
            values = ratios(net[CALL], net[other])
            if values:
                figures.append(Figure(ALONE, subject, 1, NET_RATIO, values))
        by_length = {}
        for setting in self.lengths:
            mapped, called = (samples.values(Point(setting, variant, 1), RATE) for variant in (MAP, CALL))
            by_length[setting] = ratios(mapped, called)
            if by_length[setting]:
                figures.append(Figure(setting, f"{MAP} / loop of calls", 1, ROWS_RATIO, by_length[setting]))
        spreads = [spread(values) if values else None for values in by_length.values()]
        winner = wins_from(LENGTHS, spreads)
        findings.append(
            f"On one thread, .map beats a loop of calls from {rows_of(winner)} on."
            if winner is not None
            else f"On one thread, .map never clearly beats a loop of calls here, up to {rows_of(LENGTHS[-1])}."
        )
        fresh = {q: samples.values(Point(FRESH, FIRST, 1), q) for q in (COLD_CALL, WARM_LOAD, WARM_CALL)}
        if all(fresh.values()):
            cold, load, warm = (number(spread(values).median) for values in fresh.values())
            findings.append(
                f"A first call takes {cold} s with an empty cache and {warm} s with a warm one, after {load} s for "
                "the import of the compiled tier and its first array (warm)."
            )
        series = [
            samples.series(variant, [Point(s, variant, 1) for s in self.lengths], RATE) for variant in (CALL, MAP)
        ]
        chart = Chart("Transfers a second", "rows", RATE.unit, tuple(self.lengths), tuple(series), y_log=True)
        return Summary(figures, [chart], findings)


def drive(operation: Callable[[Any, Any], object], operands: Iterable[tuple[Any, ...]]) -> None:
    """The loop that is measured."""
    for source, target in operands:
        operation(source, target)


def drive_in(accounts: Any, operation: Callable[[Any, int, int], object], operands: Iterable[tuple[int, ...]]) -> None:
    """The same for accounts in an array."""
    for source, target in operands:
        operation(accounts, source, target)


def drive_nothing(operands: Iterable[tuple[Any, ...]]) -> None:
    """The same loop around no operation."""
    for _source, _target in operands:
        pass


def first_call(cache: str | None = None) -> dict[str, float]:
    """What `bench.programs.first_call` measured, with its machine code in this directory, or where numba puts it."""
    process = subprocess.run(
        [sys.executable, "-m", "bench.programs.first_call"],
        cwd=ROOT,
        env=importable_here() | ({"NUMBA_CACHE_DIR": cache} if cache else {}),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if process.returncode:
        lines = process.stderr.strip().splitlines()
        raise InvariantError(f"the process failed: {lines[-1] if lines else f'exit status {process.returncode}'}")
    found = json.loads(process.stdout)
    balances = found.pop("balances")
    if balances != [9, 11]:
        raise InvariantError(f"the first call left the balances {balances}")
    return found
