"""hive_task.supervisor: a scheduler that measures its load, and has as many workers as that asks for."""

import logging
import threading
from itertools import pairwise
from math import inf

import pytest

from hive_task import Policy, Scheduler, Work, blocking, hardware, scaling
from hive_task.scaling import Decision, decide, limits
from hive_task.supervisor import Supervisor
from stm import atomically
from tests.hive_task.live import Held, at_rest, occupied
from tests.support import PATIENCE, until


class Watched(Policy):
    """Decides as usual, and remembers."""

    def __init__(self):
        self.seen = []

    def scale(self, load):
        decision = decide(load)
        self.seen.append((load, decision))
        return decision


class Told(Policy):
    """Decides as it is told."""

    decision = None

    def scale(self, load):
        return self.decision or Decision(load.workers, "nothing was said")


@pytest.fixture
def processors(monkeypatch):
    """Put here how many are in use: [by this process, fraction of the machine's]. Others make no difference."""
    used = [0.1, 0.1]
    monkeypatch.setattr(hardware.Usage, "since", lambda self, before: tuple(used))
    return used


@pytest.fixture
def quick(monkeypatch):
    """Rest comes soon."""
    for name, seconds in {"REST": 0.05, "LONG_REST": 0.1, "STEP": 0.02}.items():
        monkeypatch.setattr(scaling, name, seconds)


def workers(scheduler):
    return len(scheduler.monitor().workers)


@atomically
def look_now(scheduler):
    scheduler._dispatch.scale_now.set(True)
    scheduler._dispatch.wake_supervisor(0.0)


def reasons(scheduler):
    return [change.reason for change in scheduler.monitor().changes]


def test_without_a_number_there_are_as_many_as_the_machine_allows():
    expected = limits()
    with Scheduler() as scheduler:
        picture = scheduler.monitor()
        assert (picture.minimum, picture.maximum) == (expected.minimum, expected.maximum)
        assert expected.minimum <= len(picture.workers) <= expected.maximum


def test_the_number_grows_if_works_block_and_says_why(processors, caplog):
    caplog.set_level(logging.INFO, "hive_task")
    with Scheduler(2, minimum=1, maximum=6, name="shop") as scheduler, occupied(scheduler, 6):
        assert workers(scheduler) == 6
        changes = scheduler.monitor().changes
        assert (changes[0].before, changes[0].after, changes[0].reason) == (0, 2, "at the start")
        for before, after in pairwise(changes):
            assert after.before == before.after < after.after
            assert "works wait" in after.reason
            assert "the works block: 0.1 of" in after.reason
            message = f"shop: {after.after} workers, after {after.before}: {after.reason}"
            until(lambda: message in caplog.messages)


def test_it_does_not_grow_if_works_compute(processors):
    policy = Watched()
    processors[0] = float(hardware.detect().cpus)
    with Scheduler(2, minimum=1, maximum=6, policy=policy) as scheduler, occupied(scheduler, 2):
        scheduler.submit(print)
        until(lambda: any("the works compute" in decision.reason for _, decision in policy.seen))
        assert workers(scheduler) == 2


def test_it_comes_to_rest_by_and_by(processors, quick):
    with Scheduler(2, minimum=1, maximum=6) as scheduler:
        with occupied(scheduler, 6):
            assert workers(scheduler) == 6
        until(lambda: workers(scheduler) == 1, "the minimum")
        changes = scheduler.monitor().changes
        assert [change.after for change in changes if change.after < change.before][-1] == 1
        assert "no work had to wait for a worker for" in changes[-1].reason
        until(lambda: scheduler._dispatch.alarm.get() == inf, "the supervisor's rest")
        assert scheduler.submit(pow, 2, 3).result(PATIENCE) == 8


def test_only_idle_workers_are_let_go(processors, quick):
    with Scheduler(2, minimum=1, maximum=6) as scheduler:
        with occupied(scheduler, 3):
            with occupied(scheduler, 3):
                assert workers(scheduler) == 6
            until(lambda: workers(scheduler) < 6)
            states = [worker.state for worker in scheduler.monitor().workers]
            assert states.count("running") == 3
        until(lambda: workers(scheduler) == 1)


def test_it_grows_again_after_a_rest(processors, quick):
    with Scheduler(1, minimum=1, maximum=3) as scheduler:
        for _ in range(2):
            with occupied(scheduler, 3):
                assert workers(scheduler) == 3
            until(lambda: workers(scheduler) == 1)


