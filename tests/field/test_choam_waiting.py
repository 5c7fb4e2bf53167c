"""choam's tests of its `stm` package, answered, second part: how alternatives and waiting go together, and what a
cancelled wait leaves behind. Its fibres are cancelled; here that is an asyncio task.
"""

import asyncio
from concurrent.futures import InvalidStateError

import pytest

from stm import BlockedForever, TPromise, TQueue, TVar, aio, atomically, check, or_else, retry, run
from stm.clock import clock
from tests.support import Background, Once, asleep, elsewhere, together


def positive(variable, result=None):
    check(variable.value > 0)
    return variable.value if result is None else result


def listeners(*variables):
    return [len(variable._waiters or ()) for variable in variables]


# ---- waiting


@pytest.mark.parametrize("which", [0, 1])
def test_a_change_in_any_alternative_wakes(which):
    """choam, TxnSpecTicked: "Txn.retry", "Txn.check", "Txn.retry should retry if a TRef read in any alt changes"."""
    variables = TVar(-1), TVar(-1)
    waiting = Background(run, or_else, *(lambda one=one: positive(one) for one in variables))
    asleep()
    variables[which].set(which + 1)
    assert waiting.result() == which + 1


def test_retry_with_nothing_read():
    """choam, TxnSpecTicked: "Txn.retry with no refs read". There it suspends until it is cancelled; here it is an error
    at once, also for a task.
    """
    for way in (lambda: run(retry), lambda: asyncio.run(aio.run(retry))):
        with pytest.raises(BlockedForever):
            way()


@pytest.mark.parametrize("end", ["cancelled", "completed"])
def test_however_a_wait_ends_no_variable_keeps_a_listener(end):
    """choam, TxnSpecTicked: "Txn.retry should be cancellable", "should unsubscribe from TRefs when cancelled" and "when
    completed". Not even those that never change.
    """
    before, left, right = TVar(0), TVar(0), TVar(0)

    def body():
        return before.value, or_else(lambda: positive(left), lambda: positive(right))

    async def main():
        task = asyncio.ensure_future(aio.run(body))
        while not clock.sleepers:
            await asyncio.sleep(0)
        assert listeners(before, left, right) == [1, 1, 1]
        if end == "completed":
            right.set(1)
            assert await task == (0, 1)
        else:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert listeners(before, left, right) == [0, 0, 0]

    asyncio.run(main())


def test_who_finds_a_change_before_it_sleeps_leaves_no_listener():
    """choam, TxnSpecTicked: "Txn.retry should unsubscribe from TRefs when it doesn't suspend". The variable changes
    between the two alternatives, both of which would have waited for it.
    """
    other, x, first, attempts = TVar(0), TVar(0), Once(), []

    def right():
        if first:
            elsewhere(x.set, 1)
        check(x.value < 0)

    @atomically
    def body():
        attempts.append(other.value)
        or_else(lambda: positive(x), right)

    body()
    assert len(attempts) == 2
    assert listeners(other, x) == [0, 0]


def test_after_a_change_the_alternatives_are_tried_from_the_first_on():
    """choam, TxnSpecTicked: "Run with Stepper". Each runs once, then all wait; after a change of the second variable,
    the first two run again, and the others do not.
    """
    variables, ran = [TVar(0) for _ in range(4)], []

    def alternative(number):
        ran.append(number)
        positive(variables[number])

    waiting = Background(run, or_else, *(lambda number=number: alternative(number) for number in range(4)))
    asleep()
    assert ran == [0, 1, 2, 3]
    variables[1].set(1)
    waiting.result()
    assert ran == [0, 1, 2, 3, 0, 1]


def test_one_of_a_thousand_alternatives():
    """choam, TxnSpec: "Txn.merge". The change of any of them ends the wait, and that one is what is taken."""
    variables = [TVar(0) for _ in range(1_000)]

    def take(number):
        check(variables[number].value)
        variables[number].value -= 1
        return number

    waiting = Background(run, or_else, *(lambda number=number: take(number) for number in range(1_000)))
    asleep()
    variables[777].set(1)
    assert waiting.result() == 777
    assert variables[777].value == 0


# ---- alternatives and conflicts


