"""What `Dispatch` and `Staff` decide: by hand, with no threads but those that interfere in the middle of a decision."""

import time
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hive_task.dispatch
import hive_task.queues
from hive_task import HiveTaskError, Policy, SchedulerClosed, WorkerLost, WorkTimeout
from hive_task.futures import CANCELLED, FINISHED, QUEUED
from hive_task.queues import now
from hive_task.registry import on_stack
from stm import atomically, run
from tests.hive_task.by_hand import LEAVE, Company, OneByOne
from tests.support import Once, elsewhere

ERROR = OSError("the work failed")


# ---------------------------------------------------------------------------------------------- a model of it all


class Model:
    """A company, what its workers' threads are doing, and what must have become of each work."""

    def __init__(self, workers, policy):
        self.company = Company(workers, policy)
        self.threads = {}  # of those who have begun: "work" and "wait", as they called each other
        self.queued, self.running = set(), set()
        self.finished = self.failed = self.cancelled = 0
        self.submitted = []

    # Who can do what.

    def free(self):
        """Workers whose thread looks for a work."""
        return [
            worker for worker in self.company.crew if not self.threads.get(worker) and self.company.is_awake(worker)
        ]

    def at_work(self, *doing):
        return [worker for worker in self.company.crew if (self.threads.get(worker) or [""])[-1] in doing]

    # What may happen.

    def put(self, one, other):
        options = [{}, {}, {}, {"priority": 1}, {"priority": -1}, {"time_limit": 1e6}, {"reruns": 1}, {"priority": 2}]
        self._put([self.company.put(**options[other % 8])])

    def put_many(self, one, other):
        company = self.company
        futures = tuple(company.future(priority=(0, 0, 1, -1)[(place * other) % 4]) for place in range(one))
        company.dispatch.place(futures)
        self._put(futures)

    def _put(self, futures):
        self.submitted.extend(futures)
        self.queued.update(futures)

    def begin(self, worker, pace):
        self._begun(worker, self.company.begin(worker, (0.0, inf)[pace % 2]))

    def _begun(self, worker, future):
        if future is LEAVE:
            assert worker not in self.company.crew
        elif future is not None:
            assert future in self.queued, "a work was begun that was not queued"
            self.queued.remove(future)
            self.running.add(future)
            self.threads[worker] = ["work"]

    def end(self, worker, pace):
        company, future = self.company, self.company.in_hand(worker)
        counts = future in self.running  # else it was given up
        self.running.discard(future)
        if pace % 3:
            self.finished += counts
        else:
            self.failed += counts
        self.threads[worker].pop()
        following = company.end(worker, (0.0, inf)[pace % 2], None if pace % 3 else ERROR)
        assert future.done()
        if not self.threads[worker]:
            self._begun(worker, following)

    def rerun(self, worker, pace):
        """His process has died, and the work is to be run again."""
        future = self.company.in_hand(worker)
        if self.threads[worker] == ["work"]:
            self.threads[worker] = []
            if future in self.running:
                self.running.remove(future)
                self.queued.add(future)
            self._begun(worker, self.company.rerun(worker))

    def claim(self, worker, future):
        if self.company.claim(worker, future):
            assert future in self.queued
            self.queued.remove(future)
            self.running.add(future)
            self.threads[worker].append("work")

    def begin_wait(self, worker, other):
        if self.threads[worker].count("wait") < 2:
            self.company.dispatch.begin_wait(worker)
            self.threads[worker].append("wait")

    def end_wait(self, worker, other):
        self.company.dispatch.end_wait(worker)
        self.threads[worker].pop()

    def cancel(self, future, other):
        could = future in self.queued
        assert future.cancel() == (could or future._var.get()[0] == CANCELLED)
        if could:
            self.queued.remove(future)
            self.cancelled += 1

    def bury(self, worker, other):
        for future, _, dropped, _ in on_stack(worker.desk.get()[0]):
            if not dropped:
                self.running.remove(future)
                if future._runs < future._work.reruns:
                    self.queued.add(future)
                else:
                    self.failed += 1
        self.company.bury(worker)
        self.threads.pop(worker, None)

    def drop(self, one, other):
        overdue = {one for one in self.running if one._work.time_limit is not None}
        self.company.drop()
        self.running -= overdue
        self.failed += len(overdue)

    def resize(self, one, other):
        if self.company.dispatch.phase.get() == "running":
            run(self.company.staff.resize, 1 + one % 4, "for the test", other % 2 == 0)

    def close(self, one, other):
        self.company.staff.close()

    # Doing it.

    def step(self, name, one, other):
        targets = {
            "begin": self.free(),
            "end": self.at_work("work"),
            "rerun": self.at_work("work"),
            "claim": self.at_work("work", "wait"),
            "begin_wait": self.at_work("work", "wait"),
            "end_wait": self.at_work("wait"),
            "cancel": self.submitted,
            "bury": self.company.crew,
        }.get(name, [one])
        if name in ("put", "put_many") and self.company.dispatch.phase.get() != "running":
            with pytest.raises(SchedulerClosed):
                self.company.put()
        elif name == "claim" and targets and self.submitted:
            self.claim(targets[one % len(targets)], self.submitted[-1 - other % len(self.submitted)])
        elif name == "cancel" and targets:
            self.cancel(targets[-1 - one % len(targets)], other)
        elif name != "claim" and targets:
            getattr(self, name)(targets[one % len(targets)] if len(targets) > 1 else targets[0], other)
        self.check()

    def check(self):
        totals = self.company.check()
        assert set(self.company.dispatch.queued_works()) == self.queued, "a work got lost"
        begun = {entry[0] for worker in self.company.crew for entry in on_stack(worker.desk.get()[0]) if not entry[2]}
        assert begun == self.running
        assert (totals.submitted, totals.finished, totals.failed, totals.cancelled) == (
            len(self.submitted),
            self.finished,
            self.failed,
            self.cancelled,
        )

    def finish(self):
        """Close, and let everybody do what he can: all works are done in the end, and everybody has left."""
        self.step("close", 0, 0)
        for _ in range(5 * len(self.submitted) + 100):
            if not self.company.crew:
                break
            for name in ("end_wait", "end", "begin"):
                self.step(name, 0, 1)
        assert self.company.dispatch.phase.get() == "stopped", "works are left, or workers"
        assert all(future.done() for future in self.submitted)
        assert not any(one._var.get()[0] == QUEUED for one in [*self.company.common(), *self.company.urgent()])


