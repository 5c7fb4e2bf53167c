"""`Policy`: pure choices, each of which can be replaced; what makes no sense is refused or done as usual, and told."""

import logging
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hive_task import HiveTaskError, Policy, Scheduler
from hive_task.policy import AHEAD, MOST
from hive_task.scaling import Decision, Limits, Load, decide
from hive_task.supervisor import Supervisor
from tests.hive_task.by_hand import Company, OneByOne
from tests.hive_task.live import Held
from tests.support import Once, elsewhere

NONSENSE = [None, 0, -1, 99, "two", 1.5, (), object()]


def answering(**answers):
    """A policy that gives these answers, or what these functions answer."""

    def method(answer):
        return lambda self, *args: answer(*args) if callable(answer) else answer

    return type("Odd", (Policy,), {name: method(answer) for name, answer in answers.items()})()


def broken(*args):
    raise ZeroDivisionError("a bad policy")


# ---------------------------------------------------------------------------------------------- the usual choices


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 10**6), st.integers(1, 64), st.floats(0, 1))
def test_a_batch_is_no_more_than_half_a_share_and_takes_no_longer_than_it_should(queued, workers, seconds):
    batch = Policy().batch(queued, workers, seconds)
    assert 1 <= batch <= MOST
    assert batch == 1 or (2 * workers * batch <= queued and batch * seconds <= AHEAD)
    assert batch <= Policy().batch(queued + 1, workers, seconds)
    assert batch >= Policy().batch(queued, workers, seconds * 2)


def test_of_cheap_works_several_are_taken():
    assert Policy().batch(10_000, 2, 0.0) == MOST
    assert Policy().batch(8, 2, 0.0) == 2
    assert Policy().batch(10_000, 2, inf) == 1


@given(st.lists(st.integers(0, 40), max_size=8))
def test_the_victim_is_the_one_who_has_most(trays):
    victim = Policy().victim(trays)
    assert (victim is None) == (not any(trays))
    assert victim is None or trays[victim] == max(trays)


def test_the_one_who_became_idle_last_gets_the_work():
    assert Policy().place(None, ("a", "b", "c"), {}) == 2


def test_the_number_of_workers_is_what_scaling_decides():
    load = Load(limits=Limits(1, 2, 32), workers=2, queued=40, oldest_wait=0.3, interval=0.1, cpu=0.2, cpus=2)
    assert Policy().scale(load) == decide(load)


def test_a_policy_remembers_nothing():
    with pytest.raises(AttributeError):
        Policy().last = 1


# ---------------------------------------------------------------------------------------------- others


def test_a_policy_of_ones_own_places_works_and_is_told_what_there_is_to_know():
    told = []

    def place(work, idle, functions):
        told.append((work, idle, dict(functions)))
        return 0

    company = Company(3, answering(place=place))
    for worker in company.crew:
        company.begin(worker)
    first, second, third = company.crew
    future = company.put(priority=3)
    assert company.tray(first) == [future]
    company.put_many(2)
    assert [worker.desk.get()[2] for worker in company.crew] == [1, 1, 1]
    assert told[0][0] is future._work
    assert [idle for _, idle, _ in told] == [
        (first.uuid, second.uuid, third.uuid),
        (second.uuid, third.uuid),
        (third.uuid,),
    ]


def test_a_policy_of_ones_own_says_how_many_works_are_taken_and_from_whom():
    company = Company(3, answering(batch=4, victim=lambda trays: 0 if trays[0] else None))
    a, b, c = company.crew
    futures = company.put_many(10)
    assert company.begin(a, 0.0) is futures[0]
    assert company.tray(a) == list(futures[1:4])
    company.begin(b, 0.0)
    company.end(b, 0.0)
    assert (len(company.tray(a)), len(company.tray(b))) == (3, 2)
    assert company.begin(c, 0.0) is futures[8]
    assert company.end(c, 0.0) is futures[9]
    assert company.end(c, 0.0) is futures[1]
    company.check()
    company.drain()
    assert set(company.begun) == set(futures)


def test_a_policy_that_robs_nobody_leaves_trays_to_their_owners():
    company = Company(2, answering(batch=3, victim=None))
    a, b = company.crew
    company.put_many(3)
    company.begin(a, 0.0)
    assert company.begin(b) is None
    assert company.idle == (b,)


def test_a_policy_of_ones_own_scales_within_the_limits():
    answers = [Decision(100, "more"), Decision(0, "less"), Decision(3, "three")]
    company = Company(2, answering(scale=lambda load: answers[0]))
    company.staff.limits.set(Limits(1, 2, 8))
    supervisor = Supervisor(company.staff, 0.0)
    for number in (8, 8, 8):  # only idle workers are let go
        supervisor.round(1e9)
        assert len(company.staff.regular()) == number
        answers.append(answers.pop(0))
    for worker in company.crew:
        company.begin(worker)
    supervisor.round(2e9)
    assert len(company.staff.regular()) == 8
    answers.append(answers.pop(0))
    supervisor.round(3e9)
    assert len(company.staff.regular()) == 1
    assert [change.reason for change in company.picture().changes] == ["at the start", "more", "less"]


