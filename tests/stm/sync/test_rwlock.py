"""What `stm.sync.rwlock` promises."""

import copy
import signal
import threading
from contextlib import ExitStack
from itertools import count

import pytest

from stm import TransactionTimeout, TRWLock, TVar, atomically, check, or_else, run
from tests.injector import Bolt, injected
from tests.support import Background, asleep, elsewhere, together, until


class Elsewhere:
    """Another thread that holds a lock until told to let go."""

    def __init__(self, hold):
        self._go = threading.Event()
        self._thread = Background(self._work, hold)

    def _work(self, hold):
        with hold:
            self._go.wait(60)

    def let_go(self):
        self._go.set()
        self._thread.result()


def state(lock):
    present = lock._state.get()
    return len(present.readers), present.writer is not None, len(present.waiting)


def test_many_readers_or_one_writer():
    lock = TRWLock()
    readers, inside, seen = TVar(0), TVar(0), []

    def read():
        for _ in range(50):
            with lock.read():
                run(readers.update, lambda n: n + 1)
                seen.append(("reads", inside.value))
                run(readers.update, lambda n: n - 1)

    def write():
        for _ in range(50):
            with lock.write():
                run(inside.update, lambda n: n + 1)
                seen.append(("writes", inside.value - 1 + readers.value))
                run(inside.update, lambda n: n - 1)

    together(read, read, write, write)
    assert {others for _, others in seen} == {0}
    assert state(lock) == (0, False, 0)


def test_readers_read_together():
    lock = TRWLock()
    meet = threading.Barrier(3)

    def read():
        with lock.read():
            meet.wait(60)

    together(read, read, read)


def test_a_writer_waits_for_readers_and_a_reader_for_the_writer():
    lock, log = TRWLock(), []

    def use(hold, name):
        with hold:
            log.append(name)

    reader = Elsewhere(lock.read())
    until(lambda: lock.readers)
    writer = Background(use, lock.write(), "write")
    asleep()
    late = Background(use, lock.read(), "read")
    asleep(2)
    assert log == []
    reader.let_go()
    writer.result()
    late.result()
    assert log == ["write", "read"]


def test_a_waiting_writer_keeps_new_readers_out():
    lock = TRWLock()
    reader = Elsewhere(lock.read())
    until(lambda: lock.readers)
    writer = Background(lambda: lock.write().acquire())
    until(lambda: state(lock) == (1, False, 1))
    with pytest.raises(TransactionTimeout), lock.read(timeout=0.01):
        pass
    reader.let_go()
    writer.result()
    assert lock.writing


def test_writers_go_in_the_order_in_which_they_came():
    lock, log = TRWLock(), []

    def write(number):
        with lock.write():
            log.append(number)

    reader = Elsewhere(lock.read())
    until(lambda: lock.readers)
    writers = []
    for number in range(5):
        writers.append(Background(write, number))
        until(lambda: state(lock)[2] == number + 1)
    reader.let_go()
    for one in writers:
        one.result()
    assert log == list(range(5))


def test_who_reads_may_read_again_past_a_waiting_writer():
    lock = TRWLock()
    with lock.read():
        writer = Elsewhere(lock.write())
        asleep()
        with lock.read(timeout=30):
            assert state(lock) == (2, False, 1)
        run(lambda: lock.read().acquire())
        elsewhere(lambda: lock._state.get().readers[-1].hold.release())
    writer.let_go()
    assert state(lock) == (0, False, 0)


@pytest.mark.parametrize(("first", "then"), [("read", "write"), ("write", "write"), ("write", "read")])
@pytest.mark.parametrize("how", [lambda f: f(), run], ids=["outside", "in a transaction"])
def test_a_thread_that_would_wait_for_itself_is_told(first, then, how):
    lock = TRWLock(name="file")

    def body():
        with getattr(lock, first)():
            getattr(lock, then)().acquire()

    with pytest.raises(RuntimeError, match="'file'.*held by this very thread"):
        how(body)
    assert state(lock) == (0, False, 0)


def test_in_a_transaction_what_the_thread_held_before_may_be_another_task_s():
    lock = TRWLock()
    with lock.write():
        with pytest.raises(TransactionTimeout):
            run(lambda: lock.read(timeout=0.01).acquire())
        with pytest.raises(TransactionTimeout):
            run(lambda: lock.write(timeout=0.01).acquire())
    assert state(lock) == (0, False, 0)


@pytest.mark.parametrize("kind", ["read", "write"])
def test_releasing_what_is_not_held_is_an_error(kind):
    lock = TRWLock(name="file")
    hold = getattr(lock, kind)()
    with pytest.raises(RuntimeError, match=f"<{kind} hold on <TRWLock 'file' .*is not acquired"):
        hold.release()
    with hold:
        hold.release()
        with pytest.raises(RuntimeError):
            hold.release()
        hold.acquire()
    assert state(lock) == (0, False, 0)


def test_any_thread_may_release():
    lock = TRWLock()
    for hold in (lock.read(), lock.write()):
        hold.acquire()
        elsewhere(hold.release)
        assert state(lock) == (0, False, 0)


def test_a_hold_is_acquired_once_at_a_time():
    lock = TRWLock()
    hold = lock.read()
    with hold:
        with pytest.raises(RuntimeError, match=r"acquired already; lock.read\(\) makes another"):
            hold.acquire()
        assert lock.readers == 1
    with hold:
        assert lock.readers == 1


