"""`TChannel`: what one publishes, every subscriber reads. Broadcast, in transactions.

Promises: `subscribe` returns a reader, which will see every item published from then on, in the order of publication;
each reader has its own place. `publish` never waits: there is no limit. Reading waits by `retry`, with `block` and
`timeout` as in `queue.Queue`, and the same errors. After `shutdown`, `publish` raises `ShutDown`; a reader gets what is
left, then `ShutDown`; its iterator ends. What all readers have read, or nobody subscribed to, is garbage at once.

Which conflict: two that publish; two threads that share a reader. Readers conflict neither with one another nor, as
long as something is left to read, with those who publish.

Cost: `publish` some 2 µs, `get` 1 µs, whatever the number of readers. An item that waits takes 250 bytes, once.

>>> from stm import TChannel
>>> news = TChannel()
>>> one, other = news.subscribe(), news.subscribe()
>>> news.publish("rain")
>>> one.get(), one.empty(), other.qsize(), other.get()
('rain', True, 1, 'rain')
>>> news.publish_many(["wind", "sun"])
>>> news.shutdown()
>>> list(one), other.get_many()
(['wind', 'sun'], ['wind', 'sun'])

Source: `TChan` and `dupTChan` of Harris, Marlow, Peyton Jones, Herlihy, "Composable Memory Transactions", 2005: a list
whose last link is an empty variable, the hole. To publish is to fill the hole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import index
from typing import Any, Final, Generic, NoReturn, TypeVar

from stm import TVar, atomically, exchange, retry, snapshot
from stm.collections._blocking import Empty, ShutDown, scoped, within

__all__ = ["ChannelReader", "TChannel"]

T = TypeVar("T")

#: `None` while it is empty; `(item, next link)`, which never changes; or `_CLOSED`, for the last.
Link = TVar[Any]

_CLOSED: Final = "shut down"


class TChannel(Generic[T]):
    """A channel without subscribers. `name` is for error messages and reports."""

    __slots__ = ("__weakref__", "_hole", "_name")

    def __init__(self, *, name: str | None = None) -> None:
        self._name = name
        link: Link = TVar(None, name=name)
        #: The last link, and how many items were published before.
        self._hole: TVar[tuple[Link, int]] = TVar((link, 0), name=name)

    def publish(self, item: T) -> None:
        """Let every reader see this item. `ShutDown` after `shutdown`."""
        link: Link = TVar(None, name=self._name)
        self._publish(1, (item, link), link)

    def publish_many(self, items: Iterable[T]) -> None:
        """Publish all these, one after the other and with no other in between. `ShutDown` as above."""
        batch = tuple(items)
        if not batch:
            return
        last = link = TVar[Any](None, name=self._name)
        content = (batch[-1], last)
        for item in reversed(batch[:-1]):
            link = TVar(content, name=self._name)
            content = (item, link)
        self._publish(len(batch), content, last)

    @atomically
    def _publish(self, number: int, content: tuple[T, Link], last: Link) -> None:
        while True:
            state = self._hole.get()
            hole, published = state
            if hole.get() is _CLOSED:
                raise ShutDown
            if exchange((hole, None, content), (self._hole, state, (last, published + number))):
                return

    def subscribe(self) -> ChannelReader[T]:
        """A reader of what will be published from now on."""
        return ChannelReader(self, self._hole.get())

    @atomically
    def shutdown(self) -> None:
        """No more will be published: readers that are through raise `ShutDown`, and those that wait are woken."""
        while not self._is_shutdown():
            self._hole.get()[0].compare_and_set(None, _CLOSED)

    @property
    def is_shutdown(self) -> bool:
        """Was `shutdown` called?"""
        return self._is_shutdown()

    @atomically
    def _is_shutdown(self) -> bool:
        return self._hole.get()[0].get() is _CLOSED

    def __repr__(self) -> str:
        name = "" if self._name is None else f" {self._name!r}"
        shut = ", shut down" if self.is_shutdown else ""
        return f"<{type(self).__name__}{name}, {self._hole.get()[1]} published{shut}>"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(f"{self!r} can't be pickled or copied: it is a place that threads of this process share")


class ChannelReader(Generic[T]):
    """A place in a channel, made by `subscribe`. Threads that share a reader share the items among them."""

    __slots__ = ("__weakref__", "_channel", "_place")

    def __init__(self, channel: TChannel[T], place: tuple[Link, int]) -> None:
        self._channel = channel
        #: The link with the next item, and how many were published before that.
        self._place = TVar(place, name=channel._name)

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """The next item.

        If there is none yet: wait, at most `timeout` seconds if that isn't None, then raise `Empty`; raise it at once
        if not `block`. `ShutDown` if there will be none. `ValueError` for a negative timeout.
        """
        if timeout is not None and block and scoped(timeout):
            return within(timeout, Empty, self._get_many, 1, block)[0]
        place = self._place.get()
        content = place[0].get()
        if content is not None and content is not _CLOSED:
            item, link = content
            if self._place.compare_and_set(place, (link, place[1] + 1)):
                return item  # type: ignore[no-any-return]
        (item,) = within(timeout if block else None, Empty, self._get_many, 1, block)
        return item

    def get_nowait(self) -> T:
        """`get(block=False)`"""
        return self.get(False)

    def get_many(self, limit: int | None = None, block: bool = True, timeout: float | None = None) -> list[T]:
        """As many items as there are, up to `limit` (None: all), in one step and at least one.

        Waits and raises as `get` does. `ValueError` if `limit` is less than 1. Without a limit it conflicts with
        `publish`.
        """
        if timeout is not None and block:
            scoped(timeout)
        if limit is not None and (limit := index(limit)) < 1:
            raise ValueError(f"get_many() takes a limit of at least 1, not {limit!r}; None takes all there are")
        return within(timeout if block else None, Empty, self._get_many, limit, block)

    @atomically
    def _get_many(self, limit: int | None, block: bool) -> list[T]:
        while True:
            place = self._place.get()
            link, number = place
            most = max(1, self._channel._hole.get()[1] - number) if limit is None else limit
            items: list[T] = []
            while len(items) < most:
                content = link.get()
                if content is None or content is _CLOSED:
                    break
                item, link = content
                items.append(item)
            if not items:
                self._nothing(content, block)
            if self._place.compare_and_set(place, (link, number + len(items))):
                return items

    def peek(self, block: bool = True, timeout: float | None = None) -> T:
        """The item that `get` would return, without going on to the next. Waits and raises as `get` does."""
        if timeout is not None and block:
            scoped(timeout)
        return within(timeout if block else None, Empty, self._peek, block)

    @atomically
    def _peek(self, block: bool) -> T:
        content = self._place.get()[0].get()
        if content is None or content is _CLOSED:
            self._nothing(content, block)
        return content[0]  # type: ignore[no-any-return]

    def _nothing(self, content: object, block: bool) -> NoReturn:
        if content is _CLOSED:
            raise ShutDown
        if not block:
            raise Empty
        retry()

    def qsize(self) -> int:
        """The number of items published and not yet read here."""
        (_, published), (_, read) = snapshot(self._channel._hole, self._place)
        return published - read  # type: ignore[no-any-return]

    def empty(self) -> bool:
        """Is `qsize()` zero?"""
        return not self.qsize()

    def clone(self) -> ChannelReader[T]:
        """Another reader, which is now at the same place as this one."""
        return ChannelReader(self._channel, self._place.get())

    def __iter__(self) -> Iterator[T]:
        """The items as they come, one `get` each, until the channel is shut down."""
        while True:
            try:
                item = self.get()
            except ShutDown:
                return
            yield item

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._channel!r}, {self.qsize()} unread>"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(
            f"{self!r} can't be pickled or copied: it is a place that threads of this process share. "
            "clone() makes another reader at the same place"
        )
