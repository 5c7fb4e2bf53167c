"""Conformance: putting in, taking, settling; what can be asked, and done by hand. P1, P6."""

from __future__ import annotations

from typing import Any

from hive_task.background._conformance_tools import Toolkit, ids_of, raises
from hive_task.background.tasks import CANCELLED, DEAD, DONE, QUEUED, RUNNING, SCHEDULED, End, Failure, Task

BROKEN = Failure("ValueError", "it is broken", "Traceback ...")


class Basics(Toolkit):
    # The three methods of every source.

    def test_what_was_put_in_comes_out_once_in_order(self) -> None:
        tasks = [Task("work", number) for number in range(20)]
        for task in tasks:
            assert self.source.enqueue_task(task, app=self.ann) in (None, task.id)
        taken = self.take_all()
        assert ids_of(taken) == ids_of(tasks)
        assert [task.data for task in taken] == list(range(20))
        assert self.nothing()

    def test_an_empty_source_hands_out_nothing(self) -> None:
        assert self.source.dequeue_task() is None
        assert self.source.dequeue_tasks(5) == []
        assert self.source.dequeue_tasks(0) == []

    def test_the_application_may_be_left_out(self) -> None:
        self.source.enqueue_task(Task("work"))
        task = self.source.dequeue_task()
        assert task.name == "work"
        assert self.source.complete_task(task) is True

    def test_many_at_once(self) -> None:
        tasks = [Task("work", number) for number in range(10)]
        assert self.source.enqueue_tasks(tasks, app=self.ann) == ids_of(tasks)
        assert self.source.enqueue_tasks([], app=self.ann) == []
        assert ids_of(self.source.dequeue_tasks(4, app=self.ann)) == ids_of(tasks[:4])
        assert ids_of(self.source.dequeue_tasks(99, app=self.ann)) == ids_of(tasks[4:])

    def test_a_task_keeps_all_that_was_said_of_it(self) -> None:
        self.needs("claims")
        task = Task(
            "work",
            {"text": "Grüße 🐝", "list": [1, 2.5, None, True]},
            queue="letters",
            priority=-3,
            retries=7,
            time_limit=2.5,
            unique="key",
            limit=("place", 3),  # type: ignore[arg-type]
            rate=("often", 5, 60.0),  # type: ignore[arg-type]
            despite_failure=True,
        )
        self.source.enqueue_task(task)
        taken = self.take()
        assert taken.claimed(None) == task
        assert taken.claim is not None
        assert (taken.claim.worker, taken.claim.attempt) == ("ann", 1)

    def test_what_is_put_in_by_a_call_is_a_task_like_others(self) -> None:
        first = self.source.enqueue_call("first", [1, 2], "default", app=self.ann)
        second = self.put("second")
        third = self.source.enqueue_call("third", None, "other", app=self.ann)
        assert len({first, second, third}) == 3
        tasks = self.take_all()
        assert [(task.name, task.id, task.queue) for task in tasks] == [
            ("first", first, "default"),
            ("second", second, "default"),
            ("third", third, "other"),
        ]
        assert tasks[0].claimed(None) == Task("first", [1, 2], id=first)

    def test_settling_and_taking_in_one_step(self) -> None:
        self.needs("claims", "records")
        first, second, third = self.put(), self.put(), self.put()
        accepted, tasks = self.source.settle_and_dequeue([], 1, app=self.ann)
        assert (accepted, ids_of(tasks)) == ([], [first])
        ends = [End(tasks[0], DONE, "well"), End(tasks[0], DONE, "twice")]
        accepted, tasks = self.source.settle_and_dequeue(ends, 5, app=self.ann)
        assert (accepted, ids_of(tasks)) == ([True, False], [second, third])
        assert self.record(first).result == "well"
        assert self.source.settle_and_dequeue([End(task, QUEUED) for task in tasks], 0, app=self.ann)[1] == []
        assert self.states(second, third) == [QUEUED, QUEUED]

    def test_each_end_is_answered_by_itself(self) -> None:
        self.needs("claims", "records")
        ids = [self.put() for _ in range(5)]
        tasks = self.source.dequeue_tasks(5, app=self.ann)
        retry_at = self.clock.time() + 5
        ends = [
            End(tasks[0], DONE, result=42),
            End(tasks[1], DEAD, failure=BROKEN),
            End(tasks[2], CANCELLED),
            End(tasks[3], SCHEDULED, failure=BROKEN, retry_at=retry_at),
            End(tasks[4], QUEUED),
            End(Task("stranger"), DONE),
        ]
        assert self.source.settle_tasks(ends, app=self.ann) == [True] * 5 + [False]
        assert self.states(*ids) == [DONE, DEAD, CANCELLED, SCHEDULED, QUEUED]
        assert self.source.settle_tasks(ends, app=self.ann) == [False] * 6
        assert self.states(*ids) == [DONE, DEAD, CANCELLED, SCHEDULED, QUEUED]

    # P1. What was refused has not happened.

    def test_p1_a_batch_with_a_bad_task_puts_in_nothing(self) -> None:
        self.needs("dependencies", "records")
        raises(ValueError, self.source.enqueue_tasks, [Task("good"), Task("bad", after=("nobody",)), Task("good")])
        assert self.counts() == {}
        assert self.nothing()

    # P6. Known ids change nothing.

    def test_p6_a_known_id_changes_nothing(self) -> None:
        self.needs("known ids", "records")
        id = self.put("first", id="known")
        assert self.put("second", id="known", priority=9, due=self.clock.time() + 9) == id
        assert self.record(id).task.name == "first"
        task = self.take()
        assert self.put("second", id="known") == id
        assert self.nothing()
        self.source.complete_task(task, "well", app=self.ann)
        assert self.put("second", id="known") == id
        assert (self.state(id), self.record(id).result) == (DONE, "well")
        assert self.source.enqueue_tasks([Task("new", id="new"), Task("newer", id="new")]) == ["new", "new"]
        assert self.counts() == {DONE: 1, QUEUED: 1}

    def test_p6_a_unique_key_is_taken_until_its_task_has_ended(self) -> None:
        self.needs("unique", "records")
        first = self.put(unique="key")
        assert self.put(unique="key") == first
        assert self.put(unique="key", due=self.clock.time() + 5) == first
        other = self.put(unique="other key")
        assert other != first
        task = self.take()
        assert self.put(unique="key") == first
        self.source.fail_task(task, BROKEN, retry_at=self.clock.time() + 5, app=self.ann)
        assert self.put(unique="key") == first  # it is to be tried again
        self.source.cancel_task(first)
        second = self.put(unique="key")
        assert second != first
        for task in self.take_all():
            self.source.complete_task(task, app=self.ann)
        assert self.put(unique="key") not in (first, second)

    def test_p6_a_unique_key_may_be_taken_for_a_time(self) -> None:
        self.needs("unique", "records")
        first = self.put(unique="key", unique_for=60.0)
        self.source.complete_task(self.take(), app=self.ann)
        self.pass_time(59)
        assert self.put(unique="key", unique_for=60.0) == first
        self.pass_time(2)
        second = self.put(unique="key", unique_for=60.0)
        assert second != first
        self.pass_time(59)
        assert self.put(unique="key", unique_for=60.0) == second

    def test_p6_unique_keys_count_within_a_batch(self) -> None:
        self.needs("unique", "records")
        one, two = self.source.enqueue_tasks([Task("work", unique="key"), Task("work", unique="key")])
        assert one == two
        assert self.counts() == {QUEUED: 1}

    # Records.

    def test_a_record_tells_what_has_become_of_a_task(self) -> None:
        self.needs("records", "claims")
        start = self.clock.time()
        id = self.put(data=[1, 2])
        record = self.record(id)
        assert (record.state, record.created, record.due, record.attempts) == (QUEUED, start, start, 0)
        assert (record.started, record.ended, record.result, record.failure) == (None, None, None, None)
        self.clock.advance(3)
        task = self.take()
        record = self.record(id)
        assert (record.state, record.started, record.attempts, record.worker) == (RUNNING, start + 3, 1, "ann")
        self.clock.advance(4)
        assert self.source.complete_task(task, {"sum": 3}, app=self.ann) is True
        record = self.record(id)
        assert (record.state, record.ended, record.result, record.crashes) == (DONE, start + 7, {"sum": 3}, 0)
        assert record.task.data == [1, 2]
        assert record.task.claim is None
        assert self.source.find_task("nobody") is None

    def test_a_dead_letter_tells_why_and_can_be_queued_again(self) -> None:
        self.needs("records", "claims")
        id = self.put()
        task = self.take()
        assert self.source.fail_task(task, BROKEN, app=self.ann) is True
        record = self.record(id)
        assert (record.state, record.failure, record.ended) == (DEAD, BROKEN, self.clock.time())
        assert self.nothing()
        assert self.source.retry_task(id) is True
        assert self.source.retry_task(id) is False
        record = self.record(id)
        assert (record.state, record.attempts, record.crashes, record.ended) == (QUEUED, 0, 0, None)
        again = self.take()
        assert again.claim is not None
        assert again.claim.attempt == 1
        assert self.source.complete_task(task, "late", app=self.ann) is False
        assert self.source.complete_task(again, "well", app=self.ann) is True
        assert self.source.retry_task(id) is False
        assert self.source.retry_task("nobody") is False

    def test_a_cancelled_task_can_be_queued_again_too(self) -> None:
        self.needs("records")
        id = self.put()
        self.source.cancel_task(id)
        assert self.source.retry_task(id) is True
        assert ids_of(self.take_all()) == [id]

    def test_progress_is_told_by_the_owner_alone(self) -> None:
        self.needs("records", "claims")
        id = self.put()
        task = self.take()
        assert self.source.set_progress(task, {"done": 1, "of": 3}) is True
        assert self.record(id).progress == {"done": 1, "of": 3}
        self.source.release_task(task, app=self.ann)
        assert self.source.set_progress(task, "late") is False
        again = self.take(self.bob)
        assert self.source.set_progress(task, "late") is False
        assert self.source.set_progress(again, "fresh") is True
        self.source.complete_task(again, app=self.bob)
        assert self.source.set_progress(again, "late") is False
        assert self.record(id).progress == "fresh"

    def test_lists_are_newest_first_and_can_be_narrowed(self) -> None:
        self.needs("records")
        ids = []
        for number in range(6):
            ids.append(self.put(f"name {number % 2}", queue=f"queue {number % 3}"))
            self.clock.advance(1)
        self.source.complete_task(self.take(), app=self.ann)

        def listed(**options: Any) -> list[int]:
            return [ids.index(record.task.id) for record in self.source.list_tasks(**options)]

        assert listed() == [5, 4, 3, 2, 1, 0]
        assert listed(limit=2) == [5, 4]
        assert listed(name="name 1") == [5, 3, 1]
        assert listed(queue="queue 0") == [3, 0]
        assert listed(state=DONE) == [0]
        assert listed(state=QUEUED, queue="queue 0", name="name 1") == [3]
        assert listed(queue="no such queue") == []

    def test_counts_are_by_queue_and_state(self) -> None:
        self.needs("records")
        assert not self.counts()
        self.put(queue="one")
        self.put(queue="one")
        self.put(queue="two", due=self.clock.time() + 5)
        self.take()
        counts = self.source.count_tasks()
        assert {state: number for state, number in counts["one"].items() if number} == {QUEUED: 1, RUNNING: 1}
        assert {state: number for state, number in counts["two"].items() if number} == {SCHEDULED: 1}

    def test_purging_forgets_what_ended_before_a_time(self) -> None:
        self.needs("records", "claims")
        done, dead, cancelled = self.put(), self.put(), self.put()
        self.source.complete_task(self.take(), app=self.ann)
        self.source.fail_task(self.take(), BROKEN, app=self.ann)
        self.source.cancel_task(cancelled)
        ended = self.clock.time()
        self.clock.advance(10)
        young, waiting = self.put(), self.put()
        self.source.complete_task(self.take(), app=self.ann)
        assert self.source.purge(ended) == 0
        assert self.source.purge(ended + 5) == 2
        assert [self.source.find_task(id) for id in (done, cancelled)] == [None, None]
        assert self.states(dead, young, waiting) == [DEAD, DONE, QUEUED]
        assert self.source.purge(ended + 5, states=[DEAD, QUEUED]) == 1
        assert self.source.purge(ended + 99) == 1
        assert self.counts() == {QUEUED: 1}
        assert self.put(id=done) == done  # it is not known any more
        assert self.counts() == {QUEUED: 2}

    def test_closing_twice_is_no_error(self) -> None:
        self.put()
        self.source.close()
        self.source.close()

    # Cancelling.

    def test_cancelling_what_has_not_begun_ends_it_at_once(self) -> None:
        self.needs("records")
        queued, urgent = self.put(), self.put(priority=5)
        scheduled = self.put(due=self.clock.time() + 10)
        for id in (queued, urgent, scheduled):
            assert self.source.cancel_task(id) is True
            assert self.source.cancel_task(id) is False
            record = self.record(id)
            assert (record.state, record.ended, record.cancel_requested) == (CANCELLED, self.clock.time(), False)
        self.pass_time(20)
        assert self.nothing()
        assert self.source.cancel_task("nobody") is False

    def test_several_are_cancelled_and_queued_again_at_once(self) -> None:
        self.needs("records")
        first, second, third = self.put(), self.put(), self.put()
        assert self.source.cancel_tasks([second, "nobody", third]) == [True, False, True]
        assert self.source.cancel_tasks([]) == []
        assert [self.state(id) for id in (first, second, third)] == [QUEUED, CANCELLED, CANCELLED]
        assert self.source.retry_tasks([first, second, "nobody"]) == [False, True, False]
        assert [self.state(id) for id in (first, second, third)] == [QUEUED, QUEUED, CANCELLED]

    def test_cancelling_what_waits_for_others_ends_it_at_once(self) -> None:
        self.needs("records", "dependencies", "limits")
        parent = self.put("parent")
        child = self.put("child", after=(parent,))
        holder, waiting, next_one = [self.put(name, limit=("key", 1)) for name in ("holder", "waiting", "next")]
        assert self.source.cancel_task(child) is True
        assert self.source.cancel_task(waiting) is True
        assert self.source.cancel_task(holder) is True  # queued: gives its place to the next but one
        assert self.states(child, holder, waiting, next_one) == [CANCELLED] * 3 + [QUEUED]
        self.source.complete_task(self.take(), app=self.ann)
        assert self.names() == ["next"]

    def test_cancelling_what_runs_asks_for_its_end(self) -> None:
        self.needs("records", "claims")
        id, calm = self.put(), self.put()
        tasks = self.source.dequeue_tasks(2, app=self.ann)
        assert self.source.renew_leases(tasks, app=self.ann) == set()
        assert self.source.cancel_task(id) is True
        assert self.source.cancel_task(id) is True
        assert (self.state(id), self.record(id).cancel_requested) == (RUNNING, True)
        assert self.source.renew_leases(tasks, app=self.ann) == {id}
        assert self.source.settle_tasks([End(tasks[0], CANCELLED)], app=self.ann) == [True]
        assert self.states(id, calm) == [CANCELLED, RUNNING]
        assert self.source.cancel_task(id) is False

    def test_what_runs_may_be_done_all_the_same_but_is_not_tried_again(self) -> None:
        self.needs("records", "claims")
        done, failed, given_back = self.put(), self.put(), self.put()
        tasks = self.source.dequeue_tasks(3, app=self.ann)
        for id in (done, failed, given_back):
            self.source.cancel_task(id)
        assert self.source.complete_task(tasks[0], "well", app=self.ann) is True
        assert self.source.fail_task(tasks[1], BROKEN, retry_at=self.clock.time(), app=self.ann) is True
        assert self.source.release_task(tasks[2], app=self.ann) is True
        self.tend()
        assert self.states(done, failed, given_back) == [DONE, CANCELLED, CANCELLED]
        assert self.nothing()
