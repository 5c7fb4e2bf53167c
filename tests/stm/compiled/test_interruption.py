"""Promise 8 in both tiers: an exception from outside at any point leaves all of a commit or none of it, and no lock.

The tools, and what is checked after each strike, are those of `tests/stm/test_interruption.py`.
"""

import gc
import itertools
from typing import Any

import pytest

import stm
from stm import TVar, atomically, check, compiled, on_commit, or_else, run
from stm.clock import clock
from stm.compiled import TArray, runtime
from stm.compiled.log import IDLE, STATE
from stm.compiled.runtime import get_word, own, take_log
from tests.injector import Bolt, injected
from tests.stm.compiled.shared import both, put, take
from tests.stm.test_interruption import (
    INSIST_SOON,
    Scenario,
    check_after,
    elsewhere_quietly,
    insists_soon,  # noqa: F401 - a fixture that all tests here use
)
from tests.support import Background, asleep, elsewhere, until


class Element:
    """An element of an array, with the methods of a variable."""

    _cell = (None, 0, None)

    def __init__(self, array: TArray, index: int) -> None:
        self.array = array
        self.index = index

    def get(self) -> Any:
        return self.array[self.index]

    def set(self, value: Any) -> None:
        self.array[self.index] = value

    value = property(get, set)

    def peek(self) -> Any:
        return self.array.peek(self.index)

    def update(self, f: Any) -> None:
        def body() -> None:
            self.value = f(self.value)

        run(body)


class Mixed(Scenario):
    """A variable and two elements of an array."""

    def __init__(self) -> None:
        super().__init__()
        self.array = TArray([0, 0])
        self.variables: list[Any] = [TVar(0), Element(self.array, 0), Element(self.array, 1)]


class ElementsOnly(Mixed):
    def __init__(self) -> None:
        super().__init__()
        self.variables = self.variables[1:]


class MixedIrrevocable(Mixed):
    options = {"irrevocable": True}


class MixedTimed(Mixed):
    options = {"timeout": 50}


class MixedReadOnly(Mixed):
    options = {"read_only": True}

    def body(self) -> None:
        first = self.variables[0].value
        assert self.variables[1].value == first


class MixedNested(Mixed):
    def body(self) -> None:
        inner = atomically(super().body)
        inner()
        try:
            atomically(self.fail)()
        except ZeroDivisionError:
            pass
        or_else(lambda: (self.variables[1].set(-5), stm.retry()), lambda: None)

    def fail(self) -> None:
        self.variables[2].set(-1)
        raise ZeroDivisionError


class Joined(Mixed):
    """A compiled call inside, beside a variable."""

    def body(self) -> None:
        self.variables[0].value += 1
        both(self.array, 1)
        on_commit(self.log.append, "committed")


class Called(ElementsOnly):
    """A compiled call of its own."""

    def go(self) -> None:
        both(self.array, 1)


class Mapped(ElementsOnly):
    def go(self) -> None:
        both.map(self.array, [1], threads=1)


class MixedConflicting(Mixed):
    """Each of the first attempts is disturbed, so that it backs off and in the end insists."""

    def prepare(self) -> None:
        self.runs = 0
        self.other = TArray([0])

    def body(self) -> None:
        self.runs += 1
        _ = self.other[0]
        if self.runs <= INSIST_SOON:
            elsewhere_quietly(lambda: put(self.other, 0, 1))
        super().body()


class Sliced(ElementsOnly):
    def body(self) -> None:
        self.array[:] = self.array.to_numpy() + 1


class MixedWaking(Mixed):
    """Commits while another thread sleeps on one of the elements."""

    def prepare(self) -> None:
        def wait() -> int:
            check(self.array[1] > 0)
            return int(self.array[1])

        self.sleeper = Background(run, wait)
        asleep()

    def settle(self) -> None:
        if self.variables[1].value == 0:
            run(super().body)
        assert self.sleeper.result() == 1


