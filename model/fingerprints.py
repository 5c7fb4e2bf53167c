"""Which code the model stands for, and whether that has changed since somebody last compared the two.

`stands_for.toml` lists, for each part of the model (an inline or a proctype), the functions that it stands for, each
with a fingerprint of its code: a hash of its tokens. Comments, docstrings and layout don't count, and the fingerprint
is the same under every version of Python. `changed()` lists the functions whose code is not the one on record, and
`accept()` puts the present fingerprints on record, once a person has looked.

A function is named `module:qualified.name`; so is an assignment to a name of a module.

>>> fingerprint("def f():\\n    return 1  # one") == fingerprint("def f():\\n    'Doc.'\\n\\n    return 1")
True
>>> fingerprint("def f():\\n    return 1") == fingerprint("def f():\\n    return 2")
False
"""

from __future__ import annotations

import ast
import hashlib
import io
import re
import token
import tokenize
import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

HERE: Final = Path(__file__).parent
TABLE: Final = HERE / "stands_for.toml"

_IGNORED: Final = {tokenize.COMMENT, tokenize.NL, tokenize.ENDMARKER, tokenize.ENCODING}
#: Since 3.12 (3.14) such strings come in pieces.
_OPENING: Final = {getattr(token, name) for name in ("FSTRING_START", "TSTRING_START") if hasattr(token, name)}
_CLOSING: Final = {getattr(token, name) for name in ("FSTRING_END", "TSTRING_END") if hasattr(token, name)}
_DOC: Final = {tokenize.STRING, tokenize.NEWLINE}  # what a docstring consists of
_MARKS: Final = {tokenize.INDENT: ">", tokenize.DEDENT: "<", tokenize.NEWLINE: ";"}
_LINE: Final = re.compile(r'^"(?P<name>[\w.]+:[\w.]+)" = "(?P<fingerprint>\w*)"', re.MULTILINE)


class Change(NamedTuple):
    """A function that is not what it was when the model was last compared with it."""

    function: str
    parts: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.function} has changed; look at {', '.join(self.parts)} in model/"


def table(path: Path = TABLE) -> dict[str, dict[str, str]]:
    """For each part of the model, `"file.pml inline"`, the functions it stands for with their fingerprints."""
    found: dict[str, dict[str, str]] = tomllib.loads(path.read_text(encoding="utf-8"))
    return found


def functions(path: Path = TABLE) -> dict[str, list[str]]:
    """For each function that the model stands for, the parts that do."""
    result: dict[str, list[str]] = {}
    for part, names in table(path).items():
        for name in names:
            result.setdefault(name, []).append(part)
    return result


def changed(path: Path = TABLE, root: Path = HERE.parent) -> list[Change]:
    """The functions whose code is not the one on record. `LookupError` names one that is not there any more."""
    recorded = {name: value for names in table(path).values() for name, value in names.items()}
    return [
        Change(name, tuple(parts))
        for name, parts in functions(path).items()
        if fingerprint(source_of(name, root)) != recorded[name]
    ]


def accept(path: Path = TABLE, root: Path = HERE.parent) -> int:
    """Put the present fingerprints on record. Returns how many of them are new."""
    before = path.read_text(encoding="utf-8")
    renewed_names: set[str] = set()

    def renewed(line: re.Match[str]) -> str:
        present = fingerprint(source_of(line["name"], root))
        if present != line["fingerprint"]:
            renewed_names.add(line["name"])
        return f'"{line["name"]}" = "{present}"'

    path.write_text(_LINE.sub(renewed, before), encoding="utf-8")
    return len(renewed_names)


def source_of(name: str, root: Path = HERE.parent) -> str:
    """The source of `module:qualified.name`. `LookupError` if there is no such thing."""
    module, _, qualified = name.partition(":")
    file = root.joinpath(*module.split(".")).with_suffix(".py")
    if not file.exists():
        raise LookupError(f"{name}: there is no module {module} any more; look at what the model stands for")
    source = file.read_text(encoding="utf-8")
    node: ast.AST = _parsed(source)
    for step in qualified.split("."):
        found = [child for child in _children(node) if step in _names(child)]
        if not found:
            raise LookupError(f"{name}: there is no {step} any more; look at what the model stands for")
        node = found[-1]
    lines = source.splitlines(keepends=True)
    decorators = [decorator.lineno for decorator in getattr(node, "decorator_list", [])]
    first = min([node.lineno, *decorators])  # type: ignore[attr-defined]
    return "".join(lines[first - 1 : node.end_lineno])  # type: ignore[attr-defined]


@lru_cache
def _parsed(source: str) -> ast.Module:
    return ast.parse(source)


def _children(node: ast.AST) -> list[ast.stmt]:
    """What a module, class or function defines, also under a condition."""
    result: list[ast.stmt] = []
    for child in getattr(node, "body", []) + getattr(node, "orelse", []):
        result.append(child)
        if isinstance(child, (ast.If, ast.Try)):
            result += _children(child)
    return result


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def fingerprint(source: str) -> str:
    """A hash of the tokens of a definition, without its comments, docstrings and layout."""
    source = _dedented(source)
    lines = source.splitlines(keepends=True)
    kept: list[str] = []
    docstrings = _docstrings(source)
    depth, begun = 0, (0, 0)
    for one in tokenize.generate_tokens(io.StringIO(source).readline):
        if one.type in _OPENING:
            begun = one.start if depth == 0 else begun
            depth += 1
        elif one.type in _CLOSING:
            depth -= 1
            if depth == 0:
                kept.append(_between(lines, begun, one.end))
        elif depth == 0 and one.type not in _IGNORED and not (one.type in _DOC and one.start[0] in docstrings):
            kept.append(_MARKS.get(one.type, one.string))
    return hashlib.sha256("\0".join(kept).encode()).hexdigest()[:16]


def _dedented(source: str) -> str:
    margin = len(source) - len(source.lstrip(" "))
    return "".join(line[margin:] if line[:margin].isspace() else line for line in source.splitlines(keepends=True))


def _docstrings(source: str) -> set[int]:
    """The lines on which docstrings stand."""
    found: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node, clean=False) is not None:
            first = node.body[0]
            found.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return found


def _between(lines: list[str], start: tuple[int, int], end: tuple[int, int]) -> str:
    """The text between two positions."""
    if start[0] == end[0]:
        return lines[start[0] - 1][start[1] : end[1]]
    middle = lines[start[0] : end[0] - 1]
    return "".join([lines[start[0] - 1][start[1] :], *middle, lines[end[0] - 1][: end[1]]])
