"""The HTTP application of a worker: one app, to which each part adds its routes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fastapi import APIRouter, FastAPI

from scheduler.web.auth import BearerTokens, Caller
from scheduler.web.body_limit import BodyLimit
from scheduler.web.health import LIVE, READY

MOST_BODY_BYTES: Final = 1024 * 1024


def make_app(*routers: APIRouter, callers: Sequence[Caller] = ()) -> FastAPI:
    """An application of these routes. With `callers`, all but the health checks ask for one of their tokens."""
    app = FastAPI(title="trigger-scheduler", openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    for router in routers:
        app.include_router(router)
    app.add_middleware(BodyLimit, most_bytes=MOST_BODY_BYTES)
    if callers:
        # Around everything, so that a page that is added later is closed unless somebody opens it.
        app.add_middleware(BearerTokens, callers=callers, open_to_all=(LIVE, READY))
    return app
