"""The rows of the books: what of a call stands in which column."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from astcredit.domain.alerts import Alert, Audience
from astcredit.domain.books import ClientBooks, LedgerEntry, OpenCall
from astcredit.domain.capacity import Level, Occupancy
from astcredit.domain.catalog import ClientKind
from astcredit.domain.instants import instant_text
from astcredit.domain.quotas import ClientPeriod, Usage
from astcredit.domain.rating import Rate
from astcredit.domain.settlement import Settlement
from astcredit.domain.states import CallState
from astcredit.service.operations import Answered
from astcredit.service.ports import FoundCall, NewCall, OpenOnNode
from astcredit.storage import tables
from astcredit.storage.column_types import instant_ms, micros, seconds_text
from astcredit.storage.sql import SqlDialect, Value
from astcredit.storage.tables import fit

CDR_BEGIN = (
    "id", "node", "uniqueid", "linkedid", "channel", "client_id", "account_id", "accountcode",
    "callerid", "dialednum", "callednum", "prefix", "destination", "currency", "rate",
    "connect_fee", "first_increment", "next_increment", "grace_seconds", "minimum_charge",
    "status", "denied", "reason", "date_created", "seconds", "reservedamount",
    "ani", "source", "ident_by", "tech_prefix", "reseller_id", "route_id", "term_account_id",
    "cost_prefix", "cost_rate", "cost_connect_fee", "cost_first_increment",
    "cost_next_increment", "cost_grace_seconds", "cost_minimum_charge", "quota_month",
    "quota_day",
)  # fmt: skip
CDR_REROUTE = (
    "route_id", "term_account_id", "tried", "cost_prefix", "cost_rate", "cost_connect_fee",
    "cost_first_increment", "cost_next_increment", "cost_grace_seconds", "cost_minimum_charge",
)  # fmt: skip
CDR_ANSWER = ("status", "leg_uniqueid", "trunk", "dialed_at", "answered_at")
CDR_END = (
    "status", "dialstatus", "hangupcause", "dialed_at", "answered_at", "ended_at", "dialedtime",
    "answeredtime", "billsec", "price", "ourcost", "overrun_ms", "settled_by", "estimated",
    "note",
)  # fmt: skip
RESERVATION = (
    "call_id", "node", "uniqueid", "client_id", "accountcode", "reservedamount", "seconds",
    "date_created", "expires_at", "account_id", "reseller_id", "route_id", "term_account_id",
    "term_client_id", "term_reseller_id", "quota_month", "quota_day",
)  # fmt: skip
FOUND_CALL = (
    "r.call_id, r.client_id, r.node, r.account_id, r.reseller_id, r.route_id, r.term_account_id,"
    " r.term_client_id, r.term_reseller_id"
)
RESERVATION_REROUTE = (
    "route_id", "term_account_id", "term_client_id", "term_reseller_id", "routes_tried",
)  # fmt: skip
ROUTE_SEPARATOR = ","
CAPACITY = ("id", "scope", "object_id", "direction", "calls")
LEDGER = (
    "client_id", "seq", "kind", "amount", "balance_after", "call_id", "reference", "actor",
    "note", "date_created",
)  # fmt: skip
CLIENT = ("balance", "reserved", "active_calls", "ledger_seq", "low_balance_told")
USAGE = (
    "client_id", "period", "quota", "spent", "reserved", "waived", "told", "first_over_at",
    "last_over_at", "blocked_at", "reset_at",
)  # fmt: skip
OUTBOX = (
    "reference", "kind", "audience", "client_id", "facts", "status", "next_attempt",
    "date_created",
)  # fmt: skip


def cdr_row(sql: SqlDialect, new: NewCall) -> Sequence[Value]:
    request, decision = new.request, new.decision
    occupancy, identified = decision.occupancy, decision.identified
    number = decision.number or request.number
    return (
        request.call_id,
        *(_fit(c, getattr(request, c)) for c in ("node", "uniqueid", "linkedid", "channel")),
        decision.account.client_id if decision.account else None,
        decision.account.id if decision.account else None,
        _fit("accountcode", request.account or request.accountcode),
        _fit("callerid", decision.callerid),
        _fit("dialednum", request.number),
        _fit("callednum", number),
        *_tariff(sql, decision.rate, decision.currency),
        CallState.OPEN if decision.allowed else CallState.DENIED,
        "" if decision.allowed else decision.status,
        _fit("reason", decision.reason),
        instant_text(new.created_at_ms),
        decision.seconds,
        sql.amount(decision.reserved),
        _fit("ani", request.callerid),
        _fit("source", request.source),
        identified.kind if identified else "",
        identified.account.tech_prefix if identified else "",
        occupancy.reseller_id if occupancy else None,
        occupancy.route_id if occupancy else None,
        occupancy.term_account_id if occupancy else None,
        *_cost(sql, decision.route.rate if decision.route else None),
        *_calendar(new),
    )


def _calendar(new: NewCall) -> Sequence[Value]:
    """The columns quota_month and quota_day."""
    client = new.decision.client
    return (None, None) if client is None else client.quotas.calendar(new.created_at_ms)


def _tariff(sql: SqlDialect, rate: Rate | None, currency: str) -> Sequence[Value]:
    """The columns from prefix to minimum_charge."""
    if rate is None:
        return ("", "", currency, None, None, None, None, None, None)
    return (rate.prefix, rate.destination, currency, *_charges(sql, rate))


def _cost(sql: SqlDialect, rate: Rate | None) -> Sequence[Value]:
    """The columns from cost_prefix to cost_minimum_charge: the terminator's rate."""
    if rate is None:
        return ("", None, None, None, None, None, None)
    return (rate.prefix, *_charges(sql, rate))


