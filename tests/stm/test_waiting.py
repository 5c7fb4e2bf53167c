"""Promises 3, 4 and 5: retry, or_else, timeouts: how transactions sleep, are woken, and give up."""

import gc
import threading
import time
import tracemalloc
from functools import partial

import pytest

import stm
from stm import (
    BlockedForever,
    StmError,
    TransactionRequired,
    TransactionTimeout,
    TVar,
    after,
    atomically,
    check,
    on_commit,
    on_rollback,
    or_else,
    retry,
    run,
)
from stm.clock import clock
from stm.waiting import Waiter
from tests.support import Background, Once, asleep, elsewhere, together, until


def take(variable):
    value = variable.value
    check(value is not None)
    variable.set(None)
    return value


def put(variable, value):
    check(variable.value is None)
    variable.set(value)


# ---------------------------------------------------------------------------------------------- retry


def test_retry_sleeps_until_a_write_and_uses_no_cpu():
    x = TVar(0)
    cpu = []

    @atomically
    def wait():
        check(x.value)
        return x.value

    def measured():
        begun = time.thread_time()
        value = wait()
        cpu.append(time.thread_time() - begun)
        return value

    background = Background(measured)
    asleep()
    time.sleep(0.3)  # not to wait for something: to give polling a chance to show
    x.set(7)
    assert background.result() == 7
    assert cpu[0] < 0.05


def test_retry_discards_what_the_attempt_wrote():
    x, y = TVar(0), TVar(0)

    @atomically
    def body():
        y.value += 1
        check(x.value)

    background = Background(body)
    asleep()
    assert y.value == 0
    x.set(1)
    background.result()
    assert y.value == 1


def test_a_write_between_the_last_read_and_sleep_is_not_lost():
    x = TVar(0)
    first = Once()

    @atomically
    def body():
        value = x.value
        if first:
            elsewhere(x.set, 1)
        check(value)
        return value

    assert body() == 1


def test_no_wake_up_is_lost_in_ping_pong():
    there, back = TVar(None), TVar(None)
    rounds = 3_000

    def answer():
        for _ in range(rounds):
            run(put, back, run(take, there))

    background = Background(answer)
    for number in range(rounds):
        run(put, there, number)
        assert run(take, back) == number
    background.result()


def test_only_a_variable_that_was_read_wakes():
    watched, other = TVar(0), TVar(0)
    runs = []

    @atomically
    def body():
        runs.append(1)
        check(watched.value)

    background = Background(body)
    asleep()
    other.set(1)
    run(lambda: [other.set(n) for n in range(10)])
    assert len(runs) == 1
    watched.set(1)
    background.result()
    assert len(runs) == 2


def test_a_woken_transaction_may_go_back_to_sleep():
    x = TVar(0)

    @atomically
    def body():
        check(x.value >= 3)

    background = Background(body)
    for value in (1, 2, 3):
        asleep()
        waiter = next(iter(clock.sleepers))
        x.set(value)
        until(lambda: waiter not in clock.sleepers)
    background.result()


def test_a_thousand_waiters_all_wake():
    x = TVar(0)

    @atomically
    def wait(number):
        check(x.value)
        return number

    waiting = [Background(wait, number) for number in range(300)]
    asleep(300)
    x.set(1)
    assert [one.result() for one in waiting] == list(range(300))


def test_each_item_wakes_somebody():
    """Takers compete for single items; none is taken twice, and the last taker isn't forgotten."""
    slot = TVar(None)
    count = 20
    takers = [Background(run, take, slot) for _ in range(count)]
    for number in range(count):
        run(put, slot, number)
    assert sorted(taker.result() for taker in takers) == list(range(count))


def test_the_oldest_waiter_is_woken_first(monkeypatch):
    from stm.waiting import Waiter, wakes

    x = TVar(0)
    waiters = [Waiter(lambda: None, [x], str(number)) for number in range(3)]
    for waiter in reversed(waiters):
        assert waiter.register({})
    assert [waiter.name for waiter in wakes([x])] == ["0", "1", "2"]
    for waiter in waiters:
        waiter.withdraw()


def test_retrying_with_nothing_read_is_an_error_not_a_hang():
    x = TVar(0)

    @atomically
    def body():
        x.set(1)
        retry()

    with pytest.raises(BlockedForever, match=r"'body' called retry\(\) before it had read anything"):
        body()
    with pytest.raises(BlockedForever):
        run(retry, timeout=5)
    assert x.value == 0


