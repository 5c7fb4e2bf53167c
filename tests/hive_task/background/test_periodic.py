"""When periodic tasks fire. The oracle looks at the clock on the wall each minute; it knows nothing of transitions."""

import copy
import doctest
import importlib.util
import math
import pickle
import subprocess
import sys
import zoneinfo
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hive_task.background import periodic
from hive_task.background.periodic import (
    EARLIEST,
    LATEST,
    SHORTEST,
    Cron,
    Every,
    Schedule,
    missed,
    schedule,
    slot_id,
)

if importlib.util.find_spec("cronsim") is None:
    pytest.skip("cronsim is not installed", allow_module_level=True)

HOUR, DAY = 3600, 86400

#: Zones, and days around which something happens to their clocks.
TRANSITIONS = [
    ("Europe/Berlin", "2024-03-31"),
    ("Europe/Berlin", "2024-10-27"),
    ("Europe/Dublin", "2024-10-27"),  # by its laws, winter is when the time is another one
    ("America/New_York", "2024-03-10"),
    ("America/New_York", "2024-11-03"),
    ("Australia/Lord_Howe", "2024-10-06"),  # half an hour
    ("Australia/Lord_Howe", "2024-04-07"),
    ("America/Havana", "2024-03-10"),  # at midnight
    ("America/Havana", "2024-11-03"),
    ("Antarctica/Troll", "2024-03-31"),  # two hours
    ("Antarctica/Troll", "2024-10-27"),
    ("Africa/Casablanca", "2024-03-10"),
    ("America/Boa_Vista", "2000-10-08"),
    ("Pacific/Apia", "2011-12-30"),  # this day was left out
    ("Pacific/Kwajalein", "1969-10-01"),  # this one came twice
    ("Asia/Kolkata", "2024-03-31"),
    ("Asia/Kathmandu", "1986-01-01"),
    ("UTC", "2024-02-29"),
]

MINUTES = ["*", "*/15", "*/7", "0", "30", "0,30", "10-50/20", "59", "*,5"]
HOURS = ["*", "*/2", "0", "1", "2", "3", "1-3", "2,23", "0-23"]
DAYS = ["*", "*", "*", "1", "31", "29-31", "*/2", "7,27"]
MONTHS = ["*", "*", "3,10", "2-12/2"]
WEEKDAYS = ["*", "*", "*", "0", "7", "1-5", "5"]

expressions = st.tuples(*map(st.sampled_from, (MINUTES, HOURS, DAYS, MONTHS, WEEKDAYS))).map(" ".join)


