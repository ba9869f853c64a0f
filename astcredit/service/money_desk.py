"""Money in and out by hand: top-ups, adjustments, and how a client stands.

A booking has a reference, unique in the ledger. Who repeats a top-up with its reference (a
payment gateway that got no answer, say) changes nothing the second time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from astcredit.domain import correction
from astcredit.domain.alerts import low_balance
from astcredit.domain.books import ClientBooks, LedgerEntry, LedgerKind
from astcredit.domain.money import (
    MICROS,
    MOST_INTEGER_DIGITS,
    Micros,
    amount_text,
    short_text,
)
from astcredit.service.admin_ports import AdminStore, AdminTransaction, Booking, Client
from astcredit.service.administration import ClientAndBooks
from astcredit.service.catalog_rules import known_client, overdrawn, sum_text
from astcredit.service.errors import CommitUnknown, PoisonError, RefusedError, TransientError
from astcredit.service.history_ports import AuditEntry
from astcredit.service.ids import CallIds
from astcredit.service.naming import MOST_NOTE, MOST_REFERENCE, check_name, check_text
from astcredit.service.persistence import persistently
from astcredit.service.ports import Changes

MOST_BALANCE = 10**MOST_INTEGER_DIGITS * MICROS - 1
"""The largest amount that the columns hold, in MariaDB and so in SQLite too."""

KEPT_REFERENCES = ("call:", correction.REFERENCE)
"""References that begin so belong to the charges of calls, and to their corrections."""

MOST_UNKNOWN = 3
"""How often a booking whose COMMIT got no answer is looked for, before a person has to."""


@dataclass(frozen=True, slots=True)
class Booked:
    """A booking: the client's state after it, and whether it was there before."""

    client: Client
    amount: Micros
    balance_after: Micros
    reference: str
    already: bool


@dataclass(frozen=True, slots=True)
class _Order:
    """A booking to be made."""

    client: str
    kind: LedgerKind
    amount: Micros
    reference: str
    note: str


class MoneyDesk:
    """Books money on behalf of `actor` (user@host)."""

    def __init__(self, store: AdminStore, actor: str, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._actor = actor
        self._now_ms = now_ms
        self._new_id = CallIds(now_ms)

    async def top_up(
        self, client: str, amount: Micros, reference: str | None = None, note: str = ""
    ) -> Booked:
        """Add money to a client's balance, once for each reference; without one it makes one.

        Raises RefusedError (amount not above zero, a reference that another booking has),
        CommitUnknown with what to do, TransientError.
        """
        if amount <= 0:
            raise RefusedError(f"amount {short_text(amount)}: expected more than 0")
        if reference is None:
            reference = f"topup:{self._new_id()}"
        check_name("reference", reference, MOST_REFERENCE)
        for kept in KEPT_REFERENCES:
            if reference.startswith(kept):
                raise RefusedError(f"reference {reference!r}: {kept} is kept for calls")
        check_text("note", note, MOST_NOTE)
        order = _Order(client, LedgerKind.TOPUP, amount, reference, note)
        return await self._book(order, f"run the same command with --reference {reference}")

    async def adjust(self, client: str, amount: Micros, note: str) -> Booked:
        """Change a client's balance by a signed amount, for the reason in `note`.

        Raises RefusedError (also when a prepaid client could not pay what it has reserved),
        CommitUnknown with what to do, TransientError.
        """
        if amount == 0:
            raise RefusedError("amount 0: expected an amount above or below 0")
        check_name("note", note, MOST_NOTE)
        reference = f"adjust:{self._new_id()}"
        order = _Order(client, LedgerKind.ADJUSTMENT, amount, reference, note)
        return await self._book(order, f"look for reference {reference} in the ledger")

    async def balance(self, client: str) -> ClientAndBooks:
        """How a client stands."""
        async with self._store.looking() as transaction:
            found = await known_client(transaction, client)
            books = (await transaction.client_books([found.id]))[found.id]
        return ClientAndBooks(found, books)

    async def _book(self, order: _Order, remedy: str) -> Booked:
        """Make a booking. One whose COMMIT got no answer is tried again: its reference tells
        whether it happened."""
        unknown = False
        for _ in range(MOST_UNKNOWN):
            try:
                booked = await self._once(order)
            except CommitUnknown:
                unknown = True
            except TransientError as error:
                if not unknown:
                    raise
                raise CommitUnknown(f"{error}; {remedy}") from error
            else:
                # After a lost answer, what is found under the reference is our own booking: the
                # lost attempt had seen, under the lock, that there was none.
                return replace(booked, already=booked.already and not unknown)
        raise CommitUnknown(remedy)

    async def _once(self, order: _Order) -> Booked:
        """One attempt, repeated when it was rolled back."""
        try:
            return await persistently(lambda: self._attempt(order))
        except PoisonError:
            # Another client's top-up took the reference after we had looked: look again.
            return await self._attempt(order)

    async def _attempt(self, order: _Order) -> Booked:
        async with self._store.booking_money() as transaction:
            client = await known_client(transaction, order.client)
            books = (await transaction.books.lock_clients([client.id]))[client.id]
            booking = await transaction.booking(order.reference)
            if booking is not None:
                return _repeated(order, client, booking)
            after, entry = self._posted(order, client, books)
            after, alerts = low_balance(after, self._now_ms())
            changes = Changes(ledger=[entry], clients={client.id: after}, alerts=alerts)
            await transaction.books.write(changes)
            await self._record(transaction, order, books, after)
        return Booked(client, order.amount, after.balance, order.reference, already=False)

    def _posted(
        self, order: _Order, client: Client, books: ClientBooks
    ) -> tuple[ClientBooks, LedgerEntry]:
        after, entry = books.post(
            order.kind,
            order.amount,
            reference=order.reference,
            actor=self._actor,
            note=order.note,
            now_ms=self._now_ms(),
        )
        if abs(after.balance) > MOST_BALANCE:
            raise RefusedError(
                f"the balance of client {client.name!r} would be {short_text(after.balance)}:"
                f" expected at most {MOST_INTEGER_DIGITS} digits before the point"
            )
        if order.amount < 0 and overdrawn(after):
            raise RefusedError(
                f"client {client.name!r} would have {sum_text(after)} {client.currency}: below zero"
            )
        return after, entry

    async def _record(
        self, transaction: AdminTransaction, order: _Order, before: ClientBooks, after: ClientBooks
    ) -> None:
        action = "topup" if order.kind is LedgerKind.TOPUP else "adjust"
        await transaction.record(
            AuditEntry(
                self._now_ms(),
                self._actor,
                action,
                "client",
                order.client,
                {"balance": amount_text(before.balance)},
                {"balance": amount_text(after.balance), "reference": order.reference},
                order.note,
            )
        )


def _repeated(order: _Order, client: Client, booking: Booking) -> Booked:
    """The answer for a reference that is booked already. Raises RefusedError for another thing."""
    there = (booking.client, booking.kind, booking.amount)
    if there != (order.client, order.kind, order.amount):
        raise RefusedError(
            f"reference {order.reference!r} is that of the {booking.kind} of"
            f" {short_text(booking.amount)} for client {booking.client!r}, not of a {order.kind}"
            f" of {short_text(order.amount)} for client {order.client!r}"
        )
    return Booked(client, booking.amount, booking.balance_after, order.reference, already=True)
