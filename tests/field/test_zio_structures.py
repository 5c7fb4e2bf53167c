"""Cases of ZIO, `core-tests/.../zio/stm/`: TQueueSpec, TPriorityQueueSpec, THubSpec (here `TChannel`)."""

from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stm import TChannel, TPriorityQueue, TQueue, atomically, check, run
from stm.collections import Empty
from tests.support import Background, Once, asleep, elsewhere, together

few = settings(max_examples=25, deadline=None)
five = [1, 2, 3, 4, 5]


# ------------------------------------------------------------------------------ queues


@pytest.mark.parametrize("maxsize", [5, 0])
def test_queue_capacity(maxsize):
    """ZIO, TQueueSpec: factories. A queue is made with a capacity, or without one."""
    queue = run(TQueue, maxsize)
    assert queue.maxsize == maxsize
    queue.put_many(five)
    assert queue.full() is (maxsize == 5)


@pytest.mark.parametrize(("limit", "taken"), [(3, 3), (5, 5), (7, 5), (None, 5)])
def test_queue_takes_up_to_a_limit(limit, taken):
    """ZIO, TQueueSpec: takeUpTo, also larger than what there is; offerAll and takeAll."""
    queue = TQueue(5)

    @atomically
    def body():
        queue.put_many(five)
        return queue.get_many(limit), queue.qsize()

    assert body() == (five[:taken], 5 - taken)


def test_queue_takes_a_batch_of_the_wanted_size():
    """ZIO, TQueueSpec: takeUpTo, with a lower bound. It waits until there are enough, and takes none before."""
    queue = TQueue()

    @atomically
    def at_least(n):
        check(queue.qsize() >= n)
        return [queue.get() for _ in range(n)]

    taking = Background(at_least, 3)
    for item in five[:3]:
        asleep()
        assert queue.qsize() == item - 1
        queue.put(item)
    assert taking.result() == five[:3]


def test_queue_polled():
    """ZIO, TQueueSpec: poll value, poll empty queue. Without waiting: an item, or an answer that there is none."""
    queue = TQueue(5)
    with pytest.raises(Empty):
        queue.get_nowait()
    queue.put_many([1, 2, 3])
    assert queue.get_nowait() == 1


def test_queue_sought():
    """ZIO, TQueueSpec: seek element. What comes before the wanted item is gone with it."""
    queue = TQueue(5)
    queue.put_many(five)

    @atomically
    def seek(wanted):
        while (item := queue.get()) != wanted:
            pass
        return item, queue.qsize()

    assert seek(3) == (3, 2)


def test_queue_looked_at():
    """ZIO, TQueueSpec: size, peek the next value, view the last value, isEmpty, isFull. Looking takes nothing."""
    queue, other = TQueue(5), TQueue(5)
    queue.put_many(five)
    assert run(lambda: (queue.peek(), queue.snapshot()[-1], queue.qsize())) == (1, 5, 5)
    assert (queue.empty(), other.empty(), queue.full(), other.full()) == (False, True, True, False)


def test_the_longer_of_two_queues():
    """ZIO, TQueueSpec: get the longest queue. Two sizes are compared at one moment, whoever puts in between."""
    one, other, first = TQueue(), TQueue(), Once()
    one.put_many([1, 2])
    other.put(9)

    @atomically
    def drain_the_longer():
        size = one.qsize()
        if first:
            elsewhere(other.put_many, [8, 7])
        return (one if size > other.qsize() else other).get_many()

    assert drain_the_longer() == [9, 8, 7]


# ------------------------------------------------------------------------------ priority queues


class Event(NamedTuple):
    time: int
    description: str

    def __lt__(self, other):
        return self.time < other.time


events = st.lists(st.builds(Event, st.integers(-10, 10), st.text("ab", max_size=2)), max_size=12)


def in_order(items):
    return all(not later < earlier for earlier, later in pairwise(items))


def same_elements(items, others):
    return sorted(map(tuple, items)) == sorted(map(tuple, others))


