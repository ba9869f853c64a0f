"""What a call's events mean: real sequences from Asterisk 22, small ones by hand, random ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astcredit.asterisk.legs import HeaderValue, LegTracker, Seen, call_variable
from astcredit.domain.calls import ChannelEnded, LegAnswered
from support.leg_events import (
    EVENTS,
    RECEIVED_MS,
    Event,
    begin,
    end,
    ended,
    event,
    feed_all,
    hangup,
    recorded,
    short,
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "answered",
            [
                "6>7 answered after 1 ms, PJSIP/c-ok, call 'call-1795292429.6'",
                "7 ended 1795292429811 - 16",
                "6 ended 1795292429811 ANSWER 16",
            ],
        ),
        (
            "callee_hangs_up",
            [
                "37>38 answered after 2 ms, PJSIP/c-ok, call 'call-1795292500.37'",
                "37 ended 1795292501231 ANSWER 16",
                "38 ended 1795292501231 - 16",
            ],
        ),
        ("busy", ["8 ended 1795292432445 BUSY 17"]),
        ("no_answer", ["32 ended 1795292458208 NOANSWER 0"]),
        ("cancelled", ["39 ended 1795292503152 CANCEL 127"]),
        ("no_channel", ["18 ended 1795292441320 - 34"]),
        (
            "forked",
            [
                "27>29 answered after 4 ms, PJSIP/c-ok, call 'call-1795292450.27'",
                "27 ended 1795292450904 ANSWER 16",
                "29 ended 1795292450905 - 16",
            ],
        ),
        (
            "failover",
            [
                "15>17 answered after 4 ms, PJSIP/c-ok, call 'call-1795292438.15'",
                "17 ended 1795292438959 - 16",
                "15 ended 1795292438959 ANSWER 16",
            ],
        ),
        (
            "blind_transfer",
            [
                "34>35 answered after 2 ms, PJSIP/c-ok, call 'call-1795292496.34'",
                "34 ended 1795292497402 ANSWER 16",
                "35>36 answered after 2 ms, PJSIP/c-ok2, call ''",
                "36 ended 1795292498910 - 16",
                "35 ended 1795292498911 ANSWER 16",
            ],
        ),
        (
            "redirected",
            ["10 ended 1795292435398 CANCEL 127", "13 ended 1795292435399 CANCEL 127"],
        ),
        (
            "attended_transfer",
            [
                "60>61 answered after 26 ms, PJSIP/carrier, call 'call-1'",
                "62>63 answered after 8 ms, PJSIP/carrier, call 'call-2'",
                "60 ended 1795307272788 ANSWER 16",
                "62 ended 1795307272792 ANSWER 16",
                "61 ended 1795307274135 - 16",
                "63 ended 1795307274137 - 16",
            ],
        ),
    ],
)
def test_a_recorded_sequence_means_this(name: str, expected: list[str]) -> None:
    tracker = LegTracker("pbx1")
    assert [short(seen) for seen in feed_all(tracker, recorded(name))] == expected
    assert not tracker.known()
    assert not tracker.tampered


@pytest.mark.parametrize("name", sorted(path.stem for path in EVENTS.glob("*.txt")))
def test_a_controller_that_starts_in_mid_call_reports_what_it_still_sees(name: str) -> None:
    """After any number of lost events each hangup that comes of an answered leg is reported."""
    events = recorded(name)
    legs = {
        seen.leg_uniqueid
        for seen in feed_all(LegTracker("pbx1"), events)
        if isinstance(seen, LegAnswered)
    }
    for lost in range(len(events)):
        tracker = LegTracker("pbx1")
        seen = feed_all(tracker, events[lost:])
        ended = {end.uniqueid for end in seen if isinstance(end, ChannelEnded)}
        hung_up = {e["Uniqueid"] for e in events[lost:] if e["Event"] == "Hangup"}
        assert legs & hung_up <= ended
        assert not tracker.known()


# --- by hand -----------------------------------------------------------------------------------


def test_an_answer_says_all_that_is_known_of_it() -> None:
    answer = end("U", "D", "ANSWER", "20.000999") | {
        "DestChannel": "PJSIP/my-trunk-beef-0000001a",
        "ChanVariable": ["X=1", "AC_CALL=c=1"],
        "DestChanVariable": "AC_CALL=other",
    }
    seen = feed_all(LegTracker("pbx1"), [begin("U", "D", "12.345678"), answer])
    assert seen == [
        LegAnswered("pbx1", "U", "D", 20_000, "c=1", "PJSIP/my-trunk-beef", 12_345),
    ]


def test_an_answer_whose_beginning_was_not_seen_counts() -> None:
    seen = feed_all(LegTracker("pbx1"), [end("U", "D", "ANSWER")])
    assert seen == [LegAnswered("pbx1", "U", "D", RECEIVED_MS, trunk="PJSIP/D")]


def test_the_first_of_several_attempts_dates_the_dialling() -> None:
    """Failover is one call: its set-up began with its first leg, and the last leg tells why."""
    events = [
        begin("U", "D", "10.5"),
        end("U", "D", "CONGESTION"),
        hangup("D", 34),
        begin("U", "E", "11.5"),
        end("U", "E", "BUSY"),
        hangup("E", 17),
        hangup("U", 0, "12.0"),
    ]
    assert feed_all(LegTracker("pbx1"), events) == [
        ChannelEnded("pbx1", "U", 12_000, 17, "BUSY", 10_500)
    ]


def test_an_attempt_after_an_answered_one_is_another_call() -> None:
    """Neither the first dialling's time nor its outcome stays with the second."""
    events = [
        begin("U", "D", "10.0"),
        end("U", "D", "ANSWER"),
        hangup("D"),
        begin("U", "E", "20.0"),
        end("U", "E", "BUSY"),
        hangup("E", 17),
        hangup("U", 16, "21.0"),
    ]
    assert feed_all(LegTracker("pbx1"), events)[-1] == (
        ChannelEnded("pbx1", "U", 21_000, 17, "BUSY", 20_000)
    )


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        pytest.param(
            [
                begin("U", "D"),
                begin("U", "E"),
                end("U", "E", "ANSWER"),
                end("U", "D", "CANCEL"),
                hangup("D", 26),
                hangup("E", 16),
                hangup("U", 16),
            ],
            [("E", "", 16), ("U", "ANSWER", 16)],
            id="a fork that ends after the other was answered changes nothing",
        ),
        pytest.param(
            [begin("U", "D"), hangup("D", 41), hangup("U", 16)],
            [("D", "", 41), ("U", "", 41)],
            id="a leg that vanishes while it rings is reported, and is why the caller failed",
        ),
        pytest.param(
            [begin("U", "D"), end("U", "D", "CONGESTION"), hangup("D", 0), hangup("U", 19)],
            [("U", "CONGESTION", 19)],
            id="a leg without a cause leaves the caller its own",
        ),
        pytest.param(
            [
                begin("U", "D"),
                end("U", "D", "ANSWER"),
                hangup("U", 16),
                begin("D", "E"),
                end("D", "E", "BUSY"),
                hangup("E", 17),
                hangup("D", 16),
            ],
            [("U", "ANSWER", 16), ("D", "BUSY", 17)],
            id="a transferred leg whose own attempt failed says why that failed",
        ),
        pytest.param(
            [
                begin("U", "D"),
                begin("D", "E"),
                end("D", "E", "BUSY"),
                hangup("E", 17),
                end("U", "D", "CANCEL"),
                hangup("D", 0),
            ],
            [("D", "BUSY", 17)],
            id="a leg that failed but had dialled by itself is reported as a caller",
        ),
        pytest.param([hangup("X", 16)], [("X", "", 16)], id="a channel never heard of"),
        pytest.param([event("Hangup", "", Cause="16")], [], id="a hangup of nobody"),
        pytest.param(
            [event("Hangup", "", Uniqueid="X", Cause="٣")], [("X", "", 0)], id="no number as cause"
        ),
        pytest.param(
            [event("DialBegin", "", DestUniqueid="D"), hangup("D", 16)],
            [("D", "", 16)],
            id="Originate dials without a caller",
        ),
        pytest.param([event("Newchannel", "", Uniqueid="X")], [], id="an event of no interest"),
    ],
)
def test_endings(events: list[Event], expected: list[tuple[str, str, int]]) -> None:
    assert ended(feed_all(LegTracker("pbx1"), events)) == expected


