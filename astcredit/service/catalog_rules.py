"""What may stand in the catalog: the rules that a change of it must keep.

The checks that need to look something up do it in the transaction of the change, after the
catalog's lock was taken: nothing can slip in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, Literal, TypeAlias

from astcredit.domain.books import ClientBooks
from astcredit.domain.catalog import ClientKind
from astcredit.domain.money import Micros, short_text
from astcredit.service.admin_ports import Account, AdminTransaction, Client, RateTableHead
from astcredit.service.errors import RefusedError
from astcredit.service.naming import (
    MOST_NAME,
    MOST_NOTES,
    check_currency,
    check_email,
    check_idents,
    check_text,
    known,
)


class Keep(Enum):
    """The mark of a setting that is not to be changed, where None is a value."""

    KEEP = "keep"


KEEP: Final = Keep.KEEP

Limit: TypeAlias = Micros | Literal[Keep.KEEP] | None
"""A credit limit as it is asked for: an amount, None for no limit, KEEP for the one that is."""


@dataclass(frozen=True, slots=True)
class ClientChange:
    """New values for settings of a client; what is None (credit_limit: KEEP) stays.

    `credit_limit` None means no limit, which a prepaid client cannot have: it gets 0. An empty
    `rate_table` or `email` means none.
    """

    kind: ClientKind | None = None
    currency: str | None = None
    credit_limit: Limit = KEEP
    rate_table: str | None = None
    email: str | None = None

    def applied_to(self, client: Client) -> Client:
        """The client after the change. Raises RefusedError for a value that cannot be."""
        kind = self.kind or client.kind
        limit = client.credit_limit if self.credit_limit is KEEP else self.credit_limit
        if limit is None and kind is ClientKind.PREPAID:
            limit = 0
        return replace(
            client,
            kind=kind,
            credit_limit=limit,
            currency=client.currency if self.currency is None else check_currency(self.currency),
            rate_table=client.rate_table if self.rate_table is None else self.rate_table,
            email=client.email if self.email is None else check_email(self.email),
        )


@dataclass(frozen=True, slots=True)
class AccountChange:
    """New values for settings of an account; what is None stays, empty texts mean none."""

    idents: Sequence[str] | None = None
    rate_table: str | None = None
    tag: str | None = None
    notes: str | None = None

    def applied_to(self, account: Account) -> Account:
        """The account after the change. Raises RefusedError for a value that cannot be."""
        return replace(
            account,
            idents=check_idents(account.idents if self.idents is None else self.idents),
            rate_table=account.rate_table if self.rate_table is None else self.rate_table,
            tag=account.tag if self.tag is None else check_text("tag", self.tag, MOST_NAME),
            notes=account.notes
            if self.notes is None
            else check_text("notes", self.notes, MOST_NOTES),
        )


async def known_client(transaction: AdminTransaction, name: str) -> Client:
    """The client of that name. Raises RefusedError with the nearest one."""
    return await known("client", name, await transaction.client(name), transaction.names)


async def known_account(transaction: AdminTransaction, name: str) -> Account:
    """The account of that name. Raises RefusedError with the nearest one."""
    return await known("account", name, await transaction.account(name), transaction.names)


async def known_rate_table(transaction: AdminTransaction, name: str) -> RateTableHead:
    """The rate table of that name. Raises RefusedError with the nearest one."""
    return await known("rate table", name, await transaction.rate_table(name), transaction.names)


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
    await check_currencies(transaction, new)
    after = replace(books, kind=new.kind, credit_limit=new.credit_limit)
    checked = (new.kind, new.credit_limit) != (old.kind, old.credit_limit)
    if checked and overdrawn(after):
        raise RefusedError(
            f"client {old.name!r} would be prepaid with {sum_text(after)}: below zero"
        )


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
    await _check_rate_table(transaction, client.rate_table, client)
    if client.id:
        for account in await transaction.accounts(client.name):
            await _check_rate_table(transaction, account.rate_table, client)


async def check_account(transaction: AdminTransaction, account: Account, owner: Client) -> None:
    """Refuse an account in two currencies, or one that answers to another's name."""
    await _check_rate_table(transaction, account.rate_table, owner)
    for ident in account.idents:
        for other in await transaction.identified_by(ident):
            if other.name != account.name:
                raise RefusedError(
                    f"ident {ident!r} of account {account.name!r} identifies account"
                    f" {other.name!r} of client {other.client!r} already"
                )


async def _check_rate_table(transaction: AdminTransaction, name: str, client: Client) -> None:
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
