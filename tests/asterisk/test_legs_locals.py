"""Local channels are no carrier's legs: who pays for what is dialled behind them.

Names: U calls; x1 and x2 are the ends of one Local channel, y1 and y2 of another; D and E are
carriers' legs. Recordings are of Asterisk 22.10, as in test_legs.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astcredit.asterisk.legs import FORWARDED, LegTracker
from astcredit.domain.calls import ChannelEnded, LegAnswered
from support.leg_events import (
    RECEIVED_MS,
    Event,
    begin,
    channel,
    end,
    ended,
    feed_all,
    hangup,
    recorded,
    short,
)


@pytest.mark.parametrize(
    ("name", "answered", "callers"),
    [
        # Dial(Local/…/n), the far end dials without asking: the leg is U's.
        ("local_far_end_unasked", ["0>3 after 4 ms, 'call-1'"], {"0": "ANSWER"}),
        # The far end asks for itself: the leg is its call's, U's call has none.
        ("local_far_end_asks", ["6>7 after 6 ms, 'call-2'"], {"4": FORWARDED, "6": "ANSWER"}),
        ("local_channel", ["21>22 after 2 ms, 'inner-1795292444.21'"], {"19": FORWARDED}),
        # Two Local channels in a row; the second dials before U's DialBegin is told.
        ("local_in_a_row", ["8>13 after 13 ms, 'call-1'"], {"8": "ANSWER"}),
        ("local_in_a_row_second_asks", ["18>19 after 7 ms, 'call-2'"], {"14": FORWARDED}),
        # Without /n, and people talk: both ends hang up in the middle of the call.
        ("local_optimised", ["36>39 after 10 ms, 'call-1'"], {"36": "ANSWER"}),
        ("local_optimised_asks", ["42>43 after 15 ms, 'call-2'"], {"40": FORWARDED}),
        ("local_in_a_row_optimised", ["44>49 after 10 ms, 'call-1'"], {"44": "ANSWER"}),
        # The far end answers, plays something and dials after 0.8 s: charged from the leg's answer.
        ("local_answers_first", ["20>23 after 808 ms, 'call-1'"], {"20": "ANSWER"}),
        ("local_busy", [], {"24": "BUSY"}),
        # Dial(Local/…&Local/…&PJSIP/…)
        ("local_forked", ["28>34 after 16 ms, 'call-1'"], {"28": "ANSWER", "32": "CANCEL"}),
        # A carrier answers 302.
        ("forwarded", ["53>54 after 9 ms, 'call-2'"], {"50": FORWARDED}),
        ("forwarded_unasked", ["55>59 after 10 ms, 'call-1'"], {"55": "ANSWER"}),
        ("redirected", [], {"10": "CANCEL"}),
    ],
)
def test_a_recorded_sequence_charges_one_call_for_the_carriers_leg(
    name: str, answered: list[str], callers: dict[str, str]
) -> None:
    """From the carrier's answer to the hangup of that very leg; every channel is forgotten."""
    tracker = LegTracker("pbx1")
    events = recorded(name)
    seen = feed_all(tracker, events)
    found = [s for s in seen if isinstance(s, LegAnswered)]
    told = [short(answer).replace(" answered", "").split(", ") for answer in found]
    assert [f"{leg}, {call.removeprefix('call ')}" for leg, _, call in told] == answered
    assert {answer.trunk for answer in found} <= {"PJSIP/carrier", "PJSIP/c-ok"}
    status = {uniqueid.rpartition(".")[2]: dialstatus for uniqueid, dialstatus, _ in ended(seen)}
    assert status | callers == status
    ends = {s.uniqueid: s.ended_at_ms for s in seen if isinstance(s, ChannelEnded)}
    for answer in found:
        (last,) = (e for e in events if e["Event"] == "Hangup" and _is(e, answer.leg_uniqueid))
        assert ends[answer.leg_uniqueid] == int(float(last["Timestamp"]) * 1000)
    assert not tracker.known()


def _is(event: dict[str, str], uniqueid: str) -> bool:
    return event["Uniqueid"] == uniqueid


