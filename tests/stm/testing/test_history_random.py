"""The decision against its definition: an order of all attempts, looked for by trying each."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stm.testing._opacity import LONG_AGO, NEVER
from stm.testing._records import Log, Record
from stm.testing.history import History, NotOpaque


def is_opaque(history):
    try:
        history.check()
    except NotOpaque:
        return False
    return True


def history_of(records):
    made = History()
    log = Log()
    log.records += records
    made._recorder.logs.append(log)
    return made


class World:
    """A serial execution, attempt by attempt, over some variables."""

    def __init__(self):
        self.cells = {name: (f"{name}0", 0, None) for name in "xyz"}
        self.first = dict(self.cells)
        self.version = 0
        self.records = []

    def run(self, reads, writes, commits=True):
        number = len(self.records)
        record = Record(LONG_AGO, f"T{number}", {name: self.cells[name] for name in reads})
        record.outcome = "committed" if commits else "aborted"
        record.writes = {name: f"{name}{number + 1}" for name in writes}
        if commits and writes:
            self.version += 2
            record.before = [self.cells[name] for name in writes]
            record.after = [(value, self.version, None) for value in record.writes.values()]
            self.cells.update(zip(writes, record.after, strict=True))
        self.records.append(record)
        return record


names = st.lists(st.sampled_from("xyz"), unique=True, max_size=3)
steps = st.lists(st.tuples(names, names, st.integers(0, 3).map(bool)), min_size=1, max_size=12)


def serial(script):
    world = World()
    for reads, writes, commits in script:
        world.run(reads, writes, commits)
    return world


def let_time_pass(records, overlap):
    """Give attempts intervals that hold the moment at which they ran."""
    for number, (record, (before, after)) in enumerate(zip(records, itertools.cycle(overlap), strict=False)):
        record.began, record.ended = 10 * number - before, 10 * number + after


overlaps = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=12)


@given(steps, overlaps, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=200)
def test_a_serial_execution_is_opaque_however_it_was_recorded(script, overlap, chance):
    world = serial(script)
    let_time_pass(world.records, overlap)
    chance.shuffle(world.records)
    history_of(world.records).check()


@given(steps, st.data())
@settings(deadline=None, max_examples=200)
def test_any_other_version_read_is_found_if_attempts_do_not_overlap(script, data):
    world = serial(script)
    let_time_pass(world.records, [(1, 1)])
    written = {name: [world.first[name]] for name in "xyz"}
    for record in world.records:
        for name, cell in zip(record.writes, record.after or (), strict=False):
            written[name].append(cell)
    places = [
        (record, name)
        for record in world.records
        for name in record.reads
        if len(written[name]) > 1 and (record.after is None or name not in record.writes)
    ]
    if not places:
        return
    record, name = data.draw(st.sampled_from(places))
    others = [cell for cell in written[name] if cell is not record.reads[name]]
    record.reads[name] = data.draw(st.sampled_from(others))
    assert not is_opaque(history_of(world.records))


def explained(records, first):
    """Is there an order in which each attempt reads what is there, and replaces what it is known to have replaced?"""
    for order in itertools.permutations(records):
        place = {id(record): number for number, record in enumerate(order)}
        if any(one.ended < two.began and place[id(one)] > place[id(two)] for one in records for two in records):
            continue
        cells = dict(first)
        for record in order:
            if any(cells[name] is not cell for name, cell in record.reads.items()):
                break
            if record.after is not None:
                if any(cells[name] is not cell for name, cell in zip(record.writes, record.before, strict=True)):
                    break
                cells.update(zip(record.writes, record.after, strict=True))
        else:
            return True
    return False


def random_history(chance):
    """Five attempts over two variables: serial at first, and then some reads and moments are others."""
    world = World()
    for _ in range(5):
        reads = [name for name in "xy" if chance.random() < 0.6]
        writes = [name for name in "xy" if chance.random() < 0.4]
        world.run(reads, writes, chance.random() < 0.75)
    let_time_pass(world.records, [(chance.randrange(30), chance.randrange(30)) for _ in range(5)])
    written = {name: [world.first[name]] for name in "xy"}
    for record in world.records:
        for name, cell in zip(record.writes, record.after or (), strict=False):
            written[name].append(cell)
    for record in chance.sample(world.records, 2):
        for name in record.reads:
            record.reads[name] = chance.choice([cell for cell in written[name] if cell not in (record.after or ())])
    return world


def test_the_decision_is_that_of_the_definition():
    chance = random.Random(1)
    verdicts = [0, 0]
    for _ in range(400):
        world = random_history(chance)
        expected = explained(world.records, world.first)
        assert is_opaque(history_of(world.records)) is expected
        verdicts[expected] += 1
    assert min(verdicts) > 80  # both kinds are among them


# Told by values


def told_of(records):
    told = History()
    for record in records:
        told.record(
            reads={name: cell[0] for name, cell in record.reads.items()},
            writes=record.writes,
            name=record.name,
            began=None if record.began == LONG_AGO else record.began,
            ended=None if record.ended == NEVER else record.ended,
            outcome=record.outcome,
        )
    return told


def test_values_never_accuse_wrongly_and_miss_nothing_where_writers_have_read():
    chance = random.Random(2)
    verdicts = [0, 0]
    complete = 0
    for _ in range(600):
        world = random_history(chance)
        opaque = is_opaque(history_of(world.records))
        verdict = is_opaque(told_of(world.records))
        assert verdict or not opaque
        if _writers_have_read(world):
            assert verdict is opaque
            complete += 1
        verdicts[verdict] += 1
    assert min(*verdicts, complete) > 50


def _writers_have_read(world):
    """Did each commit read what it replaced, so that values tell the order that cells tell?"""
    return all(
        record.reads.get(name) is cell
        for record in world.records
        if record.after is not None
        for name, cell in zip(record.writes, record.before, strict=True)
    )


@pytest.mark.parametrize("seed", range(6))
def test_columns_decide_as_single_records_do(seed):
    chance = random.Random(seed)
    verdicts = [0, 0]
    for _ in range(50):
        keys, values = [], []
        current = dict.fromkeys(range(4), 0)
        rows = chance.randrange(2, 9)
        for row in range(rows):
            pair = chance.sample(range(4), 2)
            keys.append(pair)
            values.append([current[key] for key in pair])
            current.update(dict.fromkeys(pair, row + 1))
        if chance.random() < 0.7:
            row = chance.randrange(rows)
            values[row][chance.randrange(2)] = chance.randrange(rows + 1)
        writes = np.array([[row + 1] * 2 for row in range(rows)])
        blind = chance.random() < 0.3
        written = np.array([[pair[0], 4 + pair[1]] if blind else pair for pair in keys])
        split = chance.randrange(1, rows)
        columns, told = History(), History()
        for part, (began, ended) in ((slice(split), (0, 9)), (slice(split, rows), (10, 19))):
            columns.record_rows(
                reads=(np.array(keys)[part], np.array(values)[part]),
                writes=(written[part], writes[part]),
                began=began,
                ended=ended,
            )
            for row in range(rows)[part]:
                told.record(
                    reads=dict(zip(keys[row], values[row], strict=True)),
                    writes=dict.fromkeys(written[row].tolist(), row + 1),
                    began=began,
                    ended=ended,
                )
        assert is_opaque(columns) is is_opaque(told)
        verdicts[is_opaque(told)] += 1
    assert min(verdicts) > 5
