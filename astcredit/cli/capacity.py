"""`astcredit capacity`: how many calls are up at each level, and how many may be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from astcredit.cli.context import App, Group, pass_app
from astcredit.cli.desks import at_desks
from astcredit.cli.output import Cell, Column, number, text

if TYPE_CHECKING:
    from astcredit.service.capacity_desk import Mended
    from astcredit.service.capacity_ports import LevelInUse

COLUMNS: tuple[Column, ...] = (
    text("scope"),
    text("name"),
    text("direction"),
    number("calls"),
    number("capacity"),
    number("percent"),
    number("object_id"),
)

MENDED: tuple[Column, ...] = (
    text("scope"),
    text("name"),
    text("direction"),
    number("found"),
    number("calls"),
    number("object_id"),
)


def _row(level: LevelInUse) -> tuple[Cell, ...]:
    return (
        level.scope,
        level.name,
        level.direction,
        level.calls,
        level.capacity,
        level.percent,
        level.object_id,
    )


def _mended_row(mended: Mended) -> tuple[Cell, ...]:
    level = mended.level
    return (
        level.scope,
        mended.name,
        level.direction,
        mended.found,
        mended.calls,
        level.object_id,
    )


@click.group(cls=Group)
def capacity() -> None:
    """Capacity: how many calls are up at each level, and how many may be.

    Example: astcredit capacity list --over 80
    """


@capacity.command("list")
@click.option(
    "--reseller",
    metavar="NAME",
    help="Only this reseller, its clients, their accounts, and the rules that lead to them.",
)
@click.option(
    "--client",
    metavar="NAME",
    help="Only this client, its accounts, and the rules that lead to them.",
)
@click.option(
    "--over",
    metavar="PERCENT",
    type=click.IntRange(min=0),
    help="Only limits of which at least so much is in use: 100 shows what is full.",
)
@pass_app
def list_(app: App, reseller: str | None, client: str | None, over: int | None) -> None:
    """List all levels that have a limit or calls up.

    scope: reseller, client, account, or route (a rule of a routing plan). direction: orig, calls
    that it makes, or term, calls that are handed to it. percent: how much of the limit is in use.

    Example: astcredit capacity list --client acme
    """
    from astcredit.service.capacity_ports import LevelQuery

    wanted = LevelQuery(reseller, client, over)
    found = at_desks(app, lambda desks: desks.capacity.levels(wanted))
    app.output.rows(COLUMNS, map(_row, found))


@capacity.command("recount")
@pass_app
def recount(app: App) -> None:
    """Count the open calls of every level anew, and mend what says otherwise.

    The counters move with the reservations; astcredit audit proves that they agree. They cannot
    disagree unless somebody wrote to the tables by hand. Calls wait for the moment that it takes.

    Example: astcredit capacity recount
    """
    found = at_desks(app, lambda desks: desks.capacity.recount())
    if app.format == "table":
        plural = "" if len(found) == 1 else "s"
        said = f"{len(found)} counter{plural} mended" if found else "every counter is right"
        app.output.line(said)
    if found or app.format != "table":
        app.output.rows(MENDED, map(_mended_row, found))
