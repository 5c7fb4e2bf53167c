"""`Future`: what it says in each state, in and out of transactions, to the standard library's functions too."""

import asyncio
import concurrent.futures
import gc
import logging
import sys
import threading
import tracemalloc
import weakref
from concurrent.futures import CancelledError, InvalidStateError

import pytest

from hive_task import Scheduler, make_work
from hive_task.futures import Future
from stm import (
    BlockedForever,
    ReadOnlyViolation,
    TransactionTimeout,
    TVar,
    atomically,
    check,
    on_commit,
    or_else,
    retry,
    run,
)
from tests.hive_task.by_hand import Company
from tests.support import Background, Once, asleep, elsewhere, together, until


@pytest.fixture
def company():
    return Company(1)


@pytest.fixture
def worker(company):
    return company.crew[0]


def begun(company, **options):
    future = company.put(**options)
    assert company.begin(company.crew[0]) is future
    return future


def finished(company):
    future = begun(company)
    company.end(company.crew[0])
    return future


def failed(company, error):
    future = begun(company)
    company.end(company.crew[0], error=error)
    return future


def cancelled(company):
    future = company.put()
    assert future.cancel()
    return future


# ---------------------------------------------------------------------------------------------- states


def test_what_a_future_says_in_each_state(company):
    def said(future):
        return future.done(), future.running(), future.cancelled(), future._state

    queued = company.put()
    assert said(queued) == (False, False, False, "PENDING")
    assert queued.cancel()
    assert said(queued) == (True, False, True, "CANCELLED_AND_NOTIFIED")
    work = begun(company)
    assert said(work) == (False, True, False, "RUNNING")
    company.end(company.crew[0])
    assert said(work) == (True, False, False, "FINISHED")
    error = OSError()
    assert said(failed(company, error)) == (True, False, False, "FINISHED")


def test_a_future_without_a_scheduler_is_pending():
    future = Future(None, None, None)
    assert (future.done(), future.running(), future.cancel(), future._state) == (False, False, False, "PENDING")


def test_result_and_exception_say_what_became_of_the_work(company):
    assert (finished(company).result(), finished(company).exception()) == ("result", None)
    error = OSError("it failed")
    future = failed(company, error)
    with pytest.raises(OSError, match="it failed") as caught:
        future.result()
    assert caught.value is error
    assert future.exception() is error
    for ask in (cancelled(company).result, cancelled(company).exception):
        with pytest.raises(CancelledError):
            ask()


@pytest.mark.parametrize("name", ["result", "exception"])
def test_who_waits_in_vain_gets_a_timeout_error(company, name):
    future = company.put()
    for timeout in (0, -1, 0.001):
        with pytest.raises(TimeoutError) as caught:
            getattr(future, name)(timeout)
        assert type(caught.value) is TimeoutError
    with pytest.raises(TimeoutError):
        getattr(future, name)(timeout=0.001)
    assert getattr(finished(Company(1)), name)(0) in ("result", None)


@pytest.mark.parametrize("timeout", [None, 60])
def test_who_waits_is_woken_when_the_work_ends(company, timeout):
    for end in (lambda: company.end(company.crew[0]), lambda: company.end(company.crew[0], error=OSError())):
        future = begun(company)
        waiting = Background(future.exception, timeout)
        asleep()
        end()
        assert waiting.result() is future.exception()
    future = company.put()
    waiting = Background(future.result, timeout)
    asleep()
    future.cancel()
    with pytest.raises(CancelledError):
        waiting.result()


@pytest.mark.parametrize("name", ["set_result", "set_exception"])
def test_nobody_else_can_say_what_became_of_the_work(company, name):
    future = company.put()
    with pytest.raises(InvalidStateError, match=rf"{name}\(\) is not for this future.*stm.TPromise"):
        getattr(future, name)(None)
    with pytest.raises(InvalidStateError):
        future.set_running_or_notify_cancel()
    assert not future.done()


def test_its_repr_says_what_is_known(company):
    future = company.put("x")
    shown = [repr(future)]
    company.begin(company.crew[0])
    shown.append(repr(future))
    company.end(company.crew[0])
    shown += [repr(finished(company)), repr(failed(company, OSError())), repr(cancelled(company))]
    for text, end in zip(
        shown,
        [
            "state=pending of <Work nothing('x')>>",
            "state=running of <Work nothing('x')>>",
            "state=finished returned str>",
            "state=failed raised OSError>",
            "state=cancelled>",
        ],
        strict=True,
    ):
        assert text.startswith("<Future at 0x")
        assert text.endswith(end)


