"""Promise 8: an exception that strikes from outside leaves all of a commit or none of it, no lock, and is not lost.

Two kinds of test. One raises at *every* point at which CPython could deliver a signal inside `stm`, one after the
other: when a function is entered, when a call has returned, before a jump back. The other throws real signals.
"""

import dis
import gc
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import stm
from stm import (
    TransactionTimeout,
    TVar,
    atomically,
    check,
    in_transaction,
    on_commit,
    on_rollback,
    or_else,
    run,
    stats,
)
from stm.clock import clock
from tests.injector import Bolt, codes_of_stm, injected
from tests.support import Background, Once, asleep, elsewhere


class Scenario:
    """Some variables that each transaction changes together: they must always be equal."""

    count = 2
    options: dict[str, Any] = {}

    def __init__(self) -> None:
        self.variables = [TVar(0) for _ in range(self.count)]
        self.log: list[str] = []

    def body(self) -> None:
        for variable in self.variables:
            variable.value += 1

    def go(self) -> None:
        atomically(**self.options)(self.body)() if self.options else self.decorated()

    def decorated(self) -> None:
        atomically(self.body)()

    def prepare(self) -> None:
        pass

    def settle(self) -> None:
        pass


class One(Scenario):
    count = 1


class Two(Scenario):
    pass


class Five(Scenario):
    count = 5


class Standalone(Scenario):
    count = 1

    def go(self) -> None:
        self.variables[0].set(1)


class Exchange(Scenario):
    count = 1

    def go(self) -> None:
        self.variables[0].compare_and_set(self.variables[0].get(), 1)


class Counted(Scenario):
    """While statistics are on."""

    def prepare(self) -> None:
        stats.enable()

    def settle(self) -> None:
        stats.disable()


class Timed(Scenario):
    options = {"timeout": 50}


class Irrevocable(Scenario):
    options = {"irrevocable": True}


class ReadOnly(Scenario):
    options = {"read_only": True}

    def body(self) -> None:
        first = self.variables[0].value
        elsewhere_quietly(lambda: run(lambda: [variable.set(first + 1) for variable in self.variables]))
        assert self.variables[1].value == first


class Nested(Scenario):
    def body(self) -> None:
        inner = atomically(super().body)
        inner()
        try:
            atomically(self.fail)()
        except ZeroDivisionError:
            pass
        or_else(lambda: (self.variables[0].set(-5), stm.retry()), lambda: None)

    def fail(self) -> None:
        self.variables[0].set(-1)
        self.variables[1].set(-2)
        raise ZeroDivisionError


class NestedIrrevocable(Scenario):
    def body(self) -> None:
        atomically(irrevocable=True)(super().body)()


class Hooked(Scenario):
    """Of each attempt's two hooks one runs, and the right one. The first attempt is disturbed."""

    def prepare(self) -> None:
        self.other = TVar(0)
        self.attempts = 0
        self.registered: list[int] = []

    def body(self) -> None:
        self.attempts += 1
        number = self.attempts
        on_commit(self.log.append, f"commit {number}")
        on_rollback(self.log.append, f"rollback {number}")
        self.registered.append(number)
        _ = self.other.value
        super().body()
        if number == 1:
            elsewhere_quietly(lambda: self.other.set(1))

    def settle(self) -> None:
        fates = [f"rollback {number}" for number in self.registered]
        if self.variables[0].value:
            fates[-1] = f"commit {self.registered[-1]}"
        assert [entry for entry in self.log if int(entry.split()[1]) in self.registered] == fates


class HookedTimed(Hooked):
    options = {"timeout": 60}


#: Aborts after which a transaction insists here. (There are as many more points as it takes attempts, and each of them
#: costs a run of as many more.)
INSIST_SOON = 4


@pytest.fixture(autouse=True)
def insists_soon(monkeypatch):
    monkeypatch.setattr("stm.execution.INSIST_AFTER", INSIST_SOON)


class Conflicting(Scenario):
    """Each of the first attempts is disturbed, so that it backs off and in the end insists."""

    def prepare(self) -> None:
        self.runs = 0
        self.other = TVar(0)

    def body(self) -> None:
        self.runs += 1
        _ = self.other.value
        if self.runs <= INSIST_SOON:
            elsewhere_quietly(lambda: self.other.update(lambda value: value + 1))
        super().body()


