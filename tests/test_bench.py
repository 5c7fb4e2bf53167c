"""The harness keeps its promises: interleaving, honest arithmetic, invariants that fail loudly, self-contained reports.

No test here looks at how long anything took.
"""

import gc
import json
import multiprocessing
import platform
import re
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from bench import bars, cli, compare, harness, report, workloads
from bench.harness import InvariantError, Measurement, Plan, Point, Samples, StuckError, Workload
from bench.results import (
    BarOutcome,
    Chart,
    Figure,
    Quantity,
    Result,
    Run,
    Series,
    Spread,
    from_document,
    spread,
    to_document,
)
from bench.tables import number, tables_of, with_spread
from bench.workloads import bank, compiled, compiled_call, compiled_transfer, long_body, transfer
from bench.workloads.bank import OPENING_BALANCE, Bank

TINY = Plan(threads=(1, 2), repeats=1, scale=0.001)

RATE = Quantity("throughput", "operations/s", "higher")
TIME = Quantity("time", "ns", "lower")
SIZE = Quantity("size", "bytes", "")

PLACE = {
    "label": "CPython 3.0",
    "gil": True,
    "cores": 2,
    "others": 0.0,
    "platform": "Linux",
    "library": "0.1",
    "date": "2030-01-01T00:00:00+00:00",
}


def figure(*values: float, quantity: Quantity = TIME, setting: str = "here", subject: str = "stm") -> Figure:
    return Figure(setting, subject, 1, quantity, values)


def run_of(*figures: Figure, workload: str = "some", broken: str = "", **place: object) -> Run:
    chart = Chart("T", "x", "y", ("a", "b"), (Series("s", (spread((1.0, 2.0)), None)),), mark=1.0)
    result = Result(workload, "Shows something.", figures, (chart,), ("A finding.",), broken, 1.5)
    bar = BarOutcome("a bar", 3.0, "at most 2", False, "here")
    return Run({**PLACE, **place}, {"threads": [1], "repeats": 3, "scale": 1.0}, (result,), (bar,))


class TestArithmetic:
    def test_repeats_are_interleaved(self) -> None:
        points = [Point("s", variant, 1) for variant in "ABC"]
        assert [point.variant for point in harness.interleave(points, 2)] == list("ABCABC")

    def test_spread_is_median_and_extremes(self) -> None:
        assert spread((5.0, 1.0, 2.0)) == Spread(median=2.0, low=1.0, high=5.0)

    def test_ratios_are_taken_within_each_repeat(self) -> None:
        assert harness.ratios((10.0, 30.0), (5.0, 10.0)) == (2.0, 3.0)

    def test_the_empty_loop_is_subtracted_within_each_repeat(self) -> None:
        assert harness.net_of_loop((10.0, 12.0), (1.0, 2.0)) == (9.0, 10.0)

    @pytest.mark.parametrize("columns", [((), (1.0,)), ((1.0,), ()), ((1.0,), (0.0,)), ((1.0, 1.0), (1.0, -0.5))])
    def test_no_ratio_rather_than_a_meaningless_one(self, columns: tuple[tuple[float, ...], ...]) -> None:
        assert harness.ratios(*columns) == ()

    def test_rates_become_times(self) -> None:
        assert harness.nanoseconds((1e9, 1e6)) == (1.0, 1000.0)
        assert harness.nanoseconds((0.0,)) == ()

    @pytest.mark.parametrize(
        ("ratios", "winner"),
        [
            ((0.5, 0.9, 1.0), None),
            ((0.5, 1.2, 1.5), 10),
            ((1.5, 0.9, 1.5), 100),
            ((1.1, 1.2, 1.5), 0),
            ((0.5, 1.2, None), None),
        ],
    )
    def test_a_win_lasts_from_its_length_on(self, ratios: tuple[float | None, ...], winner: int | None) -> None:
        spreads = [None if ratio is None else Spread(ratio, ratio, ratio) for ratio in ratios]
        assert harness.wins_from((0, 10, 100), spreads) == winner

    def test_a_win_within_the_noise_is_none(self) -> None:
        assert harness.wins_from((5,), [Spread(1.2, 0.9, 1.5)]) is None

    def test_the_crossing_is_named(self) -> None:
        wins = [Spread(0.5, 0.5, 0.5), Spread(1.5, 1.5, 1.5)]
        assert long_body.verdict(2, (0, 20), wins) == "On 2 threads STM wins from 20 µs on."
        assert "never" in long_body.verdict(1, (0, 20), wins[:1] * 2)

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (0, "0"), (0.01234, "0.0123"), (1.234, "1.23"), (12.34, "12.3"), (123.4, "123"),
            (9_999, "9,999"), (12_345, "12.3k"), (999_900, "1.00M"), (1_234_567, "1.23M"), (-5, "-5.00"),
        ],
    )  # fmt: skip
    def test_numbers_have_three_digits(self, value: float, text: str) -> None:
        assert number(value) == text

    def test_a_spread_is_shown_where_there_is_one(self) -> None:
        assert with_spread(Spread(2, 1, 3)) == "2.00 [1.00..3.00]"
        assert with_spread(Spread(2, 2, 2)) == "2.00"


