"""Secrets of a run, and texts in which they do not appear."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Final

from executors.errors import RetryableError

# Hiding every "1" or "eu" would only make texts unreadable; nothing so short is a secret.
_SHORTEST: Final = 4


class Hidden:
    """Values that no text may show."""

    def __init__(self, values: Iterable[str | None] = ()) -> None:
        self._known: dict[int | str, str | None] = dict(enumerate(values))
        self._values: list[str] = []
        self._arrange()

    def remember(self, name: str, value: str) -> None:
        """One more value, in the place of the last one of this name."""
        self._known[name] = value
        self._arrange()

    def hide(self, text: str) -> str:
        """The text with `***` in the place of every such value."""
        for value in self._values:
            text = text.replace(value, "***")
        return text

    def shown_in(self, text: str) -> bool:
        """True if the text holds such a value."""
        return any(value in text for value in self._values)

    def _arrange(self) -> None:
        chosen = {value for value in self._known.values() if value is not None and len(value) >= _SHORTEST}
        # The longer first: one may be part of another.
        self._values = sorted(chosen, key=len, reverse=True)


def resolve_secrets(wanted: Mapping[str, str], declared: Mapping[str, str]) -> dict[str, str]:
    """The value of each secret: what the settings declare under either of its names, or the environment variable.

    Raises `RetryableError` for one that is nowhere: it may be there when the worker has been started anew.
    """
    found = {}
    for name, variable in wanted.items():
        value = declared.get(name, declared.get(variable, os.environ.get(variable)))
        if value is None:
            raise RetryableError(f"the secret {name!r} is missing: the environment variable {variable} is not set")
        found[name] = value
    return found