def test_its_repr_disturbs_no_transaction(company):
    future = company.put()
    attempts, once = [], Once()

    def body():
        attempts.append(repr(future))
        if once:
            elsewhere(company.begin, company.crew[0])
        company.put()

    run(body)
    assert len(attempts) == 1


# ---------------------------------------------------------------------------------------------- callbacks


def test_callbacks_are_called_in_order_once_each(company):
    called = []
    future = begun(company)
    for number in range(5):
        future.add_done_callback(lambda one, number=number: called.append((one, number, one.done())))
    assert called == []
    company.end(company.crew[0])
    assert called == [(future, number, True) for number in range(5)]
    future.add_done_callback(lambda one: called.append("late"))
    assert called[-1] == "late"
    assert len(called) == 6


def test_those_who_cancel_call_the_callbacks(company):
    called = []
    future = company.put()
    future.add_done_callback(called.append)
    future.cancel()
    assert called == [future]
    future.cancel()
    assert called == [future]


def test_what_a_callback_raises_is_logged_and_the_next_is_called(company, caplog):
    called = []
    future = company.put()
    future.add_done_callback(lambda one: 1 / 0)
    future.add_done_callback(called.append)
    with caplog.at_level(logging.ERROR, "hive_task.futures"):
        future.cancel()
    assert called == [future]
    assert "raised an exception" in caplog.text
    with pytest.raises(TypeError, match="a callback is called with the future; 5 can't be"):
        future.add_done_callback(5)


def test_a_callback_added_in_the_middle_of_the_end_is_called(company, worker):
    future, added, once = begun(company), [], Once()

    @atomically
    def end():
        _, callbacks = company.dispatch.advance(worker, future, (4, "result"), "work", 0.0, 1.0)
        if once:
            elsewhere(future.add_done_callback, added.append)
        return callbacks

    assert end() == (added.append,)
    assert added == []


class Interrupted:
    """The state of a future; when it is read first, something happens elsewhere."""

    def __init__(self, future, meddle):
        self.future, self.variable, self.meddle = future, future._var, meddle
        future._var = self

    def get(self):
        state = self.variable.get()
        if self.meddle is not None:
            self.future._var, meddle, self.meddle = self.variable, self.meddle, None
            elsewhere(meddle)
            self.future._var = self
        return state

    def compare_and_set(self, *states):
        return self.variable.compare_and_set(*states)

    def set(self, state):
        self.variable.set(state)


def test_whoever_adds_a_callback_just_as_the_work_ends_or_another_adds_one_is_called(company, worker):
    future, called = begun(company), []
    Interrupted(future, lambda: future.add_done_callback(lambda one: called.append(1)))
    future.add_done_callback(lambda one: called.append(2))
    Interrupted(future, lambda: company.end(worker))
    future.add_done_callback(lambda one: called.append(3))
    assert called == [1, 2, 3]


def test_a_work_that_ends_while_a_callback_is_added_calls_it(company, worker):
    future, called, once = begun(company), [], Once()

    @atomically
    def add():
        future.add_done_callback(called.append)
        if once:
            elsewhere(company.end, worker)
        assert called == []

    add()
    assert called == [future]


@pytest.mark.parametrize("make", [lambda company: company.put(), finished])
def test_a_callback_added_in_a_transaction_is_added_if_that_commits(company, make):
    future, called = make(company), []

    def add(error):
        future.add_done_callback(called.append)
        assert called == []
        if error:
            raise error

    with pytest.raises(ValueError, match="undone"):
        run(add, ValueError("undone"))
    run(add, None)
    future.cancel()
    assert called == [future]


# ---------------------------------------------------------------------------------------------- in transactions


def test_a_transaction_waits_for_either_of_two(company):
    one, other = company.put(), company.put()
    either = Background(run, lambda: or_else(one.result, other.result))
    asleep()
    company.begin(company.crew[0])
    company.end(company.crew[0])
    assert either.result() == "result"
    assert run(lambda: or_else(other.result, lambda: "neither")) == "neither"


