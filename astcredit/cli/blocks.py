"""`astcredit block`: numbers that may not be called."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import click

from astcredit.cli.context import App, Group, pass_app
from astcredit.cli.desks import at_desks
from astcredit.cli.output import Cell, Column, flag, number, text
from astcredit.service.naming import shown_name

if TYPE_CHECKING:
    from astcredit.service.block_ports import Block

F = TypeVar("F", bound=Callable[..., object])

COLUMNS: tuple[Column, ...] = (
    number("id"),
    text("prefix"),
    text("client"),
    text("note"),
    flag("enabled"),
)


def _row(block: Block) -> tuple[Cell, ...]:
    return (block.id, block.prefix, block.client or None, block.note or None, block.enabled)


def _named(command: F) -> F:
    """Which block: by its id, or by prefix and client."""
    whose = click.option(
        "--client", metavar="NAME", default="", help="The prefix is blocked for this client only."
    )
    which = click.argument("block", metavar="ID|PREFIX")
    return which(whose(command))


@click.group(cls=Group)
def block() -> None:
    """Blocked prefixes: numbers that nobody, or one client, may call.

    Example: astcredit block add 44900 --note "premium rate"
    """


@block.command("add")
@click.argument("prefix")
@click.option("--client", metavar="NAME", default="", help="For this client only.")
@click.option("--note", metavar="TEXT", default="", help="For people: why.")
@pass_app
def add(app: App, prefix: str, client: str, note: str) -> None:
    """Block all numbers that begin with PREFIX: digits with the country code.

    Emergency numbers can always be called.

    Example: astcredit block add 882 --client acme --note "satellite"
    """
    found = at_desks(app, lambda desks: desks.blocks.add(prefix, client, note))
    app.output.done(f"block {found.id} added: {_described(found)}", COLUMNS, _row(found))


@block.command("set")
@_named
@click.option("--note", metavar="TEXT", required=True, help="For people: why. '' for none.")
@pass_app
def set_(app: App, block: str, client: str, note: str) -> None:
    """Change the note of a block.

    Example: astcredit block set 882 --client acme --note "satellite, ticket 4711"
    """
    found = at_desks(app, lambda desks: desks.blocks.set(block, client, note))
    app.output.item(COLUMNS, _row(found))


@block.command("list")
@click.option("--client", metavar="NAME", help="Only those that are for this client alone.")
@pass_app
def list_(app: App, client: str | None) -> None:
    """List blocked prefixes; one without a client is blocked for everybody.

    Example: astcredit block list
    """
    found = at_desks(app, lambda desks: desks.blocks.blocks(client))
    app.output.rows(COLUMNS, map(_row, found))


@block.command("show")
@_named
@pass_app
def show(app: App, block: str, client: str) -> None:
    """Show one block.

    Example: astcredit block show 44900
    """
    found = at_desks(app, lambda desks: desks.blocks.block(block, client))
    app.output.item(COLUMNS, _row(found))


@block.command("disable")
@_named
@pass_app
def disable(app: App, block: str, client: str) -> None:
    """Lift a block: its numbers can be called again.

    Example: astcredit block disable 882 --client acme
    """
    _enable(app, block, client, False)


@block.command("enable")
@_named
@pass_app
def enable(app: App, block: str, client: str) -> None:
    """Put a block that was lifted in force again.

    Example: astcredit block enable 882 --client acme
    """
    _enable(app, block, client, True)


def _enable(app: App, name: str, client: str, enabled: bool) -> None:
    changed, found = at_desks(app, lambda desks: desks.blocks.enable(name, client, enabled))
    state = f"{'' if changed else 'already '}{'enabled' if enabled else 'disabled'}"
    message = f"block {found.id} {state}: {_described(found)}"
    app.output.done(message, COLUMNS, _row(found))


def _described(block: Block) -> str:
    whose = f"client {shown_name(block.client)}" if block.client else "everybody"
    return f"prefix {block.prefix} for {whose}"
