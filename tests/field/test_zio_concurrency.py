"""Cases of ZIO, `core-tests/.../zio/stm/`: ZSTMSpec and ZSTMJvmSpec, of many at once, and of long and deep ones."""

import pytest

from stm import (
    TVar,
    atomically,
    or_else,
    retry,
    run,
    snapshot,
)
from tests.support import Once, elsewhere, together


class Oops(Exception):
    """What a body fails with."""


def fail(error=Oops):
    raise error


# ------------------------------------------------------------------------------ many at once


def test_each_of_many_increments_counts():
    """ZIO, ZSTMSpec: increment a variable 100 times in 10 fibers. Read, set and read again is one step."""
    x = TVar(0)

    @atomically
    def increment():
        n = x.get()
        x.set(n + 1)
        assert x.get() == n + 1

    together(*(lambda: [increment() for _ in range(100)] for _ in range(10)))
    assert x.get() == 1_000


def test_a_sum_of_two_that_move_against_each_other():
    """ZIO, ZSTMSpec: compute a variable from two others, one counted down and one up. Each commit sees the same sum."""
    a, b, total = TVar(1_000), TVar(0), TVar(0)
    sums = []

    @atomically
    def step():
        x, y = a.get(), b.get()
        total.set(x + y)
        a.set(x - 1)
        b.set(y + 1)
        return total.get()

    together(*(lambda: sums.extend([step() for _ in range(50)]) for _ in range(6)))
    assert set(sums) == {1_000}
    assert snapshot(a, b, total) == (700, 300, 1_000)


def test_permuted_an_even_number_of_times():
    """ZIO, ZSTMSpec: permute two variables, once and in 100 fibers. In the end both hold what they held."""
    x, y = TVar(1), TVar(2)

    @atomically
    def permute():
        a, b = x.get(), y.get()
        x.set(b)
        y.set(a)

    permute()
    assert snapshot(x, y) == (2, 1)
    together(*([permute] * 15))
    assert snapshot(x, y) == (1, 2)


@pytest.mark.parametrize("read_only", [False, True])
def test_a_reader_sees_both_writes_or_none(read_only):
    """ZIO, STM issue 2073 and issue 1587. A reader between two variables that are bumped together sums to 0 or 2."""
    r0, r1, first, sums = TVar(0), TVar(0), Once(), []

    def bump():
        r0.value += 1
        r1.value += 1

    @atomically(read_only=read_only)
    def total():
        left = r0.get()
        if first:
            elsewhere(run, bump)
        sums.append(left + r1.get())
        return sums[-1]

    assert total() == (0 if read_only else 2)
    assert set(sums) <= {0, 2}


def test_transactions_that_make_variables_do_not_block_each_other():
    """ZIO, ZSTMJvmSpec: i9215. Many that each make a hundred variables and update a shared hundred all commit."""
    shared = [TVar("") for _ in range(100)]

    @atomically
    def prepend(mark):
        fresh = [TVar(mark) for _ in shared]
        for mine, theirs in zip(fresh, shared, strict=True):
            theirs.update(lambda text, mine=mine: mine.get() + text)

    together(*(lambda mark=mark: [prepend(mark) for _ in range(4)] for mark in "abcd"))
    texts = {one.get() for one in shared}
    assert len(texts) == 1, "all were prepended to in the same order"
    assert sorted(texts.pop()) == sorted("abcd" * 4)


# ------------------------------------------------------------------------------ depth


def test_ten_thousand_alternatives_in_one_transaction():
    """ZIO, ZSTMSpec: long alternative chains. Each retrying branch is rolled back, the other one's update stays."""
    ref = TVar(0)

    @atomically
    def chain():
        for _ in range(10_000):
            or_else(lambda: (ref.update(lambda n: n + 100), retry()), lambda: ref.update(lambda n: n + 1))
        return ref.get()

    assert chain() == 10_000


def test_ten_thousand_steps_one_after_the_other():
    """ZIO, ZSTMSpec: long map, flatMap and fold chains. The length of a transaction costs no stack."""
    ref = TVar(0)
    assert run(lambda: [ref.update(lambda n: n + 1) for _ in range(10_000)][-1]) == 10_000


def test_alternatives_of_many_levels():
    """ZIO, ZSTMSpec: long orElse chains. Left and right, a hundred levels deep; the last failure is the result."""

    def nest(depth, left):
        if depth == 0:
            return fail()
        inner = lambda: nest(depth - 1, left)  # noqa: E731
        return or_else(inner, retry) if left else or_else(retry, inner)

    for left in (True, False):
        with pytest.raises(Oops):
            run(nest, 100, left)
