"""`stm.stats`: what is counted, of whom, and what is said about it; and who is blocked."""

import asyncio
import dataclasses
import gc
import io
import os
import signal
import threading
import tracemalloc
from types import SimpleNamespace

import pytest

from stm import (
    BlockedForever,
    TransactionTimeout,
    TVar,
    aio,
    atomically,
    check,
    on_commit,
    on_rollback,
    or_else,
    retry,
    run,
    snapshot,
    stats,
)
from stm.clock import clock
from stm.tally import MOST_CAUSES, OTHERS, SAMPLE, SHORT, UNNAMED
from tests.support import Background, Once, asleep, elsewhere, together


def counted(name):
    """What can't be read off a clock."""
    found = stats.snapshot()[name]
    fields = ("commits", "aborts", "retries", "extensions", "waits", "failures")
    return {field: getattr(found, field) for field in fields if getattr(found, field)}


class FakeClock:
    """A `perf_counter` that moves when it is told to."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        self.readings = 0
        for module in ("quick", "execution", "tally"):
            monkeypatch.setattr(f"stm.{module}.perf_counter", self)

    def __call__(self):
        self.readings += 1
        return self.now

    def advance(self, seconds):
        self.now += seconds


@pytest.fixture
def x():
    return TVar(0, name="x")


@pytest.fixture
def y():
    return TVar(0, name="y")


@pytest.fixture(autouse=True)
def _ends_switched_off():
    yield
    assert clock.book is None
    stats.reset()


# ---------------------------------------------------------------------------------------------- commits, by name


def test_commits_are_counted_under_the_functions_own_name(x):
    @atomically
    def plain():
        x.value += 1

    with stats.enabled():
        for _ in range(37):
            plain()
    assert counted("plain") == {"commits": 37}
    assert list(stats.snapshot()) == ["plain"]


@pytest.mark.parametrize("options", [{"timeout": 9.0}, {"read_only": True}, {"irrevocable": True}, {}])
def test_all_kinds_of_transactions_are_counted_under_the_name_they_are_given(x, options):
    body = atomically(name="given", **options)(lambda: x.value)
    with stats.enabled():
        for _ in range(20):
            body()
    assert counted("given") == {"commits": 20}


def test_methods_lambdas_run_and_nameless_ones(x):
    class Shop:
        @atomically
        def sell(self, number=1):
            x.value += number

    def job():
        x.value += 1

    shop, anonymous = Shop(), atomically(lambda: x.value)
    job.__qualname__ = "job"
    with stats.enabled():
        shop.sell()
        shop.sell(number=2)
        anonymous()
        run(job)
        run(job, timeout=5)
        x.update(lambda value: value + 1)
        x.swap(1)
    names = {name: record.commits for name, record in stats.snapshot().items()}
    assert names.pop(UNNAMED) == 2
    assert names.pop("job") == 2
    assert sorted(names.values()) == [1, 2]
    assert {name.rpartition(".")[2] for name in names} == {"sell", "<lambda>"}


def test_nested_transactions_count_once_under_the_outer_name(x):
    @atomically
    def inner():
        x.value += 1

    @atomically
    def failing():
        raise KeyError

    @atomically
    def outer():
        inner()
        run(inner)
        or_else(retry, inner)
        x.update(abs)
        with pytest.raises(KeyError):
            failing()

    with stats.enabled():
        outer()
    assert list(stats.snapshot()) == ["outer"]
    assert counted("outer") == {"commits": 1}


def test_single_operations_outside_transactions_are_not_counted(x):
    with stats.enabled():
        x.value = 1
        x.get()
        x.compare_and_set(x.get(), 2)
        snapshot(x)
    assert stats.snapshot() == {}


# ---------------------------------------------------------------------------------------------- aborts and conflicts


@pytest.mark.parametrize("options", [{}, {"timeout": 9.0}])
def test_an_abort_is_counted_and_the_variable_named(x, y, options):
    times = iter(range(3))

    @atomically(name="add", **options)
    def add():
        x.value, y.value = x.value + 1, y.value + 1
        for _ in times:
            elsewhere(x.set, 10)
            break

    with stats.enabled():
        add()
    assert counted("add") == {"commits": 1, "aborts": 3}
    assert stats.snapshot()["add"].conflicts == {"x": 3}
    assert stats.variables()["x"] == stats.VariableRecord("x", 3, {"add": 3})


def test_an_abort_may_have_several_causes_most_first(x, y):
    first, second = Once(), Once()

    @atomically
    def add():
        x.value, y.value = x.value + 1, y.value + 1
        if first:
            elsewhere(lambda: (x.set(1), y.set(1)))
        elif second:
            elsewhere(y.set, 2)

    with stats.enabled():
        add()
    record = stats.snapshot()["add"]
    assert (record.aborts, list(record.conflicts.items())) == (2, [("y", 2), ("x", 1)])
    assert [(one.name, one.aborts) for one in stats.variables().values()] == [("y", 2), ("x", 1)]


def test_an_attempt_that_ends_in_its_midst_is_an_abort_by_what_was_stale(x, y):
    first = Once()

    @atomically
    def body():
        x.get()
        if first:
            elsewhere(run, lambda: (x.set(1), y.set(1)))
        y.get()

    with stats.enabled():
        body()
    assert counted("body") == {"commits": 1, "aborts": 1}
    assert stats.snapshot()["body"].conflicts == {"x": 1}


def test_an_error_from_stale_reads_is_an_abort_not_a_failure(x):
    first = Once()

    @atomically
    def body():
        x.get()
        if first:
            elsewhere(x.set, 1)
            raise ValueError

    with stats.enabled():
        body()
    assert counted("body") == {"commits": 1, "aborts": 1}


def test_going_on_irrevocably_is_no_conflict(x):
    inner = atomically(irrevocable=True)(lambda: x.value)

    @atomically
    def outer():
        inner()

    with stats.enabled():
        outer()
    assert counted("outer") == {"commits": 1}


def test_a_compare_and_set_that_comes_too_late_is_an_abort(x):
    with stats.enabled():
        old = x.get()
        x.set(5)
        assert not x.compare_and_set(old, 1)
        run(lambda: x.compare_and_set(object(), 1))
    assert counted("compare_and_set") == {"aborts": 1}
    assert stats.variables()["x"].by_transaction == {"compare_and_set": 1}


def test_unnamed_variables_are_told_apart_by_their_addresses():
    a, b = TVar(0), TVar(0)
    with stats.enabled():
        for one in (a, b, a):
            one.compare_and_set(None, 1)
    assert [(f"{id(a):#x}" in name, one.aborts) for name, one in stats.variables().items()] == [(True, 2), (False, 1)]


def test_the_causes_that_are_told_apart_have_a_limit():
    variables = [TVar(0) for _ in range(MOST_CAUSES + 7)]
    with stats.enabled():
        for one in variables:
            one.compare_and_set(None, 1)
    conflicts = stats.snapshot()["compare_and_set"].conflicts
    assert (len(conflicts), conflicts[OTHERS]) == (MOST_CAUSES + 1, 7)


def test_a_conflict_about_elements_names_the_array():
    from stm.compiled import TArray

    array, first = TArray([0, 0], name="cells"), Once()

    @atomically
    def body():
        array[1] = array[0] + 1
        if first:
            elsewhere(array.__setitem__, 0, 5)

    with stats.enabled():
        body()
    assert counted("body") == {"commits": 1, "aborts": 1}
    assert stats.snapshot()["body"].conflicts == {"cells": 1}


# ---------------------------------------------------------------------------------------------- extensions


@pytest.mark.parametrize("options", [{}, {"timeout": 9.0}])
def test_extensions_are_counted(x, y, options):
    @atomically(name="reader", **options)
    def reader():
        x.get()
        elsewhere(y.set, 1)
        y.get()

    with stats.enabled():
        reader()
        reader()
    assert counted("reader") == {"commits": 2, "extensions": 2}


@pytest.mark.parametrize("options", [{}, {"timeout": 9.0}])
def test_extensions_of_a_call_that_fails_are_its_own(x, y, options):
    @atomically(name="fails", **options)
    def fails():
        x.get()
        elsewhere(y.set, 1)
        y.get()
        raise KeyError

    @atomically
    def other():
        x.get()

    with stats.enabled():
        with pytest.raises(KeyError):
            fails()
        other()
    assert counted("fails") == {"failures": 1, "extensions": 1}
    assert counted("other") == {"commits": 1}


@pytest.mark.parametrize("options", [{}, {"timeout": 9.0}])
def test_extensions_of_a_call_are_not_those_of_its_hooks(x, y, options):
    first = Once()

    @atomically
    def hook():
        x.get()

    @atomically(name="outer", **options)
    def outer():
        on_commit(hook)
        on_rollback(hook)
        old = x.get()
        elsewhere(y.set, 1)
        y.value += 1
        if first:
            elsewhere(x.set, old + 1)

    with stats.enabled():
        outer()
    assert counted("outer") == {"commits": 1, "aborts": 1, "extensions": 2}
    assert counted("hook") == {"commits": 2}


# ---------------------------------------------------------------------------------------------- failures


class Interruption(BaseException):
    pass


@pytest.mark.parametrize("options", [{}, {"timeout": 9.0}, {"read_only": True}, {"irrevocable": True}])
@pytest.mark.parametrize("error", [KeyError, Interruption])
def test_exceptions_are_failures(options, error):
    @atomically(name="body", **options)
    def body():
        raise error

    with stats.enabled():
        for _ in range(3):
            with pytest.raises(error):
                body()
    assert counted("body") == {"failures": 3}


@pytest.mark.parametrize("options", [{}, {"timeout": 9.0}])
def test_a_failure_after_an_abort_counts_as_both(x, options):
    first = Once()

    @atomically(name="body", **options)
    def body():
        x.value += 1
        if not first:
            raise KeyError
        elsewhere(x.set, 7)

    with stats.enabled(), pytest.raises(KeyError):
        body()
    assert counted("body") == {"failures": 1, "aborts": 1}


@pytest.mark.parametrize("options", [{}, {"timeout": 9.0}])
def test_blocking_forever_is_a_failure(options):
    body = atomically(name="body", **options)(retry)
    with stats.enabled(), pytest.raises(BlockedForever):
        body()
    assert counted("body")["failures"] == 1
    assert counted("body")["retries"] == 1


@pytest.mark.parametrize("options", [{}, {"timeout": 9.0}])
def test_a_hook_that_fails_after_the_commit_does_not_undo_it(x, options):
    def hook():
        raise KeyError

    @atomically(name="body", **options)
    def body():
        x.value += 1
        on_commit(hook)

    with stats.enabled():
        with pytest.raises(KeyError):
            body()
        assert x.value == 1
    assert counted("body") == {"commits": 1}


@pytest.mark.parametrize("options", [{}, {"timeout": 60.0}])
def test_ctrl_c_during_a_wait_is_a_failure(x, options):
    body = atomically(name="body", **options)(lambda: check(x.value))

    def interrupt():
        asleep()
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    with stats.enabled():
        background = Background(interrupt)
        with pytest.raises(KeyboardInterrupt):
            body()
        background.result()
    assert counted("body") == {"failures": 1, "retries": 1, "waits": 1}


# ---------------------------------------------------------------------------------------------- waits


@pytest.mark.parametrize("options", [{}, {"timeout": 60.0}])
def test_a_wait_is_counted_and_measured(x, options):
    body = atomically(name="body", **options)(lambda: check(x.value))
    with stats.enabled():
        background = Background(body)
        asleep()
        x.set(1)
        background.result()
        body()
    assert counted("body") == {"commits": 2, "retries": 1, "waits": 1}
    record = stats.snapshot()["body"]
    assert 0 < record.waited <= record.seconds


def test_a_timeout_is_a_failure(x):
    at_once = atomically(timeout=0, name="at once")(lambda: check(x.value))
    later = atomically(timeout=0.002, name="later")(lambda: check(x.value))
    with stats.enabled():
        for body in (at_once, later):
            with pytest.raises(TransactionTimeout):
                body()
    assert counted("at once") == {"failures": 1, "retries": 1}
    assert counted("later") == {"failures": 1, "retries": 1, "waits": 1}
    assert stats.snapshot()["later"].waited >= 0.001


def test_an_alternative_that_retries_is_no_retry_of_the_whole(x):
    with stats.enabled():
        run(lambda: or_else(lambda: check(x.value), lambda: None))
    (record,) = stats.snapshot().values()
    assert (record.commits, record.retries, record.waits) == (1, 0, 0)


# ---------------------------------------------------------------------------------------------- seconds


def test_seconds_of_a_slow_body_are_exact(x, monkeypatch):
    time = FakeClock(monkeypatch)

    @atomically
    def slow(seconds):
        time.advance(seconds)

    with stats.enabled():
        for seconds in (1.0, 0.125, 2.0):
            slow(seconds)
    assert stats.snapshot()["slow"].seconds == pytest.approx(3.125)


@pytest.mark.parametrize("options", [{}, {"timeout": 9.0}])
def test_seconds_include_hooked_failing_and_repeated_attempts(x, monkeypatch, options):
    time, first = FakeClock(monkeypatch), Once()

    @atomically(name="body", **options)
    def body(what):
        time.advance(1.0)
        if what == "hook":
            on_commit(int)
        elif what == "fail":
            raise KeyError
        elif what == "again":
            x.value += 1
            if first:
                elsewhere(x.set, 1)

    with stats.enabled():
        for what in ("hook", "fail", "again", "hook"):
            try:
                body(what)
            except KeyError:
                assert what == "fail"
    assert stats.snapshot()["body"].seconds == pytest.approx(5.0)


def test_short_calls_are_sampled_and_cost_few_looks_at_the_clock(monkeypatch):
    time = FakeClock(monkeypatch)

    @atomically
    def short():
        time.advance(SHORT / 10)

    with stats.enabled():
        time.readings = 0
        for _ in range(100 * SAMPLE):
            short()
        assert time.readings <= 2 * 101
    assert stats.snapshot()["short"].seconds == pytest.approx(100 * SAMPLE * SHORT / 10)


def test_short_and_long_calls_are_weighed_by_what_they_stand_for(monkeypatch):
    time = FakeClock(monkeypatch)

    @atomically
    def body(seconds):
        time.advance(seconds)

    def call(seconds, times):
        for _ in range(times):
            body(seconds)

    def other_way_round():
        call(1.0, 10)

    with stats.enabled():
        call(SHORT / 5, 100 * SAMPLE)
        call(SHORT * 100, 100 * SAMPLE)
        elsewhere(other_way_round)
    truth = 100 * SAMPLE * (SHORT / 5 + SHORT * 100) + 10
    assert stats.snapshot()["body"].seconds == pytest.approx(truth, rel=0.03)


# ---------------------------------------------------------------------------------------------- threads and tasks


def test_threads_that_have_ended_are_counted(x):
    @atomically
    def add():
        x.value += 1

    with stats.enabled():
        for _ in range(10):
            elsewhere(lambda: [add() for _ in range(10)])
        add()
    assert counted("add")["commits"] == 101


def test_a_thread_that_gets_the_identifier_of_one_that_has_ended_goes_on_with_its_account(x, monkeypatch):
    monkeypatch.setattr("stm.tally.threading", SimpleNamespace(get_ident=lambda: 7))

    @atomically
    def add():
        x.value += 1

    with stats.enabled():
        for _ in range(5):
            elsewhere(add)
        assert list(clock.book.accounts) == [7]
    assert counted("add") == {"commits": 5}


def test_threads_that_conflict_lose_no_count(x):
    rounds = 300

    @atomically
    def add():
        x.value += 1

    with stats.enabled():
        together(*[lambda: [add() for _ in range(rounds)]] * 3)
    record = stats.snapshot()["add"]
    assert record.commits == x.value == 3 * rounds
    assert record.conflicts.get("x", 0) == record.aborts


def test_tasks_are_counted(x, y):
    first = Once()

    @aio.atomically
    def take():
        check(x.value)
        return x.value

    @aio.atomically
    def conflicting():
        y.value += 1
        if first:
            elsewhere(y.set, 5)

    async def main():
        async with asyncio.TaskGroup() as tasks:
            waiting = [tasks.create_task(take()) for _ in range(3)]
            cancelled = tasks.create_task(take())
            await asyncio.sleep(0)
            await conflicting()
            cancelled.cancel()
            await aio.run(x.set, 1)
            await asyncio.gather(*waiting)
            with pytest.raises(TransactionTimeout):
                await aio.run(lambda: check(not x.value), timeout=0)

    with stats.enabled():
        asyncio.run(main())
    assert counted("take") == {"commits": 3, "retries": 4, "waits": 4, "failures": 1}
    assert counted("conflicting") == {"commits": 1, "aborts": 1}
    assert stats.snapshot()["conflicting"].conflicts == {"y": 1}


def test_extensions_of_one_task_are_not_counted_as_anothers(x, y):
    @aio.atomically
    def waiting():
        x.get()
        if not x.value:
            elsewhere(y.set, 1)
        y.get()
        check(x.value)

    @aio.atomically
    def other():
        y.get()

    async def main():
        task = asyncio.create_task(waiting())
        await asyncio.sleep(0)
        await other()
        await aio.run(x.set, 1)
        await task

    with stats.enabled():
        asyncio.run(main())
    assert counted("waiting")["extensions"] == 1
    assert counted("other") == {"commits": 1}


# ---------------------------------------------------------------------------------------------- on and off


def test_nothing_is_counted_while_off(x):
    body = atomically(name="body")(lambda: x.value)
    with stats.enabled():
        body()
    body()
    run(body, timeout=3)
    x.compare_and_set(object(), 1)
    assert counted("body") == {"commits": 1}
    assert list(stats.snapshot()) == ["body"]


def test_off_no_call_leaves_anything_behind(x):
    first = Once()

    @atomically
    def body():
        x.value += 1
        if first:
            elsewhere(x.set, 1)

    def calls(count):
        for number in range(count):
            body()
            run(body, timeout=5)
            TVar(number).compare_and_set(None, 0)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = calls(100)
        assert calls(1000) - before < 5_000
    finally:
        tracemalloc.stop()


def test_on_no_call_leaves_anything_behind_either(x):
    @atomically
    def body():
        x.value += 1

    def calls(count):
        for _ in range(count):
            body()
            run(body, timeout=5)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    with stats.enabled():
        tracemalloc.start()
        try:
            before = calls(100)
            assert calls(1000) - before < 5_000
        finally:
            tracemalloc.stop()


def test_enabling_is_nested_across_threads(x):
    body = atomically(name="body")(lambda: x.value)
    with stats.enabled():
        body()
        elsewhere(stats.enable)
        body()
    body()  # the other's still counts
    assert counted("body") == {"commits": 3}
    elsewhere(stats.disable)
    body()
    assert counted("body") == {"commits": 3}
    with stats.enabled():
        assert stats.snapshot() == {}  # from zero


def test_disabling_what_was_not_enabled_is_an_error():
    with pytest.raises(RuntimeError, match="without stats.enable"):
        stats.disable()


def test_reset_forgets_and_a_call_that_is_running_is_not_counted(x):
    @atomically
    def body(then=None):
        if then:
            then()

    with stats.enabled():
        body()
        body(stats.reset)
        assert stats.snapshot() == {}
        body()
    assert counted("body") == {"commits": 1}
    stats.reset()
    assert stats.snapshot() == {}


def test_switching_in_the_midst_of_a_call_harms_nobody(x):
    @atomically
    def body(then):
        x.value += 1
        then()

    body(stats.enable)
    assert stats.snapshot() == {}
    body(stats.disable)
    assert x.value == 2
    assert clock.book is None


def test_records_can_not_be_changed(x):
    x_late = lambda: x.compare_and_set(None, 1)  # noqa: E731
    with stats.enabled():
        x_late()
        found = stats.snapshot()
        x_late()
    record = found["compare_and_set"]
    assert record.aborts == 1  # a picture of its moment
    for change in (
        lambda: found.__setitem__("other", record),
        lambda: record.conflicts.__setitem__("x", 0),
        lambda: stats.variables().clear(),
        lambda: stats.variables()["x"].by_transaction.update(x=1),
    ):
        with pytest.raises((TypeError, AttributeError)):
            change()
    for one in (record, stats.variables()["x"]):
        with pytest.raises(dataclasses.FrozenInstanceError):
            one.aborts = 0


def test_toggling_while_threads_transact_loses_no_commit_and_raises_nothing():
    from stm import guard

    a, b = TVar(0), TVar(0)
    stop = []

    @atomically
    def move():
        a.value -= 1
        b.value += 1

    def toggle():
        while not stop:
            with stats.enabled():
                stats.snapshot()
                with guard.enable():
                    stats.reset()
                stats.report(io.StringIO())

    def work(rounds=400):
        for _ in range(rounds):
            move()
            run(move, timeout=30)
            b.compare_and_set(b.get(), b.peek())

    toggling = [Background(toggle) for _ in range(2)]
    try:
        together(*[work] * 3)
    finally:
        stop.append(1)
        for one in toggling:
            one.result()
    assert -a.value == b.value == 2 * 3 * 400


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_can_count_whoever_was_switching_meanwhile(x):
    body = atomically(name="body")(lambda: x.value)
    held, done = threading.Event(), threading.Event()

    def hold():
        with stats._books.lock:
            held.set()
            done.wait(60)

    with stats.enabled():
        background = Background(hold)
        held.wait(60)
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(20)  # lest it hang
            try:
                body()
                stats.reset()
                body()
                os._exit(stats.snapshot()["body"].commits)
            finally:
                os._exit(99)
        done.set()
        background.result()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


# ---------------------------------------------------------------------------------------------- the report


def report():
    out = io.StringIO()
    stats.report(out)
    return out.getvalue().splitlines()


def test_a_report_of_nothing_says_how_to_count():
    assert report() == ["No transactions were counted (with stm.stats.enabled(): ... counts them)."]


def test_the_report_goes_to_standard_output(capsys):
    stats.report()
    assert capsys.readouterr().out.startswith("No transactions")


def test_the_table_is_aligned_the_dearest_first(x, monkeypatch):
    time = FakeClock(monkeypatch)

    def body(seconds):
        time.advance(seconds)

    with stats.enabled():
        atomically(name="short")(body)(0.5)
        dear = atomically(name="a transaction with a long name")(body)
        for _ in range(1000):
            dear(1.0)
    head, columns, rule, *rows = report()
    assert head.startswith("Transactions in ")
    assert columns.split()[:4] == ["transaction", "commits", "aborts", "per"]
    assert [row.split("  ")[0] for row in rows] == ["a transaction with a long name", "short"]
    assert {len(line) for line in (columns, rule, *rows)} == {len(rule)}
    ends = [end for end, sign in enumerate(rule) if sign == "-" and rule[end + 1 : end + 2] != "-"]
    for row in rows:
        assert all(row[end] != " " and row[end + 1 : end + 2] in (" ", "") for end in ends[1:])
    assert rows[0].split()[-4:] == ["1000", "s", "1", "s"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 µs"),
        (1.234e-7, "0.123 µs"),
        (9.996e-4, "1 ms"),
        (0.0123, "12.3 ms"),
        (0.9996, "1 s"),
        (59.94, "59.9 s"),
        (999.4, "999 s"),
        (3723, "3723 s"),
        (1e6, "1000000 s"),
    ],
)
def test_durations_are_written_as_people_do(seconds, text):
    assert stats._duration(seconds) == text


def conflicts(variable, aborts, commits):
    body = atomically(name="body")(lambda: None)
    for _ in range(aborts):
        variable.compare_and_set(None, 0)
    for _ in range(commits):
        body()


@pytest.mark.parametrize(
    ("aborts", "commits", "advice"),
    [
        (20, 400, "Fewer than one attempt in twenty"),
        (19, 100, "Too few to say"),
        (20, 380, "'x' is behind 100% of the aborts"),
        (40, 5, "split it"),
    ],
)
def test_advice_is_given_where_one_attempt_in_twenty_is_in_vain(x, aborts, commits, advice):
    with stats.enabled():
        conflicts(x, aborts, commits)
    text = "\n".join(report())
    assert advice in text
    assert ("split it" in text) == (advice not in ("Fewer than one attempt in twenty", "Too few to say"))


def test_the_report_says_where_conflicts_come_from(x, y):
    with stats.enabled():
        conflicts(x, 30, 10)
        conflicts(y, 10, 10)
    lines = report()
    start = lines.index("Where conflicts come from")
    assert [line.split() for line in lines[start + 1 : start + 5 : 2]] == [
        ["variable", "aborts", "share", "of"],
        ["x", "30", "75%", "compare_and_set", "(40)".replace("40", "30")],
    ]
    assert lines[start + 1].index("of") == lines[start + 3].index("compare_and_set")


def test_the_report_lists_who_is_blocked(x):
    waiting = [Background(run, lambda: check(x.value)) for _ in range(12)]
    asleep(12)
    lines = report()
    x.set(1)
    for one in waiting:
        one.result()
    assert lines[0].startswith("No transactions")
    assert "Blocked at this moment: 12" in lines
    assert lines[-1] == "... and 2 more (stm.stats.blocked() lists all)"


# ---------------------------------------------------------------------------------------------- blocked


def test_blocked_names_the_transaction_its_variables_the_thread_and_the_line(x):
    @atomically(name="wait for x")
    def wait():
        check(x.value)

    def caller():
        wait()  # this line

    background = Background(caller)
    background.thread.name = "the waiting one"
    asleep()
    (one,) = stats.blocked()
    x.set(1)
    background.result()
    assert stats.blocked() == ()
    assert (one.name, one.variables, one.thread, one.task) == ("wait for x", ("<TVar 'x' 0>",), "the waiting one", None)
    number = caller.__code__.co_firstlineno + 1
    assert one.where == one.stack[0] == f"{__file__}:{number} in caller: wait()  # this line"
    assert 0 <= one.seconds < 60
    assert str(one).splitlines() == [
        f"wait for x, in thread 'the waiting one', for {stats._duration(one.seconds)}",
        "  waits for a change of <TVar 'x' 0>",
        f"  at {one.where}",
    ]
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.name = "other"


def test_blocked_shows_the_callers_line_not_a_line_of_this_library(x):
    names = {"run": run, "check": check, "x": x}
    code = "def get():\n    def body():\n        check(x.value)\n    return run(body)\n"
    exec(compile(code, os.path.join(os.path.dirname(stats.__file__), "collections", "any.py"), "exec"), names)

    def caller():
        return names["get"]()

    background = Background(caller)
    asleep()
    (one,) = stats.blocked()
    x.set(1)
    background.result()
    assert one.where.startswith(f"{__file__}:{caller.__code__.co_firstlineno + 1} in caller")
    assert not [line for line in one.stack if f"{os.sep}stm{os.sep}collections" in line]


def test_blocked_lists_the_longest_first(x):
    waiting = []
    for number in range(3):
        waiting.append(Background(run, lambda: check(x.value)))
        asleep(number + 1)
    threads = [one.thread for one in stats.blocked()]
    x.set(1)
    for one in waiting:
        one.result()
    assert threads == [one.thread.name for one in waiting]


def test_blocked_mentions_four_variables_and_counts_the_others(x):
    variables = [TVar(0, name=str(number)) for number in range(6)]
    background = Background(run, lambda: check(sum(one.value for one in variables)))
    asleep()
    (one,) = stats.blocked()
    variables[5].set(1)
    background.result()
    assert len(one.variables) == 6
    assert "<TVar '3' 0> and 2 more" in str(one)
    assert one.name.endswith("<lambda>")


def test_blocked_forgets_who_timed_out_or_was_interrupted(x):
    with pytest.raises(TransactionTimeout):
        run(lambda: check(x.value), timeout=0.002)
    assert stats.blocked() == ()


async def blocked_soon(count):
    while len(stats.blocked()) < count:
        await asyncio.sleep(0)
    return stats.blocked()


def test_blocked_tasks_are_named_with_the_lines_that_await_each_other(x):
    @aio.atomically
    def take():
        check(x.value)

    async def inner():
        await take()

    async def outer():
        await inner()

    class Awaitable:
        def __await__(self):
            yield from inner().__await__()

    async def roundabout():
        await Awaitable()

    async def main():
        task = asyncio.create_task(outer(), name="the task")
        (one,) = await blocked_soon(1)
        other = asyncio.create_task(roundabout(), name="the other")
        _, second = await blocked_soon(2)
        bare = asyncio.create_task(take(), name="bare")
        *_, third = await blocked_soon(3)
        bare.cancel()
        await asyncio.gather(bare, return_exceptions=True)
        assert len(stats.blocked()) == 2
        await aio.run(x.set, 1)
        await asyncio.gather(task, other)
        return one, second, third

    one, second, third = asyncio.run(main())
    assert (one.name, one.task, one.thread) == (take.__qualname__.rpartition("<locals>.")[2], "the task", "MainThread")
    here = [f"{__file__}:{function.__code__.co_firstlineno + 1} in {function.__name__}" for function in (inner, outer)]
    assert [line.partition(": ")[0] for line in one.stack] == here
    assert one.where == one.stack[0]
    assert "task 'the task' of thread 'MainThread'" in str(one)
    assert " in __await__" in second.where
    assert " in roundabout" in second.stack[-1]
    assert " in take" in third.where  # nobody awaits it in a line: where its body is


def test_looking_at_who_is_blocked_disturbs_nobody(x):
    stop = []

    def wait():
        while not stop:
            seen = x.value
            try:
                run(lambda: check(x.value != seen), timeout=0.001)
            except TransactionTimeout:
                pass

    waiting = [Background(wait) for _ in range(3)]
    try:
        for number in range(1000):
            for one in stats.blocked():
                assert "test_stats.py" in one.where
            x.set(number)
    finally:
        stop.append(1)
        for one in waiting:
            one.result()
