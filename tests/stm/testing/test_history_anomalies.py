"""Histories made by hand: each anomaly is found and bears its name, and what merely looks like one is let through."""

import threading

import pytest

from stm.testing._opacity import LONG_AGO, NEVER, RT, RW, WR, WW, Graph
from stm.testing._records import Log, Record
from stm.testing.history import History, NotOpaque

x0, y0 = ("x0", 0, None), ("y0", 0, None)


def cell(value, version):
    return (value, version, None)


def attempt(name, reads=(), writes=(), *, began=LONG_AGO, ended=NEVER, outcome="committed"):
    """A record. `reads` are pairs of variable and cell; `writes`, of variable, the cell before and the cell after."""
    record = Record(began, name, dict(reads), {variable: after[0] for variable, _, after in writes})
    record.ended = ended
    record.outcome = outcome
    if outcome == "committed" and writes:
        record.before = [before for _, before, _ in writes]
        record.after = [after for _, _, after in writes]
    return record


def history(*records):
    made = History()
    log = Log()
    log.records += records
    made._recorder.logs.append(log)
    return made


def verdict(*records):
    """The anomaly's name and the names in its cycle, and the kinds of edges."""
    with pytest.raises(NotOpaque) as caught:
        history(*records).check()
    error = caught.value
    assert str(error).startswith(f"not opaque: {error.anomaly}, ")
    return error.anomaly, [one.name for one in error.cycle], [kind for kind, _ in error.edges]


# Cycles


def test_g0_two_commits_overwrite_each_other():
    x1, y1, x2, y2 = cell("x1", 2), cell("y1", 4), cell("x2", 4), cell("y2", 2)
    one = attempt("one", writes=[("x", x0, x1), ("y", y2, y1)])
    two = attempt("two", writes=[("x", x1, x2), ("y", y0, y2)])
    assert verdict(one, two) == ("G0", ["one", "two"], ["ww", "ww"])


def test_g1c_two_commits_read_from_each_other():
    x1, y2 = cell("x1", 2), cell("y2", 4)
    one = attempt("one", [("y", y2)], [("x", x0, x1)])
    two = attempt("two", [("x", x1)], [("y", y0, y2)])
    assert verdict(one, two) == ("G1c", ["one", "two"], ["wr", "wr"])


def test_g1c_an_attempt_that_read_what_it_had_not_written_yet():
    x1 = cell("x1", 2)
    assert verdict(attempt("one", [("x", x1)], [("x", x0, x1)])) == ("G1c", ["one"], [])


@pytest.mark.parametrize("outcome", ["committed", "aborted", "retried", "raised"])
def test_g_single_a_reader_sees_half_of_a_commit_and_no_outcome_excuses_it(outcome):
    x1, y1 = cell("x1", 2), cell("y1", 2)
    write = attempt("write", writes=[("x", x0, x1), ("y", y0, y1)])
    look = attempt("look", [("x", x0), ("y", y1)], outcome=outcome)
    assert verdict(write, look) == ("G-single", ["write", "look"], ["wr", "rw"])


def test_g_single_a_lost_update():
    x1, x2 = cell("x1", 2), cell("x2", 4)
    one = attempt("one", [("x", x0)], [("x", x0, x1)])
    two = attempt("two", [("x", x0)], [("x", x1, x2)])
    assert verdict(one, two) == ("G-single", ["one", "two"], ["ww", "rw"])


def test_g2_write_skew():
    one = attempt("one", [("x", x0), ("y", y0)], [("x", x0, cell("x1", 2))])
    two = attempt("two", [("x", x0), ("y", y0)], [("y", y0, cell("y2", 4))])
    assert verdict(one, two) == ("G2", ["one", "two"], ["rw", "rw"])


