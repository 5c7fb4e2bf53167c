"""`Gate`: an order kept, a length known, a credit that is right, and conflicts only where they must be."""

import gc
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hive_task.queues
from hive_task.queues import EMPTY, LONGEST, Base, Gate, now, on_tray, tray_of, works_of
from hive_task.work import Options, Work
from stm import atomically, run
from tests.support import Once, elsewhere


class Entry:
    """As much of a future as a queue looks at."""

    def __init__(self, number=0, priority=0):
        self.number = number
        self._work = Work(print)
        self._work.special = Options(priority)

    def __repr__(self):
        return f"<{self.number}>"


@pytest.fixture
def gate():
    """One that is open."""
    return opened(Gate())


@pytest.fixture
def short(monkeypatch):
    """Runs are short, so that there are many."""
    monkeypatch.setattr(hive_task.queues, "LONGEST", 3)


def opened(gate):
    run(lambda: gate.store(gate.back.get(), now(gate.back.get())._replace(open=True)))
    return gate


def submit(gate, *works):
    """As `Dispatch.place` does."""

    def body():
        base = gate.back.get()
        gate.store(base, now(base)._replace(submitted=now(base).submitted + len(works)), works)

    run(body)


def submit_quickly(gate, work):
    """As `Dispatch.put` does; False if there is no credit left."""
    before = gate.back.peek()
    return before[2] > 0 and gate.back.compare_and_set(before, (work, before, before[2] - 1, before[3]))


def take(gate, limit=1):
    return run(gate.take, limit)


def numbers(works):
    return [work.number for work in works]


# ---------------------------------------------------------------------------------------------- order and length


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["one", "many", "take", "back"]), st.integers(0, 9)), max_size=60))
def test_works_leave_in_the_order_in_which_they_came_and_the_length_is_known(steps):
    longest, hive_task.queues.LONGEST = hive_task.queues.LONGEST, 4
    try:
        gate, expected, submitted = opened(Gate()), [], 0
        for name, number in steps:
            if name == "one":
                work = Entry(submitted)
                if not submit_quickly(gate, work):
                    submit(gate, work)
                submitted += 1
                expected.append(work)
            elif name == "many":
                works = [Entry(submitted + place) for place in range(number)]
                submit(gate, *works)
                submitted += number
                expected += works
            else:
                taken = take(gate, number + 1)
                assert 0 < len(taken) <= number + 1 or not expected
                assert list(taken) == expected[: len(taken)]
                if name == "take":
                    expected = expected[len(taken) :]
                else:
                    run(gate.put_back, taken)
            assert list(run(lambda: list(gate.works()))) == expected
            assert gate.length() == len(expected)
            base = now(gate.back.get())
            assert base.submitted == submitted
            assert base.length == len(works_of(gate.back.get())) <= 4
            assert base.credit == 4 - base.length
    finally:
        hive_task.queues.LONGEST = longest


def test_as_many_as_a_run_may_have_come_in_with_one_comparison_each(gate):
    taken_in = 0
    while submit_quickly(gate, Entry(taken_in)):
        taken_in += 1
    assert taken_in == LONGEST
    submit(gate, Entry(taken_in))
    assert len(gate.chunks.get()) == 1
    assert gate.back.get()[2] == LONGEST - 1
    assert numbers(run(lambda: list(gate.works()))) == list(range(LONGEST + 1))


@pytest.mark.parametrize("reason", [{"open": False}, {"idle": ("somebody",)}, {"watched": True}])
def test_there_is_no_credit_if_whoever_submits_must_look(gate, reason):
    submit_quickly(gate, Entry(1))
    run(lambda: gate.store(gate.back.get(), now(gate.back.get())._replace(**reason)))
    assert not submit_quickly(gate, Entry(2))
    assert gate.length() == 1


def test_to_take_of_nothing_is_to_get_nothing(gate):
    assert take(gate, 5) == ()
    submit(gate, Entry())
    assert len(take(gate, 5)) == 1
    assert take(gate, 5) == ()
    assert gate.length() == 0


def test_nearly_empty_says_whether_there_is_anything_but_what_came_last(gate, short):
    assert run(gate.nearly_empty)
    submit(gate, Entry(1), Entry(2))
    assert run(gate.nearly_empty)
    submit(gate, Entry(3), Entry(4))
    assert not run(gate.nearly_empty)  # a chunk
    take(gate)
    assert not run(gate.nearly_empty)  # the rest of it
    take(gate, 2)
    assert run(gate.nearly_empty)


