"""Jobs: a task for each tile of a picture, and one after all of them that assembles it.

A job has the id of its last task, and its tasks are a queue of that name: so one question tells what has become of all
of them at one moment. All of this waits for the data source: an event loop has to call it in a thread.

>>> from hive_task.background import Application, MemoryQueue
>>> from hive_task.background.testing import drain
>>> jobs = Jobs(Application(MemoryQueue(), registry=registry))
>>> id = jobs.start(Order.of({"title": "Tiny", "place": "whole", "width": 16, "detail": 20}))
>>> drain(jobs.app), jobs.view(id)["state"]
(41, 'done')
"""

from __future__ import annotations

import base64
import time as clock
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from examples.web_jobs.picture import COLUMNS, PLACES, ROWS, TILES, png, stitched, tile_rows
from hive_task.background import Application, Record, Registry, current_task, gather, task
from hive_task.background.tasks import CANCELLED, DEAD, DONE, ENDED, RUNNING, new_id
from hive_task.errors import UnknownTask
from stm import TEvent

registry: Final = Registry()
#: As long as this is set, every third tile fails.
trouble: Final = TEvent(name="trouble")

TILE: Final = "web_jobs.tile"
PICTURE: Final = "web_jobs.picture"

LONGEST_TITLE: Final = 80
WIDTHS: Final = range(COLUMNS, 1281, COLUMNS)
DETAILS: Final = range(10, 5001)
TELLING: Final = 0.1  # seconds between two words of a tile about its progress


class WrongOrder(ValueError):
    """What was ordered is no picture, and why."""


class OutOfPaint(Exception):
    """What tiles raise while there is trouble."""


@dataclass(frozen=True)
class Order:
    """What a user wants to see."""

    title: str
    place: str
    width: int
    detail: int

    @classmethod
    def of(cls, given: Any) -> Order:
        """From what came as JSON. `WrongOrder` if it is anything else than it should be."""
        names = ("title", "place", "width", "detail")
        if not isinstance(given, dict) or set(given) != set(names):
            raise WrongOrder(f"an order is an object with {', '.join(names)}")
        title, place, width, detail = (given[name] for name in names)
        if not isinstance(title, str) or not 1 <= len(title.strip()) <= LONGEST_TITLE:
            raise WrongOrder(f"title: a text of 1 to {LONGEST_TITLE} characters")
        if any("\ud800" <= letter <= "\udfff" for letter in title):
            raise WrongOrder("title: half a character (a lone surrogate) is no text")
        if not isinstance(place, str) or place not in PLACES:
            raise WrongOrder(f"place: one of {', '.join(PLACES)}")
        if type(width) is not int or width not in WIDTHS:
            raise WrongOrder(f"width: a multiple of {COLUMNS} from {WIDTHS[0]} to {WIDTHS[-1]:,}")
        if type(detail) is not int or detail not in DETAILS:
            raise WrongOrder(f"detail: a whole number from {DETAILS[0]} to {DETAILS[-1]:,}")
        return cls(title.strip(), place, width, detail)


# ------------------------------------------------------------------------------------------------------------ the tasks


@task(TILE, retries=1, backoff=0.5, registry=registry)
def render_tile(data: Mapping[str, Any], *, time: float) -> str:
    """Render one tile, row by row. Returns its pixels, packed."""
    current = current_task()
    assert current is not None
    if trouble.is_set() and data["number"] % 3 == 1:
        raise OutOfPaint(f"no paint left for tile {data['number'] + 1}")
    rows = data["width"] // COLUMNS
    pixels = bytearray()
    told = clock.monotonic()
    for number, row in enumerate(tile_rows(PLACES[data["place"]], data["width"], data["detail"], data["number"])):
        current.raise_if_cancelled()
        pixels += row
        if (now := clock.monotonic()) - told >= TELLING:
            current.set_progress(round((number + 1) / rows, 3))
            told = now
    return base64.b64encode(zlib.compress(pixels)).decode()


@task(PICTURE, retries=1, registry=registry)
def assemble_picture(data: Mapping[str, Any], *, time: float) -> str:
    """Put the tiles together. Returns a PNG file, in base64."""
    current = current_task()
    assert current is not None
    tiles = [unpacked(current.result_of(id), data["width"]) for id in data["tiles"]]
    return base64.b64encode(png(stitched(tiles))).decode()


def unpacked(text: str, width: int) -> list[bytes]:
    """The rows of a tile that `render_tile` has returned."""
    pixels, side = zlib.decompress(base64.b64decode(text)), width // COLUMNS
    return [pixels[first : first + side] for first in range(0, len(pixels), side)]


# ------------------------------------------------------------------------------------------------------------- the jobs


