"""Break the protocol on purpose, one defect at a time, and see that a test notices.

    python -m tests.mutants            all of them (some minutes)
    python -m tests.mutants NAME ...   some

Each defect takes one protection away. It is applied to a scratch copy of the project, where the tests that answer for
the protection must fail (hanging counts as failing). A defect that no test notices, or that can't be applied because
the code has changed, ends the run with status 1.

(Validation by version is not among them: a variable's cells have different versions, so it would be no defect.)
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: Seconds that the tests of one defect may take, and that one test may (then it hangs).
SECONDS = 60
HANGING = "30"


@dataclass(frozen=True)
class Mutant:
    name: str
    file: str
    old: str
    new: str
    tests: str
    only_without_gil: bool = False


MUTANTS = [
    Mutant(
        "read without looking at the version (stale reads inside a doomed attempt)",
        "tvar.py",
        "if cell[1] > tx.rv:",
        "if False:",
        "test_opacity.py",
    ),
    Mutant(
        "extension without validation",
        "transaction.py",
        "            if not unchanged(self.reads.copy()):\n                self.doom(Restart)\n",
        "",
        "test_opacity.py",
    ),
    Mutant(
        "commit of one without validation (lost updates)",
        "transaction.py",
        "            if now == rv or unchanged(reads):\n                if first._waiters and clock.quiet:\n"
        "                    rouse(first._waiters)\n                version",
        "            if True:\n                version",
        "test_opacity.py",
    ),
    Mutant(
        "commit of two without validation (write skew, lost updates)",
        "transaction.py",
        "            if now == rv or unchanged(reads):\n                if first._waiters and clock.quiet:\n"
        "                    rouse(first._waiters)\n                if second",
        "            if True:\n                if second",
        "test_opacity.py",
    ),
    Mutant(
        "commit of many without validation",
        "transaction.py",
        "if now != rv and not unchanged(reads):",
        "if False:",
        "test_opacity.py test_waiting.py",
    ),
    Mutant(
        "validation by equality (ABA, NaN, 1 and True)",
        "clock.py",
        "if tvar._cell is not cell:",
        "if tvar._cell[0] != cell[0]:",
        "test_opacity.py",
    ),
    Mutant(
        "the clock is stored before the cells",
        "transaction.py",
        "                    first._cell, second._cell, clock.now = cell1, cell2, version\n",
        "                    clock.now = version\n                    first._cell = cell1\n"
        "                    len(reads)\n                    second._cell = cell2\n",
        "test_opacity.py test_interruption.py",
    ),
    Mutant(
        "publication in a loop (torn by a signal)",
        "transaction.py",
        "                    first._cell, second._cell, clock.now = cell1, cell2, version\n",
        '                    steps = (first, "_cell", cell1), (second, "_cell", cell2), (clock, "now", version)\n'
        "                    for place, name, new in steps:\n"
        "                        setattr(place, name, new)\n",
        "test_interruption.py",
    ),
    Mutant(
        "publication of many in a loop (torn by a signal)",
        "transaction.py",
        "            in_one_call(steps)\n",
        "            for _ in steps: pass\n",
        "test_interruption.py",
    ),
    Mutant(
        "an exception from stale reads escapes",
        "execution.py",
        "if ended.fate is None and (consistent or unchanged(ended.reads)):",
        "if ended.fate is None:",
        "test_exceptions.py",
    ),
    Mutant(
        "a signal's exception is taken for an answer to stale reads (swallowed)",
        "execution.py",
        "        if from_signal_handler(error):\n            return True\n",
        "",
        "test_interruption.py",
    ),
    Mutant(
        "exceptions that are no Exception are swallowed too",
        "execution.py",
        "        if not isinstance(error, Exception):\n            return True\n",
        "",
        "test_interruption.py test_exceptions.py",
    ),
    Mutant(
        "an exception in mid-commit leaves the lock held",
        "transaction.py",
        "        except BaseException:\n            try:\n                release()\n            except RuntimeError:\n"
        "                pass\n            raise\n        release()\n    if answer is None:",
        "        except ZeroDivisionError:\n            raise\n        release()\n    if answer is None:",
        "test_interruption.py",
    ),
    Mutant(
        "exclusiveness is not given back when an exception strikes",
        "execution.py",
        "            if exclusive:\n                try:\n                    if outermost",
        "            if exclusive and extras.committed:\n                try:\n                    if outermost",
        "test_interruption.py test_liveness.py",
    ),
    Mutant(
        "a waiter registers without validating (lost wake-up)",
        "waiting.py",
        "waits = unchanged(reads)",
        "waits = True",
        "test_interruption.py",
    ),
    Mutant(
        "a committer wakes nobody",
        "transaction.py",
        "        if clock.sleepers:\n            woken =",
        "        if False:\n            woken =",
        "test_waiting.py",
    ),
    Mutant(
        "who waits for one variable is not woken",
        "waiting.py",
        "chain(waking(_asleep(found)), map(waiters.pop",
        "chain(map(waiters.pop",
        "test_waiting.py",
    ),
    Mutant(
        "waiters are left behind by time-outs and interrupts",
        "waiting.py",
        "    finally:\n        _in_one_call(withdrawal)",
        "    finally:\n        pass",
        "test_waiting.py test_interruption.py",
    ),
    Mutant(
        "the youngest waiter is woken first",
        "waiting.py",
        'asleep.sort(key=attrgetter("since"))',
        'asleep.sort(key=attrgetter("since"), reverse=True)',
        "test_waiting.py",
    ),
    Mutant(
        "retry with nothing read hangs",
        "waiting.py",
        "    if not reads:\n",
        "    if False:\n",
        "test_waiting.py",
    ),
    Mutant(
        "an alternative that retried is not rolled back",
        "transaction.py",
        "        in_one_call(map(writes.pop, first_written, repeat(None)))\n",
        "",
        "test_waiting.py test_exceptions.py",
    ),
    Mutant(
        "the reads of a discarded alternative are forgotten",
        "transaction.py",
        "        before = scope.undo\n        first_written",
        "        self.reads.clear()\n        before = scope.undo\n        first_written",
        "test_waiting.py test_exceptions.py",
    ),
    Mutant(
        "a finished scope's writes survive the failure of the scope around it",
        "transaction.py",
        "            in_one_call(map(outer.undo.setdefault, undo, undo.values()))\n",
        "            pass\n",
        "test_exceptions.py",
    ),
    Mutant(
        "hooks survive the scope that registered them",
        "transaction.py",
        "            del extras.on_commit[commits:]\n            del extras.on_rollback[rollbacks:]\n",
        "",
        "test_exceptions.py test_waiting.py",
    ),
    Mutant(
        "a retry swallowed by the body commits",
        "quick.py",
        "if extras is None and rv >= 0:",
        "if extras is None:",
        "test_waiting.py test_opacity.py",
    ),
    Mutant(
        "nobody ever insists (starvation)",
        "contention.py",
        "INSIST_AFTER = 10",
        "INSIST_AFTER = 10**9",
        "test_liveness.py",
    ),
    Mutant(
        "exclusiveness is not respected by committers",
        "transaction.py",
        "        if owner is not None and owner != threading.get_ident():\n            return None\n",
        "",
        "test_liveness.py",
    ),
    Mutant(
        "old values are not kept for snapshots",
        "snapshot.py",
        "    if newest < first:\n",
        "    if True:\n",
        "test_liveness.py",
    ),
    Mutant(
        "history is never trimmed",
        "snapshot.py",
        "        if clock.history:\n            trim(freed)\n",
        "        pass\n",
        "test_liveness.py",
    ),
    Mutant(
        "history is swept the later, the longer it once was",
        "snapshot.py",
        "        if not history:\n            _sweep_at = SWEEP_AT_LEAST\n        elif len(history)",
        "        if len(history)",
        "test_liveness.py",
    ),
    Mutant(
        "history between snapshots piles up",
        "snapshot.py",
        "        _sweep(active, freed)\n",
        "        pass\n",
        "test_liveness.py",
    ),
    Mutant(
        "the cells that a commit replaces die under the lock (finalizers that transact)",
        "transaction.py",
        "                old1, old2 = first._cell, second._cell  # noqa: F841 - kept until the lock is free\n",
        "",
        "test_fork_and_finalizers.py",
    ),
    Mutant(
        "the same for many variables",
        "transaction.py",
        "        freed += [tvar._cell for tvar in writes]\n",
        "",
        "test_fork_and_finalizers.py",
    ),
    Mutant(
        "a forked child inherits the other threads' locks",
        "clock.py",
        "        clock.exclusive._at_fork_reinit()  # type: ignore[attr-defined]\n",
        "        pass\n",
        "test_fork_and_finalizers.py",
    ),
    Mutant(
        "a fork may come in mid-commit",
        "clock.py",
        "before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child",
        "after_in_child=lambda: None",
        "test_fork_and_finalizers.py",
    ),
    Mutant(
        "a read is recorded after its extension, not by it (a handler strikes between)",
        "transaction.py",
        "                self.reads[tvar] = cell\n                self.rv = now\n",
        "                self.rv = now\n                len(self.reads)\n",
        "test_uninvited.py",
    ),
    Mutant(
        "a waiter validates before it registers (a handler strikes between)",
        "waiting.py",
        "            self._enlist()\n"
        "            # Only now: a signal handler that commits in between must find the waiter.\n"
        "            waits = unchanged(reads)\n",
        "            waits = unchanged(reads)\n            self._enlist()\n",
        "test_interruption.py",
    ),
    Mutant(
        "whoever interrupts a commit waits for another thread with the lock in hand",
        "clock.py",
        "    if not lock._is_owned():\n",
        "    if True:\n",
        "test_uninvited.py",
    ),
    Mutant(
        "a scope's undoing that was interrupted is not made up for",
        "transaction.py",
        "            pending.insert(-1, inner)\n",
        "            pass\n",
        "test_uninvited.py",
    ),
    Mutant(
        "the end of a scope is outside its protection",
        "execution.py",
        "        tx.leave_scope(scope)\n        return result\n    except BaseException as error:",
        "    except BaseException as error:",
        "test_uninvited.py test_exceptions.py",
    ),
    Mutant(
        "Ctrl-C is lost when cleanup code finds the attempt stale",
        "execution.py",
        "    if error.__context__ is not None or error.__cause__ is not None:\n",
        "    if False:\n",
        "test_uninvited.py",
    ),
    Mutant(
        "a plain read sees a commit that is not complete",
        "tvar.py",
        "            if cell[1] > clock.now:\n                cell = settled(self)\n            return cell",
        "            return cell",
        "test_uninvited.py",
        only_without_gil=True,
    ),
    Mutant(
        "nested time limits start anew in each attempt",
        "execution.py",
        "    kind = (what, options.timeout)\n",
        "    kind = (options, options.timeout)\n",
        "test_uninvited.py",
    ),
    Mutant(
        "on_commit hooks run inside the transaction's last breath",
        "quick.py",
        "                        tx.writes = tx.reads = None\n                        rv, extras = tx.rv, tx.extras\n",
        "                        rv, extras = tx.rv, tx.extras\n"
        "                        if extras: run_hooks(extras)\n"
        "                        tx.writes = tx.reads = None\n",
        "test_hooks.py",
    ),
    # The compiled tier. (These take longer: each compiles all machine code anew.)
    Mutant(
        "elements: read without looking at the version",
        "compiled/kernels.py",
        "    if load_acquire(at + 8) > load_acquire(log + MOMENT):\n        word = apart(_read_newer, (log, at))\n",
        "",
        "compiled/test_opacity.py",
    ),
    Mutant(
        "elements: extension without validation",
        "compiled/kernels.py",
        " or load_acquire(log + STOP) or not stands(log):",
        " or load_acquire(log + STOP):",
        "compiled/test_opacity.py::test_an_element_newer_than_a_stale_read_is_never_seen_beside_it",
    ),
    Mutant(
        "elements: commit without validation",
        "compiled/kernels.py",
        "if lost < 3 and now & ~FLAGS != load_acquire(log + MOMENT) and not stands(log):",
        "if False:",
        "compiled/test_opacity.py::test_a_row_whose_read_has_become_stale_is_run_anew",
    ),
    Mutant(
        "elements: exceptions from stale reads escape",
        "compiled/kernels.py",
        "if fate == RESTART or code == RESTART or not stands(log):",
        "if fate == RESTART or code == RESTART:",
        "compiled/test_opacity.py::test_an_exception_from_what_has_become_stale_is_never_seen",
    ),
    Mutant(
        "elements: value stored before its version",
        "compiled/kernels.py",
        """        store_release(at + 8, version)  # before the value, so that who sees the value sees the version
        store_release(at, load(entry + 8))
