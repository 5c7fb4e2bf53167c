"""What `TChannel` and its readers promise."""

import copy
import pickle
import weakref
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stm import atomically, or_else, run
from stm.collections import ChannelReader, Empty, ShutDown, TChannel
from tests.support import Background, Once, asleep, elsewhere, together


class Undo(Exception):
    pass


def undone(*steps):
    @atomically
    def body():
        for step in steps:
            step()
        raise Undo

    with pytest.raises(Undo):
        body()


# ---------------------------------------------------------------------------------------------- publishing, reading


def test_every_reader_sees_what_is_published_after_it_subscribed():
    channel = TChannel()
    channel.publish("before")
    one = channel.subscribe()
    channel.publish(1)
    other = channel.subscribe()
    channel.publish_many([2, 3])
    assert [one.get() for _ in range(3)] == [1, 2, 3]
    assert other.get_many() == [2, 3]
    assert isinstance(one, ChannelReader)


def test_get_waits_for_the_next_item():
    channel = TChannel()
    readers = [channel.subscribe() for _ in range(3)]
    waiting = [Background(readers[0].get), Background(readers[1].peek), Background(readers[2].get_many, 5)]
    asleep(3)
    channel.publish("news")
    assert [one.result() for one in waiting] == ["news", "news", ["news"]]
    assert [reader.qsize() for reader in readers] == [0, 1, 0]


def test_time_limits_and_not_waiting():
    reader = TChannel().subscribe()
    for call in (run, lambda f: f()):
        for timeout in (0, 0.01):
            for read in (reader.get, reader.peek, reader.get_many):
                with pytest.raises(Empty):
                    call(lambda: read(timeout=timeout))
        for read in (reader.get_nowait, lambda: reader.peek(False), lambda: reader.get_many(block=False)):
            with pytest.raises(Empty):
                call(read)


def test_bad_arguments():
    channel = TChannel()
    reader = channel.subscribe()
    channel.publish(1)
    for read in (reader.get, reader.peek, reader.get_many):
        with pytest.raises(ValueError, match="'timeout' must be a non-negative number"):
            read(timeout=-1)
        with pytest.raises(TypeError, match="timeout must be a number of seconds"):
            read(timeout="1")
    with pytest.raises(ValueError, match="at least 1"):
        reader.get_many(0)
    with pytest.raises(TypeError):
        channel.publish_many(5)
    assert reader.get() == 1


def test_publish_many_publishes_all_or_none_with_no_other_in_between():
    channel = TChannel()
    reader = channel.subscribe()

    def items():
        yield 1
        raise KeyError

    with pytest.raises(KeyError):
        channel.publish_many(items())
    channel.publish_many([])
    assert reader.empty()

    def publish(me):
        for number in range(50):
            channel.publish_many([(me, number, part) for part in range(3)])

    together(lambda: publish(0), lambda: publish(1))
    for _ in range(100):
        first, second, third = reader.get_many(3)
        assert first[:2] == second[:2] == third[:2]


def test_get_many_takes_as_many_as_there_are():
    channel = TChannel()
    reader = channel.subscribe()
    channel.publish_many(range(10))
    assert reader.get_many(3) == [0, 1, 2]
    assert reader.get_many(100) == list(range(3, 10))
    channel.publish(10)
    assert reader.get_many() == [10]


def test_a_clone_goes_on_from_the_same_place():
    channel = TChannel()
    reader = channel.subscribe()
    channel.publish_many([1, 2, 3])
    reader.get()
    clone = reader.clone()
    assert (reader.get_many(), clone.get_many()) == ([2, 3], [2, 3])


def test_threads_that_share_a_reader_share_the_items():
    channel = TChannel()
    reader = channel.subscribe()
    channel.publish_many(range(600))
    taken = together(*[lambda: [reader.get() for _ in range(200)]] * 3)
    assert sorted(chain(*taken)) == list(range(600))
    assert all(part == sorted(part) for part in taken)


def test_all_readers_see_the_same_order():
    channel = TChannel()
    readers = [channel.subscribe() for _ in range(3)]

    def publish(me):
        for number in range(300):
            channel.publish((me, number))

    results = together(
        lambda: publish(0), lambda: publish(1), *[lambda r=r: [r.get() for _ in range(600)] for r in readers]
    )
    assert results[2] == results[3] == results[4]
    for me in (0, 1):
        assert [number for who, number in results[2] if who == me] == list(range(300))