class Waiting(Scenario):
    """Waits in vain."""

    options = {"timeout": 0.001}

    def body(self) -> None:
        check(self.variables[0].value < 0)

    def go(self) -> None:
        try:
            super().go()
        except TransactionTimeout:
            pass


class Waking(Scenario):
    """Commits while another thread sleeps on one of the variables."""

    def prepare(self) -> None:
        def wait() -> int:
            check(self.variables[1].value)
            return self.variables[1].value

        self.sleeper = Background(run, wait)
        asleep()

    def settle(self) -> None:
        if self.variables[1].value == 0:
            run(super().body)
        assert self.sleeper.result() == 1


class UnderSnapshot(Scenario):
    """Commits while another thread reads a snapshot."""

    def prepare(self) -> None:
        self.entered, self.leave = threading.Event(), threading.Event()

        def look() -> list[int]:
            seen = [self.variables[0].value]
            self.entered.set()
            self.leave.wait(60)
            return [*seen, *(variable.value for variable in self.variables)]

        self.reader = Background(lambda: run(look, read_only=True))
        self.entered.wait(60)

    def settle(self) -> None:
        self.leave.set()
        assert set(self.reader.result()) == {0}


def elsewhere_quietly(fn: Any) -> None:
    """Only the scenario's own thread is a target."""
    elsewhere(fn)


def check_after(scenario: Scenario) -> None:
    assert not in_transaction()
    assert not clock.lock._is_owned()  # type: ignore[attr-defined]
    assert not clock.exclusive._is_owned()  # type: ignore[attr-defined]
    values = {variable.peek() for variable in scenario.variables}
    assert len(values) == 1, f"torn: {values}"
    assert all(variable._cell[1] <= clock.now for variable in scenario.variables)
    scenario.settle()
    elsewhere(run, lambda: [variable.update(lambda value: value + 1) for variable in scenario.variables])
    run(lambda: [variable.update(lambda value: value + 1) for variable in scenario.variables])


@pytest.mark.parametrize(
    "kind",
    [
        One,
        Two,
        Five,
        Standalone,
        Exchange,
        Counted,
        Timed,
        Irrevocable,
        ReadOnly,
        Nested,
        NestedIrrevocable,
        Hooked,
        HookedTimed,
        Conflicting,
        Waiting,
        Waking,
        UnderSnapshot,
    ],
)
def test_an_exception_at_every_point(kind):
    scenario = kind()
    scenario.prepare()
    with injected(None) as counter:
        scenario.go()
    check_after(scenario)
    total = counter.count
    assert total >= 3
    struck = 0
    for at in range(total):
        scenario = kind()
        scenario.prepare()
        raised = None
        with injected(at) as injector:
            try:
                scenario.go()
            except Bolt as bolt:
                raised = bolt
        check_after(scenario)
        if injector.struck:
            struck += 1
            assert raised is not None, "the exception was swallowed"
    assert struck >= 3


@pytest.mark.parametrize("kind", [One, Two, Five, Timed, Irrevocable, Nested, Hooked])
def test_at_every_point_of_a_commit_others_see_all_or_nothing(kind):
    scenario = kind()
    scenario.prepare()
    with injected(None) as counter:
        scenario.go()
    seen: list[tuple[int, ...]] = []
    for at in range(counter.count):
        scenario = kind()
        scenario.prepare()
        variables = scenario.variables

        def look() -> None:
            seen.append(elsewhere(run, lambda: tuple(variable.value for variable in variables)))
            seen.append(elsewhere(stm.snapshot, *variables))

        with injected(at, look):
            scenario.go()
        assert scenario.variables[0].value == 1
    assert {len(set(values)) for values in seen} == {1}
    assert {values[0] for values in seen} == {0, 1}


