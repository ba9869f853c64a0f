"""Months and days in a client's time zone: tables of cases, and that they cover all time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import available_timezones

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from astcredit.domain.periods import bounds, check_zone, day_of, is_month, month_of


def ms(text: str) -> int:
    """An instant, as 2026-10-25T01:30Z or with an offset; its fraction may be given."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)


BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"
AUCKLAND, KATHMANDU = "Pacific/Auckland", "Asia/Kathmandu"
SAO_PAULO = "America/Sao_Paulo"
"""Until 2019 its summer time began at midnight: 00:00 was followed by 01:00, no day began at 0."""

LAST_AND_FIRST = [
    # Ordinary ends of months.
    ("UTC", "2026-11", "2026-11-30T23:59:59.999+00:00"),
    ("UTC", "2024-02", "2024-02-29T23:59:59.999+00:00"),
    ("UTC", "2023-02", "2023-02-28T23:59:59.999+00:00"),
    ("UTC", "2026-12", "2026-12-31T23:59:59.999+00:00"),
    (BERLIN, "2026-11", "2026-11-30T22:59:59.999+00:00"),
    (NEW_YORK, "2026-12", "2027-01-01T04:59:59.999+00:00"),
    (AUCKLAND, "2026-12", "2026-12-31T10:59:59.999+00:00"),
    (KATHMANDU, "2026-11", "2026-11-30T18:14:59.999+00:00"),
    # The last day of the month is the one on which clocks go forward, or back.
    (BERLIN, "2024-03", "2024-03-31T21:59:59.999+00:00"),
    (BERLIN, "2021-10", "2021-10-31T22:59:59.999+00:00"),
    # Clocks go back on the first day of the month, two hours after it began.
    (NEW_YORK, "2026-10", "2026-11-01T03:59:59.999+00:00"),
    # Clocks go back, and forward, in the southern autumn and spring.
    (AUCKLAND, "2026-04", "2026-04-30T11:59:59.999+00:00"),
    (AUCKLAND, "2026-09", "2026-09-30T10:59:59.999+00:00"),
    # Days.
    (BERLIN, "2026-03-28", "2026-03-28T22:59:59.999+00:00"),
    (BERLIN, "2026-03-29", "2026-03-29T21:59:59.999+00:00"),
    (BERLIN, "2026-10-25", "2026-10-25T22:59:59.999+00:00"),
    (NEW_YORK, "2026-03-08", "2026-03-09T03:59:59.999+00:00"),
    (AUCKLAND, "2026-04-05", "2026-04-05T11:59:59.999+00:00"),
    (KATHMANDU, "2026-11-21", "2026-11-21T18:14:59.999+00:00"),
    (SAO_PAULO, "2018-11-03", "2018-11-04T02:59:59.999+00:00"),
    ("Pacific/Apia", "2011-12-29", "2011-12-30T09:59:59.999+00:00"),  # the 30th never was
]


@pytest.mark.parametrize(("zone", "period", "last"), LAST_AND_FIRST)
def test_a_period_ends_with_its_last_millisecond(zone: str, period: str, last: str) -> None:
    key_of = month_of if is_month(period) else day_of
    assert key_of(ms(last), zone) == period
    assert key_of(ms(last) + 1, zone) > period
    assert bounds(period, zone)[1] == ms(last) + 1


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        (BERLIN, "2026-03-29", 23),
        (BERLIN, "2026-10-25", 25),
        (BERLIN, "2026-10-26", 24),
        (NEW_YORK, "2026-03-08", 23),
        (NEW_YORK, "2026-11-01", 25),
        (AUCKLAND, "2026-04-05", 25),
        (AUCKLAND, "2026-09-27", 23),
        (KATHMANDU, "2026-11-21", 24),
        (SAO_PAULO, "2018-11-04", 23),  # begins at 01:00
        ("Pacific/Apia", "2011-12-30", 0),
        ("Australia/Lord_Howe", "2026-04-05", 24.5),
    ],
)
def test_a_day_with_a_change_of_the_clock_is_as_long_as_it_is(
    zone: str, day: str, hours: float
) -> None:
    begin, end = bounds(day, zone)
    assert end - begin == hours * 3_600_000


