"""The AGI protocol without I/O: the request block, the replies, and who is to blame.

Asterisk opens with a block of lines `agi_name: value`, ended by an empty line. Then it answers
commands, one reply each, and must never be sent a second command before the first is answered
(Asterisk 22 then stalls). A reply is one line, or several when usage is explained (`520-…` up to
`520 …`); lines `1xx` and `HANGUP` may come in between.

Asterisk escapes nothing. Whoever gets a line end into a caller id or a dialled number (`%0A` in a
SIP URI) writes lines into the block: another `agi_accountcode`, arguments, even the empty line
and, after it, forged replies. Seen on Asterisk 22. So a block is refused when

- a name comes twice (each name that Asterisk sends would, as it sends the true one as well),
- an argument comes before `agi_threadid` (Asterisk sends it after all that a caller can choose),
- a line is none of `agi_name: value`;

and bytes that arrive when no reply is due (what follows a forged empty line) end the connection.
What this cannot see is a line end in the last argument of `AGI()`: a dialplan must FILTER what
it passes.

    AgiError                the exchange ends here; `blame` says who did wrong
    ├── AgiProtocolError    the peer: what it sends is not AGI
    │   └── AgiTooLarge     the peer: more than any Asterisk sends
    ├── AgiPeerGone         nobody: the peer closed the connection
    │   ├── AgiClosedEarly  nobody: it did so before it had asked anything
    │   └── AgiHungUp       nobody: the channel is hung up
    └── AgiTooSlow          the peer: a time limit is over
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field
from itertools import takewhile
from types import MappingProxyType

from astcredit.domain.records import record
from astcredit.domain.text import printable
from astcredit.service.errors import AstcreditError

LINE_BYTES = 16 * 1024
"""Longest line. A SIP message of 64 KiB can carry a caller id of more than 10,000 characters, and
such a call is to be answered, not dropped; a variable that is read back is far shorter."""

HEADER_BYTES = 64 * 1024
"""Longest block: some 500 bytes are usual; caller id, its name, the dialled and the redirecting
number and one argument, each of them hostile and of 10 kB, still fit."""

HEADER_LINES = 128
"""Most lines of a block: Asterisk sends 22, and one for each argument."""

REPLY_LINES = 128
"""Most lines of one reply: the longest usage text of Asterisk 22 has about forty."""

REPLY_BYTES = 64 * 1024
"""Longest reply of several lines."""

MOST_ARGUMENTS = 16
"""Arguments that are looked at; the scripts know three."""

_FIRST_BYTES = b"agi_"
_BLANK = (b"", b"\r")
HANGUPS = (b"HANGUP\n", b"HANGUP\r\n")
"""The line that says, at any time, that the channel is hung up."""

_NAME = re.compile(r"agi_[A-Za-z0-9_]{1,60}", re.ASCII)
_ARGUMENT = re.compile(r"agi_arg_([0-9]{1,3})", re.ASCII)
_REPLY = re.compile(r"([0-9]{3})([ -]?)(.*)", re.ASCII | re.DOTALL)
_RESULT = re.compile(r"result=(-?[0-9]*)(?:\s+\((.*)\))?(?:\s+endpos=[0-9]+)?\s*", re.DOTALL)
_LAST_OF_CALLER_DATA = "agi_threadid"
_ARGUMENTS = "agi_arg_"

_ARGUMENT_NAMES = [f"{_ARGUMENTS}{number}" for number in range(1, MOST_ARGUMENTS + 1)]

# What Asterisk 11 to 22 sends to a FastAGI server, in this order, before the arguments.
_ORDER = (
    "network network_script request channel language type uniqueid version callerid calleridname "
    "callingpres callingani2 callington callingtns dnid rdnis context extension priority enhanced "
    "accountcode threadid"
)
_NAMES_IN_ORDER = [f"agi_{name}" for name in _ORDER.split()]
_USUAL_BLOCK = re.compile(
    "".join([rf"{name}: ([ -~]*+)\n" for name in _NAMES_IN_ORDER])
    + rf"((?:{_ARGUMENTS}[0-9]++: [ -~]*+\n)*+)\n"
)
_USUAL_REPLY = re.compile(rb"200 result=(-?[0-9]*)(?: \(([ -~]*)\))?\n")


class AgiError(AstcreditError):
    """The exchange with this peer cannot go on."""

    blame = "nobody"


class AgiProtocolError(AgiError):
    """The peer does not speak AGI, or somebody tampered with what it says."""

    blame = "peer"


class AgiTooLarge(AgiProtocolError):  # noqa: N818 - the family name is in the base
    """The peer sends more than any Asterisk does."""


class AgiPeerGone(AgiError):  # noqa: N818 - an event, not a fault
    """The peer closed the connection, or lost it."""


class AgiClosedEarly(AgiPeerGone):
    """The peer closed before the end of its request, as a load balancer's health check does."""


