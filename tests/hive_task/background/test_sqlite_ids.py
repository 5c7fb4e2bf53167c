"""Ids that a `SQLiteQueue` makes itself: found without an index, none taken for another; files of a former shape."""

import sqlite3

import pytest

from hive_task.background.sources import _sqlite_schema as sql
from hive_task.background.sources._sqlite_ids import id_at, seq_in
from hive_task.background.sources.sqlite import SQLiteQueue
from hive_task.background.tasks import DEAD, DONE, QUEUED, RUNNING, SCHEDULED, End, Failure, Task
from hive_task.errors import SourceError, UnserializableData


def call(queue, name="work", data=None):
    return queue.enqueue_call(name, data, "default")


def rows(path, statement):
    connection = sqlite3.connect(path)
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()


def test_a_called_task_is_in_no_index_of_ids_and_is_found(queue, path):
    ids = [call(queue, data=number) for number in range(20)]
    assert rows(path, "SELECT count(*) FROM tasks INDEXED BY ids WHERE given") == [(0,)]
    assert [queue.find_task(id).task.data for id in ids] == list(range(20))
    assert len(set(ids)) == 20
    assert [len(id) for id in ids] == [32] * 20


def test_an_id_that_only_looks_as_if_it_told_where_is_looked_for_in_the_index(queue):
    """Somebody's own id whose end is the place of another task."""
    called = call(queue, "called")
    mine = "f" * 20 + called[20:]
    assert queue.find_task(mine) is None
    assert queue.enqueue_task(Task("mine", id=mine)) == mine
    assert (queue.find_task(mine).task.name, queue.find_task(called).task.name) == ("mine", "called")
    first, second = queue.dequeue_tasks(2)
    assert (first.id, second.id) == (called, mine)
    assert queue.settle_tasks([End(second, DONE, 2), End(first, DONE, 1)]) == [True, True]
    assert (queue.find_task(called).result, queue.find_task(mine).result) == (1, 2)


@pytest.mark.parametrize("options", [{}, {"after": ("the first",)}, {"unique": "key"}, {"limit": ("key", 1)}])
def test_a_called_task_is_known_to_who_puts_it_in_again(queue, options):
    """P6, in a batch of plain tasks and in one that isn't."""
    queue.enqueue_task(Task("first", id="the first"))
    id = call(queue, "called", 1)
    assert queue.enqueue_tasks([Task("again", 2, id=id, **options), Task("new", id="the third")]) == [id, "the third"]
    assert queue.enqueue_task(Task("again", 2, id=id, **options)) == id
    assert queue.count_tasks() == {"default": {QUEUED: 3}}
    assert (queue.find_task(id).task.name, queue.find_task(id).task.data) == ("called", 1)


def test_a_batch_with_an_id_that_was_there_puts_in_the_others_and_tells_what_is_new(queue):
    """The one that was there has ended: a claim afterwards gets the others only."""
    id = call(queue)
    queue.complete_task(queue.dequeue_task())
    queue.enqueue_tasks([Task("again", id=id), Task("later", due=4e9), Task("new")])
    assert queue.count_tasks() == {"default": {DONE: 1, QUEUED: 1, SCHEDULED: 1}}
    assert [task.name for task in queue.dequeue_tasks(5)] == ["new"]


def test_a_forgotten_id_is_not_that_of_the_task_that_lies_there_now(queue):
    """SQLite gives out the last row's number again if that row is gone."""
    old = call(queue, "old")
    task = queue.dequeue_task()
    queue.complete_task(task)
    assert queue.purge(4e9) == 1
    new = call(queue, "new")
    assert seq_in(new) == seq_in(old)
    assert queue.find_task(old) is None
    again = queue.dequeue_task()
    assert again.claim.epoch != task.claim.epoch
    assert (queue.complete_task(task), queue.cancel_task(old), queue.retry_task(old)) == (False, False, False)
    assert queue.await_end(old, 0) is None
    with pytest.raises(ValueError, match=f"after '{old}', but no task has that id"):
        queue.enqueue_task(Task("child", after=(old,)))
    assert queue.find_task(new).state == RUNNING


