"""The house rules of ARCHITECTURE.md, "Who may import whom", held by reading the imports of every file."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
VALUES = {
    "executors.protocol",
    "executors.errors",
    "executors.waits",
    "executors.external_job",
    "executors.jsonvalue",
    "executors.output",
}
DOMAIN_AND_ERRORS = {"scheduler.domain", "scheduler.errors"}

# What each layer may import of this project; `scheduler.errors` is open to all of scheduler.
MAY: dict[str, set[str]] = {
    "executors": {"executors"},
    "scheduler.domain": DOMAIN_AND_ERRORS,
    "scheduler.errors": set(),
    "scheduler.clock": DOMAIN_AND_ERRORS,
    "scheduler.store": {"scheduler.store", "scheduler.clock", *DOMAIN_AND_ERRORS},
    "scheduler.services": {"scheduler.services", "scheduler.store", *DOMAIN_AND_ERRORS, *VALUES},
    "scheduler.loop": {
        "scheduler.loop",
        "scheduler.services",
        "scheduler.store.transaction",
        "scheduler.store.notifications",
        "scheduler.store.runs",
        "scheduler.store.waits",
        "scheduler.clock",
        *DOMAIN_AND_ERRORS,
        *VALUES,
    },
    "scheduler.client": {
        "scheduler.services",
        "scheduler.store.transaction",
        "scheduler.clock",
        *DOMAIN_AND_ERRORS,
        *VALUES,
    },
    "scheduler.metrics": {
        "scheduler.loop",
        "scheduler.services.sample",
        "scheduler.store.tally",
        *DOMAIN_AND_ERRORS,
    },
    "scheduler.web": {
        "scheduler.web",
        "scheduler.client",
        "scheduler.loop.health",
        "scheduler.clock",
        *DOMAIN_AND_ERRORS,
    },
    "scheduler.reading": {"scheduler.reading", *DOMAIN_AND_ERRORS},
    "scheduler.settings": {"scheduler.reading", *DOMAIN_AND_ERRORS},
    "scheduler.manifests": {"scheduler.reading", *DOMAIN_AND_ERRORS},
    "scheduler.cli": {
        "scheduler.cli",
        "scheduler.client",
        "scheduler.app",
        "scheduler.settings",
        "scheduler.manifests",
        "scheduler.reading",
        "scheduler.clock",
        *DOMAIN_AND_ERRORS,
    },
}
# Libraries that live in one place only.
ONLY_IN: dict[str, tuple[str, ...]] = {
    "sqlalchemy": ("scheduler.store",),
    "alembic": ("scheduler.store",),
    "psycopg": ("scheduler.store",),
    "apscheduler": ("scheduler.loop.beats",),
    "croniter": ("scheduler.domain.occurrences",),
    "tenacity": ("scheduler.store.engine", "scheduler.loop.transactions", "executors"),
    # Airflow is another interpreter's: see executors/airflow/child/main.py.
    "airflow": (),
    "aiohttp": ("executors", "scheduler.app", "scheduler.web"),
    "connectrpc": ("executors.flyte",),
    "fastapi": ("scheduler.web",),
    "flyte": ("executors.flyte",),
    "flyteidl2": ("executors.flyte",),
    "google": ("executors.flyte",),
    "h11": ("scheduler.web",),
    "msgpack": ("executors.flyte",),
    "prometheus_client": ("scheduler.metrics",),
    "pyqwest": ("executors.flyte",),
    "starlette": ("scheduler.web",),
    "typer": ("scheduler.cli",),
    "uvicorn": ("scheduler.web",),
    "yaml": ("scheduler.reading", "scheduler.cli"),
}
WALL_CLOCK = {("time", "time"), ("time", "time_ns"), ("datetime", "now"), ("datetime", "utcnow"), ("date", "today")}


def modules() -> Iterator[tuple[str, Path, ast.Module]]:
    for package in ("scheduler", "executors"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            yield name, path, ast.parse(path.read_text(encoding="utf-8"))


def imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative imports hide the layer"
            yield node.lineno, node.module or ""


def within(name: str, places: set[str] | tuple[str, ...]) -> bool:
    return any(name == place or name.startswith(place + ".") for place in places)


def layer_of(name: str) -> str | None:
    layers = [layer for layer in MAY if within(name, (layer,))]
    return max(layers, key=len, default=None)


def test_every_layer_imports_only_what_it_may() -> None:
    faults = []
    for name, path, tree in modules():
        layer = layer_of(name)
        for line, target in imports(tree):
            if layer is None or not within(target, ("scheduler", "executors")):
                continue
            if not within(target, MAY[layer]):
                faults.append(f"{path.relative_to(ROOT)}:{line} {layer} must not import {target}")
    assert not faults, "\n".join(faults)


def test_registry_and_executors_are_known_to_the_app_alone() -> None:
    open_to_all = VALUES | {"executors"}
    faults = [
        f"{path.relative_to(ROOT)}:{line} {name} must not import {target}"
        for name, path, tree in modules()
        if within(name, ("scheduler",)) and name != "scheduler.app"
        for line, target in imports(tree)
        if within(target, ("executors",)) and target not in open_to_all
    ]
    assert not faults, "\n".join(faults)


def test_each_library_lives_in_its_one_place() -> None:
    faults = [
        f"{path.relative_to(ROOT)}:{line} {name} must not import {target}"
        for name, path, tree in modules()
        for line, target in imports(tree)
        for library, places in ONLY_IN.items()
        if within(target, (library,)) and not within(name, places)
    ]
    assert not faults, "\n".join(faults)


def test_wall_time_is_read_in_one_file_only() -> None:
    faults = []
    for name, path, tree in modules():
        if name == "scheduler.clock":
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, (ast.Name, ast.Attribute)):
                owner = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
                if (owner, node.attr) in WALL_CLOCK:
                    faults.append(f"{path.relative_to(ROOT)}:{node.lineno} {name} must not read {owner}.{node.attr}")
    assert not faults, "\n".join(faults)


def test_every_package_is_listed_for_the_wheel() -> None:
    import tomllib

    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in ROOT.glob("[se]*/**/__init__.py")}
    assert {name for name in found if within(name, ("scheduler", "executors"))} == set(listed)
