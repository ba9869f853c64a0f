"""Accounts as CSV files: reading one, writing one.

A header line names the columns, in any order and as lists of accounts name them; `name` must be
there. A line is about the account of its name: one that is there is changed, else it is added. A
column that is missing leaves the setting of an account that is there as it is; an empty cell is
what an account has where nothing is said: no limit, no rate table of its own, not disabled. All
errors of a file are collected before it is refused.

A cell that a spreadsheet would take for a formula is written with a ' before it, which is taken off
again when it is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from astcredit.domain.accounts import IdentKind, Protocol, SourcePolicy
from astcredit.domain.deck import DeckError, DeckErrors
from astcredit.service.account_ports import COLUMNS, TERM_COLUMNS, Account
from astcredit.service.account_rules import AccountChange, TerminationChange
from astcredit.service.account_settings import (
    SEPARATOR,
    SettingError,
    checked_dids,
    checked_gateways,
    checked_host,
    checked_proxy,
    checked_routing_ip,
    checked_tech_prefix,
    checked_text,
    read_capacity,
    read_port,
)
from astcredit.service.catalog_rules import KEEP, Capacity
from astcredit.service.errors import RefusedError
from astcredit.service.history_ports import State
from astcredit.service.naming import MOST_NAME, MOST_NOTES, check_name
from astcredit.service.sheets import Faults, Line, read_sheet, write_sheet

T = TypeVar("T")

READ_COLUMNS: Final = ("id", *COLUMNS)
"""Lists have the id too. It may stand in a file, but it cannot be chosen."""

FLAG_EXPECTED: Final = "true or false"

_FLAGS: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_FORMULA: Final = re.compile(r"'*[=+\-@]")
_GUARDED: Final = re.compile(r"'+[=+\-@]")


@dataclass(frozen=True, slots=True)
class AccountLine:
    """One line of a file: which account it is about, and what its settings are to be.

    `client` and `id` are None where the file does not name them. `no_terminator`: the file says
    that the account has no terminator settings. `sound`: all cells could be read.
    """

    number: int
    name: str
    change: AccountChange
    client: str | None = None
    id: str | None = None
    no_terminator: bool = False
    sound: bool = True


@dataclass(frozen=True, slots=True)
class AccountSheet:
    """A file that was read, with what is wrong in single cells; nothing was looked up yet."""

    lines: Sequence[AccountLine]
    errors: Sequence[DeckError] = ()


def read_accounts(lines: Iterable[str]) -> AccountSheet:
    """Read a file, opened with `newline=""` and `errors="surrogateescape"`.

    Raises DeckErrors for a header that is none, and when there are so many errors that this is no
    such file.
    """
    faults = Faults()
    found: dict[str, AccountLine] = {}
    for line in read_sheet(lines, READ_COLUMNS, ("name",), faults):
        read = _read_line(line, faults)
        if not read.name:
            continue
        first = found.setdefault(read.name, read)
        if first is not read:
            expected = f"each account once, line {first.number} has it too"
            faults.add(line.number, "name", read.name, expected)
    try:
        faults.raise_if_any()
    except DeckErrors as errors:
        return AccountSheet(list(found.values()), errors.errors)
    return AccountSheet(list(found.values()))


def write_accounts(accounts: Iterable[Account]) -> Iterator[str]:
    """The lines of a file that `read_accounts` reads as these same accounts."""
    return write_sheet(COLUMNS, map(_cells, accounts))


def _cells(account: Account) -> list[str]:
    state = account.state()
    return [_guarded(account.name), *(_cell(state, column) for column in COLUMNS[1:])]


def _cell(state: State, column: str) -> str:
    value = state[column]
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case list():
            return _guarded(SEPARATOR.join(value))
        case _:
            return _guarded(str(value))


def _guarded(text: str) -> str:
    return f"'{text}" if _FORMULA.match(text) else text


class _Row:
    """The cells of a line; what is wrong in them is noted."""

    def __init__(self, line: Line, faults: Faults) -> None:
        self._line = line
        self._faults = faults
        self.sound = True

    def text(self, column: str) -> str | None:
        """What stands there; None if the file has no such column."""
        cell = self._line.cells.get(column)
        return cell[1:] if cell and _GUARDED.match(cell) else cell

    def read(self, column: str, parse: Callable[[str], T]) -> T | None:
        """What `parse` makes of the cell; None, too, if it cannot."""
        cell = self.text(column)
        if cell is None:
            return None
        try:
            return parse(cell)
        except SettingError as error:
            self._note(column, error.value, error.expected)
        except (ValueError, RefusedError) as error:
            self._note(column, cell, str(error).rpartition("expected ")[2])
        return None

    def number(self, column: str, parse: Callable[[str], int | None]) -> Capacity:
        """A capacity or a port; KEEP if the file has no such column."""
        if self.text(column) is None:
            return KEEP
        number: int | None = self.read(column, parse)
        return number

    def capacity(self, column: str) -> Capacity:
        return self.number(column, lambda cell: read_capacity(column, cell))

    def label(self, column: str) -> str | None:
        return self.read(column, lambda cell: checked_text(column, cell, MOST_NAME))

    def flag(self, column: str) -> bool | None:
        """Yes or no; an empty cell is yes: nothing is disabled unless it is said."""
        return self.read(column, lambda cell: _flag(cell or "true"))

    def says_none(self, columns: Iterable[str]) -> bool:
        """Whether the file has these columns and nothing stands in any of them."""
        return all(self.text(column) == "" for column in columns)

    def says_any(self, columns: Iterable[str]) -> bool:
        """Whether something stands in one of these columns."""
        return any(self.text(column) for column in columns)

    def _note(self, column: str, value: str, expected: str) -> None:
        self.sound = False
        self._faults.add(self._line.number, column, value, expected)


def _read_line(line: Line, faults: Faults) -> AccountLine:
    row = _Row(line, faults)
    name = row.read("name", lambda cell: check_name("account", cell)) or ""
    no_terminator = row.says_none(TERM_COLUMNS)
    change = _change(row)
    if not no_terminator:
        change = replace(change, termination=_termination(row))
    client, id = row.text("client"), row.text("id")
    return AccountLine(line.number, name, change, client, id or None, no_terminator, row.sound)


def _change(row: _Row) -> AccountChange:
    return AccountChange(
        # Which idents can be depends on their kind, which the file need not say.
        idents=row.read("ident", _items),
        rate_table=row.text("rate_table"),
        tag=row.label("tag"),
        notes=row.read("notes", lambda cell: checked_text("notes", cell, MOST_NOTES)),
        enabled=row.flag("enabled"),
        ident_by=row.read("ident_by", _ident_kind),
        tech_prefix=row.read("tech_prefix", checked_tech_prefix),
        gateways=row.read("gateways", lambda cell: checked_gateways(_items(cell))),
        routing_plan=row.text("routing_plan"),
        source_policy=row.read("src_policy", _source_policy),
        dids=row.read("dids", lambda cell: checked_dids(_items(cell))),
        orig_enabled=row.flag("orig_enabled"),
        orig_capacity=row.capacity("orig_capacity"),
    )


def _termination(row: _Row) -> TerminationChange:
    return TerminationChange(
        rate_table=row.text("term_rate_table"),
        tag=row.label("term_tag"),
        capacity=row.capacity("term_capacity"),
        # An empty cell of an account that has no terminator settings gives it none.
        protocol=row.read("protocol", _protocol) if row.says_any(TERM_COLUMNS[1:]) else None,
        host=row.read("host", checked_host),
        port=row.number("port", read_port),
        proxy=row.read("proxy", checked_proxy),
        routing_ip=row.read("routing_ip", checked_routing_ip),
        enabled=row.read("term_enabled", lambda cell: _flag(cell) if cell else None),
    )


def _items(cell: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in cell.split(SEPARATOR)) if cell else ()


def _flag(cell: str) -> bool:
    found = _FLAGS.get(cell.lower())
    if found is None:
        raise ValueError(f"expected {FLAG_EXPECTED}")
    return found


def _ident_kind(cell: str) -> IdentKind:
    return _choice(IdentKind, cell)


def _source_policy(cell: str) -> SourcePolicy:
    return _choice(SourcePolicy, cell or SourcePolicy.ALLOW_ANY)


def _protocol(cell: str) -> Protocol:
    return _choice(Protocol, cell or Protocol.PJSIP)


C = TypeVar("C", IdentKind, SourcePolicy, Protocol)


def _choice(kind: type[C], cell: str) -> C:
    try:
        return kind(cell)
    except ValueError:
        raise ValueError(f"expected one of {', '.join(kind)}") from None