def test_a_failed_second_acquisition_leaves_the_first_alone():
    lock = TRWLock()
    hold = lock.write(timeout=0.01)
    with hold:
        with pytest.raises(TransactionTimeout):
            elsewhere(hold.acquire)
        assert state(lock) == (0, True, 0)


@pytest.mark.parametrize("held", ["read", "write"])
def test_a_wait_that_times_out_withdraws_its_announcement(held):
    lock = TRWLock(name="file")
    other = Elsewhere(getattr(lock, held)())
    until(lambda: state(lock) != (0, False, 0))
    before = state(lock)
    with pytest.raises(TransactionTimeout, match="'file'.*for writing within 0.01 s"), lock.write(timeout=0.01):
        pass
    with pytest.raises(TimeoutError), lock.write(timeout=-5):
        pass
    assert state(lock) == before
    other.let_go()
    with lock.write(timeout=0), pytest.raises(TransactionTimeout, match="for reading within 0 s"):
        elsewhere(lock.read(timeout=0).acquire)


def test_an_interrupted_wait_withdraws_its_announcement():
    lock = TRWLock()
    other = Elsewhere(lock.read())
    until(lambda: lock.readers)

    def strike(*_):
        raise InterruptedError

    before = signal.signal(signal.SIGALRM, strike)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.03)
        with pytest.raises(InterruptedError), lock.write():
            pass
    finally:
        signal.signal(signal.SIGALRM, before)
    assert state(lock) == (1, False, 0)
    with lock.read(timeout=10):
        pass
    other.let_go()


@pytest.mark.parametrize("kind", ["read", "write"])
def test_an_exception_at_any_point_of_acquire_leaves_the_lock_as_it_was(kind):
    for at in count():
        lock = TRWLock()
        hold = getattr(lock, kind)()
        try:
            with injected(at) as injector:
                hold.acquire()
        except Bolt:
            assert state(lock) == (0, False, 0)
        if not injector.struck:
            break
    assert at > 10


@pytest.mark.parametrize("kind", ["read", "write"])
def test_an_exception_at_any_point_of_a_wait_leaves_the_lock_as_it_was(kind):
    for at in count():
        lock = TRWLock()
        hold = getattr(lock, kind)(timeout=0)
        elsewhere(lock.write().acquire)
        with pytest.raises((Bolt, TransactionTimeout)), injected(at) as injector:
            hold.acquire()
        assert state(lock) == (0, True, 0)
        if not injector.struck:
            break
    assert at > 20


def test_a_body_that_raises_releases():
    lock = TRWLock()
    for hold in (lock.read(), lock.write()):
        with pytest.raises(KeyboardInterrupt), hold:
            raise KeyboardInterrupt
    assert state(lock) == (0, False, 0)


def test_a_transaction_with_the_lock_commits_when_nobody_else_holds_it():
    lock, x = TRWLock(), TVar(0)

    @atomically
    def body(hold):
        with hold:
            x.value += 1

    for kind, other in (("write", "read"), ("write", "write"), ("read", "write")):
        holder = Elsewhere(getattr(lock, other)())
        until(lambda: state(lock) != (0, False, 0))
        before = x.value
        waiting = Background(body, getattr(lock, kind)())
        asleep()
        assert x.value == before
        holder.let_go()
        waiting.result()
        assert x.value == before + 1
    assert state(lock) == (0, False, 0)


def test_several_locks_in_one_step():
    left, right = TRWLock(), TRWLock()
    order, meals = [], TVar(0)

    def eat(*locks):
        for _ in range(30):
            holds = [lock.write() for lock in locks]
            with ExitStack() as stack:
                run(lambda: [hold.acquire() for hold in holds])
                for hold in holds:
                    stack.callback(hold.release)
                order.append(state(left)[1] and state(right)[1])
                run(meals.update, lambda n: n + 1)

    together(lambda: eat(left, right), lambda: eat(right, left))
    assert meals.value == 60
    assert all(order)
    assert state(left) == state(right) == (0, False, 0)


def test_one_lock_or_else_another():
    first, second = TRWLock(), TRWLock()
    with first.write():
        other = Elsewhere(second.read())
        until(lambda: second.readers)
        waiting = Background(run, lambda: or_else(first.write().acquire, second.write().acquire))
        asleep()
        other.let_go()
        waiting.result()
        assert second.writing


def test_what_a_transaction_acquires_is_not_held_if_it_fails():
    lock = TRWLock()

    @atomically
    def body():
        lock.write().acquire()
        assert lock.writing
        raise KeyError

    with pytest.raises(KeyError):
        body()
    assert state(lock) == (0, False, 0)


def test_with_in_a_transaction_lets_retry_through():
    lock, x = TRWLock(), TVar(0)

    @atomically
    def body():
        with lock.write(), ExitStack():
            check(x.value)

    waiting = Background(body)
    asleep()
    assert state(lock) == (0, False, 0)
    x.set(1)
    waiting.result()
    assert state(lock) == (0, False, 0)


def test_nonsense_is_refused():
    for method in (TRWLock().read, TRWLock().write):
        with pytest.raises(TypeError, match="timeout"):
            method("long")


def test_repr_and_copy():
    lock = TRWLock(name="file")
    assert repr(lock) == "<TRWLock 'file' readers=0>"
    with lock.write():
        assert repr(lock) == "<TRWLock 'file' writing>"
    with lock.read():
        writer = Elsewhere(lock.write())
        asleep()
        assert repr(lock) == "<TRWLock 'file' readers=1 writers_waiting=1>"
    writer.let_go()
    with pytest.raises(TypeError, match="can't be pickled or copied"):
        copy.copy(lock)
