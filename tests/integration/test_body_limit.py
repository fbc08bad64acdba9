"""Bodies that are too large, announced or not, over a real socket."""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from fastapi import APIRouter, Request

from scheduler.web.app import MOST_BODY_BYTES, make_app
from scheduler.web.server import WebServer


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize(("size", "status"), [(MOST_BODY_BYTES, 200), (MOST_BODY_BYTES + 1, 413)])
def test_a_body_beyond_the_bound_is_refused(size: int, status: int, announced: bool) -> None:
    router = APIRouter()

    @router.post("/size")
    async def measure(request: Request) -> int:
        return len(await request.body())

    def post(url: str) -> int:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)

        def pieces() -> Iterator[bytes]:
            yield b"x" * (size - 1)
            yield b"x"

        try:
            connection.request("POST", "/size", body=b"x" * size if announced else pieces())
            return connection.getresponse().status
        finally:
            connection.close()

    async def serve() -> int:
        server = WebServer(make_app(router), "127.0.0.1", 0, loopback_only=True)
        assert await server.start()
        assert server.url is not None
        try:
            return await asyncio.to_thread(post, server.url)
        finally:
            await server.stop()

    assert asyncio.run(serve()) == status