@pytest.mark.parametrize("policy", [Policy(), OneByOne(), answering(batch=7, victim=None, place=0)])
def test_a_running_scheduler_does_all_works_whatever_the_policy(policy):
    with Scheduler(workers=3, policy=policy) as scheduler:
        assert sum(scheduler.map(abs, range(500))) == sum(range(500))
        totals = scheduler.monitor().totals
    assert totals.balanced
    assert scheduler.monitor().totals.finished == 500


# ---------------------------------------------------------------------------------------------- nonsense


@pytest.mark.parametrize("answer", [None, 1, -1, "first", 0.0])
def test_whoever_submits_is_told_of_a_place_that_is_none(answer):
    company = Company(1, answering(place=answer))
    company.begin(company.crew[0])
    with pytest.raises(HiveTaskError) as caught:
        company.put()
    assert str(caught.value) == f"Odd.place() must return an index of the 1 idle workers, not {answer!r}"
    assert company.totals().submitted == 0
    company.check()


def test_whoever_submits_gets_what_a_policy_raises():
    company = Company(1, answering(place=broken))
    company.begin(company.crew[0])
    with pytest.raises(ZeroDivisionError, match="a bad policy"):
        company.put()
    company.check()
    assert company.totals().submitted == 0


@pytest.mark.parametrize("answer", [one for one in NONSENSE if one != 99])
def test_a_batch_that_is_none_is_logged_and_done_as_usual(answer, caplog):
    company = Company(1, answering(batch=answer))
    futures = company.put_many(20)
    with caplog.at_level(logging.ERROR, "hive_task"):
        assert company.begin(company.crew[0], 0.0) is futures[0]
    assert len(company.tray(company.crew[0])) == Policy().batch(20, 1, 0.0) - 1
    assert f"returned {answer!r}" in caplog.text
    assert "Odd.batch(20, 1, 0.0)" in caplog.text
    assert "done as usual" in caplog.text
    company.check()


@pytest.mark.parametrize("answer", [one for one in NONSENSE if one is not None])
def test_a_victim_that_is_none_is_logged_and_done_as_usual(answer, caplog):
    company = Company(2, answering(batch=5, victim=answer))
    futures = company.put_many(5)
    a, b = company.crew[::-1]  # so that worker number 0 has nothing to take
    company.begin(a, 0.0)
    with caplog.at_level(logging.ERROR, "hive_task"):
        assert company.begin(b) is futures[1]
    assert "Odd.victim" in caplog.text
    assert "done as usual" in caplog.text
    company.check()


@pytest.mark.parametrize("name", ["batch", "victim"])
def test_a_policy_that_raises_in_a_workers_transaction_is_logged_and_loses_no_work(name, caplog):
    company = Company(2, answering(**{"batch": 3, name: broken}))
    company.put_many(6)
    a, b = company.crew
    with caplog.at_level(logging.ERROR, "hive_task"):
        company.begin(a, 0.0)
        while company.common():
            company.end(a, 0.0)
        company.begin(b, 0.0)
        company.drain()
    assert "raised ZeroDivisionError('a bad policy')" in caplog.text
    assert company.totals().finished == 6
    assert company.picture().lost_workers == 0


def test_nonsense_is_told_once_for_each_decision_though_it_was_made_anew(caplog):
    once = Once()

    def batch(queued, workers, seconds):
        if once:
            elsewhere(company.put)
        return "many"

    company = Company(1, answering(batch=batch))
    company.put_many(5)
    with caplog.at_level(logging.ERROR, "hive_task"):
        company.begin(company.crew[0], 0.0)
    assert caplog.text.count("returned 'many'") == 1


@pytest.mark.parametrize("answer", [None, 5, "more"])
def test_a_scale_that_is_no_decision_is_refused(answer):
    company = Company(1, answering(scale=answer))
    company.staff.limits.set(Limits(1, 1, 8))
    with pytest.raises(HiveTaskError) as caught:
        Supervisor(company.staff, 0.0).round(1e9)
    assert str(caught.value) == f"Odd.scale() must return a Decision, not {answer!r}"
    assert len(company.crew) == 1


@pytest.mark.parametrize("answer", [0, broken])
def test_a_running_scheduler_survives_a_bad_policy(answer, caplog):
    hold = Held()
    with caplog.at_level(logging.CRITICAL), Scheduler(workers=2, policy=answering(batch=answer, victim=answer)) as one:
        held = one.submit(hold)
        hold.has_begun()
        futures = [one.submit(abs, -number) for number in range(200)]
        hold.go.set()
        assert [future.result() for future in futures] == list(range(200))
        held.result()
        assert one.monitor().lost_workers == 0


@pytest.mark.parametrize("policy", [Policy, "greedy", object()])
def test_what_is_no_policy_is_refused(policy):
    with pytest.raises(TypeError, match="policy is an object of a class derived from Policy, not"):
        Scheduler(policy=policy)
