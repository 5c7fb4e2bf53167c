"""Calls of compiled transactions: results, exceptions, indexing, types, nesting, logs of any size."""

import numpy as np
import pytest
from numba import njit

import stm
from stm import TransactionRequired, TVar, atomically, check, compiled, retry
from stm.compiled import TArray
from tests.stm.compiled.shared import many_moves, move, put, total, transfer


def test_a_call_is_one_transaction_and_returns_its_result():
    accounts = TArray([100, 20, 0])
    assert transfer(accounts, 0, 1, 30) == 70
    assert transfer(amount=5, a=1, b=2, accounts=accounts) == 45
    assert list(accounts) == [70, 45, 5]


def test_an_exception_takes_back_the_writes_and_keeps_its_message():
    @compiled.transaction
    def writes_then_raises(array, i):
        array[0] = 99
        array[1] = 99
        if i:
            raise ValueError("message", 3)
        return array[i]

    array = TArray([1, 2])
    with pytest.raises(ValueError, match="message") as caught:
        writes_then_raises(array, 1)
    assert caught.value.args == ("message", 3)
    assert list(array) == [1, 2]
    assert writes_then_raises(array, 0) == 99


def test_indices_count_from_the_end_and_others_raise_in_machine_code():
    @compiled.transaction
    def at(array, i):
        return array[i]

    @compiled.transaction
    def at_two(array, i, j):
        array[i, j] += 1
        return array[i, j]

    array = TArray([1, 2, 3])
    assert [at(array, i) for i in range(-3, 3)] == [1, 2, 3, 1, 2, 3]
    for i in (3, -4, 2**62, -(2**62)):
        with pytest.raises(IndexError, match="out of range"):
            at(array, i)
    grid = TArray(np.arange(6).reshape(2, 3))
    assert at_two(grid, -1, -1) == 6
    assert at_two(grid, 0, 2) == 3
    for i, j in [(0, 3), (2, 0), (0, -4), (-3, 0)]:
        with pytest.raises(IndexError, match="out of range"):
            at_two(grid, i, j)
    with pytest.raises(IndexError):
        at(TArray(np.zeros(0)), 0)


@pytest.mark.parametrize("data", [[1, 2], [1.5, 2.0], [True, False]])
def test_elements_keep_their_type_in_machine_code(data):
    @compiled.transaction
    def swap(array):
        array[0], array[1] = array[1], array[0]
        return array[0], len(array), array.size, array.ndim, array.shape

    array = TArray(data)
    assert swap(array) == (data[1], 2, 2, 1, (2,))
    assert list(array) == data[::-1]


def test_numbers_arrays_and_several_tarrays_are_arguments():
    @compiled.transaction
    def blend(target, source, weights, factor, flag):
        for i in range(len(weights)):
            target[i] = source[i] * weights[i] * factor if flag else 0.0
        return target[0]

    target, source = TArray([0.0, 0.0]), TArray([2, 3])
    assert blend(target, source, np.array([0.5, 2.0]), 3, True) == 3.0
    assert list(target) == [3.0, 18.0]
    assert blend(target, source, np.array([1, 1], np.int32)[::1], 1.5, False) == 0.0


def test_a_wrong_type_is_a_type_error_that_names_the_argument():
    accounts = TArray([1, 2])
    with pytest.raises(TypeError, match=r"argument 'b' of compiled transaction 'transfer' is a dict"):
        transfer(accounts, 0, {}, 1)
    with pytest.raises(TypeError, match=r"transfer\(accounts: TArray\(int64, 1d\), a: unicode_type"):
        transfer(accounts, "a", 1, 1)
    with pytest.raises(TypeError, match="indexed by two integers"):
        transfer(TArray([[1]]), 0, 0, 1)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'amount'"):
        transfer(accounts, 0, 1)
    assert list(accounts) == [1, 2]


def test_what_can_not_be_compiled_is_refused_where_it_is_declared():
    async def coroutine(array):
        pass

    def generator(array):
        yield 1

    for function, words in [
        (coroutine, "plain function"),
        (generator, "plain function"),
        (lambda *arrays: 0, "parameters"),
        (lambda array, *, key: 0, "parameters"),
        (lambda: 0, "takes no arguments"),
        (3, "takes a function"),
    ]:
        with pytest.raises(TypeError, match=words):
            compiled.transaction(function)


def test_a_body_that_numba_can_not_compile_says_so():
    @compiled.transaction
    def impossible(array):
        return {array: open("x")}

    with pytest.raises(TypeError, match=r"impossible\(array: TArray\(int64, 1d\)\) can't be compiled"):
        impossible(TArray([1]))


def test_own_writes_are_read_and_none_is_lost_in_sets_of_any_size():
    @compiled.transaction
    def count_up(array, rounds):
        for _ in range(rounds):
            for i in range(len(array)):
                array[i] += 1
        return array[len(array) - 1]

    for size in (1, 31, 32, 33, 64, 65, 1000, 20_000):
        array = TArray(np.zeros(size, int))
        assert count_up(array, 3) == 3
        assert (array.to_numpy() == 3).all()
        assert total(array) == 3 * size


def test_a_nested_call_that_raises_takes_back_its_own_writes_only():
    @compiled.transaction
    def inner(array, fails):
        array[1] += 1
        array[0] += 10
        if fails:
            raise ValueError("inner")

    @compiled.transaction
    def outer(array, fails):
        array[0] += 1
        try:
            inner(array, fails)
        except Exception:
            array[2] += 1
        return array[0]

    array = TArray([0, 0, 0])
    assert outer(array, False) == 11
    assert outer(array, True) == 12
    assert list(array) == [12, 1, 1]
    # The same in place, where the log is an undo log.
    outer.map(array, np.ones(300, bool), threads=1)
    assert list(array) == [312, 1, 301]


