"""hive_task.processes: one child process that runs what it is sent. Its promises, by number."""

import array
import contextlib
import fcntl
import functools
import gc
import importlib
import math
import multiprocessing
import operator
import os
import select
import signal
import subprocess
import sys
import termios
import textwrap
import threading
import warnings

import psutil
import pytest

from hive_task.errors import HiveTaskError, SchedulerClosed, UnpicklableWork, WorkerLost
from hive_task.processes import Child, ChildDied, ChildNotStarted, RemoteTraceback, UnpicklableResult, pack
from stm import TVar
from tests.support import PATIENCE, Background, together, until

MEGABYTES = 100_000_000

WORKS = '''
import os, signal, stat, sys, threading, fcntl, subprocess, warnings

class Odd(Exception):
    """Pickles, and can't be loaded."""
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")

class Locked(Exception):
    def __init__(self):
        super().__init__("locked")
        self.lock = threading.Lock()

class Unloadable:
    def __reduce__(self):
        return unload, (os.getpid(),)

def unload(pid):
    if pid != os.getpid():
        raise LookupError("not in this process")

class Mourned:
    def __init__(self, path):
        self.path = path

    def __del__(self):
        with open(self.path, "a") as f:
            f.write(f"{os.getpid()} ")

def same(it):
    return it

def deep(n):
    if n:
        return deep(n - 1)
    raise KeyError("down here")

def raises(error, *args):
    raise error(*args)

def tell_and_wait(fifo):
    """Says that it has begun, and then waits for ever."""
    with open(fifo, "w") as f:
        f.write("begun")
    threading.Event().wait()

def stubborn(fifo):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    tell_and_wait(fifo)

def segfault():
    os.kill(os.getpid(), signal.SIGSEGV)

def writer():
    for fd in range(3, 64):
        try:
            if stat.S_ISFIFO(os.fstat(fd).st_mode) and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_WRONLY:
                return fd
        except OSError:
            pass

def die_in_the_middle_of_the_answer(count):
    import hive_task._child as child
    os.write(writer(), (child.HEADER.pack(child.RESULT, 1000) + bytes(1000))[:count])
    os._exit(7)

def die_with_an_heir(path):
    """Leaves a process that holds all descriptors open, until it is killed."""
    pid = os.fork()
    if pid == 0:
        signal.pause()
    with open(path, "w") as f:
        f.write(str(pid))
    os._exit(9)

def fork_and_come_back():
    with warnings.catch_warnings():  # of a fork with threads
        warnings.simplefilter("ignore")
        pid = os.fork()
    if pid == 0:
        return "the copy"
    os.waitpid(pid, 0)
    return "the child"

def close_the_pipes():
    os.closerange(3, 64)
    threading.Event().wait()

def interrupt_me():
    os.kill(os.getpid(), signal.SIGINT)
    return signal.getsignal(signal.SIGINT) is not signal.SIG_IGN

def surroundings():
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    return os.getcwd(), sys.argv, sys.path, sys.stdin.read(), gil, threading.current_thread().name

def open_fifos():
    found = []
    for fd in range(64):
        try:
            found += [os.fstat(fd).st_ino] if stat.S_ISFIFO(os.fstat(fd).st_mode) else []
        except OSError:
            pass
    return found

def pipes_of_a_program_i_start():
    """Descriptors above 2 in a program that is started without any care for them."""
    code = "import os; print(len([f for f in os.listdir('/proc/self/fd') if int(f) > 2]) - 1)"
    return int(subprocess.run([sys.executable, "-c", code], close_fds=False, stdout=subprocess.PIPE).stdout)

def kept():
    return memoryview(bytes(10))

def package():
    from hive_task import Work, _child
    return Work.__module__.startswith("hive_task"), _child is sys.modules["hive_task._child"]

def one_more():
    from hive_task.processes import Child, pack
    with Child("grandchild") as mine:
        return mine.run(pack(os.getppid, (), {})) == os.getpid()
'''


