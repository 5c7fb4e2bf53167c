"""on_commit and on_rollback: when they run, in which order, and what becomes of their errors."""

import pytest

from stm import TVar, atomically, check, in_transaction, on_commit, on_rollback, run
from tests.support import Background, Once, asleep, elsewhere


def test_on_commit_runs_after_the_outermost_commit_in_order_outside_any_transaction():
    x = TVar(0)
    calls = []

    def note(label):
        calls.append((label, in_transaction(), x.peek()))

    @atomically
    def inner():
        on_commit(note, "inner")

    @atomically
    def outer():
        on_commit(note, "first")
        inner()
        on_commit(note, "last")
        x.set(1)
        assert not calls

    outer()
    assert calls == [("first", False, 1), ("inner", False, 1), ("last", False, 1)]


@pytest.mark.parametrize("options", [{}, {"timeout": 60}, {"irrevocable": True}, {"read_only": True}])
def test_hooks_with_every_kind_of_transaction(options):
    calls = []
    run(lambda: (on_commit(calls.append, 1), on_rollback(calls.append, 2)), **options)
    assert calls == [1]
    calls.clear()
    with pytest.raises(ZeroDivisionError):
        run(lambda: (on_commit(calls.append, 1), on_rollback(calls.append, 2), 1 / 0), **options)
    assert calls == [2]


def test_on_rollback_runs_after_each_discarded_attempt_and_on_commit_once():
    x, y = TVar(0), TVar(0)
    first = Once()
    calls = []

    @atomically
    def body():
        on_rollback(calls.append, "rollback")
        on_commit(calls.append, "commit")
        value = x.value
        if first:
            elsewhere(x.set, 1)
        y.set(value)

    body()
    assert calls == ["rollback", "commit"]


def test_on_rollback_runs_before_a_retry_sleeps():
    x = TVar(0)
    calls = []

    @atomically
    def body():
        on_rollback(calls.append, in_transaction)
        check(x.value)

    background = Background(body)
    asleep()
    assert len(calls) == 1
    x.set(1)
    background.result()
    assert len(calls) == 1


def test_a_hook_may_transact():
    x = TVar(0)
    run(lambda: (x.set(1), on_commit(x.update, lambda value: value + 1)))
    assert x.value == 2


def test_keyword_arguments_reach_the_hook():
    calls = []
    run(lambda: on_commit(lambda *args, **kwargs: calls.append((args, kwargs)), 1, a=2))
    assert calls == [((1,), {"a": 2})]


def test_a_failing_hook_stops_neither_the_commit_nor_the_other_hooks():
    x = TVar(0)
    calls = []

    @atomically
    def body():
        x.set(1)
        on_commit(lambda: 1 / 0)
        on_commit(calls.append, "after")

    with pytest.raises(ZeroDivisionError):
        body()
    assert (x.value, calls) == (1, ["after"])


def test_several_failing_hooks_raise_a_group():
    def body():
        on_commit(lambda: 1 / 0)
        on_commit(lambda: {}["missing"])

    with pytest.raises(ExceptionGroup) as caught:
        run(body)
    assert [type(error) for error in caught.value.exceptions] == [ZeroDivisionError, KeyError]


@pytest.mark.parametrize("hook", [on_commit, on_rollback])
def test_a_hook_must_be_callable(hook):
    with pytest.raises(TypeError, match="takes a function"):
        run(lambda: hook(5))
