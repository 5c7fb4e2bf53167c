"""`examples/bounded_pipeline.py`: each item exactly once, however it ends, and never more than there is room for."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from examples import bounded_pipeline as program
from examples.bounded_pipeline import Pipeline, Stage, StageFailed
from tests.support import asleep, elsewhere

ROOT = Path(__file__).resolve().parent.parent


def double(item: int) -> int:
    return 2 * item


def same(item: Any) -> Any:
    return item


@pytest.mark.parametrize("maxsize", [1, 3, 100])
@pytest.mark.parametrize("threads", [1, 3])
def test_every_item_goes_through_exactly_once(maxsize: int, threads: int) -> None:
    stages = (Stage("double", double, threads), Stage("same", same, 2), Stage("again", double, threads))
    lost = []
    results = []
    with Pipeline(range(300), *stages, maxsize=maxsize) as pipeline:
        for result in pipeline:
            results.append(result)
            lost.append(pipeline.picture().lost)
    assert sorted(results) == [4 * item for item in range(300)]
    assert set(lost) == {0}
    assert pipeline.left == ()
    picture = pipeline.picture()
    assert (picture.taken, picture.delivered, picture.failed, picture.left) == (300, 300, 0, 0)


def test_one_thread_a_stage_keeps_the_order() -> None:
    with Pipeline(range(50), Stage("double", double), Stage("same", same)) as pipeline:
        assert list(pipeline) == [2 * item for item in range(50)]


def test_an_empty_source() -> None:
    with Pipeline((), Stage("same", same, 3)) as pipeline:
        assert list(pipeline) == []


def test_a_slow_consumer_holds_up_the_source() -> None:
    with Pipeline(itertools.count(), Stage("same", same, 2), Stage("double", double), maxsize=3) as pipeline:
        asleep(4)  # all threads: the source's, two, and one
        picture = pipeline.picture()
        assert picture == program.Picture(13, (3, 3, 3), (1, 2, 1), 0, 0, 0)
        assert picture.lost == 0
    assert len(pipeline.left) == 13


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("bad", [0, 40, 99])
def test_when_a_stage_raises_all_else_is_delivered_or_left(threads: int, bad: int) -> None:
    def picky(item: int) -> int:
        if item == bad:
            raise KeyError(item)
        return item

    results = []
    with Pipeline(range(100), Stage("same", same, 2), Stage("picky", picky, threads), maxsize=2) as pipeline:
        with pytest.raises(StageFailed, match=rf"^picky failed on {bad}: KeyError\({bad}\)$") as caught:
            results.extend(pipeline)
        left = [item for _, item in pipeline.left]
        picture = pipeline.picture()
    assert isinstance(caught.value.__cause__, KeyError)
    assert len(left) <= 1  # the source's hand
    assert sorted([*results, bad, *left]) == list(range(picture.taken))
    assert picture.failed == 1
    assert picture.lost == 0


def test_a_failure_closes_the_intake() -> None:
    def picky(item: int) -> int:
        assert item < 10_000, "the source goes on"
        if item == 20:
            raise KeyError(item)
        return item

    with Pipeline(itertools.count(), Stage("picky", picky), maxsize=2) as pipeline:
        with pytest.raises(StageFailed):
            list(pipeline)
        assert len(pipeline.failures.value) == 1


def test_several_failures_are_all_known() -> None:
    barrier = threading.Barrier(2)

    def fail(item: int) -> None:
        barrier.wait(60)
        raise ValueError(item)

    pipeline = Pipeline(range(2), Stage("fail", fail, 2))
    with pytest.raises(StageFailed, match=r"\(and 1 more\)$"), pipeline:
        list(pipeline)
    assert sorted(failure.item for failure in pipeline.failures.value) == [0, 1]


def test_when_the_source_raises_what_came_before_is_delivered() -> None:
    def source() -> Iterator[int]:
        yield from range(20)
        raise OSError("torn off")

    results: list[int] = []
    told = r"^the source failed on None: OSError\('torn off'\)$"
    with Pipeline(source(), Stage("double", double, 2)) as pipeline, pytest.raises(StageFailed, match=told):
        results.extend(pipeline)
    assert sorted(results) == [2 * item for item in range(20)]


def test_leaving_early_tells_what_is_left_and_where() -> None:
    entered, go_on = threading.Event(), threading.Event()

    def slow(item: int) -> int:
        entered.set()
        go_on.wait(60)
        return item

    results = []
    with Pipeline(itertools.count(), Stage("same", same), Stage("slow", slow), maxsize=2) as pipeline:
        entered.wait(60)
        asleep(2)
        pipeline.stop()
        go_on.set()
    results += list(pipeline)
    assert results == []
    places = [place for place, _ in pipeline.left]
    assert sorted(item for _, item in pipeline.left) == list(range(pipeline.taken.value))
    assert places.count("before slow") == 3  # two in the queue, and one whose result could not be passed on
    assert places.count("before same") == 4  # the same, and one in the source's hand
    assert pipeline.picture().lost == 0


def test_all_queues_are_cut_at_one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    meanwhile = []
    with Pipeline(itertools.count(), Stage("same", same), Stage("double", double), maxsize=2) as pipeline:
        asleep(3)
        honest = pipeline._places()

        def places() -> Iterator[str]:
            for place in honest:
                meanwhile.append(elsewhere(pipeline.picture))
                yield place

        monkeypatch.setattr(pipeline, "_places", places)
        before = pipeline.picture()
        pipeline.stop()
        monkeypatch.undo()
    assert meanwhile == [before] * 3
    assert len(pipeline.left) == before.taken


def test_an_exception_in_the_with_block_ends_the_threads_and_propagates() -> None:
    with pytest.raises(ZeroDivisionError), Pipeline(itertools.count(), Stage("same", same, 2)) as pipeline:
        for result in pipeline:
            assert 1 / (10 - result)
    delivered = pipeline.delivered.value
    assert delivered + len(pipeline.left) == pipeline.taken.value


def test_a_thread_that_can_not_be_started_leaves_none_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = threading.Thread.start
    started = []

    def start(thread: threading.Thread) -> None:
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        honest(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError), Pipeline(itertools.count(), Stage("same", same, 3)):
        pass
    assert not any(thread.is_alive() for thread in started)


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one stage"):
        Pipeline([])
    with pytest.raises(ValueError, match="maxsize must be 1 or more, not 0"):
        Pipeline([], Stage("same", same), maxsize=0)
    with pytest.raises(ValueError, match="same needs at least one thread, not 0"):
        Pipeline([], Stage("same", same, 0))
    with pytest.raises(TypeError):
        Pipeline(3, Stage("same", same))  # type: ignore[arg-type]


SMALL = ("--blocks", "60", "--size", "200", "--threads", "2")


def test_a_failure_is_told_with_where_everything_was(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main([*SMALL, "--fail-at", "30"]) == 1
    out = capsys.readouterr().out
    assert ": compress failed on block 30: OSError('no space left, as was asked for')\n" in out
    assert " 1 failed, " in out
    assert out.endswith("every block was in exactly one place.\n")


def test_a_block_that_is_lost_twice_or_damaged_is_noticed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Pipeline._deliver

    def lossy(pipeline: Pipeline) -> Any:
        result = honest(pipeline)
        return honest(pipeline) if result[0] == 17 else result

    monkeypatch.setattr(Pipeline, "_deliver", lossy)
    assert program.main(SMALL) == 1
    assert "BROKEN: some blocks came more than once, or never\n" in capsys.readouterr().out
    monkeypatch.setattr(Pipeline, "_deliver", lambda pipeline: pipeline.queues[-1].get())
    assert program.main(SMALL) == 1
    assert "BROKEN: items don't add up: " in capsys.readouterr().out
    monkeypatch.setattr(Pipeline, "_deliver", honest)
    monkeypatch.setattr(program, "verify", lambda block: (block.number, block.number != 5, 1))
    assert program.main(SMALL) == 1
    assert "BROKEN: block 5 is damaged\n" in capsys.readouterr().out


def test_ctrl_c_ends_it_and_tells_what_was_where() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # or a child might inherit "ignore"
    try:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "examples.bounded_pipeline", "--blocks", "100000000"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("100,000,000 blocks, ")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
    assert " s: interrupted\n" in out
    assert out.endswith("every block was in exactly one place.\n")