def test_a_conflict_in_the_left_alternative_is_no_reason_for_the_right_one():
    """choam, OrElseRetrySpec: "t1 transient failure -> retry t1", "t1 permanent failure -> try t2". The right one runs
    only if the left one has said `retry`.
    """
    x, y, first, right = TVar(0), TVar(0), Once(), []

    def left():
        x.value  # noqa: B018 - to have read it
        if first:
            elsewhere(run, lambda: (x.set(1), y.set(1)))
        return x.value, y.value

    assert run(or_else, left, lambda: right.append(1)) == (1, 1)
    assert right == []
    assert run(or_else, lambda: positive(TVar(0)), lambda: 2) == 2


def test_what_fails_after_the_left_alternative_is_no_reason_for_the_right_one():
    """choam, OrElseRetrySpec: "(t1 orElse t2) <* t3", t3's transient and permanent failure. The whole starts over, with
    the left alternative, and waits for what came after it.
    """
    x, left, right = TVar(0), [], []

    @atomically
    def body():
        result = or_else(lambda: left.append(1) or "left", lambda: right.append(1) or "right")
        positive(x)
        return result

    waiting = Background(body)
    asleep()
    x.set(1)
    assert waiting.result() == "left"
    assert (len(left), right) == (2, [])


@pytest.mark.parametrize("wanted", [lambda value: value < 0, lambda value: value > 0], ids=["negative", "positive"])
def test_both_alternatives_see_one_moment(wanted):
    """choam, OrElseRetrySpec: "t2 reads the same ref, but it changed since", "consistency of 2 sides of orElse". The
    right alternative never sees the new value; the whole does not sleep, it starts over, and the left one goes through.
    """
    x, first, seen = TVar(0), Once(), []

    def right():
        if first:
            elsewhere(x.set, 1)
        seen.append(x.value)
        check(wanted(x.value))
        return 2

    assert run(or_else, lambda: positive(x, 1), right) == 1
    assert seen == []


# ---- promises and queues


@pytest.mark.parametrize("side", ["alone", "left", "right"])
@pytest.mark.parametrize("cancelling", [False, True])
def test_one_of_many_completes_a_promise_and_all_who_wait_get_that(side, cancelling):
    """choam, TPromiseSpec: "get before complete", "complete/cancel race", "complete left side of orElse", "right side".
    A hundred wait, some are cancelled just then, and eight want to complete it.
    """
    one, other = (TPromise(), TPromise())
    promise = other if side == "right" else one
    body = one.result if side == "alone" else lambda: or_else(one.result, other.result)

    def complete(number):
        try:
            promise.set_result(number)
        except InvalidStateError:
            return None
        return number

    async def main():
        tasks = [asyncio.ensure_future(aio.run(body)) for _ in range(100)]
        while len(clock.sleepers) < 100:
            await asyncio.sleep(0)
        completing = asyncio.to_thread(together, *(lambda number=number: complete(number) for number in range(8)))
        race = asyncio.ensure_future(completing)
        await asyncio.sleep(0)
        for task in tasks[::2] if cancelling else ():
            task.cancel()
        (winner,) = [number for number in await race if number is not None]
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert set(outcomes[1::2]) == {winner}
        assert all(one == winner or (cancelling and isinstance(one, asyncio.CancelledError)) for one in outcomes)
        assert promise.result() == winner

    asyncio.run(main())
    assert one.done() + other.done() == 1


@pytest.mark.parametrize("cancelling", ["nobody", "before", "at the same time"])
def test_a_cancelled_taker_takes_nothing(cancelling):
    """choam, TQueueSpecTicked: "TQueue", "TQueue cancel take", "TQueue cancel take + put race". Two wait; whoever was
    cancelled has not got an item, and the other one has.
    """
    queue = TQueue()

    async def main():
        takers = [asyncio.ensure_future(aio.run(queue.get)) for _ in range(2)]
        while len(clock.sleepers) < 2:
            await asyncio.sleep(0)
        if cancelling == "at the same time":
            putting = asyncio.ensure_future(asyncio.to_thread(queue.put, 1))
        if cancelling != "nobody":
            await asyncio.sleep(0)
            takers[0].cancel()
        if cancelling == "at the same time":
            await putting
        else:
            await aio.run(queue.put, 1)
        await aio.run(queue.put, 2)
        got = await asyncio.gather(*takers, return_exceptions=True)
        await aio.run(lambda: (queue.put(3), queue.put(4)))
        return [item for item in got if not isinstance(item, asyncio.CancelledError)], await aio.run(queue.get_many, 9)

    got, left = asyncio.run(main())
    assert sorted(got) + left == [1, 2, 3, 4]
    assert len(got) == 2 or cancelling != "nobody"
    assert queue.empty()
