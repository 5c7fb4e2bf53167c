"""Makes Markdown of the library's docstrings, for mkdocstrings (an extension of griffe, which reads the sources).

The docstrings are written to be read in a terminal. Three things Markdown takes otherwise: a doctest, which becomes a
fenced block here; a list that follows a line of text, which is given the empty line that Markdown wants; and parameters
told one to a line, which become a list.

A method without a docstring is given that of the method that it overrides, and a class that is made by `__new__` is shown
with its parameters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import griffe

_ITEM = re.compile(r"([-*]|\d+\.) ")
_PARAMETER = re.compile(r"`[a-z]\w*`: ")


def markdown(docstring: str) -> str:
    """The docstring as Markdown, paragraph by paragraph."""
    return "\n\n".join(map(_paragraph, re.split(r"\n{2,}", docstring.strip("\n"))))


def _paragraph(text: str) -> str:
    if text.startswith(">>> "):
        return f"```pycon\n{text}\n```"
    lines = text.splitlines()
    if sum(map(bool, map(_PARAMETER.match, lines))) > 1 and len(_PARAMETER.findall(text)) <= len(lines):
        return "\n".join("- " + line if _PARAMETER.match(line) else "  " + line for line in lines)
    return "\n".join(_with_space_before_lists(lines))


def _with_space_before_lists(lines: list[str]) -> Iterator[str]:
    listing = True  # a list that begins the paragraph has its space
    for line in lines:
        if _ITEM.match(line):
            if not listing:
                yield ""
            listing = True
        elif not line.startswith(" "):
            listing = False
        yield line


class Docstrings(griffe.Extension):
    """Visits every object that has been read."""

    def on_package(self, *, pkg: griffe.Module, loader: griffe.GriffeLoader, **kwargs: Any) -> None:
        self._visit(pkg)

    def _visit(self, thing: griffe.Object) -> None:
        if thing.docstring is not None:
            thing.docstring.value = markdown(thing.docstring.value)
        if isinstance(thing, griffe.Class) and "__init__" not in thing.members and "__new__" in thing.members:
            thing.set_member("__init__", griffe.Function("__init__", parameters=thing.members["__new__"].parameters))
        for member in list(thing.members.values()):
            if member.is_alias:
                continue
            if thing.is_class and member.docstring is None:
                member.docstring = _inherited(thing, member.name)
            self._visit(member)


def _inherited(cls: griffe.Class, name: str) -> griffe.Docstring | None:
    for base in cls.mro():
        overridden = base.members.get(name)
        if overridden is not None and overridden.docstring is not None:
            return griffe.Docstring(overridden.docstring.value, parent=cls.members[name])
    return None
