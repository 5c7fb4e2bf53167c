"""`Desk`: the tasks that an application has in hand, between its data source and its workers.

Promises: every task that was claimed is settled once, whatever its run, the data source and the other workers do; what
was claimed and not begun is given back when it has lain there for long, or when the application stops.

Tasks that last for microseconds would spend most of their time in the data source. So a worker settles what has ended
and claims the next in one step; and as long as tasks are short, he claims several (`share`), and lays them on the
*tray*. How many, is decided by how long the last ones took: they are to be through within `AHEAD` seconds. Ends gather
likewise, and are settled together: by whoever claims next; at once if the task was not short.

One worker at a time, the *leader*, deals with the data source, and waits there; the others wait for him to resign. He
does so as he begins a task, so that somebody else leads meanwhile; but not if tasks are so short (`TINY`) that to wake
another worker would cost more than to run them. (Without the GIL he calls the others all the same when he lays tasks on
the tray that will take longer than `WORTH` seconds together: they run some of them, and leave him the data source.)
Should such a task turn out a long one, he is deposed after `LATE` seconds by a worker who does nothing else, and who
also settles what has gathered by then.

If tasks come in one by one, without a pause, the leader takes a nap before each step, so that several can be taken at
once: a durable source takes longer to make a step durable than ten such tasks take, and lets nobody put in any
meanwhile. So the nap lasts as long as `NAPS` of the last steps, and at least `NAP`, at most `LONGEST_NAP` seconds. He
goes on like that until there are many at once (`FEW`, or as many as he asks for), or none, or until he has waited for
one longer than a step takes.

The tray and the gathered ends are plain deques, whose ends are atomic: nobody waits for them, and nothing else is to
happen together with what is done to them. (As transactional queues they made up a tenth of what a task costs.)

Cost: with short tasks, one step of the data source for up to `MOST` of them.
"""

from __future__ import annotations

import logging
import sys
import time
from _thread import get_ident
from collections import deque
from math import inf
from typing import TYPE_CHECKING, TypeVar

from hive_task.background.tasks import DEAD, QUEUED, End, Failure, Task
from hive_task.errors import UnserializableData
from stm import TVar, check, run

if TYPE_CHECKING:
    from hive_task.background.application import Application

T = TypeVar("T")

log = logging.getLogger(__name__)

#: Seconds within which the tasks that were claimed in advance should be through; and how many these are at most.
AHEAD = 0.01
MOST = 250
#: Tasks that take less are short, or even tiny.
SHORT = 0.002
TINY = 0.0001
#: Seconds that the tiny tasks on the tray take together, if it is worth while to call others; never, with the GIL.
WORTH = inf if getattr(sys, "_is_gil_enabled", lambda: True)() else 0.002
#: For how long the leader leaves the data source alone, if it has given him fewer than `FEW` tasks, and fewer than
#: he asked for, some times running.
NAPS = 10
NAP = 0.002
LONGEST_NAP = 0.01
FEW = 200
RUNNING_ON = 3
#: Seconds for which ends may gather, and tasks may lie on the tray.
LATE = 0.02
LYING = 1.0
#: Seconds until the next attempt after a failure of the data source: so many at first, then twice that, and so on.
PATIENCE = 0.1
LONGEST_PATIENCE = 5.0


