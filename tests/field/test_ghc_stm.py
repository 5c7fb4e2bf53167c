"""Cases of Haskell's `stm` package (haskell/stm: `tests`, `testsuite`), derived anew for this library.

Each docstring names the suite and the case that asks for the promise; docs/field/ghc-stm.md lists them all, and those
that have no counterpart here. What is GHC's `TBQueue`, `TChan` or `catchSTM` there is a `TQueue`, a `TChannel` or a
nested scope here.
"""

import threading
from operator import add

import pytest

from stm import (
    BlockedForever,
    TMap,
    TQueue,
    TransactionTimeout,
    TVar,
    TVector,
    atomically,
    check,
    or_else,
    retry,
    run,
)
from tests.support import Background, asleep


class Boom(Exception):
    pass


def scope(body, handler):
    """Run a body as a nested scope and hand its error to a handler: what `catchSTM` is in Haskell."""
    try:
        return run(body)
    except Boom as error:
        return handler(error)


# ----------------------------------------------------------------------------------------- exceptions


def test_stm046_an_exception_abandons_the_update():
    """stm, stm046: an update abandoned by an exception. Here of a map, at several keys."""
    greeting = TMap(first="Hello ", second="world")

    @atomically
    def update():
        greeting["first"] = "lost"
        del greeting["second"]
        raise Boom

    with pytest.raises(Boom):
        update()
    assert dict(greeting) == {"first": "Hello ", "second": "world"}


def test_stm046_a_handler_in_the_transaction_replaces_what_the_body_wrote():
    """stm, stm046: a block with an internal exception. The handler sees the state from before the body."""
    words = TMap(first="Hello ")
    seen = []

    def body():
        words["first"] = "lost"
        raise Boom

    def handler(_):
        seen.append(words["first"])
        words["first"] = "handled "

    atomically(lambda: scope(body, handler))()
    assert (words["first"], seen) == ("handled ", ["Hello "])


def test_stm046_a_handler_that_is_not_needed_changes_nothing():
    """stm, stm046: a block with a handler but no exception."""
    words = TMap(first="")
    run(lambda: scope(lambda: words.update(first="Hello "), lambda _: words.clear()))
    assert dict(words) == {"first": "Hello "}


@pytest.mark.parametrize("make", [TVar, TVector, TQueue], ids=["variable", "vector", "queue"])
def test_stm061_rollback_at_each_depth(make):
    """stm, stm061: uncaught, committed, caught and rethrown, and caught exceptions, one after the other."""
    place = make() if make is TQueue else make([]) if make is TVector else make(())

    def contents():
        return tuple(place.snapshot()) if make is not TVar else place.get()

    def write(item):
        if make is TVar:
            place.update(add, (item,))
        elif make is TVector:
            place.append(item)
        else:
            place.put(item)

    def write_and_raise(item):
        write(item)
        raise Boom

    def rethrow(error):
        raise error

    with pytest.raises(Boom):
        run(write_and_raise, 1)
    assert contents() == ()
    run(lambda: scope(lambda: write(2), rethrow))
    assert contents() == (2,)
    with pytest.raises(Boom):
        run(lambda: scope(lambda: write_and_raise(3), rethrow))
    assert contents() == (2,)

    @atomically
    def partly():
        write(4)
        scope(lambda: write_and_raise(5), lambda _: None)
        return contents()

    assert partly() == contents() == (2, 4)


def test_stm061_retry_passes_through_a_handler():
    """stm, stm061: a retry inside a handled body is no exception: the enclosing alternative answers it."""
    x = TVar(17)

    def first():
        try:
            run(lambda: (x.set(0), retry()))
        except Exception as error:  # what a careful but ignorant caller writes
            raise AssertionError("retry was taken for an error") from error

    assert atomically(lambda: or_else(first, lambda: "second"))() == "second"
    assert x.value == 17


@pytest.mark.parametrize("way", [run, lambda body: atomically(body)()], ids=["run", "atomically"])
def test_stm061_retry_can_not_be_caught(way):
    """stm, stm061: not even by a handler of everything: the transaction waits, and what the handler wrote is undone."""
    x, log, handled = TVar(0), TVar(()), []

    def body():
        try:
            check(x.value)
        except BaseException:
            handled.append(1)
            log.set("handled")
        return "ended"

    waiting = Background(way, body)
    asleep()
    x.set(1)
    assert waiting.result() == "ended"
    assert log.value == ()
    assert handled


def test_stm061_a_retry_that_a_handler_has_swallowed_leads_to_the_alternative():
    """stm, stm061: the same in an alternative: it has retried, whatever it returned; the next one counts."""
    x = TVar(0)

    def first():
        try:
            check(x.value)
        except BaseException:
            return "first"

    assert run(lambda: or_else(first, lambda: "second"), timeout=5) == "second"


