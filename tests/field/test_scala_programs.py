"""Small whole programs of ScalaSTM (nbronson/scala-stm): `TokenRingSuite`, `FlipperSuite`, `HistogramSuite`.

Each docstring names the suite and the case; docs/field/scala-stm.md lists them all, and those that have no counterpart.
What they are to show here is that the result is right, not how fast it comes.
"""

import random
from operator import add

import pytest

from stm import (
    TCounter,
    TMVar,
    TVar,
    TVector,
    atomically,
    check,
    run,
    snapshot,
)
from stm.compiled import TArray
from tests.support import Once, elsewhere, together

# -------------------------------------------------------------------------------------------- token ring


def by_transaction(mine, following):
    @atomically
    def hand_on():
        check(mine.value)
        mine.set(False)
        following.set(True)

    return hand_on


def by_single_operations(mine, following):
    def hand_on():
        mine.await_change(False)
        mine.set(False)
        following.set(True)

    return hand_on


@pytest.mark.parametrize("kind", [by_transaction, by_single_operations])
@pytest.mark.parametrize(("size", "rounds"), [(2, 200), (3, 150), (12, 20)], ids=["ping-pong", "threesome", "large"])
def test_a_token_goes_round_a_ring(size, rounds, kind):
    """scala-stm, TokenRingSuite: txn and non-txn ping-pong, threesome, large ring. No hand-over is lost."""
    ready = [TVar(number == 0) for number in range(size)]

    def work(number):
        hand_on = kind(ready[number], ready[(number + 1) % size])
        for _ in range(rounds):
            hand_on()

    together(*(lambda number=number: work(number) for number in range(size)))
    assert [place.value for place in ready] == [number == 0 for number in range(size)]


def test_a_token_goes_round_a_ring_of_places():
    """scala-stm, TokenRingSuite: txn threesome. The token itself is handed on, by a place for one value each."""
    places = [TMVar() for _ in range(3)]

    def work(number):
        for _ in range(100):
            run(lambda: places[(number + 1) % 3].put(places[number].take() + 1))

    places[0].put(0)
    together(*(lambda number=number: work(number) for number in range(3)))
    assert [place.try_take() for place in places] == [300, None, None]


# ----------------------------------------------------------------------------------------------- flipper


@pytest.mark.parametrize(
    "make",
    [lambda n: [TVar(0) for _ in range(n)], lambda n: TVector([0] * n), lambda n: TArray([0] * n)],
    ids=["variables", "vector", "array"],
)
def test_each_thread_flips_its_own_bit_of_shared_words(make):
    """scala-stm, FlipperSuite: small flipper test, and w/TArray. The bits that a thread reads are those that it would
    read if it were alone, and so are the words in the end."""
    words, threads, transactions, flips = 40, 3, 25, 6
    shared = make(words)
    plan = random.Random(0)
    plans = [[[plan.randrange(words) for _ in range(flips)] for _ in range(transactions)] for _ in range(threads)]

    def get(index):
        return shared[index].get() if isinstance(shared, list) else int(shared[index])

    def put(index, value):
        if isinstance(shared, list):
            shared[index].set(value)
        else:
            shared[index] = value

    def flip(indices, mask):
        seen = []
        for index in indices:
            word = get(index)
            seen.append(bool(word & mask))
            put(index, word ^ mask)
        return seen

    def alone(thread):
        bits, seen = [False] * words, []
        for indices in plans[thread]:
            for index in indices:
                seen.append(bits[index])
                bits[index] = not bits[index]
        return bits, seen

    def work(thread):
        return [bit for indices in plans[thread] for bit in run(flip, indices, 1 << thread)]

    seen = together(*(lambda thread=thread: work(thread) for thread in range(threads)))
    expected = [alone(thread) for thread in range(threads)]
    assert seen == [bits_seen for _, bits_seen in expected]
    assert [get(i) for i in range(words)] == [sum(expected[t][0][i] << t for t in range(threads)) for i in range(words)]


# --------------------------------------------------------------------------------------------- histogram


def one_by_one(bucket):
    bucket.update(add, 1)


def by_comparing(bucket):
    while True:
        before = bucket.get()
        if bucket.compare_and_set(before, before + 1):
            return


def in_a_transaction(bucket):
    bucket.value += 1


@pytest.mark.parametrize("per_transaction", [1, 3, 50])
@pytest.mark.parametrize("buckets", [1, 30])
def test_a_histogram_counts_every_sample(buckets, per_transaction):
    """scala-stm, HistogramSuite: txn and mix of single operations and transactions, few and many buckets."""
    places, total = [TVar(0) for _ in range(buckets)], TCounter()

    def work(seed):
        rng, left = random.Random(seed), 300
        while left:
            step = rng.choice([one_by_one, by_comparing, in_a_transaction])
            if step is in_a_transaction:
                chosen = [rng.choice(places) for _ in range(min(left, per_transaction))]
                run(lambda: ([step(place) for place in chosen], total.add(len(chosen))))
                left -= len(chosen)
            else:
                step(rng.choice(places))
                total.add()
                left -= 1

    together(*(lambda seed=seed: work(seed) for seed in range(3)))
    assert sum(snapshot(*places)) == total.value == 900


@pytest.mark.parametrize("way", [run, lambda body: atomically(body)()], ids=["run", "atomically"])
@pytest.mark.parametrize("buckets", [1, 2, 3, 30])
def test_a_histogram_loses_no_sample_that_comes_between_look_and_write(buckets, way):
    """scala-stm, HistogramSuite: txn, decided: another one adds to what this one has looked at."""
    places, first = [TVar(0) for _ in range(buckets)], Once()

    def body():
        before = [place.value for place in places]
        if first:
            elsewhere(one_by_one, places[-1])
        for place, value in zip(places, before, strict=True):
            place.set(value + 1)

    way(body)
    assert [place.value for place in places] == [1] * (buckets - 1) + [2]


def test_a_histogram_in_an_array():
    """scala-stm, HistogramSuite: TArray[Int], 3 incr per txn. Conflicts are about elements, and none is lost."""
    buckets = TArray([0] * 10)

    def work(seed):
        rng = random.Random(seed)

        @atomically
        def step(indices):
            for index in indices:
                buckets[index] += 1

        for _ in range(60):
            step([rng.randrange(10) for _ in range(3)])

    together(*(lambda seed=seed: work(seed) for seed in range(3)))
    assert sum(buckets[index] for index in range(10)) == 3 * 60 * 3
