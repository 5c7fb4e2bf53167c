"""`Work`: a function, its arguments, and how it wants to be run.

A work is a description, and can be submitted any number of times: each `put_work` makes one future, for one call.

>>> make_work(pow, 2, 5)
<Work pow(2, 5)>
>>> Work(sorted, ([2, 1],), {"reverse": True}, priority=5, category="reports", time_limit=10)
<Work sorted([2, 1], reverse=True) priority=5 category='reports' time_limit=10>
>>> Work("pow")
Traceback (most recent call last):
    ...
TypeError: a work is made of something that can be called, not 'pow'
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

KINDS = ("thread", "process")


class Options(NamedTuple):
    """How a work wants to be run; `PLAIN` is what nobody asked anything special for."""

    priority: int = 0
    category: str | None = None
    time_limit: float | None = None
    kind: str = "thread"
    reruns: int = 0


PLAIN = Options()


class Work:
    """A call of `fn(*args, **kwargs)` that is yet to be made.

    `priority`: works of a higher one are started first; equal ones in the order of their submission.
    `category`: a name under which works can be listed and cancelled together.
    `time_limit`: seconds that it may run. A process is stopped then; a thread, which can't be, is flagged
    (`current_work().overdue`) and replaced. Either way the future fails with `WorkTimeout`.
    `kind`: "thread", or "process" for what should not share the interpreter: the function, its arguments and its
    result must be picklable.
    `reruns`: how many times it may be run again after its worker died under it, before it fails with `WorkerLost`.

    `TypeError` and `ValueError` for anything else, at once.
    """

    __slots__ = ("args", "fn", "kwargs", "special")

    def __init__(
        self,
        fn: Callable[..., Any],
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        priority: int = 0,
        category: str | None = None,
        time_limit: float | None = None,
        kind: str = "thread",
        reruns: int = 0,
    ) -> None:
        if not callable(fn):
            raise TypeError(f"a work is made of something that can be called, not {fn!r}")
        if isinstance(args, (str, bytes)):
            raise TypeError(f"args is a tuple of the arguments; for the one argument {args!r} write ({args!r},)")
        self.fn = fn
        self.args = tuple(args)
        self.kwargs = {} if kwargs is None else dict(kwargs)
        #: The options, if they are not the ordinary ones. (`None` is shared by threads at no cost, also without a GIL.)
        self.special: Options | None = None
        if priority or category is not None or time_limit is not None or kind != "thread" or reruns:
            self.special = checked(Options(priority, category, time_limit, kind, reruns))

    @property
    def options(self) -> Options:
        """All that was asked for."""
        return self.special or PLAIN

    @property
    def priority(self) -> int:
        return self.options.priority

    @property
    def category(self) -> str | None:
        return self.options.category

    @property
    def time_limit(self) -> float | None:
        return self.options.time_limit

    @property
    def kind(self) -> str:
        return self.options.kind

    @property
    def reruns(self) -> int:
        return self.options.reruns

    def __repr__(self) -> str:
        shown = [reprlib.repr(value) for value in self.args]
        shown += [f"{name}={reprlib.repr(value)}" for name, value in self.kwargs.items()]
        given = self.options._asdict()
        special = "".join(f" {name}={value!r}" for name, value in given.items() if value != getattr(PLAIN, name))
        return f"<Work {function_name(self.fn)}({', '.join(shown)}){special}>"


def make_work(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Work:
    """A work of ordinary kind: `fn(*args, **kwargs)`. `TypeError` if `fn` can't be called."""
    return Work(fn, args, kwargs)


def checked(options: Options) -> Options:
    priority, category, time_limit, kind, reruns = options
    if isinstance(priority, bool) or not isinstance(priority, int):
        raise TypeError(f"priority is a whole number, higher is sooner; not {priority!r}")
    if category is not None and not isinstance(category, str):
        raise TypeError(f"category is a name, not {category!r}")
    if time_limit is not None:
        if isinstance(time_limit, bool) or not isinstance(time_limit, (int, float)):
            raise TypeError(f"time_limit is a number of seconds, or None; not {time_limit!r}")
        if not time_limit > 0:
            raise ValueError(f"time_limit must be more than nothing, not {time_limit!r} seconds")
    if kind not in KINDS:
        raise ValueError(f"kind is one of {', '.join(map(repr, KINDS))}, not {kind!r}")
    if isinstance(reruns, bool) or not isinstance(reruns, int):
        raise TypeError(f"reruns is a whole number, not {reruns!r}")
    if reruns < 0:
        raise ValueError(f"reruns can't be negative: {reruns!r}")
    return options


def function_name(fn: Any) -> str:
    """What statistics and pictures call a function: its qualified name."""
    try:
        name = fn.__qualname__
    except AttributeError:
        if type(fn) is partial and type(fn.func) is not partial:
            return function_name(fn.func)
    else:
        if type(name) is str:
            return name
    return type(fn).__qualname__
