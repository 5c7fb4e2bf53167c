"""Cases of ScalaSTM's `TxnSuite`, `MaybeTxnSuite` and of its Java interface (nbronson/scala-stm): plain transactions.

Each docstring names the suite and the case; docs/field/scala-stm.md lists them all, and those that have no counterpart.
"""

from operator import add

import pytest

from stm import (
    TMap,
    TMVar,
    TQueue,
    TSet,
    TVar,
    TVector,
    atomically,
    check,
    or_else,
    retry,
    run,
)
from tests.support import Background, asleep


class Boom(Exception):
    pass


def test_an_empty_transaction():
    """scala-stm, TxnSuite: empty transaction. So with every option."""
    for options in ({}, {"timeout": 0}, {"read_only": True}, {"irrevocable": True}):
        assert run(lambda: None, **options) is None


def test_the_result_is_the_functions():
    """scala-stm, TxnSuite: atomic function. The very object, at any depth and by every way of running it."""
    answer = object()
    assert run(lambda: answer) is answer
    assert atomically(lambda: run(lambda: answer))() is answer
    assert run(lambda: or_else(retry, lambda: answer)) is answer


def test_a_large_transaction():
    """scala-stm, TxnSuite: large transaction. Some thousand variables are read and written in one step."""
    variables = [TVar(number) for number in range(5000)]
    run(lambda: [variable.update(add, 1) for variable in variables])
    assert [variable.value for variable in variables] == list(range(1, 5001))


def test_every_way_of_access_sees_the_others_writes():
    """scala-stm, TxnSuite: duplicate view with old access, View in txn. Methods, property, and an old bound method."""
    x = TVar(10)

    @atomically
    def body():
        read, write = x.get, x.set
        x.value += 1
        seen = [read(), x.value]
        write(12)
        seen += [read(), x.value, x.swap(13), x.update(add, 1)]
        assert x.compare_and_set(x.get(), 15)
        return [*seen, read(), x.peek()]

    assert body() == [11, 11, 12, 12, 12, 14, 15, 10]
    assert x.value == 15


@pytest.mark.parametrize("error", [Boom, KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError])
def test_whatever_is_raised_undoes_everything(error):
    """scala-stm, TxnSuite: failure atomicity. Of all kinds of containers at once, whatever the exception."""
    x, numbers, names, items = TVar(1), TMap(one=1), TSet("a"), TVector([1])

    @atomically
    def body():
        x.set(2)
        numbers.update(one=2, two=2)
        names.clear()
        items[0] = 2
        items.append(3)
        raise error

    with pytest.raises(error):
        body()
    assert (x.value, dict(numbers), set(names), list(items)) == (1, {"one": 1}, {"a"}, [1])


def test_a_return_from_the_midst_commits():
    """scala-stm, TxnSuite: non-local return. Out of loops, handlers and `finally`."""
    x, log = TVar(1), TVector()

    @atomically
    def body():
        for _ in range(3):
            try:
                x.value += 1
                return x.value
            finally:
                log.append("finally")
        return None

    assert body() == 2
    assert (x.value, list(log)) == (2, ["finally"])


def test_control_flow_by_exception_within_the_body_commits():
    """scala-stm, TxnSuite: non-local return; CommitBarrierSuite: control flow exception. Here, `StopIteration`."""
    items, x = TVector([1, 2, 3]), TVar(0)

    @atomically
    def body():
        iterator = iter(items)
        try:
            while True:
                x.value += next(iterator)
        except StopIteration:
            return x.value

    assert body() == 6 == x.value


def test_strings_are_made_inside_and_outside_of_transactions():
    """scala-stm, TxnSuite: strings, toString. A repr in a transaction harms nobody."""
    things = [TVar(1, name="x"), TMap(a=1), TSet("a"), TQueue(), TMVar()]

    def body():
        things[0].set(2)
        return [repr(thing) for thing in things]

    assert all(isinstance(text, str) and text for text in run(body))
    assert repr(things[0]) == "<TVar 'x' 2>"
    assert "body" in repr(atomically(body))


