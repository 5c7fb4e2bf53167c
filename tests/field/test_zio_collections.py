"""Cases of ZIO, `core-tests/.../zio/stm/`: TMapSpec, TSetSpec, TArraySpec.

`TArray` is a `TVector` here (a typed `TArray` is another thing, in `stm.compiled`). What ZIO names and Python says
with a comprehension in a transaction (`retainIf`, `transform`, `fold`) is said so.
"""

import operator
from functools import reduce

import pytest

from stm import TMap, TSet, TVar, TVector, atomically, run
from tests.support import Background, Once, elsewhere, together


class Oops(Exception):
    """What a body fails with."""


# ------------------------------------------------------------------------------ maps


class Key:
    """A key with the hash that it is told to have."""

    def __init__(self, number):
        self.number = number

    def __hash__(self):
        return self.number

    def __eq__(self, other):
        return isinstance(other, Key) and self.number == other.number


def test_map_made_of_pairs():
    """ZIO, TMapSpec: factories, toMap. Of equal keys the last one counts; without pairs it is empty."""
    pairs = [("a", 1), ("b", 2), ("c", 2), ("b", 3)]
    assert dict(TMap(pairs).snapshot()) == {"a": 1, "b": 3, "c": 2}
    assert dict(TMap().snapshot()) == {}


def test_map_lookups():
    """ZIO, TMapSpec: lookups: get, getOrElse, contains, keys and values, of what is there and what is not."""
    table = TMap(a=1, b=2)
    assert (table.get("a"), table.get("z"), table.get("a", 10), table.get("z", 10)) == (1, None, 1, 10)
    assert ("a" in table, "z" in table) == (True, False)
    assert (sorted(table), sorted(table.values()), len(table)) == (["a", "b"], [1, 2], 2)


def test_map_insertion_and_removal():
    """ZIO, TMapSpec: add, overwrite, remove (also what is not there), putIfAbsent, in one transaction."""
    table = TMap(a=1)

    @atomically
    def body():
        table["b"] = 2
        table["a"] = 10
        kept = table.setdefault("a", 99), table.setdefault("c", 3)
        gone = table.pop("b"), table.pop("nothing", None)
        return kept, gone, table.get("b")

    assert body() == ((10, 3), (2, None), None)
    assert table == {"a": 10, "c": 3}


@pytest.mark.parametrize("sign", [-1, 1])
def test_map_with_a_thousand_keys_of_any_hash(sign):
    """ZIO, TMapSpec: add many keys with negative hash codes. (The hash decides where in the map a key lives.)"""
    expected = {Key(sign * i): i for i in range(1, 1_001)}
    table = TMap()
    run(table.update, expected)
    assert dict(table.snapshot()) == expected
    run(lambda: [table.pop(Key(sign * i)) for i in range(1, 1_001)])
    assert not table


def test_map_merged_and_updated():
    """ZIO, TMapSpec: merge, updateWith. Read, decide and write (or delete) is one step, also if somebody intervenes."""
    table, first = TMap(a=1, b=2), Once()

    @atomically
    def update(key, f):
        value = table.get(key)
        if first:
            elsewhere(table.__setitem__, key, 10)
        new = f(value)
        if new is None:
            table.pop(key, None)
        else:
            table[key] = new

    update("a", lambda value: value + 1)
    update("b", lambda value: None)
    update("c", lambda value: 3)
    update("d", lambda value: None)
    assert table == {"a": 11, "c": 3}


def test_map_filtered_and_folded():
    """ZIO, TMapSpec: removeIf, retainIf, fold. What is removed is returned; the sum is that of what is left."""
    table = TMap(a=1, aa=2, aaa=3)

    @atomically
    def remove_if(unwanted):
        return {key: table.pop(key) for key, value in list(table.items()) if unwanted(key, value)}

    assert remove_if(lambda key, value: value > 1) == {"aa": 2, "aaa": 3}
    assert sum(table.values()) == 1
    assert remove_if(lambda key, value: True) == {"a": 1}
    assert sum(table.values()) == 0


def test_map_transformed():
    """ZIO, TMapSpec: transform, transform and shrink, transformValues. New keys may collide; then one value is left."""
    table = TMap(a=1, aa=2, aaa=3)

    @atomically
    def transform(f):
        new = dict(f(key, value) for key, value in table.items())
        table.clear()
        table.update(new)

    transform(lambda key, value: (key.replace("a", "b"), value * 2))
    assert table == {"b": 2, "bb": 4, "bbb": 6}
    transform(lambda key, value: ("key", value))
    assert list(table) == ["key"]
    assert table["key"] in (2, 4, 6)


def test_map_transformed_by_two_at_once():
    """ZIO, TMapSpec: parallel value transformation. No increment of all values is lost."""
    table = TMap(dict.fromkeys(range(10), 0))

    @atomically
    def bump():
        for key, value in table.items():
            table[key] = value + 1

    together(*(lambda: [bump() for _ in range(50)] for _ in range(2)))
    assert set(table.values()) == {100}


def test_map_read_while_keys_go():
    """ZIO, TMapSpec: bug #4648. Who reads all of it while others delete gets what was there at one moment."""
    table = TMap({i: i for i in range(60)})

    def delete():
        for i in range(60):
            del table[i]

    deleting = Background(delete)
    while deleting.thread.is_alive():
        left = sorted(table.items())
        assert left == [(i, i) for i in range(60 - len(left), 60)]
    deleting.result()
    assert not table


# ------------------------------------------------------------------------------ sets