def unix(text: str, zone: str = "UTC", fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


def shown(times: list[float], zone: str = "UTC", form: str = "%a %d %H:%M%z") -> list[str]:
    return [datetime.fromtimestamp(time, ZoneInfo(zone)).strftime(form) for time in times]


def firings(expression: str, zone: str, since: str, until: str, form: str = "%H:%M%z") -> str:
    times = Cron(expression, timezone=zone).slots(unix(since, zone) - 1, unix(until, zone))
    return " ".join(shown(times, zone, form))


# The oracle.


def numbers(text: str, least: int, greatest: int) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        bounds, _, step = part.partition("/")
        low, _, high = (f"{least}-{greatest}" if bounds == "*" else bounds).partition("-")
        found.update(range(int(low), int(high or low) + 1, int(step or 1)))
    return found


class Oracle:
    def __init__(self, expression: str, zone: str) -> None:
        minute, hour, day, month, weekday = expression.split()
        self.zone = ZoneInfo(zone)
        self.follows_clock = minute[0] == "*" or hour[0] == "*"
        self.both = day[0] == "*" or weekday[0] == "*"
        self.minutes, self.hours = numbers(minute, 0, 59), numbers(hour, 0, 23)
        self.days, self.months = numbers(day, 1, 31), numbers(month, 1, 12)
        self.weekdays = {number % 7 for number in numbers(weekday, 0, 7)}

    def matches(self, wall: datetime) -> bool:
        if not (wall.minute in self.minutes and wall.hour in self.hours and wall.month in self.months):
            return False
        days = wall.day in self.days, wall.isoweekday() % 7 in self.weekdays
        return all(days) if self.both else any(days)

    def wall(self, time: int) -> datetime:
        return datetime.fromtimestamp(time, self.zone).replace(tzinfo=None, fold=0)

    def slots(self, since: int, until: int) -> Iterator[float]:
        """`since` is a whole minute, and not one of those that come twice."""
        farthest = self.wall(since)
        for time in range(since + 60, until + 1, 60):
            wall = self.wall(time)
            if self.follows_clock:
                fires = self.matches(wall)
            else:
                fires = False
                while farthest < wall:
                    farthest += timedelta(minutes=1)
                    fires = self.matches(farthest) or fires
            if fires:
                yield float(time)


def test_the_days_above_are_such_days() -> None:
    for zone, day in TRANSITIONS:
        oracle, middle = Oracle("* * * * *", zone), int(unix(day))
        steps = {oracle.wall(time + HOUR) - oracle.wall(time) for time in range(middle - DAY, middle + DAY, HOUR)}
        assert len(steps) == (1 if zone in ("Asia/Kolkata", "UTC") else 2), zone


@settings(max_examples=250, deadline=None)
@given(st.sampled_from(TRANSITIONS), expressions, st.lists(st.floats(-36 * HOUR, 36 * HOUR), max_size=20))
@example(("Australia/Lord_Howe", "2024-10-06"), "*/15 3 * * *", [])
@example(("Australia/Lord_Howe", "2024-04-07"), "*/15 2 * * *", [])
@example(("America/Havana", "2024-03-10"), "*/15 0 * * *", [])
@example(("Pacific/Apia", "2011-12-30"), "30 1-3 30 * *", [])
@example(("Europe/Berlin", "2024-10-27"), "0,30 2 * * *", [HOUR / 2, HOUR, 1.25 * HOUR])
def test_no_firing_is_skipped_or_doubled_over_a_transition(
    where: tuple[str, str], expression: str, offsets: list[float]
) -> None:
    zone, day = where
    cron = Cron(expression, timezone=zone)
    middle = int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp())
    since, until = middle - 40 * HOUR, middle + 40 * HOUR
    expected = list(Oracle(expression, zone).slots(since, until))
    assert cron.slots(since, until, most=10_000) == expected
    for offset in offsets:
        time = middle + offset
        following = next((slot for slot in expected if slot > time), None)
        found = cron.after(time)
        assert found == following or (following is None and (found is None or found > until))


def test_two_changes_within_a_week_are_both_seen() -> None:
    """The offset is the same before and after: who compares only these sees neither."""
    zone = "America/Boa_Vista"
    times = Cron("*/30 23 14 10 *", timezone=zone).slots(unix("2000-10-07", zone), unix("2000-10-16", zone))
    assert shown(times, zone) == ["Sat 14 23:00-0300", "Sat 14 23:30-0300", "Sat 14 23:00-0400", "Sat 14 23:30-0400"]
    before, after = unix("2000-10-07", zone), unix("2000-10-15", zone)
    assert Cron("0 * 15 10 *", timezone=zone).after(before) == after


def times(least: float = -2e9, greatest: float = 5e9) -> st.SearchStrategy[float]:
    return st.floats(least, greatest)


intervals = st.floats(SHORTEST, 1e7) | st.integers(1, 10**6) | st.sampled_from([0.1, 1 / 3, 0.7, SHORTEST])
schedules = st.builds(Cron, expressions, timezone=st.sampled_from([zone for zone, _ in TRANSITIONS])) | st.builds(
    Every, intervals, start=st.none() | times()
)


