"""Worker processes that are killed at random, under load: nothing is lost, nothing runs more often than it may.

A few kills in the ordinary suite; with `make soak-tasks` 200, and then ten minutes with a wall clock that jumps too.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace

import pytest

from hive_task.background import ManualClock, SQLiteQueue, Task
from hive_task.background.tasks import ENDED
from tests.support import until

WORKERS = 2
NAMES = ("quick", "slow", "moody")


class Jumping:
    """The system's clocks, but that the wall clock has been set, as nobody should."""

    def __init__(self):
        self.offset = 0.0

    def time(self):
        return time.time() + self.offset

    def monotonic(self):
        return time.monotonic()


class Storm:
    """Processes over one file, which are killed and replaced; and a program that puts tasks in."""

    def __init__(self, directory, seed):
        self.random = random.Random(seed)
        self.database = str(directory / "tasks.sqlite")
        self.log = str(directory / "runs.log")
        self.clock = Jumping()
        self.source = SQLiteQueue(self.database, synchronous="NORMAL", clock=self.clock)
        self.processes = []
        self.ids = {}
        self.kills = 0

    def start(self):
        command = [sys.executable, "-m", "tests.hive_task.background.chaos_worker", self.database, self.log]
        self.processes.append(subprocess.Popen(command))

    def kill(self, process):
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.processes.remove(process)
        self.kills += 1

    def put(self, count):
        made = [Task(self.random.choice(NAMES), len(self.ids) + n) for n in range(count)]
        if count > 1:
            self.source.enqueue_tasks(made)
        elif self.random.random() < 0.5:
            self.source.enqueue_task(made[0])
        else:  # its id is made by the queue
            (task,) = made
            made = [replace(task, id=self.source.enqueue_call(task.name, task.data, task.queue))]
        self.ids.update((task.data, task) for task in made)

    def unsettled(self):
        counts = Counter()
        for states in self.source.count_tasks().values():
            counts.update(states)
        return sum(counts[state] for state in counts if state not in ENDED)

    def rage(self, kills, seconds=0.0, jumps=False):
        until_at_least = time.monotonic() + seconds
        for _ in range(WORKERS):
            self.start()
        while self.kills < kills or time.monotonic() < until_at_least:
            for _ in range(self.random.randrange(5)):
                self.put(self.random.choice((1, 1, 10, 50)))
            if jumps and self.random.random() < 0.05:
                self.clock.offset = self.random.choice((-3600.0, -1.0, 0.0, 1.0, 3600.0))
            time.sleep(self.random.random() * 0.15)  # not to wait for something: the kill comes at any moment
            victim = self.random.choice(self.processes)
            if os.path.exists(f"{self.log}.{victim.pid}.ready") or self.random.random() < 0.1:
                self.kill(victim)
                self.start()
        self.clock.offset = 0.0

    def settle(self):
        """No more kills: everything comes to its end but what is put in for the next tick. However much that is: each
        wait is for some of it."""
        while (left := self.unsettled()) > 1:
            until(lambda: self.unsettled() < left, f"the end of any of {left} tasks")

    def stop(self):
        for process in list(self.processes):
            self.kill(process)
        self.source.tend()

    def check(self):
        runs = Counter()
        with contextlib.suppress(FileNotFoundError), open(self.log) as lines:
            runs.update(line.rstrip("\n") for line in lines)
        dead = 0
        for data, task in self.ids.items():
            record = self.source.find_task(task.id)
            assert record is not None, f"{task} is lost"
            assert record.state in ("done", "dead"), record
            ran = runs[f"{task.name} {data}"]
            failures = 2 if task.name == "moody" and data % 3 == 0 else 0
            assert ran <= 1 + record.crashes + failures, (record, ran)
            if record.state == "done":
                assert ran >= 1, record
                assert record.result == data
            else:
                dead += 1
                assert record.crashes >= 3 or failures, record
        ticks = [line for line in runs if line.startswith("tick")]
        return {
            "tasks": len(self.ids),
            "runs": sum(runs.values()),
            "kills": self.kills,
            "dead": dead,
            "ticks": len(ticks),
        }


@pytest.fixture
def storm(tmp_path, request):
    made = Storm(tmp_path, seed=7)
    yield made
    for process in made.processes:
        process.kill()
        process.wait()
    made.source.close()


def weather(storm, capsys, **how):
    storm.rage(**how)
    storm.settle()
    storm.stop()
    with capsys.disabled():
        print(f"\n  {storm.check()}", end=" ")


def test_workers_killed_at_random_lose_nothing(storm):
    storm.rage(kills=8)
    storm.settle()
    storm.stop()
    assert storm.check()["ticks"]


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_two_hundred_kills_under_load(storm, capsys):
    weather(storm, capsys, kills=200)


@pytest.mark.soak
@pytest.mark.timeout(1500)
def test_ten_minutes_with_kills_retries_periodic_tasks_and_clock_jumps(storm, capsys):
    weather(storm, capsys, kills=0, seconds=600, jumps=True)


def test_a_late_result_of_a_killed_workers_process_is_refused(tmp_path):
    """The claim of one who was taken for dead is worth nothing, though he lives."""
    clock = ManualClock()
    source = SQLiteQueue(tmp_path / "tasks.sqlite", clock=clock, lease=10)
    id = source.enqueue_task(Task("quick", 1))
    late = source.dequeue_task()
    clock.advance(11)
    source.tend()
    again = source.dequeue_task()
    assert again.claim.epoch > late.claim.epoch
    assert not source.complete_task(late, "late")
    assert source.find_task(id).state == "running"
    assert source.complete_task(again, "in time")
    assert source.find_task(id).result == "in time"
    source.close()
