"""Statements that are built once: putting one together takes five times as long as executing it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from scheduler.store.dialect import Dialect

T = TypeVar("T")


def prepared(build: Callable[[Dialect], T]) -> Callable[[Dialect], T]:
    """A function that builds statements for a database, made to build them once for each kind.

        @prepared
        def _advance(dialect: Dialect) -> tuple[Update, Batch]: …

    What changes from call to call is a parameter of the statement, or a `dialect.batch(…)` in it.
    """
    built: dict[str, T] = {}

    def get(dialect: Dialect) -> T:
        if dialect.name not in built:
            built[dialect.name] = build(dialect)
        return built[dialect.name]

    return get
