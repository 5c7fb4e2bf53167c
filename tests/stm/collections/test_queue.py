"""What `TQueue` promises, and what every blocking queue does (`QueueContract`, which `TPriorityQueue` keeps too)."""

import copy
import pickle
import threading
import time
import weakref
from collections import deque
from contextlib import contextmanager
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stm import TVar, atomically, check, in_transaction, or_else, run
from stm.collections import Empty, Full, ShutDown, TPriorityQueue, TQueue
from stm.collections import queue as queue_module
from tests.support import Background, Once, asleep, elsewhere, together


class Undo(Exception):
    """Ends a transaction that is not to have happened."""


def undone(*steps):
    """Run some steps in a transaction that fails after them."""

    @atomically
    def body():
        for step in steps:
            step()
        raise Undo

    with pytest.raises(Undo):
        body()


# ---------------------------------------------------------------------------------------------- model


class Model:
    """A queue in the plainest way. Items are taken by `first`, which is an index."""

    def __init__(self, first):
        self.first = first
        self.items = deque()
        self.maxsize = 0
        self.closed = False
        self.unfinished = 0

    def put_many(self, items):
        if self.closed:
            raise ShutDown
        if 0 < self.maxsize < len(items):
            raise ValueError
        if 0 < self.maxsize < len(self.items) + len(items):
            raise Full
        self.items += items
        self.unfinished += len(items)

    def put(self, item):
        try:
            self.put_many([item])
        except ValueError:
            raise Full from None

    def peek(self):
        if not self.items:
            raise ShutDown if self.closed else Empty
        return self.first(self.items)

    def get(self):
        item = self.peek()
        self.items.remove(item)
        return item

    def get_many(self, limit=None):
        items = [self.get()]
        while self.items and (limit is None or len(items) < limit):
            items.append(self.get())
        return items

    def task_done(self):
        if not self.unfinished:
            raise ValueError
        self.unfinished -= 1

    def resize(self, maxsize):
        self.maxsize = maxsize

    def shutdown(self, immediate):
        self.closed = True
        if immediate:
            self.unfinished = max(0, self.unfinished - len(self.items))
            self.items.clear()

    def picture(self):
        rest = copy.copy(self)
        rest.items = self.items.copy()
        snapshot = tuple(rest.get_many()) if self.items else ()
        full = 0 < self.maxsize <= len(self.items)
        return snapshot, len(snapshot), not snapshot, full, self.closed, self.unfinished, self.maxsize


class Real:
    """The same vocabulary for the real one, never waiting."""

    def __init__(self, queue):
        self.queue = queue
        self.task_done = queue.task_done
        self.shutdown = queue.shutdown

    def put(self, item):
        self.queue.put(item, block=False)

    def put_many(self, items):
        self.queue.put_many(items, block=False)

    def get(self):
        return self.queue.get_nowait()

    def get_many(self, limit=None):
        return self.queue.get_many(limit, block=False)

    def peek(self):
        return self.queue.peek(block=False)

    def resize(self, maxsize):
        self.queue.maxsize = maxsize

    def picture(self):
        q = self.queue
        return q.snapshot(), q.qsize(), q.empty(), q.full(), q.is_shutdown, q.unfinished_tasks, q.maxsize


def outcome(target, step):
    name, *args = step
    try:
        return getattr(target, name)(*args)
    except (Empty, Full, ShutDown, ValueError) as error:
        return type(error)


items = st.integers(0, 1000)
step = st.one_of(
    st.tuples(st.just("put"), items),
    st.tuples(st.just("put"), items),
    st.tuples(st.just("put_many"), st.lists(items, min_size=1, max_size=9)),
    st.just(("get",)),
    st.just(("get",)),
    st.tuples(st.just("get_many"), st.sampled_from([None, 1, 2, 3, 7])),
    st.just(("peek",)),
    st.just(("task_done",)),
    st.tuples(st.just("resize"), st.sampled_from([-1, 0, 1, 2, 5, 20])),
)
block = st.tuples(st.sampled_from(["apart", "together", "undone"]), st.lists(step, max_size=12))
program = st.lists(block, max_size=6)


