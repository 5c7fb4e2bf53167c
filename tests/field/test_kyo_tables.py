"""Cases of kyo, `kyo-stm/.../kyo/`: TChunkTest and TTableTest, with their parts of STMPropertyTest and STMStressTest.

`TChunk` is a `TVector` here. A table with indexes is none of our structures; its cases are told of one made of maps.
"""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stm import TMap, TVar, TVector, atomically, run
from tests.support import Background, together

lists = st.lists(st.integers(-5, 5), max_size=12)


class Oops(Exception):
    """What a body fails with."""


# ------------------------------------------------------------------------------ chunks

positions = st.integers(-14, 14)
CHANGES = {
    "append": lambda v, x, y: v.append(x),
    "take": lambda v, x, y: v.__delitem__(slice(max(x, 0), None)),
    "drop": lambda v, x, y: v.__delitem__(slice(0, max(x, 0))),
    "dropRight": lambda v, x, y: v.__delitem__(slice(max(len(v) - abs(x), 0), None)),
    "slice": lambda v, x, y: v.__setitem__(slice(None), list(v)[x:y]),
    "concat": lambda v, x, y: v.extend([x, y]),
    "concat itself": lambda v, x, y: v.extend(v),
    "filter": lambda v, x, y: v.__setitem__(slice(None), [n for n in v if n > x]),
    "compact": lambda v, x, y: v.__setitem__(slice(None), list(v)),
}


@pytest.mark.parametrize("name", CHANGES)
@given(content=lists, x=positions, y=positions)
@settings(max_examples=15, deadline=None)
def test_chunk_changed_as_a_list_or_not_at_all(name, content, x, y):
    """kyo, STMPropertyTest and TChunkTest: append, take, drop, dropRight, slice, concat, filter; each rolls back."""
    change, pattern = CHANGES[name], list(content)
    change(pattern, x, y)
    chunk, discarded = TVector(content), TVector(content)
    run(change, chunk, x, y)
    assert (list(chunk), len(chunk), list(chunk.snapshot())) == (pattern, len(pattern), pattern)

    def change_and_fail():
        change(discarded, x, y)
        assert list(discarded) == pattern
        raise Oops

    with pytest.raises(Oops):
        run(change_and_fail)
    assert list(discarded) == content


@pytest.mark.parametrize("content", [[], [42], list(range(50))], ids=["empty", "one", "fifty"])
def test_chunk_read_at_its_ends(content):
    """kyo, TChunkTest: get, head and last, at and beyond the bounds: an IndexError, as of a list."""
    chunk = TVector(content)
    for index in (0, len(content) - 1, -1, -len(content), len(content), len(content) + 7, 2**31):
        try:
            expected = content[index]
        except IndexError:
            with pytest.raises(IndexError):
                chunk[index]
        else:
            assert chunk[index] == expected


def test_chunk_in_scopes_of_which_one_fails():
    """kyo, TChunkTest: append preserves order under interleaved sub-transaction rollbacks; None is an element."""
    chunk = TVector()

    @atomically
    def inner():
        chunk.append(2)
        raise Oops

    @atomically
    def outer():
        chunk.append(1)
        with pytest.raises(Oops):
            inner()
        chunk.append(None)
        picture = chunk.snapshot()
        chunk.append(3)
        return list(picture)

    assert outer() == [1, None]
    assert list(chunk) == [1, None, 3]


