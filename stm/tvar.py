"""`TVar`: a variable that transactions read and write.

Promises: inside a transaction `get` returns what the transaction wrote, else the value of the transaction's moment;
`set` is seen by nobody else before the commit. Outside, each operation is a small transaction of its own. Comparison
and hash go by identity, so a `TVar` may be a key; it may be referred to weakly; it can't be pickled or copied, because
the copy would be another variable.

The value must not be changed in place: put immutable values in (numbers, strings, tuples, frozen dataclasses,
pyrsistent's maps and vectors) and replace them.

Cost: about 0.1 µs to read and somewhat less to write inside a transaction; some 150 bytes of memory.

>>> from stm import TVar, atomically
>>> a, b = TVar(10), TVar(0, name="savings")
>>> @atomically
... def transfer(amount):
...     a.value -= amount
...     b.value += amount
>>> transfer(3); a.value, b.value
(7, 3)
>>> b.update(lambda value, rate: value * rate, 2), b.swap(1), b
(6, 6, <TVar 'savings' 1>)
"""

from __future__ import annotations

import reprlib
import time
from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, Concatenate, Generic, NoReturn, ParamSpec, TypeVar

from stm.clock import Cell, acquire, acquire_politely, clock, release, settled
from stm.errors import BlockedForever
from stm.execution import Options, transact
from stm.tally import missed
from stm.transaction import descriptor, exchange_any, exchange_within, here, store
from stm.waiting import Waiter, rouse, sleep, spin

T = TypeVar("T")
P = ParamSpec("P")

_PLAIN = Options(None, False, False, None)
_READ_ONLY = Options(None, True, False, "snapshot")
_cell_of = attrgetter("_cell")