def check_model(queue, model, program, ending):
    real = Real(queue)
    for how, steps in [*program, ("apart", [("shutdown", ending)] if ending is not None else []), *program]:
        if how == "apart":
            for one in steps:
                assert outcome(real, one) == outcome(model, one)
                assert real.picture() == model.picture()
            continue
        trial = copy.copy(model)
        trial.items = model.items.copy()
        expected = [(outcome(trial, one), trial.picture()) for one in steps]

        def body():
            return [(outcome(real, one), real.picture()) for one in steps]

        if how == "undone":
            seen = []
            undone(lambda: seen.extend(body()))
            assert seen == expected
        else:
            assert run(body) == expected
            model.__dict__.update(trial.__dict__)
        assert real.picture() == model.picture()


# ---------------------------------------------------------------------------------------------- both kinds


class QueueContract:
    """Promises of both kinds of queue. (Where it matters, items are put in ascending order.)"""

    make = TQueue

    # waiting

    def test_get_waits_for_an_item(self):
        q = self.make()
        waiting = Background(q.get)
        asleep()
        q.put(5)
        assert waiting.result() == 5

    def test_put_waits_for_room(self):
        q = self.make(1)
        q.put(1)
        waiting = Background(q.put, 2)
        asleep()
        assert q.get() == 1
        waiting.result()
        assert q.get() == 2

    def test_get_many_and_peek_wait_for_an_item(self):
        q = self.make()
        waiting = [Background(q.peek), Background(q.peek, True, 60)]
        asleep(2)
        q.put(5)
        assert [one.result() for one in waiting] == [5, 5]
        q.get()
        waiting = Background(q.get_many, 10)
        asleep()
        q.put_many([6, 7])
        assert waiting.result() == [6, 7]

    def test_every_waiting_get_is_served(self):
        q = self.make()
        waiting = [Background(q.get) for _ in range(10)]
        asleep(10)
        for number in range(10):
            q.put(number)
        assert sorted(one.result() for one in waiting) == list(range(10))

    @pytest.mark.parametrize("within_a_transaction", [False, True])
    def test_time_limits(self, within_a_transaction):
        empty, full = self.make(), self.make(1)
        full.put(0)
        call = run if within_a_transaction else lambda f: f()
        for timeout in (0, 0.01):
            with pytest.raises(Empty):
                call(lambda: empty.get(timeout=timeout))
            with pytest.raises(Empty):
                call(lambda: empty.get_many(timeout=timeout))
            with pytest.raises(Empty):
                call(lambda: empty.peek(timeout=timeout))
            with pytest.raises(Full):
                call(lambda: full.put(1, timeout=timeout))
            with pytest.raises(Full):
                call(lambda: full.put_many([1], timeout=timeout))
        assert full.snapshot() == (0,)

    def test_a_time_limit_may_be_part_of_a_transaction_that_goes_on(self):
        q, log = self.make(), self.make()

        @atomically
        def body():
            try:
                return q.get(timeout=0.01)
            except Empty:
                log.put(1)
                return "nothing"

        assert body() == "nothing"
        assert log.snapshot() == (1,)

    def test_an_item_in_time(self):
        q = self.make()
        waiting = Background(lambda: q.get(timeout=60))
        asleep()
        q.put(1)
        assert waiting.result() == 1

    def test_without_block_nothing_waits(self):
        q = self.make(1)
        for call in (q.get_nowait, lambda: q.get(False), lambda: q.get(False, -1), lambda: q.peek(False)):
            with pytest.raises(Empty):
                call()
            with pytest.raises(Empty):
                run(call)
        q.put_nowait(1)
        for call in (lambda: q.put_nowait(2), lambda: q.put(2, False), lambda: q.put_many([2], False)):
            with pytest.raises(Full):
                call()
            with pytest.raises(Full):
                run(call)
        assert q.get_nowait() == 1

    def test_bad_arguments(self):
        q = self.make(5)
        q.put(1)
        calls = [q.get, q.peek, q.get_many, lambda **kw: q.put(2, **kw), lambda **kw: q.put_many([2], **kw)]
        for call in calls:
            for timeout in (-1, -0.001, float("nan")):
                with pytest.raises(ValueError, match="'timeout' must be a non-negative number"):
                    call(timeout=timeout)
            for timeout in ("1", True):
                with pytest.raises(TypeError, match="timeout must be a number of seconds"):
                    call(timeout=timeout)
        for limit in (0, -1):
            with pytest.raises(ValueError, match="at least 1"):
                q.get_many(limit)
        with pytest.raises(TypeError):
            q.get_many(1.5)
        with pytest.raises(TypeError):
            q.put_many(5)
        for maxsize in ("5", 1.5, None):
            with pytest.raises(TypeError, match="maxsize must be an integer"):
                self.make(maxsize)
            with pytest.raises(TypeError, match="maxsize must be an integer"):
                q.maxsize = maxsize
        assert (q.snapshot(), q.maxsize) == ((1,), 5)

    # transactions

    def test_what_a_failed_transaction_took_is_back_in_its_place(self):
        q = self.make()
        q.put_many(range(5))
        undone(q.get)
        undone(q.get, q.get_many)
        undone(lambda: q.get_many(3))
        undone(lambda: q.put(-1), q.get, q.get)
        assert q.snapshot() == (0, 1, 2, 3, 4)
        assert [q.get() for _ in range(5)] == [0, 1, 2, 3, 4]

    def test_what_a_failed_transaction_put_is_not_there(self):
        q = self.make(3)
        q.put(1)
        undone(lambda: q.put(2), lambda: q.put_many([3]))
        assert (q.snapshot(), q.unfinished_tasks) == ((1,), 1)

    def test_several_operations_in_one_transaction(self):
        q = self.make()

        @atomically
        def body():
            q.put(1)
            q.put_many([2, 3])
            first = q.get()
            q.put(4)
            return first, q.get(), q.peek(), q.qsize(), q.get_many(), q.empty()

        assert body() == (1, 2, 3, 2, [3, 4], True)
        assert q.empty()

    def test_from_one_queue_to_another_in_one_step(self):
        one, other = self.make(), self.make()
        one.put(1)
        first = Once()

        @atomically
        def move():
            other.put(one.get())
            if first:
                assert elsewhere(run, lambda: (one.snapshot(), other.snapshot())) == ((1,), ())

        move()
        assert (one.snapshot(), other.snapshot()) == ((), (1,))

    def test_the_first_queue_that_has_something(self):
        one, other = self.make(), self.make()
        for queue in (one, other):
            waiting = Background(run, lambda: or_else(one.get, other.get))
            asleep()
            queue.put("here")
            assert waiting.result() == "here"
            assert one.empty()
            assert other.empty()

    def test_two_transactions_do_not_take_the_same_item(self):
        q = self.make()
        q.put_many([1, 2])
        first, taken = Once(), []

        @atomically
        def body():
            item = q.get()
            if first:
                taken.append(elsewhere(q.get))
            return item

        taken.append(body())
        assert taken == [1, 2]

    def test_looking_is_allowed_in_a_read_only_transaction(self):
        q = self.make(3)
        q.put_many([1, 2])

        def look():
            return q.peek(), q.qsize(), q.empty(), q.full(), q.snapshot(), q.unfinished_tasks, q.is_shutdown

        assert run(look, read_only=True) == (1, 2, False, False, (1, 2), 2, False)

    def test_an_answer_about_the_size_is_true_at_the_commit(self):
        q, first = self.make(), Once()
        q.put(1)
        seen = []

        @atomically
        def body():
            seen.append((q.qsize(), q.empty()))
            if first:
                elsewhere(q.get)
            done.set(True)

        done = TVar(False)
        body()
        assert seen == [(1, False), (0, True)]

    # several items

    def test_put_many_puts_all_or_none(self):
        q = self.make(3)
        q.put_many([1, 2])
        with pytest.raises(Full):
            q.put_many([3, 4], timeout=0.01)
        assert q.snapshot() == (1, 2)
        waiting = Background(q.put_many, [3, 4])
        asleep()
        q.get()
        waiting.result()
        assert q.snapshot() == (2, 3, 4)

    def test_more_than_ever_fit_are_refused_at_once(self):
        q = self.make(3)
        with pytest.raises(ValueError, match=r"4 items.*maxsize=3"):
            q.put_many([1, 2, 3, 4])
        assert q.empty()

    def test_put_many_of_nothing(self):
        q = self.make(1)
        q.put(1)
        q.put_many([])
        q.put_many(iter(()))
        assert q.qsize() == 1

    def test_an_iterable_that_raises_puts_nothing(self):
        q = self.make()

        def items():
            yield 1
            raise KeyError

        with pytest.raises(KeyError):
            q.put_many(items())
        assert q.empty()

    def test_get_many_takes_as_many_as_there_are(self):
        q = self.make()
        q.put_many(range(700))
        assert q.get_many(1) == [0]
        assert q.get_many(400) == list(range(1, 401))
        q.put(700)
        assert q.get_many() == list(range(401, 701))
        q.put_many(range(3))
        assert q.get_many(5) == [0, 1, 2]
        with pytest.raises(Empty):
            q.get_many(block=False)

    # the size

    def test_maxsize_may_change(self):
        q = self.make(1)
        q.put(1)
        waiting = Background(q.put, 2)
        asleep()
        q.maxsize = 2
        waiting.result()
        q.maxsize = 1
        assert q.full()
        assert q.get() == 1
        with pytest.raises(Full):
            q.put_nowait(3)
        undone(lambda: setattr(q, "maxsize", 5))
        assert q.maxsize == 1
        q.maxsize = 0
        q.put_many(range(1000))

    @pytest.mark.parametrize("taken_together", [False, True])
    def test_a_queue_that_held_too_many_keeps_to_its_new_size(self, taken_together):
        q = self.make(10)
        q.put_many(range(10))
        q.maxsize = 2
        if taken_together:
            q.get_many()
        else:
            for _ in range(10):
                q.get()
        q.put_many([1, 2])
        with pytest.raises(Full):
            q.put_nowait(3)

    @pytest.mark.parametrize("maxsize", [0, -1])
    def test_no_limit(self, maxsize):
        q = self.make(maxsize)
        for number in range(1000):
            q.put(number)
        assert (q.full(), q.qsize()) == (False, 1000)

    def test_room_for_all_that_fit_and_no_more(self):
        for maxsize in (1, 2, 249, 250, 251, 600):
            q = self.make(maxsize)
            for _ in range(2):
                for number in range(maxsize):
                    q.put_nowait(number)
                assert q.full()
                with pytest.raises(Full):
                    q.put_nowait(0)
                for _ in range(maxsize):
                    q.get_nowait()

    # tasks

    def test_join_waits_for_the_last_task(self):
        q = self.make()
        q.join()
        q.put_many([1, 2])
        waiting = [Background(q.join), Background(run, q.join)]
        asleep(2)
        q.get_many()
        q.task_done()
        asleep(2)
        q.task_done()
        for one in waiting:
            one.result()
        assert q.unfinished_tasks == 0
        with pytest.raises(ValueError, match="too many times"):
            q.task_done()
        q.put(1)
        assert q.unfinished_tasks == 1
        q.task_done()
        with pytest.raises(ValueError, match="too many times"):
            run(q.task_done)

    def test_who_waits_in_join_is_not_woken_by_every_task(self):
        from stm.clock import clock

        q = self.make()
        q.put_many(range(10))
        waiting = Background(q.join)
        asleep()
        (waiter,) = clock.sleepers
        for _ in range(9):
            q.task_done()
            q.put(q.get())
            q.task_done()
        assert not waiter.woken
        q.task_done()
        waiting.result()

    def test_a_task_done_in_a_transaction_that_fails_is_not_done(self):
        q = self.make()
        q.put_many([1, 2])
        undone(q.task_done)
        undone(q.task_done, q.task_done)
        assert q.unfinished_tasks == 2
        q.task_done()
        q.task_done()
        q.join()

    def test_task_done_does_not_disturb_those_who_put(self):
        q = self.make()
        q.put_many(range(10))
        q.task_done()
        runs, first = [], Once()

        @atomically
        def body():
            runs.append(1)
            q.task_done()
            if first:
                elsewhere(q.put, 10)

        body()
        assert len(runs) == 1
        assert q.unfinished_tasks == 9

    # shutting down

    def test_after_shutdown_what_is_left_can_be_taken(self):
        q = self.make(5)
        q.put_many([1, 2])
        q.shutdown()
        assert q.is_shutdown
        for call in (lambda: q.put(3), lambda: q.put(3, False), lambda: q.put(3, timeout=1), lambda: q.put_many([3])):
            with pytest.raises(ShutDown):
                call()
        assert (q.peek(), q.get(), q.get_many()) == (1, 1, [2])
        for call in (q.get, q.get_nowait, q.peek, q.get_many, lambda: q.get(timeout=1)):
            with pytest.raises(ShutDown):
                call()
            with pytest.raises(ShutDown):
                run(call)
        q.maxsize = 100
        with pytest.raises(ShutDown):
            q.put(3)
        q.task_done()
        q.task_done()
        q.join()

    @pytest.mark.parametrize("take", ["get", "get_many"])
    def test_a_queue_stays_shut_when_its_only_item_is_taken(self, take):
        q = self.make()
        q.put(1)
        q.shutdown()
        assert getattr(q, take)() in (1, [1])
        with pytest.raises(ShutDown):
            q.put(2)

    def test_shutdown_wakes_those_who_wait(self):
        empty, full = self.make(), self.make(1)
        full.put(1)
        waiting = [Background(call) for call in (empty.get, empty.peek, empty.get_many, lambda: full.put(2))]
        asleep(4)
        empty.shutdown()
        full.shutdown()
        for one in waiting:
            with pytest.raises(ShutDown):
                one.result()

    def test_shutdown_at_once_discards_what_is_left_and_counts_it_as_done(self):
        q = self.make()
        q.put_many(range(600))
        q.get()
        waiting = Background(q.join)
        asleep()
        q.shutdown(immediate=True)
        assert (q.qsize(), q.unfinished_tasks) == (0, 1)
        with pytest.raises(ShutDown):
            q.get()
        q.task_done()
        waiting.result()
        q.shutdown()
        q.shutdown(immediate=True)

    def test_shutdown_in_a_transaction_that_fails_is_undone(self):
        q = self.make()
        q.put(1)
        undone(lambda: q.shutdown(immediate=True))
        assert (q.is_shutdown, q.snapshot(), q.unfinished_tasks) == (False, (1,), 1)
        q.put(2)

    # objects

    def test_repr_tells_the_state(self):
        q = self.make(3, name="jobs")
        kind = type(q).__name__
        assert repr(q) == f"<{kind} 'jobs' of 0 items, maxsize=3>"
        q.put(1)
        q.shutdown()
        assert repr(q) == f"<{kind} 'jobs' of 1 item, maxsize=3, shut down>"
        assert repr(self.make()) == f"<{kind} of 0 items>"

    def test_can_not_be_copied_or_pickled(self):
        q = self.make()
        for call in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="can't be pickled or copied"):
                call(q)

    def test_is_an_object_like_queue_queue(self):
        q = self.make()
        assert q  # also when empty
        assert q == q
        assert q != self.make()
        assert {q: 1}[q] == 1
        assert weakref.ref(q)() is q
        for call in (iter, len):
            with pytest.raises(TypeError):
                call(q)
        assert type(q)[int] is not None

    def test_an_item_that_was_taken_is_not_kept_alive(self):
        class Item(float):
            pass

        q = self.make()
        for by_many in (False, True):
            q.put_many(map(Item, range(350)))
            for number in range(350, 700):
                q.put(Item(number))
            refs = [weakref.ref(item) for item in q.snapshot()]
            while not q.empty():
                if by_many:
                    q.get_many(3)
                else:
                    q.get()
                gone = len(refs) - q.qsize()
                assert [ref() is None for ref in refs[:gone][-3:]] == [True] * min(3, gone)
                assert gone == 700 or refs[gone]() is not None

    # many threads

    @pytest.mark.parametrize("maxsize", [0, 1, 7])
    def test_every_item_arrives_once(self, maxsize):
        q = self.make(maxsize)
        count = 400

        def produce(first):
            for number in range(first, first + count):
                q.put(number)
            return []

        def consume():
            taken = []
            for _ in range(count):
                taken.append(q.get())
                q.task_done()
            return taken

        results = together(lambda: produce(0), lambda: produce(count), consume, consume)
        assert sorted(results[2] + results[3]) == list(range(2 * count))
        q.join()
        assert q.empty()

    def test_batches_arrive_whole(self):
        q = self.make()

        def produce(first):
            for number in range(100):
                q.put_many([(number, first, part) for part in range(3)])
            return []

        def consume():
            return [q.get_many(3) for _ in range(100)]

        results = together(lambda: produce(0), lambda: produce(1), consume, consume)
        assert sorted(chain(*results[2], *results[3])) == sorted(
            (number, first, part) for number in range(100) for first in (0, 1) for part in range(3)
        )


