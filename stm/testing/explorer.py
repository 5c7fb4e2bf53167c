"""`explore`: run a small program of several threads under every schedule, up to a bound, and show the first that fails.

Promises
--------
*Every schedule, once.* All interleavings of the program's steps with at most `preemptions` preemptions are run, those
with fewer first; a thread that ends, blocks or gives way hands over for free. `Exploration.complete` says whether all
were run. What a *step* is, `points` says: "steps", each line of the program's own code and each step of the protocol
(a read, a commit, a store, going to sleep); "lines", also each line of the core of `stm`, and each store of a
publication; "opcodes", each instruction of these, which is what another processor can see without the GIL.

*Deterministic, and replayable.* One thread runs at a time. The same program and schedule give the same run; a failure
has a short string, and `replay` runs it again. A program that does not do the same thing again, because it depends on
the time, on chance or on what an earlier schedule has left behind, is refused with a `RuntimeError` that says where.

*No sleep.* Time stands still while any thread can run; when all wait, it moves to the first deadline. Deadlock is
thus certain: all threads are blocked, and there is no deadline. Livelock is a run of more than `max_steps` steps, in
which threads that give way, or have run for long, let others run.

*Nothing is left*: no thread, waiter, lock or patch, whatever happens. `stm` pays nothing while nothing is explored.

What the program may do
-----------------------
It is a function without arguments, called anew for each schedule. It makes its variables, and returns the bodies of the
threads, or `(bodies, check)`, where `check` is called when all have ended. An exception that leaves a body, or `check`,
is a failure. Bodies may use all of `stm` but `stm.compiled` and `stm.aio`, whose steps are not seen; plain objects of
Python; and locks, conditions, events, semaphores, barriers and queues of `threading` and `queue` made within the
program. They must not start threads. A body that blocks on something else (a lock made elsewhere, `queue.SimpleQueue`,
a socket) stops everything: after `STUCK` seconds without a step `explore` raises a `RuntimeError` that names the line,
and leaves that thread behind. No other thread of the process may use `stm` meanwhile.

Cost: about a thousand schedules a second of two or three short threads. Their number is roughly
`threads * (steps * threads) ** preemptions`; so keep the program small, three or four transactions.

Errors: `ScheduleFailure`, an `AssertionError`; `TypeError` and `ValueError` for bad arguments; `RuntimeError` as above.

>>> from stm import TVar
>>> from stm.testing import explore, replay
>>> def program():
...     hits = TVar(0)
...     def hit():
...         hits.set(hits.get() + 1)  # two transactions: one reads, one writes
...     def check():
...         assert hits.get() == 2
...     return [hit, hit], check
>>> try:
...     explore(program)
... except AssertionError as failure:
...     print(failure.kind, failure.schedule)
check 0*3,1
>>> def fixed():
...     hits = TVar(0)
...     def hit():
...         hits.update(lambda value: value + 1)
...     def check():
...         assert hits.get() == 2
...     return [hit, hit], check
>>> explore(fixed).complete
True
"""

from __future__ import annotations

import sys

from stm.testing import _driver
from stm.testing._driver import Explorer, Program
from stm.testing._outcome import Deadlock, Exploration, Livelock, ScheduleFailure
from stm.testing._run import running
from stm.testing._schedule import NOWHERE, Node, Priorities, Search, decode

__all__ = ["Deadlock", "Exploration", "Livelock", "ScheduleFailure", "explore", "replay", "step"]


def explore(
    program: Program,
    *,
    preemptions: int = 2,
    random: int = 0,
    seed: int = 0,
    points: str = "steps",
    max_schedules: int | None = None,
    max_steps: int = 20_000,
    timeout: float | None = None,
) -> Exploration:
    """Run `program` under every schedule with at most `preemptions` preemptions, and then `random` ones beyond.

    See the module for what the program may be. `points`: "steps", "lines" or "opcodes". `seed` decides the random
    schedules (by priorities, with two changes more than `preemptions`). `max_schedules` and `timeout` (seconds) end the
    search early, and `complete` is then false. Raises `ScheduleFailure` for the first schedule that fails.
    """
    if not callable(program):
        raise TypeError(f"explore() takes a function without arguments that returns the bodies, not {program!r}")
    _whole("preemptions", preemptions, 0)
    _whole("random", random, 0)
    _whole("seed", seed, None)
    _whole("max_steps", max_steps, 1)
    if max_schedules is not None:
        _whole("max_schedules", max_schedules, 1)
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, (int, float))):
        raise TypeError(f"timeout must be a number of seconds or None, not {timeout!r}")
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"timeout must not be negative or NaN, got {timeout!r}; None searches without limit")
    with Explorer(program, points, max_steps) as explorer:
        end = None if timeout is None else explorer.began + timeout

        def may_go_on() -> bool:
            if max_schedules is not None and explorer.schedules >= max_schedules:
                return False
            return end is None or explorer.clock() < end

        search = Search(preemptions)
        complete = False
        while may_go_on():
            node = search.next()
            if node is None:
                complete = True
                break
            run = explorer.run(node)
            search.ran(node, bytes(run.picks), run.places, run.offers)
        for number in range(random):
            if not may_go_on():
                break
            chance = Priorities(f"{seed}:{number}", explorer.threads, explorer.longest, preemptions + 3)
            explorer.run(Node(b"", NOWHERE), chance)
        return explorer.result(complete, preemptions)


def replay(program: Program, schedule: str, *, points: str = "steps", max_steps: int = 20_000) -> Exploration:
    """Run one schedule again, as `ScheduleFailure.schedule` tells it. Raises what it raised then.

    `points` must be what it was then. `ValueError` for what is no schedule, or not one of this program.
    """
    if not callable(program):
        raise TypeError(f"replay() takes a function without arguments that returns the bodies, not {program!r}")
    picks = decode(schedule)
    _whole("max_steps", max_steps, 1)
    with Explorer(program, points, max_steps) as explorer:
        explorer.run(Node(picks, NOWHERE))
        return explorer.result(False, 0)


def step(name: str | None = None) -> None:
    """A step of one's own: a place where `explore` may switch, by this name in its reports. Does nothing elsewhere."""
    if name is not None and not isinstance(name, str):
        raise TypeError(f"step() takes a name, not {name!r}")
    run = running()
    if run is not None:
        assert _driver.under_way is not None
        _driver.under_way.places.own_step(name or "step", sys._getframe(1))


def _whole(name: str, value: object, least: int | None) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    if least is not None and value < least:
        raise ValueError(f"{name} must be at least {least}, not {value!r}")
