"""Code that runs uninvited: signal handlers and finalizers that transact, or raise, while the library is at work.

`at_every_point` makes a handler strike at each point where CPython could deliver a signal inside `stm`, one run each.
"""

import gc
import signal
import sys
import threading
import time

import pytest

from stm import (
    TransactionTimeout,
    TVar,
    after,
    atomically,
    check,
    in_transaction,
    on_commit,
    or_else,
    retry,
    run,
    snapshot,
)
from stm.clock import clock
from stm.transaction import descriptor
from stm.waiting import _glance, _Luck
from tests.injector import Bolt, injected
from tests.support import Background, Once, elsewhere


def at_every_point(make):
    """`make()` returns (what to run, what the handler does, what must hold afterwards), all fresh."""
    go, _, verify = make()
    with injected(None) as counter:
        go()
    verify(False)
    assert counter.count > 5
    for at in range(counter.count):
        go, handler, verify = make()
        with injected(at, handler) as injector:
            go()
        try:
            verify(injector.struck)
            assert not in_transaction()
            assert descriptor().scope is None
            assert descriptor().extras is None
            assert descriptor().fate is None
        except BaseException as error:
            error.add_note(f"the handler struck at point {at}")
            raise


def test_a_handler_that_reads_while_the_body_extends():
    def make():
        x, y = TVar(0), TVar(0)
        first = Once()
        seen = []

        def both(value):
            elsewhere(run, lambda: (x.set(value), y.set(value)))

        def handler():
            both(2)
            _ = y.value

        @atomically
        def body():
            if first:
                both(1)
            return x.value, y.value

        def verify(struck):
            assert seen[0][0] == seen[0][1], seen

        return lambda: seen.append(body()), handler, verify

    at_every_point(make)


@pytest.mark.parametrize("options", [{}, {"timeout": 60}, {"irrevocable": True}])
def test_a_handler_with_a_transaction_of_its_own(options):
    def make():
        x, y, mine, calls = TVar(0), TVar(0), TVar(0), []

        def handler():
            if not in_transaction():
                run(lambda: (mine.update(lambda value: value + 1), on_commit(calls.append, "handler")))
                run(lambda: mine.value, read_only=True)

        @atomically
        def fails():
            x.set(-1)
            raise ZeroDivisionError

        @atomically(**options)
        def body():
            on_commit(calls.append, "body")
            try:
                fails()
            except ZeroDivisionError:
                pass
            if not options.get("irrevocable"):
                or_else(lambda: (x.set(-2), retry()), lambda: None)
            x.value += 1
            y.value += 1

        def verify(struck):
            assert (x.value, y.value, calls.count("body")) == (1, 1, 1)
            assert mine.value == calls.count("handler") <= 1

        return body, handler, verify

    at_every_point(make)


def test_a_handler_that_commits_while_history_is_trimmed_and_swept():
    def make():
        x, mine = TVar(0), TVar(0)
        short = atomically(read_only=True)(lambda: (x.value, elsewhere(x.update, lambda v: v + 1), x.value))

        def handler():
            if not in_transaction():
                mine.set(1)

        def go():
            for _ in range(2):
                one, _, two = short()
                assert one == two

        def verify(struck):
            x.set(0)
            assert not clock.history

        return go, handler, verify

    at_every_point(make)


def test_an_exception_that_the_body_catches_leaves_no_part_of_a_nested_scope():
    """Whatever strikes in a nested transaction, at its entry, its end or its undoing: all of it counts, or nothing."""

    def make():
        x, y, z, other = TVar(0), TVar(0), TVar(0), TVar(0)

        @atomically
        def nested(fail):
            x.value += 1
            inner()
            y.value += 1
            if fail:
                raise ZeroDivisionError

        @atomically
        def inner():
            other.value += 1
            or_else(lambda: (x.set(100), z.set(100), retry()), lambda: None)

        @atomically
        def body():
            for fail in (False, True):
                try:
                    nested(fail)
                except (ZeroDivisionError, Bolt):
                    pass
                assert x.value == y.value == other.value
                assert z.value == 0

        def go():
            try:
                body()
            except Bolt:
                pass

        def raise_bolt():
            raise Bolt

        def verify(struck):
            assert x.value == y.value == other.value
            assert x.value in (0, 1)
            assert z.value == 0
            run(lambda: x.set(0))  # a scope left over would show

        return go, raise_bolt, verify

    at_every_point(make)


