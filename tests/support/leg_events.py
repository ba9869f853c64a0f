"""Asterisk's dial events for tests: recorded ones, and small ones by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from astcredit.asterisk.legs import HeaderValue, LegTracker, Seen
from astcredit.domain.calls import ChannelEnded, LegAnswered

EVENTS = Path(__file__).resolve().parents[1] / "asterisk" / "events"
"""Recorded from Asterisk 22.10 with timestampevents=yes and channelvars=AC_CALL."""

RECEIVED_MS = 1_000

Event = dict[str, HeaderValue]


def recorded(name: str) -> list[dict[str, str]]:
    """The events of one recording, in their order."""
    blocks = (EVENTS / f"{name}.txt").read_text().strip("\n").split("\n\n")
    return [dict(line.split(": ", 1) for line in block.split("\n")) for block in blocks]


def feed_all(tracker: LegTracker, events: Iterable[Mapping[str, HeaderValue]]) -> list[Seen]:
    """What a tracker makes of events."""
    return [seen for event in events for seen in tracker.feed(event, RECEIVED_MS)]


def short(seen: Seen) -> str:
    """One line a person can compare with the recording. Unique ids: what is after the dot."""
    if isinstance(seen, LegAnswered):
        caller, leg = (uid.rpartition(".")[2] for uid in (seen.caller_uniqueid, seen.leg_uniqueid))
        setup = seen.answered_at_ms - (seen.dialed_at_ms or 0)
        return f"{caller}>{leg} answered after {setup} ms, {seen.trunk}, call {seen.call_id!r}"
    return (
        f"{seen.uniqueid.rpartition('.')[2]} ended {seen.ended_at_ms} "
        f"{seen.dialstatus or '-'} {seen.hangupcause}"
    )


def ended(seen: Iterable[Seen]) -> list[tuple[str, str, int]]:
    """The endings among what was seen: unique id, dial status, cause."""
    return [(e.uniqueid, e.dialstatus, e.hangupcause) for e in seen if isinstance(e, ChannelEnded)]


# ---- by hand: channels are called U, D, E; a Local channel x has the ends x1 and x2


def begin(caller: str, leg: str, at: str = "", call: str | None = None) -> Event:
    """DialBegin; `call` is the caller's AC_CALL, None where events do not tell it."""
    return event("DialBegin", at, **_channels(caller, leg), **_variable(call))


def end(
    caller: str, leg: str, dialstatus: str = "ANSWER", at: str = "", call: str | None = None
) -> Event:
    """DialEnd."""
    headers = _channels(caller, leg) | {"DialStatus": dialstatus}
    return event("DialEnd", at, **headers, **_variable(call))


def hangup(uniqueid: str, cause: int = 16, at: str = "") -> Event:
    """Hangup."""
    return event("Hangup", at, Channel=channel(uniqueid), Uniqueid=uniqueid, Cause=str(cause))


def event(name: str, at: str, **headers: str) -> Event:
    """Any event, with a Timestamp if one is given."""
    return {"Event": name, **({"Timestamp": at} if at else {}), **headers}


def channel(uniqueid: str) -> str:
    """The name of a channel by hand: `x1` is an end of a Local channel."""
    name, number = uniqueid[:-1], uniqueid[-1:]
    if name and name.islower() and number in ("1", "2"):
        serial = name.encode().hex().rjust(8, "0")[-8:]
        return f"Local/44@{name}-{serial};{number}"
    return f"PJSIP/{uniqueid}-0000001a"


def _channels(caller: str, leg: str) -> dict[str, str]:
    return {
        "Channel": channel(caller),
        "Uniqueid": caller,
        "DestChannel": channel(leg),
        "DestUniqueid": leg,
    }


def _variable(call: str | None) -> dict[str, str]:
    return {} if call is None else {"ChanVariable": f"AC_CALL={call}"}