@few
@given(events)
def test_priority_queue_gives_back_what_it_got_in_order(items):
    """ZIO, TPriorityQueueSpec: offerAll and takeAll, take, toList, isEmpty and nonEmpty, by a key that ties."""
    queue = TPriorityQueue()

    @atomically
    def body():
        queue.put_many(items)
        empty, picture = queue.empty(), queue.snapshot()
        return empty, picture, [queue.get_nowait() for _ in items]

    empty, picture, taken = body()
    assert empty is (not items)
    for found in (list(picture), taken):
        assert in_order(found)
        assert same_elements(found, items)
    assert queue.empty()


@few
@given(events, st.data())
def test_priority_queue_taken_in_two_parts(items, data):
    """ZIO, TPriorityQueueSpec: takeUpTo and then takeAll. Together they are everything, in order."""
    n = data.draw(st.integers(0, len(items)))
    queue = TPriorityQueue()
    queue.put_many(items)
    left = queue.get_many(n) if n else []
    right = queue.get_many() if len(left) < len(items) else []
    assert len(left) == n
    assert in_order(left + right)
    assert same_elements(left + right, items)


@few
@given(events, st.integers(-10, 10), st.booleans())
def test_priority_queue_filtered(items, bound, keep):
    """ZIO, TPriorityQueueSpec: removeIf and retainIf. All out and some in again is one step, in order after it."""
    queue = TPriorityQueue()
    queue.put_many(items)

    @atomically
    def retain(wanted):
        if not queue.empty():
            queue.put_many([item for item in queue.get_many() if wanted(item)])

    retain(lambda item: (item.time < bound) is keep)
    found = list(queue.snapshot())
    assert in_order(found)
    assert same_elements(found, [item for item in items if (item.time < bound) is keep])


# ------------------------------------------------------------------------------ hubs


@pytest.mark.parametrize("subscribers", [1, 2])
@pytest.mark.parametrize("concurrent", [False, True], ids=["after", "meanwhile"])
def test_every_subscriber_gets_everything_in_order(subscribers, concurrent):
    """ZIO, THubSpec: sequential, and unbounded: one to one, one to many. Each reads what came since it subscribed."""
    hub = TChannel()
    hub.publish("before anybody listened")
    readers = [hub.subscribe() for _ in range(subscribers)]
    read = [lambda reader=reader: [reader.get() for _ in range(50)] for reader in readers]
    if concurrent:
        reading = [Background(one) for one in read]
        asleep(subscribers)
    for item in range(50):
        hub.publish(item)
    found = [one.result() for one in reading] if concurrent else [one() for one in read]
    assert found == [list(range(50))] * subscribers


def test_two_publishers_are_each_heard_in_order():
    """ZIO, THubSpec: unbounded: many to many. All hear the same mixture, in which each publisher's order is kept."""
    hub = TChannel()
    readers = [hub.subscribe() for _ in range(2)]
    reading = [Background(lambda reader=reader: [reader.get() for _ in range(80)]) for reader in readers]
    together(*(lambda sign=sign: [hub.publish(sign * item) for item in range(1, 41)] for sign in (1, -1)))
    one, other = (each.result() for each in reading)
    assert one == other
    assert [item for item in one if item > 0] == list(range(1, 41))
    assert [-item for item in one if item < 0] == list(range(1, 41))


def test_a_publisher_that_must_wait_for_slow_readers():
    """ZIO, THubSpec: back pressure. A channel has no bound; a check on what is unread makes one, in a transaction."""
    hub = TChannel()
    reader = hub.subscribe()

    @atomically
    def publish(item):
        check(reader.qsize() < 2)
        hub.publish(item)

    publishing = Background(lambda: [publish(item) for item in range(4)])
    found = []
    for _ in range(2):
        asleep()
        assert reader.qsize() == 2
        found.append(reader.get())
    publishing.result()
    assert found + reader.get_many() == [0, 1, 2, 3]
