"""The core of `stm` under the explorer: right in all schedules up to a bound, line by line; and with a part of it taken
away, one that fails is found.
"""

import pytest

from stm import TVar, atomically, check, execution, quick, run, transaction, waiting
from stm.clock import clock
from stm.snapshot import begin
from stm.testing import ScheduleFailure, _places, explore, replay
from stm.transaction import Transaction
from tests.stm.testing.programs import (
    CORRECT,
    increments,
    irrevocable_and_writer,
    left_reads,
    ping,
    snapshot_and_writer,
    transfer_and_reader,
)

#: With two preemptions, several thousand schedules of lines.
SLOW = (ping, left_reads)

each_program = pytest.mark.parametrize("program", CORRECT, ids=lambda program: program.__name__)


@each_program
def test_right_in_all_schedules_of_steps(program):
    assert explore(program, preemptions=3).complete


@each_program
def test_right_in_all_schedules_of_lines(program):
    preemptions = 1 if program in SLOW else 2
    assert explore(program, preemptions=preemptions, points="lines").complete


@each_program
def test_right_in_all_schedules_of_instructions(program):
    assert explore(program, preemptions=1, points="opcodes").complete


@each_program
def test_right_in_random_schedules(program):
    assert explore(program, preemptions=0, random=40, seed=7, points="lines").schedules > 40


def fails(program, kind, **options):
    """Exploring must find a failure of that kind, and replaying show it again."""
    options.setdefault("points", "lines")
    with pytest.raises(ScheduleFailure) as found:
        explore(program, **options)
    assert found.value.kind == kind, found.value
    with pytest.raises(ScheduleFailure) as again:
        replay(program, found.value.schedule, points=options["points"])
    assert again.value.trace == found.value.trace
    return found.value


def test_without_validation_an_update_is_lost(monkeypatch):
    for module in (transaction, execution, waiting):
        monkeypatch.setattr(module, "unchanged", lambda reads: True)
    fails(increments, "check")


def test_without_validation_an_extended_attempt_sees_two_moments(monkeypatch):
    def extend(self, tvar):
        self.reads[tvar] = cell = tvar._cell
        self.rv = clock.now
        return cell

    monkeypatch.setattr(Transaction, "extend", extend)
    fails(transfer_and_reader, "check")


def test_a_waiter_that_validates_before_it_is_listed_misses_the_wake_up(monkeypatch):
    def register(self, reads):
        if not waiting.unchanged(reads):
            return False
        waiting.acquire()
        self._enlist()
        waiting.release()
        return True

    monkeypatch.setattr(waiting.Waiter, "register", register)
    fails(ping, "deadlock", preemptions=1)


def test_a_committer_that_wakes_nobody(monkeypatch):
    monkeypatch.setattr(transaction, "rouse", dict.clear)
    failure = fails(ping, "deadlock", preemptions=1)
    assert "waits for a change of <TVar ball 'pong'>" in failure.trace


def test_a_wait_for_the_last_alternative_only(monkeypatch):
    sleep = waiting.sleep

    def sleep_on_the_last(reads, deadline, name):
        return sleep(dict(list(reads.items())[-1:]), deadline, name)

    monkeypatch.setattr(execution, "sleep", sleep_on_the_last)
    fails(left_reads, "deadlock", preemptions=1)


def test_a_commit_that_publishes_the_clock_first(monkeypatch):
    def commit(reads, writes, rv):
        transaction.acquire()
        try:
            if clock.now != rv and not transaction.unchanged(reads):
                return False
            version = clock.now + 2
            clock.now = version
            for tvar, value in writes.items():
                tvar._cell = (value, version, None)
            return True
        finally:
            transaction.release()

    monkeypatch.setattr(quick, "commit", commit)
    fails(transfer_and_reader, "check")


def test_a_commit_without_the_lock(monkeypatch):
    def commit(reads, writes, rv):
        if clock.now != rv and not transaction.unchanged(reads):
            return False
        version = clock.now + 2
        for tvar, value in writes.items():
            tvar._cell = (value, version, None)
        clock.now = version
        return True

    monkeypatch.setattr(quick, "commit", commit)
    fails(increments, "check")


