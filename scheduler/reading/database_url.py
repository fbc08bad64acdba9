"""Database URLs: which are understood, where a relative SQLite file lies, and how one is shown without its password.

No message here repeats the URL: it may hold a password, and a mistyped one holds it in an unexpected place.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

_SQLITE: Final = ("sqlite", "sqlite+pysqlite")
_POSTGRESQL: Final = ("postgresql", "postgres", "postgresql+psycopg")
_EXAMPLE: Final = "write sqlite:///scheduler.db or postgresql://user@host/name"
_ENCODE: Final = "percent-encode special characters of user and password (@ is %40, / is %2F, # is %23)"
_PASSWORD: Final = re.compile(r"(://[^/?#@:\s]*):[^/\s]*@")
_PASSWORD_OPTION: Final = re.compile(r"([?&](?:ssl)?password=)[^&#\s]*", re.IGNORECASE)


def normalise_url(url: str) -> str:
    """The URL with the driver that is used: `sqlite:///…` or `postgresql+psycopg://…`; raises `ValueError` otherwise."""
    if not url.strip():
        raise ValueError(f"is empty: {_EXAMPLE}")
    scheme, separator, rest = url.strip().partition("://")
    if not separator or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+]*", scheme):
        raise ValueError(f"is not a database URL: {_EXAMPLE}")
    if scheme.lower() in _SQLITE:
        return _sqlite(rest)
    if scheme.lower() in _POSTGRESQL:
        return _postgresql(rest)
    if scheme.lower().startswith("postgresql+"):
        raise ValueError("names a driver: write postgresql://, which uses psycopg 3")
    raise ValueError(f"names a database of kind {scheme[:20]}: only sqlite and postgresql are supported")


def _sqlite(rest: str) -> str:
    if not rest.startswith("/"):
        if rest == "" or rest.startswith((":memory:", "?")):
            raise ValueError("names a database in memory, which would forget every run: name a file")
        raise ValueError("needs three slashes before the file: sqlite:///scheduler.db")
    file = rest[1:].partition("?")[0]
    if file in ("", ":memory:"):
        raise ValueError("names a database in memory, which would forget every run: name a file")
    if file.startswith("file:"):
        raise ValueError("names the file as a URI: write its plain path, as in sqlite:///scheduler.db")
    return f"sqlite://{rest}"


def _postgresql(rest: str) -> str:
    address = re.split("[/?#]", rest, maxsplit=1)[0]
    path = rest.removeprefix(address).partition("?")[0]
    try:
        # libpq knows several hosts, each with a port of its own: user@first:5432,second:5433/name
        for host in address.rpartition("@")[2].split(","):
            urlsplit(f"//{host}").port  # noqa: B018 - reading it is the check
    except ValueError:
        raise ValueError(f"cannot be read: is its port a number? {_ENCODE}") from None
    if "#" in rest or "@" in path or any(character.isspace() for character in rest):
        raise ValueError(f"cannot be read: {_ENCODE}")
    return f"postgresql+psycopg://{rest}"


def resolve_url(url: str, base: Path) -> str:
    """A normalised URL whose SQLite file, if relative, lies under `base`; others unchanged."""
    if not url.startswith("sqlite:///"):
        return url
    file, mark, options = url.removeprefix("sqlite:///").partition("?")
    return f"sqlite:///{base / file}{mark}{options}"


def redact_url(text: str) -> str:
    """The text with the passwords of its URLs replaced by `***`."""
    return _PASSWORD_OPTION.sub(r"\1***", _PASSWORD.sub(r"\1:***@", text))
