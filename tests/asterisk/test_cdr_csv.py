"""Asterisk's own call records are read as they are, or refused with line and column."""

from __future__ import annotations

import tracemalloc
from collections.abc import Collection, Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astcredit.asterisk import cdr_csv
from astcredit.asterisk.cdr_csv import MOST_ERRORS, CdrFiles, Read, read_records
from astcredit.domain.instants import parse_instant
from astcredit.domain.witness import AsteriskRecord, Witness, witness_of
from astcredit.service.errors import RefusedError
from support.asterisk_cdr import read_cdrs
from support.master_csv import Line, write

RECORDED = Path(__file__).parent / "cdr"
AT = 1_795_299_000_000
ANSWERED = Line("1795299000.1", AT, AT + 9_700, AT + 4_200)
FAILED = Line("1795299000.3", AT, AT + 2_000, disposition="CONGESTION", dstchannel="")


class Everything(Collection[str]):
    """All names."""

    def __contains__(self, name: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def records(path: str, zone: str = "UTC", *, skip_bad: bool = False) -> list[AsteriskRecord]:
    return list(CdrFiles([path], zone, skip_bad=skip_bad).about(Everything()))


def errors(path: str) -> list[str]:
    """The bad lines of a file that is refused for them."""
    files = CdrFiles([path])
    with pytest.raises(RefusedError, match="nothing was done"):
        list(files.about(Everything()))
    return [str(error) for error in files.read[path].errors]


# ---- what a real Asterisk 22 wrote


def test_the_recorded_files_say_the_same(tmp_path: Path) -> None:
    """Master.csv to the second below, the custom file exactly as our other reader has it."""
    exact = records(str(RECORDED / "astcredit.csv"))
    blurred = records(str(RECORDED / "Master.csv"))
    assert len(exact) == len(blurred) == 19
    for one, other, cdr in zip(exact, blurred, read_cdrs(RECORDED / "astcredit.csv"), strict=True):
        named = (cdr.uniqueid, cdr.channel, cdr.dstchannel, cdr.dst, cdr.disposition)
        for r in (one, other):
            assert (r.uniqueid, r.channel, r.dstchannel, r.dst, r.disposition) == named
        assert other.start_ms <= one.start_ms < other.start_ms + 1000
        assert other.end_ms <= one.end_ms < other.end_ms + 1000
        assert other.talk_ms <= one.talk_ms < other.talk_ms + 1000
        assert (other.answer_ms is None) is (one.answer_ms is None) is (cdr.answer_ms == 0)
        assert abs(one.talk_ms - cdr.billsec_ms) <= 1
        assert (one.blur_ms, other.blur_ms) == (0, 999)


@pytest.mark.parametrize("name", ["astcredit.csv", "Master.csv"])
def test_a_recorded_blind_transfer_lasts_until_the_legs_own_end(name: str) -> None:
    """The caller was gone after half a second; its carrier's leg talked on for 4.3 s."""
    found = records(str(RECORDED / name))
    mine = [r for r in found if r.uniqueid == "1795306440.0"]
    leg = "PJSIP/carrier-00000001"  # a name that two Asterisks before had used too
    of_leg = [r for r in found if leg in (r.channel, r.dstchannel)]
    assert len(of_leg) > 2
    seen = witness_of(1_795_306_440_950, mine, {leg: of_leg})
    assert isinstance(seen, Witness)
    assert seen.transferred
    assert 3_000 <= seen.talk_ms <= 4_263 <= seen.talk_ms + seen.blur_ms + 999


# ---- shapes


@pytest.mark.parametrize("columns", [17, 18, 20, 21])
def test_every_shape_of_master_csv_is_read(tmp_path: Path, columns: int) -> None:
    path = write(tmp_path / "Master.csv", ANSWERED.master(columns=columns))
    (found,) = records(path)
    assert found == AsteriskRecord(
        "1795299000.1", "PJSIP/x-1", "PJSIP/carrier-00000001", "442071234567", "ANSWERED",
        AT, AT + 4_000, AT + 9_000, 5_000, 999,
    )  # fmt: skip


@pytest.mark.parametrize("columns", [16, 19])
def test_without_uniqueid_the_channel_is_what_a_call_is_found_by(
    tmp_path: Path, columns: int
) -> None:
    path = write(tmp_path / "Master.csv", ANSWERED.master(columns=columns))
    (found,) = records(path)
    assert (found.uniqueid, found.key) == ("", "PJSIP/x-1")


def test_a_user_field_is_not_taken_for_a_uniqueid(tmp_path: Path) -> None:
    line = ANSWERED.master(columns=17).replace("1795299000.1", "order 7.1")
    files = CdrFiles([write(tmp_path / "Master.csv", line)])
    (found,) = files.about({"PJSIP/x-1"})
    assert found.key == "PJSIP/x-1"


def test_the_file_with_milliseconds_is_told_by_its_times(tmp_path: Path) -> None:
    """Both kinds may even stand in one file."""
    path = write(tmp_path / "a.csv", ANSWERED.custom(), ANSWERED.master(), FAILED.custom())
    exact, blurred, failed = records(path)
    assert exact == AsteriskRecord(
        "1795299000.1", "PJSIP/x-1", "PJSIP/carrier-00000001", "442071234567", "ANSWERED",
        AT, AT + 4_200, AT + 9_700, 5_500,
    )  # fmt: skip
    assert blurred.blur_ms == 999
    assert (failed.answer_ms, failed.talk_ms, failed.answered) == (None, 0, False)


def test_cells_need_no_quotes(tmp_path: Path) -> None:
    line = ANSWERED.master().replace('"" <100>', "100").replace('"', "").replace(",60,L", ";60;L")
    assert len(records(write(tmp_path / "Master.csv", line))) == 1


def test_only_what_is_asked_for_is_kept_and_more_may_be_asked_meanwhile(tmp_path: Path) -> None:
    other = Line("1795299000.9", AT, AT + 1, channel="PJSIP/y-1", dstchannel="PJSIP/z-1")
    leg = Line("1795299000.2", AT, AT + 1, channel="PJSIP/carrier-00000001", dstchannel="PJSIP/w-1")
    path = write(tmp_path / "a.csv", other.master(), ANSWERED.master(), leg.master())
    names = {"1795299000.1"}
    found = []
    for record in CdrFiles([path]).about(names):
        found.append(record.uniqueid)
        names.add(record.dstchannel)
    assert found == ["1795299000.1", "1795299000.2"]


def test_several_files_are_read_one_after_the_other(tmp_path: Path) -> None:
    first = write(tmp_path / "Master.csv.1", ANSWERED.master())
    second = write(tmp_path / "Master.csv", FAILED.master(), FAILED.master())
    files = CdrFiles([first, second])
    assert [r.uniqueid for r in files.about(Everything())] == [
        "1795299000.1", "1795299000.3", "1795299000.3"
    ]  # fmt: skip
    assert [read.records for read in files.read.values()] == [1, 2]


# ---- time zones


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Asia/Kathmandu"])
@pytest.mark.parametrize("month", ["01", "07"])
def test_local_times_are_those_of_the_zone(tmp_path: Path, zone: str, month: str) -> None:
    at = parse_instant(f"2026-{month}-15 12:00:00")
    line = Line("1.1", at, at + 70_000, at + 10_000)
    (found,) = records(write(tmp_path / "Master.csv", line.master(zone)), zone)
    assert (found.start_ms, found.answer_ms, found.end_ms) == (at, at + 10_000, at + 70_000)
    assert (found.talk_ms, found.later_ms) == (60_000, 0)


HOUR = 3_600_000
TWICE = parse_instant("2026-10-25T00:30:00Z")
"""02:30 in Berlin, for the first time; an hour later it is that again."""


@pytest.mark.parametrize(
    ("start", "length", "read", "later"),
    [
        (TWICE, 60_000, TWICE, HOUR),  # nothing tells which of the two it was
        (TWICE + HOUR, 60_000, TWICE, HOUR),
        (TWICE, HOUR, TWICE, 0),  # from the first 02:30 to the second
        (TWICE - HOUR, 90 * 60_000, TWICE - HOUR, 0),  # from 01:30 to 02:00, an hour and a half
        (TWICE, 2 * HOUR, TWICE, 0),  # to 03:30
        (TWICE + HOUR, HOUR, TWICE + HOUR, 0),  # from the second 02:30 to 03:30
    ],
)
def test_the_hour_that_a_clock_shows_twice(
    tmp_path: Path, start: int, length: int, read: int, later: int
) -> None:
    line = Line("1.1", start, start + length, start + 10_000)
    path = write(tmp_path / "Master.csv", line.master("Europe/Berlin"))
    (found,) = records(path, "Europe/Berlin")
    assert (found.start_ms, found.end_ms, found.later_ms) == (read, read + length, later)
    assert found.answer_ms == read + 10_000
    assert found.near([start]).start_ms == start


def test_an_unknown_zone_is_refused() -> None:
    with pytest.raises(RefusedError, match="Mars/Olympus"):
        CdrFiles(["x"], "Mars/Olympus")


# ---- hostile and broken


@pytest.mark.parametrize(
    "text",
    [
        'O"Brien, "x"',
        "a\r\nb",
        '1\n"alice","1","2","ctx","","PJSIP/x-1","PJSIP/y-1","Dial","","2026-11-21 22:00:00",,',
        '"\n',
        "',\n,',\n",
        "=cmd|'/c calc'!A0\x1b[2J\x00\x85\u2028",
        "x" * 5_000,
        "\udcff",
    ],
)
def test_what_a_caller_sends_stays_text(tmp_path: Path, text: str) -> None:
    """Also a line end and what looks like a record: it is one record still, and the next is too."""
    hostile = Line("1795299000.7", AT, AT + 1_000, src=text, clid=text, dst="44")
    lines = (hostile.custom() + hostile.master() + ANSWERED.master()).encode(
        "utf-8", "surrogateescape"
    )
    path = tmp_path / "Master.csv"
    path.write_bytes(lines)
    found = records(str(path))
    assert [r.uniqueid for r in found] == ["1795299000.7", "1795299000.7", "1795299000.1"]
    assert [r.dst for r in found[:2]] == ["44", "44"]


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_is_one_record(tmp_path_factory: pytest.TempPathFactory, a: str, b: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    line = Line("1795299000.7", AT, AT + 1_000, AT, src=a, clid=b, userfield=a)
    path.write_bytes((line.master() + ANSWERED.custom()).encode("utf-8", "replace"))
    assert [r.uniqueid for r in records(str(path))] == ["1795299000.7", "1795299000.1"]


GOOD = ANSWERED.master()


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        (GOOD.replace("22:10:00", "25:10:00"), "line 2, column start: '2026-11-21 25:10:00'"),
        (GOOD.replace('"2026-11-21 22:10:04"', '"soon"'), "line 2, column answer: 'soon'"),
        (GOOD.replace("2026-11-21 22:10:09", "2026-02-30 22:10:09"), "line 2, column end: "),
        (GOOD.replace("2026-11-21 22:10:09", "1795299009.700000"), "line 2, column end: "),
        (GOOD.replace('"2026-11-21 22:10:09"', ""), "line 2, column end: ''"),
        (GOOD.replace(",9,5,", ",9,-5,"), "line 2, column billsec: '-5'"),
        (GOOD.replace(",9,5,", ",9.5,5,"), "line 2, column duration: '9.5'"),
        (GOOD.replace("ANSWERED", "ANSWER"), "line 2, column disposition: 'ANSWER'"),
        ("accountcode,src,dst\n", "line 2: '3 columns'"),
        ('"a"b,"c"\n', 'line 2: \'"a"b,"c"\\n\''),
    ],
)
def test_a_bad_line_is_named_and_refuses_the_file(tmp_path: Path, bad: str, expected: str) -> None:
    path = write(tmp_path / "Master.csv", GOOD, bad, GOOD)
    (error,) = errors(path)
    assert error.startswith(expected)
    assert len(records(path, skip_bad=True)) == 2


