"""Storms over a scheduler (see `chaos`): short ones here, and long ones with `make soak-tasks`.

A storm that fails names its seed. What it does depends on that, but on the threads' turns as well.
"""

import time

import pytest

from tests.hive_task.chaos import Storm


@pytest.mark.parametrize(
    ("seed", "workers", "processes", "strikes"),
    [(1, 1, False, False), (2, 3, False, False), (3, 3, True, True)],
    ids=["one worker", "several", "losses"],
)
def test_everything_adds_up_at_every_moment_and_in_the_end(
    seed: int, workers: int, processes: bool, strikes: bool
) -> None:
    failed = cancelled = 0
    for more in range(0, 50, 10):  # (on a machine that is busy with other things, little may come to pass in one)
        storm = Storm(seed + more, workers=workers, processes=processes, strikes=strikes)
        storm.rage(0.8)
        assert storm.pictures > 3
        assert storm.done.balanced
        failed += storm.done.failed
        cancelled += storm.done.cancelled
        if failed and cancelled:
            break
    assert failed
    assert cancelled


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_everything_adds_up_for_a_minute_and_leaves_nothing_behind() -> None:
    limit = time.monotonic() + 60
    seed = 100
    while time.monotonic() < limit:
        seed += 1
        storm = Storm(
            seed,
            workers=1 + seed % 4,
            processes=seed % 3 > 0,
            strikes=seed % 2 > 0,
            rate=(500, 1500, 3000)[seed // 2 % 3],
        )
        storm.rage(6)
        assert storm.done.finished > 0