@settings(deadline=None)
@given(schedules, times(0, 4e9), st.data())
def test_after_goes_up_and_is_the_same_between_two_firings(one: Schedule, time: float, data: st.DataObject) -> None:
    before = one.after(time)
    assert before is not None
    assert before > time
    following = one.after(before)
    assert following is not None
    assert following > before
    assert one.after(math.nextafter(before, -math.inf)) == before
    between = data.draw(st.floats(before, following, exclude_max=True))
    assert one.after(between) == following
    assert slot_id("x", before) != slot_id("x", following)


@settings(deadline=None)
@given(schedules, times(0, 4e9), st.floats(0, 40 * DAY), st.floats(0, 1))
def test_slots_of_adjoining_times_adjoin(one: Schedule, since: float, length: float, share: float) -> None:
    until, middle = since + length, since + length * share
    whole = one.slots(since, until, most=30)
    parts = one.slots(since, middle, most=30)
    assert (parts + one.slots(middle, until, most=30))[: len(whole)] == whole
    assert len(set(whole)) == len(whole)
    assert one.slots(since, until, most=3) == whole[:3]


# Daylight saving, by hand.


@pytest.mark.parametrize(
    ("zone", "spring", "autumn", "in_spring", "in_autumn"),
    [
        ("Europe/Berlin", "2024-03-31", "2024-10-27", "03:00+0200", "02:30+0200"),
        ("America/New_York", "2024-03-10", "2024-11-03", "03:00-0400", "02:30-0500"),
        ("Asia/Kolkata", "2024-03-31", "2024-10-27", "02:30+0530", "02:30+0530"),
    ],
)
@pytest.mark.parametrize("expression", ["30 2 * * *", "0 30 2 * * *"])
def test_a_daily_job_runs_once_a_day(
    expression: str, zone: str, spring: str, autumn: str, in_spring: str, in_autumn: str
) -> None:
    assert firings(expression, zone, spring, f"{spring}T23:00") == in_spring
    assert firings(expression, zone, autumn, f"{autumn}T23:00") == in_autumn


def test_a_daily_job_in_the_hour_that_comes_twice() -> None:
    assert firings("30 1 * * *", "America/New_York", "2024-11-03", "2024-11-03T23:00") == "01:30-0400"
    again = Cron("30 1 * * *", timezone="America/New_York").after(unix("2024-11-03T01:10", "America/New_York", fold=1))
    assert again == unix("2024-11-04T01:30", "America/New_York")


def test_a_daily_job_where_the_shift_is_half_an_hour() -> None:
    zone = "Australia/Lord_Howe"
    assert firings("15 2 * * *", zone, "2024-10-06", "2024-10-06T23:00") == "02:30+1100"
    assert firings("45 1 * * *", zone, "2024-04-07", "2024-04-07T23:00") == "01:45+1100"


def test_several_times_that_the_clock_leaps_over_are_one_firing() -> None:
    assert firings("0,20,40 2,3 * * *", "Europe/Berlin", "2024-03-31", "2024-03-31T04:00") == (
        "03:00+0200 03:20+0200 03:40+0200"
    )


@pytest.mark.parametrize("expression", ["0 * * * *", "@hourly", "0 0 * * * *"])
def test_an_hourly_job_runs_each_hour_that_there_is(expression: str) -> None:
    assert firings(expression, "Europe/Berlin", "2024-03-31T01:00", "2024-03-31T04:00") == (
        "01:00+0100 03:00+0200 04:00+0200"
    )
    assert firings(expression, "Europe/Berlin", "2024-10-27T01:00", "2024-10-27T04:00") == (
        "01:00+0200 02:00+0200 02:00+0100 03:00+0100 04:00+0100"
    )
    slots = Cron(expression, timezone="America/New_York").slots(unix("2024-01-01") - 1, unix("2024-12-31"), 10_000)
    assert {late - early for early, late in pairwise(slots)} == {HOUR}


