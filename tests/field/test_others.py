"""The tests of anacrolix/stm (Go), answered. A panic there is an exception here; its benchmarks of herds are tests."""

import pytest

from stm import (
    BlockedForever,
    TEvent,
    TMap,
    TSet,
    TVar,
    after,
    atomically,
    check,
    or_else,
    retry,
    run,
)
from tests.support import Background, Once, asleep, elsewhere, together


def value_when(variable, wanted):
    check(variable.value == wanted)
    return variable.value


def test_five_hundred_decrements():
    """anacrolix/stm, stm_test: TestDecrement. Somebody waits for the sum of them, and sees it."""
    x = TVar(1_000)
    waiting = Background(run, value_when, x, 500)
    asleep()
    together(*[lambda: [run(x.update, lambda value: value - 1) for _ in range(100)]] * 5)
    assert waiting.result() == 500


def test_a_transaction_that_only_reads_is_verified():
    """anacrolix/stm, stm_test: TestReadVerify. Both change between its two reads: it does not see one old, one new."""
    x, y, first = TVar(1), TVar(2), Once()

    @atomically
    def body():
        before = x.value
        if first:
            elsewhere(run, lambda: (x.set(3), y.set(4)))
        return before, y.value

    assert body() == (3, 4)


def test_what_is_changed_in_place_and_set_again_counts_as_changed():
    """anacrolix/stm, stm_test: TestVerify. The same object, changed inside and set again, makes readers start over.
    (One should not; that it is noticed at all is since it was set.)
    """

    class Foo:
        i = 3

    x, y, first, seen = TVar(Foo()), TVar(0), Once(), []

    def change():
        foo = x.value
        foo.i = 7
        x.value = foo

    @atomically
    def body():
        seen.append(x.value.i)
        if first:
            elsewhere(run, change)
        y.value = seen[-1]

    body()
    assert seen == [3, 7]
    assert y.value == 7


def test_one_look_for_each_change():
    """anacrolix/stm, stm_test: TestRetry. Who waits for ten changes looks at most once more than there are changes."""
    x, looks = TVar(10), []

    @atomically
    def body():
        looks.append(x.value)
        check(x.value == 0)

    waiting = Background(body)
    asleep()
    for _ in range(10):
        x.update(lambda value: value - 1)
    waiting.result()
    assert len(looks) <= 11
    assert looks == sorted(set(looks), reverse=True)


def test_select():
    """anacrolix/stm, stm_test: TestSelect. Of no alternatives there is no choice; of one, that; of several, the first
    that does not retry, and those after it do not run.
    """
    x, ran = TVar(2), []
    with pytest.raises(TypeError):
        run(or_else)
    run(or_else, lambda: value_when(x, 2))
    assert run(or_else, retry, lambda: 2, lambda: ran.append(3)) == 2
    assert ran == []


def test_a_hundred_parts_make_one_transaction():
    """anacrolix/stm, stm_test: TestCompose, TestReadWritten. Each part runs, in order, and sees those before it."""
    x = TVar(())

    @atomically
    def part(number):
        x.value += (number,)
        return len(x.value)

    assert run(lambda: [part(number) for number in range(100)]) == list(range(1, 101))
    assert x.value == tuple(range(100))


@pytest.mark.parametrize("write", ["set", "swap", "compare_and_set", "update"])
def test_a_single_operation_wakes_who_waits(write):
    """anacrolix/stm, stm_test: TestAtomicSetRetry. Whichever operation it is."""
    x = TVar(3)
    waiting = Background(run, value_when, x, 5)
    asleep()
    {"compare_and_set": lambda: x.compare_and_set(3, 5), "update": lambda: x.update(lambda value: value + 2)}.get(
        write, lambda: getattr(x, write)(5)
    )()
    assert waiting.result() == 5


def test_ping_pong_with_a_pause_after_each_hit():
    """anacrolix/stm, stm_test: TestPingPong. Two bats, a ball that has to be made ready after each hit, and somebody
    who ends the game after so many.
    """
    ball, over, hits, ready, noise = TVar(False), TVar(False), TVar(0), TVar(True), []

    def bat(mine, name):
        @atomically
        def hit():
            if over.value:
                return False
            check(ready.value and ball.value is mine)
            ball.value, ready.value = not mine, False
            hits.value += 1
            return True

        while hit():
            noise.append(name)
            ready.set(True)

    @atomically
    def end():
        check(hits.value >= 42)
        over.value = True

    together(lambda: bat(False, "ping"), lambda: bat(True, "pong"), end)
    assert len(noise) == hits.value >= 42
    assert set(noise[::2]) == {"ping"}
    assert set(noise[1::2]) == {"pong"}


def test_the_sleeping_beauty_is_not_put_to_sleep():
    """anacrolix/stm, stm_test: TestSleepingBeauty. Who waits for what can never change is told."""
    with pytest.raises(BlockedForever):
        run(check, False)


