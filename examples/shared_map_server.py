"""A key-value server: an event loop and threads share one `TMap`, and clients wait for a key to change.

    python -m examples.shared_map_server                    clients over TCP and threads without, all at one map
    python -m examples.shared_map_server --port 7000        serve until Ctrl-C; try it with: nc 127.0.0.1 7000

The problem
-----------
An asyncio server owns its data, as long as nobody else touches it. Let threads work on the same data, and each side
needs the other's locks: a thread must not wake a task but by `call_soon_threadsafe`, a task must not wait for a lock
of threads, and a client that wants to be told of a change needs a list of listeners, to be kept in step with the data
and with clients that vanish.

What it shows
-------------
- *One map.* The server's commands and the threads' functions are the same kind of thing: plain functions of a `TMap`,
  run by `await aio.run(...)` on the loop and by `run(...)` in a thread. What each does is atomic for all.
- *Waiting without polling.* `WAIT` is `check(map.get(key) != seen)`: the task sleeps until somebody, task or thread,
  commits a change of that key. There is no list of listeners. A client that hangs up cancels the task, and nothing is
  left of the wait.
- *No change is missed.* `WAIT key value` waits until the key's value is other than that, so a client that names the
  last value that it saw can't sleep through a change between two commands.
- *Stopping is one more thing to wait for.* A `TEvent`, set by any thread, ends the server: it takes no more clients,
  answers the commands that it has begun, and tells those who wait.

The protocol
------------
One command a line, one answer a line, in UTF-8; keys and values are words. What is asked wrongly gets `ERROR ...`.

    GET key                 VALUE value, or NONE
    MGET key...             VALUES value..., of one moment (`-` for none)
    SET key value           OK
    DEL key                 OK, or NONE
    INCR key [n]            VALUE n: the key's number (0 if there was none) and n (1 if not said)
    TRANSFER from to n      OK: n less there and n more here; ERROR if that has not so much
    WAIT key [value]        VALUE value, or NONE: as soon as it is other than that value (if not said, than now)
    QUIT                    BYE

What is checked: while clients and threads transfer, the total in every MGET; at the end that, all increments, and that
those who waited saw the last change. The program ends with code 1 if any of it is broken.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final, NoReturn

from stm import TEvent, TLatch, TMap, aio, check, run

Map = TMap[str, str]

LONGEST: Final = 10_000  # bytes of a line
GRACE: Final = 1.0  # seconds that clients have, when the server stops, to take their last answers


class WrongCommand(Exception):
    """What the client asked for can't be done, and why."""


# -------------------------------------------------------------------------------------- commands: functions of the map


def get(data: Map, key: str) -> str:
    return answer(data.get(key))


def mget(data: Map, *keys: str) -> str:
    return " ".join(["VALUES", *(data.get(key, "-") for key in keys)])


def put(data: Map, key: str, value: str) -> str:
    data[key] = value
    return "OK"


def delete(data: Map, key: str) -> str:
    return "NONE" if data.pop(key, None) is None else "OK"


def increment(data: Map, key: str, n: str = "1") -> str:
    data[key] = str(number_at(data, key) + whole_number(n))
    return answer(data[key])


def transfer(data: Map, source: str, target: str, n: str) -> str:
    amount = whole_number(n)
    if amount < 0:
        raise WrongCommand(f"{amount} can't be transferred: it is negative")
    if number_at(data, source) < amount:
        raise WrongCommand(f"{source} has {number_at(data, source)}, not {amount}")
    data[source] = str(number_at(data, source) - amount)
    data[target] = str(number_at(data, target) + amount)
    return "OK"


def changed(data: Map, key: str, seen: str | None) -> str:
    check(data.get(key) != seen)
    return get(data, key)


def answer(value: str | None) -> str:
    return "NONE" if value is None else f"VALUE {value}"


def number_at(data: Map, key: str) -> int:
    try:
        return int(data.get(key, "0"))
    except ValueError:
        raise WrongCommand(f"{key} is {data[key]}, not a whole number") from None


def whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise WrongCommand(f"{text} is not a whole number") from None


#: The function for each command, and the least and the most words that follow it.
COMMANDS: Final[dict[str, tuple[Callable[..., str], int, int]]] = {
    "GET": (get, 1, 1),
    "MGET": (mget, 1, 1000),
    "SET": (put, 2, 2),
    "DEL": (delete, 1, 1),
    "INCR": (increment, 1, 2),
    "TRANSFER": (transfer, 3, 3),
    "WAIT": (changed, 1, 2),
}


# ----------------------------------------------------------------------------------------------------------- the server


