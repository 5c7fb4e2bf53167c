"""Cases of ZIO, `core-tests/.../zio/stm/`: TReentrantLockSpec, TSemaphoreSpec, and ZSTMConcurrencyTests (by tasks).

`TReentrantLock` is a lock for readers and writers; ours, `TRWLock`, lets readers in again but not writers, and says so.
"""

import asyncio
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stm import TEvent, TransactionTimeout, TRWLock, TSemaphore, aio, atomically, or_else, retry, run
from tests.support import PATIENCE, Background, asleep, until

few = settings(max_examples=25, deadline=None)


class Holding:
    """A thread that holds something until it is told to let go."""

    def __init__(self, hold):
        self._held, self._over = threading.Event(), threading.Event()
        self._work = Background(self._run, hold)

    def _run(self, hold):
        with hold:
            self._held.set()
            assert self._over.wait(PATIENCE)

    def begun(self):
        assert self._held.wait(PATIENCE)
        return self

    @property
    def holds(self):
        return self._held.is_set()

    def end(self):
        self._over.set()
        self._work.result()


# ------------------------------------------------------------------------------ a lock for readers and writers


def test_one_reader():
    """ZIO, TReentrantLockSpec: 1 read lock."""
    lock = TRWLock()
    with lock.read():
        assert (lock.readers, lock.writing) == (1, False)
    assert (lock.readers, lock.writing) == (0, False)


def test_a_thread_reads_twice():
    """ZIO, TReentrantLockSpec: 2 read locks from same fiber. Each hold counts, and ends by itself."""
    lock = TRWLock()
    with lock.read():
        with lock.read():
            assert lock.readers == 2
        assert lock.readers == 1


def test_two_threads_read():
    """ZIO, TReentrantLockSpec: 2 read locks from different fibers. One, both, none."""
    lock = TRWLock()
    one = Holding(lock.read()).begun()
    assert lock.readers == 1
    other = Holding(lock.read()).begun()
    assert lock.readers == 2
    one.end()
    other.end()
    assert lock.readers == 0


@pytest.mark.parametrize("kind", ["read", "write"])
def test_whoever_comes_while_one_writes_waits(kind):
    """ZIO, TReentrantLockSpec: 1 write lock then 1 read lock, or 1 write lock, in different fibers."""
    lock = TRWLock()
    writer = Holding(lock.write()).begun()
    later = Holding(getattr(lock, kind)())
    asleep()
    assert (lock.readers, lock.writing, later.holds) == (0, True, False)
    writer.end()
    later.begun()
    assert (lock.readers, lock.writing) == ((1, False) if kind == "read" else (0, True))
    later.end()


@pytest.mark.parametrize("first", ["read", "write"])
@pytest.mark.parametrize("second", ["read", "write"])
def test_a_thread_that_would_wait_for_itself_is_told_so(first, second):
    """ZIO, TReentrantLockSpec: write lock followed by read lock, and upgrade to a write lock, from the same fiber.

    There the lock is reentrant, and both succeed. Here both are errors, at once, and the first hold stays as it was.
    """
    lock = TRWLock()
    with getattr(lock, first)():
        if (first, second) == ("read", "read"):
            with lock.read():
                assert lock.readers == 2
        else:
            with pytest.raises(RuntimeError, match="this very thread"):
                getattr(lock, second)().acquire()
        assert (lock.readers, lock.writing) == ((1, False) if first == "read" else (0, True))
    assert (lock.readers, lock.writing) == (0, False)


def test_an_upgrade_by_letting_go_first():
    """ZIO, TReentrantLockSpec: read to writer upgrade with other readers. It waits until the other readers are out."""
    lock = TRWLock()
    reader = Holding(lock.read()).begun()
    mine = lock.read()
    mine.acquire()
    mine.release()
    writer = Holding(lock.write())
    asleep()
    assert (lock.readers, writer.holds) == (1, False)
    reader.end()
    writer.begun()
    assert lock.writing
    writer.end()


def test_a_hold_is_exchanged_in_one_step():
    """ZIO, TReentrantLockSpec: upgrade. In a transaction, letting go and acquiring for writing lets nobody between."""
    lock = TRWLock()
    reading, writing = lock.read(), lock.write()
    reading.acquire()
    run(lambda: (reading.release(), writing.acquire()))
    assert (lock.readers, lock.writing) == (0, True)
    writing.release()
    assert (lock.readers, lock.writing) == (0, False)


def test_an_exchange_waits_for_the_other_readers_and_keeps_its_place():
    """ZIO, TReentrantLockSpec: read to writer upgrade with other readers, in one transaction: it reads till then."""
    lock = TRWLock()
    other = Holding(lock.read()).begun()
    reading, writing = lock.read(), lock.write()
    reading.acquire()
    upgrading = Background(run, lambda: (reading.release(), writing.acquire()))
    asleep()
    assert (lock.readers, lock.writing) == (2, False)
    other.end()
    upgrading.result()
    assert (lock.readers, lock.writing) == (0, True)
    writing.release()


