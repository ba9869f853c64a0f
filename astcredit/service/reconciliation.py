"""After an outage: calls that were left open or estimated, and what Asterisk's own records say.

A call that is open here and over there is closed by the ledger, as any end closes it. The charge of
a call that was estimated stays as it is; what was wrong with it becomes a row of the ledger of its
own, booked under the client's lock together with the note in the CDR. Whatever is repeated finds
the call closed, or estimated no longer, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from astcredit.domain.correction import (
    CallInDoubt,
    Correction,
    Finding,
    ending_of,
)
from astcredit.domain.instants import instant_text
from astcredit.domain.money import short_text
from astcredit.domain.settlement import Ending, Settlement, settle
from astcredit.domain.states import CallState
from astcredit.domain.witness import HANDOVER_MS, ChannelCall, Unclear, Witness
from astcredit.service.certainly import certainly
from astcredit.service.correction_desk import CorrectionDesk
from astcredit.service.evidence import Evidence
from astcredit.service.history_ports import AuditEntry
from astcredit.service.operations import Changed, Expire, Outcome, Reconciled
from astcredit.service.reconciliation_ports import (
    AppliesOperations,
    AsteriskRecords,
    Done,
    DoubtfulCall,
    ReconciliationStore,
    Report,
    Row,
)

T = TypeVar("T")

CALLS_AT_ONCE = 100
"""Calls in one transaction: few enough that others wait for milliseconds for its locks."""

NO_RECORD = "Asterisk's records have nothing of it"
HEARD_SINCE = "its server has been heard since: its leg is up, or its end is being settled"

_DONE = {
    Finding.CONFIRMED: Done.CONFIRMED,
    Finding.REFUNDED: Done.REFUNDED,
    Finding.CHARGED: Done.CHARGED,
    Finding.UNCOLLECTED: Done.UNCOLLECTED,
}


@dataclass(slots=True)
class _Plan:
    """What is to be done, and what is left alone."""

    endings: dict[str, Ending]
    seen: dict[str, Witness]
    left: dict[str, str]


class Reconciliation:
    """Closes and corrects calls on behalf of `actor`. `thresholds`: percent of a quota at which is
    told. Methods raise StorageError; with `dry_run` they change nothing."""

    def __init__(
        self,
        store: ReconciliationStore,
        ledger: AppliesOperations,
        actor: str,
        now_ms: Callable[[], int],
        thresholds: Sequence[int],
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._actor = actor
        self._now_ms = now_ms
        self._corrections = CorrectionDesk(store, actor, now_ms, thresholds)

    async def with_records(
        self, records: AsteriskRecords, node: str | None = None, *, dry_run: bool = False
    ) -> Report:
        """Close and correct calls by Asterisk's records of one server.

        Without `node`, calls are told apart by uniqueid alone; those that are not unique are left.
        Raises RefusedError when the records cannot be relied on; then nothing was changed.
        """
        doubtful = await self._store.doubtful(node)
        calls = {found.call.call_id: found for found in doubtful}
        plan = await self._planned([found.call for found in doubtful], records, node)
        rows = {id: _left(calls[id], reason) for id, reason in plan.left.items()}
        for ids in _chunks(sorted(plan.endings)):
            endings = {id: plan.endings[id] for id in ids}
            settled = await self._closed(endings, dry_run)
            rows |= {id: _closed(calls[id], settled.get(id)) for id in ids}
        for ids in _chunks(sorted(plan.seen)):
            seen = {id: plan.seen[id] for id in ids}
            in_doubt = [calls[id].call for id in ids]
            found = await self._corrections.correct(in_doubt, seen, dry_run=dry_run)
            rows |= {id: _corrected(calls[id], found.get(id)) for id in ids}
        return Report([rows[id] for id in sorted(rows)], len(doubtful))

    async def without_records(self, node: str | None = None, *, dry_run: bool = False) -> Report:
        """Close what can last no longer, and say which calls wait for Asterisk's records."""
        doubtful, now_ms = await self._store.doubtful(node), self._now_ms()
        rows: dict[str, Row] = {}
        expired: dict[str, DoubtfulCall] = {}
        for found in doubtful:
            call = found.call
            if call.expires_at_ms is not None and call.expires_at_ms <= now_ms:
                expired[call.call_id] = found
            elif reason := _waits(call, now_ms):
                rows[call.call_id] = _left(found, reason)
        for ids in _chunks(sorted(expired)):
            settled = {} if dry_run else await self._expired(ids, now_ms)
            rows |= {id: _expired(expired[id], settled.get(id), dry_run) for id in ids}
        return Report([rows[id] for id in sorted(rows)], len(doubtful))

    async def _planned(
        self, calls: Sequence[CallInDoubt], records: AsteriskRecords, node: str | None
    ) -> _Plan:
        evidence = Evidence(calls)
        for record in records.about(evidence.names):
            evidence.add(record)
        made: dict[str, list[ChannelCall]] = {}
        for one in await self._store.calls_of(evidence.uniqueids):
            made.setdefault(one.uniqueid, []).append(one)
        heard = await self._store.heard_until({call.node for call in calls if call.is_open})
        plan = _Plan({}, {}, {})
        for call in calls:
            witness = _witness(call, evidence, made.get(call.uniqueid, []), node)
            _decide(plan, call, witness, heard.get(call.node, 0))
        return plan

    async def _closed(
        self, endings: Mapping[str, Ending], dry_run: bool
    ) -> Mapping[str, Settlement]:
        """What came of ending calls that are open; of a call that is over meanwhile, nothing."""
        if dry_run:
            return await self._foreseen(endings)
        await self._record("reconcile", endings)
        return await self._applied([Reconciled(id, ending) for id, ending in endings.items()])

    async def _expired(self, ids: Sequence[str], now_ms: int) -> Mapping[str, Settlement]:
        await self._record("expire", ids)
        return await self._applied([Expire(id, now_ms) for id in ids])

    async def _record(self, action: str, ids: Sequence[str] | Mapping[str, Ending]) -> None:
        """Who closes calls by hand is noted first: whatever happens then, it was asked for."""
        now_ms = self._now_ms()
        entries = [AuditEntry(now_ms, self._actor, action, "call", id, None, None) for id in ids]
        async with self._store.booking() as transaction:
            await transaction.record_all(entries)

    async def _applied(self, operations: Sequence[Reconciled | Expire]) -> dict[str, Settlement]:
        async def attempt(done: dict[str, Settlement]) -> None:
            outcomes: list[Outcome] = []
            try:
                await self._ledger.apply(operations, {}, outcomes)
            finally:  # they are there before the COMMIT, of which nothing may be heard any more
                for outcome in outcomes:
                    if isinstance(outcome, Changed):
                        done.update({s.call.call_id: s for s in outcome.settled})

        return await certainly(attempt)

    async def _foreseen(self, endings: Mapping[str, Ending]) -> Mapping[str, Settlement]:
        """What ending calls would come to."""
        found: dict[str, Settlement] = {}
        async with self._store.looking() as transaction:
            calls = await transaction.books.load_open(list(endings))
            clients = dict(await transaction.clients({call.client_id for call in calls}))
        for call in calls:
            ending = endings[call.call_id]
            settlement = settle(clients[call.client_id], call, ending, self._now_ms())
            if settlement is not None:
                found[call.call_id] = settlement
                clients[call.client_id] = settlement.client
        return found


