"""`routing`: does a real program gain from threads, when each of its transactions is long and may meet another's?

Measured: `examples/route_board.py`, which lays the tracks of a circuit board, one compiled transaction for each route
(after Lee-TM): on a board with room, where few tracks are in each other's way, and on a crowded one. Beside it the same
program compiled without transactions, which lays one track after the other on a plain array. After each run every track
is walked: it must join its pads, and touch no other.

What to distrust:

- Which tracks are laid depends on their order, so on several threads a crowded board comes out differently each time.
  The number of routes laid stands beside the time: a program could be quick by giving up.
- The program looks at the board without recording reads (`peek`) while its wave goes out, and checks the way that it
  has found. One that recorded every cell it looked at would conflict far more often.
- Threads that compute need processors: another program on the machine takes one away from the transactions first.
- The boards shrink with `--scale`. Small ones take hundredths of a second and have short routes, so threads have less
  to gain there; hence the one with room, on which a route is quickly found, is kept the larger.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Final

from bench.harness import (
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
from bench.tables import count_of, number
from bench.workloads import compiled

TIME: Final = Quantity("time to route the board", "s", "lower")
LAID: Final = Quantity("routes laid", "%", "higher")
AGAIN: Final = Quantity("routes that found somebody in their way, and looked twice", "%", "lower")
RATIO: Final = Quantity("speed, relative to the program without transactions", "", "higher")

ALONE: Final = "without transactions"
THREADS: Final = "transactions"

#: As the example names its boards.
BOARDS: Final = {"a board with room": "room", "a crowded board": "crowded"}
ROOMY, CROWDED = BOARDS

#: Cells along the side of a board in a full run, and the fewest; how much slower the area shrinks than the scale.
SIDE: Final = 600
LARGER: Final = {ROOMY: 2.5, CROWDED: 1.0}
SMALLEST: Final = 120
SEED: Final = 1


class Routing(Workload):
    name: ClassVar[str] = "routing"
    shows: ClassVar[str] = (
        "What a program of long transactions gains from threads (the board router of examples/), with few conflicts "
        "and with many, beside the same program without transactions."
    )
    variants: ClassVar[tuple[str, ...]] = (ALONE, THREADS)

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.boards: dict[str, Any] = {}
        self.wrong: list[str] = []

    def lacking(self) -> str:
        missing = compiled.lacking()
        if missing:
            return missing
        try:
            import examples.route_board  # noqa: F401
        except ModuleNotFoundError as error:
            return f"{error.name} is not there: the examples are part of the source, not of an installed distribution"
        return ""

    def prepare(self) -> None:
        from examples import route_board

        for setting, kind in BOARDS.items():
            side = max(SMALLEST, round(SIDE * min(1.0, self.plan.scale * LARGER[setting]) ** 0.5))
            self.boards[setting] = make_board(kind, side)
        small = route_board.make_board(SMALLEST, 8, 1.0, SEED)
        route_board.route_all_alone(small)
        for threads in self.plan.threads:  # compiled before the clock starts
            route_board.route_all(small, threads)

    def points(self) -> Iterator[Point]:
        for setting in BOARDS:
            yield Point(setting, ALONE, 1)
            for threads in self.plan.threads:
                yield Point(setting, THREADS, threads)

    def run(self, point: Point) -> Measurement:
        from examples import route_board

        board = self.boards[point.setting]
        found: list[Any] = []

        def work(start: Start) -> None:
            start()
            found.extend(
                route_board.route_all_alone(board)
                if point.variant == ALONE
                else route_board.route_all(board, point.threads)
            )

        run_together([work])
        cells, laid, seconds = found  # the example's own clock leaves out what it prepares
        lengths = laid if point.variant == ALONE else laid[:, 0]
        self.wrong = route_board.faults(board, cells, lengths)
        measurement = {TIME: seconds, LAID: 100.0 * float((lengths > 0).mean())}
        if point.variant == THREADS:
            measurement[AGAIN] = 100.0 * float((laid[:, 1] > 1).mean())
        return measurement

    def check(self) -> None:
        if self.wrong:
            raise InvariantError(f"{count_of(len(self.wrong), 'fault')} of the routed board: {self.wrong[0]}")

    def summarise(self, samples: Samples) -> Summary:
        figures, findings = [], []
        for setting in BOARDS:
            alone = samples.values(Point(setting, ALONE, 1), TIME)
            for threads in self.plan.threads:
                point = Point(setting, THREADS, threads)
                values = ratios(alone, samples.values(point, TIME))
                if not values:
                    continue
                figures.append(Figure(setting, THREADS, threads, RATIO, values))
                findings.append(
                    f"{setting}, {count_of(threads, 'thread')}: {number(spread(values).median)} times as fast as "
                    f"without transactions; {number(spread(samples.values(point, LAID)).median)} % of the routes laid."
                )
        series = [samples.series(ALONE, [Point(setting, ALONE, 1) for setting in BOARDS], TIME)]
        series += [
            samples.series(count_of(threads, "thread"), [Point(setting, THREADS, threads) for setting in BOARDS], TIME)
            for threads in self.plan.threads
        ]
        chart = Chart("Time to route the board", "", TIME.unit, tuple(BOARDS), tuple(series), kind="bar")
        return Summary(figures, [chart], findings)


def make_board(kind: str, side: int) -> Any:
    """A board of the example's, with as many routes as fit its size; a little larger if its chips don't fit."""
    from examples import route_board

    routes, reach = route_board.BOARDS[kind]
    count = max(1, routes * side**2 // route_board.PUBLISHED_SIZE**2)
    try:
        return route_board.make_board(side, count, reach, SEED)
    except route_board.UsageError:
        if side >= SIDE:
            raise
    return make_board(kind, side + 1)
