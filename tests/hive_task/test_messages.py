"""What ports and channels promise: `PortContract` for every transport, and what local ones promise besides."""

import copy
import gc
import pickle
import time
import weakref
from collections import deque
from threading import Condition
from uuid import UUID, uuid4

import pytest

from hive_task.errors import ChannelOccupied, HiveTaskError, PortAlreadyConnected, PortNotConnected
from hive_task.messages import (
    Channel,
    Empty,
    Full,
    LocalChannel,
    LocalPort,
    Message,
    Port,
    SystemEvent,
    connect_port,
    disconnect_port,
    port_connected,
    receive_message,
    send_message,
)
from stm import atomically, check, on_commit, or_else, run
from tests.support import Background, Once, asleep, elsewhere, together

# ---------------------------------------------------------------------------------------------- another transport


class LockedChannel:
    """A foreign transport, as small as the contract allows: two deques under one lock."""

    def __init__(self, maxsize=0):
        self.uuid = uuid4()
        self.maxsize = maxsize
        self.changed = Condition()
        self.ports = [None, None]
        self.had = [None, None]
        self.queues = [deque(), deque()]


class LockedPort:
    def __init__(self):
        self.uuid = uuid4()
        self.channel = None

    @property
    def connected(self):
        return self.channel is not None

    def connect(self, channel, /):
        if not isinstance(channel, LockedChannel):
            raise TypeError("a LockedPort wants a LockedChannel")
        with channel.changed:
            if self.channel is not None:
                raise PortAlreadyConnected
            free = [end for end in (0, 1) if channel.ports[end] is None]
            if not free:
                raise ChannelOccupied
            end = min(free, key=lambda end: (channel.had[end] is not self, channel.had[end] is not None))
            channel.ports[end] = channel.had[end] = self
            self.channel = channel

    def disconnect(self):
        channel = self._channel()
        with channel.changed:
            channel.ports[channel.ports.index(self)] = None
            self.channel = None
            channel.changed.notify_all()

    def send(self, message, block=True, timeout=None):
        channel = self._channel()
        self._act(channel, lambda queue: len(queue) < (channel.maxsize or 1e9), 1, Full, block, timeout).append(message)

    def receive(self, block=True, timeout=None):
        return self._act(self._channel(), len, 0, Empty, block, timeout).popleft()

    def _channel(self):
        if self.channel is None:
            raise PortNotConnected
        return self.channel

    def _act(self, channel, ready, which, error, block, timeout):
        with channel.changed:
            came = channel.changed.wait_for(
                lambda: self.channel is None or ready(channel.queues[channel.ports.index(self) ^ which]),
                timeout if block else 0,
            )
            self._channel()
            if not came:
                raise error
            channel.changed.notify_all()
            return channel.queues[channel.ports.index(self) ^ which]


# ---------------------------------------------------------------------------------------------- every transport


