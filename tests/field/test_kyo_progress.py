"""Cases of kyo, `kyo-stm/.../kyo/STMStressTest.scala`, of waiting and of progress. Short races, counted attempts."""

import threading
from functools import partial

import pytest

from stm import TransactionTimeout, TVar, atomically, check, retry, run, snapshot
from tests.support import PATIENCE, Background, asleep, together, until


def bump(variable):
    variable.value += 1


# ------------------------------------------------------------------------------ waiting


@pytest.mark.parametrize("which", [0, 1])
def test_whoever_has_read_two_is_woken_by_either(which):
    """kyo, STMStressTest: retry's wake-set is the union of every branch's read-set."""
    refs = TVar(0), TVar(0)

    @atomically
    def wait():
        values = [ref.get() for ref in refs]
        check(any(values))
        return values

    waiting = Background(wait)
    asleep()
    refs[which].set(42)
    assert sorted(waiting.result()) == [0, 42]


def test_sixteen_share_out_what_one_publishes():
    """kyo, STMStressTest: signalling waiters does not hold a lock; N waiters survive wake-up cycles. Each takes one."""
    ref, taken = TVar(0), []

    @atomically
    def take():
        check(ref.get())
        ref.value -= 1

    waiting = [Background(lambda: taken.append(take())) for _ in range(16)]
    for rounds in range(1, 5):
        asleep(16 - len(taken))
        ref.set(4)
        until(lambda rounds=rounds: len(taken) == 4 * rounds and ref.get() == 0)
    for one in waiting:
        one.result()
    assert len(taken) == 16


def test_each_waiter_wakes_at_its_own_threshold():
    """kyo, STMStressTest: waiter-list order. Ten wait for ten levels, each for its own."""
    ref, through = TVar(0), []

    @atomically
    def await_level(level):
        check(ref.get() >= level)

    waiting = [Background(lambda level=level: (await_level(level), through.append(level))) for level in range(1, 11)]
    for level in range(1, 11):
        asleep(11 - level)
        ref.set(level)
        until(lambda level=level: len(through) == level)
    for one in waiting:
        one.result()
    assert through == list(range(1, 11))


# ------------------------------------------------------------------------------ progress


def test_an_elder_among_a_stream_of_short_ones():
    """kyo, STMStressTest: an older transaction makes progress under newer short ones, in bounded attempts."""
    ref, done, attempts = TVar(0), [], []

    @atomically
    def elder():
        attempts.append(1)
        before = ref.get()
        for _ in range(200):
            ref.peek()
        ref.set(before + 1_000_000)

    def young():
        while not done:
            run(bump, ref)

    shorts = [Background(young) for _ in range(3)]
    until(lambda: ref.get() > 100)
    elder()
    done.append(True)
    for one in shorts:
        one.result()
    assert ref.get() > 1_000_000
    assert len(attempts) < 200


def test_a_large_transaction_among_small_ones():
    """kyo, STMStressTest: a long-running large transaction commits in bounded retries under short-tx contention."""
    refs, done, attempts = [TVar(0) for _ in range(1_000)], [], []

    @atomically
    def large():
        attempts.append(1)
        for ref in refs:
            bump(ref)

    def small():
        count = 0
        while not done:
            run(bump, refs[count % 7])
            count += 1
        return count

    shorts = [Background(small) for _ in range(2)]
    large()
    done.append(True)
    counts = [one.result() for one in shorts]
    assert sum(snapshot(*refs)) == 1_000 + sum(counts)
    assert len(attempts) < 50


def test_a_slow_body_does_not_hold_up_who_uses_other_variables():
    """kyo, STMStressTest: a long sleep inside the body does not livelock concurrent transactions."""
    x, other, begun, go_on = TVar(1), TVar(0), threading.Event(), threading.Event()

    @atomically
    def slow():
        value = x.get()
        begun.set()
        assert go_on.wait(PATIENCE)
        x.set(value * 2)

    slowly = Background(slow)
    assert begun.wait(PATIENCE)
    together(*([partial(run, bump, other)] * 20))
    assert (other.get(), x.get()) == (20, 1)
    go_on.set()
    slowly.result()
    assert x.get() == 2


@pytest.mark.parametrize("size", [2, 7, 8, 9, 10, 15, 20])
def test_the_same_variables_in_opposite_orders(size):
    """kyo, STMStressTest: two that touch the same refs in different orders never deadlock, whatever their number."""
    refs = [TVar(0) for _ in range(size)]

    @atomically
    def all_of(order):
        for ref in order:
            bump(ref)

    together(*(lambda order=order: [all_of(order) for _ in range(30)] for order in (refs, refs[::-1])))
    assert snapshot(*refs) == (60,) * size


@pytest.mark.parametrize("number", [1, 2])
def test_every_increment_of_sixty_four_threads_counts_each_time(number):
    """kyo, STMStressTest: repeat of 64-fiber increments; from fresh fibers; the same for one ref and for two."""
    for _ in range(3):
        refs = [TVar(0) for _ in range(number)]
        for one in [Background(run, lambda refs=refs: [bump(ref) for ref in refs]) for _ in range(64)]:
            one.result()
        assert snapshot(*refs) == (64,) * number


def test_variables_made_in_each_attempt_cost_no_progress():
    """kyo, STMStressTest: per-retry TRef allocation does not cause livelock; each attempt makes its own."""
    outer, made = TVar(frozenset()), []

    @atomically
    def body(name):
        fresh = TVar(name)
        made.append(fresh)
        outer.update(lambda names: names | {fresh.get()})

    together(*(lambda n=n: body(n) for n in range(16)))
    assert outer.get() == frozenset(range(16))
    assert len(set(made)) == len(made) >= 16


def test_readers_only_never_get_in_each_others_way():
    """kyo, STMStressTest: 100 readers on the same chain commit; 200 reader-acquire attempts. In one attempt each."""
    chain, attempts = [TVar(i) for i in range(50)], []

    @atomically
    def total():
        attempts.append(1)
        return sum(ref.get() for ref in chain)

    assert set(together(*([total] * 30))) == {sum(range(50))}
    assert len(attempts) == 30


def test_a_transaction_that_gives_up_has_left_nothing():
    """kyo, STMStressTest: schedule caps bound attempts. Many that retry and time out, among others that commit."""
    ref, gone = TVar(0), []

    def give_up():
        ref.value -= 100
        retry()

    def hopeless():
        for _ in range(10):
            try:
                run(give_up, timeout=0)
            except TransactionTimeout:
                gone.append(1)

    together(hopeless, lambda: [run(bump, ref) for _ in range(50)], hopeless)
    assert (ref.get(), len(gone)) == (50, 20)
