"""`hive-task worker MODULE:APP`: run a background application in the foreground, as `foreground` promises it.

The module is imported, with the current directory first on the path, and with it the tasks that it defines. The
attribute is an `Application` that is not started, or a function without parameters that returns one.

Exit codes: 0 when it was stopped, 1 if that went wrong or the module raised, 2 for a wrong use, each told in one line;
130 or 143 after a second SIGINT or SIGTERM.
"""

from __future__ import annotations

import inspect
import logging
import os
import sys
import traceback
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hive_task.errors import HiveTaskError
from hive_task.foreground import FAILED, run_in_foreground
from hive_task.top_format import text

if TYPE_CHECKING:
    from hive_task.background import Application

WRONG_USE = 2

Level = Literal["debug", "info", "warning", "error", "critical"]

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class WrongTarget(Exception):
    """What was given names no application that could be run. The message says why."""


def worker(
    target: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:APP",
            help="The module to import, and in it an Application that is not started, or a function that returns one.",
        ),
    ],
    log_level: Annotated[
        Level | None,
        typer.Option(
            case_sensitive=False, help="How much to log, to stderr. By default info, or as the module has set it."
        ),
    ] = None,
    monitor: Annotated[
        str | None, typer.Option(metavar="PATH", help="Make a socket there, for hive-task top to look at.")
    ] = None,
) -> None:
    """Run background tasks until SIGTERM or Ctrl-C; these let running tasks end, a second one does not."""
    try:
        app = application_at(target)
        server = app.scheduler.serve_monitor(monitor) if monitor is not None else None
    except (WrongTarget, OSError, HiveTaskError) as error:
        print(f"hive-task worker: {text(_reason(error))}", file=sys.stderr)
        raise typer.Exit(WRONG_USE) from None
    set_up_logging(log_level)
    code = run_in_foreground(app, say, begun(app), server)
    try:
        app.data_source.close()
    except Exception:
        logging.getLogger(__name__).critical("%r could not be closed", app.data_source, exc_info=True)
        code = FAILED
    raise typer.Exit(code)


def begun(app: Application) -> str:
    workers, tasks = app.number_of_workers, len(app.registry)
    return (
        f"{app.name}: {workers} {'worker' if workers == 1 else 'workers'}, {app.data_source!r}, "
        f"{tasks} registered {'task' if tasks == 1 else 'tasks'}, pid {os.getpid()}"
    )


def say(line: str) -> None:
    """To stdout. That nobody reads it is no reason to end."""
    try:
        print(f"hive-task worker: {text(line)}", flush=True)
    except OSError:
        # What is left in the buffer would be a failure again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def set_up_logging(level: Level | None) -> None:
    """If the module has not done so."""
    root = logging.getLogger()
    if not root.handlers:
        logging.basicConfig(format=FORMAT, level=logging.INFO)
    if level is not None:
        root.setLevel(level.upper())


# Finding the application.


def application_at(target: str) -> Application:
    """The application that `module:attribute` names. `WrongTarget`; or, after its traceback was printed, `typer.Exit`
    if the module or the function raises."""
    from hive_task.background import Application

    module, found, attribute = target.partition(":")
    if not found or not _is_dotted(module) or not _is_dotted(attribute):
        raise WrongTarget(f"{target!r} is not MODULE:APP, such as shop.tasks:app")
    thing = _attribute(_import(module), attribute, target)
    if not isinstance(thing, Application):
        thing = _called(thing, target, Application)
    if (phase := thing.phase.peek()) != "new":
        print(f"hive-task worker: {target} was started already: it is {phase}", file=sys.stderr)
        thing.stop()  # else the interpreter would wait for its workers
        raise typer.Exit(WRONG_USE)
    return thing


def _is_dotted(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))


def _import(name: str) -> Any:
    sys.path.insert(0, os.getcwd())
    try:
        __import__(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise WrongTarget(f"there is no module {error.name!r} here or where Python looks for modules") from None
        raise _told(error) from None
    except Exception as error:
        raise _told(error) from None
    return sys.modules[name]


def _attribute(module: Any, path: str, target: str) -> Any:
    thing, so_far = module, target.partition(":")[0]
    for name in path.split("."):
        try:
            thing = getattr(thing, name)
        except AttributeError:
            raise WrongTarget(f"{so_far!r} has no attribute {name!r}") from None
        so_far = f"{so_far}.{name}"
    return thing


def _called(thing: Any, target: str, wanted: type[Application]) -> Application:
    """What the function returns."""
    if not callable(thing):
        raise WrongTarget(f"{target} is {_kind(thing)}, not an Application or a function that returns one")
    try:
        inspect.signature(thing).bind()
    except (TypeError, ValueError) as error:
        raise WrongTarget(f"{target} can't be called without arguments: {error}") from None
    try:
        made = thing()
    except Exception as error:
        raise _told(error) from None
    if isinstance(made, wanted):
        return made
    if inspect.iscoroutine(made):
        made.close()
    raise WrongTarget(f"{target}() returned {_kind(made)}, not an Application")


def _kind(thing: Any) -> str:
    return "None" if thing is None else f"an object of type {type(thing).__name__!r}"


def _told(error: Exception) -> typer.Exit:
    """An exception of the user's code is for him to see, from there on where his code begins."""
    own = error.__traceback__
    traceback.print_exception(type(error), error, own.tb_next if own is not None else None)
    return typer.Exit(1)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)
