"""The twins of the scheduler's core, which must be right before they are fast; and the workload that compares them.

No test here looks at how long anything took. The runs of all points are in `test_bench` too.
"""

import itertools
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, wait
from dataclasses import replace
from typing import Any

import pytest

from bench import bars, harness
from bench.harness import Plan, Point, Samples
from bench.results import BarOutcome, Quantity, Result
from bench.twins import Work, call_of
from bench.twins.contenders import CONTENDERS, HIVE, HIVE_OPEN, LOCKS, POOL, Running
from bench.twins.lockfree import LockFreeScheduler
from bench.twins.locks import LockScheduler
from bench.twins.session import Session, audit
from bench.workloads import scheduler, scheduler_runs
from hive_task.picture import Totals
from tests.support import PATIENCE, Background, Once, elsewhere, together

TINY = Plan(threads=(1, 2), repeats=1, scale=0.0001)

Twin = LockScheduler | LockFreeScheduler


@pytest.fixture(params=[LockScheduler, LockFreeScheduler])
def make(request: pytest.FixtureRequest) -> Iterator[Callable[[int], Twin]]:
    """Twins that end with the test."""
    made: list[Twin] = []

    def make(workers: int) -> Twin:
        made.append(request.param(workers))
        return made[-1]

    yield make
    for twin in made:
        twin.stop()


def occupy(twin: Twin, workers: int) -> Callable[[], object]:
    """All workers wait, until the returned function is called."""
    gate, begun = threading.Event(), threading.Semaphore(0)

    def stay() -> None:
        begun.release()
        assert gate.wait(PATIENCE)

    for _ in range(workers):
        twin.submit(stay)
    for _ in range(workers):
        assert begun.acquire(timeout=PATIENCE)
    return gate.set


class TestTwins:
    def test_each_work_runs_once_whoever_submits_and_however(self, make: Callable[[int], Twin]) -> None:
        twin, ran = make(3), []

        def one_by_one(first: int) -> list[Future[Any]]:
            return [twin.submit(ran.append, n) for n in range(first, first + 500)]

        def in_batches(first: int) -> list[Future[Any]]:
            starts = range(first, first + 500, 50)
            return [f for n in starts for f in twin.put_works([call_of(ran.append, n + k) for k in range(50)])]

        futures = together(
            *[lambda first=first: one_by_one(first) for first in (0, 500)],
            *[lambda first=first: in_batches(first) for first in (1_000, 1_500)],
        )
        for future in itertools.chain(*futures):
            assert future.result(PATIENCE) is None
        assert sorted(ran) == list(range(2_000))
        assert twin.totals() == Totals(submitted=2_000, finished=2_000)

    def test_works_submit_works(self, make: Callable[[int], Twin]) -> None:
        twin, leaves = make(2), []

        def branch(depth: int) -> None:
            if depth:
                twin.submit(branch, depth - 1)
                twin.put_works([call_of(branch, depth - 1)])
            else:
                leaves.append(1)

        twin.submit(branch, 9)
        twin.stop()  # what the works submit is finished too
        assert len(leaves) == 2**9
        assert twin.totals() == Totals(submitted=2**10 - 1, finished=2**10 - 1)

    def test_what_a_work_submits_is_taken_over_by_a_sleeper(self, make: Callable[[int], Twin]) -> None:
        twin = make(2)

        def parent() -> int:
            return twin.submit(threading.get_ident).result(PATIENCE)  # which another worker must run

        def checked() -> bool:
            return parent() != threading.get_ident()

        assert all(twin.submit(checked).result(PATIENCE) for _ in range(200))

    def test_sleepers_are_woken_while_other_works_come_in(self, make: Callable[[int], Twin]) -> None:
        twin = make(3)
        turn = threading.Semaphore(2)  # a worker is always free for the children

        def parent() -> int:
            with turn:
                return twin.submit(int).result(PATIENCE) + twin.submit(int).result(PATIENCE)

        def parents() -> list[int]:
            return [twin.submit(parent).result(PATIENCE) for _ in range(100)]

        def others() -> list[int]:
            return [twin.submit(int).result(PATIENCE) for _ in range(300)]

        assert {*itertools.chain(*together(parents, parents, others))} == {0}

    def test_what_a_work_raises_is_its_futures(self, make: Callable[[int], Twin]) -> None:
        twin = make(1)
        with pytest.raises(ZeroDivisionError):
            twin.submit(divmod, 1, 0).result(PATIENCE)
        with pytest.raises(KeyboardInterrupt):
            twin.put_works([Work(_interrupt)])[0].result(PATIENCE)
        assert twin.submit(sorted, [1, 2], reverse=True).result(PATIENCE) == [2, 1]
        assert twin.totals() == Totals(submitted=3, finished=1, failed=2)

    def test_a_queued_work_can_be_cancelled(self, make: Callable[[int], Twin]) -> None:
        twin, ran = make(2), []
        go_on = occupy(twin, 2)
        futures = twin.put_works([call_of(ran.append, n) for n in range(4)])
        assert futures[1].cancel()
        assert twin.totals() == Totals(submitted=6, queued=4, running=2)
        go_on()
        wait(futures, PATIENCE)
        assert not futures[0].cancel()
        assert futures[1].cancelled()
        assert sorted(ran) == [0, 2, 3]
        twin.stop()
        assert twin.totals() == Totals(submitted=6, finished=5, cancelled=1)

    def test_stop_finishes_what_is_queued(self, make: Callable[[int], Twin]) -> None:
        twin, ran = make(2), []
        go_on = occupy(twin, 2)
        twin.put_works([call_of(ran.append, n) for n in range(100)])
        stopping = Background(twin.stop)
        go_on()
        stopping.result()
        assert sorted(ran) == list(range(100))
        twin.stop()
        with pytest.raises(RuntimeError, match="takes no more work"):
            twin.submit(int)
        assert twin.totals() == Totals(submitted=102, finished=102)

    def test_stop_cancels_what_is_queued_if_asked(self, make: Callable[[int], Twin]) -> None:
        twin, ran, told = make(2), [], threading.Event()
        go_on = occupy(twin, 2)
        futures = twin.put_works([call_of(ran.append, n) for n in range(100)])
        futures[99].add_done_callback(lambda _: told.set())
        stopping = Background(lambda: twin.stop(cancel_queued=True))
        assert told.wait(PATIENCE)
        go_on()
        stopping.result()
        assert not ran
        with pytest.raises(CancelledError):
            futures[0].result(PATIENCE)
        assert twin.totals() == Totals(submitted=102, finished=2, cancelled=100)

    def test_totals_while_works_run(self, make: Callable[[int], Twin]) -> None:
        twin, pictures = make(2), []
        done = threading.Event()

        def watch() -> None:
            while not done.is_set():
                pictures.append(twin.totals())

        def branch(depth: int) -> None:
            if depth:
                twin.put_works([call_of(branch, depth - 1), call_of(branch, depth - 1)])

        watching = Background(watch)
        for _ in range(20):
            twin.submit(branch, 6)
        twin.stop()
        done.set()
        watching.result()
        assert pictures
        for totals in pictures:
            assert totals.balanced
            assert min(totals.queued, totals.running) >= 0
            assert totals.running <= 2 or isinstance(twin, LockFreeScheduler)  # which can't promise it
        assert pictures == sorted(pictures, key=lambda totals: totals.done)


