"""`astcredit audit`: proves the books."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from astcredit.cli.context import App, Command, pass_app
from astcredit.cli.output import Column, text
from astcredit.service.errors import RefusedError

if TYPE_CHECKING:
    from astcredit.service.audit import AuditResult
    from astcredit.storage.database import Database

COLUMNS: tuple[Column, ...] = (text("check"), text("object"), text("expected"), text("found"))


@click.command(cls=Command)
@pass_app
def audit(app: App) -> None:
    """Prove that the books are in order.

    Balances, reservations, charges and calls must agree.
    Exit status 1, and the rows that are not as they must be, if they are not. May run at any
    time, also while calls are up.

    Example: astcredit audit
    """
    result = app.with_database(_examine)
    findings = [(f.check, f.object, f.expected, f.found) for f in result.findings]
    if app.format == "json":
        app.output.document(
            {
                "in_order": result.in_order,
                "clients": result.clients,
                "calls": result.calls,
                "ledger_rows": result.ledger_rows,
                "findings": [dict(zip(_names(), finding, strict=True)) for finding in findings],
            }
        )
    elif result.in_order and app.format == "table":
        app.output.line(
            f"books are in order: {result.clients} clients, {result.calls} calls,"
            f" {result.ledger_rows} ledger rows"
        )
    else:
        app.output.rows(COLUMNS, findings)
    if not result.in_order:
        least, plural = "at least " if result.more else "", "" if len(findings) == 1 else "s"
        raise RefusedError(f"books are not in order: {least}{len(findings)} finding{plural}")


def _names() -> list[str]:
    return [column.name for column in COLUMNS]


async def _examine(database: Database) -> AuditResult:
    from astcredit.storage.audit import SqlAuditor

    return await SqlAuditor(database).examine()
