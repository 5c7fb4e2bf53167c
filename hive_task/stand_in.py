"""`StandIn`: the part of `Dispatch` that is about workers who wait, who stand in for them, and who leave.

A worker whose work waits for another one runs that himself, if it is queued still and nothing but ordinary (`claim`).
Otherwise he says that he waits (`begin_wait`), and somebody stands in for him, as soon as there is something to do:
hired at once, if works are queued, and then with the very work that is waited for in hand; or by whoever submits the
next one, who finds the waiting worker among the idle. When the wait is over (`end_wait`), the stand-in leaves after
what he has begun, or stays if the worker waits again before that.

Promise: nobody's leaving, dying or waiting leaves works queued that nobody will take.
"""

from __future__ import annotations

import time
from typing import Any

from hive_task.futures import CLAIMED, QUEUED, Future
from hive_task.queues import now, on_tray
from hive_task.registry import Worker, on_stack
from hive_task.submission import Submission
from hive_task.work import PLAIN
from stm import atomically


class StandIn(Submission):
    """Waiting, standing in, and leaving."""

    # Waiting for a work, in a work.

    @atomically(name="hive_task.claim")
    def claim(self, me: Worker, future: Future[Any]) -> bool:
        """Begin this very work, out of turn, if it is queued still and nothing but ordinary."""
        work = future._work
        if work is None or work.options != PLAIN._replace(priority=work.priority, category=work.category):
            return False
        return self._claim(me, future)

    def _claim(self, me: Worker, future: Future[Any]) -> bool:
        status, callbacks = future._var.get()
        if status != QUEUED or self._is_begun(future):
            return False
        future._var.set((CLAIMED, callbacks))
        self.gate.ghosts.set(self.gate.ghosts.get() + 1)
        stack, *others = me.desk.get()
        began = time.monotonic()
        me.desk.set(((future, began, False, stack), *others))
        self._limit(future, began)
        return True

    @atomically(name="hive_task.wait")
    def begin_wait(self, me: Worker, wanted: Future[Any] | None = None) -> None:
        """The worker is going to wait, for a work if one is named: others may stand in for him, and begin with that."""
        waits = me.waits.get()
        me.waits.set(waits + 1)
        if waits:
            return
        self.put_down(me)
        self.relieve(me, wanted)

    def relieve(self, me: Worker, wanted: Future[Any] | None = None) -> None:
        """Part of a transaction: see that somebody works instead of a worker who waits, if there is or comes work."""
        run = self.gate.back.get()
        base = now(run)
        if me in base.idle:
            return
        for one in self.registry.crew.get():
            if one.stands_in_for is me:
                stack, tray, count, finished, failed, leaving, notes = one.desk.get()
                if leaving and stack is not None and not any(entry[2] for entry in on_stack(stack)):
                    # He is at work still: he may stay.
                    one.errand = False
                    one.desk.set((stack, tray, count, finished, failed, False, notes))
                    return
                if not leaving:
                    return
        if self.queued() > 0:
            stand_in = self.hire(me)
            # (One that may be run again can't be claimed: its place in the queue would be found twice.)
            claimable = wanted is not None and wanted._work is not None and not wanted._work.reruns
            if claimable and self._claim(stand_in, wanted):  # type: ignore[arg-type]
                stand_in.errand = True
                stack, tray, count, finished, failed, _, notes = stand_in.desk.get()
                stand_in.desk.set((stack, tray, count, finished, failed, True, notes))
        else:
            self.be_vacant(me)

    def be_vacant(self, me: Worker) -> None:
        """Part of a transaction: the next work brings somebody who stands in for this worker, who waits."""
        run = self.gate.back.get()
        base = now(run)
        if me not in base.idle:
            self.gate.store(run, base._replace(idle=(*base.idle, me)))

    @atomically(name="hive_task.wait")
    def end_wait(self, me: Worker) -> None:
        """He goes on himself, and whoever stands in for him leaves when he has done what he has begun."""
        waits = me.waits.get() - 1
        me.waits.set(waits)
        if not waits:
            self._stop_waiting(me)

    def _stop_waiting(self, me: Worker) -> None:
        me.waits.set(0)
        self.put_down(me)
        for worker in self.registry.crew.get():
            if worker.stands_in_for is me:
                self.send_away(worker)

    def send_away(self, worker: Worker) -> None:
        """Part of a transaction: the worker is to leave as soon as he has no work in hand."""
        self.put_down(worker)
        stack, tray, count, finished, failed, _, notes = worker.desk.get()
        worker.desk.set((stack, tray, count, finished, failed, True, notes))

    # Leaving.

    def strike_off(self, me: Worker, replace: bool = True) -> None:
        """Part of a transaction: the worker, who has nothing before him any more, is gone."""
        self.registry.leave(me)
        if replace and not me.errand and self.queued() > 0:
            crew = self.registry.crew.get()
            waiting = [worker for worker in crew if worker.waits.get()]
            if now(self._back.get()).idle:
                self.share_out()
            elif not any(map(self._takes_works, crew)):
                if waiting:
                    self.relieve(waiting[0])
                else:
                    self.hire(None)
        if not self.registry.crew.get() and not now(self.gate.back.get()).open:
            self.phase.set("stopped")

    def _takes_works(self, worker: Worker) -> bool:
        return not worker.desk.get()[5] and not worker.waits.get()

    def put_down(self, me: Worker) -> None:
        """Part of a transaction: the worker is not idle any more, and what is on his tray goes back to the queue."""
        run = self.gate.back.get()
        base = now(run)
        if me in base.idle:
            self.gate.store(run, base._replace(idle=tuple(one for one in base.idle if one is not me)))
        stack, tray, _, *others = me.desk.get()
        if tray is not None:
            me.desk.set((stack, None, 0, *others))  # type: ignore[arg-type]
            self.give_back(tuple(on_tray(tray)))
