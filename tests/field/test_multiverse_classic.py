"""Multiverse's integration tests of classic problems, answered.

Each problem is solved with `TVar`, `check` and `retry` alone, as they do, and with real threads; what must never happen
is watched by other means than transactions. (`examples/` has the philosophers with courtesy, and the Santa Claus
problem; `stm.sync` has semaphores and locks ready made.)
"""

import random
import threading
import time
from contextlib import contextmanager

from stm import TVar, atomically, check
from tests.support import Background, asleep, elsewhere, together


class Watch:
    """Who is inside, kept under a lock of its own; `most` of each kind at once, and each mixture that was seen."""

    def __init__(self):
        self.lock, self.inside, self.seen = threading.Lock(), [], set()

    @contextmanager
    def __call__(self, kind):
        with self.lock:
            self.inside.append(kind)
            self.seen.add(tuple(sorted(self.inside)))
        time.sleep(0)  # not to wait for anything: to give others a chance to break in
        yield
        with self.lock:
            self.inside.remove(kind)


# ---- classic problems


def test_dining_philosophers():
    """Multiverse, classic, DiningPhilosophers: five take their two forks at once or none. All eat, never two
    neighbours, and in the end all forks lie on the table.
    """
    seats, meals = 5, 60
    forks, watch, eaten = [TVar(True) for _ in range(seats)], Watch(), TVar(0)

    @atomically
    def take(*pair):
        check(all(fork.value for fork in pair))
        for fork in pair:
            fork.value = False

    @atomically
    def put_down(*pair):
        for fork in pair:
            assert not fork.value
            fork.value = True
        eaten.value += 1

    def philosopher(seat):
        pair = forks[seat], forks[(seat + 1) % seats]
        for _ in range(meals):
            take(*pair)
            with watch(seat):
                pass
            put_down(*pair)

    together(*(lambda seat=seat: philosopher(seat) for seat in range(seats)))
    assert eaten.value == seats * meals
    assert all(fork.value for fork in forks)
    assert not [who for who in watch.seen for seat in who if (seat + 1) % seats in who]


def test_cigarette_smokers():
    """Multiverse, classic, CigaretteSmokersProblem: the agent lays two things on the table; whoever has the third takes
    both. Each round is somebody's cigarette, and nothing is left.
    """
    things, rounds, choice = ("tobacco", "paper", "matches"), 200, random.Random(3)
    table, over = {thing: TVar(False) for thing in things}, TVar(False)

    @atomically
    def lay(missing):
        check(not any(place.value for place in table.values()))
        for thing in things:
            table[thing].value = thing != missing

    @atomically
    def close():
        check(not any(place.value for place in table.values()))
        over.value = True

    @atomically
    def take(own):
        if over.value:
            return False
        others = [table[thing] for thing in things if thing != own]
        check(all(place.value for place in others))
        assert not table[own].value
        for place in others:
            place.value = False
        return True

    def agent():
        laid = dict.fromkeys(things, 0)
        for _ in range(rounds):
            missing = choice.choice(things)
            lay(missing)
            laid[missing] += 1
        close()
        return laid

    def smoker(own):
        smoked = 0
        while take(own):
            smoked += 1
        return smoked

    laid, *smoked = together(agent, *(lambda thing=thing: smoker(thing) for thing in things))
    assert dict(zip(things, smoked, strict=True)) == laid
    assert sum(smoked) == rounds


def test_producer_consumer():
    """Multiverse, classic, ProducerConsumer: a buffer of a few places, with a count of what is in it. What was produced
    was consumed or is still there.
    """
    places, size, last = [TVar(None) for _ in range(4)], TVar(0), -1

    @atomically
    def put(item):
        check(size.value < len(places))
        places[size.value].value = item
        size.value += 1

    @atomically
    def take():
        check(size.value > 0)
        size.value -= 1
        return places[size.value].value

    def producer():
        for item in range(500):
            put(item)
        put(last)
        return 501

    def consumer():
        items = []
        while not items or items[-1] != last:
            items.append(take())
        return items

    produced, consumed = together(producer, consumer)
    assert produced == len(consumed) + size.value
    assert len(set(consumed)) == len(consumed)


