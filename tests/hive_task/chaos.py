"""A storm over one scheduler, and the accounts that must add up whatever happens in it.

Threads submit works of every kind: singly, together, in transactions that commit, abort, or run again. The works
return, raise, submit works and wait for them, block, exceed their time limits, lose their processes. Meanwhile others
cancel, change the number of workers, kill workers' threads by asynchronous exceptions (wherever these happen to be),
and take pictures.

What must be true: in each picture the totals add up and no number is negative; no total ever falls. In the end every
future has ended, each work was begun once or, if it was cancelled or its transaction aborted, never (one whose worker
was killed: so often as it may be run again); what its future says is what happened; the totals are the numbers of
futures that say so; and no thread and no process is left.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import itertools
import logging
import random
import re
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from hive_task import Future, Picture, Scheduler, SchedulerClosed, Work, WorkerLost, WorkTimeout, blocking
from hive_task.picture import Totals
from stm import TVar, run
from tests.hive_task import chaos_process
from tests.support import PATIENCE, Background, until

CATEGORIES = (None, None, "red", "green")
PRIORITIES = (0, 0, 0, 0, 5, -5)

#: Clients wait if there are more works in the queue: those that wait for others would need a thread each.
MOST_QUEUED = 50

#: In a frame of these, a thread is not struck: what has to be done when it was struck can't be struck as well.
SHELTERED = {"bury", "_bury", "_start", "start"}


class Abort(Exception):
    """The end of a transaction that is not to be."""


class Struck(BaseException):
    """Comes from outside, at any moment."""


#: What comes of works here.
ANY = (Exception, CancelledError, SystemExit, KeyboardInterrupt, Struck)


class Broken(AssertionError):
    """The scheduler did not keep its word."""


class Storm:
    def __init__(
        self, seed: int, *, processes: bool = True, strikes: bool = True, workers: int = 3, rate: float = 1500.0
    ) -> None:
        self.seed = seed
        self.processes = processes
        #: Whose frames are being looked at must not run meanwhile.
        self.strikes = strikes and getattr(sys, "_is_gil_enabled", lambda: True)()
        self.pause = 4 / rate
        self.workers = workers
        self.scheduler = Scheduler(workers, name=f"storm-{seed}")
        self.over = threading.Event()
        self.numbers = itertools.count()
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.attempted: list[int] = []
        self.futures: dict[int, Future[Any]] = {}
        self.works: dict[int, Work] = {}
        self.aborted: list[tuple[int, Future[Any]]] = []
        self.recent: deque[Future[Any]] = deque(maxlen=200)
        self.common = TVar(0)
        self.pictures = self.struck = self.queued = 0
        self.file = ""
        self.done = Totals()

    # Works.

    def make(self, chance: random.Random, depth: int = 0) -> tuple[int, Work]:
        number = next(self.numbers)
        self.attempted.append(number)
        options: dict[str, Any] = {"priority": chance.choice(PRIORITIES), "category": chance.choice(CATEGORIES)}
        if self.processes and chance.random() < 0.01:
            fn = chaos_process.mine if chance.random() < 0.2 else chaos_process.work
            options |= {
                "kind": "process",
                "reruns": chance.choice((0, 1)),
                "time_limit": chance.choice((None, 0.03, 5)),
            }
            work = Work(fn, (self.file, number, 0.01 * chance.random(), chance.random() < 0.1), **options)
        else:
            kinds = [self.plain] * 12 + [self.blocks, self.late]
            kinds += [self.parent, self.parent, self.patient] if depth < 4 else []
            kind = chance.choice(kinds)
            if kind == self.late:
                options["time_limit"] = 0.003
            elif chance.random() < 0.1:
                options["reruns"] = 1
            work = Work(self.perform, (number, kind, random.Random(chance.random()), depth), **options)
        self.works[number] = work
        return number, work

    def perform(self, number: int, kind: Callable[..., None], chance: random.Random, depth: int) -> int:
        self.begun.append(number)
        kind(chance, depth)
        self.ended.append(number)
        return number

    def plain(self, chance: random.Random, depth: int) -> None:
        fate = chance.random()
        if fate < 0.1:
            time.sleep(0.002 * chance.random())
        elif fate < 0.15:
            raise chance.choice((ValueError, SystemExit, KeyboardInterrupt))

    def blocks(self, chance: random.Random, depth: int) -> None:
        for _ in range(chance.randrange(3)):
            with blocking():
                time.sleep(0.002 * chance.random())

    def late(self, chance: random.Random, depth: int) -> None:
        time.sleep(0.006 * chance.random())

    def parent(self, chance: random.Random, depth: int) -> None:
        for future in self.submit(chance, depth + 1):
            with suppress(*ANY):
                future.result()

    def patient(self, chance: random.Random, depth: int) -> None:
        """Waits for others' works, whoever they are; in vain perhaps."""
        for future in list(self.recent.copy())[: chance.randrange(3)]:
            with suppress(*ANY):
                future.result(0.003 * chance.random())

    # Submitting.

    def submit(self, chance: random.Random, depth: int = 0) -> list[Future[Any]]:
        how = chance.random()
        if how < 0.6:
            number, work = self.make(chance, depth)
            made = {number: self.scheduler.put_work(work)}
        elif how < 0.8:
            works = dict(self.make(chance, depth) for _ in range(chance.choice((1, 2, 5, 30))))
            made = dict(zip(works, self.scheduler.put_works(works.values()), strict=True))
        else:
            made = self.submit_within(chance, depth)
        self.futures |= made
        self.recent.extend(made.values())
        if made and chance.random() < 0.1:
            next(iter(made.values())).add_done_callback(self.callback)
        return list(made.values())

    def submit_within(self, chance: random.Random, depth: int) -> dict[int, Future[Any]]:
        """In a transaction, which may run again, and may be for nothing."""
        attempts: list[dict[int, Future[Any]]] = []
        aborts = chance.random() < 0.4

        def body() -> None:
            before = self.common.get()
            works = [self.make(chance, depth) for _ in range(2)]
            attempts.append({number: self.scheduler.put_work(work) for number, work in works})
            self.common.set(before + 1)
            if aborts:
                raise Abort

        try:
            run(body)
            made = attempts.pop()
        except Abort:
            made = {}
        for attempt in attempts:
            self.aborted.extend(attempt.items())
            for future in attempt.values():
                self.recent.append(future)  # to be cancelled and waited for like the others
        return made

    def callback(self, future: Future[Any]) -> None:
        assert future.done()
        if not self.over.is_set():
            with suppress(SchedulerClosed):
                self.submit(random.Random(id(future)), 4)
        by_worker = threading.current_thread().name.startswith(self.scheduler.name)
        raise SystemExit if by_worker else ValueError

    # Those who do all this.

    def client(self, seed: int) -> None:
        chance = random.Random(seed)
        while not self.over.is_set():
            if self.queued > MOST_QUEUED:
                time.sleep(0.001)
                continue
            for future in self.submit(chance):
                if chance.random() < 0.05:
                    with suppress(*ANY):
                        future.result(0.1)
            time.sleep(self.pause * chance.random() * 2)

    def meddler(self) -> None:
        chance = random.Random(self.seed)
        while not self.over.is_set():
            what = chance.random()
            if what < 0.6 and self.recent:
                for future in chance.choices(self.recent.copy(), k=5):
                    future.cancel()
            elif what < 0.7:
                self.scheduler.cancel_category("red")
            elif what < 0.8:
                self.scheduler.resize(chance.randint(1, 2 * self.workers - 1))
            elif self.strikes:
                self.strike(chance)
            time.sleep(0.005 * chance.random())

    def strike(self, chance: random.Random) -> None:
        """Raise an exception in the thread of a worker, wherever that is; each thread once."""
        name = re.compile(re.escape(self.scheduler.name) + r"-\d+$")
        threads = [one for one in threading.enumerate() if name.match(one.name) and not hasattr(one, "struck")]
        if not threads:
            return
        thread = chance.choice(threads)
        frame, names = sys._current_frames().get(thread.ident or 0), set()
        while frame is not None:
            names.add(frame.f_code.co_name)
            frame = frame.f_back
        if "_work" in names and not names & SHELTERED:
            thread.struck = True  # type: ignore[attr-defined]
            self.struck += ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(thread.ident or 0), ctypes.py_object(Struck)
            )

    def photographer(self) -> None:
        before = Totals()
        while not self.over.is_set():
            before = self.check(self.scheduler.monitor(), before)
            self.queued = before.queued
            self.pictures += 1
            time.sleep(0.0005)

    @staticmethod
    def check(picture: Picture, before: Totals = Totals()) -> Totals:  # noqa: B008
        totals = picture.totals
        numbers = [getattr(totals, name) for name in ("queued", "running", "finished", "failed", "cancelled")]
        numbers += [queue.length for queue in picture.queues] + [worker.queued for worker in picture.workers]
        if not totals.balanced or min(numbers) < 0:
            raise Broken(f"a picture does not add up: {totals}, {picture.queues}")
        for name in ("submitted", "finished", "failed", "cancelled"):
            if getattr(totals, name) < getattr(before, name):
                raise Broken(f"a total has fallen: {before}, then {totals}")
        return totals

    # The whole.

    def rage(self, seconds: float) -> None:
        """Let it rage for so long, and see that all adds up. `Broken` if not."""
        with tempfile.TemporaryDirectory() as folder, _stormy() as deaths:
            self.file = str(Path(folder) / "notes")
            Path(self.file).touch()
            with self.scheduler:
                jobs = [self.meddler, self.photographer, *(lambda n=n: self.client(n) for n in self.seeds())]
                running = [Background(job) for job in jobs]
                limit = time.monotonic() + seconds
                while time.monotonic() < limit and all(one.thread.is_alive() for one in running):
                    time.sleep(0.01)
                self.over.set()
                for one in running:
                    one.result()
                self.await_all()
                ending = Background(self.scheduler.shutdown)
            self.in_time(ending)
            until(lambda: not self.scheduler.monitor().workers, "the end of those who were given up")
            self.audit(self.scheduler.monitor())
        unexplained = [death for death in deaths if Struck.__name__ not in death]
        if unexplained:
            raise Broken(f"{len(unexplained)} workers died of something else: {unexplained[0]}")

    def seeds(self) -> Iterator[int]:
        return (self.seed * 100 + number for number in range(4))

    def await_all(self) -> None:
        limit = time.monotonic() + PATIENCE / 2
        while any(not future.done() for future in self.futures.copy().values()):  # works submit works, to the end
            for number, future in self.futures.copy().items():
                while not future.done():
                    if time.monotonic() > limit:
                        self.hopeless(f"work {number} never ends: {future!r}")
                    time.sleep(0.001)

    def in_time(self, ending: Background) -> None:
        ending.thread.join(PATIENCE / 2)
        if ending.thread.is_alive():
            self.hopeless("the scheduler does not stop")
        ending.result()

    def hopeless(self, what: str) -> None:
        faulthandler.dump_traceback(sys.__stderr__, all_threads=True)
        picture = self.scheduler.monitor()
        workers = "\n".join(f"{one.name} {one.state} {one.queued} {one.works}" for one in picture.workers)
        raise Broken(f"{what}; {picture.totals}; seed {self.seed}\n{workers}")

    def audit(self, picture: Picture) -> None:
        """The storm is over: compare what the works themselves noted with what is said of them."""
        lines = [line.split() for line in Path(self.file).read_text().splitlines()]
        begun = Counter(self.begun + [int(number) for what, number in lines if what == "begun"])
        ended = Counter(self.ended + [int(number) for what, number in lines if what == "ended"])
        outcomes: Counter[str] = Counter()
        for number, future in self.futures.items():
            work = self.works[number]
            outcome = self.outcome(future)
            outcomes[outcome] += 1
            times, complete = begun[number], ended[number]
            most = 1 + work.reruns
            right = times <= most
            if outcome == "cancelled":
                right = times <= work.reruns  # once for each death that it survived
            elif outcome == "finished":
                right = 1 <= times <= most and complete >= 1
            if not right:
                raise Broken(f"work {number} was begun {times} times, ended {complete}, and {outcome}: {future!r}")
        for number, left in self.aborted:
            if begun[number]:
                raise Broken(f"work {number}, of a transaction that was aborted, has run: {left!r}")
        totals = self.done = self.check(picture)
        known = len(self.futures)
        if totals.queued or totals.running or picture.workers:
            raise Broken(f"something is left: {picture}")
        said = {"finished": totals.finished, "failed": totals.failed, "cancelled": totals.cancelled}
        exact = not self.struck  # who was struck between submitting and noting it has nothing to show
        if any(said[name] < outcomes[name] or (exact and said[name] != outcomes[name]) for name in said):
            raise Broken(f"{totals}, but of {known} futures: {outcomes}")
        if (exact and totals.submitted != known) or totals.submitted > len(self.attempted):
            raise Broken(f"{totals}, but {known} futures, of {len(self.attempted)} works")
        # A thread that was struck may have had no time to close its process, and its exception may keep that alive.
        self.futures.clear()
        self.aborted.clear()
        self.recent.clear()
        future = left = None
        gc.collect()
        children = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
        if children:
            raise Broken(f"processes are left: {children}")

    @staticmethod
    def outcome(future: Future[Any]) -> str:
        if future.cancelled():
            return "cancelled"
        error = future.exception(0)
        known = (WorkerLost, WorkTimeout, ValueError, SystemExit, KeyboardInterrupt, Struck, SchedulerClosed)
        if error is not None and not isinstance(error, known):
            raise Broken(f"an error that nobody has made: {future!r}, {error!r}") from error
        return "finished" if error is None else "failed"


def _passing(hook: Callable[[Any], object]) -> Callable[[Any], None]:
    """The hook, for all but those who were struck where nobody can answer for it."""

    def passing(report: Any) -> None:
        if not issubclass(report.exc_type, Struck):
            hook(report)

    return passing


class Deaths(logging.Handler):
    """Keeps what is said of workers who died."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(self.format(record))


@contextmanager
def _stormy() -> Iterator[list[str]]:
    """Threads take turns often; and thousands of mishaps are not reported, as long as they are those made here.
    Gives the list of the deaths of workers."""
    log = logging.getLogger("hive_task")
    state, interval = (log.level, log.propagate), sys.getswitchinterval()
    deaths = Deaths(logging.CRITICAL)
    hooks = threading.excepthook, sys.unraisablehook
    threading.excepthook, sys.unraisablehook = (_passing(hook) for hook in hooks)
    log.setLevel(logging.CRITICAL)
    log.propagate = False
    log.addHandler(deaths)
    sys.setswitchinterval(2e-4)
    try:
        yield deaths.told
    finally:
        threading.excepthook, sys.unraisablehook = hooks
        log.removeHandler(deaths)
        log.setLevel(state[0])
        log.propagate = state[1]
        sys.setswitchinterval(interval)