def _witness(
    call: CallInDoubt, evidence: Evidence, made: Sequence[ChannelCall], node: str | None
) -> Witness | Unclear | None:
    """What the records say of a call, `made` being those of all channels of its uniqueid."""
    nodes = sorted({one.node for one in made})
    if node is None and len(nodes) > 1:
        return Unclear(f"{', '.join(nodes)} have calls of this uniqueid: name the server (--node)")
    return evidence.of(call, [one for one in made if one.node == call.node])


def _decide(
    plan: _Plan, call: CallInDoubt, witness: Witness | Unclear | None, heard_until_ms: int
) -> None:
    if isinstance(witness, Unclear):
        plan.left[call.call_id] = witness.reason
    elif not call.is_open:
        if witness is None:
            plan.left[call.call_id] = NO_RECORD
        else:
            plan.seen[call.call_id] = witness
    elif witness is not None:
        # The record of a call that was transferred ends with its caller, its leg may be up: the
        # listener, which has heard all that happened since, knows better.
        if heard_until_ms > witness.ended_at_ms + witness.blur_ms + HANDOVER_MS:
            plan.left[call.call_id] = HEARD_SINCE
            return
        ending = ending_of(call, witness)
        if isinstance(ending, Unclear):
            plan.left[call.call_id] = ending.reason
        else:
            plan.endings[call.call_id] = ending


