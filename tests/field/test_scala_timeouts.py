"""Cases of ScalaSTM's `RetrySuite` (nbronson/scala-stm) about time limits.

Each docstring names the suite and the case; docs/field/scala-stm.md lists them all, and those that have no counterpart.
ScalaSTM's `retryFor(t)` and `tryAwait(t)` wait for `t` within a transaction that then goes on. Here, a nested
transaction with a `timeout=` does that (its time runs from its first entry), or `after(t)`, which is a variable.
"""

import time
from functools import partial
from operator import add

import pytest

from stm import TEvent, TQueue, TransactionTimeout, TVar, TVector, after, atomically, check, or_else, run
from tests.support import Background, asleep


class Stopwatch:
    def __init__(self):
        self.begun = time.monotonic()

    @property
    def seconds(self):
        return time.monotonic() - self.begun


def wait_for(condition, seconds):
    """Wait within a transaction for so long, but no longer. True if the condition came true."""

    @atomically(timeout=seconds)
    def wait():
        check(condition())

    try:
        wait()
    except TransactionTimeout:
        return False
    return True


def never():
    return NEVER.value


NEVER = TVar(False)
SOON, LATER = 0.02, 30.0


# ---------------------------------------------------------------------------- no wait is too short


def test_a_wait_outside_a_transaction_is_not_too_short():
    """scala-stm, RetrySuite: tryAwait is conservative. So is the wait of an event."""
    for wait in (
        partial(TVar(None).await_change, None, timeout=SOON),
        partial(TEvent().wait, SOON),
        partial(run, wait_for, never, SOON),
    ):
        watch = Stopwatch()
        assert wait() is False
        assert watch.seconds >= SOON


def test_a_wait_inside_a_transaction_is_not_too_short():
    """scala-stm, RetrySuite: tryAwait in atomic is conservative. What the transaction wrote before is kept."""
    words = TVector()
    watch = Stopwatch()
    assert run(lambda: (words.append("before"), wait_for(never, SOON))) == (None, False)
    assert watch.seconds >= SOON
    assert list(words) == ["before"]


def test_a_timer_is_not_too_early():
    """scala-stm, RetrySuite: retryFor is conservative."""
    watch = Stopwatch()
    due = after(SOON)
    run(lambda: check(never() or due.value))
    assert watch.seconds >= SOON


def test_a_timer_as_a_sleep():
    """scala-stm, RetrySuite: retryFor as sleep. The timer is made inside the transaction's first attempt."""
    watch, timers = Stopwatch(), []

    def sleep():
        timers[:] = timers or [after(SOON)]
        check(timers[0].value)

    run(sleep)
    assert SOON <= watch.seconds < LATER


# ------------------------------------------------------------------------ which alternative is first


def by_scope(seconds, answer):
    """Wait so long, or for ever if it is None; then this is the answer."""
    if seconds is None:
        return lambda: (check(never()), answer)[1]
    return lambda: (wait_for(never, seconds), answer)[1]


def by_timer(seconds, answer):
    if seconds is None:
        return lambda: (check(never()), answer)[1]
    due = after(seconds)
    return lambda: (check(never() or due.value), answer)[1]


@pytest.mark.parametrize("nested", [False, True], ids=["flat", "nested"])
@pytest.mark.parametrize("kind", [by_scope, by_timer])
@pytest.mark.parametrize(
    ("first", "second", "answer"),
    [
        pytest.param(SOON, LATER, "first", id="earliest is first"),
        pytest.param(LATER, SOON, "second", id="earliest is second"),
        pytest.param(SOON, None, "first", id="only is first"),
        pytest.param(None, SOON, "second", id="only is second"),
    ],
)
def test_the_alternative_whose_time_comes_first(first, second, answer, kind, nested):
    """scala-stm, RetrySuite: retryFor earliest/only is first/second, and the same nested. Eight cases, two ways."""
    one, two = kind(first, "first"), kind(second, "second")

    def body():
        return or_else(one, two)

    assert run((lambda: run(body)) if nested else body) == answer


def test_several_time_limits_in_a_row_are_waited_for_one_by_one():
    """scala-stm, RetrySuite: retryFor ladder. Each attempt gets at least as far as the one before; a limit of no time
    is no wait."""
    log = []

    def ladder():
        log.append("")
        for letter, seconds in zip("abcde", [0.005, 0.005, 0, 0.005, 0.005], strict=True):
            log[-1] += letter
            assert not wait_for(never, seconds)
        log[-1] += "f"

    watch = Stopwatch()
    run(lambda: or_else(ladder, lambda: check(never())))
    assert log[-1] == "abcdef"
    assert all("abcdef".startswith(attempt) for attempt in log)
    assert sorted(log) == log
    assert watch.seconds >= 0.02


def test_concatenated_waits_take_the_sum_of_their_times():
    """scala-stm, RetrySuite: concatenated failing tryAwait. They stand in one line of code, and yet are different."""
    watch = Stopwatch()
    assert run(lambda: [wait_for(never, SOON) for _ in range(3)]) == [False] * 3
    assert 3 * SOON <= watch.seconds < LATER