def _charges(sql: SqlDialect, rate: Rate) -> Sequence[Value]:
    return (
        sql.amount(rate.rate_per_minute),
        sql.amount(rate.connect_fee),
        rate.first_increment,
        rate.next_increment,
        rate.grace_seconds,
        sql.amount(rate.minimum_charge),
    )


def reservation_row(sql: SqlDialect, new: NewCall) -> Sequence[Value]:
    account, occupancy = new.decision.account, new.decision.occupancy
    assert account is not None
    assert occupancy is not None
    return (
        new.request.call_id,
        _fit("node", new.request.node),
        _fit("uniqueid", new.request.uniqueid),
        account.client_id,
        _fit("accountcode", new.request.account or new.request.accountcode),
        sql.amount(new.decision.reserved),
        new.decision.seconds,
        instant_text(new.created_at_ms),
        instant_text(new.expires_at_ms),
        occupancy.account_id,
        occupancy.reseller_id,
        occupancy.route_id,
        occupancy.term_account_id,
        occupancy.term_client_id,
        occupancy.term_reseller_id,
        *(new.decision.periods or (None, None)),
    )


def reroute_row(sql: SqlDialect, call: OpenCall) -> Sequence[Value]:
    return (
        call.call_id,
        call.occupancy.route_id,
        call.occupancy.term_account_id,
        _fit("tried", call.tried),
        *_cost(sql, call.cost_rate),
    )


def reservation_reroute_row(call: OpenCall) -> Sequence[Value]:
    occupancy = call.occupancy
    return (
        call.call_id,
        occupancy.route_id,
        occupancy.term_account_id,
        occupancy.term_client_id,
        occupancy.term_reseller_id,
        ROUTE_SEPARATOR.join(map(str, call.routes_tried)),
    )


def capacity_row(level: Level, calls: int) -> Sequence[Value]:
    return (level.key, level.scope, level.object_id, level.direction, calls)


def answer_row(answered: Answered) -> Sequence[Value]:
    return (
        answered.call_id,
        CallState.ANSWERED,
        _fit("leg_uniqueid", answered.leg_uniqueid or ""),
        _fit("trunk", answered.trunk),
        _optional_instant(answered.dialed_at_ms),
        instant_text(answered.answered_at_ms),
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
        None if settlement.ourcost is None else sql.amount(settlement.ourcost),
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
        int(books.low_balance_told),
    )


def client_books(row: Sequence[Any]) -> ClientBooks:
    """A client's books: the columns in the order of the fields."""
    id, kind, balance, limit, reserved, calls, seq, monthly, daily, zone, low, told, counted = row
    return ClientBooks(
        int(id),
        ClientKind(kind),
        micros(balance),
        _optional_micros(limit),
        micros(reserved),
        int(calls),
        int(seq),
        _optional_micros(monthly),
        _optional_micros(daily),
        zone,
        _optional_micros(low),
        int(told) != 0,
        int(counted) != 0,
    )


def found_call(row: Sequence[Any]) -> FoundCall:
    """A row of `FOUND_CALL`."""
    call_id, client_id, node, *places = row
    return FoundCall(call_id, int(client_id), node, _occupancy(tuple(places)))


@lru_cache(maxsize=4096)  # the calls of one account have the same
def _occupancy(places: tuple[Any, ...]) -> Occupancy:
    """The columns of `OCCUPANCY`."""
    return Occupancy(*map(_optional_int, places))


def usage_row(sql: SqlDialect, key: ClientPeriod, usage: Usage) -> Sequence[Value]:
    return (
        *key,
        None if usage.quota is None else sql.amount(usage.quota),
        sql.amount(usage.spent),
        sql.amount(usage.reserved),
        sql.amount(usage.waived),
        usage.told,
        _optional_instant(usage.first_over_ms),
        _optional_instant(usage.last_over_ms),
        _optional_instant(usage.blocked_ms),
        _optional_instant(usage.reset_ms),
    )


