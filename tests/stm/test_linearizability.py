"""Collections and synchronisers under threads: every history can be explained by calls one after the other."""

import random

import pytest

from stm import (
    TChannel,
    TCounter,
    TEvent,
    TLatch,
    TMap,
    TMVar,
    TPriorityQueue,
    TQueue,
    TSemaphore,
    TSet,
    TVector,
    atomically,
)
from stm.collections import Empty, Full, ShutDown
from tests.linearizability import Event, assert_linearizable, linearization, record

ROUNDS = 60
THREADS = 3
CALLS = 5


def check_histories(make, menu, models, state, rounds=ROUNDS, threads=THREADS, calls=CALLS):
    """`make()` gives functions by name; `menu(random, thread)` draws a call `(name, arguments)`."""
    for seed in range(rounds):
        draw = random.Random(seed)
        functions = make()
        drawn = [[menu(draw, thread) for _ in range(calls)] for thread in range(threads)]
        scripts = [[(name, functions[name], args) for name, args in script] for script in drawn]
        assert_linearizable(record(scripts), models, state)


# ---- the checker itself


def register(state, value):
    return None, value


REGISTER = {"write": register, "read": lambda state: (state, state)}


def test_the_checker_accepts_what_overlaps():
    history = [Event(0, 5, "write", (1,), None), Event(1, 2, "read", (), 0), Event(3, 4, "read", (), 1)]
    assert [event.name for event in linearization(history, REGISTER, 0)] == ["read", "write", "read"]


@pytest.mark.parametrize(
    "history",
    [
        pytest.param(
            [Event(0, 1, "write", (1,), None), Event(2, 3, "read", (), 0)],
            id="stale read",
        ),
        pytest.param(
            [Event(0, 9, "write", (1,), None), Event(1, 2, "read", (), 1), Event(3, 4, "read", (), 0)],
            id="new, then old",
        ),
        pytest.param([Event(0, 1, "read", (), True)], id="equal, but of another type"),
    ],
)
def test_the_checker_refuses(history):
    assert linearization(history, REGISTER, 0) is None
    with pytest.raises(AssertionError, match="no sequential order"):
        assert_linearizable(history, REGISTER, 0)


def test_the_checker_finds_a_lost_update():
    """Two that read, and then write what they read and one more, without a transaction."""
    from stm import TVar
    from tests.support import elsewhere

    x = TVar(0)

    def torn(other):
        seen = x.value
        if other is not None:
            elsewhere(other)
        x.value = seen + 1
        return seen + 1

    history = [Event(1, 2, "add", (), 1), Event(0, 3, "add", (), torn(lambda: torn(None)))]
    assert linearization(history, {"add": lambda state: (state + 1, state + 1)}, 0) is None


# ---- maps and sets


def the(mapping):
    return dict(mapping)


def map_models():
    def set_(state, key, value):
        return None, frozenset({**the(state), key: value}.items())

    def get(state, key):
        return the(state).get(key), state

    def pop(state, key):
        items = the(state)
        return items.pop(key, None), frozenset(items.items())

    def popitem(state):
        raise NotImplementedError

    def setdefault(state, key, value):
        items = the(state)
        return items.setdefault(key, value), frozenset(items.items())

    def delete(state, key):
        items = the(state)
        if key not in items:
            return KeyError, state
        del items[key]
        return None, frozenset(items.items())

    return {
        "set": set_,
        "get": get,
        "pop": pop,
        "setdefault": setdefault,
        "delete": delete,
        "len": lambda state: (len(state), state),
        "contains": lambda state, key: (key in the(state), state),
        "items": lambda state: (state, state),
        "snapshot": lambda state: (state, state),
        "clear": lambda state: (None, frozenset()),
        "exchange": lambda state, a, b: (None, _exchanged(state, a, b)),
    }


def _exchanged(state, a, b):
    items = the(state)
    first, second = items.get(a), items.get(b)
    return frozenset({**items, a: second, b: first}.items())


def test_map():
    def make():
        m = TMap()

        @atomically
        def exchange(a, b):
            first, second = m.get(a), m.get(b)
            m[a], m[b] = second, first

        return {
            "set": m.__setitem__,
            "get": m.get,
            "pop": lambda key: m.pop(key, None),
            "setdefault": m.setdefault,
            "delete": m.__delitem__,
            "len": lambda: len(m),
            "contains": lambda key: key in m,
            "items": lambda: frozenset(m.items()),
            "snapshot": lambda: frozenset(m.snapshot().items()),
            "clear": m.clear,
            "exchange": exchange,
        }

    def menu(draw, thread):
        name = draw.choice(list(map_models()))
        key = draw.randrange(3)
        if name in ("set", "setdefault"):
            return name, (key, draw.randrange(100))
        if name == "exchange":
            return name, (key, draw.randrange(3))
        return name, (key,) if name in ("get", "pop", "delete", "contains") else ()

    check_histories(make, menu, map_models(), frozenset())


