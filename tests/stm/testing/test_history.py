"""What a `History` notes of each kind of attempt, and that it leaves no trace."""

import gc
import threading
import tracemalloc

import pytest

import stm.quick
import stm.transaction
import stm.tvar
from stm import TQueue, TVar, after, aio, atomically, check, exchange, on_commit, or_else, retry, run, snapshot
from stm.atomically import detached
from stm.execution import Execution
from stm.testing._recording import Recorder
from stm.testing.history import History, NotOpaque
from tests.support import Background, Once, asleep, elsewhere


def told(history):
    """Each attempt as (name, outcome, what it read, what it wrote)."""
    return [
        (
            attempt.name,
            attempt.outcome,
            {access.key: access.value for access in attempt.reads},
            {access.key: access.value for access in attempt.writes},
        )
        for attempt in history.attempts
    ]


def test_a_plain_transaction():
    x, y = TVar(1), TVar(2)

    @atomically
    def swap():
        x.value, y.value = y.value, x.value

    with History() as history:
        swap()
    assert told(history) == [("swap", "committed", {x: 1, y: 2}, {x: 2, y: 1})]
    (attempt,) = history.attempts
    assert attempt.began < attempt.ended
    assert attempt.thread == threading.current_thread().name
    assert {access.version for access in attempt.writes} == {x._cell[1]}
    history.check()


def test_a_transaction_that_only_reads():
    x = TVar(1)
    look = atomically(lambda: x.value)
    with History() as history:
        look()
    assert [(outcome, reads, writes) for _, outcome, reads, writes in told(history)] == [("committed", {x: 1}, {})]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_writes_of_any_number(count):
    variables = [TVar(0) for _ in range(count)]

    @atomically
    def write():
        for variable in variables:
            variable.set(1)

    with History() as history:
        write()
        write()
    assert told(history) == [("write", "committed", {}, dict.fromkeys(variables, 1))] * 2
    history.check()


def test_an_attempt_that_meets_a_conflict_is_noted_with_what_it_had_read():
    x, y = TVar(0), TVar(0)
    first = Once()

    @atomically
    def copy():
        seen = x.value
        if first:
            elsewhere(run, lambda: (x.set(1), y.set(1)))
        y.value = seen + y.value

    with History() as history:
        copy()
    assert told(history) == [
        ("copy", "aborted", {x: 0}, {}),  # it was told nothing of y
        (told(history)[1][0], "committed", {}, {x: 1, y: 1}),
        ("copy", "committed", {x: 1, y: 1}, {y: 2}),
    ]
    history.check()


def test_an_attempt_whose_commit_fails_is_noted_with_what_it_would_have_written():
    x, y = TVar(0), TVar(0)
    first = Once()

    @atomically
    def copy():
        y.value = x.value
        if first:
            elsewhere(x.set, 1)

    with History() as history:
        copy()
    assert told(history) == [
        ("copy", "aborted", {x: 0}, {y: 0}),
        ("set()", "committed", {}, {x: 1}),
        ("copy", "committed", {x: 1}, {y: 1}),
    ]
    history.check()


def test_an_attempt_that_retries_and_the_one_after_the_wait():
    x = TVar(0)

    @atomically
    def take():
        check(x.value)
        x.value -= 1

    with History() as history:
        waiting = Background(take)
        asleep()
        x.set(1)
        waiting.result()
    assert told(history) == [
        ("take", "retried", {x: 0}, {}),
        ("set()", "committed", {}, {x: 1}),
        ("take", "committed", {x: 1}, {x: 0}),
    ]
    retried, wrote, took = history.attempts
    assert retried.ended < wrote.began
    assert wrote.ended <= took.ended
    history.check()


def test_an_attempt_that_raises():
    x = TVar(1)

    @atomically
    def body():
        x.value += 1
        raise KeyError

    with History() as history, pytest.raises(KeyError):
        body()
    assert told(history) == [("body", "raised", {x: 1}, {})]


def test_an_alternative_that_was_rolled_back_has_read_what_it_read():
    x, y = TVar(0), TVar(5)

    def left():
        y.value = 7
        check(x.value)

    with History() as history:
        run(lambda: or_else(left, lambda: y.update(lambda value: value + 1)), name="either")
    assert told(history) == [("either", "committed", {x: 0, y: 5}, {y: 6})]


