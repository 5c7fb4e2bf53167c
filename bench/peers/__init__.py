"""Peers: the transactional memories of GCC and GHC, at the smallest transaction, so that our figures have a scale.

What is measured is the transfer between two accounts, in sources of our own next to this file. Each of the threads has
65,536 pairs of different accounts, drawn before the clock starts, and goes through them again and again: one
transaction reads both balances, takes 1 from the first, and adds 1 to the second. All threads start together; the clock
runs from the first one's start to the last one's end.

Promises. Each system does the same transfers, and each run is checked: no money is made or lost, and the balances, in a
sum that weighs each account differently, are the ones that these transfers lead to, reckoned here a second time. Each
peer runs the way its experts would run it. A program is built again when its source, the command, or the compiler has
changed, and never runs when it couldn't be built.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.harness import InvariantError

HERE: Final = Path(__file__).resolve().parent
BUILT: Final = HERE / ".build"

OPENING_BALANCE: Final = 1_000
ROUTES: Final = 1 << 16

#: Seconds until a compiler or a program that doesn't come to an end is taken for stuck.
PATIENCE: Final = 300.0

#: Variables that would change, unseen, what is measured.
MEDDLING: Final = frozenset({"GHCRTS", "ITM_DEFAULT_METHOD"})


class PeerError(RuntimeError):
    """A peer can't be built or run, for the reason that the message gives."""


@dataclass(frozen=True)
class Peer:
    """A system to compare with. In `options`, `{threads}` stands for their number."""

    source: Path
    compiler: str
    packages: str
    identity: tuple[tuple[str, ...], ...]  # questions to the compiler, whose answers change with what it would make
    flags: tuple[str, ...]
    options: tuple[str, ...] = ()


# libitm's own choice of method stands, as in any program that doesn't set ITM_DEFAULT_METHOD. What it chooses depends
# on the number of threads that have run transactions: for one, to run them as they are, without detection of conflicts
# (`serialirr`); for more, `ml_wt`. Setting `ml_wt` or `gl_wt` slows one thread down by up to three fifths; no method
# gains anything certain on two. Million transfers a second, medians of 5 (two cores, GCC 12, accounts 16, 1,000 and
# 1,000,000):
#
#                          one thread         two threads
#     no choice            45.9  44.2  6.4     8.1   8.8  5.1
#     ml_wt                18.2  19.4  5.3     7.5   8.5  4.8
#     gl_wt                25.7  26.0  6.2     9.6   9.7  4.1
#     serialirr            45.5  37.0  6.8    10.3   8.9  3.5   (one lock for all)
#
# Single runs on two threads are up to twice as fast, or half as fast, whatever the method.
_GCC: Final = Peer(
    source=HERE / "transfer_gcc.c",
    compiler="gcc",
    packages="gcc",
    identity=(("--version",), ("-Q", "--help=target", "-march=native")),  # the second: what `native` stands for here
    flags=("-O3", "-march=native", "-fgnu-tm", "-pthread"),
)

# Options of GHC's run-time system, million transfers a second, medians of 3 (the same machine, not idle, GHC 9.0):
#
#                          one thread         two threads
#     -A1m                 19.1  20.2  1.1     4.2  21.3  2.1
#     -A4m                 25.9  18.5  1.5    13.2  22.2  2.7
#     -A16m                18.5  22.8  1.8    13.3  19.8  3.5
#     -A64m                14.9  18.1  2.2    13.7  19.8  3.7
#     -A64m -n4m           19.9  21.2  2.2    12.1  20.9  4.1
#     -A64m -qg            24.8  19.6  2.2    13.4  20.9  4.0
#     -A64m -xn            23.3  19.7  1.4    13.3  21.9  2.7
#     -A256m               19.6  13.9  2.2    12.0  16.7  3.6
#     -A256m -qg           13.1  14.7  2.1    13.4  19.6  3.9
#
# With few accounts single runs differ by a third, on two threads over 16 accounts by three times, with all options
# alike; in an earlier, quieter sweep -A4m to -A64m were equal there, at 25, 23, 14 and 25. What is beyond the noise in
# both: less than 16 MB, and -xn, lose with a million accounts, 256 MB with few. -n4m was the best, by little, with a
# million on two threads. -I0, -qa, -qm and -V0 made no difference.
_GHC: Final = Peer(
    source=HERE / "Transfer.hs",
    compiler="ghc",
    packages="ghc and libghc-stm-dev",
    identity=(("--version",),),
    flags=("-v0", "-O2", "-threaded", "-rtsopts", "-outputdir", "."),
    options=("+RTS", "-N{threads}", "-A64m", "-n4m", "-RTS"),
)

PEERS: Final = {"gcc": _GCC, "ghc": _GHC}


@dataclass(frozen=True)
class Outcome:
    """One run. `transfers` are those of all threads together."""

    system: str
    accounts: int
    threads: int
    transfers: int
    seconds: float

    @property
    def rate(self) -> float:
        """Transfers a second."""
        return self.transfers / self.seconds


# Building