@pytest.fixture(scope="module", autouse=True)
def _compiled_once(tmp_path_factory):
    """Where modules are not kept compiled (-B), each child would spend 0.1 seconds on those of the library."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path_factory.mktemp("compiled")))
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
        modules = "hive_task._child, hive_task.processes, dataclasses, importlib.util, traceback"
        subprocess.run([sys.executable, "-c", f"import {modules}"], env=environment, check=True)
        yield


@pytest.fixture(scope="module")
def works(tmp_path_factory):
    """A module of functions that imports nothing slow, found by the children since they are told `sys.path`."""
    folder = tmp_path_factory.mktemp("works")
    (folder / "works_for_children.py").write_text(WORKS)
    sys.path.insert(0, str(folder))
    yield importlib.import_module("works_for_children")
    sys.path.remove(str(folder))
    del sys.modules["works_for_children"]


@pytest.fixture(scope="module")
def shared(works):
    """The child of all tests whose child is to live on: it must, for the next one."""
    with Child("shared") as child:
        yield child


@pytest.fixture(autouse=True)
def _leaves_no_process_and_no_descriptor():
    me = psutil.Process()
    before, open_before = me.children(), len(os.listdir("/proc/self/fd"))
    yield
    gc.collect()
    assert [child for child in me.children() if child not in before] == []
    assert len(os.listdir("/proc/self/fd")) == open_before


@pytest.fixture
def child():
    with Child("test") as child:
        yield child


@pytest.fixture(params=["pidfd", "no pidfd"])
def either(request, monkeypatch):
    """A child where processes have descriptors, and one where they have none."""
    if request.param == "no pidfd":
        monkeypatch.delattr(os, "pidfd_open")
    with Child("either") as child:
        assert (child._process.pidfd >= 0) == (request.param == "pidfd")
        yield child


@pytest.fixture
def fifo(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    return str(tmp_path / "fifo")


def begun(fifo):
    with open(fifo) as file:
        assert file.read() == "begun"


def call(child, fn, *args, **kwargs):
    return child.run(pack(fn, args, kwargs))


def ended(pidfd):
    """Wait for a process that need not be our child."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(PATIENCE * 1000))


# ---------------------------------------------------------------------------------------------- 1: pack


def function():
    """A function that this module has under its name."""


def _replaced():
    """One that it has not."""


hidden, _replaced = _replaced, function


@pytest.mark.parametrize(
    ("fn", "args", "kwargs", "culprit"),
    [
        (lambda: 0, (), {}, "the function itself"),
        (hidden, (), {}, "the function itself, of type function, can't be pickled: .*not the same object"),
        (functools.partial(lambda x: x, 1), (), {}, "the function itself, of type partial"),
        (max, (1, threading.Lock()), {}, r"args\[1\], of type lock"),
        (max, ([1, lambda: 0],), {}, r"args\[0\], of type list"),
        (max, (1, 2), {"key": lambda x: -x}, r"kwargs\['key'\], of type function"),
        (print, (TVar(0),), {}, r"args\[0\], of type TVar"),
    ],
)
def test_pack_refuses_what_cannot_be_pickled_and_names_the_part(fn, args, kwargs, culprit):
    with pytest.raises(UnpicklableWork, match=culprit) as caught:
        pack(fn, args, kwargs)
    assert caught.value.__cause__ is not None
    assert fn.__qualname__ in str(caught.value) if hasattr(fn, "__qualname__") else "partial" in str(caught.value)
    assert isinstance(caught.value, TypeError)


def test_pack_refuses_recursion_without_end():
    nest = []
    for _ in range(100_000):
        nest = [nest]
    with pytest.raises(UnpicklableWork, match=r"args\[0\]"):
        pack(len, (nest,), {})
    while nest:
        nest = nest.pop()


def test_pack_refuses_what_is_not_callable():
    with pytest.raises(TypeError, match="not callable"):
        pack(3, (), {})


def test_pack_copies_at_once(shared):
    numbers = [3, 1, 2]
    payload = pack(sorted, (numbers,), {"reverse": True})
    numbers.clear()
    assert shared.run(payload) == [3, 2, 1]


# ---------------------------------------------------------------------------------------------- 2: results and errors


def test_run_returns_the_result_of_another_process_which_is_reused(either):
    assert call(either, os.getpid) == either.pid != os.getpid()
    assert [call(either, operator.add, n, n) for n in range(50)] == [2 * n for n in range(50)]
    assert call(either, os.getpid) == either.pid
    assert either.alive


def test_run_raises_the_works_own_exception_with_the_traceback_there_as_its_cause(shared, works):
    with pytest.raises(KeyError, match="down here") as caught:
        call(shared, works.deep, 3)
    cause = caught.value.__cause__
    assert isinstance(cause, RemoteTraceback)
    text = str(cause)
    assert "raise KeyError" in text
    assert text.count("in deep") == 4
    assert "_child.py" not in text
    assert call(shared, abs, -1) == 1


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_exits_are_exceptions_of_the_work(shared, works, error):
    with pytest.raises(error) as caught:
        call(shared, works.raises, error, 3)
    assert caught.value.args == (3,)
    assert call(shared, abs, -1) == 1