""",
        """        store_release(at, load(entry + 8))
        store_release(at + 8, version)
""",
        "compiled/test_opacity.py::test_a_version_is_stored_before_its_value",
    ),
    Mutant(
        "elements: own writes are not read",
        "compiled/kernels.py",
        "if load(log + WRITES_END) != load(log + WRITES):\n        entry",
        "if False:\n        entry",
        "compiled/test_call.py",
    ),
    Mutant(
        "elements: commits ring for nobody",
        "compiled/kernels.py",
        "    if now & AWAITED:\n        ring(log)\n",
        "",
        "compiled/test_waiting.py::test_a_sleeper_of_either_tier_is_woken_by_any_commit",
    ),
    Mutant(
        "elements: groups in place ring for nobody",
        "compiled/inplace.py",
        "    if now & AWAITED:\n        ring(log)\n",
        "",
        "compiled/test_waiting.py::test_a_group_in_place_wakes",
    ),
    Mutant(
        "elements: a row in place that raises keeps its writes",
        "compiled/building.py",
        "                    restore(log, load(log + SCOPE))\n",
        "",
        "compiled/test_map.py",
    ),
    Mutant(
        "elements: a log is lost if an exception strikes who takes it",
        "compiled/runtime.py",
        "            _returned.extend(taken)\n",
        "            pass\n",
        "compiled/test_interruption.py",
    ),
    Mutant(
        "elements: a row with a log that raises keeps its writes",
        "compiled/building.py",
        "                cut(log, load(log + SCOPE))  #",
        "                pass  #",
        "compiled/test_map.py",
    ),
    Mutant(
        "elements: exclusive transactions keep no commit off",
        "compiled/kernels.py",
        "        if now & KEPT_OFF and not load(log + PASS):\n            return YIELD\n",
        "",
        "compiled/test_liveness.py",
    ),
    Mutant(
        "elements: in-place groups heed no exclusive transaction",
        "compiled/inplace.py",
        "if (now & KEPT_OFF and not load(log + PASS)) or load_acquire(log + STOP):",
        "if load_acquire(log + STOP):",
        "compiled/test_liveness.py::test_no_group_in_place_begins_amid_an_exclusive_transaction",
    ),
    Mutant(
        "elements: a stopped map commits on",
        "compiled/kernels.py",
        "        if load_acquire(log + STOP):\n            return STOPPED\n        # Validated",
        "        # Validated",
        "compiled/test_map.py::test_a_stopped_worker_commits_nothing_more",
    ),
    Mutant(
        "elements: not in the read set of the object transaction",
        "compiled/joining.py",
        "        tx.reads[part] = part\n",
        "",
        "compiled/test_opacity.py",
    ),
    Mutant(
        "elements: a joined attempt extends without validation",
        "compiled/joining.py",
        "    moment = word.sample()\n    if not unchanged(tx.reads.copy()):\n        tx.doom(Restart)\n",
        "    moment = word.sample()\n",
        "compiled/test_opacity.py",
    ),
    Mutant(
        "elements: a first access does not validate what was read before",
        "compiled/joining.py",
        "    elif not unchanged(tx.reads.copy()):\n        tx.doom(Restart)\n",
        "",
        "compiled/test_opacity.py",
    ),
    Mutant(
        "elements: read-only attempts read the present",
        "compiled/joining.py",
        "        part.words[MOMENT // 8] = tx.snapshot.array_moment\n",
        "        pass\n",
        "compiled/test_opacity.py",
    ),
    Mutant(
        "elements: stored after the cells of a common commit",
        "transaction.py",
        "chain(map(call, [arrays.lock]), steps, map(call, [arrays.unlock]))",
        "chain(steps, map(call, [arrays.lock]), map(call, [arrays.unlock]))",
        "compiled/test_opacity.py",
    ),
    Mutant(
        "elements: a nested scope's writes stay",
        "transaction.py",
        "                extras.arrays.cut(scope.elements, 0 if scope.outer is None else scope.outer.elements)",
        "                pass",
        "compiled/test_array.py",
    ),
    Mutant(
        "elements: no bounds",
        "compiled/control.py",
        "    if index < 0 or index >= size:\n",
        "    if index < -(1 << 62):\n",
        "compiled/test_call.py::test_indices_count_from_the_end_and_others_raise_in_machine_code",
    ),
    Mutant(
        "elements: the index of the write set forgets to forget",
        "compiled/log.py",
        "        store(log + WRITES_END, end)\n        index_anew(log)\n",
        "        store(log + WRITES_END, end)\n",
        "compiled/test_array.py compiled/test_call.py",
    ),
    Mutant(
        "machine code: kept although a constant has changed",
        "compiled/cache.py",
        "                _digest(found, put, seen)\n",
        "                pass\n",
        "compiled/test_cache.py",
    ),
    Mutant(
        "compare_and_set that compares nothing",
        "tvar.py",
        "            if old[0] is before:\n",
        "            if True:\n",
        "test_tvar.py",
    ),
    Mutant(
        "compare_and_set amid a transaction that must not be disturbed, unseen by snapshots",
        "tvar.py",
        "                if clock.now == now and clock.quiet and not self._waiters:\n",
        "                if clock.now == now and not self._waiters:\n",
        "test_tvar.py",
    ),
    Mutant(
        "compare_and_set that wakes nobody",
        "tvar.py",
        "rouse(self._waiters)\n",
        "self._waiters.clear()\n",
        "test_waiting.py",
    ),
    Mutant(
        "set that wakes nobody",
        "transaction.py",
        "rouse(variable._waiters)\n",
        "variable._waiters.clear()\n",
        "test_waiting.py",
    ),
    Mutant(
        "a commit of two variables that wakes who waits for the first only",
        "transaction.py",
        "rouse(second._waiters)\n",
        "second._waiters.clear()\n",
        "test_waiting.py",
    ),
    Mutant(
        "set amid a transaction that must not be disturbed, unseen by snapshots",
        "transaction.py",
        "        if clock.now == now and clock.quiet and not variable._waiters:\n",
        "        if clock.now == now and not variable._waiters:\n",
        "test_liveness.py",
    ),
    Mutant(
        "event loop: the bell is armed only after the woken were looked up",
        "aio.py",
        "        self._arm()\n        woken = self.woken\n        for _ in range(len(woken)):\n"
        "            _resolve(woken[0])\n            woken.popleft()\n        os.read(self._reader, 1)\n",
        "        woken = self.woken\n        for _ in range(len(woken)):\n"
        "            _resolve(woken[0])\n            woken.popleft()\n        os.read(self._reader, 1)\n"
        "        self._arm()\n",
        "test_aio.py",
    ),
    Mutant(
        "event loop: no look between the last read and the wait",
        "aio.py",
        "        if not waiter.register(reads):\n            return True\n",
        "        waiter._enlist()\n",
        "test_aio.py",
    ),
    Mutant(
        "event loop: a cancelled wait leaves its waiter",
        "aio.py",
        "        in_one_call(withdrawal)\n",
        "",
        "test_aio.py",
    ),
    Mutant(
        "event loop: the tables of many waiters are kept",
        "aio.py",
        "                waiter.tidy()\n",
        "                pass\n",
        "test_aio.py",
    ),
    Mutant(
        "event loop: the bell is closed while a committer may be ringing it",
        "aio.py",
        "        in_one_call(map(call, steps))\n",
        "",
        "test_aio.py",
    ),
    Mutant(
        "event loop: the bell is never taken down",
        "aio.py",
        "        if self.waiters:\n            return\n",
        "        return\n",
        "test_aio.py",
    ),
    Mutant(
        "event loop: a forked child keeps its parent's bells",
        "aio.py",
        "os.register_at_fork(after_in_child=_forget_bells)\n",
        "",
        "test_aio.py",
    ),
    Mutant(
        "event loop: no time limit",
        "aio.py",
        "        if deadline is not None:\n",
        "        if False:\n",
        "test_aio.py",
    ),
    Mutant(
        "woken waiters stay among the sleepers",
        "waiting.py",
        "    return chain(starmap(setattr, marks), leave, ",
        "    return chain(starmap(setattr, marks), ",
        "test_waiting.py",
    ),
    Mutant(
        "statistics: nobody is to blame",
        "tally.py",
        "            if variable._cell is not cell:\n",
        "            if False:\n",
        "test_stats.py",
    ),
    Mutant(
        "statistics: samples stand for nobody but themselves",
        "tally.py",
        "        calls = calls or self.mask + 1\n",
        "        calls = 1\n",
        "test_stats.py",
    ),
    Mutant(
        "map: another's change to the stripe is overwritten",
        "collections/map.py",
        "        if after is not before and not stripe.compare_and_set(before, after):\n",
        "        if after is not before and stripe.set(after):\n",
        "test_linearizability.py collections/test_map.py",
    ),
    Mutant(
        "queue: a single item at the back is taken without a look at the front",
        "collections/queue.py",
        " and front.get()[0] is hole:",
        ":",
        "collections/test_queue.py test_linearizability.py",
    ),
    Mutant(
        "counter: all threads share a stripe",
        "collections/counter.py",
        "        self.stripe = self.number & (STRIPES - 1)\n",
        "        self.stripe = 0\n",
        "collections/test_counter.py",
    ),
    Mutant(
        "rwlock: writers wait behind readers that never cease",
        "sync/rwlock.py",
        "    if state.waiting and all(one.thread != me.thread for one in state.readers):\n        return WAIT\n",
        "",
        "sync/test_rwlock.py",
    ),
    Mutant(
        "barrier: who gives up leaves the others waiting",
        "sync/barrier.py",
        "        if party in arrived and (len(arrived) < self._parties or party is arrived[-1]):\n"
        "            self._break()\n",
        "        pass\n",
        "sync/test_barrier.py",
    ),
    Mutant(
        "exchange: what runs uninvited may come between the look and the writing",
        "transaction.py",
        "    in_one_call(takewhile(partial(is_not, False), chain(map(is_, now, befores), writing)))\n",
        "    len(befores)\n    in_one_call(writing)\n",
        "collections/test_uninvited.py",
    ),
    Mutant(
        "queue: what runs uninvited may move the items that one looks for",
        "collections/queue.py",
        "                if self._front.get() is line:\n                    return False\n",
        "                return False\n",
        "collections/test_uninvited.py",
    ),
    Mutant(
        "whom a handler has woken is woken again",
        "waiting.py",
        "        self.wake: Callable[[], object] = partial(next, map(call, [wake]), None)\n",
        "        self.wake = wake\n",
        "testing/test_inject.py::test_a_handler_may_wake_whom_its_own_thread_is_about_to_wake",
    ),
    Mutant(
        "an alternative that has swallowed its retry counts as a success",
        "execution.py",
        "        if tx.fate is not None:\n            tx.doom(tx.fate)  #",
        "        if False:\n            tx.doom(tx.fate)  #",
        "../field/test_ghc_stm.py",
    ),
    Mutant(
        "exchange() of one variable twice says that both were changed",
        "transaction.py",
        "        if len(cells) != len(changes):\n",
        "        if False:\n",
        "../field/test_kcas.py",
    ),
]


@dataclass(frozen=True)
class Verdict:
    """`catcher`: the test that noticed, None if none did; `problem`: what is wrong then."""

    catcher: str | None
    problem: str = ""


def tried(mutant: Mutant, project: Path) -> Verdict:
    """Apply one defect to the copy, run its tests up to the first that fails, undo it."""
    path = project / "stm" / mutant.file
    source = path.read_text()
    if source.count(mutant.old) != 1:
        return Verdict(None, "NOT APPLICABLE any more")
    broken = source.replace(mutant.old, mutant.new)
    try:
        compile(broken, mutant.file, "exec")
    except SyntaxError as error:  # that any test would notice
        return Verdict(None, f"NO PYTHON: {error}")
    path.write_text(broken)
    command = [sys.executable, "-m", "pytest", "-v", "-x", "--tb=no", "-p", "no:cacheprovider", "--timeout", HANGING]
    arguments = [*command, *(f"tests/stm/{name}" for name in mutant.tests.split())]
    with tempfile.TemporaryFile() as printed:
        running = subprocess.Popen(
            arguments, cwd=project, stdout=printed, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            ended = running.wait(SECONDS)
        except subprocess.TimeoutExpired:
            ended = None
        finally:
            try:
                os.killpg(running.pid, signal.SIGKILL)  # with whatever hangs in it
            except ProcessLookupError:
                pass
            running.wait()
            path.write_text(source)
        printed.seek(0)
        output = printed.read().decode(errors="replace")
    if ended == 0:
        return Verdict(None, "NO TEST NOTICED")
    if ended not in (None, 1):  # nothing was collected, or pytest was called wrongly
        return Verdict(None, f"THE TESTS DID NOT RUN (status {ended})")
    return Verdict(catcher(output, hangs=ended is None))


TEST = re.compile(r"^(tests/\S+?::.+?)(?: (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b.*)?$", re.MULTILINE)


def catcher(output: str, hangs: bool) -> str:
    """The test that failed, or the one that had begun when the run was given up."""
    for name, outcome in TEST.findall(output):
        name = name.split(" +++")[0].strip().removeprefix("tests/stm/")
        if outcome in ("FAILED", "ERROR"):
            return name
        if not outcome:
            return f"{name} (hangs)"
    return "the import of the tests" + (" (hangs)" if hangs else "")


def main(names: list[str]) -> int:
    chosen = [mutant for mutant in MUTANTS if not names or any(name in mutant.name for name in names)]
    if not chosen:
        print(f"no mutant has any of these in its name: {', '.join(names)}", file=sys.stderr)
        return 2
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    for mutant in [mutant for mutant in chosen if mutant.only_without_gil and gil]:
        print(f"needs no GIL       {mutant.name}")
        chosen.remove(mutant)
    missed, longest = 0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "project"
        shutil.copytree(ROOT, project, ignore=shutil.ignore_patterns(".*", "reports", "build", "dist", "__pycache__"))
        for mutant in chosen:
            begun = time.monotonic()
            verdict = tried(mutant, project)
            seconds = time.monotonic() - begun
            longest = max(longest, seconds)
            missed += verdict.catcher is None
            print(f"{'caught' if verdict.catcher else 'MISSED'}  {seconds:5.1f} s    {mutant.name}")
            print(f"                   {verdict.catcher or verdict.problem}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} caught, each within {longest:.0f} s")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