class Greedy(Policy):
    """Everybody takes three works at once, and is robbed first if he came first."""

    def batch(self, queued, workers, seconds):
        return 3

    def victim(self, trays):
        return next((place for place, count in enumerate(trays) if count), None)

    def place(self, work, idle, functions):
        return 0


OFTEN = ["put", "put", "put", "put_many", "begin", "begin", "begin", "end", "end", "end"]
STEPS = [*OFTEN, "cancel", "claim", "begin_wait", "end_wait", "rerun", "bury", "drop", "resize", "close"]

steps = st.lists(st.tuples(st.sampled_from(STEPS[:-1]), st.integers(0, 7), st.integers(0, 7)), max_size=60)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 3), st.sampled_from([Policy(), Greedy(), OneByOne()]), steps, steps)
def test_no_work_is_lost_or_begun_twice_and_all_is_counted_whatever_happens(workers, policy, before, after):
    longest, notes = hive_task.queues.LONGEST, hive_task.dispatch.NOTES
    hive_task.queues.LONGEST, hive_task.dispatch.NOTES = 4, 3
    try:
        model = Model(workers, policy)
        for name, one, other in before:
            model.step(name, one, other)
        if after:
            model.close(0, 0)
        for name, one, other in after:
            model.step(name, one, other)
        model.finish()
    finally:
        hive_task.queues.LONGEST, hive_task.dispatch.NOTES = longest, notes


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.lists(st.tuples(st.sampled_from(["put", "put", "end", "cancel"]), st.integers(-2, 2))))
def test_higher_priorities_first_and_within_one_first_come_first_served(workers, steps):
    company = Company(workers, OneByOne())
    waiting = []

    def next_one():
        return max(waiting, key=lambda future: (future._work.priority, -place[future]))

    def started(future):
        if future is not None:
            assert future is next_one()
            waiting.remove(future)

    place = {}
    for worker in company.crew:
        company.begin(worker)
    for name, number in steps:
        busy = [worker for worker in company.crew if company.in_hand(worker)]
        if name == "put":
            future = company.put(priority=number)
            place[future] = len(place)
            waiting.append(future)
            for worker in company.crew:
                if company.tray(worker):
                    started(company.begin(worker))
        elif name == "cancel" and waiting:
            assert waiting.pop(number % len(waiting)).cancel()
        elif name == "end" and busy:
            started(company.end(busy[number % len(busy)]))
        assert not waiting or not company.idle


