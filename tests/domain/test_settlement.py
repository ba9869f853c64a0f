"""What an ended call costs: scenarios that a billing person can read, and what never happens."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astcredit.domain.books import LedgerKind, OpenCall
from astcredit.domain.capacity import Occupancy
from astcredit.domain.money import parse_amount
from astcredit.domain.rating import Rate, price
from astcredit.domain.settlement import Ending, Settlement, settle
from astcredit.domain.states import TRANSITIONS, CallEvent, CallState
from support.core import NOW_MS, RATE, call_id, prepaid

ANSWERED_MS = NOW_MS + 7_000
DIALED_MS = NOW_MS + 1_000


def open_call(
    rate: Rate = RATE,
    seconds: int = 3600,
    state: CallState = CallState.ANSWERED,
    cost_rate: Rate | None = None,
) -> OpenCall:
    was_answered = state is not CallState.OPEN
    return OpenCall(
        call_id=call_id(1),
        client_id=1,
        node="pbx1",
        uniqueid="caller-1",
        leg_uniqueid="leg-1" if was_answered else None,
        state=state,
        rate=rate,
        reserved=price(rate, seconds),
        seconds=seconds,
        created_at_ms=NOW_MS,
        expires_at_ms=NOW_MS + 4_000_000,
        dialed_at_ms=DIALED_MS if was_answered else None,
        answered_at_ms=ANSWERED_MS if was_answered else None,
        occupancy=Occupancy(1),
        cost_rate=cost_rate,
    )


def end(
    call: OpenCall, after_ms: int = 0, event: CallEvent = CallEvent.END, **more: int
) -> Settlement:
    """The settlement of a call that ended so long after its answer."""
    client = prepaid(balance=10**9).reserve(call.reserved)
    ending = Ending(event, ANSWERED_MS + after_ms, "ami", **more)  # type: ignore[arg-type]
    settlement = settle(client, call, ending, NOW_MS)
    assert settlement is not None
    return settlement


# rate per minute, first/next increment, and what else the tariff has; talked ms: billed s, price
SCENARIOS = """
0.10  60/60                       0:   0  0
0.10  60/60                       1:  60  0.10
0.10  60/60                    1000:  60  0.10
0.10  60/60                   60000:  60  0.10
0.10  60/60                   60001: 120  0.20
0.10  60/60                  120000: 120  0.20
0.10  30/6                        1:  30  0.05
0.10  30/6                    30000:  30  0.05
0.10  30/6                    30001:  36  0.06
0.10  30/6                    36000:  36  0.06
0.10  30/6                    36001:  42  0.07
0.10  1/1                         1:   1  0.001667
0.10  1/1                      1000:   1  0.001667
0.10  1/1                      1001:   2  0.003334
0.10  1/1                     60000:  60  0.10
0.10  1/1                     59999:  60  0.10
0.10  60/60  fee=0.02             0:   0  0
0.10  60/60  fee=0.02             1:  60  0.12
0.10  60/60  fee=0.02         61000: 120  0.22
0     1/1    fee=0.02          9000:   9  0.02
0.10  1/1    grace=5           5000:   0  0
0.10  1/1    grace=5           5001:   6  0.01
0.10  60/60  grace=5           4999:   0  0
0.10  60/60  grace=5           6000:  60  0.10
0.10  1/1    fee=0.02 grace=5  5000:   0  0
0.10  1/1    minimum=0.05      1000:   1  0.05
0.10  1/1    minimum=0.05     30000:  30  0.05
0.10  1/1    minimum=0.05     31000:  31  0.051667
0.10  1/1    minimum=0.05         0:   0  0
0.10  1/1    fee=0.04 minimum=0.05  6000:   6  0.05
0.10  1/1    fee=0.04 minimum=0.05 12000:  12  0.06
0     1/1                     60000:  60  0
"""


def scenario(line: str) -> tuple[Rate, int, int, int]:
    left, right = line.split(":")
    per_minute, increments, *more, talk_ms = left.split()
    billed, cost = right.split()
    first, following = increments.split("/")
    extra = dict(part.split("=") for part in more)
    rate = Rate(
        "44",
        "",
        parse_amount(per_minute),
        parse_amount(extra.get("fee", "0")),
        int(first),
        int(following),
        int(extra.get("grace", "0")),
        parse_amount(extra.get("minimum", "0")),
    )
    return rate, int(talk_ms), int(billed), parse_amount(cost)


@pytest.mark.parametrize("line", SCENARIOS.strip().splitlines())
def test_what_a_call_costs(line: str) -> None:
    rate, talk_ms, billed, cost = scenario(line)
    settled = end(open_call(rate), talk_ms)
    assert (settled.billsec, settled.price) == (billed, cost)
    assert settled.charge is not None
    assert settled.charge.amount == -cost
    assert (settled.talk_ms, settled.overrun_ms) == (talk_ms, 0)


@pytest.mark.parametrize(
    ("talk_ms", "billed", "overrun_ms"),
    [(1_999, 2, 0), (2_000, 2, 0), (2_003, 2, 3), (3_500, 2, 1_500), (10**9, 2, 10**9 - 2_000)],
)
def test_a_late_cut_is_not_charged(talk_ms: int, billed: int, overrun_ms: int) -> None:
    """Money for two seconds: what Asterisk lets go on beyond them is kept as overrun."""
    settled = end(open_call(seconds=2), talk_ms)
    assert (settled.billsec, settled.price) == (billed, 2_000)
    assert settled.overrun_ms == overrun_ms
    assert settled.talk_ms == talk_ms  # what was measured stays in the CDR


def test_the_last_increment_is_charged_whole_even_if_the_longest_call_ends_in_it() -> None:
    """A limit of 90 s on a 60/60 rate reserves two minutes, and costs two."""
    rate = Rate("44", "", 60_000, 0, 60, 60)
    settled = end(open_call(rate, seconds=90), 90_002)
    assert (settled.billsec, settled.price, settled.overrun_ms) == (120, 120_000, 2)


def test_a_settled_call_leaves_the_books_with_the_price_gone_and_nothing_held() -> None:
    call = open_call(seconds=100)
    settled = end(call, 30_000)
    assert settled.client.balance == 10**9 - 30_000
    assert (settled.client.reserved, settled.client.active_calls) == (0, 0)
    assert settled.charge is not None
    assert settled.charge.kind is LedgerKind.CHARGE
    assert (settled.charge.call_id, settled.charge.reference) == (call_id(1), f"call:{call_id(1)}")
    assert settled.charge.balance_after == settled.client.balance
    assert settled.state is CallState.COMPLETED
    assert settled.dialed_ms == 36_000


@pytest.mark.parametrize("event", CallEvent)
@pytest.mark.parametrize("state", CallState)
def test_every_state_and_event(state: CallState, event: CallEvent) -> None:
    """What the table of states does not have changes nothing; a failed call costs nothing."""
    call = open_call(state=state)
    if event is CallEvent.ANSWER:
        return  # that is not an ending
    client = prepaid(balance=10**9).reserve(call.reserved)
    settled = settle(client, call, Ending(event, ANSWERED_MS + 5_000, "ami"), NOW_MS)
    then = TRANSITIONS.get((state, event))
    assert (settled.state if settled else None) is then
    if settled:
        assert (settled.client.reserved, settled.client.active_calls) == (0, 0)
        assert (settled.charge is not None) == (then is CallState.COMPLETED)
    if settled and then is CallState.FAILED:
        assert (settled.price, settled.billsec, settled.talk_ms) == (0, 0, None)
        assert settled.client.balance == 10**9


def test_a_second_ending_changes_nothing() -> None:
    call = open_call()
    settled = end(call, 5_000)
    again = replace(call, state=settled.state)
    for event in CallEvent:
        ending = Ending(event, ANSWERED_MS + 9_000, "hangup", talk_ms=9_000)
        assert settle(settled.client, again, ending, NOW_MS) is None


def test_the_reporters_own_measure_wins_over_the_difference_of_two_times() -> None:
    assert end(open_call(), 9_000, talk_ms=2_001).talk_ms == 2_001


def test_an_end_whose_answer_was_not_seen_is_charged_from_the_reported_answer() -> None:
    call = open_call(state=CallState.OPEN)
    settled = end(call, 4_000, answered_at_ms=ANSWERED_MS)
    assert (settled.talk_ms, settled.price, settled.answered_at_ms) == (4_000, 4_000, ANSWERED_MS)


@pytest.mark.parametrize("talk_ms", [-1, -5_000])
def test_a_clock_that_ran_backwards_costs_nothing(talk_ms: int) -> None:
    settled = end(open_call(), talk_ms)
    assert (settled.talk_ms, settled.price) == (0, 0)
    assert end(open_call(), 1_000, talk_ms=talk_ms).price == 0


@pytest.mark.parametrize(("seconds_up", "cost"), [(30, 30_000), (100, 100_000), (5_000, 100_000)])
def test_an_answered_call_whose_end_nobody_saw_is_charged_up_to_its_limit(
    seconds_up: int, cost: int
) -> None:
    settled = end(open_call(seconds=100), seconds_up * 1000, CallEvent.EXPIRE)
    assert (settled.state, settled.price, settled.overrun_ms) == ("completed", cost, 0)


def test_a_call_that_was_not_answered_expires_at_no_charge() -> None:
    settled = end(open_call(state=CallState.OPEN), 10**7, CallEvent.EXPIRE)
    assert (settled.state, settled.price, settled.charge) == ("failed", 0, None)


MINUTES = Rate("44", "", 20_000, 0, 60, 60)
SIX_SECONDS = Rate("442", "", 30_000, 1_000, 6, 6)
GRACE = Rate("44", "", 20_000, 0, 1, 1, 3)


@pytest.mark.parametrize(
    ("cost_rate", "talk_ms", "ourcost"),
    [
        (MINUTES, 0, 0),
        (MINUTES, 1, 20_000),
        (MINUTES, 60_000, 20_000),
        (MINUTES, 60_001, 40_000),  # our own client pays by the second
        (SIX_SECONDS, 30_000, 16_000),
        (SIX_SECONDS, 30_001, 19_000),
        (GRACE, 3_000, 0),
        (GRACE, 3_001, 1_334),
    ],
)
def test_the_terminator_is_owed_by_its_own_rate_and_increments(
    cost_rate: Rate, talk_ms: int, ourcost: int
) -> None:
    settled = end(open_call(cost_rate=cost_rate), talk_ms)
    assert settled.ourcost == ourcost
    assert settled.price == -(-talk_ms // 1000) * 1_000


@pytest.mark.parametrize(("talk_ms", "ourcost"), [(60_000, 20_000), (60_003, 40_000)])
def test_what_asterisk_cut_too_late_is_owed_to_the_terminator(talk_ms: int, ourcost: int) -> None:
    """Its meter ran until the end of the leg; the client paid for the minute that was held."""
    settled = end(open_call(seconds=60, cost_rate=MINUTES), talk_ms)
    assert (settled.price, settled.ourcost) == (60_000, ourcost)
    assert settled.overrun_ms == talk_ms - 60_000


def test_on_the_dialplans_own_trunk_it_is_not_known_what_is_owed() -> None:
    assert end(open_call(), 60_000).ourcost is None


@pytest.mark.parametrize("event", [CallEvent.RELEASE, CallEvent.EXPIRE])
def test_for_a_call_that_was_not_answered_nothing_is_owed(event: CallEvent) -> None:
    call = open_call(state=CallState.OPEN, cost_rate=MINUTES)
    assert end(call, 60_000, event).ourcost is None


def test_an_expired_call_is_owed_up_to_its_limit() -> None:
    """Nobody saw the end: Asterisk cut it then, as far as can be known."""
    settled = end(open_call(seconds=90, cost_rate=MINUTES), 10**7, CallEvent.EXPIRE)
    assert (settled.ourcost, settled.overrun_ms) == (40_000, 0)


def test_a_charge_below_cost_is_booked_as_it_is() -> None:
    """A rule's margin is looked at before the call; afterwards both sums stand side by side."""
    settled = end(open_call(cost_rate=MINUTES), 1_000)
    assert (settled.price, settled.ourcost) == (1_000, 20_000)


amounts = st.integers(0, 10**7)


@given(
    rate=st.builds(
        Rate,
        prefix=st.just("44"),
        destination=st.just(""),
        rate_per_minute=amounts,
        connect_fee=amounts,
        first_increment=st.integers(1, 90),
        next_increment=st.integers(1, 90),
        grace_seconds=st.integers(0, 10),
        minimum_charge=amounts,
    ),
    seconds=st.integers(1, 4_000),
    talk_ms=st.integers(-5_000, 10**7),
    event=st.sampled_from([CallEvent.END, CallEvent.EXPIRE]),
)
def test_never_more_than_was_reserved(
    rate: Rate, seconds: int, talk_ms: int, event: CallEvent
) -> None:
    call = open_call(rate, seconds)
    settled = end(call, talk_ms, event)
    assert 0 <= settled.price <= call.reserved
    in_time = min(max(0, -(-talk_ms // 1000)), seconds)
    assert settled.price == price(rate, in_time)
    assert settled.client.balance == 10**9 - settled.price