class NumberLock:
    """Readers and writers in one number: -1 is a writer, otherwise the count of readers."""

    def __init__(self):
        self.holders = TVar(0)

    @atomically
    def acquire(self, writes):
        check(self.holders.value == 0 if writes else self.holders.value >= 0)
        self.holders.value = -1 if writes else self.holders.value + 1

    @atomically
    def release(self, writes):
        held = self.holders.value < 0 if writes else self.holders.value > 0
        if not held:
            raise RuntimeError("released, but not held")
        self.holders.value += 1 if writes else -1


def test_readers_and_writers():
    """Multiverse, classic, ReadersWritersProblem: while somebody writes, nobody else reads or writes."""
    lock, watch = NumberLock(), Watch()

    def user(writes):
        for _ in range(60):
            lock.acquire(writes)
            with watch("writer" if writes else "reader"):
                pass
            lock.release(writes)

    together(*[lambda: user(False)] * 4, *[lambda: user(True)] * 2)
    assert lock.holders.value == 0
    assert all(who == ("writer",) for who in watch.seen if "writer" in who)


def test_the_sleeping_barber():
    """Multiverse, classic, SleepingBarber: unfinished, there. The barber sleeps while nobody waits; who finds no free
    chair goes away; who sits down is shaved, one at a time.
    """
    chairs, visits = 3, 200
    waiting, shaved, closed, watch = TVar(()), TVar(frozenset()), TVar(False), Watch()

    @atomically
    def sit_down(who):
        if len(waiting.value) == chairs:
            return False
        waiting.value += (who,)
        return True

    @atomically
    def next_one():
        if closed.value and not waiting.value:
            return None
        check(waiting.value)
        first, waiting.value = waiting.value[0], waiting.value[1:]
        return first

    @atomically
    def wait_until_shaved(who):
        check(who in shaved.value)

    def barber():
        count = 0
        while (who := next_one()) is not None:
            with watch("chair"):
                shaved.update(frozenset.union, {who})
            count += 1
        return count

    def customer(name):
        served = 0
        for number in range(visits):
            if sit_down((name, number)):
                wait_until_shaved((name, number))
                served += 1
        return served

    shop = Background(barber)
    asleep()  # the barber, since nobody has come
    served = together(*(lambda name=name: customer(name) for name in "abcde"))
    closed.set(True)
    assert shop.result() == sum(served) == len(shaved.value)
    assert sum(served) >= visits  # the last to be there found the chairs free
    assert watch.seen == {("chair",)}


# ---- a pool


class Pool:
    """Connections that are lent out one by one."""

    def __init__(self, size):
        self.free = TVar(tuple(range(size)))

    @atomically
    def take(self):
        check(self.free.value)
        first, *rest = self.free.value
        self.free.value = tuple(rest)
        return first

    @atomically
    def give_back(self, connection):
        self.free.value = (connection, *self.free.value)


def test_a_pool_that_is_empty_makes_wait():
    """Multiverse, blocking, ConnectionPool.sanityTest: its size after each step; and who finds it empty waits."""
    pool = Pool(2)
    one, other = pool.take(), pool.take()
    assert {one, other} == {0, 1}
    assert pool.free.value == ()
    waiting = Background(pool.take)
    asleep()
    elsewhere(pool.give_back, one)
    assert waiting.result() == one
    pool.give_back(one)
    pool.give_back(other)
    assert len(pool.free.value) == 2


def test_no_connection_has_two_users():
    """Multiverse, blocking, ConnectionPool.run: more threads than connections; each is used by one at a time, and all
    are back in the end.
    """
    pool, watch = Pool(3), Watch()

    def worker():
        for _ in range(100):
            connection = pool.take()
            with watch(connection):
                pass
            pool.give_back(connection)

    together(*[worker] * 6)
    assert all(len(set(users)) == len(users) for users in watch.seen)
    assert sorted(pool.free.value) == [0, 1, 2]