def test_a_nested_scope_that_was_rolled_back_has_read_what_it_read():
    x, y = TVar(0), TVar(5)

    @atomically
    def inner():
        y.value = x.value
        raise KeyError

    @atomically
    def outer():
        try:
            inner()
        except KeyError:
            y.value += 1

    with History() as history:
        outer()
    assert told(history) == [("outer", "committed", {x: 0, y: 5}, {y: 6})]


@pytest.mark.parametrize("options", [{"irrevocable": True}, {"timeout": 5}, {}])
def test_attempts_that_are_not_plain(options):
    x = TVar(1)
    hooks = []

    @atomically(**options)
    def body():
        on_commit(hooks.append, x.value)
        x.value += 1

    with History() as history:
        body()
    assert told(history) == [("body", "committed", {x: 1}, {x: 2})]
    assert hooks == [1]
    history.check()


def test_a_read_only_transaction_reads_old_versions():
    x, y = TVar(0), TVar(0)

    @atomically(read_only=True)
    def look():
        seen = x.value
        elsewhere(run, lambda: (x.set(1), y.set(1)))
        return seen, y.value

    with History() as history:
        assert look() == (0, 0)
    name, outcome, reads, writes = told(history)[0]
    assert (name, outcome, reads, writes) == ("look", "committed", {x: 0, y: 0}, {})
    history.check()


def test_operations_outside_transactions():
    x, y = TVar(0), TVar("a")
    with History() as history:
        x.set(1)
        x.value = 2
        assert x.get() == x.value == 2
        assert x.compare_and_set(x.peek(), 3)
        assert not x.compare_and_set(2, 4)
        assert exchange((x, 3, 4), (y, "a", "b"))
        assert not exchange((x, 3, 4), (y, "a", "b"))
        assert x.update(lambda value: value + 1) == 5
        assert x.swap(6) == 5
    assert [(reads, writes) for _, _, reads, writes in told(history)] == [
        ({}, {x: 1}),
        ({}, {x: 2}),
        ({x: 2}, {}),
        ({x: 2}, {}),
        ({x: 2}, {x: 3}),
        ({x: 3}, {}),
        ({x: 3, y: "a"}, {x: 4, y: "b"}),
        ({x: 4}, {x: 5}),
        ({x: 5}, {x: 6}),
    ]
    history.check()


@pytest.mark.parametrize("watched", [False, True])
def test_commits_that_are_not_quick_because_a_snapshot_runs_or_somebody_waits(watched):
    x, y = TVar(0), TVar(0)

    @atomically
    def both():
        x.value += 1
        y.value += 1

    def write():
        both()
        x.set(5)
        assert x.compare_and_set(x.peek(), 6)
        assert exchange((y, y.peek(), 6))

    with History() as history:
        if watched:
            waiting = Background(run, lambda: check(x.value == 6 and y.value == 6))
            asleep()
            write()
            waiting.result()
        else:
            run(lambda: (x.value, elsewhere(write), y.value), read_only=True)
    assert [writes for _, outcome, _, writes in told(history) if outcome == "committed" and writes] == [
        {x: 1, y: 1},
        {x: 5},
        {x: 6},
        {y: 6},
    ]
    history.check()


def test_a_snapshot_outside_a_transaction():
    x, y, z = TVar(1), TVar(2), TVar(3)
    with History() as history:
        assert snapshot(x, y, z) == (1, 2, 3)
        x.set(4)
        assert snapshot(x, x, y) == (4, 4, 2)
    assert [reads for name, _, reads, _ in told(history) if name == "snapshot()"] == [{x: 1, y: 2, z: 3}, {x: 4, y: 2}]
    history.check()


def test_a_timer_is_a_write():
    late = after(0)
    with History() as history:
        run(lambda: check(late.value))
    assert [(outcome, reads, writes) for _, outcome, reads, writes in told(history)] == [
        ("committed", {}, {late: True})
    ]
    history.check()