class Server:
    """Serves a map until `stopping` is set, which any thread may do."""

    _stop: asyncio.Task[bool]

    def __init__(self, data: Map) -> None:
        self.data = data
        self.stopping = TEvent(name="stopping")
        #: Opens when clients can connect, at `port`.
        self.started = TLatch(1, name="started")
        self.port = 0
        self._clients: set[asyncio.Task[None]] = set()

    async def serve(self, port: int = 0, host: str = "127.0.0.1") -> None:
        """Serve, at a free port if none is given. Returns once `stopping` is set and all clients have been told."""
        self._stop = asyncio.create_task(aio.run(self.stopping.wait))
        try:
            server = await asyncio.start_server(self._welcome, host, port, limit=LONGEST)
            self.port = server.sockets[0].getsockname()[1]
            self.started.count_down()
            try:
                await self._stop
            finally:
                server.close()
                if self._clients:
                    _, stuck = await asyncio.wait(self._clients, timeout=GRACE)
                    for client in stuck:
                        client.cancel()
                await server.wait_closed()
        finally:
            self._stop.cancel()

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            await self._converse(reader, writer)
        except ConnectionError:
            pass  # the client is gone
        except asyncio.CancelledError:
            writer.transport.abort()  # it does not take its answers, or the loop ends
        finally:
            self._clients.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer line by line, reading one line ahead: who hangs up is to be noticed while he waits."""
        line = asyncio.create_task(reader.readline())
        try:
            while True:
                await asyncio.wait({line, self._stop}, return_when=asyncio.FIRST_COMPLETED)
                if self._stop.done():
                    return
                try:
                    words = line.result().decode().split()
                except ValueError as error:  # too long, or not UTF-8
                    writer.write(f"ERROR {error}\n".encode())
                    return
                if not line.result() or words == ["QUIT"]:
                    writer.write(b"BYE\n" if words else b"")
                    return
                line = asyncio.create_task(reader.readline())
                reply = await self._reply(words, line)
                if reply is None:
                    return
                writer.write(f"{reply}\n".encode())
                await writer.drain()
        finally:
            line.cancel()
            await asyncio.wait({line})
            line.cancelled() or line.exception()  # it may have failed with the connection

    async def _reply(self, words: list[str], next_line: asyncio.Task[bytes]) -> str | None:
        """The answer to one command; None if the client hangs up before there is one."""
        name, *rest = words or ["an empty line"]
        command = COMMANDS.get(name)
        if command is None or not command[1] <= len(rest) <= command[2]:
            return f"ERROR {name} with {len(rest)} words after it is no command"
        try:
            if name == "WAIT":
                return await self._wait(next_line, *rest)
            return await aio.run(command[0], self.data, *rest)
        except (WrongCommand, ValueError) as wrong:  # a number may be too long for Python
            return f"ERROR {wrong}"

    async def _wait(self, next_line: asyncio.Task[bytes], key: str, *seen: str) -> str | None:
        before = seen[0] if seen else self.data.get(key)
        change = asyncio.create_task(aio.run(changed, self.data, key, before))
        waited_for = {change, self._stop, next_line}
        try:
            while not change.done():
                await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
                if self._stop.done():
                    return "ERROR the server stops"
                if next_line.done() and not change.done():
                    if next_line.exception() is not None or not next_line.result():
                        return None
                    waited_for.discard(next_line)  # the next command is here; its turn comes after this one's
            return change.result()
        finally:
            change.cancel()


# ---------------------------------------------------------------------------------------------------------- the clients


class Client:
    """A client's end, for use in an event loop: `async with Client(port) as client: await client.ask("GET", "x")`."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._address = host, port

    async def __aenter__(self) -> Client:
        self._reader, self._writer = await asyncio.open_connection(*self._address)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except ConnectionError:
            pass

    async def ask(self, *words: object) -> str:
        """Send a command, and return the answer. `ConnectionError` if there is none."""
        self._writer.write((" ".join(map(str, words)) + "\n").encode())
        await self._writer.drain()
        line = await self._reader.readline()
        if not line:
            raise ConnectionError("the server has closed the connection")
        return line.decode().rstrip("\n")


# ---------------------------------------------------------------------------------------------------------- the program

ACCOUNTS: Final = [f"account{number}" for number in range(10)]
EACH: Final = 100


async def trade(port: int, commands: int, seed: int) -> list[str]:
    """A client that transfers, counts, and looks at all accounts. What was wrong."""
    choose = random.Random(seed)
    wrong = []
    async with Client(port) as client:
        for _ in range(commands):
            source, target = choose.sample(ACCOUNTS, 2)
            reply = await client.ask("TRANSFER", source, target, choose.randint(1, 50))
            if reply != "OK" and not reply.startswith(f"ERROR {source} has "):
                wrong.append(f"a transfer was answered by {reply!r}")
            await client.ask("INCR", "done")
            balances = [int(value) for value in (await client.ask("MGET", *ACCOUNTS)).split()[1:]]
            if sum(balances) != EACH * len(ACCOUNTS) or min(balances) < 0:
                wrong.append(f"an MGET showed {balances}")
    return wrong


