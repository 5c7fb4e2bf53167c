"""Route a circuit board with many threads: each route is one transaction in machine code.

    python -m examples.route_board                              route a board with room, and draw it
    python -m examples.route_board --board crowded --compare    ... a crowded one; then measure
    python -m examples.route_board --size 200 --seed 7 --threads 2 --out small.png

What it shows
-------------
Lee's algorithm sends a wave out from one pad until it comes to the other, and lays the track back along it. The cells
of the board are one `TArray`, and `.map` runs the transaction `route` for each route, on as many threads as there are
processors. There is no lock, and no part of the board belongs to a thread.

A wave looks at thousands of cells and a track needs a few dozen. If all that were looked at were a part of the
transaction, any two neighbours would conflict. So the wave looks with `peek`, which records nothing; only then does the
transaction read the cells of the way that was found, one by one, and lay the track. If one of them was taken meanwhile,
it looks once more, this time with reads that count. That there is no way need not be confirmed by reads: tracks are
never taken up again, so where a wave could not pass, none ever will.

What it promises
----------------
Tracks never cross or touch what is not theirs, whatever the threads do: the program walks every track on the finished
board, from pad to pad, and compares with what the transactions returned; it ends with code 1 if anything is wrong.
Which routes find a way depends on who comes first, so two threads may lay a few routes more or fewer than one. With one
thread the board is exactly that of the program without transactions, which is the same code on a plain array.

What it costs
-------------
An element of a TArray takes two words (the value and its version), so a wave waits for memory more often than on a
plain array: that, and not the transactions, is what one thread loses. `--compare` measures it on your machine, against
the same code on a plain array, without transactions:

    $ python -m examples.route_board --board crowded --threads 1 --out none
    2,855 of 3,101 routes laid on 600 x 600 x 2 cells, in ... s
    404,124 cells of track by 1 thread; 0 routes looked twice
    2,855 laid, 404,124 cells, without transactions
    Every track was walked: each joins its pads, and none touches another's cells.

Sources: C. Y. Lee, "An Algorithm for Path Connections and Its Applications", 1961. As a benchmark of transactional
memory: Watson, Kirkham and Lujan, "A Study of a Transactional Parallel Routing Algorithm", PACT 2007; Ansari and
others, "Lee-TM", ICA3PP 2008, whose boards have 600 x 600 cells on two layers with 1,506 and 3,101 routes, as these do
(their nets are not published in a form to include here: these are made from a seed); labyrinth in STAMP, IISWC 2008.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final, NoReturn

import numpy as np
from numba import njit

from stm import compiled

# ------------------------------------------------------------------------------------------------------ the algorithm

#: What a step costs along the layer's own direction (front: across the board; back: up and down), athwart it, and from
#: layer to layer. So tracks keep to their layer's direction, as on real boards, and seldom bar each other's way.
ALONG: Final = 1
ATHWART: Final = 3
VIA: Final = 5

FRONTS: Final = 8  # a power of two, above every cost
EDGE: Final = -1  # what the frame of cells around the board holds


@njit
def look(board: Any, cell: int) -> int:
    """The last committed value: no part of what the transaction has read."""
    return board.peek(cell)


@njit
def read(board: Any, cell: int) -> int:
    return board[cell]


@njit
def steps_from(cell: int, layer: int, width: int) -> Any:
    """The steps to the neighbours of a cell, and their costs."""
    if cell < layer:
        return (-1, ALONG), (1, ALONG), (-width, ATHWART), (width, ATHWART), (layer, VIA)
    return (-1, ATHWART), (1, ATHWART), (-width, ALONG), (width, ALONG), (-layer, VIA)


@njit
def push(fronts: Any, reached: Any, cell: int, cost: int) -> None:
    front = fronts[cost & (FRONTS - 1)]
    front[0] += 1
    front[front[0]] = cell
    reached[cell] = cost


@njit
def place(x: int, y: int, width: int) -> int:
    """The index of a cell of the front; the back is another layer further on. `width` counts the frame."""
    return (y + 1) * width + x + 1


def finder(see: Any) -> Any:
    """Lee's algorithm in machine code, for a board whose cells are seen through `see`."""

    @njit
    def find(board: Any, number: int, pads: Any, width: int, reached: Any, fronts: Any, way: Any) -> int:
        """List the cells of a cheapest way for a route in `way`, target first. Their number, 0 if there is none.

        A wave goes out from the source, and notes in `reached` what it costs to come to each cell, until it comes to
        the target. `fronts` has a row for each cost modulo FRONTS: how many cells to go on from, and these cells.
        """
        layer = (len(reached) - 1) // 2
        source, target = place(pads[0], pads[1], width), place(pads[2], pads[3], width)
        # Each wave counts from a `wall` so low that all that earlier waves left is higher than its own costs, and need
        # not be cleared away. What is in the way is noted as `wall` itself: nothing is lower, so it is looked at once.
        span = ATHWART * len(reached)
        if reached[-1] < 2 * span - 2**31:
            reached[:] = 0
        wall = reached[-1] - span
        reached[-1] = wall
        start = cost = wall + FRONTS
        fronts[:, 0] = 0
        for cell in (source, source + layer):
            push(fronts, reached, cell, cost)
        waiting = 2
        end = 0
        while waiting and not end:
            front = fronts[cost & (FRONTS - 1)]
            for k in range(1, front[0] + 1):
                cell = front[k]
                if reached[cell] != cost:
                    continue  # it was reached at a lower cost since
                if cell == target or cell == target + layer:
                    end = cell
                    break
                for step, price in steps_from(cell, layer, width):
                    near = cell + step
                    if reached[near] <= cost + price:
                        continue
                    if reached[near] >= wall + span:  # this wave has not been there, so it may be in the way
                        there = see(board, near)
                        if there != 0 and there != number:
                            reached[near] = wall
                            continue
                    push(fronts, reached, near, cost + price)
                    waiting += 1
            waiting -= front[0]
            front[0] = 0
            cost += 1
        if not end:
            return 0
        # Back to the source, each time to a cell that the wave may have come from: straight on, if there is a choice.
        cell, came, length = end, 0, 0
        while True:
            way[length] = cell
            length += 1
            if reached[cell] == start:
                return length
            back = 0
            for step, price in steps_from(cell, layer, width):
                if reached[cell + step] == reached[cell] - price and (back == 0 or step == came):
                    back = step
            came = back
            cell += back

    return find