class TVar(Generic[T]):
    """A transactional variable holding `value`. `name` is for error messages and reports alone."""

    __slots__ = ("__weakref__", "_cell", "_name", "_waiters")

    #: When the variable changes by itself (on `time.monotonic`), see `stm.after`.
    _due: ClassVar[float | None] = None

    _cell: Cell

    def __init__(self, value: T, *, name: str | None = None) -> None:
        self._name = name
        self._waiters: dict[Waiter, None] | None = None
        self._cell = (value, 0, None)

    def get(self) -> T:
        """The value. Inside a transaction this is recorded: the commit fails if it has changed by then."""
        try:
            tx = here.tx
        except AttributeError:
            tx = descriptor()
        writes = tx.writes
        if writes is None:
            cell = self._cell
            if cell[1] > clock.now:
                cell = settled(self)
            return cell[0]  # type: ignore[no-any-return]
        if self in writes:
            return writes[self]  # type: ignore[no-any-return]
        cell = self._cell
        if cell[1] > tx.rv:
            cell = tx.extend(self)
        tx.reads[self] = cell
        return cell[0]  # type: ignore[no-any-return]

    def set(self, value: T) -> None:
        """Replace the value: when the running transaction commits, or at once if there is none."""
        try:
            tx = here.tx
        except AttributeError:
            tx = descriptor()
        writes = tx.writes
        if writes is None:
            store(self, value)
            return
        if tx.scope is not None:
            tx.scope.note(writes, self)
        writes[self] = value

    if TYPE_CHECKING:

        @property
        def value(self) -> T: ...

        @value.setter
        def value(self, value: T) -> None: ...

    else:  # one call less than methods that call `get` and `set`
        value = property(get, set, doc="The value, read as by `get()` and assigned as by `set()`.")

    def update(self, f: Callable[Concatenate[T, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Replace the value by `f(value, *args)`, and return the new one. `f` may run more than once."""
        if not callable(f):
            raise TypeError(f"TVar.update() takes a function of the value, not {f!r}; use set() to assign a value")
        if descriptor().writes is None:
            return transact(_PLAIN, self.update, (f, *args), kwargs)  # type: ignore[no-any-return]
        while True:
            before = self.get()
            value = f(before, *args, **kwargs)
            if self.compare_and_set(before, value):  # else a signal handler or finalizer was here meanwhile
                return value

    def swap(self, value: T) -> T:
        """Replace the value, and return the old one."""
        if descriptor().writes is None:
            return transact(_PLAIN, self.swap, (value,), {})  # type: ignore[no-any-return]
        while True:
            old = self.get()
            if self.compare_and_set(old, value):
                return old

    def compare_and_set(self, before: T, after: T) -> bool:
        """Replace the value by `after` if it is the very object `before`, not merely an equal one. True if it was.

        Outside a transaction this is the cheapest way to derive a variable's new value from its old one: get, compute,
        compare and set, and start over if somebody else was quicker.

        >>> x = TVar((1, 2))
        >>> pair = x.get()
        >>> x.compare_and_set(pair, pair + (3,)), x.compare_and_set(pair, ()), x.get()
        (True, False, (1, 2, 3))
        """
        try:
            tx = here.tx
        except AttributeError:
            tx = descriptor()
        if tx.writes is not None:
            return exchange_within(tx, ((self, before, after),))
        # A transaction that reads and writes one variable, without what transactions keep for more: see `transaction`.
        answer = None
        try:
            if not acquire(False):
                acquire_politely()
            old = self._cell  # kept until the lock is free
            if old[0] is before:
                now = clock.now
                if self._waiters and clock.quiet:
                    rouse(self._waiters)
                version = now + 2
                cell = (after, version, None)
                if clock.now == now and clock.quiet and not self._waiters:
                    self._cell, clock.now = cell, version
                    answer = True
            else:
                answer = False
        except BaseException:
            try:
                release()
            except RuntimeError:
                pass
            raise
        release()
        if answer is None:
            answer = exchange_any(((self, before, after),))
        if not answer and clock.book is not None:
            missed(tx, self)
        return answer

    def await_change(self, before: T, *, timeout: float | None = None, park: bool = True) -> bool:
        """Wait until the value is not the very object `before` any more; False after so many seconds, if it still is.

        This is what `retry` does for a transaction that reads one variable, without the transaction: for who waits in
        a loop and has nothing else to decide. It spins for some microseconds where that has been worth while, and then
        sleeps; with `park=False`, it only spins. `BlockedForever` inside a transaction, which would have to end first.

        >>> x = TVar(0)
        >>> x.await_change(1), x.await_change(0, timeout=0.01)
        (True, False)
        """
        if descriptor().writes is not None:
            raise BlockedForever("await_change() in a transaction: use retry(), which ends the attempt before it waits")
        deadline = None
        if timeout is not None:
            limit = Options(timeout, False, False, None).timeout
            deadline = None if limit is None else time.monotonic() + limit
        while True:
            cell = self._cell
            if cell[1] > clock.now:
                cell = settled(self)
            if cell[0] is not before:
                return True
            if not park:
                return spin({self: cell})
            if not sleep({self: cell}, deadline, self._name):
                return False

    def peek(self) -> T:
        """The last committed value, even inside a transaction, and not recorded as a read: it may be out of date by
        the time of the commit, and next to other values it may be inconsistent.
        """
        cell = self._cell
        if cell[1] > clock.now:
            cell = settled(self)
        return cell[0]  # type: ignore[no-any-return]

    def _places(self) -> tuple[dict[Waiter, None]]:
        waiters = self._waiters
        if waiters is None:
            waiters = self._waiters = {}
        return (waiters,)

    def __repr__(self) -> str:
        name = "" if self._name is None else f" {self._name!r}"
        return f"<{type(self).__name__}{name} {reprlib.repr(self._cell[0])}>"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(
            f"{self!r} can't be pickled or copied: it is a place that threads of this process share, and a copy would "
            "be another place. Pickle its value (tvar.value, or stm.snapshot(...) of several) instead"
        )


class Timer(TVar[bool]):
    """A variable that turns true by itself. It needs no thread, and no commit: whoever reads it looks at the time.

    A transaction that finds the time come treats the variable as one that it has itself set to true, and never changes
    its mind in the same attempt. One that waits sleeps until `_due` at most.
    """

    __slots__ = ("_due",)

    def __init__(self, due: float) -> None:
        super().__init__(False, name="after")
        self._due: float = due  # type: ignore[misc]

    def get(self) -> bool:
        tx = descriptor()
        if tx.writes is None:
            return self.peek()
        if self not in tx.reads and self not in tx.writes and time.monotonic() >= self._due:
            tx.writes[self] = True
        return super().get()

    if not TYPE_CHECKING:
        value = property(get, TVar.set, doc="True once the time is up.")

    def compare_and_set(self, before: bool, after: bool) -> bool:
        if descriptor().writes is None:
            return transact(_PLAIN, self.compare_and_set, (before, after), {})  # type: ignore[no-any-return]
        return super().compare_and_set(before, after)

    def peek(self) -> bool:
        return time.monotonic() >= self._due or super().peek()

    def __repr__(self) -> str:
        return f"<after {max(0.0, self._due - time.monotonic()):.3g} s>"


def after(seconds: float) -> TVar[bool]:
    """A variable that is false now and turns true after so many seconds (a number, not negative).

    For transactions that wait for one thing or the other:

    >>> from stm import TVar, after, atomically, check
    >>> answer, late = TVar(None), after(0.01)
    >>> @atomically
    ... def wait():
    ...     check(answer.value is not None or late.value)
    ...     return answer.value or "too late"
    >>> wait()
    'too late'
    """
    limit = Options(seconds, False, False, None).timeout
    if limit is None:
        raise TypeError("after() takes a number of seconds, not None")
    return Timer(time.monotonic() + limit)


def exchange(*changes: tuple[TVar[Any], Any, Any]) -> bool:
    """Multi-word compare-and-set: with changes `(tvar, before, after)`, set each variable to its `after`, provided that
    each one's value is the very object `before`. True if they were, else nothing is done.

    This is one step also for a signal handler or a finalizer that uses the same variables: it comes before or after.
    So who computes new values from old ones, and may be interrupted by such code, gets, computes, exchanges, and starts
    over if that fails. `ValueError` if a variable is named twice.

    >>> from stm import TVar, exchange
    >>> x, y = TVar((1,)), TVar(())
    >>> one, none = x.get(), y.get()
    >>> exchange((x, one, none), (y, none, one)), exchange((x, one, (2,)), (y, one, ())), x.get(), y.get()
    (True, False, (), (1,))
    """
    tx = descriptor()
    return exchange_any(changes) if tx.writes is None else exchange_within(tx, changes)


def snapshot(*tvars: Any) -> tuple[Any, ...]:
    """The values of all these variables at one moment. Inside a transaction, what the transaction sees.

    Never aborts and never delays writers. A `TArray` may be among them, whose value is a NumPy array; what that costs
    is said there. `TypeError` if one is neither.

    >>> from stm import TVar, snapshot
    >>> snapshot(TVar(1), TVar(2))
    (1, 2)
    """
    special = False
    for tvar in tvars:
        if isinstance(tvar, TVar):
            special = special or tvar._due is not None
        elif clock.arrays is not None and isinstance(tvar, clock.arrays.array_type):
            special = True
        else:
            raise TypeError(f"snapshot() takes TVars and TArrays, not {tvar!r}")
    if descriptor().writes is not None:
        return _values(tvars)
    if not special:
        version = clock.now
        cells = list(map(_cell_of, tvars))
        if all(cell[1] <= version for cell in cells):  # nobody committed to them meanwhile, mostly
            return tuple(cell[0] for cell in cells)
    result: tuple[Any, ...] = transact(_READ_ONLY, _values, (tvars,), {})
    return result


def _values(variables: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(one.get() if isinstance(one, TVar) else one.to_numpy() for one in variables)
