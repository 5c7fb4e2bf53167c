"""The workloads of the collections, of asyncio and of statistics: what they check, what they count, and what they make
of their figures. Each is given something broken, and must notice.

No test here looks at how long anything took. The runs of all their points are in `test_bench`.
"""

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from bench import bars, cli, harness
from bench.harness import InvariantError, Plan, Point, Samples, Workload
from bench.results import BarOutcome, Quantity, Result
from bench.workloads import awaiting, counters, growth, maps, queues, stats_cost
from bench.workloads.neighbour import Neighbour
from stm import TCounter, TMap, TPriorityQueue, TQueue, TVar, in_transaction, run
from tests.support import Once, elsewhere

TINY = Plan(threads=(1, 2), repeats=1, scale=0.0001)
QUICK = replace(TINY, scale=cli.QUICK_SCALE)


def hold(workload: Workload, samples: Samples) -> dict[str, BarOutcome]:
    """The bars of a workload that has these samples."""
    figures = (*samples.figures(), *workload.summarise(samples).figures)
    outcomes = bars.hold([Result(workload.name, "", figures)], gil=True)
    return {outcome.name: outcome for outcome in outcomes}


def samples_of(*measured: tuple[Point, Quantity, Sequence[float]]) -> Samples:
    samples = Samples()
    for point, quantity, values in measured:
        for value in values:
            samples.add(point, {quantity: value})
    return samples


class Disturbed:
    """What replaces a collection here: all in one variable, and in the midst of the first change another thread's."""

    def __init__(self, value: Any = 0) -> None:
        self.variable = TVar((value,))
        self.first = Once()

    def get(self) -> Any:
        return self.variable.get()[0]

    def change(self, make: Callable[[Any], Any]) -> None:
        before = self.variable.get()
        if self.first:
            elsewhere(self.variable.set, (before[0],))  # the same in another object
        after = (make(before[0]),)
        if in_transaction():
            self.variable.set(after)
        elif not self.variable.compare_and_set(before, after):
            run(self.change, make)