def test_set():
    models = {
        "add": lambda state, one: (None, state | {one}),
        "discard": lambda state, one: (None, state - {one}),
        "remove": lambda state, one: (None, state - {one}) if one in state else (KeyError, state),
        "contains": lambda state, one: (one in state, state),
        "len": lambda state: (len(state), state),
        "snapshot": lambda state: (state, state),
        "symmetric_difference_update": lambda state, some: (None, state ^ some),
    }

    def make():
        s = TSet()
        return {
            "add": s.add,
            "discard": s.discard,
            "remove": s.remove,
            "contains": s.__contains__,
            "len": s.__len__,
            "snapshot": lambda: frozenset(s.snapshot()),
            "symmetric_difference_update": lambda some: s.__ixor__(some) is None or None,
        }

    def menu(draw, thread):
        name = draw.choice(list(models))
        if name in ("len", "snapshot"):
            return name, ()
        if name == "symmetric_difference_update":
            return name, (frozenset(draw.sample(range(4), 2)),)
        return name, (draw.randrange(4),)

    check_histories(make, menu, models, frozenset())


def test_vector():
    def pop(state):
        return (state[-1], state[:-1]) if state else (IndexError, state)

    def set_(state, index, value):
        if not -len(state) <= index < len(state):
            return IndexError, state
        items = list(state)
        items[index] = value
        return None, tuple(items)

    def insert(state, index, value):
        items = list(state)
        items.insert(index, value)
        return None, tuple(items)

    models = {
        "append": lambda state, one: (None, (*state, one)),
        "extend": lambda state, some: (None, state + some),
        "pop": pop,
        "insert": insert,
        "set": set_,
        "get": lambda state, index: (state[index] if index < len(state) else IndexError, state),
        "len": lambda state: (len(state), state),
        "reverse": lambda state: (None, state[::-1]),
        "snapshot": lambda state: (state, state),
    }

    def make():
        v = TVector()
        return {
            "append": v.append,
            "extend": v.extend,
            "pop": v.pop,
            "insert": v.insert,
            "set": v.__setitem__,
            "get": v.__getitem__,
            "len": v.__len__,
            "reverse": v.reverse,
            "snapshot": lambda: tuple(v.snapshot()),
        }

    def menu(draw, thread):
        name = draw.choice(list(models))
        one = draw.randrange(100)
        return name, {
            "append": (one,),
            "extend": ((one, one + 1),),
            "insert": (draw.randrange(3), one),
            "set": (draw.randrange(3), one),
            "get": (draw.randrange(3),),
        }.get(name, ())

    check_histories(make, menu, models, ())


# ---- queues


def queue_models(maxsize=0, order=lambda items: items):
    """A state is `(items, closed, unfinished)`."""

    def put_many(state, some):
        items, closed, unfinished = state
        if closed:
            return ShutDown, state
        if maxsize and len(some) > maxsize:
            return ValueError, state
        if maxsize and len(items) + len(some) > maxsize:
            return Full, state
        return None, (order((*items, *some)), closed, unfinished + len(some))

    def get_many(state, limit):
        items, closed, unfinished = state
        if not items:
            return (ShutDown if closed else Empty), state
        return list(items[:limit]), (items[limit:], closed, unfinished)

    def get(state):
        result, after = get_many(state, 1)
        return (result[0] if isinstance(result, list) else result), after

    def task_done(state):
        items, closed, unfinished = state
        return (None, (items, closed, unfinished - 1)) if unfinished else (ValueError, state)

    def shutdown(state, immediate):
        items, _, unfinished = state
        return None, ((), True, max(0, unfinished - len(items))) if immediate else (items, True, unfinished)

    return {
        "put": lambda state, one: put_many(state, (one,)),
        "put_many": put_many,
        "get": get,
        "get_many": get_many,
        "peek": lambda state: (get(state)[0], state),
        "qsize": lambda state: (len(state[0]), state),
        "full": lambda state: (0 < maxsize <= len(state[0]), state),
        "snapshot": lambda state: (state[0], state),
        "task_done": task_done,
        "unfinished": lambda state: (state[2], state),
        "shutdown": shutdown,
        "rotate": lambda state: _rotated(state, get, put_many),
    }


def _rotated(state, get, put_many):
    item, between = get(state)
    if isinstance(item, type):
        return item, state
    error, after = put_many(between, (item,))
    return (error, state) if error else (item, after)


def queue_functions(q):
    @atomically
    def rotate():
        item = q.get_nowait()
        q.put_nowait(item)
        return item

    return {
        "put": q.put_nowait,
        "put_many": lambda some: q.put_many(some, block=False),
        "get": q.get_nowait,
        "get_many": lambda limit: q.get_many(limit, block=False),
        "peek": lambda: q.peek(block=False),
        "qsize": q.qsize,
        "full": q.full,
        "snapshot": lambda: tuple(q.snapshot()),
        "task_done": q.task_done,
        "unfinished": lambda: q.unfinished_tasks,
        "shutdown": q.shutdown,
        "rotate": rotate,
    }


