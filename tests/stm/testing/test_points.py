"""Promise 8 at each named point, for each kind of transaction that comes there; and that each point is where it says.

The kinds, and what is checked after each strike, are those of `tests/stm/test_interruption.py`, and some more. That one
strikes at every instruction; this one says by name where, in other threads too, and what happens there instead.
"""

import ast
import asyncio
import linecache
import subprocess
import sys
import threading
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import stm
from stm import (
    ReadOnlyViolation,
    TCounter,
    TMap,
    TPriorityQueue,
    TQueue,
    TSet,
    TVar,
    TVector,
    aio,
    atomically,
    check,
    in_transaction,
)
from stm.clock import clock
from stm.testing.injection import Injection, inject
from stm.testing.protocol import GENERATED, POINTS, Point, Site, find, points
from tests.injector import Bolt
from tests.stm.test_interruption import (
    Conflicting,
    Exchange,
    Five,
    Hooked,
    Irrevocable,
    Nested,
    NestedIrrevocable,
    One,
    ReadOnly,
    Scenario,
    Standalone,
    Timed,
    Two,
    UnderSnapshot,
    Waiting,
    Waking,
    check_after,
)
from tests.support import PATIENCE, Background, elsewhere, until


class Updating(Scenario):
    """By operations that are transactions themselves."""

    def body(self) -> None:
        for variable in self.variables:
            variable.update(lambda value: value + 1)


class Extending(Scenario):
    """Meets a variable newer than itself."""

    def prepare(self) -> None:
        self.other = TVar(0)

    def body(self) -> None:
        before = self.variables[0].value
        if not self.other.peek():
            elsewhere(self.other.set, 1)
        assert self.other.value == 1
        for variable in self.variables:
            variable.value = before + 1


class InVain(Waiting):
    """Waits in vain, for long enough to go to sleep."""

    options = {"timeout": 0.05}


class Woken(Scenario):
    """Waits until another thread commits."""

    def prepare(self) -> None:
        self.gate = TVar(0)
        self.over = threading.Event()
        self.partner = Background(self.wake)

    def wake(self) -> None:
        until(lambda: clock.sleepers or self.over.is_set())
        self.gate.set(1)

    def body(self) -> None:
        check(self.gate.value)
        super().body()

    def settle(self) -> None:
        self.over.set()
        self.partner.result()


class Awaited(Woken):
    """The same in an event loop."""

    def go(self) -> None:
        asyncio.run(aio.run(self.body, timeout=PATIENCE))


class Collections(Scenario):
    """Changes one of each kind, too."""

    def prepare(self) -> None:
        self.map: TMap[str, int] = TMap()
        self.set: TSet[int] = TSet()
        self.vector: TVector[int] = TVector()
        self.queue: TQueue[int] = TQueue()
        self.heap: TPriorityQueue[int] = TPriorityQueue()
        self.counter = TCounter()

    def body(self) -> None:
        super().body()
        number = self.variables[0].value
        self.map["count"] = number
        self.set.add(number)
        self.vector.append(number)
        self.queue.put(number)
        self.heap.put(number)
        self.counter.add(1)

    def settle(self) -> None:
        sizes = (
            len(self.set),
            len(self.vector),
            self.queue.qsize(),
            self.heap.qsize(),
            self.counter.value,
            self.map.get("count", 0),
        )
        assert set(sizes) == {self.variables[0].value}


KINDS: list[type[Scenario]] = [
    One,
    Two,
    Five,
    Standalone,
    Exchange,
    Updating,
    Timed,
    Irrevocable,
    ReadOnly,
    Nested,
    NestedIrrevocable,
    Hooked,
    Extending,
    Conflicting,
    InVain,
    Woken,
    Awaited,
    Waking,
    UnderSnapshot,
    Collections,
]

#: Where a body runs, so that what is called there joins its transaction.
JOINED = {
    *("read", "write", "extend", "extend.validate", "extend.move"),
    *("scope.enter", "scope.leave", "arrays.join", "arrays.extend"),
}

SITES = [(point.name, site) for point in POINTS.values() for site in point.sites]
IN_PYTHON = [name for name in POINTS if not name.startswith("arrays.")]
#: Where something can strike.
DIVISIBLE = [name for name in IN_PYTHON if not POINTS[name].indivisible]


def label(site: object) -> str:
    return f"{site.function}-{site.line}" if isinstance(site, Site) else str(site)