# ---------------------------------------------------------------------------------------------- first in, first out


@contextmanager
def longest(number):
    """Let runs be this long."""
    before = queue_module.LONGEST
    queue_module.LONGEST = number
    try:
        yield
    finally:
        queue_module.LONGEST = before


class TestQueue(QueueContract):
    @settings(deadline=None, max_examples=80)
    @given(program, st.sampled_from([None, False, True]), st.sampled_from([1, 2, 5, 250]))
    def test_does_what_a_deque_does(self, program, ending, run_length):
        with longest(run_length):
            check_model(TQueue(), Model(lambda items: items[0]), program, ending)


@pytest.mark.parametrize("length", [0, 1, 2, 249, 250, 251, 1000])
def test_first_in_first_out_at_any_length(length):
    q = TQueue()
    for number in range(length):
        q.put(number)
    for number in range(3 * length):
        q.put(length + number)
        assert q.get() == number
        if number % 100 == 0:
            assert q.snapshot() == tuple(range(number + 1, length + number + 1))
            assert q.qsize() == length


def test_items_of_one_producer_stay_in_order():
    q = TQueue()
    count = 3000

    def produce(me):
        for number in range(count):
            q.put((me, number))
        return []

    def consume():
        return [q.get() for _ in range(count)]

    results = together(lambda: produce(0), lambda: produce(1), consume, consume)
    for taken in results[2:]:
        for me in (0, 1):
            numbers = [number for who, number in taken if who == me]
            assert numbers == sorted(numbers)


