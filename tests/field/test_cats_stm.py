"""Cases of cats-stm, `core/.../stm/`: STMSpec (once SequentialTests) and the specs of its structures."""

import random
from concurrent.futures import InvalidStateError

import pytest

from stm import TMVar, TPromise, TQueue, TSemaphore, TVar, atomically, check, or_else, retry, run, snapshot
from tests.support import Background, asleep, together, until


class Boom(Exception):
    """What a body fails with."""


def withdraw(account, amount, more_than):
    check(account.get() > more_than)
    account.value -= amount


# ------------------------------------------------------------------------------ transactions


def test_a_transaction_is_executed():
    """cats-stm, STMSpec: basic transaction is executed."""
    source, target = TVar(100), TVar(0)

    @atomically
    def move():
        balance = source.get()
        source.update(lambda value: value - balance)
        target.update(lambda value: value + balance)

    move()
    assert snapshot(source, target) == (0, 100)


@pytest.mark.parametrize("where", ["in the body", "in an update"])
def test_a_failure_aborts_the_whole(where):
    """cats-stm, STMSpec: abort primitive aborts whole transaction; SequentialTests: if an exception is thrown."""
    source, target = TVar(100), TVar(0)

    def fail(*_):
        raise Boom

    @atomically
    def move():
        source.update(lambda value: value - source.get())
        fail() if where == "in the body" else target.update(fail)

    with pytest.raises(Boom):
        move()
    assert snapshot(source, target) == (100, 0)


def test_a_check_is_repeated_until_it_holds():
    """cats-stm, STMSpec: check retries until transaction succeeds; check retries repeatedly. Once for each change."""
    source, target, looked = TVar(90), TVar(0), []

    @atomically
    def move():
        looked.append(source.get())
        withdraw(source, 100, 100)
        target.value += 100

    waiting = Background(move)
    for _ in range(11):
        asleep()
        source.update(lambda value: value + 1)
    waiting.result()
    assert looked == list(range(90, 102))
    assert snapshot(source, target) == (1, 100)


ALTERNATIVES = {
    "runs second transaction if first retries": lambda account, other: withdraw(account, 100, 100),
    "reverts changes if retrying": lambda account, other: (account.update(lambda n: n - 100), retry()),
    "reverts changes to tvars not previously modified": lambda account, other: (other.update(lambda n: 0), retry()),
}


@pytest.mark.parametrize("case", ALTERNATIVES)
def test_an_alternative_begins_anew(case):
    """cats-stm, STMSpec: orElse runs second, reverts changes, and reverts those of variables that are new to it."""
    account, other = TVar(100), TVar(100)
    run(or_else, lambda: ALTERNATIVES[case](account, other), lambda: withdraw(account, 50, 50))
    assert snapshot(account, other) == (50, 100)


@pytest.mark.parametrize("bracket", ["left", "right", "none"])
def test_three_alternatives(bracket):
    """cats-stm, STMSpec: nested orElse. Each begins with what was there before the first."""
    x = TVar(100)

    def first():
        x.value -= 100
        retry()

    def second():
        x.value -= 10
        check(x.get() == 50)

    def third():
        check(x.get() == 100)
        x.value -= 50

    @atomically
    def choose():
        if bracket == "left":
            or_else(lambda: or_else(first, second), third)
        elif bracket == "right":
            or_else(first, lambda: or_else(second, third))
        else:
            or_else(first, second, third)
        return x.get()

    assert choose() == 50


def test_a_retry_in_the_first_alternative_is_woken_by_what_that_has_read():
    """cats-stm, STMSpec: a transaction is retried if a variable in the if branch is modified; no waiter is left."""
    x = TVar(0)

    def first():
        check(x.get() > 0)
        x.value += 1

    waiting = Background(run, or_else, first, retry)
    asleep()
    x.value += 1
    waiting.result()
    asleep(0)
    assert x.get() == 2


def test_the_same_function_waits_twice():
    """cats-stm, STMSpec: commit is referentially transparent. Two calls of one function are two waiters."""
    flag, x = TVar(False), TVar(0)

    @atomically
    def act():
        check(flag.get())
        x.value += 1

    waiting = [Background(act), Background(act)]
    asleep(2)
    flag.set(True)
    for one in waiting:
        one.result()
    assert x.get() == 2


@pytest.mark.parametrize("at_once", [True, False])
def test_a_function_called_five_times_acts_five_times(at_once):
    """cats-stm, STMSpec: atomically, and modify, are referentially transparent; and so is TVar.of (TVarSpec)."""
    make = lambda: TVar(0)  # noqa: E731
    x, other = make(), make()
    increment = atomically(lambda: x.update(lambda value: value + 1))

    def five_times():
        for _ in range(5):
            increment()

    run(five_times) if at_once else five_times()
    assert snapshot(x, other) == (5, 0)


