"""The books of a client and of its open calls, as the rows that a transaction has locked."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

from astcredit.domain.capacity import Occupancy
from astcredit.domain.catalog import ClientKind
from astcredit.domain.money import Micros
from astcredit.domain.quotas import QuotaLimits
from astcredit.domain.rating import Rate
from astcredit.domain.records import record
from astcredit.domain.states import CallEvent, CallState, after


class LedgerKind(StrEnum):
    """Why a balance changed."""

    TOPUP = "topup"
    CHARGE = "charge"
    ADJUSTMENT = "adjustment"
    REFUND = "refund"


@record
class LedgerEntry:
    """One row of the ledger; rows are only ever added."""

    client_id: int
    seq: int
    kind: LedgerKind
    amount: Micros
    balance_after: Micros
    call_id: str | None
    reference: str
    actor: str
    note: str
    created_at_ms: int


@record
class ClientBooks:
    """A client's money. `credit_limit` may be None for a postpaid client: without limit.

    The quotas stand here and not in the catalog, because what is counted against them is only known
    to be whole under the client's lock; `quota_counted`: it had one once. `low_balance` is the
    balance below which a prepaid client is told, once (`low_balance_told`) until it has been above.
    """

    id: int
    kind: ClientKind
    balance: Micros
    credit_limit: Micros | None
    reserved: Micros
    active_calls: int
    ledger_seq: int
    monthly_quota: Micros | None = None
    daily_quota: Micros | None = None
    timezone: str = "UTC"
    low_balance: Micros | None = None
    low_balance_told: bool = False
    quota_counted: bool = False

    @property
    def quotas(self) -> QuotaLimits:
        """What the client may spend in a month and in a day."""
        return QuotaLimits(self.monthly_quota, self.daily_quota, self.timezone, self.quota_counted)

    @property
    def is_low(self) -> bool:
        """Whether a prepaid client's balance is below what it wants to be told of."""
        watched = self.kind is ClientKind.PREPAID and self.low_balance is not None
        return watched and self.balance < (self.low_balance or 0)

    @property
    def available(self) -> Micros | None:
        """What is free for further reservations; None means without limit."""
        if self.credit_limit is None and self.kind is ClientKind.POSTPAID:
            return None
        return self.balance + (self.credit_limit or 0) - self.reserved

    def reserve(self, amount: Micros) -> ClientBooks:
        """With one more open reservation."""
        return self._changed(self.balance, self.reserved + amount, self.active_calls + 1)

    def release(self, amount: Micros) -> ClientBooks:
        """With one open reservation less."""
        return self._changed(self.balance, self.reserved - amount, self.active_calls - 1)

    def post(
        self,
        kind: LedgerKind,
        amount: Micros,
        *,
        reference: str,
        actor: str,
        now_ms: int,
        call_id: str | None = None,
        note: str = "",
    ) -> tuple[ClientBooks, LedgerEntry]:
        """Change the balance by `amount` (signed): the books after it and the ledger row."""
        seq, balance = self.ledger_seq + 1, self.balance + amount
        entry = LedgerEntry(
            self.id, seq, kind, amount, balance, call_id, reference, actor, note, now_ms
        )
        books = self._changed(balance, self.reserved, self.active_calls, seq)
        if books.low_balance_told and not books.is_low:
            books = replace(books, low_balance_told=False)
        return books, entry

    def _changed(
        self, balance: Micros, reserved: Micros, active_calls: int, seq: int | None = None
    ) -> ClientBooks:
        """What every call changes several times; `replace` would take five times as long."""
        return ClientBooks(
            self.id,
            self.kind,
            balance,
            self.credit_limit,
            reserved,
            active_calls,
            self.ledger_seq if seq is None else seq,
            self.monthly_quota,
            self.daily_quota,
            self.timezone,
            self.low_balance,
            self.low_balance_told,
            self.quota_counted,
        )


@record
class OpenCall:
    """A call between authorization and settlement: its reservation and what settling needs.

    `occupancy` says where it is counted. `cost_rate` is what the terminator of its route charges,
    None on the dialplan's own trunk. `routes_tried` are the rules whose routes failed before, and
    `tried` tells of them in words. `periods` are the month and the day of whose quotas it is.
    """

    call_id: str
    client_id: int
    node: str
    uniqueid: str
    leg_uniqueid: str | None
    state: CallState
    rate: Rate
    reserved: Micros
    seconds: int
    created_at_ms: int
    expires_at_ms: int
    dialed_at_ms: int | None
    answered_at_ms: int | None
    occupancy: Occupancy
    number: str = ""
    callerid: str = ""
    cost_rate: Rate | None = None
    routes_tried: tuple[int, ...] = ()
    periods: tuple[str, ...] = ()
    tried: str = ""

    def answered(
        self, leg_uniqueid: str | None, dialed_at_ms: int | None, answered_at_ms: int
    ) -> OpenCall:
        """The call with its leg, or without one if it is not known; `replace` would take five times
        as long."""
        return OpenCall(
            self.call_id,
            self.client_id,
            self.node,
            self.uniqueid,
            leg_uniqueid,
            after(self.state, CallEvent.ANSWER) or self.state,
            self.rate,
            self.reserved,
            self.seconds,
            self.created_at_ms,
            self.expires_at_ms,
            dialed_at_ms,
            answered_at_ms,
            self.occupancy,
            self.number,
            self.callerid,
            self.cost_rate,
            self.routes_tried,
            self.periods,
            self.tried,
        )
