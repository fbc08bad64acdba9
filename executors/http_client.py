"""The HTTP client of every executor that sends requests: its sessions, proxies and certificates."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

from executors.errors import Problem
from executors.http_words import url_fault

if TYPE_CHECKING:
    from aiohttp import ClientSession
    from yarl import URL

# The library's own limits (8 kB a line, 128 headers) are met in earnest: long cookies and tracing headers.
_LONGEST_HEADER: Final = 256 * 1024
_MOST_HEADERS: Final = 2_000
_LONE_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
# Whatever RFC 3986 lets stand in a path or a query, and the percent sign of what is encoded already.
_AS_IT_IS: Final = "%/?:@!$&'()*+,;=~-._[]"


@dataclass(frozen=True)
class Tls:
    """PEM files: `ca` is trusted instead of the system's authorities; `certificate` and its `key` are our own.

    `key` may be left out where the certificate's file holds it.
    """

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None

    def check(self) -> Iterable[Problem]:
        """What types cannot say."""
        if self.key is not None and self.certificate is None:
            yield "certificate", "belongs to key: give both, or none of them"
        for name, path in (("ca", self.ca), ("certificate", self.certificate)):
            if path is None:
                continue
            try:
                if name == "ca":
                    ssl.create_default_context(cafile=path)
                elif self.certificate is not None:
                    ssl.create_default_context().load_cert_chain(self.certificate, self.key)
            except (OSError, ValueError) as error:
                yield name, f"cannot be used: {error.strerror if isinstance(error, OSError) else error}"

    def context(self) -> ssl.SSLContext:
        """What a connection is made with; raises `OSError` where a file cannot be used (any more)."""
        context = ssl.create_default_context(cafile=self.ca)
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key)
        return context


def new_session(*, force_close: bool = False) -> ClientSession:
    """A session of one's own; call it on the event loop and close it.

    It keeps no cookies, since one task's must not travel with another task's requests, and opens as many connections as
    there are requests: how many run at once is said by the worker's and the executor's `max_concurrent_runs`.
    """
    import aiohttp

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, force_close=force_close),
        cookie_jar=aiohttp.DummyCookieJar(),
        max_line_size=_LONGEST_HEADER,
        max_field_size=_LONGEST_HEADER,
        max_headers=_MOST_HEADERS,
    )


def proxy_for(url: str, proxies: Mapping[str, str]) -> str | None:
    """The proxy for a URL: that of the option `proxies`, else of `HTTP_PROXY`, `HTTPS_PROXY` or `ALL_PROXY`.

    `NO_PROXY` counts only for the variables, in capital or small letters both.
    """
    parts = urlsplit(url)
    if proxies:
        return proxies.get(parts.scheme)
    known = getproxies()
    found = known.get(parts.scheme) or known.get("all")
    if not found or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    return found if "://" in found else f"http://{found}"


def proxy_faults(proxies: Mapping[str, str]) -> Iterable[Problem]:
    """Every fault of an option `proxies`."""
    for scheme, proxy in proxies.items():
        if scheme not in ("http", "https"):
            yield f"proxies.{scheme}", "is no scheme: http or https"
        elif fault := url_fault(proxy):
            yield f"proxies.{scheme}", fault


def as_written(url: str) -> URL:
    """The URL for the client, which would write `%2F` in a query as `/`: what is encoded stays so, the rest is encoded."""
    from yarl import URL

    parts = urlsplit(url)
    origin = str(URL(urlunsplit((parts.scheme, parts.netloc, "", "", "")))).rstrip("/")
    rest = urlunsplit(("", "", parts.path or "/", parts.query, ""))
    return URL(origin + quote(_LONE_PERCENT.sub("%25", rest), safe=_AS_IT_IS), encoded=True)


def header_texts(headers: Any, leave_out: frozenset[str] = frozenset()) -> dict[str, str]:
    """The headers of an answer, repeated ones joined. Bytes that are no UTF-8 are read as Latin-1, as they once were meant."""
    return {
        name: ", ".join(_readable(value) for value in headers.getall(name))
        for name in headers
        if name.lower() not in leave_out
    }


def _readable(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-8", "surrogateescape").decode("latin-1")
    return value
