"""What a CDR says in sentences: who called, over which route, and how price and cost came about.

For whoever has to defend a charge, or to check a terminator's invoice.
"""

from __future__ import annotations

from astcredit.domain.accounts import IdentKind
from astcredit.domain.calls import AuthStatus
from astcredit.domain.money import Micros, short_text
from astcredit.domain.rating import Rate, explain, price
from astcredit.domain.states import CallState
from astcredit.domain.text import printable
from astcredit.service.naming import shown_name
from astcredit.service.reports import CdrRecord


def explain_cdr(cdr: CdrRecord) -> list[str]:
    """How a call was recognised, routed and charged, a step a line."""
    return [*_caller(cdr), *_way(cdr), *_outcome(cdr)]


def _caller(cdr: CdrRecord) -> list[str]:
    """Who called, as far as it is on record."""
    lines = []
    if cdr.account is not None and cdr.ident_by:
        by = {
            IdentKind.NAME: "name",
            IdentKind.IP: f"the address {printable(cdr.source)}",
            IdentKind.ANI: f"the caller's number {printable(cdr.ani)}",
        }[IdentKind(cdr.ident_by)]
        prefix = f" and the tech prefix {cdr.tech_prefix}" if cdr.tech_prefix else ""
        lines.append(f"account {shown_name(cdr.account)}, recognised by {by}{prefix}")
    if cdr.callerid != cdr.ani:
        lines.append(
            f"caller's number {printable(cdr.ani)}, presented as {printable(cdr.callerid)}"
        )
    return lines


def _way(cdr: CdrRecord) -> list[str]:
    """Which terminators were tried, the last one last."""
    lines = [f"tried before: {cdr.tried}"] if cdr.tried else []
    if cdr.terminator is not None:
        lines.append(
            f"terminator {shown_name(cdr.terminator)}, by routing plan"
            f" {shown_name(cdr.routing_plan or '')} for prefix {cdr.route_prefix}"
        )
    return lines


def _outcome(cdr: CdrRecord) -> list[str]:
    if cdr.status is CallState.DENIED:
        return [f"denied: {cdr.denied or AuthStatus.ERROR}: {cdr.reason}"]
    if cdr.status is CallState.FAILED:
        return ["not answered, nothing charged", *_corrected(cdr), *_remarks(cdr)]
    if cdr.price is None:
        return [f"still up: {short_text(cdr.reservedamount)} {cdr.currency} reserved"]
    tariff = cdr.tariff
    steps = [] if tariff is None else explain(tariff, _charged_seconds(cdr), cdr.price)
    return [*steps, *_cost(cdr, cdr.price), *_corrected(cdr), *_remarks(cdr)]


def _charged_seconds(cdr: CdrRecord) -> int:
    """Seconds talked, rounded up; what Asterisk cut too late is not charged."""
    return min(_talked_seconds(cdr), cdr.seconds)


def _talked_seconds(cdr: CdrRecord) -> int:
    return -(-(cdr.answeredtime or 0) // 1000)


def _cost(cdr: CdrRecord, charged: Micros) -> list[str]:
    """What the terminator is owed and what is left, where that is known.

    The terminator's meter ran until the leg's own end, so all the seconds talked count.
    """
    if cdr.ourcost is None:
        return []
    margin = (
        f"margin {short_text(charged - cdr.ourcost)}: price {short_text(charged)} less ourcost"
        f" {short_text(cdr.ourcost)}"
    )
    return [*_cost_sum(cdr.cost_tariff, _talked_seconds(cdr), cdr.ourcost), margin]


def _cost_sum(tariff: Rate | None, seconds: int, ourcost: Micros) -> list[str]:
    owed = f"ourcost {short_text(ourcost)}"
    if tariff is None:
        return [owed]
    due = price(tariff, seconds)
    *steps, _ = explain(tariff, seconds, due)  # the last is "price …", which is the client's word
    if ourcost != due:
        owed += ", which the terminator's rate does not explain"
    return [*(f"terminator: {step}" for step in steps), owed]


def _corrected(cdr: CdrRecord) -> list[str]:
    """What Asterisk's record said of a call that was estimated, and what became of the charge."""
    if cdr.corrected_answeredtime is None:
        return []
    lines: list[str] = []
    if cdr.tariff is not None and cdr.corrected_billsec:
        seconds = min(-(-cdr.corrected_answeredtime // 1000), cdr.seconds)
        lines = [f"corrected: {step}" for step in explain(cdr.tariff, seconds, cdr.paid)]
    price, change = short_text(cdr.price or 0), cdr.corrected or 0
    verb = "refunded" if change < 0 else "charged"
    lines.append(
        f"paid {short_text(cdr.paid)}: {price}, and {short_text(abs(change))} {verb} later"
    )
    if cdr.ourcost is None and cdr.corrected_ourcost is None:
        return lines
    owed = (cdr.ourcost or 0) + (cdr.corrected_ourcost or 0)
    margin = f"margin {short_text(cdr.paid - owed)}: paid {short_text(cdr.paid)} less ourcost"
    return [*lines, f"{margin} {short_text(owed)}"]


def _remarks(cdr: CdrRecord) -> list[str]:
    remarks = [f"settled by {cdr.settled_by}"]
    if cdr.overrun_ms:
        remarks.append(
            f"allowed {cdr.seconds} s, cut {cdr.overrun_ms} ms late: those are not charged"
        )
    if cdr.estimated:
        remarks.append(f"estimated, the end was not seen: {cdr.note}")
    elif cdr.note:
        remarks.append(f"note: {cdr.note}")
    return remarks
