"""Pictures: of one moment, whatever happens while they are taken; frozen, complete, and fit for JSON."""

import json
import time
from dataclasses import FrozenInstanceError, fields

import pytest

from hive_task import Scheduler
from hive_task.picture import Totals
from stm import atomically, run
from tests.hive_task.by_hand import Company
from tests.hive_task.pictures import busy
from tests.hive_task.test_dispatch import Greedy
from tests.support import Background, Once, elsewhere


def scene():
    """Somebody who works and has taken works in advance, somebody overdue, and queues with ghosts in them."""
    company = Company(3, Greedy())
    a, b, _ = company.crew
    late = company.put(time_limit=5, category="late")
    company.begin(b)
    company.put_many(9)
    company.begin(a, 0.0)
    company.put(priority=2)
    company.put(priority=-1).cancel()
    company.common()[1].cancel()
    company.drop()
    assert late.done()
    company.check()
    return company


# ---------------------------------------------------------------------------------------------- one moment


class Interrupted:
    """A variable that, when it is read first, lets something happen elsewhere."""

    def __init__(self, variable, meddle):
        self.variable = variable
        self.meddle = meddle
        self.once = Once()

    def get(self):
        value = self.variable.get()
        if self.once:
            elsewhere(self.meddle)
        return value


def steal(company):
    thief = company.crew[2]
    company.begin(thief, 0.0)
    while company.tray(company.crew[0]):
        company.end(thief, 0.0)


def shown(picture):
    workers = [(one.name, one.state, one.queued, one.finished, len(one.works)) for one in picture.workers]
    return picture.state, picture.totals, picture.queues, workers


MEDDLING = {
    "a submission": lambda company: company.put(),
    "submissions": lambda company: company.put_many(300, priority=1),
    "a begin": lambda company: company.begin(company.crew[2]),
    "an end": lambda company: company.end(company.crew[0], 0.0),
    "a theft": lambda company: steal(company),
    "a cancellation": lambda company: [future.cancel() for future in company.dispatch.queued_works()],
    "a claim": lambda company: company.claim(company.crew[0], company.tray(company.crew[0])[0]),
    "a wait": lambda company: company.dispatch.begin_wait(company.crew[0]),
    "a loss": lambda company: company.bury(company.crew[0]),
    "a departure": lambda company: run(company.staff.resize, 1, "meddling"),
    "the end": lambda company: (company.staff.close(), company.drain()),
}


@pytest.mark.parametrize("meddling", MEDDLING)
@pytest.mark.parametrize("place", ["phase", "gate.back", "gate.front", "cancelled", "registry.crew", "gate.ghosts"])
def test_what_happens_while_a_picture_is_taken_is_not_in_it(place, meddling):
    company = scene()
    before = company.picture()
    *path, name = place.split(".")
    holder = company.dispatch
    for step in path:
        holder = getattr(holder, step)
    variable = getattr(holder, name)

    def meddle():
        setattr(holder, name, variable)
        MEDDLING[meddling](company)

    setattr(holder, name, Interrupted(variable, meddle))
    during = company.picture()
    assert getattr(holder, name) is variable, "nothing has happened meanwhile"
    assert shown(during) == shown(before)
    after = company.picture()
    assert after.totals.balanced
    assert shown(after) != shown(before)


def test_every_picture_of_a_busy_scheduler_balances():
    with Scheduler(workers=2) as scheduler:
        done = []

        def look():
            pictures = 0
            while not done:
                totals = scheduler.monitor().totals
                assert totals.balanced, totals
                assert min(totals.queued, totals.running) >= 0
                pictures += 1
            return pictures

        looking = Background(look)
        futures = [scheduler.submit(abs, number) for number in range(3_000)]
        for future in futures[::3]:
            future.cancel()
        for future in futures:
            assert future.cancelled() or future.exception() is None
        done.append(True)
        assert looking.result() > 0


def test_a_picture_delays_nobody():
    company = scene()
    attempts, once = [], Once()

    @atomically
    def end():
        attempts.append(1)
        company.end(company.crew[0], 0.0)
        company.put()
        if once:
            elsewhere(company.picture)

    end()
    assert len(attempts) == 1


def test_in_a_transaction_a_picture_shows_what_that_has_done():
    company = Company(1)

    def body():
        company.put()
        company.begin(company.crew[0])
        company.put_many(2)
        assert company.totals() == Totals(3, 2, 1)
        raise ValueError("undone")

    with pytest.raises(ValueError, match="undone"):
        run(body)
    assert company.totals() == Totals()


# ---------------------------------------------------------------------------------------------- what is in it


def test_a_picture_of_a_scheduler_that_was_not_started_is_empty():
    company = Company(2, started=False)
    picture = company.picture()
    assert (picture.name, picture.state, picture.uptime, picture.workers) == ("by hand", "new", 0.0, ())
    assert picture.totals == Totals()
    assert (picture.minimum, picture.maximum) == (2, 2)
    assert [(queue.name, queue.length) for queue in picture.queues] == [("common", 0)]


