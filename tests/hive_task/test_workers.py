"""hive_task.worker, hive_task.futures: works that wait for works let others run, and each work runs once."""

import concurrent.futures
import threading
from collections import Counter
from unittest.mock import MagicMock

import pytest

from hive_task import (
    Scheduler,
    Work,
    as_completed,
    blocking,
    current_work,
    wait,
)
from stm import TVar, atomically, check, or_else, retry
from tests.hive_task.live import Held, at_rest, occupied, totals
from tests.support import PATIENCE, Background, together, until


def regulars_only(scheduler, workers=1):
    """Wait until nothing is left to do, and nobody stands in for anybody."""
    until(lambda: len(scheduler.monitor().workers) == workers, "the end of all stand-ins")
    return at_rest(scheduler)


# ------------------------------------------------------------------------------------------ waiting for works


def test_a_work_may_wait_for_works_that_it_has_submitted_with_one_worker():
    with Scheduler(workers=1) as scheduler:

        def outer():
            futures = [scheduler.submit(pow, 2, number) for number in range(5)]
            return [future.result() for future in reversed(futures)]

        assert scheduler.submit(outer).result(PATIENCE) == [16, 8, 4, 2, 1]
        regulars_only(scheduler)
        assert totals(scheduler) == {"submitted": 6, "finished": 6}


def test_what_a_work_waits_for_is_run_by_its_own_thread_if_it_is_queued_still():
    with Scheduler(workers=1, name="shop") as scheduler:

        def outer():
            return scheduler.submit(lambda: (current_work().worker, len(scheduler.monitor().workers))).result()

        assert scheduler.submit(outer).result(PATIENCE) == ("shop-1", 1)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_works_may_wait_for_works_that_wait_for_works(workers):
    with Scheduler(workers=workers) as scheduler:

        def fib(n):
            if n < 2:
                return n
            left, right = scheduler.submit(fib, n - 1), scheduler.submit(fib, n - 2)
            return left.result() + right.result()

        assert scheduler.submit(fib, 10).result(PATIENCE) == 55
        regulars_only(scheduler, workers)
        assert totals(scheduler) == {"submitted": 177, "finished": 177}


@pytest.mark.parametrize("workers", [1, 2])
def test_chains_of_waiting_works_may_be_longer_than_the_stack(workers):
    with Scheduler(workers=workers) as scheduler:

        def depth(n):
            return 1 + scheduler.submit(depth, n - 1).result() if n else 0

        assert scheduler.submit(depth, 600).result(PATIENCE) == 600
        regulars_only(scheduler, workers)


def test_what_a_nested_work_raises_reaches_whoever_waits_for_it():
    with Scheduler(workers=1) as scheduler:

        def outer():
            with pytest.raises(ZeroDivisionError):
                scheduler.submit(lambda: 1 / 0).result()
            error = scheduler.submit(lambda: 1 / 0).exception()
            scheduler.submit(lambda: {}[3]).result()
            return error

        with pytest.raises(KeyError):
            scheduler.submit(outer).result(PATIENCE)
        regulars_only(scheduler)
        assert totals(scheduler) == {"submitted": 4, "failed": 4}


@pytest.mark.parametrize("workers", [1, 2])
def test_several_works_may_wait_for_the_same_one(workers):
    """A diamond."""
    with Scheduler(workers=workers) as scheduler:
        ran = []

        def bottom():
            ran.append(1)
            return 5

        def side(one, factor):
            return one.result() * factor

        def top():
            one = scheduler.submit(bottom)
            sides = [scheduler.submit(side, one, factor) for factor in (2, 3, 4)]
            return sum(future.result() for future in sides)

        assert scheduler.submit(top).result(PATIENCE) == 45
        assert ran == [1]
        regulars_only(scheduler, workers)
        assert totals(scheduler) == {"submitted": 5, "finished": 5}


def test_a_work_may_wait_for_one_that_is_submitted_from_outside_later():
    with Scheduler(workers=1) as scheduler:
        box = TVar(None)

        @atomically
        def is_there():
            check(box.value is not None)
            return box.value

        def waits():
            with blocking():
                future = is_there()
            return future.result()

        waiting = scheduler.submit(waits)
        until(lambda: any(work.waiting for one in scheduler.monitor().workers for work in one.works))
        box.set(scheduler.submit(pow, 2, 5))
        assert waiting.result(PATIENCE) == 32
        regulars_only(scheduler)


def test_works_may_wait_for_what_another_one_sets_on_one_worker():
    """Neither could end if the other one did not run meanwhile."""
    with Scheduler(workers=1) as scheduler:
        here, there = threading.Event(), threading.Event()

        def exchange(mine, theirs):
            mine.set()
            with blocking():
                return theirs.wait(PATIENCE)

        futures = [scheduler.submit(exchange, here, there), scheduler.submit(exchange, there, here)]
        assert [future.result(PATIENCE) for future in futures] == [True, True]
        regulars_only(scheduler)


