"""Cases of kcas (OCaml), `test/kcas_data/*.ml`: structures against plain models.

Its `*_test_stm.ml` draw calls and compare each result with a model's (QCheck-STM). Here hypothesis draws them, and each
run of calls is made three times: call by call, as one transaction, and as one that is discarded.
"""

from collections import deque
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stm import TCounter, TMap, TQueue, TVar, TVector, atomically, run
from stm.collections import Empty
from tests.linearizability import assert_linearizable, record

few = settings(max_examples=40, deadline=None)
numbers = st.integers(-3, 3)
keys = st.integers(0, 10)


class Undo(Exception):
    """What discards a transaction whose results are known."""


class Call(NamedTuple):
    """One kind of call: how it is made, what it means for the model, and how its arguments are drawn."""

    real: object
    model: object
    arguments: tuple = ()


def scripts(menu):
    return st.lists(st.sampled_from(list(menu)).flatmap(lambda name: st.tuples(st.just(name), *menu[name].arguments)))


def agrees(menu, make, model, contents, script):
    def play(thing):
        return [menu[name].real(thing, *args) for name, *args in script]

    def play_and_undo(thing):
        play(thing)
        raise Undo

    pattern = model()
    expected = [menu[name].model(pattern, *args) for name, *args in script]
    one_by_one, at_once, discarded = make(), make(), make()
    untouched = contents(discarded)
    assert play(one_by_one) == expected
    assert run(play, at_once) == expected
    with pytest.raises(Undo):
        run(play_and_undo, discarded)
    assert contents(one_by_one) == contents(at_once)
    assert contents(discarded) == untouched


def or_none(errors, fn, *args):
    try:
        return fn(*args)
    except errors:
        return None


# ------------------------------------------------------------------------------ drawn calls against models

QUEUE = {
    "push": Call(lambda q, x: q.put(x), lambda m, x: m.append(x), (numbers,)),
    "take_opt": Call(lambda q: or_none(Empty, q.get_nowait), lambda m: m.popleft() if m else None),
    "peek_opt": Call(lambda q: or_none(Empty, q.peek, False), lambda m: m[0] if m else None),
    "length": Call(lambda q: q.qsize(), len),
}


@few
@given(scripts(QUEUE))
def test_queue(script):
    """kcas, queue_test_stm.ml and two_stack_queue_test_stm.ml: push, take, peek and length."""
    agrees(QUEUE, TQueue, deque, TQueue.snapshot, script)


STACK = {
    "push": Call(lambda s, x: s.append(x), lambda m, x: m.append(x), (numbers,)),
    "pop_opt": Call(lambda s: or_none(IndexError, s.pop), lambda m: m.pop() if m else None),
    "top_opt": Call(lambda s: or_none(IndexError, s.__getitem__, -1), lambda m: m[-1] if m else None),
    "length": Call(len, len),
}


@few
@given(scripts(STACK))
def test_stack(script):
    """kcas, stack_test_stm.ml: a `TVector` is a stack at its right end."""
    agrees(STACK, TVector, list, list, script)


DEQUE = {
    "add_l": Call(lambda d, x: d.insert(0, x), lambda m, x: m.appendleft(x), (numbers,)),
    "add_r": Call(lambda d, x: d.append(x), lambda m, x: m.append(x), (numbers,)),
    "take_opt_l": Call(lambda d: or_none(IndexError, d.pop, 0), lambda m: m.popleft() if m else None),
    "take_opt_r": Call(lambda d: or_none(IndexError, d.pop), lambda m: m.pop() if m else None),
    "to_list_l": Call(list, list),
    "to_list_r": Call(lambda d: list(reversed(d)), lambda m: list(reversed(m))),
}


@few
@given(scripts(DEQUE))
def test_list_with_two_ends(script):
    """kcas, dllist_test_stm.ml and dllist_test.ml (add): a `TVector` has two ends too, if not at the same price."""
    agrees(DEQUE, TVector, deque, list, script)


TABLE = {
    "replace": Call(lambda t, k, v: t.update({k: v}), lambda m, k, v: m.update({k: v}), (keys, numbers)),
    "mem": Call(lambda t, k: k in t, lambda m, k: k in m, (keys,)),
    "find_opt": Call(lambda t, k: t.get(k), lambda m, k: m.get(k), (keys,)),
    "remove": Call(lambda t, k: t.pop(k, None), lambda m, k: m.pop(k, None), (keys,)),
    "clear": Call(lambda t: t.clear(), lambda m: m.clear()),
    "length": Call(len, len),
    "to_seq": Call(lambda t: sorted(t.items()), lambda m: sorted(m.items())),
    "fold": Call(lambda t: sum(t.values()), lambda m: sum(m.values())),
}


@few
@given(scripts(TABLE))
def test_hash_table(script):
    """kcas, hashtbl_test_stm.ml: add, membership, removal, clearing and length, over few keys so that they meet."""
    agrees(TABLE, TMap, dict, TMap.snapshot, script)


def _set(counter, value):
    counter.reset()
    counter.add(value)


ACCUMULATOR = {
    "incr": Call(lambda c: c.add(), lambda m: m.__setitem__(0, m[0] + 1)),
    "decr": Call(lambda c: c.add(-1), lambda m: m.__setitem__(0, m[0] - 1)),
    "get": Call(lambda c: c.value, lambda m: m[0]),
    "set": Call(lambda c, v: run(_set, c, v), lambda m, v: m.__setitem__(0, v), (st.integers(0, 99),)),
}


@few
@given(scripts(ACCUMULATOR))
def test_accumulator(script):
    """kcas, accumulator_test_stm.ml: a counter that is counted up and down, read, and set (reset and add, in one)."""
    agrees(ACCUMULATOR, TCounter, lambda: [0], TCounter.get, script)


class Ordered:
    """A map whose keys are kept in the order in which they came: two structures, one step."""

    def __init__(self):
        self.table, self.order = TMap(), TVar(())

    @atomically
    def add(self, key):
        if key in self.table:
            return False
        self.table[key] = True
        self.order.update(lambda order: (key, *order))
        return True

    @atomically
    def remove(self, key):
        if self.table.pop(key, None) is None:
            return False
        self.order.update(lambda order: tuple(one for one in order if one != key))
        return True

    @atomically
    def keys(self):
        assert set(self.order.get()) == set(self.table)
        return self.order.get()


def _add(order, key):
    return (False, order) if key in order else (True, (key, *order))


def _remove(order, key):
    return key in order, tuple(one for one in order if one != key)


@pytest.mark.parametrize("seed", range(8))
def test_hash_table_with_an_order(seed):
    """kcas, linearizable_chaining_example.ml. Threads add and remove keys; each history is explained by some order.

    There it takes idempotent operations that others help to complete; a transaction over both does the same.
    """
    both = Ordered()
    draw = [(seed * 7 + i * 5) % 9 for i in range(18)]
    menu = [("add", both.add, (n % 3,)) if n < 4 else ("remove", both.remove, (n % 3,)) for n in draw]
    menu[2::5] = [("keys", both.keys, ())] * len(menu[2::5])
    history = record([menu[:6], menu[6:12], menu[12:]])
    assert_linearizable(history, {"add": _add, "remove": _remove, "keys": lambda order: (order, order)}, ())
