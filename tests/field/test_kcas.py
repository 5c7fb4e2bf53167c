"""Cases of kcas (OCaml), `test/kcas/*.ml`, of words: multi-word compare-and-set (our `exchange`), and one word."""

import random

import pytest

from stm import TVar, atomically, exchange, run, snapshot
from tests.support import Background, Once, elsewhere, together

# ------------------------------------------------------------------------------ multi-word compare-and-set


def test_a_change_that_compares_what_another_writes_excludes_it():
    """kcas, test.ml: non-linearizable. Two that compare each other's variable never both succeed from one state."""
    a, b = TVar(0), TVar(0)
    wins = [0, 0]

    def player(mine, other, number):
        for _ in range(300):
            if exchange((other, 0, 0), (mine, 0, 1)):
                wins[number] += 1
                assert snapshot(mine, other) == (1, 0)
                assert exchange((other, 0, 0), (mine, 1, 0))

    together(lambda: player(a, b, 0), lambda: player(b, a, 1))
    assert snapshot(a, b) == (0, 0)
    assert sum(wins) > 0


def test_a_comparison_alone_is_enough_to_lose_the_race():
    """kcas, test.ml: non-linearizable, with the interleaving made certain. What is only compared must not change."""
    a, b, first = TVar(0), TVar(0), Once()

    @atomically
    def set_a_while_b_is_zero():
        done = exchange((b, 0, 0), (a, 0, 1))
        if first:
            assert elsewhere(exchange, (a, 0, 0), (b, 0, 1))
        return done

    assert set_a_while_b_is_zero() is False
    assert snapshot(a, b) == (0, 1)


def test_set_replaces_the_value():
    """kcas, test.ml: set."""
    a = TVar(0)
    assert a.get() == 0
    a.set(1)
    assert a.get() == 1


def test_all_words_change_or_none():
    """kcas, example.ml: two compare-and-sets at once; and one that does not match spoils both."""
    one, other = TVar(0), TVar(3)
    assert exchange((one, 0, 1), (other, 3, 4))
    assert snapshot(one, other) == (1, 4)
    assert not exchange((one, 1, 2), (other, 3, 5))
    assert not exchange((one, 0, 2), (other, 4, 5))
    assert snapshot(one, other) == (1, 4)


def test_an_exchange_from_a_mixed_state_never_succeeds():
    """kcas, test.ml: casn. While two words change together, nobody finds one old and the other new."""
    a1, a2 = TVar(0), TVar(0)
    finished = []

    def changes_both():
        try:
            for _ in range(300):
                assert exchange((a1, 0, 1), (a2, 0, 1))
                assert exchange((a1, 1, 0), (a2, 1, 0))
        finally:
            finished.append(True)

    def expects_a_mixture(x, y):
        while not finished:
            assert not exchange((x, 1, 0), (y, 0, 1))
            assert not exchange((x, 0, 1), (y, 1, 0))

    together(changes_both, lambda: expects_a_mixture(a1, a2), lambda: expects_a_mixture(a2, a1))
    assert snapshot(a1, a2) == (0, 0)


READINGS = {
    "get": lambda variable: variable.get(),
    "transaction": lambda variable: run(variable.get),
    "update": lambda variable: variable.update(lambda value: value),
    "peek": lambda variable: variable.peek(),
    "snapshot": lambda variable: snapshot(variable)[0],
}


@pytest.mark.parametrize("how", READINGS)
def test_what_is_read_later_is_not_older(how):
    """kcas, test.ml: read casn. Of two words that grow together the one read second is never behind."""
    a1, a2 = TVar(0), TVar(0)
    read, bounds = READINGS[how], []

    def grow():
        for i in range(200):
            while not exchange((a1, i, i + 1), (a2, i, i + 1)):  # `update` may have written the same value
                pass

    growing = Background(grow)
    while growing.thread.is_alive():
        bounds.append((read(a1), read(a2)))
    growing.result()
    bounds.append((read(a1), read(a2)))
    assert all(first <= second for first, second in bounds)
    assert bounds[-1] == (200, 200)


def test_a_thousand_words_at_once():
    """kcas, test.ml: stress. The number of words is not limited."""
    words = [TVar(0) for _ in range(1_000)]
    for _ in range(5):
        assert exchange(*((word, 0, 1) for word in words))
        assert snapshot(*words) == (1,) * 1_000
        assert not exchange(*((word, 0, 2) for word in words))
        assert exchange(*((word, 1, 0) for word in words))
    assert snapshot(*words) == (0,) * 1_000


def test_the_order_of_the_words_does_not_matter():
    """kcas, test.ml: presort. Threads that name the same words in different orders don't deadlock, and lose nothing."""
    words = [TVar(0) for _ in range(5)]

    def bump(seed):
        shuffle = random.Random(seed).shuffle
        mine = list(words)
        for _ in range(100):
            shuffle(mine)
            while True:
                x = mine[0].get()
                y = x + 1  # one object for all of them, since the next exchange will look for that very object
                if exchange(*((word, x, y) for word in mine)):
                    break

    together(*(lambda seed=seed: bump(seed) for seed in range(3)))
    assert snapshot(*words) == (300,) * 5


def test_a_failed_comparison_in_a_transaction_writes_nothing():
    """kcas, ms_queue_test.ml: a compare-and-swap inside a transaction tells what it found and lets the body go on."""
    tail, other = TVar("node"), TVar(0)

    @atomically
    def append():
        assert not tail.compare_and_set(None, "mine")
        assert not exchange((other, 0, 1), (tail, None, "mine"))
        assert tail.compare_and_set("node", "next")
        return tail.get(), other.get()

    assert append() == ("next", 0)
    assert snapshot(tail, other) == ("next", 0)


OVERLAPS = {"conflicting overlap": ((0, 1), (2, 3)), "meldable overlap": ((0, 1), (1, 2))}


@pytest.mark.parametrize("case", OVERLAPS)
@pytest.mark.parametrize("within", [False, True], ids=["alone", "in a transaction"])
def test_two_changes_of_one_word_are_not_both_made(case, within):
    """kcas, test_overlapping_loc.ml: conflicting and meldable overlap. They can't both hold, so neither is made."""
    word = TVar(0)
    changes = [(word, before, after) for before, after in OVERLAPS[case]]
    assert not (run(exchange, *changes) if within else exchange(*changes))
    assert word.get() == 0


@pytest.mark.parametrize("after", [1, 2])
@pytest.mark.parametrize("within", [False, True], ids=["alone", "in a transaction"])
def test_one_word_named_twice_is_an_error(within, after):
    """kcas, test_overlapping_loc.ml: conflicting duplicate. Each who asked would believe that the change was his."""
    word = TVar(0)
    changes = ((word, 0, 1), (word, 0, after))
    with pytest.raises(ValueError, match="each variable once"):
        run(exchange, *changes) if within else exchange(*changes)


# ------------------------------------------------------------------------------ one word


def test_updates_of_one_word():
    """kcas, test.ml: updates. Add, increment, decrement and exchange, each with what it returns."""
    x = TVar(0)
    assert x.update(lambda value, n: value + n, 1) == 1
    assert x.update(lambda value: value + 1) == 2
    x.set(1)
    assert x.get() == 1
    assert x.update(lambda value: value - 1) == 0
    assert x.swap(1) == 0
    assert x.get() == 1
