"""`stm.aio`, promise by promise. The loops are asyncio's own, and uvloop's where it is installed."""

import asyncio
import gc
import importlib.util
import inspect
import itertools
import os
import threading
import tracemalloc

import pytest

import stm
from stm import TVar, aio, check, or_else, retry
from stm.clock import clock
from tests.support import Background, elsewhere, until


def _uvloop():
    import uvloop

    return uvloop.new_event_loop()


LOOPS = [pytest.param(asyncio.new_event_loop, id="asyncio")]
if importlib.util.find_spec("uvloop"):
    LOOPS.append(pytest.param(_uvloop, id="uvloop"))


@pytest.fixture(params=LOOPS)
def run(request):
    def run(main):
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(main)

    run(asyncio.sleep(0))  # uvloop opens two files on first use and keeps them
    fds = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    yield run
    assert not aio._bells, "a bell was left hanging"
    if fds is not None:
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) == fds, "files were left open"


async def sleepers(count):
    """Until so many transactions sleep."""
    while len(clock.sleepers) != count:
        await asyncio.sleep(0.0005)


def taker(stock):
    def take():
        check(stock.value > 0)
        stock.value -= 1
        return "taken"

    return take


# ---- the result, the name, the options


def test_a_body_runs_and_its_result_is_awaited(run):
    x = TVar(1)

    async def main():
        return await aio.run(x.update, lambda value: value + 1)

    assert run(main()) == 2 == x.value


def test_the_decorator_makes_an_awaitable_function_and_keeps_the_name(run):
    x = TVar(1)

    @aio.atomically
    def add(number, *, twice=False):
        """Adds."""
        x.value += number * (2 if twice else 1)
        return x.value

    async def main():
        return await add(2, twice=True)

    assert run(main()) == 5
    assert inspect.iscoroutinefunction(add)
    assert (add.__name__, add.__doc__) == ("add", "Adds.")


def test_methods_may_be_decorated(run):
    class Stock:
        def __init__(self):
            self.level = TVar(0)

        @aio.atomically(name="fill the stock")
        def fill(self, number):
            self.level.value += number
            return self

    async def main():
        stock = Stock()
        return stock, await stock.fill(3)

    stock, result = run(main())
    assert result is stock
    assert stock.level.value == 3


def test_a_body_that_raises_leaves_nothing_behind(run):
    x, undone = TVar(1), []

    def body():
        x.value = 2
        stm.on_rollback(undone.append, 1)
        raise ValueError("no")

    async def main():
        with pytest.raises(ValueError, match="no"):
            await aio.run(body)

    run(main())
    assert x.value == 1
    assert undone == [1]


def test_hooks_run_after_the_commit_on_the_loops_thread(run):
    x, seen = TVar(1), []

    def body():
        x.value = 2
        stm.on_commit(lambda: seen.append((x.value, stm.in_transaction(), threading.get_ident())))

    async def main():
        await aio.run(body)

    run(main())
    assert seen == [(2, False, threading.get_ident())]


def test_read_only(run):
    x = TVar(1)

    async def main():
        assert await aio.run(x.get, read_only=True) == 1
        with pytest.raises(stm.ReadOnlyViolation):
            await aio.run(x.set, 2, read_only=True)

    run(main())


def test_irrevocable_runs_once_and_refuses_retry(run):
    calls = []

    async def main():
        assert await aio.run(lambda: calls.append(1), irrevocable=True) is None
        with pytest.raises(stm.IrrevocableRetry):
            await aio.run(retry, irrevocable=True)

    run(main())
    assert calls == [1]


def test_coroutine_functions_are_refused_at_once(run):
    async def body():
        pass

    with pytest.raises(TypeError, match="coroutine function"):
        aio.atomically(body)

    async def main():
        with pytest.raises(TypeError, match="coroutine function"):
            await aio.run(body)

    run(main())


def test_bad_options_are_refused_at_the_decorator():
    with pytest.raises(ValueError, match="negative"):
        aio.atomically(timeout=-1)
    with pytest.raises(TypeError, match="takes a function"):
        aio.atomically(1.0)


def test_awaiting_within_a_body_is_refused(run):
    x = TVar(1)

    def body():
        coroutine = aio.run(x.get)
        try:
            coroutine.send(None)
        finally:
            coroutine.close()

    async def main():
        with pytest.raises(RuntimeError, match="inside the body of another"):
            await aio.run(body)

    run(main())