def answers(*events: Event) -> list[tuple[str, str, str]]:
    """Caller, leg and call of each answer."""
    seen = feed_all(LegTracker("pbx1"), events)
    return [
        (s.caller_uniqueid, s.leg_uniqueid, s.call_id) for s in seen if isinstance(s, LegAnswered)
    ]


U_X = (begin("U", "x1", call="c"), end("U", "x1", call="c"))
X_D = (begin("x2", "D", call=""), end("x2", "D", call=""))


@pytest.mark.parametrize(
    "events",
    [
        pytest.param([U_X[0], X_D[0], X_D[1], U_X[1]], id="as usual"),
        pytest.param([X_D[0], U_X[0], X_D[1], U_X[1]], id="the far end is told first"),
        pytest.param([*U_X, *X_D], id="the far end answers, then dials"),
        pytest.param([X_D[1], U_X[1]], id="both beginnings were before our time"),
        pytest.param([U_X[0], X_D[1], U_X[1]], id="one beginning was lost"),
    ],
)
def test_the_order_of_events_does_not_decide_who_pays(events: list[Event]) -> None:
    assert answers(*events)[-1] == ("U", "D", "c")
    assert [call for _, _, call in answers(*events) if call] == ["c"]


def test_the_leg_was_answered_when_the_carrier_answered_it() -> None:
    """Not when the Local channel did: the carrier's meter runs from its own answer."""
    seen = feed_all(
        LegTracker("pbx1"),
        [
            begin("U", "x1", "10.0", call="c"),
            begin("x2", "D", "10.1", call=""),
            end("x2", "D", at="12.0", call=""),
            end("U", "x1", at="17.0", call="c"),
        ],
    )
    assert seen == [LegAnswered("pbx1", "U", "D", 12_000, "c", "PJSIP/D", 10_000)]


def test_a_leg_is_answered_for_who_waits_only_when_all_between_have_answered() -> None:
    """Of two Local channels that ring, one is answered for U; the other's leg never is."""
    assert answers(
        begin("U", "x1", call="c"),
        begin("U", "y1", call="c"),
        begin("x2", "D", call=""),
        begin("y2", "E", call=""),
        end("x2", "D", call=""),
        end("y2", "E", call=""),
        end("U", "x1", "CANCEL", call="c"),
        end("U", "y1", call="c"),
    ) == [("U", "E", "c")]


def test_a_leg_that_ended_before_is_not_answered_for_anybody() -> None:
    """The far end's callee answered and declined: nobody talks to U."""
    assert answers(U_X[0], *X_D, hangup("D"), U_X[1]) == []


def test_the_next_leg_of_the_far_end_is_answered_for_the_caller() -> None:
    """The far end tries one carrier, which is busy, and then another."""
    assert answers(
        begin("U", "x1", call="c"),
        begin("x2", "D", call=""),
        end("x2", "D", "CONGESTION", call=""),
        hangup("D", 34),
        begin("x2", "E", call=""),
        end("x2", "E", call=""),
        end("U", "x1", call="c"),
    ) == [("U", "E", "c")]


def test_an_inherited_variable_is_the_same_call() -> None:
    """A dialplan may let AC_CALL go on to Local channels: the far end has asked for nothing."""
    assert answers(
        begin("U", "x1", call="c"),
        begin("x2", "D", call="c"),
        end("x2", "D", call="c"),
        end("U", "x1", call="c"),
    ) == [("U", "D", "c")]


def test_of_several_in_a_row_the_nearest_that_asked_pays() -> None:
    seen = feed_all(
        LegTracker("pbx1"),
        [
            begin("U", "x1", call="c"),
            begin("x2", "y1", call="own"),
            begin("y2", "D", call=""),
            end("y2", "D", call=""),
            end("x2", "y1", call="own"),
            end("U", "x1", call="c"),
            hangup("D"),
            hangup("y1"),
            hangup("y2"),
            hangup("x1"),
            hangup("x2"),
            hangup("U"),
        ],
    )
    assert [s.call_id for s in seen if isinstance(s, LegAnswered)] == ["own"]
    status = {uniqueid: dialstatus for uniqueid, dialstatus, _ in ended(seen)}
    assert (status["x2"], status["U"]) == ("ANSWER", FORWARDED)


