"""The accountants' views of routed calls: who carried them, what that cost, what is left."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from support.calls import ask, plain, query
from support.core import opened
from support.routed_calls import ROUTED, TERM_CLIENTS, UP, Routed, fill_routed, routed

HALF_A_DIGIT = Decimal("0.0501")
"""Half of the last digit that is shown, and a float's breadth of SQLite."""

Rows = list[dict[str, Any]]


@pytest.fixture(
    scope="module", params=["sqlite", pytest.param("mariadb", marks=pytest.mark.mariadb)]
)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    with routed(request.param, request) as found:
        yield found


def shown(row: dict[str, Any], *names: str) -> list[Any]:
    return [row[name] for name in names]


def test_cdr_shows_who_called_and_over_which_route(url: str) -> None:
    """On the dialplan's own trunk there is no route; who was refused has none either."""
    names = ("reseller", "ident_by", "source", "tech_prefix", "ani", "callerid")
    route = ("routing_plan", "route_prefix", "terminator", "tried")
    rows = ask(url, "SELECT * FROM v_cdr ORDER BY id")
    assert len(rows) == len(ROUTED)
    for row, call in zip(rows, ROUTED, strict=True):
        who = [call.reseller, call.ident_by, call.source, call.tech_prefix, call.ani, call.callerid]
        assert shown(row, *names) == who
        tried = "; ".join(map(str, call.tried))
        assert shown(row, *route) == [call.plan, call.route_prefix, call.terminator, tried]


def test_cdr_shows_what_the_terminator_charges_and_is_owed(url: str) -> None:
    """With the prefix of its own rate, and for all the time that its meter ran."""
    for row, call in zip(ask(url, "SELECT * FROM v_cdr ORDER BY id"), ROUTED, strict=True):
        cost = call.cost
        rate = ("cost_prefix", "cost_rate", "cost_connect_fee", "cost_first_increment")
        expected = (
            [cost.prefix, Decimal(cost.per_minute), Decimal(cost.fee), cost.first]
            if cost
            else ["", None, None, None]
        )
        assert shown(row, *rate) == expected
        assert row["ourcost"] == call.ourcost
        assert row["margin"] == call.margin


def test_active_calls_show_the_route_that_they_are_on(url: str) -> None:
    names = ("id", "reseller", "routing_plan", "route_prefix", "terminator", "ani", "source")
    rows = ask(url, "SELECT * FROM v_active_calls ORDER BY id")
    assert [shown(row, *names) for row in rows] == [
        [c.id, c.reseller, c.plan, c.route_prefix, c.terminator, c.ani, c.source] for c in UP
    ]


def completed(calls: list[Routed]) -> list[Routed]:
    return [call for call in calls if call.status == "completed"]


def total(amounts: Iterator[Decimal | None]) -> Decimal:
    return sum((amount for amount in amounts if amount is not None), Decimal(0))


def test_terminators_are_summed_by_day_and_destination(url: str) -> None:
    rows = ask(url, "SELECT * FROM v_terminator")
    groups: dict[tuple[Any, ...], list[Routed]] = {}
    for call in ROUTED:
        if call.terminator:
            groups.setdefault((call.day, call.terminator, call.destination), []).append(call)
    by_key = {tuple(shown(row, "day", "terminator", "destination")): row for row in rows}
    assert len(by_key) == len(rows)
    assert by_key.keys() == groups.keys()
    for key, calls in groups.items():
        row, over = by_key[key], completed(calls)
        answered = sum(call.status in ("answered", "completed") for call in calls)
        failed = sum(call.status == "failed" for call in calls)
        assert shown(row, "calls", "answered", "failed") == [len(calls), answered, failed]
        price, cost = total(call.price for call in over), total(call.ourcost for call in over)
        assert shown(row, "price", "ourcost", "margin") == [price, cost, price - cost]
        assert row["answeredtime"] == sum(Decimal(call.talk_ms or 0) for call in over) / 1000
        assert shown(row, "term_client", "currency") == [TERM_CLIENTS[key[1]], "EUR"]


def test_ratio_and_duration_of_a_terminator(url: str) -> None:
    """Of what has answered or failed; of nothing there is no ratio. A call that is still up has
    no duration yet."""
    found = ask(url, "SELECT * FROM v_terminator")
    rows = {(row["day"], row["terminator"]): row for row in found}
    mixed = rows["2026-11-07", "ca"]  # one failed, one of 5.5 seconds
    assert abs(mixed["asr_percent"] - 50) < HALF_A_DIGIT
    assert abs(mixed["acd_seconds"] - Decimal("5.5")) < HALF_A_DIGIT
    assert shown(rows["2026-11-05", "cc"], "asr_percent", "acd_seconds") == [0, None]
    assert shown(rows["2026-12-01", "ca"], "asr_percent", "acd_seconds") == [None, None]
    assert shown(rows["2026-12-01", "cb"], "asr_percent", "acd_seconds") == [100, None]


def test_margin_of_routed_calls_is_known_and_may_be_a_loss(url: str) -> None:
    rows = ask(url, "SELECT * FROM v_margin")
    assert len(rows) == len({(c.day, c.client, c.destination) for c in completed(list(ROUTED))})
    for row in rows:
        key = tuple(shown(row, "day", "client", "destination"))
        calls = [c for c in completed(list(ROUTED)) if (c.day, c.client, c.destination) == key]
        price = total(call.price for call in calls)
        cost = None if row["client"] == "bert" else total(call.ourcost for call in calls)
        margin = None if cost is None else price - cost
        unknown = len(calls) if cost is None else 0
        expected = [len(calls), unknown, price, cost, margin]
        assert shown(row, "calls", "cost_unknown", "price", "ourcost", "margin") == expected
    assert any(row["margin"] is not None and row["margin"] < 0 for row in rows)


def test_terminator_with_a_cost_that_is_not_known_shows_no_sum(database_url: str) -> None:
    """As in v_margin: a sum of which a part is missing is not known either."""
    calls = [c for c in ROUTED if (c.day, c.terminator) == ("2026-11-07", "ca")]
    (over,) = completed(calls)

    async def run() -> Rows:
        async with opened(database_url) as database:
            await fill_routed(database)
            async with database.transaction() as connection:
                await connection.exec_driver_sql(
                    f"UPDATE astcdr SET ourcost = NULL WHERE id = '{over.id}'"
                )
            select = "SELECT * FROM v_terminator WHERE day = '2026-11-07' AND terminator = 'ca'"
            return plain(await query(database, select))

    (row,) = asyncio.run(run())
    assert shown(row, "price", "ourcost", "margin") == [over.price, None, None]
