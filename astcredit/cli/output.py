"""Printing rows: tables for people, JSON and CSV for programs, all from one description.

| a cell is | table | json | csv |
| --- | --- | --- | --- |
| an amount | at least two decimals | text, six decimals | six decimals |
| an instant (UTC) | 2026-11-21 20:00:00.000 | the same | the same |
| yes or no | yes, no | true, false | true, false |
| not there | - | null | empty |

Texts may come from a call. Control characters in them are escaped, as \\x1b or \\n: a terminal is
not moved by them, and a line of a table or of CSV stays one. A spreadsheet never gets a text that
it would take for a formula: in CSV one that begins with = + - or @, and is no plain number, is
written with a ' before it. JSON holds every text exactly, in JSON's own escapes.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Literal, TextIO, TypeAlias

from astcredit.domain.instants import instant_text
from astcredit.domain.money import amount_text, short_text

Cell: TypeAlias = str | int | bool | None
"""Amounts are micros, instants milliseconds; the column says which."""

FORMATS = ("table", "json", "csv")

BETWEEN_COLUMNS = "  "

# To fold cells takes a millisecond for each row; a table that is not on a terminal has one line for
# each row anyhow, however long.
MOST_FOLDED = 2_000

ABSENT = "-"
_FORMULA = ("=", "+", "-", "@")
_PLAIN_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?", re.ASCII)


class Kind(Enum):
    """What the cells of a column are."""

    TEXT = "text"
    NUMBER = "number"
    AMOUNT = "amount"
    INSTANT = "instant"
    FLAG = "flag"


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its name, as in the tables of the database, and what its cells are."""

    name: str
    kind: Kind = Kind.TEXT


def text(name: str) -> Column:
    """A column of texts."""
    return Column(name)


def number(name: str) -> Column:
    """A column of whole numbers."""
    return Column(name, Kind.NUMBER)


def amount(name: str) -> Column:
    """A column of amounts of money, in micros."""
    return Column(name, Kind.AMOUNT)


def instant(name: str) -> Column:
    """A column of instants, in milliseconds since 1970 UTC."""
    return Column(name, Kind.INSTANT)


def flag(name: str) -> Column:
    """A column of yes and no."""
    return Column(name, Kind.FLAG)


class Output:
    """Where a command prints its result, in the format that was asked for."""

    def __init__(self, format: str = "table", stream: TextIO | None = None) -> None:
        self.format = format
        self._stream = stream

    @property
    def stream(self) -> TextIO:
        return self._stream or sys.stdout

    @contextmanager
    def writer(self, columns: Sequence[Column]) -> Iterator[Callable[[Sequence[Cell]], None]]:
        """Print a listing row by row: `with output.writer(columns) as write: write(row)`.

        JSON and CSV are printed as the rows come; a table when the last one is there, because
        its columns are as wide as their widest cell.
        """
        kinds = {"json": self._json_rows, "csv": self._csv_rows, "table": self._table_rows}
        with kinds[self.format](columns) as write:
            yield write

    def rows(self, columns: Sequence[Column], rows: Iterable[Sequence[Cell]]) -> None:
        """Print a listing."""
        with self.writer(columns) as write:
            for row in rows:
                write(row)

    def item(self, columns: Sequence[Column], row: Sequence[Cell]) -> None:
        """Print one object: name and value in lines, a JSON object, or CSV with its header."""
        if self.format == "csv":
            self.rows(columns, [row])
        elif self.format == "json":
            self.document(_json_object(columns, row))
        else:
            shown = (
                (column.name, _table_cell(column, cell)) for column, cell in _pairs(columns, row)
            )
            self._print_table([Column(""), Column("")], list(shown), header=False)

    def done(self, message: str, columns: Sequence[Column], row: Sequence[Cell]) -> None:
        """Say that a change was made: the message for people, the row for programs."""
        if self.format == "table":
            self.line(message)
        else:
            self.item(columns, row)

    def line(self, message: str) -> None:
        """Print a line for people, control characters escaped."""
        print(visible(message), file=self.stream)

    def document(self, document: Mapping[str, object]) -> None:
        """Print a JSON object."""
        print(json.dumps(document, indent=2), file=self.stream)

    @staticmethod
    def objects(
        columns: Sequence[Column], rows: Iterable[Sequence[Cell]]
    ) -> list[dict[str, object]]:
        """Rows as a part of a `document`."""
        return [_json_object(columns, row) for row in rows]

    @contextmanager
    def _json_rows(self, columns: Sequence[Column]) -> Iterator[Callable[[Sequence[Cell]], None]]:
        before = "[\n  "

        def write(row: Sequence[Cell]) -> None:
            nonlocal before
            self.stream.write(before + json.dumps(_json_object(columns, row)))
            before = ",\n  "

        yield write
        self.stream.write("[]\n" if before.startswith("[") else "\n]\n")

    @contextmanager
    def _csv_rows(self, columns: Sequence[Column]) -> Iterator[Callable[[Sequence[Cell]], None]]:
        lines = csv.writer(self.stream, lineterminator="\n")
        lines.writerow([column.name for column in columns])
        yield lambda row: lines.writerow([_csv_cell(*pair) for pair in _pairs(columns, row)])

    @contextmanager
    def _table_rows(self, columns: Sequence[Column]) -> Iterator[Callable[[Sequence[Cell]], None]]:
        rows: list[list[str]] = []
        yield lambda row: rows.append([_table_cell(*pair) for pair in _pairs(columns, row)])
        self._print_table(columns, rows)

    def _print_table(
        self, columns: Sequence[Column], rows: Sequence[Sequence[str]], header: bool = True
    ) -> None:
        """Columns side by side; nothing is ever cut off. On a terminal long cells are folded, but
        for a listing of thousands of rows, which nobody reads there."""
        if self.stream.isatty() and len(rows) <= MOST_FOLDED:
            self._print_folded(columns, rows, header)
        else:
            names = [[column.name for column in columns]] if header else []
            self.stream.writelines(_plain_lines(columns, [*names, *rows]))

    def _print_folded(
        self, columns: Sequence[Column], rows: Sequence[Sequence[str]], header: bool
    ) -> None:
        # Loaded here because a call's process, which prints no table, would wait for it.
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        console = Console(file=self.stream, markup=False, highlight=False, emoji=False)
        table = Table(box=None, show_header=header, pad_edge=False, header_style="bold")
        for column in columns:
            justify: Literal["left", "right"] = "right" if _is_right(column) else "left"
            table.add_column(column.name, justify=justify, overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row))
        console.print(table)


