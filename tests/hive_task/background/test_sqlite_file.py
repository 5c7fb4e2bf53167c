"""The file of a `SQLiteQueue`: what is wrong with it is said, and nothing is half done; forks; closing."""

import os
import sqlite3
import threading

import pytest

from hive_task.background.sources import _sqlite_file
from hive_task.background.sources.sqlite import SQLiteQueue
from hive_task.background.tasks import DONE, QUEUED, End, Task
from hive_task.errors import SourceError, UnserializableData
from tests.hive_task.background.sqlite_tools import heard, process, tell
from tests.support import together, until


@pytest.fixture
def queue(path):
    queue = SQLiteQueue(path, synchronous="OFF", busy_timeout=0.2)
    yield queue
    queue.close()


def states(queue):
    return dict(queue.count_tasks().get("default", {}))


def test_what_was_put_in_is_there_when_the_file_is_opened_again(path):
    first = SQLiteQueue(path)
    id = first.enqueue_task(Task("greet", {"who": ["world", 1, 2.5, None, True]}, priority=3, retries=2))
    first.close()
    second = SQLiteQueue(path)
    task = second.dequeue_task()
    assert (task.id, task.data, task.priority, task.retries) == (id, {"who": ["world", 1, 2.5, None, True]}, 3, 2)
    second.close()


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(SourceError, match=r"there is no directory .*missing; make it first"):
        SQLiteQueue(tmp_path / "missing" / "tasks.db")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_is_no_file(tmp_path):
    with pytest.raises(SourceError, match=r"is a directory; name a file in it"):
        SQLiteQueue(tmp_path)


def test_a_file_that_is_no_database_is_left_as_it_was(path):
    text = "Dear diary, " * 1000
    with open(path, "w") as file:
        file.write(text)
    with pytest.raises(SourceError, match=r"tasks.db: it is not a SQLite database; name another file") as caught:
        SQLiteQueue(path)
    assert isinstance(caught.value.__cause__, sqlite3.DatabaseError)
    with open(path) as file:
        assert file.read() == text


def test_the_database_of_another_program_is_left_as_it_was(path, tmp_path):
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE diary (line TEXT)")
    other.commit()
    other.close()
    with open(path, "rb") as file:
        before = file.read()
    with pytest.raises(SourceError, match=r"is a database of some other program"):
        SQLiteQueue(path)
    with open(path, "rb") as file:
        assert file.read() == before
    assert [one.name for one in tmp_path.iterdir()] == ["tasks.db"]


def test_a_newer_shape_is_refused(path):
    SQLiteQueue(path).close()
    other = sqlite3.connect(path)
    other.execute("PRAGMA user_version = 99")
    other.close()
    with pytest.raises(SourceError, match=r"newer version of hive-task \(its shape is 99, this one knows 2\)"):
        SQLiteQueue(path)


def test_a_file_that_cannot_be_written_is_refused_when_it_is_opened(path, monkeypatch):
    SQLiteQueue(path).close()
    connect = sqlite3.connect  # file modes mean nothing to root, so SQLite is told
    monkeypatch.setattr(sqlite3, "connect", lambda path, **how: connect(f"file:{path}?mode=ro", uri=True, **how))
    with pytest.raises(SourceError, match=r"can't be written; make both writable") as caught:
        SQLiteQueue(path)
    assert isinstance(caught.value.__cause__, sqlite3.OperationalError)


def test_a_full_disk_undoes_the_whole_batch_and_the_queue_goes_on(queue):
    queue.enqueue_task(Task("before"))
    writer = queue._file._writer
    ((pages,),) = writer.execute("PRAGMA page_count").fetchall()
    writer.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(SourceError, match=r"tasks.db: the disk is full; make room and try again") as caught:
        queue.enqueue_tasks([Task("many", "x" * 1000) for _ in range(100)])
    assert caught.value.__cause__.sqlite_errorname == "SQLITE_FULL"
    assert states(queue) == {QUEUED: 1}
    writer.execute("PRAGMA max_page_count = 1000000")
    assert len(queue.enqueue_tasks([Task("many", "x" * 1000) for _ in range(100)])) == 100
    assert states(queue) == {QUEUED: 101}


def test_a_file_that_is_locked_for_too_long_is_said_to_be(path, queue):
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(SourceError, match=r"tasks.db: another process kept it locked longer") as caught:
        queue.enqueue_task(Task("late"))
    assert caught.value.__cause__.sqlite_errorname == "SQLITE_BUSY"
    assert queue.find_task("nobody") is None  # who reads does not wait
    other.execute("ROLLBACK")
    other.close()
    queue.enqueue_task(Task("late"))
    assert states(queue) == {QUEUED: 1}


@pytest.mark.parametrize("bad", [Task("t", priority=2**70), Task("t", id="\ud800"), Task("t", limit=("k", 2**70))])
def test_what_sqlite_has_no_room_for_is_refused_and_takes_its_batch_with_it(queue, bad):
    with pytest.raises(UnserializableData):
        queue.enqueue_tasks([Task("good"), bad])
    assert states(queue) == {}


