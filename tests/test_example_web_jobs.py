"""`examples/web_jobs`, over HTTP: what is asked, what is answered, and that nobody has to wait for the others."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the example needs starlette")
uvicorn = pytest.importorskip("uvicorn", reason="the example needs uvicorn")

# ruff: noqa: E402
from examples.web_jobs import jobs as jobs_module
from examples.web_jobs.jobs import Jobs, Order, WrongOrder, registry, trouble
from examples.web_jobs.picture import COLUMNS, PLACES, ROWS, TILES, WHOLE, colour, png, stitched, tile_rows
from examples.web_jobs.service import make_service
from hive_task.background import Application, MemoryQueue, Record, SQLiteQueue
from hive_task.background.tasks import CANCELLED, DEAD, DONE, RUNNING
from hive_task.background.testing import drain
from stm import TEvent
from tests.support import PATIENCE, Background, until
from tests.web_jobs import LARGE, MIDDLE, SMALL, Caller, tiles_of, unpack_png


class Site(Caller):
    """The service in a thread, over a file of its own."""

    def __init__(self, path: Path, workers: int = 2) -> None:
        self.source = SQLiteQueue(path)
        self.app = Application(self.source, workers, registry=registry)
        self.stopping = TEvent()
        config = uvicorn.Config(
            make_service(Jobs(self.app), self.stopping), loop="asyncio", http="h11", ws="none", log_level="warning"
        )
        self.server = uvicorn.Server(config)
        listener = socket.create_server(("127.0.0.1", 0))
        super().__init__(listener.getsockname()[1])
        self.running = Background(lambda: asyncio.run(self.server.serve(sockets=[listener])))

    def stop(self) -> None:
        self.stopping.set()
        self.server.should_exit = True
        self.running.result()
        self.source.close()

    def records(self, id: str) -> dict[int, Record]:
        """Those of a job's tiles."""
        return tiles_of(self.source, id)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "jobs.sqlite")
    try:
        yield site
    finally:
        trouble.clear()
        site.stop()


def expected(order: dict[str, Any]) -> list[bytes]:
    """The same picture, computed pixel by pixel and without tiles."""
    place, width, detail = PLACES[order["place"]], order["width"], order["detail"]
    height, step = width // COLUMNS * ROWS, place.width / width
    return [
        bytes(
            colour(complex(place.x + (x + 0.5 - width / 2) * step, place.y - (y + 0.5 - height / 2) * step), detail)
            for x in range(width)
        )
        for y in range(height)
    ]


def alike(one: list[bytes], other: list[bytes]) -> float:
    """The share of pixels that are the same. (The two ways to compute a coordinate may differ in its last bit.)"""
    assert [len(row) for row in one] == [len(row) for row in other]
    pairs = [pair for rows in zip(one, other, strict=True) for pair in zip(*rows, strict=True)]
    return sum(a == b for a, b in pairs) / len(pairs)


# ------------------------------------------------------------------------------------------------------------- pictures


def test_tiles_make_up_the_picture() -> None:
    tiles = [[bytes(row) for row in tile_rows(WHOLE, 80, 50, number)] for number in range(TILES)]
    assert alike(unpack_png(png(stitched(tiles))), expected(SMALL)) > 0.995


def test_points_of_the_set_are_black_and_others_are_not() -> None:
    assert [colour(point, 500) for point in (0j, -1 + 0j, -0.1 + 0.74j, 0.25 + 0j)] == [0, 0, 0, 0]
    assert all(1 <= colour(point, 500) <= 255 for point in (1 + 0j, 2 + 2j, -2.1 + 0j, 0.26 + 0j, 1e9 + 0j))


# ----------------------------------------------------------------------------------------------------------------- jobs


def test_a_job_is_done_and_its_progress_only_grows(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "TELLING", 0.01)  # so that also a fast machine tells of some tile in the middle
    id = site.start(MIDDLE)
    with site.watch(id) as watching:
        views = list(watching)
    assert (views[-1]["state"], views[-1]["progress"]) == ("done", 1.0)
    told = [view["progress"] for view in views]
    assert told == sorted(told)
    assert len(set(told)) > 2
    assert any(0 < tile["progress"] < 1 for view in views for tile in view["tiles"])
    assert all(tile["state"] == DONE and tile["attempts"] == 1 for tile in views[-1]["tiles"])