class TestQueue:
    def measure(self, monkeypatch: pytest.MonkeyPatch, line: type[queue.Queue[int]]) -> str:
        monkeypatch.setitem(queues.WAYS, queues.OTHER, replace(queues.WAYS[queues.OTHER], make=line))
        return harness.measure(queues.Queue(TINY)).broken

    def test_an_item_that_comes_twice_in_place_of_another_is_noticed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Confuses(queue.Queue[int]):
            def _put(self, item: int) -> None:
                super()._put(2 if item == 3 else item)

        assert "1 were lost, and 1 came twice" in self.measure(monkeypatch, Confuses)

    def test_items_in_another_order_are_noticed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Swaps(queue.Queue[int]):
            def put(self, item: int, *args: Any) -> None:
                if item:
                    super().put(item)
                if item == 1:
                    super().put(0)

        assert "item 0 after item 1 of the same producer" in self.measure(monkeypatch, Swaps)

    def test_a_lost_item_is_not_waited_for_for_ever(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = []
        others = set(threading.enumerate())

        class Loses(queue.Queue[int]):
            def __init__(self) -> None:
                super().__init__()
                made.append(self)

            def put(self, item: int, *args: Any) -> None:
                if item:
                    super().put(item)

        monkeypatch.setattr(queues, "PATIENCE", 0.1)
        assert "an item was lost" in self.measure(monkeypatch, Loses)
        made[0].put(1)  # the consumer that still waits
        for thread in set(threading.enumerate()) - others:
            thread.join(10)
            assert not thread.is_alive()

    def test_a_queue_in_batches_is_checked_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Repeats(TQueue[int]):
            def put_many(self, items: Any, *args: Any) -> None:
                super().put_many([items[0]] * len(items))

        way = queues.in_batches(8)
        monkeypatch.setitem(queues.WAYS, way, replace(queues.WAYS[way], make=Repeats))
        workload = queues.Queue(TINY)
        workload.run(Point(queues.setting_of(1), way, 2))
        with pytest.raises(InvariantError, match="came twice"):
            workload.check()

    @pytest.mark.parametrize(
        ("taken", "right"), [([[0, 2, 1, 3]], True), ([[2, 3], [0, 1]], True), ([[1, 0, 2, 3]], False)]
    )
    def test_order_is_that_of_each_producer(self, taken: list[list[int]], right: bool) -> None:
        if right:
            queues.audit(taken, 4, 2)
        else:
            with pytest.raises(InvariantError, match="item 0 after item 1"):
                queues.audit(taken, 4, 2)

    def test_every_variant_hands_on_the_same_items(self) -> None:
        workload = queues.Queue(TINY)
        for point in workload.points():
            workload.run(point)
            workload.check()
            assert sum(map(len, workload.taken)) == workload.items
            assert len(workload.taken) == point.threads // 2

    @pytest.mark.parametrize(("pairs", "limit"), [(1, 0.5), (4, 0.8)])
    @pytest.mark.parametrize("short", [0.0, 0.01])
    def test_bars_of_given_rates(self, pairs: int, limit: float, short: float) -> None:
        rates = {queues.OTHER: 100.0, queues.STM: 100 * (limit - short)}
        points = ((Point(queues.setting_of(pairs), variant, 2 * pairs), rate) for variant, rate in rates.items())
        samples = samples_of(*((point, queues.RATE, [rate]) for point, rate in points))
        (outcome,) = hold(queues.Queue(TINY), samples).values()
        assert (outcome.value, outcome.met) == (pytest.approx(limit - short), not short)

    @pytest.mark.parametrize("size", queues.BATCHES)
    def test_a_batch_of_each_size_has_a_bar(self, size: int) -> None:
        rates = {queues.OTHER: [1.0, 4.0, 9.0], queues.in_batches(size): [1.5, 3.9, 9.9]}
        points = ((Point(queues.setting_of(1), variant, 2), values) for variant, values in rates.items())
        samples = samples_of(*((point, queues.RATE, values) for point, values in points))
        (outcome,) = hold(queues.Queue(TINY), samples).values()
        assert (outcome.value, outcome.met) == (pytest.approx(1.1), True)


class TestMap:
    def test_a_lost_write_is_noticed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        sound = maps.TABLES[maps.STM]

        def forgetful() -> maps.Table:
            table, first = sound(), Once()

            def add(key: int) -> None:
                if not first:
                    table.add(key)

            return replace(table, add=add)

        monkeypatch.setitem(maps.TABLES, maps.STM, forgetful)
        assert "a write was lost or doubled" in harness.measure(maps.Map(replace(TINY, scale=0.001))).broken

    def test_a_lost_key_is_noticed(self) -> None:
        with pytest.raises(InvariantError, match="1 keys instead of 2"):
            maps.audit({1: 0}, {1: 0, 2: 0})

    @pytest.mark.parametrize("setting", maps.APART)
    def test_threads_write_to_keys_of_their_own(self, setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
        keys: dict[int, set[int]] = {}

        class Watched(TMap[int, int]):
            def __setitem__(self, key: int, value: int) -> None:
                keys.setdefault(threading.get_ident(), set()).add(key)
                super().__setitem__(key, value)

        monkeypatch.setattr(maps, "TMap", Watched)
        maps.Map(replace(TINY, scale=0.001)).run(Point(setting, maps.STM, 2))
        assert len(keys) == 2
        assert not set.intersection(*keys.values())

    @pytest.mark.parametrize("setting", maps.APART)
    def test_aborted_attempts_are_counted(self, setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
        class Conflicts(Disturbed):
            def __getitem__(self, key: int) -> int:
                value: int = self.get()[key]
                return value

            def __setitem__(self, key: int, value: int) -> None:
                self.change(lambda values: {**values, key: value})

            def snapshot(self) -> dict[int, int]:
                values: dict[int, int] = self.get()
                return values

        # One thread's turn after the other's, so that the only conflict is the one made on purpose.
        monkeypatch.setattr(maps, "run_together", one_by_one)
        monkeypatch.setattr(maps, "TMap", Conflicts)
        workload = maps.Map(replace(TINY, scale=0.001))
        measured = workload.run(Point(setting, maps.STM, 2))
        workload.check()
        assert measured[maps.ABORTED] == pytest.approx(100 / (2 * workload.count + 1))

    @pytest.mark.parametrize("setting", maps.APART)
    @pytest.mark.parametrize(("share", "met"), [(5.0, True), (5.1, False)])
    def test_the_bar_is_the_share_of_attempts(self, setting: str, share: float, met: bool) -> None:
        samples = samples_of((Point(setting, maps.STM, 2), maps.ABORTED, [share]))
        (outcome,) = hold(maps.Map(TINY), samples).values()
        assert outcome.met is met

    def test_the_ratio_is_told(self) -> None:
        samples = samples_of(
            *(
                (Point("90% reads", variant, 2), maps.RATE, [rate])
                for variant, rate in ((maps.STM, 1.0), (maps.LOCK, 4.0))
            )
        )
        said = " ".join(maps.Map(TINY).summarise(samples).findings)
        assert "90% reads, 2 threads: a TMap does 0.25 times as many operations" in said


def one_by_one(bodies: Sequence[harness.Body]) -> float:
    for body in bodies:
        elsewhere(body, lambda: None)
    return 1.0


class TestCounter:
    def test_a_lost_addition_is_noticed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Forgetful(TCounter):
            __slots__ = ("first",)

            def add(self, n: int = 1) -> None:
                self.first = getattr(self, "first", Once())
                if not self.first:
                    super().add(n)

        monkeypatch.setattr(counters, "TCounter", Forgetful)
        assert "10 additions of 1 have come to 9" in harness.measure(counters.Counter(replace(TINY, scale=5e-5))).broken

    @pytest.mark.parametrize("setting", [counters.COUNTED, counters.IN_BODIES])
    def test_aborted_attempts_are_counted(self, setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
        class Conflicts(Disturbed):
            def add(self, n: int) -> None:
                self.change(lambda value: value + n)

        monkeypatch.setattr(counters, "run_together", one_by_one)
        monkeypatch.setattr(counters, "TCounter", Conflicts)
        workload = counters.Counter(TINY)
        assert workload.run(Point(setting, counters.STM, counters.CROWD))[counters.ABORTS] == 1
        workload.check()

    @pytest.mark.parametrize("setting", [counters.COUNTED, counters.IN_BODIES])
    @pytest.mark.parametrize(("aborts", "met"), [((0, 0, 0), True), ((0, 1, 0), False)])
    def test_one_abort_misses_the_bar(self, setting: str, aborts: Sequence[int], met: bool) -> None:
        samples = samples_of((Point(setting, counters.STM, counters.CROWD), counters.ABORTS, aborts))
        (outcome,) = hold(counters.Counter(TINY), samples).values()
        assert outcome.met is met


class TestGrowth:
    SMALL = replace(TINY, scale=0.001)

    def broken(self, monkeypatch: pytest.MonkeyPatch, name: str, broken: type) -> str:
        if name == "map":
            monkeypatch.setattr(growth, "MAPS", dict.fromkeys(growth.MAPS, broken))
        else:
            monkeypatch.setattr(growth, name, broken)
        return harness.measure(growth.Growth(self.SMALL)).broken

    @pytest.mark.parametrize("scale", [1.0, cli.QUICK_SCALE])
    def test_the_full_sizes_are_measured_even_if_quickly(self, scale: float) -> None:
        sizes = growth.Growth(replace(TINY, scale=scale)).sizes
        assert {variant: large for variant, (_, large) in sizes.items()} == growth.LARGE
        assert {small for small, _ in sizes.values()} == {1_000}

    def test_the_sizes_are_told(self) -> None:
        workload = growth.Growth(self.SMALL)
        assert {point.setting for point in workload.points()} == {"1,000 and 5,000 items", "1,000 and 2,000 items"}

    def test_a_key_that_is_still_there_is_noticed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Keeps(dict[int, int]):
            def __delitem__(self, key: int) -> None:
                pass

        assert "after each new one was deleted" in self.broken(monkeypatch, "map", Keeps)

    def test_a_wrong_value_is_noticed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Alters(dict[int, int]):
            def __getitem__(self, key: int) -> int:
                return super().__getitem__(key) + 1

        assert "did not have the value" in self.broken(monkeypatch, "map", Alters)

    @pytest.mark.parametrize("method", ["__setitem__", "__delitem__"])
    def test_others_are_checked_too(self, method: str) -> None:
        broken = type("Broken", (dict,), {method: lambda *args: None})
        grown = growth.GrownMapOthers(broken(zip(range(200), range(200), strict=True)), 200)
        for _ in range(10):  # until some key is chosen that was replaced before
            grown.work(60)
            if grown.complaint():
                return
        pytest.fail("nothing was noticed")

    def test_others_are_sound_over_many_rounds(self) -> None:
        grown = growth.GrownMapOthers(dict(zip(range(200), range(200), strict=True)), 200)
        for _ in range(10):
            assert grown.work(60) >= 0
            assert not grown.complaint()

    def test_a_queue_out_of_order_is_noticed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Jumps(TQueue[int]):
            def get(self, *args: Any) -> int:
                self.put(super().get())
                return super().get()

        assert "once each and in order" in self.broken(monkeypatch, "TQueue", Jumps)

    def test_a_queue_that_doubles_is_noticed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Doubles(TQueue[int]):
            def put(self, item: int, *args: Any) -> None:
                super().put_many([item, item])

        assert "after as many were taken as put" in self.broken(monkeypatch, "TQueue", Doubles)

    def test_what_is_not_the_least_is_noticed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Plain(TQueue[float]):
            pass

        assert "instead of the least" in self.broken(monkeypatch, "TPriorityQueue", Plain)

    def test_a_priority_queue_that_doubles_is_noticed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Doubles(TPriorityQueue[float]):
            def put(self, item: float, *args: Any) -> None:
                super().put_many([item, item + 1e6])

        assert "after as many were taken as put" in self.broken(monkeypatch, "TPriorityQueue", Doubles)

    @pytest.mark.parametrize("variant", [growth.MAP, growth.QUEUE, growth.PRIORITY_QUEUE])
    @pytest.mark.parametrize(("large", "met"), [((9.0, 30.0, 5.0), True), ((9.1, 30.0, 5.0), False)])
    def test_the_bar_is_the_ratio(self, variant: str, large: Sequence[float], met: bool) -> None:
        workload = growth.Growth(QUICK)
        (point,) = (point for point in workload.points() if point.variant == variant)
        samples = Samples()
        for value in large:
            samples.add(point, {growth.SMALL_TIME: 3.0, growth.LARGE_TIME: value})
        (outcome,) = hold(workload, samples).values()
        assert (outcome.met, outcome.where.partition(";")[0]) == (met, point.setting)


class TestAsyncio:
    def measure(self, monkeypatch: pytest.MonkeyPatch, gate: Callable[[], awaiting.Gate]) -> str:
        monkeypatch.setitem(awaiting.GATES, awaiting.STM, gate)
        return harness.measure(awaiting.Asyncio(TINY)).broken

    def test_how_much_is_measured(self) -> None:
        quick, full = awaiting.Asyncio(QUICK), awaiting.Asyncio(replace(TINY, scale=1.0))
        assert quick.waking == full.waking == "10,000 tasks wait for one variable"
        assert (quick.cancelling, full.cancelling) == ("20,000 cancelled waits", "100,000 cancelled waits")

    def test_a_task_that_does_not_wait_is_noticed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def wait() -> None:
            pass

        assert "went on before" in self.measure(monkeypatch, lambda: awaiting.Gate(wait, int))

    def test_a_lost_wakeup_is_noticed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        sound = awaiting.GATES[awaiting.STM]
        monkeypatch.setattr(awaiting, "WAKING", 0.05)
        assert "5 of 5 tasks did not wake up" in self.measure(monkeypatch, lambda: replace(sound(), open=int))

    def test_a_wait_that_ignores_its_cancelling_is_noticed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        sound = awaiting.GATES[awaiting.STM]

        def deaf() -> awaiting.Gate:
            gate = sound()

            async def wait() -> None:
                try:
                    await gate.wait()
                except asyncio.CancelledError:
                    pass

            return replace(gate, wait=wait)

        assert "0 of 2000 waits ended by being cancelled" in self.measure(monkeypatch, deaf)

    def test_waiters_left_behind_are_noticed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(awaiting.stats, "blocked", lambda: ("one",))
        assert "1 transactions are blocked" in harness.measure(awaiting.Asyncio(TINY)).broken

    @pytest.mark.parametrize("kilobytes", [0, 10])
    def test_what_waits_leave_behind_is_measured(self, kilobytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
        sound = awaiting.GATES[awaiting.STM]
        left = []

        def leaky() -> awaiting.Gate:
            gate = sound()

            async def wait() -> None:
                left.append(bytes(1_000 * kilobytes))
                await gate.wait()

            return replace(gate, wait=wait)

        monkeypatch.setitem(awaiting.GATES, awaiting.STM, leaky)
        workload = awaiting.Asyncio(TINY)
        kept = workload.run(Point(workload.cancelling, awaiting.STM, 1))[awaiting.KEPT]
        assert kept == pytest.approx(kilobytes, abs=0.5)

    @pytest.mark.parametrize(
        ("quantity", "limit"), [(awaiting.WOKEN, 2.0), (awaiting.KEPT, 1.0)], ids=["woken", "kept"]
    )
    @pytest.mark.parametrize("over", [0.0, 0.01])
    def test_bars_of_given_figures(self, quantity: Quantity, limit: float, over: float) -> None:
        workload = awaiting.Asyncio(QUICK)
        setting = workload.waking if quantity is awaiting.WOKEN else workload.cancelling
        samples = samples_of((Point(setting, awaiting.STM, 1), quantity, [limit + over]))
        (outcome,) = hold(workload, samples).values()
        assert (outcome.met, outcome.where) == (not over, f"{setting}; 1 thread")


class TestStatistics:
    def test_one_process_has_counted_and_the_other_has_not(self) -> None:
        workload = stats_cost.Statistics(TINY)
        (point,) = workload.points()
        measured = workload.run(point)
        workload.check()
        assert set(measured) == {stats_cost.BEFORE, stats_cost.AFTER, stats_cost.ON}
        assert min(measured.values()) > 0
        never, since = workload.found
        assert (never["loaded"], never["counted"], since["loaded"]) == (False, 0, True)
        since["counted"] -= 1
        with pytest.raises(InvariantError, match="have counted"):
            workload.check()
        since["held"][0] -= 1
        with pytest.raises(InvariantError, match="balances"):
            workload.check()
        never["loaded"] = True
        with pytest.raises(InvariantError, match="loaded where they should not be"):
            workload.check()

    def test_a_wrong_argument_is_refused(self, capfd: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(InvariantError, match="status 2"):
            Neighbour(stats_cost.PROGRAM, "nonsense")
        assert "not an argument" in capfd.readouterr().err

    @pytest.mark.parametrize(("on", "met"), [((115.0, 90.0, 200.0), True), ((116.0, 90.0, 200.0), False)])
    def test_the_bar_is_on_against_off(self, on: Sequence[float], met: bool) -> None:
        samples = Samples()
        for value in on:
            samples.add(
                Point(stats_cost.SETTING, stats_cost.PAIR, 1),
                {stats_cost.BEFORE: 50.0, stats_cost.AFTER: 100.0, stats_cost.ON: value},
            )
        workload = stats_cost.Statistics(TINY)
        (outcome,) = hold(workload, samples).values()
        assert outcome.met is met
        assert "Off again, it takes 2.00 times" in " ".join(workload.summarise(samples).findings)


@pytest.fixture(autouse=True)
def _no_threads_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert not [thread for thread in set(threading.enumerate()) - before if thread.is_alive()]