@pytest.mark.parametrize(
    "function",
    [
        retry,
        lambda: check(True),
        lambda: check(False),
        lambda: or_else(lambda: 1),
        lambda: on_commit(print),
        lambda: on_rollback(print),
    ],
)
def test_outside_a_transaction_these_are_errors(function):
    with pytest.raises(TransactionRequired, match="outside a transaction.*@atomically"):
        function()


def test_timed_out_waits_leave_nothing_behind():
    x = TVar(0)

    @atomically(timeout=0)
    def body():
        check(x.value)

    def many(count):
        for _ in range(count):
            try:
                body()
            except TransactionTimeout:
                pass

    tracemalloc.start()
    try:
        many(2_000)
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        many(20_000)
        gc.collect()
        after_all, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after_all - before < 60_000  # three bytes a wait: no object was kept for each
    assert not x._waiters


def test_waits_that_time_out_asleep_leave_nothing_behind():
    x = TVar(0)

    @atomically(timeout=0.0005)
    def body():
        check(x.value)

    for _ in range(200):
        with pytest.raises(TransactionTimeout):
            body()
    assert not x._waiters


def test_two_that_wake_each_other_make_progress():
    turn = TVar(0)
    rounds = 500

    def play(me):
        for _ in range(rounds):
            run(lambda: (check(turn.value == me), turn.set(1 - me)))

    together(lambda: play(0), lambda: play(1))
    assert turn.value == 0


def test_retry_can_not_be_swallowed_by_except_exception():
    x = TVar(0)

    @atomically(timeout=0)
    def body():
        try:
            check(x.value)
        except Exception:
            return "swallowed"

    with pytest.raises(TransactionTimeout):
        body()


def test_retry_swallowed_by_a_bare_except_still_retries():
    x, y = TVar(0), TVar(0)

    @atomically(timeout=0)
    def body(write):
        try:
            check(x.value)
        except BaseException:
            if write:
                y.set(1)

    for write in (False, True):
        with pytest.raises(TransactionTimeout):
            body(write)
    assert y.value == 0


# ---------------------------------------------------------------------------------------------- or_else


def test_or_else_takes_the_first_that_does_not_retry():
    assert run(lambda: or_else(lambda: 1, lambda: 2)) == 1
    assert run(lambda: or_else(retry, lambda: 2, lambda: 3)) == 2


def test_or_else_rolls_a_retrying_alternative_back():
    x, y = TVar(0), TVar(0)
    calls = []

    def left():
        x.set(1)
        y.set(1)
        on_commit(calls.append, "left")
        retry()

    def right():
        assert (x.value, y.value) == (0, 5)
        on_commit(calls.append, "right")
        x.set(2)

    @atomically
    def body():
        y.set(5)
        or_else(left, right)

    body()
    assert (x.value, y.value, calls) == (2, 5, ["right"])


def test_or_else_keeps_the_reads_of_the_left_alternative_for_waking():
    left, right = TVar(None), TVar(None)
    for variable in (left, right):
        background = Background(run, lambda: or_else(lambda: take(left), lambda: take(right)))
        asleep()
        variable.set("here")
        assert background.result() == "here"


def test_or_else_keeps_the_reads_of_the_left_alternative_for_the_commit():
    left, target = TVar(0), TVar(None)
    first = Once()

    def go_left():
        check(left.value)
        target.set("left")

    def go_right():
        target.set("right")

    @atomically
    def body():
        or_else(go_left, go_right)
        if first:
            elsewhere(left.set, 1)

    body()
    assert target.value == "left"


def test_or_else_nests_in_all_places():
    a, b, c = TVar(0), TVar(0), TVar(0)

    def waiting(variable):
        return lambda: (check(variable.value), variable.value)[1]

    def body():
        return or_else(lambda: or_else(waiting(a), waiting(b)), waiting(c))

    for variable in (a, b, c):
        background = Background(run, body)
        asleep()
        variable.set("woke")
        assert background.result() == "woke"
        variable.set(0)


def test_or_else_lets_an_exception_of_an_alternative_out():
    x = TVar(0)

    def left():
        x.set(1)
        raise KeyError("left")

    @atomically
    def body():
        with pytest.raises(KeyError):
            or_else(left, lambda: x.set(2))
        return x.value

    assert body() == 0
    with pytest.raises(KeyError):
        run(lambda: or_else(left))


def test_or_else_wants_functions():
    with pytest.raises(TypeError, match="functions without arguments"):
        run(lambda: or_else(lambda: retry(), 5))