def test_a_hundred_thousand_steps():
    """cats-stm, STMSpec: stack-safe construction and evaluation."""
    x = TVar(0)

    @atomically
    def count():
        for _ in range(100_000):
            x.value += 1
        return x.get()

    assert count() == 100_000


def test_the_waiter_and_who_unblocks_it_race():
    """cats-stm, STMSpec: race retrying fiber and fiber which unblocks it. Whoever is first, both come through."""
    for _ in range(100):
        x = TVar(0)

        @atomically
        def wait():
            check(x.get() == 1)
            x.set(2)

        together(wait, lambda: x.update(lambda value: value + 1))
        assert x.get() == 2


def test_a_hundred_take_their_turns():
    """cats-stm, STMSpec: lots of contention and retrying. Each of a hundred, in no order, waits for its number."""
    x = TVar(0)

    @atomically
    def mine(n):
        check(x.get() == n)
        x.set(n + 1)

    order = list(range(100))
    random.Random(3).shuffle(order)
    for one in [Background(mine, n) for n in order]:
        one.result()
    assert x.get() == 100


def test_one_commit_unblocks_all_whom_it_concerns():
    """cats-stm, STMSpec: unblock all transactions. Two wait for two variables, which one transaction sets."""
    one, other = TVar(0), TVar(0)

    @atomically
    def wait(variable):
        value = variable.get()
        check(value == 1)
        variable.set(2)
        return value

    waiting = [Background(wait, one), Background(wait, other)]
    asleep(2)
    run(lambda: (one.set(1), other.set(1)))
    assert [each.result() for each in waiting] == [1, 1]
    assert snapshot(one, other) == (2, 2)


def test_two_loops_that_enable_each_other():
    """cats-stm, STMSpec: loop retry and completion."""
    x = TVar(0)

    @atomically
    def turn(expected, new):
        check(x.get() == expected)
        x.set(new)

    together(lambda: [turn(0, 1) for _ in range(50)], lambda: [turn(1, 0) for _ in range(50)])
    assert x.get() == 0


# ------------------------------------------------------------------------------ structures


def test_variable():
    """cats-stm, TVarSpec: get returns, set and modify change the current value; TLogSpec: get, modify, commit."""
    x = TVar("hello")
    assert run(lambda: (x.get(), x.set("world"), x.get(), x.update(str.upper), x.get())) == (
        "hello",
        None,
        "world",
        "WORLD",
        "WORLD",
    )
    assert x.get() == "WORLD"


def test_place_for_a_value():
    """cats-stm, TMVarSpec: read, take, put, tryPut and isEmpty, of a full place and of an empty one."""

    @atomically
    def body():
        full, empty = TMVar("hello"), TMVar()
        assert (full.read(), full.read(), full.is_empty()) == ("hello", "hello", False)
        assert (full.try_put("other"), full.take(), full.is_empty()) == (False, "hello", True)
        assert (empty.is_empty(), empty.try_put("world")) == (True, True)
        full.put(empty.take())
        return full.take(), empty.is_empty()

    assert body() == ("world", True)


def test_queue():
    """cats-stm, TQueueSpec: read removes, peek does not; first in, first out."""
    queue = TQueue()
    run(lambda: (queue.put("hello"), queue.put("world")))
    assert run(lambda: (queue.peek(), queue.get(), queue.empty())) == ("hello", "hello", False)
    assert run(lambda: (queue.get(), queue.empty())) == ("world", True)


def test_semaphore():
    """cats-stm, TSemaphoreSpec: acquire decrements, release increments the number of permits."""
    one, none = TSemaphore(1), TSemaphore(0)
    assert run(lambda: (one.acquire(), one.value)) == (True, 0)
    assert run(lambda: (none.release(), none.value)) == (None, 1)


def test_promise_unblocks_whoever_waits():
    """cats-stm, TDeferredSpec: complete unblocks getters, together with what else is done in that transaction."""
    promise, done, seen = TPromise(), TVar(0), [TVar(0), TVar(0)]

    def wait(variable):
        variable.set(promise.result())
        return done.get()

    waiting = [Background(run, wait, variable) for variable in seen]
    asleep(2)
    run(lambda: (promise.set_result(42), done.set(1)))
    assert [one.result() for one in waiting] == [1, 1]
    assert snapshot(*seen) == (42, 42)


def test_promise_is_completed_once():
    """cats-stm, TDeferredSpec: can only be completed once. Of two at the same time one does, and its value is got."""
    for _ in range(20):
        promise = TPromise()

        def complete(value, promise=promise):
            try:
                promise.set_result(value)
            except InvalidStateError:
                return False
            return True

        waiting = Background(promise.result)
        first, second = together(lambda: complete(42), lambda: complete(33))
        assert first ^ second
        assert waiting.result() == (42 if first else 33)
        until(promise.done)