@pytest.mark.parametrize("how", ["a value of None", "read back", "set to None"])
def test_none_is_a_value(how):
    """anacrolix/stm, nil_test: TestNilInterfaceVarAtomicGet, ...Get, ...ReadOwnWrite, ...Set. In all places."""
    x = TVar(None if how == "a value of None" else "something")
    if how == "read back":
        assert run(lambda: (x.set(None), x.value)) == (None, None)
    elif how == "set to None":
        run(x.set, None)
    assert x.value is run(x.get) is x.peek() is None


def test_an_error_in_the_middle_leaves_nothing_locked():
    """anacrolix/stm, nil_test: TestPanicInCommitDoesNotStrandVarLocks. Others can write those variables at once. (A
    commit of ours has nothing of the user's in it that might raise, but what it frees: here, a finalizer that does.)
    """

    class Angry:
        def __del__(self):
            other.update(lambda value: value + 10)

    x, other = TVar(Angry()), TVar(1)

    @atomically
    def body(fails):
        other.value += 1
        x.value = None
        if fails:
            raise KeyError

    with pytest.raises(KeyError):
        body(True)
    elsewhere(other.set, 99)
    body(False)
    assert other.value == 110
    assert elsewhere(other.swap, 0) == 110


def test_an_error_after_a_wait_leaves_no_waiter_and_blocks_no_other():
    """anacrolix/stm, panic_test: TestPanicDoesNotLeakWatcherGoroutines, TestPanicDoesNotBlockOtherWaiters. One that
    waited raises when it is woken. Its place among those who wait is free, and the others are woken as ever.
    """
    x = TVar(0)

    @atomically
    def raises():
        check(x.value)
        raise KeyError("boom")

    failing = Background(raises)
    asleep()
    waiting = Background(run, value_when, x, 42)
    asleep(2)
    x.set(1)
    with pytest.raises(KeyError, match="boom"):
        failing.result()
    asleep(1)
    assert len(x._waiters) == 1
    for value in (2, 3, 42):
        x.set(value)
    assert waiting.result() == 42
    assert not x._waiters


def test_a_herd_gets_its_tokens():
    """anacrolix/stm, external_test: BenchmarkThunderingHerd. Fifty wait for tokens, of which there are at most five at
    once; each gets one.
    """
    herd, tokens, pending = 50, TVar(0), TVar(50)

    @atomically
    def take():
        check(tokens.value)
        tokens.value -= 1
        pending.value -= 1

    @atomically
    def make():
        check(tokens.value < 5 or not pending.value)
        tokens.value += bool(pending.value)
        return pending.value

    waiting = [Background(take) for _ in range(herd)]
    asleep(herd)
    while make():
        pass
    run(value_when, pending, 0)
    for one in waiting:
        one.result()
    assert tokens.value <= 5


def test_an_inverted_herd_is_called_one_by_one():
    """anacrolix/stm, external_test: BenchmarkInvertedThunderingHerd. Each waits for a flag of its own; whoever calls
    picks one that has not been called, and it takes itself off the list.
    """
    pending = TSet()

    @atomically
    def wait(ready):
        ready.wait()
        pending.remove(ready)

    @atomically
    def call():
        for ready in pending:
            if not ready.is_set():
                ready.set()
                return True
        return bool(pending)

    herd = [TEvent() for _ in range(30)]
    pending.update(herd)
    waiting = [Background(wait, ready) for ready in herd]
    asleep(30)
    while call():
        pass
    for one in waiting:
        one.result()
    assert not pending


def test_a_time_limit_is_a_variable_that_turns_true():
    """anacrolix/stm, context_test: TestContextDoneVarSetWhenContextIsDone, ...ForContextAlreadyDone. A transaction can
    wait for it, and whoever comes late finds it true.
    """
    soon, now = after(0.01), after(0)
    assert now.value
    run(lambda: check(soon.value))
    assert soon.value


def test_keys_by_identity():
    """anacrolix/stm, containers_test: TestMapPointerKeys, TestSetPointerKeys, TestMapIntKeys, TestMapStringKeys. An
    object that only looks the same is another key.
    """

    class Foo:
        pass

    keys = [Foo() for _ in range(100)]
    entries, members = TMap((key, number) for number, key in enumerate(keys)), TSet(keys[:1])
    assert [entries[key] for key in keys] == list(range(100))
    assert Foo() not in entries
    assert (keys[0] in members, keys[1] in members, len(members)) == (True, False, 1)
    members.remove(keys[0])
    assert keys[0] not in members
    numbers = TMap(dict.fromkeys(range(1_000), "value"))
    del numbers[500]
    assert (len(numbers), 500 in numbers, 1_000 in numbers, numbers[501]) == (999, False, False, "value")
