"""What Flyte's connectors tell of a job's log, put together."""

from __future__ import annotations

from typing import Any, Final

_MOST: Final = 1024 * 1024


class LogText:
    """The lines of `GetTaskLogsResponse`s, the first MiB of them."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._length = 0

    def add(self, response: Any) -> None:
        """The lines of one answer; a page's token says nothing."""
        for line in [*response.body.results, *(line.message for line in response.body.lines)]:
            if not self.is_full:
                self._lines.append(line.rstrip("\n"))
                self._length += len(line)

    @property
    def is_full(self) -> bool:
        """True once there is more than anybody reads."""
        return self._length > _MOST

    @property
    def is_empty(self) -> bool:
        """True as long as nothing was told."""
        return not self._lines

    def __str__(self) -> str:
        return "".join(f"{line}\n" for line in self._lines)