def test_g2_two_readers_disagree_about_the_order_of_two_commits():
    x1, y2 = cell("x1", 2), cell("y2", 4)
    one, two = attempt("one", writes=[("x", x0, x1)]), attempt("two", writes=[("y", y0, y2)])
    first = attempt("first", [("x", x1), ("y", y0)])
    second = attempt("second", [("x", x0), ("y", y2)], outcome="aborted")
    assert verdict(one, two, first, second) == ("G2", ["one", "first", "two", "second"], ["wr", "rw", "wr", "rw"])


def test_a_stale_read_is_an_anomaly_only_in_real_time():
    write = attempt("write", writes=[("x", x0, cell("x1", 2))], began=1, ended=2)
    late = attempt("late", [("x", x0)], began=3, ended=4)
    assert verdict(write, late) == ("G-single-realtime", ["write", "late"], ["rt", "rw"])
    history(write, attempt("during", [("x", x0)], began=2, ended=4)).check()
    history(write, attempt("some time", [("x", x0)])).check()


def test_a_value_from_the_future():
    x1 = cell("x1", 2)
    early = attempt("early", [("x", x1)], began=1, ended=2)
    write = attempt("write", writes=[("x", x0, x1)], began=3, ended=4)
    assert verdict(early, write) == ("G1c-realtime", ["early", "write"], ["rt", "wr"])


def test_real_time_leads_through_any_number_of_attempts():
    write = attempt("write", writes=[("x", x0, cell("x1", 2))], began=1, ended=2)
    others = [attempt("other", began=3 * k, ended=3 * k + 1) for k in range(1, 50)]
    late = attempt("late", [("x", x0)], began=200, ended=201)
    assert verdict(write, *others, late) == ("G-single-realtime", ["write", "late"], ["rt", "rw"])


def test_the_shortest_cycle_is_told_and_the_one_of_the_simplest_kind():
    graph = Graph(6)
    for node in range(6):
        graph.add(node, (node + 1) % 6, WR, "ring")
    graph.add(4, 2, RW, "back")
    graph.add(1, 0, WW, "chord")
    assert graph.cycle().nodes == (0, 1)  # by wr and ww; the ring is longer, and the way back is an anti-dependency
    graph = Graph(4)
    graph.add(0, 1, WW, "x")
    graph.add(1, 2, WW, "x")
    graph.add(2, 0, WW, "x")
    graph.add(0, 3, RW, "x")
    graph.add(3, 0, WR, "x")
    assert graph.cycle().name == "G0"


def test_a_cycle_among_thousands():
    graph = Graph(5_000)
    for node in range(4_999):
        graph.add(node, node + 1, WR, None)
    graph.add_real_time((node, 10 * node, 10 * node + 15) for node in range(5_000))
    assert graph.cycle() is None
    graph.add(4_321, 4_310, RW, "x")
    found = graph.cycle()
    assert set(found.nodes) <= set(range(4_310, 4_322))
    assert found.name == "G-single"
    graph.add(4_000, 3_000, RT, None)
    assert graph.cycle().name == "G-single"


def test_what_looks_like_a_cycle_and_is_none():
    x1, y1, x2 = cell("x1", 2), cell("y1", 2), cell("x2", 4)
    history(
        attempt("write", [("x", x0), ("y", y0)], [("x", x0, x1), ("y", y0, y1)], began=1, ended=9),
        attempt("again", [("x", x1)], [("x", x1, x2)], began=2, ended=8),
        attempt("before", [("x", x0), ("y", y0)], began=3, ended=7),
        attempt("between", [("x", x1), ("y", y1)], began=3, ended=7, outcome="aborted"),
        attempt("after", [("x", x2), ("y", y1)], began=3, ended=7, outcome="raised"),
    ).check()


# What is wrong by itself


def test_g1a_a_value_of_an_attempt_that_did_not_commit():
    failed = attempt("failed", writes=[("x", x0, cell("x1", 2))], outcome="aborted")
    look = attempt("look", [("x", cell("x1", 2))])
    assert verdict(failed, look) == ("G1a", ["look", "failed"], [])


