"""A job service in some lines, so that what is measured is its client: Airbyte's two calls, as fast as Python answers.

python -m tests.bench.job_server        prints its address, serves until its input ends or `end` is read from it
"""

from __future__ import annotations

import asyncio
import itertools
import sys

_numbers = itertools.count(1)
_status = "running"


class Answering(asyncio.Protocol):
    """One connection, kept alive; requests come one after the other, each in one piece."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody has connected."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.begun = b""

    def data_received(self, data: bytes) -> None:
        """A request, or a part of one."""
        data = self.begun + data
        head, separator, body = data.partition(b"\r\n\r\n")
        if not separator or len(body) < _length(head):
            self.begun = data
            return
        self.begun = b""
        method, path, _ = head.split(b" ", 2)
        number = next(_numbers) if method == b"POST" else int(path.rpartition(b"/")[2])
        said = b'{"jobId":%d,"status":"%s","jobType":"sync","connectionId":"c","startTime":"2026-11-21T01:50:30Z"}' % (
            number,
            _status.encode(),
        )
        self.transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(said), said)
        )


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line[15:])
    return 0


async def serve() -> None:
    """Serves until told otherwise."""
    global _status
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Answering, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        if line.strip() == "end":
            _status = "succeeded"
    server.close()


if __name__ == "__main__":
    asyncio.run(serve())
