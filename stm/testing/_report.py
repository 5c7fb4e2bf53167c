"""A run as text: one line for each step, so that a person can follow it."""

from __future__ import annotations

from itertools import groupby

from stm.testing._places import Places
from stm.testing._run import Run

#: Lines above which a report is folded, and how many steps of a thread in a row are shown then.
LONG = 80
BEFORE, AFTER = 2, 3
#: Lines of a report at most: of a longer one, the last. Nobody wants to read a livelock to its end.
MOST = 120
MOST_OF_A_LIVELOCK = 40


def report(run: Run, places: Places, names: list[str]) -> str:
    """What the threads did, step by step.

    A line is the step's number, the thread, and what it did: a line of source, or the name of a step of the protocol.
    `>` marks a step before which the scheduler switched. Steps between that differ in nothing but their place may be
    left out.
    """
    lines: list[str] = []
    steps = list(range(len(run.picks)))
    width = max(len(name) for name in names)
    long = len(steps) > LONG
    for thread, group in groupby(steps, key=run.picks.__getitem__):
        turn = _without_repetition(list(group), run, places)
        shown = turn
        if long and len(turn) > BEFORE + AFTER + 1:
            shown = [*turn[:BEFORE], -1, *turn[-AFTER:]]
        for step in shown:
            if step < 0:
                lines.append(f"  {'':>5}  {'':{width}}  ... {len(turn) - BEFORE - AFTER} more steps")
                continue
            mark = ">" if step == turn[0] else " "
            what = places.label(run.places[step])
            note = run.notes[step] if step < len(run.notes) else ""
            lines.append(f"{mark} {step:>5}  {names[thread]:{width}}  {what}{'  ' + note if note else ''}")
    most = MOST_OF_A_LIVELOCK if run.failed is not None and run.failed[0] == "livelock" else MOST
    if len(lines) > most:
        lines[:-most] = [f"... {len(lines) - most} lines"]
    lines += [f"  {'':>5}  {names[thread]:{width}}  stays in  {place}" for thread, place in run.stuck]
    return "\n".join(lines)


def _without_repetition(turn: list[int], run: Run, places: Places) -> list[int]:
    """A line of source is shown once while a thread is at it, whatever it calls."""
    kept, last = [], -1
    for step in turn:
        place = run.places[step]
        if places.key(place)[0] != "line":
            kept.append(step)
        elif place != last:
            kept.append(step)
            last = place
    return kept