# ------------------------------------------------------------------------------------ retry and or_else


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_what_was_done_before_the_awaited_write_is_seen_after_the_wait(depth):
    """scala-stm, TxnSuite: basic retry, nested retry."""
    x, y = TVar(0), TVar(False)

    def body(left):
        return run(body, left - 1) if left else check(x.value)

    waiting = Background(lambda: (run(body, depth), y.value))
    asleep()
    y.set(True)
    x.set(1)
    assert waiting.result() == (None, True)


def test_one_alternative_is_no_alternative():
    """scala-stm, TxnSuite: single atomic.oneOf."""
    x = TVar("zero")
    run(lambda: or_else(lambda: x.set("one")))
    assert x.value == "one"


@pytest.mark.parametrize("where", ["alone", "nested", "as an alternative"])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_one_of_several(which, where):
    """scala-stm, TxnSuite: atomic.oneOf, nested atomic.oneOf, alternative atomic.oneOf. A fourth always retries."""
    inboxes, result, visits = [TMVar() for _ in range(3)], TVar(-1), []

    def receive(number):
        result.set(number)  # before it is known whether there is anything
        inboxes[number].take()

    def nobody():
        visits.append(1)
        retry()

    def choose():
        return or_else(*(lambda number=number: receive(number) for number in range(3)), nobody)

    bodies = {
        "alone": choose,
        "nested": lambda: run(lambda: run(choose)),
        "as an alternative": lambda: or_else(lambda: check(result.value == "never"), choose),
    }
    waiting = Background(run, bodies[where])
    asleep()
    inboxes[which].put("letter")
    waiting.result()
    assert result.value == which
    assert len(visits) == 1
    assert all(inbox.is_empty() for inbox in inboxes)


def test_an_exception_of_the_second_alternative_gets_out():
    """scala-stm, TxnSuite: orAtomic w/ exception. With it goes what the transaction wrote before."""
    queue = TQueue()

    def second():
        queue.put("second")
        raise Boom

    with pytest.raises(Boom):
        run(lambda: (queue.put("before"), or_else(retry, second)))
    assert queue.empty()


def test_a_function_with_a_way_out_answers_by_the_state():
    """scala-stm, TxnSuite: simple orAtomic, Atomic.orAtomic. One decorated function, called in both states."""
    x = TSet()

    @atomically
    def answer():
        return or_else(lambda: (check("key" in x), True)[1], lambda: False)

    assert answer() is False
    x.add("key")
    assert answer() is True


def test_embedded_alternatives_see_what_is_written_in_the_other_but_not_undone():
    """scala-stm, CommitBarrierSuite: embedded orAtomic. (There, in a member of a barrier.)"""
    x, y = TVar(0), TVar(0)

    def first():
        y.set(1)
        check(x.value)
        return "first"

    def second():
        x.set(1)
        check(y.value != 1)
        return "second"

    assert run(lambda: run(lambda: or_else(first, second))) == "second"
    assert (x.value, y.value) == (1, 0)


# ------------------------------------------------------------------------------------- the Java interface


def test_functions_with_and_without_a_result():
    """scala-stm, JavaAPITests: atomicWithRunnable, atomicWithCallable, transformInteger, incrementInteger."""
    x = TVar(0)
    assert run(x.set, 10) is None
    assert run(x.swap, 20) == 10
    assert run(x.update, add, 5) == 25
    assert run(lambda: x.update(add, 2**70)) == x.value == 25 + 2**70


def test_a_map_in_a_transaction_that_fails():
    """scala-stm, JavaAPITests: failingTMapTransaction, failingTransaction. Inside, both keys are there."""
    names = TMap()

    def body():
        names[1] = "one"
        names.setdefault(2, "two")
        assert {1, 2} <= names.keys()
        raise Boom

    with pytest.raises(Boom):
        run(body)
    assert not names.keys() & {1, 2}
    assert len(names) == 0