def _interrupt() -> None:
    raise KeyboardInterrupt


class TestLockFree:
    def test_a_work_that_slips_in_as_the_door_is_closed_is_run(self) -> None:
        twin = LockFreeScheduler(2)
        twin._submitted = Hooked(twin._submitted, before=twin.stop)  # type: ignore[assignment]
        assert twin.submit(abs, -1).result(PATIENCE) == 1  # it was asked for before the stop, and put after it
        assert twin.totals() == Totals(submitted=1, finished=1)

    def test_a_work_put_as_a_worker_falls_asleep_is_found(self) -> None:
        twin = LockFreeScheduler(2)
        falling_asleep, put = threading.Event(), threading.Event()

        class Sleepers(deque[None]):
            def append(self, token: None) -> None:
                if not put.is_set():
                    falling_asleep.set()
                    assert put.wait(PATIENCE)
                super().append(token)

        def parent() -> int:
            assert falling_asleep.wait(PATIENCE)
            child = twin.submit(threading.get_ident)
            put.set()
            return child.result(PATIENCE)

        go_on = occupy(twin, 2)
        twin._sleepers = Sleepers()
        outcome = twin.submit(parent)
        go_on()
        assert outcome.result(PATIENCE)
        twin.stop()

    def test_totals_are_not_negative_when_works_end_in_between(self) -> None:
        twin = LockFreeScheduler(1)
        twin._submitted = Hooked(  # type: ignore[assignment]
            twin._submitted, after=lambda: twin.submit(int).result(PATIENCE)
        )
        assert twin.totals() == Totals()
        twin.stop()


