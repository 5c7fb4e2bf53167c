"""k-means with many threads: the sums of each cluster are gathered by transactions in machine code.

    python -m examples.cluster_points                           cluster 200,000 points of the plane, and draw them
    python -m examples.cluster_points --points 65536 --dimensions 32 --clusters 16 --compare    STAMP's largest input
    python -m examples.cluster_points --batch 1 --threads 2     one transaction a point, as in STAMP

What it shows
-------------
Each round finds the nearest centre of every point, then moves each centre to the mean of its points. The sums and
counts for the means are two `TArray`s that all threads add to. STAMP's kmeans adds each point in a transaction of its
own. Here a transaction takes a *batch* of points: it adds them up in scratch space of its thread, and enters what came
of it into the shared sums, all of it or nothing. Finding the nearest of a few centres takes tens of nanoseconds, so one
transaction a point would mostly be about the sums, which everybody wants; with some hundred points in each, threads
seldom meet at them. (Nothing shared is read before the batch is added up, so what others commit while it is costs no
rerun either.)

What it promises
----------------
The result is that of the program without transactions, to the last bit: the same cluster for each point, the same
centres, the same number of rounds. Floating-point sums depend on their order, and threads come in any order; so the
coordinates are made multiples of 2**-20 below 2**5. Sums of up to 2**23 of those are exact in a float64, and then order
can't matter: one update lost or made twice would show. The program compares, and ends with code 1 if anything differs.

What it costs
-------------
Each round starts its threads anew, some tenths of a millisecond, so rounds should take several milliseconds to gain
from a second one. `--compare` measures that on your machine:

    $ python -m examples.cluster_points --threads 2 --out none
    200,000 points in 2 dimensions, 24 clusters: 31 rounds in ... s by 2 threads
    The program without transactions found the same clusters, and the same centres to the last bit.

Sources: S. Lloyd, "Least Squares Quantization in PCM", 1982; as a benchmark of transactional memory, kmeans in Cao Minh
and others, "STAMP: Stanford Transactional Applications for Multi-Processing", IISWC 2008.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final, NoReturn

import numpy as np
from numba import njit

from stm import compiled

# ------------------------------------------------------------------------------------------------------ the algorithm


@njit
def nearest(point: Any, centres: Any) -> Any:
    """The number of the nearest centre, and the square of its distance."""
    best, least = 0, np.inf
    for k in range(len(centres)):
        square = 0.0
        for axis in range(len(point)):
            square += (point[axis] - centres[k, axis]) ** 2
        if square < least:
            best, least = k, square
    return best, least


@compiled.transaction
def assign(first, batch, points, centres, before, after, sums, counts, own, number):  # type: ignore[no-untyped-def]
    """Find the clusters of a batch of points, and add them to the sums. How many changed; the squares of distances.

    `after` is a plain array: each batch has its own part of it, and a rerun would write the same again.
    """
    own[:] = 0
    number[:] = 0
    changed, squares = 0.0, 0.0
    for p in range(first, min(first + batch, len(points))):
        k, square = nearest(points[p], centres)
        changed += k != before[p]
        squares += square
        after[p] = k
        number[k] += 1
        for axis in range(points.shape[1]):
            own[k, axis] += points[p, axis]
    for k in range(len(number)):
        if number[k]:
            counts[k] += number[k]
            for axis in range(points.shape[1]):
                sums[k, axis] += own[k, axis]
    return changed, squares


@njit(nogil=True, cache=True)
def assign_alone(points: Any, centres: Any, before: Any, after: Any, sums: Any, counts: Any) -> Any:
    """The same for all points, without transactions."""
    changed, squares = 0.0, 0.0
    for p in range(len(points)):
        k, square = nearest(points[p], centres)
        changed += k != before[p]
        squares += square
        after[p] = k
        counts[k] += 1
        for axis in range(points.shape[1]):
            sums[k, axis] += points[p, axis]
    return changed, squares


@dataclass(slots=True)
class Clusters:
    """The points' clusters, and how they came about: for each round, where the centres were and what it found."""

    of: Any
    centres: list[Any]
    changed: list[float] = field(default_factory=list)  # the share of points that changed their cluster
    inertia: list[float] = field(default_factory=list)  # the mean square of the distance to the centre
    seconds: float = 0.0


Round = Callable[[Any, Any, Any, Any], tuple[Any, Any, float, float]]


def cluster(points: Any, start: Any, threshold: float, one_round: Round) -> Clusters:
    """Rounds until no more than that share of the points changes its cluster."""
    found = Clusters(np.full(len(points), -1), [start])
    begun = time.perf_counter()
    while not found.changed or found.changed[-1] > threshold:
        after = np.empty_like(found.of)
        sums, counts, changed, squares = one_round(points, found.centres[-1], found.of, after)
        means = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], found.centres[-1])
        found.of = after
        found.centres.append(means)
        found.changed.append(changed / len(points))
        found.inertia.append(squares / len(points))
    found.seconds = time.perf_counter() - begun
    return found