def test_a_result_is_part_of_the_transaction_that_asks_for_it(company):
    future, seen, total = begun(company), [], TVar(0)

    @atomically
    def add():
        total.value += 1
        seen.append(future.done())
        return future.result()

    waiting = Background(add)
    asleep()
    assert total.value == 0
    company.end(company.crew[0])
    assert waiting.result() == "result"
    assert (total.value, seen) == (1, [False, True])


def test_what_a_work_raised_undoes_the_transaction_that_asks(company):
    future, total = failed(company, OSError("it failed")), TVar(0)

    @atomically
    def add():
        total.value += 1
        return future.result()

    with pytest.raises(OSError, match="it failed"):
        add()
    assert total.value == 0


def test_an_exception_that_stale_reads_led_to_is_not_raised(company):
    future, once, chosen = cancelled(company), Once(), TVar(0)

    @atomically
    def choose():
        number = chosen.value
        if once:
            elsewhere(chosen.set, 1)
        return future.result() if number == 0 else "another"

    assert choose() == "another"


def test_a_timeout_in_a_transaction_is_a_timeout_error_that_it_may_catch(company):
    future, total = company.put(), TVar(0)

    @atomically
    def patient():
        total.value += 1
        try:
            return future.result(timeout=0.02)
        except TimeoutError:
            return "in vain"

    assert patient() == "in vain"
    assert total.value == 1
    with pytest.raises(TimeoutError) as caught:
        run(future.result, 0.01)
    assert type(caught.value) is TimeoutError


def test_the_limit_of_an_enclosing_transaction_stays_its_own(company):
    future = company.put()
    with pytest.raises(TransactionTimeout):
        run(lambda: future.result(timeout=60), timeout=0.01)


def test_in_the_transaction_that_submits_it_the_result_cannot_be_awaited(company):
    with pytest.raises((TimeoutError, BlockedForever)):
        run(lambda: company.put().result(timeout=0.01))
    assert company.totals().submitted == 0
    assert run(lambda: or_else(lambda: company.put().result(), lambda: "later")) == "later"
    assert company.totals().submitted == 0


def test_cancelling_in_a_transaction_happens_if_that_commits(company):
    future, called = company.put(), []
    future.add_done_callback(called.append)

    def cancel(error):
        assert future.cancel()
        assert future.cancelled()
        assert called == []
        if error:
            raise error

    with pytest.raises(ValueError, match="undone"):
        run(cancel, ValueError("undone"))
    assert not future.done()
    company.check()
    run(cancel, None)
    assert future.cancelled()
    assert called == [future]
    company.check()


def test_a_work_that_begins_while_it_is_cancelled_is_not(company, worker):
    future, once, answers = company.put(), Once(), []

    @atomically
    def cancel():
        answers.append(future.cancel())
        if once:
            elsewhere(company.begin, worker)

    cancel()
    assert answers == [True, False]
    assert future.running()
    company.check()


def test_a_work_that_is_cancelled_while_it_begins_does_not(company, worker):
    future, other, once, answers = company.put(), company.put(), Once(), []

    @atomically
    def begin():
        answers.append(company.begin(worker))
        if once:
            elsewhere(future.cancel)

    begin()
    assert answers == [future, other]
    company.check()


def test_a_work_that_is_claimed_while_another_begins_it_is_begun_once():
    company, once, answers = Company(2), Once(), []
    a, b = company.crew
    company.put()
    company.begin(a)
    future = company.put()

    @atomically
    def begin():
        answers.append(company.begin(b))
        if once:
            assert elsewhere(company.claim, a, future)

    begin()
    assert answers == [future, None]
    company.check()


# ---------------------------------------------------------------------------------------------- submitted in them


def test_what_is_submitted_in_a_transaction_is_there_after_the_commit(company, worker):
    total = TVar(0)

    @atomically
    def body():
        total.value += 1
        future = company.put()
        assert not elsewhere(company.totals).submitted
        assert company.totals().queued == 1
        assert not future.done()
        return future

    future = body()
    assert not future.done()
    company.check()
    assert company.begin(worker) is future


def abort(body):
    def aborted():
        body()
        raise ValueError("undone")

    with pytest.raises(ValueError, match="undone"):
        run(aborted)


def abort_scope(body):
    def outer():
        try:
            abort_once()
        except ValueError:
            pass

    @atomically
    def abort_once():
        body()
        raise ValueError("undone")

    run(outer)


def abort_alternative(body):
    def first():
        body()
        retry()

    run(lambda: or_else(first, lambda: None))