class TestThreads:
    def test_bodies_start_together_and_all_run(self) -> None:
        prepared = threading.Barrier(2, timeout=10)
        ran = []

        def body(start: harness.Start) -> None:
            prepared.wait()
            start()
            ran.append(threading.get_ident())

        assert harness.run_together([body, body]) >= 0
        assert len(set(ran)) == 2
        assert threading.get_ident() not in ran

    @pytest.mark.parametrize("apart", [False, True])
    def test_one_body_runs_here_unless_apart(self, apart: bool) -> None:
        ran = []

        def body(start: harness.Start) -> None:
            start()
            ran.append(threading.get_ident())

        harness.run_together([body], apart=apart)
        assert (ran == [threading.get_ident()]) is not apart

    def test_an_error_before_the_start_frees_the_others(self) -> None:
        def fails(start: harness.Start) -> None:
            raise LookupError("no account")

        with pytest.raises(LookupError, match="no account"):
            harness.run_together([fails, lambda start: start()])

    def test_threads_that_do_not_end_are_reported(self) -> None:
        gate = threading.Event()

        def stuck(start: harness.Start) -> None:
            start()
            gate.wait(60)

        with pytest.raises(StuckError):
            harness.run_together([stuck, stuck], patience=0.05)
        gate.set()


class TestResults:
    def test_json_holds_everything(self) -> None:
        run = run_of(figure(1.0, 2.0, 4.0), figure(5.0, quantity=RATE))
        assert from_document(json.loads(json.dumps(to_document([run])))) == (run,)

    @pytest.mark.parametrize(
        "document", [[], {}, {"format": 0, "runs": []}, {"format": 1}, {"format": 1, "runs": [{}]}]
    )
    def test_other_documents_are_refused(self, document: object) -> None:
        with pytest.raises(ValueError, match="bench report"):
            from_document(document)

    def test_a_table_has_a_cell_for_each_figure(self) -> None:
        (table,) = tables_of(
            [figure(1.0, setting="a"), figure(2.0, setting="b"), figure(3.0, setting="b", subject="x")]
        )
        assert table.columns == ("", "stm", "x")
        assert table.rows == (("a", "1.00", ""), ("b", "2.00", "3.00"))


