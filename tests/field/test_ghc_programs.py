"""Small whole programs of the cases of Haskell's `stm` package (haskell/stm: `tests`, `testsuite`).

As in test_ghc_stm.py: each docstring names the suite and the case.
"""

import random
import threading
from operator import add

import pytest

from stm import (
    TChannel,
    TCounter,
    TMap,
    TVar,
    TVector,
    after,
    atomically,
    check,
    in_transaction,
    or_else,
    retry,
    run,
    snapshot,
)
from tests.support import Background, together, until


class Boom(Exception):
    pass


def test_stm056_an_error_in_another_thread_is_none_of_a_transactions_business():
    """stm, stm056: one thread commits all the time while another one fails, outside any transaction."""
    x, stop = TVar(0), threading.Event()

    def count():
        while not stop.is_set():
            x.update(add, 1)
        return x.value

    counting = Background(count)
    until(lambda: x.value > 0)
    failing = Background(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        failing.result()
    before = x.value
    until(lambda: x.value > before)
    stop.set()
    assert counting.result() == x.value


def test_stm049_money_is_kept_by_transfers_that_wait_for_it():
    """stm, stm049: transfers that retry while an account is short, beside a thread that brings and takes money."""
    accounts = [TVar(5) for _ in range(7)]
    brought = TVar(0)
    running = TVar(4)

    def transfer(source, target, amount):
        def body():
            check(source.value >= amount)
            source.value -= amount
            target.value += amount

        run(lambda: or_else(body, retry))

    def actor(seed):
        rng = random.Random(seed)
        for _ in range(150):
            transfer(*rng.sample(accounts, 2), rng.randint(1, 3))
        running.update(add, -1)

    def source_and_sink():
        rng = random.Random(99)
        while running.value:
            account, amount = rng.choice(accounts), rng.choice((-3, -2, 1, 2, 3))

            def body(account=account, amount=amount):
                moved = max(0, account.value + amount) - account.value
                account.value += moved
                brought.value += moved

            run(body)

    together(source_and_sink, *(lambda seed=seed: actor(seed) for seed in range(4)))
    *left, moved = snapshot(*accounts, brought)
    assert sum(left) == 7 * 5 + moved
    assert min(left) >= 0


def test_stm050_a_directory_service_carries_out_every_command():
    """stm, stm050: posters, a listener and a finder share a channel, a table and a count of commands."""
    channel, table, carried_out, done = TChannel(), TMap(), TCounter(), TVar(False)
    commands, found = channel.subscribe(), set()

    def post(command):
        for _ in range(25):
            channel.publish(command)

    def listen():
        for _ in range(50):

            @atomically
            def step():
                name, key = commands.get()
                if name == "add":
                    table.setdefault(key, 2)
                else:
                    table.pop(key, None)
                carried_out.add()

            step()
        done.set(True)

    def find():
        while not done.value:
            found.add(table.get(1))

    together(lambda: post(("add", 1)), lambda: post(("remove", 1)), listen, find)
    assert carried_out.value == 50
    assert commands.empty()
    assert found <= {None, 2}


def test_stm052_swaps_keep_every_element():
    """stm, stm052: two threads swap elements at random places: in the end, the same are there."""
    elements = TVector(range(20))

    def swap(seed):
        rng = random.Random(seed)
        for _ in range(60):
            i, j = rng.randrange(20), rng.randrange(20)

            @atomically
            def step(i=i, j=j):
                elements[i], elements[j] = elements[j], elements[i]

            step()

    together(lambda: swap(1), lambda: swap(2))
    assert sorted(elements) == list(range(20))


def test_stm053_very_many_threads_wait_for_timers():
    """stm, stm053: each of many threads waits for a timer of its own, and all are counted in the end."""
    woken = TCounter()

    def sleep_for(seconds):
        due = after(seconds)
        run(lambda: (check(due.value), woken.add()))

    threads = [threading.Thread(target=sleep_for, args=(random.random() * 0.05,)) for _ in range(50)]
    for thread in threads:
        thread.start()
    run(lambda: check(woken.value == len(threads)))
    for thread in threads:
        thread.join()


OUTSIDE = TVar(3)


def test_stm054_a_variable_made_when_the_module_was_loaded():
    """stm, stm054: a variable that was made outside of any transaction is as good as any."""
    assert run(lambda: OUTSIDE.get()) == 3


def test_stm055_a_transaction_in_a_transaction_is_a_part_of_it():
    """stm, stm055: GHC ends a program that nests `atomically`; here, the inner one joins and commits with the outer."""
    x = TVar(0)
    inner = atomically(lambda: x.update(add, 1))

    def outer():
        inner()
        assert in_transaction()
        assert (x.value, x.peek()) == (1, 0)
        raise Boom

    with pytest.raises(Boom):
        run(outer)
    assert x.value == 0
