"""choam's tests of its `stm` package, answered, first part: what a transaction does, and what it keeps for itself.

Its transactions are values that are combined and committed; here they are functions. What is about combining values
(functor and monad instances) has no counterpart.
"""

import pytest

from stm import TVar, TVector, atomically, check, or_else, retry, run
from tests.support import Background, Once, asleep, together


def positive(variable):
    check(variable.value > 0)
    return variable.value


class MyException(Exception):
    pass


def panic():
    raise MyException


# ---- one transaction


def test_reads_follow_the_transactions_own_writes():
    """choam, TxnSpec: "Hello World" and "TRef read twice". Before, then after a write of its own."""
    x = TVar(42)
    assert run(lambda: (x.value, x.set(99), x.value)) == (42, None, 99)
    assert x.value == 99


def test_a_transaction_can_be_run_again_and_not_before_it_is_called():
    """choam, TxnSpec: "Txn#commit should be repeatable" and "Txn.defer". Making it runs nothing; each call runs it."""
    ran = []
    body = atomically(lambda: ran.append(1) or 42)
    assert ran == []
    assert [body() for _ in range(3)] == [42] * 3
    assert len(ran) == 3


def test_a_loop_is_one_transaction():
    """choam, TxnSpec: "Txn.tailRecM" and the Defer instance. As many steps as one likes, in a loop or by recursion."""
    x = TVar(0)

    @atomically
    def recursive(count):
        x.value += 1
        return recursive(count - 1) if count > 1 else x.value

    @atomically
    def loop():
        for _ in range(10_000):
            x.value += 1
        return x.value, x.peek()

    assert recursive(100) == 100
    assert loop() == (10_100, 100)


@pytest.mark.parametrize(
    "alternatives", [[panic], [panic, lambda: 42], [lambda: positive(TVar(0)), panic]], ids=["alone", "left", "right"]
)
def test_an_exception_ends_all_and_undoes_what_came_before(alternatives):
    """choam, TxnSpec: "Txn.unsafe.panic" and "Unhandled exceptions". From the left of alternatives (the right one is
    not tried), from the right, or where there are none; after a write, which is undone.
    """
    x = TVar(0)

    @atomically
    def body():
        x.value = 1
        return or_else(*alternatives)

    with pytest.raises(MyException):
        body()
    assert x.value == 0


# ---- what a transaction keeps for itself


def test_a_variable_made_inside_is_undone_with_the_alternative_that_changed_it():
    """choam, TxnSpec: "TxnLocal (STM rollback)" and the others on TxnLocal. The left alternative's changes to what the
    transaction made for itself are gone when the right one runs; those from before are there.
    """
    left, right = TVar(0), TVar(0)

    @atomically
    def body():
        local = TVar(0)
        local.value += 1

        def first():
            left.value = local.value
            local.value += 1
            retry()

        def second():
            right.value = local.value
            local.value += 2

        or_else(first, second)
        return local.value

    assert body() == 3
    assert (left.value, right.value) == (0, 1)


def test_an_array_made_inside_is_undone_with_the_alternative_that_changed_it():
    """choam, TxnSpec: "TxnLocal.Array (STM rollback)" and the others on TxnLocal.Array. The same for many places."""
    right = TVar(None)

    @atomically
    def body():
        local = TVector([0, 0, 0])
        local[1] += 1

        def first():
            local[1] += 1
            local.append(9)
            retry()

        def second():
            right.value = list(local)
            local[1] += 2

        or_else(first, second)
        return list(local)

    assert body() == [0, 3, 0]
    assert right.value == [0, 1, 0]


class Memo:
    """The result of an action that runs once, in whichever transaction first asks for it and commits."""

    def __init__(self, action):
        self.action, self.result = action, TVar(())

    @atomically
    def get(self):
        if not self.result.value:
            self.result.value = (self.action(),)
        return self.result.value[0]


def test_what_is_computed_once_is_computed_again_if_that_was_undone():
    """choam, MemoSpec: "Txn.memoize simple". A transaction that is rolled back has not computed it."""
    count = TVar(0)

    def act():
        count.value += 1
        return count.value

    one, other = Memo(act), Memo(act)

    def in_vain():
        one.get()
        retry()

    assert run(or_else, in_vain, lambda: None) is None
    assert count.value == 0
    assert [other.get(), other.get(), one.get(), other.get(), one.get()] == [1, 1, 2, 1, 2]
    assert count.value == 2


def test_what_is_computed_once_is_the_same_for_all():
    """choam, MemoSpec: "Txn.memoize concurrent access" and "suspend". Many ask at once, some roll back first."""
    for _ in range(20):
        count, asked = TVar(0), TVar(0)
        memo = Memo(lambda: (count.update(lambda n: n + 1), object())[1])

        def ask(rolls_back):
            first = Once()

            def once_in_vain():
                memo.get()
                asked.value += 1
                if rolls_back and first:
                    retry()
                return memo.get()

            return run(or_else, once_in_vain, memo.get)

        results = together(*(lambda number=number: ask(number % 2) for number in range(4)))
        assert len(set(results)) == 1
        assert count.value == 1
        assert 2 <= asked.value <= 4


# ---- variables and arrays


def test_operations_on_a_variable():
    """choam, TRefSpec: "TRef#set", "#update", "#modify", "#getAndSet", "#updateAndGet", "#flatModify". In a transaction
    and as one of their own.
    """
    x, count = TVar(0), TVar(0)

    def modify():
        x.value, answer = x.value + 1, x.value * 10
        return answer

    for way in (run, lambda fn, *args: fn(*args)):
        x.set(0)
        assert way(x.update, lambda value: value + 1) == 1
        assert way(x.swap, 42) == 1
        assert run(modify) == 420
        assert way(x.update, lambda value: value + count.update(lambda n: n + 1)) - count.value == 43
    assert (x.value, count.value) == (45, 2)


def test_places_of_a_vector():
    """choam, TArraySpec: "unsafeGet/Set/Update", "get/set/update", "Various allocation strategies", "TArray of size 0".
    Places are changed one by one; outside of them it is an error that changes nothing; one can wait for a place.
    """
    places = TVector("aaa")
    places[0] = "b"
    places[0] += "c"
    for outside in (3, -4, 2**62):
        with pytest.raises(IndexError):
            places[outside]
        with pytest.raises(IndexError):
            places[outside] = "x"
    assert list(places) == ["bc", "a", "a"]
    waiting = Background(run, lambda: check(places[1] == "y"))
    asleep()
    places[1] = "y"
    waiting.result()
    with pytest.raises(IndexError):
        TVector()[0]
