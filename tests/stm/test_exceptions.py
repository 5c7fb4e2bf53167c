"""Promise 2: what an exception takes along, and when it is no answer at all."""

import pytest

from stm import TVar, atomically, in_transaction, on_commit, on_rollback, retry, run
from tests.support import Once, elsewhere


class Trouble(Exception):
    pass


def test_an_exception_discards_every_write_and_propagates():
    x, y = TVar(1), TVar(1)

    @atomically
    def body():
        x.set(2)
        y.set(2)
        raise Trouble

    with pytest.raises(Trouble):
        body()
    assert (x.value, y.value) == (1, 1)
    assert not in_transaction()


def test_the_traceback_and_context_are_the_users_own():
    def body():
        raise Trouble("mine")

    with pytest.raises(Trouble) as caught:
        atomically(body)()
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None
    assert caught.traceback[-1].name == "body"


@pytest.mark.parametrize("options", [{}, {"timeout": 5}])
def test_an_exception_from_stale_reads_never_escapes(options):
    x, y = TVar(0), TVar(0)
    first = Once()
    runs = []

    @atomically(**options)
    def body():
        value = x.value
        runs.append(value)
        if first:
            elsewhere(x.set, 1)
            raise Trouble(f"from the stale {value}")
        y.set(value)

    body()
    assert runs == [0, 1]
    assert y.value == 1


def test_an_exception_from_fresh_reads_does_escape_after_reruns():
    x = TVar(0)
    first = Once()

    @atomically
    def body():
        value = x.value
        if first:
            elsewhere(x.set, 1)
        raise Trouble(value)

    with pytest.raises(Trouble, match="1"):
        body()


def test_an_invariant_that_holds_is_never_reported_broken():
    a, b = TVar(0), TVar(0)
    rounds = 3_000

    @atomically
    def bump():
        a.value += 1
        b.value += 1

    @atomically
    def audit():
        x = a.value
        y = b.value
        if x != y:
            raise Trouble(f"{x} != {y}")
        return x

    def writer():
        for _ in range(rounds):
            bump()

    from tests.support import Background

    background = Background(writer)
    while audit() < rounds:
        pass
    background.result()


def test_cleanup_code_that_raises_in_a_doomed_attempt_does_not_speak_for_it():
    a, b = TVar(0), TVar(0)
    first = Once()

    @atomically
    def body():
        x = a.value
        if first:
            elsewhere(run, lambda: (a.set(1), b.set(1)))
        try:
            return x, b.value
        except BaseException as error:
            raise Trouble("while cleaning up") from error

    assert body() == (1, 1)


def test_base_exceptions_are_never_taken_back():
    x = TVar(0)

    @atomically
    def body():
        x.value += 1
        elsewhere(x.set, 10)
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        body()
    assert x.value == 10


def test_a_nested_exception_discards_the_scope_alone():
    outer, inner, both = TVar(0), TVar(0), TVar(0)

    @atomically
    def nested():
        inner.set(1)
        both.set(2)
        both.set(3)
        raise Trouble

    @atomically
    def body():
        outer.set(1)
        both.set(1)
        with pytest.raises(Trouble):
            nested()
        assert (inner.value, both.value) == (0, 1)
        inner.update(lambda value: value + 5)

    body()
    assert (outer.value, inner.value, both.value) == (1, 5, 1)


def test_a_nested_scope_that_ends_well_is_kept_but_can_still_be_undone_from_outside():
    x, y, z = TVar(0), TVar(0), TVar(0)

    @atomically
    def innermost():
        x.value += 1
        z.value += 1

    @atomically
    def middle(fail):
        x.value += 10
        innermost()
        y.set(1)
        if fail:
            raise Trouble

    @atomically
    def body(fail):
        x.value += 100
        try:
            middle(fail)
        except Trouble:
            assert (x.value, y.value, z.value) == (100, 0, 0)

    body(True)
    assert (x.value, y.value, z.value) == (100, 0, 0)
    body(False)
    assert (x.value, y.value, z.value) == (211, 1, 1)


def test_reads_of_a_discarded_scope_still_count():
    x, y = TVar(0), TVar(0)
    first = Once()

    @atomically
    def nested():
        if x.value == 0:
            raise Trouble

    @atomically
    def body():
        try:
            nested()
            y.set("fine")
        except Trouble:
            y.set("trouble")
        if first:
            elsewhere(x.set, 1)

    body()
    assert y.value == "fine"


def test_hooks_of_a_discarded_scope_go_with_it():
    calls = []

    @atomically
    def nested():
        on_commit(calls.append, "inner commit")
        on_rollback(calls.append, "inner rollback")
        raise Trouble

    @atomically
    def body():
        on_commit(calls.append, "outer commit")
        with pytest.raises(Trouble):
            nested()
        on_commit(calls.append, "last")

    body()
    assert calls == ["outer commit", "last"]


def test_a_function_called_inside_joins_and_a_deep_recursion_is_one_transaction():
    x = TVar(0)

    @atomically
    def down(depth):
        x.value += 1
        if depth:
            down(depth - 1)
        assert elsewhere(x.get) == 0

    down(50)
    assert x.value == 51


def test_retry_in_a_nested_scope_retries_the_whole():
    x = TVar(0)
    runs = []

    @atomically
    def nested():
        if x.value == 0:
            retry()
        return x.value

    @atomically
    def body():
        runs.append(1)
        if len(runs) == 1:
            elsewhere(x.set, 3)
        return nested()

    assert body() == 3
