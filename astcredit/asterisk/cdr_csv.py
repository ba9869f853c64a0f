"""Asterisk's own call records: Master.csv, and the file of dialplan/cdr_custom.conf.

Both have the same first columns; what follows depends on the configuration:

    Master.csv (cdr_csv)      accountcode … amaflags [,uniqueid] [,userfield]
                              [,peeraccount,linkedid,sequence]
                              times YYYY-MM-DD HH:MM:SS, UTC or the server's local time
    astcredit.csv (cdr_custom)  accountcode … amaflags,uniqueid,userfield,linkedid,sequence
                              times in seconds since 1970, with a fraction

They are told apart by their shape, line by line. Texts in them come from callers: they may hold
commas, quotes and line ends, and are never taken for anything else.
"""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import count, islice
from typing import Final
from zoneinfo import ZoneInfo

from astcredit.domain.deck import DeckError
from astcredit.domain.periods import check_zone
from astcredit.domain.witness import DIALSTATUSES, AsteriskRecord
from astcredit.service.errors import RefusedError

COLUMNS: Final = (
    "accountcode", "src", "dst", "dcontext", "clid", "channel", "dstchannel", "lastapp",
    "lastdata", "start", "answer", "end", "duration", "billsec", "disposition", "amaflags",
    "uniqueid", "userfield", "peeraccount", "linkedid", "sequence",
)  # fmt: skip
"""As cdr_csv names them. The custom file has no peeraccount."""

MOST_RECORD: Final = 65_536
"""Characters of one record. Asterisk's own limit is 1,024 for Master.csv; the fields that callers
fill have some hundred each."""

MOST_LINES: Final = 200
"""Lines of one record: a caller may put line ends into a name or a number, and each line that joins
is read again with all before it."""

MOST_ERRORS: Final = 100
"""Bad lines that are shown: more say only that this is another kind of file."""

_DST, _CHANNEL, _DSTCHANNEL = 2, 5, 6
_START, _ANSWER, _END, _DURATION, _BILLSEC, _DISPOSITION = range(9, 15)
_UNIQUEID: Final = 16
_FEWEST: Final = 16
_MOST: Final = len(COLUMNS)