def test_sys_exit_is_an_ordinary_outcome(shared):
    with pytest.raises(SystemExit) as caught:
        call(shared, sys.exit, 5)
    assert caught.value.code == 5
    assert shared.alive


def test_a_result_that_cannot_be_pickled_is_a_clear_error_and_the_child_lives_on(shared, works):
    with pytest.raises(UnpicklableResult, match=r"kept returned an object of type memoryview.*pickle") as caught:
        call(shared, works.kept)
    assert isinstance(caught.value, HiveTaskError)
    assert call(shared, abs, -1) == 1


def test_a_result_that_cannot_be_loaded_here_is_a_clear_error(shared, works):
    with pytest.raises(UnpicklableResult, match="can't be loaded here: not in this process") as caught:
        call(shared, works.Unloadable)
    assert isinstance(caught.value.__cause__, LookupError)
    assert call(shared, abs, -1) == 1


@pytest.mark.parametrize(
    ("name", "args", "shown"), [("Locked", (), "locked"), ("Odd", ("this", "that"), "this and that")]
)
def test_an_exception_that_cannot_travel_is_told_in_words(shared, works, name, args, shown):
    with pytest.raises(UnpicklableResult, match=f"raised works_for_children.{name}, .*{shown}") as caught:
        call(shared, works.raises, getattr(works, name), *args)
    assert "in raises" in str(caught.value.__cause__)
    assert call(shared, abs, -1) == 1


def test_work_that_the_child_cannot_load_is_a_clear_error(shared, works):
    with pytest.raises(UnpicklableWork, match="the child process can't load the work: LookupError") as caught:
        call(shared, print, works.Unloadable())
    assert "in unload" in str(caught.value.__cause__)
    assert call(shared, abs, -1) == 1


def test_what_a_work_printed_is_there_when_its_result_is_and_its_input_is_empty(tmp_path):
    code = """
        from hive_task.processes import Child, pack
        with Child("printer") as child:
            child.run(pack(print, ("printed by the work",), {}))
            read = child.run(pack(eval, ("__import__('sys').stdin.read()",), {}))
            child.kill()
        print(repr(read), repr(input()))
    """
    assert program(tmp_path, "-c", code, input="typed").stdout == "printed by the work\n'' 'typed'\n"


# ---------------------------------------------------------------------------------------------- 3: death


def test_a_child_that_exits_is_reported_with_its_exit_code(either):
    with pytest.raises(ChildDied, match="ended with exit code 3") as caught:
        call(either, os._exit, 3)
    assert (caught.value.exitcode, caught.value.begun) == (3, True)
    assert isinstance(caught.value, WorkerLost)
    assert not either.alive


def test_a_crash_is_reported_with_its_signal(either, works):
    with pytest.raises(ChildDied, match="was killed by SIGSEGV") as caught:
        call(either, works.segfault)
    assert caught.value.exitcode == -signal.SIGSEGV


@pytest.mark.parametrize("count", [1, 9, 500])
def test_death_in_the_middle_of_an_answer_is_death(child, works, count):
    with pytest.raises(ChildDied, match="exit code 7"):
        call(child, works.die_in_the_middle_of_the_answer, count)


def test_death_is_seen_although_another_process_holds_the_pipes_open(either, works, tmp_path):
    try:
        with pytest.raises(ChildDied, match="exit code 9"):
            call(either, works.die_with_an_heir, tmp_path / "heir")
        with pytest.raises(ChildDied) as caught:
            call(either, abs, -1)
        assert not caught.value.begun
    finally:
        os.kill(int((tmp_path / "heir").read_text()), signal.SIGKILL)


def test_a_dead_child_refuses_work_which_has_not_begun(child):
    child.kill()
    until(lambda: child._process.exitcode() is not None)
    for _ in range(2):
        with pytest.raises(ChildDied, match="SIGKILL; the work had not begun") as caught:
            call(child, abs, -1)
        assert not caught.value.begun


def test_a_closed_child_refuses_work(child):
    child.close()
    with pytest.raises(ChildDied, match="is closed") as caught:
        call(child, abs, -1)
    assert not caught.value.begun
    assert not child.alive


