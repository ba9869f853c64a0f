"""Capacity from the command line, on both databases."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from astcredit.storage.schema import upgrade
from support.core import opened
from support.people import ACME, ACME_DESK, NORTH, open_call, settle_in
from support.server import astcredit


@pytest.fixture
def url(database_url: str) -> str:
    """A database with two calls of acme's that no counter knows of."""

    async def fill() -> None:
        async with opened(database_url) as database:
            await upgrade(database)
            await settle_in(database)
            async with database.transaction() as connection:
                for id in ("a", "b"):
                    await open_call(connection, id, ACME, account_id=ACME_DESK, reseller_id=NORTH)

    asyncio.run(fill())
    return database_url


def as_json(url: str, *arguments: str) -> Any:
    return json.loads(astcredit(url, "capacity", *arguments, "--format", "json").stdout)


def test_a_recount_says_what_it_mended_and_then_nothing(url: str) -> None:
    first, *table = astcredit(url, "capacity", "recount").stdout.splitlines()
    assert first == "3 counters mended"
    assert [line.split() for line in table] == [
        ["scope", "name", "direction", "found", "calls", "object_id"],
        ["reseller", "north", "orig", "0", "2", "1"],
        ["client", "acme", "orig", "0", "2", "1"],
        ["account", "acme-desk", "orig", "0", "2", "1"],
    ]
    assert astcredit(url, "capacity", "recount").stdout == "every counter is right\n"
    assert as_json(url, "recount") == []
    assert astcredit(url, "client", "show", "acme", "--format", "csv").stdout.count(",2,") == 1
    said = astcredit(url, "history", "capacity").stdout
    assert "reseller:1:orig: 0 -> 2" in said
    assert "3 counters mended" in said


def test_levels_are_listed_and_narrowed(url: str) -> None:
    astcredit(url, "capacity", "recount")
    astcredit(url, "client", "set", "acme", "--orig-capacity", "3")
    astcredit(url, "reseller", "set", "north", "--orig-capacity", "2")
    assert as_json(url, "list", "--client", "acme") == [
        {
            "scope": "client",
            "name": "acme",
            "direction": "orig",
            "calls": 2,
            "capacity": 3,
            "percent": 66,
            "object_id": 1,
        },
        {
            "scope": "account",
            "name": "acme-desk",
            "direction": "orig",
            "calls": 2,
            "capacity": None,
            "percent": None,
            "object_id": 1,
        },
    ]
    assert [row["name"] for row in as_json(url, "list", "--over", "100")] == ["north"]
    assert len(as_json(url, "list", "--reseller", "north")) == len(as_json(url, "list")) == 3
    (row,) = as_json(url, "list", "--reseller", "north", "--client", "acme", "--over", "1")
    assert row["scope"] == "client"
    north, _ = json.loads(astcredit(url, "reseller", "list", "--format", "json").stdout)
    assert (north["orig_calls"], north["orig_capacity"], north["term_calls"]) == (2, 2, 0)
    done = astcredit(url, "capacity", "list", "--client", "acm", status=1)
    assert "the nearest is 'acme'" in done.stderr
    astcredit(url, "capacity", "list", "--over", "-1", status=2)
