"""Asterisk's events about dialling, read into what the tracker of legs works with.

An event in which a header counts that stands there twice is not believed: Asterisk writes each
once, and a line break in a stranger's text (which it does not remove) can add one. The same holds
for a channel variable that is told twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

HeaderValue = str | list[str]
"""A header's text, or several where the header was repeated in one event."""

CALL_VARIABLE: Final = "AC_CALL"
"""The channel variable with the call's id; manager.conf's `channelvars` puts it in events."""

ANSWER: Final = "ANSWER"

_VARIABLES: Final = ("ChanVariable", "DestChanVariable")
_COUNT: Final = {
    name.lower(): name
    for name in (
        "Event",
        "Timestamp",
        "Channel",
        "Uniqueid",
        "DestChannel",
        "DestUniqueid",
        "DialStatus",
        "Cause",
        *_VARIABLES,
    )
}
"""The headers that count, by their names in small letters."""
_SMALL_VARIABLES: Final = frozenset(name.lower() for name in _VARIABLES)

_KINDS: Final = frozenset({"dialbegin", "dialend", "hangup"})

_TOLD: Final = f"{CALL_VARIABLE}="
_TIMESTAMP = re.compile(r"([0-9]{1,12})\.([0-9]{1,3})[0-9]{0,3}")
_SERIAL = re.compile(r"-[0-9a-fA-F]+(?:;[12])?$")
_CAUSE = re.compile(r"[0-9]{1,3}")
# Local/EXTEN@CONTEXT-SERIAL;END. What stands before the serial is partly a stranger's text, which
# has a line break at worst; the serial is of this pair alone while Asterisk runs.
_LOCAL = re.compile(r"(Local/.+-[0-9a-f]{8});[12]")


class TamperedError(Exception):
    """An event has a header twice that Asterisk writes once."""


class EventHeaders(dict[str, str]):
    """The headers of one event that count, named as Asterisk writes them; of the channel variables
    only AC_CALL. `repeated`: one of them stood there more than once."""

    __slots__ = ("repeated",)

    repeated: bool

    @classmethod
    def of(cls, event: Mapping[str, HeaderValue]) -> EventHeaders:
        """Those of any event. Header names are compared without regard to case."""
        found = [
            (_COUNT[name.lower()], value)
            for name, values in event.items()
            if name.lower() in _COUNT
            for value in (values if isinstance(values, list) else [values])
            if name.lower() not in _SMALL_VARIABLES or value.startswith(_TOLD)
        ]
        headers = cls(found)
        headers.repeated = len(headers) < len(found)
        return headers


# Tuples, not dataclasses: one is made for each event, in a third of the time.
class Dial(NamedTuple):
    """A DialBegin, or a DialEnd (`ended`): the channel `uniqueid` dials, or has dialled, the
    channel `leg`, whose name is `leg_name`.

    `own_call` is the AC_CALL of the dialling channel, empty when it has none, None when events do
    not tell (no `channelvars=AC_CALL`); `call_id` takes that of the leg where the channel has none.
    `at_ms` is ms since 1970.

    The two ends of a Local channel have its name in common, less the `;1` or `;2` behind it: it
    stands in `near` if the leg is the end that is dialled (`;1`), in `far` if who dials is the end
    that runs a dialplan (`;2`). Both are empty for any other channel.
    """

    ended: bool
    at_ms: int
    uniqueid: str
    far: str
    leg: str
    leg_name: str
    near: str
    dialstatus: str
    own_call: str | None
    call_id: str

    @property
    def trunk(self) -> str:
        """`PJSIP/carrier-0000001a` is a channel of the trunk `PJSIP/carrier`."""
        return _SERIAL.sub("", self.leg_name)


class Hangup(NamedTuple):
    """A channel hangs up. `at_ms` is ms since 1970, `cause` Q.850 or 0."""

    at_ms: int
    uniqueid: str
    cause: int


def read_event(event: Mapping[str, HeaderValue], received_ms: int) -> Dial | Hangup | None:
    """What an event says; None for one of another kind or without a channel.

    Header names are compared without regard to case. The time is Asterisk's own
    (`timestampevents=yes` in manager.conf), else `received_ms`. Raises TamperedError.
    """
    headers = event if isinstance(event, EventHeaders) else EventHeaders.of(event)
    if headers.repeated:
        raise TamperedError
    kind, uniqueid = headers.get("Event", "").lower(), headers.get("Uniqueid", "")
    if kind not in _KINDS or not uniqueid:
        return None
    at_ms = _event_ms(headers.get("Timestamp", ""), received_ms)
    if kind == "hangup":
        return Hangup(at_ms, uniqueid, _cause(headers.get("Cause", "")))
    leg = headers.get("DestUniqueid", "")
    return _dial(kind == "dialend", at_ms, uniqueid, leg, headers) if leg else None


def _dial(ended: bool, at_ms: int, uniqueid: str, leg: str, headers: EventHeaders) -> Dial:
    own_call = headers.get("ChanVariable")
    if own_call is not None:
        own_call = own_call.removeprefix(_TOLD)
    leg_name = headers.get("DestChannel", "")
    return Dial(
        ended,
        at_ms,
        uniqueid,
        _local(headers.get("Channel", ""), ";2"),
        leg,
        leg_name,
        _local(leg_name, ";1"),
        headers.get("DialStatus", "").upper(),
        own_call,
        own_call or headers.get("DestChanVariable", "").removeprefix(_TOLD),
    )


def call_variable(headers: Mapping[str, HeaderValue]) -> str:
    """The call's id from an event; empty if there is none.

    Header names are compared without regard to case. The dialling channel's own variable wins: a
    transferred leg makes a call of its own.
    """
    values = (value for name in _VARIABLES for value in _told(headers, name.lower()))
    return next(filter(None, values), "")


def _told(headers: Mapping[str, HeaderValue], header: str) -> Iterator[str]:
    """The values that a header gives to AC_CALL: one, or none."""
    for name, value in headers.items():
        if name.lower() == header:
            for variable in value if isinstance(value, list) else [value]:
                if variable.startswith(_TOLD):
                    yield variable.removeprefix(_TOLD)


def _local(name: str, end: str) -> str:
    """The Local channel of which `name` is that end; empty if it is not."""
    if not (name.startswith("Local/") and name.endswith(end)):
        return ""
    match = _LOCAL.fullmatch(name)
    return match[1] if match else ""


def _event_ms(timestamp: str, received_ms: int) -> int:
    """Timestamp is seconds.microseconds; cut to ms, at both ends of a leg alike."""
    match = _TIMESTAMP.fullmatch(timestamp)
    return received_ms if match is None else int(match[1] + match[2].ljust(3, "0"))


def _cause(text: str) -> int:
    return int(text) if _CAUSE.fullmatch(text) else 0
