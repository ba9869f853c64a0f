"""What a deck that replaces a rate table leaves of the old rates."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astcredit.domain.ratetable import RateRow, RateTable
from astcredit.service.admin_ports import StoredPeriod
from astcredit.service.rate_desk import Fate, fate

E = 100
"""When the deck takes effect."""


@pytest.mark.parametrize(
    ("from_ms", "deck", "expected"),
    [
        (50, None, Fate.END),  # in force, not in the deck
        (50, [100], Fate.KEEP),  # the deck's own rate takes over
        (50, [150], Fate.KEEP),  # holds until the deck's rate begins
        (50, [20], Fate.END),  # the deck's rate is older: the old one would win
        (50, [20, 150], Fate.END),
        (50, [20, 100], Fate.KEEP),
        (50, [60], Fate.KEEP),
        (50, [50], Fate.KEEP),  # written over
        (100, None, Fate.REMOVE),  # begins with the deck
        (150, None, Fate.REMOVE),  # has not begun
        (150, [100], Fate.REMOVE),
        (150, [150], Fate.KEEP),
        (100, [100], Fate.KEEP),
    ],
)
def test_fate_of_a_rate(from_ms: int, deck: Sequence[int] | None, expected: Fate) -> None:
    assert fate(StoredPeriod(1, "44", from_ms, None), deck, E) is expected


def row(from_ms: int, until_ms: int | None, price: int) -> RateRow:
    return RateRow("44", "", price, effective_from_ms=from_ms, effective_until_ms=until_ms)


def priced(rows: Sequence[RateRow], at_ms: int) -> int | None:
    found = RateTable(1, "", "EUR", 1, rows).lookup("44123", at_ms)
    return None if found is None else found.rate_per_minute


INSTANTS = st.integers(0, 200)


@given(
    st.dictionaries(INSTANTS, st.none() | INSTANTS, max_size=5),
    st.sets(INSTANTS, max_size=4),
    st.integers(0, 220),
)
def test_from_its_instant_on_the_deck_is_all_there_is(
    old: dict[int, int | None], deck: set[int], at_ms: int
) -> None:
    """Old rates cost 1 + beginning, the deck's 1,000 + beginning; whatever the mixture, a call
    costs what the deck says, and where the deck's first rate has not begun, what it cost."""
    stored = [row(begin, until, 1 + begin) for begin, until in old.items()]
    new = [row(begin, None, 1_000 + begin) for begin in deck]
    after = []
    for rate in stored:
        begin, until = rate.effective_from_ms, rate.effective_until_ms
        if not (begin >= E or until is None or until > E):
            after.append(rate)  # ended long ago: never asked
            continue
        what = fate(StoredPeriod(1, "44", begin, until), sorted(deck) or None, E)
        if what is Fate.KEEP and begin not in deck:
            after.append(rate)
        elif what is Fate.END:
            after.append(row(begin, E, rate.rate_per_minute))
    now = priced([*after, *new], at_ms)
    begun = [begin for begin in deck if begin <= at_ms]
    if at_ms < E:
        if not any(begin < E for begin in deck):
            assert now == priced(stored, at_ms)
    elif begun:
        assert now == 1_000 + max(begun)
    elif deck:
        assert now == priced([rate for rate in stored if rate.effective_from_ms < E], at_ms)
    else:
        assert now is None
