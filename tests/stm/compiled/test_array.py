"""TArray from Python: NumPy's indexing, inside transactions and outside."""

import copy
import pickle
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import stm
from stm import ReadOnlyViolation, TVar, atomically
from stm.compiled import TArray

KINDS = [([1, 2, 3], "int64"), ([1.5, -2.0, 0.0], "float64"), ([True, False, True], "bool")]


@pytest.mark.parametrize(("data", "dtype"), KINDS)
@pytest.mark.parametrize("two", [False, True])
def test_elements_come_back_as_python_values_of_their_type(data, dtype, two):
    array = TArray([data, data] if two else data)
    assert array.dtype == dtype
    assert array.ndim == 1 + two
    assert array.shape == ((2, 3) if two else (3,))
    assert array.size == (6 if two else 3)
    assert len(array) == (2 if two else 3)
    index = (1, 2) if two else 2
    assert array[index] == data[2]
    assert type(array[index]) is type(data[2])
    array[index] = data[0]
    assert array[index] == data[0]
    assert array.to_numpy().dtype == dtype
    assert array.peek(index) == data[0]


@settings(max_examples=60, deadline=None)
@given(st.data(), st.booleans())
def test_indexing_is_numpys(data, inside):
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=2, max_side=5))
    model = np.arange(np.prod(shape)).reshape(shape) * 10
    array = TArray(model)

    def compare():
        index = data.draw(hnp.basic_indices(shape, allow_newaxis=True) | hnp.integer_array_indices(shape))
        expected = model[index]
        assert np.array_equal(array[index], expected)
        assert np.shape(array[index]) == np.shape(expected)
        model[index] = 7
        array[index] = 7
        assert np.array_equal(array.to_numpy(), model)

    if inside:
        stm.run(compare)
    else:
        compare()
    assert np.array_equal(array.to_numpy(), model)


@pytest.mark.parametrize("index", [3, -4, 10**30])
@pytest.mark.parametrize("inside", [False, True])
def test_out_of_range_is_an_index_error(index, inside):
    array = TArray([1, 2, 3])

    def reads():
        return array[index]

    def writes():
        array[index] = 1

    for use in (reads, writes):
        with pytest.raises(IndexError):
            stm.run(use) if inside else use()
    assert list(array) == [1, 2, 3]


def test_two_dimensions_check_each_index_alone():
    grid = TArray(np.zeros((2, 3)))
    for index in [(0, 3), (2, 0), (0, -4), (-3, 0)]:
        with pytest.raises(IndexError):
            grid[index]
    grid[-1, -1] = 5
    assert grid[1, 2] == 5.0


def test_what_can_not_index_is_refused():
    array = TArray([1, 2])
    for index in ("a", 1.0):
        with pytest.raises((IndexError, TypeError)):
            array[index] = "nonsense"
    for index in ("a", 1.0):
        with pytest.raises((IndexError, TypeError)):
            array[index]


def test_values_of_other_types_are_converted_as_numpy_does_or_refused():
    integers, floats, flags = TArray([0]), TArray([0.0]), TArray([False])
    integers[0] = np.int32(5)
    integers[0] += True
    floats[0] = 3
    flags[0] = np.bool_(True)
    assert (integers[0], floats[0], flags[0]) == (6, 3.0, True)
    for array, value in [(integers, 2**64), (integers, "x"), (floats, "x"), (integers, None), (floats, [1, 2])]:
        with pytest.raises((OverflowError, TypeError, ValueError)):
            array[0] = value
    assert (integers[0], floats[0]) == (6, 3.0)


def test_what_can_not_be_an_array_is_refused_at_once():
    with pytest.raises(TypeError, match="int64, float64 or bool"):
        TArray(["a"])
    with pytest.raises(TypeError, match="int64, float64 or bool"):
        TArray([1j])
    with pytest.raises(ValueError, match="one or two dimensions"):
        TArray(np.zeros((2, 2, 2)))
    with pytest.raises(ValueError, match="one or two dimensions"):
        TArray(3)
    with pytest.raises(OverflowError):
        TArray(np.array([2**63], np.uint64))