@cache
def passes(kind: type[Scenario], *more: str) -> dict[str, int]:
    """How often a scenario comes to each point that there is in Python (and to these)."""
    scenario = kind()
    scenario.prepare()
    with ExitStack() as stack:
        here = threading.get_ident()
        names = [*IN_PYTHON, *more]
        found = {name: stack.enter_context(inject(name, delay=0, times=None, thread=here)) for name in names}
        scenario.go()
    check_after(scenario)
    return {name: injection.struck for name, injection in found.items() if injection.struck}


def strikes(kind: type[Scenario], *more: str) -> list[tuple[str, int]]:
    """Each point where something can strike that a scenario comes to, and which time: the first and the last."""
    return [
        (name, after)
        for name, count in passes(kind, *more).items()
        if not POINTS[name].indivisible
        for after in sorted({0, count - 1})
    ]


# ----------------------------------------------------------------------------------------------- the table itself


@pytest.mark.parametrize(("name", "site"), SITES, ids=label)
def test_each_site_is_one_line_of_the_source(name, site):
    place = site.locate()
    text = linecache.getline(place.filename, place.line).strip()
    assert text.startswith(site.line)
    for code in place.codes:
        assert place.line in {line for _, _, line in code.co_lines()}
        assert code.co_filename == place.filename


def test_no_two_sites_are_the_same_line():
    places = [(place.filename, place.line) for name in POINTS for place in find(name).places]
    assert len(set(places)) == len(places) == len(SITES)


@pytest.mark.parametrize("name", [name for name in POINTS if name.endswith(".publish")])
def test_the_last_look_is_in_one_step_with_the_publication(name):
    for place in find(name).places:
        tree = ast.parse(Path(place.filename).read_text())
        (branch,) = (node for node in ast.walk(tree) if isinstance(node, ast.If) and node.lineno == place.line)
        assert "clock.now == now" in ast.unparse(branch.test)
        assert not any(isinstance(node, ast.Call) for node in ast.walk(branch.test))
        assert ast.unparse(branch.body[0]) == "in_one_call(steps)" or "clock.now = " in ast.unparse(branch.body[0])


@pytest.mark.parametrize(
    "site",
    [
        Site("stm.transaction", "store", "now = clock.later"),
        Site("stm.transaction", "commit", "now = clock.now"),  # there are two
        Site("stm.transaction", "commit", "now = clock.now", "acquire_politely()"),
        Site("stm.transaction", "commit", "first, second = writes", "second = writes"),
        Site("stm.transaction", "exchange_any", "if commit_any(cells", "return True"),
        Site("stm.quick", GENERATED, "tx.writes = tx.reads"),
        Site("stm.transaction", "Transaction", "while True"),
        Site("stm.transaction", "publish_all", "while True"),
        Site("stm.transaction", "publish", '"""`commit_any` under the lock'),
    ],
    ids=label,
)
def test_a_change_of_the_source_is_noticed(site):
    with pytest.raises(LookupError, match=r"has to follow|is not one that CPython tells of"):
        site.locate()


def test_each_site_is_passed_by_some_transaction():
    here = threading.current_thread()
    with ExitStack() as stack:
        found = {}
        for name, site in SITES:
            if name in IN_PYTHON:
                found[site] = stack.enter_context(Injection(Point(name, "", (site,)), 0.0, None, None, 0, here))
        for kind in KINDS:
            scenario = kind()
            scenario.prepare()
            scenario.go()
            scenario.settle()
    assert [label(site) for site, injection in found.items() if not injection.struck] == []


def test_points_says_what_each_is_and_find_knows_names_like_it():
    assert list(points()) == list(POINTS)
    assert all(points().values())
    assert find("wake").name == "wake"
    with pytest.raises(ValueError, match=r"no point 'commit\.publsh'; do you mean 'commit\.publish'"):
        find("commit.publsh")
    with pytest.raises(ValueError, match=r"stm\.testing\.points\(\) lists them"):
        find("qqq")
    with pytest.raises(TypeError, match="named by a string, not 3"):
        find(3)  # type: ignore[arg-type]


def test_who_injects_nothing_loads_nothing():
    program = "import sys, stm, stm.aio; sys.exit(any('stm.testing.' in name for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], cwd=Path(stm.__file__).parents[1]).returncode == 0


