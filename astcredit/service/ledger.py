"""Operations on the books, a batch in one transaction.

The clients that the batch touches are locked in one fixed order; then the operations are
decided in pure code, one after the other in the order in which they came, against those rows;
then everything is written. What the first operation took is gone for the second, exactly as if
each had had a transaction of its own.

Every operation may be repeated. An end that finds its call settled changes nothing. A request
whose CDR is already there was committed by an attempt whose COMMIT got no answer: it keeps the
answer of that attempt (`carried`) and is not booked again. That is asked under the client's
lock, which the lost attempt held until it was over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from astcredit.domain.books import ClientBooks, OpenCall
from astcredit.domain.calls import CallRequest, ChannelEnded, HangupReport, LegAnswered
from astcredit.domain.catalog import Catalog, compile_catalog
from astcredit.domain.decisions import CallPolicy, Decision, decide
from astcredit.domain.settlement import Ending, Settlement, settle
from astcredit.domain.states import CallEvent, CallState, after
from astcredit.service.endings import end_of_channel, end_of_report, unreported
from astcredit.service.open_calls import OpenCalls
from astcredit.service.operations import (
    Answered,
    Changed,
    Expire,
    Operation,
    Outcome,
    Undelivered,
)
from astcredit.service.ports import (
    Books,
    BooksTransaction,
    CatalogSource,
    Changes,
    Channel,
    Links,
    NewCall,
    NoLinks,
)

Carried: TypeAlias = Mapping[str, Decision]
"""Answers, by call id, of an earlier attempt that may or may not have been committed."""

NOTHING = Changed()
NO_LINKS = NoLinks()
EMPTY = compile_catalog(0, {}, {}, {})


class Ledger:
    """Applies batches of operations to the books."""

    def __init__(
        self,
        books: Books,
        catalog: CatalogSource,
        policy: CallPolicy,
        now_ms: Callable[[], int],
        *,
        links: Links = NO_LINKS,
        denied_cdr: bool = True,
    ) -> None:
        self._books = books
        self._catalog = catalog
        self._policy = policy
        self._now_ms = now_ms
        self._links = links
        self._denied_cdr = denied_cdr

    async def apply(
        self, operations: Sequence[Operation], carried: Carried, outcomes: list[Outcome]
    ) -> None:
        """Apply the operations in one transaction, filling `outcomes` in their order.

        `outcomes` is filled before COMMIT, so that after a CommitUnknown the caller knows what
        the attempt would have answered. Raises StorageError; then nothing was changed, except
        that CommitUnknown leaves it open.
        """
        outcomes.clear()
        async with self._books.transaction() as transaction:
            catalog = await self._catalog_for(operations, transaction)
            batch = await self._open_batch(transaction, catalog, operations, carried)
            outcomes.extend(batch.apply(operation) for operation in operations)
            if batch.changes:
                await transaction.write(batch.changes)

    async def _catalog_for(
        self, operations: Sequence[Operation], transaction: BooksTransaction
    ) -> Catalog:
        """The catalog as the transaction sees it; endings are settled without one."""
        if any(isinstance(operation, CallRequest) for operation in operations):
            return await self._catalog.at_least(await transaction.catalog_version())
        return EMPTY

    async def _open_batch(
        self,
        transaction: BooksTransaction,
        catalog: Catalog,
        operations: Sequence[Operation],
        carried: Carried,
    ) -> Batch:
        call_ids, channels = _subjects(operations)
        found = await transaction.find_open(call_ids, channels) if call_ids or channels else {}
        client_ids = {*found.values(), *_payers(operations, catalog)}
        clients = await transaction.lock_clients(client_ids) if client_ids else {}
        calls = await transaction.load_open(found) if found else ()
        repeated = {o.call_id for o in operations if isinstance(o, CallRequest)} & set(carried)
        recorded = await transaction.recorded(repeated) if repeated else frozenset()
        known = {call_id: carried[call_id] for call_id in recorded}
        return Batch(
            catalog,
            self._policy,
            self._now_ms(),
            self._links,
            clients,
            calls,
            known,
            self._denied_cdr,
        )


def _payers(operations: Iterable[Operation], catalog: Catalog) -> set[int]:
    requests = (o for o in operations if isinstance(o, CallRequest))
    accounts = (catalog.identify(request.accountcode) for request in requests)
    return {account.client_id for account in accounts if account is not None}


def _subjects(operations: Iterable[Operation]) -> tuple[set[str], set[Channel]]:
    call_ids: set[str] = set()
    channels: set[Channel] = set()
    for operation in operations:
        match operation:
            case Undelivered(call_id) | Expire(call_id):
                call_ids.add(call_id)
            case LegAnswered(node=node, caller_uniqueid=uniqueid, call_id=call_id):
                call_ids.add(call_id)
                channels.add(Channel(node, uniqueid))
            case HangupReport(node=node, uniqueid=uniqueid, call_id=call_id):
                call_ids.add(call_id)
                channels.add(Channel(node, uniqueid))
            case ChannelEnded(node=node, uniqueid=uniqueid):
                channels.add(Channel(node, uniqueid))
    call_ids.discard("")
    return call_ids, channels


class Batch:
    """The rows of one transaction, as they change from one operation to the next."""

    def __init__(
        self,
        catalog: Catalog,
        policy: CallPolicy,
        now_ms: int,
        links: Links,
        clients: Mapping[int, ClientBooks],
        calls: Iterable[OpenCall],
        known: Mapping[str, Decision],
        denied_cdr: bool,
    ) -> None:
        self.changes = Changes()
        self._catalog = catalog
        self._policy = policy
        self._now_ms = now_ms
        self._links = links
        self._clients = dict(clients)
        self._calls = OpenCalls(calls)
        self._known = known
        self._denied_cdr = denied_cdr

    def apply(self, operation: Operation) -> Outcome:
        """Apply one operation to the rows."""
        match operation:
            case CallRequest():
                return self._authorize(operation)
            case LegAnswered():
                return self._answer(operation)
            case ChannelEnded():
                return self._channel_ended(operation)
            case HangupReport():
                return self._hangup(operation)
            case Undelivered():
                return self._undelivered(operation)
            case Expire():
                return self._expire(operation)

    def _authorize(self, request: CallRequest) -> Decision:
        if request.call_id in self._known:
            return self._known[request.call_id]
        account = self._catalog.identify(request.accountcode)
        client = None if account is None else self._clients.get(account.client_id)
        decision = decide(request, self._catalog, client, self._policy, self._now_ms)
        expires_at_ms = self._policy.expires_at_ms(self._now_ms, decision.seconds)
        new = NewCall(request, decision, self._now_ms, expires_at_ms)
        if not decision.allowed:
            if self._denied_cdr:
                self.changes.calls.append(new)
        elif decision.client is not None:
            self.changes.calls.append(new)
            self._set_client(decision.client)
            self._open(new, decision)
        return decision

    def _open(self, new: NewCall, decision: Decision) -> None:
        request = new.request
        assert decision.client is not None
        assert decision.rate is not None
        call = OpenCall(
            call_id=request.call_id,
            client_id=decision.client.id,
            node=request.node,
            uniqueid=request.uniqueid,
            leg_uniqueid=None,
            state=CallState.OPEN,
            rate=decision.rate,
            reserved=decision.reserved,
            seconds=decision.seconds,
            created_at_ms=new.created_at_ms,
            expires_at_ms=new.expires_at_ms,
            dialed_at_ms=None,
            answered_at_ms=None,
        )
        self._calls.put(call)

    def _answer(self, event: LegAnswered) -> Changed:
        call = self._calls.meant(event.call_id, Channel(event.node, event.caller_uniqueid))
        if call is None:
            return Changed(unreserved=event) if event.call_id else NOTHING
        state = after(call.state, CallEvent.ANSWER)
        if state is None:
            return NOTHING
        answered = Answered(_answered(call, state, event), event.trunk)
        self._calls.put(answered.call)
        self.changes.answered.append(answered)
        return Changed(answered=(answered,))

    def _channel_ended(self, event: ChannelEnded) -> Changed:
        settled = []
        for call in self._calls.of_channel(Channel(event.node, event.uniqueid)):
            if call.leg_uniqueid == event.uniqueid:
                settled.append(self._settle(call, end_of_channel(event, CallEvent.END)))
            elif call.state is CallState.OPEN:
                settled.append(self._settle(call, end_of_channel(event, CallEvent.RELEASE)))
        return Changed(settled=tuple(s for s in settled if s is not None))

    def _hangup(self, report: HangupReport) -> Changed:
        caller = Channel(report.node, report.uniqueid)
        call = self._calls.meant(report.call_id, caller)
        if call is None or self._is_listeners(call, report):
            return NOTHING
        before = [] if self._links.configured(call.node) else self._calls.before(call, caller)
        settled = [self._settle(call, end_of_report(report))]
        settled += [self._settle(other, unreported(report)) for other in before]
        return Changed(settled=tuple(s for s in settled if s is not None))

    def _is_listeners(self, call: OpenCall, report: HangupReport) -> bool:
        """Whether the end of this call is for the AMI listener of its node to tell.

        A leg that the listener heard being answered may still be up. An attempt that failed has
        no such leg: it is released, so that a caller who goes on to voicemail holds no money. A
        call whose answer the listener missed is settled from the report. After a blind transfer
        the leg lives on: where AMI is configured it is left to the listener, even if the link is
        down at the moment.
        """
        if report.answered and report.blind_transfer != "":
            return self._links.configured(call.node)
        # Without a DIALSTATUS another application than Dial was used: the listener knows better.
        heard = call.state is CallState.ANSWERED or not report.dialstatus
        return heard and self._links.up(call.node)

    def _undelivered(self, operation: Undelivered) -> Changed:
        ending = Ending(CallEvent.RELEASE, operation.at_ms, "undelivered")
        return self._changed(self._calls.get(operation.call_id), ending)

    def _expire(self, operation: Expire) -> Changed:
        call = self._calls.get(operation.call_id)
        if call is None or call.expires_at_ms > self._now_ms:
            return NOTHING
        note = "no end was seen; closed when the call could last no longer"
        ending = Ending(CallEvent.EXPIRE, operation.at_ms, "expiry", estimated=True, note=note)
        return self._changed(call, ending)

    def _changed(self, call: OpenCall | None, ending: Ending) -> Changed:
        settlement = self._settle(call, ending) if call else None
        return Changed(settled=(settlement,)) if settlement else NOTHING

    def _settle(self, call: OpenCall, ending: Ending) -> Settlement | None:
        settlement = settle(self._clients[call.client_id], call, ending, self._now_ms)
        if settlement is None:
            return None
        self._calls.remove(call)
        self._set_client(settlement.client)
        self.changes.settlements.append(settlement)
        if settlement.charge:
            self.changes.ledger.append(settlement.charge)
        return settlement

    def _set_client(self, client: ClientBooks) -> None:
        self._clients[client.id] = client
        self.changes.clients[client.id] = client


def _answered(call: OpenCall, state: CallState, event: LegAnswered) -> OpenCall:
    return replace(
        call,
        state=state,
        leg_uniqueid=event.leg_uniqueid,
        answered_at_ms=event.answered_at_ms,
        dialed_at_ms=event.dialed_at_ms,
    )
