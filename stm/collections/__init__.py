"""Transactional collections, with the names, arguments and errors of the standard library's own.

Every operation is a transaction; `@atomically` makes several of them one. A collection may be used inside and outside
transactions, by any number of threads, and whatever iterates over one, prints it or takes its length sees one moment.
"""

from typing import TYPE_CHECKING

from stm._lazy import lazily

if TYPE_CHECKING:
    from stm.collections.channel import ChannelReader, TChannel
    from stm.collections.counter import TCounter
    from stm.collections.map import TMap
    from stm.collections.priority_queue import TPriorityQueue
    from stm.collections.queue import Empty, Full, ShutDown, TQueue
    from stm.collections.set import TSet
    from stm.collections.vector import TVector

__all__ = [
    "ChannelReader",
    "Empty",
    "Full",
    "ShutDown",
    "TChannel",
    "TCounter",
    "TMap",
    "TPriorityQueue",
    "TQueue",
    "TSet",
    "TVector",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "ChannelReader": "stm.collections.channel",
            "Empty": "stm.collections.queue",
            "Full": "stm.collections.queue",
            "ShutDown": "stm.collections.queue",
            "TChannel": "stm.collections.channel",
            "TCounter": "stm.collections.counter",
            "TMap": "stm.collections.map",
            "TPriorityQueue": "stm.collections.priority_queue",
            "TQueue": "stm.collections.queue",
            "TSet": "stm.collections.set",
            "TVector": "stm.collections.vector",
        },
    )
