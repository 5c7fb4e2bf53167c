"""`SQLiteQueue` under `kill -9`: at each point at which a process may die, nothing is lost, nor done twice."""

import pytest

from hive_task.background.sources import _sqlite_claimants
from hive_task.background.sources import _sqlite_tending as tending
from hive_task.background.sources.sqlite import SQLiteQueue
from hive_task.background.tasks import CRASHES, DEAD, DONE, ENDED, QUEUED, RUNNING, SCHEDULED, Claim, End, Task
from tests.hive_task.background.sqlite_tools import heard, process, tell
from tests.support import until

WORKER = """
queue = SQLiteQueue(path, lease=1000.0)
def at(point):
    if point == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)
sys.argv.append({point!r})
_sqlite_file._at = at
# What another one left behind: it is queued again by `tend`.
queue.tend()
if {called}:
    say("put", queue.enqueue_call("own", None, "default"))
for id in queue.enqueue_tasks([Task("own", id=f"own{{i}}") for i in range(3)]):
    say("put", id)
while tasks := queue.dequeue_tasks(2):
    for task in tasks:
        say("run", task.id, task.claim.worker, task.claim.epoch)
    assert not queue.renew_leases(tasks)
    queue.set_progress(tasks[0], "half")
    for task, accepted in zip(tasks, queue.settle_tasks([End(task, DONE, task.id) for task in tasks])):
        say("done", task.id, accepted)
queue.close()
say("end")
"""
POINTS = [f"{what}:{when}" for what in ("tend", "enqueue", "claim", "renew", "progress", "settle")
          for when in ("before", "after")]  # fmt: skip


def abandoned(path):
    """A claimed task whose worker was killed."""
    with process(path, "queue = SQLiteQueue(path); say(queue.dequeue_task().id); hear()") as child:
        return heard(child)


def run(path, point, called):
    """What the worker said before it was killed."""
    with process(path, WORKER.format(point=point, called=called)) as child:
        said = []
        while line := heard(child):
            said.append(line.split())
        child.wait()
        assert child.returncode == -9, said
    return said


@pytest.mark.parametrize("called", [False, True])
@pytest.mark.parametrize("point", POINTS)
def test_a_worker_that_is_killed_loses_nothing_and_repeats_no_more_than_it_must(path, point, called):
    queue = SQLiteQueue(path)
    queue.enqueue_tasks([Task("t", id=f"t{i}") for i in range(4)])
    assert abandoned(path) == "t0"
    said = run(path, point, called)
    runs = {}
    for what, id, *_ in said:
        if what == "run":
            runs[id] = runs.get(id, 0) + 1
    put = {id for what, id, *_ in said if what == "put"}
    done = {id for what, id, *_ in said if what == "done"}
    late = [task for what, id, worker, epoch in (line for line in said if line[0] == "run")
            for task in [Task("late", id=id).claimed(Claim(worker, int(epoch), 1, 0.0))] if id not in done]  # fmt: skip
    # Recovery: at once, although the leases are long.
    queue.tend()
    records = {record.task.id: record for record in queue.list_tasks(limit=100)}
    assert set(records) >= {f"t{i}" for i in range(4)} | put
    assert all(records[id].state == DONE and records[id].result == id for id in done)
    assert not [one for one in records.values() if one.state == RUNNING]
    while tasks := queue.dequeue_tasks(3):
        for task in tasks:
            runs[task.id] = runs.get(task.id, 0) + 1
        # What the dead one could still say is not believed, now that others have the task.
        assert not any(queue.settle_tasks([End(task, DONE, "late") for task in late]))
        assert all(queue.settle_tasks([End(task, DONE, task.id) for task in tasks]))
    for record in queue.list_tasks(limit=100):
        assert (record.state, record.result) == (DONE, record.task.id)
        assert runs.get(record.task.id, 0) <= 1 + record.crashes
        assert record.attempts <= 1 + record.crashes
    queue.close()


def test_a_task_that_kills_its_workers_becomes_a_dead_letter(path):
    queue = SQLiteQueue(path)
    queue.enqueue_task(Task("poison", id="poison"))
    for crashes in range(1, CRASHES + 1):
        assert abandoned(path) == "poison"
        queue.tend()
        assert queue.find_task("poison").crashes == crashes
    record = queue.find_task("poison")
    assert (record.state, record.failure.kind, record.attempts) == (DEAD, "WorkerLost", CRASHES)
    assert queue.dequeue_task() is None
    queue.close()


class Clock:
    """Wall and monotonic time, each set by hand."""

    def __init__(self):
        self.wall, self.running = 1_900_000_000.0, 500.0

    def time(self):
        return self.wall

    def monotonic(self):
        return self.running


