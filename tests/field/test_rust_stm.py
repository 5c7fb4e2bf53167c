"""The tests of rust-stm and of async-stm (Rust), answered.

There, a transaction is a function that returns a result, and what retries is a value that has to be handed on; here it
calls `retry`, which leaves the function. What async-stm awaits, ours awaits with `stm.aio`.
"""

import pytest

from stm import (
    BlockedForever,
    TChannel,
    TPriorityQueue,
    TQueue,
    TransactionTimeout,
    TVar,
    atomically,
    check,
    or_else,
    retry,
    run,
)
from tests.support import Background, Once, asleep, elsewhere


def optionally(body):
    """What `body()` returns, or None if it retries."""
    return or_else(body, lambda: None)


def value_or_retry(value):
    check(value is not None)
    return value


# ---- rust-stm: transactions


def test_a_transaction_returns_what_its_body_returns():
    """rust-stm, transaction: transaction_simple, transaction_read, transaction_copy, transaction_control_stuff."""
    source, target = TVar(42), TVar(0)
    assert run(lambda: 42) == 42
    assert run(source.get) == 42
    run(lambda: target.set(source.value))
    assert target.value == 42


def test_a_write_is_read_back_and_the_variable_keeps_its_value_until_the_commit():
    """rust-stm, transaction: read, write_read, transaction_write. With a value that is a sequence."""
    x = TVar((1, 2))

    @atomically
    def body():
        x.value = (1, 2, 3, 4)
        return x.value, x.peek()

    assert body() == ((1, 2, 3, 4), (1, 2))
    assert x.value == (1, 2, 3, 4)


def test_reading_outside_a_transaction():
    """rust-stm, tvar: test_read_atomic. As async-stm's read_outside_atomically and write_outside_atomically, which
    panic; here it is a transaction of its own.
    """
    x = TVar(42)
    assert x.value == 42
    x.value = 43
    assert x.get() == x.peek() == 43


def test_modify_replace_and_being_the_same():
    """rust-stm, tvar: modify, replace, ref_eq, Debug."""
    x, y = TVar(21), TVar(21)
    assert run(x.update, lambda value: value * 2) == 42
    assert run(x.swap, 0) == 42
    assert x.value == 0
    assert (x == x, x == y, len({x, y})) == (True, False, 2)
    assert repr(x) == "<TVar 0>"


def test_an_endless_retry():
    """rust-stm, lib: infinite_retry. There it never ends; here it is an error, since nothing was read."""
    with pytest.raises(BlockedForever):
        run(retry)


@pytest.mark.parametrize("tries", ["a single run", "a retry"])
def test_a_transaction_that_may_not_wait(tries):
    """rust-stm, transaction: transaction_with_control_abort_on_single_run, ..._on_retry. It may try once."""
    x = TVar(42)

    @atomically(timeout=0)
    def body():
        check(x.value and tries == "a single run")
        return x.value

    if tries == "a single run":
        assert body() == 42
    else:
        with pytest.raises(TransactionTimeout):
            body()


def test_a_transaction_in_a_transaction():
    """rust-stm, lib: stm_nested; transaction: transaction_nested_fail. There, an inner one panics; here it joins."""
    x = TVar(0)

    @atomically
    def inner():
        x.value = 42
        return x.value

    assert run(lambda: (inner(), x.value, x.peek())) == (42, 42, 0)
    assert x.value == 42


def test_who_waits_for_something_else_than_zero():
    """rust-stm, lib: threaded."""
    x = TVar(0)
    waiting = Background(run, lambda: value_or_retry(x.value or None))
    asleep()
    run(x.set, 42)
    assert waiting.result() == 42


def test_it_runs_again_when_the_variable_changes_meanwhile():
    """rust-stm, lib: read_write_interfere."""
    x, first = TVar(0), Once()

    @atomically
    def body():
        value = x.value
        if first:
            elsewhere(x.set, 32)
        x.value = value + 10

    body()
    assert x.value == 42


