"""Quotas in the authorization itself: how long, who is refused and why, and in which period.

alice and alan are client 1's; a second costs a thousandth, the longest call 3.60.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import pytest

from astcredit.domain.books import ClientBooks, LedgerKind
from astcredit.domain.calls import AuthStatus
from astcredit.domain.catalog import Catalog
from astcredit.domain.decisions import Decision
from astcredit.domain.quotas import Usage
from astcredit.domain.rating import Rate
from astcredit.service.operations import Expire, Outcome, Undelivered
from support.core import (
    EMERGENCY,
    LONGEST_SECONDS,
    NOW_MS,
    answered,
    call_id,
    caller_ended,
    catalog_of,
    leg_ended,
    postpaid,
    prepaid,
    rate_table,
    request,
)
from support.plans import Exchange, routed, told

SECOND = 1_000
LONGEST = LONGEST_SECONDS * SECOND
MONTH, DAY = "2027-01", "2027-01-15"
FREE = Rate("49", "Germany", 0)
MINUTES = Rate("33", "France", 60_000, 0, 60, 60)
CATALOG = catalog_of(tables=[rate_table(Rate("44", "United Kingdom", 60_000), FREE, MINUTES)])


def with_quota(
    monthly: int | None = None,
    daily: int | None = None,
    timezone: str = "UTC",
    client: ClientBooks | None = None,
) -> ClientBooks:
    """Client 1, postpaid and without a limit unless given, with quotas in micros."""
    return replace(
        client or postpaid(1), monthly_quota=monthly, daily_quota=daily, timezone=timezone
    )


def bound(kind: str, most: int, timezone: str = "UTC") -> ClientBooks:
    """The same with a quota of one kind."""
    if kind == "monthly":
        return with_quota(monthly=most, timezone=timezone)
    return with_quota(daily=most, timezone=timezone)


def exchange(client: ClientBooks, catalog: Catalog = CATALOG) -> Exchange:
    others = [postpaid(id) for id in (2, 3, 4)]
    return Exchange(catalog, [client, *others])


def seconds(outcomes: Sequence[Outcome]) -> list[int]:
    return [outcome.seconds for outcome in outcomes if isinstance(outcome, Decision)]


def reason(outcome: Outcome) -> str:
    assert isinstance(outcome, Decision)
    return outcome.reason


def spend(it: Exchange, number: int, talk_seconds: int) -> None:
    """A call of so many seconds, from its answer to its end, at this instant."""
    it.play(
        request(number),
        answered(number, it.clock.now_ms),
        leg_ended(number, it.clock.now_ms + talk_seconds * 1000),
    )


def usage(it: Exchange, period: str) -> Usage:
    return it.books.usages[1, period]


@pytest.mark.parametrize("together", [True, False], ids=["together", "one by one"])
@pytest.mark.parametrize("kind", ["monthly", "daily"])
@pytest.mark.parametrize("left_over", [0, 7])
def test_fifty_at_once_share_a_quota_of_four_longest_calls(
    kind: str, left_over: int, together: bool
) -> None:
    most = 4 * LONGEST + left_over * SECOND
    it = exchange(bound(kind, most))
    outcomes = it.play(*(request(n) for n in range(50)), together=together)
    allowed = 4 + (left_over > 0)
    assert told(outcomes) == ["ALLOWED"] * allowed + ["QUOTA"] * (50 - allowed)
    assert seconds(outcomes)[:allowed] == [3600] * 4 + [7] * (left_over > 0)
    held = sum(call.reserved for call in it.books.calls.values())
    assert held == most == usage(it, MONTH).reserved == usage(it, DAY).reserved


def test_a_refusal_says_which_quota_and_what_is_used_of_it() -> None:
    it = exchange(with_quota(monthly=10 * LONGEST, daily=LONGEST + 10 * SECOND))
    spend(it, 1, 10)
    refused = it.play(request(2), request(3))[1]
    assert told([refused]) == ["QUOTA"]
    assert reason(refused) == "daily quota 3.61 EUR for 2027-01-15: 0.01 spent, 3.60 reserved"
    assert it.books.cdrs[call_id(3)].denied == "QUOTA"


@pytest.mark.parametrize(
    ("monthly", "daily", "allowed"),
    [(100, None, 100), (None, 50, 50), (100, 50, 50), (30, 50, 30), (9_000, 8_000, 3600)],
)
def test_the_tighter_quota_cuts_the_seconds(
    monthly: int | None, daily: int | None, allowed: int
) -> None:
    most = [None if s is None else s * SECOND for s in (monthly, daily)]
    it = exchange(with_quota(most[0], most[1]))
    assert seconds(it.play(request(1))) == [allowed]


def test_money_and_quota_bind_together() -> None:
    it = exchange(with_quota(monthly=100 * SECOND, client=prepaid(1, 40 * SECOND)))
    assert seconds(it.play(request(1))) == [40]
    it = exchange(with_quota(monthly=40 * SECOND, client=prepaid(1, 100 * SECOND)))
    assert seconds(it.play(request(1))) == [40]
    it = exchange(with_quota(monthly=40 * SECOND, client=postpaid(1, 0, 30 * SECOND)))
    assert seconds(it.play(request(1))) == [30]


def test_a_quota_pays_whole_increments_only() -> None:
    it = exchange(with_quota(daily=119_999))
    outcomes = it.play(request(1, dialled="33123"), request(2, dialled="33123"))
    assert seconds(outcomes) == [60, 0]
    assert told(outcomes) == ["ALLOWED", "QUOTA"]
    assert told(it.play(request(3))) == ["ALLOWED"]  # by the second: 59 of them


def test_postpaid_clients_without_a_limit_are_bound_by_the_quota_alone() -> None:
    it = exchange(with_quota(monthly=20 * SECOND))
    spend(it, 1, 12)
    assert it.books.clients[1].balance == -12 * SECOND
    assert seconds(it.play(request(2))) == [8]


def test_a_quota_of_nothing_lets_pass_what_costs_nothing() -> None:
    it = exchange(with_quota(monthly=0, daily=0))
    dialled = ["442071234567", "4930123456", EMERGENCY, "33123"]
    outcomes = it.play(*(request(n, dialled=number) for n, number in enumerate(dialled)))
    assert told(outcomes) == ["QUOTA", "ALLOWED", "ALLOWED", "QUOTA"]


def test_a_used_up_quota_lets_pass_what_costs_nothing() -> None:
    it = exchange(with_quota(daily=5 * SECOND))
    spend(it, 1, 5)
    outcomes = it.play(request(2), request(3, dialled=EMERGENCY), request(4, dialled="4930123456"))
    assert told(outcomes) == ["QUOTA", "ALLOWED", "ALLOWED"]
    assert seconds(outcomes)[1:] == [LONGEST_SECONDS] * 2


def test_it_is_the_clients_quota_whatever_account_calls_and_nobody_elses() -> None:
    it = exchange(with_quota(daily=10 * SECOND))
    outcomes = it.play(request(1, "alice"), request(2, "alan"), request(3, "bob"))
    assert told(outcomes) == ["ALLOWED", "QUOTA", "ALLOWED"]


@pytest.mark.parametrize(
    ("capacity", "quota", "balance", "status"),
    [
        (0, 0, 0, AuthStatus.CAPACITY),
        (0, 0, 10**9, AuthStatus.CAPACITY),
        (None, 0, 0, AuthStatus.QUOTA),
        (None, 0, 10**9, AuthStatus.QUOTA),
        (None, 10**9, 0, AuthStatus.NOCREDIT),
        (None, 10**9, 10**9, AuthStatus.ALLOWED),
    ],
)
def test_capacity_is_asked_before_the_quota_and_the_quota_before_the_credit(
    capacity: int | None, quota: int, balance: int, status: AuthStatus
) -> None:
    it = exchange(
        with_quota(monthly=quota, client=prepaid(1, balance)), routed({"client:1:orig": capacity})
    )
    assert told(it.play(request(1))) == [status.value]


def test_a_refusal_before_the_quota_blocks_nobody() -> None:
    """What capacity or a wrong number refuses is not the quota's doing."""
    it = exchange(with_quota(monthly=0), routed({"client:1:orig": 0}))
    it.play(request(1), request(2, dialled="999"), request(3, accountcode="mallory"))
    assert it.books.usages == {}
    assert it.books.alerts == []


