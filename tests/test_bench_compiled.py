"""The workloads of the compiled tier: what they check, what they make of their figures, and what they say where
something is missing, be it a compiler, a library, or a whole example.

No test here looks at how long anything took. The runs of all their points are in `test_bench`.
"""

import gc
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import bars, cli, harness, peers, workloads
from bench.harness import InvariantError, Plan, Point, Samples
from bench.results import BarOutcome, Result, from_document, to_document
from bench.tables import as_text, table_of_bars
from bench.workloads import compiled, compiled_call, compiled_transfer, routing, shared_clock
from bench.workloads.compiled_transfer import LOCK, MAP, TO_LOCK, TO_PEERS, CompiledTransfer, setting_of
from bench.workloads.neighbour import Neighbour

pytestmark = pytest.mark.skipif(bool(compiled.lacking()), reason=compiled.lacking() or "-")

TINY = Plan(threads=(1, 2), repeats=1, scale=0.0001)


@pytest.fixture(scope="module", autouse=True)
def _quick_collections() -> Iterator[None]:
    """Every measured run begins with a full collection: spare it what pytest and numba have in memory."""
    compiled.lacking()  # has imported it
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def few_accounts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_transfer, "SETTINGS", {setting_of(16): 16})


@pytest.fixture
def no_compilers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, few_accounts: None) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


def hold(result: Result) -> dict[str, BarOutcome]:
    return {outcome.name: outcome for outcome in bars.hold([result], gil=True)}


def rates(**of_variants: Sequence[float]) -> dict[str, Sequence[float]]:
    names = {"ours": MAP, "lock": LOCK}
    return {names.get(name, name): values for name, values in of_variants.items()}


