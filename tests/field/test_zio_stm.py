"""Cases of ZIO, `core-tests/.../zio/stm/`: ZSTMSpec, and the JVM specs beside it. Fibers are threads here, and tasks.

Where ZIO has a combinator and Python a statement (`if`, `for`, `try`, a tuple), the case is told with the statement:
what it promises of the transaction around it stays the same.
"""

import pytest

from stm import (
    TPromise,
    TQueue,
    TVar,
    atomically,
    run,
)
from tests.support import Once, elsewhere, together


class Oops(Exception):
    """What a body fails with."""


def fail(error=Oops):
    raise error


# ------------------------------------------------------------------------------ results and errors


@pytest.mark.parametrize("value", [42, "Hello World", None, (1, "A")])
def test_a_transaction_returns_what_its_body_returns(value):
    """ZIO, ZSTMSpec: succeed; zip to a tuple. Also for a body that touches no variable."""
    assert run(lambda: value) is value


def test_a_failure_leaves_the_transaction_as_it_was_raised():
    """ZIO, ZSTMSpec: fail, orDie, mapError. The very exception, also one that the body made of another."""
    error = Oops("from -1")

    def body():
        try:
            fail(ValueError)
        except ValueError as first:
            raise error from first

    with pytest.raises(Oops) as caught:
        run(body)
    assert caught.value is error
    assert isinstance(error.__cause__, ValueError)


def test_an_error_that_the_body_handles_is_no_failure():
    """ZIO, ZSTMSpec: catchAll, fold, either, option. The transaction commits, with all that was written before."""
    x = TVar(0)

    def body():
        x.set(1)
        try:
            fail()
        except Oops:
            x.value += 1
        return x.get()

    assert run(body) == 2
    assert x.get() == 2


def test_what_fails_is_tried_again_within_the_transaction_until_it_succeeds():
    """ZIO, ZSTMSpec: eventually. A plain function keeps what it wrote before it failed; nobody else sees the trials."""
    ref, seen = TVar(0), []

    def effect():
        seen.append(elsewhere(ref.get))
        if ref.get() < 10:
            ref.value += 1
            fail()
        return ref.get()

    @atomically
    def eventually():
        while True:
            try:
                return effect()
            except Oops:
                pass

    assert eventually() == 10
    assert set(seen) == {0}
    assert len(seen) == 11


def test_a_nested_transaction_that_fails_keeps_nothing():
    """ZIO, ZSTMSpec: orElse must local reset, not global. The part that failed goes; what was before it stays."""
    ref = TVar(0)

    @atomically
    def inner():
        ref.set(99)
        fail()

    @atomically
    def outer():
        ref.set(2)
        before = ref.get()
        with pytest.raises(Oops):
            inner()
        return before, ref.get()

    assert outer() == (2, 2)
    assert ref.get() == 2


@pytest.mark.parametrize("ignored", [False, True])
def test_a_failure_rolls_the_whole_back(ignored):
    """ZIO, ZSTMSpec: Failure must rollback full transaction; and be ignored."""
    x = TVar(0)

    @atomically
    def body():
        x.update(lambda value: value + 10)
        fail()

    if ignored:
        try:
            body()
        except Oops:
            pass
    else:
        with pytest.raises(Oops):
            body()
    assert x.get() == 0


def test_an_error_returned_instead_of_raised_commits():
    """ZIO, ZSTMSpec: commitEither. Who wants the writes and the error returns the error."""
    x = TVar(False)

    @atomically
    def body():
        x.set(True)
        try:
            fail()
        except Oops as error:
            return error

    assert isinstance(body(), Oops)
    assert x.get() is True


# ------------------------------------------------------------------------------ sequences


def test_effects_happen_in_order():
    """ZIO, ZSTMSpec: foreach, foreach_, filter, partition, foldLeft, collectAll. Written in order, read so."""
    ref, numbers = TVar(()), [2, 4, 6, 3, 5, 6]

    def even(n):
        ref.update(lambda seen: (*seen, n))
        return n % 2 == 0

    assert run(lambda: ([n for n in numbers if even(n)], ref.get())) == ([2, 4, 6, 6], (2, 4, 6, 3, 5, 6))


def test_a_failure_halfway_through_a_sequence_undoes_its_beginning():
    """ZIO, ZSTMSpec: foldLeft and mergeAll with a failing step. The first elements' effects are gone too."""
    total = TVar(0)

    def add(n):
        if n == 3:
            fail()
        total.value += n

    with pytest.raises(Oops):
        run(lambda: [add(n) for n in range(5)])
    assert total.get() == 0


def test_variables_made_in_one_transaction_are_used_in_others():
    """ZIO, ZSTMSpec: collectAll. A hundred variables are made by a transaction and read each by one of its own."""
    made = run(lambda: [TVar(n) for n in range(100)])
    assert together(*(lambda part=part: [run(one.get) for one in part] for part in (made[:50], made[50:]))) == [
        list(range(50)),
        list(range(50, 100)),
    ]


def test_takes_in_one_transaction_come_in_order():
    """ZIO, ZSTMSpec: STM collectAll ordering."""
    queue = TQueue(3)

    @atomically
    def through():
        for n in (1, 2, 3):
            queue.put(n)
        return [queue.get(), queue.get(), queue.get()]

    assert through() == [1, 2, 3]


@pytest.mark.parametrize("stop", [lambda n: n != 0, lambda n: n == 1], ids=["while it is zero", "until it is one"])
def test_a_loop_takes_until_it_has_what_it_wants(stop):
    """ZIO, ZSTMSpec: doWhile and doUntil. What was taken on the way is gone with it."""
    queue = TQueue(5)

    @atomically
    def search():
        queue.put_many([0, 0, 0, 1, 2])
        while True:
            n = queue.get()
            if stop(n):
                return n

    assert search() == 1
    assert queue.snapshot() == (2,)


def test_a_summary_before_and_after():
    """ZIO, ZSTMSpec: summarized. Three updates in one transaction see one another."""
    counter = TVar(0)

    def bump():
        return counter.update(lambda n: n + 1)

    assert run(lambda: (bump(), bump(), bump())) == (1, 2, 3)


@pytest.mark.parametrize("wanted", [True, False])
def test_a_condition_read_in_the_transaction_decides(wanted):
    """ZIO, ZSTMSpec: when, whenM, ifM. What the condition read counts: had it changed, the body runs again."""
    ref, runs, flag, first = TVar(0), TVar(0), TVar(not wanted), Once()

    @atomically
    def maybe():
        runs.value += 1  # who writes nothing might as well have come before the change
        decided = flag.get()
        if first:
            elsewhere(flag.set, wanted)
        if decided:
            ref.value += 1
        return ref.get()

    assert maybe() == int(wanted)


def test_a_tap_is_part_of_the_transaction():
    """ZIO, ZSTMSpec: tap, tapBoth, tapError. A promise set in a transaction is done in it, or never was."""
    told = TPromise()

    def tapped():
        told.set_result("value")
        return 42, told.result()

    def tapped_and_failed():
        tapped()
        fail()

    with pytest.raises(Oops):
        run(tapped_and_failed)
    assert not told.done()
    assert run(tapped) == (42, "value")
    assert told.result() == "value"
