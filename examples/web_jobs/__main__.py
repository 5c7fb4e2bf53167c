"""The command line of the example; see the package."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from hive_task.background import Application, SQLiteQueue
from hive_task.background.tasks import ENDED
from hive_task.errors import SourceError
from stm import TEvent

try:
    import uvicorn

    from examples.web_jobs.jobs import Jobs, registry
    from examples.web_jobs.service import make_service
except ModuleNotFoundError as missing:
    if (missing.name or "").partition(".")[0] not in ("starlette", "uvicorn"):
        raise
    sys.exit('web_jobs needs starlette and uvicorn: pip install "hive-task[web]"')


class Server(uvicorn.Server):
    """Ends by Ctrl-C or SIGTERM, once: no handler of ours is followed by one that kills before all is put away."""

    def __init__(self, config: uvicorn.Config, stopping: TEvent) -> None:
        super().__init__(config)
        self._stopping = stopping

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.stop)
        yield

    def stop(self) -> None:
        if not self.should_exit:
            print("stopping: what is being rendered will end", flush=True)
        self._stopping.set()
        self.should_exit = True


def serve(listener: socket.socket, source: SQLiteQueue, workers: int) -> None:
    """Serve until Ctrl-C."""
    # With a GIL, a thread that renders gives it away after 5 ms, if nothing else is said; and a request asks for it a
    # hundred times. (Cancelling a job that is being rendered took 3 s, and takes 0.2.)
    sys.setswitchinterval(0.0005)
    app = Application(source, workers, name="web_jobs", registry=registry)
    stopping = TEvent(name="stopping")
    config = uvicorn.Config(
        make_service(Jobs(app), stopping),
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="on",
        log_level="warning",
        timeout_graceful_shutdown=5,
    )
    asyncio.run(Server(config, stopping).serve(sockets=[listener]))


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
    parser = Parser(prog="web_jobs", description="A web service that leaves its work to background workers.")
    add = parser.add_argument
    add("--port", type=whole(0, 65535), default=8000, metavar="N", help="0: any that is free (default: %(default)s)")
    add("--database", default="jobs.sqlite", metavar="FILE", help="where the jobs are kept (default: %(default)s)")
    add("--workers", type=whole(1, 100), default=2, metavar="N", help="that render (default: %(default)s)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with these arguments (default: the command line's). Returns the exit code."""
    options = arguments(argv)
    try:
        with socket.create_server(("127.0.0.1", options.port)) as listener:
            source = SQLiteQueue(options.database)
            try:
                port = listener.getsockname()[1]
                print(f"serving at http://127.0.0.1:{port} from {options.database}; Ctrl-C ends it", flush=True)
                serve(listener, source, options.workers)
                counts = source.count_tasks().values()
                left = sum(many for states in counts for state, many in states.items() if state not in ENDED)
            finally:
                source.close()
    except (OSError, SourceError) as error:
        print(f"web_jobs: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # before the server was there, or after
        print("web_jobs: interrupted", file=sys.stderr)
        return 130
    print(f"stopped; {left:,} tasks wait in {options.database} for the next start" if left else "stopped; all is done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
