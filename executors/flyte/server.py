"""What the settings say about a server of Flyte's, whichever services it has; needs none of Flyte's libraries."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from executors.errors import Problem


@dataclass(frozen=True)
class ServerOptions:
    """`endpoint` is a host with a port, or a URL; `insecure` means that nothing is encrypted.

    `ca_cert` is a file of certificates that are trusted, PEM, in place of the system's; `headers` are sent with every
    call; `timeout` is for each call.
    """

    endpoint: str
    insecure: bool = False
    ca_cert: str | None = None
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    timeout: timedelta = timedelta(seconds=10)

    def check(self) -> Iterable[Problem]:
        """What types cannot say."""
        try:
            url = server_url(self.endpoint, self.insecure)
        except ValueError as fault:
            yield "endpoint", str(fault)
        else:
            if self.ca_cert is not None and url.startswith("http:"):
                yield "ca_cert", "belongs to an encrypted connection, and insecure is true"
        if self.ca_cert is not None and not Path(self.ca_cert).is_file():
            yield "ca_cert", "there is no such file"
        for name, value in self.headers.items():
            if (
                not name.isascii()
                or not value.isascii()
                or any(c < " " for c in name + value)
                or " " in name
                or not name
            ):
                yield f"headers.{name}", "is no header that can be sent"
        if self.timeout <= timedelta(0):
            yield "timeout", "is not a positive duration"


def server_url(endpoint: str, insecure: bool) -> str:
    """The URL that an endpoint means; `ValueError` with the reason if it means none."""
    text = endpoint.strip()
    if text.startswith("dns:"):  # As Flyte's own settings write it.
        text = text.removeprefix("dns:").lstrip("/")
    if "://" not in text:
        text = f"{'http' if insecure else 'https'}://{text}"
    try:
        parts = urlsplit(text)
        usable = parts.hostname and parts.port != 0
    except ValueError as error:
        raise ValueError(f"cannot be read: {error}") from None
    if parts.scheme not in ("http", "https") or not usable or parts.query or parts.fragment:
        raise ValueError("is no endpoint: write host:port, http://host:port or https://host")
    if parts.username is not None:
        raise ValueError("names a user: send what authenticates as one of the headers")
    if parts.scheme == "http" and not insecure:
        raise ValueError("says http, which is not encrypted: add insecure: true if that is meant, else write https")
    if parts.scheme == "https" and insecure:
        raise ValueError("says https, and insecure is true: leave one of them out")
    return text.rstrip("/")
