"""`astcredit reseller`: whose clients share a capacity."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import click

from astcredit.cli.context import App, Group, pass_app
from astcredit.cli.desks import Desks, at_desks
from astcredit.cli.output import Cell, Column, flag, number, text
from astcredit.cli.parameters import capacity_option
from astcredit.service.catalog_rules import Capacity
from astcredit.service.naming import shown_name

if TYPE_CHECKING:
    from astcredit.service.reseller_desk import ResellerChange
    from astcredit.service.reseller_ports import ResellerInUse

F = TypeVar("F", bound=Callable[..., object])

COLUMNS: tuple[Column, ...] = (
    number("id"),
    text("name"),
    number("clients"),
    number("orig_calls"),
    number("orig_capacity"),
    number("term_calls"),
    number("term_capacity"),
    flag("enabled"),
)


def _row(found: ResellerInUse) -> tuple[Cell, ...]:
    reseller = found.reseller
    return (
        reseller.id,
        reseller.name,
        found.clients,
        found.orig_calls,
        reseller.orig_capacity,
        found.term_calls,
        reseller.term_capacity,
        reseller.enabled,
    )


def _settings(command: F) -> F:
    """The options that `add` and `set` share."""
    for option in (
        capacity_option("--term-capacity", "Most calls that are handed to its clients at once."),
        capacity_option("--orig-capacity", "Most calls that its clients make at once."),
    ):
        command = option(command)
    return command


def _change(orig_capacity: Capacity, term_capacity: Capacity) -> ResellerChange:
    from astcredit.service.reseller_desk import ResellerChange

    return ResellerChange(orig_capacity, term_capacity)


@click.group(cls=Group)
def reseller() -> None:
    """Resellers: whose clients share a capacity.

    Example: astcredit reseller add north --orig-capacity 300
    """


@reseller.command("add")
@click.argument("name")
@_settings
@pass_app
def add(app: App, name: str, orig_capacity: Capacity, term_capacity: Capacity) -> None:
    """Add a reseller. Its clients are made with client add --reseller, or moved with client set.

    Example: astcredit reseller add north --orig-capacity 300 --term-capacity 100
    """
    change = _change(orig_capacity, term_capacity)

    async def work(desks: Desks) -> ResellerInUse:
        await desks.resellers.add(name, change)
        return await desks.resellers.reseller(name)

    app.output.done(f"reseller {shown_name(name)} added", COLUMNS, _row(at_desks(app, work)))


@reseller.command("set")
@click.argument("name")
@_settings
@pass_app
def set_(app: App, name: str, orig_capacity: Capacity, term_capacity: Capacity) -> None:
    """Change the capacities of a reseller; what is not named stays.

    A limit below the calls that are up refuses new calls and leaves those.

    Example: astcredit reseller set north --orig-capacity 500 --term-capacity ""
    """
    change = _change(orig_capacity, term_capacity)

    async def work(desks: Desks) -> ResellerInUse:
        await desks.resellers.set(name, change)
        return await desks.resellers.reseller(name)

    app.output.item(COLUMNS, _row(at_desks(app, work)))


@reseller.command("list")
@pass_app
def list_(app: App) -> None:
    """List all resellers, with the calls of their clients that are up and how many may be.

    Example: astcredit reseller list
    """
    found = at_desks(app, lambda desks: desks.resellers.resellers())
    app.output.rows(COLUMNS, map(_row, found))


@reseller.command("show")
@click.argument("name")
@pass_app
def show(app: App, name: str) -> None:
    """Show one reseller; its clients are shown by astcredit client list --reseller.

    Example: astcredit reseller show north
    """
    found = at_desks(app, lambda desks: desks.resellers.reseller(name))
    app.output.item(COLUMNS, _row(found))


@reseller.command("disable")
@click.argument("name")
@pass_app
def disable(app: App, name: str) -> None:
    """Refuse every new call of a reseller's clients, and to them; calls that are up go on.

    Example: astcredit reseller disable north
    """
    _enable(app, name, False)


@reseller.command("enable")
@click.argument("name")
@pass_app
def enable(app: App, name: str) -> None:
    """Let the clients of a reseller that was disabled call again.

    Example: astcredit reseller enable north
    """
    _enable(app, name, True)


def _enable(app: App, name: str, enabled: bool) -> None:
    async def work(desks: Desks) -> tuple[bool, ResellerInUse]:
        changed = await desks.resellers.enable(name, enabled)
        return changed, await desks.resellers.reseller(name)

    changed, found = at_desks(app, work)
    state = f"{'' if changed else 'already '}{'enabled' if enabled else 'disabled'}"
    app.output.done(f"reseller {shown_name(name)} {state}", COLUMNS, _row(found))
