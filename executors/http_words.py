"""What HTTP answers and errors say, for every executor that sends requests."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import unquote, urlsplit, urlunsplit

# Thirty years: a `timedelta` of it can be added to any instant. What a run really waits its `retries.maximum` bounds.
_LONGEST_WAIT: Final = 10**9
_AT_MOST: Final = timedelta(seconds=_LONGEST_WAIT)


def load_client() -> None:
    """Load what sends requests, which takes a third of a second: before anything is due, not when the first run is."""
    for module in ("aiohttp", "tenacity"):
        importlib.import_module(module)


def retry_after(headers: Mapping[str, str], now: datetime) -> timedelta | None:
    """The wait that the target asks for: seconds, or a date by the target's own clock if it tells that."""
    found = {name.lower(): value for name, value in headers.items()}
    asked = found.get("retry-after", "").strip()
    if asked.isascii() and asked.isdigit():
        # A number of any length; of how many digits Python will read is bounded.
        return timedelta(seconds=int(asked)) if len(asked) < len(str(_LONGEST_WAIT)) else _AT_MOST
    until = http_date(asked)
    if until is None:
        return None
    return max(until - (http_date(found.get("date", "")) or now), timedelta(0))


def http_date(text: str) -> datetime | None:
    """The instant of a header like `Date`, aware; None if it is none."""
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def url_fault(url: str) -> str | None:
    """Why a text is no URL that can be asked; None if it is one."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        return f"is no URL: {error}"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "is no URL: write http://host/path or https://host/path"
    return None


def words(error: BaseException) -> str:
    """What an error of a connection says; never nothing."""
    return str(error) or ("timed out" if isinstance(error, TimeoutError) else type(error).__name__)


def without_user(url: str) -> str:
    """A URL without user and password."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "a URL that cannot be read"
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else url


def last_segment(url: str) -> str:
    """The end of a URL's path, decoded, as a service names what it has made in `Location`; nothing if there is none."""
    try:
        return unquote(urlsplit(url).path.rstrip("/").rpartition("/")[2])
    except ValueError:
        return ""
