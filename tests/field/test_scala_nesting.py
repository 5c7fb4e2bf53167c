"""Cases of ScalaSTM's `TxnSuite` and `MaybeTxnSuite` (nbronson/scala-stm): nested transactions, and conflicts.

Each docstring names the suite and the case; docs/field/scala-stm.md lists them all, and those that have no counterpart.
"""

import threading
from operator import add

import pytest

from stm import (
    TMap,
    TVar,
    TVector,
    atomically,
    check,
    in_transaction,
    or_else,
    retry,
    run,
)
from tests.support import Background, Once, asleep, elsewhere, together


class Boom(Exception):
    pass


def fail():
    raise Boom


def test_nested_transactions_see_and_keep_each_others_writes():
    """scala-stm, TxnSuite: simple nesting; MaybeTxnSuite: Static nesting lookup."""
    x = TVector()

    def level(left):
        x.append(left)
        seen = len(x)
        if left:
            run(level, left - 1)
            assert len(x) == seen + left
        return seen

    assert run(level, 3) == 1
    assert list(x) == [3, 2, 1, 0]


def test_recursion_through_a_decorated_function():
    """scala-stm, MaybeTxnSuite: Dynamic nesting lookup."""
    x = TVar(10)

    @atomically
    def loop(expected):
        assert x.value == expected
        x.set(expected + 1)
        if expected < 100:
            loop(expected + 1)
        assert x.value == 101

    loop(10)
    assert x.value == 101


def test_whether_one_is_in_a_transaction():
    """scala-stm, MaybeTxnSuite: TxnUnknown is found, InTxn is found, Static vs dynamic lookup."""
    assert not in_transaction()
    assert run(lambda: (in_transaction(), run(in_transaction), elsewhere(in_transaction))) == (True, True, False)
    with pytest.raises(Boom):
        run(fail)
    assert not in_transaction()


@pytest.mark.parametrize(
    "change",
    [
        lambda place: place.set("inner"),
        lambda place: place.swap("inner"),
        lambda place: place.update(add, "inner"),
        lambda place: place.compare_and_set(place.get(), "inner"),
        lambda place: or_else(lambda: (place.set("deeper"), retry()), lambda: place.set("inner")),
    ],
    ids=["set", "swap", "update", "compare_and_set", "or_else"],
)
def test_a_scope_that_raises_is_undone_to_what_the_outer_wrote(change):
    """scala-stm, TxnSuite: partial rollback, partial rollback of transform. Each kind of write, twice over."""
    x = TVar("none")

    def inner():
        change(x)
        raise Boom

    @atomically
    def outer():
        with pytest.raises(Boom):
            run(inner)
        assert x.value == "none"
        x.set("outer")
        with pytest.raises(Boom):
            run(inner)
        return x.value

    assert outer() == x.value == "outer"


def test_many_writes_are_undone_to_many_writes():
    """scala-stm, TxnSuite: many multi-level reads. An alternative that wrote everything anew is undone."""
    table = TMap.fromkeys(range(2000), 0)

    def second():
        table.update(dict.fromkeys(range(2000), 2))
        retry()

    def body():
        table.update(dict.fromkeys(range(2000), 1))
        return or_else(second, lambda: "undone")

    assert run(body) == "undone"
    assert dict(table) == dict.fromkeys(range(2000), 1)


# --------------------------------------------------------------------------------------------- conflicts


def test_a_read_that_has_become_stale_does_not_lead_to_an_alternative():
    """scala-stm, TxnSuite: partial rollback due to/of invalid read. A restart is no retry, however deep."""
    x, y, z, first = TVar(0), TVar(0), TVar(0), Once()

    def inner():
        before = y.value
        if first:
            elsewhere(run, lambda: (y.set(1), z.set(1)))
        return before, z.value

    def body():
        x.value += 1
        return or_else(lambda: or_else(inner, lambda: pytest.fail("inner")), lambda: pytest.fail("outer"))

    assert atomically(body)() == (1, 1)
    assert x.value == 1


@pytest.mark.parametrize("shield", [BaseException, Exception])
def test_a_doomed_attempt_can_not_be_saved_by_a_handler(shield):
    """scala-stm, TxnSuite: persistent rollback, persistent rollback via exception. What it says after doesn't count."""
    x, y, first = TVar(0), TVar(0), Once()

    def body():
        before = x.value
        if first:
            elsewhere(run, lambda: (x.set(1), y.set(1)))
        try:
            y.get()
        except shield:
            raise Boom from None  # from an attempt that is none any more
        return before

    assert run(body) == 1


@pytest.mark.parametrize(
    "way",
    [run, lambda body: atomically(body)(), lambda body: run(run, body), lambda body: run(body, timeout=60)],
    ids=["run", "atomically", "nested", "with a time limit"],
)
def test_an_error_that_a_stale_read_led_to_is_not_heard_of(way):
    """scala-stm, TxnSuite: persistent rollback via exception. The error goes with the attempt that it comes from."""
    stock, sold, first = TMap(apples=1), TVar(0), Once()

    def body():
        number = stock["apples"]
        if first:
            elsewhere(stock.update, {"apples": 5})
        if number == 1:
            raise Boom
        sold.set(number)

    way(body)
    assert sold.value == 5


def test_very_many_transactions_at_the_same_time():
    """scala-stm, TxnSuite: many simultaneous Txns. All of them have begun before the first one ends."""
    number = 100
    gate, x = threading.Barrier(number), TVector()

    def body(which, once):
        if once:
            gate.wait(60)
        x.append(which)

    together(*(lambda which=which: run(body, which, Once()) for which in range(number)))
    assert sorted(x) == list(range(number))


def test_a_condition_is_awaited_through_intermediate_states():
    """scala-stm, TxnSuite: await. It is woken by the wrong value, and sleeps again until the right one."""
    x, looks = TVar(0), []
    waiting = Background(run, lambda: (looks.append(x.value), check(x.value == 2)))
    asleep()
    x.set(1)
    asleep()
    x.set(2)
    waiting.result()
    assert looks[0] == 0
    assert looks[-1] == 2