def test_each_quarter_of_an_hour_in_both_hours() -> None:
    assert firings("*/15 * * * *", "Europe/Berlin", "2024-10-27T02:00", "2024-10-27T03:00", "%H:%M") == (
        "02:00 02:15 02:30 02:45 02:00 02:15 02:30 02:45 03:00"
    )
    assert firings("*/15 * * * *", "Australia/Lord_Howe", "2024-04-07T01:30", "2024-04-07T02:00", "%H:%M") == (
        "01:30 01:45 01:30 01:45 02:00"
    )
    assert firings("*/15 * * * *", "Australia/Lord_Howe", "2024-10-06T01:30", "2024-10-06T03:00", "%H:%M") == (
        "01:30 01:45 02:30 02:45 03:00"
    )


def test_a_day_that_was_left_out() -> None:
    assert firings("0 12 * * *", "Pacific/Apia", "2011-12-29", "2012-01-01", "%d %H:%M") == "29 12:00 31 00:00 31 12:00"


# Calendars.


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0 0 29 2 *", ["2024-02-29", "2028-02-29", "2032-02-29"]),
        ("0 0 31 * *", ["2023-03-31", "2023-05-31", "2023-07-31"]),
        ("0 0 L 2 *", ["2023-02-28", "2024-02-29", "2025-02-28"]),
        ("0 0 LW 9 *", ["2023-09-29", "2024-09-30", "2025-09-30"]),
        ("0 0 13 * FRI", ["2023-02-03", "2023-02-10", "2023-02-13"]),  # either: neither is a star
        ("0 0 */2 * FRI", ["2023-02-03", "2023-02-17", "2023-03-03"]),  # both: one begins with a star
        ("0 0 * * 5L", ["2023-02-24", "2023-03-31", "2023-04-28"]),
        ("0 0 * * fri#3", ["2023-02-17", "2023-03-17", "2023-04-21"]),
        ("0 0 1 jan,JUL *", ["2023-07-01", "2024-01-01", "2024-07-01"]),
        ("0 0 * * 7", ["2023-02-05", "2023-02-12", "2023-02-19"]),
        ("@weekly", ["2023-02-05", "2023-02-12", "2023-02-19"]),
        ("@Monthly", ["2023-03-01", "2023-04-01", "2023-05-01"]),
        ("@yearly", ["2024-01-01", "2025-01-01", "2026-01-01"]),
        (" @midnight ", ["2023-02-02", "2023-02-03", "2023-02-04"]),
    ],
)
def test_days(expression: str, expected: list[str]) -> None:
    slots = Cron(expression).slots(unix("2023-02-01"), math.inf, most=3)
    assert shown(slots, form="%Y-%m-%d") == expected
    assert shown(slots, form="%H:%M:%S") == ["00:00:00"] * 3


def test_the_century_that_is_no_leap_year() -> None:
    assert Cron("0 0 29 2 *").after(unix("2096-02-29")) == unix("2104-02-29")


def test_six_fields_have_seconds() -> None:
    assert shown(Cron("*/20 59 23 * * *").slots(unix("2024-01-01"), math.inf, 4), form="%d %H:%M:%S") == [
        "01 23:59:00",
        "01 23:59:20",
        "01 23:59:40",
        "02 23:59:00",
    ]


def test_never_again_is_none() -> None:
    never = Cron("0 0 LW * */7")  # the last weekday of a month, on a Sunday
    assert never.after(0.0) is None
    assert never.slots(0.0, math.inf) == []
    assert missed(never, 0.0, 1e9) == []


@pytest.mark.parametrize("one", [Every(7), Every(7, start=3), Cron("* * * * *", timezone="Asia/Tokyo"), Cron("@daily")])
def test_there_is_an_end_and_a_beginning_of_times(one: Schedule) -> None:
    assert one.after(LATEST) is None
    assert one.after(1e300) is None
    last = one.after(LATEST - 2 * DAY)
    assert last is not None
    assert LATEST - 2 * DAY < last < LATEST
    assert one.after(LATEST - 1) is None
    first = one.after(-1e300)
    assert first is not None
    assert first > EARLIEST
    assert Cron("0 0 29 2 *").after(LATEST - DAY) is None
    for wrong in (math.inf, -math.inf, math.nan):
        with pytest.raises(ValueError, match="is no time"):
            one.after(wrong)
    with pytest.raises(TypeError, match="a time is"):
        one.after("now")  # type: ignore[arg-type]