# ---------------------------------------------------------------------------------------------- submitting


def test_a_work_is_handed_to_the_one_who_became_idle_last_and_the_others_stay_idle():
    company = Company(3)
    a, b, c = company.crew
    for worker in (b, c, a):
        assert company.begin(worker) is None
    assert company.idle == (b, c, a)
    work = company.put()
    assert company.idle == (b, c)
    assert company.tray(a) == [work]
    assert company.begin(a) is work


def test_of_several_works_the_most_urgent_are_handed_out_and_the_rest_is_queued():
    company = Company(2)
    for worker in company.crew:
        company.begin(worker)
    futures = tuple(company.future(priority=priority) for priority in (0, 5, -1, 9, 0))
    company.dispatch.place(futures)
    company.check()
    assert {company.tray(worker)[0] for worker in company.crew} == {futures[1], futures[3]}
    assert company.common() == [futures[0], futures[4]]
    assert company.urgent() == [futures[2]]


def test_who_is_not_open_takes_no_work_and_nothing_is_changed():
    company = Company(1, started=False)
    with pytest.raises(SchedulerClosed, match="it is new; start it first"):
        company.put()
    company.staff.open()
    work = company.put()
    company.staff.close()
    for submit in (company.put, lambda: company.put(priority=1), lambda: company.put_many(3)):
        with pytest.raises(SchedulerClosed, match="it is stopping"):
            submit()
    assert list(company.dispatch.queued_works()) == [work]
    company.drain()
    with pytest.raises(SchedulerClosed, match="it is stopped"):
        company.put()
    assert company.totals().submitted == 1


def test_a_run_of_works_may_be_longer_than_a_chunk():
    company = Company(1, OneByOne())
    futures = [*company.put_many(600), *(company.put() for _ in range(600)), *company.put_many(251)]
    company.check()
    (worker,) = company.crew
    assert company.begin(worker) is futures[0]
    for future in futures[1:]:
        assert company.end(worker) is future
    company.check()


def test_who_asked_to_be_told_of_the_next_work_that_finds_nobody_idle_is():
    company = Company(1)
    gate, alarm = company.dispatch.gate, company.dispatch.alarm

    def watch():
        base = gate.back.get()
        gate.store(base, hive_task.queues.now(base)._replace(watched=True))

    company.begin(company.crew[0])
    run(watch)
    company.put()
    assert alarm.get() == inf
    company.check()
    company.put()
    assert alarm.get() < inf
    assert gate.back.get()[2]  # and the next one has nothing to look at


# ---------------------------------------------------------------------------------------------- taking


def test_who_takes_several_works_runs_them_in_order_and_a_picture_shows_them():
    company = Company(1, Greedy())
    futures = company.put_many(5)
    (worker,) = company.crew
    assert company.begin(worker, 0.0) is futures[0]
    assert company.tray(worker) == list(futures[1:3])
    assert company.picture().workers[0].queued == 2
    assert [company.end(worker, 0.0) for _ in range(5)] == [*futures[1:], None]


