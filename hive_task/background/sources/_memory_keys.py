"""What tasks of a `MemoryQueue` share by a key: `Uniques`, `Limits` and `Rates`.

Each method is a part of the caller's transaction. A key that nobody uses any more takes no memory.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import NamedTuple

from hive_task.background.sources._memory_line import Entry, entry
from hive_task.background.sources._memory_state import Job, State, look
from hive_task.background.tasks import WAITING, Limit, Rate
from stm import TMap, TPriorityQueue

#: Keys whose time is over and that are forgotten by one transaction, at most.
SWEPT = 100


class Uniques:
    """Who has a unique key: until he has ended, or for a time (by the clock's `monotonic`)."""

    def __init__(self) -> None:
        self._holders: TMap[str, tuple[str, float | None]] = TMap.named("unique keys")
        self._lapses: TPriorityQueue[tuple[float, str]] = TPriorityQueue(name="ends of unique keys")

    def holder(self, key: str, now: float) -> str | None:
        """The id of the task that has the key, if one has."""
        id, until = self._holders.get(key, (None, None))
        return None if until is not None and until <= now else id

    def take(self, key: str, id: str, seconds: float | None, now: float) -> None:
        self._sweep(now)
        until = None if seconds is None else now + seconds
        self._holders[key] = (id, until)
        if until is not None:
            self._lapses.put((until, key))

    def release(self, key: str, id: str) -> None:
        """The task has ended: the key is free, if it was not taken for a time."""
        if self._holders.get(key) == (id, None):
            del self._holders[key]

    def _sweep(self, now: float) -> None:
        for _ in range(SWEPT):
            if self._lapses.empty() or self._lapses.peek()[0] > now:
                return
            until, key = self._lapses.get()
            if self._holders.get(key, (None, None))[1] == until:
                del self._holders[key]


class Limits:
    """The places for tasks with the same key, and who waits for one."""

    def __init__(self) -> None:
        self._held: TMap[str, int] = TMap.named("places")
        self._waiting: TMap[str, TPriorityQueue[Entry]] = TMap.named("tasks that wait for a place")

    def take(self, limit: Limit) -> bool:
        """Take a place, if there is one."""
        held = self._held.get(limit.key, 0)
        if held >= limit.most:
            return False
        self._held[limit.key] = held + 1
        return True

    def wait(self, job: Job, state: State, limit: Limit) -> None:
        """The job is to get a place when its turn has come."""
        waiting = self._waiting.get(limit.key)
        if waiting is None:
            waiting = self._waiting[limit.key] = TPriorityQueue(name=f"tasks that wait for a place of {limit.key}")
        waiting.put(entry(job, state))

    def give_back(self, limit: Limit) -> list[Job]:
        """Give back a place. The jobs that have got one thereby."""
        key = limit.key
        held = self._held[key] - 1
        placed: list[Job] = []
        waiting = self._waiting.get(key)
        while waiting is not None and not waiting.empty():
            _, order, _, job = waiting.peek()
            state = look(job)
            # It may have been cancelled; also, it may have been put in again after that.
            if state.state == WAITING and state.order == order:
                assert state.task.limit is not None
                if held >= state.task.limit.most:
                    break
                held += 1
                placed.append(job)
            waiting.get()
        if waiting is not None and waiting.empty():
            del self._waiting[key]
        if held:
            self._held[key] = held
        else:
            del self._held[key]
        return placed


class Reservations(NamedTuple):
    """The times at which tasks with a key are to start, in order. From `begin` up to `full` there is none left."""

    times: tuple[float, ...] = ()
    begin: float = 0.0
    full: float = 0.0


NO_RESERVATIONS = Reservations()


class Rates:
    """When tasks with the same key may start: at most so many within any so many seconds, by the wall clock."""

    def __init__(self) -> None:
        self._keys: TMap[str, Reservations] = TMap.named("rates")
        self._lapses: TPriorityQueue[tuple[float, str, float]] = TPriorityQueue(name="ends of rates")

    def reserve(self, rate: Rate, wanted: float, now: float) -> float:
        """The earliest time to start at, not before `wanted`."""
        self._sweep(now)
        times, begin, full = self._keys.get(rate.key, NO_RESERVATIONS)
        start = full if begin <= wanted < full else wanted
        while (later := _crowded(times, start, rate)) is not None:
            start = later
        # What is full stays full. So when many come at once, each begins to look where the last one has found a place.
        begin, full = (begin, start) if begin <= wanted <= full else (wanted, start)
        gone = bisect_left(times, now, key=lambda time: time + rate.seconds)
        place = bisect_right(times, start)
        gone = min(gone, place)
        self._keys[rate.key] = Reservations((*times[gone:place], start, *times[place:]), begin, full)
        self._lapses.put((start + rate.seconds, rate.key, start))
        return start

    def _sweep(self, now: float) -> None:
        for _ in range(SWEPT):
            if self._lapses.empty() or self._lapses.peek()[0] > now:
                return
            _, key, start = self._lapses.get()
            found = self._keys.get(key)
            if found is not None and found.times[-1] <= start:
                del self._keys[key]


def _crowded(times: tuple[float, ...], start: float, rate: Rate) -> float | None:
    """None if one more may start then; else a later time before which there is certainly no place."""
    most, seconds = rate.most, rate.seconds
    first = bisect_right(times, start, key=lambda time: time + seconds)  # the first within `seconds` before
    end = bisect_left(times, start + seconds)  # the first no more within `seconds` after
    if end - first < most:
        return None
    here = bisect_right(times, start)
    # `most` of these, one after the other, and the new one among or beside them, must not all be within `seconds`.
    for begin in range(min(here, end - most), first - 1, -1):
        earliest, latest = min(times[begin], start), max(times[begin + most - 1], start)
        if latest < earliest + seconds:
            return times[begin] + seconds
    return None