# ---- conflicts


def test_a_conflict_reruns_the_body(run):
    x, attempts = TVar(0), []

    def body():
        seen = x.value
        attempts.append(seen)
        if len(attempts) == 1:
            elsewhere(x.set, 10)
        x.value = seen + 1

    async def main():
        await aio.run(body)

    run(main())
    assert attempts == [0, 10]
    assert x.value == 11


def test_whoever_is_always_disturbed_commits_in_the_end(run):
    x, attempts = TVar(0), []

    def body():
        seen = x.value
        attempts.append(seen)
        disturbance = Background(x.set, seen + 1)
        if len(attempts) <= 10:
            disturbance.result()
        x.value = 1000
        return disturbance

    async def main():
        disturbance = await aio.run(body)
        disturbance.result()

    run(main())
    assert len(attempts) == 11


def test_backing_off_lets_the_loop_run_on(run):
    x, attempts, ticks = TVar(0), [], []

    def body():
        seen = x.value
        attempts.append(len(ticks))
        if len(attempts) <= 5:
            elsewhere(x.set, seen + 1)
        x.value = seen

    async def tick():
        while True:
            ticks.append(1)
            await asyncio.sleep(0)

    async def main():
        ticking = asyncio.create_task(tick())
        await aio.run(body)
        ticking.cancel()

    run(main())
    assert all(later > earlier for earlier, later in itertools.pairwise(attempts)), attempts


# ---- waiting


def test_a_task_that_retries_waits_while_the_loop_runs_on(run):
    stock = TVar(0)

    async def main():
        task = asyncio.create_task(aio.run(taker(stock)))
        await sleepers(1)
        assert not task.done()
        stock.value = 1
        assert await task == "taken"

    run(main())
    assert stock.value == 0


def test_a_task_is_woken_by_a_thread(run):
    stock = TVar(0)

    async def main():
        task = asyncio.create_task(aio.run(taker(stock)))
        await sleepers(1)
        other = Background(stock.set, 1)
        assert await task == "taken"
        other.result()

    run(main())


def test_a_thread_is_woken_by_a_task(run):
    stock = TVar(0)
    other = Background(stm.atomically(taker(stock)))

    async def main():
        await sleepers(1)
        await aio.run(stock.set, 1)

    run(main())
    assert other.result() == "taken"


def test_a_task_is_woken_by_a_task_of_another_loop(run):
    there, back = TVar(0), TVar(0)

    async def ping():
        for _ in range(50):
            await aio.run(there.update, lambda value: value + 1)
            await aio.run(taker(back))

    async def pong():
        for _ in range(50):
            await aio.run(taker(there))
            await aio.run(back.update, lambda value: value + 1)

    other = Background(asyncio.run, pong())
    run(ping())
    other.result()
    assert stm.snapshot(there, back) == (0, 0)


def test_no_wake_up_is_lost_between_the_last_read_and_the_sleep(run):
    stock = TVar(0)
    attempts = []

    def take():
        attempts.append(stock.value)
        if not stock.value:
            elsewhere(stock.set, 1)  # after the read, before the wait
            retry()
        return "taken"

    async def main():
        return await asyncio.wait_for(aio.run(take), 60)

    assert run(main()) == "taken"
    assert attempts == [0, 1]


def test_a_wake_up_during_the_answer_to_another_is_not_lost(run, monkeypatch):
    """The bell is armed again before the woken are looked up, not after."""
    first, second = TVar(0), TVar(0)

    async def main():
        tasks = [asyncio.create_task(aio.run(taker(one))) for one in (first, second)]
        await sleepers(2)
        resolve = aio._resolve

        def resolved(future):
            monkeypatch.undo()
            elsewhere(second.set, 1)
            resolve(future)

        monkeypatch.setattr(aio, "_resolve", resolved)
        elsewhere(first.set, 1)
        async with asyncio.timeout(60):
            assert await asyncio.gather(*tasks) == ["taken", "taken"]

    run(main())


def test_or_else_waits_for_whatever_any_alternative_read(run):
    left, right = TVar(0), TVar(0)

    async def main(which):
        task = asyncio.create_task(aio.run(lambda: or_else(taker(left), taker(right))))
        await sleepers(1)
        elsewhere(which.set, 1)
        return await asyncio.wait_for(task, 60)

    assert run(main(left)) == "taken"
    assert run(main(right)) == "taken"
    assert stm.snapshot(left, right) == (0, 0)


