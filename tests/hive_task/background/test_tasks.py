"""`Task`: what it refuses, and what it keeps."""

import datetime

import pytest

from hive_task.background import Limit, Rate, Task
from hive_task.background.tasks import moment, new_id


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"name": 5}, TypeError, "name is a string, not 5"),
        ({"name": ""}, ValueError, "name can't be empty"),
        ({"id": ""}, ValueError, "id can't be empty"),
        ({"queue": None}, TypeError, "queue is a string"),
        ({"priority": True}, TypeError, "priority is a whole number"),
        ({"priority": 1.5}, TypeError, "priority is a whole number"),
        ({"due": datetime.datetime(2030, 1, 1)}, ValueError, "has no time zone"),
        ({"due": float("nan")}, ValueError, "is no time"),
        ({"due": True}, TypeError, "a time is"),
        ({"retries": -1}, ValueError, "retries can't be negative"),
        ({"time_limit": 0}, ValueError, "time_limit is more than nothing"),
        ({"time_limit": float("inf")}, ValueError, "finite"),
        ({"unique": 5}, TypeError, "unique is a key"),
        ({"unique_for": 5}, ValueError, "needs unique="),
        ({"limit": 5}, TypeError, "limit is"),
        ({"limit": ("k", 0)}, ValueError, "at least 1"),
        ({"limit": (5, 1)}, TypeError, "the key of a limit"),
        ({"rate": ("k", 1)}, TypeError, "rate is"),
        ({"rate": ("k", 1, 0)}, ValueError, "the time of a rate"),
        ({"after": "abc"}, TypeError, "after is a tuple"),
        ({"after": ""}, TypeError, "after is a tuple"),
        ({"after": (5,)}, TypeError, "after is a tuple"),
        ({"id": "x", "after": ("x",)}, ValueError, "can't wait for itself"),
    ],
)
def test_a_bad_task_is_refused(arguments, error, text):
    with pytest.raises(error, match=text):
        Task(**({"name": "x"} | arguments))


def test_what_was_given_is_kept_in_its_own_kind():
    task = Task("x", limit=("k", 2), rate=["r", 3, 60], after=["a", "b", "a"], due=5)
    assert task.limit == Limit("k", 2)
    assert task.rate == Rate("r", 3, 60.0)
    assert task.after == ("a", "b")
    assert (task.due, type(task.due)) == (5.0, float)
    assert Task("x", after=[]).after == ()
    hash(task.after)


def test_a_time_is_one_moment_whichever_way_it_is_said():
    aware = datetime.datetime(2030, 1, 1, 12, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))
    assert moment(aware) == moment(aware.astimezone(datetime.UTC)) == moment(aware.timestamp())


def test_ids_differ_and_grow():
    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert all(len(id) == 32 for id in ids)
    assert [id[:8] for id in ids] == sorted(id[:8] for id in ids)
