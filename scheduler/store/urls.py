"""Database URLs as this package understands them: SQLAlchemy's, and libpq's several hosts and folders of sockets too."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from scheduler.errors import StoreError

_UNREADABLE = "the database URL cannot be read: write sqlite:///file.db or postgresql://host/name"
# postgresql://user@a:5432,b:5433/name, which libpq understands and SQLAlchemy does not.
_SEVERAL_HOSTS = re.compile(r"(\w+(?:\+\w+)?://)((?:[^@/?]*@)?)([^@/?]*,[^@/?]*)((?:/[^?]*)?)(?:\?(.*))?", re.DOTALL)


def parse_url(url: str) -> URL:
    """The URL with the driver this package uses; unsupported databases raise `StoreError`.

    Several hosts of PostgreSQL, however they were written, stand in the query afterwards: `host=a,b` and `port=1,2`.
    """
    try:
        parsed = make_url(_hosts_in_query(url))
    except (ArgumentError, ValueError):
        raise StoreError(_UNREADABLE) from None
    match parsed.get_backend_name():
        case "postgresql" | "postgres":
            return _with_hosts(parsed.set(drivername="postgresql+psycopg"))
        case "sqlite":
            return parsed.set(drivername="sqlite")
    raise StoreError(f"{parsed.drivername} is not supported: write sqlite:///file.db or postgresql://host/name")


def sqlite_file(url: URL) -> Path | None:
    """The database file of a SQLite URL; None for PostgreSQL."""
    if url.get_backend_name() != "sqlite":
        return None
    if not url.database or url.database == ":memory:":
        raise StoreError("an in-memory database forgets what it owes: name a file, sqlite:///scheduler.db")
    return Path(url.database)


def _hosts_in_query(url: str) -> str:
    match = _SEVERAL_HOSTS.fullmatch(url)
    if match is None or not match[1].startswith("postgres"):
        return url
    scheme, user, hosts, database, query = match.groups()
    return f"{scheme}{user}{database or '/'}?host={hosts}" + (f"&{query}" if query else "")


def _with_hosts(url: URL) -> URL:
    if url.host is not None:
        # SQLAlchemy leaves it as it was typed; a socket's folder stands there as %2Frun%2Fpostgresql.
        url = url.set(host=unquote(url.host))
    hosts, ports = _listed(url.query.get("host", ())), _listed(url.query.get("port", ()))
    if not hosts:
        return url
    if not ports:
        split = [_host_and_port(host) for host in hosts]
        hosts = [host for host, _ in split]
        ports = [port for _, port in split] if any(port for _, port in split) else []
    query = {name: value for name, value in url.query.items() if name not in ("host", "port")}
    query["host"] = ",".join(hosts)
    if ports:
        query["port"] = ",".join(ports)
    return url.set(query=query)


def _listed(value: str | Sequence[str]) -> list[str]:
    values = [value] if isinstance(value, str) else value
    return [part.strip() for text in values for part in text.split(",")]


def _host_and_port(text: str) -> tuple[str, str]:
    if match := re.fullmatch(r"\[([^]]*)\](?::(\d*))?|([^:/]*):(\d*)", text):
        return match[1] or match[3] or "", match[2] or match[4] or ""
    return text, ""
