"""Cases of ScalaSTM's `CallbackSuite`, `TxnLocalSuite` and `BypassViewSuite` (nbronson/scala-stm): callbacks.

Each docstring names the suite and the case; docs/field/scala-stm.md lists them all, and those that have no counterpart.
ScalaSTM's `afterCommit` and `afterRollback` are `on_commit` and `on_rollback`; it has callbacks before and during the
commit besides, which this library has not: what is to happen then belongs into the body.
"""

import threading
from operator import add

import pytest

from stm import (
    TMap,
    TQueue,
    TransactionRequired,
    TransactionTimeout,
    TVar,
    TVector,
    atomically,
    check,
    detached,
    in_transaction,
    on_commit,
    on_rollback,
    or_else,
    retry,
    run,
)
from tests.support import Background, Once, asleep, elsewhere, together


class Boom(Exception):
    pass


class Bang(Exception):
    pass


def fail(error=Boom):
    raise error


# ------------------------------------------------------------------------------------------ when they run


def test_very_many_callbacks():
    """scala-stm, CallbackSuite: many callbacks. In order, across nested scopes."""
    x, calls = TVar(0), []

    def body():
        x.set(1)
        for start in range(0, 10_000, 1000):
            run(lambda: [on_commit(calls.append, start + number) for number in range(1000)])

    run(body)
    assert calls == list(range(10_000))
    assert x.value == 1


@pytest.mark.parametrize("options", [{}, {"timeout": 30}, {"read_only": True}, {"irrevocable": True}])
def test_a_callback_of_a_transaction_that_touches_nothing(options):
    """scala-stm, CallbackSuite: whileCommitting, whileCommitting without any accesses. It counts as a commit all the
    same."""
    calls = []
    run(lambda: on_commit(calls.append, 1), **options)
    assert calls == [1]


def test_of_the_callbacks_those_of_the_branch_that_was_taken_survive():
    """scala-stm, CallbackSuite: surviving beforeCommit, nested external deciders. Alternatives within alternatives."""
    x, y, z = TVar(1), TVar(2), TVar(3)
    calls, discarded = [], []

    def note(name):
        on_commit(calls.append, name)
        on_rollback(discarded.append, name)

    def branch(name, variable):
        note(name)
        variable.update(add, 1)
        check(variable.value == 0)

    def last():
        note("bc")
        check(x.value + y.value + z.value)

    def a():
        note("a")
        or_else(lambda: branch("aa", x), lambda: branch("ab", y))
        z.update(add, 8)

    def b():
        note("b")
        or_else(lambda: branch("ba", z), lambda: branch("bb", x), last)
        z.update(add, 16)

    atomically(lambda: (note("outer"), or_else(a, b)))()
    assert calls == ["outer", "b", "bc"]
    assert discarded == []
    assert (x.value, y.value, z.value) == (1, 2, 19)


def test_rollback_callbacks_do_not_run_when_it_commits():
    """scala-stm, CallbackSuite: afterRollback on commit. Nor when a scope that registered one commits as a part."""
    run(lambda: (on_rollback(fail), run(on_rollback, fail)))


def test_rollback_callbacks_run_once_for_each_attempt_that_is_lost():
    """scala-stm, CallbackSuite: afterRollback on rollback, manual optimistic retry. Others put."""
    queue, calls, runs = TQueue(), [], []

    @atomically
    def body():
        runs.append(1)
        on_rollback(calls.append, len(runs))
        on_commit(calls.append, "commit")
        size = queue.qsize()
        if len(runs) < 5:
            elsewhere(queue.put, size)
        queue.put("mine")
        return size

    assert body() == 4
    assert calls == [1, 2, 3, 4, "commit"]
    assert queue.snapshot() == (0, 1, 2, 3, "mine")


def test_both_kinds_at_either_end():
    """scala-stm, TxnLocalSuite: auto-register afterCommit, afterRollback, afterCompletion - commit, - rollback."""
    calls = []

    def body(end):
        on_commit(calls.append, f"{end} committed")
        on_rollback(calls.append, f"{end} rolled back")
        end()
        return end

    run(body, int)
    with pytest.raises(Boom):
        run(body, fail)
    assert calls == [f"{int} committed", f"{fail} rolled back"]


# ----------------------------------------------------------------------------------- what they may do


def test_a_callback_runs_a_transaction_of_its_own():
    """scala-stm, CallbackSuite: afterCommit runs a txn. It sees what was committed, and may wait for others."""
    x, y = TVar(0), TVar(0)

    @atomically
    def follow_up():
        assert x.value == 1
        check(y.value)
        x.set(2)

    running = Background(run, lambda: (x.set(1), on_commit(follow_up)))
    asleep()
    assert x.value == 1
    y.set(1)
    running.result()
    assert x.value == 2


@pytest.mark.parametrize(
    "call", [retry, lambda: check(False), lambda: or_else(int), lambda: on_commit(int), lambda: on_rollback(int)]
)
@pytest.mark.parametrize("kind", ["commit", "rollback"])
def test_a_callback_is_in_no_transaction(kind, call):
    """scala-stm, CallbackSuite: afterCommit doesn't access txn. What needs one says so."""
    errors = []

    def callback():
        assert not in_transaction()
        try:
            call()
        except TransactionRequired as error:
            errors.append(error)

    def body():
        (on_commit if kind == "commit" else on_rollback)(callback)
        if kind == "rollback":
            fail()

    try:
        run(body)
    except Boom:
        pass
    assert len(errors) == 1


def test_callbacks_may_beget_callbacks_by_transactions_of_their_own():
    """scala-stm, CallbackSuite: beforeCommit during beforeCommit."""
    count = TVar(0)

    @atomically
    def again():
        if count.update(add, 1) < 100:
            on_commit(again)

    again()
    assert count.value == 100


