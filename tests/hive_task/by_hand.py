"""A scheduler whose threads are never started: a test decides what each worker does next."""

from collections import Counter
from contextvars import copy_context
from math import inf

from hive_task.dispatch import AGAIN, LEAVE, Dispatch
from hive_task.futures import FAILED, FINISHED, QUEUED, Future
from hive_task.messages import LocalChannel, LocalPort
from hive_task.policy import Policy
from hive_task.queues import now, on_tray, works_of
from hive_task.registry import on_stack
from hive_task.scaling import limits
from hive_task.staff import Staff
from hive_task.survey import survey
from hive_task.work import Work

__all__ = ["LEAVE", "Company", "OneByOne", "nothing"]


class OneByOne(Policy):
    """Nobody takes works in advance."""

    def batch(self, queued, workers, seconds):
        return 1


def nothing(*args):
    return args


class Company:
    """The decisions of a scheduler (`dispatch`, `staff`), without its threads."""

    def __init__(self, workers=2, policy=None, started=True):
        self.dispatch = Dispatch("by hand", policy or Policy())
        self.staff = Staff(self.dispatch, limits(workers), LocalPort, LocalChannel)
        self.started, self.begun = [], []
        self.asleep = set()  # workers whose threads were told that there is nothing to do
        self.staff._start = self.started.append
        if started:
            self.staff.open()

    @property
    def crew(self):
        return self.dispatch.registry.crew.get()

    @property
    def idle(self):
        return now(self.dispatch.gate.back.get()).idle

    def future(self, *args, **options):
        return Future(Work(nothing, args, **options), copy_context(), self.dispatch)

    def put(self, *args, **options):
        future = self.future(*args, **options)
        self.dispatch.put(future)
        return future

    def put_many(self, number, **options):
        futures = tuple(self.future(**options) for _ in range(number))
        self.dispatch.place(futures)
        return futures

    def begin(self, worker, pace=inf):
        assert self.is_awake(worker)
        return self._noted(worker, self.dispatch.begin(worker, pace))

    def is_awake(self, worker):
        """Does his thread look for work, or has it been woken to do so?"""
        desk = worker.desk.get()
        return desk[0] is None and (worker not in self.asleep or desk[1] is not None or desk[5])

    def _noted(self, worker, future):
        if future is None:
            self.asleep.add(worker)
        else:
            self.asleep.discard(worker)
            if future is not LEAVE:
                self.begun.append(future)
        return future

    def claim(self, worker, future):
        claimed = self.dispatch.claim(worker, future)
        if claimed:
            self.begun.append(future)
        return claimed

    def end(self, worker, pace=inf, error=None, span=0.0):
        """End the work in hand as a worker's thread does, if need be the one that he runs while another one of his
        waits. What he is to do next."""
        future, began, _, below = worker.desk.get()[0]
        state = (FINISHED, "result") if error is None else (FAILED, error)
        nested = below is not None
        if not nested:
            following, callbacks = self.dispatch.advance(worker, future, state, "work", began + span, pace)
        else:
            callbacks = self.dispatch.end(worker, future, state, "work", began + span)
        future._forget()
        future._tell(callbacks or ())
        if nested:
            return None
        return self.begin(worker, pace) if following is AGAIN else self._noted(worker, following)

    def rerun(self, worker):
        """The process that ran the work in hand has died, and the work may be run again."""
        return self._noted(worker, self.staff.rerun(worker, self.in_hand(worker), inf))

    def in_hand(self, worker):
        stack = worker.desk.get()[0]
        return stack and stack[0]

    def tray(self, worker):
        return list(on_tray(worker.desk.get()[1]))

    def picture(self):
        return survey(self.staff)

    def totals(self):
        return self.picture().totals

    def drop(self, at=inf):
        self.staff.drop_overdue(at)

    def bury(self, worker):
        error = OSError("the worker died")
        self.staff.bury(worker, error)
        return error

    def common(self):
        """The works in the common queue, cancelled ones too, the next one first."""
        gate = self.dispatch.gate
        works, position, _ = gate.front.get()
        return [*works[position:], *(one for chunk in gate.chunks.get() for one in chunk), *works_of(gate.back.get())]

    def urgent(self):
        return [entry[2] for entry in self.dispatch.gate.urgent.snapshot()]

    def check(self):
        """What must be true at any moment, whatever happened; the totals."""
        dispatch, gate = self.dispatch, self.dispatch.gate
        base = now(gate.back.get())
        common, urgent = self.common(), self.urgent()
        desks = {worker: worker.desk.get() for worker in self.crew}
        trays = [future for worker in self.crew for future in self.tray(worker)]
        begun = [entry[0] for desk in desks.values() for entry in on_stack(desk[0]) if not entry[2]]

        assert gate.length() == len(common), "the length is not that of the queue"
        above = sum(negative < 0 for negative, _, _ in gate.urgent.snapshot())
        assert gate.pressing.get() == (above, len(urgent) - above)
        for worker, (_, _, count, *_) in desks.items():
            assert count == len(self.tray(worker)), "a tray has another length than it says"
        entries = [*common, *urgent, *trays]
        ghosts = [future for future in entries if future._var.get()[0] != QUEUED]
        assert gate.ghosts.get() == len(ghosts), "ghosts are not counted right"
        waiting = [future for future in entries if future not in ghosts]
        assert not any(many > 1 for many in Counter([*waiting, *begun]).values()), "a work is in two places"
        assert sorted(map(id, waiting)) == sorted(map(id, dispatch.queued_works()))
        assert dispatch.queued() == len(waiting)

        totals = self.totals()
        assert totals.balanced, totals
        assert (totals.queued, totals.running) == (len(waiting), len(begun))
        assert min(totals.queued, totals.running, totals.finished, totals.failed, totals.cancelled) >= 0

        assert len(set(base.idle)) == len(base.idle)
        for worker in base.idle:
            stack, tray, _, _, _, leaving, _ = desks[worker]
            assert tray is None
            assert worker.waits.get() or not leaving
            assert worker.waits.get() or stack is None, "one is idle who works"
        if base.idle:
            handed = [one for worker in self.crew if worker.desk.get()[0] is None for one in self.tray(worker)]
            assert set(waiting) <= set(handed), "somebody is idle while works are queued"
        if waiting:
            assert any(
                worker not in base.idle and not worker.waits.get() and not desk[5] for worker, desk in desks.items()
            ), "works are queued, and nobody will take them"
        if not base.open or base.idle or base.watched:
            assert base.credit == 0, "the next to submit would not look"
        phase = dispatch.phase.get()
        assert base.open == (phase == "running")
        assert (phase == "stopped") <= (not desks)
        return totals

    def drain(self):
        """Let everybody do what he can until all is done."""
        for _ in range(10_000):
            moved = False
            for worker in self.crew:
                if worker.waits.get():
                    self.dispatch.end_wait(worker)
                elif self.in_hand(worker):
                    self.end(worker)
                elif self.is_awake(worker):
                    self.begin(worker)
                else:
                    continue
                moved = True
            if not moved:
                return
            self.check()
        raise AssertionError("it never ends")
