"""The contract between the worker and an executor: what is given, what is returned.

    class Greet(Executor):
        async def execute(self, run: RunContext) -> Outcome:
            run.log.info("hello from %s", run.run_name)
            return Succeeded({"greeted": run.inputs["name"]})

Outcomes are values, never exceptions; what may be raised is in `executors.errors`. `execute` that returns None has
succeeded without outputs.
"""

from __future__ import annotations

import logging
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from executors.errors import ExecutorError, PermanentError, RetryableError
from executors.jsonvalue import json_fault
from executors.output import Output, clip
from executors.waits import Poll, Until, Wait

if TYPE_CHECKING:
    from asyncio import Future

    from aiohttp import ClientSession

_STILL: Final = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Succeeded:
    """The attempt did what it should; `outputs`, a JSON object, is stored with the run."""

    outputs: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.outputs is None:
            object.__setattr__(self, "outputs", {})


@dataclass(frozen=True)
class Failed:
    """The attempt did not do what it should; `error` is for people.

    `retryable=False` ends the run whatever its `retries`; `retry_after` is the least wait before the next attempt;
    `outcome_known=False` makes the next attempt keep this one's idempotency key.
    """

    error: str
    retryable: bool = True
    retry_after: timedelta | None = None
    outcome_known: bool = True


@dataclass(frozen=True)
class Deferred:
    """The run waits outside the worker, taking no place in it; `state`, any JSON value, is given back on resumption."""

    wait: Wait
    state: Any = None


Outcome: TypeAlias = Succeeded | Failed | Deferred


@dataclass(frozen=True)
class Resumed:
    """Why a deferred run is executed again: the `state` it left and the `event`, if any, that ended the wait."""

    state: Any = None
    event: Mapping[str, Any] | None = None


class Log(Protocol):
    """A logger already bound to the run: stdlib's methods and `%s` arguments."""

    def debug(self, msg: str, /, *args: Any, **kwargs: Any) -> Any: ...
    def info(self, msg: str, /, *args: Any, **kwargs: Any) -> Any: ...
    def warning(self, msg: str, /, *args: Any, **kwargs: Any) -> Any: ...
    def error(self, msg: str, /, *args: Any, **kwargs: Any) -> Any: ...
    def exception(self, msg: str, /, *args: Any, **kwargs: Any) -> Any: ...


@dataclass(eq=False, kw_only=True)
class RunContext:
    """One attempt of one run, as its executor sees it.

    In a test only the name is needed: `RunContext("nightly-1", inputs={"region": "eu"})`. Left at their defaults, `now`
    stands still at `scheduled_at`, and `http` is a session of the context's own that `async with RunContext(…) as run`
    closes.
    """

    run_name: str = field(kw_only=False)
    key: str = ""
    """The idempotency key for every target: stable while it is unknown whether an attempt acted. Default: run_name."""
    project: str = "flytesnacks"
    domain: str = "development"
    task: str = "task"
    version: str = "v1"
    trigger: str = "trigger"
    scheduled_at: datetime | None = None
    """The slot, aware and UTC; None for a manual run."""
    covers: tuple[datetime, datetime] | None = None
    """For a run that stands for missed slots: the first and the last of them, aware and UTC."""
    inputs: Mapping[str, Any] = field(default_factory=dict)
    kickoff_input: str | None = None
    """The name of the input that holds the slot, if the trigger has one."""
    config: Any = field(default_factory=dict, repr=False)
    """The task's `config`: an instance of the executor's `Config` if it declares one, else a dict."""
    attempt: int = 1
    """From 1."""
    deadline: datetime | None = None
    """The instant, aware and UTC, at which this attempt will be cancelled; None: never. It is an instant of the clock that
    `now` reads: what is left is `deadline - now()`, however wrong the machine's own clock is."""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    hidden_env: frozenset[str] = field(default=frozenset(), repr=False)
    """Names of environment variables that hold secrets: no child process inherits them."""
    log: Log = field(default=None, repr=False)  # type: ignore[assignment]  # made in __post_init__, which knows the name
    resumed: Resumed | None = None
    """Set when a deferred run goes on."""
    output: Output = field(default_factory=Output, repr=False)
    """What the attempt printed, kept with it: 64 KiB, the middle left out."""
    max_output_bytes: int | None = field(default=None, repr=False)
    """How many bytes the outputs, or the state of a `Deferred`, may have as JSON: what has more fails the attempt. A worker
    says its settings' `worker.max_output_bytes`; None: no limit."""
    clock: Callable[[], datetime] | None = field(default=None, repr=False)
    http_session: Callable[[], ClientSession] | None = field(default=None, repr=False)
    """Makes or returns the session that `http` hands out; called at first use."""
    still_running: Future[None] | None = field(default=None, init=False, repr=False)
    """Set by an executor that had to leave code running behind it; done when that code has ended."""

    def __post_init__(self) -> None:
        self.key = self.key or self.run_name
        if self.log is None:
            self.log = logging.LoggerAdapter(logging.getLogger("executors"), {"run": self.run_name})
        self._own_http: ClientSession | None = None

    def now(self) -> datetime:
        """The present instant, aware and UTC, by the database's clock, which decides for all workers."""
        return self.clock() if self.clock else self.scheduled_at or _STILL

    @property
    def http(self) -> ClientSession:
        """A shared aiohttp session, made at first use; not to be closed by the executor."""
        if self.http_session is not None:
            return self.http_session()
        if self._own_http is None:
            from executors.http_client import new_session

            self._own_http = new_session()
        return self._own_http

    @property
    def abandoned(self) -> bool:
        """True if the executor returned while its code still ran (a thread cannot be stopped): see `still_running`."""
        return self.still_running is not None and not self.still_running.done()

    @property
    def full_trigger(self) -> str:
        """`project/domain/trigger`, as messages name it."""
        return f"{self.project}/{self.domain}/{self.trigger}"

    async def __aenter__(self) -> RunContext:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._own_http is not None:
            await self._own_http.close()
            self._own_http = None