def test_the_picture_is_the_one_that_was_ordered(site: Site) -> None:
    id = site.start(SMALL)
    site.await_end(id)
    status, content = site.send("GET", f"/api/jobs/{id}/picture.png")
    assert status == 200
    rows = unpack_png(content)
    assert alike(rows, expected(SMALL)) > 0.995
    status, content = site.send("GET", f"/api/jobs/{id}/tiles/9.png")  # the second one of the second row
    assert unpack_png(content) == [row[10:20] for row in rows[10:20]]


def test_the_last_jobs_are_listed_the_newest_first(site: Site) -> None:
    first = site.start({**SMALL, "title": "  first "})
    second = site.start({**SMALL, "title": "<i>second</i>"})
    site.await_end(first)
    site.await_end(second)
    assert site.get("/api/jobs") == (
        200,
        {
            "jobs": [
                {"id": second, "title": "<i>second</i>", "state": "done"},
                {"id": first, "title": "first", "state": "done"},
            ],
            "trouble": False,
        },
    )


def test_what_has_failed_can_be_tried_again_and_nothing_else_is(site: Site) -> None:
    assert site.post("/api/trouble", {"on": True}) == (200, {"trouble": True})
    id = site.start(SMALL)
    failed = site.await_end(id)
    bad = [number for number in range(TILES) if number % 3 == 1]
    assert failed["state"] == "failed"
    assert [number for number, tile in enumerate(failed["tiles"]) if tile["state"] == DEAD] == bad
    assert {tile["attempts"] for tile in failed["tiles"] if tile["state"] == DEAD} == {2}
    assert "no paint left for tile 2" in failed["tiles"][1]["failure"]
    assert site.send("GET", f"/api/jobs/{id}/picture.png")[0] == 404
    assert site.send("GET", f"/api/jobs/{id}/tiles/1.png")[0] == 404
    assert site.get("/api/jobs")[1]["jobs"][0]["state"] == "failed"
    before = site.records(id)

    site.post("/api/trouble", {"on": False})
    assert site.post(f"/api/jobs/{id}/retry") == (200, {})
    assert site.await_end(id)["state"] == "done"
    picture, after = site.source.find_task(id), site.records(id)
    assert picture is not None
    assert picture.attempts == 1, "it waits again for the tiles that it lacks"
    assert [number for number in range(TILES) if after[number] != before[number]] == bad
    assert len(unpack_png(site.send("GET", f"/api/jobs/{id}/picture.png")[1])) == 50
    assert site.post(f"/api/jobs/{id}/retry")[0] == 409


