"""The simulation bites: each planted fault is found, and is the only thing that is."""

from __future__ import annotations

import pytest

from simulation.mutations import MUTATIONS, Mutation
from simulation.run import simulate

SEEDS = range(1, 7)
"""A planted fault is found within so many runs."""


@pytest.mark.parametrize("mutation", MUTATIONS, ids=[mutation.name for mutation in MUTATIONS])
def test_a_planted_fault_is_found(mutation: Mutation) -> None:
    """And the same run of the code as it is finds nothing."""
    for seed in SEEDS:
        with mutation.plant():
            problems = simulate(seed, mutation.options).problems
        if any(what in problem for what in mutation.finds for problem in problems):
            break
        assert not problems, "something else was found"
    else:
        pytest.fail(f"not found: {mutation.name}")
    assert not simulate(seed, mutation.options).problems