def queue_menu(weights):
    def menu(draw, thread):
        (name,) = draw.choices(list(weights), list(weights.values()))
        one = draw.randrange(1000)
        return name, {
            "put": (one,),
            "put_many": (tuple(range(one, one + draw.randrange(1, 4))),),
            "get_many": (draw.randrange(1, 4),),
            "shutdown": (draw.random() < 0.5,),
        }.get(name, ())

    return menu


QUEUES = {
    "put": 4,
    "put_many": 2,
    "get": 4,
    "get_many": 2,
    "peek": 1,
    "qsize": 1,
    "full": 1,
    "snapshot": 1,
    "rotate": 1,
}
WHOLE = {**QUEUES, "task_done": 3, "unfinished": 1, "shutdown": 0.5}


@pytest.mark.parametrize("maxsize", [0, 2])
@pytest.mark.parametrize("weights", [{"put": 1, "get": 1}, QUEUES, WHOLE], ids=["put and get", "most", "all"])
def test_queue(maxsize, weights):
    models = queue_models(maxsize)
    check_histories(lambda: queue_functions(TQueue(maxsize)), queue_menu(weights), models, ((), False, 0))


def test_queue_at_the_end_of_a_run(monkeypatch):
    """Where one list of items ends and the next begins, which is seldom otherwise."""
    from stm.collections import queue

    monkeypatch.setattr(queue, "LONGEST", 2)
    models = queue_models(0)
    check_histories(lambda: queue_functions(TQueue()), queue_menu(QUEUES), models, ((), False, 0), calls=6)


@pytest.mark.parametrize("maxsize", [0, 2])
def test_priority_queue(maxsize):
    models = queue_models(maxsize, order=lambda items: tuple(sorted(items)))
    check_histories(lambda: queue_functions(TPriorityQueue(maxsize)), queue_menu(WHOLE), models, ((), False, 0))


# ---- channels and counters


def test_channel():
    """A state is what was published, and how far each of two readers has come."""

    def get(state, reader):
        log, places = state
        if places[reader] == len(log):
            return Empty, state
        moved = tuple(place + (number == reader) for number, place in enumerate(places))
        return log[places[reader]], (log, moved)

    models = {
        "publish": lambda state, one: (None, ((*state[0], one), state[1])),
        "get": get,
        "empty": lambda state, reader: (state[1][reader] == len(state[0]), state),
    }

    def make():
        channel = TChannel()
        readers = [channel.subscribe(), channel.subscribe()]
        return {
            "publish": channel.publish,
            "get": lambda reader: readers[reader].get_nowait(),
            "empty": lambda reader: readers[reader].empty(),
        }

    def menu(draw, thread):
        (name,) = draw.choices(list(models), [3, 4, 1])
        return name, (draw.randrange(100),) if name == "publish" else (draw.randrange(2),)

    check_histories(make, menu, models, ((), (0, 0)))


def test_counter():
    models = {
        "add": lambda state, n: (None, state + n),
        "value": lambda state: (state, state),
        "reset": lambda state: (state, 0),
    }

    def make():
        counter = TCounter()
        return {
            "add": lambda n: counter.add(n) and None,
            "value": lambda: counter.value,
            "reset": counter.reset,
        }

    def menu(draw, thread):
        (name,) = draw.choices(list(models), [4, 3, 1])
        return name, (draw.randrange(1, 9),) if name == "add" else ()

    check_histories(make, menu, models, 0)


# ---- synchronisers


def test_semaphore():
    models = {
        "acquire": lambda state: (state > 0, max(0, state - 1)),
        "release": lambda state, n: (None, state + n),
        "value": lambda state: (state, state),
    }

    def make():
        s = TSemaphore(1)
        return {"acquire": lambda: s.acquire(blocking=False), "release": s.release, "value": lambda: s.value}

    def menu(draw, thread):
        (name,) = draw.choices(list(models), [4, 2, 1])
        return name, (draw.randrange(1, 3),) if name == "release" else ()

    check_histories(make, menu, models, 1)


def test_mvar():
    empty = ()
    models = {
        "try_put": lambda state, one: (True, (one,)) if state == empty else (False, state),
        "try_take": lambda state: (state[0], empty) if state else (None, state),
        "is_empty": lambda state: (state == empty, state),
    }

    def make():
        v = TMVar()
        return {"try_put": v.try_put, "try_take": v.try_take, "is_empty": v.is_empty}

    def menu(draw, thread):
        (name,) = draw.choices(list(models), [3, 3, 1])
        return name, (draw.randrange(100),) if name == "try_put" else ()

    check_histories(make, menu, models, empty)


def test_event_and_latch():
    def count_down(state):
        return None, (state[0], max(0, state[1] - 1))

    models = {
        "set": lambda state: (None, (True, state[1])),
        "clear": lambda state: (None, (False, state[1])),
        "is_set": lambda state: (state[0], state),
        "count_down": count_down,
        "count": lambda state: (state[1], state),
    }

    def make():
        event, latch = TEvent(), TLatch(4)
        return {
            "set": event.set,
            "clear": event.clear,
            "is_set": event.is_set,
            "count_down": latch.count_down,
            "count": lambda: latch.count,
        }

    check_histories(make, lambda draw, thread: (draw.choice(list(models)), ()), models, (False, 4))