def test_a_cancelled_job_ends_soon_and_can_go_on(site: Site) -> None:
    id = site.start(LARGE)
    site.await_view(id, lambda view: any(tile["state"] == RUNNING for tile in view["tiles"]))
    assert site.post(f"/api/jobs/{id}/cancel") == (200, {})
    view = site.await_end(id)
    assert (view["state"], site.get("/api/jobs")[1]["jobs"][0]["state"]) == ("cancelled", "cancelled")
    assert {record.state for record in site.records(id).values()} <= {CANCELLED, DONE}
    began = [record for record in site.records(id).values() if record.attempts]
    assert any(record.state == CANCELLED for record in began), "a tile that is being rendered should notice"
    status, told = site.post(f"/api/jobs/{id}/cancel")
    assert (status, told) == (409, {"error": "there is nothing to cancel: the job has ended"})

    assert site.post(f"/api/jobs/{id}/retry") == (200, {})
    site.await_view(id, lambda view: any(tile["state"] == RUNNING for tile in view["tiles"]))
    site.post(f"/api/jobs/{id}/cancel")
    site.await_end(id)


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ([], "an order is an object with title, place, width, detail"),
        ({"title": "T"}, "an order is an object with title, place, width, detail"),
        ({**SMALL, "more": 1}, "an order is an object with title, place, width, detail"),
        ({**SMALL, "title": "  "}, "title: a text of 1 to 80 characters"),
        ({**SMALL, "title": "x" * 81}, "title: a text of 1 to 80 characters"),
        ({**SMALL, "title": 5}, "title: a text of 1 to 80 characters"),
        ({**SMALL, "title": "\ud800"}, "title: half a character (a lone surrogate) is no text"),
        ({**SMALL, "place": "Mars"}, "place: one of whole, seahorses, elephants, spirals, island"),
        ({**SMALL, "place": ["whole"]}, "place: one of whole, seahorses, elephants, spirals, island"),
        ({**SMALL, "width": 81}, "width: a multiple of 8 from 8 to 1,280"),
        ({**SMALL, "width": 0}, "width: a multiple of 8 from 8 to 1,280"),
        ({**SMALL, "width": 80.0}, "width: a multiple of 8 from 8 to 1,280"),
        ({**SMALL, "width": 1288}, "width: a multiple of 8 from 8 to 1,280"),
        ({**SMALL, "detail": 9}, "detail: a whole number from 10 to 5,000"),
        ({**SMALL, "detail": True}, "detail: a whole number from 10 to 5,000"),
        ({**SMALL, "detail": 10**30}, "detail: a whole number from 10 to 5,000"),
        ({**SMALL, "detail": "50"}, "detail: a whole number from 10 to 5,000"),
    ],
)
def test_a_wrong_order_is_refused_and_says_why(order: Any, message: str) -> None:
    with pytest.raises(WrongOrder) as refusal:
        Order.of(json.loads(json.dumps(order)))
    assert str(refusal.value) == message


def test_what_is_asked_wrongly_is_answered_in_json(site: Site) -> None:
    good, bad = (json.dumps({**SMALL, "width": width}).encode() for width in (80, 81))

    def refusal(method: str, path: str, body: bytes | None = None, type: str = "application/json") -> tuple[int, str]:
        status, content = site.send(method, path, body, content_type=type)
        error: str = json.loads(content)["error"]
        return status, error

    assert refusal("POST", "/api/jobs", bad) == (400, "width: a multiple of 8 from 8 to 1,280")
    assert refusal("POST", "/api/jobs", b"{")[0] == 400
    assert refusal("POST", "/api/jobs", b"\xff\xfe\xfa")[0] == 400
    assert refusal("POST", "/api/jobs", b"[" * 9_000)[0] == 400
    assert refusal("POST", "/api/jobs", b"")[0] == 400
    assert refusal("POST", "/api/jobs", b" " * 10_001)[0] == 413
    # What a form on another site's page can send.
    assert refusal("POST", "/api/jobs", good, "text/plain")[0] == 415
    assert refusal("POST", "/api/jobs/x/cancel", b"", "application/x-www-form-urlencoded")[0] == 415
    assert refusal("POST", "/api/trouble", b'{"on": 1}') == (400, 'trouble is {"on": true} or {"on": false}')
    assert refusal("GET", "/api/jobs/nobody") == (404, "no job 'nobody' is known")
    assert refusal("GET", "/api/jobs/nobody/events")[0] == 404
    assert refusal("GET", "/api/jobs/nobody/picture.png")[0] == 404
    assert refusal("GET", "/api/jobs/nobody/tiles/0.png")[0] == 404
    assert refusal("POST", "/api/jobs/nobody/retry", b"{}")[0] == 404
    assert refusal("GET", "/api/nothing")[0] == 404
    assert refusal("DELETE", "/api/jobs")[0] == 405
    assert site.get("/api/jobs")[1]["jobs"] == []
    id = site.start(SMALL)
    assert refusal("GET", f"/api/jobs/{id}/tiles/{TILES}.png")[0] == 404
    tile = site.records(id)[0].task.id
    assert refusal("GET", f"/api/jobs/{tile}")[0] == 404  # a task, but no job
    assert refusal("GET", f"/api/jobs/{tile}/picture.png")[0] == 404
    site.await_end(id)


def test_only_who_calls_it_by_its_name_is_answered(site: Site) -> None:
    assert site.send("GET", "/api/jobs", host="example.org")[0] == 400
    assert site.send("GET", "/api/jobs", host="localhost")[0] == 200


