"""`compiled-transfer`: transfers as machine code, beside the transactional memories of C and of Haskell.

Measured: `transfer.map(accounts, sources, targets)`, GCC's `-fgnu-tm`, GHC's `stm`, and Python code that holds one
`threading.Lock` for each transfer (in a loop, without a call around it; accounts in a list, whose elements Python code
reads twice as fast as a NumPy array's). All go through the same pairs of accounts, from the same tables (see
`bench.peers`), each so many times that it takes half a second or more in the full run. After each run the balances must
have the sum and the digest that these transfers lead to.

What to distrust:

- Two take a short cut. GCC on one thread does not run transactions: `libitm` then chooses its serial mode, without
  detection of conflicts (about 47 million transfers a second, against about 18 to 20 of its method `ml_wt` on one
  thread). And `.map` holds the clock for a group of rows as quick as these, and runs them in place
  (`stm/compiled/inplace.py`). Both are what a user of the system gets; neither says how fast a long transaction is.
- `.map` reads its rows from columns of 16 bytes a row, in memory. The peers go round a table that fits in a cache.
- The time of `.map` is that of the whole call, threads made and joined; the peers' runs from the first thread's start
  to the last one's end.
- On two threads, single runs of GCC and GHC over few accounts differ by up to three times on one machine. The better of
  the two is the one with the better median; ratios are taken to its run in the same repeat.
- A transfer between two of 16 accounts that nobody else computes with is the smallest transaction there is. Programs do
  more in theirs.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, ClassVar, Final

from bench import peers
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
from bench.peers import OPENING_BALANCE, ROUTES, PeerError
from bench.results import Chart, Figure, Quantity, spread
from bench.tables import count_of, number
from bench.workloads import compiled

RATE: Final = Quantity("throughput", "million transfers/s", "higher")
RATIO: Final = Quantity("throughput ratio", "", "higher")
SCALING: Final = Quantity("throughput, relative to one thread", "", "higher")

MAP: Final = "compiled .map"
LOCK: Final = "Python, one lock"
TITLES: Final = {"gcc": "GCC", "ghc": "GHC"}

TO_PEERS: Final = "compiled / better of GCC and GHC"
TO_LOCK: Final = "compiled / Python, one lock"

#: Millions of transfers that each thread does in a full run: on one thread, and on more.
SIZES: Final = {
    16: {MAP: (100, 50), "gcc": (30, 3), "ghc": (16, 5), LOCK: (3, 1)},
    1_000: {MAP: (80, 35), "gcc": (30, 3), "ghc": (16, 6), LOCK: (3, 1)},
    1_000_000: {MAP: (25, 8), "gcc": (8, 2), "ghc": (1.5, 1), LOCK: (1.5, 0.5)},
}

#: Rows of one thread in one call of `.map`, which is called again for more: 32 MiB of columns.
ROWS: Final = 32 * ROUTES


def setting_of(accounts: int) -> str:
    return f"{accounts:,} accounts"


SETTINGS: Final = {setting_of(accounts): accounts for accounts in SIZES}


class CompiledTransfer(Workload):
    name: ClassVar[str] = "compiled-transfer"
    shows: ClassVar[str] = (
        "How many transfers a second compiled transactions do, beside GCC's and GHC's transactional memories and "
        "beside Python code under one lock."
    )
    variants: ClassVar[tuple[str, ...]] = (MAP, *TITLES, LOCK)

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.missing: dict[str, str] = {}  # peers that can't be run here, and why
        self.found: tuple[int, int] = (0, 0)
        self.expected: tuple[int, int] = (0, 0)

    def lacking(self) -> str:
        return compiled.lacking()

    def prepare(self) -> None:
        from stm.compiled import TArray

        self.missing = {system: reason for system in TITLES for reason in [unusable(system)] if reason}
        # Compiled, and its rows timed, before the clock starts.
        for threads in self.plan.threads:
            for _ in range(2):
                compiled.transfer().map(TArray([OPENING_BALANCE] * 16), *columns(16, threads, 1_000), threads=threads)

    def points(self) -> Iterator[Point]:
        for setting in SETTINGS:
            for threads in self.plan.threads:
                for variant in self.variants:
                    if variant not in self.missing:
                        yield Point(setting, variant, threads)

    def transfers(self, point: Point) -> int:
        """How many each thread does."""
        return self.plan.operations(round(SIZES[SETTINGS[point.setting]][point.variant][point.threads > 1] * 1e6))

    def run(self, point: Point) -> Measurement:
        accounts, transfers = SETTINGS[point.setting], self.transfers(point)
        if point.variant in TITLES:
            # The peer's own invariants are checked there, by the same rule.
            self.found = self.expected = (0, 0)
            return {RATE: peers.transfer(point.variant, accounts, point.threads, transfers).rate / 1e6}
        self.expected = OPENING_BALANCE * accounts, 0
        system = by_map if point.variant == MAP else under_lock
        balances, seconds, transfers = system(accounts, point.threads, transfers)
        self.found = sum_and_digest(balances)
        self.expected = OPENING_BALANCE * accounts, peers.expected_digest(accounts, point.threads, transfers)
        return {RATE: point.threads * transfers / seconds / 1e6}

    def check(self) -> None:
        (total, digest), (expected, right) = self.found, self.expected
        if total != expected:
            raise InvariantError(f"the accounts together hold {total} instead of {expected}")
        if digest != right:
            raise InvariantError("no money was made or lost, but some transfer took place not exactly once")

    def summarise(self, samples: Samples) -> Summary:
        figures: list[Figure] = []
        for setting in SETTINGS:
            for threads in self.plan.threads:
                rates = {one: samples.values(Point(setting, one, threads), RATE) for one in self.variants}
                for subject, values in compared(rates).items():
                    figures.append(Figure(setting, subject, threads, RATIO, values))
                for variant, values in rates.items() if threads > 1 else ():
                    scaling = ratios(values, samples.values(Point(setting, variant, 1), RATE))
                    if scaling:
                        figures.append(Figure(setting, variant, threads, SCALING, scaling))
        return Summary(figures, [self._chart(samples)], self._findings(samples), self._unmeasured())

    def _unmeasured(self) -> dict[str, str]:
        if not self.missing:
            return {}
        return {**self.missing, TO_PEERS: "; ".join(self.missing.values())}

    def _findings(self, samples: Samples) -> list[str]:
        findings = []
        for setting in SETTINGS:
            for threads in self.plan.threads:
                rates = {one: samples.values(Point(setting, one, threads), RATE) for one in self.variants}
                told = [f"{TITLES.get(one, one)} {number(spread(some).median)}" for one, some in rates.items() if some]
                if told:
                    findings.append(
                        f"{setting}, {count_of(threads, 'thread')}, million transfers a second: {', '.join(told)}."
                    )
        findings += [f"Not measured here: {reason}." for reason in self.missing.values()]
        findings.append(
            "GCC on one thread is not transactional: libitm then chooses its serial mode, without detection of "
            "conflicts (its method ml_wt does about 18 to 20 million on one thread, where the serial mode does about "
            "47). And .map holds the clock for groups of rows as quick as these and runs them in place. Both take a "
            "short cut; a long transaction has none."
        )
        return findings

    def _chart(self, samples: Samples) -> Chart:
        series = [
            samples.series(f"{TITLES.get(variant, variant)}, {count_of(threads, 'thread')}", points, RATE)
            for variant in self.variants
            if variant not in self.missing
            for threads in self.plan.threads
            for points in [[Point(setting, variant, threads) for setting in SETTINGS]]
        ]
        title = "Million transfers a second"
        return Chart(title, "", RATE.unit, tuple(SETTINGS), tuple(series), kind="bar", y_log=True)


def compared(rates: dict[str, Sequence[float]]) -> dict[str, tuple[float, ...]]:
    """Ratios of `.map`'s throughput to the others', within each repeat; to the better peer only if both were run."""
    mine = rates.get(MAP, ())
    found = {f"compiled / {title}": ratios(mine, rates.get(system, ())) for system, title in TITLES.items()}
    theirs = [rates[system] for system in TITLES if rates.get(system)]
    if len(theirs) == len(TITLES):
        found[TO_PEERS] = ratios(mine, max(theirs, key=lambda values: spread(values).median))
    found[TO_LOCK] = ratios(mine, rates.get(LOCK, ()))
    return {subject: values for subject, values in found.items() if values}


def unusable(system: str) -> str:
    """Why a peer can't be run here; empty if it can. It is built on the way."""
    try:
        peers.build(systems=[system])
    except PeerError as error:
        return str(error).splitlines()[0].rstrip(":")
    except OSError as error:
        return f"{system}: there is no place to build it in ({error.strerror})"
    return ""