class Jobs:
    """What can be done with jobs. `UnknownTask` for an id that is none of theirs."""

    def __init__(self, app: Application) -> None:
        self.app = app

    def start(self, order: Order) -> str:
        """Put in all tasks of a job, or none; the job's id."""
        id, said = new_id(), asdict(order)
        tiles = [registry[TILE].make({**said, "number": number}, queue=id) for number in range(TILES)]
        picture = registry[PICTURE].make({**said, "tiles": [tile.id for tile in tiles]}, id=id, queue=id)
        return self.app.put(gather(tiles, then=picture))[-1].id

    def latest(self, limit: int = 12) -> list[dict[str, Any]]:
        """The last jobs that were started, without their tiles."""
        records = self.app.data_source.list_tasks(name=PICTURE, limit=limit)
        return [{"id": one.task.id, "title": one.task.data["title"], "state": overall(one, ())} for one in records]

    def view(self, id: str) -> dict[str, Any]:
        """How far a job is, as it can be told in JSON."""
        picture, tiles = self._records(id)
        data = picture.task.data
        ended = picture.state in ENDED and all(tile.state in ENDED for tile in tiles)
        return {
            "id": id,
            "title": data["title"],
            "place": PLACES[data["place"]].title,
            "width": data["width"],
            "height": data["width"] // COLUMNS * ROWS,
            "detail": data["detail"],
            "columns": COLUMNS,
            "state": overall(picture, tiles),
            "ended": ended,
            "progress": 1.0 if picture.state == DONE else sum(map(share, tiles)) / (TILES + 1),
            "failure": why(picture),
            "tiles": list(map(tile_view, tiles)),
        }

    def cancel(self, id: str) -> bool:
        """Cancel what has not ended; False if there is nothing left of it."""
        picture, tiles = self._records(id)
        cancelled = [self.app.data_source.cancel_task(record.task.id) for record in (picture, *tiles)]
        return any(cancelled)

    def retry(self, id: str) -> bool:
        """Queue again what has failed or was cancelled; False if there is nothing of that kind."""
        picture, tiles = self._records(id)
        # The picture is the last: so it waits for the tiles again.
        lost = [record.task.id for record in (*tiles, picture) if record.state in (DEAD, CANCELLED)]
        retried = [self.app.data_source.retry_task(one) for one in lost]
        return any(retried)

    def picture(self, id: str) -> bytes | None:
        """The PNG file; None as long as there is none."""
        record = self._picture(id)
        return base64.b64decode(record.result) if record.state == DONE else None

    def tile(self, id: str, number: int) -> bytes | None:
        """One tile, as a PNG file of its own; None as long as there is none."""
        ids: Sequence[str] = self._picture(id).task.data["tiles"]
        record = self.app.data_source.find_task(ids[number]) if 0 <= number < len(ids) else None
        if record is None or record.state != DONE:
            return None
        return png(unpacked(record.result, record.task.data["width"]))

    def _picture(self, id: str) -> Record:
        record = self.app.data_source.find_task(id)
        if record is None or record.task.name != PICTURE:
            raise UnknownTask(f"no job {id!r} is known")
        return record

    def _records(self, id: str) -> tuple[Record, list[Record]]:
        """The record of the last task, and those of the tiles, in order."""
        records = self.app.data_source.list_tasks(queue=id, limit=TILES + 1)
        tiles = sorted((one for one in records if one.task.name == TILE), key=lambda one: one.task.data["number"])
        for record in records:
            if record.task.name == PICTURE and len(tiles) == TILES:
                return record, tiles
        raise UnknownTask(f"no job {id!r} is known")


def overall(picture: Record, tiles: Sequence[Record]) -> str:
    """The state of a whole job, in one word."""
    states = {tile.state for tile in tiles}
    goes_on = not states <= ENDED
    if picture.state == DONE:
        return "done"
    # (Of a picture that was cancelled, a failure says that it waited for a tile in vain.)
    if DEAD in states or picture.state == DEAD or (picture.state == CANCELLED and picture.failure is not None):
        return "failing" if goes_on else "failed"
    if CANCELLED in states or picture.state == CANCELLED:
        return "cancelling" if goes_on else "cancelled"
    return "running"


def share(record: Record) -> float:
    """How much of a task is done, from 0 to 1."""
    if record.state == DONE:
        return 1.0
    return float(record.progress or 0.0) if record.state == RUNNING else 0.0


def why(record: Record) -> str | None:
    return None if record.failure is None or record.state == DONE else str(record.failure)


def tile_view(record: Record) -> dict[str, Any]:
    return {
        "state": record.state,
        "progress": share(record),
        "attempts": record.attempts,
        "failure": why(record),
    }
