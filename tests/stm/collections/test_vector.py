"""`TVector`: a list whose every operation is a transaction."""

import copy
import gc
import operator
import pickle
import sys
import weakref
from collections.abc import MutableSequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyrsistent import PVector, pvector

from stm import TransactionTimeout, TVector, atomically, check, run
from tests.support import Background, Once, asleep, elsewhere, together


def test_it_has_the_methods_of_list():
    assert issubclass(TVector, MutableSequence)
    assert {name for name in dir(list) if not name.startswith("_")} <= set(dir(TVector))
    assert TVector[int].__args__ == (int,)


def test_repr_shows_the_elements_and_stops_at_itself():
    v = TVector([1, "a"])
    assert repr(v) == "TVector([1, 'a'])"
    v.append(v)
    assert repr(v) == "TVector([1, 'a', TVector([...])])"
    assert repr(TVector()) == "TVector([])"


@pytest.mark.parametrize(
    "wrong",
    [
        lambda v: v[3],
        lambda v: v[-4],
        lambda v: v.__setitem__(3, 0),
        lambda v: v.__delitem__(3),
        lambda v: v.pop(3),
        lambda v: v["a"],
        lambda v: v.remove(9),
        lambda v: v.index(9),
        lambda v: v.index(1, 1, 2),
        lambda v: v.__setitem__(slice(0, 2, 2), [1, 2, 3]),
        lambda v: operator.add(v, (1,)),
        lambda v: v * 1.5,
        lambda v: v < 5,
        lambda v: v.extend(5),
        lambda v: v.sort(key=len),
        lambda v: hash(v),
        lambda v: (v.clear(), v.pop()),
    ],
)
def test_errors_are_those_of_list(wrong):
    with pytest.raises((IndexError, TypeError, ValueError)) as theirs:
        wrong([1, 2, 3])
    v = TVector([1, 2, 3])
    with pytest.raises(theirs.type) as ours:
        wrong(v)
    if theirs.type is IndexError:
        assert str(ours.value) == str(theirs.value)
    assert list(v) in ([1, 2, 3], [])


def test_comparison_and_addition_with_lists_and_their_kin():
    v = TVector([1, 2])
    for kin in ([1, 2], pvector([1, 2]), TVector([1, 2])):
        assert v == kin
        assert v <= kin
        assert not v < kin
        assert v + kin == [1, 2, 1, 2]
    assert operator.add([0], v) == [0, 1, 2]
    assert type(operator.add([0], v)) is TVector
    assert v != (1, 2)
    assert v < [1, 3]
    assert 2 * v == v * 2 == [1, 2, 1, 2]


def test_copies_are_independent_and_pickling_is_refused():
    v = TVector([1, [2]])
    with pytest.raises(TypeError, match="snapshot"):
        pickle.dumps(v)
    for other in (v.copy(), copy.copy(v), copy.deepcopy(v), TVector(v), v[:]):
        assert other == v
        other.append(3)
        assert len(v) == 2


def test_a_snapshot_is_a_pvector_that_never_changes():
    v = TVector(range(100))
    before = v.snapshot()
    v[5] = "changed"
    for _ in range(10):
        v.pop()
    v.append("new")
    assert isinstance(before, PVector)
    assert before == pvector(range(100))
    assert v.snapshot() == pvector([*range(5), "changed", *range(6, 90), "new"])
    assert v.snapshot() is v.snapshot()


def test_what_was_popped_is_let_go():
    class Thing:
        pass

    v = TVector([Thing() for _ in range(100)])
    ref = weakref.ref(v.pop())
    gc.collect()
    assert ref() is None
    assert len(v) == len(list(v)) == 99


def test_every_operation_works_inside_a_transaction_and_is_undone_with_it():
    v = TVector(range(50))

    class Never(Exception):
        pass

    @atomically
    def body():
        v.append(50)
        v.extend([51, 52])
        v.insert(0, -1)
        assert v.pop() == 52
        assert v.pop(0) == -1
        del v[10:40]
        v[0] = "zero"
        v[1:3] = []
        v.remove(5)
        v.reverse()
        assert v.snapshot() == [*range(51, 39, -1), 9, 8, 7, 6, 4, 3, "zero"]
        assert v.pop() == "zero"
        v.sort()
        assert operator.iadd(v, [1]) is v
        assert operator.imul(v, 2) is v
        assert len(v) == 38
        v.clear()
        assert not v
        raise Never

    with pytest.raises(Never):
        body()
    assert v == list(range(50))


