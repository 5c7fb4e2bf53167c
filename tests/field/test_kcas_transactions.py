"""Cases of kcas (OCaml), `test/kcas/*.ml`, of transactions: there `Xt.commit`, here `atomically` and `run`."""

import random
from itertools import pairwise

import pytest

from stm import TQueue, TVar, atomically, check, on_commit, or_else, retry, run, snapshot
from tests.support import Background, Once, asleep, elsewhere, together, until


class Leave(Exception):
    """What a body raises to be discarded."""


def test_a_transaction_reads_what_it_wrote():
    """kcas, test.ml: xt."""
    rx, ry = TVar(0), TVar(1)

    @atomically
    def copy():
        y = ry.get()
        rx.set(y)
        assert rx.get() is y

    copy()
    assert rx.get() == ry.get() == 1


def test_transactions_that_touch_words_in_any_order_lose_nothing():
    """kcas, test.ml: presort and is-in-log. Each bumps half of the words, picked at random; the sum tells."""
    words = [TVar(0) for _ in range(12)]

    def bump(seed):
        sample = random.Random(seed).sample

        @atomically
        def half(chosen):
            for word in chosen:
                word.value += 1

        for _ in range(100):
            half(sample(words, 6))

    together(*(lambda seed=seed: bump(seed) for seed in range(3)))
    assert sum(snapshot(*words)) == 3 * 100 * 6


def _fail():
    raise Leave


BODIES = {
    "raises": lambda a, b: _fail(),
    "does nothing": lambda a, b: None,
    "writes what was there": lambda a, b: a.update(lambda value: value),
    "writes": lambda a, b: a.update(lambda value: value + 1),
    "moves one to the other": lambda a, b: a.set(b.swap(0)),
    "only reads": lambda a, b: (a.get(), b.get()),
}


@pytest.mark.parametrize("body", BODIES)
def test_what_is_to_run_after_the_commit_runs_once_if_there_is_one(body):
    """kcas, test.ml: post commit. For a body that reads, one that writes, one that does neither, and one that fails."""
    a, b, count = TVar(0), TVar(0), []

    @atomically
    def attempt():
        on_commit(count.append, 1)
        BODIES[body](a, b)

    if body == "raises":
        with pytest.raises(Leave):
            attempt()
    else:
        attempt()
    assert count == ([] if body == "raises" else [1])


def test_a_waiter_runs_once_and_once_more_for_each_change_that_it_awaits():
    """kcas, test.ml: blocking. The number of attempts is bounded, and no waiter is left on any word.

    The order of access is shuffled in each attempt, so that the waiter's words are not met in one fixed order.
    """
    words = [TVar(0) for _ in range(10)]
    attempts = []
    rng = random.Random(7)
    rounds = 30

    @atomically
    def clear_one():
        attempts.append(1)
        for word in rng.sample(words, len(words)):
            if word.get() == 1:
                word.set(0)
                return
        retry()

    clearing = Background(lambda: [clear_one() for _ in range(rounds)])
    for _ in range(rounds):
        asleep()
        rng.choice(words).set(1)
        until(lambda: not any(snapshot(*words)), "the word is cleared")
    clearing.result()
    assert rounds <= len(attempts) <= 2 * rounds
    assert snapshot(*words) == (0,) * 10


@pytest.mark.parametrize("how", ["get", "update"])
def test_retry_inside_the_function_of_an_update(how):
    """kcas, test.ml: blocking. Also the function given to an update may ask to wait, and nothing is written then."""
    state, attempts = TVar(0), []

    def unless_zero(value):
        attempts.append(value)
        check(value != 0)
        return value + 1

    waiting = Background(lambda: run(lambda: unless_zero(state.get())) if how == "get" else state.update(unless_zero))
    asleep()
    assert state.peek() == 0
    state.set(5)
    assert waiting.result() == 6
    assert attempts == [0, 5]
    assert state.get() == (5 if how == "get" else 6)


NOTHING = {
    "compare_and_set": lambda word: word.compare_and_set(False, False),
    "update": lambda word: word.update(lambda value: value),
    "set": lambda word: word.set(False),
}


@pytest.mark.parametrize("how", NOTHING)
def test_who_waits_goes_on_waiting_when_nothing_changes(how):
    """kcas, test.ml: no unnecessary wake-ups. A write of the very same value ends no wait, of either kind."""
    go = TVar(False)
    seen = []
    waiting = Background(run, lambda: (seen.append(go.get()), check(go.get())))
    watching = Background(go.await_change, False)
    asleep(2)
    NOTHING[how](go)
    asleep(2)
    assert not any(seen)
    go.set(True)
    waiting.result()
    assert watching.result() is True
    assert seen[-1] is True


def test_writing_what_is_there_already_wakes_in_vain():
    """kcas, test.ml: no unnecessary wake-ups. There the waiter tries twice in all; here each commit counts as a change,
    so the body runs again, finds what it found before, and goes back to sleep."""
    go, tries = TVar(False), []

    @atomically
    def wait():
        tries.append(go.get())
        check(go.get())

    waiting = Background(wait)
    asleep()
    go.set(False)
    until(lambda: len(tries) == 2)
    asleep()
    go.set(True)
    waiting.result()
    assert tries == [False, False, True]


