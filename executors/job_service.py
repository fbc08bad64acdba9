"""One HTTP service that keeps jobs: its requests, and every way in which they can go wrong told in one voice.

never connected                           RetryableError, nothing was done
connected, then broken or too slow        RetryableError; after a request that acts, its outcome is unknown
408, 425, 429, 503                        RetryableError, not before Retry-After; nothing was done
other 5xx                                 RetryableError; after a request that acts, its outcome is unknown
3xx, 401, 403, no JSON where JSON belongs RetryableError: somebody in between, or credentials that can be mended
any other status                          the caller's to judge
"""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from html import unescape
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit, urlunsplit

from executors.errors import PermanentError, RetryableError
from executors.hiding import Hidden
from executors.http_client import Tls, as_written, header_texts, new_session, proxy_for
from executors.http_words import http_date, retry_after, words
from executors.protocol import RunContext

if TYPE_CHECKING:
    import aiohttp

LIMIT: Final = 4 * 1024 * 1024
EXCERPT: Final = 200
CONNECT_WITHIN: Final = 10.0
_REFUSED: Final = frozenset({408, 425, 429, 503})
_MENDABLE: Final = frozenset({401, 403})
_TAGS: Final = re.compile(r"<(script|style)\b.*?</\1>|<[^>]*>", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True)
class Answer:
    """What came back, whatever its status."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def ok(self) -> bool:
        """True for any 2xx."""
        return 200 <= self.status < 300

    @property
    def is_html(self) -> bool:
        """True for a page that is made for people."""
        return self.headers.get("content-type", "").partition(";")[0].strip() in ("text/html", "application/xhtml+xml")

    @property
    def is_json(self) -> bool:
        """True for a body that says it is JSON, and is."""
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json" and not kind.endswith("+json"):
            return False
        with suppress(ValueError, RecursionError):
            self.parsed()
            return True
        return False

    def parsed(self) -> Any:
        """The body as JSON; `ValueError` if it is none."""
        return json.loads(self.content)

    def date(self) -> datetime | None:
        """The instant of the answer by the service's own clock, to the second."""
        return http_date(self.headers.get("date", ""))