def test_a_stopped_application_takes_no_jobs(site: Site) -> None:
    site.get("/api/jobs")  # it has begun
    site.app.stop()
    status, told = site.post("/api/jobs", SMALL)
    assert (status, "takes no tasks" in told["error"]) == (503, True)


# ------------------------------------------------------------------------------------------------------- the event loop


@pytest.mark.parametrize(
    ("method", "path", "waits_for"),
    [
        ("GET", "/api/jobs", "list_tasks"),
        ("POST", "/api/jobs", "enqueue_tasks"),
        ("GET", "/api/jobs/{id}", "list_tasks"),
        ("GET", "/api/jobs/{id}/events", "list_tasks"),
        ("GET", "/api/jobs/{id}/picture.png", "find_task"),
        ("GET", "/api/jobs/{id}/tiles/0.png", "find_task"),
        ("POST", "/api/jobs/{id}/cancel", "list_tasks"),
        ("POST", "/api/jobs/{id}/retry", "list_tasks"),
    ],
)
def test_a_slow_data_source_does_not_block_the_event_loop(
    site: Site, monkeypatch: pytest.MonkeyPatch, method: str, path: str, waits_for: str
) -> None:
    id = site.start(SMALL)
    site.await_end(id)
    entered, go_on = threading.Event(), threading.Event()
    really = getattr(site.source, waits_for)

    def slowly(*args: Any, **options: Any) -> Any:
        entered.set()
        assert go_on.wait(PATIENCE)
        return really(*args, **options)

    monkeypatch.setattr(site.source, waits_for, slowly)
    body = json.dumps(SMALL).encode() if method == "POST" else None
    asking = Background(lambda: site.send(method, path.format(id=id), body, content_type="application/json"))
    try:
        assert entered.wait(PATIENCE)
        connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=10)
        try:
            connection.request("GET", "/page.css")
            assert connection.getresponse().status == 200
        finally:
            connection.close()
    finally:
        go_on.set()
    asking.result()
    monkeypatch.undo()
    for job in site.get("/api/jobs")[1]["jobs"]:
        site.await_end(job["id"])


def test_of_one_who_watched_and_hung_up_nothing_is_left(site: Site) -> None:
    id = site.start(LARGE)
    with site.watch(id) as views:
        next(views)
        assert site.server.server_state.tasks
    until(lambda: not site.server.server_state.tasks, "the end of the stream")
    assert site.get(f"/api/jobs/{id}")[1]["ended"] is False
    site.post(f"/api/jobs/{id}/cancel")
    site.await_end(id)


def test_a_stop_ends_the_streams(tmp_path: Path) -> None:
    site = Site(tmp_path / "jobs.sqlite")
    id = site.start({**MIDDLE, "width": 640})
    with site.watch(id) as views:
        next(views)
        stopping = Background(site.stop)
        told = list(views)
        assert not any(view["ended"] for view in told)
        stopping.result()


# -------------------------------------------------------------------------------------------------------- without HTTP


def test_orders_and_views_without_threads() -> None:
    """A job whose tasks are known, but not begun."""
    jobs = Jobs(Application(MemoryQueue(), registry=registry))
    id = jobs.start(Order.of(SMALL))
    view = jobs.view(id)
    assert (view["state"], view["ended"], view["progress"], len(view["tiles"])) == ("running", False, 0.0, TILES)
    assert jobs.cancel(id)
    assert jobs.view(id)["state"] == "cancelled"
    assert not jobs.cancel(id)
    assert jobs.retry(id)
    assert jobs.view(id)["state"] == "running"


def test_a_job_is_not_done_before_its_picture_is_there() -> None:
    jobs = Jobs(Application(MemoryQueue(), registry=registry))
    id = jobs.start(Order.of(SMALL))
    with pytest.raises(RuntimeError, match="40 tasks have run"):
        drain(jobs.app, most=TILES)
    view = jobs.view(id)
    assert (view["state"], view["ended"], view["progress"]) == ("running", False, TILES / (TILES + 1))
    assert jobs.picture(id) is None
    assert drain(jobs.app) == 1
    assert jobs.view(id)["state"] == "done"
    assert jobs.picture(id) is not None
