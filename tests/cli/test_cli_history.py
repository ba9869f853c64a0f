"""Who changed what, from the command line, on both databases."""

from __future__ import annotations

import csv
import json
from io import StringIO
from typing import Any

import pytest

from support.server import astcredit


@pytest.fixture
def url(database_url: str) -> str:
    astcredit(database_url, "init")
    astcredit(database_url, "reseller", "add", "north", "--orig-capacity", "3")
    astcredit(database_url, "client", "add", "acme")
    astcredit(database_url, "client", "set", "acme", "--reseller", "north", "--email", "a@b")
    astcredit(database_url, "client", "disable", "acme")
    return database_url


def as_json(url: str, *arguments: str) -> Any:
    return json.loads(astcredit(url, "history", "--format", "json", *arguments).stdout)


def test_a_change_is_a_line_for_people(url: str) -> None:
    lines = astcredit(url, "history", "client", "acme").stdout.splitlines()
    assert lines[0].split() == [
        "date_created",
        "actor",
        "action",
        "kind",
        "name",
        "changes",
        "note",
    ]
    disabled, changed, added = (" ".join(line.split()[3:]) for line in lines[1:])
    assert disabled == "disable client acme enabled: yes -> no -"
    assert changed == "set client acme email: none -> a@b; reseller: none -> north -"
    assert added == (
        "add client acme kind: prepaid; currency: EUR; credit_limit: 0.000000; enabled: yes;"
        " timezone: UTC -"
    )


def test_programs_get_everything_that_was_kept(url: str) -> None:
    newest, oldest = as_json(url)[0], as_json(url)[-1]
    assert newest["before"] == {"enabled": True}
    assert newest["after"] == {"enabled": False}
    assert list(newest) == [
        "id", "date_created", "actor", "action", "kind", "name", "before", "after", "note",
    ]  # fmt: skip
    assert (oldest["id"], oldest["kind"], oldest["before"]) == (1, "reseller", None)
    assert oldest["after"] == {"orig_capacity": 3, "term_capacity": None, "enabled": True}
    printed = astcredit(url, "history", "--format", "csv", "reseller").stdout
    header, row = csv.reader(StringIO(printed))
    assert header == list(newest)
    assert row[2:7] == [oldest["actor"], "add", "reseller", "north", ""]
    assert json.loads(row[7]) == oldest["after"]


def test_history_is_narrowed(url: str) -> None:
    def ids(*arguments: str) -> list[int]:
        return [entry["id"] for entry in as_json(url, *arguments)]

    assert ids() == [4, 3, 2, 1]
    assert ids("reseller") == [1]
    assert ids("client", "--limit", "1") == [4]
    assert ids("--to", "2020-01-01") == ids("--by", "nobody@nowhere") == []
    assert ids("--from", "2020-01-01", "--by", as_json(url)[0]["actor"]) == [4, 3, 2, 1]


def test_slips_of_the_keyboard_are_named(sqlite_url: str) -> None:
    astcredit(sqlite_url, "init")
    astcredit(sqlite_url, "client", "add", "acme")
    done = astcredit(sqlite_url, "history", "client", "acm", status=1)
    assert done.stderr == "Error: there is no client 'acm'; the nearest is 'acme'\n"
    astcredit(sqlite_url, "history", "clients", status=2)
    astcredit(sqlite_url, "history", "--from", "2026-02-01", "--to", "2026-01-01", status=2)
    assert astcredit(sqlite_url, "history", "route", "--format", "json").stdout == "[]\n"
    done = astcredit(sqlite_url, "history", "route", "1", status=1)
    assert done.stderr == "Error: there is no route 1\n"
    done = astcredit(sqlite_url, "history", "block", "882", status=1)
    assert done.stderr == "Error: nothing is recorded of block '882'\n"


def test_a_hostile_name_does_not_move_the_terminal(sqlite_url: str) -> None:
    """astaudit takes what stood in a database before this version, too."""
    name = "=1+1[bold]\u202e'; DROP TABLE astaudit"
    astcredit(sqlite_url, "init")
    astcredit(sqlite_url, "reseller", "add", "x[bold]y")
    assert "x[bold]y" in astcredit(sqlite_url, "history").stdout
    done = astcredit(sqlite_url, "history", "client", name, status=1)
    assert done.stderr.rstrip("\n").isprintable()
    assert "\\u202e" in done.stderr
