"""concurrent-ruby's `tvar_spec`, answered.

What Ruby calls an abort (start over, at once) has no counterpart: a transaction starts over if something that it read
has changed, or waits by `retry`. Where a case aborts, ours is disturbed.
"""

import threading

import pytest

from stm import TransactionRequired, TVar, atomically, check, retry, run
from tests.support import Background, Once, elsewhere


def test_a_variable_has_a_value():
    """concurrent-ruby, tvar_spec: #initialize, #value, #value=."""
    x = TVar(14)
    assert x.value == 14
    x.value = 2
    assert x.value == 2


def test_atomically_wants_something_to_run():
    """concurrent-ruby, tvar_spec: raises an exception when no block given. At once, not at the first call."""
    for nothing in (None, 14, "block"):
        with pytest.raises(TypeError):
            run(nothing)
    with pytest.raises(TypeError):
        atomically(14)


def test_the_exception_that_was_raised_is_the_one_that_arrives():
    """concurrent-ruby, tvar_spec: raises the same exception that was raised. The very object."""
    error = RuntimeError("This is an error!")

    @atomically
    def body():
        raise error

    with pytest.raises(RuntimeError) as caught:
        body()
    assert caught.value is error


def test_what_was_written_before_starting_over_is_not_there():
    """concurrent-ruby, tvar_spec: retries on abort, undoes writes if the transaction is aborted, provides atomicity.
    The second attempt goes another way, and of the first nothing remains.
    """
    x, y, disturbed, first, attempts = TVar(0), TVar(0), TVar(0), Once(), []

    @atomically
    def body():
        attempts.append(disturbed.value)
        if first:
            x.value = 1
            elsewhere(disturbed.set, 1)
            y.value = 2 + disturbed.value

    body()
    assert attempts == [0, 1]
    assert (x.value, y.value) == (0, 0)


def test_writes_are_there_when_it_succeeds_and_for_nobody_before():
    """concurrent-ruby, tvar_spec: commits writes if the transaction succeeds, provides isolation. Another thread looks
    while the writer is in the middle.
    """
    x, written, looked = TVar(0), threading.Event(), threading.Event()

    @atomically
    def body():
        x.value = 1
        written.set()
        looked.wait(60)

    writer = Background(body)
    written.wait(60)
    assert x.value == 0
    looked.set()
    writer.result()
    assert x.value == 1


def test_transactions_nest():
    """concurrent-ruby, tvar_spec: nests. However deep."""
    x = TVar(0)

    def nested(depth):
        x.value += 1
        return run(nested, depth - 1) if depth else x.value

    assert run(nested, 50) == 51


def test_starting_over_needs_a_transaction():
    """concurrent-ruby, tvar_spec: #abort_transaction raises an exception outside an #atomically block."""
    for way in (retry, lambda: check(False)):
        with pytest.raises(TransactionRequired):
            way()
