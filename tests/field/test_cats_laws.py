"""Cases of cats-stm, `laws/.../STMLaws.scala`, and the cats laws that its types claim (`CatsLaws`, `CatsLawsSpec`).

A law says that two transactions are the same. Here transactions are drawn by hypothesis as small programs over three
variables, and two are the same if from equal variables they come to the same end (a result, a failure, or a retry) and
leave equal variables behind.
"""

from typing import Any, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stm import BlockedForever, TransactionTimeout, TVar, atomically, or_else, retry, run, snapshot
from tests.support import together

few = settings(max_examples=40, deadline=None)


class Aborted(Exception):
    """What a program aborts with."""


# ------------------------------------------------------------------------------ programs


class Pure(NamedTuple):
    value: int

    def run(self, variables: list[TVar[int]]) -> Any:
        return self.value


class Get(NamedTuple):
    index: int

    def run(self, variables: list[TVar[int]]) -> Any:
        return variables[self.index].get()


class Set(NamedTuple):
    index: int
    value: int

    def run(self, variables: list[TVar[int]]) -> Any:
        variables[self.index].set(self.value)
        return self.value


class Modify(NamedTuple):
    index: int
    f: "Function"

    def run(self, variables: list[TVar[int]]) -> Any:
        return variables[self.index].update(self.f)


class Retry(NamedTuple):
    def run(self, variables: list[TVar[int]]) -> Any:
        retry()


class Abort(NamedTuple):
    number: int

    def run(self, variables: list[TVar[int]]) -> Any:
        raise Aborted(self.number)


class OrElse(NamedTuple):
    left: Any
    right: Any

    def run(self, variables: list[TVar[int]]) -> Any:
        return or_else(lambda: self.left.run(variables), lambda: self.right.run(variables))


class Bind(NamedTuple):
    first: Any
    then: Any  # from a result to a program

    def run(self, variables: list[TVar[int]]) -> Any:
        return self.then(self.first.run(variables)).run(variables)


class Handle(NamedTuple):
    """Run a program as a nested transaction; if it aborts, go on with what `handler` makes of the number."""

    program: Any
    handler: Any

    def run(self, variables: list[TVar[int]]) -> Any:
        try:
            return atomically(self.program.run)(variables)
        except Aborted as error:
            return self.handler(error.args[0]).run(variables)


class Function(NamedTuple):
    """A function of a number that can be printed and compared."""

    factor: int
    summand: int

    def __call__(self, x: int) -> int:
        return self.factor * x + self.summand


class Branch(NamedTuple):
    """From a number to a program: one for even numbers, another for odd ones."""

    even: Any
    odd: Any

    def __call__(self, x: int) -> Any:
        return self.odd if x % 2 else self.even


class Sequence(NamedTuple):
    """Programs one after the other; all their results."""

    programs: tuple[Any, ...]

    def run(self, variables: list[TVar[int]]) -> Any:
        return tuple(program.run(variables) for program in self.programs)


def then(first, second):
    return Bind(first, Branch(second, second))


def mapped(program, f):
    return Bind(program, lambda x: Pure(f(x)))


numbers = st.integers(-3, 3)
indexes = st.integers(0, 2)
functions = st.builds(Function, numbers, numbers)
leaves = st.one_of(
    st.builds(Pure, numbers),
    st.builds(Get, indexes),
    st.builds(Set, indexes, numbers),
    st.builds(Modify, indexes, functions),
    st.just(Retry()),
    st.builds(Abort, numbers),
)
programs = st.recursive(
    leaves,
    lambda inner: st.one_of(st.builds(OrElse, inner, inner), st.builds(Bind, inner, st.builds(Branch, inner, inner))),
    max_leaves=6,
)
branches = st.builds(Branch, programs, programs)


def end_of(program, values):
    variables = [TVar(value) for value in values]
    try:
        end = "returns", run(program.run, variables, timeout=0)
    except (TransactionTimeout, BlockedForever):
        end = "retries", None
    except Aborted as error:
        end = "fails", error.args
    return end, snapshot(*variables)


def same(one, other):
    for values in ((0, 0, 0), (1, 2, 3)):
        assert end_of(one, values) == end_of(other, values)


# ------------------------------------------------------------------------------ laws of cats-stm


@few
@given(indexes, programs)
def test_get_then_get_is_get(index, before):
    """cats-stm, STMLaws: get then get is get, whatever the transaction did before."""
    double = Bind(Get(index), lambda a: Pure((a, a)))
    same(then(before, Sequence((Get(index), Get(index)))), then(before, double))


@few
@given(indexes, numbers)
def test_set_then_get_is_set_then_pure(index, a):
    """cats-stm, STMLaws: set then get is set then pure."""
    same(then(Set(index, a), Get(index)), then(Set(index, a), Pure(a)))


@few
@given(indexes, numbers, numbers)
def test_set_then_set_is_set(index, a, b):
    """cats-stm, STMLaws: set then set is set, to the later value."""
    same(then(Set(index, a), Set(index, b)), Set(index, b))


@few
@given(indexes, numbers)
def test_set_then_retry_is_retry(index, a):
    """cats-stm, STMLaws: set then retry is retry."""
    same(then(Set(index, a), Retry()), Retry())


@few
@given(indexes, numbers, numbers)
def test_set_then_abort_is_abort(index, a, error):
    """cats-stm, STMLaws: set then abort is abort."""
    same(then(Set(index, a), Abort(error)), Abort(error))


@few
@given(programs)
def test_retry_or_else_a_transaction_is_that_transaction(program):
    """cats-stm, STMLaws: retry orElse stm is stm; also if something was written before the retry."""
    same(OrElse(Retry(), program), program)
    same(OrElse(then(Set(0, 99), Retry()), program), program)


