"""Group commit: steps of several threads in one transaction, each all or nothing."""

import sqlite3
import threading

import pytest

from hive_task.background import SourceError
from hive_task.background.sources import _sqlite_joint
from hive_task.background.sources._sqlite_file import File
from tests.support import PATIENCE, Background, until


@pytest.fixture
def file(tmp_path):
    made = File(str(tmp_path / "tasks.sqlite"), "FULL", 10.0)
    with made.writing("test") as connection:
        connection.execute("CREATE TABLE notes (what TEXT)")
    yield made
    made.close()


@pytest.fixture
def commits(file):
    """The commits that are made."""
    seen = []
    file._writer.set_trace_callback(lambda statement: statement == "COMMIT" and seen.append(statement))
    return seen


def notes(file):
    with file.reading() as connection:
        return [what for (what,) in connection.execute("SELECT what FROM notes ORDER BY what")]


def note(file, what, error=None):
    with file.writing("test") as connection:
        connection.execute("INSERT INTO notes VALUES (?)", (what,))
        if error is not None:
            raise error


def together(file, *steps, meanwhile=lambda: None):
    """Steps that wait for their turns: the first goes on when all the others have queued up, one after the other."""
    go, inside = threading.Event(), threading.Event()

    def first():
        with file.writing("test") as connection:
            inside.set()
            assert go.wait(PATIENCE)
            connection.execute("INSERT INTO notes VALUES ('first')")

    running = [Background(first)]
    assert inside.wait(PATIENCE)
    for number, step in enumerate(steps, 1):
        running.append(Background(step))
        until(lambda number=number: file._turns._waiting == number, "the queue")
    meanwhile()
    go.set()
    return running


def test_steps_that_wait_for_each_other_are_committed_together(file, commits):
    for one in together(file, *[lambda what=what: note(file, what) for what in "abc"]):
        one.result()
    assert notes(file) == ["a", "b", "c", "first"]
    assert commits == ["COMMIT"]
    note(file, "alone")
    assert len(commits) == 2


def test_nobody_returns_before_the_commit(file):
    seen = []
    commit = File._commit

    def late(self, connection):
        seen.append([one.thread.is_alive() for one in running[:1]])
        commit(self, connection)

    file._commit = late.__get__(file)
    running = []
    running += together(file, lambda: note(file, "a"))
    for one in running:
        one.result()
    assert notes(file) == ["a", "first"]
    assert all(all(alive) for alive in seen)


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_step_that_fails_is_undone_alone(file, position):
    errors = [None, None, None]
    errors[position] = LookupError("no")
    running = together(file, *[lambda n=n: note(file, "abc"[n], errors[n]) for n in range(3)])
    for number, one in enumerate(running):
        if number - 1 == position:
            with pytest.raises(LookupError):
                one.result()
        else:
            one.result()
    assert notes(file) == sorted({"a", "b", "c", "first"} - {"abc"[position]})


def test_a_commit_that_fails_fails_all_of_them(file, monkeypatch):
    def fail(self, connection):
        raise sqlite3.OperationalError("disk I/O error")

    steps = [lambda: note(file, "a"), lambda: note(file, "b")]
    running = together(file, *steps, meanwhile=lambda: monkeypatch.setattr(File, "_commit", fail))
    for one in running:
        with pytest.raises(SourceError, match="disk I/O error"):
            one.result()
    monkeypatch.undo()
    assert notes(file) == []
    note(file, "later")
    assert notes(file) == ["later"]


def test_who_is_left_alone_with_the_transaction_commits_it(file, commits, monkeypatch):
    monkeypatch.setattr(_sqlite_joint.Turns, "awaited", lambda turns: True)  # somebody who then gives up
    note(file, "a")
    assert notes(file) == ["a"]
    assert commits == ["COMMIT"]


def test_closing_commits_what_was_left_open(file, monkeypatch):
    monkeypatch.setattr(_sqlite_joint.Turns, "awaited", lambda turns: True)
    monkeypatch.setattr(_sqlite_joint, "LOOKING", 1000.0)
    left = Background(note, file, "a")
    until(lambda: file._joint is not None and not file._turns._lock.locked(), "the open transaction")
    file.close()
    left.result()
    again = File(file.path, "FULL", 10.0)
    assert notes(again) == ["a"]
    again.close()


def test_a_transaction_of_many_steps_is_committed_in_between(file, commits, monkeypatch):
    monkeypatch.setattr("hive_task.background.sources._sqlite_file.MOST", 2)
    for one in together(file, *[lambda what=what: note(file, what) for what in "abcde"]):
        one.result()
    assert notes(file) == ["a", "b", "c", "d", "e", "first"]
    assert len(commits) == 2
