"""`.map`: results in order, errors by row, progress, Ctrl-C, and what may befall its threads."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

import stm
from stm import compiled
from stm.compiled import TArray
from stm.compiled import mapping as machinery
from stm.compiled.log import GROUP, QUICK
from tests.stm.compiled.shared import add_late, move, put, transfer
from tests.support import Background, until


@compiled.transaction
def work_hard(array, i, rounds):
    x = array[0] * 0 + 1
    for _ in range(rounds):  # (xorshift: nothing that the compiler could work out beforehand)
        x ^= x << 13
        x ^= x >> 7
        x ^= x << 17
    array[i] += 1
    array[i + 1] += 1
    return x


@compiled.transaction
def numbered(array, k):
    array[0] += 1
    return k * 2.5


@pytest.mark.parametrize("threads", [None, 1, 2, 5])
@pytest.mark.parametrize("count", [1, 2, 7, 1000, 30_000])
def test_results_come_in_the_order_of_rows_and_each_row_ran_once(threads, count):
    array = TArray([0])
    results = numbered.map(array, range(count), threads=threads)
    assert results.dtype == np.float64
    assert (results == np.arange(count) * 2.5).all()
    assert array[0] == count


def test_columns_are_arrays_lists_ranges_and_the_rest_is_the_same_for_all_rows():
    accounts = TArray([10, 0, 0])
    assert move.map(accounts, [0, 0], np.array([1, 2], np.int32), 2) is None
    assert list(accounts) == [6, 2, 2]
    assert move.map(accounts, (1, 2), 0, np.int64(1)) is None
    assert list(accounts) == [8, 1, 1]


def test_rows_may_be_arrays_and_results_tuples():
    @compiled.transaction
    def dot(array, row, i):
        s = 0.0
        for x in row:
            s += x * array[0]
        return s, float(i)

    rows = np.arange(12.0).reshape(4, 3)
    results = dot.map(TArray([2.0]), rows, range(4), threads=1)
    assert results.tolist() == [[row.sum() * 2, float(i)] for i, row in enumerate(rows)]


def test_constants_and_scratch():
    @compiled.transaction
    def lookup(array, table, scratch, i):
        scratch[0] = table[i]
        array[i] += scratch[0]
        return scratch[0]

    array = TArray(np.zeros(3, int))
    table = compiled.Constant(np.array([5, 6, 7]))
    results = lookup.map(array, table, compiled.Scratch(4), [2, 1, 0, 2], threads=2)
    assert results.tolist() == [7, 6, 5, 7]
    assert list(array) == [5, 6, 14]


def test_no_rows_no_work():
    assert numbered.map(TArray([0]), []).tolist() == []
    assert move.map(TArray([0]), np.zeros(0, int), 0, 0) is None
    assert numbered.map(TArray([0]), [], on_error="return") == []


def test_wrong_arguments_are_clear_errors_before_any_row_runs():
    array = TArray([5, 5])
    for error, words, use in [
        (ValueError, "differ in length: a has 2, b has 3", lambda: move.map(array, [0, 1], [1, 1, 1], 1)),
        (ValueError, "no column", lambda: move.map(array, 0, 1, 1)),
        (TypeError, "missing a required argument", lambda: move.map(array, [0, 1])),
        (TypeError, "takes columns", lambda: move.map(array, ["a"], [{}], 1)),
        (TypeError, "takes columns", lambda: move.map(array, [0], "abc", 1)),
        (TypeError, "can't be compiled", lambda: move.map(array, [0.5], [1], 1)),
        (ValueError, "on_error", lambda: move.map(array, [0], [1], 1, on_error="ignore")),
        (ValueError, "at least one thread", lambda: move.map(array, [0], [1], 1, threads=0)),
        (TypeError, "threads", lambda: move.map(array, [0], [1], 1, threads="2")),
        (RuntimeError, "inside one", lambda: stm.run(lambda: move.map(array, [0], [1], 1))),
    ]:
        with pytest.raises(error, match=words):
            use()
    assert list(array) == [5, 5]


def test_a_result_that_can_not_be_kept_is_refused():
    @compiled.transaction
    def strange(array, i):
        array[0] += 1
        return np.zeros(2)

    array = TArray([0])
    with pytest.raises(TypeError, match="map\\(\\) can keep numbers"):
        strange.map(array, [1])
    assert array[0] == 0


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("count", [10, 5000])
def test_a_row_that_raises_aborts_only_itself(threads, count):
    accounts = TArray([count // 2, 0, 0])
    amounts = np.ones(count, int)
    amounts[[3, 7]] = 10**9
    with pytest.raises(ValueError, match="overdrawn") as caught:
        transfer.map(accounts, np.zeros(count, int), np.ones(count, int), amounts, threads=threads)
    failed = count - count // 2
    assert caught.value.row == 3 if threads == 1 else caught.value.row <= 3
    assert f"in row {caught.value.row} of" in caught.value.__notes__[0]
    assert f"{failed - 1} more of its {count} rows raised" in caught.value.__notes__[1]
    assert list(accounts) == [0, count // 2, 0]


def test_errors_can_be_results():
    accounts = TArray([3, 0])
    results = transfer.map(accounts, [0, 0, 5, 0, 0], [1] * 5, [1, 9, 1, 1, 1], threads=1, on_error="return")
    assert [r if isinstance(r, int) else type(r) for r in results] == [2, ValueError, IndexError, 1, 0]
    assert results[1].row == 1
    assert results[2].row == 2


def test_progress_is_told_to_the_calling_thread():
    told, array = [], TArray(np.zeros(2, int))

    def progress(done, total):
        assert threading.current_thread() is threading.main_thread()
        told.append((done, total))

    work_hard.map(array, np.zeros(40, int), 20_000_000, threads=2, progress=progress)
    assert told[-1] == (40, 40)
    assert all(total == 40 for _, total in told)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert len(told) > 1


def test_an_exception_in_progress_stops_the_work():
    def progress(done, total):
        raise LookupError

    array = TArray(np.zeros(2, int))
    with pytest.raises(LookupError):
        work_hard.map(array, np.zeros(400, int), 20_000_000, threads=2, progress=progress)
    assert array[0] == array[1] < 400


INTERRUPTED = """
import signal, threading, time, numpy as np, os, sys
from stm import compiled
from stm.compiled import TArray
from tests.stm.compiled.test_map import work_hard, numbered
from tests.stm.compiled.shared import take, both

