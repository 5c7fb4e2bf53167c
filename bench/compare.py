"""`python -m bench compare`: what moved between two reports, beyond the noise that their own repeats show.

Promise: a figure has moved only if the ranges of its repeats don't overlap and its medians differ by more than a small
share (`threshold`). Of five repeats each, whose only difference is chance, the ranges keep apart about once in 126
times; so among hundreds of figures a few will, and the share is there to drop those that wouldn't matter anyway. With
fewer than three repeats on either side the noise isn't known, and the verdict says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from bench.environment import BUSY
from bench.results import Figure, Key, Run
from bench.tables import Table, count_of, with_spread

THRESHOLD: Final = 0.03
FEWEST_REPEATS: Final = 3

Verdict = Literal["better", "worse", "moved", "same", "unknown"]


@dataclass(frozen=True)
class Change:
    """One figure before and after. `shift` is the relative change of the median; infinite if it was zero."""

    key: Key
    before: Figure
    after: Figure
    shift: float
    verdict: Verdict


def judge(before: Figure, after: Figure, threshold: float = THRESHOLD) -> tuple[float, Verdict]:
    """How far the median moved, relatively, and whether that is more than noise."""
    old, new = before.spread, after.spread
    if old.median:
        shift = (new.median - old.median) / abs(old.median)
    else:
        shift = 0.0 if new.median == old.median else float("inf") * (1 if new.median > 0 else -1)
    if min(len(before.values), len(after.values)) < FEWEST_REPEATS:
        return shift, "unknown"
    apart = new.low > old.high or new.high < old.low
    if not apart or abs(shift) <= threshold:
        return shift, "same"
    if not after.quantity.better:
        return shift, "moved"
    return shift, "better" if (shift > 0) == (after.quantity.better == "higher") else "worse"


def figures_of(run: Run) -> dict[Key, Figure]:
    return {figure.key(result.workload): figure for result in run.results for figure in result.figures}


def changes(before: Run, after: Run, threshold: float = THRESHOLD) -> Iterator[Change]:
    """Every figure that both runs have."""
    older = figures_of(before)
    for key, figure in figures_of(after).items():
        if key in older:
            yield Change(key, older[key], figure, *judge(older[key], figure, threshold))


def matching(before: Sequence[Run], after: Sequence[Run]) -> list[tuple[Run, Run]]:
    """Runs of the same interpreter; or the only run of each, whatever its interpreter, if none is."""
    by_label = {run.label: run for run in before}
    pairs = [(by_label[run.label], run) for run in after if run.label in by_label]
    if not pairs and len(before) == len(after) == 1:
        return [(before[0], after[0])]
    return pairs


def warnings(before: Run, after: Run) -> Iterator[str]:
    """Why a difference between these runs may not be the library's."""
    if before.label != after.label:
        yield f"different interpreters: {before.label}, {after.label}"
    for name in ("platform", "cores"):
        old, new = before.environment[name], after.environment[name]
        if old != new:
            yield f"different {name}: {old}, {new}"
    busy = [run.environment["others"] for run in (before, after)]
    if max(busy) > BUSY:
        yield f"other programs kept {busy[0]:g} and {busy[1]:g} cores busy meanwhile"
    if before.options["scale"] != after.options["scale"]:
        yield f"different numbers of operations: scale {before.options['scale']}, {after.options['scale']}"


def describe(changes: Iterable[Change]) -> tuple[str, Table | None]:
    """One line on all of them, and a table of those that moved, the largest shifts first."""
    everything = list(changes)
    moved = [change for change in everything if change.verdict in ("better", "worse", "moved")]
    unknown = sum(change.verdict == "unknown" for change in everything)
    summary = f"{count_of(len(everything), 'figure')} in both, {len(moved)} moved beyond the noise"
    if unknown:
        summary += f"; {unknown} with fewer than {FEWEST_REPEATS} repeats can't be judged"
    if not moved:
        return summary, None
    moved.sort(key=lambda change: -abs(change.shift))
    columns = ("", "by", "workload", "setting", "subject", "threads", "quantity", "before", "after")
    return summary, Table(summary, columns, tuple(map(_row, moved)))


def _row(change: Change) -> tuple[str, ...]:
    key, quantity = change.key, change.after.quantity
    return (
        change.verdict,
        f"{change.shift:+.0%}",
        key.workload,
        key.setting,
        key.subject,
        str(key.threads),
        f"{quantity.name}, {quantity.unit}" if quantity.unit else quantity.name,
        with_spread(change.before.spread),
        with_spread(change.after.spread),
    )