@pytest.mark.parametrize("by", ["another thread", "a signal handler"])
def test_at_every_point_of_a_wait_a_commit_wakes(by, monkeypatch):
    """No wake-up is lost, wherever the change comes: while the transaction reads, glances, registers or sleeps."""
    monkeypatch.setattr(stm.waiting, "GLANCES", 2)  # a fixed number, however long they take
    monkeypatch.setattr(stm.waiting, "GLANCING", 60)
    monkeypatch.setattr(stm.waiting._Luck, "allows", lambda luck: True)
    x = TVar(0)

    def wait() -> int:
        check(x.value)
        return x.value

    with injected(None) as counter:

        def wake() -> int:
            asleep()
            before = -1
            while before != counter.count:  # it comes to rest in the call that blocks
                before = counter.count
                time.sleep(0.05)
            x.set(1)
            return before

        waker = Background(wake)
        run(wait, timeout=100)
    points_before_sleep = waker.result()
    assert points_before_sleep > 20
    for at in range(points_before_sleep):
        x = TVar(0)
        commits: list[Background] = []

        def change() -> None:
            if by == "a signal handler" and not in_transaction():  # in the body it would join, and be discarded
                x.set(1)
                return
            commits.append(Background(x.set, 1))
            if not clock.lock._is_owned():
                commits[0].result()

        begun = time.monotonic()
        with injected(at, change):
            assert run(wait, timeout=100) == 1
        assert time.monotonic() - begun < 50, "it slept until its time was up"
        for commit in commits:
            commit.result()


def test_no_jump_back_escapes_the_handler_of_its_try():
    """CPython 3.14 does not cover every jump backward inside a `try` by its exception table (see `transaction`)."""
    takes_locks = [code for code in codes_of_stm() if {"acquire", "acquire_exclusive"} & set(code.co_names)]
    assert len(takes_locks) >= 6
    for code in takes_locks:
        entries = dis.Bytecode(code).exception_entries
        for target in {entry.target for entry in entries}:
            ranges = [(entry.start, entry.end) for entry in entries if entry.target == target]
            inside = range(min(start for start, _ in ranges), max(end for _, end in ranges))
            for instruction in dis.get_instructions(code):
                offset = instruction.offset
                if instruction.opname == "JUMP_BACKWARD" and offset in inside:
                    covered = any(entry.start <= offset < entry.end for entry in entries)
                    assert covered, f"{code.co_qualname}, line {instruction.positions.lineno}"


# ---------------------------------------------------------------------------------------------- real signals


class Storm(Exception):
    """An ordinary `Exception`, so that it could be mistaken for one of the body's own."""


@contextmanager
def thunder() -> Iterator[list[int]]:
    """SIGALRM raises `Storm`; the list counts how often it did."""
    thrown: list[int] = []

    def handler(number: int, frame: Any) -> None:
        thrown.append(number)
        raise Storm

    before = signal.signal(signal.SIGALRM, handler)
    gc.disable()  # a signal that strikes in a callback of the collector (pytest's plugins have some) is lost to CPython
    try:
        yield thrown
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        gc.enable()


def until_struck(fn: Callable[[], object], thrown: list[int], choose: random.Random) -> bool:
    """Call `fn` again and again until a signal interrupts it. Was its exception there to be caught?"""
    already = len(thrown)

    def go_on() -> None:  # apart from the `try`, which on some versions does not cover the jump back of a loop
        while len(thrown) == already:
            fn()

    try:
        signal.setitimer(signal.ITIMER_REAL, choose.uniform(1e-5, 1e-3))
        go_on()
    except Storm:
        return True
    return False


@pytest.mark.parametrize("count", [1, 2, 3, 20])
@pytest.mark.parametrize("options", [{}, {"timeout": 100}, {"irrevocable": True}])
def test_a_storm_of_signals_tears_nothing_and_none_is_swallowed(count, options):
    choose = random.Random(count)
    variables = [TVar(0) for _ in range(count)]

    @atomically(**options)
    def bump():
        for variable in variables:
            variable.value += 1

    rounds = 150
    caught = 0
    with thunder() as thrown:
        for _ in range(rounds):
            caught += until_struck(bump, thrown, choose)
            assert len({variable.peek() for variable in variables}) == 1
            assert not in_transaction()
            assert not clock.lock._is_owned()
    assert caught == len(thrown) == rounds
    elsewhere(bump)


def test_a_signal_in_a_body_with_stale_reads_is_not_swallowed():
    x, y = TVar(0), TVar(0)
    runs = []

    @atomically
    def body():
        runs.append(x.value)
        elsewhere(x.update, lambda value: value + 1)
        y.value += 1
        signal.raise_signal(signal.SIGALRM)

    with thunder() as thrown, pytest.raises(Storm):
        body()
    assert (len(thrown), len(runs), y.value) == (1, 1, 0)


