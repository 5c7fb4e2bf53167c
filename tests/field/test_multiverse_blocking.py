"""Multiverse's integration tests of blocking, answered: who waits, who is woken, how a wait ends.

Their transactions are explicit objects of several kinds, each with its own run of every case; here a case runs once, in
`@atomically` or `run`, or in each of the ways that make a difference to us.
"""

import random
import signal
import threading
from collections import Counter

import pytest

from stm import (
    BlockedForever,
    IrrevocableRetry,
    TQueue,
    TransactionRequired,
    TransactionTimeout,
    TVar,
    atomically,
    check,
    or_else,
    retry,
    run,
)
from tests.support import Background, asleep, together, until


def value_when(variable, wanted):
    check(variable.value == wanted)
    return variable.value


# ---- waiting for a value


def test_who_waits_for_a_value_blocks_until_it_is_there():
    """Multiverse, blocking, BlockingTest.whenDesiredValueNotAvailable: the thread blocks. And then goes on."""
    x = TVar(0)
    waiting = Background(run, value_when, x, 1)
    asleep()
    assert waiting.thread.is_alive()
    x.set(1)
    assert waiting.result() == 1


def test_another_value_than_the_desired_one_wakes_in_vain():
    """Multiverse, blocking, BlockingTest.whenDesiredValueStillNotAvailable: a change to a wrong value is looked at
    once, and the thread blocks again.
    """
    x, looks = TVar(0), []

    @atomically
    def wait():
        looks.append(x.value)
        check(x.value == 2)

    waiting = Background(wait)
    asleep()
    x.set(1)
    until(lambda: looks[-1] == 1)
    asleep()
    assert waiting.thread.is_alive()
    x.set(2)
    waiting.result()
    assert looks == [0, 1, 2]


@pytest.mark.parametrize("available", [True, False])
def test_a_time_limit_is_no_matter_to_who_need_not_wait(available):
    """Multiverse, blocking, TimeoutTest.whenNoRetryNeeded and .whenTimeout: with the value there the limit of a wait
    says nothing, not even one of no time at all; without it, the limit ends the wait.
    """
    x = TVar(int(available))
    wait = atomically(timeout=0)(value_when)
    if available:
        assert wait(x, 1) == 1
    else:
        with pytest.raises(TransactionTimeout):
            wait(x, 1)


def test_an_update_in_time_ends_the_wait():
    """Multiverse, blocking, TimeoutTest.whenValueUpdatedInTime: nothing is raised."""
    x = TVar(0)
    waiting = Background(atomically(timeout=30)(value_when), x, 1)
    asleep()
    x.set(1)
    assert waiting.result() == 1