def test_the_urgent_come_before_what_was_taken_in_advance_and_the_low_after_all_else():
    company = Company(2, Greedy())
    a, b = company.crew
    low = company.put(priority=-1)
    first, second, third = company.put_many(3)
    assert company.begin(a, 0.0) is first
    urgent = company.put(priority=1)
    assert company.end(a, 0.0) is urgent
    assert company.begin(b, 0.0) is second  # stolen, rather than the low one
    assert company.end(a, 0.0) is third
    assert company.end(b, 0.0) is low
    company.check()


def test_an_idle_worker_takes_over_half_of_the_fullest_tray():
    company = Company(3, Policy())
    a, b, c = company.crew
    company.put_many(200)
    company.begin(a, 1e-5)
    company.begin(b, 1e-4)
    while company.common():
        company.end(b, 1e-4)
    most, fewer = len(company.tray(a)), len(company.tray(b))
    assert most > fewer + 2
    next_of_a = company.tray(a)[0]
    assert company.begin(c) is next_of_a
    assert len(company.tray(c)) == (most + 1) // 2 - 1
    assert len(company.tray(a)) == most // 2
    company.check()


def test_who_was_handed_a_work_that_was_taken_over_before_he_woke_up_is_idle_again():
    company = Company(2)
    a, b = company.crew
    company.begin(a)
    work = company.put()
    assert company.tray(a) == [work]
    assert company.begin(b) is work
    assert company.idle == (a,)
    company.check()


def test_who_was_robbed_before_he_woke_up_does_what_else_is_queued_though_it_be_low():
    company = Company(2)
    a, b = company.crew
    company.begin(b)
    work, low = company.put(), company.put(priority=-1)
    assert company.begin(a) is work
    company.check()
    assert company.begin(b) is low
    company.check()


def test_who_was_handed_a_work_that_was_taken_over_while_the_scheduler_closed_leaves():
    company = Company(2)
    a, b = company.crew
    company.begin(a)
    company.put()
    company.staff.close()
    assert company.begin(b) is not LEAVE
    assert company.begin(a) is LEAVE
    assert company.end(b) is LEAVE
    company.check()


def test_a_cancelled_work_is_passed_over_wherever_it_is():
    company = Company(2, Greedy())
    a, b = company.crew
    first, on_tray, last_on_tray, common = company.put_many(4)
    urgent, low = company.put(priority=1), company.put(priority=-1)
    assert company.begin(a, 0.0) is urgent
    assert company.end(a, 0.0) is first
    for future in (on_tray, common, low):
        assert future.cancel()
        company.check()
    assert company.dispatch.gate.ghosts.get() == 3
    assert company.end(a, 0.0) is last_on_tray
    assert company.begin(b) is None
    assert company.end(a, 0.0) is None
    assert company.dispatch.gate.ghosts.get() == 0
    company.check()


def test_a_work_that_has_begun_cannot_be_cancelled_and_an_ended_one_stays_what_it_is():
    company = Company(1)
    (worker,) = company.crew
    company.put()
    work = company.begin(worker)
    assert work.running()
    assert not work.cancel()
    company.end(worker)
    assert not work.cancel()
    assert (work.cancelled(), work.running(), work.result()) == (False, False, "result")
    company.check()


# ---------------------------------------------------------------------------------------------- waiting


def test_who_waits_for_a_queued_work_claims_it_once():
    company = Company(2)
    a, b = company.crew
    first, second = company.put(), company.put()
    company.begin(a)
    company.begin(b)
    third = company.put()
    assert company.claim(a, third)
    assert not company.claim(b, third)
    assert not company.claim(b, first)
    assert not company.claim(b, second)
    assert not third.cancel()
    company.check()
    assert company.end(a) is None  # back to the work that waited
    assert company.in_hand(a) is first
    assert not company.claim(b, third)
    company.check()
    company.drain()
    assert company.begun == [first, second, third]


@pytest.mark.parametrize("options", [{"kind": "process"}, {"time_limit": 5}, {"reruns": 1}])
def test_what_is_to_be_run_in_a_special_way_is_not_claimed(options):
    company = Company(1)
    company.put()
    company.begin(company.crew[0])
    assert not company.claim(company.crew[0], company.put(**options))
    company.check()