# ---------------------------------------------------------------------------------------------- transactions


def test_a_failed_transaction_has_published_and_read_nothing():
    channel = TChannel()
    reader = channel.subscribe()
    channel.publish_many([1, 2])
    undone(lambda: channel.publish(3), reader.get, reader.get, reader.get)
    undone(lambda: channel.publish_many([3, 4]), channel.shutdown)
    assert (reader.get_many(), channel.is_shutdown) == ([1, 2], False)


def test_publish_and_read_in_one_transaction():
    channel = TChannel()
    reader = channel.subscribe()

    @atomically
    def body():
        channel.publish(1)
        late = channel.subscribe()
        channel.publish_many([2, 3])
        return reader.get(), reader.peek(), reader.get_many(), late.get_many()

    assert body() == (1, 2, [2, 3], [2, 3])


def test_the_first_reader_that_has_something():
    channels = [TChannel(), TChannel()]
    one, other = (channel.subscribe() for channel in channels)
    for channel in channels:
        waiting = Background(run, lambda: or_else(one.get, other.get))
        asleep()
        channel.publish("here")
        assert waiting.result() == "here"


def attempts(mine, others):
    runs = []

    @atomically
    def body():
        runs.append(1)
        mine()
        if len(runs) == 1:
            elsewhere(others)

    body()
    return len(runs)


def test_readers_conflict_neither_with_one_another_nor_with_publishers():
    channel = TChannel()
    one, other = channel.subscribe(), channel.subscribe()
    channel.publish_many(range(9))
    assert attempts(one.get, other.get) == 1
    assert attempts(one.get, lambda: channel.publish(9)) == 1
    assert attempts(lambda: one.get_many(3), lambda: channel.publish_many([10, 11])) == 1
    assert attempts(lambda: channel.publish(12), one.get) == 1
    assert attempts(lambda: channel.publish(13), lambda: channel.publish(14)) == 2
    assert other.get_many() == [*range(1, 13), 14, 13]


def test_get_many_is_all_there_is_at_one_moment():
    channel = TChannel()
    reader = channel.subscribe()
    channel.publish_many(range(3))
    first = Once()

    @atomically
    def body():
        items = reader.get_many()
        if first:
            elsewhere(channel.publish, 3)
        return items

    assert body() == [0, 1, 2, 3]
    assert reader.empty()


def test_looking_is_allowed_in_a_read_only_transaction():
    channel = TChannel()
    reader = channel.subscribe()
    channel.publish(1)
    assert run(lambda: (reader.peek(), reader.qsize(), reader.empty()), read_only=True) == (1, 1, False)


# ---------------------------------------------------------------------------------------------- shutting down


def test_after_shutdown_readers_get_what_is_left():
    channel = TChannel()
    one, other, waiting = channel.subscribe(), channel.subscribe(), channel.subscribe()
    channel.publish_many([1, 2])
    waiting.get_many()
    waits = [Background(waiting.get), Background(waiting.peek), Background(waiting.get_many)]
    asleep(3)
    channel.shutdown()
    channel.shutdown()
    assert channel.is_shutdown
    for one_waits in waits:
        with pytest.raises(ShutDown):
            one_waits.result()
    for publish in (lambda: channel.publish(3), lambda: channel.publish_many([3])):
        with pytest.raises(ShutDown):
            publish()
    assert (one.get(), one.get(), other.get_many(10)) == (1, 2, [1, 2])
    for read in (one.get, one.get_nowait, one.peek, one.get_many, lambda: one.get(timeout=1)):
        with pytest.raises(ShutDown):
            read()
    with pytest.raises(ShutDown):
        channel.subscribe().get()
    assert one.empty()


def test_iteration_ends_at_shutdown():
    channel = TChannel()
    reader = channel.subscribe()
    reading = Background(lambda: list(reader))
    for number in range(3):
        asleep()
        channel.publish(number)
    channel.shutdown()
    assert reading.result() == [0, 1, 2]


# ---------------------------------------------------------------------------------------------- objects, memory


