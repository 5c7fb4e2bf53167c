"""The command `hive-task`: a table of commands, each in a module of its own.

It needs the extra `cli` (typer and rich); without, it says so and exits with code 1.
"""

import importlib.metadata
import platform
import sys
from typing import TYPE_CHECKING, Annotated

if TYPE_CHECKING:
    import typer

MISSING = 'hive-task needs what is missing here: pip install "hive-task[cli]"'


def main(arguments: list[str] | None = None) -> None:
    """Run a command, by default the one in `sys.argv`; always ends with `SystemExit`."""
    try:
        application = _application()
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] == __package__:
            raise
        print(f"{MISSING} ({missing.name})", file=sys.stderr)
        sys.exit(1)
    application(arguments, prog_name="hive-task")


def _application() -> "typer.Typer":
    import typer

    from hive_task.queue_command import queue
    from hive_task.top import top
    from hive_task.worker_command import worker

    application = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        help="Run background workers, and look at queues and at running programs that use hive_task.",
    )

    @application.callback()
    def common(
        version: Annotated[
            bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
        ] = False,
    ) -> None:
        pass

    application.command()(top)
    application.command()(worker)
    application.add_typer(queue, name="queue")
    return application


def _print_version(wanted: bool) -> None:
    if not wanted:
        return
    import typer

    try:
        version = importlib.metadata.version("hive-task")
    except importlib.metadata.PackageNotFoundError:
        version = "(not installed)"
    gil = "on" if getattr(sys, "_is_gil_enabled", lambda: True)() else "off"
    print(f"hive-task {version}, {platform.python_implementation()} {platform.python_version()}, GIL {gil}")
    raise typer.Exit


if __name__ == "__main__":
    main()