def _waits(call: CallInDoubt, now_ms: int) -> str:
    """What a call that is estimated, or open past its time, waits for; empty for others."""
    records = f"reconcile --asterisk-cdr Master.csv --node {call.node}"
    if not call.is_open:
        return f"to be compared with Asterisk's records: {records}"
    if call.answered_at_ms is None or call.expires_at_ms is None:
        return ""
    over_ms = call.answered_at_ms + call.seconds * 1000 + HANDOVER_MS
    if now_ms <= over_ms:
        return ""
    return (
        f"its time was over at {instant_text(over_ms)}; closed by {records}, or by itself at"
        f" {instant_text(call.expires_at_ms)}"
    )


def _chunks(ids: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(ids), CALLS_AT_ONCE):
        yield ids[start : start + CALLS_AT_ONCE]


def _was(call: CallInDoubt) -> str:
    if call.is_open:
        return call.state
    return f"{call.state}, {call.billsec} s, {short_text(call.paid)}, estimated"


def _left(found: DoubtfulCall, reason: str) -> Row:
    was = _was(found.call)
    return Row(found, was, was, 0, Done.LEFT, reason)


def _overtaken(found: DoubtfulCall) -> Row:
    note = "somebody else closed or corrected it meanwhile"
    return Row(found, _was(found.call), "", 0, Done.OVERTAKEN, note)


def _closed(found: DoubtfulCall, settlement: Settlement | None) -> Row:
    if settlement is None:
        return _overtaken(found)
    now = _now(settlement.state, settlement.billsec, short_text(settlement.price))
    note = settlement.ending.note
    return Row(found, _was(found.call), now, -settlement.price, Done.CLOSED, note)


def _expired(found: DoubtfulCall, settlement: Settlement | None, dry_run: bool) -> Row:
    was = _was(found.call)
    if settlement is None and not dry_run:
        return _overtaken(found)
    note = _waits_as_estimated(found.call)
    if settlement is None:
        return Row(found, was, "estimated", 0, Done.EXPIRED, note)
    now = _now(settlement.state, settlement.billsec, short_text(settlement.price))
    return Row(found, was, f"{now}, estimated", -settlement.price, Done.EXPIRED, note)


def _waits_as_estimated(call: CallInDoubt) -> str:
    return (
        "past its last possible second; to be compared with Asterisk's records:"
        f" reconcile --asterisk-cdr Master.csv --node {call.node}"
    )


def _corrected(found: DoubtfulCall, outcome: Correction | Unclear | None) -> Row:
    if outcome is None:
        return _overtaken(found)
    if isinstance(outcome, Unclear):
        return _left(found, outcome.reason)
    call = outcome.call
    paid = call.paid - outcome.amount
    now = _now(call.state, outcome.billsec, short_text(paid))
    return Row(found, _was(call), now, outcome.amount, _DONE[outcome.finding], outcome.note)


def _now(state: CallState, billsec: int, price: str) -> str:
    return f"{state}, {billsec} s, {price}"
