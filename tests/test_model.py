"""The model of the protocol (`model/`): it stands for the code as it is, it holds, and it can fail.

What needs spin is skipped where that is not installed. The rest: `python -m model` and `python -m model --mutants`.
"""

import doctest
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from model import __main__ as command
from model import checking, configurations, fingerprints
from model.checking import Answer, CheckFailed, check, missing, read_answer
from model.configurations import CONFIGURATIONS, MUTANTS

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "model"
SOURCES = {file.name: file.read_text(encoding="utf-8") for file in MODEL.glob("*.pml")}

needs_spin = pytest.mark.skipif(missing() is not None, reason=missing() or "")


# The model stands for the code as it is


def test_the_code_that_the_model_stands_for_has_not_changed_unseen():
    changes = "\n".join(map(str, fingerprints.changed()))
    assert not changes, (
        f"{changes}\nCompare the model with the code, mend it if they differ, check it (python -m model), and then put "
        "the new fingerprints on record: python -m model --accept"
    )


def test_the_table_knows_every_part_of_the_model_and_no_others():
    defined = {
        f"{file} {name}"
        for file, source in SOURCES.items()
        if not file.startswith("run_")
        for name in re.findall(r"^(?:inline|proctype) (\w+)", source, re.MULTILINE)
    }
    assert set(fingerprints.table()) == defined | {"memory.pml LOAD"}


def a_copy_of_the_code(folder, change):
    shutil.copytree(ROOT / "stm", folder / "stm", ignore=shutil.ignore_patterns("__pycache__"))
    file, old, new = change
    source = (folder / file).read_text(encoding="utf-8")
    assert old in source
    (folder / file).write_text(source.replace(old, new, 1), encoding="utf-8")


def test_a_changed_function_is_named_with_the_parts_that_stand_for_it(tmp_path):
    a_copy_of_the_code(tmp_path, ("stm/snapshot.py", "if newest < first:", "if newest <= first:"))
    (change,) = fingerprints.changed(root=tmp_path)
    assert str(change) == "stm.snapshot:link has changed; look at snapshots.pml link in model/"


def test_a_changed_comment_or_docstring_is_no_change(tmp_path):
    a_copy_of_the_code(tmp_path, ("stm/snapshot.py", "# kept for as long", "# there for as long"))
    a_docstring = ("stm/clock.py", "Recompute `clock.quiet`.", "Find out whether the clock is quiet.")
    source = (tmp_path / a_docstring[0]).read_text(encoding="utf-8")
    assert a_docstring[1] in source
    (tmp_path / a_docstring[0]).write_text(source.replace(*a_docstring[1:]), encoding="utf-8")
    assert fingerprints.changed(root=tmp_path) == []


def test_a_function_that_is_gone_is_an_error_that_names_it(tmp_path):
    a_copy_of_the_code(tmp_path, ("stm/snapshot.py", "def cell_at(", "def cell_of("))
    with pytest.raises(LookupError, match=r"stm\.snapshot:cell_at: there is no cell_at any more"):
        fingerprints.changed(root=tmp_path)


def test_accepting_puts_the_present_fingerprints_on_record_and_keeps_the_rest(tmp_path):
    a_copy_of_the_code(tmp_path, ("stm/snapshot.py", "if newest < first:", "if newest <= first:"))
    record = tmp_path / "table.toml"
    shutil.copy(fingerprints.TABLE, record)
    assert fingerprints.accept(record, tmp_path) == 1
    assert fingerprints.changed(record, tmp_path) == []
    assert [change.function for change in fingerprints.changed(record)] == ["stm.snapshot:link"]
    lines = record.read_text(encoding="utf-8").splitlines()
    before = fingerprints.TABLE.read_text(encoding="utf-8").splitlines()
    assert [old for old, new in zip(before, lines, strict=True) if old != new] == [
        line for line in before if line.startswith('"stm.snapshot:link"')
    ]


SAMPLE = '''
def f(x):
    """What it does."""
    if x:
        g(f"{x!r:>{x}} and {{x}}")
        h()
'''


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ('    """What it does."""\n', "", True),
        ("h()", "h()  # why", True),
        ("    if x:", "\n    if (  # so\n        x\n    ):", False),
        ("        h()", "    h()", False),
        ("{x!r", "{x!s", False),
        ("and {{x}}", "and  {{x}}", False),
        ("f(x)", "f(x, y)", False),
    ],
)
def test_a_fingerprint_minds_tokens_alone(old, new, same):
    assert old in SAMPLE
    changed = fingerprints.fingerprint(SAMPLE.lstrip().replace(old, new))
    assert (changed == fingerprints.fingerprint(SAMPLE.lstrip())) is same


def test_a_fingerprint_is_the_same_in_every_version_of_python():
    assert fingerprints.fingerprint(SAMPLE.lstrip()) == "6ae60f7b64bdd768"


