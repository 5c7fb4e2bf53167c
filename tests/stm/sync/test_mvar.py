"""What `stm.sync.mvar` promises."""

import copy
import time
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stm import TMVar, TransactionTimeout, TVar, atomically, check, or_else, run
from tests.support import Background, Once, asleep, elsewhere

STEP = st.one_of(
    st.sampled_from(["try_take", "try_read", "is_empty", "take", "read"]).map(lambda name: (name,)),
    st.tuples(st.sampled_from(["try_put", "put", "swap"]), st.one_of(st.none(), st.integers(0, 3))),
)


class Model:
    """One value at most, and `TransactionTimeout` where one would wait."""

    def __init__(self, *values):
        self.values = list(values)

    def full(self):
        if not self.values:
            raise TransactionTimeout
        return self.values

    def put(self, value, timeout):
        if self.values:
            raise TransactionTimeout
        self.values.append(value)

    def take(self, timeout):
        return self.full().pop()

    def read(self, timeout):
        return self.full()[0]

    def swap(self, value, timeout):
        old = self.full().pop()
        self.values.append(value)
        return old

    def try_put(self, value):
        return not self.values and not self.values.append(value)

    def try_take(self):
        return self.values.pop() if self.values else None

    def try_read(self):
        return self.values[0] if self.values else None

    def is_empty(self):
        return not self.values


@given(st.lists(st.one_of(st.none(), st.integers(0, 3)), max_size=1), st.lists(STEP))
@settings(max_examples=80, deadline=None)
def test_behaves_like_the_model(values, steps):
    def play(mvar):
        answers = []
        for name, *args in steps:
            limits = {"timeout": 0} if name in ("put", "take", "read", "swap") else {}
            try:
                answers.append(getattr(mvar, name)(*args, **limits))
            except TransactionTimeout:
                answers.append("would wait")
        return answers

    expected = play(Model(*values))
    assert play(TMVar(*values)) == expected
    assert run(play, TMVar(*values)) == expected


def test_none_is_a_value():
    mvar = TMVar(None)
    assert not mvar.is_empty()
    assert mvar.try_put(1) is False
    assert (mvar.take(), mvar.is_empty()) == (None, True)
    mvar.put(None)
    assert (mvar.try_take("default"), mvar.try_take("default"), mvar.try_read("default")) == (None, *["default"] * 2)


def test_put_waits_until_the_place_is_empty():
    mvar = TMVar(1)
    waiting = Background(mvar.put, 2)
    asleep()
    assert mvar.take() == 1
    waiting.result()
    assert mvar.read() == 2


@pytest.mark.parametrize("operation", ["take", "read"])
def test_take_and_read_wait_for_a_value(operation):
    mvar = TMVar()
    waiting = Background(getattr(mvar, operation))
    asleep()
    mvar.put("here")
    assert waiting.result() == "here"
    assert mvar.is_empty() == (operation == "take")


def test_what_one_puts_one_other_takes():
    mvar, count = TMVar(), 100
    takers = [Background(lambda: [mvar.take() for _ in range(count)]) for _ in range(3)]
    putters = [Background(lambda me: [mvar.put((me, n)) for n in range(count)], me) for me in range(3)]
    for one in putters:
        one.result()
    taken = [one.result() for one in takers]
    assert sorted(chain(*taken)) == [(me, n) for me in range(3) for n in range(count)]
    for some in taken:
        assert [n for me, n in some if me == 0] == sorted(n for me, n in some if me == 0)


def test_taking_from_one_and_putting_into_another_is_one_step():
    one, other = TMVar("letter"), TMVar("full")

    @atomically
    def forward():
        other.put(one.take())

    waiting = Background(forward)
    asleep()
    assert one.read() == "letter"
    assert other.take() == "full"
    waiting.result()
    assert (one.is_empty(), other.read()) == (True, "letter")


def test_what_was_taken_is_back_if_the_transaction_fails():
    mvar = TMVar(1)

    @atomically
    def body():
        assert mvar.take() == 1
        mvar.put(2)
        raise KeyError

    with pytest.raises(KeyError):
        body()
    assert mvar.take() == 1


def test_an_alternative_that_retries_puts_back_what_it_took():
    mvar, never = TMVar(1), TVar(0)

    def take_and_wait():
        mvar.take()
        check(never.value)

    assert run(lambda: or_else(take_and_wait, mvar.read)) == 1
    assert mvar.read() == 1


def test_take_from_the_first_that_is_full():
    one, other = TMVar(), TMVar()
    waiting = Background(run, lambda: or_else(one.take, other.take))
    asleep()
    other.put("other")
    assert waiting.result() == "other"


def test_a_value_taken_meanwhile_is_not_taken_twice():
    mvar = TMVar("only one")
    first = Once()

    @atomically
    def body():
        value = mvar.try_take()
        if first:
            elsewhere(mvar.take)
        return value

    assert body() is None


def test_a_timeout_raises_and_changes_nothing():
    mvar = TMVar("full", name="mailbox")
    begun = time.monotonic()
    with pytest.raises(TransactionTimeout, match=r"'mailbox.put' waited 0.02 s in vain.*'mailbox' 'full'"):
        mvar.put("more", timeout=0.02)
    assert time.monotonic() - begun >= 0.02
    assert mvar.take() == "full"
    for operation in (mvar.take, mvar.read, lambda timeout: mvar.swap(1, timeout)):
        with pytest.raises(TimeoutError, match=r"\(empty\)"):
            operation(timeout=0)
    with pytest.raises(TransactionTimeout):
        mvar.take(timeout=-1)
    assert mvar.is_empty()


def test_a_timeout_inside_a_transaction_bounds_that_part_alone():
    mvar, x = TMVar(), TVar(0)

    @atomically
    def body():
        x.set(1)
        try:
            return mvar.take(timeout=0.02)
        except TransactionTimeout:
            return "late"

    assert body() == "late"
    assert x.value == 1


def test_bad_timeouts_are_refused_and_nothing_is_lost():
    mvar = TMVar(1)
    for timeout, error in (("1", TypeError), (True, TypeError), (float("nan"), ValueError)):
        with pytest.raises(error, match="timeout"):
            mvar.take(timeout=timeout)
    assert mvar.read() == 1


def test_repr_and_copy():
    assert repr(TMVar()) == "<TMVar (empty)>"
    assert repr(TMVar("x" * 100, name="box")).startswith("<TMVar 'box' 'xxx")
    assert len(repr(TMVar("x" * 100))) < 60
    with pytest.raises(TypeError, match="can't be pickled or copied"):
        copy.copy(TMVar())
