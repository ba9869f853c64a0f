"""The books of a client and of its open calls, as the rows that a transaction has locked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from astcredit.domain.catalog import ClientKind
from astcredit.domain.money import Micros
from astcredit.domain.rating import Rate
from astcredit.domain.states import CallState


class LedgerKind(StrEnum):
    """Why a balance changed."""

    TOPUP = "topup"
    CHARGE = "charge"
    ADJUSTMENT = "adjustment"
    REFUND = "refund"


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class ClientBooks:
    """A client's money. `credit_limit` may be None for a postpaid client: without limit."""

    id: int
    kind: ClientKind
    balance: Micros
    credit_limit: Micros | None
    reserved: Micros
    active_calls: int
    ledger_seq: int

    @property
    def available(self) -> Micros | None:
        """What is free for further reservations; None means without limit."""
        if self.credit_limit is None and self.kind is ClientKind.POSTPAID:
            return None
        return self.balance + (self.credit_limit or 0) - self.reserved

    def reserve(self, amount: Micros) -> ClientBooks:
        """With one more open reservation."""
        return replace(self, reserved=self.reserved + amount, active_calls=self.active_calls + 1)

    def release(self, amount: Micros) -> ClientBooks:
        """With one open reservation less."""
        return replace(self, reserved=self.reserved - amount, active_calls=self.active_calls - 1)

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
        return replace(self, balance=balance, ledger_seq=seq), entry


@dataclass(frozen=True, slots=True)
class OpenCall:
    """A call between authorization and settlement: its reservation and what settling needs."""

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
