"""A process whose workers run the tasks that others put into a SQLite file, until its input ends.

Arguments: the contender, the file, and the number of workers. When they are there it writes a line; at the end a line
of JSON with the numbers of the tasks that ran, in order.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.twins.task_queues import CONTENDERS, Books


def main(arguments: Sequence[str]) -> int:
    variant, path, workers = arguments
    books = Books()
    queue = CONTENDERS[variant](books.note, int(workers), Path(path))
    print("ready", flush=True)
    sys.stdin.read()
    queue.end()
    print(json.dumps(books.ran), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