def test_an_answer_without_a_caller_is_ignored() -> None:
    answer = event("DialEnd", "", DestUniqueid="D", DialStatus="ANSWER")
    tracker = LegTracker("pbx1")
    assert tracker.feed(answer, RECEIVED_MS) == []
    assert not tracker.known()


def test_header_names_in_any_case() -> None:
    ending: Event = {"EVENT": "HANGUP", "uniqueID": "X", "CAUSE": "21"}
    assert LegTracker("pbx1").feed(ending, 7) == [ChannelEnded("pbx1", "X", 7, 21)]


@pytest.mark.parametrize(
    ("timestamp", "expected_ms"),
    [
        ("1795292429.811268", 1_795_292_429_811),
        ("1795292429.9", 1_795_292_429_900),
        ("1795292429.000999", 1_795_292_429_000),
        ("1795292429", RECEIVED_MS),
        ("-1.5", RECEIVED_MS),
        ("1e9.5", RECEIVED_MS),
        ("", RECEIVED_MS),
    ],
)
def test_the_time_is_asterisks_else_that_of_receipt(timestamp: str, expected_ms: int) -> None:
    (seen,) = LegTracker("pbx1").feed(hangup("X", at=timestamp), RECEIVED_MS)
    assert isinstance(seen, ChannelEnded)
    assert seen.ended_at_ms == expected_ms