def test_a_far_end_that_answers_and_then_asks_takes_the_call_over() -> None:
    """U's call never had a leg, though Dial said ANSWER: it ends as forwarded."""
    tracker = LegTracker("pbx1")
    own = (begin("x2", "D", call="own"), end("x2", "D", call="own"))
    seen = feed_all(tracker, [*U_X, *own, hangup("U"), hangup("x1"), hangup("x2"), hangup("D")])
    assert [s.call_id for s in seen if isinstance(s, LegAnswered)] == ["own"]
    assert ended(seen)[0] == ("U", FORWARDED, 16)
    assert not tracker.known()


def test_a_second_call_of_the_far_end_does_not_undo_the_first_leg() -> None:
    """U had its leg; the call that the far end makes after it is another one."""
    again = (hangup("D"), begin("x2", "E", call="own"), end("x2", "E", call="own"), hangup("U"))
    seen = feed_all(LegTracker("pbx1"), [U_X[0], *X_D, U_X[1], *again])
    assert [s.call_id for s in seen if isinstance(s, LegAnswered)] == ["c", "own"]
    assert ended(seen)[-1] == ("U", "ANSWER", 16)


def test_without_call_variables_the_far_end_is_taken_to_have_asked() -> None:
    """manager.conf without channelvars: one of the two must pay, and never both."""
    silent = (begin("U", "x1"), begin("x2", "D"), end("x2", "D"), end("U", "x1"))
    assert answers(*silent) == [("x2", "D", "")]


def test_the_callers_cause_is_that_of_the_carriers_leg() -> None:
    """A Local channel that fails says 0; the leg behind it knows why."""
    seen = feed_all(
        LegTracker("pbx1"),
        [
            begin("U", "x1", call="c"),
            begin("x2", "D", call=""),
            end("x2", "D", "BUSY", call=""),
            end("U", "x1", "BUSY", call="c"),
            hangup("D", 17),
            hangup("x1", 0),
            hangup("x2", 17),
            hangup("U", 38),
        ],
    )
    assert ended(seen)[-1] == ("U", "BUSY", 17)


def test_the_failure_of_a_far_ends_own_call_is_not_the_callers() -> None:
    seen = feed_all(
        LegTracker("pbx1"),
        [
            begin("U", "x1", call="c"),
            begin("x2", "D", call="own"),
            end("x2", "D", "BUSY", call="own"),
            end("U", "x1", "CHANUNAVAIL", call="c"),
            hangup("D", 17),
            hangup("U", 38),
        ],
    )
    assert ended(seen)[-1] == ("U", "CHANUNAVAIL", 38)


def test_the_near_end_may_be_transferred_and_dial_by_itself() -> None:
    """U transfers x1 blindly: it asks for itself, and U's leg goes on behind x2."""
    seen = feed_all(
        LegTracker("pbx1"),
        [
            *(U_X[0], *X_D, U_X[1]),
            hangup("U"),
            begin("x1", "E", call="second"),
            end("x1", "E", call="second"),
            hangup("E"),
            hangup("x1"),
            hangup("x2"),
            hangup("D"),
        ],
    )
    found = [s for s in seen if isinstance(s, LegAnswered)]
    assert [(s.caller_uniqueid, s.leg_uniqueid, s.call_id) for s in found] == [
        ("U", "D", "c"),
        ("x1", "E", "second"),
    ]


@pytest.mark.parametrize(
    "name",
    [
        "Local/44@x-0000000a",
        "Local/44@x;1",
        "Local/44@x-0000000a;3",
        "Local/4\n4@x-0000000a;1",
        "PJSIP/Local/44@x-0000000a;1",
    ],
)
def test_what_is_named_otherwise_is_a_leg_like_any_other(name: str) -> None:
    """A name that a stranger has broken makes no call free: U pays for what was answered."""
    answer = end("U", "x1", call="c") | {"DestChannel": name}
    assert answers(answer) == [("U", "x1", "c")]