def test_what_is_measured_is_what_there_is(processors):
    policy = Watched()
    with Scheduler(2, minimum=1, maximum=2, policy=policy) as scheduler, occupied(scheduler, 2):
        scheduler.put_works([Work(print), Work(print, priority=2), Work(print, priority=-1)])
        until(lambda: policy.seen and policy.seen[-1][0].queued == 3)
        load = policy.seen[-1][0]
        assert (load.workers, load.idle, load.running, load.waiting) == (2, 0, 2, 0)
        assert load.short
        assert load.oldest_wait >= 0
        assert (load.limits.minimum, load.limits.maximum) == (1, 2)
        assert scheduler.cancel_category("none") == 0
        for future in scheduler.works():
            future.cancel()


def test_who_stands_in_is_not_counted(processors):
    policy = Watched()
    with Scheduler(1, minimum=1, maximum=4, policy=policy) as scheduler:
        held = Held()

        def waits():
            with blocking():
                held()

        scheduler.submit(waits)
        held.has_begun()
        with occupied(scheduler):
            scheduler.submit(print)
            until(lambda: any(load.running == 2 for load, _ in policy.seen))
            load = next(load for load, _ in policy.seen if load.running == 2)
            assert (load.workers, load.waiting) == (1, 1)
        held.go.set()
        at_rest(scheduler)


@pytest.mark.parametrize(("asked", "get"), [(99, 4), (0, 1), (3, 3)])
def test_the_bounds_are_kept_whatever_a_policy_says(processors, asked, get):
    policy = Told()
    with Scheduler(2, minimum=1, maximum=4, policy=policy) as scheduler:
        at_rest(scheduler)
        policy.decision = Decision(asked, "because")
        look_now(scheduler)
        until(lambda: reasons(scheduler)[-1] == "because")
        until(lambda: workers(scheduler) == get)


def test_what_is_no_decision_is_logged_and_the_supervisor_goes_on(processors, caplog):
    class Odd(Policy):
        answer: object = 7

        def scale(self, load):
            return self.answer

    policy = Odd()
    with Scheduler(1, minimum=1, maximum=2, policy=policy) as scheduler:
        until(lambda: "it goes on" in caplog.text)
        assert "Odd.scale() must return a Decision, not 7" in caplog.text
        policy.answer = Decision(2, "at last")
        look_now(scheduler)
        until(lambda: workers(scheduler) == 2)


def test_resize_moves_the_bounds_of_an_automatic_number(processors):
    with Scheduler(2, minimum=2, maximum=4) as scheduler:
        scheduler.resize(6)
        picture = scheduler.monitor()
        assert (picture.minimum, picture.maximum, len(picture.workers)) == (2, 6, 6)
        scheduler.resize(1)
        assert (scheduler.monitor().minimum, scheduler.monitor().maximum) == (1, 6)
        until(lambda: workers(scheduler) == 1)


def test_the_last_changes_are_remembered():
    with Scheduler(1) as scheduler:
        for number in range(30):
            scheduler.resize(1 + number % 2)
        changes = scheduler.monitor().changes
        assert len(changes) == 20
        assert {(change.before, change.after) for change in changes} == {(1, 2), (2, 1)}
        until(lambda: workers(scheduler) == 2)


def test_the_supervisor_of_a_fixed_number_never_wakes_up(monkeypatch):
    rounds = []
    original = Supervisor.round
    monkeypatch.setattr(Supervisor, "round", lambda self, at: (rounds.append(at), original(self, at)))
    with Scheduler(2) as scheduler:
        for _ in range(20):
            with occupied(scheduler, 2):
                futures = [scheduler.submit(pow, 2, number) for number in range(50)]
        assert [future.result(PATIENCE) for future in futures] == [2**number for number in range(50)]
        assert rounds == []
        scheduler.put_work(Work(pow, (2, 3), time_limit=0.001)).exception(PATIENCE)
        until(lambda: rounds)


def test_at_the_minimum_the_supervisor_sleeps_until_a_work_finds_nobody_idle(processors, monkeypatch):
    rounds, ended = [], []
    original = Supervisor.round
    monkeypatch.setattr(Supervisor, "round", lambda self, at: (rounds.append(at), original(self, at), ended.append(at)))

    def asleep(scheduler):
        """Whether a round has ended without an alarm; amid each round there is none either."""
        done = len(ended)
        return done and scheduler._dispatch.alarm.get() == inf and len(rounds) == done

    with Scheduler(1, minimum=1, maximum=2) as scheduler:
        until(lambda: asleep(scheduler))
        seen = len(rounds)
        for _ in range(20):
            at_rest(scheduler)
            assert scheduler.submit(pow, 2, 3).result(PATIENCE) == 8
        assert len(rounds) == seen
        with occupied(scheduler):
            second = threading.Event()
            scheduler.submit(second.set)
            until(lambda: len(rounds) > seen)
            assert second.wait(PATIENCE)  # it has grown
