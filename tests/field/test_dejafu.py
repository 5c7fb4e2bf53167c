"""Dejafu's test cases (Haskell), answered as far as they are about STM, and those of its examples that use variables
which block.

Dejafu runs a program under all schedules and compares the set of results. Where a case's results depend on the
schedule, ours makes each of them happen.
"""

import pytest

from stm import BlockedForever, TMVar, TQueue, TransactionTimeout, TVar, atomically, check, or_else, retry, run
from tests.support import Background, Once, asleep, elsewhere, together


def test_an_update_is_visible_later_in_the_transaction_and_in_later_ones():
    """dejafu, SingleThreaded stm: its new value is visible later in same transaction, in a later transaction."""
    made = run(lambda: [x := TVar(5), x.set(6), x.value])
    assert made[2] == 6
    assert run(made[0].get) == 6


def test_giving_up_blocks_unless_there_is_another_way():
    """dejafu, SingleThreaded stm: aborting a transaction blocks the thread; can be caught and recovered from."""
    x = TVar(5)
    with pytest.raises(BlockedForever):
        run(retry)
    run(or_else, retry, lambda: x.set(6))
    assert x.value == 6


@pytest.mark.parametrize("nested", [False, True])
def test_an_exception_can_be_caught_inside(nested):
    """dejafu, SingleThreaded stm: an exception thrown in a transaction can be caught; nested exception handlers work.
    The handler for it is found, past one for another kind, and what it writes is committed.
    """
    x = TVar(5)

    @atomically
    def throw():
        raise OverflowError

    @atomically
    def inner():
        try:
            throw()
        except IndexError:
            x.value = 0

    @atomically
    def body():
        try:
            inner() if nested else throw()
        except OverflowError:
            x.value = 6

    body()
    assert x.value == 6


def test_an_exception_can_be_caught_outside():
    """dejafu, SingleThreaded exceptions: exceptions thrown in a transaction can be caught outside it."""
    with pytest.raises(OverflowError):
        run(lambda: or_else(retry, lambda: (_ for _ in ()).throw(OverflowError)))


@pytest.mark.parametrize("when", ["before", "in the middle", "after"])
def test_transactions_are_atomic(when):
    """dejafu, MultiThreaded stm: transactions are atomic. Who looks sees the value before both writes, or after."""
    x, seen = TVar(0), []

    @atomically
    def twice():
        x.value = 1
        if when == "in the middle":
            seen.append(elsewhere(x.get))
        x.value = 2

    if when == "before":
        seen.append(x.value)
    twice()
    if when == "after":
        seen.append(x.value)
    assert seen == [2 if when == "after" else 0]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("written", ["before", "after"])
def test_retry_is_an_identity_of_or_else(side, written):
    """dejafu, MultiThreaded stm: 'retry' is the left identity of 'orElse', the right identity. Whether the value comes
    before the transaction or while it waits.
    """
    x = TVar(None)

    def read():
        check(x.value is not None)
        return x.value

    if written == "before":
        x.set("there")
    waiting = Background(run, or_else, *((retry, read) if side == "left" else (read, retry)))
    if written == "after":
        asleep()
        x.set("there")
    assert waiting.result() == "there"


@pytest.mark.parametrize("which", [0, 1])
def test_an_alternative_that_only_retries_forgets_no_other_one_s_reads(which):
    """dejafu, Regressions: issue 55. Two queues or else nothing: an item in either of them wakes."""
    queues = TQueue(), TQueue()
    waiting = Background(run, or_else, queues[0].get, queues[1].get, retry)
    asleep()
    queues[which].put(True)
    assert waiting.result() is True


def test_what_a_transaction_wrote_that_gave_up_is_never_seen():
    """dejafu, Regressions: issue 111. It writes twice and gives up; whoever reads then finds the value of before."""
    x, first = TVar(1), Once()

    @atomically
    def body():
        x.value += 1
        x.value += 1
        if first:
            retry()

    waiting = Background(body)
    asleep()
    assert x.value == 1
    x.set(1)
    waiting.result()
    assert x.value == 3


def test_taking_putting_and_reading_a_place():
    """dejafu, SingleThreaded mvar: twelve cases. Full or empty, waiting or not: what waits there, has a time limit
    here.
    """
    empty, full = TMVar(), TMVar(7)
    for wait in (empty.take, empty.read, lambda timeout: full.put(10, timeout)):
        with pytest.raises(TransactionTimeout):
            wait(timeout=0.01)
    assert (empty.try_take(), empty.try_read(), full.try_put(10)) == (None, None, False)
    assert (full.read(), full.try_read(), full.try_take(), full.is_empty()) == (7, 7, 7, True)
    full.put(7)
    assert (full.take(), empty.try_put(7), empty.read()) == (7, True, 7)


def test_two_places_taken_in_opposite_orders_do_not_deadlock():
    """dejafu, MultiThreaded mvar: racey MVar computations may deadlock. There they do, under some schedules. In one
    transaction each, they never do.
    """
    a, b, count = TMVar(), TMVar(), TVar(0)

    @atomically
    def locked(one, other, step):
        one.put(None)
        other.put(None)
        count.value += step
        other.take()
        one.take()

    together(
        lambda: [locked(a, b, 1) for _ in range(200)],
        lambda: [locked(b, a, -1) for _ in range(200)],
    )
    assert (count.value, a.is_empty(), b.is_empty()) == (0, True, True)


def test_compare_and_set_works_once():
    """dejafu, SingleThreaded and MultiThreaded cref: a ticket contains the value of its creation; compare-and-swap on
    an unmodified, a modified reference; a ticket is only good for one CAS.
    """
    x = TVar("5")
    ticket = x.get()
    assert x.compare_and_set(ticket, "6")
    assert (ticket, x.value) == ("5", "6")
    assert not x.compare_and_set(ticket, "7")
    assert x.value == "6"
    ticket = x.get()
    results = together(*(lambda value=value: x.compare_and_set(ticket, value) for value in ("8", "9")))
    assert sorted(results) == [False, True]
    assert x.value == ("8" if results[0] else "9")
