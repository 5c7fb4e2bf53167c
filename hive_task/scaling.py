"""How many workers there should be: pure decisions over an immutable picture of the load.

Nothing here looks at a clock or a queue, keeps anything, or starts a thread: the scheduler measures, asks `decide`, and
asks `next_look` how long it may sleep. The same `Load` always gives the same answer, so decisions can be replayed.

Promises:

1. *Within limits*: what `decide` answers is never below the minimum nor above the maximum.
2. *Grows when works block*: works wait, all workers are occupied, and processors are free. Up to the usual size
   (`Limits.start`) at once, beyond it after `PATIENCE`, by doubling, but to no more workers than there are works, and
   no more than would occupy the processors: workers * processors / those in use (B. Goetz, *Java Concurrency in
   Practice*, section 8.2). The more workers there are, the longer is measured before there are more still.
3. *Does not grow when works compute*: with as many workers as processors, one more would only take turns with the
   others. With the GIL, works that compute in Python have one processor between them, whatever the machine has.
4. *Relieves a deadlock*: if nothing was begun or finished for `STALLED` seconds and works wait for futures, it grows
   even if something occupies the processors, one worker at a time, while fewer works than processors really run.
5. *Comes to rest*: after `REST` seconds in which no work had to wait for a worker, back to the usual size in halving
   steps; after `LONG_REST` seconds to the minimum. Only idle workers are let go, and no more than the load needs; as
   any wait for a worker starts the time anew, the number does not flap.
6. *No polling at rest*: at the minimum, and for a fixed number of workers, `next_look` is `None`.

What it can't see: a work that waits in a loop (polling) computes; works that wait for a lock that another one holds
block, and more workers do not help them (the maximum bounds it). `Scheduler.resize` is there for those who know better.

Costs: two to eight microseconds each. No errors, except those of `Limits` and `limits`.

>>> from dataclasses import replace
>>> load = Load(limits=Limits(1, 2, 32), workers=2, queued=40, oldest_wait=0.3, interval=0.1, cpu=0.2, cpus=2)
>>> decide(load)
Decision(workers=4, reason='40 works wait, the oldest for 0.3 s; the works block: 0.2 of 2 processors are in use')
>>> decide(replace(load, cpu=1.96))
Decision(workers=2, reason='40 works wait, but 2.0 of 2 processors are in use: the works compute')
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, replace

from hive_task.hardware import Hardware, detect

#: Seconds that a work may have to wait for a worker before there are more than usual.
PATIENCE = 0.1

#: Seconds between looks while works wait, at the usual number of workers; at twice as many, twice as long, so that the
#: works that a growth let begin show in what is measured, before it grows again.
LOOK = 0.1

#: Seconds between looks while growing would not help, and the longest while works wait.
SLOW_LOOK = 1.0

#: Seconds without any progress, after which a deadlock is likely. (.NET's pool waits half a second to add a thread.)
STALLED = 1.0

#: Seconds without a wait for a worker, before workers beyond the usual number go, and before those below it go; and
#: between two steps.
REST, LONG_REST, STEP = 10.0, 60.0, 2.0

#: Bytes for a worker and what its works hold, at a guess: it keeps the number small where memory is.
PER_WORKER = 32 << 20

#: The default of the maximum: four times the processors (works that block three quarters of their time), but as many
#: as `ThreadPoolExecutor` has at most, even on a small machine: works that block need no processor. The other bound is
#: where threads are the wrong means; who wants more says so.
SMALLEST_MAXIMUM, LARGEST_MAXIMUM = 32, 256

#: Processors are never all in use all of the time. The machine's are more seldom so by mistake.
SATURATED, MACHINE_SATURATED = 0.9, 0.95

#: Processors in use when threads take turns with the GIL: one, less what is lost and more what runs beside it.
GIL_SATURATED, GIL_EXCEEDED = 0.85, 1.25


@dataclass(frozen=True, slots=True)
class Limits:
    """`1 <= minimum <= start <= maximum`, else `ValueError`; `start` is the usual number, to which the others lead."""

    minimum: int
    start: int
    maximum: int

    def __post_init__(self) -> None:
        if self.minimum < 1:
            raise ValueError(f"there must be at least one worker, so the minimum can't be {self.minimum}")
        if self.minimum > self.maximum:
            raise ValueError(f"the minimum of {self.minimum} workers is more than the maximum of {self.maximum}")
        if not self.minimum <= self.start <= self.maximum:
            bounds = f"the minimum {self.minimum} and the maximum {self.maximum}"
            raise ValueError(f"{self.start} workers are not between {bounds}")


def limits(
    workers: int | None = None,
    minimum: int | None = None,
    maximum: int | None = None,
    hardware: Hardware | None = None,
) -> Limits:
    """The limits that these arguments of a scheduler mean. `hardware`: what `detect` finds, where it is needed.

    `workers=None`: as many as processors, rounded up; but not more than memory allows (`PER_WORKER`), and fewer where
    the machine's load shows others at work, down to half: the operating system lets us have our share, and should they
    stop, the number grows as works wait. The minimum is then 1 and the maximum `SMALLEST_MAXIMUM` or more, as memory
    allows; what is given overrides all of this. `workers=n`: exactly so many, unless a minimum or maximum is given too.

    `TypeError` for what is not an integer, `ValueError` for less than one, and for what is not in order.

    >>> limits(4)
    Limits(minimum=4, start=4, maximum=4)
    >>> limits(hardware=Hardware(cpus=1.5, logical=8, load=0.2))
    Limits(minimum=1, start=2, maximum=32)
    """
    workers, minimum, maximum = _count("workers", workers), _count("minimum", minimum), _count("maximum", maximum)
    if workers is not None:
        return Limits(minimum or min(workers, maximum or workers), workers, maximum or max(workers, minimum or 1))
    if minimum and maximum and minimum > maximum:
        return Limits(minimum, minimum, maximum)  # which says what is wrong
    hardware = hardware or detect()
    room = LARGEST_MAXIMUM if hardware.available is None else max(1, hardware.available // PER_WORKER)
    usual = min(_usual(hardware), room)
    largest = maximum or max(minimum or 1, usual, min(max(4 * usual, SMALLEST_MAXIMUM), LARGEST_MAXIMUM, room))
    smallest = minimum or 1
    return Limits(smallest, min(max(usual, smallest), largest), largest)


def _count(name: str, given: int | None) -> int | None:
    if given is None:
        return None
    try:
        count = operator.index(given)
    except TypeError:
        count = None
    if count is None or isinstance(given, bool):
        raise TypeError(f"{name} must be an integer, or None for what suits the machine, not {given!r}")
    if count < 1:
        raise ValueError(f"{name} must be 1 or more, or None for what suits the machine, not {count}")
    return count


def _usual(hardware: Hardware) -> int:
    processors = max(1, math.ceil(hardware.cpus))
    if hardware.load is None or not hardware.logical:
        return processors
    others = max(0.0, hardware.load - 1)  # one may well have been this process, until now
    return min(processors, max(math.ceil(processors / 2), math.ceil(hardware.logical - others)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What the scheduler measures between two looks. Times in seconds; "lately": within the last `interval`.

    `workers`: alive, and not leaving. `idle`: of these, without a work. `queued`: works that a new worker could begin
    at once. `running`: begun and not finished; `waiting`: of these, those that wait for a future. `oldest_wait`: how
    long the oldest queued work has waited. `busy`: fraction of the workers' time lately that was spent in works.

    `cpu`: processors in use lately by this process and its worker processes (seconds of processor time a second);
    `cpus`: those that may be used; `machine`: fraction of all the machine's that were in use, by whomever (`Usage`).
    `gil`: see `Hardware`. `interval`: since the look before this one.

    `idle_for`: since a work was last queued while no worker was idle. `since_change`: since the number of workers was
    last changed. `since_progress`: since a work was last begun or finished. `guess`: how long the queued works will
    take, one after the other, according to what their functions took so far; `None`: no idea.
    """

    limits: Limits
    workers: int
    idle: int = 0
    queued: int = 0
    running: int = 0
    waiting: int = 0
    oldest_wait: float = 0.0
    busy: float = 0.0
    cpu: float = 0.0
    cpus: float = 1.0
    machine: float | None = None
    gil: bool = False
    interval: float = 0.0
    idle_for: float = 0.0
    since_change: float = math.inf
    since_progress: float = 0.0
    guess: float | None = None

    @property
    def short(self) -> bool:
        """Works wait, and there is no worker who could begin one."""
        return self.queued > 0 and self.idle <= 0