def test_repr_tells_the_state():
    channel = TChannel(name="news")
    reader = channel.subscribe()
    channel.publish_many([1, 2])
    assert repr(channel) == "<TChannel 'news', 2 published>"
    assert repr(reader) == "<ChannelReader of <TChannel 'news', 2 published>, 2 unread>"
    channel.shutdown()
    assert repr(channel) == "<TChannel 'news', 2 published, shut down>"


def test_can_not_be_copied_or_pickled():
    channel = TChannel()
    for one in (channel, channel.subscribe()):
        for call in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="can't be pickled or copied"):
                call(one)


class Item:
    pass


def test_what_everybody_has_read_is_garbage_at_once():
    channel = TChannel()
    one, other = channel.subscribe(), channel.subscribe()
    refs = []
    for _ in range(20):
        item = Item()
        refs.append(weakref.ref(item))
        channel.publish(item)
    del item
    one.get_many()
    for number in range(20):
        assert refs[number]() is not None
        other.get()
        assert refs[number]() is None


def test_what_nobody_can_read_is_garbage_at_once():
    channel = TChannel()
    item = Item()
    ref = weakref.ref(item)
    channel.publish(item)
    del item
    assert ref() is None
    reader = channel.subscribe()
    item = Item()
    ref = weakref.ref(item)
    channel.publish(item)
    del item
    assert ref() is not None
    del reader
    assert ref() is None


def test_a_long_backlog_is_freed_without_recursion():
    channel = TChannel()
    reader = channel.subscribe()
    channel.publish_many(range(1_000_000))
    assert reader.qsize() == 1_000_000
    del reader
    reader = channel.subscribe()
    for number in range(20_000):
        channel.publish(number)
    del reader, channel


# ---------------------------------------------------------------------------------------------- model

action = st.one_of(
    st.tuples(st.just("publish"), st.lists(st.integers(), min_size=1, max_size=4)),
    st.tuples(st.just("get"), st.integers(0, 3)),
    st.tuples(st.just("get_many"), st.integers(0, 3), st.sampled_from([None, 1, 2])),
    st.tuples(st.just("subscribe")),
    st.tuples(st.just("clone"), st.integers(0, 3)),
)


class Model:
    """Every reader as the list of what it has yet to read."""

    def __init__(self):
        self.readers = [[]]

    def publish(self, items):
        for reader in self.readers:
            reader += items

    def get(self, which):
        return self.get_many(which, 1)

    def get_many(self, which, limit):
        reader = self.readers[which % len(self.readers)]
        taken = reader[:limit]
        del reader[:limit]
        return taken or Empty

    def subscribe(self):
        self.readers.append([])

    def clone(self, which):
        self.readers.append(self.readers[which % len(self.readers)].copy())

    def sizes(self):
        return [len(reader) for reader in self.readers]


class Real:
    def __init__(self):
        self.channel = TChannel()
        self.readers = [self.channel.subscribe()]

    def publish(self, items):
        if len(items) == 1:
            self.channel.publish(items[0])
        else:
            self.channel.publish_many(items)

    def get(self, which):
        try:
            return [self.readers[which % len(self.readers)].get(block=False)]
        except Empty:
            return Empty

    def get_many(self, which, limit):
        try:
            return self.readers[which % len(self.readers)].get_many(limit, block=False)
        except Empty:
            return Empty

    def subscribe(self):
        self.readers.append(self.channel.subscribe())

    def clone(self, which):
        self.readers.append(self.readers[which % len(self.readers)].clone())

    def sizes(self):
        return [reader.qsize() for reader in self.readers]


@settings(deadline=None, max_examples=80)
@given(st.lists(st.tuples(st.sampled_from(["apart", "together", "undone"]), st.lists(action, max_size=8)), max_size=6))
def test_does_what_lists_do(program):
    model, real = Model(), Real()
    for how, actions in program:
        if how == "apart":
            for name, *args in actions:
                assert getattr(real, name)(*args) == getattr(model, name)(*args)
        else:
            trial = Model()
            trial.readers = [reader.copy() for reader in model.readers]
            expected = [(getattr(trial, name)(*args), trial.sizes()) for name, *args in actions]
            known = len(real.readers)

            def body():
                return [(getattr(real, name)(*args), real.sizes()) for name, *args in actions]

            if how == "together":
                assert run(body) == expected
                model = trial
            else:
                seen = []
                undone(lambda: seen.extend(body()))
                assert seen == expected
                del real.readers[known:]
        assert real.sizes() == model.sizes()
