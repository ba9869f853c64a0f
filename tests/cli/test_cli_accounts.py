"""Accounts from the command line, as an admin and as a script see them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from astcredit.cli.account_rows import COLUMNS, row
from astcredit.service.account_ports import COLUMNS as SETTINGS
from astcredit.service.account_ports import Account, Termination
from support.server import Done, astcredit

Run = Callable[..., Done]

NO_RATES = "calls are not routed to it until it has a rate table"


@pytest.fixture
def run(database_url: str) -> Run:
    """Run a command on a database with a client, two rate tables and a routing plan."""
    return prepared(database_url)


@pytest.fixture
def run_sqlite(sqlite_url: str) -> Run:
    """The same, for what is no matter of databases."""
    return prepared(sqlite_url)


def prepared(url: str) -> Run:
    def run(*arguments: str, status: int = 0, **settings: str) -> Done:
        return astcredit(url, *arguments, status=status, **settings)

    run("init")
    run("client", "add", "acme")
    run("rate-table", "add", "retail")
    run("rate-table", "add", "cost", "--currency", "USD")
    run("routing-plan", "add", "plan")
    return run


def added(run: Run, name: str, *arguments: str) -> Done:
    return run("account", "add", "acme", name, "--ident-by", "name", "--ident", name, *arguments)


def as_json(run: Run, *arguments: str) -> Any:
    return json.loads(run("--format", "json", *arguments).stdout)


def refused(done: Done, *words: str) -> None:
    (line,) = done.stderr.splitlines()
    assert all(word in line for word in words), line


def test_the_columns_are_those_of_the_settings_and_new_ones_come_at_the_end() -> None:
    names = [column.name for column in COLUMNS]
    assert sorted(names) == sorted(("id", *SETTINGS))
    old = ["id", "name", "client", "ident_by", "ident", "rate_table", "tag", "notes", "enabled"]
    assert names[: len(old)] == old
    for termination in (None, Termination()):
        assert len(row(Account("x", "y", ("z",), termination=termination))) == len(COLUMNS)


FULL = {
    "id": 1,
    "name": "full",
    "client": "acme",
    "ident_by": "ip",
    "ident": "10.0.0.0/24;2001:db8::1",
    "rate_table": "retail",
    "tag": "t",
    "notes": "Grüße",
    "enabled": True,
    "tech_prefix": "77",
    "gateways": "pbx1;pbx2",
    "routing_plan": "plan",
    "src_policy": "reject",
    "dids": "4930;4940",
    "orig_enabled": False,
    "orig_capacity": 3,
    "term_enabled": True,
    "term_rate_table": "cost",
    "term_tag": "night",
    "term_capacity": 0,
    "protocol": "SIP",
    "host": "a.example",
    "port": 5070,
    "proxy": "peer",
    "routing_ip": "192.0.2.1",
}


def test_every_setting_can_be_given_shown_and_emptied(run: Run) -> None:
    done = run(
        *("account", "add", "acme", "full", "--ident-by", "ip"),
        *("--ident", "10.0.0.0/24;2001:DB8::1", "--tech-prefix", "77", "--rate-table", "retail"),
        *("--routing-plan", "plan", "--tag", "t", "--src-policy", "reject", "--did", "+4930"),
        *("--did", "4940", "--no-orig", "--orig-capacity", "3", "--term-rate-table", "cost"),
        *(
            "--term-tag",
            "night",
            "--term-capacity",
            "0",
            "--protocol",
            "SIP",
            "--host",
            "a.example",
        ),
        *("--port", "5070", "--proxy", "peer", "--routing-ip", "192.0.2.1", "--gateway", "pbx1"),
        *("--gateway", "pbx2", "--notes", "Grüße", "--format", "json"),
    )
    assert done.stderr == ""
    shown = json.loads(done.stdout)
    assert shown == FULL
    assert as_json(run, "account", "show", "full") == shown
    emptied = as_json(
        run,
        *("account", "set", "full", "--ident-by", "ani", "--ident", "+4420*", "--tech-prefix", ""),
        *("--rate-table", "", "--routing-plan", "", "--tag", "", "--src-policy", "allow-any"),
        *("--did", "", "--orig", "--orig-capacity", "", "--term-rate-table", "", "--term-tag", ""),
        *("--term-capacity", "", "--host", "", "--port", "", "--proxy", "", "--routing-ip", ""),
        *("--gateway", "", "--notes", "", "--no-term", "--protocol", "PJSIP"),
    )
    kept = {"id": 1, "name": "full", "client": "acme", "ident_by": "ani", "ident": "4420*"}
    values = {"src_policy": "allow-any", "protocol": "PJSIP", "term_enabled": False}
    flags = {"enabled": True, "orig_enabled": True}
    assert emptied == {**dict.fromkeys(shown), **kept, **values, **flags}


def test_a_terminator_option_makes_a_terminator_and_wants_rates(run_sqlite: Run) -> None:
    run = run_sqlite
    assert added(run, "plain").stderr == ""
    assert as_json(run, "account", "show", "plain")["term_enabled"] is None
    done = added(run, "carrier", "--proxy", "peer")
    assert (done.stdout, done.stderr.count(NO_RATES)) == ("account 'carrier' added\n", 1)
    assert as_json(run, "account", "show", "carrier")["term_enabled"] is True
    assert run("account", "set", "carrier", "--term-rate-table", "cost").stderr == ""
    assert added(run, "off", "--host", "h", "--no-term").stderr == ""
    refused(run("account", "set", "plain", "--term", status=1), "--host", "--proxy", "--routing-ip")
    refused(run("account", "set", "plain", "--term-capacity", "3", status=1), "--host")
    done = run("account", "enable", "off", "--term")
    assert done.stdout == "account 'off' enabled as terminator\n"
    assert NO_RATES in done.stderr


def test_each_side_is_switched_by_itself(run: Run) -> None:
    added(run, "x", "--proxy", "peer", "--term-rate-table", "cost")

    def flags() -> tuple[bool, bool, bool]:
        shown = as_json(run, "account", "show", "x")
        return shown["enabled"], shown["orig_enabled"], shown["term_enabled"]

    def said(*arguments: str) -> str:
        return run("account", *arguments).stdout.strip()

    assert said("disable", "x", "--orig") == "account 'x' disabled as originator"
    assert said("disable", "x", "--orig") == "account 'x' already disabled as originator"
    assert flags() == (True, False, True)
    assert said("disable", "x", "--term") == "account 'x' disabled as terminator"
    assert flags() == (True, False, False)
    both = said("enable", "x", "--orig", "--term")
    assert both == "account 'x' enabled as originator and terminator"
    assert said("disable", "x") == "account 'x' disabled"
    assert flags() == (False, True, True)
    assert said("enable", "x") == "account 'x' enabled"


def test_wrong_usage_is_status_2_and_a_wrong_value_status_1(run_sqlite: Run) -> None:
    run = run_sqlite
    for wrong in (
        ("--src-policy", "deny"),
        ("--protocol", "H323"),
        ("--orig-capacity", "-1"),
        ("--term-capacity", "1000001"),
        ("--port", "0"),
    ):
        added_wrong = ("account", "add", "acme", "x", "--ident-by", "name", "--ident", "x", *wrong)
        assert "Error" in run(*added_wrong, status=2).stderr
    run("account", "add", "acme", "x", "--ident", "x", status=2)
    run("account", "add", "acme", "x", "--ident-by", "phone", "--ident", "x", status=2)
    for wrong, words in (
        (("--tech-prefix", "7a"), "tech prefix '7a'"),
        (("--did", "x"), "DID 'x'"),
        (("--gateway", "a b"), "gateway 'a b'"),
        (("--host", "a b"), "host 'a b'"),
        (("--proxy", "a/b"), "proxy 'a/b'"),
        (("--routing-ip", "h"), "routing IP 'h'"),
        (("--src-policy", "reject"), "--did"),
        (("--routing-plan", "plam"), "the nearest is 'plan'"),
    ):
        added_wrong = ("account", "add", "acme", "x", "--ident-by", "name", "--ident", "x", *wrong)
        refused(run(*added_wrong, status=1), words)
    refused(
        run("account", "add", "acme", "x", "--ident-by", "ip", "--ident", "10.0.0.5/24", status=1),
        "'10.0.0.5/24'",
        "10.0.0.0/24",
    )
    assert as_json(run, "account", "list") == []


def test_a_list_for_people_has_the_columns_of_the_manual(run_sqlite: Run) -> None:
    run = run_sqlite
    run(
        *("account", "add", "acme", "pbx", "--ident-by", "ip", "--ident", "10.0.0.0/24;10.1.0.1"),
        *("--tech-prefix", "77", "--rate-table", "retail", "--routing-plan", "plan"),
        *("--src-policy", "overwrite", "--did", "4930", "--orig-capacity", "30"),
        *("--gateway", "pbx1", "--notes", "Berlin office"),
    )
    added(run, "carrier", "--host", "2001:db8::1", "--port", "5070", "--term-tag", "night")
    added(run, "peer", "--proxy", "p", "--term-rate-table", "cost", "--term-capacity", "1")
    run("account", "disable", "carrier", "--term")
    run("account", "disable", "peer")
    head, *lines = run("account", "list").stdout.splitlines()
    starts = [
        head.index(name)
        for name in (
            *("ID", "Client", "Account", "Name/ANI/IP"),
            *("Tech prefix", "Orig details", "Term details"),
        )
    ]
    cells = [
        [line[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)]
        for line in lines
    ]
    assert cells == [
        [
            *("2", "acme", "carrier", "name carrier", "-", "allow-any"),
            "disabled; PJSIP [2001:db8::1]:5070; no rate table",
        ],
        [
            *("1", "acme", "pbx", "ip 10.0.0.0/24; 10.1.0.1", "77"),
            "rate table retail; routing plan plan; overwrite; 1 DID; capacity 30; only on pbx1",
            "-",
        ],
        [
            *("3", "acme", "peer", "name peer", "-", "disabled; allow-any"),
            "disabled; PJSIP p; rate table cost; capacity 1",
        ],
    ]

    def found(*words: str) -> list[str]:
        return [one["name"] for one in as_json(run, "account", "list", *words)]

    assert found("BERLIN") == found("retail", "77") == ["pbx"]
    assert found("night") == ["carrier"]
    assert found("disabled") == ["carrier", "peer"]
    assert found("acme", "10.0.0") == ["pbx"]
    assert found("berlin", "night") == found("nobody") == []
    assert found() == ["carrier", "pbx", "peer"]


def test_the_list_is_one_clients_if_asked(run_sqlite: Run) -> None:
    run = run_sqlite
    run("client", "add", "beta")
    added(run, "x")
    run("account", "add", "beta", "y", "--ident-by", "name", "--ident", "y")
    for client, name in (("acme", "x"), ("beta", "y")):
        shown = as_json(run, "account", "list", "--client", client)
        assert [one["name"] for one in shown] == [name]
        exported = run("account", "export", "--client", client).stdout
        assert [line["name"] for line in csv.DictReader(io.StringIO(exported))] == [name]
    refused(run("account", "list", "--client", "gamma", status=1), "no client 'gamma'")


def identified(run: Run, *arguments: str, status: int = 0, **settings: str) -> list[Any]:
    found = run("account", "identify", *arguments, "--format", "json", status=status, **settings)
    return list(json.loads(found.stdout)) if found.stdout else []


def test_identify_tells_which_account_and_why_not_the_others(run: Run) -> None:
    def add(name: str, kind: str, ident: str, *further: str) -> None:
        run("account", "add", "acme", name, "--ident-by", kind, "--ident", ident, *further)

    add("net", "ip", "10.0.0.0/8")
    add("gateway", "ip", "10.0.0.1", "--tech-prefix", "77", "--gateway", "pbx1")
    add("phone", "name", "phone")
    add("london", "ani", "44207*")
    options = ("--ip", "10.0.0.1:5060", "--number", "77442071234567")
    chosen, other = identified(run, *options, "--node", "pbx1")
    assert (chosen["account"], chosen["chosen"], chosen["client"]) == ("gateway", True, "acme")
    assert (chosen["ident"], chosen["tech_prefix"]) == ("10.0.0.1", "77")
    assert (chosen["number"], other["number"]) == ("442071234567", None)
    assert (other["account"], other["chosen"]) == ("net", False)
    assert chosen["why"]
    assert other["why"]
    elsewhere, passed = identified(run, *options)
    assert (elsewhere["account"], elsewhere["number"]) == ("net", "77442071234567")
    assert "gateway" in passed["why"]
    assert [one["account"] for one in identified(run, "--endpoint", "phone")] == ["phone"]
    by_name = identified(run, "--name", "phone", "--ip", "10.0.0.1")
    assert [one["account"] for one in by_name if one["chosen"]] == ["phone"]
    (caller,) = identified(run, "--ani", "02071234567", numbers_country_code="44")
    assert (caller["account"], caller["ani"]) == ("london", "442071234567")
    assert identified(run, "--ani", "02071234567", status=1) == []


def test_identify_says_it_to_people_too(run_sqlite: Run) -> None:
    run = run_sqlite
    run(
        "account", "add", "acme", "x", "--ident-by", "ani", "--ident", "4420*", "--tech-prefix", "7"
    )
    ani, number = ("--ani", "0207"), ("--number", "7112")
    shown = run("account", "identify", *ani, *number, numbers_country_code="44").stdout
    assert "0207 as it was told: it was looked for as 44207, too" in shown
    assert "account x of client acme, recognised by its caller's number; the number is 112" in shown
    nobody = run("account", "identify", *ani, status=1, numbers_country_code="44")
    refused(nobody, "nobody's")
    assert "does not begin with its tech prefix 7" in nobody.stdout
    run("account", "identify", status=2)
    assert "ADDRESS" in run("account", "identify", "--ip", "nowhere", status=2).stderr.upper()


def test_identify_takes_what_a_script_names(run_sqlite: Run) -> None:
    """An own name, whatever the account is recognised by; else an ident; nothing else counts."""
    run = run_sqlite
    run("account", "add", "acme", "office", "--ident-by", "ip", "--ident", "10.0.0.1")
    run("account", "add", "acme", "phone", "--ident-by", "name", "--ident", "desk")
    chosen, other = identified(run, "--account", "office", "--name", "desk")
    assert (chosen["account"], chosen["ident"], chosen["chosen"]) == ("office", "office", True)
    assert (other["account"], other["chosen"]) == ("phone", False)
    assert [one["account"] for one in identified(run, "--account", "desk")] == ["phone"]
    assert identified(run, "--account", "nobody", status=1) == []


def test_identify_says_that_a_call_is_refused_as_disabled(run: Run) -> None:
    run("reseller", "add", "north")
    run("client", "set", "acme", "--reseller", "north")
    run("account", "add", "acme", "x", "--ident-by", "name", "--ident", "x")
    assert [one["refused"] for one in identified(run, "--name", "x")] == [None]
    for switched, off in (
        (("account", "disable", "x", "--orig"), "account 'x' is disabled as an originator"),
        (("reseller", "disable", "north"), "reseller 'north' is disabled"),
        (("client", "disable", "acme"), "client 'acme' is disabled"),
        (("account", "disable", "x"), "account 'x' is disabled"),
    ):
        run(*switched)
        (found,) = identified(run, "--name", "x", status=1)
        assert (found["chosen"], found["refused"]) == (True, f"DISABLED: {off}")
        refused(run("account", "identify", "--name", "x", status=1), f"{off} (DISABLED)")


def test_what_is_exported_is_imported_and_changes_nothing(run: Run, tmp_path: Path) -> None:
    added(run, "desk", "--notes", "=1+1, and more", "--did", "49")
    added(run, "carrier", "--proxy", "peer", "--term-rate-table", "cost")
    file = tmp_path / "accounts.csv"
    run("account", "export", str(file))
    assert run("account", "export").stdout == file.read_text()
    before = as_json(run, "account", "list")
    shown = run("account", "import", str(file)).stdout
    assert shown == "accounts.csv: nothing to change, all is as in the file\n"
    assert as_json(run, "account", "list") == before
    file.write_text(run("--format", "csv", "account", "list").stdout)
    done = as_json(run, "account", "import", str(file))
    assert done == {
        "file": "accounts.csv",
        "added": 0,
        "changed": 0,
        "unchanged": 2,
        "dry_run": False,
    }


def test_an_import_adds_changes_and_warns(run: Run, tmp_path: Path) -> None:
    added(run, "desk")
    file = tmp_path / "a.csv"
    file.write_text(
        "name,client,ident_by,ident,orig_capacity,proxy\n"
        "desk,acme,name,desk,5,\nnew,acme,ip,10.0.0.1,,peer\n"
    )
    dry = run("account", "import", str(file), "--dry-run")
    counts = "1 added, 1 changed, 0 left as they are\n"
    assert dry.stdout == f"a.csv, dry run, nothing was changed: {counts}"
    assert [one["name"] for one in as_json(run, "account", "list")] == ["desk"]
    done = run("account", "import", str(file))
    assert done.stdout == f"a.csv: {counts}"
    assert done.stderr.strip().endswith("(term_rate_table): new")
    assert as_json(run, "account", "show", "desk")["orig_capacity"] == 5


def test_every_error_of_a_file_is_printed_and_nothing_imported(
    run_sqlite: Run, tmp_path: Path
) -> None:
    run = run_sqlite
    added(run, "desk")
    file = tmp_path / "a.csv"
    file.write_text(
        "name,client,ident_by,ident,rate_table\n"
        "x,acme,ip,10.0.0.1/8,none\nfine,acme,name,fine,\ny,acme,name,desk,\nz,nobody,name\n"
    )
    done = run("account", "import", str(file), status=1)
    *errors, last = done.stderr.splitlines()
    assert [error.split(":")[0] for error in errors] == [
        "line 2, column rate_table",
        "line 2, column ident",
        "line 4, column ident",
        "line 5",
    ]
    assert last == f"Error: {file}: 4 errors, nothing was imported"
    assert [one["name"] for one in as_json(run, "account", "list")] == ["desk"]
