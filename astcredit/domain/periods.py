"""Calendar months and days in a client's time zone, by their keys: "2026-11", "2026-11-21".

A period is known by its key and not by a job that begins it: at midnight the key is another one.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from astcredit.domain.text import printable

_MONTH = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])", re.ASCII)
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)

MOST_ZONES = 1_000
"""Zones kept in memory: there are some six hundred."""


def check_zone(name: str) -> str:
    """`name`, if it is a time zone (IANA, as Europe/Berlin). Raises ValueError."""
    try:
        _zone(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(
            f"time zone {printable(name)}: expected an IANA name as Europe/Berlin or UTC"
        ) from None
    return name


def month_of(instant_ms: int, zone: str) -> str:
    """The month in which an instant is, in the zone."""
    return _day(instant_ms // 1000, zone)[: len("2026-11")]


def day_of(instant_ms: int, zone: str) -> str:
    """The day in which an instant is, in the zone."""
    return _day(instant_ms // 1000, zone)


def bounds(period: str, zone: str) -> tuple[int, int]:
    """The first instant of a month or day and the first after it, in ms since 1970 UTC.

    Raises ValueError for what is neither. Where a day begins twice, or its midnight is skipped by a
    change to summer time, the bounds of neighbouring periods still meet.
    """
    try:
        if _MONTH.fullmatch(period):
            first = date.fromisoformat(f"{period}-01")
            after = (first + timedelta(days=32)).replace(day=1)
        elif _DAY.fullmatch(period):
            first = date.fromisoformat(period)
            after = first + timedelta(days=1)
        else:
            raise ValueError("another form")
    except (ValueError, OverflowError):
        raise ValueError(
            f"period {printable(period)}: expected a month or a day, as 2026-11 or 2026-11-21"
        ) from None
    return _begin(first, zone), _begin(after, zone)


def is_month(period: str) -> bool:
    """Whether the key is a month's."""
    return _MONTH.fullmatch(period) is not None


@lru_cache(MOST_ZONES)
def _zone(name: str) -> tzinfo:
    # UTC needs no database of zones, which a machine may lack.
    return UTC if name == "UTC" else ZoneInfo(name)


@lru_cache(MOST_ZONES)  # a thousand calls begin in one second
def _day(second: int, zone: str) -> str:
    return datetime.fromtimestamp(second, _zone(zone)).strftime("%Y-%m-%d")


def _begin(day: date, zone: str) -> int:
    """The first instant that is on the day: looked for, as midnight may not be on any clock."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=_zone(zone))
    low = int(midnight.astimezone(UTC).timestamp()) - _MOST_SHIFT_SECONDS
    high = low + 2 * _MOST_SHIFT_SECONDS
    key = day.isoformat()
    while high - low > 1:
        middle = (low + high) // 2
        if day_of(middle * 1000, zone) < key:
            low = middle
        else:
            high = middle
    return high * 1000


_MOST_SHIFT_SECONDS = 26 * 3600
"""No clock is ever set by more (a zone that crossed the date line skipped a day)."""
