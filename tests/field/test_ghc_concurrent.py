"""Cases of GHC's own suites (ghc/ghc: `testsuite/tests/concurrent`, `testsuite/tests/rts`), and kills that meet waits.

As in test_ghc_stm.py: each docstring names the suite and the case.
"""

import ctypes
import os
import signal
import threading
from contextlib import contextmanager

import pytest

from stm import (
    TCounter,
    TMap,
    TMVar,
    TQueue,
    TransactionTimeout,
    TSemaphore,
    TVar,
    TVector,
    atomically,
    check,
    in_transaction,
    on_commit,
    or_else,
    retry,
    run,
    snapshot,
)
from tests.support import Background, Once, asleep, elsewhere, together, until


class Boom(Exception):
    pass


class Killed(BaseException):
    pass


def kill(background):
    """Throw `Killed` into a thread, as GHC's `killThread` does; it arrives when the thread next runs Python code."""
    count = ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(background.thread.ident), ctypes.py_object(Killed)
    )
    assert count == 1


@contextmanager
def killed_by(number, error=Killed):
    """Let a signal raise an error in the main thread."""

    def handler(*_):
        raise error

    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def test_t15136_a_kill_that_meets_a_wake_up():
    """stm, T15136: threads asleep in retry are killed and woken at once: each ends as it should, and none is left."""
    for _ in range(5):
        trigger, passed = TVar(False), TCounter()

        def wait(trigger=trigger, passed=passed):
            run(lambda: check(trigger.value))
            passed.add()

        waiting = [Background(wait) for _ in range(12)]
        asleep(12)
        for victim in waiting[::3]:
            kill(victim)
        trigger.set(True)
        for number, one in enumerate(waiting):
            if number % 3:
                one.result()
            else:
                with pytest.raises(Killed):
                    one.result()
        assert passed.value == 8


def test_conc042_a_new_variable_has_its_value():
    """ghc, conc042: made in one transaction, read in another; here, made together with a map that holds it."""
    index = run(lambda: TMap(answer=TVar(42)))
    assert run(lambda: index["answer"].get()) == 42


@pytest.mark.parametrize("as_one", [False, True], ids=["one after the other", "in one transaction"])
def test_conc043_and_044_a_write_is_read(as_one):
    """ghc, conc043, conc044: written in one transaction and read in the next, or both in one. Here, by an element."""
    elements = TVector([42])
    write, read = (lambda: elements.__setitem__(0, 17)), (lambda: elements[0])
    assert (run(lambda: (write(), read())[1]) if as_one else (run(write), run(read))[1]) == 17


def test_conc045_contended_updates_of_a_pair():
    """ghc, conc045: each step swaps two numbers and adds one to both; what comes out is what one thread would get."""
    one, two = TVar(0), TVar(1)

    def twiddle():
        first, second = one.value, two.value
        two.set(first + 1)
        one.set(second + 1)

    together(*(lambda: [run(twiddle) for _ in range(250)] for _ in range(4)))
    assert snapshot(one, two) == (1000, 1001)


def test_t5238_a_caught_exception_leaves_the_thread_as_it_was():
    """ghc, T5238: after an exception that a transaction caught, the thread's state is the same as before."""

    def caught():
        with pytest.raises(Boom):
            run(raise_boom)
        return in_transaction()

    def raise_boom():
        on_commit(pytest.fail, "the hook of a scope that raised")
        raise Boom

    assert not in_transaction()
    assert run(caught) is True
    assert not in_transaction()
    with pytest.raises(Boom):
        run(raise_boom)
    assert not in_transaction()


def test_t5866_a_wait_that_timed_out_can_be_begun_anew():
    """ghc, T5866: a blocked transaction that was given up blocks again when it is run again, and can be answered."""
    place = TMVar()
    take = atomically(timeout=0.01)(place.take)
    for _ in range(3):
        with pytest.raises(TransactionTimeout):
            take()
    place.put("late")
    assert take() == "late"


