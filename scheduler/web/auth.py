"""Who may ask: bearer tokens, of which only the SHA-256 is known."""

from __future__ import annotations

import hmac
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

_SCHEME: Final = b"bearer "


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who may use the API: a name, a role, and the SHA-256 of the token in lower-case hexadecimal."""

    name: str
    role: str
    sha256: str = field(repr=False)


class BearerTokens:
    """Lets requests through that carry a caller's token, and any to the paths that are open to all.

    The caller is found in `request.state.caller`. Everything else is answered 401, whether there is such a page or not.
    """

    def __init__(self, app: ASGIApp, *, callers: Sequence[Caller], open_to_all: Collection[str] = ()) -> None:
        self._app = app
        self._callers = [(caller, caller.sha256.encode()) for caller in callers]
        self._open = frozenset(open_to_all)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or scope["path"] in self._open:
            await self._app(scope, receive, send)
            return
        caller = self._caller([value for name, value in scope["headers"] if name == b"authorization"])
        if caller is None:
            refusal = JSONResponse(
                {"detail": "a bearer token is needed: Authorization: Bearer TOKEN"},
                401,
                headers={"WWW-Authenticate": "Bearer", "Cache-Control": "no-store"},
            )
            await refusal(scope, receive, send)
            return
        scope.setdefault("state", {})["caller"] = caller
        await self._app(scope, receive, send)

    def _caller(self, headers: list[bytes]) -> Caller | None:
        if len(headers) != 1 or headers[0][: len(_SCHEME)].lower() != _SCHEME:
            return None
        given = sha256(headers[0][len(_SCHEME) :].strip()).hexdigest().encode()
        found = None
        for caller, expected in self._callers:
            # Every one is compared, in constant time: how long it takes tells nothing about any of them.
            if hmac.compare_digest(given, expected):
                found = caller
        return found
