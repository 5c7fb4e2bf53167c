"""`LocalPort` and `LocalChannel`: messages between threads of one process, in transactions.

Promises, besides those of `hive_task.messages` that every transport makes: each operation is a transaction, and
`@atomically` makes several of them one, so what it sent is there if and when it commits, and what it received is back
in its old place if it doesn't. Waiting is by `retry`, so that
`or_else(lambda: receive_message(a), lambda: receive_message(b))` takes from whichever has something.

How: a channel has two ends, at each of which a `TQueue` holds what is to be received there. A port that is connected
has one of the ends, and sends to the other. The queues belong to the channel, so nothing is lost when a port leaves.
A channel keeps its ports alive, and they it.

Which conflict: two that send from the same end, and two that receive at it; sender and receiver do not, except when the
queue seems empty or full to one of them (see `stm.collections.queue`). Connecting and disconnecting conflict with
everything on the same port, and with each other on the same channel.

Cost: about 2 µs to send and 2 µs to receive, however many messages wait; some 10 µs to connect, and to make a channel.

>>> from stm import atomically, or_else
>>> (a, b), channel = (LocalPort(), LocalPort()), LocalChannel()
>>> a.connect(channel)
>>> a.send("early")
>>> b.connect(channel)
>>> @atomically
... def whichever():
...     return or_else(lambda: ("at a", a.receive()), lambda: ("at b", b.receive()))
>>> whichever()
('at b', 'early')
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn, TypeVar
from uuid import UUID, uuid4

from hive_task.errors import ChannelOccupied, PortAlreadyConnected, PortNotConnected
from stm import TransactionTimeout, TVar, atomically, exchange, run
from stm.collections import Empty, Full, TQueue

R = TypeVar("R")


class _Ends(NamedTuple):
    """Who is connected to a channel, and who was last."""

    ports: tuple[LocalPort | None, LocalPort | None] = (None, None)
    last: tuple[UUID | None, UUID | None] = (None, None)

    def end_for(self, port: LocalPort) -> int | None:
        """Which end the port gets: that which it had, else one that nobody had, else any that is free."""
        free = [end for end in (0, 1) if self.ports[end] is None]
        return min(free, key=lambda end: (self.last[end] != port.uuid, self.last[end] is not None), default=None)

    def replaced(self, end: int, port: LocalPort | None) -> _Ends:
        last = self.last if port is None else _with(self.last, end, port.uuid)
        return _Ends(_with(self.ports, end, port), last)


def _with(pair: tuple[R, R], end: int, one: R) -> tuple[R, R]:
    return (pair[0], one) if end else (one, pair[1])


class LocalChannel:
    """A channel for two `LocalPort`s of this process.

    `maxsize`: how many messages may wait, in each direction; 0 or less: any number.
    """

    __slots__ = ("__weakref__", "_ends", "_queues", "_uuid")

    def __init__(self, maxsize: int = 0) -> None:
        self._uuid = uuid4()
        #: What waits at each end to be received there.
        self._queues: tuple[TQueue[Any], TQueue[Any]] = (TQueue(maxsize), TQueue(maxsize))
        self._ends = TVar(_Ends(), name="LocalChannel")

    @property
    def uuid(self) -> UUID:
        return self._uuid

    @property
    def ports(self) -> tuple[LocalPort, ...]:
        """The ports that are connected, two at most. Transactional: one may `check(len(channel.ports) == 2)`."""
        return tuple(port for port in self._ends.get().ports if port is not None)

    def __repr__(self) -> str:
        return f"<LocalChannel {self._uuid} of {len(self.ports)} ports>"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(f"{self!r} can't be pickled or copied: it is a place where ports of this process meet")


class _Line(NamedTuple):
    """A port's connection."""

    channel: LocalChannel
    end: int
    inbox: TQueue[Any]
    outbox: TQueue[Any]


class LocalPort:
    """A port within this process, for a `LocalChannel`; its methods are those of `hive_task.messages.Port`."""

    __slots__ = ("__weakref__", "_line", "_uuid")

    def __init__(self) -> None:
        self._uuid = uuid4()
        self._line: TVar[_Line | None] = TVar(None, name="LocalPort")

    @property
    def uuid(self) -> UUID:
        return self._uuid

    @property
    def connected(self) -> bool:
        return self._line.get() is not None

    @atomically
    def connect(self, channel: LocalChannel, /) -> None:
        if not isinstance(channel, LocalChannel):
            raise TypeError(f"a LocalPort is connected to a LocalChannel, not to {channel!r}")
        while True:
            line, ends = self._line.get(), channel._ends.get()
            if line is not None:
                raise PortAlreadyConnected(f"LocalPort {self._uuid} is connected to {line.channel!r}")
            end = ends.end_for(self)
            if end is None:
                raise ChannelOccupied(f"{channel!r} has both its ports: disconnect_port() one of them first")
            line = _Line(channel, end, channel._queues[end], channel._queues[1 - end])
            if exchange((self._line, None, line), (channel._ends, ends, ends.replaced(end, self))):
                return

    @atomically
    def disconnect(self) -> None:
        while True:
            line = self._connection()
            ends = line.channel._ends.get()
            if exchange((self._line, line, None), (line.channel._ends, ends, ends.replaced(line.end, None))):
                return

    def send(self, message: Any, block: bool = True, timeout: float | None = None) -> None:
        _within(timeout if block else None, Full, self._send, message, block)

    @atomically
    def _send(self, message: Any, block: bool) -> None:
        self._connection().outbox.put(message, block)

    def receive(self, block: bool = True, timeout: float | None = None) -> Any:
        return _within(timeout if block else None, Empty, self._receive, block)

    @atomically
    def _receive(self, block: bool) -> Any:
        return self._connection().inbox.get(block)

    def _connection(self) -> _Line:
        line = self._line.get()
        if line is None:
            raise PortNotConnected(f"LocalPort {self._uuid} is not connected: connect_port(port, channel) first")
        return line

    def __repr__(self) -> str:
        line = self._line.get()
        return f"<LocalPort {self._uuid} {'not connected' if line is None else f'of channel {line.channel.uuid}'}>"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(f"{self!r} can't be pickled or copied: its messages are for threads of this process")


def _within(timeout: float | None, error: type[Exception], body: Callable[..., R], *args: object) -> R:
    """Run a transaction; raise `error` if it had to wait for longer than `timeout` seconds."""
    if timeout is None:
        return body(*args)
    try:
        return run(body, *args, timeout=timeout)
    except TransactionTimeout:
        raise error from None
