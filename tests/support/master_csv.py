"""Lines of Asterisk's own call records, as cdr_csv and dialplan/cdr_custom.conf write them."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from astcredit.domain.instants import instant_text


@dataclass(frozen=True)
class Line:
    """One record; instants in milliseconds since 1970."""

    uniqueid: str
    start: int
    end: int
    answer: int | None = None
    disposition: str = ""
    channel: str = "PJSIP/x-1"
    dstchannel: str = "PJSIP/carrier-00000001"
    dst: str = "442071234567"
    src: str = "100"
    clid: str = '"" <100>'
    userfield: str = ""

    @property
    def outcome(self) -> str:
        return self.disposition or ("NO ANSWER" if self.answer is None else "ANSWERED")

    @property
    def _parties(self) -> Sequence[str]:
        return (
            "alice", self.src, self.dst, "astcredit", self.clid, self.channel, self.dstchannel,
            "Dial", f"PJSIP/{self.dst}@carrier,60,L(3600000)",
        )  # fmt: skip

    @property
    def _lengths(self) -> tuple[int, int]:
        billsec = 0 if self.answer is None else (self.end - self.answer) // 1000
        return (self.end - self.start) // 1000, billsec

    def master(self, zone: str = "UTC", columns: int = 18) -> str:
        """The line of Master.csv, with so many of its columns."""
        times = [_clock(at, zone) for at in (self.start, self.answer, self.end)]
        rest = [self.uniqueid, self.userfield, "", "1.1", 7]
        extra = {16: [], 17: rest[:1], 18: rest[:2], 19: rest[2:], 20: rest[:1] + rest[2:],
                 21: rest}[columns]  # fmt: skip
        cells = [*self._parties, *times, *self._lengths, self.outcome, "DOCUMENTATION", *extra]
        return _quoted(cells)

    def custom(self) -> str:
        """The line of the file with milliseconds."""
        times = [f"{(at or 0) // 1000}.{(at or 0) % 1000:03}000"
                 for at in (self.start, self.answer, self.end)]  # fmt: skip
        lengths = map(str, self._lengths)
        rest = (self.uniqueid, self.userfield, "1.1", "7")
        cells = [*self._parties, *times, *lengths, self.outcome, "DOCUMENTATION", *rest]
        return _quoted(cells)


def write(path: Path, *lines: str) -> str:
    """A file with these lines; its path."""
    path.write_text("".join(lines), encoding="utf-8", newline="")
    return str(path)


def _clock(at: int | None, zone: str) -> str:
    if at is None:
        return ""
    text = instant_text(at)[:19]
    local = datetime.fromisoformat(text).replace(tzinfo=UTC).astimezone(ZoneInfo(zone))
    return local.strftime("%Y-%m-%d %H:%M:%S")


def _quoted(cells: Sequence[object]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC).writerow(cells)
    return line.getvalue()