def test_t2411_many_threads_raise_and_catch_in_their_transactions():
    """stm, T2411: a write and a caught exception at once, by very many short-lived threads."""
    shared, answers = TVar("untouched"), TMap()

    def work(number):
        def body():
            shared.set(f"wrote {number}")
            if number % 5 == 0:
                raise Boom(number)
            return number

        answers[number] = run(lambda: scope(body, lambda error: f"caught {error}"))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dict(answers) == {n: f"caught {n}" if n % 5 == 0 else n for n in range(60)}
    assert int(shared.value.split()[1]) % 5 != 0  # what a scope that raised wrote is nowhere


# ----------------------------------------------------------------------------------- retry and or_else


def test_stm047_a_retry_that_is_not_reached_does_nothing():
    """stm, stm047: surviving an unused retry."""
    x = TVar(0)
    assert run(lambda: retry() if x.value else x.value) == 0


def test_stm047_a_retry_that_read_nothing_is_an_error():
    """stm, stm047: a block that retries after it has read no variable. In an alternative, it is an error just so."""
    with pytest.raises(BlockedForever):
        run(retry)
    with pytest.raises(BlockedForever):
        run(lambda: or_else(retry, lambda: or_else(retry, retry)))


def test_stm047_a_retry_that_nobody_answers_ends_with_its_time():
    """stm, stm047: a block that retries after it has read one variable. GHC notices that no thread refers to it."""
    nobodys = TQueue()
    with pytest.raises(TransactionTimeout):
        run(lambda: nobodys.get(), timeout=0.02)


def one(left, _):
    left.put(10)
    retry()


def two(_, right):
    right.put(10)


ORDERS = {
    "A": (one, two),
    "B": (two, one),
    "C": (two, two),
    "D": ((one, one), two),
    "E": ((one, two), two),
}


def chosen(option, left, right):
    if isinstance(option, tuple):
        return lambda: or_else(*(chosen(each, left, right) for each in option))
    return lambda: option(left, right)


@pytest.mark.parametrize("name", ORDERS)
def test_stm048_the_first_that_does_not_retry_counts(name):
    """stm, stm048: tests A to E: or_else of one that retries and one that does not, in all orders, and nested."""
    left, right = TQueue(), TQueue()
    for times in range(1, 6):
        run(chosen(ORDERS[name], left, right))
        assert (left.qsize(), right.qsize()) == (0, times)


def test_stm048_when_all_retry_the_whole_retries():
    """stm, stm048: test Z: the retry of the last alternative propagates, and no alternative leaves a trace."""
    left, right = TQueue(), TQueue()
    with pytest.raises(TransactionTimeout):
        run(chosen((one, one), left, right), timeout=0.01)
    assert left.empty()
    assert right.empty()


def test_stm064_nested_alternatives_keep_what_was_written_before():
    """stm, stm064: a write, then (read and retry) or nothing, or nothing. The value may not fall back to its first."""

    def body():
        t = TVar(1)
        t.set(2)
        or_else(lambda: or_else(lambda: (t.get(), retry()), lambda: None), lambda: None)
        return t.get()

    assert run(body) == 2


def test_stm065_what_an_alternative_writes_replaces_what_was_written_before():
    """stm, stm065: a write in an alternative that is taken, after another write of the same place."""

    def body():
        words = TMap(key=[2])
        words["key"] = [3]
        or_else(lambda: words.update(key=[]), lambda: None)
        return words["key"], len(words)

    assert run(body) == ([], 1)


def test_stm066_reads_in_nested_alternatives_see_the_earlier_ones():
    """stm, stm066: takes one item, then three, by nested alternatives, while a producer is still to come."""
    queue = TQueue()

    def take(count):
        if not count:
            return []
        first = or_else(queue.get, retry)
        return [first, *or_else(lambda: take(count - 1), retry)]

    consumer = Background(run, lambda: (take(1), take(3)))
    asleep()
    run(lambda: [queue.put(number) for number in range(1, 5)])
    assert consumer.result() == ([1], [2, 3, 4])


def test_t16707_a_write_in_an_alternative_after_a_stale_read_does_not_hang():
    """stm, T16707: a read, then an alternative that writes the same variable, beside another writer, three times."""
    for _ in range(3):
        x = TVar(False)
        begun, go_on = threading.Event(), threading.Event()

        def body(x=x, begun=begun, go_on=go_on):
            x.get()
            begun.set()
            go_on.wait(60)
            or_else(lambda: x.set("alternative"), lambda: None)

        transaction = Background(atomically(body))
        begun.wait(60)
        x.set(True)
        go_on.set()
        transaction.result()
        assert x.value == "alternative"