def test_clocks_of_old_that_were_no_whole_minutes_off() -> None:
    """Berlin's clocks leapt from 00:00:00 to 00:06:32 on 1 April 1893."""
    zone = "Europe/Berlin"
    form = "%H:%M:%S"
    assert firings("3 0 * * *", zone, "1893-04-01T00:06:32", "1893-04-01T12:00", form) == "00:06:32"
    assert firings("*/5 * * * *", zone, "1893-03-31T23:55", "1893-04-01T00:15", form) == "23:55:00 00:10:00 00:15:00"


# `Every`.


@given(intervals, st.none() | times(), times())
@example(0.1, None, 1711846800.0)
@example(1 / 3, None, 1e9)
def test_every_fires_at_multiples(seconds: float, start: float | None, time: float) -> None:
    found = Every(seconds, start=start).after(time)
    assert found is not None
    base = start or 0.0
    n = round((found - base) / seconds)
    assert found == base + n * seconds
    if start is not None and time < start:
        assert found == start
    else:
        assert base + (n - 1) * seconds <= time < found


def test_every_without_start_is_aligned_to_the_epoch() -> None:
    assert Every(300).slots(1000.0, 2000.0) == [1200.0, 1500.0, 1800.0]
    assert Every(300).slots(-700.0, 0.0) == [-600.0, -300.0, 0.0]


def test_every_with_start_fires_at_it_first() -> None:
    one = Every(timedelta(minutes=1), start=datetime(2024, 1, 1, 1, 0, 30, tzinfo=timezone(timedelta(hours=1))))
    assert one.start == unix("2024-01-01T00:00:30")
    assert shown(one.slots(0.0, math.inf, 2), form="%H:%M:%S") == ["00:00:30", "00:01:30"]
    assert Every(60, start=0).after(-5.0) == 0.0


