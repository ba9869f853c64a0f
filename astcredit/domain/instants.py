"""Instants as people write them and as tables show them; inside the program they are milliseconds.

Whoever names no offset means UTC, as all columns of the database do: the same file must have the
same meaning on every machine.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from astcredit.domain.text import printable

INSTANT_EXPECTED: Final = (
    "a date or a date and time from 1970 on, like 2026-11-21, 2026-11-21 20:00"
    " or 2026-11-21T20:00:00+01:00 (UTC when there is no offset)"
)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_LAST: Final = datetime.max.replace(tzinfo=UTC)

# Narrower than datetime.fromisoformat, which also takes weeks and dates without hyphens.
_INSTANT: Final = re.compile(
    r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:?\d\d)?)?", re.ASCII
)


def parse_instant(text: str) -> int:
    """Milliseconds since 1970-01-01 UTC of an ISO 8601 date or date and time.

    A date means its first moment; fractions are cut to the millisecond. `Z` and offsets are
    honoured, without one it is UTC. Raises ValueError that names the value, also for instants
    before 1970 and after 9999.
    """
    try:
        if _INSTANT.fullmatch(text) is None:
            raise ValueError
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{printable(text)}: expected {INSTANT_EXPECTED}") from None
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    if not _EPOCH <= instant <= _LAST:
        raise ValueError(f"{printable(text)}: expected {INSTANT_EXPECTED}")
    return (instant - _EPOCH) // _MILLISECOND


@lru_cache(maxsize=4096)  # a call's instants stand in several columns, a batch's calls share some
def instant_text(instant_ms: int) -> str:
    """An instant as the tables show it, in UTC: "2026-11-21 20:00:00.000".

    Raises OverflowError outside the years 1 to 9999.
    """
    instant = _EPOCH + instant_ms * _MILLISECOND
    return instant.replace(tzinfo=None).isoformat(sep=" ", timespec="milliseconds")
