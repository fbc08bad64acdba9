"""Access tokens by client credentials, kept for as long as they are good."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from executors.errors import RetryableError
from executors.job_service import Service
from executors.protocol import RunContext

REFRESH_EARLY: Final = timedelta(seconds=60)
_UNLESS_SAID: Final = timedelta(minutes=3)


@dataclass(frozen=True)
class _Token:
    text: str
    good_until: float


class Tokens:
    """The token of one client at one service: fetched at first use, refreshed 60 s early, asked for once at a time."""

    def __init__(
        self,
        service: Service,
        url: str,
        client_id: str,
        client_secret: str,
        # Monotonic: the wall clock may jump, the life of a token does not.
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._service = service
        self._clock = clock
        self._url = url
        self._form = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": client_secret}
        self._token: _Token | None = None
        self._fetching: asyncio.Task[str] | None = None

    async def get(self, run: RunContext, refused: str | None = None) -> str:
        """A token that is good, and not the one that the service has just refused. Raises `RetryableError`."""
        token = self._token
        if token is not None and token.text != refused and self._clock() < token.good_until:
            return token.text
        if self._fetching is None or self._fetching.done():
            self._fetching = asyncio.ensure_future(self._fetch(run))
            # Looked at even if all who waited for it are gone: asyncio complains of errors that nobody has seen.
            self._fetching.add_done_callback(lambda done: done.cancelled() or done.exception())
        # Shielded: who is cancelled must not take the token from all the others who wait for it.
        return await asyncio.shield(self._fetching)

    async def _fetch(self, run: RunContext) -> str:
        service, asked = self._service, self._clock()
        answer = await service.send(run, "POST", self._url, data=self._form, headers={"accept": "application/json"})
        if answer.status not in (401, 403):
            service.check(run, "POST", self._url, answer)
        if not answer.ok:
            said = f"Authentication error: {service.title} refused the client credentials"
            raise RetryableError(f"{said} with {service.explain(answer)}")
        found = service.document("POST", self._url, answer)
        text, seconds = found.get("access_token"), found.get("expires_in")
        if not isinstance(text, str) or not text:
            raise RetryableError(f"Authentication error: {service.title} gave no access_token")
        life = timedelta(seconds=seconds) if isinstance(seconds, (int, float)) and seconds > 0 else _UNLESS_SAID
        # A token that lives hardly longer than a minute is used for half of its life.
        good_for = max(life - REFRESH_EARLY, life / 2)
        self._token = _Token(text, asked + good_for.total_seconds())
        service.hidden.remember("token", text)
        return text