def test_a_signal_while_others_make_every_read_stale():
    """The storm again, while two threads keep changing what the interrupted transactions read."""
    x, y = TVar(0), TVar(0)
    stop = threading.Event()

    @atomically
    def bump():
        x.value += 1
        y.value += 1

    def work():
        while not stop.is_set():
            bump()

    others = [Background(work) for _ in range(2)]
    caught, rounds = 0, 100
    choose = random.Random(5)
    with thunder() as thrown:
        for _ in range(rounds):
            caught += until_struck(bump, thrown, choose)
            assert not in_transaction()
    stop.set()
    for other in others:
        other.result()
    assert caught == len(thrown) == rounds
    assert x.value == y.value


@pytest.mark.parametrize("number", [signal.SIGALRM, signal.SIGINT])
def test_signals_that_interrupt_a_wait(number):
    """Also by Ctrl-C. It leaves no waiter.

    A signal that arrives in the instant before the lock blocks may be noticed with the next one: such is CPython, for
    its own locks too. So the signal is sent until it has had its effect, and its handler raises once.
    """
    x = TVar(0)
    main = threading.main_thread().ident
    rounds = 20
    armed: list[bool] = []
    thrown: list[int] = []

    def handler(signal_number: int, frame: Any) -> None:
        if armed:
            armed.clear()
            thrown.append(signal_number)
            raise Bolt

    def strike() -> None:
        for _ in range(rounds):
            asleep()
            waiter = next(iter(clock.sleepers))
            while waiter in clock.sleepers:
                signal.pthread_kill(main, number)
                time.sleep(0.002)

    before = signal.signal(number, handler)
    try:
        background = Background(strike)
        for _ in range(rounds):
            armed.append(True)
            with pytest.raises(Bolt):
                run(lambda: check(x.value))
            assert not x._waiters
            assert not in_transaction()
        background.result()
    finally:
        signal.signal(number, before)
    assert len(thrown) == rounds


def test_ctrl_c_in_the_moment_before_the_sleep_is_not_overlooked():
    """`Lock.acquire` does not look for signals that come just before it sleeps. (Without the GIL it spins meanwhile:
    most of these rounds would end only when their time is up.)"""
    x = TVar(0)
    main = threading.main_thread().ident
    rounds, patience = 100, 0.5
    begin = threading.Semaphore(0)

    def strike() -> None:
        for number in range(rounds):
            begin.acquire()
            while not clock.sleepers:
                pass
            for _ in range(number * 10):
                pass
            signal.pthread_kill(main, signal.SIGINT)

    background = Background(strike)
    late = 0
    for _ in range(rounds):
        begun = time.monotonic()
        begin.release()
        with pytest.raises(KeyboardInterrupt):
            run(lambda: check(x.value), timeout=patience)
        late += time.monotonic() - begun >= patience
    background.result()
    assert late <= 1  # (see above)


def test_a_handler_may_transact_while_it_interrupts_a_commit():
    x, y, seen = TVar(0), TVar(0), TVar(0)
    handled, in_commit = [], []

    @atomically
    def bump():
        x.value += 1
        y.value += 1

    @atomically
    def in_handler():
        seen.value += 1
        return x.value, y.value

    def handler(number, frame):
        if not in_transaction():  # in a body it would join it
            in_commit.append(clock.lock._is_owned())
            handled.append(in_handler())

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)
    try:
        while len(handled) < 500 or sum(in_commit) < 5:
            bump()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert x.value == y.value
    assert seen.value == len(handled)


def test_an_asynchronous_exception_from_another_thread():
    """PyThreadState_SetAsyncExc, as debuggers and watchdogs use it."""
    import ctypes

    x, y = TVar(0), TVar(0)
    ready = threading.Event()

    def work():
        try:
            while True:
                run(lambda: (x.set(x.value + 1), y.set(y.value + 1)))
                ready.set()
        except Bolt:
            return "struck"

    background = Background(work)
    ready.wait(60)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(background.thread.ident), ctypes.py_object(Bolt))
    assert background.result() == "struck"
    assert x.value == y.value
    assert Once()
