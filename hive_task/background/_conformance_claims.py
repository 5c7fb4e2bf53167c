"""Conformance: claims, retries, leases, and clocks that jump. P2, P3."""

from __future__ import annotations

from hive_task.background._conformance_basics import BROKEN
from hive_task.background._conformance_tools import LEASE, Toolkit, together
from hive_task.background.tasks import CANCELLED, CRASHES, DEAD, DONE, QUEUED, RUNNING, SCHEDULED, Claim, End, Task


class Claims(Toolkit):
    def epoch(self, task: Task) -> int:
        assert task.claim is not None
        return task.claim.epoch

    def attempt(self, task: Task) -> int:
        assert task.claim is not None
        return task.claim.attempt

    def refuses(self, task: Task) -> None:
        """Nothing that comes from the holder of this claim is accepted, and nothing is changed by it."""
        before = self.record(task.id)
        outcomes = [
            End(task, DONE, "late"),
            End(task, DEAD, failure=BROKEN),
            End(task, CANCELLED),
            End(task, SCHEDULED, failure=BROKEN, retry_at=self.clock.time()),
            End(task, QUEUED),
        ]
        for end in outcomes:
            assert self.source.settle_tasks([end], app=self.ann) == [False]
        assert self.source.complete_task(task, "late", app=self.ann) is False
        assert self.source.fail_task(task, BROKEN, app=self.ann) is False
        assert self.source.release_task(task, app=self.ann) is False
        assert self.source.set_progress(task, "late") is False
        assert self.source.renew_leases([task], app=self.ann) == {task.id}
        assert self.record(task.id) == before

    # P2. One owner.

    def test_p2_an_end_counts_once(self) -> None:
        self.needs("claims", "records")
        id = self.put()
        task = self.take()
        assert self.source.complete_task(task, "well", app=self.ann) is True
        self.refuses(task)
        assert self.state(id) == DONE

    def test_p2_only_who_holds_the_claim_is_believed(self) -> None:
        self.needs("claims", "records")
        id = self.put()
        task = self.take()
        claim = task.claim
        assert claim is not None
        self.refuses(task.claimed(None))
        self.refuses(task.claimed(Claim("bob", claim.epoch, claim.attempt, claim.due)))
        self.refuses(task.claimed(Claim(claim.worker, claim.epoch + 1, claim.attempt, claim.due)))
        self.refuses(task.claimed(Claim(claim.worker, claim.epoch - 1, claim.attempt, claim.due)))
        assert self.state(id) == RUNNING
        assert self.source.complete_task(task, app=self.ann) is True

    def test_p2_what_was_given_back_is_nobodys(self) -> None:
        self.needs("claims", "records")
        first, second = self.put("first"), self.put("second")
        task = self.take()
        assert self.source.release_task(task, app=self.ann) is True
        record = self.record(first)
        assert (record.state, record.attempts, record.crashes) == (QUEUED, 0, 0)
        self.refuses(task)
        again = self.take(self.ann)  # the same one, by the same claimant: in its old place, under a fresh epoch
        assert (again.id, self.attempt(again)) == (first, 1)
        assert self.epoch(again) > self.epoch(task)
        self.refuses(task)
        assert self.source.complete_task(again, app=self.ann) is True
        assert self.take().id == second

    def test_p2_giving_back_is_no_crash_however_often(self) -> None:
        self.needs("claims", "records")
        id = self.put()
        for _ in range(CRASHES + 2):
            self.source.release_task(self.take(), app=self.ann)
        assert (self.state(id), self.record(id).crashes) == (QUEUED, 0)

    def test_p2_of_two_that_settle_one_is_believed(self) -> None:
        self.needs("claims", "records", "threads")
        for _ in range(20):
            self.put()
            task = self.take()
            answers = together(
                lambda: self.source.complete_task(task, "one", app=self.ann),  # noqa: B023
                lambda: self.other.complete_task(task, "other", app=self.ann),  # noqa: B023
            )
            assert sorted(answers) == [False, True]
            assert self.record(task.id).result == ("one" if answers[0] else "other")

    # Trying again.

    def test_a_failed_task_is_tried_again_at_its_time(self) -> None:
        self.needs("claims", "records")
        id = self.put()
        task = self.take()
        retry_at = self.clock.time() + 10
        assert self.source.fail_task(task, BROKEN, retry_at=retry_at, app=self.ann) is True
        record = self.record(id)
        assert (record.state, record.failure, record.due, record.attempts) == (SCHEDULED, BROKEN, retry_at, 1)
        self.refuses(task)
        self.pass_time(9)
        assert self.nothing()
        self.pass_time(1)
        again = self.take()
        assert again.claim is not None
        assert (again.id, again.claim.attempt, again.claim.due) == (id, 2, retry_at)
        assert self.epoch(again) > self.epoch(task)
        self.refuses(task)
        assert self.source.complete_task(again, "well", app=self.ann) is True
        record = self.record(id)
        assert (record.state, record.result, record.attempts, record.failure) == (DONE, "well", 2, BROKEN)

    def test_a_failed_task_may_be_tried_again_at_once(self) -> None:
        self.needs("claims")
        first = self.put("first")
        self.put("second")
        self.source.fail_task(self.take(), BROKEN, retry_at=self.clock.time(), app=self.ann)
        self.tend()
        assert self.take().id == first  # it was put in first

    # P3. Leases.

    def test_p3_a_task_whose_lease_has_expired_is_queued_again(self) -> None:
        self.needs("leases", "records")
        id = self.put()
        task = self.take()
        self.pass_time(LEASE - 1)
        assert self.state(id) == RUNNING
        self.pass_time(2)
        record = self.record(id)
        assert (record.state, record.crashes, record.attempts) == (QUEUED, 1, 1)
        self.refuses(task)
        again = self.take(self.bob)
        assert (again.id, self.attempt(again)) == (id, 2)
        assert self.epoch(again) > self.epoch(task)
        self.refuses(task)
        assert self.source.complete_task(again, "well", app=self.bob) is True
        assert self.record(id).result == "well"

    def test_p3_a_task_that_is_taken_again_by_the_same_claimant_has_a_fresh_claim(self) -> None:
        self.needs("leases", "records")
        self.put()
        task = self.take(self.ann)
        self.pass_time(LEASE + 1)
        again = self.take(self.ann)
        self.refuses(task)
        assert self.source.renew_leases([task, again], app=self.ann) == {task.id}
        assert self.source.complete_task(again, app=self.ann) is True

    def test_p3_a_lease_that_is_renewed_does_not_expire(self) -> None:
        self.needs("leases", "records")
        id = self.put()
        task = self.take()
        for _ in range(5):
            self.pass_time(LEASE - 1)
            assert self.source.renew_leases([task], app=self.ann) == set()
        assert self.state(id) == RUNNING
        assert self.source.complete_task(task, app=self.ann) is True

    def test_p3_each_lease_expires_by_itself(self) -> None:
        self.needs("leases", "records")
        ids = [self.put() for _ in range(3)]
        first = self.take()
        self.pass_time(LEASE / 2)
        self.take()
        self.pass_time(LEASE / 3)
        assert self.source.renew_leases([first], app=self.ann) == set()
        self.take()
        self.pass_time(LEASE * 5 / 6)
        assert self.states(*ids) == [RUNNING, QUEUED, RUNNING]

    def test_p3_tend_says_when_a_lease_may_expire(self) -> None:
        self.needs("leases", "records")
        self.put()
        self.take()
        seconds = self.tend()
        assert seconds is not None
        assert 0 < seconds <= LEASE

    def test_p3_an_expired_lease_that_nobody_has_taken_over_can_be_settled(self) -> None:
        self.needs("leases", "records")
        id = self.put()
        task = self.take()
        self.clock.advance(LEASE * 2)
        assert self.source.complete_task(task, "well", app=self.ann) is True
        self.tend()
        assert self.state(id) == DONE

    def test_p3_a_task_that_was_running_at_each_of_several_crashes_is_a_dead_letter(self) -> None:
        self.needs("leases", "records")
        id = self.put(retries=0)
        for crash in range(1, CRASHES + 1):
            task = self.take()
            self.pass_time(LEASE + 1)
            assert self.record(id).crashes == crash
        record = self.record(id)
        assert (record.state, record.attempts, record.ended) == (DEAD, CRASHES, self.clock.time())
        assert record.failure is not None
        assert self.nothing()
        self.refuses(task)
        assert self.source.retry_task(id) is True
        assert self.record(id).crashes == 0
        assert self.source.complete_task(self.take(), app=self.ann) is True

    def test_p3_several_that_tend_count_a_crash_once(self) -> None:
        self.needs("leases", "records", "threads")
        ids = [self.put() for _ in range(10)]
        self.source.dequeue_tasks(10, app=self.ann)
        self.clock.advance(LEASE + 1)
        together(*[lambda: self.source.tend(app=self.ann), lambda: self.other.tend(app=self.bob)] * 2)
        assert [(self.state(id), self.record(id).crashes) for id in ids] == [(QUEUED, 1)] * 10

    def test_p3_what_was_to_be_cancelled_is_not_run_again_after_a_crash(self) -> None:
        self.needs("leases", "records")
        id = self.put()
        self.take()
        self.source.cancel_task(id)
        self.pass_time(LEASE + 1)
        assert self.state(id) == CANCELLED
        assert self.nothing()

    def test_p3_a_crash_keeps_the_place_of_a_limit_or_gives_it_back(self) -> None:
        self.needs("leases", "records", "limits")
        ids = [self.put(limit=("key", 1)) for _ in range(2)]
        self.take()
        self.pass_time(LEASE + 1)
        tasks = self.take_all()
        assert len(tasks) == 1
        self.source.complete_task(tasks[0], app=self.ann)
        tasks += self.take_all()
        assert sorted(task.id for task in tasks) == sorted(ids)

    # Clocks that jump.

    def test_leases_do_not_heed_the_wall_clock(self) -> None:
        self.needs("leases", "steady leases", "records")
        id = self.put()
        task = self.take()
        for jump in (1e6, -2e6, 1e6):
            self.clock.jump_wall(jump)
            self.tend()
            assert self.state(id) == RUNNING
            assert self.source.renew_leases([task], app=self.ann) == set()
        self.pass_time(LEASE + 1)
        assert self.state(id) == QUEUED

    def test_the_wall_clock_decides_when_a_task_is_due(self) -> None:
        self.needs("schedule", "records")
        due = self.clock.time() + 100
        id = self.put(due=due)
        self.clock.jump_wall(-1000)
        seconds = self.tend()
        assert seconds is not None
        assert 0 < seconds <= 1100
        self.pass_time(200)
        assert (self.state(id), self.record(id).due) == (SCHEDULED, due)
        self.clock.jump_wall(900)
        self.tend()
        assert self.take().id == id

    def test_what_is_put_in_after_a_jump_backwards_comes_after_what_was_there(self) -> None:
        self.put("first")
        self.clock.jump_wall(-5000)
        self.put("second")
        assert self.names() == ["first", "second"]

    def test_a_run_may_last_through_jumps(self) -> None:
        self.needs("claims", "records")
        id = self.put()
        task = self.take()
        self.clock.jump_wall(-5000)
        assert self.source.complete_task(task, "well", app=self.ann) is True
        assert self.record(id).ended == self.clock.time()