def available() -> dict[str, str | None]:
    """Every peer; with it the reason why it can't be built here, or `None` where its compiler is present."""
    return {system: _missing(peer) for system, peer in PEERS.items()}


def build(directory: Path = BUILT, systems: Sequence[str] = tuple(PEERS)) -> dict[str, Path]:
    """The programs of these systems in a directory, built where they aren't there or are stale."""
    return {system: _build(system, _peer(system), directory) for system in systems}


def _build(system: str, peer: Peer, directory: Path) -> Path:
    missing = _missing(peer)
    if missing:
        raise PeerError(f"{system}: {missing}")
    source = peer.source.read_bytes()
    facts = [source.decode("utf-8"), *peer.flags]
    facts += [_run([peer.compiler, *question]).stdout for question in peer.identity]
    # What it was made of is part of its name: a stale program isn't found, and a half-made one has no name yet.
    digest = hashlib.sha256("\0".join(facts).encode()).hexdigest()[:16]
    program = directory / f"transfer-{system}-{digest}"
    if program.exists():
        return program
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory, prefix="unfinished-") as folder:
        (Path(folder) / peer.source.name).write_bytes(source)
        outcome = _run([peer.compiler, *peer.flags, peer.source.name, "-o", "program"], cwd=Path(folder))
        if outcome.returncode:
            message = (outcome.stdout + outcome.stderr).strip()
            raise PeerError(
                f"{system}: {peer.compiler} can't compile {peer.source.name} "
                f"(it needs the Debian packages: {peer.packages}):\n{message}"
            )
        (Path(folder) / "program").replace(program)
    for stale in directory.glob(f"transfer-{system}-*"):
        if stale != program:
            stale.unlink(missing_ok=True)
    return program


def _missing(peer: Peer) -> str | None:
    if shutil.which(peer.compiler):
        return None
    return f"the compiler {peer.compiler} is not there: apt-get install {peer.packages.replace(' and ', ' ')}"


def _peer(system: str) -> Peer:
    try:
        return PEERS[system]
    except KeyError:
        raise PeerError(f"{system!r} is not a peer; there are {', '.join(PEERS)}") from None


# Running


def transfer(system: str, accounts: int, threads: int, transfers: int, directory: Path = BUILT) -> Outcome:
    """Run so many transfers in each of the threads, once. A broken invariant raises `InvariantError`."""
    if accounts < 2 or threads < 1 or transfers < 1:
        raise PeerError(f"two accounts, a thread and a transfer are the least: got {accounts}, {threads}, {transfers}")
    program = build(directory, [system])[system]
    options = [option.format(threads=threads) for option in _peer(system).options]
    ended = _run([str(program), *map(str, (accounts, threads, transfers)), *options])
    if ended.returncode:
        raise PeerError(f"{system}: the program ended with status {ended.returncode}: {ended.stderr.strip()}")
    try:
        found: dict[str, Any] = json.loads(ended.stdout)
        outcome = Outcome(
            found["system"], found["accounts"], found["threads"], found["transfers"], float(found["seconds"])
        )
        kept, digest = found["kept"], found["digest"]
    except (ValueError, KeyError, TypeError):
        raise PeerError(f"{system}: the program printed something else than its figures: {ended.stdout!r}") from None
    if outcome != Outcome(system, accounts, threads, threads * transfers, outcome.seconds):
        raise PeerError(f"{system}: the program ran something else than it was asked to: {ended.stdout!r}")
    if kept is not True:
        raise InvariantError(f"{system}: the accounts together don't hold what they held")
    if digest != expected_digest(accounts, threads, transfers):
        raise InvariantError(f"{system}: no money was made or lost, but some transfer took place not exactly once")
    return outcome


def _run(command: Sequence[str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in MEDDLING}
    try:
        return subprocess.run(
            command,
            cwd=cwd,
            env={**environment, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=PATIENCE,
            check=False,
        )
    except OSError as error:
        raise PeerError(f"can't run {Path(command[0]).name}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise PeerError(f"{Path(command[0]).name} did not end within {PATIENCE:g} s") from None


# What a run must lead to


def routes(accounts: int, thread: int) -> Iterator[tuple[int, int]]:
    """The pairs that a thread (counted from 0) goes through; the peers draw the same ones by the same rule."""
    state = thread + 1

    def draw() -> int:
        nonlocal state
        state = (state * 6_364_136_223_846_793_005 + 1_442_695_040_888_963_407) % 2**64
        return (state >> 33) % accounts

    for _ in range(ROUTES):
        source = target = draw()
        while target == source:
            target = draw()
        yield source, target


@functools.lru_cache(maxsize=64)
def expected_digest(accounts: int, threads: int, transfers: int) -> int:
    """The sum of all balances, each times its account's number, after all transfers; modulo 2**64."""
    digest = OPENING_BALANCE * accounts * (accounts - 1) // 2
    rounds, rest = divmod(transfers, ROUTES)
    for thread in range(threads):
        for at, (source, target) in enumerate(routes(accounts, thread)):
            digest += (target - source) * (rounds + (at < rest))
    return digest % 2**64
