"""What the settings may say about an Airflow executor, and the environment its child is given."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from executors.environment import inherited
from executors.errors import Problem
from executors.hiding import Hidden, resolve_secrets
from executors.protocol import RunContext

# The worker's own interpreter is described by these; another one would be led astray.
_OF_THE_WORKER: Final = frozenset({"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__"})
_HOLDS_SECRETS: Final = ("AIRFLOW_CONN_", "AIRFLOW_VAR_")


@dataclass(frozen=True)
class AirflowOptions:
    """`python` is the interpreter that has Airflow, the worker's own if there is none; `path`: folders to import from.

    `env` is put over the environment that the child inherits. `secrets` maps names of environment variables of the child
    to secrets of the settings, or to variables of the worker's environment. `home` is Airflow's AIRFLOW_HOME; without
    it, a folder for temporary files.
    """

    python: str | None = None
    path: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict, repr=False)
    secrets: dict[str, str] = field(default_factory=dict)
    home: str | None = None

    def check(self) -> Iterable[Problem]:
        """What types cannot say."""
        for name in (*self.env, *self.secrets):
            if not name or "=" in name or "\0" in name:
                yield f"env.{name}", "is no name of an environment variable"
        for name in self.secrets:
            if name in self.env:
                yield f"secrets.{name}", "is in `env` as well: keep one of them"

    def interpreter(self) -> str:
        """The program to start. A link is not followed: it is what tells an environment's interpreter.

        Whether it is there is found out when it is needed: a worker has more to do than what Airflow is needed for.
        """
        if self.python is None:
            return sys.executable
        named = os.path.expanduser(self.python)
        return os.path.abspath(shutil.which(named) or named)

    def environment(self, run: RunContext, home: str) -> tuple[dict[str, str], Hidden]:
        """The child's environment, and what of it no text may show.

        Raises `RetryableError` for a secret that is nowhere.
        """
        secrets = resolve_secrets(self.secrets, run.secrets)
        env = {
            name: value for name, value in inherited(hidden=run.hidden_env).items() if name not in _OF_THE_WORKER
        } | {"AIRFLOW_HOME": self.home or home, "PYTHONUNBUFFERED": "1", **self.env, **secrets}
        hidden = [*secrets.values(), *(each for value in secrets.values() for each in parts_of(value))]
        for name, value in env.items():
            if name.startswith(_HOLDS_SECRETS):
                hidden += [value, *parts_of(value)]
        return env, Hidden(hidden)


def parts_of(connection: str) -> Iterator[str]:
    """What is secret within an Airflow connection, written as JSON or as a URI."""
    try:
        document = json.loads(connection)
    except ValueError:
        try:
            password = urlsplit(connection).password
        except ValueError:
            password = None
        if password:
            yield password
            yield unquote(password)
        return
    if isinstance(document, dict):
        if isinstance(password := document.get("password"), str):
            yield password
        yield from _texts(document.get("extra"))


def _texts(extra: Any) -> Iterator[str]:
    if isinstance(extra, str):
        yield extra
        try:
            extra = json.loads(extra)
        except ValueError:
            return
    if isinstance(extra, Mapping):
        for name, value in extra.items():
            # Whatever is called so is one; hiding every text of an extra would hide hosts and paths too.
            if isinstance(value, str) and any(word in str(name).lower() for word in ("secret", "token", "pass", "key")):
                yield value
            elif isinstance(value, Mapping):
                yield from _texts(value)
