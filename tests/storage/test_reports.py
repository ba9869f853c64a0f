"""Calls read for reports, on both kinds of database; and the sums that explain a price."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from decimal import Decimal
from itertools import product
from typing import TypeVar

import pytest

from astcredit.domain.money import amount_text
from astcredit.domain.states import CallState
from astcredit.service.call_filters import CdrFilter
from astcredit.service.cdr_explanation import explain_cdr
from astcredit.service.reports import CdrRecord
from astcredit.storage.reports import SqlReports
from support.calls import CALLS, GERMANY, HOSTILE_CALLERID, NOW, UK, Made, call_id, fill, filled, ms
from support.core import opened

T = TypeVar("T")

EVERYTHING = CdrFilter()


@pytest.fixture(
    scope="module", params=["sqlite", pytest.param("mariadb", marks=pytest.mark.mariadb)]
)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    with filled(request.param, request) as found:
        yield found


def read(url: str, work: Callable[[SqlReports], Awaitable[T]]) -> T:
    async def run() -> T:
        async with opened(url) as database:
            return await work(SqlReports(database))

    return asyncio.run(run())


def all_of(url: str, wanted: CdrFilter, page_rows: int = 2_000) -> list[CdrRecord]:
    async def collect(reports: SqlReports) -> list[CdrRecord]:
        return [record async for record in reports.all_cdrs(wanted, page_rows)]

    return read(url, collect)


def one(url: str, made: Made) -> CdrRecord:
    record = read(url, lambda reports: reports.cdr(call_id(made)))
    assert record is not None
    return record


def made_with(**values: object) -> Made:
    """The first call that has these values."""
    return next(c for c in CALLS if all(getattr(c, name) == v for name, v in values.items()))


def test_cdr_has_what_was_made(url: str) -> None:
    for made in CALLS:
        record = one(url, made)
        assert (record.status, record.client, record.denied) == (
            made.status,
            made.client,
            made.denied,
        )
        assert record.date_created == ms(made.at)
        assert record.answeredtime == (made.talk_ms if made.status == "completed" else None)
        if made.status == "completed":
            assert Decimal(amount_text(record.price or 0)) == made.price
            assert record.billsec == made.billsec
        assert record.estimated == (made.end == "expiry")
    assert one(url, made_with(end="hangup")).callerid == HOSTILE_CALLERID


def test_unknown_call_is_none(url: str) -> None:
    assert read(url, lambda reports: reports.cdr("no such call")) is None
    assert read(url, lambda reports: reports.active_call("' OR 1=1 --")) is None


FILTERS = [
    CdrFilter(client, begin, end, status)
    for client, (begin, end), status in product(
        (None, "anna", "bert", "nobody"),
        (
            (None, None),
            (ms("2026-11-01 00:00:00.000"), ms("2026-12-01 00:00:00.000")),
            (ms("2026-11-30 23:59:59.999"), None),
            (None, ms("2026-11-01 00:00:00.000")),
        ),
        (None, CallState.COMPLETED, CallState.DENIED),
    )
]


def matching(wanted: CdrFilter) -> list[str]:
    """By reading the definition of CdrFilter, in the order of time."""
    return [
        call_id(made)
        for made in CALLS
        if wanted.client in (None, made.client)
        and (wanted.from_ms is None or wanted.from_ms <= ms(made.at))
        and (wanted.until_ms is None or ms(made.at) < wanted.until_ms)
        and wanted.status in (None, made.status)
    ]


def test_filters_are_half_open_and_all_hold(url: str) -> None:
    for wanted in FILTERS:
        assert [record.id for record in all_of(url, wanted)] == matching(wanted), wanted


def test_newest_come_first_and_no_more_than_asked_for(url: str) -> None:
    newest = read(url, lambda reports: reports.newest_cdrs(EVERYTHING, 3))
    assert [record.id for record in newest] == [call_id(made) for made in CALLS[:-4:-1]]


@pytest.mark.parametrize("page_rows", [1, 2, 7, 1_000])
def test_pages_neither_lose_nor_double_a_call(url: str, page_rows: int) -> None:
    assert all_of(url, EVERYTHING, page_rows) == all_of(url, EVERYTHING)
    assert len(all_of(url, EVERYTHING, page_rows)) == len(CALLS)


def test_pages_go_through_calls_of_one_millisecond(database_url: str) -> None:
    """Where the time alone would not tell how far one has come."""

    async def run() -> list[str]:
        async with opened(database_url) as database:
            await fill(database)
            async with database.transaction() as connection:
                await connection.exec_driver_sql(
                    "UPDATE astcdr SET date_created = '2026-11-05 00:00:00.000'"
                )
            records = SqlReports(database).all_cdrs(EVERYTHING, 5)
            return [record.id async for record in records]

    assert asyncio.run(run()) == [call_id(made) for made in CALLS]


def test_export_shows_one_instant(database_url: str) -> None:
    """Calls that change between two pages are exported as they stood at the beginning."""

    async def run() -> list[CdrRecord]:
        async with opened(database_url) as database, opened(database_url) as other:
            await fill(database)
            found = []
            async with aclosing(SqlReports(database).all_cdrs(EVERYTHING, 1)) as records:
                async for record in records:
                    found.append(record)
                    async with other.transaction() as connection:
                        await connection.exec_driver_sql("UPDATE astcdr SET note = 'later'")
            return found

    assert "later" not in {record.note for record in asyncio.run(run())}


def test_export_that_is_broken_off_gives_its_connection_back(database_url: str) -> None:
    async def run() -> None:
        async with opened(database_url) as database:
            await fill(database)
            for _ in range(30):  # more than the pool has
                async with aclosing(SqlReports(database).all_cdrs(EVERYTHING, 1)) as records:
                    await anext(records)

    asyncio.run(run())


def test_active_calls_cost_what_they_would_if_they_ended_now(url: str) -> None:
    """The answered call by its own rate, never above what is reserved; the ringing one nothing."""
    talking, ringing = read(url, lambda reports: reports.active_calls())
    now = ms(NOW)
    assert (talking.id, ringing.id) == (call_id(CALLS[-2]), call_id(CALLS[-1]))
    assert (talking.state, ringing.state) == ("answered", "open")
    seconds = (now - ms(CALLS[-2].at)) // 1000 - 5
    assert talking.seconds_up(now) == seconds
    assert Decimal(amount_text(talking.cost(now))) == UK.price(seconds)
    assert (ringing.seconds_up(now), ringing.cost(now)) == (0, 0)
    assert Decimal(amount_text(ringing.reserved)) == GERMANY.price(3600)
    assert talking.cost(now + 10**9) == talking.reserved
    assert talking.cost(ms(CALLS[0].at)) == 0


def test_cost_so_far_changes_with_the_first_millisecond_of_a_second(url: str) -> None:
    talking = read(url, lambda reports: reports.active_calls())[0]
    assert talking.answered_at is not None
    at = talking.answered_at
    assert [talking.seconds_up(at + passed) for passed in (0, 1, 1_000, 1_001)] == [0, 1, 1, 2]


def test_billed_channel_is_the_answered_leg_else_the_caller(url: str) -> None:
    """After a blind transfer the caller is gone and the leg is what costs."""
    talking, ringing = read(url, lambda reports: reports.active_calls())
    assert talking.billed_channel == f"leg-{talking.id}"
    assert ringing.billed_channel == f"caller-{ringing.id}"


def test_call_that_is_over_is_not_active(url: str) -> None:
    over = made_with(status="completed")
    assert read(url, lambda reports: reports.active_call(call_id(over))) is None
    up = read(url, lambda reports: reports.active_call(call_id(CALLS[-1])))
    assert up is not None
    assert up.client == "anna"


EXPLANATIONS = [
    (CALLS[1], ["talk 36 s * 0.03 / 60 s = 0.018", "connect fee 0.02", "price 0.038"]),
    (CALLS[2], ["talked 7 s, billed 7 s", "= 0.001441, rounded up to the sixth decimal"]),
    (CALLS[5], ["talked 120 s", "price 0.12", "allowed 120 s, cut 40 ms late"]),
    (CALLS[12], ["price 1.82", "settled by expiry", "estimated, the end was not seen: no end"]),
    (CALLS[13], ["talked 6 s, billed 60 s", "settled by hangup"]),
    (CALLS[3], ["not answered, nothing charged", "settled by ami"]),
    (CALLS[6], ["denied: NOCREDIT: available 0.01 EUR"]),
    (CALLS[7], ["denied: NOACCOUNT"]),
    (CALLS[9], ["talked 0 s, billed 0 s", "price 0.00"]),
    (CALLS[17], ["still up: 1.82 EUR reserved"]),
]


@pytest.mark.parametrize(("made", "said"), EXPLANATIONS)
def test_every_cdr_explains_itself(url: str, made: Made, said: list[str]) -> None:
    text = "\n".join(explain_cdr(one(url, made)))
    for part in said:
        assert part in text


def test_price_that_its_rate_does_not_give_is_said_so(url: str) -> None:
    record = replace(one(url, CALLS[1]), price=40_000)
    assert any("does not explain" in line for line in explain_cdr(record))
