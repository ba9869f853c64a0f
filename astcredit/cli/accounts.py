"""`astcredit account`: by what calls are recognised, and to whom they are handed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

import click

from astcredit.cli.account_files import export, import_
from astcredit.cli.account_identify import identify
from astcredit.cli.account_options import Asked, change_of, settings
from astcredit.cli.account_rows import COLUMNS, PEOPLES_COLUMNS, matching, peoples_row, row
from astcredit.cli.context import App, Group, pass_app
from astcredit.cli.desks import Desks, at_desks
from astcredit.service.naming import shown_name

if TYPE_CHECKING:
    from astcredit.service.account_ports import Account

NO_TERM_RATES = "calls are not routed to it until it has a rate table (--term-rate-table)"


@click.group(cls=Group)
def account() -> None:
    """Accounts: by what a client's calls are recognised.

    An account can also be a terminator, to which the rules of routing plans hand calls.

    Example: astcredit account add acme acme-office --ident-by name --ident acme
    """


@account.command("add")
@click.argument("client")
@click.argument("name")
@settings(required=True)
@pass_app
def add(app: App, client: str, name: str, **asked: Unpack[Asked]) -> None:
    """Add an account to a client.

    \b
    Example: astcredit account add acme acme-pbx --ident-by ip --ident "192.0.2.7;2001:db8::/48"
    """
    change = change_of(asked)

    async def work(desks: Desks) -> Account:
        await desks.accounts.add(client, name, change)
        return await desks.accounts.account(name)

    added = at_desks(app, work)
    app.output.done(f"account {shown_name(name)} added", COLUMNS, row(added))
    _warn(added)


@account.command("set")
@click.argument("name")
@settings(required=False)
@pass_app
def set_(app: App, name: str, **asked: Unpack[Asked]) -> None:
    """Change settings of an account; what is not named stays.

    Example: astcredit account set acme-office --rate-table wholesale --orig-capacity 30
    """
    change = change_of(asked)

    async def work(desks: Desks) -> Account:
        await desks.accounts.set(name, change)
        return await desks.accounts.account(name)

    found = at_desks(app, work)
    app.output.item(COLUMNS, row(found))
    _warn(found)


@account.command("list")
@click.argument("words", metavar="[WORD]...", nargs=-1)
@click.option("--client", metavar="NAME", help="Only this client's.")
@pass_app
def list_(app: App, words: tuple[str, ...], client: str | None) -> None:
    """List accounts: all, or those in which every WORD appears, in capitals or not.

    Looked through is what the table shows, and tags and notes. JSON and CSV have a column for each
    setting.

    Example: astcredit account list 192.0.2 --client acme
    """
    found = at_desks(app, lambda desks: desks.accounts.accounts(client))
    shown = matching(words, found)
    if app.output.format == "table":
        app.output.rows(PEOPLES_COLUMNS, map(peoples_row, shown))
    else:
        app.output.rows(COLUMNS, map(row, shown))


@account.command("show")
@click.argument("name")
@pass_app
def show(app: App, name: str) -> None:
    """Show one account with all its settings.

    Example: astcredit account show acme-office
    """
    found = at_desks(app, lambda desks: desks.accounts.account(name))
    app.output.item(COLUMNS, row(found))


@account.command("disable")
@click.argument("name")
@click.option("--orig", is_flag=True, help="Only the calls that it makes.")
@click.option("--term", is_flag=True, help="Only the calls that are routed to it.")
@pass_app
def disable(app: App, name: str, orig: bool, term: bool) -> None:
    """Refuse every new call of an account and to it; calls that are up go on.

    Example: astcredit account disable acme-office --orig
    """
    _enable(app, name, False, orig, term)


@account.command("enable")
@click.argument("name")
@click.option("--orig", is_flag=True, help="Only the calls that it makes.")
@click.option("--term", is_flag=True, help="Only the calls that are routed to it.")
@pass_app
def enable(app: App, name: str, orig: bool, term: bool) -> None:
    """Let an account that was disabled, or one of its sides, call and be called again.

    Example: astcredit account enable acme-office
    """
    _enable(app, name, True, orig, term)


def _enable(app: App, name: str, enabled: bool, orig: bool, term: bool) -> None:
    async def work(desks: Desks) -> tuple[bool, Account]:
        changed = await desks.accounts.enable(name, enabled, orig=orig, term=term)
        return changed, await desks.accounts.account(name)

    changed, found = at_desks(app, work)
    sides = {"originator": orig, "terminator": term}
    side = " and ".join(side for side, chosen in sides.items() if chosen)
    state = f"{'' if changed else 'already '}{'enabled' if enabled else 'disabled'}"
    message = f"account {shown_name(name)} {state}{f' as {side}' if side else ''}"
    app.output.done(message, COLUMNS, row(found))
    if enabled:
        _warn(found)


def _warn(found: Account) -> None:
    """Say on stderr what is allowed and yet of no use."""
    if found.needs_term_rates:
        click.echo(f"account {shown_name(found.name)}: {NO_TERM_RATES}", err=True)


for command in (identify, export, import_):
    account.add_command(command)