class TestTransfer:
    @pytest.mark.parametrize(("accounts", "threads"), [(2, 1), (1_000, 2), (1_000_000, 2)])
    def test_ours_do_the_transfers_of_the_peers(self, accounts: int, threads: int) -> None:
        for system in (compiled_transfer.by_map, compiled_transfer.under_lock):
            balances, seconds, transfers = system(accounts, threads, peers.ROUTES + 17)
            assert (seconds > 0, transfers) == (True, peers.ROUTES + 17)
            assert compiled_transfer.sum_and_digest(balances) == (
                peers.OPENING_BALANCE * accounts,
                peers.expected_digest(accounts, threads, transfers),
            )

    def test_many_rows_are_many_calls(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(compiled_transfer, "ROWS", peers.ROUTES)
        balances, _, transfers = compiled_transfer.by_map(16, 2, 2 * peers.ROUTES + 1)
        assert transfers == 3 * peers.ROUTES
        assert compiled_transfer.sum_and_digest(balances)[1] == peers.expected_digest(16, 2, transfers)

    @pytest.mark.parametrize(
        ("wrong", "message"), [((1, 0), "together hold"), ((-1, 1), "some transfer took place not exactly once")]
    )
    def test_wrong_balances_are_noticed(
        self, wrong: tuple[int, int], message: str, monkeypatch: pytest.MonkeyPatch, no_compilers: None
    ) -> None:
        sound = compiled_transfer.by_map

        def unsound(*arguments: int) -> tuple[Any, float, int]:
            balances, seconds, transfers = sound(*arguments)
            balances[:2] += wrong
            return balances, seconds, transfers

        monkeypatch.setattr(compiled_transfer, "by_map", unsound)
        result = harness.measure(CompiledTransfer(TINY))
        assert message in result.broken
        assert not hold(result)

    def test_figures_of_given_rates(self) -> None:
        found = compiled_transfer.compared(rates(ours=(100,), gcc=(50,), ghc=(20,), lock=(4,)))
        assert found == {
            "compiled / GCC": (2.0,),
            "compiled / GHC": (5.0,),
            TO_PEERS: (2.0,),
            TO_LOCK: (25.0,),
        }

    def test_the_better_peer_has_the_better_median(self) -> None:
        found = compiled_transfer.compared(rates(ours=(60, 60, 60), gcc=(10, 50, 60), ghc=(40, 40, 90)))
        assert found[TO_PEERS] == (6.0, 1.2, 1.0)

    @pytest.mark.parametrize("missing", ["gcc", "ghc"])
    def test_of_one_peer_none_is_the_better(self, missing: str) -> None:
        measured = rates(ours=(100,), gcc=(50,), ghc=(20,))
        del measured[missing]
        assert TO_PEERS not in compiled_transfer.compared(measured)

    @pytest.mark.parametrize(
        ("accounts", "threads", "limit"),
        [(16, 1, 2), (16, 2, 2), (1_000, 1, 3), (1_000, 2, 2), (1_000_000, 1, 1.5), (1_000_000, 2, 3)],
    )
    @pytest.mark.parametrize("short", [0.0, 0.01])
    def test_bars_of_given_rates(self, accounts: int, threads: int, limit: float, short: float) -> None:
        samples = Samples()
        for variant, rate in ((MAP, 50 * (limit - short)), ("gcc", 20), ("ghc", 50), (LOCK, 1)):
            samples.add(Point(setting_of(accounts), variant, threads), {compiled_transfer.RATE: rate})
        summary = CompiledTransfer(TINY).summarise(samples)
        held = hold(Result("compiled-transfer", "", tuple(summary.figures)))
        (outcome,) = (one for name, one in held.items() if "peer" in name)
        assert (outcome.value, outcome.met) == (pytest.approx(limit - short), not short)
        assert outcome.where == f"{accounts:,} accounts; {threads} thread{'s' if threads > 1 else ''}"

    @pytest.mark.parametrize(("rate", "verdict"), [(80, "met"), (19, "MISSED")])
    def test_the_lock_is_beaten_tenfold_at_every_size(self, rate: float, verdict: str) -> None:
        samples = Samples()
        for accounts, ours in ((16, 80), (1_000, 80), (1_000_000, rate)):
            for variant, value in ((MAP, ours), (LOCK, 2)):
                samples.add(Point(setting_of(accounts), variant, 1), {compiled_transfer.RATE: value})
        summary = CompiledTransfer(TINY).summarise(samples)
        (outcome,) = hold(Result("compiled-transfer", "", tuple(summary.figures))).values()
        assert outcome.verdict == verdict

    def test_without_compilers_bars_are_not_measured(self, no_compilers: None) -> None:
        workload = CompiledTransfer(TINY)
        result = harness.measure(workload)
        assert not result.broken
        assert {figure.subject for figure in result.figures if figure.quantity is compiled_transfer.RATE} == {MAP, LOCK}
        assert {point.variant for point in workload.points()} == {MAP, LOCK}
        held = hold(result)
        unmeasured = {name: one for name, one in held.items() if one.value is None}
        assert len(unmeasured) == 6
        assert {one.verdict for one in unmeasured.values()} == {"not measured"}
        assert {one.verdict for name, one in held.items() if name not in unmeasured} <= {"met", "MISSED"}
        for name in ("gcc", "ghc"):
            assert all(f"the compiler {name} is not there" in one.where for one in unmeasured.values())
            assert any(f"the compiler {name} is not there" in finding for finding in result.findings)

    def test_a_peer_that_cannot_be_built_is_not_measured(
        self, monkeypatch: pytest.MonkeyPatch, few_accounts: None
    ) -> None:
        def fails(systems: Sequence[str]) -> None:
            raise peers.PeerError(f"{systems[0]}: the compiler can't compile it:\nline 1: this\nline 2: that")

        monkeypatch.setattr(peers, "build", fails)
        result = harness.measure(CompiledTransfer(replace(TINY, threads=(1,))))
        assert not result.broken
        assert result.unmeasured["ghc"] == "ghc: the compiler can't compile it"

    def test_the_short_cuts_are_told(self, no_compilers: None) -> None:
        said = " ".join(harness.measure(CompiledTransfer(replace(TINY, threads=(1,)))).findings)
        for fact in ("not transactional", "ml_wt", "holds the clock"):
            assert fact in said


class TestCall:
    def test_a_first_call_in_a_fresh_process(self, tmp_path: Path) -> None:
        cold = compiled_call.first_call(str(tmp_path))
        assert any(tmp_path.rglob("*.nbc"))
        warm = compiled_call.first_call(str(tmp_path))
        assert cold.keys() == warm.keys() == {"load", "call"}
        assert min(*cold.values(), *warm.values()) > 0

    def test_a_process_that_fails_is_reported(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        program = tmp_path / "python"
        program.write_text("#!/bin/sh\necho 'Sorry: no such thing' >&2\nexit 3\n")
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))
        with pytest.raises(InvariantError, match="Sorry: no such thing"):
            compiled_call.first_call()

    @pytest.mark.parametrize(("nanoseconds", "verdict"), [(1_100, "met"), (1_102, "MISSED")])
    def test_the_bar_is_net_of_the_loop(self, nanoseconds: float, verdict: str) -> None:
        samples = Samples()
        times = {compiled_call.EMPTY: 101.0, compiled_call.CALL: nanoseconds}
        for variant, time in {**times, compiled_call.TVARS: 2_101.0, compiled_call.LOCK: 301.0}.items():
            samples.add(Point(compiled_call.ALONE, variant, 1), {compiled_call.RATE: 1e9 / time})
        summary = compiled_call.CompiledCall(TINY).summarise(samples)
        (outcome,) = hold(Result("compiled-call", "", tuple(summary.figures))).values()
        assert (outcome.value, outcome.verdict) == (pytest.approx(nanoseconds - 101), verdict)
        assert "never" in " ".join(summary.findings)

    def test_the_crossing_is_named(self) -> None:
        workload = compiled_call.CompiledCall(TINY)
        samples = Samples()
        for setting, length in workload.lengths.items():
            samples.add(Point(setting, compiled_call.CALL, 1), {compiled_call.RATE: 1e6})
            samples.add(Point(setting, compiled_call.MAP, 1), {compiled_call.RATE: 2e4 * length})
        assert "from 100 rows on" in " ".join(workload.summarise(samples).findings)