def _is_right(column: Column) -> bool:
    return column.kind in (Kind.NUMBER, Kind.AMOUNT)


def _plain_lines(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A line for each row, its cells padded to the widest of their column."""
    widths = [max(map(_width, cells), default=0) for cells in zip(*rows, strict=True)]
    right = [_is_right(column) for column in columns]
    for row in rows:
        cells = []
        for cell, width, is_right in zip(row, widths, right, strict=True):
            space = " " * (width - _width(cell))
            cells.append(space + cell if is_right else cell + space)
        yield f"{BETWEEN_COLUMNS.join(cells).rstrip()}\n"


def _width(text: str) -> int:
    """How many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def visible(text: str) -> str:
    """`text` with whatever could move a cursor, end a line or hide text escaped as \\x1b."""
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable()
        else character.encode("unicode_escape", "surrogatepass").decode("ascii")
        for character in text
    )


def spreadsheet_safe(text: str) -> str:
    """`text` as a CSV cell of one line that no spreadsheet takes for a formula."""
    shown = visible(text)
    if shown.startswith(_FORMULA) and _PLAIN_NUMBER.fullmatch(shown) is None:
        return f"'{shown}"
    return shown


def _pairs(columns: Sequence[Column], row: Sequence[Cell]) -> Iterable[tuple[Column, Cell]]:
    return zip(columns, row, strict=True)


def _json_object(columns: Sequence[Column], row: Sequence[Cell]) -> dict[str, object]:
    return {column.name: _json_cell(column, cell) for column, cell in _pairs(columns, row)}


def _json_cell(column: Column, cell: Cell) -> str | int | bool | None:
    if cell is None:
        return None
    match column.kind:
        case Kind.AMOUNT:
            return amount_text(int(cell))
        case Kind.INSTANT:
            return instant_text(int(cell))
        case Kind.FLAG:
            return bool(cell)
        case Kind.NUMBER:
            return int(cell)
        case Kind.TEXT:
            return str(cell)


def _csv_cell(column: Column, cell: Cell) -> str | int:
    value = _json_cell(column, cell)
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return spreadsheet_safe(value) if isinstance(value, str) else value


def _table_cell(column: Column, cell: Cell) -> str:
    if cell is None:
        return ABSENT
    if column.kind is Kind.AMOUNT:
        return short_text(int(cell))
    if column.kind is Kind.FLAG:
        return "yes" if cell else "no"
    return visible(str(_json_cell(column, cell)))
