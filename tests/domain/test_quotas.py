"""What a quota leaves, whom it refuses, what is told of it: the arithmetic alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astcredit.domain.quotas import (
    Quota,
    QuotaLimits,
    Usage,
    allowed,
    refusal,
    refusing,
    used_up,
    watched,
)

MONTH, DAY = "2027-01", "2027-01-15"
NOW_MS = 1_800_000_000_000
"""2027-01-15 08:00 UTC."""

amounts = st.integers(0, 10**15)
usages = st.builds(
    lambda waived, counted, reserved: Usage(
        spent=waived + counted, waived=waived, reserved=reserved
    ),
    amounts,
    amounts,
    amounts,
)


@pytest.mark.parametrize(
    ("usage", "most", "left"),
    [
        (Usage(), 100, 100),
        (Usage(spent=30), 100, 70),
        (Usage(spent=30, reserved=50), 100, 20),
        (Usage(spent=50, reserved=50), 100, 0),
        (Usage(spent=99), 100, 1),
        (Usage(spent=101), 100, 0),  # the quota was lowered
        (Usage(spent=80, reserved=50), 100, 0),
        (Usage(spent=80, waived=80, reserved=50), 100, 50),  # reset: what is reserved counts
        (Usage(), 0, 0),
    ],
)
def test_what_is_left_counts_spent_and_reserved(usage: Usage, most: int, left: int) -> None:
    assert usage.left(Quota(MONTH, most)) == left


@pytest.mark.parametrize(
    ("usage", "most", "ended", "used"),
    [
        (Usage(), 100, 0, 0),
        (Usage(spent=1, reserved=1), 1000, 0, 0),
        (Usage(spent=799), 1000, 79, 79),
        (Usage(spent=800), 1000, 80, 80),
        (Usage(spent=800, reserved=199), 1000, 80, 99),
        (Usage(spent=800, reserved=200), 1000, 80, 100),
        (Usage(spent=2500), 1000, 250, 250),
        (Usage(spent=900, waived=900), 1000, 0, 0),
        (Usage(), 0, 100, 100),
    ],
)
def test_percent_is_whole_and_rounded_down(usage: Usage, most: int, ended: int, used: int) -> None:
    quota = Quota(MONTH, most)
    assert (usage.percent(quota), usage.percent_used(quota)) == (ended, used)


@given(usages, amounts, amounts)
def test_what_is_left_can_be_reserved_and_not_a_micro_unit_more(
    usage: Usage, most: int, price: int
) -> None:
    quota = Quota(DAY, most)
    left = usage.left(quota)
    reserved = usage.reserve(left, quota)
    assert reserved.left(quota) == 0
    assert reserved.quota == most
    assert reserved.counted + reserved.reserved == max(most, usage.counted + usage.reserved)
    paid = min(price, left)
    settled = reserved.settle(left, paid)
    assert (settled.spent, settled.reserved) == (usage.spent + paid, usage.reserved)
    assert settled.waived == usage.waived


def test_both_periods_are_counted_where_there_is_one_quota() -> None:
    """So that the other can be set at any time."""
    assert QuotaLimits(monthly=1).periods(NOW_MS) == (MONTH, DAY)
    assert QuotaLimits(daily=0).periods(NOW_MS) == (MONTH, DAY)
    assert QuotaLimits().periods(NOW_MS) == ()


def test_who_had_a_quota_once_is_counted_without_one() -> None:
    limits = QuotaLimits(counted=True)
    assert limits.periods(NOW_MS) == (MONTH, DAY)
    assert not limits
    assert list(limits.at(NOW_MS)) == []


def test_the_quotas_in_force() -> None:
    both = QuotaLimits(monthly=100, daily=10)
    assert list(both.at(NOW_MS)) == [Quota(MONTH, 100), Quota(DAY, 10)]
    assert [quota.kind for quota in both.at(NOW_MS)] == ["monthly", "daily"]
    assert list(QuotaLimits(daily=10).at(NOW_MS)) == [Quota(DAY, 10)]
    assert both.quota_of("2020-02") == Quota("2020-02", 100)
    assert both.quota_of("2020-02-03") == Quota("2020-02-03", 10)
    assert QuotaLimits(daily=10).quota_of(MONTH) is None


@pytest.mark.parametrize(
    ("period", "written", "most"),
    [
        (MONTH, 5, 100),
        (DAY, None, 10),
        ("2026-12", 5, 5),
        ("2026-12", None, None),
        ("2027-01-14", 7, 7),
        ("2027-01-16", 7, 7),  # it was tomorrow already, in another time zone
    ],
)
def test_a_period_that_is_not_the_current_one_keeps_its_quota(
    period: str, written: int | None, most: int | None
) -> None:
    expected = None if most is None else Quota(period, most)
    assert QuotaLimits(100, 10).quota_for(period, Usage(written), NOW_MS) == expected
    assert QuotaLimits().quota_for(DAY, Usage(7), NOW_MS) is None


def test_the_periods_are_those_of_the_client() -> None:
    """22:30 in UTC on the last day of the year is the new year in Auckland."""
    instant = 1_798_756_200_000
    zones = ("UTC", "Pacific/Auckland", "America/New_York")
    assert [QuotaLimits(1, timezone=zone).periods(instant) for zone in zones] == [
        ("2026-12", "2026-12-31"),
        ("2027-01", "2027-01-01"),
        ("2026-12", "2026-12-31"),
    ]


MONTHLY, DAILY = Quota(MONTH, 100), Quota(DAY, 10)


@pytest.mark.parametrize(
    ("spent", "left"),
    [
        ({}, 10),
        ({MONTH: 95}, 5),
        ({DAY: 7, MONTH: 7}, 3),
        ({DAY: 10, MONTH: 50}, 0),
        ({MONTH: 120}, 0),
        ({"2026-12": 100, "2027-01-14": 10}, 10),  # other periods
    ],
)
def test_the_tighter_quota_bounds(spent: dict[str, int], left: int) -> None:
    usages = {period: Usage(spent=amount) for period, amount in spent.items()}
    assert allowed([MONTHLY, DAILY], usages) == left


def test_without_a_quota_nothing_bounds() -> None:
    assert allowed([], {}) is None
    assert refusing([], {}, 10**18) is None


def test_a_quota_refuses_what_it_does_not_pay() -> None:
    usages = {MONTH: Usage(spent=92), DAY: Usage(spent=1)}
    assert refusing([MONTHLY, DAILY], usages, 8) is None
    assert refusing([MONTHLY, DAILY], usages, 9) == MONTHLY
    assert refusing([DAILY], usages, 10) == DAILY
    assert refusing([Quota(DAY, 0)], {}, 0) is None  # a call that costs nothing passes
    assert refusing([Quota(DAY, 0)], {}, 1) == Quota(DAY, 0)


@pytest.mark.parametrize(
    ("least", "used"), [(1, ()), (8, ()), (9, (MONTHLY,)), (10, (MONTHLY, DAILY))]
)
def test_a_quota_is_used_up_by_ended_calls_alone(least: int, used: tuple[Quota, ...]) -> None:
    usages = {
        MONTH: Usage(spent=100, waived=8, reserved=8),
        DAY: Usage(spent=1, reserved=9),
    }
    assert used_up([MONTHLY, DAILY], usages, least) == used
    assert used_up([MONTHLY, DAILY], {}, 10) == ()
    assert used_up([Quota(DAY, 0)], {}, 1) == (Quota(DAY, 0),)


def test_a_refusal_names_quota_period_and_usage() -> None:
    usages = {DAY: Usage(spent=9_500_000, waived=1_000_000, reserved=1_000_001)}
    assert refusal(Quota(DAY, 10_000_000), usages, "EUR") == (
        "daily quota 10.00 EUR for 2027-01-15: 8.50 spent, 1.000001 reserved"
    )
    assert refusal(Quota(MONTH, 0), {}, "USD") == (
        "monthly quota 0.00 USD for 2027-01: 0.00 spent, 0.00 reserved"
    )


def thresholds_told(
    usage: Usage, quota: Quota, *, blocked: bool = False
) -> tuple[Usage, list[int]]:
    seen, passed = watched(usage, quota, (100, 80), NOW_MS, blocked=blocked)
    return seen, [p.threshold for p in passed]


@pytest.mark.parametrize(
    ("spent", "told_before", "blocked", "told_now"),
    [
        (79, 0, False, []),
        (80, 0, False, [80]),
        (99, 0, False, [80]),
        (99, 80, False, []),
        (100, 80, False, [100]),
        (100, 0, False, [80, 100]),
        (500, 100, False, []),
        (85, 100, False, []),  # the quota was raised: of this threshold was told
        (97, 80, True, [100]),  # refused: what is left does not pay
        (80, 0, True, [80, 100]),
        (79, 0, True, []),  # a dear call: much of the quota is left
        (97, 100, True, []),
    ],
)
def test_of_each_threshold_is_told_once(
    spent: int, told_before: int, blocked: bool, told_now: list[int]
) -> None:
    usage = Usage(spent=spent, told=told_before)
    seen, told = thresholds_told(usage, MONTHLY, blocked=blocked)
    assert told == told_now
    assert seen.told == max([told_before, *told_now])
    assert thresholds_told(seen, MONTHLY, blocked=blocked)[1] == []


def test_what_is_reserved_passes_no_threshold() -> None:
    """A call's reservation may be a hundred times what it will cost."""
    assert thresholds_told(Usage(spent=10, reserved=90), MONTHLY)[1] == []


