"""From Asterisk's events to what is billed: which leg was answered for whom, and what ended.

The problem
-----------
What costs money is an answered outbound leg, from its answer to its own hangup. Asterisk tells
of it in three events, seen here as Asterisk 22 sends them. U is the channel that dials (the
caller's), D and E are channels that it dials (the carrier's). Every channel has a unique id.

An answered call. The two hangups come in either order:

    DialBegin  U→D
    DialEnd    U→D ANSWER          LegAnswered(U, D)
    Hangup     D  cause 16         ChannelEnded(D)      settles
    Hangup     U  cause 16         ChannelEnded(U)      nothing left to do

Busy (or CONGESTION, NOANSWER, CHANUNAVAIL; CANCEL when the caller gives up while it rings):

    DialBegin  U→D
    DialEnd    U→D BUSY
    Hangup     D  cause 17         nothing: D was not answered, and U may still try elsewhere
    Hangup     U  cause 17         ChannelEnded(U, BUSY, 17)      releases

Failover, one call on two routes: DialBegin U→D, DialEnd U→D CONGESTION, Hangup D cause 34,
then DialBegin U→E … as above. U is one call all the time; if E fails too, E tells why.

Two legs forked by Dial(D&E): two DialBegin, then `DialEnd U→D CANCEL` *before*
`DialEnd U→E ANSWER`, then Hangup D cause 26 (answered elsewhere).

The carrier redirects (SIP 302): `DialEnd U→D CANCEL` with a header Forward, then
`DialBegin U→Local/…;1`: a further leg of U.

Blind transfer, the reason for all this: U is gone while D costs money, and D dials by itself.

    DialEnd    U→D ANSWER          LegAnswered(U, D)
    Hangup     U                   ChannelEnded(U)      settles nothing: U is no outbound leg
    DialBegin  D→E                 D is now a caller too
    DialEnd    D→E ANSWER          LegAnswered(D, E)
    Hangup     E                   ChannelEnded(E)      settles the call that D made
    Hangup     D                   ChannelEnded(D)      settles the call that U made

A Local channel is a leg like any other. Dial(Local/x) gives `DialBegin U→Local;1`, and the
dialplan at its far end gives `DialBegin Local;2→D`, each with its own answer. Local channels may be
optimised away while the call goes on, which hangs up Local;1: whoever authorizes a call must
do it on the channel that dials the trunk itself (Local;2), or dial the Local channel with `/n`.

A Dial that finds no channel to dial (unknown trunk) sends no dial event at all: only the
caller's hangup, whose own cause then tells why.

The rules
---------
Every Hangup is reported unless the channel is known to be a leg that was not answered: after
a restart this tracker knows nothing, but the database does, and finds whether it matters.
Nothing is kept for a channel after its Hangup.

An event in which a header counts that stands there twice is not believed: Asterisk writes each
once, and a line break in a caller's number (which it does not remove) can add one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from astcredit.domain.calls import ChannelEnded, LegAnswered

HeaderValue = str | list[str]
"""A header's text, or several where the header was repeated in one event."""

Seen = LegAnswered | ChannelEnded

CALL_VARIABLE: Final = "AC_CALL"
"""The channel variable with the call's id; manager.conf's `channelvars` puts it in events."""

MAX_TRACKED: Final = 100_000
"""Callers, and legs, remembered at most. Far above what one Asterisk carries (some thousands
of channels); it only bounds memory, to some 30 MB, if hangups should get lost for weeks."""

ANSWER: Final = "ANSWER"

_SINGLE: Final = ("event", "timestamp", "uniqueid", "destuniqueid", "dialstatus", "cause")

_TIMESTAMP = re.compile(r"([0-9]{1,12})\.([0-9]{1,6})")
_SERIAL = re.compile(r"-[0-9a-fA-F]+(?:;[12])?$")
_CAUSE = re.compile(r"[0-9]{1,3}")

_V = TypeVar("_V")


@dataclass(slots=True)
class _Caller:
    """A channel that dials: how its newest attempt goes."""

    dialed_at_ms: int | None
    dialstatus: str = ""
    cause: int = 0


@dataclass(slots=True)
class _Leg:
    """A channel that is dialled. `dialstatus` is empty as long as it rings."""

    caller: str
    dialstatus: str = ""


