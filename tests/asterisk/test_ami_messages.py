"""A manager's stream cut into messages, and what is read of an event about dialling: the same as
panoramisk reads, however the stream is cut, but nothing that Asterisk would not have written."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from panoramisk.message import Message

from astcredit.asterisk.ami_messages import (
    DIAL_EVENTS,
    END,
    MessageCutter,
    first_line,
    read_dial_event,
)
from astcredit.asterisk.dial_events import (
    Dial,
    EventHeaders,
    Hangup,
    TamperedError,
    read_event,
)

RECEIVED_MS = 7
READ_OF = {
    "Hangup": ("Event", "Timestamp", "Uniqueid", "Cause"),
    "DialBegin": ("Event", "Timestamp", "Channel", "Uniqueid", "DestChannel", "DestUniqueid"),
    "DialEnd": ("Event", "Timestamp", "Channel", "Uniqueid", "DestUniqueid", "DialStatus"),
}
"""Headers that count, by kind of event: the tests repeat them."""
OTHERS = ("Privilege", "CallerIDNum", "Exten", "Linkedid", "UniqueidX", "XUniqueid", "Cause-txt")

pieces = st.lists(st.integers(1, 40), min_size=1, max_size=10)
streams = st.text("\r\n\r\n\r\nAB", max_size=60).map(str.encode)
# A value ends at CR LF and at nothing else; panoramisk strips the blanks around a whole message.
values = st.text("\r\nab1:;=/ -\u00eb\ufffd", max_size=12).filter(lambda text: "\r\n" not in text)
stamps = st.sampled_from(["1795292429.305058", "5.5", "", "x"])
variables = st.sampled_from(
    ["AC_CALL=c1", "AC_CALL=", "AC_LEG=c1/1.5", "AC_CALLX=c2", "X=AC_CALL="]
)


@st.composite
def messages(draw: st.DrawFn) -> str:
    """An event about dialling with any headers, perhaps with one that counts repeated."""
    kind = draw(st.sampled_from(sorted(READ_OF)))
    names = draw(st.lists(st.sampled_from(READ_OF[kind][2:] + OTHERS), max_size=8))
    lines = [f"{name}: {draw(values)}" for name in names]
    lines += [f"Timestamp: {draw(stamps)}", f"Uniqueid: {draw(values)}"]
    if kind != "Hangup":  # of which no variable is looked at
        lines += draw(st.lists(variables.map("ChanVariable: {}".format), max_size=3))
        lines += draw(st.lists(variables.map("DestChanVariable: {}".format), max_size=3))
    lines += draw(st.lists(st.just("Event: Hangup"), max_size=1))
    shuffled = draw(st.permutations(lines))
    return "\r\n".join([f"Event: {kind}", *shuffled, "Last: x"])


def cut(stream: bytes, sizes: list[int]) -> list[bytes]:
    """The messages of a stream that comes in pieces of these sizes, over and over."""
    cutter, found, at, turn = MessageCutter(), [], 0, 0
    while at < len(stream):
        size = sizes[turn % len(sizes)]
        found += cutter.cut(stream[at : at + size])
        at, turn = at + size, turn + 1
    rest = stream.split(END)[-1]
    assert cutter.unread_bytes == len(rest)
    return found


def read(message: str) -> EventHeaders:
    raw = message.encode()
    return read_dial_event(*DIAL_EVENTS[first_line(raw)], raw)


def meaning(event: EventHeaders | Message) -> Dial | Hangup | str | None:
    try:
        return read_event(event, RECEIVED_MS)
    except TamperedError:
        return "tampered"


# --- cutting -----------------------------------------------------------------------------------


@given(streams, pieces)
@example(b"A\r\n\r\n\r\n\r\nB\r\n\r\n", [1])
@example(b"A\r\n\r\nB\r\n\r", [5, 3])
@example(b"A\r\n\r\nB\r\n\r\n", [8, 1])
def test_the_messages_are_the_same_however_the_stream_is_cut(
    stream: bytes, sizes: list[int]
) -> None:
    assert cut(stream, sizes) == stream.split(END)[:-1]


def test_an_end_that_is_cut_anywhere_is_an_end() -> None:
    for size in range(1, 8):
        assert cut(b"Event: A\r\n\r\nEvent: B\r\n\r\nEv", [size]) == [b"Event: A", b"Event: B"]


# --- reading -----------------------------------------------------------------------------------


@given(messages())
def test_an_event_says_what_panoramisk_reads_in_it(message: str) -> None:
    assert meaning(read(message)) == meaning(Message.from_line(message))


@given(st.lists(messages(), min_size=1, max_size=4), pieces)
def test_events_are_read_the_same_however_the_stream_is_cut(
    written: list[str], sizes: list[int]
) -> None:
    stream = "".join(f"{message}\r\n\r\n" for message in written).encode()
    found = [read(message.decode()) for message in cut(stream, sizes)]
    assert [meaning(event) for event in found] == [
        meaning(Message.from_line(message)) for message in written
    ]


@pytest.mark.parametrize("kind", READ_OF)
def test_a_header_that_counts_and_stands_there_twice_is_not_believed(kind: str) -> None:
    once = "\r\n".join([f"Event: {kind}", *(f"{name}: 1" for name in READ_OF[kind][1:])])
    assert not read(once).repeated
    for name in READ_OF[kind]:
        assert read(f"{once}\r\n{name}: 1").repeated, name


def test_a_name_counts_letter_by_letter() -> None:
    """Asterisk writes `Uniqueid`: what a caller's line break adds in other letters is nothing."""
    headers = read("Event: Hangup\r\nUniqueid: 1.7\r\nuniqueid: 666\r\nUNIQUEID: 666")
    assert (headers, headers.repeated) == ({"Event": "Hangup", "Uniqueid": "1.7"}, False)
    assert "Uniqueid" not in read("Event: Hangup\r\nuniqueid: 666\r\nX: \nUniqueid: 666")


def test_a_header_in_other_letters_beside_the_real_one_is_a_repeated_one() -> None:
    """In events that do not come from the stream names are compared without regard to case."""
    assert EventHeaders.of({"Uniqueid": "1.7", "uniqueid": "666"}).repeated


def test_a_call_is_named_once_among_any_other_variables() -> None:
    variables = (
        "\r\nChanVariable: AC_LEG=\r\nChanVariable: AC_CALL=c1\r\nChanVariable: X=AC_CALL=c2"
    )
    told = read(f"Event: DialEnd{variables}\r\nDestChanVariable: AC_LEG=c1/5.5")
    assert (told["ChanVariable"], told.repeated) == ("AC_CALL=c1", False)
    assert "DestChanVariable" not in told
    assert read(f"Event: DialEnd{variables}\r\nChanVariable: AC_CALL=c1").repeated


def test_an_invalid_byte_stays_a_sign_of_its_own() -> None:
    raw = b"Event: Hangup\r\nExten: 1\r\xff\nUniqueid: 666\r\nUniqueid: 1.7\xff"
    headers = read_dial_event(*DIAL_EVENTS[first_line(raw)], raw)
    assert (headers["Uniqueid"], headers.repeated) == ("1.7\ufffd", False)


@pytest.mark.parametrize("line", [b"Event: HangupRequest", b"Event: Hangup ", b"event: Hangup"])
def test_only_whole_names_are_events_about_dialling(line: bytes) -> None:
    assert first_line(line + b"\r\nUniqueid: 1.7") == line
    assert line not in DIAL_EVENTS