@pytest.mark.parametrize(
    ("channel", "trunk"),
    [
        ("PJSIP/carrier-0000001a", "PJSIP/carrier"),
        ("PJSIP/a-b-0000001A", "PJSIP/a-b"),
        ("IAX2/carrier-1234", "IAX2/carrier"),
        ("DAHDI/i1/100-7", "DAHDI/i1/100"),
        ("odd", "odd"),
        ("", ""),
    ],
)
def test_the_trunk_is_the_channel_without_its_serial(channel: str, trunk: str) -> None:
    (seen,) = LegTracker("n").feed(end("U", "D", "ANSWER") | {"DestChannel": channel}, 0)
    assert isinstance(seen, LegAnswered)
    assert seen.trunk == trunk


@pytest.mark.parametrize(
    ("headers", "call_id"),
    [
        ({"chanvariable": "AC_CALL=a"}, "a"),
        ({"chanvariable": ["X=AC_CALL=b", "AC_CALL=a"]}, "a"),
        ({"chanvariable": "AC_CALL=", "destchanvariable": "AC_CALL=a"}, "a"),
        ({"chanvariable": "AC_CALL=a", "destchanvariable": "AC_CALL=b"}, "a"),
        ({"chanvariable": "AC_CALLX=a"}, ""),
        ({}, ""),
    ],
)
def test_the_calls_id_from_channel_variables(headers: dict[str, HeaderValue], call_id: str) -> None:
    assert call_variable(headers) == call_id


@pytest.mark.parametrize(
    "name",
    ["Channel", "Uniqueid", "DestChannel", "DestUniqueid", "DialStatus", "Timestamp", "Event"],
)
def test_an_event_with_a_header_twice_is_not_believed(name: str) -> None:
    """A line break in a caller's number can add a header, for example another's unique id."""
    tracker = LegTracker("pbx1")
    answer = end("U", "D", "ANSWER", "1.5")
    answer[name] = [str(answer[name]), "666"]
    assert tracker.feed(answer, RECEIVED_MS) == []
    assert tracker.tampered == 1
    assert not tracker.known()


@pytest.mark.parametrize("header", ["ChanVariable", "DestChanVariable"])
def test_an_event_that_tells_the_call_twice_is_not_believed(header: str) -> None:
    """The forged one would stand first, where the caller's number is: another call would pay."""
    tracker = LegTracker("pbx1")
    answer = end("U", "D") | {header: ["AC_CALL=another", "X=1", "AC_CALL=mine"]}
    assert tracker.feed(answer, RECEIVED_MS) == []
    assert tracker.tampered == 1


def test_memory_is_bounded_when_hangups_are_lost() -> None:
    """The oldest are forgotten; the newest still work."""
    tracker = LegTracker("pbx1", max_tracked=10)
    for n in range(100):
        tracker.feed(begin(f"U{n}", f"D{n}"), 0)
        tracker.feed(end(f"U{n}", f"D{n}", "BUSY"), 0)
    assert len(tracker.known()) == 20
    assert tracker.feed(hangup("D99", 17), 0) == []
    assert tracker.feed(hangup("U99", 0), 5) == [ChannelEnded("pbx1", "U99", 5, 17, "BUSY", 0)]