find_by_looking, find_by_reading = finder(look), finder(read)


@compiled.transaction
def route(board: Any, number: int, pads: Any, width: int, reached: Any, fronts: Any, way: Any) -> Any:
    """Lay the track of one route. Returns the number of its cells, 0 if there is no way, and how many waves it took."""
    length, waves = find_by_looking(board, number, pads, width, reached, fronts, way), 1
    for k in range(length):
        there = board[way[k]]
        if there != 0 and there != number:  # somebody was quicker
            length, waves = find_by_reading(board, number, pads, width, reached, fronts, way), 2
            break
    for k in range(length):
        board[way[k]] = number
    return length, waves


@njit(nogil=True, cache=True)
def route_alone(board: Any, numbers: Any, pads: Any, width: int, reached: Any, fronts: Any, way: Any) -> Any:
    """The same for all routes one after the other, without transactions."""
    lengths = np.zeros(len(numbers), np.int64)
    for row in range(len(numbers)):
        lengths[row] = find_by_reading(board, numbers[row], pads[row], width, reached, fronts, way)
        for k in range(lengths[row]):
            board[way[k]] = numbers[row]
    return lengths


def room_to_work(cells: int, make: Any) -> tuple[Any, Any, Any]:
    """The arrays that `find` works with, private to a thread."""
    return make(cells + 1, np.int32), make((FRONTS, cells + 1), np.int32), make(cells, np.int32)


# ------------------------------------------------------------------------------------------------------------ the board

PINS: Final = 16  # of a chip, in two rows
PITCH: Final = 3  # cells from pin to pin


class UsageError(Exception):
    """The user asked for something that can't be done."""


@dataclass(frozen=True, slots=True)
class Board:
    """What is to be routed: `pads` holds x, y, x, y for each route, `spare` x, y of pins that no route uses."""

    size: int
    pads: Any
    spare: Any
    chips: list[tuple[int, int, int, int]]  # x, y, width, height

    @property
    def width(self) -> int:
        return self.size + 2

    @property
    def numbers(self) -> Any:
        return np.arange(1, len(self.pads) + 1)

    def cells(self) -> Any:
        """The board before routing: front and back, row by row, with a frame that nothing can pass. Pads go through."""
        cells = np.zeros((2, self.width, self.width), np.int64)
        cells[:, [0, -1], :] = cells[:, :, [0, -1]] = EDGE
        for columns, numbers in (
            (self.spare, EDGE),
            (self.pads[:, :2], self.numbers),
            (self.pads[:, 2:], self.numbers),
        ):
            cells[:, columns[:, 1] + 1, columns[:, 0] + 1] = numbers
        return cells.ravel()