@pytest.mark.parametrize("zone", ["UTC", BERLIN, NEW_YORK, AUCKLAND, KATHMANDU])
def test_the_keys_are_those_of_the_clock_on_the_wall(zone: str) -> None:
    """Every quarter of an hour of a year with its changes, against offsets written down here."""
    changes = {
        "UTC": [("2026-01-01T00:00+00:00", 0)],
        BERLIN: [
            ("2026-01-01T00:00+00:00", 60),
            ("2026-03-29T01:00+00:00", 120),
            ("2026-10-25T01:00+00:00", 60),
        ],
        NEW_YORK: [
            ("2026-01-01T00:00+00:00", -300),
            ("2026-03-08T07:00+00:00", -240),
            ("2026-11-01T06:00+00:00", -300),
        ],
        AUCKLAND: [
            ("2026-01-01T00:00+00:00", 780),
            ("2026-04-04T14:00+00:00", 720),
            ("2026-09-26T14:00+00:00", 780),
        ],
        KATHMANDU: [("2026-01-01T00:00+00:00", 345)],
    }[zone]
    begin, end = ms("2026-01-01T00:00+00:00"), ms("2026-12-31T23:45+00:00")
    for instant in range(begin, end, 900_000):
        minutes = [offset for since, offset in changes if ms(since) <= instant][-1]
        wall = datetime.fromtimestamp(instant // 1000, timezone(timedelta(minutes=minutes)))
        assert day_of(instant, zone) == f"{wall:%Y-%m-%d}"
        assert month_of(instant, zone) == f"{wall:%Y-%m}"


zones = st.sampled_from(sorted(available_timezones()))
instants = st.integers(ms("2015-01-01T00:00+00:00"), ms("2037-12-31T00:00+00:00"))


@given(instants, zones)
@example(ms("2018-11-04T02:59:59.999+00:00"), SAO_PAULO)
@example(ms("2026-10-25T00:30+00:00"), BERLIN)
@example(ms("2026-10-25T01:30+00:00"), BERLIN)
def test_an_instant_is_within_its_day_and_its_month(instant: int, zone: str) -> None:
    for period in (day_of(instant, zone), month_of(instant, zone)):
        begin, end = bounds(period, zone)
        assert begin <= instant < end


@given(instants, zones)
def test_neighbouring_periods_meet(instant: int, zone: str) -> None:
    for key_of in (day_of, month_of):
        begin, end = bounds(key_of(instant, zone), zone)
        assert bounds(key_of(end, zone), zone)[0] == end
        assert bounds(key_of(begin - 1, zone), zone)[1] == begin


@given(instants)
def test_utc_needs_no_zone_database(instant: int) -> None:
    text = datetime.fromtimestamp(instant // 1000, UTC).isoformat()
    assert (month_of(instant, "UTC"), day_of(instant, "UTC")) == (text[:7], text[:10])


@pytest.mark.parametrize(
    "period",
    [
        "",
        "2026",
        "2026-13",
        "2026-00",
        "2026-1",
        "26-11",
        "2026-11-31",
        "2026-02-29",
        "2026-11-21 ",
        "2026-11-21\n",
        "2026/11",
        "\N{ARABIC-INDIC DIGIT TWO}026-11",
        "0000-01",
        "9999-12",
        "'; DROP TABLE astquota; --",
    ],
)
def test_what_is_no_period_is_refused_in_a_line(period: str) -> None:
    with pytest.raises(ValueError, match="expected a month or a day, as 2026-11") as caught:
        bounds(period, "UTC")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("zone", ["UTC", BERLIN, "America/Argentina/Buenos_Aires", "Etc/GMT+12"])
def test_a_time_zone_is_taken_as_it_is(zone: str) -> None:
    assert check_zone(zone) == zone


@pytest.mark.parametrize(
    "zone",
    ["", " ", "Berlin", "Europe", "Europe/Berlin ", "../../etc/passwd", "/etc/localtime", "a\x00b",
     "CEST", "\x1b[2J", "x" * 5_000],
)  # fmt: skip
def test_what_is_no_time_zone_is_refused_in_a_line(zone: str) -> None:
    with pytest.raises(ValueError, match="expected an IANA name as Europe/Berlin") as caught:
        check_zone(zone)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300
