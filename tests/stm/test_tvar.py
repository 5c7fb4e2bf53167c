"""TVar alone: what each operation returns, inside a transaction and outside."""

import copy
import gc
import pickle
import sys
import tracemalloc
import weakref

import pytest

from stm import ReadOnlyViolation, TVar, after, atomically, check, in_transaction, run
from stm.clock import clock
from tests.support import Background, asleep, elsewhere, together, until


def test_operations_outside_a_transaction():
    x = TVar(1)
    assert (x.get(), x.value, x.peek()) == (1, 1, 1)
    x.set(2)
    x.value += 1
    assert x.value == 3
    assert x.update(lambda value, a, b: value * a + b, 10, b=5) == 35
    assert x.swap(7) == 35
    assert x.peek() == 7


def test_operations_inside_a_transaction_are_seen_by_it_alone():
    x = TVar(1)

    @atomically
    def body():
        x.set(x.get() + 1)
        assert (x.get(), x.value, x.peek()) == (2, 2, 1)
        assert x.swap(5) == 2
        assert x.update(lambda value: value + 1) == 6
        assert in_transaction()
        return x.value

    assert body() == 6
    assert x.value == 6
    assert not in_transaction()


def test_identity_comparison_and_hash():
    x, y = TVar(1), TVar(1)
    assert x != y
    assert x == x
    assert len({x, y, x}) == 2


def test_weak_references():
    x = TVar(object())
    ref = weakref.ref(x)
    run(x.get)
    del x
    gc.collect()
    assert ref() is None


@pytest.mark.parametrize("copier", [pickle.dumps, copy.copy, copy.deepcopy])
def test_pickling_and_copying_say_why_not(copier):
    with pytest.raises(TypeError, match=r"'queue'.*threads of this process share.*snapshot"):
        copier(TVar(1, name="queue"))


def test_repr_shows_the_name_and_a_short_value():
    assert repr(TVar(3, name="x")) == "<TVar 'x' 3>"
    assert len(repr(TVar("long" * 1000))) < 100


def test_update_wants_a_function():
    with pytest.raises(TypeError, match=r"use set\(\)"):
        TVar(1).update(5)


def test_generic_alias():
    assert TVar[int](3).value == 3


def test_memory_of_a_variable_is_at_most_200_bytes():
    run(TVar(0).get)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        variables = [TVar(7) for _ in range(20_000)]
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    per_variable = (after - before - sys.getsizeof(variables)) / len(variables)
    assert per_variable <= 200


def test_every_value_may_be_stored():
    for value in (None, float("nan"), (), [], {}, TVar, object()):
        x = TVar(value)
        assert x.value is value
        assert run(x.get) is value
        x.set(None)
        run(x.set, value)
        assert x.value is value


# ---- compare_and_set


def test_compare_and_set_replaces_what_was_read_and_nothing_else():
    first, second, third = object(), object(), object()
    x = TVar(first)
    assert not x.compare_and_set(second, third)
    assert x.value is first
    assert x.compare_and_set(first, second)
    assert x.value is second


def test_compare_and_set_goes_by_identity():
    nan = float("nan")
    x = TVar(nan)
    assert not x.compare_and_set(float("nan"), 1.0)
    assert x.compare_and_set(nan, 1)
    assert not x.compare_and_set(True, 2)
    assert not x.compare_and_set(1.0, 2)
    assert x.value == 1


def test_compare_and_set_in_a_transaction_is_a_read_and_a_write():
    before = (1,)
    x, y = TVar(before), TVar(0)
    attempts = []

    def body():
        attempts.append(y.value)
        done = x.compare_and_set(before, (2,))
        if len(attempts) == 1:
            elsewhere(x.set, (3,))
        y.value = done
        return done

    assert run(body) is False  # the second attempt saw the other's value
    assert x.value == (3,)
    assert len(attempts) == 2


def test_compare_and_set_sees_the_transactions_own_writes_and_is_undone_with_it():
    x = TVar(0)
    mine = (1,)

    def body():
        x.value = mine
        assert x.compare_and_set(mine, (2,))
        assert x.value == (2,)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(body)
    assert x.value == 0


def test_compare_and_set_in_a_read_only_transaction_is_refused():
    x = TVar(None)
    with pytest.raises(ReadOnlyViolation):
        run(x.compare_and_set, None, 1, read_only=True)


def test_no_compare_and_set_is_lost_among_many_threads():
    x = TVar((0,))

    def add():
        for _ in range(2000):
            while True:
                before = x.get()
                if x.compare_and_set(before, (before[0] + 1,)):
                    break

    together(add, add, add)
    assert x.value == (6000,)


def test_compare_and_set_wakes_who_waits_and_is_seen_by_no_snapshot():
    x = TVar(0)
    waiting = Background(run, lambda: check(x.value))
    asleep()
    assert x.compare_and_set(0, 1)
    waiting.result()

    def look():
        before = x.value
        assert elsewhere(x.compare_and_set, before, 2)
        return before, x.value

    assert run(look, read_only=True) == (1, 1)
    assert x.value == 2


def test_compare_and_set_waits_for_an_exclusive_transaction():
    x, order = TVar(0), []

    def body():
        other = Background(lambda: (x.compare_and_set(0, 1), order.append("set")))
        until(lambda: not clock.quiet)
        order.append("body")
        assert x.value == 0
        return other

    run(body, irrevocable=True).result()
    assert order == ["body", "set"]


def test_compare_and_set_of_a_timer_agrees_with_get():
    over = after(0)
    assert over.get() is True
    assert over.compare_and_set(False, False) is False
    assert over.compare_and_set(True, True) is True
