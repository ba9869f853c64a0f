"""`astcredit outbox`: notifications on their way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from astcredit.cli.context import App, Group, pass_app
from astcredit.cli.desks import at_desks
from astcredit.cli.output import Cell, Column, instant, number, text

if TYPE_CHECKING:
    from astcredit.service.notification_ports import OutboxRow

COLUMNS: tuple[Column, ...] = (
    number("id"),
    instant("date_created"),
    text("kind"),
    text("audience"),
    text("client"),
    text("status"),
    number("attempts"),
    instant("next_attempt"),
    instant("sent_at"),
    text("recipient"),
    text("error"),
    text("reference"),
)

STATUSES = ("waiting", "sending", "sent", "failed", "unsure")


def _row(found: OutboxRow) -> tuple[Cell, ...]:
    return (
        found.id,
        found.created_at_ms,
        found.kind,
        found.audience,
        found.client,
        found.status,
        found.attempts,
        found.next_attempt_ms,
        found.sent_at_ms,
        found.recipient or None,
        found.error or None,
        found.reference,
    )


@click.group(cls=Group)
def outbox() -> None:
    """Notifications on their way: what waits, what was sent, what failed and why.

    Example: astcredit outbox list --status failed
    """


@outbox.command("list")
@click.option("--status", type=click.Choice(STATUSES), help="Only those that are so.")
@click.option("--client", metavar="NAME", help="Only those about this client.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=100, show_default=True, help="At most so many."
)
@pass_app
def list_(app: App, status: str | None, client: str | None, limit: int) -> None:
    """List notifications, the newest first.

    waiting: to be sent, or tried again at next_attempt. failed: given up. unsure: it may have been
    sent or not, because the program or the connection ended when the mail server may have had it
    already; it is not sent again by itself.

    Example: astcredit outbox list --client acme
    """
    from astcredit.service.notification_ports import MailStatus, OutboxQuery

    wanted = OutboxQuery(MailStatus(status) if status else None, client, limit)
    found = at_desks(app, lambda desks: desks.outbox.rows(wanted))
    app.output.rows(COLUMNS, map(_row, found))


@outbox.command("retry")
@click.argument("id", type=click.IntRange(1, 2**31 - 1))
@pass_app
def retry(app: App, id: int) -> None:
    """Send a notification now that failed, is unsure, or waits to be tried again.

    Whoever got an unsure one gets it twice then, with the same Message-ID.

    Example: astcredit outbox retry 42
    """
    found = at_desks(app, lambda desks: desks.outbox.retry(id))
    message = f"notification {found.id} waits to be sent; it was {found.status}"
    app.output.done(message, COLUMNS, _row(found))