def test_who_waits_gives_back_what_he_had_taken_and_another_stands_in_for_him():
    company = Company(1, Greedy())
    (a,) = company.crew
    futures = company.put_many(5)
    company.begin(a, 0.0)
    company.dispatch.begin_wait(a)
    company.check()
    assert company.common() == list(futures[1:])
    _, stand_in = company.crew
    assert company.started[-1] is stand_in
    assert company.begin(stand_in) is futures[1]
    company.dispatch.end_wait(a)
    company.check()
    assert company.end(stand_in) is LEAVE
    assert company.end(a) is futures[2]


def test_if_nothing_is_queued_somebody_stands_in_as_soon_as_there_is_work():
    company = Company(1)
    (a,) = company.crew
    company.put()
    company.begin(a)
    company.dispatch.begin_wait(a)
    assert company.crew == (a,)
    assert company.idle == (a,)
    work = company.put()
    company.check()
    _, stand_in = company.crew
    assert company.idle == ()
    assert company.begin(stand_in) is work
    assert company.end(stand_in) is None
    company.dispatch.end_wait(a)
    assert company.begin(stand_in) is LEAVE
    assert company.idle == ()
    company.check()


def test_what_a_stand_in_who_has_not_come_yet_gives_back_is_handed_to_who_is_idle():
    company = Company(2)
    a, b = company.crew
    company.put()
    company.begin(a)
    company.begin(b)
    company.dispatch.begin_wait(a)
    work = company.put()
    assert company.tray(company.crew[2]) == [work]
    company.dispatch.end_wait(a)
    company.check()
    assert company.begin(b) is work
    assert company.begin(company.crew[2]) is LEAVE
    company.check()


def test_a_stand_in_who_has_not_come_yet_gives_back_even_what_was_claimed_and_done_meanwhile():
    company = Company(3)
    a, b, c = company.crew
    company.put()
    company.begin(a)
    company.put()
    company.begin(b)
    company.begin(c)
    company.dispatch.begin_wait(a)
    work = company.put()
    assert company.claim(b, work)
    company.end(b)
    company.dispatch.end_wait(a)
    company.check()
    company.drain()


# ---------------------------------------------------------------------------------------------- losses


def test_the_works_of_a_worker_who_died_fail_or_are_queued_again_and_he_is_replaced():
    company = Company(1, Greedy())
    (a,) = company.crew
    futures = company.put_many(4)
    company.begin(a, 0.0)
    error = company.bury(a)
    company.check()
    with pytest.raises(WorkerLost, match="died while it ran") as caught:
        futures[0].result()
    assert caught.value.__cause__ is error
    assert futures[0]._work is None
    (b,) = company.crew
    assert company.started[-1] is b
    assert company.common() == list(futures[1:])
    again = company.put(reruns=1, priority=1)
    for worker in (b, None):
        worker = worker or company.crew[0]
        assert company.begin(worker) is again
        company.bury(worker)
        company.check()
    assert isinstance(again.exception(), WorkerLost)
    assert company.picture().lost_workers == 3
    company.bury(a)  # he is gone already
    assert company.picture().lost_workers == 3


def test_the_callbacks_of_lost_and_overdue_works_are_called():
    company = Company(1)
    told = []
    for end in (company.bury, lambda worker: company.drop()):
        future = company.put(time_limit=5)
        future.add_done_callback(told.append)
        company.begin(company.crew[-1])
        end(company.crew[-1])
        assert told.pop() is future


def test_a_closed_scheduler_takes_nothing_though_somebody_seeks_and_another_is_vacant():
    company = Company(2)
    a, b = company.crew
    company.put()
    company.begin(a)
    company.dispatch.begin_wait(a)
    assert a in company.idle
    company.dispatch.seekers.add(b)
    run = company.dispatch.gate.back.get()
    company.dispatch.gate.store(run, now(run)._replace(open=False))
    assert a in company.idle
    with pytest.raises(SchedulerClosed):
        company.put()


