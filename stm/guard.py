"""Guard rails: warnings for what must not be done in a transaction's body, naming the line that did it.

Two mistakes are easy to make and hard to find. A body that touches the outside world, though it may run again or be
thrown away: while the guard is on, a body that opens a file, uses a socket, starts or signals a process, or changes
the file system is reported, by way of Python's audit hooks (PEP 578). And a mutable value in a `TVar`, which can be
changed behind the back of all transactions: a list, dict, set, bytearray, deque or array that becomes the value of a
variable is reported, by its constructor, `set`, `value =`, `update`, `swap` and `compare_and_set` alike.

`action="warn"` gives a `GuardWarning` that points at the offending line; `action="raise"` raises `GuardError` there,
and the transaction is undone like after any other exception. An `irrevocable=True` transaction may do I/O, so nothing
is said about that there; nor about functions that run after the commit (`on_commit`), which is where I/O belongs. What
Python itself reads in order to import a module is not reported either, nor what `warnings` and `linecache` read.

Cost: nothing while off. (Python can't remove an audit hook, so after the first use each audited event of the process
costs a look at a flag.) While on, some tenths of a microsecond for each assignment. Meant for tests and development.

>>> import stm
>>> from stm import TVar, guard
>>> with guard.enable(action="raise"):
...     log = TVar([])
Traceback (most recent call last):
    ...
stm.guard.GuardError: TVar([]): a list can be changed in place, behind the back of all transactions; use an immutable \
value instead: a tuple, or pyrsistent.pvector, or an stm.TVector
>>> @stm.atomically
... def careless():
...     open("/dev/null")
>>> with guard.enable(action="raise"):
...     careless()
Traceback (most recent call last):
    ...
stm.guard.GuardError: transaction body opens a file, open('/dev/null'): it may run more than once, or be thrown away; \
use stm.on_commit(...), or irrevocable=True, or do it outside
"""

from __future__ import annotations

import os
import reprlib
import sys
import sysconfig
import threading
import warnings
from array import array
from collections import deque
from collections.abc import Callable
from functools import partial
from types import FrameType, TracebackType
from typing import Any, Final, Literal

from stm.errors import StmError
from stm.transaction import here
from stm.tvar import TVar

__all__ = ["GuardError", "GuardWarning", "disable", "enable"]

Action = Literal["warn", "raise"]


class GuardWarning(UserWarning):
    """Something that must not be done in a transaction's body, or a value that must not be in a variable."""


class GuardError(StmError):
    """The same, where the guard was told to raise."""