def test_arguments_are_checked(path):
    with pytest.raises(ValueError, match="synchronous is one of FULL, NORMAL, OFF, not 'full'"):
        SQLiteQueue(path, synchronous="full")
    with pytest.raises(ValueError, match="a lease is more than nothing"):
        SQLiteQueue(path, lease=0)
    assert not os.path.exists(path)


def test_closing_twice_is_once_and_the_closed_queue_says_so(queue, path):
    queue.enqueue_task(Task("greet"))
    queue.find_task("x")
    queue.close()
    queue.close()
    with pytest.raises(SourceError, match=r"tasks.db: this queue has been closed"):
        queue.enqueue_task(Task("greet"))
    with pytest.raises(SourceError, match=r"has been closed"):
        queue.count_tasks()
    assert os.listdir(os.path.dirname(path)) == ["tasks.db"]  # no log, no directory of waiters


def test_many_can_create_the_file_at_the_same_time(path):
    def create():
        queue = SQLiteQueue(path)
        queue.enqueue_task(Task("greet"))
        queue.close()

    together(*[create] * 4)
    queue = SQLiteQueue(path)
    assert states(queue) == {QUEUED: 4}
    queue.close()


def test_threads_and_processes_share_the_work_and_each_task_is_run_once(path):
    count = 300
    queue = SQLiteQueue(path, synchronous="OFF")
    queue.enqueue_tasks([Task("t", i) for i in range(count)])
    program = """
    queue = SQLiteQueue(path, synchronous="OFF")
    say("ready")
    hear()
    ran = []
    ends = []
    while True:
        accepted, tasks = queue.settle_and_dequeue(ends, 3)
        assert all(accepted)
        if not tasks:
            break
        ran += [task.data for task in tasks]
        ends = [End(task, DONE) for task in tasks]
    queue.close()
    say(*ran)
    """

    def work():
        ran = []
        while (task := queue.dequeue_task()) is not None:
            ran.append(task.data)
            assert queue.complete_task(task)
        return ran

    with process(path, program) as child:
        assert heard(child) == "ready"
        tell(child)
        ran = [data for part in together(work, work) for data in part]
        ran += map(int, heard(child).split())
    assert sorted(ran) == list(range(count))
    assert states(queue) == {DONE: count}
    queue.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_opens_its_own_connections_even_if_it_forks_amid_a_transaction(path):
    queue = SQLiteQueue(path, synchronous="OFF")
    queue.enqueue_task(Task("parent"))
    identity = queue.dequeue_task().claim.worker
    inside = threading.Event()

    def hold():
        with queue._file.writing("hold") as connection:
            connection.execute("UPDATE epochs SET last = last + 1000")
            inside.set()
            until(lambda: queue._file.forking)

    holder = threading.Thread(target=hold)
    holder.start()
    inside.wait(60)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            id = queue.enqueue_task(Task("child", priority=1))
            task = queue.dequeue_task()
            fresh = task.claim.worker != identity and task.claim.epoch > 1000
            status = 0 if fresh and task.id == id and queue.complete_task(task) else 2
            queue.close()
        finally:
            os._exit(status)
    holder.join()
    queue.enqueue_task(Task("parent, meanwhile"))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert sum(states(queue).values()) == 3
    queue.close()


def test_a_child_that_ends_normally_leaves_the_parents_log_alone(path):
    program = """
    queue = SQLiteQueue(path)
    queue.enqueue_task(Task("first"))
    child = os.fork()
    if child == 0:
        sys.exit(0)  # with all that an interpreter does at its end
    os.waitpid(child, 0)
    queue.enqueue_task(Task("second"))
    say(queue.count_tasks()["default"]["queued"], os.path.exists(path + "-wal"))
    hear()
    """
    with process(path, program) as child:
        assert heard(child) == "2 True"
        other = SQLiteQueue(path)  # with the child's locks gone, this one would find a log to be removed
        assert states(other) == {QUEUED: 2}
        other.close()
        tell(child)


def test_the_points_of_a_transaction_are_passed_in_order(queue, monkeypatch):
    points = []
    monkeypatch.setattr(_sqlite_file, "_at", points.append)
    queue.enqueue_task(Task("t"))
    task = queue.dequeue_task()
    queue.renew_leases([task])
    queue.settle_tasks([End(task, DONE)])
    assert points == [
        f"{what}:{when}" for what in ("enqueue", "claim", "renew", "settle") for when in ("before", "after")
    ]


def test_an_exception_undoes_what_was_done_and_frees_the_lock(queue, monkeypatch):
    class Storm(BaseException):
        pass

    def strike(point):
        raise Storm

    monkeypatch.setattr(_sqlite_file, "_at", strike)
    with pytest.raises(Storm):
        queue.enqueue_task(Task("t"))
    monkeypatch.undo()
    assert states(queue) == {}
    queue.enqueue_task(Task("t"))
    assert states(queue) == {QUEUED: 1}
