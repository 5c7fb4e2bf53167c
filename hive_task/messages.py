"""Ports and channels: how workers and schedulers, or any two parties, send each other messages.

A channel joins two ports, full duplex. `LocalPort` and `LocalChannel` do so within the process, by two `TQueue`s; other
transports implement `Port` and `Channel` and serve the same functions: `connect_port`, `disconnect_port`,
`port_connected`, `send_message`, `receive_message`. A message is any object; it is passed on as it is, so it should be
immutable. `Message` is a base for kinds of one's own, `SystemEvent` what a scheduler and its workers tell each other.

Promises, for every transport:

1. *Nothing lost, nothing twice, in order.* What was sent waits in the channel until it is received, also when the peer
   connects only later. What a port had not received when it was disconnected waits at its end of the channel for
   whoever connects there next; a port that comes back gets its own old end if that is free.
2. *A port is connected to one channel at most, a channel has two ports at most*: else `PortAlreadyConnected`,
   `ChannelOccupied`. A port that is not connected neither sends nor receives: `PortNotConnected`, also for whoever
   waits in `receive_message` or `send_message` when that port is disconnected. If the peer leaves, those who wait go on
   waiting, for another may come.
3. *Waiting.* `receive_message` waits for a message, `send_message` for room if the channel is bounded. With
   `block=False`, or after `timeout` seconds, they raise `Empty` and `Full`, those of `queue`; `receive_message` returns
   `default` instead if there is one.

Local ones are transactional besides: see `hive_task.local_port`.

Cost: about 2 µs to send and 2 µs to receive at a `LocalPort`. Another kind of port is checked for what it can do at
each call, which takes 10 µs on Python 3.11 and 2 µs on later ones.

>>> from stm import atomically
>>> ours, theirs, channel = LocalPort(), LocalPort(), LocalChannel()
>>> _ = connect_port(ours, channel)
>>> send_message(ours, "early")
>>> _ = connect_port(theirs, channel)
>>> receive_message(theirs)
'early'
>>> receive_message(theirs, block=False, default="nothing yet")
'nothing yet'
>>> @atomically
... def answer():
...     question = receive_message(theirs)
...     send_message(theirs, f"{question} is enough")
>>> send_message(ours, 42)
>>> answer()
>>> receive_message(ours)
'42 is enough'
>>> port_connected(disconnect_port(ours))
False
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Literal, Protocol, TypeVar, get_args, overload, runtime_checkable
from uuid import UUID

from hive_task.local_port import LocalChannel, LocalPort
from stm.collections import Empty, Full

__all__ = [
    "Channel",
    "Empty",
    "Full",
    "LocalChannel",
    "LocalPort",
    "Message",
    "Port",
    "SystemEvent",
    "connect_port",
    "disconnect_port",
    "port_connected",
    "receive_message",
    "send_message",
]

D = TypeVar("D")

Kind = Literal["stop", "overdue", "cancel", "crashed"]
KINDS: Final = get_args(Kind)


@dataclass(frozen=True)
class Message:
    """A base for kinds of messages: frozen dataclasses. Nothing requires it; any object can be sent."""


@dataclass(frozen=True)
class SystemEvent(Message):
    """What a scheduler and its workers tell each other.

    `kind`: "stop" (end when there is nothing left to do), "overdue" (what you run has exceeded its time limit),
    "cancel" (its cancellation is asked for), or "crashed" (a worker to its scheduler: I am about to die). `subject`:
    what it is about, a work or an error for instance. `ValueError` for another kind.
    """

    kind: Kind
    subject: object = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"a SystemEvent's kind is one of {', '.join(map(repr, KINDS))}, not {self.kind!r}")


@runtime_checkable
class Channel(Protocol):
    """What two ports of a kind meet at. It is the ports that know how to use it."""

    @property
    def uuid(self) -> UUID: ...


@runtime_checkable
class Port(Protocol):
    """One end of a connection: what to implement for another transport. See the module for what it has to promise.

    Arguments were checked by the functions of this module, when they come from there: `timeout` is `None` or a number
    of seconds that is not negative, and counts only if `block`. Threads may share a port.
    """

    @property
    def uuid(self) -> UUID: ...

    @property
    def connected(self) -> bool: ...

    def connect(self, channel: Any, /) -> None:
        """`PortAlreadyConnected`, `ChannelOccupied`; `TypeError` for a channel that is not for this kind of port."""

    def disconnect(self) -> None:
        """`PortNotConnected`"""

    def send(self, message: Any, block: bool = True, timeout: float | None = None) -> None:
        """`PortNotConnected`; `Full` where there is no room, or none in time."""

    def receive(self, block: bool = True, timeout: float | None = None) -> Any:
        """`PortNotConnected`; `Empty` where there is no message, or none in time."""


P = TypeVar("P", bound=Port)


class _Missing(Enum):
    """The type of the default that was not given."""

    MISSING = "missing"


def connect_port(port: P, channel: Channel) -> P:
    """Connect the port, and return it. `PortAlreadyConnected`, `ChannelOccupied`; nothing has changed then."""
    _check_port("connect_port", port)
    if not isinstance(channel, Channel) or isinstance(channel, Port):
        raise TypeError(f"connect_port() takes a port and a channel, not {port!r} and {channel!r}")
    port.connect(channel)
    return port


def disconnect_port(port: P) -> P:
    """Disconnect the port, and return it. `PortNotConnected` if it isn't, and for whoever waits at it."""
    _check_port("disconnect_port", port)
    port.disconnect()
    return port


def port_connected(port: Port) -> bool:
    """Is the port connected? Inside a transaction that stays true until the commit, for a local one."""
    _check_port("port_connected", port)
    return port.connected


def send_message(port: Port, message: object, *, block: bool = True, timeout: float | None = None) -> None:
    """Send a message to whoever is, or comes, at the other end of the port's channel.

    If the channel is bounded and full: wait, at most `timeout` seconds if that isn't None, then raise `Full`; raise it
    at once if not `block`. `PortNotConnected`.
    """
    _check_port("send_message", port)
    _check_timeout(timeout)
    port.send(message, block, timeout)


@overload
def receive_message(port: Port, *, block: bool = True, timeout: float | None = None) -> Any: ...


@overload
def receive_message(port: Port, *, block: bool = True, timeout: float | None = None, default: D) -> Any | D: ...


def receive_message(
    port: Port, *, block: bool = True, timeout: float | None = None, default: Any = _Missing.MISSING
) -> Any:
    """The next message for this port.

    If there is none: wait, at most `timeout` seconds if that isn't None, then raise `Empty`, or return `default` if one
    is given; do so at once if not `block`. `PortNotConnected`.
    """
    _check_port("receive_message", port)
    _check_timeout(timeout)
    try:
        return port.receive(block, timeout)
    except Empty:
        if default is _Missing.MISSING:
            raise
        return default


def _check_port(where: str, port: object) -> None:
    if not (isinstance(port, LocalPort) or isinstance(port, Port)):  # noqa: SIM101 (the first is ten times as quick)
        raise TypeError(f"{where}() takes a port, such as LocalPort(), not {port!r}")


def _check_timeout(timeout: float | None) -> None:
    if timeout is None:
        return
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout must be a number of seconds or None, not {timeout!r}")
    if not timeout >= 0:
        raise ValueError(f"timeout must not be negative or NaN, got {timeout!r}; None waits without limit")
