"""A routing plan gives a number the rules of all its prefixes, the longest first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astcredit.domain.routing_plan import RouteOrder, RoutingPlan, Rule

RULES = (
    Rule(1, "44", 10),
    Rule(2, "", 11),
    Rule(3, "4420", 10),
    Rule(4, "44", 12, enabled=False),
    Rule(5, "1", 10),
)


def plan(*rules: Rule) -> RoutingPlan:
    return RoutingPlan(7, "retail", RouteOrder.PRIORITY, 3, rules)


def matching(rules: RoutingPlan, number: str) -> list[list[int]]:
    return [[rule.id for rule in found] for found in rules.matching(number)]


@pytest.mark.parametrize(
    ("number", "ids"),
    [
        ("442071234567", [[3], [1, 4], [2]]),
        ("4420", [[3], [1, 4], [2]]),
        ("442", [[1, 4], [2]]),
        ("44", [[1, 4], [2]]),
        ("4", [[2]]),
        ("1", [[5], [2]]),
        ("33", [[2]]),
        ("", [[2]]),
    ],
)
def test_the_longest_prefix_comes_first_and_shorter_ones_follow(
    number: str, ids: list[list[int]]
) -> None:
    """Disabled rules are there too: whoever asks says why they are passed over."""
    assert matching(plan(*RULES), number) == ids


def test_a_plan_without_a_rule_for_all_numbers_has_none_for_some() -> None:
    assert matching(plan(Rule(1, "44", 10)), "331") == []
    assert matching(plan(), "331") == []


def test_a_plan_knows_how_many_rules_it_has() -> None:
    assert len(plan()) == 0
    assert len(plan(*RULES)) == len(RULES)


@given(
    st.lists(st.builds(Rule, st.integers(1, 99), st.text("01", max_size=4), st.just(1))),
    st.text("01", max_size=6),
)
def test_matching_is_that_of_the_naive_reference(rules: list[Rule], number: str) -> None:
    """Every rule whose prefix begins the number, longest first, else in the order given."""
    expected = sorted(
        (rule for rule in rules if number.startswith(rule.prefix)),
        key=lambda rule: -len(rule.prefix),
    )
    groups = list(plan(*rules).matching(number))
    assert [rule for group in groups for rule in group] == expected
    lengths = [{len(rule.prefix) for rule in group} for group in groups]
    assert all(len(length) == 1 for length in lengths)
    assert len(lengths) == len({rule.prefix for rule in expected})
