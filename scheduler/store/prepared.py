"""Statements that are built once: putting one together takes five times as long as executing it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Concatenate, Generic, ParamSpec, TypeVar

from scheduler.store.dialect import Dialect

P = ParamSpec("P")
T = TypeVar("T")


class prepared(Generic[P, T]):  # noqa: N801 - a decorator
    """A function that builds statements for a database, made to build them once for each kind.

        @prepared
        def _advance(dialect: Dialect) -> tuple[Update, Batch]: …

    What changes from call to call is a parameter of the statement, or a `dialect.batch(…)` in it. Further arguments, each
    of a few values and given by position, are part of the statement: it is built once for each of them, too.
    """

    def __init__(self, build: Callable[Concatenate[Dialect, P], T]) -> None:
        self._build = build
        self._built: dict[tuple[object, ...], T] = {}

    def __call__(self, dialect: Dialect, /, *args: P.args, **kwargs: P.kwargs) -> T:
        """What was built for this kind of database and these arguments, now or before."""
        key = (dialect.name, *args)
        if key not in self._built:
            self._built[key] = self._build(dialect, *args, **kwargs)
        return self._built[key]

    def forget(self) -> None:
        """Everything is built anew, of what the functions say by then that it is made of."""
        self._built.clear()
