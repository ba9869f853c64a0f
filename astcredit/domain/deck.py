"""Rate decks: the CSV files in which carriers send their rates.

A header line names the columns, in any order; `prefix` and `rate_per_minute` must be there. An
optional column that is missing, or empty in a line, means its default: no fee, increments 1/1 (also
next_increment when only first_increment is given: 60 does not say whether 60/60 or 60/1 was
meant), no grace, no minimum, effective from the instant that the importer names.

All errors of a file are collected before it is refused, so that it can be mended in one go.

A deck can hold a million rates. It is read some thousand lines at a time, column by column; only
where that meets anything that is not as it should be, cell by cell.
"""

from __future__ import annotations

import csv
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice, repeat
from types import MappingProxyType
from typing import Final, TypeAlias

from astcredit.domain.instants import INSTANT_EXPECTED, instant_text, parse_instant
from astcredit.domain.money import PRICE_EXPECTED, Micros, amount_text, parse_price, short_text
from astcredit.domain.rate_columns import RateColumns, are_prefixes, shared
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

PORTION_LINES: Final = 2_000
"""Lines that are read at a time: enough that what is done once for all of them takes no time."""

MOST_REMEMBERED: Final = 65_536
"""Cells of a column whose value is remembered: prices repeat, and reading one is the main work."""

_BYTE_ORDER_MARK: Final = "\ufeff"


_Record: TypeAlias = tuple[int, list[str] | str]
"""Line number and cells of a line; in place of cells that cannot be told apart, the reason."""


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
    """The rates of a deck, one at a time; see `read_deck`."""
    for columns in read_deck(lines, default_effective_ms):
        yield from columns.rates()


def read_deck(lines: Iterable[str], default_effective_ms: int) -> Iterator[RateColumns]:
    """The rates of a deck in portions, in the order of its lines.

    `lines` is the file, opened with `newline=""` and `errors="surrogateescape"` (so that text which
    is not UTF-8 becomes an error with a line). Spaces around cells and blank lines are ignored.
    Raises DeckErrors, at the end or after a hundred errors: what came before is of no use.
    After the first error none comes any more. The prefixes are kept in memory to find doubles.
    """
    errors = _Errors()
    records = _records(lines)
    columns = _read_header(records, errors)
    doubles = _Doubles()
    while portion := list(islice(records, PORTION_LINES)):
        rates = _read_portion(columns, portion, default_effective_ms)
        if rates is not None:
            doubles.check(rates, [line for line, _ in portion], errors)
        else:
            rates = _read_each(columns, portion, default_effective_ms, doubles, errors)
        if rates and not errors.found:
            yield rates
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
    """The line of every prefix and instant: a deck can hold a million."""

    def __init__(self) -> None:
        self._lines: defaultdict[int, dict[str, int]] = defaultdict(dict)

    def check(self, rates: RateColumns, lines: Sequence[int], errors: _Errors) -> None:
        """Note an error for each of some rates, which stand in `lines`, of which an earlier line
        has prefix and instant."""
        known = self._lines
        for prefix, begin, line in zip(rates.prefixes, rates.begins(), lines, strict=True):
            first = known[begin].setdefault(prefix, line)
            if first != line:
                expected = (
                    f"one rate effective from {instant_text(begin)}, line {first} has another"
                )
                errors.add(line, "prefix", prefix, expected)


def _records(lines: Iterable[str]) -> Iterator[_Record]:
    """Line number and stripped cells of each line that is not blank."""
    reader = csv.reader(_without_mark(lines), strict=True)
    while True:
        try:
            for row in reader:
                cells = list(map(str.strip, row))
                if any(cells):
                    yield reader.line_num, cells
        except csv.Error as error:
            yield reader.line_num, str(error)
        else:
            return


def _without_mark(lines: Iterable[str]) -> Iterator[str]:
    source = iter(lines)
    first = next(source, "")
    return chain((first.removeprefix(_BYTE_ORDER_MARK),), source)


