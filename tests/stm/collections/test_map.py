"""`TMap`: a dictionary whose every operation is a transaction."""

import copy
import gc
import pickle
import sys
import threading
import weakref
from collections.abc import MutableMapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyrsistent import PMap, freeze, ny, pmap, pset

from stm import ReadOnlyViolation, TMap, TransactionTimeout, TVar, atomically, check, run
from stm.collections._hash_tree import LAST, LEAF, STRIPES
from tests.support import Background, Once, asleep, elsewhere, together


def stripe(key):
    return hash((key,)) & LAST


def neighbours(count=2, start=0):
    """So many different integers that live in one stripe."""
    found = [key for key in range(start, start + 100_000) if stripe(key) == stripe(start)]
    return found[:count]


def strangers():
    """Two integers that live in different stripes."""
    return 0, next(key for key in range(1, 1000) if stripe(key) != stripe(0))


@pytest.fixture
def quick_switches():
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


class SameHash:
    def __init__(self, name):
        self.name = name

    def __hash__(self):
        return 42

    def __eq__(self, other):
        return isinstance(other, SameHash) and self.name == other.name


# ---------------------------------------------------------------------------------------------- a dictionary


def test_it_has_the_methods_of_dict_that_a_mutable_mapping_can_have():
    assert issubclass(TMap, MutableMapping)
    public = {name for name in dir(dict) if not name.startswith("_")}
    assert public <= set(dir(TMap))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [((), {}), (({1: 2},), {}), (([(1, 2)],), {"a": 3}), ((iter([(1, 2), (1, 3)]),), {}), ((), {"name": 1, "self": 2})],
)
def test_it_is_made_from_what_dict_takes(arguments, named):
    arguments = tuple(list(one) if hasattr(one, "__next__") else one for one in arguments)
    assert TMap(*arguments, **named) == dict(*arguments, **named)


def test_it_is_made_from_another_map_or_a_snapshot_of_one():
    m = TMap({n: str(n) for n in range(200)})
    for other in (TMap(m), TMap(m.snapshot()), TMap(m, extra=1), TMap(pmap({n: str(n) for n in range(200)}))):
        other.pop("extra", None)
        assert other == m
        other[0] = "changed"
        assert m[0] == "0"


@pytest.mark.parametrize("wrong", [42, None, [1, 2], [(1, 2, 3)]])
def test_bad_arguments_get_the_errors_of_dict(wrong):
    with pytest.raises((TypeError, ValueError)) as theirs:
        dict(wrong)
    with pytest.raises(theirs.type):
        TMap(wrong)
    m = TMap(a=1)
    with pytest.raises(theirs.type):
        m.update(wrong)
    assert m == {"a": 1}


def test_a_missing_key_is_a_key_error_with_that_key():
    m = TMap()
    for operation in (m.__getitem__, m.__delitem__, m.pop):
        with pytest.raises(KeyError) as caught:
            operation((1, 2))
        assert caught.value.args == ((1, 2),)
    with pytest.raises(KeyError):
        m.popitem()


def test_equal_keys_of_different_types_are_one_key():
    m = TMap({1: "int"})
    m[True] = "bool"
    m[1.0] = "float"
    assert len(m) == 1
    assert m[1] == "float"
    assert type(next(iter(m))) is int


def test_keys_with_one_hash_are_told_apart():
    many = [SameHash(n) for n in range(3 * LEAF)]
    m = TMap()
    for key in many:
        m[key] = key.name
    assert len(m) == len(many)
    assert all(m[SameHash(n)] == n for n in range(len(many)))
    for key in many[1:]:
        del m[key]
    assert dict(m.items()) == {many[0]: 0}


def test_a_big_map_is_filled_and_emptied():
    m, model = TMap(), {}
    for n in range(6000):
        m[n] = model[n] = str(n)
    assert m == model
    for n in range(0, 6000, 2):
        assert m.pop(n) == model.pop(n)
    assert m == model
    assert len(m) == len(model) == len(list(m))
    m.update({n: -n for n in range(4000, 9000)})
    model.update({n: -n for n in range(4000, 9000)})
    assert m == model
    for n in list(m):
        del m[n]
    assert not m
    assert m == {}
    assert m == TMap()


