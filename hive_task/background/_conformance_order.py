"""Conformance: what may run, and in which order. P4, P5."""

from __future__ import annotations

import random

from hive_task.background._conformance_basics import BROKEN
from hive_task.background._conformance_tools import Toolkit, raises
from hive_task.background.tasks import CANCELLED, DEAD, DONE, QUEUED, RUNNING, SCHEDULED, WAITING, Task


class Order(Toolkit):
    def finish(self, task: Task) -> None:
        assert self.source.complete_task(task, app=self.ann) is True

    # Priorities and queues.

    def test_p4_higher_priorities_come_first_and_equals_in_order_whatever_their_queues(self) -> None:
        self.needs("priorities")
        for number, priority in enumerate([0, 5, -1, 0, 5, 0, -1, 7]):
            self.put(f"{number}", priority=priority, queue=f"queue {number % 3}")
        assert self.names() == ["7", "1", "4", "0", "3", "5", "2", "6"]

    def test_p4_also_many_at_once(self) -> None:
        self.needs("priorities")
        chance = random.Random(7)
        tasks = [
            Task(
                f"{number}",
                priority=chance.choice([0, 0, 0, 3, -3]),
                queue=chance.choice("abc"),
                unique=chance.choice([None, f"key {number}"]),
            )
            for number in range(60)
        ]
        self.source.enqueue_tasks(tasks)
        taken: list[str] = []
        while batch := self.source.dequeue_tasks(7, app=self.ann):
            taken += [task.name for task in batch]
        assert taken == [task.name for task in sorted(tasks, key=lambda task: -task.priority)]

    def test_p4_what_comes_back_has_its_old_place(self) -> None:
        self.needs("claims", "priorities")
        for number in range(4):
            self.put(f"{number}")
        first, second = self.source.dequeue_tasks(2, app=self.ann)
        self.source.release_task(second, app=self.ann)
        self.source.release_task(first, app=self.ann)
        assert self.names() == ["0", "1", "2", "3"]

    def test_p4_nothing_of_a_paused_queue_is_handed_out(self) -> None:
        self.needs("pauses", "records", "claims")
        self.put("early", queue="paused")
        self.put("running", queue="paused", priority=1)
        task = self.take()
        assert self.source.paused_queues() == frozenset()
        self.source.pause_queue("paused")
        self.source.pause_queue("paused")
        assert self.source.paused_queues() == {"paused"}
        late = self.put("late", queue="paused")
        self.put("urgent", queue="paused", priority=9)
        self.source.enqueue_tasks([Task("batch", queue="paused"), Task("other batch", queue="other")])
        due = self.put("due", queue="paused", due=self.clock.time() + 5)
        self.put("other", queue="other")
        self.pass_time(10)
        assert self.names() == ["other batch", "other"]
        assert self.states(late, due) == [QUEUED, QUEUED]
        self.finish(task)  # what runs goes on
        self.source.resume_queue("paused")
        self.source.resume_queue("never paused")
        assert self.source.paused_queues() == frozenset()
        assert self.names() == ["urgent", "early", "late", "batch", "due"]

    def test_what_is_cancelled_in_a_paused_queue_stays_cancelled(self) -> None:
        self.needs("pauses", "records")
        self.source.pause_queue("paused")
        first, second = self.put(queue="paused"), self.put(queue="paused")
        assert self.nothing()
        assert self.source.cancel_task(first) is True
        self.source.resume_queue("paused")
        assert self.take().id == second
        assert self.nothing()

    # P5. Times.

    def test_p5_a_scheduled_task_comes_at_its_time_and_not_before(self) -> None:
        self.needs("schedule", "records")
        start = self.clock.time()
        late, soon = self.put("late", due=start + 20), self.put("soon", due=start + 10)
        assert self.states(late, soon) == [SCHEDULED, SCHEDULED]
        assert self.nothing()
        seconds = self.tend()
        assert seconds is not None
        assert 0 < seconds <= 10
        self.pass_time(9.5)
        assert self.nothing()
        self.pass_time(0.5)
        assert self.state(soon) == QUEUED
        task = self.take()
        assert task.claim is not None
        assert (task.id, task.claim.due) == (soon, start + 10)
        assert self.nothing()
        self.pass_time(10)
        assert self.take().id == late

    def test_p5_a_time_that_is_over_is_now(self) -> None:
        self.needs("schedule")
        self.put("old", due=self.clock.time() - 100)
        self.put("now", due=self.clock.time())
        self.tend()
        assert sorted(self.names()) == ["now", "old"]

    def test_p5_in_a_batch_those_with_a_time_are_scheduled(self) -> None:
        self.needs("schedule", "records")
        later = self.clock.time() + 10
        ids = self.source.enqueue_tasks([Task("now"), Task("later", due=later), Task("now too")])
        assert self.states(*ids) == [QUEUED, SCHEDULED, QUEUED]

    def test_p5_many_scheduled_tasks_become_due(self) -> None:
        self.needs("schedule", "records")
        start = self.clock.time()
        self.source.enqueue_tasks([Task("work", due=start + number % 10) for number in range(1500)])
        self.pass_time(4)
        assert len(self.source.dequeue_tasks(5000, app=self.ann)) == 750
        self.pass_time(10)
        assert len(self.source.dequeue_tasks(5000, app=self.ann)) == 750

    # Limits.

    def test_p4_no_more_run_at_once_than_the_limit_allows(self) -> None:
        self.needs("limits", "records", "claims")
        ids = [self.put(f"{number}", limit=("key", 2)) for number in range(5)]
        free = self.put("free")
        assert self.states(*ids, free) == [QUEUED, QUEUED, WAITING, WAITING, WAITING, QUEUED]
        tasks = self.take_all()
        assert [task.name for task in tasks] == ["0", "1", "free"]
        self.finish(tasks[1])
        assert self.states(*ids) == [RUNNING, DONE, QUEUED, WAITING, WAITING]
        self.source.fail_task(tasks[0], BROKEN, app=self.ann)
        assert self.states(*ids) == [DEAD, DONE, QUEUED, QUEUED, WAITING]
        assert self.names() == ["2", "3"]

    def test_p4_a_task_that_is_to_be_tried_again_gives_its_place_to_the_next(self) -> None:
        self.needs("limits", "records", "claims")
        first, second = self.put("first", limit=("key", 1)), self.put("second", limit=("key", 1))
        self.source.fail_task(self.take(), BROKEN, retry_at=self.clock.time() + 5, app=self.ann)
        assert self.states(first, second) == [SCHEDULED, QUEUED]
        task = self.take()
        assert task.id == second
        self.pass_time(10)
        assert self.states(first, second) == [WAITING, RUNNING]
        self.finish(task)
        assert self.take().id == first

    def test_p4_who_waits_for_a_place_gets_it_by_priority_then_order(self) -> None:
        self.needs("limits", "priorities", "claims")
        self.put("holder", limit=("key", 1))
        task = self.take()
        for number, priority in enumerate([0, 2, 0, 2]):
            self.put(f"{number}", limit=("key", 1), priority=priority)
        names = []
        for _ in range(4):
            assert self.nothing()
            self.finish(task)
            task = self.take()
            names.append(task.name)
        assert names == ["1", "3", "0", "2"]

    def test_p4_a_scheduled_task_holds_no_place(self) -> None:
        self.needs("limits", "records", "schedule")
        later = self.put(limit=("key", 1), due=self.clock.time() + 5)
        now = self.put(limit=("key", 1))
        assert self.states(later, now) == [SCHEDULED, QUEUED]
        task = self.take()
        self.pass_time(5)
        assert self.states(later, now) == [WAITING, RUNNING]
        self.finish(task)
        assert self.take().id == later

    def test_p4_keys_have_places_of_their_own(self) -> None:
        self.needs("limits")
        for number in range(6):
            self.put(f"{number}", limit=(f"key {number % 3}", 1))
        assert self.names() == ["0", "1", "2"]

    # Rates.

    def test_p4_a_rate_spreads_the_starts(self) -> None:
        self.needs("rates", "records")
        start = self.clock.time()
        ids = [self.put(rate=("key", 3, 10.0)) for _ in range(11)]
        other = self.put(rate=("other key", 3, 10.0))
        assert [self.record(id).due - start for id in ids] == [10.0 * (number // 3) for number in range(11)]
        assert self.record(other).due == start
        assert [self.state(id) for id in ids[:4]] == [QUEUED] * 3 + [SCHEDULED]
        started = []
        for _ in range(5):
            tasks = self.take_all()
            started.append(len(tasks))
            for task in tasks:
                self.source.complete_task(task, app=self.ann)
            self.pass_time(10)
        assert started == [4, 3, 3, 2, 0]

    def test_p4_a_rate_forgets_what_is_long_over(self) -> None:
        self.needs("rates", "records")
        for _ in range(3):
            ids = [self.put(rate=("key", 2, 10.0)) for _ in range(2)]
            assert self.states(*ids) == [QUEUED, QUEUED]
            self.pass_time(10)

    def test_p4_whatever_was_put_in_no_more_start_than_the_rate_allows(self) -> None:
        self.needs("rates", "records", "schedule")
        for seed in range(10):
            chance = random.Random(seed)
            key, ids = f"key {seed}", []
            for _ in range(40):
                wanted = self.clock.time() + chance.choice([0, 0, 0, 5, 17.5, 40])
                id = self.put(rate=(key, 3, 10.0), due=wanted)
                assert self.record(id).due >= wanted
                ids.append(id)
                self.clock.advance(chance.choice([0, 0, 1, 2.5]))
            starts = sorted(self.record(id).due for id in ids)
            assert all(starts[place + 3] - starts[place] >= 10.0 for place in range(len(starts) - 3))

    # Dependencies.

    def test_p4_a_task_comes_after_those_that_it_waits_for(self) -> None:
        self.needs("dependencies", "records", "claims")
        parent = self.put("parent")
        child = self.put("child", after=(parent,))
        grandchild = self.put("grandchild", after=(child, parent))
        assert self.states(parent, child, grandchild) == [QUEUED, WAITING, WAITING]
        for name in ("parent", "child", "grandchild"):
            task = self.take()
            assert task.name == name
            assert self.nothing()
            self.finish(task)
        assert self.state(self.put(after=(parent, child))) == QUEUED  # all done already

    def test_p4_a_diamond_in_one_batch_in_any_order(self) -> None:
        self.needs("dependencies", "records", "claims")
        top = Task("top")
        left, right = Task("left", after=(top.id,)), Task("right", after=(top.id,))
        bottom = Task("bottom", after=(left.id, right.id))
        ids = self.source.enqueue_tasks([bottom, right, top, left])
        assert ids == [bottom.id, right.id, top.id, left.id]
        assert self.names_of_states() == {"top": QUEUED, "left": WAITING, "right": WAITING, "bottom": WAITING}
        self.finish(self.take())
        sides = self.take_all()
        assert sorted(task.name for task in sides) == ["left", "right"]
        self.finish(sides[0])
        assert self.state(bottom.id) == WAITING
        self.finish(sides[1])
        assert self.names() == ["bottom"]

    def test_p4_in_a_batch_those_that_wait_for_others_change_nothing_for_the_rest(self) -> None:
        self.needs("dependencies", "priorities", "claims")
        late = Task("late")
        child = Task("child", after=(late.id,))
        self.source.enqueue_tasks([child, Task("early"), late, Task("last")])
        tasks = self.take_all()
        assert [task.name for task in tasks] == ["early", "late", "last"]
        self.put("after all")
        self.finish(tasks[1])
        assert self.names() == ["child", "after all"]  # it was put in first

    def names_of_states(self) -> dict[str, str]:
        return {record.task.name: record.state for record in self.source.list_tasks()}

    def test_p4_cycles_and_unknown_parents_are_refused(self) -> None:
        self.needs("dependencies", "records")
        one, two = Task("one", id="one", after=("two",)), Task("two", id="two", after=("three",))
        three = Task("three", id="three", after=("one",))
        raises(ValueError, self.source.enqueue_tasks, [Task("good"), one, two, three])
        raises(ValueError, self.source.enqueue_tasks, [one, two])
        raises(ValueError, self.source.enqueue_task, one)
        raises(ValueError, self.source.schedule_task, self.clock.time() + 5, one)
        assert self.counts() == {}

    def test_p4_a_failure_cancels_what_waits_for_it_and_what_waits_for_that(self) -> None:
        self.needs("dependencies", "records", "claims")
        top = self.put("top")
        left, right = self.put(after=(top,)), self.put(after=(top,), due=self.clock.time() + 50)
        bottom = self.put(after=(left, right))
        careless = self.put("careless", after=(bottom, top), despite_failure=True)
        self.source.fail_task(self.take(), BROKEN, app=self.ann)
        assert self.states(top, left, right, bottom, careless) == [DEAD, CANCELLED, CANCELLED, CANCELLED, QUEUED]
        for id in (left, right, bottom):
            failure = self.record(id).failure
            assert failure is not None
            assert failure.kind == "ParentFailed"
            assert self.record(id).ended == self.clock.time()
        assert self.names() == ["careless"]
        assert self.state(self.put(after=(top,))) == CANCELLED  # it comes too late
        assert self.state(self.put(after=(top,), despite_failure=True)) == QUEUED

    def test_p4_cancelling_cascades_too(self) -> None:
        self.needs("dependencies", "records")
        parent = self.put()
        child = self.put(after=(parent,))
        grandchild = self.put(after=(child,))
        assert self.source.cancel_task(child) is True
        assert self.states(parent, child, grandchild) == [QUEUED, CANCELLED, CANCELLED]
        assert self.source.cancel_task(parent) is True
        assert self.counts() == {CANCELLED: 3}

    def test_p4_a_failure_that_is_tried_again_is_none_yet(self) -> None:
        self.needs("dependencies", "records", "claims")
        parent = self.put()
        child = self.put(after=(parent,))
        self.source.fail_task(self.take(), BROKEN, retry_at=self.clock.time() + 1, app=self.ann)
        assert self.state(child) == WAITING
        self.pass_time(1)
        self.finish(self.take())
        assert self.take().id == child

    def test_p4_a_long_chain_fails_as_a_whole(self) -> None:
        self.needs("dependencies", "records", "claims")
        tasks = [Task("link")]
        for _ in range(1500):
            tasks.append(Task("link", after=(tasks[-1].id,)))
        self.source.enqueue_tasks(tasks[::-1])
        self.source.fail_task(self.take(), BROKEN, app=self.ann)
        assert self.counts() == {DEAD: 1, CANCELLED: 1500}

    def test_p4_after_those_it_waits_for_a_task_waits_for_its_time_and_its_place(self) -> None:
        self.needs("dependencies", "records", "claims", "schedule", "limits")
        self.put("holder", limit=("key", 1))
        holder = self.take()
        parent = self.put("parent")
        child = self.put("child", after=(parent,), due=self.clock.time() + 10, limit=("key", 1))
        assert self.state(child) == WAITING
        self.finish(self.take())
        assert self.state(child) == SCHEDULED
        self.pass_time(10)
        assert self.state(child) == WAITING
        self.finish(holder)
        assert self.take().id == child
