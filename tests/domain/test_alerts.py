"""What is told, in which words, and that a low balance is told once until it was above."""

from __future__ import annotations

from dataclasses import replace

import pytest

from astcredit.domain.alerts import AlertKind, low_balance, quota_alerts
from astcredit.domain.books import ClientBooks, LedgerKind
from astcredit.domain.instants import parse_instant
from astcredit.domain.money import parse_amount
from astcredit.domain.notices import SAMPLES
from astcredit.domain.quotas import Passed, Quota, Usage
from support.core import postpaid, prepaid

NOW_MS = 1_800_000_000_000
LIMIT = 5_000_000


def watching(balance: int, told: bool = False) -> ClientBooks:
    return replace(prepaid(7, balance), low_balance=LIMIT, low_balance_told=told)


def booked(client: ClientBooks, amount: int) -> ClientBooks:
    return client.post(LedgerKind.TOPUP, amount, reference="r", actor="a", now_ms=NOW_MS)[0]


def test_a_threshold_of_a_quota_in_words() -> None:
    usage = Usage(spent=9_000_000, waived=500_000, reserved=250_000)
    (alert,) = quota_alerts(17, [Passed(Quota("2027-01", 10_000_000), 80, usage)], NOW_MS)
    assert (alert.kind, alert.client_id, alert.at_ms) == (AlertKind.QUOTA, 17, NOW_MS)
    assert alert.reference == "quota:17:2027-01:80"
    assert alert.facts == {
        "kind": "monthly",
        "period": "2027-01",
        "quota": "10.000000",
        "spent": "8.500000",
        "reserved": "0.250000",
        "remaining": "1.250000",
        "percent": "85",
        "threshold": "80",
        "at": "2027-01-15 08:00:00.000",
    }


def test_the_samples_of_a_template_are_facts_as_they_come() -> None:
    """Whoever looks at a template sees figures that agree with one another."""
    sample = SAMPLES[AlertKind.QUOTA]
    quota = Quota(sample["period"], parse_amount(sample["quota"]))
    usage = Usage(spent=parse_amount(sample["spent"]), reserved=parse_amount(sample["reserved"]))
    at_ms = parse_instant(sample["at"])
    (alert,) = quota_alerts(1, [Passed(quota, int(sample["threshold"]), usage)], at_ms)
    names = {"client": sample["client"], "currency": sample["currency"]}
    assert {**names, **alert.facts} == sample


def test_each_threshold_period_and_client_has_a_reference_of_its_own() -> None:
    passed = [
        Passed(Quota(period, 1), threshold, Usage())
        for period in ("2027-01", "2027-01-15", "2027-02")
        for threshold in (80, 100)
    ]
    references = [a.reference for id in (1, 11) for a in quota_alerts(id, passed, NOW_MS)]
    assert len(set(references)) == 12
    assert references == [a.reference for id in (1, 11) for a in quota_alerts(id, passed, 0)]


@pytest.mark.parametrize(
    ("client", "told"),
    [
        (watching(LIMIT), False),
        (watching(LIMIT - 1), True),
        (watching(LIMIT - 1, told=True), False),
        (watching(-1), True),
        (prepaid(7, 0), False),  # nobody asked to be told
        (replace(postpaid(7, -(10**9)), low_balance=LIMIT), False),  # it has nothing to run out of
        (replace(watching(-1), low_balance=0), True),
        (replace(watching(0), low_balance=0), False),
    ],
)
def test_who_is_told_of_a_low_balance(client: ClientBooks, told: bool) -> None:
    after, alerts = low_balance(client, NOW_MS)
    assert len(alerts) == told
    assert after.low_balance_told == (told or client.low_balance_told)
    assert low_balance(after, NOW_MS)[1] == []


def test_a_low_balance_in_words() -> None:
    client = booked(watching(0), 4_999_999)
    (alert,) = low_balance(client, NOW_MS)[1]
    assert (alert.kind, alert.client_id) == (AlertKind.LOW_BALANCE, 7)
    assert alert.facts == {
        "balance": "4.999999",
        "threshold": "5.000000",
        "at": "2027-01-15 08:00:00.000",
    }


def test_it_is_told_again_only_after_it_was_above() -> None:
    told, (first,) = low_balance(booked(watching(10_000_000), -6_000_000), NOW_MS)
    still_low = booked(told, 500_000)
    assert low_balance(still_low, NOW_MS) == (still_low, [])
    above = booked(still_low, 1_000_000)
    assert not above.low_balance_told
    (second,) = low_balance(booked(above, -600_000), NOW_MS)[1]
    assert first.reference != second.reference
