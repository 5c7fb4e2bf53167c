"""The peers do the transfers that they are asked to do, and nothing that went wrong on the way passes for a figure.

No test here looks at how long anything took. What needs a real compiler is skipped where there is none.
"""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bench import peers
from bench.harness import InvariantError
from bench.peers import PeerError

SYSTEMS = [
    pytest.param(system, marks=pytest.mark.skipif(reason is not None, reason=reason or ""))
    for system, reason in peers.available().items()
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the programs are built, once for all tests."""
    return tmp_path_factory.mktemp("peers")


class TestRunning:
    @pytest.mark.parametrize("system", SYSTEMS)
    @pytest.mark.parametrize(("accounts", "threads"), [(2, 1), (16, 2), (1_000, 3)])
    def test_every_transfer_takes_place_exactly_once(
        self, directory: Path, system: str, accounts: int, threads: int
    ) -> None:
        transfers = peers.ROUTES + 17  # beyond the first round, and not to the end of the second
        outcome = peers.transfer(system, accounts, threads, transfers, directory)
        assert outcome.transfers == threads * transfers
        assert outcome.rate == outcome.transfers / outcome.seconds > 0

    @pytest.mark.parametrize("system", SYSTEMS)
    def test_the_environment_does_not_change_what_is_measured(
        self, directory: Path, system: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("GHCRTS", "--no-such-option")
        monkeypatch.setenv("ITM_DEFAULT_METHOD", "serial")
        peers.transfer(system, 16, 1, 10, directory)

    def test_routes_are_pairs_of_different_accounts_and_differ_between_threads(self) -> None:
        first, second = (list(peers.routes(16, thread)) for thread in range(2))
        assert len(first) == len(second) == peers.ROUTES
        assert all(source != target for source, target in first)
        assert {source for source, _ in first} == {target for _, target in first} == set(range(16))
        assert first != second

    @pytest.mark.parametrize("arguments", [(1, 1, 1), (2, 0, 1), (2, 1, 0)])
    def test_impossible_numbers_are_refused(self, directory: Path, arguments: tuple[int, int, int]) -> None:
        with pytest.raises(PeerError, match="are the least"):
            peers.transfer("gcc", *arguments, directory)

    def test_an_unknown_system_is_refused(self, directory: Path) -> None:
        with pytest.raises(PeerError, match="there are gcc, ghc"):
            peers.transfer("stm", 2, 1, 1, directory)


Impostor = Callable[[str], None]


@pytest.fixture
def impostor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Impostor:
    """Puts a shell script in the place of every peer's program."""

    def put(script: str) -> None:
        program = tmp_path / "impostor"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setattr(peers, "build", lambda directory, systems: dict.fromkeys(systems, program))

    return put


def report_of(**different: object) -> str:
    """A script that prints what a sound run of three transfers among two accounts would."""
    sound = {
        "system": "gcc",
        "accounts": 2,
        "threads": 1,
        "transfers": 3,
        "seconds": 0.5,
        "kept": True,
        "digest": peers.expected_digest(2, 1, 3),
    }
    return f"echo '{json.dumps({**sound, **different})}'"


class TestBrokenPeers:
    def test_a_sound_report_passes(self, impostor: Impostor) -> None:
        impostor(report_of())
        assert peers.transfer("gcc", 2, 1, 3).rate == 6.0

    @pytest.mark.parametrize(
        ("different", "message"),
        [({"kept": False}, "don't hold what they held"), ({"digest": 1}, "not exactly once")],
    )
    def test_a_broken_invariant_is_noticed(
        self, impostor: Impostor, different: dict[str, object], message: str
    ) -> None:
        impostor(report_of(**different))
        with pytest.raises(InvariantError, match=message):
            peers.transfer("gcc", 2, 1, 3)

    @pytest.mark.parametrize(
        ("script", "message"),
        [
            (report_of(transfers=2), "something else than it was asked"),
            (report_of(system="ghc"), "something else than it was asked"),
            ("echo '{}'", "something else than its figures"),
            ("echo fast", "something else than its figures"),
            ("echo out of luck >&2; exit 3", "status 3: out of luck"),
        ],
    )
    def test_a_run_that_went_wrong_is_no_figure(self, impostor: Impostor, script: str, message: str) -> None:
        impostor(script)
        with pytest.raises(PeerError, match=message):
            peers.transfer("gcc", 2, 1, 3)


class Compiler:
    """A shell script that passes for gcc, a source for it, and how often it has compiled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = folder / "transfer_gcc.c"
        self.source.write_text("first\n")
        self.script = folder / "gcc"
        self.announce("1.0")

    def announce(self, version: str, *, fails: bool = False) -> None:
        compile_it = f"echo x >> '{self.folder}/log'; cp transfer_gcc.c program"
        if fails:
            compile_it = "echo 'line 7: what is this?' >&2; exit 1"
        self.script.write_text(
            f'#!/bin/sh\ncase "$1" in --version) echo {version};; -Q) echo native;; *) {compile_it};; esac\n'
        )
        self.script.chmod(0o755)

    @property
    def compiled(self) -> int:
        return len((self.folder / "log").read_text().split())


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Compiler:
    folder = tmp_path / "compiler"
    folder.mkdir()
    made = Compiler(folder)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setitem(peers.PEERS, "gcc", replace(peers.PEERS["gcc"], source=made.source))
    return made


def build(directory: Path) -> str:
    """The built program's text: the impostor's programs are copies of its sources."""
    return peers.build(directory, ["gcc"])["gcc"].read_text()


class TestBuilding:
    def test_what_is_there_is_not_built_again(self, compiler: Compiler, tmp_path: Path) -> None:
        directory = tmp_path / "made" / "where" / "needed"
        assert build(directory) == build(directory) == "first\n"
        assert compiler.compiled == 1

    def test_a_changed_source_is_built_again(self, compiler: Compiler, tmp_path: Path) -> None:
        build(tmp_path / "built")
        compiler.source.write_text("second\n")
        assert build(tmp_path / "built") == "second\n"
        assert compiler.compiled == 2

    def test_another_version_of_the_compiler_builds_again(self, compiler: Compiler, tmp_path: Path) -> None:
        build(tmp_path / "built")
        compiler.announce("1.1")
        build(tmp_path / "built")
        assert compiler.compiled == 2

    def test_stale_programs_are_removed(self, compiler: Compiler, tmp_path: Path) -> None:
        build(tmp_path / "built")
        compiler.source.write_text("second\n")
        build(tmp_path / "built")
        assert len(list((tmp_path / "built").iterdir())) == 1

    def test_a_failure_shows_the_message_and_leaves_nothing(self, compiler: Compiler, tmp_path: Path) -> None:
        compiler.announce("1.0", fails=True)
        with pytest.raises(PeerError, match="Debian packages: gcc.*\nline 7: what is this"):
            build(tmp_path / "built")
        assert not list((tmp_path / "built").iterdir())

    @pytest.mark.parametrize("system", SYSTEMS)
    def test_a_real_compiler_points_at_the_error(
        self, system: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        peer = peers.PEERS[system]
        source = tmp_path / peer.source.name
        source.write_text(peer.source.read_text().replace("atomic", "atomik"))
        monkeypatch.setitem(peers.PEERS, system, replace(peer, source=source))
        with pytest.raises(PeerError, match=rf"can't compile {source.name}(.|\n)*{source.name}:\d+"):
            peers.build(tmp_path / "built", [system])

    @pytest.mark.parametrize(("system", "package"), [("gcc", "gcc"), ("ghc", "ghc libghc-stm-dev")])
    def test_a_missing_compiler_says_what_to_install(
        self, system: str, package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("PATH", "")
        reason = peers.available()[system]
        assert reason is not None
        assert reason.endswith(f"apt-get install {package}")
        with pytest.raises(PeerError, match=f"{system}: the compiler {system} is not there.*install {package}"):
            peers.build(tmp_path, [system])