def test_plain_helper_functions_join_the_body():
    @njit
    def helper(array, i):
        array[i] += 1
        if array[i] > 2:
            raise ValueError("enough")

    @compiled.transaction
    def body(array, i):
        helper(array, i)
        helper(array, i)

    array = TArray([0, 1])
    body(array, 0)
    with pytest.raises(ValueError, match="enough"):
        body(array, 1)
    assert list(array) == [2, 1]


def test_the_users_own_compiled_code_calls_transactions():
    accounts = TArray(np.full(5, 100))
    many_moves(accounts, 1000)
    expected = np.full(5, 100)
    for k in range(1000):
        expected[k % 5] -= 1
        expected[(k * 7 + 1) % 5] += 1
    assert list(accounts) == expected.tolist()


def test_the_users_own_compiled_code_uses_elements_as_transactions_of_their_own():
    @njit
    def plain(array):
        array[1] = array[0] + 1
        return array[1]

    array = TArray([4, 0])
    assert plain(array) == 5
    assert list(array) == [4, 5]
    with pytest.raises(KeyError):
        stm.run(lambda: (plain(array), {}["undo"]))
    array[0] = 7

    @atomically
    def body():
        array[0] = 20
        result = plain(array)
        raise LookupError(result, array[1])

    with pytest.raises(LookupError) as caught:
        body()
    assert caught.value.args == (21, 21)
    assert list(array) == [7, 5]


def test_an_exception_in_a_transaction_called_from_compiled_code():
    @njit
    def tries(accounts):
        caught = 0
        for _ in range(4):
            try:
                transfer(accounts, 0, 1, 60)
            except Exception:
                caught += 1
        return caught

    accounts = TArray([100, 0])
    assert tries(accounts) == 3
    assert list(accounts) == [40, 60]

    @njit
    def lets_out(accounts):
        transfer(accounts, 0, 1, 1000)

    with pytest.raises(ValueError, match="overdrawn"):
        lets_out(accounts)


def test_inside_atomically_a_call_joins():
    accounts, log = TArray([100, 0]), TVar(())

    @atomically
    def body(fails):
        log.value += (transfer(accounts, 0, 1, 10),)
        assert accounts[1] == 10 * len(log.value)
        move(accounts, 0, 1, 1)
        move(accounts, 1, 0, 1)
        if fails:
            raise KeyError

    body(False)
    with pytest.raises(KeyError):
        body(True)
    assert list(accounts) == [90, 10]
    assert log.value == (90,)


def test_an_exception_of_a_joined_call_takes_back_its_own_writes_only():
    accounts = TArray([5, 0])

    @compiled.transaction
    def writes_then_raises(array):
        array[0] = 0
        raise ValueError("no")

    @atomically
    def body():
        put(accounts, 1, 7)
        with pytest.raises(ValueError, match="no"):
            writes_then_raises(accounts)
        with pytest.raises(IndexError):
            put(accounts, 2, 7)
        return list(accounts)

    assert body() == [5, 7]
    assert list(accounts) == [5, 7]


def test_a_write_of_a_joined_call_in_a_read_only_scope():
    accounts = TArray([5, 0])
    with pytest.raises(stm.ReadOnlyViolation, match="move"):
        stm.run(move, accounts, 0, 1, 1, read_only=True)
    assert stm.run(total, accounts, read_only=True) == 5
    assert list(accounts) == [5, 0]


def test_retry_and_check_outside_a_transaction_are_errors_in_machine_code_too():
    @njit
    def careless():
        retry()

    @njit
    def careless_check(x):
        check(x > 0)
        return x

    with pytest.raises(TransactionRequired):
        careless()
    assert careless_check(1) == 1
    with pytest.raises(TransactionRequired):
        careless_check(0)


def test_defaults_names_and_reprs():
    @compiled.transaction(name="deposit into")
    def deposit(array, i, amount=2):
        """Put some in."""
        array[i] += amount
        return amount

    array = TArray([0, 0])
    assert deposit(array, 0) == 2
    assert deposit(array, 1, amount=5) == 5
    assert repr(deposit) == "<compiled transaction 'deposit into'>"
    assert deposit.__doc__ == "Put some in."
    assert deposit.__name__ == "deposit"
    assert list(array) == [2, 5]


def test_a_compiled_transaction_is_no_method():
    class Bank:
        pay = transfer

    with pytest.raises(TypeError, match="can't be a method"):
        Bank().pay  # noqa: B018


def test_results_of_any_type_numba_can_return():
    @compiled.transaction
    def results(array, what):
        return array[0], float(array[1]), np.array([array[0], array[1]])

    whole, real, both = results(TArray([1, 2]), 0)
    assert (whole, real, both.tolist()) == (1, 2.0, [1, 2])


def test_peek_is_not_recorded_and_does_not_see_own_writes():
    @compiled.transaction
    def looks(array):
        array[0] += 1
        return array.peek(0), array[0]

    array = TArray([5])
    assert looks(array) == (5, 6)

    @compiled.transaction
    def looked(array, i):
        array[0] += 1
        return array.peek(0) * 1000 + array[0]

    found = looked.map(array, np.zeros(2000, int), threads=1)
    inside = found % 1000 - found // 1000  # equal to 1 where each row was a commit of its own, more in a group
    assert (found % 1000 == (np.arange(2000) + 7) % 1000).all() or (inside >= 1).all()
    assert array[0] == 2006
