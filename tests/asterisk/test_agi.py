"""The AGI protocol: whatever bytes come in whatever pieces, a request, a reply or a named error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astcredit.asterisk.agi import (
    HEADER_BYTES,
    HEADER_LINES,
    LINE_BYTES,
    REPLY_BYTES,
    AgiError,
    AgiProtocolError,
    AgiReply,
    AgiRequest,
    AgiTooLarge,
    HeaderParser,
    ReplyParser,
)
from support.agi_fakes import header_block


def parsed(block: bytes) -> AgiRequest:
    request = HeaderParser().feed(block)
    assert request is not None
    return request


def test_a_request_says_what_asterisk_said() -> None:
    request = parsed(header_block("authorize", ["00442071234567", "acme2", "pbx1"]))
    assert request.script == "authorize"
    assert request.arguments == ("00442071234567", "acme2", "pbx1")
    assert request.uniqueid == "1795292445.7"
    assert request.channel == "PJSIP/acme-00000007"
    assert request.callerid == "030123456"
    assert request.extension == "442071234567"
    assert request.accountcode == "acme"
    assert request.headers["agi_language"] == "en"
    assert [request.argument(position) for position in (0, 2, 3)] == ["00442071234567", "pbx1", ""]


@pytest.mark.parametrize(
    ("sent", "script"),
    [
        ("authorize", "authorize"),
        ("authorize?number=1&x=%20", "authorize"),
        ("/authorize/", "authorize"),
        ("with/path?q", "with/path"),
        ("", ""),
    ],
)
def test_the_script_is_the_path_without_its_query(sent: str, script: str) -> None:
    assert parsed(header_block(sent)).script == script


def test_the_script_is_taken_from_the_request_where_its_own_header_is_missing() -> None:
    block = b"agi_network: yes\nagi_request: agi://10.0.0.1:4573/hangup?x\n\n"
    assert parsed(block).script == "hangup"


@pytest.mark.parametrize(
    ("callerid", "expected"),
    [
        ("unknown", ""),
        ("", ""),
        ("+49 30 1", "+49 30 1"),
        ('"Bob" <1>|${X},(', '"Bob" <1>|${X},('),
        ("a: b: c", "a: b: c"),
        ("Zo\u00eb", "Zo\u00eb"),
        ("\udcff\udcfe", "\\xff\\xfe"),
        ("9" * 10_000, "9" * 10_000),
    ],
)
def test_a_caller_id_arrives_as_text_whatever_it_is(callerid: str, expected: str) -> None:
    assert parsed(header_block("authorize", callerid=callerid)).callerid == expected


def test_line_ends_of_windows_are_taken() -> None:
    block = header_block("balance", ["acme"]).replace(b"\n", b"\r\n")
    assert parsed(block).arguments == ("acme",)


def test_what_follows_the_block_is_kept_for_the_replies() -> None:
    parser = HeaderParser()
    assert parser.feed(header_block("hangup") + b"HANGUP\n") is not None
    assert parser.rest == b"HANGUP\n"


@pytest.mark.parametrize(
    "callerid",
    [
        "1\nagi_accountcode: victim",
        "1\nagi_arg_1: 44\nagi_arg_2: victim",
        "1\nagi_threadid: 5",
        "1\njunk",
        "1\n agi_x: 5",
    ],
)
def test_a_line_end_in_a_caller_id_adds_nothing_to_the_request(callerid: str) -> None:
    """Asterisk 22 sends such a caller id as it is: seen."""
    with pytest.raises(AgiProtocolError):
        HeaderParser().feed(header_block("authorize", callerid=callerid))


def test_arguments_come_after_all_that_a_caller_can_choose() -> None:
    with pytest.raises(AgiProtocolError, match="an argument before agi_threadid"):
        HeaderParser().feed(header_block("authorize", callerid="1\nagi_arg_2: victim"))
    assert parsed(header_block("authorize", ["", "acme"])).arguments == ("", "acme")


@pytest.mark.parametrize(
    "junk",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"INVITE sip:1@x SIP/2.0\r\n",
        b"Agi_network: yes\n",
        b"agi_network yes\n",
        b"agi_: yes\n",
        b"agi_a b: yes\n",
        b"\x00",
    ],
)
def test_what_is_not_agi_is_refused_as_soon_as_it_can_be_known(junk: bytes) -> None:
    with pytest.raises(AgiProtocolError) as caught:
        HeaderParser().feed(junk)
    assert not isinstance(caught.value, AgiTooLarge)
    assert caught.value.blame == "peer"


def test_the_first_wrong_byte_is_enough() -> None:
    with pytest.raises(AgiProtocolError):
        HeaderParser().feed(b"G")


def test_an_error_shows_no_control_characters() -> None:
    with pytest.raises(AgiProtocolError) as caught:
        HeaderParser().feed(b"\x1b[2Jagi\n\n")
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    "endless",
    [
        b"agi_x: " + b"a" * (LINE_BYTES + 1),
        b"".join(b"agi_%d: x\n" % number for number in range(HEADER_LINES + 1)),
        b"".join(b"agi_%d: %s\n" % (number, b"a" * 9_000) for number in range(8)),
    ],
    ids=["line", "lines", "bytes"],
)
def test_more_than_asterisk_sends_is_refused_before_its_end(endless: bytes) -> None:
    with pytest.raises(AgiTooLarge):
        HeaderParser().feed(endless)


def test_an_endless_block_is_refused_within_the_limits() -> None:
    """Memory is bounded: no more is ever taken than a block and a line."""
    parser = HeaderParser()
    fed: list[int] = []

    def feed_for_ever() -> None:
        for number in range(1_000_000):
            line = b"agi_%d: %s\n" % (number, b"x" * 1_000)
            fed.append(len(line))
            parser.feed(line)

    with pytest.raises(AgiTooLarge):
        feed_for_ever()
    assert sum(fed) <= HEADER_BYTES + LINE_BYTES


def test_the_most_that_is_allowed_is_taken() -> None:
    lines = [b"agi_%d: %s\n" % (number, b"x" * 16_000) for number in range(4)]
    lines += [b"agi_%d: \n" % number for number in range(4, HEADER_LINES)]
    assert len(parsed(b"".join(lines) + b"\n").headers) == HEADER_LINES


HOSTILE_LINES = st.one_of(
    st.sampled_from(
        [
            b"agi_network_script: authorize",
            b"agi_arg_1: 44",
            b"agi_arg_2: x",
            b"agi_threadid: 1",
            b"agi_accountcode: a",
            b"agi_callerid: \xff\xfe",
            b"agi_x: " + b"y" * (LINE_BYTES - 8),
            b"agi_y: " + b"y" * LINE_BYTES,
            b"agi_nocolon",
            b"HANGUP",
            b"ag",
            b"\r",
            b"",
        ]
    ),
    st.builds(
        lambda name, value: b"agi_" + name + b": " + value,
        st.sampled_from([b"a", b"b", b"c"]),
        st.binary(max_size=20),
    ),
    st.binary(max_size=8),
)


def outcome(pieces: list[bytes]) -> object:
    """What a parser makes of the pieces: a request and what comes after it, an error's class, or
    nothing yet."""
    parser = HeaderParser()
    try:
        for number, piece in enumerate(pieces, 1):
            request = parser.feed(piece)
            if request is not None:
                after = parser.rest + b"".join(pieces[number:])
                return (request.script, request.arguments, dict(request.headers), after)
    except AgiError as error:
        return type(error)
    return None


@given(st.lists(HOSTILE_LINES, max_size=12), st.sampled_from([b"\n", b"\r\n"]), st.data())
def test_pieces_make_no_difference_to_a_request(
    lines: list[bytes], end: bytes, data: st.DataObject
) -> None:
    block = b"".join(line + end for line in lines)
    cut = data.draw(st.integers(0, len(block)))
    whole = outcome([block])
    assert outcome([block[:cut], block[cut:]]) == whole
    if len(block) < 2_000:
        assert outcome([block[at : at + 1] for at in range(len(block))]) == whole


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_a_documented_error(junk: bytes) -> None:
    assert outcome([junk]) == outcome([junk[at : at + 1] for at in range(len(junk))])


# The quick way and the careful one

ORDER = (
    "network network_script request channel language type uniqueid version callerid calleridname "
    "callingpres callingani2 callington callingtns dnid rdnis context extension priority enhanced "
    "accountcode threadid"
)
"""What Asterisk 22 sends, in its order."""

USUAL_VALUES = st.sampled_from(["", "1", "unknown", "a b", "a: b", " a ", "authorize", "agi_arg_1"])
ODD_VALUES = st.sampled_from(["\t1", "Zo\u00eb", "1\nagi_x: 2", "1\r", "1\n", "\x7f", "1\n\nagi_"])


@st.composite
def blocks(draw: st.DrawFn) -> bytes:
    """A block as Asterisk sends it, or nearly."""
    names = [*ORDER.split(), *(f"arg_{n}" for n in range(1, draw(st.integers(1, 18))))]
    values = [draw(USUAL_VALUES) for _ in names]
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(names) - 1))
        match draw(st.sampled_from(["value", "name", "drop", "twice", "swap"])):
            case "value":
                values[at] = draw(ODD_VALUES)
            case "name":
                names[at] = draw(st.sampled_from(["x", "arg_1", "arg_01", "arg_99", "X y", ""]))
            case "drop":
                del names[at], values[at]
            case "twice":
                names.insert(at, names[at])
                values.insert(at, "1")
            case "swap":
                names[at], names[0] = names[0], names[at]
    lines = [f"agi_{name}: {value}\n" for name, value in zip(names, values, strict=True)]
    rest = draw(st.sampled_from(["", "", "HANGUP\n", "x"]))
    return ("".join(lines) + "\n" + rest).encode()


@given(blocks())
def test_a_block_that_comes_at_once_is_read_as_one_that_comes_in_two_pieces(block: bytes) -> None:
    assert outcome([block]) == outcome([block[:1], block[1:]])


def test_a_whole_block_after_the_beginning_of_another_is_not_read_alone() -> None:
    values = dict.fromkeys(ORDER.split(), "1")
    block = "".join(f"agi_{name}: {value}\n" for name, value in values.items()) + "\n"
    for begun in (b"agi_x: 1\n", b"agi_x: 1\nagi_network: yes\n", b"agi_network: yes\nag"):
        assert outcome([begun, block.encode()]) == outcome([begun + block.encode()])


def test_what_asterisk_sends_is_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each call would take the careful way, and nobody would see it."""

    def careful(parser: HeaderParser, line: bytes) -> None:
        raise AssertionError(line)

    monkeypatch.setattr(HeaderParser, "_take", careful)
    values = {name: name.upper() for name in ORDER.split()} | {"arg_1": " 44 ", "arg_2": ""}
    block = "".join(f"agi_{name}: {value}\n" for name, value in values.items()) + "\n"
    request = parsed(block.encode())
    assert request.arguments == ("44", "")
    assert request.script == "NETWORK_SCRIPT"
    assert request.headers["agi_threadid"] == "THREADID"


