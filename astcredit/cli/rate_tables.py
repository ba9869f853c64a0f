"""`astcredit rate-table`: the tables that rates are imported into."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from astcredit.cli.context import App, Group, pass_app
from astcredit.cli.desks import Desks, at_desks
from astcredit.cli.output import Cell, Column, flag, number, text
from astcredit.service.naming import shown_name

if TYPE_CHECKING:
    from astcredit.service.admin_ports import RateTableHead

COLUMNS: tuple[Column, ...] = (
    number("id"),
    text("name"),
    text("currency"),
    number("rates"),
    number("version"),
    flag("enabled"),
)


def _row(table: RateTableHead) -> tuple[Cell, ...]:
    return (table.id, table.name, table.currency, table.rates, table.version, table.enabled)


@click.group(cls=Group)
def rate_table() -> None:
    """Rate tables: what numbers cost. Their rates come from files: see astcredit rates.

    Example: astcredit rate-table add retail --currency EUR
    """


@rate_table.command("add")
@click.argument("name")
@click.option(
    "--currency", default="EUR", show_default=True, help="Three capital letters (ISO 4217)."
)
@pass_app
def add(app: App, name: str, currency: str) -> None:
    """Add an empty rate table.

    Example: astcredit rate-table add retail
    """

    async def work(desks: Desks) -> RateTableHead:
        await desks.administration.add_rate_table(name, currency)
        return await desks.administration.rate_table(name)

    app.output.done(f"rate table {shown_name(name)} added", COLUMNS, _row(at_desks(app, work)))


@rate_table.command("set")
@click.argument("name")
@click.option("--currency", required=True, help="Three capital letters (ISO 4217).")
@pass_app
def set_(app: App, name: str, currency: str) -> None:
    """Change the currency of a rate table that has no rates yet.

    Example: astcredit rate-table set retail --currency USD
    """

    async def work(desks: Desks) -> RateTableHead:
        await desks.administration.set_rate_table(name, currency)
        return await desks.administration.rate_table(name)

    app.output.item(COLUMNS, _row(at_desks(app, work)))


@rate_table.command("list")
@pass_app
def list_(app: App) -> None:
    """List all rate tables.

    Example: astcredit rate-table list
    """
    found = at_desks(app, lambda desks: desks.administration.rate_tables())
    app.output.rows(COLUMNS, map(_row, found))


@rate_table.command("show")
@click.argument("name")
@pass_app
def show(app: App, name: str) -> None:
    """Show one rate table; its rates are shown by astcredit rates export.

    Example: astcredit rate-table show retail
    """
    found = at_desks(app, lambda desks: desks.administration.rate_table(name))
    app.output.item(COLUMNS, _row(found))


@rate_table.command("disable")
@click.argument("name")
@pass_app
def disable(app: App, name: str) -> None:
    """Rate nothing with a table: calls that need it are refused.

    Example: astcredit rate-table disable retail
    """
    _enable(app, name, False)


@rate_table.command("enable")
@click.argument("name")
@pass_app
def enable(app: App, name: str) -> None:
    """Rate with a table again.

    Example: astcredit rate-table enable retail
    """
    _enable(app, name, True)


def _enable(app: App, name: str, enabled: bool) -> None:
    async def work(desks: Desks) -> tuple[bool, RateTableHead]:
        changed = await desks.administration.enable_rate_table(name, enabled)
        return changed, await desks.administration.rate_table(name)

    changed, found = at_desks(app, work)
    state = f"{'' if changed else 'already '}{'enabled' if enabled else 'disabled'}"
    app.output.done(f"rate table {shown_name(name)} {state}", COLUMNS, _row(found))
