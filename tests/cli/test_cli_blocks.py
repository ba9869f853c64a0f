"""Blocked prefixes from the command line, on both databases."""

from __future__ import annotations

import json
from typing import Any

from support.server import astcredit


def as_json(url: str, *arguments: str) -> Any:
    return json.loads(astcredit(url, "--format", "json", *arguments).stdout)


def test_a_block_from_nothing_to_lifted(database_url: str) -> None:
    astcredit(database_url, "init")
    astcredit(database_url, "client", "add", "acme")
    said = astcredit(database_url, "block", "add", "+44900", "--note", "premium rate").stdout
    assert said == "block 1 added: prefix 44900 for everybody\n"
    said = astcredit(database_url, "block", "add", "44900", "--client", "acme").stdout
    assert said == "block 2 added: prefix 44900 for client 'acme'\n"
    row = {"id": 1, "prefix": "44900", "client": None, "note": "premium rate", "enabled": True}
    assert as_json(database_url, "block", "show", "1") == row
    assert as_json(database_url, "block", "show", "44900") == row
    assert as_json(database_url, "block", "set", "44900", "--note", "")["note"] is None
    assert [r["id"] for r in as_json(database_url, "block", "list")] == [1, 2]
    assert [r["id"] for r in as_json(database_url, "block", "list", "--client", "acme")] == [2]
    lift = ("block", "disable", "44900", "--client", "acme")
    said = "block 2 {}: prefix 44900 for client 'acme'\n"
    assert astcredit(database_url, *lift).stdout == said.format("disabled")
    assert astcredit(database_url, *lift).stdout == said.format("already disabled")
    assert [r["enabled"] for r in as_json(database_url, "block", "list")] == [True, False]
    assert astcredit(database_url, "block", "enable", "2").stdout == said.format("enabled")


def test_what_cannot_be_is_refused_in_a_line(sqlite_url: str) -> None:
    astcredit(sqlite_url, "init")
    astcredit(sqlite_url, "client", "add", "acme")
    astcredit(sqlite_url, "block", "add", "44900", "--client", "acme")
    for arguments, said in (
        (("add", "44900", "--client", "acme"), "is there already, with id 1"),
        (("add", "4490x"), "prefix '4490x': expected 1 to 20 digits"),
        (("add", "44", "--client", "acm"), "no client 'acm'; the nearest is 'acme'"),
        (("list", "--client", "acm"), "no client 'acm'; the nearest is 'acme'"),
        (("disable", "44900"), "for everybody; there is a block of prefix 44900 for client 'acme'"),
        (("add", "44", "--note", "a\nb"), "note 'a\\nb': expected at most 200 printable"),
    ):
        done = astcredit(sqlite_url, "block", *arguments, status=1)
        (line,) = done.stderr.splitlines()
        assert said in line
    assert astcredit(sqlite_url, "block", "set", "1", status=2).stdout == ""
    assert len(as_json(sqlite_url, "block", "list")) == 1