class Desk:
    """What an application has claimed and not settled."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self._source = app.data_source
        #: All of it, by id: whose leases are to be renewed.
        self.in_hand: dict[str, Task] = {}
        #: The next one first; and when the last ones were laid there.
        self._tray: deque[Task] = deque()
        self._laid = -inf
        #: How often the others were called to help with what is on it.
        self._calls: TVar[int] = TVar(0, name=f"calls for help of {app.name}")
        self._ends: deque[End] = deque()
        self._late: TVar[bool] = TVar(False, name=f"ends of {app.name} to be settled")
        #: The same, for who need not wait for it. (Without the GIL, to look at any variable costs a microsecond while
        #: others commit.)
        self._is_late = False
        #: The thread of the worker who leads, and since when he has been running a task as the leader.
        self._leader: TVar[int | None] = TVar(None, name=f"leader of {app.name}")
        #: Who became it last. He may have resigned, or been deposed since; then he takes himself for the leader as he
        #: begins a task from the tray, and at worst somebody else is deposed for that, who has to become it anew.
        self._led_by: int | None = None
        self._led_since: float | None = None
        #: Seconds that the last tasks took, smoothed; infinite at first, for nothing is known.
        self._pace = inf
        #: How often running few tasks were there; and is the leader taking a nap?
        self._trickle = 0
        self._naps = False
        #: Seconds that the last taking took.
        self._step = 0.0
        self._failures = 0

    # For runners.

    def next_task(self) -> Task | None:
        """The next task to be run: waits for one. None if the application is to stop."""
        app, me = self._app, get_ident()
        leads = self._led_by == me
        if leads:
            self._led_since = None
        if not app.ends and (task := self._from_tray()) is not None:  # the most common case
            return self._begin(task, leads)
        while app.is_running():
            leads = self._leader.get() == me or self._leader.compare_and_set(None, me)
            if leads:
                self._led_by = me
            if (task := self._from_tray()) is not None:
                return self._begin(task, leads)
            if not leads:
                calls = self._calls.get()
                if not self._tray:  # (looked at once more, so that no call is missed)
                    run(self._await_call, calls, name="hive_task.background.follow")
                continue
            try:
                if (task := self._claim()) is not None:
                    return self._begin(task, leads)
                self._await_work()
            except Exception:
                self._resign()
                self._complain("taking tasks")
        return None

    def _from_tray(self) -> Task | None:
        try:
            return self._tray.popleft()
        except IndexError:
            return None

    def leave(self) -> None:
        """The calling worker asks for no more tasks, for whatever reason."""
        self._resign()

    def _await_work(self) -> None:
        """As the leader."""
        began = time.perf_counter()
        self._source.wait_for_work(None, app=self._app)
        if time.perf_counter() - began > self._step:
            self._trickle = 0  # they don't come one after the other

    def _await_call(self, calls: int) -> None:
        check(self._leader.get() is None or self._calls.get() != calls or not self._app.is_running())

    def _begin(self, task: Task, leads: bool) -> Task:
        if leads:
            if self._pace > TINY:
                self._resign()
            else:
                self._led_since = self._source.clock.monotonic()
                self._look_later()
        return task

    def _resign(self) -> None:
        leader = self._leader.get()  # (the very object, for it is compared by identity)
        if leader == get_ident():
            self._led_since = None
            self._leader.compare_and_set(leader, None)

    def _claim(self) -> Task | None:
        """As the leader: the next task; others, if there are, are laid on the tray."""
        share = self.share()
        napping = self._trickle > RUNNING_ON and share > 1
        if napping:
            self._naps = True
            try:
                time.sleep(min(LONGEST_NAP, max(NAP, NAPS * self._step)))
            finally:
                self._naps = False
        began = time.perf_counter()
        tasks = self._exchange(share)
        self._step = time.perf_counter() - began
        if not tasks:
            if napping:
                self._trickle = 0
            return None
        self._trickle = self._trickle + 1 if len(tasks) < min(FEW, share) else 0
        if len(tasks) > 1:
            self._laid = self._source.clock.monotonic()
            self._tray.extend(tasks[1:])
            self._look_later()
            if WORTH < len(tasks) * self._pace < inf and self._pace <= TINY:
                self._calls.set(self._calls.get() + 1)
        return tasks[0]

    def share(self) -> int:
        """How many tasks to claim at once."""
        return 1 if self._pace > SHORT else max(1, min(MOST, int(AHEAD / max(self._pace, 1e-9))))

    def ended(self, end: End, seconds: float) -> None:
        """A task has run, for so long."""
        pace = self._pace
        self._pace = seconds if seconds > pace or pace == inf else (pace + seconds) / 2
        self._ends.append(end)
        if seconds > SHORT and self._tray:
            self.settle()
        else:
            self._look_later()

    def _look_later(self) -> None:
        if not self._is_late:
            self._is_late = True
            self._late.set(True)

    # Settling.

    def settle(self) -> None:
        """Tell the data source of all that has ended."""
        try:
            self._exchange(0)
        except Exception:
            self._complain("settling tasks")

    def _exchange(self, limit: int) -> list[Task]:
        """Settle what has ended, and take at most so many tasks."""
        ends = what_there_is(self._ends, 4 * MOST)
        if not ends and not limit:
            return []
        try:
            accepted, tasks = self._source.settle_and_dequeue(ends, limit, app=self._app)
        except UnserializableData:
            self._settle_one_by_one(ends)
            return []
        except BaseException:
            self._ends.extend(ends)  # nothing has happened
            raise
        self._failures = 0
        in_hand = self.in_hand
        for task in tasks:
            in_hand[task.id] = task
        for end, good in zip(ends, accepted, strict=True):
            task = end[0]
            if good and in_hand.get(task.id) is task:
                del in_hand[task.id]
            else:
                self._settled(end, good)
        return tasks

    def _settle_one_by_one(self, ends: list[End]) -> None:
        """One of them has a result that can't be stored. That one has failed; the others have not."""
        for number, end in enumerate(ends):
            try:
                (good,) = self._settle_alone(end)
            except BaseException:
                self._ends.extend(ends[number:])
                raise
            self._settled(end, good)

    def _settle_alone(self, end: End) -> list[bool]:
        try:
            return self._source.settle_tasks([end], app=self._app)
        except UnserializableData as error:
            failure = Failure(type(error).__name__, f"its result can't be stored: {error}")
            return self._source.settle_tasks([End(end.task, DEAD, failure=failure)], app=self._app)

    def _settled(self, end: End, good: bool) -> None:
        if self.in_hand.get(end.task.id) is end.task:
            del self.in_hand[end.task.id]
        if not good:
            log.warning("%s %s: its end came too late, it is somebody else's now", end.task.name, end.task.id)

    def settle_late(self) -> None:
        """The loop of the worker who settles, and gives back, what others leave for long."""
        app = self._app
        while app.is_running():
            run(lambda: check(self._late.value or not app.is_running()), name="hive_task.background.late")
            self._late.set(False)
            self._is_late = False  # (in this order: who finds it true is looked after below, or has it set again)
            if app.await_stop(LATE):
                return
            self._give_up_lying(self._source.clock.monotonic())
            if self._ends:
                if self._naps:
                    self._look_later()  # the leader is about to
                else:
                    self.settle()
            since = self._led_since
            if since is not None:
                if self._source.clock.monotonic() - since > LATE:
                    self._led_since = None
                    self._leader.set(None)  # his task is a long one: somebody else leads from now on
                else:
                    self._look_later()
            if self._tray:
                self._look_later()

    def _give_up_lying(self, now: float) -> None:
        """Tasks that have lain on the tray for long, since all workers are busy: others may have them."""
        if self._tray and now - self._laid >= LYING:
            self._ends.extend([End(task, QUEUED) for task in what_there_is(self._tray, len(self._tray))])

    def clear(self) -> None:
        """Give back what has not begun, and settle what has ended, when the workers have gone."""
        self._ends.extend([End(task, QUEUED) for task in what_there_is(self._tray, len(self._tray))])
        while self._ends:
            self._exchange(0)

    # Housekeeping.

    def renew(self) -> None:
        """Say that all of it is being worked at still; and ask runs to end that should."""
        tasks = list(self.in_hand.values())
        if tasks:
            for id in self._source.renew_leases(tasks, app=self._app):
                if (current := self._app.runs.get(id)) is not None:
                    current.cancel()

    def _complain(self, what: str) -> None:
        self._failures += 1
        seconds = min(LONGEST_PATIENCE, PATIENCE * 2 ** min(self._failures - 1, 10))
        log.exception("%s: %s failed, tried again in %.3g s", self._app.name, what, seconds)
        self._app.await_stop(seconds)


def what_there_is(queue: deque[T], limit: int) -> list[T]:
    """Take what there is in a queue, at most so much."""
    found: list[T] = []
    try:
        while len(found) < limit:
            found.append(queue.popleft())
    except IndexError:
        pass
    return found
