"""stmx's tests, answered, second part: hooks, maps, vectors, objects."""

import random

import pytest

from stm import TMap, TVar, TVector, atomically, on_commit, run


class Failed(Exception):
    pass


# ---- hooks


def test_a_hook_that_fails_does_not_undo_the_commit():
    """stmx, on-commit.lisp: on-commit, after-commit-fails. The hook sees the new value, and its error reaches the
    caller. (There, hooks after it are not run; here they are.)
    """
    x, log = TVar("original"), []

    def fail():
        log.append(x.value)
        raise Failed

    @atomically
    def body():
        on_commit(fail)
        on_commit(lambda: log.append(x.peek()))
        x.value = "changed"
        log.append(x.peek())

    with pytest.raises(Failed):
        body()
    assert log == ["original", "changed", "changed"]
    assert x.value == "changed"


# ---- maps, vectors, objects


def test_a_map_is_rolled_back():
    """stmx, tmap.lisp: tmap-rollback. What was changed, added and taken out."""
    entries = TMap({1: "x", 2: "y"})
    copy = entries.copy()

    @atomically
    def body():
        entries.update({1: "z", 3: "w"})
        del entries[2]
        raise Failed

    with pytest.raises(Failed):
        body()
    assert entries == copy == {1: "x", 2: "y"}


@pytest.mark.parametrize("at_once", [False, True])
def test_a_map_does_what_a_dictionary_does(at_once):
    """stmx, tmap.lisp: tmap, tmap-atomic; thash-table.lisp: new-thash-table, thash-table. Random steps, each compared;
    one by one, and all in one transaction.
    """
    entries, model, choice = TMap(), {}, random.Random(4)
    assert not list(entries)

    def steps():
        for _ in range(300):
            key, value = choice.randrange(40), choice.random()
            if choice.random() < 0.4:
                assert entries.pop(key, None) == model.pop(key, None)
            else:
                entries[key] = model[key] = value
            assert (len(entries), entries.get(key)) == (len(model), model.get(key))
        assert dict(entries) == model
        return True

    assert run(steps) if at_once else steps()
    assert entries == model


@pytest.mark.parametrize("contents", [[0] * 10, [10] * 10, range(10)], ids=["zeros", "tens", "numbers"])
def test_a_vector(contents):
    """stmx, simple-tvector.lisp: new-simple-tvector, 2 and 3, svref-simple-tvector. Made, gone through, changed."""
    vector = TVector(contents)
    assert (len(vector), list(vector)) == (10, list(contents))
    for number in range(10):
        assert vector[number] == contents[number]
        vector[number] = -number
    assert [vector[number] for number in range(10)] == list(vector) == [-number for number in range(10)]


def test_an_object_with_variables_behind_its_attributes():
    """stmx, accessors.lisp: point-accessors. Written by attribute, read by attribute or variable, in a transaction."""

    class Point:
        def __init__(self, x, y):
            self._x, self._y = TVar(x), TVar(y)

        x = property(lambda self: self._x.value, lambda self, value: self._x.set(value))
        y = property(lambda self: self._y.value, lambda self, value: self._y.set(value))

    point = Point(1, 2)

    @atomically
    def move():
        point.x, point.y = point.x + 4, point.y + 4
        return point.x, point.y, point._x.value, point._y.value, point._x.peek()

    assert move() == (5, 6, 5, 6, 1)
