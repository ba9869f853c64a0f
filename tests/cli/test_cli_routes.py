"""Routing plans from the command line, as an admin and as a script see it, on both databases."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from astcredit.cli.main import main
from support.carriers import CALLER, furnish, give_rates, set_account, set_client
from support.core import opened
from support.project import ROOT
from support.server import COMMAND, Done, astcredit, environment

CARRIERS = ("carrier-a", "carrier-b")
UK = "442071234567"


@pytest.fixture
def url(database_url: str) -> str:
    """A database with two terminators that charge for 44, a caller, and the plan "retail"."""

    async def fill() -> None:
        async with opened(database_url) as database:
            await furnish(database, CARRIERS)
            cheap = await give_rates(database, "cheap", {"44": 10_000}, "EUR")
            retail = await give_rates(database, "retail", {"44": 30_000}, "EUR")
            await set_account(database, CARRIERS, term_rate_table_id=cheap, proxy="trunk")
            await set_client(database, CALLER, rate_table_id=retail)

    astcredit(database_url, "init")
    asyncio.run(fill())
    astcredit(database_url, "routing-plan", "add", "retail")
    return database_url


def ok(url: str, *arguments: str) -> str:
    done = astcredit(url, *arguments)
    assert done.stderr == ""
    return done.stdout


def as_json(url: str, *arguments: str) -> Any:
    return json.loads(ok(url, *arguments, "--format", "json"))


def refused(url: str, *arguments: str) -> str:
    """The one line that a refused command prints."""
    (line,) = astcredit(url, *arguments, status=1).stderr.splitlines()
    return line


ROUTE = {
    "id": 1,
    "plan": "retail",
    "prefix": "44",
    "account": "carrier-a",
    "priority": 1,
    "weight": 1,
    "capacity": None,
    "strip": 0,
    "prepend": None,
    "min_margin": None,
    "enabled": True,
}


def test_a_route_is_added_shown_set_and_switched(url: str) -> None:
    added = ok(url, "route", "add", "retail", "+44", "carrier-a")
    assert added == "route 1 added: routing plan 'retail', prefix 44, account 'carrier-a'\n"
    named = ("retail", "44", "carrier-a")
    assert as_json(url, "route", "show", "1") == ROUTE
    assert as_json(url, "route", "show", *named) == ROUTE
    settings = ("--priority", "2", "--weight", "0", "--capacity", "30", "--strip", "2")
    more = ("--prepend", "0055", "--min-margin", "0.005")
    changed = {
        **ROUTE,
        "priority": 2,
        "weight": 0,
        "capacity": 30,
        "strip": 2,
        "prepend": "0055",
        "min_margin": "0.005000",
    }
    assert as_json(url, "route", "set", *named, *settings, *more) == changed
    assert as_json(url, "route", "set", "1") == changed
    back = as_json(url, "route", "set", "1", "--capacity", "", "--prepend", "", "--min-margin", "")
    assert (back["capacity"], back["prepend"], back["min_margin"]) == (None, None, None)
    for verb, state in (("disable", False), ("enable", True)):
        assert ok(url, "route", verb, *named) == f"route 1 {verb}d\n"
        assert ok(url, "route", verb, "1") == f"route 1 already {verb}d\n"
        assert as_json(url, "route", "show", "1")["enabled"] is state


def test_a_route_can_be_added_with_every_setting(url: str) -> None:
    settings = ("--priority", "2", "--weight", "0", "--capacity", "0", "--strip", "2")
    more = ("--prepend", "9", "--min-margin", "0")
    added = as_json(url, "route", "add", "retail", "*", "carrier-b", *settings, *more)
    assert added == {
        **ROUTE,
        "prefix": "*",
        "account": "carrier-b",
        "priority": 2,
        "weight": 0,
        "capacity": 0,
        "strip": 2,
        "prepend": "9",
        "min_margin": "0.000000",
    }
    for every in ("*", "", "any"):
        assert as_json(url, "route", "show", "retail", every, "carrier-b") == added


def test_routes_are_listed_and_filtered(url: str) -> None:
    ok(url, "routing-plan", "add", "other")
    for plan, prefix, account in (
        ("retail", "44", "carrier-a"),
        ("retail", "447", "carrier-b"),
        ("retail", "", "carrier-b"),
        ("other", "1", "carrier-a"),
    ):
        ok(url, "route", "add", plan, prefix, account)
    assert [row["id"] for row in as_json(url, "route", "list")] == [4, 3, 1, 2]
    assert [row["id"] for row in as_json(url, "route", "list", "retail")] == [3, 1, 2]
    assert [row["id"] for row in as_json(url, "route", "list", "--prefix", "+44")] == [1, 2]
    assert [row["id"] for row in as_json(url, "route", "list", "--prefix", "*")] == [3]
    assert [row["id"] for row in as_json(url, "route", "list", "--account", "carrier-a")] == [4, 1]
    table = ok(url, "route", "list", "retail").splitlines()
    assert table[0].split() == list(ROUTE)
    cells = table[1].split()
    assert cells[:4] == ["3", "retail", "*", "carrier-b"]
    assert cells[4:] == ["1", "1", "-", "0", "-", "-", "yes"]


WRONG_USAGE = (
    ("route", "add", "retail", "4x", "carrier-a"),
    ("route", "add", "retail", "+", "carrier-a"),
    ("route", "add", "retail", "1" * 21, "carrier-a"),
    ("route", "add", "retail", "44", "carrier-a", "--priority", "0"),
    ("route", "add", "retail", "44", "carrier-a", "--weight", "65536"),
    ("route", "add", "retail", "44", "carrier-a", "--capacity", "-1"),
    ("route", "add", "retail", "44", "carrier-a", "--strip", "21"),
    ("route", "add", "retail", "44", "carrier-a", "--prepend", "00@evil"),
    ("route", "add", "retail", "44", "carrier-a", "--min-margin", "-1"),
    ("route", "add", "retail", "44", "carrier-a", "--min-margin", "1e3"),
    ("route", "show", "1", "2"),
    ("route", "show", "first"),
    ("route", "show", "9" * 11),
    ("route", "list", "--prefix", "x"),
    ("route", "explain", "retail", UK, "more"),
    ("route", "explain", UK),
    ("route", "explain", UK, "--client", "acme", "--account", "office"),
    ("routing-plan", "add", "x", "--order", "random"),
    ("routing-plan", "set", "retail", "--order", ""),
    ("routing-plan", "import", "retail", "/nonexistent.csv"),
)


def test_what_cannot_be_is_wrong_usage_or_refused_before_anything_is_written(url: str) -> None:
    ok(url, "route", "add", "retail", "1", "carrier-a")
    for arguments in WRONG_USAGE:
        assert "Error: " in astcredit(url, *arguments, status=2).stderr, arguments
    twice = refused(url, "route", "add", "retail", "1", "carrier-a")
    assert "has route 1 for prefix 1 to account 'carrier-a' already" in twice
    assert "--term" in refused(url, "route", "add", "retail", "44", "office")
    assert "'carrier-a'" in refused(url, "route", "add", "retail", "44", "carier-a")
    assert "no route 7" in refused(url, "route", "disable", "7")
    assert "'retail'" in refused(url, "route", "list", "retial")
    assert "exists already" in refused(url, "routing-plan", "add", "retail")
    assert [row["id"] for row in as_json(url, "route", "list")] == [1]


def test_plans_are_listed_with_what_uses_them(url: str) -> None:
    ok(url, "route", "add", "retail", "44", "carrier-a")
    plan = {
        "id": 1,
        "name": "retail",
        "order": "priority",
        "rules": 1,
        "clients": 0,
        "accounts": 0,
        "version": 2,
        "enabled": True,
    }
    assert as_json(url, "routing-plan", "list") == [plan]
    changed = as_json(url, "routing-plan", "set", "retail", "--order", "least-cost")
    assert changed == {**plan, "order": "least-cost"}
    for verb, state in (("disable", False), ("enable", True)):
        assert ok(url, "routing-plan", verb, "retail") == f"routing plan 'retail' {verb}d\n"
        assert f"already {verb}d" in ok(url, "routing-plan", verb, "retail")
        assert as_json(url, "routing-plan", "show", "retail")["enabled"] is state


def test_a_plan_goes_out_as_it_came_in(url: str, tmp_path: Path) -> None:
    came, goes = tmp_path / "in.csv", tmp_path / "out.csv"
    came.write_text(
        "prefix,account,priority,weight,capacity,strip,prepend,min_margin,enabled\n"
        "*,carrier-b,1,1,,0,,,true\n"
        "44,carrier-a,2,0,30,2,0055,0.005000,true\n"
        "447,carrier-a,1,1,,0,,,false\n"
    )
    arguments = ("routing-plan", "import", "retail", str(came))
    tried = ok(url, *arguments, "--dry-run")
    assert tried == (
        "routing plan 'retail', dry run, nothing was changed: 3 added, 0 changed, 0 disabled,"
        " 0 left as they are\n"
    )
    assert as_json(url, "route", "list") == []
    assert "3 added, 0 changed" in ok(url, *arguments)
    assert ok(url, "routing-plan", "export", "retail") == came.read_text()
    ok(url, "routing-plan", "export", "retail", str(goes))
    assert goes.read_text() == came.read_text()
    again = "routing plan 'retail': nothing to change, all is as in the file\n"
    assert ok(url, *arguments) == ok(url, *arguments, "--replace") == again
    came.write_text("prefix,account,weight\n44,carrier-a,5\n")
    assert as_json(url, *arguments, "--replace") == {
        "routing_plan": "retail",
        "added": 0,
        "changed": 1,
        "disabled": 1,
        "unchanged": 1,
        "dry_run": False,
    }
    everything, uk, _ = as_json(url, "route", "list", "retail")
    assert (everything["enabled"], uk["weight"], uk["capacity"]) == (False, 5, 30)


def test_every_error_of_a_file_is_printed_and_nothing_imported(url: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.csv"

    def attempt(text: str, *options: str) -> Done:
        file.write_text(text)
        return astcredit(url, "routing-plan", "import", "retail", str(file), *options, status=1)

    *errors, last = attempt("prefix,account,weight\n4x,a,\n44,,x\n\n45,b\n").stderr.splitlines()
    assert [error.split(":")[0] for error in errors] == [
        "line 2, column prefix",
        "line 3, column account",
        "line 3, column weight",
        "line 5",
    ]
    assert last == f"Error: {file}: 4 errors, nothing was imported"
    unknown = "prefix,account\n44,carrier-a\n45,office\n46,nobody\n"
    for options in ((), ("--dry-run",), ("--replace",)):
        *errors, last = attempt(unknown, *options).stderr.splitlines()
        assert [error.split(":")[0] for error in errors] == [
            "line 3, column account",
            "line 4, column account",
        ]
        assert last == f"Error: {file}: 2 errors, nothing was imported"
    assert as_json(url, "route", "list") == []
    hostile = attempt("prefix,account\n\x1b[2J,a\n").stderr
    assert all(line.isprintable() for line in hostile.splitlines())


def test_a_plan_comes_from_standard_input(url: str) -> None:
    done = subprocess.run(
        [*COMMAND, "routing-plan", "import", "retail", "-"],
        cwd=ROOT,
        env=environment(url),
        input="prefix,account\n44,carrier-a\n",
        text=True,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 added" in done.stdout


def test_explain_shows_the_order_the_costs_and_why_not(url: str) -> None:
    for account, priority in (("carrier-b", "2"), ("carrier-a", "1")):
        ok(url, "route", "add", "retail", "44", account, "--priority", priority)
    ok(url, "route", "disable", "retail", "44", "carrier-b")
    rows = as_json(url, "route", "explain", "retail", f"+{UK}", "--client", CALLER)
    assert rows == [
        {
            "position": 1,
            "id": 2,
            "prefix": "44",
            "account": "carrier-a",
            "priority": 1,
            "weight": 1,
            "dial": f"PJSIP/{UK}@trunk",
            "rate_prefix": "44",
            "rate_per_minute": "0.010000",
            "first_minute": "0.010000",
            "margin": "0.020000",
            "why_not": None,
        },
        {
            "position": None,
            "id": 1,
            "prefix": "44",
            "account": "carrier-b",
            "priority": 2,
            "weight": 1,
            "dial": None,
            "rate_prefix": None,
            "rate_per_minute": None,
            "first_minute": None,
            "margin": None,
            "why_not": "carrier-b is disabled for prefix 44",
        },
    ]
    ok(url, "route", "set", "2", "--capacity", "0")
    full = astcredit(url, "--format", "csv", "route", "explain", "retail", UK, status=1)
    assert full.stderr == f"Error: every route for {UK} is full now\n"
    first, _ = csv.DictReader(io.StringIO(full.stdout))
    assert (first["position"], first["id"]) == ("", "2")
    assert "0 of 0 terminating calls up" in first["why_not"]
    ok(url, "route", "enable", "retail", "44", "carrier-b")
    rows = as_json(url, "route", "explain", "retail", UK)
    assert [(row["position"], row["id"]) for row in rows] == [(None, 2), (1, 1)]
    nothing = astcredit(url, "route", "explain", "retail", "33123456", status=1)
    assert nothing.stderr == "Error: routing plan 'retail' has no rule for 33123456\n"
    assert "no routing plan" in refused(url, "route", "explain", UK, "--client", CALLER)


def test_the_groups_have_the_names_that_scripts_use() -> None:
    assert {"routing-plan", "route"} <= set(main.list_commands(None))  # type: ignore[arg-type]
