"""What `inject` promises of itself; and what it shows of forks, handlers and arrays.

What it shows of each kind of transaction is in `test_points.py`.
"""

import os
import signal
import sys
import threading
import time
import warnings
from contextlib import ExitStack
from types import FrameType
from typing import Any

import pytest

from stm import TVar, atomically, in_transaction, run
from stm.compiled import TArray
from stm.testing.injection import EXIT_STATUS, Death, inject
from stm.waiting import Waiter, wake_all
from tests.injector import Bolt
from tests.stm.test_interruption import Scenario, check_after
from tests.stm.testing.test_points import DIVISIBLE, strikes
from tests.support import PATIENCE, Background, elsewhere, until

module: Any = sys.modules[inject.__module__]

MONITORED = sys.version_info >= (3, 12)

on_older = pytest.mark.skipif(MONITORED, reason="sys.settrace is for CPython 3.11")
on_newer = pytest.mark.skipif(not MONITORED, reason="sys.monitoring came with CPython 3.12")


@pytest.fixture(autouse=True)
def _leaves_no_trace():
    before = sys.gettrace(), sys.getprofile(), threading.gettrace(), threading.excepthook, tools()
    yield
    assert (sys.gettrace(), sys.getprofile(), threading.gettrace(), threading.excepthook, tools()) == before


def tools() -> list[str | None]:
    return [sys.monitoring.get_tool(tool) for tool in range(6)] if MONITORED else []


@atomically
def bump(x: TVar[int]) -> int:
    x.value += 1
    return x.value


def outcomes(fn: Any, count: int) -> list[Any]:
    """What each of so many calls returned, or the class of what it raised."""
    found: list[Any] = []
    for _ in range(count):
        try:
            found.append(fn())
        except BaseException as error:
            found.append(type(error))
    return found


# ------------------------------------------------------------------------------------------ what is asked for


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"point": "commit.publsh", "die": True}, ValueError, "do you mean 'commit.publish'"),
        ({"point": None, "die": True}, TypeError, "named by a string"),
        ({}, ValueError, "nothing to inject"),
        ({"times": 3}, ValueError, "nothing to inject"),
        ({"exception": ValueError, "die": True}, ValueError, "exception and die exclude each other"),
        ({"exit": True, "call": print}, ValueError, "exit and call exclude each other"),
        ({"exception": "ValueError"}, TypeError, "exception must be an exception class or instance, not 'ValueError'"),
        ({"exception": int}, TypeError, "exception must be"),
        ({"call": 3}, TypeError, "call must be a function without arguments, not 3"),
        ({"delay": "1"}, TypeError, "delay must be a number of seconds or a threading.Event, not '1'"),
        ({"delay": True}, TypeError, "delay must be"),
        ({"delay": -1}, ValueError, "not negative, got -1"),
        ({"delay": float("nan")}, ValueError, "finite"),
        ({"delay": float("inf")}, ValueError, "finite"),
        ({"die": True, "times": 0}, ValueError, "times must be at least 1, got 0"),
        ({"die": True, "times": 1.0}, TypeError, "times must be an integer, not 1.0"),
        ({"die": True, "times": True}, TypeError, "times must be"),
        ({"die": True, "after": -1}, ValueError, "after must be at least 0, got -1"),
        ({"die": True, "after": None}, TypeError, "after must be an integer, not None"),
        ({"die": True, "thread": "main"}, TypeError, "thread must be"),
        ({"point": "read.check", "die": True}, ValueError, "nothing can strike at 'read.check'"),
        ({"point": "exclusive.leave", "call": print}, ValueError, "inject a delay"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(arguments, error, message):
    with pytest.raises(error, match=message.replace("(", r"\(")):
        inject(**{"point": "commit", **arguments})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [Bolt, 1, 2, 3]),
        ({"times": 2}, [Bolt, Bolt, 1, 2]),
        ({"after": 1}, [1, Bolt, 2, 3]),
        ({"after": 1, "times": 2}, [1, Bolt, Bolt, 2]),
        ({"times": None}, [Bolt, Bolt, Bolt, Bolt]),
        ({"after": 4}, [1, 2, 3, 4]),
        ({"thread": threading.main_thread()}, [Bolt, 1, 2, 3]),
        ({"thread": threading.main_thread().ident}, [Bolt, 1, 2, 3]),
        ({"thread": threading.Thread()}, [1, 2, 3, 4]),
    ],
)
def test_it_strikes_as_often_as_asked(options, expected):
    x = TVar(0)
    with inject("commit.validated", Bolt, **options) as injection:
        assert outcomes(lambda: bump(x), 4) == expected
    assert injection.struck == expected.count(Bolt)
    assert injection.arrived.is_set() == bool(injection.struck)
    assert bump(x) == 5 - injection.struck


