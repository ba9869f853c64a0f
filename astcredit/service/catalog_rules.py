"""What may stand in the catalog: the rules that a change of it must keep.

The checks that need to look something up do it in the transaction of the change, after the
catalog's lock was taken: nothing can slip in between.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, Literal, TypeAlias, TypeVar

from astcredit.domain.books import ClientBooks
from astcredit.domain.catalog import ClientKind
from astcredit.domain.money import Micros, short_text
from astcredit.domain.periods import check_zone
from astcredit.service.admin_ports import AdminTransaction, Client, RateTableHead
from astcredit.service.errors import RefusedError
from astcredit.service.naming import (
    check_currency,
    check_email,
    known,
    shown_name,
)

T = TypeVar("T")

MOST_CAPACITY = 1_000_000
"""Calls at once: more than a cluster of Asterisks carries."""

_WHOLE = re.compile(r"[0-9]{1,7}", re.ASCII)


class Keep(Enum):
    """The mark of a setting that is not to be changed, where None is a value."""

    KEEP = "keep"


KEEP: Final = Keep.KEEP

Limit: TypeAlias = Micros | Literal[Keep.KEEP] | None
"""A credit limit or quota as it is asked for: an amount, None for no limit, KEEP for the one that
is."""

Capacity: TypeAlias = int | Literal[Keep.KEEP] | None
"""A capacity as it is asked for: calls at once, None for no limit, KEEP for the one that is."""


def kept(asked: T | Literal[Keep.KEEP], old: T) -> T:
    """What was asked for, or what is there already."""
    return old if asked is KEEP else asked


def parse_capacity(text: str) -> int | None:
    """A capacity, 0 to MOST_CAPACITY calls at once; an empty text is no limit.

    Raises ValueError.
    """
    if not text:
        return None
    if _WHOLE.fullmatch(text) is None or int(text) > MOST_CAPACITY:
        raise ValueError(
            f"{shown_name(text)}: expected a whole number from 0 to {MOST_CAPACITY},"
            " or '' for no limit"
        )
    return int(text)


@dataclass(frozen=True, slots=True)
class ClientChange:
    """New values for settings of a client; what is None (limits and capacities: KEEP) stays.

    `credit_limit` None means no limit, which a prepaid client cannot have: it gets 0. An empty
    text means none.
    """

    kind: ClientKind | None = None
    currency: str | None = None
    credit_limit: Limit = KEEP
    rate_table: str | None = None
    email: str | None = None
    reseller: str | None = None
    routing_plan: str | None = None
    orig_capacity: Capacity = KEEP
    term_capacity: Capacity = KEEP
    monthly_quota: Limit = KEEP
    daily_quota: Limit = KEEP
    timezone: str | None = None
    low_balance: Limit = KEEP

    def applied_to(self, client: Client) -> Client:
        """The client after the change. Raises RefusedError for a value that cannot be."""
        kind = self.kind or client.kind
        limit = kept(self.credit_limit, client.credit_limit)
        if limit is None and kind is ClientKind.PREPAID:
            limit = 0
        return replace(
            client,
            kind=kind,
            credit_limit=limit,
            currency=client.currency if self.currency is None else check_currency(self.currency),
            rate_table=client.rate_table if self.rate_table is None else self.rate_table,
            email=client.email if self.email is None else check_email(self.email),
            reseller=client.reseller if self.reseller is None else self.reseller,
            routing_plan=client.routing_plan if self.routing_plan is None else self.routing_plan,
            orig_capacity=kept(self.orig_capacity, client.orig_capacity),
            term_capacity=kept(self.term_capacity, client.term_capacity),
            monthly_quota=kept(self.monthly_quota, client.monthly_quota),
            daily_quota=kept(self.daily_quota, client.daily_quota),
            timezone=client.timezone if self.timezone is None else _checked_zone(self.timezone),
            low_balance=kept(self.low_balance, client.low_balance),
        )


def _checked_zone(name: str) -> str:
    try:
        return check_zone(name)
    except ValueError as error:
        raise RefusedError(str(error)) from None


async def known_client(transaction: AdminTransaction, name: str) -> Client:
    """The client of that name. Raises RefusedError with the nearest one."""
    return await known("client", name, await transaction.client(name), transaction.names)


async def known_rate_table(transaction: AdminTransaction, name: str) -> RateTableHead:
    """The rate table of that name. Raises RefusedError with the nearest one."""
    return await known("rate table", name, await transaction.rate_table(name), transaction.names)


async def require(transaction: AdminTransaction, kind: str, name: str) -> None:
    """Raise RefusedError with the nearest name unless there is an object of that kind and name."""
    found = name if await transaction.has(kind, name) else None
    await known(kind, name, found, transaction.names)


async def check_references(transaction: AdminTransaction, client: Client) -> None:
    """Refuse a client of a reseller, or with a routing plan or rate table, that is not there."""
    for kind, name in (("reseller", client.reseller), ("routing plan", client.routing_plan)):
        if name:
            await require(transaction, kind, name)
    await check_currencies(transaction, client)


async def check_client_change(
    transaction: AdminTransaction, old: Client, new: Client, books: ClientBooks
) -> None:
    """Refuse a currency that money was booked in to change, and a limit that is too low.

    `books` are the client's, locked.
    """
    if new.currency != old.currency and (books.ledger_seq or books.active_calls):
        raise RefusedError(
            f"client {old.name!r} has bookings or calls in {old.currency}: its currency cannot"
            " change any more"
        )
    await check_references(transaction, new)
    after = replace(books, kind=new.kind, credit_limit=new.credit_limit)
    checked = (new.kind, new.credit_limit) != (old.kind, old.credit_limit)
    if checked and overdrawn(after):
        raise RefusedError(
            f"client {old.name!r} would be prepaid with {sum_text(after)}: below zero"
        )


def check_amounts(old: Client, new: Client, change: ClientChange) -> None:
    """Refuse another currency that would leave an amount as it is: 50 EUR are not 50 JPY."""
    for name, what in _AMOUNTS.items() if new.currency != old.currency else ():
        amount = getattr(old, name)
        if amount and getattr(change, name) is KEEP:
            raise RefusedError(
                f"client {old.name!r} has a {what} of {short_text(amount)} {old.currency}: say in"
                f" the same command what it is in {new.currency}, or take it away first"
            )


_AMOUNTS: Final = {
    "credit_limit": "credit limit",
    "monthly_quota": "monthly quota",
    "daily_quota": "daily quota",
    "low_balance": "low balance",
}
"""A client's settings that are in its currency, and what people call them. Nothing is the same in
all currencies."""


def overdrawn(books: ClientBooks) -> bool:
    """Whether a prepaid client has reserved or spent what it does not have."""
    return books.kind is ClientKind.PREPAID and (books.available or 0) < 0


def sum_text(books: ClientBooks) -> str:
    """How the available amount of a client with a limit comes about, in a line."""
    available, limit = books.available or 0, books.credit_limit or 0
    return (
        f"balance {short_text(books.balance)} + credit limit {short_text(limit)}"
        f" - reserved {short_text(books.reserved)} = {short_text(available)}"
    )


async def check_currencies(transaction: AdminTransaction, client: Client) -> None:
    """Refuse a client whose calls would be rated in another currency."""
    await check_rate_table(transaction, client.rate_table, client)
    if client.id:
        for account in await transaction.accounts.all(client.name):
            await check_rate_table(transaction, account.rate_table, client)


async def check_rate_table(transaction: AdminTransaction, name: str, client: Client) -> None:
    """Refuse a rate table in another currency than the client's; an empty name is none."""
    if not name:
        return
    table = await known_rate_table(transaction, name)
    if table.currency != client.currency:
        raise RefusedError(
            f"rate table {table.name!r} is in {table.currency}, client {client.name!r} in"
            f" {client.currency}: both must have one currency"
        )


async def check_table_change(
    transaction: AdminTransaction, old: RateTableHead, new: RateTableHead
) -> None:
    """Refuse another currency for a rate table that has rates, or clients of its currency."""
    if old.rates:
        raise RefusedError(
            f"rate table {old.name!r} has {old.rates} rates in {old.currency}: its currency"
            " cannot change any more"
        )
    for client in await transaction.rate_table_users(old.name):
        if client.currency != new.currency:
            raise RefusedError(
                f"rate table {old.name!r} is used by client {client.name!r}, which is in"
                f" {client.currency}: both must have one currency"
            )
