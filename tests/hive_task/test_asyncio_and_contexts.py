"""What programs do with executors: event loops that hand work to them, context variables that come along, exceptions
that show where they came from."""

import asyncio
import concurrent.futures
import contextvars
import decimal
import gc
import importlib.util
import logging
import threading
import traceback
import weakref

import pytest

import hive_task
from hive_task import Scheduler, Work, blocking, make_work
from stm import TVar, aio
from tests.hive_task.live import Held, at_rest, occupied, totals
from tests.support import PATIENCE, until


def _uvloop():
    import uvloop

    return uvloop.new_event_loop()


LOOPS = [pytest.param(asyncio.new_event_loop, id="asyncio")]
if importlib.util.find_spec("uvloop"):
    LOOPS.append(pytest.param(_uvloop, id="uvloop"))

variable = contextvars.ContextVar("variable", default="nothing")


@pytest.fixture(params=LOOPS)
def wait_for(request):
    """Runs a coroutine in a new event loop. Nothing that goes wrong there may go unnoticed."""
    unnoticed = []

    def run_in_loop(coroutine):
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.get_loop().set_exception_handler(lambda loop, context: unnoticed.append(context))
            return runner.run(asyncio.wait_for(coroutine, PATIENCE))

    yield run_in_loop
    gc.collect()
    assert not unnoticed


@pytest.fixture
def scheduler():
    with Scheduler(workers=2) as scheduler:
        yield scheduler


# ------------------------------------------------------------------------------------------ event loops


def fail():
    raise LookupError("nothing there")


def test_an_event_loop_hands_work_to_a_scheduler_and_gets_the_result(wait_for, scheduler):
    async def main():
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(scheduler, pow, 2, 5) == 32
        assert await loop.run_in_executor(scheduler, threading.get_ident) != threading.get_ident()
        results = await asyncio.gather(*(loop.run_in_executor(scheduler, divmod, n, 7) for n in range(300)))
        assert results == [divmod(n, 7) for n in range(300)]

    wait_for(main())
    assert totals(scheduler) == {"submitted": 302, "finished": 302}


def test_an_event_loop_gets_the_exception_with_its_traceback(wait_for, scheduler):
    async def main():
        with pytest.raises(LookupError, match="nothing there") as caught:
            await asyncio.get_running_loop().run_in_executor(scheduler, fail)
        assert "fail" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]

    wait_for(main())


def test_an_event_loop_runs_on_while_a_work_does(wait_for, scheduler):
    held = Held()

    async def main():
        awaited = asyncio.get_running_loop().run_in_executor(scheduler, held, "result")
        await asyncio.to_thread(held.has_begun)
        for _ in range(10):
            await asyncio.sleep(0)
        assert not awaited.done()
        held.go.set()
        assert await awaited == "result"

    wait_for(main())


@pytest.mark.parametrize("how", ["cancel", "time limit"])
def test_whoever_gives_up_waiting_in_an_event_loop_cancels_a_work_that_has_not_begun(wait_for, scheduler, how):
    async def main():
        awaited = asyncio.get_running_loop().run_in_executor(scheduler, pytest.fail, "was begun")
        if how == "cancel":
            awaited.cancel()
            with pytest.raises(asyncio.CancelledError):
                await awaited
        else:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(awaited, 0.01)
        await asyncio.sleep(0)
        assert totals(scheduler) == {"submitted": 3, "running": 2, "cancelled": 1}

    with occupied(scheduler, 2):
        wait_for(main())
    at_rest(scheduler)
    assert totals(scheduler) == {"submitted": 3, "finished": 2, "cancelled": 1}


@pytest.mark.parametrize("end", [int, fail])
def test_a_work_that_has_begun_goes_on_though_nobody_waits_in_the_event_loop(wait_for, scheduler, end, caplog):
    held = Held()

    async def main():
        awaited = asyncio.get_running_loop().run_in_executor(scheduler, lambda: (held(), end()))
        await asyncio.to_thread(held.has_begun)
        awaited.cancel()
        with pytest.raises(asyncio.CancelledError):
            await awaited
        return awaited  # so that it lives longer than the loop

    awaited = wait_for(main())
    held.go.set()
    at_rest(scheduler)
    assert totals(scheduler) == {"submitted": 1, "finished" if end is int else "failed": 1}
    assert awaited.cancelled()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_cancelled_work_is_cancelled_for_the_event_loop_that_awaits_it(wait_for, scheduler):
    async def main():
        with occupied(scheduler, 2):
            future = scheduler.submit(pytest.fail, "was begun")
            awaited = asyncio.wrap_future(future)
            assert future.cancel()
            with pytest.raises(asyncio.CancelledError):
                await awaited

    wait_for(main())


def test_a_work_may_wait_for_what_an_event_loop_does(wait_for, scheduler):
    async def double(number):
        await asyncio.sleep(0)
        return 2 * number

    async def main():
        loop = asyncio.get_running_loop()

        def ask(number):
            return asyncio.run_coroutine_threadsafe(double(number), loop).result(PATIENCE)

        calls = (loop.run_in_executor(scheduler, ask, number) for number in range(20))
        assert await asyncio.gather(*calls) == [2 * number for number in range(20)]

    wait_for(main())


def test_an_event_loop_in_a_work_may_use_the_works_own_scheduler():
    async def main():
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(scheduler, abs, -number) for number in range(5)))

    def work():
        with blocking():  # or the only worker would wait for itself
            return asyncio.run(asyncio.wait_for(main(), PATIENCE))

    with Scheduler(workers=1) as scheduler:
        assert scheduler.submit(work).result(PATIENCE) == list(range(5))


