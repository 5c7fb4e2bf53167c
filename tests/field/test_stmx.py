"""stmx's tests, answered, first part: logs and conflicts, alternatives and waiting with cells.

Where its tests reach into a transaction's log, to see whether that is still valid, ours see whether the body runs
again. Its `tcell` is our `TMVar`, its `nonblocking` an alternative that returns nothing.
"""

import pytest

from stm import TMVar, TVar, atomically, check, or_else, run
from stm.clock import clock
from tests.support import Background, Once, asleep, elsewhere, together, until


class Failed(Exception):
    pass


# ---- logs and conflicts


def test_a_write_is_in_the_log_until_the_commit():
    """stmx, atomic.lisp: tx-read-of, commit, $, atomic. Inside, the new value; in the variable, the old one; after the
    commit, the new one for all.
    """
    x = TVar(1)

    @atomically
    def body():
        before = x.value
        x.value = 2
        return before, x.value, x.peek(), elsewhere(x.get)

    assert body() == (1, 2, 1, 1)
    assert x.value == x.peek() == 2


def test_an_error_rolls_back():
    """stmx, atomic.lisp: rollback. And it is the error of the body that the caller gets."""
    x = TVar(1)

    @atomically
    def body():
        x.value = 2
        raise Failed("to cause a rollback")

    with pytest.raises(Failed, match="to cause a rollback"):
        body()
    assert x.value == 1


def test_a_return_from_the_middle_commits():
    """stmx, atomic.lisp: transaction-return-from. Wherever the function returns."""
    x = TVar(1)

    @atomically
    def body(value, early):
        for _ in range(3):
            x.value = value
            if early:
                return value
        return x.value

    assert [body(2, False), x.value, body(3, True), x.value] == [2, 2, 3, 3]


def test_a_conflicting_write_makes_it_run_again():
    """stmx, conflict.lisp: conflict; atomic.lisp: invalid. What counts is what the other one wrote."""
    x, first, attempts = TVar(5), Once(), []

    @atomically
    def body():
        attempts.append(x.value)
        x.value += 1
        if first:
            elsewhere(x.set, 10)

    body()
    assert attempts == [5, 10]
    assert x.value == 11


def test_a_write_of_ones_own_is_seen_and_makes_nothing_valid_again():
    """stmx, conflict.lisp: conflict-1; atomic.lisp: valid?, atomic-invalid-1. After another's change one still sees
    one's own write; to write what the other wrote does not help; nor does it help if the old value comes back.
    """
    x, first, seen = TVar(0), Once(), []

    @atomically
    def body():
        seen.append(x.value)
        x.value = 1
        if first:
            elsewhere(x.set, -1)
            seen.append(x.value)
            x.value = x.peek()
            elsewhere(x.set, 0)
        x.value += 2

    body()
    assert seen == [0, 1, 0]
    assert x.value == 3


def test_an_inconsistent_read_is_noticed_where_it_happens():
    """stmx, conflict.lisp: conflict-2; atomic.lisp: atomic-invalid-2. Two variables are kept equal. Who has changed the
    first when both change sees its own value, and never the second one's.
    """
    a, b, first, seen = TVar(0), TVar(0), Once(), []

    def both():
        a.value = b.value = 2

    @atomically
    def body():
        a.value += 1
        if first:
            elsewhere(run, both)
            seen.append(a.value)
        b.value += 1
        seen.append(b.value)

    body()
    assert seen == [1, 3]
    assert (a.value, b.value) == (3, 3)


def test_who_meets_a_lock_waits_for_it_and_sees_what_its_holder_did():
    """stmx, conflict.lisp: conflict-locked. Another thread holds the variable when the transaction wants to commit.
    There, a read meets the lock and starts over; here reads go on, and the commit waits.
    """
    a, b, commits, attempts = TVar(0), TVar(0), [], []

    @atomically
    def body():
        attempts.append(b.value)
        a.value = b.value + 1

    @atomically(irrevocable=True)
    def hold():
        commits.append(Background(body))
        until(lambda: attempts)
        b.value = 7

    hold()
    commits[0].result()
    assert attempts == [0, 7]
    assert a.value == 8


def test_a_change_that_comes_before_the_sleep_is_not_slept_through():
    """stmx, BUGS: 1. Another commits after the last read, and wakes nobody since nobody sleeps yet."""
    x, y, first, attempts = TVar(0), TVar(0), Once(), []

    @atomically
    def body():
        attempts.append((x.value, y.value))
        if first:
            elsewhere(y.set, 1)
        check(attempts[-1] == (0, 1))

    body()
    assert attempts == [(0, 0), (0, 1)]


