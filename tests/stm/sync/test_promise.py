"""What `stm.sync.promise` promises."""

import copy
import gc
import logging
import traceback
import weakref
from concurrent.futures import Future, InvalidStateError

import pytest

from stm import TPromise, TransactionTimeout, TVar, atomically, in_transaction, or_else, run
from tests.support import Background, asleep, elsewhere, together


class Broken(Exception):
    pass


def failed(error):
    promise = TPromise()
    promise.set_exception(error)
    return promise


def test_is_what_futures_have():
    for kind in (Future, TPromise):
        good, bad, error = kind(), kind(), Broken()
        assert not good.done()
        with pytest.raises(TimeoutError):
            good.result(0.001)
        with pytest.raises(TimeoutError):
            good.exception(timeout=0)
        assert (good.set_result(5), good.done(), good.result(), good.exception()) == (None, True, 5, None)
        assert (bad.set_exception(error), bad.done(), bad.exception(timeout=0)) == (None, True, error)
        with pytest.raises(Broken) as caught:
            bad.result()
        assert caught.value is error
        for one in (good, bad):
            with pytest.raises(InvalidStateError):
                one.set_result(6)
            with pytest.raises(InvalidStateError):
                one.set_exception(Broken())
        assert good.result() == 5


def test_whoever_asks_waits():
    promise = TPromise()
    waiting = [Background(promise.result) for _ in range(5)]
    asleep(5)
    promise.set_result(None)
    assert [one.result() for one in waiting] == [None] * 5


def test_of_two_that_complete_it_one_does():
    for _ in range(50):
        promise = TPromise()

        def complete(value):
            try:
                promise.set_result(value)
            except InvalidStateError:
                return None
            return value

        answers = together(lambda: complete(1), lambda: complete(2))
        assert [promise.result()] == [value for value in answers if value is not None]


def test_a_result_set_in_a_transaction_is_there_if_that_commits():
    promise = TPromise()

    @atomically
    def body(fail):
        promise.set_result(1)
        assert promise.result() == 1
        assert not elsewhere(promise.done)
        if fail:
            raise KeyError

    with pytest.raises(KeyError):
        body(fail=True)
    assert not promise.done()
    body(fail=False)
    assert promise.result() == 1


def test_the_first_of_several():
    one, other = TPromise(), TPromise()
    waiting = Background(run, lambda: or_else(one.result, other.result))
    asleep()
    other.set_result("other")
    assert waiting.result() == "other"


def test_an_exception_set_leaves_a_transaction_like_any_other():
    promise, x = failed(Broken()), TVar(0)

    @atomically
    def body():
        x.set(1)
        promise.result()

    with pytest.raises(Broken):
        body()
    assert x.value == 0
    assert isinstance(run(promise.exception), Broken)


def test_an_exception_does_not_accumulate_tracebacks():
    def origin():
        raise Broken

    try:
        origin()
    except Broken as error:
        promise = failed(error)

    def depth():
        with pytest.raises(Broken) as caught:
            promise.result()
        frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert "origin" in frames
        return len(frames)

    assert [depth() for _ in range(5)] == [depth()] * 5


def test_an_exception_raised_makes_no_cycle_with_the_promise():
    promise = failed(Broken())
    try:
        promise.result()
    except Broken:
        pass
    seen = weakref.ref(promise)
    gc.disable()
    try:
        del promise
        assert seen() is None
    finally:
        gc.enable()


def test_a_timeout_raises_and_bounds_its_part_alone():
    promise, x = TPromise(name="answer"), TVar(0)
    with pytest.raises(TransactionTimeout, match=r"'answer.result' waited 0.01 s in vain"):
        promise.result(timeout=0.01)
    with pytest.raises(TransactionTimeout):
        promise.exception(-1)

    @atomically
    def body():
        x.set(1)
        try:
            promise.result(timeout=0.02)
        except TransactionTimeout:
            return "late"

    assert body() == "late"
    assert x.value == 1


# ------------------------------------------------------------------------------------------ callbacks


def test_callbacks_run_once_in_order_outside_any_transaction():
    promise, log = TPromise(), []
    for number in range(3):
        promise.add_done_callback(
            lambda done, number=number: log.append((number, done is promise, done.result(), in_transaction()))
        )
    promise.set_result("it")
    assert log == [(number, True, "it", False) for number in range(3)]
    with pytest.raises(InvalidStateError):
        promise.set_result("again")
    assert len(log) == 3


def test_a_callback_on_what_is_done_runs_now():
    promise, log = failed(Broken()), []
    promise.add_done_callback(log.append)
    assert log == [promise]


def test_callbacks_follow_the_commit():
    promise, log = TPromise(), []
    promise.add_done_callback(log.append)

    @atomically
    def body(fail):
        promise.set_result(1)
        promise.add_done_callback(log.append)
        assert log == []
        if fail:
            raise KeyError

    with pytest.raises(KeyError):
        body(fail=True)
    assert log == []
    body(fail=False)
    assert log == [promise, promise]


def test_a_callback_added_in_a_transaction_that_fails_is_not_called():
    promise, log = TPromise(), []

    @atomically
    def body():
        promise.add_done_callback(log.append)
        raise KeyError

    with pytest.raises(KeyError):
        body()
    promise.set_result(1)
    assert log == []


def test_no_callback_is_lost_when_added_while_it_is_completed():
    for _ in range(50):
        promise, log = TPromise(), []
        together(
            lambda: promise.set_result(1),
            lambda: promise.add_done_callback(lambda _: log.append("first")),
            lambda: promise.add_done_callback(lambda _: log.append("second")),
        )
        assert sorted(log) == ["first", "second"]


def test_an_error_in_a_callback_is_logged_not_raised(caplog):
    promise, log = TPromise(name="answer"), []

    def fail(_):
        raise Broken

    promise.add_done_callback(fail)
    promise.add_done_callback(log.append)
    with caplog.at_level(logging.ERROR, "stm"):
        promise.set_result(1)
    assert log == [promise]
    (record,) = caplog.records
    assert record.name == "stm"
    assert "a callback of <TPromise 'answer' result=1> failed" in record.getMessage()
    assert record.exc_info[0] is Broken


def test_what_is_no_exception_from_a_callback_is_raised():
    promise, log = TPromise(), []

    def fail(_):
        raise KeyboardInterrupt

    promise.add_done_callback(fail)
    promise.add_done_callback(log.append)
    with pytest.raises(KeyboardInterrupt):
        promise.set_result(1)
    assert (promise.result(), log) == (1, [promise])


# ------------------------------------------------------------------------------------------ the rest


def test_nonsense_is_refused():
    promise = TPromise()
    for wrong in (Broken, None, "error"):
        with pytest.raises(TypeError, match=r"set_exception\(\) takes an exception"):
            promise.set_exception(wrong)
    with pytest.raises(TypeError, match="takes a function of the promise"):
        promise.add_done_callback("log")
    with pytest.raises(TypeError, match="timeout"):
        promise.result("long")
    assert not promise.done()


def test_repr_and_copy():
    promise = TPromise(name="answer")
    assert repr(promise) == "<TPromise 'answer' pending>"
    promise.set_result(1)
    assert repr(promise) == "<TPromise 'answer' result=1>"
    assert repr(failed(KeyError("no"))) == "<TPromise exception=KeyError('no')>"
    with pytest.raises(TypeError, match="can't be pickled or copied"):
        copy.deepcopy(promise)
