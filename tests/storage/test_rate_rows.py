"""Rates are read whole and in order, in portions of any size, on each database."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any

import pytest

from astcredit.domain.instants import instant_text
from astcredit.domain.rate_columns import RateColumns, RateRow
from astcredit.service.admin_ports import StoredPeriod
from astcredit.storage import rate_rows
from astcredit.storage.database import Database
from astcredit.storage.rate_rows import RateRows
from astcredit.storage.rates import SqlRates
from astcredit.storage.schema import upgrade
from support.core import opened

T = 1_800_000_000_000

ROWS = [
    RateRow("0", "", 0, 0, 1, 1, 0, 0, 0),
    RateRow("1", 'a "quoted"; name', 12_345, 1, 60, 60, 0, 0, T),
    RateRow("1", "ended", 7, 1, 60, 60, 0, 0, T + 1, T + 5),
    RateRow("1", "later", 8, 1, 60, 60, 0, 0, T + 2),
    RateRow("10", "\\ 100% %s \u65e5\u672c \U0001f600", 10**12, 10**12, 3600, 1, 3600, 10**12, T),
    RateRow("4420", "o'clock\ttab\n", 1, 0, 1, 1, 0, 0, T, T),
    RateRow("9" * 20, "x" * 120, 1, 0, 1, 1, 0, 0, T),
]
"""In order; with several instants of a prefix, so that a portion can end between them."""


async def site(database: Database) -> None:
    """Two rate tables, the first with ROWS, the second with one of its own."""
    await upgrade(database)
    async with database.transaction() as connection:
        for table, rows in ((1, ROWS), (2, [RateRow("1", "another table", 1)])):
            await connection.exec_driver_sql(
                "INSERT INTO astratetable (id, name, currency, date_created)"
                f" VALUES ({table}, 'table {table}', 'EUR', '2026-01-01')"
            )
            await SqlRates(connection, database.dialect, table).put(RateColumns.of(rows))


async def read(database: Database, table: int = 1) -> list[RateRow]:
    async with database.reading() as connection:
        parts = RateRows(connection, database.dialect, table).all()
        return [row async for part in parts for row in part.rows()]


@pytest.mark.parametrize("portion", [1, 2, 3, len(ROWS), 1_000])
def test_what_was_put_is_read_in_order(
    database_url: str, monkeypatch: pytest.MonkeyPatch, portion: int
) -> None:
    monkeypatch.setattr(rate_rows, "PORTION_ROWS", portion)

    async def main() -> None:
        async with opened(database_url) as database:
            await site(database)
            assert await read(database) == ROWS
            assert await read(database, 2) == [RateRow("1", "another table", 1)]
            assert await read(database, 3) == []

    asyncio.run(main())


def test_what_is_in_force_and_what_will_be(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_rows, "PORTION_ROWS", 2)

    def ends_after(row: RateRow, instant: int) -> bool:
        return row.effective_until_ms is None or row.effective_until_ms > instant

    async def main() -> None:
        async with opened(database_url) as database:
            await site(database)
            async with database.reading() as connection:
                rates = RateRows(connection, database.dialect, 1)
                for instant in (0, T - 1, T, T + 1, T + 4, T + 5):
                    parts = rates.in_force(instant_text(instant))
                    in_force = [row async for part in parts for row in part.rows()]
                    lasting = [row for row in ROWS if ends_after(row, instant)]
                    assert in_force == [r for r in lasting if r.effective_from_ms <= instant]
                    periods = [each async for each in rates.periods(instant_text(instant))]
                    assert [(p.prefix, p.from_ms, p.until_ms) for p in periods] == [
                        (r.prefix, r.effective_from_ms, r.effective_until_ms) for r in lasting
                    ]
                    assert len({period.id for period in periods}) == len(periods)
                    assert all(type(period) is StoredPeriod for period in periods)

    asyncio.run(main())


async def stop_in_the_middle(database: Database) -> None:
    async with (
        database.reading() as connection,
        aclosing(RateRows(connection, database.dialect, 1).all()) as parts,
    ):
        async for _ in parts:
            raise ValueError("enough")


def test_who_stops_in_the_middle_can_go_on_with_the_database(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next portion is on its way then."""
    monkeypatch.setattr(rate_rows, "PORTION_ROWS", 1)

    async def main() -> None:
        async with opened(database_url) as database:
            await site(database)
            for _ in range(3):
                with pytest.raises(ValueError, match="enough"):
                    await stop_in_the_middle(database)
                assert await read(database) == ROWS

    asyncio.run(main())


def test_a_text_that_the_server_cuts_is_read_row_by_row(
    mariadb_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cuts what it packs at group_concat_max_len: in the middle of a row, or at its end, so that
    it could be read and only the rows behind it were missing."""
    texts: list[str] = []

    def loads(text: str) -> Any:
        texts.append(text)
        return json.loads(text)

    monkeypatch.setattr(rate_rows, "json", SimpleNamespace(loads=loads))

    async def main() -> None:
        async with opened(mariadb_url) as database:
            await site(database)
            assert await read(database) == ROWS
            whole = texts[0].removeprefix("[")
            ends = [at.start() + 1 for at in re.finditer(r"\],\[", whole)]
            assert len(ends) == len(ROWS) - 1
            async with database.reading() as connection:
                for end in ends:
                    for most in (end - 2, end, end + 1):
                        limit = f"SET SESSION group_concat_max_len = {len(whole[:most].encode())}"
                        await connection.exec_driver_sql(limit)
                        parts = RateRows(connection, database.dialect, 1).all()
                        assert [row async for part in parts for row in part.rows()] == ROWS

    asyncio.run(main())


def test_a_row_that_is_too_long_to_be_packed_is_read(
    mariadb_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_rows, "_PACKED_CHARACTERS", 100)

    async def main() -> None:
        async with opened(mariadb_url) as database:
            await site(database)
            assert await read(database) == ROWS

    asyncio.run(main())


def test_what_is_no_rate_is_not_written(database_url: str) -> None:
    """Digits are written into the statement as they are: nothing else may come there."""
    hostile = RateColumns(["1'),(2"], [""], [1], [(0, 1, 1, 0, 0, 0, None)])

    async def main() -> None:
        async with opened(database_url) as database:
            await site(database)
            async with database.transaction() as connection:
                rates = SqlRates(connection, database.dialect, 1)
                with pytest.raises(ValueError, match="prefix: "):
                    await rates.put(hostile)
                assert await rates.count() == len(ROWS)

    asyncio.run(main())
