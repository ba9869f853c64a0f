"""Money by hand: once for each reference, also when the answer to COMMIT is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from astcredit.domain.money import MICROS
from astcredit.service.admin_ports import AdminTransaction
from astcredit.service.administration import Administration
from astcredit.service.catalog_rules import ClientChange
from astcredit.service.errors import CommitUnknown, PoisonError, RefusedError, TransientError
from astcredit.service.money_desk import MOST_UNKNOWN, MoneyDesk
from astcredit.service.persistence import MOST_TRIES
from astcredit.storage.administration import SqlAdministration
from astcredit.storage.schema import upgrade
from support.calls import query
from support.core import Clock, opened

EUR = MICROS


class FaultyStore:
    """A store whose transactions end as staged, one after the other; then they work.

    "lost": committed, the answer is lost. "gone": not committed, nobody knows. "deadlock" and
    "poison": rolled back.
    """

    def __init__(self, store: SqlAdministration, endings: Sequence[str]) -> None:
        self._store = store
        self._endings = list(endings)
        self.attempts = 0

    def changing_catalog(self) -> AbstractAsyncContextManager[AdminTransaction]:
        return self._store.changing_catalog()

    def looking(self) -> AbstractAsyncContextManager[AdminTransaction]:
        return self._store.looking()

    @asynccontextmanager
    async def booking_money(self) -> AsyncIterator[AdminTransaction]:
        self.attempts += 1
        ending = self._endings.pop(0) if self._endings else "fine"
        errors = {"gone": CommitUnknown, "deadlock": TransientError, "poison": PoisonError}
        async with self._store.booking_money() as transaction:
            yield transaction
            if ending in errors:
                raise errors[ending](ending)
        if ending == "lost":
            raise CommitUnknown(ending)


Work = Callable[[MoneyDesk, FaultyStore], Awaitable[object]]


def at_desk(url: str, endings: Sequence[str], work: Work) -> list[int]:
    """Do `work` at a desk of a client with nothing; the amounts in the ledger after it."""

    async def run() -> list[int]:
        async with opened(url) as database:
            await upgrade(database)
            good = SqlAdministration(database)
            for name in ("acme", "beta"):
                await Administration(good, "me@here", Clock()).add_client(name, ClientChange())
            store = FaultyStore(good, endings)
            await work(MoneyDesk(store, "me@here", Clock()), store)
            rows = await query(database, "SELECT amount FROM astledger ORDER BY id")
            return [row["amount"] for row in rows]

    return asyncio.run(run())


@pytest.mark.parametrize("reference", ["R1", None])
@pytest.mark.parametrize(
    "endings",
    [
        ["lost"],
        ["gone"],
        ["deadlock"],
        ["deadlock", "gone"],
        ["gone", "lost"],
        ["lost", "deadlock"],
        ["poison"],
    ],
)
def test_a_top_up_in_trouble_is_booked_exactly_once(
    sqlite_url: str, endings: Sequence[str], reference: str | None
) -> None:
    async def work(desk: MoneyDesk, _: FaultyStore) -> None:
        booked = await desk.top_up("acme", 5 * EUR, reference)
        assert not booked.already
        assert booked.balance_after == 5 * EUR

    assert at_desk(sqlite_url, endings, work) == [5 * EUR]


@pytest.mark.parametrize("endings", [["gone"] * MOST_UNKNOWN, ["lost"] + ["deadlock"] * MOST_TRIES])
def test_what_stays_unknown_is_said_with_the_way_to_find_out(
    sqlite_url: str, endings: Sequence[str]
) -> None:
    async def work(desk: MoneyDesk, _: FaultyStore) -> None:
        with pytest.raises(CommitUnknown, match="run the same command with --reference topup:"):
            await desk.top_up("acme", 5 * EUR)

    at_desk(sqlite_url, endings, work)


def test_trouble_that_does_not_pass_is_a_failure_and_nothing_is_booked(sqlite_url: str) -> None:
    async def work(desk: MoneyDesk, store: FaultyStore) -> None:
        with pytest.raises(TransientError):
            await desk.top_up("acme", 5 * EUR, "R1")
        assert store.attempts == MOST_TRIES

    assert at_desk(sqlite_url, ["deadlock"] * MOST_TRIES, work) == []


def test_an_adjustment_whose_answer_is_lost_is_booked_once(sqlite_url: str) -> None:
    async def work(desk: MoneyDesk, _: FaultyStore) -> None:
        await desk.adjust("acme", 3 * EUR, "gift")

    assert at_desk(sqlite_url, ["lost"], work) == [3 * EUR]


def test_a_reference_counts_once_and_belongs_to_one_booking(sqlite_url: str) -> None:
    async def work(desk: MoneyDesk, _: FaultyStore) -> None:
        first = await desk.top_up("acme", 5 * EUR, "R1")
        again = await desk.top_up("acme", 5 * EUR, "R1")
        assert (first.already, again.already) == (False, True)
        assert again.balance_after == 5 * EUR
        for client, amount in (("acme", 6 * EUR), ("beta", 5 * EUR)):
            with pytest.raises(RefusedError, match=f"'acme'.*{client}"):
                await desk.top_up(client, amount, "R1")

    assert at_desk(sqlite_url, [], work) == [5 * EUR]


def test_a_top_up_is_no_repetition_of_an_adjustment(sqlite_url: str) -> None:
    async def work(desk: MoneyDesk, _: FaultyStore) -> None:
        gift = await desk.adjust("acme", 5 * EUR, "gift")
        with pytest.raises(RefusedError, match=r"adjustment of 5\.00"):
            await desk.top_up("acme", 5 * EUR, gift.reference)

    assert at_desk(sqlite_url, [], work) == [5 * EUR]


@pytest.mark.parametrize("reference", ["call:1", "correction:1", "", " a", "a\nb", "x" * 121])
def test_a_reference_of_calls_or_one_that_cannot_be_is_refused(
    sqlite_url: str, reference: str
) -> None:
    async def work(desk: MoneyDesk, _: FaultyStore) -> None:
        with pytest.raises(RefusedError, match="reference"):
            await desk.top_up("acme", EUR, reference)

    assert at_desk(sqlite_url, [], work) == []


@pytest.mark.parametrize("amount", [0, -1])
def test_a_top_up_adds(sqlite_url: str, amount: int) -> None:
    async def work(desk: MoneyDesk, _: FaultyStore) -> None:
        with pytest.raises(RefusedError, match="more than 0"):
            await desk.top_up("acme", amount)

    assert at_desk(sqlite_url, [], work) == []


def test_an_adjustment_has_an_amount_and_a_reason(sqlite_url: str) -> None:
    async def work(desk: MoneyDesk, _: FaultyStore) -> None:
        with pytest.raises(RefusedError, match="above or below 0"):
            await desk.adjust("acme", 0, "why")
        with pytest.raises(RefusedError, match="note"):
            await desk.adjust("acme", 1, "")

    assert at_desk(sqlite_url, [], work) == []


def test_a_balance_stays_inside_what_the_columns_hold(sqlite_url: str) -> None:
    most = 999_999_999_999_999_999

    async def work(desk: MoneyDesk, _: FaultyStore) -> None:
        await desk.top_up("acme", most)
        with pytest.raises(RefusedError, match="12 digits"):
            await desk.top_up("acme", 1)

    assert at_desk(sqlite_url, [], work) == [most]