@few
@given(programs)
def test_a_transaction_or_else_retry_is_that_transaction(program):
    """cats-stm, STMLaws: stm orElse retry is stm; retry orElse retry is retry."""
    same(OrElse(program, Retry()), program)


@few
@given(programs, numbers)
def test_abort_or_else_a_transaction_is_abort(program, error):
    """cats-stm, STMLaws: abort orElse stm is abort. A failure is an end, it is not tried otherwise."""
    same(OrElse(Abort(error), program), Abort(error))


# ------------------------------------------------------------------------------ a law that does not hold


@few
@given(programs, programs, st.builds(Branch, st.builds(Pure, numbers), st.builds(Set, indexes, numbers)))
def test_what_never_retries_distributes_over_alternatives(left, right, f):
    """cats-stm, STMLaws: bind distributes over orElse, if what follows does not retry. (Else see below.)"""
    same(Bind(OrElse(left, right), f), OrElse(Bind(left, f), Bind(right, f)))


def test_what_retries_does_not_distribute_over_alternatives():
    """cats-stm, STMLaws: bind distributes over orElse, a law of earlier versions, fails where what follows retries.

    After `a orElse b` the choice is made: a later retry is one of the whole. In `(a; f) orElse (b; f)` b gets its turn.
    """
    left, right, f = Pure(0), Pure(1), Branch(Retry(), Pure(7))
    assert end_of(Bind(OrElse(left, right), f), (0, 0, 0)) == (("retries", None), (0, 0, 0))
    assert end_of(OrElse(Bind(left, f), Bind(right, f)), (0, 0, 0)) == (("returns", 7), (0, 0, 0))


# ------------------------------------------------------------------------------ laws of cats


@few
@given(programs, functions, functions)
def test_functor(program, f, g):
    """cats-stm, CatsLawsSpec: functor: mapping the identity changes nothing, mapping twice is mapping once by both."""
    same(mapped(program, lambda x: x), program)
    same(mapped(mapped(program, f), g), mapped(program, lambda x: g(f(x))))


@few
@given(numbers, programs, branches, branches)
def test_monad(value, program, f, g):
    """cats-stm, CatsLawsSpec: monad: left and right identity, and how steps are bracketed does not matter."""
    same(Bind(Pure(value), f), f(value))
    same(Bind(program, Pure), program)
    same(Bind(Bind(program, f), g), Bind(program, lambda x: Bind(f(x), g)))


@few
@given(programs, programs, programs)
def test_alternatives_are_a_monoid(a, b, c):
    """cats-stm, STMLaws of its first version: semigroupK and monoidK. Alternatives associate; retry is their zero."""
    same(OrElse(OrElse(a, b), c), OrElse(a, OrElse(b, c)))
    same(OrElse(Retry(), a), OrElse(a, Retry()))


@few
@given(programs, programs, programs)
def test_results_that_are_added_up_are_a_monoid(a, b, c):
    """cats-stm, CatsLawsSpec: semigroup and monoid of numbers in transactions. Effects keep their order."""

    def added(one, other):
        return Bind(one, lambda x: mapped(other, lambda y: x + y))

    same(added(added(a, b), c), added(a, added(b, c)))
    same(added(Pure(0), a), a)
    same(added(a, Pure(0)), a)


@few
@given(programs, branches, numbers, indexes)
def test_errors_that_are_handled(program, handler, error, index):
    """cats-stm, CatsLawsSpec: monadError: abort then handle is the handler; who does not abort never meets it.

    What the failing part wrote is gone when the handler runs.
    """
    same(Handle(Abort(error), handler), handler(error))
    same(Handle(then(Set(index, 99), Abort(error)), handler), handler(error))
    same(Handle(Pure(error), handler), Pure(error))
    same(Handle(program, Abort), program)
    same(Handle(Handle(program, Abort), handler), Handle(program, handler))


# ------------------------------------------------------------------------------ invariants


@few
@given(st.lists(st.integers(1, 1_000), min_size=2, max_size=8), st.data())
@example([1, 1], None)
def test_transactions_maintain_an_invariant(balances, data):
    """cats-stm, PropertyTests: a list of accounts, transfers between any two: the sum stays, every one is counted."""
    accounts, count = [TVar(balance) for balance in balances], TVar(0)
    pairs = st.tuples(st.integers(0, len(balances) - 1), st.integers(0, len(balances) - 1), st.integers(0, 10**6))
    moves = [(0, 1, 1)] if data is None else data.draw(st.lists(pairs, min_size=2, max_size=24))

    @atomically
    def transfer(source, target, amount):
        balance = accounts[source].get()
        moved = amount % (balance + 1)
        accounts[source].update(lambda old: old - moved)
        accounts[target].update(lambda old: old + moved)
        count.value += 1

    together(*(lambda part=part: [transfer(*move) for move in part] for part in (moves[::2], moves[1::2])))
    assert sum(snapshot(*accounts)) == sum(balances)
    assert min(snapshot(*accounts)) >= 0
    assert count.get() == len(moves)


@pytest.mark.parametrize("program", [Retry(), Abort(1), then(Set(0, 1), Abort(1)), OrElse(Retry(), Retry())])
def test_the_laws_can_tell_programs_apart(program):
    """Not a case of theirs: were all programs the same to `same`, no law would mean anything."""
    for other in (Pure(0), Set(0, 1), Get(0), then(Set(0, 5), Pure(0))):
        assert end_of(program, (0, 0, 0)) != end_of(other, (0, 0, 0))
    assert end_of(Retry(), (0, 0, 0)) != end_of(Abort(1), (0, 0, 0))