def test_lines_of_one_letter_behind_a_line_that_was_cut_off_are_read_in_no_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each line that joins is read again with all before it: there is an end to that."""
    looks = 0
    cells = cdr_csv._cells

    def counted(text: str) -> tuple[list[str] | None, bool]:
        nonlocal looks
        looks += 1
        return cells(text)

    monkeypatch.setattr(cdr_csv, "_cells", counted)
    path = write(tmp_path / "Master.csv", '"a\n', *["a\n"] * 5_000, GOOD)
    assert [r.uniqueid for r in records(path, skip_bad=True)] == ["1795299000.1"]
    assert looks <= 5_002 + cdr_csv.MOST_LINES


@pytest.mark.parametrize("cut", range(1, len(GOOD) - 1, 7))
def test_a_line_that_was_cut_off_takes_no_other_with_it(tmp_path: Path, cut: int) -> None:
    """Asterisk died in the middle of a line; the next one begins where its end would be, or in a
    line of its own."""
    path = write(tmp_path / "Master.csv", GOOD, GOOD[:cut] + "\n", GOOD, FAILED.master())
    uniqueids = [r.uniqueid for r in records(path, skip_bad=True)]
    assert uniqueids[-2:] == ["1795299000.1", "1795299000.3"]
    assert 3 <= len(uniqueids) <= 4
    path = write(tmp_path / "Master.csv", GOOD, GOOD[:cut] + GOOD, FAILED.master())
    uniqueids = [r.uniqueid for r in records(path, skip_bad=True)]
    assert (uniqueids[0], uniqueids[-1]) == ("1795299000.1", "1795299000.3")


def test_lines_that_happen_to_make_one_row_are_no_record(tmp_path: Path) -> None:
    """The quote that ends the cut cell is one of the next line's own."""
    unquoted = FAILED.master().replace('"" <100>', "100").replace('"', "").replace(",60,L", ";60;L")
    path = write(tmp_path / "Master.csv", '"al\n', unquoted.replace(",100,", ',5",', 1), GOOD)
    assert [r.uniqueid for r in records(path, skip_bad=True)] == ["1795299000.3", "1795299000.1"]