def test_a_work_may_wait_for_one_that_runs_elsewhere_while_others_run():
    with Scheduler(workers=2, name="shop") as scheduler:
        held = Held()
        long = scheduler.submit(held, "long")
        held.has_begun()
        waiting = scheduler.submit(long.result)
        until(lambda: any(work.waiting for one in scheduler.monitor().workers for work in one.works))
        assert scheduler.submit(lambda: current_work().worker).result(PATIENCE) == "shop-3"  # who stands in
        held.go.set()
        assert waiting.result(PATIENCE) == "long"
        regulars_only(scheduler, 2)


def test_a_work_may_wait_for_one_of_another_scheduler():
    with Scheduler(workers=1) as scheduler, Scheduler(workers=1) as other:

        def there(n):
            return scheduler.submit(here, n - 1).result() + 1 if n else 0

        def here(n):
            return other.submit(there, n).result() + 1

        assert scheduler.submit(here, 8).result(PATIENCE) == 17
        regulars_only(scheduler), regulars_only(other)


def test_a_work_may_wait_for_urgent_limited_and_process_works():
    with Scheduler(workers=1) as scheduler:

        def outer():
            works = (
                Work(pow, (2, 1), priority=3),
                Work(pow, (2, 2), priority=-3),
                Work(pow, (2, 3), time_limit=PATIENCE),
                Work(pow, (2, 4), kind="process"),
            )
            return [future.result() for future in scheduler.put_works(works)]

        assert scheduler.submit(outer).result(PATIENCE) == [2, 4, 8, 16]
        regulars_only(scheduler)
        assert totals(scheduler) == {"submitted": 5, "finished": 5}


def test_a_wait_in_a_work_keeps_its_time_limit():
    with Scheduler(workers=2) as scheduler, occupied(scheduler) as (endless,):

        def outer():
            with pytest.raises(TimeoutError):
                endless.result(0.01)
            with pytest.raises(TimeoutError):
                endless.exception(0)
            return scheduler.submit(pow, 2, 3).result(PATIENCE)

        assert scheduler.submit(outer).result(PATIENCE) == 8


def test_wait_and_as_completed_let_others_run():
    with Scheduler(workers=1) as scheduler:

        def outer():
            futures = [scheduler.submit(pow, 2, number) for number in range(4)]
            done, not_done = wait(futures, PATIENCE)
            assert not not_done
            more = [scheduler.submit(pow, 3, number) for number in range(4)]
            return sorted(one.result() for one in done), sorted(one.result() for one in as_completed(more, PATIENCE))

        assert scheduler.submit(outer).result(PATIENCE) == ([1, 2, 4, 8], [1, 3, 9, 27])
        regulars_only(scheduler)


def test_wait_and_as_completed_work_outside_of_works_too():
    with Scheduler(workers=2) as scheduler:
        futures = [scheduler.submit(pow, 2, number) for number in range(10)]
        assert {one.result() for one in as_completed(futures, PATIENCE)} == {2**n for n in range(10)}
        with occupied(scheduler, 2) as busy:
            queued = scheduler.submit(pow, 2, 3)
            done, not_done = wait([*futures, *busy, queued], 0)
            assert (done, not_done) == (set(futures), {*busy, queued})
            queued.cancel()
            done, not_done = wait([*busy, queued], PATIENCE, concurrent.futures.FIRST_COMPLETED)
            assert done == {queued}
            with pytest.raises(TimeoutError):
                list(as_completed(busy, 0.001))


def test_map_in_a_work_lets_others_run():
    with Scheduler(workers=1) as scheduler:
        assert scheduler.submit(lambda: list(scheduler.map(abs, range(-3, 3)))).result(PATIENCE) == [3, 2, 1, 0, 1, 2]


def test_blocking_lets_others_run():
    with Scheduler(workers=1) as scheduler:
        event = threading.Event()

        def waits():
            with blocking(), blocking():
                assert event.wait(PATIENCE)
            return scheduler.submit(pow, 2, 3).result()

        waiting = [scheduler.submit(waits) for _ in range(5)]
        scheduler.submit(event.set)
        assert [future.result(PATIENCE) for future in waiting] == [8] * 5
        regulars_only(scheduler)


def test_blocking_does_nothing_outside_of_works_and_raises_what_is_raised_in_it():
    with pytest.raises(KeyError), blocking():
        raise KeyError
    with Scheduler(workers=1) as scheduler:

        def raises():
            with blocking():
                raise KeyError

        with pytest.raises(KeyError):
            scheduler.submit(raises).result(PATIENCE)
        regulars_only(scheduler)
        with occupied(scheduler):
            assert [work.waiting for one in scheduler.monitor().workers for work in one.works] == [False]


