"""Corrections of estimated calls: what is charged or refunded, within which bounds."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astcredit.domain.books import ClientBooks, LedgerKind
from astcredit.domain.catalog import ClientKind
from astcredit.domain.correction import (
    CONTRADICTION,
    CallInDoubt,
    Correction,
    Finding,
    correct,
    ending_of,
)
from astcredit.domain.rating import Rate, price
from astcredit.domain.settlement import Ending
from astcredit.domain.states import CallEvent, CallState
from astcredit.domain.witness import Unclear, Witness

AT = 1_800_000_000_000
CENT = 10_000
RATE = Rate("44", "United Kingdom", 600_000)
"""A cent a second."""
COST = Rate("44", "United Kingdom", 300_000)
RESERVED = 100 * CENT


def call(
    state: CallState = CallState.COMPLETED,
    price: int | None = 60 * CENT,
    *,
    heard: int | None = None,
    rate: Rate = RATE,
    ourcost: int | None = None,
    corrected: int = 0,
) -> CallInDoubt:
    """An estimated call of at most 100 seconds; `heard`: milliseconds after AT of its answer."""
    return CallInDoubt(
        call_id="C1",
        client_id=1,
        node="pbx1",
        uniqueid="1800000000.1",
        channel="PJSIP/x-1",
        leg_uniqueid=None if heard is None else "1800000000.2",
        dialled="44",
        state=state,
        created_at_ms=AT,
        answered_at_ms=None if heard is None else AT + heard,
        expires_at_ms=None,
        rate=rate,
        reserved=RESERVED,
        seconds=100,
        billsec=60,
        price=price,
        ourcost=ourcost,
        cost_rate=None if ourcost is None else COST,
        corrected=corrected,
    )


def answered(talk_ms: int, *, at: int = 1_000, blur: int = 0) -> Witness:
    return Witness("ANSWERED", AT + at + talk_ms, AT + at, talk_ms, blur)


NOT_ANSWERED = Witness("NO ANSWER", AT + 30_000)


def client(balance: int = 10_000 * CENT, kind: ClientKind = ClientKind.PREPAID) -> ClientBooks:
    return ClientBooks(1, kind, balance, 0, 0, 0, 5)


def corrected(doubtful: CallInDoubt, seen: Witness, books: ClientBooks | None = None) -> Correction:
    found = correct(books or client(), doubtful, seen, "ops@test", AT)
    assert isinstance(found, Correction)
    return found


FAILED = call(CallState.FAILED, 0)
CASES = [
    # what it was, what Asterisk says, what the balance changes by, what that is called
    ("too long", call(), answered(40_000), 20 * CENT, Finding.REFUNDED),
    ("too short", call(), answered(75_000), -15 * CENT, Finding.CHARGED),
    ("right", call(), answered(60_000), 0, Finding.CONFIRMED),
    ("right within the second", call(), answered(59_001), 0, Finding.CONFIRMED),
    ("a millisecond longer", call(), answered(60_001), -1 * CENT, Finding.CHARGED),
    ("longer than allowed", call(), answered(100_250), -40 * CENT, Finding.CHARGED),
    ("not answered at all", call(), NOT_ANSWERED, 60 * CENT, Finding.REFUNDED),
    ("no talk", call(), answered(0), 60 * CENT, Finding.REFUNDED),
    ("released, not answered", FAILED, NOT_ANSWERED, 0, Finding.CONFIRMED),
    ("released, answered", FAILED, answered(30_000), -30 * CENT, Finding.CHARGED),
    ("released, answered too long", FAILED, answered(900_000), -100 * CENT, Finding.CHARGED),
    ("released, no talk", FAILED, answered(0), 0, Finding.CONFIRMED),
    # whole seconds: from 60.000 to 60.999 seconds is 60 or 61 seconds
    ("blurred, right", call(), answered(60_000, blur=999), 0, Finding.CONFIRMED),
    ("blurred, one more is right", call(price=61 * CENT), answered(60_000, blur=999), 0,
     Finding.CONFIRMED),
    ("blurred, two more are not", call(price=62 * CENT), answered(60_000, blur=999), 2 * CENT,
     Finding.REFUNDED),
    ("blurred, one less is not", call(price=59 * CENT), answered(60_000, blur=999), -1 * CENT,
     Finding.CHARGED),
    ("blurred, released", FAILED, answered(30_000, blur=999), -30 * CENT, Finding.CHARGED),
    # an answer that was heard is more exact than the channel's own
    ("heard later", call(heard=11_000), answered(70_000), 0, Finding.CONFIRMED),
    ("heard, end unseen", call(heard=1_002), answered(80_000), -20 * CENT, Finding.CHARGED),
    ("heard before the channel was", call(heard=900), answered(60_000), -1 * CENT, Finding.CHARGED),
    ("heard far from it: another clock", call(heard=-50_000), answered(60_000), 0,
     Finding.CONFIRMED),
    # the channel was answered before the call was asked for
    ("answered before", call(), answered(80_000, at=-20_000), 0, Finding.CONFIRMED),
    # corrected before
    ("again", call(price=100 * CENT, corrected=-40 * CENT), answered(60_000), 0, Finding.CONFIRMED),
    ("again, more", call(price=0, corrected=30 * CENT), answered(60_000), -30 * CENT,
     Finding.CHARGED),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_the_difference_is_charged_or_refunded(
    case: tuple[str, CallInDoubt, Witness, int, Finding],
) -> None:
    _, doubtful, seen, amount, finding = case
    found = corrected(doubtful, seen)
    assert (found.amount, found.finding, found.uncollected) == (amount, finding, 0)
    assert found.due == doubtful.paid - amount
    assert found.client.balance == client().balance + amount
    if amount == 0:
        assert found.entry is None
        assert found.client == client()
    else:
        assert found.entry is not None
        kind = LedgerKind.REFUND if amount > 0 else LedgerKind.ADJUSTMENT
        assert (found.entry.kind, found.entry.call_id, found.entry.actor, found.entry.seq) == (
            kind, "C1", "ops@test", 6
        )  # fmt: skip
        assert found.entry.reference == "correction:C1:1"
        assert "Asterisk's record" in found.entry.note


def test_a_second_correction_has_a_reference_of_its_own() -> None:
    entry = corrected(replace(call(), corrections=1), answered(40_000)).entry
    assert entry is not None
    assert entry.reference == "correction:C1:2"


def test_an_answer_that_was_heard_is_not_forgotten_because_a_record_lacks_it() -> None:
    """Money is not moved on words that contradict each other."""
    found = correct(client(), call(heard=1_000), NOT_ANSWERED, "ops@test", AT)
    assert found == Unclear(CONTRADICTION)
    open_call = call(CallState.ANSWERED, None, heard=1_000)
    assert ending_of(open_call, NOT_ANSWERED) == Unclear(CONTRADICTION)


@pytest.mark.parametrize(
    ("balance", "kind", "amount", "uncollected", "finding"),
    [
        (40 * CENT, ClientKind.PREPAID, -40 * CENT, 0, Finding.CHARGED),
        (39 * CENT, ClientKind.PREPAID, -39 * CENT, 1 * CENT, Finding.CHARGED),
        (0, ClientKind.PREPAID, 0, 40 * CENT, Finding.UNCOLLECTED),
        (0, ClientKind.POSTPAID, -40 * CENT, 0, Finding.CHARGED),
    ],
)
def test_a_prepaid_client_is_never_charged_more_than_it_has(
    balance: int, kind: ClientKind, amount: int, uncollected: int, finding: Finding
) -> None:
    found = corrected(call(), answered(100_000), client(balance, kind))
    assert (found.amount, found.uncollected, found.finding) == (amount, uncollected, finding)
    assert ("not collected" in found.note) is (uncollected > 0)


def test_what_is_reserved_for_calls_that_are_up_is_not_taken() -> None:
    busy = replace(client(50 * CENT), reserved=30 * CENT)
    assert corrected(call(), answered(100_000), busy).amount == -20 * CENT


@pytest.mark.parametrize(
    ("doubtful", "seen", "ourcost", "billsec"),
    [
        (call(ourcost=30 * CENT), answered(75_000), 75 * CENT // 2 - 30 * CENT, 75),
        (call(ourcost=30 * CENT), answered(40_000), -10 * CENT, 40),
        # its meter runs on when Asterisk cuts late, and when the client cannot be charged
        (call(ourcost=30 * CENT), answered(102_000), 51 * CENT - 30 * CENT, 100),
        (call(ourcost=30 * CENT), answered(60_000), 0, 60),
        (call(ourcost=30 * CENT), NOT_ANSWERED, -30 * CENT, 0),
        (call(), answered(75_000), 0, 75),
    ],
)
def test_what_the_terminator_is_owed_is_set_right_too(
    doubtful: CallInDoubt, seen: Witness, ourcost: int, billsec: int
) -> None:
    found = corrected(doubtful, seen)
    assert (found.ourcost, found.billsec) == (ourcost, billsec)


def test_an_open_call_ends_as_asterisk_says() -> None:
    ringing = call(CallState.OPEN, None)
    assert ending_of(ringing, NOT_ANSWERED) == Ending(
        CallEvent.RELEASE,
        AT + 30_000,
        "reconcile",
        dialstatus="NOANSWER",
        note="the end is that of Asterisk's own record",
    )
    ended = ending_of(ringing, answered(7_500))
    assert isinstance(ended, Ending)
    assert (ended.event, ended.ended_at_ms, ended.answered_at_ms, ended.talk_ms) == (
        CallEvent.END, AT + 8_500, AT + 1_000, 7_500
    )  # fmt: skip
    assert (ended.estimated, ended.dialstatus, ended.settled_by) == (False, "ANSWER", "reconcile")
    heard = ending_of(call(CallState.ANSWERED, None, heard=3_000), answered(7_500))
    assert isinstance(heard, Ending)
    assert heard.talk_ms == 5_500


RATES = st.builds(
    Rate,
    st.just("44"),
    st.just(""),
    st.integers(0, 10**9),
    connect_fee=st.integers(0, 10**8),
    first_increment=st.integers(1, 120),
    next_increment=st.integers(1, 120),
    grace_seconds=st.integers(0, 10),
    minimum_charge=st.integers(0, 10**8),
)
WITNESSES = st.one_of(
    st.just(NOT_ANSWERED),
    st.builds(
        lambda talk_ms, at, blur: answered(talk_ms, at=at, blur=blur),
        st.integers(0, 8_000_000),
        st.integers(-100_000, 100_000),
        st.sampled_from([0, 999]),
    ),
)


@st.composite
def calls(draw: st.DrawFn) -> CallInDoubt:
    """Any estimated call that the books can have: its price is within what was reserved."""
    rate, seconds = draw(RATES), draw(st.integers(1, 7_200))
    reserved = price(rate, seconds)
    paid = draw(st.integers(0, reserved))
    state = draw(st.sampled_from([CallState.COMPLETED, CallState.FAILED]))
    charged = paid if state is CallState.COMPLETED else 0
    heard = draw(st.one_of(st.none(), st.integers(-10_000, 100_000)))
    doubtful = call(state, charged, heard=heard, rate=rate)
    return replace(doubtful, seconds=seconds, reserved=reserved)


@given(calls(), WITNESSES, st.integers(0, 10**10), st.sampled_from(ClientKind))
def test_sums_stay_within_bounds_and_a_second_look_changes_nothing(
    doubtful: CallInDoubt, seen: Witness, balance: int, kind: ClientKind
) -> None:
    books = client(balance, kind)
    found = correct(books, doubtful, seen, "ops@test", AT)
    if isinstance(found, Unclear):
        return
    paid = doubtful.paid - found.amount
    assert 0 <= paid <= doubtful.reserved
    assert found.uncollected >= 0
    assert found.due == paid + found.uncollected
    assert found.client.balance == balance + found.amount
    if kind is ClientKind.PREPAID:
        assert found.client.balance >= 0
    after = replace(doubtful, corrected=doubtful.corrected - found.amount, corrections=1)
    again = correct(found.client, after, seen, "ops@test", AT)
    assert isinstance(again, Correction)
    assert again.amount == 0
    assert again.uncollected == found.uncollected


@given(RATES, st.integers(0, 7_200_000), st.integers(1, 7_200))
def test_an_exact_record_leaves_exactly_its_price(rate: Rate, talk_ms: int, seconds: int) -> None:
    """Whatever was charged before: afterwards the call has cost what a call of that length does."""
    reserved = price(rate, seconds)
    doubtful = replace(call(price=reserved, rate=rate), seconds=seconds, reserved=reserved)
    found = corrected(doubtful, answered(talk_ms))
    talked = min(-(-talk_ms // 1000), seconds)
    assert doubtful.paid - found.amount == price(rate, talked)
