"""hive_task.scheduler: what one can ask of a scheduler, and what it refuses, with real threads."""

import asyncio
import contextvars
import logging
import pickle
import threading
from concurrent.futures import Executor
from concurrent.futures import TimeoutError as FutureTimeout

import pytest

from hive_task import (
    HiveTaskError,
    LocalChannel,
    LocalPort,
    Policy,
    Scheduler,
    SchedulerClosed,
    Work,
    current_work,
    make_scheduler,
    make_work,
    put_work,
    put_works,
    start_scheduler,
    stop_scheduler,
)
from hive_task.errors import UnpicklableWork
from stm import TVar, atomically
from tests.hive_task.live import Held, at_rest, occupied, totals
from tests.support import PATIENCE, Background, Once, elsewhere, together, until


class Batches(Policy):
    """Workers take many works in advance."""

    def batch(self, queued, workers, seconds):
        return 50


def fails(error):
    raise error


# ------------------------------------------------------------------------------------------ bad arguments


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"workers": 0}, ValueError, "workers must be 1 or more.*not 0"),
        ({"workers": -1}, ValueError, "workers must be 1 or more.*not -1"),
        ({"workers": 1.5}, TypeError, "workers must be an integer.*not 1.5"),
        ({"workers": True}, TypeError, "workers must be an integer.*not True"),
        ({"minimum": 0}, ValueError, "minimum must be 1 or more"),
        ({"maximum": "many"}, TypeError, "maximum must be an integer.*'many'"),
        ({"minimum": 5, "maximum": 2}, ValueError, "minimum of 5 workers is more than the maximum of 2"),
        ({"workers": 3, "maximum": 2}, ValueError, "3 workers"),
        ({"run_interval": -1}, ValueError, "run_interval can't be negative: -1"),
        ({"run_interval": float("nan")}, ValueError, "run_interval"),
        ({"run_interval": "1"}, TypeError, "run_interval is a number of seconds, not '1'"),
        ({"run_interval": True}, TypeError, "run_interval"),
        ({"name": 7}, TypeError, "name is a string, not 7"),
        ({"port_class": LocalPort()}, TypeError, "port_class makes a port when it is called"),
        ({"channel_class": None}, TypeError, "channel_class makes a channel when it is called; None can't be"),
        ({"policy": Policy}, TypeError, "policy is an object of a class derived from Policy"),
    ],
)
def test_a_bad_argument_is_refused_by_the_call_that_gives_it(arguments, error, message):
    for make in (make_scheduler, Scheduler):
        with pytest.raises(error, match=message):
            make(**arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"fn": "print"}, TypeError, "something that can be called, not 'print'"),
        ({"args": "abc"}, TypeError, r"write \('abc',\)"),
        ({"args": 5}, TypeError, "iterable"),
        ({"kwargs": 5}, TypeError, "not iterable"),
        ({"priority": "high"}, TypeError, "priority is a whole number.*'high'"),
        ({"priority": 1.0}, TypeError, "priority"),
        ({"priority": True}, TypeError, "priority"),
        ({"category": 3}, TypeError, "category is a name, not 3"),
        ({"time_limit": 0}, ValueError, "time_limit must be more than nothing"),
        ({"time_limit": -1.0}, ValueError, "time_limit"),
        ({"time_limit": float("nan")}, ValueError, "time_limit"),
        ({"time_limit": "1"}, TypeError, "time_limit is a number of seconds, or None; not '1'"),
        ({"kind": "fibre"}, ValueError, "kind is one of 'thread', 'process', not 'fibre'"),
        ({"kind": None}, ValueError, "kind is one of"),
        ({"reruns": -1}, ValueError, "reruns can't be negative: -1"),
        ({"reruns": 1.5}, TypeError, "reruns is a whole number, not 1.5"),
        ({"reruns": True}, TypeError, "reruns"),
    ],
)
def test_a_bad_work_is_refused_when_it_is_made(arguments, error, message):
    with pytest.raises(error, match=message):
        Work(**{"fn": print, **arguments})


def test_what_cannot_be_called_is_refused():
    with pytest.raises(TypeError, match="something that can be called, not 5"):
        make_work(5)
    with Scheduler(workers=1) as scheduler:
        with pytest.raises(TypeError, match=r"submit\(\) takes something that can be called, not 5"):
            scheduler.submit(5)
        assert totals(scheduler) == {}