def one_attempt(mine, others):
    """Does a transaction that does `mine` survive that `others` is done meanwhile?"""
    runs = []

    @atomically
    def body():
        runs.append(1)
        mine()
        if len(runs) == 1:
            elsewhere(others)

    body()
    return len(runs) == 1


@pytest.mark.parametrize("maxsize", [0, 10, 1000])
def test_who_puts_and_who_takes_do_not_conflict(maxsize):
    q = TQueue(maxsize)
    q.put_many([1, 2, 3, 4, 5])
    q.get()  # now he knows what there is
    assert one_attempt(q.get, lambda: q.put(6))
    assert one_attempt(lambda: q.put(7), q.get)
    assert one_attempt(lambda: q.get_many(2), lambda: q.put(8))
    if not maxsize:
        q.put_many(range(9, 12))
        q.get()
        q.put_many(range(12, 400))
        assert one_attempt(q.get, lambda: q.put_many(range(400, 800)))
    left = q.snapshot()
    assert left == tuple(sorted(left))


def test_two_that_put_do_conflict():
    q = TQueue()
    assert not one_attempt(lambda: q.put(1), lambda: q.put(2))
    assert q.snapshot() == (2, 1)


def test_taking_the_only_item_sees_the_moment_of_the_transaction():
    """The short cut past the front must not be taken on the strength of a front that is newer than the rest."""
    q, x = TQueue(), TVar(0)
    q.put_many([0, 1])
    q.get()
    q.put(2)  # so 1 is at the front and 2 alone at the back
    first, seen = Once(), []

    @atomically
    def body():
        before = x.value
        if first:
            elsewhere(lambda: (q.get(), x.set(1)))
        item = q.get()
        seen.append((before, item))
        assert (before, item) in {(0, 1), (1, 2)}

    body()
    assert seen == [(1, 2)]


