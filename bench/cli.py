"""The command line: `python -m bench`, and `python -m bench compare A.json B.json`.

Exit status: 0 if all invariants held, however the bars came out; 1 if one broke, or an interpreter could not run the
workloads; 2 for wrong arguments.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench import bars, compare, report
from bench.console import progress
from bench.environment import ROOT, Others, cores, disturbance, environment, gil_enabled, importable_here
from bench.harness import Plan, measure
from bench.results import Run, from_document, to_document
from bench.tables import as_text, table_of_bars, tables_of
from bench.workloads import WORKLOADS

REPEATS: Final = 5
QUICK_REPEATS: Final = 3
QUICK_SCALE: Final = 0.2

OK, FAILED = 0, 1


class BenchError(RuntimeError):
    """Ends the program with this message and status 1."""


def main(arguments: Sequence[str]) -> int:
    """Run the program; returns its exit status. Wrong arguments raise `SystemExit`, as argparse does."""
    try:
        if arguments[:1] == ["compare"]:
            return _compare(_compare_parser().parse_args(arguments[1:]))
        options = _parser().parse_args(arguments)
        if options.list:
            for workload in WORKLOADS.values():
                print(f"{workload.name:18} {workload.shows}\n{'':18} variants: {', '.join(workload.variants)}")
            return OK
        return _bench(options)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("bench: interrupted, nothing written", file=sys.stderr)
        return 130


# Arguments


def _thread_counts(text: str) -> tuple[int, ...]:
    return tuple(sorted({_positive(part) for part in text.split(",")}))


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return value


def _factor(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _interpreter(text: str) -> str:
    found = shutil.which(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not an interpreter that can be run")
    return str(Path(found).absolute())  # not resolved: the link is what makes it a virtual environment's


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m bench",
        description="Measure transactions against locks, and write a report as JSON and HTML.",
        epilog="python -m bench compare A.json B.json shows what moved between two reports.",
        allow_abbrev=False,
    )
    parser.add_argument("--list", action="store_true", help="list the workloads and end")
    parser.add_argument("--quick", action="store_true", help="fewer operations and repeats: some three minutes")
    parser.add_argument(
        "--workload",
        action="append",
        type=lambda text: text.replace("_", "-"),  # the modules' names will do
        choices=tuple(WORKLOADS),
        metavar="NAME",
        help="run only this one; repeatable",
    )
    parser.add_argument(
        "--threads", type=_thread_counts, metavar="N,N", help="thread counts (default: 1, 2, 4... cores)"
    )
    parser.add_argument(
        "--repeat", type=_positive, metavar="N", help=f"repeats (default {REPEATS}; quick {QUICK_REPEATS})"
    )
    parser.add_argument(
        "--scale", type=_factor, metavar="X", help="multiply the numbers of operations of the full run by X"
    )
    parser.add_argument(
        "--python", action="append", type=_interpreter, metavar="PATH", help="run under this interpreter; repeatable"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("reports"), metavar="DIR", help="where to write (default: reports)"
    )
    # How `--python` gets its results back: this process runs the workloads, the one that started it reports.
    parser.add_argument("--raw", type=Path, help=argparse.SUPPRESS)
    return parser


def _compare_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m bench compare",
        description="Show which figures differ between two reports by more than the noise between their repeats.",
    )
    parser.add_argument("before", type=Path, metavar="A.json")
    parser.add_argument("after", type=Path, metavar="B.json")
    parser.add_argument(
        "--threshold",
        type=_factor,
        default=compare.THRESHOLD,
        metavar="SHARE",
        help=f"leave out smaller shifts (default {compare.THRESHOLD})",
    )
    return parser


def default_threads(available: int) -> tuple[int, ...]:
    """1, 2, 4 and so on up to the cores at hand, but never less than 1 and 2."""
    return tuple(2**power for power in range(max(2, available.bit_length())))


def plan_of(options: argparse.Namespace) -> Plan:
    return Plan(
        threads=options.threads or default_threads(cores()),
        repeats=options.repeat or (QUICK_REPEATS if options.quick else REPEATS),
        scale=options.scale or (QUICK_SCALE if options.quick else 1.0),
    )


# Measuring


def _bench(options: argparse.Namespace) -> int:
    plan = plan_of(options)
    names = list(dict.fromkeys(options.workload or WORKLOADS))
    if options.raw is not None:
        runs = [run_here(names, plan)]
        _write(options.raw, _as_json(runs))
        return OK
    try:
        options.out.mkdir(parents=True, exist_ok=True)  # now, rather than after minutes of measuring
    except OSError as error:
        raise BenchError(f"can't make the folder {options.out}: {error.strerror}") from None
    # `None`: the interpreter that runs this.
    runs = [run_under(python, names, plan) if python else run_here(names, plan) for python in options.python or [None]]
    for run in runs:
        print(in_text(run))
    stem = f"bench-{runs[0].environment['date'].partition('+')[0].replace(':', '').replace('T', '-')}"
    written = {options.out / f"{stem}.json": _as_json(runs), options.out / f"{stem}.html": report.render(runs)}
    for path, text in written.items():
        _write(path, text)
    try:
        report.plotting()
    except report.NoPlotsError as missing:
        print(missing)
    print("Written:", *written)
    broken = [(run, result) for run in runs for result in run.results if result.broken]
    for run, result in broken:
        print(f"bench: BROKEN: {result.workload} on {run.label}: {result.broken}", file=sys.stderr)
    return FAILED if broken else OK


def run_here(names: Sequence[str], plan: Plan) -> Run:
    """Measure with this interpreter."""
    place, others = environment(), Others()
    results = []
    with progress(place["label"], names) as watcher:
        for name in names:
            workload = WORKLOADS[name](plan)
            watcher.begin(name, len(list(workload.points())) * plan.repeats)
            results.append(measure(workload, watcher.step))
            watcher.end(results[-1])
    place["others"] = round(others.cores(), 2)
    chosen = {"threads": list(plan.threads), "repeats": plan.repeats, "scale": plan.scale}
    return Run(place, chosen, tuple(results), tuple(bars.hold(results, gil=gil_enabled())))


def run_under(python: str, names: Sequence[str], plan: Plan) -> Run:
    """Measure with another interpreter, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.json"
        command = [python, "-m", "bench", "--raw", str(raw), "--repeat", str(plan.repeats), "--scale", repr(plan.scale)]
        command += ["--threads", ",".join(map(str, plan.threads))]
        for name in names:
            command += ["--workload", name]
        try:
            status = subprocess.run(command, cwd=ROOT, env=importable_here(), check=False).returncode
        except OSError as error:
            raise BenchError(f"can't start {python}: {error.strerror}") from None
        if status or not raw.exists():
            raise BenchError(f"{python} could not run the workloads (exit status {status}): see its message above")
        return from_document(json.loads(raw.read_text(encoding="utf-8")))[0]


