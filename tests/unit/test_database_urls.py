"""Database URLs: several hosts in every form, and settings in a text of options."""

from __future__ import annotations

import pytest

from scheduler.errors import ConfigError
from scheduler.reading.database_url import normalise_url, redact_url
from scheduler.settings import Settings
from scheduler.store.connections import connection_keywords, settings_of
from scheduler.store.urls import parse_url


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("postgresql://h/d", "h", None),
        ("postgresql://h:1/d", "h", 1),
        ("postgresql://[::1]:1/d", "::1", 1),
        ("postgresql://a:1,b:2/d", "a,b", "1,2"),
        ("postgresql://a,b/d", "a,b", None),
        ("postgresql://a,b:2/d?sslmode=disable", "a,b", ",2"),
        ("postgresql://[::1]:1,[::2],b:3", "::1,::2,b", "1,,3"),
        ("postgresql:///d?host=a:1&host=b:2", "a,b", "1,2"),
        ("postgresql:///d?host=a:1,b", "a,b", "1,"),
        ("postgresql:///d?host=a,b&port=1,2", "a,b", "1,2"),
        ("postgresql://:7/d?host=a,b", "a,b", 7),
        ("postgresql:///d?host=[fe80::1%25eth0]:1", "fe80::1%eth0", "1"),
        ("postgresql:///d?host=/run/a&port=5", "/run/a", "5"),
        ("postgresql:///d?host=/run/a:b", "/run/a:b", None),
        ("postgresql:///d?host=/run/a&host=b:2", "/run/a,b", ",2"),
        ("postgresql://%2Frun%2Fa/d", "/run/a", None),
        ("postgresql://%2Frun%2Fa:5/d", "/run/a", 5),
    ],
)
def test_hosts_and_ports_in_every_form(url: str, host: str, port: object) -> None:
    for whole in (url, url.replace("//", "//me:p%40,%2Fw@", 1)):
        keywords = connection_keywords(parse_url(normalise_url(whole)))
        assert (keywords["host"], keywords.get("port")) == (host, port)
        assert keywords.get("password") == (None if whole == url else "p@,/w")
        assert "p%40" not in redact_url(whole)


@pytest.mark.parametrize("url", ["postgresql://a:x,b:2/d", "postgresql://a:1,b:y/d", "postgresql://a b,c/d"])
def test_hosts_that_cannot_be_read_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        normalise_url(url)


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ("", {}),
        ("-c a=1", {"a": "1"}),
        ("-ca=1 -c b=2", {"a": "1", "b": "2"}),
        ("--search-path=x,y --B.c=3", {"search_path": "x,y", "b.c": "3"}),
        (r"-c a=one\ two\\three", {"a": r"one two\three"}),
        ("-c a=b=c", {"a": "b=c"}),
        ("-d 5 -c", {}),
    ],
)
def test_the_settings_in_a_text_of_options(options: str, settings: dict[str, str]) -> None:
    assert settings_of(options) == settings


def test_a_timeout_of_commands_has_bounds() -> None:
    assert Settings(database={"command_timeout": "90s"}).database.command_timeout.total_seconds() == 90
    for wrong in ("0s", "999ms", "2h"):
        with pytest.raises(ConfigError, match="is not within 1s to 1h"):
            Settings(database={"command_timeout": wrong})