class AgiHungUp(AgiPeerGone):
    """The channel is hung up: nobody will act on an answer."""


class AgiTooSlow(AgiError):  # noqa: N818 - the family name is in the base
    """The peer did not send in time what was due."""

    blame = "peer"


@record
class AgiRequest:
    """What Asterisk says of the channel when it starts a script.

    Every text is hostile. `script` is the path after the host, without a query string;
    `callerid` is empty when Asterisk calls it unknown.
    """

    script: str
    arguments: tuple[str, ...] = ()
    uniqueid: str = ""
    channel: str = ""
    callerid: str = ""
    extension: str = ""
    accountcode: str = ""
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def argument(self, position: int) -> str:
        """The argument at `position`, counted from 0; empty when it is not given."""
        return self.arguments[position] if position < len(self.arguments) else ""

    @classmethod
    def from_headers(cls, headers: dict[str, str]) -> AgiRequest:
        """The request that a block of headers makes; they are its own from here on."""
        callerid = headers.get("agi_callerid", "")
        return cls(
            script=_script(headers),
            arguments=_arguments(headers),
            uniqueid=headers.get("agi_uniqueid", ""),
            channel=headers.get("agi_channel", ""),
            callerid="" if callerid == "unknown" else callerid,
            extension=headers.get("agi_extension", ""),
            accountcode=headers.get("agi_accountcode", ""),
            headers=MappingProxyType(headers),
        )


def _script(headers: Mapping[str, str]) -> str:
    name = headers.get("agi_network_script", "")
    if not name:
        _, _, after_host = headers.get("agi_request", "").partition("://")
        name = after_host.partition("/")[2]
    return name.partition("?")[0].strip("/")


def _arguments(headers: Mapping[str, str]) -> tuple[str, ...]:
    """Asterisk numbers them from 1 without a gap; what comes after one is not its own."""
    given = takewhile(headers.__contains__, _ARGUMENT_NAMES)
    return tuple([headers[name] for name in given])


def _at_once(block: bytes) -> dict[str, str] | None:
    """The headers of a block that came in one piece and is just what Asterisk usually sends.

    Each name once, in Asterisk's order, and printable ASCII: nobody has written a line into it.
    None for everything else, right or wrong. That is for the careful reading, line by line, of
    which this is the quick half.
    """
    if len(block) > LINE_BYTES or not block.isascii():
        return None
    match = _USUAL_BLOCK.fullmatch(block.decode("ascii"))
    if match is None:
        return None
    arguments = [line.partition(": ") for line in match[match.lastindex or 0].splitlines()]
    names = [name for name, _, _ in arguments]
    if names != _ARGUMENT_NAMES[: len(names)]:
        return None
    values = [*match.groups()[:-1], *[value for _, _, value in arguments]]
    return dict(zip([*_NAMES_IN_ORDER, *names], map(str.strip, values), strict=True))


class HeaderParser:
    """Takes the request block in pieces of any size; holds no more than one line and a piece."""

    __slots__ = ("_buffer", "_headers", "_searched", "_taken", "rest")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._taken = 0
        self._headers: dict[str, str] = {}
        self.rest = b""
        """What came after the block: nothing, or a `HANGUP` line."""

    def feed(self, data: bytes) -> AgiRequest | None:
        """The request once its block is complete, else None.

        Raises AgiProtocolError or AgiTooLarge at the first byte that cannot be right.
        """
        if not self._buffer and not self._headers and (headers := _at_once(data)) is not None:
            return AgiRequest.from_headers(headers)
        self._buffer += data
        while (end := self._buffer.find(b"\n", self._searched)) >= 0:
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            self._searched = 0
            if line in _BLANK:
                self.rest = bytes(self._buffer)
                return AgiRequest.from_headers(self._headers)
            self._check(line)
            self._take(line)
        self._searched = len(self._buffer)
        self._check(bytes(self._buffer))
        return None

    def _check(self, line: bytes) -> None:
        """Refuse a line, complete or not yet, in the same order however it is cut."""
        if line in _BLANK:
            return
        if len(self._headers) >= HEADER_LINES:
            raise AgiTooLarge(f"more than {HEADER_LINES} header lines")
        if not (line.startswith(_FIRST_BYTES) or _FIRST_BYTES.startswith(line)):
            raise AgiProtocolError(f"expected a line 'agi_…', got {printable(_decode(line))}")
        if len(line) > LINE_BYTES or self._taken + len(line) > HEADER_BYTES:
            raise AgiTooLarge(f"a line of {LINE_BYTES} bytes, or headers of {HEADER_BYTES}")

    def _take(self, line: bytes) -> None:
        name, colon, value = _decode(line).partition(":")
        if not colon or not _NAME.fullmatch(name):
            raise AgiProtocolError(f"expected 'agi_name: value', got {printable(_decode(line))}")
        if name in self._headers:
            raise AgiProtocolError(f"header {name} twice: a line end in a value?")
        if name == _LAST_OF_CALLER_DATA and any(map(_ARGUMENT.fullmatch, self._headers)):
            raise AgiProtocolError(f"an argument before {name}: a line end in a value?")
        self._headers[name] = value.strip()
        self._taken += len(line) + 1