@pytest.mark.parametrize("size", [1, 3])
def test_a_handler_that_commits_in_mid_commit_while_another_thread_is_exclusive(size):
    """It must wait for the other thread, which waits for the lock that the interrupted commit holds."""

    def make():
        variables, mine = [TVar(0) for _ in range(size)], TVar(0)
        entered, leave = threading.Event(), threading.Event()

        def exclusive():
            entered.set()
            leave.wait(60)
            mine.value += 10

        def go():
            owner = Background(lambda: run(exclusive, irrevocable=True))
            entered.wait(60)
            threading.Timer(0.005, leave.set).start()
            run(lambda: [variable.set(1) for variable in variables])
            owner.result()

        def handler():
            if not in_transaction():
                mine.update(lambda value: value + 1)

        def verify(struck):
            assert {variable.value for variable in variables} == {1}
            assert mine.value in (10, 11)

        return go, handler, verify

    at_every_point(make)


def test_ctrl_c_survives_cleanup_code_that_finds_the_attempt_stale():
    x, y = TVar(0), TVar(0)
    runs = []

    @atomically
    def body():
        runs.append(x.value)
        try:
            elsewhere(run, lambda: (x.set(1), y.set(1)))
            signal.raise_signal(signal.SIGINT)
        finally:
            _ = y.value

    with pytest.raises(KeyboardInterrupt):
        body()
    assert len(runs) == 1


def test_ctrl_c_survives_being_translated():
    x = TVar(0)

    @atomically
    def body():
        _ = x.value
        elsewhere(x.set, 1)
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as error:
            raise LookupError from error

    with pytest.raises(KeyboardInterrupt):
        body()


def test_an_interrupt_that_was_handled_before_the_transaction_is_none_of_its_business():
    a, b = TVar(0), TVar(0)
    first = Once()

    @atomically
    def body():
        x = a.value
        if first:
            elsewhere(run, lambda: (a.set(1), b.set(1)))
        return x, b.value

    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert body() == (1, 1)


def test_a_handler_that_outlasts_the_time_limit_of_the_wait_it_interrupts():
    x = TVar(0)

    def handler(number, frame):
        limit = time.monotonic() + 0.1
        while time.monotonic() < limit:
            pass

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with pytest.raises(TransactionTimeout):
            run(lambda: check(x.value), timeout=0.05)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_recursion_to_the_limit_does_not_run_for_ever():
    for offset in range(6):
        x = TVar(0)
        runs = []

        @atomically
        def deep():
            x.value += 1
            return deep()

        @atomically
        def body():
            runs.append(1)
            assert len(runs) < 40, "it runs again and again"
            try:
                deep()
            except RecursionError:
                pass
            return x.value

        def start(depth):
            return body() if depth == 0 else start(depth - 1)

        assert start(offset) == 0


# ---------------------------------------------------------------------------------------------- related findings


def test_reads_outside_a_transaction_follow_the_order_of_commits():
    variables = [TVar(0) for _ in range(200)]
    stop = threading.Event()

    @atomically
    def bump(number):
        for variable in variables:
            variable.set(number)

    def work():
        number = 0
        while not stop.is_set():
            number += 1
            bump(number)

    background = Background(work)
    first, last = variables[0], variables[-1]
    wrong = 0
    for _ in range(20_000):
        one = first.value
        wrong += last.value < one
        one = first.peek()
        wrong += last.peek() < one
        one = first.value
        wrong += run(lambda: last.value) < one
    stop.set()
    background.result()
    assert not wrong


def test_timers_do_not_disturb_an_irrevocable_transaction():
    for look in (snapshot, lambda timer: timer.peek(), repr):
        late, x = after(0.01), TVar(0)
        runs = []

        def body():
            runs.append(late.value)
            limit = time.monotonic() + 0.02
            while time.monotonic() < limit:
                pass
            look(late)
            x.set(1)

        run(body, irrevocable=True)
        assert len(runs) == 1


