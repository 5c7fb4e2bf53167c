"""How claimed tasks end, in a `SQLiteQueue`: each by one statement that also checks whose it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from hive_task.background.sources._sqlite_codec import pack, pack_failure
from hive_task.background.sources._sqlite_ids import SEQ, where
from hive_task.background.sources._sqlite_rules import Step
from hive_task.background.tasks import CANCELLED, DEAD, DONE, QUEUED, SCHEDULED, End

_OWNED = f" WHERE seq = {SEQ} AND state = 'running' AND worker = ? AND epoch = ?"
_SETTLE = (
    "UPDATE tasks SET state = ?, ended = ?, result = ?, failure = coalesce(?, failure), expires = NULL"
    + _OWNED
    + " RETURNING seq, special, limit_key, options"
)
_FIND = "SELECT seq, special, limit_key, options, cancel_requested, attempts FROM tasks" + _OWNED


class Ready(NamedTuple):
    """An end whose values are packed: what can't be kept is refused before the transaction."""

    end: End
    result: str | None
    failure: str | None


def prepared(ends: Sequence[End]) -> list[Ready]:
    for end in ends:
        if end.outcome not in (DONE, DEAD, CANCELLED, SCHEDULED, QUEUED):
            raise ValueError(f"a run does not end {end.outcome!r}")
    return [Ready(end, pack(end.result, "result", end.task.name), pack_failure(end.failure)) for end in ends]


def settle(step: Step, ends: Sequence[Ready]) -> list[bool]:
    """For each, whether it was accepted."""
    return [_settle(step, one) for one in ends]


def _settle(step: Step, one: Ready) -> bool:
    end = one.end
    task, claim = end.task, end.task.claim
    if claim is None:
        return False
    owned = (*where(task.id), claim.worker, claim.epoch)
    if end.outcome in (DONE, DEAD, CANCELLED):
        return _end(step, one, end.outcome, owned)
    rows = step.execute(_FIND, owned).fetchall()
    if not rows:
        return False
    ((seq, _, key, _, cancel_requested, attempts),) = rows
    if cancel_requested:
        return _end(step, one, CANCELLED, owned)
    step.leave_place(key)
    if end.outcome == QUEUED:
        step.execute("UPDATE tasks SET attempts = ?, started = NULL WHERE seq = ?", (attempts - 1, seq))
        step.place(seq, step.now, key, keep_due=True)
    else:
        step.execute("UPDATE tasks SET failure = coalesce(?, failure) WHERE seq = ?", (one.failure, seq))
        step.start(seq, step.now if end.retry_at is None else end.retry_at)
    return True


def _end(step: Step, one: Ready, state: str, owned: tuple[Any, ...]) -> bool:
    rows = step.execute(_SETTLE, (state, step.now, one.result, one.failure, *owned)).fetchall()
    if not rows:
        return False
    ((seq, special, key, options),) = rows
    step.leave_place(key)
    step.ended(seq, one.end.task.id, state, special, options)
    return True
