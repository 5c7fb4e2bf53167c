"""Elements of arrays in transactions of the object tier: noted by their versions, and judged with the variables."""

import random
import sys

import numpy as np
import pytest

from stm import TVar, atomically, check, or_else, retry, run
from stm.compiled import TArray, joining
from stm.testing._joined import Element
from stm.testing._opacity import LONG_AGO
from stm.testing._records import Log, Record
from stm.testing.history import History, NotOpaque
from tests.support import Once, elsewhere, together


def told(history):
    return [
        (
            attempt.outcome,
            {access.key: access.value for access in attempt.reads},
            {access.key: access.value for access in attempt.writes},
        )
        for attempt in history.attempts
    ]


def test_what_is_noted_of_elements():
    array, x = TArray([1, 2, 3], name="a"), TVar(0)

    @atomically
    def body():
        array[0] = array[1] + array[-1]
        x.value += array[0]  # its own

    with History() as history:
        body()
    first, second, third = (Element(array, position) for position in range(3))
    assert told(history) == [("committed", {x: 0, second: 2, third: 3}, {x: 5, first: 5})]
    (attempt,) = history.attempts
    stamp = next(access.version for access in attempt.writes if access.key == first)
    assert stamp == array._memory[0, 1]
    assert repr(first) == "<TArray 'a'>[0]"
    history.check()


@pytest.mark.parametrize("dtype", [np.int64, np.float64, np.bool_])
def test_elements_alone_and_of_every_type(dtype):
    array = TArray(np.array([[0, 1], [1, 0]], dtype))

    @atomically
    def swap():
        array[0, 0], array[1, 0] = array[1, 0], array[0, 0]

    with History() as history:
        swap()
        swap()
    zero, two = Element(array, 0), Element(array, 2)
    assert told(history) == [
        ("committed", {two: 1, zero: 0}, {zero: 1, two: 0}),
        ("committed", {two: 0, zero: 1}, {zero: 0, two: 1}),
    ]
    history.check()


def test_slices_are_noted_too_and_rolled_back_writes_are_not():
    array = TArray([1, 2, 3, 4])

    def left():
        array[3] = 9
        retry()

    with History() as history:
        run(lambda: or_else(left, lambda: array.__setitem__(slice(0, 2), array[2:])))
    elements = [Element(array, position) for position in range(4)]
    assert told(history) == [("committed", {elements[2]: 3, elements[3]: 4}, {elements[0]: 3, elements[1]: 4})]


def test_attempts_that_did_not_commit():
    array = TArray([0, 0])
    first = Once()

    @atomically
    def copy():
        seen = array[0]
        if first:
            elsewhere(array.__setitem__, 0, 5)
        array[1] = seen

    with History() as history:
        copy()
    assert [outcome for outcome, _, _ in told(history)] == ["aborted", "committed"]
    assert array[1] == 5
    history.check()


def test_what_was_read_as_a_slice_and_has_changed_since_says_nothing():
    array, x, y = TArray([0, 0]), TVar(0), TVar(0)
    first = Once()

    def bump_all():
        array[0] += 1
        x.value += 1

    @atomically
    def copy():
        seen = array[:].sum() + x.value
        if first:
            elsewhere(run, bump_all)
        y.value = int(seen)

    with History() as history:
        copy()
    assert [outcome for outcome, _, _ in told(history)] == ["aborted", "committed", "committed"]
    history.check()


def judged(*attempts):
    """The anomaly of attempts made by hand: what they read, as versions; what they wrote, and under which version."""
    history = History()
    log = Log()
    for number, (reads, writes, stamp) in enumerate(attempts):
        record = Record(LONG_AGO, str(number))
        record.outcome = "committed"
        record.elements = {Element("a", position): (None, version) for position, version in reads.items()}
        record.puts = {Element("a", position): None for position in writes}
        record.stamp = stamp
        log.records.append(record)
    history._recorder.logs.append(log)
    with pytest.raises(NotOpaque) as caught:
        history.check()
    return caught.value.anomaly, [attempt.name for attempt in caught.value.cycle]


def test_anomalies_of_elements():
    assert judged(({1: 32}, [0], 16), ({0: 16}, [1], 32)) == ("G1c", ["0", "1"])
    assert judged(({0: 0}, [0], 16), ({0: 0}, [0], 32)) == ("G-single", ["0", "1"])
    assert judged(({0: 0, 1: 0}, [0], 16), ({0: 0, 1: 0}, [1], 32)) == ("G2", ["0", "1"])
    assert judged(({}, [0], 16), ({}, [1], 16)) == ("version", ["0", "1"])


@pytest.fixture
def _restless():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("_restless")
def test_threads_over_both_tiers_are_opaque():
    array, total = TArray([5] * 4), TVar(20)

    @atomically
    def move(a, b):
        array[a] -= 1
        array[b] += 1

    @atomically
    def spend(a):
        array[a] -= 1
        total.value -= 1

    @atomically
    def audit():
        check(sum(array[position] for position in range(4)) == total.value)

    def customer(seed):
        chance = random.Random(seed)
        for _ in range(100):
            move(*chance.sample(range(4), 2))
            spend(chance.randrange(4))
            audit()
            array[chance.randrange(4)]

    with History() as history:
        together(*(lambda seed=seed: customer(seed) for seed in range(3)))
    assert history.statistics().committed >= 900
    history.check()


def test_an_array_that_is_not_validated_at_the_commit(monkeypatch):
    array, x = TArray([0, 0]), TVar(0)
    first = Once()

    def bump_all():
        array[0] += 1
        x.value += 1

    @atomically
    def look():
        seen = array[0]
        if first:
            elsewhere(run, bump_all)
        return seen, x.value

    monkeypatch.setattr(joining.ArrayPart, "_cell", property(lambda self: self))
    with History() as history:
        assert look() == (0, 1)
    with pytest.raises(NotOpaque) as caught:
        history.check()
    assert caught.value.anomaly == "G-single"
    assert "[0] = 0" in str(caught.value)


def test_an_element_that_is_read_twice_and_seen_in_two_versions(monkeypatch):
    array = TArray([0])
    monkeypatch.setattr(joining.ArrayPart, "_cell", property(lambda self: self))

    @atomically
    def twice():
        one = array[0]
        elsewhere(array.__setitem__, 0, 1)
        return one, array[0]

    with History() as history:
        assert twice() == (0, 1)
    with pytest.raises(NotOpaque, match="unrepeatable read"):
        history.check()