def abort_by_time(body):
    def waits():
        body()
        retry()

    with pytest.raises(TransactionTimeout):
        run(waits, timeout=0.001)


def abort_by_exit(body):
    def exits():
        body()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(exits)


ABORTS = [abort, abort_scope, abort_alternative, abort_by_time, abort_by_exit]


@pytest.mark.parametrize("aborted", ABORTS)
@pytest.mark.parametrize("many", [False, True])
def test_what_an_aborted_transaction_submitted_is_cancelled_for_whoever_got_hold_of_it(aborted, many):
    with Scheduler(workers=1) as scheduler:
        ran, leaked = [], []

        def submit():
            if many:
                leaked.extend(scheduler.put_works([make_work(ran.append, 1), make_work(ran.append, 2)]))
            else:
                leaked.append(scheduler.submit(ran.append, 1))

        aborted(submit)
        assert leaked
        for future in leaked:
            assert future.done()
            assert future.cancel()
            with pytest.raises(CancelledError):
                future.result()
        assert isinstance(scheduler.submit(lambda: leaked[0].result()).exception(), CancelledError)
        totals = scheduler.monitor().totals
        assert (totals.submitted, totals.queued, totals.cancelled) == (1, 0, 0)
    assert ran == []


def test_a_transaction_that_runs_again_submits_what_its_last_attempt_did(company):
    attempts, once, x = [], Once(), TVar(0)

    @atomically
    def body():
        number = x.value
        attempts.append(company.put())
        if once:
            elsewhere(x.set, 1)
        check(number)
        return attempts[-1]

    future = body()
    assert future is attempts[-1]
    assert [one.cancelled() for one in attempts] == [True] * (len(attempts) - 1) + [False]
    assert company.totals().submitted == 1
    company.check()


def test_what_a_nested_scope_submitted_belongs_to_it(company):
    @atomically
    def inner(error):
        future = company.put()
        if error:
            raise error
        return future

    @atomically
    def outer():
        kept = inner(None)
        with pytest.raises(ValueError, match="undone"):
            inner(ValueError("undone"))
        return kept, company.put()

    assert company.common() == []
    kept = outer()
    assert company.common() == list(kept)
    company.check()


def test_a_transaction_may_submit_and_cancel(company, worker):
    @atomically
    def body():
        future = company.put()
        assert future.cancel()
        return future, company.put()

    first, second = body()
    assert first.cancelled()
    company.check()
    assert company.begin(worker) is second


def test_transactions_of_a_kind_that_cannot_write_submit_nothing(company):
    with pytest.raises(ReadOnlyViolation):
        run(company.put, read_only=True)
    assert company.totals().submitted == 0
    future = run(company.put, irrevocable=True)
    assert company.common() == [future]


def test_a_hook_may_submit(company):
    run(lambda: on_commit(company.put))
    assert company.totals().submitted == 1


# ---------------------------------------------------------------------------------------------- the standard way


def test_wait_and_as_completed_take_these_futures(company):
    done, not_done = finished(company), company.put()
    failed_one = Company(1)
    failed_one = failed(failed_one, OSError())
    gone = cancelled(Company(1))
    assert concurrent.futures.wait([done, failed_one, gone]) == ({done, failed_one, gone}, set())
    assert concurrent.futures.wait([done, not_done], timeout=0) == ({done}, {not_done})
    assert set(concurrent.futures.as_completed([done, failed_one, gone])) == {done, failed_one, gone}
    with pytest.raises(TimeoutError):
        list(concurrent.futures.as_completed([not_done], timeout=0.001))


@pytest.mark.parametrize("return_when", ["ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION"])
@pytest.mark.parametrize("how", ["finished", "failed", "cancelled"])
def test_who_waits_the_standard_way_is_told(how, return_when):
    company = Company(1)
    future = company.put() if how == "cancelled" else begun(company)
    waiting = Background(lambda: concurrent.futures.wait([future], 60, return_when))
    until(lambda: future._waiters, "the waiter")
    if how == "cancelled":
        future.cancel()
    else:
        company.end(company.crew[0], error=OSError() if how == "failed" else None)
    assert waiting.result().done == {future}