class Service:
    """One service as an executor asks it; `title` is what errors call it."""

    def __init__(
        self,
        title: str,
        *,
        timeout: timedelta,
        proxies: Mapping[str, str] | None = None,
        tls: Tls | None = None,
        hidden: Hidden | None = None,
    ) -> None:
        self.title = title
        self.timeout = timeout
        self.hidden = hidden or Hidden()
        self._proxies = dict(proxies or {})
        self._tls = tls
        self._ssl: ssl.SSLContext | None = None
        self._client_timeout: aiohttp.ClientTimeout | None = None

    async def send(
        self,
        run: RunContext,
        method: str,
        url: str,
        *,
        acts: bool = False,
        headers: Mapping[str, str] | None = None,
        **sent: Any,
    ) -> Answer:
        """One request and its answer; `sent` is aiohttp's `json`, `data` or `params`.

        With `acts`, an error after the request may have been seen says that its outcome is unknown. Raises
        `RetryableError`, or `PermanentError` for what cannot be sent at all.
        """
        import aiohttp

        try:
            if not acts:
                return await self._send(run.http, method, url, headers, sent)
            # A kept connection may be closed by the other side at the very moment of sending, and then nobody could
            # tell whether the request was seen.
            async with new_session(force_close=True) as session:
                return await self._send(session, method, url, headers, sent)
        except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError) as error:
            raise RetryableError(self._unreachable(url, error)) from None
        except ValueError as error:
            raise PermanentError(f"{shown_url(url)} cannot be asked: {words(error)}") from None
        except TimeoutError:
            seconds = self.timeout.total_seconds()
            said = f"Connection timeout: {self.title} did not answer {method} {shown_url(url)} within {seconds:g} s"
            raise RetryableError(said, outcome_known=not acts) from None
        except (aiohttp.ClientError, OSError) as error:
            raise self._broken(method, url, error, acts) from None

    async def _send(
        self,
        session: aiohttp.ClientSession,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        sent: Mapping[str, Any],
    ) -> Answer:
        async with session.request(
            method,
            as_written(url),
            headers=headers,
            timeout=self._limits(),
            proxy=proxy_for(url, self._proxies),
            ssl=self._secured(),
            # Following turns a POST into a GET and carries tokens to hosts that nobody named.
            allow_redirects=False,
            **sent,
        ) as reply:
            content = bytearray()
            while part := await reply.content.read(LIMIT):
                content += part
                if len(content) > LIMIT:
                    reply.close()
                    said = f"{self.title} answered {method} {shown_url(url)} with more than {LIMIT >> 20} MiB"
                    raise RetryableError(said, outcome_known=False)
            headers = {name.lower(): value for name, value in header_texts(reply.headers).items()}
            return Answer(reply.status, headers, bytes(content))

    def _secured(self) -> ssl.SSLContext | bool:
        if self._tls is None:
            return True
        if self._ssl is None:
            self._ssl = self._tls.context()
        return self._ssl

    def _limits(self) -> aiohttp.ClientTimeout:
        if self._client_timeout is None:
            import aiohttp

            total = self.timeout.total_seconds()
            # Waiting for a place in the session's pool is not the service's fault: only the connecting is limited.
            self._client_timeout = aiohttp.ClientTimeout(total=total, sock_connect=min(CONNECT_WITHIN, total))
        return self._client_timeout

    # --- what answers mean -------------------------------------------------------------------------------------------

    def check(self, run: RunContext, method: str, url: str, answer: Answer, *, acts: bool = False) -> Answer:
        """The answer, if it is a success or an error that only the caller can judge; else raises `RetryableError`."""
        status = answer.status
        if answer.ok or (400 <= status < 500 and status not in _REFUSED | _MENDABLE):
            return answer
        said = f"{self.title} answered {method} {shown_url(url)} with {self.explain(answer)}"
        if 300 <= status < 400:
            said += f" that leads to {shown_url(answer.headers.get('location', 'nowhere'))}"
        known = not acts or status in _REFUSED | _MENDABLE or status < 400
        raise RetryableError(said, retry_after(answer.headers, run.now()), outcome_known=known)

    def document(self, method: str, url: str, answer: Answer, *, acts: bool = False) -> dict[str, Any]:
        """The JSON object of an answer; `RetryableError` if it is none, its outcome unknown with `acts`."""
        found = self.json(method, url, answer, acts=acts)
        if not isinstance(found, dict):
            raise self._other_than("a JSON object", method, url, answer, acts)
        return found

    def json(self, method: str, url: str, answer: Answer, *, acts: bool = False) -> Any:
        """The JSON value of an answer; `RetryableError` if it is none, its outcome unknown with `acts`."""
        try:
            return answer.parsed()
        except (ValueError, RecursionError):
            raise self._other_than("JSON", method, url, answer, acts) from None

    def _other_than(self, wanted: str, method: str, url: str, answer: Answer, acts: bool) -> RetryableError:
        said = f"{self.title} answered {method} {shown_url(url)} with something else than {wanted}"
        return RetryableError(f"{said}: {self.excerpt(answer)}", outcome_known=not acts)

    def explain(self, answer: Answer) -> str:
        """The status and what the body says about it, in a line."""
        try:
            phrase = HTTPStatus(answer.status).phrase
        except ValueError:
            phrase = "no known status"
        return (
            f"{answer.status} ({phrase}): {self.excerpt(answer)}" if answer.content else f"{answer.status} ({phrase})"
        )

    def excerpt(self, answer: Answer) -> str:
        """The beginning of a body as people can read it, secrets hidden; of a problem document, what it says."""
        text = answer.content[: 20 * EXCERPT].decode("utf-8", "replace")
        if answer.is_html:
            text = unescape(_TAGS.sub(" ", text))
        else:
            with suppress(ValueError, RecursionError):
                text = _told(answer.parsed()) or text
        text = " ".join(self.hidden.hide(text).replace("\0", "\ufffd").split())
        return text if len(text) <= EXCERPT else f"{text[:EXCERPT]}…"

    def _unreachable(self, url: str, error: BaseException) -> str:
        import aiohttp

        where = f"Unable to reach {self.title} at {shown_url(url, path=False)}"
        if isinstance(error, TimeoutError):
            return f"Connection timeout: {where}"
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return f"Connection error: {where}: the name {error.host} cannot be resolved"
        cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
        if isinstance(cause, ConnectionRefusedError):
            return f"Connection error: {where}: connection refused"
        return f"Connection error: {where}: {self.hidden.hide(words(error))}"

    def _broken(self, method: str, url: str, error: BaseException, acts: bool) -> RetryableError:
        said = f"Connection error: {self.title} broke off {method} {shown_url(url)}: {self.hidden.hide(words(error))}"
        return RetryableError(said, outcome_known=not acts)


def shown_url(url: str, *, path: bool = True) -> str:
    """A URL without what may be secret in it: user, password and query; without `path`, no more than the host."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "a URL that cannot be read"
    return urlunsplit((parts.scheme, host, parts.path if path else "", "", ""))


def _told(document: Any) -> str | None:
    """What a problem document, or an error object of another form, says."""
    if not isinstance(document, dict):
        return None
    said = [document[key] for key in ("title", "detail") if isinstance(document.get(key), str)]
    if not said:
        found = (document.get(key) for key in ("message", "error_description", "error", "detail"))
        said = [value for value in found if isinstance(value, str)][:1]
    return ": ".join(said) or None