def test_a_timer_that_is_not_yet_due_when_its_turn_comes():
    """scala-stm, RetrySuite: late start retryFor. It has run since it was made, not since it is looked at."""
    x, log = TVar(0), []
    watch, due = Stopwatch(), after(0.1)

    def body():
        log.append("a")
        check(x.value)
        log.append("b")
        check(due.value)
        log.append("c")

    waiting = Background(run, body)
    asleep()
    x.set(1)
    waiting.result()
    assert watch.seconds >= 0.1
    assert "".join(log) in ("aababc", "aabc")  # the second only if the machine was slow for a tenth of a second


def test_a_timer_that_is_due_before_its_turn_comes():
    """scala-stm, RetrySuite: expired start retryFor. Then it costs no further wait."""
    x, log, due = TVar(0), [], after(SOON)

    def body():
        log.append("a")
        check(x.value)
        log.append("b")
        check(due.value)
        log.append("c")

    waiting = Background(run, body)
    asleep()
    run(lambda: check(due.value))
    x.set(1)
    waiting.result()
    assert "".join(log) == "aabc"


def test_a_shorter_limit_that_comes_second_counts():
    """scala-stm, RetrySuite: second retryFor has shorter timeout. The transaction waits for another thing by then."""
    x = TVar(0)

    def body():
        value = x.update(add, 10)
        if value == 10:
            assert wait_for(never, LATER)
        if value == 11:
            assert not wait_for(never, SOON)
        return value

    waiting = Background(run, body)
    asleep()
    x.set(1)
    assert waiting.result() == 11
    assert x.value == 11


def test_a_wait_without_and_one_with_a_limit_in_one_transaction():
    """scala-stm, RetrySuite: retryFor via View await. First for one value however long, then for another in vain."""
    x, y = TVar(0), TVar(0)

    def body():
        y.set(10)
        check(x.value == 1)
        return wait_for(lambda: x.value == 2, SOON)

    waiting = Background(run, body)
    asleep()
    x.set(1)
    assert waiting.result() is False
    assert (x.value, y.value) == (1, 10)


def test_the_limit_of_an_alternative_that_was_passed_over_still_counts():
    """scala-stm, RetrySuite: skipped retryFor deadline is retained. It is looked at again then."""
    watch = Stopwatch()

    def body():
        passed_over = or_else(lambda: wait_for(never, SOON), lambda: True)
        if passed_over:
            wait_for(never, LATER)
        return passed_over

    assert run(body) is False
    assert SOON <= watch.seconds < LATER


# ------------------------------------------------------------------- limits around limits


def test_a_limit_of_the_whole():
    """scala-stm, RetrySuite: withRetryTimeout. What was written is not there, and the thread may go on."""
    queue, watch = TQueue(), Stopwatch()
    with pytest.raises(TransactionTimeout):
        run(lambda: (queue.put("lost"), check(never())), timeout=SOON)
    assert SOON <= watch.seconds < LATER
    assert queue.empty()


def test_an_inner_limit_that_is_reached_first_is_the_inner_scopes_alone():
    """scala-stm, RetrySuite: retryFor wins over withRetryTimeout."""
    assert run(lambda: wait_for(never, SOON), timeout=LATER) is False


def test_an_outer_limit_ends_an_inner_wait():
    """scala-stm, RetrySuite: withRetryTimeout applies to retryFor. The scope's handler can't take it for its own."""
    watch = Stopwatch()
    with pytest.raises(TransactionTimeout, match="waited 0.02 s"):
        run(lambda: wait_for(never, LATER), timeout=SOON)
    assert SOON <= watch.seconds < LATER


def test_an_outer_limit_holds_three_scopes_down():
    """scala-stm, RetrySuite: nested global withRetryTimeout."""
    with pytest.raises(TransactionTimeout):
        run(lambda: run(lambda: run(lambda: check(never()))), timeout=SOON)


@pytest.mark.parametrize(("outer", "inner"), [(SOON, LATER), (LATER, SOON)])
def test_the_tighter_limit_wins(outer, inner):
    """scala-stm, RetrySuite: tighter timeout wins."""
    watch = Stopwatch()
    with pytest.raises(TransactionTimeout):
        run(lambda: run(lambda: check(never()), timeout=inner), timeout=outer)
    assert watch.seconds < LATER


def test_time_that_one_scope_has_waited_is_not_another_ones():
    """scala-stm, RetrySuite: non-timeout elapsed. The first wait is answered; the second is not."""
    x = TVar(0)

    def body():
        assert wait_for(lambda: x.value, LATER)
        run(lambda: check(never()), timeout=SOON)

    waiting = Background(run, body)
    asleep()
    x.set(1)
    with pytest.raises(TransactionTimeout, match="waited 0.02 s"):
        waiting.result()
