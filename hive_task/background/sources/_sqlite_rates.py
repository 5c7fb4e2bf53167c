"""When a task with a `rate` may start: each takes the earliest time that is free, and keeps it.

Exact: of the times that have been given, any `most + 1` in a row span at least `seconds`. Not only the newest is looked
at, as a token bucket does: a task that was scheduled for tomorrow does not hold up those of today, and these leave it
its room. Cost: O(most) for each task, however many wait: from `full_from` to `full_until` it is known that there is no
room.
"""

from __future__ import annotations

import sqlite3

from hive_task.background.tasks import Rate


def reserve(connection: sqlite3.Connection, rate: Rate, wanted: float, now: float) -> float:
    """Take the earliest free time, not before the one that is wanted."""
    key, most, seconds = rate
    execute = connection.execute
    execute("DELETE FROM starts WHERE key = ? AND time < ?", (key, now - 2 * seconds))
    row = execute("SELECT most, seconds, full_from, full_until FROM rates WHERE key = ?", (key,)).fetchone()
    time = begin = max(wanted, now)
    follows = row is not None and row[:2] == (most, seconds) and row[2] <= begin <= row[3]
    if follows:
        begin, time = row[2:]
    while (later := _conflict(connection, rate, time)) is not None:
        time = later
    execute("INSERT INTO starts VALUES (?, ?)", (key, time))
    if follows or begin <= now:
        execute("INSERT OR REPLACE INTO rates VALUES (?, ?, ?, ?, ?)", (key, most, seconds, begin, time))
    return time


def _conflict(connection: sqlite3.Connection, rate: Rate, time: float) -> float | None:
    """The next time that may be free, if this one is not."""
    key, most, seconds = rate
    before = connection.execute(
        "SELECT time FROM starts WHERE key = ? AND time <= ? ORDER BY time DESC LIMIT ?", (key, time, most)
    ).fetchall()
    after = connection.execute(
        "SELECT time FROM starts WHERE key = ? AND time > ? ORDER BY time LIMIT ?", (key, time, most)
    ).fetchall()
    others = [row[0] for row in reversed(before)] + [row[0] for row in after]
    line = [row[0] for row in reversed(before)] + [time] + [row[0] for row in after]
    latest = None
    for i in range(len(line) - most):
        # `most + 1` in a row, this one among them. To be free of the `most` others it must start after their window.
        if line[i + most] < line[i] + seconds:
            latest = others[i] + seconds
    return latest