def test_a_detached_transaction_inside_another():
    heard, x = TVar(0), TVar(0)

    @atomically
    def body():
        x.value += 1
        detached(heard.set, 1)
        detached(run, lambda: heard.value)

    with History() as history:
        body()
    assert sorted(str(writes) for _, _, _, writes in told(history)) == sorted(map(str, ({x: 1}, {heard: 1}, {})))
    history.check()


def test_transactions_that_are_awaited():
    import asyncio

    queue = TQueue()

    async def main():
        getting = asyncio.ensure_future(aio.run(queue.get))
        await asyncio.sleep(0)
        queue.put(1)
        return await getting

    with History() as history:
        assert asyncio.run(main()) == 1
    assert {"retried", "committed"} <= {outcome for _, outcome, _, _ in told(history)}
    history.check()


# The history itself


def everything_replaced():
    return [
        stm.quick.clock, stm.quick.commit, stm.quick.conclude, stm.quick.ends_call, stm.execution.Extras,
        stm.execution.conclude, stm.execution.ends_call, Execution.recover, stm.transaction.publish, stm.tvar.store,
        stm.tvar.exchange_any, stm.tvar._cell_of, TVar.get, TVar.value, TVar.compare_and_set,
    ]  # fmt: skip


def test_everything_is_as_it_was_afterwards():
    before = everything_replaced()
    with History(), pytest.raises(RuntimeError):
        during = everything_replaced()
        with History():
            pass
    assert not any(one is other for one, other in zip(before, during, strict=True))
    assert all(one is other for one, other in zip(before, everything_replaced(), strict=True))


def test_nothing_is_noted_afterwards():
    x = TVar(0)
    bump = atomically(lambda: x.set(x.value + 1))
    with History() as history:
        bump()
    bump()
    x.set(5)
    assert len(history) == 1
    assert repr(history) == "<History of 1 attempts, not recording>"
    with pytest.raises(RuntimeError, match="clear"), history:
        pass
    history.clear()
    assert len(history) == 0
    with history:
        bump()
    assert len(history) == 1
    history.check()


def test_an_attempt_that_runs_across_the_end_is_not_noted():
    x = TVar(0)
    history = History()

    @atomically
    def body():
        x.value += 1
        history.__exit__(None, None, None)

    with history:
        body()
        x.set(5)
    assert len(history) == 0


def test_statistics():
    x = TVar(0)
    with History() as history:
        x.set(1)
        run(lambda: x.value)
        with pytest.raises(KeyError):
            run(lambda: {}[x.value])
        run(lambda: or_else(lambda: x.value and retry(), lambda: None))
    history.record(reads={"a": 1}, outcome="aborted")
    found = history.statistics()
    assert (found.committed, found.raised, found.aborted, found.retried, found.unknown) == (3, 1, 1, 0, 0)
    history.check_and_forget()
    found = history.statistics()
    assert (found.committed, found.raised, found.forgotten) == (0, 0, 5)


def test_a_limit_stops_the_recording_until_what_there_is_was_checked():
    x = TVar(0)
    with History(limit=10) as history:
        for _ in range(25):
            x.set(x.value + 1)
        assert len(history) == 10
        assert history.statistics().full
        history.check_and_forget()
        assert not history.statistics().full
        x.set(0)
        assert len(history) == 1
    history.check()


def test_cells_from_before_a_cut_are_known_to_be_old():
    x, y = TVar(0), TVar(0)
    copy = atomically(lambda: y.set(x.value))
    with History() as history:
        x.set(1)
        history.check_and_forget()
        copy()
        x.set(2)
        history.check_and_forget()
        copy()
        assert len(history) == 1
    history.check()


def test_a_commit_under_way_at_a_cut_belongs_to_the_new_piece(monkeypatch):
    x, y = TVar(0), TVar(0)
    history = History()
    real = stm.quick.commit

    def commit(reads, writes, rv):
        history.check_and_forget()  # its record is on the list, and nothing is published
        return real(reads, writes, rv)

    monkeypatch.setattr(stm.quick, "commit", commit)
    copy = atomically(lambda: y.set(x.value + 1))
    with history:
        copy()
        assert told(history) == [(told(history)[0][0], "committed", {x: 0}, {y: 1})]
        run(lambda: y.value)
    history.check()


