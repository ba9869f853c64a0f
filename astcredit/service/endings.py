"""How calls ended, in the words of settlement, made of what Asterisk reported."""

from __future__ import annotations

from astcredit.domain.books import OpenCall
from astcredit.domain.calls import ChannelEnded, HangupReport
from astcredit.domain.settlement import Ending
from astcredit.domain.states import CallEvent


def unreported(report: HangupReport) -> Ending:
    """For a call that its channel made before the one it reports: nobody told how it ended."""
    return Ending(
        CallEvent.EXPIRE,
        report.ended_at_ms,
        "hangup",
        estimated=True,
        note="no end was reported; the channel went on to another call",
    )


def gone(
    call: OpenCall,
    heard_until_ms: int | None,
    asked_at_ms: int,
    report: HangupReport | None = None,
) -> Ending:
    """For a call of which Asterisk has no channel any more, and whose end nobody heard.

    An answered one was up at least until the last instant up to which everything was heard: that is
    what is charged, unless its calling channel reported a longer talk, and thereby its length. Of
    one that was not answered, as far as was heard, nothing is known.
    """
    if call.answered_at_ms is None:
        note = "ended while nobody listened; no answer was heard"
        return Ending(CallEvent.RELEASE, asked_at_ms, "recovery", estimated=True, note=note)
    until_ms = _known_up_until_ms(call.answered_at_ms, call, heard_until_ms, asked_at_ms)
    if report is not None and report.talk_ms >= until_ms - call.answered_at_ms:
        return end_of_report(report)
    note = "ended while nobody listened; charged until it was last known to be up"
    return Ending(
        CallEvent.END, until_ms, "recovery", dialstatus="ANSWER", estimated=True, note=note
    )


def expired(call: OpenCall, heard_until_ms: int | None, at_ms: int) -> Ending:
    """For a call past its last possible second, of whose end nobody told.

    Where its server is listened to, an answered one is charged until it was last known to be up: it
    may have ended long before, while nobody listened. Elsewhere nothing speaks against it having
    lasted as long as it could.
    """
    note = "no end was seen; closed when the call could last no longer"
    if call.answered_at_ms is not None and heard_until_ms is not None:
        at_ms = _known_up_until_ms(call.answered_at_ms, call, heard_until_ms, at_ms)
        note = "no end was seen; charged until it was last known to be up"
    return Ending(CallEvent.EXPIRE, at_ms, "expiry", estimated=True, note=note)


def _known_up_until_ms(
    answered_at_ms: int, call: OpenCall, heard_until_ms: int | None, now_ms: int
) -> int:
    known_up_ms = max(answered_at_ms, heard_until_ms or 0)
    until_ms = min(known_up_ms, now_ms, answered_at_ms + call.seconds * 1000)
    return max(until_ms, answered_at_ms)


def end_of_channel(event: ChannelEnded, what: CallEvent) -> Ending:
    """A channel that Asterisk hung up: the end of an answered leg, or of a call not answered."""
    unheard = what is CallEvent.RELEASE and not event.dialstatus
    return Ending(
        what,
        event.ended_at_ms,
        "ami",
        hangupcause=event.hangupcause,
        # An answered leg that dialled on by itself brings the status of that attempt.
        dialstatus="ANSWER" if what is CallEvent.END else event.dialstatus,
        dialed_at_ms=event.dialed_at_ms,
        estimated=unheard,
        note="the listener heard no dialling of this call" if unheard else "",
    )


def end_of_report(report: HangupReport) -> Ending:
    """What the calling channel reported in its `h` extension."""
    ended_at_ms, answered = report.ended_at_ms, report.answered
    note = _doubt(report) if answered else ""
    return Ending(
        CallEvent.END if answered else CallEvent.RELEASE,
        ended_at_ms,
        "hangup",
        hangupcause=report.hangupcause,
        dialstatus=report.dialstatus,
        answered_at_ms=ended_at_ms - report.talk_ms if answered else None,
        talk_ms=report.talk_ms if answered else None,
        dialed_at_ms=None if report.dialed_ms is None else ended_at_ms - report.dialed_ms,
        estimated=note != "",
        note=note,
    )


def _doubt(report: HangupReport) -> str:
    """Why the report of an answered call does not tell the whole length of its leg, if so."""
    if report.blind_transfer:
        return "blind transfer: the outbound leg went on unseen"
    return "" if report.dialstatus else "no DIALSTATUS: the channel's own talk was taken"
