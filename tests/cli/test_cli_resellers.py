"""Resellers and their clients from the command line, on both databases."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest

from support.server import Done, astcredit

Run = Callable[..., Done]


@pytest.fixture
def run(database_url: str) -> Run:
    """Run a command on a database that is initialised."""
    astcredit(database_url, "init")
    return lambda *arguments, status=0: astcredit(database_url, *arguments, status=status)


def as_json(run: Run, *arguments: str) -> Any:
    return json.loads(run("--format", "json", *arguments).stdout)


def refused(run: Run, *arguments: str, status: int = 1) -> str:
    """The line on stderr of a command that refuses."""
    done = run(*arguments, status=status)
    assert done.stdout == ""
    return done.stderr.splitlines()[-1]


def test_a_reseller_from_nothing_to_disabled(run: Run) -> None:
    assert run("reseller", "add", "north", "--orig-capacity", "3").stdout == (
        "reseller 'north' added\n"
    )
    expected = {
        "id": 1,
        "name": "north",
        "clients": 0,
        "orig_calls": 0,
        "orig_capacity": 3,
        "term_calls": 0,
        "term_capacity": None,
        "enabled": True,
    }
    assert as_json(run, "reseller", "show", "north") == expected
    changed = as_json(
        run, "reseller", "set", "north", "--orig-capacity", "", "--term-capacity", "0"
    )
    assert (changed["orig_capacity"], changed["term_capacity"]) == (None, 0)
    run("client", "add", "acme", "--reseller", "north")
    (listed,) = as_json(run, "reseller", "list")
    assert (listed["name"], listed["clients"]) == ("north", 1)
    for verb, state in (("disable", False), ("enable", True)):
        assert run("reseller", verb, "north").stdout == f"reseller 'north' {verb}d\n"
        assert run("reseller", verb, "north").stdout == f"reseller 'north' already {verb}d\n"
        assert as_json(run, "reseller", "show", "north")["enabled"] is state


def test_a_client_gets_reseller_and_capacities_and_loses_them(run: Run) -> None:
    run("reseller", "add", "north")
    run("client", "add", "acme", "--reseller", "north", "--orig-capacity", "0")
    keys = ("reseller", "routing_plan", "orig_capacity", "term_capacity")
    shown = as_json(run, "client", "show", "acme")
    assert [shown[key] for key in keys] == ["north", None, 0, None]
    shown = as_json(run, "client", "set", "acme", "--term-capacity", "1000000")
    assert [shown[key] for key in keys] == ["north", None, 0, 1_000_000]
    empty = ("--reseller", "", "--routing-plan", "", "--orig-capacity", "", "--term-capacity", "")
    shown = as_json(run, "client", "set", "acme", *empty)
    assert [shown[key] for key in keys] == [None] * 4


def test_the_columns_that_scripts_read_stay_where_they_were(run: Run) -> None:
    run("client", "add", "acme")
    header, row = csv.reader(StringIO(run("client", "list", "--format", "csv").stdout))
    assert header == [
        "id", "name", "kind", "currency", "balance", "credit_limit", "reserved", "available",
        "active_calls", "rate_table", "email", "enabled",
        "reseller", "routing_plan", "orig_capacity", "term_capacity",
        "monthly_quota", "daily_quota", "timezone", "low_balance",
    ]  # fmt: skip
    assert row[:3] == ["1", "acme", "prepaid"]
    assert row[-9:] == ["true", "", "", "", "", "", "", "UTC", ""]


def test_clients_are_found_by_words_and_by_reseller(run: Run) -> None:
    run("reseller", "add", "north")
    run("client", "add", "Acme", "--reseller", "north", "--email", "anna@example.com")
    run("client", "add", "beta")

    def names(*arguments: str) -> list[str]:
        return [row["name"] for row in as_json(run, "client", "list", *arguments)]

    assert names() == ["Acme", "beta"]
    assert names("aCM", "NORTH") == names("--reseller", "north") == ["Acme"]
    assert names("beta", "--reseller", "north") == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["client", "add", "x", "--reseller", "nroth"], "'nroth'; the nearest is 'north'"),
        (["client", "add", "x", "--routing-plan", "p"], "there is no routing plan 'p'"),
        (["client", "list", "--reseller", "nroth"], "'nroth'; the nearest is 'north'"),
        (["reseller", "show", "nroth"], "'nroth'; the nearest is 'north'"),
        (["reseller", "add", "north"], "reseller 'north' exists already"),
    ],
)
def test_a_slip_of_the_keyboard_is_named(sqlite_url: str, arguments: list[str], said: str) -> None:
    astcredit(sqlite_url, "init")
    astcredit(sqlite_url, "reseller", "add", "north")
    assert said in refused(lambda *a, status: astcredit(sqlite_url, *a, status=status), *arguments)


@pytest.mark.parametrize("wrong", ["-1", "x", "1.5", "1000001", " 1"])
@pytest.mark.parametrize("kind", ["reseller", "client"])
def test_a_capacity_that_is_none_is_wrong_usage(sqlite_url: str, kind: str, wrong: str) -> None:
    astcredit(sqlite_url, "init")
    for way in ("--orig-capacity", "--term-capacity"):
        done = astcredit(sqlite_url, kind, "add", "x", way, wrong, status=2)
        assert f"'{wrong}': expected a whole number from 0 to 1000000" in done.stderr
    assert as_json(lambda *a: astcredit(sqlite_url, *a), kind, "list") == []
