"""An exploration under way: its threads and patches, and what the thread that drives it does for each schedule."""

from __future__ import annotations

import gc
import sys
import threading
import time
from _thread import get_ident
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Final, NoReturn

from stm.clock import clock
from stm.testing._cooperative import RLock, clear, patched, start_afresh
from stm.testing._outcome import KINDS, Exploration, ScheduleFailure
from stm.testing._places import GRAINS, Places
from stm.testing._report import report
from stm.testing._run import Run, driving, line_of, running, taking_part
from stm.testing._schedule import MOST_THREADS, NOWHERE, Node, Priorities, encode
from stm.testing._threads import Gate, Worker
from stm.transaction import descriptor, here

Body = Callable[[], object]
Program = Callable[[], Any]

#: Seconds without a step after which a thread counts as blocked on something that is not explored.
STUCK: Final = 10.0
#: Runs between two collections of garbage, which is left alone meanwhile: a finalizer would be a step of its own.
COLLECT_EVERY: Final = 256
#: Runs of one schedule until all code is known (see `Places.met`).
_TRIES: Final = 8


_one_at_a_time = threading.Lock()
under_way: Explorer | None = None


class Explorer:
    """The threads, patches and counters of one exploration."""

    def __init__(self, program: Program, points: str, max_steps: int) -> None:
        if points not in GRAINS:
            raise ValueError(f"points must be one of {', '.join(map(repr, GRAINS))}, not {points!r}")
        self.program = program
        self.places = Places(points)
        self.max_steps = max_steps
        self.gate: Gate
        self.workers: list[Worker] = []
        self.threads = 0
        self.schedules = self.steps = self.longest = 0
        self.clock = time.monotonic
        self.began = self.clock()
        self.locks: list[RLock] = []
        self._patches = patched(self.places)
        self._collects = gc.isenabled()

    def __enter__(self) -> Explorer:
        global under_way
        if running() is not None or get_ident() in driving:
            raise RuntimeError("explore() within a program that is explored")
        if descriptor().writes is not None:
            raise RuntimeError("explore() inside a transaction")
        if not _one_at_a_time.acquire(False):
            raise RuntimeError("explore() in two threads at once: it replaces parts of stm for the whole process")
        try:
            if clock.sleepers or clock.snapshots or clock.owner is not None:
                raise RuntimeError("explore() while other threads of this process are in transactions")
            self.gate = Gate()
            gc.disable()
            driving[get_ident()] = None
            self.locks = self._patches.__enter__()
            under_way = self
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for worker in self.workers:
                worker.stop()
                taking_part.pop(worker.ident or 0, None)
        finally:
            try:
                self._patches.__exit__(None, None, None)
            finally:
                if all(worker.done for worker in self.workers):  # else one may still come back, and open it
                    self.gate.close()
                self._leave()

    def _leave(self) -> None:
        global under_way
        under_way = None
        driving.pop(get_ident(), None)
        if self._collects:
            gc.enable()
        _one_at_a_time.release()

    def result(self, complete: bool, preemptions: int) -> Exploration:
        seconds = self.clock() - self.began
        return Exploration(self.schedules, complete, preemptions, self.steps, self.longest, seconds)

    def run(self, node: Node, chance: Priorities | None = None) -> Run:
        """Run one schedule. Raises `ScheduleFailure` if it fails."""
        for _ in range(_TRIES):
            met = self.places.met
            run, error = self._run(node, chance)
            if self.places.grain != "opcodes" or self.places.met == met:
                break
        self.schedules += 1
        self.steps += len(run.picks)
        self.longest = max(self.longest, len(run.picks))
        if not self.schedules % COLLECT_EVERY:
            gc.collect()
        self._refuse_misfit(run, node)
        if run.failed is not None or error is not None:
            self._fail(run, error)
        return run

    def _run(self, node: Node, chance: Priorities | None, detailed: bool = False) -> tuple[Run, Exception | None]:
        start_afresh()
        bodies, check = self._make()
        workers = self.workers[: len(bodies)]
        describe = self.places.describe if detailed else None
        run = Run(workers, self.gate, node.picks, chance, self.max_steps, self.places.where, describe)
        self.places.run = run
        for worker, body in zip(workers, bodies, strict=True):
            worker.enlist(run, body)
            assert worker.ident is not None
            taking_part[worker.ident] = run
        driving[get_ident()] = run
        try:
            run.start()
            self._wait(run)
        except BaseException:
            run.abandoned = True
            if not run.gate.wait_for(STUCK):  # else: who is stuck stays, as a daemon
                raise
            clear()
            raise
        finally:
            driving[get_ident()] = None
        error = None
        if run.abandoned:
            clear()
        elif check is not None:
            try:
                check()
            except Exception as caught:
                error = caught
        return run, error

    def _make(self) -> tuple[list[Body], Body | None]:
        made = self.program()
        check: Body | None = None
        if isinstance(made, tuple) and len(made) == 2 and not callable(made[0]) and callable(made[1]):
            made, check = made
        if not isinstance(made, Iterable):
            raise TypeError(f"the program must return the bodies, or (bodies, check), not {made!r}")
        bodies = list(made)
        for body in bodies:
            if not callable(body):
                raise TypeError(f"the program must return callables, and {body!r} is none")
        if not bodies:
            raise ValueError("the program returned no bodies")
        if len(bodies) > MOST_THREADS:
            raise ValueError(f"the program returned {len(bodies)} bodies, and {MOST_THREADS} is the limit")
        self.threads = len(bodies)
        self.names = [f"T{number} {_name(body)}" for number, body in enumerate(bodies)]
        while len(self.workers) < len(bodies):
            worker = Worker(len(self.workers), self.places.arm, self._tidy)
            driver = driving.pop(get_ident())  # so that this thread may be started
            try:
                worker.start()
            finally:
                driving[get_ident()] = driver
            self.workers.append(worker)
        return bodies, check

    def _tidy(self) -> None:
        """After a body, in its thread: it starts afresh in the next run."""
        for lock in self.locks:
            lock.let_go()
        if hasattr(here, "tx"):
            del here.tx

    def _wait(self, run: Run) -> None:
        limit, seen = self.clock() + STUCK, -1
        while not run.gate.wait_for(min(1.0, STUCK)):
            if len(run.picks) != seen:
                limit, seen = self.clock() + STUCK, len(run.picks)
            elif self.clock() > limit:
                stuck = run.current
                frame = sys._current_frames().get(stuck.ident or 0)
                place = "" if frame is None else f" at {line_of(frame.f_code.co_filename, frame.f_lineno)}"
                raise RuntimeError(
                    f"{self.names[stuck.number]} has taken no step for {STUCK:g} s{place}: it is blocked on something "
                    "that is not explored. Make locks and queues within the program; see stm.testing.explorer"
                )

    def _refuse_misfit(self, run: Run, node: Node) -> None:
        count = len(node.picks)
        if run.misfit or (node.places and run.places[: count - 1] != node.places[: count - 1]):
            if not node.places:
                raise ValueError(f"{encode(node.picks)!r} is not a schedule of this program")
            step = next(
                (index for index in range(count) if run.places[index : index + 1] != node.places[index : index + 1]),
                count - 1,
            )
            now = self.places.label(run.places[step]) if step < len(run.places) else "its end"
            raise RuntimeError(
                f"the program does not do the same again: at step {step} it was at {now}, and before, under the same "
                f"schedule, at {self.places.label(node.places[step])}. It must not depend on the time, on chance, or "
                "on anything that an earlier run has changed"
            )

    def _fail(self, run: Run, error: Exception | None) -> NoReturn:
        picks = bytes(run.picks[: run.last_deviation + 1])
        self.places.forget_variables()
        again, error_again = self._run(Node(picks, NOWHERE), None, detailed=True)
        if bytes(again.picks) == bytes(run.picks) and again.places == run.places:
            run, error = again, error_again or error
        kind, worker, cause = run.failed or ("check", None, error)
        who = "" if worker is None else self.names[worker.number]
        failure = KINDS.get(kind, ScheduleFailure)(
            kind, encode(picks), report(run, self.places, self.names), cause, who, self.schedules, self.places.grain
        )
        raise failure from cause


def _name(body: Any) -> str:
    name = getattr(body, "__qualname__", None) or type(body).__name__
    return str(name).rpartition("<locals>.")[2]