class Executor(ABC):
    """Performs runs. One instance serves all runs of its name in a worker, many at once, on one event loop.

    A nested dataclass `Options` describes what the settings may say about the executor, and a nested dataclass `Config`
    what a task's `config` may say; both are checked strictly, every fault at once, before anything starts. Without
    `Options` there are no options; without `Config` the config is any mapping.

    The worker enforces timeout, cancel and shutdown by cancelling the task that awaits `execute`: code that must end
    something outside does so in `except asyncio.CancelledError` or `finally`, then lets the error pass. An attempt is
    over when `execute` has returned or raised, not before.
    """

    look_soon: Callable[[str], None] | None = None
    """Set by the worker: called with a run's name, on its event loop, has the run's wait looked at before its turn."""

    def __init__(self, options: Any = None, **keywords: Any) -> None:
        """`options`: an `Options`, a mapping, or the same as keywords. Wrong ones raise `ExecutorConfigError`."""
        from executors.schema import make_options

        self.options: Any = make_options(type(self), options, keywords)

    async def start(self) -> None:  # noqa: B027  # a hook, not a duty
        """Called once on the worker's event loop before the first run."""

    async def close(self) -> None:  # noqa: B027
        """Called once after the last run has ended."""

    @abstractmethod
    async def execute(self, run: RunContext) -> Outcome | None:
        """Perform the run and say how it ended; None means `Succeeded()`."""

    async def poll(self, run: RunContext) -> Outcome:
        """Look how a run deferred with `Poll` stands: another `Deferred(Poll(…))`, or how it ended.

        `run.resumed.state` is the state of the `Deferred` that stands.
        """
        raise PermanentError(f"{type(self).__name__} deferred a run with Poll, but defines no poll()")

    def forget(self, run_name: str, *, over: bool) -> None:  # noqa: B027  # a hook, not a duty
        """The worker looks at this run's wait no more: what was kept of it in memory may go.

        `over`: its attempt has ended; else the run goes on in a place, or another worker looks at its wait.
        """


def as_outcome(value: object) -> Outcome:
    """What `execute` returned, as an outcome: None is success; anything that is none raises `PermanentError`."""
    if value is None:
        return Succeeded()
    if isinstance(value, Succeeded):
        if type(value.outputs) is dict and not value.outputs:
            return value  # Most runs: there is nothing to look through.
        if not isinstance(value.outputs, Mapping):
            raise PermanentError(f"Succeeded(outputs=…) takes a mapping, not a {type(value.outputs).__name__}")
        if fault := json_fault(value.outputs, "outputs"):
            raise PermanentError(f"the outputs cannot be stored: {fault}")
        return value
    if isinstance(value, Deferred):
        if not isinstance(value.wait, (Until, Poll)):
            raise PermanentError(f"Deferred(wait=…) takes an Until or a Poll, not a {type(value.wait).__name__}")
        if fault := json_fault(value.state, "state"):
            raise PermanentError(f"the state of a deferred run cannot be stored: {fault}")
        return value
    if isinstance(value, Failed):
        return _plain_failure(value)
    if isinstance(value, type) and issubclass(value, (Succeeded, Failed, Deferred)):
        raise PermanentError(f"execute() returned the class {value.__name__}: return {value.__name__}(…)")
    if isinstance(value, BaseException):
        raise PermanentError(f"execute() returned a {type(value).__name__}: raise it, or return Failed(…)")
    advice = "return Succeeded({…}) to keep it as outputs" if isinstance(value, Mapping) else "return Succeeded()"
    raise PermanentError(f"execute() returned a {type(value).__name__}, which is no outcome: {advice}")


def _plain_failure(value: Failed) -> Failed:
    """The same with what belongs in each field: an exception for a text must not keep a run from ending."""
    retry_after: Any = value.retry_after
    if retry_after is not None and not isinstance(retry_after, timedelta):
        try:
            retry_after = timedelta(seconds=retry_after)
        except (TypeError, ValueError, OverflowError):
            retry_after = None
    if type(value) is Failed and type(value.error) is str and retry_after is value.retry_after:
        return value
    error: Any = value.error
    if isinstance(error, Exception):
        error = as_failure(error).error
    return Failed(str(error), bool(value.retryable), retry_after, bool(value.outcome_known))


def as_failure(error: BaseException) -> Failed:
    """What `execute` raised, as an outcome: errors of ours by their own words, others retryable with traceback."""
    from asyncio import CancelledError

    if isinstance(error, CancelledError):
        raise TypeError("a cancellation is no failure: only the worker knows whether it meant timeout, cancel or drain")
    if isinstance(error, ExecutorError):
        retry_after = error.retry_after if isinstance(error, RetryableError) else None
        return Failed(str(error), error.retryable, retry_after, error.outcome_known)
    return Failed(clip("".join(traceback.format_exception(error))))
