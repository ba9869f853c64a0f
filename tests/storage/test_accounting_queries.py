"""The queries of docs/ACCOUNTING.md, each as it stands there, on both kinds of database.

What they must answer is computed here from `support.calls` and `support.routed_calls`, not from the
database.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any

import pytest

from astcredit.domain.money import parse_amount
from astcredit.service.administration import Administration
from astcredit.service.catalog_rules import ClientChange
from astcredit.storage.administration import SqlAdministration
from astcredit.storage.database import Database
from support.calls import (
    BOOKINGS,
    CALLS,
    SETUP_MS,
    Made,
    ask,
    call_id,
    fill,
    filled,
    ms,
    plain,
    query,
)
from support.core import opened
from support.project import ROOT
from support.routed_calls import ROUTED, Routed, routed

GUIDE = ROOT / "docs" / "ACCOUNTING.md"
QUERIES = re.findall(
    r"^### (\d+)\. .*?^```sql\n(.*?)^```",
    GUIDE.read_text(encoding="utf-8"),
    re.MULTILINE | re.DOTALL,
)

Rows = list[dict[str, Any]]

KINDS = ["sqlite", pytest.param("mariadb", marks=pytest.mark.mariadb)]
NUMBERS = range(1, 14)
OF_OTHER_CALLS = (11, 12, 13)


@pytest.fixture(scope="module", params=KINDS)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    with filled(request.param, request) as found:
        yield found


@pytest.fixture(scope="module", params=KINDS)
def routed_url(request: pytest.FixtureRequest) -> Iterator[str]:
    with routed(request.param, request) as found:
        yield found


@pytest.fixture(scope="module", params=KINDS)
def quotas_url(request: pytest.FixtureRequest) -> Iterator[str]:
    with filled(request.param, request, _fill_with_quotas) as found:
        yield found


async def _fill_with_quotas(database: Database) -> None:
    """Quotas that are set when November ends, and count what was spent in it."""
    await fill(database)
    admin = Administration(SqlAdministration(database), "ops@test", lambda: ms(NOVEMBER_ENDS))
    for client, quota in QUOTAS.items():
        change = ClientChange(monthly_quota=parse_amount(str(quota)))
        await admin.set_client(client, change)


def text_of(number: int) -> str:
    """The query of that number in the guide."""
    texts: dict[str, str] = dict(QUERIES)
    return texts[str(number)]


def november(status: str = "") -> list[Made]:
    calls = [call for call in CALLS if call.month == "2026-11"]
    return [call for call in calls if status in ("", call.status)]


def destination(call: Made) -> str:
    return call.tariff.destination if call.tariff else ""


def total(calls: list[Made]) -> Decimal:
    return sum((call.price for call in calls), Decimal(0))


NOVEMBER_ENDS = "2026-11-30 23:59:59.999"
QUOTAS = {
    "anna": Decimal(100),  # a small part is used
    "bert": total([call for call in november() if call.client == "bert"]),  # all is used
    "cara": total([call for call in november() if call.client == "cara"]) + Decimal("0.02"),
}
"""What these clients may spend in a month, from the end of November on."""


def test_guide_has_thirteen_queries() -> None:
    assert [number for number, _ in QUERIES] == [str(n) for n in NUMBERS]


@pytest.mark.parametrize("number", [n for n in NUMBERS if n not in OF_OTHER_CALLS])
def test_query_runs_and_has_something_to_show(number: int, url: str) -> None:
    """But for the ninth, which must find nothing."""
    assert bool(ask(url, text_of(number))) == (number != 9)


@pytest.mark.parametrize("number", NUMBERS)
def test_query_is_taken_by_strict_servers(number: int, routed_url: str) -> None:
    """MySQL's default modes, in which a client may connect, refuse a loose GROUP BY."""
    modes = "ONLY_FULL_GROUP_BY,STRICT_TRANS_TABLES,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO"

    async def run() -> None:
        async with opened(routed_url) as database, database.engine.connect() as connection:
            if not database.is_sqlite:
                await connection.exec_driver_sql(f"SET SESSION sql_mode = '{modes}'")
            options = {"no_parameters": True}
            await connection.exec_driver_sql(text_of(number), execution_options=options)

    asyncio.run(run())