def test_what_is_not_a_work_is_refused():
    with Scheduler(workers=1) as scheduler:
        for call in (scheduler.put_work, lambda one: scheduler.put_works([one]), lambda one: put_work(scheduler, one)):
            with pytest.raises(TypeError, match=r"takes works .*; for a function: submit\(\)"):
                call(print)
        assert totals(scheduler) == {}


def test_what_is_not_a_scheduler_is_refused_by_each_function():
    calls = {
        "start_scheduler": (start_scheduler,),
        "stop_scheduler": (stop_scheduler,),
        "put_work": (put_work, make_work(print)),
        "put_works": (put_works, [make_work(print)]),
    }
    for name, (function, *arguments) in calls.items():
        with pytest.raises(TypeError, match=rf"{name}\(\) takes a scheduler \(see make_scheduler\), not None"):
            function(None, *arguments)


def submissions(scheduler):
    return (
        lambda: scheduler.submit(print),
        lambda: scheduler.put_work(make_work(print)),
        lambda: scheduler.put_works([make_work(print), make_work(print)]),
        lambda: scheduler.map(print, "ab"),
        lambda: put_work(scheduler, Work(print, priority=1)),
    )


def test_work_before_the_start_and_after_the_stop_is_refused():
    scheduler = make_scheduler(workers=1, name="shop")
    for submit in submissions(scheduler):
        with pytest.raises(SchedulerClosed, match="'shop' takes no work: it is new; start it first"):
            submit()
    scheduler.start()
    scheduler.stop()
    for submit in submissions(scheduler):
        with pytest.raises(RuntimeError, match="'shop' takes no work: it is stopped"):
            submit()
    assert totals(scheduler) == {}


def test_work_is_refused_while_the_scheduler_is_stopping():
    with Scheduler(workers=1, name="shop") as scheduler, occupied(scheduler):
        scheduler.shutdown(wait=False)
        assert scheduler.monitor().state == "stopping"
        for submit in submissions(scheduler):
            with pytest.raises(SchedulerClosed, match="'shop' takes no work: it is stopping"):
                submit()


def test_work_for_a_process_that_cannot_travel_is_refused_at_once():
    with Scheduler(workers=1) as scheduler:
        for work in (Work(lambda: 1, kind="process"), Work(print, (threading.Lock(),), kind="process")):
            with pytest.raises(UnpicklableWork):
                scheduler.put_work(work)
            with pytest.raises(UnpicklableWork):
                scheduler.put_works([make_work(print), work])
        assert totals(scheduler) == {}


def test_a_scheduler_and_a_future_cannot_be_pickled():
    with Scheduler(workers=1) as scheduler:
        for one in (scheduler, scheduler.submit(int)):
            with pytest.raises(TypeError):
                pickle.dumps(one)


# ------------------------------------------------------------------------------------------ start, stop, names


def test_starting_and_stopping_again_makes_no_difference():
    scheduler = make_scheduler(workers=2)
    for _ in range(2):
        start_scheduler(scheduler)
    assert [one.name for one in at_rest(scheduler).workers] == [f"{scheduler.name}-1", f"{scheduler.name}-2"]
    future = put_work(scheduler, make_work(pow, 2, 10))
    for _ in range(2):
        stop_scheduler(scheduler)
    assert future.result() == 1024
    assert scheduler.monitor().state == "stopped"
    with pytest.raises(SchedulerClosed, match="is stopped, for good; make a new one"):
        start_scheduler(scheduler)


def test_one_that_was_never_started_can_be_stopped():
    scheduler = make_scheduler(workers=1)
    stop_scheduler(scheduler)
    assert scheduler.monitor().state == "stopped"
    with pytest.raises(SchedulerClosed, match="make a new one"):
        scheduler.start()


def test_many_start_and_stop_at_once():
    scheduler = Scheduler(workers=2)
    together(*[scheduler.start] * 4)
    assert len(scheduler.monitor().workers) == 2
    together(*[scheduler.stop] * 4)
    assert not scheduler.monitor().workers


def test_a_start_in_a_transaction_happens_if_that_commits():
    scheduler = Scheduler(workers=1)

    @atomically
    def start(then):
        scheduler.start()
        future = scheduler.submit(pow, 2, 10)
        then()
        return future

    with pytest.raises(KeyError):
        start(lambda: fails(KeyError()))
    assert scheduler.monitor().state == "new"
    assert start(lambda: None).result(PATIENCE) == 1024
    scheduler.stop()