def test_nobody_stands_in_while_there_is_nothing_to_do():
    with Scheduler(workers=1) as scheduler:
        held = Held()

        def waits():
            with blocking():
                held()

        future = scheduler.submit(waits)
        held.has_begun()
        (worker,) = scheduler.monitor().workers
        assert worker.works[0].waiting
        held.go.set()
        future.result(PATIENCE)
        assert at_rest(scheduler).workers[0].name == worker.name


def test_a_stand_in_finishes_what_it_has_begun_and_leaves():
    with Scheduler(workers=1) as scheduler:
        outer, inner = Held(), Held()

        def waits():
            with blocking():
                outer()

        waiting = scheduler.submit(waits)
        outer.has_begun()
        stood_in = scheduler.submit(inner, "inner")
        inner.has_begun()
        assert len(scheduler.monitor().workers) == 2
        outer.go.set()
        waiting.result(PATIENCE)
        assert "leaving" in [worker.state for worker in scheduler.monitor().workers]
        inner.go.set()
        assert stood_in.result(PATIENCE) == "inner"
        regulars_only(scheduler)


def test_who_stood_in_leaves_as_soon_as_the_wait_is_over():
    with Scheduler(workers=1, name="shop") as scheduler:
        first, then = Held(), Held()

        def waits():
            with blocking():
                first()
            then()

        waiting = scheduler.submit(waits)
        first.has_begun()
        assert scheduler.submit(lambda: current_work().worker).result(PATIENCE) == "shop-2"
        first.go.set()
        then.has_begun()
        until(lambda: [worker.name for worker in scheduler.monitor().workers] == ["shop-1"])
        assert [work.waiting for work in scheduler.monitor().workers[0].works] == [False]
        queued = scheduler.submit(pow, 2, 3)
        assert scheduler.monitor().totals.queued == 1
        then.go.set()
        assert queued.result(PATIENCE) == 8
        waiting.result(PATIENCE)


def test_a_stand_in_may_wait_itself():
    with Scheduler(workers=1) as scheduler:

        def depth(n, event):
            following = threading.Event()
            if n:
                scheduler.submit(depth, n - 1, following)
                with blocking():
                    assert following.wait(PATIENCE)
            event.set()

        top = threading.Event()
        scheduler.submit(depth, 20, top).result(PATIENCE)
        assert top.is_set()
        regulars_only(scheduler)
        assert totals(scheduler) == {"submitted": 21, "finished": 21}


def test_works_that_wait_are_shown_as_waiting():
    with Scheduler(workers=1) as scheduler:

        def outer():
            return scheduler.submit(inner).result()

        def inner():
            (worker,) = scheduler.monitor().workers
            return [(work.function.rpartition(".")[2], work.waiting) for work in worker.works]

        assert scheduler.submit(outer).result(PATIENCE) == [("outer", True), ("inner", False)]


def test_a_result_may_be_awaited_in_a_transaction():
    with Scheduler(workers=1) as scheduler:
        log = TVar(())

        @atomically
        def either(one, two):
            log.set((*log.get(), or_else(one.result, two.result)))
            return log.get()

        with occupied(scheduler) as (running,):
            queued = scheduler.submit(pow, 2, 3)
            background = Background(either, running, queued)
            queued.cancel()
            with pytest.raises(concurrent.futures.CancelledError):
                background.result()
            assert log.get() == ()

            @atomically
            def impatient():
                with pytest.raises(TimeoutError):
                    running.result(timeout=0.01)
                return running.done()

            assert impatient() is False
            background = Background(either, running, running)
        assert background.result() == (None,)


def test_a_work_may_wait_in_a_transaction_if_it_says_so():
    with Scheduler(workers=1) as scheduler:

        def outer():
            future = scheduler.submit(pow, 2, 3)
            with blocking():
                return atomically(lambda: future.result() + 1)()

        assert scheduler.submit(outer).result(PATIENCE) == 9
        regulars_only(scheduler)


def test_many_waits_at_once_end_well():
    with Scheduler(workers=2) as scheduler:

        def tree(n):
            futures = [scheduler.submit(tree, n - 1) for _ in range(3)] if n else []
            if n % 2:
                return 1 + sum(future.result() for future in as_completed(futures, PATIENCE))
            return 1 + sum(future.result() for future in futures)

        assert together(*[lambda: scheduler.submit(tree, 4).result(PATIENCE)] * 3) == [121] * 3
        regulars_only(scheduler, 2)
        assert totals(scheduler) == {"submitted": 363, "finished": 363}