def test_1_turnover_of_each_client_and_month(url: str) -> None:
    expected = {}
    for call in CALLS:
        key = (call.month, call.client, call.currency)
        if call.client and "2026-10" <= call.month <= "2026-12":
            calls = [c for c in CALLS if (c.month, c.client, c.currency) == key]
            answered = [c for c in calls if c.status in ("answered", "completed")]
            billed = sum(c.billsec for c in calls if c.status == "completed")
            expected[key] = [len(calls), len(answered), billed, total(calls)]
    rows = ask(url, text_of(1))
    shown = {tuple(list(row.values())[:3]): list(row.values())[3:] for row in rows}
    assert shown == expected
    assert [tuple(list(row.values())[:3]) for row in rows] == sorted(expected)


def test_2_open_items_are_who_owes(url: str) -> None:
    rows = ask(url, text_of(2))
    assert [(row["client"], row["balance"], row["available"]) for row in rows] == [
        ("bert", -total([call for call in CALLS if call.client == "bert"]), None)
    ]


def test_3_destinations_with_the_largest_turnover(url: str) -> None:
    groups: dict[tuple[str, str], list[Made]] = {}
    for call in november("completed"):
        groups.setdefault((destination(call), call.currency), []).append(call)
    ordered = sorted(groups, key=lambda key: total(groups[key]), reverse=True)
    expected = [
        [*key, len(groups[key]), sum(c.billsec for c in groups[key]), total(groups[key])]
        for key in ordered
    ]
    assert [list(row.values()) for row in ask(url, text_of(3))] == expected


def test_4_calls_that_cost_more_than_an_amount(url: str) -> None:
    dear = [call for call in november() if call.price > Decimal("0.10")]
    dear.sort(key=lambda call: (-call.price, call_id(call)))
    rows = ask(url, text_of(4))
    assert [(row["id"], row["price"]) for row in rows] == [(call_id(c), c.price) for c in dear]


def test_5_answer_ratio_and_average_duration(url: str) -> None:
    expected: dict[str, list[Any]] = {}
    tried = november("completed") + november("failed")
    for name in {destination(call) for call in tried}:
        calls = [call for call in tried if destination(call) == name]
        answered = [call for call in calls if call.status == "completed"]
        seconds = sum(Decimal(call.talk_ms or 0) / 1000 for call in answered)
        expected[name] = [
            len(calls),
            Decimal(100 * len(answered)) / len(calls),
            seconds / len(answered),
        ]
    rows = ask(url, text_of(5))
    assert {row["destination"] for row in rows} == set(expected)
    for row in rows:
        count, ratio, average = expected[row["destination"]]
        assert row["tried"] == count
        # Half of the last digit shown, and a float's breadth of SQLite.
        assert abs(row["asr_percent"] - ratio) < Decimal("0.0501")
        assert abs(row["acd_seconds"] - average) < Decimal("0.0501")


def test_6_top_ups_of_a_month(url: str) -> None:
    rows = ask(url, text_of(6))
    assert [
        [row[n] for n in ("date_created", "client", "amount", "reference")] for row in rows
    ] == [
        [at, client, Decimal(amount), reference]
        for at, client, amount, kind, reference in BOOKINGS
        if kind == "topup" and at.startswith("2026-11")
    ]
    assert {row["currency"] for row in rows} == {"USD"}


def test_7_statement_has_a_running_balance(url: str) -> None:
    """Charges at the end of the calls, which is where October's last call falls into November."""
    anna = [call for call in CALLS if call.client == "anna" and call.status == "completed"]
    ends = {_end(call): -call.price for call in anna}
    booked = {ms(at): Decimal(amount) for at, who, amount, *_ in BOOKINGS if who == "anna"}
    both = sorted((ends | booked).items())
    begin, end = ms("2026-11-01 00:00:00.000"), ms("2026-12-01 00:00:00.000")
    balance, expected = Decimal(0), []
    for at, amount in both:
        balance += amount
        if begin <= at < end:
            expected.append([amount, balance])
    rows = ask(url, text_of(7))
    assert [[row["amount"], row["balance_after"]] for row in rows] == expected
    numbers = [row["callednum"] for row in rows if row["kind"] == "charge"]
    assert numbers == [call.number for call in sorted(anna, key=_end)]