def test_t7815_setters_and_resetters_never_miss_each_other():
    """ghc, T7815: two setters wait until both flags are down, a resetter until one is up, in every order."""
    dog, cat = TVar(False), TVar(False)

    def setter(mine):
        def body():
            check(not dog.value and not cat.value)
            mine.set(True)

        for _ in range(100):
            run(body)

    def reset():
        check(dog.value or cat.value)
        dog.set(False)
        cat.set(False)

    together(lambda: setter(dog), lambda: setter(cat), lambda: [run(reset) for _ in range(200)])
    assert (dog.value, cat.value) == (False, False)


def test_t8035_an_exception_is_no_retry_to_an_alternative():
    """ghc, T8035: an error in the first alternative goes to the handler around both, not to the second."""

    def alternatives():
        or_else(raise_boom, lambda: pytest.fail("the second alternative ran"))

    def raise_boom():
        raise Boom

    def body():
        try:
            run(alternatives)
        except Boom:
            return "handled"

    assert run(body) == "handled"


def test_t9379_a_thread_blocked_in_a_transaction_can_be_killed():
    """ghc, T9379: an exception from outside ends the wait, and nothing waits any more."""
    place = TMVar()

    def strike():
        asleep()
        os.kill(os.getpid(), signal.SIGUSR1)

    with killed_by(signal.SIGUSR1), pytest.raises(Killed):
        striking = Background(strike)
        place.take()
    striking.result()
    assert place.try_put("nobody takes this")
    assert place.take() == "nobody takes this"


def test_t13916_a_pool_with_a_hard_limit_is_never_exceeded():
    """ghc, T13916: places for things, and permits to make one: takes a thing if there is one, else makes one."""
    places, permits = [TMVar() for _ in range(2)], TSemaphore(2)
    made, used, most = TCounter(), TVar(0), TVar(0)

    def acquire():
        return or_else(*(place.take for place in places), lambda: permits.acquire() and None)

    def give_back(thing):
        or_else(*((lambda place=place: place.put(thing)) for place in places))

    def use():
        for _ in range(60):
            thing = run(acquire)
            if thing is None:
                made.add()
                thing = object()
            most.update(max, used.update(lambda n: n + 1))
            used.update(lambda n: n - 1)
            run(give_back, thing)

    together(use, use, use)
    assert 1 <= made.value <= 2
    assert most.value <= 2
    assert sum(not place.is_empty() for place in places) == made.value


def test_t27657a_a_retry_in_a_handler_reaches_the_enclosing_alternative():
    """ghc, T27657a: the first alternative catches an error of a scope, and then retries in the handler."""
    log = TQueue()

    def first():
        try:
            run(lambda: (log.put("scope"), raise_boom()))
        except Boom:
            log.put("handler")
            retry()

    def raise_boom():
        raise Boom

    assert run(lambda: or_else(first, lambda: "completed")) == "completed"
    assert log.empty()


@pytest.mark.parametrize("error", [Killed, Boom])
def test_t27657b_an_interrupt_in_a_handler_is_not_swallowed_by_a_restart(error):
    """ghc, T27657b: what strikes while a handler runs ends the transaction, though that has become stale meanwhile."""
    x, first = TVar(0), Once()
    values = []

    def body():
        values.append(x.value)
        try:
            run(lambda: 1 // 0)
        except ZeroDivisionError:
            if first:
                elsewhere(x.set, 1)
                signal.raise_signal(signal.SIGUSR1)
            return "restarted"

    with killed_by(signal.SIGUSR1, error), pytest.raises(error):
        run(body)
    assert values == [0]


def test_t27657b_the_same_from_another_thread():
    """ghc, T27657b: the interrupt comes from another thread, while the handler waits for something outside."""
    x, parked, go_on = TVar(0), threading.Event(), threading.Event()

    def body():
        value = x.value
        try:
            run(lambda: 1 // 0)
        except ZeroDivisionError:
            if value == 0:
                parked.set()
                go_on.wait(60)
            return "restarted"

    running = Background(run, body)
    parked.wait(60)
    x.set(1)
    kill(running)
    go_on.set()
    with pytest.raises(Killed):
        running.result()
    until(lambda: not running.thread.is_alive())
