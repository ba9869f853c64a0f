"""May this call be made, and for how long? Every answer, their precedence, and the money held."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astcredit.domain.books import ClientBooks
from astcredit.domain.calls import AuthStatus
from astcredit.domain.catalog import Catalog
from astcredit.domain.decisions import CAUSES, EXPIRY_SLACK_MS, Decision
from astcredit.domain.numbers import Numbering
from astcredit.domain.rating import Rate, price
from support.core import (
    EMERGENCY,
    LONGEST_SECONDS,
    NOW_MS,
    RATE,
    SETUP_SECONDS,
    account,
    catalog_of,
    decided,
    identified,
    policy,
    postpaid,
    prepaid,
    rate_table,
    request,
    settings,
)

ABROAD = Rate("49", "Germany", 600_000, 0, 60, 60)
LATER = Rate("33", "France", 1, effective_from_ms=NOW_MS + 1)
CATALOG = catalog_of(
    [
        settings(1),
        settings(2, enabled=False),
        settings(3, rate_table_id=None),
    ],
    [
        account("alice", 1, 1),
        account("off", 1, 2, enabled=False),
        account("offclient", 2, 3),
        account("norates", 3, 4),
    ],
    [rate_table(RATE, ABROAD, LATER)],
)
KNOWN_NUMBER = "442071234567"


def ask(
    accountcode: str = "alice",
    dialled: str = KNOWN_NUMBER,
    client: ClientBooks | None = None,
    catalog: Catalog = CATALOG,
) -> Decision:
    """The decision on the books of whoever is recognised, one euro unless given."""
    found = identified(catalog, accountcode)
    books = (client or prepaid(found.client_id)) if found else None
    return decided(request(1, accountcode, dialled), catalog, books)


POOR = prepaid(balance=999)
DEBTS = prepaid(balance=-1)


@pytest.mark.parametrize(
    ("accountcode", "dialled", "client", "status", "reason"),
    [
        ("alice", KNOWN_NUMBER, prepaid(), "ALLOWED", ""),
        ("alice", "+44 (20) 7123-4567", prepaid(), "ALLOWED", ""),
        ("", KNOWN_NUMBER, None, "NOACCOUNT", "by the caller's number '100'"),
        ("mallory", KNOWN_NUMBER, None, "NOACCOUNT", "'mallory'"),
        ("off", KNOWN_NUMBER, prepaid(), "DISABLED", "account 'off' is disabled"),
        ("offclient", KNOWN_NUMBER, prepaid(2), "DISABLED", "client 'client2' is disabled"),
        ("alice", "sales", prepaid(), "INVALID", "'sales'"),
        ("alice", "999", prepaid(), "INVALID", "no rate for 999 in rate table 'standard'"),
        ("alice", "331", prepaid(), "INVALID", "no rate for 331"),  # a rate of tomorrow
        ("norates", KNOWN_NUMBER, prepaid(3), "INVALID", "no enabled rate table"),
        ("alice", KNOWN_NUMBER, POOR, "NOCREDIT", "available 0.000999 EUR does not pay"),
        ("alice", KNOWN_NUMBER, DEBTS, "NOCREDIT", "available -0.000001 EUR"),
        ("alice", "491", prepaid(balance=599_999), "NOCREDIT", "0.60 EUR, to 491"),
        # Precedence: of several that apply, the first in the order of AuthStatus.
        ("mallory", "sales", None, "NOACCOUNT", ""),
        ("off", "sales", POOR, "DISABLED", ""),
        ("off", KNOWN_NUMBER, POOR, "DISABLED", ""),
        ("alice", "sales", POOR, "INVALID", ""),
        ("alice", "999", POOR, "INVALID", ""),
    ],
)
def test_every_answer_and_the_order_of_precedence(
    accountcode: str, dialled: str, client: ClientBooks | None, status: str, reason: str
) -> None:
    decision = ask(accountcode, dialled, client)
    assert decision.status is AuthStatus(status)
    assert reason in decision.reason
    assert decision.allowed == (status == "ALLOWED")
    if not decision.allowed:
        assert (decision.seconds, decision.reserved) == (0, 0)
        assert decision.client == client  # nothing was taken
        assert "\n" not in decision.reason


def test_an_account_wins_over_a_disabled_client() -> None:
    catalog = catalog_of([settings(1, enabled=False)], [account("a", enabled=False)])
    assert "account 'a'" in ask("a", catalog=catalog).reason


def test_every_status_has_a_cause_for_hangup() -> None:
    assert set(CAUSES) == set(AuthStatus)
    assert all(0 < CAUSES[status] < 128 for status in AuthStatus if status != "ALLOWED")


@pytest.mark.parametrize(
    ("dialled", "funds", "seconds", "reserved"),
    [
        (KNOWN_NUMBER, 1_000, 1, 1_000),
        (KNOWN_NUMBER, 1_999, 1, 1_000),
        (KNOWN_NUMBER, 2_000, 2, 2_000),
        (KNOWN_NUMBER, 10**9, LONGEST_SECONDS, 3_600_000),
        ("49301", 600_000, 60, 600_000),
        ("49301", 1_199_999, 60, 600_000),  # cannot pay the second minute: is not given it
        ("49301", 1_200_000, 120, 1_200_000),
    ],
)
def test_as_long_as_the_funds_pay_and_exactly_that_is_held(
    dialled: str, funds: int, seconds: int, reserved: int
) -> None:
    decision = ask(dialled=dialled, client=prepaid(balance=funds))
    assert (decision.seconds, decision.reserved) == (seconds, reserved)
    assert decision.client == prepaid(balance=funds).reserve(reserved)


def test_credit_counts_and_what_is_held_for_other_calls_does_not() -> None:
    client = prepaid(balance=-5_000, credit_limit=10_000, reserved=2_000)
    assert ask(client=client).seconds == 3


def test_a_postpaid_client_without_limit_gets_the_longest_call() -> None:
    decision = ask(client=postpaid(balance=-(10**12)))
    assert (decision.seconds, decision.reserved) == (LONGEST_SECONDS, price(RATE, LONGEST_SECONDS))


def test_a_postpaid_client_with_a_limit_gets_what_is_left_of_it() -> None:
    assert ask(client=postpaid(balance=-7_000, credit_limit=10_000)).seconds == 3


def test_a_free_rate_is_allowed_with_debts_and_holds_nothing() -> None:
    catalog = catalog_of(tables=[rate_table(Rate("800", "Freephone", 0))])
    decision = ask(dialled="8001", client=DEBTS, catalog=catalog)
    assert (decision.status, decision.seconds, decision.reserved) == ("ALLOWED", 3600, 0)


@pytest.mark.parametrize("accountcode", ["alice", "off", "offclient", "norates", "mallory", ""])
def test_emergency_numbers_are_always_allowed_at_no_charge(accountcode: str) -> None:
    """Without account, without credit, disabled, without a rate."""
    found = identified(CATALOG, accountcode)
    books = prepaid(found.client_id, balance=-(10**9)) if found else None
    decision = decided(request(1, accountcode, EMERGENCY), CATALOG, books)
    assert (decision.status, decision.seconds) == ("ALLOWED", LONGEST_SECONDS)
    assert decision.reserved == 0
    if books is not None:
        assert decision.client == books.reserve(0)
        assert decision.rate is not None
        assert price(decision.rate, LONGEST_SECONDS) == 0


@pytest.mark.parametrize("dialled", ["+112", "1-1-2", "(112)"])
def test_an_emergency_number_is_one_however_it_is_written(dialled: str) -> None:
    assert ask(dialled=dialled, client=POOR).status is AuthStatus.ALLOWED


@pytest.mark.parametrize("dialled", ["1120", "11", "0112", "9112"])
def test_a_number_that_only_begins_or_ends_so_is_none(dialled: str) -> None:
    here = replace(policy(), numbering=Numbering("44"))
    decision = decided(request(1, "alice", dialled), CATALOG, POOR, here)
    assert decision.status is not AuthStatus.ALLOWED


@pytest.mark.parametrize(
    "dialled",
    [
        "",
        " ",
        "+",
        "4420712345x",
        "44' OR 1=1 --",
        "${SHELL(id)}",
        "44207&SIP/x",
        "44\x00207",
        "44\n207",
        "4" * 33,
        "4" * 10_000,
        "٤٤٢٠٧",  # Arabic-Indic digits
        "44²",
        "\ud800",
        "44😀",
    ],
)
def test_what_is_no_number_is_invalid_and_shown_harmlessly(dialled: str) -> None:
    decision = ask(dialled=dialled)
    assert decision.status is AuthStatus.INVALID
    assert decision.reason.isprintable()
    assert len(decision.reason) < 200


@pytest.mark.parametrize("accountcode", ["x" * 10_000, "a\nb", "\x1b[2J", "\ud800", "\u202e"])
def test_a_foreign_accountcode_is_shown_harmlessly(accountcode: str) -> None:
    decision = ask(accountcode)
    assert decision.status is AuthStatus.NOACCOUNT
    assert decision.reason.isprintable()
    assert len(decision.reason) < 200


def test_the_end_of_a_reservation_leaves_time_to_ring_and_to_talk() -> None:
    expires_at_ms = policy().expires_at_ms(NOW_MS, 60)
    assert expires_at_ms == NOW_MS + (SETUP_SECONDS + 60) * 1000 + EXPIRY_SLACK_MS


rates = st.builds(
    Rate,
    prefix=st.just("44"),
    destination=st.just(""),
    rate_per_minute=st.integers(0, 2_000_000),
    connect_fee=st.integers(0, 50_000),
    first_increment=st.sampled_from([1, 30, 60]),
    next_increment=st.sampled_from([1, 6, 60]),
    grace_seconds=st.sampled_from([0, 3]),
    minimum_charge=st.integers(0, 50_000),
)


@given(
    rates=st.lists(rates, min_size=1, max_size=8),
    balance=st.integers(-(10**6), 10**8),
    credit=st.integers(0, 10**7),
    longest=st.integers(1, 7_200),
)
def test_a_prepaid_client_never_holds_more_than_it_has(
    rates: list[Rate], balance: int, credit: int, longest: int
) -> None:
    """Any sequence of calls at any rates: the sum held stays within balance and credit."""
    books, sum_held = prepaid(balance=balance, credit_limit=credit), 0
    for number, rate in enumerate(rates, 1):
        catalog = catalog_of(tables=[rate_table(rate)])
        decision = decided(request(number), catalog, books, policy(max_seconds=longest))
        if not decision.allowed:
            assert decision.client == books
            continue
        assert decision.client is not None
        assert decision.reserved == price(rate, decision.seconds)
        assert 1 <= decision.seconds <= longest
        books, sum_held = decision.client, sum_held + decision.reserved
        assert books.reserved == sum_held
        assert decision.reserved == 0 or sum_held <= balance + credit
    assert sum_held <= max(0, balance + credit)
