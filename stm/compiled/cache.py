"""Machine code kept on disk, so that a program compiles each of its transactions once and not once a run.

numba's own cache looks at the bytes of one function. It would go on using old code after a change to a function that a
transaction calls, to a global constant, or to this library. So here the key is a *fingerprint*: of the function, of
everything it refers to, as far as that can be known, and of all sources of `stm.compiled`. A function that refers to
something that has no fingerprint (an object of an unknown class, say) is compiled in each run.

Files go where numba puts them: `NUMBA_CACHE_DIR` if it is set, else `__pycache__` beside the function's file, else the
user's cache directory. A cache that can't be read or written is no error.
"""

from __future__ import annotations

import glob
import hashlib
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

import numba
import numpy as np
from numba import njit, types
from numba.core.caching import CompileResultCacheImpl, FunctionCache


class Unknown(Exception):
    """Something whose next incarnation could not be told from a changed one."""


def _sources() -> str:
    """A hash of this package: a kernel holds parts of it."""
    digest = hashlib.sha256(numba.__version__.encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


SOURCES = _sources()

#: Files of other versions of a function are removed when they are so old.
KEEP_SECONDS = 24 * 3600.0


def fingerprint(function: Callable[..., Any]) -> str:
    """What the machine code of a Python function depends on, as a hash. `Unknown` if that can't be told."""
    digest = hashlib.sha256(SOURCES.encode())

    def put(part: bytes) -> None:
        digest.update(len(part).to_bytes(8, "little") + part)

    _digest(function, put, set())
    return digest.hexdigest()


def _digest(thing: Any, put: Callable[[bytes], None], seen: set[int]) -> None:
    inner = getattr(thing, "py_func", None)  # of a numba dispatcher, or of a compiled transaction
    if isinstance(inner, FunctionType):
        put(repr(sorted(getattr(thing, "targetoptions", {}).items())).encode())
        thing = inner
    put(type(thing).__qualname__.encode())
    if isinstance(thing, FunctionType):
        if (thing.__module__ or "").partition(".")[0] == "stm":
            # `check` and the like: what stands for them in machine code is in this package's sources.
            put(f"{thing.__module__}.{thing.__qualname__}".encode())
            return
        if id(thing) in seen:
            return
        seen.add(id(thing))
        put(thing.__qualname__.encode())
        _digest_code(thing.__code__, put, seen)
        names = sorted(_names(thing.__code__))
        for name in names:
            if name in thing.__globals__:
                put(name.encode())
                found = thing.__globals__[name]
                _digest(found, put, seen)
                _digest_members(found, names, put, seen)
        for cell in thing.__closure__ or ():
            _digest(cell.cell_contents, put, seen)
        _digest(thing.__defaults__, put, seen)
    elif isinstance(thing, (tuple, list)):
        for item in thing:
            _digest(item, put, seen)
    elif isinstance(thing, ModuleType):
        put(f"{thing.__name__} {getattr(thing, '__version__', '')}".encode())
    elif isinstance(thing, (type, BuiltinFunctionType)):
        put(f"{thing.__module__}.{thing.__qualname__}".encode())
    elif isinstance(thing, np.ndarray):
        put(f"{thing.dtype} {thing.shape}".encode() + thing.tobytes())
    elif isinstance(thing, Enum):
        put(repr((thing.name, thing.value)).encode())
    elif isinstance(thing, (int, float, complex, str, bytes, type(None), type(...), np.generic, types.Type, np.ufunc)):
        put(repr(thing).encode())
    else:
        raise Unknown(f"{thing!r}")


def _digest_members(thing: Any, names: list[str], put: Callable[[bytes], None], seen: set[int]) -> None:
    """What a function may take of a module of the user's, or of a class, by an attribute."""
    if isinstance(thing, ModuleType):
        top = thing.__name__.partition(".")[0]
        if top in sys.stdlib_module_names or hasattr(sys.modules.get(top), "__version__"):
            return  # the version says it all
    elif not isinstance(thing, type) or thing.__module__ == "builtins":
        return
    for name in names:
        if name in vars(thing):
            put(name.encode())
            _digest(vars(thing)[name], put, seen)


def _digest_code(code: CodeType, put: Callable[[bytes], None], seen: set[int]) -> None:
    put(code.co_code + repr((code.co_names, code.co_varnames, code.co_freevars)).encode())
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            _digest_code(constant, put, seen)
        else:
            put(repr(constant).encode())


def _names(code: CodeType) -> set[str]:
    inner = (_names(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*inner)


class _Impl(CompileResultCacheImpl):
    label = ""

    def get_filename_base(self, fullname: str, abiflags: str) -> str:
        return f"{super().get_filename_base(fullname, abiflags)}-{self.label}"

    def check_cachable(self, cres: Any) -> bool:
        return not (cres.lifted or cres.library.has_dynamic_globals)


class KernelCache(FunctionCache):
    """The cache of one kernel made for `function`: `label` tells it from others, `mark` must be the same to be used."""

    def __init__(self, function: Callable[..., Any], label: str, mark: str) -> None:
        self._mark = mark
        # The mark is in the files' names: one that was written half, or by another version, is never taken for ours.
        self._impl_class = type("_Impl", (_Impl,), {"label": f"{label}-{mark[:16]}"})
        self._label = label
        super().__init__(function)
        self._cache_file._source_stamp = mark

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return (str(sig), codegen.magic_tuple(), self._mark)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # a file that was cut short, say: compile anew
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        self._attempt(lambda: super(KernelCache, self).save_overload(sig, data))
        with suppress(OSError):
            self._remove_old()

    def _remove_old(self) -> None:
        """Delete what other versions of the function left here, unless they may still be in use."""
        folder = Path(self._cache_path)
        base = self._impl.filename_base[: -len(self._mark[:16])]
        for path in folder.glob(glob.escape(base) + "*.nb[ci]"):
            if self._mark[:16] not in path.name and path.stat().st_mtime < time.time() - KEEP_SECONDS:
                os.unlink(path)

    def _attempt(self, save: Callable[[], None]) -> None:
        """Save something, over a broken index if need be."""
        for first in (True, False):
            try:
                save()
                return
            except OSError:
                return  # no place to write
            except Exception:  # an index that can't be read
                if not first:
                    return
                with suppress(OSError):
                    self.flush()

    def load_value(self, key: str) -> Any:
        """What `save_value` kept beside the code."""
        try:
            return self._cache_file.load((key, sys.version))
        except Exception:
            return None

    def save_value(self, key: str, value: Any) -> None:
        def save() -> None:
            self._impl.locator.ensure_cache_path()
            self._cache_file.save((key, sys.version), value)

        self._attempt(save)


def kernel_cache(function: Callable[..., Any], label: str) -> KernelCache | None:
    """A cache for the kernel `label` of a user's function, None where there can't be one."""
    try:
        mark = fingerprint(function)
        return KernelCache(function, label, mark)
    except (Unknown, RuntimeError, OSError, TypeError, ValueError):  # no file, no place to write, no fingerprint
        return None


def kept(dispatcher: Any, cache: KernelCache | None) -> Any:
    """The dispatcher, with that cache."""
    if cache is not None:
        dispatcher._cache = cache
    return dispatcher


def entry(function: Callable[..., Any], signature: Any, label: str = "stm") -> Callable[..., Any]:
    """Compile a function of this package for one signature, or load it: a C function that takes just that.

    It keeps the GIL, and does not check its arguments' types.
    """
    dispatcher = njit(function)
    try:
        kept(dispatcher, KernelCache(function, label, SOURCES))
    except (RuntimeError, OSError):
        pass
    dispatcher.compile(signature)
    entry_point: Callable[..., Any] = dispatcher.overloads[signature.args].entry_point
    return entry_point