def test_a_callback_of_a_callback_comes_before_the_next_one():
    """scala-stm, TxnLocalSuite: use in afterCompletion handler. Each is a whole, and the state is that of its time."""
    words = TVector()

    def body():
        on_commit(run, lambda: (words.append("first"), on_commit(words.append, "of the first")))
        on_commit(words.append, "second")
        words.append("body")

    run(body)
    assert list(words) == ["body", "first", "of the first", "second"]


def test_a_value_read_past_the_transaction_in_a_callback():
    """scala-stm, BypassViewSuite: bypassing read, bypass read during callbacks. Before the commit the old one."""
    x, seen = TVar(0), []

    def body():
        x.set(1)
        on_commit(lambda: seen.append(x.peek()))
        seen.append(x.peek())
        or_else(lambda: (x.set(2), seen.append(x.peek()), retry()), lambda: seen.append(x.get()))

    run(body)
    assert seen == [0, 0, 1, 1]


@pytest.mark.parametrize("write", [lambda x: x.set(2), lambda x: x.swap(2), lambda x: x.update(lambda _: 2)])
def test_a_write_past_the_transaction_is_no_deadlock(write):
    """scala-stm, BypassViewSuite: write deadlock avoided for set/for swap. It takes effect, and then is overwritten."""
    x, log = TVar(0), TVar(0)

    def body():
        x.set(1)
        detached(write, x)
        detached(log.update, add, 1)
        return x.peek()

    assert run(body) == 2
    assert (x.value, log.value) == (1, 1)


def test_a_swap_after_the_commit():
    """scala-stm, BypassViewSuite: after-commit swap."""
    x, old = TVar(0), []
    run(lambda: (x.set(1), on_commit(lambda: old.append(x.swap(2)))))
    assert (x.value, old) == (2, [1])


def test_a_counter_that_tells_the_order_of_commits_to_a_callback():
    """scala-stm, CallbackSuite: whileCommitting ordering. Callbacks come after the commit and may overtake one another;
    but each tells its number, and none is missing, and those of one thread are in order."""
    x, told = TVar(0), TQueue()

    def count(thread):
        for _ in range(150):
            run(lambda: on_commit(told.put, (thread, x.update(add, 1))))

    together(*(lambda thread=thread: count(thread) for thread in range(3)))
    numbers = told.get_many()
    assert sorted(number for _, number in numbers) == list(range(1, 451))
    for thread in range(3):
        mine = [number for who, number in numbers if who == thread]
        assert sorted(mine) == mine


# --------------------------------------------------------------------------------- when they themselves fail


def test_an_error_of_a_commit_callback_gets_out_and_the_commit_stands():
    """scala-stm, CallbackSuite: rethrown exception from afterCommit handler, and from whileCommitting handler."""
    x, calls = TMap(), []

    def body():
        x["key"] = 1
        on_commit(fail)
        run(lambda: on_commit(calls.append, "after"))

    with pytest.raises(Boom):
        run(body)
    assert (x["key"], calls) == (1, ["after"])


def test_an_error_of_a_commit_callback_is_the_callers_to_swallow():
    """scala-stm, CallbackSuite: swallowed exception from afterCommit/whileCommitting handler. In a callback, too."""
    x = TVar(0)
    inner = atomically(lambda: (x.set(2), on_commit(fail)))

    def callback():
        with pytest.raises(Boom):
            inner()

    run(lambda: (x.set(1), on_commit(callback)))
    assert x.value == 2


def test_an_error_of_a_rollback_callback_takes_the_place_of_the_bodys():
    """scala-stm, CallbackSuite: rethrown exception from afterRollback handler. The body's own is its context."""
    x = TVar(0)
    with pytest.raises(Boom) as caught:
        run(lambda: (on_rollback(fail), x.set(1), fail(Bang)))
    assert isinstance(caught.value.__context__, Bang)
    assert x.value == 0


def test_a_rollback_callback_that_handles_its_error_leaves_the_bodys():
    """scala-stm, CallbackSuite: swallowed exception from afterRollback handler."""
    x, swallowed = TVar(0), []

    def callback():
        try:
            fail()
        except Boom as error:
            swallowed.append(error)

    with pytest.raises(Bang):
        run(lambda: (on_rollback(callback), x.set(1), fail(Bang)))
    assert (x.value, len(swallowed)) == (0, 1)


def test_an_error_of_a_rollback_callback_ends_a_wait_before_it_begins():
    """scala-stm, CallbackSuite: rethrow afterRollback exception cancels retry."""
    x = TVar(0)
    with pytest.raises(Boom):
        run(lambda: (on_rollback(fail), check(x.value)))
    with pytest.raises(Boom):
        run(lambda: (on_rollback(fail), check(x.value)), timeout=30)
    assert x.value == 0


def test_an_error_of_a_rollback_callback_ends_the_repetition_after_a_conflict():
    """scala-stm, CallbackSuite: rethrow afterRollback exception cancels retry. So after a conflict."""
    x, first, runs = TVar(0), Once(), []

    def body():
        runs.append(1)
        on_rollback(fail)
        value = x.value
        if first:
            elsewhere(x.set, 5)
        x.set(value + 1)

    with pytest.raises(Boom):
        run(body)
    assert (x.value, len(runs)) == (5, 1)


def test_a_time_limit_runs_the_rollback_callbacks_of_each_attempt():
    """scala-stm, TxnLocalSuite: auto-register afterRollback. Here, the end is a time limit after a wait."""
    x, calls = TVar(0), []
    with pytest.raises(TransactionTimeout):
        run(lambda: (on_rollback(calls.append, threading.get_ident()), check(x.value)), timeout=0.01)
    assert set(calls) == {threading.get_ident()}
