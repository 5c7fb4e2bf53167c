"""What is sent to a child process: a function and its arguments, pickled when the work is submitted.

A child must find functions and classes by name, so what has no name to be found by is refused here, and not by a child
much later: a lambda, a lock, a function that its decorator has replaced, and whatever is defined in a main module that
a child can't import. Cost: that of `pickle.dumps`, 2 to 4 µs for a function with a few numbers.
"""

from __future__ import annotations

import os
import pickle
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Any, cast

from hive_task import _child
from hive_task.errors import UnpicklableWork


def pack(fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
    """The work as bytes for `Child.run`. What it refers to is copied at this moment.

    Raises `UnpicklableWork` if it can't be pickled (chained to pickle's own error, and naming the part at fault), or is
    pickled as a name that a child can't look up.
    """
    refuse_while_importing_main()
    if not callable(fn):
        raise TypeError(f"work is a function and its arguments; {fn!r} is not callable")
    try:
        return _pickled((fn, tuple(args), dict(kwargs)))
    except Exception as error:
        raise UnpicklableWork(_blame(fn, args, kwargs, error)) from error


def _pickled(thing: Any) -> bytes:
    if main_module() is not None:
        return pickle.dumps(thing, pickle.HIGHEST_PROTOCOL)
    into = BytesIO()
    _WithoutMain(into, pickle.HIGHEST_PROTOCOL).dump(thing)
    return into.getvalue()


class _WithoutMain(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, types.FunctionType | type) and obj.__module__ == "__main__":
            raise pickle.PicklingError(
                f"{obj.__qualname__} is defined in the main module, which is not a file that a child process could "
                "import (an interactive session, python -c, or a __main__.py): define it in a module and import it"
            )
        return NotImplemented


def _blame(fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], error: Exception) -> str:
    parts = [("the function itself", fn)]
    parts += [(f"args[{position}]", value) for position, value in enumerate(args)]
    parts += [(f"kwargs[{name!r}]", value) for name, value in kwargs.items()]
    culprit = "together they"
    for where, value in parts:
        try:
            _pickled(value)
        except Exception as own:
            culprit, error = f"{where}, of type {type(value).__qualname__},", own
            break
    name = getattr(fn, "__qualname__", None) or type(fn).__qualname__
    return (
        f"{name} with these arguments can't be sent to a process: {culprit} can't be pickled: "
        f"{type(error).__name__}: {error}. Functions and classes are pickled by name, so a module must have them under "
        'the name they were defined with; for anything else use kind="thread"'
    )


def main_module() -> tuple[str, str] | None:
    """How a child can import the main module; `None` if it can't, or must not: a `__main__.py` has no guard."""
    module = sys.modules.get("__main__")
    if module is _main[0] and not hasattr(module, "__file__"):
        return cast(
            "tuple[str, str] | None", _main[1]
        )  # at the interpreter's exit CPython takes a script's `__file__` away
    found = _importable(module)
    _main[:] = module, found
    return found


#: The main module, and how it can be imported, as it was when somebody last asked.
_main: list[Any] = [None, None]


def _importable(module: Any) -> tuple[str, str] | None:
    spec = getattr(module, "__spec__", None)
    if spec is not None:
        return None if spec.name.rpartition(".")[2] == "__main__" else ("module", spec.name)
    path = getattr(module, "__file__", None)
    if path is None or os.path.basename(path) in ("__main__.py", "__main__.pyc", "ipython"):
        return None
    return "path", os.path.abspath(path)


def refuse_while_importing_main() -> None:
    if _child.importing_main:
        raise RuntimeError(
            "work for a process was submitted while a child process was importing the main module. A child imports the "
            "script that started it, to find its functions there; so what the script is to do, and not the child, "
            'stands under `if __name__ == "__main__":`'
        )