def test_set_made_looked_at_and_changed():
    """ZIO, TSetSpec: factories, lookups, insertion and removal. Adding twice and removing nothing change nothing."""
    items = TSet([1, 2, 2, 3])
    assert (len(items), 1 in items, 0 in items, sorted(items)) == (3, True, False, [1, 2, 3])
    items.add(1)
    items.add(4)
    items.discard(9)
    items.remove(2)
    assert items.snapshot() == {1, 3, 4}
    assert TSet().snapshot() == set()


@pytest.mark.parametrize(("f", "after"), [(lambda n: n * 2, {2, 4, 6}), (lambda n: 1, {1})])
def test_set_transformed(f, after):
    """ZIO, TSetSpec: transform, transform and shrink, retainIf, removeIf, fold."""
    items = TSet([1, 2, 3])

    @atomically
    def transform():
        new = {f(item) for item in items}
        items.intersection_update(new)
        items.update(new)
        return sum(items)

    assert transform() == sum(after)
    assert items == after


OPERATIONS = {
    "diff": (TSet.difference_update, {2, 3}),
    "intersect": (TSet.intersection_update, {1}),
    "union": (TSet.update, {1, 2, 3, 4, 5}),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_set_operations_between_two(name):
    """ZIO, TSetSpec: diff, intersect, union. Both sets are read at one moment; only the first one changes."""
    operation, expected = OPERATIONS[name]
    one, other = TSet([1, 2, 3]), TSet([1, 4, 5])
    operation(one, other)
    assert (one.snapshot(), other.snapshot()) == (expected, {1, 4, 5})


# ------------------------------------------------------------------------------ arrays


def test_array_elements_and_bounds():
    """ZIO, TArraySpec: apply, update: happy path and out of bounds. A wrong index leaves all as it was."""
    array = TVector([42])
    array[0] = -array[0]
    assert list(array) == [-42]
    for index in (1, -3):
        with pytest.raises(IndexError):
            run(lambda index=index: (array.append(7), array[index + (index > 0)]))
    assert list(array) == [-42]


STAIR = list(range(1, 11))
QUESTIONS = {
    "contains": lambda a: (3 in a, 11 in a),
    "count": lambda a: sum(n % 2 == 0 for n in a),
    "exists": lambda a: (any(n % 2 == 0 for n in a), any(n % 11 == 0 for n in a)),
    "forall": lambda a: (all(n < 11 for n in a), all(n < 9 for n in a)),
    "find": lambda a: next((n for n in a if n % 5 == 0), None),
    "findLast": lambda a: next((n for n in reversed(a) if n % 5 == 0), None),
    "first and last": lambda a: (a[0] if a else None, a[-1] if a else None),
    "indexWhere": lambda a: next((i for i, n in enumerate(a) if n % 5 == 0), -1),
    "min and max": lambda a: (min(a, default=None), max(a, default=None)),
    "reduce": lambda a: reduce(operator.add, a, 0),
    "size": len,
    "slices": lambda a: (list(a[2:4]), list(a[-3:]), list(a[8:20])),
}


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("content", [STAIR, [], [1]], ids=["a stair", "empty", "one"])
def test_array_questions(question, content):
    """ZIO, TArraySpec: contains, count, exists, forall, find, first, last, min, max, reduce, size: as of a list."""
    ask = QUESTIONS[question]
    assert run(ask, TVector(content)) == ask(content)


@pytest.mark.parametrize(("start", "stop"), [(0, 9), (2, 9), (7, 9), (0, 0), (-2, 9), (9, 20)])
def test_array_positions(start, stop):
    """ZIO, TArraySpec: indexOf and lastIndexOf, with offsets within and beyond: as of a list, errors too."""
    content = [1, 2, 3] * 3
    array = TVector(content)
    for wanted in (1, 2, 3, 4):
        try:
            expected = content.index(wanted, start, stop)
        except ValueError:
            with pytest.raises(ValueError, match="not in"):
                array.index(wanted, start, stop)
        else:
            assert array.index(wanted, start, stop) == expected


@pytest.mark.parametrize("read_only", [False, True])
def test_array_read_at_one_moment(read_only):
    """ZIO, TArraySpec: fold, find and reduce are atomic. A sum over elements that are all replaced is old or new."""
    array, first, sums = TVector([0] * 100), Once(), []

    @atomically(read_only=read_only)
    def total():
        half = sum(array[i] for i in range(50))
        if first:
            elsewhere(run, lambda: [array.__setitem__(i, 1) for i in range(100)])
        sums.append(half + sum(array[i] for i in range(50, 100)))
        return sums[-1]

    assert total() == (0 if read_only else 100)
    assert set(sums) <= {0, 100}


def test_array_transformed_at_once():
    """ZIO, TArraySpec: transform updates values atomically. One letter goes to all elements before the other does."""
    array = TVector(["a"] * 40)

    @atomically
    def append(letter):
        for i, text in enumerate(array):
            array[i] = text + letter

    together(lambda: append("b"), lambda: append("c"))
    assert array[0] in ("abc", "acb")
    assert set(array) == {array[0]}


def test_array_transformed_all_or_nothing():
    """ZIO, TArraySpec: transformSTM updates all or nothing; foldSTM and updateSTM with a failure."""
    array = TVector([0] * 10)
    array[5] = 1

    @atomically
    def transform():
        for i, n in enumerate(array):
            if n:
                raise Oops
            array[i] = 42

    with pytest.raises(Oops):
        transform()
    assert list(array) == [0] * 5 + [1] + [0] * 4


def test_array_effects_are_transactional():
    """ZIO, TArraySpec: foreach: side-effect is transactional. Nobody sees a sum of half of the elements."""
    total, array, seen = TVar(0), TVector([1] * 10), []

    @atomically
    def add_all():
        for n in array:
            total.value += n
            seen.append(elsewhere(total.get))

    add_all()
    assert set(seen) == {0}
    assert total.get() == 10