class CalledWaking(MixedWaking):
    def __init__(self) -> None:
        super().__init__()
        self.variables = self.variables[1:]

    def go(self) -> None:
        both(self.array, 1)

    def settle(self) -> None:
        if self.variables[0].value == 0:
            both(self.array, 1)
        assert self.sleeper.result() == 1


def check_after_both(scenario: Scenario) -> None:
    check_after(scenario)
    assert not get_word(0) & 3, "the array clock was left taken or held"
    assert clock.owner is None
    left = own().log.words[STATE // 8]
    assert left == IDLE, "the thread's log was left in use"


KINDS = [
    Mixed,
    ElementsOnly,
    MixedIrrevocable,
    MixedTimed,
    MixedReadOnly,
    MixedNested,
    Joined,
    Called,
    Mapped,
    MixedConflicting,
    Sliced,
    MixedWaking,
    CalledWaking,
]


def test_no_log_is_lost_whatever_strikes_who_takes_it():
    """What a log has allocated would be lost with it, and nobody would miss it but the memory."""
    take_log()  # (and give it back, so that there is one)
    gc.collect()
    logs = {back.log for back in runtime._returned}
    assert logs
    for at in itertools.count():
        with injected(at) as injector:
            try:
                take_log()
            except Bolt:
                pass
        assert {back.log for back in runtime._returned} == logs, f"point {at}"
        assert len(runtime._returned) == len(logs), f"point {at}: one log is there twice"
        if not injector.struck:
            break
    assert at > 5


@pytest.mark.parametrize("kind", KINDS)
def test_an_exception_at_every_point(kind):
    kind().go() if kind not in (MixedConflicting,) else None  # compiled, and whatever is made once
    scenario = kind()
    scenario.prepare()
    with injected(None) as counter:
        scenario.go()
    check_after_both(scenario)
    struck = 0
    for at in range(counter.count):
        scenario = kind()
        scenario.prepare()
        raised = None
        with injected(at) as injector:
            try:
                scenario.go()
            except Bolt as bolt:
                raised = bolt
        check_after_both(scenario)
        if injector.struck:
            struck += 1
            assert raised is not None, "the exception was swallowed"
    assert struck >= 1


@pytest.mark.parametrize("kind", [Mixed, ElementsOnly, MixedIrrevocable, MixedNested, Joined, Sliced])
def test_at_every_point_of_a_commit_others_see_all_or_nothing(kind):
    kind().go()
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
            seen.append(elsewhere(run, lambda: tuple(int(variable.value) for variable in variables)))

        with injected(at, look):
            scenario.go()
        assert scenario.variables[0].value == 1
    assert {len(set(values)) for values in seen} == {1}
    assert {values[0] for values in seen} == {0, 1}


def test_a_handler_may_call_compiled_transactions_wherever_it_strikes():
    """What interrupts a call, also one that waits or insists, has a log of its own, and commits for itself."""
    others = TArray([0, 0])

    def interrupted(stock: TArray) -> None:
        sleeper = Background(take, stock, 0)
        asleep()
        put(stock, 0, 1)
        assert sleeper.result() == 0
        atomically(lambda: both(stock, 0))()

    interrupted(TArray([0, 0]))
    with injected(None) as counter:
        interrupted(TArray([0, 0]))
    for at in range(counter.count):
        before = others[0]
        with injected(at, lambda: both(others, 1)) as injector:
            interrupted(TArray([0, 0]))
        if injector.struck:
            assert others[0] == others[1] == before + 1


def test_an_interrupted_wait_leaves_the_log_free_and_nobody_counted():
    from stm.compiled import sleeping

    stock = TArray([0])

    @compiled.transaction
    def wait(stock):
        check(stock[0] > 0)

    for at in range(10**6):
        with injected(at) as injector:
            try:
                atomically(timeout=0)(wait)(stock)
            except (Bolt, stm.TransactionTimeout):
                pass
        assert own().log.words[STATE // 8] == IDLE
        assert not clock.sleepers
        if not injector.struck:
            break
    until(lambda: not sleeping.waker.running, "the waker's end")
