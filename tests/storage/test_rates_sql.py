"""Decks in and out of the database: all or nothing, and what an import says that it did."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from astcredit.domain.deck import parse_deck, write_deck
from astcredit.domain.ratetable import RateRow
from astcredit.domain.rating import Rate
from astcredit.service import rate_desk
from astcredit.service.administration import Administration
from astcredit.service.errors import PoisonError, RefusedError
from astcredit.service.rate_desk import RateDesk
from astcredit.storage import rate_rows
from astcredit.storage import rates as sql_rates
from astcredit.storage.administration import SqlAdministration
from astcredit.storage.database import Database
from astcredit.storage.rate_rows import RateRows
from astcredit.storage.schema import upgrade
from support.calls import query
from support.core import Clock, opened

T = 1_800_000_000_000
Imports = Callable[[Sequence[Rate], int, bool], Awaitable[tuple[int, int, int, int]]]


def rate(prefix: str, price: int = 1, from_ms: int = T) -> Rate:
    return Rate(prefix, f"to {prefix}", price, effective_from_ms=from_ms)


def at_table(url: str, work: Callable[[Database, RateDesk, Imports], Awaitable[None]]) -> None:
    """Do `work` with an empty rate table named retail."""

    async def run() -> None:
        async with opened(url) as database:
            await upgrade(database)
            store = SqlAdministration(database)
            await Administration(store, "me@here", Clock()).add_rate_table("retail", "EUR")
            desk = RateDesk(store, "me@here", Clock())

            async def imports(
                rates: Sequence[Rate], effective_ms: int, replace: bool
            ) -> tuple[int, int, int, int]:
                done = await desk.import_deck(
                    "retail", rates, effective_ms, replace=replace, source="deck.csv"
                )
                return done.added, done.replaced, done.ended, done.removed

            await work(database, desk, imports)

    asyncio.run(run())


async def stored(database: Database) -> list[RateRow]:
    async with database.reading() as connection:
        parts = RateRows(connection, database.dialect, 1).all()
        return [row async for part in parts for row in part.rows()]


async def head(database: Database) -> tuple[int, int, int]:
    rows = await query(
        database, "SELECT t.version, t.rates, c.version AS v FROM astratetable t, astcatalog c"
    )
    return rows[0]["version"], rows[0]["rates"], rows[0]["v"]


def test_an_import_stores_every_column_and_moves_both_versions(database_url: str) -> None:
    full = Rate("0044", 'Öl, "quoted" 100%', 123_456, 10_000, 30, 6, 3, 50_000, T)

    async def work(database: Database, desk: RateDesk, imports: Imports) -> None:
        version, _, catalog = await head(database)
        assert await imports([full, rate("1")], T, False) == (2, 0, 0, 0)
        assert await head(database) == (version + 1, 2, catalog + 1)
        rows = await stored(database)
        assert [(row.prefix, row.effective_until_ms) for row in rows] == [
            ("0044", None),
            ("1", None),
        ]
        assert list(parse_deck(write_deck(rows), 0)) == [full, rate("1")]

    at_table(database_url, work)


def test_the_same_prefix_and_instant_is_replaced_another_instant_added(database_url: str) -> None:
    async def work(database: Database, desk: RateDesk, imports: Imports) -> None:
        await imports([rate("44", 1), rate("49", 1)], T, False)
        assert await imports([rate("44", 2), rate("49", 2, T + 1), rate("1")], T, False) == (
            2,
            1,
            0,
            0,
        )
        prices = {
            (r.prefix, r.effective_from_ms): r.rate_per_minute for r in await stored(database)
        }
        assert prices == {("44", T): 2, ("49", T): 1, ("49", T + 1): 2, ("1", T): 1}

    at_table(database_url, work)


def test_replace_ends_what_is_in_force_and_removes_what_has_not_begun(database_url: str) -> None:
    async def work(database: Database, desk: RateDesk, imports: Imports) -> None:
        old = [rate("44", from_ms=T - 50), rate("49", from_ms=T - 50), rate("1", from_ms=T + 50)]
        await imports(old, T, False)
        assert await imports([rate("44", 2)], T, True) == (1, 0, 1, 1)
        periods = [
            (r.prefix, r.effective_from_ms, r.effective_until_ms) for r in await stored(database)
        ]
        assert periods == [("44", T - 50, None), ("44", T, None), ("49", T - 50, T)]
        # What has ended is history: it is not ended again, later or earlier.
        assert await imports([rate("44", 3, T + 9)], T + 9, True) == (1, 0, 0, 0)
        assert await imports([rate("44", 3, T + 9), rate("49", 3, T + 9)], T + 9, True) == (
            1,
            1,
            0,
            0,
        )
        assert [r.rate_per_minute for r in await desk.export("retail", T + 9)] == [3, 3]
        assert [r.rate_per_minute for r in await desk.export("retail", T + 8)] == [2]
        assert [r.prefix for r in await desk.export("retail", T - 1)] == ["44", "49"]

    at_table(database_url, work)


def test_a_rate_that_had_ended_is_in_force_again_once_it_is_written_over(database_url: str) -> None:
    async def work(database: Database, desk: RateDesk, imports: Imports) -> None:
        await imports([rate("44"), rate("49")], T, False)
        await imports([rate("44", 2, T + 5)], T + 5, True)
        assert await imports([rate("49", 7)], T, False) == (0, 1, 0, 0)
        assert (await stored(database))[-1].effective_until_ms is None

    at_table(database_url, work)


def test_a_deck_larger_than_all_steps_arrives_whole(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_rates, "ROWS_AT_ONCE", 7)
    monkeypatch.setattr(rate_rows, "PORTION_ROWS", 5)
    monkeypatch.setattr(rate_desk, "STEP", 20)
    deck = [rate(str(number)) for number in range(100, 153)]
    seen: list[int] = []

    async def work(database: Database, desk: RateDesk, imports: Imports) -> None:
        await desk.import_deck("retail", deck, T, replace=True, source="", progress=seen.append)
        assert list(await desk.export("retail", T)) == [
            RateRow(*(getattr(r, name) for name in Rate.__slots__)) for r in deck
        ]
        assert seen == [20, 40, 53]
        moved = [rate(str(number), 2, T + 1) for number in range(200, 253)]
        assert await imports(moved, T + 1, True) == (53, 0, 53, 0)
        assert await imports([rate("1", 1, T + 1)], T + 1, True) == (1, 0, 0, 53)

    at_table(database_url, work)


def test_a_fault_in_the_middle_leaves_nothing_behind(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_desk, "STEP", 1)

    async def work(database: Database, desk: RateDesk, imports: Imports) -> None:
        await imports([rate("44")], T, False)
        before = (await stored(database), await head(database))

        def fail(done: int) -> None:
            if done == 2:
                raise PoisonError("staged")

        with pytest.raises(PoisonError):
            await desk.import_deck(
                "retail",
                [rate("44", 9), rate("45"), rate("46")],
                T,
                replace=True,
                source="",
                progress=fail,
            )
        assert (await stored(database), await head(database)) == before

    at_table(database_url, work)


def test_an_empty_deck_and_an_unknown_table_are_refused(database_url: str) -> None:
    async def work(database: Database, desk: RateDesk, imports: Imports) -> None:
        with pytest.raises(RefusedError, match="no rates"):
            await imports([], T, True)
        with pytest.raises(RefusedError, match="nearest is 'retail'"):
            await desk.import_deck("retial", [rate("1")], T, replace=False, source="")
        with pytest.raises(RefusedError, match="no rate table"):
            await desk.export("xx", T)

    at_table(database_url, work)


def test_lookup_explains_with_the_prefixes_of_the_number_only(database_url: str) -> None:
    async def work(database: Database, desk: RateDesk, imports: Imports) -> None:
        deck = [rate("4"), rate("44"), rate("447", from_ms=T + 9), rate("45"), rate("1")]
        await imports(deck, T, False)
        found = await desk.lookup("retail", "44712345", T)
        assert [(c.rate.prefix, c.chosen) for c in found.candidates] == [
            ("447", False),
            ("44", True),
            ("4", False),
        ]
        assert found.chosen is not None
        assert found.chosen.prefix == "44"
        later = await desk.lookup("retail", "44712345", T + 9)
        assert later.chosen is not None
        assert later.chosen.prefix == "447"
        assert (await desk.lookup("retail", "999", T)).chosen is None

    at_table(database_url, work)