def test_chunk_appended_to_and_halved_by_many():
    """kyo, TChunkTest: concurrent modifications, filtering and slices. What is left is a prefix."""
    chunk = TVector()
    together(*(lambda start=start: [chunk.append(n) for n in range(start, 64, 4)] for start in range(4)))
    assert sorted(chunk) == list(range(64))
    chunk.sort()

    @atomically
    def halve():
        del chunk[len(chunk) // 2 :]

    together(halve, halve, halve)
    assert list(chunk) == list(range(8))
    together(*([lambda: run(lambda: chunk.__setitem__(slice(None), [n for n in chunk if n % 2 == 0]))] * 3))
    assert list(chunk) == [0, 2, 4, 6]


# ------------------------------------------------------------------------------ tables


class Table:
    """Records by number, and for each indexed field the numbers by value."""

    def __init__(self, *indexed):
        self.records, self.indexes, self.last = TMap(), {field: TMap() for field in indexed}, TVar(0)

    @atomically
    def insert(self, **record):
        number = self.last.update(lambda last: last + 1)
        self._store(number, record)
        return number

    @atomically
    def update(self, number, **record):
        before = self.records.get(number)
        if before is not None:
            self._forget(number)
            self._store(number, record)
        return before

    @atomically
    def remove(self, number):
        before = self.records.get(number)
        if before is not None:
            self._forget(number)
        return before

    def _store(self, number, record):
        self.records[number] = record
        for field, index in self.indexes.items():
            index[record[field]] = index.get(record[field], frozenset()) | {number}

    def _forget(self, number):
        record = self.records.pop(number)
        for field, index in self.indexes.items():
            left = index[record[field]] - {number}
            if left:
                index[record[field]] = left
            else:
                del index[record[field]]

    @atomically
    def query(self, **wanted):
        numbers = [self.indexes[field].get(value, frozenset()) for field, value in wanted.items()]
        return sorted(frozenset.intersection(*numbers))

    @atomically
    def consistent(self):
        return all(
            {value: frozenset(n for n, r in self.records.items() if r[field] == value) for value in index}
            == dict(index.items())
            and set(index) == {r[field] for r in self.records.values()}
            for field, index in self.indexes.items()
        )


def test_table_records_come_and_go():
    """kyo, TTableTest: basic operations, size, snapshot, edge cases: numbers that don't exist any more, or yet."""
    table = Table("name", "age")
    alice = table.insert(name="Alice", age=30)
    assert table.update(alice, name="Alice", age=31) == {"name": "Alice", "age": 30}
    assert table.records[alice] == {"name": "Alice", "age": 31}
    assert table.update(999, name="Bob", age=1) is None
    assert len(table.records) == 1
    assert table.remove(alice) == {"name": "Alice", "age": 31}
    assert (table.remove(alice), table.update(alice, name="Bob", age=1), len(table.records)) == (None, None, 0)
    assert table.insert(name="Alice", age=30) != alice
    assert table.consistent()


def test_table_queried():
    """kyo, TTableTest: query by one field, by several, with no matches, after an update, after a removal."""
    table = Table("name", "age")
    a30, bob, a35 = (table.insert(name=n, age=a) for n, a in (("Alice", 30), ("Bob", 30), ("Alice", 35)))
    assert table.query(name="Alice") == [a30, a35]
    assert table.query(age=30) == [a30, bob]
    assert table.query(name="Alice", age=30) == [a30]
    assert table.query(name="Nobody") == table.query(name="Bob", age=35) == []
    table.update(a30, name="Carol", age=30)
    table.remove(a35)
    assert (table.query(name="Alice"), table.query(name="Carol"), table.query(age=35)) == ([], [a30], [])
    with pytest.raises(KeyError):
        table.query(email="nobody@example.org")


@pytest.mark.parametrize("depth", [1, 2])
def test_table_whose_transaction_fails(depth):
    """kyo, TTableTest: index consistency after failed updates, nested and not; isolation with multiple tables."""
    table, other = Table("age"), Table("age")
    alice = table.insert(name="Alice", age=30)

    @atomically
    def change(depth):
        table.update(alice, name="Alice", age=30 + depth)
        other.insert(name="Bob", age=depth)
        if depth > 1:
            change(depth - 1)
        raise Oops

    with pytest.raises(Oops):
        change(depth)
    assert (table.query(age=30), table.query(age=31), table.query(age=32)) == ([alice], [], [])
    assert len(other.records) == 0
    assert table.consistent()
    assert other.consistent()


def test_table_and_many_threads():
    """kyo, STMStressTest: concurrent inserts, updates and removals leave the indexes consistent with the records."""
    table = Table("name", "age")
    shared = table.insert(name="init", age=0)

    def work(name):
        numbers = [table.insert(name=name, age=i % 3) for i in range(8)]
        table.update(shared, name=name, age=9)
        for number in numbers[::2]:
            table.remove(number)
        return numbers

    checking = Background(lambda: [table.consistent() for _ in range(20)])
    numbers = together(*(lambda name=name: work(name) for name in "abc"))
    assert all(checking.result())
    assert len(set(itertools.chain(*numbers))) == 24
    assert len(table.records) == 13
    assert table.query(age=9) == [shared]
    assert table.consistent()
    removing = together(lambda: table.remove(shared), lambda: table.update(shared, name="new", age=9))
    assert removing[0] is not None
    assert table.query(age=9) == []
    assert table.consistent()