def test_a_callback_that_raises_more_than_an_exception_harms_nobody_else(caplog):
    """Neither him who buries, or looks after time limits, nor a worker who finds what an exception had cut off."""

    def leave(future):
        raise SystemExit

    def cut_off(worker):
        inner = company.put()
        inner.add_done_callback(leave)
        assert company.claim(worker, inner)
        company.dispatch.end(worker, outer, (FINISHED, None), "outer", time.monotonic())
        assert isinstance(inner.exception(), WorkerLost)

    company = Company(1)
    for number, end in enumerate((company.bury, lambda worker: company.drop(), cut_off), 1):
        outer = company.put(time_limit=5)
        if end is not cut_off:
            outer.add_done_callback(leave)
        company.begin(company.crew[-1])
        end(company.crew[-1])
        assert outer.done()
        assert caplog.text.count("more than an exception") == number


def test_one_who_died_while_he_stood_in_for_another_is_replaced():
    company = Company(1)
    (a,) = company.crew
    company.put()
    company.begin(a)
    first, second = company.put_many(2)
    company.dispatch.begin_wait(a)
    stand_in = company.crew[1]
    assert company.begin(stand_in) is first
    company.bury(stand_in)
    company.check()
    assert company.begin(company.crew[1]) is second


def test_one_who_ran_out_of_time_while_he_stood_in_for_another_is_replaced():
    company = Company(1)
    (a,) = company.crew
    company.put()
    company.begin(a)
    slow = company.put(time_limit=5)
    company.dispatch.begin_wait(a)
    stand_in = company.crew[1]
    assert company.begin(stand_in) is slow
    company.drop()
    company.check()
    work = company.put()
    company.check()
    assert company.begin(company.crew[-1]) is work


def test_a_scheduler_is_not_stopped_before_the_works_of_a_lost_worker_are_done():
    company = Company(1)
    work = company.put()
    company.staff.close()
    company.bury(company.crew[0])
    company.check()
    assert company.dispatch.phase.get() == "stopping"
    assert company.begin(company.crew[0]) is work
    assert company.end(company.crew[0]) is LEAVE
    assert company.dispatch.phase.get() == "stopped"


def test_who_exceeds_the_limit_is_given_up_and_what_he_returns_is_refused():
    company = Company(1)
    (a,) = company.crew
    work = company.put(time_limit=5)
    assert company.dispatch.alarm.get() == inf
    company.begin(a)
    began = a.desk.get()[0][1]
    assert company.dispatch.alarm.get() == began + 5
    company.drop(began + 4.9)
    assert not work.done()
    company.drop(began + 5)
    company.drop(began + 5)
    company.check()
    with pytest.raises(WorkTimeout, match="5 s on"):
        work.result()
    assert [worker.state for worker in company.picture().workers] == ["overdue", "starting"]
    assert company.end(a) is LEAVE
    assert isinstance(work.exception(), WorkTimeout)
    totals = company.totals()
    assert (totals.finished, totals.failed) == (0, 1)
    company.check()


def test_a_work_that_was_given_up_just_now_does_not_fail_once_more_with_its_worker():
    company = Company(1)
    (a,) = company.crew
    work = company.put(time_limit=5, reruns=1)
    company.begin(a)
    company.staff._drop_overdue(inf)  # and before anybody is told
    company.bury(a)
    company.check()
    assert isinstance(work.exception(), WorkTimeout)
    assert company.totals().failed == 1


def test_the_limit_of_a_work_that_was_taken_in_advance_is_watched_too():
    company = Company(1, Greedy())
    (a,) = company.crew
    works = company.put_many(3, time_limit=5)
    company.begin(a, 0.0)
    company.dispatch.alarm.set(inf)
    assert company.end(a, 0.0) is works[1]
    assert company.dispatch.alarm.get() == a.desk.get()[0][1] + 5


