"""The executor that sends one HTTP request.

Every request carries `Idempotency-Key: <run.key>`. What became of it decides the outcome:

    expected status (any 2xx by default)    succeeded: status, headers and up to 64 KiB of body are the outputs
    never connected                         tried again within the call, then retryable
    408, 425, 429, 5xx                      retryable, not before Retry-After
    broken or timed out after connecting,
    502, 504                                retryable, outcome unknown: the next attempt keeps the key
    any other status                        permanent
"""

from __future__ import annotations

import hashlib
import hmac
import json
import ssl
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from executors.errors import PermanentError, Problem, RetryableError
from executors.hiding import Hidden
from executors.http_client import Tls, as_written, header_texts, proxy_faults, proxy_for
from executors.http_words import load_client, retry_after, url_fault, without_user, words
from executors.jsonvalue import json_fault
from executors.output import LIMIT
from executors.protocol import Executor, Outcome, RunContext, Succeeded

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

CONNECTION_TRIES: Final = 3
CONNECT_WITHIN: Final = timedelta(seconds=10)
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})
_TRANSIENT: Final = frozenset({408, 425, 429})
# A gateway answers these when it does not know what became of the request behind it.
_UNKNOWN: Final = frozenset({502, 504})
# A session cookie is a secret of the target's; outputs are shown to everyone.
_NOT_KEPT: Final = frozenset({"set-cookie", "set-cookie2"})


@dataclass(frozen=True)
class Signature:
    """`secret` names one of the run's secrets; `header` gets `prefix` + the hexadecimal HMAC-SHA256 of the body."""

    secret: str
    header: str = "X-Signature-256"
    prefix: str = "sha256="


class HttpExecutor(Executor):
    """Sends one HTTP request a run and keeps the answer."""

    @dataclass(frozen=True)
    class Options:
        """`headers` are sent with every request (put tokens here, `${TOKEN}` from the environment).

        `hosts`, if given, are the only hosts that tasks may name. `proxies` maps `http` and `https` to the proxy for URLs
        of that scheme; without it the usual variables count. `tls` names an own authority and a client certificate.
        """

        headers: dict[str, str] = field(default_factory=dict, repr=False)
        hosts: list[str] | None = None
        proxies: dict[str, str] = field(default_factory=dict, repr=False)
        tls: Tls = Tls()

        def check(self) -> Iterable[Problem]:
            """What types cannot say."""
            yield from proxy_faults(self.proxies)

    @dataclass(frozen=True)
    class Config:
        """`json` or `body` is what is sent; without either, POST, PUT and PATCH send the inputs as JSON.

        `timeout` covers the whole exchange. `expect`: the statuses that mean success, default any 2xx.
        """

        url: str = field(metadata={"url": True})
        method: str = "POST"
        json: Any = None
        body: str | None = None
        headers: dict[str, str] = field(default_factory=dict)
        timeout: timedelta = timedelta(seconds=30)
        expect: list[int] = field(default_factory=list)
        signature: Signature | None = None

        def check(self) -> Iterable[Problem]:
            """What types cannot say."""
            if "{" not in self.url and (fault := url_fault(self.url)):
                yield "url", fault
            if self.method not in _METHODS:
                yield "method", f"{self.method!r} is none of {', '.join(sorted(_METHODS))}"
            if self.json is not None and self.body is not None:
                yield "body", "is given as well as json: leave one of them out"
            if self.timeout <= timedelta(0):
                yield "timeout", "is not a positive duration"
            for index, status in enumerate(self.expect):
                if not 100 <= status <= 599:
                    yield f"expect[{index}]", f"{status} is no HTTP status"

    def __init__(self, options: Any = None, **keywords: Any) -> None:
        super().__init__(options, **keywords)
        self._hidden = Hidden(urlsplit(proxy).password for proxy in self.options.proxies.values())
        self._ssl: ssl.SSLContext | None = None

    async def start(self) -> None:
        """Load what sends requests."""
        load_client()

    async def execute(self, run: RunContext) -> Outcome:
        """Send the request; the answer's status, headers and body are the outputs, or stand in `run.output` if it failed."""
        import aiohttp

        config: HttpExecutor.Config = run.config
        self._check_host(config.url)
        body = _body(config, run)
        headers = self._headers(config, run, body)
        try:
            url = as_written(config.url)
            sent = {"proxy": proxy_for(config.url, self.options.proxies), "ssl": self._secured()}
            answer = await _send(run, config, url, headers, body, sent)
        # First: an error of a certificate is also a ValueError. A proxy that refuses has passed nothing on.
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientHttpProxyError) as error:
            raise RetryableError(f"{_shown(config)}: no connection: {self._hidden.hide(words(error))}") from None
        except ValueError as error:
            raise PermanentError(f"{_shown(config)} cannot be sent: {error}") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _broken_off(config, error) from None
        return _judge(config, run, answer)

    def _secured(self) -> ssl.SSLContext | bool:
        if self.options.tls == Tls():
            return True
        if self._ssl is None:
            self._ssl = self.options.tls.context()
        return self._ssl

    def _check_host(self, url: str) -> None:
        if fault := url_fault(url):
            raise PermanentError(f"url {without_user(url)!r} {fault}")
        hosts: list[str] | None = self.options.hosts
        if hosts is not None and urlsplit(url).hostname not in {host.lower() for host in hosts}:
            raise PermanentError(f"the host of {without_user(url)} is none that this executor's option `hosts` allows")

    def _headers(self, config: HttpExecutor.Config, run: RunContext, body: bytes | None) -> dict[str, str]:
        # A connection kept from the last request may be closed by the other side at the very moment of sending, and
        # then nobody could tell whether the request was seen: none is kept.
        headers = {"connection": "close", "idempotency-key": run.key}
        if body is not None and config.body is None:
            headers["content-type"] = "application/json"
        for more in (self.options.headers, config.headers):
            headers.update({name.lower(): value for name, value in more.items()})
        if config.signature is not None:
            secret = run.secrets.get(config.signature.secret)
            if secret is None:
                raise PermanentError(f"the secret {config.signature.secret!r} that signs the request is not declared")
            signed = hmac.new(secret.encode(), body or b"", hashlib.sha256).hexdigest()
            headers[config.signature.header.lower()] = config.signature.prefix + signed
        return headers


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: dict[str, str]
    body: Any
    truncated: bool