def test_timers_do_not_wait_for_an_exclusive_transaction():
    entered, leave = threading.Event(), threading.Event()
    owner = Background(lambda: run(lambda: (entered.set(), leave.wait(60)), irrevocable=True))
    entered.wait(60)
    late = after(0)
    assert late.value
    assert late.peek()
    assert run(lambda: late.value, read_only=True)
    assert snapshot(late) == (True,)
    leave.set()
    owner.result()


def test_the_time_limit_of_a_nested_run_counts_from_its_first_entry():
    x = TVar(0)
    stop = threading.Event()

    def disturb():
        while not stop.is_set():
            x.value += 1

    def inner():
        check(x.value < 0)

    background = Background(disturb)
    try:
        with pytest.raises(TransactionTimeout, match=r"0\.1 s"):
            run(lambda: run(inner, timeout=0.1), timeout=50)
        with pytest.raises(TransactionTimeout, match=r"0\.1 s"):
            run(lambda: atomically(timeout=0.1)(lambda: check(x.value < 0))(), timeout=50)
    finally:
        stop.set()
        background.result()


def test_no_time_at_all_is_enough_for_an_irrevocable_transaction_that_nobody_hinders():
    never = TVar(0)
    stop = threading.Event()
    sleeper = Background(lambda: run(lambda: check(never.value)))

    def disturb():
        mine = TVar(0)  # no conflicts: those might make the writers exclusive
        while not stop.is_set():
            mine.value += 1

    writers = [Background(disturb) for _ in range(2)]
    for _ in range(300):
        assert run(lambda: 5, timeout=0, irrevocable=True) == 5
    stop.set()
    never.set(1)
    for one in (*writers, sleeper):
        one.result()


def test_glances_respect_the_deadline(monkeypatch):
    monkeypatch.setattr(_Luck, "allows", lambda luck: True)  # not what earlier tests have taught it
    x = TVar(0)
    assert not _glance({x: x._cell}, time.monotonic())
    elsewhere(x.set, 1)
    assert _glance({x: (0, 0, None)}, None)


@pytest.mark.parametrize("timeout", [10**400, float("inf"), 1e300, sys.maxsize])
def test_any_great_number_is_a_time_limit(timeout):
    assert run(lambda: 1, timeout=timeout) == 1
    assert not after(timeout).value


class Hail(KeyboardInterrupt):
    pass


@pytest.mark.parametrize("options", [{}, {"irrevocable": True}])
def test_signals_that_do_not_stop(options):
    """A signal every 50 microseconds, so that many strike while an earlier one is being dealt with."""
    variables, never = [TVar(0) for _ in range(3)], TVar(0)
    state = {"armed": False, "thrown": 0}

    def handler(number, frame):
        if state["armed"]:
            state["thrown"] += 1
            raise Hail

    @atomically(**options)
    def bump():
        for variable in variables:
            variable.value += 1

    @atomically(timeout=0.0003)
    def wait():
        check(never.value)

    @atomically(read_only=True)
    def look():
        return {variable.value for variable in variables}

    def work():
        state["armed"] = True
        while True:
            bump()
            assert len(look()) == 1
            try:
                wait()
            except TransactionTimeout:
                pass

    def round_of_work():
        try:
            work()
        finally:
            state["armed"] = False

    before = signal.signal(signal.SIGALRM, handler)
    gc.disable()  # what strikes in a callback of the collector is lost to CPython
    signal.setitimer(signal.ITIMER_REAL, 1e-4, 5e-5)
    caught = 0
    try:
        while caught < 2_000:
            try:
                round_of_work()
            except Hail:
                caught += 1
            assert len(set(snapshot(*variables))) == 1
            assert not in_transaction()
            assert not clock.lock._is_owned()
            assert not clock.exclusive._is_owned()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        gc.enable()
    assert state["thrown"] >= caught
    elsewhere(bump)
