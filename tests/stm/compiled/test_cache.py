"""Machine code on disk: found again by the next process, and never used when something it depends on has changed."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import stm

ROOT = Path(stm.__file__).parent.parent

PROGRAM = """
import time
from numba import njit
from stm import compiled
STEP = {step}
@njit
def helper(x):
    return x * {factor}
@compiled.transaction
def add(array, i):
    array[i] += helper(STEP)
    return array[i]
array = compiled.TArray([0])
begun = time.perf_counter()
result = add(array, 0)
mapped = add.map(array, [0, 0], threads=1).tolist()
print(result, mapped, time.perf_counter() - begun)
"""


def run_program(path, **values):
    path.write_text(PROGRAM.format(**values))
    env = os.environ | {"PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(path.parent / "cache")}
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=110, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    result, mapped, seconds = done.stdout.split(maxsplit=1)[0], *done.stdout.split(maxsplit=1)[1].rsplit(maxsplit=1)
    return int(result), mapped, float(seconds)


def test_a_second_process_finds_the_code_and_a_change_anywhere_makes_it_anew(tmp_path):
    program = tmp_path / "program.py"
    first = run_program(program, step=1, factor=10)
    again = run_program(program, step=1, factor=10)
    assert first[:2] == again[:2] == (10, "[20, 30]")
    assert again[2] < first[2] / 3
    assert run_program(program, step=2, factor=10)[:2] == (20, "[40, 60]")  # a global constant
    assert run_program(program, step=2, factor=7)[:2] == (14, "[28, 42]")  # a function that is called
    for path in (tmp_path / "cache").rglob("*.nb[ci]"):  # files that were cut short are no error
        path.write_bytes(path.read_bytes()[:100])
    assert run_program(program, step=2, factor=7)[:2] == (14, "[28, 42]")


def test_what_has_no_fingerprint_or_no_file_is_compiled_all_the_same(tmp_path):
    from stm.compiled import cache

    class Odd:
        pass

    odd = Odd()

    def uses(array):
        return odd

    with pytest.raises(cache.Unknown):
        cache.fingerprint(uses)
    assert cache.kernel_cache(uses, "x") is None

    scope: dict = {}
    exec("def one(array):\n    return array[0]", scope)
    from stm import compiled

    assert compiled.transaction(scope["one"])(compiled.TArray([3])) == 3


def test_what_transactions_are_written_with_has_a_fingerprint():
    from stm import BlockedForever, check, compiled, or_else, retry
    from stm.compiled import cache

    def take(array, i):
        check(array[i] > 0)
        array[i] -= 1
        if array[i] > 100:
            retry()

    transaction = compiled.transaction(take)

    def both(array):
        transaction(array, 0)
        transaction(array, 1)

    def name_them():
        return BlockedForever, or_else

    assert len({cache.fingerprint(each) for each in (take, both, name_them)}) == 3
    assert cache.kernel_cache(take, "x") is not None


def test_plain_import_brings_in_neither_numpy_nor_numba_and_the_tier_no_numba():
    source = """
import sys, stm
assert not {"numpy", "numba"} & set(sys.modules)
from stm import compiled
@compiled.transaction
def f(a):
    return a[0]
assert "numba" not in sys.modules
"""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", source], check=True, timeout=60, env=env)


def test_a_cache_that_can_not_be_written_is_no_error(tmp_path):
    locked = tmp_path / "cache"
    locked.write_text("a file where a directory should be")
    path = tmp_path / "program.py"
    path.write_text(PROGRAM.format(step=1, factor=1))
    env = os.environ | {"PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(locked)}
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=110, env=env)
    assert (done.returncode, done.stderr) == (0, ""), time.perf_counter() - begun