def test_a_snapshot_of_which_committers_keep_nothing(monkeypatch):
    monkeypatch.setattr(transaction, "link", lambda cell, version, latest: None)
    fails(snapshot_and_writer, "exception", preemptions=1)


def test_a_snapshot_whose_moment_comes_before_it_is_listed(monkeypatch):
    def begin_early(token):
        token.version = clock.now
        moment = token.version
        begin(token)
        token.version = clock.snapshots[token] = moment

    monkeypatch.setattr(execution, "begin", begin_early)
    fails(snapshot_and_writer, "exception", preemptions=1)


def test_an_exclusive_attempt_that_committers_do_not_wait_for(monkeypatch):
    monkeypatch.setattr(execution, "become_exclusive", lambda me: None)
    failure = fails(irrevocable_and_writer, "check", preemptions=1)
    assert "first._cell, clock.now = cell1, version" in failure.trace
    assert "if clock.now == now and clock.quiet and not first._waiters:  (commit.publish)" in failure.trace


@pytest.mark.parametrize("points", ["steps", "lines", "opcodes"])
def test_the_places_that_are_left_out_make_no_difference(monkeypatch, points):
    """Whatever a broken core, or a broken program, comes to: with fewer places it comes to the same."""
    monkeypatch.setattr(transaction, "unchanged", lambda reads: True)
    outcomes = set()

    def program():
        x, y, seen = TVar(0), TVar(0), []

        @atomically
        def increment():
            x.value += 1
            y.value += x.value

        def careless():
            seen.append((x.get(), run(lambda: (y.value, x.value))))
            x.set(x.get() + 5)

        return [increment, careless], lambda: outcomes.add((x.get(), y.get(), *seen))

    assert explore(program, points=points, preemptions=1).complete
    found = set(outcomes)
    outcomes.clear()
    with monkeypatch.context() as patch:
        patch.setattr(_places, "shared_in_core", lambda code: lambda instruction: True)
        patch.setattr(_places, "is_shared_in_program", lambda instruction: True)
        patch.setattr(_places, "opens_with", lambda instructions: ())
        assert explore(program, points=points, preemptions=1).complete
    assert outcomes == found
    assert len(found) > 5


def test_publication_seen_step_by_step(monkeypatch):
    """What one C call publishes is seen half done without the GIL: three variables, and a reader that asks no clock."""
    program = three_variables(lambda tvar: tvar._cell[0])
    assert explore(program, points="steps").complete
    fails(program, "exception", preemptions=1)
    assert explore(three_variables(TVar.get), points="lines", preemptions=1).complete


def three_variables(get):
    def program():
        a, b, c = TVar(0, name="a"), TVar(0, name="b"), TVar(0, name="c")

        @atomically
        def write():
            a.value = b.value = c.value = 1

        @atomically
        def read():
            last = get(c)
            first = get(a)
            assert first >= last, "the last is published, and the first is not"

        def read_reversed():
            first, last = run(lambda: (get(a), get(c)))
            assert last >= first, "the first is published, and the last is not"

        return [write, read, read_reversed]

    return program


def test_no_starvation(monkeypatch):
    """A long transaction among short ones commits in the end, in every schedule."""
    attempts = []

    def program():
        attempts.clear()
        x = TVar(0, name="x")

        @atomically
        def long():
            attempts.append(x.value)
            assert len(attempts) <= 4
            x.value += 1

        def short():
            for _ in range(3):
                x.update(lambda number: number + 1)

        return [long, short], lambda: check_value(x, 4)

    assert explore(program).complete


def check_value(x, value):
    assert x.get() == value


def test_a_time_limit_is_over_when_nobody_can_run():
    def program():
        x = TVar(0, name="x")
        outcomes = []

        def wait():
            try:
                run(lambda: check(x.value == 2), timeout=5)
            except TimeoutError:
                outcomes.append("late")

        return [wait, lambda: x.set(1)], lambda: check_outcome(outcomes)

    def check_outcome(outcomes):
        assert outcomes == ["late"]

    assert explore(program).complete
    assert explore(program, points="lines", preemptions=1).complete