def test_a_commit_under_way_is_left_out_of_a_check(monkeypatch):
    x = TVar(0)
    real = stm.quick.commit
    seen = []

    def commit(reads, writes, rv):
        seen.append(len(history.attempts))
        return real(reads, writes, rv)

    monkeypatch.setattr(stm.quick, "commit", commit)
    bump = atomically(lambda: x.set(x.value + 1))
    with History() as history:
        bump()
        bump()
    assert seen == [0, 1]


def test_an_attempt_that_read_before_a_cut_and_ends_after_it_is_in_neither_piece():
    x, y = TVar(0), TVar(0)
    first = Once()

    @atomically
    def copy():
        y.value = x.value
        if first:
            elsewhere(x.set, 1)
            elsewhere(history.check_and_forget)

    with History() as history:
        copy()
        history.check()


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("value", [10, 1])
def test_a_commit_that_a_signal_handler_interrupts(monkeypatch, late, value):
    """A handler runs in the same thread, and so has the same lock. Its value may be the very object that is there."""
    x, y, z = TVar(0), TVar(0), TVar(0)
    real = stm.quick.commit

    def commit(reads, writes, rv):
        if late:
            real(reads, writes, rv)
        y.compare_and_set(y.get(), value)
        z.set(value)
        return late or real(reads, writes, rv)

    monkeypatch.setattr(stm.quick, "commit", commit)
    write = atomically(lambda value: (x.set(value), y.set(value)))
    with History() as history:
        write(1)
        write(2)
        run(lambda: (x.value, y.value, z.value))
    assert len(history) == 9
    history.check()


def test_reads_by_a_method_that_was_bound_before():
    x = TVar(1)
    get = x.get
    with History() as history:
        run(lambda: get())
    assert [reads for _, _, reads, _ in told(history)] == [{x: 1}]


def test_a_cut_just_before_a_commit_is_noted_leaves_one_record_of_it(monkeypatch):
    x = TVar(0)
    real = Recorder.keep
    first = Once()

    def keep(recorder, log, record):
        if first:
            elsewhere(history.check_and_forget)
        real(recorder, log, record)

    monkeypatch.setattr(Recorder, "keep", keep)
    bump = atomically(lambda: x.set(x.value + 1))
    with History() as history:
        bump()
        bump()
    assert len(history) == 2
    history.check()


def test_a_commit_that_an_exception_cuts_short_is_told_by_who_read_its_value(monkeypatch):
    x = TVar(0)
    real = stm.quick.commit

    def commit(reads, writes, rv):
        real(reads, writes, rv)
        raise KeyboardInterrupt

    value = object()
    write = atomically(lambda: x.set(value))
    with monkeypatch.context() as patch:
        patch.setattr(stm.quick, "commit", commit)
        with History() as history:
            with pytest.raises(KeyboardInterrupt):
                write()
            assert x.get() is value
            x.set(1)
    assert [outcome for _, outcome, _, _ in told(history)] == ["unknown", "committed", "committed"]
    history.check()


def test_memory_stays_flat():
    x = TVar(0)
    bump = atomically(lambda: x.set(x.value + 1))

    def burst():
        for _ in range(200):
            bump()
        history.check_and_forget()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        with History() as history:
            sizes = [burst() for _ in range(12)]
    finally:
        tracemalloc.stop()
    assert max(sizes[3:]) < sizes[2] + 20_000
    assert history.statistics().forgotten == 2400


def test_logs_of_threads_that_are_gone_are_dropped():
    x = TVar(0)
    with History() as history:
        for _ in range(10):
            elsewhere(x.set, 1)
        history.check_and_forget()
        history.check_and_forget()
        assert len(history._recorder.logs) <= 1


@pytest.mark.parametrize(
    ("arguments", "error"),
    [({"limit": "many"}, TypeError), ({"limit": True}, TypeError), ({"limit": 0}, ValueError)],
)
def test_bad_limits(arguments, error):
    with pytest.raises(error, match="limit"):
        History(**arguments)


def test_not_opaque_is_an_assertion_error():
    assert issubclass(NotOpaque, AssertionError)
