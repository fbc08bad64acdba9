"""What an executor of this package needs besides the worker, asked for when it is made and not before."""

from __future__ import annotations

import importlib
import sys

from executors.errors import ExecutorConfigError


def require(executor: str, extra: str, *modules: str) -> None:
    """Import these modules; raises `ExecutorConfigError`, which says what to install, if one is not there."""
    hook = sys.excepthook
    try:
        for module in modules:
            importlib.import_module(module)
    except ImportError as error:
        said = f"needs {error.name or error}, which is not installed: pip install 'trigger-scheduler[{extra}]'"
        raise ExecutorConfigError(executor, [("use", said)]) from error
    finally:
        # Flyte's SDK puts one of its own there when it is imported, and a worker's last words are not its business.
        sys.excepthook = hook