def test_workers_are_shown_in_their_states_with_what_they_do():
    company = Company(4, Greedy())
    a, b, c, d = company.crew
    company.put(time_limit=5, category="late", priority=1)
    company.begin(a)
    company.drop()
    company.put_many(3)
    company.begin(b, 0.0)
    company.begin(c)
    company.dispatch.send_away(c)
    states = [(one.name, one.state, len(one.works), one.queued) for one in company.picture().workers]
    names = [worker.name for worker in company.crew]
    assert states == [
        (names[0], "overdue", 1, 0),
        (names[1], "running", 1, 1),
        (names[2], "leaving", 1, 0),
        (names[3], "starting", 0, 0),
        (names[4], "starting", 0, 0),  # instead of the first
    ]
    company.begin(d)
    company.end(d)
    assert company.picture().workers[3].state == "idle"
    (work,) = company.picture().workers[1].works
    assert (work.function, work.category, work.priority, work.kind, work.waiting) == (
        "nothing",
        None,
        0,
        "thread",
        False,
    )
    assert [worker.uuid for worker in company.picture().workers] == [worker.uuid for worker in company.crew]


def test_works_that_wait_are_shown_with_those_that_run_meanwhile():
    company = Company(1)
    (a,) = company.crew
    company.put(category="outer")
    company.begin(a)
    inner = company.put(category="inner", priority=3)
    company.claim(a, inner)
    (worker,) = company.picture().workers
    assert [(work.category, work.priority, work.waiting) for work in worker.works] == [
        ("outer", 0, True),
        ("inner", 3, False),
    ]
    assert worker.works[0].seconds >= worker.works[1].seconds >= 0
    company.end(a)
    company.dispatch.begin_wait(a)
    (worker,) = company.picture().workers
    assert [(work.category, work.waiting) for work in worker.works] == [("outer", True)]
    assert worker.state == "running"


def test_queues_are_shown_by_priority_and_worker():
    company = Company(1, Greedy())
    company.put_many(5)
    for priority in (1, 7, 7, -2):
        company.put(priority=priority)
    company.begin(company.crew[0])
    company.end(company.crew[0])
    company.end(company.crew[0])
    company.end(company.crew[0], 0.0)
    name = company.crew[0].name
    assert [(queue.name, queue.length, queue.priority) for queue in company.picture().queues] == [
        ("common", 2, 0),
        ("priority -2", 1, -2),
        (name, 2, 0),
    ]


def test_times_are_spans_that_agree_with_each_other():
    company = Company(1)
    (worker,) = company.crew
    company.put()
    company.begin(worker)
    time.sleep(0.01)
    first = company.picture()
    (shown,) = first.workers
    assert 0.01 <= shown.works[0].seconds <= shown.busy <= shown.age <= first.uptime < 60
    assert shown.busy == pytest.approx(shown.works[0].seconds)
    assert abs(first.taken - time.time()) < 60
    company.end(worker, span=0.5)
    (shown,) = company.picture().workers
    assert shown.busy == pytest.approx(0.5)
    assert company.picture().durations.count == 1
    assert company.picture().waits.count == 1


def test_functions_are_counted_exactly_in_every_picture():
    company = Company(2)
    company.put_many(30)
    for number, worker in enumerate(company.crew * 15):
        if company.in_hand(worker):
            company.end(worker, error=OSError() if number % 3 else None)
        else:
            company.begin(worker)
        picture = company.picture()
        profile = picture.functions.get("work")
        assert (profile.count if profile else 0) == picture.totals.done == picture.durations.count
        assert (profile.failed if profile else 0) == picture.totals.failed
        assert sum(worker.finished + worker.failed for worker in picture.workers) == picture.totals.done


def test_a_picture_does_not_change():
    company = scene()
    picture = company.picture()
    text = repr(picture)
    company.drain()
    assert repr(picture) == text
    for record in (picture, picture.totals, picture.workers[0], picture.workers[0].works[0], picture.queues[0]):
        with pytest.raises(FrozenInstanceError):
            setattr(record, fields(record)[0].name, "another")
    with pytest.raises(TypeError):
        picture.functions["f"] = None


@pytest.mark.parametrize("make", [lambda: busy(5.0), lambda: scene().picture(), lambda: Company(1).picture()])
def test_a_picture_as_a_dictionary_is_fit_for_json_and_complete(make):
    picture = make()
    plain = picture.as_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["totals"]["submitted"] == picture.totals.submitted
    assert [worker["name"] for worker in plain["workers"]] == [worker.name for worker in picture.workers]
    assert [len(worker["works"]) for worker in plain["workers"]] == [len(worker.works) for worker in picture.workers]
    assert set(plain["functions"]) == set(picture.functions)
    assert [change["reason"] for change in plain["changes"]] == [change.reason for change in picture.changes]
    assert plain["waits"]["count"] == picture.waits.count


@pytest.mark.parametrize(
    ("totals", "balanced"), [(Totals(), True), (Totals(6, 1, 2, 1, 1, 1), True), (Totals(6, 1, 2, 1, 1, 2), False)]
)
def test_totals_know_whether_they_balance(totals, balanced):
    assert totals.balanced == balanced
    assert totals.done == totals.finished + totals.failed + totals.cancelled
