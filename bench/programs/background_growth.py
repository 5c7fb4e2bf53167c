"""A process whose workers work through a long queue in a SQLite file, and look at how much memory they have.

Arguments: the file, the number of workers, and how many tasks there are, numbered from 0. When they begin it writes a
line. When its input has ended comes a line of JSON: the resident memory in bytes after 1,000 tasks, the most that was
seen after each further 1,000, and how many tasks did not run exactly once.
"""

import json
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from bench.twins.task_queues import Hive

EVERY = 1_000


class Marks:
    """How often each task ran, without any memory that grows: a byte for each, written to now."""

    def __init__(self, count: int) -> None:
        self._times = bytearray(b"\1" * count)
        self._ran = 0
        self._lock = threading.Lock()
        self._process = psutil.Process()
        self.sizes: list[int] = []

    def note(self, number: int) -> float:
        with self._lock:
            self._times[number] = min(255, self._times[number] + 1)
            self._ran += 1
            if self._ran % EVERY == 0:
                self.sizes.append(self._process.memory_info().rss)
        return time.monotonic()

    def wrong(self) -> int:
        return len(self._times) - self._times.count(2)


def main(arguments: Sequence[str]) -> int:
    path, workers, count = arguments
    marks = Marks(int(count))
    queue = Hive(marks.note, int(workers), Path(path))
    print("ready", flush=True)
    sys.stdin.read()
    queue.end()
    print(json.dumps({"first": marks.sizes[:1], "most": max(marks.sizes, default=0), "wrong": marks.wrong()}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