def usage(row: Sequence[Any]) -> Usage:
    """A row of `USAGE` without its key."""
    quota, spent, reserved, waived, told, *instants = row
    return Usage(
        _optional_micros(quota),
        micros(spent),
        micros(reserved),
        micros(waived),
        int(told),
        *(None if at is None else instant_ms(at) for at in instants),
    )


def outbox_rows(alert: Alert) -> Sequence[Sequence[Value]]:
    """One row for each who is told."""
    at = instant_text(alert.at_ms)
    facts = json.dumps(dict(alert.facts))
    return [
        (
            f"{alert.reference}:{audience}",
            alert.kind,
            audience,
            alert.client_id,
            facts,
            "waiting",
            at,
            at,
        )
        for audience in Audience
    ]


OPEN_CALL = (
    "r.call_id", "r.client_id", "r.node", "r.uniqueid", "c.leg_uniqueid", "c.status", "r.seconds",
    "r.date_created", "r.expires_at", "c.dialed_at", "c.answered_at", "c.callednum",
    "c.callerid", "c.tried", "r.routes_tried", "r.quota_month", "r.quota_day",
)  # fmt: skip
OCCUPANCY = (
    "r.account_id", "r.reseller_id", "r.route_id", "r.term_account_id", "r.term_client_id",
    "r.term_reseller_id",
)  # fmt: skip


CHARGES = (
    "rate", "connect_fee", "first_increment", "next_increment", "grace_seconds", "minimum_charge",
)  # fmt: skip
"""A rate's columns as `_charges` writes them; in a terminator's, each behind cost_."""

OPEN_CALL_COLUMNS = ", ".join(
    (
        *OPEN_CALL,
        *OCCUPANCY,
        "r.reservedamount",
        "c.prefix",
        "c.destination",
        *(f"c.{column}" for column in CHARGES),
        "c.cost_prefix",
        "c.destination",
        *(f"c.cost_{column}" for column in CHARGES),
    )
)
"""What `open_call` wants of astcreditres r and astcdr c."""


def open_call(row: Sequence[Any]) -> OpenCall:
    """A row of `OPEN_CALL_COLUMNS`."""
    said, places = row[: len(OPEN_CALL)], row[len(OPEN_CALL) :][: len(OCCUPANCY)]
    reserved, *rates = row[len(OPEN_CALL) + len(OCCUPANCY) :]
    rate, cost = rates[:8], rates[8:]
    dialed_at, answered_at, number, callerid, tried, routes, month, day = said[9:]
    return OpenCall(
        call_id=said[0],
        client_id=int(said[1]),
        node=said[2],
        uniqueid=said[3],
        leg_uniqueid=said[4],
        state=CallState(said[5]),
        rate=_rate(tuple(rate)),
        reserved=micros(reserved),
        seconds=int(said[6]),
        created_at_ms=instant_ms(said[7]),
        expires_at_ms=instant_ms(said[8]),
        dialed_at_ms=None if dialed_at is None else instant_ms(dialed_at),
        answered_at_ms=None if answered_at is None else instant_ms(answered_at),
        occupancy=_occupancy(tuple(places)),
        number=number,
        callerid=callerid,
        cost_rate=None if cost[2] is None else _rate(tuple(cost)),
        routes_tried=tuple(map(int, filter(None, routes.split(ROUTE_SEPARATOR)))),
        tried=tried,
        periods=() if month is None else (month, day),
    )


@lru_cache(maxsize=4096)  # a Rate checks itself, and few of them make most calls
def _rate(row: tuple[Any, ...]) -> Rate:
    """Prefix, destination and the columns of `CHARGES`."""
    prefix, destination, rate, fee, first, following, grace, least = row
    return Rate(
        prefix,
        destination,
        micros(rate),
        micros(fee),
        int(first),
        int(following),
        int(grace),
        micros(least),
    )


def open_on_node(row: Sequence[Any]) -> OpenOnNode:
    """A row of call_id, uniqueid, linkedid, leg_uniqueid, status, answered_at, seconds."""
    call_id, uniqueid, linkedid, leg, status, answered_at, seconds = row
    until = None if answered_at is None else instant_ms(answered_at) + seconds * 1000
    return OpenOnNode(call_id, uniqueid, linkedid, leg or None, CallState(status), until, seconds)


def _fit(column: str, text: str) -> str:
    return fit(tables.astcdr, column, text)


def _optional_micros(amount: Any) -> int | None:
    return None if amount is None else micros(amount)


def _optional_int(value: Any) -> int | None:
    return None if value is None else int(value)


def _optional_instant(instant: int | None) -> Value:
    return None if instant is None else instant_text(instant)


def _optional_seconds(milliseconds: int | None) -> Value:
    return None if milliseconds is None else seconds_text(milliseconds)