# ------------------------------------------------------------------------------ a semaphore


@few
@given(st.integers(1, 2**31), st.booleans())
def test_acquire_and_release_leave_the_permits_as_they_were(permits, at_once):
    """ZIO, TSemaphoreSpec: make; acquiring and releasing should not change the availability."""
    semaphore = TSemaphore(permits)
    assert semaphore.value == permits

    def use():
        assert semaphore.acquire()
        assert semaphore.value == permits - 1
        semaphore.release()

    run(use) if at_once else use()
    assert semaphore.value == permits


@few
@given(st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))), st.data())
def test_what_is_used_is_acquired_minus_released(capacity_and_acquired, data):
    """ZIO, TSemaphoreSpec: used capacity equals the number of acquires minus that of releases."""
    capacity, acquired = capacity_and_acquired
    released = data.draw(st.integers(1, acquired))
    semaphore = TSemaphore(capacity)
    run(lambda: ([semaphore.acquire() for _ in range(acquired)], [semaphore.release() for _ in range(released)]))
    assert semaphore.value == capacity - acquired + released


@pytest.mark.parametrize("capacity", [1, 7])
def test_n_permits_in_one_step(capacity):
    """ZIO, TSemaphoreSpec: acquireN and releaseN. A transaction takes all or waits for all; release(n) gives n back."""
    semaphore = TSemaphore(capacity)

    @atomically
    def acquire(n):
        for _ in range(n):
            semaphore.acquire()

    acquire(capacity)
    assert semaphore.value == 0
    waiting = Background(acquire, capacity + 1)
    asleep()
    semaphore.release(capacity)
    asleep()
    assert semaphore.value == capacity, "so long as they are not enough, it holds none"
    semaphore.release()
    waiting.result()
    assert semaphore.value == 0


def test_a_permit_is_given_back_when_the_holder_is_interrupted():
    """ZIO, TSemaphoreSpec and ConcurrentWithPermit: withPermit releases the permit if the effect is interrupted."""
    semaphore = TSemaphore(1)

    async def hold(held):
        await aio.run(semaphore.acquire)
        try:
            held.set()
            await asyncio.Event().wait()
        finally:
            semaphore.release()

    async def main():
        held = asyncio.Event()
        task = asyncio.ensure_future(hold(held))
        await held.wait()
        assert semaphore.value == 0
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert semaphore.value == 1


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_permit_is_given_back_whatever_is_raised(error):
    """ZIO, ZSTMConcurrencyTests: ConcurrentWithPermitManaged, told with `with`."""
    semaphore = TSemaphore(1)
    with pytest.raises(error), semaphore:
        assert semaphore.value == 0
        raise error
    assert semaphore.value == 1


@pytest.mark.parametrize("released", ["never", "before", "after"])
def test_an_interrupted_acquire_has_taken_the_permit_or_not(released):
    """ZIO, ZSTMConcurrencyTests: ConcurrentAcquireAndInterrupt (Done, Suspend). Permits and outcome agree.

    The permit is released before or after the cancellation, or never: a task that says that it was cancelled has none.
    """
    semaphore = TSemaphore(0)

    async def main():
        task = asyncio.ensure_future(aio.run(semaphore.acquire))
        await asyncio.sleep(0)
        if released == "before":
            semaphore.release()
        task.cancel()
        if released == "after":
            semaphore.release()
        try:
            return await task
        except asyncio.CancelledError:
            return False

    acquired = asyncio.run(main())
    assert semaphore.value == (0 if released == "never" else 1) - acquired


def test_an_acquire_can_be_interrupted():
    """ZIO, TSemaphoreSpec: withPermit acquire is interruptible. A time limit ends it, and nothing is taken later."""
    semaphore = TSemaphore(0)
    assert semaphore.acquire(timeout=0.01) is False
    with pytest.raises(TransactionTimeout):
        run(lambda: semaphore.acquire() and None, timeout=0.01)
    semaphore.release()
    assert semaphore.value == 1


def test_a_permit_taken_in_a_branch_that_retries_is_back():
    """ZIO, TSemaphoreSpec, with an alternative: the branch that acquires and then can't go on has not acquired."""
    semaphore, stop = TSemaphore(1), TEvent()

    @atomically
    def work():
        return or_else(lambda: (semaphore.acquire(), retry()), lambda: (stop.wait(), semaphore.value)[1])

    waiting = Background(work)
    asleep()
    assert semaphore.value == 1
    stop.set()
    assert waiting.result() == 1
    until(lambda: semaphore.value == 1)