def test_a_base_brought_up_to_date_counts_what_came_on_credit(gate):
    for number in range(3):
        submit_quickly(gate, Entry(number))
    assert now(gate.back.get()) == Base(3, 0, 3, LONGEST - 3, (), True, False)
    assert now((*EMPTY[:3], Base())) == Base()


def test_a_tray_has_its_works_in_order_before_those_of_another():
    works = tuple(map(Entry, range(5)))
    assert list(on_tray(tray_of(works[:2], tray_of(works[2:])))) == list(works)
    assert tray_of(()) is None
    assert list(on_tray(None)) == []


def test_what_was_taken_is_not_kept_alive(gate):
    works = [Entry(number) for number in range(3)]
    alive = [weakref.ref(work) for work in works]
    submit(gate, *works)
    del works
    take(gate, 3)
    gc.collect()
    assert [one() for one in alive] == [None] * 3


# ---------------------------------------------------------------------------------------------- the urgent


def test_urgent_works_leave_highest_first_and_in_the_order_in_which_they_came(gate):
    entries = sorted(map(Entry, range(6)), key=id, reverse=True)  # an order that memory would not give them
    for number, (entry, priority) in enumerate(zip(entries, [1, 3, -1, 1, 3, -2], strict=True)):
        entry.number = number
        run(gate.press, entry, priority)
    assert gate.pressing.get() == (4, 2)
    assert numbers(run(gate.take_urgent) for _ in range(3)) == [1, 4, 0]
    assert gate.pressing.get() == (1, 2)
    assert numbers(run(gate.take_urgent) for _ in range(3)) == [3, 2, 5]
    assert gate.pressing.get() == (0, 0)


def test_all_works_are_those_in_common_and_then_the_urgent(gate, short):
    submit(gate, *map(Entry, range(5)))
    run(gate.press, Entry(9, 1), 1)
    take(gate)
    assert numbers(run(lambda: list(gate.works()))) == [1, 2, 3, 4, 9]


# ---------------------------------------------------------------------------------------------- conflicts


def attempts(body, meanwhile):
    """How often a transaction ran, in the middle of which somebody else did something for the first time."""
    counted, once = [], Once()

    @atomically
    def transaction():
        counted.append(1)
        body()
        if once:
            elsewhere(meanwhile)

    transaction()
    return len(counted)


def test_who_submits_and_who_takes_do_not_conflict(gate, short):
    submit(gate, *map(Entry, range(7)))
    assert attempts(lambda: gate.take(1), lambda: submit(gate, Entry(7))) == 1
    assert attempts(lambda: gate.take(3), lambda: submit_quickly(gate, Entry(8))) == 1
    submit(gate, Entry(9))  # the run was full
    assert attempts(lambda: submit_quickly(gate, Entry(10)), lambda: take(gate, 1)) == 1
    assert gate.length() == 7  # of the first chunk there were but two left for him who wanted three


def test_those_who_take_conflict_and_neither_gets_what_the_other_got(gate):
    submit(gate, *map(Entry, range(4)))
    mine, others = [], []
    again = attempts(lambda: mine.append(gate.take(2)), lambda: others.extend(take(gate, 2)))
    assert again == 2
    assert numbers(mine[-1]) == [2, 3]
    assert numbers(others) == [0, 1]


def test_those_who_submit_conflict_and_both_works_are_there(gate):
    assert attempts(lambda: submit_quickly(gate, Entry(1)), lambda: submit(gate, Entry(2))) == 2
    assert sorted(numbers(run(lambda: list(gate.works())))) == [1, 2]
    assert gate.length() == 2


def test_a_length_is_of_one_moment(gate):
    submit(gate, *map(Entry, range(4)))
    seen, once = [], Once()

    def look():
        front = gate.front.get()
        if once:
            elsewhere(take, gate, 1)
            elsewhere(submit, gate, Entry(4))
        seen.append((gate.length(), len(list(gate.works())), front is gate.front.get()))

    run(look)
    assert seen[-1] == (4, 4, True)
    assert all(length == really for length, really, _ in seen)
