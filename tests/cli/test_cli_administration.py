"""Administration from the command line, as an admin and as a script see it, on both databases."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from astcredit.cli.main import main
from support.project import ROOT

Run = Callable[..., Result]


@pytest.fixture
def run(database_url: str) -> Run:
    """Run a command on a database that is initialised."""

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["--database", database_url, *arguments])

    assert run("init").exit_code == 0
    return run


def ok(result: Result) -> str:
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


def refused(result: Result, *words: str) -> None:
    assert result.exit_code == 1, result.output
    (line,) = result.stderr.splitlines()
    assert all(word in line for word in words), line


def as_json(run: Run, *arguments: str) -> Any:
    return json.loads(ok(run("--format", "json", *arguments)))


def test_a_client_from_nothing_to_money(run: Run, tmp_path: Path) -> None:
    deck = tmp_path / "rates.csv"
    deck.write_text("prefix,rate_per_minute,destination\n44,0.018,United Kingdom\n")
    ok(run("rate-table", "add", "retail"))
    ok(run("rates", "import", "retail", str(deck), "--effective", "2026-01-01"))
    ok(run("client", "add", "acme", "--rate-table", "retail", "--credit-limit", "5"))
    ok(run("account", "add", "acme", "desk", "--ident-by", "name", "--ident", "a;b", "--tag", "x"))
    shown = ok(run("topup", "acme", "12.5", "--reference", "R1"))
    assert shown.startswith("booked: top-up of 12.50 EUR for client 'acme', reference R1")
    assert as_json(run, "balance", "acme") == {
        "client": "acme",
        "kind": "prepaid",
        "currency": "EUR",
        "balance": "12.500000",
        "credit_limit": "5.000000",
        "reserved": "0.000000",
        "available": "17.500000",
        "active_calls": 0,
    }
    (account,) = as_json(run, "account", "list", "--client", "acme")
    first_columns = {
        "id": 1,
        "name": "desk",
        "client": "acme",
        "ident_by": "name",
        "ident": "a;b",
        "rate_table": None,
        "tag": "x",
        "notes": None,
        "enabled": True,
    }
    assert list(account.items())[: len(first_columns)] == list(first_columns.items())
    assert as_json(run, "rate-table", "show", "retail")["rates"] == 1
    assert "1 clients, 0 calls, 1 ledger rows" in ok(run("audit"))


def test_the_same_reference_again_changes_nothing_and_says_so(run: Run) -> None:
    ok(run("client", "add", "acme"))
    first = as_json(run, "topup", "acme", "5", "--reference", "R1")
    again = as_json(run, "topup", "acme", "5.00", "--reference", "R1")
    assert (first["already_booked"], again["already_booked"]) == (False, True)
    assert "nothing is changed" in ok(run("topup", "acme", "5", "--reference", "R1"))
    refused(run("topup", "acme", "6", "--reference", "R1"), "R1", "5.00", "6.00")
    assert as_json(run, "balance", "acme")["balance"] == "5.000000"


def test_a_made_reference_is_printed_and_counts_as_any_other(run: Run) -> None:
    ok(run("client", "add", "acme"))
    reference = as_json(run, "topup", "acme", "5")["reference"]
    assert as_json(run, "topup", "acme", "5", "--reference", reference)["already_booked"]


def test_amounts_below_zero_are_amounts_not_options(run: Run) -> None:
    ok(run("client", "add", "acme", "--credit-limit", "2"))
    refused(run("topup", "acme", "-5"), "more than 0")
    refused(run("topup", "acme", "0"), "more than 0")
    ok(run("adjust", "acme", "-1.5", "--note", "fee"))
    refused(run("adjust", "acme", "-1", "--note", "too much"), "below zero")
    assert run("adjust", "acme", "1").exit_code == 2
    for wrong in ("1e3", "NaN", "1,5", "-", "0.1234567"):
        assert run("topup", "acme", wrong).exit_code == 2, wrong
    assert as_json(run, "balance", "acme")["balance"] == "-1.500000"


def test_settings_are_set_shown_and_cleared(run: Run) -> None:
    ok(run("rate-table", "add", "retail"))
    ok(run("client", "add", "acme", "--kind", "postpaid"))
    assert as_json(run, "client", "show", "acme")["credit_limit"] is None
    changed = as_json(
        run,
        *("client", "set", "acme", "--rate-table", "retail", "--credit-limit", "7"),
        *("--email", "a@b.c"),
    )
    assert (changed["rate_table"], changed["credit_limit"]) == ("retail", "7.000000")
    assert changed["email"] == "a@b.c"
    cleared = as_json(
        run, "client", "set", "acme", "--rate-table", "", "--credit-limit", "", "--email", ""
    )
    assert (cleared["rate_table"], cleared["credit_limit"], cleared["email"]) == (None,) * 3
    assert run("client", "set", "acme", "--credit-limit", "-1").exit_code == 2
    refused(run("client", "set", "acme", "--currency", "euro"), "three capital letters")


@pytest.mark.parametrize("kind", ["client", "account", "rate-table"])
def test_what_is_disabled_says_so_and_can_be_enabled(run: Run, kind: str) -> None:
    ok(run("rate-table", "add", "x"))
    ok(run("client", "add", "x"))
    ok(run("account", "add", "x", "x", "--ident-by", "name", "--ident", "x"))
    for verb, state in (("disable", False), ("enable", True)):
        assert "already" not in ok(run(kind, verb, "x"))
        assert f"already {verb}d" in ok(run(kind, verb, "x"))
        assert as_json(run, kind, "show", "x")["enabled"] is state
        assert [row["enabled"] for row in as_json(run, kind, "list")] == [state]
    refused(run(kind, "disable", "y"), "there is no", "'y'")


IMPOSSIBLE = (
    ["client", "add", " x"],
    ["client", "add", ""],
    ["client", "add", "x\ny"],
    ["client", "add", "x", "--currency", "eur"],
    ["client", "add", "x", "--email", "nobody"],
    ["client", "add", "x", "--rate-table", "none"],
    ["account", "add", "acme", "x", "--ident-by", "name", "--ident", ""],
    ["account", "add", "acme", "x", "--ident-by", "name", "--ident", "a;a"],
    ["account", "add", "acme", "x", "--ident-by", "name", "--ident", "a;"],
    ["account", "add", "nobody", "x", "--ident-by", "name", "--ident", "a"],
    ["rate-table", "add", "x", "--currency", "E"],
    ["topup", "acme", "1", "--reference", "call:1"],
)


def test_what_cannot_be_is_refused_before_anything_is_written(run: Run) -> None:
    ok(run("client", "add", "acme"))
    for arguments in IMPOSSIBLE:
        refused(run(*arguments))
    assert [row["name"] for row in as_json(run, "client", "list")] == ["acme"]
    assert as_json(run, "account", "list") == as_json(run, "rate-table", "list") == []
    assert "0 ledger rows" in ok(run("audit"))


def test_hostile_names_are_kept_and_shown_harmlessly(run: Run) -> None:
    name = "=x'); DROP TABLE astclient; -- %s [bold]"
    ok(run("client", "add", name, "--email", "a@b"))
    ok(run("topup", name, "1"))
    assert [row["name"] for row in as_json(run, "client", "list")] == [name]
    assert f"'{name}" in ok(run("--format", "csv", "client", "list"))
    assert name in ok(run("client", "show", name))
    assert "in order" in ok(run("audit"))


def test_every_error_of_a_deck_is_printed_and_nothing_imported(run: Run, tmp_path: Path) -> None:
    ok(run("rate-table", "add", "retail"))
    deck = tmp_path / "bad.csv"
    deck.write_text("prefix,rate_per_minute\n44,1\n4x,1\n45,-1\n\n46,1,1\n")
    result = run("rates", "import", "retail", str(deck))
    assert result.exit_code == 1
    *errors, last = result.stderr.splitlines()
    assert [error.split(":")[0] for error in errors] == [
        "line 3, column prefix",
        "line 4, column rate_per_minute",
        "line 6",
    ]
    assert last == f"Error: {deck}: 3 errors, nothing was imported"
    assert as_json(run, "rate-table", "show", "retail")["rates"] == 0
    deck.write_text("prefix,rate_per_minute\n" + "x,1\n" * 500)
    many = run("rates", "import", "retail", str(deck)).stderr.splitlines()
    assert len(many) == 101
    assert "100 or more errors" in many[-1]
    assert run("rates", "import", "retail", str(tmp_path / "none.csv")).exit_code == 2
    deck.write_text("prefix,rate_per_minute\n")
    refused(run("rates", "import", "retail", str(deck)), "no rates")


def test_a_deck_goes_out_as_it_came_in(run: Run, tmp_path: Path) -> None:
    ok(run("rate-table", "add", "retail"))
    deck, out = tmp_path / "in.csv", tmp_path / "out.csv"
    deck.write_text(
        "prefix,destination,rate_per_minute,connect_fee,first_increment,next_increment,"
        "grace_seconds,minimum_charge,effective_from\n"
        '1,"USA, ""all""",0.012000,0.000000,60,60,0,0.000000,2026-01-01 00:00:00.000\n'
        "44,Großbritannien,0.018000,0.010000,30,6,2,0.020000,2026-01-01 00:00:00.000\n"
    )
    done = as_json(run, "rates", "import", "retail", str(deck), "--effective", "2026-01-01")
    assert done == {
        "rate_table": "retail",
        "effective": "2026-01-01 00:00:00.000",
        "added": 2,
        "replaced": 0,
        "ended": 0,
        "removed": 0,
    }
    assert ok(run("rates", "export", "retail")) == deck.read_text()
    ok(run("rates", "export", "retail", str(out)))
    assert out.read_text() == deck.read_text()
    assert len(ok(run("rates", "export", "retail", "--at", "2025-12-31")).splitlines()) == 1
    deck.write_text("prefix,rate_per_minute\n44,1\n")
    shown = ok(
        run("rates", "import", "retail", str(deck), "--effective", "2026-02-01", "--replace")
    )
    assert "1 added, 0 replaced, 1 ended (effective 2026-02-01 00:00:00.000)" in shown


