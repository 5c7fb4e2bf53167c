"""Cases of ScalaSTM's `TMapSuite` and `TSetSuite` (nbronson/scala-stm), each for every collection that can have it.

Each docstring names the suite and the case; docs/field/scala-stm.md lists them all, and those that have no counterpart.
Where ScalaSTM's collections are copied by `clone`, ours are by `copy`, and their picture is `snapshot()`.
"""

import random
from decimal import Decimal

import pytest

from stm import TMap, TSet, TVar, TVector, atomically, or_else, retry, run, snapshot
from tests.support import elsewhere, together


class Boom(Exception):
    pass


class Kind:
    """How the cases handle a collection of whole numbers, whichever it is."""

    def __init__(self, make, add, contents):
        self.make, self.add, self.contents = make, add, contents


KINDS = {
    "TMap": Kind(
        lambda numbers: TMap.fromkeys(numbers, "x"),
        lambda place, numbers: place.update(dict.fromkeys(numbers, "x")),
        lambda place: set(dict(place)),
    ),
    "TSet": Kind(TSet, lambda place, numbers: place.update(numbers), set),
    "TVector": Kind(TVector, lambda place, numbers: place.extend(numbers), set),
}
each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
hashed = pytest.mark.parametrize("kind", [KINDS["TMap"], KINDS["TSet"]], ids=["TMap", "TSet"])
either_picture = pytest.mark.parametrize(
    "picture", [lambda place: place.copy(), lambda place: place.snapshot()], ids=["copy", "snapshot"]
)
at_depths = pytest.mark.parametrize("depth", [0, 1, 2])


def nested(depth, fn, *args):
    return run(nested, depth - 1, fn, *args) if depth else fn(*args)


# ----------------------------------------------------------------------------------------------- keys


@hashed
@at_depths
def test_equal_numbers_of_different_types_are_one_key(kind, depth):
    """scala-stm, TMapSuite and TSetSuite: number equality trickiness. In Python, `True`, 1.0 and Decimal(1) too."""
    for key in (1, 1.0, True, Decimal(1), 1 + 0j):
        place = kind.make([key])
        for other in (1, 1.0, True, Decimal(1), 1 + 0j):
            assert nested(depth, place.__contains__, other)
            nested(depth, kind.add, place, [other])
        assert len(place) == 1


@hashed
def test_letters_are_not_the_numbers_of_their_code(kind):
    """scala-stm, TMapSuite and TSetSuite: character equality trickiness. In Python they are different keys."""
    place = kind.make(["*"])
    assert ord("*") not in place
    assert b"*" not in place
    kind.add(place, [42, b"*"])
    assert len(place) == 3


class BadHash:
    def __init__(self, number):
        self.number = number

    def __hash__(self):
        return self.number // 5 if self.number > 100 else 0

    def __eq__(self, other):
        return self.number == other.number


@hashed
def test_a_poor_hash_function_costs_time_alone(kind):
    """scala-stm, TMapSuite and TSetSuite: correct despite poor hash function."""
    place = kind.make(BadHash(number) for number in range(200))
    answers = run(lambda: [BadHash(number) in place for number in range(-100, 300)])
    assert answers == [0 <= number < 200 for number in range(-100, 300)]


@at_depths
def test_none_is_a_key(depth):
    """scala-stm, TMapSuite: null key; TSetSuite: null entry."""
    place, elements = TMap({None: "abc", "def": "ghi"}), TSet(["abc", None])

    def body():
        assert (len(place), place[None], place.pop(None), len(place)) == (2, "abc", "abc", 1)
        assert place.setdefault(None, "jkl") == "jkl"
        assert place.get(None) == "jkl"
        assert None in elements
        elements.remove(None)
        assert None not in elements
        elements.add(None)

    nested(depth, body)
    assert dict(place) == {None: "jkl", "def": "ghi"}
    assert set(elements) == {"abc", None}


@at_depths
def test_none_is_a_value_that_is_there(depth):
    """scala-stm, TMapSuite: null value. It is told from a missing one by everything but `get`."""
    place = TMap(abc=None)

    def body():
        assert place.get("abc", "missing") is None
        assert place.setdefault("abc", 1) is None
        assert place.pop("abc", "missing") is None
        assert place.pop("abc", "missing") == "missing"
        place["jkl"] = None
        assert "jkl" in place

    nested(depth, body)
    assert place.snapshot() == {"jkl": None}