#: Audit events (docs.python.org/3/library/audit_events.html) by what the body does.
_EVENTS: Final[dict[str, str]] = {
    "open": "opens a file",
    "os.listdir": "reads a directory",
    "os.scandir": "reads a directory",
    **dict.fromkeys(
        (
            "os.remove",
            "os.rename",
            "os.rmdir",
            "os.mkdir",
            "os.link",
            "os.symlink",
            "os.truncate",
            "os.chmod",
            "os.chown",
            "os.utime",
            "os.setxattr",
            "os.removexattr",
        ),
        "changes the file system",
    ),
    **dict.fromkeys(
        ("shutil.copyfile", "shutil.copytree", "shutil.move", "shutil.rmtree", "tempfile.mkstemp", "tempfile.mkdtemp"),
        "changes the file system",
    ),
    **dict.fromkeys(
        ("socket.__new__", "socket.bind", "socket.connect", "socket.sendto", "socket.sendmsg"),
        "uses a socket",
    ),
    **dict.fromkeys(
        ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"),
        "looks up an address",
    ),
    **dict.fromkeys(
        (
            "urllib.Request",
            "http.client.connect",
            "smtplib.connect",
            "ftplib.connect",
            "imaplib.open",
            "poplib.connect",
        ),
        "uses the network",
    ),
    **dict.fromkeys(
        ("subprocess.Popen", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn"),
        "starts a process",
    ),
    **dict.fromkeys(("os.kill", "os.killpg", "signal.pthread_kill"), "signals a process"),
    "sqlite3.connect": "opens a database",
}

_INSTEAD: Final[dict[type, str]] = {
    list: "a tuple, or pyrsistent.pvector, or an stm.TVector",
    deque: "a tuple, or pyrsistent.pdeque, or an stm.TQueue",
    dict: "pyrsistent.pmap, or an stm.TMap",
    set: "a frozenset, or pyrsistent.pset, or an stm.TSet",
    bytearray: "bytes",
    array: "a tuple, or an stm.compiled.TArray",
}
_MUTABLE: Final = tuple(_INSTEAD)

_repr: Final = reprlib.Repr()
_repr.maxstring = _repr.maxother = 100  # most paths are shown whole
_shown: Final = _repr.repr

#: Of an event's arguments, the one that says most; mostly the first.
_TELLING: Final = {"socket.__new__": 1, "socket.connect": 1, "socket.bind": 1, "socket.sendto": 1, "socket.sendmsg": 1}

#: Files of this library, of Python's (and of packages installed with it), and of what it runs to import or to warn.
_OURS: Final = os.path.dirname(os.path.abspath(__file__)) + os.sep
_STANDARD: Final = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_PIPES: Final = _STANDARD + "subprocess.py"
_PYTHONS: Final = (
    _STANDARD,
    "<frozen ",  # `os`, `posixpath` and others are part of the executable
    *(sysconfig.get_path(kind) + os.sep for kind in ("purelib", "platlib")),
)
_MACHINERY: Final = (
    "<frozen importlib",
    *(_STANDARD + name for name in ("warnings.py", "_py_warnings.py", "linecache.py")),
)


class _Guard:
    """What is switched on: how often, and what to do. One for the process."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # a signal handler may ask too
        self.users: list[_Enabled] = []
        self.action: Action | None = None  # the last of them
        self.hooked = False
        self.busy = threading.local()

    def look(self, event: str, args: tuple[Any, ...]) -> None:
        """The audit hook."""
        if self.action is None or event not in _EVENTS:
            return
        tx = getattr(here, "tx", None)
        if tx is None or tx.writes is None or (tx.extras is not None and tx.extras.irrevocable):
            return
        if event == "open" and sys._getframe(1).f_code.co_filename == _PIPES:
            return  # the ends of pipes; more is to come
        frame = _users_frame(sys._getframe())
        if frame is not None:
            self.report(partial(_about_event, event, args), frame)

    def inspect(self, value: object) -> None:
        """A value is about to be put in a variable."""
        if not isinstance(value, _MUTABLE):
            return
        frame = _users_frame(sys._getframe())
        if frame is not None:
            self.report(partial(_about_value, value), frame)

    def report(self, tell: Callable[[], str], frame: FrameType) -> None:
        action = self.action
        if action is None or getattr(self.busy, "yes", False):
            return
        self.busy.yes = True  # describing a value, and showing a warning, may well open a file
        try:
            message = tell()
            if action == "raise":
                raise GuardError(message)
            warnings.warn_explicit(
                message,
                GuardWarning,
                frame.f_code.co_filename,
                frame.f_lineno,
                module=frame.f_globals.get("__name__", "<unknown>"),
                registry=frame.f_globals.setdefault("__warningregistry__", {}),
            )
        finally:
            self.busy.yes = False


_guard = _Guard()
os.register_at_fork(after_in_child=_guard.lock._at_fork_reinit)  # type: ignore[attr-defined]


def _about_event(event: str, args: tuple[Any, ...]) -> str:
    what = ", ".join(_shown(one) for one in args[_TELLING.get(event, 0) :][:1])
    return (
        f"transaction body {_EVENTS[event]}, {event}({what}): it may run more than once, or be thrown away; use "
        "stm.on_commit(...), or irrevocable=True, or do it outside"
    )


def _about_value(value: object) -> str:
    instead = next(_INSTEAD[kind] for kind in _MUTABLE if isinstance(value, kind))
    return (
        f"TVar({_shown(value)}): a {type(value).__name__} can be changed in place, behind the back of all "
        f"transactions; use an immutable value instead: {instead}"
    )


def _users_frame(frame: FrameType | None) -> FrameType | None:
    """The frame to name: the innermost that belongs neither to this library nor to Python's, down to the one that has
    called the transaction; else that of the body itself. None if it is Python that imports, or warns.
    """
    body, left = None, False
    while frame is not None:
        filename = frame.f_code.co_filename
        if filename.startswith(_MACHINERY):
            return None
        if filename.startswith(_OURS):
            left = body is not None
        elif not filename.startswith(_PYTHONS):
            return frame
        elif left:
            break  # it was Python that called the transaction: a thread, or an event loop
        else:
            body = frame
        frame = frame.f_back
    return body


def _watch_values() -> None:
    """Look at what variables are given. Only while the guard is on: assignments are too frequent to ask each time."""
    if TVar.set is not _PLAIN_SET:
        return

    def watched_init(self: TVar[Any], value: Any, *, name: str | None = None) -> None:
        _guard.inspect(value)
        _PLAIN_INIT(self, value, name=name)

    def watched_set(self: TVar[Any], value: Any) -> None:
        _guard.inspect(value)
        _PLAIN_SET(self, value)

    def watched_compare_and_set(self: TVar[Any], before: Any, after: Any) -> bool:
        _guard.inspect(after)
        return _PLAIN_COMPARE_AND_SET(self, before, after)

    value = property(TVar.get, watched_set, doc=_PLAIN["value"].__doc__)
    _put_in({"__init__": watched_init, "set": watched_set, "compare_and_set": watched_compare_and_set, "value": value})


def _put_in(members: dict[str, Any]) -> None:
    for name, member in members.items():
        setattr(TVar, name, member)


_PLAIN_INIT: Final = TVar.__init__
_PLAIN_SET: Final = TVar.set
_PLAIN_COMPARE_AND_SET: Final = TVar.compare_and_set
_PLAIN: Final = {name: TVar.__dict__[name] for name in ("__init__", "set", "compare_and_set", "value")}


class _Enabled:
    """What `enable()` returns: leaving it as a context manager takes back this very call."""

    def __init__(self, action: Action) -> None:
        self.action = action

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _disable(self)


def enable(action: Action = "warn") -> _Enabled:
    """Switch the guard on, for the whole process: as a plain call until `disable()`, or in a `with` block.

    `action`: "warn" (`GuardWarning`) or "raise" (`GuardError`). Calls may be nested; the last one's action holds.
    `ValueError` for any other action.
    """
    if action not in ("warn", "raise"):
        raise ValueError(f'action must be "warn" or "raise", not {action!r}')
    with _guard.lock:
        if not _guard.hooked:
            sys.addaudithook(_guard.look)
            _guard.hooked = True
        user = _Enabled(action)
        _guard.users.append(user)
        _guard.action = action
        _watch_values()
    return user


def disable() -> None:
    """Undo the last `enable()`. `RuntimeError` if there was none."""
    _disable(None)


def _disable(user: _Enabled | None) -> None:
    with _guard.lock:
        users = _guard.users
        if not users or (user is not None and user not in users):
            raise RuntimeError("guard.disable() without guard.enable()")
        users.remove(user or users[-1])
        _guard.action = users[-1].action if users else None
        if _guard.action is None:
            _put_in(_PLAIN)
