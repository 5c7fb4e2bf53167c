"""`examples/santa_claus.py`: groups are whole and never mixed, the reindeer go first, and the checks can fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from examples import santa_claus as program
from examples.santa_claus import REINDEER, Broken, Queue, Workshop, WorkshopClosed
from tests.support import Background, asleep

ELVES = [f"elf {number}" for number in range(7)]


def gather(queue: Queue, names: Any) -> None:
    for name in names:
        queue.join(name)


def test_groups_are_whole_and_all_counts_agree() -> None:
    workshop = Workshop()
    groups = program.play(workshop, 3, ELVES, 4)
    assert program.faults(workshop, groups) == []
    kinds = [group.kind for group in groups]
    assert kinds.count("reindeer") == 3
    assert kinds[-1] == "reindeer"
    assert kinds.count("elves") >= 12
    assert all(workshop.visits[name] == 3 for name in REINDEER)
    assert workshop.study.value == ()


def test_without_holidays_the_reindeer_do_not_mix_with_the_elves_either() -> None:
    workshop = Workshop()
    groups = program.play(workshop, 5, ELVES, 0)
    assert program.faults(workshop, groups) == []


def test_if_both_wait_the_reindeer_go_first() -> None:
    workshop = Workshop()
    gather(workshop.elves, "abc")
    gather(workshop.reindeer, REINDEER)
    assert workshop.next_group().members == REINDEER
    assert workshop.next_group().members == ("a", "b", "c")


def test_santa_sleeps_until_a_group_is_complete() -> None:
    workshop = Workshop()
    gather(workshop.elves, "ab")
    gather(workshop.reindeer, REINDEER[:8])
    santa = Background(workshop.next_group)
    asleep()
    workshop.elves.join("c")
    assert santa.result().members == ("a", "b", "c")


def test_a_fourth_elf_does_not_slip_in() -> None:
    workshop = Workshop()
    gather(workshop.elves, "abc")
    fourth = Background(workshop.elves.join, "d")
    asleep()
    first = workshop.next_group()
    assert first.members == ("a", "b", "c")
    assert fourth.result().members == ("d",)
    assert fourth.result().entry is not first.entry


def test_nobody_passes_a_gate_before_santa_opens_it_and_santa_waits_until_all_are_through() -> None:
    workshop = Workshop(elves=2)
    visits = [Background(workshop.visit, workshop.elves, name) for name in "ab"]
    asleep(2)
    group = workshop.next_group()
    assert workshop.study.value == ()
    santa = Background(workshop.receive, group)
    for background in (santa, *visits):
        background.result()
    assert workshop.study.value == ()
    assert dict(workshop.visits) == {"a": 1, "b": 1}

    group = program.Group.empty("elves", 1)
    santa = Background(workshop._operate, group, group.entry)
    asleep()
    group.entry.acquire()
    santa.result()


def test_closing_sends_all_home() -> None:
    workshop = Workshop()
    gather(workshop.elves, "abc")
    waiting = [
        Background(workshop.visit, workshop.elves, "d"),  # for room
        Background(workshop.visit, workshop.reindeer, "Rudolph"),  # at a gate
        Background(workshop.holidays, 0, 1),
    ]
    asleep(3)
    workshop.closed.set()
    for each in waiting:
        with pytest.raises(WorkshopClosed):
            each.result()


def swap_the_alternatives(monkeypatch: pytest.MonkeyPatch) -> str:
    honest = program.or_else
    monkeypatch.setattr(program, "or_else", lambda first, second: honest(second, first))
    return "Santa turned to the elves although all reindeer were back"


def test_the_wrong_choice_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    workshop = Workshop()
    gather(workshop.elves, "abc")
    gather(workshop.reindeer, REINDEER)
    told = swap_the_alternatives(monkeypatch)
    with pytest.raises(Broken, match=told):
        workshop.next_group()


def test_one_too_many_in_the_study_is_noticed() -> None:
    workshop = Workshop()
    group = program.Group.empty("elves", 3)
    group.entry.release(3)
    workshop.study.value = ("a", "b", "Rudolph")
    with pytest.raises(Broken, match="c enters the study as one of 3"):
        workshop.unless_closed(lambda: workshop._enter(group, "c"))
    assert workshop.study.value == ("a", "b", "Rudolph")
    assert group.entry.value == 3


def mix(group: program.Group) -> program.Group:
    return program.replace(group, members=("Rudolph", *group.members[1:]))


def lessen(group: program.Group) -> program.Group:
    return program.replace(group, members=group.members[1:])


@pytest.mark.parametrize("spoil", [mix, lessen])
def test_the_check_finds_a_spoilt_group(spoil: Callable[[program.Group], program.Group]) -> None:
    workshop = Workshop()
    groups = program.play(workshop, 1, ELVES, 1)
    groups[0] = spoil(groups[0])
    wrong = program.faults(workshop, groups)
    assert len(wrong) == 2
    assert wrong[0].startswith("a group of 3 elves had the members")


def test_when_one_fails_all_go_home_and_the_error_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    workshop = Workshop()
    honest = workshop.visit

    def visit(queue: Queue, name: str) -> None:
        if name == "elf 3" and workshop.consultations.value > 2:
            raise ZeroDivisionError("an elf is ill")
        honest(queue, name)

    monkeypatch.setattr(workshop, "visit", visit)
    with pytest.raises(ZeroDivisionError):
        program.play(workshop, 1_000_000, ELVES[:4], 1)


def test_what_is_broken_is_printed_and_ends_with_code_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = program.play

    def careless(workshop: Workshop, *rest: Any) -> list[program.Group]:
        return honest(workshop, *rest)[1:]

    monkeypatch.setattr(program, "play", careless)
    assert program.main(["--christmases", "1", "--consultations", "1"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("BROKEN: Santa saw ")
    monkeypatch.setattr(program.Queue, "complete", True)
    monkeypatch.setattr(program, "play", honest)
    assert program.main(["--christmases", "1"]) == 1
    assert capsys.readouterr().out == "BROKEN: Santa turned to the elves although all reindeer were back\n"
