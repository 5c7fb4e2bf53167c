"""Cases of ScalaSTM's `RetrySuite` (nbronson/scala-stm) about what a retry waits for.

Each docstring names the suite and the case; docs/field/scala-stm.md lists them all, and those that have no counterpart.
The suite's cases about time limits are in test_scala_timeouts.py.
"""

import pytest

from stm import BlockedForever, TMap, TVar, atomically, check, or_else, retry, run
from stm.compiled import TArray
from tests.support import Background, Once, asleep, elsewhere


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_what_an_alternative_read_is_awaited_though_only_its_outcome_was_used(depth):
    """scala-stm, RetrySuite: retry set accumulation across alternatives. Here, the alternatives are deeply nested."""
    x = TMap(key=False)

    def nested(left):
        if left:
            return run(nested, left - 1)
        check(x["key"])
        return True

    def body():
        check(or_else(lambda: nested(depth), lambda: False))
        return "seen"

    waiting = Background(run, body)
    asleep()
    x["key"] = True
    assert waiting.result() == "seen"


@pytest.mark.parametrize(
    "way",
    [run, lambda body: atomically(body)(), lambda body: run(body, timeout=60), lambda body: run(or_else, body, retry)],
    ids=["run", "atomically", "with a time limit", "an alternative"],
)
def test_a_write_between_the_look_and_the_sleep_is_not_missed(way):
    """scala-stm, RetrySuite: retry set accumulation across alternatives, decided: the awaited write comes before the
    wait begins, after an alternative has seen that it has not come."""
    x, first = TVar(False), Once()

    def body():
        seen = or_else(lambda: check(x.value) or True, lambda: False)
        if first:
            elsewhere(x.set, True)
        check(seen)
        return "seen"

    assert way(body) == "seen"


def test_barging_a_transaction_that_was_aborted_often_can_still_wait():
    """scala-stm, RetrySuite: barging retry. After many aborts it runs alone; when it retries, it lets others commit."""
    x, y, z = TVar(0), TVar(0), TVar(0)
    runs = []

    def inner():
        runs.append(1)
        seen = x.value
        if len(runs) <= 10:
            elsewhere(x.set, -len(runs))
        z.set(3)
        check(y.swap(2) == 1)
        return seen

    waiting = Background(run, lambda: (z.set(2), run(inner))[1])
    asleep()
    run(lambda: (x.set(1), y.set(1)))
    assert waiting.result() == 1
    assert (y.value, z.value) == (2, 3)
    assert len(runs) > 10


def test_a_wait_for_any_of_very_many_variables():
    """scala-stm, RetrySuite: retry with many pessimistic reads. A conflict comes first, then the wait."""
    variables = [TVar(0) for _ in range(3000)]
    first = Once()

    def body():
        total = variables[0].value
        if first:
            elsewhere(variables[0].set, 0)  # no other value, and yet another version
        total += sum(variable.value for variable in variables)
        check(total)
        return total

    waiting = Background(atomically(body))
    asleep()
    variables[500].set(1)
    assert waiting.result() == 1


def test_a_wait_for_any_element_of_a_long_array():
    """scala-stm, RetrySuite: retry with many accesses to TArray. Some elements are written before the wait, too."""
    array = TArray([0] * 2000)

    def body():
        for index in range(100):
            array[index] = array[index] * 2
        total = sum(array[index] for index in range(len(array)))
        check(total)
        return total

    waiting = Background(run, body)
    asleep()
    array[1500] = 1
    assert waiting.result() == 1


def test_a_futile_wait_is_an_error():
    """scala-stm, RetrySuite: futile retry should fail. Also where the transaction has written, and where it nests."""
    x = TVar(0)
    for body in (retry, lambda: (x.set(1), retry()), lambda: run(retry), lambda: or_else(retry, lambda: run(retry))):
        with pytest.raises(BlockedForever):
            run(body)
    assert x.value == 0