def test_an_instance_is_raised_as_it_is_and_a_class_anew():
    x = TVar(0)
    bolt = Bolt("this one")
    with inject("commit", bolt), pytest.raises(Bolt) as raised:
        bump(x)
    assert raised.value is bolt
    with inject("commit", Bolt), pytest.raises(Bolt) as raised:
        bump(x)
    assert raised.value is not bolt


def test_an_exception_in_a_body_with_stale_reads_counts_as_the_body_s_own():
    """Promise 2: the body runs again. Not so for what is no `Exception`."""
    x, y = TVar(0), TVar(0)
    runs: list[int] = []

    @atomically
    def body():
        runs.append(x.value)
        elsewhere(x.update, lambda value: value + 1)
        return y.value

    here = threading.current_thread()
    with (
        inject("read", ValueError, after=1, thread=here) as injection,
        inject("extend", delay=0, times=99, thread=here),
    ):
        body()
    assert (injection.struck, len(runs)) == (1, 2)
    with inject("read", Bolt, after=1, thread=here), pytest.raises(Bolt):
        body()
    assert len(runs) == 3


def test_nested_injections_strike_in_order():
    x = TVar(0)
    order: list[str] = []
    with ExitStack() as stack:
        for name, point in [("a", "commit.locked"), ("b", "commit.publish"), ("c", "commit.publish"), ("d", "begin")]:
            stack.enter_context(inject(point, call=lambda name=name: order.append(name)))
        bump(x)
        assert order == ["d", "a", "b", "c"]
    with inject("commit", Bolt) as outer, inject("commit", KeyError, times=2) as inner:
        assert outcomes(lambda: bump(x), 3) == [Bolt, KeyError, KeyError]
    assert (outer.struck, inner.struck) == (1, 2)


def test_one_may_end_before_the_other():
    x = TVar(0)
    first, second = inject("commit", Bolt, times=None), inject("begin", KeyError, times=None)
    with first:
        second.__enter__()
    assert (second.struck, first.struck) == (0, 0)
    assert outcomes(lambda: bump(x), 1) == [KeyError]
    second.__exit__(None, None, None)
    assert outcomes(lambda: bump(x), 1) == [1]


def test_it_is_for_one_use():
    injection = inject("commit", Bolt)
    with injection:
        assert repr(injection) == "<injection at 'commit', active, struck 0>"
        with pytest.raises(RuntimeError, match="has been entered before"):
            injection.__enter__()
        with pytest.raises(Bolt):
            bump(TVar(0))
    with pytest.raises(RuntimeError, match="over, struck 1> has been entered before"):
        injection.__enter__()


def test_a_function_that_is_running_already_is_struck_too():
    """One may be entered inside a body, and strike where the transaction around it goes on."""
    x = TVar(0)
    with ExitStack() as stack:

        def body():
            stack.enter_context(inject("snapshot.end", Bolt))
            return x.value

        with pytest.raises(Bolt):
            run(body, read_only=True)
    bump(x)