# ---------------------------------------------------------------------------------------- copies, pictures


@each_kind
@either_picture
def test_a_copy_has_what_was_written_before_it_in_the_transaction(kind, picture):
    """scala-stm, TMapSuite and TSetSuite: clone captures correct atomic writes."""
    place = kind.make(range(100))

    def body():
        kind.add(place, range(100, 200))
        copy = picture(place)
        kind.add(place, range(200, 300))
        return copy

    assert kind.contents(run(body)) == set(range(200))
    assert kind.contents(place) == set(range(300))


def add_and_retry(kind, place, numbers):
    kind.add(place, numbers)
    retry()


@each_kind
@either_picture
def test_a_copy_has_nothing_of_an_alternative_that_was_undone(kind, picture):
    """scala-stm, TMapSuite and TSetSuite: clone doesn't include discarded writes. Neither before it nor after."""
    place = kind.make(range(100))

    def body():
        or_else(lambda: add_and_retry(kind, place, range(100, 200)), lambda: kind.add(place, range(200, 300)))
        copy = picture(place)
        or_else(lambda: add_and_retry(kind, place, range(300, 400)), lambda: kind.add(place, range(400, 500)))
        return copy

    assert kind.contents(run(body)) == {*range(100), *range(200, 300)}
    assert kind.contents(place) == {*range(100), *range(200, 300), *range(400, 500)}


@each_kind
def test_a_copy_takes_part_in_the_transaction_itself(kind):
    """scala-stm, TMapSuite and TSetSuite: clone is transactional."""
    place = kind.make(range(100))

    def body():
        or_else(lambda: add_and_retry(kind, place, range(100, 105)), lambda: kind.add(place, range(200, 205)))
        copy = place.copy()
        or_else(lambda: add_and_retry(kind, copy, range(300, 305)), lambda: kind.add(copy, range(400, 405)))
        return copy

    assert kind.contents(run(body)) == {*range(100), *range(200, 205), *range(400, 405)}
    assert kind.contents(place) == {*range(100), *range(200, 205)}


@each_kind
@at_depths
def test_the_elements_of_a_snapshot(kind, depth):
    """scala-stm, TMapSuite and TSetSuite: view snapshot foreach, txn snapshot foreach."""
    assert sum(nested(depth, kind.make(range(100)).snapshot)) == 4950


@each_kind
def test_an_iterator_that_leaves_its_transaction(kind):
    """scala-stm, TMapSuite and TSetSuite: iterator crossing a txn boundary. It goes on through its own moment."""
    place = kind.make(range(37))
    iterator = run(lambda: iter(place))
    first = next(iterator)
    place.clear()
    assert {first, *iterator} == set(range(37))


@each_kind
@at_depths
def test_nothing_is_left_after_clear(kind, depth):
    """scala-stm, TMapSuite and TSetSuite: tmap/tset clear, view clear."""
    place = kind.make([1, 2])
    nested(depth, place.clear)
    assert (len(place), bool(place), list(place), kind.contents(place.snapshot())) == (0, False, [], set())


@each_kind
def test_nothing_is_left_after_many_removals(kind):
    """scala-stm, TMapSuite and TSetSuite: iterator after many removes. Half of them in transactions."""
    place = kind.make(range(2000))
    remove = place.__delitem__ if isinstance(place, TMap) else place.remove
    for number in range(1000):
        remove(number)
    run(lambda: [remove(number) for number in range(1000, 2000)])
    assert run(lambda: (len(place), list(place))) == (0, [])
    assert not place


@each_kind
def test_a_picture_for_the_debugger(kind):
    """scala-stm, TMapSuite and TSetSuite: TxnDebuggable. As Python shows collections; it makes no transaction fail."""
    name = next(name for name, one in KINDS.items() if one is kind)
    place = kind.make([7])
    assert name in repr(place)
    assert "7" in repr(place)
    assert name in repr(kind.make([]))
    assert run(lambda: (kind.add(place, [8]), "8" in repr(place))[1])
    assert isinstance(repr(kind.make(range(1000))), str)


