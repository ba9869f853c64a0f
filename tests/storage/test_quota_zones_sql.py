"""Months and days of quotas in other time zones than UTC, and while the zone changes."""

from __future__ import annotations

from datetime import datetime

import pytest

from support.core import answered, leg_ended, request
from support.quota_office import SECOND, Office, at_office


def instant(text: str) -> int:
    return round(datetime.fromisoformat(f"{text}+00:00").timestamp() * 1000)


MIDNIGHTS = {
    # The last day of the month has 23 hours.
    "Europe/Berlin": ("2024-03-31", "2024-04-01", "2024-03-31T22:00"),
    "Pacific/Auckland": ("2026-11-30", "2026-12-01", "2026-11-30T11:00"),
    "America/New_York": ("2026-11-30", "2026-12-01", "2026-12-01T05:00"),
}
"""The days before and after a month's end, and the instant between them."""


@pytest.mark.parametrize("zone", MIDNIGHTS)
@pytest.mark.parametrize("kind", ["monthly_quota", "daily_quota"])
def test_at_the_midnight_of_a_months_end_everybody_is_free_again(
    database_url: str, kind: str, zone: str
) -> None:
    """A millisecond before it the old quota refuses; what ends after it is counted before it."""
    day, next_day, at_midnight = MIDNIGHTS[zone]
    midnight = instant(at_midnight)

    async def work(at: Office) -> None:
        at.clock.now_ms = midnight - 1
        await at.set(timezone=zone, **{kind: 60})
        assert await at.play(request(1), request(2)) == ["60", "QUOTA"]
        at.clock.now_ms = midnight
        assert await at.play(request(3), request(4)) == ["60", "QUOTA"]
        await at.play(answered(1, midnight), leg_ended(1, midnight + 50_000))
        await at.play(answered(3, midnight), leg_ended(3, midnight + 20_000))
        assert await at.play(request(5)) == ["40"]
        shown = {
            p: (r["spent"] // SECOND, r["reserved"] // SECOND) for p, r in (await at.rows()).items()
        }
        assert shown == {
            day[:7]: (50, 0),
            day: (50, 0),
            next_day[:7]: (20, 40),
            next_day: (20, 40),
        }

    at_office(database_url, work)


def test_a_first_quota_knows_the_day_to_which_another_zone_leads_back(database_url: str) -> None:
    async def work(at: Office) -> None:
        at.clock.now_ms = instant("2026-11-30T20:00")
        await at.spend(1, 3_000)
        at.clock.now_ms = instant("2026-12-01T02:00")
        await at.set(daily_quota=5_000)
        await at.set(timezone="America/New_York")  # it is the 30th again
        assert await at.shown("client1") == [("client1", "2026-11-30", 5_000, 3_000, 0, 60)]
        assert await at.play(request(2), request(3)) == ["2000", "QUOTA"]

    at_office(database_url, work)


def test_a_first_quota_knows_the_day_that_has_been_already_in_another_zone(
    database_url: str,
) -> None:
    async def work(at: Office) -> None:
        await at.set(timezone="Pacific/Auckland")
        at.clock.now_ms = instant("2026-11-30T13:00")  # the 1st in Auckland
        await at.spend(1, 3_000)
        await at.set(timezone="UTC", daily_quota=5_000, monthly_quota=6_000)
        assert [row[1:4] for row in await at.shown("client1")] == [
            ("2026-11", 6_000, 0),
            ("2026-11-30", 5_000, 0),
        ]
        at.clock.now_ms = instant("2026-12-01T00:30")
        assert await at.play(request(2), request(3)) == ["2000", "QUOTA"]
        rows = await at.rows()
        assert rows["2026-12"]["spent"] == rows["2026-12-01"]["spent"] == 3_000 * SECOND

    at_office(database_url, work)


def test_a_zone_that_changes_while_there_is_no_quota_loses_nothing(database_url: str) -> None:
    """The client is counted, because it had one; the day to come has a call of before it had."""

    async def work(at: Office) -> None:
        await at.set(timezone="Pacific/Auckland")
        at.clock.now_ms = instant("2026-11-30T13:00")
        await at.spend(1, 3_000)
        await at.set(timezone="America/New_York", daily_quota=5_000)
        await at.set(daily_quota=None)
        await at.set(timezone="UTC")
        at.clock.now_ms = instant("2026-12-01T00:30")
        await at.spend(2, 500)
        await at.set(daily_quota=5_000)
        assert await at.shown() == [("client1", "2026-12-01", 5_000, 3_500, 0, 70)]

    at_office(database_url, work)