def test_the_name_is_that_of_threads_workers_and_errors():
    with Scheduler(workers=1, name="shop") as scheduler:
        assert scheduler.name == scheduler.monitor().name == "shop"
        assert scheduler.submit(lambda: threading.current_thread().name).result() == "shop-1"
        assert scheduler.submit(lambda: current_work().worker).result() == "shop-1"
        assert repr(scheduler) == "<Scheduler 'shop' running, 1 workers>"
    assert repr(scheduler) == "<Scheduler 'shop' stopped, 0 workers>"


def test_without_a_name_each_gets_its_own():
    names = {Scheduler(workers=1).name for _ in range(3)}
    assert len(names) == 3
    assert all(name.startswith("scheduler-") for name in names)


def test_it_is_a_context_manager_that_finishes_its_work():
    done = []
    with Scheduler(workers=1) as scheduler:
        assert scheduler.monitor().state == "running"
        for number in range(20):
            scheduler.submit(done.append, number)
    assert done == list(range(20))
    assert scheduler.monitor().state == "stopped"


def test_the_context_manager_finishes_its_work_after_an_exception_too():
    with pytest.raises(KeyError), Scheduler(workers=1) as scheduler:
        future = scheduler.submit(pow, 2, 3)
        raise KeyError
    assert future.result() == 8


# ------------------------------------------------------------------------------------------ an executor


def test_it_is_an_executor():
    with Scheduler(workers=2) as scheduler:
        assert isinstance(scheduler, Executor)
        assert scheduler.submit(dict, fn=1, self=2).result() == {"fn": 1, "self": 2}
        with pytest.raises(KeyError, match="here"):
            scheduler.submit(fails, KeyError("here")).result()

        async def main():
            return await asyncio.get_running_loop().run_in_executor(scheduler, pow, 2, 5)

        assert asyncio.run(main()) == 32


def test_a_work_may_raise_anything_and_its_worker_goes_on():
    with Scheduler(workers=1) as scheduler:
        for error in (ValueError(1), SystemExit(2), KeyboardInterrupt(3), GeneratorExit(4), BaseException(5)):
            future = scheduler.submit(fails, error)
            assert future.exception(PATIENCE) is error
        assert scheduler.submit(lambda: current_work().worker).result() == f"{scheduler.name}-1"
        assert totals(scheduler) == {"submitted": 6, "finished": 1, "failed": 5}


def test_map_keeps_the_order_and_raises_what_was_raised():
    with Scheduler(workers=2) as scheduler:
        assert list(scheduler.map(pow, range(20), [2] * 20)) == [n * n for n in range(20)]
        assert list(scheduler.map(print, ())) == []
        results = scheduler.map(lambda n: 1 / n, [1, 0, 2])
        assert next(results) == 1
        with pytest.raises(ZeroDivisionError):
            next(results)


def test_map_has_a_timeout_and_cancels_what_is_left():
    with Scheduler(workers=1) as scheduler, occupied(scheduler):
        results = scheduler.map(pow, [1, 2], [1, 2], timeout=0.01)
        with pytest.raises(FutureTimeout):
            next(results)
        assert totals(scheduler) == {"submitted": 3, "running": 1, "cancelled": 2}


def test_a_work_runs_in_the_context_of_the_call_that_submitted_it():
    variable = contextvars.ContextVar("variable", default="none")
    with Scheduler(workers=1) as scheduler:
        variable.set("mine")
        futures = [scheduler.submit(variable.get), scheduler.put_work(make_work(variable.get))]
        scheduler.submit(variable.set, "the work's").result()
        futures.append(scheduler.submit(variable.get))
        assert [future.result() for future in futures] == ["mine"] * 3


# ------------------------------------------------------------------------------------------ transactions


def test_a_work_submitted_in_a_transaction_is_there_if_and_when_that_commits():
    balance, done = TVar(10), []
    with Scheduler(workers=1) as scheduler:

        @atomically
        def withdraw(amount):
            balance.value -= amount
            scheduler.submit(done.append, amount)
            future = scheduler.put_work(Work(done.append, (-amount,), priority=1))
            assert not future.done()
            if balance.value < 0:
                raise ValueError(scheduler.monitor().totals.submitted)
            return future

        with pytest.raises(ValueError, match="2"):
            withdraw(11)
        assert totals(scheduler) == {}
        withdraw(7).result(PATIENCE)
        at_rest(scheduler)
        assert sorted(done) == [-7, 7]


