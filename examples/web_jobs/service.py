"""The jobs in HTTP. Answers are JSON (a text, `error`, for what was asked wrongly), pictures, and server-sent events.

    GET  /api/jobs                      the last jobs, and whether there is trouble
    POST /api/jobs                      start one: {"title", "place", "width", "detail"}; 201
    GET  /api/jobs/ID                   how far it is
    GET  /api/jobs/ID/events            the same each time that it changes, until it has ended
    GET  /api/jobs/ID/picture.png       404 as long as there is none
    GET  /api/jobs/ID/tiles/N.png       the same of one tile, N from 0
    POST /api/jobs/ID/cancel            409 if it has ended
    POST /api/jobs/ID/retry             409 if nothing of it has failed or was cancelled
    POST /api/trouble                   {"on": true or false}

400: what was said is not what is to be said; 404: there is no such job; 413: too much was said; 415: not in JSON;
503: the file fails, or the server stops. No handler waits for the data source on the event loop.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from examples.web_jobs.jobs import Jobs, Order, WrongOrder, trouble
from hive_task.errors import ApplicationStopped, SourceError, UnknownTask
from stm import TEvent, TransactionTimeout, aio

HERE: Final = Path(__file__).resolve().parent
LOOKING: Final = 0.15  # seconds between two looks at a job that is being watched
LONGEST: Final = 10_000  # bytes of a request
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

Handler = Callable[[Request], Awaitable[Response]]


def make_service(jobs: Jobs, stopping: TEvent) -> Starlette:
    """The service. It starts the jobs' application with itself, and stops it at its own end: what runs ends then.
    `stopping`: set it before, so that nobody listens for ever."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await asyncio.to_thread(jobs.app.start)
        try:
            yield
        finally:
            stopping.set()
            await asyncio.to_thread(jobs.app.stop)

    handlers = Handlers(jobs, stopping)
    return Starlette(
        routes=[
            *(Route(path, file(name)) for path, name in (("/", "page.html"), *((f"/{n}", n) for n in FILES))),
            Route("/api/jobs", handlers.latest, methods=["GET"]),
            Route("/api/jobs", handlers.start, methods=["POST"]),
            Route("/api/jobs/{id}", handlers.view),
            Route("/api/jobs/{id}/events", handlers.events),
            Route("/api/jobs/{id}/picture.png", handlers.picture),
            Route("/api/jobs/{id}/tiles/{number:int}.png", handlers.tile),
            Route("/api/jobs/{id}/cancel", handlers.cancel, methods=["POST"]),
            Route("/api/jobs/{id}/retry", handlers.retry, methods=["POST"]),
            Route("/api/trouble", handlers.trouble, methods=["POST"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])],
        exception_handlers={
            HTTPException: refused,
            WrongOrder: says(400),
            UnknownTask: says(404),
            ApplicationStopped: says(503),
            SourceError: says(503),
        },
        lifespan=lifespan,
    )


FILES: Final = ("page.css", "page.js")


def file(name: str) -> Handler:
    async def handler(_: Request) -> Response:
        return FileResponse(HERE / name, headers=HEADERS)

    return handler


class Handlers:
    def __init__(self, jobs: Jobs, stopping: TEvent) -> None:
        self._jobs = jobs
        self._stopping = stopping

    async def latest(self, _: Request) -> Response:
        jobs = await asyncio.to_thread(self._jobs.latest)
        return told({"jobs": jobs, "trouble": trouble.is_set()})

    async def start(self, request: Request) -> Response:
        order = Order.of(await body(request))
        id = await asyncio.to_thread(self._jobs.start, order)
        return told({"id": id}, 201)

    async def view(self, request: Request) -> Response:
        return told(await asyncio.to_thread(self._jobs.view, request.path_params["id"]))

    async def cancel(self, request: Request) -> Response:
        await body(request)
        if not await asyncio.to_thread(self._jobs.cancel, request.path_params["id"]):
            raise HTTPException(409, "there is nothing to cancel: the job has ended")
        return told({})

    async def retry(self, request: Request) -> Response:
        await body(request)
        if not await asyncio.to_thread(self._jobs.retry, request.path_params["id"]):
            raise HTTPException(409, "there is nothing to retry: no part of the job has failed or was cancelled")
        return told({})

    async def trouble(self, request: Request) -> Response:
        given = await body(request)
        if not isinstance(given, dict) or set(given) != {"on"} or not isinstance(given["on"], bool):
            raise HTTPException(400, 'trouble is {"on": true} or {"on": false}')
        if given["on"]:
            trouble.set()
        else:
            trouble.clear()
        return told({"trouble": given["on"]})

    async def picture(self, request: Request) -> Response:
        return png_file(await asyncio.to_thread(self._jobs.picture, request.path_params["id"]))

    async def tile(self, request: Request) -> Response:
        id, number = request.path_params["id"], request.path_params["number"]
        return png_file(await asyncio.to_thread(self._jobs.tile, id, number))

    async def events(self, request: Request) -> Response:
        first = await asyncio.to_thread(self._jobs.view, request.path_params["id"])  # 404, if it is to be one, now
        return StreamingResponse(self._follow(first), media_type="text/event-stream", headers=HEADERS)

    async def _follow(self, view: dict[str, Any]) -> AsyncIterator[str]:
        """The job each time that it has changed, until it has ended or the server stops. (If the client hangs up, this
        is cancelled.)"""
        yield f"retry: 1000\ndata: {json.dumps(view)}\n\n"
        while not view["ended"] and not await self._is_stopping():
            before, view = view, await asyncio.to_thread(self._jobs.view, view["id"])
            if view != before:
                yield f"data: {json.dumps(view)}\n\n"

    async def _is_stopping(self) -> bool:
        """Wait a moment; does the server stop within it?"""
        try:
            return await aio.run(self._stopping.wait, timeout=LOOKING)
        except TransactionTimeout:
            return False


def told(answer: Any, status: int = 200) -> Response:
    return JSONResponse(answer, status, headers=HEADERS)


def png_file(content: bytes | None) -> Response:
    if content is None:
        raise HTTPException(404, "there is no picture (yet)")
    return Response(content, media_type="image/png", headers=HEADERS)


async def body(request: Request) -> Any:
    """What was said, in JSON. That it must say so itself keeps other sites' pages from saying anything."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "what is said must be JSON, with the content type application/json")
    said = bytearray()
    async for part in request.stream():
        said += part
        if len(said) > LONGEST:
            raise HTTPException(413, f"more than {LONGEST:,} bytes is too much")
    try:
        return json.loads(said)
    except (ValueError, RecursionError):
        raise HTTPException(400, "what was said is not JSON") from None


async def refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, headers={**HEADERS, **(error.headers or {})})


def says(status: int) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def handler(_: Request, error: Exception) -> Response:
        return told({"error": str(error)}, status)

    return handler