# ------------------------------------------------------------------------------------------------ what strikes


@pytest.mark.parametrize("kind", KINDS)
def test_an_exception_at_each_point_leaves_all_or_nothing_and_comes_out(kind):
    tried = strikes(kind)
    assert tried
    for name, after in tried:
        scenario = kind()
        scenario.prepare()
        bolt = Bolt(name)
        raised = None
        with inject(name, bolt, after=after, thread=threading.get_ident()) as injection:
            try:
                scenario.go()
            except Bolt as error:
                raised = error
        assert raised is (bolt if injection.struck else None), f"at {name}, after {after}"
        check_after(scenario)


@pytest.mark.parametrize("kind", KINDS)
def test_a_thread_that_dies_at_each_point_leaves_all_or_nothing(kind, capfd):
    for name, after in strikes(kind):
        scenario = kind()
        scenario.prepare()
        ended: list[str] = []

        def work() -> None:
            scenario.go()
            ended.append("well")

        thread = threading.Thread(target=work)
        with inject(name, die=True, after=after, thread=thread) as injection:
            thread.start()
            thread.join(PATIENCE)
        assert not thread.is_alive()
        assert ended == ["well"] * (not injection.struck), f"at {name}, after {after}"
        assert not clock.sleepers or kind is Waking
        assert not clock.snapshots or kind is UnderSnapshot
        check_after(scenario)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_called_at_each_point_joins_a_body_or_is_a_transaction_of_its_own(kind):
    """Where it is its own, it takes effect at once, whatever becomes of the transaction that it struck."""
    for name, after in strikes(kind):
        scenario = kind()
        scenario.prepare()
        heard = TVar(0)
        joined: list[bool] = []

        def handler() -> None:
            joined.append(in_transaction())
            try:
                heard.update(lambda value: value + 1)
            except ReadOnlyViolation:
                assert kind is ReadOnly
            if not in_transaction():
                assert elsewhere(heard.peek) == 1

        with inject(name, call=handler, after=after, thread=threading.get_ident()) as injection:
            scenario.go()
        assert joined == [name in JOINED] * injection.struck, f"at {name}, after {after}"
        if not any(joined):
            assert heard.value == injection.struck, f"at {name}, after {after}"
        check_after(scenario)


@pytest.mark.parametrize(
    "kind", [One, Two, Five, Timed, Irrevocable, Nested, Hooked, Conflicting, UnderSnapshot, Woken]
)
def test_a_handler_that_changes_what_a_commit_changes_is_not_overwritten(kind):
    """Nor does it overwrite: both have an effect, at whichever point it strikes."""
    for name, after in strikes(kind):
        if name in JOINED:
            continue
        scenario = kind()
        scenario.prepare()

        def handler() -> None:
            atomically(scenario.body if kind is One else lambda: Scenario.body(scenario))()

        with inject(name, call=handler, after=after, thread=threading.get_ident()) as injection:
            scenario.go()
        assert scenario.variables[0].peek() == 1 + injection.struck, f"at {name}, after {after}"
        if kind is not Hooked and kind is not UnderSnapshot:
            check_after(scenario)
        else:
            scenario.variables = [TVar(0)]
            if kind is UnderSnapshot:
                scenario.leave.set()
                scenario.reader.result()


def test_a_kind_passes_what_it_is_there_for():
    expected: dict[Any, set[str]] = {
        Extending: {"extend", "extend.validate", "extend.move"},
        InVain: {"wait", "wait.register", "wait.registered", "wait.asleep", "wait.woken"},
        Woken: {"wait", "wait.register", "wait.registered", "wait.asleep", "wait.woken"},
        Awaited: {"wait", "wait.register", "wait.registered", "wait.asleep", "wait.woken"},
        Waking: {"wake"},
        ReadOnly: {"snapshot.begin", "snapshot.end"},
        Irrevocable: {"exclusive.enter", "exclusive.entered", "exclusive.leave"},
        Nested: {"scope.enter", "scope.leave", "scope.undo"},
        Hooked: {"hooks.run", "backoff"},
        Standalone: {"store", "store.locked", "store.publish", "store.published", "store.released"},
        Two: {"begin", "read", "read.check", "write", "commit", "commit.locked", "commit.validated", "commit.publish"}
        | {"commit.published", "commit.released"},
    }
    for kind, names in expected.items():
        assert set(passes(kind)) >= names, kind.__name__
