"""Routing plans as CSV files: what a file says, and what it would change."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astcredit.domain.deck import DeckErrors
from astcredit.domain.money import MICROS
from astcredit.domain.rating import MOST_AMOUNT
from astcredit.service.catalog_rules import KEEP
from astcredit.service.routing_csv import (
    PlanLine,
    check_accounts,
    difference,
    parse_plan,
    write_plan,
)
from astcredit.service.routing_ports import Place, PlanRule
from astcredit.service.routing_rules import RuleChange

PLAN = "retail"


def parse(text: str) -> list[PlanLine]:
    return parse_plan(PLAN, text.splitlines(keepends=True))


def rule(prefix: str, account: str, **settings: object) -> PlanRule:
    return replace(PlanRule(PLAN, prefix, account), **settings)  # type: ignore[arg-type]


def errors(text: str) -> list[str]:
    with pytest.raises(DeckErrors) as raised:
        parse(text)
    return [str(error) for error in raised.value.errors]


def test_columns_that_are_missing_leave_settings_and_empty_cells_set_them_back() -> None:
    (sparse,) = parse("account,prefix\na b,+44\n")
    assert sparse == PlanLine(2, Place(PLAN, "44", "a b"), RuleChange())
    assert sparse.change.capacity is KEEP
    (empty,) = parse(
        "prefix,account,priority,weight,capacity,strip,prepend,min_margin,enabled\n*,a,,,,,,,\n"
    )
    assert empty.place.prefix == ""
    assert empty.change == RuleChange(1, 1, None, 0, "", None, True)
    (full,) = parse(
        "prefix,account,priority,weight,capacity,strip,prepend,min_margin,enabled\n"
        "44,a,2,0,3,4,0055,0.000001,No\n"
    )
    assert full.change == RuleChange(2, 0, 3, 4, "0055", 1, False)


WRONG_CELLS = (
    ("prefix", "4x", "1 to 20 digits, or * for every number"),
    ("prefix", "+", "1 to 20 digits"),
    ("account", "", "the name of an account"),
    ("account", "x" * 81, "the name of an account"),
    ("priority", "0", "a whole number from 1 to 65535"),
    ("priority", "1.0", "a whole number from 1 to 65535"),
    ("priority", "٣", "a whole number"),
    ("weight", "-1", "a whole number from 0 to 65535"),
    ("capacity", "1000001", "a whole number from 0 to 1000000"),
    ("strip", "21", "a whole number from 0 to 20"),
    ("strip", "9" * 5_000, "a whole number from 0 to 20"),
    ("prepend", "+1", "at most 20 digits"),
    ("min_margin", "-0.01", "a decimal amount"),
    ("min_margin", "1000000.1", "a decimal amount like 12.50"),
    ("min_margin", "1e-3", "a decimal amount"),
    ("enabled", "maybe", "true or false"),
)


@pytest.mark.parametrize(("column", "cell", "expected"), WRONG_CELLS)
def test_a_cell_that_cannot_be_is_named_with_line_and_column(
    column: str, cell: str, expected: str
) -> None:
    cells = {"prefix": "44", "account": "a", column: cell}
    text = f"{','.join(cells)}\n{','.join(cells.values())}\n"
    (error,) = errors(text)
    assert error.startswith(f"line 2, column {column}: ")
    assert f"expected {expected}" in error


def test_all_errors_of_a_file_come_together() -> None:
    found = errors("prefix,account,priority\n44,a,0\nx,,1\n\n44,b,1\n+44,b,2\n")
    assert [error.split(":")[0] for error in found] == [
        "line 2, column priority",
        "line 3, column prefix",
        "line 3, column account",
        "line 6, column prefix",
    ]
    assert "each prefix and account once, line 5 has them too" in found[-1]


def test_accounts_that_no_call_can_be_routed_to_are_named_with_their_lines() -> None:
    lines = parse("prefix,account\n1,a\n2,b\n3,c\n4,c\n")
    check_accounts(lines[:1], {"a": True, "b": False})
    with pytest.raises(DeckErrors) as raised:
        check_accounts(lines, {"a": True, "b": False})
    assert [(error.line, error.column) for error in raised.value.errors] == [
        (3, "account"),
        (4, "account"),
        (5, "account"),
    ]
    assert "terminator settings" in str(raised.value.errors[0])
    assert "an account that is there" in str(raised.value.errors[1])


def test_rules_are_added_and_changed_and_the_others_stay() -> None:
    stored = [rule("44", "a", id=1, capacity=5), rule("45", "a", id=2), rule("46", "a", id=3)]
    lines = parse("prefix,account,weight\n44,a,7\n45,a,1\n47,a,2\n")
    found = difference(stored, lines, replacing=False)
    assert found.added == [rule("47", "a", weight=2)]
    assert found.changed == [(stored[0], replace(stored[0], weight=7))]
    assert (found.disabled, found.unchanged) == ([], 2)
    assert found


def test_a_file_that_replaces_disables_what_it_does_not_have() -> None:
    stored = [
        rule("44", "a", id=1),
        rule("45", "a", id=2),
        rule("46", "a", id=3, enabled=False),
        rule("47", "a", id=4, enabled=False),
        rule("48", "a", id=5),
    ]
    lines = parse("prefix,account\n44,a\n47,a\n")
    found = difference(stored, lines, replacing=True)
    assert found.disabled == [(old, replace(old, enabled=False)) for old in (stored[1], stored[4])]
    assert found.changed == [(stored[3], replace(stored[3], enabled=True))]
    assert (found.added, found.unchanged) == ([], 2)
    assert not difference(stored, lines, replacing=False)


def test_a_file_that_replaces_can_say_that_a_rule_is_disabled() -> None:
    lines = parse("prefix,account,enabled\n44,a,false\n45,a,no\n")
    found = difference([rule("44", "a", id=1)], lines, replacing=True)
    assert [new.enabled for _, new in found.changed] == [False]
    assert [new.enabled for new in found.added] == [False]


NAMES = st.text(min_size=1, max_size=10).filter(lambda t: t.isprintable() and t == t.strip())
RULES = st.builds(
    PlanRule,
    plan=st.just(PLAN),
    prefix=st.text("0123456789", max_size=20),
    account=NAMES,
    priority=st.integers(1, 65_535),
    weight=st.integers(0, 65_535),
    capacity=st.none() | st.integers(0, 1_000_000),
    strip=st.integers(0, 20),
    prepend=st.text("0123456789*#", max_size=20),
    min_margin=st.none() | st.integers(0, MOST_AMOUNT) | st.just(MICROS),
    enabled=st.booleans(),
)
PLANS = st.lists(RULES, unique_by=lambda rule: rule.place)


@given(PLANS, st.booleans())
def test_a_plan_that_was_exported_changes_nothing_when_it_is_imported(
    rules: list[PlanRule], replacing: bool
) -> None:
    stored = [replace(each, id=number) for number, each in enumerate(rules, 1)]
    found = difference(stored, parse("".join(write_plan(stored))), replacing=replacing)
    assert not found
    assert found.unchanged == len(stored)


@given(PLANS, PLANS)
def test_a_file_that_replaces_makes_the_plan_what_it_says(
    before: list[PlanRule], wanted: list[PlanRule]
) -> None:
    """What is in force afterwards is exactly what is in force in the file."""
    lines = parse("".join(write_plan(wanted)))
    found = difference(before, lines, replacing=True)
    after = {each.place: each for each in before}
    for _, new in (*found.changed, *found.disabled):
        after[new.place] = new
    for new in found.added:
        assert new.place not in after
        after[new.place] = new
    assert {p: r for p, r in after.items() if r.enabled} == {
        r.place: r for r in wanted if r.enabled
    }
    assert len(after) == len({r.place for r in (*before, *wanted)})
