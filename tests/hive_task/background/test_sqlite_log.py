"""The room that is made in the log of a `SQLiteQueue`: it changes what a commit takes, and nothing else."""

import os
import shutil
from types import SimpleNamespace

import pytest

from hive_task.background import SQLiteQueue, Task
from hive_task.background.sources import _sqlite_log
from hive_task.background.sources._sqlite_log import CHUNK, LONGEST, OFTEN


@pytest.fixture
def source(tmp_path):
    source = SQLiteQueue(tmp_path / "tasks.db")
    yield source
    source.close()


def put(source, count):
    return [source.enqueue_task(Task("work", number)) for number in range(count)]


def log_of(source):
    return os.path.getsize(f"{source.path}-wal")


def test_who_puts_in_seldom_gets_no_room(source):
    put(source, OFTEN - 1)
    assert 0 < log_of(source) < CHUNK


def test_who_puts_in_often_gets_room_once(source):
    put(source, OFTEN)
    size = log_of(source)
    assert size >= CHUNK
    put(source, OFTEN)
    assert log_of(source) == size


def test_the_length_of_the_log_is_asked_for_seldom(source, monkeypatch):
    """Who asks for it makes the next write more expensive."""
    asked, fstat = [], os.fstat
    monkeypatch.setattr(os, "fstat", lambda file: asked.append(file) or fstat(file))
    put(source, 10 * OFTEN)
    assert len(asked) == 10


def test_more_room_is_made_when_it_is_full_up_to_a_limit(source, monkeypatch):
    monkeypatch.setattr(_sqlite_log, "CHUNK", 64 << 10)
    monkeypatch.setattr(_sqlite_log, "LONGEST", 256 << 10)
    put(source, OFTEN)
    sizes = set()
    for _ in range(12):
        put(source, OFTEN)
        sizes.add(log_of(source) >> 10)
    assert len(sizes) > 3
    assert source._file._room._made == 256 << 10
    assert source.count_tasks() == {"default": {"queued": 13 * OFTEN}}


def test_what_a_crash_leaves_is_read_back_though_zeros_follow(source, tmp_path):
    ids = put(source, 3 * OFTEN)
    left = tmp_path / "left.db"
    for suffix in ("", "-wal"):  # as the disk has it: without the memory in which processes share the log's index
        shutil.copy(f"{source.path}{suffix}", f"{left}{suffix}")
    assert os.path.getsize(f"{left}-wal") >= CHUNK
    again = SQLiteQueue(left)
    try:
        assert [task.id for task in again.dequeue_tasks(1000)] == ids
    finally:
        again.close()


def test_another_connection_goes_on_in_the_log(source):
    put(source, 2 * OFTEN)
    other = SQLiteQueue(source.path)
    try:
        put(other, 2 * OFTEN)
        put(source, 1)
        assert other.count_tasks() == {"default": {"queued": 4 * OFTEN + 1}}
    finally:
        other.close()


def test_a_disk_that_becomes_full_gets_its_space_back(source, monkeypatch):
    written = os.pwrite

    def half(file, data, offset):
        written(file, data[: len(data) // 2], offset)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_sqlite_log.os, "pwrite", half)
    put(source, OFTEN)
    assert log_of(source) < CHUNK
    put(source, OFTEN)
    assert source.count_tasks() == {"default": {"queued": 2 * OFTEN}}


def test_a_disk_that_is_nearly_full_is_left_alone(source, monkeypatch):
    monkeypatch.setattr(_sqlite_log.os, "fstatvfs", lambda _: SimpleNamespace(f_bavail=CHUNK // 512, f_frsize=512))
    put(source, 2 * OFTEN)
    assert log_of(source) < CHUNK


def test_it_is_never_longer_than_what_is_copied_at_once():
    assert LONGEST % CHUNK == 0
    assert LONGEST // CHUNK > 1