class PortContract:
    """What every transport must do. Subclasses name the two classes."""

    port_class: type
    channel_class: type

    def pair(self, maxsize=0):
        channel = self.channel_class(maxsize)
        return connect_port(self.port_class(), channel), connect_port(self.port_class(), channel), channel

    def test_they_are_ports_and_channels_with_identities_of_their_own(self):
        a, b, channel = self.pair()
        assert isinstance(a, Port)
        assert isinstance(channel, Channel)
        assert len({a.uuid, b.uuid, channel.uuid}) == 3
        assert all(isinstance(one.uuid, UUID) for one in (a, b, channel))

    def test_messages_arrive_in_order_in_both_directions(self):
        a, b, _ = self.pair()
        for number in range(10):
            send_message(a, number)
            send_message(b, -number)
        assert [receive_message(b) for _ in range(10)] == list(range(10))
        assert [receive_message(a) for _ in range(10)] == [-number for number in range(10)]
        for port in (a, b):
            with pytest.raises(Empty):
                receive_message(port, block=False)

    def test_any_object_is_a_message_even_none(self):
        a, b, _ = self.pair()
        sent = [None, SystemEvent("stop"), (1, "x"), Empty]
        for message in sent:
            send_message(a, message)
        assert [receive_message(b, default="?") for _ in sent] == sent

    def test_what_was_sent_before_the_peer_connects_waits_for_it(self):
        a, channel = self.port_class(), self.channel_class()
        connect_port(a, channel)
        send_message(a, "early")
        b = connect_port(self.port_class(), channel)
        assert receive_message(b) == "early"

    def test_what_a_port_left_behind_waits_for_whoever_connects_there_next(self):
        a, b, channel = self.pair()
        for message in ("one", "two", "three"):
            send_message(a, message)
        assert receive_message(b) == "one"
        disconnect_port(b)
        send_message(a, "four")
        c = connect_port(self.port_class(), channel)
        assert [receive_message(c) for _ in range(3)] == ["two", "three", "four"]

    def test_a_port_that_comes_back_gets_its_own_end(self):
        for first, then in ((0, 1), (1, 0)):
            a, b, channel = self.pair()
            send_message(a, "for b")
            send_message(b, "for a")
            disconnect_port(a)
            disconnect_port(b)
            for which in (first, then):
                connect_port((a, b)[which], channel)
            assert receive_message(a, block=False) == "for a"
            assert receive_message(b, block=False) == "for b"

    def test_a_newcomer_leaves_a_port_that_may_come_back_its_end(self):
        a, channel = self.port_class(), self.channel_class()
        connect_port(a, channel)
        send_message(a, "for the peer")
        disconnect_port(a)
        b = connect_port(self.port_class(), channel)
        connect_port(a, channel)
        assert receive_message(b, block=False) == "for the peer"

    def test_what_a_port_sent_before_it_left_still_arrives(self):
        a, b, _ = self.pair()
        send_message(a, "goodbye")
        disconnect_port(a)
        assert receive_message(b) == "goodbye"

    def test_a_port_may_change_to_another_channel(self):
        a, b, _ = self.pair()
        c, _, other = self.pair()
        disconnect_port(b)
        disconnect_port(c)
        connect_port(b, other)
        send_message(a, "unheard")
        with pytest.raises(Empty):
            receive_message(b, block=False)

    def test_a_channel_has_two_ports_at_most(self):
        a, _, channel = self.pair()
        third = self.port_class()
        with pytest.raises(ChannelOccupied):
            connect_port(third, channel)
        assert not port_connected(third)
        disconnect_port(a)
        connect_port(third, channel)
        assert port_connected(third)

    def test_a_port_has_one_channel_at_most(self):
        a, channel = self.port_class(), self.channel_class()
        connect_port(a, channel)
        for one in (channel, self.channel_class()):
            with pytest.raises(PortAlreadyConnected):
                connect_port(a, one)
        connect_port(self.port_class(), channel)  # there is room still

    def test_a_port_that_is_not_connected_does_nothing(self):
        port = self.port_class()
        for _ in range(2):
            assert not port_connected(port)
            for attempt in (disconnect_port, receive_message, lambda port: send_message(port, 1)):
                with pytest.raises(PortNotConnected):
                    attempt(port)
            with pytest.raises(PortNotConnected):
                receive_message(port, block=False, default=None)
            connect_port(port, self.channel_class())
            assert port_connected(port)
            disconnect_port(port)

    def test_who_waits_for_a_message_gets_it(self):
        a, b, _ = self.pair()
        waiting = Background(receive_message, b)
        send_message(a, "here")
        assert waiting.result() == "here"

    def test_who_waits_at_a_port_that_is_disconnected_gets_an_error(self):
        _, b, _ = self.pair()
        waiting = Background(receive_message, b)
        disconnect_port(b)
        with pytest.raises(PortNotConnected):
            waiting.result()

    def test_who_waits_for_room_at_a_port_that_is_disconnected_gets_an_error(self):
        a, _, _ = self.pair(1)
        send_message(a, 1)
        waiting = Background(send_message, a, 2)
        disconnect_port(a)
        with pytest.raises(PortNotConnected):
            waiting.result()

    def test_who_waits_goes_on_waiting_when_the_peer_leaves(self):
        a, b, channel = self.pair()
        waiting = Background(receive_message, b)
        disconnect_port(a)
        c = connect_port(self.port_class(), channel)
        send_message(c, "from another")
        assert waiting.result() == "from another"

    def test_nothing_there(self):
        _, b, _ = self.pair()
        nothing = object()
        begun = time.monotonic()
        with pytest.raises(Empty):
            receive_message(b, block=False, timeout=60)
        with pytest.raises(Empty):
            receive_message(b, timeout=0)
        assert receive_message(b, block=False, default=nothing) is nothing
        assert receive_message(b, timeout=0.01, default=None) is None
        assert time.monotonic() - begun < 30

    def test_no_room(self):
        a, b, _ = self.pair(2)
        send_message(a, 1)
        send_message(a, 2, block=False)
        with pytest.raises(Full):
            send_message(a, 3, block=False)
        with pytest.raises(Full):
            send_message(a, 3, timeout=0.01)
        send_message(b, "the other direction has room")
        waiting = Background(send_message, a, 3)
        assert receive_message(b) == 1
        waiting.result()
        assert [receive_message(b), receive_message(b)] == [2, 3]

    def test_threads_that_share_ports_lose_nothing_and_get_nothing_twice(self):
        a, b, _ = self.pair(5)
        count = 300
        received = together(
            lambda: [send_message(a, number) for number in range(0, count, 2)],
            lambda: [send_message(a, number) for number in range(1, count, 2)],
            lambda: [receive_message(b) for _ in range(count // 2)],
            lambda: [receive_message(b) for _ in range(count // 2)],
        )[2:]
        assert sorted(received[0] + received[1]) == list(range(count))

    def test_of_two_that_connect_the_last_free_end_one_succeeds(self):
        channel = self.channel_class()
        connect_port(self.port_class(), channel)

        def attempt():
            try:
                return connect_port(self.port_class(), channel)
            except ChannelOccupied:
                return None

        assert together(attempt, attempt, attempt).count(None) == 2

    def test_ports_of_one_transport_refuse_channels_of_another(self):
        class Stranger:
            uuid = uuid4()

        port = self.port_class()
        with pytest.raises(TypeError):
            connect_port(port, Stranger())
        assert not port_connected(port)

    @pytest.mark.parametrize(("timeout", "error"), [(-1, ValueError), (float("nan"), ValueError), ("1", TypeError)])
    def test_a_bad_time_limit_is_refused_and_nothing_is_lost(self, timeout, error):
        a, b, _ = self.pair()
        send_message(a, "kept")
        with pytest.raises(error, match="timeout"):
            receive_message(b, timeout=timeout)
        with pytest.raises(error, match="timeout"):
            send_message(a, "never", timeout=timeout)
        assert receive_message(b) == "kept"
        assert receive_message(b, block=False, default=None) is None


class TestLocal(PortContract):
    port_class = LocalPort
    channel_class = LocalChannel


class TestForeign(PortContract):
    port_class = LockedPort
    channel_class = LockedChannel


# ---------------------------------------------------------------------------------------------- input


@pytest.mark.parametrize("thing", [None, "port", LocalChannel(), LockedChannel()])
def test_what_is_no_port_is_refused(thing):
    for attempt in (
        lambda: connect_port(thing, LocalChannel()),
        lambda: disconnect_port(thing),
        lambda: port_connected(thing),
        lambda: send_message(thing, 1),
        lambda: receive_message(thing),
    ):
        with pytest.raises(TypeError, match=r"takes a port"):
            attempt()


@pytest.mark.parametrize("thing", [None, "channel", LocalPort()])
def test_what_is_no_channel_is_refused(thing):
    port = LocalPort()
    with pytest.raises(TypeError, match="takes a port and a channel"):
        connect_port(port, thing)
    assert not port_connected(port)


def test_system_events():
    event = SystemEvent("crashed", ValueError("why"))
    assert isinstance(event, Message)
    assert event.kind == "crashed"
    assert SystemEvent("stop") == SystemEvent("stop") != SystemEvent("cancel")
    with pytest.raises(AttributeError):
        event.kind = "stop"
    with pytest.raises(ValueError, match="'stop', 'overdue', 'cancel', 'crashed'"):
        SystemEvent("halt")


def test_errors_have_one_root_and_say_what_to_do():
    for error in (ChannelOccupied, PortAlreadyConnected, PortNotConnected):
        assert issubclass(error, HiveTaskError)
    with pytest.raises(PortNotConnected, match=r"connect_port\(port, channel\) first"):
        receive_message(LocalPort())


# ---------------------------------------------------------------------------------------------- transactions


class Undo(Exception):
    """Ends a transaction that is not to have happened."""


def linked(maxsize=0):
    channel = LocalChannel(maxsize)
    return connect_port(LocalPort(), channel), connect_port(LocalPort(), channel), channel


def test_a_transaction_that_fails_has_sent_received_and_connected_nothing():
    a, b, channel = linked()
    c, d, other = LocalPort(), LocalPort(), LocalChannel()
    send_message(a, "first")

    @atomically
    def body():
        assert receive_message(b) == "first"
        send_message(a, "second")
        assert receive_message(b) == "second"
        disconnect_port(a)
        connect_port(a, other)
        connect_port(c, other)
        with pytest.raises(ChannelOccupied):
            connect_port(d, other)
        raise Undo

    with pytest.raises(Undo):
        body()
    assert not port_connected(c)
    assert other.ports == ()
    assert channel.ports == (a, b)
    assert receive_message(b) == "first"
    assert receive_message(b, block=False, default=None) is None


def test_what_a_transaction_sends_is_there_when_it_commits():
    a, b, _ = linked()

    @atomically
    def body():
        send_message(a, 1)
        assert elsewhere(lambda: receive_message(b, block=False, default="nothing")) == "nothing"
        send_message(a, 2)

    body()
    assert [receive_message(b), receive_message(b)] == [1, 2]


def test_connecting_both_ports_is_one_step_to_others():
    a, b, channel = LocalPort(), LocalPort(), LocalChannel()

    @atomically
    def body():
        connect_port(a, channel)
        assert elsewhere(lambda: len(channel.ports)) == 0
        connect_port(b, channel)

    body()
    assert channel.ports == (a, b)


def test_or_else_receives_from_whichever_port_has_something():
    a, b, _ = linked()
    c, d, _ = linked()

    @atomically
    def body():
        return or_else(lambda: receive_message(b), lambda: receive_message(d))

    for sender in (a, c):
        waiting = Background(body)
        asleep()
        send_message(sender, sender.uuid)
        assert waiting.result() == sender.uuid


def test_waiting_for_a_peer():
    a, channel = LocalPort(), LocalChannel()
    connect_port(a, channel)

    @atomically
    def greet():
        check(len(channel.ports) == 2)
        send_message(a, "welcome")

    waiting = Background(greet)
    asleep()
    b = connect_port(LocalPort(), channel)
    waiting.result()
    assert receive_message(b) == "welcome"


def test_a_sleeper_is_woken_by_the_message_the_disconnection_and_nothing_else():
    a, b, channel = linked()
    waiting = Background(receive_message, b)
    asleep()
    disconnect_port(a)
    connect_port(a, channel)
    send_message(b, "the other direction")
    asleep()
    disconnect_port(b)
    with pytest.raises(PortNotConnected):
        waiting.result()


def test_a_message_that_comes_while_one_looks_is_not_missed():
    a, b, _ = linked()
    first = Once()

    @atomically
    def body():
        value = receive_message(b, block=False, default=None)
        if first:
            elsewhere(send_message, a, "now")
        check(value)
        return value

    assert body() == "now"


def test_a_message_is_not_received_at_a_port_that_is_disconnected_meanwhile():
    a, b, channel = linked()
    send_message(a, "for whoever has this end")
    first, c = Once(), LocalPort()

    @atomically
    def body():
        message = receive_message(b)
        if first:
            elsewhere(lambda: (disconnect_port(b), connect_port(c, channel)))
        return message

    with pytest.raises(PortNotConnected):
        body()
    assert receive_message(c) == "for whoever has this end"


def test_a_time_limit_inside_a_transaction_bounds_that_wait_alone():
    a, b, _ = linked(1)

    @atomically
    def body():
        with pytest.raises(Empty):
            receive_message(b, timeout=0.01)
        send_message(a, 1)
        with pytest.raises(Full):
            send_message(a, 2, timeout=0.01)
        return receive_message(b, timeout=60)

    assert body() == 1


def test_hooks_of_a_failed_receive_are_gone_with_it():
    _, b, _ = linked()
    log = []

    def wait():
        on_commit(log.append, "received")
        return receive_message(b)

    assert run(lambda: or_else(wait, lambda: "nothing")) == "nothing"
    assert log == []


def test_a_sender_and_a_receiver_do_not_conflict():
    a, b, _ = linked()
    for number in range(4):
        send_message(a, number)
    receive_message(b)  # has moved what there was to the receivers' side
    runs = []

    @atomically
    def body():
        runs.append(1)
        value = receive_message(b)
        elsewhere(send_message, a, "more")
        return value

    assert body() == 1
    assert len(runs) == 1


def test_a_finalizer_that_connects_in_the_midst_of_connecting_is_noticed():
    """Code that strikes between the reads and the write: its connection must not be overwritten."""
    a, b, c, channel = LocalPort(), LocalPort(), LocalPort(), LocalChannel()
    connect_port(a, channel)
    struck = Once()

    class Intruding(LocalPort):
        __slots__ = ()

        @property
        def uuid(self):
            if struck:
                b.connect(channel)
            return super().uuid

    late = Intruding()
    with pytest.raises(ChannelOccupied):
        connect_port(late, channel)
    assert not port_connected(late)
    # The intruder's connection was part of the same transaction, which failed.
    connect_port(c, channel)
    assert channel.ports == (a, c)


# ---------------------------------------------------------------------------------------------- objects


def test_they_show_what_they_are():
    a, b, channel = linked()
    assert str(channel.uuid) in repr(a)
    assert str(channel.uuid) in repr(channel)
    assert "2 ports" in repr(channel)
    assert "not connected" in repr(disconnect_port(b))


@pytest.mark.parametrize("make", [LocalPort, LocalChannel])
@pytest.mark.parametrize("attempt", [copy.copy, copy.deepcopy, pickle.dumps])
def test_they_can_not_be_copied(make, attempt):
    with pytest.raises(TypeError, match="can't be pickled or copied"):
        attempt(make())


def test_a_received_message_and_a_dropped_channel_are_garbage():
    class Content:
        pass

    a, b, channel = linked()
    content = Content()
    watch = weakref.ref(content)
    send_message(a, content)
    del content
    receive_message(b)
    gc.collect()
    assert watch() is None
    watch = weakref.ref(channel)
    del a, b, channel
    gc.collect()
    assert watch() is None


def test_a_bad_size_is_refused():
    with pytest.raises(TypeError, match="maxsize"):
        LocalChannel("many")