def test_it_is_unhashable_and_can_be_referred_to_weakly():
    m = TMap()
    with pytest.raises(TypeError):
        hash(m)
    ref = weakref.ref(m)
    del m
    gc.collect()
    assert ref() is None


def test_generic():
    assert TMap[str, int].__args__ == (str, int)


def test_repr_shows_keys_and_values_and_stops_at_itself():
    m = TMap(a=1)
    assert repr(m) == "TMap({'a': 1})"
    m["a"] = m
    assert repr(m) == "TMap({'a': TMap({...})})"


def test_pickling_is_refused_and_copies_are_independent():
    m = TMap(a=[1])
    with pytest.raises(TypeError, match="snapshot"):
        pickle.dumps(m)
    for other, same in ((m.copy(), True), (copy.copy(m), True), (copy.deepcopy(m), False)):
        assert other == m
        assert (other["a"] is m["a"]) == same
        other["b"] = 2
        assert "b" not in m


def test_operators():
    m = TMap(a=1)
    assert m | {"b": 2} == {"a": 1, "b": 2}
    assert {"a": 0, "b": 2} | m == {"a": 1, "b": 2}
    assert type({} | m) is TMap
    other = m
    m |= [("c", 3)]
    assert other is m
    assert m == {"a": 1, "c": 3}
    with pytest.raises(TypeError):
        m | [("c", 3)]
    assert m != {"a": 1, "c": 4}
    assert m != 5
    assert pmap({"a": 1, "c": 3}) == m


def test_views_are_live_and_behave_as_sets():
    m = TMap(a=1)
    keys, values, items = m.keys(), m.values(), m.items()
    m["b"] = 2
    assert (sorted(keys), sorted(values), sorted(items)) == (["a", "b"], [1, 2], [("a", 1), ("b", 2)])
    assert (len(keys), len(values), len(items)) == (2, 2, 2)
    assert ["b" in keys, 2 in values, ("b", 2) in items] == [True] * 3
    assert ["c" in keys, 7 in values, ("b", 3) in items] == [False] * 3
    assert keys & {"a", "z"} == {"a"}
    assert {"a", "z"} - keys == {"z"}
    assert keys == {"a", "b"}
    assert items >= {("a", 1)}
    assert keys.isdisjoint("xyz")
    assert keys == TMap(a=5, b=6).keys()
    assert repr(keys) == f"TMapKeys({m})"


def test_a_set_operation_on_a_view_sees_one_moment():
    m = TMap(a=1)

    class Meddler(set):
        def __contains__(self, element):
            return True

        def __iter__(self):
            elsewhere(m.pop, "a", None)
            return iter(["a"])

        def __len__(self):
            return 1

    assert m.keys() & Meddler() == {"a"}


# ---------------------------------------------------------------------------------------------- transactions


def test_every_operation_works_inside_a_transaction_and_is_undone_with_it():
    m = TMap({n: n for n in range(100)})
    before = m.snapshot()

    class Never(Exception):
        pass

    @atomically
    def body():
        m[1] = "one"
        del m[2]
        assert m.pop(3) == 3
        assert m.setdefault(1000, 5) == m[1000] == 5
        m.update({n: -n for n in range(50, 60)})
        m.popitem()
        assert len(m) == 98
        assert len(list(m)) == 98
        assert m.snapshot()[55] == -55
        m.clear()
        assert not m
        m["only"] = 1
        assert repr(m) == "TMap({'only': 1})"
        raise Never

    with pytest.raises(Never):
        body()
    assert m == before
    assert m.snapshot() == before


def test_nobody_sees_half_an_update():
    m = TMap()
    seen = []

    @atomically
    def body():
        m.update({n: n for n in range(300)})
        seen.append(elsewhere(lambda: len(m)))

    body()
    assert seen == [0]
    assert len(m) == 300


def test_an_update_that_fails_on_its_way_changes_nothing():
    m = TMap(a=1)

    def pairs():
        yield "a", 2
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        m.update(pairs())
    assert m == {"a": 1}


def test_update_reads_another_map_in_the_same_transaction():
    source, target = TMap(dict.fromkeys(range(100), 0)), TMap()
    first = Once()

    @atomically
    def body():
        target.update(source)
        if first:
            elsewhere(source.__setitem__, 5, 1)

    body()
    assert target[5] == 1