# The systems of our own: each returns the balances, the seconds, and how many transfers each thread came to


@lru_cache(maxsize=4)
def routes(accounts: int, thread: int) -> Any:
    """A thread's table of pairs: the sources in one row, the targets in the other."""
    import numpy as np

    return np.array(list(zip(*peers.routes(accounts, thread), strict=True)), np.int64)


def columns(accounts: int, threads: int, transfers: int) -> tuple[Any, Any]:
    """Sources and targets of so many transfers of each thread, one thread's after the other's."""
    import numpy as np

    sources, targets = (np.empty((threads, transfers), np.int64) for _ in range(2))
    for thread in range(threads):
        table = routes(accounts, thread)
        for begin in range(0, transfers, ROUTES):
            rows = slice(begin, min(begin + ROUTES, transfers))
            for column, side in ((sources, table[0]), (targets, table[1])):
                column[thread, rows] = side[: rows.stop - begin]
    return sources.ravel(), targets.ravel()


def by_map(accounts: int, threads: int, transfers: int) -> tuple[Sequence[int], float, int]:
    import numpy as np

    from stm.compiled import TArray

    calls = -(-transfers // ROWS)
    if calls > 1:
        transfers = calls * ROWS  # whole rounds of the table, so that the next call goes on where this one ends
    sources, targets = columns(accounts, threads, transfers // calls)
    bank = TArray(np.full(accounts, OPENING_BALANCE))

    def work(start: Start) -> None:
        transfer = compiled.transfer()
        start()
        for _ in range(calls):
            transfer.map(bank, sources, targets, threads=threads)

    seconds = run_together([work])
    return bank.to_numpy(), seconds, transfers


def under_lock(accounts: int, threads: int, transfers: int) -> tuple[Sequence[int], float, int]:
    balances = [OPENING_BALANCE] * accounts
    lock = threading.Lock()

    def body(thread: int) -> Body:
        def work(start: Start) -> None:
            pairs = list(zip(*routes(accounts, thread).tolist(), strict=True))  # made by the thread that uses them
            rounds, rest = divmod(transfers, ROUTES)
            tables = [pairs] * rounds + [pairs[:rest]]
            start()
            drive(balances, lock, tables)

        return work

    seconds = run_together([body(thread) for thread in range(threads)])
    return balances, seconds, transfers


def drive(balances: list[int], lock: threading.Lock, tables: Sequence[Sequence[Sequence[int]]]) -> None:
    """The loop that is measured under the lock."""
    for pairs in tables:
        for source, target in pairs:
            with lock:
                balances[source] -= 1
                balances[target] += 1


def sum_and_digest(balances: Sequence[int]) -> tuple[int, int]:
    """All money, and the sum that tells accounts apart (see `peers.expected_digest`)."""
    import numpy as np

    values = np.asarray(balances, np.int64)
    weighed = values.astype(np.uint64) * np.arange(len(values), dtype=np.uint64)
    return int(values.sum()), int(weighed.sum(dtype=np.uint64))
