"""A worker process for `test_chaos`: runs tasks from a file, and writes each run down, until it is killed.

python -m tests.hive_task.background.chaos_worker DATABASE LOG
"""

import logging
import os
import sys
import time
from pathlib import Path

from hive_task.background import Backoff, SQLiteQueue, start_application, task


def note(log: int, kind: str, data: object) -> None:
    os.write(log, f"{kind} {data}\n".encode())  # one write to a file opened for appending is never torn


def define(log: int) -> None:
    @task("quick")
    def quick(data, *, time):
        note(log, "quick", data)
        return data

    @task("slow")
    def slow(data, *, time):
        note(log, "slow", data)
        sleep(0.003)
        return data

    @task("moody", retries=2, backoff=Backoff(base=0.01))
    def moody(data, *, time):
        note(log, "moody", data)
        if data % 3 == 0:
            raise ValueError(data)
        return data

    @task("tick", every=0.2)
    def tick(data, *, time):
        note(log, "tick", f"{time:.3f}")


sleep = time.sleep


def main(database: str, log: str) -> None:
    logging.getLogger("hive_task").setLevel(logging.ERROR)
    define(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT))
    Path(f"{log}.{os.getpid()}.ready").touch()
    start_application(number_of_workers=2, data_source=SQLiteQueue(database, synchronous="NORMAL")).await_stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
