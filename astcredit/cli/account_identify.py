"""`astcredit account identify`: whose call would this be?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from astcredit.cli.context import App, Command, pass_app
from astcredit.cli.desks import at_desks
from astcredit.cli.output import Cell, Column, flag, text
from astcredit.domain.calls import Origin
from astcredit.domain.identification import parse_source
from astcredit.service.errors import RefusedError

if TYPE_CHECKING:
    from astcredit.domain.identification import Considered
    from astcredit.domain.numbers import Numbering
    from astcredit.service.account_recognition import Recognition

COLUMNS: tuple[Column, ...] = (
    flag("chosen"),
    text("account"),
    text("client"),
    text("ident_by"),
    text("ident"),
    text("tech_prefix"),
    text("number"),
    text("ani"),
    text("why"),
    text("refused"),
)
"""Scripts read these: new ones come at the end."""


def _address(_: click.Context, parameter: click.Parameter, value: str) -> str:
    if value and parse_source(value) is None:
        expected = "expected an address with or without a port, as 192.0.2.7:5060 or [2001:db8::1]"
        raise click.BadParameter(expected, param=parameter)
    return value


@click.command("identify", cls=Command)
@click.option(
    "--account", metavar="NAME", default="", help="What the script names (AC_ACCOUNT, AC_PAYER)."
)
@click.option("--name", default="", help="The accountcode of the channel.")
@click.option("--endpoint", default="", help="The PJSIP endpoint of the channel.")
@click.option(
    "--ip",
    metavar="ADDRESS[:PORT]",
    default="",
    callback=_address,
    help="Where the signalling comes from.",
)
@click.option("--ani", metavar="CALLER", default="", help="The caller's number.")
@click.option(
    "--number", metavar="DIALLED", default="", help="The number that is called, as it is dialled."
)
@click.option("--node", help="The Asterisk server that the call comes to.  [default]")
@pass_app
def identify(
    app: App,
    account: str,
    name: str,
    endpoint: str,
    ip: str,
    ani: str,
    number: str,
    node: str | None,
) -> None:
    """Show which account a call would be recognised as, and why it is not another.

    The number of the chosen account is the one that is rated: without its tech prefix. The exit
    status is 1 if the call is nobody's (NOACCOUNT) or its account is switched off (DISABLED).

    Example: astcredit account identify --ip 192.0.2.7:5060 --ani 02071234567 --number 7700493012
    """
    if not (account or name or endpoint or ip or ani):
        expected = "at least one of --account, --name, --endpoint, --ip and --ani"
        raise click.UsageError(f"expected {expected}")
    from astcredit.app.links import DEFAULT_NODE

    origin = Origin(node or DEFAULT_NODE, account, name, endpoint, ip, ani)
    numbering = _numbering(app)
    found = at_desks(app, lambda desks: desks.accounts.identify(origin, number, numbering))
    if found.considered:
        app.output.rows(COLUMNS, (_row(found, each) for each in found.considered))
    if app.output.format == "table":
        _say(app, found, origin)
    if found.found is None:
        raise RefusedError("the call is nobody's (NOACCOUNT)")
    if found.off:
        raise RefusedError(f"the call is refused: {found.off} (DISABLED)")


def _row(found: Recognition, considered: Considered) -> tuple[Cell, ...]:
    account = found.accounts[considered.account.id]
    number = found.found.number if found.found and considered.chosen else None
    return (
        considered.chosen,
        account.name,
        account.client,
        account.ident_by.value,
        considered.ident,
        account.tech_prefix or None,
        number or None,
        found.callerid or None,
        considered.why,
        f"DISABLED: {found.off}" if found.off and considered.chosen else None,
    )


def _say(app: App, found: Recognition, origin: Origin) -> None:
    if found.normalised:
        app.output.line(
            f"nobody is recognised with the caller's number {origin.callerid} as it was told: it"
            f" was looked for as {found.callerid}, too"
        )
    if found.found is None:
        return
    account = found.accounts[found.found.account.id]
    number = f"; the number is {found.found.number}" if found.found.number else ""
    app.output.line(
        f"a call of account {account.name} of client {account.client}, recognised by its"
        f" {found.found.by}{number}"
    )


def _numbering(app: App) -> Numbering:
    from astcredit.domain.numbers import Numbering

    numbers = app.settings.numbers
    return Numbering(numbers.country_code, numbers.trunk_prefix, numbers.international_prefixes)
