"""Setting right, from Asterisk's own records, what was estimated or left open. Pure.

A row of the ledger is never changed and neither is the price that was charged: what was charged
too much or too little is a row of its own. All of them together are never less than nothing and
never more than was reserved, and a prepaid client is never charged more than it has.

Files with whole seconds tell a talk to the second below. What was charged is right when any talk
within that second costs as much; if none does, the shortest one is charged.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from astcredit.domain.books import ClientBooks, LedgerEntry, LedgerKind
from astcredit.domain.catalog import ClientKind
from astcredit.domain.money import Micros, short_text
from astcredit.domain.rating import Rate, billed_seconds, price
from astcredit.domain.settlement import Ending
from astcredit.domain.states import CallEvent, CallState
from astcredit.domain.witness import HANDOVER_MS, Unclear, Witness

SETTLED_BY: Final = "reconcile"
REFERENCE: Final = "correction:"
"""References of the ledger that begin so belong to corrections of calls."""

CONTRADICTION: Final = "an answer was heard, of which Asterisk's record knows nothing"


@dataclass(frozen=True, slots=True)
class CallInDoubt:
    """A call that is open, or whose end was estimated, with what is on record of it.

    `price`, `ourcost`: as they were settled, None while it is open; `corrected`,
    `corrected_ourcost`: what corrections added to them. `corrections` counts the ledger's rows.
    `periods`: the month and the day of whose quotas it is. `booked_at_ms`: when its charge was
    booked, or when it ended without one; None while it is open.
    """

    call_id: str
    client_id: int
    node: str
    uniqueid: str
    channel: str
    leg_uniqueid: str | None
    dialled: str
    state: CallState
    created_at_ms: int
    answered_at_ms: int | None
    expires_at_ms: int | None
    rate: Rate
    reserved: Micros
    seconds: int
    billsec: int = 0
    price: Micros | None = None
    ourcost: Micros | None = None
    cost_rate: Rate | None = None
    corrected: Micros = 0
    corrected_ourcost: Micros = 0
    corrections: int = 0
    periods: tuple[str, ...] = ()
    booked_at_ms: int | None = None
    note: str = ""

    @property
    def is_open(self) -> bool:
        """Whether it still has its reservation."""
        return self.price is None

    @property
    def paid(self) -> Micros:
        """What the client has paid for it so far."""
        return (self.price or 0) + self.corrected

    @property
    def cost(self) -> Micros:
        """What its terminator is owed so far."""
        return (self.ourcost or 0) + self.corrected_ourcost

    @property
    def answer_heard(self) -> bool:
        """Whether an event of Asterisk's told of the answer, by Asterisk's clock."""
        return self.leg_uniqueid is not None and self.answered_at_ms is not None


class Finding(StrEnum):
    """What came of comparing an estimated call with Asterisk's record.

    UNCOLLECTED: something is due, and the client has nothing to pay it with.
    """

    CONFIRMED = "confirmed"
    REFUNDED = "refunded"
    CHARGED = "charged"
    UNCOLLECTED = "uncollected"


@dataclass(frozen=True, slots=True)
class Correction:
    """What a call that was estimated really was, and the books after it.

    `due` is what it costs; `entry` is None when that was charged, or when the client has nothing to
    pay the rest with; `uncollected` is the rest that it could not pay. `talk_ms` and `billsec` are
    those of Asterisk's record; `ourcost` is what the terminator is owed more (or less).
    """

    call: CallInDoubt
    finding: Finding
    client: ClientBooks
    entry: LedgerEntry | None
    due: Micros
    uncollected: Micros
    talk_ms: int
    billsec: int
    ourcost: Micros
    note: str

    @property
    def amount(self) -> Micros:
        """By how much the client's balance changes."""
        return self.entry.amount if self.entry else 0


def ending_of(call: CallInDoubt, seen: Witness) -> Ending | Unclear:
    """How a call that is still open ended by Asterisk's records."""
    if not seen.answered:
        if call.state is CallState.ANSWERED:
            return Unclear(CONTRADICTION)
        return Ending(
            CallEvent.RELEASE, seen.ended_at_ms, SETTLED_BY, dialstatus=seen.dialstatus, note=_SAID
        )
    least_ms, _ = _talked(call, seen)
    return Ending(
        CallEvent.END,
        seen.ended_at_ms,
        SETTLED_BY,
        dialstatus=seen.dialstatus,
        answered_at_ms=_answered_at(call, seen),
        talk_ms=least_ms,
        note=_SAID + (_TRANSFERRED if seen.transferred else ""),
    )