@pytest.mark.parametrize("keys", [range(1000), range(0, 64_000, 64), [f"key {n}" for n in range(1000)]])
def test_transactions_on_different_keys_seldom_conflict(keys):
    m = TMap.fromkeys(keys, 0)
    keys = list(keys)
    attempts = 0

    def body(mine, other):
        nonlocal attempts
        attempts += 1
        m[mine] += 1
        if other is not None:
            elsewhere(m.__setitem__, keys[other % 1000], -1)

    for n in range(200):
        first = Once()
        run(lambda: body(keys[n], 7 * n + 501 if first else None))
    assert attempts - 200 <= 0.07 * 200  # three are to be expected


def test_transactions_in_different_stripes_never_conflict():
    mine, other = strangers()
    m = TMap({mine: 0})
    attempts = []

    @atomically
    def body():
        attempts.append(1)
        m[mine] += 1
        elsewhere(m.__setitem__, other, 1)

    body()
    assert len(attempts) == 1
    assert m == {mine: 1, other: 1}


@pytest.mark.parametrize(
    "question",
    [
        lambda m, key: m.get(key),
        lambda m, key: key in m,
        lambda m, key: m.setdefault(key, "new"),
        lambda m, key: m.pop(key, None),
        lambda m, key: len(m),
        lambda m, key: list(m),
        lambda m, key: m.snapshot(),
        lambda m, key: bool(m),
        lambda m, key: m == {},
        lambda m, key: repr(m),
    ],
)
def test_what_a_transaction_asked_is_still_so_when_it_commits(question):
    m, other = TMap(), TVar(0)
    first = Once()
    attempts = []

    @atomically
    def body():
        attempts.append(1)
        question(m, 5)
        if first:
            elsewhere(m.__setitem__, 5, "elsewhere")
        other.value += 1

    body()
    assert len(attempts) == 2


def test_a_transaction_sees_one_moment_of_all_stripes():
    m = TMap(dict.fromkeys(range(STRIPES * 4), 0))
    first = Once()

    @atomically
    def body():
        one = m[0]
        if first:
            elsewhere(m.update, dict.fromkeys(range(STRIPES * 4), 1))
        values = {one, *m.values()}
        assert len(values) == 1
        return values

    assert body() == {1}


def test_a_transaction_can_wait_for_a_key():
    m = TMap()

    @atomically
    def wait():
        check("key" in m)
        return m["key"]

    background = Background(wait)
    asleep()
    m["key"] = "value"
    assert background.result() == "value"


def test_a_named_map_says_which_stripe_is_awaited():
    m = TMap.named("orders", {1: 2})
    assert m == {1: 2}
    with pytest.raises(TransactionTimeout, match=rf"orders\[stripe {stripe(9)}\]"):
        atomically(timeout=0.01)(lambda: check(9 in m))()


def test_a_read_only_transaction_reads_and_may_not_write():
    m = TMap(a=1)
    assert run(lambda: (m["a"], len(m), list(m)), read_only=True) == (1, 1, ["a"])
    with pytest.raises(ReadOnlyViolation):
        run(m.__setitem__, "a", 2, read_only=True)


# ---------------------------------------------------------------------------------------------- threads


def test_no_single_operation_is_lost_when_threads_meet_in_one_stripe():
    keys = neighbours(400)
    m = TMap()

    def put(mine):
        for key in mine:
            m[key] = key
            assert m.setdefault(key, None) == key

    together(lambda: put(keys[::2]), lambda: put(keys[1::2]))
    assert dict(m.items()) == {key: key for key in keys}

    def take(mine):
        for key in mine:
            assert m.pop(key) == key

    together(lambda: take(keys[::2]), lambda: take(keys[1::2]))
    assert m == {}


def meeting_writer(m, key):
    """A key whose first comparison lets another thread write to the stripe, between a look at it and the change."""
    first = Once()

    class Key:
        def __hash__(self):
            return hash(key)

        def __eq__(self, other):
            if first:
                elsewhere(m.__setitem__, neighbours(5)[-1], "theirs")
            return key == other

    return Key()


