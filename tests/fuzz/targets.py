"""What is fuzzed. A target takes an input and raises unless all that must hold for it does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fuzz import agi_targets, ami_targets, text_targets
from support.agi_fakes import header_block
from support.fake_ami import lines
from support.leg_events import EVENTS, recorded

RECORDS: Final = EVENTS.parent / "cdr"


@dataclass(frozen=True, slots=True)
class Target:
    """`run` takes one input. `seeds` are what a real Asterisk sends, `words` what its messages are
    made of, `most` the bytes of the largest input that is tried."""

    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...]
    most: int = 2_048


REPLIES: Final = (
    b"200 result=1 (17.1|192.0.2.7:5060)\n",
    b"200 result=0\n200 result=-1\n",
    b"100 result=0 Trying...\n200 result=0 endpos=8000\n",
    b"HANGUP\n511 Command Not Permitted on a dead channel or intercept routine\n",
    b"520-Invalid command syntax.  Proper usage follows:\n Usage: x\n520 End of proper usage.\n",
    b"510 Invalid or unknown command\r\n200 result= (timeout)\n200 result=-2\n",
)
WHOLE_BLOCK: Final = b"".join(
    f"agi_{name}: {value}\n".encode()
    for name, value in (
        *(("network", "yes"), ("network_script", "authorize"), ("request", "agi://h/authorize")),
        *(("channel", "PJSIP/acme-00000007"), ("language", "en"), ("type", "PJSIP")),
        *(("uniqueid", "1795292445.7"), ("version", "22.10.1"), ("callerid", "030123456")),
        *(("calleridname", "unknown"), ("callingpres", "0"), ("callingani2", "0")),
        *(("callington", "0"), ("callingtns", "0"), ("dnid", "442071234567"), ("rdnis", "unknown")),
        *(("context", "customers"), ("extension", "442071234567"), ("priority", "1")),
        *(("enhanced", "0.0"), ("accountcode", "acme"), ("threadid", "140609853802176")),
        *(("arg_1", "442071234567"), ("arg_2", ""), ("arg_3", "pbx1")),
    )
)
"""Every header that Asterisk 22 sends, in its order."""

BLOCKS: Final = (
    WHOLE_BLOCK + b"\n",
    WHOLE_BLOCK + b"agi_arg_3: x\n\n",
    WHOLE_BLOCK + b"agi_arg_5: x\n\n200 result=1\n",
    header_block("authorize", ["442071234567", "acme", "pbx1", "192.0.2.7:5060"]),
    header_block("hangup", callerid="", extension="h"),
    header_block("balance?x=1").replace(b"\n", b"\r\n"),
    header_block("authorize", callerid='0"1${SHELL(x)},|', calleridname="M\u00fcller\udcff"),
    b"agi_network: yes\nagi_request: agi://h/next-route\n\n",
    b"agi_callerid: 1\nagi_accountcode: x\n\n200 result=1\n",
    b"agi_callerid: x\x1b\x40\nagi_arg_1: y\nagi_threadid: 1\n\n",
)
AGI_WORDS: Final = (
    *(b"agi_request: ", b"agi_callerid: ", b"agi_threadid: ", b"agi_arg_1: ", b"agi_arg_16: "),
    *(b"200 result=", b"520-", b"520 ", b"HANGUP\n", b"510", b"511", b"-1", b" (", b")\n"),
    *(b"agi://", b"authorize", b"hangup", b"balance", b"next-route", b"unknown", b"?", b"/"),
    *(b"\n", b"\r\n", b"\n\n", b"\x00", b"\xff", b"\xc3", b"|", b"${", b"}", b"%0d%0a"),
    *(b"\x1b\x01", b"\x1b\x40", b"\x1b\xff", b"endpos=", b"\xe2\x80\xae"),
)


def _block(headers: Mapping[str, str]) -> bytes:
    return lines(*(f"{name}: {value}" for name, value in headers.items()))


def _list_of(*channels: str, said: int, end: str = "Complete") -> bytes:
    """A list of channels as the answer to the action that waits for one."""
    ours = "ActionID: {id}"
    items = (
        lines("Event: CoreShowChannel", ours, f"Channel: {name}", f"Uniqueid: 1795299054.{n}")
        for n, name in enumerate(channels)
    )
    begin = lines("Response: Success", ours, "EventList: start", "Message: Channels will follow")
    last = ("Event: CoreShowChannelsComplete", ours, f"EventList: {end}", f"ListItems: {said}")
    return begin + b"".join(items) + lines(*last)


def _slim(headers: Mapping[str, str]) -> dict[str, str]:
    """An event with no more than what counts, and a caller's number: short inputs are tried
    faster."""
    return {name: value for name, value in headers.items() if name in _COUNTS}


_COUNTS: Final = frozenset(
    {"Event", "Timestamp", "Channel", "CallerIDNum", "Uniqueid", "Linkedid", "ChanVariable"}
    | {"DestChannel", "DestUniqueid", "DestChanVariable", "DialStatus", "Cause"}
)
RECORDED: Final = {path.stem: recorded(path.stem) for path in sorted(EVENTS.glob("*.txt"))}
AMI_STREAMS: Final = (
    b"".join(map(_block, RECORDED["answered"][:3])),
    *(b"".join(_block(_slim(event)) for event in events) for events in RECORDED.values()),
    _list_of("PJSIP/a-00000001", "Local/1@x-0000000a;1", said=2),
    _list_of("PJSIP/a-00000001", said=3),
    _list_of(said=0, end="cancelled"),
    lines("Response: Error", "ActionID: {id}", "Message: Permission denied"),
    lines("Event: FullyBooted", "Uptime: 93", "LastReload: 93") + lines("Event: Shutdown"),
    lines("Event: Hangup", "CallerIDNum: 1", "", "Event: Hangup", "Uniqueid: 1.1", "Cause: 16"),
    lines("Event: Hangup", "Uniqueid: 1.1", "Uniqueid: 1.2", "CallerIDName: M\u00fcller"),
    b"Event: Hangup\r\nCallerIDNum: x\x1b\x40\r\nUniqueid: 1.1\r\nChannel: a\xff\r\n\r\n",
    b"Response: Follows\r\nActionID: {id}\r\nx\r\n--END COMMAND--\r\n\r\n",
)
AMI_WORDS: Final = (
    *(b"Event: ", b"Response: ", b"ActionID: {id}", b"{id}", b"Message: ", b"EventList: "),
    *(b"Success", b"Error", b"Follows", b"Goodbye", b"start", b"Complete", b"ListItems: 1"),
    *(b"DialBegin", b"DialEnd", b"Hangup", b"FullyBooted", b"Shutdown", b"CoreShowChannel"),
    *(b"Uniqueid: ", b"DestUniqueid: ", b"Channel: ", b"DestChannel: ", b"DialStatus: ANSWER"),
    *(b"Cause: 16", b"Timestamp: 1795292429.305058", b"ChanVariable: AC_CALL=", b"Linkedid: "),
    *(b"Local/1@x-0000000a;1", b"Local/1@x-0000000a;2", b"PJSIP/a-00000001", b"Uptime: "),
    *(
        b"\r\n",
        b"\r\n\r\n",
        b"\r",
        b"\n",
        b"\r\n\xff\r\n",
        b"\x00",
        b"\xc3\xbc",
        b": ",
        b"SubEvent: ",
    ),
    *(b"Asterisk Call Manager/", b"Result: %", b"CommandID: ", b"\x1b\x40", b"\x1b\xff"),
)

CDR_WORDS: Final = (
    *(b'"', b'""', b'","', b",", b"\n", b"\r\n", b"\r", b"ANSWERED", b"NO ANSWER", b"BUSY"),
    *(b'"2026-03-29 02:30:00"', b'"2026-10-25 02:30:00"', b'"0000-00-00 00:00:00"', b'""""" <1>"'),
    *(b"9999-12-31 23:59:60", b"1795299054.168405", b"0.000000", b"99999999999.999999999"),
    *(b"\xff", b"\x00", b"\x1b\x20", b"999999999", b"-1", b"\xd9\xa3"),
)
TEXT_WORDS: Final = (
    *(b'"', b"\\", b"$", b"${", b"}", b"$[", b"]", b"(", b")", b"[", b",", b"|", b"`", b"'", b";"),
    *(b"${SHELL(x)}", b"${EVAL(x)}", b"\n", b"\r", b"\x00", b"\x7f", b"\xff", b"\xe2\x80\xae"),
    *(b"L(60000:1:1)", b"PJSIP/1@c", b"%s", b"{0}", b"'; DROP TABLE astcdr; --", b"\x1b\x01"),
    *(b"\xef\xbc\x91", b"\xd9\xa3", b"\xc2\x85", b"\xe2\x80\xa8", b"  "),
)
TEXTS: Final = (
    b"+44 20 7123 4567",
    b"PJSIP/442071234567@carrier,20,L(3600000:60000:30000)",
    b"a|b|c",
    b"${SHELL(touch /tmp/x)}",
    b"Robert'); DROP TABLE astcdr;--",
    "Müller".encode(),
)


