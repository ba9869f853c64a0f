"""Rate decks: the CSV files in which carriers send their rates.

A header line names the columns, in any order; `prefix` and `rate_per_minute` must be there. An
optional column that is missing, or empty in a line, means its default: no fee, increments 1/1 (also
next_increment when only first_increment is given: 60 does not say whether 60/60 or 60/1 was
meant), no grace, no minimum, effective from the instant that the importer names.

All errors of a file are collected before it is refused, so that it can be mended in one go.
"""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from types import MappingProxyType
from typing import Final

from astcredit.domain.instants import INSTANT_EXPECTED, instant_text, parse_instant
from astcredit.domain.money import PRICE_EXPECTED, Micros, amount_text, parse_price, short_text
from astcredit.domain.rating import PREFIX_EXPECTED, RANGES, Rate, is_prefix
from astcredit.domain.text import printable

MOST_ERRORS: Final = 100
"""Errors after which reading stops: more say only that this is another kind of file."""

MOST_DESTINATION: Final = 120
"""Characters of a destination's name: what the column holds."""

COLUMNS: Final = (
    "prefix",
    "destination",
    "rate_per_minute",
    "connect_fee",
    "first_increment",
    "next_increment",
    "grace_seconds",
    "minimum_charge",
    "effective_from",
)
"""The columns of a deck, in the order in which `write_deck` writes them."""

REQUIRED_COLUMNS: Final = ("prefix", "rate_per_minute")

MOST_REMEMBERED: Final = 8192
"""Cells of a column whose value is remembered: prices repeat, and reading one is the main work."""

_BYTE_ORDER_MARK: Final = "\ufeff"


@dataclass(frozen=True, slots=True)
class DeckError:
    """One thing wrong in a deck. Lines count from 1, the header; `column` is empty when the fault
    is the whole line's. `value` is as it stands in the file: show it through `str` of this."""

    line: int
    column: str
    value: str
    expected: str

    def __str__(self) -> str:
        column = f", column {self.column}" if self.column else ""
        return f"line {self.line}{column}: {printable(self.value)}: expected {self.expected}"


class DeckErrors(ValueError):  # noqa: N818 - it carries many errors
    """A deck that is refused, with everything that is wrong in it, in the order of its lines.

    `more` is true when reading stopped at `MOST_ERRORS`.
    """

    def __init__(self, errors: Iterable[DeckError], more: bool = False) -> None:
        self.errors: Final = tuple(errors)
        self.more: Final = more
        super().__init__("\n".join(map(str, self.errors)))


def parse_deck(lines: Iterable[str], default_effective_ms: int) -> Iterator[Rate]:
    """The rates of a deck, in the order of its lines, one at a time.

    `lines` is the file, opened with `newline=""` and `errors="surrogateescape"` (so that text which
    is not UTF-8 becomes an error with a line). Spaces around cells and blank lines are ignored.
    Raises DeckErrors, at the end or after a hundred errors: what came before is to be thrown away.
    After the first error no rate comes any more. The prefixes are kept in memory to find doubles.
    """
    errors = _Errors()
    records = _records(lines, errors)
    columns = _read_header(records, errors)
    doubles = _Doubles()
    for line, cells in records:
        rate = _read_rate(columns, line, cells, default_effective_ms, errors)
        if rate is not None:
            doubles.check(rate, line, errors)
            if not errors.found:
                yield rate
    errors.raise_if_any()


def write_deck(rates: Iterable[Rate]) -> Iterator[str]:
    """The lines of a deck that `parse_deck` reads as these same rates, line ends included."""
    writer = csv.writer(_Echo(), lineterminator="\n")
    yield writer.writerow(COLUMNS)
    for rate in rates:
        yield writer.writerow(
            (
                rate.prefix,
                rate.destination,
                amount_text(rate.rate_per_minute),
                amount_text(rate.connect_fee),
                rate.first_increment,
                rate.next_increment,
                rate.grace_seconds,
                amount_text(rate.minimum_charge),
                instant_text(rate.effective_from_ms),
            )
        )


class _Echo:
    """The file that csv.writer wants: hands each line back to whoever wrote it."""

    def write(self, line: str) -> str:
        return line


class _Errors:
    """The errors found so far."""

    def __init__(self) -> None:
        self.found: list[DeckError] = []

    def add(self, line: int, column: str, value: str, expected: str) -> None:
        """Note an error. Raises DeckErrors when there are enough of them."""
        if len(self.found) == MOST_ERRORS:
            raise DeckErrors(self.found, more=True)
        self.found.append(DeckError(line, column, value, expected))

    def raise_if_any(self) -> None:
        if self.found:
            raise DeckErrors(self.found)


class _Doubles:
    """The line of every prefix and instant, kept as integers: a deck can hold a million."""

    def __init__(self) -> None:
        self._lines: dict[int, dict[int, int]] = {}

    def check(self, rate: Rate, line: int, errors: _Errors) -> None:
        """Note an error when an earlier line has the prefix and the instant of `rate`."""
        lines = self._lines.setdefault(rate.effective_from_ms, {})
        first = lines.setdefault(int(f"1{rate.prefix}"), line)
        if first != line:
            instant = instant_text(rate.effective_from_ms)
            expected = f"one rate effective from {instant}, line {first} has another"
            errors.add(line, "prefix", rate.prefix, expected)


