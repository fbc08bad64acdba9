"""Calling a function for a run: finding it, handing it its arguments, taking its result or its error.

Shared by the worker and by the child process that calls, so it imports nothing heavy.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from executors.errors import ExecutorError, PermanentError, RetryableError
from executors.jsonvalue import as_json, json_fault, size_fault
from executors.output import clip
from executors.templating import rfc3339

if TYPE_CHECKING:
    from executors.protocol import Outcome, Resumed, RunContext

_OWN: Final = frozenset(
    __file__.replace("calls.py", name) for name in ("calls.py", "python_child.py", "python_call.py")
)
_INSTANTS: Final = ("scheduled_at", "deadline")


@dataclass(frozen=True)
class CallContext:
    """What a function with a parameter `run` is told about its run. Instants are aware and UTC."""

    run_name: str
    key: str
    project: str
    domain: str
    task: str
    version: str
    trigger: str
    attempt: int
    scheduled_at: datetime | None = None
    covers: tuple[datetime, datetime] | None = None
    deadline: datetime | None = None
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    resumed: Resumed | None = None
    """Set when the function had returned `Deferred` and is called again: the state it left."""

    @classmethod
    def of(cls, run: RunContext) -> CallContext:
        """The context of a run."""
        return cls(
            run_name=run.run_name,
            key=run.key,
            project=run.project,
            domain=run.domain,
            task=run.task,
            version=run.version,
            trigger=run.trigger,
            attempt=run.attempt,
            scheduled_at=run.scheduled_at,
            covers=run.covers,
            deadline=run.deadline,
            secrets=dict(run.secrets),
            resumed=run.resumed,
        )

    def to_document(self) -> dict[str, Any]:
        """Plain JSON, for the way into another process."""
        document = dict(vars(self))
        for name in _INSTANTS:
            document[name] = None if document[name] is None else rfc3339(document[name])
        document["covers"] = None if self.covers is None else [rfc3339(moment) for moment in self.covers]
        if self.resumed is not None:
            document["resumed"] = {"state": self.resumed.state, "event": self.resumed.event}
        return document

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> CallContext:
        """The context that `to_document` wrote."""
        for name in _INSTANTS:
            document[name] = _instant(document[name])
        if document["covers"] is not None:
            first, last = document["covers"]
            document["covers"] = (datetime.fromisoformat(first), datetime.fromisoformat(last))
        if document["resumed"] is not None:
            from executors.protocol import Resumed

            document["resumed"] = Resumed(**document["resumed"])
        return cls(**document)


def load(path: str) -> Callable[..., Any]:
    """The function that `pkg.mod:function` names; `PermanentError` if there is none. What its import raises passes."""
    module_name, _, attributes = path.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise PermanentError(f"{path}: there is no module {error.name!r} on this worker's path") from None
        raise
    for attribute in attributes.split("."):
        try:
            found = getattr(found, attribute)
        except AttributeError:
            raise PermanentError(f"{path}: {module_name} has no {attribute!r}") from None
    if not callable(found):
        raise PermanentError(f"{path} is a {type(found).__name__}, which cannot be called")
    return found  # type: ignore[no-any-return]  # callable() says so, and its parameters are the user's


def is_async(function: Callable[..., Any]) -> bool:
    """True for `async def`, also behind `functools.partial` or as a `__call__` method."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004  # the method is what is looked at