_SAID = "the end is that of Asterisk's own record"
_TRANSFERRED = ", after a transfer"


def correct(
    client: ClientBooks, call: CallInDoubt, seen: Witness, actor: str, now_ms: int
) -> Correction | Unclear:
    """Compare an estimated call with Asterisk's records, and charge or refund the difference."""
    if not seen.answered and call.answer_heard:
        return Unclear(CONTRADICTION)
    least_ms, most_ms = _talked(call, seen)
    least, most = _due(call, seen, least_ms), _due(call, seen, most_ms)
    right = least <= call.paid <= most
    due = call.paid if right else least
    change = due - call.paid
    collected = min(change, _payable(client)) if change > 0 else change
    note = _note(call, seen, least_ms, due, change - collected)
    entry = None
    if collected:
        client, entry = client.post(
            LedgerKind.REFUND if collected < 0 else LedgerKind.ADJUSTMENT,
            -collected,
            reference=f"{REFERENCE}{call.call_id}:{call.corrections + 1}",
            actor=actor,
            call_id=call.call_id,
            note=note,
            now_ms=now_ms,
        )
    return Correction(
        call=call,
        finding=_finding(change, collected),
        client=client,
        entry=entry,
        due=due,
        uncollected=change - collected,
        talk_ms=least_ms,
        billsec=call.billsec if right else _billsec(call, seen, least_ms),
        ourcost=0 if right else _owed(call, seen, least_ms) - call.cost,
        note=note,
    )


def _talked(call: CallInDoubt, seen: Witness) -> tuple[int, int]:
    """The least and the most milliseconds that the leg can have been up.

    An answer that was heard is more exact than a record: that counts from the calling channel's own
    answer, which may have come before Dial.
    """
    if seen.answered_at_ms is None:
        return 0, 0
    least_ms = max(0, seen.talk_ms - (_answered_at(call, seen) - seen.answered_at_ms))
    if call.answer_heard and call.answered_at_ms is not None:
        earliest_ms = seen.answered_at_ms - seen.blur_ms - HANDOVER_MS
        if earliest_ms <= call.answered_at_ms <= seen.ended_at_ms + seen.blur_ms:
            least_ms = max(0, seen.ended_at_ms - call.answered_at_ms)
    return least_ms, least_ms + seen.blur_ms


def _answered_at(call: CallInDoubt, seen: Witness) -> int:
    """When the leg was answered at the earliest: not before the call was asked for."""
    return max(seen.answered_at_ms or 0, call.created_at_ms - seen.blur_ms)


def _seconds(talk_ms: int) -> int:
    return -(-talk_ms // 1000)


def _due(call: CallInDoubt, seen: Witness, talk_ms: int) -> Micros:
    if not seen.answered:
        return 0
    return min(price(call.rate, min(_seconds(talk_ms), call.seconds)), call.reserved)


def _billsec(call: CallInDoubt, seen: Witness, talk_ms: int) -> int:
    if not seen.answered:
        return 0
    return billed_seconds(call.rate, min(_seconds(talk_ms), call.seconds))


def _owed(call: CallInDoubt, seen: Witness, talk_ms: int) -> Micros:
    """What the terminator is owed: its meter runs to the leg's end, however late Asterisk cut."""
    if not seen.answered or call.cost_rate is None:
        return 0
    return price(call.cost_rate, _seconds(talk_ms))


def _payable(client: ClientBooks) -> Micros:
    """The most that may be taken from a client afterwards: of a prepaid one, what it has."""
    if client.kind is ClientKind.PREPAID:
        return max(0, client.available or 0)
    return _WITHOUT_END


_WITHOUT_END: Final = 10**18
"""More micros than any column holds."""


def _finding(change: Micros, collected: Micros) -> Finding:
    if change == 0:
        return Finding.CONFIRMED
    if collected == 0:
        return Finding.UNCOLLECTED
    return Finding.REFUNDED if collected < 0 else Finding.CHARGED


def _note(call: CallInDoubt, seen: Witness, talk_ms: int, due: Micros, uncollected: Micros) -> str:
    """What was found, for CDR and ledger."""
    talk = f"{talk_ms // 1000}.{talk_ms % 1000:03} s talk" if seen.answered else "no answer"
    record = f"Asterisk's record: {talk}{_TRANSFERRED if seen.transferred else ''}"
    if due == call.paid:
        return f"{record}; {short_text(due)} is right"
    note = f"{record}; {short_text(due)} due, {short_text(call.paid)} was charged"
    if uncollected:
        note += f"; {short_text(uncollected)} not collected: the balance does not pay it"
    return note
