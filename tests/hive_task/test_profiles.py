"""Profiles: nothing is lost in folding, percentiles are as right as they say, and memory is bounded."""

import math
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hive_task.dispatch
from hive_task import profiles
from hive_task.picture import FunctionProfile, Percentiles
from hive_task.profiles import CLASSES, FUNCTIONS, NOTHING, OTHERS, Histogram
from tests.hive_task.by_hand import Company

spans = st.floats(1e-9, 1e6)
notes = st.tuples(st.sampled_from(["a", "b", "c"]), spans, spans, st.booleans())


def noted(entries):
    chain = None
    for entry in entries:
        chain = (*entry, chain)
    return chain


def exact(entries):
    """What a profile of these must say of the functions."""
    functions = {}
    for name in {entry[0] for entry in entries}:
        mine = [entry for entry in entries if entry[0] == name]
        seconds = [entry[2] for entry in mine]
        failed = sum(entry[3] for entry in mine)
        functions[name] = (len(mine), failed, pytest.approx(sum(seconds)), min(seconds), max(seconds))
    return functions


def told(profile):
    return {
        name: (one.count, one.failed, one.seconds, one.shortest, one.longest) for name, one in profile.functions.items()
    }


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.lists(notes, max_size=12)), max_size=8))
def test_nothing_is_lost_however_notes_are_gathered_and_profiles_joined(portions):
    parts = [NOTHING, NOTHING, NOTHING]
    entries = []
    for part, portion in portions:
        parts[part] = parts[part].noting(noted(portion))
        entries += portion
    profile = parts[0].joined(parts[1]).joined(parts[2])
    assert told(profile) == exact(entries)
    assert profile.seconds == pytest.approx(sum(entry[2] for entry in entries))
    assert sum(profile.waits.counts) == sum(profile.durations.counts) == len(entries)
    at_once = NOTHING.noting(noted(entries))
    assert (profile.waits, profile.durations) == (at_once.waits, at_once.durations)


def test_what_is_made_of_notes_is_new_and_the_old_is_as_it_was():
    before = NOTHING.noting(("f", 1.0, 2.0, False, None))
    after = before.noting(("f", 1.0, 4.0, True, None))
    assert told(before) == {"f": (1, 0, 2.0, 2.0, 2.0)}
    assert told(after) == {"f": (2, 1, 6.0, 2.0, 4.0)}
    assert told(NOTHING) == {}
    assert before.noting(None) is before
    assert after.functions["f"].mean == 3.0
    assert FunctionProfile("none").mean == 0.0


@settings(max_examples=100, deadline=None)
@given(st.lists(spans, min_size=1, max_size=200))
def test_percentiles_are_right_within_their_classes(values):
    found = Histogram().adding(values).percentiles()
    values.sort()
    assert found.count == len(values)
    factor = 2 ** (1 / CLASSES)
    for part, at in ((0.5, found.p50), (0.9, found.p90), (0.99, found.p99)):
        really = values[math.ceil(len(values) * part) - 1]
        assert really / factor <= at <= really * factor


@pytest.mark.parametrize("span", [0.0, -1.0, 1e-300, 1e300, math.inf])
def test_spans_beyond_all_classes_are_counted_all_the_same(span):
    found = Histogram().adding([span]).percentiles()
    assert found.count == 1
    assert 0 < found.p50 < 2e6


def test_percentiles_of_nothing_are_nothing():
    assert Histogram().percentiles() == Percentiles(0, 0.0, 0.0, 0.0)


def test_joined_histograms_count_both():
    both = Histogram().adding([1.0, 2.0]).joined(Histogram().adding([4.0]))
    assert both == Histogram().adding([4.0, 2.0, 1.0])


def test_functions_beyond_a_number_are_counted_together(monkeypatch):
    monkeypatch.setattr(profiles, "FUNCTIONS", 5)
    names = [f"f{number}" for number in range(12)]
    first = NOTHING.noting(noted([(name, 0.0, 1.0, True) for name in names]))
    assert set(first.functions) <= {*names, OTHERS}
    assert len(first.functions) == 6
    assert first.functions[OTHERS] == FunctionProfile(OTHERS, 7, 7, 7.0, 1.0, 1.0)
    second = first.noting(noted([(name, 0.0, 3.0, False) for name in ("other", *first.functions) if name != OTHERS]))
    assert len(second.functions) == 6
    assert second.functions[OTHERS] == FunctionProfile(OTHERS, 8, 7, 10.0, 1.0, 3.0)
    third = second.joined(NOTHING.noting(noted([(f"g{number}", 0.0, 2.0, False) for number in range(20)])))
    assert len(third.functions) <= 6
    assert sum(one.count for one in third.functions.values()) == 12 + 6 + 20
    assert FUNCTIONS == 1000


def test_a_worker_folds_his_notes_now_and_then_and_pictures_show_the_same_before_and_after(monkeypatch):
    monkeypatch.setattr(hive_task.dispatch, "NOTES", 4)
    company = Company(1)
    (worker,) = company.crew
    company.put_many(11)
    company.begin(worker)
    for done in range(1, 11):
        company.end(worker, span=0.5, error=OSError() if done % 3 == 0 else None)
        assert sum(worker.profile.get().durations.counts) == done - done % 4
        gathered, chain = 0, worker.desk.get()[6]
        while chain is not None:
            gathered, chain = gathered + 1, chain[4]
        assert gathered == done % 4
        picture = company.picture()
        profile = picture.functions["work"]
        assert (profile.count, profile.failed) == (done, done // 3)
        assert profile.seconds == pytest.approx(done / 2)
        assert picture.durations.count == picture.waits.count == done


def test_what_those_who_left_had_done_still_counts():
    company = Company(2)
    a, b = company.crew
    company.put_many(5)
    company.begin(a)
    company.begin(b)
    company.end(a, span=0.25)
    before = company.picture()
    company.bury(a)
    after = company.picture()
    assert after.functions == before.functions
    assert after.durations == before.durations
    assert (after.totals.finished, after.totals.failed) == (1, 1)
    company.staff.close()
    company.drain()
    assert company.picture().functions["work"].count == 4


def test_a_profile_takes_little_memory_however_many_works_there_were():
    profile = NOTHING
    for _ in range(20):
        profile = profile.noting(noted([("f", 1e-3, 1e-3, False)] * 100))
    assert len(profile.functions) == 1
    assert sys.getsizeof(profile.durations.counts) < 2000