def test_a_deck_comes_from_standard_input(sqlite_url: str) -> None:
    arguments = ["--database", sqlite_url]
    for command in (["init"], ["rate-table", "add", "retail"]):
        assert CliRunner().invoke(main, [*arguments, *command]).exit_code == 0
    done = subprocess.run(
        [sys.executable, "-m", "astcredit", *arguments, "rates", "import", "retail", "-"],
        cwd=ROOT,
        input="prefix,rate_per_minute\n44,1\n",
        text=True,
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 added" in done.stdout


def test_lookup_says_which_prefix_won_and_why(run: Run, tmp_path: Path) -> None:
    deck = tmp_path / "rates.csv"
    deck.write_text("prefix,rate_per_minute\n4,0.01\n44,0.02\n447,0.03\n")
    ok(run("rate-table", "add", "retail"))
    ok(run("rates", "import", "retail", str(deck), "--effective", "2026-01-01"))
    found = as_json(run, "rates", "lookup", "retail", "+44 20 7123")
    assert [(row["prefix"], row["applies"]) for row in found] == [("44", True), ("4", False)]
    assert "longest prefix" in found[0]["why"]
    assert as_json(run, "rates", "lookup", "retail", "0044712")[0]["prefix"] == "447"
    refused(run("rates", "lookup", "retail", "999"), "'retail' has no rate for 999")
    refused(run("rates", "lookup", "retail", "12ab"), "12ab")
    before = run("rates", "lookup", "retail", "4420", "--at", "2025-01-01")
    assert before.exit_code == 1
    assert "not yet in force" in before.stdout
    assert run("rates", "lookup", "retail", "4420", "--at", "yesterday").exit_code == 2


def test_init_is_repeatable_and_the_demo_set_comes_once(run: Run) -> None:
    assert "up to date" in ok(run("init"))
    assert "account demo" in ok(run("init", "--demo"))
    ok(run("topup", "demo", "1"))
    assert "demo: the demo set was there already" in ok(run("init", "--demo"))
    assert as_json(run, "balance", "demo")["balance"] == "11.000000"
    kinds = {row["name"]: row["kind"] for row in as_json(run, "client", "list")}
    assert kinds == {"demo": "prepaid", "demo-postpaid": "postpaid"}
    assert as_json(run, "rates", "lookup", "demo", "442071234567")[0]["applies"]
    assert as_json(run, "audit")["in_order"]


def test_an_audit_that_finds_something_prints_it_and_fails(sqlite_url: str) -> None:
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["--database", sqlite_url, *arguments])

    ok(run("init", "--demo"))
    connection = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))
    connection.execute("UPDATE astclient SET reserved = 1 WHERE name = 'demo'")
    connection.commit()
    connection.close()
    result = run("audit")
    refused(result, "not in order: 1 finding")
    assert "client demo" in result.stdout
    document = json.loads(run("audit", "--format", "json").stdout)
    assert document["in_order"] is False
    assert document["findings"] == [
        {
            "check": "reserved is the sum of the reservations",
            "object": "client demo",
            "expected": "0.000000",
            "found": "0.000001",
        }
    ]
    assert run("audit", "--format", "csv").stdout.splitlines()[1].endswith("0.000000,0.000001")


