"""`astcredit calls list` and `astcredit cdr` of routed calls: filters, columns, explanations."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from click.testing import CliRunner, Result

from astcredit.cli import calls, cdr
from astcredit.cli.context import App
from astcredit.cli.main import main
from support.calls import NOW, ask, ms
from support.routed_calls import ROUTED, UP, routed

ON_CB, ON_CA, ON_TRUNK = UP
ROUTE_COLUMNS = ["reseller", "routing_plan", "route_prefix", "terminator", "ani", "source"]


@pytest.fixture(
    scope="module", params=["sqlite", pytest.param("mariadb", marks=pytest.mark.mariadb)]
)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    with routed(request.param, request) as found:
        yield found


@pytest.fixture(autouse=True)
def _it_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(App, "now_ms", lambda self: ms(NOW))


def run(url: str, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["--database", url, *arguments])


def listed(url: str, *arguments: str) -> list[dict[str, Any]]:
    result = run(url, "--format", "json", *arguments)
    assert result.exit_code == 0, result.stderr
    rows: list[dict[str, Any]] = json.loads(result.stdout)
    return rows


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), [ON_CB, ON_CA, ON_TRUNK]),
        (("--reseller", "north"), [ON_CB, ON_CA]),
        (("--reseller", "south"), []),
        (("--client", "bert"), [ON_TRUNK]),
        (("--account", "anna-desk"), [ON_CA]),
        (("--route", "retail"), [ON_CB, ON_CA]),
        (("--route", "retail/44"), [ON_CB, ON_CA]),
        (("--route", "retail/*"), []),
        (("--terminator", "ca"), [ON_CA]),
        (("--route", "retail/44", "--client", "anna", "--terminator", "cb"), [ON_CB]),
        (("--client", "bert", "--reseller", "north"), []),
    ],
)
def test_calls_are_listed_by_who_has_to_do_with_them(
    url: str, options: tuple[str, ...], expected: list[Any]
) -> None:
    found = listed(url, "calls", "list", *options)
    assert [row["id"] for row in found] == [call.id for call in expected]


def test_new_columns_of_calls_stand_at_the_end(url: str) -> None:
    """Scripts read CSV by position, too."""
    text = run(url, "calls", "list", "--format", "csv").stdout
    names, *rows = csv.reader(io.StringIO(text))
    assert names[-6:] == ROUTE_COLUMNS
    assert names[-7] == "currency"
    assert [row[-6:] for row in rows] == [
        ["north", "retail", "44", "cb", "100", "10.1.2.3:5060"],
        ["north", "retail", "44", "ca", "100", ""],
        ["", "", "", "", "100", ""],
    ]
    assert [column.name for column in calls.COLUMNS] == names


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--reseller", "nort"), "there is no reseller 'nort'; the nearest is 'north'"),
        (("--client", "ana"), "there is no client 'ana'; the nearest is 'anna'"),
        (("--account", "anna-dsk"), "there is no account 'anna-dsk'; the nearest is 'anna-desk'"),
        (("--terminator", "anna_gw"), "there is no account 'anna_gw'; the nearest is 'anna-gw'"),
        (("--route", "retai"), "there is no routing plan 'retai'; the nearest is 'retail'"),
        (("--route", "retail/45"), "routing plan 'retail' has no route for prefix 45"),
    ],
)
def test_slip_of_the_keyboard_is_refused_in_one_line(
    url: str, options: tuple[str, ...], said: str
) -> None:
    result = run(url, "calls", "list", *options)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"Error: {said}\n"


@pytest.mark.parametrize("options", [["--account", "anna_gw"], ["--terminator", "anna_gw"]])
@pytest.mark.parametrize("command", ["list", "export"])
def test_cdr_refuses_it_too(url: str, command: str, options: list[str]) -> None:
    result = run(url, "cdr", command, *options)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "the nearest is 'anna-gw'" in result.stderr


@pytest.mark.parametrize("command", [["list"], ["export", "--jsonl"]])
def test_cdrs_are_filtered_by_account_reseller_and_terminator(url: str, command: list[str]) -> None:
    for options, expected in (
        (["--account", "anna-gw"], [c for c in ROUTED if c.account == "anna-gw"]),
        (["--reseller", "south"], [c for c in ROUTED if c.client == "dan"]),
        (
            ["--terminator", "ca", "--to", "2026-12-01", "--status", "completed"],
            [c for c in ROUTED if c.terminator == "ca" and c.status == "completed"],
        ),
    ):
        result = run(url, "--format", "json", "cdr", *command, *options)
        lines = result.stdout.splitlines() if command[0] == "export" else None
        rows = map(json.loads, lines) if lines is not None else json.loads(result.stdout)
        assert sorted(row["id"] for row in rows) == [call.id for call in expected]


def test_rows_have_the_values_of_the_view(url: str) -> None:
    rows = {row["id"]: row for row in listed(url, "cdr", "list")}
    for expected in ask(url, "SELECT * FROM v_cdr"):
        for name, value in rows[expected["id"]].items():
            wanted = expected[name]
            assert (Decimal(value) if isinstance(wanted, Decimal) else value) == wanted, name


def test_new_columns_of_cdrs_stand_at_the_end(url: str) -> None:
    names = run(url, "cdr", "export").stdout.splitlines()[0].split(",")
    before = names.index("leg_uniqueid")
    assert names[before + 1 :] == [
        "reseller",
        "ani",
        "source",
        "ident_by",
        "tech_prefix",
        "routing_plan",
        "route_prefix",
        "terminator",
        "tried",
        "cost_prefix",
        "cost_rate",
        "cost_connect_fee",
        "cost_first_increment",
        "cost_next_increment",
        "cost_grace_seconds",
        "cost_minimum_charge",
        "corrected",
        "corrected_at",
        "corrected_billsec",
        "corrected_answeredtime",
        "corrected_ourcost",
    ]
    assert cdr.FOR_PEOPLE[-2:] == ("terminator", "ourcost")


def test_show_explains_route_cost_and_margin(url: str) -> None:
    """The call that went from ca to cb: what an admin and an accountant ask about."""
    shown = run(url, "cdr", "show", ROUTED[2].id).stdout
    assert shown.rstrip().splitlines()[-14:] == [
        "account 'anna-gw', recognised by the address '10.1.2.3:5060' and the tech prefix 77",
        "tried before: ca CONGESTION 34",
        "terminator 'cb', by routing plan 'retail' for prefix 44",
        "rate 0.06 a minute for prefix 44",
        "talked 31 s, billed 60 s (first 60 s, then every 60 s begun)",
        "talk 60 s * 0.06 / 60 s = 0.06",
        "price 0.06",
        "terminator: rate 0.025 a minute for prefix 44",
        "terminator: talked 31 s, billed 60 s (first 60 s, then every 60 s begun)",
        "terminator: connect fee 0.01",
        "terminator: talk 60 s * 0.025 / 60 s = 0.025",
        "ourcost 0.035",
        "margin 0.025: price 0.06 less ourcost 0.035",
        "settled by ami",
    ]


def test_show_in_json_has_columns_and_explanation(url: str) -> None:
    found = json.loads(run(url, "--format", "json", "cdr", "show", ROUTED[2].id).stdout)
    assert (found["ourcost"], found["terminator"]) == ("0.035000", "cb")
    assert "margin 0.025" in found["explanation"]
