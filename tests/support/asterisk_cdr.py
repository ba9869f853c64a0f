"""Asterisk's own call records, as dialplan/cdr_custom.conf writes them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class AsteriskCdr:
    """One line of Asterisk's own records (dialplan/cdr_custom.conf). Times in milliseconds UTC;
    `answer_ms` and `billsec_ms` are 0 when nobody answered."""

    accountcode: str
    src: str
    dst: str
    channel: str
    dstchannel: str
    lastapp: str
    lastdata: str
    start_ms: int
    answer_ms: int
    end_ms: int
    billsec_ms: int
    disposition: str
    uniqueid: str
    linkedid: str


def read_cdrs(path: Path) -> list[AsteriskCdr]:
    """All records in the file, oldest first; none when there is no file yet."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8", errors="replace") as lines:
        return [_cdr(row) for row in csv.reader(lines)]


def _cdr(row: Sequence[str]) -> AsteriskCdr:
    start, answer, end = (_ms(seconds) for seconds in row[9:12])
    return AsteriskCdr(
        accountcode=row[0],
        src=row[1],
        dst=row[2],
        channel=row[5],
        dstchannel=row[6],
        lastapp=row[7],
        lastdata=row[8],
        start_ms=start,
        answer_ms=answer,
        end_ms=end,
        billsec_ms=end - answer if answer else 0,
        disposition=row[14],
        uniqueid=row[16],
        linkedid=row[18],
    )


def _ms(seconds: str) -> int:
    return round(float(seconds or 0) * 1000)