def in_transactions(threads: int, batch: int) -> Round:
    """A round on so many threads."""

    def one_round(points: Any, centres: Any, before: Any, after: Any) -> tuple[Any, Any, float, float]:
        sums, counts = compiled.TArray(np.zeros(centres.shape)), compiled.TArray(np.zeros(len(centres), np.int64))
        plain = map(compiled.Constant, (points, centres, before, after))
        scratch = compiled.Scratch(centres.shape, np.float64), compiled.Scratch(len(centres))
        first = np.arange(0, len(points), batch)
        found = assign.map(first, batch, *plain, sums, counts, *scratch, threads=threads)
        changed, squares = found.sum(axis=0)
        return sums.to_numpy(), counts.to_numpy(), changed, squares

    return one_round


def alone(points: Any, centres: Any, before: Any, after: Any) -> tuple[Any, Any, float, float]:
    """A round without transactions."""
    sums, counts = np.zeros(centres.shape), np.zeros(len(centres), np.int64)
    changed, squares = assign_alone(points, centres, before, after, sums, counts)
    return sums, counts, changed, squares


def differences(found: Clusters, expected: Clusters) -> list[str]:
    """How one result differs from another, in words."""
    wrong = []
    if len(found.changed) != len(expected.changed):
        wrong.append(f"{len(found.changed)} rounds, not {len(expected.changed)}")
    if others := int((found.of != expected.of).sum()):
        wrong.append(f"{several(others, 'point')} in another cluster")
    if others := int((found.centres[-1] != expected.centres[-1]).any(axis=1).sum()):
        wrong.append(f"{several(others, 'centre')} elsewhere")
    if not np.isclose(found.inertia[-1], expected.inertia[-1], rtol=1e-9, atol=0):  # added up in another order
        wrong.append(f"a mean square of {found.inertia[-1]}, not {expected.inertia[-1]}")
    return wrong


# ---------------------------------------------------------------------------------------------- the points, the picture

GRAIN: Final = 2.0**-20  # coordinates are multiples of it
MOST: Final = 2**23  # points: the sum of so many is exact


class UsageError(Exception):
    """The user asked for something that can't be done."""


def make_points(count: int, dimensions: int, clusters: int, seed: int) -> tuple[Any, Any]:
    """Clouds of different sizes and shapes, and the centres to start from: some of the points."""
    random = np.random.default_rng(seed)
    middles = random.uniform(-10, 10, (clusters, dimensions))
    spread = random.uniform(0.4, 1.6, (clusters, dimensions))
    cloud = random.choice(clusters, count, p=random.dirichlet(np.full(clusters, 5.0)))
    points = middles[cloud] + spread[cloud] * random.standard_normal((count, dimensions))
    points = np.round(np.clip(points, -31, 31) / GRAIN) * GRAIN
    return points, points[random.choice(count, clusters, replace=False)]


NO_PLOTS: Final = (
    "the picture needs matplotlib, which is not installed: pip install 'hive-task[bench]' (or leave it out: --out none)"
)


def plotting() -> Any:
    """matplotlib's `Figure`, which needs no display."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError(NO_PLOTS) from None
    return Figure


def draw(points: Any, found: Clusters, file: Path, shown: int = 40_000) -> None:
    """The points in their clusters' colours, the way that each centre went, and how the rounds converged."""
    ways = np.stack(found.centres)
    clusters = ways.shape[1]
    if points.shape[1] > 2:  # seen from where the centres lie furthest apart
        middle = ways[-1].mean(axis=0)
        plane = np.linalg.svd(ways[-1] - middle, full_matrices=False)[2][:2].T
        points, ways = (points - middle) @ plane, (ways - middle) @ plane
    from matplotlib import colormaps

    colours = colormaps["hsv"](np.random.default_rng(3).permutation(clusters) / clusters) * 0.8 + 0.12
    colours[:, 3] = 1
    figure = plotting()(figsize=(13, 8), layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2, width_ratios=(2.2, 1))
    some = np.random.default_rng(4).permutation(len(points))[:shown]
    left.scatter(points[some, 0], points[some, 1], s=3, c=colours[found.of[some]], alpha=0.5, linewidths=0)
    left.plot(ways[:, :, 0], ways[:, :, 1], color="#222222", linewidth=1.1, alpha=0.8)
    left.scatter(*ways[0].T, s=22, facecolor="white", edgecolor="#222222", zorder=3, label="centres at first")
    left.scatter(*ways[-1].T, s=110, marker="X", c=colours, edgecolor="black", zorder=4, label="centres at last")
    left.set_title(f"{len(points):,} points, {clusters} clusters", loc="left")
    left.set(aspect="equal", xticks=[], yticks=[])
    left.legend(loc="upper right")
    rounds = np.arange(1, len(found.changed) + 1)
    right.plot(rounds, np.maximum(found.changed, 0.5 / len(points)), color="#c0392b", marker="o", markersize=3)
    right.set(yscale="log", xlabel="round", ylabel="share of points that changed their cluster")
    right.yaxis.label.set_color("#c0392b")
    other = right.twinx()
    other.plot(rounds, found.inertia, color="#2c6e9b", linewidth=2)
    other.set_ylabel("mean square of the distance to the centre", color="#2c6e9b")
    right.set_title(f"{len(rounds)} rounds", loc="left")
    for axes in (left, right, other):
        axes.spines[["top"]].set_visible(False)
    left.spines[:].set_visible(False)
    figure.savefig(file, dpi=130)


