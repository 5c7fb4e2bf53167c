"""Cases of ScalaSTM about one variable or array: `IsolatedRefSuite`, `UnrecordedTxnSuite`, `RelaxedValidationSuite`,
`AtomicArraySuite` (nbronson/scala-stm).

Each docstring names the suite and the case; docs/field/scala-stm.md lists them all, and those that have no counterpart.
As in the first of these suites, each case runs at several depths: the whole of it in so many transactions, and each
operation in so many of its own.
"""

import math
from decimal import Decimal
from fractions import Fraction
from itertools import product
from operator import add, floordiv, mul, truediv

import pytest

from stm import TMap, TransactionTimeout, TVar, TVector, check, detached, exchange, run
from stm.compiled import TArray
from tests.support import Once, elsewhere

DEPTHS = [pytest.param(outer, inner, id=f"{outer} around, {inner} within") for outer in (0, 1, 3) for inner in (0, 1)]
at_each_depth = pytest.mark.parametrize(("outer", "inner"), DEPTHS)


class Boom(Exception):
    pass


def nested(depth, fn, *args):
    """Call a function in so many transactions, one within the other."""
    return run(nested, depth - 1, fn, *args) if depth else fn(*args)


class View:
    """A variable each of whose operations runs at some depth."""

    def __init__(self, value, depth):
        self._tvar, self._depth = TVar(value), depth

    def __getattr__(self, name):
        method = getattr(self._tvar, name)
        return lambda *args: nested(self._depth, method, *args)


@at_each_depth
def test_get_and_set(outer, inner):
    """scala-stm, IsolatedRefSuite: get and set, += 1, -= -1."""
    x = View(1, inner)

    def body():
        for number in range(1, 10):
            assert x.get() == number
            x.set(x.get() + 1)

    nested(outer, body)
    assert x.get() == 10


@at_each_depth
def test_swap(outer, inner):
    """scala-stm, IsolatedRefSuite: swap, set + swap."""
    x = View(1, inner)

    def body():
        assert [x.swap(number + 1) for number in range(1, 10)] == list(range(1, 10))
        for number in range(10):
            x.set(-1)
            assert x.swap(number) == -1

    nested(outer, body)
    assert x.get() == 9


@at_each_depth
def test_update(outer, inner):
    """scala-stm, IsolatedRefSuite: transform, transformAndGet, *= 2, /= (of whole, float, big and decimal numbers)."""
    x = View(1, inner)

    def body():
        assert [x.update(mul, 2) for _ in range(4)] == [2, 4, 8, 16]
        assert x.update(floordiv, 3) == 5
        assert x.update(truediv, 2) == 2.5
        assert x.update(lambda _: 10**30) == 10**30
        assert x.update(add, 1) == 10**30 + 1
        assert x.update(lambda _: Decimal(3699)) == 3699
        assert x.update(truediv, 4) == Decimal("924.75")

    nested(outer, body)
    assert x.get() == Decimal("924.75")


@at_each_depth
def test_an_update_that_raises(outer, inner):
    """scala-stm, IsolatedRefSuite: excepting transform. The variable is as before, and can be updated after."""
    x = View(1, inner)

    def raising(_):
        raise Boom

    def body():
        with pytest.raises(Boom):
            x.update(raising)
        assert x.get() == 1
        assert x.update(add, 1) == 2

    nested(outer, body)
    assert x.get() == 2


@at_each_depth
def test_compare_and_set(outer, inner):
    """scala-stm, IsolatedRefSuite: compareAndSet, compareAndSetIdentity. Here, it always goes by identity."""
    first, equal, second = (1,), tuple(range(1, 2)), (2,)
    assert first == equal
    assert first is not equal
    x = View(first, inner)

    def body():
        assert not x.compare_and_set(equal, second)
        assert not x.compare_and_set(second, equal)
        assert x.compare_and_set(first, second)
        assert not x.compare_and_set(first, second)

    nested(outer, body)
    assert x.get() is second


class Angry:
    """Can't be compared, hashed or asked for its truth."""

    __hash__ = None

    def __eq__(self, other):
        raise Boom

    def __bool__(self):
        raise Boom


@at_each_depth
def test_values_are_never_compared(outer, inner):
    """scala-stm, IsolatedRefSuite: .equals not involved in get and set, excepting compareAndSet."""
    one, two = Angry(), Angry()
    x = View(one, inner)

    def body():
        assert x.get() is one
        x.set(two)
        assert x.swap(one) is two
        assert not x.compare_and_set(two, two)
        assert x.compare_and_set(one, two)

    nested(outer, body)
    assert x.peek() is two


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_exchange_of_two_variables_tries_all_combinations(depth):
    """scala-stm, IsolatedRefSuite: TxnExecutor.compareAndSet(Identity), non-txn exhaustive and txn exhaustive."""
    old, other, new = object(), object(), object()
    for x_before, x_after, y_before, y_after in product((old, other), (old, new), repeat=2):
        x, y = TVar(old), TVar(old)
        done = nested(depth, exchange, (x, x_before, x_after), (y, y_before, y_after))
        assert done == (x_before is y_before is old)
        assert x.get() is (x_after if done else old)
        assert y.get() is (y_after if done else old)


