"""Promise 8, continued: after a fork the child can transact; a finalizer may transact wherever it strikes."""

import gc
import os
import signal
import sys
import threading
import warnings
import weakref

import pytest

from stm import TVar, atomically, check, in_transaction, run, snapshot
from stm.clock import clock
from tests.support import Background, asleep, elsewhere


def in_child(fn):
    """Run a function in a forked child; its exit status must be 0 (0: returned, 1: raised)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads about is the point here
        pid = os.fork()
    if pid == 0:
        status = 1
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)  # a child that hangs dies of it
        try:
            fn()
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def exercise(x):
    """Every way to use the library, in one thread of a child."""
    before = x.value
    x.set(before + 1)
    assert run(lambda: x.update(lambda value: value + 1)) == before + 2
    assert run(lambda: x.value, read_only=True) == before + 2
    assert snapshot(x) == (before + 2,)
    run(lambda: x.set(0), irrevocable=True)
    background = Background(run, lambda: check(x.value))
    asleep()
    x.set(1)
    background.result()
    assert clock.quiet or run(lambda: x.set(2)) is None


def test_fork_while_other_threads_commit():
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

    def child():
        assert x.value == y.value
        exercise(TVar(0))
        bump()
        assert x.value == y.value

    try:
        for _ in range(20):
            in_child(child)
    finally:
        stop.set()
        for other in others:
            other.result()


def test_fork_while_others_sleep_look_and_are_exclusive():
    x, door = TVar(0), TVar(0)
    entered, leave = threading.Barrier(3), threading.Event()

    def looking():
        _ = x.value
        entered.wait(60)
        leave.wait(60)

    sleeper = Background(run, lambda: check(door.value))
    asleep()
    looker = Background(lambda: run(looking, read_only=True))
    owner = Background(lambda: run(looking, irrevocable=True))
    entered.wait(60)

    def child():
        assert not clock.sleepers
        assert not clock.snapshots
        exercise(x)

    try:
        in_child(child)
    finally:
        leave.set()
        looker.result()
        owner.result()
        door.set(1)
        sleeper.result()
    assert x.value == 0


@pytest.mark.parametrize("options", [{}, {"irrevocable": True}, {"read_only": True}])
def test_fork_inside_a_transaction(options):
    """The child goes on with the body that it was born in."""
    x = TVar(5)
    log = []

    def body():
        value = x.value
        in_child(lambda: None)
        if not options.get("read_only"):
            x.set(value + 1)
        log.append(in_transaction())
        return value

    assert run(body, **options) == 5
    assert log == [True]

    def whole():
        def nested_fork():
            value = x.value
            pid = os.fork()
            if pid == 0:
                return value, pid
            _, status = os.waitpid(pid, 0)
            assert os.waitstatus_to_exitcode(status) == 0
            return value, pid

        value, pid = run(nested_fork, **options)
        if pid == 0:
            exercise(TVar(0))
            os._exit(0)
        return value

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        assert whole() == x.value
    exercise(TVar(0))


# ---------------------------------------------------------------------------------------------- finalizers


class Mourned:
    """Its death is counted, by a transaction."""

    def __init__(self, count):
        self.count = count

    def __del__(self):
        self.count.update(lambda value: value + 1)


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("blind", [False, True])
def test_a_finalizer_of_a_replaced_value_may_transact(size, blind):
    deaths = TVar(0)
    variables = [TVar(Mourned(deaths)) for _ in range(size)]

    @atomically
    def replace():
        for variable in variables:
            if not blind:
                _ = variable.value
                del _
            variable.set(None)

    replace()
    gc.collect()
    assert deaths.value == size
    assert clock.now % 2 == 0


def test_a_finalizer_runs_when_the_lock_is_free_again():
    states = []

    class Witness:
        def __del__(self):
            states.append((clock.lock._is_owned(), in_transaction()))

    for size in (1, 2, 4):
        variables = [TVar(Witness()) for _ in range(size)]
        run(lambda: [variable.set(None) for variable in variables])
        variables[0].set(Witness())
        variables[0].set(None)
    gc.collect()
    assert len(states) == 10
    assert set(states) == {(False, False)}


def test_a_finalizer_of_what_a_snapshot_kept_runs_when_the_lock_is_free():
    states = []

    class Witness:
        def __del__(self):
            states.append(clock.lock._is_owned())

    x = TVar(Witness())

    def look():
        _ = x.value
        del _
        elsewhere(x.set, None)

    run(look, read_only=True)
    gc.collect()
    assert states == [False]


def test_finalizers_that_transact_at_every_collection():
    """Cyclic garbage whose finalizers commit, collected as often as possible in the midst of other transactions."""
    deaths, x, y = TVar(0), TVar(0), TVar(0)

    @atomically
    def bump():
        x.value += 1
        y.value += 1

    thresholds = gc.get_threshold()
    gc.collect()
    made = 1_000
    gc.set_threshold(1)
    try:
        for _ in range(made):
            cycle = Mourned(deaths)
            cycle.self = cycle
            del cycle
            bump()
            assert x.value == y.value
    finally:
        gc.set_threshold(*thresholds)
    gc.collect()
    assert x.value == y.value == made
    # Deaths inside a body join it, and a count is lost only where that attempt was: here nothing disturbs one, save
    # a finalizer that struck in its commit.
    assert 0 < deaths.value <= made


def test_a_transaction_lets_go_of_what_it_read():
    class Value:
        pass

    value = Value()
    ref = weakref.ref(value)
    x = TVar(value)
    del value
    run(lambda: x.value)
    run(lambda: x.value, read_only=True)
    with pytest.raises(ZeroDivisionError):
        run(lambda: (x.value, 1 / 0))
    x.set(None)
    gc.collect()
    assert ref() is None