def test_a_retry_swallowed_by_or_else_is_forgotten():
    x, y = TVar(0), TVar(0)

    @atomically
    def body():
        or_else(lambda: check(x.value), lambda: None)
        y.set(y.value + 1)
        return y.value

    assert body() == 1


# ---------------------------------------------------------------------------------------------- timeouts


def test_timeout_raises_both_kinds_of_error():
    x = TVar(0, name="door")

    @atomically(timeout=0.02)
    def wait_for_door():
        check(x.value)

    begun = time.monotonic()
    with pytest.raises(TransactionTimeout, match=r"'wait_for_door' waited 0.02 s in vain.*'door'") as caught:
        wait_for_door()
    assert time.monotonic() - begun >= 0.02
    assert isinstance(caught.value, TimeoutError)
    assert isinstance(caught.value, StmError)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_timeout_bounds_the_whole_wait_not_each():
    x = TVar(0)
    stop = threading.Event()

    def disturb():
        while not stop.is_set():
            x.value += 1

    background = Background(disturb)
    with pytest.raises(TransactionTimeout):
        run(lambda: check(x.value < 0), timeout=0.1)
    stop.set()
    background.result()


def test_timeout_does_not_strike_a_transaction_that_can_commit():
    assert run(lambda: 5, timeout=0) == 5


def test_timeout_of_zero_tries_once():
    x = TVar(1)
    assert run(lambda: (check(x.value), "in time")[1], timeout=0) == "in time"


def test_a_nested_timeout_bounds_its_scope_and_can_be_caught():
    never, x = TVar(0), TVar(0)
    runs = []

    @atomically(timeout=0.03)
    def inner():
        x.set("lost")
        check(never.value)

    @atomically
    def outer():
        runs.append(1)
        try:
            inner()
        except TransactionTimeout:
            assert x.value == 0
            return "gave up"

    assert outer() == "gave up"
    assert len(runs) >= 2  # it slept in between


def test_nested_timeouts_run_from_their_first_entry():
    never, tick = TVar(0), TVar(0)
    stop = threading.Event()

    def disturb():
        while not stop.is_set():
            tick.value += 1

    @atomically(timeout=0.1)
    def inner():
        check(never.value + tick.value < 0)

    background = Background(disturb)
    with pytest.raises(TransactionTimeout):
        run(lambda: inner())
    stop.set()
    background.result()


def test_each_nested_wait_has_a_timeout_of_its_own():
    never = TVar(0)
    inner = atomically(timeout=0.02)(lambda: check(never.value))

    @atomically
    def outer():
        given_up = 0
        for _ in range(2):
            try:
                inner()
            except TransactionTimeout:
                given_up += 1
        return given_up

    assert outer() == 2


@pytest.mark.parametrize(
    ("timeout", "error"), [(-1, ValueError), (float("nan"), ValueError), ("1", TypeError), (True, TypeError)]
)
def test_a_bad_timeout_is_refused_where_it_is_written(timeout, error):
    with pytest.raises(error, match="timeout"):
        atomically(timeout=timeout)
    with pytest.raises(error, match="timeout"):
        run(lambda: 1, timeout=timeout)


def test_a_huge_timeout_is_as_good_as_none():
    x = TVar(0)
    waiting = Background(lambda: run(lambda: check(x.value), timeout=1e300))
    asleep()
    x.set(1)
    waiting.result()


# ---------------------------------------------------------------------------------------------- after


def test_after_turns_true():
    late = after(0.02)
    assert late.value is False
    begun = time.monotonic()
    run(lambda: check(late.value))
    assert time.monotonic() - begun < 30
    assert late.value is True
    assert late.peek() is True


def test_after_wakes_everybody_who_waits_for_it():
    late = after(0.1)
    results = together(*[lambda: run(lambda: (check(late.value), 1)[1])] * 5)
    assert results == [1] * 5


def test_after_is_consistent_within_an_attempt():
    late = after(0)
    readings = []

    @atomically
    def body():
        readings.append((late.value, late.value, late.get()))

    body()
    assert set(readings[-1]) == {True}


def test_after_in_one_alternative():
    answer, late = TVar(None), after(0.02)
    assert run(lambda: or_else(lambda: take(answer), lambda: (check(late.value), "late")[1])) == "late"


def test_after_inside_a_transaction_and_in_read_only_ones():
    late = after(0)
    assert run(lambda: late.value) is True
    late = after(0)
    assert run(lambda: late.value, read_only=True) in (True, False)
    assert run(lambda: late.value, read_only=True) is True
    late = after(0)
    runs = []
    assert run(lambda: (runs.append(1), late.value)[1], irrevocable=True) is True
    assert len(runs) == 1


