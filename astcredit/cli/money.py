"""`astcredit topup`, `adjust` and `balance`: money in and out by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from astcredit.cli.context import App, Command, pass_app
from astcredit.cli.desks import at_desks
from astcredit.cli.output import Cell, Column, amount, flag, number, text
from astcredit.cli.parameters import AMOUNT, NEGATIVE_AMOUNTS
from astcredit.domain.money import short_text
from astcredit.service.naming import shown_name

if TYPE_CHECKING:
    from astcredit.service.administration import ClientAndBooks
    from astcredit.service.money_desk import Booked

BOOKED: tuple[Column, ...] = (
    text("client"),
    text("currency"),
    amount("amount"),
    amount("balance_after"),
    text("reference"),
    flag("already_booked"),
)

BALANCE: tuple[Column, ...] = (
    text("client"),
    text("kind"),
    text("currency"),
    amount("balance"),
    amount("credit_limit"),
    amount("reserved"),
    amount("available"),
    number("active_calls"),
)


def _booked_row(booked: Booked) -> tuple[Cell, ...]:
    return (
        booked.client.name,
        booked.client.currency,
        booked.amount,
        booked.balance_after,
        booked.reference,
        booked.already,
    )


def _balance_row(found: ClientAndBooks) -> tuple[Cell, ...]:
    client, books = found.client, found.books
    return (
        client.name,
        client.kind,
        client.currency,
        books.balance,
        client.credit_limit,
        books.reserved,
        books.available,
        books.active_calls,
    )


def _print(app: App, what: str, booked: Booked) -> None:
    client, currency = shown_name(booked.client.name), booked.client.currency
    done = (
        f"was booked already, nothing is changed: {what}" if booked.already else f"booked: {what}"
    )
    message = (
        f"{done} of {short_text(booked.amount)} {currency} for client {client},"
        f" reference {booked.reference},"
        f" balance after it {short_text(booked.balance_after)} {currency}"
    )
    app.output.done(message, BOOKED, _booked_row(booked))


@click.command(cls=Command, context_settings=NEGATIVE_AMOUNTS)
@click.argument("client")
@click.argument("amount", type=AMOUNT)
@click.option(
    "--reference",
    metavar="REF",
    help="Makes the top-up repeatable: the same reference a second time changes nothing. Without "
    "it one is made and printed.",
)
@click.option("--note", default="", help="For people.")
@pass_app
def topup(app: App, client: str, amount: int, reference: str | None, note: str) -> None:
    """Add AMOUNT, above zero, to the balance of CLIENT.

    Example: astcredit topup acme 50.00 --reference invoice-2026-117
    """
    booked = at_desks(app, lambda desks: desks.money.top_up(client, amount, reference, note))
    _print(app, "top-up", booked)


@click.command(cls=Command, context_settings=NEGATIVE_AMOUNTS)
@click.argument("client")
@click.argument("amount", type=AMOUNT)
@click.option("--note", required=True, help="Why; it stands in the ledger.")
@pass_app
def adjust(app: App, client: str, amount: int, note: str) -> None:
    """Change the balance of CLIENT by AMOUNT, which may be negative.

    Example: astcredit adjust acme -1.50 --note "call 01J8… was charged twice by hand"
    """
    booked = at_desks(app, lambda desks: desks.money.adjust(client, amount, note))
    _print(app, "adjustment", booked)


@click.command(cls=Command)
@click.argument("client")
@pass_app
def balance(app: App, client: str) -> None:
    """Show how CLIENT stands.

    Balance, credit limit, what its open calls have reserved, and what is available for more.

    Example: astcredit balance acme
    """
    found = at_desks(app, lambda desks: desks.money.balance(client))
    app.output.item(BALANCE, _balance_row(found))