@dataclass(frozen=True, slots=True)
class Decision:
    """How many workers there should be, and why; the present number also has its reason."""

    workers: int
    reason: str


def decide(load: Load) -> Decision:
    """How many workers there should be now. See the module for what that promises."""
    if load.workers > load.limits.maximum:
        return Decision(load.limits.maximum, f"{load.workers} workers are more than the maximum")
    if load.workers < load.limits.minimum:
        return Decision(load.limits.minimum, f"{load.workers} workers are fewer than the minimum")
    return _grow(load) if load.short else _shrink(load)


def next_look(load: Load) -> float | None:
    """Seconds after which to look again, if this load was the last that was measured, and what it led to was done.

    `None`: not before something happens. Whatever was said here, the scheduler looks at once when a worker is lost,
    when the limits change, and (unless minimum and maximum are the same) when a work is queued while no worker is
    idle and the load it looked at last was not `short` already: so it measures a shortage from its beginning.
    """
    limits, workers, decided = load.limits, load.workers, decide(load).workers
    if decided > workers or (load.short and limits.minimum < limits.maximum):
        return SLOW_LOOK if decided == workers and _futile(load) else _pace(replace(load, workers=decided))
    if decided <= limits.minimum:
        return None
    if decided < workers:
        return STEP
    rest = _resting(load)[1]
    return max(LOOK, STEP - load.since_change, rest - load.idle_for if load.idle_for < rest else REST)


