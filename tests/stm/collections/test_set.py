"""`TSet`: a set whose every operation is a transaction."""

import copy
import operator
import pickle
from collections.abc import MutableSet

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyrsistent import PSet, pset

from stm import TMap, TransactionTimeout, TSet, TVar, atomically, check, run
from tests.support import Background, Once, asleep, elsewhere, together


def test_it_has_the_methods_of_set():
    assert issubclass(TSet, MutableSet)
    assert {name for name in dir(set) if not name.startswith("_")} <= set(dir(TSet))
    assert TSet[int].__args__ == (int,)


def test_repr_shows_the_elements_and_stops_at_itself():
    assert repr(TSet()) == "TSet()"
    assert repr(TSet([1])) == "TSet({1})"

    class Holder:
        def __repr__(self):
            return f"<{s!r}>"

    s = TSet([Holder()])
    assert repr(s) == "TSet({<TSet(...)>})"


def test_operators_take_sets_and_methods_any_iterables_and_both_return_a_new_one():
    s = TSet([1, 2, 3])
    for theirs in ({3, 4}, frozenset([3, 4]), pset([3, 4]), {3: 0, 4: 0}.keys(), TSet([3, 4])):
        assert [s | theirs, s & theirs, s - theirs, s ^ theirs] == [{1, 2, 3, 4}, {3}, {1, 2}, {1, 2, 4}]
        assert [theirs | s, theirs & s, theirs - s, theirs ^ s] == [{1, 2, 3, 4}, {3}, {4}, {1, 2, 4}]
        assert s != theirs
    for new in (s | {4}, {4} | s, {4} - s, s.union([4]), s.copy(), s & s):
        assert type(new) is TSet
        assert new is not s
    assert s.union([4], "a") == {1, 2, 3, 4, "a"}
    assert s.intersection([1, 2], (2, 3)) == {2}
    assert s.difference([1], [2]) == {3}
    assert s.symmetric_difference(iter([3, 4])) == {1, 2, 4}
    for wrong in ([1], "abc", 5):
        with pytest.raises(TypeError):
            operator.or_(s, wrong)
    assert s == {1, 2, 3}


def test_comparisons():
    s = TSet([1, 2])
    for same in ({1, 2}, pset([1, 2]), TSet([2, 1]), frozenset([1, 2])):
        assert s == same == s
        assert s <= same <= s
        assert not s < same
        assert s >= same
        assert s.issubset(same)
        assert not s.isdisjoint(same)
    assert s < {1, 2, 3}
    assert {1, 2, 3} > s > {1}
    assert s != [1, 2]
    with pytest.raises(TypeError):
        operator.lt(s, [1, 2, 3])


def test_copies_are_independent_and_pickling_is_refused():
    s = TSet([1, (2,)])
    with pytest.raises(TypeError, match="snapshot"):
        pickle.dumps(s)
    for other in (s.copy(), copy.copy(s), copy.deepcopy(s), TSet(s)):
        assert other == s
        other.add(3)
        assert 3 not in s


def test_a_snapshot_is_a_pset_that_never_changes():
    s = TSet(range(300))
    before = s.snapshot()
    s.discard(5)
    assert isinstance(before, PSet)
    assert before == pset(range(300)) == set(range(300))
    assert hash(before) == hash(pset(range(300)))
    assert len(before) == 300
    assert before.add(-1) == set(range(-1, 300))
    assert pickle.loads(pickle.dumps(before)) == before
    assert 5 in before
    assert 5 not in s.snapshot()


def test_every_operation_works_inside_a_transaction_and_is_undone_with_it():
    s = TSet(range(100))

    class Never(Exception):
        pass

    @atomically
    def body():
        s.add(1000)
        s.remove(1)
        s.discard(2)
        s.update([2000], [3000])
        s.difference_update([3], (4,))
        s.symmetric_difference_update([5, 5000])
        s.intersection_update([*range(50), 1000, 5000])
        assert s == {0, *range(6, 50), 1000, 5000}
        assert s.pop() in [0, *range(6, 50), 1000, 5000]
        assert len(s) == 46
        s.clear()
        assert not s
        raise Never

    with pytest.raises(Never):
        body()
    assert s == set(range(100))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda a, b: a.update(b), {1, 2, 3}),
        (lambda a, b: a.difference_update(b), {1}),
        (lambda a, b: a.intersection_update(b), {2}),
        (lambda a, b: a.symmetric_difference_update(b), {1, 3}),
        (lambda a, b: a.__ior__(a | b), {1, 2, 3}),
    ],
)
def test_another_set_is_read_in_the_same_transaction(change, expected):
    a, b = TSet([1, 2]), TSet([2, 4])
    first = Once()

    @atomically
    def body():
        change(a, b)
        if first:
            elsewhere(run, lambda: (b.add(3), b.remove(4)))

    body()
    assert a == expected


