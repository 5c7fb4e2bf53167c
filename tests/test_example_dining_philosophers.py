"""`examples/dining_philosophers.py`: never two neighbours, nobody starves, and the checks notice if they do."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from examples import dining_philosophers as program
from examples.dining_philosophers import EATING, HUNGRY, Broken, Diner, DinnerOver, Table
from tests.support import Background, asleep


def table_of(size: int, courteous: bool = True) -> Table:
    return Table([f"p{seat}" for seat in range(size)], courteous=courteous)


class Watched(Table):
    """Keeps its own books of who eats, by other means than transactions."""

    def __init__(self, size: int, courteous: bool) -> None:
        super().__init__([f"p{seat}" for seat in range(size)], courteous=courteous)
        self.lock = threading.Lock()
        self.eating: set[int] = set()
        self.side_by_side = 0

    def begin(self, seat: int) -> None:
        super().begin(seat)
        with self.lock:
            beside = {(seat - 1) % len(self.diners), (seat + 1) % len(self.diners)}
            self.side_by_side += bool(self.eating & beside)
            self.eating.add(seat)

    def end(self, seat: int, then: str = HUNGRY) -> None:
        with self.lock:
            self.eating.discard(seat)
        super().end(seat, then)


@pytest.mark.parametrize("courteous", [True, False])
@pytest.mark.parametrize("size", [2, 3, 5, 8])
def test_all_eat_and_never_two_neighbours(size: int, courteous: bool) -> None:
    table = Watched(size, courteous)
    dinner = program.dine(table, 60)
    assert [diner.meals for diner in dinner.diners] == [60] * size
    assert table.side_by_side == 0
    assert not table.eating
    assert dinner.pictures > 0


@pytest.mark.parametrize("size", [2, 5])
def test_nobody_is_overtaken_twice_by_the_same_neighbour(size: int) -> None:
    dinner = program.dine(table_of(size), 100)
    assert max(diner.worst for diner in dinner.diners) <= 1


def test_with_time_to_think_and_to_eat() -> None:
    dinner = program.dine(table_of(5), 5, thinking=0.0005, eating=0.0005)
    assert [diner.meals for diner in dinner.diners] == [5] * 5


def test_who_waits_for_one_fork_leaves_the_other_on_the_table() -> None:
    table = table_of(5, courteous=False)
    table.begin(0)
    waiting = Background(table.begin, 1)
    asleep()
    assert [fork.is_empty() for fork in table.forks] == [True, True, False, False, False]
    table.begin(2)  # which needs the fork that 1 might have taken
    table.end(2, program.GONE)
    table.end(0, program.GONE)
    waiting.result()


def test_who_has_eaten_gives_way_to_a_hungry_neighbour() -> None:
    table = table_of(3)
    table.begin(0)
    table.end(0)
    waiting = Background(table.begin, 0)
    asleep()  # although both forks are there
    table.begin(1)
    table.end(1)
    asleep()  # for 2, which has not eaten yet
    table.begin(2)
    table.end(2)
    waiting.result()
    assert table.diners[0].value.worst == 1


def test_who_is_rude_does_not_give_way() -> None:
    table = table_of(3, courteous=False)
    for _ in range(4):
        table.begin(0)
        table.end(0)
    assert table.diners[1].value.overtaken == (4, 0)
    assert table.diners[2].value.overtaken == (0, 4)


def test_the_transactions_notice_what_is_broken() -> None:
    table = table_of(4)
    table.diners[1].value = replace(table.diners[1].value, doing=EATING)  # with no fork
    with pytest.raises(Broken, match="p0 would eat beside p1, who eats"):
        table.begin(0)
    with pytest.raises(Broken, match="0 forks are in use by 1 who eat"):
        table.next_picture()
    with pytest.raises(Broken, match="lies on the table while p1 eats with it"):
        table.end(1)
    table.diners[2].value = replace(table.diners[2].value, doing=EATING)
    with pytest.raises(Broken, match="p1 and p2 eat side by side"):
        table.next_picture()
    other = table_of(3)
    other.diners[1].value = replace(other.diners[1].value, overtaken=(1, 0))
    with pytest.raises(Broken, match="p1 was overtaken twice"):
        other.begin(0)


def test_when_one_fails_the_others_go_and_the_error_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    table = table_of(5)
    honest = table.end

    def end(seat: int, then: str) -> None:
        if seat == 3 and table.diners[seat].value.meals == 10:
            raise ZeroDivisionError("with both forks in hand")
        honest(seat, then)

    monkeypatch.setattr(table, "end", end)
    with pytest.raises(ZeroDivisionError):
        program.dine(table, 10_000_000)
    with pytest.raises(DinnerOver):
        table.begin(0)


def test_what_is_broken_is_printed_and_ends_with_code_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "Diner", lambda name: Diner(name, doing=EATING))
    assert program.main(["--meals", "3"]) == 1
    assert capsys.readouterr().out == "BROKEN: Russell and Aristotle eat side by side\n"


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ValueError, match="it takes two philosophers at least, not 1"):
        table_of(1)
    table = table_of(2)
    with pytest.raises(ValueError, match="p0 is hungry, not eating"):
        table.end(0)
    table.begin(0)
    with pytest.raises(ValueError, match="p0 is eating, not hungry"):
        table.begin(0)
