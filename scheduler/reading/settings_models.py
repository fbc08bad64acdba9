"""The sections of the settings: every key with its type, its default and its bounds."""

from __future__ import annotations

import ipaddress
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from scheduler.domain.identity import check_name
from scheduler.domain.instants import format_duration, parse_duration
from scheduler.domain.zones import zone_of
from scheduler.reading.database_url import normalise_url
from scheduler.reading.texts import kind

_VARIABLE_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_HEX: Final = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)


def _duration(value: object) -> timedelta:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, str):
        return parse_duration(value, "")
    if value is None:
        raise ValueError("is empty: give it a value or remove the key")
    hint = f": write {value}s" if isinstance(value, (int, float)) and not isinstance(value, bool) else ""
    raise ValueError(f"is {kind(value)}, not a duration such as 30s or 10m{hint}")


def listed(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _as_path(value: object) -> object:
    if value == "":
        raise ValueError("is empty: name a file or a folder")
    return Path(value) if isinstance(value, str) else value


Duration = Annotated[timedelta, BeforeValidator(_duration)]
Name = Annotated[str, AfterValidator(lambda value: check_name(value, ""))]
Names = Annotated[tuple[Name, ...], BeforeValidator(listed)]
Paths = Annotated[tuple[Annotated[Path, BeforeValidator(_as_path)], ...], BeforeValidator(listed)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]


def _within(value: timedelta, least: timedelta, most: timedelta) -> timedelta:
    if value < timedelta(0):
        raise ValueError("cannot be negative")
    if not least <= value <= most:
        raise ValueError(f"{format_duration(value)} is not within {format_duration(least)} to {format_duration(most)}")
    return value


class Section(BaseModel):
    # Strict, so that "8080" is no port and 1 is no boolean: a file that means something else than it says is refused.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class Database(Section):
    """Where everything is kept. `url` is normalised: `sqlite:///file` or `postgresql+psycopg://…`."""

    url: str = Field(default="sqlite:///scheduler.db", repr=False)
    auto_upgrade: bool | None = None
    pool_size: Annotated[int, Field(ge=1, le=1000)] = 5
    command_timeout: Duration = timedelta(seconds=30)

    @field_validator("command_timeout")
    @classmethod
    def _long_enough(cls, value: timedelta) -> timedelta:
        return _within(value, timedelta(seconds=1), timedelta(hours=1))

    @field_validator("url")
    @classmethod
    def _known_database(cls, value: str) -> str:
        return normalise_url(value)

    @property
    def is_postgresql(self) -> bool:
        """Whether `url` names PostgreSQL; otherwise it is SQLite."""
        return self.url.startswith("postgresql")

    @property
    def upgrades_itself(self) -> bool:
        """`auto_upgrade`, or where that is null: yes for SQLite, no for PostgreSQL."""
        return not self.is_postgresql if self.auto_upgrade is None else self.auto_upgrade


class Defaults(Section):
    """What manifests and the command line mean where they name no project, domain or zone."""

    project: Name = "flytesnacks"
    domain: Name = "development"
    timezone: str = "UTC"

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        return zone_of(value).name


class Worker(Section):
    """How one worker process behaves."""

    name: Name | None = None
    resync_interval: Duration = timedelta(seconds=30)
    max_concurrent_runs: Annotated[int, Field(ge=1, le=100_000)] = 100
    max_catchup_runs_per_loop: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    fire_batch: Annotated[int, Field(ge=1, le=10_000)] = 1000
    lease: Duration = timedelta(seconds=30)
    max_lost: Annotated[int, Field(ge=1, le=1000)] = 5
    shutdown_grace: Duration = timedelta(seconds=30)
    misfire_grace: Duration = timedelta(seconds=60)
    max_output_bytes: Annotated[int, Field(ge=1024, le=256 * 1024 * 1024)] = 1024 * 1024
    max_clock_jump: Duration = timedelta(hours=1)

    @field_validator("resync_interval")
    @classmethod
    def _beat(cls, value: timedelta) -> timedelta:
        return _within(value, timedelta(milliseconds=50), timedelta(days=1))

    @field_validator("lease", "misfire_grace")
    @classmethod
    def _at_least_a_second(cls, value: timedelta, info: ValidationInfo) -> timedelta:
        return _within(value, timedelta(seconds=1), timedelta(days=1 if info.field_name == "lease" else 366))

    @field_validator("max_clock_jump")
    @classmethod
    def _jump(cls, value: timedelta) -> timedelta:
        return _within(value, timedelta(minutes=1), timedelta(days=36_500))

    @field_validator("shutdown_grace")
    @classmethod
    def _grace(cls, value: timedelta) -> timedelta:
        return _within(value, timedelta(0), timedelta(days=1))


class Retention(Section):
    """How long history is kept: `runs` by age beside the newest `runs_per_trigger`, `revisions` by age."""

    runs: Duration = timedelta(days=30)
    runs_per_trigger: Annotated[int, Field(ge=0, le=1_000_000_000)] = 1000
    revisions: Duration = timedelta(days=365)

    @field_validator("runs", "revisions")
    @classmethod
    def _age(cls, value: timedelta) -> timedelta:
        return _within(value, timedelta(hours=1), timedelta(days=36_500))


class RateLimit(Section):
    """At most `per_second` starts a second over time, at most `burst` at once."""

    per_second: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    burst: Count = 1


class Executor(Section):
    """A declared executor: `use` names a built-in one or `package.module:Class`; `options` are that executor's own."""

    use: Annotated[str, Field(min_length=1)]
    options: dict[str, Any] = Field(default_factory=dict, repr=False)
    max_concurrent_runs: Count | None = None
    rate_limit: RateLimit | None = None


class Secret(Section):
    """Where a secret is found: the name of an environment variable, never the secret itself."""

    env: str = Field(repr=False)

    @field_validator("env")
    @classmethod
    def _variable(cls, value: str) -> str:
        if not _VARIABLE_NAME.fullmatch(value):
            raise ValueError("is not the name of an environment variable; the secret itself does not belong here")
        return value


class Web(Section):
    """The HTTP server of a worker."""

    enabled: bool = True
    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    flyte: bool = False

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach `host`."""
        if self.host.lower() == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False


class Token(Section):
    """A caller of the API: the token itself is never kept, only its SHA-256 in hexadecimal."""

    name: Name
    role: Annotated[str, Field(min_length=1)]
    sha256: str = Field(repr=False)

    @field_validator("sha256")
    @classmethod
    def _digest(cls, value: str) -> str:
        if not _HEX.fullmatch(value):
            raise ValueError("is not a SHA-256 in 64 hexadecimal digits; the token itself does not belong here")
        return value.lower()


class Auth(Section):
    """Who may use the API."""

    tokens: Annotated[tuple[Token, ...], BeforeValidator(listed)] = ()


class Logs(Section):
    """How the worker speaks."""

    format: Literal["console", "json"] = "console"
    level: Literal["debug", "info", "warning", "error", "critical"] = "info"