def test_memory_is_bounded_when_hangups_of_local_channels_are_lost() -> None:
    tracker = LegTracker("pbx1", max_tracked=10)
    for n in range(100):
        serial = f"Local/44@x-{n:08x};"
        tracker.feed(begin(f"U{n}", f"near{n}") | {"DestChannel": f"{serial}1"}, 0)
        tracker.feed(begin(f"far{n}", f"D{n}") | {"Channel": f"{serial}2"}, 0)
    assert len(tracker.known()) == 30  # ten callers, ten legs, ten Local channels (two ends each)
    tracker.forget(tracker.known())
    assert not tracker.known()


# ---- at random

CALLERS = ["U", "V", "x1", "x2", "y1", "y2", "D"]
LEGS = ["x1", "x2", "y1", "y2", "D", "E"]


def _random_event() -> st.SearchStrategy[Event]:
    calls = st.sampled_from([None, "", "c", "own"])
    callers, legs = st.sampled_from(CALLERS), st.sampled_from(LEGS)
    return st.one_of(
        st.builds(lambda u, d, c: begin(u, d, call=c), callers, legs, calls),
        st.builds(
            lambda u, d, s, c: end(u, d, s, call=c),
            callers,
            legs,
            st.sampled_from(["ANSWER", "BUSY", "CANCEL"]),
            calls,
        ),
        st.builds(hangup, st.sampled_from([*CALLERS, "E"])),
    )


@given(st.lists(_random_event(), max_size=40))
def test_any_order_of_events_names_only_carriers_legs_and_is_freed_by_hangups(
    events: list[Event],
) -> None:
    """However odd: no Local channel is a leg, nothing is kept, and each event is dealt with."""
    tracker = LegTracker("pbx1")
    seen = feed_all(tracker, events)
    for answer in seen:
        if isinstance(answer, LegAnswered):
            assert not channel(answer.leg_uniqueid).endswith(";1")
    feed_all(tracker, [hangup(uniqueid) for uniqueid in {*CALLERS, *LEGS}])
    assert not tracker.known()


@st.composite
def rows(draw: st.DrawFn) -> tuple[list[Event], str, list[str]]:
    """U dials through up to four Local channels in a row, of which some ask. Returns the events,
    beginnings shuffled, who pays, and the callers above that one."""
    names = "abcd"[: draw(st.integers(1, 4))]
    callers = ["U", *(f"{name}2" for name in names)]
    calls = ["c", *(draw(st.sampled_from(["", f"own-{name}"])) for name in names)]
    legs = [*(f"{name}1" for name in names), "D"]
    dials = list(zip(callers, legs, calls, strict=True))
    begins = draw(st.permutations([begin(u, d, call=c) for u, d, c in dials]))
    ends = [end(u, d, call=c) for u, d, c in reversed(dials)]
    payer = max(n for n, call in enumerate(calls) if call)
    gone = draw(st.permutations([hangup(uid) for uid in {*callers, *legs}]))
    return [*begins, *ends, *gone], callers[payer], callers[:payer]


@given(rows())
def test_through_any_row_of_local_channels_just_one_call_has_the_leg(
    made: tuple[list[Event], str, list[str]],
) -> None:
    events, payer, above = made
    tracker = LegTracker("pbx1")
    seen = feed_all(tracker, events)
    found = [s for s in seen if isinstance(s, LegAnswered)]
    assert [(s.caller_uniqueid, s.leg_uniqueid) for s in found] == [(payer, "D")]
    status = {uniqueid: dialstatus for uniqueid, dialstatus, _ in ended(seen)}
    assert status[payer] == "ANSWER"
    assert {status[uniqueid] for uniqueid in above} <= {FORWARDED}
    assert not tracker.known()
    assert RECEIVED_MS in {s.answered_at_ms for s in found}
