"""Mistakes that somebody could make, planted into the product one by one: within a few worlds each of them is noticed."""

from __future__ import annotations

import pytest

from tests.simulation.faults import LISTED, OTHERS, Fault, Garden
from tests.simulation.play import Universe, WorldFailedError

# Most of those listed are noticed in the first world, and each within a dozen: what a seed holds may change.
FEW = 60
MANY = 300


@pytest.mark.parametrize("fault", LISTED, ids=lambda fault: fault.__name__)
def test_a_mistake_is_noticed_within_a_few_worlds(fault: Fault, here: Universe) -> None:
    assert_noticed(fault, here, FEW)


@pytest.mark.heavy
@pytest.mark.parametrize("fault", OTHERS, ids=lambda fault: fault.__name__)
def test_a_rare_mistake_is_noticed_too(fault: Fault, here: Universe) -> None:
    assert_noticed(fault, here, MANY)


def assert_noticed(fault: Fault, here: Universe, worlds: int) -> None:
    with Garden() as garden:
        fault(garden)
        for seed in range(worlds):
            try:
                here.play(seed)
            except WorldFailedError:
                break
        else:
            pytest.fail(f"no world noticed: {fault.__name__}")
    here.play(seed)  # Without the fault it is a world like any other.