@pytest.mark.parametrize(
    "operation",
    [
        lambda m, key: m.__setitem__(key, "mine"),
        lambda m, key: m.__delitem__(key),
        lambda m, key: m.pop(key),
        lambda m, key: m.update({key: "mine"}),
    ],
)
def test_a_write_between_look_and_change_is_kept(operation):
    key, theirs = neighbours(5)[0], neighbours(5)[-1]
    m = TMap({key: "old"})
    operation(m, meeting_writer(m, key))
    assert m[theirs] == "theirs"
    assert m.get(key) in (None, "mine")


class Armed:
    """A key or element that lets another thread in, once, when it is next hashed."""

    meddle = None

    def __hash__(self):
        meddle, self.meddle = self.meddle, None
        if meddle is not None:
            elsewhere(meddle)
        return hash(neighbours(1)[0])


def test_popitem_keeps_what_is_written_between_look_and_change():
    key, theirs = Armed(), neighbours(5)[-1]
    m = TMap({key: 1})
    key.meddle = lambda: m.__setitem__(theirs, "theirs")
    taken = m.popitem()
    assert dict([taken, *m.items()]) == {key: 1, theirs: "theirs"}


def test_setdefault_keeps_what_is_written_between_look_and_change():
    theirs = neighbours(5)[-1]
    m = TMap({neighbours(1)[0]: 1})

    class Meddler:
        def __hash__(self):
            return hash(neighbours(1)[0])

        def __eq__(self, other):
            if first:
                elsewhere(m.__setitem__, theirs, "theirs")
            return self is other

    first, key = Once(), Meddler()
    assert m.setdefault(key, 2) == 2
    assert m == {neighbours(1)[0]: 1, theirs: "theirs", key: 2}


def test_update_with_another_map_is_of_one_moment_outside_a_transaction_too():
    key = Armed()
    source, target = TMap({key: 1, 5: 1}), TMap()
    key.meddle = lambda: source.update({key: 2, 5: 2})
    target.update(source)
    assert target == {key: 2, 5: 2}


def test_a_snapshot_is_of_one_moment_while_threads_write(quick_switches):
    m, over = TMap(dict.fromkeys(range(64), 0)), threading.Event()

    def move():
        n = 0
        while not over.is_set():
            n += 1
            run(lambda: (m.__setitem__(n % 64, m[n % 64] - n), m.__setitem__(-n * 7 % 64, m[-n * 7 % 64] + n)))

    mover = Background(move)
    try:
        for _ in range(500):
            assert sum(m.snapshot().values()) == sum(m.values()) == 0
    finally:
        over.set()
        mover.result()


def test_a_map_that_has_shrunk_is_made_of_few_leaves_again():
    m = TMap(dict.fromkeys(range(10_000), 0))
    for n in range(64, 10_000):
        del m[n]
    assert sum(isinstance(tree[1], dict) for tree in m.snapshot()._trees) >= STRIPES - 2


def test_setdefault_gives_all_threads_one_value():
    for n in range(50):
        m = TMap()
        one, two = together(lambda: m.setdefault(n, object()), lambda: m.setdefault(n, object()))
        assert one is two is m[n]


def test_popitem_gives_each_item_to_one_thread():
    m = TMap({n: -n for n in range(500)})

    def drain():
        taken = []
        while m:
            try:
                taken.append(m.popitem())
            except KeyError:
                break
        return taken

    one, two = together(drain, drain)
    assert sorted(one + two) == sorted((n, -n) for n in range(500))


def test_iteration_goes_through_one_moment():
    m = TMap({n: n for n in range(100)})
    iterators = [iter(m), iter(m.keys()), iter(m.values()), iter(m.items())]
    elsewhere(m.clear)
    m["new"] = 1
    seen = [list(one) for one in iterators]
    assert [len(one) for one in seen] == [100] * 4
    for key in m:
        m[key, "more"] = 1
    assert len(m) == 2


def test_a_transaction_that_iterates_ends_while_writers_are_busy():
    m = TMap(dict.fromkeys(range(300), 0))
    over = threading.Event()

    def write():
        n = 0
        while not over.is_set():
            n += 1
            m[n % 300] = n
        return n

    writer = Background(write)

    @atomically
    def copy_of():
        m["sum"] = sum(value for key, value in m.items() if key != "sum")
        return len(m)

    try:
        assert [copy_of() for _ in range(20)] == [301] * 20
    finally:
        over.set()
        writer.result()


# ---------------------------------------------------------------------------------------------- odd keys