def test_a_work_that_ends_while_somebody_looks_at_its_state_is_announced_when_he_has_looked(company, worker):
    """They hold the lock, see that it is pending, and add a waiter: nothing may come between."""
    future = begun(company)
    waiter = concurrent.futures._base._AsCompletedWaiter()
    with future._condition:
        ending = Background(company.end, worker)
        until(future.done, "the end of the work")
        assert future._state == "PENDING"
        future._waiters.append(waiter)
        assert not waiter.event.is_set()
    ending.result()
    assert waiter.event.wait(60)
    assert waiter.finished_futures == [future]
    assert future._state == "FINISHED"


def test_two_who_look_for_the_first_time_share_one_condition(company):
    for _ in range(20):
        future = company.put()
        one, other = together(lambda: future._condition, lambda: future._condition)
        assert one is other is future._condition
        assert concurrent.futures.wait([future], timeout=0).not_done == {future}
        future.cancel()
        assert concurrent.futures.wait([future], timeout=60).done == {future}


def test_a_transaction_that_looks_the_standard_way_and_is_undone_leaves_no_trace(company, worker):
    future = begun(company)

    def look():
        assert concurrent.futures.wait([future], timeout=0).not_done
        raise ValueError("undone")

    with pytest.raises(ValueError, match="undone"):
        run(look)
    company.end(worker)
    assert concurrent.futures.wait([future], timeout=60).done == {future}


def test_an_event_loop_can_await_it():
    async def main(scheduler):
        assert await asyncio.wrap_future(scheduler.submit(pow, 2, 3)) == 8
        with pytest.raises(ZeroDivisionError):
            await asyncio.wrap_future(scheduler.submit(divmod, 1, 0))
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(scheduler, pow, 2, 4) == 16

    with Scheduler(workers=1) as scheduler:
        asyncio.run(main(scheduler))


def test_an_event_loop_that_cancels_what_it_awaits_cancels_the_work(company):
    future = company.put()

    async def main():
        waiting = asyncio.wrap_future(future)
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(main())
    assert future.cancelled()
    company.check()


# ---------------------------------------------------------------------------------------------- memory


class Thing:
    """Something that can be referred to weakly."""


def test_a_work_that_waits_takes_a_few_hundred_bytes():
    number = 2_000
    with Scheduler(workers=1) as scheduler:
        go, has_begun = threading.Event(), threading.Event()
        scheduler.submit(lambda: (has_begun.set(), go.wait(60)))
        assert has_begun.wait(60)
        gc.collect()
        tracemalloc.start()
        try:
            kept = [scheduler.submit(int) for _ in range(number)]
            taken = tracemalloc.get_traced_memory()[0] / number
        finally:
            tracemalloc.stop()
            go.set()
        assert taken < 1200
        assert kept[-1].result() == 0


def test_a_work_that_is_done_lets_go_of_what_it_needed(company):
    for make in (finished, lambda company: failed(company, OSError())):
        future = make(company)
        assert future._work is None
        assert future._context is None


def test_a_result_belongs_to_the_future_alone(company, worker):
    future = begun(company)
    thing = Thing()
    gone = weakref.ref(thing)
    company.dispatch.advance(worker, future, (4, thing), "work", 0.0, 1.0)
    del thing
    assert future.result() is gone()
    del future
    company.begun.clear()
    gc.collect()
    assert gone() is None


def test_an_exception_keeps_neither_the_future_nor_the_arguments_alive():
    def fail(thing):
        del thing
        raise OSError("it failed")

    with Scheduler(workers=1) as scheduler:
        thing = Thing()
        future = scheduler.submit(fail, thing)
        gone = weakref.ref(thing)
        del thing
        errors = []
        for _ in range(2):
            try:
                future.result()
            except OSError as error:
                errors.append(error)
        alive = weakref.ref(future)
        scheduler.submit(int).result()  # so that the worker has let go
        del future
        until(lambda: gc.collect() >= 0 and gone() is None, "the end of the argument")
        until(lambda: gc.collect() >= 0 and alive() is None, "the end of the future")
    assert errors[0] is errors[1]


def test_without_the_collector_an_exception_that_was_raised_again_leaves_no_cycle(company):
    if not hasattr(sys, "getrefcount") or not getattr(sys, "_is_gil_enabled", lambda: True)():
        pytest.skip("objects are freed later")
    future = failed(company, OSError("it failed"))
    company.begun.clear()
    gone = weakref.ref(future)
    gc.collect()
    gc.disable()
    try:
        try:
            future.result()
        except OSError:
            pass
        del future
        assert gone() is None
    finally:
        gc.enable()
