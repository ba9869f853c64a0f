"""What may be asked for in a change of the catalog."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astcredit.service.admin_ports import Client
from astcredit.service.catalog_rules import (
    KEEP,
    MOST_CAPACITY,
    Capacity,
    ClientChange,
    kept,
    parse_capacity,
)
from astcredit.service.naming import appear


@pytest.mark.parametrize(
    ("text", "capacity"),
    [("0", 0), ("1", 1), ("007", 7), ("1000000", MOST_CAPACITY), ("", None)],
)
def test_a_capacity_is_a_whole_number_or_no_limit(text: str, capacity: int | None) -> None:
    assert parse_capacity(text) == capacity


@pytest.mark.parametrize(
    "text", ["1000001", "-1", "+1", "1.0", " 1", "1 ", "x", "1e3", "٣", "1_000", "9" * 5_000]
)
def test_another_text_is_refused_in_one_line_that_says_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match="expected a whole number from 0 to 1000000") as refused:
        parse_capacity(text)
    assert str(refused.value).isprintable()


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = parse_capacity(text)
    except ValueError:
        return
    assert found is None or 0 <= found <= MOST_CAPACITY


@pytest.mark.parametrize(("asked", "result"), [(KEEP, 5), (None, None), (0, 0), (7, 7)])
def test_no_limit_and_none_at_all_are_different_from_not_asked(
    asked: Capacity, result: int | None
) -> None:
    assert kept(asked, 5) == result
    changed = ClientChange(orig_capacity=asked).applied_to(Client("x", orig_capacity=5))
    assert changed == Client("x", credit_limit=0, orig_capacity=result)


def test_what_a_change_leaves_open_stays() -> None:
    old = Client(
        "x", credit_limit=1, reseller="r", routing_plan="p", orig_capacity=1, term_capacity=2
    )
    assert ClientChange().applied_to(old) == old
    new = ClientChange(reseller="", routing_plan="", orig_capacity=None, term_capacity=None)
    assert new.applied_to(old) == Client("x", credit_limit=1)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ((), True),
        (("ACM",), True),
        (("acme", "north"), True),
        (("acme", "south"), False),
        (("acmenorth",), False),
        (("STRASSE",), True),
    ],
)
def test_a_quick_search_wants_every_word_somewhere(words: tuple[str, ...], found: bool) -> None:
    assert appear(words, ["Acme", "North", "Hauptstraße 1"]) is found
