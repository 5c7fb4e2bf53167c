"""What can go wrong, all under `HiveTaskError`; where the standard library has a name for it, that too.

>>> issubclass(SchedulerClosed, RuntimeError), issubclass(WorkTimeout, TimeoutError)
(True, True)
"""


class HiveTaskError(Exception):
    """The common root."""


class SchedulerClosed(HiveTaskError, RuntimeError):
    """Work for a scheduler that is not running: never started, stopped, or left behind by `os.fork`."""


class UnpicklableWork(HiveTaskError, TypeError):
    """Work for a process, whose function or arguments can't be pickled. Raised by the call that submits it."""


class WorkTimeout(HiveTaskError, TimeoutError):
    """A work ran longer than its time limit."""


class WorkerLost(HiveTaskError):
    """The worker died, crashed or was killed while it ran the work; whether the work took effect is not known."""


class MessageError(HiveTaskError):
    """The common root of what ports and channels refuse."""


class ChannelOccupied(MessageError):
    """The channel has both its ports already."""


class PortAlreadyConnected(MessageError):
    """The port is connected, to this channel or another one."""


class PortNotConnected(MessageError):
    """The port is not connected to any channel."""


class BackgroundError(HiveTaskError):
    """The common root of what `hive_task.background` raises."""


class UnknownTask(BackgroundError, LookupError):
    """No function is registered under that name, or no task has that id. Raised by the call that named it."""


class UnserializableData(BackgroundError, TypeError):
    """The data of a task, or its result, can't be stored by its data source."""


class SourceError(BackgroundError):
    """A data source failed: the disk is full, the file is locked, read-only, corrupt, or no queue of ours. What it had
    acknowledged before is not lost by that; what it has now refused has not happened."""


class ApplicationStopped(BackgroundError, RuntimeError):
    """The background application is not running."""


class TaskFailed(BackgroundError):
    """The task that was waited for has failed for good. `failure` says how."""

    def __init__(self, message: str, failure: object = None) -> None:
        super().__init__(message)
        self.failure = failure


class TaskCancelled(BackgroundError):
    """The task that was waited for was cancelled; or, raised in a running task: somebody asked for its end."""