class Hooked:
    """A counter. When it is first asked, something happens in another thread, before it counts or after."""

    def __init__(
        self, counter: Iterator[int], before: Callable[[], object] = bool, after: Callable[[], object] = bool
    ) -> None:
        self.counter = counter
        self.first = Once()
        self.before = before
        self.after = after

    def __next__(self) -> int:
        first = bool(self.first)
        if first:
            elsewhere(self.before)
        count = next(self.counter)
        if first:
            elsewhere(self.after)
        return count


# The workload


def hold(samples: Samples, *, gil: bool = True) -> dict[str, BarOutcome]:
    workload = scheduler.SchedulerCost(TINY)
    figures = (*samples.figures(), *workload.summarise(samples).figures)
    return {one.name: one for one in bars.hold([Result(workload.name, "", figures)], gil=gil)}


def samples_of(*measured: tuple[Point, Quantity, float]) -> Samples:
    samples = Samples()
    for point, quantity, value in measured:
        samples.add(point, {quantity: value})
    return samples


def session_with(monkeypatch: pytest.MonkeyPatch, **broken: Any) -> Session:
    """A session of the twin on locks, in which something has been replaced."""
    sound = CONTENDERS[LOCKS]
    monkeypatch.setitem(CONTENDERS, LOCKS, lambda workers: replace(sound(workers), **broken))
    return Session(LOCKS, 2)


class TestBooks:
    @pytest.mark.parametrize("variant", CONTENDERS)
    def test_a_sound_contender_has_nothing_to_answer_for(self, variant: str) -> None:
        session = Session(variant, 1 if variant == HIVE_OPEN else 2)
        scheduler_runs.in_bulk(50, session)
        scheduler_runs.in_a_batch(50, session)
        scheduler_runs.weigh(10, session)
        assert session.close() == ""
        assert len(session.futures) == 110
        assert sum(map(len, session.ran)) == 110 - sum(future.cancelled() for future in session.futures)

    @pytest.mark.parametrize(
        ("ran", "expected", "wrong"),
        [
            ([[0, 2], [1]], [0, 1, 2], ""),
            ([[0], [2]], [0, 1, 2], "1 did not run, 0 ran though they were cancelled, and 0 ran again"),
            ([[0], [0, 1]], [0, 1], "0 did not run, 0 ran though they were cancelled, and 1 ran again"),
            ([[0, 1]], [0], "0 did not run, 1 ran though they were cancelled, and 0 ran again"),
        ],
    )
    def test_each_expected_work_runs_once(self, ran: list[list[int]], expected: list[int], wrong: str) -> None:
        complaint = audit(ran, expected)
        assert complaint.endswith(wrong)
        assert bool(complaint) == bool(wrong)

    def test_a_work_that_runs_twice_is_noticed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        session = session_with(monkeypatch)
        scheduler_runs.in_bulk(5, session)
        session.work(3)
        assert "1 ran again" in session.close()

    def test_results_of_other_works_are_noticed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        session = session_with(monkeypatch)
        scheduler_runs.in_bulk(5, session)
        session.futures.reverse()
        assert "the future of work 0 has the result of work 4" in session.close()

    @pytest.mark.parametrize(
        ("totals", "complaint"),
        [
            (Totals(submitted=7, finished=6), "7 works were submitted and 7 have finished"),
            (Totals(submitted=7, finished=7, running=1), "don't add up"),
        ],
    )
    def test_wrong_totals_are_noticed(self, totals: Totals, complaint: str, monkeypatch: pytest.MonkeyPatch) -> None:
        session = session_with(monkeypatch, totals=lambda: totals)
        scheduler_runs.in_bulk(5, session)
        assert complaint in session.close()


