"""Logs as events: a constant message, and what it is about in fields.

    log.warning("AMI link lost", extra={"action": "ami_lost", "node": "pbx1", "seconds": 12})

comes out as text for people

    2025-11-21T20:15:12.123Z WARNING AMI link lost action=ami_lost node=pbx1 seconds=12

or as a JSON object a line. Fields may hold what a caller sent: whatever could move a terminal's
cursor, end a line or hide text is escaped, and a field has a largest size.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

MOST_FIELD_CHARACTERS = 500
"""Of one field: a caller id may have 10,000, and a log line is read by people."""

QUIET_LOGGERS = {
    "panoramisk": logging.WARNING,  # logs what it sends at DEBUG, the secret included
    "asyncio": logging.WARNING,
    "aiosqlite": logging.WARNING,
    "sqlalchemy": logging.WARNING,
}
"""Libraries that would say too much whatever level is set."""

_BARE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:/+*#@%,[]()")
_OWN_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def configure(level: str, format: str, stream: TextIO | None = None) -> None:
    """Send the events of the whole process to `stream` (default stderr).

    `level` is debug, info, warning or error; `format` is text or json. A second call replaces the
    first.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if format == "json" else TextFormatter())
    root = logging.getLogger()
    for old in list(root.handlers):
        if isinstance(old.formatter, TextFormatter | JsonFormatter):
            root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name, least in QUIET_LOGGERS.items():
        logging.getLogger(name).setLevel(max(least, root.level))
    # A full disk or a closed pipe under the log must not become noise on stderr.
    logging.raiseExceptions = False


class TextFormatter(logging.Formatter):
    """A line for people: time, level, message, key=value; a traceback below, indented."""

    def format(self, record: logging.LogRecord) -> str:
        parts = [_instant(record), record.levelname, _escaped(record.getMessage())]
        parts += [f"{key}={_word(value)}" for key, value in _fields(record).items()]
        lines = [" ".join(parts)]
        if record.exc_info:
            lines += [f"    {_escaped(line)}" for line in _traceback(self, record).splitlines()]
        return "\n".join(lines)


class JsonFormatter(logging.Formatter):
    """One JSON object a line, ASCII only: time, level, logger, message, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, object] = {
            "time": _instant(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for key, value in _fields(record).items():
            event[f"{key}_" if key in event else key] = value
        if record.exc_info:
            event["exception"] = _traceback(self, record)
        return json.dumps(event).replace("\x7f", "\\u007f")


def _fields(record: logging.LogRecord) -> dict[str, str | int | float | bool | None]:
    """What was given as `extra`, in its order."""
    return {
        key: value if isinstance(value, int | float | bool | None) else _cut(str(value))
        for key, value in vars(record).items()
        if key not in _OWN_ATTRIBUTES
    }


def _cut(text: str) -> str:
    most = MOST_FIELD_CHARACTERS
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"


def _word(value: str | int | float | bool | None) -> str:
    """A value after key=; in quotes where it would otherwise look like more than one."""
    if not isinstance(value, str):
        return json.dumps(value)
    if value and _BARE.issuperset(value):
        return value
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{_escaped(quoted)}"'


def _escaped(text: str) -> str:
    """Control characters, line ends, direction marks and lone surrogates as \\x1b or \\u202e."""
    return "".join(
        character
        if character.isprintable()
        else character.encode("unicode_escape", "surrogatepass").decode("ascii")
        for character in text
    )


def _instant(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    assert record.exc_info
    return formatter.formatException(record.exc_info)