def test_a_line_that_is_too_long_is_so_in_a_block_that_comes_at_once_too() -> None:
    values = dict.fromkeys(ORDER.split(), "1") | {"callerid": "9" * LINE_BYTES}
    block = "".join(f"agi_{name}: {value}\n" for name, value in values.items()) + "\n"
    assert len(block) < HEADER_BYTES
    with pytest.raises(AgiTooLarge):
        parsed(block.encode())


# Replies


def replies(data: bytes, *, bytewise: bool = False) -> list[AgiReply]:
    parser = ReplyParser()
    found = []
    for piece in [data[at : at + 1] for at in range(len(data))] if bytewise else [data]:
        parser.feed(piece)
        while (reply := parser.next_reply()) is not None:
            found.append(reply)
    return found


USAGE = (
    b"520-Invalid command syntax.  Proper usage follows:\n"
    b"Returns 0 if not set.\nExample: 200 result=1 (x)\n520 End of proper usage.\n"
)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"200 result=0\n", AgiReply(200, "0")),
        (b"200 result=0\r\n", AgiReply(200, "0")),
        (b"200 result=1 ()\n", AgiReply(200, "1", "")),
        (b"200 result=1 (a b)\n", AgiReply(200, "1", "a b")),
        (b"200 result=1 (a) (b)\n", AgiReply(200, "1", "a) (b")),
        (b"200 result=1 (hangup)\n", AgiReply(200, "1", "hangup")),
        (b"200 result=1 (result=-1)\n", AgiReply(200, "1", "result=-1")),
        (b"200 result=1 (\xff|Zo\xc3\xab)\n", AgiReply(200, "1", "\\xff|Zo\u00eb")),
        (b"200 result=-1\n", AgiReply(200, "-1")),
        (b"200 result=-2\n", AgiReply(200, "-2")),
        (b"200 result= (timeout)\n", AgiReply(200, "", "timeout")),
        (b"200 result=0 endpos=1234\n", AgiReply(200, "0")),
        (b"100 result=0 Trying...\n200 result=0\n", AgiReply(200, "0")),
        (b"HANGUP\n200 result=1 (x)\n", AgiReply(200, "1", "x")),
        (b"510 Invalid or unknown command\n", AgiReply(510)),
        (b"511 Command Not Permitted on a dead channel or intercept routine\n", AgiReply(511)),
        (b"520 Invalid command syntax.  Proper usage not available.\n", AgiReply(520)),
        (USAGE, AgiReply(520)),
        (b"520-Usage:\n200 result=1 (x)\n520 End of proper usage.\n", AgiReply(520)),
    ],
)
def test_a_reply_is_read(sent: bytes, expected: AgiReply) -> None:
    assert replies(sent) == [expected]
    assert replies(sent, bytewise=True) == [expected]
    assert replies(sent + b"200 result=7\n") == [expected, AgiReply(200, "7")]