# Reporting


def in_text(run: Run) -> str:
    """Everything that a run has to say, for the terminal."""
    place = run.environment
    heading = (
        f"\n{run.label}, GIL {'on' if place['gil'] else 'off'}, {place['cores']} cores, {place['platform']}, "
        f"library {place['library']}; median [minimum..maximum] of {run.options['repeats']}"
    )
    parts = [heading, disturbance(place["others"])]
    for result in run.results:
        parts.append(f"\n== {result.workload}: {result.shows}")
        parts += [as_text(table) for table in tables_of(result.figures)]
        parts += [f"- {finding}" for finding in result.findings]
        if result.broken:
            parts.append(f"BROKEN: {result.broken}")
    if run.bars:
        parts.append("\n" + as_text(table_of_bars(run.bars)))
    return "\n".join(parts) + "\n"


def _as_json(runs: Sequence[Run]) -> str:
    return json.dumps(to_document(runs), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BenchError(f"can't write {path}: {error.strerror}") from None


def _read(path: Path) -> tuple[Run, ...]:
    try:
        return from_document(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise BenchError(f"can't read {path}: {error.strerror}") from None
    except ValueError as error:
        raise BenchError(f"{path}: {error}") from None


def _compare(options: argparse.Namespace) -> int:
    pairs = compare.matching(_read(options.before), _read(options.after))
    if not pairs:
        raise BenchError("the reports have no interpreter in common")
    for before, after in pairs:
        print(f"\n{after.label}, {before.environment['date']} and {after.environment['date']}")
        for warning in compare.warnings(before, after):
            print(f"Caution: {warning}")
        summary, table = compare.describe(compare.changes(before, after, options.threshold))
        print(as_text(table) if table else summary)
    return OK