def test_a_work_whose_process_died_is_run_again_before_all_others():
    company = Company(1)
    (a,) = company.crew
    work = company.put(reruns=1)
    company.put()
    company.begin(a)
    assert company.rerun(a) is work
    company.check()


@pytest.mark.parametrize("loss", ["of the process", "of the worker"])
def test_a_work_to_be_run_again_is_though_the_last_worker_was_to_leave(loss):
    company = Company(1)
    (a,) = company.crew
    company.put()
    company.begin(a)
    work = company.put(reruns=1)
    company.dispatch.begin_wait(a)
    stand_in = company.crew[1]
    assert company.begin(stand_in) is work
    company.staff.close()
    company.bury(a)
    if loss == "of the worker":
        company.bury(stand_in)
    else:
        assert company.rerun(stand_in) in (work, LEAVE)
    company.check()
    company.drain()
    assert work.result() == "result"
    assert company.dispatch.phase.get() == "stopped"


def test_of_too_many_workers_the_idle_leave_first_and_others_after_their_work():
    company = Company(4)
    a, b, c, d = company.crew
    company.put()
    company.put()
    company.begin(a)
    company.begin(c)
    company.begin(b)
    run(company.staff.resize, 3, "why not")
    assert [worker for worker in company.crew if worker.desk.get()[5]] == [b]
    assert company.begin(b) is LEAVE
    run(company.staff.resize, 1, "by idle ones alone", True)
    assert len(company.staff.regular()) == 3  # d has not looked for work yet, so nobody is idle
    company.begin(d)
    run(company.staff.resize, 1, "by idle ones alone", True)
    assert company.staff.regular() == [a, c]
    run(company.staff.resize, 1, "by all")
    company.check()
    assert [(change.before, change.after, change.reason) for change in company.picture().changes][1:] == [
        (4, 3, "why not"),
        (3, 2, "by idle ones alone"),
        (2, 1, "by all"),
    ]
    company.drain()
    assert len(company.crew) == 1


# ---------------------------------------------------------------------------------------------- in transactions


def test_what_an_enclosing_transaction_submitted_and_hired_counts_if_it_commits():
    company = Company(1)
    (a,) = company.crew
    company.put()
    company.begin(a)
    company.dispatch.begin_wait(a)
    started = list(company.started)

    def submit(commits):
        company.put()
        assert company.totals().submitted == 2
        company.staff.resize(3, "in a transaction")
        assert company.started == started
        if not commits:
            raise ValueError("undone")

    with pytest.raises(ValueError, match="undone"):
        run(submit, False)
    assert (company.crew, company.started, company.totals().submitted) == ((a,), started, 1)
    company.check()
    run(submit, True)
    assert len(company.crew) == 4
    assert company.started == [a, *company.crew[1:]]
    company.check()


@pytest.mark.parametrize("decide", ["end", "begin", "bury"])
def test_to_submit_to_a_busy_scheduler_conflicts_with_nothing_that_workers_do(decide):
    company = Company(2, Greedy())
    a, b = company.crew
    company.put_many(9)
    company.begin(a, 0.0)
    company.end(a, 0.0)
    attempts = []
    once = Once()

    @atomically
    def submit():
        attempts.append(1)
        company.put()
        if once:
            elsewhere(lambda: company.end(a, 0.0) if decide == "end" else company.begin(b))

    submit()
    assert len(attempts) == 1
    company.check()


def test_to_end_a_work_and_begin_the_next_conflicts_with_no_other_worker():
    company = Company(2, Greedy())
    a, b = company.crew
    company.put_many(9)
    company.begin(a, 0.0)
    company.begin(b, 0.0)
    attempts = []
    once = Once()

    @atomically
    def advance():
        attempts.append(1)
        company.end(a, 0.0)
        if once:
            elsewhere(company.end, b, 0.0)
            elsewhere(company.put)

    advance()
    assert len(attempts) == 1
    company.check()