def test_a_transaction_that_runs_twice_submits_once():
    x, done = TVar(0), []
    with Scheduler(workers=1) as scheduler:
        once = Once()

        @atomically
        def body():
            x.get()
            scheduler.submit(done.append, 1)
            if once:
                elsewhere(x.set, 1)
            x.set(2)

        body()
        at_rest(scheduler)
        assert done == [1]


def test_several_works_are_submitted_in_one_step():
    stop = threading.Event()
    with Scheduler(workers=2) as scheduler:

        def look():
            seen = set()
            while not stop.is_set():
                seen.add(scheduler.monitor().totals.submitted % 7)
            return seen

        background = Background(look)
        for round_ in range(60):
            works = [Work(pow, (number, 2), priority=number % 3 * (round_ % 2)) for number in range(7)]
            futures = put_works(scheduler, iter(works))
            assert [future.result(PATIENCE) for future in futures] == [n * n for n in range(7)]
        stop.set()
        assert background.result() == {0}


def test_if_one_of_several_works_is_bad_none_is_submitted():
    def broken():
        yield make_work(print)
        raise KeyError("broken")

    with Scheduler(workers=1) as scheduler:
        with pytest.raises(TypeError):
            scheduler.put_works([make_work(print), None])
        with pytest.raises(KeyError, match="broken"):
            scheduler.put_works(broken())
        assert scheduler.put_works([]) == []
        assert totals(scheduler) == {}


def test_the_same_work_can_be_submitted_again():
    work = make_work(list, "ab")
    with Scheduler(workers=1) as scheduler:
        results = [future.result(PATIENCE) for future in scheduler.put_works([work, work])]
    assert results == [["a", "b"]] * 2
    assert results[0] is not results[1]


# ------------------------------------------------------------------------------------------ order


def test_higher_priorities_come_first_and_equal_ones_in_order():
    order = []
    with Scheduler(workers=1) as scheduler, occupied(scheduler):
        for number, priority in enumerate((0, -1, 5, 0, 9, 5, -1)):
            scheduler.put_work(Work(order.append, ((priority, number),), priority=priority))
        queues = {queue.name: queue.length for queue in scheduler.monitor().queues}
        assert queues == {
            "common": 2,
            "priority 9": 1,
            "priority 5": 2,
            "priority -1": 2,
            f"{scheduler.name}-1": 0,
        }
    assert order == [(9, 4), (5, 2), (5, 5), (0, 0), (0, 3), (-1, 1), (-1, 6)]


def test_several_works_submitted_at_once_are_begun_by_priority():
    order = []
    with Scheduler(workers=1) as scheduler:
        at_rest(scheduler)
        works = [(0, 1), (-2, 2), (7, 3), (0, 4), (3, 5), (3, 6), (-2, 7), (3, 8)]
        scheduler.put_works([Work(order.append, (name,), priority=name[0]) for name in works])
    assert order == [(7, 3), (3, 5), (3, 6), (3, 8), (0, 1), (0, 4), (-2, 2), (-2, 7)]


def test_what_was_taken_in_advance_gives_way_to_what_is_more_urgent():
    order = []
    with Scheduler(workers=1, policy=Batches()) as scheduler:

        def third():
            order.append(3)
            (worker,) = scheduler.monitor().workers
            order.append(("in advance", worker.queued))
            scheduler.put_work(Work(order.append, ("low",), priority=-1))
            scheduler.put_work(Work(order.append, ("urgent",), priority=1))

        with occupied(scheduler):
            for number in range(1, 7):
                scheduler.submit(*((third,) if number == 3 else (order.append, number)))
        at_rest(scheduler)
    assert order == [1, 2, 3, ("in advance", 3), "urgent", 4, 5, 6, "low"]


def test_what_was_taken_in_advance_is_taken_over_by_whoever_is_idle():
    with Scheduler(workers=2, policy=Batches()) as scheduler:
        one, two = Held(), Held()
        scheduler.submit(one), scheduler.submit(two)
        one.has_begun(), two.has_begun()
        stuck = Held()
        scheduler.submit(stuck)
        others = [scheduler.submit(pow, 2, number) for number in range(20)]
        one.go.set()  # who then takes everything
        stuck.has_begun()
        assert sorted(worker.queued for worker in scheduler.monitor().workers) == [0, 20]
        two.go.set()
        assert [future.result(PATIENCE) for future in others] == [2**number for number in range(20)]
        stuck.go.set()