def test_what_can_be_done_with_a_task_can_be_done_with_a_called_one(queue):
    parent, other = call(queue, "parent"), call(queue, "other")
    child = queue.enqueue_task(Task("child", after=(parent, other)))
    task = queue.dequeue_task()
    assert queue.set_progress(task, [1, 2])
    assert queue.renew_leases([task]) == set()
    assert queue.cancel_task(parent)
    assert queue.renew_leases([task]) == {parent}
    assert queue.release_task(task)  # (its end was asked for)
    assert queue.find_task(child).failure.kind == "ParentFailed"
    assert queue.retry_task(parent)
    assert queue.retry_task(child)
    assert [task.id for task in queue.dequeue_tasks(5)] == [parent, other]
    assert queue.find_task(parent).progress is None
    assert queue.find_task(child).task.after == (parent, other)


def test_what_cannot_be_kept_is_refused_at_the_call(queue):
    for data, what in ((b"x", "data is of type bytes"), ({1: 2}, "has the key 1")):
        with pytest.raises(UnserializableData, match=what):
            call(queue, data=data)
    with pytest.raises(UnserializableData):
        call(queue, "lone \ud800 surrogate")
    assert queue.count_tasks() == {}
    queue.close()
    with pytest.raises(SourceError, match="has been closed"):
        call(queue)


def test_ids_say_where_and_nothing_else_does():
    assert [seq_in(id_at(seq)) for seq in (1, 255, 2**47)] == [1, 255, 2**47]
    assert [seq_in(id) for id in ("", "x" * 32, "7", "0" * 33)] == [0, 0, 0, 0]
    assert len({id_at(7) for _ in range(10_000)}) == 10_000


def test_a_queue_of_ones_own_puts_in_its_own_way(path):
    class Logged(SQLiteQueue):
        names: list[str] = []

        def enqueue_tasks(self, tasks, *, app=None):
            self.names += [task.name for task in tasks]
            return super().enqueue_tasks(tasks, app=app)

    queue = Logged(path)
    call(queue, "called")
    assert queue.names == ["called"]
    queue.close()


# Files of a former shape.


def former(path):
    """A file as the first shape had it, with a task in each state."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    for statement in sql.SCHEMA:
        statement = statement.replace(",\n        given INTEGER NOT NULL DEFAULT 1", "").replace(" WHERE given", "")
        assert "given" not in statement
        connection.execute(statement)
    connection.executemany(
        "INSERT INTO tasks (id, state, queue, name, priority, data, due, created, attempts, ended, failure)"
        " VALUES (?, ?, 'default', 'old', 0, '7', 1.0, 1.0, 0, ?, ?)",
        [("a", QUEUED, None, None), ("b", DEAD, 2.0, '["E", "no", ""]'), ("0" * 31 + "3", DONE, 2.0, None)],
    )
    connection.execute(f"PRAGMA application_id = {sql.APPLICATION_ID}")
    connection.execute("PRAGMA user_version = 1")
    connection.commit()
    connection.close()


def test_a_file_of_the_first_shape_is_made_one_of_this_and_loses_nothing(path):
    former(path)
    queue = SQLiteQueue(path)
    assert rows(path, "PRAGMA user_version") == [(sql.VERSION,)]
    assert queue.count_tasks() == {"default": {QUEUED: 1, DEAD: 1, DONE: 1}}
    assert queue.find_task("0" * 31 + "3").state == DONE
    assert queue.find_task("b").failure == Failure("E", "no")
    assert queue.enqueue_task(Task("again", id="a")) == "a"
    new = call(queue, "new")
    assert [task.id for task in queue.dequeue_tasks(5)] == ["a", new]
    queue.close()
    SQLiteQueue(path).close()  # (as one that has it already)


def test_it_has_the_same_shape_as_a_new_one(path, tmp_path):
    former(path)
    fresh = str(tmp_path / "fresh.db")
    for one in (path, fresh):
        SQLiteQueue(one).close()
    same = "SELECT name, type, sql FROM sqlite_master WHERE name <> 'tasks' ORDER BY name"
    columns = "SELECT name, type, \"notnull\", dflt_value, pk FROM pragma_table_info('tasks')"
    assert rows(path, same) == rows(fresh, same)
    assert rows(path, columns) == rows(fresh, columns)


def test_an_upgrade_that_fails_leaves_the_file_as_it_was(path, monkeypatch):
    former(path)
    monkeypatch.setitem(sql.UPGRADES, 1, (*sql.UPGRADES[1], "CREATE NONSENSE"))
    with pytest.raises(SourceError, match="syntax error"):
        SQLiteQueue(path)
    assert rows(path, "PRAGMA user_version") == [(1,)]
    monkeypatch.undo()
    queue = SQLiteQueue(path)
    assert queue.count_tasks() == {"default": {QUEUED: 1, DEAD: 1, DONE: 1}}
    queue.close()
