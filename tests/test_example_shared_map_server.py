"""`examples/shared_map_server.py`, over real sockets: right answers, waits that end, a stop that leaves nothing."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from examples import shared_map_server as program
from examples.shared_map_server import Server
from stm import TMap, atomically, run
from stm.clock import clock
from tests.support import PATIENCE, Background, Once, asleep, elsewhere, together, until

ROOT = Path(__file__).resolve().parent.parent

#: What sleeps while the server runs and nobody waits: the server itself, for the end.
IDLE = 1


class Caller:
    """A client that knows nothing of the program's own."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.lines = self.socket.makefile("r", encoding="utf-8", newline="\n")

    def send(self, text: str) -> None:
        self.socket.sendall(text.encode())

    def hear(self) -> str:
        """The next line; nothing if the server has hung up."""
        return self.lines.readline().rstrip("\n")

    def ask(self, command: str) -> str:
        self.send(command + "\n")
        return self.hear()

    def close(self) -> None:
        self.lines.close()
        self.socket.close()


class Site:
    """A server that runs in another thread, and those who called it."""

    def __init__(self) -> None:
        self.data: program.Map = TMap()
        self.server = Server(self.data)
        self.running = Background(lambda: asyncio.run(self.server.serve()))
        assert self.server.started.wait(PATIENCE)
        self.calls = ExitStack()

    def call(self) -> Caller:
        caller = Caller(self.server.port)
        self.calls.callback(caller.close)
        return caller

    def stop(self) -> None:
        self.server.stopping.set()
        self.running.result()


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    try:
        with site.calls:
            yield site
    finally:
        site.stop()


def test_each_command_has_its_answer(site: Site) -> None:
    caller = site.call()
    for command, answer in (
        ("GET x", "NONE"),
        ("SET x 5", "OK"),
        ("GET x", "VALUE 5"),
        ("INCR x", "VALUE 6"),
        ("INCR x -10", "VALUE -4"),
        ("INCR new", "VALUE 1"),
        ("MGET x none new", "VALUES -4 - 1"),
        ("DEL x", "OK"),
        ("DEL x", "NONE"),
        ("SET a 10", "OK"),
        ("TRANSFER a b 4", "OK"),
        ("TRANSFER a a 6", "OK"),
        ("MGET a b", "VALUES 6 4"),
        ("TRANSFER a b 7", "ERROR a has 6, not 7"),
        ("TRANSFER a b -7", "ERROR -7 can't be transferred: it is negative"),
        ("TRANSFER a b x", "ERROR x is not a whole number"),
        ("SET a many", "OK"),
        ("INCR a", "ERROR a is many, not a whole number"),
        ("MGET a b", "VALUES many 4"),
        ("WAIT a other", "VALUE many"),
        ("WAIT none other", "NONE"),
        ("SET kéy wért", "OK"),
        ("GET kéy", "VALUE wért"),
        ("GET", "ERROR GET with 0 words after it is no command"),
        ("SET x 1 2", "ERROR SET with 3 words after it is no command"),
        ("get x", "ERROR get with 1 words after it is no command"),
        ("", "ERROR an empty line with 0 words after it is no command"),
        ("QUIT", "BYE"),
    ):
        assert caller.ask(command) == answer, command
    assert caller.hear() == ""


def test_numbers_too_long_for_python_are_an_error_and_no_more(site: Site) -> None:
    caller = site.call()
    most = "9" * 4300
    assert caller.ask(f"INCR x {most}") == f"VALUE {most}"
    assert caller.ask("INCR x").startswith("ERROR Exceeds the limit (4300 digits)")
    assert caller.ask("GET x") == f"VALUE {most}"


@pytest.mark.parametrize(("line", "told"), [(b"\xff\xfe\n", "ERROR 'utf-8' codec"), (b"x" * 20_000, "ERROR ")])
def test_what_is_no_line_of_text_is_told_and_ends_the_connection(site: Site, line: bytes, told: str) -> None:
    caller = site.call()
    caller.socket.sendall(line)
    assert caller.hear().startswith(told)
    try:
        assert caller.hear() == ""
    except ConnectionResetError:
        pass  # the rest of what we sent was never read
    assert site.call().ask("GET x") == "NONE"


