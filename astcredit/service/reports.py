"""Looking at calls: those that are up, those that are over; and ending one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from astcredit.domain.money import Micros
from astcredit.domain.rating import Rate, price
from astcredit.domain.states import CallState
from astcredit.service.admin_ports import AdminStore
from astcredit.service.call_filters import ActiveFilter, CdrFilter
from astcredit.service.errors import RefusedError
from astcredit.service.history_ports import AuditEntry


@dataclass(frozen=True, slots=True)
class ActiveCall:
    """A call that is up or being set up. Amounts are micros, instants milliseconds.

    `leg_uniqueid` is the outbound leg, None until it is answered. `routing_plan`, `route_prefix`
    (as people write it) and `terminator` are None on the dialplan's own trunk. `callerid` is the
    number presented, `ani` the caller's own.
    """

    id: str
    node: str
    uniqueid: str
    leg_uniqueid: str | None
    client: str
    account: str
    callerid: str
    number: str
    state: CallState
    currency: str
    rate: Rate
    reserved: Micros
    seconds_allowed: int
    date_created: int
    answered_at: int | None
    reseller: str | None
    routing_plan: str | None
    route_prefix: str | None
    terminator: str | None
    ani: str
    source: str

    @property
    def billed_channel(self) -> str:
        """The channel whose end ends the call: the answered leg, before that the caller's."""
        return self.leg_uniqueid or self.uniqueid

    def seconds_up(self, now_ms: int) -> int:
        """Seconds that have begun since the answer; 0 when there was none."""
        if self.answered_at is None:
            return 0
        return max(0, -((self.answered_at - now_ms) // 1000))

    def cost(self, now_ms: int) -> Micros:
        """What the call costs if it ends now: never more than is reserved."""
        seconds = min(self.seconds_up(now_ms), self.seconds_allowed)
        return min(price(self.rate, seconds), self.reserved)


@dataclass(frozen=True, slots=True)
class CdrRecord:
    """A call's CDR with the names of its client and account, None where none was recognised.

    Amounts are micros, instants and the two times of a call milliseconds; what is not known (yet)
    is None. `corrected…` is what was found out after the end, None where it was right: amounts are
    added to price and ourcost. Routing plan, the route's prefix (as people write it) and terminator
    are of the route that carried the call or was tried last, None on the dialplan's own trunk.
    """

    id: str
    date_created: int
    status: CallState
    client: str | None
    account: str | None
    accountcode: str
    callerid: str
    dialednum: str
    callednum: str
    prefix: str
    destination: str
    currency: str
    rate: Micros | None
    connect_fee: Micros | None
    first_increment: int | None
    next_increment: int | None
    grace_seconds: int | None
    minimum_charge: Micros | None
    trunk: str
    denied: str
    reason: str
    dialstatus: str
    hangupcause: int | None
    dialed_at: int | None
    answered_at: int | None
    ended_at: int | None
    dialedtime: int | None
    answeredtime: int | None
    seconds: int
    billsec: int | None
    price: Micros | None
    ourcost: Micros | None
    reservedamount: Micros
    overrun_ms: int | None
    settled_by: str
    estimated: bool
    note: str
    node: str
    channel: str
    uniqueid: str
    linkedid: str
    leg_uniqueid: str | None
    reseller: str | None
    ani: str
    source: str
    ident_by: str
    tech_prefix: str
    routing_plan: str | None
    route_prefix: str | None
    terminator: str | None
    tried: str
    cost_prefix: str
    cost_rate: Micros | None
    cost_connect_fee: Micros | None
    cost_first_increment: int | None
    cost_next_increment: int | None
    cost_grace_seconds: int | None
    cost_minimum_charge: Micros | None
    corrected: Micros | None
    corrected_at: int | None
    corrected_billsec: int | None
    corrected_answeredtime: int | None
    corrected_ourcost: Micros | None

    @property
    def paid(self) -> Micros:
        """What the client paid: what was charged at the end, and corrections."""
        return (self.price or 0) + (self.corrected or 0)

    @property
    def tariff(self) -> Rate | None:
        """The rate that stands in the CDR; None for a call that was denied before one was found."""
        if self.rate is None:
            return None
        return Rate(
            self.prefix,
            self.destination,
            self.rate,
            self.connect_fee or 0,
            self.first_increment or 1,
            self.next_increment or 1,
            self.grace_seconds or 0,
            self.minimum_charge or 0,
        )

    @property
    def cost_tariff(self) -> Rate | None:
        """The terminator's rate that stands in the CDR; None on the dialplan's own trunk."""
        if self.cost_rate is None:
            return None
        return Rate(
            self.cost_prefix,
            self.destination,
            self.cost_rate,
            self.cost_connect_fee or 0,
            self.cost_first_increment or 1,
            self.cost_next_increment or 1,
            self.cost_grace_seconds or 0,
            self.cost_minimum_charge or 0,
        )


ALL_ACTIVE: Final = ActiveFilter()


class Reports(Protocol):
    """Where the calls are read. Every method may raise StorageError."""

    async def active_calls(self, wanted: ActiveFilter = ALL_ACTIVE) -> Sequence[ActiveCall]:
        """The calls that are up or being set up, oldest first."""

    async def active_call(self, call_id: str) -> ActiveCall | None:
        """One of them."""

    async def cdr(self, call_id: str) -> CdrRecord | None:
        """The CDR of one call."""

    async def newest_cdrs(self, wanted: CdrFilter, most: int) -> Sequence[CdrRecord]:
        """The newest CDRs, newest first."""

    def all_cdrs(self, wanted: CdrFilter) -> AsyncGenerator[CdrRecord, None]:
        """All CDRs as they stand at one instant, oldest first, without holding them in memory."""


class Hangups(Protocol):
    """Ends channels of Asterisk servers."""

    def check(self, node: str) -> None:
        """Raises RefusedError unless that server can be asked at all."""

    async def hangup(self, node: str, uniqueid: str) -> bool:
        """End a channel; False if it is not there (any more). Raises AstcreditError."""


async def end_call(
    call_id: str,
    reports: Reports,
    hangups: Hangups,
    store: AdminStore,
    actor: str,
    now_ms: int,
) -> ActiveCall:
    """Have Asterisk end a call that is up. It is settled by who listens to Asterisk.

    Who asked is recorded before Asterisk is: whatever happens then, it was asked for. Raises
    RefusedError when the call is not up or its server cannot be asked.
    """
    call = await reports.active_call(call_id)
    if call is None:
        over = await reports.cdr(call_id)
        state = f"is not up: it is {over.status}" if over else "does not exist"
        raise RefusedError(f"call {call_id!r} {state}")
    hangups.check(call.node)
    async with store.booking_money() as transaction:
        await transaction.record(AuditEntry(now_ms, actor, "hangup", "call", call.id, None, None))
    if not await hangups.hangup(call.node, call.billed_channel):
        raise RefusedError(
            f"call {call.id!r} has no channel on {call.node} any more:"
            " the server settles it, at the latest when its time is over"
        )
    return call
