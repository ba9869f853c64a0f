"""`astcredit reconcile`: closes and corrects what an outage left open or estimated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from astcredit.cli.context import App, Command, pass_app
from astcredit.cli.output import Cell, amount, text

if TYPE_CHECKING:
    from astcredit.asterisk.cdr_csv import CdrFiles
    from astcredit.service.reconciliation import Reconciliation
    from astcredit.service.reconciliation_ports import Report, Row
    from astcredit.storage.database import Database

COLUMNS = (
    text("id"),
    text("node"),
    text("uniqueid"),
    text("client"),
    text("was"),
    text("now"),
    amount("amount"),
    text("currency"),
    text("done"),
    text("note"),
)


@click.command(cls=Command)
@click.option(
    "--asterisk-cdr",
    "files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="Master.csv of one Asterisk server, or the file of dialplan/cdr_custom.conf, which has "
    "milliseconds. May be given several times, the oldest file first.",
)
@click.option(
    "--node",
    metavar="NAME",
    help="The server whose records these are, as its calls name it; else calls are told apart by "
    "uniqueid alone.",
)
@click.option(
    "--timezone",
    "zone",
    default="UTC",
    show_default=True,
    metavar="ZONE",
    help="Of the times in Master.csv: the server's own unless cdr.conf has usegmtime=yes.",
)
@click.option("--skip-bad", is_flag=True, help="Pass over lines that are no records.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and change nothing.")
@pass_app
def reconcile(
    app: App, files: tuple[str, ...], node: str | None, zone: str, skip_bad: bool, dry_run: bool
) -> None:
    """Close and correct, by Asterisk's own records, what an outage left open or estimated.

    An open call that is over in Asterisk is closed with its answer and end. What was charged by
    estimate is compared; the difference becomes a new row of the ledger: a refund, or an adjustment
    up to what was reserved (and, prepaid, to what the client has). May be repeated: what is done is
    not done again. A call that is up stays as it is.

    Without --asterisk-cdr it closes calls past their last possible second, lists those that are
    estimated or past their time, and ends with status 1 if there are any.

    Example: astcredit reconcile --asterisk-cdr /var/log/asterisk/cdr-csv/Master.csv --node pbx1
    """
    if not files:
        report = app.with_database(
            lambda database: _reconciliation(app, database).without_records(node, dry_run=dry_run)
        )
        _print(app, report, dry_run, _waiting(report))
        if report.rows:
            click.get_current_context().exit(1)
        return
    from astcredit.asterisk.cdr_csv import CdrFiles

    records = CdrFiles(files, zone, skip_bad=skip_bad)
    with _bad_lines_shown(records):
        report = app.with_database(
            lambda database: _reconciliation(app, database).with_records(
                records, node, dry_run=dry_run
            )
        )
    _print(app, report, dry_run, _summary(report, dry_run))


def _reconciliation(app: App, database: Database) -> Reconciliation:
    from astcredit.app.core import call_policy
    from astcredit.app.links import ConfiguredLinks, parse_nodes
    from astcredit.service.ledger import Ledger
    from astcredit.service.reconciliation import Reconciliation
    from astcredit.storage.books import SqlBooks
    from astcredit.storage.catalog import SqlCatalog
    from astcredit.storage.reconciliation import SqlReconciliation

    settings = app.settings
    policy = call_policy(settings)
    links = ConfiguredLinks(parse_nodes(settings.ami.nodes), {})
    # Ends are settled without a catalog: it is never loaded.
    catalog = SqlCatalog(database, inline_rates=settings.catalog.inline_rates)
    ledger = Ledger(SqlBooks(database), catalog, policy, app.now_ms, links=links)
    store = SqlReconciliation(database)
    return Reconciliation(store, ledger, app.actor, app.now_ms, policy.quota_thresholds)


@contextmanager
def _bad_lines_shown(records: CdrFiles) -> Iterator[None]:
    """Print the bad lines that were met in the block, whether they were passed over or not."""
    try:
        yield
    finally:
        for path, read in records.read.items():
            for error in read.errors:
                click.echo(f"{path}: {error}", err=True)
            if read.bad_lines > len(read.errors):
                click.echo(f"{path}: … {read.bad_lines} bad lines", err=True)


def _print(app: App, report: Report, dry_run: bool, summary: str) -> None:
    rows = [_row(row) for row in report.rows]
    if app.format == "json":
        app.output.document(
            {
                "dry_run": dry_run,
                "looked_at": report.looked_at,
                "changed": 0 if dry_run else report.changed,
                "counts": {done.value: count for done, count in sorted(report.counts.items())},
                "calls": app.output.objects(COLUMNS, rows),
            }
        )
        return
    if rows or app.format == "csv":
        app.output.rows(COLUMNS, rows)
    if app.format == "table":
        app.output.line(summary)


def _row(row: Row) -> Sequence[Cell]:
    call = row.doubtful.call
    return (
        call.call_id,
        call.node,
        call.uniqueid,
        row.doubtful.client,
        row.was,
        row.now,
        row.amount,
        row.doubtful.currency,
        row.done,
        row.note,
    )


def _summary(report: Report, dry_run: bool) -> str:
    if not report.changed:
        return f"nothing to change: {_counted(report)}"
    return f"{'would be done' if dry_run else 'done'}: {_counted(report)}"


def _waiting(report: Report) -> str:
    if not report.rows:
        return f"no call is estimated or past its time; open or estimated: {report.looked_at}"
    return _counted(report)


def _counted(report: Report) -> str:
    counts = ", ".join(f"{count} {done}" for done, count in sorted(report.counts.items()))
    plural = "" if report.looked_at == 1 else "s"
    return f"{report.looked_at} call{plural} open or estimated{': ' if counts else ''}{counts}"
