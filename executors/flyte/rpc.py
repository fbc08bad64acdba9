"""Calls to one server of Flyte's, by gRPC or by Connect, and every way in which they can go wrong told in one voice.

never connected                               RetryableError, nothing was done
connected, then broken or too slow            RetryableError; after a call that acts, its outcome is unknown
UNAVAILABLE RESOURCE_EXHAUSTED ABORTED
UNAUTHENTICATED PERMISSION_DENIED UNIMPLEMENTED  RetryableError; nothing was done
INTERNAL UNKNOWN CANCELED DATA_LOSS           RetryableError; after a call that acts, its outcome is unknown
any other code                                Refused, which the caller may judge
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from connectrpc.client import ConnectClient
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from connectrpc.protocol import ProtocolType
from google.rpc import error_details_pb2
from pyqwest import Client, HTTPTransport, HTTPVersion

from executors.errors import RetryableError
from executors.flyte.server import ServerOptions, server_url
from executors.hiding import Hidden

C = TypeVar("C", bound=ConnectClient)
T = TypeVar("T")

LARGEST_ANSWER: Final = 64 * 1024 * 1024
_EXCERPT: Final = 2000
_TOO_LARGE: Final = re.compile(r"\blarger than (configured )?max", re.IGNORECASE)
_PLAIN_ANSWER: Final = "InvalidContentType"
_NOTHING_DONE: Final = frozenset(
    {
        Code.UNAVAILABLE,
        Code.RESOURCE_EXHAUSTED,
        Code.ABORTED,
        Code.UNAUTHENTICATED,
        Code.PERMISSION_DENIED,
        Code.UNIMPLEMENTED,
    }
)
_NOBODY_KNOWS: Final = frozenset({Code.INTERNAL, Code.UNKNOWN, Code.CANCELED, Code.DATA_LOSS, Code.DEADLINE_EXCEEDED})


class RpcError(RetryableError):
    """The server answered with an error; `code` is which, `told` what it said."""

    def __init__(self, message: str, code: Code, told: str, *, after: float | None = None, known: bool = True) -> None:
        super().__init__(message, after, outcome_known=known)
        self.code = code
        self.told = told


class Refused(RpcError):
    """The server will not do what was asked, and says so in so many words."""


class Rpc:
    """One server as an executor calls it; `title` is what errors call it."""

    def __init__(self, title: str, options: ServerOptions, protocol: Literal["grpc", "connect"]) -> None:
        self.url = server_url(options.endpoint, options.insecure)
        self.title = f"{title} at {self.url.partition('://')[2]}"
        self._options = options
        self._protocol = ProtocolType.GRPC if protocol == "grpc" else ProtocolType.CONNECT
        self._hidden = Hidden(options.headers.values())
        self._timeout_ms = max(1, int(options.timeout.total_seconds() * 1000))
        self._clients: dict[tuple[type[ConnectClient], bool], ConnectClient] = {}
        self._transports: dict[bool, HTTPTransport] = {}

    async def call(
        self,
        service: type[C],
        call: Callable[[C, dict[str, Any]], Awaitable[T]],
        name: str,
        *,
        acts: bool = False,
        hidden: Hidden | None = None,
    ) -> T:
        """What `call(client, options)` answers; `name` is the method as errors call it.

        `options` are the keywords that every method takes. With `acts`, an error after the call may have been seen says
        that its outcome is unknown. Texts show nothing of `hidden`.
        """
        options = {"headers": self._options.headers, "timeout_ms": self._timeout_ms}
        try:
            return await call(self._client(service, acts), options)
        except ConnectError as error:
            if isinstance(error.__cause__, asyncio.CancelledError):
                # The library makes an error of it, and whoever cancelled would never learn that it worked.
                raise asyncio.CancelledError from None
            raise self._told(error, name, acts, hidden or Hidden()) from None

    async def close(self) -> None:
        """Gives every connection up; a later call makes new ones."""
        transports = list(self._transports.values())
        self._clients.clear()
        self._transports.clear()
        for transport in transports:
            await transport.aclose()

    def _client(self, service: type[C], acts: bool) -> C:
        found = self._clients.get((service, acts))
        if found is None:
            found = service(
                self.url,
                protocol=self._protocol,
                read_max_bytes=LARGEST_ANSWER,
                http_client=Client(self._transport(acts)),
            )
            self._clients[service, acts] = found
        assert isinstance(found, service)
        return found

    def _transport(self, acts: bool) -> HTTPTransport:
        if acts not in self._transports:
            options = self._options
            plain = self.url.startswith("http:")
            self._transports[acts] = HTTPTransport(
                # Without encryption nothing is negotiated, and gRPC knows no HTTP/1.
                http_version=HTTPVersion.HTTP2 if plain and self._protocol is ProtocolType.GRPC else None,
                tls_ca_cert=None if options.ca_cert is None else Path(options.ca_cert).read_bytes(),
                tls_include_system_certs=not plain and options.ca_cert is None,
                connect_timeout=options.timeout.total_seconds(),
                # A kept connection may be closed by the other side at the very moment of sending, and then nobody
                # could tell whether the call was seen.
                pool_max_idle_per_host=0 if acts else None,
                follow_redirects=False,
                enable_otel=False,
            )
        return self._transports[acts]

    # --- errors ------------------------------------------------------------------------------------------------------

    def _told(self, error: ConnectError, name: str, acts: bool, hidden: Hidden) -> RetryableError:
        cause = error.__cause__
        if isinstance(cause, ConnectionError):
            return RetryableError(self._unreachable(cause))
        if isinstance(cause, TimeoutError):
            seconds = self._options.timeout.total_seconds()
            said = f"Connection timeout: {self.title} did not answer {name} within {seconds:g} s"
            return RetryableError(said, outcome_known=not acts)
        if cause is not None:
            said = f"Connection error: {self.title} broke off {name}: {_short(str(cause))}"
            return RetryableError(self._hidden.hide(said), outcome_known=not acts)
        told = hidden.hide(self._hidden.hide(error.message.replace("\0", "\ufffd")))
        told = told if len(told) <= _EXCERPT else f"{told[:_EXCERPT]}…"
        said = f"{self.title} answered {name} with {error.code.name}" + (f": {told}" if told else "")
        if _TOO_LARGE.search(error.message) and error.code is Code.RESOURCE_EXHAUSTED:
            return Refused(said, error.code, told)
        if error.code in _NOBODY_KNOWS:
            return RpcError(said, error.code, told, after=_asked_for(error), known=not acts)
        if error.code in _NOTHING_DONE:
            return RpcError(said, error.code, told, after=_asked_for(error))
        return Refused(said, error.code, told)

    def _unreachable(self, cause: ConnectionError) -> str:
        if isinstance(cause, TimeoutError):
            return f"Connection timeout: Unable to reach {self.title}"
        said = str(cause)
        if "Connection refused" in said:
            why = "connection refused"
        elif _PLAIN_ANSWER in said:
            why = "it does not answer in TLS (is insecure: true missing?)"
        elif "certificate" in said.lower():
            why = f"its certificate is not trusted: {_short(said)}"
        elif "dns error" in said:
            why = "the name cannot be resolved"
        else:
            why = self._hidden.hide(_short(said))
        return f"Connection error: Unable to reach {self.title}: {why}"


def _short(text: str) -> str:
    """The end of the library's chain of causes, which is what went wrong."""
    found = re.search(r"client error \(\w+\): (.+)", text, re.DOTALL)
    return (found[1] if found else text)[:_EXCERPT]


def _asked_for(error: ConnectError) -> float | None:
    """Seconds that the server asks to wait."""
    for detail in error.details:
        if detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            info = error_details_pb2.RetryInfo()
            detail.Unpack(info)
            asked: timedelta = info.retry_delay.ToTimedelta()
            return max(0.0, asked.total_seconds())
    return None
