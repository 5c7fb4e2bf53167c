"""`@task`: what it registers, and what it refuses."""

from functools import partial

import pytest

from hive_task.background import Backoff, Every, Limit, Rate, Registry, UnknownTask, task


@pytest.fixture
def registry():
    return Registry()


@pytest.fixture
def register(registry):
    return partial(task, registry=registry)


def run(data, *, time):
    return data


def test_the_function_is_returned_unchanged(register, registry):
    assert register("run")(run) is run
    assert registry["run"].fn is run


def test_what_it_was_told_becomes_the_task(register, registry):
    register("run", queue="slow", priority=3, unique="u", unique_for=5, limit=2, rate=("r", 3, 60))(run)
    made = registry["run"].make({"a": 1})
    assert (made.name, made.data, made.queue, made.priority) == ("run", {"a": 1}, "slow", 3)
    assert (made.unique, made.unique_for) == ("u", 5)
    assert made.limit == Limit("run", 2)
    assert made.rate == Rate("r", 3, 60.0)
    assert registry["run"].make(queue="other", priority=-1).queue == "other"


def test_keys_may_be_made_of_the_data(register, registry):
    register("run", unique=lambda data: data and str(data), limit=(lambda data: data["user"] if data else None, 1))(run)
    made = registry["run"].make({"user": "ann"})
    assert made.unique == "run:{'user': 'ann'}"
    assert made.limit == Limit("run:ann", 1)
    assert (registry["run"].make().unique, registry["run"].make().limit) == (None, None)


def test_a_key_that_is_no_string_is_refused(register, registry):
    register("run", unique=lambda data: 5)(run)
    with pytest.raises(TypeError, match="a key of the task 'run' must be a string, not 5"):
        registry["run"].make()


def test_a_name_stands_for_one_function(register, registry):
    register("run")(run)
    register("run", retries=1)(run)  # the same function: its module was loaded anew
    assert registry["run"].retries == 1
    with pytest.raises(ValueError, match=r"the task 'run' is .*\.run already"):
        register("run")(lambda data, *, time: None)


def test_backoff_may_be_given_as_seconds(register, registry):
    register("run", backoff=3)(run)
    assert registry["run"].backoff == Backoff(base=3)


def test_periodic(register, registry):
    register("run", every=60, data="x")(run)
    assert registry["run"].schedule == Every(60)
    assert registry["run"].data == "x"


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"retries": -1}, ValueError, "retries can't be negative"),
        ({"retries": 1.5}, TypeError, "retries is a whole number"),
        ({"time_limit": 0}, ValueError, "time_limit is more than nothing"),
        ({"kind": "fibre"}, ValueError, "kind is one of 'thread', 'process', not 'fibre'"),
        ({"unique_for": 5}, ValueError, "needs unique="),
        ({"limit": 0}, ValueError, "how many run at once is at least 1"),
        ({"limit": "two"}, TypeError, "how many run at once is a whole number"),
        ({"rate": 5}, TypeError, "rate is"),
        ({"rate": (5, -1)}, ValueError, "the time of a rate"),
        ({"backoff": -1}, ValueError, "base is more than nothing"),
        ({"queue": ""}, ValueError, "queue can't be empty"),
        ({"priority": "high"}, TypeError, "priority is a whole number"),
        ({"every": 5, "cron": "* * * * *"}, TypeError, "not both"),
        ({"every": 0}, ValueError, "the interval is more than nothing"),
    ],
)
def test_options_that_make_no_sense_are_refused_at_once(register, options, error, text):
    with pytest.raises(error, match=text):
        register("run", **options)


@pytest.mark.parametrize("fn", [lambda: None, lambda data: None, lambda data, time, more: None])
def test_a_function_that_can_not_be_called_so_is_refused(register, fn):
    with pytest.raises(TypeError, match=r"the task 'run' is called as fn\(data, time=...\)"):
        register("run")(fn)


def test_a_decorator_without_a_name_is_refused():
    with pytest.raises(TypeError, match="write @task"):
        task(run)


def test_an_unknown_name_says_what_is_known(register, registry):
    register("run")(run)
    with pytest.raises(UnknownTask, match=r"no task is registered as 'rum' \(known: 'run'\)"):
        registry["rum"]
