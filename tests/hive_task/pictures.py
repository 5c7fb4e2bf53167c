"""Pictures of a scheduler that there never was."""

from pyrsistent import pmap

from hive_task.picture import (
    Change,
    FunctionProfile,
    Percentiles,
    Picture,
    QueuePicture,
    RunningWork,
    Totals,
    WorkerPicture,
)


def empty(number=0, name="empty"):
    return Picture(name, "running", float(number), float(number), Totals(submitted=number, finished=number))


def busy(seconds=0.0, workers=6, functions=("shop.order", "shop.deliver")):
    """After `seconds`; 1,000 works a second are finished, and worker number n is busy n tenths of the time."""
    finished = 500 + round(1000 * seconds)
    works = (
        (),
        (RunningWork("shop.order", 0.25, "books", priority=2, time_limit=1.0),),
        (
            RunningWork("shop.order", 9.0),
            RunningWork("shop.order", 8.0),
            RunningWork("shop.deliver", 2.0, waiting=True),
        ),
        (RunningWork("shop.late", 7.5, time_limit=5.0),),
    )
    states = ("idle", "running", "running", "overdue")
    return Picture(
        name="a shop",
        state="running",
        taken=1_700_000_000 + seconds,
        uptime=100 + seconds,
        totals=Totals(finished + 24, 12, 4, finished, 7, 1),
        workers=tuple(
            WorkerPicture(
                f"uuid {number}",
                f"shop-{number}",
                states[number % 4],
                works[number % 4],
                queued=number,
                finished=1000 * number,
                failed=number % 3,
                busy=seconds * number / 10,
                age=100 + seconds,
                process=4000 + number if number % 2 else None,
            )
            for number in range(workers)
        ),
        queues=(QueuePicture("common", 9), QueuePicture("priority 5", 3, 5)),
        minimum=2,
        maximum=8,
        lost_workers=1,
        waits=Percentiles(500, 12e-6, 1.2e-3, 8e-3),
        durations=Percentiles(500, 2e-3, 0.01, 1.5),
        functions=pmap({name: FunctionProfile(name, 100, 1, 50.0, 0.1, 3.0) for name in functions}),
        changes=(Change(1_700_000_000.0, 2, 4, "1,234 works wait"),),
    )