class TestCompare:
    @pytest.mark.parametrize(
        ("before", "after", "quantity", "verdict"),
        [
            ((10, 11, 12), (20, 21, 22), TIME, "worse"),
            ((20, 21, 22), (10, 11, 12), TIME, "better"),
            ((10, 11, 12), (20, 21, 22), RATE, "better"),
            ((20, 21, 22), (10, 11, 12), RATE, "worse"),
            ((10, 11, 12), (20, 21, 22), SIZE, "moved"),
            ((10, 11, 20), (19, 21, 22), TIME, "same"),  # the repeats overlap
            ((100, 100, 100), (102, 102, 102), TIME, "same"),  # apart, but by too little
            ((0, 0, 0), (0, 0, 0), TIME, "same"),
            ((0, 0, 0), (1, 1, 1), TIME, "worse"),
            ((10, 11), (20, 21, 22), TIME, "unknown"),
        ],
    )
    def test_verdicts(
        self, before: tuple[float, ...], after: tuple[float, ...], quantity: Quantity, verdict: str
    ) -> None:
        assert compare.judge(figure(*before, quantity=quantity), figure(*after, quantity=quantity))[1] == verdict

    def test_only_figures_in_both_are_compared(self) -> None:
        old, new = run_of(figure(1, 1, 1), figure(1, setting="old")), run_of(figure(2, 2, 2), figure(1, setting="new"))
        (change,) = compare.changes(old, new)
        assert (change.key.setting, change.verdict, change.shift) == ("here", "worse", 1.0)

    def test_runs_are_matched_by_interpreter(self) -> None:
        a, b, c = (run_of(label=label) for label in "ABC")
        assert compare.matching([a, b], [b, c]) == [(b, b)]
        assert compare.matching([a, b], [c]) == []
        assert compare.matching([a], [c]) == [(a, c)]

    def test_other_circumstances_are_pointed_out(self) -> None:
        assert list(compare.warnings(run_of(), run_of())) == []
        assert list(compare.warnings(run_of(), run_of(cores=4))) == ["different cores: 2, 4"]
        (warning,) = compare.warnings(run_of(), run_of(others=0.9))
        assert "other programs" in warning

    def test_the_command_shows_what_moved(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for name, run in (("a", run_of(figure(1, 1, 1))), ("b", run_of(figure(2, 2, 2)))):
            (tmp_path / name).write_text(json.dumps(to_document([run])))
        assert cli.main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
        shown = capsys.readouterr().out
        assert "1 moved" in shown
        assert re.search(r"worse +\+100% +some +here", shown)

    @pytest.mark.parametrize("content", ["", "{}", None])
    def test_the_command_refuses_other_files_in_one_line(
        self, content: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "report.json"
        if content is not None:
            path.write_text(content)
        assert cli.main(["compare", str(path), str(path)]) == 1
        assert len(capsys.readouterr().err.splitlines()) == 1


class TestBars:
    BAR = bars.Bar("b", "some", TIME.name, "stm", 10, "most")

    def hold(self, *figures: Figure, bar: bars.Bar = BAR, gil: bool = True, broken: str = "") -> list[BarOutcome]:
        return list(bars.hold(run_of(*figures, broken=broken).results, gil=gil, bars=[bar]))

    @pytest.mark.parametrize(("value", "met"), [(9.0, True), (10.0, True), (11.0, False)])
    def test_the_median_is_held_against_the_limit(self, value: float, met: bool) -> None:
        (outcome,) = self.hold(figure(0.0, value, 99.0))
        assert (outcome.value, outcome.met, outcome.verdict) == (value, met, "met" if met else "MISSED")

    def test_the_worst_setting_counts(self) -> None:
        (outcome,) = self.hold(figure(5.0, setting="good"), figure(15.0, setting="bad"))
        assert (outcome.met, outcome.where) == (False, "bad; 1 thread")

    def test_least_turns_the_limit_round(self) -> None:
        (outcome,) = self.hold(figure(5.0), figure(15.0, setting="good"), bar=replace(self.BAR, at="least"))
        assert (outcome.value, outcome.met) == (5.0, False)

    def test_a_promise_is_broken_by_one_repeat(self) -> None:
        (outcome,) = self.hold(figure(0.0, 0.0, 99.0), bar=replace(self.BAR, always=True))
        assert not outcome.met

    def test_a_bar_for_another_build_is_left_out(self) -> None:
        bar = replace(self.BAR, build="free-threaded")
        assert not self.hold(figure(1.0), bar=bar, gil=True)
        assert self.hold(figure(1.0), bar=bar, gil=False)

    def test_unmeasured_and_broken_are_left_out(self) -> None:
        assert not self.hold(figure(1.0, subject="lock"))
        assert not self.hold(figure(1.0), broken="money was lost")


class TestInvariants:
    def test_lost_money_is_noticed(self) -> None:
        with pytest.raises(InvariantError, match="together hold"):
            bank.audit([OPENING_BALANCE, OPENING_BALANCE - 1], [OPENING_BALANCE] * 2)

    def test_a_transfer_lost_whole_is_noticed(self) -> None:
        with pytest.raises(InvariantError, match="account 0"):
            bank.audit([OPENING_BALANCE] * 2, bank.after_moves(2, [(0, 1)]))

    def test_draws_are_different_indices_and_repeatable(self) -> None:
        for skewed in (False, True):
            pairs = bank.draw(16, 200, 2, skewed=skewed)
            assert all(first != second for first, second in pairs)
            assert pairs == bank.draw(16, 200, 2, skewed=skewed)
            assert pairs != bank.draw(16, 200, 2, skewed=skewed, seed=1)

    def test_skewed_draws_prefer_low_indices(self) -> None:
        first = sum(0 in pair for pair in bank.draw(16, 500, 2, skewed=True))
        last = sum(15 in pair for pair in bank.draw(16, 500, 2, skewed=True))
        assert first > 2 * last

    @pytest.mark.parametrize("name", workloads.WORKLOADS)
    def test_every_point_of_every_workload_keeps_its_invariant(self, name: str) -> None:
        workload = workloads.WORKLOADS[name](TINY)
        result = harness.measure(workload)
        assert not result.broken
        assert result.figures or result.skipped
        if not result.skipped:
            assert {point.variant for point in workload.points()} == set(workload.variants) - set(result.unmeasured)

    @pytest.mark.parametrize("bar", bars.BARS, ids=lambda bar: bar.name)
    def test_every_bar_is_about_a_figure_that_exists(self, bar: bars.Bar) -> None:
        quantities = {value.name for module in vars(workloads).values() for value in vars_of(module)}
        assert bar.quantity in quantities
        assert bar.workload in workloads.WORKLOADS

    @pytest.mark.parametrize("name", ["transfer", "read-mostly", "picture"])
    def test_a_broken_library_fails_loudly(
        self, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def leaky(size: int) -> Bank:
            sound = bank.stm_bank(size)

            def loses(source: bank.TVar[int], target: bank.TVar[int]) -> None:
                source.set(source.get() - 1)

            def visit(accounts: list[bank.TVar[int]], moves: bool) -> int:
                loses(accounts[0], accounts[1])
                return 0

            return replace(sound, transfer=loses, visit=visit)

        monkeypatch.setitem(bank.BANKS, "stm", leaky)
        assert cli.main(["--workload", name, "--scale", "0.001", "--repeat", "1", "--out", str(tmp_path)]) == 1
        assert f"BROKEN: {name}" in capsys.readouterr().err
        (page,) = tmp_path.glob("*.html")
        assert f"{name} is BROKEN" in page.read_text()

    def test_a_workload_that_raises_does_not_hide_the_others(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setitem(workloads.WORKLOADS, "raises", Raises)
        arguments = ["--workload", "raises", "--workload", "memory", "--scale", "0.01", "--repeat", "1"]
        assert cli.main([*arguments, "--out", str(tmp_path)]) == 1
        captured = capsys.readouterr()
        assert "BROKEN: raises" in captured.err
        assert "ZeroDivisionError" in captured.err
        assert "memory of one object" in captured.out


class Raises(Workload):
    name: ClassVar[str] = "raises"
    shows: ClassVar[str] = "Nothing."
    variants: ClassVar[tuple[str, ...]] = ("only",)

    def points(self) -> Iterable[Point]:
        yield Point("here", "only", 1)

    def run(self, point: Point) -> Measurement:
        return {TIME: 1 / 0}

    def check(self) -> None:
        pass


def vars_of(module: object) -> list[Quantity]:
    return [value for value in getattr(module, "__dict__", {}).values() if isinstance(value, Quantity)]


class TestTransferArithmetic:
    def test_the_ratio_is_net_of_the_empty_loop(self) -> None:
        samples = Samples()
        # Nanoseconds per transfer: 100 in the loop alone, 1,100 and 200 with it.
        for variant, nanoseconds in (
            (transfer.EMPTY, 100),
            ("nothing", 150),
            ("stm", 1_100),
            ("lock", 200),
            ("fine", 300),
        ):
            for setting in transfer.SETTINGS:
                samples.add(Point(setting, variant, 1), {transfer.RATE: 1e9 / nanoseconds})
        summary = transfer.Transfer(replace(TINY, threads=(1,))).summarise(samples)
        net = [figure.spread.median for figure in summary.figures if figure.quantity is transfer.NET_RATIO]
        assert net == [pytest.approx(10.0)] * len(transfer.SETTINGS)


@pytest.fixture(scope="module", autouse=True)
def _quick_collections() -> Iterator[None]:
    """Every measured run begins with a full collection: spare it what pytest and numba have in memory."""
    compiled.lacking()  # has imported it
    gc.freeze()
    yield
    gc.unfreeze()


@contextmanager
def brief() -> Iterator[None]:
    """Leave out what takes seconds at any scale, and is tested in `test_bench_compiled`: a million accounts, and
    processes that compile everything.
    """
    few = {setting: accounts for setting, accounts in compiled_transfer.SETTINGS.items() if accounts < 1_000_000}
    times = {"load": 1.0, "call": 2.0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled_transfer, "SETTINGS", few)
        patch.setattr(compiled_call, "first_call", lambda cache=None: times)
        yield


@pytest.fixture(scope="module", autouse=True)
def _brief() -> Iterator[None]:
    with brief():
        yield


def _measure_everything(folder: str) -> None:
    with brief():
        sys.exit(cli.main(["--scale", "0.001", "--repeat", "2", "--threads", "2,1", "--out", folder]))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reports of a process of its own: the harness collects garbage before each point, and here is a lot."""
    folder = tmp_path_factory.mktemp("reports")
    process = multiprocessing.get_context("spawn").Process(target=_measure_everything, args=(str(folder),))
    process.start()
    process.join()
    assert process.exitcode == 0
    return folder


@pytest.mark.timeout(600)  # it measures everything, and compiles all of that first
class TestCommandLine:
    def test_json_and_html_are_written(self, written: Path) -> None:
        assert sorted(path.suffix for path in written.iterdir()) == [".html", ".json"]

    def test_json_has_every_workload_and_repeat(self, written: Path) -> None:
        (path,) = written.glob("*.json")
        (run,) = from_document(json.loads(path.read_text()))
        assert [result.workload for result in run.results] == list(workloads.WORKLOADS)
        figures = [figure for result in run.results for figure in result.figures]
        assert {len(one.values) for one in figures if "empty cache" not in one.quantity.name} == {2}
        assert run.options == {"threads": [1, 2], "repeats": 2, "scale": 0.001}
        assert run.bars

    def test_html_needs_nothing_else(self, written: Path) -> None:
        (path,) = written.glob("*.html")
        page = path.read_text()
        assert not re.search(r"https?:|@import|<script|<link|\bsrc=", page)
        assert all(target.startswith("#") for target in re.findall(r'href="([^"]*)"', page))

    def test_html_has_plots(self, written: Path) -> None:
        pytest.importorskip("matplotlib")
        (path,) = written.glob("*.html")
        page = path.read_text()
        (path,) = written.glob("*.json")
        (run,) = from_document(json.loads(path.read_text()))
        assert page.count("<svg") == sum(len(result.charts) for result in run.results)
        assert all(result.charts for result in run.results if not result.skipped)
        identifiers = re.findall(r'\bid="([^"]*)"', page)
        assert len(identifiers) == len(set(identifiers))
        assert set(re.findall(r'(?:href="|url\()#([^")]*)', page)) <= set(identifiers)

    def test_reports_identify_nobody(self, written: Path) -> None:
        for path in written.iterdir():
            text = path.read_text()
            for private in (sys.prefix, str(Path.home()) + "/", str(Path(cli.__file__).parent), str(written)):
                assert private not in text
            assert not (len(platform.node()) > 3 and platform.node() in text)

    def test_a_report_compared_with_itself_has_not_moved(
        self, written: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (path,) = map(str, written.glob("*.json"))
        assert cli.main(["compare", path, path]) == 0
        assert ", 0 moved" in capsys.readouterr().out

    def test_without_matplotlib_there_are_tables(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        assert cli.main(["--workload", "memory", "--scale", "0.01", "--repeat", "1", "--out", str(tmp_path)]) == 0
        assert report.NO_PLOTS in capsys.readouterr().out
        (page,) = tmp_path.glob("*.html")
        assert "<svg" not in page.read_text()
        assert "memory of one object" in page.read_text()

    def test_without_rich_progress_is_plain(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setitem(sys.modules, "rich.console", None)
        assert cli.main(["--workload", "memory", "--scale", "0.01", "--repeat", "1", "--out", str(tmp_path)]) == 0
        assert "memory: " in capsys.readouterr().err

    def test_other_interpreters_run_in_processes_of_their_own(self, tmp_path: Path) -> None:
        arguments = ["--workload", "memory", "--scale", "0.01", "--repeat", "1", "--out", str(tmp_path)]
        assert cli.main([*arguments, "--python", sys.executable, "--python", sys.executable]) == 0
        (path,) = tmp_path.glob("*.json")
        first, second = from_document(json.loads(path.read_text()))
        assert first.label == second.label
        assert [result.workload for result in second.results] == ["memory"]

    def test_an_interpreter_that_cannot_run_them_is_an_error(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        impostor = tmp_path / "python"
        impostor.write_text("#!/bin/sh\nexit 3\n")
        impostor.chmod(0o755)
        assert cli.main(["--python", str(impostor), "--out", str(tmp_path)]) == 1
        assert "exit status 3" in capsys.readouterr().err

    def test_the_list_names_every_workload(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["--list"]) == 0
        shown = capsys.readouterr().out
        assert all(workload.shows in shown for workload in workloads.WORKLOADS.values())

    @pytest.mark.parametrize(
        "arguments",
        [
            ["--workload", "nonesuch"], ["--threads", "0"], ["--threads", "1,x"], ["--threads", ""], ["--repeat", "-1"],
            ["--repeat", "many"], ["--scale", "0"], ["--scale", "nan"], ["--python", "no/such/python"], ["--fast"],
            ["surplus"], ["compare"], ["compare", "a", "b", "c"], ["compare", "a", "b", "--threshold", "-1"],
        ],
        ids=" ".join,
    )  # fmt: skip
    def test_wrong_arguments_give_one_clear_line(
        self, arguments: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as stopped:
            cli.main(arguments)
        assert stopped.value.code == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert lines[0].startswith("python -m bench")

    def test_a_folder_that_cannot_be_made_is_one_line(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "file").touch()
        assert cli.main(["--out", str(tmp_path / "file" / "folder")]) == 1
        assert len(capsys.readouterr().err.splitlines()) == 1

    @pytest.mark.parametrize(
        ("available", "counts"), [(1, (1, 2)), (2, (1, 2)), (3, (1, 2)), (4, (1, 2, 4)), (9, (1, 2, 4, 8))]
    )
    def test_thread_counts_double_up_to_the_cores(self, available: int, counts: tuple[int, ...]) -> None:
        assert cli.default_threads(available) == counts
