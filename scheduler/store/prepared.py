"""Statements that are built once: putting one together takes five times as long as executing it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from scheduler.store.dialect import Dialect

P = ParamSpec("P")
T = TypeVar("T")


def prepared(build: Callable[Concatenate[Dialect, P], T]) -> Callable[Concatenate[Dialect, P], T]:
    """A function that builds statements for a database, made to build them once for each kind.

        @prepared
        def _advance(dialect: Dialect) -> tuple[Update, Batch]: …

    What changes from call to call is a parameter of the statement, or a `dialect.batch(…)` in it. Further arguments, each
    of a few values and given by position, are part of the statement: it is built once for each of them, too.
    """
    built: dict[tuple[object, ...], T] = {}

    def get(dialect: Dialect, /, *args: P.args, **kwargs: P.kwargs) -> T:
        key = (dialect.name, *args)
        if key not in built:
            built[key] = build(dialect, *args, **kwargs)
        return built[key]

    return get
