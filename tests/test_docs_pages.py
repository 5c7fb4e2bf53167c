"""The pages under `docs/`: every block of code runs and prints what is shown, every link leads somewhere, and every
public name is in the reference.

Blocks of one page run in order, in one namespace. A block marked `python` runs; one marked `pycon` is a session, run as
a doctest; one marked `text` is what the block before it prints; of one marked `sh`, each command is looked up. There
are no others. A title is the name under which a block runs, as in tracebacks.
"""

import doctest
import importlib
import importlib.util
import linecache
import re
import shlex
import tomllib
import unicodedata
from collections.abc import Iterator
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bench.workloads import WORKLOADS
from hive_task.background import Application
from hive_task.background import tasks as background_tasks
from hive_task.cli import main

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())

FENCE = re.compile(r"(?P<indent> *)```(?P<language>\w*) *(?P<rest>.*)")
TITLE = re.compile(r'title="([^"]*)"')


class Block(NamedTuple):
    """A fenced block. `line` is that of its first line within the page, or within itself if it has a title."""

    language: str
    title: str
    line: int
    source: str


def blocks_of(text: str) -> Iterator[Block]:
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        opening = FENCE.fullmatch(line)
        if opening is None:
            continue
        indent, source = opening["indent"], []
        for _, inner in lines:
            if inner == indent + "```":
                break
            assert inner.startswith(indent) or not inner, f"line {number}: a block that is indented unevenly"
            source.append(inner.removeprefix(indent) + "\n")
        else:
            pytest.fail(f"line {number}: a block that never ends")
        title = TITLE.fullmatch(opening["rest"])
        assert title is not None or not opening["rest"], f"line {number}: what is {opening['rest']!r}?"
        name = title[1] if title else ""
        yield Block(opening["language"], name, 1 if name else number + 1, "".join(source))


BLOCKS = {page: list(blocks_of(text)) for page, text in TEXTS.items()}


def prose_of(text: str) -> str:
    """The page without its blocks and without code in its lines."""
    prose, inside = [], False
    for line in text.splitlines():
        if FENCE.fullmatch(line):
            inside = not inside
        elif not inside:
            prose.append(re.sub(r"`[^`]*`", "code", line))
    return "\n".join(prose)


# Blocks


def test_there_are_pages():
    assert len(PAGES) >= 20


@each_page
def test_every_block_is_of_a_kind_that_is_checked(page):
    before = None
    for block in BLOCKS[page]:
        assert block.language in ("python", "pycon", "text", "sh")
        if block.language == "text":
            assert before == "python", "a block marked text shows what the block of python before it prints"
        before = block.language


def plain(output: str) -> str:
    """What is compared of an output: not how long something took, nor how a table's columns are filled up."""
    output = re.sub(r"[\d.]+ (µs|ms|s)\b", "# s", output)
    return "\n".join(re.sub(r"-{2,}", "--", " ".join(line.split())) for line in output.splitlines())


@each_page
@pytest.mark.timeout(60)
def test_the_blocks_run_and_print_what_is_shown(page, capsys, monkeypatch, tmp_path, request):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(background_tasks, "_known", {})  # what a page registers is for that page alone
    names: dict[str, Any] = {"__name__": "__main__"}
    request.addfinalizer(lambda: [app.stop() for app in names.values() if isinstance(app, Application)])
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    blocks = [block for block in BLOCKS[page] if block.language != "sh"]
    for block, after in zip_longest(blocks, blocks[1:]):
        where = block.title or str(page)
        if block.language == "python":
            if block.title:
                lines = block.source.splitlines(keepends=True)
                monkeypatch.setitem(linecache.cache, where, (len(block.source), None, lines, where))
            exec(compile("\n" * (block.line - 1) + block.source, where, "exec"), names)
            printed = capsys.readouterr().out
            shown = after.source if after is not None and after.language == "text" else ""
            assert plain(printed) == plain(shown), f"line {block.line} prints\n{printed}"
        elif block.language == "pycon":
            session = doctest.DocTestParser().get_doctest(block.source, {}, page.name, where, block.line - 1)
            assert session.examples
            session.globs = names
            assert not runner.run(session, clear_globs=False).failed, capsys.readouterr().out


