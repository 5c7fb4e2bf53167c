"""A task toolkit whose state is transactional, built on `stm`: a scheduler, ports and channels, timers; and background
workers over data sources.

Everything is described where it lives: `scheduler` (what is promised), `work`, `futures`, `worker`, `messages`,
`timers`, `monitor`, `policy` and `scaling`, `picture`, `errors`; `background`, and `global_background_worker`, which
are loaded when they are first used.

>>> from hive_task import Scheduler
>>> with Scheduler(workers=2) as scheduler:
...     sorted(scheduler.map(str.upper, "hive"))
['E', 'H', 'I', 'V']
"""

import importlib

from hive_task.errors import (
    ChannelOccupied,
    HiveTaskError,
    MessageError,
    PortAlreadyConnected,
    PortNotConnected,
    SchedulerClosed,
    UnpicklableWork,
    WorkerLost,
    WorkTimeout,
)
from hive_task.futures import Future
from hive_task.messages import (
    Channel,
    LocalChannel,
    LocalPort,
    Message,
    Port,
    SystemEvent,
    connect_port,
    disconnect_port,
    port_connected,
    receive_message,
    send_message,
)
from hive_task.picture import Picture
from hive_task.policy import Policy
from hive_task.scheduler import (
    Scheduler,
    make_scheduler,
    put_work,
    put_works,
    start_scheduler,
    stop_scheduler,
)
from hive_task.timers import Timer, make_timer, start_timer, stop_timer
from hive_task.work import Work, make_work
from hive_task.worker import CurrentWork, as_completed, blocking, current_work, wait

__all__ = [
    "Channel",
    "ChannelOccupied",
    "CurrentWork",
    "Future",
    "HiveTaskError",
    "LocalChannel",
    "LocalPort",
    "Message",
    "MessageError",
    "Picture",
    "Policy",
    "Port",
    "PortAlreadyConnected",
    "PortNotConnected",
    "Scheduler",
    "SchedulerClosed",
    "SystemEvent",
    "Timer",
    "UnpicklableWork",
    "Work",
    "WorkTimeout",
    "WorkerLost",
    "as_completed",
    "blocking",
    "connect_port",
    "current_work",
    "disconnect_port",
    "make_scheduler",
    "make_timer",
    "make_work",
    "port_connected",
    "put_work",
    "put_works",
    "receive_message",
    "send_message",
    "start_scheduler",
    "start_timer",
    "stop_scheduler",
    "stop_timer",
    "wait",
]


def __getattr__(name: str) -> object:
    if name in ("background", "global_background_worker"):
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
