"""Using the library: what may be decorated, what is refused with advice, what importing costs."""

import functools
import inspect
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import stm
from stm import TVar, atomically, in_transaction, run

ROOT = Path(stm.__file__).parent.parent


def test_functions_methods_and_lambdas_can_be_decorated():
    class Account:
        def __init__(self):
            self.balance = TVar(0)

        @atomically
        def deposit(self, amount, *, times=1):
            """Put money in."""
            self.balance.value += amount * times
            return in_transaction()

        @classmethod
        @atomically
        def make(cls, amount):
            account = cls()
            account.deposit(amount)
            return account

        @staticmethod
        @atomically(name="static")
        def nothing():
            return in_transaction()

    account = Account.make(5)
    assert account.deposit(2, times=3)
    assert account.balance.value == 11
    assert Account.nothing()
    assert atomically(lambda: in_transaction())()
    assert Account.deposit.__doc__ == "Put money in."
    assert list(inspect.signature(Account.deposit).parameters) == ["self", "amount", "times"]


def test_callable_objects_partials_and_builtins_can_be_decorated():
    class Call:
        def __call__(self):
            return in_transaction()

    assert atomically(Call())()
    assert atomically(functools.partial(pow, 2))(5) == 32
    assert atomically(max)(1, 2) == 2
    assert atomically(dict)(a=1) == {"a": 1}


def test_wrong_arguments_are_the_functions_own_error():
    @atomically
    def body(a):
        return a

    with pytest.raises(TypeError, match="body"):
        body()
    assert not in_transaction()


def test_every_shape_of_parameters():
    x = TVar(0)

    def call(function, /, *args, **kwargs):
        return atomically(function)(*args, **kwargs)

    assert call(lambda: (in_transaction(), x.value)) == (True, 0)
    assert call(lambda a, b=2, c=3: (a, b, c), 1, c=5) == (1, 2, 5)
    assert call(lambda a, b: (a, b), b=1, a=2) == (2, 1)
    assert call(lambda a, /, b=2: (a, b), 1) == (1, 2)
    assert call(lambda *args, k=1, **kwargs: (args, k, kwargs), 1, 2, k=3, z=4) == ((1, 2), 3, {"z": 4})
    # names that the wrapper's own source uses
    assert call(lambda tx, reads, fn: (tx, reads, fn), 1, reads=2, fn=3) == (1, 2, 3)
    assert call(lambda options, clock=7: (options, clock), 1) == (1, 7)


def test_a_generator_expression_inside_a_body_is_no_obstacle():
    x = TVar(3)
    assert run(lambda: sum(x.value for _ in range(3))) == 9


def test_tracebacks_show_the_wrappers_source():
    import traceback

    @atomically
    def body(a):
        raise KeyError(a)

    try:
        body(1)
    except KeyError as error:
        text = "".join(traceback.format_exception(error))
    assert "result = fn(" in text
    assert "raise KeyError(a)" in text


async def coroutine():
    pass


def generator():
    yield


async def asynchronous_generator():
    yield


class AsyncCall:
    async def __call__(self):
        pass


@pytest.mark.parametrize(
    "fn", [coroutine, generator, asynchronous_generator, AsyncCall(), functools.partial(coroutine)]
)
@pytest.mark.parametrize("use", [atomically, atomically(timeout=1), run])
def test_what_would_go_on_after_the_commit_is_refused(use, fn):
    with pytest.raises(TypeError, match=r"stm\.aio"):
        use(fn)


@pytest.mark.parametrize("use", [atomically, atomically(timeout=1), run])
@pytest.mark.parametrize("thing", [5, "name", None])
def test_what_is_no_function_is_refused(use, thing):
    if thing is None and use is atomically:
        pytest.skip("atomically(None) is atomically()")
    with pytest.raises(TypeError, match="takes a function"):
        use(thing)


@pytest.mark.parametrize("kind", [classmethod, staticmethod])
def test_decorators_in_the_wrong_order_are_explained(kind):
    with pytest.raises(TypeError, match=f"put @{kind.__name__} above @atomically"):
        atomically(kind(lambda: None))


def test_options_are_given_by_name():
    with pytest.raises(TypeError):
        atomically(5.0)
    with pytest.raises(TypeError):
        atomically(lambda: 1, 5)
    with pytest.raises(TypeError):
        atomically(retries=5)


def test_every_thread_has_its_own_transaction():
    x = TVar(0)

    def body():
        results = []
        thread = threading.Thread(target=lambda: results.append((in_transaction(), x.value)))
        x.set(1)
        thread.start()
        thread.join()
        return results

    assert run(body) == [(False, 0)]


def test_all_public_names_are_documented():
    for name in stm.__all__:
        assert inspect.getdoc(getattr(stm, name)), name
    assert stm.__doc__


def python(*code):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(code)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def test_importing_stm_loads_none_of_the_heavy_libraries():
    outcome = python(
        "import sys, stm",
        "heavy = {'numba', 'numpy', 'pyrsistent', 'psutil', 'asyncio', 'ctypes', 'rich'} & set(sys.modules)",
        "assert not heavy, heavy",
        "import hive_task",
        "heavy = {'numba', 'numpy', 'psutil', 'asyncio', 'ctypes', 'rich', 'typer'} & set(sys.modules)",
        "assert not heavy, heavy",
        "gil = getattr(sys, '_is_gil_enabled', lambda: None)()",
        "import sysconfig",
        "assert not (sysconfig.get_config_var('Py_GIL_DISABLED') and gil)",
    )
    assert outcome.returncode == 0, outcome.stderr


def test_the_core_dependencies_leave_the_gil_off():
    outcome = python(
        "import sys, sysconfig, pyrsistent, psutil, numba",
        "if sysconfig.get_config_var('Py_GIL_DISABLED'): assert not sys._is_gil_enabled()",
    )
    assert outcome.returncode == 0, outcome.stderr


def test_a_daemon_thread_in_a_transaction_does_not_stop_the_interpreter_from_exiting():
    outcome = python(
        "import threading, atexit, stm",
        "x, y = stm.TVar(0), stm.TVar(0)",
        "started = threading.Event()",
        "def work():",
        "    while True:",
        "        stm.run(lambda: (x.set(x.value + 1), y.set(y.value + 1)))",
        "        started.set()",
        "def sleep():",
        "    stm.run(lambda: stm.check(x.value < 0))",
        "for target in (work, work, sleep):",
        "    threading.Thread(target=target, daemon=True).start()",
        "started.wait()",
        "atexit.register(lambda: print(stm.run(lambda: x.value == y.value)))",
    )
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout == "True\n"