def _records(lines: Iterable[str], errors: _Errors) -> Iterator[tuple[int, list[str]]]:
    """Line number and stripped cells of each line that is not blank."""
    reader = csv.reader(_without_mark(lines), strict=True)
    while True:
        try:
            cells = [cell.strip() for cell in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            errors.add(reader.line_num, "", str(error), "cells that are quoted as in CSV files")
            continue
        if any(cells):
            yield reader.line_num, cells


def _without_mark(lines: Iterable[str]) -> Iterator[str]:
    source = iter(lines)
    first = next(source, "")
    return chain((first.removeprefix(_BYTE_ORDER_MARK),), source)


def _read_header(records: Iterator[tuple[int, list[str]]], errors: _Errors) -> list[str]:
    """The columns that the header line names. Raises DeckErrors when they are not acceptable:
    without them no other line means anything."""
    line, cells = next(records, (1, []))
    columns = [cell.lower() for cell in cells]
    for index, column in enumerate(columns):
        if column not in COLUMNS:
            errors.add(line, "", column, f"a header line with columns of {', '.join(COLUMNS)}")
        elif column in columns[:index]:
            errors.add(line, column, column, "each column once")
    for column in REQUIRED_COLUMNS:
        if column not in columns:
            errors.add(line, column, "", "this column in the header line")
    errors.raise_if_any()
    return columns


def _read_rate(
    columns: list[str], line: int, cells: list[str], default_effective_ms: int, errors: _Errors
) -> Rate | None:
    """The rate of one line; None, and its errors noted, when there are any."""
    if len(cells) != len(columns):
        errors.add(line, "", f"{len(cells)} cells", f"{len(columns)}, as in the header line")
        return None
    before = len(errors.found)
    texts = {"prefix": "", "destination": ""}
    numbers = {"effective_from": default_effective_ms}
    for column, cell in zip(columns, cells, strict=True):
        if cell == "" and column not in REQUIRED_COLUMNS:
            continue
        try:
            if column in _TEXTS:
                texts[column] = _TEXTS[column](cell)
            else:
                numbers[column] = _NUMBERS[column](cell)
        except ValueError:
            errors.add(line, column, cell, _EXPECTED[column])
    if len(errors.found) > before:
        return None
    effective_from_ms = numbers.pop("effective_from")
    return Rate(
        prefix=texts["prefix"],
        destination=texts["destination"],
        effective_from_ms=effective_from_ms,
        **numbers,
    )


def _parse_prefix(cell: str) -> str:
    prefix = cell.removeprefix("+")
    if not is_prefix(prefix):
        raise ValueError
    return prefix


def _parse_destination(cell: str) -> str:
    if len(cell) > MOST_DESTINATION or not (cell.isprintable() or all(map(_is_visible, cell))):
        raise ValueError
    return cell


def _is_visible(character: str) -> bool:
    """False for controls, direction marks, line ends and bytes that are not UTF-8."""
    category = unicodedata.category(character)
    return not category.startswith("C") and category not in ("Zl", "Zp")


def _amount_in_range(field: str) -> Callable[[str], int]:
    _, most = RANGES[field]

    @lru_cache(MOST_REMEMBERED)
    def parse(cell: str) -> Micros:
        amount = parse_price(cell)
        if amount > most:
            raise ValueError
        return amount

    return parse


def _integer_in_range(field: str) -> Callable[[str], int]:
    least, most = RANGES[field]

    @lru_cache(MOST_REMEMBERED)
    def parse(cell: str) -> int:
        if not (cell.isascii() and cell.isdigit() and least <= int(cell) <= most):
            raise ValueError
        return int(cell)

    return parse


_AMOUNTS: Final = ("rate_per_minute", "connect_fee", "minimum_charge")
_SECONDS: Final = ("first_increment", "next_increment", "grace_seconds")

# How each column is read, by its name. ValueError means that the cell is not as _EXPECTED says.
_TEXTS: Final[Mapping[str, Callable[[str], str]]] = MappingProxyType(
    {"prefix": _parse_prefix, "destination": _parse_destination}
)
_NUMBERS: Final[Mapping[str, Callable[[str], int]]] = MappingProxyType(
    {
        **{column: _amount_in_range(column) for column in _AMOUNTS},
        **{column: _integer_in_range(column) for column in _SECONDS},
        "effective_from": lru_cache(MOST_REMEMBERED)(parse_instant),
    }
)
_EXPECTED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "prefix": PREFIX_EXPECTED,
        "destination": f"at most {MOST_DESTINATION} characters, UTF-8 without control characters",
        **{
            column: f"{PRICE_EXPECTED}, at most {short_text(RANGES[column][1])}"
            for column in _AMOUNTS
        },
        **{
            column: f"whole seconds from {RANGES[column][0]} to {RANGES[column][1]}"
            for column in _SECONDS
        },
        "effective_from": INSTANT_EXPECTED,
    }
)