def _grow(load: Load) -> Decision:
    limits, workers = load.limits, load.workers
    wait = f"{load.queued} works wait"
    room = min(limits.maximum, workers + load.queued)
    if workers < limits.start:
        return Decision(min(limits.start, room), f"{wait}, and there are fewer workers than the usual {limits.start}")
    if (futile := _futile(load)) is not None:
        return Decision(workers, f"{wait}, but {futile}")
    wait += f", the oldest for {load.oldest_wait:.3g} s"
    pace = _pace(load)
    if load.oldest_wait < PATIENCE or load.since_change < 0.75 * pace:
        return Decision(workers, f"{wait}: too early to tell")
    if not pace / 2 <= load.interval <= max(2 * load.oldest_wait, 1.5 * pace):
        return Decision(workers, f"{wait}: what was measured in {load.interval:.3g} s was not this load")
    if _stalled(load) and _saturated(load):
        return Decision(workers + 1, f"{wait}; {load.waiting} wait for futures; {_standstill(load)}")
    believed = load.oldest_wait < 3 * PATIENCE  # a wait so much longer than the guess disproves that
    if not _stalled(load) and believed and load.guess is not None and load.guess / workers < PATIENCE:
        return Decision(workers, f"{wait}, but all will be begun in about {load.guess / workers:.2g} s")
    why = _standstill(load) if _stalled(load) else f"the works block: {_in_use(load)}"
    return Decision(min(room, 2 * workers, _occupying(load)), f"{wait}; {why}")


def _pace(load: Load) -> float:
    """Seconds between looks while works wait. What is compared with it leaves room for looks a little too early."""
    return min(SLOW_LOOK, LOOK * max(1.0, load.workers / load.limits.start))


def _futile(load: Load) -> str | None:
    """Why more workers would do no good, if that is so."""
    if load.workers >= load.limits.maximum:
        return f"{load.workers} workers are the maximum"
    running = load.running - load.waiting
    if _stalled(load) and load.waiting > 0 and running < load.cpus:
        return None
    return _saturated(load)


def _saturated(load: Load) -> str | None:
    if load.cpu >= SATURATED * load.cpus:
        return f"{_in_use(load)}: the works compute"
    if load.machine is not None and load.machine >= MACHINE_SATURATED:
        return f"{load.machine:.0%} of the machine's processors are in use"
    if _in_turns(load) and load.cpu >= GIL_SATURATED:
        return f"{_in_use(load)}: the works take turns with the GIL"
    return None


def _in_turns(load: Load) -> bool:
    """Do the works compute in Python, as far as one can tell, and so have one processor between them? Machine code may
    run without the GIL; until there is a worker for each processor, growing is the way to find out."""
    return load.gil and load.cpu <= GIL_EXCEEDED and load.workers >= load.cpus


def _occupying(load: Load) -> int:
    """How many workers would occupy the processors, if they went on as lately; one more than now, at the least."""
    processors = 1.0 if _in_turns(load) else load.cpus
    enough = load.workers * processors / load.cpu if load.cpu > 0 else math.inf
    return max(load.workers + 1, math.ceil(load.cpus), math.ceil(min(enough, load.limits.maximum)))


def _stalled(load: Load) -> bool:
    return load.since_progress >= STALLED


def _standstill(load: Load) -> str:
    return f"nothing was begun or finished for {load.since_progress:.3g} s"


def _in_use(load: Load) -> str:
    return f"{load.cpu:.1f} of {load.cpus:g} processors are in use"


def _shrink(load: Load) -> Decision:
    workers = load.workers
    floor, rest = _resting(load)
    if workers <= floor:
        return Decision(workers, f"{load.idle} of {workers} workers are idle, which is the minimum")
    needed = max(floor, workers - load.idle + load.queued, math.ceil(1.25 * load.busy * workers) + 1)
    if needed >= workers:
        return Decision(workers, f"{load.idle} of {workers} workers are idle; {load.busy:.0%} of their time is needed")
    idle = f"no work had to wait for a worker for {load.idle_for:.3g} s"
    if load.idle_for < rest or load.since_change < STEP:
        return Decision(workers, f"{load.idle} of {workers} workers are idle, but {idle} only")
    return Decision(
        workers - (workers - needed + 1) // 2, f"{idle}; {load.busy:.0%} of {workers} workers' time is needed"
    )


def _resting(load: Load) -> tuple[int, float]:
    """To how many workers the number may go down, and after how much rest."""
    limits = load.limits
    return (limits.start, REST) if load.workers > limits.start else (limits.minimum, LONG_REST)