def test_a_child_that_has_closed_its_pipes_is_ended(child, works, monkeypatch):
    monkeypatch.setattr("hive_task.processes.TERMINATES_WITHIN", 0.05)
    with pytest.raises(ChildDied, match="SIGKILL|exit code 1"):  # or it has noticed by itself
        call(child, works.close_the_pipes)
    assert not child.alive


def test_a_copy_that_a_work_forks_does_not_answer(shared, works):
    assert call(shared, works.fork_and_come_back) == "the child"
    assert call(shared, abs, -1) == 1


def test_a_child_that_cannot_be_started_says_so(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(ChildNotStarted, match="No such file"):
        Child("nobody")
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(ChildNotStarted, match="names none"):
        Child("nobody")


# ---------------------------------------------------------------------------------------------- 4: kill


def test_kill_during_a_work_ends_the_wait(either, works, fifo):
    running = Background(call, either, works.tell_and_wait, fifo)
    begun(fifo)
    either.kill()
    with pytest.raises(ChildDied, match="SIGKILL; the work was not complete") as caught:
        running.result()
    assert caught.value.begun


def test_kill_during_the_start_ends_the_wait():
    with Child("newborn") as child:
        os.kill(child.pid, signal.SIGSTOP)  # so it will certainly not have started
        running = Background(call, child, abs, -1)
        until(child._process.busy.locked)
        child.kill()
        with pytest.raises(ChildDied, match="SIGKILL"):
            running.result()


def test_kill_while_the_work_is_being_sent_ends_the_wait(either):
    assert call(either, abs, -1) == 1
    os.kill(either.pid, signal.SIGSTOP)
    running = Background(either.run, pack(len, (bytes(1_000_000),), {}))

    def waiting():
        count = array.array("i", [0])
        fcntl.ioctl(either._process.requests, termios.FIONREAD, count)
        return count[0] >= 1 << 16

    until(waiting, "a full pipe")
    either.kill()
    with pytest.raises(ChildDied, match="the work had not begun") as caught:
        running.result()
    assert not caught.value.begun


def test_kill_while_the_answer_is_being_sent_ends_the_wait(child, monkeypatch):
    read, half, killed = child._read_into, threading.Event(), threading.Event()

    def stopping(view):
        count = read(view)
        half.set()
        assert killed.wait(PATIENCE)
        return count

    monkeypatch.setattr(child, "_read_into", stopping)
    running = Background(call, child, bytes, 1_000_000)
    assert half.wait(PATIENCE)
    child.kill()
    until(lambda: child._process.exitcode() is not None)
    killed.set()
    with pytest.raises(ChildDied, match="SIGKILL"):
        running.result()


def test_an_answer_that_was_complete_counts_although_the_child_is_dead(child, monkeypatch):
    read = child._read_into

    def late():
        child._until_readable()
        child.kill()
        until(lambda: child._process.exitcode() is not None)
        monkeypatch.setattr(child, "_read_into", read)

    monkeypatch.setattr(child, "_read_into", lambda view: late() or read(view))
    assert call(child, abs, -1) == 1
    with pytest.raises(ChildDied):
        call(child, abs, -1)


def test_kill_may_be_repeated_and_come_from_anywhere(child):
    together(*[child.kill] * 8)
    until(lambda: child._process.exitcode() is not None)
    child.kill()
    child.close()
    child.kill()
    child.close()


def test_kill_never_strikes_a_process_that_has_the_number_of_a_dead_one(either, monkeypatch):
    either.kill()
    until(lambda: either._process.exitcode() is not None)
    struck = []
    monkeypatch.setattr(os, "kill", lambda *args: struck.append(args))
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda *args: struck.append(args))
    either.kill()
    either.close()
    either.kill()
    assert struck == []


def test_an_exception_that_interrupts_the_wait_kills_the_child(child, monkeypatch):
    """Else its answer would be taken for that of the next work."""

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(child, "_until_readable", interrupted)
    with pytest.raises(KeyboardInterrupt):
        call(child, abs, -1)
    monkeypatch.undo()
    assert not child.alive  # at once, whether or not it has ended yet
    with pytest.raises(ChildDied) as caught:
        call(child, abs, -2)
    assert not caught.value.begun


def test_runs_in_several_threads_take_turns(shared):
    works = [functools.partial(call, shared, pow, n, 2) for n in range(8)]
    assert together(*works) == [n * n for n in range(8)]


