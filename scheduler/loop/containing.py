"""Code of executors, held: nothing that it raises ends the worker, and only the worker's own cancellations pass for such."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Final, TypeVar

from executors.errors import RetryableError

T = TypeVar("T")
_inside: Final[ContextVar[bool]] = ContextVar("inside code of an executor", default=False)


class contained:  # noqa: N801  # read as a word: `with contained(): await executor.execute(run)`
    """A block in which an executor's code is called.

    SystemExit, KeyboardInterrupt and whatever else is no `Exception` would end the event loop, and with it the worker and
    every other run. A CancelledError that nobody asked for would look as if the worker had asked. Out of this block they
    come as `RetryableError`; cancellations of the task and all exceptions pass.
    """

    __slots__ = ("_token",)

    def __enter__(self) -> None:
        self._token: Token[bool] = _inside.set(True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(ValueError):  # Taken apart with its loop, it is left in another context than it was entered in.
            _inside.reset(self._token)
        if error is None or isinstance(error, Exception) or _is_ours(error):
            return
        raise RetryableError(_said(error, trace)) from None


def _is_ours(error: BaseException) -> bool:
    """Whether the task was cancelled, or is being taken apart with its loop."""
    if not isinstance(error, (asyncio.CancelledError, GeneratorExit)):
        return False
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return True
    return task is None or (isinstance(error, asyncio.CancelledError) and task.cancelling() > 0)


def _said(error: BaseException, trace: TracebackType | None) -> str:
    name = type(error).__name__
    try:
        said = str(error)
    except BaseException:
        said = "it cannot be printed"
    what = f"{name}: {said}" if said else name
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f" ({trace.tb_frame.f_code.co_filename}:{trace.tb_lineno})" if trace is not None else ""
    if isinstance(error, asyncio.CancelledError):
        return f"its code raised {what}{where}, and nobody had cancelled it"
    return f"its code raised {what}{where}, which would have ended the worker: it ended the attempt alone"


@contextmanager
def tasks_contained(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """A block in which tasks that an executor's code makes on this loop are contained as well."""
    before = loop.get_task_factory()

    def factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> Any:
        work = _contained(coro) if _inside.get() else coro
        return asyncio.Task(work, loop=loop, **options) if before is None else before(loop, work, **options)

    loop.set_task_factory(factory)
    try:
        yield
    finally:
        loop.set_task_factory(before)


async def _contained(work: Awaitable[T]) -> T:
    try:
        return await work
    except (Exception, asyncio.CancelledError, GeneratorExit):
        raise  # These end this task alone.
    except BaseException as error:
        raise RetryableError(_said(error, error.__traceback__)) from None
