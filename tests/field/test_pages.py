"""The pages under `docs/field/` and the tests in this folder agree, so that neither promises what the other has not.

A page has tables under headings that begin with "Answered" (a case, and the tests that answer it) and "Not applicable"
(a case, and why). `python -m tests.field.test_pages` brings the counts in `docs/field/index.md` up to date.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

HERE = Path(__file__).parent
INDEX = HERE.parent.parent / "docs" / "field" / "index.md"
SUITES = [page for page in sorted(INDEX.parent.glob("*.md")) if page != INDEX]

#: A test, by its file under `tests/` (or in this folder, if only the name is given), and its name.
TEST = re.compile(r"`(?:tests/)?((?:\w+/)*test_\w+\.py::\w+(?:::\w+)*)(?:\[[^`]*\])?`")
#: "Suite, file: what it is about."
CITATION = re.compile(r"\w[^,:.]*, \S.*?[:.]( \S|$)")
#: So begins the docstring of a test of the tests, which answers nobody's case.
OUR_OWN = "Not a case of theirs"


class Row(NamedTuple):
    """A row of a table: on which page, under which heading, which case, and what is said of it."""

    page: str
    heading: str
    case: str
    answer: str

    @property
    def tests(self) -> list[str]:
        return [name if "/" in name else f"field/{name}" for name in TEST.findall(self.answer)]


def rows_of(page: Path) -> Iterator[Row]:
    heading = ""
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            heading = line.strip("# ")
        elif line.startswith("|") and not re.fullmatch(r"[|\s:-]+", line):
            case, answer = (cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("| ")))
            if case.lower() != "case":
                yield Row(page.name, heading, case, answer)


ROWS = [row for page in SUITES for row in rows_of(page)]
ANSWERED = [row for row in ROWS if row.heading.startswith("Answered")]
NOT_APPLICABLE = [row for row in ROWS if row.heading.startswith("Not applicable")]


def functions_of(file: Path) -> Iterator[tuple[str, str]]:
    """The names of a file's tests, as the pages write them, with their docstrings."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    scopes = [("", tree.body), *((f"{node.name}::", node.body) for node in tree.body if isinstance(node, ast.ClassDef))]
    for prefix, body in scopes:
        for node in body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test"):
                name = f"{file.relative_to(HERE.parent).as_posix()}::{prefix}{node.name}"
                yield name, " ".join((ast.get_docstring(node) or "").split())


FUNCTIONS = {
    name: docstring
    for file in sorted(HERE.glob("test_*.py"))
    if file.name != Path(__file__).name
    for name, docstring in functions_of(file)
    if not docstring.startswith(OUR_OWN)
}


def counts() -> str:
    """The table for the index: of each page, how many cases are answered, by how many tests, and what is left out."""
    lines = ["| Page | Cases answered | by tests | Not applicable (cases or groups) |", "| --- | ---: | ---: | ---: |"]
    total = [0, 0, 0]
    for page in SUITES:
        title = page.read_text(encoding="utf-8").split("\n", 1)[0].strip("# ")
        answered = [row for row in ANSWERED if row.page == page.name]
        numbers = [
            len({(row.heading, row.case) for row in answered}),
            len({test for row in answered for test in row.tests}),
            sum(row.page == page.name for row in NOT_APPLICABLE),
        ]
        total = [one + other for one, other in zip(total, numbers, strict=True)]
        lines.append(f"| [{title}]({page.name}) | {' | '.join(map(str, numbers))} |")
    lines.append(f"| All | {' | '.join(map(str, total))} |")
    return "\n".join(lines)


def test_every_row_stands_in_a_table_that_is_checked():
    assert [row for row in ROWS if row not in ANSWERED and row not in NOT_APPLICABLE] == []
    assert [row for row in ROWS if not row.case or not row.answer] == []


def test_every_answer_names_tests_that_exist():
    assert [row for row in ANSWERED if not row.tests] == []
    named = {test for row in ANSWERED for test in row.tests}
    files = {HERE.parent / test.partition("::")[0] for test in named}
    assert sorted(file.name for file in files if not file.exists()) == []
    assert sorted(named - {name for file in files for name, _ in functions_of(file)}) == []


@pytest.mark.parametrize("page", [page.name for page in SUITES])
def test_no_case_is_both_answered_and_left_out(page):
    answered, left_out = ({row.case for row in rows if row.page == page} for rows in (ANSWERED, NOT_APPLICABLE))
    assert sorted(answered & left_out) == []


def test_every_test_is_in_exactly_one_table():
    tables = {(row.page, row.heading, test) for row in ANSWERED for test in row.tests}
    listed = [test for _, _, test in tables]
    assert sorted(set(FUNCTIONS) - set(listed)) == []
    assert sorted(test for test in set(listed) if listed.count(test) > 1) == []


def test_every_test_says_whose_case_it_answers():
    assert sorted(name for name, docstring in FUNCTIONS.items() if not CITATION.match(docstring)) == []


def test_there_are_as_many_cases_as_we_say():
    assert len({(row.page, row.heading, row.case) for row in ANSWERED}) >= 150


def test_the_index_shows_the_counts():
    shown = re.findall(r"^\|.*$", INDEX.read_text(encoding="utf-8"), re.MULTILINE)
    assert shown == counts().splitlines(), "python -m tests.field.test_pages brings the index up to date"


if __name__ == "__main__":
    text = INDEX.read_text(encoding="utf-8")
    INDEX.write_text(re.sub(r"(^\|.*\n)+", lambda table: counts() + "\n", text, flags=re.MULTILINE), encoding="utf-8")
