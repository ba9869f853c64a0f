"""Who does what, for every number of processes and of Asterisk servers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astcredit.app.duties import Duty, duties

NODES = ("pbx1", "pbx2", "pbx3", "pbx4", "pbx5")


def shown(duty: Duty) -> str:
    """What a process does, as one line."""
    nodes = [node.removeprefix("pbx") for node in duty.nodes]
    parts = [*nodes, "answers" * duty.answers, "house" * duty.keeps_house]
    return " ".join(part for part in parts if part)


@pytest.mark.parametrize(
    ("workers", "nodes", "expected"),
    [
        (1, 0, ["answers house"]),
        (1, 3, ["1 2 3 answers house"]),
        (2, 0, ["answers house", "answers"]),
        (2, 1, ["1 house", "answers"]),
        (2, 3, ["1 2 3 house", "answers"]),
        (3, 2, ["1 2 house", "answers", "answers"]),
        (4, 1, ["1 house", "answers", "answers", "answers"]),
        (4, 2, ["1 house", "2", "answers", "answers"]),
        (4, 5, ["1 3 5 house", "2 4", "answers", "answers"]),
        (5, 5, ["1 3 5 house", "2 4", "answers", "answers", "answers"]),
    ],
)
def test_who_does_what(workers: int, nodes: int, expected: list[str]) -> None:
    assert [shown(duty) for duty in duties(workers, NODES[:nodes])] == expected


@given(st.integers(1, 64), st.integers(0, 70))
def test_everything_is_done_and_nothing_twice(workers: int, nodes: int) -> None:
    """Each event is heard once, somebody answers, one keeps house; no process is idle."""
    names = [f"pbx{number}" for number in range(nodes)]
    done = duties(workers, names)
    assert [duty.number for duty in done] == list(range(workers))
    assert sorted(node for duty in done for node in duty.nodes) == sorted(names)
    assert [duty.number for duty in done if duty.keeps_house] == [0]
    assert sum(duty.answers for duty in done) * 2 >= workers
    assert all(duty.answers or duty.nodes for duty in done)