def test_nobody_is_idle_while_a_work_is_queued_that_is_nobodys():
    seen = []
    stop = threading.Event()
    with Scheduler(workers=3) as scheduler:

        def look():
            while not stop.is_set():
                picture = scheduler.monitor()
                assert picture.totals.balanced, picture
                seen.append(picture)
                if any(worker.state == "idle" for worker in picture.workers):
                    # what is on the way to somebody who was idle is his
                    assert not [one for one in picture.workers if one.works and one.queued], picture
                    names = {worker.name for worker in picture.workers}
                    assert not [queue for queue in picture.queues if queue.length and queue.name not in names], picture

        background = Background(look)
        for _ in range(100):
            scheduler.put_works([make_work(sum, range(500)) for _ in range(10)])[-1].result(PATIENCE)
        stop.set()
        background.result()
        assert at_rest(scheduler).totals.finished == 1000
    assert seen


def test_a_policy_that_places_works_nowhere_is_reported_to_whoever_submits():
    class Nowhere(Policy):
        def place(self, work, idle, functions):
            return 9

    with Scheduler(workers=1, policy=Nowhere()) as scheduler:
        at_rest(scheduler)
        with pytest.raises(HiveTaskError, match=r"Nowhere.place\(\) must return an index of the 1 idle workers, not 9"):
            scheduler.submit(print)
        assert totals(scheduler) == {}


# ------------------------------------------------------------------------------------------ cancelling


def test_a_work_that_has_not_begun_can_be_cancelled_and_no_other():
    told = []
    with Scheduler(workers=1) as scheduler:
        with occupied(scheduler) as (running,):
            ordinary = scheduler.submit(told.append, "ordinary")
            urgent = scheduler.put_work(Work(told.append, ("urgent",), priority=2))
            for future in (ordinary, urgent):
                future.add_done_callback(told.append)
                assert future.cancel()
                assert future.cancel()
                assert future.cancelled()
                assert future.done()
            assert running.running()
            assert not running.cancel()
            assert told == [ordinary, urgent]
            assert totals(scheduler) == {"submitted": 3, "running": 1, "cancelled": 2}
        running.result()
        assert not running.cancel()
        at_rest(scheduler)
    assert told == [ordinary, urgent]


def test_cancelling_in_a_transaction_happens_if_that_commits():
    told = []
    with Scheduler(workers=1) as scheduler, occupied(scheduler):
        future = scheduler.submit(print)
        future.add_done_callback(told.append)

        @atomically
        def cancel(then):
            assert future.cancel()
            assert future.done()
            then()

        with pytest.raises(KeyError):
            cancel(lambda: fails(KeyError()))
        assert not future.done()
        assert not told
        cancel(lambda: None)
        assert told == [future]


def test_a_work_that_ends_while_works_are_listed_is_listed_or_not(monkeypatch):
    """Whoever ends or cancels a work lets go of it, and no transaction can tell the one who lists works."""

    class Vanishing:
        looks = 0

        @property
        def _work(self):
            self.looks += 1
            return Work(int, category="red") if self.looks == 1 else None

    with Scheduler(workers=1) as scheduler:
        for look in (lambda: scheduler.works("red"), scheduler.categories):
            monkeypatch.setattr(scheduler._dispatch, "queued_works", lambda: iter([Vanishing()]))
            assert len(look()) == 1
        monkeypatch.undo()


def test_categories_are_counted_listed_and_cancelled():
    with Scheduler(workers=1) as scheduler:
        at_end = []

        def work():
            begun.set()
            until(lambda: current_work().cancel_requested, "the request")
            at_end.append(current_work().port.receive(timeout=PATIENCE))
            return "as it saw fit"

        begun = threading.Event()
        running = scheduler.put_work(Work(work, category="books"))
        assert begun.wait(PATIENCE)
        books = [scheduler.put_work(Work(print, category="books", priority=number)) for number in range(3)]
        bread = scheduler.put_work(Work(pow, (2, 3), category="bread"))
        other = scheduler.submit(pow, 2, 4)
        assert scheduler.categories() == {"books": (3, 1), "bread": (1, 0)}
        assert set(scheduler.works("books")) == {running, *books}
        assert scheduler.works("books")[-1] is running
        assert len(scheduler.works()) == 6
        assert scheduler.works("none") == ()
        assert scheduler.cancel_category("none") == 0
        assert scheduler.cancel_category("books") == 3
        assert [future.cancelled() for future in books] == [True] * 3
        assert running.result(PATIENCE) == "as it saw fit"
        assert at_end[0].kind == "cancel"
        assert (bread.result(PATIENCE), other.result(PATIENCE)) == (8, 16)
        assert scheduler.categories() == {}
        with pytest.raises(TypeError, match="a category is a name, not 5"):
            scheduler.cancel_category(5)


