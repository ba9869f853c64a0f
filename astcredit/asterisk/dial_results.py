"""What Dial and Asterisk left in a channel's variables: how an attempt or a call ended.

What is no number, or no word of Asterisk's, is taken for absent, and logged.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

from astcredit.domain.calls import HangupReport
from astcredit.domain.text import printable

BILLSEC = "CDR(billsec,f)"
HANGUP_VARIABLES = (
    "AC_CALL",
    BILLSEC,
    "DIALEDTIME_MS",
    "HANGUPCAUSE",
    "DIALSTATUS",
    "ANSWEREDTIME_MS",
    "BLINDTRANSFER",
)
ROUTE_VARIABLES = ("AC_CALL", "DIALSTATUS", "HANGUPCAUSE")

_CALL_ID = re.compile(r"[A-Za-z0-9_.:@-]{1,64}", re.ASCII)
_DIALSTATUS = re.compile(r"[A-Z]{1,20}", re.ASCII)
_SECONDS = re.compile(r"([0-9]{1,7})(?:\.([0-9]{1,9}))?", re.ASCII)
_MILLISECONDS = re.compile(r"[0-9]{1,10}", re.ASCII)
_CAUSE = re.compile(r"[0-9]{1,3}", re.ASCII)
_MOST_CHANNEL_NAME = 255

_log = logging.getLogger(__name__)


def hangup_report(
    node: str, uniqueid: str, ended_at_ms: int, values: Mapping[str, str]
) -> HangupReport:
    """The report that the variables of a channel in `h` make. Never raises: what is no number is
    taken for absent, and logged."""
    answered = values["DIALSTATUS"] == "ANSWER"
    return HangupReport(
        node=node,
        uniqueid=uniqueid,
        call_id=call_id_of(values["AC_CALL"]),
        ended_at_ms=ended_at_ms,
        talk_ms=_talk_ms(values, answered),
        dialed_ms=_number("DIALEDTIME_MS", values, _MILLISECONDS),
        dialstatus=dialstatus_of(values),
        hangupcause=cause_of(values),
        blind_transfer=values["BLINDTRANSFER"][:_MOST_CHANNEL_NAME],
    )


def dialstatus_of(values: Mapping[str, str]) -> str:
    """DIALSTATUS, or nothing if it is none."""
    dialstatus = values["DIALSTATUS"]
    return dialstatus if _DIALSTATUS.fullmatch(dialstatus) else ""


def cause_of(values: Mapping[str, str]) -> int:
    """HANGUPCAUSE, a Q.850 cause; 0 if it is none."""
    cause = _number("HANGUPCAUSE", values, _CAUSE)
    return cause if cause is not None and cause <= 127 else 0


def _talk_ms(values: Mapping[str, str], answered: bool) -> int:
    """CDR(billsec,f) in milliseconds; the part of a millisecond is dropped.

    It runs from the channel's own answer, which may be before Dial; ANSWEREDTIME_MS says too much
    when a warning is played. Neither says too little, so the smaller one counts. Where CDRs are
    switched off only ANSWEREDTIME_MS is left: the call is not given away.
    """
    match = _SECONDS.fullmatch(values[BILLSEC])
    if match:
        talk_ms = int(match[1]) * 1000 + int((match[2] or "")[:3].ljust(3, "0"))
        dial_ms = _number("ANSWEREDTIME_MS", values, _MILLISECONDS) if answered else None
        return min(talk_ms, dial_ms) if dial_ms else talk_ms
    _log_garbage(BILLSEC, values[BILLSEC])
    if not answered:
        return 0
    _log.warning(
        "answered call without CDR(billsec,f)",
        extra={"action": "hangup_without_billsec", "call_id": printable(values["AC_CALL"])},
    )
    return _number("ANSWEREDTIME_MS", values, _MILLISECONDS) or 0


def _number(name: str, values: Mapping[str, str], pattern: re.Pattern[str]) -> int | None:
    if pattern.fullmatch(values[name]):
        return int(values[name])
    _log_garbage(name, values[name])
    return None


def _log_garbage(name: str, value: str) -> None:
    if value:
        extra = {"action": "hangup_bad_number", "variable": name, "value": printable(value)}
        _log.warning("hangup variable is no number", extra=extra)


def call_id_of(text: str) -> str:
    """AC_CALL, or nothing if it is no id."""
    return text if _CALL_ID.fullmatch(text) else ""
