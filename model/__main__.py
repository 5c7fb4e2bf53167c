"""Check the model of the protocol with spin.

    python -m model                 every configuration: property, states, depth, seconds, result
    python -m model NAME ...        some of them, or some mutants
    python -m model --large         those with larger bounds as well
    python -m model --mutants       take protections away one by one, and see spin find a counterexample each time
    python -m model --list          what there is
    python -m model --trail NAME    a counterexample step by step, if there is one
    python -m model --changes       the functions that have changed since the model was last compared with them
    python -m model --accept        the comparison has been made: put their present fingerprints on record

The exit status is 1 if anything is not as it should be. Where spin or a C compiler is missing nothing is checked: that
is said, and the status is 0.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from model import fingerprints
from model.checking import Answer, CheckFailed, check, missing
from model.configurations import CONFIGURATIONS, MUTANTS, Configuration, Mutant


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m model", description="Check the model of the protocol with spin.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="configurations or mutants; none: all configurations")
    parser.add_argument("--large", action="store_true", help="also the configurations with larger bounds")
    parser.add_argument("--mutants", action="store_true", help="all mutants: each must be found")
    parser.add_argument("--list", action="store_true", help="what there is")
    parser.add_argument("--trail", action="store_true", help="show a counterexample step by step")
    parser.add_argument("--changes", action="store_true", help="list functions that have changed since the last look")
    parser.add_argument("--accept", action="store_true", help="put the present fingerprints on record")
    given = parser.parse_args(arguments)
    unknown = [name for name in given.names if name not in CONFIGURATIONS and name not in MUTANTS]
    if unknown:
        parser.error(f"no configuration and no mutant is called {unknown[0]!r}; --list shows what there is")
    if given.accept:
        print(f"{fingerprints.accept()} fingerprints renewed")
        return 0
    if given.changes:
        changes = fingerprints.changed()
        for change in changes:
            print(change)
        return int(bool(changes))
    if given.list:
        show()
        return 0
    if (lacking := missing()) is not None:
        print(f"Nothing was checked: {lacking}.")
        return 0
    return run(chosen(given.names, given.large, given.mutants), given.trail)


def chosen(names: Sequence[str], large: bool, mutants: bool) -> list[Configuration | Mutant]:
    """What is to be run."""
    if names:
        return [CONFIGURATIONS.get(name) or MUTANTS[name] for name in names]
    if mutants:
        return list(MUTANTS.values())
    return [one for one in CONFIGURATIONS.values() if large or not one.large]


def run(work: Sequence[Configuration | Mutant], trail: bool = False) -> int:
    """Check one after the other, with a line for each. Returns the exit status."""
    print(f"{'':34}{'states':>12}{'depth':>8}{'seconds':>9}  result")
    status = 0
    for one in work:
        print(f"{one.name:34.33}", end="", flush=True)
        configuration = CONFIGURATIONS[one.configuration] if isinstance(one, Mutant) else one
        try:
            answer = check(configuration, *([one.define] if isinstance(one, Mutant) else []), trail=trail)
        except CheckFailed as error:
            print(f"\n{error}")
            status = 1
            continue
        good, verdict = judge(one, answer)
        print(f"{answer.states:12,}{answer.depth:8,}{answer.seconds:9.1f}  {verdict}", flush=True)
        if answer.trail:
            print(answer.trail)
        if not good:
            status = 1
    return status


def judge(one: Configuration | Mutant, answer: Answer) -> tuple[bool, str]:
    """Is this as it should be? And what to say about it."""
    if isinstance(one, Mutant):
        return answer.error is not None, f"found: {answer.error}" if answer.error else "NOT FOUND"
    if answer.error is None:
        return True, f"holds: {one.promises}"
    return False, f"FAILS: {answer.error} (--trail shows the steps)"


def show() -> None:
    """List configurations and mutants."""
    for one in CONFIGURATIONS.values():
        scenario = " ".join([one.scenario, *one.defines])
        print(f"{one.name:34}{one.kind}{', large' * one.large}: {one.promises} ({scenario})")
    for mutant in MUTANTS.values():
        print(f"{mutant.name:58}in {mutant.configuration}: {mutant.define}")


if __name__ == "__main__":
    sys.exit(main())