def _decode(line: bytes) -> str:
    """Text of a line; what is not UTF-8 comes out as `\\xff`, so that nothing is ever raised."""
    return line.decode("utf-8", "backslashreplace")


@record
class AgiReply:
    """Asterisk's answer to a command: `200 result=RESULT (DATA)`, or a code that refuses it."""

    code: int
    result: str = ""
    data: str | None = None

    @property
    def refused(self) -> bool:
        """Asterisk does not know the command (510), its form (520) or the application (-2)."""
        return self.code in (510, 520) or (self.code == 200 and self.result == "-2")

    @property
    def hung_up(self) -> bool:
        """The channel is dead (511), or died in the command (-1)."""
        return self.code == 511 or (self.code == 200 and self.result == "-1")


def drop_hangups(unasked: bytearray) -> bool:
    """Take the `HANGUP` lines out of what came without being asked for; whether there was one.

    Raises AgiProtocolError if there is anything else.
    """
    found = False
    while (end := unasked.find(b"\n") + 1) and bytes(unasked[:end]) in HANGUPS:
        del unasked[:end]
        found = True
    rest = bytes(unasked[:LINE_BYTES])
    if not any(line.startswith(rest) for line in HANGUPS):
        raise AgiProtocolError(f"nothing was asked, but got {printable(_decode(rest))}")
    return found


class ReplyParser:
    """Takes what Asterisk sends after the block, in pieces of any size, and finds the replies."""

    __slots__ = ("_buffer", "_usage", "hung_up")

    def __init__(self, received: bytes = b"") -> None:
        self._buffer = bytearray(received)
        self._usage: list[int] = []
        self.hung_up = False
        """A `HANGUP` line has come: the channel is gone, though commands are still answered."""

    def feed(self, data: bytes) -> None:
        """Take what was received."""
        self._buffer += data

    def expect_silence(self) -> None:
        """Raise AgiProtocolError if anything but `HANGUP` was received and not asked for."""
        if self._buffer:
            self.hung_up |= drop_hangups(self._buffer)

    def next_reply(self) -> AgiReply | None:
        """The next reply if it is complete, else None.

        Raises AgiProtocolError for what is no reply, AgiTooLarge for one without an end.
        """
        if (usual := self._usual_reply()) is not None:
            return usual
        while (line := self._next_line()) is not None:
            if line + b"\n" in HANGUPS:
                self.hung_up = True
                continue
            reply = self._reply_of(line)
            if reply is not None:
                return reply
        return None

    def _usual_reply(self) -> AgiReply | None:
        """The reply, if all that was received is one of the usual form; the quick way to it."""
        match = None if self._usage else _USUAL_REPLY.fullmatch(self._buffer)
        if match is None or len(self._buffer) > LINE_BYTES:
            return None
        result, data = match.groups()
        self._buffer.clear()
        return AgiReply(200, result.decode(), None if data is None else data.decode())

    def _next_line(self) -> bytes | None:
        end = self._buffer.find(b"\n")
        if end > LINE_BYTES or (end < 0 and len(self._buffer) > LINE_BYTES):
            raise AgiTooLarge(f"a reply line of more than {LINE_BYTES} bytes")
        if end < 0:
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    def _reply_of(self, line: bytes) -> AgiReply | None:
        """The reply that ends with this line; None while it goes on, and for `1xx` lines."""
        if self._usage and not line.startswith(b"%d " % self._usage[0]):
            self._usage.append(len(line))
            if len(self._usage) > REPLY_LINES or sum(self._usage[1:]) > REPLY_BYTES:
                raise AgiTooLarge("a reply without an end")
            return None
        self._usage.clear()
        match = _REPLY.fullmatch(_decode(line).rstrip("\r"))
        if match is None:
            raise AgiProtocolError(f"expected a reply, got {printable(_decode(line))}")
        code = int(match[1])
        if match[2] == "-":
            self._usage.append(code)
            return None
        return None if code < 200 else _reply(code, match[3])


def _reply(code: int, text: str) -> AgiReply:
    if code != 200:
        return AgiReply(code)
    match = _RESULT.fullmatch(text)
    if match is None:
        raise AgiProtocolError(f"expected 'result=', got {printable(text)}")
    return AgiReply(code, match[1], match[2])
