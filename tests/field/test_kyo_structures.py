"""Cases of kyo, `kyo-stm/.../kyo/`: TMapTest, and the laws of STMPropertyTest for variables and maps."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stm import TMap, TransactionTimeout, TVar, atomically, check, run
from tests.support import Once, elsewhere, together

few = settings(max_examples=30, deadline=None)
tables = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(-3, 3), max_size=8)
names = st.sampled_from("abcdefghz")


class Oops(Exception):
    """What a body fails with."""


# ------------------------------------------------------------------------------ laws of variables


@given(st.one_of(st.integers(), st.text("ab", max_size=3), st.none()))
@few
def test_a_transaction_around_a_transaction_is_the_same(value):
    """kyo, STMPropertyTest: identity, nested flatness: run of run of x is x; init and get yield the value."""
    assert run(run, lambda: value) is value
    assert run(atomically(lambda: TVar(value).get())) is value


FUNCTIONS = [lambda x: x, lambda x: x + 1, lambda x: 2 * x, lambda x: -x, lambda x: x % 17]


@given(st.sampled_from(FUNCTIONS), st.sampled_from(FUNCTIONS), st.integers(-100, 100))
@few
def test_two_updates_are_the_update_by_both(f, g, value):
    """kyo, STMPropertyTest: update, functional and composition law; set, last write wins."""
    one, other = TVar(value), TVar(value)
    run(lambda: (one.update(f), one.update(g)))
    other.update(lambda x: g(f(x)))
    assert one.get() == other.get() == g(f(value))
    run(lambda: [one.set(n) for n in (3, 2, f(value))])
    assert one.get() == f(value)


# ------------------------------------------------------------------------------ laws of maps


@given(tables, names, st.integers())
@few
def test_map_laws(content, key, value):
    """kyo, STMPropertyTest: snapshot, size, isEmpty, contains, get, put, remove, clear, keys, values, entries."""
    table = TMap(content)
    assert (dict(table.snapshot()), len(table), bool(table)) == (content, len(content), bool(content))
    assert (key in table, table.get(key), table.get(key, 77)) == (
        key in content,
        content.get(key),
        content.get(key, 77),
    )
    assert (set(table), sorted(table.values()), sorted(table.items())) == (
        set(content),
        sorted(content.values()),
        sorted(content.items()),
    )

    @atomically
    def body():
        table[key] = value
        after_put = len(table), key in table, table[key]
        gone = table.pop(key)
        after_removal = len(table), key in table
        table.clear()
        return after_put, gone, after_removal, len(table)

    without = len(content) - (key in content)
    assert body() == ((without + 1, True, value), value, (without, False), 0)


@given(tables, st.lists(names))
@few
def test_map_several_removed(content, keys):
    """kyo, STMPropertyTest: removeAll, updateWith removing: of those that are there, and of those that are not."""
    table = TMap(content)
    run(lambda: [table.pop(key, None) for key in keys])
    assert dict(table.snapshot()) == {key: value for key, value in content.items() if key not in keys}


@given(tables, st.integers(-3, 3))
@few
def test_map_searched(content, bound):
    """kyo, STMPropertyTest: filter, fold, findFirst: what is found satisfies the question."""
    table, asked = TMap(content), []

    def wanted(value):
        asked.append(value)
        return value > bound

    @atomically
    def body():
        found = next((key for key, value in table.items() if wanted(value)), None)
        for key, value in table.items():
            if not value > bound:
                del table[key]
        return found, sum(table.values())

    found, total = body()
    expected = {key: value for key, value in content.items() if value > bound}
    assert dict(table.snapshot()) == expected
    assert total == sum(expected.values())
    assert (found in expected) if expected else found is None
    assert asked or not content


# ------------------------------------------------------------------------------ maps that fail


def put(table):
    table["key1"] = 100


def put_and_remove(table):
    table["key1"] = 100
    del table["key1"]
    table.clear()


def update_everything(table):
    table.update(a=9, d=9)


def nested(table):
    put(table)
    run(update_everything, table)


@pytest.mark.parametrize("change", [put, put_and_remove, update_everything, nested], ids=lambda change: change.__name__)
@pytest.mark.parametrize("end", ["fails", "retries"])
def test_map_as_it_was(change, end):
    """kyo, TMapTest: rollback on direct and on nested failure; partial updates remain atomic; multiple operations."""
    table = TMap(a=1, b=2, c=3)

    @atomically(timeout=0)
    def body():
        change(table)
        if end == "fails":
            raise Oops
        check(table.get("nothing"))

    with pytest.raises((Oops, TransactionTimeout)):
        body()
    assert table == {"a": 1, "b": 2, "c": 3}


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_map_whose_user_raises_on_the_way(steps):
    """kyo, TMapTest: exception in update function, filter, fold and findFirst operation rollback."""
    table = TMap(a=1, b=2, c=3)

    @atomically
    def body():
        for number, key in enumerate(table, 1):
            del table[key]
            if number == steps:
                raise Oops

    with pytest.raises(Oops):
        body()
    assert table == {"a": 1, "b": 2, "c": 3}


# ------------------------------------------------------------------------------ maps and many threads


def test_map_keys_put_updated_and_removed_by_many():
    """kyo, TMapTest: concurrent modifications, updates, removals. In phases, each of which loses none."""
    table, parts = TMap(), [range(start, 80, 4) for start in range(4)]
    together(*(lambda part=part: [table.__setitem__(i, 0) for i in part] for part in parts))
    assert sorted(table) == list(range(80))

    @atomically
    def bump_all():
        for key, value in table.items():
            table[key] = value + 1

    together(*([lambda: [bump_all() for _ in range(3)]] * 4))
    assert set(table.values()) == {12}
    together(*(lambda part=part: [table.pop(i) for i in part] for part in parts))
    assert not table


def test_map_put_of_one_key_by_two():
    """kyo, STMStressTest: concurrent put(K, v1) and put(K, v2): one of them; 100 updates: all of them."""
    table = TMap()
    together(lambda: table.update({0: 1}), lambda: table.update({0: 2}))
    assert dict(table.snapshot()) in ({0: 1}, {0: 2})
    table[0] = 0
    together(*(lambda: [run(lambda: table.update({0: table[0] + 1})) for _ in range(25)] for _ in range(4)))
    assert table == {0: 100}


@pytest.mark.parametrize("moment", [0, 10, 19])
def test_map_read_whole_while_it_changes(moment):
    """kyo, STMStressTest: TMap.snapshot, entries and fold under put, remove and clear: all of one moment."""
    table, first, sizes = TMap(dict.fromkeys(range(20), 0)), Once(), []

    @atomically
    def rewrite():
        for i in range(20):
            table[i] = 1
        table[20] = table.pop(0)

    @atomically
    def look():
        values = []
        for number, key in enumerate(range(20)):
            if number == moment and first:
                elsewhere(rewrite)
            values.append(table.get(key))
        sizes.append((len(table), len(table.snapshot()), set(values) | set(table.values())))

    look()
    assert sizes == [(20, 20, {None, 1})]


def test_map_cleared_while_others_put():
    """kyo, STMStressTest: TMap.clear during concurrent puts; removeAll and put. What is left was put as it is."""
    table = TMap({i: i for i in range(50)})
    together(
        lambda: [table.update({i % 50: i}) for i in range(200)],
        lambda: [table.clear() for _ in range(5)],
        lambda: [table.pop(i, None) for i in range(50)],
    )
    assert all(value % 50 == key for key, value in table.items())
    assert len(table) == len(list(table)) <= 50