class LegTracker:
    """Turns one Asterisk server's events, in their order, into answers and endings of legs.

    `node` is that server's name and stands in whatever is returned. No I/O, no clock.
    `tampered` counts the events that were not believed.
    """

    def __init__(self, node: str, max_tracked: int = MAX_TRACKED) -> None:
        self._node = node
        self._max_tracked = max_tracked
        self.tampered = 0
        self._callers: dict[str, _Caller] = {}
        self._legs: dict[str, _Leg] = {}

    def feed(self, event: Mapping[str, HeaderValue], received_ms: int) -> list[Seen]:
        """Take the next event; return what it means for calls, often nothing.

        Header names are compared without regard to case. Times are Asterisk's own
        (`timestampevents=yes` in manager.conf), else `received_ms`, in ms since 1970.
        """
        headers = {name.lower(): value for name, value in event.items()}
        if any(isinstance(headers.get(name), list) for name in _SINGLE):
            self.tampered += 1
            return []
        at_ms = _event_ms(headers, received_ms)
        match _text(headers, "event").lower():
            case "dialbegin":
                self._dial_begin(headers, at_ms)
            case "dialend":
                return self._dial_end(headers, at_ms)
            case "hangup":
                return self._hangup(headers, at_ms)
        return []

    def known(self) -> frozenset[str]:
        """Unique ids of all channels about which something is remembered."""
        return frozenset(self._callers) | frozenset(self._legs)

    def forget(self, uniqueids: Iterable[str]) -> None:
        """Drop what is remembered of channels whose Hangup will not come any more."""
        for uniqueid in uniqueids:
            self._callers.pop(uniqueid, None)
            self._legs.pop(uniqueid, None)

    def _dial_begin(self, headers: Mapping[str, HeaderValue], at_ms: int) -> None:
        uniqueid, leg_uniqueid = _text(headers, "uniqueid"), _text(headers, "destuniqueid")
        if not uniqueid or not leg_uniqueid:
            return  # Originate dials without a caller: nobody asked for credit
        caller = self._callers.get(uniqueid)
        if caller is None or caller.dialstatus == ANSWER:
            # After an answered attempt a new one belongs to another call of the channel.
            self._remember(self._callers, uniqueid, _Caller(at_ms))
        self._remember(self._legs, leg_uniqueid, _Leg(uniqueid))

    def _dial_end(self, headers: Mapping[str, HeaderValue], at_ms: int) -> list[Seen]:
        uniqueid, leg_uniqueid = _text(headers, "uniqueid"), _text(headers, "destuniqueid")
        if not uniqueid or not leg_uniqueid:
            return []
        dialstatus = _text(headers, "dialstatus").upper()
        self._remember(self._legs, leg_uniqueid, _Leg(uniqueid, dialstatus))
        caller = self._callers.get(uniqueid)
        if caller is None:  # its DialBegin was before our time
            caller = _Caller(None)
            self._remember(self._callers, uniqueid, caller)
        if dialstatus != ANSWER:
            if caller.dialstatus != ANSWER:
                caller.dialstatus = dialstatus
            return []
        caller.dialstatus, caller.cause = ANSWER, 0
        return [
            LegAnswered(
                node=self._node,
                caller_uniqueid=uniqueid,
                leg_uniqueid=leg_uniqueid,
                answered_at_ms=at_ms,
                call_id=call_variable(headers),
                trunk=_trunk(_text(headers, "destchannel")),
                dialed_at_ms=caller.dialed_at_ms,
            )
        ]

    def _hangup(self, headers: Mapping[str, HeaderValue], at_ms: int) -> list[Seen]:
        uniqueid, cause = _text(headers, "uniqueid"), _cause(headers)
        if not uniqueid:
            return []
        caller, leg = self._callers.pop(uniqueid, None), self._legs.pop(uniqueid, None)
        if leg is not None and leg.dialstatus != ANSWER:
            self._note_failure(leg.caller, cause)
            if leg.dialstatus and caller is None:
                return []
        if caller is not None:
            # The leg that failed knows why; the caller's own cause is a copy, if it is set.
            dialstatus, cause = caller.dialstatus, caller.cause or cause
        else:
            dialstatus = leg.dialstatus if leg is not None else ""
        dialed_at_ms = caller.dialed_at_ms if caller is not None else None
        return [ChannelEnded(self._node, uniqueid, at_ms, cause, dialstatus, dialed_at_ms)]

    def _note_failure(self, caller_uniqueid: str, cause: int) -> None:
        caller = self._callers.get(caller_uniqueid)
        if caller is not None and caller.dialstatus != ANSWER and cause:
            caller.cause = cause

    def _remember(self, where: dict[str, _V], uniqueid: str, value: _V) -> None:
        where[uniqueid] = value
        if len(where) > self._max_tracked:
            del where[next(iter(where))]  # the oldest: its hangup is the likeliest to be lost


def call_variable(headers: Mapping[str, HeaderValue]) -> str:
    """The call's id from an event with lower-case header names; empty if there is none.

    The dialling channel's own variable wins: a transferred leg makes a call of its own.
    """
    for header in ("chanvariable", "destchanvariable"):
        value = headers.get(header, "")
        for variable in value if isinstance(value, list) else [value]:
            name, _, text = variable.partition("=")
            if name == CALL_VARIABLE and text:
                return text
    return ""


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


def _trunk(channel: str) -> str:
    """`PJSIP/carrier-0000001a` is a channel of the trunk `PJSIP/carrier`."""
    return _SERIAL.sub("", channel)