def test_a_write_between_look_and_change_is_kept():
    for change, expected in [
        (lambda v: v.sort(key=lambda n: interrupt(v, n)), [1, 2, 3, 9]),
        (lambda v: v.remove(Meddler(v, 2)), [3, 1, 9]),
        (lambda v: v.extend(n for n in [interrupt(v, 4)]), [3, 1, 2, 9, 4]),
    ]:
        first = Once()

        def interrupt(v, n):
            if first:
                elsewhere(v.append, 9)
            return n

        class Meddler:
            def __init__(self, v, n):
                self.v, self.n = v, n

            def __eq__(self, other):
                return interrupt(self.v, self.n) == other

        v = TVector([3, 1, 2])
        change(v)
        assert v == expected


def test_a_key_function_that_changes_the_vector_is_told_so():
    v = TVector([3, 1, 2])
    with pytest.raises(ValueError, match="modified"):
        v.sort(key=lambda n: v.append(n) or n)


def test_no_append_and_no_pop_is_lost():
    v = TVector()
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        together(*[lambda: [v.append(n) for n in range(2000)]] * 2)
    finally:
        sys.setswitchinterval(usual)
    assert sorted(v) == sorted([*range(2000)] * 2)

    def drain():
        taken = []
        while True:
            try:
                taken.append(v.pop())
            except IndexError:
                return taken

    one, two = together(drain, drain)
    assert sorted(one + two) == sorted([*range(2000)] * 2)


def test_another_vector_is_read_in_the_same_transaction():
    a, b = TVector([1]), TVector([2])
    first = Once()

    @atomically
    def body():
        a.extend(b)
        a[:0] = b
        if first:
            elsewhere(b.append, 3)

    body()
    assert a == [2, 3, 1, 2, 3]
    a.extend(a)
    assert a == [2, 3, 1, 2, 3] * 2


def test_a_transaction_can_wait_for_an_element():
    v = TVector(name="jobs")
    with pytest.raises(TransactionTimeout, match="jobs"):
        atomically(timeout=0.01)(lambda: check(v))()
    background = Background(run, lambda: check(v) or v.pop())
    asleep()
    v.append("job")
    assert background.result() == "job"


def test_iteration_goes_through_one_moment():
    v = TVector(range(10))
    iterators = iter(v), reversed(v)
    v.clear()
    v.append("new")
    assert [sorted(one) for one in iterators] == [list(range(10))] * 2


INDEX = st.integers(-12, 12)
VALUES = st.lists(st.integers(0, 9), max_size=40)
SLICES = st.builds(slice, INDEX | st.none(), INDEX | st.none(), st.sampled_from([None, 1, 2, -1, -3]))
OPERATIONS = {
    "append": lambda v, i, s, many: v.append(i),
    "extend": lambda v, i, s, many: v.extend(many),
    "insert": lambda v, i, s, many: v.insert(i, many),
    "pop": lambda v, i, s, many: v.pop(),
    "pop more": lambda v, i, s, many: [v.pop() for _ in many],
    "pop at": lambda v, i, s, many: v.pop(i),
    "get": lambda v, i, s, many: v[i],
    "get slice": lambda v, i, s, many: list(v[s]),
    "set": lambda v, i, s, many: v.__setitem__(i, many),
    "set slice": lambda v, i, s, many: v.__setitem__(s, many),
    "del": lambda v, i, s, many: v.__delitem__(i),
    "del slice": lambda v, i, s, many: v.__delitem__(s),
    "remove": lambda v, i, s, many: v.remove(i),
    "index": lambda v, i, s, many: v.index(i),
    "count": lambda v, i, s, many: v.count(i),
    "reverse": lambda v, i, s, many: v.reverse(),
    "sort": lambda v, i, s, many: v.sort(key=str, reverse=i > 0),
    "times": lambda v, i, s, many: list(v * (i % 3)),
    "plus": lambda v, i, s, many: list(v + many),
    "compare": lambda v, i, s, many: (v == many, v != many),
    "in": lambda v, i, s, many: i in v,
}


def apply(operations, v):
    results = []
    for name, index, part, many in operations:
        try:
            results.append(OPERATIONS[name](v, index, part, many))
        except (IndexError, ValueError) as error:
            results.append(type(error))
        results.append((len(v), list(v), list(reversed(v))))
    return results


class Undo(Exception):
    pass


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["outside", "inside", "undone"]),
            st.lists(st.tuples(st.sampled_from(sorted(OPERATIONS)), INDEX, SLICES, VALUES), max_size=25),
        ),
        max_size=5,
    )
)
@settings(deadline=None, max_examples=80)
def test_it_behaves_as_a_list_inside_and_outside_of_transactions(rounds):
    v, model = TVector(), []
    for way, operations in rounds:
        if way == "undone":

            def body():
                assert apply(operations, v) == apply(operations, list(model))
                raise Undo

            with pytest.raises(Undo):
                run(body)
        else:
            ours = run(apply, operations, v) if way == "inside" else apply(operations, v)
            assert ours == apply(operations, model)
        assert v == model == v.snapshot().tolist()
