"""A small set of clients and rates to try the program with. Loading it twice changes nothing."""

from __future__ import annotations

from typing import Final

from astcredit.domain.catalog import ClientKind
from astcredit.domain.money import MICROS
from astcredit.domain.rating import Rate
from astcredit.service.account_desk import AccountDesk
from astcredit.service.account_rules import AccountChange
from astcredit.service.administration import Administration
from astcredit.service.catalog_rules import ClientChange
from astcredit.service.money_desk import MoneyDesk
from astcredit.service.rate_desk import RateDesk

NAME: Final = "demo"
"""Of the rate table, the prepaid client and its account."""

POSTPAID: Final = "demo-postpaid"
TOPUP: Final = 10 * MICROS
REFERENCE: Final = "demo: first top-up"
EFFECTIVE_MS: Final = 1_577_836_800_000  # 2020-01-01: in force on every machine


def _rate(
    prefix: str, destination: str, per_minute: int, first: int, following: int, fee: int = 0
) -> Rate:
    return Rate(
        prefix=prefix,
        destination=destination,
        rate_per_minute=per_minute,
        connect_fee=fee,
        first_increment=first,
        next_increment=following,
        effective_from_ms=EFFECTIVE_MS,
    )


RATES: Final = (
    _rate("1", "USA and Canada", 12_000, 60, 60),
    _rate("33", "France", 15_000, 1, 1),
    _rate("336", "France, mobile", 45_000, 1, 1),
    _rate("44", "United Kingdom", 18_000, 30, 6),
    _rate("447", "United Kingdom, mobile", 60_000, 30, 6),
    _rate("46", "Sweden", 14_000, 60, 60),
    _rate("49", "Germany", 16_000, 1, 1, fee=10_000),
    _rate("8816", "Satellite (Iridium)", 4_500_000, 60, 60, fee=500_000),
)


async def load_demo(
    administration: Administration, accounts: AccountDesk, money: MoneyDesk, rates: RateDesk
) -> list[str]:
    """Add what of the demo set is not there yet; a line for each thing that was added."""
    added = await _rate_table(administration, rates)
    added += await _clients(administration)
    if NAME not in {account.name for account in await accounts.accounts()}:
        await accounts.add(NAME, NAME, AccountChange(idents=(NAME,)))
        added.append(f"account {NAME}, identified by the accountcode {NAME}")
    booked = await money.top_up(NAME, TOPUP, REFERENCE)
    if not booked.already:
        added.append(f"10.00 EUR for client {NAME}")
    return added


async def _rate_table(administration: Administration, rates: RateDesk) -> list[str]:
    if NAME in {table.name for table in await administration.rate_tables()}:
        return []
    await administration.add_rate_table(NAME, "EUR")
    await rates.import_deck(NAME, RATES, EFFECTIVE_MS, replace=False, source="demo set")
    return [f"rate table {NAME} with {len(RATES)} rates"]


async def _clients(administration: Administration) -> list[str]:
    there = {found.client.name for found in await administration.clients()}
    wanted = {NAME: ClientKind.PREPAID, POSTPAID: ClientKind.POSTPAID}
    added = []
    for name, kind in wanted.items():
        if name not in there:
            await administration.add_client(name, ClientChange(kind=kind, rate_table=NAME))
            added.append(f"client {name}, {kind}")
    return added
