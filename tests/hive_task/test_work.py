"""`Work`: a description of a call, checked when it is made."""

import functools
from collections import namedtuple
from fractions import Fraction

import pytest

from hive_task import Scheduler, Work, make_work, put_work
from hive_task.work import PLAIN, function_name


def function(*args, **kwargs):
    return args, kwargs


class Callable:
    def __call__(self):
        pass

    def method(self):
        pass


def test_make_work_takes_the_arguments_of_the_call():
    work = make_work(function, 1, 2, priority=3, fn=4)
    assert (work.fn, work.args, work.kwargs) == (function, (1, 2), {"priority": 3, "fn": 4})
    assert work.options is PLAIN


def test_a_work_says_how_it_wants_to_be_run():
    work = Work(function, [1], {"a": 2}, priority=-3, category="c", time_limit=0.5, kind="process", reruns=2)
    assert (work.args, work.kwargs) == ((1,), {"a": 2})
    assert (work.priority, work.category, work.time_limit, work.kind, work.reruns) == (-3, "c", 0.5, "process", 2)
    plain = Work(function)
    assert (plain.args, plain.kwargs) == ((), {})
    assert (plain.priority, plain.category, plain.time_limit, plain.kind, plain.reruns) == (0, None, None, "thread", 0)
    assert plain.options is PLAIN


def test_it_keeps_the_arguments_as_they_were():
    args, kwargs = [1], {"a": 1}
    work = Work(function, args, kwargs)
    args.append(2)
    kwargs["b"] = 2
    assert (work.args, work.kwargs) == ((1,), {"a": 1})


def test_it_can_be_submitted_any_number_of_times():
    work = make_work(list, "ab")
    with Scheduler(workers=1) as scheduler:
        futures = [put_work(scheduler, work) for _ in range(3)]
        assert [future.result() for future in futures] == [["a", "b"]] * 3
    assert work.args == ("ab",)


@pytest.mark.parametrize(
    ("error", "message", "options"),
    [
        (TypeError, "priority is a whole number, higher is sooner; not 1.5", {"priority": 1.5}),
        (TypeError, "priority is a whole number, higher is sooner; not True", {"priority": True}),
        (TypeError, "priority is a whole number, higher is sooner; not 'high'", {"priority": "high"}),
        (TypeError, "category is a name, not 5", {"category": 5}),
        (TypeError, "time_limit is a number of seconds, or None; not '5'", {"time_limit": "5"}),
        (TypeError, "time_limit is a number of seconds, or None; not True", {"time_limit": True}),
        (ValueError, "time_limit must be more than nothing, not 0 seconds", {"time_limit": 0}),
        (ValueError, "time_limit must be more than nothing, not -1 seconds", {"time_limit": -1}),
        (ValueError, "time_limit must be more than nothing, not nan seconds", {"time_limit": float("nan")}),
        (ValueError, "kind is one of 'thread', 'process', not 'greenlet'", {"kind": "greenlet"}),
        (ValueError, "kind is one of 'thread', 'process', not None", {"kind": None}),
        (TypeError, "reruns is a whole number, not 0.5", {"reruns": 0.5}),
        (ValueError, "reruns can't be negative: -1", {"reruns": -1}),
    ],
)
def test_bad_options_are_refused_at_once(error, message, options):
    with pytest.raises(error) as caught:
        Work(function, **options)
    assert str(caught.value) == message


@pytest.mark.parametrize("make", [make_work, Work])
@pytest.mark.parametrize("fn", [None, "pow", 5, Fraction(1, 2)])
def test_what_cannot_be_called_is_refused(make, fn):
    with pytest.raises(TypeError, match="a work is made of something that can be called, not"):
        make(fn)


@pytest.mark.parametrize("args", ["abc", b"abc"])
def test_a_string_for_the_arguments_is_refused(args):
    with pytest.raises(TypeError) as caught:
        Work(function, args)
    assert str(caught.value) == f"args is a tuple of the arguments; for the one argument {args!r} write ({args!r},)"


def test_arguments_that_are_none_are_refused():
    with pytest.raises(TypeError):
        Work(function, 5)
    with pytest.raises((TypeError, ValueError)):
        Work(function, (), 5)


@pytest.mark.parametrize("options", [{}, {"priority": 1}])
def test_nothing_else_can_be_kept_in_it(options):
    with pytest.raises(AttributeError):
        Work(function, **options).note = 1


def test_its_repr_is_short_and_names_what_is_special():
    text = repr(Work(function, ("x" * 1000,), {"k": list(range(100))}, priority=2, reruns=1))
    assert text.startswith("<Work function('xxx")
    assert text.endswith("k=[0, 1, 2, 3, 4, 5, ...]) priority=2 reruns=1>")
    assert len(text) < 120


Point = namedtuple("Point", "x")


@pytest.mark.parametrize(
    ("fn", "name"),
    [
        (function, "function"),
        (pow, "pow"),
        (Callable, "Callable"),
        (Callable(), "Callable"),
        (Callable().method, "Callable.method"),
        (Point, "Point"),
        (functools.partial(function, 1), "function"),
        (functools.partial(functools.partial(pow, 2), 3), "pow"),
        (functools.lru_cache(function), "function"),
        ("".join, "str.join"),
    ],
)
def test_functions_are_called_by_their_qualified_names(fn, name):
    assert function_name(fn) == name
    assert repr(Work(fn)) == f"<Work {name}()>"