# ------------------------------------------------------------------------------------------ resize


def names(scheduler):
    return [worker.name for worker in scheduler.monitor().workers]


def test_resize_grows_at_once():
    with Scheduler(workers=1) as scheduler, occupied(scheduler):
        second = Held()
        scheduler.submit(second)
        assert not second.begun.is_set()
        scheduler.resize(2)
        second.has_begun()
        second.go.set()
        assert len(scheduler.monitor().workers) == 2
        assert (scheduler.monitor().minimum, scheduler.monitor().maximum) == (2, 2)


def test_resize_lets_idle_workers_go_first_and_others_after_their_work():
    with Scheduler(workers=3) as scheduler:
        first, second = Held(), Held()
        futures = [scheduler.submit(first, 1), scheduler.submit(second, 2)]
        first.has_begun(), second.has_begun()
        until(lambda: "idle" in [one.state for one in scheduler.monitor().workers])
        scheduler.resize(2)
        until(lambda: len(names(scheduler)) == 2)
        assert [one.state for one in scheduler.monitor().workers] == ["running"] * 2
        scheduler.resize(1)
        assert sorted(one.state for one in scheduler.monitor().workers) == ["leaving", "running"]
        queued = [scheduler.submit(pow, 2, 5) for _ in range(3)]
        first.go.set(), second.go.set()
        assert [future.result(PATIENCE) for future in (*futures, *queued)] == [1, 2, 32, 32, 32]
        until(lambda: len(names(scheduler)) == 1)
        assert totals(scheduler) == {"submitted": 5, "finished": 5}


def test_what_a_leaving_worker_had_taken_in_advance_is_done_by_others():
    with Scheduler(workers=2, policy=Batches()) as scheduler:
        one, two = Held(), Held()
        scheduler.submit(one), scheduler.submit(two)
        one.has_begun(), two.has_begun()
        stuck = Held()
        scheduler.submit(stuck)
        others = [scheduler.submit(pow, 2, number) for number in range(10)]
        one.go.set()
        stuck.has_begun()
        assert sorted(worker.queued for worker in scheduler.monitor().workers) == [0, 10]
        scheduler.resize(1)
        two.go.set(), stuck.go.set()
        assert [future.result(PATIENCE) for future in others] == [2**number for number in range(10)]
        until(lambda: len(names(scheduler)) == 1)


def test_resize_is_refused_or_undone_like_anything_else():
    with Scheduler(workers=1) as scheduler:
        for bad, error in ((0, ValueError), ("2", TypeError), (1.5, TypeError)):
            with pytest.raises(error):
                scheduler.resize(bad)

        @atomically
        def undone():
            scheduler.resize(3)
            raise KeyError

        with pytest.raises(KeyError):
            undone()
        assert len(names(scheduler)) == 1
        assert scheduler.monitor().maximum == 1


def test_resize_before_the_start_says_how_many_there_will_be():
    scheduler = Scheduler(workers=1)
    scheduler.resize(3)
    with scheduler:
        assert len(names(scheduler)) == 3


def test_the_changes_of_the_number_are_remembered_with_their_reasons_and_logged(caplog):
    caplog.set_level(logging.INFO, "hive_task")
    with Scheduler(workers=1, name="shop") as scheduler:
        scheduler.resize(2)
        scheduler.resize(2)
        changes = [(change.before, change.after, change.reason) for change in scheduler.monitor().changes]
    assert changes == [(0, 1, "at the start"), (1, 2, "as told by resize()")]
    assert "shop: 2 workers, after 1: as told by resize()" in caplog.messages


# ------------------------------------------------------------------------------------------ ports


