"""CSV files of settings: read wholly, or refused with everything that is wrong in them.

What a column may hold is the affair of who reads the file; here is what all of them have in common:
a header line that names the columns in any order, spaces around cells and blank lines that do not
matter, faults that name line and column.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

from astcredit.domain.deck import MOST_ERRORS, DeckError, DeckErrors

_BYTE_ORDER_MARK: Final = "\ufeff"


@dataclass(frozen=True, slots=True)
class Line:
    """A line that is not blank: its number, counted from 1, the header; its cells by column."""

    number: int
    cells: Mapping[str, str]


class Faults:
    """What was found wrong in a file so far."""

    def __init__(self) -> None:
        self._found: list[DeckError] = []

    def add(self, line: int, column: str, value: str, expected: str) -> None:
        """Note a fault; `column` is empty when it is the whole line's.

        Raises DeckErrors when there are so many that more say nothing.
        """
        if len(self._found) == MOST_ERRORS:
            raise DeckErrors(self._found, more=True)
        self._found.append(DeckError(line, column, value, expected))

    def raise_if_any(self) -> None:
        """Raise DeckErrors unless all was well."""
        if self._found:
            raise DeckErrors(self._found)


def read_sheet(
    lines: Iterable[str], columns: Collection[str], required: Sequence[str], faults: Faults
) -> Iterator[Line]:
    """The lines behind the header, one at a time; what is no line of the file is noted as a fault.

    `lines` is the file, opened with `newline=""`. Raises DeckErrors at once for a header that
    names other columns than `columns` or lacks one that is `required`: nothing means anything then.
    """
    records = _records(lines, faults)
    header = _read_header(records, columns, required, faults)
    for number, cells in records:
        if len(cells) == len(header):
            yield Line(number, dict(zip(header, cells, strict=True)))
        else:
            expected = f"{len(header)}, as in the header line"
            faults.add(number, "", f"{len(cells)} cells", expected)


def write_sheet(columns: Sequence[str], rows: Iterable[Sequence[str | int]]) -> Iterator[str]:
    """The lines of a file that `read_sheet` reads as these rows, line ends included."""
    writer = csv.writer(_Echo(), lineterminator="\n")
    for row in chain((columns,), rows):
        yield writer.writerow(row)


class _Echo:
    """The file that csv.writer wants: hands each line back to whoever wrote it."""

    def write(self, line: str) -> str:
        return line


def _records(lines: Iterable[str], faults: Faults) -> Iterator[tuple[int, list[str]]]:
    """Number and stripped cells of each line that is not blank."""
    source = iter(lines)
    first = next(source, "").removeprefix(_BYTE_ORDER_MARK)
    reader = csv.reader(chain((first,), source), strict=True)
    while True:
        try:
            cells = [cell.strip() for cell in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            faults.add(reader.line_num, "", str(error), "cells that are quoted as in CSV files")
            continue
        if any(cells):
            yield reader.line_num, cells


def _read_header(
    records: Iterator[tuple[int, list[str]]],
    columns: Collection[str],
    required: Sequence[str],
    faults: Faults,
) -> list[str]:
    number, cells = next(records, (1, []))
    header = [cell.lower() for cell in cells]
    for index, column in enumerate(header):
        if column not in columns:
            expected = f"a header line with columns of {', '.join(columns)}"
            faults.add(number, "", column, expected)
        elif column in header[:index]:
            faults.add(number, column, column, "each column once")
    for column in required:
        if column not in header:
            faults.add(number, column, "", "this column in the header line")
    faults.raise_if_any()
    return header
