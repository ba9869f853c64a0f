"""What an ended call costs, and how the books stand after it. Pure.

The answered outbound leg is billed, from its answer to its own end by Asterisk's clock: in
milliseconds, rounded up to the second, then to the rate's increments. Asterisk cuts a call
some milliseconds after its last allowed second; those are kept as overrun and not charged, so
the price is never above what was reserved.
"""

from __future__ import annotations

from astcredit.domain.books import ClientBooks, LedgerEntry, LedgerKind, OpenCall
from astcredit.domain.money import Micros
from astcredit.domain.rating import billed_seconds, price
from astcredit.domain.records import record
from astcredit.domain.states import CallEvent, CallState, after


@record
class Ending:
    """How a call ended, and who says so.

    `talk_ms` is given where the reporter measured it; else it is the time from answer to end.
    """

    event: CallEvent
    ended_at_ms: int
    settled_by: str
    hangupcause: int | None = None
    dialstatus: str = ""
    answered_at_ms: int | None = None
    talk_ms: int | None = None
    dialed_at_ms: int | None = None
    estimated: bool = False
    note: str = ""


@record
class Settlement:
    """A call's last change: the books after it, the charge, and the second half of its CDR.

    `ourcost` is what the terminator is owed, for all that its meter ran, what Asterisk cut too
    late included; None where it is not known (the dialplan's own trunk).
    """

    call: OpenCall
    ending: Ending
    state: CallState
    client: ClientBooks
    charge: LedgerEntry | None
    answered_at_ms: int | None
    talk_ms: int | None
    dialed_ms: int | None
    billsec: int
    price: Micros
    overrun_ms: int
    ourcost: Micros | None = None


def settle(client: ClientBooks, call: OpenCall, ending: Ending, now_ms: int) -> Settlement | None:
    """Settle or release one open call; None if the ending has nothing left to change."""
    state = after(call.state, ending.event)
    if state is None:
        return None
    released = client.release(call.reserved)
    if state is CallState.FAILED:
        return _close(call, ending, state, released, None, None, 0, 0)
    talk_ms = _talk_ms(call, ending)
    seconds = min(-(-talk_ms // 1000), call.seconds)
    cost = min(price(call.rate, seconds), call.reserved)
    books, charge = released.post(
        LedgerKind.CHARGE,
        -cost,
        reference=f"call:{call.call_id}",
        actor=ending.settled_by,
        call_id=call.call_id,
        now_ms=now_ms,
    )
    billsec = billed_seconds(call.rate, seconds)
    return _close(call, ending, state, books, charge, talk_ms, billsec, cost)


def _talk_ms(call: OpenCall, ending: Ending) -> int:
    if ending.talk_ms is not None:
        return max(0, ending.talk_ms)
    answered_at_ms = call.answered_at_ms or ending.answered_at_ms
    if answered_at_ms is None:
        return 0
    talk_ms = max(0, ending.ended_at_ms - answered_at_ms)
    if ending.event is CallEvent.EXPIRE:  # nobody saw the end: it was cut by its limit at latest
        return min(talk_ms, call.seconds * 1000)
    return talk_ms


def _close(
    call: OpenCall,
    ending: Ending,
    state: CallState,
    client: ClientBooks,
    charge: LedgerEntry | None,
    talk_ms: int | None,
    billsec: int,
    cost: Micros,
) -> Settlement:
    dialed_at_ms = call.dialed_at_ms or ending.dialed_at_ms
    return Settlement(
        call=call,
        ending=ending,
        state=state,
        client=client,
        charge=charge,
        answered_at_ms=call.answered_at_ms or ending.answered_at_ms,
        talk_ms=talk_ms,
        dialed_ms=None if dialed_at_ms is None else max(0, ending.ended_at_ms - dialed_at_ms),
        billsec=billsec,
        price=cost,
        overrun_ms=max(0, (talk_ms or 0) - call.seconds * 1000),
        ourcost=_ourcost(call, talk_ms),
    )


def _ourcost(call: OpenCall, talk_ms: int | None) -> Micros | None:
    if call.cost_rate is None or talk_ms is None:
        return None
    return price(call.cost_rate, -(-talk_ms // 1000))