async def _send(
    run: RunContext,
    config: HttpExecutor.Config,
    url: URL,
    headers: Mapping[str, str],
    body: bytes | None,
    sent: Mapping[str, Any],
) -> _Answer:
    """One request, its connection tried a few times; nothing is repeated once it may have been sent."""
    import aiohttp
    from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_exponential, wait_random

    total = config.timeout.total_seconds()
    connect = min(CONNECT_WITHIN.total_seconds(), total / 2)
    timeout = aiohttp.ClientTimeout(total=total, connect=connect, sock_connect=connect)
    retrying = AsyncRetrying(
        stop=stop_after_attempt(CONNECTION_TRIES),
        wait=wait_exponential(multiplier=0.1, max=2) + wait_random(0, 0.1),
        retry=retry_if_exception(_may_connect_later),
        before_sleep=lambda state: run.log.info(
            "%s: trying again: %s", without_user(config.url), state.outcome and state.outcome.exception()
        ),
        reraise=True,
    )

    async def once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        # aiohttp sends a GET, PUT or DELETE once more by itself if the connection breaks; not if the error is ours.
        try:
            return await handler(request)
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
            raise _broken_off(config, error) from None

    async for attempt in retrying:
        with attempt:
            async with run.http.request(
                config.method,
                url,
                data=body,
                headers=headers,
                timeout=timeout,
                # Following turns a POST into a GET and carries tokens to hosts that nobody named.
                allow_redirects=False,
                middlewares=(once,),
                **sent,
            ) as reply:
                return await _read(reply)
    raise AssertionError("tenacity either returns or raises")


def _may_connect_later(error: BaseException) -> bool:
    """Refused, unreachable or not resolved; a certificate stays as it is, and time that is up is up."""
    import aiohttp

    return isinstance(error, aiohttp.ClientConnectorError) and not isinstance(error, aiohttp.ClientSSLError)


def _broken_off(config: HttpExecutor.Config, error: BaseException) -> RetryableError:
    said = f"{_shown(config)}: broken off after connecting, so the outcome is unknown: {words(error)}"
    return RetryableError(said, outcome_known=False)


async def _read(reply: aiohttp.ClientResponse) -> _Answer:
    content = bytearray()
    while len(content) <= LIMIT and (part := await reply.content.read(LIMIT + 1 - len(content))):
        content += part
    truncated = len(content) > LIMIT
    if truncated:
        reply.close()
    headers = header_texts(reply.headers, _NOT_KEPT)
    return _Answer(reply.status, headers, _decode(bytes(content[:LIMIT]), reply, truncated), truncated)


def _decode(content: bytes, reply: aiohttp.ClientResponse, truncated: bool) -> Any:
    if not truncated and (reply.content_type == "application/json" or reply.content_type.endswith("+json")):
        with suppress(ValueError, RecursionError):  # It says JSON and is none that can be stored: kept as text.
            parsed = json.loads(content, parse_constant=_refuse) if content else None
            if json_fault(parsed, "body") is None:
                return parsed
    try:
        text = content.decode(reply.charset or "utf-8", "replace")
    except (LookupError, ValueError):  # None that Python knows, or one that takes no replacements.
        text = content.decode("utf-8", "replace")
    # Some make half surrogate pairs, which nobody stores.
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _judge(config: HttpExecutor.Config, run: RunContext, answer: _Answer) -> Outcome:
    if answer.status in config.expect if config.expect else 200 <= answer.status < 300:
        return Succeeded(
            {"status": answer.status, "headers": answer.headers, "body": answer.body, "truncated": answer.truncated}
        )
    body = answer.body if isinstance(answer.body, str) else json.dumps(answer.body, ensure_ascii=False)
    head = "".join(f"{name}: {value}\n" for name, value in answer.headers.items())
    run.output.write(f"HTTP {answer.status}\n{head}\n{body}\n")
    said = f"{_shown(config)} answered {answer.status}"
    if answer.status in _TRANSIENT or answer.status >= 500:
        raise RetryableError(said, retry_after(answer.headers, run.now()), outcome_known=answer.status not in _UNKNOWN)
    if answer.status < 300 and config.expect:
        said += f", not {' or '.join(map(str, config.expect))}"
    elif 300 <= answer.status < 400:
        said += f" and leads to {answer.headers.get('Location', 'nowhere')}: name that URL"
    raise PermanentError(said)


def _shown(config: HttpExecutor.Config) -> str:
    return f"{config.method} {without_user(config.url)}"


def _body(config: HttpExecutor.Config, run: RunContext) -> bytes | None:
    if config.body is not None:
        return config.body.encode()
    if config.json is not None:
        return json.dumps(config.json, ensure_ascii=False).encode()
    return json.dumps(dict(run.inputs), ensure_ascii=False).encode() if config.method in _WITH_BODY else None


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")