class TestSharedClock:
    def test_one_process_has_the_tier_and_the_other_has_not(self) -> None:
        workload = shared_clock.SharedClock(TINY)
        (point,) = workload.points()
        measured = workload.run(point)
        workload.check()
        assert set(measured) == {shared_clock.BEFORE, shared_clock.AFTER, shared_clock.MIXED}
        assert min(measured.values()) > 0
        alone, beside = workload.found
        assert len(beside["held"]) == 2 * len(alone["held"])
        beside["held"][-1] += 1
        with pytest.raises(InvariantError, match="balances"):
            workload.check()
        beside["held"][-1] -= 1
        beside["mixed"] -= 1
        with pytest.raises(InvariantError, match="mixed transactions"):
            workload.check()

    def test_a_process_that_ends_is_reported(self, capfd: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(InvariantError, match="status 2"):
            Neighbour(shared_clock.PROGRAM, "nonsense")
        assert "not an argument" in capfd.readouterr().err

    @pytest.mark.parametrize(("after", "verdict"), [((110.0, 90.0, 200.0), "met"), ((111.0, 90.0, 200.0), "MISSED")])
    def test_the_bar_is_the_ratio(self, after: Sequence[float], verdict: str) -> None:
        samples = Samples()
        for value in after:
            samples.add(
                Point(shared_clock.SETTING, shared_clock.PAIR, 1),
                {shared_clock.BEFORE: 100.0, shared_clock.AFTER: value, shared_clock.MIXED: 5.0},
            )
        summary = shared_clock.SharedClock(TINY).summarise(samples)
        (outcome,) = hold(Result("shared-clock", "", tuple(summary.figures))).values()
        assert outcome.verdict == verdict


class TestRouting:
    def test_a_wrong_board_is_noticed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        route_board = pytest.importorskip("examples.route_board")
        sound = route_board.route_all

        def unsound(board: Any, threads: int) -> tuple[Any, Any, float]:
            cells, laid, seconds = sound(board, threads)
            cells[cells == 1] = 0
            return cells, laid, seconds

        monkeypatch.setattr(route_board, "route_all", unsound)
        result = harness.measure(routing.Routing(TINY))
        assert "of the routed board" in result.broken
        assert not hold(result)

    def test_without_the_example_it_is_skipped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "examples.route_board", None)
        result = harness.measure(routing.Routing(TINY))
        assert "examples" in result.skipped
        assert {one.verdict for one in hold(result).values()} == {"not measured"}

    @pytest.mark.parametrize(
        ("setting", "seconds", "verdict"),
        [
            (routing.ROOMY, 2.0, "met"),
            (routing.ROOMY, 2.01, "MISSED"),
            (routing.CROWDED, 3.75, "met"),
            (routing.CROWDED, 3.8, "MISSED"),
        ],
    )
    def test_bars_of_given_times(self, setting: str, seconds: float, verdict: str) -> None:
        samples = Samples()
        samples.add(Point(setting, routing.ALONE, 1), {routing.TIME: 3.0, routing.LAID: 100.0})
        for threads, time in ((1, 99.0), (2, seconds)):
            samples.add(Point(setting, routing.THREADS, threads), {routing.TIME: time, routing.LAID: 100.0})
        summary = routing.Routing(TINY).summarise(samples)
        (outcome,) = hold(Result("routing", "", tuple(summary.figures))).values()
        assert outcome.verdict == verdict


