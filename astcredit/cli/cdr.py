"""`astcredit cdr`: the calls that were made, and the sums behind each charge and cost."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from astcredit.cli.context import App, Group, pass_app
from astcredit.cli.output import Cell, Column, Kind, Output, amount, flag, instant, number, text
from astcredit.cli.parameters import WHEN
from astcredit.domain.instants import instant_text
from astcredit.domain.money import amount_text
from astcredit.service.errors import RefusedError

if TYPE_CHECKING:
    from astcredit.service.call_filters import CdrFilter
    from astcredit.service.reports import CdrRecord
    from astcredit.storage.database import Database

STATUSES = ("open", "answered", "completed", "failed", "denied")

COLUMNS = (
    text("id"),
    instant("date_created"),
    text("status"),
    text("client"),
    text("account"),
    text("accountcode"),
    text("callerid"),
    text("dialednum"),
    text("callednum"),
    text("prefix"),
    text("destination"),
    text("currency"),
    amount("rate"),
    amount("connect_fee"),
    number("first_increment"),
    number("next_increment"),
    number("grace_seconds"),
    amount("minimum_charge"),
    text("trunk"),
    text("denied"),
    text("reason"),
    text("dialstatus"),
    number("hangupcause"),
    instant("dialed_at"),
    instant("answered_at"),
    instant("ended_at"),
    text("dialedtime"),
    text("answeredtime"),
    number("seconds"),
    number("billsec"),
    amount("price"),
    amount("ourcost"),
    amount("reservedamount"),
    number("overrun_ms"),
    text("settled_by"),
    flag("estimated"),
    text("note"),
    text("node"),
    text("channel"),
    text("uniqueid"),
    text("linkedid"),
    text("leg_uniqueid"),
    text("reseller"),
    text("ani"),
    text("source"),
    text("ident_by"),
    text("tech_prefix"),
    text("routing_plan"),
    text("route_prefix"),
    text("terminator"),
    text("tried"),
    text("cost_prefix"),
    amount("cost_rate"),
    amount("cost_connect_fee"),
    number("cost_first_increment"),
    number("cost_next_increment"),
    number("cost_grace_seconds"),
    amount("cost_minimum_charge"),
    amount("corrected"),
    instant("corrected_at"),
    number("corrected_billsec"),
    text("corrected_answeredtime"),
    amount("corrected_ourcost"),
)
"""All columns, as in the view v_cdr, for programs."""

FOR_PEOPLE = (
    "id", "date_created", "client", "account", "callednum", "destination", "status", "denied",
    "dialstatus", "answeredtime", "billsec", "price", "currency", "estimated", "terminator",
    "ourcost",
)  # fmt: skip
"""The columns of a table in a terminal."""

_TIMES = frozenset({"dialedtime", "answeredtime", "corrected_answeredtime"})


def _filters(command: Callable[..., None]) -> Callable[..., None]:
    """The options that list and export share; the command gets them as `wanted`, a CdrFilter."""

    @wraps(command)
    def filtered(
        *arguments: object,
        client: str | None,
        account: str | None,
        reseller: str | None,
        terminator: str | None,
        from_ms: int | None,
        until_ms: int | None,
        status: str | None,
        **options: object,
    ) -> None:
        from astcredit.domain.states import CallState
        from astcredit.service.call_filters import CdrFilter

        if from_ms is not None and until_ms is not None and from_ms >= until_ms:
            raise click.UsageError("--from must be before --to")
        state = None if status is None else CallState(status)
        wanted = CdrFilter(client, from_ms, until_ms, state, account, reseller, terminator)
        command(*arguments, wanted=wanted, **options)

    for option in reversed(_FILTERS):
        filtered = option(filtered)
    return filtered


_FILTERS = (
    click.option("--client", metavar="NAME", help="Calls of this client."),
    click.option("--account", metavar="NAME", help="Calls that this account made."),
    click.option(
        "--reseller", metavar="NAME", help="Calls of clients that were this reseller's then."
    ),
    click.option(
        "--terminator",
        metavar="ACCOUNT",
        help="Calls that this account carried, or was the last one tried for.",
    ),
    click.option(
        "--from",
        "from_ms",
        type=WHEN,
        metavar="WHEN",
        help="Calls begun at this instant or later; a date, or date and time, UTC.",
    ),
    click.option(
        "--to",
        "until_ms",
        type=WHEN,
        metavar="WHEN",
        help="Calls begun before this instant: --to 2026-12-01 ends with November.",
    ),
    click.option("--status", type=click.Choice(STATUSES), help="Calls of this status."),
)


@click.group(cls=Group)
def cdr() -> None:
    """Call detail records: one for each call.

    Example: astcredit cdr list --client anna --from 2026-11-01 --to 2026-12-01
    """


@cdr.command("list")
@_filters
@click.option(
    "--limit", type=click.IntRange(min=1), default=100, show_default=True, help="At most so many."
)
@pass_app
def list_cdrs(app: App, wanted: CdrFilter, limit: int) -> None:
    """List CDRs, the newest first. JSON and CSV have all columns.

    Example: astcredit cdr list --client anna --status denied --limit 20
    """

    async def read(database: Database) -> Sequence[CdrRecord]:
        from astcredit.storage.reports import SqlReports

        await _require_named(database, wanted)
        return await SqlReports(database).newest_cdrs(wanted, limit)

    found = app.with_database(read)
    columns = _columns(FOR_PEOPLE) if app.format == "table" else COLUMNS
    app.output.rows(columns, (_cells(columns, record) for record in found))


@cdr.command("export")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), required=False)
@_filters
@click.option("--jsonl", is_flag=True, help="JSON lines; the same as --format json.")
@pass_app
def export(app: App, file: Path | None, wanted: CdrFilter, jsonl: bool) -> None:
    """Write all CDRs to FILE or to standard output, the oldest first, as CSV or JSON lines.

    They are those of one instant, however long it takes. FILE appears when it is complete. With
    --format json each line is one JSON object.

    Example: astcredit cdr export --from 2026-11-01 --to 2026-12-01 november.csv
    """

    async def write(database: Database) -> int:
        await _require_named(database, wanted)
        with _target(file) as stream:
            if jsonl or app.format == "json":
                return await _write_lines(database, wanted, stream)
            return await _write_rows(database, wanted, Output("csv", stream))

    rows = app.with_database(write)
    if file is not None:
        click.echo(f"{rows} CDRs written to {file}", err=True)


@cdr.command("show")
@click.argument("call_id", metavar="ID")
@pass_app
def show(app: App, call_id: str) -> None:
    """Show one CDR, how it was recognised and routed, and the sums that make price and cost.

    Example: astcredit cdr show 1HFNZ6Q1R5ABCDEFGHJK
    """

    async def read(database: Database) -> CdrRecord | None:
        from astcredit.storage.reports import SqlReports

        return await SqlReports(database).cdr(call_id)

    record = app.with_database(read)
    if record is None:
        raise RefusedError(f"there is no call {call_id!r}")
    _print_call(app.output, record)


def _print_call(output: Output, record: CdrRecord) -> None:
    from astcredit.service.cdr_explanation import explain_cdr

    steps = explain_cdr(record)
    cells = _cells(COLUMNS, record)
    if output.format != "table":
        output.item((*COLUMNS, text("explanation")), (*cells, "; ".join(steps)))
        return
    said = [pair for pair in zip(COLUMNS, cells, strict=True) if pair[1] not in (None, "")]
    output.item([column for column, _ in said], [cell for _, cell in said])
    output.line("")
    for step in steps:
        output.line(step)


async def _require_named(database: Database, wanted: CdrFilter) -> None:
    from astcredit.service.call_filters import require_named
    from astcredit.storage.administration import SqlAdministration

    await require_named(SqlAdministration(database), wanted.named)


def _columns(names: Sequence[str]) -> tuple[Column, ...]:
    by_name = {column.name: column for column in COLUMNS}
    return tuple(by_name[name] for name in names)


def _cells(columns: Sequence[Column], record: CdrRecord) -> list[Cell]:
    from astcredit.storage.column_types import seconds_text

    cells: list[Cell] = []
    for column in columns:
        cell = getattr(record, column.name)
        cells.append(seconds_text(cell) if column.name in _TIMES and cell is not None else cell)
    return cells


@contextmanager
def _target(file: Path | None) -> Iterator[TextIO]:
    """Where an export goes. A file is complete or not there: half a month looks like a whole."""
    if file is None:
        yield sys.stdout
        return
    file = file.resolve()
    if file.exists() and not file.is_file():  # a pipe or a device
        with file.open("w", encoding="utf-8", newline="") as stream:
            yield stream
        return
    part = file.with_name(f"{file.name}.part")
    try:
        with part.open("w", encoding="utf-8", newline="") as stream:
            yield stream
        os.replace(part, file)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


async def _write_rows(database: Database, wanted: CdrFilter, output: Output) -> int:
    with output.writer(COLUMNS) as write:
        return await _each(database, wanted, lambda record: write(_cells(COLUMNS, record)))


async def _write_lines(database: Database, wanted: CdrFilter, stream: TextIO) -> int:
    def write(record: CdrRecord) -> None:
        cells = zip(COLUMNS, _cells(COLUMNS, record), strict=True)
        shown = {column.name: _json_value(column, cell) for column, cell in cells}
        stream.write(json.dumps(shown) + "\n")

    return await _each(database, wanted, write)


async def _each(database: Database, wanted: CdrFilter, write: Callable[[CdrRecord], None]) -> int:
    """Hand all CDRs to `write`; how many there were."""
    from astcredit.storage.reports import SqlReports

    rows = 0
    async with aclosing(SqlReports(database).all_cdrs(wanted)) as records:
        async for record in records:
            write(record)
            rows += 1
    return rows


def _json_value(column: Column, cell: Cell) -> Cell:
    """A cell as the other JSON outputs have it."""
    if cell is None or column.kind in (Kind.TEXT, Kind.NUMBER, Kind.FLAG):
        return cell
    return amount_text(int(cell)) if column.kind is Kind.AMOUNT else instant_text(int(cell))
