"""Compiled transactions in a history: what rows read and wrote, told by values that are written once."""

import time

import numpy as np
import pytest

from stm import compiled
from stm.testing.history import History, NotOpaque


@compiled.transaction
def mix(array, a, b, tag, broken):
    """Elements 0 and 1, 2 and 3, ... are pairs: the second is minus the first. Reads one pair and half of another."""
    x, y, z = array[2 * a], array[2 * a + 1], array[2 * b]
    # What one attempt sees must be of one moment, also if it is thrown away, and its exceptions with it.
    if x != -y:
        broken[0] += 1
    array[2 * a] = tag
    array[2 * a + 1] = -tag
    return x, y, z


def mixed(pairs, rows, calls=1, threads=2):
    """A history of calls of `mix`, and how many attempts saw two moments."""
    chance = np.random.default_rng(1)
    array = compiled.TArray(np.zeros(2 * pairs, np.int64))
    broken = np.zeros(1, np.int64)
    history = History()
    for call in range(calls):
        a = chance.integers(0, pairs, rows)
        b = (a + chance.integers(1, pairs, rows)) % pairs
        tags = np.arange(rows) + 1 + call * rows
        began = time.perf_counter_ns()
        seen = mix.map(array, a, b, tags, compiled.Constant(broken), threads=threads)
        history.record_rows(
            reads=(np.stack((2 * a, 2 * a + 1, 2 * b), axis=1), seen),
            writes=(np.stack((2 * a, 2 * a + 1), axis=1), np.stack((tags, -tags), axis=1)),
            name="mix",
            began=began,
            ended=time.perf_counter_ns(),
        )
    return history, int(broken[0])


@pytest.mark.parametrize(("pairs", "rows", "calls"), [(4, 3_000, 3), (1_000, 20_000, 2)])
def test_rows_on_several_threads_are_opaque(pairs, rows, calls):
    history, broken = mixed(pairs, rows, calls)
    assert broken == 0
    assert len(history) == rows * calls
    assert history.statistics().rows == rows * calls
    history.check()


def test_a_row_that_missed_an_update_is_found_among_thousands():
    history, _ = mixed(10, 5_000)
    (batch,) = history._batches
    key, value = batch.read_keys[4_000, 0], batch.read_values[4_000, 0]
    older = batch.read_values[(batch.read_keys == key) & (batch.read_values != value)]
    batch.read_values[4_000, 0] = older[len(older) // 2]
    with pytest.raises(NotOpaque) as caught:
        history.check()
    error = caught.value
    assert error.anomaly in ("G-single", "G1c", "G2")
    assert "row 4000" in {attempt.thread for attempt in error.cycle}
    assert f"{key} = " in str(error)


def test_an_update_that_takes_two_transactions_is_lost():
    array = compiled.TArray([0, 0])
    seen = [array[1], array[1]]
    for tag in (1, 2):
        array[1] = tag
    history = History()
    history.record_rows(reads=([1, 1], seen), writes=([1, 1], [1, 2]), name="update")
    with pytest.raises(NotOpaque) as caught:
        history.check()
    assert caught.value.anomaly == "G2"
    assert [attempt.thread for attempt in caught.value.cycle] == ["row 0", "row 1"]
    assert [attempt.name for attempt in caught.value.cycle] == ["update", "update"]


def rows_of(*calls):
    history = History()
    for reads, writes, *moments in calls:
        began, ended = moments or (None, None)
        history.record_rows(
            reads=tuple(zip(*reads, strict=True)),
            writes=tuple(zip(*writes, strict=True)),
            began=began,
            ended=ended,
        )
    return history


def test_columns_of_pairs_and_of_single_elements():
    rows_of(([(0, 0), (0, 1)], [(0, 1), (0, 2)])).check()
    with pytest.raises(NotOpaque, match="G1c"):
        rows_of(([(0, 2), (1, 1)], [(1, 1), (0, 2)])).check()


def test_calls_one_after_the_other():
    first, second = ([(0, 0)], [(0, 1)]), ([(0, 0)], [(1, 1)])
    rows_of((*first, 0, 1), (*second, 0, 2)).check()
    rows_of((*second, 0, 1), (*first, 2, 3)).check()
    with pytest.raises(NotOpaque, match="G-single-realtime") as caught:
        rows_of((*first, 0, 1), (*second, 2, 3)).check()
    assert [attempt.thread for attempt in caught.value.cycle] == ["row 0 of call 0", "row 0 of call 1"]


def test_a_value_of_nobody():
    with pytest.raises(NotOpaque, match="G1a"):
        rows_of(([(0, 0), (0, 9)], [(1, 1), (1, 2)])).check()


def test_blind_writes_come_after_the_beginning():
    """Row 0 writes elements 1 and 2 without having read them; row 1 sees one of the two."""
    history = History()
    history.record_rows(
        reads=(np.array([[8, 9], [1, 2]]), np.array([[0, 0], [1, 0]])),
        writes=(np.array([[1, 2], [6, 7]]), np.array([[1, 1], [2, 2]])),
    )
    with pytest.raises(NotOpaque, match="G-single"):
        history.check()


def test_floats_and_rows_that_only_read_or_only_write():
    history = History()
    nothing = np.zeros((2, 0), np.int64)
    history.record_rows(reads=(nothing, nothing.astype(float)), writes=([0, 1], [0.5, 1.5]))
    history.record_rows(reads=([0, 1], [0.5, 0.0]), writes=(nothing, nothing.astype(float)))
    history.check()
    assert len(history) == 4
    history.check_and_forget()
    assert len(history) == 0
    history.check()


def test_the_same_value_written_twice_is_no_evidence():
    history = History()
    history.record_rows(reads=([0, 0], [0, 0]), writes=([1, 1], [7, 7]))
    with pytest.raises(ValueError, match="row 0 and row 1 wrote the same value to element 1"):
        history.check()


@pytest.mark.parametrize(
    ("reads", "writes", "error", "words"),
    [
        (([0], [0]), None, TypeError, "writes is a pair"),
        (([0.5], [0]), ([0], [1]), TypeError, "numbered by integers"),
        ((["a"], [0]), ([0], [1]), TypeError, "numbered by integers"),
        (([0], ["a"]), ([0], [1]), TypeError, "values are integers or floats"),
        (([0], [True]), ([0], [1]), TypeError, "values are integers or floats"),
        (([0, 1], [0]), ([0], [1]), ValueError, "same shape"),
        (([[[0]]], [[[0]]]), ([0], [1]), ValueError, "same shape"),
        (([0, 1], [0, 1]), ([0], [1]), ValueError, "reads has 2 rows, and writes has 1"),
        (([0], [0.5]), ([0], [1]), TypeError, "float64"),
    ],
)
def test_bad_columns(reads, writes, error, words):
    with pytest.raises(error, match=words):
        History().record_rows(reads=reads, writes=writes)


def test_very_large_keys_and_values():
    big = 1 << 62
    history = History()
    history.record_rows(reads=([-big, big], [0, -big]), writes=([big, big], [-big, big]))
    history.check()
    history.record_rows(reads=([big], [-big]), writes=([big], [5]))
    with pytest.raises(NotOpaque, match="G2"):
        history.check()