ENDS = {
    "talked": (lambda: [answered(1), leg_ended(1, NOW_MS + 2_500)], 3 * SECOND),
    "busy": (lambda: [caller_ended(1)], 0),
    "undelivered": (lambda: [Undelivered(call_id(1), NOW_MS)], 0),
    "cut late": (lambda: [answered(1), leg_ended(1, NOW_MS + 10_070)], 10 * SECOND),
}


@pytest.mark.parametrize(("end", "cost"), ENDS.values(), ids=ENDS)
def test_what_a_call_did_not_cost_is_free_again_at_once(end: object, cost: int) -> None:
    it = exchange(with_quota(daily=10 * SECOND))
    it.play(request(1))
    assert told(it.play(request(2))) == ["QUOTA"]
    assert callable(end)
    it.play(*end(), *end(), together=False)  # each of them twice
    assert (usage(it, DAY).spent, usage(it, DAY).reserved) == (cost, 0)
    assert seconds(it.play(request(3))) == [10 - cost // SECOND]


def test_an_expired_call_is_counted_in_the_period_in_which_it_began() -> None:
    it = exchange(with_quota(daily=10 * SECOND))
    it.play(request(1), answered(1))
    it.clock.now_ms += 100 * 86_400_000
    it.play(Expire(call_id(1), it.clock.now_ms))
    assert usage(it, DAY) == replace(usage(it, DAY), spent=10 * SECOND, reserved=0)
    assert set(it.books.usages) == {(1, MONTH), (1, DAY)}


MIDNIGHTS = {
    # The last day of the month has 23 hours, and the offset of the summer at its end.
    "Europe/Berlin": ("2024-03-31", "2024-04-01", "2024-03-31T22:00+00:00"),
    # The clock goes back two hours after the month has begun.
    "America/New_York": ("2026-10-31", "2026-11-01", "2026-11-01T04:00+00:00"),
    "Pacific/Auckland": ("2026-11-30", "2026-12-01", "2026-11-30T11:00+00:00"),
    "Asia/Kathmandu": ("2026-11-30", "2026-12-01", "2026-11-30T18:15+00:00"),
}
"""The days before and after a month's end, and the instant between them."""


@pytest.mark.parametrize("zone", MIDNIGHTS)
@pytest.mark.parametrize("kind", ["monthly", "daily"])
def test_a_call_across_midnight_at_the_months_end_is_of_the_month_in_which_it_began(
    zone: str, kind: str
) -> None:
    day, next_day, at = MIDNIGHTS[zone]
    midnight = round(datetime.fromisoformat(at).timestamp() * 1000)
    it = exchange(bound(kind, 60 * SECOND, zone))
    it.clock.now_ms = midnight - 1
    assert seconds(it.play(request(1))) == [60]
    assert told(it.play(request(2))) == ["QUOTA"]
    it.clock.now_ms = midnight  # nothing has to run for everybody to be free again
    assert seconds(it.play(request(3))) == [60]
    assert told(it.play(request(4))) == ["QUOTA"]
    it.play(answered(1, midnight), leg_ended(1, midnight + 50_000))
    it.play(answered(3, midnight), leg_ended(3, midnight + 20_000))
    assert seconds(it.play(request(5))) == [40]  # what the first one gave back is of the past
    spent = {period: used.spent // SECOND for (_, period), used in it.books.usages.items()}
    assert spent == {day[:7]: 50, day: 50, next_day[:7]: 20, next_day: 20}


def test_a_new_day_within_the_month_frees_the_day_and_not_the_month() -> None:
    it = exchange(with_quota(monthly=50 * SECOND, daily=30 * SECOND))
    spend(it, 1, 30)
    assert told(it.play(request(2))) == ["QUOTA"]
    it.clock.now_ms += 86_400_000
    assert seconds(it.play(request(3))) == [20]


def changed(it: Exchange, **changes: int | str | bool | None) -> None:
    """The client's row as an administrator's transaction leaves it."""
    it.books.clients[1] = replace(it.books.clients[1], **changes)  # type: ignore[arg-type]


def test_a_raise_in_mid_month_is_in_force_for_the_next_call() -> None:
    it = exchange(with_quota(monthly=10 * SECOND))
    spend(it, 1, 10)
    assert told(it.play(request(2))) == ["QUOTA"]
    changed(it, monthly_quota=25 * SECOND)
    assert seconds(it.play(request(3))) == [15]


def test_a_quota_lowered_below_what_is_used_leaves_running_calls_alone() -> None:
    it = exchange(with_quota(monthly=100 * SECOND))
    it.play(request(1), answered(1))
    changed(it, monthly_quota=5 * SECOND)
    assert told(it.play(request(2))) == ["QUOTA"]
    assert it.books.calls[call_id(1)].seconds == 100
    it.play(leg_ended(1, NOW_MS + 80_000))
    assert usage(it, MONTH).spent == 80 * SECOND
    assert told(it.play(request(3))) == ["QUOTA"]


def test_a_waiver_frees_what_was_spent_and_not_what_is_reserved() -> None:
    it = exchange(with_quota(daily=100 * SECOND))
    spend(it, 1, 60)
    it.play(request(2))
    changed_usage = replace(usage(it, DAY), waived=60 * SECOND)
    it.books.usages[1, DAY] = changed_usage
    assert seconds(it.play(request(3))) == [60]
    assert told(it.play(request(4))) == ["QUOTA"]


def test_a_quota_taken_away_is_counted_on() -> None:
    """So that it can be set again, and finds what was spent in between."""
    it = exchange(with_quota(daily=10 * SECOND))
    spend(it, 1, 10)
    changed(it, daily_quota=None, quota_counted=True)
    spend(it, 2, 100)
    assert told(it.play(request(3), Undelivered(call_id(3), NOW_MS))) == ["ALLOWED"]
    changed(it, daily_quota=115 * SECOND)
    assert seconds(it.play(request(4))) == [5]


def test_who_never_had_a_quota_has_no_rows_and_is_not_asked_about() -> None:
    it = exchange(postpaid(1))
    spend(it, 1, 10)
    it.play(request(2))
    assert it.books.usages == {}
    assert it.books.calls[call_id(2)].periods == ()


def test_another_time_zone_leaves_calls_in_the_day_in_which_they_began() -> None:
    it = exchange(with_quota(daily=100 * SECOND))
    it.play(request(1))
    changed(it, timezone="Pacific/Auckland")
    it.clock.now_ms += 4 * 3_600_000  # noon in UTC, an hour into the 16th in Auckland
    assert seconds(it.play(request(2))) == [100]
    it.play(caller_ended(1, it.clock.now_ms))
    assert [(p, u.reserved) for (_, p), u in it.books.usages.items() if len(p) > 7] == [
        ("2027-01-15", 0),
        ("2027-01-16", 100 * SECOND),
    ]


def references(it: Exchange) -> list[str]:
    return [alert.reference for alert in it.books.alerts]


def test_each_threshold_is_told_once_in_each_period() -> None:
    it = exchange(with_quota(daily=10 * SECOND))
    for number, talk in enumerate([7, 1, 1], 1):
        spend(it, number, talk)
    assert references(it) == [f"quota:1:{DAY}:80"]
    spend(it, 4, 1)
    it.play(request(5), request(6))
    it.play(request(7))
    assert references(it) == [f"quota:1:{DAY}:80", f"quota:1:{DAY}:100"]
    assert usage(it, DAY).blocked_ms == NOW_MS
    it.clock.now_ms += 86_400_000
    spend(it, 8, 9)
    assert references(it)[2:] == ["quota:1:2027-01-16:80"]


@pytest.mark.parametrize("later", [5 * SECOND, 100 * SECOND, None])
def test_a_call_that_ends_late_is_held_against_the_quota_of_its_day(later: int | None) -> None:
    """Whatever quota was set on the day after."""
    it = exchange(with_quota(daily=10 * SECOND))
    it.play(request(1), answered(1))
    it.clock.now_ms += 86_400_000
    changed(it, daily_quota=later, monthly_quota=100 * SECOND)
    it.play(leg_ended(1, NOW_MS + 9_000))
    assert references(it) == [f"quota:1:{DAY}:80"]
    assert it.books.alerts[0].facts["quota"] == "0.010000"
    assert usage(it, DAY).quota == 10 * SECOND


def test_a_call_that_ends_late_is_held_against_no_quota_if_its_day_had_none() -> None:
    it = exchange(with_quota(monthly=100 * SECOND))
    it.play(request(1), answered(1))
    it.clock.now_ms += 86_400_000
    changed(it, daily_quota=SECOND)
    it.play(leg_ended(1, NOW_MS + 9_000))
    assert references(it) == []
    assert usage(it, DAY).quota is None


def test_month_and_day_are_told_of_apart() -> None:
    it = exchange(with_quota(monthly=10 * SECOND, daily=8 * SECOND))
    spend(it, 1, 8)
    assert Counter(references(it)) == Counter(
        [f"quota:1:{MONTH}:80", f"quota:1:{DAY}:80", f"quota:1:{DAY}:100"]
    )


def test_a_refusal_for_what_is_reserved_tells_of_nothing() -> None:
    """It may all be free again in a minute. What is told of is the spending, when it comes."""
    it = exchange(with_quota(daily=10 * SECOND))
    it.play(request(1))
    assert told(it.play(request(2))) == ["QUOTA"]
    assert references(it) == []
    assert (usage(it, DAY).first_over_ms, usage(it, DAY).told) == (None, 0)
    it.play(answered(1), leg_ended(1, NOW_MS + 9_000))
    spend(it, 3, 1)
    assert references(it) == [f"quota:1:{DAY}:80", f"quota:1:{DAY}:100"]
    assert [alert.facts["percent"] for alert in it.books.alerts] == ["90", "100"]


def test_a_refusal_tells_of_the_last_threshold_where_ended_calls_leave_too_little() -> None:
    """What is left does not pay, and would not with nothing reserved."""
    it = exchange(with_quota(daily=119_999))
    spend(it, 1, 60)
    assert told(it.play(request(2, dialled="33123"))) == ["QUOTA"]
    assert (references(it), usage(it, DAY).blocked_ms) == ([], None)  # it was a dear call
    spend(it, 3, 40)
    assert references(it) == [f"quota:1:{DAY}:80"]
    assert told(it.play(request(4, dialled="33123"))) == ["QUOTA"]
    assert references(it) == [f"quota:1:{DAY}:80", f"quota:1:{DAY}:100"]
    assert [alert.facts["percent"] for alert in it.books.alerts] == ["83", "83"]


def test_who_is_blocked_by_reservations_is_not_when_they_are_released() -> None:
    it = exchange(with_quota(daily=10 * SECOND))
    it.play(request(1))
    assert told(it.play(request(2))) == ["QUOTA"]
    assert usage(it, DAY).blocked_ms is None
    it.play(caller_ended(1))
    assert (usage(it, DAY).blocked_ms, usage(it, DAY).last_over_ms) == (None, None)


def test_who_has_spent_all_is_blocked_from_the_end_of_that_call_on() -> None:
    it = exchange(with_quota(daily=10 * SECOND))
    it.clock.now_ms += 7
    spend(it, 1, 10)
    assert usage(it, DAY).blocked_ms == NOW_MS + 7
    it.clock.now_ms += 7
    it.play(request(2))
    assert usage(it, DAY).blocked_ms == NOW_MS + 7
    assert usage(it, MONTH).blocked_ms is None


def test_who_cannot_pay_a_dear_call_is_blocked_until_it_can_make_another() -> None:
    it = exchange(with_quota(daily=119_999))
    spend(it, 1, 100)
    it.play(request(2, dialled="33123"), request(3, dialled="4930123456"))  # that one is free
    assert usage(it, DAY).blocked_ms == NOW_MS
    it.play(request(4))
    assert usage(it, DAY).blocked_ms is None


def test_every_quota_that_is_used_up_is_told_of_by_one_refusal() -> None:
    it = exchange(with_quota(monthly=119_999, daily=110_000))
    spend(it, 1, 100)
    assert told(it.play(request(2, dialled="33123"))) == ["QUOTA"]
    assert Counter(references(it)) == Counter(
        f"quota:1:{period}:{t}" for period in (MONTH, DAY) for t in (80, 100)
    )


def test_after_a_raise_nobody_is_told_twice() -> None:
    it = exchange(with_quota(daily=10 * SECOND))
    spend(it, 1, 10)
    changed(it, daily_quota=20 * SECOND)
    spend(it, 2, 10)
    assert references(it) == [f"quota:1:{DAY}:80", f"quota:1:{DAY}:100"]


def test_a_low_balance_is_told_once_and_again_after_a_top_up() -> None:
    it = exchange(replace(prepaid(1, 100 * SECOND), low_balance=50 * SECOND))
    for number in (1, 2, 3):
        spend(it, number, 25)
    assert len(it.books.alerts) == 1
    top_up(it, 10 * SECOND)  # still below
    spend(it, 4, 1)
    assert len(it.books.alerts) == 1
    top_up(it, 50 * SECOND)
    spend(it, 5, 1)
    assert len(it.books.alerts) == 1
    spend(it, 6, 40)
    assert len(it.books.alerts) == 2
    assert len(set(references(it))) == 2


def top_up(it: Exchange, amount: int) -> None:
    books, entry = it.books.clients[1].post(
        LedgerKind.TOPUP,
        amount,
        reference=f"topup:{len(it.books.ledger)}",
        actor="test",
        now_ms=NOW_MS,
    )
    it.books.clients[1] = books
    it.books.ledger.append(entry)