class TestWorkload:
    def test_a_broken_contender_ends_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        sound = CONTENDERS[LOCKS]
        monkeypatch.setitem(CONTENDERS, LOCKS, lambda workers: replace(sound(workers), totals=Totals))
        assert LOCKS in harness.measure(scheduler.SchedulerCost(TINY)).broken

    def test_a_lost_work_is_not_waited_for_for_ever(self, monkeypatch: pytest.MonkeyPatch) -> None:
        sound = CONTENDERS[LOCKS]
        lost: Future[int] = Future()
        others = set(threading.enumerate())

        def loses(workers: int) -> Running:
            running = sound(workers)

            def submit(fn: Callable[..., Any], *args: Any) -> Future[Any]:
                return lost if args == (3,) else running.submit(fn, *args)

            return replace(running, submit=submit)

        monkeypatch.setitem(CONTENDERS, LOCKS, loses)
        monkeypatch.setattr(scheduler, "PATIENCE", 0.2)
        workload = scheduler.SchedulerCost(TINY)
        with pytest.raises(harness.InvariantError, match="a work has not run"):
            workload._one(workload.trials[scheduler.BULK], LOCKS, 1)
        lost.set_result(3)
        for thread in set(threading.enumerate()) - others:
            thread.join(PATIENCE)
            assert not thread.is_alive()

    def test_contenders_take_turns_and_every_other_time_backwards(self) -> None:
        workload = scheduler.SchedulerCost(TINY)
        order: list[tuple[int, str]] = []

        def measure(session: Session) -> dict[Quantity, float]:
            order.append((session.workers, session.variant))
            return {scheduler.RATE: float(len(order))}

        trial = scheduler.Trial(measure, (1, 2), (LOCKS, POOL), turns=3)
        workload.trials = {"here": trial}
        there = trial.sessions()
        measured = {point: workload.run(point) for point in workload.points()}
        assert order == [*there, *reversed(there), *there]
        assert [one[scheduler.RATE] for one in measured.values()] == [8, 7, 6, 5]  # the medians
        assert not workload.ready

    def test_a_queue_that_slows_down_as_it_grows_shows(self) -> None:
        workload = scheduler.SchedulerCost(TINY)
        point = Point(workload.queued, HIVE, 1)
        samples = Samples()
        samples.add(point, {scheduler.FEW_RATE: 100.0, scheduler.MANY_RATE: 40.0})
        (outcome,) = hold(samples).values()
        assert (outcome.value, outcome.met) == (pytest.approx(0.4), False)

    @pytest.mark.parametrize("short", [0.0, 0.01])
    def test_bars_of_given_rates(self, short: float) -> None:
        points = [
            (Point(scheduler.BULK, variant, workers), scheduler.RATE, rate)
            for variant, rate in ((POOL, 100.0), (HIVE, 100 - short))
            for workers in scheduler.BULK_WORKERS
        ]
        outcomes = hold(samples_of(*points))
        assert [outcome.met for outcome in outcomes.values()] == [not short] * 3

    @pytest.mark.parametrize("excess", [0.0, 0.01])
    def test_bars_of_given_round_trips(self, excess: float) -> None:
        samples = Samples()
        for workers in scheduler.SINGLY_WORKERS:
            for variant, median, p99 in ((POOL, 10.0, 100.0), (HIVE, 11 + excess, 100 + excess)):
                samples.add(Point(scheduler.SINGLY, variant, workers), {scheduler.MEDIAN: median, scheduler.P99: p99})
        assert [outcome.met for outcome in hold(samples).values()] == [not excess] * 4

    def test_a_batch_is_compared_with_single_submissions(self) -> None:
        samples = Samples()
        for setting, variant, submitting, running in (
            (scheduler.GATED, POOL, 6.0, 4.0),
            (scheduler.BATCH, POOL, 60.0, 4.0),
            (scheduler.BATCH, HIVE, 2.0, 3.0),
        ):
            samples.add(Point(setting, variant, 1), {scheduler.SUBMITTING: submitting, scheduler.RUNNING: running})
        figures = scheduler.SchedulerCost(TINY).summarise(samples).figures
        found = {figure.quantity: figure.values for figure in figures if figure.subject == scheduler.to_pool(HIVE)}
        assert found == {scheduler.SUBMISSION_RATIO: (3.0,), scheduler.COMPLETION_RATIO: (2.0,)}
        (outcome,) = hold(samples).values()
        assert outcome.met

    @pytest.mark.parametrize(("rate", "met"), [(190.0, True), (189.0, False)])
    def test_two_workers_are_held_against_one_without_the_gil(self, rate: float, met: bool) -> None:
        points = [(Point(scheduler.CPU, HIVE, workers), scheduler.RATE, of) for workers, of in ((1, 100.0), (2, rate))]
        assert not hold(samples_of(*points))
        (outcome,) = hold(samples_of(*points), gil=False).values()
        assert outcome.met is met

    def test_idle_and_memory_have_bars(self) -> None:
        outcomes = hold(
            samples_of(
                (Point(scheduler.IDLE, HIVE, scheduler.IDLE_WORKERS), scheduler_runs.CORES, 0.002),
                (Point(scheduler.IDLE_OPEN, HIVE_OPEN, 1), scheduler_runs.CORES, 0.0005),
                (Point(scheduler.WEIGHT, HIVE, 1), scheduler_runs.BYTES, 1_001.0),
            )
        )
        assert Counter(outcome.met for outcome in outcomes.values()) == {True: 1, False: 2}

    def test_a_queue_is_run_in_stretches_of_a_thousand(self) -> None:
        session = Session(LOCKS, 1)
        rates = scheduler_runs._stretches(3_500, 3, session)
        assert len(rates) == 3
        assert session.close() == ""