def test_functions_with_a_new_list_of_parameters_are_struck_too():
    """`stm/quick.py` makes a function for each list when it first comes up."""
    x = TVar(0)
    with inject("begin", Bolt, times=2):

        @atomically
        def fresh(never, heard, of, before):
            x.value += 1

        assert outcomes(lambda: fresh(1, 2, 3, 4), 3) == [Bolt, Bolt, None]
    assert x.value == 1


# -------------------------------------------------------------------------------------------------- threads


def test_threads_that_start_meanwhile_are_struck():
    with inject("commit.locked", Bolt), pytest.raises(Bolt):
        elsewhere(bump, TVar(0))


@on_newer
def test_threads_that_run_already_are_struck():
    x = TVar(0)
    go = threading.Event()
    other = Background(lambda: (go.wait(PATIENCE), bump(x)))
    with inject("commit.locked", Bolt):
        go.set()
        with pytest.raises(Bolt):
            other.result()


def test_injections_come_and_go_while_others_commit():
    x, y = TVar(0), TVar(0)
    stop = threading.Event()

    @atomically
    def both():
        x.value += 1
        y.value += 1

    def work() -> int:
        count = 0
        while not stop.is_set():
            both()
            count += 1
        return count

    others = [Background(work) for _ in range(2)]
    for number in range(20):
        name = DIVISIBLE[number % len(DIVISIBLE)]
        with inject(name, Bolt, times=None, thread=threading.get_ident()), inject("commit.locked", delay=0, times=None):
            outcomes(both, 3)
    stop.set()
    assert sum(other.result() for other in others) <= x.value == y.value


# ---------------------------------------------------------------------------------------------------- delay


def test_an_event_holds_a_commit_up_and_others_wait_and_readers_do_not():
    x, y = TVar(0), TVar(0)
    go_on = threading.Event()
    with inject("commit.validated", delay=go_on) as held:
        committer = Background(bump, x)
        assert held.arrived.wait(PATIENCE)
        with inject("store", delay=0) as came, inject("store.locked", delay=0) as entered:
            waiting = Background(y.set, 1)
            assert came.arrived.wait(PATIENCE)
            assert elsewhere(lambda: (x.value, y.value)) == (0, 0)
            assert run(lambda: (x.value, y.value)) == (0, 0)
            assert entered.struck == 0
            go_on.set()
            assert committer.result() == 1
            waiting.result()
            assert entered.struck == 1
    assert (x.value, y.value) == (1, 1)


@pytest.mark.parametrize("name", ["read.check", "read"])
def test_a_delay_between_loading_and_comparing_is_no_danger(name):
    """A delay may be anywhere, also where nothing can strike."""
    x, y = TVar(0), TVar(0)
    go_on = threading.Event()
    with inject(name, delay=go_on, after=1) as held:
        reader = Background(run, lambda: (x.value, y.value))
        assert held.arrived.wait(PATIENCE)
        run(lambda: (x.set(1), y.set(1)))
        go_on.set()
        assert reader.result() in [(0, 0), (1, 1)]


def test_seconds_are_slept_before_what_else_is_injected():
    x = TVar(0)
    begun = time.monotonic()
    with inject("commit", Bolt, delay=0.05), pytest.raises(Bolt):
        bump(x)
    assert time.monotonic() - begun >= 0.05


def test_an_event_that_does_not_come_is_an_error(monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    x = TVar(0)
    with (
        inject("commit.locked", delay=threading.Event()),
        pytest.raises(TimeoutError, match=r"delay at 'commit\.locked' did not come"),
    ):
        bump(x)
    assert bump(x) == 1


# ------------------------------------------------------------------------------------------------ die, exit, fork


def test_a_death_is_silent_and_other_errors_are_not(monkeypatch):
    heard: list[type[BaseException]] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: heard.append(args.exc_type))

    def start(error: Any = None) -> None:
        thread = threading.Thread(target=bump, args=(TVar(0) if error is None else error,))
        thread.start()
        thread.join(PATIENCE)

    with inject("commit.publish", die=True) as injection:
        start()
        start(3)
    assert injection.struck == 1
    assert heard == [AttributeError]