def test_messages_go_between_the_program_and_the_works():
    with Scheduler(workers=2) as scheduler:
        assert set(scheduler.ports()) == {worker.uuid for worker in scheduler.monitor().workers}

        def converse():
            port = current_work().port
            port.send("ready")
            return port.receive(timeout=PATIENCE)

        future = scheduler.submit(converse)
        until(lambda: any(one.works for one in scheduler.monitor().workers))
        (busy,) = [worker for worker in scheduler.monitor().workers if worker.works]
        port = scheduler.ports()[busy.uuid]
        assert port.receive(timeout=PATIENCE) == "ready"
        port.send({"go": 1})
        assert future.result(PATIENCE) == {"go": 1}


def test_the_ports_are_made_of_the_classes_given():
    class Port(LocalPort):
        pass

    class Channel(LocalChannel):
        pass

    with make_scheduler(workers=1, port_class=Port, channel_class=Channel) as scheduler:
        (port,) = scheduler.ports().values()
        assert type(port) is Port
        assert type(scheduler.submit(lambda: current_work().port).result()) is Port


def test_there_is_no_current_work_outside_of_works():
    assert current_work() is None
    with Scheduler(workers=1) as scheduler:
        future = scheduler.submit(lambda: current_work().future)
        assert future.result() is future
        assert current_work() is None


# ------------------------------------------------------------------------------------------ logs, pictures


def test_ordinary_work_logs_nothing_to_worry_about(caplog):
    caplog.set_level(logging.DEBUG, "hive_task")
    with Scheduler(workers=2) as scheduler:
        scheduler.submit(fails, KeyError()).exception()
        scheduler.submit(print).result()
        with occupied(scheduler, 2):
            scheduler.submit(print).cancel()
    assert not [one for one in caplog.records if one.levelno > logging.INFO]


def test_what_a_callback_raises_is_logged_and_the_others_are_called(caplog):
    called = []
    with Scheduler(workers=1) as scheduler:
        with occupied(scheduler) as (future,):
            future.add_done_callback(lambda one: fails(KeyError("in a callback")))
            future.add_done_callback(called.append)
        future.result()
    assert called == [future]
    (record,) = caplog.records
    assert record.name == "hive_task.futures"
    assert record.levelno == logging.ERROR
    assert record.exc_info[0] is KeyError


def test_callbacks_are_called_by_the_worker_or_at_once_if_it_is_too_late():
    threads = []
    with Scheduler(workers=1, name="shop") as scheduler:
        with occupied(scheduler) as (future,):
            future.add_done_callback(lambda one: threads.append(threading.current_thread().name))
        at_rest(scheduler)
        future.add_done_callback(lambda one: threads.append(threading.current_thread().name))
        with pytest.raises(TypeError, match="a callback is called with the future; 5 can't be"):
            future.add_done_callback(5)
    assert threads == ["shop-1", threading.current_thread().name]


def test_a_callback_may_wait_for_the_work_that_comes_next():
    got = []
    with Scheduler(workers=1) as scheduler:
        with occupied(scheduler) as (first,):
            second = scheduler.submit(pow, 2, 5)
            first.add_done_callback(lambda one: got.append(second.result(PATIENCE / 10)))
        at_rest(scheduler)
    assert got == [32]


def test_pictures_show_who_does_what():
    with Scheduler(workers=2) as scheduler:
        work = Held()
        scheduler.put_work(Work(work, category="books", priority=3, time_limit=60))
        work.has_begun()
        picture = scheduler.monitor()
        (busy,) = [worker for worker in picture.workers if worker.works]
        (running,) = busy.works
        assert (running.function, running.category, running.priority, running.time_limit, running.kind) == (
            "Held",
            "books",
            3,
            60,
            "thread",
        )
        assert busy.state == "running"
        assert 0 <= running.seconds <= busy.age <= picture.uptime
        work.go.set()
        picture = at_rest(scheduler)
        assert sum(worker.finished for worker in picture.workers) == 1
        assert picture.functions["Held"].count == picture.durations.count == picture.waits.count == 1
    assert scheduler.monitor().totals.finished == 1
    assert scheduler.monitor().functions["Held"].count == 1


def test_the_monitor_is_served_until_the_scheduler_stops(tmp_path):
    path = tmp_path / "monitor"
    with Scheduler(workers=1) as scheduler:
        scheduler.serve_monitor(path)
        assert path.exists()
    assert not path.exists()