def trade_in_a_thread(data: Map, transfers: int, seed: int) -> None:
    """The same without the network."""
    choose = random.Random(seed)
    for _ in range(transfers):
        source, target = choose.sample(ACCOUNTS, 2)
        try:
            run(transfer, data, source, target, str(choose.randint(1, 50)))
        except WrongCommand:
            pass  # there was not so much
        run(increment, data, "done")


async def follow(port: int, last: int) -> list[int]:
    """A client that waits for `done` to change until it has reached `last`. What it saw."""
    seen: list[int] = []
    async with Client(port) as client:
        while not seen or seen[-1] < last:
            seen.append(int((await client.ask("WAIT", "done", *map(str, seen[-1:]))).split()[1]))
    return seen


async def demonstrate(clients: int, threads: int, commands: int, waiters: int) -> tuple[list[str], list[str]]:
    """Clients, waiting clients and threads together. What is to be told, and what was wrong."""
    data: Map = TMap(dict.fromkeys(ACCOUNTS, str(EACH)), done="0")
    server = Server(data)
    serving = asyncio.create_task(server.serve())
    await aio.run(server.started.wait)
    last = (clients + threads) * commands
    begun = time.perf_counter()
    try:
        async with asyncio.TaskGroup() as group:
            following = [group.create_task(follow(server.port, last)) for _ in range(waiters)]
            trading = [group.create_task(trade(server.port, commands, seed)) for seed in range(clients)]
            for seed in range(threads):
                group.create_task(asyncio.to_thread(trade_in_a_thread, data, commands, -1 - seed))
    finally:
        server.stopping.set()
        await serving
    seconds = time.perf_counter() - begun
    wrong = [each for task in trading for each in task.result()]
    seen = [task.result() for task in following]
    wrong += [f"one who waited for changes saw {numbers}" for numbers in seen if numbers != sorted(set(numbers))]
    total = sum(int(data[key]) for key in ACCOUNTS)
    if total != EACH * len(ACCOUNTS) or data["done"] != str(last):
        wrong.append(f"{total} in the accounts, not {EACH * len(ACCOUNTS)}; {data['done']} increments, not {last}")
    many, more, told_of = 3 * clients * commands, 2 * threads * commands, sum(map(len, seen))
    told = [
        f"{many:,} commands by {clients} clients, {more:,} transactions by {threads} threads, in {seconds:.2f} s",
        f"{waiters} clients waited for the counter, and were told of {told_of:,} changes, the last among them",
    ]
    return told, wrong


async def serve(port: int) -> None:
    """Serve until Ctrl-C."""
    server = Server(TMap())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, server.stopping.set)
    serving = asyncio.create_task(server.serve(port))
    starting = asyncio.create_task(aio.run(server.started.wait))
    await asyncio.wait({serving, starting}, return_when=asyncio.FIRST_COMPLETED)
    starting.cancel()
    if not serving.done():
        print(f"serving at 127.0.0.1 port {server.port}; Ctrl-C ends it", flush=True)
    await serving
    print(f"stopped, with {len(server.data):,} keys")


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")  # one line; argparse would put the usage before it


def whole(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"a whole number from {least} to {most:,}, not {text!r}")
        return int(text)

    return number


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="shared_map_server", description="An event loop and threads share one transactional map.")
    add = parser.add_argument
    add("--port", type=whole(0, 65535), default=None, metavar="N", help="serve at this port (0: any) until Ctrl-C")
    add("--clients", type=whole(1, 500), default=4, metavar="N", help="that trade (default: %(default)s)")
    add("--threads", type=whole(0, 30), default=2, metavar="N", help="that trade too (default: %(default)s)")
    add("--waiters", type=whole(0, 500), default=3, metavar="N", help="clients that wait (default: %(default)s)")
    add("--commands", type=whole(1, 10**6), default=300, metavar="N", help="transfers for each (default: %(default)s)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with these arguments (default: the command line's). Returns the exit code."""
    options = arguments(argv)
    try:
        if options.port is not None:
            asyncio.run(serve(options.port))
            return 0
        told, wrong = asyncio.run(demonstrate(options.clients, options.threads, options.commands, options.waiters))
    except OSError as error:
        print(f"shared_map_server: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("shared_map_server: interrupted", file=sys.stderr)
        return 130
    print("\n".join(told))
    for each in wrong[:5]:
        print(f"BROKEN: {each}")
    if not wrong:
        print("Every MGET showed the same total, and no increment was lost.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