def _top_up(
    url: str, number: int, together: Barrier, results: SimpleQueue[tuple[int, str]]
) -> None:
    """A process of its own: ten references, each used by two processes."""
    together.wait()
    arguments = ["--database", url, "topup", "demo", "1", "--reference", f"R{number // 2}"]
    result = CliRunner().invoke(main, arguments)
    results.put((result.exit_code, result.output))


def test_twenty_top_ups_by_as_many_processes_all_count(sqlite_url: str) -> None:
    """SQLite has one writer at a time: none of the processes may lose or give up."""
    processes = get_context("fork")
    results: SimpleQueue[tuple[int, str]] = processes.SimpleQueue()
    together = processes.Barrier(20)
    assert CliRunner().invoke(main, ["--database", sqlite_url, "init", "--demo"]).exit_code == 0
    running = [
        processes.Process(target=_top_up, args=(sqlite_url, number, together, results))
        for number in range(20)
    ]
    for process in running:
        process.start()
    ended = [results.get() for _ in running]
    for process in running:
        process.join()
    assert [status for status, _ in ended] == [0] * 20, ended
    assert sum("already" in shown for _, shown in ended) == 10
    shown = CliRunner().invoke(
        main, ["--database", sqlite_url, "balance", "demo", "--format", "json"]
    )
    assert json.loads(shown.stdout)["balance"] == "20.000000"
    assert CliRunner().invoke(main, ["--database", sqlite_url, "audit"]).exit_code == 0
