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
