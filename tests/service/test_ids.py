"""Ids of calls: unique, in the order of time, of one length."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astcredit.service.ids import ALPHABET, LENGTH, CallIds
from support.core import NOW_MS, Clock


def test_ids_fit_their_column_and_are_harmless() -> None:
    made = CallIds(Clock())()
    assert len(made) == LENGTH == 20
    assert set(made) <= set(ALPHABET)
    assert made.isascii()
    assert made.isalnum()


@given(st.lists(st.integers(0, 2**45 - 1), min_size=2, max_size=50))
def test_ids_rise_even_when_the_clock_steps_back(instants: list[int]) -> None:
    clock = Clock()
    make = CallIds(clock)
    made = []
    for clock.now_ms in instants:
        made.append(make())
    assert made == sorted(set(made))


def test_ids_of_one_millisecond_are_different_and_rise() -> None:
    make = CallIds(Clock())
    made = [make() for _ in range(10_000)]
    assert made == sorted(set(made))


@pytest.mark.parametrize(("earlier", "later"), [(NOW_MS, NOW_MS + 1), (0, 1), (1, 2**45 - 1)])
def test_ids_of_two_processes_sort_by_time(earlier: int, later: int) -> None:
    for _ in range(100):
        assert CallIds(Clock(earlier))() < CallIds(Clock(later))()


def test_two_processes_make_different_ids_in_the_same_millisecond() -> None:
    code = (
        "from astcredit.service.ids import CallIds\n"
        f"make = CallIds(lambda: {NOW_MS})\n"
        "print(*[make() for _ in range(5)], sep='\\n')"
    )
    made = [
        line
        for _ in range(2)
        for line in subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
    ]
    assert len(set(made)) == len(made) == 10
