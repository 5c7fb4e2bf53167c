"""Cases about channels, queues and semaphores of Haskell's `stm` package (haskell/stm: `tests`, `testsuite`).

As in test_ghc_stm.py: each docstring names the suite and the case. `gh-6` and the like are entries of the package's
changelog or issues, whose fixes came without a case of their own.
"""

from queue import Empty

import pytest

from stm import (
    TChannel,
    TMap,
    TQueue,
    TSemaphore,
    TVar,
    or_else,
    retry,
    run,
)
from tests.support import Background, asleep, elsewhere


class Boom(Exception):
    pass


def test_clonetchan001_a_clone_goes_on_from_the_same_place():
    """stm, cloneTChan001: both readers see what was there when one was cloned, and what comes after."""
    channel = TChannel()
    reader = channel.subscribe()
    channel.publish("a")
    clone = run(reader.clone)
    seen = [reader.get(), clone.get()]
    channel.publish("b")
    assert [*seen, reader.get(), clone.get()] == ["a", "a", "b", "b"]


def test_issue9_emptying_a_bounded_queue_gives_all_its_room_back():
    """stm, Issue9: fill, take one, take all that is left: the queue holds as many as before."""
    queue = TQueue(5)
    queue.put_many(range(1, 6))
    assert queue.get() == 1
    assert queue.snapshot() == (2, 3, 4, 5)
    assert queue.get_many() == [2, 3, 4, 5]
    for item in range(1, 6):
        queue.put(item, timeout=1)
    assert queue.full()
    assert queue.qsize() == 5


def test_issue9_the_same_in_one_transaction_that_is_undone_at_first():
    """stm, Issue9: room that an undone transaction gave back is taken again."""
    queue = TQueue(3)
    queue.put_many("abc")

    def empty_and_fail():
        queue.get_many()
        queue.put_many("xy")
        raise Boom

    with pytest.raises(Boom):
        run(empty_and_fail)
    assert queue.snapshot() == ("a", "b", "c")
    assert queue.full()
    assert run(lambda: (queue.get_many(), queue.put_many("def"), queue.full())) == (["a", "b", "c"], None, True)


@pytest.mark.parametrize("maxsize", [-1, -(2**63)])
def test_issue17_no_negative_size_is_a_trap(maxsize):
    """stm, Issue17: a queue with a negative capacity. There it holds nothing; here, as in `queue`, any number."""
    queue = TQueue(maxsize)
    assert queue.empty()
    assert not queue.full()
    assert run(lambda: or_else(lambda: queue.put(217), retry), timeout=1) is None
    assert queue.snapshot() == (217,)


def test_issue17_a_put_that_finds_no_room_leaves_no_trace():
    """stm, Issue17: a put in an alternative that has to retry did not touch the queue."""
    queue = TQueue(1)
    queue.put("only")
    assert run(lambda: or_else(lambda: queue.put("more"), lambda: queue.get())) == "only"
    assert queue.empty()
    assert run(lambda: or_else(lambda: (queue.put("one"), queue.put("two")), queue.empty)) is True
    assert not queue.full()


def test_issue76_the_size_after_emptying_in_the_same_transaction():
    """stm, Issue76: put two, take all, ask for the size: nothing, in that very transaction."""
    queue = TQueue(100)
    assert run(lambda: (queue.put(1), queue.put(2), queue.get_many(), queue.qsize())[2:]) == ([1, 2], 0)
    assert queue.empty()


def test_gh3_who_takes_is_not_disturbed_by_who_puts_while_something_is_in_front():
    """stm, changelog gh-3: to turn the items that were put round must not conflict with every later put."""
    queue = TQueue()
    queue.put_many([1, 2, 3])
    runs = []
    assert queue.get() == 1  # the rest is in front now

    def consume():
        runs.append(1)
        item = queue.get()
        elsewhere(queue.put, 10 * len(runs))
        return item, queue.get()

    assert run(consume) == (2, 3)
    assert len(runs) == 1
    assert queue.get_many() == [10]


def test_gh4_a_semaphore_counts_beyond_any_machine_word():
    """stm, changelog gh-4: no overflow."""
    semaphore = TSemaphore(2**63 - 1)
    semaphore.release(2**63)
    assert semaphore.value == 2**64 - 1
    assert semaphore.acquire()
    assert semaphore.value == 2**64 - 2


def test_gh5_several_permits_given_back_at_once_wake_as_many():
    """stm, changelog gh-5: `signalTSemN`."""
    semaphore = TSemaphore(0)
    waiting = [Background(semaphore.acquire) for _ in range(3)]
    asleep(3)
    semaphore.release(2)
    asleep(1)
    assert semaphore.value == 0
    semaphore.release()
    assert [one.result() for one in waiting] == [True, True, True]


def test_gh6_taking_all_of_nothing_disturbs_nobody():
    """stm, changelog gh-6: to empty an empty queue writes nothing, and invalidates no transaction that looked at it."""
    queue, result = TQueue(), TVar(None)
    runs = []

    def look():
        runs.append(1)
        size = queue.qsize()
        with pytest.raises(Empty):
            elsewhere(queue.get_many, None, False)
        result.set(size)

    run(look)
    assert (result.value, len(runs)) == (0, 1)


def test_gh31_what_was_made_in_a_branch_that_was_undone_can_be_used():
    """stm, issue gh-31: a collection that an alternative made before it retried, and handed out, is an empty one."""
    made = []

    def first():
        made.append(TMap())
        made[-1]["key"] = 1
        retry()

    run(lambda: or_else(first, lambda: made[-1].setdefault("other", 2)))
    assert dict(made[-1]) == {"other": 2}
