"""Histories of concurrent calls, and whether they can be explained by calls that take place one after the other.

A history is linearizable if each call can be given a moment between its beginning and its end such that, in the order
of these moments, every call returns what a sequential model returns (Herlihy and Wing, "Linearizability", 1990). The
search is that of Wing and Gong, "Testing and Verifying Concurrent Objects", 1993, with Lowe's memory of the states that
were tried already ("Testing for linearizability", 2017).
"""

import itertools
import sys
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.support import together

#: From a state and the call's arguments to its result and the next state. States are immutable and hashable.
Model = Callable[..., tuple[Any, Hashable]]


@dataclass(frozen=True)
class Event:
    """One call: when it began and ended (on a common clock), what was called, and what came of it."""

    began: int
    ended: int
    name: str
    args: tuple[Any, ...]
    result: Any

    def __str__(self) -> str:
        return f"[{self.began}..{self.ended}] {self.name}{self.args} -> {self.result!r}"


def outcome(fn: Callable[..., Any], *args: Any) -> Any:
    """What a call returns, or the class of what it raises."""
    try:
        return fn(*args)
    except Exception as error:
        return type(error)


def record(scripts: Sequence[Sequence[tuple[str, Callable[..., Any], tuple[Any, ...]]]]) -> list[Event]:
    """Run scripts of calls `(name, function, arguments)`, each in a thread of its own; the history."""
    tick = itertools.count().__next__  # one C call, so it is a clock that all threads agree on

    def play(script: Sequence[tuple[str, Callable[..., Any], tuple[Any, ...]]]) -> list[Event]:
        events = []
        for name, fn, args in script:
            began = tick()
            result = outcome(fn, *args)
            events.append(Event(began, tick(), name, args, result))
        return events

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        return list(itertools.chain(*together(*(lambda script=script: play(script) for script in scripts))))
    finally:
        sys.setswitchinterval(interval)


def linearization(history: Sequence[Event], models: dict[str, Model], state: Hashable) -> list[Event] | None:
    """An order that explains the history; None if there is none."""
    everything = (1 << len(history)) - 1
    tried: set[tuple[int, Hashable]] = set()
    #: Calls done, the state after them, and who is to be tried next.
    path: list[tuple[int, Hashable, list[int]]] = [(0, state, _candidates(history, 0))]
    order: list[int] = []
    while path:
        done, state, candidates = path[-1]
        if done == everything:
            return [history[index] for index in order]
        if not candidates:
            path.pop()
            if order:
                order.pop()
            continue
        index = candidates.pop()
        event = history[index]
        result, after = models[event.name](state, *event.args)
        if type(result) is not type(event.result) or result != event.result:
            continue
        now = done | 1 << index
        if (now, after) not in tried:
            tried.add((now, after))
            order.append(index)
            path.append((now, after, _candidates(history, now)))
    return None


def _candidates(history: Sequence[Event], done: int) -> list[int]:
    """Who may come next: whoever began before any of those that are left had ended."""
    left = [index for index in range(len(history)) if not done >> index & 1]
    first_end = min((history[index].ended for index in left), default=0)
    return [index for index in left if history[index].began < first_end]


def assert_linearizable(history: Sequence[Event], models: dict[str, Model], state: Hashable) -> None:
    if linearization(history, models, state) is None:
        story = "\n".join(map(str, sorted(history, key=lambda event: event.began)))
        raise AssertionError(f"no sequential order of these calls explains their results, from {state!r}:\n{story}")
