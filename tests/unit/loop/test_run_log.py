"""The logger that an executor is given: made when it is used, and as good as structlog's own."""

from __future__ import annotations

import copy
import pickle

import pytest
from structlog.testing import capture_logs

from scheduler.loop.performing import RunLog


def test_it_says_which_run_speaks() -> None:
    with capture_logs() as said:
        RunLog("nightly-1").info("hello")
        RunLog("nightly-2").bind(part=3).warning("careful")
    assert [(line["event"], line["run"], line.get("part")) for line in said] == [
        ("hello", "nightly-1", None),
        ("careful", "nightly-2", 3),
    ]


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda log: pickle.loads(pickle.dumps(log))])
def test_a_copy_speaks_for_the_same_run(copied) -> None:  # type: ignore[no-untyped-def]
    with capture_logs() as said:
        copied(RunLog("nightly-1")).info("hello")
    assert [line["run"] for line in said] == ["nightly-1"]
