"""`astcredit quota`, as an admin and as a script see it, on both databases."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest

from support.server import Done, astcredit

Run = Callable[..., Done]

HEADER = [
    "client", "kind", "period", "currency", "quota", "spent", "reserved", "remaining", "percent",
    "blocked_since", "first_over_at", "last_over_at", "waived", "timezone",
]  # fmt: skip


@pytest.fixture
def run(database_url: str) -> Run:
    """Run a command on a database that has the clients acme and beta."""

    def run(*arguments: str, status: int = 0) -> Done:
        return astcredit(database_url, *arguments, status=status)

    run("init")
    run("client", "add", "acme", "--kind", "postpaid")
    run("client", "add", "beta", "--currency", "USD")
    return run


def shown(run: Run, *arguments: str) -> Any:
    return json.loads(run("--format", "json", *arguments).stdout)


def test_quotas_from_setting_to_resetting(run: Run) -> None:
    said = run("quota", "set", "acme", "--monthly", "500", "--daily", "50.5").stdout
    assert said == "quotas of client 'acme' set\n"
    month, day = shown(run, "quota", "show")
    assert list(month) == HEADER
    assert (month["kind"], day["kind"]) == ("monthly", "daily")
    assert day["period"].startswith(month["period"])
    assert (month["quota"], day["quota"], day["remaining"]) == (
        "500.000000",
        "50.500000",
        "50.500000",
    )
    assert (day["percent"], day["blocked_since"], day["timezone"]) == (0, None, "UTC")
    run("quota", "set", "acme", "--monthly", "", "--timezone", "Europe/Berlin")
    (day,) = shown(run, "quota", "show", "acme")
    assert (day["kind"], day["timezone"]) == ("daily", "Europe/Berlin")
    said = run("quota", "reset", "acme", "--note", "agreed with Ms Weber").stdout
    assert said == f"client 'acme': no longer counted are 0.00 EUR of {day['period']}\n"
    history = run("history", "client", "acme").stdout
    assert "agreed with Ms Weber" in history
    assert "daily_quota: none -> 50.500000" in history


def test_a_client_has_its_quotas_among_its_settings(run: Run) -> None:
    run(
        "client", "add", "gamma", "--monthly-quota", "100", "--daily-quota", "0",
        "--timezone", "Asia/Kathmandu", "--low-balance", "2.50",
    )  # fmt: skip
    client = shown(run, "client", "show", "gamma")
    assert list(client.items())[-4:] == [
        ("monthly_quota", "100.000000"),
        ("daily_quota", "0.000000"),
        ("timezone", "Asia/Kathmandu"),
        ("low_balance", "2.500000"),
    ]
    assert [row["percent"] for row in shown(run, "quota", "show", "gamma")] == [0, 100]
    run("client", "set", "gamma", "--daily-quota", "", "--low-balance", "")
    client = shown(run, "client", "show", "gamma")
    assert (client["daily_quota"], client["low_balance"]) == (None, None)
    assert client["monthly_quota"] == "100.000000"


def test_nothing_to_show_is_an_empty_list(run: Run) -> None:
    assert shown(run, "quota", "show") == []
    rows = list(csv.reader(StringIO(run("quota", "show", "--format", "csv").stdout)))
    assert rows == [HEADER]


def test_the_list_for_the_morning(run: Run) -> None:
    run("quota", "set", "acme", "--daily", "0")
    run("quota", "set", "beta", "--daily", "1")
    assert [row["client"] for row in shown(run, "quota", "show", "--over", "100")] == ["acme"]
    assert [row["client"] for row in shown(run, "quota", "show")] == ["acme", "beta"]
    period = shown(run, "quota", "show", "beta")[0]["period"]
    assert [row["client"] for row in shown(run, "quota", "show", "--period", period)] == [
        "acme",
        "beta",
    ]


def test_set_and_reset_print_the_quotas_for_programs(run: Run) -> None:
    (row,) = shown(run, "quota", "set", "beta", "--daily", "5")
    assert (row["client"], row["currency"], row["quota"]) == ("beta", "USD", "5.000000")
    assert shown(run, "quota", "reset", "beta", "--daily", "--note", "x") == [row]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["set", "acme"], 2, "name at least one setting"),
        (["set", "acme", "--monthly", "-1"], 2, "not negative"),
        (["set", "acme", "--daily", "1e3"], 2, "expected a decimal amount"),
        (["set", "acme", "--timezone", "Berlin"], 1, "expected an IANA name as Europe/Berlin"),
        (["set", "acne", "--daily", "1"], 1, "there is no client 'acne'; the nearest is 'acme'"),
        (["show", "acne"], 1, "the nearest is 'acme'"),
        (["show", "--over", "-1"], 2, "--over"),
        (["show", "--period", "November"], 1, "expected a month or a day, as 2026-11"),
        (["reset", "acme"], 2, "--note"),
        (["reset", "acme", "--note", ""], 1, "note ''"),
        (["reset", "acme", "--note", "x"], 1, "has no monthly or daily quota"),
        (["reset", "acme", "--note", "x", "--daily"], 1, "has no daily quota"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(
    run: Run, arguments: list[str], status: int, said: str
) -> None:
    done = run("quota", *arguments, status=status)
    assert said in done.stderr.splitlines()[-1]
    assert shown(run, "quota", "show") == []