def test_an_error_that_stale_reads_caused_is_not_the_callers():
    """stmx, BUGS: 3. Whether the reads still stand is decided at one moment, not in the midst of another's commit: so
    the caller never hears of an error that no state explains which still stands.
    """
    a, b, first, attempts = TVar(0), TVar(0), Once(), []

    def both():
        a.value = b.value = 1

    @atomically
    def body():
        attempts.append((a.value, b.value))
        if first:
            elsewhere(run, both)
        if attempts[-1] == (0, 0):
            raise Failed
        return attempts[-1]

    assert body() == (1, 1)
    assert attempts == [(0, 0), (1, 1)]


def test_a_variable_that_never_changes_keeps_no_waiters():
    """stmx, BUGS: 2. Whoever was woken by one variable is taken off the lists of the others, too."""
    never, often = TVar(0), TVar(0)

    @atomically
    def wait(number):
        check(never.value or often.value == number)

    for number in range(1, 100):
        waiting = Background(wait, number)
        asleep()
        often.set(number)
        waiting.result()
    assert not never._waiters
    assert not clock.sleepers


# ---- alternatives


TAKES = {
    "or_else": lambda cell: or_else(lambda: (True, cell.take()), lambda: (False, None)),
    "nested": lambda cell: or_else(lambda: (True, run(cell.take)), lambda: (False, None)),
    "try": lambda cell: (not cell.is_empty(), cell.try_take()),
}
PUTS = {
    "or_else": lambda cell, value: or_else(lambda: cell.put(value) is None, lambda: False),
    "nested": lambda cell, value: or_else(lambda: run(cell.put, value) is None, lambda: False),
    "try": lambda cell, value: cell.try_put(value),
}


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("take", TAKES.values(), ids=TAKES)
@pytest.mark.parametrize("put", PUTS.values(), ids=PUTS)
def test_take_and_put_that_do_not_wait(take, put, at_once):
    """stmx, orelse.lisp: orelse, orelse-atomic. Three ways to say it mean the same: each step a transaction, and all of
    them one.
    """
    cell, mark = TMVar(), object()

    def steps(step):
        return [
            (step(take, cell), cell.is_empty()),
            (step(put, cell, mark), cell.is_empty()),
            (step(put, cell, mark), cell.is_empty()),
            (step(take, cell), cell.is_empty()),
        ]

    expected = [((False, None), True), (True, False), (False, False), ((True, mark), True)]
    assert (run(steps, lambda fn, *args: fn(*args)) if at_once else steps(run)) == expected


def test_four_threads_pass_a_ball_through_four_cells():
    """stmx, orelse.lisp: orelse-thread4. Two take from the third or else the fourth cell, add one, and put into the
    first or else the second; two the other way. Every value goes round, and the sum tells how often.
    """
    cells, rounds = [TMVar() for _ in range(4)], 150

    @atomically
    def take(one, other):
        return or_else(one.take, other.take)

    @atomically
    def put(one, other, value):
        or_else(lambda: one.put(value), lambda: other.put(value))

    def player(sources, targets):
        for _ in range(rounds):
            put(*targets, take(*sources) + 1)

    @atomically
    def fill():
        for number, cell in enumerate(cells):
            cell.put(number / 4)

    there, back = (cells[2:], cells[:2]), (cells[:2], cells[2:])
    players = [Background(player, *way) for way in (there, there, back, back)]
    asleep(4)
    fill()
    for one in players:
        one.result()
    values = run(lambda: [cell.take() for cell in cells])
    assert sorted(value % 1 for value in values) == [0, 0.25, 0.5, 0.75]
    assert sum(values) == 1.5 + 4 * rounds


# ---- waiting


@pytest.mark.parametrize("at_once", [False, True])
def test_a_cell(at_once):
    """stmx, retry.lisp: cell, cell-atomic. Full, emptied, put into, taken from."""

    def steps():
        cell = TMVar(1)
        states = [cell.is_empty(), cell.try_take(), cell.is_empty()]
        cell.put(2)
        return [*states, cell.is_empty(), cell.take(), cell.is_empty()]

    assert (run(steps) if at_once else steps()) == [False, 1, True, False, 2, True]


@pytest.mark.parametrize("tokens", [1, 2])
def test_four_threads_hand_tokens_over(tokens):
    """stmx, retry.lisp: retry-thread4. Two carry from left to right and add one, two carry back; with one token, and
    with two, so that all places may be full.
    """
    left, right, rounds = TMVar(), TMVar(), 150

    def carry(source, target, plus):
        value = None
        for _ in range(rounds):
            value = source.take() + plus
            target.put(value)
        return value

    def begin():
        right.put(0.5)
        if tokens == 2:
            left.put(0)

    *last, _ = together(*[lambda: carry(right, left, 0)] * 2, *[lambda: carry(left, right, 1)] * 2, lambda: run(begin))
    ends = [cell.try_take(0) for cell in (left, right)]
    assert sum(ends) == 0.5 + 2 * rounds
    assert max(last) == max(ends)