# ---------------------------------------------------------------------------------------------- close


def test_close_lets_an_idle_child_end_in_its_own_way(child):
    call(child, abs, -1)
    child.close()
    assert child._process.exitcode() == 0


def test_close_of_a_child_that_has_not_yet_started_lets_it_end():
    child = Child("newborn")
    child.close(PATIENCE)
    assert child._process.exitcode() == 0


@pytest.mark.parametrize("frozen", [False, True])
def test_close_terminates_and_then_kills(frozen, monkeypatch):
    monkeypatch.setattr("hive_task.processes.TERMINATES_WITHIN", 0.05 if frozen else PATIENCE)
    child = Child("slow")
    call(child, abs, -1)
    os.kill(child.pid, signal.SIGSTOP)  # so it will not end by itself
    if not frozen:
        process = child._process
        send = process.signal
        monkeypatch.setattr(process, "signal", lambda number: (send(number), os.kill(child.pid, signal.SIGCONT)))
    child.close(0.05)
    assert child._process.exitcode() == (-signal.SIGKILL if frozen else -signal.SIGTERM)


def test_close_waits_for_a_work_and_then_kills(works, fifo):
    child = Child("busy")
    running = Background(call, child, works.stubborn, fifo)
    begun(fifo)
    child.close(0.05)
    with pytest.raises(ChildDied, match="SIGKILL"):
        running.result()


def test_close_takes_back_every_descriptor(child):
    process = child._process
    fds = [process.requests, process.responses, process.pidfd]
    child.close()
    for fd in fds:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_a_dropped_child_is_killed_and_reaped_without_a_warning():
    child = Child("dropped")
    pid = child.pid
    del child
    gc.collect()
    assert not psutil.pid_exists(pid)


def test_a_child_dropped_by_a_program_that_ends_ends_with_it(tmp_path):
    code = """
        import contextlib, signal, threading
        from hive_task.processes import Child, ChildDied, pack
        kept, stuck = Child("kept"), Child("stuck")
        kept.run(pack(abs, (1,), {}))
        stuck.run(pack(abs, (1,), {}))

        def wait():
            with contextlib.suppress(ChildDied):
                stuck.run(pack(signal.pause, (), {}))

        threading.Thread(target=wait, daemon=True).start()
        print(kept.pid, stuck.pid)
    """
    done = program(tmp_path, "-W", "error", "-X", "dev", "-c", code)
    assert "Warning" not in done.stderr
    for pid in map(int, done.stdout.split()):
        assert not psutil.pid_exists(pid)


# ---------------------------------------------------------------------------------------------- 5: orphans