class Armed:
    """An element that lets another thread in, once, when it is next hashed."""

    meddle = None

    def __hash__(self):
        meddle, self.meddle = self.meddle, None
        if meddle is not None:
            elsewhere(meddle)
        return 5


@pytest.mark.parametrize("name", ["update", "union", "symmetric_difference"])
def test_another_set_is_of_one_moment_outside_a_transaction_too(name):
    element = Armed()
    a, b = TSet(), TSet([element, 1])
    element.meddle = lambda: b.__isub__({1})
    result = getattr(a, name)(b)
    assert (a if name == "update" else result) == {element}


@pytest.mark.parametrize(
    "change", [TSet.update, TSet.difference_update, TSet.intersection_update, TSet.symmetric_difference_update]
)
def test_nobody_sees_half_a_change_of_many_elements(change):
    element = Armed()
    a, seen = TSet(range(100)), []
    a.add(element)
    before = len(a)

    class Late(TSet):
        def __iter__(self):
            element.meddle = lambda: seen.append(len(a))
            return iter([*range(50, 150), element])

    change(a, Late())
    assert set(seen) <= {before}
    assert seen


def test_iterables_are_gone_through_once():
    s, other = TSet([1, 2]), TVar(0)
    first = Once()

    @atomically
    def body(numbers):
        other.value += 1
        if first:
            elsewhere(other.set, 5)
        return numbers

    s.update(iter([3]), body(iter([4])))
    s.intersection_update(iter([1, 2, 3]), iter([1, 3]))
    assert s == {1, 3}


def test_an_argument_that_fails_on_its_way_changes_nothing():
    s = TSet([1])

    def numbers():
        yield 2
        raise ZeroDivisionError

    for method in (s.update, s.difference_update, s.intersection_update, s.symmetric_difference_update):
        with pytest.raises(ZeroDivisionError):
            method([3], numbers()) if method != s.symmetric_difference_update else method(numbers())
        with pytest.raises(TypeError):
            method([[]])
        assert s == {1}


def test_what_is_so_already_writes_nothing():
    s = TSet([1])
    attempts = []

    @atomically
    def body():
        attempts.append(1)
        assert 1 in s
        elsewhere(s.add, 1)
        elsewhere(s.discard, 2)
        s.add(1)

    body()
    assert len(attempts) == 1


def test_a_transaction_can_wait_for_an_element():
    s = TSet(name="seen")
    with pytest.raises(TransactionTimeout, match=r"seen\[stripe "):
        atomically(timeout=0.01)(lambda: check("x" in s))()
    background = Background(run, lambda: check("x" in s))
    asleep()
    s.add("x")
    background.result()


def test_each_element_is_popped_once():
    s = TSet(range(300))

    def drain():
        taken = []
        while s:
            try:
                taken.append(s.pop())
            except KeyError:
                break
        return taken

    one, two = together(drain, drain)
    assert sorted(one + two) == list(range(300))


def test_iteration_goes_through_one_moment():
    s = TSet(range(100))
    iterator = iter(s)
    s.clear()
    assert sorted(iterator) == list(range(100))


def test_a_set_stands_for_the_frozenset_that_equals_it():
    s = TSet([frozenset([1])])
    assert {1} in s
    assert TSet([1]) in s
    s.remove({1})
    with pytest.raises(KeyError):
        s.remove({1})
    with pytest.raises(TypeError):
        s.add({1})
    assert TMap.fromkeys(s) == {}


ELEMENTS = st.integers(0, 80) | st.sampled_from(["a", 1.0, True, None])
MANY = st.lists(ELEMENTS, max_size=60)
NAMES = [
    "add",
    "discard",
    "remove",
    "update",
    "difference_update",
    "intersection_update",
    "symmetric_difference_update",
]
NAMES += ["union", "intersection", "difference", "symmetric_difference", "issubset", "issuperset", "isdisjoint"]


def apply(operations, s):
    results = []
    for name, element, many in operations:
        try:
            result = getattr(s, name)(element if name in ("add", "discard", "remove") else many)
            results.append(set(result) if isinstance(result, (set, TSet)) else result)
        except KeyError as error:
            results.append(error.args)
        results.append((len(s), set(s), element in s, s == set(many), s <= set(many)))
    return results


class Undo(Exception):
    pass


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["outside", "inside", "undone"]),
            st.lists(st.tuples(st.sampled_from(NAMES), ELEMENTS, MANY), max_size=15),
        ),
        max_size=5,
    )
)
@settings(deadline=None, max_examples=80)
def test_it_behaves_as_a_set_inside_and_outside_of_transactions(rounds):
    s, model = TSet(), set()
    for way, operations in rounds:
        if way == "undone":

            def body():
                assert apply(operations, s) == apply(operations, set(model))
                raise Undo

            with pytest.raises(Undo):
                run(body)
        else:
            ours = run(apply, operations, s) if way == "inside" else apply(operations, s)
            assert ours == apply(operations, model)
        assert s == model == s.snapshot()
