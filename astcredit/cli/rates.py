"""`astcredit rates`: decks in, decks out, and what a number costs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

import click

from astcredit.cli.context import App, Group, pass_app
from astcredit.cli.desks import at_desks
from astcredit.cli.output import Cell, Column, amount, flag, instant, number, text
from astcredit.cli.parameters import WHEN
from astcredit.domain.instants import instant_text
from astcredit.service.errors import RefusedError
from astcredit.service.naming import shown_name

if TYPE_CHECKING:
    from astcredit.domain.deck import DeckErrors
    from astcredit.domain.rate_columns import RateColumns
    from astcredit.domain.ratetable import Candidate
    from astcredit.service.rate_desk import Imported

SHOWN_CHARACTERS = 100_000
"""Characters between two moves of the progress bar while a file is read: some thousand lines."""

IMPORTED: tuple[Column, ...] = (
    text("rate_table"),
    instant("effective"),
    number("added"),
    number("replaced"),
    number("ended"),
    number("removed"),
)

CANDIDATES: tuple[Column, ...] = (
    flag("applies"),
    text("prefix"),
    text("destination"),
    amount("rate_per_minute"),
    amount("connect_fee"),
    number("first_increment"),
    number("next_increment"),
    number("grace_seconds"),
    amount("minimum_charge"),
    instant("effective_from"),
    instant("effective_until"),
    text("why"),
)


@click.group(cls=Group)
def rates() -> None:
    """The rates of the rate tables.

    Example: astcredit rates import retail rates.csv
    """


@rates.command("import")
@click.argument("table")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option(
    "--effective",
    type=WHEN,
    help="When rates without effective_from begin, and when the old ones end.  [now]",
)
@click.option(
    "--replace",
    is_flag=True,
    help="The file is the whole table: rates that are not in it end, later ones are removed.",
)
@pass_app
def import_(app: App, table: str, file: str, effective: int | None, replace: bool) -> None:
    """Import rates from a CSV FILE (- for standard input), all of it or nothing.

    The first line names the columns: prefix and rate_per_minute, and if wanted destination,
    connect_fee, first_increment, next_increment, grace_seconds, minimum_charge, effective_from.
    A rate with the prefix and the beginning of one that is there takes its place.

    Example: astcredit rates import retail rates.csv --effective 2026-12-01 --replace
    """
    effective_ms = app.now_ms() if effective is None else effective
    deck = _read(file, effective_ms)
    source = os.path.basename(file)
    with _progress("writing", len(deck)) as progress:
        done = at_desks(
            app,
            lambda desks: desks.rates.import_deck(
                table, deck, effective_ms, replace=replace, source=source, progress=progress
            ),
        )
    app.output.done(_summary(done), IMPORTED, _imported_row(done))


@rates.command("lookup")
@click.argument("table")
@click.argument("number")
@click.option("--at", type=WHEN, help="For a call that begins then.  [now]")
@pass_app
def lookup(app: App, table: str, number: str, at: int | None) -> None:
    """Show which rate applies to NUMBER, dialled as callers do, and why the others do not.

    Example: astcredit rates lookup retail +442071234567
    """
    dialled = _normalised(app, number)
    at_ms = app.now_ms() if at is None else at
    found = at_desks(app, lambda desks: desks.rates.lookup(table, dialled, at_ms))
    if found.candidates:
        app.output.rows(CANDIDATES, map(_candidate_row, found.candidates))
    if found.chosen is None:
        raise RefusedError(
            f"rate table {shown_name(table)} has no rate for {dialled} at {instant_text(at_ms)}"
        )


# It prints a deck, which is CSV whatever --format says: so it has none of its own.
@rates.command("export", cls=click.Command)
@click.argument("table")
@click.argument("file", type=click.File("w", encoding="utf-8", atomic=True), default="-")
@click.option("--at", type=WHEN, help="The rates that are in force then.  [now]")
@pass_app
def export(app: App, table: str, file: TextIO, at: int | None) -> None:
    """Write the rates in force to FILE, as CSV that import reads.

    Example: astcredit rates export retail rates.csv
    """
    from astcredit.domain.deck import write_deck

    at_ms = app.now_ms() if at is None else at
    found = at_desks(app, lambda desks: desks.rates.export(table, at_ms))
    file.writelines(write_deck(found))


def _read(file: str, effective_ms: int) -> RateColumns:
    """The rates of a file. Every error is printed; raises RefusedError if there are any."""
    from astcredit.domain.deck import DeckErrors, read_deck
    from astcredit.domain.rate_columns import RateColumns

    name = "standard input" if file == "-" else file
    with _lines(file) as lines, _progress("reading", _size(file)) as progress:
        try:
            return RateColumns.joined(read_deck(_counted(lines, progress), effective_ms))
        except DeckErrors as errors:
            raise _refused(name, errors) from None


def _refused(name: str, errors: DeckErrors) -> RefusedError:
    for error in errors.errors:
        click.echo(str(error), err=True)
    count = f"{len(errors.errors)}{' or more' if errors.more else ''}"
    plural = "" if count == "1" else "s"
    return RefusedError(f"{name}: {count} error{plural}, nothing was imported")


@contextmanager
def _lines(file: str) -> Iterator[Iterable[str]]:
    """The lines of a file as the reader of decks wants them."""
    # Standard input is not closed: it is not ours.
    descriptor, ours = (sys.stdin.fileno(), False) if file == "-" else (file, True)
    with open(
        descriptor, encoding="utf-8", errors="surrogateescape", newline="", closefd=ours
    ) as lines:
        yield lines


def _size(file: str) -> int:
    return 0 if file == "-" else os.path.getsize(file)


def _counted(lines: Iterable[str], progress: Callable[[int], None]) -> Iterator[str]:
    done = shown = 0
    for line in lines:
        done += len(line)
        if done - shown >= SHOWN_CHARACTERS:
            shown = done
            progress(done)
        yield line


@contextmanager
def _progress(label: str, length: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr, if that is a terminal; it is told how much is done."""
    if length == 0 or not sys.stderr.isatty():
        yield lambda done: None
        return
    steps = max(1, length // 1000)
    with click.progressbar(
        length=length, label=label, file=sys.stderr, update_min_steps=steps
    ) as bar:
        last = 0

        def move(done: int) -> None:
            nonlocal last
            bar.update(done - last)
            last = done

        yield move


def _normalised(app: App, number: str) -> str:
    from astcredit.domain.numbers import InvalidNumber, Numbering

    numbers = app.settings.numbers
    numbering = Numbering(
        numbers.country_code, numbers.trunk_prefix, numbers.international_prefixes
    )
    try:
        return numbering.normalise(number)
    except InvalidNumber as error:
        raise RefusedError(str(error)) from None


def _summary(done: Imported) -> str:
    parts = [f"{done.added} added", f"{done.replaced} replaced", f"{done.ended} ended"]
    if done.removed:
        parts.append(f"{done.removed} that had not begun removed")
    effective = instant_text(done.effective_ms)
    return f"rate table {shown_name(done.table)}: {', '.join(parts)} (effective {effective})"


def _imported_row(done: Imported) -> tuple[Cell, ...]:
    return (done.table, done.effective_ms, done.added, done.replaced, done.ended, done.removed)


def _candidate_row(candidate: Candidate) -> tuple[Cell, ...]:
    rate = candidate.rate
    return (
        candidate.chosen,
        rate.prefix,
        rate.destination,
        rate.rate_per_minute,
        rate.connect_fee,
        rate.first_increment,
        rate.next_increment,
        rate.grace_seconds,
        rate.minimum_charge,
        rate.effective_from_ms,
        rate.effective_until_ms,
        candidate.why,
    )
