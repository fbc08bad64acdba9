"""The phases of a run and its idempotency key."""

from __future__ import annotations

import itertools

import pytest

from scheduler.domain.run import FINAL, OPEN, Phase, check_transition, idempotency_key
from scheduler.errors import IllegalTransition

Q, R, D = Phase.QUEUED, Phase.RUNNING, Phase.DEFERRED
ALLOWED = {
    *((Q, R), (R, Q), (R, D), (D, Q)),
    *((R, final) for final in FINAL),
    *((phase, final) for phase in (Q, D) for final in (Phase.ABORTED, Phase.FAILED, Phase.TIMED_OUT)),
}


@pytest.mark.parametrize(("current", "target"), list(itertools.product(Phase, Phase)))
def test_a_run_goes_only_where_it_may(current: Phase, target: Phase) -> None:
    if (current, target) in ALLOWED:
        check_transition("run", current, target)
    else:
        with pytest.raises(IllegalTransition, match=f"is {current} and cannot become {target}"):
            check_transition("run", current, target)


def test_a_run_is_open_until_its_final_phase() -> None:
    assert {phase for phase in Phase if phase.open} == OPEN == {Q, R, D}
    assert {Phase.SUCCEEDED, Phase.FAILED, Phase.TIMED_OUT, Phase.ABORTED} == FINAL


def test_the_key_is_the_name_until_an_attempt_is_known_to_be_over() -> None:
    assert [idempotency_key("run", ends) for ends in range(3)] == ["run", "run-2", "run-3"]