def test_a_wait_can_be_interrupted():
    """Multiverse, blocking, RetryInterruptibleTest: an interrupted thread leaves its wait with an error. In Python it
    is the main thread that can be interrupted, by a signal whose handler raises.
    """

    class Interrupted(Exception):
        pass

    def handler(number, frame):
        raise Interrupted

    x, main = TVar(0), threading.get_ident()

    def interrupt():
        asleep()
        signal.pthread_kill(main, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        interrupter = Background(interrupt)
        with pytest.raises(Interrupted):
            run(value_when, x, 1)
        interrupter.result()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert run(lambda: x.swap(1)) == 0  # whoever was interrupted is in no transaction any more


# ---- where waiting makes no sense


@pytest.mark.parametrize("before", ["nothing", "a blind write", "a new variable"])
def test_a_retry_that_nobody_could_answer_is_refused(before):
    """Multiverse, blocking, NoBlockingTest.whenNothingRead, .whenContainsCommute, .whenContainsConstructing: who has
    read nothing, but perhaps changed a variable blindly or made one, has nothing to wait for. An error at once.
    """
    x, attempts = TVar(0), []

    @atomically(timeout=60)  # a limit is no excuse
    def body():
        attempts.append(1)
        if before == "a blind write":
            x.value = 1
        elif before == "a new variable":
            attempts.append(TVar(0))
        retry()

    with pytest.raises(BlockedForever, match="before it had read anything"):
        body()
    assert attempts.count(1) == 1
    assert x.value == 0


def test_where_blocking_is_not_allowed_retry_is_an_error_and_all_is_undone():
    """Multiverse, blocking, NoBlockingTest.whenBlockingNotAllowed: the error leaves the call, the write is undone."""
    x, y = TVar(0), TVar(0)

    @atomically(irrevocable=True)
    def body():
        x.value = y.value + 1
        retry()

    with pytest.raises(IrrevocableRetry):
        body()
    assert x.value == 0


# ---- alternatives


def test_alternatives_need_a_transaction_and_do_not_run_without_one():
    """Multiverse, blocking, OrElseTest.whenCalledWithoutTransaction: an error, and no alternative has run."""
    ran = []
    with pytest.raises(TransactionRequired):
        or_else(lambda: ran.append("left"), lambda: ran.append("right"))
    assert ran == []


@pytest.mark.parametrize(("left", "right", "expected"), [(1, 0, 1), (0, 2, 2), (1, 2, 1)])
def test_the_alternative_that_can_go_on_does(left, right, expected):
    """Multiverse, blocking, OrElseTest.whenEitherBranchIsSuccess and .whenOrElseBranchIsSuccess: the first that need
    not wait gives the result (the second of these cases they left out).
    """
    x, y = TVar(left), TVar(right)

    def positive(variable):
        check(variable.value)
        return variable.value

    assert run(or_else, lambda: positive(x), lambda: positive(y)) == expected


@pytest.mark.parametrize("which", [0, 1])
def test_if_both_block_either_wakes(which):
    """Multiverse, blocking, OrElseTest.whenBothBranchedBlock: a bare title, there. The whole waits for both."""
    variables = (TVar(0), TVar(0))

    @atomically
    def first():
        return or_else(lambda: value_when(variables[0], 1), lambda: value_when(variables[1], 1))

    waiting = Background(first)
    asleep()
    variables[which].set(1)
    assert waiting.result() == 1


# ---- many who wake one another


@pytest.mark.parametrize("threads", [2, 10])
def test_ping_pong(threads):
    """Multiverse, blocking, PingPongStressTest: each waits for its turn, and all counts add up to the ball's."""
    ball, turns = TVar(0), 1_000

    def player(number):
        hits = 0

        @atomically
        def hit():
            if ball.value >= turns:
                return False
            check(ball.value % threads == number)
            ball.value += 1
            return True

        while hit():
            hits += 1
        return hits

    hits = together(*(lambda number=number: player(number) for number in range(threads)))
    assert sum(hits) == ball.value == turns
    assert max(hits) - min(hits) <= 1


@pytest.mark.parametrize("threads", [2, 5])
def test_who_reads_many_variables_is_woken_by_any(threads):
    """Multiverse, blocking, MultipleReadsRetryStressTest: whose turn it is depends on the sum of ten variables; each
    turn changes one of them at random. No wake-up is lost, and the sum is the number of turns.
    """
    refs, turns, choice = [TVar(0) for _ in range(10)], 600, random.Random(1)

    def player(number):
        made = 0

        @atomically
        def turn():
            total = sum(ref.value for ref in refs)
            if total >= turns:
                return False
            check(total % threads == number)
            choice.choice(refs).value += 1
            return True

        while turn():
            made += 1
        return made

    made = together(*(lambda number=number: player(number) for number in range(threads)))
    assert sum(made) == sum(ref.value for ref in refs) == turns


def test_many_listeners_pass_a_signal_around():
    """Multiverse, blocking, ManyListenersStressTest: five threads listen to ten variables each; who finds its signal
    takes it, and puts the next one's into a variable at random. All end when the end is announced.
    """
    threads, refs, choice, left = 5, [TVar(0) for _ in range(10)], random.Random(2), TVar(600)

    def listener(mine):
        heard = 0

        @atomically
        def listen():
            for ref in refs:
                if ref.value == -1:
                    return False
                if ref.value == mine:
                    ref.value = 0
                    left.value -= 1
                    choice.choice(refs).value = mine % threads + 1 if left.value else -1
                    return True
            retry()

        while listen():
            heard += 1
        return heard

    refs[0].set(1)
    heard = together(*(lambda mine=mine: listener(mine) for mine in range(1, threads + 1)))
    assert heard == [120] * threads
    assert Counter(ref.value for ref in refs) == {0: 9, -1: 1}


# ---- structures that block


class Stack:
    """Links in a variable, with a count beside them; `capacity` None: no limit."""

    def __init__(self, capacity=None):
        self.capacity = capacity
        self.head = TVar(None)
        self.size = TVar(0)

    @atomically
    def push(self, item):
        check(self.capacity is None or self.size.value < self.capacity)
        self.size.value += 1
        self.head.value = (item, self.head.value)
        return self.size.value

    @atomically
    def pop(self):
        check(self.head.value is not None)
        item, self.head.value = self.head.value
        self.size.value -= 1
        return item


class TwoStacks:
    """A queue of two stacks: what is pushed is turned around when nothing is left to pop."""

    def __init__(self, capacity=None):
        self.capacity = capacity
        self.size = TVar(0)
        self.pushed, self.ready = Stack(), Stack()

    @atomically
    def put(self, item):
        check(self.capacity is None or self.size.value < self.capacity)
        self.size.value += 1
        self.pushed.push(item)

    @atomically
    def get(self):
        if self.ready.head.value is None:
            while self.pushed.head.value is not None:
                self.ready.push(self.pushed.pop())
        item = self.ready.pop()
        self.size.value -= 1
        return item


QUEUES = [TwoStacks, lambda capacity=None: TQueue(capacity or 0)]


@pytest.mark.parametrize("make", QUEUES, ids=["two stacks", "TQueue"])
@pytest.mark.parametrize("capacity", [None, 3])
def test_a_queue_keeps_the_order(make, capacity):
    """Multiverse, blocking, QueueWithCapacity and QueueWithoutCapacity: what one thread puts, another gets, all of it
    and in order, with and without room for all of it.
    """
    queue, items = make(capacity), list(range(1_000))
    got, _ = together(lambda: [queue.get() for _ in items], lambda: [queue.put(item) for item in items])
    assert got == items


@pytest.mark.parametrize("capacity", [None, 3])
def test_a_stack_loses_nothing_and_keeps_to_its_capacity(capacity):
    """Multiverse, blocking, StackWithCapacity and StackWithoutCapacity: what was pushed is popped, once; it never holds
    more than it may.
    """
    stack, items = Stack(capacity), list(range(1_000))
    popped, sizes = together(lambda: [stack.pop() for _ in items], lambda: [stack.push(item) for item in items])
    assert sorted(popped) == items
    assert (stack.head.value, stack.size.value) == (None, 0)
    if capacity is not None:
        assert max(sizes) <= capacity
