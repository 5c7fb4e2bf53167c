"""`inject`: an exception, a delay, a call, or a thread's end, at a named point inside the protocol.

Promises: whatever is injected happens at that line of the running transaction, in the thread that comes there, as often
as asked and no more; `struck` counts. What is not injected into runs unchanged: while no injection is active `stm` runs
as if this module did not exist, and while one is, only the functions that have the point are slower (CPython 3.12 and
later) or only the threads that are covered (3.11).

What there is to inject:

- `exception`, a class or an instance, is raised as if a signal handler had raised it there. Inside a body, at `read`
  for instance, an `Exception` can't be told from one of the body's own: if what the body had read is stale, the body
  runs again. `KeyboardInterrupt`, which is no `Exception`, always leaves the call.
- `delay`, seconds to sleep, or a `threading.Event` to wait for: so a test decides what happens meanwhile. An event that
  is not set within `PATIENCE` seconds raises `TimeoutError` there. A delay goes before what else is injected.
- `call`, a function to call there without arguments, as a signal handler or a finalizer would be. What it does with
  transactional variables joins the transaction where a body runs, and is its own where the library is at work (see
  `stm/atomically.py`). In the thread that it runs in, nothing else is struck meanwhile.
- `die=True`: the thread ends there. It is the model of a thread that is told from outside to end, and that nobody holds
  up: an exception of a class of its own, `Death`, which is no `Exception`, unwinds it, `finally` and `except` clauses
  run, and if it leaves the target of a `threading.Thread`, nothing is printed. In the main thread it is an exception
  like others. It can't model a thread that vanishes with the lock in hand: CPython knows no such thing, except the end
  of the whole process.
- `exit=True` is that: `os._exit(EXIT_STATUS)`, as if the process were killed there. No clause runs, nothing is flushed.
  For tests of what processes share; so let a child process say it.

At most points a handler could really come in between. Where it could not (`Point.indivisible`), only a delay or the end
of the process can be injected. A delay holds up whatever the thread holds: at `commit.validated`, all other commits.

How. From CPython 3.12 on `sys.monitoring` tells of the lines of those functions that have the point, in all threads;
the tool identifier that this takes is free again when no injection is active. On 3.11 `sys.settrace` does, in threads
that enter an injection and in those that start while one is active, not in others; what else traces them, a debugger or
a measurement of coverage, is suspended meanwhile. Either is Python code that runs between two lines, and so gives
signal handlers an opportunity where the library relies on there being none: while an injection is active, no handler
may raise in a thread that is covered (the same goes for any tracer). Machine code has no points, and compiled
transactions consist of it: only `arrays.join` and `arrays.extend` concern arrays, where ordinary transactions use them.

>>> from stm import TVar, run
>>> from stm.testing.injection import inject
>>> x = TVar(0)
>>> with inject("commit.validated", KeyboardInterrupt) as injection:
...     try:
...         run(x.set, 1)
...     except KeyboardInterrupt:
...         print("interrupted")
interrupted
>>> injection.struck, x.value
(1, 0)
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from types import CodeType, FrameType, TracebackType
from typing import Any, Final

from stm.testing.protocol import Place, Point, Site, find, generated_codes, made_by

__all__ = ["EXIT_STATUS", "PATIENCE", "Death", "Injection", "inject"]

#: Seconds for which a delay waits for its event.
PATIENCE: Final = 60.0

#: What the process ends with where `exit=True` strikes.
EXIT_STATUS: Final = 70


class Death(BaseException):
    """Ends the thread that `inject(..., die=True)` strikes."""


class Injection:
    """What `inject` returns: a context manager, active between its entry and its exit. For one use.

    `struck` says how often it has struck. `arrived` is a `threading.Event`, set when it first does, before anything is
    done about it: so another thread can wait until this one is held up at the point.
    """

    def __init__(
        self,
        point: Point,
        delay: float | threading.Event | None,
        act: Callable[[], object] | None,
        times: int | None,
        after: int,
        thread: threading.Thread | int | None,
    ) -> None:
        self.point = point.name
        self.struck = 0
        self.arrived = threading.Event()
        self._point = point
        self._delay = delay
        self._act = act
        self._times = times
        self._after = after
        self._thread = thread
        self._state = "new"
        self._counting = threading.Lock()

    def __repr__(self) -> str:
        return f"<injection at {self.point!r}, {self._state}, struck {self.struck}>"

    def __enter__(self) -> Injection:
        if self._state != "new":
            raise RuntimeError(f"{self!r} has been entered before; call inject() again")
        self._state = "active"
        try:
            _start(self)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._state = "over"
        _stop(self)

    @property
    def spent(self) -> bool:
        """Has it struck as often as it is to?"""
        return self._state == "over" or (self._times is not None and self.struck >= self._times)

    def _arrive(self) -> None:
        """A thread has come to the point."""
        if self._thread is not None:
            thread = self._thread.ident if isinstance(self._thread, threading.Thread) else self._thread
            if thread != threading.get_ident():
                return
        with self._counting:
            if self.spent:
                return
            if self._after:
                self._after -= 1
                return
            self.struck += 1
        self.arrived.set()
        if isinstance(self._delay, threading.Event):
            if not self._delay.wait(PATIENCE):
                raise TimeoutError(f"the event that was to end the delay at {self.point!r} did not come")
        elif self._delay is not None:
            time.sleep(self._delay)
        if self._act is not None:
            self._act()


def inject(
    point: str,
    exception: BaseException | type[BaseException] | None = None,
    *,
    delay: float | threading.Event | None = None,
    die: bool = False,
    exit: bool = False,
    call: Callable[[], object] | None = None,
    times: int | None = 1,
    after: int = 0,
    thread: threading.Thread | int | None = None,
) -> Injection:
    """While the returned context manager is active, strike whoever comes to `point`. See the module for what with.

    `times`: how often at most; `None`: whenever one comes there. `after`: how often to let pass before. `thread`: only
    this one is struck and counts (or that of this identifier). Injections may be nested; at the same point the outer
    one comes first.

    `ValueError` for an unknown point, with names like it; for nothing to do, or for two things that exclude each other;
    for a number out of range; and for a strike at a point that is indivisible. `TypeError` for what has the wrong type.
    On entering, `RuntimeError` if all tools of `sys.monitoring` are taken, `LookupError` if the library's source can't
    be read, or isn't what `points.py` expects.
    """
    found = find(point)
    acts = {"exception": exception is not None, "die": bool(die), "exit": bool(exit), "call": call is not None}
    chosen = [name for name, is_chosen in acts.items() if is_chosen]
    if len(chosen) > 1:
        raise ValueError(f"{' and '.join(chosen)} exclude each other: inject one of them")
    if not chosen and delay is None:
        raise ValueError("nothing to inject: give exception, delay, call, die=True or exit=True")
    if found.indivisible and chosen not in ([], ["exit"]):
        raise ValueError(
            f"nothing can strike at {point!r}: CPython delivers no exception and runs no handler there; "
            "inject a delay, or exit=True"
        )
    return Injection(
        found,
        _checked_delay(delay),
        _action(exception, die, exit, call),
        None if times is None else _checked_count("times", times, 1),
        _checked_count("after", after, 0),
        _checked_thread(thread),
    )


def _action(exception: Any, die: bool, exit: bool, call: Callable[[], object] | None) -> Callable[[], object] | None:
    if die:
        return _die
    if exit:
        return _exit
    if call is not None and not callable(call):
        raise TypeError(f"call must be a function without arguments, not {call!r}")
    if exception is None:
        return call
    if not isinstance(exception, BaseException) and not (
        isinstance(exception, type) and issubclass(exception, BaseException)
    ):
        raise TypeError(f"exception must be an exception class or instance, not {exception!r}")

    def throw() -> None:
        raise exception

    return throw


def _checked_delay(delay: object) -> float | threading.Event | None:
    if delay is None or isinstance(delay, threading.Event):
        return delay
    if isinstance(delay, bool) or not isinstance(delay, (int, float)):
        raise TypeError(f"delay must be a number of seconds or a threading.Event, not {delay!r}")
    if not 0 <= delay <= threading.TIMEOUT_MAX:
        raise ValueError(f"delay must be a finite number of seconds, not negative, got {delay!r}")
    return float(delay)


def _checked_count(name: str, count: object, least: int) -> int:
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"{name} must be an integer, not {count!r}")
    if count < least:
        raise ValueError(f"{name} must be at least {least}, got {count!r}")
    return count


def _checked_thread(thread: object) -> threading.Thread | int | None:
    if thread is None or isinstance(thread, threading.Thread) or (type(thread) is int):
        return thread
    raise TypeError(f"thread must be a threading.Thread or a thread's identifier, not {thread!r}")


# ------------------------------------------------------------------------------------------------ what is active

_changing = threading.RLock()
_injections: list[Injection] = []
#: Filename, line and function to the injections there (on 3.11 a comprehension in that line is a function of its own);
#: replaced as a whole, so that it is read without the lock.
_at: dict[tuple[str, int, str], tuple[Injection, ...]] = {}


def _start(injection: Injection) -> None:
    with _changing:
        if injection._act is _die:
            _mourning.begin()
        _injections.append(injection)
        _update()
    _tracing.begin(injection)


def _stop(injection: Injection) -> None:
    _tracing.end(injection)
    with _changing:
        if injection in _injections:
            _injections.remove(injection)
            _update()
            if injection._act is _die:
                _mourning.end()


def _update() -> None:
    global _at
    at: dict[tuple[str, int, str], tuple[Injection, ...]] = {}
    for injection in _injections:
        for place in injection._point.places:
            key = place.filename, place.line, place.codes[0].co_name
            at[key] = (*at.get(key, ()), injection)
    _at = at
    sites = [pair for injection in _injections for pair in injection._point.pairs]
    _tracing.watch(sites)


def _arrive(code: CodeType, line: int) -> None:
    for injection in _at.get((code.co_filename, line, code.co_name), ()):
        injection._arrive()


class _Mourning:
    """Keeps `threading.excepthook` silent about deaths, and about nothing else, while some are injected."""

    def __init__(self) -> None:
        self.before: Callable[[Any], object] | None = None
        self.users = 0
        self.dying: list[threading.Thread] = []

    def begin(self) -> None:
        self.users += 1
        if self.before is None:
            self.before = threading.excepthook
            threading.excepthook = self.hook

    def end(self) -> None:
        self.users -= 1
        self.dying = [thread for thread in self.dying if thread.is_alive() and thread is not threading.current_thread()]
        # Who is still on its way out would be heard of after all. Then the next one to end restores what was there.
        if not self.users and not self.dying and threading.excepthook == self.hook and self.before is not None:
            threading.excepthook, self.before = self.before, None

    def hook(self, args: Any) -> None:
        if not issubclass(args.exc_type, Death):
            (self.before or threading.__excepthook__)(args)


_mourning: Final = _Mourning()


def _die() -> None:
    _mourning.dying.append(threading.current_thread())
    raise Death


def _exit() -> None:
    os._exit(EXIT_STATUS)


# -------------------------------------------------------------------------------------------- how CPython tells us

if sys.version_info >= (3, 12):

    class _Tracing:
        """`sys.monitoring`: each change is made under `_changing`, and concerns all threads."""

        def __init__(self) -> None:
            self.tool: int | None = None
            self.codes: dict[CodeType, int] = {}

        def begin(self, injection: Injection) -> None:
            pass

        def end(self, injection: Injection) -> None:
            pass

        def watch(self, sites: list[tuple[Site, Place]]) -> None:
            from stm import quick

            events = sys.monitoring.events
            wanted: dict[CodeType, int] = {}
            generated = False
            for site, place in sites:
                wanted.update(dict.fromkeys(place.codes, events.LINE))
                generated = generated or site.generated
            if generated:  # first, so that none is missed
                wanted[quick._compile.__code__] = events.PY_RETURN
                self.set(wanted)
                wanted.update(dict.fromkeys(generated_codes(), events.LINE))
            self.set(wanted)

        def set(self, wanted: dict[CodeType, int]) -> None:
            monitoring = sys.monitoring
            if self.tool is None and wanted:
                self.tool = self.take()
            tool = self.tool
            if tool is None:
                return
            for code in [code for code in self.codes if code not in wanted]:
                del self.codes[code]
                monitoring.set_local_events(tool, code, 0)
            for code, events in wanted.items():
                if self.codes.get(code) != events:
                    self.codes[code] = events
                    monitoring.set_local_events(tool, code, events)
            if not wanted:
                monitoring.register_callback(tool, monitoring.events.LINE, None)
                monitoring.register_callback(tool, monitoring.events.PY_RETURN, None)
                monitoring.free_tool_id(tool)
                self.tool = None

        def take(self) -> int:
            monitoring = sys.monitoring
            for tool in (4, 3, monitoring.OPTIMIZER_ID, monitoring.PROFILER_ID, monitoring.DEBUGGER_ID):
                try:
                    monitoring.use_tool_id(tool, "stm.testing.injection")
                except ValueError:
                    continue
                monitoring.register_callback(tool, monitoring.events.LINE, self.line)
                monitoring.register_callback(tool, monitoring.events.PY_RETURN, self.made)
                return tool
            raise RuntimeError("inject() needs a tool identifier of sys.monitoring, and others have taken all of them")

        def line(self, code: CodeType, line: int) -> None:
            _arrive(code, line)

        def made(self, code: CodeType, offset: int, make: Any) -> None:
            """`stm/quick.py` has made another function with the same lines."""
            with _changing:
                if self.tool is not None and code in self.codes:
                    self.set({**self.codes, made_by(make): sys.monitoring.events.LINE})

else:

    class _Tracing:
        """`sys.settrace`, in each thread that enters an injection, and in those that start meanwhile."""

        def __init__(self) -> None:
            self.files: frozenset[str] = frozenset()
            #: The injections that each thread has entered, and what traced it before; what was to trace new threads.
            self.entered: dict[int, tuple[list[Injection], Any]] = {}
            self.others: Any = None

        def begin(self, injection: Injection) -> None:
            if not self.entered:
                self.others = threading.gettrace()
                threading.settrace(self.trace)
            mine, _ = self.entered.setdefault(threading.get_ident(), ([], sys.gettrace()))
            mine.append(injection)
            self.resume(sys._getframe())

        def end(self, injection: Injection) -> None:
            me = threading.get_ident()
            mine, before = self.entered.get(me, ([], None))
            if injection not in mine:
                return
            mine.remove(injection)
            if mine:
                self.resume(None)  # a strike may have ended it
                return
            del self.entered[me]
            sys.settrace(before)
            if not self.entered:
                threading.settrace(self.others)

        def watch(self, sites: list[tuple[Site, Place]]) -> None:
            self.files = frozenset(place.filename for _, place in sites)

        def resume(self, frame: FrameType | None) -> None:
            """Trace this thread, also the functions that it is in already."""
            sys.settrace(self.trace)
            while frame is not None:
                if frame.f_code.co_filename in self.files and frame.f_trace is None:
                    frame.f_trace = self.trace
                frame = frame.f_back

        def trace(self, frame: FrameType, event: str, arg: object) -> Any:
            if frame.f_code.co_filename not in self.files:
                return None
            if event == "line":
                try:
                    _arrive(frame.f_code, frame.f_lineno)
                except BaseException:
                    if not all(injection.spent for injection in _injections):
                        self.resume_later()
                    raise
            return self.trace

        def resume_later(self) -> None:
            """CPython stops tracing where a trace function raises. The thread's next call or return starts it again."""
            before: Any = sys.getprofile()

            def profile(frame: FrameType, event: str, arg: object) -> None:
                sys.setprofile(before)
                if _injections:
                    self.resume(frame)

            sys.setprofile(profile)


_tracing: Final = _Tracing()