def by_a_thread(site: Site) -> None:
    site.data["x"] = "2"


def by_another_client(site: Site) -> None:
    assert site.call().ask("SET x 2") == "OK"


@pytest.mark.parametrize("change", [by_a_thread, by_another_client])
def test_a_change_wakes_who_waits_for_it(site: Site, change: Callable[[Site], None]) -> None:
    site.data["x"] = "1"
    callers = [site.call() for _ in range(3)]
    for caller in callers:
        caller.send("WAIT x\n")
    asleep(IDLE + 3)
    site.data["y"] = "7"
    change(site)
    assert [caller.hear() for caller in callers] == ["VALUE 2"] * 3
    asleep(IDLE)


def test_a_wait_for_a_key_to_come_and_to_go(site: Site) -> None:
    caller = site.call()
    caller.send("WAIT x\n")
    asleep(IDLE + 1)
    site.data["x"] = "1"
    assert caller.hear() == "VALUE 1"
    caller.send("WAIT x 1\n")
    asleep(IDLE + 1)
    del site.data["x"]
    assert caller.hear() == "NONE"


def test_who_names_what_he_saw_misses_no_change(site: Site) -> None:
    caller = site.call()
    numbers = range(1, 201)

    def count() -> None:
        for number in numbers:
            site.data["x"] = str(number)

    counting = Background(count)
    seen = ["none"]
    while seen[-1] != "VALUE 200":
        seen.append(caller.ask(f"WAIT x {seen[-1].split()[-1]}"))
        if seen[-1] == "NONE":  # it was not there yet
            seen.append(caller.ask("WAIT x"))
    counting.result()
    told = [int(answer.split()[1]) for answer in seen if answer.startswith("VALUE")]
    assert told == sorted(set(told))


def test_half_of_a_transaction_wakes_nobody(site: Site) -> None:
    caller = site.call()
    caller.send("WAIT x\n")
    asleep(IDLE + 1)

    @atomically
    def there_and_back() -> None:
        site.data["x"] = "1"
        del site.data["x"]

    there_and_back()
    with pytest.raises(ZeroDivisionError):
        run(lambda: (site.data.update(x="2"), 1 / 0))
    asleep(IDLE + 1)
    site.data["x"] = "3"
    assert caller.hear() == "VALUE 3"


def test_commands_sent_meanwhile_are_answered_after_the_wait_in_order(site: Site) -> None:
    caller = site.call()
    caller.send("WAIT x\nINCR n\nINCR n\n")
    asleep(IDLE + 1)
    site.data["x"] = "1"
    assert [caller.hear() for _ in range(3)] == ["VALUE 1", "VALUE 1", "VALUE 2"]


def test_a_client_that_hangs_up_leaves_no_wait_behind(site: Site) -> None:
    for _ in range(5):
        site.call().send("WAIT x\n")
    asleep(IDLE + 5)
    site.calls.close()
    asleep(IDLE)
    until(lambda: not site.server._clients, "the end of the conversations")


def test_clients_and_threads_at_one_map(site: Site) -> None:
    names = program.ACCOUNTS
    site.data.update(dict.fromkeys(names, "100"))

    def client(seed: int) -> None:
        choose, caller = random.Random(seed), site.call()
        for _ in range(60):
            source, target = choose.sample(names, 2)
            assert caller.ask(f"TRANSFER {source} {target} {choose.randint(1, 20)}")[:5] in ("OK", "ERROR")
            balances = list(map(int, caller.ask(f"MGET {' '.join(names)}").split()[1:]))
            assert sum(balances) == 1000
            assert min(balances) >= 0
            caller.ask("INCR done")

    together(
        lambda: client(1),
        lambda: client(2),
        lambda: client(3),
        lambda: program.trade_in_a_thread(site.data, 200, 4),
        lambda: program.trade_in_a_thread(site.data, 200, 5),
    )
    assert site.data["done"] == str(3 * 60 + 2 * 200)


