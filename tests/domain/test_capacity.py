"""What a level admits, how it refuses, and at which levels a call counts."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astcredit.domain.capacity import Direction, Level, Limit, Occupancy, Scope
from support.plans import level

NORTH = Level(Scope.RESELLER, 1, Direction.ORIG)


@pytest.mark.parametrize(
    ("most", "use", "refused"),
    [
        (None, 0, False),
        (None, 10**9, False),
        (0, 0, True),
        (0, 1, True),
        (1, 0, False),
        (1, 1, True),
        (3, 2, False),
        (3, 3, True),
        (3, 4, True),  # the limit was lowered while they were up
    ],
)
def test_a_limit_of_n_admits_n_and_refuses_the_next(
    most: int | None, use: int, refused: bool
) -> None:
    assert bool(Limit(NORTH, "north", most).refusal({NORTH: use})) is refused


def test_a_level_that_was_never_counted_has_no_calls() -> None:
    assert Limit(NORTH, "north", 1).refusal({}) == ""
    assert Limit(NORTH, "north", 0).refusal({}) != ""


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("reseller:1:orig", "reseller 'x' has 3 of 3 originating calls up"),
        ("reseller:1:term", "reseller 'x' has 3 of 3 terminating calls up"),
        ("client:1:orig", "client 'x' has 3 of 3 originating calls up"),
        ("client:1:term", "client 'x' has 3 of 3 terminating calls up"),
        ("account:1:orig", "account 'x' has 3 of 3 originating calls up"),
        ("account:1:term", "account 'x' has 3 of 3 terminating calls up"),
        ("route:1:term", "route 'x' has 3 of 3 terminating calls up"),
    ],
)
def test_a_refusal_names_level_limit_and_use(key: str, text: str) -> None:
    assert Limit(level(key), "x", 3).refusal({level(key): 3}) == text


def test_only_its_own_level_counts() -> None:
    """Not the other direction, not another object, not another kind of object."""
    others = {
        Level(scope, id, direction): 99
        for scope, id, direction in product(Scope, (1, 2), Direction)
        if Level(scope, id, direction) != NORTH
    }
    assert Limit(NORTH, "north", 1).refusal(others) == ""


levels = st.builds(Level, st.sampled_from(Scope), st.integers(0, 10**9), st.sampled_from(Direction))


@given(levels, levels)
def test_different_levels_have_different_counters(one: Level, other: Level) -> None:
    assert (one == other) == (one.key == other.key)
    assert level(one.key) == one


def test_a_call_on_the_dialplans_trunk_counts_where_it_comes_from() -> None:
    """Its client's originating calls are counted with its money, in astclient.active_calls."""
    assert [x.key for x in Occupancy(7).levels()] == ["account:7:orig"]
    assert [x.key for x in Occupancy(7, 5).levels()] == ["reseller:5:orig", "account:7:orig"]


def test_a_routed_call_counts_at_both_ends() -> None:
    assert {x.key for x in Occupancy(7, 5, 4, 3, 2, 1).levels()} == {
        "reseller:5:orig",
        "account:7:orig",
        "route:4:term",
        "account:3:term",
        "client:2:term",
        "reseller:1:term",
    }


def test_a_call_that_an_account_makes_to_itself_counts_once_each_way() -> None:
    found = Occupancy(7, 5, 4, 7, 2, 5).levels()
    assert len(found) == len(set(found)) == 6


def test_what_is_not_there_counts_nowhere() -> None:
    assert Occupancy(None).levels() == ()
