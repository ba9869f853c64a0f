"""`astcredit history`: who changed what."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from astcredit.cli.context import App, Command, pass_app
from astcredit.cli.desks import at_desks
from astcredit.cli.output import Cell, Output, instant, number, text
from astcredit.cli.parameters import WHEN
from astcredit.domain.instants import instant_text
from astcredit.service.history_desk import KINDS, changed_text

if TYPE_CHECKING:
    from astcredit.service.history_ports import AuditEntry, State

FOR_PEOPLE = (
    instant("date_created"),
    text("actor"),
    text("action"),
    text("kind"),
    text("name"),
    text("changes"),
    text("note"),
)
COLUMNS = (
    number("id"),
    instant("date_created"),
    text("actor"),
    text("action"),
    text("kind"),
    text("name"),
    text("before"),
    text("after"),
    text("note"),
)
"""As programs get it. In JSON before and after are objects, in CSV the same as text."""


@click.command(cls=Command)
@click.argument("kind", type=click.Choice(KINDS), required=False)
@click.argument("name", required=False)
@click.option(
    "--from",
    "from_ms",
    type=WHEN,
    metavar="WHEN",
    help="Changes made at this instant or later; a date, or date and time, UTC.",
)
@click.option(
    "--to",
    "until_ms",
    type=WHEN,
    metavar="WHEN",
    help="Changes made before this instant: --to 2026-12-01 ends with November.",
)
@click.option("--by", "actor", metavar="USER@HOST", help="Changes that this person made.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=100, show_default=True, help="At most so many."
)
@pass_app
def history(
    app: App,
    kind: str | None,
    name: str | None,
    from_ms: int | None,
    until_ms: int | None,
    actor: str | None,
    limit: int,
) -> None:
    """Show who changed what, when, and what it was before: the newest first.

    KIND and NAME narrow it to one object: a block's name is PREFIX or "PREFIX CLIENT", a route's
    its id, as `route list` shows it, or "PLAN PREFIX ACCOUNT". With --format json and csv each
    change has all that was kept of it.

    Example: astcredit history client acme --from 2026-11-01
    """
    from astcredit.service.history_ports import HistoryQuery

    if from_ms is not None and until_ms is not None and from_ms >= until_ms:
        raise click.UsageError("--from must be before --to")
    wanted = HistoryQuery(kind, name, from_ms, until_ms, actor, limit)
    found = at_desks(app, lambda desks: desks.history.entries(wanted))
    if app.format == "table":
        app.output.rows(FOR_PEOPLE, [_line(entry) for _, entry in found])
    elif app.format == "csv":
        app.output.rows(COLUMNS, [_row(id, entry) for id, entry in found])
    else:
        _print_documents(app.output, [_document(id, entry) for id, entry in found])


def _line(entry: AuditEntry) -> tuple[Cell, ...]:
    return (
        entry.created_at_ms,
        entry.actor,
        entry.action,
        entry.object_kind,
        entry.object_name,
        changed_text(entry) or None,
        entry.note or None,
    )


def _row(id: int, entry: AuditEntry) -> tuple[Cell, ...]:
    return (
        id,
        entry.created_at_ms,
        entry.actor,
        entry.action,
        entry.object_kind,
        entry.object_name,
        _json(entry.before),
        _json(entry.after),
        entry.note or None,
    )


def _json(state: State | None) -> str | None:
    return None if state is None else json.dumps(state, ensure_ascii=False)


def _document(id: int, entry: AuditEntry) -> dict[str, object]:
    values = (
        id,
        instant_text(entry.created_at_ms),
        entry.actor,
        entry.action,
        entry.object_kind,
        entry.object_name,
        entry.before,
        entry.after,
        entry.note or None,
    )
    return {column.name: value for column, value in zip(COLUMNS, values, strict=True)}


def _print_documents(output: Output, documents: list[dict[str, object]]) -> None:
    """A list as other commands print it, a line for each; but with objects in it."""
    lines = ",\n  ".join(map(json.dumps, documents))
    output.stream.write(f"[\n  {lines}\n]\n" if documents else "[]\n")
