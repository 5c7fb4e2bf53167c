"""The soak itself: a short one finds nothing, and what is wrong it finds."""

import os
import re
import sys

import numpy as np
import pytest

import tests.soak.__main__ as soak
from stm.testing import History
from tests.soak import memory
from tests.soak.elements import Floor
from tests.soak.trouble import Alarm, Struck
from tests.soak.variables import KEYS, UNITS, Bank


# (A signal may strike in a callback, where CPython can but report its exception.)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_short_soak_finds_nothing_wrong(capsys):
    assert soak.main(["--minutes", "0.02", "--seed", "1"]) == 0
    printed = capsys.readouterr()
    assert not printed.err
    assert re.fullmatch(
        r"0\.0 min on .* seed 1: [\d,]+ transactions .* [1-9]\d* rounds; .*; 0 violations\n", printed.out
    )


def test_it_ends_at_the_first_violation(capsys, monkeypatch):
    monkeypatch.setattr(soak.Soak, "round", lambda self, seconds: self.figures.wrong.append("a unit was lost"))
    assert soak.main(["--minutes", "5"]) == 1
    printed = capsys.readouterr()
    assert printed.err.splitlines()[0] == "a unit was lost"
    assert "0 violations" not in printed.out


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "ten"])
def test_a_time_that_is_none_is_refused(minutes, capsys):
    with pytest.raises(SystemExit, match="2"):
        soak.main(["--minutes", minutes])
    assert "--minutes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda bank: bank.accounts[3].update(lambda units: units - 1), "saw 2399 units instead of 2400"),
        (lambda bank: bank.shelf.pop(2), f"units on the shelf: {(KEYS - 1) * UNITS}, and should be {KEYS * UNITS}"),
        (lambda bank: bank.belt.put(1), "items on the belt: 1, and should be 0"),
        (lambda bank: bank.heap.put(1), "items on the heap: 1, and should be 0"),
        (lambda bank: bank.told.append(None), "moves that were told of: 1, and should be 0"),
        (lambda bank: bank.pair[0].set(1), "the second of a pair: 0, and should be 1"),
    ],
)
def test_what_is_wrong_with_variables_is_noticed(damage, complaint):
    bank = Bank()
    bank.close()
    assert not bank.wrong
    damage(bank)
    bank.close()
    assert [wrong for wrong in bank.wrong if complaint in wrong]


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda floor: floor.units.__setitem__(0, 0), "199900 units in elements instead of 200000"),
        (lambda floor: floor.pair.__setitem__(0, 1), "a pair of elements was seen apart"),
        (lambda floor: floor.torn.__setitem__(0, 1), "a pair of elements was seen apart 1 times"),
        (lambda floor: floor.purse.set(1), "1 in the purse"),
    ],
)
def test_what_is_wrong_with_elements_is_noticed(damage, complaint):
    floor = Floor()
    floor.close()
    assert not floor.wrong
    damage(floor)
    floor.close()
    assert [wrong for wrong in floor.wrong if complaint in wrong]


def test_rows_that_no_order_explains_are_noticed():
    course, history = soak.Soak(1), History()
    course.floor.tag(history, np.random.default_rng(1), 1)
    course.check(history)
    assert not course.figures.wrong
    same = np.array([1, 1])
    history.record_rows(reads=(same, np.array([5, 5])), writes=(same, np.array([6, 7])))
    course.check(history)
    assert "not opaque" in course.figures.wrong[0]


def test_a_signal_ends_the_call_that_it_strikes_and_nothing_else():
    alarm = Alarm()

    def struck():
        alarm._handle(0, None)

    assert not alarm.disturb(struck)
    assert alarm.disturb(lambda: None)
    alarm._handle(0, None)
    assert alarm.struck == 1
    with pytest.raises(ZeroDivisionError):
        alarm.disturb(lambda: 1 / 0)
    assert issubclass(Struck, BaseException)
    assert not issubclass(Struck, Exception)


def test_growth_is_told_from_the_first_minute_to_the_last():
    sizes = [(float(second), 200_000_000 + second * 100_000, 1_000 + second) for second in range(0, 601, 10)]
    figures = soak.Figures(sizes=sizes, rounds=len(sizes))
    assert soak.growth(figures, 600.0, 1) == (203_000_000, 257_000_000)
    assert soak.growth(figures, 600.0, 2) == (1_030, 1_570)
    printed = soak.line(figures, 600.0, 1)
    assert "memory 203 MB, then 257 (+26.6%), 1,030 blocks of it objects', then 1,570 (+52.4%); 0 violations" in printed


def test_what_is_in_use_is_told_in_bytes_where_python_counts_no_blocks(monkeypatch):
    monkeypatch.setattr(memory, "is_counted", lambda: False)
    figures = soak.Figures(sizes=[(0.0, 200_000_000, 50_000_000), (90.0, 202_000_000, 51_000_000)], rounds=2)
    assert "memory 200 MB, then 202 (+1.0%), 50.0 MB of it in use, then 51.0 (+2.0%); 0" in soak.line(figures, 90.0, 1)


@pytest.mark.skipif(
    not memory.has_gil() or not hasattr(memory._libc, "mallinfo2"), reason="the GNU library alone tells what is in use"
)
def test_bytes_in_use_are_those_that_were_asked_for_and_not_given_back():
    before = memory._bytes_in_use()
    block = bytearray(50_000_000)
    assert 50_000_000 <= memory._bytes_in_use() - before < 51_000_000
    del block
    assert memory._bytes_in_use() - before < 1_000_000


def test_a_soak_begins_anew_under_another_allocator_once(monkeypatch):
    begun = []
    monkeypatch.setattr(os, "execv", lambda program, arguments: begun.append((program, arguments)))
    monkeypatch.setattr(os, "environ", {})
    for _ in range(2):
        memory.plainly(["--minutes", "1"])
    again = [(sys.executable, [sys.executable, "-m", "tests.soak", "--minutes", "1"])]
    assert begun == (again if memory.has_gil() else [])