def test_ten_thousand_tasks_wait_on_one_variable_and_all_wake(run):
    gate = TVar(False)

    async def main():
        tasks = [asyncio.create_task(aio.run(lambda: check(gate.value))) for _ in range(10_000)]
        await sleepers(len(tasks))
        assert len(aio._bells) == 1
        elsewhere(gate.set, True)
        await asyncio.gather(*tasks)

    run(main())


def test_the_oldest_waiter_is_served_first(run):
    stock, served = TVar(0), []

    async def customer(number):
        await aio.run(taker(stock))
        served.append(number)

    async def main():
        tasks = []
        for number in range(20):
            tasks.append(asyncio.create_task(customer(number)))
            await sleepers(number + 1)
        for left in range(19, -1, -1):
            elsewhere(stock.update, lambda value: value + 1)
            while len(served) < 20 - left:
                await asyncio.sleep(0)
            await sleepers(left)
        await asyncio.gather(*tasks)

    run(main())
    assert served == list(range(20))


def test_a_wait_for_nothing_is_refused(run):
    async def main():
        with pytest.raises(stm.BlockedForever):
            await aio.run(retry)

    run(main())


def test_a_commit_by_a_task_of_the_same_loop_wakes_without_polling(run):
    stock, looked = TVar(0), []

    def take():
        looked.append(stock.value)
        check(stock.value)

    async def main():
        task = asyncio.create_task(aio.run(take))
        await sleepers(1)
        for _ in range(20):
            await asyncio.sleep(0)
        assert looked == [0]
        stock.value = 1
        await task

    run(main())
    assert looked == [0, 1]


# ---- time limits


def test_timeout_bounds_the_whole_wait(run):
    stock = TVar(0, name="stock")

    @aio.atomically(timeout=0.02)
    def take():
        check(stock.value)

    async def main():
        with pytest.raises(
            stm.TransactionTimeout, match=r"'take' waited 0\.02 s in vain for a change of <TVar 'stock' 0>"
        ):
            await take()
        with pytest.raises(TimeoutError):
            await aio.run(taker(stock), timeout=0)

    run(main())


def test_other_commits_do_not_prolong_the_time_limit(run):
    stock, looked = TVar(0), []

    def take():
        looked.append(stock.value)
        check(stock.value < 0)

    async def main():
        task = asyncio.create_task(aio.run(take, timeout=0.2))
        while not task.done():
            stock.value += 1
            await asyncio.sleep(0.001)
        with pytest.raises(stm.TransactionTimeout):
            await task

    run(main())
    assert len(looked) > 2


def test_after_wakes_a_task(run):
    never = TVar(False)

    async def main():
        late = stm.after(0.02)
        await asyncio.wait_for(aio.run(lambda: check(never.value or late.value)), 60)

    run(main())


def test_a_nested_time_limit_is_for_the_scope_alone(run):
    never = TVar(False)

    @stm.atomically(timeout=0.02)
    def part():
        check(never.value)

    def body():
        try:
            part()
        except stm.TransactionTimeout:
            return "did without"

    async def main():
        return await asyncio.wait_for(aio.run(body), 60)

    assert run(main()) == "did without"


def test_asyncio_timeout_ends_the_wait_and_leaves_nothing(run):
    never = TVar(False)

    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await aio.run(lambda: check(never.value))
        assert not clock.sleepers
        assert not aio._bells

    run(main())
    assert not never._waiters


# ---- cancellation


def test_cancelling_leaves_no_waiter(run):
    never = TVar(False)

    async def main():
        tasks = [asyncio.create_task(aio.run(lambda: check(never.value))) for _ in range(10)]
        await sleepers(10)
        for task in tasks[:9]:
            task.cancel()
        results = await asyncio.gather(*tasks[:9], return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)
        assert len(clock.sleepers) == 1 == len(never._waiters)
        never.value = True
        await tasks[9]

    run(main())