def test_g1a_a_value_of_nobody():
    assert verdict(attempt("look", [("x", cell("x1", 2))])) == ("G1a", ["look"], [])


def test_a_dirty_write():
    assert verdict(attempt("write", [], [("x", cell("x1", 2), cell("x2", 4))])) == ("dirty write", ["write"], [])


def test_two_commits_that_replaced_the_same_version():
    one = attempt("one", writes=[("x", x0, cell("x1", 2))])
    two = attempt("two", writes=[("x", x0, cell("x2", 4))])
    assert verdict(one, two) == ("lost version", ["one", "two"], [])


def test_two_values_at_the_beginning():
    one, two = attempt("one", [("x", x0)]), attempt("two", [("x", cell("other", 0))])
    assert verdict(one, two) == ("two beginnings", ["two"], [])


def test_versions_that_do_not_fit():
    one = attempt("one", writes=[("x", x0, cell("x1", 2))])
    two = attempt("two", writes=[("y", y0, cell("y2", 2))])
    assert verdict(one, two) == ("version", ["one", "two"], [])
    torn = attempt("torn", writes=[("x", x0, cell("x1", 2)), ("y", y0, cell("y1", 4))])
    assert verdict(torn) == ("version", ["torn"], [])
    x1 = cell("x1", 4)
    back = attempt("back", writes=[("x", x1, cell("x2", 2))])
    assert verdict(attempt("one", writes=[("x", x0, x1)]), back) == ("version", ["back"], [])


def test_a_commit_of_which_nobody_knows_counts_if_its_value_was_seen():
    value = object()
    x1 = cell(value, 2)
    unknown = attempt("unknown", [("y", y0)], [("x", x0, x1)], outcome="unknown")
    look = attempt("look", [("x", x1), ("y", y0)])
    history(unknown, look).check()
    write = attempt("write", writes=[("y", y0, cell("y1", 4))], began=1, ended=2)
    late = attempt("late", [("x", x1)], began=3, ended=4)
    history(unknown, write, late).check()
    stale = attempt("stale", [("x", x0)], [("z", cell("z", 0), cell("z1", 6))])
    told = attempt("told", [("x", x1)], began=1, ended=2)
    history(unknown, told, stale).check()
    stale.began, stale.ended = 3, 4
    assert verdict(unknown, told, stale) == ("G-single-realtime", ["unknown", "told", "stale"], ["wr", "rt", "rw"])


def test_a_commit_that_was_interrupted_by_another_one_is_placed_by_its_number():
    x1, x2, y2 = cell("x1", 2), cell("x2", 4), cell("y2", 4)
    one, two = attempt("one", writes=[("x", x0, x1)]), attempt("two", writes=[("x", x1, x2), ("y", y0, y2)])
    two.before = None
    history(one, two, attempt("look", [("x", x1), ("y", y0)])).check()
    assert verdict(one, two, attempt("look", [("x", x1), ("y", y2)])) == ("G-single", ["two", "look"], ["wr", "rw"])
    assert verdict(attempt("one", [("y", y2)], [("x", x0, x1)]), two) == ("G1c", ["one", "two"], ["ww", "wr"])


def test_the_message_shows_who_read_and_wrote_what():
    x1, y1 = cell("x1", 2), cell("y1", 2)
    write = attempt("write", writes=[("x", x0, x1), ("y", y0, y1)])
    look = attempt("look", [("x", x0), ("y", y1)], outcome="aborted")
    with pytest.raises(NotOpaque) as caught:
        history(write, look).check()
    name = threading.current_thread().name
    assert str(caught.value) == (
        "not opaque: G-single, one attempt missed a write of a history that it otherwise saw: read skew, or a lost "
        "update\n"
        f"  1. 'write' in {name}, committed\n"
        "      wrote 'x' = 'x1' (version 2)\n"
        "      wrote 'y' = 'y1' (version 2)\n"
        "      -wr-> 2: it wrote 'y' = 'y1', which 2 read\n"
        f"  2. 'look' in {name}, aborted\n"
        "      read  'x' = 'x0' (version 0)\n"
        "      read  'y' = 'y1' (version 2)\n"
        "      -rw-> 1: it read 'x' = 'x0', which 1 replaced\n"
        "  An attempt that did not commit must not see this either."
    )