def test_times_over_a_threshold_are_kept() -> None:
    below, _ = thresholds_told(Usage(spent=79), MONTHLY)
    assert (below.first_over_ms, below.last_over_ms, below.blocked_ms) == (None, None, None)
    assert below.quota == 100
    first, _ = thresholds_told(Usage(spent=80), MONTHLY)
    assert (first.first_over_ms, first.last_over_ms, first.blocked_ms) == (NOW_MS, NOW_MS, None)
    later, _ = watched(first, MONTHLY, (80,), NOW_MS + 5, blocked=True)
    assert (later.first_over_ms, later.last_over_ms) == (NOW_MS, NOW_MS + 5)
    assert later.blocked_ms == NOW_MS + 5
    again, _ = watched(later, MONTHLY, (80,), NOW_MS + 9, blocked=True)
    assert again.blocked_ms == NOW_MS + 5


@pytest.mark.parametrize(
    ("usage", "most", "blocked_ms"),
    [
        (Usage(spent=99), 100, None),
        (Usage(spent=99, reserved=50), 100, None),
        (Usage(spent=100), 100, NOW_MS),
        (Usage(spent=120), 100, NOW_MS),
        (Usage(spent=120, waived=21), 100, None),
        (Usage(spent=100, blocked_ms=5), 100, 5),
        (Usage(), 0, NOW_MS),
    ],
)
def test_who_has_spent_all_is_blocked_though_nobody_was_refused(
    usage: Usage, most: int, blocked_ms: int | None
) -> None:
    seen, _ = watched(usage, Quota(MONTH, most), (), NOW_MS, blocked=False)
    assert seen.blocked_ms == blocked_ms


