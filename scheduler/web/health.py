"""What machines ask a worker: `/livez`, `/readyz` and `/metrics`. Nothing here asks the database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from scheduler.loop.health import Check

LIVE: Final = "/livez"
READY: Final = "/readyz"
METRICS: Final = "/metrics"

_HEADERS: Final = {"Cache-Control": "no-store"}


class Judge(Protocol):
    """Who knows how the worker is."""

    def live(self) -> Sequence[Check]:
        """Whether a restart would not make it better."""
        ...

    def ready(self) -> Sequence[Check]:
        """Whether it takes part."""
        ...


def health_router(judge: Judge, render: Callable[[str], tuple[bytes, str]]) -> APIRouter:
    """The three paths; `render` makes the figures' text and its content type of what the asker accepts."""
    router = APIRouter()

    # Coroutines, though none waits: plain functions would be sent to a thread, away from the loop they judge.
    async def live() -> Response:
        return _answer(judge.live())

    async def ready() -> Response:
        return _answer(judge.ready())

    async def metrics(request: Request) -> Response:
        text, content_type = render(request.headers.get("accept", ""))
        return Response(text, media_type=content_type, headers=_HEADERS)

    for path, endpoint in ((LIVE, live), (READY, ready), (METRICS, metrics)):
        router.add_api_route(path, endpoint, methods=["GET", "HEAD"], include_in_schema=False)
    return router


def _answer(checks: Sequence[Check]) -> Response:
    well = all(check.ok for check in checks)
    document = {
        "status": "ok" if well else "failing",
        "checks": {check.name: {"ok": check.ok, "seen": check.seen} for check in checks},
    }
    return JSONResponse(document, 200 if well else 503, headers=_HEADERS)