array = TArray(np.zeros(2, int))
ones = np.ones(200_000_000, np.int8)
kind, threads = sys.argv[1], int(sys.argv[2])
begin = {
    "long rows": lambda: work_hard.map(array, np.zeros(50, int), 10**9 * 50, threads=threads),
    "many rows": lambda: both.map(array, ones, threads=threads),
    "waiting rows": lambda: take.map(array, [0, 1], threads=threads),
}[kind]
warm = {
    "long rows": lambda: work_hard.map(array, [0], 1, threads=threads),
    "many rows": lambda: both.map(array, np.ones(10, np.int8), threads=threads),
    "waiting rows": lambda: take.map(TArray([1, 1]), [0, 1], threads=threads),
}[kind]
warm()
sent = []
def send():
    time.sleep(0.3)
    sent.append(time.perf_counter())
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=send).start()
try:
    begin()
except KeyboardInterrupt:
    late = time.perf_counter() - sent[0]
    a = array.to_numpy().tolist()
    time.sleep(0.05)
    assert array.to_numpy().tolist() == a, "somebody works on"
    assert a[0] == a[1], a
    print("late", round(late, 3))
"""


def in_a_process(source, *args, timeout=60):
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(source), *map(str, args)],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(__file__)))),
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return done.stdout


@pytest.mark.parametrize("kind", ["long rows", "many rows", "waiting rows"])
@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c_is_honoured_at_once_and_leaves_whole_rows(kind, threads):
    late = in_a_process(INTERRUPTED, kind, threads)
    assert late.startswith("late")
    assert float(late.split()[1]) < 5  # (0.06 on a quiet machine; a row of `long rows` takes a minute)


def test_a_thread_that_dies_in_mid_map_is_reported_and_nothing_is_torn(monkeypatch):
    array, original, calls = TArray([0, 0]), machinery.Work._chunk, []

    class Death(BaseException):
        pass

    def chunk(self, *args):
        calls.append(1)
        if len(calls) == 3:
            raise Death
        return original(self, *args)

    monkeypatch.setattr(machinery.Work, "_chunk", chunk)
    from tests.stm.compiled.shared import both

    with pytest.raises(Death):
        both.map(array, np.ones(10_000, int), threads=2)
    assert array[0] == array[1] <= 10_000
    monkeypatch.undo()
    both.map(array, np.ones(10, int), threads=2)


def test_the_interpreter_exits_while_a_map_runs():
    for daemon in (True, False):
        in_a_process(
            """
            import sys, threading, time, numpy as np
            from stm.compiled import TArray
            from tests.stm.compiled.shared import both
            array = TArray([0, 0])
            both.map(array, [1], threads=2)
            def forever():
                while running:
                    both.map(array, np.ones(3_000_000, np.int8), threads=2)
            running = [1]
            threading.Thread(target=forever, daemon=sys.argv[1] == "True").start()
            time.sleep(0.2)
            running.clear()
            if sys.argv[1] == "True":
                running.append(1)
            """,
            daemon,
        )


def test_fork_while_a_map_runs():
    out = in_a_process(
        """
        import os, sys, threading, time, warnings, numpy as np
        warnings.simplefilter("ignore")  # CPython's own about forking with threads
        import stm
        from stm.compiled import TArray
        from tests.stm.compiled.shared import both, put, take
        array = TArray([0, 0])
        both.map(array, [1], threads=2)
        both.map(array, np.ones(2, np.int8), threads=2)  # compiled now: a child of who compiles can't compile
        both(array, 1), put(array, 0, 0), take(TArray([1]), 0)
        running = True
        def forever():
            while running:
                both.map(array, np.ones(300_000, np.int8), threads=2)
        worker = threading.Thread(target=forever)
        worker.start()
        for k in range(20):
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    a = stm.run(lambda: (array[0], array[1]))
                    assert a[0] == a[1], a
                    both(array, 1)
                    with_both = stm.snapshot(array)[0]
                    assert with_both[0] == a[0] + 1, (a, with_both)
                    both.map(array, np.ones(100, int), threads=1)
                    other = threading.Thread(target=lambda: (time.sleep(0.01), put(array, 0, 10**9)))
                    other.start()
                    stm.run(lambda: stm.check(array[0] > 5 * 10**8))
                    other.join()
                    code = 0
                finally:
                    os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        running = False
        worker.join()
        assert array[0] == array[1]
        print("ok")
        """
    )
    assert out == "ok\n"


def test_arrays_are_freed_while_others_commit():
    stop = []

    def churn():
        while not stop:
            array = TArray(np.zeros(500, int))
            put.map(array, np.arange(500), 1, threads=1)
            assert array.to_numpy().sum() == 500
            del array

    workers = [Background(churn) for _ in range(2)]
    accounts = TArray(np.full(100, 5))
    a = np.arange(50_000) % 100
    until_then = time.monotonic() + 1
    while time.monotonic() < until_then:
        move.map(accounts, a, a[::-1], 1, threads=1)
    stop.append(1)
    for one in workers:
        one.result()
    assert sum(accounts) == 500


def test_a_long_row_holds_up_nobody_else():
    array, quick = TArray(np.zeros(2, int)), TArray([0])
    slow = Background(lambda: work_hard.map(array, np.zeros(2, int), 400_000_000, threads=1))
    until(lambda: machinery._running, "the map's begin")
    begun = time.perf_counter()
    for _ in range(100):
        put(quick, 0, 1)
    assert time.perf_counter() - begun < 5
    slow.result()
    assert quick[0] == 100
    assert list(array) == [2, 2]


def test_maps_from_several_threads_at_once():
    accounts = TArray(np.full(50, 100))
    rng = np.random.default_rng(5)
    a, b = rng.integers(0, 50, (2, 40_000))
    running = [Background(move.map, accounts, a, b, 1) for _ in range(4)]
    for one in running:
        one.result()
    assert sum(accounts) == 5000


def test_quick_rows_run_in_place_and_slow_ones_do_not():
    """The short cut is taken where it pays; else it would be tested nowhere."""
    seen = []
    original = machinery.Work.done

    def look(work):
        seen.append([log.words[QUICK // 8] for log in work.logs])
        return original(work)

    machinery.Work.done = look
    try:
        array = TArray(np.zeros(2, int))
        move.map(array, np.zeros(40_000_000, np.int8), 1, 1, threads=1, progress=lambda done, total: None)
        assert [1] in seen
        seen.clear()
        work_hard.map(array, np.zeros(30, int), 20_000_000, threads=1, progress=lambda done, total: None)
        assert seen
        assert [1] not in seen
    finally:
        machinery.Work.done = original


def test_signals_are_delivered_while_the_main_thread_waits():
    caught = []
    before = signal.signal(signal.SIGUSR1, lambda *_: caught.append(1))
    try:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        work_hard.map(TArray(np.zeros(2, int)), np.zeros(4, int), 200_000_000, threads=1)
        assert caught
    finally:
        signal.signal(signal.SIGUSR1, before)


def in_place(work):
    """Make all workers run their rows in place from the first on."""
    for log in work.logs:
        log.words[QUICK // 8] = 1
        log.words[GROUP // 8] = 16


@pytest.fixture
def rows_in_place(monkeypatch):
    original = machinery.Work.__init__

    def begin(self, *args):
        original(self, *args)
        in_place(self)

    monkeypatch.setattr(machinery.Work, "__init__", begin)


@pytest.mark.parametrize("threads", [1, 2])
def test_in_place_rows_that_raise_or_retry_or_nest_are_taken_back_alone(rows_in_place, threads):
    @compiled.transaction
    def inner(array, fails):
        array[0] += 100
        if fails:
            raise ValueError("inner")

    @compiled.transaction
    def outer(array, what):
        array[0] += 1
        if what == 1:
            raise KeyError("outer")
        if what == 2:
            try:
                inner(array, True)
            except Exception:
                array[1] += 1
        if what == 3:
            stm.check(array[2] > 0)
            array[2] -= 1
        if what == 4:
            array[2] += 1
        return what

    array = TArray([0, 0, 0])
    what = [0, 1, 2, 3, 4, 0, 2, 1, 4, 3] * 30
    results = outer.map(array, what, threads=threads, on_error="return")
    assert [r if isinstance(r, int) else 1 for r in results] == what
    assert all(isinstance(r, KeyError) for r, w in zip(results, what, strict=True) if w == 1)
    assert list(array) == [240, 60, 0]


def test_in_place_a_row_that_reads_without_end_gives_up_the_clock(rows_in_place):
    """It waits for what another thread does, which can do nothing while it holds the clock."""
    array = TArray([0, 0])

    @compiled.transaction
    def spins(array, i):
        while array.peek(0) == 0 or array[0] == 0:
            pass
        array[1] += 1

    spins.map(TArray([1, 0]), [0], threads=1)
    mapping = Background(lambda: spins.map(array, [0, 1], threads=1))
    until(lambda: machinery._running, "the map's begin")
    put(array, 0, 1)
    mapping.result()
    assert list(array) == [1, 2]


@pytest.mark.parametrize("reads", [True, False])
def test_a_stopped_worker_commits_nothing_more(reads, monkeypatch):
    """`stop` comes while a row runs: what the row writes then is not seen, whether it has read anything or not."""
    array, works, words = TArray([0]), [], np.zeros(2, np.int64)
    original = machinery.Work.__init__

    def begin(self, *args):
        original(self, *args)
        works.append(self)

    monkeypatch.setattr(machinery.Work, "__init__", begin)
    mapping = Background(lambda: add_late.map(array, words.ctypes.data, reads, np.array([5]), threads=1))
    until(lambda: words[0], "the row's begin")
    works[0].stop()
    words[1] = 1
    mapping.result()
    assert list(array) == [0]


def test_a_row_may_need_the_gil(capfd):
    """It prints while other threads hold the GIL and want the clock: so it must not hold the clock itself."""
    array, over = TArray([0, 0]), []

    @compiled.transaction
    def prints(array, i):
        array[0] += 1
        print(i)

    def disturb():
        while not over:
            put(array, 1, 1)
            array[1] = 0

    disturber = Background(disturb)
    prints.map(array, range(300), threads=1)
    over.append(1)
    disturber.result()
    assert array[0] == 300
    assert len(capfd.readouterr().out.split()) >= 300
    assert prints.map_kernel_for([array, np.arange(3)])[2]
    assert not put.map_kernel_for([array, np.arange(3), 1])[2]