def test_keys_that_cannot_be_hashed_or_compared_raise_their_own_errors_and_nothing_is_lost():
    class Bad:
        def __hash__(self):
            return hash(5)

        def __eq__(self, other):
            raise ZeroDivisionError

    m = TMap({5: 5})
    for operation in (m.get, m.pop, m.__delitem__, m.__contains__, m.setdefault, lambda key: m.__setitem__(key, 1)):
        with pytest.raises(ZeroDivisionError):
            operation(Bad())
        with pytest.raises(TypeError, match="unhashable"):
            operation([])
    assert m == {5: 5}


def test_keys_may_run_transactions():
    count = TVar(0)

    class Counting:
        def __hash__(self):
            return hash(5)

        def __eq__(self, other):
            count.update(lambda n: n + 1)
            return other == 5

    m = TMap({5: 5})
    m[Counting()] = 6
    assert m == {5: 6}
    assert count.value > 0
    run(lambda: m.__setitem__(Counting(), 7))
    assert m[5] == 7


# ---------------------------------------------------------------------------------------------- snapshots


def example():
    data = {n: f"value {n}" for n in range(300)} | {"name": "a", "deep": freeze({"x": [1, 2]})}
    return TMap(data).snapshot(), pmap(data)


def text(value):
    """What to compare: for mappings and iterators, what is in them."""
    if isinstance(value, PMap):
        return dict(value.items())
    if isinstance(value, (str, int, type(None))):
        return value
    return sorted(map(repr, value))


def changed(m):
    e = m.evolver()
    e[1] = "one"
    del e[2]
    e.set(3, "three").remove(4)
    parts = [
        e[1],
        len(e),
        2 in e,
        1 in e,
        e.is_dirty(),
        text(e.persistent()) == text(m.set(1, "one").remove(2).set(3, "three").remove(4)),
        e.is_dirty(),
    ]
    for wrong in (lambda: e[2], lambda: e.remove(2), lambda: e.__delitem__("no")):
        with pytest.raises(KeyError) as caught:
            wrong()
        parts.append(repr(caught.value.args))
    return parts


#: For each public method of a PMap, something that calls it.
CALLS = {
    "copy": lambda m: m.copy(),
    "discard": lambda m: [m.discard(1).get(1), m.discard("no") is m],
    "evolver": changed,
    "get": lambda m: [m.get(1), m.get("no"), m.get("no", 3)],
    "items": lambda m: [*m.items(), len(m.items()), (1, "value 1") in m.items(), (1, "no") in m.items()],
    "iteritems": lambda m: m.iteritems(),
    "iterkeys": lambda m: m.iterkeys(),
    "itervalues": lambda m: m.itervalues(),
    "keys": lambda m: [
        *m.keys(),
        len(m.keys()),
        1 in m,
        m.keys() == pset(list(m)),
        len(m.keys().add(-1)),
    ],
    "remove": lambda m: m.remove(1),
    "set": lambda m: m.set(1, 2).set("new", 3),
    "transform": lambda m: [m.transform(["deep", "x", ny], lambda n: n + 1)["deep"], m.transform([1], "one")[1]],
    "update": lambda m: m.update({1: 2}, pmap({3: 4}), m.set(5, 6)),
    "update_with": lambda m: m.update_with(lambda old, new: (old, new), {1: 2, "new": 3}),
    "values": lambda m: [*m.values(), len(m.values()), "value 7" in m.values(), "no" in m.values()],
    "__add__": lambda m: m + {1: 2},
    "__or__": lambda m: m | {1: 2},
    "__contains__": lambda m: [1 in m, "no" in m],
    "__getitem__": lambda m: [m[1], m["name"]],
    "__getattr__": lambda m: [m.name, m.deep, hasattr(m, "no")],
    "__iter__": lambda m: iter(m),
    "__len__": lambda m: len(m),
    "__hash__": lambda m: hash(m),
    "__eq__": lambda m: [m == dict(m), m == pmap(dict(m)), pmap(dict(m)) == m, m == m.set(1, 2), m == 5, dict(m) == m],
    "__ne__": lambda m: [m != dict(m), m != pmap(dict(m)), pmap(dict(m)) != m, m != m.set(1, 2), m != 5],
    "__repr__": lambda m: [repr(m)[:6], repr(m) == f"pmap({dict(m)})"],
    "__str__": lambda m: [str(m) == repr(m)],
    "__reduce__": lambda m: [type(pickle.loads(pickle.dumps(m))), pickle.loads(pickle.dumps(m)) == m],
}
REFUSED = {"__lt__": lambda m: m < m, "__gt__": lambda m: m > m, "__le__": lambda m: m <= m, "__ge__": lambda m: m >= m}
REFUSED |= {"__reversed__": reversed}