# ---- rust-stm: alternatives


@pytest.mark.parametrize("shape", ["simple", "nocommit", "nested first", "nested second"])
def test_alternatives(shape):
    """rust-stm, lib: or_simple, or_nocommit, or_nested_first, or_nested_second. What the first wrote is not there; and
    where alternatives are themselves of alternatives, the first of all that need not retry is taken.
    """
    x = TVar(42)

    def write_and_retry():
        x.value = 23
        retry()

    alternatives = {
        "simple": (retry, x.get),
        "nocommit": (write_and_retry, x.get),
        "nested first": (lambda: or_else(retry, write_and_retry), x.get),
        "nested second": (retry, lambda: or_else(x.get, retry)),
    }
    assert run(or_else, *alternatives[shape]) == 42
    assert x.value == 42


@pytest.mark.parametrize("there", [True, False])
def test_what_may_be_missing(there):
    """rust-stm, lib: unwrap_some, unwrap_none, guard_true, guard_false, optionally_succeed, optionally_fail."""
    value = 42 if there else None
    assert run(optionally, lambda: value_or_retry(value)) == value
    assert run(optionally, lambda: check(there) or "passed") == ("passed" if there else None)


# ---- queues, of both


def channel():
    made = TChannel()
    reader = made.subscribe()
    return made.publish, reader.get, reader.empty


def queue(kind, *args):
    made = kind(*args)
    return made.put, made.get, made.empty


class TwoLists:
    """A queue of two tuples, one to write to, one to read from."""

    def __init__(self):
        self.back, self.front = TVar(()), TVar(())

    def put(self, item):
        self.back.value += (item,)

    def get(self):
        if not self.front.value:
            check(self.back.value)
            self.front.value, self.back.value = self.back.value, ()
        first, *rest = self.front.value
        self.front.value = tuple(rest)
        return first

    def empty(self):
        return not (self.back.value or self.front.value)


KINDS = {
    "TQueue": lambda: queue(TQueue),
    "bounded": lambda: queue(TQueue, 1_000_000),
    "TPriorityQueue": lambda: queue(TPriorityQueue),
    "TChannel": channel,
    "two lists": lambda: queue(TwoLists),
}
each_kind = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)


@each_kind
def test_two_written_are_read_back_in_one_transaction(make):
    """rust-stm, queues: write_and_read_back, for tqueue, tbqueue, tchan, tvecdequeue; async-stm, queues likewise."""
    put, get, _ = make()
    assert run(lambda: (put(31), put(42), get(), get())) == (None, None, 31, 42)


@each_kind
def test_who_reads_is_woken_by_who_writes(make):
    """rust-stm, queues: threaded, for each of the four; async-stm, queues likewise."""
    put, get, _ = make()
    reading = Background(run, get)
    asleep()
    run(put, 42)
    assert reading.result() == 42


@each_kind
def test_empty_or_not(make):
    """async-stm, queues: is_empty, non_empty. Also in the transaction that puts, which may still fail."""
    put, get, empty = make()
    assert run(empty)
    assert run(optionally, lambda: (put(1), empty(), retry())) is None
    assert run(empty)
    assert run(lambda: (put(42), empty())) == (None, False)
    assert not run(empty)
    assert (run(get), run(empty)) == (42, True)


def test_a_full_queue_makes_wait_and_two_items_never_fit():
    """rust-stm, tbqueue: threaded_bounded_blocks, threaded_bounded_unblocks. One transaction that puts two where
    one has room waits for ever (here: until its time is up); two transactions go on when somebody takes.
    """
    made = TQueue(1)
    with pytest.raises(TransactionTimeout):
        run(lambda: (made.put(1), made.put(2)), timeout=0.01)
    assert made.empty()
    putting = Background(lambda: [made.put(number) for number in (1, 2)])
    asleep()
    assert run(optionally, made.get) == 1
    putting.result()
    assert made.get() == 2