@pytest.mark.parametrize(("seconds", "error"), [(-1, ValueError), ("soon", TypeError), (None, TypeError)])
def test_after_refuses_nonsense(seconds, error):
    with pytest.raises(error):
        after(seconds)


def test_an_after_that_nobody_awaits_costs_nothing():
    before = threading.active_count()
    for _ in range(1000):
        after(3600)
    assert threading.active_count() == before


def test_a_method_of_another_object_does_not_inherit_a_time_limit():
    """Two objects, one method: the second is first waited for in the second attempt, with all of its time."""

    class Box:
        def __init__(self):
            self.item = TVar(None)

        def take(self):
            check(self.item.value)

        def get(self):
            return run(self.take, timeout=0.3)

    first, second, swapped = Box(), Box(), TVar(False)

    @atomically
    def body():
        try:
            (second if swapped.value else first).get()
        except TransactionTimeout:
            return time.monotonic()

    waiting = Background(body)
    asleep()
    time.sleep(0.1)  # not to wait for something: some of the first limit is to pass
    changed = time.monotonic()
    swapped.value = True
    assert waiting.result() - changed >= 0.3


def test_who_was_woken_is_no_sleeper_any_more_so_that_commits_are_quick_again():
    x, rang = TVar(0), []
    waiter = Waiter(partial(rang.append, "now"), (x,), None)
    assert waiter.register({x: x._cell})
    assert clock.quiet  # only commits to `x` look who is to be woken
    x.value = 1
    assert rang == ["now"]
    assert not clock.sleepers  # though it has not withdrawn yet
    assert clock.quiet
    x.value = 2
    assert rang == ["now"]
    waiter.withdraw()


@pytest.mark.parametrize("change", ["set", "compare_and_set", "update", "two, first", "two, second", "three"])
def test_who_waits_is_woken_whichever_way_the_variable_is_written(change):
    """Commits are quick while others sleep; not those that have somebody to wake."""
    x, other, third = TVar(0), TVar(0), TVar(0)
    waiting = Background(run, lambda: check(x.value))
    asleep()
    order = {"two, first": (x, other), "two, second": (other, x), "three": (third, x, other)}.get(change)
    if change == "set":
        x.set(1)
    elif change == "compare_and_set":
        assert x.compare_and_set(0, 1)
    elif order is None:
        x.update(lambda value: value + 1)
    else:
        atomically(lambda: [one.set(1) for one in order])()
    waiting.result()


def test_who_is_woken_before_the_change_can_be_seen_does_not_miss_it(monkeypatch):
    """Committers wake, and then publish: whoever looks in between goes back to sleep, for which he needs the lock."""
    x, looks = TVar(0), []

    def wait() -> None:
        looks.append(x.value)
        check(x.value)

    def rouse_and_linger(waiters: dict[Waiter, None]) -> None:
        seen = len(looks)
        rouse(waiters)
        until(lambda: len(looks) > seen, "the look of who was woken")
        assert looks[-1] == 0

    rouse = stm.waiting.rouse
    monkeypatch.setattr(stm.transaction, "rouse", rouse_and_linger)
    waiting = Background(run, wait)
    asleep()
    x.set(1)
    waiting.result()
    assert looks[-1] == 1


def test_await_change_returns_when_the_value_is_another_object():
    x = TVar(before := (1, 2))
    waiting = Background(x.await_change, before)
    asleep()
    x.set(tuple([1, 2]))  # noqa: C409 - equal, but not the same
    assert waiting.result() is True
    assert x.await_change(before) is True
    assert not clock.sleepers


def test_await_change_waits_on_when_the_same_object_was_written_again():
    x = TVar(before := (1, 2))
    waiting = Background(x.await_change, before)
    asleep()
    x.set(before)
    asleep()
    x.set(())
    assert waiting.result() is True


def test_await_change_gives_up_in_time_and_leaves_no_waiter():
    x = TVar(before := ())
    assert x.await_change(before, timeout=0.01) is False
    assert x.await_change(before, timeout=0) is False
    assert x.await_change(before, park=False) is False
    assert not clock.sleepers
    assert not x._waiters
    with pytest.raises(ValueError, match="timeout"):
        x.await_change(before, timeout=-1)


def test_await_change_is_refused_in_a_transaction():
    x = TVar(before := ())
    with pytest.raises(BlockedForever, match="retry"):
        run(x.await_change, before)
