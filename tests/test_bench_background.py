"""The contenders of the workload `background` do what they are asked to, and what goes wrong in one doesn't pass for a
figure.

No test here looks at how long anything took. The runs of all points are in `test_bench` too.
"""

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import bars, harness
from bench.harness import InvariantError, Plan, Point, Samples
from bench.programs.background_growth import Marks
from bench.results import BarOutcome, Quantity, Result
from bench.twins import task_queues
from bench.twins.task_queues import CONTENDERS, HIVE, HUEY, Books, Hive
from bench.workloads import background, background_runs
from bench.workloads.background import Background
from bench.workloads.background_runs import RATE
from hive_task.background import Task

TINY = Plan(threads=(1, 2), repeats=1, scale=0.0001)

needs_huey = pytest.mark.skipif(bool(task_queues.missing(HUEY)), reason="huey is not installed")
VARIANTS = [pytest.param(variant, marks=needs_huey if variant == HUEY else ()) for variant in CONTENDERS]


@pytest.fixture(params=["in memory", "in a file"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    return None if request.param == "in memory" else str(tmp_path)


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_runs, "PATIENCE", 0.2)


def broken(monkeypatch: pytest.MonkeyPatch, variant: str = HIVE, **methods: Any) -> None:
    """Contenders made from now on have these methods instead of their own."""
    kind = type("Broken", (CONTENDERS[variant],), methods)
    monkeypatch.setitem(CONTENDERS, variant, kind)


def hold(samples: Samples) -> dict[str, BarOutcome]:
    workload = Background(TINY)
    summary = workload.summarise(samples)
    figures = (*samples.figures(), *summary.figures)
    result = Result(workload.name, "", figures, unmeasured=summary.unmeasured)
    return {one.name: one for one in bars.hold([result], gil=True)}


def samples_of(*measured: tuple[Point, Quantity, float]) -> Samples:
    samples = Samples()
    for point, quantity, value in measured:
        samples.add(point, {quantity: value})
    return samples


@pytest.mark.parametrize("variant", VARIANTS)
class TestContenders:
    @pytest.mark.parametrize("workers", [1, 3])
    def test_a_sound_one_has_nothing_to_answer_for(self, variant: str, workers: int, folder: str | None) -> None:
        with background_runs.at_work(variant, workers, folder) as (queue, books):
            background_runs.put_in(queue, books.expect(100))
            background_runs.await_results(books, queue)
            assert (queue.waiting(), queue.stored()) == (0, 100 + background_runs.WARMING)
        assert sorted(books.ran) == list(range(books.expected))

    def test_without_workers_tasks_wait(self, variant: str, folder: str | None) -> None:
        with background_runs.at_work(variant, 0, folder) as (queue, books):
            background_runs.put_in(queue, books.expect(7))
            assert (queue.waiting(), queue.stored(), books.ran) == (7, 0, [])

    def test_the_result_of_a_task_is_when_it_began(self, variant: str, folder: str | None) -> None:
        began: list[float] = []

        def note(number: int) -> float:
            began.append(1000.25 + number)
            return began[-1]

        queue = CONTENDERS[variant](note, 1, background_runs.file_in(folder))
        try:
            tickets = [queue.put(number) for number in range(3)]
            assert [background_runs.moment_of(queue, ticket) for ticket in tickets] == began
            assert queue.stored() == 3
        finally:
            queue.end()

    def test_a_commit_is_on_the_disk_when_it_returns(self, variant: str, tmp_path: Path) -> None:
        queue: Any = CONTENDERS[variant](Books().note, 0, tmp_path / "tasks.db")
        try:
            queue.put(1)
            connection = queue.source._file._writer if variant == HIVE else queue.huey.storage.conn
            settings = [connection.execute(f"PRAGMA {name}").fetchone() for name in ("synchronous", "journal_mode")]
            assert settings == [(2,), ("wal",)]  # 2 is FULL
        finally:
            queue.end()

    def test_ctrl_c_stays_as_it_was(self, variant: str) -> None:
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
        with background_runs.at_work(variant, 1, None):
            assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before

    def test_workers_of_another_process_run_each_task_once(self, variant: str, tmp_path: Path) -> None:
        measured = background_runs.to_another_process(5, variant, 1, str(tmp_path))
        assert set(measured) == {background_runs.MEDIAN, background_runs.P99}


class TestBooks:
    @pytest.mark.parametrize(
        ("ran", "count", "wrong"),
        [
            ([1, 0, 2], 3, ""),
            ([], 0, ""),
            ([0, 2], 3, "of 3 tasks 1 did not run, 0 ran again, and 0 others ran"),
            ([0, 1, 1], 2, "of 2 tasks 0 did not run, 1 ran again, and 0 others ran"),
            ([0, 1, 7], 3, "of 3 tasks 1 did not run, 0 ran again, and 1 others ran"),
            ([0], 0, "of 0 tasks 0 did not run, 0 ran again, and 1 others ran"),
        ],
    )
    def test_each_task_runs_once(self, ran: list[int], count: int, wrong: str) -> None:
        books = Books()
        books.ran = ran
        assert books.complaint(count) == wrong

    def test_a_task_that_runs_again_is_noticed(self) -> None:
        with (
            pytest.raises(InvariantError, match="1 ran again"),
            background_runs.at_work(HIVE, 1, None) as (_, books),
        ):
            books.note(3)

    def test_a_task_that_runs_though_nobody_was_to_run_any_is_noticed(self) -> None:
        with (
            pytest.raises(InvariantError, match="1 others ran"),
            background_runs.at_work(HIVE, 0, None) as (queue, books),
        ):
            background_runs.put_in(queue, books.expect(2))
            books.note(0)

    @pytest.mark.usefixtures("_impatient")
    def test_a_lost_task_is_not_waited_for_for_ever(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def put(self: Hive, number: int) -> object:
            return None if number == 3 else Hive.put(self, number)

        broken(monkeypatch, put=put)
        with pytest.raises(InvariantError, match="49 of 50 tasks have run"):
            background_runs.to_the_end(10, HIVE, 1, None)

    @pytest.mark.usefixtures("_impatient")
    def test_a_lost_result_is_not_waited_for_for_ever(self, monkeypatch: pytest.MonkeyPatch) -> None:
        broken(monkeypatch, stored=lambda self: Hive.stored(self) - 1)
        with pytest.raises(InvariantError, match="49 of 50 results are stored"):
            background_runs.to_the_end(10, HIVE, 1, None)

    @pytest.mark.usefixtures("_impatient")
    def test_a_task_that_is_not_run_is_not_waited_for_for_ever(self) -> None:
        books = Books()
        queue = Hive(books.note, 0)
        with pytest.raises(InvariantError, match="no result: TimeoutError"):
            background_runs.latencies(queue, books.expect(1))
        queue.end()

    def test_tasks_that_wait_still_are_noticed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        broken(monkeypatch, waiting=lambda self: 2)
        with pytest.raises(InvariantError, match="2 tasks wait and 60 results are stored, instead of 0 and 60"):
            background_runs.to_the_end(10, HIVE, 1, None)

    def test_clocks_that_disagree_are_noticed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        broken(monkeypatch, moment_of=lambda self, ticket, patience: 0.0)
        with pytest.raises(InvariantError, match="before it was put in"):
            background_runs.to_idle_workers(1, HIVE, 1, None)

    def test_whatever_breaks_leaves_no_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        broken(monkeypatch, waiting=lambda self: 2)
        seen: list[list[Path]] = []

        def run(*arguments: Any) -> Any:
            seen.append(list(tmp_path.iterdir()))
            return background_runs.put_in_batches(*arguments)

        with pytest.raises(InvariantError):
            background_runs.in_a_folder(run, 300, HIVE, 1)
        assert len(seen[0]) == 1
        assert not list(tmp_path.iterdir())


class TestLongQueues:
    @pytest.fixture
    def hive(self, folder: str | None) -> Any:
        hive = Hive(background_runs.no_task, 0, background_runs.file_in(folder))
        background_runs.fill(hive, range(background_runs.FEW))
        yield hive
        hive.end()

    def test_the_head_is_taken_and_the_rest_stays(self, folder: str | None) -> None:
        measured = background_runs.many_queued(2_500, 200, 2, HIVE, 1, folder)
        assert set(measured) == {background_runs.FEW_RATE, background_runs.MANY_RATE}

    def test_a_queue_is_worked_through_in_order(self, hive: Hive) -> None:
        assert background_runs.rate_of_claims(hive, 0) > 0
        assert (hive.waiting(), hive.stored()) == (0, background_runs.FEW)

    @pytest.mark.parametrize(
        ("wrong", "complaint"),
        [
            (lambda accepted, tasks: (accepted, tasks[::-1]), "1000 were handed out, 1000 of them not in their order"),
            (lambda accepted, tasks: (accepted, tasks[:-1]), "984 were handed out, 921 of them not in their order"),
            (lambda accepted, tasks: ([False] * len(accepted), tasks), "the ends of 1000 were refused"),
            (lambda accepted, tasks: (accepted, []), "0 were handed out"),
        ],
    )
    def test_what_a_source_does_wrong_is_noticed(
        self,
        hive: Hive,
        wrong: Callable[[list[bool], list[Task]], Any],
        complaint: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        sound = hive.source.settle_and_dequeue
        monkeypatch.setattr(
            hive.source, "settle_and_dequeue", lambda ends, limit, *, app: wrong(*sound(ends, limit, app=app))
        )
        with pytest.raises(InvariantError, match=complaint):
            background_runs.rate_of_claims(hive, 0)

    def test_totals_that_do_not_add_up_are_noticed(self, monkeypatch: pytest.MonkeyPatch, folder: str | None) -> None:
        monkeypatch.setattr(Hive, "count", lambda self, state: 5)
        with pytest.raises(InvariantError, match=r"are \[5, 5, 5, 5\] instead of \[2000, 10, 0, 2000\]"):
            background_runs.many_queued(3_000, 10, 1, HIVE, 1, folder)

    def test_a_process_works_through_it(self, tmp_path: Path) -> None:
        measured = background_runs.worked_through(2 * background_runs.FEW, HIVE, 2, str(tmp_path))
        assert measured[background_runs.GROWTH] >= 0

    def test_marks_tell_which_tasks_did_not_run_once(self) -> None:
        marks = Marks(4)
        for number in (0, 1, 1, *[3] * 300):
            marks.note(number)
        assert marks.wrong() == 3
        assert marks.sizes == []

    def test_memory_is_looked_at_after_every_thousand(self) -> None:
        marks = Marks(2_500)
        for number in range(2_500):
            marks.note(number)
        assert (marks.wrong(), len(marks.sizes)) == (0, 2)
        assert min(marks.sizes) > 0


class TestWorkload:
    def test_a_broken_contender_ends_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        broken(monkeypatch, waiting=lambda self: 2)
        assert f"{HIVE}: 2 tasks wait" in harness.measure(Background(TINY)).broken

    def test_a_run_that_does_not_end_is_given_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        gate, others = threading.Event(), set(threading.enumerate())
        monkeypatch.setattr(background, "PATIENCE", 0.05)
        workload = Background(TINY)
        workload.trials["here"] = background.Trial(lambda *arguments: {RATE: float(gate.wait(60))})
        with pytest.raises(InvariantError, match="did not come to an end"):
            workload.run(Point("here", HIVE, 1))
        gate.set()
        for thread in set(threading.enumerate()) - others:
            thread.join(60)

    def test_without_the_peer_its_bars_are_not_measured(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(background, "missing", lambda variant: "not here" if variant == HUEY else "")
        assert {point.variant for point in Background(TINY).points()} == {HIVE}
        outcomes = hold(samples_of((Point(background.MEMORY, HIVE, 1), background_runs.RATE, 100.0)))
        assert {outcome.verdict for outcome in outcomes.values()} == {"not measured"}
        assert {outcome.where for outcome in outcomes.values()} == {"not here"}
        assert len(outcomes) == 4

    @pytest.mark.parametrize("short", [0.0, 0.01])
    def test_bars_of_given_rates(self, short: float) -> None:
        points = [
            (Point(setting, variant, workers), background_runs.RATE, rate)
            for setting, times in ((background.MEMORY, 2), (background.SQLITE, 3))
            for workers in background.WORKERS
            for variant, rate in ((HUEY, 100.0), (HIVE, times * 100 - short))
        ]
        assert [outcome.met for outcome in hold(samples_of(*points)).values()] == [not short] * 4

    @pytest.mark.parametrize(
        ("setting", "quantity", "workers", "limit", "better"),
        [
            (background.BATCHES, background_runs.PUT_RATE, 1, 50_000, 1),
            (background.TO_IDLE_MEMORY, background_runs.MEDIAN, 1, 2, -1),
            (background.TO_IDLE_SQLITE, background_runs.MEDIAN, 1, 10, -1),
            (background.IDLE_MEMORY, background_runs.CORES, 1, 0.002, -1),
            (background.IDLE_SQLITE, background_runs.CORES, 1, 0.002, -1),
            (background.WORKED_THROUGH, background_runs.GROWTH, background.GROWTH_WORKERS, 20, -1),
        ],
    )
    def test_bars_of_single_figures(
        self, setting: str, quantity: Quantity, workers: int, limit: float, better: int
    ) -> None:
        for value, met in ((limit, True), (limit - better * limit / 1000, False)):
            (outcome,) = hold(samples_of((Point(setting, HIVE, workers), quantity, value))).values()
            assert outcome.met is met

    @pytest.mark.parametrize("setting", [background.LONG_MEMORY, background.LONG_SQLITE])
    @pytest.mark.parametrize(("many", "met"), [(50.0, True), (49.0, False)])
    def test_a_queue_that_slows_down_as_it_grows_shows(self, setting: str, many: float, met: bool) -> None:
        samples = Samples()
        samples.add(Point(setting, HIVE, 1), {background_runs.FEW_RATE: 100.0, background_runs.MANY_RATE: many})
        (outcome,) = hold(samples).values()
        assert (outcome.value, outcome.met) == (many / 100, met)

    @pytest.mark.parametrize(("scale", "queued", "later"), [(1.0, 1_000_000, 100_000), (0.2, 100_000, 10_000)])
    def test_the_long_queue_is_long(self, scale: float, queued: int, later: int) -> None:
        workload = Background(Plan(scale=scale))
        for setting in (background.LONG_MEMORY, background.LONG_SQLITE):
            run: Any = workload.trials[setting].run
            assert run.args[:2] == (queued, later)

    def test_every_setting_has_points(self) -> None:
        workload = Background(TINY)
        assert {point.setting for point in workload.points()} == set(workload.trials)
