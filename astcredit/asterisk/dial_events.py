"""Asterisk's events about dialling, read into what the tracker of legs works with.

An event in which a header counts that stands there twice is not believed: Asterisk writes each
once, and a line break in a stranger's text (which it does not remove) can add one. The same holds
for a channel variable that is told twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

HeaderValue = str | list[str]
"""A header's text, or several where the header was repeated in one event."""

CALL_VARIABLE: Final = "AC_CALL"
"""The channel variable with the call's id; manager.conf's `channelvars` puts it in events."""

ANSWER: Final = "ANSWER"

_SINGLE: Final = (
    "event",
    "timestamp",
    "channel",
    "uniqueid",
    "destchannel",
    "destuniqueid",
    "dialstatus",
    "cause",
)
_VARIABLES: Final = ("chanvariable", "destchanvariable")

_TIMESTAMP = re.compile(r"([0-9]{1,12})\.([0-9]{1,6})")
_SERIAL = re.compile(r"-[0-9a-fA-F]+(?:;[12])?$")
_CAUSE = re.compile(r"[0-9]{1,3}")
# Local/EXTEN@CONTEXT-SERIAL;END. What stands before the serial is partly a stranger's text, which
# has a line break at worst; the serial is of this pair alone while Asterisk runs.
_LOCAL = re.compile(r"(Local/.+-[0-9a-f]{8});([12])")


class TamperedError(Exception):
    """An event has a header twice that Asterisk writes once."""


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel as an event names it.

    The two ends of a Local channel have its name in common, less the `;1` or `;2` behind it: it
    stands in `near` for the end that is dialled (`;1`), in `far` for the end that runs a dialplan
    (`;2`). Both are empty for any other channel.
    """

    uniqueid: str
    name: str
    near: str = ""
    far: str = ""

    @property
    def trunk(self) -> str:
        """`PJSIP/carrier-0000001a` is a channel of the trunk `PJSIP/carrier`."""
        return _SERIAL.sub("", self.name)


@dataclass(frozen=True, slots=True)
class DialEvent:
    """A DialBegin, DialEnd or Hangup; `kind` is that word in small letters.

    `channel` dials, or hangs up; `leg` is dialled. `own_call` is the AC_CALL of `channel`, empty
    when it has none, None when events do not tell (no `channelvars=AC_CALL`); `call_id` takes
    that of `leg` where `channel` has none. `at_ms` is ms since 1970, `cause` Q.850 or 0.
    """

    kind: str
    at_ms: int
    channel: Channel
    leg: Channel
    dialstatus: str
    cause: int
    own_call: str | None
    call_id: str


def read_event(event: Mapping[str, HeaderValue], received_ms: int) -> DialEvent | None:
    """What an event says; None for one of another kind or without a channel.

    Header names are compared without regard to case. The time is Asterisk's own
    (`timestampevents=yes` in manager.conf), else `received_ms`. Raises TamperedError.
    """
    headers = {name.lower(): value for name, value in event.items()}
    if any(isinstance(headers.get(name), list) for name in _SINGLE):
        raise TamperedError
    if any(len(list(_told(headers, name))) > 1 for name in _VARIABLES):
        raise TamperedError
    kind = _text(headers, "event").lower()
    if kind not in ("dialbegin", "dialend", "hangup") or not _text(headers, "uniqueid"):
        return None
    return DialEvent(
        kind=kind,
        at_ms=_event_ms(headers, received_ms),
        channel=_channel(_text(headers, "uniqueid"), _text(headers, "channel")),
        leg=_channel(_text(headers, "destuniqueid"), _text(headers, "destchannel")),
        dialstatus=_text(headers, "dialstatus").upper(),
        cause=_cause(headers),
        own_call=next(_told(headers, "chanvariable"), None),
        call_id=call_variable(headers),
    )


def call_variable(headers: Mapping[str, HeaderValue]) -> str:
    """The call's id from an event with lower-case header names; empty if there is none.

    The dialling channel's own variable wins: a transferred leg makes a call of its own.
    """
    values = (value for name in _VARIABLES for value in _told(headers, name))
    return next(filter(None, values), "")


def _told(headers: Mapping[str, HeaderValue], header: str) -> Iterator[str]:
    """The values that a header gives to AC_CALL: one, or none."""
    value = headers.get(header, "")
    for variable in value if isinstance(value, list) else [value]:
        name, equals, text = variable.partition("=")
        if equals and name == CALL_VARIABLE:
            yield text


def _channel(uniqueid: str, name: str) -> Channel:
    match = _LOCAL.fullmatch(name)
    if match is None:
        return Channel(uniqueid, name)
    local, end = match.groups()
    return Channel(uniqueid, name, near=local) if end == "1" else Channel(uniqueid, name, far=local)


def _text(headers: Mapping[str, HeaderValue], name: str) -> str:
    value = headers.get(name, "")
    return value[0] if isinstance(value, list) else value


def _event_ms(headers: Mapping[str, HeaderValue], received_ms: int) -> int:
    """Timestamp is seconds.microseconds; cut to ms, at both ends of a leg alike."""
    match = _TIMESTAMP.fullmatch(_text(headers, "timestamp"))
    if match is None:
        return received_ms
    seconds, fraction = match.groups()
    return int(seconds) * 1000 + int(fraction.ljust(6, "0")[:3])


def _cause(headers: Mapping[str, HeaderValue]) -> int:
    text = _text(headers, "cause")
    return int(text) if _CAUSE.fullmatch(text) else 0