COMPILED = ("shared-clock", "compiled-call", "compiled-transfer", "routing")


class TestWithoutNumba:
    @pytest.fixture(autouse=True)
    def _no_numba(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "numba", None)

    @pytest.mark.parametrize("name", COMPILED)
    def test_it_is_skipped_with_the_reason(self, name: str) -> None:
        result = harness.measure(workloads.WORKLOADS[name](TINY))
        assert (result.broken, result.figures) == ("", ())
        assert "numba is not installed" in result.skipped
        assert result.skipped in result.findings[0]
        held = hold(result)
        assert held
        assert {(one.value, one.verdict, one.where) for one in held.values()} == {
            (None, "not measured", result.skipped)
        }

    def test_the_report_says_so(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        arguments = [word for name in COMPILED for word in ("--workload", name)]
        assert cli.main([*arguments, "--scale", "0.001", "--repeat", "1", "--out", str(tmp_path)]) == 0
        shown = capsys.readouterr()
        assert "Skipped: numba is not installed" in shown.out
        assert "not measured" in shown.out
        assert "compiled-call: skipped" in shown.err
        (page,) = tmp_path.glob("*.html")
        assert "numba is not installed" in page.read_text()
        (document,) = tmp_path.glob("*.json")
        (run,) = from_document(json.loads(document.read_text()))
        assert all(result.skipped for result in run.results)
        assert from_document(to_document([run])) == (run,)


def test_an_unmeasured_bar_has_no_figure_in_the_table() -> None:
    table = table_of_bars([BarOutcome("a bar", None, "at least 2", False, "no compiler")])
    assert table.rows == (("a bar", "", "at least 2", "not measured", "no compiler"),)
    assert "MISSED" not in as_text(table)


def test_a_workload_goes_by_its_modules_name_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []
    monkeypatch.setattr(cli, "_bench", lambda options: ran.extend(options.workload) or 0)
    assert cli.main(["--workload", "compiled_transfer", "--workload", "shared-clock"]) == 0
    assert ran == ["compiled-transfer", "shared-clock"]
