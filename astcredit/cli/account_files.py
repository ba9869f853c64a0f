"""`astcredit account export` and `import`: accounts as CSV files."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

import click

from astcredit.cli.context import App, Command, pass_app
from astcredit.cli.desks import at_desks
from astcredit.cli.output import Column, flag, number, text
from astcredit.cli.sheets import FILE, errors_printed, sheet_lines, source_name

if TYPE_CHECKING:
    from astcredit.service.account_import import Imported

IMPORTED: tuple[Column, ...] = (
    text("file"),
    number("added"),
    number("changed"),
    number("unchanged"),
    flag("dry_run"),
)

MOST_NAMED = 3
"""Accounts that a warning names: the list has them all."""


# It prints a file of accounts, which is CSV whatever --format says: so it has none of its own.
@click.command("export", cls=click.Command)
@click.argument("file", type=click.File("w", encoding="utf-8", atomic=True), default="-")
@click.option("--client", metavar="NAME", help="Only this client's.")
@pass_app
def export(app: App, file: TextIO, client: str | None) -> None:
    """Write all accounts with all their settings to FILE, as CSV that import reads.

    A cell that a spreadsheet would take for a formula has a ' before it, which import takes off.

    Example: astcredit account export accounts.csv --client acme
    """
    from astcredit.service.account_csv import write_accounts

    found = at_desks(app, lambda desks: desks.accounts.accounts(client))
    file.writelines(write_accounts(found))


@click.command("import", cls=Command)
@click.argument("file", type=FILE)
@click.option("--dry-run", is_flag=True, help="Check the file and say what it would change.")
@pass_app
def import_(app: App, file: str, dry_run: bool) -> None:
    """Add and change the accounts of a CSV FILE (- for standard input), all or none.

    The first line names the columns, as account list --format csv does; name must be there, and
    client, ident_by and ident for new accounts. A name that is there already is changed; settings
    without a column stay as they are. An empty cell is no limit, no table, not disabled.

    Example: astcredit account import accounts.csv --dry-run
    """
    from astcredit.service.account_csv import read_accounts

    with sheet_lines(file) as lines:
        sheet = read_accounts(lines)
    source = source_name(file)
    with errors_printed(file):
        done = at_desks(
            app, lambda desks: desks.accounts.import_sheet(sheet, source, dry_run=dry_run)
        )
    row = (source, done.added, done.changed, done.unchanged, dry_run)
    app.output.done(_summary(source, done, dry_run), IMPORTED, row)
    _warn(done)


def _summary(source: str, done: Imported, dry_run: bool) -> str:
    if not done.added and not done.changed:
        return f"{source}: nothing to change, all is as in the file"
    counts = f"{done.added} added, {done.changed} changed, {done.unchanged} left as they are"
    return f"{source}, dry run, nothing was changed: {counts}" if dry_run else f"{source}: {counts}"


def _warn(done: Imported) -> None:
    """Say on stderr which terminators are of no use yet."""
    names = done.need_term_rates
    if not names:
        return
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    shown = f"{', '.join(names[:MOST_NAMED])}{more}"
    text = f"no calls are routed to these until they have a rate table (term_rate_table): {shown}"
    click.echo(text, err=True)
