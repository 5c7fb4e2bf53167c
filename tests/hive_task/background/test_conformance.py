"""Every data source keeps its promises: the suite for all of them, and a source as small as can be."""

import importlib.util
import shutil
import tempfile
from collections import deque
from pathlib import Path

import pytest

from hive_task.background.conformance import BARE, SourceConformance
from hive_task.background.sources.base import DataSource
from hive_task.background.sources.memory import MemoryQueue
from hive_task.background.tasks import DEFAULT_QUEUE

HAS_SQLITE = importlib.util.find_spec("hive_task.background.sources.sqlite") is not None


class TestMemoryQueue(SourceConformance):
    def make_source(self, clock):
        return MemoryQueue(clock=clock, lease=30.0)


class TestMemoryQueueWithoutLeases(SourceConformance):
    lacks = frozenset({"leases"})

    def make_source(self, clock):
        return MemoryQueue(clock=clock)


class ByCalls:
    """Tasks that have nothing but a name and data are put in as calls, whose ids the source makes."""

    def put(self, name="work", /, **options):
        if options.keys() - {"data"}:
            return super().put(name, **options)
        return self.source.enqueue_call(name, options.get("data"), DEFAULT_QUEUE)


class TestMemoryQueueByCalls(ByCalls, TestMemoryQueue):
    """They get their jobs when they are needed."""


@pytest.mark.skipif(not HAS_SQLITE, reason="there is no such source")
class TestSQLiteQueue(SourceConformance):
    def setup_method(self, method=None):
        self.folder = Path(tempfile.mkdtemp())
        super().setup_method(method)

    def teardown_method(self, method=None):
        super().teardown_method(method)
        shutil.rmtree(self.folder)

    def make_source(self, clock):
        from hive_task.background.sources.sqlite import SQLiteQueue

        return SQLiteQueue(self.folder / "tasks.db", clock=clock, lease=30.0)


@pytest.mark.skipif(not HAS_SQLITE, reason="there is no such source")
class TestSQLiteQueueOpenedTwice(TestSQLiteQueue):
    def make_other(self, source, clock):
        return self.make_source(clock)


class TestSQLiteQueueByCalls(ByCalls, TestSQLiteQueueOpenedTwice):
    """They are not in the index of ids."""


class Shelf(DataSource):
    """The source from the documentation of `DataSource`."""

    def __init__(self):
        self.tasks = deque()

    def enqueue_task(self, task, *, app=None):
        self.tasks.append(task)

    def dequeue_task(self, *, app=None):
        return self.tasks.popleft() if self.tasks else None

    def schedule_task(self, time, task, *, app=None):
        self.tasks.append(task.at(time))


class TestShelf(SourceConformance):
    lacks = BARE

    def make_source(self, clock):
        return Shelf()


def test_a_word_that_no_test_knows_is_an_error():
    with pytest.raises(TypeError, match="lacks what no test needs: claim"):
        type("Mistaken", (SourceConformance,), {"lacks": frozenset({"claim"})})
