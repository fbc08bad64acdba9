"""What an executor may raise, as one tree; stdlib only.

    ExecutorError
    ├ RetryableError(retry_after)          tried again as the task's `retries` say
    │ └ WorkerExhausted                    the worker is short of something: the run is handed back, no attempt is counted
    ├ PermanentError                       never tried again
    ├ ExecutorNotFound(name)               no executor by that name
    └ ExecutorConfigError(name, problems)  wrong options or task config: every fault at once

Any other exception that leaves `Executor.execute` is retryable, and its traceback becomes the attempt's error.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import ClassVar, TypeAlias

Problem: TypeAlias = tuple[str, str]
"""One fault: its path (`command[1]`, empty for the whole) and the reason, which also says what to do."""


class ExecutorError(Exception):
    """Base of every error this package raises on purpose.

    `outcome_known` is false where the target may or may not have acted: a connection broken after sending, say. The
    next attempt then keeps this attempt's key, so that a target which did act recognises the repetition.
    """

    retryable: ClassVar[bool] = True

    def __init__(self, message: str, *, outcome_known: bool = True) -> None:
        super().__init__(message)
        self.outcome_known = outcome_known


class RetryableError(ExecutorError):
    """The attempt failed and another may succeed.

    `retry_after`, a timedelta or a number of seconds, is the least wait that the target asked for. With
    `outcome_known=False` the next attempt keeps the idempotency key of this one.
    """

    def __init__(
        self, message: str, retry_after: timedelta | float | None = None, *, outcome_known: bool = True
    ) -> None:
        super().__init__(message, outcome_known=outcome_known)
        if retry_after is not None and not isinstance(retry_after, timedelta):
            retry_after = timedelta(seconds=retry_after)
        self.retry_after: timedelta | None = retry_after


class WorkerExhausted(RetryableError):  # says what is wrong
    """The worker has no descriptor, thread or process left: nothing of the run was done, and another worker may do it."""


class PermanentError(ExecutorError):
    """The attempt failed and every other would fail alike: the run ends now, whatever its `retries`."""

    retryable = False


class ExecutorNotFound(ExecutorError):  # named like the error a caller meets
    """Nothing can be found under `name`; `reason` says where it was looked for and what is there instead."""

    retryable = False

    def __init__(self, name: str, reason: str = "") -> None:
        self.name = name
        self.reason = reason
        super().__init__(f"executor {name!r} does not exist" + (f": {reason}" if reason else ""))


class ExecutorConfigError(ExecutorError):
    """An executor's options or a task's `config` that cannot be used: all `problems` at once, values never shown."""

    retryable = False

    def __init__(self, name: str, problems: Iterable[Problem]) -> None:
        self.name = name
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__(
            "\n".join(f"{name}: {path}: {why}" if path else f"{name}: {why}" for path, why in self.problems)
        )