def program(folder, *options, check=True, source=None, **how):
    """Run Python; the last option is source that stands indented here, or `source` is a script's."""
    if source is not None:
        (folder / "script.py").write_text(textwrap.dedent(source))
        options = (*options, str(folder / "script.py"))
    else:
        options = (*options[:-1], textwrap.dedent(options[-1]))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), *filter(None, sys.path)])}
    environment.pop("PYTHONUNBUFFERED", None)
    done = subprocess.run(
        [sys.executable, *options],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        **how,
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def test_children_end_when_their_parent_is_killed_idle_or_in_the_middle_of_a_work(tmp_path):
    code = """
        import os, sys, threading, time
        from hive_task.processes import Child, pack
        idle, busy = Child("idle"), Child("busy")
        idle.run(pack(abs, (1,), {}))
        busy.run(pack(abs, (1,), {}))
        threading.Thread(target=busy.run, args=(pack(time.sleep, (1000,), {}),)).start()
        print(idle.pid, busy.pid, flush=True)
        threading.Event().wait()
    """
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as parent:
        pids = list(map(int, parent.stdout.readline().split()))
        fds = [os.pidfd_open(pid) for pid in pids]
        parent.kill()
    assert len(fds) == 2
    for fd in fds:
        assert ended(fd)
        os.close(fd)


def test_no_child_holds_a_pipe_of_another(works):
    with contextlib.ExitStack() as stack:
        children = together(*[functools.partial(Child, f"child {n}") for n in range(3)])
        for one in children:
            stack.enter_context(one)
        ends = [set(call(one, works.open_fifos)) for one in children]
        mine = [{os.fstat(one._process.requests).st_ino, os.fstat(one._process.responses).st_ino} for one in children]
        for n, own in enumerate(mine):
            assert own <= ends[n]
            assert not any(own & other for other in ends[:n] + ends[n + 1 :])


def test_programs_that_a_work_starts_inherit_no_pipe(shared, works):
    assert call(shared, works.pipes_of_a_program_i_start) == 0


# ---------------------------------------------------------------------------------------------- 6: os.fork


def forked(fn):
    """What the function returns in a copy of this process."""
    read, write = os.pipe()
    with warnings.catch_warnings():  # of a fork with threads
        warnings.simplefilter("ignore")
        pid = os.fork()
    if pid == 0:
        try:
            os.write(write, str(fn()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read) as answer:
        text = answer.read()
    os.waitpid(pid, 0)
    return text


def test_a_forked_copy_has_no_part_in_the_children(child):
    assert call(child, abs, -1) == 1
    process = child._process
    fds = [process.requests, process.responses, process.pidfd]

    def copy():
        with contextlib.suppress(SchedulerClosed):
            call(child, abs, -1)
            return "ran"
        child.kill()
        child.close()
        process.finish()
        held = [fd for fd in fds if os.path.exists(f"/proc/self/fd/{fd}")]
        return child.alive, held

    assert forked(copy) == "(False, [])"
    assert child.alive
    assert call(child, abs, -1) == 1


def test_a_forked_copy_can_have_children_of_its_own():
    def copy():
        with Child("of the copy") as own:
            return call(own, os.getppid) == os.getpid()

    assert forked(copy) == "True"


def test_a_fork_waits_for_a_child_that_is_being_started(monkeypatch):
    """Else its copy would keep the pipes open, and nobody would know of it."""
    started, go, popen = threading.Event(), threading.Event(), subprocess.Popen

    def slow(*args, **kwargs):
        started.set()
        assert go.wait(PATIENCE)
        return popen(*args, **kwargs)

    monkeypatch.setattr(subprocess, "Popen", slow)
    running = Background(Child, "slow")
    assert started.wait(PATIENCE)
    timer = threading.Timer(0.05, go.set)
    timer.start()
    assert forked(lambda: go.is_set()) == "True"
    running.result().close()
    timer.join()


# ---------------------------------------------------------------------------------------------- 7: size


def test_large_payloads_and_results_do_not_deadlock(shared):
    big = bytes(MEGABYTES)
    assert call(shared, bytes, big) == big


def test_a_child_keeps_nothing_of_a_work_that_is_done(shared, works, tmp_path):
    (tmp_path / "obituaries").touch()
    mourned = call(shared, works.same, works.Mourned(tmp_path / "obituaries"))
    until(lambda: str(shared.pid) in (tmp_path / "obituaries").read_text().split())
    del mourned


# ---------------------------------------------------------------------------------------------- what a child is


def test_a_child_has_its_parents_surroundings(works, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["a", "b"])
    with Child("worker-7") as child:
        cwd, argv, path, stdin, gil, name = call(child, works.surroundings)
    assert (cwd, argv, path, stdin, name) == (str(tmp_path), ["a", "b"], sys.path, "", "worker-7")
    assert gil == getattr(sys, "_is_gil_enabled", lambda: True)()


def test_a_child_has_its_parents_flags(tmp_path):
    code = """
        import sys
        from hive_task.processes import Child, pack
        with Child("flags") as child:
            get = "(lambda sys: (tuple(sys.flags), sys._xoptions, sys.warnoptions))(__import__('sys'))"
            flags, options, warnings = child.run(pack(eval, (get,), {}))
        assert flags == tuple(sys.flags), (flags, sys.flags)
        assert options == sys._xoptions, options
        assert warnings[-len(sys.warnoptions):] == sys.warnoptions, warnings
    """
    program(tmp_path, "-OO", "-B", "-bb", "-s", "-W", "ignore::UserWarning", "-X", "utf8", "-X", "mine=3", "-c", code)
    program(tmp_path, "-X", "dev", "-W", "default", "-P", "-c", code)


def test_a_child_takes_no_notice_of_ctrl_c_not_even_in_its_first_moments(child, works, capfd):
    os.kill(child.pid, signal.SIGINT)  # before it can have started
    assert call(child, works.interrupt_me)
    os.kill(child.pid, signal.SIGINT)
    assert call(child, abs, -1) == 1
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert capfd.readouterr().err == ""


def test_a_child_can_have_children(shared, works):
    assert call(shared, works.one_more)


def test_a_child_loads_the_package_only_if_a_work_needs_it(works):
    loaded = pack(eval, ("'hive_task' in __import__('sys').modules",), {})
    with Child("lean") as child:
        assert child.run(loaded) is False
        assert call(child, works.package) == (True, True)
        assert child.run(loaded) is True


def test_nothing_but_the_child_is_started(shared):
    call(shared, abs, -1)
    mine = [one for one in psutil.Process().children() if one.pid != shared.pid]
    assert not [one for one in mine if "resource_tracker" in " ".join(one.cmdline())]
    assert psutil.Process(shared.pid).children() == []
    assert not multiprocessing.active_children()


# ---------------------------------------------------------------------------------------------- the main module

SCRIPT = """
    import sys
    from dataclasses import dataclass
    from hive_task.processes import Child, pack

    calls = 0

    @dataclass
    class Point:
        x: int

    def doubled(point):
        global calls
        calls += 1
        return Point(2 * point.x), __name__, sys.modules["__main__"].calls

    if __name__ == "__main__":
        with Child("one") as child:
            point, name, calls = child.run(pack(doubled, (Point(4),), {}))
        assert isinstance(point, Point)
        print(point.x, name, calls)
"""


def test_functions_and_classes_of_a_script_work(tmp_path):
    assert program(tmp_path, source=SCRIPT).stdout == "8 __mp_main__ 1\n"


def test_functions_of_a_module_run_with_m_work(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "run.py").write_text(textwrap.dedent(SCRIPT))
    assert program(tmp_path, "-m", "package.run", cwd=tmp_path).stdout == "8 __mp_main__ 1\n"


def test_what_is_defined_where_no_child_can_import_it_is_refused_at_submission(tmp_path):
    code = """
        from hive_task.errors import UnpicklableWork
        from hive_task.processes import Child, pack
        def f(): pass
        class C: pass
        for what in f, C, C():
            try:
                pack(print, ([what],), {})
            except UnpicklableWork as error:
                assert "args[0]" in str(error) and "define it in a module" in str(error), error
            else:
                assert False, what
        with Child("-c") as child:
            print(child.run(pack(abs, (-5,), {})))
    """
    assert program(tmp_path, "-c", code).stdout == "5\n"
    (tmp_path / "__main__.py").write_text(textwrap.dedent(code))
    assert program(tmp_path, str(tmp_path)).stdout == "5\n"


UNGUARDED = """
    import math
    from hive_task.processes import Child, pack
    payload = pack(math.sqrt, (4.0,), {})
    with Child("one") as child:
        print(child.run(payload))
"""


def test_a_script_without_a_guard_gets_a_clear_error_and_not_a_crowd_of_processes(tmp_path):
    done = program(tmp_path, source=UNGUARDED, check=False)
    assert done.returncode == 1
    assert done.stderr.rstrip().splitlines()[-1].startswith("hive_task._process.ChildNotStarted: the child process")
    assert 'under `if __name__ == "__main__":`' in done.stderr
    assert "script.py" in done.stderr
    assert done.stdout == ""


def test_a_child_made_while_the_main_module_is_imported_is_refused_too(monkeypatch):
    monkeypatch.setattr("hive_task._child.importing_main", True)
    for refused in (functools.partial(Child, "no"), functools.partial(pack, math.sqrt, (4.0,), {})):
        with pytest.raises(RuntimeError, match="__main__"):
            refused()


@pytest.mark.parametrize(
    "end", ["raise SystemExit('no ' * 100_000)", "threading.Thread(target=threading.Event().wait).start(); 1 / 0"]
)
def test_a_main_module_that_cannot_be_imported_is_told_and_nothing_hangs(tmp_path, end):
    size = 1_000_000 if "Exit" in end else 1  # more than a pipe takes, as is the reason: neither side may wait
    source = f"""
        import threading
        from hive_task.processes import Child, ChildNotStarted, pack
        if __name__ != "__main__":
            {end}
        with Child("one") as child:
            try:
                child.run(pack(len, (bytes({size}),), {{}}))
            except ChildNotStarted as error:
                print(str(error).partition(":")[0], str(error)[-16:], child.alive)
    """
    reason = "no no no no no no"[-16:] if "Exit" in end else "division by zero"
    shown = program(tmp_path, source=source).stdout
    assert shown == f"the child process could not import the main module {reason} False\n"
