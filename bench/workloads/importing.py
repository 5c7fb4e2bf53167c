"""`import`: how long a program waits for `import stm`, beyond the start of the interpreter itself.

Compiled files exist, as they do from a program's second start on: they are kept in a folder of our own, so that neither
what others left behind nor a setting against writing them makes a difference.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import ClassVar, Final

from bench.environment import importable_here
from bench.harness import InvariantError, Measurement, Plan, Point, Samples, Summary, Workload, per_repeat
from bench.results import Chart, Figure, Quantity

STARTS: Final = 10
SETTING: Final = "a fresh process"

TIME: Final = Quantity("start of the process", "s", "lower")
NET: Final = Quantity("time beyond the interpreter's start", "s", "lower")

PROGRAMS: Final = {"bare interpreter": "pass", "import stm": "import stm"}


class Import(Workload):
    name: ClassVar[str] = "import"
    shows: ClassVar[str] = "How long `import stm` takes in a fresh process, beyond the start of the interpreter."
    variants: ClassVar[tuple[str, ...]] = tuple(PROGRAMS)

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.starts = plan.operations(STARTS)
        self.failed = ""

    def points(self) -> Iterator[Point]:
        for variant in self.variants:
            yield Point(SETTING, variant, 1)

    def run(self, point: Point) -> Measurement:
        program = PROGRAMS[point.variant]
        with tempfile.TemporaryDirectory() as compiled:
            self._start(program, compiled)  # writes them
            return {TIME: statistics.median(self._start(program, compiled) for _ in range(self.starts))}

    def _start(self, program: str, compiled: str) -> float:
        command = [sys.executable, "-c", program]
        environment = importable_here() | {"PYTHONPYCACHEPREFIX": compiled, "PYTHONDONTWRITEBYTECODE": ""}
        began = time.perf_counter()
        process = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=False)
        seconds = time.perf_counter() - began
        if process.returncode:
            lines = process.stderr.strip().splitlines()
            self.failed = lines[-1] if lines else f"exit status {process.returncode}"
        return seconds

    def check(self) -> None:
        if self.failed:
            raise InvariantError(f"the process failed: {self.failed}")

    def summarise(self, samples: Samples) -> Summary:
        points = [Point(SETTING, variant, 1) for variant in self.variants]
        bare, whole = (samples.values(point, TIME) for point in points)
        net = per_repeat(lambda whole, bare: whole - bare, whole, bare)
        chart = Chart("Start of a process", "", "s", self.variants, (samples.series("", points, TIME),), kind="bar")
        return Summary([Figure(SETTING, "import stm", 1, NET, net)] if net else [], [chart])