# Told by values


def tell(*attempts):
    told = History()
    for number, (reads, writes, *more) in enumerate(attempts):
        told.record(reads=reads, writes=writes, name=str(number), **(more[0] if more else {}))
    return told


def told_verdict(*attempts):
    with pytest.raises(NotOpaque) as caught:
        tell(*attempts).check()
    return caught.value.anomaly, [one.name for one in caught.value.cycle]


def test_values_that_fit():
    tell(({"x": 0}, {"x": 1}), ({"x": 1}, {"x": 2}), ({"x": 0}, {}), ({"x": 2, "y": 0}, {}), ({}, {"y": 7})).check()


def test_values_read_skew():
    assert told_verdict(({"x": 0, "y": 0}, {"x": 1, "y": 1}), ({"x": 1, "y": 0}, {})) == ("G-single", ["0", "1"])


def test_values_lost_update():
    assert told_verdict(({"x": 0}, {"x": 1}), ({"x": 0}, {"x": 2})) == ("G2", ["0", "1"])


def test_values_circular_information():
    assert told_verdict(({"x": 1}, {"y": 2}), ({"y": 2}, {"x": 1})) == ("G1c", ["0", "1"])


def test_values_a_write_by_who_had_not_read_comes_after_the_beginning():
    assert told_verdict(({}, {"x": 1, "y": 1}), ({"x": 0, "y": 1}, {}), ({"x": 0}, {})) == ("G-single", ["0", "1"])


def test_values_in_real_time():
    early, late = {"began": 1, "ended": 2}, {"began": 3, "ended": 4}
    assert told_verdict(({}, {"x": 1}, early), ({"x": 0}, {}, late))[0] == "G-single-realtime"
    tell(({}, {"x": 1}, late), ({"x": 0}, {}, early)).check()


def test_values_of_attempts_that_did_not_commit():
    aborted, unknown = {"outcome": "aborted"}, {"outcome": "unknown"}
    assert told_verdict(({"x": 0}, {"x": 1}, aborted), ({"x": 1}, {})) == ("G1a", ["1", "0"])
    tell(({"x": 0}, {"x": 1}, aborted), ({"x": 0}, {"x": 2})).check()
    tell(({"x": 0}, {"x": 1}, unknown), ({"x": 0}, {"x": 2})).check()
    assert told_verdict(({"x": 0}, {"x": 1}, unknown), ({"x": 0}, {"x": 2}), ({"x": 1}, {}))[0] == "G2"


def test_values_that_an_attempt_wrote_itself_say_nothing():
    tell(({"x": 1}, {"x": 1}), ({"x": 1}, {"x": 2}), ({"x": 0}, {})).check()


def test_values_of_nobody():
    assert told_verdict(({"x": 0}, {}), ({"x": 9}, {}))[0] == "G1a"


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"reads": [1]}, TypeError, "reads"),
        ({"writes": "x"}, TypeError, "writes"),
        ({"reads": {"x": []}}, TypeError, "unhashable"),
        ({"outcome": "lost"}, ValueError, "outcome"),
        ({"began": 1.5}, TypeError, "began"),
        ({"began": 5, "ended": 4}, ValueError, "ended"),
        ({"writes": {"x": 1}}, ValueError, "unique"),
    ],
)
def test_bad_records(arguments, error, words):
    told = History()
    told.record(writes={"x": 1})
    with pytest.raises(error, match=words):
        told.record(**arguments)
