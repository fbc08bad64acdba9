"""What can go wrong, as one tree; stdlib only, open to every layer.

SchedulerError
├ ConfigError(path, problems)     settings or manifests: every problem at once, before anything started
├ SpecError(field, reason)        a task or trigger that cannot be; also a ValueError
│  ├ BadCron  ├ BadRate  ├ UnknownTimezone  └ NeverFires
├ NotFound(kind, key)
├ Conflict
│  └ RevisionConflict             someone else changed the trigger first
├ IllegalTransition(run, from, to)
├ LeaseLost(run, fence)           a late result; dropped and counted
└ StoreError
   ├ StoreUnavailable             retried with back-off; health is degraded meanwhile
   │  └ ClockJumped               a worker's clock is far ahead: it waits until that has lasted
   ├ StatementRefused             this statement, with this data, fails whenever it is tried
   └ SchemaMismatch               older or newer than this code; names the command that mends it
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


class SchedulerError(Exception):
    """Base of every error this package raises on purpose."""


@dataclass(frozen=True)
class Problem:
    """One fault: where it is (`triggers[1].cron`), what is wrong, and in which file if that differs from the error's."""

    where: str
    reason: str
    file: str | None = None

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}" if self.where else self.reason


class ConfigError(SchedulerError):
    """Settings or manifests that cannot be used; carries every problem found, not only the first."""

    def __init__(self, path: str, problems: Iterable[Problem | str]) -> None:
        self.path = path
        self.problems: tuple[Problem, ...] = tuple(p if isinstance(p, Problem) else Problem("", p) for p in problems)
        super().__init__("\n".join(self.lines()))

    def lines(self) -> list[str]:
        """One line a problem: `file: where: reason`."""
        return [f"{problem.file or self.path}: {problem}" for problem in self.problems]


class SpecError(SchedulerError, ValueError):
    """A task, trigger or schedule that cannot be; `field` names the part, `reason` says why and what to do."""

    def __init__(self, field: str, reason: str) -> None:
        self.field = field
        self.reason = reason
        super().__init__(f"{field}: {reason}" if field else reason)


class BadCron(SpecError):
    """A cron expression that its dialect does not allow."""


class BadRate(SpecError):
    """A fixed rate that is not a positive whole number of a known unit."""


class UnknownTimezone(SpecError):
    """A zone name that the time-zone database does not hold."""


class NeverFires(SpecError):
    """A schedule that fires at no time at all (one whose last fire is past is merely finished)."""


class NotFound(SchedulerError):
    """No such task, trigger, run…; `kind` and `key` say which, `near` what there is of nearly that name."""

    def __init__(self, kind: str, key: str, near: Sequence[str] = ()) -> None:
        self.kind = kind
        self.key = key
        self.near = tuple(near)
        hint = f": did you mean {' or '.join(self.near)}?" if self.near else ""
        super().__init__(f"{kind} {key!r} does not exist{hint}")


class Conflict(SchedulerError):
    """The request contradicts what is stored."""


class RevisionConflict(Conflict):
    """The trigger has another revision than the caller expected: someone else changed it first."""

    def __init__(self, key: str, expected: int, found: int) -> None:
        self.key = key
        self.expected = expected
        self.found = found
        super().__init__(f"trigger {key!r} is at revision {found}, not {expected}: someone else changed it first")


class IllegalTransition(SchedulerError):
    """A run cannot go from the phase it is in to the one asked for."""

    def __init__(self, run: str, from_phase: str, to_phase: str) -> None:
        self.run = run
        self.from_phase = from_phase
        self.to_phase = to_phase
        super().__init__(f"run {run!r} is {from_phase} and cannot become {to_phase}")


class LeaseLost(SchedulerError):
    """The run was taken by someone else since: the result that came late does not count."""

    def __init__(self, run: str, fence: int) -> None:
        self.run = run
        self.fence = fence
        super().__init__(f"run {run!r} was taken again after fence {fence}: this result is late and does not count")


class StoreError(SchedulerError):
    """The database did not do what was asked."""


class StoreUnavailable(StoreError):
    """The database cannot be reached, or does not take what it usually takes; trying again later is right."""


class StatementRefused(StoreError):
    """The database does not take this statement with this data, whenever it is tried; `code` is its SQLSTATE or the like."""

    def __init__(self, message: str, code: str | None = None) -> None:
        self.code = code
        super().__init__(message)


class ClockJumped(StoreUnavailable):
    """The clock that decides is far ahead of what it should say: a worker decides nothing by it until that has lasted."""


class SchemaMismatch(StoreError):
    """The database's schema is older or newer than this code; the message names the command that mends it."""
