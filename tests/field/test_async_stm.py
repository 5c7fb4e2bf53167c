"""The tests of async-stm (Rust), answered: transactions that are awaited, and how they meet threads and errors.

Its queues are in `test_rust_stm.py`, together with those that they come from.
"""

import asyncio

import pytest

from stm import TVar, aio, atomically, check, on_commit, on_rollback, or_else, retry, run
from stm.clock import clock
from tests.support import Once, elsewhere


def test_basics():
    """async-stm, test: basics. Two variables are read, one of them changed, by a task."""
    x, y = TVar(1), TVar((1, 2, 3))

    @aio.atomically
    def body():
        values = x.value, y.value
        y.value += (4,)
        return values

    async def main():
        return await body(), await aio.run(y.get)

    assert asyncio.run(main()) == ((1, (1, 2, 3)), (1, 2, 3, 4))


def test_what_was_written_after_the_start_is_seen():
    """async-stm, test: conflict_if_written_after_start. There the transaction starts over; here it moves on to the
    later moment, since it has read nothing yet.
    """
    x, first, attempts = TVar(1), Once(), []

    def body():
        attempts.append(1)
        if first:
            elsewhere(x.set, 2)
        return x.value

    assert asyncio.run(aio.run(body)) == 2
    assert len(attempts) == 1


def test_what_was_read_before_the_write_is_no_conflict():
    """async-stm, test: no_confict_if_read_before_write. A long calculation with the old value may be returned."""
    x, attempts = TVar(1), []

    def body():
        attempts.append(1)
        value = x.value
        elsewhere(x.set, 2)
        return value

    assert asyncio.run(aio.run(body)) == 1
    assert len(attempts) == 1


def test_the_second_alternative_sees_what_came_before_and_not_the_first_one():
    """async-stm, test: or_retry_first_return_second."""
    x, y = TVar(1), TVar("Hello")

    def body():
        y.value = "World"

        def first():
            x.value = 2
            y.value = "?"
            retry()

        return or_else(first, lambda: (x.value, y.value))

    assert asyncio.run(aio.run(body)) == (1, "World")
    assert (x.value, y.value) == (1, "World")


def test_a_task_that_waits_is_notified():
    """async-stm, test: retry_wait_notify."""
    x = TVar(1)

    def greater_than_one():
        check(x.value > 1)
        return x.value

    async def main():
        waiting = asyncio.ensure_future(aio.run(greater_than_one))
        while not clock.sleepers:
            await asyncio.sleep(0)
        await aio.run(x.set, 2)
        return await waiting

    assert asyncio.run(main()) == 2


def test_a_variable_made_in_the_transaction():
    """async-stm, test: new_tvar_in_transaction. Is written and read there, and lives on."""

    def body():
        made = TVar(1)
        made.value = 2
        return made, made.value

    made, value = asyncio.run(aio.run(body))
    assert made.value == value == 2


def test_a_transaction_returned_from_a_transaction_runs_where_it_is_called():
    """async-stm, test: nested_atomically. It is not a part of the one that made it."""
    x = TVar(0)

    @atomically
    def body():
        x.value = 1
        return aio.atomically(lambda: x.set(2))

    async def main():
        later = body()
        seen = x.value
        await later()
        return seen, x.value

    assert asyncio.run(main()) == (1, 2)


def test_a_nested_abort_undoes_its_part_alone():
    """async-stm, test: nested_abort. Changes before, inside and after two parts, the first of which gives up."""
    x, seen = TVar(0), []

    def add():
        x.value += 1
        seen.append(x.value)

    def part(gives_up):
        def body():
            add()
            if gives_up:
                retry()

        or_else(body, lambda: None)
        seen.append(x.value)

    def whole():
        add()
        part(True)
        part(False)
        add()
        return x.value

    assert asyncio.run(aio.run(whole)) == x.value == 3
    assert seen == [1, 2, 1, 2, 2, 3]


def test_abort_with_an_error():
    """async-stm, test: abort_with_error. The first error ends it; nothing written is there."""
    x = TVar(0)

    def body():
        x.value = 1
        raise KeyError("first")

    async def main():
        with pytest.raises(KeyError, match="first"):
            await aio.run(body)

    asyncio.run(main())
    assert x.value == 0


@pytest.mark.parametrize("ends", ["by an error", "well", "after a wait"])
def test_what_goes_along_with_a_transaction_is_committed_or_rolled_back_with_it(ends):
    """async-stm, auxtx: aux_commit_rollback. A change to something that is not transactional is prepared in the body,
    done after the commit, and dropped with each attempt that is discarded.
    """
    x, store, dropped = TVar(42), {"counter": 1}, []

    def body():
        prepared = store["counter"] + x.value
        on_commit(store.update, counter=prepared)
        on_rollback(dropped.append, prepared)
        if ends == "by an error":
            raise KeyError
        check(ends == "well" or x.value != 42)

    async def main():
        task = asyncio.ensure_future(aio.run(body))
        if ends == "after a wait":
            while not clock.sleepers:
                await asyncio.sleep(0)
            await aio.run(x.set, 10)
        await task

    if ends == "by an error":
        with pytest.raises(KeyError):
            asyncio.run(main())
    else:
        asyncio.run(main())
    assert store["counter"] == {"by an error": 1, "well": 43, "after a wait": 11}[ends]
    assert dropped == ([] if ends == "well" else [43])
    assert run(x.get) == x.value
