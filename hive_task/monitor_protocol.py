"""What `monitor.py` and `watching.py` say to each other: requests, and the messages that answer them.

>>> interval_wanted(b'{"want": "picture", "interval": 0.5}')
0.5
>>> interval_wanted(b'{"want": "a holiday"}')
Traceback (most recent call last):
    ...
hive_task.monitor_protocol.Refused: unknown request; known is {"want": "picture"}, also with "interval": seconds
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import sys
import time
from typing import Any

from hive_task.picture import Picture
from stm import stats

PROTOCOL = 1

#: Seconds between pictures: so many at least, so that watching can't occupy a program, and at most.
SHORTEST, LONGEST = 0.01, 86400.0

#: Transactions in one message, and variables of each.
MOST_RECORDS, MOST_CAUSES = 100, 5


class Refused(Exception):
    """A request that can't be answered, and why."""


def interval_wanted(line: bytes) -> float | None:
    """Seconds between pictures, None if one is enough; `Refused` if it is no such request."""
    try:
        request = json.loads(line)
    except ValueError:
        raise Refused('a request is a line of JSON, such as {"want": "picture", "interval": 0.5}') from None
    if not isinstance(request, dict) or request.get("want") != "picture":
        raise Refused('unknown request; known is {"want": "picture"}, also with "interval": seconds')
    interval = request.get("interval")
    if interval is None:
        return None
    if isinstance(interval, bool) or not isinstance(interval, int | float) or not SHORTEST <= interval <= LONGEST:
        raise Refused(f"the interval must be a number of seconds from {SHORTEST} to {LONGEST:.0f}")
    return float(interval)


def message(picture: Picture, counting_since: float | None) -> dict[str, Any]:
    """The answer. `counting_since`: when `stm.stats` was enabled (`time.monotonic`); None if it was not."""
    return {
        "monitor": "hive-task",
        "protocol": PROTOCOL,
        "program": _program(),
        "picture": picture.as_dict(),
        "transactions": None if counting_since is None else _transactions(counting_since),
    }


def line(contents: dict[str, Any]) -> bytes:
    return json.dumps(contents, separators=(",", ":")).encode() + b"\n"


def _program() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "argv0": sys.argv[0] if getattr(sys, "argv", None) else "",
        "implementation": sys.implementation.name,
        "python": platform.python_version(),
        "gil": getattr(sys, "_is_gil_enabled", lambda: True)(),
    }


def _transactions(since: float) -> dict[str, Any]:
    records = sorted(stats.snapshot().values(), key=lambda record: (-record.aborts, -record.seconds))
    return {
        "seconds": time.monotonic() - since,
        "omitted": len(records[MOST_RECORDS:]),
        "records": {record.name: _record(record) for record in records[:MOST_RECORDS]},
    }


def _record(record: stats.Record) -> dict[str, Any]:
    numbers = {item.name: getattr(record, item.name) for item in dataclasses.fields(record)}
    return {**numbers, "conflicts": dict(list(record.conflicts.items())[:MOST_CAUSES])}
