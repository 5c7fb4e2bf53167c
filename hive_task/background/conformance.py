"""The tests that every data source must pass. For sources of your own as well: derive a class and say how to make one.

    from hive_task.background.conformance import SourceConformance

    class TestMySource(SourceConformance):
        lacks = frozenset({"rates"})

        def make_source(self, clock):
            return MySource(clock=clock, lease=30.0)

pytest collects such a class and runs it. Each test has a new source and a `ManualClock` of its own, and is named after
the promise that it holds the source to (P1 to P6, see `sources.base`). A source takes its times from that clock, for
tests let hours pass; and its leases last for 30 seconds. After each test, the source is closed.

`lacks`: what the source does not offer; tests that need it are skipped. The words:

- `records`: `find_task` and whatever else asks or changes by hand.
- `claims`: settling, under claims with epochs. `leases`: taking over what was not renewed. `steady leases`: that don't
  heed jumps of the wall clock.
- `schedule`: `tend` queues what has become due. `waiting`: whoever waits is woken at once. `threads`: many at once.
- `priorities`, `pauses`, `limits`, `rates`, `dependencies`, `unique`, `known ids`: see `Task`.

`BARE` are all of these: what a source lacks that has the first three methods alone, and nothing to order by.

`make_other(source, clock)` may return another object for the same tasks, as another process would have it: the tests
with several threads then use both. It is closed too.
"""

from __future__ import annotations

from typing import Final

from hive_task.background._conformance_basics import Basics
from hive_task.background._conformance_claims import Claims
from hive_task.background._conformance_order import Order
from hive_task.background._conformance_threads import Threads

__all__ = ["BARE", "SourceConformance"]

BARE: Final = frozenset(
    {
        "records",
        "claims",
        "leases",
        "steady leases",
        "schedule",
        "waiting",
        "threads",
        "priorities",
        "pauses",
        "limits",
        "rates",
        "dependencies",
        "unique",
        "known ids",
    }
)


class SourceConformance(Basics, Claims, Order, Threads):
    """See the module. To be derived from."""

    __test__ = False

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if "__test__" not in cls.__dict__:
            cls.__test__ = True
        unknown = cls.lacks - BARE
        if unknown:
            raise TypeError(f"{cls.__name__} lacks what no test needs: {', '.join(sorted(unknown))}")
