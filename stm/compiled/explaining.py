"""numba's errors, in the words of whoever called the transaction."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from numba.core.errors import NumbaError

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
#: Lines of numba's messages that say how it got there and not what is wrong.
_NOISE = re.compile(
    r"^(Failed in nopython|During: |File |<source|\s*$|-+$|This error may|For more|Overload of function|"
    r"There are \d+ candidate|- Of which|Overload in function|With argument|Rejected as|raised from|\[\d+\])"
)


@contextmanager
def explained(name: str, names: Sequence[str], kinds: Sequence[Any]) -> Iterator[None]:
    """Turn an error of the compiler into a `TypeError` that names the arguments and their types."""
    try:
        yield
    except NumbaError as error:
        given = ", ".join(f"{one}: {getattr(kind, 'kind', kind)}" for one, kind in zip(names, kinds, strict=True))
        raise TypeError(f"{name}({given}) can't be compiled: {_gist(str(error))}") from error


def _gist(message: str) -> str:
    lines = [_COLOURS.sub("", line) for line in message.splitlines()]
    places = [line.strip() for line in lines if line.lstrip().startswith("File ")]
    said = [line.strip() for line in lines if not _NOISE.match(line.lstrip())]
    ours = [line for line in said if "TArray" in line and "Cannot" not in line]
    gist = " ".join((ours or said)[:3]) or lines[0]
    return f"{gist} [{places[-1]}]" if places else gist