@pytest.mark.parametrize("module", [checking, configurations, fingerprints])
def test_what_the_modules_say_of_themselves(module):
    assert doctest.testmod(module) == (0, len(re.findall(r"^>>> ", module.__doc__, re.MULTILINE)))


# It holds, and it can fail


def test_every_mutant_is_in_the_model_and_every_defect_in_the_model_is_a_mutant():
    named = set(re.findall(r"\bM_\w+", "\n".join(SOURCES.values())))
    assert named == {mutant.define for mutant in MUTANTS.values()}
    assert {mutant.configuration for mutant in MUTANTS.values()} <= set(CONFIGURATIONS)
    assert {configuration.scenario for configuration in CONFIGURATIONS.values()} <= set(SOURCES)


@needs_spin
@pytest.mark.parametrize("name", ["waiting for one of two", "waiting ends"])
def test_the_model_holds(name):
    answer = check(CONFIGURATIONS[name], trail=True, brief=True)
    assert answer.error is None, answer.trail
    assert answer.states > 10_000


@needs_spin
@pytest.mark.parametrize("name", [mutant.name for mutant in MUTANTS.values() if mutant.quick])
def test_a_protection_taken_away_is_missed(name):
    mutant = MUTANTS[name]
    assert check(CONFIGURATIONS[mutant.configuration], mutant.define, brief=True).error is not None


@needs_spin
def test_what_spin_refuses_is_an_error_and_no_success():
    with pytest.raises(CheckFailed, match="run_objects.pml says"):
        check(CONFIGURATIONS["objects"], "ROUNDS=oops")


# The command


def test_a_failure_is_told_and_is_the_exit_status(monkeypatch, capsys):
    answers = iter([Answer(10, 5, None), Answer(7, 3, "assertion violated (x == y)"), Answer(1, 1, None)])
    monkeypatch.setattr(command, "missing", lambda: None)
    monkeypatch.setattr(command, "check", lambda *_, **__: next(answers))
    assert command.main(["objects", "elements", "version after value"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "holds: each value read" in lines[1]
    assert "FAILS: assertion violated (x == y)" in lines[2]
    assert lines[3].endswith("NOT FOUND")


def test_that_all_is_well_is_told_too(monkeypatch, capsys):
    monkeypatch.setattr(command, "missing", lambda: None)
    monkeypatch.setattr(command, "check", lambda *_, **__: Answer(10, 5, None))
    assert command.main([]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + sum(not one.large for one in CONFIGURATIONS.values())


def test_without_spin_nothing_is_checked_and_that_is_said(monkeypatch, capsys):
    monkeypatch.setattr(checking.shutil, "which", lambda name: None)
    assert command.main([]) == 0
    assert capsys.readouterr().out.startswith("Nothing was checked: spin is not installed")
    monkeypatch.setattr(checking.shutil, "which", lambda name: "/bin/spin" if name == "spin" else None)
    assert command.main(["--mutants"]) == 0
    assert "there is no C compiler" in capsys.readouterr().out


def test_a_name_that_is_none_is_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main(["nonsense"])
    assert stopped.value.code == 2
    assert "'nonsense'; --list shows what there is" in capsys.readouterr().err


def test_the_list_has_everything(capsys):
    assert command.main(["--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(CONFIGURATIONS) + len(MUTANTS)


FINISHED = "State-vector 80 byte, depth reached 25, errors: {errors}\n   828372 states, stored\n"


def test_an_answer_is_read():
    assert read_answer(FINISHED.format(errors=0)) == Answer(828372, 25, None)
    found = read_answer("pan:1: invalid end state (at depth 9)\n" + FINISHED.format(errors=1))
    assert found.error == "invalid end state (at depth 9)"


@pytest.mark.parametrize(
    "output",
    [
        "",
        "error: max search depth too small\n" + FINISHED.format(errors=0),
        "pan: reached -DMEMLIM bound\n" + FINISHED.format(errors=0),
        "pan:1: assertion violated - invalid array index (at depth 1)\n" + FINISHED.format(errors=1),
    ],
)
def test_a_search_cut_short_is_no_answer(output):
    with pytest.raises(CheckFailed):
        read_answer(output)


@needs_spin
def test_no_time_is_no_answer():
    with pytest.raises(subprocess.TimeoutExpired):
        check(CONFIGURATIONS["full"], seconds=0.01, brief=True)


# The page


def test_the_page_names_every_configuration_and_every_mutant():
    page = (ROOT / "docs" / "model.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("|")]
    counted = [row[0] for row in rows if len(row) == 3 and row[1].replace(",", "").isdigit()]
    assert counted == [configuration.name for configuration in CONFIGURATIONS.values()]
    broken = {(name, row[0]) for row in rows if len(row) == 2 for name in row[1].split("; ")}
    assert broken - {("without", "in"), ("---", "---")} == {
        (mutant.name, mutant.configuration) for mutant in MUTANTS.values()
    }