def arguments(path: str, function: Callable[..., Any], inputs: Mapping[str, Any], run: CallContext) -> dict[str, Any]:
    """The keywords for the call: the inputs, and `run` if there is a parameter of that name and no such input.

    Raises `PermanentError` if the function cannot be called with them.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return dict(inputs)  # A builtin without a signature.
    keywords = dict(inputs)
    if "run" in signature.parameters:
        keywords.setdefault("run", run)
    try:
        signature.bind(**keywords)
    except TypeError as error:
        raise PermanentError(f"{path}{signature} cannot be called with these inputs: {error}") from None
    return keywords


def to_outputs(path: str, result: Any, most: int | None = None) -> dict[str, Any]:
    """A mapping is the outputs, None is none, anything else becomes `{"result": …}`; what is no JSON is refused, and what
    has more bytes than `most`.
    """
    outputs = {} if result is None else result if isinstance(result, Mapping) else {"result": result}
    try:
        fault = json_fault(outputs, "result" if isinstance(result, Mapping) else "it")
    except RecursionError:  # Of what an overridden method does: depth itself is bounded.
        fault = "it contains itself"
    if fault:
        fault = fault.replace("it.result", "it", 1)
        raise PermanentError(f"{path} returned what cannot be stored as JSON: {fault}")
    # Tuples as lists, subclasses as what they stand for: the same wherever the function ran.
    return json.loads(_written(path, "result", outputs, most))  # type: ignore[no-any-return]  # a mapping comes back as one


def to_reply(path: str, result: Any, most: int | None = None) -> dict[str, Any]:
    """What a call came to, as plain JSON: `{"outputs": …}`, or `{"deferred": …}` where it returned a `Deferred`."""
    # Only a function that has imported it can return one.
    protocol = sys.modules.get("executors.protocol")
    if protocol is None or not isinstance(result, protocol.Deferred):
        return {"outputs": to_outputs(path, result, most)}
    try:
        protocol.as_outcome(result)
    except PermanentError as error:
        raise PermanentError(f"{path} returned what cannot be stored: {error}") from None
    wait = result.wait
    if hasattr(wait, "at"):
        document: dict[str, Any] = {"at": rfc3339(wait.at)}
    else:
        document = {"interval": wait.interval.total_seconds(), "error_budget": wait.error_budget.total_seconds()}
    return {"deferred": {**document, "state": json.loads(_written(path, "state", result.state, most))}}


def _written(path: str, what: str, value: Any, most: int | None) -> str:
    try:
        text = as_json(value)
        fault = None if most is None else size_fault(what, text, most)
    except MemoryError:
        fault = f"its {what} needs more memory than there is"
    if fault:
        raise PermanentError(f"{path} returned too much: {fault}") from None
    return text


def from_reply(reply: Mapping[str, Any]) -> Outcome:
    """The outcome that `to_reply` wrote down."""
    from executors.protocol import Deferred, Succeeded
    from executors.waits import Poll, Until

    if "outputs" in reply:
        return Succeeded(reply["outputs"])
    found = reply["deferred"]
    if "at" in found:
        return Deferred(Until(datetime.fromisoformat(found["at"])), found["state"])
    interval, budget = timedelta(seconds=found["interval"]), timedelta(seconds=found["error_budget"])
    return Deferred(Poll(interval, budget), found["state"])


def after_exit(error: SystemExit) -> None:
    """A function that calls `sys.exit()` has succeeded; one that calls it with anything else has failed."""
    if error.code not in (None, 0):
        said = f"exit code {error.code}" if isinstance(error.code, int) else str(error.code)
        raise RetryableError(f"the function called sys.exit: {said}") from None


def describe(error: BaseException) -> dict[str, Any]:
    """An error as plain JSON, so that it can cross a process boundary."""
    if isinstance(error, ExecutorError):
        retry_after = error.retry_after if isinstance(error, RetryableError) else None
        return {
            "kind": "retryable" if error.retryable else "permanent",
            "message": str(error),
            "retry_after": None if retry_after is None else retry_after.total_seconds(),
            "outcome_known": error.outcome_known,
        }
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename in _OWN:
        trace = trace.tb_next
    return {"kind": "other", "message": clip(_format(error, trace))}


def restored(document: Mapping[str, Any]) -> ExecutorError | str:
    """The error that `describe` wrote down; for one that is not of ours, its traceback as text."""
    message = str(document["message"])
    if document["kind"] == "retryable":
        return RetryableError(message, document["retry_after"], outcome_known=document["outcome_known"])
    if document["kind"] == "permanent":
        return PermanentError(message, outcome_known=document["outcome_known"])
    return message


def _format(error: BaseException, trace: TracebackType | None) -> str:
    import traceback

    try:
        return "".join(traceback.format_exception(type(error), error, trace))
    except Exception:
        # An exception whose own __str__ raises must not hide that there was one.
        return f"{type(error).__qualname__} (it cannot be printed: {sys.exc_info()[1]!r})"


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text).astimezone(UTC)