def test_the_array_is_a_copy_of_its_data():
    data = np.array([1, 2])
    array = TArray(data)
    data[0] = 9
    copied = array.to_numpy()
    copied[1] = 9
    assert list(array) == [1, 2]
    assert np.asarray(array).tolist() == [1, 2]
    assert np.asarray(array, float).dtype == float


def test_a_slice_that_was_read_does_not_pretend_to_be_the_array():
    array = TArray([[1, 2], [3, 4]])
    with pytest.raises(ValueError, match="read-only"):
        array[0][1] = 5
    array[0] = [7, 8]
    array[:, 1] = 9
    assert array.to_numpy().tolist() == [[7, 9], [3, 9]]


def test_empty_arrays_are_arrays():
    array = TArray(np.zeros(0, int))
    assert len(array) == 0
    assert array.to_numpy().tolist() == []
    assert list(array) == []
    with pytest.raises(IndexError):
        array[0]


def test_identity_names_weak_references_and_pickling():
    array = TArray([1, 2], name="stock")
    assert array == array
    assert array != TArray([1, 2])
    assert hash(array) == hash(array)
    assert repr(array) == "<TArray 'stock' int64 [1 2]>"
    assert repr(TArray(np.zeros(1000))) == "<TArray float64 [0. 0. 0. ... 0. 0. 0.]>"
    for copies in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="to_numpy"):
            copies(array)
    reference = weakref.ref(array)
    del array
    assert reference() is None


def test_inside_a_transaction_own_writes_are_seen_and_a_rollback_takes_them_back():
    array, seen = TArray([1, 2]), []

    @atomically
    def body():
        array[0] = 10
        seen.append((array[0], array.to_numpy().tolist(), array.peek(0)))
        raise KeyError

    with pytest.raises(KeyError):
        body()
    assert seen == [(10, [10, 2], 1)]
    assert list(array) == [1, 2]


def test_a_nested_scope_takes_back_its_own_writes_only():
    array = TArray([0, 0, 0])

    @atomically
    def inner():
        array[1] = 5
        array[0] += 1
        assert list(array) == [2, 5, 0]
        raise KeyError

    @atomically
    def outer():
        array[0] += 1
        try:
            inner()
        except KeyError:
            pass
        assert list(array) == [1, 0, 0]
        array[2] = 7
        stm.or_else(lambda: (array.__setitem__(2, 8), stm.retry()), lambda: array.__setitem__(1, 3))

    outer()
    assert list(array) == [1, 3, 7]


def test_an_array_first_touched_in_a_scope_that_is_rolled_back():
    array, x = TArray([0]), TVar(0)

    @atomically
    def inner():
        array[0] = 1
        raise KeyError

    @atomically
    def outer():
        x.set(1)
        with pytest.raises(KeyError):
            inner()
        assert array[0] == 0
        array[0] += 5

    outer()
    assert (x.get(), array[0]) == (1, 5)


def test_read_only_scopes_refuse_writes():
    array = TArray([1, 2])
    for write in (lambda: array.__setitem__(0, 1), lambda: array.__setitem__(slice(None), 1)):
        with pytest.raises(ReadOnlyViolation, match="TArray"):
            stm.run(write, read_only=True)
    assert list(array) == [1, 2]


def test_snapshot_takes_arrays_beside_variables():
    array, x = TArray([1, 2]), TVar("x")
    values = stm.snapshot(x, array)
    assert values[0] == "x"
    assert values[1].tolist() == [1, 2]
    assert stm.run(lambda: stm.snapshot(array))[0].tolist() == [1, 2]
    with pytest.raises(TypeError, match="TVars and TArrays"):
        stm.snapshot(array, [1])


def test_compiled_is_found_as_an_attribute():
    assert stm.compiled.TArray is TArray
    with pytest.raises(AttributeError, match="no attribute 'compield'"):
        stm.compield  # noqa: B018