def test_forgotten_channels_leave_nothing() -> None:
    tracker = LegTracker("pbx1")
    tracker.feed(begin("U", "D"), 0)
    assert tracker.known() == {"U", "D"}
    tracker.forget(["U", "D", "never heard of"])
    assert not tracker.known()


# --- at random ---------------------------------------------------------------------------------

FAILURES = st.sampled_from(["BUSY", "NOANSWER", "CONGESTION", "CANCEL", "CHANUNAVAIL"])


@st.composite
def calls(draw: st.DrawFn) -> tuple[list[Event], list[str], bool]:
    """One call: failed legs, then perhaps an answered one, whose caller ends before or after it.
    Returns its events, with ids that `with_ids` completes, how the legs failed, and if one was
    answered."""
    failed = draw(st.lists(FAILURES, max_size=3))
    answered = draw(st.booleans())
    events: list[Event] = []
    for n, dialstatus in enumerate(failed):
        leg = f"-L{n}"
        events += [begin("-U", leg), end("-U", leg, dialstatus), hangup(leg, 30 + n)]
    if answered:
        events += [begin("-U", "-A"), end("-U", "-A", "ANSWER")]
        events += draw(st.permutations([hangup("-U", 16), hangup("-A", 16)]))
    else:
        events.append(hangup("-U", 0))
    return events, failed, answered


def with_ids(seen: Event, call: int) -> Event:
    ids = ("Uniqueid", "DestUniqueid")
    return seen | {name: f"{call}{seen[name]}" for name in ids if name in seen}


@given(st.lists(calls(), max_size=8), st.data())
def test_calls_mixed_at_random_keep_their_own_legs_and_leave_nothing(
    made: list[tuple[list[Event], list[str], bool]], data: st.DataObject
) -> None:
    queues = [[with_ids(one, call) for one in events] for call, (events, _, _) in enumerate(made)]
    tracker, seen = LegTracker("pbx1"), list[Seen]()
    while waiting := [queue for queue in queues if queue]:
        seen += tracker.feed(data.draw(st.sampled_from(waiting)).pop(0), RECEIVED_MS)

    assert not tracker.known()
    by_caller = {s.caller_uniqueid: s.leg_uniqueid for s in seen if isinstance(s, LegAnswered)}
    ended = {s.uniqueid: s for s in seen if isinstance(s, ChannelEnded)}
    assert by_caller == {f"{n}-U": f"{n}-A" for n, (_, _, answered) in enumerate(made) if answered}
    for n, (_, failed, answered) in enumerate(made):
        last = "ANSWER" if answered else failed[-1] if failed else ""
        cause = 16 if answered else 30 + len(failed) - 1 if failed else 0
        end_of_caller = ended.pop(f"{n}-U")
        assert (end_of_caller.dialstatus, end_of_caller.hangupcause) == (last, cause)
        if answered:
            assert ended.pop(f"{n}-A").hangupcause == 16
    assert not ended  # no leg that failed is reported


@given(
    st.lists(
        st.builds(
            lambda name, u, d, status: event(
                name, "", Uniqueid=u, DestUniqueid=d, DialStatus=status, Cause="16"
            ),
            st.sampled_from(["DialBegin", "DialEnd", "Hangup"]),
            st.sampled_from(["", "a", "b", "c"]),
            st.sampled_from(["", "a", "b", "c"]),
            st.sampled_from(["ANSWER", "BUSY", ""]),
        )
    )
)
def test_any_order_of_events_is_taken_and_freed_by_hangups(events: list[Event]) -> None:
    """No sequence, however odd, raises or keeps anything of a channel that was hung up."""
    tracker = LegTracker("pbx1")
    feed_all(tracker, events)
    feed_all(tracker, [hangup("a"), hangup("b"), hangup("c")])
    assert not tracker.known()


def test_a_failure_heard_before_a_silence_does_not_tell_how_the_call_ended() -> None:
    """The channel may have been put through on another route while nobody listened."""
    tracker = LegTracker("n")
    tracker.feed(begin("U", "D"), 0)
    tracker.feed(end("U", "D", "CONGESTION"), 0)
    tracker.doubt()
    (seen,) = tracker.feed(hangup("U"), 0)
    assert isinstance(seen, ChannelEnded)
    assert seen.dialstatus == ""
