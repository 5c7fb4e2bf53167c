"""Cases of ZIO, `core-tests/.../zio/stm/ZSTMSpec.scala`, of waiting: suspension, interruption, alternatives."""

import asyncio

import pytest

from stm import (
    BlockedForever,
    TQueue,
    TVar,
    aio,
    atomically,
    check,
    or_else,
    retry,
    run,
    snapshot,
)
from tests.support import Background, asleep, until


class Oops(Exception):
    """What a body fails with."""


def fail(error=Oops):
    raise error


@atomically
def transfer(receiver, sender, amount):
    check(sender.get() >= amount)
    receiver.value += amount
    sender.value -= amount
    return receiver.get()


# ------------------------------------------------------------------------------ nothing to wait for


def test_retry_with_nothing_read_is_an_error():
    """ZIO, ZSTMSpec: alternative, with a retry on both sides. There that suspends for ever; here it is an error."""
    with pytest.raises(BlockedForever):
        run(lambda: or_else(retry, retry))


# ------------------------------------------------------------------------------ interruption


def test_a_cancelled_task_does_not_run_its_transaction_any_more():
    """ZIO, ZSTMSpec: interrupt the fiber should terminate the transaction. What it awaited comes, and nobody acts."""
    x = TVar(0)

    def divide():
        check(x.get() > 0)
        x.update(lambda n: 10 // n)

    async def main():
        tasks = [asyncio.ensure_future(aio.run(divide)) for _ in range(100)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        x.set(10)
        await asyncio.sleep(0)
        return ends, x.get()

    ends, value = asyncio.run(main())
    assert {type(end) for end in ends} == {asyncio.CancelledError}
    assert value == 10


def test_a_cancelled_task_says_that_it_was_cancelled():
    """ZIO, ZSTMSpec: interrupt the fiber and observe it. Others that wait for the same variable still wake."""
    x = TVar(1)

    async def main():
        one, other = (asyncio.ensure_future(aio.run(lambda: check(x.get() == 0))) for _ in range(2))
        await asyncio.sleep(0)
        one.cancel()
        with pytest.raises(asyncio.CancelledError):
            await one
        x.set(0)
        return await other

    assert asyncio.run(main()) is None


# ------------------------------------------------------------------------------ suspension


def test_a_condition_that_holds_does_not_suspend():
    """ZIO, ZSTMSpec: a simple condition lock should resume directly when the condition is already satisfied."""
    x, y = TVar(10), TVar("Failed!")

    @atomically(timeout=0)
    def body():
        check(x.get() > 0)
        y.set("Succeeded!")
        return y.get()

    assert body() == "Succeeded!"
    x.set(-1)  # what comes later is no concern of a transaction that has ended
    assert y.get() == "Succeeded!"


def test_a_condition_that_comes_true_resumes():
    """ZIO, ZSTMSpec: a simple condition lock should resume after satisfying the condition; not before."""
    x, y, looked = TVar(0), TVar("Failed!"), []

    @atomically
    def body():
        looked.append(x.get())
        check(x.get() > 42)
        y.set("Succeeded!")
        return y.get()

    waiting = Background(body)
    asleep()
    x.set(42)
    until(lambda: looked[-1] == 42)
    asleep()
    assert y.get() == "Failed!"
    x.set(43)
    assert waiting.result() == "Succeeded!"
    assert y.get() == "Succeeded!"


def test_a_transfer_waits_for_cover_and_others_see_it_done():
    """ZIO, ZSTMSpec: a complex condition lock. One awaits the money, another awaits what is left after it."""
    sender, receiver = TVar(100), TVar(0)
    moving = Background(transfer, receiver, sender, 150)
    asleep()
    seeing = Background(run, lambda: (check(sender.get() == 50), receiver.get())[1])
    asleep(2)
    sender.update(lambda n: n + 100)
    assert moving.result() == 150
    assert seeing.result() == 150
    assert snapshot(sender, receiver) == (50, 150)


@pytest.mark.parametrize("plan", ["one after the other", "side by side", "ten times each"])
def test_money_goes_to_and_fro(plan):
    """ZIO, ZSTMSpec: transfer an amount to a sender and send it back, in three arrangements of ten and ten."""
    sender, receiver = TVar(50), TVar(0)
    there = lambda: transfer(receiver, sender, 100)  # noqa: E731
    back = lambda: transfer(sender, receiver, 100)  # noqa: E731
    if plan == "one after the other":
        works = [lambda: (there(), back())] * 10
    elif plan == "side by side":
        works = [there] * 10 + [back] * 10
    else:
        works = [lambda: [there() for _ in range(10)], lambda: [back() for _ in range(10)]]
    working = [Background(work) for work in works]
    sender.update(lambda n: n + 50)
    for one in working:
        one.result()
    assert snapshot(sender, receiver) == (100, 0)


def test_twenty_one_take_turns():
    """ZIO, ZSTMSpec: one variable for 20 fibers, each of which waits for its own number and counts on."""
    x = TVar(0)

    @atomically
    def mine(i):
        check(x.get() == i)
        x.value += 1

    waiting = [Background(mine, i) for i in reversed(range(1, 21))]
    asleep(20)
    mine(0)
    for one in waiting:
        one.result()
    assert x.get() == 21


# ------------------------------------------------------------------------------ alternatives


ALTERNATIVES = {
    "the left if it succeeds": (lambda: "left", lambda: "right", "left"),
    "the right if the left retries": (retry, lambda: "right", "right"),
    "the failure of the left": (fail, lambda: "right", Oops),
    "the failure of the right after a retry": (retry, fail, Oops),
    "the left, whatever is on the right": (lambda: 2, retry, 2),
}


@pytest.mark.parametrize("case", ALTERNATIVES)
def test_alternatives(case):
    """ZIO, ZSTMSpec: alternative, orElseEither. Only what retries has an alternative; a failure is a result."""
    left, right, expected = ALTERNATIVES[case]
    if expected is Oops:
        with pytest.raises(Oops):
            run(or_else, left, right)
    else:
        assert run(or_else, left, right) == expected


def test_the_right_side_starts_where_the_left_did():
    """ZIO, ZSTMSpec: orElse must rollback left retry; tries alternative once left retries."""
    x = TVar(0)
    run(or_else, lambda: (x.update(lambda n: n + 100), retry()), lambda: x.update(lambda n: n + 200))
    assert x.get() == 200


def test_the_left_side_is_tried_again_after_the_right_retried_too():
    """ZIO, ZSTMSpec: alternative retries left after right retries. What the left read wakes, though it came first."""
    ref, lefts = TVar(0), []

    def left():
        lefts.append(ref.get())
        check(ref.get() > 500)
        return "left"

    waiting = Background(run, or_else, left, retry)
    for value in (250, 501):
        asleep()
        ref.set(value)
        until(lambda value=value: lefts[-1] == value)
    assert waiting.result() == "left"


def test_a_default_for_what_would_wait():
    """ZIO, ZSTMSpec: orElseSucceed, orElseFail; tells "not now" at once, by a value or by an error of one's choice."""
    queue = TQueue()
    assert run(or_else, queue.get, lambda: "nothing") == "nothing"
    with pytest.raises(Oops):
        run(or_else, queue.get, fail)
    queue.put("item")
    assert run(or_else, queue.get, lambda: "nothing") == "item"
