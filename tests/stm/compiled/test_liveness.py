"""Promises 6 and 7 with arrays: nobody starves, and exclusive or read-only transactions keep their word."""

import threading

import numpy as np
import pytest

import stm
from stm import TVar, atomically, compiled, on_commit
from stm.compiled import TArray
from stm.compiled.inplace import give_clock, take_clock
from stm.compiled.log import ABORTS, PASS
from stm.compiled.runtime import get_word, own, take_log
from stm.contention import INSIST_AFTER
from tests.stm.compiled.shared import both, difference, move, put, take, total
from tests.support import Background, asleep, elsewhere, together, until


def test_a_big_transaction_among_small_ones_commits():
    accounts = TArray(np.full(3000, 10))
    over = threading.Event()

    def disturb():
        k = 0
        while not over.is_set():
            move(accounts, k % 3000, (k * 7 + 1) % 3000, 1)
            k += 1

    @compiled.transaction
    def interest(accounts):
        for i in range(len(accounts)):
            accounts[i] += 1
        return len(accounts)

    def by_hand():
        whole = 0
        for i in range(0, 3000, 3):
            whole += accounts[i]
        accounts[0] += 0
        return whole

    disturbers = [Background(disturb) for _ in range(2)]
    for _ in range(20):
        assert interest(accounts) == 3000
        stm.run(by_hand)
        assert stm.run(total, accounts, read_only=True) % 3000 == 0
    over.set()
    for one in disturbers:
        one.result()
    assert sum(accounts) == 3000 * 30


def test_no_group_in_place_begins_amid_an_exclusive_transaction():
    array = TArray([0])

    def begin():
        lease = take_log()
        began = take_clock(lease.log.address)
        if began:
            give_clock(lease.log.address)
        return began

    assert begin()
    assert not stm.run(lambda: (array[0], elsewhere(begin))[1], irrevocable=True)
    assert begin()


def test_a_compiled_call_that_always_meets_a_conflict_insists():
    """It becomes exclusive after so many aborts, which is seen here by keeping it from committing until then."""
    pair, tries = TArray([0, 0]), []

    @compiled.transaction
    def slow(pair, seen):
        a = pair[0]
        seen[0] += 1
        for _ in range(1000):
            if pair.peek(0) != a:
                break
        pair[1] = a
        return seen[0]

    over = threading.Event()

    def disturb():
        while not over.is_set():
            put(pair, 0, 1)

    disturber = Background(disturb)
    for _ in range(200):
        seen = np.zeros(1, int)
        slow(pair, seen)
        tries.append(int(seen[0]))
    over.set()
    disturber.result()
    assert max(tries) <= INSIST_AFTER + 3
    assert own().log.words[PASS // 8] == own().log.words[ABORTS // 8] == 0


@pytest.mark.parametrize("options", [{"irrevocable": True}, {"irrevocable": True, "timeout": 30}])
def test_an_irrevocable_transaction_over_arrays_runs_once_and_reads_what_stays(options):
    pair, x = TArray([0, 0]), TVar(0)
    running = threading.Event()

    def disturb():
        running.set()
        return [both(pair, 1) for _ in range(50)]

    runs = []

    def body():
        runs.append(1)
        before = pair[0]
        others = Background(disturb)
        running.wait(60)
        x.value = before
        assert pair[0] == pair[1] == before
        both(pair, 100)
        return others

    others = stm.run(body, **options)
    others.result()
    assert len(runs) == 1
    assert list(pair) == [150, 150]
    assert not get_word(0) & 2


def test_calls_maps_and_elements_wait_for_an_exclusive_transaction_and_come_after():
    pair = TArray([0, 0])
    entered, leave = threading.Event(), threading.Event()

    def body():
        seen = list(pair)
        entered.set()
        leave.wait(60)
        assert list(pair) == seen
        pair[0] += 1000
        pair[1] += 1000

    exclusive = Background(lambda: stm.run(body, irrevocable=True))
    entered.wait(60)
    waiting = [
        Background(both, pair, 1),
        Background(both.map, pair, np.ones(500, int)),
        Background(lambda: stm.run(lambda: (pair.__setitem__(0, pair[0] + 1), pair.__setitem__(1, pair[1] + 1)))),
    ]
    assert difference(pair) == 0  # readers go on
    assert elsewhere(lambda: stm.run(lambda: list(pair))) == [0, 0]
    assert all(one.thread.is_alive() for one in waiting)
    leave.set()
    exclusive.result()
    for one in waiting:
        one.result()
    assert list(pair) == [1502, 1502]


def test_an_exclusive_transactions_own_hooks_and_handlers_may_use_arrays():
    pair, seen = TArray([0, 0]), []

    @atomically(irrevocable=True)
    def body():
        pair[0] += 1
        pair[1] += 1
        on_commit(lambda: seen.append(both(pair, 1)))

    body()
    assert list(pair) == [2, 2]
    assert len(seen) == 1


def test_a_read_only_transaction_begins_again_if_an_element_has_changed_and_at_last_keeps_writers_off():
    pair, attempts = TArray([0, 0]), []
    writers = []

    def body():
        attempts.append(1)
        a = pair[0]
        writers.append(Background(both, pair, 1))
        if len(attempts) <= INSIST_AFTER:
            writers[-1].result()
        return a, pair[1]

    a, b = stm.run(body, read_only=True)
    assert a == b
    assert len(attempts) == INSIST_AFTER + 1
    for one in writers:
        one.result()
    assert list(pair) == [INSIST_AFTER + 1] * 2


def test_two_that_wake_each_other_make_progress():
    turns = TArray([0, 0])

    @compiled.transaction
    def turn(turns, me):
        stm.check(turns[0] % 2 == me)
        turns[0] += 1

    together(
        lambda: [turn(turns, 0) for _ in range(300)],
        lambda: [turn(turns, 1) for _ in range(300)],
    )
    assert turns[0] == 600


def test_logs_do_not_pile_up():
    from stm.compiled import runtime

    array = TArray(np.zeros(10, int))

    def use():
        for _ in range(50):
            stm.run(lambda: (array[0], put(array, 1, 1)))
        put.map(array, np.zeros(100, int), 1, threads=2)
        sleeper = Background(take, array, 5)
        asleep()
        put(array, 5, 1)
        sleeper.result()

    use()
    before = len(runtime._out) + len(runtime._returned)
    for _ in range(5):
        use()
    until(lambda: len(runtime._out) + len(runtime._returned) <= before + 4, "the logs' return")


def test_the_memory_of_huge_sets_is_given_back():
    psutil = pytest.importorskip("psutil")

    @compiled.transaction
    def touch_all(array):
        for i in range(len(array)):
            array[i] += 1

    array = TArray(np.zeros(200_000, int))
    touch_all(array)
    process = psutil.Process()
    base = process.memory_info().rss
    for _ in range(10):
        stm.run(touch_all, array)
        elsewhere(touch_all, array)
    assert process.memory_info().rss - base < 120_000_000
    assert (array.to_numpy() == 21).all()