def test_a_transaction_of_an_event_loop_submits_and_waits_without_blocking_it(wait_for, scheduler):
    held, balance = Held(), TVar(10)

    def withdraw():
        balance.value -= 3
        return scheduler.submit(held, "withdrawn")

    async def main():
        future = await aio.run(withdraw)
        result = asyncio.ensure_future(aio.run(future.result))
        await asyncio.to_thread(held.has_begun)
        assert not result.done()
        held.go.set()
        assert await result == "withdrawn"

    wait_for(main())
    assert balance.value == 7


# ------------------------------------------------------------------------------------------ contexts

WAYS = {
    "submit": lambda scheduler, fn: scheduler.submit(fn).result(),
    "put_work": lambda scheduler, fn: scheduler.put_work(make_work(fn)).result(),
    "urgent": lambda scheduler, fn: scheduler.put_work(Work(fn, priority=1, time_limit=PATIENCE)).result(),
    "put_works": lambda scheduler, fn: [future.result() for future in scheduler.put_works([make_work(fn)] * 3)][-1],
    "map": lambda scheduler, fn: next(scheduler.map(lambda _: fn(), [1])),
    "put_work()": lambda scheduler, fn: hive_task.put_work(scheduler, make_work(fn)).result(),
    "work": lambda scheduler, fn: scheduler.submit(lambda: scheduler.submit(fn).result()).result(),
}
a_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


@pytest.fixture(autouse=True)
def _nothing_is_set():
    token = variable.set("nothing")
    yield
    variable.reset(token)


@a_way
def test_a_work_sees_the_context_of_whoever_submits_it(scheduler, way):
    variable.set("mine")
    assert way(scheduler, variable.get) == "mine"


@a_way
def test_what_a_work_sets_is_seen_by_nobody_else(way):
    with Scheduler(workers=1) as scheduler:
        variable.set("mine")
        way(scheduler, lambda: variable.set("the work's"))
        assert variable.get() == "mine"
        assert way(scheduler, variable.get) == "mine"


def test_the_context_is_that_of_the_moment_of_the_call(scheduler):
    with occupied(scheduler, 2):
        variable.set("before")
        futures = [scheduler.submit(variable.get), scheduler.put_work(make_work(variable.get))]
        results = scheduler.map(lambda _: variable.get(), range(3))
        variable.set("after")
    assert [future.result() for future in futures] == ["before"] * 2
    assert list(results) == ["before"] * 3


def test_a_work_that_is_run_by_one_who_waits_for_it_has_its_own_context():
    def inner():
        seen = variable.get()
        variable.set("the inner work's")
        return seen

    def outer():
        variable.set("the outer work's")
        future = scheduler.submit(inner)
        variable.set("later")
        return future.result(), variable.get()

    with Scheduler(workers=1) as scheduler:
        assert scheduler.submit(outer).result() == ("the outer work's", "later")


def test_works_of_one_context_may_run_at_once(scheduler):
    barrier = threading.Barrier(2)

    def work(number):
        variable.set(number)
        barrier.wait(PATIENCE)
        return variable.get()

    assert list(scheduler.map(work, [1, 2])) == [1, 2]


def test_the_context_of_decimals_comes_along(scheduler):
    with decimal.localcontext() as context:
        context.prec = 3
        third = scheduler.submit(lambda: decimal.Decimal(1) / 3).result()
    assert str(third) == "0.333"


def test_an_event_loop_hands_its_context_to_the_work(wait_for, scheduler):
    async def task(number):
        variable.set(number)
        return await asyncio.get_running_loop().run_in_executor(scheduler, variable.get)

    async def main():
        assert await asyncio.gather(*map(task, range(10))) == list(range(10))

    wait_for(main())


def test_a_callback_runs_outside_of_the_contexts_of_works():
    seen = []
    with Scheduler(workers=1) as scheduler:
        variable.set("mine")
        held = Held()
        future = scheduler.submit(lambda: (held(), variable.set("the work's")))
        future.add_done_callback(lambda _: seen.append(variable.get()))
        held.go.set()
    assert seen == ["nothing"]


# ------------------------------------------------------------------------------------------ exceptions, references


@pytest.mark.parametrize("ask", [lambda future: future.result(), lambda future: _raise(future.exception())])
def test_an_exception_shows_where_in_the_work_it_came_from(scheduler, ask):
    future = scheduler.submit(fail)
    for _ in range(2):
        with pytest.raises(LookupError) as caught:
            ask(future)
        assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "fail"


def _raise(error):
    raise error


def test_map_raises_with_the_traceback_and_cancels_the_rest(scheduler):
    held = Held()
    with occupied(scheduler):
        results = scheduler.map(lambda fn: fn(), [fail, held, held, held])
        with pytest.raises(LookupError) as caught:
            next(results)
        held.go.set()
    assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "fail"
    at_rest(scheduler)
    counts = totals(scheduler)
    assert counts["cancelled"] >= 2
    assert counts["failed"] == 1


class Thing:
    """Something that can be referred to weakly."""


@pytest.mark.parametrize("iterate", ["map", "as_completed", "the standard as_completed"])
def test_who_iterates_over_results_keeps_only_those_that_are_to_come(scheduler, iterate):
    if iterate == "map":
        results = scheduler.map(lambda _: Thing(), range(5))
    else:
        as_completed = hive_task.as_completed if iterate == "as_completed" else concurrent.futures.as_completed
        results = as_completed([scheduler.submit(Thing) for _ in range(5)])
    at_rest(scheduler)
    for result in results:
        gone = weakref.ref(result)
        del result
        until(lambda: gc.collect() >= 0 and gone() is None, "the end of a result")
