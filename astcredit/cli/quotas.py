"""`astcredit quota`: what clients may spend in a month and in a day, and what they spent of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypedDict, TypeVar, Unpack

import click

from astcredit.cli.context import App, Group, pass_app
from astcredit.cli.desks import Desks, at_desks
from astcredit.cli.output import Cell, Column, amount, instant, number, text
from astcredit.cli.parameters import quota_options
from astcredit.domain.money import short_text
from astcredit.service.catalog_rules import ClientChange, Limit
from astcredit.service.naming import shown_name

if TYPE_CHECKING:
    from astcredit.service.quota_ports import QuotaInUse

F = TypeVar("F", bound=Callable[..., object])

COLUMNS: tuple[Column, ...] = (
    text("client"),
    text("kind"),
    text("period"),
    text("currency"),
    amount("quota"),
    amount("spent"),
    amount("reserved"),
    amount("remaining"),
    number("percent"),
    instant("blocked_since"),
    instant("first_over_at"),
    instant("last_over_at"),
    amount("waived"),
    text("timezone"),
)


def _row(found: QuotaInUse) -> tuple[Cell, ...]:
    client, quota, usage = found.client, found.quota, found.usage
    return (
        client.name,
        quota.kind,
        quota.period,
        client.currency,
        quota.most,
        usage.counted,
        usage.reserved,
        usage.left(quota),
        found.percent,
        usage.blocked_ms,
        usage.first_over_ms,
        usage.last_over_ms,
        usage.waived,
        client.limits.timezone,
    )


def _settings(command: F) -> F:
    for option in reversed(quota_options(ending="")):
        command = option(command)
    return command


class _Asked(TypedDict):
    """The settings as click hands them on."""

    monthly_quota: Limit
    daily_quota: Limit
    timezone: str | None
    low_balance: Limit


@click.group(cls=Group)
def quota() -> None:
    """Quotas: what a client may spend in a month and in a day.

    Counted are calls that have ended and what is reserved for those that are up, in the month and
    the day in which they began. A new month or day begins free, whatever became of the last one.

    Example: astcredit quota show --over 80
    """


@quota.command("show")
@click.argument("client", required=False)
@click.option(
    "--over",
    metavar="PERCENT",
    type=click.IntRange(min=0),
    help="Only quotas of which at least so much is used, or ended calls leave nothing; also those "
    "of the day before.",
)
@click.option(
    "--period",
    metavar="PERIOD",
    help="A month or a day, as 2026-11 or 2026-11-21.  [default: the current ones]",
)
@pass_app
def show(app: App, client: str | None, over: int | None, period: str | None) -> None:
    """Show the quotas of all clients, or of CLIENT, and what is used of them.

    spent: what calls that have ended cost, without what was waived by a reset. percent: spent and
    reserved. blocked_since: since when ended calls leave nothing, or less than a call that was
    refused costs at least. Who spent too much, also during the night, shows --over 100.

    Example: astcredit quota show acme --period 2026-11
    """
    from astcredit.service.quota_ports import QuotaQuery

    wanted = QuotaQuery(client, over, period)
    found = at_desks(app, lambda desks: desks.quotas.quotas(wanted))
    app.output.rows(COLUMNS, map(_row, found))


@quota.command("set")
@click.argument("client")
@_settings
@pass_app
def set_(app: App, client: str, **asked: Unpack[_Asked]) -> None:
    """Change what CLIENT may spend; what is not named stays.

    In force for the next call. Raised or taken away, a quota blocks nobody any more; lowered, it
    leaves calls that are up alone. What was spent before counts.

    Example: astcredit quota set acme --monthly 500 --daily 50 --timezone Europe/Berlin
    """
    change = ClientChange(
        monthly_quota=asked["monthly_quota"],
        daily_quota=asked["daily_quota"],
        timezone=asked["timezone"],
        low_balance=asked["low_balance"],
    )
    if change == ClientChange():
        raise click.UsageError("name at least one setting to change")

    async def work(desks: Desks) -> Sequence[QuotaInUse]:
        from astcredit.service.quota_ports import QuotaQuery

        await desks.administration.set_client(client, change)
        return await desks.quotas.quotas(QuotaQuery(client))

    _print(app, f"quotas of client {shown_name(client)} set", at_desks(app, work))


@quota.command("reset")
@click.argument("client")
@click.option("--note", required=True, help="Why; it stands in the history.")
@click.option("--monthly", "kind", flag_value="monthly", help="Only the quota of the month.")
@click.option("--daily", "kind", flag_value="daily", help="Only the quota of the day.")
@pass_app
def reset(app: App, client: str, note: str, kind: str | None) -> None:
    """Let what CLIENT spent in the current month and day count no longer: an exception.

    What its open calls have reserved goes on counting. The balance stays as it is.

    Example: astcredit quota reset acme --daily --note "fair in Hannover, agreed with Ms Weber"
    """
    from astcredit.service.quota_desk import KINDS

    kinds = KINDS if kind is None else (kind,)
    waived = at_desks(app, lambda desks: desks.quotas.reset(client, note, kinds))
    said = "; ".join(
        f"{short_text(each.amount)} {each.quota.client.currency} of {each.quota.quota.period}"
        for each in waived
    )
    message = f"client {shown_name(client)}: no longer counted are {said}"
    _print(app, message, [each.quota for each in waived])


def _print(app: App, message: str, quotas: Sequence[QuotaInUse]) -> None:
    """The message for people, the quotas for programs."""
    if app.format == "table":
        app.output.line(message)
    else:
        app.output.rows(COLUMNS, map(_row, quotas))
