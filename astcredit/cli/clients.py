"""`astcredit client`: who pays."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypedDict, TypeVar, Unpack

import click

from astcredit.cli.context import App, Group, pass_app
from astcredit.cli.desks import Desks, at_desks
from astcredit.cli.output import Cell, Column, amount, flag, number, text
from astcredit.cli.parameters import capacity_option, limit_option, quota_options
from astcredit.domain.catalog import ClientKind
from astcredit.service.catalog_rules import Capacity, ClientChange, Limit
from astcredit.service.naming import shown_name

if TYPE_CHECKING:
    from astcredit.service.administration import ClientAndBooks

F = TypeVar("F", bound=Callable[..., object])

COLUMNS: tuple[Column, ...] = (
    number("id"),
    text("name"),
    text("kind"),
    text("currency"),
    amount("balance"),
    amount("credit_limit"),
    amount("reserved"),
    amount("available"),
    number("active_calls"),
    text("rate_table"),
    text("email"),
    flag("enabled"),
    text("reseller"),
    text("routing_plan"),
    number("orig_capacity"),
    number("term_capacity"),
    amount("monthly_quota"),
    amount("daily_quota"),
    text("timezone"),
    amount("low_balance"),
)


def _row(found: ClientAndBooks) -> tuple[Cell, ...]:
    client, books = found.client, found.books
    return (
        client.id,
        client.name,
        client.kind,
        client.currency,
        books.balance,
        client.credit_limit,
        books.reserved,
        books.available,
        books.active_calls,
        client.rate_table or None,
        client.email or None,
        client.enabled,
        client.reseller or None,
        client.routing_plan or None,
        client.orig_capacity,
        client.term_capacity,
        client.monthly_quota,
        client.daily_quota,
        client.timezone,
        client.low_balance,
    )


def _settings(command: F) -> F:
    """The options that `add` and `set` share."""
    for option in reversed(
        (
            click.option(
                "--kind",
                type=click.Choice([kind.value for kind in ClientKind]),
                help="Whether the client pays before or after its calls.  [add: prepaid]",
            ),
            click.option("--currency", help="Three capital letters (ISO 4217).  [add: EUR]"),
            limit_option(
                "--credit-limit",
                help="How far the balance may fall below zero. '' for none: 0 for a prepaid "
                "client, no limit for a postpaid one.  [add: '']",
            ),
            click.option(
                "--rate-table",
                metavar="NAME",
                help="What its calls cost, where an account has no rate table. '' for none.",
            ),
            click.option("--email", help="Where to write to. '' for none."),
            click.option("--reseller", metavar="NAME", help="Whose client it is. '' for nobody's."),
            click.option(
                "--routing-plan",
                metavar="NAME",
                help="Which routes its calls take, where an account has no routing plan. '' for "
                "none: the dialplan's own trunk.",
            ),
            capacity_option("--orig-capacity", "Most calls that it makes at once."),
            capacity_option("--term-capacity", "Most calls that are handed to it at once."),
            *quota_options(),
        )
    ):
        command = option(command)
    return command


class _Asked(TypedDict):
    """The settings as click hands them on."""

    kind: str | None
    currency: str | None
    credit_limit: Limit
    rate_table: str | None
    email: str | None
    reseller: str | None
    routing_plan: str | None
    orig_capacity: Capacity
    term_capacity: Capacity
    monthly_quota: Limit
    daily_quota: Limit
    timezone: str | None
    low_balance: Limit


def _change(asked: _Asked) -> ClientChange:
    return ClientChange(
        ClientKind(asked["kind"]) if asked["kind"] else None,
        asked["currency"],
        asked["credit_limit"],
        asked["rate_table"],
        asked["email"],
        asked["reseller"],
        asked["routing_plan"],
        asked["orig_capacity"],
        asked["term_capacity"],
        asked["monthly_quota"],
        asked["daily_quota"],
        asked["timezone"],
        asked["low_balance"],
    )


@click.group(cls=Group)
def client() -> None:
    """Clients: who pays. The balance is the client's, however many accounts it has.

    Example: astcredit client add acme --rate-table retail
    """


@client.command("add")
@click.argument("name")
@_settings
@pass_app
def add(app: App, name: str, **asked: Unpack[_Asked]) -> None:
    """Add a client.

    Example: astcredit client add acme --kind postpaid --credit-limit 500 --rate-table retail
    """
    change = _change(asked)

    async def work(desks: Desks) -> ClientAndBooks:
        await desks.administration.add_client(name, change)
        return await desks.administration.client(name)

    app.output.done(f"client {shown_name(name)} added", COLUMNS, _row(at_desks(app, work)))


@client.command("set")
@click.argument("name")
@_settings
@pass_app
def set_(app: App, name: str, **asked: Unpack[_Asked]) -> None:
    """Change settings of a client; what is not named stays.

    Example: astcredit client set acme --credit-limit 100 --email billing@acme.example
    """
    change = _change(asked)

    async def work(desks: Desks) -> ClientAndBooks:
        await desks.administration.set_client(name, change)
        return await desks.administration.client(name)

    app.output.item(COLUMNS, _row(at_desks(app, work)))


@client.command("list")
@click.argument("words", metavar="[WORD]...", nargs=-1)
@click.option("--reseller", metavar="NAME", help="Only this reseller's.")
@pass_app
def list_(app: App, words: tuple[str, ...], reseller: str | None) -> None:
    """List clients: all, or those in whose settings every WORD appears, in capitals or not.

    Looked through are name, kind, currency, rate table, email, reseller and routing plan.

    Example: astcredit client list acme --format json
    """
    found = at_desks(app, lambda desks: desks.administration.clients(words, reseller))
    app.output.rows(COLUMNS, map(_row, found))


@client.command("show")
@click.argument("name")
@pass_app
def show(app: App, name: str) -> None:
    """Show one client.

    Example: astcredit client show acme
    """
    found = at_desks(app, lambda desks: desks.administration.client(name))
    app.output.item(COLUMNS, _row(found))


@client.command("disable")
@click.argument("name")
@pass_app
def disable(app: App, name: str) -> None:
    """Refuse every new call of a client; calls that are up go on.

    Example: astcredit client disable acme
    """
    _enable(app, name, False)


@client.command("enable")
@click.argument("name")
@pass_app
def enable(app: App, name: str) -> None:
    """Let a client that was disabled call again.

    Example: astcredit client enable acme
    """
    _enable(app, name, True)


def _enable(app: App, name: str, enabled: bool) -> None:
    async def work(desks: Desks) -> tuple[bool, ClientAndBooks]:
        changed = await desks.administration.enable_client(name, enabled)
        return changed, await desks.administration.client(name)

    changed, found = at_desks(app, work)
    state = f"{'' if changed else 'already '}{'enabled' if enabled else 'disabled'}"
    app.output.done(f"client {shown_name(name)} {state}", COLUMNS, _row(found))
