"""How calls ended, in the words of settlement, made of what Asterisk reported."""

from __future__ import annotations

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