TARGETS = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
COMMANDS = [
    (page, line)
    for page, blocks in BLOCKS.items()
    for block in blocks
    if block.language == "sh"
    for line in block.source.splitlines()
]


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=[line for _, line in COMMANDS])
def test_every_command_names_what_exists(page, line, capsys):
    words = shlex.split(line, comments=True)
    match words:
        case ["make", *rest]:
            assert [word for word in rest if "=" not in word]
            assert all("=" in word or word in TARGETS for word in rest)
        case ["python", "-m", module, *rest]:
            assert importlib.util.find_spec(module) is not None
            if module == "bench":
                workloads = [value for word, value in pairwise(rest) if word == "--workload"]
                assert all(name in WORKLOADS for name in workloads)
                assert set(re.findall(r"--[\w-]+", line)) <= {"--quick", "--workload", "--python", "--list"}
        case ["pip", "install", "."]:
            pass
        case ["pip", "install", extra]:
            known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
            assert extra in [f".[{name}]" for name in known["optional-dependencies"]]
        case ["hive-task", "--version"]:
            pass
        case ["hive-task", "queue", command, path, *rest]:
            assert not path.startswith("-")
            with pytest.raises(SystemExit):
                main(["queue", command, "--help"])
            options = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out))
            assert {word for word in rest if word.startswith("-")} <= options
        case ["hive-task", command, path, *rest]:
            assert not path.startswith("-")
            with pytest.raises(SystemExit):
                main([command, "--help"])
            options = set(re.findall(r"--[a-z]+", capsys.readouterr().out))
            assert {word for word in rest if not word.isdigit()} <= options
        case _:
            pytest.fail(f"{page.name} tells its reader to run {line!r}, which nothing here checks")


# Links


def slug(heading: str) -> str:
    """The anchor of a heading, as Python-Markdown makes it."""
    text = unicodedata.normalize("NFKD", heading.replace("`", "")).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", text).strip().lower())


def anchors_of(page: Path) -> set[str]:
    return {slug(heading) for heading in re.findall(r"^#+ (.*?)(?: \{#.*\})?$", TEXTS[page], re.MULTILINE)}


@each_page
def test_every_link_leads_to_a_page_and_a_heading(page):
    for target in re.findall(r"\]\(([^)]+)\)", prose_of(TEXTS[page])):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked in TEXTS, f"{target}: no such page"
        assert not anchor or anchor in anchors_of(linked), f"{target}: no such heading"


@each_page
def test_every_cross_reference_is_to_what_the_reference_documents(page):
    text = re.sub(r"```.*?```", "", TEXTS[page], flags=re.DOTALL)
    for name, target in re.findall(r"\[([^]\[]+)\]\[([\w.]*)\]", text):
        found = found_at(target or name.strip("`"))
        owner = found_at((target or name.strip("`")).rpartition(".")[0])
        assert is_documented(found) or is_documented(owner), f"[{name}][{target}]"


def test_every_page_is_in_the_navigation_once():
    listed = re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(page.relative_to(DOCS).as_posix() for page in PAGES)


# The reference

DIRECTIVE = re.compile(r"^::: ([\w.]+)$", re.MULTILINE)
OWN_HEADING = re.compile(r"^#+ .* \{#([\w.]+)\}$", re.MULTILINE)
DOCUMENTED = [name for text in TEXTS.values() for name in DIRECTIVE.findall(text) + OWN_HEADING.findall(text)]


def found_at(path: str) -> Any:
    """What stands under this name, a module's own functions before what the package calls by the module's name."""
    parts = path.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            found = getattr(found, part)
        return found
    raise AssertionError(f"there is no {path!r}")


def is_documented(thing: Any) -> bool:
    return any(found_at(name) is thing for name in DOCUMENTED)


PUBLIC = [
    f"{module}.{name}"
    for module in (
        "stm",
        "stm.collections",
        "stm.sync",
        "stm.aio",
        "stm.stats",
        "stm.guard",
        "stm.compiled",
        "stm.testing",
        "hive_task",
        "hive_task.background",
        "hive_task.background.conformance",
        "hive_task.background.testing",
    )
    for name in importlib.import_module(module).__all__
]
#: Of these modules, which have no `__all__`, what is defined there.
PUBLIC += [
    f"{module}.{name}"
    for module in (
        "hive_task.global_background_worker",
        "hive_task.monitor",
        "hive_task.picture",
        "hive_task.policy",
        "hive_task.scaling",
        "hive_task.watching",
    )
    for name, thing in vars(importlib.import_module(module)).items()
    if callable(thing) and not name.startswith("_") and thing.__module__ == module
]


@pytest.mark.parametrize("name", DOCUMENTED)
def test_what_the_reference_names_exists(name):
    assert found_at(name) is not None


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_in_the_reference(name):
    module, _, attribute = name.rpartition(".")
    assert is_documented(getattr(importlib.import_module(module), attribute))