@pytest.mark.parametrize(
    ("reply", "refused", "hung_up"),
    [
        (AgiReply(200, "0"), False, False),
        (AgiReply(200, "-1"), False, True),
        (AgiReply(200, "-2"), True, False),
        (AgiReply(510), True, False),
        (AgiReply(511), False, True),
        (AgiReply(520), True, False),
    ],
)
def test_a_reply_tells_who_cannot_go_on(reply: AgiReply, refused: bool, hung_up: bool) -> None:
    assert (reply.refused, reply.hung_up) == (refused, hung_up)


@pytest.mark.parametrize(
    "junk",
    [
        b"\n",
        b"hello\n",
        b"200 result=1 (a\n",  # a value with a line end in it
        b"200 ok\n",
        b"2000 result=1\n",
        b"agi_callerid: x\n",
        b"200 result=abc\n",
    ],
)
def test_what_is_no_reply_is_refused(junk: bytes) -> None:
    with pytest.raises(AgiProtocolError):
        replies(junk)


@pytest.mark.parametrize(
    "endless",
    [
        b"2" * (LINE_BYTES + 1),
        b"200 result=1 (" + b"x" * LINE_BYTES + b")\n",
        b"520-usage\n" + b"x\n" * 200,
        b"520-usage\n" + (b"x" * 10_000 + b"\n") * (REPLY_BYTES // 10_000 + 1),
    ],
    ids=["no end", "line", "lines", "bytes"],
)
def test_a_reply_without_an_end_is_refused(endless: bytes) -> None:
    with pytest.raises(AgiTooLarge):
        replies(endless)


@pytest.mark.parametrize(
    ("received", "hung_up"),
    [(b"", False), (b"HANGUP\n", True), (b"HANGUP\nHANGUP\r\n", True), (b"HANG", False)],
)
def test_only_a_hangup_may_come_unasked(received: bytes, hung_up: bool) -> None:
    parser = ReplyParser(received)
    parser.expect_silence()
    assert parser.hung_up is hung_up


@pytest.mark.parametrize(
    "received", [b"200 result=1 (forged)\n", b"agi_", b"HANGUP\n2", b"HANGUPS", b"\n"]
)
def test_what_comes_unasked_ends_the_exchange(received: bytes) -> None:
    """What follows an empty line that a caller id forged, for example."""
    with pytest.raises(AgiProtocolError, match="nothing was asked"):
        ReplyParser(received).expect_silence()


USUAL_ENDS = (b"0", b"-1", b"", b"1 ()", b"1 (a) (b)", b"1  (a)", b"1 (a)\r", b"1 (a) ", b"1 (a")
ODD_ENDS = (b"0 endpos=5", b"1 (a) endpos=5", b"1 (\xff)")
REPLY_LINES = st.one_of(
    st.sampled_from(
        [b"200 result=1 (x)", b"100 Trying", b"520-x", b"520 x", b"HANGUP", b"510 y", b"511", b""]
    ),
    st.sampled_from([b"200 result=" + end for end in USUAL_ENDS + ODD_ENDS]),
    st.binary(max_size=12),
)


def reply_outcome(data: bytes, *, bytewise: bool) -> object:
    try:
        return replies(data, bytewise=bytewise)
    except AgiError as error:
        return type(error)


@given(st.lists(REPLY_LINES, max_size=4) | st.lists(REPLY_LINES, max_size=1))
def test_pieces_make_no_difference_to_replies(lines: list[bytes]) -> None:
    data = b"".join(line + b"\n" for line in lines)
    assert reply_outcome(data, bytewise=True) == reply_outcome(data, bytewise=False)