def _with(first: Iterable[int], seeds: Iterable[bytes]) -> tuple[bytes, ...]:
    """The seeds behind each of these first bytes."""
    behind = tuple(seeds)
    return tuple(bytes([byte]) + seed for byte in first for seed in behind)


def _records() -> tuple[bytes, ...]:
    """Calls as a real Asterisk recorded them, some together."""
    texts = [path.read_bytes() for path in sorted(RECORDS.glob("*.csv"))]
    rows = [row for text in texts for row in text.splitlines(keepends=True)]
    return tuple(b"".join(rows[at : at + 3]) for at in range(0, len(rows), 3))


CONVERSATIONS: Final = tuple(block + b"".join(REPLIES[:2]) for block in BLOCKS)

TARGETS: Final[Mapping[str, Target]] = {
    "agi": Target(agi_targets.connection, _with(range(4), CONVERSATIONS), AGI_WORDS),
    "agi-request": Target(agi_targets.request_block, BLOCKS, AGI_WORDS),
    "agi-replies": Target(agi_targets.replies, REPLIES, AGI_WORDS, most=1_024),
    "ami": Target(ami_targets.session, AMI_STREAMS, AMI_WORDS, most=6_144),
    "ami-link": Target(ami_targets.link, AMI_STREAMS, AMI_WORDS, most=6_144),
    "cdr": Target(text_targets.call_records, _with(range(3), _records()), CDR_WORDS),
    "sql": Target(text_targets.sql_literal, TEXTS, TEXT_WORDS, most=1_024),
    "variables": Target(text_targets.variables, TEXTS, TEXT_WORDS, most=1_024),
}


def write_corpus(target: Target, folder: Path) -> None:
    """The seeds as files of a folder, which must be empty."""
    for number, seed in enumerate(target.seeds):
        folder.joinpath(f"seed-{number:03}").write_bytes(seed)
    longest = max(map(len, target.seeds))
    assert longest <= target.most, f"a seed of {longest} bytes"


def write_words(target: Target, file: Path) -> None:
    """The dictionary, as libFuzzer reads it."""
    texts = ("".join(f"\\x{byte:02x}" for byte in word) for word in target.words)
    file.write_text("".join(f'"{text}"\n' for text in texts))