def test_in_a_transaction_the_own_items_come_after_the_others():
    q = TQueue()
    q.put(1)

    @atomically
    def body():
        q.put(2)
        return q.get(), q.get()

    assert body() == (1, 2)


def test_a_consumer_gets_through_a_backlog_while_producers_never_stop():
    q = TQueue()
    backlog = 20_000
    q.put_many(range(backlog))
    stop = threading.Event()

    def produce():
        while not stop.is_set() and q.qsize() < 3 * backlog:
            q.put(-1)

    producers = [Background(produce) for _ in range(2)]
    try:
        assert [q.get() for _ in range(backlog // 2)] == list(range(backlog // 2))
        assert run(lambda: [q.get() for _ in range(100)])[-1] == backlog // 2 + 99
        assert q.get_many(backlog // 2 - 100)[-1] == backlog - 1
        q.get_many()
    finally:
        stop.set()
        for one in producers:
            one.result()


def test_no_step_is_longer_than_a_run(monkeypatch):
    steps = []

    def watched(name):
        function = getattr(queue_module, name)

        def watch(*args):
            result = function(*args)
            steps.append(len(result) if name == "items_of" else len(args[0]))
            return result

        monkeypatch.setattr(queue_module, name, watch)

    watched("items_of")
    watched("line_of")
    q = TQueue()
    for number in range(2000):
        q.put(number)
    q.put_many(range(2000, 10_000))
    for number in range(10_000):
        assert q.get() == number
    assert max(steps) == queue_module.LONGEST
    assert len(steps) >= 2 * 10_000 // queue_module.LONGEST


def test_a_long_queue_is_freed_without_recursion():
    q = TQueue()
    q.put_many(range(1_000_000))
    for number in range(1000):
        q.put(number)
    q.get()
    assert q.qsize() == 1_000_999
    q.shutdown(immediate=True)
    assert q.empty()
    q = TQueue()
    with longest(1):
        q.put_many(range(50_000))
    del q


def test_waiting_leaves_nothing_behind():
    q = TQueue()
    for _ in range(50):
        with pytest.raises(Empty):
            q.get(timeout=0.0005)
    assert not q._front._waiters
    assert not q._back._waiters
    assert not in_transaction()


def test_more_hands_than_rounds():
    """Whoever loses the race for one variable again and again makes a transaction of it."""
    q = TQueue()
    q.put_many(range(1000))
    taken = together(*[lambda: [q.get() for _ in range(100)]] * 8)
    assert sorted(chain(*taken)) == list(range(800))


def test_check_composes_with_the_size():
    q = TQueue()
    waiting = Background(run, lambda: (check(q.qsize() >= 3), q.get_many(3))[1])
    asleep()
    for number in range(3):
        q.put(number)
    assert waiting.result() == [0, 1, 2]


@pytest.mark.parametrize("kind", [TQueue, TPriorityQueue], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("same", [True, False], ids=["the same queue", "another"])
def test_a_timeout_inside_a_transaction_is_no_other_ones(kind, same):
    """A wait that is over does not bequeath the time it took to the next wait of the same length."""
    first, limit = kind(), 0.5
    second = first if same else kind()

    @atomically
    def body():
        item = first.get(timeout=limit)
        try:
            second.get(timeout=limit)
        except Empty:
            return item, time.monotonic()

    waiting = Background(body)
    asleep()
    time.sleep(0.1)  # not to wait for something: some of the first limit is to pass
    put = time.monotonic()
    first.put("item")
    item, ended = waiting.result()
    assert item == "item"
    assert ended - put >= limit
