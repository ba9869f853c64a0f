"""The rows of the books: what of a call stands in which column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from astcredit.domain.books import ClientBooks, LedgerEntry, OpenCall
from astcredit.domain.instants import instant_text
from astcredit.domain.rating import Rate
from astcredit.domain.settlement import Settlement
from astcredit.domain.states import CallState
from astcredit.service.operations import Answered
from astcredit.service.ports import NewCall
from astcredit.storage import tables
from astcredit.storage.sql import SqlDialect, Value
from astcredit.storage.tables import fit, instant_ms, seconds_text

CDR_BEGIN = (
    "id", "node", "uniqueid", "linkedid", "channel", "client_id", "account_id", "accountcode",
    "callerid", "dialednum", "callednum", "prefix", "destination", "currency", "rate",
    "connect_fee", "first_increment", "next_increment", "grace_seconds", "minimum_charge",
    "status", "denied", "reason", "date_created", "seconds", "reservedamount",
)  # fmt: skip
CDR_ANSWER = ("status", "leg_uniqueid", "trunk", "dialed_at", "answered_at")
CDR_END = (
    "status", "dialstatus", "hangupcause", "dialed_at", "answered_at", "ended_at", "dialedtime",
    "answeredtime", "billsec", "price", "overrun_ms", "settled_by", "estimated", "note",
)  # fmt: skip
RESERVATION = (
    "call_id", "node", "uniqueid", "client_id", "accountcode", "reservedamount", "seconds",
    "date_created", "expires_at",
)  # fmt: skip
LEDGER = (
    "client_id", "seq", "kind", "amount", "balance_after", "call_id", "reference", "actor",
    "note", "date_created",
)  # fmt: skip
CLIENT = ("balance", "reserved", "active_calls", "ledger_seq")


def cdr_row(sql: SqlDialect, new: NewCall) -> Sequence[Value]:
    request, decision, rate = new.request, new.decision, new.decision.rate
    amount = sql.amount
    number = decision.number or request.number
    tariff: tuple[Value, ...] = ("", "", decision.currency, None, None, None, None, None, None)
    if rate is not None:
        tariff = (
            rate.prefix,
            rate.destination,
            decision.currency,
            amount(rate.rate_per_minute),
            amount(rate.connect_fee),
            rate.first_increment,
            rate.next_increment,
            rate.grace_seconds,
            amount(rate.minimum_charge),
        )
    return (
        request.call_id,
        *(_fit(c, getattr(request, c)) for c in ("node", "uniqueid", "linkedid", "channel")),
        decision.account.client_id if decision.account else None,
        decision.account.id if decision.account else None,
        _fit("accountcode", request.accountcode),
        _fit("callerid", request.callerid),
        _fit("dialednum", request.number),
        _fit("callednum", number),
        *tariff,
        CallState.OPEN if decision.allowed else CallState.DENIED,
        "" if decision.allowed else decision.status,
        _fit("reason", decision.reason),
        instant_text(new.created_at_ms),
        decision.seconds,
        amount(decision.reserved),
    )


def reservation_row(sql: SqlDialect, new: NewCall) -> Sequence[Value]:
    assert new.decision.account is not None
    return (
        new.request.call_id,
        _fit("node", new.request.node),
        _fit("uniqueid", new.request.uniqueid),
        new.decision.account.client_id,
        _fit("accountcode", new.request.accountcode),
        sql.amount(new.decision.reserved),
        new.decision.seconds,
        instant_text(new.created_at_ms),
        instant_text(new.expires_at_ms),
    )


def answer_row(answered: Answered) -> Sequence[Value]:
    call = answered.call
    return (
        call.call_id,
        call.state,
        _fit("leg_uniqueid", call.leg_uniqueid or ""),
        _fit("trunk", answered.trunk),
        _optional_instant(call.dialed_at_ms),
        _optional_instant(call.answered_at_ms),
    )


def ending_row(sql: SqlDialect, settlement: Settlement) -> Sequence[Value]:
    call, ending = settlement.call, settlement.ending
    return (
        call.call_id,
        settlement.state,
        _fit("dialstatus", ending.dialstatus),
        ending.hangupcause,
        _optional_instant(call.dialed_at_ms or ending.dialed_at_ms),
        _optional_instant(settlement.answered_at_ms),
        instant_text(ending.ended_at_ms),
        _optional_seconds(settlement.dialed_ms),
        _optional_seconds(settlement.talk_ms),
        settlement.billsec,
        sql.amount(settlement.price),
        settlement.overrun_ms,
        ending.settled_by,
        int(ending.estimated),
        _fit("note", ending.note),
    )


def ledger_row(sql: SqlDialect, entry: LedgerEntry) -> Sequence[Value]:
    return (
        entry.client_id,
        entry.seq,
        entry.kind,
        sql.amount(entry.amount),
        sql.amount(entry.balance_after),
        entry.call_id,
        entry.reference,
        entry.actor,
        entry.note,
        instant_text(entry.created_at_ms),
    )


def client_row(sql: SqlDialect, books: ClientBooks) -> Sequence[Value]:
    amount = sql.amount
    return (
        books.id,
        amount(books.balance),
        amount(books.reserved),
        books.active_calls,
        books.ledger_seq,
    )


def open_call(row: Sequence[Any]) -> OpenCall:
    rate = Rate(
        prefix=row[12],
        destination=row[13],
        rate_per_minute=row[14],
        connect_fee=row[15],
        first_increment=row[16],
        next_increment=row[17],
        grace_seconds=row[18],
        minimum_charge=row[19],
    )
    return OpenCall(
        call_id=row[0],
        client_id=row[1],
        node=row[2],
        uniqueid=row[3],
        leg_uniqueid=row[4],
        state=CallState(row[5]),
        rate=rate,
        reserved=row[11],
        seconds=row[6],
        created_at_ms=instant_ms(row[7]),
        expires_at_ms=instant_ms(row[8]),
        dialed_at_ms=None if row[9] is None else instant_ms(row[9]),
        answered_at_ms=None if row[10] is None else instant_ms(row[10]),
    )


def _fit(column: str, text: str) -> str:
    return fit(tables.astcdr, column, text)


def _optional_instant(instant: int | None) -> Value:
    return None if instant is None else instant_text(instant)


def _optional_seconds(milliseconds: int | None) -> Value:
    return None if milliseconds is None else seconds_text(milliseconds)
