"""What a child process inherits of the worker's environment, and what it is told about its run."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping

from executors.protocol import RunContext
from executors.templating import rfc3339

PREFIX = "SCHEDULER_"


def inherited(*, passed: Collection[str] | None = None, hidden: Collection[str] = ()) -> dict[str, str]:
    """The worker's variables, without those that `child_environment` leaves out."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(PREFIX) and name not in hidden and (passed is None or name in passed)
    }


def child_environment(
    run: RunContext,
    own: Mapping[str, str],
    *,
    passed: Collection[str] | None = None,
    hidden: Collection[str] = (),
) -> dict[str, str]:
    """The worker's variables, then `own`, then the run's.

    Of the worker's, names beginning with `SCHEDULER_` (the database's address may be among them), those that the run
    says hold secrets, and `hidden` are left out; `passed`, if not None, names the only ones that pass.
    """
    env = inherited(passed=passed, hidden={*hidden, *run.hidden_env})
    env.update(own)
    env["SCHEDULER_RUN_NAME"] = run.run_name
    env["SCHEDULER_KEY"] = run.key
    env["SCHEDULER_SCHEDULED_AT"] = "" if run.scheduled_at is None else rfc3339(run.scheduled_at)
    env["SCHEDULER_ATTEMPT"] = str(run.attempt)
    if run.covers is not None:
        env["SCHEDULER_COVERS_FROM"], env["SCHEDULER_COVERS_TO"] = map(rfc3339, run.covers)
    return env
