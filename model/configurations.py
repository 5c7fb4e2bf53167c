"""What is checked: the configurations of the model, and the defects that must be found in it.

A configuration is one scenario (`run_*.pml`) with bounds, gone through exhaustively. It is checked for `safety`: no
assertion fails, and nobody is left waiting (spin's *invalid end states*). Or for `termination`: no thread that gets its
turn again and again goes round for ever (*non-progress cycles* under weak fairness; no step of the model counts as
progress, and all bounds are finite, so this says that every run comes to its end).

A mutant takes one protection away; it names the configuration in which spin must find a counterexample.

>>> CONFIGURATIONS["objects"].scenario, MUTANTS["version after value"].configuration
('run_objects.pml', 'elements')
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["safety", "termination"]


@dataclass(frozen=True)
class Configuration:
    """One scenario with its bounds. `large` ones are for `python -m model --large`: minutes each."""

    name: str
    scenario: str
    defines: tuple[str, ...]
    promises: str
    kind: Kind = "safety"
    large: bool = False


@dataclass(frozen=True)
class Mutant:
    """One protection taken away. `quick` ones are tried by the test-suite."""

    name: str
    define: str
    configuration: str
    quick: bool = False


_OPACITY = "each value read, in a doomed attempt too, belongs to one moment; no increment is lost"
_WAKING = "nobody sleeps for ever after the change that he waits for"
_ENDS = "every run comes to its end"

_BUFFER = "BUFFER=2"  # stores that a thread's later loads may overtake

CONFIGURATIONS: Final = {
    one.name: one
    for one in (
        # Each tier by itself, and both.
        Configuration("objects", "run_objects.pml", (), _OPACITY),
        Configuration("elements", "run_elements.pml", (_BUFFER,), _OPACITY),
        Configuration(
            "in place", "run_elements.pml", (_BUFFER, "IN_PLACE"), _OPACITY + "; a row taken back leaves nothing"
        ),
        Configuration("both tiers", "run_both.pml", (_BUFFER,), _OPACITY + ", across tiers"),
        # Who waits.
        Configuration("waiting for one of two", "run_waiting.pml", (), _WAKING),
        Configuration("waiting for two", "run_waiting.pml", ("NEEDS_BOTH",), _WAKING),
        Configuration("two who wait", "run_waiting.pml", ("TWO_WAITERS",), _WAKING),
        Configuration(
            "waiting in both tiers", "run_waiting.pml", ("ELEMENTS", _BUFFER), _WAKING + ", nor does the waker"
        ),
        Configuration(
            "waiting for two, in both tiers", "run_waiting.pml", ("ELEMENTS", "NEEDS_BOTH", _BUFFER), _WAKING
        ),
        Configuration(
            "waiting for a commit to both", "run_waiting.pml", ("ELEMENTS", "MIXED", _BUFFER, "THREADS=3"), _WAKING
        ),
        Configuration(
            "the waker", "run_waker.pml", (_BUFFER, "THREADS=3"), _WAKING + ", though others come and give up"
        ),
        # Snapshots, and insistence.
        Configuration(
            "snapshot", "run_snapshots.pml", (), "a snapshot reads the values of its moment, and leaves nothing"
        ),
        Configuration("two snapshots", "run_snapshots.pml", ("READERS=2", "ROUNDS=1"), "the same for two at a time"),
        Configuration("snapshot of both", "run_snapshots_of_both.pml", (_BUFFER,), "the same for both tiers"),
        Configuration(
            "insistence", "run_exclusive.pml", (_BUFFER,), "no attempt is aborted more often than INSIST_AFTER times"
        ),
        # That it ends.
        Configuration("objects end", "run_objects.pml", ("ROUNDS=1",), _ENDS, "termination"),
        Configuration("elements end", "run_elements.pml", ("ROUNDS=1", _BUFFER), _ENDS, "termination"),
        Configuration("both tiers end", "run_both.pml", (), _ENDS, "termination"),
        Configuration("waiting ends", "run_waiting.pml", (), _ENDS, "termination"),
        Configuration("the waker ends", "run_waker.pml", ("COARSE",), _ENDS, "termination"),
        Configuration("insistence ends", "run_exclusive.pml", (), _ENDS, "termination"),
        # All of it.
        Configuration(
            "full", "run_full.pml", ("COARSE",), "all of this: two committers, a reader, a waiter, the waker"
        ),
        # Larger bounds.
        Configuration("full, elements first", "run_full.pml", ("COARSE", "ELEMENT_FIRST"), "as above", large=True),
        Configuration("objects, 3 rounds", "run_objects.pml", ("ROUNDS=3", "CELLS=16"), _OPACITY, large=True),
        Configuration("elements, 3 rounds", "run_elements.pml", ("ROUNDS=3", "BUFFER=3"), _OPACITY, large=True),
        Configuration("two snapshots, 2 rounds", "run_snapshots.pml", ("READERS=2",), "as above", large=True),
        Configuration("insistence, 3 rounds", "run_exclusive.pml", (_BUFFER, "ROUNDS=3"), "as above", large=True),
    )
}

MUTANTS: Final = {
    one.name: one
    for one in (
        Mutant("clock before cells", "M_CLOCK_BEFORE_CELLS", "objects", quick=True),
        Mutant("clock between cells", "M_CLOCK_AMID_CELLS", "objects"),
        Mutant("clock never stored", "M_CLOCK_NEVER_STORED", "objects end"),
        Mutant("commit without validation", "M_COMMIT_WITHOUT_VALIDATION", "objects"),
        Mutant("extension without validation", "M_EXTEND_WITHOUT_VALIDATION", "objects"),
        Mutant("extension samples the clock after validation", "M_EXTEND_SAMPLES_LATE", "objects"),
        Mutant("version after value", "M_VERSION_AFTER_VALUE", "elements", quick=True),
        Mutant("stores without release order", "M_STORES_IN_ANY_ORDER", "elements"),
        Mutant("version loaded before value", "M_VERSION_LOADED_FIRST", "elements"),
        Mutant("loads without acquire order", "M_LOADS_IN_ANY_ORDER", "elements"),
        Mutant("word before elements", "M_WORD_BEFORE_ELEMENTS", "elements"),
        Mutant("elements: commit without validation", "M_ELEMENTS_COMMIT_WITHOUT_VALIDATION", "elements", quick=True),
        Mutant("elements: extension without validation", "M_ELEMENTS_EXTEND_WITHOUT_VALIDATION", "elements"),
        Mutant("elements: the word sampled after validation", "M_ELEMENTS_SAMPLED_LATE", "elements"),
        Mutant("a row that raised is not taken back", "M_ROW_NOT_TAKEN_BACK", "in place"),
        Mutant("join without validation", "M_JOIN_WITHOUT_VALIDATION", "both tiers", quick=True),
        Mutant("a joined extension forgets variables", "M_JOINED_EXTEND_FORGETS_VARIABLES", "both tiers"),
        Mutant("commit to both without PUBLISHING", "M_BOTH_WITHOUT_PUBLISHING", "both tiers"),
        Mutant("commit to both validates before PUBLISHING only", "M_BOTH_WITHOUT_SECOND_VALIDATION", "both tiers"),
        Mutant("cells before elements", "M_CELLS_BEFORE_ELEMENTS", "both tiers"),
        Mutant("word before cells", "M_WORD_BEFORE_CELLS", "both tiers"),
        Mutant("waking outside the lock", "M_WAKE_OUTSIDE_THE_LOCK", "waiting for one of two", quick=True),
        Mutant("registered after validation", "M_REGISTER_AFTER_VALIDATION", "waiting for one of two", quick=True),
        Mutant("the left alternative's reads dropped", "M_LEFT_READS_DROPPED", "waiting for one of two", quick=True),
        Mutant(
            "armed without the word (a store overtaken by a load)", "M_ARM_WITHOUT_THE_WORD", "the waker", quick=True
        ),
        Mutant("ringing before the word is taken", "M_RING_BEFORE_THE_WORD", "the waker"),
        Mutant("a commit clears AWAITED", "M_AWAITED_FORGOTTEN", "the waker"),
        Mutant("the waker answers after it has read the marks", "M_ANSWER_AFTER_MARKS", "the waker"),
        Mutant("the waker retires without the lock", "M_RETIRE_WITHOUT_LOCK", "the waker"),
        Mutant("a snapshot begins without the lock", "M_SNAPSHOT_BEGINS_WITHOUT_LOCK", "snapshot", quick=True),
        Mutant("the clock stays quiet during a snapshot", "M_QUIET_DURING_A_SNAPSHOT", "snapshot"),
        Mutant("nothing linked for snapshots", "M_NOTHING_LINKED", "snapshot"),
        Mutant("too much trimmed", "M_TRIM_TOO_MUCH", "two snapshots"),
        Mutant("never insists", "M_NEVER_INSIST", "insistence", quick=True),
        Mutant("a committer ignores the exclusive one", "M_IGNORE_OWNER", "insistence"),
        Mutant("a compiled committer ignores HELD", "M_IGNORE_HELD", "insistence"),
        Mutant("HELD not set", "M_NOT_HELD", "insistence"),
    )
}