def test_the_last_line_may_be_cut_off(tmp_path: Path) -> None:
    path = write(tmp_path / "Master.csv", GOOD, GOOD[:60])
    assert len(errors(path)) == 1
    assert len(records(path, skip_bad=True)) == 1


def test_blank_lines_and_line_ends_of_another_system_do_not_matter(tmp_path: Path) -> None:
    path = write(tmp_path / "Master.csv", "\n", GOOD.replace("\n", "\r\n"), "  \n", GOOD.rstrip())
    assert len(records(path)) == 2


def test_a_file_of_another_kind_does_not_fill_the_screen(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", *["nonsense\n"] * (MOST_ERRORS + 50))
    assert len(errors(path)) == MOST_ERRORS


def test_an_endless_quote_needs_no_endless_memory() -> None:
    """A cell that is never closed is given up before a hundred thousand characters are read."""
    read = Read()

    def lines() -> Iterator[str]:
        yield '"never closed\n'
        for number in range(10_000):
            assert read.bad_lines or number < 10_000 // 2
            yield "no quote at all 1234\n"
        yield GOOD

    (found,) = read_records(lines(), ZoneInfo("UTC"), Everything(), read)
    assert found.uniqueid == "1795299000.1"


def test_a_large_file_is_read_in_constant_memory(tmp_path: Path) -> None:
    """A hundred thousand lines, of which one is wanted: kilobytes."""
    path = tmp_path / "Master.csv"
    with path.open("w") as file:
        for _ in range(100):
            file.write(FAILED.master() * 1_000)
        file.write(ANSWERED.master())
    files = CdrFiles([str(path)])
    tracemalloc.start()
    try:
        found = list(files.about({"1795299000.1"}))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found) == 1
    assert files.read[str(path)].records == 100_001
    assert most < 1_000_000