def test_a_call_that_could_be_made_is_the_end_of_being_blocked() -> None:
    usage = Usage(spent=97, blocked_ms=5)
    assert usage.reserve(0, MONTHLY).blocked_ms == 5
    assert usage.reserve(1, MONTHLY).blocked_ms is None


@pytest.mark.parametrize(
    ("blocked_ms", "before", "after", "expected"),
    [
        (5, 100, 97, 5),
        (None, 100, 97, NOW_MS),
        (None, None, 50, NOW_MS),
        (5, 90, 97, 5),  # raised, and still nothing is left
        (5, 90, 98, None),
        (5, 98, 98, 5),  # what is left did not pay for a call
        (5, 100, 98, 5),
        (None, 100, 98, None),
        (5, None, 98, None),
        (5, 90, None, None),
    ],
)
def test_a_new_quota_blocks_or_blocks_no_longer(
    blocked_ms: int | None, before: int | None, after: int | None, expected: int | None
) -> None:
    usage = Usage(before, spent=100, waived=3, blocked_ms=blocked_ms)
    old, new = (None if most is None else Quota(MONTH, most) for most in (before, after))
    assert usage.under(new, old, NOW_MS) == replace(usage, quota=after, blocked_ms=expected)


@pytest.mark.parametrize(
    ("amount", "booked_ms", "spent", "waived"),
    [
        (-40, NOW_MS - 1, 60, 20),
        (-40, NOW_MS, 60, 20),
        (-40, NOW_MS + 1, 60, 60),
        (-60, NOW_MS - 1, 40, 0),
        (5, NOW_MS - 1, 105, 65),
        (5, NOW_MS + 1, 105, 60),
        (-40, None, 60, 60),
    ],
)
def test_a_correction_of_a_call_from_before_a_reset_is_waived(
    amount: int, booked_ms: int | None, spent: int, waived: int
) -> None:
    usage = replace(Usage(spent=60).reset(MONTHLY, NOW_MS), spent=100)
    corrected = usage.correct(amount, booked_ms, MONTHLY)
    assert (corrected.spent, corrected.waived) == (spent, waived)


