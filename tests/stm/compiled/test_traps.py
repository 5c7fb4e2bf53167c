"""Traps that the compiled tier has fallen into once, or nearly."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba import njit

import stm
from stm import ReadOnlyViolation, compiled
from stm.compiled import TArray
from stm.compiled import mapping as machinery
from tests.stm.compiled.shared import both, put
from tests.support import Background, elsewhere, until


def test_parameters_may_have_any_name():
    @compiled.transaction
    def odd(tx, kernel, log, body, here, find):
        tx[0] = kernel + log + body + here + find
        return tx[0]

    @njit
    def calls(array):
        return odd(array, 1, 2, 3, 4, 5)

    array = TArray([0])
    assert odd(array, 1, 2, 3, 4, 5) == 15
    assert calls(array) == 15
    assert odd.map(array, [1], 2, 3, 4, 5, threads=1).tolist() == [15]
    with pytest.raises(TypeError, match="stm_"):
        compiled.transaction(lambda stm_log: 0)


def test_a_read_only_transaction_refuses_what_the_users_own_code_writes():
    @njit
    def writes(array):
        array[0] = 7

    array = TArray([1])
    with pytest.raises(ReadOnlyViolation):
        stm.run(writes, array, read_only=True)
    nested = stm.atomically(read_only=True)(writes)
    with pytest.raises(ReadOnlyViolation):
        stm.run(nested, array)
    assert array[0] == 1


def test_a_log_that_a_stopped_map_used_serves_again():
    array = TArray([0, 0])

    def stop(done, total):
        raise LookupError

    for _ in range(3):
        with pytest.raises(LookupError):
            both.map(array, np.ones(50_000_000, np.int8), threads=2, progress=stop)
        assert elsewhere(lambda: [both(array, 1) for _ in range(10)]) == [None] * 10
    a, b = array.to_numpy()
    assert a == b


def test_a_stop_amid_a_group_in_place_leaves_versions_that_conflict():
    """Who stops a worker writes to its log: that must not be what the worker publishes as a version."""
    array, works = TArray([0, 0]), []
    original = machinery.Work.__init__

    def begin(self, *args):
        original(self, *args)
        works.append(self)

    machinery.Work.__init__ = begin
    try:
        for _ in range(5):
            works.clear()
            mapping = Background(lambda: both.map(array, np.ones(30_000_000, np.int8), threads=1))
            until(lambda: works and works[0].done() > 100_000, "the map's progress")
            works[0].stop()
            mapping.result()
            assert (array._memory[:, 1] >= 0).all()
    finally:
        machinery.Work.__init__ = original


def test_a_conflict_that_the_body_swallows_is_not_committed():
    @compiled.transaction
    def inner(array):
        return array[0]

    @compiled.transaction
    def swallows(array):
        seen = 0
        try:
            seen = inner(array)
        except Exception:
            array[2] += 1
        array[1] += seen

    array, attempts = TArray([1, 0, 0]), []

    def body():
        attempts.append(1)
        first = array[1]
        if len(attempts) == 1:
            elsewhere(both, array, 10)
        swallows(array)
        return first

    stm.run(body)
    assert list(array) == [11, 21, 0]


def test_containers_of_arrays_are_refused():
    @compiled.transaction
    def pair(arrays):
        arrays[0][0] += 1

    with pytest.raises(TypeError, match="each by itself"):
        pair((TArray([0]), TArray([0])))


def test_a_large_unsigned_number_does_not_decide_for_later_ones():
    @compiled.transaction
    def compare(array, x):
        return array[0] + (1 if x > 0 else 0)

    array = TArray([0])
    assert compare(array, 2**63) == 1
    assert compare(array, -1) == 0
    assert compare(array, 5) == 1


def test_peek_sees_the_rows_before_in_a_group():
    board = TArray(np.zeros(512, int))

    @compiled.transaction
    def claim(board, number, cell):
        for _ in range(1000):
            if board.peek(cell) != 0:
                return 0
            if board[cell] == 0:
                board[cell] = number
                return 1
        return -1

    for threads in (1, 2):
        board[:] = 0
        out = claim.map(board, np.arange(1, 4097), np.arange(4096) // 8, threads=threads)
        assert out.min() == 0
        assert out.sum() == 512


def test_a_waker_that_could_not_start_is_started_by_the_next_sleeper(monkeypatch):
    from stm.compiled import sleeping

    stock = TArray([0])
    until(lambda: not sleeping.waker.running, "the last waker's end")

    def refuse(*args):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(sleeping._thread, "start_new_thread", refuse)
    from tests.stm.compiled.shared import take

    with pytest.raises(RuntimeError, match="can't start"):
        take(stock, 0)
    monkeypatch.undo()
    sleeper = Background(take, stock, 0)
    until(lambda: sleeping.waker.running, "the waker")
    put(stock, 0, 1)
    assert sleeper.result() == 0


def test_a_child_writes_nothing_into_files_that_took_the_pipes_number(tmp_path):
    source = """
import os, sys, threading, time, warnings
warnings.simplefilter("ignore")
import stm
from stm.clock import clock
from stm.compiled import TArray
from tests.stm.compiled.shared import put, take
stock = TArray([0])
put(stock, 0, 0)
sleeper = threading.Thread(target=take, args=(stock, 0))
sleeper.start()
while not clock.sleepers:
    time.sleep(0.001)
child = os.fork()
if child == 0:
    files = [open(os.path.join(sys.argv[1], str(k)), "wb") for k in range(8)]
    put(stock, 0, 1)
    os._exit(sum(os.fstat(file.fileno()).st_size for file in files))
status = os.waitpid(child, 0)[1]
put(stock, 0, 1)
sleeper.join()
sys.exit(os.waitstatus_to_exitcode(status))
"""
    root = str(Path(stm.__file__).parent.parent)
    command = [sys.executable, "-c", source, str(tmp_path)]
    done = subprocess.run(command, timeout=60, env=os.environ | {"PYTHONPATH": root}, check=False)
    assert done.returncode == 0