def test_a_command_is_one_transaction(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    honest, first = program.number_at, Once()

    def number_at(data: program.Map, key: str) -> int:
        number = honest(data, key)
        if first:
            elsewhere(data.__setitem__, "a", "3")
        return number

    monkeypatch.setattr(program, "number_at", number_at)
    site.data["a"] = "10"
    assert site.call().ask("TRANSFER a b 4") == "ERROR a has 3, not 4"
    assert site.data == {"a": "3"}


def test_a_client_that_never_ceases_to_ask_does_not_hold_up_the_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "GRACE", PATIENCE)
    site = Site()
    with site.calls:
        caller = site.call()

        def ask() -> None:
            try:
                while True:
                    caller.send("INCR x\n" * 50)
            except ConnectionError:
                pass

        asking = Background(ask)
        for _ in range(100):
            caller.hear()
        hearing = Background(lambda: sum(1 for _ in iter(caller.hear, "")))
        site.stop()
        asking.result()
        try:
            hearing.result()
        except ConnectionError:
            pass  # some of what we sent was never read


def test_a_stop_tells_those_who_wait_and_ends_all_conversations() -> None:
    site = Site()
    with site.calls:
        waiting, silent = site.call(), site.call()
        waiting.send("WAIT x\n")
        assert silent.ask("GET x") == "NONE"
        asleep(IDLE + 1)
        site.stop()
        assert [waiting.hear(), waiting.hear(), silent.hear()] == ["ERROR the server stops", "", ""]
        with pytest.raises(ConnectionRefusedError):
            Caller(site.server.port)
    assert not clock.sleepers


def test_a_client_that_takes_no_answers_does_not_hold_up_the_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "GRACE", 0.05)
    site = Site()
    with site.calls:
        deaf = site.call()
        site.data["x"] = "y" * 9000
        deaf.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            while True:  # until nothing more goes either way
                deaf.send("GET x\n" * 1000)
        site.stop()


def test_two_servers_of_one_map_and_a_port_that_is_taken(site: Site) -> None:
    with pytest.raises(OSError, match="address already in use"):
        asyncio.run(Server(site.data).serve(site.server.port))
    other = Server(site.data)
    running = Background(lambda: asyncio.run(other.serve()))
    assert other.started.wait(PATIENCE)
    one, two = site.call(), Caller(other.port)
    one.send("WAIT x\n")
    asleep(IDLE + 2)
    assert two.ask("SET x 1") == "OK"
    assert one.hear() == "VALUE 1"
    two.close()
    other.stopping.set()
    running.result()


def test_the_demonstration() -> None:
    told, wrong = asyncio.run(program.demonstrate(clients=3, threads=2, commands=20, waiters=2))
    assert wrong == []
    assert told[0].startswith("180 commands by 3 clients, 80 transactions by 2 threads, in ")


def test_what_is_broken_is_printed_and_ends_with_code_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = program.transfer

    def leaky(data: program.Map, source: str, target: str, n: str) -> str:
        reply = honest(data, source, target, n)
        program.increment(data, target, "-1")
        return reply

    monkeypatch.setitem(program.COMMANDS, "TRANSFER", (leaky, 3, 3))
    assert program.main(["--clients", "1", "--threads", "0", "--waiters", "0", "--commands", "3"]) == 1
    assert "BROKEN: an MGET showed [" in capsys.readouterr().out


def test_a_port_that_is_taken_is_told_with_code_2(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--port", str(site.server.port)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("shared_map_server: [Errno ")


def test_ctrl_c_ends_the_server_in_good_order() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # or a child might inherit "ignore"
    try:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "examples.shared_map_server", "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        assert process.stdout is not None
        line = process.stdout.readline()
        caller = Caller(int(line.split("port ")[1].split(";")[0]))
        assert caller.ask("SET x 1") == "OK"
        caller.send("WAIT x\n")
        process.send_signal(signal.SIGINT)
        assert caller.hear() in ("ERROR the server stops", "")  # it may not have begun with the command
        out, err = process.communicate(timeout=60)
        caller.close()
    assert (process.returncode, out, err) == (0, "stopped, with 1 keys\n", "")