# ---------------------------------------------------------------------------------------------------------- the program


def run(options: argparse.Namespace) -> int:
    """The whole program, once its arguments are known. Returns the exit code."""
    if options.out is not None:
        plotting()
    if options.clusters > options.points:
        raise UsageError(f"{options.clusters:,} clusters need as many points, not {options.points:,}")
    points, start = make_points(options.points, options.dimensions, options.clusters, options.seed)
    by_threads = in_transactions(options.threads, options.batch)
    for one_round in (by_threads, alone):  # so that what is timed is not the compiler
        cluster(points[:100], start, 1.0, one_round)
    found = cluster(points, start, options.threshold, by_threads)
    expected = cluster(points, start, options.threshold, alone)
    print(
        f"{several(len(points), 'point')} in {several(options.dimensions, 'dimension')}, "
        f"{several(options.clusters, 'cluster')}: {several(len(found.changed), 'round')} in {found.seconds:.3f} s "
        f"by {several(options.threads, 'thread')}"
    )
    wrong = differences(found, expected)
    for each in wrong:
        print(f"DIFFERENT from the program without transactions: {each}")
    if not wrong:
        print("The program without transactions found the same clusters, and the same centres to the last bit.")
    if options.out is not None:
        draw(points, found, options.out)
        print(f"drawn into {options.out}")
    if options.compare:
        compare(points, start, options)
    return 1 if wrong else 0


def compare(points: Any, start: Any, options: argparse.Namespace) -> None:
    """Time the program without transactions, with one thread, and with several; in turns, so that all meet the same."""
    ways = {"without transactions": alone}
    for count in sorted({1, options.threads}):
        ways[several(count, "thread")] = in_transactions(count, options.batch)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.repeats):
        for name, one_round in ways.items():
            times[name].append(cluster(points, start, options.threshold, one_round).seconds)
    base = median(times["without transactions"])
    print(f"medians of {several(options.repeats, 'run')}:")
    for name, taken in times.items():
        print(f"  {median(taken):8.3f} s  {base / median(taken):5.2f} times as fast  {name}")


def several(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")  # one line; argparse would put the usage before it


def whole(least: int, most: int = 2**31) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            limit = "on" if most == 2**31 else f"to {most:,}"
            raise argparse.ArgumentTypeError(f"a whole number from {least} {limit}, not {text!r}")
        return int(text)

    return number


def share(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"a share from 0 to 1, not {text!r}")
    return number


def picture(text: str) -> Path | None:
    file = Path(text)
    if text == "none":
        return None
    if file.suffix not in (".png", ".pdf", ".svg"):
        raise argparse.ArgumentTypeError(f"a file that ends in .png, .pdf or .svg, or none; not {text!r}")
    if not file.parent.is_dir():
        raise argparse.ArgumentTypeError(f"no such folder: {file.parent}")
    return file


def usable_cpus() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="cluster_points", description="k-means with many threads, a transaction a batch of points.")
    add = parser.add_argument
    add("--points", type=whole(1, MOST), default=200_000, metavar="N", help="default: %(default)s")
    add("--dimensions", type=whole(2), default=2, metavar="N", help="default: %(default)s")
    add("--clusters", type=whole(1), default=24, metavar="N", help="default: %(default)s")
    add("--batch", type=whole(1), default=256, metavar="N", help="points to a transaction (default: %(default)s)")
    add("--threshold", type=share, default=0.0005, metavar="SHARE", help="end when fewer change (%(default)s)")
    add("--seed", type=whole(0), default=1, metavar="N", help="other points of the kind (default: %(default)s)")
    add("--threads", type=whole(1), default=usable_cpus(), metavar="N", help="default: %(default)s")
    add("--out", type=picture, default="clusters.png", metavar="FILE", help="picture (default: %(default)s), or none")
    add("--compare", action="store_true", help="time it with and without transactions")
    add("--repeats", type=whole(1), default=7, metavar="N", help="of the comparison (default: %(default)s)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with these arguments (default: the command line's). Returns the exit code."""
    try:
        return run(arguments(argv))
    except UsageError as error:
        print(f"cluster_points: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("cluster_points: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
