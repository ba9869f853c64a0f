"""Texts under fire: what is sent to Asterisk as variables and to the database in statements, and
Asterisk's own call records."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator
from typing import Final
from zoneinfo import ZoneInfo

from astcredit.asterisk.cdr_csv import MOST_ERRORS, Read, read_records
from astcredit.asterisk.variables import (
    MOST_EXACT,
    MOST_NUMBER,
    MOST_TEXT,
    UnsafeValue,
    clean_number,
    clean_text,
    exact,
    mset_commands,
    split_values,
)
from astcredit.domain.witness import AsteriskRecord
from astcredit.storage.wire import literals
from fuzz.pieces import demand, inflated
from support.agi_fakes import FakeChannel

UNREADABLE: Final = frozenset("\"\\$`{},'()[]|;&<>~^\r\n\0")
"""What Asterisk could read as anything but text, in a variable or where a dialplan puts it."""

ZONES: Final = tuple(
    map(ZoneInfo, ("UTC", "Europe/Berlin", "America/New_York", "Pacific/Apia", "Asia/Kolkata"))
)

GOOD_RECORD: Final = (
    '"acme","1","2","ctx","c","PJSIP/a-1","PJSIP/b-1","Dial","x","2026-11-21 22:10:54",'
    '"2026-11-21 22:10:54","2026-11-21 22:10:57",3,3,"ANSWERED","DOCUMENTATION","17.4711",""\r\n'
)


def variables(data: bytes) -> None:
    """A cleaned text is harmless; what is set is what Asterisk gets, or is refused."""
    text = inflated(data).decode("utf-8", "backslashreplace")
    _check_cleaned(clean_text(text), MOST_TEXT)
    _check_cleaned(clean_number(text), MOST_NUMBER)
    demand(clean_text(clean_text(text)) == clean_text(text), "a clean text is cleaned again")
    demand(clean_number(clean_number(text)) == clean_number(text), "and a clean number")
    demand(clean_number(text).isascii(), "a number with letters of any kind")
    _check_sent({"AC_REASON": clean_text(text), "AC_CALLERID": clean_number(text)}, may=False)
    _check_sent({"AC_A": text, "AC_B": "b"}, may=True)
    _check_exact(text)
    values = split_values(text, 3)
    demand(values is None or "|".join(values) == text, "a value that was not there")


def _check_cleaned(text: str, most: int) -> None:
    demand(len(text) <= most, "too long")
    demand(text.isprintable(), "a control character")
    demand(not UNREADABLE & set(text), "a character that means something to Asterisk")


def _check_exact(text: str) -> None:
    try:
        value = exact("AC_DIAL", text)
    except UnsafeValue as error:
        demand(str(error).isprintable(), "control characters in an error's text")
        return
    demand(value == text and len(value) <= MOST_EXACT, "exact, and something else")
    _check_sent({"AC_DIAL": value, "AC_B": "b"}, may=False)


def _check_sent(values: dict[str, str], *, may: bool) -> None:
    """An Asterisk that is told the values has them, and no others; they `may` be refused."""
    channel = FakeChannel()
    before = dict(channel.variables)
    try:
        for command in list(mset_commands(values)):
            demand("\n" not in command, "two commands in one")
            channel.answer(command)
    except UnsafeValue as error:
        demand(may, f"refused: {error}")
        demand(str(error).isprintable(), "control characters in an error's text")
        return
    demand(channel.variables == {**before, **values}, f"{values} became {channel.variables}")


def sql_literal(data: bytes) -> None:
    """A text in a statement is one text, the same, whatever it says; the statement goes on behind
    it."""
    text = inflated(data).decode("utf-8", "backslashreplace")
    statement = f"{literals([text])[0]};SELECT 1"
    value, rest = _read_literal(statement)
    demand(value == text, f"{text!r} became {value!r}")
    demand(rest == ";SELECT 1", f"the text goes on with {rest[:40]!r}, or ends before")
    statement.encode()


_ESCAPES: Final = {"0": "\0", "b": "\b", "n": "\n", "r": "\r", "t": "\t", "Z": "\x1a"}
_PATTERN_SIGNS: Final = frozenset("%_")


def _read_literal(statement: str) -> tuple[str, str]:
    """A text as MariaDB reads it with backslash escapes on, and what stands behind it."""
    demand(statement.startswith("'"), "no text at all")
    value: list[str] = []
    at = 1
    while at < len(statement):
        sign, following = statement[at], statement[at + 1 : at + 2]
        if sign == "\\":
            keep = following in _PATTERN_SIGNS
            value.append(f"\\{following}" if keep else _ESCAPES.get(following, following))
            at += 2
        elif sign == "'" and following == "'":
            value.append("'")
            at += 2
        elif sign == "'":
            return "".join(value), statement[at + 1 :]
        else:
            value.append(sign)
            at += 1
    return "".join(value), "no end"


class _Every(Collection[str]):
    """All names."""

    def __contains__(self, _: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def call_records(data: bytes) -> None:
    """A file of call records: each line is a record or a bad line, and a record that stands on a
    line of its own is found whatever stands before. The first byte chooses the time zone."""
    zone = ZONES[data[0] % len(ZONES)] if data else ZONES[0]
    text = inflated(data[1:]).decode("utf-8", "surrogateescape")
    records, read = _read(text, zone)
    _check_records(records, read, len(text.splitlines()) + text.count("\r") + 1)
    followed, _ = _read(f"{text}\n{GOOD_RECORD}", zone)
    found = [record.uniqueid for record in followed[-1:]]
    demand(found == ["17.4711"], "a good record is swallowed by what stands before it")


def _read(text: str, zone: ZoneInfo) -> tuple[list[AsteriskRecord], Read]:
    read = Read()
    return list(read_records(io.StringIO(text, newline=""), zone, _Every(), read)), read


def _check_records(records: list[AsteriskRecord], read: Read, lines: int) -> None:
    demand(read.records == len(records), "a record that is not counted")
    demand(read.records + read.bad_lines <= lines, "more records than lines")
    demand(len(read.errors) == min(read.bad_lines, MOST_ERRORS), "errors without a bound")
    for record in records:
        demand(record.talk_ms >= 0 and record.later_ms >= 0, f"a time that runs back: {record}")
    for error in read.errors:
        demand(str(error).isprintable(), "control characters in an error's text")
