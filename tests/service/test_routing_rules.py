"""What a rule of a routing plan may be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astcredit.domain.rating import MOST_AMOUNT
from astcredit.service.catalog_rules import MOST_CAPACITY
from astcredit.service.errors import RefusedError
from astcredit.service.routing_ports import PlanRule
from astcredit.service.routing_rules import RuleChange, parse_prefix, shown_prefix

RULE = PlanRule("retail", "44", "carrier-a", 2, 3, 4, 5, "99", 6, False, 7)


@pytest.mark.parametrize(
    ("text", "prefix"),
    [("44", "44"), ("+44", "44"), ("", ""), ("*", ""), ("any", ""), ("0" * 20, "0" * 20)],
)
def test_a_prefix_is_digits_or_every_number(text: str, prefix: str) -> None:
    assert parse_prefix(text) == prefix


@pytest.mark.parametrize("text", ["+", "++4", "4 4", "44*", "**", "4a", "٤٤", "1" * 21, "-1", " "])
def test_what_is_no_prefix_is_not_taken_for_every_number(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected 1 to 20 digits, or \* for every number"):
        parse_prefix(text)


@given(st.text("0123456789", max_size=20))
def test_a_prefix_is_read_as_it_is_shown(prefix: str) -> None:
    assert parse_prefix(shown_prefix(prefix)) == prefix


def test_what_a_change_does_not_name_stays() -> None:
    assert RuleChange().applied_to(RULE) == RULE


def test_a_change_sets_and_takes_away() -> None:
    changed = RuleChange(9, 0, None, 0, "", None, True).applied_to(RULE)
    assert changed == PlanRule("retail", "44", "carrier-a", 9, 0, None, 0, "", None, True, 7)
    changed = RuleChange(capacity=0, min_margin=0).applied_to(RULE)
    assert (changed.capacity, changed.min_margin) == (0, 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (RuleChange(priority=0), "priority 0: expected 1 to 65535"),
        (RuleChange(priority=65_536), "priority 65536: expected"),
        (RuleChange(weight=-1), "weight -1: expected 0 to 65535"),
        (RuleChange(weight=65_536), "weight 65536"),
        (RuleChange(capacity=-1), "capacity -1: expected 0 to 1000000"),
        (RuleChange(capacity=MOST_CAPACITY + 1), "capacity 1000001"),
        (RuleChange(strip=-1), "strip -1: expected 0 to 20"),
        (RuleChange(strip=21), "strip 21"),
        (RuleChange(prepend="1" * 21), "prepend .*: expected at most 20 digits"),
        (RuleChange(prepend="1@evil"), "prepend '1@evil': expected"),
        (RuleChange(min_margin=-1), "min_margin -0.000001: expected"),
        (RuleChange(min_margin=MOST_AMOUNT + 1), "min_margin 1000000.000001: expected"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(change: RuleChange, words: str) -> None:
    with pytest.raises(RefusedError, match=words):
        change.applied_to(RULE)


@pytest.mark.parametrize(
    "change",
    [
        RuleChange(1, 0, 0, 0, "", 0),
        RuleChange(65_535, 65_535, MOST_CAPACITY, 20, "*#" + "0" * 18, MOST_AMOUNT),
    ],
)
def test_the_ends_of_the_ranges_are_inside(change: RuleChange) -> None:
    assert change.applied_to(RULE).weight == change.weight


def test_a_rule_is_named_by_plan_prefix_and_account() -> None:
    assert RULE.name == "retail 44 carrier-a"
    assert PlanRule("retail", "", "carrier-a").name == "retail any carrier-a"