def make_board(size: int, routes: int, reach: float, seed: int) -> Board:
    """A board of chips that are joined by buses, some of one line. `reach`: how far a bus goes on average, in chips.

    Short routes come first, as in Lee-TM: that lays more of them. Those of one bus stay together, so that each finds in
    the cache what the one before has looked at, and the routes most in each other's way are mostly one thread's.
    """
    random = np.random.default_rng(seed)
    length = PITCH * (PINS // 2 - 1) + 1
    count = 2 * routes * 11 // (10 * PINS) + 2  # so that a tenth of the pins are spare
    slot = int(size / count**0.5)
    while slot > length + 1 and (size // slot) ** 2 < count:
        slot -= 1
    if slot <= length + 1:
        raise UsageError(f"{routes:,} routes need more room than a board of {size} x {size} cells has")
    across = size // slot
    chips, sides = [], []
    for where in random.permutation(across**2)[:count].tolist():
        upright, thick = bool(random.integers(2)), int(random.integers(7, 12))
        w, h = (thick, length) if upright else (length, thick)
        x = where % across * slot + int(random.integers(slot - w))
        y = where // across * slot + int(random.integers(slot - h))
        chips.append((x, y, w, h))
        for far in (0, thick - 1):
            steps = range(0, length, PITCH)
            sides.append([(x + far, y + k) if upright else (x + k, y + far) for k in steps])
    middle = np.array([np.mean(side, axis=0) for side in sides])
    buses: list[list[tuple[int, ...]]] = []
    left = routes
    while left:
        free = [k for k, side in enumerate(sides) if side]
        here = int(random.choice(free))
        others = [k for k in free if k // 2 != here // 2] or [k for k in free if k != here]
        if not others:  # all that is left is one row of pins
            raise UsageError(f"{routes:,} routes could not be made; try another seed")
        far = np.abs(middle[others] - middle[here]).sum(axis=1)
        there = others[int(np.argmin(np.abs(far - random.exponential(reach * slot))))]
        lines = min(len(sides[here]), len(sides[there]), left, int(random.choice((1, 2, PINS // 2))))
        buses.append([sides[here].pop(0) + sides[there].pop(0) for _ in range(lines)])
        left -= lines
    buses.sort(key=lambda bus: sum(abs(x - u) + abs(y - v) for x, y, u, v in bus) / len(bus))
    spare = np.array([pin for side in sides for pin in side], np.int64).reshape(-1, 2)
    return Board(size, np.array([line for bus in buses for line in bus], np.int64), spare, chips)


def route_all(board: Board, threads: int) -> tuple[Any, Any, float]:
    """Route by transactions: the cells, a line for each route (its length, its waves), and the seconds it took."""
    cells = compiled.TArray(board.cells())
    work = room_to_work(cells.size, compiled.Scratch)
    begun = time.perf_counter()
    laid = route.map(cells, board.numbers, board.pads, board.width, *work, threads=threads)
    seconds = time.perf_counter() - begun
    return cells.to_numpy(), laid, seconds


def route_all_alone(board: Board) -> tuple[Any, Any, float]:
    """The same without transactions; the lengths alone."""
    cells = board.cells()
    work = room_to_work(cells.size, np.zeros)
    begun = time.perf_counter()
    lengths = route_alone(cells, board.numbers, board.pads, board.width, *work)
    return cells, lengths, time.perf_counter() - begun


def faults(board: Board, cells: Any, lengths: Any) -> list[str]:
    """What is wrong with a routed board, in words."""
    before, layer = board.cells(), len(cells) // 2
    wrong = [
        f"cell {k} held {before[k]} and holds {cells[k]}" for k in np.flatnonzero((before != 0) & (before != cells))
    ]
    of: dict[int, set[int]] = defaultdict(set)
    for cell in np.flatnonzero(cells > 0).tolist():
        of[int(cells[cell])].add(cell)
    for number, length in enumerate(lengths.tolist(), 1):
        x, y, u, v = board.pads[number - 1].tolist()
        source, target = ((b + 1) * board.width + a + 1 for a, b in ((x, y), (u, v)))
        own = of.pop(number, set())
        ends = {source, source + layer, target, target + layer}
        expected = length + 2 if length else 4  # each pad has a cell on either layer, and the track comes to one
        if len(own) != expected:
            wrong.append(f"route {number} has {len(own)} cells, not {expected}")
        if not length:
            continue
        seen, ahead = {source, source + layer}, [source, source + layer]
        while ahead:
            cell = ahead.pop()
            for near in (cell - 1, cell + 1, cell - board.width, cell + board.width, (cell + layer) % (2 * layer)):
                if near in own and near not in seen:
                    seen.add(near)
                    ahead.append(near)
        if own | ends != seen:
            wrong.append(f"route {number} is not connected from pad to pad")
    return wrong + [f"there is no route {number}, which {len(own)} cells hold" for number, own in sorted(of.items())]


# ---------------------------------------------------------------------------------------------------------- the picture

BOARD, CHIP, RIM, TEXT = "#10241c", "#1d3a2f", "#3d6b58", "#e6efe9"
FRONT, BACK, HOLE, PAD, SPARE, FAILED = "#f2a65a", "#4fb3d9", "#ffffff", "#e8d9a0", "#6f7f6a", "#ff3355"


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


def runs(same: Any) -> Any:
    """First and last column, and row, of each run of cells that are joined to the next one in their row."""
    edges = np.diff(np.pad(same.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    rows, firsts = np.nonzero(edges == 1)
    return firsts, np.nonzero(edges == -1)[1], rows


def draw(board: Board, cells: Any, lengths: Any, title: str, file: Path) -> None:
    """Both layers from above, the back beneath the front."""
    from matplotlib.collections import LineCollection
    from matplotlib.lines import Line2D
    from matplotlib.patches import Rectangle

    figure = plotting()(figsize=(10, 10.5), facecolor=BOARD)
    axes = figure.add_axes((0.02, 0.015, 0.96, 0.93), aspect="equal")
    axes.axis("off")
    axes.set(xlim=(-3, board.size + 2), ylim=(board.size + 2, -3))
    point = 72 * 9.6 / (board.size + 5)  # a cell's side
    for x, y, w, h in board.chips:
        axes.add_patch(Rectangle((x - 1, y - 1), w + 1, h + 1, facecolor=CHIP, edgecolor=RIM, linewidth=0.15 * point))
    layers = cells.reshape(2, board.width, board.width)[:, 1:-1, 1:-1]
    for grid, colour, order in ((layers[1], BACK, 2), (layers[0], FRONT, 3)):
        x0, x1, y = runs((grid[:, 1:] == grid[:, :-1]) & (grid[:, 1:] > 0))
        lines = np.stack((np.stack((x0, y), 1), np.stack((x1, y), 1)), 1)
        y0, y1, x = runs(((grid[1:] == grid[:-1]) & (grid[1:] > 0)).T)
        lines = np.concatenate((lines, np.stack((np.stack((x, y0), 1), np.stack((x, y1), 1)), 1)))
        axes.add_collection(
            LineCollection(lines, colors=colour, linewidths=0.5 * point, capstyle="round", zorder=order)
        )
    through = (layers[0] == layers[1]) & (layers[0] > 0)
    pads = board.pads.reshape(-1, 2)
    through[pads[:, 1], pads[:, 0]] = False
    dots = {"linestyle": "", "marker": "o"}
    y, x = np.nonzero(through)
    axes.plot(
        x,
        y,
        color=HOLE,
        markersize=0.75 * point,
        markeredgecolor=BOARD,
        markeredgewidth=0.12 * point,
        zorder=4,
        **dots,
    )
    done = np.repeat(lengths > 0, 2)
    ring = {"markerfacecolor": BOARD, "markeredgewidth": 0.4 * point, "zorder": 5, **dots}
    for some, colour, side in ((board.spare, SPARE, 1.1), (pads[done], PAD, 1.1), (pads[~done], FAILED, 1.9)):
        axes.plot(some[:, 0], some[:, 1], markeredgecolor=colour, markersize=side * point, **ring)
    figure.text(0.03, 0.965, title, color=TEXT, fontsize=13, va="center")
    shown = {"front": (FRONT, "-"), "back": (BACK, "-"), "via": (HOLE, ""), "pad": (PAD, ""), "no way": (FAILED, "")}
    signs = [
        Line2D([], [], color=colour, linestyle=line, linewidth=3, marker="" if line else "o")
        for colour, line in shown.values()
    ]
    form = {"frameon": False, "labelcolor": TEXT, "handlelength": 1.2, "ncols": len(shown)}
    figure.legend(signs, list(shown), loc="center right", bbox_to_anchor=(0.98, 0.965), **form)
    figure.savefig(file, dpi=150, facecolor=BOARD)


# ---------------------------------------------------------------------------------------------------------- the program

#: Routes on a board of 600 x 600 cells, and their reach.
BOARDS: Final = {"room": (1506, 1.5), "crowded": (3101, 6.0)}
PUBLISHED_SIZE: Final = 600


def compare(board: Board, threads: int, repeats: int) -> None:
    """Time the program without transactions, with one thread, and with several; in turns, so that all meet the same."""
    counts = sorted({1, threads})
    route_all_alone(board)
    alone, times = [], {count: [] for count in counts}
    for _ in range(repeats):
        alone.append(route_all_alone(board)[2])
        for count in counts:
            times[count].append(route_all(board, count)[2])
    print(f"medians of {repeats} runs:")
    print(f"  {median(alone):8.3f} s  without transactions")
    for count in counts:
        ratio = median(alone) / median(times[count])
        print(f"  {median(times[count]):8.3f} s  {several(count, 'thread')}: {ratio:.2f} times as fast")


def several(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def run(options: argparse.Namespace) -> int:
    """The whole program, once its arguments are known. Returns the exit code."""
    if options.out is not None:
        plotting()
    routes, reach = BOARDS[options.board]
    routes = options.routes or max(1, routes * options.size**2 // PUBLISHED_SIZE**2)
    board = make_board(options.size, routes, reach, options.seed)
    route_all(make_board(60, 8, 1.0, 0), 1)  # so that what is timed is not the compiler
    cells, laid, seconds = route_all(board, options.threads)
    lengths, again = laid[:, 0], int((laid[:, 1] > 1).sum())
    plain, plain_lengths, _ = route_all_alone(board)
    wrong = faults(board, cells, lengths) + [f"alone: {each}" for each in faults(board, plain, plain_lengths)]
    if options.threads == 1 and not np.array_equal(cells, plain):
        wrong.append("one thread laid other tracks than the program without transactions")
    done = int((lengths > 0).sum())
    print(
        f"{done:,} of {several(routes, 'route')} laid on {options.size} x {options.size} x 2 cells, in {seconds:.3f} s"
    )
    print(
        f"{several(int(lengths.sum()), 'cell')} of track by {several(options.threads, 'thread')}; "
        f"{several(again, 'route')} looked twice"
    )
    print(f"{int((plain_lengths > 0).sum()):,} laid, {int(plain_lengths.sum()):,} cells, without transactions")
    for each in wrong[:5]:
        print(f"WRONG: {each}")
    print(
        f"{len(wrong):,} FAULTS"
        if wrong
        else "Every track was walked: each joins its pads, and none touches another's cells."
    )
    if options.out is not None:
        draw(
            board,
            cells,
            lengths,
            f"{done:,} of {routes:,} routes, {options.size} x {options.size} x 2 cells",
            options.out,
        )
        print(f"drawn into {options.out}")
    if options.compare:
        compare(board, options.threads, options.repeats)
    return 1 if wrong else 0


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")  # one line; argparse would put the usage before it


def number_from(least: int) -> Any:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"a whole number from {least} on, not {text!r}")
        return int(text)

    return number


def picture(text: str) -> Path | None:
    if text == "none":
        return None
    file = Path(text)
    if file.suffix not in (".png", ".pdf", ".svg"):
        raise argparse.ArgumentTypeError(f"a file that ends in .png, .pdf or .svg, or none; not {text!r}")
    if not file.parent.is_dir():
        raise argparse.ArgumentTypeError(f"no such folder: {file.parent}")
    return file


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="route_board", description="Route a circuit board with many threads, a transaction a route.")
    add = parser.add_argument
    add("--board", choices=list(BOARDS), default="room", help="how much there is to route (default: %(default)s)")
    add("--size", type=number_from(30), default=PUBLISHED_SIZE, metavar="N", help="N x N cells (default: %(default)s)")
    add("--routes", type=number_from(1), metavar="N", help="default: 1,506 or 3,101 at 600 x 600, and so in proportion")
    add("--seed", type=number_from(0), default=1, metavar="N", help="another board of the kind (default: %(default)s)")
    add("--threads", type=number_from(1), default=usable_cpus(), metavar="N", help="default: %(default)s")
    add("--out", type=picture, default="board.png", metavar="FILE", help="the picture (default: %(default)s), or none")
    add("--compare", action="store_true", help="time it with and without transactions")
    add("--repeats", type=number_from(1), default=7, metavar="N", help="of the comparison (default: %(default)s)")
    return parser.parse_args(argv)


def usable_cpus() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with these arguments (default: the command line's). Returns the exit code."""
    try:
        return run(arguments(argv))
    except UsageError as error:
        print(f"route_board: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("route_board: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
