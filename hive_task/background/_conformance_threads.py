"""Conformance: many threads at once, waiting, and counts that add up."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from hive_task.background._conformance_basics import BROKEN
from hive_task.background._conformance_tools import LEASE, PATIENCE, Claimant, Thread, Toolkit, raises, together
from hive_task.background.tasks import CANCELLED, DEAD, DONE, ENDED, QUEUED, RUNNING, SCHEDULED, STATES, End, Task


class Threads(Toolkit):
    def sources(self, number: int) -> list[Any]:
        """So many, by turns this object and the other one for the same tasks."""
        return [self.source if place % 2 == 0 else self.other for place in range(number)]

    # P2, with many.

    def test_p2_no_task_is_handed_out_twice_and_none_is_lost(self) -> None:
        self.needs("threads")
        producers, claimants, each = 3, 4, 60
        everything = threading.Semaphore(0)

        def produce(number: int, source: Any) -> list[str]:
            ids = []
            for place in range(each):
                if place % 5:
                    task = Task("work", priority=place % 3)
                    ids.append(source.enqueue_task(task) or task.id)
                else:
                    ids += source.enqueue_tasks([Task("work"), Task("work")])
            return ids

        expected = producers * (each + each // 5)

        def claim(number: int, source: Any) -> list[str]:
            app, taken = Claimant(f"claimant {number}"), []
            limit = time.monotonic() + PATIENCE
            while everything._value < expected and time.monotonic() < limit:
                found = source.dequeue_tasks(1 + number % 3, app=app)
                if not found:
                    source.wait_for_work(0.01, app=app)
                for task in found:
                    everything.release()
                    taken.append(task.id)
            return taken

        work: list[Callable[[], list[str]]] = []
        for number, source in enumerate(self.sources(producers)):
            work.append(lambda number=number, source=source: produce(number, source))  # type: ignore[misc]
        for number, source in enumerate(self.sources(claimants)):
            work.append(lambda number=number, source=source: claim(number, source))  # type: ignore[misc]
        answers = together(*work)
        put = [id for ids in answers[:producers] for id in ids]
        taken = [id for ids in answers[producers:] for id in ids]
        assert len(put) == expected
        assert [id for id, times in Counter(taken).items() if times > 1] == []
        assert set(taken) == set(put)

    def test_p2_nothing_is_lost_by_failures_and_releases(self) -> None:
        self.needs("threads", "claims", "records")
        ids = self.source.enqueue_tasks([Task("work", number) for number in range(120)])
        good: Counter[str] = Counter()
        counting = threading.Lock()

        def left() -> int:
            with counting:
                return len(ids) - sum(good.values())

        def work(number: int, source: Any) -> None:
            app, chance = Claimant(f"claimant {number}"), random.Random(number)
            limit = time.monotonic() + PATIENCE
            ends: list[End] = []
            while left() and time.monotonic() < limit:
                accepted, tasks = source.settle_and_dequeue(ends, 3, app=app)
                with counting:
                    good.update(end.task.id for end, fine in zip(ends, accepted, strict=True) if end.outcome == DONE)
                    assert all(accepted)
                ends = []
                for task in tasks:
                    outcome = chance.choice([DONE, DONE, QUEUED, SCHEDULED])
                    retry_at = self.clock.time() if outcome == SCHEDULED else None
                    failure = BROKEN if outcome == SCHEDULED else None
                    ends.append(End(task, outcome, failure=failure, retry_at=retry_at))
                if not tasks:
                    source.tend(app=app)

        together(
            *[
                lambda number=number, source=source: work(number, source)
                for number, source in enumerate(self.sources(4))
            ]
        )
        assert good == Counter(ids)
        assert self.counts() == {DONE: len(ids)}

    def test_p4_a_limit_is_never_exceeded(self) -> None:
        self.needs("threads", "limits", "claims", "records")
        most, each, workers = 2, 12, 5
        running: Counter[str] = Counter()
        highest: Counter[str] = Counter()
        counting = threading.Lock()
        left = [3 * each]

        def work(number: int, source: Any) -> None:
            app, chance = Claimant(f"claimant {number}"), random.Random(number)
            limit = time.monotonic() + PATIENCE
            while left[0] and time.monotonic() < limit:
                task = source.dequeue_task(app=app)
                if task is None:
                    source.tend(app=app)
                    source.wait_for_work(0.01, app=app)
                    continue
                with counting:
                    running[task.limit.key] += 1
                    highest[task.limit.key] = max(highest[task.limit.key], running[task.limit.key])
                again = chance.random() < 0.3
                with counting:
                    running[task.limit.key] -= 1
                    left[0] -= not again
                if again:
                    assert source.fail_task(task, BROKEN, retry_at=self.clock.time(), app=app) is True
                else:
                    assert source.complete_task(task, app=app) is True

        for number in range(3 * each):
            self.put(limit=(f"key {number % 3}", most), priority=number % 2)
        together(
            *[
                lambda number=number, source=source: work(number, source)
                for number, source in enumerate(self.sources(workers))
            ]
        )
        assert self.counts() == {DONE: 3 * each}
        assert all(1 <= number <= most for number in highest.values())

    def test_p6_of_many_with_the_same_id_or_key_one_is_put_in(self) -> None:
        self.needs("threads", "known ids", "unique", "records")
        for turn in range(10):

            def put(source: Any, turn: int = turn) -> tuple[str, str]:
                known = source.enqueue_task(Task("work", id=f"id {turn}"))
                unique = Task("work", unique=f"key {turn}")
                return known or f"id {turn}", source.enqueue_task(unique) or unique.id

            answers = together(*[lambda source=source: put(source) for source in self.sources(4)])
            assert len(set(answers)) == 1
        assert self.counts() == {QUEUED: 20}

    def test_cancelling_and_taking_at_once_is_one_or_the_other(self) -> None:
        self.needs("threads", "records", "claims")
        for _ in range(30):
            id = self.put()
            cancelled, task = together(
                lambda id=id: self.other.cancel_task(id),  # type: ignore[misc]
                lambda: self.source.dequeue_task(app=self.ann),
            )
            assert cancelled is True
            record = self.record(id)
            if task is None:
                assert (record.state, record.cancel_requested) == (CANCELLED, False)
            else:
                assert (record.state, record.cancel_requested) == (RUNNING, True)
                assert self.source.renew_leases([task], app=self.ann) == {id}
                assert self.source.settle_tasks([End(task, CANCELLED)], app=self.ann) == [True]

    # Waiting.

    def test_waiting_for_work_ends_at_its_time(self) -> None:
        self.source.wait_for_work(0.0, app=self.ann)
        self.source.wait_for_work(0.02, app=self.ann)
        self.source.wait_for_change(0.0, app=self.ann)
        assert self.nothing()

    def test_waiting_for_work_ends_at_once_if_there_is_some(self) -> None:
        self.needs("waiting")
        self.put()
        began = time.monotonic()
        self.source.wait_for_work(PATIENCE, app=self.ann)
        assert time.monotonic() - began < PATIENCE / 2

    def test_no_wake_up_is_lost(self) -> None:
        self.needs("waiting", "records", "claims")
        rounds = 60

        def consume() -> None:
            done = 0
            while done < rounds:
                task = self.other.dequeue_task(app=self.bob)
                if task is None:
                    self.other.wait_for_work(PATIENCE, app=self.bob)
                else:
                    assert self.other.complete_task(task, task.data, app=self.bob) is True
                    done += 1

        consumer = Thread(consume)
        began = time.monotonic()
        for number in range(rounds):
            record = self.source.await_end(self.put(data=number), PATIENCE)
            assert record is not None
            assert (record.state, record.result) == (DONE, number)
        consumer.result()
        assert time.monotonic() - began < PATIENCE, "somebody slept until his time was over"

    def makes_work(self, make: Callable[[], Any], before: Callable[[], Any] | None = None) -> None:
        """Whoever waits for work is woken by this."""
        if before is not None:
            before()
        assert self.nothing()

        def wait() -> Task | None:
            limit = time.monotonic() + PATIENCE
            while time.monotonic() < limit:
                task: Task | None = self.other.dequeue_task(app=self.bob)
                if task is not None:
                    return task
                self.other.wait_for_work(PATIENCE, app=self.bob)
            return None

        began = time.monotonic()
        waiter = Thread(wait)
        waiter.ended(0.02)
        make()
        assert waiter.result() is not None
        assert time.monotonic() - began < PATIENCE / 2, "he slept until his time was over"

    def test_a_batch_wakes(self) -> None:
        self.needs("waiting")
        self.makes_work(lambda: self.source.enqueue_tasks([Task("work"), Task("work")]))

    def test_a_task_with_a_priority_wakes(self) -> None:
        self.needs("waiting", "priorities")
        self.makes_work(lambda: self.put(priority=-5))

    def test_a_task_that_has_become_due_wakes(self) -> None:
        self.needs("waiting", "schedule")
        self.put(due=self.clock.time() + 60)
        self.makes_work(lambda: self.pass_time(60))

    def test_a_release_wakes(self) -> None:
        self.needs("waiting", "claims")
        self.put()
        task = self.take()
        self.makes_work(lambda: self.source.release_task(task, app=self.ann))

    def test_an_expired_lease_wakes(self) -> None:
        self.needs("waiting", "leases")
        self.put()
        self.take()
        self.makes_work(lambda: self.pass_time(LEASE + 1))

    def test_a_place_that_is_free_wakes(self) -> None:
        self.needs("waiting", "limits", "claims")
        self.put(limit=("key", 1))
        self.put(limit=("key", 1))
        task = self.take()
        self.makes_work(lambda: self.source.complete_task(task, app=self.ann))

    def test_the_end_of_a_parent_wakes(self) -> None:
        self.needs("waiting", "dependencies", "claims")
        self.put(after=(self.put(),))
        task = self.take()
        self.makes_work(lambda: self.source.complete_task(task, app=self.ann))

    def test_resuming_a_queue_wakes(self) -> None:
        self.needs("waiting", "pauses", "records")
        self.source.pause_queue("paused")
        self.put(queue="paused")
        self.makes_work(lambda: self.source.resume_queue("paused"))

    def test_a_dead_letter_that_is_queued_again_wakes(self) -> None:
        self.needs("waiting", "records", "claims")
        id = self.put()
        self.source.fail_task(self.take(), BROKEN, app=self.ann)
        self.makes_work(lambda: self.source.retry_task(id))

    def test_wake_lets_everybody_return(self) -> None:
        self.needs("waiting")
        waiters = [
            Thread(lambda: self.source.wait_for_work(None, app=self.ann)),
            Thread(lambda: self.source.wait_for_work(PATIENCE, app=self.bob)),
            Thread(lambda: self.source.wait_for_change(PATIENCE, app=self.ann)),
        ]
        limit = time.monotonic() + PATIENCE / 2
        while not all(waiter.ended(0.005) for waiter in waiters):
            self.source.wake()  # not once: who has not begun to wait is not woken
            assert time.monotonic() < limit, "wake() does not wake"
        for waiter in waiters:
            waiter.result()

    def test_an_earlier_time_is_a_change_for_who_tends(self) -> None:
        self.needs("waiting", "schedule")
        self.put(due=self.clock.time() + 500)
        self.tend()
        began = time.monotonic()
        waiter = Thread(lambda: self.source.wait_for_change(PATIENCE, app=self.ann))
        waiter.ended(0.02)
        self.put(due=self.clock.time() + 50)
        waiter.result()
        assert time.monotonic() - began < PATIENCE / 2
        self.source.wait_for_change(PATIENCE, app=self.ann)  # one that was put in before the wait counts as well
        assert time.monotonic() - began < PATIENCE / 2

    def test_an_end_can_be_awaited(self) -> None:
        self.needs("waiting", "records", "claims")
        assert self.source.await_end("nobody", 0.0) is None
        id = self.put()
        assert self.source.await_end(id, 0.0).state == QUEUED
        assert self.source.await_end(id, 0.02).state == QUEUED
        task = self.take()
        waiters = [Thread(lambda: self.source.await_end(id)), Thread(lambda: self.other.await_end(id, PATIENCE))]
        assert not waiters[0].ended(0.02)
        began = time.monotonic()
        self.source.fail_task(task, BROKEN, app=self.ann)
        assert [waiter.result().state for waiter in waiters] == [DEAD, DEAD]
        assert time.monotonic() - began < PATIENCE / 2
        assert self.source.await_end(id).failure == BROKEN

    # Counts.

    def test_counts_add_up_whatever_happens(self) -> None:
        self.needs("records", "claims", "schedule", "limits", "dependencies", "pauses", "known ids", "unique")
        for seed in range(3):
            Walk(self, random.Random(seed)).go(120)

    def test_what_is_no_task_is_refused(self) -> None:
        self.needs("dependencies", "records")
        before = self.counts()
        raises(ValueError, self.put, after=("nobody",))
        assert self.counts() == before


class Walk:
    """Does what comes to its mind with a source, and looks after each step whether the counts add up."""

    def __init__(self, suite: Toolkit, chance: random.Random) -> None:
        self.suite, self.source, self.chance = suite, suite.source, chance
        self.there: set[str] = {record.task.id for record in self.source.list_tasks(limit=100_000)}
        self.taken: list[Task] = []

    def go(self, steps: int) -> None:
        actions = [self.put, self.put, self.put, self.take, self.take, self.settle, self.settle, self.cancel]
        actions += [self.retry, self.pause, self.pass_time, self.purge]
        for _ in range(steps):
            self.chance.choice(actions)()
            self.check()
        for queue in self.source.paused_queues():
            self.source.resume_queue(queue)
        self.check()

    def some_id(self) -> str:
        return self.chance.choice(sorted(self.there) or ["nobody"])

    def put(self) -> None:
        chance = self.chance
        options: dict[str, Any] = {"queue": chance.choice("ab"), "priority": chance.choice([0, 0, 1])}
        kind = chance.randrange(7)
        if kind == 0:
            options["limit"] = ("key", 2)
        elif kind == 1:
            options["due"] = self.suite.clock.time() + chance.randrange(20)
        elif kind == 2 and self.there:
            options.update(after=(self.some_id(),), despite_failure=chance.random() < 0.5)
        elif kind == 3:
            options["unique"] = chance.choice("xy")
        elif kind == 4 and self.there:
            options["id"] = self.some_id()
        self.there.add(self.suite.put(**options))

    def take(self) -> None:
        self.taken += self.source.dequeue_tasks(self.chance.randrange(4), app=self.suite.ann)

    def settle(self) -> None:
        if self.taken:
            task = self.taken.pop(self.chance.randrange(len(self.taken)))
            outcome = self.chance.choice([DONE, DEAD, CANCELLED, SCHEDULED, QUEUED])
            retry_at = self.suite.clock.time() + 5 if outcome == SCHEDULED else None
            failure = BROKEN if outcome in (DEAD, SCHEDULED) else None
            self.source.settle_tasks([End(task, outcome, failure=failure, retry_at=retry_at)])

    def cancel(self) -> None:
        self.source.cancel_task(self.some_id())

    def retry(self) -> None:
        self.source.retry_task(self.some_id())

    def pause(self) -> None:
        if self.chance.random() < 0.5:
            self.source.pause_queue("a")
        else:
            self.source.resume_queue("a")

    def pass_time(self) -> None:
        self.suite.pass_time(self.chance.choice([1, 4, LEASE / 2]))

    def purge(self) -> None:
        states = self.chance.choice([(DONE,), (CANCELLED, DEAD), tuple(ENDED)])
        gone = self.source.purge(self.suite.clock.time() - 3, states=states)
        still = {record.task.id for record in self.source.list_tasks(limit=100_000)}
        assert gone == len(self.there - still)
        self.there = still

    def check(self) -> None:
        records = self.source.list_tasks(limit=100_000)
        assert {record.task.id for record in records} == self.there
        found: Counter[tuple[str, str]] = Counter()
        for queue, states in self.source.count_tasks().items():
            assert set(states) <= set(STATES)
            found.update({(queue, state): number for state, number in states.items() if number})
        assert found == Counter((record.task.queue, record.state) for record in records)
        held = [record for record in records if record.task.limit and record.state in (QUEUED, RUNNING)]
        assert len(held) <= 2