def _read_header(records: Iterator[_Record], errors: _Errors) -> list[str]:
    """The columns that the header line names. Raises DeckErrors when they are not acceptable:
    without them no other line means anything."""
    line, cells = next(records, (1, []))
    if isinstance(cells, str):
        errors.add(line, "", cells, _CELLS_EXPECTED)
        return _read_header(records, errors)
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


def _read_portion(
    columns: Sequence[str], portion: Sequence[_Record], default_effective_ms: int
) -> RateColumns | None:
    """The rates of some lines, column by column; None if anything in them is wrong."""
    rows = [cells for _, cells in portion]
    if set(map(type, rows)) != {list} or set(map(len, rows)) != {len(columns)}:
        return None
    texts: dict[str, tuple[str, ...]] = dict(zip(columns, zip(*rows, strict=True), strict=True))

    def read(column: str, default: int) -> Iterable[int]:
        if column not in texts:
            return repeat(default, len(portion))
        parse = _NUMBERS[column]
        return [parse(text) if text else default for text in texts[column]]

    prefixes = [text.removeprefix("+") for text in texts["prefix"]]
    if not are_prefixes(prefixes):
        return None
    try:
        return RateColumns(
            prefixes,
            list(map(_parse_destination, texts.get("destination", repeat("", len(portion))))),
            list(map(_NUMBERS["rate_per_minute"], texts["rate_per_minute"])),
            shared(
                zip(
                    *(read(column, default) for column, default in _DEFAULTS.items()),
                    read("effective_from", default_effective_ms),
                    repeat(None, len(portion)),
                    strict=True,
                )
            ),
        )
    except ValueError:
        return None


def _read_each(
    columns: Sequence[str],
    portion: Iterable[_Record],
    default_effective_ms: int,
    doubles: _Doubles,
    errors: _Errors,
) -> RateColumns:
    """The rates of those lines that have no errors; what is wrong with the others is noted."""
    found = []
    for record in portion:
        _note_errors(columns, record, errors)
        rates = _read_portion(columns, [record], default_effective_ms)
        if rates is not None:
            doubles.check(rates, [record[0]], errors)
            found.append(rates)
    return RateColumns.joined(found)


def _note_errors(columns: Sequence[str], record: _Record, errors: _Errors) -> None:
    """Note everything that is wrong with a line."""
    line, cells = record
    if isinstance(cells, str):
        errors.add(line, "", cells, _CELLS_EXPECTED)
    elif len(cells) != len(columns):
        errors.add(line, "", f"{len(cells)} cells", f"{len(columns)}, as in the header line")
    else:
        for column, cell in zip(columns, cells, strict=True):
            if cell == "" and column not in REQUIRED_COLUMNS:
                continue
            try:
                _PARSERS[column](cell)
            except ValueError:
                errors.add(line, column, cell, _EXPECTED[column])


def _parse_prefix(cell: str) -> str:
    prefix = cell.removeprefix("+")
    if not is_prefix(prefix):
        raise ValueError
    return prefix


@lru_cache(MOST_REMEMBERED)
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

_CELLS_EXPECTED: Final = "cells that are quoted as in CSV files"

_DEFAULTS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "connect_fee": 0,
        "first_increment": 1,
        "next_increment": 1,
        "grace_seconds": 0,
        "minimum_charge": 0,
    }
)
"""What an empty cell means; the columns in the order of `Terms`."""

# How each column is read, by its name. ValueError means that the cell is not as _EXPECTED says.
_NUMBERS: Final[Mapping[str, Callable[[str], int]]] = MappingProxyType(
    {
        **{column: _amount_in_range(column) for column in _AMOUNTS},
        **{column: _integer_in_range(column) for column in _SECONDS},
        "effective_from": lru_cache(MOST_REMEMBERED)(parse_instant),
    }
)
_PARSERS: Final[Mapping[str, Callable[[str], object]]] = MappingProxyType(
    {"prefix": _parse_prefix, "destination": _parse_destination, **_NUMBERS}
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
