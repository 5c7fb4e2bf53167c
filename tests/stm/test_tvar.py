"""TVar alone: what each operation returns, inside a transaction and outside."""

import copy
import gc
import pickle
import sys
import tracemalloc
import weakref

import pytest

from stm import TVar, atomically, in_transaction, run


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