def test_every_method_of_pmap_is_tried():
    own = {name for name, value in vars(PMap).items() if callable(value) or isinstance(value, staticmethod)}
    public = {name for name in own if not name.startswith("_") or name.endswith("__")}
    assert public - {"__new__", "__init_subclass__", "__class_getitem__"} <= set(CALLS) | set(REFUSED)


@pytest.mark.parametrize("name", CALLS)
def test_a_snapshot_does_what_a_plain_pmap_does(name):
    ours, plain = example()
    assert isinstance(ours, PMap)
    assert text(CALLS[name](ours)) == text(CALLS[name](plain))
    assert ours == plain == ours.copy()  # and is as it was


@pytest.mark.parametrize("name", REFUSED)
def test_a_snapshot_refuses_what_a_plain_pmap_refuses(name):
    for one in example():
        with pytest.raises(TypeError):
            REFUSED[name](one)


def test_a_snapshot_stands_for_an_equal_plain_pmap():
    ours, plain = example()
    assert {plain: 1}[ours] == {ours: 1}[plain] == 1
    assert ours in pset([plain])
    assert plain in pset([ours])
    assert ours.set(1, 2) == plain.set(1, 2)
    assert ours._buckets is ours._buckets  # whatever reaches so far
    assert PMap(ours._size, ours._buckets) == plain


def test_a_snapshot_copies_nothing_and_never_changes():
    m = TMap({n: n for n in range(1000)})
    before = m.snapshot()
    assert all(ours is theirs for ours, theirs in zip(before._trees, m.snapshot()._trees, strict=True))
    m[5] = "changed"
    m.pop(6)
    after = m.snapshot()
    assert sum(ours is not theirs for ours, theirs in zip(before._trees, after._trees, strict=True)) <= 2
    assert before == {n: n for n in range(1000)}


# ---------------------------------------------------------------------------------------------- against a model

KEYS = st.integers(0, 40) | st.sampled_from(["a", "b", (), 1.0, True, *map(SameHash, range(40))])
OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["set", "del", "pop", "setdefault", "update", "clear", "get", "or", "copy"]), KEYS, KEYS),
    max_size=60,
)


def outcome(fn, *args):
    try:
        return fn(*args)
    except KeyError as error:
        return ("KeyError", error.args)


def apply(operations, m):
    """The results of the operations: for a `TMap` and for a `dict` they must be the same."""
    results = []
    for name, key, value in operations:
        if name == "set":
            m[key] = value
        elif name == "del":
            results.append(outcome(m.__delitem__, key))
        elif name == "pop":
            results.append(outcome(m.pop, key))
        elif name == "setdefault":
            results.append(m.setdefault(key, value))
        elif name == "update":
            m.update({key: value, value: key, ("big", key): 1} | dict.fromkeys(range(100, 180), key))
        elif name == "clear" and value == 0:
            m.clear()
        elif name == "or":
            results.append((m | {key: value}) == {**m, key: value})
        elif name == "copy":
            results.append(m.copy() == m)
        results.append((m.get(key), key in m, len(m), bool(m)))
    return results


class Undo(Exception):
    pass


@given(st.lists(st.tuples(st.sampled_from(["outside", "inside", "undone"]), OPERATIONS), max_size=6))
@settings(deadline=None, max_examples=120)
def test_it_behaves_as_a_dictionary_inside_and_outside_of_transactions(rounds):
    m, model = TMap(), {}
    for way, operations in rounds:
        if way == "undone":

            def body():
                assert apply(operations, m) == apply(operations, dict(model))
                raise Undo

            with pytest.raises(Undo):
                run(body)
        else:
            ours = run(apply, operations, m) if way == "inside" else apply(operations, m)
            assert ours == apply(operations, model)
        assert m == model
        assert m.snapshot() == model
        assert {key: type(key) for key in m} == {key: type(key) for key in model}
