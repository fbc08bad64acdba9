"""Which connector serves which task type: those registered in this process, and those that distributions offer.

A distribution offers connectors as entry points of the groups `scheduler.connectors` and `flyte.connectors`. An entry
point names a module that registers connectors when it is imported, a connector, or a connector's class.
"""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any, ClassVar, Final

from executors.connector import AsyncConnector, ResourceMeta
from executors.errors import PermanentError
from executors.schema import nearest

GROUPS: Final = ("scheduler.connectors", "flyte.connectors")


class ConnectorNotFound(PermanentError, ValueError):
    """No connector is known for a task type and version."""


class ConnectorRegistry:
    """The connectors of this process."""

    _connectors: ClassVar[dict[tuple[str, int], AsyncConnector[Any]]] = {}
    _unusable: ClassVar[list[str]] = []
    _discovered: ClassVar[bool] = False

    @classmethod
    def register(cls, connector: AsyncConnector[Any], override: bool = False) -> None:
        """Make a connector known by its `task_type_name` and `task_type_version`.

        Raises `ValueError` if that pair is taken, unless `override`; `TypeError` if it is no connector.
        """
        _check(connector)
        key = (connector.task_type_name, connector.task_type_version)
        if key in cls._connectors and not override:
            raise ValueError(
                f"the task type {key[0]!r}, version {key[1]}, has a connector already: {_named(cls._connectors[key])}"
            )
        cls._connectors[key] = connector

    @classmethod
    def get_connector(cls, task_type_name: str, task_type_version: int = 0) -> AsyncConnector[Any]:
        """The connector for a task type; distributions are looked through when the first unknown one is asked for."""
        key = (task_type_name, task_type_version)
        if key not in cls._connectors and not cls._discovered:
            cls.discover()
        if key not in cls._connectors:
            raise ConnectorNotFound(cls._not_found(*key))
        return cls._connectors[key]

    @classmethod
    def list_connectors(cls) -> list[AsyncConnector[Any]]:
        """Every connector known so far, by type and version."""
        return [cls._connectors[key] for key in sorted(cls._connectors)]

    @classmethod
    def discover(cls) -> None:
        """Load the connectors that distributions offer. One that cannot be loaded is no reason to lose the others."""
        # Imported here: reading every installed distribution's metadata costs more than all of this package.
        from importlib.metadata import entry_points

        cls._discovered = True
        for group in GROUPS:
            for point in entry_points(group=group):
                try:
                    cls._take(point.load())
                except Exception as error:
                    giver = point.dist.name if point.dist else "an unnamed distribution"
                    cls._unusable.append(f"{point.name} of {giver}: {type(error).__name__}: {error}")

    @classmethod
    def _take(cls, offered: object) -> None:
        if isinstance(offered, ModuleType):
            return  # Its import has registered what it offers.
        connector = offered() if isinstance(offered, type) else offered
        if not isinstance(connector, AsyncConnector):
            raise TypeError(f"{offered!r} is neither a module nor a connector")
        if connector not in cls._connectors.values():
            cls.register(connector)

    @classmethod
    def _not_found(cls, name: str, version: int) -> str:
        versions = sorted(known for known_name, known in cls._connectors if known_name == name)
        said = f"there is no connector for the task type {name!r}, version {version}"
        if versions:
            said += f" (there is version {', '.join(map(str, versions))})"
        else:
            said += nearest(name, sorted({known for known, _ in cls._connectors}))
        if cls._unusable:
            said += f"; could not be loaded: {'; '.join(cls._unusable)}"
        return said


def _check(connector: object) -> None:
    if isinstance(connector, type):
        raise TypeError(f"register(…) takes a connector, not a class: write {connector.__name__}()")
    if not isinstance(connector, AsyncConnector):
        raise TypeError(f"a {type(connector).__name__} is no AsyncConnector")
    if not isinstance(getattr(connector, "task_type_name", None), str) or not connector.task_type_name:
        raise TypeError(f"{_named(connector)} has no task_type_name")
    if not isinstance(connector.task_type_version, int):
        raise TypeError(f"{_named(connector)}: task_type_version is no whole number")
    kind = getattr(connector, "metadata_type", ResourceMeta)
    if not (isinstance(kind, type) and issubclass(kind, ResourceMeta)):
        raise TypeError(f"{_named(connector)}: metadata_type is no class derived from ResourceMeta")
    for method in ("create", "get", "delete"):
        if not inspect.iscoroutinefunction(getattr(connector, method)):
            raise TypeError(f"{_named(connector)}: {method} must be `async def`")


def _named(connector: object) -> str:
    return f"{type(connector).__module__}.{type(connector).__qualname__}"
