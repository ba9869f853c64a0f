"""`astcredit account`: how clients' calls are recognised."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import click

from astcredit.cli.context import App, Group, pass_app
from astcredit.cli.desks import Desks, at_desks
from astcredit.cli.output import Cell, Column, flag, number, text
from astcredit.service.catalog_rules import AccountChange
from astcredit.service.naming import shown_name

if TYPE_CHECKING:
    from astcredit.service.admin_ports import Account

F = TypeVar("F", bound=Callable[..., object])

SEPARATOR = ";"
IDENT_BY = ("name",)

COLUMNS: tuple[Column, ...] = (
    number("id"),
    text("name"),
    text("client"),
    text("ident_by"),
    text("ident"),
    text("rate_table"),
    text("tag"),
    text("notes"),
    flag("enabled"),
)


def _row(account: Account) -> tuple[Cell, ...]:
    return (
        account.id,
        account.name,
        account.client,
        IDENT_BY[0],
        SEPARATOR.join(account.idents),
        account.rate_table or None,
        account.tag or None,
        account.notes or None,
        account.enabled,
    )


def _settings(required: bool) -> Callable[[F], F]:
    """The options that `add` and `set` share."""

    def decorate(command: F) -> F:
        for option in reversed(
            (
                click.option(
                    "--ident-by",
                    type=click.Choice(IDENT_BY),
                    required=required,
                    help="How a call is recognised: by the name in its accountcode.",
                ),
                click.option(
                    "--ident",
                    metavar="VALUE[;VALUE...]",
                    required=required,
                    help="The names that identify the account, separated by semicolons.",
                ),
                click.option(
                    "--rate-table",
                    metavar="NAME",
                    help="Comes before the client's rate table. '' for none.",
                ),
                click.option("--tag", help="A word to group accounts by. '' for none."),
                click.option("--notes", help="For people. '' for none."),
            )
        ):
            command = option(command)
        return command

    return decorate


def _change(
    ident: str | None, rate_table: str | None, tag: str | None, notes: str | None
) -> AccountChange:
    idents = None if ident is None else tuple(ident.split(SEPARATOR))
    return AccountChange(idents, rate_table, tag, notes)


@click.group(cls=Group)
def account() -> None:
    """Accounts: how a client's calls are recognised.

    Example: astcredit account add acme acme-office --ident-by name --ident acme
    """


@account.command("add")
@click.argument("client")
@click.argument("name")
@_settings(required=True)
@pass_app
def add(
    app: App,
    client: str,
    name: str,
    ident_by: str,
    ident: str,
    rate_table: str | None,
    tag: str | None,
    notes: str | None,
) -> None:
    """Add an account to a client.

    Example: astcredit account add acme acme-office --ident-by name --ident "acme;acme2"
    """
    change = _change(ident, rate_table, tag, notes)

    async def work(desks: Desks) -> Account:
        await desks.administration.add_account(client, name, change)
        return await desks.administration.account(name)

    app.output.done(f"account {shown_name(name)} added", COLUMNS, _row(at_desks(app, work)))


@account.command("set")
@click.argument("name")
@_settings(required=False)
@pass_app
def set_(
    app: App,
    name: str,
    ident_by: str | None,
    ident: str | None,
    rate_table: str | None,
    tag: str | None,
    notes: str | None,
) -> None:
    """Change settings of an account; what is not named stays.

    Example: astcredit account set acme-office --rate-table wholesale
    """
    change = _change(ident, rate_table, tag, notes)

    async def work(desks: Desks) -> Account:
        await desks.administration.set_account(name, change)
        return await desks.administration.account(name)

    app.output.item(COLUMNS, _row(at_desks(app, work)))


@account.command("list")
@click.option("--client", metavar="NAME", help="Only this client's.")
@pass_app
def list_(app: App, client: str | None) -> None:
    """List accounts.

    Example: astcredit account list --client acme
    """
    found = at_desks(app, lambda desks: desks.administration.accounts(client))
    app.output.rows(COLUMNS, map(_row, found))


@account.command("show")
@click.argument("name")
@pass_app
def show(app: App, name: str) -> None:
    """Show one account.

    Example: astcredit account show acme-office
    """
    found = at_desks(app, lambda desks: desks.administration.account(name))
    app.output.item(COLUMNS, _row(found))


@account.command("disable")
@click.argument("name")
@pass_app
def disable(app: App, name: str) -> None:
    """Refuse every new call of an account; calls that are up go on.

    Example: astcredit account disable acme-office
    """
    _enable(app, name, False)


@account.command("enable")
@click.argument("name")
@pass_app
def enable(app: App, name: str) -> None:
    """Let an account that was disabled call again.

    Example: astcredit account enable acme-office
    """
    _enable(app, name, True)


def _enable(app: App, name: str, enabled: bool) -> None:
    async def work(desks: Desks) -> tuple[bool, Account]:
        changed = await desks.administration.enable_account(name, enabled)
        return changed, await desks.administration.account(name)

    changed, found = at_desks(app, work)
    state = f"{'' if changed else 'already '}{'enabled' if enabled else 'disabled'}"
    app.output.done(f"account {shown_name(name)} {state}", COLUMNS, _row(found))