def test_no_more_is_waived_than_was_spent_though_nobody_knows_when_it_was_reset() -> None:
    """Rows that were reset before it was noted when."""
    corrected = Usage(spent=100, waived=100).correct(-40, NOW_MS, None)
    assert (corrected.spent, corrected.waived) == (60, 60)


def test_a_refund_frees_where_it_leaves_something() -> None:
    usage = Usage(spent=100, waived=3, blocked_ms=5)
    quotas = [Quota(MONTH, 96), Quota(MONTH, 97), None]
    assert [usage.correct(-1, 1, q).blocked_ms for q in quotas] == [5, None, None]
    assert usage.correct(1, 1, Quota(MONTH, 200)).blocked_ms == 5


def test_without_a_quota_nothing_is_watched() -> None:
    usage = Usage(spent=10**9)
    assert watched(usage, None, (80,), NOW_MS, blocked=False) == (usage, [])


@pytest.mark.parametrize(
    ("thresholds", "spent", "told"),
    [
        ((), 1, []),
        ((150,), 1, []),
        ((100,), 1, [100]),
        ((80, 100), 80, [80, 100]),
        ((50,), 50, [50]),
        ((90, 80, 100, 120), 90, [80, 90, 100]),
    ],
)
def test_a_refusal_passes_the_threshold_of_a_hundred(
    thresholds: tuple[int, ...], spent: int, told: list[int]
) -> None:
    seen, passed = watched(Usage(spent=spent), MONTHLY, thresholds, NOW_MS, blocked=True)
    assert [p.threshold for p in passed] == told
    assert seen.blocked_ms == NOW_MS


@pytest.mark.parametrize("thresholds", [(80, 100), (80,), (50, 80, 100)])
def test_a_dear_call_that_is_refused_says_nothing_of_what_was_spent(
    thresholds: tuple[int, ...],
) -> None:
    seen, passed = watched(Usage(spent=79), MONTHLY, thresholds, NOW_MS, blocked=True)
    assert [p.threshold for p in passed if p.threshold > 79] == []
    assert seen.blocked_ms is None
