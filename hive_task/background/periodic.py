"""When periodic tasks fire: `Every` so many seconds, or by a `Cron` expression. Pure functions of the time.

Promises:
1. *All agree.* The firings of a schedule depend on nothing but the schedule (and the time zone's rules): every process
   computes the very same floats, and `slot_id` makes the same task id of them, so that a source that knows ids (P6)
   fires each one once, however many processes put it in.
2. *None skipped, none doubled.* `after(time)` is the next firing strictly after `time`, and so the same for all times
   between two firings; `slots(a, b)` and `slots(b, c)` together are `slots(a, c)`.
3. *Refused early.* A bad interval or expression, or an unknown time zone, raises `ValueError` that names it, as the
   schedule is made. Making a `Cron` needs the library cronsim: `pip install "hive-task[cron]"`.

Times are Unix seconds; the years 5 to 9998 are what there is, and before them and after them nothing fires.

**Daylight saving.** A `Cron` goes by the clock on the wall in its time zone. As with Debian's cron, jobs differ:

- If neither the minute nor the hour begins with `*`, the job is for *a time of the day*, and runs once for each such
  time: in spring, when the clock leaps over it, at the first moment after the leap; in autumn, when the clock shows it
  twice, the first time.
- Otherwise (`*/15 * * * *`, `0 * * * *`, `@hourly`) it *follows the clock*: it runs whenever the clock shows a time
  that matches; so twice in the hour that comes twice, and not at all in the hour that does not exist.

In Berlin, the clock leapt from 02:00 to 03:00 on 31 March 2024, and went back from 03:00 to 02:00 on 27 October:

>>> from datetime import datetime
>>> from zoneinfo import ZoneInfo
>>> def firings(expression, *day):
...     berlin = ZoneInfo("Europe/Berlin")
...     midnight, four = datetime(*day, tzinfo=berlin).timestamp(), datetime(*day, 4, tzinfo=berlin).timestamp()
...     times = Cron(expression, timezone="Europe/Berlin").slots(midnight, four)
...     return " ".join(f"{datetime.fromtimestamp(time, berlin):%H:%M%z}" for time in times)
>>> firings("30 2 * * *", 2024, 3, 31), firings("30 2 * * *", 2024, 10, 27)
('03:00+0200', '02:30+0200')
>>> firings("0 * * * *", 2024, 3, 31)
'01:00+0100 03:00+0200 04:00+0200'
>>> firings("0 * * * *", 2024, 10, 27)
'01:00+0200 02:00+0200 02:00+0100 03:00+0100 04:00+0100'

`Every` knows nothing of clocks on walls: an hour is 3600 seconds, and a day is the UTC day.

>>> Every(3600).after(7200.0), Every(3600, start=100).after(0.0)
(10800.0, 100.0)

Cost: under 1 µs for `Every.after`, 10 to 30 µs for `Cron.after`; a millisecond for what comes once in years.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from types import ModuleType
from typing import Final, Literal, get_args
from zoneinfo import ZoneInfo, available_timezones

from hive_task.background.tasks import check_count, check_seconds, moment

#: The moments that can be computed with in every time zone: the years 5 to 9998.
EARLIEST: Final = -62_009_366_400
LATEST: Final = 253_370_764_800

#: The shortest interval of an `Every`: two firings have different milliseconds, and so different ids.
SHORTEST: Final = 0.002

#: How many firings are listed at most, if nothing else is said.
MOST: Final = 1000

#: What to do about firings that were missed while nobody ran: see `missed`.
CatchUp = Literal["last", "all", "none"]

FIELDS: Final = ("second", "minute", "hour", "day-of-month", "month", "day-of-week")

ALIASES: Final = {
    "@YEARLY": "0 0 1 1 *",
    "@ANNUALLY": "0 0 1 1 *",
    "@MONTHLY": "0 0 1 * *",
    "@WEEKLY": "0 0 * * 0",
    "@DAILY": "0 0 * * *",
    "@MIDNIGHT": "0 0 * * *",
    "@HOURLY": "0 * * * *",
}

EPOCH: Final = datetime(1970, 1, 1)
SECOND: Final = timedelta(seconds=1)

#: No time zone has changed its offset and changed it back within less than six days (Boa Vista, October 2000).
STRIDE: Final = 3 * 86400


class Schedule:
    """When something fires. `Every` and `Cron` are the two that there are."""

    __slots__ = ()

    def after(self, time: float) -> float | None:
        """The next firing strictly after that time, in Unix seconds; None if it never fires again."""
        raise NotImplementedError

    def slots(self, since: float, until: float, most: int = MOST) -> list[float]:
        """The firings after `since`, up to and with `until`: the first `most` of them, in order."""
        check_count("most", most)
        found: list[float] = []
        time = self.after(since)
        while time is not None and time <= until and len(found) < most:
            found.append(time)
            time = self.after(time)
        return found


@dataclass(frozen=True, slots=True, init=False)
class Every(Schedule):
    """Fires at `start`, and each `seconds` after it; without `start`, at the multiples of `seconds` since the Unix
    epoch, so that all processes agree. `seconds` may be a `timedelta`, and `start` an aware `datetime`.

    >>> str(Every(timedelta(minutes=5))), Every(timedelta(minutes=5)) == Every(300)
    ('every 300 s', True)
    """

    seconds: float
    start: float | None = None

    def __init__(self, seconds: float | timedelta, *, start: float | datetime | None = None) -> None:
        if isinstance(seconds, timedelta):
            seconds = seconds.total_seconds()
        check_seconds("the interval", seconds)
        if seconds < SHORTEST:
            raise ValueError(f"the interval is at least {SHORTEST} seconds, not {seconds!r}")
        object.__setattr__(self, "seconds", float(seconds))
        if start is not None:
            start = moment(start)
            if not EARLIEST <= start < LATEST:
                raise ValueError(f"start is a time of the years 5 to 9998, not {start!r}")
        object.__setattr__(self, "start", start)

    def after(self, time: float) -> float | None:
        time = max(moment(time), EARLIEST)
        if time >= LATEST:
            return None
        if self.start is not None and time < self.start:
            return self.start
        # Division and multiplication round, each in its own way: what counts is what `_slot` says. The quotient is off
        # by much less than one, so none is skipped if we begin there.
        n = math.floor((time - (self.start or 0.0)) / self.seconds)
        while (slot := self._slot(n)) <= time:
            n += 1
        return slot if slot < LATEST else None

    def _slot(self, n: int) -> float:
        return (self.start or 0.0) + n * self.seconds

    def __str__(self) -> str:
        seconds = int(self.seconds) if self.seconds.is_integer() else self.seconds
        since = "" if self.start is None else f" from {datetime.fromtimestamp(self.start, UTC).isoformat()}"
        return f"every {seconds} s{since}"


@dataclass(frozen=True, slots=True, init=False)
class Cron(Schedule):
    """Fires when the clock in a time zone matches a cron expression. See the module for daylight saving.

    `expression`: minute, hour, day of month, month, day of week; or six fields, seconds first. `*`, lists, ranges,
    steps; `JAN`, `MON` and so on in any case; 0 and 7 are Sunday; `L` and `LW`, the last day and the last weekday of
    the month; `5L` and `5#3`, the last and the third Friday. Or `@hourly`, `@daily` (`@midnight`), `@weekly`,
    `@monthly`, `@yearly` (`@annually`). If both the day of month and the day of week are restricted, a day on which
    one of them matches will do; if one of them begins with `*`, both must match.

    `timezone`: a name of the IANA's, such as `Europe/Berlin`.

    >>> str(Cron("0 9 * * mon-fri", timezone="Europe/Berlin"))
    'cron 0 9 * * MON-FRI (Europe/Berlin)'
    >>> Cron("@daily") == Cron("0 0 * * *")
    True
    >>> Cron("0 25 * * *")
    Traceback (most recent call last):
        ...
    ValueError: bad cron expression '0 25 * * *': there is no hour '25'
    """

    expression: str
    timezone: str = "UTC"
    _zone: tzinfo = field(default=UTC, init=False, repr=False, compare=False)

    def __init__(self, expression: str, *, timezone: str = "UTC") -> None:
        for what, value in (("a cron expression", expression), ("a time zone", timezone)):
            if not isinstance(value, str):
                raise TypeError(f"{what} is a string, not {value!r}")
        object.__setattr__(self, "expression", checked_expression(expression))
        object.__setattr__(self, "_zone", find_zone(timezone))
        object.__setattr__(self, "timezone", timezone)

    def after(self, time: float) -> float | None:
        second = max(math.floor(moment(time)), EARLIEST)  # firings are at whole seconds
        if second >= LATEST:
            return None
        minute, hour = self.expression.split()[-5:-3]
        follows_clock = minute.startswith("*") or hour.startswith("*")
        slot = self._after_by_clock(second) if follows_clock else self._after_by_day(second)
        return None if slot is None or slot >= LATEST else float(slot)

    def _after_by_clock(self, second: int) -> int | None:
        """The first moment at which the clock shows what matches. As long as the offset stays the same, the clock goes
        evenly; so look until the next change of the offset, and then on from there."""
        while True:
            offset = self._offset(second)
            shown = self._next_shown(second + offset)
            if shown is None:
                return None
            slot = shown - offset
            change = self._next_change(second, min(slot, LATEST))
            if change is None:
                return slot
            if self._next_shown(change + self._offset(change) - 1) == change + self._offset(change):
                return change
            second = change

    def _after_by_day(self, second: int) -> int | None:
        """The first moment, later than `second`, at which the clock reaches a time that matches, or leaps over it."""
        shown: int | None = second + self._offset(second)
        while shown is not None and (shown := self._next_shown(shown)) is not None:
            reached = self._reached(shown)
            if reached > second:
                return reached
        return None

    def _reached(self, shown: int) -> int:
        """The first moment at which the clock shows that time; if it leaps over it, the moment after the leap."""
        local = (EPOCH + shown * SECOND).replace(tzinfo=self._zone)
        by_old, by_new = (round(local.replace(fold=fold).timestamp()) for fold in (0, 1))
        # By the offset that holds before a change, and the one after it. A leap lies between the two: it comes before
        # the one, and after the other.
        leap = self._next_change(by_new, by_old)
        return by_old if leap is None else leap

    def _next_shown(self, shown: int) -> int | None:
        """The next time that matches, on a clock that is never changed. Clocks are counted in seconds since 1970."""
        try:
            found = next(cronsim().CronSim(self.expression, EPOCH + shown * SECOND), None)
        except OverflowError:  # it looked beyond the year 9999
            return None
        return None if found is None else (found - EPOCH) // SECOND

    def _offset(self, second: int) -> int:
        offset = datetime.fromtimestamp(second, self._zone).utcoffset()
        return 0 if offset is None else offset // SECOND

    def _next_change(self, since: int, until: int) -> int | None:
        """The first moment after `since`, up to and with `until`, with another offset from UTC than at `since`."""
        if self._zone is UTC:
            return None
        offset = self._offset(since)
        while since < until:
            step = min(since + STRIDE, until)
            if self._offset(step) != offset:
                return self._bisect(since, step, offset)
            since = step
        return None

    def _bisect(self, same: int, other: int, offset: int) -> int:
        while other - same > 1:
            middle = (same + other) // 2
            if self._offset(middle) == offset:
                same = middle
            else:
                other = middle
        return other

    def __str__(self) -> str:
        return f"cron {self.expression} ({self.timezone})"


def cronsim() -> ModuleType:
    try:
        import cronsim
    except ModuleNotFoundError as error:
        if error.name != "cronsim":
            raise
        raise ModuleNotFoundError(
            'cron expressions need the library cronsim: pip install "hive-task[cron]"', name="cronsim"
        ) from None
    return cronsim


def checked_expression(expression: str) -> str:
    """The expression in capitals, with single spaces, and without aliases. `ValueError` says what is wrong with it."""
    fields = expression.upper().split()
    if len(fields) == 1 and fields[0].startswith("@"):
        if fields[0] not in ALIASES:
            known = ", ".join(alias.lower() for alias in ALIASES)
            raise ValueError(f"bad cron expression {expression!r}: of aliases there are {known}")
        fields = ALIASES[fields[0]].split()
    if len(fields) not in (5, 6):
        raise ValueError(
            f"bad cron expression {expression!r}: it has {len(fields)} fields, not five (minute, hour, day of month, "
            "month, day of week), or six, with seconds first"
        )
    library = cronsim()
    checked = " ".join(fields)
    try:
        library.CronSim(checked, EPOCH)
    except (library.CronSimError, ValueError) as error:  # ValueError: a number of thousands of digits
        raise ValueError(f"bad cron expression {expression!r}: {explain(str(error), fields)}") from None
    return checked


def explain(complaint: str, fields: list[str]) -> str:
    """In our words what cronsim complains of, which is `Bad`, and the name of a field."""
    name = complaint.removeprefix("Bad ")
    if name not in FIELDS:
        return complaint
    bad = fields[FIELDS.index(name) - len(FIELDS)]
    return f"there is no {name} {bad!r}"


def find_zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC  # so that it needs no database
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown; a path, or no name at all; a folder of the database
        if not available_timezones():
            raise ValueError(
                f"unknown time zone {name!r}: this system has no time zone database. Install one: pip install tzdata"
            ) from None
        raise ValueError(f"unknown time zone {name!r}: it should be the IANA's name, like 'Europe/Berlin'") from None


def schedule(
    every: float | timedelta | Every | None = None, cron: str | Cron | None = None, timezone: str | None = None
) -> Every | Cron | None:
    """The schedule that a decorator's arguments ask for; None if they ask for none.

    >>> schedule(cron="@daily", timezone="Europe/Berlin")
    Cron(expression='0 0 * * *', timezone='Europe/Berlin')
    >>> schedule(every=60, timezone="Europe/Berlin")
    Traceback (most recent call last):
        ...
    TypeError: timezone= says where the clock of cron= is; without cron= it means nothing
    """
    if every is not None and cron is not None:
        raise TypeError("a task is run every= so many seconds, or by cron=, not both; register it under two names")
    if timezone is not None and cron is None:
        raise TypeError("timezone= says where the clock of cron= is; without cron= it means nothing")
    if every is not None:
        return every if isinstance(every, Every) else Every(every)
    if isinstance(cron, Cron):
        if timezone is not None and timezone != cron.timezone:
            raise TypeError(f"timezone= is {timezone!r}, but the Cron has one already: {cron.timezone!r}")
        return cron
    if cron is None:
        return None
    return Cron(cron, timezone="UTC" if timezone is None else timezone)


def slot_id(name: str, time: float) -> str:
    """The id of the task that is the firing of that name at that time: the same wherever it is computed.

    >>> slot_id("report", 1711846800.0)
    'periodic:report:1711846800000'
    """
    return f"periodic:{name}:{round(moment(time) * 1000)}"


def missed(
    schedule: Schedule, last: float | None, now: float, most: int = MOST, *, catch_up: CatchUp = "last"
) -> list[float]:
    """Which firings after `last`, up to and with `now`, are to be made up for, in order. Go on with `after(now)` then.

    `last`: the last firing that was taken care of; None if there never was one: then nothing was missed.
    `catch_up`: "last", only the latest one; "all", the latest `most` of them; "none".
    If the computer's clock was set back, `now` is before `last`, and nothing was missed.

    >>> [missed(Every(60), 0.0, 200.0, catch_up=policy) for policy in get_args(CatchUp)]
    [[180.0], [60.0, 120.0, 180.0], []]
    """
    if catch_up not in get_args(CatchUp):
        raise ValueError(f"catch_up is one of {', '.join(map(repr, get_args(CatchUp)))}, not {catch_up!r}")
    check_count("most", most)
    if last is None or catch_up == "none":
        return []
    return latest(schedule, moment(last), moment(now), 1 if catch_up == "last" else most)


def latest(schedule: Schedule, since: float, until: float, most: int) -> list[float]:
    """The firings after `since`, up to and with `until`: the last `most` of them, in order.

    A schedule that fires each second was missed thirty million times in a year, so they are not counted up: the time
    is halved until there is one firing in it or none, and the later half is looked at first.
    """
    first = schedule.after(since)
    if most == 0 or first is None or first > until:
        return []
    second = schedule.after(first)
    if second is None or second > until:
        return [first]
    middle = first + (until - first) / 2
    found = latest(schedule, middle, until, most)
    if len(found) < most:
        found = [*latest(schedule, first, middle, most - len(found)), *found]
    return [first, *found] if len(found) < most else found
