"""Small programs of a few threads for the explorer: what the core must do right under every schedule."""

from functools import wraps

from stm import TVar, atomically, check, or_else, run


def increments():
    x = TVar(0, name="x")

    @atomically
    def increment():
        x.value += 1

    def outcome():
        assert x.get() == 2, x

    return [increment, increment], outcome


def transfer_and_reader():
    a, b = TVar(0, name="a"), TVar(0, name="b")
    seen = []

    @atomically
    def transfer():
        a.value += 1
        b.value += 1

    @atomically
    def read():
        seen.append((a.value, b.value))  # also in attempts that are thrown away

    def outcome():
        assert all(first == second for first, second in seen), f"an attempt saw two moments: {seen}"

    return [transfer, read], outcome


def ping():
    ball = TVar("ping", name="ball")

    @atomically
    def answer():
        check(ball.value == "pong")
        ball.value = "out"

    @atomically
    def serve():
        ball.value = "pong"

    @atomically
    def end():
        check(ball.value == "out")

    def player():
        serve()
        end()

    return [answer, player]


def left_reads():
    left, right = TVar(0, name="left"), TVar(0, name="right")

    def take(tvar):
        check(tvar.value)
        tvar.value -= 1

    def either():
        or_else(lambda: take(left), lambda: take(right))

    def outcome():
        assert (left.get(), right.get()) == (0, 0)

    return [lambda: run(either), lambda: left.set(1)], outcome


def snapshot_and_writer():
    a, b = TVar(0, name="a"), TVar(0, name="b")
    attempts = []

    @atomically
    def transfer():
        a.value += 1
        b.value += 1

    @atomically(read_only=True)
    def look():
        attempts.append(1)
        first, second = a.value, b.value
        assert first == second, "a snapshot of two moments"

    def outcome():
        assert len(attempts) == 1, "a snapshot was aborted"

    return [look, transfer], outcome


def irrevocable_and_writer():
    x = TVar(0, name="x")
    attempts = []

    @atomically(irrevocable=True)
    def once():
        attempts.append(1)
        x.value += 1

    @atomically
    def increment():
        x.value += 1

    def outcome():
        assert len(attempts) == 1
        assert x.get() == 2

    return [once, increment], outcome


def stores():
    x = TVar(0, name="x")

    def add():
        while True:
            before = x.get()
            if x.compare_and_set(before, before + 1):
                return

    def outcome():
        assert x.get() == 2

    return [add, add], outcome


def transfers():
    """Two that read and write the same two variables."""
    a, b = TVar(5, name="a"), TVar(0, name="b")

    @atomically
    def transfer():
        a.value -= 1
        b.value += 1

    def outcome():
        assert (a.get(), b.get()) == (3, 2)

    return [transfer, transfer], outcome


def skewed_writes():
    """Each reads what the other writes: one of them must see it."""
    a, b = TVar(0, name="a"), TVar(0, name="b")

    def copy(source, target):
        target.value = source.value + 1

    def outcome():
        assert (a.get(), b.get()) in ((1, 2), (2, 1))

    return [lambda: run(copy, a, b), lambda: run(copy, b, a)], outcome


def equal_values():
    """A variable that another has changed to an equal value has changed all the same."""
    x, y = TVar(1, name="x"), TVar("", name="y")
    seen = []

    @atomically
    def tell():
        y.value = repr(x.value)

    @atomically
    def change():
        seen[:] = [y.value]
        x.value = True

    def outcome():
        assert (seen, y.get()) in ((["1"], "1"), ([""], "True"))

    return [tell, change], outcome


def waits_for(write):
    """A program of one that waits until `write(a, b, c)` has set `b`, last or not."""

    @wraps(write)
    def program():
        a, b, c = (TVar(0, name=name) for name in "abc")
        return [lambda: run(lambda: check(b.value)), lambda: write(a, b, c)]

    return program


@waits_for
def waits_for_a_store(a, b, c):
    b.set(1)


@waits_for
def waits_for_an_exchange(a, b, c):
    b.compare_and_set(0, 1)


@waits_for
@atomically
def waits_for_one_of_two(a, b, c):
    a.value = b.value = 1


@waits_for
@atomically
def waits_for_one_of_three(a, b, c):
    a.value = b.value = c.value = 1


def snapshot_and(write):
    """A program of one that reads a variable twice in a snapshot, while `write` changes it."""

    @wraps(write)
    def program():
        x = TVar(0, name="x")

        @atomically(read_only=True)
        def look():
            assert x.value == x.value, "a snapshot of two moments"

        return [look, lambda: write(x)]

    return program


@snapshot_and
def snapshot_and_store(x):
    x.set(1)


@snapshot_and
def snapshot_and_exchange(x):
    x.compare_and_set(0, 1)


def irrevocable_and(write):
    """A program of one that must not be disturbed, and `write` that does not wait for it of its own accord."""

    @wraps(write)
    def program():
        x = TVar(0, name="x")
        attempts = []

        @atomically(irrevocable=True)
        def once():
            attempts.append(1)
            before = x.value
            assert x.value is before
            x.value = before + 1

        def outcome():
            assert len(attempts) == 1

        return [once, lambda: write(x)], outcome

    return program


@irrevocable_and
def irrevocable_and_store(x):
    x.set(7)


@irrevocable_and
def irrevocable_and_exchange(x):
    x.compare_and_set(0, 7)


def plain_reads():
    """Reads outside transactions see no half of a commit either."""
    a, b, c = (TVar(0, name=name) for name in "abc")

    @atomically
    def write():
        a.value = b.value = c.value = 1

    def read():
        first = a.get()
        last = c.get()
        assert last >= first, "the first is there, and then the last is not"

    return [write, read]


CORRECT = [
    increments,
    transfer_and_reader,
    transfers,
    skewed_writes,
    equal_values,
    ping,
    left_reads,
    waits_for_a_store,
    waits_for_an_exchange,
    waits_for_one_of_two,
    waits_for_one_of_three,
    snapshot_and_writer,
    snapshot_and_store,
    snapshot_and_exchange,
    irrevocable_and_writer,
    irrevocable_and_store,
    irrevocable_and_exchange,
    stores,
    plain_reads,
]
