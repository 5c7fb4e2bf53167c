"""Public names that are loaded on first use, so that `import stm` stays quick and nobody pays for what he leaves out.

A package says where its names live and installs what `lazily` returns as its module-level `__getattr__` and `__dir__`
(PEP 562). A name that has been asked for once is an ordinary attribute afterwards.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping


def lazily(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` for a package; `homes` maps a name to its module, or a submodule's name to itself."""

    def get(name: str) -> object:
        home = homes.get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(home)
        value = module if home == f"{package}.{name}" else getattr(module, name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return get, names
