"""Counting anew, compared with a count that is made row by row and column by column."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from astcredit.domain.capacity import Direction, Level, Occupancy, Scope
from astcredit.service.capacity_desk import recounted

SOME = st.integers(1, 3)
OPTIONAL = st.none() | SOME
CALLS = st.lists(
    st.tuples(SOME, st.builds(Occupancy, SOME, OPTIONAL, OPTIONAL, OPTIONAL, OPTIONAL, OPTIONAL)),
    max_size=12,
)
LEVELS = [
    Level(scope, id, direction) for scope in Scope for id in (1, 2, 3) for direction in Direction
]
COUNTERS = st.dictionaries(st.sampled_from(LEVELS), st.integers(-2, 12))

COLUMNS = {
    (Scope.RESELLER, Direction.ORIG): "reseller_id",
    (Scope.ACCOUNT, Direction.ORIG): "account_id",
    (Scope.ROUTE, Direction.TERM): "route_id",
    (Scope.ACCOUNT, Direction.TERM): "term_account_id",
    (Scope.CLIENT, Direction.TERM): "term_client_id",
    (Scope.RESELLER, Direction.TERM): "term_reseller_id",
}


def counted(level: Level, calls: list[tuple[int, Occupancy]]) -> int:
    """How many of the calls are at the level."""
    scope, id, direction = level
    if (scope, direction) == (Scope.CLIENT, Direction.ORIG):
        return sum(client_id == id for client_id, _ in calls)
    column = COLUMNS.get((scope, direction))
    return sum(getattr(occupancy, column) == id for _, occupancy in calls) if column else 0


@given(COUNTERS, CALLS)
def test_what_is_wrong_and_nothing_else_gets_the_number_of_its_calls(
    counters: dict[Level, int], calls: list[tuple[int, Occupancy]]
) -> None:
    right = recounted(counters, calls)
    assert right == {
        level: counted(level, calls)
        for level, found in counters.items()
        if found != counted(level, calls)
    }
