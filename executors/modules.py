"""Modules that the settings name, imported when an executor is made; what they offer, they register themselves."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from executors.errors import ExecutorConfigError


def import_modules(executor: str, modules: Sequence[str], path: Sequence[str]) -> None:
    """Imports the modules, looked for in the folders of `path` first; raises `ExecutorConfigError` with every fault."""
    folders = [os.path.abspath(folder) for folder in path]
    sys.path[:0] = [folder for folder in folders if folder not in sys.path]
    problems = []
    for index, module in enumerate(modules):
        try:
            importlib.import_module(module)
        except Exception as error:
            problems.append((f"options.modules[{index}]", f"{module}: {type(error).__name__}: {error}"))
    if problems:
        raise ExecutorConfigError(executor, problems)