# ------------------------------------------------------------------------------------------ once each


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_each_work_runs_once_however_many_submit_and_work(workers):
    ran = Counter()
    lock = threading.Lock()

    def work(name):
        with lock:
            ran[name] += 1
        return name

    with Scheduler(workers=workers) as scheduler:

        def submits(who):
            futures = []
            for number in range(150):
                name = (who, number)
                if number % 10 == 3:
                    futures.append(scheduler.put_work(Work(work, (name,), priority=number % 7 - 3)))
                elif number % 10 == 7:
                    futures += scheduler.put_works([Work(work, ((*name, part),)) for part in range(5)])
                else:
                    futures.append(scheduler.submit(work, name))
            return {future.result(PATIENCE) for future in futures}

        names = together(*[lambda who=who: submits(who) for who in range(4)])
        at_rest(scheduler)
        assert totals(scheduler) == {"submitted": 840, "finished": 840}
    assert set(ran) == set().union(*names)
    assert set(ran.values()) == {1}


def test_a_work_is_either_cancelled_or_runs():
    ran = set()
    with Scheduler(workers=2) as scheduler:

        def submits(who):
            futures = []
            for number in range(150):
                futures.append(scheduler.submit(ran.add, (who, number)))
                if number >= 3:
                    futures[number - 3].cancel()
            return futures

        all_futures = together(lambda: submits(0), lambda: submits(1))
        concurrent.futures.wait([future for futures in all_futures for future in futures], PATIENCE)
        at_rest(scheduler)
        for who, futures in enumerate(all_futures):
            for number, future in enumerate(futures):
                assert future.done()
                assert future.cancelled() != ((who, number) in ran)
        counts = scheduler.monitor().totals
        assert counts.balanced
        assert (counts.queued, counts.running, counts.finished) == (0, 0, len(ran))


def test_whoever_cancels_first_has_done_it_for_all():
    with Scheduler(workers=1) as scheduler, occupied(scheduler):
        futures = [scheduler.submit(print) for _ in range(100)]

        def cancels():
            return [future.cancel() for future in futures]

        assert together(cancels, cancels, cancels) == [[True] * 100] * 3
        assert totals(scheduler) == {"submitted": 101, "running": 1, "cancelled": 100}


def test_a_work_that_somebody_waits_for_and_another_cancels_is_either():
    with Scheduler(workers=2) as scheduler:
        outcomes = Counter()
        for _ in range(40):
            ran = []
            go = threading.Barrier(2)

            def outer():
                future = scheduler.submit(ran.append, 1)
                box.append(future)
                go.wait(PATIENCE)
                try:
                    future.result()
                except concurrent.futures.CancelledError:
                    return "cancelled"
                return "ran"

            def cancels():
                go.wait(PATIENCE)
                return box[0].cancel()

            box = []
            running = scheduler.submit(outer)
            cancelled = cancels()
            outcome = running.result(PATIENCE)
            assert (outcome == "cancelled") == cancelled == (not ran)
            outcomes[outcome] += 1
        at_rest(scheduler)


def test_a_work_that_is_claimed_by_whoever_waits_is_passed_over_in_the_queue():
    order = []
    with Scheduler(workers=1) as scheduler:

        def outer():
            futures = [scheduler.submit(order.append, number) for number in range(4)]
            futures[2].result()
            assert not futures[2].cancel()
            assert scheduler.monitor().totals.queued == 3

        scheduler.submit(outer).result(PATIENCE)
        at_rest(scheduler)
    assert order == [2, 0, 1, 3]


def test_any_kind_of_callable_can_be_run():
    class Bare:
        __slots__ = ()

        def __call__(self):
            return "bare"

    with Scheduler(workers=1) as scheduler:
        assert scheduler.submit(MagicMock(return_value=3)).result(PATIENCE / 10) == 3
        assert scheduler.submit(Bare()).result(PATIENCE) == "bare"
        assert scheduler.submit("a b".split).result(PATIENCE) == ["a", "b"]
        assert scheduler.submit(dict, a=1).result(PATIENCE) == {"a": 1}
        assert [worker.name for worker in scheduler.monitor().workers] == [f"{scheduler.name}-1"]


def test_neither_arguments_nor_results_are_kept_alive():
    import gc
    import weakref

    class Thing:
        pass

    with Scheduler(workers=1) as scheduler:
        thing = Thing()
        seen = weakref.ref(thing)
        future = scheduler.submit(lambda one: [one], thing)
        del thing
        assert isinstance(future.result(PATIENCE)[0], Thing)
        at_rest(scheduler)
        del future

        def gone():
            gc.collect()
            return seen() is None

        until(gone, "the end of the argument")


def test_a_work_may_use_retry_like_anybody():
    with Scheduler(workers=2) as scheduler:
        box = TVar(None)

        @atomically
        def take():
            if box.value is None:
                retry()
            return box.value

        future = scheduler.submit(take)
        scheduler.submit(box.set, 5)
        assert future.result(PATIENCE) == 5