def test_cancelling_a_task_that_has_just_been_woken_takes_nothing(run):
    """A woken task looks again by itself: what it was woken for is there for the others."""
    stock = TVar(0)

    async def main():
        first = asyncio.create_task(aio.run(taker(stock)))
        await sleepers(1)
        second = asyncio.create_task(aio.run(taker(stock)))
        await sleepers(2)
        stock.value = 1
        first.cancel()
        assert await asyncio.wait_for(second, 60) == "taken"
        with pytest.raises(asyncio.CancelledError):
            await first

    run(main())


def test_cancelled_waits_leave_no_memory(run):
    never = TVar(False)

    async def cancelled(count):
        tasks = [asyncio.create_task(aio.run(lambda: check(never.value))) for _ in range(count)]
        await asyncio.sleep(0)
        assert len(clock.sleepers) == count
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def main(rounds):
        for _ in range(rounds):
            await cancelled(1000)

    run(main(1))
    gc.collect()
    tracemalloc.start()
    try:
        run(main(1))
        gc.collect()
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        run(main(10))
        gc.collect()
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < 1_000_000
    finally:
        tracemalloc.stop()


def test_the_tables_of_very_many_waiters_are_freed(run):
    import sys

    never = TVar(False)

    async def main():
        tasks = [asyncio.create_task(aio.run(lambda: check(never.value))) for _ in range(3000)]
        await sleepers(3000)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run(main())
    assert sys.getsizeof(never._waiters) + sys.getsizeof(clock.sleepers) < 1000


def test_tasks_that_a_closed_loop_left_waiting_are_forgotten(run):
    never, stock = TVar(False), TVar(0)
    loop = asyncio.new_event_loop()
    coroutine = aio.run(lambda: check(never.value))
    task = loop.create_task(coroutine)
    loop.run_until_complete(sleepers(1))
    loop.close()
    assert len(clock.sleepers) == 1

    async def main():
        waiting = asyncio.create_task(aio.run(taker(stock)))
        await asyncio.sleep(0)
        assert len(clock.sleepers) == 1  # the other has gone
        assert list(aio._bells) == [asyncio.get_running_loop()]
        stock.value = 1
        await waiting

    run(main())
    task._log_destroy_pending = False
    del task
    coroutine.close()


def test_a_commit_after_the_last_waiter_left_rings_no_bell(run):
    """A committer may have found a waiter just before it withdrew, and call it only then."""
    never = TVar(False)

    async def main():
        task = asyncio.create_task(aio.run(lambda: check(never.value)))
        await sleepers(1)
        (waiter,) = clock.sleepers
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        waiter.wake()

    run(main())


def test_the_bell_is_not_closed_while_a_committer_may_be_ringing_it(run):
    never = TVar(False)

    async def main():
        task = asyncio.create_task(aio.run(lambda: check(never.value)))
        await sleepers(1)
        (waiter,) = clock.sleepers
        (bell,) = aio._bells.values()
        held = threading.Event()

        def committer():
            ring = bell.ring
            with clock.lock:
                held.set()
                until(lambda: bell.ring is bool, "the closing of the bell")
                ring()  # into the pipe, which must still be there
            return True

        other = Background(committer)
        held.wait(60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert other.result()
        assert waiter.woken is False

    run(main())


# ---- fork


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_does_not_ring_its_parents_bells(run):
    stock = TVar(0)

    async def main():
        task = asyncio.create_task(aio.run(taker(stock)))
        await sleepers(1)
        (bell,) = aio._bells.values()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                stock.value = 1  # must not reach the parent's loop
                status = 0 if not clock.sleepers and not aio._bells else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        with pytest.raises(BlockingIOError):
            os.read(bell._reader, 1)
        stock.value = 1
        assert await task == "taken"

    run(main())


def test_a_forked_child_may_run_a_loop_of_its_own():
    if not hasattr(os, "fork"):
        pytest.skip("no fork")
    import subprocess
    import sys

    program = """
import asyncio, os, stm
from stm import TVar, aio, check
x = TVar(0)
async def main():
    task = asyncio.create_task(aio.run(lambda: check(x.value)))
    await asyncio.sleep(0)
    x.value = 1
    await task
async def parent():
    waiting = asyncio.create_task(aio.run(lambda: check(x.value)))
    await asyncio.sleep(0)
    child = os.fork()
    if not child:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    x.value = 1
    await waiting
asyncio.run(parent())
x.value = 0
child = os.fork()
if not child:
    asyncio.run(main())
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print("well")
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "well\n", done.stderr