class Meddler(Greedy):
    """In the middle of a decision, somebody else decides."""

    __slots__ = ("asked", "meddle", "when")

    def __init__(self, when):
        self.asked, self.meddle, self.when = 0, None, when

    def _ask(self, what):
        if what == self.when:
            self.asked += 1
            meddle, self.meddle = self.meddle, None
            if meddle:
                elsewhere(meddle)

    def place(self, work, idle, functions):
        self._ask("place")
        return 0

    def batch(self, queued, workers, seconds):
        self._ask("batch")
        return 3

    def victim(self, trays):
        self._ask("victim")
        return super().victim(trays)


def someone_at_work(company, *others):
    return next(one for one in company.crew if company.in_hand(one) and one not in others)


def take_part(company):
    """Another one looks for work, unless he sleeps."""
    c = company.crew[2]
    if company.in_hand(c):
        company.end(c)
    elif company.is_awake(c):
        company.begin(c)


MEDDLING = {
    "submits": lambda company: company.put(),
    "submits many": lambda company: company.put_many(5),
    "submits something urgent": lambda company: company.put(priority=1),
    "cancels the next": lambda company: next(iter(company.dispatch.queued_works()), company.begun[0]).cancel(),
    "cancels all": lambda company: [future.cancel() for future in [*company.dispatch.queued_works()]],
    "begins": take_part,
    "ends": lambda company: company.end(someone_at_work(company)),
    "waits": lambda company: company.dispatch.begin_wait(someone_at_work(company)),
    "claims": lambda company: company.claim(someone_at_work(company), company.future_of_interest()),
    "dies": lambda company: company.bury(someone_at_work(company)),
    "is given up": lambda company: company.drop(),
    "sends workers away": lambda company: run(company.staff.resize, 1, "meddling"),
    "hires workers": lambda company: run(company.staff.resize, 5, "meddling"),
    "closes": lambda company: company.staff.close(),
}


@pytest.mark.parametrize("meddling", MEDDLING)
@pytest.mark.parametrize("decision", ["place", "batch", "victim"])
def test_a_decision_in_the_middle_of_which_somebody_else_decides_is_right_all_the_same(decision, meddling):
    policy = Meddler(decision)
    company = Company(3, policy)
    a, b, c = company.crew
    first = company.put(time_limit=9)
    company.begin(a, 0.0)
    submitted = [first]
    if decision == "place":
        company.begin(c)
        company.begin(b)
    else:
        submitted += company.put_many(7 if decision == "batch" else 3)
        company.end(a, 0.0)
    company.future_of_interest = lambda: next(iter(company.dispatch.queued_works()), first)
    company.check()
    policy.asked, policy.meddle = 0, lambda: MEDDLING[meddling](company)
    try:
        if decision == "place":
            submitted.append(company.put())
        else:
            company.begin(b, 0.0)
    except SchedulerClosed:
        assert (decision, meddling) == ("place", "closes")
    assert policy.meddle is None, "nobody was asked"
    company.check()
    company.drain()
    company.staff.close()
    company.drain()
    assert all(future.done() for future in submitted)
    assert len(set(company.begun)) == len(company.begun), "a work was begun twice"
    assert company.totals().running == company.totals().queued == 0


def test_a_policy_is_asked_again_when_what_it_was_told_is_not_true_any_more():
    policy = Meddler("place")
    company = Company(2, policy)
    a, b = company.crew
    company.begin(a)
    company.begin(b)
    other = []
    policy.meddle = lambda: other.append(company.put())
    work = company.put()
    assert policy.asked == 3
    assert company.tray(a) == other
    assert company.tray(b) == [work]
    company.check()


@pytest.mark.parametrize("answer", [2, -1, None, "first", 1.0])
def test_a_place_that_is_none_is_refused_and_the_work_is_not_submitted(answer):
    class Wrong(Policy):
        def place(self, work, idle, functions):
            return answer

    company = Company(2, Wrong())
    for worker in company.crew:
        company.begin(worker)
    with pytest.raises(HiveTaskError, match=r"Wrong\.place\(\) must return an index of the 2 idle workers, not"):
        company.put()
    company.check()
    assert company.totals().submitted == 0