def test_a_death_is_silent_also_if_the_thread_takes_its_time(monkeypatch):
    heard: list[type[BaseException]] = []
    hook = lambda args: heard.append(args.exc_type)  # noqa: E731
    monkeypatch.setattr(threading, "excepthook", hook)
    go_on = threading.Event()

    def work() -> None:
        try:
            bump(TVar(0))
        finally:
            go_on.wait(PATIENCE)

    thread = threading.Thread(target=work)
    with inject("commit", die=True) as injection:
        thread.start()
        assert injection.arrived.wait(PATIENCE)
        until(lambda: module._mourning.dying)
    go_on.set()
    thread.join(PATIENCE)
    assert heard == []
    with inject("commit", die=True):
        pass
    assert threading.excepthook is hook


def test_in_the_main_thread_a_death_is_an_exception_like_others():
    x = TVar(0)
    with inject("commit.published", die=True), pytest.raises(Death):
        bump(x)
    assert x.value == 1


def in_child(fn: Any) -> int:
    """The exit status of a forked child that runs `fn`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        signal.alarm(20)  # a child that hangs dies of it
        try:
            fn()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("name", ["commit.locked", "read.check", "store.published"])
def test_exit_ends_the_process_there(name):
    def child() -> None:
        with inject(name, exit=True):
            x = TVar(0)
            bump(x)
            x.set(1)

    assert in_child(child) == EXIT_STATUS


@pytest.mark.parametrize(
    ("name", "count"),
    [(name, 1) for name in DIVISIBLE if name.startswith("store")]
    + [(name, count) for name in DIVISIBLE if name.startswith("commit") for count in (1, 2, 3)],
)
def test_a_fork_at_each_point_of_a_commit(name, count):
    """A handler forks. The child has all of the commit or none, and can transact, and so can the parent."""
    variables = [TVar(0) for _ in range(count)]
    seen: list[int] = []

    def look() -> None:
        values = run(lambda: [variable.value for variable in variables])
        assert len(set(values)) == 1
        assert values[0] == (name.endswith(("published", "released")))
        run(lambda: [variable.update(lambda value: value + 1) for variable in variables])
        assert [variable.peek() for variable in variables] == [values[0] + 1] * count

    def go() -> None:
        if name.startswith("store"):
            variables[0].set(1)
        else:
            atomically(lambda: [variable.set(1) for variable in variables])()

    with inject(name, call=lambda: seen.append(in_child(look))) as injection:
        go()
    assert (seen, injection.struck) == ([0], 1)
    assert {variable.value for variable in variables} == {1}
    elsewhere(go)


# ---------------------------------------------------------------------------------------------------- call


def test_what_is_called_is_not_struck_itself():
    x = TVar(0)
    with inject("begin", call=lambda: bump(x)), inject("commit", Bolt, after=1) as other:
        assert bump(x) == 2
    assert other.struck == 0


def test_what_is_called_may_raise():
    x = TVar(0)

    def handler() -> None:
        assert not in_transaction()
        raise Bolt

    with inject("commit.published", call=handler), pytest.raises(Bolt):
        bump(x)
    assert x.value == 1


#: What may be under way when a handler commits to the same variable. (As it comes to `wake` first, it is about to look
#: who waits; the second time it has looked.)
UNDER_WAY = {
    "set": lambda x: x.set(1),
    "compare_and_set": lambda x: x.compare_and_set(x.get(), 1),
    "transaction": lambda x: atomically(lambda: x.set(1))(),
    "general": lambda x: run(x.set, 1),
    "wake_all": lambda x: wake_all([x]),
}


@pytest.mark.parametrize(
    ("operation", "after"),
    [
        ("set", 0),
        ("compare_and_set", 0),
        ("transaction", 0),
        ("general", 0),
        ("set", 1),
        ("compare_and_set", 1),
        ("transaction", 1),
        ("wake_all", 0),
    ],
)
def test_a_handler_may_wake_whom_its_own_thread_is_about_to_wake(operation, after):
    x = TVar(0)
    bell = threading.Lock()
    bell.acquire()
    waiter = Waiter(bell.release, [x], None)
    assert waiter.register({x: x._cell})
    try:
        with inject("wake", call=lambda: x.set(10), after=after) as injection:
            UNDER_WAY[operation](x)
        assert injection.struck == 1
        assert not bell.locked()
    finally:
        waiter.withdraw()


class Arrays(Scenario):
    """Uses an array beside variables."""

    def prepare(self) -> None:
        self.array = TArray([0, 0])

    def body(self) -> None:
        before = self.array[0]
        self.disturb()
        assert self.array[1] >= 0
        self.array[0] = before + 1
        super().body()

    def disturb(self) -> None:
        pass

    def settle(self) -> None:
        assert self.array[0] == self.variables[0].value


class DisturbedArrays(Arrays):
    def disturb(self) -> None:
        if not self.array.peek(1):
            elsewhere(self.array.__setitem__, 1, 1)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (Arrays, "arrays.join"),
        (DisturbedArrays, "arrays.extend"),
    ],
)
def test_arrays_have_points_where_python_uses_them(kind, name):
    tried = strikes(kind, name)
    assert {name, "commit.publish"} <= {name for name, _ in tried}
    for name, after in tried:
        for error in (Bolt(name), Death()):
            scenario = kind()
            scenario.prepare()
            with (
                inject(name, error, after=after, thread=threading.get_ident()),
                pytest.raises(type(error)) as raised,
            ):
                scenario.go()
            assert raised.value is error
            check_after(scenario)


# --------------------------------------------------------------------------------- how CPython tells us of lines


@on_newer
def test_other_tools_go_on_and_if_there_is_no_room_it_says_so():
    monitoring = sys.monitoring
    lines: list[int] = []
    x = TVar(0)
    code = bump.__wrapped__.__code__
    taken = [tool for tool in range(6) if monitoring.get_tool(tool) is None]
    try:
        for tool in taken[1:]:
            monitoring.use_tool_id(tool, "another")
        monitoring.register_callback(taken[1], monitoring.events.LINE, lambda code, line: lines.append(line))
        monitoring.set_local_events(taken[1], code, monitoring.events.LINE)
        with inject("commit", Bolt), pytest.raises(Bolt):
            bump(x)
        bump(x)
        assert len(lines) == 4
        monitoring.use_tool_id(taken[0], "the last")
        with pytest.raises(RuntimeError, match=r"tool identifier of sys\.monitoring"):
            inject("commit", Bolt).__enter__()
    finally:
        monitoring.set_local_events(taken[1], code, 0)
        monitoring.register_callback(taken[1], monitoring.events.LINE, None)
        for tool in taken:
            if monitoring.get_tool(tool) is not None:
                monitoring.free_tool_id(tool)
    assert bump(x) == 2
    assert not module._injections


@on_older
def test_another_trace_function_goes_on_afterwards():
    seen: list[str] = []

    def trace(frame: FrameType, event: str, arg: object) -> None:
        seen.append(frame.f_code.co_qualname)

    before = sys.gettrace()
    x = TVar(0)
    sys.settrace(trace)
    try:
        with inject("commit", Bolt), pytest.raises(Bolt):
            bump(x)
        del seen[:]
        bump(x)
        assert sys.gettrace() is trace
    finally:
        sys.settrace(before)
    assert "commit" in seen


@on_older
def test_a_profile_function_goes_on_afterwards():
    def profile(frame: FrameType, event: str, arg: object) -> None:
        pass

    x = TVar(0)
    sys.setprofile(profile)
    try:
        with inject("commit.locked", Bolt, times=3):
            assert outcomes(lambda: bump(x), 4) == [Bolt, Bolt, Bolt, 1]
        assert sys.getprofile() is profile
    finally:
        sys.setprofile(None)
