"""What the tests of a `SQLiteQueue` share. (Some have a `queue` of their own.)"""

import pytest

from hive_task.background.sources.sqlite import SQLiteQueue


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "tasks.db")


@pytest.fixture
def queue(path):
    queue = SQLiteQueue(path, synchronous="OFF")
    yield queue
    queue.close()