def test_nobody_outside_sees_the_midst_of_a_transaction_that_took_a_snapshot():
    """scala-stm, TMapSuite: atomicity violation. Taking a picture shares structure, and yet gives nothing away."""
    place = TMap.fromkeys(range(200), "x")
    place[0] = "right"
    seen = []

    def body():
        place[0] = "wrong"
        seen.append(elsewhere(place.get, 0))
        mine = place.snapshot()
        seen.append(elsewhere(place.get, 0))
        place[0] = "right"
        return mine[0], place.copy()[0]

    assert run(body) == ("wrong", "right")
    assert seen == ["right", "right"]


# ------------------------------------------------------------------------------------------ at random


def step(rng, place, model, keys):
    """One random operation of a map and its model, which must answer alike."""
    key, value = rng.choice(keys), rng.randrange(1000)
    match rng.randrange(11):
        case 0:
            assert place.get(key) == model.get(key)
        case 1:
            place[key] = model[key] = value
        case 2:
            assert place.pop(key, None) == model.pop(key, None)
        case 3:
            assert (key in place) == (key in model)
        case 4:
            assert len(place) == len(model)
        case 5:
            assert dict(place.snapshot()) == model
        case 6:
            assert place.setdefault(key, value) == model.setdefault(key, value)
        case 7:
            more = {rng.choice(keys): rng.randrange(1000) for _ in range(3)}
            place.update(more)
            model.update(more)
        case 8:
            kept = {k: v for k, v in place.items() if v < value}
            place.clear()
            place.update(kept)
            model.update({k: v for k, v in model.items() if v < value})
            for k in [k for k, v in model.items() if v >= value]:
                del model[k]
        case 9:
            assert set(place) == set(model)
        case 10:
            for k, v in list(place.items()):
                place[k] = v + 1
            model.update({k: v + 1 for k, v in model.items()})


@pytest.mark.parametrize("seed", range(4))
def test_random_operations_agree_with_a_dict_in_and_out_of_transactions(seed):
    """scala-stm, TMapSuite: random sequential. Some steps run in a scope that is undone, and leave no trace."""
    rng = random.Random(seed)
    keys = [f"key{rng.getrandbits(rng.randrange(1, 30))}" for _ in range(60)]
    place, model = TMap(), {}

    def undone():
        for _ in range(3):
            step(rng, place, dict(place), keys)
        raise Boom

    for _ in range(400):
        match rng.randrange(4):
            case 0:
                step(rng, place, model, keys)
            case 1:
                nested(rng.randrange(1, 3), step, rng, place, model, keys)
            case 2:
                with pytest.raises(Boom):
                    nested(rng.randrange(1, 3), run, undone)
            case 3:
                place = nested(rng.randrange(3), rng.choice([TMap, TMap.copy]), place)
    assert dict(place) == model


@pytest.mark.parametrize("seed", range(4))
def test_random_operations_agree_with_a_set_in_and_out_of_transactions(seed):
    """scala-stm, TSetSuite: random sequential, more random sequential. Also set algebra, against other sets."""
    rng = random.Random(seed)
    place, model = TSet(), set()
    methods = ["add", "discard", "update", "difference_update", "symmetric_difference_update", "intersection_update"]
    for _ in range(400):
        method = rng.choice(methods[: 6 if rng.randrange(10) == 0 else 5])
        number = rng.randrange(50)
        argument = number if method in methods[:2] else {rng.randrange(50) for _ in range(4)}
        nested(rng.randrange(3), getattr(place, method), argument)
        getattr(model, method)(argument)
        assert nested(rng.randrange(3), place.__contains__, number) == (number in model)
        assert nested(rng.randrange(3), len, place) == len(model)
        if rng.randrange(20) == 0:
            place = nested(rng.randrange(3), rng.choice([TSet, TSet.copy]), place)
    assert set(place) == set(place.snapshot()) == model


def test_threads_that_put_and_remove_keep_a_count_that_agrees():
    """scala-stm, TMapSuite: contention. Single operations beside transactions; what is there is what was counted."""
    place, count = TMap(), TVar(0)

    @atomically
    def put_or_remove(keys):
        for key in keys:
            if place.pop(key, None) is None:
                place[key] = "x"
                count.value += 1
            else:
                count.value -= 1

    def work(seed):
        rng = random.Random(seed)
        for _ in range(100):
            if rng.randrange(2):
                put_or_remove([rng.randrange(64) for _ in range(8)])
            else:
                place.get(rng.randrange(64))
                assert run(lambda: len(place) == count.value)

    together(*(lambda seed=seed: work(seed) for seed in range(4)))
    assert (len(place.snapshot()),) == snapshot(count)