def test_two_threads_wait_for_each_other_in_turn():
    """kcas, threads.ml. One awaits x and answers in y, the other sets x and awaits y."""
    x, y = TVar(0), TVar(0)

    def answer():
        run(lambda: check(x.get() != 0))
        y.set(22)

    answering = Background(answer)
    asleep()
    x.set(20)
    run(lambda: check(y.get() != 0))
    answering.result()
    assert x.get() + y.get() == 42


def test_an_attempt_that_loops_on_stale_reads_comes_out():
    """kcas, test.ml: periodic validation. A body that would loop for ever on what it read is restarted by its reads."""
    a, b, turns = TVar(0), TVar(0), []

    @atomically
    def difference():
        while True:
            d = a.get() - b.get()
            if d != 0:
                return d
            turns.append(1)

    looping = Background(difference)
    until(lambda: turns, "the loop")
    a.set(1)
    assert looping.result() == 1


def test_two_that_change_together_are_read_together():
    """kcas, test.ml: explicit validation. No call is needed for it: every read is checked as it is made."""
    a, b, sums, first = TVar(0), TVar(0), [], Once()

    @atomically
    def shift():
        a.value -= 1
        b.value += 1

    @atomically
    def look():
        x = a.get()
        if first:
            elsewhere(shift)
        sums.append(x + b.get())

    look()
    assert sums == [0]
    assert snapshot(a, b) == (-1, 1)


def test_a_part_of_a_transaction_is_taken_back():
    """kcas, test.ml: rollback. Random changes before a savepoint stay, those after it go, and their hook with them."""
    rng = random.Random(1)
    words = [TVar(0) for _ in range(20)]
    total = 0
    for _ in range(60):
        kept, taken_back = rng.sample(words, rng.randrange(20)), rng.sample(words, rng.randrange(20))
        told = []

        @atomically
        def beyond_the_savepoint():
            for word in taken_back:
                word.value += 1
            on_commit(told.append, "unexpected")
            raise Leave

        @atomically
        def whole():
            for word in kept:
                word.value += 1
            on_commit(told.append, "expected")
            with pytest.raises(Leave):
                beyond_the_savepoint()

        whole()
        total += len(kept)
        assert told == ["expected"]
        assert sum(snapshot(*words)) == total


def test_a_transaction_as_a_value_can_be_an_alternative():
    """kcas, test.ml: call. One that never commits is passed over, however it was wrapped."""
    never = atomically(retry)
    assert run(lambda: or_else(never, lambda: 101)) == 101
    assert run(lambda: or_else(lambda: or_else(never, never), lambda: 101)) == 101


def test_a_sum_over_busy_words_is_taken_in_a_bounded_number_of_attempts():
    """kcas, loc_modes.ml. Who reads words that others keep changing and writes its own is not starved."""
    counters = [TVar(0), TVar(0)]
    accumulators = [TVar(0), TVar(0)]
    attempts, sums = [], []

    @atomically
    def accumulate():
        attempts.append(1)
        total = 0
        for counter in counters:
            total += counter.get()
            if len(attempts) < 500:
                Background(counter.update, lambda value: value + 1).thread.join(0.02)  # interference, at each read
        for accumulator in accumulators:
            accumulator.value += total
        sums.append(total)

    accumulate()
    assert len(attempts) < 50
    assert [one.get() for one in accumulators] == [sums[-1]] * 2


def test_two_queues_that_fill_up_when_the_other_is_empty():
    """kcas, ms_queue_test.ml: write skew. Each pushes here only if it finds nothing there; never are both non-empty."""
    q1, q2, first = TQueue(), TQueue(), Once()

    def push_unless(full, target):
        if full.empty():
            target.put("item")
            return True
        return False

    @atomically
    def to_q2():
        pushed = push_unless(q1, q2)
        if first:
            assert elsewhere(run, push_unless, q2, q1)
        return pushed

    assert to_q2() is False
    assert (q1.qsize(), q2.qsize()) == (1, 0)


def test_queues_that_exclude_each_other_under_load():
    """kcas, ms_queue_test.ml: write skew, by threads. A third one empties both at once."""
    q1, q2 = TQueue(), TQueue()
    finished = []

    @atomically
    def shift(source, target):
        if source.empty():
            target.put(1)
        else:
            source.get_nowait()

    @atomically
    def clear():
        return tuple(len(queue.get_many()) if not queue.empty() else 0 for queue in (q1, q2))

    def keep(source, target):
        while not finished:
            shift(source, target)

    def look():
        try:
            return [clear() for _ in range(150)]
        finally:
            finished.append(True)

    sizes = together(look, lambda: keep(q1, q2), lambda: keep(q2, q1))[0]
    assert not [pair for pair in sizes if all(pair)]


def test_a_queue_that_is_used_in_pairs_does_not_grow():
    """kcas, ms_queue_test.ml: tail leak. Whoever puts and takes at once finds an item, and in the end none is left."""
    queue = TQueue()

    def work():
        for _ in range(150):
            queue.put(42)
            assert queue.get(block=False) == 42

    together(work, work)
    assert queue.empty()
    lengths = []
    for _ in range(3):
        for number in range(300):
            queue.put(number)
        assert queue.get_many() == list(range(300))
        lengths.append(len(queue.snapshot()))
    assert all(one == other for one, other in pairwise(lengths))