_CLOCK_TIME: Final = re.compile(
    r"(\d{4}-\d\d-\d\d) ([01]\d|2[0-3]):([0-5]\d):([0-5]\d|60)", re.ASCII
)
_EPOCH_TIME: Final = re.compile(r"(\d{1,11})\.(\d{1,9})", re.ASCII)
_COUNT: Final = re.compile(r"\d{1,9}", re.ASCII)
_UNIQUEID_SHAPE: Final = re.compile(r"(.{1,100}-)?\d{1,11}\.\d{1,19}", re.ASCII)
_EPOCH_DAY: Final = date(1970, 1, 1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND: Final = 1_000_000
_WITH_UNIQUEID: Final = frozenset({18, 21})
"""Numbers of columns of which the 17th is always the uniqueid."""
_SECOND_BLUR_MS: Final = 999
"""A time with whole seconds is up to this much later than it says."""

TIME_EXPECTED: Final = "a time as 2026-11-21 20:00:00, or as 1795298952.308386 (seconds since 1970)"


class _BadCellError(ValueError):
    """A cell that cannot be: its column (empty: the line's shape), its value, what was expected."""

    def __init__(self, column: str, value: str, expected: str) -> None:
        super().__init__(expected)
        self.column, self.value, self.expected = column, value, expected


@dataclass(slots=True)
class Read:
    """What was read of a file: records and bad lines. `errors` are the first of these."""

    records: int = 0
    bad_lines: int = 0
    errors: list[DeckError] = field(default_factory=list)

    def bad(self, line: int, column: str, value: str, expected: str) -> None:
        """Note a bad line; `column` is empty when the fault is the whole line's."""
        self.bad_lines += 1
        if len(self.errors) < MOST_ERRORS:
            self.errors.append(DeckError(line, column, value, expected))


class CdrFiles:
    """Files of one Asterisk server, the oldest first. Implements
    `astcredit.service.reconciliation_ports.AsteriskRecords`.

    `zone` is the time zone of times that do not say theirs. `read` says what was read of each file.
    Raises RefusedError for a zone that there is not.
    """

    def __init__(self, paths: Sequence[str], zone: str = "UTC", *, skip_bad: bool = False) -> None:
        try:
            self._zone = ZoneInfo(check_zone(zone))
        except ValueError as error:
            raise RefusedError(str(error)) from None
        self._paths = paths
        self._skip_bad = skip_bad
        self.read: dict[str, Read] = {}

    def about(self, names: Collection[str]) -> Iterator[AsteriskRecord]:
        """The records of which uniqueid, channel or dstchannel is among `names`, to which may be
        added meanwhile. Every line is checked; raises RefusedError at the end if one was bad,
        unless bad ones are skipped."""
        self.read = {}
        for path in self._paths:
            # Nothing is refused for its encoding: no text is kept that is not compared.
            with open(path, encoding="utf-8", errors="surrogateescape", newline="") as lines:
                here = self.read[path] = Read()
                yield from read_records(lines, self._zone, names, here)
        bad = sum(read.bad_lines for read in self.read.values())
        if bad and not self._skip_bad:
            plural = "" if bad == 1 else "s"
            raise RefusedError(
                f"{bad} bad line{plural}, nothing was done: mend them, or pass over them with"
                " --skip-bad"
            )


def read_records(
    lines: Iterable[str], zone: ZoneInfo, names: Collection[str], read: Read
) -> Iterator[AsteriskRecord]:
    """The records in a file, opened with `newline=""`, that are about one of the names; what was
    read is counted in `read`. Holds one record in memory."""
    for number, cells in _rows(lines, read):
        try:
            _check(cells)
            uniqueid = _uniqueid(cells, names)
            about = (uniqueid, cells[_CHANNEL], cells[_DSTCHANNEL])
            record = _record(cells, uniqueid, zone) if any(map(names.__contains__, about)) else None
        except _BadCellError as error:
            read.bad(number, error.column, error.value, error.expected)
            continue
        read.records += 1
        if record is not None:
            yield record


class _Lines:
    """The lines of a file, numbered from 1, some of which may be looked at in advance."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._source = enumerate(lines, 1)
        self._ahead: deque[tuple[int, str]] = deque()

    def __iter__(self) -> Iterator[tuple[int, str]]:
        while True:
            line = self._ahead.popleft() if self._ahead else next(self._source, None)
            if line is None:
                return
            yield line

    def ahead(self) -> Iterator[str]:
        """The lines that come next; they stay."""
        for index in count():
            if index == len(self._ahead):
                line = next(self._source, None)
                if line is None:
                    return
                self._ahead.append(line)
            yield self._ahead[index][1]

    def take(self, lines: int) -> None:
        """Pass over so many lines that were looked at."""
        for _ in range(lines):
            self._ahead.popleft()


def _rows(text: Iterable[str], read: Read) -> Iterator[tuple[int, list[str]]]:
    """The number of the first line of each record, and its cells.

    A record goes on in the next line when a quoted cell has a line end in it. A line that was cut
    off (Asterisk died, the disk was full) looks so too, and would swallow everything behind it:
    when what follows makes no record of it, it alone is bad.
    """
    lines = _Lines(text)
    for number, line in lines:
        if not line.strip():
            continue
        cells, whole = _cells(line)
        if not whole:
            cells, taken = _joined(line, lines.ahead())
            lines.take(taken)
        if cells is None:
            read.bad(number, "", line, "a record, quoted as in CSV")
        else:
            yield number, cells


def _joined(text: str, following: Iterable[str]) -> tuple[list[str] | None, int]:
    """The cells of a record that begins with `text`, and how many further lines it has."""
    for taken, line in enumerate(islice(following, MOST_LINES), 1):
        text += line
        cells, whole = _cells(text)
        if cells is not None and _is_record(cells):
            return cells, taken
        if whole or len(text) > MOST_RECORD:
            break
    return None, 0


def _cells(text: str) -> tuple[list[str] | None, bool]:
    """The cells of a record, None where it is no CSV; and whether it is all: False where the text
    ends within a quoted cell."""
    try:
        return next(csv.reader((text,), strict=True)), True
    except csv.Error as error:
        return None, str(error) != _UNFINISHED


def _unfinished() -> str:
    """What the csv module says of a text that ends within a quoted cell."""
    try:
        next(csv.reader(('"',), strict=True))
    except csv.Error as error:
        return str(error)
    raise AssertionError("a quoted cell without an end is taken for whole")


_UNFINISHED: Final = _unfinished()


def _is_record(cells: Sequence[str]) -> bool:
    """Whether lines that were put together are one record and not two with one cut off."""
    try:
        _check(cells)
    except _BadCellError:
        return False
    return True


def _check(cells: Sequence[str]) -> None:
    """Raise _BadCellError unless the cells are those of a record."""
    if not _FEWEST <= len(cells) <= _MOST:
        expected = f"{_FEWEST} to {_MOST} columns, as Asterisk writes them"
        raise _BadCellError("", f"{len(cells)} columns", expected)
    _check_time(cells, _START)
    if cells[_ANSWER]:
        _check_time(cells, _ANSWER)
    _check_time(cells, _END)
    for index in (_DURATION, _BILLSEC):
        if _COUNT.fullmatch(cells[index]) is None:
            raise _BadCellError(COLUMNS[index], cells[index], "whole seconds")
    if cells[_DISPOSITION] not in DIALSTATUSES:
        expected = f"one of {', '.join(DIALSTATUSES)}"
        raise _BadCellError(COLUMNS[_DISPOSITION], cells[_DISPOSITION], expected)


def _check_time(cells: Sequence[str], index: int) -> None:
    text = cells[index]
    if _EPOCH_TIME.fullmatch(text) is not None:
        return
    match = _CLOCK_TIME.fullmatch(text)
    if match is None or _day(match[1]) is None:
        raise _BadCellError(COLUMNS[index], text, TIME_EXPECTED)


@lru_cache(maxsize=64)
def _day(text: str) -> int | None:
    """Days since 1970 of a date; None where there is no such day. A file has few of them."""
    try:
        return (date.fromisoformat(text) - _EPOCH_DAY).days
    except ValueError:
        return None


def _uniqueid(cells: Sequence[str], known: Collection[str]) -> str:
    """The calling channel's uniqueid, empty where the file leaves it out (loguniqueid=no): then the
    user field or the peer's account may stand in its place."""
    if len(cells) <= _UNIQUEID:
        return ""
    text = cells[_UNIQUEID]
    sure = len(cells) in _WITH_UNIQUEID or _EPOCH_TIME.fullmatch(cells[_START]) is not None
    return text if sure or text in known or _UNIQUEID_SHAPE.fullmatch(text) else ""


def _record(cells: Sequence[str], uniqueid: str, zone: ZoneInfo) -> AsteriskRecord:
    exact = _EPOCH_TIME.fullmatch(cells[_START]) is not None
    times = _exact_times(cells) if exact else _clock_times(cells, zone)
    return AsteriskRecord(
        uniqueid=uniqueid,
        channel=cells[_CHANNEL],
        dstchannel=cells[_DSTCHANNEL],
        dst=cells[_DST],
        disposition=cells[_DISPOSITION],
        start_ms=times.start // 1000,
        answer_ms=None if times.answer is None else times.answer // 1000,
        end_ms=times.end // 1000,
        talk_ms=times.talk // 1000,
        blur_ms=0 if exact else _SECOND_BLUR_MS,
        later_ms=times.later // 1000,
    )


@dataclass(frozen=True, slots=True)
class _Times:
    """The times of a record in microseconds; `later`: by how much all of them may be later."""

    start: int
    answer: int | None
    end: int
    talk: int
    later: int = 0


def _exact_times(cells: Sequence[str]) -> _Times:
    """Times with fractions: the talk is from answer to end."""
    start, answer, end = (_microseconds(cells[index], index) for index in (_START, _ANSWER, _END))
    talk = max(0, end - answer) if answer else 0
    return _Times(start, answer or None, end, talk)


def _microseconds(text: str, index: int) -> int:
    if not text:
        return 0
    match = _EPOCH_TIME.fullmatch(text)
    if match is None:
        raise _BadCellError(COLUMNS[index], text, "seconds since 1970, as the line's other times")
    return int(match[1]) * _SECOND + int(match[2][:6].ljust(6, "0"))


def _clock_times(cells: Sequence[str], zone: ZoneInfo) -> _Times:
    """Times as a clock showed them. In the hour that it shows twice, the length of the call says
    which of the two it was; if it was over within that hour, nothing does."""
    starts, ends = (_instants(cells[index], index, zone) for index in (_START, _END))
    duration, billsec = (int(cells[index]) for index in (_DURATION, _BILLSEC))
    readings = [(start, _nearest(ends, start + duration)) for start in starts]
    # Each time is cut to its second, and so is the difference: they may miss by one.
    fitting = [(start, end) for start, end in readings if abs(end - start - duration) <= 1]
    (start, end), *again = fitting or readings[:1]
    answer = None
    if cells[_ANSWER]:
        answer = _SECOND * _nearest(_instants(cells[_ANSWER], _ANSWER, zone), end - billsec)
    later = again[0][0] - start if again else 0
    return _Times(start * _SECOND, answer, end * _SECOND, billsec * _SECOND, later * _SECOND)


def _nearest(instants: Sequence[int], to: int) -> int:
    return min(instants, key=lambda instant: abs(instant - to))


def _instants(text: str, index: int, zone: ZoneInfo) -> Sequence[int]:
    """Seconds since 1970 of what a clock showed: one instant, or two."""
    match = _CLOCK_TIME.fullmatch(text)
    if match is None:
        raise _BadCellError(COLUMNS[index], text, "a date and time, as the line's other times")
    seconds = int(match[2]) * 3600 + int(match[3]) * 60 + int(match[4])
    shown = _EPOCH + timedelta(days=_day(match[1]) or 0, seconds=seconds)
    local = (shown.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
    return sorted({(instant - _EPOCH) // timedelta(seconds=1) for instant in local})