def test_every_longer_than_there_is_time() -> None:
    assert Every(1e300).after(0.0) is None
    assert Every(1e300, start=50).slots(0.0, math.inf) == [50.0]


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"seconds": 0}, ValueError, "more than nothing"),
        ({"seconds": -1}, ValueError, "more than nothing"),
        ({"seconds": math.nan}, ValueError, "finite"),
        ({"seconds": timedelta(0)}, ValueError, "more than nothing"),
        ({"seconds": 0.001}, ValueError, r"at least 0.002 seconds, not 0.001"),
        ({"seconds": "60"}, TypeError, "the interval is a number of seconds, not '60'"),
        ({"seconds": True}, TypeError, "number of seconds"),
        ({"seconds": 60, "start": datetime(2024, 1, 1)}, ValueError, "no time zone"),
        ({"seconds": 60, "start": 1e300}, ValueError, "start is a time of the years 5 to 9998"),
        ({"seconds": 60, "start": math.inf}, ValueError, "is no time"),
    ],
)
def test_bad_intervals_are_refused(arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        Every(**arguments)


# What is refused, and said.


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("61 0 * * *", r"bad cron expression '61 0 \* \* \*': there is no minute '61'"),
        ("61 * * * * *", "there is no second '61'"),
        ("0 24 * * *", "there is no hour '24'"),
        ("0 5-3 * * *", "there is no hour '5-3'"),
        ("*/0 * * * *", r"there is no minute '\*/0'"),
        ("0 0 0 * *", "there is no day-of-month '0'"),
        ("0 0 31 2 *", "there is no day-of-month '31'"),
        ("0 0 1 13 *", "there is no month '13'"),
        ("0 0 1 fbe *", "there is no month 'FBE'"),
        ("0 0 * * 8", "there is no day-of-week '8'"),
        ("0 0 * * mon#6", "there is no day-of-week 'MON#6'"),
        (f"{'9' * 5000} * * * *", "bad cron expression"),
        ("1,,2 * * * *", "there is no minute '1,,2'"),
        ("* * *", "it has 3 fields, not five"),
        ("* * * * * * *", "it has 7 fields, not five"),
        ("", "it has 0 fields"),
        ("@reboot", "of aliases there are @yearly, .* @hourly"),
        ("hourly", "it has 1 fields"),
    ],
)
def test_bad_expressions_are_refused(expression: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Cron(expression)


@pytest.mark.parametrize("zone", ["Europe/Atlantis", "", "/etc/passwd", "../etc", "Europe", "\0", "Ü"])
def test_unknown_zones_are_refused(zone: str) -> None:
    with pytest.raises(ValueError, match="unknown time zone .* IANA's name"):
        Cron("@daily", timezone=zone)


def test_only_text_is_an_expression_or_a_zone() -> None:
    with pytest.raises(TypeError, match="a cron expression is a string, not 5"):
        Cron(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a time zone is a string"):
        Cron("@daily", timezone=None)  # type: ignore[arg-type]


def test_without_cronsim_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cronsim", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "hive-task\[cron\]"') as caught:
        Cron("@daily")
    assert caught.value.name == "cronsim"
    assert Every(60).after(0.0) == 60.0


def test_cronsim_is_imported_when_it_is_needed() -> None:
    program = "import sys, hive_task.background.periodic as p; p.Every(1); assert 'cronsim' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_without_a_database_of_zones_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "tzdata"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tzdata", None)
    paths = zoneinfo.TZPATH
    zoneinfo.reset_tzpath(to=[])
    ZoneInfo.clear_cache()
    try:
        with pytest.raises(ValueError, match="'Europe/Berlin': .* pip install tzdata"):
            Cron("@daily", timezone="Europe/Berlin")
        assert Cron("@daily").after(0.0) == DAY  # UTC needs none
    finally:
        zoneinfo.reset_tzpath(to=paths)


# Values.


def test_schedules_are_values() -> None:
    assert Every(60) == Every(60.0) == Every(timedelta(minutes=1)) != Every(60, start=0)
    assert Cron("0  9 * * mon") == Cron("0 9 * * MON", timezone="UTC") != Cron("0 9 * * MON", timezone="Asia/Tokyo")
    assert Cron("@hourly") == Cron("0 * * * *")
    assert len({Every(60), Every(60.0), Cron("@daily"), Cron("0 0 * * *")}) == 2
    assert replace(Every(60), start=5) == Every(60, start=5)
    assert replace(Cron("@daily"), timezone="Asia/Tokyo") == Cron("@daily", timezone="Asia/Tokyo")
    with pytest.raises(FrozenInstanceError):
        Every(60).seconds = 5  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        Cron("@daily").timezone = "Asia/Tokyo"  # type: ignore[misc]


@pytest.mark.parametrize("one", [Every(0.5, start=3), Cron("@daily", timezone="Asia/Tokyo"), Cron("@daily")])
def test_copies_are_equal_and_fire_alike(one: Every | Cron) -> None:
    for other in (pickle.loads(pickle.dumps(one)), copy.deepcopy(one), eval(shape(repr(one)))):
        assert other == one
        assert hash(other) == hash(one)
        assert other.after(1e9) == one.after(1e9)


def shape(text: str) -> str:
    """The texts of dataclasses name all arguments, so they can be called as they stand."""
    assert text.startswith(("Every(seconds=", "Cron(expression="))
    return text


def test_texts() -> None:
    assert str(Every(300)) == "every 300 s"
    assert str(Every(0.25, start=0)) == "every 0.25 s from 1970-01-01T00:00:00+00:00"
    assert str(Cron("@hourly", timezone="Asia/Tokyo")) == "cron 0 * * * * (Asia/Tokyo)"


# The decorator's arguments, and ids.


def test_schedule() -> None:
    assert schedule() is None
    assert schedule(every=60) == schedule(timedelta(minutes=1)) == schedule(Every(60)) == Every(60)
    assert schedule(cron="@daily") == schedule(cron=Cron("@daily")) == Cron("@daily")
    tokyo = Cron("@daily", timezone="Asia/Tokyo")
    assert schedule(cron="@daily", timezone="Asia/Tokyo") == schedule(cron=tokyo, timezone="Asia/Tokyo") == tokyo


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"every": 60, "cron": "@daily"}, TypeError, "not both"),
        ({"timezone": "Asia/Tokyo"}, TypeError, "without cron="),
        ({"every": 60, "timezone": "Asia/Tokyo"}, TypeError, "without cron="),
        ({"cron": Cron("@daily"), "timezone": "Asia/Tokyo"}, TypeError, "has one already: 'UTC'"),
        ({"every": 0}, ValueError, "more than nothing"),
        ({"cron": ""}, ValueError, "0 fields"),
        ({"cron": "@daily", "timezone": ""}, ValueError, "unknown time zone ''"),
    ],
)
def test_what_a_decorator_can_not_ask_for(arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        schedule(**arguments)


def test_slot_ids() -> None:
    assert slot_id("a:b", 1.0) == "periodic:a:b:1000"
    assert slot_id("a", 1711846800.1000001) == "periodic:a:1711846800100"


# What was missed.


class Counting(Schedule):
    """Counts how often it is asked."""

    def __init__(self, one: Schedule) -> None:
        self.one = one
        self.asked = 0

    def after(self, time: float) -> float | None:
        self.asked += 1
        return self.one.after(time)


@settings(deadline=None)
@given(schedules, times(0, 4e9), st.floats(0, 10 * DAY), st.integers(0, 20))
def test_missed_are_the_latest(one: Schedule, last: float, length: float, most: int) -> None:
    whole = one.slots(last, last + length, most=2000)
    now = whole[-1] if len(whole) == 2000 else last + length
    assert missed(one, last, now) == whole[-1:]
    assert missed(one, last, now, most, catch_up="all") == whole[len(whole) - min(most, len(whole)) :]
    assert missed(one, last, now, most, catch_up="none") == []


def test_nothing_is_missed_before_the_first_firing_and_after_the_clock_was_set_back() -> None:
    for policy in periodic.get_args(periodic.CatchUp):
        assert missed(Every(60), None, 1000.0, catch_up=policy) == []
        assert missed(Every(60), 600.0, 599.0, catch_up=policy) == []
        assert missed(Every(60), 600.0, 600.0, catch_up=policy) == []
        assert missed(Every(60), 600.0, 659.9, catch_up=policy) == []
    assert missed(Every(60), 600.0, 660.0) == [660.0]


@pytest.mark.parametrize("one", [Every(SHORTEST), Cron("* * * * * *", timezone="Europe/Berlin"), Cron("* * * 1 *")])
def test_a_long_absence_costs_little(one: Schedule) -> None:
    since, until = unix("2024-01-01"), unix("2024-12-31")
    counting = Counting(one)
    (found,) = missed(counting, since, until)
    assert counting.asked < 200
    assert found <= until
    assert one.after(found) > until  # type: ignore[operator]
    counting.asked = 0
    assert len(missed(counting, since, until, 1000, catch_up="all")) == 1000
    assert counting.asked < 5000


def test_other_policies_are_refused() -> None:
    with pytest.raises(ValueError, match="catch_up is one of 'last', 'all', 'none', not 'first'"):
        missed(Every(60), None, 0.0, catch_up="first")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="most can't be negative"):
        missed(Every(60), 0.0, 100.0, -1)


def test_the_examples() -> None:
    assert doctest.testmod(periodic).failed == 0
