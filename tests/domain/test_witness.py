"""What Asterisk's records say of a call: which records are its own, and when its leg ended."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from astcredit.domain.witness import (
    NEAR_MS,
    AsteriskRecord,
    ChannelCall,
    Unclear,
    Witness,
    call_of,
    witness_of,
)

AT = 1_800_000_000_000
HOUR_MS = 3_600_000


def record(
    start: int = -1_000,
    answer: int | None = None,
    end: int = 10_000,
    leg: str = "PJSIP/carrier-1",
    disposition: str = "",
    channel: str = "PJSIP/x-1",
    *,
    dst: str = "44",
    blur: int = 0,
    later: int = 0,
) -> AsteriskRecord:
    """A record with instants after AT; answered if it has an answer."""
    return AsteriskRecord(
        uniqueid="1800000000.1",
        channel=channel,
        dstchannel=leg,
        dst=dst,
        disposition=disposition or ("NO ANSWER" if answer is None else "ANSWERED"),
        start_ms=AT + start,
        answer_ms=None if answer is None else AT + answer,
        end_ms=AT + end,
        talk_ms=0 if answer is None else end - answer,
        blur_ms=blur,
        later_ms=later,
    )


def said(*records: AsteriskRecord, legs: Sequence[AsteriskRecord] = ()) -> Witness | Unclear:
    """What the records say of a call that was asked for at AT."""
    everything = [*records, *legs]
    of_legs = {
        leg: [r for r in everything if leg in (r.channel, r.dstchannel)]
        for leg in {r.dstchannel for r in records if r.answered}
    }
    return witness_of(AT, records, of_legs)


def witness(end: int, answer: int | None = None, talk: int = 0, **more: object) -> Witness:
    disposition = "NO ANSWER" if answer is None else "ANSWERED"
    answered_at_ms = None if answer is None else AT + answer
    return Witness(disposition, AT + end, answered_at_ms, talk, **more)  # type: ignore[arg-type]


FAILED = record(end=2_000, disposition="CONGESTION")
CASES = {
    "answered": ([record(answer=4_000, end=9_500)], [], witness(9_500, 4_000, 5_500)),
    "nobody answered": ([record(end=9_000)], [], witness(9_000)),
    "one carrier failed, the next answered": (
        [FAILED, record(2_000, 3_000, 9_000, "PJSIP/backup-2")],
        [],
        witness(9_000, 3_000, 6_000),
    ),
    "forked to two phones, one answered": (
        [record(end=5_000, leg="PJSIP/a-2"), record(answer=4_000, end=9_000, leg="PJSIP/b-3")],
        [],
        witness(9_000, 4_000, 5_000),
    ),
    "what the channel did after a Dial that failed is no answer": (
        [record(end=5_000), record(5_000, 5_000, 30_000, leg="")],
        [],
        witness(30_000),
    ),
    "busy after the dialplan had answered the channel": (
        [record(answer=-500, end=5_000, disposition="BUSY")],
        [],
        Witness("BUSY", AT + 5_000),
    ),
    "the leg was transferred: it went on under its own name": (
        [record(answer=4_000, end=9_000)],
        [record(9_100, 9_100, 60_000, "PJSIP/other-9", channel="PJSIP/carrier-1")],
        witness(60_000, 4_000, 56_000, transferred=True),
    ),
    "it was transferred twice": (
        [record(answer=4_000, end=9_000)],
        [
            record(60_500, 60_500, 99_000, "PJSIP/other-7", channel="PJSIP/carrier-1"),
            record(9_100, 9_100, 60_000, "PJSIP/other-9", channel="PJSIP/carrier-1"),
        ],
        witness(99_000, 4_000, 95_000, transferred=True),
    ),
    "two legs were connected, and the other one is said to have called": (
        [record(answer=4_000, end=9_000)],
        [record(8_900, 8_900, 70_000, "PJSIP/carrier-1", channel="PJSIP/other-9")],
        witness(70_000, 4_000, 66_000, transferred=True),
    ),
    "a later leg of the same name, after Asterisk had started anew": (
        [record(answer=4_000, end=9_000)],
        [record(50_000, 51_000, 80_000, "PJSIP/other-9", channel="PJSIP/carrier-1")],
        witness(9_000, 4_000, 5_000),
    ),
    "whole seconds: the leg that went on is as long as it surely was": (
        [record(answer=4_000, end=9_000, blur=999)],
        [record(9_000, 9_000, 60_000, "PJSIP/o-9", channel="PJSIP/carrier-1", blur=999)],
        witness(60_000, 4_000, 55_001, blur_ms=999, transferred=True),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_records_say_when_the_leg_was_answered_and_ended(case: str) -> None:
    records, legs, expected = CASES[case]
    assert said(*records, legs=legs) == expected


def test_a_local_channel_is_no_leg_of_a_carriers() -> None:
    """Whose leg is which cannot be told: the far end may have made a call of its own."""
    local = record(answer=1_000, end=2_000, leg="Local/44@out-1;1")
    assert isinstance(said(local), Unclear)
    assert isinstance(said(local, record(2_000, 2_000, 9_000)), Unclear)
    assert said(record(end=2_000, leg="Local/44@out-1;1")) == witness(2_000)


@pytest.mark.parametrize("hours", [-2, -1, 1, 2])
def test_a_record_of_another_time_is_not_taken(hours: int) -> None:
    """So a wrong time zone moves no money."""
    shifted = record(hours * HOUR_MS - 1_000, hours * HOUR_MS + 4_000, hours * HOUR_MS + 9_000)
    found = said(shifted)
    assert isinstance(found, Unclear)
    assert "--timezone" in found.reason


@pytest.mark.parametrize(
    ("start", "end", "taken"),
    [
        (-HOUR_MS, 1, True),  # a menu came first
        (NEAR_MS, NEAR_MS + 1, True),  # clocks differ
        (NEAR_MS + 1, NEAR_MS + 2, False),
        (-HOUR_MS, -NEAR_MS, True),
        (-HOUR_MS, -NEAR_MS - 1, False),
    ],
)
def test_how_near_is_near(start: int, end: int, taken: bool) -> None:
    assert record(start, end=end).covers(AT) is taken


def test_an_hour_that_the_clock_showed_twice_is_the_one_that_is_near() -> None:
    first = record(answer=4_000, end=9_000, later=HOUR_MS)
    assert first.near([AT]).answer_ms == AT + 4_000
    second = first.near([AT + HOUR_MS])
    assert (second.start_ms, second.answer_ms) == (AT + HOUR_MS - 1_000, AT + HOUR_MS + 4_000)
    assert (second.end_ms, second.later_ms, second.talk_ms) == (AT + HOUR_MS + 9_000, 0, 5_000)


def made(id: str, at: int, dialled: str) -> ChannelCall:
    return ChannelCall(id, "pbx1", "1800000000.1", AT + at, dialled)


@pytest.mark.parametrize(
    ("calls", "of", "expected"),
    [
        ([made("a", 0, "44")], record(end=5_000, dst="s"), "a"),
        ([made("a", 0, "44"), made("b", 10_000, "49")], record(end=5_000, dst="44"), "a"),
        ([made("a", 0, "44"), made("b", 10_000, "49")], record(end=50_000, dst="49"), "b"),
        # by the number, whatever the clocks say
        ([made("a", 0, "44"), made("b", 10_000, "49")], record(end=10_001, dst="44"), "a"),
        # the same number again, or a number that nobody dialled: by time
        ([made("a", 0, "44"), made("b", 10_000, "44")], record(end=9_999, dst="44"), "a"),
        ([made("a", 0, "44"), made("b", 10_000, "44")], record(end=10_000, dst="44"), "b"),
        ([made("a", 0, "44"), made("b", 10_000, "49")], record(end=20_000, dst="s"), "b"),
        # a clock that is behind
        ([made("a", 0, "44"), made("b", 10_000, "49")], record(end=-5, dst="s"), "a"),
    ],
)
def test_a_channel_that_made_several_calls_has_records_of_each(
    calls: list[ChannelCall], of: AsteriskRecord, expected: str
) -> None:
    assert call_of(of, calls) == expected