def test_the_wall_clock_expires_no_lease_and_the_monotonic_one_does(path):
    clock = Clock()
    queue = SQLiteQueue(path, lease=30.0, clock=clock)
    queue.enqueue_task(Task("t"))
    task = queue.dequeue_task()
    for jump in (1e6, -2e6):
        clock.wall += jump
        assert queue.tend() == pytest.approx(30.0)
        assert queue.find_task(task.id).state == RUNNING
    clock.running += 29
    assert queue.renew_leases([task]) == set()
    clock.running += 29
    assert queue.tend() == pytest.approx(1.0)
    clock.running += 2
    queue.tend()
    record = queue.find_task(task.id)
    assert (record.state, record.crashes, record.worker) == (QUEUED, 1, None)
    assert queue.renew_leases([task]) == {task.id}
    assert not queue.complete_task(task)
    assert not queue.set_progress(task, "late")
    again = queue.dequeue_task()
    assert again.claim.epoch != task.claim.epoch
    assert not queue.complete_task(task), "the same worker, but an older claim"
    assert queue.complete_task(again)
    queue.close()


def test_a_lease_that_has_expired_is_good_until_somebody_takes_the_task_back(path):
    clock = Clock()
    queue = SQLiteQueue(path, lease=30.0, clock=clock)
    queue.enqueue_task(Task("t"))
    task = queue.dequeue_task()
    clock.running += 100
    assert queue.renew_leases([task]) == set()
    queue.tend()
    assert queue.complete_task(task)
    queue.close()


def test_after_a_boot_nobody_of_before_lives(path, monkeypatch):
    clock = Clock()
    queue = SQLiteQueue(path, lease=30.0, clock=clock)
    queue.enqueue_task(Task("t"))
    task = queue.dequeue_task()
    clock.running = 1.0  # it has begun anew, so by it the lease runs for long yet
    monkeypatch.setattr(_sqlite_claimants, "boot", lambda: "another boot")
    queue.tend()
    assert queue.find_task(task.id).state == QUEUED
    queue.close()


def test_a_process_that_has_the_number_of_a_dead_one_is_not_it(path, monkeypatch):
    queue = SQLiteQueue(path)
    queue.enqueue_task(Task("t"))
    task = queue.dequeue_task()
    me = _sqlite_claimants.this_process()
    assert not _sqlite_claimants.is_gone(me)
    assert _sqlite_claimants.is_gone(me._replace(born=me.born - 100))
    assert not _sqlite_claimants.is_gone(me._replace(born=me.born - 100, space="another container"))
    monkeypatch.setattr(tending, "is_gone", lambda process: True)
    queue.tend()
    assert queue.find_task(task.id).state == QUEUED
    queue.close()


def test_a_zombie_is_dead(path):
    with process(path, "queue = SQLiteQueue(path); say('here'); hear()") as child:
        heard(child)
        assert _sqlite_claimants.born(child.pid) is not None
        child.kill()
        until(lambda: _sqlite_claimants.born(child.pid) is None, "the zombie")


def test_claimants_that_are_gone_are_forgotten(path):
    queue = SQLiteQueue(path)
    queue.enqueue_task(Task("t"))
    abandoned(path)
    queue.tend()
    queue.tend()
    with queue._file.reading() as connection:
        assert connection.execute("SELECT count(*) FROM claimants").fetchall() == [(0,)]
    queue.close()


def test_while_others_have_tasks_in_hand_somebody_looks_after_them_every_second(path):
    queue = SQLiteQueue(path)
    queue.enqueue_task(Task("t"))
    assert queue.tend() is None
    with process(path, "queue = SQLiteQueue(path, lease=600); say(queue.dequeue_task().id); hear()") as child:
        heard(child)
        assert queue.tend() == pytest.approx(1.0)
        tell(child)
    queue.close()


def test_a_cancelled_task_is_not_run_again_when_its_worker_dies(path):
    queue = SQLiteQueue(path)
    queue.enqueue_task(Task("t", id="t"))
    abandoned(path)
    assert queue.cancel_task("t")
    queue.tend()
    assert queue.find_task("t").state in ENDED
    queue.close()


def test_thousands_come_due_in_several_transactions(path):
    clock = Clock()
    queue = SQLiteQueue(path, synchronous="OFF", clock=clock)
    count = 2 * tending.MOVED + 1
    queue.enqueue_tasks([Task("t", due=clock.wall + 5) for _ in range(count)])
    assert queue.count_tasks() == {"default": {SCHEDULED: count}}
    assert queue.tend() == pytest.approx(5.0)
    clock.wall += 5
    assert queue.tend() is None
    assert queue.count_tasks() == {"default": {QUEUED: count}}
    queue.close()