@pytest.mark.parametrize("value", [False, 1, "1", 1.0, (), None, Fraction(1, 2), math.nan, int], ids=repr)
def test_variables_of_equal_values_are_different_variables(value):
    """scala-stm, IsolatedRefSuite: simple get+set and Ref equality, for each type of value."""
    x, y = TVar(value), TVar(value)
    assert x == x
    assert x != y
    assert x != value
    assert len({x, y, x}) == 2
    assert nested(2, x.get) is value


@at_each_depth
def test_a_condition_that_holds_is_not_waited_for_nor_one_that_has_no_time(outer, inner):
    """scala-stm, IsolatedRefSuite: initially true await, initially true/false tryAwait, no time."""
    x = View(10, inner)

    def wait(value):
        try:
            run(lambda: check(x.get() == value), timeout=0)
        except TransactionTimeout:
            return False
        return True

    assert nested(outer, lambda: (wait(10), wait(20), wait(10))) == (True, False, True)


# ------------------------------------------------------------------------------------------------ arrays

VALUES = {
    "int64": (TArray, range(-1000, -980)),
    "float64": (TArray, [math.exp(number) for number in range(10)]),
    "bool": (TArray, [False, True, False, True]),
    "anything": (TVector, ["x", 1, None, (), TVar, 2.5]),
    "references": (TVector, [object() for _ in range(5)]),
}


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_an_array_of_each_type(kind, depth):
    """scala-stm, AtomicArraySuite: Boolean, Int, Long, Float, Double, AnyRef, Any. Read, reversed, read again."""
    make, values = VALUES[kind]
    values = list(values)
    array = make(values)

    def turn_round():
        size = len(array)
        before = [array[index] for index in range(size)]
        for index in range(size):
            array[index] = before[size - 1 - index]
        return before

    assert nested(depth, turn_round) == values
    assert [array[index] for index in range(len(array))] == values[::-1]


@pytest.mark.parametrize("make", [TArray, TVector])
@pytest.mark.parametrize("index", [10, -11, 2**31, -(2**31), 2**62])
def test_an_array_checks_its_indices(make, index):
    """scala-stm, IsolatedRefSuite: TArray index checking, TArray length. Nothing of the transaction remains."""
    array, log = make(range(10)), TVar(0)
    assert len(array) == nested(1, len, array) == 10
    for depth in (0, 1):
        with pytest.raises(IndexError):
            nested(depth, lambda: array[index])
        with pytest.raises(IndexError):
            nested(depth, array.__setitem__, index, 1)
    with pytest.raises(IndexError):
        run(lambda: (log.set(1), array.__setitem__(0, 5), array.__setitem__(index, 5)))
    assert ([array[i] for i in range(10)], log.value) == (list(range(10)), 0)


# -------------------------------------------------------------------------- reads that are not recorded


@pytest.mark.parametrize("read", [lambda x: x.peek(), lambda x: detached(x.get), lambda x: detached(run, x.get)])
def test_an_unrecorded_read_is_no_reason_to_run_again(read):
    """scala-stm, UnrecordedTxnSuite: read set emptied, fixed unrecorded txn."""
    x, y, runs = TVar(0), TVar(0), []

    def body():
        runs.append(1)
        before = read(x)
        elsewhere(x.set, len(runs))
        y.set(before)
        return before, read(x)

    assert run(body) == (0, 1)
    assert (y.value, len(runs)) == (0, 1)


def test_an_unrecorded_read_does_not_see_the_transactions_own_writes():
    """scala-stm, UnrecordedTxnSuite: nested preceding unrecorded txn. There, it does."""
    x = TMap(key=0)

    def body():
        before = detached(x.get, "key")
        x["key"] = 1
        return before, x["key"], detached(x.get, "key")

    assert run(body) == (0, 1, 0)
    assert x["key"] == 1


def test_an_unrecorded_read_before_a_write_of_the_same_variable():
    """scala-stm, RelaxedValidationSuite: self-write vs getWith, and with interference. What it decided may be stale,
    what the transaction reads itself may not."""
    x, first = TVar(0), Once()

    def body():
        assert x.peek() % 2 == 0
        if first:
            elsewhere(x.set, 2)
        return x.swap(1)

    assert run(body) == 2
    assert x.value == 1