def _end(call: Made) -> int:
    return ms(call.at) + SETUP_MS + (call.talk_ms or 0)


def test_8_estimated_calls(url: str) -> None:
    rows = ask(url, text_of(8))
    estimated = [call for call in november() if call.end == "expiry"]
    assert [row["id"] for row in rows] == [call_id(call) for call in estimated]
    assert all(row["note"] for row in rows)


FAULTS: dict[str, Callable[[str], str]] = {
    "too much": lambda id: f"UPDATE astledger SET amount = amount - 1 WHERE call_id = '{id}'",
    "too little": lambda id: f"UPDATE astledger SET amount = amount + 1 WHERE call_id = '{id}'",
    "no charge": lambda id: f"DELETE FROM astledger WHERE call_id = '{id}'",
    "charge of a failed call": lambda id: f"UPDATE astcdr SET status = 'failed' WHERE id = '{id}'",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_9_finds_charges_that_differ(database_url: str, fault: str) -> None:
    id = call_id(november("completed")[0])

    async def run() -> Rows:
        async with opened(database_url) as database:
            await fill(database)
            async with database.transaction() as connection:
                await connection.exec_driver_sql(FAULTS[fault](id))
            return plain(await query(database, text_of(9)))

    assert [row["id"] for row in asyncio.run(run())] == [id]


def test_10_refused_calls_by_reason(url: str) -> None:
    rows = ask(url, text_of(10))
    denied = [(call.denied, call.client) for call in november("denied")]
    assert {(row["denied"], row["client"]): row["calls"] for row in rows} == {
        key: denied.count(key) for key in denied
    }
    assert all(row["example"] for row in rows)


def _routed_in_november(calls: Sequence[Routed]) -> list[Routed]:
    return [call for call in calls if call.month == "2026-11"]


def test_11_terminators_invoice_of_a_month(routed_url: str) -> None:
    """Neither October's last second nor what is still up; overrun included."""
    calls = [call for call in _routed_in_november(ROUTED) if call.terminator == "ca"]
    over = [call for call in calls if call.status == "completed"]
    assert len(over) > 1
    (row,) = ask(routed_url, text_of(11))
    assert [row[name] for name in ("terminator", "cost_prefix", "cost_rate", "currency")] == [
        "ca",
        "4420",
        Decimal("0.02"),
        "EUR",
    ]
    assert row["calls"] == len(over)
    assert row["answeredtime"] == sum(Decimal(call.talk_ms or 0) for call in over) / 1000
    assert row["owed"] == sum(call.ourcost or 0 for call in over)


def test_12_calls_that_went_on_to_another_terminator(routed_url: str) -> None:
    """Those that were answered there, and those that were lost all the same."""
    calls = [call for call in _routed_in_november(ROUTED) if call.tried]
    assert {call.status for call in calls} == {"completed", "failed"}
    rows = ask(routed_url, text_of(12))
    shown = ("id", "tried", "terminator", "status", "price", "ourcost", "margin")
    assert [[row[name] for name in shown] for row in rows] == [
        [
            call.id,
            "; ".join(map(str, call.tried)),
            call.terminator,
            call.status,
            call.price,
            call.ourcost,
            call.margin,
        ]
        for call in calls
    ]


def test_13_who_used_most_of_a_quota(quotas_url: str) -> None:
    """Also what was spent before it was set; neither who is below nor who has none."""
    spent = {name: total([c for c in november() if c.client == name]) for name in QUOTAS}
    rows = ask(quotas_url, text_of(13))
    shown = ("client", "period", "currency", "quota", "spent", "waived", "reserved", "remaining")
    assert [[row[name] for name in shown] for row in rows] == [
        [name, "2026-11", "EUR", QUOTAS[name], spent[name], 0, 0, QUOTAS[name] - spent[name]]
        for name in ("bert", "cara")
    ]
    assert [row["percent"] for row in rows] == [
        100 * spent[name] // QUOTAS[name] for name in ("bert", "cara")
    ]
    assert 80 <= rows[1]["percent"] < 100
